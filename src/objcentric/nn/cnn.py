"""Convolutional networks.

They enlarge by sub-pixel convolutions (Shi et al., 2016): XLA has no fast gradient of transposed ones on CPUs.
"""

from collections.abc import Sequence

import flax.linen as nn
import jax.numpy as jnp
from jax import Array

from objcentric.nn.activations import elu
from objcentric.nn.convolution import Conv


class CNN(nn.Module):
    """``[H, W, C] -> [H', W', features]``: 3x3 convolutions, each with an ELU; borders are padded."""

    features: Sequence[int]
    strides: Sequence[int]

    @nn.compact
    def __call__(self, x: Array) -> Array:
        for features, stride in zip(self.features, self.strides, strict=True):
            x = elu(Conv(features, (3, 3), (stride, stride))(x))
        return x

    def output_shape(self, shape: Sequence[int]) -> tuple[int, int, int]:
        height, width, _ = shape
        for stride in self.strides:
            height, width = -(-height // stride), -(-width // stride)
        return height, width, self.features[-1]


class SubpixelCNN(nn.Module):
    """``[D] -> [H, W, C]``: two dense layers to a coarse map, then 3x3 convolutions, some of which enlarge it.

    A layer of stride s computes s * s maps for each of its own and interleaves them; a last one makes the channels.
    """

    shape: Sequence[int]  # (H, W, C), multiples of the product of the strides
    hidden: int
    features: Sequence[int]
    strides: Sequence[int]

    @nn.compact
    def __call__(self, x: Array) -> Array:
        height, width, channels = self.shape
        for stride in self.strides:
            height, width = height // stride, width // stride
        x = elu(nn.Dense(self.hidden)(x))
        x = elu(nn.Dense(height * width * self.features[0])(x)).reshape(height, width, self.features[0])
        for features, stride in zip(self.features, self.strides, strict=True):
            x = elu(interleave(Conv(features * stride**2, (3, 3))(x), stride))
        return Conv(channels, (3, 3), kernel_init=nn.initializers.variance_scaling(0.1, "fan_in", "truncated_normal"))(
            x
        )


class Deconv(nn.Module):
    """``[D] -> [H, W, C]``: a coarse map of features, doubled in size until it covers ``shape``, then cropped."""

    shape: Sequence[int]
    features: int = 32  # of the coarse map; those between it and the image have half as many
    coarse: int = 7  # largest side of the map that the latent vector is projected to

    @nn.compact
    def __call__(self, x: Array) -> Array:
        height, width, channels = self.shape
        doublings = 0
        while max(height, width) > self.coarse << doublings:
            doublings += 1
        rows, columns = -(-height // (1 << doublings)), -(-width // (1 << doublings))
        x = elu(nn.Dense(rows * columns * self.features)(x)).reshape(rows, columns, self.features)
        for _ in range(doublings - 1):
            x = elu(interleave(Conv(4 * (self.features // 2), (3, 3))(x), 2))
        factor = 2 if doublings else 1
        return interleave(Conv(factor**2 * channels, (3, 3))(x), factor)[:height, :width]


def interleave(x: Array, factor: int) -> Array:
    """``[H, W, factor^2 C] -> [factor H, factor W, C]``: the channels of a pixel become a block of pixels."""
    height, width, channels = x.shape
    x = x.reshape(height, width, factor, factor, channels // factor**2)
    return jnp.swapaxes(x, 1, 2).reshape(height * factor, width * factor, -1)
