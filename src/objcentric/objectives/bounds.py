"""Pathwise bounds: every latent variable is reparameterised. Log-weights are ``log_w[..., K] = log p - log q``.

``where[..., K]`` tells which particles exist, in all of `objcentric.objectives`: what a masked one holds, NaN included,
changes neither values nor gradients, and K is the number of those that exist.
"""

import jax
import jax.numpy as jnp
from jax import Array

from objcentric.objectives.estimate import Estimate


def log_mean_exp(log_w: Array, *, where: Array | None = None) -> Array:
    """``log 1/K sum_k exp(log_w_k)`` over the last axis; -inf where every weight is 0, with a gradient of 0 there.

    >>> float(log_mean_exp(jnp.log(jnp.array([1.0, 2.0, 6.0]))))  # log 3
    1.098612...
    """
    log_w = mask(log_w, where, -jnp.inf)
    top = jax.lax.stop_gradient(jnp.max(log_w, axis=-1, keepdims=True))
    empty = jnp.isneginf(top)
    safe = jnp.where(empty, 0.0, log_w - jnp.where(empty, 0.0, top))
    value = jnp.log(jnp.sum(jnp.exp(safe), axis=-1)) + jnp.squeeze(top, -1)
    return jnp.where(jnp.squeeze(empty, -1), -jnp.inf, value - jnp.log(count(log_w, where)))


def normalized_weights(log_w: Array, *, where: Array | None = None) -> Array:
    """``w_k / sum_j w_j`` ``[..., K]``, all 0 where every weight is 0; normalised over particles, never over data.

    >>> print(normalized_weights(jnp.log(jnp.array([1.0, 3.0]))).round(3))
    [0.25...0.75...]
    """
    log_w = mask(log_w, where, -jnp.inf)
    top = jnp.max(log_w, axis=-1, keepdims=True)
    empty = jnp.isneginf(top)
    return jnp.where(empty, 0.0, jax.nn.softmax(jnp.where(empty, 0.0, log_w), axis=-1))


def elbo(log_w: Array, *, where: Array | None = None) -> Estimate:
    """Evidence lower bound averaged over K particles, ``1/K sum_k log_w_k`` (thesis, eq. 7.1).

    >>> float(elbo(jnp.array([-3.0, -1.0])).bound)
    -2.0
    """
    log_w = mask(log_w, where, 0.0)
    log_w = jnp.where(jnp.isneginf(log_w), -jnp.inf, log_w)  # stops the gradient of weights that are 0
    bound = jnp.sum(log_w, axis=-1) / count(log_w, where)
    return Estimate(bound, bound)


def iwae(log_w: Array, *, where: Array | None = None) -> Estimate:
    """Importance-weighted bound ``L = log 1/K sum_k w_k`` (Burda et al., 2016; thesis, eq. 7.2).

    >>> float(iwae(jnp.array([-3.0, -1.0])).bound)
    -1.566...
    """
    bound = log_mean_exp(log_w, where=where)
    return Estimate(bound, bound)


def miwae(log_w: Array, *, num_groups: int, where: Array | None = None) -> Estimate:
    """``1/M sum_m L_m``: the mean of the bounds of M groups of L = K / M particles each (thesis, eq. 7.3).

    Consecutive particles form a group; M = 1 is `iwae`, M = K is `elbo`. A group without any particle is left out.

    >>> log_w = jnp.log(jnp.array([1.0, 3.0, 2.0, 2.0]))  # two groups of two, each of mean 2
    >>> float(jnp.exp(miwae(log_w, num_groups=2).bound))
    2.0...
    """
    size = log_w.shape[-1]
    if num_groups < 1 or size % num_groups:
        raise ValueError(f"num_groups={num_groups} must divide the {size} particles")
    log_w = mask(log_w, where, -jnp.inf)
    grouped = (*log_w.shape[:-1], num_groups, size // num_groups)
    exist = None if where is None else jnp.broadcast_to(where, log_w.shape).reshape(grouped)
    groups = log_mean_exp(log_w.reshape(grouped), where=exist)
    return elbo(groups, where=None if exist is None else jnp.any(exist, axis=-1))


def ciwae(log_w: Array, *, beta: float | Array, where: Array | None = None) -> Estimate:
    """``beta ELBO + (1 - beta) IWAE`` of the same weights, beta in [0, 1] (thesis, eqs. 7.13 and 7.14).

    >>> log_w = jnp.array([-3.0, -1.0])
    >>> float(ciwae(log_w, beta=0.5).bound) == float(0.5 * elbo(log_w).bound + 0.5 * iwae(log_w).bound)
    True
    """
    shares = ((beta, elbo(log_w, where=where).bound), (1 - beta, iwae(log_w, where=where).bound))
    check_per_datum(shares[0][1], beta=beta)
    bound = sum(jnp.where(share == 0, 0.0, share * bound) for share, bound in shares)  # 0 * -inf is no number
    return Estimate(bound, bound)


def piwae(log_w: Array, log_w_inference: Array, *, num_groups: int, where: Array | None = None) -> Estimate:
    """IWAE for the generative part, MIWAE for the inference part, of the same weights (thesis, eqs. 7.15a and 7.15b).

    Args:
      log_w: log-weights of which the generative part's parameters alone are live: the others, and z, are stopped.
      log_w_inference: the same numbers, the inference part's parameters alone live.

    Returns:
      the IWAE bound, and a surrogate for both parts at once. Compiled, the two evaluations of the weights share their
      forward pass; backwards there are two, as each part weighs the particles in its own way.

    >>> weight = lambda theta, phi: jnp.log(jnp.array([1.0, 3.0, 2.0, 2.0])) + theta + phi
    >>> stop = jax.lax.stop_gradient
    >>> surrogate = lambda t, p: piwae(weight(t, stop(p)), weight(stop(t), p), num_groups=2).surrogate
    >>> [float(g) for g in jax.grad(surrogate, (0, 1))(0.0, 0.0)]
    [1.0, 1.0]
    """
    check_shapes(log_w=log_w, log_w_inference=log_w_inference)
    bound = iwae(log_w, where=where).bound
    return Estimate(bound, bound + miwae(log_w_inference, num_groups=num_groups, where=where).surrogate)


def mask(x: Array, where: Array | None, value: float) -> Array:
    """``x`` with ``value`` for particles that do not exist; ValueError unless ``where`` tells of these particles."""
    if where is None:
        return x
    shape, of = jnp.shape(where), jnp.shape(x)
    if len(shape) > len(of) or any(a not in (1, b) for a, b in zip(shape[::-1], of[::-1], strict=False)):
        raise ValueError(f"where {shape} must tell which of the particles {of} exist")
    return jnp.where(where, x, value)


def count(x: Array, where: Array | None) -> Array | int:
    """The number of particles that exist, at least 1."""
    if where is None:
        return x.shape[-1]
    return jnp.maximum(jnp.sum(jnp.broadcast_to(where, x.shape), axis=-1), 1)


def check_per_datum(bound: Array, **arrays: Array | float) -> None:
    """ValueError unless each is a scalar or has the bound's shape ``[...]``: another one would pair up all data."""
    for name, array in arrays.items():
        if jnp.shape(array) not in ((), jnp.shape(bound)):
            raise ValueError(
                f"{name} {jnp.shape(array)} must be a scalar or have one value per bound {jnp.shape(bound)}"
            )


def check_shapes(**arrays: Array) -> None:
    """ValueError unless all have one shape ``[..., K]``."""
    shapes = {name: jnp.shape(array) for name, array in arrays.items()}
    if len(set(shapes.values())) > 1:
        found = ", ".join(f"{name} {shape}" for name, shape in shapes.items())
        raise ValueError(f"{' and '.join(shapes)} must have one shape [..., K]: {found}")
