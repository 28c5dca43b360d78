"""Scenes of several digits on a canvas, as a TensorFlow Datasets builder that needs no TensorFlow."""

import dataclasses

import numpy as np
import tensorflow_datasets as tfds
from ml_collections import ConfigDict

from objcentric.data import builder, digits


@dataclasses.dataclass(kw_only=True)
class SceneConfig(builder.DigitsConfig):
    """The fields of config.data that a scene depends on."""

    overlap: bool
    background: str


class MultiDigit(builder.DigitsBuilder):
    """Scenes of several digits on a canvas."""

    def features(self) -> dict[str, tfds.features.FeatureConnector]:
        most = self.builder_config.num_objects[1]
        return {
            "image": tfds.features.Tensor(shape=(*self.builder_config.canvas, 1), dtype=np.uint8, encoding="bytes"),
            "count": tfds.features.Scalar(dtype=np.int32),
            "boxes": tfds.features.Tensor(shape=(most, 4), dtype=np.float32),
            "label": tfds.features.Tensor(shape=(most,), dtype=np.int32),
        }

    def compose(self, pool: digits.Digits, rng: np.random.Generator) -> dict[str, np.ndarray]:
        return compose(self.builder_config, pool, rng)


def prepare(c: ConfigDict) -> tfds.core.DatasetBuilder:
    """Builder of the scenes of a validated config.data; see `builder.prepare`."""
    return builder.prepare(MultiDigit, SceneConfig.make(c))


def compose(config: SceneConfig, pool: digits.Digits, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Draws one scene: a number of digits, which, how large, and where; blended by maximum.

    Digits that find no room are drawn anew, their number is not; UserError after 100 times.
    Returns image uint8 [H, W, 1], count int32, boxes float32 [R, 4] (of the placed digits) and label int32 [R], where
    R is the most digits a scene may have.
    """
    least, most = config.num_objects
    count = rng.integers(least, most, endpoint=True)
    drawn = builder.draw(config, pool, np.full(count, not config.overlap), rng, mend=", or set data.overlap")

    canvas = np.zeros(config.canvas, np.uint8)
    boxes = np.zeros((most, 4), np.float32)
    label = np.full(most, -1, np.int32)
    boxes[:count], label[:count] = drawn.boxes, drawn.label
    for glyph, (y0, x0, y1, x1) in zip(drawn.glyphs, drawn.boxes, strict=True):
        region = canvas[y0:y1, x0:x1]
        np.maximum(region, glyph, out=region)
    if config.background == "structured":
        lit = canvas + 255 * structured_background(config.canvas, rng)
        canvas = np.minimum(np.round(lit), 255).astype(np.uint8)
    return {"image": canvas[..., None], "count": np.int32(count), "boxes": boxes, "label": label}


def structured_background(canvas: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """Smooth pattern [H, W] in [0, 0.5]: a slope plus a grating, both of random direction, phase and strength.

    As the notes ask in section 7, the image has structure outside the digits: objects alone must waste their slots on
    it, or leave it unexplained. It has six degrees of freedom, so that a small latent can carry it.
    """
    v, u = np.meshgrid(*(np.linspace(-1, 1, side) for side in canvas), indexing="ij")
    slope_angle, angle, phase = rng.uniform(0, 2 * np.pi, 3)
    cycles = rng.uniform(0.5, 1.5)  # of the grating over the canvas
    slope = rng.uniform(0, 0.06) * (np.cos(slope_angle) * u + np.sin(slope_angle) * v)  # at most .085 in the corners
    wave = rng.uniform(0.08, 0.16) * np.sin(np.pi * cycles * (np.cos(angle) * u + np.sin(angle) * v) + phase)
    return 0.25 + slope + wave
