"""Perceptrons and the up-convolution that decodes richer images."""

from collections.abc import Sequence

import flax.linen as nn
import jax.numpy as jnp
from jax import Array


class MLP(nn.Module):
    """``[D] -> [output]``: ELU layers of widths ``hidden``, then a linear layer."""

    hidden: Sequence[int]
    output: int
    output_scale: float = 1.0  # of the last layer's initial weights

    @nn.compact
    def __call__(self, x: Array) -> Array:
        for width in self.hidden:
            x = nn.elu(nn.Dense(width)(x))
        init = nn.initializers.variance_scaling(self.output_scale, "fan_in", "truncated_normal")
        return nn.Dense(self.output, kernel_init=init)(x)


class Deconv(nn.Module):
    """``[D] -> [H, W, C]``: a coarse map of features, doubled in size until it covers ``shape``, then cropped."""

    shape: Sequence[int]
    features: int = 32
    coarse: int = 7  # largest side of the map that the latent vector is projected to

    @nn.compact
    def __call__(self, x: Array) -> Array:
        height, width, channels = self.shape
        doublings = 0
        while max(height, width) > self.coarse << doublings:
            doublings += 1
        rows, columns = -(-height // (1 << doublings)), -(-width // (1 << doublings))
        x = nn.elu(nn.Dense(rows * columns * self.features)(x)).reshape(rows, columns, self.features)
        for _ in range(doublings):
            x = nn.elu(nn.ConvTranspose(self.features, (4, 4), strides=(2, 2))(x))
        x = nn.Conv(channels, (3, 3))(x)
        return jnp.asarray(x[:height, :width])
