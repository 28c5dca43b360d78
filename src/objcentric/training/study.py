"""Studies: experiments that measure instead of training, with a run's folder like any other."""

import json
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from matplotlib.figure import Figure
from ml_collections import ConfigDict
from tqdm import tqdm

from objcentric.training import machine, workdir, writer
from objcentric.training.summary import summarize

_Item = TypeVar("_Item")


class Result(NamedTuple):
    """What a study has measured."""

    per_seed: dict[int, dict[str, Any]]  # of each seed its figures: numbers, lists and dicts by name
    pictures: dict[str, Figure]
    steps: int = 0  # of training of each seed, if there is any


def run(config: ConfigDict, path: str | Path, study: Callable[[ConfigDict, Path], Result]) -> dict[str, Any]:
    """Measures, draws, and last of all writes eval.json.

    Args:
      path: the run's folder, described in the README.
      study: ``(config, folder) -> Result``; what it keeps in the folder spares it work if it was stopped.

    Returns:
      The content of eval.json.

    Raises:
      UserError: config or folder are wrong, or another process is at work in the folder.
    """
    with workdir.claim(path, config) as folder:
        if finished := workdir.evaluation(folder):
            print(f"{folder} is finished: figures in {folder / 'eval.json'}")
            return finished
        machine.use_compilation_cache()
        clock = _Clock(folder / "elapsed.json")
        try:
            result = study(config, folder)
        except (KeyboardInterrupt, SystemExit):
            clock.keep()
            raise
        for name, picture in result.pictures.items():
            writer.write_figure(folder / "figures" / f"{name}.png", picture)
        content = summarize(list(result.per_seed), list(result.per_seed.values()), {}, judged=False) | {
            "steps": result.steps,
            **clock.seconds(),
            **machine.provenance(),
        }
        writer.write_json(folder / "eval.json", content)
    print(f"{folder / 'eval.json'}: figures of {len(result.per_seed)} seed{'s' * (len(result.per_seed) > 1)}")
    return content


class _Clock:
    """Seconds of a study over all its starts, but for those that were killed."""

    def __init__(self, path: Path):
        self._path = path
        self._before = json.loads(path.read_text()) if path.exists() else {"wall_seconds": 0.0, "cpu_seconds": 0.0}
        self._start = {"wall_seconds": time.perf_counter(), "cpu_seconds": time.process_time()}

    def seconds(self) -> dict[str, float]:
        now = {"wall_seconds": time.perf_counter(), "cpu_seconds": time.process_time()}
        return {name: round(self._before[name] + now[name] - self._start[name], 3) for name in now}

    def keep(self) -> None:
        writer.write_json(self._path, self.seconds())


def track(items: Iterable[_Item], total: int, name: str) -> Iterator[_Item]:
    """``items``, with a progress bar; where there is no terminal, with ten lines."""
    if sys.stderr.isatty():
        yield from tqdm(items, name, total, dynamic_ncols=True)
        return
    start = time.perf_counter()
    for done, item in enumerate(items, 1):
        yield item
        if done * 10 // total > (done - 1) * 10 // total:
            took = time.perf_counter() - start
            left = tqdm.format_interval(took / done * (total - done))
            print(f"{name} {done}/{total}, {left} left", file=sys.stderr, flush=True)
