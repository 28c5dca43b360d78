"""What experiments share when they evaluate."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from ml_collections import ConfigDict

from objcentric.errors import UserError


def check(c: ConfigDict) -> None:
    """UserError where config.evaluate does not make sense."""
    for name in ("batch_size", "num_examples", "num_pictures"):
        if c[name] < 1:
            raise UserError(f"evaluate.{name}={c[name]} must be at least 1")
    particles, chunk = c.num_particles, c.particle_chunk
    if particles < 1 or chunk < 1 or particles % chunk:
        raise UserError(f"evaluate.particle_chunk={chunk} must divide evaluate.num_particles={particles}")


def in_batches(function: Callable, params: dict, image: np.ndarray, key: Array, batch_size: int) -> Any:
    """``function(params, image, keys)`` over all images, batch by batch (the last one padded), as numpy arrays."""
    keys = jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.arange(len(image)))
    results = []
    for start in range(0, len(image), batch_size):
        rows = np.minimum(np.arange(start, start + batch_size), len(image) - 1)
        results.append(jax.device_get(function(params, image[rows], keys[rows])))
    return jax.tree.map(lambda *leaves: np.concatenate(leaves)[: len(image)], *results)
