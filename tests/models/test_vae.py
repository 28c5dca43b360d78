"""The VAE against densities by hand, sums over all images, and what must not matter."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats
from scipy.special import expit, logit

from objcentric.errors import UserError
from objcentric.models import vae

MEAN = np.array([[0.0, 0.2], [0.5, 1.0]])[..., None]  # of 2x2 images
CONFIG = vae.Config(latent_dim=3, widths=(5, 4))
MODEL = vae.make(CONFIG, MEAN)
X = jnp.array([[1.0, 0.0], [0.0, 1.0]])[..., None]
IMAGES = jnp.array(list(itertools.product((0.0, 1.0), repeat=4))).reshape(16, 2, 2, 1)


def make_params(seed=0):
    shapes = jax.eval_shape(MODEL.init, jax.random.key(0))
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda leaf: jnp.asarray(rng.normal(0, 0.7, leaf.shape), jnp.float32), shapes)


def linear(layer, x):
    return x @ np.float64(layer["kernel"]) + np.float64(layer["bias"])


def by_hand(params, x, z):
    """log p(x, z), log q(z | x) and log p(x | z), in double precision."""
    p, q = params["generative"], params["inference"]
    x, z = np.float64(x).reshape(-1), np.float64(z)
    h = np.tanh(linear(q["hidden_1"], np.tanh(linear(q["hidden_0"], x))))
    log_q = stats.norm.logpdf(z, linear(q["loc"], h), np.exp(linear(q["log_scale"], h))).sum()
    probs = expit(linear(p["logits"], np.tanh(linear(p["hidden_1"], np.tanh(linear(p["hidden_0"], z))))))
    log_likelihood = stats.bernoulli.logpmf(x, probs).sum()
    return stats.norm.logpdf(z).sum() + log_likelihood, log_q, log_likelihood


def test_densities_by_hand():
    """Of draws and of given latents."""
    params = make_params()
    for i in range(3):
        trace = jax.jit(MODEL.trace)(params, jax.random.key(i), X, {})
        again = jax.jit(MODEL.trace)(params, jax.random.key(9), X, {}, z=trace.z)
        for t in (trace, again):
            ours = t.log_p, t.log_q, t.outputs["log_likelihood"]
            np.testing.assert_allclose(ours, by_hand(params, X, trace.z), rtol=1e-5, atol=1e-5)
            assert t.log_q_discrete == 0
        np.testing.assert_array_equal(again.z, trace.z)


def test_draws_are_of_q():
    """Standardised by hand, they pass a test of normality in every direction."""
    params = make_params(1)
    z = jax.vmap(lambda key: MODEL.trace(params, key, X, {}).z)(jax.random.split(jax.random.key(0), 2000))
    q = params["inference"]
    h = np.tanh(linear(q["hidden_1"], np.tanh(linear(q["hidden_0"], np.float64(X).reshape(-1)))))
    noise = (np.float64(z) - linear(q["loc"], h)) / np.exp(linear(q["log_scale"], h))
    assert all(stats.kstest(column, "norm").pvalue > 1e-3 for column in noise.T)
    np.testing.assert_allclose(np.cov(noise.T), np.eye(3), atol=0.1)


def test_the_likelihood_of_all_images_sums_to_one():
    params, z = make_params(), jnp.array([0.5, -1.0, 2.0])
    score = jax.vmap(lambda x: MODEL.trace(params, jax.random.key(0), x, {}, z=z).outputs["log_likelihood"])
    probs = np.exp(np.float64(score(IMAGES)))
    np.testing.assert_allclose(probs.sum(), 1, rtol=1e-5)
    np.testing.assert_allclose(np.einsum("n,nijc->ijc", probs, IMAGES), MODEL.render(params, z)["mean"], rtol=1e-5)


def test_images_drawn_are_binary_and_of_the_mean():
    params = make_params()
    keys = jax.random.split(jax.random.key(0), 4000)
    z, x = jax.vmap(lambda key: MODEL.generate(params, key, {}))(keys)
    mean = jax.vmap(lambda z: MODEL.render(params, z)["mean"])(z)
    assert x.shape == (4000, 2, 2, 1) and set(np.unique(x)) == {0.0, 1.0}
    np.testing.assert_allclose(x.mean(0), mean.mean(0), atol=0.035)
    assert stats.kstest(np.ravel(z), "norm").pvalue > 1e-3


def test_huge_logits_are_finite():
    params = make_params()
    params["generative"]["logits"]["bias"] = jnp.array([1e4, -1e4, 1e4, -1e4])
    value, grads = jax.jit(jax.value_and_grad(lambda p: MODEL.trace(p, jax.random.key(0), X, {}).log_p))(params)
    np.testing.assert_allclose(value, -2e4, rtol=1e-2)  # pixels 1 and 3 are as they should be, 2 and 4 are off
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(grads))


def test_initial_parameters():
    """Glorot's uniform weights, biases of 0 but for the output's, which render the mean image."""
    params = vae.make(vae.Config(latent_dim=40, widths=(60, 50)), np.full((8, 8, 1), 0.3)).init(jax.random.key(3))
    sizes = {
        ("inference", "hidden_0"): (64, 60),
        ("inference", "hidden_1"): (60, 50),
        ("inference", "loc"): (50, 40),
        ("inference", "log_scale"): (50, 40),
        ("generative", "hidden_0"): (40, 50),
        ("generative", "hidden_1"): (50, 60),
        ("generative", "logits"): (60, 64),
    }
    assert {(part, layer) for part in params for layer in params[part]} == sizes.keys()
    kernels = []
    for (part, layer), size in sizes.items():
        kernel, bias = params[part][layer]["kernel"], params[part][layer]["bias"]
        assert kernel.shape == size and bias.shape == size[1:]
        limit = np.sqrt(6 / sum(size))
        assert stats.kstest(np.ravel(kernel) / limit, "uniform", (-1, 2)).pvalue > 1e-3
        np.testing.assert_allclose(bias, logit(0.3) if layer == "logits" else 0, rtol=1e-5)
        kernels.append(np.ravel(kernel)[:50] / limit)
    assert np.abs(np.corrcoef(kernels) - np.eye(7)).max() < 0.5  # no two layers alike
    bias = MODEL.init(jax.random.key(0))["generative"]["logits"]["bias"]
    np.testing.assert_allclose(expit(np.float64(bias)), [0.001, 0.2, 0.5, 0.999], rtol=1e-4)  # what is certain is not


def test_a_stopped_draw_teaches_the_encoder_by_its_density_alone():
    params = make_params()

    def grads(of, **options):
        traced = lambda p: getattr(MODEL.trace(p, jax.random.key(0), X, {}, **options), of)  # noqa: E731
        return jax.grad(traced)(params)

    z = MODEL.trace(params, jax.random.key(0), X, {}).z
    assert all(np.all(leaf == 0) for leaf in jax.tree.leaves(grads("log_p", pathwise=False)["inference"]))
    assert any(np.any(leaf != 0) for leaf in jax.tree.leaves(grads("log_p")["inference"]))
    jax.tree.map(np.testing.assert_array_equal, grads("log_q", pathwise=False), grads("log_q", z=z))


def test_particles_share_the_encoder():
    """No product with an encoder's kernel has an axis of particles, those with a decoder's do."""
    params = jax.eval_shape(MODEL.init, jax.random.key(0))
    traces = jax.vmap(MODEL.trace, (None, 0, None, None))
    jaxpr = jax.make_jaxpr(traces)(params, jax.random.split(jax.random.key(0), 7), X, {})
    shapes = [[v.aval.shape for v in e.invars] for e in jaxpr.eqns if e.primitive.name == "dot_general"]
    assert shapes[:4] == [[(4,), (4, 5)], [(5,), (5, 4)], [(4,), (4, 3)], [(4,), (4, 3)]]
    assert shapes[4:7] == [[(7, 3), (3, 4)], [(7, 4), (4, 5)], [(7, 5), (5, 4)]]


@pytest.mark.parametrize("fields", [{"latent_dim": 0}, {"widths": ()}, {"widths": (5, 0)}])
def test_bad_configs(fields):
    with pytest.raises(UserError, match=next(iter(fields))):
        vae.Config(**fields)
