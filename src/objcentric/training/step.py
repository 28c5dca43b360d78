"""One seed's training step: pure functions of (state, data), with randomness from (seed, step, example) alone."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import Array, lax

from objcentric.training.experiment import Experiment

PATIENCE = 10  # non-finite steps in a row after which a seed gives up


class Guard(NamedTuple):
    """Account of the steps whose loss, gradient or ``aux`` was not finite; such a step changes nothing else."""

    skipped: Array  # int32 [], how many there were
    streak: Array  # int32 [], how many in a row, up to now
    failed_at: Array  # int32 [], first step of the streak that reached PATIENCE and stopped this seed for good, or -1


class TrainState(NamedTuple):
    """All that training carries from step to step; a state of S seeds has a leading axis [S] on every leaf."""

    seed: Array  # uint32 []
    step: Array  # int32 [], steps done
    params: Any
    opt_state: Any
    aux: Any
    guard: Guard


class Keys(NamedTuple):
    """A seed's independent random streams."""

    init: Array
    order: Array  # of the training examples
    noise: Array  # of the loss
    evaluate: Array


def make_keys(seed: Array | int) -> Keys:
    return Keys(*jax.random.split(jax.random.key(seed), 4))


def init_state(experiment: Experiment, seed: Array) -> TrainState:
    params, aux = experiment.init(make_keys(seed).init)
    zero = jnp.zeros((), jnp.int32)
    return TrainState(seed, zero, params, experiment.optimizer.init(params), aux, Guard(zero, zero, zero - 1))


def batch_rows(key: Array, step: Array, num_steps: int, batch_size: int, num_examples: int) -> Array:
    """Rows ``[num_steps, batch_size]`` of the batches from ``step`` on.

    Every epoch is a fresh permutation of the examples, a function of (key, epoch); a batch may span two epochs.
    """
    first = step.astype(jnp.uint32) * batch_size
    offset = first % num_examples + jnp.arange(num_steps * batch_size, dtype=jnp.uint32)
    num_epochs = (num_examples + num_steps * batch_size - 2) // num_examples + 1
    epochs = first // num_examples + jnp.arange(num_epochs, dtype=jnp.uint32)
    orders = jax.vmap(lambda epoch: jax.random.permutation(jax.random.fold_in(key, epoch), num_examples))(epochs)
    return orders[offset // num_examples, offset % num_examples].reshape(num_steps, batch_size)


def make_update(experiment: Experiment, axis_name: str) -> Callable:
    """``update(state, batch, first) -> (state, metrics, finite)``, for one seed on one of the devices ``axis_name``.

    ``batch`` is this device's slice ``[b, ...]`` of the global batch, ``first`` the position of its first example.
    """

    def mean_over_devices(tree: Any) -> Any:
        return jax.tree.map(lambda x: lax.pmean(x, axis_name) if _is_float(x) else x, tree)

    def update(state: TrainState, batch: dict[str, Array], first: Array) -> tuple[TrainState, dict[str, Array], Array]:
        positions = first + jnp.arange(jax.tree.leaves(batch)[0].shape[0])
        step_key = jax.random.fold_in(make_keys(state.seed).noise, state.step)
        keys = jax.vmap(jax.random.fold_in, (None, 0))(step_key, positions)

        value_and_grad = jax.value_and_grad(experiment.loss, has_aux=True)
        (loss, (metrics, aux)), grads = value_and_grad(state.params, batch, keys, state.step, state.aux)
        loss, metrics, aux, grads = mean_over_devices((loss, metrics, aux, grads))
        updates, opt_state = experiment.optimizer.update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)

        finite = _all_finite((loss, optax.global_norm(grads), aux)) & (state.guard.failed_at < 0)
        new, old = (params, opt_state, aux), (state.params, state.opt_state, state.aux)
        kept = jax.tree.map(lambda n, o: jnp.where(finite, n, o), new, old)
        guard = _count(state.guard, finite, state.step)
        return TrainState(state.seed, state.step + 1, *kept, guard), {"loss": loss, **metrics}, finite

    return update


def make_train(experiment: Experiment, axis_name: str, num_steps: int, batch_size: int, num_devices: int) -> Callable:
    """``train(state, data, batches, device) -> (state, metrics)``: ``num_steps`` updates of one seed, in one scan.

    Either ``data`` is the resident training set ``[M, ...]`` and ``batches`` is None, or ``data`` is None and
    ``batches`` is this device's slice ``[num_steps, b, ...]`` of ready batches. ``device`` is this device's number.
    Metrics are means over the finite steps (NaN if there is none); ``skipped`` and ``failed_at`` are those of `Guard`.
    """
    update = make_update(experiment, axis_name)
    local = batch_size // num_devices

    def train(state: TrainState, data: Any, batches: Any, device: Array) -> tuple[TrainState, dict[str, Array]]:
        if batches is None:
            num_examples = jax.tree.leaves(data)[0].shape[0]
            rows = batch_rows(make_keys(state.seed).order, state.step, num_steps, batch_size, num_examples)
            rows = lax.dynamic_slice_in_dim(rows, device * local, local, axis=1)

        def body(state: TrainState, x: Any) -> tuple[TrainState, tuple]:
            batch = x if batches is not None else jax.tree.map(lambda a: a[x], data)
            state, metrics, finite = update(state, batch, device * local)
            return state, (metrics, finite)

        state, (metrics, finite) = lax.scan(body, state, rows if batches is None else batches)
        metrics = {k: jnp.mean(m, where=finite) for k, m in metrics.items()}
        return state, metrics | {"skipped": state.guard.skipped, "failed_at": state.guard.failed_at}

    return train


def _is_float(x: Array) -> bool:
    return jnp.issubdtype(x.dtype, jnp.inexact)


def _all_finite(tree: Any) -> Array:
    return jnp.all(jnp.stack([jnp.all(jnp.isfinite(x)) for x in jax.tree.leaves(tree) if _is_float(x)]))


def _count(guard: Guard, finite: Array, step: Array) -> Guard:
    streak = jnp.where(finite, 0, guard.streak + 1)
    gives_up = (streak >= PATIENCE) & (guard.failed_at < 0)
    failed_at = jnp.where(gives_up, step + 1 - PATIENCE, guard.failed_at)
    return Guard(guard.skipped + jnp.where(finite, 0, 1), streak, failed_at)
