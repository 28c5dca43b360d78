"""Sequences of people who walk past a static camera, without the background (thesis, section 5.4.2, appendix 5.E).

Of a video in inverted colours OpenCV's subtractor (Zivkovic, 2004) keeps what moves, and everything else turns black.
It is made grey and smaller; examples are short sequences of crops at random times and places, each crop staying where
it is. The paper's DukeMTMC was withdrawn by its authors: any video of a static camera will do, and a folder of
MOTChallenge, such as PETS09-S2L1, brings the boxes that counting and tracking are measured with.
"""

import os
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from ml_collections import ConfigDict
from tqdm import tqdm

from objcentric.data import cache, mot, splits, video
from objcentric.data.windows import complete
from objcentric.errors import UserError

FRACTIONS = {"train": (0.0, 0.7), "valid": (0.7, 0.8), "test": (0.8, 1.0)}  # of the frames, in their order
_VERSION = 2  # to be raised when the same config gives other examples
_STRETCH = 1.05  # most by which the sides of frames may shrink differently
_INK = 0.01  # share of a crop that a bright patch fills, at least, to be taken for a person where there are no boxes
_TRIES = 1_000  # crops looked at for each that is wanted
_NOT_IDENTITY = ("name", "path", "cache_dir", "device_bytes")


class Seen(NamedTuple):
    """The objects in view of a sequence of crops, one after another."""

    frame: np.ndarray  # int [n], in 0..T - 1
    identity: np.ndarray  # int [n]
    box: np.ndarray  # float [n, 4], y0, x0, y1, x1 in pixels of the crop
    share: np.ndarray  # float [n], of the box that is in the crop


def prepare(c: ConfigDict) -> dict[str, dict[str, np.ndarray]]:
    """The splits of a validated config.data: of M sequences of T frames each ``image`` uint8 [M, T, H, W, 1].

    Where ``path`` holds boxes there are, with R the most objects of a sequence,

    - ``presence``: uint8 [M, T, R], whether at least ``min_visible`` of an object's box is in the crop;
    - ``count``: int32 [M, T], how many are;
    - ``boxes``: float32 [M, T, R, 4], y0, x0, y1, x1 in pixels of the crop, outside it too; 0 of what is absent;
    - ``visibility``: float32 [M, T, R], the share of the box that is in the crop; 0 of what is absent;
    - ``label``: int32 [M, R], the object's identity in the video, from 1; 0 where there is no object.

    Test sequences are of the last 20% of the frames, those of validation of the 10% before them. All of it is kept in
    the cache folder, under a name that changes with settings and files.

    Raises UserError if the video cannot be read, is too short, or has not enough crops that are asked for.
    """
    path = Path(c.path).expanduser().absolute()
    folder = cache.folder(c.cache_dir) / "pedestrians" / _name(c, path)
    file = folder / "splits.npz"
    if file.exists():
        return _load(file)
    arrays = _make(c, video.open(path), cache.folder(c.cache_dir))
    try:
        folder.mkdir(parents=True, exist_ok=True)
        aside = folder / f"incomplete.{os.getpid()}.npz"
        np.savez_compressed(aside, **{f"{s}/{key}": array for s in arrays for key, array in arrays[s].items()})
        os.replace(aside, file)
    except OSError as error:
        raise cache.unwritable(folder, error) from error
    return arrays


def _name(c: ConfigDict, path: Path) -> str:
    fields = {key: value for key, value in c.items() if key not in _NOT_IDENTITY}
    return f"{path.stem}_{'{}x{}'.format(*c.canvas)}_{cache.digest(path, _VERSION, fields)}"


def _load(file: Path) -> dict[str, dict[str, np.ndarray]]:
    out: dict[str, dict[str, np.ndarray]] = {split: {} for split in splits.SPLITS}
    try:
        with open(file, "rb") as opened, np.load(opened) as arrays:
            for name in arrays.files:
                split, key = name.split("/")
                out[split][key] = arrays[name]
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise cache.damaged(file.parent, error) from error
    return out


def _make(c: ConfigDict, source: video.Video, scratch: Path) -> dict[str, dict[str, np.ndarray]]:
    height, width = _size(c, source)
    windows = {split: _windows(c, source.numbers, split) for split in splits.SPLITS}
    scale = np.array([height / source.height, width / source.width])
    tracks = _tracks(Path(c.path).expanduser(), scale)
    with tempfile.TemporaryFile(dir=scratch) as file:  # on disk, as a video may be long; it has no name to be left over
        try:
            for frame in foreground(source, (height, width), history=c.history, invert=c.invert):
                file.write(frame.tobytes())
            file.flush()
        except OSError as error:
            raise cache.unwritable(scratch, error) from error
        pixels = np.memmap(file, np.uint8, "r", shape=(source.num_frames, height, width))
        chosen = {}
        for i, split in enumerate(splits.SPLITS):
            rng = np.random.default_rng((c.seed, i))
            chosen[split] = _choose(c, c[f"num_{split}"], pixels, source.numbers, windows[split], tracks, rng)
    slots = max(len(np.unique(seen.identity)) for _, many in chosen.values() for seen in many) if tracks else 0
    return {
        split: {"image": image} | (_annotate(many, c.num_frames, max(slots, 1)) if tracks else {})
        for split, (image, many) in chosen.items()
    }


def _size(c: ConfigDict, source: video.Video) -> tuple[int, int]:
    """``frame_size``, where frames are large enough and would not be stretched."""
    height, width = c.frame_size
    factors = source.height / height, source.width / width
    of_frames = f"height and width of frames of {c.path} are ({source.height}, {source.width})"
    if min(factors) < 1:
        raise UserError(
            f"{of_frames}, less than data.frame_size=({height}, {width}): reduce it, and data.canvas if need be"
        )
    if max(factors) > _STRETCH * min(factors):
        fits = tuple(round(side / min(factors)) for side in (source.height, source.width))
        raise UserError(f"{of_frames}, and data.frame_size=({height}, {width}) would stretch them: use {fits}, say")
    return height, width


def foreground(
    source: video.Video, size: tuple[int, int], *, history: int = 500, invert: bool = True
) -> Iterator[np.ndarray]:
    """Of each frame what does not belong to the background, uint8 ``[*size]``, grey; the rest is 0.

    The background is first learnt from as many of the first frames, at most those of the training split, as are in
    ``history``; then it follows the video: what stands still for about a tenth of ``history`` frames belongs to it.
    """
    cv2 = video.opencv()
    subtractor = cv2.createBackgroundSubtractorMOG2(history=history)
    seen = (255 - frame if invert else frame for frame in source)
    first = range(min(history, int(FRACTIONS["train"][1] * source.num_frames)))
    for frame in source.frames(first):
        subtractor.apply(255 - frame if invert else frame)
    for frame in tqdm(seen, "preparing video", source.num_frames, leave=False, disable=None):
        sure = subtractor.apply(frame) == 255  # shadows are 127
        mask = cv2.medianBlur(255 * sure.astype(np.uint8), 5)  # specks go, small holes close
        grey = cv2.bitwise_and(cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY), mask)
        yield cv2.resize(grey, size[::-1], interpolation=cv2.INTER_AREA)


def _windows(c: ConfigDict, numbers: np.ndarray, split: str) -> np.ndarray:
    """Indices int [n, T] of all sequences of frames in one split, ``frame_step`` apart by their numbers."""
    first, end = (round(fraction * len(numbers)) for fraction in FRACTIONS[split])
    windows = first + complete(numbers[first:end], c.num_frames, c.frame_step)
    if not len(windows):
        span = (c.num_frames - 1) * c.frame_step + 1
        share = FRACTIONS[split][1] - FRACTIONS[split][0]
        raise UserError(
            f"{c.path} is too short, or lacks frames: the {split} split has {share:.0%} of its {len(numbers)} frames, "
            f"but no {span} in a row: reduce data.num_frames or data.frame_step"
        )
    return windows


class _Row(NamedTuple):
    """The boxes of a frame."""

    identity: np.ndarray  # int [n]
    box: np.ndarray  # float [n, 4]
    ignore: np.ndarray  # bool [n]


_NOTHING = _Row(np.zeros(0, int), np.zeros((0, 4)), np.zeros(0, bool))


def _tracks(path: Path, scale: np.ndarray) -> dict[int, _Row]:
    """Boxes by the number of their frame, scaled; {} where there are none."""
    file = path / "gt" / "gt.txt"
    if not file.is_file():
        return {}
    boxes = mot.read_boxes(file)
    numbers, first = np.unique(boxes.frame, return_index=True)
    columns = boxes.identity, boxes.box * np.tile(scale, 2), boxes.ignore
    parts = [np.split(column, first[1:]) for column in columns]
    return {int(number): _Row(*row) for number, *row in zip(numbers, *parts, strict=True)}


def _choose(
    c: ConfigDict,
    num: int,
    pixels: np.ndarray,
    numbers: np.ndarray,
    windows: np.ndarray,
    tracks: dict[int, _Row],
    rng: np.random.Generator,
) -> tuple[np.ndarray, list[Seen]]:
    """Images of ``num`` sequences, and where there are boxes the objects in them."""
    image = np.zeros((num, c.num_frames, *c.canvas, 1), np.uint8)
    seen: list[Seen] = []
    for i in range(num):
        for _ in range(_TRIES):
            window = windows[rng.integers(len(windows))]
            y, x = corner = rng.integers(np.subtract(pixels.shape[1:], c.canvas), endpoint=True)
            if tracks:
                rows = [tracks.get(number, _NOTHING) for number in numbers[window].tolist()]
                objects = look(rows, corner, c.canvas, c.min_visible)
                if objects is None or not c.min_objects <= _most(objects) <= c.max_objects:
                    continue
                seen.append(objects)
            crop = pixels[window, y : y + c.canvas[0], x : x + c.canvas[1]]
            if not tracks and not c.min_objects <= max(map(patches, crop)) <= c.max_objects:
                continue
            image[i, ..., 0] = crop
            break
        else:
            wanted = f"{c.min_objects} to {c.max_objects} {'people' if tracks else 'patches that move'}"
            raise UserError(
                f"{c.path}: hardly a crop of {c.canvas[1]}x{c.canvas[0]} shows {wanted}: "
                "change data.min_objects, data.max_objects, data.canvas or data.frame_size"
            )
    return image, seen


def patches(image: np.ndarray) -> int:
    """How many connected patches of an image ``[H, W]`` are bright and of some size; people who touch are one."""
    areas = video.opencv().connectedComponentsWithStats((image > 0).astype(np.uint8))[2][1:, -1]  # but the background's
    return int(np.sum(areas >= _INK * image.size))


def look(rows: list[_Row], corner: np.ndarray, canvas: tuple[int, int], min_visible: float) -> Seen | None:
    """The objects in the crop of each frame at ``corner`` (y, x); None if one in view is to be ignored."""
    frame = np.repeat(np.arange(len(rows)), [len(row.identity) for row in rows])
    identity, box, ignore = (np.concatenate(column) for column in zip(*rows, strict=True))
    box = box - np.tile(corner, 2)
    inside = np.clip(box, 0, np.tile(canvas, 2))
    share = np.prod(inside[:, 2:] - inside[:, :2], axis=1) / np.prod(box[:, 2:] - box[:, :2], axis=1)
    there = share >= min_visible
    if (there & ignore).any():
        return None
    return Seen(frame[there], identity[there], box[there], share[there])


def _most(seen: Seen) -> int:
    """Objects in the fullest frame."""
    return np.bincount(seen.frame, minlength=1).max()


def _annotate(many: list[Seen], num_frames: int, slots: int) -> dict[str, np.ndarray]:
    """Annotations, as of `prepare`, with a slot for each object of a sequence, in the order of their identities."""
    shape = (len(many), num_frames, slots)
    presence, visibility = np.zeros(shape, np.uint8), np.zeros(shape, np.float32)
    boxes, label = np.zeros((*shape, 4), np.float32), np.zeros((len(many), slots), np.int32)
    for i, seen in enumerate(many):
        objects, slot = np.unique(seen.identity, return_inverse=True)
        label[i, : len(objects)] = objects
        presence[i, seen.frame, slot], visibility[i, seen.frame, slot] = 1, seen.share
        boxes[i, seen.frame, slot] = seen.box
    count = presence.sum(axis=2, dtype=np.int32)
    return {"presence": presence, "count": count, "boxes": boxes, "visibility": visibility, "label": label}
