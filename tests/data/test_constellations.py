import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from objcentric.data import constellations
from objcentric.data.constellations import Config, Scene
from objcentric.errors import UserError

NUM = 2_000
SIDES = {"square": [2.0] * 4 + [8**0.5] * 2, "triangle": [2.0, 2.0, 8**0.5]}
WORLD = Config(normalise="world")


@functools.cache
def drawn(config: Config, num: int = NUM) -> Scene:
    """Scenes as they are before they are normalised."""
    return jax.device_get(jax.jit(jax.vmap(functools.partial(constellations.draw, config)))(keys(num)))


@functools.cache
def batch(config: Config, num: int = NUM) -> Scene:
    return jax.device_get(jax.jit(functools.partial(constellations.batch, config))(keys(num)))


def keys(num):
    return jax.random.split(jax.random.key(0), num)


def members(scenes: Scene, number: int) -> np.ndarray:
    """Points [S, P, 2] of the constellation in those scenes that have it, in the order in which they lie there."""
    belongs = scenes.constellation == number
    has = belongs.any(1)
    return scenes.points[has][belongs[has]].reshape(has.sum(), -1, 2)


def distances(points):
    pairs = list(itertools.combinations(range(points.shape[1]), 2))
    return np.sort([np.linalg.norm(points[:, i] - points[:, j], axis=-1) for i, j in pairs], axis=0).T


@pytest.mark.parametrize("scenes", [drawn, batch])
@pytest.mark.parametrize("number", [0, 1, 2])
def test_constellations_are_their_patterns_up_to_scale(scenes, number):
    ours = distances(members(scenes(Config()), number))
    np.testing.assert_allclose(ours / ours[:, :1], np.tile(SIDES[Config().patterns[number]], (len(ours), 1)) / 2, 1e-3)


def test_scales_shifts_and_rotations_fill_their_ranges():
    narrow = Config(rotation=90.0, shift=3.0)
    corners = members(drawn(narrow), 1)
    scale = distances(corners)[:, 0] / 2
    shift = corners.mean(1)
    assert scale.min() == pytest.approx(1, abs=0.02) and scale.max() == pytest.approx(4, abs=0.02)
    assert scale.mean() == pytest.approx(2.5, abs=0.1)
    np.testing.assert_allclose([shift.min(0), shift.max(0)], [[-3, -3], [3, 3]], atol=0.05)
    assert abs(shift.min()) <= 3 and shift.max() <= 3
    for config in (narrow, Config()):
        corners = members(drawn(config), 1)
        # From the mean, the right angle lies at -135 degrees; it is the corner nearest to it.
        arm = corners - corners.mean(1, keepdims=True)
        right = arm[np.arange(len(arm)), np.linalg.norm(arm, axis=-1).argmin(1)]
        angle = np.rad2deg(np.arctan2(right[:, 1], right[:, 0])) + 135
        angle = (angle + 180) % 360 - 180
        np.testing.assert_allclose([angle.min(), angle.max()], [-config.rotation, config.rotation], atol=2)
        assert abs(angle.mean()) < 6


def test_constellations_do_not_share_a_transformation():
    first, last = (members(drawn(Config(keep=1.0)), number) for number in (0, 2))
    assert abs(np.corrcoef(distances(first)[:, 0], distances(last)[:, 0])[0, 1]) < 0.08
    assert abs(np.corrcoef(first.mean(1)[:, 0], last.mean(1)[:, 0])[0, 1]) < 0.08


def there(scenes):
    return np.stack([(scenes.constellation == number).any(1) for number in range(3)], 1)


@pytest.mark.parametrize(
    ("change", "rate", "empty"),
    [
        ({}, 0.5, 1 / 8),
        ({"keep": 1.0}, 1, 0),
        ({"allow_empty": False}, 4 / 7, 0),
        ({"allow_empty": False, "keep": 0.8}, 0.8 / 0.992, 0),
    ],
)
def test_each_constellation_is_there_at_its_rate(change, rate, empty):
    present = there(drawn(Config(**change)))
    np.testing.assert_allclose(present.mean(0), rate, atol=0.04)
    assert np.mean(~present.any(1)) == pytest.approx(empty, abs=0.03 if 0 < empty < 1 else 0)


@pytest.mark.parametrize(("scenes", "config"), [(drawn, Config()), (batch, Config()), (batch, WORLD)])
def test_absent_points_are_nowhere_and_present_ones_have_their_numbers(scenes, config):
    scenes = scenes(config)
    assert all(np.isfinite(leaf).all() for leaf in scenes)
    absent = scenes.presence == 0
    assert set(np.unique(scenes.presence)) == {0, 1} and absent.any()
    assert not scenes.points[absent].any()
    np.testing.assert_array_equal(scenes.constellation < 0, absent)
    np.testing.assert_array_equal(scenes.pattern, np.array([0, 1, 0, -1])[scenes.constellation])
    sizes = [(scenes.constellation == number).sum(1) for number in range(3)]
    assert [set(np.unique(size)) for size in sizes] == [{0, 4}, {0, 3}, {0, 4}]
    assert [leaf.dtype.name for leaf in scenes] == ["float32", "float32", "int32", "int32"]


def test_places_of_points_do_not_tell_their_constellation():
    number = batch(Config()).constellation
    for which, size in enumerate((4, 3, 4)):
        np.testing.assert_allclose((number == which).mean(0), 0.5 * size / 11, atol=0.04)
    together = np.mean(number[:, 1:] == number[:, :-1])  # were they in order it would be above .7
    assert together < 0.5


def test_points_of_each_example_just_fill_the_square():
    scenes = batch(Config())
    some = scenes.presence.any(1)
    for points, presence in zip(scenes.points[some], scenes.presence[some], strict=True):
        low, high = points[presence > 0].min(0), points[presence > 0].max(0)
        np.testing.assert_allclose(low, -high, atol=1e-5)
        assert high.max() == pytest.approx(1, abs=1e-5)
    assert not scenes.points[~some].any()


def test_points_of_all_examples_share_a_scale():
    scenes, raw = batch(WORLD), drawn(WORLD)
    np.testing.assert_allclose(scenes.points * (6 + 4 * 20**0.5 / 3), raw.points, rtol=1e-6, atol=1e-6)
    assert 0.9 < np.abs(scenes.points).max() <= 1


def test_normalised_by_hand():
    points = jnp.asarray([[2.0, 0], [6, 1], [0, 0], [4, -1]])
    scene = Scene(points, jnp.asarray([1.0, 1, 0, 1]), jnp.zeros(4, int), jnp.zeros(4, int))
    np.testing.assert_allclose(jax.jit(constellations.normalise)(scene).points, [[-1, 0], [1, 0.5], [0, 0], [0, -0.5]])


def test_nothing_is_nan_even_where_jax_looks_for_it():
    empty = Scene(jnp.zeros((3, 2)), jnp.zeros(3), -jnp.ones(3, int), -jnp.ones(3, int))
    with jax.debug_nans(True):
        assert not constellations.normalise(empty).points.any()  # not compiled, so that each step is looked at


def test_an_example_depends_on_its_key_alone():
    whole, few = (
        batch(Config()),
        jax.jit(functools.partial(constellations.batch, Config()))(keys(NUM)[jnp.array([7, 2])]),
    )
    for one, two in zip(whole, few, strict=True):
        np.testing.assert_allclose(one[[7, 2]], two, atol=1e-6)
    assert (whole.points[7] != whole.points[2]).any()


def test_other_patterns():
    config = Config(patterns=("triangle",), keep=1.0)
    scenes = batch(config, 3)
    assert constellations.num_points(config) == 3 and constellations.num_points(Config()) == 11
    assert scenes.points.shape == (3, 3, 2)
    np.testing.assert_array_equal(scenes.pattern, np.ones((3, 3)))
    np.testing.assert_array_equal(scenes.constellation, np.zeros((3, 3)))


@pytest.mark.parametrize(
    "change",
    [
        {"patterns": ()},
        {"patterns": ("square", "circle")},
        {"keep": 1.1},
        {"keep": float("nan")},
        {"keep": 0.0, "allow_empty": False},
        {"scale": (0.0, 1.0)},
        {"scale": (2.0, 1.0)},
        {"scale": (1.0,)},
        {"rotation": -1.0},
        {"rotation": 181.0},
        {"shift": -1.0},
        {"shift": float("inf")},
        {"normalise": "chunk"},
    ],
)
def test_impossible_scenes_are_refused(change):
    with pytest.raises(UserError, match=f"^data.{next(iter(change))}") as error:
        Config(**change)
    assert "\n" not in str(error.value)
