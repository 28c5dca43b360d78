"""Boxes that gradients flow through.

A box ``[..., 4]`` is (y0, x0, y1, x1) in pixels; a ``where [..., 4]`` is y, x of its upper left corner, height and
width, in shares of the canvas' sides.
"""

from collections.abc import Sequence

import jax.numpy as jnp
from jax import Array


def to_where(box: Array, canvas: Sequence[int]) -> Array:
    """``canvas`` is (H, W, ...)."""
    corner, end = box[..., :2], box[..., 2:]
    return jnp.concatenate([corner, end - corner], -1) / _sides(canvas, box.ndim)


def to_box(where: Array, canvas: Sequence[int]) -> Array:
    corner, extent = where[..., :2], where[..., 2:]
    return jnp.concatenate([corner, corner + extent], -1) * _sides(canvas, where.ndim)


def _sides(canvas: Sequence[int], rank: int) -> Array:
    return jnp.asarray([*canvas[:2], *canvas[:2]], jnp.float32).reshape((1,) * (rank - 1) + (4,))


def overlap(a: Array, b: Array) -> Array:
    """Along each axis ``[..., 2]``, pixels; where boxes do not meet, less than 0 by their distance."""
    return jnp.minimum(a[..., 2:], b[..., 2:]) - jnp.maximum(a[..., :2], b[..., :2])


def area(box: Array) -> Array:
    """``[...]`` in square pixels; 0 of a box turned inside out."""
    return jnp.prod(jnp.maximum(box[..., 2:] - box[..., :2], 0.0), -1)


def iou(a: Array, b: Array) -> Array:
    """Intersection over union ``[...]`` of boxes one by one, in [0, 1]; 0 where neither has an area."""
    shared = jnp.prod(jnp.maximum(overlap(a, b), 0.0), -1)
    union = area(a) + area(b) - shared
    return jnp.where(union > 0, shared / jnp.where(union > 0, union, 1.0), 0.0)
