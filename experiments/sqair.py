"""SQAIR on sequences: discovers, tracks and imagines moving objects without labels (thesis, chapter 5)."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from ml_collections import ConfigDict

from experiments import addition, curriculum, evaluation, sequences
from experiments.evaluation import in_batches
from objcentric import objectives
from objcentric.data import loader
from objcentric.errors import UserError
from objcentric.metrics import boxes as box_metrics
from objcentric.metrics import counting, tracking
from objcentric.models import sqair
from objcentric.models.model import fields_of
from objcentric.plots_sequences import Strip
from objcentric.training import schedules, targets
from objcentric.training.experiment import Experiment

OBJECTIVES = (
    *("vimco", "vimco_arithmetic", "vimco_as_released", "ciwae_vimco", "rloo", "reinforce", "ww", "fivo"),
    *("elbo", "iwae", "miwae", "ciwae", "piwae"),  # pathwise: presence learns nothing
)
# Fields of config.model that follow the step, and the most they may be
SCHEDULED = {"presence_prior": 1.0, "rediscovery_factor": 1.0, "presence_margin": 0.4}
_NEVER = 1e-20  # a factor below which the prior has no late discoveries


def build(config: ConfigDict, *, data: loader.Data | None = None) -> Experiment:
    """The experiment that ``config`` (configs/sqair.py) describes; ``data`` takes the place of config.data's."""
    data = loader.load(config.data) if data is None else data
    check(config, data)
    num_frames = data.test["image"].shape[1]
    model_fields = model_config(config, data.test["image"].shape[2:], num_frames)
    sequential = sqair.make(model_fields)
    fitting = config.evaluate.fit_count_prior
    learned = fitting or model_fields.discovery_prior == "learned"
    judge = sqair.make(dataclasses.replace(model_fields, discovery_prior="learned")) if fitting else sequential
    scheduled = {name: schedules.geometric(**config.model[name]) for name in SCHEDULED}
    others = {"vimco_as_released": targets.multi_sample(vimco_as_released)}
    objective = targets.make(sequential.model, config.objective, sequential=sequential, others=others)
    counted = "count" in data.test
    given, read = config.evaluate.given_frames, sequences.reader(config.model.likelihood)

    def init(key: Array) -> tuple[dict, Any]:
        model_key, objective_key = jax.random.split(key)
        baseline, aux = objective.init(objective_key, data.test["image"][0])
        return sequential.model.init(model_key) | {"baseline": baseline}, aux

    def loss(params: dict, batch: dict, keys: Array, step: Array, aux: Any) -> tuple[Array, tuple[dict, Any]]:
        hparams = {name: schedule(step) for name, schedule in scheduled.items()}
        x, keys = read(batch["image"], keys)
        loss, (bound, traces, aux) = objective.loss(params, x, keys, hparams, aux)
        frames = x.shape[1]  # the authors' release, too, divides by the number of frames
        metrics = {
            "bound": jnp.mean(bound) / frames,
            "log_likelihood": jnp.mean(traces.outputs["log_likelihood"]) / frames,
            "count": jnp.mean(jnp.sum(traces.outputs["objects"].presence, -1)),
            "discovered": jnp.mean(jnp.sum(traces.z.discovered.presence, (-2, -1))),
        } | hparams
        return loss / frames, (metrics, aux)

    annealed = {name: jnp.float32(config.model[name].end) for name in SCHEDULED}

    def trace(params: dict, image: Array, keys: Array, temperature: Array | float = 1.0) -> Any:
        x, keys = read(image, keys)
        return jax.vmap(judge.model.trace, (None, 0, 0, None))(params, keys, x, annealed | {"temperature": temperature})

    @jax.jit
    def look(params: dict, image: Array, keys: Array, temperature: Array | float) -> dict:
        traces = trace(params, image, keys, temperature)
        return sequences.densities(traces) | {
            "found": traces.outputs["objects"].presence,
            "discovered": jnp.sum(traces.z.discovered.presence, -1),
            "identity": traces.outputs["identity"],
            "extents": traces.outputs["extents"],
        }

    @jax.jit
    def reconstruct(params: dict, image: Array, keys: Array) -> dict:
        outputs = trace(params, image, keys).outputs
        return {name: outputs[name] for name in ("mean", "boxes", "identity")} | {
            "presence": outputs["objects"].presence
        }

    @jax.jit
    def encode(params: dict, image: Array, keys: Array) -> Array:
        """z^what of all slots ``[B, T, N what_dim]``, 0 where there is no object."""
        objects = trace(params, image, keys).outputs["objects"]
        return (objects.what * objects.presence[..., None]).reshape(*image.shape[:2], -1)

    def drawn(params: dict, state: sqair.State, mean: Array) -> dict:
        objects, none = state.objects, state.objects._replace(presence=jnp.zeros_like(state.objects.presence))
        frames = jax.tree.map(lambda leaf: leaf[None], sqair.Frame(objects, none))
        pictures = jax.tree.map(lambda leaf: leaf[0], sequential.model.render(params, frames))
        seen = {name: pictures[name] for name in ("glimpses", "boxes")}
        return seen | {"mean": mean, "presence": objects.presence, "identity": state.identity}

    def dreamt(state: sqair.State) -> dict:
        """An annealed prior is as it was at first, in the first frame: any number of objects is as likely."""
        return annealed | {"presence_prior": jnp.where(state.first > 0, 1.0, annealed["presence_prior"])}

    bound = evaluation.make_bound(judge.model, config.evaluate, annealed, read)
    foresee = sequences.foresee(judge, annealed, given, drawn, read)
    predict = sequences.predict(judge, annealed, read)
    dream = sequences.dream(judge, dreamt, num_frames, drawn)

    def fitted(params: dict, key: Array) -> dict:
        """``params`` with the prior of new objects that fits q's draws on training sequences (`discovery_table`)."""
        if not fitting:
            return params

        def of(logits: Array) -> dict:
            return params | {"generative": params["generative"] | {"discovery_logits": logits}}

        slots = config.model.num_objects
        draw = functools.partial(look, temperature=1.0)
        blank = of(jnp.zeros((2, slots + 1, slots + 1)))  # q does not depend on it
        few = loader.first(data.train, evaluation.FITTED)["image"]
        seen = in_batches(draw, blank, few, key, config.evaluate.batch_size)
        return of(discovery_table(seen["found"].sum(-1) - seen["discovered"], seen["discovered"], slots))

    def evaluate(params: dict, split: dict, key: Array, *, final: bool) -> dict[str, Any]:
        """Figures on a split: densities in nats per sequence, counting, boxes and identities where it is annotated.

        ``count_accuracy`` is over all frames, ``count_accuracy_t`` of each; ``count_constant`` that of the best number
        that is always the same; ``discovered_t`` the new objects of each frame.
        ``surplus`` is how many more objects of a sequence were new after its first frame than there truly were, and
        ``rediscovered`` how many were known before (`tracking.rediscoveries`).
        Tracking (final, with the extra ``tracking``) is of the objects in view, found or true. All these are of one
        draw of q; ``final`` adds those of q's mode, variable by variable (names end in ``_mode``), the IWAE bound, the
        errors of imagined and of next frames, how far objects are from their paths in the likeliest imagined frames
        (`tracking.path_errors`), how their looks change there (`tracking.look_errors`) and, unless
        config.evaluate.addition_steps is 0, how well a classifier adds the digits of a frame from its latents.
        The prior of new objects is the fitted one, if config.evaluate says so.
        """
        look_key, fit_key, *keys = jax.random.split(key, 6)
        params = fitted(params, fit_key)
        size = config.evaluate.batch_size
        draw, mode = (functools.partial(look, temperature=t) for t in (1.0, 0.0))
        seen = in_batches(draw, params, split["image"], look_key, size)
        figures = {name: float(np.mean(seen[name])) for name in ("elbo", "log_likelihood", "kl")}
        figures["discovered_t"] = np.mean(seen["discovered"], 0).tolist()
        if counted:
            figures["surplus"] = float(np.sum((figures["discovered_t"] - born(split))[1:]))
            figures["count_constant"] = float(np.bincount(split["count"].ravel()).max() / split["count"].size)
        tracked = final and "boxes" in split and tracking.available("MOTA, IDF1 and identity switches")
        figures |= judged(seen, split, tracked)
        if final and (counted or "boxes" in split):
            seen = in_batches(mode, params, split["image"], look_key, size)
            figures |= {f"{name}_mode": value for name, value in judged(seen, split, tracked).items()}
        if final:
            of_model, of_data = (bound, foresee, predict, encode, params), (data.train, split)
            figures |= sequences.final_figures(*of_model, *of_data, keys, config.evaluate)
        return figures

    def judged(seen: dict, split: dict, tracked: bool) -> dict[str, Any]:
        """Figures of what was `look`ed at, where the split says what is there; if ``tracked`` those of identities."""
        figures = {}
        if counted:
            right = seen["found"].sum(-1) == split["count"]
            figures["count_accuracy"] = float(np.mean(right))
            figures["count_accuracy_t"] = np.mean(right, 0).tolist()
            figures["sequence_accuracy"] = float(np.mean(right.all(1)))
        if "boxes" in split:
            there = (split["presence"] > 0) & (split["visibility"] > 0)
            arguments = (merged(seen["extents"]), merged(seen["found"]) > 0, merged(split["boxes"]), merged(there))
            figures["mean_iou"] = box_metrics.mean_iou(*arguments)
            found = (seen["found"] > 0) & in_view(seen["extents"], split["image"].shape[2:4])
            tracks = seen["extents"], found, seen["identity"], split["boxes"], there
            figures["rediscovered"] = tracking.rediscoveries(*tracks)
            if tracked:
                figures |= tracking.evaluate(*tracks)
        return figures

    def figures(params: dict, split: dict, key: Array, evaluated: dict) -> dict[str, Any]:
        """Filmstrips and animations: what is seen, what is imagined after the given frames, and what is dreamt."""
        look_key, imagine_key, dream_key, fit_key = jax.random.split(key, 4)
        params = fitted(params, fit_key)
        few, size = sequences.worth_showing(split["image"], config.evaluate.num_pictures), config.evaluate.batch_size
        seen = in_batches(reconstruct, params, few, look_key, size)
        imagined = in_batches(foresee, params, few, imagine_key, size)
        samples = jax.device_get(dream(params, jax.random.split(dream_key, len(few))))
        inputs = Strip("input", few)
        names = sequences.frame_names(num_frames, given)
        title = "" if learned else "any number of objects in the first frame"
        return {
            **sequences.pictures("tracking", [inputs, strip("SQAIR", seen)]),
            **sequences.pictures("imagined", [inputs, *(strip(name, imagined[name]) for name in imagined)], names),
            **sequences.pictures("samples", [strip("prior", samples)], title=title),
        }

    def signature(figures: dict) -> str | None:
        return failure(figures["count_accuracy"], figures["discovered_t"], born(data.test))

    return Experiment(
        data=data,
        optimizer=schedules.make_optimizer(config.optimizer, config.train.num_steps),
        init=init,
        loss=loss,
        evaluate=evaluate,
        figures=figures,
        headline=(*(["count_accuracy"] if counted else ["elbo"]), *(["mean_iou"] if "boxes" in data.test else [])),
        # What share can be asked for is known of moving digits alone.
        signature=signature if counted and config.data.name == "moving_digits" else None,
        stages=curriculum.stages(config.curriculum, num_frames, lambda batch, n: {"image": batch["image"][:, :n]}),
    )


def vimco_as_released(log_w: Array, log_q: Array) -> objectives.Estimate:
    """What the authors' release calls VIMCO: ``L + 1/K sum_k sg(log_w_k - Y_{-k}) log q_k``.

    The discrete part of q follows the ELBO of one particle, not L: see tests/objectives/test_defects.py.
    """
    bound = objectives.log_mean_exp(log_w)
    signal = jax.lax.stop_gradient(log_w - objectives.leave_one_out(log_w))
    return objectives.Estimate(bound, bound + jnp.mean(signal * log_q, -1))


def born(split: dict) -> np.ndarray:
    """How many objects appear in each frame ``[T]``, on average; without ``presence``, those by which counts grow."""
    there = split["presence"] if "presence" in split else split["count"][..., None]
    return np.maximum(np.diff(there.astype(int), axis=1, prepend=0), 0).sum(-1).mean(0)


def discovery_table(propagated: np.ndarray, discovered: np.ndarray, slots: int) -> Array:
    """log p(D_t | P_t) ``[2, N + 1, N + 1]`` (eq. 5.8) of the first frame, and of all later ones.

    These are the shares of the numbers ``[M, T]`` of propagated and discovered objects, to which one of each is added.
    """
    table = np.ones((2, slots + 1, slots + 1))
    later = np.broadcast_to(np.arange(propagated.shape[1]) > 0, propagated.shape).astype(int)
    np.add.at(table, (later, propagated.round().astype(int), discovered.round().astype(int)), 1)
    return jnp.log(jnp.asarray(table / table.sum(-1, keepdims=True), jnp.float32))


def in_view(boxes: np.ndarray, canvas: tuple[int, int]) -> np.ndarray:
    """Which boxes ``[..., 4]`` overlap a canvas of this height and width."""
    return (boxes[..., 2:] > 0).all(-1) & (boxes[..., :2] < np.array(canvas)).all(-1)


def failure(count_accuracy: float, discovered_t: list[float], born_t: np.ndarray) -> str | None:
    """The failures of appendix 5.G, by their signature; None for a success."""
    surplus = np.asarray(discovered_t) - born_t
    later = np.sum(surplus[1:])
    if later > 0.5 * np.sum(born_t):
        if surplus[1] > 0.8 * later:
            return "objects are discovered again in the second frame"
        return "objects are discovered again and again"
    if count_accuracy >= counting.SUCCESS:
        return None
    return "miscounted, for an unknown reason" if np.sum(discovered_t) > 0.1 * np.sum(born_t) else "always none"


def strip(name: str, frames: dict) -> Strip:
    return Strip(name, *(frames[field] for field in ("mean", "boxes", "presence", "identity")))


def model_config(config: ConfigDict, canvas: tuple[int, int, int], num_frames: int) -> sqair.Config:
    """The model's typed config; canvas and length come from the data."""
    fields = fields_of(config.model)
    fields = {name: value for name, value in fields.items() if name not in SCHEDULED}
    return sqair.Config(canvas=tuple(canvas), num_frames=num_frames, **fields)


def check(config: ConfigDict, data: loader.Data) -> None:
    """UserError where parts of the config, or config and data, disagree."""
    name = config.objective.name
    if name not in OBJECTIVES:
        wrong = "is not for growing sequences, or not for discrete latents" if name in targets.TARGETS else "is unknown"
        raise UserError(f"objective.name={name!r} {wrong}: use one of {', '.join(OBJECTIVES)}")
    if config.objective.name == "fivo" and config.objective.num_groups < 2:
        raise UserError(
            "objective.name='fivo' needs two or more filters, of which each is the baseline of the others: set"
            " objective.num_groups=2 and an even objective.num_particles"
        )
    most = config.data.get("max_objects", 0)  # of crops, which may have no counts
    if most > config.model.num_objects:
        raise UserError(
            f"data.max_objects={most} is more than model.num_objects={config.model.num_objects}: set one or the other"
        )
    counts = [split["count"] for split in data if isinstance(split, dict) and "count" in split]
    most = max((int(count.max()) for count in counts), default=0)
    if most > config.model.num_objects:
        raise UserError(
            f"frames hold up to {most} objects, model.num_objects={config.model.num_objects}: set it higher"
        )
    factor = config.model.rediscovery_factor
    if config.model.discovery_prior == "annealed" and config.data.get("appear") == "any_time" and factor.end < _NEVER:
        raise UserError(
            f"data.appear='any_time' has objects that model.rediscovery_factor.end={factor.end:g} all but forbids after"
            " the first frame: start from configs/sqair.py:any_time"
        )
    sequences.check(config.evaluate, data.test["image"])
    curriculum.check(config.curriculum, data.test["image"].shape[1], config.train.num_steps)
    addition.check(config.evaluate, data.test)
    evaluation.check_scheduled(config.model, SCHEDULED)
    if config.evaluate.fit_count_prior and config.model.discovery_prior == "learned":
        raise UserError("model.discovery_prior='learned' needs no fit: set evaluate.fit_count_prior=False")


def merged(array: np.ndarray) -> np.ndarray:
    """``[M, T, ...] -> [M T, ...]``."""
    return np.reshape(array, (-1, *np.shape(array)[2:]))
