"""Hand-made annotations and a config.data for them."""

from pathlib import Path

import numpy as np
from ml_collections import ConfigDict

from objcentric.data.frames import Frames
from objcentric.data.tracks import Annotated, Tracks

HEIGHT, WIDTH = 100, 200  # of the videos; twice the canvas


def config(**fields):
    c = ConfigDict()
    c.update(name="tracks", format="mot", path="somewhere", videos=(), test_videos=(), kinds=())
    c.update(frame_size=(50, 100), grey=False, num_frames=4, frame_step=1, num_objects=3, overlap=0.5)
    c.update(test_frames=0, max_rate=0.0)
    c.update(train_share=0.5, valid_share=0.25, mirror=False, reverse=False, min_size=4.0, min_visibility=0.0)
    c.update(crowded=0.0, cache_dir="", seed=0, device_bytes=0)
    c.update(fields)
    return c


def box(identity, frame):
    """One that tells whose it is and when, 20x10 pixels of the video."""
    return 2 * identity, 2 * frame, 2 * identity + 20, 2 * frame + 10


def annotated(seen, name="a", path="a", **special):
    """``seen``: frames by identity. ``special``: fields of tracks, whose values by (identity, frame) differ."""
    rows = [(frame, identity) for identity, frames in seen.items() for frame in frames]
    defaults = {"ignore": False, "visibility": 1.0, "kind": "Pedestrian"}
    columns = {
        field: np.array([special.get(field, {}).get((i, t), default) for t, i in rows], type(default))
        for field, default in defaults.items()
    }
    boxes = [special.get("box", {}).get((i, t), box(i, t)) for t, i in rows]
    frame, identity = np.array(rows, np.int32).reshape(-1, 2).T
    return Annotated(name, Path(path), Tracks(frame, identity, np.array(boxes, np.float32).reshape(-1, 4), **columns))


def frames(numbers):
    """Frames without pixels."""
    numbers = np.array(numbers)
    return Frames(numbers, HEIGHT, WIDTH, np.zeros((len(numbers), 50, 100, 3), np.uint8))
