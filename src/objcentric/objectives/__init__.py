"""Variational objectives and gradient estimators as functions of arrays; only jax is imported.

Every objective takes log-weights ``log_w[..., K]`` (and ``log_q[..., K]`` of the discrete latents), is maximised, and
returns an `Estimate`: the bound per datum and a surrogate to differentiate. ``where[..., K]`` masks particles.
"""

from objcentric.objectives.bounds import ciwae, elbo, iwae, log_mean_exp, miwae, normalized_weights, piwae
from objcentric.objectives.control_variate import (
    Coupled,
    control_variate_gradients,
    gumbel_pair,
    logistic_pair,
    rebar,
    relax,
)
from objcentric.objectives.estimate import Estimate
from objcentric.objectives.relaxation import (
    binary_concrete,
    binary_concrete_log_prob,
    concrete,
    concrete_log_prob,
    overlapping_exponentials,
    overlapping_exponentials_log_prob,
    spike_and_exponential,
    spike_and_exponential_log_prob,
    stick_breaking,
    stick_breaking_logits,
    straight_through,
)
from objcentric.objectives.reparameterized import dreg, rws_dreg, stl
from objcentric.objectives.score_function import (
    Moments,
    init_moments,
    leave_one_out,
    nvil,
    reinforce,
    rloo,
    update_moments,
    vimco,
)
from objcentric.objectives.wake_sleep import defend, delta_wake_phi, sleep_phi, wake_phi, wake_theta

__all__ = [
    "Coupled",
    "Estimate",
    "Moments",
    "binary_concrete",
    "binary_concrete_log_prob",
    "ciwae",
    "concrete",
    "concrete_log_prob",
    "control_variate_gradients",
    "defend",
    "delta_wake_phi",
    "dreg",
    "elbo",
    "gumbel_pair",
    "init_moments",
    "iwae",
    "leave_one_out",
    "log_mean_exp",
    "logistic_pair",
    "miwae",
    "normalized_weights",
    "nvil",
    "overlapping_exponentials",
    "overlapping_exponentials_log_prob",
    "piwae",
    "rebar",
    "reinforce",
    "relax",
    "rloo",
    "rws_dreg",
    "sleep_phi",
    "spike_and_exponential",
    "spike_and_exponential_log_prob",
    "stick_breaking",
    "stick_breaking_logits",
    "stl",
    "straight_through",
    "update_moments",
    "vimco",
    "wake_phi",
    "wake_theta",
]
