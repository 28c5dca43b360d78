"""The update of one seed: which rows, which keys, and what a non-finite step may change."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from objcentric.training import step
from tests.training import linear


def rows(start, num_steps, batch_size=4, num_examples=10, seed=0):
    key = step.make_keys(seed).order
    return np.asarray(step.batch_rows(key, jnp.int32(start), num_steps, batch_size, num_examples))


def test_an_epoch_visits_every_row_once_and_each_epoch_in_another_order():
    visited = rows(0, 10).ravel()  # 40 examples are 4 epochs of 10
    epochs = visited.reshape(4, 10)
    np.testing.assert_array_equal(np.sort(epochs, axis=1), np.tile(np.arange(10), (4, 1)))
    assert len({tuple(epoch) for epoch in epochs}) == 4


@pytest.mark.parametrize("num_examples", [1, 10, 23])
def test_rows_depend_on_seed_and_step_only(num_examples):
    whole = rows(0, 12, num_examples=num_examples)
    for start, num_steps in ((0, 1), (1, 3), (5, 7), (11, 1)):
        part = rows(start, num_steps, num_examples=num_examples)
        np.testing.assert_array_equal(part, whole[start : start + num_steps])
    if num_examples > 3:
        assert (rows(0, 12, num_examples=num_examples, seed=1) != whole).any()


def train(num_steps, *, seed=0, bad=lambda params, step: False, **replaced):
    """``num_steps`` updates of one seed on one device; the final state and the metrics."""
    experiment = linear.build(linear.make_config(), bad=bad)._replace(**replaced)
    train = step.make_train(experiment, "device", num_steps, 8, 1)
    state = step.init_state(experiment, jnp.uint32(seed))
    return state, *jax.pmap(train, "device", in_axes=(None, None, None, 0), out_axes=None, devices=jax.devices()[:1])(
        state, experiment.data.train, None, jnp.arange(1)
    )


def test_the_loss_gets_the_chosen_rows_with_keys_of_seed_step_and_example():
    def loss(params, batch, keys, step, aux):
        noise = jax.vmap(jax.random.uniform)(keys)
        return jnp.sum(params["baseline"]), (
            {"row": jnp.mean(batch["row"].astype(jnp.float32)), "noise": noise[5]},
            aux,
        )

    experiment = linear.build(linear.make_config())
    data = experiment.data._replace(train={"row": np.arange(50)})
    _, _, metrics = train(3, seed=7, loss=loss, data=data)
    keys = step.make_keys(7)
    expected_rows = step.batch_rows(keys.order, jnp.int32(0), 3, 8, 50)
    noise = [jax.random.uniform(jax.random.fold_in(jax.random.fold_in(keys.noise, t), 5)) for t in range(3)]
    assert float(metrics["row"]) == pytest.approx(float(expected_rows.mean()))
    assert float(metrics["noise"]) == pytest.approx(float(np.mean(noise)))


def test_a_non_finite_step_changes_nothing_but_the_counts():
    before, after, metrics = train(1, bad=lambda params, step: True)
    for part in ("params", "opt_state", "aux"):
        chex.assert_trees_all_equal(getattr(after, part), getattr(before, part))
    assert (int(after.step), int(after.guard.skipped), int(after.guard.failed_at)) == (1, 1, -1)
    assert np.isnan(metrics["loss"])


def test_training_goes_on_after_a_non_finite_step_and_metrics_leave_it_out():
    _, after, metrics = train(20, bad=lambda params, step: step == 3)
    assert (int(after.guard.skipped), int(after.guard.streak), int(after.guard.failed_at)) == (1, 0, -1)
    assert np.isfinite(metrics["loss"])
    chex.assert_tree_all_finite((after.params, after.opt_state, after.aux))


def test_a_non_finite_moving_average_or_gradient_counts_too():
    def aux_overflows(params, batch, keys, step, aux):
        return jnp.sum(params["baseline"]), ({}, {"mean": jnp.inf * (aux["mean"] + 1)})

    def gradient_overflows(params, batch, keys, step, aux):
        return jnp.sum(jnp.sqrt(params["generative"])), ({}, aux)  # of 0: the loss is 0, its gradient infinite

    for loss in (aux_overflows, gradient_overflows):
        before, after, _ = train(1, loss=loss)
        assert int(after.guard.skipped) == 1
        chex.assert_trees_all_equal((after.params, after.aux), (before.params, before.aux))


def test_a_seed_gives_up_for_good_after_a_streak():
    _, after, _ = train(30, bad=lambda params, step: (step >= 4) & (step < 25))
    assert int(after.guard.failed_at) == 4
    assert int(after.guard.skipped) == 26  # the steps from 25 on are finite, but come too late
