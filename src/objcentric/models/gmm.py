"""A mixture of known Gaussians whose proportions are learnt, with an amortised posterior (thesis, section 8.4.3).

One datum x ``[]`` and one particle z ``[]``, an integer in 0 .. C - 1. ``params["generative"]`` has theta ``[C]``,
``params["inference"]`` the layers of q's network, each a ``kernel [inputs, outputs]`` and a ``bias [outputs]``.
"""

import dataclasses
import itertools
import math

import jax
import jax.numpy as jnp
from jax import Array

from objcentric import distributions
from objcentric.errors import UserError
from objcentric.models.model import Model, Trace

INITIAL = ("far", "near")


@dataclasses.dataclass(frozen=True)
class Config:
    """Typed ``config.model``; the fields are explained in configs/gmm.py."""

    num_clusters: int = 20
    spacing: float = 10.0
    std: float = 5.0
    hidden: tuple[int, ...] = (16,)
    prior_scale: float = 1.0
    initial: str = "far"

    def __post_init__(self):
        if self.num_clusters < 2:
            raise UserError(f"model.num_clusters={self.num_clusters} must be at least 2")
        for name in ("spacing", "std", "prior_scale"):
            if getattr(self, name) <= 0:
                raise UserError(f"model.{name}={getattr(self, name)} must be positive")
        if min(self.hidden, default=1) < 1:
            raise UserError(f"model.hidden={self.hidden} must be positive widths")
        if self.initial not in INITIAL:
            raise UserError(f"initial={self.initial!r} is unknown: use {' or '.join(INITIAL)}")


def make(config: Config) -> Model:
    """Builds the pure functions of the mixture; they read no ``hparams``."""
    sizes = (1, *config.hidden, config.num_clusters)

    def init(key: Array) -> dict:
        clusters = jnp.arange(config.num_clusters, dtype=jnp.float32)
        theta = 2 * (config.num_clusters - 1 - clusters) if config.initial == "far" else jnp.ones_like(clusters)
        return {"generative": {"theta": theta}, "inference": init_layers(key, sizes)}

    def trace(params, key: Array, x: Array, hparams: dict, *, z: Array | None = None, pathwise: bool = True) -> Trace:
        """Draws z ~ q(z | x), or scores the given z."""
        logits = encode(config, params, x)
        z = jax.random.categorical(key, logits) if z is None else z
        log_q = jax.nn.log_softmax(logits)[z]
        likelihood = log_likelihood(config, x)[z]
        return Trace(z, log_prior(config, params)[z] + likelihood, log_q, log_q, {"log_likelihood": likelihood})

    def generate(params, key: Array, hparams: dict) -> tuple[Array, Array]:
        z_key, x_key = jax.random.split(key)
        z = jax.random.categorical(z_key, log_prior(config, params))
        return z, draw_x(config, x_key, z)

    def render(params, z: Array) -> dict[str, Array]:
        return {"mean": means(config)[z]}

    return Model(init, trace, generate, render)


# ------------------------------------------------------------------------------------------------ densities of all z


def means(config: Config) -> Array:
    """``mu [C]``."""
    return config.spacing * jnp.arange(config.num_clusters, dtype=jnp.float32)


def log_prior(config: Config, params: dict) -> Array:
    """``log p(z) [C]``."""
    return jax.nn.log_softmax(prior_logits(config, params))


def prior_logits(config: Config, params: dict) -> Array:
    """Logits ``[C]`` of the proportions."""
    return config.prior_scale * params["generative"]["theta"]


def log_likelihood(config: Config, x: Array) -> Array:
    """``log p(x | z) [C]``."""
    return distributions.normal(means(config), config.std).log_prob(x)


def encode(config: Config, params: dict, x: Array) -> Array:
    """Logits ``[C]`` of q(z | x)."""
    return apply_layers(params["inference"], rescale(config, x)[None])


def rescale(config: Config, x: Array) -> Array:
    """``x []`` as networks see it: the means are spread over [-1, 1]."""
    return 2 * x / (config.spacing * (config.num_clusters - 1)) - 1


def log_posterior(config: Config, log_prior: Array, x: Array) -> Array:
    """Bayes: ``log p(z | x) [C]`` under any prior ``[C]``."""
    return jax.nn.log_softmax(log_prior + log_likelihood(config, x))


def true_log_prior(config: Config) -> Array:
    """``log p(z) [C]`` of the data: proportional to z + 5."""
    return jax.nn.log_softmax(jnp.log(jnp.arange(config.num_clusters) + 5.0))


# --------------------------------------------------------------------------------------------------- relaxed densities


def relaxed_log_likelihood(config: Config, y: Array, x: Array) -> Array:
    """``log N(x; mu^T y, sigma^2) [...]`` of relaxed one-hot draws ``y [..., C]`` (thesis, eq. 8.8)."""
    return distributions.normal(y @ means(config), config.std).log_prob(x)


def soft_log_weight(config: Config, log_prior: Array, log_q: Array, y: Array, x: Array) -> Array:
    """Log of p(y, x) / q(y | x) ``[...]`` with "soft PMFs", ``p(y) = y^T p``, ``q(y | x) = y^T q`` (thesis, eq. 8.8).

    Args:
      log_prior, log_q: ``[C]``.
      y: relaxed one-hot draws ``[..., C]``.
    """
    tiny = jnp.finfo(y.dtype).tiny
    prior, q = (jnp.log(jnp.maximum(y @ jnp.exp(log_p), tiny)) for log_p in (log_prior, log_q))
    return prior + relaxed_log_likelihood(config, y, x) - q


# -------------------------------------------------------------------------------------------------------------- draws


def draw(key: Array, log_p: Array, num: int) -> Array:
    """``num`` independent draws of categoricals of log-probabilities ``log_p [..., C]``; integers ``[..., num]``.

    By inverting the distribution function, for one uniform number each (`jax.random.categorical` takes C of them). What
    has a probability below 2^-24 is never drawn: rounding cannot make a draw of it.
    """
    # Running sums in order, so that they ascend; jnp.cumsum is slow on CPUs.
    p = jnp.moveaxis(jnp.exp(jax.lax.stop_gradient(log_p)), -1, 0)
    total = jnp.stack(list(itertools.accumulate(p)), axis=-1)
    u = jax.random.uniform(key, (*log_p.shape[:-1], num), minval=2.0**-24) * total[..., -1:]
    return jnp.sum(u[..., None] >= total[..., None, :-1], axis=-1, dtype=jnp.int32)


def draw_x(config: Config, key: Array, z: Array) -> Array:
    """Draws of x given z, of the same shape."""
    return config.spacing * z + config.std * jax.random.normal(key, z.shape)


# -------------------------------------------------------------------------------------------------------------- layers


def init_layers(key: Array, sizes: tuple[int, ...]) -> list[dict[str, Array]]:
    """Kernels and biases uniform within 1 / sqrt(inputs): an input of 1 needs biases that differ."""

    def layer(key: Array, inputs: int, outputs: int) -> dict[str, Array]:
        bound = 1 / math.sqrt(inputs)
        kernel_key, bias_key = jax.random.split(key)
        return {
            "kernel": jax.random.uniform(kernel_key, (inputs, outputs), minval=-bound, maxval=bound),
            "bias": jax.random.uniform(bias_key, (outputs,), minval=-bound, maxval=bound),
        }

    keys = jax.random.split(key, len(sizes) - 1)
    return [layer(key, *pair) for key, pair in zip(keys, itertools.pairwise(sizes), strict=True)]


def apply_layers(layers: list[dict[str, Array]], x: Array) -> Array:
    """``[inputs] -> [outputs]``, tanh between layers."""
    for i, layer in enumerate(layers):
        x = (jnp.tanh(x) if i else x) @ layer["kernel"] + layer["bias"]
    return x
