"""What every latent-variable model here is made of: pure functions for one datum and one particle."""

from collections.abc import Callable
from typing import Any, NamedTuple

from jax import Array


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
