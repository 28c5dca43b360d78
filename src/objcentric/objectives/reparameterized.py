"""Estimators that drop or rewrite the score of a reparameterised q, which costs variance and has no need to.

All take the same two arrays of the same numbers: ``log_w[..., K]``, of which the generative part's parameters alone are
live (z and the inference part are stopped); and ``log_w_path[..., K]``, of which the path of z through its
reparameterisation alone is live: *parameters*, of both parts, are stopped in the densities (stopping the statistics of
q instead is wrong for a hierarchical q). With a function ``log_w(theta, phi, z)`` and draws ``z(phi)``::

    log_w      = log_w(theta, stop(phi), stop(z))
    log_w_path = log_w(stop(theta), stop(phi), z(phi))
"""

import jax.numpy as jnp
from jax import Array

from objcentric.objectives.bounds import check_shapes, iwae, normalized_weights
from objcentric.objectives.estimate import Estimate
from objcentric.objectives.wake_sleep import weighted_sum


def stl(log_w: Array, log_w_path: Array, *, where: Array | None = None) -> Estimate:
    """Sticking the landing (Roeder et al., 2017), for IWAE: phi gets ``sum_k sg(w~_k) log_w_path_k``.

    Unbiased for K = 1; for more particles the score that it drops has no zero mean, and `dreg` is the unbiased one.

    >>> import jax
    >>> log_w = jnp.log(jnp.array([1.0, 3.0]))
    >>> print(jax.grad(lambda path: stl(log_w, path).surrogate)(log_w).round(3))
    [0.25...0.75...]
    """
    return _with_path(log_w, log_w_path, lambda w: w, where)


def dreg(log_w: Array, log_w_path: Array, *, where: Array | None = None) -> Estimate:
    """Doubly reparameterised gradient of IWAE (Tucker et al., 2019): phi gets ``sum_k sg(w~_k^2) log_w_path_k``.

    >>> import jax
    >>> log_w = jnp.log(jnp.array([1.0, 3.0]))
    >>> print(jax.grad(lambda path: dreg(log_w, path).surrogate)(log_w).round(4))
    [0.0625...0.5625...]
    """
    return _with_path(log_w, log_w_path, jnp.square, where)


def rws_dreg(log_w: Array, log_w_path: Array, *, where: Array | None = None) -> Estimate:
    """The same for the wake-phase phi update (Tucker et al., 2019): ``sum_k sg(w~_k - w~_k^2) log_w_path_k``.

    Its mean is that of `wake_phi`, self-normalisation's bias included.

    >>> import jax
    >>> log_w = jnp.log(jnp.array([1.0, 3.0]))
    >>> print(jax.grad(lambda path: rws_dreg(log_w, path).surrogate)(log_w).round(4))
    [0.1875...0.187...]
    """
    return _with_path(log_w, log_w_path, lambda w: w - jnp.square(w), where)


def _with_path(log_w: Array, log_w_path: Array, coefficient, where: Array | None) -> Estimate:
    check_shapes(log_w=log_w, log_w_path=log_w_path)
    bound = iwae(log_w, where=where).bound
    weights = coefficient(normalized_weights(log_w, where=where))
    return Estimate(bound, bound + weighted_sum(weights, log_w_path, where))
