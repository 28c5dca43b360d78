"""Devices: the project's only pmap, and where the train state and the data live."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import numpy as np
from jax import lax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from objcentric.errors import UserError
from objcentric.training import step
from objcentric.training.experiment import Experiment

AXIS = "device"


def choose_devices(num_devices: int, batch_size: int) -> list[jax.Device]:
    """The first ``num_devices`` devices, 0 for all; UserError if there are fewer, or the batch does not divide."""
    devices = jax.devices()
    if not 0 <= num_devices <= len(devices):
        raise UserError(f"train.num_devices={num_devices}, but there are {len(devices)}: use 0 for all of them")
    devices = devices[: num_devices or None]
    if batch_size < 1 or batch_size % len(devices):
        raise UserError(
            f"train.batch_size={batch_size} does not divide among {len(devices)} devices: use a multiple of"
            f" {len(devices)}, or set train.num_devices"
        )
    return devices


def replicate(tree: Any, devices: Sequence[jax.Device]) -> Any:
    """A copy of ``tree`` on every device."""
    return jax.device_put(tree, NamedSharding(_mesh(devices), PartitionSpec()))


def shard(tree: Any, devices: Sequence[jax.Device]) -> Any:
    """Row ``i`` of every leaf ``[len(devices), ...]`` on device ``i``."""
    return jax.device_put(tree, NamedSharding(_mesh(devices), PartitionSpec(AXIS)))


def stack_batches(streams: Sequence[Iterator], num_steps: int, devices: Sequence[jax.Device]) -> Any:
    """The next ``num_steps`` batches of one stream a seed, ``[D, S, num_steps, B / D, ...]``, sharded over devices."""

    def stack(*arrays: np.ndarray) -> np.ndarray:
        batches = np.stack(arrays).reshape(len(streams), num_steps, len(devices), -1, *arrays[0].shape[1:])
        return np.moveaxis(batches, 2, 0)

    return shard(jax.tree.map(stack, *[next(stream) for stream in streams for _ in range(num_steps)]), devices)


def make_train(experiment: Experiment, num_steps: int, batch_size: int, devices: Sequence[jax.Device]) -> Callable:
    """``train(state, data, batches, numbers) -> (state, metrics)``: `step.make_train` of all seeds on all devices.

    ``state`` (donated) and ``metrics`` have an axis [S] on every leaf and are replicated, as is ``data``; ``batches``
    comes from `stack_batches`, or is None; ``numbers`` is ``[0, ..., D - 1]``, sharded.
    """
    train_seed = step.make_train(experiment, AXIS, num_steps, batch_size, len(devices))

    def train(state: Any, data: Any, batches: Any, number: jax.Array) -> tuple[Any, dict[str, jax.Array]]:
        def seed(state: Any, batches: Any) -> tuple[Any, dict[str, jax.Array]]:
            return train_seed(state, data, batches, number)

        # On CPUs a batched matrix product is slower than its parts: there, one seed after the other.
        if devices[0].platform == "cpu":
            return lax.map(lambda x: seed(*x), (state, batches))
        return jax.vmap(seed)(state, batches)

    return jax.pmap(train, axis_name=AXIS, in_axes=(None, None, 0, 0), out_axes=None, devices=devices, donate_argnums=0)


def whole_batch(rows: Any) -> Any:
    """Within a loss: the rows of all devices, where those of this one, ``[B / D, ...]``, are given.

    For terms that are no means over examples. Outside `make_train` the given rows are all. Each device then computes
    the same; the mean of their gradients is the gradient.
    """
    try:
        lax.axis_index(AXIS)
    except NameError:
        return rows
    return jax.tree.map(lambda x: lax.all_gather(x, AXIS, tiled=True), rows)


def _mesh(devices: Sequence[jax.Device]) -> Mesh:
    return Mesh(np.asarray(devices), (AXIS,))
