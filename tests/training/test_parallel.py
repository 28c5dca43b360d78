"""Devices, seeds and streams: different ways to the same numbers."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from objcentric.errors import UserError
from objcentric.training import parallel, step
from tests.training import linear


def run(experiment, seeds, num_devices=1, num_calls=2, streams=None):
    """Two calls of 3 steps of batches of 8; final state and last metrics, on the host."""
    devices = jax.devices()[:num_devices]
    states = [step.init_state(experiment, jnp.uint32(seed)) for seed in seeds]
    state = parallel.replicate(jax.tree.map(lambda *x: jnp.stack(x), *states), devices)
    data = None if streams else parallel.replicate(experiment.data.train, devices)
    numbers = parallel.shard(np.arange(num_devices, dtype=np.int32), devices)
    train = parallel.make_train(experiment, 3, 8, devices)
    for call in range(num_calls):
        batches = parallel.stack_batches(streams, 3, devices) if streams else None
        with jax.transfer_guard("disallow" if call else "allow"):  # after the first call nothing moves to devices
            state, metrics = train(state, data, batches, numbers)
    return jax.device_get((state, metrics))


@pytest.fixture(scope="module")
def experiment():
    return linear.build(linear.make_config())


@pytest.fixture(scope="module")
def reference(experiment):
    return run(experiment, [0, 1])


@pytest.mark.parametrize("num_devices", [2, 4])
def test_devices_agree(experiment, reference, num_devices):
    chex.assert_trees_all_close(run(experiment, [0, 1], num_devices), reference, rtol=2e-5, atol=1e-6)


def test_seeds_side_by_side_are_seeds_alone(experiment, reference):
    for index, seed in enumerate([0, 1]):
        alone = jax.tree.map(lambda x: x[0], run(experiment, [seed]))
        together = jax.tree.map(lambda x, index=index: x[index], reference)
        chex.assert_trees_all_close(together, alone, rtol=2e-5, atol=1e-6)


def test_seeds_by_vmap_are_seeds_by_map(experiment, reference):
    train = step.make_train(experiment, "device", 6, 8, 1)
    train = jax.vmap(train, in_axes=(0, None, None, None))
    state = jax.vmap(lambda seed: step.init_state(experiment, seed))(jnp.arange(2, dtype=jnp.uint32))
    mapped = jax.pmap(train, "device", in_axes=(None, None, None, 0), out_axes=None, devices=jax.devices()[:1])
    state, _ = mapped(state, experiment.data.train, None, jnp.arange(1))
    chex.assert_trees_all_close(jax.device_get(state), reference[0], rtol=2e-5, atol=1e-6)


@pytest.mark.parametrize("num_devices", [1, 4])
def test_a_stream_of_the_same_rows_is_the_resident_set(experiment, reference, num_devices):
    def stream(seed):
        for rows in step.batch_rows(step.make_keys(seed).order, jnp.int32(0), 6, 8, 50):
            yield {name: values[np.asarray(rows)] for name, values in experiment.data.train.items()}

    streams = [stream(seed) for seed in (0, 1)]
    chex.assert_trees_all_close(run(experiment, [0, 1], num_devices, streams=streams), reference, rtol=2e-5, atol=1e-6)


def test_the_state_is_donated(experiment):
    devices = jax.devices()[:1]
    state = jax.tree.map(lambda x: x[None], step.init_state(experiment, jnp.uint32(0)))
    state = parallel.replicate(state, devices)
    data, numbers = parallel.replicate(experiment.data.train, devices), parallel.shard(np.arange(1), devices)
    parallel.make_train(experiment, 3, 8, devices)(state, data, None, numbers)
    assert state.params["generative"].is_deleted()


@pytest.mark.parametrize(
    "num_devices, batch_size, message",
    [(3, 8, "batch_size=8 does not divide among 3"), (9, 9, "there are 4"), (-1, 8, "num_devices=-1"), (1, 0, "=0")],
)
def test_impossible_devices(num_devices, batch_size, message):
    with pytest.raises(UserError, match=message):
        parallel.choose_devices(num_devices, batch_size)


def test_zero_devices_are_all():
    assert parallel.choose_devices(0, 8) == jax.devices()
    assert parallel.choose_devices(2, 8) == jax.devices()[:2]
