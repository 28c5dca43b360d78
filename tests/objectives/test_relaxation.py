"""Relaxations: the log-densities integrate to one, and the draws are theirs, pathwise gradients included."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.nn import log_softmax
from scipy.special import expit, softmax
from scipy.stats import kstest

from objcentric import objectives

LOGITS = np.array([0.3, -1.0, 0.8])
NUM_DRAWS = 20000


@functools.partial(jax.jit, static_argnums=0)
def draw_with_gradients(draw, logits, *args):
    """``draw(key, logits, *args)`` and its derivative for the logits, at many keys."""

    def both(logits, key):
        y = draw(key, logits, *args)
        return y, y

    keys = jax.random.split(jax.random.key(0), NUM_DRAWS)
    jacobian, y = jax.vmap(jax.jacrev(both, has_aux=True), (None, 0))(logits, keys)
    return y, jacobian


# ------------------------------------------------------------------------------------------------------------- concrete


@functools.cache
def concrete_integrals(temperature):
    """Over the log-ratios to the last element: of the density, of y and of its square; their derivatives come first."""
    reach = 24 / temperature
    nodes = np.linspace(-reach, reach, 241)
    ratios = np.stack(np.meshgrid(nodes, nodes, [0.0], indexing="ij"), -1).reshape(-1, 3)
    log_y = np.asarray(ratios - np.log(np.exp(ratios).sum(-1, keepdims=True)))

    def integral(logits):
        everywhere = jnp.broadcast_to(logits, log_y.shape)
        density = jnp.exp(objectives.concrete_log_prob(log_y, everywhere, temperature)) * (nodes[1] - nodes[0]) ** 2
        return jnp.sum(density), density @ jnp.exp(log_y), density @ jnp.exp(2 * log_y)

    with jax.enable_x64(True):
        both = jax.jit(jax.jacrev(lambda logits: (integral(logits),) * 2, has_aux=True))
        return jax.tree.map(np.asarray, both(LOGITS))


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_concrete(temperature):
    """Moments of the draws and their pathwise derivatives, within four and a half standard errors of quadrature."""
    (d_total, *d_moments), (total, *moments) = concrete_integrals(temperature)
    np.testing.assert_allclose(total, 1, atol=1e-6)
    np.testing.assert_allclose(d_total, 0, atol=1e-6)
    log_y, jacobian = draw_with_gradients(objectives.concrete, np.float32(LOGITS), temperature)
    y = np.exp(np.float64(log_y))
    np.testing.assert_allclose(y.sum(-1), 1, rtol=1e-5)
    for power, moment, d_moment in zip((1, 2), moments, d_moments, strict=True):
        for sample, exact in ((y**power, moment), (power * y[..., None] ** power * jacobian, d_moment)):
            error = sample.std(0) / np.sqrt(NUM_DRAWS)
            assert (np.abs(sample.mean(0) - exact) < 4.5 * error).all()
    # The largest element is the discrete draw, at any temperature.
    frequency = np.eye(3)[y.argmax(-1)].mean(0)
    np.testing.assert_allclose(frequency, softmax(LOGITS), atol=4 * np.sqrt(0.25 / NUM_DRAWS))


def test_concrete_tends_to_the_one_hot():
    log_y, _ = draw_with_gradients(objectives.concrete, np.float32(LOGITS), 0.001)
    assert np.mean(np.exp(log_y).max(-1) > 0.999) > 0.98


def test_concrete_of_two_is_the_binary_one():
    random = np.random.default_rng(0)
    logit_y, logits = random.normal(0, 5, 50), random.normal(0, 2, 50)
    with jax.enable_x64(True):
        log_y = log_softmax(jnp.stack([logit_y, np.zeros(50)], -1))
        two = objectives.concrete_log_prob(log_y, jnp.stack([logits, np.zeros(50)], -1), 0.7)
        np.testing.assert_allclose(objectives.binary_concrete_log_prob(logit_y, logits, 0.7), two, rtol=1e-10)


@pytest.mark.parametrize("temperature", [0.3, 2.0])
def test_binary_concrete(temperature):
    y, gradient = draw_with_gradients(objectives.binary_concrete, np.float32(0.8), temperature)
    assert kstest(y, lambda y: expit(temperature * y - 0.8)).pvalue > 1e-3
    np.testing.assert_allclose(gradient, 1 / temperature, rtol=1e-6)
    nodes = np.linspace(-200, 200, 20001)
    with jax.enable_x64(True):
        density = np.exp(objectives.binary_concrete_log_prob(nodes, 0.8, temperature))
    assert density.sum() * 0.02 == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("logit", [-40.0, 40.0])
def test_concrete_at_extreme_logits(logit):
    logits = np.float32([logit, 0.0, -logit])
    log_y, jacobian = draw_with_gradients(objectives.concrete, logits, 0.5)
    assert np.isfinite(log_y).all() and np.isfinite(jacobian).all()
    density = jax.jit(jax.value_and_grad(lambda logits: objectives.concrete_log_prob(log_y, logits, 0.5).sum()))
    assert all(np.isfinite(x).all() for x in density(np.tile(logits, (NUM_DRAWS, 1))))


def test_straight_through():
    """One-hot to the last bit, with the gradient of what it replaces."""
    soft = jax.nn.softmax(jax.random.normal(jax.random.key(0), (500, 7)))
    value, gradient = jax.jit(
        jax.value_and_grad(lambda soft: jnp.sum(jnp.arange(7.0) @ objectives.straight_through(soft).T))
    )(soft)
    hard = objectives.straight_through(soft)
    np.testing.assert_array_equal(hard, np.eye(7)[np.argmax(soft, -1)])
    assert value == np.argmax(soft, -1).sum()
    np.testing.assert_array_equal(gradient, np.tile(np.arange(7.0), (500, 1)))


# ----------------------------------------------------------------------------------------------------------- smoothings
BETA = 4.0
SMOOTHINGS = {
    "dvae": (objectives.spike_and_exponential, objectives.spike_and_exponential_log_prob),
    "dvae++": (objectives.overlapping_exponentials, objectives.overlapping_exponentials_log_prob),
}


@functools.cache
def numerical_cdf(name, logits):
    """Nodes in [0, 1], the integral of the density up to them, and its derivative for the logits."""
    nodes = np.linspace(0, 1, 4001)
    log_prob = SMOOTHINGS[name][1]

    def cdf(logits):
        density = jnp.exp(log_prob(jnp.maximum(nodes, 1e-12), logits, BETA))
        atom = jnp.exp(log_prob(jnp.zeros(()), logits, BETA)) if name == "dvae" else 0.0
        parts = (density[1:] + density[:-1]) / 2 * (nodes[1] - nodes[0])
        return atom + jnp.concatenate([jnp.zeros(1), jnp.cumsum(parts)])

    with jax.enable_x64(True):
        return nodes, np.asarray(jax.jit(cdf)(logits)), np.asarray(jax.jit(jax.jacfwd(cdf))(logits))


@pytest.mark.parametrize("logits", [-1.5, 0.7])
@pytest.mark.parametrize("name", SMOOTHINGS)
def test_smoothing(name, logits):
    """Draws have the distribution function F that the density gives, and move by ``-(dF / dlogits) / density``."""
    draw, log_prob = SMOOTHINGS[name]
    nodes, cdf, d_cdf = numerical_cdf(name, logits)
    assert cdf[-1] == pytest.approx(1, abs=1e-6)
    with jax.enable_x64(True):
        y, gradient = map(np.asarray, draw_with_gradients(draw, np.float64(logits), BETA))
        density = np.exp(log_prob(y, logits, BETA))
    inside = y > 0
    if name == "dvae":
        absent = 1 - expit(logits)
        assert abs(np.mean(~inside) - absent) < 4 * np.sqrt(absent * (1 - absent) / NUM_DRAWS)
        np.testing.assert_array_equal(gradient[~inside], 0)
        np.testing.assert_allclose(density[~inside], absent)
    conditional = (np.interp(y[inside], nodes, cdf) - cdf[0]) / (1 - cdf[0])
    assert kstest(conditional, "uniform").pvalue > 1e-3
    expected = -np.interp(y[inside], nodes, d_cdf) / density[inside]
    np.testing.assert_allclose(gradient[inside], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", SMOOTHINGS)
def test_smoothing_inverts_the_distribution_function(name):
    """More probable, larger: the draws of one key grow with the logits, from 0's side to 1's."""
    draw, _ = SMOOTHINGS[name]
    y = np.stack([draw_with_gradients(draw, np.float32(logits), BETA)[0] for logits in (-40.0, -1.0, 0.0, 1.0, 40.0)])
    assert (np.diff(y, axis=0) >= 0).all() and (np.diff(y, axis=0) > 0).mean() > 0.5


@pytest.mark.parametrize("logit", [-40.0, 40.0])
@pytest.mark.parametrize("name", SMOOTHINGS)
def test_smoothing_at_extreme_logits(name, logit):
    """In float32 draws stay in [0, 1], those of certainty have the distribution of their side, and all is finite."""
    draw, log_prob = SMOOTHINGS[name]
    y, gradient = draw_with_gradients(draw, np.float32(logit), BETA)
    assert ((y >= 0) & (y <= 1)).all() and np.isfinite(gradient).all()
    both = jax.jit(jax.value_and_grad(lambda logit: log_prob(y, logit, BETA).sum()))
    assert all(np.isfinite(x) for x in both(np.float32(logit)))
    if name == "dvae" and logit < 0:
        np.testing.assert_array_equal(y, 0)
        return
    near_one = np.expm1(BETA * y) / np.expm1(BETA)
    assert kstest(near_one if logit > 0 else np.expm1(-BETA * y) / np.expm1(-BETA), "uniform").pvalue > 1e-3


def test_stick_breaking():
    """Sure breaks give a one-hot; expected ones give the probabilities, as each enters linearly."""
    logits = np.random.default_rng(0).normal(0, 2, (5, 4)).astype(np.float32)
    breaks = jax.nn.sigmoid(objectives.stick_breaking_logits(logits))
    np.testing.assert_allclose(objectives.stick_breaking(breaks), softmax(logits, axis=-1), rtol=1e-5)
    sure = np.float32([[1, 0, 1], [0, 1, 0], [0, 0, 1], [0, 0, 0]])
    np.testing.assert_array_equal(objectives.stick_breaking(sure), np.eye(4))


# ------------------------------------------------------------------------------------------- bounds of relaxed models
NODES = np.arange(-20, 20.1, 0.5)  # of log-ratios
RATIOS = np.stack(np.meshgrid(NODES[::2], NODES[::2], [0.0], indexing="ij"), -1).reshape(-1, 3)
POINTS, LENGTHS = (part / 2 for part in np.polynomial.legendre.leggauss(60))
# Draw and log-density; nodes everywhere and the volumes of their cells; what x says of y. The atom is a cell too.
RELAXED = {
    "concrete": (
        (objectives.concrete, objectives.concrete_log_prob),
        (RATIOS - np.log(np.exp(RATIOS).sum(-1, keepdims=True)), np.ones(len(RATIOS))),
        lambda log_y: jnp.exp(log_y) @ jnp.array([-1.0, 0.5, 1.0], log_y.dtype),
    ),
    "binary concrete": (
        (objectives.binary_concrete, objectives.binary_concrete_log_prob),
        (NODES, np.full(len(NODES), 0.5)),
        lambda logit_y: 1.5 * jax.nn.sigmoid(logit_y),
    ),
    "dvae": (SMOOTHINGS["dvae"], (np.append(POINTS + 0.5, 0), np.append(LENGTHS, 1)), lambda y: 1.5 * y),
    "dvae++": (SMOOTHINGS["dvae++"], (POINTS + 0.5, LENGTHS), lambda y: 1.5 * y),
}


def relaxed_log_ratio(log_prob, y, logits, setting):
    return log_prob(y, -logits, setting) - log_prob(y, logits, setting)


def discrete_log_ratio(log_prob, log_y, logits, setting):
    return jnp.exp(log_y) @ (log_softmax(-logits) - log_softmax(logits))


def deviation(name, log_ratio=relaxed_log_ratio):
    """Of IWAE's mean gradient from the relaxed bound's, of two particles, in standard errors; p's logits are -q's."""
    (draw, log_prob), (nodes, volumes), log_likelihood = RELAXED[name]
    logits, setting = (LOGITS, 0.8) if name == "concrete" else (np.array(0.7), 0.8 if "concrete" in name else BETA)

    def log_w(y, logits, log_ratio=log_ratio):
        return log_ratio(log_prob, y, logits, setting) + log_likelihood(y)

    def bound(logits):
        density = volumes * jnp.exp(jax.vmap(log_prob, (0, None, None))(nodes, logits, setting))
        of_nodes = jax.vmap(functools.partial(log_w, log_ratio=relaxed_log_ratio), (0, None))(nodes, logits)
        return density @ jnp.logaddexp(of_nodes[:, None], of_nodes[None]) @ density

    def surrogate(key, logits):
        y = jax.vmap(draw, (0, None, None))(jax.random.split(key), logits, setting)
        return objectives.iwae(jax.vmap(log_w, (0, None))(y, logits)).surrogate

    with jax.enable_x64(True):
        exact = np.asarray(jax.jit(jax.grad(bound))(logits))
    _, gradients = draw_with_gradients(surrogate, np.float32(logits))
    error = np.std(gradients, 0) / np.sqrt(NUM_DRAWS)
    assert np.all(error < 0.01)
    return np.max(np.abs(np.mean(gradients, 0) - exact) / error)


@pytest.mark.parametrize("name", ["concrete", "binary concrete", "dvae++"])
def test_mean_gradient_of_the_bound(name):
    assert deviation(name) < 4


def test_biased_with_discrete_probabilities():
    assert deviation("concrete", discrete_log_ratio) > 8


def test_biased_where_the_density_jumps():
    """The path does not tell how often DVAE's atom is left, and what that costs."""
    assert deviation("dvae") > 8
