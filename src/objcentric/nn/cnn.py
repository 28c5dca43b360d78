"""Convolutional networks.

They enlarge by sub-pixel convolutions (Shi et al., 2016): XLA has no fast gradient of transposed ones on CPUs.
"""

from collections.abc import Sequence

import flax.linen as nn
import jax.numpy as jnp
from jax import Array


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
        x = nn.elu(nn.Dense(rows * columns * self.features)(x)).reshape(rows, columns, self.features)
        for _ in range(doublings - 1):
            x = nn.elu(interleave(nn.Conv(4 * (self.features // 2), (3, 3))(x), 2))
        factor = 2 if doublings else 1
        return interleave(nn.Conv(factor**2 * channels, (3, 3))(x), factor)[:height, :width]


def interleave(x: Array, factor: int) -> Array:
    """``[H, W, factor^2 C] -> [factor H, factor W, C]``: the channels of a pixel become a block of pixels."""
    height, width, channels = x.shape
    x = x.reshape(height, width, factor, factor, channels // factor**2)
    return jnp.swapaxes(x, 1, 2).reshape(height * factor, width * factor, -1)
