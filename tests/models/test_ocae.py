"""OCAE alone: the encoders of parts, and what it makes of them."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from objcentric.errors import UserError
from objcentric.models import capsules, ocae
from objcentric.nn import poses

OBJECTS = ocae.Config(num_capsules=4, blocks=1, heads=1, units=4, features=6, hidden=5)


@functools.cache
def alone(**fields):
    model = ocae.make(dataclasses.replace(OBJECTS, **fields), 5, 7)
    return model._replace(infer=jax.jit(model.infer)), jax.jit(model.init)(jax.random.key(0))


@pytest.mark.parametrize(
    ("encoder", "same"),
    [
        ({}, True),
        ({"object_encoder": "mlp"}, False),
        ({"inducing": 2}, True),
        ({"pooling": "pma"}, True),
        ({"layer_norm": False}, True),
    ],
)
def test_the_order_of_parts(encoder, same):
    model, params = alone(**encoder)
    others = jax.tree.structure(alone()[1]["inference"]), jax.tree.structure(params["inference"])
    assert (others[0] == others[1]) == (not encoder)  # each is an encoder of its own
    parts, presence = jax.random.normal(jax.random.key(1), (5, 7)), jnp.asarray([0.9, 0.1, 0.5, 1.0, 0.3])
    order = jnp.asarray([2, 0, 4, 1, 3])
    seen, shuffled = (model.infer(params, None, *each) for each in ((parts, presence), (parts[order], presence[order])))
    assert np.allclose(seen.pose, shuffled.pose, atol=1e-5) == same


@pytest.mark.parametrize("encoder", ["set_transformer", "mlp"])
def test_absent_parts_are_not_seen(encoder):
    model, params = alone(object_encoder=encoder)
    parts, presence = jax.random.normal(jax.random.key(1), (5, 7)), jnp.asarray([1.0, 0, 1, 1, 1])
    seen, other = (model.infer(params, None, each, presence) for each in (parts, parts.at[1].set(9.0)))
    np.testing.assert_allclose(seen.votes, other.votes, atol=1e-5)


@pytest.mark.parametrize("kind", sorted(poses.KINDS))
def test_votes_are_relations_seen_by_each_object(kind):
    model, params = alone(pose=kind, vote_std=0.01)
    parts, presence = jax.random.normal(jax.random.key(1), (5, 7)), jnp.ones(5)
    seen, relations = model.infer(params, None, parts, presence), model.relations(params)
    assert relations.shape == (4, 5, 2, 3) and seen.votes.shape == (4, 5, 2, 3)
    np.testing.assert_allclose(seen.votes, poses.compose(seen.pose[:, None], relations), rtol=1e-4, atol=1e-5)
    pose = seen.votes[2]  # parts that are where the third object says
    explained = model.explain(seen, pose)
    again = capsules.explain_poses(pose, seen, mixture=OBJECTS.mixture, dummy=OBJECTS.dummy)
    jax.tree.map(np.testing.assert_array_equal, explained, again)
    np.testing.assert_array_equal(capsules.winner(explained), 2)


def test_noise_moves_presences_alone():
    model, params = alone()
    parts, presence = jax.random.normal(jax.random.key(1), (5, 7)), jnp.ones(5)
    quiet, noisy = (model.infer(params, key, parts, presence) for key in (None, jax.random.key(2)))
    assert (np.abs(quiet.log_presence - noisy.log_presence) > 1e-4).all()
    np.testing.assert_array_equal(quiet.votes, noisy.votes)


def looked(key=None, presence=None, **fields):
    """What an OCAE makes of five parts, by params that are none of them 0; its relations; and its explanation."""
    model, params = alone(**fields)
    params = jax.tree.map(
        lambda leaf: leaf + 0.1 * jnp.sin(jnp.arange(leaf.size, dtype=leaf.dtype)).reshape(leaf.shape), params
    )
    parts = jax.random.normal(jax.random.key(1), (5, 7))
    seen = model.infer(params, key, parts, jnp.ones(5) if presence is None else presence)
    pose = seen.votes[1] + 0.3
    return jax.device_get((seen, model.relations(params), model.explain(seen, pose), pose))


def is_similarity(pose):
    return np.allclose(pose[..., 0, 0], pose[..., 1, 1], atol=1e-6) and np.allclose(
        pose[..., 0, 1], -pose[..., 1, 0], atol=1e-6
    )


@pytest.mark.parametrize("similarity", [False, True])
def test_all_poses_may_be_similarities(similarity):
    """Row c of table 6.3.2: OVs, OPs and so votes."""
    seen, relations, *_ = looked(similarity=similarity)
    for pose in (seen.pose, relations, seen.votes):
        assert is_similarity(pose) == similarity


def test_objects_may_not_be_deformed():
    """Row c of table 6.3.2: votes then are what OVs make of what was learnt."""
    for deformable in (True, False):
        seen, relations, *_ = looked(deformable=deformable)
        votes = jax.jit(poses.compose)(seen.pose[:, None], relations)
        assert (seen.deformation > 1e-3) == (not np.allclose(votes, seen.votes, atol=1e-4)) == deformable


@pytest.mark.parametrize("mixture", capsules.MIXTURES)
@pytest.mark.parametrize("dummy", [0.0, 0.3])
def test_the_mixture_is_the_one_that_is_wanted(mixture, dummy):
    seen, _, explained, pose = looked(mixture=mixture, dummy=dummy)
    again = capsules.explain_poses(jnp.asarray(pose), jax.tree.map(jnp.asarray, seen), mixture=mixture, dummy=dummy)
    np.testing.assert_allclose(explained.log_likelihood, again.log_likelihood, rtol=1e-4)
    others = {(mixture, dummy) for mixture in capsules.MIXTURES for dummy in (0.0, 0.3)} - {(mixture, dummy)}
    for name, value in others:
        assert np.any(np.abs(looked(mixture=name, dummy=value)[2].log_likelihood - explained.log_likelihood) > 1e-3)


@pytest.mark.parametrize(
    "fields", [{"hidden": 6}, {"initial_presence": 0.1}, {"vote_std": 0.2}, {"mask": "release"}, {"pose": "matrix"}]
)
def test_each_field_changes_what_is_seen(fields):
    presence = jnp.asarray([0.9, 0.1, 0.5, 1.0, 0.3])
    plain, other = (looked(presence=presence, **each)[0] for each in ({}, fields))
    changed = [name for name, a, b in zip(plain._fields, plain, other, strict=True) if not np.array_equal(a, b)]
    alone = {"initial_presence": ["log_presence"], "vote_std": ["scale"], "pose": ["pose", "votes"]}
    (field,) = fields
    assert changed == alone.get(field, changed) and changed


def test_without_noise_logits_stay():
    still, moved = (looked(jax.random.key(2), noise=noise)[0].log_presence for noise in (0.0, 2.0))
    np.testing.assert_array_equal(still, looked(noise=2.0)[0].log_presence)
    assert np.all(still != moved)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"object_encoder": "cnn"}, "model.object_encoder='cnn' is unknown"),
        ({"mixture": "mean"}, "model.mixture='mean' is unknown"),
        ({"num_capsules": 0}, "model.num_capsules=0 must be positive"),
        ({"noise": -1.0}, "model.noise=-1.0: use 0 or more"),
        ({"pose": "polar"}, "model.pose='polar' is unknown"),
        ({"vote_std": -1.0}, "model.vote_std=-1.0: use 0, to learn it, or more"),
        ({"initial_presence": 1.0}, "model.initial_presence=1.0: use more than 0, and less than 1"),
    ],
)
def test_what_makes_no_sense_is_refused(fields, said):
    with pytest.raises(UserError, match=said):
        dataclasses.replace(OBJECTS, **fields)
