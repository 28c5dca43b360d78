"""Tiny videos of bright squares with boxes, and configs of trackers to match."""

import numpy as np
from ml_collections import ConfigDict

from configs import mohart, mohart_toy
from objcentric.data.loader import Data, Stream
from tests.experiments import scenes

FRAMES, CANVAS = 5, (16, 20)


def make_split(num: int, seed: int, canvas: tuple[int, int] = CANVAS, slots: int = 3) -> dict[str, np.ndarray]:
    """``num`` videos of 2 squares of side 5 in 3 slots, which move to the right; of every third one the second goes."""
    rng = np.random.default_rng(seed)
    split = {
        "image": np.zeros((num, FRAMES, *canvas, 3), np.uint8),
        "boxes": np.zeros((num, FRAMES, slots, 4), np.float32),
        "filmed": np.ones((num, FRAMES), np.uint8),
        "presence": np.zeros((num, FRAMES, slots), np.uint8),
        "known": np.ones((num, FRAMES, slots), np.uint8),
        "identity": np.tile(np.array([4, 7] + [0] * (slots - 2), np.int32), (num, 1)),
    }
    for i in range(num):
        for j in range(2):
            y, x = 8 * j + rng.integers(0, 3), rng.integers(0, 10)
            for t in range(FRAMES - 2 if j and i % 3 == 0 else FRAMES):
                split["image"][i, t, y : y + 5, x + t : x + t + 5, j] = 200
                split["boxes"][i, t, j] = y, x + t, y + 5, x + t + 5
                split["presence"][i, t, j] = 1
    return split


def make_data() -> Data:
    valid, test = make_split(4, 1), make_split(7, 2)
    streams = [
        Stream(len(split["image"]), lambda rows, split=split: {key: array[rows] for key, array in split.items()})
        for split in (valid, test)
    ]
    return Data(make_split(12, 0), *streams)


def make_config(variant: str = "fast", **fields) -> ConfigDict:
    """A small tracker of `make_data`; ``fields`` are dotted names with '__' for '.'."""
    config = mohart.get_config(variant)
    shrink(config)
    config.data.update(num_frames=FRAMES, frame_size=CANVAS, num_objects=3)
    config.curriculum.update(first_frames=3, steps=(2,))
    config.task.black_frames = 2
    config.train.update(num_steps=4, inner_steps=2, eval_every=4)
    config.update_from_flattened_dict({name.replace("__", "."): value for name, value in fields.items()})
    return config


def make_toy(variant: str = "identities", **fields) -> ConfigDict:
    """A small toy world."""
    config = mohart_toy.get_config(variant)
    shrink(config)
    config.data.update(side=20, radius=3.0, num_objects=2, num_frames=4, substeps=2)
    config.task.black_frames = 2
    config.curriculum.update(first_frames=3, steps=(2,))
    config.guidance.update(steps=(1, 2), shift=1.0)
    config.evaluate.num_frames = 6
    config.update_from_flattened_dict({name.replace("__", "."): value for name, value in fields.items()})
    return config


def shrink(config: ConfigDict) -> None:
    small = {"objective": {}, "model": {}, **{part: config[part] for part in ("data", "train", "evaluate")}}
    scenes.shrink(small)
    config.model.update(glimpse_size=(8, 8), cnn_features=(4, 4, 6), cnn_kernel=3, features=8, hidden=8, heads=2)
    config.train.cpu_devices = 0
