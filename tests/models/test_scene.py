"""From z^where to pixels: known boxes, a second implementation, the expected object, and the likelihoods."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from objcentric import distributions
from objcentric.errors import UserError
from objcentric.models.scene import Scene, statistics
from tests.models import air_by_hand as by_hand

SQUARE = Scene((9, 11, 1), (4, 5), (4.0,), 0.3, "gaussian", 0.2)
SCENES = {
    "one side": SQUARE,
    "beyond the canvas": dataclasses.replace(SQUARE, reach=1.5),
    "two sides": dataclasses.replace(SQUARE, canvas=(12, 9, 3), object_size=(3.0, 5.0)),
    "two sides, wide": dataclasses.replace(SQUARE, canvas=(7, 13, 1), object_size=(4.0, 2.0), likelihood="bernoulli"),
}


def some(scene, *shape):
    """z^where, some partly outside."""
    return jnp.float32(np.random.default_rng(0).normal(0, 1, (*shape, scene.where_dim)))


@functools.cache
def compiled(name):
    scene = SCENES[name]
    return {
        "read": jax.jit(jax.vmap(scene.read, (None, 0))),
        "place_each": jax.jit(
            lambda glimpses, where: (scene.place_each(glimpses, where), scene.place(glimpses, where))
        ),
        "boxes": jax.jit(lambda glimpses, where: (scene.boxes(where), scene.extents(glimpses, where))),
    }


# ------------------------------------------------------------------------------------------------------------ geometry


@pytest.mark.parametrize("canvas, sides", [((50, 50, 1), (18.0,)), ((64, 48, 3), (30.0,)), ((28, 90, 1), (8.0,))])
def test_glimpses_fit_objects_of_any_size(canvas, sides):
    """The mode of z^where's prior is a square, in pixels, of 1.25 objects in the middle."""
    scene = Scene(canvas, (4, 4), sides, 0.3, "gaussian", 0.3)
    assert scene.where_dim == 3
    box = scene.boxes(scene.where_loc[None])[0]
    np.testing.assert_allclose(box[2:] - box[:2], 1.25 * sides[0], rtol=1e-4)
    np.testing.assert_allclose((box[2:] + box[:2]) / 2, np.array(canvas[:2]) / 2, rtol=1e-5)


@pytest.mark.parametrize("canvas", [(50, 50, 1), (64, 48, 3), (28, 90, 1)])
def test_glimpses_fit_objects_of_two_sides(canvas):
    scene = Scene(canvas, (4, 4), (20.0, 8.0), 0.3, "gaussian", 0.3)
    assert scene.where_dim == 4
    box = scene.boxes(scene.where_loc[None])[0]
    np.testing.assert_allclose(box[2:] - box[:2], (25.0, 10.0), rtol=1e-4)
    np.testing.assert_allclose((box[2:] + box[:2]) / 2, np.array(canvas[:2]) / 2, rtol=1e-5)


@pytest.mark.parametrize("name", SCENES)
def test_extreme_glimpses(name):
    """From a quarter of the expected side to the canvas' shorter side; centres go as far as they may."""
    scene = SCENES[name]
    n = len(scene.object_size)
    small, large = (jnp.array([scale] * n + [shift, -shift]) for scale, shift in ((-50.0, 50.0), (50.0, 0.0)))
    boxes = np.asarray(scene.boxes(jnp.stack([small, large])))
    sides, centres = boxes[:, 2:] - boxes[:, :2], (boxes[:, 2:] + boxes[:, :2]) / 2
    np.testing.assert_allclose(sides[0], np.broadcast_to(1.25 / 4 * np.array(scene.object_size), 2), rtol=1e-4)
    np.testing.assert_allclose(sides[1], min(scene.canvas[:2]), rtol=1e-5)
    farthest = np.array([1 + scene.reach, 1 - scene.reach]) / 2 * scene.canvas[:2]
    np.testing.assert_allclose(centres[0], farthest, atol=1e-4)


def test_height_and_width_are_independent():
    scene = SCENES["two sides"]
    boxes = np.asarray(scene.boxes(jnp.concatenate([0.5 * jnp.eye(4), jnp.zeros((1, 4))])))
    *sides, (height, width) = boxes[:, 2:] - boxes[:, :2]
    assert sides[0][0] > height and sides[0][1] == pytest.approx(width)
    assert sides[1][1] > width and sides[1][0] == pytest.approx(height)
    for shifted in sides[2:]:
        np.testing.assert_allclose(shifted, (height, width), rtol=1e-5)


# -------------------------------------------------------------------------------------------------------------- images


@pytest.mark.parametrize("name", SCENES)
def test_glimpses_by_hand(name):
    """What is read and placed, and the boxes, equal those of loops over pixels."""
    scene, functions = SCENES[name], compiled(name)
    where, rng = some(scene, 4), np.random.default_rng(1)
    x = jnp.float32(rng.uniform(size=scene.canvas))
    glimpses = jnp.float32(rng.uniform(size=(4, *scene.glimpse_shape)))
    assert scene.glimpse_shape == (4, 5, scene.canvas[2])

    read = functions["read"](x, where)
    placed, mean = functions["place_each"](glimpses, where)
    boxes, extents = functions["boxes"](glimpses.at[0].set(0.0), where)
    for i, w in enumerate(np.float64(where)):
        np.testing.assert_allclose(read[i], by_hand.read(scene, np.float64(x), w), atol=1e-5)
        np.testing.assert_allclose(placed[i], by_hand.place(scene, np.float64(glimpses[i]), w), atol=1e-5)
        np.testing.assert_allclose(boxes[i], by_hand.box_of(scene, w), rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(placed.sum(0), mean, atol=1e-5)
    np.testing.assert_allclose(extents[0], boxes[0], atol=1e-4)  # dark everywhere


def test_extents_are_of_what_is_drawn():
    """A bright corner of a glimpse, its first two rows and last two of five columns."""
    scene = SCENES["two sides"]
    where = some(scene, 2)
    glimpses = jnp.zeros((2, *scene.glimpse_shape)).at[1, :2, 3:].set(1.0)
    boxes, extents = (np.asarray(each) for each in compiled("two sides")["boxes"](glimpses, where))
    np.testing.assert_allclose(extents[0], boxes[0], atol=1e-4)
    y0, x0, y1, x1 = boxes[1]
    np.testing.assert_allclose(extents[1], (y0, x0 + 0.6 * (x1 - x0), y0 + 0.5 * (y1 - y0), x1), atol=1e-4)


# ------------------------------------------------------------------------------------------------------- distributions


@pytest.mark.parametrize("name", SCENES)
def test_where_prior(name):
    scene, where = SCENES[name], some(SCENES[name])
    exact = stats.norm(by_hand.where_loc(scene), [0.3] * len(scene.object_size) + [1.0, 1.0]).logpdf(where).sum()
    np.testing.assert_allclose(distributions.log_prob(scene.where_prior, where), exact, rtol=1e-5)


def test_statistics_start_at_the_initial_scale():
    loc, scale = statistics(jnp.zeros(6), 0.3)
    np.testing.assert_array_equal(loc, jnp.zeros(3))
    np.testing.assert_allclose(scale, 0.301, rtol=1e-5)
    loc, scale = statistics(jnp.array([[1.0, 2.0, 3.0, -99.0]]), 0.3)
    np.testing.assert_array_equal(loc, [[1.0, 2.0]])
    np.testing.assert_allclose(scale, [[np.log1p(np.exp(3) * np.expm1(0.3)) + 1e-3, 1e-3]], rtol=1e-5)


def test_pixels():
    x, mean = jnp.float32([0.0, 1.0, 1.0, 0.5]), jnp.float32([0.3, 0.6, 2.0, 0.0])
    gaussian = distributions.log_prob(SQUARE.pixels(mean), x)
    np.testing.assert_allclose(gaussian, stats.norm(mean, 0.2).logpdf(x).sum(), rtol=1e-5)
    bernoulli = distributions.log_prob(SCENES["two sides, wide"].pixels(mean), x)
    np.testing.assert_allclose(bernoulli, by_hand.bernoulli(np.float64(mean), x).sum(), rtol=1e-5)


# ------------------------------------------------------------------------------------------------------------ mistakes


@pytest.mark.parametrize(
    "fields, message",
    [
        ({"likelihood": "poisson"}, "model.likelihood='poisson' is unknown; choose one of gaussian, bernoulli"),
        ({"output_std": 0.0}, "model.output_std=0.0 must be positive"),
        ({"scale_std": -1.0}, "model.scale_std=-1.0 must be positive"),
        ({"object_size": ()}, "model.object_size=() must be a side, or height and width"),
        ({"object_size": (1.0, 2.0, 3.0)}, "model.object_size=(1.0, 2.0, 3.0) must be a side, or height and width"),
        ({"object_size": (0.0,)}, "model.object_size=0.0 must be positive"),
        ({"object_size": (2.0, 0.0)}, "model.object_size=(2.0, 0.0) must be positive"),
        ({"object_size": (8.0,)}, "model.object_size=8.0 leaves no room on a canvas of 9x11; it must be below 7"),
        (
            {"object_size": (2.0, 8.0)},
            "model.object_size=(2.0, 8.0) leaves no room on a canvas of 9x11; it must be below 7",
        ),
        ({"glimpse_size": (4,)}, "model.glimpse_size=(4,) must be two positive numbers, height and width"),
        ({"glimpse_size": (4, 0)}, "model.glimpse_size=(4, 0) must be two positive numbers, height and width"),
    ],
)
def test_impossible_scenes(fields, message):
    with pytest.raises(UserError) as error:
        dataclasses.replace(SQUARE, **fields)
    assert str(error.value) == message
