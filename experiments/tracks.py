"""Trackers side by side on the same sequences (figures 4.3, 4.4, 4.6 and 4.7 of the thesis).

python -m experiments.tracks --run=HART=runs/hart --run=MOHART=runs/mohart --output=runs/tracks

A picture for each sequence and way of showing it: all frames, some black ones, or black ones after the first two; what
is black for trackers is dark here. In toy worlds, whose next frames are predicted, true places are discs. Numbers at
the others of the chosen object, on yellow, are the weights with which MOHART listens to them.
"""

import argparse
import sys
from pathlib import Path

import jax
import numpy as np
from ml_collections import ConfigDict

from experiments import hart
from objcentric import plots_tracking
from objcentric.data import loader
from objcentric.errors import UserError
from objcentric.training import workdir, writer
from objcentric.training.restore import Run, restore_run


def main(argv: list[str] | None = None) -> int:
    """Command line; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", action="append", required=True, help="NAME=FOLDER of a run of a tracker; one or more")
    parser.add_argument("--output", required=True, help="folder of the pictures")
    parser.add_argument("--sequences", type=int, default=3, help="how many to show")
    parser.add_argument("--of", type=int, default=1, help="number of the object whose listening is shown, from 1")
    arguments = parser.parse_args(argv)
    output = Path(arguments.output)
    try:
        runs = {name: restore(name, folder) for name, folder in map(named, arguments.run)}
        first = next(iter(runs.values()))
        check(runs, arguments)
        output.mkdir(parents=True, exist_ok=True)
    except (UserError, OSError) as error:
        print(f"objcentric: {error}", file=sys.stderr)
        return 2
    for mode in hart.modes(first.config):
        for i, figure in enumerate(draw(runs, mode, arguments.sequences, arguments.of - 1), 1):
            writer.write_figure(output / f"{mode}_{i}.png", figure)
    print(f"pictures in {output}")
    return 0


def named(argument: str) -> tuple[str, str]:
    name, equals, folder = argument.partition("=")
    if not (name and equals and folder):
        raise UserError(f"--run={argument} should read NAME=FOLDER")
    return name, folder


def restore(name: str, folder: str) -> Run:
    theirs = workdir.read_config(Path(folder)).experiment
    if theirs != "hart":
        raise UserError(
            f"--run={name}={folder} holds a run of {theirs}: name one of configs/mohart.py or mohart_toy.py"
        )
    return restore_run(folder, hart.build)


def check(runs: dict[str, Run], arguments: argparse.Namespace) -> None:
    """UserError where the runs have not the same data, or the rest asks for what is not there."""
    (name, first), *others = runs.items()
    for other, run in others:
        if _shown(run.config) != _shown(first.config):
            raise UserError(f"the runs {name} and {other} have other data or task.ahead: train both on the same")
    size, objects = loader.size(first.experiment.data.test), first.config.data.num_objects
    for field, value, most in (("sequences", arguments.sequences, size), ("of", arguments.of, objects)):
        if not 1 <= value <= most:
            raise UserError(f"--{field}={value}: use 1 to {most}")


def _shown(config: ConfigDict) -> dict:
    """What a run is shown: fields of config.data, but those that say where examples are kept, and task.ahead."""
    fields = {name: value for name, value in config.data.items() if name not in ("cache_dir", "device_bytes")}
    return fields | {"ahead": config.task.ahead}


def draw(runs: dict[str, Run], mode: str, number: int, of: int) -> list:
    """A figure of each of the first ``number`` test sequences, shown in a ``mode`` of `hart.modes`."""
    first = next(iter(runs.values()))
    rows, keys = loader.take(first.experiment.data.test, range(number)), jax.random.split(jax.random.key(0), number)
    number_of = hart.MODES.index(mode)
    looked = {
        name: jax.device_get(hart.looker(run.config)(run.params, rows, keys, number_of)) for name, run in runs.items()
    }
    ahead, figures = first.config.task.ahead, []
    for i in range(number):
        trackers = []
        for name, clips in looked.items():
            clip = jax.tree.map(lambda leaf: leaf[i], clips)  # noqa: B023
            seen = clip["seen"]
            weights = seen.weights if np.size(seen.weights) else None
            said = hart.notes(clip, ahead)
            trackers.append(plots_tracking.Tracker(name, seen.boxes, seen.attention, weights, said))
        true, there = clip["true"][ahead:], clip["there"][ahead:]
        picture = plots_tracking.comparison(hart.dimmed(clip), true, there, trackers, of=of, discs=ahead > 0)
        figures.append(picture)
    return figures


if __name__ == "__main__":
    sys.exit(main())
