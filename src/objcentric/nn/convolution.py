"""A convolution whose gradient is fast on CPUs, too.

Inside loops XLA computes gradients of convolutions on CPUs ten to thirty times slower than its fast kernels would:
there, that of the filters is a product of matrices, that of the input a convolution without reversed windows or
dilation. It is a primitive of its own, so that `jax.vmap` adds to its batch before gradients are taken: else those of
the filters would be computed, and kept, for each example. Values are those of `jax.lax.conv_general_dilated`.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

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
    return _convolve_p.bind(x, kernel, strides=tuple(strides), padding=tuple(map(tuple, padding)), groups=groups)


Conv = partial(nn.Conv, conv_general_dilated=convolve)


def _values(x: Array, kernel: Array, *, strides: tuple, padding: tuple, groups: int) -> Array:
    return lax.conv_general_dilated(x, kernel, strides, padding, dimension_numbers=_LAYOUT, feature_group_count=groups)


def _to_input(cotangent: Array, x: Any, kernel: Array, *, strides: tuple, padding: tuple, groups: int) -> Array:
    """Gradient of the input, of which ``x`` tells the shape."""
    height, width, _, features = kernel.shape
    borders = [(0, 0, 0)]
    for axis, (side, filter_side) in enumerate(zip(x.aval.shape[1:3], (height, width), strict=True)):
        spread = (cotangent.shape[1 + axis] - 1) * strides[axis] + 1
        before = filter_side - 1 - padding[axis][0]
        borders.append((before, side + filter_side - 1 - before - spread, strides[axis] - 1))
    spread = lax.pad(cotangent, jnp.zeros((), cotangent.dtype), (*borders, (0, 0, 0)))
    # Each group's filters [C / groups, features / groups], transposed.
    filters = kernel[::-1, ::-1].reshape(height, width, -1, groups, features // groups)
    filters = filters.transpose(0, 1, 4, 3, 2).reshape(height, width, features // groups, -1)
    return _convolve_p.bind(spread, filters, strides=(1, 1), padding=((0, 0), (0, 0)), groups=groups)


def _to_kernel(cotangent: Array, x: Array, kernel: Any, *, strides: tuple, padding: tuple, groups: int) -> Array:
    """Gradient of the filters, of which ``kernel`` tells the shape."""
    height, width, depth, features = kernel.aval.shape
    batch, rows, columns, _ = cotangent.shape
    padded = lax.optimization_barrier(jnp.pad(x, ((0, 0), *padding, (0, 0))))
    if groups == 1 and strides == (1, 1) and features < depth:  # patches of the smaller one
        around = ((0, 0), (height - 1, height - 1), (width - 1, width - 1), (0, 0))
        shifted = _patches(jnp.pad(cotangent, around), (height, width), padded.shape[1:3], strides)[:, :, :, ::-1]
        kernel = padded.reshape(-1, depth).T @ shifted.reshape(-1, height * width * features)
        return jnp.moveaxis(kernel.reshape(depth, height, width, features), 0, 2)
    patches = _patches(padded, (height, width), (rows, columns), strides)
    if groups == 1:
        filters = patches.reshape(-1, height * width * depth).T @ cotangent.reshape(-1, features)
    else:
        patches = patches.reshape(*patches.shape[:4], groups, depth)
        grouped = cotangent.reshape(batch, rows, columns, groups, features // groups)
        filters = jnp.einsum("bhwtgc,bhwgf->tcgf", patches, grouped)
    return filters.reshape(height, width, depth, features)


def _patches(x: Array, window: tuple[int, int], shape: tuple[int, int], strides: tuple) -> Array:
    """``[B, H, W, C] -> [B, *shape, h w, C]``: what each of ``shape`` windows sees."""
    last = [(size - 1) * stride + 1 for size, stride in zip(shape, strides, strict=True)]
    taps = [
        x[:, i : i + last[0] : strides[0], j : j + last[1] : strides[1]]
        for i in range(window[0])
        for j in range(window[1])
    ]
    return jnp.stack(taps, 3)


def _batched(args: tuple[Array, Array], axes: tuple, **static: Any) -> tuple[Array, int]:
    (x, kernel), (x_axis, kernel_axis) = args, axes
    if kernel_axis is None:
        x = jnp.moveaxis(x, x_axis, 0)
        y = _convolve_p.bind(x.reshape(-1, *x.shape[2:]), kernel, **static)
        return y.reshape(*x.shape[:2], *y.shape[1:]), 0
    kernels = jnp.moveaxis(kernel, kernel_axis, 0)
    xs = [x] * len(kernels) if x_axis is None else jnp.moveaxis(x, x_axis, 0)
    return jnp.stack([_convolve_p.bind(x, kernel, **static) for x, kernel in zip(xs, kernels, strict=True)]), 0


_convolve_p = Primitive("objcentric_convolve")
_convolve_p.def_impl(jax.jit(_values, static_argnames=("strides", "padding", "groups")))
_convolve_p.def_abstract_eval(
    lambda x, kernel, **static: jax.core.ShapedArray(
        jax.eval_shape(partial(_values, **static), x, kernel).shape, x.dtype
    )
)
mlir.register_lowering(_convolve_p, mlir.lower_fun(_values, multiple_results=False))
batching.primitive_batchers[_convolve_p] = _batched
ad.defbilinear(_convolve_p, _to_input, _to_kernel)
