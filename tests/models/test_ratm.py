import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np

from objcentric.models import hart, ratm
from objcentric.nn import boxes
from tests.models.test_hart import GIVEN, SMALL, video

CONFIG = dataclasses.replace(SMALL, relation="none")


@functools.cache
def made() -> tuple[hart.Tracker, dict]:
    tracker = ratm.make(CONFIG)
    params = jax.jit(tracker.init)(jax.random.key(0))
    tracker = tracker._replace(**{name: jax.jit(getattr(tracker, name)) for name in ("start", "step", "distance")})
    return tracker, params | {"output": jax.tree.map(lambda leaf: 10 * leaf, params["output"])}


def follow(x: jax.Array) -> hart.Seen:
    tracker, params = made()
    return jax.jit(functools.partial(hart.follow, tracker))(params, None, x, GIVEN, jnp.ones(3))


def test_a_box_is_a_guess_made_before_its_frame_is_seen():
    seen = follow(video())
    np.testing.assert_allclose(seen.boxes[0], GIVEN, atol=1e-4)
    np.testing.assert_array_equal(seen.boxes, seen.attention)
    changed = follow(video().at[2:].set(video(key=9)[2:]))
    np.testing.assert_array_equal(seen.boxes[:3], changed.boxes[:3])
    assert float(jnp.max(jnp.abs(seen.boxes[3] - changed.boxes[3]))) > 1e-3


def test_attention_adds_up():
    tracker, params = made()
    state, _ = tracker.start(params, None, video()[0], GIVEN, jnp.ones(3))
    after, seen = tracker.step(params, None, state, video()[1], None)
    np.testing.assert_allclose(seen.boxes, boxes.to_box(state.where, CONFIG.canvas), rtol=1e-5)
    layers = params["output"]["params"]
    hidden = jax.nn.elu(after.lstm[1] @ layers["Dense_0"]["kernel"] + layers["Dense_0"]["bias"][None])
    update = hidden @ layers["Dense_1"]["kernel"] + layers["Dense_1"]["bias"][None]
    np.testing.assert_allclose(after.where, state.where + jnp.tanh(0.1) * update, rtol=1e-4, atol=1e-5)


def test_the_loss_is_a_distance_between_features():
    tracker, params = made()
    x, box, other = video()[0], GIVEN[0], GIVEN[1]
    assert float(tracker.distance(params, x, box, box)) == 0
    assert float(tracker.distance(params, x, box, other)) > 1e-4
    np.testing.assert_allclose(tracker.distance(params, x, box, other), tracker.distance(params, x, other, box), 1e-5)
    slopes = jax.jit(jax.grad(tracker.distance, (0, 2)))(params, x, box, other)
    assert all(float(jnp.max(jnp.abs(leaf))) == 0 for leaf in jax.tree.leaves(slopes[0]["v1"]))
    assert float(jnp.max(jnp.abs(slopes[1]))) > 0  # it is the box that learns
