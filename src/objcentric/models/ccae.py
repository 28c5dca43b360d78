"""CCAE, the constellation autoencoder (thesis, section 6.2.1): tells points apart by the objects they belong to.

Everything speaks of one scene of N points; a capsule makes ``num_votes`` candidates of points.
"""

import dataclasses
import itertools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from objcentric.errors import UserError
from objcentric.models import capsules
from objcentric.models.capsules import Capsules, Explained, ObjectDecoder
from objcentric.models.model import check_fields
from objcentric.nn import poses
from objcentric.nn.set_transformer import SetTransformer


@dataclasses.dataclass(frozen=True)
class Config:
    """Typed ``config.model``; the fields are explained in configs/ccae.py."""

    num_capsules: int = 3
    num_votes: int = 4
    decoder: str = "capsules"
    similarity: bool = False
    deformable: bool = True
    pose: str = "composed"
    vote_presence: bool = True
    scale: str = "vote"
    hidden: int = 128
    blocks: int = 4
    heads: int = 4
    units: int = 32
    features: int = 32
    mask: str = "log_presence"
    mixture: str = "normalised"
    dummy: float = 0.0
    noise: float = 0.0

    def __post_init__(self):
        check_fields(
            self,
            choices={
                "decoder": ("capsules", "baseline"),
                "mixture": capsules.MIXTURES,
                "pose": tuple(poses.KINDS),
                "scale": capsules.SCALES,
            },
            positive=("num_capsules", "num_votes", "hidden", "features"),
        )
        check_mixture(self)
        if self.decoder == "baseline" and not self.deformable:
            raise UserError("model.decoder='baseline' has points that do not depend on the input: set model.deformable")


_ABSENT = -1e3  # logarithm of the presence of a capsule that is left out


class Seen(NamedTuple):
    """What the model makes of a scene."""

    capsules: Capsules
    explained: Explained  # of all points; of absent ones it means nothing
    winner: Array  # int32 [N], the capsule of each point


class CCAE(NamedTuple):
    init: Callable  # (key) -> params
    infer: Callable  # (params, key, points [N, 2], presence [N]) -> Seen; without a key (None) there is no noise
    refine: Callable  # (points [N, 2], presence [N], seen, num_steps) -> Seen, by expectation-maximisation


def make(config: Config) -> CCAE:
    """Builds the pure functions of a CCAE, or of its baseline."""
    encoder = SetTransformer(
        config.blocks, config.heads, config.units, config.features, config.num_capsules, mask=config.mask
    )
    parts = "points" if config.decoder == "capsules" else "plain_points"
    decoder = ObjectDecoder(
        config.num_votes,
        parts,
        hidden=config.hidden,
        similarity=config.similarity,
        deformable=config.deformable,
        pose=config.pose,
        vote_presence=config.vote_presence,
        scale=config.scale,
    )

    def init(key: Array) -> dict:
        encoder_key, decoder_key = jax.random.split(key)
        features = jnp.zeros((config.num_capsules, config.features))
        return {
            "inference": encoder.init(encoder_key, jnp.zeros((1, 2)), jnp.ones(1)),
            "generative": decoder.init(decoder_key, features),
        }

    def infer(params: dict, key: Array | None, points: Array, presence: Array) -> Seen:
        features = encoder.apply(params["inference"], points, presence)
        noise = presence_noise(key, config.noise, (config.num_capsules,), (config.num_capsules, config.num_votes))
        seen = decoder.apply(params["generative"], features, *noise)
        explained = explained_by(points, seen)
        return Seen(seen, explained, capsules.winner(explained))

    def explained_by(points: Array, seen: Capsules) -> Explained:
        return capsules.explain_points(points, seen, mixture=config.mixture, dummy=config.dummy)

    def refine(points: Array, presence: Array, seen: Seen, num_steps: int) -> Seen:
        """The likeliest of what expectation-maximisation makes of each choice of some capsules, those of ``seen``.

        The encoder tells roughly who is where; for shapes that are known the rest is a matter of least squares. Where
        it is unsure it takes more capsules than there are constellations, and leaving some out is a better start.
        """
        choices = jnp.asarray(list(itertools.product((0.0, 1.0), repeat=config.num_capsules))[1:])

        def one(chosen: Array) -> tuple[Array, Seen]:
            start = seen.capsules._replace(log_presence=jnp.where(chosen > 0, seen.capsules.log_presence, _ABSENT))

            def step(carry: tuple, _: None) -> tuple[tuple, None]:
                better = capsules.refit(points, presence, *carry)
                return (better, explained_by(points, better)), None

            (better, explained), _ = jax.lax.scan(step, (start, explained_by(points, start)), None, num_steps)
            fit = jnp.sum(jnp.where(presence > 0, explained.log_likelihood, 0.0))
            return fit, Seen(better, explained, capsules.winner(explained))

        fits, better = jax.vmap(one)(choices)
        return jax.tree.map(lambda leaf: leaf[jnp.argmax(fits)], better)

    return CCAE(init, infer, refine)


def presence_noise(key: Array | None, width: float, *shapes: tuple[int, ...]) -> tuple[Array | None, ...]:
    """Noise in +-width for logits of each of ``shapes``, or None for none: without a key there is no training."""
    if key is None or not width:
        return (None,) * len(shapes)
    keys = jax.random.split(key, len(shapes))
    return tuple(
        jax.random.uniform(k, shape, minval=-width, maxval=width) for k, shape in zip(keys, shapes, strict=True)
    )


def check_mixture(config: object) -> None:
    if not 0 <= config.dummy < float("inf"):
        raise UserError(f"model.dummy={config.dummy}: use 0, for none, or more")
    if config.noise < 0:
        raise UserError(f"model.noise={config.noise}: use 0 or more")
