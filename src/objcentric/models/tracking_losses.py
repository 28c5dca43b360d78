"""What HART is taught with (thesis, section 3.4): losses of one box, or of one map, at one time.

Boxes ``[4]`` are in pixels. Logarithms are continued by their tangents: the thesis clips them, which leaves boxes that
do not meet without a gradient; so they attract one another.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import optax
from jax import Array

from objcentric.nn import boxes

ATTENDED = 0.1  # share of an axis below which the loss of attention, and of covering all of a canvas, is a tangent
TRACKED = 0.3  # and that of a box: the few that were lost should not outweigh those that can be made better


def log(x: Array, least: float) -> Array:
    """The logarithm, from ``least`` down its tangent."""
    inside = jnp.maximum(x, least)
    return jnp.log(inside) + (x - inside) / least


def tracking(box: Array, true: Array) -> Array:
    """Minus the logarithm of the IoU (equation 3.10), ``[]``; flatter where less than `TRACKED` of an axis is met."""
    union = boxes.area(box) + boxes.area(true) - jnp.prod(jnp.maximum(boxes.overlap(box, true), 0.0))
    return _log_covered(box, true, TRACKED) + jnp.log(union / boxes.area(true))


def spatial(attention: Array, true: Array, canvas: Sequence[int]) -> Array:
    """Equation 3.11, ``[]``: attention should cover the box, but not all of the canvas (H, W, ...)."""
    share = boxes.area(attention) / (canvas[0] * canvas[1])
    return _log_covered(attention, true, ATTENDED) - log(1 - share, ATTENDED)


def _log_covered(box: Array, true: Array, least: float) -> Array:
    """Minus the logarithm of the share of ``true`` within ``box``, a sum over axes."""
    return -jnp.sum(log(boxes.overlap(box, true) / (true[2:] - true[:2]), least))


def appearance(logits: Array, attention: Array, true: Array) -> Array:
    """Cross-entropy ``[]`` of the map ``logits [h, w]`` over a glimpse of ``attention`` (equation 3.12).

    The target is 1 in the cells whose centres are in the box. Object and surroundings weigh the same.
    """
    inside = target(attention, true, logits.shape)
    entropy = optax.sigmoid_binary_cross_entropy(logits, inside)
    each = [jnp.sum(entropy * part) / jnp.maximum(jnp.sum(part), 1.0) for part in (inside, 1 - inside)]
    return sum(each) / 2


def target(attention: Array, true: Array, size: Sequence[int]) -> Array:
    """tau ``[h, w]`` of equation 3.12."""
    axes = []
    for axis in range(2):
        first, last = attention[axis], attention[axis + 2]
        centre = first + (last - first) * (jnp.arange(size[axis]) + 0.5) / size[axis]
        axes.append((centre >= true[axis]) & (centre < true[axis + 2]))
    return jax.lax.stop_gradient((axes[0][:, None] & axes[1][None]).astype(jnp.float32))
