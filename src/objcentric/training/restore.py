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
    first = next((i for i, seed in enumerate(config.seeds) if str(seed) not in failures), 0)
    last = saved.tree["state"].params
    params = chosen(saved.tree["best"], saved.step, last).params if config.train.keep_best else last
    return Run(config, experiment, saved.step, jax.tree.map(lambda x: np.asarray(x)[first], params))


class Best(NamedTuple):
    """Of each seed, what had the most of the figure config.train.keep_best when it was validated."""

    figure: Any  # [S], -inf before the first validation
    step: Any  # [S]
    params: Any  # with an axis [S]


def chosen(best: Best, step: int, params: Any) -> Best:
    """``best``, but of seeds that have none yet the last ``params``."""
    return better(best, np.where(np.isneginf(best.figure), np.inf, -np.inf), step, params)


def better(best: Best, figure: np.ndarray, step: int, params: Any) -> Best:
    """``best``, or where ``figure [S]`` is higher the new ``params``, seed by seed; NaN is never higher."""
    higher = np.asarray(figure) > best.figure

    def choose(old: Any, new: Any) -> np.ndarray:
        return np.where(higher.reshape(-1, *(1,) * (np.ndim(old) - 1)), new, old)

    return Best(choose(best.figure, figure), choose(best.step, step), jax.tree.map(choose, best.params, params))


def initial(config: ConfigDict, experiment: Experiment) -> dict[str, Any]:
    """What a checkpoint holds, before the first step: the state of all seeds, the seconds spent, and maybe the best."""
    seeds = jnp.asarray(config.seeds, jnp.uint32)
    state = jax.jit(lambda seeds: lax.map(lambda seed: init_state(experiment, seed), seeds))(seeds)
    held = {"state": state, "wall": 0.0, "train": 0.0}
    if config.train.keep_best:
        nothing = np.full(len(config.seeds), -np.inf), np.zeros(len(config.seeds), np.int32)
        held["best"] = Best(*nothing, jax.tree.map(np.asarray, state.params))
    return held
