"""The annotations of MOTChallenge: ``seqinfo.ini`` and ``gt/gt.txt`` of the 2D MOT 2015, MOT16 and MOT17 sets."""

import configparser
import math
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from objcentric.errors import UserError


class Info(NamedTuple):
    name: str
    frames: str  # folder of the frames within that of the sequence
    frame_rate: float  # frames per second
    length: int  # frames of the whole sequence, of which a user may have but some
    height: int  # of a frame, pixels
    width: int


class Boxes(NamedTuple):
    """n boxes by frame and, within a frame, by identity."""

    frame: np.ndarray  # int32 [n], numbers of frames, the first frame being 1
    identity: np.ndarray  # int32 [n], of the object, from 1
    box: np.ndarray  # float32 [n, 4], y0, x0, y1, x1 in pixels; they may reach beyond the frame
    ignore: np.ndarray  # bool [n], neither to be found nor to be missed
    visibility: np.ndarray  # float32 [n], share of the object that nothing hides; 1 where the file does not tell


def read_info(folder: str | Path) -> Info:
    """Reads ``seqinfo.ini`` in the folder of a sequence; UserError if it is missing or says too little."""
    file = Path(folder).expanduser() / "seqinfo.ini"
    parser = configparser.ConfigParser(interpolation=None)
    text = _text(file)
    try:
        parser.read_string(text)
        section = parser["Sequence"]
        frame_rate = float(section["frameRate"])
        length, height, width = (int(section[key]) for key in ("seqLength", "imHeight", "imWidth"))
        info = Info(section["name"], section["imDir"], frame_rate, length, height, width)
    except (configparser.Error, KeyError, ValueError) as error:
        reason = f"{error} is missing" if isinstance(error, KeyError) else str(error).splitlines()[0]
        raise UserError(f"cannot use {file} ({reason}): copy it anew from the data set") from error
    if not (info.frame_rate > 0 and min(info[3:]) > 0):
        raise UserError(f"{file}: frameRate, seqLength, imWidth and imHeight must be positive")
    return info


def read_boxes(file: str | Path) -> Boxes:
    """Reads ``gt.txt``: rows of frame, identity, left, top, width, height, conf, ...; from conf on sets differ.

    2D MOT 2015 has ten columns, MOT16 and MOT17 nine, of which the last is visibility. Everywhere conf 0 means that the
    row is to be ignored. Pixels, which the files count from 1, are counted from 0 here.

    Raises UserError that names the line if a row is cut off or impossible, or comes twice.
    """
    file = Path(file).expanduser()
    rows: dict[tuple[int, int], tuple[int, list[float]]] = {}
    for line, text in enumerate(_text(file).splitlines(), 1):
        if text.strip():
            row = _row(text, lambda reason, line=line: UserError(f"{file}, line {line}: {reason}"))
            frame, identity = int(row[0]), int(row[1])
            first, _ = rows.setdefault((frame, identity), (line, row))
            if first != line:
                raise UserError(f"{file}, line {line}: {identity} is in frame {frame} by line {first}, too: remove one")
    if not rows:
        raise UserError(f"{file} holds no boxes: copy it anew from the data set")
    table = np.array([row for _, (_, row) in sorted(rows.items())])
    x, y, width, height = (table[:, 2:6] - [1, 1, 0, 0]).T
    return Boxes(
        table[:, 0].astype(np.int32),
        table[:, 1].astype(np.int32),
        np.stack([y, x, y + height, x + width], axis=1).astype(np.float32),
        table[:, 6] == 0,
        table[:, 7].astype(np.float32),
    )


def _row(text: str, wrong: Callable[[str], UserError]) -> list[float]:
    """frame, identity, left, top, width, height, conf, visibility of a valid line."""
    fields = text.strip().split(",")
    if len(fields) not in (9, 10):
        raise wrong(f"{len(fields)} columns, expected 10 (2D MOT 2015) or 9 (MOT16, MOT17): is it cut off?")
    try:
        row = [float(field) for field in fields]
    except ValueError:
        raise wrong(f"{text.strip()!r} holds what is no number") from None
    if not all(map(math.isfinite, row)):
        raise wrong("NaN or infinity")
    for name, value in zip(("frame", "identity"), row, strict=False):
        if value != int(value) or not 1 <= value < 2**31:
            raise wrong(f"{name} {value:g} is no whole number from 1 on")
    if min(row[4:6]) <= 0:
        raise wrong(f"a box of width {row[4]:g} and height {row[5]:g}: both must be positive")
    return [*row[:7], row[8] if len(row) == 9 else 1.0]


def _text(file: Path) -> str:
    try:
        return file.read_text()
    except (OSError, UnicodeDecodeError) as error:
        reason = "there is none" if isinstance(error, FileNotFoundError) else error
        raise UserError(f"cannot read {file} ({reason}): copy it from the data set") from error
