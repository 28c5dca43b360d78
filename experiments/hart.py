"""HART and MOHART: tracks objects whose boxes are given, in toy worlds or in videos (thesis, chapters 3 and 4)."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array
from ml_collections import ConfigDict

from experiments import curriculum, guidance
from experiments.evaluation import in_batches
from objcentric import plots_tracking
from objcentric import tracker as trackers
from objcentric.data import circles, loader
from objcentric.errors import UserError
from objcentric.metrics import following, tracking
from objcentric.models import hart, tracking_losses
from objcentric.nn import boxes as jax_boxes
from objcentric.training.experiment import Experiment

MODES = ("tracking", "blackout", "prediction")  # all frames shown; a run of black ones; black after the first two
GIVEN = 2  # frames that are shown before predictions
FORESEEN = 3  # black frames after them that count (thesis, figure 4.7)
UNSEEN = 0.35  # brightness of black frames in pictures


class Clip(NamedTuple):
    """A sequence; the boxes reach ``task.ahead`` frames further than the frames."""

    x: Array  # [T, H, W, C] in [0, 1]
    boxes: Array  # [T + ahead, M, 4]
    there: Array  # [T + ahead, M] 0 or 1
    known: Array  # [T + ahead, M] 0 or 1, whether it is known if an object is there
    filmed: Array  # [T] 0 or 1; 0 after the end of a short video


def build(config: ConfigDict, *, data: loader.Data | None = None) -> Experiment:
    """What ``config`` (configs/mohart_toy.py, mohart.py) describes; ``data`` takes the place of config.data's."""
    check(config)  # before videos are decoded
    data = loader.load(config.data) if data is None else data
    task, ahead = config.task, config.task.ahead
    tracker, canvas = trackers.make(config, config.data.num_objects)
    num_frames = config.data.num_frames
    read, look = reader(config.data, num_frames, ahead), looker(config)
    terms = trackers.terms(config)
    guide = guidance.make(config.guidance)

    def loss(params: dict, batch: dict, keys: Array, step: Array, aux: Any) -> tuple[Array, tuple[dict, Any]]:
        def one(row: dict, key: Array) -> tuple[dict, Array]:
            key, when, dark_key, guide_key = jax.random.split(key, 4)
            clip = read(row, config.curriculum.identity_bias * guidance.share(config.curriculum.identity_steps, step))
            dark = jax.random.bernoulli(when, task.blackout) & black(dark_key, len(clip.x), task.black_frames)
            told = clip.there[: len(clip.x)]
            first = clip.boxes[0], clip.there[0]
            guided = guide(guide_key, clip.boxes[: len(clip.x)], told, step) if config.guidance.steps else None
            seen = hart.follow(tracker, params["tracker"], key, hide(clip, dark).x, *first, told, guided)
            values, weights = losses(clip, seen, canvas, ahead)
            if tracker.distance:
                values["features"], weights["features"] = distances(params, clip, seen), weights["tracking"]
            values["iou"], weights["iou"] = overlap(clip, seen, ahead), weights["tracking"]
            # Of each sequence a mean, not of the batch, which may be shared among devices; of filters (section 3.4) of
            # all frames and trackers, whether there is an object or not.
            means = {name: mean_where(values[name], weights[name]) for name in ("iou", *terms)}
            return means, jnp.sum(jnp.square(jnp.mean(seen.filters, (0, 1))))

        means, filters = jax.tree.map(jnp.mean, jax.vmap(one)(batch, keys))
        balance = params["balance"] if task.learn_weights else dict.fromkeys(terms, 0.0)
        total = sum(jnp.exp(balance[name]) * means[name] - balance[name] for name in terms)
        learnt = {name: part for name, part in params["tracker"].items() if name not in tracker.fixed}
        total += task.decay * (norms(learnt) + filters / 2)
        return total, (means | {f"lambda_{name}": jnp.exp(balance[name]) for name in terms}, aux)

    def distances(params: dict, clip: Clip, seen: hart.Seen) -> Array:
        """RATM's loss ``[T - 1, M]`` from the second frame on."""

        def frame(x: Array, boxes: Array, true: Array) -> Array:
            return jax.vmap(lambda box, true: tracker.distance(params["tracker"], x, box, true))(boxes, true)

        return jax.vmap(frame)(clip.x[1:], seen.boxes[1:], somewhere(clip, canvas)[1 : len(clip.x)])

    @jax.jit
    def boxes_of(params: dict, rows: dict, keys: Array, mode: int) -> dict:
        looked = look(params, rows, keys, mode)
        seen = looked["seen"]
        return {name: looked[name] for name in ("true", "there", "known", "filmed", "dark")} | {
            "boxes": seen.boxes,
            "found": nn.sigmoid(seen.presence) > 0.5,
        }

    def evaluate(params: dict, split: Any, key: Array, *, final: bool) -> dict[str, Any]:
        """Figures on a split, of boxes from the second frame on; ``final`` adds curves, and those that take their time.

        Names of what is measured with black frames begin with their mode, see `figures_of`.
        """
        figures = {}
        for i, mode in enumerate(modes(config)):
            seen = in_batches(functools.partial(boxes_of, mode=i), params, split, key, config.evaluate.batch_size)
            prefix = "" if mode == "tracking" else f"{mode}_"
            measured = num_frames if config.data.name == "circles" else seen["dark"].shape[1]
            figures |= {f"{prefix}{n}": each for n, each in figures_of(mode, seen, ahead, measured, final).items()}
        return figures

    def figures(params: dict, split: Any, key: Array, evaluated: dict) -> dict[str, Any]:
        """Sequences with boxes, attention and glimpses, as strips and animations; IoU over time; the curves of OTB."""
        few = loader.take(split, range(min(config.evaluate.num_pictures, loader.size(split))))
        drawn = {}
        for number, mode in enumerate(modes(config)):
            seen = jax.device_get(look(params, few, jax.random.split(key, len(jax.tree.leaves(few)[0])), number))
            for i in range(len(seen["x"])):
                clip = jax.tree.map(lambda leaf, i=i: leaf[i], seen)
                shown, weights = drawing(clip, ahead), clip["seen"].weights
                drawn[f"{mode}_{i + 1}"] = plots_tracking.tracks(
                    **shown, weights=weights if weights.size else None, notes=notes(clip, ahead)
                )
                drawn[f"{mode}_{i + 1}_film"] = plots_tracking.animation(**shown)
        return drawn | curves(evaluated)

    experiment = trackers.skeleton(config)._replace(
        data=data, loss=loss, evaluate=evaluate, figures=figures, headline=("mean_iou",)
    )
    return experiment._replace(stages=curriculum.stages(config.curriculum, num_frames, cut))


def looker(config: ConfigDict) -> Callable:
    """``(params, rows, keys, mode) -> dict``: what trackers, given the first boxes, see of sequences.

    ``mode`` is a place in `MODES`: one program has them all.
    """
    tracker, _ = trackers.make(config, config.data.num_objects)
    read = reader(config.data, frames_tested(config), config.task.ahead)

    def one(params: dict, row: dict, key: Array, mode: int) -> dict:
        clip = read(row)
        length = len(clip.x)
        frames = jnp.arange(length)
        dark = jnp.stack([frames < 0, black(key, length, config.task.black_frames), frames >= GIVEN])[mode]
        shown = hide(clip, dark)
        seen = hart.follow(tracker, params["tracker"], None, shown.x, clip.boxes[0], clip.there[0])
        told = {"true": clip.boxes, "there": clip.there, "known": clip.known, "filmed": clip.filmed}
        return told | {"x": clip.x, "dark": dark, "seen": seen}

    @jax.jit
    def look(params: dict, rows: dict, keys: Array, mode: int) -> dict:
        return jax.vmap(lambda row, key: one(params, row, key, mode))(rows, keys)

    return look


def modes(config: ConfigDict) -> tuple[str, ...]:
    """Those of `MODES` that there are: where later frames are predicted, none is black."""
    return MODES if config.task.ahead == 0 else MODES[:1]


def frames_tested(config: ConfigDict) -> int:
    """Length of the sequences that are tested on: they may go on for longer than in training."""
    if config.data.name == "circles":
        return config.evaluate.num_frames
    return config.data.test_frames or config.data.num_frames


def reader(c: ConfigDict, num_frames: int, ahead: int) -> Callable:
    """``(row, bias=0) -> Clip`` of config.data; toy worlds have ``num_frames``, or those of the curriculum, see `cut`,
    and the ``bias`` of `circles.simulate`.
    """
    if c.name != "circles":

        def read(row: dict, bias: Array | float = 0.0) -> Clip:
            there, known = (row[name].astype(jnp.float32) for name in ("presence", "known"))
            return Clip(row["image"].astype(jnp.float32) / 255, row["boxes"], there, known, row["filmed"])

        return read

    whole = circles.make_config(c, num_frames + ahead)

    def simulate(row: dict, bias: Array | float = 0.0) -> Clip:
        frames = len(row["frames"]) if "frames" in row else num_frames
        world = dataclasses.replace(whole, num_frames=frames + ahead)
        drawn = circles.simulate(world, jax.random.fold_in(jax.random.key(c.seed), row["seed"]), bias)
        render = jax.vmap(lambda position, identity: circles.render(world, position, identity))
        x = render(drawn.position[:frames], drawn.identity[:frames])
        always = jnp.ones(drawn.identity.shape)
        return Clip(x, circles.boxes(world, drawn.position), always, always, jnp.ones(frames))

    return simulate


def cut(batch: dict, length: int) -> dict:
    """Its first frames: of toy worlds, which are yet to be simulated, the numbers of them."""
    if "seed" in batch:
        numbers = jnp.arange(length, dtype=jnp.int32)[None]
        return batch | {"frames": jnp.broadcast_to(numbers, (len(batch["seed"]), length))}
    return {name: batch[name][:, :length] for name in ("image", "filmed", "boxes", "presence", "known")}


def black(key: Array, num_frames: int, longest: int) -> Array:
    """Which frames ``[T]`` the camera fails to show: a run of 1 to ``longest``, after those that are always given."""
    length_key, first_key = jax.random.split(key)
    length = jax.random.randint(length_key, (), 1, min(longest, num_frames - GIVEN) + 1)
    first = jax.random.randint(first_key, (), GIVEN, num_frames - length + 1)
    frames = jnp.arange(num_frames)
    return (frames >= first) & (frames < first + length)


def hide(clip: Clip, dark: Array) -> Clip:
    return clip._replace(x=jnp.where(dark[:, None, None, None], 0.0, clip.x))


def mean_where(values: Array, weights: Array) -> Array:
    return jnp.sum(values * weights) / jnp.maximum(jnp.sum(weights), 1.0)


def overlap(clip: Clip, seen: hart.Seen, ahead: int) -> Array:
    """IoU ``[T - 1, M]`` from the second frame on."""
    return jax_boxes.iou(seen.boxes[1:], clip.boxes[1 + ahead :])


def somewhere(clip: Clip, canvas: tuple[int, int, int]) -> Array:
    """True boxes ``[T + ahead, M, 4]``; of what is absent the canvas, for the logarithm of no area would be NaN."""
    return jnp.where(clip.there[..., None] > 0, clip.boxes, jnp.asarray([0.0, 0.0, *canvas[:2]])[None, None])


def losses(clip: Clip, seen: hart.Seen, canvas: tuple[int, int, int], ahead: int) -> tuple[dict, dict]:
    """Every loss ``[T - 1, M]`` from the second frame on, and the weights 0 or 1 with which they count."""
    there, true, num_frames = clip.there, somewhere(clip, canvas), len(clip.x)

    def each(box, attention, intended, presence, mask, now: Array, later: Array, is_there: Array) -> dict:
        values = {
            "tracking": tracking_losses.tracking(box, later),
            "spatial": tracking_losses.spatial(intended, now, canvas),
            "presence": optax.sigmoid_binary_cross_entropy(presence, is_there),
        }
        return values | ({"appearance": tracking_losses.appearance(mask, attention, now)} if mask.size else {})

    values = jax.vmap(jax.vmap(each))(
        *(part[1:] for part in (seen.boxes, seen.attention, seen.intended, seen.presence, seen.mask)),
        true[1:num_frames],
        true[1 + ahead :],
        there[1:num_frames],
    )
    now, later = there[1:num_frames], there[1 + ahead :]
    told = there[:1] * clip.known[1:num_frames]
    return values, {"tracking": later, "spatial": now, "appearance": now, "presence": told}


def figures_of(mode: str, seen: dict, ahead: int, num_frames: int, final: bool) -> dict[str, Any]:
    """Figures of all sequences M of a split, shown in one of `MODES`.

    Args:
      seen: ``boxes [M, T, N, 4]`` predicted, ``found [M, T, N]`` whether trackers think that their object is there;
        ``true [M, T + ahead, N, 4]``; ``there`` and ``known``, ``[M, T + ahead, N]``, an object whose presence is not
        known being neither found nor missed; ``dark [M, T]`` which frames were black; ``filmed [M, T]``, those after
        the end of a video do not count.
      num_frames: T or less, of the first frames on which all figures but those of each frame are.

    Returns:
      ``mean_iou``, of all frames but the first, which is given, and of each frame ``iou_t``, the given ones, too; those
      of the `baselines`, ``static_`` and ``momentum_``, of the same frames; ``presence_accuracy``. In a prediction they
      are of its first `FORESEEN` black frames, and ``own_momentum_iou`` is that of the tracker's own first boxes going
      on, for unlike momentum it is not given the second one. A blackout adds ``unseen_iou``, also of the baselines, of
      the black ones. ``final`` adds ``success`` and ``precision``, the latter at distances in pixels of the frames that
      trackers see, which are smaller than those that were filmed.
    """
    true, there = seen["true"][:, ahead:], seen["there"][:, ahead:]
    first = GIVEN if mode == "prediction" else 1
    end = first + FORESEEN if mode == "prediction" else num_frames
    guesses = {"": seen["boxes"]} | baselines(seen["true"], seen["there"], ahead, first)
    if mode == "prediction":
        guesses["own_momentum"] = following.momentum(seen["boxes"], there, given=GIVEN)
    unseen = there * seen["dark"][..., None]
    figures = {}
    for name, guess in guesses.items():
        prefix, whole = name and f"{name}_", following.iou_per_step(guess, true, there)[0]
        figures[f"{prefix}iou" if name else "mean_iou"] = following.mean_iou(
            guess[:, :end], true[:, :end], there[:, :end], first=first
        )
        if mode == "blackout":
            figures[f"{prefix}unseen_iou"] = following.mean_iou(guess[:, :end], true[:, :end], unseen[:, :end])
        figures[f"{prefix}iou_t"] = (whole[:end] if mode == "prediction" else whole).tolist()
    boxes, true, there = (each[:, :num_frames] for each in (seen["boxes"], true, there))
    known = seen["known"][:, ahead:][:, :num_frames] > 0
    given = (there[:, :1] > 0) & (seen["filmed"][:, :num_frames, None] > 0) & known
    if not ahead:
        right = seen["found"] == (there > 0)
        figures["presence_accuracy"] = float(np.mean(right[:, 1:], where=given[:, 1:]))
    if final and mode == "tracking":
        figures["success"] = following.success_curve(boxes, true, there).tolist()
        figures["precision"] = following.precision_curve(boxes, true, there).tolist()
        figures["success_area"] = following.area(figures["success"])
        figures["precision_20"] = figures["precision"][20]
        if not ahead and tracking.available("MOTA, IDF1, HOTA and identity switches"):
            identity = np.broadcast_to(np.arange(there.shape[-1]), there.shape)
            arrays = (boxes, seen["found"] & given, identity, true, there)
            figures |= tracking.evaluate(*(each[:, 1:] for each in arrays), families=tracking.FAMILIES)
    return figures


def baselines(true: np.ndarray, there: np.ndarray, ahead: int, given: int) -> dict[str, np.ndarray]:
    """Boxes ``[M, T, N, 4]`` of 'static', given the boxes of ``given`` frames, and of 'momentum', which needs those of
    `GIVEN` and stays in the others. In worlds seen ``ahead`` both know the boxes of each frame.
    """
    if not ahead:
        static = following.static(true, there, given=given)
        momentum = following.momentum(true, there, given=GIVEN)
        return {"static": static, "momentum": np.concatenate([static[:, :GIVEN], momentum[:, GIVEN:]], 1)}
    now = true[:, :-ahead]
    before = np.concatenate([now[:, :1], now[:, :-1]], 1)
    return {"static": now, "momentum": now + ahead * (now - before)}


def dimmed(clip: dict) -> np.ndarray:
    """The frames ``[T, H, W, C]``, of which those that trackers did not see are dark, but to be made out."""
    return np.where(clip["dark"][:, None, None, None], UNSEEN, 1.0) * clip["x"]


def drawing(clip: dict, ahead: int) -> dict:
    """Arguments of the pictures in plots_tracking, of one sequence as `looker` returns it."""
    seen = clip["seen"]
    glimpse, mask = np.asarray(seen.glimpse), np.asarray(seen.mask)
    return {
        "image": dimmed(clip),
        "true": clip["true"][ahead:],
        "pred": seen.boxes,
        "presence": clip["there"][ahead:],
        "attention": seen.attention,
        "glimpses": (glimpse - glimpse.min()) / max(np.ptp(glimpse), 1e-6),
        "masks": 1 / (1 + np.exp(-mask)) if mask.size else None,
    }


def notes(clip: dict, ahead: int) -> list[str]:
    """Mean IoU of each frame, in words, of one sequence as `looker` returns it."""
    arrays = clip["seen"].boxes, clip["true"][ahead:], clip["there"][ahead:]
    overlaps = following.iou_per_step(*(each[None] for each in arrays))[0]
    return [
        "given" if t == 0 else "" if np.isnan(overlap) else f"IoU {overlap:.2f}" for t, overlap in enumerate(overlaps)
    ]


def curves(evaluated: dict) -> dict[str, Any]:
    """Pictures of the figures of `evaluate`."""
    drawn = {}
    for mode in MODES:
        prefix, given = "" if mode == "tracking" else f"{mode}_", GIVEN if mode == "prediction" else 1
        names = {"tracker": f"{prefix}iou_t"}
        names |= {name.replace("_", " "): f"{prefix}{name}_iou_t" for name in ("static", "momentum", "own_momentum")}
        if names["tracker"] in evaluated:
            lines = {label: evaluated[name] for label, name in names.items() if name in evaluated}
            unseen = np.arange(len(evaluated[names["tracker"]])) >= GIVEN if mode == "prediction" else None
            drawn[f"{mode}_iou"] = plots_tracking.iou_over_time(lines, given=given, unseen=unseen)
    return drawn | {
        "success": plots_tracking.success_and_precision({"tracker": (evaluated["success"], evaluated["precision"])})
    }


def norms(params: dict) -> Array:
    """Half the sum of the squares of all weights, biases excepted."""
    leaves = jax.tree.leaves_with_path(params)
    weights = [leaf for path, leaf in leaves if leaf.ndim > 1 and "bias" not in jax.tree_util.keystr(path[-1:])]
    return sum(jnp.sum(jnp.square(leaf)) for leaf in weights) / 2


def check(config: ConfigDict) -> None:
    """UserError where the config does not make sense."""
    task, num_frames = config.task, config.data.num_frames
    if config.model.tracker == "ratm" and (task.ahead or task.presence_loss or config.model.appearance):
        raise UserError("model.tracker='ratm' knows no task.ahead, task.presence_loss or model.appearance: unset them")
    if config.data.name not in ("circles", "tracks"):
        raise UserError(f"data.name={config.data.name!r} has no boxes to start from: use 'circles' or 'tracks'")
    if num_frames < GIVEN + 1:
        raise UserError(f"data.num_frames={num_frames}: use {GIVEN + 1} or more")
    if task.ahead < 0 or (task.ahead and config.data.name != "circles"):
        raise UserError(f"task.ahead={task.ahead}: use 0, or with data.name='circles' more")
    if task.decay < 0:
        raise UserError(f"task.decay={task.decay}: use 0 or more")
    if not 0 <= task.blackout <= 1:
        raise UserError(f"task.blackout={task.blackout} must lie in [0, 1]")
    if not 1 <= task.black_frames <= num_frames - GIVEN:
        raise UserError(f"task.black_frames={task.black_frames}: use 1 to {num_frames - GIVEN}")
    guidance.check(config)
    bias, steps = config.curriculum.identity_bias, tuple(config.curriculum.identity_steps)
    if not 0 <= bias <= 1 or len(steps) != 2 or not 0 <= steps[0] < steps[1]:
        raise UserError(
            f"curriculum.identity_bias={bias}, identity_steps={steps}: use a share in [0, 1] and two ascending steps"
        )
    if bias and (config.data.name != "circles" or config.data.identities == 1):
        raise UserError(f"curriculum.identity_bias={bias} is for toy worlds of data.identities=2: use 0")
    curriculum.check(config.curriculum, num_frames, config.train.num_steps)
    if config.curriculum.first_frames <= GIVEN:
        raise UserError(f"curriculum.first_frames={config.curriculum.first_frames}: use {GIVEN + 1} or more")
    if frames_tested(config) < num_frames:
        field = "evaluate.num_frames" if config.data.name == "circles" else "data.test_frames"
        raise UserError(f"{field}={frames_tested(config)}: use {num_frames} or more, as data.num_frames")
    for name in ("batch_size", "num_pictures"):
        if config.evaluate[name] < 1:
            raise UserError(f"evaluate.{name}={config.evaluate[name]} must be at least 1")
