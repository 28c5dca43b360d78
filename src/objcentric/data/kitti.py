"""The annotations of KITTI's tracking benchmark: ``training/label_02/0000.txt``, ..."""

from pathlib import Path

import numpy as np

from objcentric.data import tracks
from objcentric.errors import UserError

REGION = "DontCare"
_ROW = ("frame", "identity", "kind", "truncated", "occluded", "alpha", "left", "top", "right", "bottom")
_LAYOUT = (*_ROW, "height_3d", "width_3d", "length_3d", "x", "y", "z", "rotation")


def videos(path: str | Path) -> list[tracks.Annotated]:
    """The sequences of the folder ``training``: boxes of ``label_02``, frames, if there, of ``image_02``.

    Raises UserError if there are no labels, or as `read_boxes` does.
    """
    folder = tracks.folder(path, "`training` of KITTI tracking, which holds label_02 and image_02")
    files = sorted((folder / "label_02").glob("*.txt"))
    if not files:
        raise UserError(f"{folder} has no label_02/0000.txt, ...: give `training` of KITTI tracking with its labels")
    return [tracks.Annotated(file.stem, folder / "image_02" / file.stem, read_boxes(file)) for file in files]


def read_boxes(file: str | Path) -> tracks.Tracks:
    """Reads rows of frame, identity, kind, truncated, occluded, ..., left, top, right, bottom and seven columns in 3D.

    Frames and identities are from 0, as are pixels. To be ignored are regions of kind 'DontCare', which all have
    identity -1 in the file and -1, -2, ... here, and objects that are truncated > 1, or occluded > 1: largely hidden,
    or one does not know. Visibility is 1, for the file gives levels, not shares.

    Raises UserError that names the line if a row is cut off or impossible, or comes twice.
    """
    file = Path(file).expanduser()
    table = tracks.read_table(file, [_LAYOUT], texts=["kind"])
    c = table.columns
    region = c["kind"] == REGION
    return tracks.assemble(
        file,
        table.where,
        c["frame"],
        np.where(region, -np.cumsum(region), c["identity"]),
        np.stack([c["top"], c["left"], c["bottom"], c["right"]], axis=1),
        ignore=(c["occluded"] > 1) | (c["truncated"] > 1),
        region=region,
        kind=c["kind"],
        lowest=(0, 0),
    )
