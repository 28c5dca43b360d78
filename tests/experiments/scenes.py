"""Tiny scenes of bright squares, and a config of AIR to match."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array
from ml_collections import ConfigDict

from configs import base
from objcentric.data.loader import Data
from objcentric.training import parallel
from objcentric.training import step as training_step
from objcentric.training.experiment import Experiment


def make_split(num: int, seed: int, channels: int = 1) -> dict[str, np.ndarray]:
    """``num`` scenes of 12x14 pixels with 0 to 2 squares of side 4, annotated."""
    rng = np.random.default_rng(seed)
    split = {
        "image": np.zeros((num, 12, 14, channels), np.uint8),
        "count": np.arange(num, dtype=np.int32) % 3,
        "boxes": np.zeros((num, 2, 4), np.float32),
        "label": np.full((num, 2), -1, np.int32),
    }
    for i, count in enumerate(split["count"]):
        for j in range(count):
            y, x = rng.integers(0, 9), rng.integers(0, 4) + 7 * j
            split["image"][i, y : y + 4, x : x + 4] = rng.integers(150, 256, channels)
            split["boxes"][i, j] = y, x, y + 4, x + 4
            split["label"][i, j] = 0
    return split


def make_data(channels: int = 1) -> Data:
    return Data(make_split(32, 0, channels), make_split(6, 1, channels), make_split(13, 2, channels))


def make_config(**fields) -> ConfigDict:
    """A small AIR; ``fields`` are dotted names with '__' for '.'."""
    config = base.get_config()
    shrink(config)
    config.model.object_size = 4.0
    config.update_from_flattened_dict({name.replace("__", "."): value for name, value in fields.items()})
    return config


def shrink(config: ConfigDict) -> None:
    """Makes any config train in no time, on scenes as large as they are in the config."""
    small = {
        "data": {"num_train": 32, "num_valid": 6, "num_test": 9},
        "model": {"num_steps": 2, "what_dim": 3, "hidden": 8, "glimpse_size": (5, 4)},
        "objective": {"num_particles": 2, "baseline_hidden": 8},
        "train": {"num_steps": 3, "batch_size": 4, "num_devices": 1, "inner_steps": 3, "log_every": 1, "eval_every": 3},
        "evaluate": dict(batch_size=6, num_particles=4, particle_chunk=2, num_examples=6, num_pictures=2),
    }
    for part, fields in small.items():
        config[part].update({name: value for name, value in fields.items() if name in config[part]})


def filled(experiment: Experiment) -> Experiment:
    """``experiment`` with parameters that need no compilation."""
    shapes, aux = jax.eval_shape(experiment.init, jax.random.key(0))
    rng = np.random.default_rng(0)
    params = jax.tree.map(lambda leaf: jnp.asarray(rng.normal(0, 0.1, leaf.shape).astype(np.float32)), shapes)
    zeros = jax.tree.map(lambda leaf: jnp.asarray(np.zeros(leaf.shape, np.float32)), aux)
    return experiment._replace(init=lambda key: (params, zeros))


def train_finitely(experiment: Experiment, batch: dict, num_steps: int = 5) -> tuple:
    """Some steps from `filled` parameters, asserted to be finite: parameters before and after."""
    number, first = len(jax.tree.leaves(batch)[0]), filled(experiment).init(None)[0]

    @jax.jit
    def step(params: dict, state: tuple, key: Array) -> tuple:
        loss = jax.value_and_grad(experiment.loss, has_aux=True)
        (value, _), grads = loss(params, batch, jax.random.split(key, number), 0, ())
        updates, state = experiment.optimizer.update(grads, state, params)
        return optax.apply_updates(params, updates), state, value

    params, state = first, experiment.optimizer.init(first)
    for key in jax.random.split(jax.random.key(0), num_steps):
        params, state, value = step(params, state, key)
        assert np.isfinite(value)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(params))
    return first, params


def learn_by_heart(experiment: Experiment, batch: dict, num_steps: int, learning_rate: float) -> tuple:
    """Trains on one batch, with new noise in each step: parameters, and metrics of each step."""
    optimizer = optax.adam(learning_rate)
    params, _ = jax.jit(experiment.init)(jax.random.key(0))
    number = len(jax.tree.leaves(batch)[0])

    def step(carry: tuple, i: Array) -> tuple:
        params, state = carry
        keys = jax.random.split(jax.random.fold_in(jax.random.key(1), i), number)
        loss = jax.value_and_grad(lambda p: experiment.loss(p, batch, keys, i, ()), has_aux=True)
        (_, (metrics, _)), grads = loss(params)
        updates, state = optimizer.update(grads, state)
        return (optax.apply_updates(params, updates), state), metrics

    train = jax.jit(lambda params: jax.lax.scan(step, (params, optimizer.init(params)), jnp.arange(num_steps)))
    (params, _), metrics = train(params)
    return params, metrics


def one_step(experiment: Experiment, num_devices: int) -> tuple[dict, dict]:
    """What a step along the gradient of a batch of 8 makes of `filled` parameters, and its metrics, on the host."""
    experiment, devices = filled(experiment._replace(optimizer=optax.sgd(1.0))), jax.devices()[:num_devices]
    state = jax.tree.map(lambda leaf: leaf[None], training_step.init_state(experiment, jnp.uint32(0)))
    data, numbers = parallel.replicate(experiment.data.train, devices), np.arange(num_devices, dtype=np.int32)
    train = parallel.make_train(experiment, 1, 8, devices)
    state, metrics = train(parallel.replicate(state, devices), data, None, parallel.shard(numbers, devices))
    return jax.device_get((state.params, metrics))
