"""A convolution whose gradient is fast on CPUs, too.

Inside loops XLA computes gradients of convolutions on CPUs ten to thirty times slower than its fast kernels would:
there, the gradient of the filters is a product of matrices for each of their taps, that of the input a convolution
without reversed windows or dilation. Values are those of `jax.lax.conv_general_dilated`; there is no forward mode.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array, lax

_LAYOUT = ("NHWC", "HWIO", "NHWC")


def convolve(x: Array, kernel: Array, strides: Sequence[int], padding: Any, **options: Any) -> Array:
    """``[B, H, W, C], [h, w, C / groups, features] -> [B, H', W', features]``, for flax's layers of two dimensions.

    ``padding`` is a name or pairs, ``options`` those of `jax.lax.conv_general_dilated`, which computes what is dilated.
    """
    groups = options.get("feature_group_count", 1)
    dilated = any(rate != 1 for name in ("lhs_dilation", "rhs_dilation") for rate in options.get(name) or ())
    if dilated or jax.default_backend() != "cpu":
        return lax.conv_general_dilated(x, kernel, strides, padding, **options)
    if isinstance(padding, str):
        padding = lax.padtype_to_pads(x.shape[1:3], kernel.shape[:2], strides, padding)
    return _convolve(x, kernel, tuple(strides), tuple(map(tuple, padding)), groups)


Conv = partial(nn.Conv, conv_general_dilated=convolve)


@partial(jax.custom_vjp, nondiff_argnums=(2, 3, 4))
def _convolve(x: Array, kernel: Array, strides: tuple, padding: tuple, groups: int) -> Array:
    return lax.conv_general_dilated(x, kernel, strides, padding, dimension_numbers=_LAYOUT, feature_group_count=groups)


def _forward(x: Array, kernel: Array, *static: Any) -> tuple[Array, tuple[Array, Array]]:
    return _convolve(x, kernel, *static), (x, kernel)


def _backward(
    strides: tuple, padding: tuple, groups: int, saved: tuple[Array, Array], cotangent: Array
) -> tuple[Array, Array]:
    x, kernel = saved
    height, width, _, features = kernel.shape
    batch, rows, columns, _ = cotangent.shape
    padded = jnp.pad(x, ((0, 0), *padding, (0, 0)))
    grouped = cotangent.reshape(batch, rows, columns, groups, -1)
    last = (rows - 1) * strides[0] + 1, (columns - 1) * strides[1] + 1
    taps = []
    for i in range(height):
        for j in range(width):
            seen = padded[:, i : i + last[0] : strides[0], j : j + last[1] : strides[1]]
            seen = seen.reshape(batch, rows, columns, groups, -1)
            taps.append(jnp.einsum("bhwgc,bhwgf->cgf", seen, grouped))
    dkernel = jnp.stack(taps).reshape(kernel.shape)

    borders = [(0, 0, 0)]
    for axis, (side, filter_side) in enumerate(zip(x.shape[1:3], (height, width), strict=True)):
        spread = (cotangent.shape[1 + axis] - 1) * strides[axis] + 1
        before = filter_side - 1 - padding[axis][0]
        borders.append((before, side + filter_side - 1 - before - spread, strides[axis] - 1))
    spread = lax.pad(cotangent, jnp.zeros((), cotangent.dtype), (*borders, (0, 0, 0)))
    # Each group's filters [C / groups, features / groups], transposed.
    filters = kernel[::-1, ::-1].reshape(height, width, -1, groups, features // groups)
    filters = filters.transpose(0, 1, 4, 3, 2).reshape(height, width, features // groups, -1)
    dx = lax.conv_general_dilated(
        spread, filters, (1, 1), "VALID", dimension_numbers=_LAYOUT, feature_group_count=groups
    )
    return dx, dkernel


_convolve.defvjp(_forward, _backward)
