"""The annotations of UA-DETRAC: a folder of ``MVI_20011.xml``, ... or, third version, of ``MVI_20011_v3.xml``, ..."""

import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree

import numpy as np

from objcentric.data import tracks
from objcentric.errors import UserError

REGION = "ignored region"
_FRAMES = ("", "Insight-MVT_Annotation_Train", "Insight-MVT_Annotation_Test")


class _Row(NamedTuple):
    where: str  # in the file
    frame: float
    identity: float
    box: tuple[float, float, float, float]
    visibility: float
    kind: str


def videos(path: str | Path) -> list[tracks.Annotated]:
    """The videos of a folder of XML files, by name, such as 'MVI_20011'.

    The frames of a video are in a folder of its name, which is looked for in that of the XML files and beside it, as it
    is and in ``Insight-MVT_Annotation_Train`` (or ``_Test``), as archives unpack. They need not be there.

    Raises UserError if there are no files, or two of one video, or as `read_boxes` does.
    """
    folder = tracks.folder(path, "the folder of UA-DETRAC's XML files").absolute()
    files: dict[str, Path] = {}
    for file in sorted(folder.glob("*.xml")):
        name = re.sub(r"_v\d+$", "", file.stem)
        if files.setdefault(name, file) != file:
            raise UserError(f"{folder}: {files[name].name} and {file.name} are of one video: remove one")
    if not files:
        raise UserError(f"{folder} has no MVI_20011.xml, ...: give the folder of UA-DETRAC's XML files")
    return [tracks.Annotated(name, _frames(folder, name), read_boxes(files[name])) for name in sorted(files)]


def _frames(folder: Path, name: str) -> Path:
    """The folder of a video's frames; where it would be if there is none."""
    places = [place / within / name for place in (folder, folder.parent) for within in _FRAMES]
    return next((place for place in places if place.is_dir()), folder.parent / _FRAMES[1] / name)


def read_boxes(file: str | Path) -> tracks.Tracks:
    """Reads an XML file: targets of frames, which may skip numbers, and regions to be ignored in all of these.

    Frames and identities are from 1; the regions, which have no number, get -1, -2, ... and the kind 'ignored region'.
    Kind is vehicle_type. Pixels are counted from 0 here: in the files the corner of a frame is (1, 1) to targets and
    (.5, .5) to regions, as one sees at those which the frame cuts off (right edges 961 and 960.5 of 960 pixels).

    Visibility is the share of the vehicle in the frame, 1 - truncation_ratio, times that of its box which no
    region_overlap hides; where these overlap each other they count twice. By occlusion_status such a region is hidden
    by the background (-1), or by the vehicle occlusion_id (0), or is a part of that vehicle, hidden by the target (1):
    so it is in real files, where the vehicle of a pair that is nearer to the camera is the lower one.

    Raises UserError that names frame and target if one is impossible, or comes twice, or if the file is cut off.
    """
    file = Path(file).expanduser()
    text = tracks.read_text(file)
    try:
        root = ElementTree.fromstring(text)
    except ElementTree.ParseError as error:
        raise UserError(f"cannot read {file} ({error}): is it cut off? Copy it anew from the data set") from error
    regions = [
        _box(file, f"ignored region {i}", box, corner=0.5)
        for i, box in enumerate(root.findall("ignored_region/box"), 1)
    ]
    rows: list[_Row] = []
    for count, frame in enumerate(root.findall("frame"), 1):
        number = _number(file, f"frame element {count}", frame, "num")
        rows.extend(_targets(file, frame, number))
        rows.extend(
            _Row(f"ignored region {i}, frame {number:g}", number, -i, box, 1.0, REGION)
            for i, box in enumerate(regions, 1)
        )
    where, number, identity, box, visibility, kind = zip(*rows, strict=True) if rows else ((),) * 6
    region = np.array(kind) == REGION
    return tracks.assemble(
        file, lambda i: where[i], number, identity, box, region=region, visibility=visibility, kind=kind
    )


def _targets(file: Path, frame: ElementTree.Element, number: float) -> Iterator[_Row]:
    """The rows of a frame's vehicles."""
    targets, hidden = [], {}
    for count, target in enumerate(frame.iter("target"), 1):
        identity = _number(file, f"frame {number:g}, target element {count}", target, "id")
        where = f"frame {number:g}, target {identity:g}"
        targets.append((where, identity, target, _box(file, where, target.find("box"))))
        for overlap in target.iter("region_overlap"):
            status, other = (_number(file, where, overlap, f"occlusion_{key}") for key in ("status", "id"))
            region = _box(file, where, overlap)
            hidden.setdefault(other if status == 1 else identity, []).append(region)
    for where, identity, target, box in targets:
        attribute = target.find("attribute")
        attribute = target if attribute is None else attribute
        truncated = _number(file, where, attribute, "truncation_ratio", "0")
        covered = sum(_overlap(box, region) for region in hidden.get(identity, ())) / (_overlap(box, box) or 1)
        visibility = (1 - truncated) * max(1 - covered, 0)
        yield _Row(where, number, identity, box, visibility, attribute.get("vehicle_type", ""))


def _overlap(a: tuple[float, ...], b: tuple[float, ...]) -> float:
    height, width = (min(a[i + 2], b[i + 2]) - max(a[i], b[i]) for i in (0, 1))
    return max(height, 0) * max(width, 0)


def _box(file: Path, where: str, element: ElementTree.Element | None, corner: float = 1) -> tuple[float, ...]:
    """y0, x0, y1, x1 of an element, to which the first pixel begins at ``corner``."""
    if element is None:
        tracks.refuse(file, where, "it has no box: add or remove it")
    left, top, width, height = (_number(file, where, element, key) for key in ("left", "top", "width", "height"))
    return top - corner, left - corner, top - corner + height, left - corner + width


def _number(file: Path, where: str, element: ElementTree.Element, key: str, default: str | None = None) -> float:
    """A finite number that is an attribute of an element."""
    text = element.get(key, default)
    if text is None:
        tracks.refuse(file, where, f"<{element.tag}> has no {key}: copy the file anew from the data set")
    try:
        number = float(text)
    except ValueError:
        tracks.refuse(file, where, f"{key} {text!r} is no number: correct it")
    if not math.isfinite(number):
        tracks.refuse(file, where, f"{key} is NaN or infinity: correct it, or remove the target")
    return number
