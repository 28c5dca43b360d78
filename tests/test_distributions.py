import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from objcentric import distributions


@pytest.mark.parametrize("success", [1e-5, 0.3, 0.99, 1.0])
@pytest.mark.parametrize("largest", [1, 3, 7])
def test_truncated_geometric(success, largest):
    log_p = distributions.truncated_geometric_log_prob(jnp.arange(largest + 1), jnp.float32(success), largest)
    p = np.exp(np.float64(log_p))
    assert p.sum() == pytest.approx(1, abs=1e-5)
    np.testing.assert_allclose(p[1:] / p[:-1], success, rtol=1e-4)  # the same odds of going on, to the end


def test_truncated_geometric_against_scipy():
    """Geometric trials, conditioned on at most ``largest`` successes."""
    p = stats.geom(1 - 0.4).pmf(np.arange(1, 6))
    log_p = distributions.truncated_geometric_log_prob(jnp.arange(5), jnp.float32(0.4), 4)
    np.testing.assert_allclose(np.exp(log_p), p / p.sum(), rtol=1e-5)


def test_truncated_geometric_of_certain_success_is_uniform():
    log_p = distributions.truncated_geometric_log_prob(jnp.arange(4), jnp.ones(()), 3)
    np.testing.assert_allclose(log_p, -np.log(4), rtol=1e-6)


def test_truncated_geometric_has_a_gradient():
    gradient = jax.grad(distributions.truncated_geometric_log_prob, 1)(2.0, 0.5, 3)
    expected = 2 / 0.5 - (1 + 2 * 0.5 + 3 * 0.25) / (1 + 0.5 + 0.25 + 0.125)
    assert float(gradient) == pytest.approx(expected, rel=1e-5)


def test_log_prob_sums_over_the_event():
    loc, value = np.random.default_rng(0).normal(size=(2, 5, 4, 3)).astype(np.float32)
    log_p = distributions.log_prob(distributions.normal(jnp.asarray(loc), 0.3), jnp.asarray(value))
    assert log_p.shape == ()
    assert float(log_p) == pytest.approx(stats.norm(loc, 0.3).logpdf(value).sum(), rel=1e-5)


def test_pixel_bernoulli_against_scipy():
    probs = np.float32([0.1, 0.5, 0.97])
    b = distributions.pixel_bernoulli(jnp.asarray(probs))
    for value in (0.0, 1.0):
        np.testing.assert_allclose(b.log_prob(jnp.full(3, value)), stats.bernoulli(probs).logpmf(value), rtol=1e-4)


def test_bernoulli_bounds_its_logits_smoothly():
    """Near 0 logits are themselves, far out they keep a gradient: p can come back from the edge."""
    logits = jnp.array([-1.0, 0.0, 0.5])
    np.testing.assert_allclose(distributions.bernoulli(logits, 1e-3).logits, logits, atol=0.01)
    far = jnp.array([-9.0, 9.0])
    slope = jax.grad(lambda logits: distributions.bernoulli(logits, 1e-3).log_prob(jnp.array([1.0, 0.0])).sum())(far)
    assert slope[0] > 0.1 and slope[1] < -0.1


@pytest.mark.parametrize("margin", [0.001, 0.1])
def test_bernoullis_stay_away_from_certainty(margin):
    for b in (
        distributions.pixel_bernoulli(jnp.array([-0.5, 0.0, 1.0, 1.7]), margin),
        distributions.bernoulli(jnp.array([-50.0, -40.0, 40.0, 50.0]), margin),
    ):
        np.testing.assert_allclose(b.probs, [margin, margin, 1 - margin, 1 - margin], rtol=1e-3)
        assert np.isfinite(b.log_prob(jnp.array([1.0, 1.0, 0.0, 0.0]))).all()


def test_samples_are_floats_at_their_rate():
    samples = distributions.pixel_bernoulli(jnp.float32(0.3)).sample(seed=jax.random.key(0), sample_shape=4000)
    assert samples.dtype == jnp.float32 and set(np.unique(samples)) == {0.0, 1.0}
    assert float(samples.mean()) == pytest.approx(0.3, abs=4 * np.sqrt(0.21 / 4000))
