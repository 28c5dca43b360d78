"""A run's folder: made for one config, and for no other."""

import json
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from objcentric.errors import UserError
from objcentric.training import writer


def claim(path: str | Path, config: ConfigDict) -> Path:
    """The run's folder, made if need be, with ``config`` in its config.json.

    Raises:
      UserError: nothing can be written there, or it belongs to a run with another config.
    """
    folder = Path(path)
    ours = json.loads(config.to_json_best_effort())
    try:
        folder.mkdir(parents=True, exist_ok=True)
        theirs = _read(folder / "config.json")
        began = (folder / "checkpoints").exists()  # if not, the run was refused, and its config may be mended
        if began and theirs is None:
            raise UserError(f"{folder} holds checkpoints of an unknown config, without config.json: choose another")
        if began and (differences := _differences(theirs, ours)):
            raise UserError(f"{folder} holds a run with {'; '.join(differences)}: choose another --workdir")
        writer.write_json(folder / "config.json", ours)
    except OSError as error:
        raise UserError(f"cannot write to --workdir={folder} ({error.strerror}): choose another") from error
    return folder


def evaluation(folder: Path) -> dict[str, Any] | None:
    """The content of eval.json; None if there is none."""
    return _read(folder / "eval.json")


def _read(path: Path) -> dict[str, Any] | None:
    try:
        return json.loads(path.read_text()) if path.exists() else None
    except ValueError as error:
        raise UserError(f"{path} is not JSON ({error}): remove it, or choose another --workdir") from error


def _differences(theirs: dict[str, Any], ours: dict[str, Any]) -> list[str]:
    there, here = _fields(theirs), _fields(ours)
    names = [name for name in here | there if there.get(name, "absent") != here.get(name, "absent")]
    return [f"{name}={there.get(name, 'absent')}, not {here.get(name, 'absent')}" for name in names]


def _fields(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    fields = {}
    for name, value in tree.items():
        fields |= _fields(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: value}
    return fields
