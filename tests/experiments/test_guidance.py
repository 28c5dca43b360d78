import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

from experiments import guidance
from tests.experiments import videos


def test_guidance_ends():
    shares = [float(guidance.share((4, 8), jnp.asarray(step))) for step in (0, 4, 5, 8, 20)]
    assert shares == [1, 1, 0.75, 0, 0]


def test_guidance_shows_true_boxes_moved_as_a_whole():
    split = videos.make_split(1, 0)
    boxes, there = jnp.asarray(split["boxes"][0]), jnp.asarray(split["presence"][0], jnp.float32)
    guide = guidance.make(ConfigDict({"steps": (0, 4), "shift": 3.0}))
    guided = jax.vmap(lambda key: guide(key, boxes, there, 3))(jax.random.split(jax.random.key(0), 2_000))
    moved = guided.boxes - boxes[None]
    np.testing.assert_allclose(moved[..., 2:], moved[..., :2], atol=1e-4)
    assert float(jnp.mean(moved)) == pytest.approx(0, abs=0.05) and float(jnp.std(moved)) == pytest.approx(3, rel=0.02)
    np.testing.assert_allclose(np.mean(guided.weight, 0), 0.25 * there, atol=0.05)
    assert not float(jnp.max(guided.weight * (1 - there[None])))
