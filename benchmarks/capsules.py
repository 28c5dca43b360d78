"""How fast capsule autoencoders learn, and what memory that takes, as parts and objects become more.

  python -m benchmarks.capsules          # configs/ccae.py and configs/scae.py
  python -m benchmarks.capsules --write  # and writes the table to benchmarks/capsules.md

A training step is all that training does: batch, gradient, optimizer and guard, on one device. Settings take turns, so
that a slow moment of the machine slows all alike; a ratio is the median over the turns, a time the best of them.
"""

import argparse
import datetime
import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from ml_collections import ConfigDict

from benchmarks.program import Program, table, take_turns, training
from configs import ccae as ccae_config
from configs import scae as scae_config
from objcentric.data.loader import Data
from objcentric.training import machine

README = Path(__file__).parent / "capsules.md"
HEADER = """# Capsules

Written by `python -m benchmarks.capsules --write` on {date}: {machine}.

A training step of `configs/ccae.py` and `configs/scae.py` and of changes to them, on one device. Settings take turns,
{turns} of them; times are the best, ratios (to the first row of the same config) the median. Memory is what the
compiled step holds, its arguments included.

{table}
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


class Setting(NamedTuple):
    config: str  # 'ccae', 'scae' or with a variant 'scae:mnist40'
    changes: tuple[tuple[str, object], ...] = ()


SETTINGS = [
    Setting("ccae"),
    Setting("ccae", (("model.decoder", "baseline"),)),
    Setting("ccae", (("model.num_capsules", 12),)),
    Setting("scae:mnist40"),
    Setting("scae:mnist40", (("model.num_parts", 48),)),
    Setting("scae:mnist40", (("model.num_capsules", 48),)),
    Setting("scae:mnist40", (("model.part_encoder", "linear"),)),
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
    """Figures of each setting, by the names in `COLUMNS`; ratios are to the first one of the same config."""
    configs = [make_config(setting) for setting in settings]
    programs = [learning(config) for config in configs]
    seconds, ratios = take_turns(programs, turns)
    rows = []
    for i, (setting, config) in enumerate(zip(settings, configs, strict=True)):
        first = next(j for j, other in enumerate(settings) if other.config == setting.config)
        rows.append(
            {
                "config": setting.config,
                "change": ", ".join(f"{field}={value}" for field, value in setting.changes),
                "batch": config.train.batch_size,
                "steps_per_s": 1 / seconds[i],
                "examples_per_s": config.train.batch_size / seconds[i],
                "ratio": ratios[i] / ratios[first],
                "compile_s": programs[i].compile_s,
                "memory_mb": programs[i].memory_mb,
            }
        )
    return rows


def learning(config: ConfigDict) -> Program:
    experiment = importlib.import_module(f"experiments.{config.experiment}")
    return training(experiment.build(config, data=noise(config)), config.train.batch_size)


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
