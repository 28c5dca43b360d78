import itertools

import numpy as np
import pytest

from objcentric.data import digits, loader, scenes
from objcentric.errors import UserError


@pytest.fixture(scope="module")
def pool():
    return digits.load_digits("embedded", "", "train", 0)


def compose(config, pool, n=100):
    config = scenes.scene_config(config)
    return [scenes.compose(config, pool, np.random.default_rng((0, i))) for i in range(n)]


def intersect(a, b):
    return (np.maximum(a[:2], b[:2]) < np.minimum(a[2:], b[2:])).all()


def test_resize_crops_to_the_ink_and_keeps_proportions():
    image = np.zeros((8, 8), np.uint8)
    image[2:6, 3:5] = 200
    np.testing.assert_array_equal(scenes.resize(image, 10), np.full((10, 5), 200))
    np.testing.assert_array_equal(scenes.resize(image.T, 4), np.full((2, 4), 200))
    assert scenes.resize(np.eye(1, 9, dtype=np.uint8), 3).shape == (3, 3)
    assert scenes.resize(np.ones((1, 9), np.uint8), 3).shape == (1, 3)


def test_place_fills_a_canvas_exactly():
    rng = np.random.default_rng(0)
    np.testing.assert_array_equal(scenes.place([(7, 5)], (7, 5), False, rng), [[0, 0, 7, 5]])
    assert scenes.place([(7, 5)] * 2, (7, 5), False, rng) is None
    np.testing.assert_array_equal(scenes.place([(7, 5)] * 2, (7, 5), True, rng), [[0, 0, 7, 5]] * 2)
    left = [scenes.place([(4, 3), (4, 3)], (4, 6), False, rng) for _ in range(20)]
    assert {tuple(boxes[:, 1]) for boxes in left if boxes is not None} == {(0, 3), (3, 0)}


def test_place_is_uniform_over_the_canvas():
    rng = np.random.default_rng(0)
    corners = np.array([scenes.place([(4, 4)], (6, 5), False, rng)[0, :2] for _ in range(3000)])
    counts = np.bincount(corners[:, 0] * 2 + corners[:, 1])
    assert len(counts) == 6
    np.testing.assert_allclose(counts, 500, atol=5 * np.sqrt(500))


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
        background="none", seed=0, num_scenes={}, cache_dir="",
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


def test_no_room(config, pool):
    config.num_objects = (40, 40)
    with pytest.raises(UserError, match="no room for 40 digits without overlap on a canvas of 40x36"):
        compose(config, pool, 1)


def test_scenes_do_not_depend_on_the_sizes_of_splits(config):
    small = loader.load(config)
    config.num_train, config.num_test = 30, 2
    large = loader.load(config)
    for split, n in (("train", 24), ("valid", 4), ("test", 2)):
        for key in ("image", "count", "boxes", "label"):
            np.testing.assert_array_equal(getattr(small, split)[key][:n], getattr(large, split)[key][:n])


def test_prepared_once(config, monkeypatch):
    first = loader.load(config)
    monkeypatch.setattr(scenes, "compose", lambda *_: pytest.fail("composed again"))
    np.testing.assert_array_equal(loader.load(config).train["image"], first.train["image"])


def test_every_setting_has_its_own_cache(config, tmp_path):
    own = tmp_path / "own.npy"
    np.save(own, np.ones((5, 4, 4)))
    changes = [
        {}, {"canvas": (40, 40)}, {"num_objects": (0, 1)}, {"object_size": (10, 12)}, {"overlap": True}, {"seed": 1},
        {"background": "structured"}, {"num_train": 25}, {"num_valid": 5}, {"num_test": 6}, {"source": str(own)},
        {"source": "mnist"},
    ]  # fmt: skip
    names = []
    for change in changes:
        changed = config.copy_and_resolve_references()
        changed.update(change)
        names.append(scenes.scene_config(changed).name)
    np.save(own, np.ones((6, 4, 4)))
    config.source = str(own)
    names.append(scenes.scene_config(config).name)
    assert len(set(names)) == len(names) == 13


def test_interrupted_preparation_leaves_nothing_broken(config, monkeypatch, tmp_path):
    whole, calls = scenes.compose, itertools.count()

    def interrupted(*args):
        if next(calls) == 27:  # in the second split
            raise KeyboardInterrupt
        return whole(*args)

    monkeypatch.setattr(scenes, "compose", interrupted)
    with pytest.raises(KeyboardInterrupt):
        loader.load(config)
    monkeypatch.setattr(scenes, "compose", whole)
    leftover = tmp_path / "cache" / "multi_digit" / scenes.scene_config(config).name / "incomplete.ABC_1.0.0"
    leftover.mkdir(parents=True)  # as a killed process leaves it
    assert [len(split["image"]) for split in loader.load(config)] == [24, 4, 5]
    assert not leftover.exists()


def test_another_process_prepares_the_same_scenes_first(config, monkeypatch):
    whole, calls = scenes.compose, itertools.count()

    def slow(*args):
        if next(calls) == 0:
            scenes.prepare(config)
        return whole(*args)

    monkeypatch.setattr(scenes, "compose", slow)
    assert [len(split["image"]) for split in loader.load(config)] == [24, 4, 5]


@pytest.mark.parametrize("name", ["dataset_info.json", "multi_digit-valid.array_record-00000-of-00001"])
@pytest.mark.parametrize("how", ["cut", "gone"])
def test_damaged_cache_is_named(config, name, how):
    file = scenes.prepare(config).data_path / name
    file.unlink() if how == "gone" else file.write_bytes(file.read_bytes()[:99])
    with pytest.raises(UserError, match="prepared data in .* are damaged .*delete that folder"):
        loader.load(config)


def test_full_disk(config, monkeypatch):
    def fail(self):
        raise RuntimeError("No space left on device")

    monkeypatch.setattr(scenes.MultiDigit, "download_and_prepare", fail)
    with pytest.raises(UserError, match=r"cannot write .* \(No space left on device\)"):
        loader.load(config)


def test_unwritable_cache(config, tmp_path):
    (tmp_path / "file").write_text("")
    config.cache_dir = str(tmp_path / "file" / "cache")
    with pytest.raises(UserError, match="cannot write .*data.cache_dir or \\$OBJCENTRIC_CACHE"):
        loader.load(config)


def test_nothing_is_printed(config, capfd):
    loader.load(config)
    out, err = capfd.readouterr()
    assert (out, err) == ("", "")
