import jax
import jax.numpy as jnp
import numpy as np
import pytest

from objcentric.nn.cnn import Deconv, interleave


@pytest.mark.parametrize("shape", [(7, 7, 1), (8, 8, 1), (13, 30, 3), (50, 50, 1), (3, 5, 3)])
def test_deconv_covers_any_shape(shape):
    net = Deconv(shape, features=4)
    y, params = jax.jit(lambda key, x: net.init_with_output(key, x))(jax.random.key(0), jnp.ones(8))
    assert y.shape == shape
    assert np.isfinite(y).all() and np.std(y) > 0
    coarse = params["params"]["Dense_0"]["bias"].size // 4
    assert coarse <= 49  # the projected map has at most 7x7 features


def test_every_pixel_of_a_deconv_depends_on_its_input():
    net = Deconv((13, 10, 1), features=4)
    params = net.init(jax.random.key(0), jnp.ones(8))
    jacobian = jax.jit(jax.jacobian(lambda x: net.apply(params, x)))(jnp.linspace(-1, 1, 8))
    assert (np.abs(jacobian).max(-1) > 0).all()


def test_interleave():
    x = np.arange(2 * 3 * 8).reshape(2, 3, 8)
    y = interleave(jnp.asarray(x), 2)
    assert y.shape == (4, 6, 2)
    for i, j, c in np.ndindex(y.shape):
        assert y[i, j, c] == x[i // 2, j // 2, 4 * (i % 2) + 2 * (j % 2) + c]
