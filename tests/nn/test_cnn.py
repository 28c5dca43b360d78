import jax
import jax.numpy as jnp
import numpy as np
import pytest

from objcentric.nn.cnn import CNN, Deconv, SubpixelCNN, interleave


def apply(net, x):
    return jax.jit(lambda key, x: net.init_with_output(key, x))(jax.random.key(0), x)


def shapes(net, x):
    """The output's shape, and those of the parameters, without computing them."""
    y, params = jax.eval_shape(net.init_with_output, jax.random.key(0), jax.ShapeDtypeStruct(x, jnp.float32))
    return y.shape, {name: layer["kernel"].shape for name, layer in params["params"].items()}


# ------------------------------------------------------------------------------------------------------------- encoder


@pytest.mark.parametrize("shape", [(50, 50, 1), (20, 20, 1), (9, 11, 3), (1, 2, 1)])
@pytest.mark.parametrize("strides", [(2, 2, 1, 1), (1, 3)])
def test_encoder_shapes(shape, strides):
    net = CNN((16, 32, 32, 64)[: len(strides)], strides)
    y, kernels = shapes(net, shape)
    assert y == net.output_shape(shape)
    assert all(kernel[:2] == (3, 3) for kernel in kernels.values()) and len(kernels) == len(strides)


def test_the_encoder_of_the_paper():
    y, kernels = shapes(CNN((16, 32, 32, 64), (2, 2, 1, 1)), (50, 50, 1))
    assert y == (13, 13, 64)
    assert list(kernels.values()) == [(3, 3, 1, 16), (3, 3, 16, 32), (3, 3, 32, 32), (3, 3, 32, 64)]


@pytest.mark.parametrize("stride", [1, 2])
def test_a_layer_by_hand(stride):
    x = np.random.default_rng(0).normal(size=(5, 7, 2)).astype(np.float32)
    y, params = apply(CNN((3,), (stride,)), jnp.asarray(x))
    kernel = np.float64(params["params"]["Conv_0"]["kernel"])  # with a bias of 0
    padded = np.pad(x, ((1, 1), (1, 1), (0, 0)))
    everywhere = [[np.tensordot(padded[i : i + 3, j : j + 3], kernel, 3) for j in range(7)] for i in range(5)]
    exact = np.array(everywhere)[::stride, ::stride]
    np.testing.assert_allclose(y, np.where(exact > 0, exact, np.expm1(exact)), rtol=1e-4, atol=1e-5)


def test_as_many_strides_as_layers():
    with pytest.raises(ValueError):
        shapes(CNN((4, 4), (1,)), (8, 8, 1))
    with pytest.raises(ValueError):
        shapes(SubpixelCNN((8, 8, 1), 4, (4, 4), (1,)), (3,))


# ------------------------------------------------------------------------------------------------------------- decoder


@pytest.mark.parametrize(
    "shape, strides", [((20, 20, 1), (1, 2, 2)), ((20, 12, 3), (2, 1, 2)), ((9, 6, 1), (3,)), ((5, 7, 2), (1, 1))]
)
def test_decoder_shapes(shape, strides):
    y, kernels = shapes(SubpixelCNN(shape, 8, (6, 4, 5)[: len(strides)], strides), (10,))
    assert y == shape
    area = shape[0] * shape[1] // np.prod(strides) ** 2
    assert kernels["Dense_1"] == (8, 6 * area)


def test_the_decoder_of_the_paper():
    y, kernels = shapes(SubpixelCNN((20, 20, 1), 256, (32, 64, 64), (1, 2, 2)), (50,))
    assert y == (20, 20, 1)
    assert kernels == {
        "Dense_0": (50, 256),
        "Dense_1": (256, 800),  # 32 maps of 5x5
        "Conv_0": (3, 3, 32, 32),
        "Conv_1": (3, 3, 32, 4 * 64),
        "Conv_2": (3, 3, 64, 4 * 64),
        "Conv_3": (3, 3, 64, 1),
    }


def test_every_pixel_of_a_decoder_depends_on_its_input():
    net = SubpixelCNN((8, 12, 2), 6, (4, 3), (2, 2))
    y, params = apply(net, jnp.linspace(-1, 1, 3))
    jacobian = jax.jit(jax.jacrev(lambda x: net.apply(params, x)))(jnp.linspace(-1, 1, 3))
    assert y.shape == (8, 12, 2) and np.isfinite(y).all()
    assert (np.abs(jacobian).max(-1) > 0).all()
    assert len(np.unique(y)) == y.size  # of a block of pixels, each is another


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


@pytest.mark.parametrize("factor", [1, 2, 3])
def test_interleave_by_hand(factor):
    x = np.arange(2 * 3 * factor**2 * 4).reshape(2, 3, factor**2 * 4)
    exact = np.zeros((2 * factor, 3 * factor, 4))
    for i, j, down, right, channel in np.ndindex(2, 3, factor, factor, 4):
        exact[i * factor + down, j * factor + right, channel] = x[i, j, (down * factor + right) * 4 + channel]
    np.testing.assert_array_equal(interleave(jnp.asarray(x), factor), exact)


def test_interleaving_needs_maps_for_whole_blocks():
    with pytest.raises(TypeError):
        interleave(jnp.ones((2, 2, 6)), 2)
