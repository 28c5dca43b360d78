"""What experiments share when they evaluate."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from ml_collections import ConfigDict

from objcentric import objectives
from objcentric.data import loader
from objcentric.data.loader import Split, Stream
from objcentric.errors import UserError
from objcentric.models.model import Model
from objcentric.training import parallel, targets

FITTED = 1_000  # training examples, at most, to whose counts a prior is fitted (config.evaluate.fit_count_prior)


def check(c: ConfigDict) -> None:
    """UserError where config.evaluate does not make sense."""
    for name in ("batch_size", "num_examples", "num_pictures"):
        if c[name] < 1:
            raise UserError(f"evaluate.{name}={c[name]} must be at least 1")
    particles, chunk = c.num_particles, c.particle_chunk
    if particles < 1 or chunk < 1 or particles % chunk:
        raise UserError(f"evaluate.particle_chunk={chunk} must divide evaluate.num_particles={particles}")


def check_scheduled(c: ConfigDict, largest: dict[str, float]) -> None:
    """UserError unless the fields of config.model that ``largest`` names are schedules within (0, largest].

    What float32 rounds to 0 is refused, too: its logarithm would make NaNs.
    """
    least = float(np.finfo(np.float32).tiny)
    for name, most in largest.items():
        start, end, steps = (c[name][field] for field in ("start", "end", "steps"))
        begin = c[name].get("begin", 0)
        if not (least <= start <= most and least <= end <= most and min(steps, begin) >= 0):
            raise UserError(
                f"model.{name}: start={start} and end={end} must lie in (0, {most}], above {least:.0e},"
                f" steps={steps} and begin={begin} must be >= 0"
            )


def make_bound(model: Model, c: ConfigDict, hparams: dict, read: Callable) -> Callable:
    """``(params, image [B, ...], keys [B]) -> {"iwae": [B]}`` of c.num_particles, c.particle_chunk of them at a time.

    Args:
      read: ``(image, keys) -> (x, keys)``, of a batch.
    """

    @jax.jit
    def bound(params: dict, image: Array, keys: Array) -> dict:
        x, keys = read(image, keys)

        def chunk_bound(i: Array) -> Array:
            folded = jax.vmap(jax.random.fold_in, (0, None))(keys, i)
            traces = targets.trace_particles(model, params, folded, x, hparams, c.particle_chunk)
            return objectives.log_mean_exp(targets.log_w(traces))

        chunks = jax.lax.map(chunk_bound, jnp.arange(c.num_particles // c.particle_chunk))
        return {"iwae": objectives.log_mean_exp(chunks.T)}

    return bound


def in_batches(
    function: Callable, params: dict, examples: np.ndarray | Split | Stream, key: Array, batch_size: int
) -> Any:
    """``function(params, rows, keys)``, jitted, over all examples, batch by batch (the last padded), as numpy arrays.

    Rows are shared among all devices where these divide ``batch_size``.
    """
    size = loader.size(examples)
    batch_size = min(batch_size, size)  # few examples are not padded to many
    keys = jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.arange(size))
    devices = jax.devices() if batch_size % jax.device_count() == 0 else jax.devices()[:1]
    params = parallel.replicate(params, devices)
    results = []
    for start in range(0, size, batch_size):
        rows = np.minimum(np.arange(start, start + batch_size), size - 1)
        batch = parallel.shard((loader.take(examples, rows), keys[rows]), devices)
        results.append(jax.device_get(function(params, *batch)))
    return jax.tree.map(lambda *leaves: np.concatenate(leaves)[:size], *results)
