import jax
import jax.numpy as jnp
import numpy as np
import pytest

from objcentric.nn import one_by_one as module
from objcentric.nn.one_by_one import one_by_one


def plain(variables, data):
    return jnp.sum(jnp.sin(variables["scale"] * data[0] + variables["shift"])) * data[1]


X = jax.random.normal(jax.random.key(0), (4, 3))
WEIGHT = jnp.arange(1.0, 5.0)
SHARED = {"scale": jnp.float32(0.7), "shift": jnp.arange(3.0)}


def total(function):
    """Of examples whose variables are in part shared, in part their own."""

    def loss(shared, shift, x):
        each = jax.vmap(lambda shift, x, w: function({"scale": shared, "shift": shift}, (x, w)))(shift, x, WEIGHT)
        return jnp.sum(jnp.square(each)), each

    shift = jnp.broadcast_to(SHARED["shift"], X.shape)
    return jax.jit(jax.value_and_grad(loss, (0, 1), has_aux=True))(SHARED["scale"], shift, X)


@pytest.mark.parametrize("backend", ["cpu", "gpu"])
def test_values_and_gradients_are_those_of_the_function(backend, monkeypatch):
    monkeypatch.setattr(module.jax, "default_backend", lambda: backend)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), total(one_by_one(plain)), total(plain))


@pytest.mark.parametrize("backend", ["cpu", "gpu"])
def test_a_cpu_alone_goes_through_examples_in_a_loop(backend, monkeypatch):
    monkeypatch.setattr(module.jax, "default_backend", lambda: backend)
    gradient = jax.vmap(jax.grad(one_by_one(plain)), (None, 0))
    assert ("while" in jax.jit(gradient).lower(SHARED, (X, WEIGHT)).as_text()) == (backend == "cpu")


def test_data_have_no_gradients():
    assert jax.grad(one_by_one(plain), 1)(SHARED, (X[0], WEIGHT[0]))[1] == 0
