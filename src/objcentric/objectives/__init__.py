"""Variational objectives and gradient estimators as functions of arrays; only jax is imported.

An objective takes log-weights ``log_w[..., K]`` (and ``log_q[..., K]`` of the discrete latents), is maximised, and
returns an `Estimate`: the bound per datum and a surrogate to differentiate. ``where[..., K]`` masks particles. Others
by their nature: `disarm` and `arms` take values and bits, `fivo` a run of `particle_filter` (whose ``where`` masks
time steps), `sleep_phi` takes log_q alone, and `nvil` returns its baseline's loss besides.

"Thesis" is A. R. Kosiorek's DPhil thesis (Oxford, 2020). Its chapter 7 is Rainforth et al., *Tighter Variational Bounds
are Not Necessarily Better*, 2018; its chapter 8 is Le et al., *Revisiting Reweighted Wake-Sleep*, 2019.
"""

from objcentric.objectives.antithetic import antithetic_bernoulli, antithetic_correlation, arms, disarm
from objcentric.objectives.bounds import ciwae, elbo, iwae, log_mean_exp, miwae, normalized_weights, piwae
from objcentric.objectives.control_variate import (
    Coupled,
    control_variate_gradients,
    gumbel_pair,
    logistic_pair,
    rebar,
    relax,
)
from objcentric.objectives.diagnostics import (
    BiasAndVariance,
    GradientMoments,
    bias_and_variance,
    dsnr,
    enumerate_expectation,
    ess,
    gradient_moments,
    merge_moments,
    sample_gradients,
    snr,
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
    ciwae_vimco,
    init_moments,
    leave_one_out,
    nvil,
    reinforce,
    rloo,
    update_moments,
    vimco,
)
from objcentric.objectives.sequential import (
    Filtered,
    Resampling,
    Transition,
    always,
    ess_below,
    fivo,
    multinomial,
    never,
    particle_filter,
    systematic,
)
from objcentric.objectives.wake_sleep import defend, delta_wake_phi, sleep_phi, wake_phi, wake_theta

__all__ = [
    "BiasAndVariance",
    "Coupled",
    "Estimate",
    "Filtered",
    "GradientMoments",
    "Moments",
    "Resampling",
    "Transition",
    "always",
    "antithetic_bernoulli",
    "antithetic_correlation",
    "arms",
    "bias_and_variance",
    "binary_concrete",
    "binary_concrete_log_prob",
    "ciwae",
    "ciwae_vimco",
    "concrete",
    "concrete_log_prob",
    "control_variate_gradients",
    "defend",
    "delta_wake_phi",
    "disarm",
    "dreg",
    "dsnr",
    "elbo",
    "enumerate_expectation",
    "ess",
    "ess_below",
    "fivo",
    "gradient_moments",
    "gumbel_pair",
    "init_moments",
    "iwae",
    "leave_one_out",
    "log_mean_exp",
    "logistic_pair",
    "merge_moments",
    "miwae",
    "multinomial",
    "never",
    "normalized_weights",
    "nvil",
    "overlapping_exponentials",
    "overlapping_exponentials_log_prob",
    "particle_filter",
    "piwae",
    "rebar",
    "reinforce",
    "relax",
    "rloo",
    "rws_dreg",
    "sample_gradients",
    "sleep_phi",
    "snr",
    "spike_and_exponential",
    "spike_and_exponential_log_prob",
    "stick_breaking",
    "stick_breaking_logits",
    "stl",
    "straight_through",
    "systematic",
    "update_moments",
    "vimco",
    "wake_phi",
    "wake_theta",
]
