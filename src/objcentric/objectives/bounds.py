"""Pathwise bounds: every latent variable is reparameterised. Log-weights are ``log_w[..., K] = log p - log q``."""

import math

import jax
import jax.numpy as jnp
from jax import Array

from objcentric.objectives.estimate import Estimate


def log_mean_exp(log_w: Array) -> Array:
    """``log 1/K sum_k exp(log_w_k)`` over the last axis; -inf where every weight is 0, with a gradient of 0 there."""
    top = jax.lax.stop_gradient(jnp.max(log_w, axis=-1, keepdims=True))
    empty = jnp.isneginf(top)
    safe = jnp.where(empty, 0.0, log_w - jnp.where(empty, 0.0, top))
    value = jnp.log(jnp.sum(jnp.exp(safe), axis=-1)) + jnp.squeeze(top, -1) - math.log(log_w.shape[-1])
    return jnp.where(jnp.squeeze(empty, -1), -jnp.inf, value)


def elbo(log_w: Array) -> Estimate:
    """Evidence lower bound averaged over K particles, ``1/K sum_k log_w_k`` (thesis, eq. 7.1)."""
    bound = jnp.mean(log_w, axis=-1)
    return Estimate(bound, bound)


def iwae(log_w: Array) -> Estimate:
    """Importance-weighted bound ``log 1/K sum_k w_k`` (Burda et al., 2016; thesis, eq. 7.3)."""
    bound = log_mean_exp(log_w)
    return Estimate(bound, bound)
