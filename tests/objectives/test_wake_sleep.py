"""Wake-sleep: golden bias, limits, and the defensive proposal; the mean gradients are in test_suite.py."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import logsumexp, softmax

from objcentric import objectives
from tests.objectives import toys
from tests.objectives.checks import assert_equal, evaluate

WAKE = ("log_w", "log_q, z stopped")
DELTA_WAKE = ("log_p, z stopped", "log_q, z stopped", "log_u")
POSTERIOR_GRADIENT = softmax(toys.LOG_PRIOR + toys.LOG_LIKELIHOOD) - softmax(toys.LOGITS)  # of E_p(z|x)[log q]


@pytest.mark.parametrize("num_particles, bias", [(2, 0.3246), (3, 0.1874), (4, 0.1184), (5, 0.0817)])
def test_golden_bias(num_particles, bias):
    """Of self-normalisation, against the gradient with draws of the posterior."""
    found = toys.moments(objectives.wake_phi, WAKE, "categorical", num_particles).mean[:3]
    assert np.linalg.norm(found - POSTERIOR_GRADIENT) == pytest.approx(bias, abs=5e-5)


def test_one_particle_concentrates_q():
    """The mean gradient is 0, and a step along any draw makes q less uncertain on average."""
    np.testing.assert_allclose(toys.moments(objectives.wake_phi, WAKE, "categorical", 1).mean, 0, atol=1e-15)

    def entropy(logits):
        q = softmax(logits)
        return -q @ np.log(q)

    _, (_, gradient) = evaluate(objectives.wake_phi, np.zeros((3, 1), np.float32), np.zeros((3, 1), np.float32))
    for z in range(3):
        step = 0.5 * gradient[z] * (np.eye(3)[z] - 1 / 3)
        assert entropy(np.asarray(step)) < entropy(np.zeros(3)) - 0.02


@pytest.fixture
def arrays():
    return np.random.default_rng(0).normal(-3, 2, (3, 4, 5)).astype(np.float32)


def test_wake_theta_weighs_log_p_and_stops_q(arrays):
    log_p, log_q, _ = arrays
    _, (theta, phi) = evaluate(objectives.wake_theta, log_p, log_q)
    np.testing.assert_allclose(theta, softmax(np.float64(log_p - log_q), axis=-1), rtol=1e-5)
    np.testing.assert_array_equal(phi, 0)


def test_wake_phi_weighs_log_q_and_stops_the_weights(arrays):
    log_w, log_q, _ = arrays
    estimate, (weights, score) = evaluate(objectives.wake_phi, log_w, log_q)
    np.testing.assert_array_equal(weights, 0)
    np.testing.assert_allclose(score, softmax(np.float64(log_w), axis=-1), rtol=1e-5)
    np.testing.assert_allclose(estimate.bound, logsumexp(np.float64(log_w), axis=-1) - np.log(5), rtol=1e-6)


def test_what_has_no_weight_may_have_no_probability(arrays):
    log_w, log_q, _ = arrays
    log_w[:, :3] = log_q[:, 3:] = -1.0
    log_w[:, 3:] = log_q[:, 3:] = -np.inf
    estimate, (_, gradient) = evaluate(objectives.wake_phi, log_w, log_q)
    np.testing.assert_allclose(estimate.surrogate, log_q[:, :3].mean(-1), rtol=1e-6)
    np.testing.assert_allclose(gradient, np.tile([1 / 3, 1 / 3, 1 / 3, 0, 0], (4, 1)), rtol=1e-6)


# ---------------------------------------------------------------------------------------------------------------- delta


def delta_wake_phi(log_p, log_q, log_u, delta):
    """With live log q alone, as it is used."""
    stopped = jax.lax.stop_gradient
    return objectives.delta_wake_phi(stopped(log_p), log_q, stopped(log_u), delta=delta)


def test_delta_zero_is_wake_phi(arrays):
    """Wherever the defensive component has no density, too."""
    log_p, log_q, log_u = arrays
    log_u[0] = -np.inf
    estimate, (_, gradient, _) = evaluate(delta_wake_phi, log_p, log_q, log_u, delta=0.0)
    expected, (_, expected_gradient) = evaluate(objectives.wake_phi, log_p - log_q, log_q)
    assert_equal((estimate, gradient), (expected, expected_gradient))


@pytest.mark.parametrize("delta", [-0.1, 1.0, 1.5])
def test_delta_must_be_a_share(delta):
    with pytest.raises(ValueError, match=f"delta={delta} must be in"):
        objectives.delta_wake_phi(*np.zeros((3, 4)), delta=delta)


def test_delta_by_hand(arrays):
    """Also where q gives a value no probability: the gradient calls for it, and is finite."""
    log_p, log_q, log_u = arrays
    log_q[0, 0] = -np.inf
    estimate, (_, found, _) = evaluate(delta_wake_phi, log_p, log_q, log_u, delta=0.2)
    weights = np.exp(np.float64(log_p)) / (0.8 * np.exp(np.float64(log_q)) + 0.2 * np.exp(np.float64(log_u)))
    np.testing.assert_allclose(found, weights / weights.sum(-1, keepdims=True), rtol=1e-5)
    np.testing.assert_allclose(estimate.bound, np.log(weights.mean(-1)), rtol=1e-5)


def test_the_defence_costs_less_bias_where_q_is_far_off():
    """With more particles both tend to the gradient with draws of the posterior."""
    biases = {}
    for name, function, arrays, proposal in (
        ("ww", objectives.wake_phi, WAKE, "q"),
        ("delta", functools.partial(objectives.delta_wake_phi, delta=toys.DELTA), DELTA_WAKE, "mixture"),
    ):
        found = [toys.moments(function, arrays, "categorical", k, proposal).mean[:3] for k in (2, 5)]
        biases[name] = [np.linalg.norm(mean - POSTERIOR_GRADIENT) for mean in found]
        assert biases[name][1] < 0.5 * biases[name][0]
    assert biases["delta"][0] < biases["ww"][0]


def test_defend_draws_the_mixture_of_whole_trajectories():
    keys = jax.random.split(jax.random.key(0), 20000)
    z = {"a": jnp.zeros(3), "b": jnp.zeros((), int)}
    defensive = {"a": jnp.ones(3), "b": jnp.ones((), int)}
    drawn = jax.jit(jax.vmap(lambda key: objectives.defend(key, z, defensive, delta=0.2)))(keys)
    np.testing.assert_array_equal(drawn["a"], np.tile(drawn["b"][:, None], 3))
    assert abs(float(drawn["b"].mean()) - 0.2) < 4 * np.sqrt(0.2 * 0.8 / len(keys))


# ---------------------------------------------------------------------------------------------------------------- sleep


def test_sleep_phi_is_the_mean_of_log_q(arrays):
    estimate, (gradient,) = evaluate(objectives.sleep_phi, arrays[0])
    np.testing.assert_allclose(estimate.surrogate, arrays[0].mean(-1), rtol=1e-6)
    np.testing.assert_allclose(gradient, np.full((4, 5), 0.2), rtol=1e-6)
