"""AIR on images of several objects: counts, locates and describes them without labels."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from ml_collections import ConfigDict

from experiments import addition, evaluation
from experiments.evaluation import in_batches
from objcentric import plots
from objcentric.data import loader
from objcentric.errors import UserError
from objcentric.metrics import boxes as box_metrics
from objcentric.metrics import counting
from objcentric.models import air
from objcentric.models.model import fields_of
from objcentric.training import schedules, targets
from objcentric.training.experiment import Experiment

SCHEDULED = {"presence_prior": 1.0, "presence_margin": 0.4}  # fields of config.model that follow the step; at most


def build(config: ConfigDict, *, data: loader.Data | None = None) -> Experiment:
    """The experiment that ``config`` (configs/base.py) describes; ``data`` takes the place of config.data's."""
    whole = loader.load(config.data) if data is None else data
    check(config, whole)
    data, num_frames = apart(whole)
    model_fields = model_config(config, data.test["image"].shape[1:])
    model = air.make(model_fields)
    scheduled = {name: schedules.geometric(**config.model[name]) for name in SCHEDULED}
    # Wake-sleep's dreams need an order of the objects; draws of the prior must be such as the prior has them.
    dreaming = model._replace(generate=in_order(model.generate))
    objective = targets.make(dreaming, config.objective, defensive=targets.prior(model))
    fitting = config.evaluate.fit_count_prior
    learned = fitting or model_fields.count_prior == "learned"
    judge = air.make(dataclasses.replace(model_fields, count_prior="learned")) if fitting else model
    counted = "count" in data.test

    def init(key: Array) -> tuple[dict, Any]:
        model_key, objective_key = jax.random.split(key)
        baseline, aux = objective.init(objective_key, data.test["image"][0])
        return model.init(model_key) | {"baseline": baseline}, aux

    def loss(params: dict, batch: dict, keys: Array, step: Array, aux: Any) -> tuple[Array, tuple[dict, Any]]:
        x, noise = images(batch["image"], keys)
        hparams = {name: schedule(step) for name, schedule in scheduled.items()}
        loss, (bound, traces, aux) = objective.loss(params, x, noise, hparams, aux)
        metrics = {
            "bound": jnp.mean(bound),
            "log_likelihood": jnp.mean(traces.outputs["log_likelihood"]),
            "count": jnp.mean(jnp.sum(traces.z["presence"], -1)),
        } | hparams
        return loss, (metrics, aux)

    def images(image: Array, keys: Array) -> tuple[Array, Array]:
        """Images ``[B, H, W, C]`` in [0, 1], drawn anew as binary ones for a Bernoulli likelihood, and unused keys."""
        x = image.astype(jnp.float32) / 255
        keys = jax.vmap(jax.random.split)(keys)
        if config.model.likelihood == "bernoulli":
            x = jax.vmap(jax.random.bernoulli)(keys[:, 0], x).astype(jnp.float32)
        return x, keys[:, 1]

    annealed = {name: jnp.float32(config.model[name].end) for name in SCHEDULED}

    @jax.jit
    def look(params: dict, image: Array, keys: Array) -> dict:
        x, noise = images(image, keys)
        trace = jax.vmap(judge.trace, (None, 0, 0, None))(params, noise, x, annealed)
        log_likelihood = trace.outputs["log_likelihood"]
        # q that slot i + 1 is present supposes that slot i is, but the recurrence over latents has seen it sampled.
        all_present = trace.z | {"presence": jnp.ones_like(trace.z["presence"])}
        score = jax.vmap(lambda key, x, z: judge.trace(params, key, x, annealed, z=z))(noise, x, all_present)
        presence_prob = score.outputs["presence_prob"]
        return {
            "elbo": trace.log_p - trace.log_q,
            "log_likelihood": log_likelihood,
            "kl": trace.log_q - (trace.log_p - log_likelihood),
            "count": counting.most_probable_count(presence_prob),
            "drawn": jnp.sum(trace.z["presence"], -1),
            "boxes": trace.outputs["boxes"],
            "extents": trace.outputs["extents"],
            "scores": jnp.cumprod(presence_prob, -1),
        }

    bound = evaluation.make_bound(judge, config.evaluate, annealed, images)

    @jax.jit
    def encode(params: dict, image: Array, keys: Array) -> Array:
        """z^what of all slots ``[B, T, N what_dim]`` of sequences, 0 where there is no object."""

        def one(image: Array, key: Array) -> Array:
            x, noise = images(image, jax.random.split(key, num_frames))
            z = jax.vmap(judge.trace, (None, 0, 0, None))(params, noise, x, annealed).z
            return (z["what"] * z["presence"][..., None]).reshape(num_frames, -1)

        return jax.vmap(one)(image, keys)

    def fitted(params: dict, key: Array) -> dict:
        """``params`` with the prior of counts that fits q's draws on training examples, to which one of each is added.

        Of frames of sequences, counts are taken to be independent, as AIR has it.
        """
        if not fitting:
            return params

        def of(logits: Array) -> dict:
            return params | {"generative": params["generative"] | {"count_logits": logits}}

        size = config.model.num_steps + 1
        few = loader.first(data.train, evaluation.FITTED)["image"]
        drawn = in_batches(look, of(jnp.zeros(size)), few, key, config.evaluate.batch_size)["drawn"]
        return of(jnp.log(np.bincount(drawn.round().astype(int), minlength=size) + jnp.ones(size)))

    def evaluate(params: dict, split: dict, key: Array, *, final: bool) -> dict[str, Any]:
        """Figures on a split: densities in nats per image, counting and boxes where the split is annotated.

        Counting is of q's mode. Of the frames of sequences it is of a draw of q, and ``count_accuracy_mode`` of the
        mode, densities are in nats per sequence, as the models of sequences have them; counting is of the objects that
        are there, in view or not, and boxes are of those that are in view, of all frames.
        ``mean_iou`` and the precisions are of the tight boxes of the drawn objects, ``glimpse_iou`` of their glimpses.
        Scheduled values are those at the end of their schedule; the prior of counts is fitted if config.evaluate says
        so. ``final`` adds the IWAE bound of the first ``evaluate.num_examples`` images, or sequences, and of the test
        sequences, unless config.evaluate.addition_steps is 0, how well a classifier adds the digits of a frame from its
        latents.
        """
        look_key, bound_key = jax.random.split(key)
        params = fitted(params, jax.random.fold_in(key, 3))
        seen = in_batches(look, params, split["image"], look_key, config.evaluate.batch_size)
        figures = {name: num_frames * float(np.mean(seen[name])) for name in ("elbo", "log_likelihood", "kl")}
        if counted:
            classes = max(config.model.num_steps, int(split["count"].max())) + 1
            matrix = counting.confusion_matrix(seen["count"], split["count"], classes)
            right = {name: float(counting.count_accuracy(seen[name], split["count"])) for name in ("count", "drawn")}
            if num_frames == 1:
                figures["count_accuracy"] = right["count"]
            else:
                figures |= {"count_accuracy": right["drawn"], "count_accuracy_mode": right["count"]}
            figures["confusion"] = np.asarray(matrix).tolist()
        if "boxes" in split:
            found = np.arange(config.model.num_steps) < seen["count"][:, None]
            there = np.arange(split["boxes"].shape[1]) < split["count"][:, None]
            true = split["visibility"] > 0 if "visibility" in split else there
            figures["glimpse_iou"] = box_metrics.mean_iou(seen["boxes"], found, split["boxes"], true)
            figures["mean_iou"] = box_metrics.mean_iou(seen["extents"], found, split["boxes"], true)
            arguments = (seen["extents"], seen["scores"], found, split["boxes"], true)
            figures["average_precision"] = box_metrics.average_precision(*arguments)
            figures["mean_average_precision"] = box_metrics.mean_average_precision(*arguments)
        if final:
            few = split["image"][: num_frames * config.evaluate.num_examples]
            values = in_batches(bound, params, few, bound_key, config.evaluate.batch_size)
            figures[f"iwae_{config.evaluate.num_particles}"] = num_frames * float(np.mean(values["iwae"]))
        if final and config.evaluate.addition_steps:
            figures |= addition.evaluate(
                encode, params, whole.train, whole.test, jax.random.fold_in(key, 2), config.evaluate
            )
        return figures

    @jax.jit
    def pictures(params: dict, image: Array, keys: Array) -> dict:
        x, noise = images(image, keys)
        z = jax.vmap(judge.trace, (None, 0, 0, None))(params, noise, x, annealed).z
        return {"x": x, "z": z, "count": jnp.sum(z["presence"], -1)} | jax.vmap(model.render, (None, 0))(params, z)

    render = jax.jit(jax.vmap(model.render, (None, 0)))

    @jax.jit
    def imagine(params: dict, keys: Array) -> Array:
        # The annealed prior asks for empty scenes; equally likely counts show what the objects look like.
        z, _ = jax.vmap(judge.generate, (None, 0, None))(params, keys, annealed | {"presence_prior": jnp.ones(())})
        return render(params, z)["mean"]

    def figures(params: dict, split: dict, key: Array, evaluated: dict) -> dict[str, Any]:
        """Reconstructions with glimpses and objects, samples of the prior, interpolations, and the confusion matrix."""
        look_key, sample_key = jax.random.split(key)
        params = fitted(params, jax.random.fold_in(key, 3))
        seen = in_batches(pictures, params, split["image"][:200], look_key, config.evaluate.batch_size)
        few = config.evaluate.num_pictures
        drawn = {
            "reconstructions": plots.reconstructions(
                *(seen[name][:few] for name in ("x", "mean", "boxes")),
                seen["z"]["presence"][:few],
                seen["objects"][:few],
                split["count"][:few] if counted else None,
            )
        }
        if config.model.background == "none" or config.model.background_dim:
            drawn["samples"] = plots.samples(
                imagine(params, jax.random.split(sample_key, 32)),
                "Samples of the prior" + ("" if learned else ", every count equally likely"),
            )
        if len(pairs := matching_pairs(seen["count"])):
            drawn["interpolation"] = plots.interpolation(
                np.stack([interpolate(render, params, seen["z"], first, second) for first, second in pairs])
            )
        if counted:
            drawn["confusion"] = plots.confusion(evaluated["confusion"])
        return drawn

    def signature(figures: dict) -> str | None:
        return counting.failure_signature(figures["count_accuracy"], np.asarray(figures["confusion"]))

    return Experiment(
        data=data,
        optimizer=schedules.make_optimizer(config.optimizer, config.train.num_steps),
        init=init,
        loss=loss,
        evaluate=evaluate,
        figures=figures,
        headline=(*(["count_accuracy"] if counted else ["elbo"]), *(["mean_iou"] if "boxes" in data.test else [])),
        # Of single frames that hide objects, or lack those out of view, no one can ask a success.
        signature=signature if counted and num_frames == 1 else None,
    )


def apart(data: loader.Data) -> tuple[loader.Data, int]:
    """Data whose images are single ones, and how many make up a sequence: the frames of sequences one by one, or 1."""
    shape = data.test["image"].shape
    return (data, 1) if len(shape) == 4 else (loader.Data(*(loader.frames(split) for split in data)), shape[1])


def in_order(generate: Callable) -> Callable:
    """``generate`` with the objects ordered by their distance to the upper left corner.

    The model's objects come in any order, but what is to be learnt from its draws, as wake-sleep does, needs one.
    """

    def ordered(params: dict, key: Array, hparams: dict) -> tuple[dict, Array]:
        z, x = generate(params, key, hparams)
        distance = jnp.sum(jnp.square(jnp.tanh(z["where"][:, 1:]) + 1), -1)
        order = jnp.argsort(jnp.where(z["presence"] > 0, distance, jnp.inf))
        return z | {name: z[name][order] for name in ("presence", "where", "what")}, x

    return ordered


def model_config(config: ConfigDict, canvas: tuple[int, int, int]) -> air.Config:
    """The model's typed config; the canvas comes from the data."""
    fields = fields_of(config.model)
    return air.Config(canvas=tuple(canvas), **{name: fields[name] for name in fields if name not in SCHEDULED})


def check(config: ConfigDict, data: loader.Data) -> None:
    """UserError where parts of the config, or config and data, disagree."""
    targets.check_discrete(config.objective)
    counted = (split["count"] for split in data if isinstance(split, dict) and "count" in split)
    most = max((int(count.max()) for count in counted), default=0)
    if most > config.model.num_steps:
        raise UserError(f"scenes hold up to {most} objects, model.num_steps={config.model.num_steps}: set it to {most}")
    evaluation.check(config.evaluate)
    addition.check(config.evaluate, data.test)
    evaluation.check_scheduled(config.model, SCHEDULED)
    if config.evaluate.fit_count_prior and config.model.count_prior == "learned":
        raise UserError("model.count_prior='learned' needs no fit: set evaluate.fit_count_prior=False")


def matching_pairs(counts: np.ndarray, most: int = 6) -> list[tuple[int, int]]:
    """Pairs of scenes with the same number of objects, most objects first."""
    pairs = []
    for count in range(int(counts.max()), 0, -1):
        rows = np.flatnonzero(counts == count)[:6]
        pairs += list(zip(rows[::2], rows[1::2], strict=False))
    return pairs[:most]


def interpolate(render: Callable, params: dict, z: dict, first: int, second: int, steps: int = 9) -> np.ndarray:
    """Images ``[steps, H, W, C]``, by ``render(params, z [steps, ...])``, on the way between two rows of ``z``."""
    weights = np.linspace(0, 1, steps, dtype=np.float32)
    between = jax.tree.map(lambda leaf: np.stack([(1 - w) * leaf[first] + w * leaf[second] for w in weights]), z)
    return np.asarray(render(params, between)["mean"])
