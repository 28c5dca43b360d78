"""What readers of tracking annotations return, whatever the format of the files, and what these readers share."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple, NoReturn

import numpy as np
from numpy.typing import ArrayLike

from objcentric.errors import UserError


class Tracks(NamedTuple):
    """n boxes of one video by frame and, within a frame, by identity."""

    frame: np.ndarray  # int32 [n], the number of the frame as the video's files count, as `video.Video.numbers`
    identity: np.ndarray  # int32 [n], of the object; negative where the row is of a region to be ignored
    box: np.ndarray  # float32 [n, 4], y0, x0, y1, x1 in pixels; they may reach beyond the frame
    ignore: np.ndarray  # bool [n], neither to be found nor to be missed
    visibility: np.ndarray  # float32 [n], share of the object that nothing hides; 1 where the file does not tell
    kind: np.ndarray  # str [n], such as 'Pedestrian'; '' where the file does not tell


class Annotated(NamedTuple):
    """A video and what moves in it."""

    name: str  # unique in its data set
    path: Path  # what `video.open` opens; it need not exist where only annotations are at hand
    tracks: Tracks
    frame_rate: float | None = None  # frames per second, where the data set tells


class Table(NamedTuple):
    """The m rows of a text file, blank lines apart."""

    columns: dict[str, np.ndarray]  # by name: float64 [m], finite, or str [m], cut after 16 characters
    where: Callable[[int], str]  # 'line 5' of a row's index


def folder(path: str | Path, what: str) -> Path:
    """``path`` as Path; UserError if it is no folder, which should be ``what``."""
    path = Path(path).expanduser()
    if not path.is_dir():
        raise UserError(f"there is no folder {path}: give {what}, as its archive unpacks")
    return path


def read_text(file: Path) -> str:
    """UserError if there is no such file, or one that is not text."""
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = "there is none" if isinstance(error, FileNotFoundError) else error
        raise UserError(f"cannot read {file} ({reason}): copy it from the data set") from error


def read_table(
    file: Path,
    layouts: Sequence[Sequence[str]],
    *,
    delimiter: str | None = None,
    texts: Sequence[str] = (),
    more: bool = False,
) -> Table:
    """Reads rows of finite numbers.

    Args:
      layouts: names of the columns in each of the forms a file may have; the first row's number of columns chooses.
      delimiter: between columns; any white space if None.
      texts: columns that are not numbers, but text, which may be in double quotes.
      more: whether rows may have more columns than the layout, which is the only one then.

    Raises UserError that names the line of the first row which is cut off, or holds what is no finite number.
    """
    text = read_text(file)
    if not text.strip():
        raise _nothing(file)

    def rows() -> list[tuple[int, str]]:
        """Numbered lines; what `np.loadtxt` takes for blank is left out."""
        lines = enumerate(text.split("\n"), 1)
        return [(number, line) for number, line in lines if (line.strip() if delimiter is None else line)]

    def where(row: int) -> str:
        return f"line {rows()[row][0]}"

    width = len(next(line for line in text.split("\n") if line.strip()).split(delimiter))
    layout = next((names for names in layouts if len(names) == width), layouts[0])
    if not more and len(layout) != width:
        refuse(file, where(0), _columns(width, [len(names) for names in layouts]))
    if texts:  # an open quote would swallow the lines up to the next one
        for number, line in rows():
            if line.count('"') % 2:
                refuse(file, f"line {number}", f"{line.strip()!r} has a quote that does not end: is it cut off?")
    dtype = [(name, "U16" if name in texts else "f8") for name in layout]
    usecols = range(len(layout)) if more else None
    try:
        table = np.loadtxt(file, dtype, None, delimiter, usecols=usecols, quotechar='"', ndmin=1, encoding="utf-8")
    except ValueError as error:
        for number, line in rows():  # slow, but once
            fields = line.split(delimiter)
            if len(fields) < len(layout) or (len(fields) > len(layout) and not more):
                refuse(file, f"line {number}", _columns(len(fields), [len(layout)]))
            if not all(_is_number(field) for name, field in zip(layout, fields, strict=False) if name not in texts):
                refuse(file, f"line {number}", f"{line.strip()!r} holds what is no number: correct it")
        raise UserError(f"cannot read {file} ({error}): copy it anew from the data set") from error
    columns = {name: table[name] for name in layout}
    for name in layout:
        if name not in texts:
            check(file, where, np.isfinite(columns[name]), lambda i: "NaN or infinity: correct or remove the row")
    return Table(columns, where)


def assemble(
    file: Path,
    where: Callable[[int], str],
    frame: ArrayLike,
    identity: ArrayLike,
    box: ArrayLike,
    *,
    ignore: ArrayLike = False,
    region: ArrayLike = False,
    visibility: ArrayLike = 1.0,
    kind: ArrayLike = "",
    lowest: tuple[int, int] = (1, 1),
) -> Tracks:
    """Tracks of n rows in any order; what is not [n] holds of all rows.

    Args:
      file, where: the file, and where in it row i is, such as 'line 3': for messages.
      frame, identity: numbers, whole ones from ``lowest`` on.
      box: [n, 4], as in Tracks.
      region: rows that are regions to be ignored; these alone may, and should, have negative identities.

    Raises UserError that names the first row with NaN, infinity, a size that is not positive, a frame or identity that
    cannot be, or an identity that its frame has already; and if there are no rows.
    """
    frame, identity = np.asarray(frame, np.float64), np.asarray(identity, np.float64)
    n = len(frame)
    if not n:
        raise _nothing(file)
    with np.errstate(over="ignore"):
        box = np.asarray(box, np.float32)
        visibility = np.broadcast_to(np.asarray(visibility, np.float32), n)
    region, ignore, kind = (np.broadcast_to(np.asarray(column), n) for column in (region, ignore, kind))
    for name, column, least in zip(("frame", "identity"), (frame, identity), lowest, strict=True):
        there = (column == np.round(column)) & (np.abs(column) < 2**31) & ((column >= least) | region)
        check(
            file,
            where,
            there,
            lambda i, name=name, column=column, least=least: (
                f"{name} {column[i]:g} is no whole number from {least} on: correct or remove the row"
            ),
        )
    finite = np.isfinite(box).all(axis=1) & np.isfinite(visibility)
    check(file, where, finite, lambda i: "NaN or infinity: correct or remove the row")
    size = box[:, 2:] - box[:, :2]
    check(
        file,
        where,
        (size > 0).all(axis=1),
        lambda i: f"a box of width {size[i, 1]:g} and height {size[i, 0]:g}: both must be positive; remove the row",
    )
    order = np.lexsort((identity, frame))  # stable: of two equal rows the first in the file comes first
    again = np.zeros(n, bool)
    again[1:] = (np.diff(frame[order]) == 0) & (np.diff(identity[order]) == 0)
    check(
        file,
        lambda i: where(order[i]),
        ~again,
        lambda i: (
            f"identity {identity[order[i]]:g} is in frame {frame[order[i]]:g} by {where(order[i - 1])}, too: remove one"
        ),
    )
    columns = frame.astype(np.int32), identity.astype(np.int32), box, ignore | region, visibility, kind
    return Tracks(*(column[order] for column in columns))


def check(file: Path, where: Callable[[int], str], good: np.ndarray, reason: Callable[[int], str]) -> None:
    """UserError of the first row, if any, that is not ``good`` [n]."""
    if not good.all():
        i = int(np.argmin(good))
        refuse(file, where(i), reason(i))


def refuse(file: Path, where: str, reason: str) -> NoReturn:
    raise UserError(f"{file}, {where}: {reason}")


def _nothing(file: Path) -> UserError:
    return UserError(f"{file} holds no boxes: copy it anew from the data set")


def _columns(found: int, expected: Sequence[int]) -> str:
    return f"{found} columns, expected {' or '.join(map(str, expected))}: is it cut off? Copy the file anew"


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return "_" not in text  # in which Python sees a number, but NumPy does not
