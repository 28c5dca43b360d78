import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from objcentric.nn.convolution import Conv, convolve

LAYOUT = ("NHWC", "HWIO", "NHWC")


def normal(seed, shape):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


@pytest.mark.parametrize("padding", ["SAME", "VALID", ((2, 0), (1, 3))])
@pytest.mark.parametrize("strides", [(1, 1), (2, 2), (3, 1)])
@pytest.mark.parametrize(("kernel", "groups"), [((3, 3), 1), ((5, 2), 1), ((1, 1), 1), ((3, 4), 2), ((2, 3), 4)])
def test_agrees_with_jax(kernel, groups, strides, padding):
    x, kernel = normal(0, (3, 11, 8, 4)), normal(1, (*kernel, 4 // groups, 8))
    options = dict(dimension_numbers=LAYOUT, feature_group_count=groups)

    def pulled(convolve, x, kernel):
        y, pullback = jax.vjp(lambda x, kernel: convolve(x, kernel, strides, padding, **options), x, kernel)
        return y, *pullback(normal(2, y.shape))

    found, expected = (jax.jit(pulled, static_argnums=0)(f, x, kernel) for f in (convolve, lax.conv_general_dilated))
    for a, b, tolerance in zip(found, expected, (1e-5, 1e-4, 1e-4), strict=True):
        assert a.shape == b.shape and np.allclose(a, b, atol=tolerance)


def test_layers_under_vmap_have_the_same_gradients():
    x = normal(0, (5, 9, 9, 2))
    layer, plain = Conv(3, (3, 3), (2, 2)), nn.Conv(3, (3, 3), (2, 2))
    shapes, plain_shapes = (jax.eval_shape(each.init, jax.random.key(1), x[0]) for each in (layer, plain))
    assert jax.tree.map(jnp.shape, shapes) == jax.tree.map(jnp.shape, plain_shapes)
    params = jax.jit(layer.init)(jax.random.key(1), x[0])

    def loss(params, layer):
        return jnp.sum(jnp.tanh(jax.vmap(lambda x: layer.apply(params, x))(x)))

    ours, theirs = (jax.jit(jax.grad(loss), static_argnums=1)(params, each) for each in (layer, plain))
    assert jax.tree.all(jax.tree.map(lambda a, b: np.allclose(a, b, atol=1e-5), ours, theirs))


@pytest.mark.parametrize("axes", [(None, 0), (0, 0), (1, None)])
def test_inputs_and_filters_may_have_more_axes(axes):
    x = normal(0, (4, 9, 9, 2) if axes[0] is None else (3, 3, 9, 9, 2))
    kernel = normal(1, (3, 3, 2, 3) if axes[1] is None else (3, 3, 3, 2, 3))

    def loss(x, kernel, convolve):
        return jnp.sum(jnp.tanh(jax.vmap(convolve, axes)(x, kernel)))

    def ours(x, kernel):
        return convolve(x, kernel, (1, 1), "SAME", dimension_numbers=LAYOUT)

    def theirs(x, kernel):
        return lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=LAYOUT)

    slopes = jax.jit(jax.grad(loss, (0, 1)), static_argnums=2)
    for a, b in zip(slopes(x, kernel, ours), slopes(x, kernel, theirs), strict=True):
        assert np.allclose(a, b, atol=1e-4)


def test_dilated_layers():
    x = jax.random.normal(jax.random.key(0), (5, 9, 9, 2))
    layer, plain = Conv(3, (3, 3), kernel_dilation=2), nn.Conv(3, (3, 3), kernel_dilation=2)
    params = layer.init(jax.random.key(1), x)
    assert jnp.allclose(layer.apply(params, x), plain.apply(params, x), atol=1e-6)
