"""The distributions of the models; distrax is imported here and nowhere else."""

import distrax
import jax
import jax.numpy as jnp
from jax import Array


def normal(loc: Array, scale: Array) -> distrax.Distribution:
    """Diagonal Gaussian; the last axis is the event."""
    return distrax.Independent(distrax.Normal(loc, scale), reinterpreted_batch_ndims=1)


def image_normal(mean: Array, std: float) -> distrax.Distribution:
    """Pixelwise Gaussian of an image ``[H, W, C]`` with a fixed std."""
    return distrax.Independent(distrax.Normal(mean, std), reinterpreted_batch_ndims=3)


def image_bernoulli(mean: Array, margin: float = 1e-3) -> distrax.Distribution:
    """Pixelwise Bernoulli of a binary image ``[H, W, C]``; means are clipped to [margin, 1 - margin]."""
    probs = jnp.clip(mean, margin, 1 - margin)
    return distrax.Independent(distrax.Bernoulli(probs=probs, dtype=jnp.float32), reinterpreted_batch_ndims=3)


def bernoulli(logits: Array, margin: float = 1e-3) -> distrax.Distribution:
    """Bernoulli whose probability is kept within [margin, 1 - margin]."""
    bound = jnp.log1p(-margin) - jnp.log(margin)
    return distrax.Bernoulli(logits=jnp.clip(logits, -bound, bound), dtype=jnp.float32)


def truncated_geometric_log_prob(count: Array, success: Array, largest: int) -> Array:
    """Log-probability of ``p(n) ∝ success^n`` on {0, ..., largest} (air_notes 2017-12, eqs. 2 and 13).

    Args:
      count: integers or floats ``[...]`` in the support.
      success: probability in (0, 1] of going on to one more object; a small value asks for few objects.
      largest: N.
    """
    log_success = jnp.log(success)
    return count * log_success - jax.nn.logsumexp(jnp.arange(largest + 1) * log_success)
