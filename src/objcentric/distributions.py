"""The distributions of the models; distrax is imported here and nowhere else."""

import distrax
import jax
import jax.numpy as jnp
from jax import Array

normal = distrax.Normal  # (loc, scale)


def bernoulli(logits: Array, margin: Array | float) -> distrax.Distribution:
    """Bernoulli whose probability stays within (margin, 1 - margin).

    Logits are bounded smoothly, by a tanh: clipped ones would have no gradient, and what is certain could never change.
    """
    bound = jnp.log1p(-margin) - jnp.log(margin)
    return distrax.Bernoulli(logits=bound * jnp.tanh(logits / bound), dtype=jnp.float32)


def pixel_bernoulli(mean: Array, margin: float = 1e-3) -> distrax.Distribution:
    """Bernoulli of binary pixels, whose means are clipped to [margin, 1 - margin]."""
    return distrax.Bernoulli(probs=jnp.clip(mean, margin, 1 - margin), dtype=jnp.float32)


def pixels(mean: Array, likelihood: str, output_std: float) -> distrax.Distribution:
    """The likelihood of an image, given its mean: 'gaussian' with a fixed std, or 'bernoulli'."""
    return normal(mean, output_std) if likelihood == "gaussian" else pixel_bernoulli(mean)


def log_prob(distribution: distrax.Distribution, value: Array) -> Array:
    """Log-probability ``[]`` of ``value``, all of whose elements are one event.

    The sum is a product with ones: XLA does not vectorise reductions of many elements on CPUs (2500 pixels take 10x).
    """
    each = distribution.log_prob(value).reshape(-1)
    return each @ jnp.ones_like(each)


def spherical_log_prob(value: Array, loc: Array, scale: Array) -> Array:
    """Log-density ``[...]`` of ``value [..., D]`` under a normal of one standard deviation, ``scale [...]``."""
    size = value.shape[-1]
    distance = jnp.sum(jnp.square(value - loc), -1) / jnp.square(scale)
    return -distance / 2 - size * (jnp.log(scale) + jnp.log(2 * jnp.pi) / 2)


def truncated_geometric_log_prob(count: Array, success: Array, largest: int) -> Array:
    """Log-probability of ``p(n) ∝ success^n`` on {0, ..., largest} (air_notes 2017-12, eqs. 2 and 13).

    Args:
      count: integers or floats ``[...]`` in the support.
      success: probability in (0, 1] of going on to one more object; a small value asks for few objects.
      largest: N.
    """
    log_success = jnp.log(success)
    return count * log_success - jax.nn.logsumexp(jnp.arange(largest + 1) * log_success)
