"""Tiny sequences of bright squares that move, and a config of SQAIR to match."""

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from configs import sqair as configs
from experiments import sequences as shared
from objcentric.data.loader import Data
from objcentric.training.experiment import Experiment
from tests.experiments import scenes


def make_split(num: int, seed: int, frames: int = 4) -> dict[str, np.ndarray]:
    """``num`` sequences of 12x14 pixels with 0 to 2 squares of side 4, annotated; they move down by a pixel a frame."""
    rng = np.random.default_rng(seed)
    shape = (num, frames, 2)
    split = {
        "image": np.zeros((num, frames, 12, 14, 1), np.uint8),
        "presence": np.zeros(shape, np.uint8),
        "boxes": np.zeros((*shape, 4), np.float32),
        "visibility": np.zeros(shape, np.float32),
        "label": np.full((num, 2), -1, np.int32),
    }
    for i in range(num):
        for j in range(i % 3):
            y, x = rng.integers(0, 9 - frames), rng.integers(0, 4) + 7 * j
            split["presence"][i, :, j] = split["visibility"][i, :, j] = 1
            split["label"][i, j] = j
            for t in range(frames):
                split["image"][i, t, y + t : y + t + 4, x : x + 4] = 200
                split["boxes"][i, t, j] = y + t, x, y + t + 4, x + 4
    return split | {"count": split["presence"].sum(-1).astype(np.int32)}


def make_data(frames: int = 4) -> Data:
    return Data(make_split(24, 0, frames), make_split(6, 1, frames), make_split(13, 2, frames))


def make_config(**fields) -> ConfigDict:
    """A small SQAIR; ``fields`` are dotted names with '__' for '.'."""
    config = configs.get_config()
    shrink(config)
    config.model.object_size = (4.0, 4.0)
    config.update_from_flattened_dict({name.replace("__", "."): value for name, value in fields.items()})
    return config


def shrink(config: ConfigDict) -> None:
    """Makes any config of SQAIR train in no time."""
    scenes.shrink(config)
    config.data.update(num_frames=4)
    config.model.update(num_objects=2, glimpse_size=(4, 4), encoder_features=(2, 2), encoder_strides=(2, 1))
    config.model.update(decoder_features=(2, 2), decoder_strides=(1, 2), decoder_hidden=4)
    config.train.update(num_steps=4, inner_steps=2, eval_every=4)
    config.curriculum.update(first_frames=2, steps=(2,))
    config.evaluate.update(given_frames=2, addition_steps=20, addition_examples=10)


def learn_by_heart(experiment: Experiment, number: int, num_steps: int, learning_rate: float) -> tuple:
    """Trains on the first ``number`` sequences: parameters, metrics of each step, log p of a black frame."""
    x = {"image": experiment.data.train["image"][:number]}
    params, metrics = scenes.learn_by_heart(experiment, x, num_steps, learning_rate)
    pixels, _ = shared.reader("gaussian")(x["image"], None)
    return params, metrics, jnp.mean(jnp.sum(jax.scipy.stats.norm.logpdf(pixels, 0, 0.3), (2, 3, 4)))
