"""Axis-aligned spatial transformers (Jaderberg et al., 2015): read a glimpse, place a glimpse.

Coordinates: a canvas spans [-1, 1] in y and x, from edge to edge; pixel ``i`` of ``H`` has its centre at
``(2 i + 1) / H - 1``. A glimpse covers the box ``shift ± scale``. Bilinear interpolation is separable, so
both directions are two matrix products, ``A_y image A_x^T``, with two non-zeros in a row; pixels outside count as 0.
"""

import jax
import jax.numpy as jnp
from jax import Array


def centres(size: int) -> Array:
    """Pixel centres ``[size]`` in [-1, 1]."""
    return (2 * jnp.arange(size, dtype=jnp.float32) + 1) / size - 1


def interpolation(position: Array, size: int) -> Array:
    """Bilinear weights ``[P, size]`` of ``size`` pixels at the positions ``[P]``, given in [-1, 1] of their canvas."""
    pixel = ((position + 1) * size - 1) / 2
    return jnp.maximum(0.0, 1.0 - jnp.abs(pixel[:, None] - jnp.arange(size, dtype=jnp.float32)))


def read(image: Array, scale: Array, shift: Array, size: tuple[int, int]) -> Array:
    """Extract the glimpse ``[h, w, C]`` that covers the box ``shift ± scale`` (each ``[2]``: y, x) of ``[H, W, C]``."""
    rows = interpolation(centres(size[0]) * scale[0] + shift[0], image.shape[0])
    columns = interpolation(centres(size[1]) * scale[1] + shift[1], image.shape[1])
    return jnp.einsum("hwc,bw->hbc", jnp.einsum("ay,ywc->awc", rows, image), columns)


def place(glimpses: Array, scale: Array, shift: Array, canvas: tuple[int, int]) -> Array:
    """The inverse of ``read``, summed over objects: the canvas ``[H, W, C]`` with every glimpse in its box.

    Args:
      glimpses: ``[N, h, w, C]``.
      scale, shift: ``[N, 2]`` each (y, x).
      canvas: (H, W).

    The sum over objects is part of the second contraction, so no canvas per object is formed.
    """
    _, height, width, _ = glimpses.shape
    weights = jax.vmap(interpolation, (0, None))
    rows = weights((centres(canvas[0]) - shift[:, :1]) / scale[:, :1], height)  # [N, H, h]
    columns = weights((centres(canvas[1]) - shift[:, 1:]) / scale[:, 1:], width)  # [N, W, w]
    stretched = jnp.einsum("iabc,ixb->iaxc", glimpses, columns)
    return jnp.einsum("iya,iaxc->yxc", rows, stretched)


def box(scale: Array, shift: Array, canvas: tuple[int, int]) -> Array:
    """The box ``(y0, x0, y1, x1)`` in pixels that a glimpse covers."""
    size = jnp.asarray(canvas, jnp.float32)
    return jnp.concatenate([(shift - scale + 1) / 2 * size, (shift + scale + 1) / 2 * size])
