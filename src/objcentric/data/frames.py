"""A store of decoded frames: of each video one array on disk, made once, of which windows are read as they are needed.

A frame of H x W pixels and C channels takes H * W * C bytes (230 kB at 240x320 in colour), however well the video was
compressed. Frames are the same for any cut into windows, so that experiments share them.
"""

import json
import math
import os
import tempfile
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image
from tqdm import tqdm

from objcentric.data import cache, video
from objcentric.errors import UserError

_VERSION = 1  # to be raised when the same video gives other frames
_CHUNK = 64  # images that a worker decodes at a time


class Frames(NamedTuple):
    """The F frames of a video."""

    numbers: np.ndarray  # int64 [F], rising, as `video.Video.numbers`
    height: int  # of a frame before it was resized, pixels
    width: int
    pixels: np.ndarray  # uint8 [F, H, W, C], a memory map; C is 1 or 3


def prepare(
    paths: Sequence[str | Path], size: tuple[int, int], *, grey: bool = False, cache_dir: str = ""
) -> list[Frames]:
    """All frames of what `video.open` opens, resized to ``size`` (H, W), from the cache folder where they are there.

    Otherwise worker processes decode them: folders of images piece by piece, files of videos each from its beginning
    to its end, after it was counted. No video is ever in memory. What is kept is found again by settings and files.

    Raises UserError if a video cannot be opened, a frame cannot be read or is of another size, or the disk is full.
    """
    root, shape = cache.folder(cache_dir) / "frames", (*size, 1 if grey else 3)
    paths = [Path(path).expanduser().absolute() for path in paths]
    folders = [root / _name(path, shape) for path in paths]
    missing = {folder: path for folder, path in zip(folders, paths, strict=True) if not folder.exists()}
    if missing:
        _decode(missing, root, shape)
    return [_load(folder, shape) for folder in folders]


def resize(frame: np.ndarray, shape: tuple[int, int, int]) -> np.ndarray:
    """uint8 ``[*shape]``, grey where the last side is 1, of uint8 ``[H, W, 3]``: the mean of what each pixel covers."""
    image = Image.fromarray(frame)
    if shape[2] == 1:
        image = image.convert("L")
    shrinks = shape[0] <= frame.shape[0] and shape[1] <= frame.shape[1]
    image = image.resize(shape[1::-1], Image.Resampling.BOX if shrinks else Image.Resampling.BILINEAR)
    return np.asarray(image).reshape(shape)


def _name(path: Path, shape: tuple[int, int, int]) -> str:
    return f"{path.stem}_{'x'.join(map(str, shape))}_{cache.digest(path, _VERSION)}"


def _load(folder: Path, shape: tuple[int, int, int]) -> Frames:
    try:
        about = json.loads((folder / "about.json").read_text())
        pixels = np.load(folder / "frames.npy", mmap_mode="r")
        out = Frames(np.array(about["numbers"], np.int64), about["height"], about["width"], pixels)
        if pixels.shape != (len(out.numbers), *shape) or pixels.dtype != np.uint8:
            raise ValueError(f"frames.npy is {pixels.dtype} of shape {pixels.shape}")
    except (OSError, ValueError, KeyError, TypeError, EOFError) as error:
        raise cache.damaged(folder, error) from error
    return out


def _decode(missing: dict[Path, Path], root: Path, shape: tuple[int, int, int]) -> None:
    """Makes the folders of the videos at the given paths; each appears when it is complete."""
    try:
        root.mkdir(parents=True, exist_ok=True)
        scratch = tempfile.TemporaryDirectory(prefix="incomplete.", dir=root, ignore_cleanup_errors=True)
    except OSError as error:
        raise cache.unwritable(root, error) from error
    # Processes that are forked from one with threads, such as jax has, may hang.
    with scratch, ProcessPoolExecutor(mp_context=get_context("spawn")) as pool:
        try:
            opened = dict(zip(missing, pool.map(video.open, missing.values()), strict=True))
            with tqdm(
                desc="preparing frames", total=sum(v.num_frames for v in opened.values()), leave=False, disable=None
            ) as bar:
                work, left = {}, {}
                for folder, source in opened.items():
                    aside = Path(scratch.name) / folder.name
                    offset = _allocate(aside, source, shape)
                    pieces = _pieces(source)
                    left[folder] = len(pieces)
                    for piece in pieces:
                        work[pool.submit(_write, aside / "frames.npy", offset, source, piece, shape)] = folder
                for future in as_completed(work):
                    bar.update(future.result())
                    folder = work[future]
                    left[folder] -= 1
                    if not left[folder]:
                        _move(Path(scratch.name) / folder.name, folder)
        except BrokenProcessPool as error:
            raise UserError(
                "a process that decodes frames was ended, by a shortage of memory perhaps: start again (a script of "
                "your own must have its calls below if __name__ == '__main__')"
            ) from error
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _allocate(folder: Path, source: video.Video, shape: tuple[int, int, int]) -> int:
    """Makes the files of a video whose frames are still to be written; at which byte of frames.npy the first begins."""
    about = {"numbers": source.numbers.tolist(), "height": source.height, "width": source.width}
    try:
        folder.mkdir()
        (folder / "about.json").write_text(json.dumps(about))
        return np.lib.format.open_memmap(folder / "frames.npy", "w+", np.uint8, (source.num_frames, *shape)).offset
    except OSError as error:
        raise cache.unwritable(folder.parent, error) from error


def _pieces(source: video.Video) -> list[range]:
    whole = range(source.num_frames)
    step = len(whole) if source.path.is_file() else _CHUNK  # a file cannot be read from its middle
    return [whole[first : first + step] for first in whole[::step]]


def _write(file: Path, offset: int, source: video.Video, indices: range, shape: tuple[int, int, int]) -> int:
    """Decodes some frames, in a worker process; how many.

    They are written, not mapped to memory: on a full disk a map would end the process without a word.
    """
    try:
        with open(file, "r+b") as opened:
            opened.seek(offset + indices.start * math.prod(shape))
            for frame in source.frames(indices):
                opened.write(resize(frame, shape).tobytes())
    except OSError as error:
        raise cache.unwritable(file.parent.parent.parent, error) from error
    return len(indices)


def _move(aside: Path, folder: Path) -> None:
    try:
        os.rename(aside, folder)
    except OSError as error:
        if not folder.is_dir():  # else another process was faster
            raise cache.unwritable(folder.parent, error) from error
