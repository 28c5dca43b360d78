"""What a gradient costs under each objective, relative to IWAE's at the same number of particles.

  python -m benchmarks.objectives           # AIR's gradient, K = 5 and 20
  python -m benchmarks.objectives --write   # and writes the table to benchmarks/objectives.md

The model is that of configs/air.py at a batch of 32, random images. Objectives take turns, so that a slow moment of the
machine slows all alike; a ratio is the median over the turns.
"""

import argparse
import datetime
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.air_step import noise
from configs import air as air_config
from experiments import air
from objcentric.training import machine, targets

EXTRA = {  # what an objective evaluates besides one trace of each particle and its gradient
    "piwae": "a second backward pass, with other weights of the particles",
    "ws": "a draw of the model and its trace",
    "delta_ww": "a draw of the prior and the trace of the defended draws",
    "stl": "two more sets of densities at the same draws",
    "dreg": "two more sets of densities at the same draws",
    "rws_dreg": "two more sets of densities at the same draws",
    "nvil": "the baseline's network",
}
README = Path(__file__).parent / "objectives.md"
HEADER = """# The cost of the objectives

Written by `python -m benchmarks.objectives --write` on {date}: {machine}.

Time of AIR's gradient (batch 32) relative to IWAE's with as many particles, taken in turns, median of {turns}.

{table}
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="write the table to benchmarks/objectives.md")
    parser.add_argument("--turns", type=int, default=15, help="how often each gradient is timed")
    arguments = parser.parse_args()

    particles = (5, 20)
    columns = [measure(k, list(targets.TARGETS), arguments.turns) for k in particles]
    lines = [("objective", *(f"K = {k}" for k in particles), "evaluates besides")]
    lines.append(("---",) * len(lines[0]))
    lines += [
        (f"`{name}`", *(f"{column[name]:.2f}" for column in columns), EXTRA.get(name, "")) for name in targets.TARGETS
    ]
    table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    print(machine.describe(), table, sep="\n")
    if arguments.write:
        README.write_text(
            HEADER.format(date=datetime.date.today(), machine=machine.describe(), turns=arguments.turns, table=table)
        )


def measure(num_particles: int, names: Sequence[str], turns: int, batch_size: int = 32) -> dict[str, float]:
    """Time of the gradient of each objective of ``names`` relative to 'iwae', which must be one of them."""
    gradients = {name: make_gradient(name, num_particles, batch_size) for name in names}
    seconds = {name: [] for name in names}
    for _ in range(turns):
        for name, gradient in gradients.items():
            start = time.perf_counter()
            jax.block_until_ready(gradient())
            seconds[name].append(time.perf_counter() - start)
    return {name: float(np.median(np.divide(seconds[name], seconds["iwae"]))) for name in names}


def make_gradient(name: str, num_particles: int, batch_size: int) -> Callable[[], dict]:
    """The compiled gradient of AIR's loss under an objective, with its arguments."""
    config = air_config.get_config()
    config.objective.update(name=name, num_particles=num_particles)
    experiment = air.build(config, data=noise(config))
    params, aux = experiment.init(jax.random.key(0))
    batch = {"image": experiment.data.train["image"][:batch_size]}
    keys = jax.random.split(jax.random.key(1), batch_size)
    gradient = jax.jit(jax.grad(lambda *arguments: experiment.loss(*arguments)[0]))
    arguments = jax.device_put((params, batch, keys, jnp.int32(0), aux))
    jax.block_until_ready(gradient(*arguments))
    return lambda: gradient(*arguments)


if __name__ == "__main__":
    main()
