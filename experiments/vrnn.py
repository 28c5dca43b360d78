"""VRNN on sequences, SQAIR's baseline (thesis, appendix 5.D.3): latents without structure, trained with FIVO."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from ml_collections import ConfigDict

from experiments import addition, evaluation, sequences
from experiments.evaluation import in_batches
from objcentric.data import loader
from objcentric.errors import UserError
from objcentric.models import vrnn
from objcentric.models.model import fields_of
from objcentric.plots_sequences import Strip
from objcentric.training import schedules, targets
from objcentric.training.experiment import Experiment

OBJECTIVES = ("fivo", "elbo", "iwae", "miwae", "ciwae")  # one gradient for p and q, which share networks


def build(config: ConfigDict, *, data: loader.Data | None = None) -> Experiment:
    """The experiment that ``config`` (configs/vrnn.py) describes; ``data`` takes the place of config.data's."""
    data = loader.load(config.data) if data is None else data
    check(config, data)
    num_frames, *canvas = data.test["image"].shape[1:]
    sequential = vrnn.make(model_config(config, tuple(canvas), num_frames))
    model = sequential.model
    objective = targets.make(model, config.objective, sequential=sequential)
    given, read = config.evaluate.given_frames, sequences.reader(config.model.likelihood)

    def init(key: Array) -> tuple[dict, Any]:
        return model.init(key), ()

    def loss(params: dict, batch: dict, keys: Array, step: Array, aux: Any) -> tuple[Array, tuple[dict, Any]]:
        loss, (bound, traces, aux) = objective.loss(params, *read(batch["image"], keys), {}, aux)
        metrics = {"bound": bound, "log_likelihood": traces.outputs["log_likelihood"]}
        return loss / num_frames, ({name: jnp.mean(each) / num_frames for name, each in metrics.items()}, aux)

    def trace(params: dict, image: Array, keys: Array) -> Any:
        x, keys = read(image, keys)
        return jax.vmap(model.trace, (None, 0, 0, None))(params, keys, x, {})

    @jax.jit
    def look(params: dict, image: Array, keys: Array) -> dict:
        return sequences.densities(trace(params, image, keys))

    @jax.jit
    def reconstruct(params: dict, image: Array, keys: Array) -> Array:
        return trace(params, image, keys).outputs["mean"]

    @jax.jit
    def encode(params: dict, image: Array, keys: Array) -> Array:
        return trace(params, image, keys).z

    def drawn(params: dict, state: vrnn.State, mean: Array) -> dict:
        return {"mean": mean}

    bound = evaluation.make_bound(model, config.evaluate, {}, read)
    foresee = sequences.foresee(sequential, {}, given, drawn, read)
    predict = sequences.predict(sequential, {}, read)
    dream = sequences.dream(sequential, lambda state: {}, num_frames, drawn)

    def evaluate(params: dict, split: dict, key: Array, *, final: bool) -> dict[str, Any]:
        """Figures on a split: densities in nats per sequence.

        ``final`` adds the IWAE bound, the errors of imagined and of next frames and, unless
        config.evaluate.addition_steps is 0, how well a classifier adds the digits of a frame from its latents.
        """
        look_key, *keys = jax.random.split(key, 5)
        size = config.evaluate.batch_size
        seen = in_batches(look, params, split["image"], look_key, size)
        figures = {name: float(np.mean(each)) for name, each in seen.items()}
        if final:
            of_model, of_data = (bound, foresee, predict, encode, params), (data.train, split)
            figures |= sequences.final_figures(*of_model, *of_data, keys, config.evaluate)
        return figures

    def figures(params: dict, split: dict, key: Array, evaluated: dict) -> dict[str, Any]:
        """Filmstrips and animations: reconstructions, what is imagined after the given frames, and what is dreamt."""
        look_key, imagine_key, dream_key = jax.random.split(key, 3)
        few, size = sequences.worth_showing(split["image"], config.evaluate.num_pictures), config.evaluate.batch_size
        inputs = Strip("input", few)
        seen = in_batches(reconstruct, params, few, look_key, size)
        imagined = in_batches(foresee, params, few, imagine_key, size)
        dreamt = jax.device_get(dream(params, jax.random.split(dream_key, len(few))))["mean"]
        names = sequences.frame_names(num_frames, given)
        return {
            **sequences.pictures("reconstructions", [inputs, Strip("VRNN", seen)]),
            **sequences.pictures("imagined", [inputs, *(Strip(n, imagined[n]["mean"]) for n in imagined)], names),
            **sequences.pictures("samples", [Strip("prior", dreamt)]),
        }

    return Experiment(
        data=data,
        optimizer=schedules.make_optimizer(config.optimizer, config.train.num_steps),
        init=init,
        loss=loss,
        evaluate=evaluate,
        figures=figures,
        headline=("elbo",),
        signature=None,
    )


def model_config(config: ConfigDict, canvas: tuple[int, int, int], num_frames: int) -> vrnn.Config:
    """The model's typed config; canvas and length come from the data."""
    return vrnn.Config(canvas=canvas, num_frames=num_frames, **fields_of(config.model))


def check(config: ConfigDict, data: loader.Data) -> None:
    """UserError where parts of the config, or config and data, disagree."""
    name = config.objective.name
    if name not in OBJECTIVES:
        wrong = "teaches p and q apart, or discrete latents, and VRNN's p and q share networks"
        wrong = wrong if name in targets.TARGETS else "is unknown"
        raise UserError(f"objective.name={name!r} {wrong}: use one of {', '.join(OBJECTIVES)}")
    sequences.check(config.evaluate, data.test["image"])
    addition.check(config.evaluate, data.test)
