"""Known shapes fitted to points: maximisation steps, other starts for them, and which of equal fits is meant.

CCAE's explanations of a scene are refined with these (`ccae.CCAE.fit`, `ccae.CCAE.refine`). They are for capsules of
points (`capsules.ObjectDecoder` with parts='points') whose poses are similarities and whose shapes no input deforms.
"""

import itertools

import jax
import jax.numpy as jnp
from jax import Array

from objcentric.models.capsules import Capsules, Explained
from objcentric.nn import poses

_PULL, _EXACT = 0.01, 0.01  # of `refit`: points that a vote counts as; the least standard deviation
# Of `disturb`: radians and units of the scene, and the standard deviation of votes, with which a search begins.
_TURN, _RESIZE, _SHIFT, _ROUGH = 1.6, 0.25, 0.2, 0.1
# Of `in_order`: how far apart what looks alike may be, in units of its size; further along x than any point.
_ALIKE, _FAR, _TINY = 0.25, 1e3, 1e-6


def refit(points: Array, presence: Array, capsules: Capsules, explained: Explained) -> Capsules:
    """A maximisation step, given the responsibilities for points ``[M, 2]`` with ``presence [M]``, 0 or 1.

    Each capsule is moved by the similarity that brings its votes nearest to the points that they explain, in the sense
    of weighted least squares. Presences become shares of points that capsules explain, and all votes have one standard
    deviation, `_EXACT` at least. Each vote counts as `_PULL` points more, which are where it is.
    """
    weight = explained.responsibility * presence[:, None, None]
    mass = jnp.sum(weight, 0) + _PULL  # [K, N]
    target = (jnp.einsum("mkn,md->knd", weight, points) + _PULL * capsules.votes) / mass[..., None]
    total = jnp.sum(mass, 1)
    middle, goal = (jnp.einsum("kn,knd->kd", mass, places) / total[:, None] for places in (capsules.votes, target))
    before, after = capsules.votes - middle[:, None], target - goal[:, None]
    size = jnp.einsum("kn,knd,knd->k", mass, before, before) + 1e-6
    along = jnp.einsum("kn,knd,knd->k", mass, before, after) / size
    across = jnp.einsum("kn,kn->k", mass, before[..., 0] * after[..., 1] - before[..., 1] * after[..., 0]) / size
    moved = _similarity(along, across, middle, goal)
    better = _moved(moved, capsules)
    error = jnp.sum(jnp.square(points[:, None, None] - better.votes[None]), -1)
    variance = jnp.sum(weight * error) / jnp.maximum(2 * jnp.sum(weight), 1e-3)
    explains = jnp.sum(weight, (0, 2)) + _PULL
    return better._replace(
        log_presence=jnp.log(explains / jnp.sum(explains)),
        scale=jnp.full_like(capsules.scale, 1.0) * jnp.sqrt(variance + _EXACT**2),
    )


def disturb(key: Array, capsules: Capsules) -> Capsules:
    """Capsules of points, each turned, resized and shifted at random about its votes' mean: another start to refit."""
    turn_key, size_key, shift_key = jax.random.split(key, 3)
    middle = jnp.mean(capsules.votes, 1)
    angle = jax.random.uniform(turn_key, (len(middle),), minval=-_TURN, maxval=_TURN)
    size = jnp.exp(_RESIZE * jax.random.normal(size_key, (len(middle),)))
    goal = middle + _SHIFT * jax.random.normal(shift_key, middle.shape)
    moved = _moved(_similarity(size * jnp.cos(angle), size * jnp.sin(angle), middle, goal), capsules)
    return moved._replace(scale=jnp.maximum(capsules.scale, _ROUGH))


def turn(capsules: Capsules, degrees: float | Array) -> Capsules:
    """Capsules of points, each turned about its votes' mean, from x towards y: another start to refit."""
    middle = jnp.mean(capsules.votes, 1)
    angle = jnp.full(len(middle), jnp.deg2rad(degrees))
    return _moved(_similarity(jnp.cos(angle), jnp.sin(angle), middle, middle), capsules)


def in_order(capsules: Capsules, used: Array, offsets: Array) -> Capsules:
    """Of explanations that differ in which of capsules that look alike is where, or turned by how much, one.

    Any of two squares may be where one is, turned by any quarter of a turn. By convention the first capsules are those
    furthest along x, the last ones those that are not used, and poses turn by as little as they can. Each may take the
    place of one that is alike, turned so that its outermost vote is where one of the other's is, its size the other's.
    Capsules are alike if each vote of either is then nearer to one of the other's than `_ALIKE` of their distance to
    the middle: the mean of all votes, so that triangles of four votes are only if the same corner is there twice.

    Args:
      capsules: K capsules of points by similarities, ``used [K]`` or not, 1 or 0. Votes are as likely one as another.
      offsets: ``[K, N, 2]`` of their votes, in their own frames.

    Returns:
      capsules that explain points as well, but for how much those that are alike differ.
    """
    num, num_votes = offsets.shape[:2]
    capsule, centre, middle = jnp.arange(num), jnp.mean(offsets, 1), jnp.mean(capsules.votes, 1)
    arms = jax.lax.complex(*jnp.moveaxis(offsets - centre[:, None], -1, 0))  # [K, N]
    size = jnp.sqrt(jnp.mean(jnp.square(jnp.abs(arms)), -1))
    arms = arms / (size[:, None] + _TINY)
    outermost = jnp.argmax(jnp.abs(arms), -1)
    # What turns capsule k so that its outermost vote is where j has its m-th: [k, j, m].
    turns = arms[None] * jnp.conj(arms[capsule, outermost])[:, None, None]
    turns = turns / (jnp.abs(turns) + _TINY)
    same = jnp.eye(num, dtype=bool)[..., None] & (jnp.arange(num_votes)[None] == outermost[:, None])[:, None]
    turns = jnp.where(same, 1.0, turns)
    apart = jnp.abs(turns[..., None, None] * arms[:, None, None, :, None] - arms[None, :, None, None])
    alike = jnp.maximum(jnp.max(jnp.min(apart, -1), -1), jnp.max(jnp.min(apart, -2), -1)) < _ALIKE
    pairs = jnp.any(alike, -1)
    # Least is the sum of these where the first have the largest.
    late = capsule[:, None] * jnp.where(used > 0, middle[:, 0], -_FAR)[None]
    late = jnp.where(pairs & pairs.T, late, jnp.inf)
    ways = jnp.asarray(list(itertools.permutations(range(num))))
    place = ways[jnp.argmin(jnp.sum(late[capsule[None], ways], -1))]
    linear = jax.lax.complex(capsules.pose[:, 0, 0], capsules.pose[:, 1, 0])[place, None] * turns[capsule, place]
    upright = jnp.argmax(jnp.where(alike[capsule, place], linear.real, -jnp.inf), -1)
    linear = linear[capsule, upright] * jnp.where(place == capsule, 1.0, size[place] / (size + _TINY))
    pose = _similarity(linear.real, linear.imag, centre, middle[place])
    return capsules._replace(
        log_presence=capsules.log_presence[place],
        pose=pose,
        votes=poses.move(pose, offsets),
        scale=capsules.scale[place],
    )


def _moved(by: Array, capsules: Capsules) -> Capsules:
    """Capsules moved by maps ``[K, 2, 3]``."""
    return capsules._replace(pose=poses.compose(by, capsules.pose), votes=poses.move(by, capsules.votes))


def _similarity(along: Array, across: Array, middle: Array, goal: Array) -> Array:
    """Maps ``[K, 2, 3]`` by [[along, -across], [across, along]] that take ``middle [K, 2]`` to ``goal [K, 2]``."""
    linear = jnp.stack([jnp.stack([along, -across], -1), jnp.stack([across, along], -1)], -2)
    shift = goal - jnp.einsum("kij,kj->ki", linear, middle)
    return jnp.concatenate([linear, shift[..., None]], -1)
