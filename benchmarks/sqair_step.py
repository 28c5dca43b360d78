"""How SQAIR's training step grows with the frames of a sequence and with the slots for objects.

  python -m benchmarks.sqair_step            # configs/sqair.py with 3, 5 and 10 frames; with 2, 3, 4 and 6 slots
  python -m benchmarks.sqair_step --no-conv  # without the convolutional networks, which take minutes
  python -m benchmarks.sqair_step --write    # and writes the table to benchmarks/sqair_step.md

The step is the one that training runs: batch, gradient, Adam, guard; but on one device, whereas training divides the
CPU into train.cpu_devices. Settings take turns, so that a slow moment of the machine slows all alike; a ratio is the
median over the turns, a time the best of them.
"""

import argparse
import datetime
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from ml_collections import ConfigDict

from benchmarks.program import Program, table, take_turns, training
from configs import sqair as sqair_config
from experiments import sqair
from objcentric.data.loader import Data
from objcentric.training import machine

CONV_TURNS = 2  # of the convolutional networks, at most
README = Path(__file__).parent / "sqair_step.md"
HEADER = """# SQAIR's training step

Written by `python -m benchmarks.sqair_step --write` on {date}: {machine}.

`configs/sqair.py` on sequences of T frames with N slots for objects: K = {particles} particles, batch {batch}, canvas
{canvas}; 'conv' is the model of `configs/sqair.py:conv` in the same training. All of it is on one device, whereas
training divides the CPU into train.cpu_devices={cpu_devices}. Settings take turns, {turns} of them ('conv' at most
{conv_turns}); times are the best, ratios (to the first row) the median. Memory is what the compiled program, a scan
over frames and slots, holds, its arguments included.

{table}
"""
COLUMNS = {
    "network": ("network", ""),
    "frames": ("T", ""),
    "objects": ("N", ""),
    "steps_per_s": ("steps/s", ".2f"),
    "ms_per_step": ("ms/step", ".0f"),
    "ms_per_frame": ("ms/step and frame", ".1f"),
    "ms_per_slot": ("ms/step and slot", ".1f"),
    "ratio": ("time, relative", ".2f"),
    "ratio_per_frame": ("per frame, relative", ".2f"),
    "compile_s": ("compiled in, s", ".0f"),
    "memory_mb": ("memory, MB", ".0f"),
}


class Setting(NamedTuple):
    """Of a training step."""

    frames: int  # T
    objects: int  # N, slots
    network: str = "mlp"  # or 'conv'


SETTINGS = [Setting(frames, 3) for frames in (3, 5, 10)] + [Setting(3, objects) for objects in (2, 4, 6)]
SETTINGS.append(Setting(3, 3, "conv"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="write the table to benchmarks/sqair_step.md")
    parser.add_argument("--turns", type=int, default=9, help="how often each setting is timed")
    parser.add_argument("--conv", action=argparse.BooleanOptionalAction, default=True, help="whether to time 'conv'")
    arguments = parser.parse_args()

    settings = [setting for setting in SETTINGS if arguments.conv or setting.network != "conv"]
    config = sqair_config.get_config()
    page = HEADER.format(
        date=datetime.date.today(),
        machine=machine.describe(),
        particles=config.objective.num_particles,
        batch=config.train.batch_size,
        canvas=" x ".join(map(str, config.data.canvas)),
        cpu_devices=config.train.cpu_devices,
        turns=arguments.turns,
        conv_turns=CONV_TURNS,
        table=table(COLUMNS, measure(settings, arguments.turns)),
    )
    print(page)
    if arguments.write:
        README.write_text(page)


def measure(settings: Sequence[Setting], turns: int) -> list[dict[str, float]]:
    """Figures of each setting, by the names in `COLUMNS`; ratios are to the first one."""
    programs = [prepare(setting) for setting in settings]
    best, ratio = take_turns(programs, turns, [CONV_TURNS if s.network == "conv" else turns for s in settings])
    return [
        {
            **setting._asdict(),
            "steps_per_s": 1 / best[i],
            "ms_per_step": 1e3 * best[i],
            "ms_per_frame": 1e3 * best[i] / setting.frames,
            "ms_per_slot": 1e3 * best[i] / setting.objects,
            "ratio": ratio[i],
            "ratio_per_frame": ratio[i] * settings[0].frames / setting.frames,
            "compile_s": program.compile_s,
            "memory_mb": program.memory_mb,
        }
        for i, (setting, program) in enumerate(zip(settings, programs, strict=True))
    ]


def prepare(setting: Setting) -> Program:
    """Compiles the training step of a setting, with its state and data on the first device."""
    config = sqair_config.get_config()
    if setting.network == "conv":
        config.model = sqair_config.get_config("conv").model
    config.model.num_objects = setting.objects
    config.evaluate.given_frames = config.curriculum.first_frames = 1
    config.evaluate.addition_steps = 0  # noise has no labels
    experiment = sqair.build(config, data=noise(config, setting.frames))
    return training(experiment, config.train.batch_size)


def noise(config: ConfigDict, frames: int) -> Data:
    """Random sequences: the time of a step does not depend on what they show."""
    shape = (64, frames, *config.data.canvas, 1)
    split = {"image": np.random.default_rng(0).integers(0, 256, shape, np.uint8)}
    return Data(split, split, split)


if __name__ == "__main__":
    main()
