import jax
import jax.numpy as jnp
import numpy as np
import pytest

from objcentric.nn import poses

IDENTITY = jnp.asarray([[1.0, 0, 0], [0, 1, 0]])


@pytest.mark.parametrize("similarity", [False, True])
def test_poses_by_hand(similarity):
    raw = jnp.asarray([0.3, -0.4, 0.125, 0.1, 0.2, -0.3])
    scale = 1 / (1 + np.exp(-np.array([0.3, -0.4]))) + 0.01
    shear, *shift = np.tanh(5 * np.array([0.1, 0.2, -0.3]))
    if similarity:
        scale[1], shear = scale[0], 0
    turn = np.array([[1, -1], [1, 1]]) / np.sqrt(2)  # an eighth of a turn
    linear = turn @ np.array([[1, shear], [0, 1]]) @ np.diag(scale)
    expected = np.concatenate([linear, np.array(shift)[:, None]], 1)
    np.testing.assert_allclose(poses.pose(raw, similarity=similarity), expected, rtol=1e-5)


def test_matrices_are_their_entries():
    raw = jnp.arange(6.0)
    np.testing.assert_array_equal(poses.matrix(raw), raw.reshape(2, 3))
    np.testing.assert_array_equal(poses.matrix(raw, similarity=True), [[0, -3, 2], [3, 0, 5]])


def test_poses_are_a_group():
    first, second = poses.pose(jax.random.normal(jax.random.key(0), (2, 4, 6)))
    points = jax.random.normal(jax.random.key(1), (4, 3, 2))
    np.testing.assert_allclose(
        poses.move(poses.compose(first, second), points), poses.move(first, poses.move(second, points)), atol=1e-4
    )
    np.testing.assert_allclose(poses.move(poses.invert(first), poses.move(first, points)), points, atol=1e-3)
    np.testing.assert_allclose(
        poses.compose(first, poses.invert(first)), jnp.broadcast_to(IDENTITY, (4, 2, 3)), atol=1e-4
    )
