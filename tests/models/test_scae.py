"""OCAE and SCAE: what flows where, and what does not matter."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from objcentric.models import capsules, ocae, pcae, scae

PARTS = pcae.Config(
    canvas=(10, 10),
    num_parts=3,
    template_size=(4, 4),
    special_features=2,
    encoder_features=(4,),
    encoder_strides=(2,),
)
OBJECTS = ocae.Config(num_capsules=4, blocks=1, heads=1, units=4, features=6, hidden=5)
X = jax.random.uniform(jax.random.key(7), (10, 10, 1))


@functools.cache
def made(objects=OBJECTS):
    model = scae.make(PARTS, objects)
    return model, jax.jit(model.infer), jax.jit(model.init)(jax.random.key(0))


@functools.cache
def slope(name):
    """Value and gradient of a likelihood."""
    model, _, params = made()
    run = jax.jit(jax.value_and_grad(lambda p: getattr(model.infer(p, None, X, X), name)))
    return run, *run(params)


def infer(key=None, objects=OBJECTS):
    _, run, params = made(objects)
    return run(params, key, X, X)


def test_noise_is_off_without_a_key():
    quiet, again, noisy = infer(), infer(), infer(jax.random.key(0))
    jax.tree.map(np.testing.assert_array_equal, quiet, again)
    for path in (("parts", "log_presence"), ("capsules", "log_presence"), ("capsules", "log_vote_presence")):
        one, other = (functools.reduce(getattr, path, seen) for seen in (quiet, noisy))
        assert (np.abs(one - other) > 1e-4).any(), path


@pytest.mark.parametrize("weight", ["presence", "ink"])
def test_what_objects_are_told_of_parts(monkeypatch, weight):
    """Section 6.2.3 and the release: poses, 1 - presence, special features, templates; and presences, as a mask."""
    told, real = [], ocae.make

    def spying(*args):
        model = real(*args)

        def infer(params, key, parts, presence):
            told.append((parts, presence))
            return model.infer(params, key, parts, presence)

        return model._replace(infer=infer)

    monkeypatch.setattr(ocae, "make", spying)
    model, params = scae.make(PARTS, dataclasses.replace(OBJECTS, part_weight=weight)), made()[2]

    def look():
        seen = model.infer(params, None, X, X)
        return seen, *told[-1]

    seen, described, mask = jax.device_get(jax.jit(look)())
    pose, template = seen.parts.pose.reshape(3, 6), seen.parts.template.reshape(3, -1)
    expected = np.concatenate([pose, 1 - seen.part_presence[:, None], seen.parts.features, template], -1)
    np.testing.assert_allclose(described, expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(mask, seen.part_presence)
    assert (weight == "ink") == bool(np.any(np.abs(mask - np.exp(seen.parts.log_presence)) > 1e-4))


@pytest.mark.parametrize(("of_parts", "of_objects"), [(2.0, 0.0), (0.0, 2.0), (0.0, 0.0)])
def test_parts_and_objects_have_noise_of_their_own(of_parts, of_objects):
    """Rows b of table 6.3.2: each moves no logits but its own."""
    parts, objects = dataclasses.replace(PARTS, part_noise=of_parts), dataclasses.replace(OBJECTS, noise=of_objects)
    model, params = scae.make(parts, objects), made()[2]
    run = jax.jit(model.infer)
    quiet, noisy = (run(params, key, X, X) for key in (None, jax.random.key(3)))
    assert np.any(quiet.parts.log_presence != noisy.parts.log_presence) == bool(of_parts)
    if not of_parts:  # else objects see other parts
        assert np.any(quiet.capsules.log_presence != noisy.capsules.log_presence) == bool(of_objects)
        np.testing.assert_array_equal(quiet.capsules.votes, noisy.capsules.votes)


def test_only_special_features_learn_from_objects():
    """Section 6.2.3: neither poses, presences nor templates please the objects."""
    _, _, grads = slope("part_log_likelihood")
    generative = grads["generative"]["parts"]
    assert all(not np.any(leaf) for leaf in jax.tree.leaves(generative))
    output = grads["inference"]["parts"]["params"]["output"]["bias"].reshape(3, 9)
    assert np.any(output[:, 7:]) and not np.any(output[:, :7])
    assert np.any(grads["generative"]["objects"]["params"]["static"])


def test_parts_do_not_learn_of_objects_from_the_image():
    _, _, grads = slope("log_likelihood")
    objects = [grads[part]["objects"] for part in ("generative", "inference")]
    assert all(not np.any(leaf) for leaf in jax.tree.leaves(objects))
    colours = grads["generative"]["parts"]["colours"]["params"]
    assert all(np.any(layer["bias"]) for layer in colours.values())  # features are learnt from the image by colours


def test_the_likelihood_of_parts_is_weighted_by_their_presence():
    seen = infer()
    presence = np.exp(seen.parts.log_presence)
    np.testing.assert_allclose(seen.part_log_likelihood, np.sum(presence * seen.explained.log_likelihood), rtol=1e-5)


def test_parts_may_weigh_as_much_as_they_paint():
    seen = infer(objects=dataclasses.replace(OBJECTS, part_weight="ink"))
    params = {part: made()[2][part]["parts"] for part in ("generative", "inference")}
    ink = jax.jit(pcae.make(PARTS).ink)(params, seen.parts)
    np.testing.assert_allclose(seen.part_presence, ink, rtol=1e-5)
    np.testing.assert_allclose(seen.part_log_likelihood, ink @ seen.explained.log_likelihood, rtol=1e-5)
    assert np.all(np.abs(infer().part_presence - ink) > 0.01)


def test_the_posterior_lacks_what_the_dummy_explains():
    seen = infer()
    mass = np.asarray(scae.posterior_presence(seen.explained))
    np.testing.assert_allclose(mass, np.asarray(seen.explained.responsibility)[..., 0].sum(0), rtol=1e-5)
    dummy = 0.01 / np.exp(seen.explained.log_likelihood)  # its share of each part
    np.testing.assert_allclose(mass.sum(), 3 - dummy.sum(), rtol=1e-4)
    without = infer(objects=dataclasses.replace(OBJECTS, dummy=0.0))
    np.testing.assert_allclose(without.explained.responsibility.sum((1, 2)), 1, rtol=1e-5)


RELATIVE = dataclasses.replace(OBJECTS, relative=True, pose="matrix")


def test_relative_objects_move_with_their_parts():
    """Poses of parts that are elsewhere give objects that are elsewhere, and are explained as well as before."""
    model, run, params = made(RELATIVE)
    output = params["inference"]["parts"]["params"]["output"]
    shift = jnp.asarray([0.05, -0.02])

    def seen_at(shift):
        raw = output["bias"].reshape(3, 9)
        where = jnp.arctanh(jnp.tanh(5 * raw[:, 4:6]) + shift[None]) / 5  # `poses.pose`, back
        other = jax.tree.map(lambda leaf: leaf, params)
        other["inference"]["parts"]["params"]["output"] = {
            "kernel": jnp.zeros_like(output["kernel"]),
            "bias": raw.at[:, 4:6].set(where).reshape(-1),
        }
        return run(other, None, X, X)

    still, gone = jax.device_get((seen_at(jnp.zeros(2)), seen_at(shift)))
    np.testing.assert_allclose((gone.parts.pose - still.parts.pose)[..., 2], np.tile(shift, (3, 1)), atol=1e-6)
    for name in ("pose", "votes"):
        difference = getattr(gone.capsules, name) - getattr(still.capsules, name)
        np.testing.assert_allclose(difference[..., 2], np.broadcast_to(shift, difference[..., 2].shape), atol=1e-5)
        np.testing.assert_allclose(difference[..., :2], 0, atol=1e-5)
    np.testing.assert_allclose(gone.part_log_likelihood, still.part_log_likelihood, rtol=1e-4)


def test_objects_become_exemplars():
    """Following the error alone, OPs become the poses of the images' parts, told from the parts' mean place."""
    model, run, params = made(RELATIVE)
    images = jax.random.uniform(jax.random.key(8), (4, 10, 10, 1))
    error, grads = jax.jit(jax.value_and_grad(model.exemplar_error))(params, images)
    static = params["generative"]["objects"]["params"]["static"]
    change = grads["generative"]["objects"]["params"]["static"]
    own = jnp.reshape(static - 4 * change, (4, 3, 2, 3))  # the error is a mean of four halves of squares
    for image, poses in zip(images, own, strict=True):
        parts = jax.device_get(run(params, None, image, image).parts)
        middle = np.average(parts.pose[..., 2], axis=0, weights=np.exp(parts.log_presence))
        np.testing.assert_allclose(poses[..., :2], parts.pose[..., :2], atol=1e-5)
        np.testing.assert_allclose(poses[..., 2], parts.pose[..., 2] - middle, atol=1e-5)
    np.testing.assert_allclose(error, 4**2 * np.sum(np.square(change)) / 2 / 4, rtol=1e-4)
    others = [leaf for path, leaf in jax.tree.leaves_with_path(grads) if "static" not in str(path)]
    assert all(not np.any(leaf) for leaf in others)


def test_pictures():
    model, _, params = made()
    seen = infer()
    pictures = jax.jit(model.render)(params, seen)
    render = jax.jit(pcae.make(PARTS).render)
    of_parts = {part: params[part]["parts"] for part in params}
    best = np.asarray(capsules.winner(seen.explained))
    m = np.arange(3)
    pose = seen.capsules.votes[best, m]
    log_presence = seen.capsules.log_presence[best] + seen.capsules.log_vote_presence[best, m]
    expected = pcae.mode(render(of_parts, pose, log_presence, seen.parts.template))
    np.testing.assert_allclose(pictures.objects, expected, atol=1e-5)
    pixels = render(of_parts, seen.parts.pose, seen.parts.log_presence, seen.parts.template)
    np.testing.assert_allclose(pictures.parts, pcae.mode(pixels), atol=1e-5)
    one = render(of_parts, seen.capsules.votes[2], seen.capsules.log_vote_presence[2], seen.parts.template)
    np.testing.assert_allclose(pictures.each_object[2], pcae.mode(one), atol=1e-5)
    weights = np.exp(pixels.logit) / np.exp(pixels.logit).sum(0)
    np.testing.assert_allclose(pictures.each_part, (pixels.value * weights[..., None])[:3], atol=1e-5)


@pytest.mark.parametrize("name", ["log_likelihood", "part_log_likelihood"])
def test_it_learns_one_image(name):
    """A step along the gradient raises what it is of."""
    run, before, grads = slope(name)
    after, _ = run(jax.tree.map(lambda p, g: p + 1e-4 * g, made()[2], grads))
    assert after > before
