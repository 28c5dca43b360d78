"""Filtering variational objectives (FIVO) for sequences, and the particle filter that they are the log-evidence of.

A model is one function of one particle and one time step; `particle_filter` runs it for K particles and T steps and
`fivo` makes a bound and a surrogate of what it returns. All functions of arrays take any leading axes; a batch of
sequences is a ``jax.vmap`` of the filter.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from objcentric.objectives.bounds import check_per_datum, log_mean_exp, normalized_weights
from objcentric.objectives.estimate import Estimate
from objcentric.objectives.score_function import score

_stop = jax.lax.stop_gradient


class Transition(NamedTuple):
    """What a step returns, of one particle; the last two may be left out."""

    carry: Any  # the state after the step, of the structure, shapes and types of the state before it
    log_alpha: Array  # [] log p(x_t, z_t | past) - log q(z_t | past, x)
    log_q: Array | None = None  # [] the log-probability of the step's discrete choices under q; None: there are none
    output: Any = None  # kept for each step and particle


class Filtered(NamedTuple):
    """A run of a particle filter; resampling comes before a step, never before the first."""

    log_alpha: Array  # [..., T, K] incremental log-weights
    log_w: Array  # [..., T, K] log-weights after each step, summed since the last resampling
    resampled: Array  # [..., T] bool, whether before that step
    ancestors: Array  # [..., T, K] int, the particle of the step before that each one continues
    log_ancestors: Array | None  # [..., T, K] log-probability of each ancestor; None unless drawn independently
    log_q: Array | None  # [..., T, K] of the discrete choices, if there are any
    output: Any  # [..., T, K, ...] the steps' outputs
    carry: Any  # [..., K, ...] the state after the last step, weighted by log_w[..., -1, :]

    @property
    def log_evidence(self) -> Array:
        """Estimates ``[..., T]`` of log p(x_t | x_{<t}); they add up to the bound. 0 once every weight is 0."""
        before = log_mean_exp(_weights_before(self))
        empty = jnp.isneginf(before)
        return jnp.where(empty, 0.0, log_mean_exp(self.log_w) - jnp.where(empty, 0.0, before))


class Resampling(NamedTuple):
    """K particles drawn from K weighted ones."""

    ancestors: Array  # [..., K] int
    log_prob: Array | None  # [..., K] of each ancestor, if they are independent given the weights


def multinomial(key: Array, log_w: Array) -> Resampling:
    """Independent draws from the normalised weights ``[..., K]``; uniform if every weight is 0.

    >>> multinomial(jax.random.key(0), jnp.array([-jnp.inf, 3.0, -jnp.inf])).ancestors.tolist()
    [1, 1, 1]
    """
    log_w = _uniform_if_empty(log_w)
    ancestors = _invert(log_w, jax.random.uniform(key, log_w.shape, log_w.dtype))
    return Resampling(ancestors, jnp.take_along_axis(jax.nn.log_softmax(log_w), ancestors, axis=-1))


def systematic(key: Array, log_w: Array) -> Resampling:
    """Draws at evenly spaced quantiles with one random offset (Carpenter et al., 1999); uniform if all weights are 0.

    Particle k is drawn floor or ceil of ``K w_k`` times, ``K w_k`` in expectation; the draws are dependent.

    >>> systematic(jax.random.key(0), jnp.log(jnp.array([0.5, 0.25, 0.0, 0.25]))).ancestors.tolist()
    [0, 0, 1, 3]
    """
    offset = jax.random.uniform(key, (*log_w.shape[:-1], 1), log_w.dtype)
    rank = jax.lax.broadcasted_iota(log_w.dtype, log_w.shape, log_w.ndim - 1)
    return Resampling(_invert(_uniform_if_empty(log_w), (rank + offset) / log_w.shape[-1]), None)


def ess_below(log_w: Array, *, fraction: float | Array = 0.5) -> Array:
    """Resample where the effective sample size ``1 / sum_k W_k^2`` is below ``fraction * K`` (Maddison et al., 2017).

    >>> ess_below(jnp.log(jnp.array([[0.97, 0.01, 0.01, 0.01], [0.3, 0.3, 0.2, 0.2]]))).tolist()
    [True, False]
    """
    return jnp.sum(jnp.square(normalized_weights(log_w)), axis=-1) * (fraction * log_w.shape[-1]) > 1.0


def always(log_w: Array) -> Array:
    """Resample before every step but the first: the bound of Le et al. (2018) and Naesseth et al. (2018).

    >>> always(jnp.zeros((2, 3))).tolist()
    [True, True]
    """
    return jnp.ones(log_w.shape[:-1], bool)


def never(log_w: Array) -> Array:
    """Do not resample: importance sampling of whole trajectories.

    >>> never(jnp.zeros((2, 3))).tolist()
    [False, False]
    """
    return jnp.zeros(log_w.shape[:-1], bool)


def particle_filter(
    step: Callable[[Array, Any, Any], Transition],
    key: Array,
    carry: Any,
    inputs: Any,
    *,
    num_particles: int,
    criterion: Callable[[Array], Array] = ess_below,
    resample: Callable[[Array, Array], Resampling] = systematic,
    where: Array | None = None,
) -> Filtered:
    """Sequential importance sampling of one sequence, with resampling of K particles (Maddison et al., 2017, alg. 1).

    Args:
      step: ``(key, carry, input) -> Transition`` of one particle and one time step.
      carry: the state before the first step, of one particle; all start from it.
      inputs: arrays (any pytree) ``[T, ...]``, of which a step gets one row.
      criterion: ``log_w [K] -> bool []``, whether to resample.
      resample: ``(key, log_w [K]) -> Resampling``.
      where: bool ``[T]``, the time steps that exist, at least one. The others change nothing, whatever their inputs
        hold; the numbers of the existing ones are those of the shorter sequence if the others come last.

    >>> def step(key, z, x):  # a random walk, seen through noise; the proposal is the prior
    ...     z = z + jax.random.normal(key)
    ...     return Transition(z, jax.scipy.stats.norm.logpdf(x, z), output=z)
    >>> x = jnp.array([0.3, 1.2, -0.1])
    >>> filtered = particle_filter(step, jax.random.key(0), 0.0, x, num_particles=2000)
    >>> round(float(fivo(filtered).bound), 1)  # the Kalman filter says -4.43
    -4.4
    """
    num_steps = jax.tree.leaves(inputs)[0].shape[0]
    if num_particles < 1:
        raise ValueError(f"a particle filter needs at least 1 particle; num_particles is {num_particles}")
    if where is not None:
        where = jnp.asarray(where)
        if where.shape != (num_steps,):
            raise ValueError(f"where must tell for each of the {num_steps} steps; its shape is {where.shape}")
        inputs = jax.tree.map(partial(_fill, where), inputs)

    def body(state, row):
        carry, log_w = state
        t, exists, x = row
        key_resample, key_step = jax.random.split(jax.random.fold_in(key, t))
        resampled = criterion(_stop(log_w)) & (t > 0)
        if exists is not None:
            resampled &= exists
        drawn = resample(key_resample, log_w)
        ancestors = jnp.where(resampled, drawn.ancestors, jnp.arange(num_particles))
        log_ancestors = None if drawn.log_prob is None else jnp.where(resampled, drawn.log_prob, 0.0)
        carry = jax.tree.map(lambda leaf: leaf[ancestors], carry)
        log_w = jnp.where(resampled, 0.0, log_w)
        new = jax.vmap(step, (0, 0, None))(jax.random.split(key_step, num_particles), carry, x)
        for name, value in (("log_alpha", new.log_alpha), ("log_q", new.log_q)):
            if value is not None and value.shape != (num_particles,):
                raise ValueError(f"a step's {name} must be a scalar; its shape is {value.shape[1:]}")
        if exists is not None:
            old = Transition(carry, jnp.zeros(()), None if new.log_q is None else jnp.zeros(()), new.output)
            new = jax.tree.map(lambda new, old: jnp.where(exists, new, old), new, old)
        log_w = log_w + new.log_alpha
        return (new.carry, log_w), (new.log_alpha, log_w, resampled, ancestors, log_ancestors, new.log_q, new.output)

    carry = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (num_particles, *jnp.shape(leaf))), carry)
    rows = (jnp.arange(num_steps), where, inputs)
    (carry, _), history = jax.lax.scan(body, (carry, jnp.zeros(num_particles)), rows)
    return Filtered(*history, carry)


def fivo(filtered: Filtered, *, score_resampling: bool = False, baseline: Array | float = 0.0) -> Estimate:
    """FIVO (Maddison et al., 2017; Le et al., 2018; Naesseth et al., 2018): ``L = sum_t l_t``, E[exp L] = p(x).

    ``l_t = log sum_k W_{t-1}^k alpha_t^k``, W the normalised weights, 1/K after resampling. K = 1 makes it the ELBO;
    without resampling it is the IWAE bound of ``log_alpha.sum(-2)``.

    The surrogate is L, and for every discrete choice c_t^k of probability q its score

    ``sg(l_t - Y_t^k + sum_{u > t} (l_u - b_u)) log q(c_t^k)``

    where ``Y_t^k`` is l_t with ``log alpha_t^k`` replaced by the mean of the others' (VIMCO's baseline within a step;
    ``b_t`` if K = 1). Choices are a step's discrete latents (`Transition.log_q`) and, if `score_resampling`, the
    ancestors. Without resampling, `vimco` of ``log_alpha.sum(-2)`` and ``log_q.sum(-2)`` has less variance.

    Args:
      score_resampling: whether the ancestors have a score. Without, as in the papers, the gradient is biased; with
        it, the variance is higher and only independent ancestors will do (`multinomial`). `ess_below` remains biased
        even so if latents are reparameterised, as their gradient does not see when it resamples; `always` does not.
      baseline: b ``[..., T]``, a guess of each l_t that does not depend on these particles, as any number leaves the
        gradient unbiased. With discrete latents give one: of M >= 2 independent filters of a datum, axis 0, the mean
        of the others' `Filtered.log_evidence`, ``(l.sum(0) - l) / (M - 1)``.

    >>> def step(key, z, x):  # a coin z_t that x_t shows with errors; the proposal is the prior
    ...     z = jax.random.bernoulli(key, 0.3)
    ...     return Transition(z, jnp.log(jnp.where(x == z, 0.9, 0.1)), log_q=jnp.log(jnp.where(z, 0.3, 0.7)))
    >>> def run(key):
    ...     return particle_filter(step, key, False, jnp.array([1, 0, 0]), num_particles=5, resample=multinomial)
    >>> filters = jax.jit(jax.vmap(run))(jax.random.split(jax.random.key(0), 2))  # each is the other's baseline
    >>> estimate = fivo(filters, score_resampling=True, baseline=filters.log_evidence[::-1])
    >>> bool(jnp.allclose(estimate.bound, filters.log_evidence.sum(-1)))
    True
    """
    after = log_mean_exp(filtered.log_w)
    last = jnp.ones((*after.shape[:-1], 1), bool)
    ends = jnp.concatenate([filtered.resampled[..., 1:], last], axis=-1)
    bound = jnp.sum(jnp.where(ends, after, 0.0), axis=-1)
    if score_resampling and filtered.log_ancestors is None:
        raise ValueError("score_resampling needs ancestors drawn independently: filter with resample=multinomial")
    choices = [filtered.log_q] * (filtered.log_q is not None) + [filtered.log_ancestors] * score_resampling
    surrogate = bound + (_scores(filtered, sum(choices), baseline) if choices else 0.0)
    return Estimate(bound, jnp.where(jnp.isneginf(bound), -jnp.inf, surrogate))


def _scores(filtered: Filtered, log_q: Array, baseline: Array | float) -> Array:
    """The score of choices of log-probability ``log_q [..., T, K]``, summed ``[...]``."""
    check_per_datum(filtered.log_evidence, baseline=baseline)
    surprise = filtered.log_evidence - baseline
    future = jax.lax.cumsum(surprise, axis=surprise.ndim - 1, reverse=True)
    future = jnp.concatenate([future[..., 1:], jnp.zeros_like(future[..., :1])], axis=-1)
    if filtered.log_w.shape[-1] == 1:
        now = surprise[..., None]
    else:
        now = log_mean_exp(filtered.log_w)[..., None] - _leave_one_out(filtered)
    return jnp.sum(score(now + future[..., None], log_q), axis=(-2, -1))


def _weights_before(filtered: Filtered) -> Array:
    """Log-weights ``[..., T, K]`` before each step, of the particles that take it."""
    log_w = filtered.log_w
    previous = jnp.concatenate([jnp.zeros_like(log_w[..., :1, :]), log_w[..., :-1, :]], axis=-2)
    return jnp.where(filtered.resampled[..., None], 0.0, previous)


def _leave_one_out(filtered: Filtered) -> Array:
    """The log-mean weight after a step ``[..., T, K]`` if k's log_alpha were the mean of the others'."""
    log_alpha = filtered.log_alpha[..., None, :]
    num_particles = log_alpha.shape[-1]
    own = jnp.eye(num_particles, dtype=bool)
    others = jnp.sum(jnp.where(own, 0.0, log_alpha), axis=-1, keepdims=True) / (num_particles - 1)
    return log_mean_exp(_weights_before(filtered)[..., None, :] + jnp.where(own, others, log_alpha))


def _uniform_if_empty(log_w: Array) -> Array:
    """``log_w``, or zeros where every weight is 0."""
    return jnp.where(jnp.all(jnp.isneginf(log_w), axis=-1, keepdims=True), 0.0, log_w)


def _invert(log_w: Array, quantiles: Array) -> Array:
    """The particle at each quantile in [0, 1) of the weights; never one of weight 0, whatever is rounded."""
    weights = normalized_weights(_stop(log_w))
    cumulative = jnp.where(weights > 0, jnp.cumsum(weights, axis=-1), 0.0)
    cumulative = jax.lax.cummax(cumulative, axis=log_w.ndim - 1)
    total = cumulative[..., -1:]
    quantiles = jnp.minimum(quantiles * total, jnp.nextafter(total, jnp.zeros_like(total)))
    method = "compare_all" if log_w.shape[-1] <= 64 else "scan"
    search = jnp.vectorize(partial(jnp.searchsorted, side="right", method=method), signature="(k),(n)->(n)")
    return search(cumulative, quantiles)


def _fill(where: Array, inputs: Array) -> Array:
    """The first existing step's input in place of those that do not exist."""
    inputs = jnp.asarray(inputs)
    first = inputs[jnp.argmax(where)][None]
    return jnp.where(where.reshape(-1, *[1] * (inputs.ndim - 1)), inputs, first)
