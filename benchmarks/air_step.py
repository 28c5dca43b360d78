"""How fast AIR's training step is, as a fraction of what matrix products reach on the same machine at that moment.

  python -m benchmarks.air_step            # the default config, and growth with K, batch and canvas
  python -m benchmarks.air_step --brief    # the default config alone
  python -m benchmarks.air_step --write    # all, and writes the table to benchmarks/README.md

The step is the one that training runs: batch, gradient, Adam, guard. FLOPs are those of its matrix products, counted
in the traced program (a multiplication and an addition are two); everything else it does counts as time only.
"""

import argparse
import datetime
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.extend
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from benchmarks.program import compile_timed
from configs import air as air_config
from experiments import air
from objcentric.data import loader
from objcentric.training import machine, parallel, step

INNER = 10  # training steps per timed call
COLUMNS = {"ms_per_step": ".1f", "gflop_per_step": ".2f", "gflops": ".0f", "fraction": ".2f", "memory_mb": ".0f"}
README = Path(__file__).parent / "README.md"
HEADER = """# Benchmarks

Written by `python -m benchmarks.air_step --write` on {date}: {machine}.

AIR's training step (batch, gradient, Adam, guard) under changes to `configs/air.py`: K = 5 particles, batch 32, canvas
50 x 50. GFLOP are those of its matrix products; "of products" is their rate over that of 1024 x 1024 products measured
in the same run, alternately; memory is what the compiled program holds, its arguments included.

{table}
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--brief", action="store_true", help="the default config alone")
    parser.add_argument("--write", action="store_true", help="write the table to benchmarks/README.md")
    arguments = parser.parse_args()

    settings = [{}]
    if not arguments.brief:
        settings += [{"objective.num_particles": k} for k in (2, 10, 20)]
        settings += [{"train.batch_size": b} for b in (16, 64, 128)]
        settings += [{"data.canvas": (size, size)} for size in (36, 72, 100)]
        settings += [{"model.recurrence": "latent"}]
    print(machine.describe())
    columns = ("setting", "ms/step", "GFLOP/step", "GFLOP/s", "of products", "memory, MB")
    lines = [columns, ("---",) * len(columns)]
    for changes in settings:
        row = measure(changes)
        figures = (f"{row[name]:{digits}}" for name, digits in COLUMNS.items())
        lines.append((row["setting"], *figures))
        print("  ".join(f"{name} {value}" for name, value in zip(columns, lines[-1], strict=True)), flush=True)
    if arguments.write:
        table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
        README.write_text(HEADER.format(machine=machine.describe(), date=datetime.date.today(), table=table))


def measure(changes: dict[str, Any], repeats: int = 12) -> dict[str, Any]:
    """Time, FLOPs and memory of the training step under ``changes`` to configs/air.py."""
    config = air_config.get_config()
    config.update_from_flattened_dict(changes)
    config.train.num_devices = 1
    experiment = air.build(config, data=noise(config))
    devices = parallel.choose_devices(config.train.num_devices, config.train.batch_size)
    state = parallel.replicate(jax.vmap(lambda s: step.init_state(experiment, s))(jnp.arange(1)), devices)
    data = parallel.replicate(experiment.data.train, devices)
    numbers = parallel.shard(np.arange(len(devices), dtype=np.int32), devices)
    train = parallel.make_train(experiment, INNER, config.train.batch_size, devices)
    flops = count_flops(jax.make_jaxpr(train)(state, data, None, numbers).jaxpr) / INNER
    compiled, _, memory_mb = compile_timed(train.lower(state, data, None, numbers))

    seconds, rates = [], []
    for _ in range(repeats):
        rates.append(product_rate(1))
        start = time.perf_counter()
        state, metrics = compiled(state, data, None, numbers)
        jax.block_until_ready(metrics)
        seconds.append((time.perf_counter() - start) / INNER)
    best, rate = min(seconds), max(rates)
    return {
        "setting": ", ".join(f"{name}={value}" for name, value in changes.items()) or "configs/air.py",
        "ms_per_step": 1e3 * best,
        "gflop_per_step": flops / 1e9,
        "gflops": flops / best / 1e9,
        "product_gflops": rate,
        "fraction": flops / best / 1e9 / rate,
        "memory_mb": memory_mb,
    }


def noise(config: ConfigDict) -> loader.Data:
    """Random scenes: the time of a step does not depend on what they show."""
    shape = (256, *config.data.canvas, 1)
    split = {"image": np.random.default_rng(0).integers(0, 256, shape, np.uint8)}
    return loader.Data(split, split, split)


def product_rate(repeats: int = 10, size: int = 1024) -> float:
    """GFLOP/s of the best of some float32 products of square matrices."""
    matrix = jnp.ones((size, size))
    best = min(_seconds(lambda: _product(matrix)) for _ in range(repeats + 1))
    return 2 * size**3 / best / 1e9


@jax.jit
def _product(matrix: jax.Array) -> jax.Array:
    return matrix @ matrix


def _seconds(function: Callable) -> float:
    start = time.perf_counter()
    jax.block_until_ready(function())
    return time.perf_counter() - start


def count_flops(jaxpr: Any) -> float:
    """FLOPs of the matrix products and convolutions in a program, loops counted as often as they run."""
    total = 0.0
    for equation in jaxpr.eqns:
        if equation.primitive.name == "dot_general":
            (contracted, _), _ = equation.params["dimension_numbers"]
            shape = equation.invars[0].aval.shape
            total += 2 * equation.outvars[0].aval.size * np.prod([shape[i] for i in contracted])
        elif equation.primitive.name == "conv_general_dilated":
            kernel = equation.invars[1].aval
            out = equation.params["dimension_numbers"].rhs_spec[0]
            total += 2 * equation.outvars[0].aval.size * kernel.size / kernel.shape[out]
        times = equation.params.get("length", 1) if equation.primitive.name == "scan" else 1
        total += times * sum(count_flops(inner) for inner in jax.extend.core.jaxprs_in_params(equation.params))
    return total


if __name__ == "__main__":
    main()
