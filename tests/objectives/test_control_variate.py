"""RELAX and REBAR with the noise that the library draws; with their noise integrated out, see test_suite.py."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.nn import log_softmax
from scipy.special import expit, softmax
from scipy.stats import ks_2samp

from objcentric import objectives
from tests.objectives import toys
from tests.objectives.checks import assert_equal, evaluate

LOGITS = np.float32([0.3, -1.0, 0.8])
NUM_DRAWS = 20000


@functools.cache
def drawn(pair, logits, num_draws=NUM_DRAWS):
    """Draws and the Jacobians of z and z~ for the logits, one for each of many keys."""
    logits = jnp.float32(logits)

    def both(logits, key):
        draw = pair(key, logits)
        return (draw.z, draw.z_tilde), draw

    keys = jax.random.split(jax.random.key(0), num_draws)
    jacobians, draw = jax.jit(jax.vmap(jax.jacrev(both, has_aux=True), (None, 0)))(logits, keys)
    return jax.tree.map(np.asarray, (draw, jacobians))


def assert_frequency(found, probability):
    """Within four standard errors."""
    assert np.abs(found.mean(0) - probability).max() < 4 * np.sqrt(probability * (1 - probability) / len(found)).max()


def same_distribution(z, z_tilde, b):
    """The smallest p-value of the hypothesis that, given b, each component of z~ is distributed like that of z."""
    z, z_tilde = z.reshape(len(b), -1), z_tilde.reshape(len(b), -1)
    given = [(z[b == value], z_tilde[b == value]) for value in np.unique(b)]
    return min(
        ks_2samp(first, second).pvalue for pair in given for first, second in zip(pair[0].T, pair[1].T, strict=True)
    )


# ---------------------------------------------------------------------------------------------------------------- noise


def test_gumbel_pair_has_the_right_distributions():
    draw, _ = drawn(objectives.gumbel_pair, tuple(LOGITS))
    np.testing.assert_array_equal(draw.b, draw.z.argmax(-1))
    np.testing.assert_array_equal(draw.b, draw.z_tilde.argmax(-1))
    assert_frequency(np.eye(3)[draw.b], softmax(LOGITS))
    assert same_distribution(draw.z, draw.z_tilde, draw.b) > 1e-3
    # The test can tell: without the factor 1 / p_i, or with all of one noise.
    noise = np.random.default_rng(0).gumbel(size=draw.z.shape)
    top = np.take_along_axis(noise, draw.b[:, None], 1)
    wrong = np.where(np.eye(3, dtype=bool)[draw.b], top, -np.logaddexp(-noise, -top))
    assert same_distribution(draw.z, wrong, draw.b) < 1e-9
    assert same_distribution(draw.z, np.log(softmax(LOGITS)) + noise, draw.b) < 1e-9


def test_logistic_pair_has_the_right_distributions():
    draw, _ = drawn(objectives.logistic_pair, 0.7)
    np.testing.assert_array_equal(draw.b, draw.z > 0)
    np.testing.assert_array_equal(draw.b, draw.z_tilde > 0)
    assert_frequency(draw.b, expit(0.7))
    assert same_distribution(draw.z, draw.z_tilde, draw.b) > 1e-3


@pytest.mark.parametrize("pair, logits", [(objectives.gumbel_pair, tuple(LOGITS)), (objectives.logistic_pair, 0.7)])
def test_given_b_the_two_are_independent(pair, logits):
    draw, _ = drawn(pair, logits)
    for value in np.unique(draw.b):
        z, z_tilde = (x[draw.b == value].reshape((draw.b == value).sum(), -1) for x in (draw.z, draw.z_tilde))
        correlation = np.corrcoef(z.T, z_tilde.T)[: z.shape[1], z.shape[1] :]
        assert np.abs(correlation).max() < 4.5 / np.sqrt(len(z))


def test_gumbel_pair_is_reparameterised_by_the_logits():
    """z moves with log p; of z~ the chosen element stays, and ``d z~_i / d log p_i = 1 - exp(z~_i - z~_b)``."""
    draw, (dz, dz_tilde) = drawn(objectives.gumbel_pair, tuple(LOGITS))
    d_log_p = np.eye(3) - softmax(LOGITS)
    np.testing.assert_allclose(dz, np.broadcast_to(d_log_p, dz.shape), atol=1e-6)
    top = np.take_along_axis(draw.z_tilde, draw.b[:, None], 1)
    np.testing.assert_allclose(dz_tilde, (1 - np.exp(draw.z_tilde - top))[..., None] * d_log_p, atol=1e-5)


def test_logistic_pair_is_reparameterised_by_the_logits():
    """z~ = logit p + logit v', where v' is v's place in the part of [0, 1] that gives b; v is recovered from z~."""
    draw, (dz, dz_tilde) = drawn(objectives.logistic_pair, 0.7)
    np.testing.assert_allclose(dz, 1, atol=1e-6)
    p, place = expit(0.7), expit(np.float64(draw.z_tilde) - 0.7)
    v = np.where(draw.b, (place - (1 - p)) / p, place / (1 - p))
    d_place = np.where(draw.b, v - 1, -v) * p * (1 - p)
    np.testing.assert_allclose(dz_tilde, 1 + d_place / (place * (1 - place)), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("logit", [-40.0, 40.0])
def test_extreme_logits(logit):
    for pair, logits in ((objectives.gumbel_pair, (logit, 0.0, -logit)), (objectives.logistic_pair, logit)):
        draw, jacobians = drawn(pair, logits, 1000)
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves((draw, jacobians)))
        if pair is objectives.logistic_pair:
            np.testing.assert_array_equal(draw.z_tilde > 0, draw.b == 1)
        else:
            np.testing.assert_array_equal(draw.z_tilde.argmax(-1), draw.b)


# ----------------------------------------------------------------------------------------------------------- estimators


def relaxed_bound(logits, soft):
    """The thesis' choice: the bound of densities that are linear in the one-hot (eq. 8.8)."""
    log_p = jnp.asarray(toys.LOG_PRIOR + toys.LOG_LIKELIHOOD, soft.dtype)
    return objectives.iwae(soft @ log_p - jnp.sum(soft * log_softmax(logits), -1)).bound


def surrogate(logits, control, key, *, name="rebar", live=True):
    """With two particles of the categorical toy."""
    logits = jnp.broadcast_to(logits, (2, 3))
    draw = objectives.gumbel_pair(key, logits)
    if not live:
        draw = draw._replace(z_tilde=jax.lax.stop_gradient(draw.z_tilde))
    log_q = jnp.take_along_axis(log_softmax(logits), draw.b[:, None], 1)[:, 0]
    log_w = jnp.asarray(toys.LOG_PRIOR + toys.LOG_LIKELIHOOD, log_q.dtype)[draw.b] - log_q
    if name == "rebar":
        return objectives.rebar(log_w, log_q, relaxed_bound, logits, draw, **control).surrogate

    def c(logits, z):
        return jnp.sum(jnp.tanh(z @ control)) * jnp.prod(jnp.cos(logits @ control))

    stopped = jax.lax.stop_gradient((logits, draw.z_tilde))
    return objectives.relax(log_w, log_q, c(logits, draw.z), c(logits, draw.z_tilde), c(*stopped)).surrogate


@functools.partial(jax.jit, static_argnames=("name", "live"))
def _gradients(logits, control, keys, **options):
    return jax.vmap(jax.grad(functools.partial(surrogate, **options)), (None, None, 0))(logits, control, keys)


def gradients(control, seed=0, **options):
    keys = jax.random.split(jax.random.key(seed), NUM_DRAWS)
    return np.float64(_gradients(np.float32(toys.LOGITS), control, keys, **options))


def deviation(control, **options):
    """Of the mean gradient from the enumerated one, in standard errors."""
    found, (_, exact) = gradients(control, **options), toys.iwae("categorical", 2)
    error = found.std(0) / np.sqrt(len(found))
    assert error.max() < 0.03 * np.linalg.norm(exact)
    return np.abs((found.mean(0) - exact[:3]) / error).max()


def rebar_control(temperature, scale):
    return {"log_temperature": np.log(np.float32(temperature)), "scale": np.float32(scale)}


CONTROLS = {
    "rebar": [rebar_control(0.5, 1.0), rebar_control(2.0, -0.7)],
    "relax": [np.float32([0.7, -1.3, 0.4]), np.float32([-0.5, 0.2, 2.0])],
}


@pytest.mark.parametrize("name", CONTROLS)
def test_unbiased_with_any_control_variate(name):
    assert max(deviation(control, name=name) for control in CONTROLS[name]) < 4


def test_biased_unless_z_tilde_is_live():
    assert deviation(CONTROLS["rebar"][0], name="rebar", live=False) > 8


def test_gradients_of_the_control_variate():
    """Those of the squared norm, by finite differences; the other one is the surrogate's own."""
    with jax.enable_x64(True):
        objective = jax.jit(functools.partial(surrogate, key=jax.random.key(3)))
        control = {"log_temperature": np.array(-0.4), "scale": np.array(0.8)}
        found, for_control = jax.jit(functools.partial(objectives.control_variate_gradients, objective))(
            toys.LOGITS, control
        )
        gradient = jax.jit(jax.grad(objective))
        np.testing.assert_allclose(found, gradient(toys.LOGITS, control), rtol=1e-12)
        for name in control:
            ahead, behind = (control | {name: control[name] + step} for step in (1e-5, -1e-5))
            norms = [np.square(gradient(toys.LOGITS, at)).sum() for at in (ahead, behind)]
            np.testing.assert_allclose(for_control[name], (norms[0] - norms[1]) / 2e-5, rtol=1e-6)


def test_descending_the_squared_norm_lowers_the_variance():
    def step(control, keys):
        def one(key):
            return objectives.control_variate_gradients(functools.partial(surrogate, key=key), toys.LOGITS, control)[1]

        change = jax.tree.map(lambda g: jnp.mean(g, 0), jax.vmap(one)(keys))
        return jax.tree.map(lambda c, g: c - 0.05 * jnp.clip(g, -5, 5), control, change), None

    keys = jax.random.split(jax.random.key(1), (60, 100))
    start = rebar_control(2.0, 0.0)
    end, _ = jax.jit(lambda control: jax.lax.scan(step, control, keys))(start)
    before, after = (gradients(control, seed=2, name="rebar").var(0).sum() for control in (start, end))
    assert after < 0.6 * before


def test_rebar_relaxes_by_the_temperature_and_scales():
    z, z_tilde = np.random.default_rng(0).normal(size=(2, 4, 3)).astype(np.float32)
    draw = objectives.Coupled(None, z, z_tilde)
    for temperature, scale in ((0.5, 1.0), (4.0, -0.7)):
        found = objectives.rebar(
            *np.zeros((2, 4)),
            lambda params, soft: jnp.sum(soft @ params),
            np.arange(3.0),
            draw,
            **rebar_control(temperature, scale),
        )
        expected = scale * np.sum((softmax(z / temperature, -1) - softmax(z_tilde / temperature, -1)) @ np.arange(3))
        np.testing.assert_allclose(found.surrogate, expected, rtol=1e-4)


def test_c_is_stopped_in_the_signal_unless_said_otherwise():
    arrays = np.float32([-2.0]), np.float32([-0.5]), np.float32(-1.0), np.float32(-1.5)
    _, gradients = evaluate(objectives.relax, *arrays)
    assert_equal(gradients, [[1], [-0.5], 1, -1])
    _, gradients = evaluate(objectives.relax, *arrays, np.float32(-1.5))
    assert_equal(gradients, [[1], [-0.5], 1, -1, 0.5])


@pytest.mark.parametrize("name", ["c", "c_tilde", "c_signal"])
def test_a_control_variate_of_another_shape_is_refused(name):
    values = {"c": np.zeros(4), "c_tilde": np.zeros(4)} | {name: np.zeros((4, 1))}
    with pytest.raises(ValueError, match=rf"{name} \(4, 1\) must be a scalar or have one value per bound \(4,\)"):
        objectives.relax(np.zeros((4, 3)), np.zeros((4, 3)), **values)
