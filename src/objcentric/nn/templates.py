"""Templates of parts, placed on a canvas by affine maps (thesis, equation 6.7).

A template and a canvas both span [-1, 1] in x and y, from edge to edge. A pose maps the template's plane to that of the
canvas; so the template is sampled where the *inverse* maps each pixel of the canvas to. Outside it there is nothing.
"""

import jax.numpy as jnp
from jax import Array

from objcentric.nn import poses
from objcentric.nn.spatial_transformer import centres


def grid(canvas: tuple[int, int]) -> Array:
    """Where the pixels of a canvas (H, W) have their centres: ``[H, W, 2]``, x and y in [-1, 1]."""
    y, x = jnp.meshgrid(centres(canvas[0]), centres(canvas[1]), indexing="ij")
    return jnp.stack([x, y], -1)


def place(template: Array, matrix: Array, canvas: tuple[int, int]) -> Array:
    """``template [h, w, C]``, placed by ``matrix [2, 3]``, on ``canvas`` (H, W): ``[H, W, C]``; see `sample`."""
    return sample(template, matrix, grid(canvas).reshape(-1, 2)).reshape(*canvas, -1)


def sample(template: Array, matrix: Array, points: Array) -> Array:
    """``[P, C]`` at ``points [P, 2]``, x and y, of the canvas: the template ``[h, w, C]``, placed by ``matrix [2, 3]``.

    It is interpolated bilinearly. What a cell between four pixels needs is gathered at once: as products of weights,
    which are fast for maps along the axes, this takes several times as long on a CPU.
    """
    height, width, channels = template.shape
    at = poses.move(poses.invert(matrix), points)
    row = jnp.clip(((at[:, 1] + 1) * height - 1) / 2, -1, height)  # on the border and outside there is nothing
    column = jnp.clip(((at[:, 0] + 1) * width - 1) / 2, -1, width)
    top, left = jnp.floor(row), jnp.floor(column)
    padded = jnp.pad(template, ((1, 2), (1, 2), (0, 0)))
    first, to_right, below = padded[:-1, :-1], padded[:-1, 1:], padded[1:, :-1]
    across = padded[1:, 1:] - to_right - below + first
    cells = jnp.concatenate([first, to_right - first, below - first, across], -1).reshape(-1, 4 * channels)
    cell = ((top + 1) * (width + 2) + left + 1).astype(jnp.int32)
    first, by_right, by_down, by_both = jnp.split(cells.at[cell].get(mode="promise_in_bounds"), 4, -1)
    right, down = (column - left)[:, None], (row - top)[:, None]
    return first + by_right * right + (by_down + by_both * right) * down
