"""Schedules at known steps, and the optimizer against updates worked out by hand."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from configs import base
from objcentric.errors import UserError
from objcentric.training import schedules


def make_config(**fields):
    config = base.get_config().optimizer
    config.decay = "constant"
    config.update(fields)
    return config


def test_geometric_is_linear_in_log_space_then_constant():
    schedule = schedules.geometric(0.1, 1e-5, 400)
    values = [float(schedule(jnp.int32(step))) for step in (0, 100, 200, 400, 4000)]
    np.testing.assert_allclose(values, [1e-1, 1e-2, 1e-3, 1e-5, 1e-5], rtol=1e-5)


def test_geometric_without_steps_is_its_end():
    assert float(schedules.geometric(0.9, 0.2, 0)(jnp.int32(0))) == pytest.approx(0.2)


@pytest.mark.parametrize(
    "steps, expected", [(400, {0: 1e-1, 1000: 1e-1, 1100: 1e-2, 1400: 1e-5, 9000: 1e-5}), (0, {999: 1e-1, 1000: 1e-5})]
)
def test_geometric_may_begin_later(steps, expected):
    schedule = schedules.geometric(0.1, 1e-5, steps, begin=1000)
    values = [float(schedule(jnp.int32(step))) for step in expected]
    np.testing.assert_allclose(values, list(expected.values()), rtol=1e-5)


@pytest.mark.parametrize(
    "fields, expected",
    [
        ({"decay": "constant"}, {0: 1.0, 7: 1.0, 1000: 1.0}),
        ({"decay": "constant", "warmup_steps": 10}, {0: 0.0, 5: 0.5, 10: 1.0, 99: 1.0}),
        ({"decay": "cosine"}, {0: 1.0, 50: 0.5, 100: 0.0}),
        (
            {"decay": "stairs", "stairs_at": (40, 60), "stairs_to": (0.5, 0.1)},
            {0: 1, 39: 1, 40: 0.5, 59: 0.5, 60: 0.1, 99: 0.1},
        ),
        (
            {"decay": "stairs", "stairs_at": (40,), "stairs_to": (0.5,), "warmup_steps": 10},
            {0: 0.0, 5: 0.5, 10: 1.0, 39: 1.0, 40: 0.5},
        ),
        ({"decay": "cosine", "warmup_steps": 20}, {0: 0.0, 10: 0.5, 20: 1.0, 60: 0.5, 100: 0.0}),
    ],
)
def test_learning_rate(fields, expected):
    schedule = schedules.learning_rate(make_config(learning_rate=1.0, **fields), num_steps=100)
    for step, value in expected.items():
        assert float(schedule(step)) == pytest.approx(value, abs=1e-6)


PARAMS = {"generative": jnp.zeros(2), "inference": {"w": jnp.zeros(2)}, "baseline": {"w": jnp.zeros(2)}}


def last_update(optimizer, *grads):
    state = optimizer.init(PARAMS)
    for grad in grads:
        update, state = optimizer.update(grad, state, PARAMS)
    return update


def fill(generative, inference, baseline):
    return {
        "generative": jnp.full(2, generative),
        "inference": {"w": jnp.full(2, inference)},
        "baseline": {"w": jnp.full(2, baseline)},
    }


def test_adam_takes_first_steps_of_the_learning_rate_and_baselines_of_its_multiple():
    optimizer = schedules.make_optimizer(make_config(name="adam", learning_rate=0.01, baseline_factor=10.0), 100)
    chex.assert_trees_all_close(last_update(optimizer, fill(3.0, -0.5, 2.0)), fill(-0.01, 0.01, -0.1), rtol=1e-5)


def test_the_rate_may_begin_anew():
    """Adam's steps are as large as the rate where all gradients are the same."""
    config = make_config(name="adam", learning_rate=0.01, decay="cosine", warmup_steps=2, clip_norm=0.0)
    optimizer, ones = schedules.make_optimizer(config, 15, restart=5), fill(1.0, 1.0, 1.0)
    steps = [-float(last_update(optimizer, *[ones] * n)["generative"][0]) for n in range(1, 16)]
    first, second = (schedules.learning_rate(config, n) for n in (5, 10))
    np.testing.assert_allclose(steps, [*map(first, range(5)), *map(second, range(10))], rtol=1e-4, atol=1e-8)
    assert steps[5] == 0 and steps[7] == pytest.approx(0.01, rel=1e-4)


def test_rmsprop_has_momentum():
    optimizer = schedules.make_optimizer(make_config(name="rmsprop", learning_rate=0.01, clip_norm=0.0), 100)
    grads = fill(1.0, 1.0, 0.0)
    second = 0.9 * 0.01 / np.sqrt(0.1) + 0.01 / np.sqrt(0.19)  # momentum of the first step, and the second step
    chex.assert_trees_all_close(last_update(optimizer, grads, grads), fill(-second, -second, 0.0), rtol=1e-4)


def test_the_model_is_clipped_as_a_whole_and_baselines_apart():
    optimizer = schedules.make_optimizer(make_config(name="adam", learning_rate=0.01, clip_norm=5.0), 100)
    plain = optax.partition({"model": optax.adam(0.01), "baseline": optax.adam(0.1)}, fill_labels)
    large, small = fill(30.0, 40.0, 1e3), fill(0.1, 0.2, 0.3)  # norms: 50 sqrt(2) of the model, 1000 sqrt(2)
    clipped = fill(3.0 / np.sqrt(2), 4.0 / np.sqrt(2), 5.0 / np.sqrt(2))
    expected = last_update(plain, clipped, small)
    chex.assert_trees_all_close(last_update(optimizer, large, small), expected, rtol=1e-5)
    unclipped = schedules.make_optimizer(make_config(name="adam", learning_rate=0.01, clip_norm=0.0), 100)
    chex.assert_trees_all_close(last_update(unclipped, large, small), last_update(plain, large, small), rtol=1e-5)


def fill_labels(params):
    return {"generative": "model", "inference": {"w": "model"}, "baseline": {"w": "baseline"}}


@pytest.mark.parametrize(
    "fields, name",
    [
        ({"name": "sgd"}, "optimizer.name='sgd'"),
        ({"decay": "x"}, "optimizer.decay"),
        ({"decay": "stairs", "stairs_at": (5,)}, "optimizer.stairs_at"),
        ({"decay": "stairs", "stairs_at": (5, 3), "stairs_to": (0.5, 0.1)}, "optimizer.stairs_at"),
    ],
)
def test_unknown_names(fields, name):
    with pytest.raises(UserError, match=name):
        schedules.make_optimizer(make_config(**fields), 100)


def test_muon_moves_matrices_as_far_in_all_directions():
    """All singular values of a first update are about the same; its entries are about as large as Adam's.

    What is no dense layer's or convolution's has Adam with Nesterov momentum: a bias, stacked weights, a table.
    """
    optimizer = schedules.make_optimizer(make_config(name="muon", learning_rate=0.01, clip_norm=0.0), 100)
    kernel = jax.random.normal(jax.random.key(0), (120, 200)) * jnp.logspace(0, 1, 200)[None]
    others = {"bias": jnp.full(50, 3.0), "kernels": jnp.full((2, 3, 3), -0.5), "table": jnp.full((4, 3), 2.0)}
    both = {"dense": {"kernel": kernel, **others}, "convolution": {"kernel": kernel.reshape(4, 6, 5, 200)}}
    grads = {"inference": both, "baseline": {"kernel": kernel}}
    update = optimizer.update(grads, optimizer.init(grads), grads)[0]
    dense = update["inference"]["dense"]
    values = np.linalg.svd(dense["kernel"], compute_uv=False)
    assert values.min() > 0.6 * values.max()
    polar = np.linalg.svd(-kernel)
    direction = polar[0] @ polar[2][:120]  # whose norm is the root of 120
    assert np.sum(dense["kernel"] * direction) > 0.95 * np.sqrt(120) * np.linalg.norm(dense["kernel"])
    assert 0.5 < np.sqrt(np.mean(np.square(dense["kernel"]))) / (0.01 * 0.2) < 1.5
    convolution = update["inference"]["convolution"]["kernel"]
    np.testing.assert_allclose(convolution.reshape(120, 200), dense["kernel"], rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(update["baseline"]["kernel"], 10 * dense["kernel"], rtol=1e-4, atol=1e-6)
    nadam = optax.nadam(0.01)
    expected = nadam.update(others, nadam.init(others))[0]
    chex.assert_trees_all_close({name: dense[name] for name in others}, expected, rtol=1e-5)


def test_rmsprop_of_tensorflow():
    """Its accumulator starts at 1, and epsilon is added to it, inside the root; so the first steps are small."""
    config = make_config(name="rmsprop_tf", learning_rate=0.01, clip_norm=0.0)
    config.eps = 0.25
    optimizer = schedules.make_optimizer(config, 100)
    square, momentum = 1.0, 0.0
    for grad in (gradients := [3.0, -0.5, 1.0]):
        square = 0.9 * square + 0.1 * grad**2
        momentum = 0.9 * momentum + 0.01 * grad / np.sqrt(square + 0.25)
    grads = [fill(grad, grad, 0.0) for grad in gradients]
    chex.assert_trees_all_close(last_update(optimizer, *grads), fill(-momentum, -momentum, 0.0), rtol=1e-5)
    config.eps = -1.0
    with pytest.raises(UserError, match="optimizer.eps=-1.0: use 0 or more"):
        schedules.make_optimizer(config, 100)


def test_exponential_decay_is_in_stairs():
    config = make_config(learning_rate=1.0, decay="exponential", warmup_steps=0)
    config.decay_rate, config.decay_steps = 0.5, 10
    schedule = schedules.learning_rate(config, 100)
    assert [float(schedule(step)) for step in (0, 9, 10, 29, 30)] == pytest.approx([1, 1, 0.5, 0.25, 0.125])
    config.decay_steps = 0
    with pytest.raises(UserError, match="optimizer.decay_steps=0"):
        schedules.learning_rate(config, 100)
