import itertools

import numpy as np
import pytest

from objcentric.data import builder, loader, moving, scenes
from objcentric.errors import UserError

SETTINGS = [
    {}, {"canvas": (40, 40)}, {"num_objects": (0, 1)}, {"object_size": (10, 12)}, {"seed": 1}, {"num_train": 25},
    {"num_valid": 5}, {"num_test": 6}, {"source": "mnist"},
]  # fmt: skip
SETTINGS_OF = {
    scenes: [{"overlap": True}, {"background": "structured"}],
    moving: [{"num_frames": 5}, {"motion": "bounce"}, {"speed": 9.0}, {"acceleration": 2.0}, {"appear": "any_time"}],
}


@pytest.fixture(params=[scenes, moving], ids=["scenes", "moving"])
def module(request):
    return request.param


@pytest.fixture
def config(module, request):
    return request.getfixturevalue("config" if module is scenes else "moving_config")


def builder_config(module, c):
    return (scenes.SceneConfig if module is scenes else moving.MovingConfig).make(c)


def test_resize_crops_to_the_ink_and_keeps_proportions():
    image = np.zeros((8, 8), np.uint8)
    image[2:6, 3:5] = 200
    np.testing.assert_array_equal(builder.resize(image, 10), np.full((10, 5), 200))
    np.testing.assert_array_equal(builder.resize(image.T, 4), np.full((2, 4), 200))
    assert builder.resize(np.eye(1, 9, dtype=np.uint8), 3).shape == (3, 3)
    assert builder.resize(np.ones((1, 9), np.uint8), 3).shape == (1, 3)


def place(shapes, canvas, rng, apart=True):
    return builder.place(shapes, canvas, np.broadcast_to(apart, len(shapes)), rng)


def test_place_fills_a_canvas_exactly():
    rng = np.random.default_rng(0)
    np.testing.assert_array_equal(place([(7, 5)], (7, 5), rng), [[0, 0, 7, 5]])
    assert place([(7, 5)] * 2, (7, 5), rng) is None
    left = [place([(4, 3), (4, 3)], (4, 6), rng) for _ in range(20)]
    assert {tuple(boxes[:, 1]) for boxes in left if boxes is not None} == {(0, 3), (3, 0)}


def test_only_those_apart_keep_apart():
    rng = np.random.default_rng(0)
    for apart in (False, [True, False], [False, True]):
        np.testing.assert_array_equal(place([(7, 5)] * 2, (7, 5), rng, apart), [[0, 0, 7, 5]] * 2)
    assert place([(7, 5)] * 3, (7, 5), rng, [True, False, True]) is None


def test_place_is_uniform_over_the_canvas():
    rng = np.random.default_rng(0)
    corners = np.array([place([(4, 4)], (6, 5), rng)[0, :2] for _ in range(3000)])
    counts = np.bincount(corners[:, 0] * 2 + corners[:, 1])
    assert len(counts) == 6
    np.testing.assert_allclose(counts, 500, atol=5 * np.sqrt(500))


def test_no_room(config):
    config.update(num_objects=(4, 4), canvas=(14, 14))
    with pytest.raises(UserError, match="no room for 4 digits without overlap on a canvas of 14x14: enlarge") as error:
        loader.load(config)
    assert "\n" not in str(error.value) and ("data.overlap" in str(error.value)) == ("overlap" in config)


def test_examples_do_not_depend_on_the_sizes_of_splits(config):
    small = loader.load(config)
    config.num_train, config.num_test = 30, 2
    large = loader.load(config)
    for split, n in (("train", 24), ("valid", 4), ("test", 2)):
        for key in small.train:
            np.testing.assert_array_equal(getattr(small, split)[key][:n], getattr(large, split)[key][:n])


def test_examples_follow_the_seed_and_the_split(config):
    first = loader.load(config)
    assert (first.train["image"][:4] != first.valid["image"]).any()
    config.seed = 1
    assert (loader.load(config).train["image"] != first.train["image"]).any()


def test_splits_are_made_of_digits_of_their_own(config, tmp_path):
    squares = np.arange(1, 21, dtype=np.uint8)[:, None, None] * np.ones((4, 4), np.uint8)  # each of a shade of its own
    np.save(tmp_path / "own.npy", squares)
    config.source, config.num_valid, config.num_test = str(tmp_path / "own.npy"), 30, 30
    shades = [set(np.unique(split["image"])) - {0} for split in loader.load(config)]
    assert all(shades) and not (shades[0] & shades[1] or shades[0] & shades[2] or shades[1] & shades[2])


def test_prepared_once(config, module, monkeypatch):
    first = loader.load(config)
    monkeypatch.setattr(module, "compose", lambda *_: pytest.fail("composed again"))
    np.testing.assert_array_equal(loader.load(config).train["image"], first.train["image"])


def test_every_setting_has_its_own_cache(config, module, tmp_path):
    own = tmp_path / "own.npy"
    np.save(own, np.ones((5, 4, 4)))
    changes = [*SETTINGS, *SETTINGS_OF[module], {"source": str(own)}]
    names = []
    for change in changes:
        changed = config.copy_and_resolve_references()
        changed.update(change)
        names.append(builder_config(module, changed).name)
    np.save(own, np.ones((6, 4, 4)))
    config.source = str(own)
    names.append(builder_config(module, config).name)
    assert len(set(names)) == len(names) == len(changes) + 1


def test_where_files_lie_does_not_matter(config, module):
    name = builder_config(module, config).name
    config.update(path="elsewhere", cache_dir="elsewhere", device_bytes=1)
    assert builder_config(module, config).name == name


def test_interrupted_preparation_leaves_nothing_broken(config, module, monkeypatch, tmp_path):
    whole, calls = module.compose, itertools.count()

    def interrupted(*args):
        if next(calls) == 27:  # in the second split
            raise KeyboardInterrupt
        return whole(*args)

    monkeypatch.setattr(module, "compose", interrupted)
    with pytest.raises(KeyboardInterrupt):
        loader.load(config)
    monkeypatch.setattr(module, "compose", whole)
    folder = tmp_path / "cache" / config.name / builder_config(module, config).name
    leftover = folder / "incomplete.ABC_1.0.0"  # as a killed process leaves it
    leftover.mkdir(parents=True)
    assert [len(split["image"]) for split in loader.load(config)] == [24, 4, 5]
    assert not leftover.exists()


def test_another_process_prepares_the_same_data_first(config, module, monkeypatch):
    whole, calls = module.compose, itertools.count()

    def slow(*args):
        if next(calls) == 0:
            module.prepare(config)
        return whole(*args)

    monkeypatch.setattr(module, "compose", slow)
    assert [len(split["image"]) for split in loader.load(config)] == [24, 4, 5]


@pytest.mark.parametrize("name", ["dataset_info.json", "{}-valid.array_record-00000-of-00001"])
@pytest.mark.parametrize("how", ["cut", "gone"])
def test_damaged_cache_is_named(config, module, name, how):
    file = module.prepare(config).data_path / name.format(config.name)
    file.unlink() if how == "gone" else file.write_bytes(file.read_bytes()[:99])
    with pytest.raises(UserError, match="prepared data in .* are damaged .*delete that folder"):
        loader.load(config)


def test_full_disk(config, monkeypatch):
    def fail(self):
        raise RuntimeError("No space left on device")

    monkeypatch.setattr(builder.DigitsBuilder, "download_and_prepare", fail)
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
