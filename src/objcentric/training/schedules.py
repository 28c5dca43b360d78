"""Quantities that change with the training step, and the optimizer that config.optimizer describes."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import Array
from ml_collections import ConfigDict

from objcentric.errors import UserError


def geometric(start: float, end: float, steps: int, begin: int = 0) -> Callable[[Array], Array]:
    """A schedule ``step -> value``: both > 0, ``start`` until the step ``begin``, then linear in log space to ``end``.

    ``steps`` are those from ``begin`` on until ``end`` is reached, where it stays.
    """

    def value(step: Array) -> Array:
        fraction = jnp.clip((step - begin) / steps, 0.0, 1.0) if steps else step >= begin
        return jnp.exp((1 - fraction) * jnp.log(start) + fraction * jnp.log(end))

    return value


def learning_rate(c: ConfigDict, num_steps: int) -> optax.Schedule:
    """Of config.optimizer ``c``: linear warm-up from 0, then constant, a cosine to 0 at ``num_steps``, stairs, or
    'exponential': each ``decay_steps`` steps a factor of ``decay_rate``, at once.
    """
    rest = max(num_steps - c.warmup_steps, 1)
    if c.decay == "constant":
        after = optax.constant_schedule(c.learning_rate)
    elif c.decay == "cosine":
        after = optax.cosine_decay_schedule(c.learning_rate, rest)
    elif c.decay == "stairs":
        if len(c.stairs_at) != len(c.stairs_to) or list(c.stairs_at) != sorted(set(c.stairs_at)):
            raise UserError(f"optimizer.stairs_at={c.stairs_at}, stairs_to={c.stairs_to}: use as many ascending steps")
        rates = [c.learning_rate, *(c.learning_rate * factor for factor in c.stairs_to)]
        boundaries = [step - c.warmup_steps for step in c.stairs_at]
        after = optax.join_schedules([optax.constant_schedule(rate) for rate in rates], boundaries)
    elif c.decay == "exponential":
        if c.decay_steps < 1 or c.decay_rate <= 0:
            raise UserError(f"optimizer.decay_steps={c.decay_steps}, decay_rate={c.decay_rate}: use 1 or more, above 0")
        after = optax.exponential_decay(c.learning_rate, c.decay_steps, c.decay_rate, staircase=True)
    else:
        choices = "'constant', 'cosine', 'stairs' or 'exponential'"
        raise UserError(f"optimizer.decay={c.decay!r} is unknown: use {choices}")
    if not c.warmup_steps:
        return after
    warmup = optax.linear_schedule(0.0, c.learning_rate, c.warmup_steps)
    return optax.join_schedules([warmup, after], [c.warmup_steps])


_OPTIMIZERS = ("adam", "muon", "rmsprop", "rmsprop_tf")
_RMS = 0.2  # of updates of matrices by Muon, in units of the rate: about what they are by Adam (Liu et al., 2025)


def make_optimizer(c: ConfigDict, num_steps: int, restart: int = 0) -> optax.GradientTransformation:
    """The optimizer of config.optimizer ``c``, whose rate begins anew at the step ``restart``, if that is not 0.

    The top-level part ``baseline`` of the parameters, if there is one, learns ``c.baseline_factor`` times as fast.
    Its gradient is clipped apart from the rest: it has units of its own, and should not slow the model down.
    """
    if c.name not in _OPTIMIZERS:
        raise UserError(f"optimizer.name={c.name!r} is unknown: use one of {', '.join(_OPTIMIZERS)}")
    for name in ("learning_rate", "warmup_steps", "clip_norm", "baseline_factor", "eps"):
        if c[name] < 0:
            raise UserError(f"optimizer.{name}={c[name]}: use 0 or more")
    schedule = learning_rate(c, num_steps)
    if restart:
        both = learning_rate(c, restart), learning_rate(c, num_steps - restart)
        schedule = optax.join_schedules(both, [restart])

    def optimizer(factor: float) -> optax.GradientTransformation:
        def rate(step: Array) -> Array:
            return factor * schedule(step)

        if c.name == "rmsprop_tf":  # as TensorFlow has it: the first steps are small, not large
            scale = optax.rmsprop(rate, momentum=0.9, eps=c.eps, eps_in_sqrt=True, initial_scale=1.0)
        elif c.name == "muon":
            scale = optax.contrib.muon(
                rate, adam_learning_rate=rate, consistent_rms=_RMS, muon_weight_dimension_numbers=matrices
            )
        else:
            scale = optax.adam(rate) if c.name == "adam" else optax.rmsprop(rate, momentum=0.9)
        return optax.chain(optax.clip_by_global_norm(c.clip_norm), scale) if c.clip_norm else scale

    return partition(optimizer(1.0), optimizer(c.baseline_factor))


def matrices(params: Any) -> Any:
    """What Muon (Jordan et al., 2024) takes for matrices: leaves ``kernel [..., out]``; None for the rest: NAdam's."""

    def one(path: tuple, leaf: Array) -> optax.contrib.MuonDimensionNumbers | None:
        if getattr(path[-1], "key", None) != "kernel":
            return None
        last = leaf.ndim - 1
        return optax.contrib.MuonDimensionNumbers(tuple(range(last)), (last,))

    return jax.tree.map_with_path(one, params)


def partition(
    model: optax.GradientTransformation, baseline: optax.GradientTransformation
) -> optax.GradientTransformation:
    """One optimizer for the top-level part ``baseline`` of the parameters, another for all the rest."""

    def parts(params: Any) -> Any:
        return jax.tree.map_with_path(lambda path, _: "baseline" if _top(path) == "baseline" else "model", params)

    return optax.partition({"model": model, "baseline": baseline}, parts)


def resting(name: str, begin: int) -> optax.GradientTransformation:
    """To be chained after an optimizer: from the step ``begin`` on what is below a key ``name`` moves no more.

    Without gradients it would, by the optimizer's momentum.
    """

    def update(updates: Any, count: Array, params: Any = None) -> tuple[Any, Array]:
        def rest(path: tuple, leaf: Array) -> Array:
            below = any(getattr(key, "key", None) == name for key in path)
            return jnp.where(count < begin, leaf, 0.0) if below else leaf

        return jax.tree.map_with_path(rest, updates), optax.safe_increment(count)

    return optax.GradientTransformation(lambda params: jnp.zeros((), jnp.int32), update)


def _top(path: tuple) -> str:
    return jax.tree_util.keystr(path[:1], simple=True)
