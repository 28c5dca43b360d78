"""Continuous relaxations of discrete latents: draws and log-densities, to be used for p and q alike.

A bound of a relaxed model is formed from relaxed densities of both p and q at the relaxed draw, by any pathwise
objective (`objcentric.objectives.iwae`); mixing in the discrete probabilities gives no bound. Its gradient is unbiased
but for `spike_and_exponential`.
"""

import jax
import jax.numpy as jnp
from jax import Array
from jax.scipy.special import gammaln


def concrete(key: Array, logits: Array, temperature: Array | float) -> Array:
    """Log of a draw of the Concrete (Gumbel-softmax) distribution, ``log y [..., C]``; ``logits [..., C]``.

    ``log y = log_softmax((logits + Gumbel) / temperature)`` (Maddison et al., 2017; Jang et al., 2017).

    >>> float(jnp.sum(jnp.exp(concrete(jax.random.key(0), jnp.zeros(3), 0.5))))
    1.0...
    """
    noise = jax.random.gumbel(key, logits.shape, logits.dtype)
    return jax.nn.log_softmax((logits + noise) / temperature)


def concrete_log_prob(log_y: Array, logits: Array, temperature: Array | float) -> Array:
    """Log-density ``[...]`` of ``log_y [..., C]`` (the log-space form: Maddison et al., 2017, app. C.3).

    ``log (C-1)! + (C-1) log t + sum_i s_i - C logsumexp_i s_i`` with ``s = logits - t log y``: the density of the C - 1
    log-ratios ``log y_i - log y_C``.

    >>> float(concrete_log_prob(jnp.log(jnp.full(2, 0.5)), jnp.zeros(2), 1.0))  # log of y_1 y_2 / (y_1 + y_2)^2
    -1.386...
    """
    size = log_y.shape[-1]
    s = logits - temperature * log_y
    constant = gammaln(size) + (size - 1) * jnp.log(temperature)
    return constant + jnp.sum(s, axis=-1) - size * jax.nn.logsumexp(s, axis=-1)


def binary_concrete(key: Array, logits: Array, temperature: Array | float) -> Array:
    """Logit of a draw of the binary Concrete distribution, ``(logits + logistic) / temperature`` ``[...]``.

    >>> bool(jnp.isfinite(binary_concrete(jax.random.key(0), jnp.array(50.0), 0.5)))
    True
    """
    return (logits + jax.random.logistic(key, jnp.shape(logits), jnp.result_type(float))) / temperature


def binary_concrete_log_prob(logit_y: Array, logits: Array, temperature: Array | float) -> Array:
    """Log-density ``[...]`` of ``logit_y [...]`` (Maddison et al., 2017, app. C.3).

    >>> float(binary_concrete_log_prob(jnp.array(0.0), jnp.array(0.0), 1.0))  # the logistic density at 0, 1/4
    -1.386...
    """
    s = logits - temperature * logit_y
    return jnp.log(temperature) + s - 2 * jax.nn.softplus(s)


def straight_through(soft: Array) -> Array:
    """The one-hot of the largest element of ``soft [..., C]``, with the gradient of ``soft`` itself: biased.

    >>> print(straight_through(jnp.array([0.2, 0.7, 0.1])))
    [0. 1. 0.]
    """
    hard = jax.nn.one_hot(jnp.argmax(soft, axis=-1), soft.shape[-1], dtype=soft.dtype)
    return soft + jax.lax.stop_gradient(hard - soft)


def spike_and_exponential(key: Array, logits: Array, beta: float) -> Array:
    """DVAE's smoothing of a Bernoulli (Rolfe, 2017; thesis, app. 8.E): a draw ``[...]`` in [0, 1].

    0 where the binary variable is 0; where it is 1, of density ``beta e^(beta y) / (e^beta - 1)``. Both are drawn at
    once by the inverse of the mixture's distribution function, through which the gradient flows: that of E[f(y)] is
    unbiased if f is continuous. Log-densities are not: they jump between the atom and what is next to it, which no path
    tells, and the gradient of a bound made of them is biased. For K = 1 it has nothing of the binary variable's KL
    divergence, which is then to be computed in closed form (Rolfe, 2017).

    >>> float(spike_and_exponential(jax.random.key(0), jnp.array(-40.0), 8.0))
    0.0
    """
    p = jax.nn.sigmoid(logits)
    u = jax.random.uniform(key, jnp.shape(p), jnp.result_type(p))
    spike = u <= 1 - p
    within = jnp.where(spike, 0.5, (u - (1 - p)) / jnp.where(spike, 1.0, p))
    y = jnp.log1p(jnp.clip(within, 0.0, 1.0) * jnp.expm1(beta)) / beta
    return jnp.where(spike, 0.0, y)


def spike_and_exponential_log_prob(y: Array, logits: Array, beta: float) -> Array:
    """Log-density ``[...]`` of ``y [...]``, with respect to Lebesgue measure and an atom at 0.

    >>> bool(spike_and_exponential_log_prob(jnp.array(0.0), jnp.array(0.0), 8.0) == jnp.log(0.5))
    True
    """
    smooth = jax.nn.log_sigmoid(logits) + jnp.log(beta / jnp.expm1(beta)) + beta * y
    return jnp.where(y > 0, smooth, jax.nn.log_sigmoid(-logits))


def overlapping_exponentials(key: Array, logits: Array, beta: float) -> Array:
    """DVAE++'s smoothing of a Bernoulli (Vahdat et al., 2018; thesis, app. 8.E): a draw ``[...]`` in [0, 1].

    Where the binary variable is 0 the density is ``beta e^(-beta y) / (1 - e^-beta)``, where it is 1 its mirror image.
    ``m = e^(-beta y)`` is the positive root of ``(1 - p) m^2 + (u (1 - e^-beta) + p e^-beta - (1 - p)) m = p e^-beta``,
    u uniform.

    >>> 0.0 <= float(overlapping_exponentials(jax.random.key(0), jnp.array(0.0), 8.0)) <= 1.0
    True
    """
    p, rest = jax.nn.sigmoid(logits), jax.nn.sigmoid(-logits)
    u = jax.random.uniform(key, jnp.shape(p), jnp.result_type(p))
    linear = -u * jnp.expm1(-beta) + p * jnp.exp(-beta) - rest
    constant = p * jnp.exp(-beta)
    root = jnp.sqrt(jnp.square(linear) + 4 * rest * constant)
    # Of the two forms of the root, each is exact where the other one cancels.
    rising = linear > 0
    m = jnp.where(
        rising, 2 * constant / jnp.where(rising, linear + root, 1.0), (root - linear) / jnp.where(rising, 1.0, 2 * rest)
    )
    return jnp.clip(-jnp.log(m) / beta, 0.0, 1.0)


def overlapping_exponentials_log_prob(y: Array, logits: Array, beta: float) -> Array:
    """Log-density ``[...]`` of ``y [...]``.

    >>> y = jnp.linspace(0, 1, 1001)
    >>> density = jnp.exp(overlapping_exponentials_log_prob(y, jnp.array(0.3), 8.0))
    >>> round(float(jnp.trapezoid(density, y)), 3)
    1.0
    """
    constant = jnp.log(beta / -jnp.expm1(-beta))
    absent, present = jax.nn.log_sigmoid(-logits) - beta * y, jax.nn.log_sigmoid(logits) + beta * (y - 1)
    return constant + jnp.logaddexp(absent, present)


def stick_breaking_logits(logits: Array) -> Array:
    """Logits ``[..., C - 1]`` of "category i, given none before it", for a categorical of ``logits [..., C]``.

    >>> print(jax.nn.sigmoid(stick_breaking_logits(jnp.log(jnp.array([0.2, 0.4, 0.4])))).round(3))
    [0.2 0.5]
    """
    after = jax.lax.cumlogsumexp(logits, axis=logits.ndim - 1, reverse=True)[..., 1:]
    return logits[..., :-1] - after


def stick_breaking(y: Array) -> Array:
    """Relaxed one-hot ``[..., C]``, ``y_i prod_{j < i} (1 - y_j)``, of the breaks ``y [..., C - 1]`` in [0, 1].

    >>> print(stick_breaking(jnp.array([0.2, 0.5])).round(3))
    [0.2 0.4 0.4]
    """
    one = jnp.ones_like(y[..., :1])
    left = jnp.concatenate([one, jnp.cumprod(1 - y, axis=-1)], axis=-1)
    return left * jnp.concatenate([y, one], axis=-1)
