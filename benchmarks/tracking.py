"""How fast trackers learn and follow, and how both grow with the number of objects.

  python -m benchmarks.tracking          # configs/mohart.py with 1, 5 and 10 objects
  python -m benchmarks.tracking --write  # and writes the table to benchmarks/tracking.md

A training step is that of 5 frames, batch, gradient, optimizer and guard included, on one device. Following is online,
a frame at a time, as `objcentric.track` does it; without decoding and resizing videos, which is not the tracker's.
Settings take turns, so that a slow moment of the machine slows all alike; a ratio is the median over the turns, a time
the best of them.
"""

import argparse
import datetime
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from benchmarks.program import Program, table, take_turns, training
from configs import mohart
from experiments import hart
from objcentric import tracker as trackers
from objcentric.data.loader import Data
from objcentric.training import machine

FRAMES = 5  # of a training sequence, and frames followed per timed call
README = Path(__file__).parent / "tracking.md"
HEADER = """# Trackers

Written by `python -m benchmarks.tracking --write` on {date}: {machine}.

`configs/mohart.py` on frames of {canvas} pixels, glimpses of {glimpse}; batch {batch}, sequences of {frames} frames. A
training step is all that training does, on one device; following is online, frame by frame, as `objcentric.track` does
it, without decoding and resizing the video. Settings take turns, {turns} of them; times are the best, ratios (to one
object) the median. Memory is what the compiled training step holds, its arguments included.

{table}
"""
COLUMNS = {
    "relation": ("relation", ""),
    "objects": ("objects", ""),
    "frames_per_s": ("followed, frames/s", ".0f"),
    "follow_ratio": ("time, relative", ".2f"),
    "steps_per_s": ("training steps/s", ".2f"),
    "train_ratio": ("time, relative", ".2f"),
    "compile_s": ("compiled in, s", ".0f"),
    "memory_mb": ("memory, MB", ".0f"),
}


class Setting(NamedTuple):
    relation: str
    objects: int


SETTINGS = [Setting(relation, objects) for relation in ("none", "attention") for objects in (1, 5, 10)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="write the table to benchmarks/tracking.md")
    parser.add_argument("--turns", type=int, default=7, help="how often each setting is timed")
    arguments = parser.parse_args()

    config = make_config(SETTINGS[0])
    page = HEADER.format(
        date=datetime.date.today(),
        machine=machine.describe(),
        canvas=" x ".join(map(str, config.data.frame_size)),
        glimpse=" x ".join(map(str, config.model.glimpse_size)),
        batch=config.train.batch_size,
        frames=FRAMES,
        turns=arguments.turns,
        table=table(COLUMNS, measure(SETTINGS, arguments.turns)),
    )
    print(page)
    if arguments.write:
        README.write_text(page)


def make_config(setting: Setting) -> ConfigDict:
    config = mohart.get_config()
    config.model.relation = setting.relation
    config.data.update(num_objects=setting.objects, num_frames=FRAMES)
    config.curriculum.update(first_frames=FRAMES, steps=())
    config.task.black_frames = 1
    return config


def measure(settings: Sequence[Setting], turns: int) -> list[dict]:
    """Figures of each setting, by the names in `COLUMNS`; ratios are to the first one."""
    configs = [make_config(setting) for setting in settings]
    learn = [training(hart.build(c, data=noise(c)), c.train.batch_size) for c in configs]
    follow = [following(c) for c in configs]
    (learn_s, learn_ratio), (follow_s, follow_ratio) = (take_turns(programs, turns) for programs in (learn, follow))
    return [
        {
            **setting._asdict(),
            "frames_per_s": 1 / follow_s[i],
            "follow_ratio": follow_ratio[i],
            "steps_per_s": 1 / learn_s[i],
            "train_ratio": learn_ratio[i],
            "compile_s": learn[i].compile_s,
            "memory_mb": learn[i].memory_mb,
        }
        for i, setting in enumerate(settings)
    ]


def following(config: ConfigDict) -> Program:
    """Of a tracker with random parameters, `FRAMES` frames a call, each on its own, on the host in between."""
    tracker, canvas = trackers.make(config, config.data.num_objects)
    params = jax.jit(tracker.init)(jax.random.key(0))
    frame = np.random.default_rng(0).random(canvas, np.float32)
    given = jnp.tile(jnp.asarray([50.0, 60, 90, 80]), (config.data.num_objects, 1))
    state, _ = jax.jit(tracker.start, static_argnums=1)(params, None, frame, given, jnp.ones(len(given)))
    step = jax.jit(tracker.step, static_argnums=1).lower(params, None, state, frame, None).compile()

    def run() -> float:
        nonlocal state
        start = time.perf_counter()
        for _ in range(FRAMES):
            state, seen = step(params, state, frame, None)
            np.asarray(seen.boxes)
        return (time.perf_counter() - start) / FRAMES

    return Program(run, 0.0, 0.0)


def noise(config: ConfigDict) -> Data:
    """Random videos: times do not depend on what they show."""
    rng, num, objects = np.random.default_rng(0), 16, config.data.num_objects
    split = {
        "image": rng.integers(0, 256, (num, FRAMES, *config.data.frame_size, 3), np.uint8),
        "filmed": np.ones((num, FRAMES), np.uint8),
        "boxes": np.tile(np.float32([50, 60, 90, 80]), (num, FRAMES, objects, 1)),
        "presence": np.ones((num, FRAMES, objects), np.uint8),
        "known": np.ones((num, FRAMES, objects), np.uint8),
        "identity": np.ones((num, objects), np.int32),
    }
    return Data(split, split, split)


if __name__ == "__main__":
    main()
