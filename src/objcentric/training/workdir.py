"""A run's folder: made for one config and for no other, and used by one process at a time."""

import json
import math
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, Any

from ml_collections import ConfigDict

from objcentric.errors import UserError
from objcentric.training import writer

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None


@contextmanager
def claim(path: str | Path, config: ConfigDict, *, resume_only: bool = False) -> Iterator[Path]:
    """The run's folder, made if need be, with ``config`` in its config.json; until the end of the context it is ours.

    With ``resume_only`` a folder without checkpoints is an error, and its config stays; fields ``evaluate`` may differ.

    Raises:
      UserError: nothing can be written there, it belongs to a run with another config, another process is at work in
        it, or it holds no checkpoint; or a number of ``config`` is not finite.
    """
    folder = Path(path)
    ours = json.loads(config.to_json_best_effort())
    for name, value in _fields(ours).items():
        if isinstance(value, float) and not math.isfinite(value):
            raise UserError(f"{name}={value}: use a finite number")
    checkpoints = folder / "checkpoints"
    if resume_only and not any(step.name.isdigit() for step in checkpoints.glob("*")):
        raise UserError(f"{folder} holds no checkpoint to evaluate: train first, or choose another --workdir")
    with ExitStack() as held:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            _lock(held.enter_context((folder / ".lock").open("w")), folder)
            theirs = _read(folder / "config.json")
            # If nothing was done yet, the run was refused, and its config may be mended.
            began = checkpoints.exists() or (folder / "eval.json").exists()
            if began and theirs is None:
                raise UserError(f"{folder} holds a run of an unknown config, without config.json: choose another")
            passing = ("evaluate.",) if resume_only else ()  # a run may be evaluated in other ways
            if began and (differences := _differences(theirs, ours, passing)):
                raise UserError(f"{folder} holds a run with {'; '.join(differences)}: choose another --workdir")
            if not resume_only:
                writer.write_json(folder / "config.json", ours)
        except OSError as error:
            raise UserError(f"cannot write to --workdir={folder} ({error.strerror}): choose another") from error
        yield folder


def evaluation(folder: Path) -> dict[str, Any] | None:
    """The content of eval.json; None if there is none."""
    return _read(folder / "eval.json")


def read_config(folder: Path) -> ConfigDict:
    """The config of the run in ``folder``; UserError if there is none."""
    config = _read(folder / "config.json")
    if config is None:
        raise UserError(f"{folder} holds no run: it has no config.json")
    return ConfigDict(_tuples(config))


def _tuples(tree: Any) -> Any:
    """JSON has lists for the tuples of a config."""
    if isinstance(tree, dict):
        return {name: _tuples(value) for name, value in tree.items()}
    return tuple(map(_tuples, tree)) if isinstance(tree, list) else tree


def _lock(file: IO, folder: Path) -> None:
    """Locks the file until it is closed, or until its process ends in whatever way."""
    if fcntl is None:
        return
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise UserError(f"another process is at work in {folder}: wait for it, or choose another --workdir") from error
    except OSError:  # a file system without locks
        return


def _read(path: Path) -> dict[str, Any] | None:
    try:
        return json.loads(path.read_text()) if path.exists() else None
    except ValueError as error:
        raise UserError(f"{path} is not JSON ({error}): remove it, or choose another --workdir") from error


def _differences(theirs: dict[str, Any], ours: dict[str, Any], passing: tuple[str, ...]) -> list[str]:
    there, here = _fields(theirs), _fields(ours)
    names = [name for name in here | there if there.get(name, "absent") != here.get(name, "absent")]
    names = [name for name in names if not name.startswith(passing)]
    return [f"{name}={there.get(name, 'absent')}, not {here.get(name, 'absent')}" for name in names]


def _fields(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    fields = {}
    for name, value in tree.items():
        fields |= _fields(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: value}
    return fields
