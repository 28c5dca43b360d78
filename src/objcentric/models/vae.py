"""The variational auto-encoder with one stochastic layer of Burda et al., 2016 (thesis, section 7.5.1).

Binary images, Gaussian latents, tanh layers of the same widths on the way down and up. One image and one particle.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from objcentric import distributions
from objcentric.errors import UserError
from objcentric.models.model import Model, Trace

_MARGIN = 1e-3  # of the mean image, whose logits the output biases start from


@dataclasses.dataclass(frozen=True)
class Config:
    """Typed ``config.model``; the fields are explained in configs/vae_mnist.py."""

    latent_dim: int = 50
    widths: tuple[int, ...] = (200, 200)

    def __post_init__(self):
        if self.latent_dim < 1:
            raise UserError(f"model.latent_dim={self.latent_dim} must be at least 1")
        if not self.widths or min(self.widths) < 1:
            raise UserError(f"model.widths={self.widths} must be one or more positive widths")


def make(config: Config, mean_image: np.ndarray) -> Model:
    """Builds the model of images ``[H, W, C]`` with the given mean, in [0, 1], over the training set.

    ``params["inference"]`` has the layers ``hidden_0``, ..., ``loc`` and ``log_scale``, ``params["generative"]`` has
    ``hidden_0``, ... (from z on) and ``logits``; each a ``kernel [inputs, outputs]`` and a ``bias [outputs]``.
    """
    size = mean_image.size
    hidden = [f"hidden_{i}" for i in range(len(config.widths))]

    def init(key: Array) -> dict:
        keys = iter(jax.random.split(key, 2 * len(hidden) + 3))

        def layer(inputs: int, outputs: int) -> dict:
            kernel = jax.nn.initializers.glorot_uniform()(next(keys), (inputs, outputs))
            return {"kernel": kernel, "bias": jnp.zeros(outputs)}

        def layers(inputs: int, widths: tuple[int, ...]) -> dict:
            return {name: layer(*sizes) for name, *sizes in zip(hidden, (inputs, *widths), widths, strict=False)}

        down, up = config.widths, config.widths[::-1]
        heads = {name: layer(down[-1], config.latent_dim) for name in ("loc", "log_scale")}
        mean = jnp.clip(jnp.asarray(mean_image, jnp.float32).reshape(-1), _MARGIN, 1 - _MARGIN)
        logits = layer(up[-1], size) | {"bias": jnp.log(mean) - jnp.log1p(-mean)}
        return {
            "inference": layers(size, down) | heads,
            "generative": layers(config.latent_dim, up) | {"logits": logits},
        }

    def through(params: dict, x: Array) -> Array:
        for name in hidden:
            x = jnp.tanh(_linear(params[name], x))
        return x

    def encode(params: dict, x: Array) -> Any:
        h = through(params["inference"], x.reshape(-1))
        loc, log_scale = (_linear(params["inference"][name], h) for name in ("loc", "log_scale"))
        return distributions.normal(loc, jnp.exp(log_scale))

    def decode(params: dict, z: Array) -> Array:
        return _linear(params["generative"]["logits"], through(params["generative"], z))

    prior = distributions.normal(jnp.zeros(config.latent_dim), jnp.ones(config.latent_dim))

    def trace(params, key: Array, x: Array, hparams: dict, *, z: Array | None = None, pathwise: bool = True) -> Trace:
        """Draws z ~ q(z | x) ``[latent_dim]``, or scores the given z, for the image ``x [H, W, C]`` of zeros and ones.

        Particles of one image share the pass through the encoder: it depends on none of what they do not share.

        Args:
          hparams: none.
          pathwise: whether gradients flow through the draw.

        Returns:
          the trace; its ``outputs`` hold ``log_likelihood []``. No latent is discrete.
        """
        q = encode(params, x)
        if z is None:
            z = q.loc + q.scale * jax.random.normal(key, q.loc.shape)
            z = z if pathwise else jax.lax.stop_gradient(z)
        log_likelihood = _log_likelihood(decode(params, z), x.reshape(-1))
        log_p = log_likelihood + distributions.log_prob(prior, z)
        return Trace(z, log_p, distributions.log_prob(q, z), jnp.zeros(()), {"log_likelihood": log_likelihood})

    def generate(params, key: Array, hparams: dict) -> tuple[Array, Array]:
        """``(z, x [H, W, C])`` from the prior and the likelihood."""
        z_key, x_key = jax.random.split(key)
        z = jax.random.normal(z_key, (config.latent_dim,))
        return z, jax.random.bernoulli(x_key, render(params, z)["mean"]).astype(jnp.float32)

    def render(params, z: Array) -> dict:
        """``mean [H, W, C]``: the probability that a pixel is on."""
        return {"mean": jax.nn.sigmoid(decode(params, z)).reshape(mean_image.shape)}

    return Model(init, trace, generate, render)


def _linear(params: dict, x: Array) -> Array:
    return x @ params["kernel"] + params["bias"]


def _log_likelihood(logits: Array, x: Array) -> Array:
    """Log-probability ``[]`` of the binary pixels ``x [D]``: ``sum x l - log(1 + e^l)``, finite for all logits.

    Both sums are products of vectors: XLA does not vectorise reductions of many elements on CPUs.
    """
    rest = jax.nn.softplus(logits)
    return x @ logits - rest @ jnp.ones_like(rest)
