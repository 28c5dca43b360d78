"""Reweighted wake-sleep (Bornschein and Bengio, 2015; thesis, ch. 8): one objective for each part of the model.

Latents are never differentiated through: every density here is that of a stopped z. Add the surrogates of the two
parts, e.g. ``wake_theta(log_p, log_q).surrogate + wake_phi(log_p - log_q, log_q).surrogate``.
"""

import math

import jax
import jax.numpy as jnp
from jax import Array

from objcentric.objectives.bounds import check_shapes, elbo, log_mean_exp, mask, normalized_weights
from objcentric.objectives.estimate import Estimate

_stop = jax.lax.stop_gradient


def wake_theta(log_p: Array, log_q: Array, *, where: Array | None = None) -> Estimate:
    """Wake-phase theta update: ``log 1/K sum_k p(x, z_k) / sg(q(z_k))`` (thesis, sec. 8.3.1).

    >>> log_p = jnp.log(jnp.array([1.0, 3.0]))
    >>> print(jax.grad(lambda log_p: wake_theta(log_p, jnp.zeros(2)).surrogate)(log_p).round(3))
    [0.25...0.75...]
    """
    check_shapes(log_p=log_p, log_q=log_q)
    bound = log_mean_exp(log_p - _stop(log_q), where=where)
    return Estimate(bound, bound)


def wake_phi(log_w: Array, log_q: Array, *, where: Array | None = None) -> Estimate:
    """Wake-phase phi update: ``sum_k sg(w_k / sum_j w_j) log q(sg z_k)`` (thesis, eq. 8.7); the bound is IWAE's.

    With K = 1 it only raises q where q has drawn: see `delta_wake_phi`.

    Args:
      log_w: stopped here.
      log_q: of *all* latents, unlike that of the score-function estimators.

    >>> log_w = jnp.log(jnp.array([1.0, 3.0]))
    >>> print(jax.grad(lambda log_q: wake_phi(log_w, log_q).surrogate)(jnp.zeros(2)).round(3))
    [0.25...0.75...]
    """
    check_shapes(log_w=log_w, log_q=log_q)
    log_w = _stop(log_w)
    surrogate = weighted_sum(normalized_weights(log_w, where=where), log_q, where)
    return Estimate(log_mean_exp(log_w, where=where), surrogate)


def sleep_phi(log_q: Array, *, where: Array | None = None) -> Estimate:
    """Sleep-phase phi update: the mean of ``log q(sg z | sg x)`` over draws (z, x) of the model (thesis, eq. 8.5).

    ``log_q[..., K]``: to match the cost of K particles, a batch of B data asks for K B draws. The value is not a bound.

    >>> float(sleep_phi(jnp.array([-1.0, -3.0])).surrogate)
    -2.0
    """
    return elbo(log_q, where=where)


def defend(key: Array, z: object, z_defensive: object, *, delta: float) -> object:
    """One draw of ``(1 - delta) q + delta u``: ``z_defensive`` with probability ``delta``, else ``z`` (pytrees).

    >>> defend(jax.random.key(0), {"z": 1}, {"z": 2}, delta=0.0)["z"].item()
    1
    """
    choice = jax.random.bernoulli(key, delta)
    return jax.tree.map(lambda a, b: jnp.where(choice, b, a), z, z_defensive)


def delta_wake_phi(log_p: Array, log_q: Array, log_u: Array, *, delta: float, where: Array | None = None) -> Estimate:
    """Wake-phase phi update with the proposal ``(1 - delta) q + delta u`` (thesis, sec. 8.4.3); its importance bound.

    Args:
      log_p, log_q, log_u: log p(x, z), log q(z | x) and the log-density of the defensive component (uniform for
        a categorical z, the prior for continuous ones), all **at the draws of that mixture** (`defend`).
      delta: in [0, 1); 0 is `wake_phi`.

    >>> log_p, log_q = jnp.log(jnp.array([[0.1, 0.3], [0.5, 0.5]]))
    >>> print(jax.grad(lambda q: delta_wake_phi(log_p, q, log_q, delta=0.2).surrogate)(log_q).round(3))
    [0.25...0.75...]
    """
    check_shapes(log_p=log_p, log_q=log_q, log_u=log_u)
    if not 0 <= delta < 1:
        raise ValueError(f"delta={delta} must be in [0, 1)")
    mixture = jnp.logaddexp(math.log1p(-delta) + log_q, math.log(delta) + log_u) if delta else log_q
    return wake_phi(log_p - mixture, log_q, where=where)


def weighted_sum(weights: Array, x: Array, where: Array | None) -> Array:
    """``sum_k sg(weights_k) x_k``; what has no weight may be infinite."""
    weights = _stop(weights)
    return jnp.sum(weights * jnp.where(weights == 0, 0.0, mask(x, where, 0.0)), axis=-1)
