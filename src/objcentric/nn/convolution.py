"""A convolution whose gradient is fast on CPUs, too.

Inside loops XLA computes gradients of convolutions on CPUs ten to thirty times slower than its fast kernels would. There
a convolution is a product of matrices, and so are its gradients. Values are those of `jax.lax.conv_general_dilated`.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array, lax


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
    return _by_products(x, kernel, tuple(strides), tuple(map(tuple, padding)), groups)


Conv = partial(nn.Conv, conv_general_dilated=convolve)


@partial(jax.checkpoint, prevent_cse=False, static_argnums=(2, 3, 4))  # patches take much memory, and little time
def _by_products(x: Array, kernel: Array, strides: tuple, padding: tuple, groups: int) -> Array:
    height, width, depth, features = kernel.shape
    # Without barriers each of the shifted copies would compute anew what x is made of.
    padded = lax.optimization_barrier(jnp.pad(x, ((0, 0), *padding, (0, 0))))
    rows, columns = ((padded.shape[1 + i] - kernel.shape[i]) // strides[i] + 1 for i in range(2))
    taps = [
        padded[:, i : i + (rows - 1) * strides[0] + 1 : strides[0], j : j + (columns - 1) * strides[1] + 1 : strides[1]]
        for i in range(height)
        for j in range(width)
    ]
    if groups == 1 and features < depth and strides == (1, 1):
        each = lax.optimization_barrier(padded @ jnp.moveaxis(kernel, 2, 0).reshape(depth, -1))
        each = each.reshape(*padded.shape[:3], len(kernel) * kernel.shape[1], features)
        return sum(each[:, i : i + rows, j : j + columns, i * width + j] for i in range(height) for j in range(width))
    if groups == 1:
        return jnp.concatenate(taps, -1) @ kernel.reshape(-1, features)
    patches = jnp.stack(taps, 3).reshape(*taps[0].shape[:3], len(taps), groups, depth)
    filters = kernel.reshape(len(taps), depth, groups, features // groups)
    return jnp.einsum("bhwtgc,tcgf->bhwgf", patches, filters).reshape(*taps[0].shape[:3], features)
