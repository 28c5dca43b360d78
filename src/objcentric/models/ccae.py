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
from objcentric.models import capsule_fits, capsules
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
    layer_norm: bool = True
    inducing: int = 0
    pooling: str = "attention"
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
        capsules.check_mixture(self)
        if self.decoder == "baseline" and not self.deformable:
            raise UserError("model.decoder='baseline' has points that do not depend on the input: set model.deformable")


_ABSENT = -1e3  # logarithm of the presence of a capsule that begins all but absent
_AGAIN = 2  # steps of a fit after capsules have been put in order: those that look alike are not quite the same
_UNSURE = 0.01  # least and, from 1, largest probability of presence that counts: an encoder may be wrong


class Seen(NamedTuple):
    """What the model makes of a scene."""

    capsules: Capsules
    explained: Explained  # of all points; of absent ones it means nothing
    winner: Array  # int32 [N], the capsule of each point


class CCAE(NamedTuple):
    init: Callable  # (key) -> params
    infer: Callable  # (params, key, points [N, 2], presence [N]) -> Seen; without a key (None) there is no noise
    explain: Callable  # (points [N, 2], Capsules) -> Explained
    fit: Callable  # (points [N, 2], presence [N], Capsules, num_steps) -> Seen, by expectation-maximisation
    # (offsets [K, num_votes, 2], points [N, 2], presence [N], seen, starts: Capsules of S each, num_steps) -> Seen, the
    # best of many fits
    refine: Callable


def make(config: Config) -> CCAE:
    """Builds the pure functions of a CCAE, or of its baseline."""
    c = config
    encoder = SetTransformer(
        c.blocks, c.heads, c.units, c.features, c.num_capsules, c.layer_norm, c.inducing, c.mask, c.pooling
    )
    parts = "points" if c.decoder == "capsules" else "plain_points"
    decoder = ObjectDecoder(
        c.num_votes,
        parts,
        hidden=c.hidden,
        similarity=c.similarity,
        deformable=c.deformable,
        pose=c.pose,
        vote_presence=c.vote_presence,
        scale=c.scale,
    )

    def init(key: Array) -> dict:
        encoder_key, decoder_key = jax.random.split(key)
        features = jnp.zeros((c.num_capsules, c.features))
        return {
            "inference": encoder.init(encoder_key, jnp.zeros((1, 2)), jnp.ones(1)),
            "generative": decoder.init(decoder_key, features),
        }

    def infer(params: dict, key: Array | None, points: Array, presence: Array) -> Seen:
        features = encoder.apply(params["inference"], points, presence)
        noise = capsules.presence_noise(key, c.noise, (c.num_capsules,), (c.num_capsules, c.num_votes))
        seen = decoder.apply(params["generative"], features, *noise)
        explained = explain(points, seen)
        return Seen(seen, explained, capsules.winner(explained))

    def explain(points: Array, seen: Capsules) -> Explained:
        return capsules.explain_points(points, seen, mixture=c.mixture, dummy=c.dummy)

    def fit(points: Array, presence: Array, start: Capsules, num_steps: int) -> Seen:
        """Expectation-maximisation: who is where is known roughly, for known shapes the rest is least squares."""

        def step(carry: tuple, _: None) -> tuple[tuple, None]:
            better = capsule_fits.refit(points, presence, *carry)
            return (better, explain(points, better)), None

        (better, explained), _ = jax.lax.scan(step, (start, explain(points, start)), None, num_steps)
        return Seen(better, explained, capsules.winner(explained))

    def refine(offsets: Array, points: Array, presence: Array, seen: Seen, starts: Capsules, num_steps: int) -> Seen:
        """The best of what `fit` makes of capsules of which each begins all but absent, or as in one of ``starts``.

        Where the encoder is unsure it takes more capsules than there are constellations, and without some is a better
        start; they come back where points are left for them. Which is best is told by `information_criterion` and how
        likely the encoder takes the choice to be. Which of capsules that look alike is where is a convention: see
        `capsule_fits.in_order`, to which ``offsets`` tell what they look like.
        """
        present = jnp.clip(jnp.exp(seen.capsules.log_presence), _UNSURE, 1 - _UNSURE)
        capsule, num_starts = jnp.arange(c.num_capsules), len(starts.pose)
        # Of each capsule which start it is, counted from 1, or 0 if it is absent, wherever it is.
        choices = jnp.asarray(list(itertools.product(range(num_starts + 1), repeat=c.num_capsules))[1:])

        def one(choice: Array) -> tuple[Array, Seen]:
            of_each = Capsules(*(leaf[choice - 1, capsule] for leaf in starts[:-1]), starts.deformation[0])
            start = of_each._replace(log_presence=jnp.where(choice > 0, of_each.log_presence, _ABSENT))
            found = fit(points, presence, start, num_steps)
            log_prior = jnp.sum(jnp.log(jnp.where(choice > 0, present, 1 - present)))
            return information_criterion(presence, found) - log_prior, found

        criteria, found = jax.vmap(one)(choices)
        best = jnp.argmin(criteria)
        found = jax.tree.map(lambda leaf: leaf[best], found)
        ordered = capsule_fits.in_order(found.capsules, used(presence, found), offsets)
        return fit(points, presence, ordered, _AGAIN)

    return CCAE(init, infer, explain, fit, refine)


def used(presence: Array, seen: Seen) -> Array:
    """Which capsules win points that are there: ``[K]``, 1 or 0."""
    return jnp.max(jax.nn.one_hot(seen.winner, len(seen.capsules.log_presence)) * presence[:, None], 0)


def information_criterion(presence: Array, seen: Seen) -> Array:
    """How badly a scene is explained: less is better (Schwarz 1978, for all that capsules tell are their poses).

    Nats of the points that are there, and for each of the four numbers of a similarity half the logarithm of how many
    coordinates they are to explain. Without it a capsule that is not needed shrinks onto one point of another's.
    """
    fit = jnp.sum(jnp.where(presence > 0, seen.explained.log_likelihood, 0.0))
    numbers = 4 * jnp.sum(used(presence, seen))
    return numbers / 2 * jnp.log(jnp.maximum(2 * jnp.sum(presence), 1.0)) - fit
