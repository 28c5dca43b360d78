"""The object decoder and its mixtures against sums written out."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from objcentric.models import capsules
from objcentric.models.capsules import Capsules, ObjectDecoder
from objcentric.nn import poses

K, N, D = 3, 4, 5
explain_points = jax.jit(capsules.explain_points, static_argnames=("mixture", "dummy"))
explain_poses = jax.jit(capsules.explain_poses, static_argnames=("mixture", "dummy"))
move = jax.jit(poses.move)
apply = jax.jit(ObjectDecoder.apply, static_argnums=0)


@functools.cache
def drawn(parts, num_votes, seed):
    """Parameters, which depend on nothing else of the decoder, and features."""
    decoder = ObjectDecoder(num_votes, parts, hidden=6)
    features = jax.random.normal(jax.random.key(seed + 1), (K, D))
    params = jax.jit(decoder.init)(jax.random.key(seed), features)
    if parts != "plain_points":  # else nothing is deformed at first
        shape = params["params"]["deform"].shape
        params["params"]["deform"] = jax.random.normal(jax.random.key(seed + 2), shape) / 10
    return params, features


def decoded(parts="poses", num_votes=N, seed=0, noise=(None, None), **fields):
    params, features = drawn(parts, num_votes, seed)
    seen = apply(ObjectDecoder(num_votes, parts, hidden=6, **fields), params, features, *noise)
    return jax.device_get((params["params"], features, seen))


def test_capsules_are_perceptrons_of_their_own():
    """One by one, as the batched product has them all at once."""
    params, features, seen = decoded()
    to_pose = jax.jit(poses.pose)
    for k in range(K):
        h = np.maximum(features[k] @ params["hidden"][k] + params["hidden_bias"][k], 0)
        plain = np.asarray(h @ params["output"][k] + params["output_bias"][k])
        dynamic = np.asarray(h @ params["deform"][k]).reshape(N, 6)
        ov = np.asarray(to_pose(plain[:6]))
        np.testing.assert_allclose(seen.pose[k], ov, rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(seen.log_presence[k], -np.log1p(np.exp(-plain[6])), rtol=1e-4)
        np.testing.assert_allclose(seen.log_vote_presence[k], -np.log1p(np.exp(-plain[7 : 7 + N])), rtol=1e-4)
        np.testing.assert_allclose(seen.scale[k], np.log1p(np.exp(plain[7 + N :] + 0.5)) + 0.01, rtol=1e-4)
        for n in range(N):
            op = np.asarray(to_pose(params["static"][k, n] + dynamic[n]))
            bottom = np.array([[0, 0, 1]])
            vote = np.concatenate([ov, bottom]) @ np.concatenate([op, bottom])
            np.testing.assert_allclose(seen.votes[k, n], vote[:2], rtol=1e-3, atol=1e-5)


def test_points_are_moved_by_the_pose_and_those_of_the_baseline_are_not():
    params, features, seen = decoded("points")
    plain = apply(ObjectDecoder(N, "plain_points", hidden=6), {"params": params}, features)
    np.testing.assert_allclose(seen.votes, move(seen.pose, plain.votes), rtol=1e-4, atol=1e-6)
    assert seen.deformation > 0 and plain.deformation == 0
    assert np.ptp(decoded("plain_points")[2].votes - decoded("plain_points")[0]["static"]) > 0.01


def test_poses_may_be_matrices():
    params, features, seen = decoded("points", pose="matrix", similarity=True, deformable=False)
    a, c = seen.pose[:, :, 0].T
    np.testing.assert_allclose(seen.pose[:, :, 1], np.stack([-c, a], -1), rtol=1e-6)
    assert np.abs(seen.pose - decoded("points", similarity=True, deformable=False)[2].pose).max() > 0.01
    np.testing.assert_allclose(seen.votes, move(seen.pose, params["static"]), rtol=1e-5)


def test_matrices_of_parts_in_objects():
    params, features, seen = decoded(pose="matrix", deformable=False)
    own = jnp.reshape(params["static"], (K, N, 2, 3))
    np.testing.assert_allclose(seen.votes, poses.compose(jnp.asarray(seen.pose[:, None]), own), rtol=1e-4, atol=1e-5)


def test_objects_begin_undeformed():
    decoder = ObjectDecoder(N, "poses", hidden=6)
    features = jax.random.normal(jax.random.key(1), (K, D))
    params = jax.jit(decoder.init)(jax.random.key(0), features)

    def loss(params):
        seen = decoder.apply(params, features)
        return jnp.sum(jnp.square(seen.votes - 1)), seen.deformation

    (_, deformation), grads = jax.jit(jax.value_and_grad(loss, has_aux=True))(params)
    assert deformation == 0 and np.any(grads["params"]["deform"])


def test_a_standard_deviation_that_is_given_is_not_learnt():
    _, _, seen = decoded(vote_std=0.06)
    assert (seen.scale == np.float32(0.06)).all()


def test_presences_begin_where_they_are_wanted():
    half, tenth = decoded()[2].log_presence, decoded(initial_presence=0.1)[2].log_presence
    logit = [each - np.log(-np.expm1(each)) for each in (half, tenth)]
    np.testing.assert_allclose(logit[1] - logit[0], np.log(1 / 9), rtol=1e-4)


def test_votes_may_always_be_there():
    params, features, seen = decoded(vote_presence=False)
    assert (seen.log_vote_presence == 0).all() and (decoded()[2].log_vote_presence < 0).all()
    decoder = ObjectDecoder(N, "poses", hidden=6, vote_presence=False)
    slope_of = jax.grad(lambda p: jnp.sum(decoder.apply({"params": p}, features).log_vote_presence))
    slopes = jax.jit(slope_of)(params)
    assert all((leaf == 0).all() for leaf in jax.tree.leaves(slopes))


def test_votes_of_a_scene_may_share_a_standard_deviation():
    shared, each = decoded(scale="scene")[2].scale, decoded()[2].scale
    assert shared.shape == each.shape and np.ptp(shared) == 0 < np.ptp(each)
    inverse = np.log(np.expm1(each - 0.01))
    np.testing.assert_allclose(shared, np.log1p(np.exp(inverse.mean())) + 0.01, rtol=1e-4)


def test_without_deformation_offsets_do_not_depend_on_the_input():
    params, _, seen = decoded("points", deformable=False)
    np.testing.assert_allclose(seen.votes, move(seen.pose, params["static"]), rtol=1e-5)
    assert seen.deformation == 0


def test_deformation_is_half_the_squared_norm_of_what_depends_on_the_input():
    params, _, seen = decoded("points")
    back = move(poses.invert(seen.pose), seen.votes) - params["static"]
    np.testing.assert_allclose(seen.deformation, np.sum(np.square(back)) / 2, rtol=1e-3)


def test_noise_is_added_to_logits():
    _, _, quiet = decoded()
    _, _, noisy = decoded(noise=(jnp.full(K, 1.5), jnp.full((K, N), -2.0)))

    def logit(log_p):
        return log_p - np.log(-np.expm1(log_p))

    np.testing.assert_allclose(logit(noisy.log_presence) - logit(quiet.log_presence), 1.5, rtol=1e-3)
    np.testing.assert_allclose(logit(noisy.log_vote_presence) - logit(quiet.log_vote_presence), -2, rtol=1e-3)


def as_arrays(seen):
    return jax.tree.map(jnp.asarray, seen)


def density(x, loc, scale):
    return np.prod(np.exp(-((x - loc) ** 2) / 2 / scale**2) / np.sqrt(2 * np.pi) / scale)


@pytest.mark.parametrize("mixture", capsules.MIXTURES)
@pytest.mark.parametrize("dummy", [0.0, 0.01])
def test_the_mixture_of_points_is_the_sum_of_equation_6_5(mixture, dummy):
    _, _, seen = decoded("points")
    points = np.asarray(jax.random.normal(jax.random.key(5), (6, 2)))
    explained = jax.device_get(explain_points(points, as_arrays(seen), mixture=mixture, dummy=dummy))
    a, votes = np.exp(seen.log_presence), np.exp(seen.log_vote_presence)
    total = sum(a[i] * votes[i, j] for i in range(K) for j in range(N)) if mixture == "normalised" else 1
    for m in range(6):
        joint = np.array(
            [
                [a[k] * votes[k, n] * density(points[m], seen.votes[k, n], seen.scale[k, n]) for n in range(N)]
                for k in range(K)
            ]
        )
        likelihood = joint.sum() / total + dummy
        np.testing.assert_allclose(explained.log_likelihood[m], np.log(likelihood), rtol=1e-4)
        np.testing.assert_allclose(explained.responsibility[m], joint / total / likelihood, rtol=1e-3)
        np.testing.assert_allclose(explained.log_joint[m], np.log(joint), rtol=1e-4)
        assert capsules.winner(explained)[m] == np.argmax(joint.max(1))


@pytest.mark.parametrize("dummy", [0.0, 0.01])
@pytest.mark.parametrize("mixture", capsules.MIXTURES)
def test_a_pose_has_one_vote_of_each_capsule_and_the_denominator_all(mixture, dummy):
    _, _, seen = decoded("poses")
    pose = jax.device_get(jax.jit(poses.pose)(jax.random.normal(jax.random.key(5), (N, 6)) / 3))
    explained = jax.device_get(explain_poses(pose, as_arrays(seen), mixture=mixture, dummy=dummy))
    a, votes = np.exp(seen.log_presence), np.exp(seen.log_vote_presence)
    total = (a[:, None] * votes).sum() if mixture == "normalised" else 1
    for m in range(N):
        joint = [
            a[k] * votes[k, m] * density(np.ravel(pose[m]), np.ravel(seen.votes[k, m]), seen.scale[k, m])
            for k in range(K)
        ]
        likelihood = sum(joint) / total + dummy
        np.testing.assert_allclose(explained.log_likelihood[m], np.log(likelihood), rtol=1e-4)
        np.testing.assert_allclose(explained.responsibility[m, :, 0], np.divide(joint, total * likelihood), rtol=1e-3)


def test_the_dummy_explains_what_is_far_from_all_votes():
    _, _, seen = decoded("points")
    far = jnp.full((1, 2), 1e4)
    explained = explain_points(far, as_arrays(seen), mixture="unnormalised", dummy=0.01)
    np.testing.assert_allclose(explained.log_likelihood, np.log(0.01), rtol=1e-6)
    assert float(explained.responsibility.max()) == 0


def test_prior_presence_is_that_of_the_likeliest_vote():
    _, _, seen = decoded()
    expected = np.exp(seen.log_presence) * np.exp(seen.log_vote_presence).max(1)
    np.testing.assert_allclose(np.exp(capsules.log_prior_presence(as_arrays(seen))), expected, rtol=1e-5)


def test_gradients_are_finite_at_certain_presences_and_far_votes():
    seen = Capsules(
        *(jnp.full(K, -1e3), jnp.full((K, N), -1e3), jnp.zeros((K, 2, 3))),
        jnp.full((K, N, 2), 1e3),
        *(jnp.full((K, N), 0.01), jnp.zeros(())),
    )

    def likelihood(seen):
        return jnp.sum(capsules.explain_points(jnp.zeros((2, 2)), seen, mixture="normalised", dummy=0.01)[0])

    value, grads = jax.jit(jax.value_and_grad(likelihood))(seen)
    assert np.isfinite(value) and all(np.isfinite(g).all() for g in jax.tree.leaves(grads))
