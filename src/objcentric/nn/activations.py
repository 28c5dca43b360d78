"""Activations."""

import jax
import jax.numpy as jnp
from jax import Array


@jax.custom_jvp
def elu(x: Array) -> Array:
    """x where positive, exp(x) - 1 elsewhere (Clevert et al., 2016): XLA does not vectorise expm1 on CPUs, but exp."""
    return jnp.where(x > 0, x, jnp.exp(jnp.minimum(x, 0.0)) - 1.0)


@elu.defjvp
def _elu_jvp(primals: tuple, tangents: tuple) -> tuple:
    y = elu(*primals)
    return y, jnp.where(y > 0, 1.0, y + 1.0) * tangents[0]
