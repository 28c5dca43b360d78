import itertools

import numpy as np
import pytest

from objcentric.data import digits, scenes


@pytest.fixture(scope="module")
def pool():
    return digits.load_digits("embedded", "", "train", 0)


def compose(config, pool, n=100):
    config = scenes.SceneConfig.make(config)
    return [scenes.compose(config, pool, np.random.default_rng((0, i))) for i in range(n)]


def intersect(a, b):
    return (np.maximum(a[:2], b[:2]) < np.minimum(a[2:], b[2:])).all()


@pytest.mark.parametrize("overlap", [False, True])
def test_scene(config, pool, overlap):
    config.num_objects, config.overlap = (1, 4), overlap
    touching = 0
    for scene in compose(config, pool):
        count, boxes, label = scene["count"], scene["boxes"], scene["label"]
        assert boxes.shape == (4, 4) and (boxes[count:] == 0).all() and (label[count:] == -1).all()
        boxes = boxes[:count].astype(int)
        assert ((0 <= boxes) & (boxes <= [40, 36, 40, 36])).all()
        sides = (boxes[:, 2:] - boxes[:, :2]).max(axis=1)
        assert ((10 <= sides) & (sides <= 14)).all()
        assert ((0 <= label[:count]) & (label[:count] <= 9)).all()
        outside = scene["image"][..., 0].copy()
        for y0, x0, y1, x1 in boxes:
            ink = scene["image"][y0:y1, x0:x1, 0] > 0
            assert all(edge.any() for edge in (ink[0], ink[-1], ink[:, 0], ink[:, -1]))  # the box is tight
            outside[y0:y1, x0:x1] = 0
        assert not outside.any()
        touching += any(itertools.starmap(intersect, itertools.combinations(boxes, 2)))
    assert touching == 0 if not overlap else touching > 20


def test_digits_blend_by_maximum():
    config = scenes.SceneConfig(
        name="x", source="", path="", canvas=(6, 6), num_objects=(2, 2), object_size=(6, 6), overlap=True,
        background="none", seed=0, num_examples={}, cache_dir="",
    )  # fmt: skip
    low, high = np.full((6, 6), 50, np.uint8), np.full((6, 6), 90, np.uint8)
    low[0, 0] = 200
    pool = digits.Digits(np.stack([low, high]), np.int32([3, 4]))
    drawn = [scenes.compose(config, pool, np.random.default_rng(i)) for i in range(10)]
    mixed = [scene for scene in drawn if sorted(scene["label"]) == [3, 4]]
    assert mixed and all((s["image"][..., 0] == np.maximum(low, high)).all() for s in mixed)


def test_counts_are_uniform(config, pool):
    config.num_objects = (0, 2)
    counts = np.bincount([scene["count"] for scene in compose(config, pool, 600)])
    np.testing.assert_allclose(counts, 200, atol=60)


def test_structured_background_lies_behind_the_same_scenes(config, pool):
    plain = compose(config, pool)
    config.background = "structured"
    lit = compose(config, pool)
    for a, b in zip(plain, lit, strict=True):
        np.testing.assert_array_equal(a["boxes"], b["boxes"])
        np.testing.assert_array_equal(a["label"], b["label"])
        behind = b["image"][a["image"] == 0]
        assert behind.max() <= 128
        assert (b["image"] >= np.minimum(a["image"].astype(int) + behind.min(), 255)).all()  # digits are added, clipped
    empty = np.stack([b["image"] for b in lit if b["count"] == 0]) / 255
    assert empty.std(axis=(1, 2)).min() > 0.03  # each has structure,
    assert empty.std(axis=0).mean() > 0.05  # of its own


def test_structured_background_is_smooth_and_within_range():
    patterns = np.stack([scenes.structured_background((50, 40), np.random.default_rng(i)) for i in range(300)])
    assert 0 <= patterns.min() < 0.05 and 0.45 < patterns.max() <= 0.5
    assert max(np.abs(np.diff(patterns, axis=axis)).max() for axis in (1, 2)) < 0.05
