"""The mixture against scipy, Bayes' rule and frequencies."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats
from scipy.special import log_softmax, logsumexp, softmax

from objcentric.errors import UserError
from objcentric.models import gmm

CONFIG = gmm.Config(num_clusters=4, spacing=3.0, std=2.0, hidden=(5, 3), prior_scale=0.5)
MODEL = gmm.make(CONFIG)
PARAMS = jax.jit(MODEL.init)(jax.random.key(0))
PARAMS["generative"]["theta"] = jnp.array([0.3, -0.2, 1.0, 0.1])
X = jnp.float32(4.3)


def by_hand(x):
    """log p(z), log p(x | z), log q(z | x) of all z, in numpy."""
    theta = np.float64(PARAMS["generative"]["theta"])
    hidden = np.array([2 * x / 9 - 1])
    for i, layer in enumerate(PARAMS["inference"]):
        hidden = (np.tanh(hidden) if i else hidden) @ np.float64(layer["kernel"]) + np.float64(layer["bias"])
    return log_softmax(theta / 2), stats.norm.logpdf(x, 3.0 * np.arange(4), 2.0), log_softmax(hidden)


def test_every_density_of_a_trace():
    log_prior, log_likelihood, log_q = by_hand(float(X))
    score = jax.jit(lambda z: MODEL.trace(PARAMS, jax.random.key(1), X, {}, z=z))
    for z in range(4):
        trace = score(z)
        assert trace.z == z
        np.testing.assert_allclose(trace.log_p, log_prior[z] + log_likelihood[z], rtol=1e-5)
        np.testing.assert_allclose([trace.log_q, trace.log_q_discrete], [log_q[z]] * 2, rtol=1e-5)
        np.testing.assert_allclose(trace.outputs["log_likelihood"], log_likelihood[z], rtol=1e-5)


def test_a_trace_draws_from_q():
    keys = jax.random.split(jax.random.key(2), 4000)
    traces = jax.jit(jax.vmap(lambda key: MODEL.trace(PARAMS, key, X, {})))(keys)
    q = np.exp(by_hand(float(X))[2])
    assert frequencies_fit(traces.z, q)
    np.testing.assert_allclose(traces.log_q, np.log(q)[traces.z], rtol=1e-4)


def test_generate_draws_from_p():
    z, x = jax.jit(jax.vmap(lambda key: MODEL.generate(PARAMS, key, {})))(jax.random.split(jax.random.key(3), 4000))
    assert frequencies_fit(z, np.exp(by_hand(0.0)[0]))
    assert stats.kstest((x - 3.0 * z) / 2.0, "norm").pvalue > 0.01
    np.testing.assert_array_equal(MODEL.render(PARAMS, z)["mean"], 3.0 * z)


def frequencies_fit(z, probabilities):
    counts = np.bincount(z, minlength=len(probabilities))
    return stats.chisquare(counts, len(z) * probabilities / probabilities.sum()).pvalue > 0.01


def test_posterior_by_bayes():
    prior = np.log([0.1, 0.2, 0.3, 0.4])
    joint = prior + by_hand(float(X))[1]
    posterior = gmm.log_posterior(CONFIG, jnp.asarray(prior, jnp.float32), X)
    np.testing.assert_allclose(posterior, joint - logsumexp(joint), rtol=1e-5)


@pytest.mark.parametrize("scale, ratio", [(1.0, np.exp(-2)), (0.5, np.exp(-1))])
def test_far_proportions_fall_exponentially(scale, ratio):
    theta, proportions = at_first(gmm.Config(prior_scale=scale))
    np.testing.assert_allclose(proportions[1:] / proportions[:-1], ratio, rtol=1e-4)
    np.testing.assert_array_equal(theta, 2 * (19 - np.arange(20)))


def at_first(config):
    params = jax.jit(gmm.make(config).init)(jax.random.key(0))
    return params["generative"]["theta"], np.exp(gmm.log_prior(config, params))


def test_near_proportions_are_all_the_same_and_true_ones_rise():
    config = gmm.Config(initial="near")
    theta, proportions = at_first(config)
    np.testing.assert_array_equal(theta, 1)
    np.testing.assert_allclose(proportions, 1 / 20, rtol=1e-6)
    expected = np.arange(5, 25) / np.arange(5, 25).sum()
    np.testing.assert_allclose(np.exp(gmm.true_log_prior(config)), expected, rtol=1e-5)


def test_the_default_is_the_thesis():
    params = jax.eval_shape(gmm.make(gmm.Config()).init, jax.random.key(0))
    shapes = [{name: leaf.shape for name, leaf in layer.items()} for layer in params["inference"]]
    assert shapes == [{"kernel": (1, 16), "bias": (16,)}, {"kernel": (16, 20), "bias": (20,)}]
    np.testing.assert_array_equal(gmm.means(gmm.Config()), 10 * np.arange(20))


def test_units_at_first_bend_at_different_places():
    """With biases of 0 all would bend at one place, and q would have few shapes."""
    layer = jax.jit(gmm.init_layers, static_argnums=1)(jax.random.key(0), (1, 64, 2))[0]
    places = -np.asarray(layer["bias"]) / np.asarray(layer["kernel"][0])
    assert np.ptp(np.clip(places, -1, 1)) > 1.5 and np.abs(layer["kernel"]).max() <= 1


# --------------------------------------------------------------------------------------------------- relaxed densities


def test_relaxed_densities_at_the_corners_are_the_discrete_ones():
    log_prior, log_likelihood, log_q = (jnp.asarray(part, jnp.float32) for part in by_hand(float(X)))
    corners = jnp.eye(4)
    np.testing.assert_allclose(gmm.relaxed_log_likelihood(CONFIG, corners, X), log_likelihood, rtol=1e-5)
    weights = gmm.soft_log_weight(CONFIG, log_prior, log_q, corners, X)
    np.testing.assert_allclose(weights, log_prior + log_likelihood - log_q, rtol=1e-4)


def test_relaxed_densities_in_between():
    log_prior, _, log_q = by_hand(float(X))
    y = softmax(np.random.default_rng(0).normal(size=(3, 4)), axis=-1).astype(np.float32)
    likelihood = stats.norm.logpdf(float(X), y @ (3.0 * np.arange(4)), 2.0)
    expected = np.log(y @ np.exp(log_prior)) + likelihood - np.log(y @ np.exp(log_q))
    np.testing.assert_allclose(
        gmm.soft_log_weight(CONFIG, jnp.float32(log_prior), jnp.float32(log_q), y, X), expected, rtol=1e-4
    )


# -------------------------------------------------------------------------------------------------------------- draws


def test_draws_have_their_probabilities():
    p = jnp.array([[0.1, 0.2, 0.3, 0.4], [0.7, 0.25, 0.05, 0.0]])
    z = jax.jit(gmm.draw, static_argnums=2)(jax.random.key(4), jnp.log(p), 4000)
    assert z.shape == (2, 4000) and z.dtype == jnp.int32
    assert frequencies_fit(z[0], np.float64(p[0]))
    assert not (z[1] == 3).any() and frequencies_fit(z[1], np.array([0.7, 0.25, 0.05]))


@pytest.mark.parametrize("u", [0.0, 1 - 2.0**-23])
def test_rounding_draws_nothing_improbable(monkeypatch, u):
    """At either end of the uniform numbers, where one draw in millions lands."""
    monkeypatch.setattr(
        jax.random, "uniform", lambda key, shape, minval: jnp.full(shape, minval + (1 - minval) * jnp.float32(u))
    )
    p = np.random.default_rng(0).uniform(0.1, 1, (500, 20)).astype(np.float32)
    logits = np.log(p)
    logits[:, [0, 7, 19]] = -60.0
    draw = jax.jit(lambda logits: gmm.draw(jax.random.key(0), jax.nn.log_softmax(logits), 1)[:, 0])
    z = draw(jnp.asarray(logits))
    np.testing.assert_array_equal(z, 1 if u == 0.0 else 18)


def test_draws_are_no_path_for_gradients():
    def mean(log_p):
        return jnp.mean(jnp.exp(log_p)[gmm.draw(jax.random.key(0), log_p, 5)])

    p = np.array([0.2, 0.8], np.float32)
    z = jax.jit(gmm.draw, static_argnums=2)(jax.random.key(0), np.log(p), 5)
    expected = p * np.bincount(z, minlength=2) / 5
    np.testing.assert_allclose(jax.jit(jax.grad(mean))(np.log(p)), expected, rtol=1e-6)


def test_x_is_spread_about_its_cluster():
    z = np.tile(np.arange(4), 1000)
    x = jax.jit(lambda z: gmm.draw_x(CONFIG, jax.random.key(5), z))(z)
    assert stats.kstest((x - 3.0 * z) / 2.0, "norm").pvalue > 0.01


# --------------------------------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize(
    "field, value, message",
    [
        ("num_clusters", 1, "model.num_clusters=1 must be at least 2"),
        ("std", 0.0, "model.std=0.0 must be positive"),
        ("prior_scale", -1.0, "model.prior_scale=-1.0 must be positive"),
        ("hidden", (16, 0), r"model.hidden=\(16, 0\) must be positive widths"),
        ("initial", "middle", "initial='middle' is unknown: use far or near"),
    ],
)
def test_errors(field, value, message):
    with pytest.raises(UserError, match=message):
        dataclasses.replace(CONFIG, **{field: value})
