"""From a run's folder back to its model."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from ml_collections import ConfigDict

from objcentric.errors import UserError
from objcentric.training import workdir
from objcentric.training.checkpoint import Checkpoints
from objcentric.training.experiment import Experiment
from objcentric.training.step import init_state


class Run(NamedTuple):
    """A run of one experiment, as its newest checkpoint has it."""

    config: ConfigDict
    experiment: Experiment
    step: int
    params: Any  # of the first seed that did not fail


def restore_run(path: str | Path, build: Callable[[ConfigDict], Experiment]) -> Run:
    """The run in the folder ``path``, whose experiment ``build`` makes anew, with its data.

    Raises:
      UserError: there is no run, no checkpoint that can be read, or the data cannot be had.
    """
    folder = Path(path)
    config = workdir.read_config(folder)
    experiment = build(config)
    checkpoints = Checkpoints(folder / "checkpoints", config.train.checkpoints_kept)
    saved = checkpoints.restore(initial(config, experiment))
    if saved is None:
        raise UserError(f"{folder} holds no checkpoint: train first, or name another folder")
    failures = (workdir.evaluation(folder) or {}).get("failures", {})
    best = next((i for i, seed in enumerate(config.seeds) if str(seed) not in failures), 0)
    return Run(config, experiment, saved.step, jax.tree.map(lambda x: np.asarray(x)[best], saved.tree["state"].params))


def initial(config: ConfigDict, experiment: Experiment) -> dict[str, Any]:
    """What a checkpoint holds, before the first step: the state of all seeds, and the seconds spent."""
    seeds = jnp.asarray(config.seeds, jnp.uint32)
    state = jax.jit(lambda seeds: lax.map(lambda seed: init_state(experiment, seed), seeds))(seeds)
    return {"state": state, "wall": 0.0, "train": 0.0}
