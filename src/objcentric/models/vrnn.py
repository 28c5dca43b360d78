"""The variational RNN (Chung et al., 2015) as SQAIR's baseline: appendix 5.D.3 of the thesis.

Everything speaks of one sequence and one particle. An LSTM gets the features of the frame and of the latents before,
and outputs o_t. From o_t alone comes the prior of z_t, from o_t and the features of x_t its posterior, from o_t and the
features of z_t the mean of x_t. p and q share the LSTM and the features, which all are part of the generative
parameters: an objective whose gradients for p and q differ is not for this model.

The appendix leaves open what counts as a layer, and speaks of "separate MLPs" of mean and std for q, of one for p. Here
every MLP has L hidden layers and a linear one, one MLP makes mean and std of either, and the features of images and of
latents are as large as z. Parameters of its three sizes, in millions:

            MLP, of 128 x 2, 256 x 3, 512 x 4    CONV, of 128, 256, 512
    paper   1.2     2.1    9.8                   0.8    2.6    6.1
    here    1.20    3.12   9.78                  0.84   2.64   5.64

So the 2.1M of MLP-VRNN, in its table 5.D.1 too, belong to 192 units (2.13M), or should read 3.1M. No other reading that
was tried fits all three: the least at 256 x 3, with one hidden layer, is 2.46M.
"""

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array, lax

from objcentric import distributions
from objcentric.errors import UserError
from objcentric.models.model import Model, Sequential, Step, check_fields, unroll
from objcentric.models.scene import statistics
from objcentric.nn.activations import elu
from objcentric.nn.cnn import CNN, interleave
from objcentric.nn.convolution import Conv
from objcentric.nn.mlp import MLP

_CHOICES = {"network": ("mlp", "conv"), "likelihood": ("gaussian", "bernoulli")}


@dataclasses.dataclass(frozen=True)
class Config:
    """Typed ``config.model``; the fields are explained in configs/vrnn.py."""

    canvas: tuple[int, int, int]  # (H, W, C)
    num_frames: int = 10
    latent_dim: int = 165
    hidden: int = 192
    layers: int = 3
    network: str = "mlp"
    features: tuple[int, ...] = (32, 32, 32, 64, 64, 64)
    strides: tuple[int, ...] = (1, 2, 1, 2, 1, 2)
    likelihood: str = "gaussian"
    output_std: float = 0.3
    decoder_bias: float = -2.0

    def __post_init__(self):
        positive = ("num_frames", "latent_dim", "hidden", "output_std")
        check_fields(self, choices=_CHOICES, positive=positive)
        if self.layers < 0:
            raise UserError(f"model.layers={self.layers} must be at least 0")
        features, strides = self.features, self.strides
        if len(features) != len(strides) or min(features + strides, default=0) < 1:
            raise UserError(f"model.features={features}, strides={strides}: use as many positive ones, at least one")
        if any(maps % stride**2 for maps, stride in zip(features, strides, strict=True)):
            raise UserError(f"model.features={features} must be multiples of the squares of model.strides={strides}")


class State(NamedTuple):
    """What a frame leaves to the next one."""

    lstm: tuple[Array, Array]  # [hidden] each
    x: Array  # [latent_dim] features of the frame
    z: Array  # [latent_dim] features of its latents


class MirroredCNN(nn.Module):
    """``[D] -> [H, W, C]``: dense layers to the coarse map that `CNN` makes of an image, then its layers backwards.

    Where the CNN halves a map, pixels are made of channels and then convolved: XLA has no fast gradient of transposed
    convolutions on CPUs.
    """

    shape: Sequence[int]  # (H, W, C)
    hidden: Sequence[int]
    features: Sequence[int]  # those of the CNN
    strides: Sequence[int]

    @nn.compact
    def __call__(self, x: Array) -> Array:
        depth = len(self.features)
        shapes = [tuple(self.shape)]
        for i in range(depth):
            shapes.append(CNN(self.features[i : i + 1], self.strides[i : i + 1]).output_shape(shapes[i]))
        for width in (*self.hidden, math.prod(shapes[-1])):
            x = elu(nn.Dense(width)(x))
        x = x.reshape(shapes[-1])
        for i in reversed(range(depth)):
            height, width, channels = shapes[i]
            x = Conv(channels, (3, 3))(interleave(x, self.strides[i])[:height, :width])
            x = elu(x) if i else x
        return x


def make(config: Config) -> Sequential:
    """Builds the pure functions of the VRNN; none of them reads ``hparams``, and all latents are continuous."""
    nets, inputs = _networks(config)

    def init(key: Array) -> dict:
        params = {part: {} for part in nets}
        for part, modules in nets.items():
            for name, net in modules.items():
                key, subkey = jax.random.split(key)
                carry = (start({}).lstm,) if name == "lstm" else ()
                params[part][name] = net.init(subkey, *carry, jnp.zeros(inputs[name]))
        return params

    def apply(params, name: str, *args, part: str = "generative"):
        return nets[part][name].apply(params[part][name], *args)

    def describe(params, x: Array) -> Array:
        """psi^x."""
        features = apply(params, "trunk", x) if config.network == "conv" else x
        return apply(params, "image_features", features.reshape(-1))

    def recur(params, state: State) -> tuple[tuple[Array, Array], Array]:
        """The LSTM's next state, and o_t ``[hidden]``."""
        return apply(params, "lstm", state.lstm, jnp.concatenate([state.x, state.z]))

    def prior(params, o: Array):
        """p(z_t | x_<t, z_<t)."""
        return distributions.normal(*statistics(apply(params, "prior", o), 1.0))

    def posterior(params, o: Array, x: Array):
        """q(z_t | x_t, z_<t) of the features ``x`` of the frame."""
        raw = apply(params, "posterior", jnp.concatenate([o, x]), part="inference")
        return distributions.normal(*statistics(raw, 1.0))

    def decode(params, o: Array, z: Array) -> Array:
        """The mean of a frame ``[H, W, C]``, of the features ``z`` of its latents."""
        logits = apply(params, "decoder", jnp.concatenate([z, o]))
        return nn.sigmoid(logits + config.decoder_bias).reshape(config.canvas)

    def pixels(mean: Array):
        """p(x_t | z_<=t, x_<t)."""
        return distributions.pixels(mean, config.likelihood, config.output_std)

    def start(params) -> State:
        blank = jnp.zeros(config.latent_dim)
        return State((jnp.zeros(config.hidden), jnp.zeros(config.hidden)), blank, blank)

    def step(
        params, key: Array, state: State, x: Array, hparams: dict, *, z: Array | None = None, pathwise: bool = True
    ) -> Step:
        """Draws the latents ``[latent_dim]`` of the frame ``x [H, W, C]`` in [0, 1] from q, or scores the given ``z``.

        Args:
          pathwise: whether gradients flow through the draw.

        Its ``outputs`` are ``mean [H, W, C]`` and ``log_likelihood []``.
        """
        lstm, o = recur(params, state)
        seen = describe(params, x)
        q = posterior(params, o, seen)
        if z is None:
            z = q.loc + q.scale * jax.random.normal(key, (config.latent_dim,))
        z = z if pathwise else lax.stop_gradient(z)
        features = apply(params, "latent_features", z)
        mean = decode(params, o, features)
        log_likelihood = distributions.log_prob(pixels(mean), x)
        log_p = distributions.log_prob(prior(params, o), z) + log_likelihood
        outputs = {"mean": mean, "log_likelihood": log_likelihood}
        after = State(lstm, seen, features)
        return Step(after, z, log_p, distributions.log_prob(q, z), jnp.zeros(()), outputs)

    def from_prior(params, state: State, choose: Callable, show: Callable) -> tuple[State, tuple[Array, Array, Array]]:
        """A frame of the latents ``choose(prior)``; the next ones follow ``show(mean)``."""
        lstm, o = recur(params, state)
        z = choose(prior(params, o))
        features = apply(params, "latent_features", z)
        mean = decode(params, o, features)
        x = show(mean)
        return State(lstm, describe(params, x), features), (z, mean, x)

    def draw(key: Array, temperature: float | Array = 1.0) -> Callable:
        return lambda prior: prior.loc + temperature * prior.scale * jax.random.normal(key, (config.latent_dim,))

    def imagine(params, key: Array, state: State, hparams: dict) -> tuple[State, Array, Array]:
        """The latents of the next frame from the prior, and its mean; what follows it follows this mean.

        Frames have no noise such as the likelihood allows for, and after frames with noise the model is lost. Where
        ``hparams`` has a ``temperature``, 0 takes the mean of the latents in place of a draw.
        """
        temperature = hparams.get("temperature", 1.0)
        state, (z, mean, _) = from_prior(params, state, draw(key, temperature), lambda mean: mean)
        return state, z, mean

    def generate(params, key: Array, hparams: dict) -> tuple[Array, Array]:
        """Latents ``[num_frames, latent_dim]`` and frames ``[num_frames, H, W, C]`` of the joint distribution."""

        def one(state: State, key: Array) -> tuple[State, tuple]:
            latent_key, pixel_key = jax.random.split(key)
            state, (z, _, x) = from_prior(params, state, draw(latent_key), lambda m: pixels(m).sample(seed=pixel_key))
            return state, (z, x)

        return lax.scan(one, start(params), jax.random.split(key, config.num_frames))[1]

    def render(params, z: Array) -> dict:
        """Frames ``mean [T, H, W, C]`` of the latents ``z [T, latent_dim]``, each of which follows the means before."""

        def one(state: State, z: Array) -> tuple[State, Array]:
            state, (_, mean, _) = from_prior(params, state, lambda prior: z, lambda mean: mean)
            return state, mean

        return {"mean": lax.scan(one, start(params), z)[1]}

    return Sequential(Model(init, unroll(start, step), generate, render), start, step, imagine)


def _networks(config: Config) -> tuple[dict, dict]:
    """The modules of either part of the parameters, and the shapes of their inputs."""
    hidden, dim, pixels = (config.hidden,) * config.layers, config.latent_dim, math.prod(config.canvas)
    generative = {
        "image_features": MLP(hidden, dim),
        "latent_features": MLP(hidden, dim),
        "lstm": nn.OptimizedLSTMCell(config.hidden),
        "prior": MLP(hidden, 2 * dim, output_scale=0.1),
        "decoder": MLP(hidden, pixels, output_scale=0.1),
    }
    inputs = {
        "trunk": config.canvas,
        "image_features": pixels,
        "latent_features": dim,
        "lstm": 2 * dim,
        "prior": config.hidden,
        "posterior": config.hidden + dim,
        "decoder": dim + config.hidden,
    }
    if config.network == "conv":
        trunk = CNN(config.features, config.strides)
        generative |= {
            "trunk": trunk,
            "image_features": MLP((), dim),
            "decoder": MirroredCNN(config.canvas, hidden, config.features, config.strides),
        }
        inputs["image_features"] = math.prod(trunk.output_shape(config.canvas))
    return {"generative": generative, "inference": {"posterior": MLP(hidden, 2 * dim, output_scale=0.1)}}, inputs
