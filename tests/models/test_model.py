"""What limits gradients between the frames of a sequence."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from objcentric.models.model import limit_gradients


def flowed(weights, back):
    """What reaches a state ``[2]`` if ``back [2]`` flows to it, and ``weights`` to the densities of its frame."""

    def total(state):
        whole = {"a": state[:1], "b": state[1:], "number": jnp.arange(3)}
        limited, densities = limit_gradients(2.0, whole, (jnp.zeros(()),) * 3)
        values = jnp.concatenate([limited["a"], limited["b"]])
        return jnp.dot(back, values) + jnp.dot(jnp.array(weights), jnp.stack(densities))

    return jax.grad(total)(jnp.zeros(2))


@pytest.mark.parametrize(
    ("weights", "allowed"), [((1.0, 0.0, 0.0), 2.0), ((0.5, -1.0, 0.0), 3.0), ((0.0, 0.0, -7.0), 7.0), ((0, 0, 0), 0.0)]
)
def test_norms_are_limited_by_the_gradients_of_densities(weights, allowed):
    np.testing.assert_allclose(flowed(weights, jnp.array([30.0, -40.0])), np.array([0.6, -0.8]) * allowed, rtol=1e-6)


def test_small_gradients_flow_as_they_are_and_densities_are_not_limited():
    assert flowed((1.0, 0.0, 0.0), jnp.array([0.6, -0.8])).tolist() == pytest.approx([0.6, -0.8])
    assert flowed((1.0, 0.0, 0.0), jnp.zeros(2)).tolist() == [0.0, 0.0]

    def densities(value):
        return 1e4 * sum(limit_gradients(2.0, jnp.zeros(1), (value, value, value))[1])

    assert jax.grad(densities)(1.0) == 3e4


def test_each_particle_has_a_limit_of_its_own():
    back = jnp.array([[3e4, 4e4], [0.3, 0.4]])
    np.testing.assert_allclose(jax.vmap(flowed, (None, 0))((1.0, 0.0, 0.0), back), [[1.2, 1.6], [0.3, 0.4]], rtol=1e-6)
