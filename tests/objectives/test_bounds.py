"""Pathwise bounds against their definitions; what holds for every estimator is in test_suite.py."""

import itertools
import math

import jax
import numpy as np
import pytest
from scipy.special import logsumexp, softmax

from objcentric import objectives
from tests.objectives import toys
from tests.objectives.checks import assert_equal, evaluate


@pytest.fixture
def log_w():
    return np.random.default_rng(0).normal(-3, 2, (4, 3, 6)).astype(np.float32)


def grouped(log_w, num_groups):
    return np.float64(log_w).reshape(4, 3, num_groups, -1)


# ----------------------------------------------------------------------------------------------------------- iwae, elbo


def test_values_and_gradients(log_w):
    """The gradient of IWAE's bound is the normalised weights."""
    iwae = logsumexp(np.float64(log_w), axis=-1) - np.log(6)
    estimate, (gradient,) = evaluate(objectives.iwae, log_w)
    np.testing.assert_allclose(estimate.bound, iwae, rtol=1e-6)
    np.testing.assert_allclose(gradient, softmax(np.float64(log_w), axis=-1), rtol=1e-5)
    np.testing.assert_allclose(objectives.normalized_weights(log_w), gradient, rtol=1e-5)
    estimate, (gradient,) = evaluate(objectives.elbo, log_w)
    np.testing.assert_allclose(estimate.bound, log_w.mean(-1), rtol=1e-6)
    np.testing.assert_allclose(gradient, np.full_like(log_w, 1 / 6), rtol=1e-6)
    assert (iwae > log_w.mean(-1)).all() and (iwae < log_w.max(-1)).all()


def test_one_particle_makes_iwae_the_elbo(log_w):
    for objective in (objectives.iwae, objectives.elbo):
        estimate, (gradient,) = evaluate(objective, log_w[..., :1])
        np.testing.assert_array_equal(estimate.bound, log_w[..., 0])
        np.testing.assert_array_equal(gradient, np.ones((4, 3, 1)))


def test_large_weights_neither_overflow_nor_vanish(log_w):
    log_w[0, 0], log_w[0, 1] = [-1e4] * 3 + [1 - 1e4] * 3, [1e4] * 3 + [1 + 1e4] * 3
    found = evaluate(objectives.iwae, log_w)[0].bound[0, :2]
    np.testing.assert_allclose(found, np.log((1 + np.e) / 2) + [-1e4, 1e4], rtol=1e-6)


def test_weights_of_nothing_are_zero(log_w):
    log_w[0, 0], log_w[0, 1] = -np.inf, [0.0, -np.inf] * 3
    weights = objectives.normalized_weights(log_w)
    np.testing.assert_allclose(weights[0, :2], [[0.0] * 6, [1 / 3, 0] * 3], rtol=1e-6)
    np.testing.assert_allclose(evaluate(objectives.iwae, log_w)[0].bound[0, :2], [-np.inf, np.log(0.5)], rtol=1e-6)
    where = np.ones_like(log_w, bool)
    where[1] = False
    np.testing.assert_array_equal(objectives.normalized_weights(log_w, where=where)[1], 0)
    assert (evaluate(objectives.iwae, log_w, where=where)[0].bound[1] == -np.inf).all()


def test_the_bias_of_iwae_is_of_order_one_over_k():
    """``log p(x) - E[L_K] = Var(w) / (2 K p(x)^2)`` + O(1/K^2): sums over how often each of three values is drawn."""
    q, joint = softmax(toys.LOGITS), np.exp(toys.LOG_PRIOR + toys.LOG_LIKELIHOOD)
    w, evidence = joint / q, joint.sum()
    limit = (q @ w**2 - evidence**2) / (2 * evidence**2)

    def bias(k):
        counts = np.array([(a, b, k - a - b) for a, b in itertools.product(range(k + 1), repeat=2) if a + b <= k])
        ways = np.array([math.factorial(k) // math.prod(map(math.factorial, row)) for row in counts.tolist()], float)
        probability = ways * np.prod(q**counts, -1)
        assert probability.sum() == pytest.approx(1)
        draws = np.stack([np.repeat(np.log(w), row) for row in counts])
        return np.log(evidence) - probability @ np.float64(evaluate(objectives.iwae, np.float32(draws))[0].bound)

    found = np.array([k * bias(k) for k in (16, 64)])
    np.testing.assert_allclose(found, limit, rtol=0.1)
    np.testing.assert_allclose(2 * found[1] - found[0], limit, rtol=0.1)
    np.testing.assert_allclose(found[1] + (found[1] - found[0]) / 3, limit, rtol=0.005)  # what is left is O(1/K)


# ---------------------------------------------------------------------------------------------------------------- miwae


@pytest.mark.parametrize("num_groups", [1, 2, 3, 6])
def test_miwae_is_the_mean_of_the_bounds_of_m_groups(log_w, num_groups):
    """M groups of L consecutive particles: with 6 particles, M and L cannot be mistaken for one another."""
    estimate, (gradient,) = evaluate(objectives.miwae, log_w, num_groups=num_groups)
    expected = np.mean(logsumexp(grouped(log_w, num_groups), axis=-1) - np.log(6 / num_groups), axis=-1)
    np.testing.assert_allclose(estimate.bound, expected, rtol=1e-6)
    weights = softmax(grouped(log_w, num_groups), axis=-1) / num_groups
    np.testing.assert_allclose(gradient, weights.reshape(4, 3, 6), rtol=1e-5)


@pytest.mark.parametrize("num_groups, limit", [(1, objectives.iwae), (6, objectives.elbo)])
def test_limits_of_miwae(log_w, num_groups, limit):
    """Also at weights of zero, which teach nothing while the others do."""
    log_w[0, :2, 3], log_w[1] = -np.inf, -np.inf
    estimate, (gradient,) = evaluate(objectives.miwae, log_w, num_groups=num_groups)
    expected, (expected_gradient,) = evaluate(limit, log_w)
    np.testing.assert_allclose(estimate.bound, expected.bound, rtol=1e-6)
    np.testing.assert_allclose(gradient, expected_gradient, rtol=1e-5)
    np.testing.assert_array_equal(gradient == 0, log_w == -np.inf)


def test_miwae_leaves_out_a_group_without_particles(log_w):
    where = np.broadcast_to(np.arange(6) < 4, log_w.shape)
    halves = np.log(np.exp(np.float64(log_w[..., :4])).reshape(4, 3, 2, 2).mean(-1))
    found = evaluate(objectives.miwae, log_w, num_groups=3, where=where)[0].bound
    np.testing.assert_allclose(found, halves.mean(-1), rtol=1e-6)


@pytest.mark.parametrize("num_groups", [4, 0, -2])
def test_groups_must_divide_the_particles(log_w, num_groups):
    for objective, arrays in ((objectives.miwae, [log_w]), (objectives.piwae, [log_w, log_w])):
        with pytest.raises(ValueError, match=f"num_groups={num_groups} must divide the 6 particles"):
            objective(*arrays, num_groups=num_groups)


# --------------------------------------------------------------------------------------------------------- ciwae, piwae


@pytest.mark.parametrize("beta, limit", [(0.0, objectives.iwae), (1.0, objectives.elbo)])
def test_limits_of_ciwae(log_w, beta, limit):
    """Exactly, also where a bound that has no share is -inf, and where beta is an array."""
    log_w[0, :2, 3], log_w[1] = -np.inf, -np.inf
    expected = evaluate(limit, log_w)
    assert_equal(evaluate(objectives.ciwae, log_w, beta=beta), expected)
    ciwae = jax.jit(jax.value_and_grad(lambda w, beta: objectives.ciwae(w, beta=beta).surrogate[2:].sum()))
    assert_equal(ciwae(log_w, np.full((4, 3), beta, np.float32))[1][2:], expected[1][0][2:])


@pytest.mark.parametrize("shape", [(4, 1), (3,), (4, 3, 1)])
def test_a_beta_of_another_shape_is_refused(log_w, shape):
    with pytest.raises(ValueError, match=r"beta .* must be a scalar or have one value per bound \(4, 3\)"):
        objectives.ciwae(log_w, beta=np.full(shape, 0.5))


def test_ciwae_lies_between(log_w):
    expected = 0.75 * log_w.mean(-1) + 0.25 * (logsumexp(np.float64(log_w), axis=-1) - np.log(6))
    np.testing.assert_allclose(evaluate(objectives.ciwae, log_w, beta=0.75)[0].bound, expected, rtol=1e-6)


@pytest.mark.parametrize("num_groups", [1, 2, 3])
def test_piwae_gives_iwae_to_theta_and_miwae_to_phi(log_w, num_groups):
    """Of one group, it is IWAE for both."""
    estimate, (theta, phi) = evaluate(objectives.piwae, log_w, log_w, num_groups=num_groups)
    np.testing.assert_allclose(theta, softmax(np.float64(log_w), axis=-1), rtol=1e-5)
    weights = softmax(grouped(log_w, num_groups), axis=-1) / num_groups
    np.testing.assert_allclose(phi, weights.reshape(4, 3, 6), rtol=1e-5)
    np.testing.assert_allclose(estimate.bound, logsumexp(np.float64(log_w), axis=-1) - np.log(6), rtol=1e-6)
