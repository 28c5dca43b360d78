"""Tracks of videos, cut into windows of T frames: the examples of trackers (thesis, chapters 3 and 4 with appendix B).

- A window is T frames of one video, in test maybe ``test_frames``, all of which exist and lie in one split. They are
  ``frame_step`` apart by their numbers, or a multiple of that in videos with more than ``max_rate`` frames per second.
  At most a share ``overlap`` of them, rounded, are also in the next one.
- A video that tests on fewer frames than that gives one shorter window, of at least `SHORTEST`; what is missing at its
  end is black, and without objects.
- Its objects are those annotated in its first frame; a window without any is not formed.
- Rows that are to be ignored, of other ``kinds``, less visible than ``min_visibility``, or smaller than ``min_size``
  where the frame cuts them off, are absent.
- An object that was absent for a frame does not come back in that window: its later rows are those of a new object,
  with which another window may begin.
- Whether an object is there is not known where the file has a row of it that is not used: one of those above, or of an
  object that came back.
- More than M objects are shuffled by (seed, video, window) and dealt into several examples of at most M.
- With ``crowded`` > 0 there must be M objects, there in at least that share of the frames on average.
- With ``reverse`` windows of the training split come also in reversed time, by the same rules: their objects are those
  of the last frame.
"""

import fnmatch
import itertools
import math
import sys
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from ml_collections import ConfigDict

from objcentric.data import splits
from objcentric.data.frames import Frames
from objcentric.data.tracks import Annotated, Tracks
from objcentric.errors import UserError

SHORTEST = 3  # frames: two may be given


class Windows(NamedTuple):
    """n examples, without their images."""

    video: np.ndarray  # int32 [n], its index
    frames: np.ndarray  # int32 [n, T], indices of frames of the video, as the example has them: they may fall; -1 after
    # the end of the video
    boxes: np.ndarray  # float32 [n, T, M, 4], y0, x0, y1, x1 in pixels of the resized frame, cut off there; 0 of absent
    presence: np.ndarray  # uint8 [n, T, M]; slots are filled from the first on
    known: np.ndarray  # uint8 [n, T, M], whether the file tells that an object is there, or that it is not
    identity: np.ndarray  # int32 [n, M], the file's, one more where that counts from 0; 0 where the slot is empty


class _Rows(NamedTuple):
    """The boxes of a video, by frame and, within a frame, by identity."""

    first: np.ndarray  # int [F + 1], the row at which a frame begins
    identity: np.ndarray  # int32 [n]
    box: np.ndarray  # float32 [n, 4]
    usable: np.ndarray  # bool [n]


def choose(c: ConfigDict, annotated: Sequence[Annotated]) -> list[Annotated]:
    """The videos that config.data names; UserError if there is none of a name, or no usable object of a kind."""
    names = [one.name for one in annotated]
    for field in ("videos", "test_videos"):
        _check_known(field, [pattern for pattern in c[field] if not matching([pattern], names)], names)
    test = matching(c.test_videos, names)
    used = matching(c.videos, names) | test if c.videos else set(names)
    chosen = [one for one in annotated if one.name in used]
    if used <= test:
        raise UserError(f"data.test_videos are all videos of {c.path} that are used: leave some to train on")
    usable = (one.tracks.kind[~one.tracks.ignore] for one in chosen)
    _check_known("kinds", c.kinds, {kind for kinds in usable for kind in np.unique(kinds).tolist()})
    return chosen


def matching(patterns: Sequence[str], names: Sequence[str]) -> set[str]:
    """Those of ``names`` that a pattern fits, such as 'person01_*'."""
    return {name for pattern in patterns for name in fnmatch.filter(names, pattern)}


def cut(c: ConfigDict, annotated: Sequence[Annotated], frames: Sequence[Frames]) -> dict[str, Windows]:
    """The windows of each split of a validated config.data; UserError if a split has none."""
    found: dict[str, list[tuple]] = {split: [] for split in splits.SPLITS}
    whole = dict.fromkeys(splits.SPLITS, 0)
    test = matching(c.test_videos, [one.name for one in annotated])
    for video, (one, its) in enumerate(zip(annotated, frames, strict=True)):
        rows = _rows(c, one.tracks, its)
        step = frame_step(c, one.frame_rate)
        for split, (first, end) in _extents(c, len(its.numbers), one.name in test).items():
            field = _length_field(c, split)
            windows = first + _spaced(its.numbers[first:end], c[field], step, c.overlap)
            if end > first and not len(windows):
                wanted = f"data.{field}={c[field]} at a frame_step of {step}"
                said = f"its {end - first} frames in {split!r} are too few for {wanted}"
                if split == "test":
                    windows = _shorter(its.numbers, first, end, c[field], step)
                if len(windows):
                    said += f": {np.sum(windows >= 0)} of them are a shorter sequence"
                print(f"{one.name}: {said}", file=sys.stderr)
            whole[split] += len(windows)
            if split == "train" and c.reverse:
                windows = np.concatenate([windows, windows[:, ::-1]])
            for window in windows:
                found[split] += [(video, window, *example) for example in _deal(c, rows, window, video)]
    for split in splits.SPLITS:
        if not found[split]:
            raise UserError(_none(c, split, whole[split]))
    dtypes = np.int32, np.int32, np.float32, np.uint8, np.uint8, np.int32
    return {
        split: Windows(
            *(np.array(column, dtype) for column, dtype in zip(zip(*rows, strict=True), dtypes, strict=True))
        )
        for split, rows in found.items()
    }


def frame_step(c: ConfigDict, rate: float | None) -> int:
    """Of a video of that many frames per second, if that is known: the one of config.data, or so many times it that no
    more than c.max_rate frames of a second are used.
    """
    return c.frame_step * (math.ceil(rate / c.max_rate) if c.max_rate and rate else 1)


def _length_field(c: ConfigDict, split: str) -> str:
    """The field of config.data that tells how long a split's windows are."""
    return "test_frames" if split == "test" and c.test_frames else "num_frames"


def complete(numbers: np.ndarray, num_frames: int, frame_step: int) -> np.ndarray:
    """Indices int ``[n, num_frames]`` of all sequences of frames, ``frame_step`` apart by their rising numbers."""
    wanted = numbers[:, None] + frame_step * np.arange(num_frames)
    at = np.searchsorted(numbers, wanted).clip(max=max(len(numbers) - 1, 0))
    return at[(numbers[at] == wanted).all(axis=1)] if len(numbers) else at


def mirror(boxes: np.ndarray, presence: np.ndarray, width: int) -> np.ndarray:
    """Boxes ``[..., 4]`` in frames of that width whose left and right are exchanged; those that are absent stay 0."""
    y0, x0, y1, x1 = np.moveaxis(boxes, -1, 0)
    return np.stack([y0, width - x1, y1, width - x0], axis=-1) * (presence[..., None] > 0)


def _check_known(field: str, wanted: Sequence[str], known: Sequence[str] | set[str]) -> None:
    for name in wanted:
        if name not in known:
            choice = ", ".join(sorted(filter(None, known))) or "nothing"
            raise UserError(f"data.{field} has {name!r}, which there is not: leave it empty, or choose of {choice}")


def _none(c: ConfigDict, split: str, windows: int) -> str:
    """Why a split is empty, of which that many windows lack no frame."""
    if windows:
        who = f"{c.num_objects} objects" if c.crowded else "an object"
        fields = "data.num_objects, data.crowded" if c.crowded else "data.min_size"
        return (
            f"none of the {windows} windows of the {split} split has {who} in its first frame: reduce {fields} or "
            "data.min_visibility, or use more of data.kinds"
        )
    field = _length_field(c, split)
    span = (c[field] - 1) * c.frame_step + 1
    more = "name another of data.test_videos" if c.test_videos else "data.train_share or data.valid_share"
    return (
        f"the {split} split of {c.path} has nowhere {span} frames in a row, or lacks some: reduce data.{field} or "
        f"data.frame_step, or {more if split == 'test' else f'raise data.{split}_share'}"
    )


def _rows(c: ConfigDict, tracks: Tracks, frames: Frames) -> _Rows:
    canvas = np.tile(c.frame_size, 2)
    box = np.clip(tracks.box * (canvas / np.tile((frames.height, frames.width), 2)), 0, canvas).astype(np.float32)
    sides = box[:, 2:] - box[:, :2]
    usable = ~tracks.ignore & (tracks.visibility >= c.min_visibility)
    usable &= (sides >= c.min_size).all(axis=1) & (sides > 0).all(axis=1)
    if c.kinds:
        usable &= np.isin(tracks.kind, c.kinds)
    rows = np.flatnonzero(np.isin(tracks.frame, frames.numbers))
    rows = rows[np.lexsort((tracks.identity[rows], tracks.frame[rows]))]
    first = np.append(np.searchsorted(tracks.frame[rows], frames.numbers), len(rows))
    smallest = tracks.identity[~tracks.ignore].min(initial=1)  # some files count from 0
    return _Rows(first, tracks.identity[rows] + (1 - smallest), box[rows], usable[rows])


def _extents(c: ConfigDict, num_frames: int, is_test: bool) -> dict[str, tuple[int, int]]:
    """First frame and end of each split of a video; where whole videos test, the others train and validate."""
    if is_test:
        edges = 0, 0, 0, num_frames
    else:
        shares = np.cumsum([c.train_share, c.valid_share])
        middle = np.round(num_frames * shares / (shares[-1] if c.test_videos else 1)).astype(int).tolist()
        edges = 0, *middle, num_frames
    return dict(zip(splits.SPLITS, itertools.pairwise(edges), strict=True))


def _spaced(numbers: np.ndarray, num_frames: int, frame_step: int, overlap: float) -> np.ndarray:
    """Of the `complete` windows those that overlap by no more than they should."""
    windows = complete(numbers, num_frames, frame_step)
    stride = max(round(num_frames * (1 - overlap)), 1) * frame_step
    chosen, free = [], -np.inf
    for i, number in enumerate(numbers[windows[:, 0]].tolist()):
        if number >= free:
            chosen.append(i)
            free = number + stride
    return windows[chosen]


def _shorter(numbers: np.ndarray, first: int, end: int, num_frames: int, frame_step: int) -> np.ndarray:
    """The longest window, int ``[1, num_frames]``, -1 after its end, of fewer frames; ``[0, num_frames]`` if none."""
    for length in range(min(num_frames - 1, end - first), SHORTEST - 1, -1):
        windows = first + complete(numbers[first:end], length, frame_step)
        if len(windows):
            return np.pad(windows[:1], ((0, 0), (0, num_frames - length)), constant_values=-1)
    return np.zeros((0, num_frames), int)


def _deal(c: ConfigDict, rows: _Rows, window: np.ndarray, video: int) -> Iterator[tuple[np.ndarray, ...]]:
    """Boxes ``[T, M, 4]``, presence and known ``[T, M]`` and identity ``[M]`` of the examples that a window gives."""
    identity, there, known, box = _objects(rows, window)
    order = np.arange(len(identity))
    if len(order) > c.num_objects:
        order = np.random.default_rng((c.seed, video, window[0], max(window[-1], 0))).permutation(order)
    for start in range(0, len(order), c.num_objects):
        chosen = order[start : start + c.num_objects]
        if c.crowded and (len(chosen) < c.num_objects or there[:, chosen].mean() < c.crowded):
            continue
        empty = c.num_objects - len(chosen)
        yield (
            np.pad(box[:, chosen], ((0, 0), (0, empty), (0, 0))),
            np.pad(there[:, chosen], ((0, 0), (0, empty))),
            np.pad(known[:, chosen], ((0, 0), (0, empty))),
            np.pad(identity[chosen], (0, empty)),
        )


def _objects(rows: _Rows, window: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """identity ``[m]``, presence and known ``[T, m]`` and boxes ``[T, m, 4]`` of the objects of a window."""
    of_frames = [np.arange(*rows.first[frame : frame + 2]) if frame >= 0 else np.arange(0) for frame in window]
    identity = rows.identity[of_frames[0]][rows.usable[of_frames[0]]]
    listed = np.zeros((len(window), len(identity)), bool)
    there, box = np.zeros_like(listed), np.zeros((*listed.shape, 4), np.float32)
    if not len(identity):
        return identity, there, listed, box
    time, row = np.repeat(np.arange(len(window)), [len(many) for many in of_frames]), np.concatenate(of_frames)
    slot = np.searchsorted(identity, rows.identity[row]).clip(max=len(identity) - 1)
    found = identity[slot] == rows.identity[row]
    time, row, slot = time[found], row[found], slot[found]
    listed[time, slot], there[time, slot], box[time, slot] = True, rows.usable[row], rows.box[row]
    there = np.logical_and.accumulate(there)
    return identity, there, there | ~listed, box * there[..., None]
