"""The annotations of MOTChallenge: ``seqinfo.ini`` and ``gt/gt.txt`` of the 2D MOT 2015, MOT16 and MOT17 sets."""

import configparser
import re
from pathlib import Path
from typing import NamedTuple

import numpy as np

from objcentric.data import tracks
from objcentric.errors import UserError

KINDS = (  # of MOT16 and MOT17, by their numbers from 1
    "pedestrian",
    "person on vehicle",
    "car",
    "bicycle",
    "motorbike",
    "non motorized vehicle",
    "static person",
    "distractor",
    "occluder",
    "occluder on the ground",
    "occluder full",
    "reflection",
    "crowd",
)
_ROW = ("frame", "identity", "left", "top", "width", "height", "conf")
_LAYOUTS = ((*_ROW, "x", "y", "z"), (*_ROW, "kind", "visibility"))  # of 2015, with places in the world; of 2016 on
_DETECTORS = re.compile("-(DPM|FRCNN|SDP)$")


class Info(NamedTuple):
    name: str
    frames: str  # folder of the frames within that of the sequence
    frame_rate: float  # frames per second
    length: int  # frames of the whole sequence, of which a user may have but some
    height: int  # of a frame, pixels
    width: int


def videos(path: str | Path) -> list[tracks.Annotated]:
    """The sequences in a folder such as ``train``, or of one sequence's own folder, by name; `read_boxes` on rows.

    A sequence is a folder with ``seqinfo.ini``. MOT17 has each one three times, with the detections of three detectors,
    but the same frames and boxes: the first of them stands for all. Frames need not be there.

    Raises UserError if there is no sequence, or one without usable boxes, as those of ``test`` are.
    """
    folder = tracks.folder(path, "`train` of a MOTChallenge data set, or one sequence")
    folders = [folder.absolute()] if (folder / "seqinfo.ini").is_file() else sorted(folder.iterdir(), reverse=True)
    sequences = {_DETECTORS.sub("", f.name): f for f in folders if (f / "seqinfo.ini").is_file()}
    if not sequences:
        raise UserError(f"{folder} has no folder with a seqinfo.ini: give `train` of a MOTChallenge data set")
    return [
        tracks.Annotated(f.name, f, read_boxes(f / "gt" / "gt.txt"), read_info(f).frame_rate)
        for f in sorted(sequences.values(), key=lambda f: f.name)
    ]


def read_info(folder: str | Path) -> Info:
    """Reads ``seqinfo.ini`` in the folder of a sequence; UserError if it is missing or says too little."""
    file = Path(folder).expanduser() / "seqinfo.ini"
    parser = configparser.ConfigParser(interpolation=None)
    text = tracks.read_text(file)
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


def read_boxes(file: str | Path) -> tracks.Tracks:
    """Reads ``gt.txt``: rows of frame, identity, left, top, width, height, conf, ...; from conf on sets differ.

    2D MOT 2015 has ten columns; MOT16 and MOT17 have nine, the last two being kind (`KINDS`) and visibility. Frames and
    identities are from 1. Pixels, which the files count from 1, are counted from 0 here.

    To be ignored are rows of conf 0, and in MOT16 and MOT17 those of any kind but 'pedestrian', for the benchmark wants
    pedestrians alone. It forgives trackers a box on what looks like one (people who are static, reflected or on
    vehicles, and 'distractor', statues say), but not on vehicles and occluders; who wants that difference has ``kind``.

    Raises UserError that names the line if a row is cut off or impossible, or comes twice.
    """
    file = Path(file).expanduser()
    table = tracks.read_table(file, _LAYOUTS, delimiter=",")
    c = table.columns
    x, y = c["left"] - 1, c["top"] - 1
    box = np.stack([y, x, y + c["height"], x + c["width"]], axis=1)
    ignore, extra = c["conf"] == 0, {}
    if "kind" in c:
        known = np.isin(c["kind"], np.arange(1, len(KINDS) + 1))
        tracks.check(file, table.where, known, lambda i: f"kind {c['kind'][i]:g} is none of 1 to {len(KINDS)}")
        kind = np.array(KINDS)[c["kind"].astype(int) - 1]
        ignore, extra = ignore | (kind != KINDS[0]), {"kind": kind, "visibility": c["visibility"]}
    return tracks.assemble(file, table.where, c["frame"], c["identity"], box, ignore=ignore, **extra)
