"""Score-function estimators for discrete latents, with baselines as explicit state.

``log_w[..., K]`` are log-weights, through which reparameterised latents are differentiated as usual;
``log_q[..., K]`` is the log-probability of the discrete choices alone.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from objcentric.objectives.bounds import check_per_datum, check_shapes, ciwae, count, elbo, log_mean_exp, mask
from objcentric.objectives.estimate import Estimate

_stop = jax.lax.stop_gradient


def reinforce(log_w: Array, log_q: Array, *, baseline: Array | float = 0.0, where: Array | None = None) -> Estimate:
    """Score-function gradient of the importance-weighted bound L (Williams, 1992): ``L + sum_k sg(L - b) log q_k``.

    Thesis, eq. 8.2.

    Args:
      baseline: b ``[...]``, independent of these particles; any value leaves the gradient unbiased.

    >>> surrogate = lambda log_q: reinforce(jnp.array([-2.0, -2.0]), log_q, baseline=-5.0).surrogate
    >>> jax.grad(surrogate)(jnp.zeros(2)).tolist()
    [3.0, 3.0]
    """
    check_shapes(log_w=log_w, log_q=log_q)
    bound = log_mean_exp(log_w, where=where)
    check_per_datum(bound, baseline=baseline)
    return Estimate(bound, bound + score(bound - baseline, jnp.sum(mask(log_q, where, 0.0), axis=-1)))


def rloo(log_w: Array, log_q: Array, *, where: Array | None = None) -> Estimate:
    """REINFORCE for the ELBO, each particle's baseline the mean of the others (Kool et al., 2019); needs K >= 2.

    ``1/K sum_k [log_w_k + sg(log_w_k - mean_{j != k} log_w_j) log q_k]``: its bound is the ELBO, not IWAE's.

    >>> jax.grad(lambda log_q: rloo(jnp.array([-2.0, -3.0]), log_q).surrogate)(jnp.zeros(2)).tolist()
    [0.5, -0.5]
    """
    check_shapes(log_w=log_w, log_q=log_q)
    _check_several("rloo", log_w)
    bound = elbo(log_w, where=where).bound
    signal = log_w - _mean_of_others(log_w, where)
    scores = score(mask(signal, where, 0.0), mask(log_q, where, 0.0))
    return Estimate(bound, bound + elbo(scores, where=where).bound)


def vimco(log_w: Array, log_q: Array, *, arithmetic: bool = False, where: Array | None = None) -> Estimate:
    """VIMCO (Mnih and Rezende, 2016): ``L + sum_k sg(L - Y_{-k}) log q_k``; needs K >= 2 (thesis, eq. 8.3).

    Args:
      arithmetic: whether `leave_one_out` replaces a weight by the arithmetic mean of the others, not the geometric one.

    >>> gradient = jax.grad(lambda log_q: vimco(jnp.array([-2.0, -3.0]), log_q).surrogate)(jnp.zeros(2))
    >>> [round(float(g), 4) for g in gradient]  # log((e^-2 + e^-3) / 2) + 3, and + 2
    [0.6201, -0.3799]
    """
    check_shapes(log_w=log_w, log_q=log_q)
    _check_several("vimco", log_w)
    bound = log_mean_exp(log_w, where=where)
    signal = bound[..., None] - leave_one_out(log_w, arithmetic=arithmetic, where=where)
    scores = score(mask(signal, where, 0.0), mask(log_q, where, 0.0))
    return Estimate(bound, bound + jnp.sum(scores, axis=-1))


def ciwae_vimco(log_w: Array, log_q: Array, *, beta: float | Array, where: Array | None = None) -> Estimate:
    """``beta ELBO + (1 - beta) L``, the CIWAE bound (thesis, eq. 7.13), by `rloo` and `vimco`; needs K >= 2.

    VIMCO hardly minds a choice that fails once in a while, which costs L no more than that share, in nats; the ELBO,
    as many nats as the particle that fails is worse.

    Args:
      beta: in [0, 1].

    >>> log_w, log_q = jnp.array([-2.0, -3.0]), jnp.zeros(2)
    >>> float(ciwae_vimco(log_w, log_q, beta=1.0).bound) == float(rloo(log_w, log_q).bound)
    True
    """
    bound = ciwae(log_w, beta=beta, where=where).bound
    shares = (beta, rloo(log_w, log_q, where=where)), (1 - beta, vimco(log_w, log_q, where=where))
    return Estimate(bound, sum(jnp.where(share == 0, 0.0, share * estimate.surrogate) for share, estimate in shares))


def leave_one_out(log_w: Array, *, arithmetic: bool = False, where: Array | None = None) -> Array:
    """``Y_{-k}``, VIMCO's baselines ``[..., K]``: L with w_k replaced by the mean of the other weights.

    The geometric mean is the paper's; with the arithmetic one, ``Y_{-k}`` is the bound of the other particles. It is 0
    for a particle without others.

    >>> [round(float(y), 4) for y in leave_one_out(jnp.array([-2.0, -3.0]))]
    [-3.0, -2.0]
    """
    log_w = mask(_stop(log_w), where, -jnp.inf)
    total = _log_sum_of_others(log_w)
    others = _number_of_others(log_w, where)
    if arithmetic:
        value = total - jnp.log(jnp.maximum(others, 1))
    else:
        value = jnp.logaddexp(total, _mean_of_others(log_w, where)) - jnp.log(others + 1)
    return jnp.where(others > 0, value, 0.0)


def score(signal: Array, log_q: Array) -> Array:
    """``sg(signal) log_q``, 0 where a bound is not finite and says nothing about which choice was better."""
    signal = _stop(signal)
    known = jnp.isfinite(signal)
    return jnp.where(known, signal, 0.0) * jnp.where(known, log_q, 0.0)


def _log_sum_of_others(log_w: Array) -> Array:
    """``log sum_{j != k} w_j`` ``[..., K]``.

    Subtracting w_k from the sum of all loses up to 115 nats in float32 if w_k is the largest; of the others nothing.
    """
    largest = jnp.argmax(log_w, axis=-1, keepdims=True)
    is_largest = jax.lax.broadcasted_iota(largest.dtype, log_w.shape, log_w.ndim - 1) == largest
    shift = _finite_max(log_w)
    w = jnp.exp(log_w - shift)
    without_it = jax.nn.logsumexp(jnp.where(is_largest, -jnp.inf, log_w), axis=-1, keepdims=True)
    difference = jnp.where(is_largest, 1.0, jnp.sum(w, axis=-1, keepdims=True) - w)
    return jnp.where(is_largest, without_it, jnp.log(difference) + shift)


def _mean_of_others(log_w: Array, where: Array | None) -> Array:
    """``mean_{j != k} log_w_j`` ``[..., K]``; 0 for a particle without others."""
    log_w = _stop(log_w)
    shift = _finite_max(mask(log_w, where, -jnp.inf))
    none = mask(jnp.isneginf(log_w), where, False)
    x = jnp.where(none, 0.0, mask(log_w - shift, where, 0.0))
    others = _number_of_others(log_w, where)
    mean = shift + (jnp.sum(x, axis=-1, keepdims=True) - x) / jnp.maximum(others, 1)
    some_are_none = jnp.sum(none, axis=-1, keepdims=True) > none
    return jnp.where(others > 0, jnp.where(some_are_none, -jnp.inf, mean), 0.0)


def _finite_max(log_w: Array) -> Array:
    """The largest log-weight ``[..., 1]``, or 0 if all are -inf: with it the others are of a size to add."""
    largest = jnp.max(log_w, axis=-1, keepdims=True)
    return jnp.where(jnp.isneginf(largest), 0.0, largest)


def _number_of_others(log_w: Array, where: Array | None) -> Array:
    """How many particles exist besides each one ``[..., K]``."""
    if where is None:
        return jnp.full(log_w.shape, log_w.shape[-1] - 1)
    return count(log_w, where)[..., None] - jnp.broadcast_to(where, log_w.shape)


def _check_several(name: str, log_w: Array) -> None:
    if log_w.shape[-1] < 2:
        raise ValueError(f"{name} needs at least 2 particles, each a baseline for the others; K is {log_w.shape[-1]}")


class Moments(NamedTuple):
    """Running mean and mean square of a learning signal; over devices, their averages are those of the whole batch."""

    mean: Array  # []
    square: Array  # []
    count: Array  # [] batches seen, less those whose signal was -inf

    @property
    def variance(self) -> Array:
        return jnp.maximum(self.square - jnp.square(self.mean), 0.0)


def init_moments() -> Moments:
    """The state before any batch was seen.

    >>> float(init_moments().count)
    0.0
    """
    return Moments(jnp.zeros(()), jnp.zeros(()), jnp.zeros(()))


def update_moments(moments: Moments, signal: Array, *, decay: float) -> Moments:
    """Moves towards the moments of ``signal [...]``; the plain average until ``1 / (1 - decay)`` batches.

    Where the signal is -inf it says nothing, and counts for nothing.

    >>> moments = update_moments(init_moments(), jnp.array([1.0, 3.0]), decay=0.9)
    >>> float(moments.mean), float(moments.variance)
    (2.0, 1.0)
    """
    signal = _stop(signal)
    empty = jnp.isneginf(signal)
    signal = jnp.where(empty, 0.0, signal)
    share = 1.0 - jnp.mean(empty, dtype=signal.dtype)
    seen = moments.count + share
    rate = jnp.maximum(1.0 - decay, 1.0 / jnp.where(seen > 0, seen, 1.0))
    mean = moments.mean + rate * (jnp.mean(signal) - share * moments.mean)
    square = moments.square + rate * (jnp.mean(jnp.square(signal)) - share * moments.square)
    return Moments(mean, square, seen)


def nvil(
    log_w: Array, log_q: Array, *, baseline: Array, moments: Moments, where: Array | None = None
) -> tuple[Estimate, Array]:
    """NVIL (Mnih and Gregor, 2014): the signal ``L - b(x) - c``, divided by ``max(1, sqrt v)``, weighs the score.

    Args:
      baseline: b(x) ``[...]``, a network's prediction of ``L - c``.
      moments: c and v of ``L - b(x)``, from `update_moments` with the batches before this one.

    Returns:
      the estimate, and the loss ``(sg(L) - b(x) - c)^2 [...]`` whose gradient trains the baseline.

    >>> estimate, loss = nvil(jnp.array([-2.0]), jnp.array([-0.7]), baseline=jnp.array(-4.0), moments=init_moments())
    >>> float(loss)
    4.0
    """
    check_shapes(log_w=log_w, log_q=log_q)
    bound = log_mean_exp(log_w, where=where)
    check_per_datum(bound, baseline=baseline)
    residual = jnp.where(jnp.isneginf(bound), 0.0, _stop(bound - moments.mean) - baseline)
    signal = residual / jnp.maximum(1.0, jnp.sqrt(moments.variance))
    surrogate = bound + score(signal, jnp.sum(mask(log_q, where, 0.0), axis=-1))
    return Estimate(bound, surrogate), jnp.square(residual)
