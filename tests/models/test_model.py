"""What sequences of frames and of slots share: how gradients flow through them, and what limits these."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from objcentric.models.model import limit_gradients, scan


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


def test_scan_keeps_products_alone():
    """Besides the carry and what it is given; its values and gradients are those of lax.scan, which keeps more."""

    def one(weights, h, x):
        h = jnp.sin(jnp.exp(jnp.tanh(weights @ h + x)))
        return h, jnp.sum(h)

    def of(scan):
        def whole(weights, xs):
            return jnp.sum(scan(lambda h, x: one(weights, h, x), xs[0], xs)[1])

        return whole

    key = jax.random.key(0)
    arguments = jax.random.normal(key, (3, 3)), jax.random.normal(jax.random.fold_in(key, 1), (7, 3))
    (ours, our_vjp), (theirs, their_vjp) = (jax.vjp(of(each), *arguments) for each in (scan, lax.scan))
    assert ours == theirs
    for ours, theirs in zip(our_vjp(1.0), their_vjp(1.0), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5)
    kept, more = (sum(leaf.shape == (7, 3) for leaf in jax.tree.leaves(vjp)) for vjp in (our_vjp, their_vjp))
    assert kept == 3 < more
