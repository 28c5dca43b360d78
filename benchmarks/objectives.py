"""What a gradient costs under each objective, relative to IWAE's at the same number of particles.

  python -m benchmarks.objectives           # K = 5 and 20
  python -m benchmarks.objectives --write   # and writes the tables to benchmarks/objectives.md

Models: AIR (configs/air.py, a batch of 32 random images), Burda's VAE, the mixture of configs/gmm.py for what has no
place in config.objective, and a linear-Gaussian sequence. Objectives take turns, so that a slow moment of the machine
slows all alike; a ratio is the median over the turns.
"""

import argparse
import datetime
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from benchmarks.air_step import noise
from configs import air as air_config
from configs import gmm as gmm_config
from configs import vae_mnist as vae_config
from experiments import air, gmm, vae_mnist
from objcentric import objectives
from objcentric.data.loader import Data
from objcentric.training import machine, targets
from objcentric.training.experiment import Experiment

EXTRA = {  # what an objective evaluates besides one trace of each particle and its gradient
    "piwae": "a second backward pass, with other weights of the particles",
    "ws": "a draw of the model and its trace",
    "delta_ww": "a draw of the prior and the trace of the defended draws",
    "stl": "two more sets of densities at the same draws",
    "dreg": "two more sets of densities at the same draws",
    "rws_dreg": "two more sets of densities at the same draws",
    "nvil": "the baseline's network",
    "relax": "the control variate at three sets of draws, and second derivatives for its parameters",
    "rebar": "the relaxed bound at three sets of draws, and second derivatives for its parameters",
    "concrete": "relaxed densities, of vectors in place of indices",
    "dvae": "relaxed densities, of vectors in place of indices",
    "dvaepp": "relaxed densities, of vectors in place of indices",
}
README = Path(__file__).parent / "objectives.md"
HEADER = """# The cost of the objectives

Written by `python -m benchmarks.objectives --write` on {date}: {machine}.

Time of a gradient relative to IWAE's with as many particles, taken in turns, median of {turns}.

## AIR, batch of 32

{air}

## Burda's VAE, batch of 20

{vae}

## A mixture of 20 Gaussians, batch of 100

{gmm}

## A linear-Gaussian sequence of 20 steps, batch of 100

{sequence}
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="write the table to benchmarks/objectives.md")
    parser.add_argument("--turns", type=int, default=15, help="how often each gradient is timed")
    arguments = parser.parse_args()

    tables = {name: table(make, arguments.turns) for name, make in MAKERS.items()}
    page = HEADER.format(date=datetime.date.today(), machine=machine.describe(), turns=arguments.turns, **tables)
    print(page)
    if arguments.write:
        README.write_text(page)


def table(make: Callable[[int], dict[str, Callable]], turns: int, particles: Sequence[int] = (5, 20)) -> str:
    """Markdown, a column for each K; ``make(K)`` gives the gradients to time by name, 'iwae' among them."""
    columns = [measure(make(k), turns) for k in particles]
    lines = [("objective", *(f"K = {k}" for k in particles), "evaluates besides")]
    lines.append(("---",) * len(lines[0]))
    lines += [(f"`{name}`", *(f"{column[name]:.2f}" for column in columns), EXTRA.get(name, "")) for name in columns[0]]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def measure(gradients: dict[str, Callable], turns: int) -> dict[str, float]:
    """Time of each gradient relative to that of 'iwae'."""
    seconds = {name: [] for name in gradients}
    for _ in range(turns):
        for name, gradient in gradients.items():
            start = time.perf_counter()
            jax.block_until_ready(gradient())
            seconds[name].append(time.perf_counter() - start)
    return {name: float(np.median(np.divide(seconds[name], seconds["iwae"]))) for name in gradients}


def compiled(gradient: Callable, *arguments: Any) -> Callable[[], Any]:
    """``gradient(*arguments)``, compiled, with its arguments on the device."""
    gradient, arguments = jax.jit(gradient), jax.device_put(arguments)
    jax.block_until_ready(gradient(*arguments))
    return lambda: gradient(*arguments)


def of_air(num_particles: int) -> dict[str, Callable]:
    return {name: make_gradient(name, num_particles, 32) for name in targets.TARGETS if name not in targets.CONTINUOUS}


BOUNDS = ("iwae", "elbo", "miwae", "ciwae", "piwae")


def of_vae(num_particles: int, names: Sequence[str] = (*BOUNDS, *targets.CONTINUOUS)) -> dict[str, Callable]:
    """Of the bounds, and of the estimators for which all latents must be continuous."""
    image = np.random.default_rng(0).integers(0, 256, (20, 28, 28, 1), np.uint8)
    data = Data(*({"image": image},) * 3)

    def gradient(name: str) -> Callable:
        config = vae_config.get_config()
        config.objective.update(name=name, num_particles=num_particles)
        return of_loss(vae_mnist.build(config, data=data), len(image))

    return {name: gradient(name) for name in names}


def make_gradient(name: str, num_particles: int, batch_size: int) -> Callable[[], dict]:
    """The compiled gradient of AIR's loss under an objective, with its arguments."""
    config = air_config.get_config()
    config.objective.update(name=name, num_particles=num_particles)
    return of_loss(air.build(config, data=noise(config)), batch_size)


def of_loss(experiment: Experiment, batch_size: int) -> Callable[[], dict]:
    """The compiled gradient of an experiment's loss on its first training data."""
    params, aux = experiment.init(jax.random.key(0))
    batch = {"image": experiment.data.train["image"][:batch_size]}
    keys = jax.random.split(jax.random.key(1), batch_size)
    gradient = jax.grad(lambda *arguments: experiment.loss(*arguments)[0])
    return compiled(gradient, params, batch, keys, jnp.int32(0), aux)


def of_gmm(num_particles: int) -> dict[str, Callable]:
    """Of all of a mixture's estimators, and of IWAE's without a score, which has the cost of a bound alone."""
    c = gmm_config.get_config()
    c.seeds = (0,)
    x = 200 * jax.random.uniform(jax.random.key(0), (100,))

    def gradient(name: str, estimator: Callable) -> Callable:
        setting = gmm.Setting("near", name, num_particles)
        state = jax.tree.map(lambda leaf: leaf[0], gmm.init_state(c, setting))
        surrogate = estimator(gmm.Problem(c, gmm.model_config(c, "near"), num_particles))

        def gradients(params: dict, control: Any, key: Array, x: Array) -> Any:
            return gmm.gradients(surrogate, params, control, key, x, jnp.float32(0.5))

        return compiled(gradients, state.params, state.control, jax.random.key(1), x)

    iwae = gmm.discrete(lambda log_p, log_q: objectives.iwae(log_p - log_q).surrogate)
    return {name: gradient(name, estimator) for name, estimator in {"iwae": iwae, **gmm.ESTIMATORS}.items()}


def of_sequence(num_particles: int) -> dict[str, Callable]:
    """FIVO by its criteria for resampling; IWAE never resamples."""
    x = jax.random.normal(jax.random.key(0), (100, 20, 8))

    def gradient(criterion: Callable) -> Callable:
        def step(params: dict, key: Array, z: Array, x: Array) -> objectives.Transition:
            loc = z @ params["q"] + x
            new = loc + jax.random.normal(key, z.shape)
            log_p = -jnp.sum(jnp.square(new - z @ params["p"]) + jnp.square(x - new)) / 2
            return objectives.Transition(new, log_p + jnp.sum(jnp.square(new - loc)) / 2)

        def loss(params: dict, key: Array, x: Array) -> Array:
            def one(key: Array, x: Array) -> Array:
                filtered = objectives.particle_filter(
                    lambda *a: step(params, *a), key, jnp.zeros(8), x, num_particles=num_particles, criterion=criterion
                )
                return objectives.fivo(filtered).surrogate

            return -jnp.mean(jax.vmap(one)(jax.random.split(key, len(x)), x))

        params = {"q": jnp.eye(8), "p": jnp.eye(8)}
        return compiled(jax.grad(loss), params, jax.random.key(1), x)

    criteria = {
        "iwae": objectives.never,
        "fivo, ESS below K / 2": objectives.ess_below,
        "fivo, always": objectives.always,
    }
    return {name: gradient(criterion) for name, criterion in criteria.items()}


MAKERS = {"air": of_air, "vae": of_vae, "gmm": of_gmm, "sequence": of_sequence}

if __name__ == "__main__":
    main()
