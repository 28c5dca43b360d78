import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import mohart_toy
from objcentric.data import circles
from objcentric.data.circles import Config, World
from objcentric.errors import UserError
from objcentric.nn.boxes import iou

FREE = Config(num_frames=40, strength=0.0, speed=4.0, radius=5.0)


@functools.cache
def worlds(config: Config, num: int = 32) -> World:
    return jax.jit(jax.vmap(lambda key: circles.simulate(config, key)))(jax.random.split(jax.random.key(0), num))


def kinetic(velocity: jax.Array) -> jax.Array:
    return jnp.sum(jnp.square(velocity), (-2, -1)) / 2


def test_collisions_conserve_energy():
    world = worlds(FREE)
    energy = kinetic(world.velocity)
    np.testing.assert_allclose(energy, np.broadcast_to(energy[:, :1], energy.shape), rtol=1e-4)
    turned = np.abs(np.diff(world.velocity, axis=1)).max(-1) > 1e-3
    assert turned.mean() > 0.1  # there were collisions


def test_a_collision_conserves_momentum_and_swaps_what_lies_along_the_line_of_centres():
    config = dataclasses.replace(FREE, num_objects=2)
    state = World(jnp.asarray([[30.0, 20], [30, 33]]), jnp.asarray([[1.0, 3], [-1, -2]]), jnp.zeros(2, int))
    after = circles.advance(config, state)
    np.testing.assert_allclose(after.velocity.sum(0), state.velocity.sum(0), atol=1e-4)
    np.testing.assert_allclose(kinetic(after.velocity), kinetic(state.velocity), rtol=1e-5)
    assert after.velocity[0, 1] < 0 < after.velocity[1, 1]


def test_three_circles_that_meet_conserve_momentum():
    config = dataclasses.replace(FREE, num_objects=3)
    position = jnp.asarray([[30.0, 22], [30, 32], [39, 36]])
    state = World(position, jnp.asarray([[0.5, 3], [0, -1], [-4, -2]]), jnp.zeros(3, int))
    after = circles.advance(config, state)
    assert float(jnp.max(jnp.abs(after.velocity - state.velocity))) > 0.5
    np.testing.assert_allclose(after.velocity.sum(0), state.velocity.sum(0), atol=1e-4)
    np.testing.assert_allclose(kinetic(after.velocity), kinetic(state.velocity), rtol=1e-5)


def test_a_head_on_collision_swaps_velocities():
    config = dataclasses.replace(FREE, num_objects=2)
    state = World(jnp.asarray([[30.0, 20], [30, 32]]), jnp.asarray([[0.0, 3], [0, -2]]), jnp.zeros(2, int))
    np.testing.assert_allclose(circles.advance(config, state).velocity, [[0, -2], [0, 3]], atol=1e-5)


def test_circles_stay_in_the_box_and_hardly_overlap():
    world = worlds(dataclasses.replace(FREE, strength=0.3, num_frames=60))
    assert float(jnp.max(jnp.abs(world.position - 32))) <= 32 - 5 + 1e-3
    position = np.asarray(world.position)
    distance = np.linalg.norm(position[:, :, :, None] - position[:, :, None], axis=-1) + 1e3 * np.eye(4)
    assert np.mean(distance < 2 * 5 - 1) < 0.005


@pytest.mark.parametrize(("power", "identities"), [(1.0, 1), (0.5, 2), (0.5, 1)])
def test_forces_are_the_slope_of_the_potential(power, identities):
    config = Config(power=power, identities=identities, strength=0.7)
    position = jnp.asarray([[10.0, 12], [40, 18], [25, 50], [52, 55]])
    identity = jnp.asarray([0, 1, 0, 1]) % identities
    slope = jax.grad(circles.potential, 1)(config, position, identity)
    np.testing.assert_allclose(circles.forces(config, position, identity), -slope, rtol=1e-4, atol=1e-5)


def test_forces_conserve_momentum_also_where_circles_overlap():
    config = Config(power=0.5, identities=2, strength=0.7, radius=5.0)
    position = jnp.asarray([[10.0, 12], [12, 13], [25, 50], [27, 48]])
    forces = circles.forces(config, position, jnp.asarray([0, 1, 0, 0]))
    assert float(jnp.max(jnp.abs(forces))) > 0.1
    np.testing.assert_allclose(forces.sum(0), 0, atol=1e-5)


def test_forces_by_hand():
    config = Config(power=1.0, strength=0.5, num_objects=2)
    position = jnp.asarray([[20.0, 20], [20, 52]])  # half a side apart
    np.testing.assert_allclose(circles.forces(config, position, jnp.zeros(2, int)), [[0, -1], [0, 1]], atol=1e-6)
    np.testing.assert_allclose(circles.forces(config, position, jnp.asarray([0, 1])), [[0, 1], [0, -1]], atol=1e-6)


@pytest.mark.parametrize("config", [Config(power=1.0, strength=0.05), Config(power=0.5, identities=2, strength=0.05)])
def test_energy_is_conserved_while_identities_stay(config):
    world = worlds(dataclasses.replace(config, speed=1.5, num_frames=30, substeps=32))
    potential = jax.vmap(jax.vmap(lambda p, i: circles.potential(config, p, i)))(world.position, world.identity)
    energy = potential + kinetic(world.velocity)
    exchanged = np.abs(np.asarray(potential - potential[:, :1])).max(1)
    assert np.median(exchanged) > 1  # so that it says something that their sum stays
    drift = np.abs(np.asarray(energy - energy[:, :1])).max(1)
    assert np.median(drift) < 0.03 * np.median(exchanged)


@pytest.mark.parametrize("variant", mohart_toy.VARIANTS)
def test_steps_of_the_worlds_that_are_trained_on_are_small_enough(variant):
    """In sixteen times smaller ones circles come to the same places in the next frame, unless they have collided."""
    config = circles.make_config(mohart_toy.get_config(variant).data, 2)
    finer = dataclasses.replace(config, substeps=16 * config.substeps)
    after, exact = (worlds(each, 200).position[:, 1] for each in (config, finer))
    apart = np.max(np.abs(np.asarray(after - exact)), (1, 2))
    assert np.median(apart) < 0.2 and np.mean(apart > 0.5) < 0.25


def test_friction_takes_its_share():
    config = dataclasses.replace(FREE, friction=0.1, num_frames=11)
    ratio = kinetic(worlds(config).velocity)[:, 10] / kinetic(worlds(config).velocity)[:, 0]
    np.testing.assert_allclose(ratio, np.exp(-2.0), rtol=1e-3)


def test_that_nothing_moves_is_as_good_a_guess_as_in_the_thesis():
    """.34 in scenario 2 (section 4.4), in which no more is known of the world's constants."""
    config = circles.make_config(mohart_toy.get_config("identities").data, 16)
    boxes = circles.boxes(config, worlds(config, 300).position)
    assert float(jnp.mean(iou(boxes[:, 1:-1], boxes[:, 2:]))) == pytest.approx(0.34, abs=0.02)


def test_randomness_is_the_rate_at_which_identities_are_drawn():
    for randomness, changed in ((0.0, 0.0), (0.5, 0.25), (1.0, 0.5)):  # half of the draws change nothing
        identity = worlds(Config(identities=2, randomness=randomness, num_frames=40), 100).identity
        assert float(jnp.mean(identity[:, 1:] != identity[:, :-1])) == pytest.approx(changed, abs=0.03)


def test_a_world_does_not_depend_on_how_long_it_is_watched():
    config = Config(identities=2, randomness=1.0, num_frames=12)
    longer = worlds(dataclasses.replace(config, num_frames=15))
    for short, long in zip(worlds(config), longer, strict=True):
        np.testing.assert_allclose(short, long[:, :12], atol=1e-4)


def test_frames_show_discs_of_their_colours():
    config = Config(side=32, radius=5.0, num_objects=2, identities=2)
    position = jnp.asarray([[8.0, 10], [22, 21]])
    frame = circles.render(config, position, jnp.asarray([0, 1]))
    np.testing.assert_allclose(frame[8, 10], circles.COLOURS[0], atol=1e-6)
    np.testing.assert_allclose(frame[22, 21], circles.COLOURS[1], atol=1e-6)
    assert frame[0, 31].max() == 0
    covered = jnp.sum(jnp.max(frame, -1))
    assert float(covered) == pytest.approx(2 * np.pi * 25, rel=0.03)
    box = circles.boxes(config, position)[0]
    rows = np.flatnonzero(np.asarray(frame[:, :16].max((1, 2)) > 0.3))
    np.testing.assert_allclose([rows[0], rows[-1] + 1], [box[0], box[2]], atol=1)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"num_objects": 0}, "num_objects"),
        ({"identities": 3}, "identities"),
        ({"randomness": 1.5}, "randomness"),
        ({"friction": -1.0}, "friction"),
        ({"radius": 20.0}, "no room"),
        ({"radius": 0.0}, "no room"),
    ],
)
def test_impossible_worlds_are_refused(change, said):
    with pytest.raises(UserError, match=said):
        Config(**change)
