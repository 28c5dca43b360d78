"""Poses of parts and objects: affine maps of the plane, 2 x 3 matrices whose third row is (0, 0, 1)."""

import jax
import jax.numpy as jnp
from jax import Array


def pose(raw: Array, *, similarity: bool = False) -> Array:
    """The map ``[..., 2, 3]`` of six unbounded numbers ``[..., 6]``: two scales, angle, shear, two translations.

    Scales lie in (.01, 1.01), shear and translations in (-1, 1); the angle, in turns, is unbounded. A point is scaled,
    sheared along x, turned, then moved. With ``similarity`` the first scale is both, and nothing is sheared.
    """
    scale_x, scale_y, angle, shear, shift_x, shift_y = jnp.moveaxis(raw, -1, 0)
    scale_x, scale_y = (jax.nn.sigmoid(scale) + 0.01 for scale in (scale_x, scale_y))
    shear, shift_x, shift_y = (jnp.tanh(5.0 * each) for each in (shear, shift_x, shift_y))
    if similarity:
        scale_y, shear = scale_x, jnp.zeros_like(shear)
    cos, sin = jnp.cos(2 * jnp.pi * angle), jnp.sin(2 * jnp.pi * angle)
    first = jnp.stack([cos * scale_x, (cos * shear - sin) * scale_y, shift_x], -1)
    second = jnp.stack([sin * scale_x, (sin * shear + cos) * scale_y, shift_y], -1)
    return jnp.stack([first, second], -2)


def matrix(raw: Array, *, similarity: bool = False) -> Array:
    """The map ``[..., 2, 3]`` whose entries are six unbounded numbers ``[..., 6]``, row by row.

    With ``similarity`` the first and the fourth are the matrix' first column, and its second is that turned by 90
    degrees. Maps of every size and angle are as near as their entries are, while scales and angles make far detours.
    """
    linear, shift = raw[..., jnp.array([0, 1, 3, 4])], raw[..., jnp.array([2, 5])]
    a, b, c, d = jnp.moveaxis(linear, -1, 0)
    if similarity:
        b, d = -c, a
    first = jnp.stack([a, b, shift[..., 0]], -1)
    return jnp.stack([first, jnp.stack([c, d, shift[..., 1]], -1)], -2)


def compose(outer: Array, inner: Array) -> Array:
    """First ``inner``, then ``outer``; shapes ``[..., 2, 3]`` broadcast."""
    turned = outer[..., :2] @ inner
    return turned.at[..., 2].add(outer[..., 2])


def invert(matrix: Array) -> Array:
    """The map ``[..., 2, 3]`` back."""
    (a, b), (c, d) = ((matrix[..., i, 0], matrix[..., i, 1]) for i in range(2))
    determinant = a * d - b * c
    linear = jnp.stack([jnp.stack([d, -b], -1), jnp.stack([-c, a], -1)], -2) / determinant[..., None, None]
    return jnp.concatenate([linear, -linear @ matrix[..., 2:]], -1)


def move(matrix: Array, points: Array) -> Array:
    """Points ``[..., P, 2]``, x and y, by the map ``[..., 2, 3]``."""
    return points @ jnp.swapaxes(matrix[..., :2], -1, -2) + matrix[..., None, :, 2]


KINDS = {"composed": pose, "matrix": matrix}  # what six numbers of a network mean
