"""The KTH action clips, the list of their sub-sequences, ``sequences.txt``, and a file of boxes, in one folder.

KTH publishes the clips, ``person01_boxing_d1_uncomp.avi``, ..., and the list, but no boxes; those that RATM and HART
were trained with are a text file of other authors, in the format of `read_boxes`.
"""

import re
from pathlib import Path

import numpy as np

from objcentric.data import tracks
from objcentric.errors import UserError

ACTIONS = ("boxing", "handclapping", "handwaving", "jogging", "running", "walking")
HEADER = 4  # lines of a file of boxes before its first clip
_LISTS = ("sequences.txt", "00sequences.txt")  # KTH's site has both names
_HEADING = "`person scenario action seq start end`"
_FORM = re.compile(r"(?:person)?(\d+)\s+d?(\d)\s+(\w+)\s+(\d+)\s+(\d+)\s+(\d+)")


def videos(path: str | Path) -> list[tracks.Annotated]:
    """The clips that have boxes, by name, such as 'person01_jogging_d1', of a folder with all files.

    The file of boxes is the one text file beside ``sequences.txt``. Clips may be in folders of their actions, and need
    not be there.

    Raises UserError if there is no list, or not one file of boxes, or as `read_boxes` does.
    """
    folder = tracks.folder(path, "the folder of KTH's avis")
    lists = [folder / name for name in _LISTS if (folder / name).is_file()]
    if not lists:
        raise UserError(f"{folder} has no sequences.txt, which KTH publishes with its clips: put it there")
    others = [file for file in sorted(folder.glob("*.txt")) if file.name not in _LISTS]
    if len(others) != 1:
        found = " and ".join(file.name for file in others) or "no file of boxes"
        raise UserError(
            f"{folder} has {found}, but should have one .txt of boxes, which KTH does not publish: {HEADER} lines of "
            f"header, then for each sub-sequence a line {_HEADING} and a line `y1 x1 y2 x2` for each of its frames"
        )
    boxes = read_boxes(others[0], read_ranges(lists[0]))
    return [tracks.Annotated(name, _clip(folder, name), boxes[name]) for name in sorted(boxes)]


def _clip(folder: Path, name: str) -> Path:
    file = f"{name}_uncomp.avi"
    return next((f for f in (folder / file, folder / name.split("_")[1] / file) if f.is_file()), folder / file)


def read_ranges(file: str | Path) -> dict[str, list[tuple[int, int]]]:
    """Reads ``sequences.txt``: by clip the first and the last frame, from 1, of each of its sub-sequences.

    There are four of most, three of some; the clip that the file calls missing is left out. Raises UserError that names
    the line if one cannot be read.
    """
    file = Path(file).expanduser()
    ranges: dict[str, list[tuple[int, int]]] = {}
    for number, line in enumerate(tracks.read_text(file).splitlines(), 1):
        found = re.match(r"(person\d\d_[a-z]+_d\d)\s+(.*)", line.strip())
        if not found or found[2] == "*missing*":
            continue
        if not re.fullmatch(r"frames\s+\d+-\d+(,\s*\d+-\d+)*", found[2]):
            tracks.refuse(file, f"line {number}", f"{line.strip()!r} is not of the form `CLIP frames 1-50, 60-110`")
        ends = [int(end) for end in re.findall(r"\d+", found[2])]
        ranges[found[1]] = list(zip(ends[::2], ends[1::2], strict=True))
    if not ranges:
        raise UserError(f"{file} lists no clips: copy it anew from KTH")
    return ranges


def read_boxes(file: str | Path, ranges: dict[str, list[tuple[int, int]]]) -> dict[str, tracks.Tracks]:
    """Reads the boxes of clips, by name, where ``ranges`` are of `read_ranges`.

    After four lines of header there is for each sub-sequence a line ``person scenario action seq start end``, and one
    ``y1 x1 y2 x2`` for each of the frames from start to end. Person and scenario are numbers or as in names of clips
    (1, 01 or person01; 1 or d1), the action is a name or, from 1 on, its number in `ACTIONS`. The row is of the clip
    ``personNN_ACTION_dN`` and its seq-th sub-sequence (from 1) of sequences.txt. Frames are those of the avi, from 1,
    and must at least overlap that sub-sequence: else they were counted otherwise, and boxes would be of other frames.

    The kind of a box is the action. Its identity is seq: between sub-sequences people leave, and come back as new
    tracks. Pixels are taken to be counted from 0.

    Raises UserError that names the line if one is cut off or impossible, or a frame has two boxes.
    """
    file = Path(file).expanduser()
    lines = [(n, line) for n, line in enumerate(tracks.read_text(file).splitlines(), 1) if line.strip() or n <= HEADER]
    for number, line in lines[:HEADER]:
        if _FORM.fullmatch(line.strip()):
            tracks.refuse(file, f"line {number}", f"{_HEADING} before the end of the header: put {HEADER} lines there")
    lines = lines[HEADER:]
    found: dict[str, list[tuple[int, int, int, list[float]]]] = {}  # line, frame, seq, box of each row
    at = 0
    while at < len(lines):
        number, heading = lines[at]
        name, seq, start, end = _heading(file, f"line {number}", heading, ranges)
        block = lines[at + 1 : at + 2 + end - start]
        for frame, (number, line) in enumerate(block, start):
            found.setdefault(name, []).append((number, frame, seq, _box(file, f"line {number}", line, frame)))
        if len(block) < end - start + 1:
            tracks.refuse(file, f"line {number}", f"it ends before frame {end} of {name}: is it cut off? Copy it anew")
        at += 1 + len(block)
    if not found:
        raise UserError(f"{file} holds no boxes after its {HEADER} lines of header: copy it anew")
    return {name: _tracks(file, name.split("_")[1], rows) for name, rows in found.items()}


def _tracks(file: Path, action: str, rows: list[tuple[int, int, int, list[float]]]) -> tracks.Tracks:
    lines, frame, seq, box = zip(*rows, strict=True)
    return tracks.assemble(file, lambda i: f"line {lines[i]}", frame, seq, np.array(box), kind=action)


def _heading(file: Path, where: str, line: str, ranges: dict[str, list[tuple[int, int]]]) -> tuple[str, int, int, int]:
    """Clip, seq, start and end of a line."""
    match = _FORM.fullmatch(line.strip())
    action = match[3] if match else ""
    if action.isdecimal() and 1 <= int(action) <= len(ACTIONS):
        action = ACTIONS[int(action) - 1]
    if not match or action not in ACTIONS:
        tracks.refuse(file, where, f"{line.strip()!r} is not {_HEADING}: has the clip before it end - start + 1 boxes?")
    name = f"person{int(match[1]):02}_{action}_d{match[2]}"
    seq, start, end = (int(match[i]) for i in (4, 5, 6))
    there = ranges.get(name, [])
    if not 1 <= seq <= len(there):
        tracks.refuse(file, where, f"sequences.txt has {len(there)} sub-sequences of {name}, none with number {seq}")
    first, last = there[seq - 1]
    if not (1 <= start <= end and start <= last and end >= first):
        tracks.refuse(
            file,
            where,
            f"frames {start}-{end} are not in sub-sequence {seq} of {name}, {first}-{last} by sequences.txt: count "
            "frames from the start of the avi, the first being 1",
        )
    return name, seq, start, end


def _box(file: Path, where: str, line: str, frame: int) -> list[float]:
    try:
        y0, x0, y1, x1 = (float(field) for field in line.split())
    except ValueError:
        tracks.refuse(file, where, f"{line.strip()!r} is not `y1 x1 y2 x2` of frame {frame}: is it cut off?")
    return [y0, x0, y1, x1]
