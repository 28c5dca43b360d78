import jax
import jax.numpy as jnp
import numpy as np
import pytest

from objcentric.errors import UserError
from objcentric.nn.appearance import AlexNet, Dorsal, GlimpseCNN, Ventral, read_weights, write_weights


def shapes(module, size):
    params = jax.eval_shape(module.init, jax.random.key(0), jnp.zeros(size))
    return jax.eval_shape(module.apply, params, jnp.zeros(size)).shape, {
        f"{layer}/{name}": value.shape for layer, parts in params["params"].items() for name, value in parts.items()
    }


def test_sizes_of_the_three_layers_of_alexnet():
    maps, params = shapes(AlexNet(), (56, 56, 3))
    assert maps == (14, 14, 384)
    assert params["conv1/kernel"] == (11, 11, 3, 96) and params["conv2/kernel"] == (5, 5, 48, 256)
    assert params["conv3/kernel"] == (3, 3, 256, 384)


def test_sizes_of_the_cnn_of_appendix_4_a():
    maps, params = shapes(GlimpseCNN(), (32, 32, 3))
    assert maps == (7, 7, 64)
    assert [params[f"Conv_{i}/kernel"] for i in range(3)] == [(5, 5, 3, 32), (5, 5, 32, 32), (5, 5, 32, 64)]


def test_the_second_layer_adds_its_input_where_shapes_agree():
    glimpse = jax.random.normal(jax.random.key(0), (12, 12, 3))

    def changed(features):
        """Whether the first layer matters although the second gives nothing."""
        module = GlimpseCNN(features, kernel=3)
        params = module.init(jax.random.key(1), glimpse)["params"]
        silent = params | {"Conv_1": jax.tree.map(jnp.zeros_like, params["Conv_1"])}
        one, other = (module.apply({"params": silent}, each) for each in (glimpse, 2 * glimpse))
        return bool(jnp.max(jnp.abs(one - other)) > 1e-4)

    assert changed((4, 4, 6)) and not changed((4, 5, 6))


def test_the_ventral_stream_looks_at_each_place_alone():
    v1 = jax.random.normal(jax.random.key(0), (4, 5, 6))
    module = Ventral(maps=3)
    params = module.init(jax.random.key(1), v1)
    difference = module.apply(params, v1) - module.apply(params, v1.at[1, 2].add(1.0))
    assert difference.shape == (4, 5, 3)
    assert {tuple(place) for place in np.argwhere(jnp.abs(difference).sum(-1) > 0)} == {(1, 2)}


def test_the_filters_of_the_dorsal_stream_follow_appearance():
    module, v1 = Dorsal(), jax.random.normal(jax.random.key(0), (4, 5, 6))
    params = module.init(jax.random.key(1), v1, jnp.zeros(7))
    logits, filters = module.apply(params, v1, jnp.zeros(7))
    other, others = module.apply(params, v1, jax.random.normal(jax.random.key(2), (7,)))
    assert logits.shape == (4, 5) and filters.shape == (6 * 5 + 9 * 5 * 5,)
    assert float(jnp.max(jnp.abs(filters - others))) > 1e-3
    assert float(jnp.max(jnp.abs(logits - other))) > 1e-4


def test_dynamic_filters_are_convolutions():
    module, v1 = Dorsal(maps=2), jax.random.normal(jax.random.key(0), (4, 5, 3))
    params = module.init(jax.random.key(1), v1, jnp.zeros(7))
    logits, filters = module.apply(params, v1, jnp.ones(7))
    x = jax.nn.elu(v1 @ filters[:6].reshape(3, 2))
    kernel = filters[6:].reshape(3, 3, 2, 2)
    x = jax.lax.conv_general_dilated(x[None], kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))[0]
    last = params["params"]["Dense_2"]
    np.testing.assert_allclose(logits, (jax.nn.elu(x) @ last["kernel"])[..., 0] + last["bias"][0], rtol=1e-4, atol=1e-5)


def test_weights_are_read_as_they_were_written(tmp_path):
    module = GlimpseCNN((3, 3, 4), kernel=3)
    first, second = (module.init(jax.random.key(seed), jnp.zeros((12, 12, 3))) for seed in (0, 1))
    write_weights(tmp_path / "v1.npz", first)
    jax.tree.map(np.testing.assert_array_equal, read_weights(tmp_path / "v1.npz", second), first)


def test_weights_that_do_not_fit_are_refused(tmp_path):
    params = GlimpseCNN((3, 3, 4), kernel=3).init(jax.random.key(0), jnp.zeros((12, 12, 3)))
    other = GlimpseCNN((3, 3, 4), kernel=5).init(jax.random.key(0), jnp.zeros((12, 12, 3)))
    write_weights(tmp_path / "other.npz", other)
    np.savez(tmp_path / "few.npz", Conv_0_bias=np.zeros(3))
    (tmp_path / "text.npz").write_text("no arrays")
    for name, said in (
        ("other", r"Conv_0_kernel is \(5, 5, 3, 3\), and V1 needs \(3, 3, 3, 3\)"),
        ("few", "Conv_0_kernel is missing"),
        ("text", "give an .npz"),
        ("absent", "give an .npz"),
    ):
        with pytest.raises(UserError, match=said):
            read_weights(tmp_path / f"{name}.npz", params)
