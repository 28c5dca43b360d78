"""What every latent-variable model here is made of: pure functions for one datum and one particle."""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax

from objcentric.errors import UserError


class Trace(NamedTuple):
    """One draw (or scoring) of the latents of one datum, with every density from the same pass."""

    z: Any  # pytree of latent variables
    log_p: Array  # [] log p(x, z)
    log_q: Array  # [] log q(z | x)
    log_q_discrete: Array  # [] the part of log_q that belongs to discrete latents
    outputs: dict[str, Array]  # what else evaluation and pictures need; unused entries cost nothing under jit


class Model(NamedTuple):
    """A model; ``params`` has the top-level parts ``generative`` and ``inference``."""

    init: Callable  # (key) -> params
    trace: Callable  # (params, key, x, hparams, *, z=None, pathwise=True) -> Trace
    generate: Callable  # (params, key, hparams) -> (z, x)
    render: Callable  # (params, z) -> dict of pictures: the image mean and its parts


class Step(NamedTuple):
    """One frame of a sequence and one particle."""

    state: Any  # what the next frame needs of the past
    z: Any
    log_p: Array  # [] log p(x_t, z_t | the frames before)
    log_q: Array  # [] log q(z_t | x_t, the frames before)
    log_q_discrete: Array  # []
    outputs: dict[str, Array]  # ``log_likelihood []`` among them


class Sequential(NamedTuple):
    """A model of sequences ``[T, H, W, C]``; its trace scans its steps, which FIVO and online use take one by one."""

    model: Model
    start: Callable  # (params) -> the state before the first frame
    step: Callable  # (params, key, state, x_t, hparams, *, z=None, pathwise=True) -> Step
    imagine: Callable  # (params, key, state, hparams) -> (state, z_t, mean [H, W, C]): a frame from the prior


def scan(one: Callable, start: Any, xs: Any) -> tuple[Any, Any]:
    """`lax.scan`, of which reverse mode keeps matrix products alone and computes what lies between them anew.

    On CPUs that takes less time than storing and loading it would, and less memory everywhere.
    """
    one = jax.checkpoint(one, prevent_cse=False, policy=jax.checkpoint_policies.dots_saveable)
    return lax.scan(one, start, xs)


def unroll(start: Callable, step: Callable) -> Callable:
    """The trace of whole sequences: z and outputs have an axis [T], but for the sum ``log_likelihood []``."""

    def trace(params: dict, key: Array, x: Array, hparams: dict, *, z: Any = None, pathwise: bool = True) -> Trace:
        def one(state: Any, inputs: tuple) -> tuple[Any, tuple]:
            key, x, z = inputs
            s = step(params, key, state, x, hparams, z=z, pathwise=pathwise)
            return s.state, (s.z, (s.log_p, s.log_q, s.log_q_discrete), s.outputs)

        _, (z, densities, outputs) = scan(one, start(params), (frame_keys(key, x.shape[0]), x, z))
        log_p, log_q, log_q_discrete = (jnp.sum(each) for each in densities)
        return Trace(z, log_p, log_q, log_q_discrete, outputs | {"log_likelihood": jnp.sum(outputs["log_likelihood"])})

    return trace


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def limit_gradients(most: float, state: Any, densities: tuple[Array, Array, Array]) -> tuple[Any, tuple]:
    """``(state, densities)`` as they are, but of what flows back to the state the norm is limited.

    Ours. Through glimpses that lose their object gradients grow from frame to frame: of a few sequences they are
    hundreds of times those of others, and alone say where a step goes. What is limited is no gradient of the bound.

    Args:
      most: times the gradients of the state's log_p and log_q; that of its log_q_discrete, the signal of a score,
        counts once. In nats per unit of the state.
      state: of a frame and one particle, for the next frame.
      densities: that `Step` has of the frame: ``log_p``, ``log_q`` and ``log_q_discrete``.
    """
    return state, densities


def _limit_forward(most: float, state: Any, densities: tuple) -> tuple:
    return (state, densities), None


def _limit_backward(most: float, _: None, gradients: tuple) -> tuple:
    of_state, (log_p, log_q, discrete) = gradients
    allowed = most * (jnp.abs(log_p) + jnp.abs(log_q)) + jnp.abs(discrete)
    squares = [jnp.sum(jnp.square(leaf)) for leaf in jax.tree.leaves(of_state) if _is_float(leaf)]
    factor = jnp.minimum(1.0, allowed / jnp.maximum(jnp.sqrt(sum(squares)), jnp.finfo(jnp.float32).tiny))
    return jax.tree.map(lambda leaf: factor * leaf if _is_float(leaf) else leaf, of_state), gradients[1]


def _is_float(gradient: Array) -> bool:
    """Gradients of integers are of the type float0, of which nothing can be made."""
    return gradient.dtype != jax.dtypes.float0


limit_gradients.defvjp(_limit_forward, _limit_backward)


def frame_keys(key: Array, num_frames: int) -> Array:
    """Keys ``[T]``, of which the first ones are those of a shorter sequence."""
    return jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.arange(num_frames))


def fields_of(config: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a config.model as typed configs, which are hashable, take them: tuples for lists."""
    return {name: tuple(value) if isinstance(value, list) else value for name, value in config.items()}


def check_fields(config: Any, *, choices: dict[str, Sequence[str]], positive: Sequence[str]) -> None:
    """UserError unless a model's typed config has allowed ``choices``, and ``positive`` numbers in those fields."""
    for name, allowed in choices.items():
        if getattr(config, name) not in allowed:
            raise UserError(f"model.{name}={getattr(config, name)!r} is unknown; choose one of {', '.join(allowed)}")
    for name in positive:
        if getattr(config, name) <= 0:
            raise UserError(f"model.{name}={getattr(config, name)} must be positive")
