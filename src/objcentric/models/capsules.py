"""Object capsules predict parts: the decoder and the mixtures that CCAE and OCAE share (thesis, sections 6.2.1, 6.2.3).

Everything speaks of one example: K object capsules make N votes each for M parts. A part is a point, or a pose
flattened to six numbers.
"""

from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array

from objcentric import distributions
from objcentric.errors import UserError
from objcentric.nn import poses

MIXTURES = ("normalised", "unnormalised")
SCALES = ("vote", "scene")


class Capsules(NamedTuple):
    """Object capsules and their votes; logarithms of presences, because those of unlikely ones vanish."""

    log_presence: Array  # [K] log a_k
    log_vote_presence: Array  # [K, N] log a_{k,n}, given that the capsule is there
    pose: Array  # [K, 2, 3] OV, from the object to the viewer
    votes: Array  # [K, N, 2] points, or [K, N, 2, 3] poses
    scale: Array  # [K, N] lambda, the standard deviations of the votes
    deformation: Array  # [] half the squared norm of what depends on the input in all OPs


class Explained(NamedTuple):
    """Parts as mixtures of votes, of which n in each capsule are for the part: N, or the one that is its own."""

    log_likelihood: Array  # [M] log p(x_m)
    log_joint: Array  # [M, K, n] log a_k a_{k,n} p(x_m | k, n): the logarithm of the posterior in equation 6.11
    log_share: Array  # [M, K, n] logarithm of what each adds to p(x_m)
    responsibility: Array  # [M, K, n] share of the mixture, which a dummy keeps below 1 in sum


class ObjectDecoder(nn.Module):
    """A separate perceptron for each capsule, ``features [K, D] -> Capsules`` (equations 6.2 and 6.3).

    All perceptrons are batched products. OP is what is learnt, the same for each input, plus what the perceptron
    makes of the features; without ``deformable`` it is the former alone.

    ``parts``: 'poses', whose OPs are affine maps; 'points', whose OPs are offsets in the object's frame (section
    6.A.1); 'plain_points', the thesis' baseline: offsets are the points, and no OV moves them (section 6.3.1).
    """

    num_votes: int  # N
    parts: str
    hidden: int = 128
    similarity: bool = False  # whether poses are similarities; else affine
    deformable: bool = True
    pose: str = "composed"  # what tells OVs and OPs: 'composed' of scales, angle and shear, or the 'matrix' itself
    vote_presence: bool = True  # whether votes of a capsule that is there may be absent
    scale: str = "vote"  # whether each 'vote' has its standard deviation, or all votes of a 'scene' share one
    vote_std: float = 0.0  # standard deviation of all votes; 0: it is learnt
    initial_presence: float = 0.5  # what presences of capsules are about at first

    @nn.compact
    def __call__(
        self, features: Array, capsule_noise: Array | None = None, vote_noise: Array | None = None
    ) -> Capsules:
        """``capsule_noise [K]`` and ``vote_noise [K, N]`` are added to the logits of presences, in training."""
        num, width = features.shape
        freedom = 6 if self.parts == "poses" else 2
        each = nn.initializers.variance_scaling(1.0, "fan_in", "truncated_normal", batch_axis=0)
        little = nn.initializers.variance_scaling(0.1, "fan_in", "truncated_normal", batch_axis=0)
        first = self.param("hidden", each, (num, width, self.hidden))
        bias = self.param("hidden_bias", nn.initializers.zeros, (num, self.hidden))
        second = self.param("output", little, (num, self.hidden, 7 + 2 * self.num_votes))
        offset = self.param("output_bias", nn.initializers.normal(0.1), (num, 7 + 2 * self.num_votes))
        # Objects begin undeformed: else the penalty of deformation is what the first steps are about.
        none = little if self.parts == "plain_points" else nn.initializers.zeros
        deform = self.param("deform", none, (num, self.hidden, self.num_votes * freedom))
        static = self.param(
            "static", nn.initializers.normal(0.3 if freedom == 2 else 0.1), (num, self.num_votes, freedom)
        )

        h = nn.relu(jnp.einsum("kd,kdh->kh", features, first) + bias)
        raw_pose, logit, of_votes = jnp.split(jnp.einsum("kh,kho->ko", h, second) + offset, [6, 7], -1)
        vote_logit, raw_scale = jnp.split(of_votes, 2, -1)
        # The dynamic part has no bias: that is the static one.
        dynamic = jnp.einsum("kh,kho->ko", h, deform).reshape(static.shape) * self.deformable
        as_pose = poses.KINDS[self.pose]
        if self.parts == "poses" and self.pose == "matrix":
            raw_pose += jnp.eye(2, 3).reshape(1, 6)  # objects begin about as large as their parts say, and upright
        pose = as_pose(raw_pose, similarity=self.similarity)
        if self.scale == "scene":
            raw_scale = jnp.broadcast_to(jnp.mean(raw_scale), raw_scale.shape)
        if not self.vote_presence:
            vote_logit = jnp.full_like(vote_logit, jnp.inf)
        relation = static + dynamic
        if self.parts == "poses":
            votes = poses.compose(pose[:, None], as_pose(relation, similarity=self.similarity))
        else:
            votes = relation if self.parts == "plain_points" else poses.move(pose, relation)
        logit = logit[:, 0] + jax.scipy.special.logit(self.initial_presence)
        return Capsules(
            log_presence=nn.log_sigmoid(logit if capsule_noise is None else logit + capsule_noise),
            log_vote_presence=nn.log_sigmoid(vote_logit if vote_noise is None else vote_logit + vote_noise),
            pose=pose,
            votes=votes,
            scale=jnp.full_like(raw_scale, self.vote_std) if self.vote_std else nn.softplus(raw_scale + 0.5) + 0.01,
            deformation=jnp.sum(jnp.square(dynamic)) / 2 * (self.parts != "plain_points"),
        )


def log_prior_presence(capsules: Capsules) -> Array:
    """Logarithm ``[K]`` of a_k max_n a_{k,n} (equation 6.11)."""
    return capsules.log_presence + jnp.max(capsules.log_vote_presence, -1)


def explain_points(points: Array, capsules: Capsules, *, mixture: str, dummy: float) -> Explained:
    """Points ``[M, 2]``, each of which any vote may explain (equation 6.5); see `_mixture`."""
    log_density = distributions.spherical_log_prob(points[:, None, None], capsules.votes[None], capsules.scale[None])
    log_weight = capsules.log_presence[:, None] + capsules.log_vote_presence
    return _mixture(jnp.broadcast_to(log_weight, log_density.shape), log_density, capsules, mixture, dummy)


def explain_poses(pose: Array, capsules: Capsules, *, mixture: str, dummy: float) -> Explained:
    """Poses ``[M, 2, 3]`` of parts, for each of which every capsule has one vote (equation 6.10); see `_mixture`."""
    flat = (len(pose), -1)
    votes = jnp.swapaxes(capsules.votes, 0, 1).reshape(*flat, 6)
    log_density = distributions.spherical_log_prob(pose.reshape(flat)[:, None], votes, capsules.scale.T)
    log_weight = (capsules.log_presence[:, None] + capsules.log_vote_presence).T
    return _mixture(log_weight[..., None], log_density[..., None], capsules, mixture, dummy)


def winner(explained: Explained) -> Array:
    """int ``[M]``: the capsule that has the component of highest posterior probability (section 6.2.1)."""
    return jnp.argmax(jnp.max(explained.log_joint, -1), -1)


def _mixture(log_weight: Array, log_density: Array, capsules: Capsules, mixture: str, dummy: float) -> Explained:
    """Of ``log_weight`` and ``log_density``, both ``[M, K, n]``.

    Args:
      mixture: 'normalised': weights are divided by the sum over all capsules of a_k and over all their votes of
        a_{k,n}, as equations 6.5 and 6.10 have it (in the latter, where one vote of each capsule is for the part,
        they sum to less than 1); 'unnormalised', as in the released SCAE: they are the presences themselves.
      dummy: weight times density of a component that explains what no capsule does; 0: there is none.
    """
    log_joint = log_weight + log_density
    log_share = log_joint
    if mixture == "normalised":
        log_share -= jax.nn.logsumexp(capsules.log_presence[:, None] + capsules.log_vote_presence)
    log_likelihood = jax.nn.logsumexp(log_share, (1, 2))
    if dummy:
        log_likelihood = jnp.logaddexp(log_likelihood, jnp.log(dummy))
    return Explained(log_likelihood, log_joint, log_share, jnp.exp(log_share - log_likelihood[:, None, None]))


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
