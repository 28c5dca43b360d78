import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from objcentric.nn.activations import elu


def test_elu_is_flax_elu():
    x = jnp.concatenate([jnp.linspace(-100.0, 100.0, 401), jnp.array([1e-7, -1e-7, 0.0, -jnp.inf, jnp.inf])])
    np.testing.assert_allclose(elu(x), nn.elu(x), rtol=1e-6, atol=1e-7)
    gradients = (jax.vmap(jax.grad(f))(x) for f in (elu, nn.elu))
    np.testing.assert_allclose(*gradients, rtol=1e-5, atol=1e-6)


def test_second_derivatives():
    second = jax.vmap(jax.grad(jax.grad(elu)))
    np.testing.assert_allclose(second(jnp.array([-1.0, 1.0])), [np.exp(-1), 0.0], rtol=1e-6)
