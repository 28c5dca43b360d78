"""Checkpoints: atomic, checksummed, the newest few of a run."""

import json
import sys
import warnings
import zlib
from pathlib import Path
from typing import Any, NamedTuple

import absl.logging
import jax
import numpy as np
import orbax.checkpoint as ocp

from objcentric.errors import UserError
from objcentric.training import writer

CHECKSUMS = "checksums.json"  # in a checkpoint's folder: of its files, for Orbax does not notice a flipped bit


class Restored(NamedTuple):
    step: int
    tree: Any  # of the structure of the template, with numpy leaves


class Checkpoints:
    """The folder ``folder`` of checkpoints, of which the newest ``kept``, at least 1, stay."""

    def __init__(self, folder: Path, kept: int):
        absl.logging.set_verbosity(absl.logging.ERROR)  # Orbax tells of every save
        self._folder = folder.absolute()
        self._manager = ocp.CheckpointManager(
            self._folder,
            options=ocp.CheckpointManagerOptions(
                max_to_keep=kept, enable_async_checkpointing=False, cleanup_tmp_directories=True
            ),
        )

    def save(self, step: int, tree: Any) -> None:
        """Writes ``tree``, whose leaves are arrays, numbers or PRNG keys, unless ``step`` is there already."""
        if step not in self._manager.all_steps():
            self._manager.save(step, args=ocp.args.StandardSave(_flatten(tree)))
            folder = self._folder / str(step)
            writer.write_json(folder / CHECKSUMS, _checksums(folder))

    def restore(self, template: Any) -> Restored | None:
        """The newest readable checkpoint; None if there are no checkpoints at all.

        Unreadable ones are renamed ``corrupt_<step>``, so that training can save that step again.

        Raises:
          UserError: none is readable, or its leaves are not those of ``template``.
        """
        broken = []
        for step in sorted(self._manager.all_steps(), reverse=True):
            try:
                arrays = self._read(step)
            except Exception:  # Orbax and TensorStore raise all kinds
                broken.append(step)
                continue
            tree = self._unflatten(step, arrays, template)
            for bad in broken:
                print(f"checkpoint {self._folder / str(bad)} is damaged: going on from step {step}", file=sys.stderr)
                self._put_aside(bad)
            return Restored(step, tree)
        if broken:
            raise UserError(f"no checkpoint in {self._folder} is readable: remove that folder to train from the start")
        return None

    def newest(self) -> Path | None:
        """Folder of the newest checkpoint."""
        step = self._manager.latest_step()
        return None if step is None else self._folder / str(step)

    def _read(self, step: int) -> dict[str, np.ndarray]:
        folder = self._folder / str(step)
        checksums = folder / CHECKSUMS  # missing if the run was killed just after Orbax was done
        if checksums.exists() and json.loads(checksums.read_text()) != _checksums(folder):
            raise ValueError("wrong checksums")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Orbax misses the shardings, which are chosen anew
            restored = self._manager.restore(step, args=ocp.args.StandardRestore())
        return {name: np.asarray(array) for name, array in restored.items()}

    def _unflatten(self, step: int, arrays: dict[str, np.ndarray], template: Any) -> Any:
        expected = _flatten(template)
        for name in expected.keys() | arrays.keys():
            there, here = (_describe(a.get(name)) for a in (arrays, expected))
            if there != here:
                raise UserError(
                    f"checkpoint {self._folder / str(step)} does not fit: {name} is {there} there, {here} here;"
                    " use the code and data that it was made with, or another --workdir"
                )

        def leaf(path: tuple, value: Any) -> Any:
            array = arrays.get(_name(path), np.asarray(value) if not _is_key(value) else None)
            return jax.random.wrap_key_data(array, impl=jax.random.key_impl(value)) if _is_key(value) else array

        return jax.tree.map_with_path(leaf, template)

    def _put_aside(self, step: int) -> None:
        source = self._folder / str(step)
        target, count = self._folder / f"corrupt_{step}", 1
        while target.exists():
            target, count = self._folder / f"corrupt_{step}_{count}", count + 1
        source.rename(target)
        self._manager.reload()


def _flatten(tree: Any) -> dict[str, np.ndarray]:
    """Copies of the leaves by name; empty ones, which Orbax refuses, are left out."""
    leaves = jax.tree.leaves_with_path(tree)
    data = [(_name(path), jax.random.key_data(leaf) if _is_key(leaf) else leaf) for path, leaf in leaves]
    return {name: np.array(leaf) for name, leaf in data if np.size(leaf)}


def _name(path: tuple) -> str:
    return jax.tree_util.keystr(path, simple=True, separator=".")


def _is_key(leaf: Any) -> bool:
    return isinstance(leaf, jax.Array) and jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _describe(array: np.ndarray | None) -> str:
    return "missing" if array is None else f"{array.dtype}{list(array.shape)}"


def _checksums(folder: Path) -> dict[str, int]:
    files = [path for path in sorted(folder.rglob("*")) if path.is_file() and not path.name.startswith(CHECKSUMS)]
    return {str(path.relative_to(folder)): zlib.crc32(path.read_bytes()) for path in files}
