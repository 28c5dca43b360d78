"""Variational objectives and gradient estimators as functions of arrays; only jax is imported.

Every objective takes log-weights ``log_w[..., K]`` (and ``log_q[..., K]`` of the discrete latents), is maximised, and
returns an `Estimate`: the bound per datum and a surrogate to differentiate.
"""

from objcentric.objectives.bounds import elbo, iwae, log_mean_exp
from objcentric.objectives.estimate import Estimate
from objcentric.objectives.score_function import (
    Moments,
    init_moments,
    leave_one_out,
    nvil,
    reinforce,
    update_moments,
    vimco,
)

__all__ = [
    "Estimate",
    "Moments",
    "elbo",
    "init_moments",
    "iwae",
    "leave_one_out",
    "log_mean_exp",
    "nvil",
    "reinforce",
    "update_moments",
    "vimco",
]
