import jax
import jax.numpy as jnp
import numpy as np
import pytest

from objcentric.nn.mlp import MLP


def apply(net, x):
    return jax.jit(lambda key, x: net.init_with_output(key, x))(jax.random.key(0), x)


def test_mlp_by_hand():
    x = jnp.linspace(-2, 2, 6)
    y, params = apply(MLP((5, 4), 3), x)
    h = np.float64(x)
    for i in range(3):
        layer = params["params"][f"Dense_{i}"]
        h = h @ np.float64(layer["kernel"]) + np.float64(layer["bias"])
        h = np.where(h > 0, h, np.expm1(h)) if i < 2 else h
    np.testing.assert_allclose(y, h, rtol=1e-5)


def test_mlp_without_hidden_layers_is_linear():
    y, params = apply(MLP((), 3), jnp.ones(6))
    assert list(params["params"]) == ["Dense_0"] and y.shape == (3,)


def test_output_scale_is_the_variance_of_the_last_layer():
    _, params = apply(MLP((50,), 400, output_scale=0.01), jnp.ones(6))
    kernel = params["params"]["Dense_1"]["kernel"]
    assert np.var(kernel) == pytest.approx(0.01 / 50, rel=0.05)
