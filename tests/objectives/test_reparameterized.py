"""STL and DReG by hand, with one particle, and where q is the posterior; the mean gradients are in test_suite.py."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.scipy.stats import norm
from scipy.special import logsumexp, softmax

from objcentric import objectives
from tests.objectives.checks import evaluate


@pytest.fixture
def log_w():
    return np.random.default_rng(0).normal(-3, 2, (4, 3, 6)).astype(np.float32)


@pytest.mark.parametrize(
    "name, coefficient", [("stl", lambda w: w), ("dreg", lambda w: w**2), ("rws_dreg", lambda w: w - w**2)]
)
def test_by_hand(log_w, name, coefficient):
    """Theta gets IWAE's weights from all three, phi's path what each is about."""
    estimate, (theta, path) = evaluate(getattr(objectives, name), log_w, log_w)
    weights = softmax(np.float64(log_w), axis=-1)
    np.testing.assert_allclose(theta, weights, rtol=1e-5)
    np.testing.assert_allclose(path, coefficient(weights), rtol=1e-4, atol=1e-7)
    np.testing.assert_allclose(estimate.bound, logsumexp(np.float64(log_w), axis=-1) - np.log(6), rtol=1e-6)


def test_one_particle(log_w):
    """DReG is STL; the wake update has a mean of 0, and this estimator of it no variance."""
    one = log_w[..., :1]
    for objective, path in ((objectives.dreg, 1.0), (objectives.stl, 1.0), (objectives.rws_dreg, 0.0)):
        _, gradients = evaluate(objective, one, one)
        np.testing.assert_array_equal(gradients, [np.ones_like(one), np.full_like(one, path)])


def test_no_variance_where_q_is_the_posterior():
    """z ~ N(0, 1), x | z ~ N(z, 1): the posterior at x = 1 is N(1/2, 1/2). IWAE's own gradient does vary there."""

    def log_w(phi, z):
        return norm.logpdf(z) + norm.logpdf(1.0, z) - norm.logpdf(z, phi[0], jnp.exp(phi[1]))

    @jax.jit
    def gradients(phi, noise):
        def surrogates(phi):
            z = phi[0] + jnp.exp(phi[1]) * noise
            stopped = jax.lax.stop_gradient((phi, z))
            arrays = log_w(*stopped), log_w(stopped[0], z)
            estimates = [f(*arrays) for f in (objectives.stl, objectives.dreg, objectives.rws_dreg)]
            return jnp.stack([estimate.surrogate for estimate in (*estimates, objectives.iwae(log_w(phi, z)))])

        return jax.jacrev(surrogates)(phi)

    *found, pathwise = gradients(jnp.array([0.5, 0.5 * jnp.log(0.5)]), jax.random.normal(jax.random.key(0), (4,)))
    np.testing.assert_allclose(found, 0, atol=1e-5)
    assert jnp.abs(pathwise).min() > 0.1
