"""Small videos of dark squares in front of a light wall, as folders of PNGs with or without MOTChallenge's files."""

from pathlib import Path

import numpy as np
from PIL import Image

HEIGHT, WIDTH = 48, 96


def frame(boxes, shades, height=HEIGHT, width=WIDTH):
    """The wall, uint8 [height, width, 3], and in it boxes (y0, x0, y1, x1) of the given shades."""
    image = np.full((height, width, 3), 200, np.uint8)
    for (y0, x0, y1, x1), shade in zip(boxes, shades, strict=True):
        image[max(y0, 0) : max(y1, 0), max(x0, 0) : max(x1, 0)] = shade
    return image


def walk(num_frames, walkers=((4, 0, 2), (20, 60, -2)), size=(16, 8), empty=8):
    """Boxes int [num_frames, n, 4] of walkers (y, x, pixels per frame), who start anew at the other side.

    They are outside the first ``empty`` frames, in which one sees the wall.
    """
    y, x, speed = np.array(walkers).T
    left = (x + speed * np.arange(num_frames)[:, None] + size[1]) % (WIDTH + size[1]) - size[1]
    left[:empty] = -size[1]
    top = np.broadcast_to(y, left.shape)
    return np.stack([top, left, top + size[0], left + size[1]], axis=-1)


def save_folder(folder: Path, frames, names="{:06d}.png") -> Path:
    folder.mkdir(parents=True)
    for number, image in enumerate(frames, 1):
        Image.fromarray(image).save(folder / names.format(number))
    return folder


def save_mot(folder: Path, frames, boxes, *, ignored=()) -> Path:
    """A sequence in the layout of 2D MOT 2015; the i-th box of each frame, where in view, has identity i + 1."""
    save_folder(folder / "img1", frames)
    height, width, _ = frames[0].shape
    (folder / "seqinfo.ini").write_text(
        f"[Sequence]\nname=walk\nimDir=img1\nframeRate=7\nseqLength={len(frames)}\nimWidth={width}\nimHeight={height}\n"
    )
    rows = [
        f"{t + 1},{i + 1},{x0 + 1},{y0 + 1},{x1 - x0},{y1 - y0},{int(i + 1 not in ignored)},-1,-1,-1"
        for t, many in enumerate(boxes)
        for i, (y0, x0, y1, x1) in enumerate(many)
        if min(x1, width) > max(x0, 0) and min(y1, height) > max(y0, 0)
    ]
    (folder / "gt").mkdir()
    (folder / "gt" / "gt.txt").write_text("\n".join(rows) + "\n")
    return folder
