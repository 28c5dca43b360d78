"""Score-function estimators: golden values, baselines, moments; their means are in test_suite.py."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import logsumexp

from objcentric import objectives
from tests.objectives import toys
from tests.objectives.checks import evaluate
from tests.objectives.toys import LOGITS

SCORE = ("log_w", "log_q")


def moments_of_variance(variance):
    return objectives.Moments(jnp.float32(-1.3), jnp.float32(1.69 + variance), jnp.float32(7.0))


@pytest.fixture
def log_w():
    return np.random.default_rng(0).normal(-3, 2, (4, 3, 6)).astype(np.float32)


@pytest.mark.parametrize(
    "num_particles, norm, reinforce, vimco",
    [(2, 0.7442, 2.516, 1.164), (3, 0.5092, 2.707, 0.759), (4, 0.3523, 2.703, 0.544), (5, 0.2531, 2.648, 0.401)],
)
def test_golden_values(num_particles, norm, reinforce, vimco):
    """Exact norm of IWAE's gradient for the logits, and the estimators' standard deviations."""
    _, exact = toys.iwae("categorical", num_particles)
    assert np.linalg.norm(exact[: len(LOGITS)]) == pytest.approx(norm, abs=5e-5)
    for objective, std in ((objectives.reinforce, reinforce), (objectives.vimco, vimco)):
        found = toys.moments(objective, SCORE, "categorical", num_particles)
        assert found.std == pytest.approx(std, abs=6e-4)
        np.testing.assert_allclose(found.mean, exact, atol=4e-15)


def nvil(log_w, log_q, baseline=None, variance=4.0):
    baseline = jnp.full(jnp.shape(log_w)[:-1], 0.5) if baseline is None else baseline
    return objectives.nvil(log_w, log_q, baseline=baseline, moments=moments_of_variance(variance))[0]


@pytest.mark.parametrize("name", ["reinforce", "rloo", "vimco", "vimco, arithmetic", "nvil", "nvil, little variance"])
def test_by_hand(log_w, name):
    """The bound, and the gradient for log q, from formulas in float64."""
    estimator, options = {
        "reinforce": (objectives.reinforce, {"baseline": -5.0}),
        "rloo": (objectives.rloo, {}),
        "vimco": (objectives.vimco, {}),
        "vimco, arithmetic": (objectives.vimco, {"arithmetic": True}),
        "nvil": (nvil, {}),
        "nvil, little variance": (nvil, {"variance": 0.25}),
    }[name]
    estimate, (_, found) = evaluate(estimator, log_w, np.zeros_like(log_w), **options)

    w = np.float64(log_w)
    bound = logsumexp(w, axis=-1, keepdims=True) - np.log(6)
    others = np.stack([np.delete(w, k, -1) for k in range(6)], -2)
    total, mean = logsumexp(others, axis=-1), others.mean(-1)
    centred = bound - 0.5 + 1.3 + 0 * w
    signal = {
        "reinforce": bound + 5 + 0 * w,
        "rloo": (w - mean) / 6,
        "vimco": bound - np.logaddexp(total, mean) + np.log(6),
        "vimco, arithmetic": bound - total + np.log(5),
        "nvil": centred / 2,  # scaled where it varies much, and only there
        "nvil, little variance": centred,
    }[name]
    np.testing.assert_allclose(found, signal, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(estimate.bound, w.mean(-1) if name == "rloo" else bound[..., 0], rtol=1e-6)


# -------------------------------------------------------------------------------------------------------- leave one out


leave_one_out = jax.jit(objectives.leave_one_out, static_argnames="arithmetic")


def test_leave_one_out_is_free_of_its_own_weight(log_w):
    changed = log_w.copy()
    changed[..., 2] += 10.0
    before, after = leave_one_out(log_w), leave_one_out(changed)
    np.testing.assert_allclose(before[..., 2], after[..., 2], rtol=1e-6)
    others = np.array([0, 1, 3, 4, 5])
    assert (before[..., others] < after[..., others]).all()


def test_leave_one_out_of_equal_weights_is_the_bound():
    """Also K itself enters rightly: all L and Y_{-k} agree, and nothing is learnt."""
    for arithmetic in (False, True):
        found = leave_one_out(np.full((4, 3, 6), -2.5, np.float32), arithmetic=arithmetic)
        np.testing.assert_allclose(found, -2.5, rtol=1e-6)


def test_the_arithmetic_baseline_is_the_bound_of_the_other_particles(log_w):
    found = leave_one_out(log_w, arithmetic=True)
    others = np.stack([np.delete(log_w, k, -1) for k in range(6)], -2)
    np.testing.assert_allclose(found, evaluate(objectives.iwae, others)[0].bound, rtol=1e-5)


@pytest.mark.parametrize("std", [10, 50])
def test_leave_one_out_in_float32(std):
    log_w = np.random.default_rng(2).normal(0, std, (500, 8)).astype(np.float32)
    exact = np.float64(log_w)
    others = [np.delete(exact, k, 1) for k in range(8)]
    expected = [logsumexp(np.c_[o, o.mean(1)], axis=1) - np.log(8) for o in others]
    np.testing.assert_allclose(leave_one_out(log_w), np.stack(expected, 1), atol=1e-4)


@pytest.mark.parametrize("name, options", [("rloo", {}), ("vimco", {}), ("vimco", {"arithmetic": True})])
def test_a_single_particle_that_exists_has_no_baseline(name, options):
    """The others are masked: what remains is REINFORCE, which is unbiased."""
    where = np.array([False, True, False])
    log_w, log_q = np.float32([np.nan, -2.0, 1.0]), np.float32([-1.0, -0.5, np.nan])
    _, gradients = evaluate(getattr(objectives, name), log_w, log_q, where=where, **options)
    np.testing.assert_array_equal(gradients, [[0, 1, 0], [0, -2, 0]])


def test_one_weight_zero():
    """Its particle is the worst of all, and the baseline of the others still counts it.

    Without the second particle the others' geometric mean takes its place; without another, its weight does.
    """
    _, (_, found) = evaluate(objectives.vimco, np.float32([-1.0, -np.inf, -2.0]), np.zeros(3, np.float32))
    bound, e = np.log((np.exp(-1) + np.exp(-2)) / 3), np.exp
    baselines = [np.log(e(-2) / 3), np.log((e(-1) + e(-2) + e(-1.5)) / 3), np.log(e(-1) / 3)]
    np.testing.assert_allclose(found, bound - np.array(baselines), rtol=1e-5)


@pytest.mark.parametrize("name", ["vimco", "rloo"])
def test_one_particle_is_refused(name):
    with pytest.raises(ValueError, match=f"{name} needs at least 2 particles.* K is 1"):
        getattr(objectives, name)(np.zeros((4, 1)), np.zeros((4, 1)))


# ------------------------------------------------------------------------------------------------------------ baselines


def test_no_gradient_of_the_estimate_reaches_the_baseline(log_w):
    def reinforce(log_w, log_q, baseline):
        return objectives.reinforce(log_w, log_q, baseline=baseline)

    for estimator in (reinforce, nvil):
        _, gradients = evaluate(estimator, log_w, log_w, np.full((4, 3), 0.5, np.float32))
        np.testing.assert_array_equal(gradients[2], 0)


@pytest.mark.parametrize("shape", [(4, 1), (4, 3), (3,)])
def test_a_baseline_of_another_shape_is_refused(shape):
    """Broadcast, a network's output [B, 1] would be the baseline of every pair of data."""
    arrays, baseline = (np.zeros((4, 3)), np.zeros((4, 3))), np.zeros(shape)
    for options in ({}, {"moments": moments_of_variance(1.0)}):
        with pytest.raises(ValueError, match=r"baseline .* must be a scalar or have one value per bound \(4,\)"):
            (objectives.nvil if options else objectives.reinforce)(*arrays, baseline=baseline, **options)


def test_shapes_that_disagree_are_named():
    with pytest.raises(ValueError, match=r"one shape \[..., K\]: log_w \(4, 3\), log_q \(4, 1\)"):
        objectives.reinforce(np.zeros((4, 3)), np.zeros((4, 1)))


def test_nvil_baseline_learns_the_centred_bound_and_nothing_else():
    """And nothing where no particle explains the datum."""

    @jax.jit
    def loss_and_gradients(baseline, log_w, log_q):
        def loss(*arrays):
            loss = objectives.nvil(*arrays[1:], baseline=arrays[0], moments=moments_of_variance(4.0))[1]
            return loss.sum(), loss

        return jax.grad(loss, (0, 1, 2), has_aux=True)(baseline, log_w, log_q)

    log_w = np.float32([[-2.0, -3.0], [-np.inf, -np.inf]])
    gradients, loss = loss_and_gradients(np.full(2, 0.5, np.float32), log_w, np.zeros_like(log_w))
    residual = np.log((np.exp(-2) + np.exp(-3)) / 2) + 1.3 - 0.5
    np.testing.assert_allclose(loss, [residual**2, 0], rtol=1e-6)
    np.testing.assert_allclose(gradients[0], [-2 * residual, 0], rtol=1e-6)
    np.testing.assert_array_equal(gradients[1:], np.zeros((2, 2, 2)))


# -------------------------------------------------------------------------------------------------------------- moments

update_moments = jax.jit(objectives.update_moments, static_argnames="decay")


def test_moments_are_plain_averages_at_first():
    """While 1 / count is above the rate: of equal batches, as if they were one."""
    signals = np.random.default_rng(3).normal(-5, 3, (6, 20)).astype(np.float32)
    moments = objectives.init_moments()
    for i, signal in enumerate(signals):
        moments = update_moments(moments, jnp.asarray(signal), decay=0.9)
        assert moments.count == i + 1
        np.testing.assert_allclose(moments.mean, signals[: i + 1].mean(), rtol=1e-5)


def test_moments_leave_out_what_is_minus_infinity():
    """One datum that no particle explains would be the baseline's end."""
    signals = np.random.default_rng(3).normal(-5, 3, (6, 20)).astype(np.float32)
    signals[np.random.default_rng(4).random((6, 20)) < 0.3] = -np.inf
    signals[[0, 3]] = -np.inf
    moments = objectives.init_moments()
    for i, signal in enumerate(signals):
        moments = update_moments(moments, jnp.asarray(signal), decay=0.9)
        known = signals[: i + 1][np.isfinite(signals[: i + 1])]
        assert moments.count == pytest.approx(known.size / 20)
        expected = (known.mean(), (known**2).mean()) if known.size else (0, 0)
        np.testing.assert_allclose((moments.mean, moments.square), expected, rtol=1e-5)
    later = update_moments(moments._replace(count=jnp.float32(100.0)), jnp.asarray(signals[1]), decay=0.9)
    known = signals[1][np.isfinite(signals[1])]
    expected = moments.mean + 0.1 * known.size / 20 * (known.mean() - moments.mean)
    np.testing.assert_allclose(later.mean, expected, rtol=1e-6)


def test_moments_forget_at_the_rate_of_their_decay():
    signals = np.random.default_rng(4).normal(-5, 3, (40, 20)).astype(np.float32)
    moments, mean, square = objectives.init_moments(), 0.0, 0.0
    for i, signal in enumerate(signals):
        moments = update_moments(moments, signal, decay=0.9)
        rate = max(0.1, 1 / (i + 1))
        mean = (1 - rate) * mean + rate * signal.mean()
        square = (1 - rate) * square + rate * (signal**2).mean()
        np.testing.assert_allclose(moments.mean, mean, rtol=1e-5)
        np.testing.assert_allclose(moments.variance, square - mean**2, rtol=1e-4)
    assert 6 < moments.variance < 13  # of the signal: 9


def test_moments_of_a_constant():
    moments = objectives.init_moments()
    for _ in range(3):
        moments = update_moments(moments, jnp.full(4, -700.0), decay=0.9)
    assert (moments.mean, moments.count) == (-700, 3)
    assert 0 <= moments.variance < 0.5  # float32's share of 700^2


def test_moments_of_parts_average_to_those_of_the_whole():
    """So that a batch over several devices has one baseline."""
    start = objectives.Moments(jnp.float32(-2.0), jnp.float32(5.0), jnp.float32(30.0))
    for signal in (jnp.float32([-3.0, -1.0, 4.0, 2.5]), jnp.float32([-3.0, -jnp.inf, -jnp.inf, -jnp.inf])):
        whole = update_moments(start, signal, decay=0.9)
        parts = [update_moments(start, part, decay=0.9) for part in (signal[:2], signal[2:])]
        for value, first, second in zip(whole, *parts, strict=True):
            np.testing.assert_allclose(value, (first + second) / 2, rtol=1e-6)


def test_moments_stop_gradients():
    def mean(signal):
        return update_moments(objectives.init_moments(), signal, decay=0.9).mean

    np.testing.assert_array_equal(jax.grad(mean)(jnp.ones(3)), 0)
