"""Estimators with a defect, many of them found in public code: the suite's own check turns each of them down.

A new defect is one entry of `DEFECTS`: the estimator, and the check that it fails.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from objcentric import objectives
from objcentric.objectives import Estimate
from tests.objectives import checks, toys
from tests.objectives.checks import Row
from tests.objectives.toys import defended, elbo, iwae, nothing, wake

_stop = jax.lax.stop_gradient
DISCRETE = {toy: (iwae, iwae) for toy in ("categorical", "mixed", "ordered")}
SCORE, REPARAMETERIZED = ("log_w", "log_q"), ("log_w, theta live", "log_w, path live")


def bound_of(log_w):
    return objectives.iwae(log_w).bound


def scored(bound, signal, log_q) -> Estimate:
    return Estimate(bound, bound + jnp.sum(_stop(signal) * log_q, -1))


def without_log_k(log_w, log_q, *, where=None):
    bound = bound_of(log_w)
    return scored(bound, bound[..., None] - objectives.leave_one_out(log_w) - jnp.log(log_w.shape[-1]), log_q)


def as_released(log_w, log_q, *, where=None):
    return scored(bound_of(log_w), (log_w - objectives.leave_one_out(log_w)) / log_w.shape[-1], log_q)


def by_subtraction(log_w, log_q, *, where=None):
    top = jnp.max(log_w, -1, keepdims=True)
    weights = jnp.exp(log_w - top)
    others = top + jnp.log(jnp.maximum(jnp.sum(weights, -1, keepdims=True) - weights, 1e-37))
    mean = (jnp.sum(log_w, -1, keepdims=True) - log_w) / (log_w.shape[-1] - 1)
    bound = bound_of(log_w)
    return scored(bound, bound[..., None] - jnp.logaddexp(others, mean) + jnp.log(log_w.shape[-1]), log_q)


def of_the_particles_before(log_w, log_q, *, where=None):
    """A baseline that is independent of its particle, yet not what it is said to be."""
    bound = bound_of(log_w)
    before = jnp.cumsum(log_w, -1) - log_w
    return scored(bound, bound[..., None] - before, log_q)


def of_all_particles(log_w, log_q, *, where=None):
    signal = (log_w - jnp.mean(log_w, -1, keepdims=True)) / log_w.shape[-1]
    return scored(objectives.elbo(log_w).bound, signal, log_q)


def live_signal(log_w, log_q, *, where=None):
    bound = bound_of(log_w)
    return Estimate(bound, bound + bound * jnp.sum(log_q, -1))


def for_one_particle_too(log_w, log_q, *, where=None):
    return objectives.vimco(log_w, log_q) if log_w.shape[-1] > 1 else objectives.reinforce(log_w, log_q)


def broadcasting(log_w, log_q, *, where=None):
    bound = bound_of(log_w)
    return scored(bound, bound[..., None], log_q)


def swapped(log_w, *, where=None):
    """M and L have changed places."""
    return objectives.miwae(log_w, num_groups=log_w.shape[-1] // 2)


def live_signal_of_relax(log_w, log_q, z, z_tilde, logit, *, where=None):
    c = jnp.sum(jax.nn.sigmoid(z_tilde), -1)
    return objectives.relax(log_w, log_q, jnp.sum(jax.nn.sigmoid(z), -1), c, c)


def without_conditioning(log_w, log_q, z, z_tilde, logit, *, where=None):
    c = jnp.sum(jax.nn.sigmoid(z), -1)
    return objectives.relax(log_w, log_q, c, c)


def over_the_batch(log_w, log_q, *, where=None):
    weights = jax.nn.softmax(log_w, axis=tuple(range(log_w.ndim)))
    return Estimate(bound_of(log_w), jnp.sum(_stop(weights) * log_q, -1))


def naive_weights(log_w, log_q, *, where=None):
    log_w = log_w if where is None else jnp.where(where, log_w, -jnp.inf)
    return Estimate(bound_of(log_w), jnp.sum(_stop(jax.nn.softmax(log_w)) * log_q, -1))


def elsewhere(log_p, log_q, log_u, *, where=None):
    """The proposal's density is taken at another draw than the one that it weighs."""
    mixture = jnp.log((1 - toys.DELTA) * jnp.exp(jnp.roll(log_q, 1, -1)) + toys.DELTA * jnp.exp(log_u))
    return objectives.wake_phi(log_p - mixture, log_q)


def of_plain_q(log_p, log_q, log_u, *, where=None):
    return objectives.wake_phi(log_p - log_q, log_q)


def live_proposal(log_p, log_q, *, where=None):
    return objectives.iwae(log_p - log_q)


def for_theta_too(log_w, log_w_path, *, where=None):
    squared = _stop(jnp.square(objectives.normalized_weights(log_w)))
    return Estimate(bound_of(log_w), jnp.sum(squared * (log_w + log_w_path), -1))


def of_the_other_sign(log_w, log_w_path, *, where=None):
    weights = objectives.normalized_weights(log_w)
    return Estimate(bound_of(log_w), bound_of(log_w) + jnp.sum(_stop(weights**2 - weights) * log_w_path, -1))


def exchanged(log_w_theta, log_w_phi, *, where=None):
    return objectives.piwae(log_w_phi, log_w_theta, num_groups=2)


def masked_by_product(log_w, *, where=None):
    where = jnp.ones_like(log_w) if where is None else where
    bound = jnp.log(jnp.sum(jnp.exp(log_w) * where, -1) / jnp.sum(where, -1))
    return Estimate(bound, bound)


def counting_all(log_w, *, where=None):
    return objectives.iwae(log_w if where is None else jnp.where(where, log_w, -jnp.inf))


def sum_of_weights(log_w, *, where=None):
    bound = jnp.log(jnp.mean(jnp.exp(log_w), -1))
    return Estimate(bound, bound)


def biased(*where):
    """(toy, K): where the mean gradient shows the defect."""

    def mean_gradient(row):
        checks.mean_gradient(row, *where)

    return mean_gradient


def golden_std(row):
    """VIMCO's exact standard deviation, for two to five particles."""
    found = [toys.moments(row.function, row.arrays, "categorical", k).std for k in (2, 3, 4, 5)]
    np.testing.assert_allclose(found, [1.164, 0.759, 0.544, 0.401], atol=6e-4)


WAKE, DELTA_WAKE = ("log_w", "log_q, z stopped"), ("log_p, z stopped", "log_q, z stopped", "log_u")
GAUSSIAN = {"gaussian": (iwae, iwae)}
statistics_stopped = Row(
    "dreg: statistics of q stopped",
    objectives.dreg,
    ("log_w, theta live", "log_w, statistics stopped"),
    {"hierarchical": (iwae, iwae)},
    iwae,
)
half = toys.groups_of(2)
swapped_groups = Row("miwae: M and L swapped", swapped, ("log_w",), {"categorical": (half, None)}, half)
score = functools.partial(Row, exact=DISCRETE, bound=iwae)
relaxed = functools.partial(Row, arrays=(*SCORE, "z", "z~", "logit"), exact={"relaxed": (iwae, iwae)}, bound=iwae)
delta = functools.partial(
    Row, arrays=DELTA_WAKE, exact={"categorical": (None, defended)}, bound=defended, proposal="mixture"
)
DEFECTS = [
    (score("vimco: no log K", without_log_k, SCORE), golden_std),
    (score("vimco: signal as released", as_released, SCORE), biased("categorical")),
    (score("vimco: leave-one-out by subtraction", by_subtraction, SCORE), checks.float32),
    (score("vimco: baseline of the particles before", of_the_particles_before, SCORE), checks.permutation),
    (score("vimco: one particle", for_one_particle_too, SCORE, least=2), checks.one_particle),
    (score("vimco: log q of continuous latents too", objectives.vimco, ("log_w", "log_q of all")), biased("mixed")),
    (
        score("vimco: log q with its inputs stopped", objectives.vimco, ("log_w", "log_q, inputs stopped")),
        biased("ordered"),
    ),
    (score("reinforce: live signal", live_signal, SCORE), biased("categorical")),
    (score("reinforce: shapes broadcast", broadcasting, SCORE), checks.shapes),
    (score("reinforce: no score, as in Renyi bounds", lambda w, q: objectives.iwae(w), SCORE), biased("mixed")),
    (Row("rloo: baseline of all", of_all_particles, SCORE, {"mixed": (elbo, elbo)}, elbo), biased("mixed")),
    (relaxed("relax: live signal", live_signal_of_relax), biased("relaxed")),
    (relaxed("relax: z in place of z~", without_conditioning), biased("relaxed")),
    (swapped_groups, biased("categorical", 6)),
    (
        Row("piwae: parts exchanged", exchanged, ("log_w, theta live", "log_w, phi live"), GAUSSIAN, iwae),
        biased("gaussian"),
    ),
    (Row("wake_phi: weights over the batch", over_the_batch, WAKE, {}, iwae), checks.batches),
    (Row("wake_phi: weights over the batch", over_the_batch, WAKE, {}, iwae), checks.agreement),
    (Row("wake_phi: weights of nothing", naive_weights, WAKE, {}, iwae), checks.no_weight),
    (
        Row("wake_phi: live z", objectives.wake_phi, ("log_w", "log_q of all"), {"mixed": (nothing, wake)}, iwae),
        biased("mixed"),
    ),
    (
        Row("wake_theta: live q", live_proposal, DELTA_WAKE[:2], {"categorical": (iwae, nothing)}, iwae),
        biased("categorical"),
    ),
    (delta("delta_wake_phi: density at another draw", elsewhere), biased("categorical")),
    (delta("delta_wake_phi: density of q alone", of_plain_q), biased("categorical")),
    (Row("dreg: theta too", for_theta_too, REPARAMETERIZED, GAUSSIAN, iwae), biased("gaussian")),
    (Row("dreg: weights not squared", objectives.stl, REPARAMETERIZED, GAUSSIAN, iwae), biased("gaussian")),
    (statistics_stopped, biased("hierarchical")),
    (
        Row("rws_dreg: other sign", of_the_other_sign, REPARAMETERIZED, {"gaussian": (iwae, wake)}, iwae),
        biased("gaussian"),
    ),
    (Row("iwae: masked by a product", masked_by_product, ("log_w",), {}, iwae), checks.masks),
    (Row("iwae: counts masked particles", counting_all, ("log_w",), {}, iwae), checks.masks),
    (Row("iwae: exp of log-weights", sum_of_weights, ("log_w",), {}, iwae), checks.float32),
]


@pytest.mark.parametrize("row, check", DEFECTS, ids=[f"{row.name}, {check.__name__}" for row, check in DEFECTS])
def test_rejected(row, check):
    with pytest.raises(AssertionError):
        check(row)


def test_where_the_mean_does_not_show_it():
    """The defects are what is meant, and nothing besides."""
    rows = {row.name: row for row, _ in DEFECTS}
    for name in ("leave-one-out by subtraction", "baseline of the particles before", "log q of continuous latents too"):
        checks.mean_gradient(rows[f"vimco: {name}"], "categorical")
    checks.mean_gradient(swapped_groups, "categorical", 4)  # M = L
    checks.mean_gradient(statistics_stopped, "hierarchical", 1)


def test_vimco_without_log_k_varies_more():
    """It is unbiased; its standard deviation is the golden one of the defect, not that of `vimco`."""
    golden_std(score("vimco", objectives.vimco, SCORE))
    for k, std in ((2, 1.452), (3, 1.857), (4, 2.457), (5, 3.053)):
        found = toys.moments(without_log_k, SCORE, "categorical", k)
        assert found.std == pytest.approx(std, abs=1e-3)
        np.testing.assert_allclose(found.mean, iwae("categorical", k)[1], atol=4e-15)


def test_the_signal_as_released_follows_the_elbo():
    """Its discrete part has the mean of the score of the ELBO; the bias is the golden one."""

    def score_of_the_elbo(log_w, log_q):
        return scored(bound_of(log_w), log_w / log_w.shape[-1], log_q)

    for k, bias in ((2, 0.033), (3, 0.092), (4, 0.176), (5, 0.237)):
        released, exact = toys.moments(as_released, SCORE, "categorical", k).mean, iwae("categorical", k)[1]
        assert np.linalg.norm(released - exact) == pytest.approx(bias, abs=5e-4)
        score = toys.moments(score_of_the_elbo, SCORE, "categorical", k).mean
        np.testing.assert_allclose(released, score, atol=1e-14)
