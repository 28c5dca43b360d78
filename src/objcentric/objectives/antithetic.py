"""Score-function estimators for binary latents from negatively dependent draws: DisARM and ARMS.

Draws ``b[..., n, D]`` of D independent bits with logits ``alpha[..., D]``; across the n draws, each bit is exchangeable
with pairwise correlation rho < 0. Every estimator is the leave-one-out REINFORCE of those draws, divided by 1 - rho:
``E[b_k | b_j] = p + rho (b_j - p)``, hence ``E[(f_j - f_k)(b_j - b_k) / 2] = (1 - rho) E[f_j (b_j - p)]``, and the last
expectation is the gradient of E[f] with respect to the logit.
"""

import jax
import jax.numpy as jnp
from jax import Array

from objcentric.objectives.estimate import Estimate

_stop = jax.lax.stop_gradient


def antithetic_bernoulli(key: Array, logits: Array, *, num_samples: int = 2) -> Array:
    """Draws of bits as different from one another as they can be, 0.0 or 1.0 ``[..., n, D]``; ``logits [..., D]``.

    For each bit a Dirichlet draw ``d ~ Dir(1_n)`` (Dimitriev and Zhou, 2021, sec. 4): ``(1 - d_j)^(n-1)`` is uniform;
    the rarer value, of probability q = min(p, 1 - p), is taken where it is below q. For n = 2 these are the antithetic
    pairs ``u, 1 - u`` of DisARM. ValueError for n < 2.

    >>> b = antithetic_bernoulli(jax.random.key(0), jnp.zeros(5))
    >>> print(b[0] + b[1])  # at p = 1/2 a pair never agrees
    [1. 1. 1. 1. 1.]
    """
    _check_several("antithetic_bernoulli", num_samples)
    noise = jax.random.exponential(key, (*logits.shape[:-1], num_samples, logits.shape[-1]), logits.dtype)
    total = jnp.sum(noise, axis=-2, keepdims=True)
    rare = total - noise < total * jnp.exp(_log_rarer(logits) / (num_samples - 1))[..., None, :]
    return (rare != (logits > 0)[..., None, :]).astype(logits.dtype)


def antithetic_correlation(logits: Array, *, num_samples: int = 2) -> Array:
    """Correlation rho ``[..., D]`` of a bit between any two of n draws of `antithetic_bernoulli`.

    With q = min(p, 1 - p) and ``A = max(0, 2 - q^(-1/(n-1)))^(n-1)``: both draws have the rarer value with probability
    q A, as ``P(d_j > s, d_k > s) = max(0, 1 - 2 s)^(n-1)``, and ``rho = (A - q) / (1 - q)``.

    >>> antithetic_correlation(jnp.array([0.0, 1.0]))  # of a pair, -q / (1 - q)
    Array([-1.        , -0.36787...], dtype=float32)
    """
    _check_several("antithetic_correlation", num_samples)
    rarer = jnp.exp(_log_rarer(logits))
    return (_agreement(logits, num_samples) - rarer) / (1.0 - rarer)


def disarm(values: Array, logits: Array, b: Array) -> Estimate:
    """DisARM, or U2G (Dong, Mnih and Tucker, 2020, eq. 8; Yin et al., 2020): `arms` of one antithetic pair.

    ``g_i = 1/2 (f(b) - f(b~)) (b_i - b~_i) sigma(|alpha_i|)``.

    Args:
      values: ``[..., 2]`` f of each draw; what it depends on besides the draw is differentiated as usual.
      logits: ``[..., D]`` of the bits.
      b: ``[..., 2, D]`` from `antithetic_bernoulli`.

    >>> pair = jnp.array([[1.0, 0.0], [0.0, 0.0]])
    >>> jax.grad(lambda logits: disarm(jnp.array([3.0, 1.0]), logits, pair).surrogate)(jnp.zeros(2)).tolist()
    [0.5, 0.0]
    """
    if jnp.shape(values)[-1] != 2:
        raise ValueError(f"disarm needs a pair of values [..., 2]; they have the shape {jnp.shape(values)}")
    return arms(values, logits, b)


def arms(values: Array, logits: Array, b: Array) -> Estimate:
    """ARMS (Dimitriev and Zhou, 2021, sec. 4): ``mean_j f_j + sum_i sg(g_i) alpha_i``, for the bound E[f].

    ``g_i = 1/(n-1) sum_j (f_j - mean f) (b_ji - mean b_i) / (1 - rho_i)``, rho from `antithetic_correlation`.

    Args:
      values: ``[..., n]`` f of each draw, n >= 2; what it depends on besides the draw is differentiated as usual.
      logits: ``[..., D]`` of the bits.
      b: ``[..., n, D]`` from `antithetic_bernoulli`; with independent draws the gradient would be biased.

    >>> logits, weight = jnp.array([0.5, -1.0]), jnp.array([1.0, 2.0])
    >>> b = antithetic_bernoulli(jax.random.key(0), logits, num_samples=4)
    >>> float(arms(b @ weight, logits, b).bound) == float(jnp.mean(b @ weight))
    True
    """
    shape = (*jnp.shape(values), jnp.shape(logits)[-1])
    if jnp.shape(b) != shape or jnp.shape(logits) != (*shape[:-2], shape[-1]):
        raise ValueError(
            "values [..., n], logits [..., D] and b [..., n, D] disagree: "
            f"{jnp.shape(values)}, {jnp.shape(logits)} and {jnp.shape(b)}"
        )
    num_samples = shape[-2]
    _check_several("arms", num_samples)
    bound = jnp.mean(values, axis=-1)
    signal = _stop(values - bound[..., None])
    signal = jnp.where(jnp.isfinite(signal), signal, 0.0)
    covariance = jnp.sum(signal[..., None] * (b - jnp.mean(b, axis=-2, keepdims=True)), axis=-2) / (num_samples - 1)
    # 1 / (1 - rho) = (1 - q) / (1 - A)
    scale = jax.nn.sigmoid(jnp.abs(logits)) / (1.0 - _agreement(logits, num_samples))
    return Estimate(bound, bound + jnp.sum(_stop(covariance * scale) * logits, axis=-1))


def _log_rarer(logits: Array) -> Array:
    """log q, q = min(p, 1 - p)."""
    return jax.nn.log_sigmoid(-jnp.abs(_stop(logits)))


def _agreement(logits: Array, num_samples: int) -> Array:
    """A, the probability that a second draw has the rarer value where the first one has it."""
    excess = jnp.minimum(jnp.expm1(-_log_rarer(logits) / (num_samples - 1)), 1.0)
    return jnp.exp((num_samples - 1) * jnp.log1p(-excess))


def _check_several(name: str, num_samples: int) -> None:
    if num_samples < 2:
        raise ValueError(f"{name} needs at least 2 draws, each a baseline for the others; it has {num_samples}")
