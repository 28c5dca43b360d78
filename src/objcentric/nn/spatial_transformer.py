"""Axis-aligned spatial transformers (Jaderberg et al., 2015): read a glimpse, place a glimpse.

Coordinates: a canvas spans [-1, 1] in y and x, from edge to edge; pixel ``i`` of ``H`` has its centre at
``(2 i + 1) / H - 1``. A glimpse covers the box ``shift ± scale``. Bilinear interpolation is separable, so
both directions are two matrix products, ``A_y image A_x^T``, with two non-zeros in a row; pixels outside count as 0.
"""

import functools

import jax
import jax.numpy as jnp
from jax import Array


def centres(size: int) -> Array:
    """Pixel centres ``[size]`` in [-1, 1]."""
    return (2 * jnp.arange(size, dtype=jnp.float32) + 1) / size - 1


def interpolation(position: Array, size: int) -> Array:
    """Bilinear weights ``[P, size]`` of ``size`` pixels at the positions ``[P]``, given in [-1, 1] of their canvas."""
    pixel = ((position + 1) * size - 1) / 2
    return jnp.maximum(0.0, 1.0 - jnp.abs(pixel[:, None] - jnp.arange(size, dtype=jnp.float32)[None]))


@functools.partial(jax.custom_jvp, nondiff_argnums=(3,))
def read(image: Array, scale: Array, shift: Array, size: tuple[int, int]) -> Array:
    """Extract the glimpse ``[h, w, C]`` that covers the box ``shift ± scale`` (each ``[2]``: y, x) of ``[H, W, C]``."""
    rows = interpolation(_inside(scale[0], shift[0], size[0]), image.shape[0])
    columns = interpolation(_inside(scale[1], shift[1], size[1]), image.shape[1])
    return _contract(rows, image, columns)


@functools.partial(read.defjvp, symbolic_zeros=True)
def _read_jvp(size, primals, tangents):
    # Reverse mode through the weights costs several small matrix products per glimpse. But the weights are piecewise
    # linear in the positions: products with their slopes give the derivatives along with the glimpse.
    image, scale, shift = primals
    positions = [_inside(scale[i], shift[i], size[i]) for i in range(2)]
    rows, columns = (interpolation(p, side) for p, side in zip(positions, image.shape[:2], strict=True))
    row_slopes, column_slopes = (_slope(p, side) for p, side in zip(positions, image.shape[:2], strict=True))
    glimpse = _contract(rows, image, columns)
    down = _contract(row_slopes, image, columns)
    right = _contract(rows, image, column_slopes)
    d_image, d_scale, d_shift = tangents
    d_scale, d_shift = (jnp.zeros(2) if _is_zero(d) else d for d in (d_scale, d_shift))
    moved = [jnp.stack([centres(n), jnp.ones(n)]) for n in size]  # positions by scale and by shift
    # Spread as products: of these the reverse are products, too, and XLA does not vectorise sums on CPUs.
    d_y = jnp.einsum("d,da,b->ab", jnp.stack([d_scale[0], d_shift[0]]), moved[0], jnp.ones(size[1]))
    d_x = jnp.einsum("d,db,a->ab", jnp.stack([d_scale[1], d_shift[1]]), moved[1], jnp.ones(size[0]))
    tangent = down * d_y[..., None] + right * d_x[..., None]
    if not _is_zero(d_image):
        tangent += read(d_image, scale, shift, size)
    return glimpse, tangent


def _is_zero(tangent: object) -> bool:
    return isinstance(tangent, jax.custom_derivatives.SymbolicZero)


def _inside(scale: Array, shift: Array, size: int) -> Array:
    """Positions ``[size]`` of a glimpse's pixels on the canvas."""
    return centres(size) * scale + shift


def _slope(position: Array, size: int) -> Array:
    """The derivative ``[P, size]`` of ``interpolation`` with respect to the positions."""
    offset = ((position + 1) * size - 1)[:, None] / 2 - jnp.arange(size, dtype=jnp.float32)[None]
    return jnp.where(jnp.abs(offset) < 1.0, -jnp.sign(offset), 0.0) * (size / 2)


def _contract(rows: Array, image: Array, columns: Array) -> Array:
    stretched = jnp.einsum("ay,ywc->awc", rows, image)
    return jnp.swapaxes(jnp.einsum("awc,bw->acb", stretched, columns), 1, 2)


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
    rows = weights((centres(canvas[0])[None] - shift[:, :1]) / scale[:, :1], height)  # [N, H, h]
    columns = weights((centres(canvas[1])[None] - shift[:, 1:]) / scale[:, 1:], width)  # [N, W, w]
    stretched = jnp.einsum("iabc,ixb->iaxc", glimpses, columns)
    return jnp.einsum("iya,iaxc->yxc", rows, stretched)


def box(scale: Array, shift: Array, canvas: tuple[int, int]) -> Array:
    """The box ``(y0, x0, y1, x1)`` in pixels that a glimpse covers."""
    size = jnp.asarray(canvas, jnp.float32)
    return jnp.concatenate([(shift - scale + 1) / 2 * size, (shift + scale + 1) / 2 * size])


def extent(glimpse: Array, scale: Array, shift: Array, canvas: tuple[int, int], *, threshold: float = 0.2) -> Array:
    """The tight box ``(y0, x0, y1, x1)``, in pixels of the canvas, of what is brighter than ``threshold`` in a glimpse.

    Args:
      glimpse: ``[h, w, C]``, placed at ``scale`` and ``shift`` (``[2]`` each); one that is dark everywhere has the box
        of the whole glimpse.
    """
    bright = jnp.max(glimpse, axis=-1) > threshold
    edges = []
    for axis in range(2):
        line = jnp.any(bright, axis=1 - axis)
        first, last = jnp.argmax(line), line.size - jnp.argmax(line[::-1])
        edges.append((2 * jnp.stack([first, last]) / line.size - 1) * scale[axis] + shift[axis])
    y, x = ((edge + 1) / 2 * side for edge, side in zip(edges, canvas, strict=True))
    return jnp.stack([y[0], x[0], y[1], x[1]])
