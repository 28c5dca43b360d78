"""Score-function estimators for discrete latents, with baselines as explicit state.

``log_w[..., K]`` are log-weights, through which reparameterised latents are differentiated as usual;
``log_q[..., K]`` is the log-probability of the discrete choices alone.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from objcentric.objectives.bounds import log_mean_exp
from objcentric.objectives.estimate import Estimate

_stop = jax.lax.stop_gradient


def reinforce(log_w: Array, log_q: Array, *, baseline: Array | float = 0.0) -> Estimate:
    """Score-function gradient of the importance-weighted bound L (Williams, 1992): ``L + sum_k sg(L - b) log q_k``.

    Args:
      baseline: b ``[...]``, independent of these particles; any value leaves the gradient unbiased.
    """
    _check(log_w, log_q)
    bound = log_mean_exp(log_w)
    signal = _learnable(bound - baseline)
    return Estimate(bound, bound + signal * jnp.sum(log_q, axis=-1))


def leave_one_out(log_w: Array) -> Array:
    """``Y_{-k}``, VIMCO's baselines ``[..., K]``: L with w_k replaced by the geometric mean of the other weights.

    The K replaced sets are formed explicitly: subtracting w_k from the sum loses up to 115 nats in float32, and
    -inf - -inf has no value.
    """
    num_particles = log_w.shape[-1]
    eye = jnp.eye(num_particles, dtype=bool)
    others = jnp.sum(jnp.where(eye, 0.0, log_w[..., None, :]), axis=-1, keepdims=True) / (num_particles - 1)
    return log_mean_exp(jnp.where(eye, others, log_w[..., None, :]))


def vimco(log_w: Array, log_q: Array) -> Estimate:
    """VIMCO (Mnih and Rezende, 2016): ``L + sum_k sg(L - Y_{-k}) log q_k``; needs K >= 2."""
    _check(log_w, log_q)
    if log_w.shape[-1] < 2:
        raise ValueError("vimco needs at least 2 particles for its leave-one-out baselines; K is 1")
    bound = log_mean_exp(log_w)
    signal = _learnable(bound[..., None] - leave_one_out(log_w))
    return Estimate(bound, bound + jnp.sum(signal * log_q, axis=-1))


def _learnable(signal: Array) -> Array:
    """The weight of a score; 0 where a bound is -inf and says nothing about which choice was better."""
    return _stop(jnp.where(jnp.isfinite(signal), signal, 0.0))


def _check(log_w: Array, log_q: Array) -> None:
    if log_w.shape != log_q.shape:
        raise ValueError(f"log_w and log_q must have one shape [..., K]; they have {log_w.shape} and {log_q.shape}")


class Moments(NamedTuple):
    """Running mean and mean square of a learning signal; over devices, their averages are those of the whole batch."""

    mean: Array  # []
    square: Array  # []
    count: Array  # [] batches seen

    @property
    def variance(self) -> Array:
        return jnp.maximum(self.square - jnp.square(self.mean), 0.0)


def init_moments() -> Moments:
    """The state before any batch was seen."""
    return Moments(jnp.zeros(()), jnp.zeros(()), jnp.zeros(()))


def update_moments(moments: Moments, signal: Array, *, decay: float) -> Moments:
    """Moves towards the moments of ``signal [...]``; the plain average until ``1 / (1 - decay)`` batches."""
    signal = _stop(signal)
    rate = jnp.maximum(1.0 - decay, 1.0 / (moments.count + 1.0))
    mean = moments.mean + rate * (jnp.mean(signal) - moments.mean)
    square = moments.square + rate * (jnp.mean(jnp.square(signal)) - moments.square)
    return Moments(mean, square, moments.count + 1.0)


def nvil(log_w: Array, log_q: Array, *, baseline: Array, moments: Moments) -> tuple[Estimate, Array]:
    """NVIL (Mnih and Gregor, 2014): the signal ``L - b(x) - c``, divided by ``max(1, sqrt v)``, weighs the score.

    Args:
      baseline: b(x) ``[...]``, a network's prediction of ``L - c``.
      moments: c and v of ``L - b(x)``, from `update_moments` with the batches before this one.

    Returns:
      the estimate, and the loss ``(sg(L) - b(x) - c)^2 [...]`` whose gradient trains the baseline.
    """
    _check(log_w, log_q)
    bound = log_mean_exp(log_w)
    residual = jnp.where(jnp.isneginf(bound), 0.0, _stop(bound - moments.mean) - baseline)
    signal = _stop(residual) / jnp.maximum(1.0, jnp.sqrt(moments.variance))
    return Estimate(bound, bound + signal * jnp.sum(log_q, axis=-1)), jnp.square(residual)
