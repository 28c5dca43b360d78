"""What benchmarks of several settings share: programs timed in turns, so that a slow moment slows all alike."""

import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from objcentric.training import parallel, step
from objcentric.training.experiment import Experiment

INNER = 5  # training steps per timed call


class Program(NamedTuple):
    run: Callable[[], float]  # does some of the work, and returns seconds per step
    compile_s: float
    memory_mb: float  # what it holds, its arguments included


def training(experiment: Experiment, batch_size: int) -> Program:
    """Compiles an experiment's training step: batch, gradient, optimizer, guard, on the first device."""
    devices = parallel.choose_devices(1, batch_size)
    init = jax.jit(jax.vmap(lambda seed: step.init_state(experiment, seed)))
    state = parallel.replicate(init(jnp.arange(1)), devices)
    data = parallel.replicate(experiment.data.train, devices)
    numbers = parallel.shard(np.zeros(1, np.int32), devices)
    train = parallel.make_train(experiment, INNER, batch_size, devices)
    compiled, *cost = compile_timed(train.lower(state, data, None, numbers))

    def run() -> float:
        nonlocal state
        start = time.perf_counter()
        state, metrics = compiled(state, data, None, numbers)
        jax.block_until_ready(metrics)
        return (time.perf_counter() - start) / INNER

    return Program(run, *cost)


def compile_timed(lowered: jax.stages.Lowered) -> tuple[jax.stages.Compiled, float, float]:
    """The compiled program, and `Program`'s ``compile_s`` and ``memory_mb``."""
    start = time.perf_counter()
    compiled = lowered.compile()
    compile_s = time.perf_counter() - start
    memory = compiled.memory_analysis()
    return compiled, compile_s, (memory.temp_size_in_bytes + memory.argument_size_in_bytes) / 2**20


def take_turns(programs: Sequence[Program], turns: int, most: Sequence[int] = ()) -> tuple[np.ndarray, np.ndarray]:
    """Of each program the best seconds per step, and their median ratio to the first program's.

    Args:
      most: turns of each program; by default all.
    """
    seconds = np.full((turns, len(programs)), np.nan)
    for turn, i in np.ndindex(seconds.shape):
        if not most or turn < most[i]:
            seconds[turn, i] = programs[i].run()
    return np.nanmin(seconds, axis=0), np.nanmedian(seconds / seconds[:, :1], axis=0)


def table(columns: dict[str, tuple[str, str]], rows: Sequence[dict]) -> str:
    """Markdown, a line for each row, with the ``columns``: their titles and formats by the names of figures."""
    lines = [[title for title, _ in columns.values()], ["---"] * len(columns)]
    lines += [[f"{row[name]:{digits}}" for name, (_, digits) in columns.items()] for row in rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
