import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from objcentric.errors import UserError
from objcentric.models import capsule_fits, capsules, ccae
from objcentric.nn import poses

SMALL = ccae.Config(hidden=8, blocks=1, heads=2, units=4, features=6, noise=2.0)
POINTS = jax.random.uniform(jax.random.key(3), (7, 2), minval=-1.0)
PRESENCE = jnp.asarray([1.0, 1, 0, 1, 1, 0, 1])


@functools.cache
def made(config):
    model = ccae.make(config)
    return jax.jit(model.infer), jax.jit(model.init)(jax.random.key(0))


def infer(config=SMALL, key=None, points=POINTS, presence=PRESENCE):
    run, params = made(config)
    return run(params, key, points, presence)


@pytest.mark.parametrize("decoder", ["capsules", "baseline"])
def test_the_order_of_points_does_not_matter(decoder):
    config = dataclasses.replace(SMALL, decoder=decoder)
    order = jnp.asarray([4, 2, 6, 0, 1, 5, 3])
    seen, shuffled = infer(config), infer(config, points=POINTS[order], presence=PRESENCE[order])
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), seen.capsules, shuffled.capsules)
    np.testing.assert_allclose(
        seen.explained.log_likelihood[order], shuffled.explained.log_likelihood, rtol=1e-4, atol=1e-5
    )
    np.testing.assert_array_equal(seen.winner[order], shuffled.winner)


def test_absent_points_do_not_matter():
    elsewhere = jnp.where(PRESENCE[:, None] > 0, POINTS, 9.0)
    seen, other = infer(), infer(points=elsewhere)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), seen.capsules, other.capsules)


def test_there_is_noise_in_training_alone():
    quiet, again = infer(), infer()
    np.testing.assert_array_equal(quiet.capsules.log_presence, again.capsules.log_presence)
    noisy = infer(key=jax.random.key(1)).capsules
    difference = np.abs(noisy.log_presence - quiet.capsules.log_presence)
    assert (difference > 0).all() and not np.allclose(noisy.log_vote_presence, quiet.capsules.log_vote_presence)
    without = infer(dataclasses.replace(SMALL, noise=0.0), key=jax.random.key(1)).capsules
    np.testing.assert_allclose(without.log_presence, quiet.capsules.log_presence, rtol=1e-5)


def test_noise_is_uniform():
    (noise,) = capsules.presence_noise(jax.random.key(0), 2.0, (4000,))
    assert (float(noise.min()), float(noise.max())) == pytest.approx((-2, 2), abs=0.01)
    assert float(noise.std()) == pytest.approx(4 / 12**0.5, abs=0.03)


def test_the_winner_has_the_best_component():
    seen = infer()
    np.testing.assert_array_equal(seen.winner, np.argmax(seen.explained.log_joint.max(-1), -1))
    np.testing.assert_array_equal(seen.winner, capsules.winner(seen.explained))


@pytest.mark.parametrize("fields", [{"inducing": 2}, {"pooling": "pma"}, {"layer_norm": False}])
def test_encoders_may_be_other_set_transformers(fields):
    key = jax.random.key(0)
    usual, other = (
        jax.eval_shape(ccae.make(dataclasses.replace(SMALL, **each)).init, key)["inference"] for each in ({}, fields)
    )
    assert jax.tree.structure(usual) != jax.tree.structure(other)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"decoder": "mlp"}, "model.decoder='mlp' is unknown"),
        ({"mixture": "mean"}, "model.mixture='mean' is unknown"),
        ({"num_votes": 0}, "model.num_votes=0 must be positive"),
        ({"dummy": -1.0}, "model.dummy=-1.0: use 0"),
        ({"noise": -1.0}, "model.noise=-1.0: use 0 or more"),
    ],
)
def test_what_makes_no_sense_is_refused(fields, said):
    with pytest.raises(UserError, match=said):
        dataclasses.replace(SMALL, **fields)


REFINED = dataclasses.replace(SMALL, pose="matrix", similarity=True, scale="scene", deformable=False, noise=0.0)
search = jax.jit(ccae.make(REFINED).refine, static_argnums=5)
information_criterion = jax.jit(ccae.information_criterion)
SQUARE = np.float32([[-1, -1], [-1, 1], [1, 1], [1, -1]])
TRIANGLE = np.float32([[-1, -1], [-1, 1], [1, -1], [-1, -1]])


def refine(offsets, points, presence, seen, num_steps, others=()):
    starts = jax.tree.map(lambda *leaves: jnp.stack(leaves), seen.capsules, *others)
    return search(offsets, points, presence, seen, starts, num_steps)


def rough(points, offsets, poses_of, scale=0.1):
    """What an encoder may see that takes capsules with ``offsets`` to have ``poses_of``: (size, (x, y)) of each."""
    pose = np.float32([[[s, 0.1 * s, x], [-0.1 * s, s, y]] for s, (x, y) in poses_of])
    return seen_with(points, offsets, pose, scale)


@jax.jit
def seen_with(points, offsets, pose, scale):
    votes = jax.vmap(poses.move)(pose, offsets)
    size = votes.shape[:2]
    unsure = jnp.full(size[0], jnp.log(0.5))
    found = capsules.Capsules(unsure, jnp.zeros(size), pose, votes, jnp.full(size, scale), jnp.zeros(()))
    explained = capsules.explain_points(points, found, mixture="normalised", dummy=0.0)
    return ccae.Seen(found, explained, capsules.winner(explained))


def test_refining_finds_shapes_from_rough_poses():
    """A square and a triangle, from poses that are off and a third capsule where nothing is."""
    true = np.concatenate([0.3 * SQUARE + [[-0.4, 0.1]], 0.2 * TRIANGLE[:3] + [[0.3, 0.0]]])
    points, presence = np.concatenate([true, [[0.0, 0.0]]]), np.array([1.0] * 7 + [0.0])
    offsets = np.stack([SQUARE, TRIANGLE, SQUARE])
    seen = rough(points, offsets, [(0.25, (-0.3, 0.2)), (0.28, (0.2, -0.15)), (0.3, (0.1, 0.2))])
    better = jax.device_get(refine(offsets, points, presence, seen, 20))
    first, second = np.unique(better.winner[:4]), np.unique(better.winner[4:7])
    assert len(first) == len(second) == 1 and first != second
    assert (better.explained.log_likelihood[:7] > seen.explained.log_likelihood[:7]).all()
    for point in true:
        assert np.min(np.linalg.norm(better.capsules.votes - point[None, None], axis=-1)) < 0.02
    elsewhere = np.concatenate([true, [[5.0, 5.0]]])
    moved = refine(offsets, elsewhere, presence, seen, 20)  # what is absent does not matter
    np.testing.assert_allclose(moved.capsules.votes, better.capsules.votes, atol=1e-6)
    same = refine(offsets, points, presence, seen, 0)
    assert information_criterion(presence, same) <= information_criterion(presence, seen) + 1e-4


def test_other_starts_find_what_the_first_does_not():
    """Two capsules that are the same, between two squares, stay so, whatever the number of steps."""
    points = np.concatenate([0.2 * SQUARE + [[-0.35, 0.0]], 0.2 * SQUARE + [[0.35, 0.0]]])
    presence, offsets = np.ones(8), np.stack([SQUARE, SQUARE, SQUARE])
    seen = rough(points, offsets, [(0.3, (0.0, 0.0)), (0.3, (0.0, 0.0)), (0.5, (0.0, 0.0))])
    other = capsule_fits.disturb(jax.random.key(0), seen.capsules)
    first, best = (refine(offsets, points, presence, seen, 20, others) for others in ((), (other,)))
    criteria = [float(information_criterion(presence, found)) for found in (first, best)]
    assert criteria[1] < criteria[0] - 5
    winner = best.winner
    assert len(set(winner[:4].tolist())) == len(set(winner[4:].tolist())) == 1 and winner[0] != winner[4]


@pytest.mark.parametrize("degrees", [50, 40, -40, 100])
def test_a_square_between_two_corners_is_freed_by_a_turned_start(degrees):
    """It alone is turned; that to the right is the first capsule's then, and neither is turned more than need be."""
    points, presence = np.concatenate([0.3 * SQUARE - [[0.4, 0.0]], 0.3 * TRIANGLE[:3] + [[0.4, 0.0]]]), np.ones(7)
    offsets = np.stack([SQUARE] * 3)
    seen = rough(points, offsets, [(0.25, (-0.4, 0.0)), (0.3, (0.4, 0.0)), (0.01, (0.7, 0.3))])
    turned = capsule_fits.turn(seen.capsules, degrees)
    of_first = {name: getattr(seen.capsules, name).at[0].set(getattr(turned, name)[0]) for name in ("pose", "votes")}
    start = seen.capsules._replace(**of_first, log_presence=jnp.log(jnp.asarray([0.9, 0.9, 0.1])))
    start = seen._replace(capsules=start)
    found = jax.device_get(refine(offsets, points, presence, start, 8, [capsule_fits.turn(start.capsules, 45.0)]))
    np.testing.assert_array_equal(found.winner, [1] * 4 + [0] * 3)
    np.testing.assert_allclose(np.rad2deg(np.arctan2(*found.capsules.pose[:2, ::-1, 0].T)), 0, atol=1)
    if degrees == 50:
        assert len(set(refine(offsets, points, presence, start, 8).winner[:4].tolist())) > 1


@pytest.mark.parametrize(("there", "first"), [(1, 1), (2, 0)])
def test_of_capsules_that_fit_as_well_the_likeliest_is_there(there, first):
    """Three points are of a triangle or a square's corners; of two squares, by convention, the first's."""
    points, offsets = 0.3 * TRIANGLE[:3], np.stack([SQUARE, TRIANGLE, SQUARE])
    seen = rough(points, offsets, [(0.28, (0.02, 0.0))] * 3)
    likely = jnp.log(jnp.full(3, 0.3).at[there].set(0.6))
    better = refine(
        offsets, points, jnp.ones(3), seen._replace(capsules=seen.capsules._replace(log_presence=likely)), 20
    )
    assert set(better.winner.tolist()) == {first}


def test_a_capsule_that_only_mends_one_point_is_left_out():
    """It is likelier with it, but not by as much as a pose costs."""
    points, presence = 0.3 * SQUARE + 0.03 * np.eye(4, 1), np.ones(4)
    offsets = np.stack([SQUARE, SQUARE, SQUARE])
    seen = rough(points, offsets, [(0.3, (0.0, 0.0)), (0.01, (-0.27, -0.27)), (0.1, (5.0, 5.0))], scale=0.02)
    assert int(seen.winner[0]) == 1 and set(seen.winner[1:].tolist()) == {0}
    better = refine(offsets, points, presence, seen, 20)
    assert len(set(better.winner.tolist())) == 1
    both = ccae.Seen(*seen[:2], jnp.asarray([1, 0, 0, 0]))
    fit = float(np.sum(both.explained.log_likelihood))
    assert information_criterion(presence, both) == pytest.approx(2 * 2 * np.log(8) - fit, rel=1e-5)
    nothing = information_criterion(jnp.zeros(4), both)
    assert float(nothing) == 0.0
