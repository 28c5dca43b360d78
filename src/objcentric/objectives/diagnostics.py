"""How good an estimator of a gradient is: signal-to-noise ratios, bias and variance, effective sample size.

Gradients are pytrees (or one array) with an axis of R independent estimates in front, as `sample_gradients` draws them.
Where R of them do not fit in memory, draw fewer at a time and `merge_moments` what each lot says.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from objcentric.objectives.bounds import normalized_weights


def ess(log_w: Array, *, where: Array | None = None) -> Array:
    """Effective sample size ``(sum_k w_k)^2 / sum_k w_k^2`` in [1, K] (thesis, eq. 7.19); 0 where every weight is 0.

    >>> float(ess(jnp.log(jnp.array([1.0, 1.0, 2.0]))))  # 16 / 6
    2.666...
    """
    square = jnp.sum(jnp.square(normalized_weights(log_w, where=where)), axis=-1)
    return jnp.where(square > 0, 1 / jnp.where(square > 0, square, 1.0), 0.0)


def sample_gradients(grad_fn: Callable[[Array], Any], keys: Array, *, chunk: int = 100) -> Any:
    """Estimates ``[R, ...]``: what ``grad_fn(key)`` returns for each of R keys, ``chunk`` of them computed at once.

    >>> noisy = lambda key: {"w": 2.0 + jax.random.normal(key, (3,))}
    >>> sample_gradients(noisy, jax.random.split(jax.random.key(0), 250))["w"].shape
    (250, 3)
    """
    return jax.lax.map(grad_fn, keys, batch_size=min(chunk, keys.shape[0]))


class GradientMoments(NamedTuple):
    """Mean and spread of estimates of a gradient, component by component."""

    mean: Any  # pytree of [...]
    variance: Any  # pytree of [...], of one estimate; the sample variance
    count: Array | int  # [] estimates seen, R

    @property
    def snr(self) -> Any:
        """Signal-to-noise ratio ``|mean| / std``, a pytree of ``[...]``; see `snr`."""
        return jax.tree.map(lambda mean, variance: _ratio(jnp.abs(mean), jnp.sqrt(variance)), self.mean, self.variance)


def gradient_moments(gradients: Any) -> GradientMoments:
    """Moments of a pytree of R >= 2 estimates ``[R, ...]``.

    >>> moments = gradient_moments(jnp.array([[1.0, 4.0], [3.0, 4.0]]))
    >>> print(moments.mean, moments.variance)
    [2. 4.] [2. 0.]
    """
    count = _count(gradients)
    mean = jax.tree.map(lambda g: jnp.mean(g, axis=0), gradients)
    return GradientMoments(mean, jax.tree.map(lambda g: jnp.var(g, axis=0, ddof=1), gradients), count)


def merge_moments(first: GradientMoments, second: GradientMoments) -> GradientMoments:
    """Moments of two sets of estimates together (Chan et al., 1983).

    >>> low, high = (gradient_moments(jnp.array(g)) for g in ([1.0, 2.0], [3.0, 6.0]))
    >>> moments = merge_moments(low, high)  # of 1, 2, 3, 6
    >>> float(moments.mean), float(moments.variance), moments.count
    (3.0, 4.66..., 4)
    """
    count = first.count + second.count
    share = second.count / count

    def variance(m1: Array, v1: Array, m2: Array, v2: Array) -> Array:
        within = (first.count - 1) * v1 + (second.count - 1) * v2
        return (within + first.count * share * jnp.square(m2 - m1)) / (count - 1)

    mean = jax.tree.map(lambda m1, m2: m1 + share * (m2 - m1), first.mean, second.mean)
    pairs = (first.mean, first.variance, second.mean, second.variance)
    return GradientMoments(mean, jax.tree.map(variance, *pairs), count)


def snr(gradients: Any) -> Any:
    """Signal-to-noise ratio ``|E g / std g|`` of every component (thesis, eq. 7.4), from R >= 2 estimates ``[R, ...]``.

    0 for a component that is 0 in every estimate. Of a gradient whose mean is 0, R estimates show about
    ``sqrt(2 / (pi R))`` instead of 0: no SNR below a few times that can be told from none.

    >>> float(snr(jnp.array([1.0, 2.0, 3.0])))
    2.0
    """
    return gradient_moments(gradients).snr


def dsnr(gradients: Any, direction: Any = None) -> Array:
    """Directional SNR of each estimate, ``|g_parallel| / |g_orthogonal|`` ``[R]``; their mean is thesis, eq. 7.12.

    All components of the pytree are one vector. An estimate of 0 has a ratio of 0. A direction drawn at random in D
    dimensions has ratios of about ``sqrt(2 / (pi D))``.

    Args:
      direction: a pytree of ``[...]`` of any length but 0, parallel to which is right; by default the estimates' mean.

    >>> g = jnp.array([[4.0, 3.0], [-4.0, 2.0]])
    >>> print(dsnr(g, jnp.array([0.5, 0.0])))
    [1.333... 2. ]
    """
    if direction is None:
        direction = jax.tree.map(lambda g: jnp.mean(g, axis=0), gradients)
    length = jnp.sqrt(sum(jnp.sum(jnp.square(u)) for u in jax.tree.leaves(direction)))
    unit = jax.tree.map(lambda u: u / length, direction)

    def one(gradient: Any) -> Array:
        along = sum(jax.tree.leaves(jax.tree.map(lambda g, u: jnp.sum(g * u), gradient, unit)))
        across = jax.tree.map(lambda g, u: jnp.sum(jnp.square(g - along * u)), gradient, unit)
        return _ratio(jnp.abs(along), jnp.sqrt(sum(jax.tree.leaves(across))))

    return jax.vmap(one)(gradients)


class BiasAndVariance(NamedTuple):
    """How far an estimator is off on average, how sure that is, and how far it strays."""

    bias: Any  # pytree of [...], mean of the estimates minus the exact gradient
    standard_error: Any  # pytree of [...], of that bias: an unbiased estimator is rarely beyond 4 of them
    variance: Any  # pytree of [...], of one estimate


def bias_and_variance(gradients: Any, exact: Any) -> BiasAndVariance:
    """Of R >= 2 estimates ``[R, ...]``, such as those of `sample_gradients`, against the ``exact`` gradient ``[...]``.

    >>> result = bias_and_variance(jnp.array([1.0, 2.0, 3.0, 6.0]), jnp.array(2.5))
    >>> [round(float(value), 3) for value in result]
    [0.5, 1.08, 4.667]
    """
    moments = gradient_moments(gradients)
    bias = jax.tree.map(jnp.subtract, moments.mean, exact)
    return BiasAndVariance(
        bias, jax.tree.map(lambda v: jnp.sqrt(v / moments.count), moments.variance), moments.variance
    )


def enumerate_expectation(f: Callable[[Array], Any], log_prob: Callable[[Array], Array], sizes: Sequence[int]) -> Any:
    """The exact ``E f(z)`` over discrete ``z``: ``sum_z exp(log_prob(z)) f(z)``; differentiate it for exact gradients.

    Outcomes of probability 0 do not count, whatever ``f`` says of them.

    Args:
      f: of integers ``z [n]`` a pytree.
      log_prob: of ``z [n]`` its log-probability.
      sizes: how many values each entry of z has: ``(C,) * K`` for K categorical draws, ``(2,) * D`` for D bits. All
        prod(sizes) outcomes, of which there may be 2^20, are held at once.

    >>> logits = jnp.log(jnp.array([0.2, 0.5, 0.3]))
    >>> log_prob = lambda z: jax.nn.log_softmax(logits)[z].sum()
    >>> round(float(enumerate_expectation(jnp.max, log_prob, (3, 3))), 3)  # (1 - .2^2) + (1 - .7^2)
    1.47
    """
    if math.prod(sizes) > 2**20:
        raise ValueError(f"{' x '.join(map(str, sizes))} outcomes are too many to enumerate: at most 2^20")
    z = jnp.reshape(jnp.indices(sizes), (len(sizes), -1)).T
    p = jnp.exp(jax.vmap(log_prob)(z))

    def mean(values: Array) -> Array:
        possible = jnp.reshape(p > 0, (-1,) + (1,) * (values.ndim - 1))
        return jnp.tensordot(p, jnp.where(possible, values, 0), axes=1)

    return jax.tree.map(mean, jax.vmap(f)(z))


def _ratio(signal: Array, noise: Array) -> Array:
    """``signal / noise``, where nothing over nothing is 0."""
    return jnp.where(signal == 0, 0.0, signal / noise)


def _count(gradients: Any) -> int:
    counts = {leaf.shape[0] if leaf.ndim else 0 for leaf in jax.tree.leaves(gradients)}
    if len(counts) != 1 or min(counts) < 2:
        raise ValueError(f"gradients need one leading axis of at least 2 estimates; it has {sorted(counts)}")
    return counts.pop()
