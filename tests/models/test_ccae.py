import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from objcentric.errors import UserError
from objcentric.models import capsules, ccae
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
    (noise,) = ccae.presence_noise(jax.random.key(0), 2.0, (4000,))
    assert (float(noise.min()), float(noise.max())) == pytest.approx((-2, 2), abs=0.01)
    assert float(noise.std()) == pytest.approx(4 / 12**0.5, abs=0.03)


def test_the_winner_has_the_best_component():
    seen = infer()
    np.testing.assert_array_equal(seen.winner, np.argmax(seen.explained.log_joint.max(-1), -1))
    np.testing.assert_array_equal(seen.winner, capsules.winner(seen.explained))


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


def test_refining_finds_shapes_from_rough_poses():
    """A square and a triangle, from poses that are off and a third capsule where nothing is."""
    config = dataclasses.replace(SMALL, pose="matrix", similarity=True, scale="scene", deformable=False, noise=0.0)
    square, triangle = ([[-1, -1], [-1, 1], [1, 1], [1, -1]], [[-1, -1], [-1, 1], [1, -1], [-1, -1]])
    offsets = jnp.asarray([square, triangle, square], jnp.float32)
    true = jnp.concatenate(
        [0.3 * offsets[0] + jnp.array([[-0.4, 0.1]]), 0.2 * offsets[1, :3] + jnp.array([[0.3, 0.0]])]
    )
    points, presence = jnp.concatenate([true, jnp.zeros((1, 2))]), jnp.asarray([1.0] * 7 + [0.0])
    rough = [(0.25, (-0.3, 0.2)), (0.28, (0.2, -0.15)), (0.3, (0.1, 0.2))]
    pose = jnp.stack([jnp.asarray([[s, 0.1, x], [-0.1, s, y]], jnp.float32) for s, (x, y) in rough])
    votes = jax.vmap(poses.move)(pose, offsets)
    start = capsules.Capsules(jnp.zeros(3), jnp.zeros((3, 4)), pose, votes, jnp.full((3, 4), 0.1), jnp.zeros(()))
    explained = capsules.explain_points(points, start, mixture="normalised", dummy=0.0)
    seen = ccae.Seen(start, explained, capsules.winner(explained))
    refine = jax.jit(ccae.make(config).refine, static_argnums=3)
    better = refine(points, presence, seen, 20)
    first, second = np.unique(better.winner[:4]), np.unique(better.winner[4:7])
    assert len(first) == len(second) == 1 and first != second
    assert (better.explained.log_likelihood[:7] > explained.log_likelihood[:7]).all()
    for point in true:
        assert np.min(np.linalg.norm(better.capsules.votes - point[None, None], axis=-1)) < 0.02
    moved = refine(points.at[7].set(5.0), presence, seen, 20)  # what is absent does not matter
    np.testing.assert_allclose(moved.capsules.votes, better.capsules.votes, atol=1e-6)
    same = refine(points, presence, seen, 0)
    assert float(jnp.sum(same.explained.log_likelihood[:7])) >= float(jnp.sum(explained.log_likelihood[:7])) - 1e-4
