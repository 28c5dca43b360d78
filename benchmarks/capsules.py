"""How fast capsule autoencoders learn, and what memory that takes, as parts and objects become more.

  python -m benchmarks.capsules          # configs/ccae.py and configs/scae.py
  python -m benchmarks.capsules --write  # and writes the table to benchmarks/capsules.md

Beside them, with their gradients, the perceptrons of all capsules alone, in batched products and one by one; and the
mixture of pixels alone: of all pixels, of one in each block, and as plainly as equation 6.9 has it, whose batch holds
all parts of all pixels at once.

A training step is all that training does: batch, gradient, optimizer and guard, on one device. Settings take turns, so
that a slow moment of the machine slows all alike; a ratio is the median over the turns, a time the best of them.
"""

import argparse
import dataclasses
import datetime
import functools
import importlib
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from benchmarks.program import Program, compile_timed, table, take_turns, training
from configs import ccae as ccae_config
from configs import scae as scae_config
from objcentric import distributions, explainer
from objcentric.data.loader import Data
from objcentric.models import capsules, pcae
from objcentric.training import machine
from objcentric.training.experiment import at_stage

README = Path(__file__).parent / "capsules.md"
HEADER = """# Capsules

Written by `python -m benchmarks.capsules --write` on {date}: {machine}.

A training step of `configs/ccae.py` and `configs/scae.py` and of changes to them, on one device. Settings take turns,
{turns} of them; times are the best, ratios (to the first row of the same model) the median. Memory is what the
compiled step holds, its arguments included.

{table}

The perceptrons of all objects alone (equations 6.2 and 6.3), of `configs/scae.py:mnist40` and their gradients: in
products that are batched over objects, as the model has them, and one object after another, in one program.

{perceptrons}

The mixture of pixels alone (equation 6.9), of `configs/scae.py:mnist40` and its gradients: plain, as the equation has
it for the whole batch at once; and as the model computes it, image by image on a CPU, of one pixel in each block of
model.pixel_stride by as many.

{pixels}
"""
COLUMNS = {
    "config": ("config", ""),
    "change": ("change", ""),
    "batch": ("batch", ""),
    "steps_per_s": ("steps/s", ".2f"),
    "examples_per_s": ("examples/s", ".0f"),
    "ratio": ("time, relative", ".2f"),
    "compile_s": ("compiled in, s", ".0f"),
    "memory_mb": ("memory, MB", ".0f"),
}

ALONE_COLUMNS = {
    "name": ("", ""),
    "ms_per_image": ("ms/image", ".2f"),
    "ratio": ("time, relative", ".2f"),
    "memory_mb": ("memory, MB", ".0f"),
}


class Setting(NamedTuple):
    config: str  # 'ccae', 'scae' or with a variant 'scae:mnist40'
    changes: tuple[tuple[str, object], ...] = ()
    parts_alone: bool = False  # whether it is the first stage of a curriculum, of parts alone


PLAIN = (  # the encoder is its own teacher
    ("losses.refine", 0),
    ("losses.pose_scale", 0.0),
    ("losses.turns", ()),
    ("evaluate.refine", 0),
)
ALL = ("curriculum.parts_fixed", False)  # parts and objects learn together
SETTINGS = [
    Setting("ccae"),
    Setting("ccae", (("optimizer.name", "adam"),)),
    Setting("ccae", PLAIN),
    Setting("ccae", (*PLAIN, ("model.num_capsules", 12))),
    Setting("ccae:baseline"),
    Setting("scae:mnist40", (ALL,)),
    Setting("scae:mnist40", parts_alone=True),
    Setting("scae:mnist40"),  # objects alone
    Setting("scae:mnist40", (ALL, ("model.pixel_stride", 1))),
    Setting("scae:mnist40", (ALL, ("train.batch_size", 128))),
    Setting("scae:mnist40", (ALL, ("model.num_parts", 48))),
    Setting("scae:mnist40", (ALL, ("model.num_capsules", 48))),
    Setting("scae:mnist40", (ALL, ("model.part_encoder", "linear"))),
    Setting("scae:mnist40_release"),
]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="write the table to benchmarks/capsules.md")
    parser.add_argument("--turns", type=int, default=5, help="how often each setting is timed")
    arguments = parser.parse_args()
    page = HEADER.format(
        date=datetime.date.today(),
        machine=machine.describe(),
        turns=arguments.turns,
        table=table(COLUMNS, measure(SETTINGS, arguments.turns)),
        perceptrons=table(ALONE_COLUMNS, measure_perceptrons(arguments.turns)),
        pixels=table(ALONE_COLUMNS, measure_pixels(arguments.turns)),
    )
    print(page)
    if arguments.write:
        README.write_text(page)


def make_config(setting: Setting) -> ConfigDict:
    name, _, variant = setting.config.partition(":")
    module = {"ccae": ccae_config, "scae": scae_config}[name]
    config = module.get_config(variant) if variant else module.get_config()
    config.update_from_flattened_dict(dict(setting.changes))
    return config


def measure(settings: Sequence[Setting], turns: int) -> list[dict]:
    """Figures of each setting, by the names in `COLUMNS`; ratios are to the first one of the same model."""
    configs = [make_config(setting) for setting in settings]
    programs = [learning(config, setting.parts_alone) for setting, config in zip(settings, configs, strict=True)]
    seconds, ratios = take_turns(programs, turns)
    rows = []
    for i, (setting, config) in enumerate(zip(settings, configs, strict=True)):
        first = next(j for j, other in enumerate(configs) if other.experiment == config.experiment)
        changes = [f"{field}={value}" for field, value in setting.changes]
        rows.append(
            {
                "config": setting.config,
                "change": ", ".join(changes + ["parts alone"] * setting.parts_alone),
                "batch": config.train.batch_size,
                "steps_per_s": 1 / seconds[i],
                "examples_per_s": config.train.batch_size / seconds[i],
                "ratio": ratios[i] / ratios[first],
                "compile_s": programs[i].compile_s,
                "memory_mb": programs[i].memory_mb,
            }
        )
    return rows


def learning(config: ConfigDict, parts_alone: bool = False) -> Program:
    module = importlib.import_module(f"experiments.{config.experiment}")
    experiment = module.build(config, data=noise(config))
    return training(at_stage(experiment, 0 if parts_alone else -1), config.train.batch_size)


def measure_perceptrons(turns: int, config: ConfigDict | None = None) -> list[dict]:
    """Figures of the perceptrons of all objects, by the names in `ALONE_COLUMNS`; ratios are to the batched ones."""
    config = make_config(Setting("scae:mnist40")) if config is None else config
    programs = {"batched": perceptrons(config, loop=False), "one by one": perceptrons(config, loop=True)}
    return alone(programs, turns, config.train.batch_size)


def measure_pixels(turns: int, config: ConfigDict | None = None) -> list[dict]:
    """Figures of mixtures of pixels, by the names in `ALONE_COLUMNS`; ratios are to the plain one."""
    config = make_config(Setting("scae:mnist40")) if config is None else config
    strides = {"plain": 0, "all pixels": 1, f"stride {config.model.pixel_stride}": config.model.pixel_stride}
    programs = {name: pixels(config, stride) for name, stride in strides.items()}
    return alone(programs, turns, config.train.batch_size)


def alone(programs: dict[str, Program], turns: int, batch_size: int) -> list[dict]:
    """Figures of programs that work on a batch, by the names in `ALONE_COLUMNS`; ratios are to the first one."""
    seconds, ratios = take_turns(list(programs.values()), turns)
    return [
        {
            "name": name,
            "ms_per_image": 1e3 * seconds[i] / batch_size,
            "ratio": ratios[i],
            "memory_mb": program.memory_mb,
        }
        for i, (name, program) in enumerate(programs.items())
    ]


def perceptrons(config: ConfigDict, *, loop: bool) -> Program:
    """Gradients of what objects make of features of a batch, with respect to their parameters and the features."""
    _, c = explainer.model_configs(config)
    decoder = capsules.ObjectDecoder(config.model.num_parts, "poses", hidden=c.hidden, pose=c.pose)
    features = jax.random.normal(jax.random.key(0), (config.train.batch_size, c.num_capsules, c.features))
    params = decoder.init(jax.random.key(1), features[0])

    def of_batch(params: dict, features: jax.Array) -> jax.Array:
        each = jax.vmap(functools.partial(votes, decoder, loop=loop), (None, 0))(params, features)
        return jnp.mean(jnp.square(each))

    return timed(of_batch, params, features)


def votes(decoder: capsules.ObjectDecoder, params: dict, features: jax.Array, *, loop: bool) -> jax.Array:
    """Of all objects, from features ``[K, D]``."""
    if not loop:
        return decoder.apply(params, features).votes
    each = [jax.tree.map(lambda leaf, k=k: leaf[k : k + 1], (params, features)) for k in range(len(features))]
    return jnp.concatenate([decoder.apply(*one).votes for one in each])


def pixels(config: ConfigDict, stride: int) -> Program:
    """Gradients of the mixture of pixels in one batch, with respect to parameters and parts; 0: the plain mixture."""
    part_config, _ = explainer.model_configs(config)
    part_config = dataclasses.replace(part_config, pixel_stride=max(stride, 1))
    model = pcae.make(part_config)
    keys = jax.random.split(jax.random.key(0), config.train.batch_size)
    params = model.init(keys[0])
    image = jax.random.uniform(keys[1], (len(keys), *part_config.canvas, part_config.channels))
    parts = jax.jit(jax.vmap(lambda x: model.encode(params, None, x)))(image)

    def of_one(params: dict, parts: pcae.Parts, x: jax.Array, key: jax.Array) -> jax.Array:
        drawn = params, parts.pose, parts.log_presence, parts.template
        if stride:
            return model.log_likelihood(*drawn, x, key)
        mixture = model.render(*drawn)
        scale = jnp.full((1, 1, 1), part_config.output_std)
        log_joint = mixture.logit + distributions.spherical_log_prob(x[None], mixture.value, scale)
        return jnp.sum(jax.nn.logsumexp(log_joint, 0) - jax.nn.logsumexp(mixture.logit, 0))

    def of_batch(params: dict, parts: pcae.Parts) -> jax.Array:
        return jnp.mean(jax.vmap(of_one, (None, 0, 0, 0))(params, parts, image, keys))

    return timed(of_batch, params, parts)


def timed(loss: Callable, *arguments: Any) -> Program:
    """The gradients of ``loss`` with respect to both of its arguments."""
    compiled, *cost = compile_timed(jax.jit(jax.grad(loss, (0, 1))).lower(*arguments))

    def run() -> float:
        start = time.perf_counter()
        jax.block_until_ready(compiled(*arguments))
        return time.perf_counter() - start

    return Program(run, *cost)


def noise(config: ConfigDict) -> Data:
    """Random images, or seeds of scenes: times do not depend on what they show."""
    if config.data.name == "constellations":
        return Data(*({"seed": np.arange(256, dtype=np.uint32)} for _ in range(3)))
    size = [side - 2 * config.data.shift for side in config.data.canvas]
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (256, *size, config.model.channels), np.uint8)
    return Data(*({"image": image, "label": np.arange(256, dtype=np.int32) % 10} for _ in range(3)))


if __name__ == "__main__":
    main()
