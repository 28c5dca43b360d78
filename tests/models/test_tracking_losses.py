import jax
import jax.numpy as jnp
import numpy as np
import pytest

from objcentric.models import tracking_losses as losses
from objcentric.nn import boxes

TRUE = jnp.asarray([10.0, 10, 20, 30])
CANVAS = (40, 60, 3)


def test_tracking_is_minus_log_iou_where_boxes_meet():
    box = jnp.asarray([12.0, 14, 22, 29])
    assert float(losses.tracking(box, TRUE)) == pytest.approx(-np.log(float(boxes.iou(box, TRUE))), rel=1e-5)
    assert float(losses.tracking(TRUE, TRUE)) == pytest.approx(0, abs=1e-6)


def test_spatial_by_hand():
    attention = jnp.asarray([5.0, 20, 20, 45])  # has a half of the box, and 375 of 2400 pixels
    expected = -np.log(0.5) - np.log(1 - 375 / 2400)
    assert float(losses.spatial(attention, TRUE, CANVAS)) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("loss", [losses.tracking, lambda box, true: losses.spatial(box, true, CANVAS)])
def test_boxes_that_do_not_meet_attract_each_other(loss):
    apart = jnp.asarray([30.0, 40, 38, 55])  # down and to the right of the object
    grad = jax.jit(jax.grad(loss))
    slope = grad(apart, TRUE)
    assert np.isfinite(slope).all()
    assert slope[0] > 0 and slope[1] > 0  # its upper left corner should go up and left
    for _ in range(400):
        apart = apart - 0.5 * grad(apart, TRUE)
    assert float(boxes.iou(apart, TRUE)) > 0.1


def test_a_box_turned_inside_out_is_turned_back():
    inside_out = jnp.asarray([18.0, 12, 14, 28])
    value, slope = jax.value_and_grad(losses.tracking)(inside_out, TRUE)
    assert np.isfinite(value) and slope[2] < 0


def test_attention_to_the_whole_canvas_costs_but_not_infinitely():
    whole = jnp.asarray([0.0, 0, 40, 60])
    value, slope = jax.value_and_grad(losses.spatial)(whole, TRUE, CANVAS)
    assert np.isfinite(value) and value > 3
    assert slope[2] > 0 and slope[3] > 0


def test_the_target_map_is_one_where_cells_are_in_the_box():
    attention = jnp.asarray([0.0, 0, 40, 40])  # cells of 10 pixels, centres at 5, 15, 25, 35
    expected = np.zeros((4, 4))
    expected[1, 1:3] = 1
    np.testing.assert_array_equal(losses.target(attention, TRUE, (4, 4)), expected)


def test_appearance_weighs_object_and_surroundings_alike():
    attention = jnp.asarray([0.0, 0, 40, 40])
    expected = losses.target(attention, TRUE, (4, 4))
    np.testing.assert_allclose(losses.appearance(jnp.zeros((4, 4)), attention, TRUE), np.log(2), rtol=1e-5)
    assert float(losses.appearance(20 * (2 * expected - 1), attention, TRUE)) < 1e-6
    slope = jax.grad(losses.appearance)(jnp.zeros((4, 4)), attention, TRUE)
    np.testing.assert_allclose(jnp.sum(slope * expected), -jnp.sum(slope * (1 - expected)), rtol=1e-5)


def test_appearance_of_a_glimpse_without_the_object_is_finite():
    elsewhere = jnp.asarray([30.0, 40, 40, 60])
    assert np.isfinite(jax.grad(losses.appearance)(jnp.ones((4, 4)), elsewhere, TRUE)).all()


@pytest.mark.parametrize("least", [losses.ATTENDED, losses.TRACKED])
def test_the_logarithm_is_smooth_where_its_tangent_begins(least):
    at, slope = jnp.asarray(least), jax.grad(losses.log)
    np.testing.assert_allclose(losses.log(at - 1e-4, least), losses.log(at, least), atol=2e-3)
    np.testing.assert_allclose(slope(at - 1e-4, least), slope(at + 1e-4, least), rtol=1e-2)
    np.testing.assert_allclose(slope(jnp.asarray(-5.0), least), 1 / least, rtol=1e-6)
    np.testing.assert_allclose(losses.log(jnp.asarray(0.5), least), np.log(0.5), rtol=1e-6)
