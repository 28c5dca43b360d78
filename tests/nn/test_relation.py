"""Relations against sums by hand, and that self-attention learns forces between circles."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from objcentric.data import circles
from objcentric.nn.activations import elu
from objcentric.nn.relation import Joint, MaxPool, SelfAttention

X, THERE = jax.random.normal(jax.random.key(0), (4, 5)), jnp.asarray([1.0, 1, 0, 1])


def test_self_attention_by_hand():
    """Equations 4.1 to 4.3."""
    x, there = jax.random.normal(jax.random.key(0), (3, 5)), jnp.asarray([1.0, 1, 0])
    module = SelfAttention(8, 2)
    params = module.init(jax.random.key(1), x, there)
    heard, weights = module.apply(params, x, there)
    q, k, v = (
        np.asarray(x @ params["params"][n]["kernel"]) + np.asarray(params["params"][n]["bias"])
        for n in ("query", "key", "value")
    )
    for head in range(2):
        part = slice(4 * head, 4 * head + 4)
        scores = np.exp(q[:, part] @ k[:2, part].T)  # the third one is not there, and there is no root
        scores /= scores.sum(1, keepdims=True)
        np.testing.assert_allclose(weights[head, :, :2], scores, rtol=1e-4)
        np.testing.assert_allclose(heard[:, part], scores @ v[:2, part], rtol=1e-4, atol=1e-5)


def test_the_largest_by_hand():
    module = MaxPool(6)
    params = module.init(jax.random.key(1), X, THERE)
    heard, weights = module.apply(params, X, THERE)
    layer = params["params"]["Dense_0"]
    told = np.asarray(X) @ np.asarray(layer["kernel"]) + np.asarray(layer["bias"])
    np.testing.assert_allclose(heard, np.tile(told[[0, 1, 3]].max(0), (4, 1)), rtol=1e-5)
    assert weights.shape == (1, 4, 0)


def test_an_mlp_of_all_by_hand():
    module = Joint(6)
    params = module.init(jax.random.key(1), X, THERE)
    heard, _ = module.apply(params, X, THERE)
    first, second = params["params"]["Dense_0"], params["params"]["Dense_1"]
    hidden = elu((X * THERE[:, None]).reshape(-1) @ first["kernel"] + first["bias"])
    np.testing.assert_allclose(heard.reshape(-1), hidden @ second["kernel"] + second["bias"], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", [SelfAttention, Joint])
def test_who_is_absent_gets_no_gradient(kind):
    module = kind(8, 2) if kind is SelfAttention else kind(8)
    params = jax.jit(module.init)(jax.random.key(1), X, THERE)
    slope = jax.jit(jax.grad(lambda x: jnp.sum(jnp.square(module.apply(params, x, THERE)[0][:2]))))(X)
    assert not np.any(slope[2]) and np.any(slope[3])


def test_self_attention_learns_forces_that_no_circle_knows_alone():
    """Signs and places of both make a force; without those of others its mean is all that one knows."""
    world = circles.Config(num_objects=4, identities=2, power=0.5, radius=3.0)

    def draw(key):
        place_key, identity_key = jax.random.split(key)
        position = jax.random.uniform(place_key, (4, 2), minval=3.0, maxval=61.0)
        identity = jax.random.randint(identity_key, (4,), 0, 2)
        known = jnp.concatenate([position / 32 - 1, 2.0 * identity[:, None] - 1], -1)
        return known, circles.forces(world, position, identity)

    module = SelfAttention(32, 4)
    width = 32

    def init(key):
        keys = jax.random.split(key, 4)
        shapes = {"told": (3, width), "heard": (width + 3, width), "out": (width, 2)}
        params = {
            name: jax.random.normal(k, s) / s[0] ** 0.5 for (name, s), k in zip(shapes.items(), keys[1:], strict=True)
        }
        return params | {"relation": module.init(keys[0], jnp.zeros((4, width)), jnp.ones(4))}

    def predict(params, known):
        told = elu(known @ params["told"])
        heard, _ = module.apply(params["relation"], told, jnp.ones(4))
        return elu(jnp.concatenate([heard, known], -1) @ params["heard"]) @ params["out"]

    def loss(params, key):
        known, force = jax.vmap(draw)(jax.random.split(key, 128))
        return jnp.mean(jnp.square(jax.vmap(predict, (None, 0))(params, known) - force))

    optimizer = optax.adam(5e-3)

    def step(carry, key):
        params, state = carry
        updates, state = optimizer.update(jax.grad(loss)(params, key), state)
        return (optax.apply_updates(params, updates), state), None

    @jax.jit
    def train():
        params = init(jax.random.key(0))
        return jax.lax.scan(step, (params, optimizer.init(params)), jax.random.split(jax.random.key(5), 600))[0][0]

    @jax.jit
    def left(params):
        known, force = jax.vmap(draw)(jax.random.split(jax.random.key(9), 2_000))
        return force - jax.vmap(predict, (None, 0))(params, known), force

    rest, force = jax.device_get(left(train()))
    assert np.mean(np.square(rest)) < 0.5 * np.var(force)
