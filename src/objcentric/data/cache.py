"""The folder where downloads, prepared data sets and compiled programs are kept."""

import hashlib
import json
import os
from pathlib import Path
from typing import Any

from objcentric.errors import UserError


def root(cache_dir: str = "") -> Path:
    """``cache_dir``, else $OBJCENTRIC_CACHE, else ~/.cache/objcentric."""
    return Path(cache_dir or os.environ.get("OBJCENTRIC_CACHE") or "~/.cache/objcentric").expanduser()


def folder(cache_dir: str = "") -> Path:
    """Creates and returns the `root`; UserError if it cannot be written."""
    path = root(cache_dir)
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise unwritable(path, error) from error
    if not os.access(path, os.W_OK | os.X_OK):
        raise unwritable(path, PermissionError("permission denied"))
    return path


def digest(path: Path, *settings: Any) -> str:
    """16 digits that change with settings and with the files at ``path``: their names, sizes and times of change."""
    files = sorted(path.rglob("*")) if path.is_dir() else [path]
    state = [(str(f), f.stat().st_size, f.stat().st_mtime_ns) for f in files if f.is_file()]
    return hashlib.sha256(json.dumps([*settings, state], sort_keys=True).encode()).hexdigest()[:16]


def unwritable(path: Path, error: Exception) -> UserError:
    advice = "name another folder by data.cache_dir or $OBJCENTRIC_CACHE"
    return UserError(f"cannot write {path} ({_first_line(error)}): {advice}")


def damaged(path: Path | str, error: Exception) -> UserError:
    return UserError(f"prepared data in {path} are damaged ({_first_line(error)}): delete that folder")


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]
