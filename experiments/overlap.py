"""AIR and SQAIR side by side on sequences in which digits overlap most (figure 5.4.4 of the thesis, less its glimpses).

python -m experiments.overlap --air=runs/air_moving --sqair=runs/sqair --output=runs/overlap
"""

import argparse
import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from experiments import air, sequences, sqair
from objcentric import plots_sequences
from objcentric.errors import UserError
from objcentric.metrics.boxes import iou
from objcentric.models import air as air_model
from objcentric.models import sqair as sqair_model
from objcentric.plots_sequences import Strip
from objcentric.training import workdir, writer
from objcentric.training.restore import Run, restore_run


def main(argv: list[str] | None = None) -> int:
    """Command line; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--air", required=True, help="folder of a run of configs/air_moving.py")
    parser.add_argument("--sqair", required=True, help="folder of a run of configs/sqair.py, on the same data")
    parser.add_argument("--output", required=True, help="folder of the pictures")
    parser.add_argument("--sequences", type=int, default=3, help="how many to show")
    arguments = parser.parse_args(argv)
    folder = Path(arguments.output)
    try:
        if arguments.sequences < 1:
            raise UserError(f"--sequences={arguments.sequences}: show at least 1")
        for name in ("air", "sqair"):
            theirs = workdir.read_config(Path(getattr(arguments, name))).experiment
            if theirs != name:
                raise UserError(f"--{name}={getattr(arguments, name)} holds a run of {theirs}: name one of {name}")
        per_frame, tracked = restore_run(arguments.air, air.build), restore_run(arguments.sqair, sqair.build)
        split = tracked.experiment.data.test
        if not np.array_equal(per_frame.experiment.data.test["image"], np.concatenate(split["image"])):
            raise UserError(f"{arguments.air} and {arguments.sqair} have other data: train both on the same")
        if "boxes" not in split:
            raise UserError("the data do not say where objects are, so none are known to overlap: use moving digits")
        image = split["image"][overlapping(split, arguments.sequences)]
        folder.mkdir(parents=True, exist_ok=True)
    except (UserError, OSError) as error:
        print(f"objcentric: {error}", file=sys.stderr)
        return 2
    strips = [
        Strip("input", image),
        Strip("AIR", *look_air(per_frame, image, jax.random.key(0))),
        Strip("SQAIR", *look_sqair(tracked, image, jax.random.key(1))),
    ]
    writer.write_figure(folder / "overlap.png", plots_sequences.filmstrips(strips))
    writer.write_figure(folder / "overlap_film.png", plots_sequences.animation(strips))
    print(f"pictures in {folder}")
    return 0


def overlapping(split: dict[str, np.ndarray], number: int) -> np.ndarray:
    """Rows of the ``number`` sequences whose digits' boxes overlap most, in view, summed over frames; most first."""
    overlap = iou(split["boxes"], split["boxes"]) * (1 - np.eye(split["boxes"].shape[2]))
    in_view = split["visibility"] > 0.5
    overlap *= in_view[..., None] & in_view[..., None, :]
    return np.argsort(-overlap.sum((1, 2, 3)), kind="stable")[:number]


def look_air(run: Run, image: np.ndarray, key: Array) -> tuple[Any, ...]:
    """Means, boxes, presence and slots ``[M, T, ...]`` of sequences ``[M, T, H, W, C]``, of each frame by itself."""
    model = air_model.make(air.model_config(run.config, image.shape[2:]))
    hparams = {name: run.config.model[name].end for name in air.SCHEDULED}

    @jax.jit
    def look(frames: Array, keys: Array) -> tuple[Array, ...]:
        frames, keys = sequences.reader(run.config.model.likelihood)(frames, keys)
        trace = jax.vmap(model.trace, (None, 0, 0, None))(run.params, keys, frames, hparams)
        presence = trace.z["presence"]
        slots = jnp.broadcast_to(jnp.arange(presence.shape[1]), presence.shape)
        return trace.outputs["mean"], trace.outputs["boxes"], presence, slots

    frames = image.reshape(-1, *image.shape[2:])
    seen = jax.device_get(look(frames, jax.random.split(key, len(frames))))
    return tuple(each.reshape(*image.shape[:2], *each.shape[1:]) for each in seen)


def look_sqair(run: Run, image: np.ndarray, key: Array) -> tuple[Any, ...]:
    """Means, boxes, presence and identities ``[M, T, ...]`` of sequences ``[M, T, H, W, C]``."""
    model = sqair_model.make(sqair.model_config(run.config, image.shape[2:], image.shape[1])).model
    hparams = {name: run.config.model[name].end for name in sqair.SCHEDULED}

    @jax.jit
    def look(image: Array, keys: Array) -> tuple[Array, ...]:
        x, keys = sequences.reader(run.config.model.likelihood)(image, keys)
        outputs = jax.vmap(model.trace, (None, 0, 0, None))(run.params, keys, x, hparams).outputs
        return outputs["mean"], outputs["boxes"], outputs["objects"].presence, outputs["identity"]

    return jax.device_get(look(image, jax.random.split(key, len(image))))


if __name__ == "__main__":
    sys.exit(main())
