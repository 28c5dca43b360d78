import jax
import jax.numpy as jnp
import numpy as np

from objcentric.metrics import boxes as measured
from objcentric.nn import boxes


def random_boxes(key: jax.Array, num: int) -> jax.Array:
    corner, extent = jax.random.uniform(key, (2, num, 2))
    return 20 * jnp.concatenate([corner, corner + extent], -1)


def test_iou_agrees_with_the_metric():
    first, second = (random_boxes(jax.random.key(i), 50) for i in range(2))
    expected = measured.iou(first[:, None], second[:, None])[:, 0, 0]
    assert (expected > 0).any() and (expected == 0).any()
    np.testing.assert_allclose(boxes.iou(first, second), expected, atol=1e-6)


def test_a_box_turned_inside_out_has_no_area_and_overlaps_nothing():
    inside_out, whole = jnp.asarray([5.0, 5, 2, 8]), jnp.asarray([0.0, 0, 10, 10])
    assert boxes.area(inside_out) == 0
    assert boxes.iou(inside_out, whole) == 0
    assert boxes.iou(inside_out, inside_out) == 0
    assert np.isfinite(jax.grad(boxes.iou)(inside_out, inside_out)).all()


def test_overlap_is_minus_the_distance_where_boxes_do_not_meet():
    a, b = jnp.asarray([0.0, 0, 4, 4]), jnp.asarray([6.0, 1, 9, 3])
    np.testing.assert_array_equal(boxes.overlap(a, b), [-2, 2])


def test_where_and_box_are_inverses():
    box = random_boxes(jax.random.key(0), 7)
    where = boxes.to_where(box, (40, 20, 3))
    np.testing.assert_allclose(where[0, 2:], (box[0, 2:] - box[0, :2]) / np.array([40, 20]), rtol=1e-5)
    np.testing.assert_allclose(boxes.to_box(where, (40, 20, 3)), box, rtol=1e-5)
