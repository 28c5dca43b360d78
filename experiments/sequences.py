"""What experiments on models of sequences share: densities, bounds, and frames that the prior imagines."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from matplotlib.figure import Figure
from ml_collections import ConfigDict

from experiments import addition, evaluation
from experiments.evaluation import in_batches
from objcentric import plots_sequences
from objcentric.data.loader import Split, Stream
from objcentric.errors import UserError
from objcentric.metrics import tracking
from objcentric.models.model import Sequential, Trace
from objcentric.plots_sequences import Strip


def reader(likelihood: str) -> Callable:
    """``(image uint8 [B, ...], keys [B]) -> (x, keys)``: x in [0, 1], drawn as binary pixels for 'bernoulli'."""

    def read(image: Array, keys: Array) -> tuple[Array, Array]:
        x = image.astype(jnp.float32) / 255
        if likelihood == "bernoulli":
            keys, binary = jnp.unstack(jax.vmap(jax.random.split)(keys), axis=1)
            x = jax.vmap(jax.random.bernoulli)(binary, x).astype(jnp.float32)
        return x, keys

    return read


def densities(trace: Trace) -> dict[str, Array]:
    """What a trace estimates of its sequence, in nats: ``elbo``, ``log_likelihood`` and ``kl``."""
    log_likelihood = trace.outputs["log_likelihood"]
    elbo = trace.log_p - trace.log_q
    return {"elbo": elbo, "log_likelihood": log_likelihood, "kl": log_likelihood - elbo}


def foresee(sequential: Sequential, hparams: dict, given: int, drawn: Callable, read: Callable) -> Callable:
    """``(params, image [B, T, ...], keys [B]) -> frames [B, T, ...]``: ``given`` as q sees them, then from the prior.

    Those of the prior come twice: ``sampled`` and ``likely``, at the temperatures 1 and 0.

    Args:
      drawn: ``(params, state, mean) -> dict``, what is kept of a frame.
      read: see `reader`.
    """

    @jax.jit
    def foresee(params: dict, image: Array, keys: Array) -> dict:
        def see(state: Any, inputs: tuple) -> tuple[Any, dict]:
            step = sequential.step(params, inputs[0], state, inputs[1], hparams)
            return step.state, drawn(params, step.state, step.outputs["mean"])

        def one(key: Array, x: Array) -> dict:
            keys = jax.random.split(key, len(x))
            state, seen = jax.lax.scan(see, sequential.start(params), (keys[:given], x[:given]))

            def go_on(temperature: Array) -> dict:
                def imagine(state: Any, key: Array) -> tuple[Any, dict]:
                    at = hparams | {"temperature": temperature}
                    state, _, mean = sequential.imagine(params, key, state, at)
                    return state, drawn(params, state, mean)

                imagined = jax.lax.scan(imagine, state, keys[given:])[1]
                return jax.tree.map(lambda *frames: jnp.concatenate(frames), seen, imagined)

            both = jax.vmap(go_on)(jnp.asarray([1.0, 0.0]))
            return {name: jax.tree.map(lambda leaf, i=i: leaf[i], both) for i, name in enumerate(("sampled", "likely"))}

        x, keys = read(image, keys)
        return jax.vmap(one)(keys, x)

    return foresee


def predict(sequential: Sequential, hparams: dict, read: Callable) -> Callable:
    """``(params, image [B, T, ...], keys [B]) -> [B, T - 1, ...]``: the likeliest next frame after all but the last."""

    @jax.jit
    def predict(params: dict, image: Array, keys: Array) -> Array:
        def one(key: Array, x: Array) -> Array:
            def see(state: Any, inputs: tuple) -> tuple[Any, Array]:
                see_key, imagine_key = jax.random.split(inputs[0])
                state = sequential.step(params, see_key, state, inputs[1], hparams).state
                return state, sequential.imagine(params, imagine_key, state, hparams | {"temperature": 0.0})[2]

            keys = jax.random.split(key, len(x) - 1)
            return jax.lax.scan(see, sequential.start(params), (keys, x[:-1]))[1]

        x, keys = read(image, keys)
        return jax.vmap(one)(keys, x)

    return predict


def dream(sequential: Sequential, hparams_of: Callable, num_frames: int, drawn: Callable) -> Callable:
    """``(params, keys [B]) -> frames [B, T, ...]`` from the prior.

    Args:
      hparams_of: ``(state) -> hparams`` of the frame that follows it.
      drawn: ``(params, state, mean) -> dict``, what is kept of a frame.
    """

    @jax.jit
    def dream(params: dict, keys: Array) -> dict:
        def imagine(state: Any, key: Array) -> tuple[Any, dict]:
            state, _, mean = sequential.imagine(params, key, state, hparams_of(state))
            return state, drawn(params, state, mean)

        def one(key: Array) -> dict:
            return jax.lax.scan(imagine, sequential.start(params), jax.random.split(key, num_frames))[1]

        return jax.vmap(one)(keys)

    return dream


def prediction_errors(
    sampled: np.ndarray, likely: np.ndarray, image: np.ndarray, given: int
) -> dict[str, float | list[float]]:
    """Mean squared errors, per pixel in [0, 1], of the frames after the ``given`` ones.

    ``imagined_error`` is that of ``sampled [M, T, ...]`` frames of the prior, ``likely_error`` of its ``likely`` ones;
    ``copied_error`` that of the last given frame in their place, ``black_error`` of black ones; ``image`` is uint8
    ``[M, T, ...]``. Those that end in ``_t`` are of each frame.
    """
    future, last = image[:, given:] / 255, image[:, given - 1 : given] / 255
    figures = {}
    guesses = {"imagined": sampled[:, given:], "likely": likely[:, given:], "copied": last, "black": np.zeros(())}
    for name, frames in ((f"{guess}_error", frames) for guess, frames in guesses.items()):
        errors = np.square(frames - future)
        figures[name] = float(np.mean(errors))
        figures[f"{name}_t"] = np.mean(errors, axis=(0, *range(2, errors.ndim))).tolist()
    return figures


def next_frame_errors(predicted: np.ndarray, image: np.ndarray) -> dict[str, float | list[float]]:
    """Mean squared errors, per pixel in [0, 1], of each frame ``predicted [M, T - 1, ...]`` from those before it.

    ``next_frame_error``, of each frame ``next_frame_error_t``, and ``next_frame_copied_error``: that of the frame
    before in its place.
    """
    true = image / 255
    errors = np.square(predicted - true[:, 1:]).reshape(*predicted.shape[:2], -1)
    return {
        "next_frame_error": float(np.mean(errors)),
        "next_frame_error_t": np.mean(errors, (0, 2)).tolist(),
        "next_frame_copied_error": float(np.mean(np.square(np.diff(true, axis=1)))),
    }


def final_figures(
    bound: Callable,
    foresee: Callable,
    predict: Callable,
    encode: Callable,
    params: dict,
    train: Split | Stream,
    split: Split,
    keys: Sequence[Array],
    c: ConfigDict,
) -> dict[str, Any]:
    """The IWAE bound and errors of predicted frames of the first sequences of ``split``, of the paths of objects where
    both have boxes, of their looks where frames have ``glimpses``, and, unless c.addition_steps is 0, how well a
    classifier adds a frame's digits from its latents.

    Args:
      bound, foresee, predict: of `evaluation.make_bound` and of this module's.
      encode: see `addition.evaluate`.
      keys: four.
      c: config.evaluate.
    """
    few = split["image"][: c.num_examples]
    values = in_batches(bound, params, few, keys[0], c.batch_size)
    imagined = in_batches(foresee, params, few, keys[1], c.batch_size)
    figures = {f"iwae_{c.num_particles}": float(np.mean(values["iwae"]))}
    figures |= prediction_errors(*(imagined[guess]["mean"] for guess in ("sampled", "likely")), few, c.given_frames)
    likely = imagined["likely"]
    if "boxes" in likely and "boxes" in split and c.given_frames > 1:
        there = ((split["presence"] > 0) & (split["visibility"] > 0))[: len(few)]
        paths = likely["boxes"], likely["presence"], split["boxes"][: len(few)], there
        figures |= tracking.path_errors(*paths, given=c.given_frames, canvas=few.shape[2:4])
    if "glimpses" in likely:
        for name, guess in (("look", "likely"), ("sampled_look", "sampled")):
            looks = imagined[guess]["glimpses"], imagined[guess]["identity"]
            figures |= {f"{name}_{of}": value for of, value in tracking.look_errors(*looks, c.given_frames).items()}
    figures |= next_frame_errors(in_batches(predict, params, few, keys[3], c.batch_size), few)
    if c.addition_steps:
        figures |= addition.evaluate(encode, params, train, split, keys[2], c)
    return figures


def worth_showing(image: np.ndarray, number: int) -> np.ndarray:
    """The first ``number`` of the sequences ``[M, T, H, W, C]``; those that stay black only where there are too few."""
    black = ~image.any(axis=tuple(range(1, image.ndim)))
    return image[np.sort(np.argsort(black, kind="stable")[:number])]


def pictures(
    name: str, strips: list[Strip], frame_names: tuple[str, ...] = (), title: str = ""
) -> dict[str, Figure | np.ndarray]:
    """Filmstrips ``name`` and the animation ``name_film``."""
    return {
        name: plots_sequences.filmstrips(strips, frame_names=frame_names, title=title),
        f"{name}_film": plots_sequences.animation(strips),
    }


def frame_names(num_frames: int, given: int) -> tuple[str, ...]:
    return tuple(f"given {t + 1}" if t < given else f"imagined {t + 1}" for t in range(num_frames))


def check(c: ConfigDict, image: np.ndarray) -> None:
    """UserError where config.evaluate and sequences ``image [M, T, H, W, C]`` disagree."""
    if image.ndim != 5:
        raise UserError(
            f"data of shape {image.shape[1:]} are no sequences [T, H, W, C]: start from the data of configs/sqair.py"
        )
    num_frames = image.shape[1]
    if num_frames < 2:
        raise UserError("sequences of 1 frame are none: set data.num_frames to 2 or more")
    if not 1 <= c.given_frames < num_frames:
        raise UserError(f"evaluate.given_frames={c.given_frames}: use 1 to {num_frames - 1}")
    evaluation.check(c)
