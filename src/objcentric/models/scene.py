"""A canvas with objects placed on it: what AIR and SQAIR share, from z^where to pixels, boxes and likelihood."""

import dataclasses
import math
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array

from objcentric import distributions
from objcentric.errors import UserError
from objcentric.nn import spatial_transformer

_ROOM = 1.25  # side of the expected glimpse, in sides of the expected object
_SMALLEST = 0.25  # smallest glimpse, in sides of the expected one


class Statistics(NamedTuple):
    """Means and scales of a diagonal Gaussian."""

    loc: Array
    scale: Array


def statistics(raw: Array, initial_scale: float) -> Statistics:
    """Of a network's output ``[..., 2 D]``; an output of 0 gives the scale ``initial_scale``."""
    loc, scale = jnp.split(raw, 2, axis=-1)
    return Statistics(loc, nn.softplus(scale + math.log(math.expm1(initial_scale))) + 1e-3)


@dataclasses.dataclass(frozen=True)
class Scene:
    """z^where: logit of a glimpse's scale (one for both sides, or height and width), atanh of its shift over ``reach``.

    The expected size of an object fixes the prior of z^where and where q starts.
    """

    canvas: tuple[int, int, int]  # (H, W, C)
    glimpse_size: tuple[int, int]
    object_size: tuple[float, ...]  # expected side of an object, pixels; or height and width
    scale_std: float  # prior std of the scale's logit
    likelihood: str  # 'gaussian' or 'bernoulli'
    output_std: float  # of the Gaussian
    reach: float = 1.0  # largest shift; above 1 the centre of a glimpse may leave the canvas, whose sides are at +-1

    def __post_init__(self):
        if self.likelihood not in ("gaussian", "bernoulli"):
            raise UserError(f"model.likelihood={self.likelihood!r} is unknown; choose one of gaussian, bernoulli")
        if len(self.object_size) not in (1, 2):
            raise UserError(f"model.object_size={self.object_size} must be a side, or height and width")
        for name in ("scale_std", "output_std", "reach"):
            if getattr(self, name) <= 0:
                raise UserError(f"model.{name}={getattr(self, name)} must be positive")
        if min(self.object_size) <= 0:
            raise UserError(f"model.object_size={_plain(self.object_size)} must be positive")
        if len(self.glimpse_size) != 2 or min(self.glimpse_size) < 1:
            raise UserError(f"model.glimpse_size={self.glimpse_size} must be two positive numbers, height and width")
        if max(self.object_size) * _ROOM >= min(self.canvas[:2]):
            height, width, _ = self.canvas
            raise UserError(
                f"model.object_size={_plain(self.object_size)} leaves no room on a canvas of {height}x{width}; "
                f"it must be below {min(height, width) / _ROOM:.0f}"
            )

    @property
    def where_dim(self) -> int:
        return len(self.object_size) + 2

    @property
    def glimpse_shape(self) -> tuple[int, int, int]:
        return (*self.glimpse_size, self.canvas[2])

    @property
    def _side(self) -> int:
        return min(self.canvas[:2])

    @property
    def where_loc(self) -> Array:
        """Prior mean of z^where: an object of the expected size in the middle."""
        expected = [_ROOM * size / self._side for size in self.object_size]
        odds = [(side - _SMALLEST * side) / (1.0 - side) for side in expected]
        return jnp.array([*map(math.log, odds), 0.0, 0.0])

    @property
    def where_scale(self) -> Array:
        """Prior std of z^where."""
        return jnp.array([self.scale_std] * len(self.object_size) + [1.0, 1.0])

    @property
    def where_prior(self):
        return distributions.normal(self.where_loc, self.where_scale)

    def geometry(self, where: Array) -> tuple[Array, Array]:
        """z^where ``[..., where_dim]`` to scale and shift ``[..., 2]`` of the spatial transformer."""
        sides = []
        for i, canvas_side in enumerate(self.canvas[:2]):
            j = i % len(self.object_size)
            smallest = _SMALLEST * _ROOM * self.object_size[j] / self._side
            side = smallest + (1.0 - smallest) * nn.sigmoid(where[..., j : j + 1])
            sides.append(side * (self._side / canvas_side))
        return jnp.concatenate(sides, -1), self.reach * jnp.tanh(where[..., -2:])

    def read(self, x: Array, where: Array) -> Array:
        """The glimpse ``[h, w, C]`` of ``x [H, W, C]``."""
        return spatial_transformer.read(x, *self.geometry(where), self.glimpse_size)

    def place(self, glimpses: Array, where: Array) -> Array:
        """Glimpses ``[N, h, w, C]`` at ``where [N, where_dim]``, summed: ``[H, W, C]``."""
        return spatial_transformer.place(glimpses, *self.geometry(where), self.canvas[:2])

    def place_each(self, glimpses: Array, where: Array) -> Array:
        """The same, not summed: ``[N, H, W, C]``."""
        return jax.vmap(lambda glimpse, where: self.place(glimpse[None], where[None]))(glimpses, where)

    def boxes(self, where: Array) -> Array:
        """The boxes ``[N, 4]`` (y0, x0, y1, x1), in pixels, of the glimpses at ``where [N, where_dim]``."""
        return jax.vmap(lambda where: spatial_transformer.box(*self.geometry(where), self.canvas[:2]))(where)

    def extents(self, glimpses: Array, where: Array) -> Array:
        """The tight boxes ``[N, 4]``, in pixels, of what is drawn in the glimpses ``[N, h, w, C]``."""
        extent = jax.vmap(lambda glimpse, *at: spatial_transformer.extent(glimpse, *at, self.canvas[:2]))
        return extent(glimpses, *self.geometry(where))

    def pixels(self, mean: Array):
        """The likelihood of an image, given its mean."""
        return distributions.pixels(mean, self.likelihood, self.output_std)


def _plain(sizes: tuple[float, ...]) -> float | tuple[float, ...]:
    return sizes[0] if len(sizes) == 1 else sizes
