"""Circles in a box that push and pull one another: the toy worlds of MOHART (thesis, section 4.4), simulated in JAX.

Circles of mass one collide elastically with one another and with the walls. Between each pair acts a force along the
line through their centres, ``strength`` over a power of their distance. In scenario 1 all repel, by 1/r. In scenario 2
each circle has one of two identities, seen as its colour; by 1/sqrt(r) likes repel and others attract; and at each time
step each circle gets, with probability ``randomness``, an identity drawn anew.

The thesis leaves open all sizes and constants. Those of configs/mohart_toy.py are such that, in scenario 2, a guess
that nothing moves scores an IoU of .34, as reported.

A step of time is a frame: velocities are in pixels per frame. It is made of ``substeps`` of the leapfrog method, which
conserves energy up to its second order, as long as identities stay.
"""

import dataclasses
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax
from ml_collections import ConfigDict

from objcentric.errors import UserError

COLOURS = ((1.0, 0.75, 0.1), (0.2, 0.5, 1.0))  # RGB of the identities


@dataclasses.dataclass(frozen=True)
class Config:
    """Fields of ``config.data``, explained in configs/mohart_toy.py."""

    side: int = 64
    num_objects: int = 4
    num_frames: int = 15
    radius: float = 6.0
    speed: float = 3.0
    strength: float = 1.0
    power: float = 1.0
    identities: int = 1
    randomness: float = 0.0
    friction: float = 0.0
    substeps: int = 8

    def __post_init__(self):
        for name in ("num_objects", "num_frames", "substeps", "side"):
            if getattr(self, name) < 1:
                raise UserError(f"data.{name}={getattr(self, name)} must be at least 1")
        for name in ("speed", "friction"):
            if not 0 <= getattr(self, name) < math.inf:
                raise UserError(f"data.{name}={getattr(self, name)} must be at least 0")
        if not math.isfinite(self.strength):
            raise UserError(f"data.strength={self.strength} must be a finite number")
        if not 0 <= self.power <= 2:
            raise UserError(f"data.power={self.power} must lie in [0, 2]")
        if self.identities not in (1, 2):
            raise UserError(f"data.identities={self.identities}: use 1 (all repel) or 2 (likes repel, others attract)")
        if not 0 <= self.randomness <= 1:
            raise UserError(f"data.randomness={self.randomness} must lie in [0, 1]")
        cells = int(self.side // (2 * self.radius)) if self.radius > 0 else 0
        if cells**2 < self.num_objects:
            raise UserError(
                f"{self.num_objects} circles of data.radius={self.radius} find no room in data.side={self.side}"
            )


class World(NamedTuple):
    """A simulated sequence."""

    position: Array  # [T, N, 2] centres, y and x in pixels
    velocity: Array  # [T, N, 2] pixels per frame
    identity: Array  # int32 [T, N], that of the forces from this frame to the next


def simulate(config: Config, key: Array, bias: Array | float = 0.0) -> World:
    """A world that begins with circles apart from each other, and velocities of either axis uniform in +-speed.

    Identities are uniform; or, in a share ``bias`` in [0, 1] of the draws, the first one.
    """
    place_key, speed_key, identity_key, change_key = jax.random.split(key, 4)
    shape = (config.num_objects,)
    position = _apart(config, place_key)
    velocity = jax.random.uniform(speed_key, (*shape, 2), minval=-config.speed, maxval=config.speed)

    def draw(key: Array) -> Array:
        uniform = jax.random.randint(key, shape, 0, config.identities)
        return jnp.where(jax.random.bernoulli(jax.random.fold_in(key, 1), bias, shape), 0, uniform)

    def frame(state: World, key: Array) -> tuple[World, World]:
        which, what = jax.random.split(key)
        changes = jax.random.bernoulli(which, config.randomness, shape)
        identity = jnp.where(changes, draw(what), state.identity)
        state = state._replace(identity=identity)
        return advance(config, state), state

    _, world = lax.scan(
        frame, World(position, velocity, draw(identity_key)), jax.random.split(change_key, config.num_frames)
    )
    return world


def advance(config: Config, state: World) -> World:
    """One frame later: ``position`` and ``velocity [N, 2]``; identities ``[N]`` stay."""
    dt = 1 / config.substeps

    def substep(_: int, carry: tuple[Array, Array]) -> tuple[Array, Array]:
        position, velocity = carry
        velocity = velocity + dt / 2 * forces(config, position, state.identity)
        position, velocity = _bounce(config, position + dt * velocity, velocity)
        velocity = velocity + dt / 2 * forces(config, position, state.identity)
        return position, velocity * jnp.exp(-config.friction * dt)

    position, velocity = lax.fori_loop(0, config.substeps, substep, (state.position, state.velocity))
    return World(position, velocity, state.identity)


def forces(config: Config, position: Array, identity: Array) -> Array:
    """On each circle ``[N, 2]``, pixels per frame squared: ``strength / (r / side)^power`` from each other one."""
    offset, distance = _pairs(position)
    sign = jnp.where(identity[:, None] == identity[None], 1.0, -1.0)
    near = jnp.maximum(distance, config.radius)  # circles touch at 2 radius; no force is larger than at half of that
    pull = sign * config.strength * (near / config.side) ** -config.power / near
    return jnp.sum(pull[..., None] * offset, 1)


def potential(config: Config, position: Array, identity: Array) -> Array:
    """The energy ``[]`` of position, whose gradient is minus `forces` where no two circles overlap by half."""
    _, distance = _pairs(position)
    sign = jnp.where(identity[:, None] == identity[None], 1.0, -1.0)
    r = distance / config.side
    energy = -jnp.log(r) if config.power == 1 else -(r ** (1 - config.power)) / (1 - config.power)
    others = 1 - jnp.eye(len(position))
    return config.side * config.strength * jnp.sum(sign * energy * others) / 2


def _pairs(position: Array) -> tuple[Array, Array]:
    """From j to i ``[N, N, 2]``, and how far ``[N, N]``; 1 from a circle to itself, for gradients' sake."""
    offset = position[:, None] - position[None]
    squared = jnp.sum(jnp.square(offset), -1)
    same = jnp.eye(len(position), dtype=bool)
    return offset, jnp.sqrt(jnp.where(same | (squared == 0), 1.0, squared))


def _bounce(config: Config, position: Array, velocity: Array) -> tuple[Array, Array]:
    """Elastic collisions of circles of equal mass that meet, and with the walls."""
    offset, distance = _pairs(position)
    normal = offset / distance[..., None]
    approach = jnp.sum((velocity[:, None] - velocity[None]) * normal, -1)  # of i and j; negative as they come closer
    meets = (distance < 2 * config.radius) & (approach < 0) & ~jnp.eye(len(position), dtype=bool)
    # A circle that meets several at once bounces off the one that it overlaps most, if that one agrees: pairs conserve
    # energy and momentum, what meets a third waits for the next substep.
    depth = jnp.where(meets, 2 * config.radius - distance, -1.0)
    partner = jnp.argmax(depth, 1)
    mutual = meets & (jnp.arange(len(position))[None] == partner[:, None])
    mutual = mutual & mutual.T
    velocity = velocity - jnp.sum(jnp.where(mutual, approach, 0.0)[..., None] * normal, 1)
    low, high = config.radius, config.side - config.radius
    outward = ((position < low) & (velocity < 0)) | ((position > high) & (velocity > 0))
    inside = jnp.clip(position, low, high)
    return 2 * inside - position, jnp.where(outward, -velocity, velocity)


def _apart(config: Config, key: Array) -> Array:
    """Centres ``[N, 2]`` in cells of a grid, each somewhere in its own."""
    cells = int(config.side // (2 * config.radius))
    order_key, jitter_key = jax.random.split(key)
    chosen = jax.random.permutation(order_key, cells**2)[: config.num_objects]
    room = config.side / cells
    corner = jnp.stack([chosen // cells, chosen % cells], -1) * room
    jitter = jax.random.uniform(jitter_key, (config.num_objects, 2), minval=config.radius, maxval=room - config.radius)
    return corner + jitter


def boxes(config: Config, position: Array) -> Array:
    """``[..., 4]`` in pixels, of centres ``[..., 2]``."""
    return jnp.concatenate([position - config.radius, position + config.radius], -1)


def render(config: Config, position: Array, identity: Array) -> Array:
    """A frame ``[side, side, 3]`` in [0, 1] of circles at ``position [N, 2]``: discs with soft edges on black."""
    pixel = jnp.arange(config.side) + 0.5
    squared = jnp.square(pixel[None, None] - position[..., None])  # [N, 2, side]
    distance = jnp.sqrt(squared[:, 0, :, None] + squared[:, 1, None])
    cover = jnp.clip(config.radius + 0.5 - distance, 0.0, 1.0)  # [N, side, side]
    colour = jnp.asarray(COLOURS)[identity]  # [N, 3]
    return jnp.max(cover[..., None] * colour[:, None, None], 0)


def make_config(c: ConfigDict, num_frames: int) -> Config:
    """Typed, of config.data, for sequences of ``num_frames``."""
    fields = {field.name: c[field.name] for field in dataclasses.fields(Config)}
    return Config(**fields | {"num_frames": num_frames})
