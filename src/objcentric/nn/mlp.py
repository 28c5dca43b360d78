"""Perceptrons."""

from collections.abc import Sequence

import flax.linen as nn
from jax import Array

from objcentric.nn.activations import elu


class MLP(nn.Module):
    """``[D] -> [output]``: ELU layers of widths ``hidden``, then a linear layer."""

    hidden: Sequence[int]
    output: int
    output_scale: float = 1.0  # of the last layer's initial weights

    @nn.compact
    def __call__(self, x: Array) -> Array:
        for width in self.hidden:
            x = elu(nn.Dense(width)(x))
        init = nn.initializers.variance_scaling(self.output_scale, "fan_in", "truncated_normal")
        return nn.Dense(self.output, kernel_init=init)(x)
