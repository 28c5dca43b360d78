import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from objcentric.errors import UserError
from objcentric.models import hart, ratm
from objcentric.nn import boxes, gaussian_attention

SMALL = hart.Config(
    canvas=(24, 32, 3),
    num_objects=3,
    glimpse_size=(8, 8),
    cnn_features=(4, 4, 6),
    cnn_kernel=3,
    features=8,
    hidden=8,
    relation="attention",
    heads=2,
    zoneout=0.0,
    dropout=0.0,
)
GIVEN = jnp.asarray([[2.0, 3, 10, 12], [8, 15, 20, 24], [5, 20, 15, 30]])


@functools.cache
def made(config: hart.Config) -> tuple[hart.Tracker, dict]:
    tracker = hart.make(config)
    params = jax.jit(tracker.init)(jax.random.key(0))
    tracker = tracker._replace(start=jax.jit(tracker.start), step=jax.jit(tracker.step))
    loud = {"output": jax.tree.map(lambda leaf: 10 * leaf, params["output"])}  # so that boxes do move
    return tracker, params | loud


def video(num_frames: int = 4, key: int = 1) -> jax.Array:
    return jax.random.uniform(jax.random.key(key), (num_frames, *SMALL.canvas))


@functools.cache
def following(config: hart.Config):
    tracker, _ = made(config)
    return jax.jit(functools.partial(hart.follow, tracker))


def follow(config: hart.Config, x=None, given=GIVEN, there=None, told=None, key=None) -> hart.Seen:
    x = video() if x is None else x
    return following(config)(made(config)[1], key, x, given, jnp.ones(len(given)) if there is None else there, told)


@pytest.mark.parametrize("relation", ["none", "attention", "max"])
@pytest.mark.parametrize("memory", [False, True])
def test_the_order_of_objects_does_not_matter(relation, memory):
    config = dataclasses.replace(SMALL, relation=relation, relate_memory=memory)
    order = jnp.asarray([2, 0, 1])
    seen, shuffled = follow(config), follow(config, given=GIVEN[order])
    for name in ("boxes", "attention", "presence", "glimpse"):
        np.testing.assert_allclose(getattr(seen, name)[:, order], getattr(shuffled, name), atol=1e-4, err_msg=name)


def test_it_does_matter_to_an_mlp_of_all():
    config = dataclasses.replace(SMALL, relation="mlp")
    order = jnp.asarray([2, 0, 1])
    seen, shuffled = follow(config), follow(config, given=GIVEN[order])
    assert float(jnp.max(jnp.abs(seen.boxes[:, order] - shuffled.boxes))) > 0.01


@pytest.mark.parametrize(("relation", "hears"), [("none", False), ("attention", True), ("max", True), ("mlp", True)])
def test_trackers_hear_of_others_through_their_relation_alone(relation, hears):
    config = dataclasses.replace(SMALL, relation=relation)
    elsewhere = GIVEN.at[1].set(jnp.asarray([1.0, 1, 5, 5]))
    difference = jnp.abs(follow(config).boxes[1:, 0] - follow(config, given=elsewhere).boxes[1:, 0])
    assert (float(difference.max()) > 1e-3) == hears


@pytest.mark.parametrize("relation", ["attention", "max", "mlp"])
def test_absent_objects_tell_nothing(relation):
    config = dataclasses.replace(SMALL, relation=relation)
    there = jnp.asarray([1.0, 0, 1])
    told = jnp.broadcast_to(there, (4, 3))
    elsewhere = GIVEN.at[1].set(jnp.asarray([1.0, 1, 5, 5]))
    seen = follow(config, there=there, told=told)
    other = follow(config, given=elsewhere, there=there, told=told)
    np.testing.assert_allclose(seen.boxes[:, [0, 2]], other.boxes[:, [0, 2]], atol=1e-5)
    everyone = follow(config, told=jnp.ones((4, 3)))
    assert float(jnp.max(jnp.abs(everyone.boxes[:, 0] - seen.boxes[:, 0]))) > 1e-3


def test_attention_to_absent_objects_is_zero_and_the_weights_of_all_sum_to_one():
    told = jnp.broadcast_to(jnp.asarray([1.0, 0, 1]), (4, 3))
    weights = follow(SMALL, there=told[0], told=told).weights
    np.testing.assert_allclose(weights.sum(-1), 1.0, rtol=1e-5)
    np.testing.assert_array_equal(weights[:, :, 1], 0)


def test_without_being_told_trackers_go_by_their_own_guess_of_presence():
    tracker, params = made(SMALL)
    state, _ = tracker.start(params, None, video()[0], GIVEN, jnp.ones(3))
    np.testing.assert_array_equal(state.presence, 1)  # of the given ones there is no doubt
    gone = state._replace(presence=jnp.asarray([0.9, 0.4, 0.6]))
    guessed = tracker.step(params, None, gone, video()[1], None)
    told = tracker.step(params, None, gone, video()[1], jnp.asarray([1.0, 0, 1]))
    np.testing.assert_array_equal(guessed[1].boxes, told[1].boxes)


def test_those_without_a_box_are_never_heard_of():
    """Nor do they tell what they guess of themselves, when nobody says who is there."""
    there = jnp.asarray([1.0, 0, 1])
    elsewhere = GIVEN.at[1].set(jnp.asarray([1.0, 1, 5, 5]))
    seen, other = follow(SMALL, there=there), follow(SMALL, given=elsewhere, there=there)
    np.testing.assert_allclose(seen.boxes[:, [0, 2]], other.boxes[:, [0, 2]], atol=1e-5)
    np.testing.assert_array_equal(seen.weights[:, :, 1], 0)


@pytest.mark.parametrize("relation", ["attention", "max", "mlp"])
def test_where_nobody_is_there_nothing_is_heard(relation):
    """Where the second one looks is nothing to the first; it is, where they are there."""
    tracker, params = made(dataclasses.replace(SMALL, relation=relation))
    np.testing.assert_array_equal(params["lstm"]["params"]["hf"]["bias"], 1)
    state, _ = tracker.start(params, None, video()[0], GIVEN, jnp.ones(3))
    elsewhere = state._replace(where=state.where.at[1].add(0.5))
    for there, heard in ((jnp.zeros(3), False), (jnp.ones(3), True)):
        one, other = (tracker.step(params, None, each, video()[1], there)[1].boxes[0] for each in (state, elsewhere))
        assert np.isfinite(one).all() and np.array_equal(one, other) != heard


def test_trackers_that_learn_no_presence_do_not_doubt():
    config = dataclasses.replace(SMALL, presence=False)
    seen, told = follow(config), follow(config, told=jnp.ones((4, 3)))
    np.testing.assert_array_equal(seen.presence, 10)
    np.testing.assert_allclose(seen.boxes, told.boxes, rtol=1e-5)


def test_a_step_by_hand():
    """Equations 3.2 and 3.5 to 3.8 of one tracker without relation, written out."""
    config = dataclasses.replace(SMALL, num_objects=1, relation="none")
    tracker, params = made(config)
    x, given = np.asarray(video()), np.asarray(GIVEN[:1])
    state, first = tracker.start(params, None, x[0], given, jnp.ones(1))
    state_2, second = tracker.step(params, None, state, x[1], None)

    def dense(part, x):
        return x @ part["kernel"] + part["bias"]

    def output(o):
        layers = params["output"]["params"]
        raw = dense(layers["Dense_1"], jax.nn.elu(dense(layers["Dense_0"], o)))
        return raw[:4], raw[4:8], raw[8]

    @jax.jit
    def by_hand(a_2, o):
        bias, b_1 = params["attention"]["bias"], boxes.to_where(jnp.asarray(given[0]), config.canvas)
        a_1 = b_1 + jnp.concatenate([-bias[:2], bias[:2] + bias[2:]])
        glimpse = hart.normalise(gaussian_attention.glimpse(x[1], a_2, config.glimpse_size))
        update, correction, presence = output(o)
        a_3 = a_2 + jnp.tanh(params["attention"]["rate"]) * update
        b_2 = a_2 - (a_1 - b_1) + jnp.tanh(correction)
        return boxes.to_box(a_1, config.canvas), glimpse, a_3, boxes.to_box(b_2, config.canvas), presence

    attention, glimpse, a_3, box, presence = by_hand(state.where[0], state_2.lstm[1][0])
    np.testing.assert_allclose(first.attention[0], attention, rtol=1e-5)
    np.testing.assert_array_equal(first.boxes, given)
    np.testing.assert_allclose(second.glimpse[0], glimpse, atol=1e-5)
    np.testing.assert_allclose(state_2.where[0], a_3, rtol=1e-4)
    np.testing.assert_allclose(second.boxes[0], box, rtol=1e-4, atol=1e-3)
    np.testing.assert_allclose(second.presence[0], presence, rtol=1e-4, atol=1e-5)


APPEARANCE = dataclasses.replace(SMALL, num_objects=2, appearance=True, relation="none", glimpse_size=(12, 12))


def test_appearance_attention_masks_features_from_the_second_frame_on():
    seen = follow(APPEARANCE, given=GIVEN[:2])
    assert seen.mask.shape == (4, 2, 3, 3)
    tracker, params = made(APPEARANCE)
    state, _ = tracker.start(params, None, video()[0], GIVEN[:2], jnp.ones(2))

    def silenced(bias):
        """The dorsal stream sees ``bias`` wherever it looks."""
        part = params["dorsal"]["params"]
        quiet = {"Dense_2": {"kernel": 0 * part["Dense_2"]["kernel"], "bias": jnp.full(1, bias)}}
        return params | {"dorsal": {"params": part | quiet}}

    shut = silenced(-100.0)
    first, second = (tracker.step(shut, None, state, video(key=k)[1], None)[0].lstm[1] for k in (1, 2))
    np.testing.assert_allclose(first, second, atol=1e-6)  # a map of 0 hides the glimpse
    first, second = (tracker.step(silenced(100.0), None, state, video(key=k)[1], None)[0].lstm[1] for k in (1, 2))
    assert float(jnp.max(jnp.abs(first - second))) > 1e-4
    starts = [tracker.start(shut, None, video(key=k)[0], GIVEN[:2], jnp.ones(2))[0].lstm[1] for k in (1, 2)]
    assert float(jnp.max(jnp.abs(starts[0] - starts[1]))) > 1e-4  # the given box is seen without a map


def test_guidance_tells_where_to_look():
    tracker, params = made(SMALL)
    x, there = video(), jnp.ones(3)
    own = follow(SMALL, x)
    elsewhere = GIVEN[None] + jnp.arange(4.0)[:, None, None]
    weight = jnp.zeros((4, 3)).at[2, 1].set(1)
    guided = hart.follow(tracker, params, None, x, GIVEN, there, guidance=hart.Guidance(elsewhere, weight))
    np.testing.assert_allclose(guided.attention[:2], own.attention[:2], rtol=1e-4)
    np.testing.assert_allclose(guided.intended[:3], own.attention[:3], rtol=1e-4)
    np.testing.assert_allclose(guided.attention[2, ::2], own.attention[2, ::2], rtol=1e-4)
    expected = boxes.to_box(tracker.aim(params, elsewhere[2])[1], SMALL.canvas)
    np.testing.assert_allclose(guided.attention[2, 1], expected, rtol=1e-4)
    assert np.abs(guided.boxes[2, 1] - own.boxes[2, 1]).max() > 0.1
    np.testing.assert_array_equal(own.intended, own.attention)


def test_noise_is_for_training_alone():
    noisy = dataclasses.replace(SMALL, zoneout=0.3, dropout=0.3)
    np.testing.assert_array_equal(follow(noisy).boxes, follow(noisy).boxes)
    one, other = (follow(noisy, key=jax.random.key(i)).boxes for i in (0, 1))
    assert float(jnp.max(jnp.abs(one - other))) > 1e-3


def test_zoneout_keeps_its_share_of_units():
    old, new = (jnp.zeros(20_000),) * 2, (jnp.ones(20_000),) * 2
    cell, output = hart.zoneout(jax.random.key(0), old, new, 0.2)
    assert float(cell.mean()) == pytest.approx(0.8, abs=0.02)
    assert float(jnp.mean(cell != output)) == pytest.approx(2 * 0.2 * 0.8, abs=0.02)
    np.testing.assert_allclose(hart.zoneout(None, old, new, 0.2)[0], 0.8, rtol=1e-6)


def test_a_black_frame_is_finite_and_looks_the_same_wherever_one_looks():
    x = video().at[2:].set(0.0)
    seen = follow(SMALL, x=x)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(seen))
    np.testing.assert_array_equal(seen.glimpse[2:], 0)


def test_gradients_reach_attention_although_the_object_left_the_glimpse():
    from objcentric.models import tracking_losses

    tracker, params = made(SMALL)

    def loss(params):
        seen = hart.follow(tracker, params, None, video(), GIVEN, jnp.ones(3))
        far = jnp.asarray([20.0, 1, 24, 4])
        return tracking_losses.spatial(seen.attention[2, 2], far, SMALL.canvas)

    slope = jax.jit(jax.grad(loss))(params)
    assert float(jnp.max(jnp.abs(slope["output"]["params"]["Dense_1"]["kernel"]))) > 1e-3
    assert float(jnp.max(jnp.abs(slope["v1"]["params"]["Conv_0"]["kernel"]))) > 0


def test_the_sizes_of_the_thesis():
    def count(config):
        return sum(leaf.size for leaf in jax.tree.leaves(jax.eval_shape(hart.make(config).init, jax.random.key(0))))

    mohart = hart.Config(canvas=(192, 256, 3), relate_memory=True)
    maps = jax.eval_shape(lambda: follow_maps(mohart))
    assert maps.shape == (7, 7, 64)  # appendix 4.A
    kitti = hart.Config((188, 621, 3), 1, (56, 56), v1="alexnet", appearance=True, features=100, hidden=100)
    kitti = dataclasses.replace(kitti, relation="none", heads=1)
    assert jax.eval_shape(lambda: follow_maps(kitti)).shape == (14, 14, 384)  # section 3.5.2
    assert count(kitti) == 1_659_193  # the thesis says 1.8 million
    spatial = dataclasses.replace(kitti, appearance=False, ventral=True)
    assert count(spatial) < count(kitti)  # "it is also our biggest model"
    shapes = jax.eval_shape(ratm.make(spatial).init, jax.random.key(0))
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes)) < count(kitti)


def follow_maps(config: hart.Config) -> jax.Array:
    nets, inputs = hart._networks(config)
    return nets["v1"].init_with_output(jax.random.key(0), *inputs["v1"])[0]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"relation": "gossip"}, "relation"),
        ({"v1": "resnet"}, "v1"),
        ({"heads": 3}, "heads"),
        ({"zoneout": 1.0}, "zoneout"),
        ({"glimpse_size": (2, 8)}, "glimpse_size"),
        ({"hidden": 0}, "hidden"),
        ({"glimpse_size": (8,)}, "glimpse_size=.* use two numbers"),
        ({"cnn_features": (4, 4)}, "cnn_features=.* use three numbers"),
        ({"cnn_features": (4, 0, 4)}, "cnn_features=.* use three numbers"),
        ({"margin": float("nan")}, "margin=nan: use 0 or more"),
    ],
)
def test_bad_configs_are_refused(change, said):
    with pytest.raises(UserError, match=said):
        dataclasses.replace(SMALL, **change)
