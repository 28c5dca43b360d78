import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest
from jax import lax

from objcentric.nn.convolution import Conv, convolve

LAYOUT = ("NHWC", "HWIO", "NHWC")


@pytest.mark.parametrize("padding", ["SAME", "VALID", ((2, 0), (1, 3))])
@pytest.mark.parametrize("strides", [(1, 1), (2, 2), (3, 1)])
@pytest.mark.parametrize(("kernel", "groups"), [((3, 3), 1), ((5, 2), 1), ((1, 1), 1), ((3, 4), 2), ((2, 3), 4)])
def test_agrees_with_jax(kernel, groups, strides, padding):
    keys = jax.random.split(jax.random.key(0), 3)
    x = jax.random.normal(keys[0], (3, 11, 8, 4))
    kernel = jax.random.normal(keys[1], (*kernel, 4 // groups, 8))
    options = dict(dimension_numbers=LAYOUT, feature_group_count=groups)

    def ours(x, kernel):
        return convolve(x, kernel, strides, padding, **options)

    def theirs(x, kernel):
        return lax.conv_general_dilated(x, kernel, strides, padding, **options)

    y, pullback = jax.vjp(ours, x, kernel)
    expected, expected_pullback = jax.vjp(theirs, x, kernel)
    assert jnp.allclose(y, expected, atol=1e-5)
    cotangent = jax.random.normal(keys[2], y.shape)
    for a, b in zip(pullback(cotangent), expected_pullback(cotangent), strict=True):
        assert jnp.allclose(a, b, atol=1e-4)


def test_layers_under_vmap_have_the_same_gradients():
    x = jax.random.normal(jax.random.key(0), (5, 9, 9, 2))
    layer, plain = Conv(3, (3, 3), (2, 2)), nn.Conv(3, (3, 3), (2, 2))
    params = layer.init(jax.random.key(1), x[0])
    assert jax.tree.map(jnp.shape, params) == jax.tree.map(jnp.shape, plain.init(jax.random.key(1), x[0]))

    def loss(params, layer):
        return jnp.sum(jnp.tanh(jax.vmap(lambda x: layer.apply(params, x))(x)))

    ours, theirs = jax.grad(loss)(params, layer), jax.grad(loss)(params, plain)
    assert jax.tree.all(jax.tree.map(lambda a, b: jnp.allclose(a, b, atol=1e-5), ours, theirs))


@pytest.mark.parametrize("axes", [(None, 0), (0, 0), (1, None)])
def test_inputs_and_filters_may_have_more_axes(axes):
    x = jax.random.normal(jax.random.key(0), (4, 9, 9, 2) if axes[0] is None else (3, 3, 9, 9, 2))
    kernel = jax.random.normal(jax.random.key(1), (3, 3, 2, 3) if axes[1] is None else (3, 3, 3, 2, 3))

    def loss(x, kernel, convolve):
        return jnp.sum(jnp.tanh(jax.vmap(convolve, axes)(x, kernel)))

    def ours(x, kernel):
        return convolve(x, kernel, (1, 1), "SAME", dimension_numbers=LAYOUT)

    def theirs(x, kernel):
        return lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=LAYOUT)

    for a, b in zip(jax.grad(loss, (0, 1))(x, kernel, ours), jax.grad(loss, (0, 1))(x, kernel, theirs), strict=True):
        assert jnp.allclose(a, b, atol=1e-4)


def test_dilated_layers():
    x = jax.random.normal(jax.random.key(0), (5, 9, 9, 2))
    layer, plain = Conv(3, (3, 3), kernel_dilation=2), nn.Conv(3, (3, 3), kernel_dilation=2)
    params = layer.init(jax.random.key(1), x)
    assert jnp.allclose(layer.apply(params, x), plain.apply(params, x), atol=1e-6)
