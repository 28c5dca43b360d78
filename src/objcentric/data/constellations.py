"""Constellations of points, squares and a triangle: the toy data of the CCAE (thesis, section 6.3.1), drawn in JAX.

A scene has a slot for each point of each of its constellations. Each constellation is there with probability ``keep``,
under a similarity transformation of its own; the points come in random order, those that are absent among them.

The thesis leaves open ranges of scale and shift, the triangle's sides, and what becomes of scenes without a point.
"""

import dataclasses
import functools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from ml_collections import ConfigDict

from objcentric.errors import UserError

PATTERNS = {  # points about their mean; a pattern's number is its place here
    "square": ((-1.0, -1.0), (-1.0, 1.0), (1.0, 1.0), (1.0, -1.0)),
    "triangle": ((-2 / 3, -2 / 3), (-2 / 3, 4 / 3), (4 / 3, -2 / 3)),  # right, with legs of 2
}


@dataclasses.dataclass(frozen=True)
class Config:
    """Fields of config.data, by their names there."""

    patterns: tuple[str, ...] = ("square", "triangle", "square")  # of the constellations, names of `PATTERNS`
    keep: float = 0.5  # probability that a constellation is there
    scale: tuple[float, float] = (1.0, 4.0)  # smallest and largest; uniform in between
    rotation: float = 180.0  # uniform in +-rotation, degrees
    shift: float = 6.0  # uniform in +-shift along each axis, in the units of the patterns
    normalise: str = "example"  # what shares one scale and origin: the points of an 'example' or of the whole 'world'
    allow_empty: bool = True  # whether scenes may have no point; else they are drawn anew

    def __post_init__(self):
        unknown = [name for name in self.patterns if name not in PATTERNS]
        if unknown or not self.patterns:
            raise UserError(f"data.patterns={tuple(self.patterns)}: name one or more of {', '.join(PATTERNS)}")
        if not 0 <= self.keep <= 1:
            raise UserError(f"data.keep={self.keep} must lie in [0, 1]")
        if self.keep == 0 and not self.allow_empty:
            raise UserError("data.keep=0 leaves every scene empty: raise it, or set data.allow_empty")
        if len(self.scale) != 2 or not 0 < self.scale[0] <= self.scale[1] < math.inf:
            raise UserError(f"data.scale={tuple(self.scale)} must be two numbers above 0, the smallest first")
        if not 0 <= self.rotation <= 180:
            raise UserError(f"data.rotation={self.rotation} must lie in [0, 180] degrees")
        if not 0 <= self.shift < math.inf:
            raise UserError(f"data.shift={self.shift} must be at least 0, and finite")
        if self.normalise not in ("example", "world"):
            raise UserError(f"data.normalise={self.normalise!r}: choose 'example' or 'world'")


class Scene(NamedTuple):
    """Points, of which those that are absent lie at 0. N is `num_points`."""

    points: Array  # [N, 2]
    presence: Array  # [N] 0 or 1
    constellation: Array  # int32 [N], its place in config.patterns; -1 where absent
    pattern: Array  # int32 [N], its place in `PATTERNS`; -1 where absent


def num_points(config: Config) -> int:
    """Slots for points in a scene: 11 in the thesis."""
    return sum(len(PATTERNS[name]) for name in config.patterns)


def batch(config: Config, keys: Array, keep: Array | None = None) -> Scene:
    """Scenes ``[B, N, ...]`` in [-1, 1]^2, one for each key; ``keep`` takes the place of that of ``config``.

    Each depends on its own key alone. With ``normalise='example'`` its points are as in the thesis (`normalise`); with
    'world' all scenes have one scale, by which the farthest point that there can be is at 1. The released code has the
    bounding box of a hundred batches instead, which is a little smaller.
    """
    scenes = jax.vmap(functools.partial(draw, config, keep=keep))(keys)
    if config.normalise == "example":
        return jax.vmap(normalise)(scenes)
    radius = max(math.hypot(*point) for name in config.patterns for point in PATTERNS[name])
    return scenes._replace(points=scenes.points / (config.shift + config.scale[1] * radius))


def draw(config: Config, key: Array, keep: Array | None = None) -> Scene:
    """A scene in the units of the patterns, before it is normalised; ``keep`` as of `batch`."""
    keep_key, scale_key, rotation_key, shift_key, order_key = jax.random.split(key, 5)
    many = len(config.patterns)
    sizes = [len(PATTERNS[name]) for name in config.patterns]
    owner = np.repeat(np.arange(many), sizes)
    kind = np.array([list(PATTERNS).index(name) for name in config.patterns])[owner]
    pattern = jnp.asarray(np.concatenate([PATTERNS[name] for name in config.patterns]), jnp.float32)

    scale = jax.random.uniform(scale_key, (many,), minval=config.scale[0], maxval=config.scale[1])
    angle = jnp.deg2rad(jax.random.uniform(rotation_key, (many,), minval=-config.rotation, maxval=config.rotation))
    shift = jax.random.uniform(shift_key, (many, 2), minval=-config.shift, maxval=config.shift)
    cos, sin = (scale * jnp.cos(angle))[owner], (scale * jnp.sin(angle))[owner]
    x, y = pattern[:, 0], pattern[:, 1]
    points = jnp.stack([cos * x - sin * y, sin * x + cos * y], -1) + shift[owner]

    there = _kept(config, keep_key, config.keep if keep is None else keep)[owner]
    order = jax.random.permutation(order_key, len(owner))
    return Scene(
        points=jnp.where(there[:, None], points, 0.0)[order],
        presence=there.astype(jnp.float32)[order],
        constellation=jnp.where(there, owner, -1).astype(jnp.int32)[order],
        pattern=jnp.where(there, kind, -1).astype(jnp.int32)[order],
    )


def normalise(scene: Scene) -> Scene:
    """Moves and scales the points ``[N, 2]`` alike, so that their bounding box is centred and just within +-1.

    Both axes have one scale, so that similarities stay similarities. Without a point there is nothing to do.
    """
    there = scene.presence[:, None] > 0
    some = jnp.any(there, keepdims=True)
    low = jnp.where(some, jnp.min(scene.points, 0, where=there, initial=jnp.inf, keepdims=True), -1.0)
    high = jnp.where(some, jnp.max(scene.points, 0, where=there, initial=-jnp.inf, keepdims=True), 1.0)
    half = jnp.max(high - low) / 2
    points = (scene.points - (low + high) / 2) / half
    return scene._replace(points=jnp.where(there, points, 0.0))


def _kept(config: Config, key: Array, keep: float | Array) -> Array:
    """Which constellations are there, bool ``[C]``; one at least if scenes may not be empty."""
    many = len(config.patterns)
    if config.allow_empty:
        return jax.random.bernoulli(key, keep, (many,))
    # Drawn anew as often as it takes is drawn once among all other choices.
    choices = (np.arange(1, 2**many)[:, None] >> np.arange(many)) % 2 == 1
    probability = jnp.prod(jnp.where(choices, keep, 1 - keep), 1)
    return jnp.asarray(choices)[jax.random.choice(key, len(choices), p=probability / probability.sum())]


def make_config(c: ConfigDict) -> Config:
    """Typed, of config.data."""
    fields = {field.name: c[field.name] for field in dataclasses.fields(Config)}
    return Config(**fields | {"patterns": tuple(c.patterns), "scale": tuple(c.scale)})
