"""Templates of parts, placed on a canvas by affine maps (thesis, equation 6.7).

A template and a canvas both span [-1, 1] in x and y, from edge to edge. A pose maps the template's plane to that of the
canvas; so the template is sampled where the *inverse* maps each pixel of the canvas to. Outside it there is nothing.
"""

import jax.numpy as jnp
from jax import Array

from objcentric.nn import poses
from objcentric.nn.spatial_transformer import centres


def place(template: Array, matrix: Array, canvas: tuple[int, int]) -> Array:
    """``template [h, w, C]`` placed by ``matrix [2, 3]`` on ``canvas`` (H, W): ``[H, W, C]``, interpolated bilinearly.

    Pixels are gathered: as products of weights, which are fast for maps along the axes, this takes several times as
    long on a CPU.
    """
    height, width, channels = template.shape
    y, x = jnp.meshgrid(centres(canvas[0]), centres(canvas[1]), indexing="ij")
    at = poses.move(poses.invert(matrix), jnp.stack([x.reshape(-1), y.reshape(-1)], -1))  # [H W, 2]
    row, column = ((at[:, 1] + 1) * height - 1) / 2, ((at[:, 0] + 1) * width - 1) / 2
    top, left = jnp.floor(row), jnp.floor(column)
    down, right = row - top, column - left
    inside = (row > -1) & (row < height) & (column > -1) & (column < width)
    padded = jnp.pad(template, ((1, 1), (1, 1), (0, 0))).reshape(-1, channels)
    first = jnp.clip(top + 1, 0, height) * (width + 2) + jnp.clip(left + 1, 0, width)
    corner = jnp.where(inside, first, 0.0).astype(jnp.int32)

    def pixel(step: int, weight: Array) -> Array:
        return padded[corner + step] * jnp.where(inside, weight, 0.0)[:, None]

    placed = pixel(0, (1 - down) * (1 - right)) + pixel(1, (1 - down) * right)
    placed += pixel(width + 2, down * (1 - right)) + pixel(width + 3, down * right)
    return placed.reshape(*canvas, channels)
