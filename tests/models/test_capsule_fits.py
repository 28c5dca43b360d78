"""Fits of known shapes against least squares written out, and conventions that leave explanations as good."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from objcentric.models import capsule_fits, capsules
from objcentric.nn import poses

OFFSETS = np.array(
    [[[-1.0, -1], [-1, 1], [1, 1], [1, -1]], [[-2 / 3, -2 / 3], [-2 / 3, 4 / 3], [4 / 3, -2 / 3], [2, 2]]]
)

refit = jax.jit(capsule_fits.refit)
move = jax.jit(poses.move)


def similarity(size, degrees, shift):
    cos, sin = size * np.cos(np.radians(degrees)), size * np.sin(np.radians(degrees))
    return jnp.asarray([[cos, -sin, shift[0]], [sin, cos, shift[1]]], jnp.float32)


@jax.jit
def at(pose, log_presence=(0.0, 0.0)):
    """Two capsules of `OFFSETS` with these poses."""
    shape = OFFSETS.shape[:2]
    votes = poses.move(jnp.stack(pose), jnp.asarray(OFFSETS, jnp.float32))
    parts = jnp.asarray(log_presence), jnp.zeros(shape), jnp.stack(pose), votes, jnp.full(shape, 0.1), jnp.zeros(())
    return capsules.Capsules(*parts)


def test_a_refit_is_a_weighted_least_squares_fit():
    """Of one point to each vote by a similarity, and of a mean where a vote explains two points."""
    first, truth = (similarity(*of) for of in ((0.3, 0.0, (0.0, 0.0)), (0.4, 30.0, (0.1, -0.2))))
    start, points = at([first, first]), np.asarray(at([truth, truth]).votes[0])
    responsibility = np.zeros((5, 2, 4), np.float32)
    responsibility[[0, 1, 2, 3, 4], 0, [0, 1, 2, 3, 2]] = 1
    five = np.concatenate([points, [[9.0, 9.0]]])  # the last one is absent
    explained = capsules.Explained(None, None, None, jnp.asarray(responsibility))
    fitted = refit(five, jnp.asarray([1.0, 1, 1, 1, 0]), start, explained)
    np.testing.assert_allclose(fitted.votes[0], points, atol=0.01)
    np.testing.assert_allclose(fitted.pose[0], truth, atol=0.01)
    np.testing.assert_allclose(fitted.pose[1], first, atol=1e-4)  # it explains nothing, and stays
    np.testing.assert_allclose(fitted.votes, at(list(fitted.pose)).votes, atol=1e-5)
    np.testing.assert_allclose(np.exp(fitted.log_presence), [4.01 / 4.02, 0.01 / 4.02], rtol=1e-5)
    np.testing.assert_allclose(fitted.scale, 0.01, atol=2e-3)

    noisy = points + np.asarray(jax.random.normal(jax.random.key(0), (4, 2))) * 0.05
    fitted = refit(noisy, jnp.ones(4), start, explained._replace(responsibility=explained.responsibility[:4]))
    # x + iy = a o + b, in real numbers
    rows = [[x, -y, 1, 0] for x, y in OFFSETS[0]] + [[y, x, 0, 1] for x, y in OFFSETS[0]]
    exact, *_ = np.linalg.lstsq(np.array(rows), noisy.T.reshape(-1), rcond=None)
    np.testing.assert_allclose(
        fitted.pose[0], [[exact[0], -exact[1], exact[2]], [exact[1], exact[0], exact[3]]], atol=0.01
    )
    error = np.square(noisy - np.asarray(fitted.votes[0])).sum() / 8
    np.testing.assert_allclose(fitted.scale, np.sqrt(error + 1e-4), rtol=1e-3)


def test_disturbed_capsules_keep_their_shapes_and_what_poses_say_of_them():
    offsets = jax.random.normal(jax.random.key(0), (3, 4, 2))
    pose = np.broadcast_to(np.float32([[0.3, -0.1, 0.2], [0.1, 0.3, -0.4]]), (3, 2, 3))
    votes, scale = move(pose, offsets), jnp.full((3, 4), 0.02)
    seen = capsules.Capsules(jnp.zeros(3), jnp.zeros((3, 4)), pose, votes, scale, jnp.zeros(()))
    other = jax.device_get(jax.jit(capsule_fits.disturb)(jax.random.key(1), seen))
    np.testing.assert_allclose(move(other.pose, offsets), other.votes, atol=1e-5)

    def distances(votes):
        return np.linalg.norm(np.asarray(votes)[:, :, None] - np.asarray(votes)[:, None], axis=-1)

    before, after = distances(seen.votes), distances(other.votes)
    ratio = after[:, 0, 1:] / before[:, 0, 1:]
    np.testing.assert_allclose(ratio, np.broadcast_to(ratio[:, :1], ratio.shape), rtol=1e-4)
    assert len({round(float(each), 3) for each in ratio[:, 0]}) == 3
    assert (np.linalg.norm(other.votes.mean(1) - np.asarray(votes).mean(1), axis=-1) > 0.01).all()
    assert float(other.scale.min()) >= 0.1


def test_capsules_are_turned_about_their_middle():
    offsets = np.float32([[[0, 0], [2, 0], [0, 2], [2, 2]], [[0, 0], [1, 0], [0, 1], [0, 0]]])
    pose = np.broadcast_to(np.float32([[0.3, -0.1, 0.2], [0.1, 0.3, -0.4]]), (2, 2, 3))
    seen = capsules.Capsules(jnp.zeros(2), jnp.zeros((2, 4)), pose, move(pose, offsets), 0.1, jnp.zeros(()))
    other = jax.device_get(jax.jit(capsule_fits.turn)(seen, 90.0))
    np.testing.assert_allclose(move(other.pose, offsets), other.votes, atol=1e-6)
    middle = np.asarray(seen.votes).mean(1, keepdims=True)
    before, after = np.asarray(seen.votes) - middle, other.votes - middle
    np.testing.assert_allclose(after, np.stack([-before[..., 1], before[..., 0]], -1), atol=1e-6)


SQUARE, OTHER = np.float32([[0, 0], [2, 0], [2, 2], [0, 2]]), np.float32([[0, 0], [2, 0], [2, 2], [0, 0.5]])


def placed(offsets, *, degrees=0.0, sizes=1.0, along_x):
    """Capsules with ``offsets [K, 4, 2]``, turned and resized, their votes' means at ``along_x`` of the x-axis."""
    offsets, angle = np.stack(offsets), np.deg2rad(degrees)
    num = len(offsets)
    turn = np.float32([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    linear = turn[None] * np.broadcast_to(np.float32(sizes), num)[:, None, None]
    goal = np.stack([np.float32(along_x), np.zeros(num, np.float32)], -1)
    shift = goal - np.einsum("kij,kj->ki", linear, offsets.mean(1))
    pose = np.concatenate([linear, shift[..., None]], -1)
    log_presence = np.log(np.linspace(0.4, 0.6, num, dtype=np.float32))
    scale = np.ones((num, 4), np.float32) * np.arange(1, num + 1, dtype=np.float32)[:, None]
    none = np.zeros((num, 4), np.float32), np.float32(0)
    return capsules.Capsules(log_presence, none[0], pose, move(pose, offsets), scale, none[1])


def ordered(found, used, offsets):
    return jax.device_get(jax.jit(capsule_fits.in_order)(found, np.float32(used), np.stack(offsets)))


def assert_votes_are_the_same(a, b, atol=1e-4):
    apart = np.linalg.norm(a[:, None] - b[None], axis=-1)
    np.testing.assert_allclose([apart.min(0), apart.min(1)], 0, atol=atol)


@pytest.mark.parametrize(("degrees", "least"), [(10, 10), (50, -40), (100, 10), (170, -10), (-130, -40)])
def test_capsules_turn_by_as_little_as_they_can(degrees, least):
    """A square, of four ways in which it looks the same, not any other shape, wherever it lies."""
    offsets = SQUARE, OTHER
    found = placed(offsets, degrees=degrees, along_x=(3, 1))
    seen = ordered(found, (1, 1), offsets)
    np.testing.assert_allclose(np.rad2deg(np.arctan2(*seen.pose[:, ::-1, 0].T)), [least, degrees], atol=1e-3)
    np.testing.assert_allclose(move(seen.pose, np.stack(offsets)), seen.votes, atol=1e-5)
    assert_votes_are_the_same(seen.votes[0], found.votes[0])
    np.testing.assert_allclose(seen.votes[1], found.votes[1], atol=1e-5)


def test_of_capsules_that_look_alike_the_first_is_furthest_along_x():
    """A square and another, learnt larger and turned, exchange places; a shape that is no square keeps its own."""
    angle = np.deg2rad(30)
    turned = SQUARE @ np.float32([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    offsets = SQUARE, 1.5 * turned + 1, OTHER
    found = placed(offsets, degrees=20, sizes=(0.5, 0.7, 0.6), along_x=(5, 9, 20))
    seen = ordered(found, (1, 1, 1), offsets)
    for capsule, place in enumerate((1, 0, 2)):
        assert_votes_are_the_same(seen.votes[capsule], found.votes[place])
        assert seen.log_presence[capsule] == found.log_presence[place]
        np.testing.assert_array_equal(seen.scale[capsule], found.scale[place])
    np.testing.assert_allclose(move(seen.pose, np.stack(offsets)), seen.votes, atol=1e-4)
    again = ordered(seen, (1, 1, 1), offsets)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-4), again, seen)


@pytest.mark.parametrize("size", [1.0, 0.0])
def test_capsules_that_are_not_used_are_last(size):
    """Also if they have shrunk to a point, which does not tell that they look alike."""
    offsets = SQUARE, SQUARE
    found = placed(offsets, degrees=20, sizes=(size, 1), along_x=(9, 5))
    seen = ordered(found, (0, 1), offsets)
    np.testing.assert_allclose(seen.votes[0], found.votes[1], atol=1e-4)
    np.testing.assert_allclose(seen.votes[1], found.votes[0], atol=1e-4)


def test_a_shape_whose_first_vote_is_in_its_middle_keeps_its_size():
    """It tells no turn; others do."""
    offsets = (np.float32([[0, 0], [1, 0], [-0.5, 0.9], [-0.5, -0.9]]),)  # looks the same after a third of a turn
    found = placed(offsets, degrees=110, along_x=(3,))
    seen = ordered(found, (1,), offsets)
    assert_votes_are_the_same(seen.votes[0], found.votes[0], 0.1)
    np.testing.assert_allclose(np.rad2deg(np.arctan2(*seen.pose[:, ::-1, 0].T)), -10, atol=3)
    point = (np.zeros((4, 2), np.float32), SQUARE)
    found = placed(point, along_x=(3, 1))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), ordered(found, (1, 1), point), found)
