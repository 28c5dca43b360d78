"""What a run writes down: metrics as it goes, JSON and pictures, each whole or not at all."""

import json
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from PIL import Image
from tensorboardX import SummaryWriter

FRAME_MS = 250  # of an animation


class Writer:
    """Appends to ``metrics.jsonl`` and to TensorBoard events, one run there a seed.

    A row of metrics.jsonl holds step, seconds (of training so far) and figures; those of the validation split are
    called ``valid/...``. The value of a figure is a list over seeds, unless there is just one seed. Rows beyond
    ``step``, left by a run that was killed, are dropped, so that in the end the file is that of an uninterrupted run.
    """

    def __init__(self, folder: Path, seeds: Sequence[int], step: int):
        self._path = folder / "metrics.jsonl"
        rows = [row for row in read_metrics(self._path) if row["step"] <= step]
        _write(self._path, "".join(_line(row) for row in rows).encode())
        self._file = self._path.open("a")
        names = [f"tensorboard/seed_{seed}" for seed in seeds]
        self._events = [SummaryWriter(str(folder / name), purge_step=step + 1) for name in names]

    def write(self, step: int, seconds: float, figures: Mapping[str, Sequence]) -> None:
        """Figures as of ``step``, each a sequence over seeds."""
        figures = {name: to_json(values) for name, values in figures.items()}
        row = {name: values if len(values) > 1 else values[0] for name, values in figures.items()}
        self._file.write(_line({"step": step, "seconds": round(seconds, 3), **row}))
        self._file.flush()
        for name, values in figures.items():
            for events, value in zip(self._events, values, strict=True):
                if isinstance(value, int | float):
                    events.add_scalar(name, value, step)

    def sync(self) -> None:
        """Returns when all that was written is on the disk."""
        self._file.flush()
        os.fsync(self._file.fileno())

    def close(self) -> None:
        self._file.close()
        for events in self._events:
            events.close()


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """Rows of a metrics.jsonl, but for a line that was cut off; none if there is no file."""
    lines = path.read_text().splitlines(keepends=True) if path.exists() else []
    return [json.loads(line) for line in lines if line.endswith("}\n")]


def write_json(path: Path, content: Any) -> None:
    """Replaces the file in one go; a number that is not finite becomes null."""
    _write(path, (json.dumps(to_json(content), indent=1) + "\n").encode())


def write_figure(path: Path, figure: Figure | np.ndarray) -> None:
    """Replaces ``path`` in one go: a figure's PNG, or the GIF of frames uint8 ``[T, H, W, 3]``."""
    path.parent.mkdir(exist_ok=True)
    temporary = path.with_name(path.name + ".tmp")
    if isinstance(figure, np.ndarray):
        path = path.with_suffix(".gif")
        first, *rest = (Image.fromarray(frame) for frame in figure)
        first.save(temporary, format="gif", save_all=True, append_images=rest, duration=FRAME_MS, loop=0)
    else:
        figure.savefig(temporary, format="png")
    os.replace(temporary, path)


def to_json(value: Any) -> Any:
    """``value`` as dicts, lists, finite numbers, strings and None."""
    if isinstance(value, Mapping):
        return {str(key): to_json(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [to_json(item) for item in value]
    if hasattr(value, "tolist"):
        return to_json(np.asarray(value).tolist())
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _line(row: dict[str, Any]) -> str:
    return json.dumps(row) + "\n"


def _write(path: Path, content: bytes) -> None:
    temporary = path.with_name(path.name + ".tmp")
    with temporary.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)
