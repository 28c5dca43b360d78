"""REINFORCE with a learnt control variate over relaxed draws (REBAR, RELAX), and the noise that couples them."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from objcentric.objectives.bounds import check_per_datum, check_shapes, log_mean_exp, mask
from objcentric.objectives.estimate import Estimate
from objcentric.objectives.score_function import score

_stop = jax.lax.stop_gradient


class Coupled(NamedTuple):
    """A discrete draw and the relaxed ones that belong to it, reparameterised by the logits."""

    b: Array  # int [...], the draw: the largest element of z, or whether z is positive
    z: Array  # what decided it
    z_tilde: Array  # a fresh draw of z given b; given b, independent of z


def gumbel_pair(key: Array, logits: Array) -> Coupled:
    """Gumbel noise for categorical latents, ``logits [..., C]``: b ``[...]``, z and z~ ``[..., C]``.

    ``z = log p - log(-log u)``; with b its largest element, ``z~_b = -log(-log v_b)`` and
    ``z~_i = -log(-log v_i / p_i - log v_b)`` (Tucker et al., 2017, app. C).

    >>> draw = gumbel_pair(jax.random.key(0), jnp.zeros(3))
    >>> int(draw.b) == int(jnp.argmax(draw.z)) == int(jnp.argmax(draw.z_tilde))
    True
    """
    log_p = jax.nn.log_softmax(logits)
    noise = jax.random.gumbel(key, (2, *log_p.shape), log_p.dtype)
    z = log_p + noise[0]
    b = jnp.argmax(z, axis=-1)
    # With g = -log(-log v): -log(-log v_i / p_i - log v_b) = -log(exp(-g_i - log p_i) + exp(-g_b)).
    chosen = jnp.take_along_axis(noise[1], b[..., None], axis=-1)
    others = -jnp.logaddexp(-noise[1] - log_p, -chosen)
    z_tilde = jnp.where(jax.nn.one_hot(b, log_p.shape[-1], dtype=bool), chosen, others)
    return Coupled(b, z, z_tilde)


def logistic_pair(key: Array, logits: Array) -> Coupled:
    """Logistic noise for binary latents, ``logits [...]``: b, z and z~ ``[...]``.

    ``z = logit p + logit u``, ``b = [z > 0]``, ``z~ = logit p + logit v'`` with
    ``v' = b (v p + 1 - p) + (1 - b) v (1 - p)`` (Tucker et al., 2017, app. C).

    >>> draw = logistic_pair(jax.random.key(0), jnp.zeros(3))
    >>> bool(jnp.all((draw.z > 0) == (draw.b == 1)) & jnp.all((draw.z_tilde > 0) == (draw.b == 1)))
    True
    """
    first, second = jax.random.split(key)
    z = logits + jax.random.logistic(first, jnp.shape(logits), jnp.result_type(float))
    b = (z > 0).astype(jnp.int32)
    v = jax.random.uniform(second, z.shape, minval=jnp.finfo(z.dtype).tiny)
    # logit p + logit v', simplified so that nothing cancels.
    present = jax.nn.softplus(logits + jnp.log(v)) - jnp.log1p(-v)
    absent = jnp.log(v) - jax.nn.softplus(jnp.log1p(-v) - logits)
    return Coupled(b, z, jnp.where(b == 1, present, absent))


def relax(
    log_w: Array, log_q: Array, c: Array, c_tilde: Array, c_signal: Array | None = None, *, where: Array | None = None
) -> Estimate:
    """RELAX (Grathwohl et al., 2018; thesis, eq. 8.4): ``L + (sg(L) - c_signal) sum_k log q_k + c(z) - c(z~)``.

    Unbiased for any c: its mean over z~ given the draw is what ``c_signal`` takes away and ``c(z) - c(z~)`` puts back.

    Args:
      c, c_tilde: the control variate ``[...]`` at z and z~ (`gumbel_pair`), live in q's parameters.
      c_signal: c at z~ with q's parameters stopped, live only in the control variate's own, for
        `control_variate_gradients`; by default ``sg(c_tilde)``.

    >>> surrogate = lambda log_q: relax(jnp.array([-2.0]), log_q, jnp.array(-1.5), jnp.array(-1.5)).surrogate
    >>> jax.grad(surrogate)(jnp.zeros(1)).tolist()
    [-0.5]
    """
    check_shapes(log_w=log_w, log_q=log_q)
    bound = log_mean_exp(log_w, where=where)
    c_signal = _stop(c_tilde) if c_signal is None else c_signal
    check_per_datum(bound, c=c, c_tilde=c_tilde, c_signal=c_signal)
    total = jnp.sum(mask(log_q, where, 0.0), axis=-1)
    # The score of a -inf bound is 0, as everywhere; the control variate's part stays, its mean is 0 then too.
    return Estimate(bound, bound + score(bound, total) - c_signal * total + c - c_tilde)


def rebar(
    log_w: Array,
    log_q: Array,
    relaxed: Callable[[Any, Array], Array],
    params: Any,
    draw: Coupled,
    *,
    log_temperature: Array | float,
    scale: Array | float = 1.0,
    where: Array | None = None,
) -> Estimate:
    """REBAR (Tucker et al., 2017): `relax` with ``c(z) = scale * relaxed(params, softmax(z / temperature))``.

    Args:
      relaxed: the objective ``[...]`` at relaxed one-hot draws ``[..., K, C]`` (thesis, eq. 8.8), a function of q's
        parameters ``params`` too.
      draw: of `gumbel_pair`, ``[..., K, C]``; its z and z~ are live in ``params``.
      log_temperature, scale: learnable by `control_variate_gradients`; the estimator is unbiased at any value.

    >>> draw = gumbel_pair(jax.random.key(0), jnp.zeros((4, 3)))
    >>> relaxed = lambda params, soft: jnp.sum(soft @ params)
    >>> params = jnp.array([1.0, 2.0, 3.0])
    >>> bool(jnp.isfinite(rebar(jnp.zeros(4), jnp.zeros(4), relaxed, params, draw, log_temperature=-1.0).surrogate))
    True
    """

    def c(params: Any, z: Array) -> Array:
        return scale * relaxed(params, jax.nn.softmax(z * jnp.exp(-jnp.asarray(log_temperature))))

    exist = None if where is None else where[..., None]
    z, z_tilde = mask(draw.z, exist, 0.0), mask(draw.z_tilde, exist, 0.0)
    c_signal = c(jax.tree.map(_stop, params), _stop(z_tilde))
    return relax(log_w, log_q, c(params, z), c(params, z_tilde), c_signal, where=where)


def control_variate_gradients(surrogate: Callable[[Any, Any], Array], params: Any, control: Any) -> tuple[Any, Any]:
    """The gradient for q's parameters, and that of its squared norm for the control variate's.

    Args:
      surrogate: ``(params, control) -> scalar``, built by `relax` or `rebar`.

    Returns:
      the gradient of the surrogate for ``params``, to ascend; and for ``control`` the gradient of that one's squared
      norm, to *descend*: as the mean does not depend on ``control``, this is the gradient of the variance.

    >>> gradients = control_variate_gradients(lambda params, control: params * control, 2.0, 3.0)
    >>> [float(g) for g in gradients]
    [3.0, 6.0]
    """
    gradient, pull_back = jax.vjp(lambda control: jax.grad(surrogate)(params, control), control)
    (for_control,) = pull_back(jax.tree.map(lambda g: 2 * g, gradient))
    return gradient, for_control
