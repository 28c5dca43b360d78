"""The golden tests of which axis is which."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from objcentric.models import sparsity
from objcentric.training import parallel

PRESENCE = jnp.asarray([[0.9, 0.1, 0.2], [0.5, 0.5, 0.1], [0.3, 0.8, 0.0], [1.0, 0.0, 0.0]])  # [B 4, K 3]


def entropy(mass):
    p = np.asarray(mass) / np.sum(mass)
    return -np.sum(p * np.log(p))


def test_prior_of_the_release():
    within, between = sparsity.prior(PRESENCE, 2.0, "release")
    np.testing.assert_allclose(within, np.mean((np.sum(PRESENCE, 1) - 3 / 2) ** 2), rtol=1e-5)
    np.testing.assert_allclose(between, np.mean((np.sum(PRESENCE, 0) - 4 / 2) ** 2), rtol=1e-5)


def test_prior_of_the_thesis():
    within, between = sparsity.prior(PRESENCE, 2.0, "thesis")
    np.testing.assert_allclose(within, np.mean(np.abs(np.sum(PRESENCE, 1) - 3 / 2)), rtol=1e-5)
    np.testing.assert_allclose(between, np.mean(np.abs(np.mean(PRESENCE, 0) - 4 / 2)), rtol=1e-5)


def test_posterior_of_the_release():
    mass = PRESENCE + 0.1
    within, between = sparsity.posterior(mass, jnp.log(mass), "release")
    np.testing.assert_allclose(within, np.mean([entropy(row) for row in mass]), rtol=1e-5)
    np.testing.assert_allclose(between, entropy(np.sum(mass, 0)), rtol=1e-5)


def test_posterior_of_the_thesis():
    mass = PRESENCE + 0.1
    within, between = sparsity.posterior(PRESENCE, jnp.log(mass) + 7, "thesis")  # up to a factor, and not the shares
    np.testing.assert_allclose(within, np.mean([entropy(column) for column in mass.T]), rtol=1e-4)
    np.testing.assert_allclose(between, np.mean([entropy(row) for row in mass]), rtol=1e-4)


def test_what_the_release_wants_is_one_capsule_in_each_example_and_all_in_the_batch():
    ideal, collapsed, diffuse = jnp.eye(4), jnp.eye(4)[:1].repeat(4, 0), jnp.full((4, 4), 0.25)
    totals = []
    for mass in (ideal, collapsed, diffuse):
        within, between = sparsity.posterior(mass, jnp.log(mass + 1e-9), "release")
        totals.append(float(within - between))
    assert totals[0] == pytest.approx(-np.log(4), abs=1e-4)
    assert totals[1] == pytest.approx(0, abs=1e-4) and totals[2] == pytest.approx(0, abs=1e-4)


@pytest.mark.parametrize("least", [1, 2])
def test_too_few_parts(least):
    presence, wins = np.array([0.2, 0.7, 0.9]), np.array([0.0, 1.0, 2.0])
    expected = -sum(np.log(p if w >= least else 1 - p) for p, w in zip(presence, wins, strict=True))
    got = sparsity.too_few_parts(jnp.log(presence), jnp.asarray(wins), least)
    np.testing.assert_allclose(got, expected, rtol=1e-5)


def test_nothing_is_nan_where_all_is_certain():
    def total(x):
        zero, one = jnp.zeros((2, 3)) * x, jnp.exp(jnp.zeros((2, 3)) * x)
        few = sparsity.too_few_parts(0 * x * jnp.ones(3), jnp.zeros(3), 2)
        few += sparsity.too_few_parts(-1e30 * jnp.ones(3) * x, jnp.zeros(3), 2)
        terms = [*sparsity.posterior(zero, jnp.log(one), "release"), *sparsity.prior(one, 2.0, "release"), few]
        return sum(terms) + sum(sparsity.posterior(zero, -1e30 * one, "thesis"))

    value, slope = jax.value_and_grad(total)(1.0)
    assert np.isfinite(value) and np.isfinite(slope)


@pytest.mark.parametrize("form", sparsity.FORMS)
def test_devices_share_the_terms_of_a_batch(form):
    """Losses that are no means over examples, and their gradients, are those of one device."""

    def loss(weight, rows):
        presence = parallel.whole_batch(jax.nn.sigmoid(rows * weight))
        return sum(sparsity.prior(presence, 2.0, form)) + sum(sparsity.posterior(presence, jnp.log(presence), form))

    def shared(weight, rows):
        return jax.lax.pmean(jax.value_and_grad(loss)(weight, rows), parallel.AXIS)

    rows = jax.random.normal(jax.random.key(0), (8, 3))
    value, slope = jax.value_and_grad(loss)(0.7, rows)
    devices = jax.devices()
    values, slopes = jax.pmap(shared, axis_name=parallel.AXIS, in_axes=(None, 0))(
        0.7, rows.reshape(len(devices), -1, 3)
    )
    assert len(devices) == 4
    np.testing.assert_allclose(values, value, rtol=1e-5)
    np.testing.assert_allclose(slopes, slope, rtol=1e-4)
