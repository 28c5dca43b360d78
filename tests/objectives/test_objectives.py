"""Every objective against exact answers: enumeration of all draws, identities, limits and invariances."""

import functools
import itertools
import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import logsumexp, softmax

from objcentric import objectives

# One categorical latent with three values: log p(z), log p(x | z), and q's logits, which are the parameters.
LOG_PRIOR = np.log(softmax([0.3, -0.2, 0.5]))
LOG_LIKELIHOOD = np.array([-1.0, -2.5, -0.3])
LOGITS = np.array([-0.4, 0.6, 0.1])



def moments_of_variance(variance):
    return objectives.Moments(jnp.float32(-1.3), jnp.float32(1.69 + variance), jnp.float32(7.0))


MOMENTS = moments_of_variance(4.0)
SCORE_FUNCTION = {
    "reinforce": objectives.reinforce,
    "reinforce with a baseline": functools.partial(objectives.reinforce, baseline=-1.7),
    "nvil": lambda log_w, log_q: objectives.nvil(
        log_w, log_q, baseline=jnp.float32(0.4), moments=moments_of_variance(0.5)
    )[0],
    "vimco": objectives.vimco,
}
PATHWISE = {
    "elbo": lambda log_w, log_q: objectives.elbo(log_w),
    "iwae": lambda log_w, log_q: objectives.iwae(log_w),
}
ALL = PATHWISE | SCORE_FUNCTION


def draws(num_particles):
    """All draws z [3^K, K] and their probabilities."""
    z = np.array(list(itertools.product(range(3), repeat=num_particles)))
    return z, np.exp(np.log(softmax(LOGITS))[z].sum(1))


def estimates(objective, num_particles):
    """The gradient estimate of every possible draw [3^K, 3]."""

    def surrogate(logits, z):
        log_q = jax.nn.log_softmax(logits)[z]
        return objective(jnp.asarray(LOG_PRIOR + LOG_LIKELIHOOD)[z] - log_q, log_q).surrogate

    z, probability = draws(num_particles)
    gradients = jax.jit(jax.vmap(jax.grad(surrogate), (None, 0)))(jnp.asarray(LOGITS), z)
    assert gradients.dtype == jnp.float64
    return np.asarray(gradients), probability


@functools.cache
def exact_gradient(num_particles):
    """d/d logits of the expected IWAE bound, by differentiating the enumerated expectation."""
    z, _ = draws(num_particles)

    def expectation(logits):
        log_q = jax.nn.log_softmax(logits)[z]
        log_w = jnp.asarray(LOG_PRIOR + LOG_LIKELIHOOD)[z] - log_q
        bound = jax.nn.logsumexp(log_w, axis=-1) - np.log(num_particles)
        return jnp.exp(log_q.sum(-1)) @ bound

    return np.asarray(jax.jit(jax.grad(expectation))(jnp.asarray(LOGITS)))


def moments_of(gradients, probability):
    mean = probability @ gradients
    return mean, np.sqrt(probability @ ((gradients - mean) ** 2).sum(-1))


# ------------------------------------------------------------------------------------------------------- exact answers


@pytest.mark.parametrize(
    "num_particles, norm, reinforce, vimco",
    [(2, 0.7442, 2.516, 1.164), (3, 0.5092, 2.707, 0.759), (4, 0.3523, 2.703, 0.544), (5, 0.2531, 2.648, 0.401)],
)
def test_golden_values(num_particles, norm, reinforce, vimco):
    with jax.enable_x64(True):
        assert np.linalg.norm(exact_gradient(num_particles)) == pytest.approx(norm, abs=5e-5)
        for objective, std in ((objectives.reinforce, reinforce), (objectives.vimco, vimco)):
            assert moments_of(*estimates(objective, num_particles))[1] == pytest.approx(std, abs=5e-4)


@pytest.mark.parametrize("num_particles", [2, 4])
@pytest.mark.parametrize("name", SCORE_FUNCTION)
def test_unbiased(name, num_particles):
    with jax.enable_x64(True):
        mean, _ = moments_of(*estimates(SCORE_FUNCTION[name], num_particles))
        np.testing.assert_allclose(mean, exact_gradient(num_particles), atol=1e-14)


def test_nvil_scales_its_signal_where_it_varies_much():
    def signal(variance):
        moments = moments_of_variance(variance)

        def surrogate(log_q):
            return objectives.nvil(jnp.float32([-2.0, -3.0]), log_q, baseline=jnp.float32(0.5), moments=moments)[0][1]

        return jax.grad(surrogate)(jnp.zeros(2))

    expected = np.log((np.exp(-2) + np.exp(-3)) / 2) - 0.5 + 1.3
    np.testing.assert_allclose(signal(0.25), [expected, expected], rtol=1e-6)
    np.testing.assert_allclose(signal(4.0), [expected / 2, expected / 2], rtol=1e-6)


def test_nvil_baseline_learns_the_centred_bound_and_nothing_else():
    def loss(baseline, log_w, log_q):
        moments = MOMENTS
        return objectives.nvil(log_w, log_q, baseline=baseline, moments=moments)[1]

    log_w = jnp.float32([-2.0, -3.0])
    bound = np.log((np.exp(-2) + np.exp(-3)) / 2)
    value, gradients = jax.value_and_grad(loss, (0, 1, 2))(jnp.float32(0.5), log_w, jnp.zeros(2))
    residual = bound + 1.3 - 0.5
    np.testing.assert_allclose(value, residual**2, rtol=1e-6)
    np.testing.assert_allclose(gradients[0], -2 * residual, rtol=1e-6)
    np.testing.assert_array_equal(np.stack(gradients[1:]), 0)


def test_no_gradient_of_the_estimate_reaches_the_baseline():
    def surrogate(baseline, log_w):
        return objectives.nvil(log_w, log_w, baseline=baseline, moments=MOMENTS)[0].surrogate

    assert jax.grad(surrogate)(jnp.float32(0.5), jnp.float32([-2.0, -3.0])) == 0
    assert jax.grad(lambda b: objectives.reinforce(jnp.ones(2), jnp.ones(2), baseline=b).surrogate)(0.5) == 0


# ---------------------------------------------------------------------------------------------------------- identities


@pytest.fixture
def log_w():
    return jnp.asarray(np.random.default_rng(0).normal(-3, 2, (4, 3, 6)), jnp.float32)


@pytest.fixture
def log_q():
    return jnp.asarray(np.random.default_rng(1).normal(-1, 1, (4, 3, 6)), jnp.float32)


def test_bounds(log_w, log_q):
    iwae = logsumexp(np.float64(log_w), axis=-1) - np.log(6)
    for name, objective in ALL.items():
        expected = np.mean(log_w, -1) if name == "elbo" else iwae
        np.testing.assert_allclose(objective(log_w, log_q).bound, expected, rtol=1e-6, atol=1e-6, err_msg=name)


def test_gradient_of_the_iwae_bound_is_the_normalised_weights(log_w):
    gradient = jax.grad(lambda log_w: objectives.iwae(log_w).surrogate.sum())(log_w)
    np.testing.assert_allclose(gradient, softmax(np.float64(log_w), axis=-1), rtol=1e-5)


def test_one_particle_makes_iwae_the_elbo(log_w):
    one = log_w[..., :1]
    np.testing.assert_array_equal(objectives.iwae(one).bound, objectives.elbo(one).bound)
    gradients = [jax.grad(lambda x, f=f: f(x).surrogate.sum())(one) for f in (objectives.iwae, objectives.elbo)]
    np.testing.assert_allclose(*gradients, rtol=1e-6)


def test_the_iwae_bound_lies_between_elbo_and_the_largest_weight(log_w):
    bound = objectives.iwae(log_w).bound
    assert (bound > objectives.elbo(log_w).bound).all() and (bound < log_w.max(-1)).all()


def test_leave_one_out_is_free_of_its_own_weight(log_w):
    changed = log_w.at[..., 2].add(10.0)
    before, after = objectives.leave_one_out(log_w), objectives.leave_one_out(changed)
    np.testing.assert_allclose(before[..., 2], after[..., 2], rtol=1e-6)
    assert (before[..., [0, 1, 3, 4, 5]] < after[..., [0, 1, 3, 4, 5]]).all()


def test_leave_one_out_of_equal_weights_is_the_bound():
    """Also K itself enters rightly: all L and Y_{-k} agree, and nothing is learnt."""
    log_w = jnp.full(5, -2.5)
    np.testing.assert_allclose(objectives.leave_one_out(log_w), -2.5, rtol=1e-6)


@pytest.mark.parametrize("name", ALL)
def test_a_permutation_of_particles_changes_nothing(name, log_w, log_q):
    order = np.array([3, 0, 5, 1, 4, 2])
    value_and_grad = jax.jit(jax.value_and_grad(lambda w, q: ALL[name](w, q).surrogate.sum(), (0, 1)))
    value, gradients = value_and_grad(log_w, log_q)
    permuted_value, permuted = value_and_grad(log_w[..., order], log_q[..., order])
    np.testing.assert_allclose(permuted_value, value, rtol=1e-5)
    for gradient, again in zip(gradients, permuted, strict=True):
        np.testing.assert_allclose(again, gradient[..., order], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ALL)
def test_leading_axes_are_independent_and_jit_changes_nothing(name, log_w, log_q):
    together = jax.jit(ALL[name])(log_w, log_q)
    for i, j in ((0, 0), (2, 1), (3, 2)):
        alone = ALL[name](log_w[i, j], log_q[i, j])
        for value, expected in zip(together, alone, strict=True):
            assert value.shape == (4, 3)
            np.testing.assert_allclose(value[i, j], expected, rtol=1e-4, atol=1e-5)


# ------------------------------------------------------------------------------------------------------------ extremes


@pytest.mark.parametrize("std", [10, 50])
def test_leave_one_out_in_float32(std):
    log_w = np.random.default_rng(2).normal(0, std, (500, 8)).astype(np.float32)
    exact = np.float64(log_w)
    others = [np.delete(exact, k, 1) for k in range(8)]
    expected = [logsumexp(np.c_[o, o.mean(1)], axis=1) - np.log(8) for o in others]
    np.testing.assert_allclose(objectives.leave_one_out(jnp.asarray(log_w)), np.stack(expected, 1), atol=1e-4)


def test_large_weights_neither_overflow_nor_vanish():
    for shift in (-1e4, 1e4):
        log_w = jnp.float32([shift, shift + 1])
        assert float(objectives.iwae(log_w).bound) == pytest.approx(shift + np.log((1 + np.e) / 2), rel=1e-6)


@pytest.mark.parametrize("name", ALL)
def test_all_weights_zero(name):
    """A datum that no particle explains: its bound is -inf, it teaches nothing, and the others learn as ever."""
    log_q = jnp.float32([[-1.0, -2.0, -0.5], [-1.0, -2.0, -0.5]])
    log_w = jnp.float32([[-jnp.inf] * 3, [-1.0, -4.0, -2.0]])
    assert objectives.log_mean_exp(log_w)[0] == -jnp.inf
    assert ALL[name](log_w, log_q).bound[0] == -jnp.inf
    if name == "elbo":
        return

    @functools.partial(jax.grad, argnums=(0, 1))
    def gradient_of(log_w, log_q):
        return ALL[name](log_w, log_q).surrogate.sum()

    gradients, alone = jax.jit(gradient_of)(log_w, log_q), jax.jit(gradient_of)(log_w[1:], log_q[1:])
    for gradient, expected in zip(gradients, alone, strict=True):
        np.testing.assert_array_equal(gradient[0], 0)
        np.testing.assert_allclose(gradient[1:], expected, rtol=1e-6)


@pytest.mark.parametrize("name", ["iwae", *SCORE_FUNCTION])
def test_one_weight_zero(name):
    """Its particle is the worst of all; every gradient is finite and the baseline of the others still counts it."""
    log_w, log_q = jnp.float32([-1.0, -jnp.inf, -2.0]), jnp.zeros(3)
    gradients = jax.jit(jax.grad(lambda w, q: ALL[name](w, q).surrogate, (0, 1)))(log_w, log_q)
    assert all(np.isfinite(gradient).all() for gradient in gradients)
    assert gradients[0][1] == 0
    if name == "vimco":
        # Without the second particle the others' geometric mean takes its place; without another, its weight does.
        bound, e = np.log((np.exp(-1) + np.exp(-2)) / 3), np.exp
        baselines = [np.log(e(-2) / 3), np.log((e(-1) + e(-2) + e(-1.5)) / 3), np.log(e(-1) / 3)]
        np.testing.assert_allclose(gradients[1], bound - np.array(baselines), rtol=1e-5)


def test_vimco_refuses_one_particle():
    with pytest.raises(ValueError, match="vimco needs at least 2 particles.* K is 1"):
        jax.eval_shape(objectives.vimco, jnp.zeros((4, 1)), jnp.zeros((4, 1)))


@pytest.mark.parametrize("name", SCORE_FUNCTION)
def test_shapes_that_disagree(name):
    with pytest.raises(ValueError, match=r"one shape \[..., K\]: log_w \(4, 3\), log_q \(4, 1\)"):
        jax.eval_shape(SCORE_FUNCTION[name], jnp.zeros((4, 3)), jnp.zeros((4, 1)))


def test_nvil_baseline_learns_nothing_from_weights_of_zero():
    def loss(baseline):
        log_w = jnp.full(3, -jnp.inf)
        return objectives.nvil(log_w, jnp.zeros(3), baseline=baseline, moments=MOMENTS)[1]

    assert jax.value_and_grad(loss)(jnp.float32(0.5)) == (0, 0)


# ------------------------------------------------------------------------------------------------------------- moments


def test_moments_are_plain_averages_at_first():
    """While 1 / count is above the rate: of equal batches, as if they were one."""
    signals = np.random.default_rng(3).normal(-5, 3, (6, 20)).astype(np.float32)
    moments = objectives.init_moments()
    for i, signal in enumerate(signals):
        moments = objectives.update_moments(moments, jnp.asarray(signal), decay=0.9)
        assert moments.count == i + 1
        np.testing.assert_allclose(moments.mean, signals[: i + 1].mean(), rtol=1e-5)


def test_moments_forget_at_the_rate_of_their_decay():
    signals = np.random.default_rng(4).normal(-5, 3, (40, 20)).astype(np.float32)
    moments, mean, square = objectives.init_moments(), 0.0, 0.0
    update = jax.jit(functools.partial(objectives.update_moments, decay=0.9))
    for i, signal in enumerate(signals):
        moments = update(moments, signal)
        rate = max(0.1, 1 / (i + 1))
        mean = (1 - rate) * mean + rate * signal.mean()
        square = (1 - rate) * square + rate * (signal**2).mean()
        np.testing.assert_allclose(moments.mean, mean, rtol=1e-5)
        np.testing.assert_allclose(moments.variance, square - mean**2, rtol=1e-4)
    assert 6 < moments.variance < 13  # of the signal: 9


def test_moments_of_a_constant():
    moments = objectives.init_moments()
    for _ in range(3):
        moments = objectives.update_moments(moments, jnp.full(4, -700.0), decay=0.9)
    assert (moments.mean, moments.count) == (-700, 3)
    assert 0 <= moments.variance < 0.5  # float32's share of 700^2


def test_moments_of_parts_average_to_those_of_the_whole():
    """So that a batch over several devices has one baseline."""
    start = objectives.Moments(jnp.float32(-2.0), jnp.float32(5.0), jnp.float32(3.0))
    signal = jnp.float32([-3.0, -1.0, 4.0, 2.5])
    whole = objectives.update_moments(start, signal, decay=0.9)
    parts = [objectives.update_moments(start, part, decay=0.9) for part in (signal[:2], signal[2:])]
    for value, first, second in zip(whole, *parts, strict=True):
        np.testing.assert_allclose(value, (first + second) / 2, rtol=1e-6)


def test_moments_stop_gradients():
    def mean(signal):
        return objectives.update_moments(objectives.init_moments(), signal, decay=0.9).mean

    np.testing.assert_array_equal(jax.grad(mean)(jnp.ones(3)), 0)


# ------------------------------------------------------------------------------------------------------------- imports


def test_import_needs_jax_only():
    """Whoever reuses the estimators gets nothing else with them."""
    code = """
import sys, jax, jax.numpy, numpy
before = set(sys.modules)
import objcentric.objectives
new = {name.split(".")[0] for name in set(sys.modules) - before}
heavy = {"flax", "distrax", "optax", "chex", "tensorflow_datasets", "matplotlib", "ml_collections", "scipy"}
print(sorted(new - {"objcentric", "jax"}), sorted(heavy & {name.split(".")[0] for name in new}))
print(sorted(name for name in sys.modules if name.startswith("objcentric") and "objectives" not in name))
"""
    source = Path(objectives.__file__).parents[2]
    environment = os.environ | {"PYTHONPATH": str(source)}
    result = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert result.stdout.splitlines() == ["[] []", "['objcentric']"]
