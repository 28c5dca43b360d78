"""The annotations of the Stanford Drone data set: ``annotations/SCENE/videoN/annotations.txt``."""

from pathlib import Path

import numpy as np

from objcentric.data import tracks
from objcentric.errors import UserError

_LAYOUT = ("identity", "left", "top", "right", "bottom", "frame", "lost", "occluded", "generated", "kind")


def videos(path: str | Path) -> list[tracks.Annotated]:
    """The videos of the folder that holds ``annotations`` and ``videos``, by name, such as 'quad/video0'.

    Raises UserError if there are no annotations, or as `read_boxes` does.
    """
    folder = tracks.folder(path, "the folder of Stanford Drone that holds annotations and videos")
    files = sorted(folder.glob("annotations/*/*/annotations.txt"))
    if not files:
        raise UserError(f"{folder} has no annotations/SCENE/videoN/annotations.txt: give the folder of Stanford Drone")
    names = sorted(f"{file.parent.parent.name}/{file.parent.name}" for file in files)
    return [
        tracks.Annotated(name, _film(folder / "videos" / name), read_boxes(folder / "annotations" / name))
        for name in names
    ]


def read_boxes(file: str | Path) -> tracks.Tracks:
    """Reads rows of identity, left, top, right, bottom, frame, lost, occluded, generated, "Kind", and maybe more.

    ``file`` is annotations.txt, or its folder. Frames are counted from 0 in it and from 1 here, as those of a video
    file; identities and pixels are from 0. Rows of objects that are lost, that is out of view, are left out; generated
    ones, which were interpolated, are kept. Visibility is 0 where an object is occluded, by however much.

    Raises UserError that names the line if a row is cut off or impossible, or comes twice.
    """
    file = Path(file).expanduser()
    file = file / "annotations.txt" if file.is_dir() else file
    table = tracks.read_table(file, [_LAYOUT], texts=["kind"], more=True)
    rows = np.flatnonzero(table.columns["lost"] == 0)
    c = {name: column[rows] for name, column in table.columns.items()}
    found = tracks.assemble(
        file,
        lambda i: table.where(rows[i]),
        c["frame"],
        c["identity"],
        np.stack([c["top"], c["left"], c["bottom"], c["right"]], axis=1),
        visibility=c["occluded"] == 0,
        kind=c["kind"],
        lowest=(0, 0),
    )
    return found._replace(frame=found.frame + 1)


def _film(folder: Path) -> Path:
    """The video of a folder; as the archive names it if there is none."""
    return next((f for f in (folder / "video.mov", folder / "video.mp4") if f.is_file()), folder / "video.mov")
