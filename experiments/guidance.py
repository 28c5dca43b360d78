"""Trackers that are shown where to look in the first part of training: `objcentric.models.hart.Guidance`."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array
from ml_collections import ConfigDict

from objcentric.errors import UserError
from objcentric.models import hart


def make(c: ConfigDict) -> Callable:
    """Of config.guidance: ``(key, boxes [T, M, 4], there [T, M], step) -> Guidance``.

    Boxes (pixels) are moved by Gaussian shifts of std ``c.shift``, in a share of the frames in which objects are there.
    """

    def guide(key: Array, boxes: Array, there: Array, step: Array) -> hart.Guidance:
        shift_key, share_key = jax.random.split(key)
        moved = c.shift * jax.random.normal(shift_key, (*there.shape, 2))
        guided = jax.random.bernoulli(share_key, share(c.steps, step), there.shape)
        return hart.Guidance(boxes + jnp.tile(moved, 2), there * guided)

    return guide


def share(steps: tuple[int, int], step: Array) -> Array:
    """Of the frames in which trackers are guided: 1 until ``steps[0]``, from ``steps[1]`` on 0."""
    return jnp.clip((steps[1] - step) / (steps[1] - steps[0]), 0.0, 1.0)


def check(config: ConfigDict) -> None:
    """UserError where config.guidance does not make sense."""
    steps, shift, num_steps = tuple(config.guidance.steps), config.guidance.shift, config.train.num_steps
    if steps and config.model.tracker == "ratm":
        raise UserError("model.tracker='ratm' guesses boxes by where it looks, which guidance gives away: unset it")
    if steps and (len(steps) != 2 or not 0 <= steps[0] < steps[1] < num_steps):
        raise UserError(
            f"guidance.steps={steps}: use () or two steps, the last above the first and below "
            f"train.num_steps={num_steps}"
        )
    if shift < 0:
        raise UserError(f"guidance.shift={shift}: use 0 pixels or more")
