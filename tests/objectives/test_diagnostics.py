"""Diagnostics of estimators against closed forms and against the estimators of a small discrete model."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import softmax

from objcentric.objectives import bounds, diagnostics, score_function

KEYS = jax.random.split(jax.random.key(0), 4800)


# ------------------------------------------------------------------------------------------------ effective sample size


def test_ess():
    log_w = jnp.asarray(np.random.default_rng(0).normal(0, 2, (4, 3, 6)), jnp.float32)
    w = np.exp(np.float64(log_w))
    np.testing.assert_allclose(diagnostics.ess(log_w), w.sum(-1) ** 2 / (w**2).sum(-1), rtol=1e-5)
    np.testing.assert_allclose(diagnostics.ess(log_w + 500.0), diagnostics.ess(log_w), rtol=1e-4)  # of any scale
    assert diagnostics.ess(jnp.full(7, -3.0)) == pytest.approx(7)
    assert diagnostics.ess(jnp.float32([-1e4, 0.0, -1e4])) == 1


def test_ess_without_weight_and_of_some_particles():
    log_w = jnp.float32([[-jnp.inf] * 3, [0.0, 0.0, jnp.nan]])
    where = jnp.array([[True] * 3, [True, True, False]])
    np.testing.assert_allclose(diagnostics.ess(log_w, where=where), [0, 2], rtol=1e-6)
    gradient = jax.grad(lambda x: diagnostics.ess(x, where=where).sum())(log_w)
    np.testing.assert_allclose(gradient, 0, atol=1e-6)


# --------------------------------------------------------------------------------------------- gradients and their SNR


def noisy(key):
    """Two leaves; of ``b`` the second entry is always 0."""
    a, b = jax.random.normal(key, (2, 3))
    return {"a": 0.5 + 2 * a, "b": jnp.array([-1.0, 0.0]) + jnp.array([0.25, 0.0]) * b[:2]}


@pytest.mark.parametrize("chunk", [1, 3, 7, 100])
def test_sampled_gradients_are_those_of_their_keys(chunk):
    gradients = diagnostics.sample_gradients(noisy, KEYS[:7], chunk=chunk)
    for i in (0, 3, 6):
        jax.tree.map(lambda g, e, i=i: np.testing.assert_allclose(g[i], e, rtol=1e-6), gradients, noisy(KEYS[i]))


def test_at_most_a_chunk_is_computed_at_once():
    jaxpr = str(jax.make_jaxpr(lambda keys: diagnostics.sample_gradients(noisy, keys, chunk=10))(KEYS))
    assert "f32[10,2,3]" in jaxpr and "f32[4800,2,3]" not in jaxpr


def test_snr_is_the_mean_over_the_sample_standard_deviation():
    gradients = diagnostics.sample_gradients(noisy, KEYS, chunk=1000)
    snr = jax.jit(diagnostics.snr)(gradients)
    for name, gradient in gradients.items():
        gradient = np.float64(gradient)
        moving = gradient.std(0) > 0
        expected = np.abs(gradient.mean(0)[moving]) / gradient.std(0, ddof=1)[moving]
        np.testing.assert_allclose(snr[name][moving], expected, rtol=1e-4)
    np.testing.assert_allclose(snr["a"], 0.25, atol=0.06)
    np.testing.assert_allclose(snr["b"], [4, 0], atol=0.2)


def test_snr_of_a_mean_grows_with_the_root_of_its_terms():
    gradients = diagnostics.sample_gradients(lambda key: 0.3 + jax.random.normal(key, (16,)), KEYS, chunk=1000)
    means = gradients.reshape(-1, 16, 16).mean(1)
    np.testing.assert_allclose(diagnostics.snr(means).mean() / diagnostics.snr(gradients).mean(), 4, rtol=0.1)


def test_snr_is_not_a_number_where_a_gradient_is_not():
    assert np.isnan(diagnostics.snr(jnp.array([1.0, jnp.nan])))
    assert diagnostics.snr(jnp.array([2.0, 2.0])) == jnp.inf


def test_moments_of_lots_are_those_of_all():
    gradients = diagnostics.sample_gradients(noisy, KEYS[:60], chunk=60)
    whole = diagnostics.gradient_moments(gradients)
    lots = [jax.tree.map(lambda g, s=s: g[s], gradients) for s in (slice(2), slice(2, 35), slice(35, 60))]
    merged = functools.reduce(diagnostics.merge_moments, map(diagnostics.gradient_moments, lots))
    assert merged.count == whole.count == 60
    jax.tree.map(lambda m, e: np.testing.assert_allclose(m, e, rtol=1e-4, atol=1e-6), merged, whole)
    jax.tree.map(lambda m, e: np.testing.assert_allclose(m, e, rtol=1e-4), merged.snr, diagnostics.snr(gradients))


@pytest.mark.parametrize("function", [diagnostics.snr, lambda g: diagnostics.bias_and_variance(g, 0.0)])
@pytest.mark.parametrize(
    "gradients", [jnp.ones((1, 3)), {"a": jnp.ones((3, 2)), "b": jnp.ones((2, 2))}, jnp.array(1.0)]
)
def test_one_estimate_has_no_spread(function, gradients):
    with pytest.raises(ValueError, match="one leading axis of at least 2 estimates"):
        jax.eval_shape(function, gradients)


# ------------------------------------------------------------------------------------------------------ directional SNR


def test_dsnr_of_known_angles():
    angle = np.linspace(0.1, 3, 8)
    gradients = jnp.asarray(np.stack([np.cos(angle), np.sin(angle)], 1) * np.arange(1, 9)[:, None], jnp.float32)
    for length in (1e-3, 1.0, 50.0):
        ratios = diagnostics.dsnr(gradients, jnp.float32([-length, 0]))
        np.testing.assert_allclose(ratios, np.abs(1 / np.tan(angle)), rtol=1e-4)


def test_dsnr_does_not_depend_on_how_components_are_held():
    rng = np.random.default_rng(0)
    gradients, direction = rng.normal(0.3, 1, (9, 6)).astype(np.float32), rng.normal(0, 1, 6).astype(np.float32)

    def split(g):
        return {"a": jnp.asarray(g[..., :2]), "b": jnp.asarray(g[..., 2:].reshape(*g.shape[:-1], 2, 2))}

    expected = diagnostics.dsnr(jnp.asarray(gradients), jnp.asarray(direction))
    np.testing.assert_allclose(diagnostics.dsnr(split(gradients), split(direction)), expected, rtol=1e-5)
    own = diagnostics.dsnr(jnp.asarray(gradients), jnp.asarray(gradients.mean(0)))
    np.testing.assert_allclose(diagnostics.dsnr(split(gradients)), own, rtol=1e-5)


def test_dsnr_of_random_directions():
    """The ratio is Student's t with D - 1 degrees of freedom over sqrt(D - 1)."""
    gradients = diagnostics.sample_gradients(lambda key: jax.random.normal(key, (20,)), KEYS, chunk=1000)
    ratios = diagnostics.dsnr(gradients, jnp.zeros(20).at[3].set(1.0))
    assert ratios.shape == (4800,)
    np.testing.assert_allclose(ratios.mean(), 0.1905, atol=0.006)  # E|t_19| / sqrt(19)
    np.testing.assert_allclose(np.median(ratios), 0.6876 / 19**0.5, atol=0.006)


def test_dsnr_of_the_extremes():
    ratios = diagnostics.dsnr(jnp.float32([[3.0, 0.0], [0.0, 2.0], [0.0, 0.0]]), jnp.float32([1.0, 0.0]))
    np.testing.assert_array_equal(ratios, [np.inf, 0, 0])


# --------------------------------------------------------------------------- exact expectations, and bias against them

LOGITS = jnp.array([-0.4, 0.6, 0.1])
LOG_P = jnp.log(jnp.array(softmax([0.3, -0.2, 0.5]))) + jnp.array([-1.0, -2.5, -0.3])


def exact_gradient(num_particles):
    def bound(logits):
        log_q = jax.nn.log_softmax(logits)
        return diagnostics.enumerate_expectation(
            lambda z: bounds.iwae((LOG_P - log_q)[z]).bound, lambda z: log_q[z].sum(), (3,) * num_particles
        )

    return jax.grad(bound)(LOGITS)


@pytest.mark.parametrize("num_particles, norm", [(2, 0.7442), (3, 0.5092), (5, 0.2531)])
def test_exact_gradients_of_all_draws(num_particles, norm):
    assert np.linalg.norm(exact_gradient(num_particles)) == pytest.approx(norm, abs=5e-5)


def test_expectations_over_entries_of_different_sizes():
    tables = [jnp.array([0.2, 0.8]), jnp.array([0.1, 0.3, 0.6]), jnp.array([1.0])]

    def log_prob(z):
        return sum(jnp.log(table)[z[i]] for i, table in enumerate(tables))

    mean = diagnostics.enumerate_expectation(lambda z: {"sum": z.sum(), "z": z}, log_prob, (2, 3, 1))
    np.testing.assert_allclose(mean["z"], [0.8, 1.5, 0], rtol=1e-5)
    np.testing.assert_allclose(mean["sum"], 2.3, rtol=1e-5)


def test_impossible_outcomes_do_not_count():
    log_prob = jnp.log(jnp.array([0.0, 0.25, 0.75]))
    f = jnp.array([jnp.inf, 4.0, 8.0])
    assert diagnostics.enumerate_expectation(lambda z: f[z[0]], lambda z: log_prob[z[0]], (3,)) == pytest.approx(7)


def test_too_many_outcomes():
    with pytest.raises(ValueError, match="3 x 3 .* are too many to enumerate"):
        diagnostics.enumerate_expectation(jnp.sum, jnp.sum, (3,) * 13)


def test_bias_of_estimators_with_and_without_one():
    """VIMCO has none; the pathwise gradient alone, which ignores that the draws depend on the logits, has."""

    def grad_of(objective):
        def surrogate(logits, key):
            log_q = jax.nn.log_softmax(logits)
            z = jax.random.categorical(key, jax.lax.stop_gradient(logits), shape=(3,))
            return objective((LOG_P - log_q)[z], log_q[z]).surrogate

        return functools.partial(jax.grad(surrogate), LOGITS)

    exact = exact_gradient(3)
    for objective, unbiased in ((score_function.vimco, True), (lambda log_w, _: bounds.iwae(log_w), False)):
        gradients = diagnostics.sample_gradients(grad_of(objective), KEYS, chunk=1000)
        result = diagnostics.bias_and_variance(gradients, exact)
        np.testing.assert_allclose(result.bias, gradients.mean(0) - exact, atol=1e-6)
        np.testing.assert_allclose(result.variance, np.var(gradients, 0, ddof=1), rtol=1e-4)
        np.testing.assert_allclose(result.standard_error, np.std(gradients, 0) / 4800**0.5, rtol=1e-3)
        assert (np.abs(result.bias) < 4 * result.standard_error).all() == unbiased
    assert np.sqrt(result.variance.sum()) < 0.759  # the biased one's; VIMCO's is .759
