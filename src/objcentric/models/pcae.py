"""PCAE, the part capsule autoencoder (thesis, section 6.2.2): templates of parts, placed and coloured to make an image.

Everything speaks of one image ``[H, W, C]`` in [0, 1], and of M parts, each of which is there once at most.
"""

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array

from objcentric import distributions
from objcentric.errors import UserError
from objcentric.models.model import check_fields
from objcentric.nn import poses, templates
from objcentric.nn.convolution import Conv
from objcentric.nn.one_by_one import one_by_one

POOLINGS = ("attention", "linear", "conv")
_NONE = -1e9  # logarithm of the weight of a background that there is not; finite, for all parts may be absent
NONLINEARITIES: dict[str, Callable] = {"sigmoid": nn.sigmoid, "relu": nn.relu, "none": lambda x: x}


@dataclasses.dataclass(frozen=True)
class Config:
    """Typed part of ``config.model`` that PCAE needs; the fields are explained in configs/scae.py."""

    canvas: tuple[int, int] = (40, 40)
    channels: int = 1
    num_parts: int = 24
    template_size: tuple[int, int] = (11, 11)
    special_features: int = 16
    coloured: bool = True
    background: bool = True
    part_encoder: str = "attention"
    encoder_features: tuple[int, ...] = (128, 128, 128, 128)
    encoder_strides: tuple[int, ...] = (2, 2, 1, 1)
    part_similarity: bool = False
    mixing: str = "alpha"
    template_nonlinearity: str = "sigmoid"
    colour_nonlinearity: str = "sigmoid"
    template_gain: float = 1.0
    output_std: float = 1.0
    pixel_stride: int = 1
    part_noise: float = 2.0

    def __post_init__(self):
        choices = dict.fromkeys(("template_nonlinearity", "colour_nonlinearity"), tuple(NONLINEARITIES))
        choices |= {"part_encoder": POOLINGS, "mixing": ("alpha", "template")}
        check_fields(self, choices=choices, positive=("channels", "num_parts", "output_std", "template_gain"))
        if self.special_features < 0:
            raise UserError(f"model.special_features={self.special_features}: use 0, for none, or more")
        if not 0 <= self.part_noise < float("inf"):
            raise UserError(f"model.part_noise={self.part_noise}: use 0 or more")
        if len(self.canvas) != 2 or min(self.canvas) < 1:
            raise UserError(f"data.canvas={self.canvas}: use two numbers of pixels, height and width")
        if self.pixel_stride < 1 or any(side % self.pixel_stride for side in self.canvas):
            raise UserError(f"model.pixel_stride={self.pixel_stride}: use 1, or a divisor of both of {self.canvas}")
        if len(self.template_size) != 2 or min(self.template_size) < 1:
            raise UserError(f"model.template_size={self.template_size}: use two numbers, 1 or more")
        if not self.encoder_features or len(self.encoder_features) != len(self.encoder_strides):
            first, second = self.encoder_features, self.encoder_strides
            raise UserError(f"model.encoder_features={first}, encoder_strides={second}: use as many, one at least")
        if min(self.encoder_features + self.encoder_strides) < 1:
            first, second = self.encoder_features, self.encoder_strides
            raise UserError(f"model.encoder_features={first}, encoder_strides={second}: each must be 1 or more")
        if min(self.encoder_size) < 1:
            raise UserError(
                f"model.encoder_strides={self.encoder_strides} leave nothing of a canvas of {self.canvas}: use fewer"
            )

    @property
    def encoder_size(self) -> tuple[int, int]:
        """Height and width of the encoder's maps: its convolutions do not pad borders."""
        height, width = self.canvas
        for stride in self.encoder_strides:
            height, width = (max((side - 3) // stride + 1, 0) for side in (height, width))
        return height, width


class Parts(NamedTuple):
    """Part capsules of an image."""

    pose: Array  # [M, 2, 3] from the template to the canvas
    log_presence: Array  # [M] log d_m
    features: Array  # [M, special_features] z_m
    template: Array  # [M, h, w, C] with their colours


class Pixels(NamedTuple):
    """Each pixel's mixture of M parts and, last, the background, whose weight is 0 where a model has none."""

    value: Array  # [M + 1, H, W, C] means
    logit: Array  # [M + 1, H, W] logarithms of weights, up to a constant of each pixel


class PCAE(NamedTuple):
    init: Callable  # (key) -> params
    encode: Callable  # (params, noise [M] or None, x [H, W, C]) -> Parts; the noise is added to logits of presences
    ink: Callable  # (params, Parts) -> [M] in [0, 1]
    render: Callable  # (params, pose [M, 2, 3], log_presence [M], template [M, h, w, C]) -> Pixels
    log_likelihood: Callable  # (params, pose, log_presence, template, y [H, W, C], key=None) -> []


class PartEncoder(nn.Module):
    """Parameters of each part, ``[H, W, C] -> [num_parts, size]`` (equation 6.6), in one of `POOLINGS`.

    'attention': a map of each parameter, pooled with a mask of each part; 'conv': their means; 'linear': of all maps
    (section 6.3.3). Maps get a learned bias of each place, by which convolutions tell places from one another.
    """

    num_parts: int
    size: int
    pooling: str
    features: tuple[int, ...]
    strides: tuple[int, ...]

    @nn.compact
    def __call__(self, x: Array) -> Array:
        for features, stride in zip(self.features, self.strides, strict=True):
            x = nn.relu(Conv(features, (3, 3), (stride, stride), padding="VALID")(x))
        x += self.param("place", nn.initializers.normal(0.01), x.shape)
        output = nn.Dense(self.num_parts * self.size, name="output")
        if self.pooling == "linear":
            return output(x.reshape(-1)).reshape(self.num_parts, self.size)
        flat = x.reshape(-1, x.shape[-1])
        if self.pooling == "conv":  # the mean of the maps of a 1x1 convolution is that convolution of the mean
            return output(jnp.mean(flat, 0)).reshape(self.num_parts, self.size)
        maps = output(flat).reshape(-1, self.num_parts, self.size)
        weights = nn.softmax(nn.Dense(self.num_parts, name="attention")(flat), 0)
        return jnp.einsum("lms,lm->ms", maps, weights)


def make(config: Config) -> PCAE:
    """Builds the pure functions of a PCAE."""
    num, channels, special = config.num_parts, config.channels, config.special_features
    shape = (num, *config.template_size, channels)
    encoder = PartEncoder(
        num, 7 + special, config.part_encoder, tuple(config.encoder_features), tuple(config.encoder_strides)
    )
    # Without the sigmoid colours begin as 1: a template whose colours are rectified to 0 would never get a gradient.
    bright = nn.initializers.constant(0.0 if config.colour_nonlinearity == "sigmoid" else 1.0)
    colours = nn.Sequential([nn.Dense(32), nn.relu, nn.Dense(channels, bias_init=bright)])
    coloured = bool(special and config.coloured)
    everywhere = templates.grid(config.canvas)

    def init(key: Array) -> dict:
        keys = jax.random.split(key, 3)
        generative = {"templates": initial_templates(keys[1], shape) / config.template_gain}
        if config.background:
            generative |= {"background": jnp.zeros(channels), "background_logit": jnp.zeros(())}
        if config.mixing == "alpha":
            generative["alpha"] = jnp.zeros((*shape[:3], 1))
        else:
            generative["temperature"] = jnp.zeros(())
        if coloured:
            generative["colours"] = colours.init(keys[2], jnp.zeros(special))
        return {"inference": encoder.init(keys[0], jnp.zeros((*config.canvas, channels))), "generative": generative}

    def encode(params: dict, noise: Array | None, x: Array) -> Parts:
        raw, logit, features = jnp.split(encoder.apply(params["inference"], x), [6, 7], -1)
        logit = logit[:, 0] if noise is None else logit[:, 0] + noise
        template = params["generative"]["templates"] * config.template_gain
        template = NONLINEARITIES[config.template_nonlinearity](template)
        if coloured:
            colour = colours.apply(params["generative"]["colours"], features)
            template *= NONLINEARITIES[config.colour_nonlinearity](colour)[:, None, None]
        return Parts(poses.pose(raw, similarity=config.part_similarity), nn.log_sigmoid(logit), features, template)

    def log_weight(generative: dict, template: Array) -> Array:
        """Of the pixels of templates, ``[M, h, w, 1]``: alpha, or brightness / temperature."""
        if config.mixing == "alpha":
            return config.template_gain * generative["alpha"]
        return jnp.mean(template, -1, keepdims=True) / (nn.softplus(generative["temperature"] + 0.5) + 1e-4)

    def mixture(generative: dict, pose: Array, log_presence: Array, template: Array, points: Array) -> Pixels:
        """At ``points [P, 2]`` of the canvas, in place of its pixels."""
        template = jnp.concatenate([template, log_weight(generative, template)], -1)
        placed = jax.vmap(templates.sample, (0, 0, None))(template, pose, points)
        value, shown = placed[..., :channels], placed[..., channels]
        background, background_logit = jnp.zeros(channels), _NONE
        if config.background:
            background, background_logit = nn.sigmoid(generative["background"]), generative["background_logit"]
        background = jnp.broadcast_to(background, (1, len(points), channels))
        background_logit = jnp.broadcast_to(background_logit, (1, len(points)))
        logit = jnp.concatenate([shown + log_presence[:, None], background_logit])
        return Pixels(jnp.concatenate([value, background]), logit)

    def render(params: dict, pose: Array, log_presence: Array, template: Array) -> Pixels:
        """Equations 6.7 and 6.8; weights are presences times exp(alpha), or exp(brightness / temperature).

        The latter is what the release makes of f_c in equation 6.8: a part that is there has a weight everywhere, 1
        where its template is black, or ends.
        """
        pixels = mixture(params["generative"], pose, log_presence, template, everywhere.reshape(-1, 2))
        return Pixels(*(each.reshape(-1, *config.canvas, *each.shape[2:]) for each in pixels))

    def ink(params: dict, parts: Parts) -> Array:
        """Share of a part in what parts change of the background, or of black, in units of the mean part's: ``[M]``.

        It is 1 at most.

        Presences of all parts may fall to little, if templates become as much more opaque, and a part that is there
        may be hidden by others, or look like the background; this tells. It looks at every second pixel of every
        second row.
        """
        points = everywhere[::2, ::2].reshape(-1, 2)
        pixels = mixture(params["generative"], *parts[:2], parts.template, points)
        weight, change = jax.nn.softmax(pixels.logit, 0)[..., None], jnp.abs(pixels.value - pixels.value[-1:])
        painted = jnp.sum((weight * change)[:-1], (1, 2))
        return jnp.minimum(num * painted / (jnp.sum(painted) + 1e-6), 1.0)

    @one_by_one
    def at_points(drawn: tuple, seen: tuple[Array, Array]) -> Array:
        points, y = seen
        pixels = mixture(*drawn, points)
        log_density = distributions.spherical_log_prob(y[None], pixels.value, jnp.full((1, 1), config.output_std))
        return jnp.sum(jax.nn.logsumexp(pixels.logit + log_density, 0) - jax.nn.logsumexp(pixels.logit, 0))

    def log_likelihood(
        params: dict, pose: Array, log_presence: Array, template: Array, y: Array, key: Array | None = None
    ) -> Array:
        """Equation 6.9; with a key an estimate from one pixel, at random the same, of each block of pixels."""
        stride = 1 if key is None else config.pixel_stride
        row, column = (0, 0) if stride == 1 else jax.random.randint(key, (2,), 0, stride)
        height, width = (side // stride for side in config.canvas)

        def some(each: Array) -> Array:
            return each.reshape(height, stride, width, stride, -1)[:, row, :, column].reshape(height * width, -1)

        drawn = params["generative"], pose, log_presence, template
        return stride**2 * at_points(drawn, (some(everywhere), some(y)))

    return PCAE(init, encode, ink, render, log_likelihood)


def initial_templates(key: Array, shape: tuple[int, ...]) -> Array:
    """``[M, h, w, C]`` that differ as much as they can: orthogonal, then each scaled to [0, 1]."""
    num, *rest = shape
    size = max(num, rest[0] * rest[1] * rest[2])
    rows = jax.random.orthogonal(key, size)[:num, : rest[0] * rest[1] * rest[2]]
    low, high = jnp.min(rows, 1, keepdims=True), jnp.max(rows, 1, keepdims=True)
    return ((rows - low) / (high - low + 1e-8)).reshape(shape)


def opacity(config: Config, generative: dict) -> Array:
    """Weights ``[M, h, w, 1]``, in [0, 1], of the templates' pixels against the background, with mixing='alpha'.

    Without a background, against what lies beyond the borders of another template.
    """
    background_logit = generative["background_logit"] if config.background else 0.0
    return nn.sigmoid(config.template_gain * generative["alpha"] - background_logit)


def mode(pixels: Pixels) -> Array:
    """The mean ``[H, W, C]`` of the component with the largest weight, of each pixel: it is sharper."""
    best = jnp.argmax(pixels.logit, 0)
    return jnp.take_along_axis(pixels.value, best[None, ..., None], 0)[0]
