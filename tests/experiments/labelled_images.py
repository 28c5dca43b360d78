"""Tiny labelled images of bars, and configs of capsule autoencoders to match."""

import numpy as np
from ml_collections import ConfigDict

from configs import ccae, scae
from objcentric.data.loader import Data


def make_split(num: int, seed: int, channels: int = 1) -> dict[str, np.ndarray]:
    """``num`` images of 10x10 pixels, of a bar that lies (label 0) or stands (label 1)."""
    rng = np.random.default_rng(seed)
    image, label = np.zeros((num, 10, 10, channels), np.uint8), np.arange(num, dtype=np.int32) % 2
    for one, kind in zip(image, label, strict=True):
        y, x = rng.integers(2, 4, 2)
        view = one.swapaxes(0, 1) if kind else one
        view[y : y + 3, x : x + 6] = rng.integers(150, 256, channels)
    return {"image": image, "label": label}


def make_data(channels: int = 1) -> Data:
    return Data(make_split(24, 0, channels), make_split(6, 1, channels), make_split(13, 2, channels))


def unlabelled(data: Data) -> Data:
    return Data(*({"image": split["image"]} for split in data))


def make_config(variant: str = "embedded", **fields) -> ConfigDict:
    """A small SCAE; ``fields`` are dotted names with '__' for '.'."""
    config = scae.get_config(variant)
    shrink(config)
    config.data.update(canvas=(12, 12), shift=1)
    config.update_from_flattened_dict({name.replace("__", "."): value for name, value in fields.items()})
    return config


def make_constellations(variant: str = "fast", **fields) -> ConfigDict:
    """A small CCAE."""
    config = ccae.get_config(variant)
    config.model.update(hidden=8, blocks=1, heads=2, units=4, features=6)
    config.data.update(num_train=12, num_valid=6, num_test=13)
    config.train.update(num_steps=4, batch_size=4, num_devices=1, inner_steps=2, log_every=2, eval_every=4)
    config.evaluate.update(batch_size=5, num_pictures=3)
    config.update_from_flattened_dict({name.replace("__", "."): value for name, value in fields.items()})
    return config


def shrink(config: ConfigDict) -> None:
    """Makes any config of an SCAE train in no time, on images as large as they are in the config."""
    config.model.update(num_parts=3, num_capsules=4, template_size=(4, 4), special_features=2, hidden=5)
    config.model.update(blocks=1, heads=1, units=4, features=6)
    strides = config.model.encoder_strides[:2]
    config.model.update(encoder_features=(4,) * len(strides), encoder_strides=strides)
    config.train.update(num_steps=4, batch_size=4, num_devices=1, inner_steps=2, log_every=2, eval_every=4)
    config.evaluate.update(batch_size=5, num_pictures=3)
    config.curriculum.update(parts_alone=0, parts_fixed=False)


def entropy(mass: np.ndarray) -> np.ndarray:
    """Nats, of shares of ``mass [..., K]``."""
    share = mass / mass.sum(-1, keepdims=True)
    return -np.sum(share * np.log(share), -1)
