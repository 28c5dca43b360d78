import numpy as np
import pytest

from configs import sqair_pedestrians
from objcentric.data import cache, loader, pedestrians, video
from objcentric.errors import UserError
from tests.data import videos

pytest.importorskip("cv2", reason="OpenCV is not installed: pip install 'objcentric[video]'")

FRAMES = 80
SHADES = (40, 90)  # of two walkers: 215 and 165 where colours are inverted


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Folder of a sequence of two walkers, each 16x8 pixels."""
    boxes = videos.walk(FRAMES)
    frames = [videos.frame(many, SHADES) for many in boxes]
    return videos.save_mot(tmp_path_factory.mktemp("world") / "walk", frames, boxes)


@pytest.fixture(scope="module")
def config_of(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cache")

    def make(path, **fields):
        c = sqair_pedestrians.data()
        c.update(path=str(path), cache_dir=str(folder), frame_size=(24, 48), canvas=(20, 24), num_frames=3)
        c.update(num_train=40, num_valid=6, num_test=30)
        c.update(**fields)
        return c

    return make


@pytest.fixture(scope="module")
def data(world, config_of):
    return loader.load(config_of(world))


def test_splits_have_the_promised_arrays(data):
    for split, size in zip(data, (40, 6, 30), strict=True):
        assert {key: (array.shape, array.dtype.name) for key, array in split.items()} == {
            "image": ((size, 3, 20, 24, 1), "uint8"),
            "presence": ((size, 3, 2), "uint8"),
            "count": ((size, 3), "int32"),
            "boxes": ((size, 3, 2, 4), "float32"),
            "visibility": ((size, 3, 2), "float32"),
            "label": ((size, 2), "int32"),
        }


def test_annotations_agree_with_one_another(data):
    for split in data:
        there = split["presence"] > 0
        np.testing.assert_array_equal(split["count"], there.sum(2))
        np.testing.assert_array_equal(there.any(1), split["label"] > 0)
        assert (split["visibility"][there] >= 0.5).all() and (split["visibility"][~there] == 0).all()
        assert (split["boxes"][~there] == 0).all()
        y0, x0, y1, x1 = np.moveaxis(split["boxes"], -1, 0)
        np.testing.assert_allclose((y1 - y0)[there], 8)
        np.testing.assert_allclose((x1 - x0)[there], 4)
        inside = (np.minimum(y1, 20) - np.maximum(y0, 0)) * (np.minimum(x1, 24) - np.maximum(x0, 0))
        np.testing.assert_allclose(split["visibility"][there], inside[there] / 32, rtol=1e-6)
        assert (split["count"].max(1) >= 1).all()


def test_walkers_are_bright_on_black_where_their_boxes_are(data):
    inner = {1: 0, 2: 0}
    for image, boxes, there, label in zip(
        *(data.train[k] for k in ("image", "boxes", "presence", "label")), strict=True
    ):
        for t in range(3):
            rest = image[t, ..., 0].copy()
            for i in np.flatnonzero(there[t]):
                y0, x0, y1, x1 = boxes[t, i]
                middle = image[t, max(int(y0 + 2), 0) : int(y1 - 2), max(int(x0 + 2), 0) : int(x1 - 1), 0]
                if there[t].sum() == 1 and middle.size:
                    assert (middle == 255 - SHADES[label[i] - 1]).all()
                    inner[int(label[i])] += 1
                rest[max(int(y0 - 1), 0) : int(y1 + 2), max(int(x0 - 1), 0) : int(x1 + 2)] = 0
            rest[:, :4], rest[:, -4:], rest[:8], rest[-8:] = 0, 0, 0, 0  # walkers who are less than half in view
            assert not rest.any()
    assert min(inner.values()) > 10


def test_walkers_walk(data):
    """Two frames of the video at 2 pixels each, halved: 2 pixels from one frame to the next."""
    both = (data.train["presence"][:, 1:] & data.train["presence"][:, :-1]) > 0
    steps = np.diff(data.train["boxes"][..., 1], axis=1)[both]
    assert (np.abs(steps) == 2).all() and len(steps) > 20
    assert {-2, 2} == set(steps)


def test_a_larger_copy_gives_the_same_people(tmp_path, config_of, data):
    boxes = videos.walk(FRAMES)
    frames = [videos.frame(many, SHADES).repeat(2, 0).repeat(2, 1) for many in boxes]
    larger = loader.load(config_of(videos.save_mot(tmp_path / "a", frames, 2 * boxes))).train
    for key in ("presence", "boxes", "label"):
        np.testing.assert_array_equal(larger[key], data.train[key])
    differs = larger["image"] != data.train["image"]  # at corners, which lose more pixels where frames are smaller
    assert differs.mean() < 0.2 * (data.train["image"] > 0).mean()


def test_frames_may_be_stretched_a_little(world, config_of):
    boxes = loader.load(config_of(world, frame_size=(24, 46))).train["boxes"]
    np.testing.assert_allclose(np.unique((boxes[..., 3] - boxes[..., 1]).round(4)), [0, 8 * 46 / 96], rtol=1e-4)


def test_splits_are_of_their_own_frames_a_step_apart(tmp_path, config_of):
    """A walker whose shade is the number of the frame says when an image was taken."""
    boxes = videos.walk(FRAMES, [(10, 0, 3)], (20, 10))
    frames = [videos.frame(many, [t]) for t, many in enumerate(boxes)]
    folder = videos.save_folder(tmp_path / "img", frames)
    for step in (1, 3):
        c = config_of(folder, frame_step=step, canvas=(24, 48), num_test=60, num_frames=2, min_objects=0)
        for split, first, end in zip(loader.load(c), (0, 56, 64), (56, 64, 80), strict=True):
            time = 255 - split["image"].max((2, 3, 4)).astype(int)
            time = time[(split["image"] > 0).mean((2, 3, 4)).min(1) > 0.03]  # not an edge alone
            assert (np.diff(time, axis=1) == step).all()
            assert first <= time.min() and time.max() < end
            assert len(np.unique(time)) > (end - first) / 3
            assert list(split) == ["image"]


def test_frames_that_are_missing_are_stepped_over(world, config_of):
    numbers = np.concatenate([[1, 2, 3, 5, 6, 7, 9], range(101, 104)])  # of which the first 7 are those of training
    windows = pedestrians._windows(config_of(world, num_frames=3, frame_step=2), numbers, "train")
    np.testing.assert_array_equal(numbers[windows], [[1, 3, 5], [3, 5, 7], [5, 7, 9]])


def rows(*frames):
    """Of frames that are lists of (identity, box, ignore)."""
    return [
        pedestrians._Row(
            np.array([identity for identity, _, _ in frame], int),
            np.array([box for _, box, _ in frame], float).reshape(-1, 4),
            np.array([ignore for _, _, ignore in frame], bool),
        )
        for frame in frames
    ]


def test_who_is_in_view():
    left, below, away = (0, -2, 4, 2), (19, 0, 23, 4), (40, 0, 44, 4)
    frames = rows([(3, left, False), (5, below, False)], [], [(5, away, True), (3, (6, 6, 10, 10), False)])
    seen = pedestrians.look(frames, np.array([0, 0]), (20, 20), 0.5)
    np.testing.assert_array_equal(seen.frame, [0, 2])
    np.testing.assert_array_equal(seen.identity, [3, 3])
    np.testing.assert_array_equal(seen.share, [0.5, 1])
    np.testing.assert_array_equal(seen.box, [left, (6, 6, 10, 10)])
    seen = pedestrians.look(frames, np.array([3, -1]), (20, 20), 0.15)
    np.testing.assert_array_equal(seen.frame, [0, 0, 2])
    np.testing.assert_array_equal(seen.identity, [3, 5, 3])
    np.testing.assert_array_equal(seen.share, [3 / 16, 1, 1])
    np.testing.assert_array_equal(seen.box, [(-3, -1, 1, 3), (16, 1, 20, 5), (3, 7, 7, 11)])


def test_a_crop_with_someone_to_be_ignored_is_not_used():
    frames = rows([(1, (0, 0, 4, 4), False), (2, (18, 0, 22, 4), True)])
    assert pedestrians.look(frames, np.array([0, 0]), (20, 20), 0.5) is None
    assert pedestrians.look(frames, np.array([0, 0]), (20, 20), 0.6) is not None


def test_someone_whose_boxes_are_to_be_ignored(tmp_path, config_of):
    boxes = videos.walk(FRAMES)
    frames = [videos.frame(many, SHADES) for many in boxes]
    train = loader.load(config_of(videos.save_mot(tmp_path / "a", frames, boxes, ignored=(2,)), canvas=(10, 12))).train
    assert train["label"].shape[1] == 1 and (train["label"] == 1).all()


def test_numbers_of_people_are_bounded(world, config_of, data):
    assert set(np.unique(data.train["count"].max(1))) == {1, 2}
    one = loader.load(config_of(world, max_objects=1)).train
    assert one["count"].max() == 1
    two = loader.load(config_of(world, min_objects=2)).train
    assert (two["count"].max(1) == 2).all()
    any_number = loader.load(config_of(world, min_objects=0)).train
    assert (any_number["count"].max(1) == 0).any()


def test_other_sequences_by_another_seed_and_the_same_by_the_same(world, config_of, data, tmp_path):
    same = loader.load(config_of(world, cache_dir=str(tmp_path), device_bytes=1 << 20))
    for a, b in zip(data, same, strict=True):
        for key in a:
            np.testing.assert_array_equal(a[key], b[key])
    other = loader.load(config_of(world, seed=1))
    assert (data.train["image"] != other.train["image"]).any()


def test_what_is_prepared_is_not_prepared_again(world, config_of, data, monkeypatch):
    monkeypatch.setattr(video, "open", lambda path: pytest.fail("the video was opened"))
    again = loader.load(config_of(world))
    for a, b in zip(data, again, strict=True):
        for key in a:
            np.testing.assert_array_equal(a[key], b[key])


def test_other_files_are_prepared_anew(tmp_path, config_of):
    boxes = videos.walk(FRAMES)
    folder = videos.save_mot(tmp_path / "a", [videos.frame(many, SHADES) for many in boxes], boxes)
    first = loader.load(config_of(folder)).train["label"].max()
    file = folder / "gt" / "gt.txt"
    file.write_text(file.read_text().replace(",2,", ",12,"))
    assert (first, loader.load(config_of(folder)).train["label"].max()) == (2, 12)


def test_damaged_preparations(world, config_of, tmp_path):
    c = config_of(world, cache_dir=str(tmp_path))
    loader.load(c)
    (file,) = cache.root(c.cache_dir).rglob("splits.npz")
    assert list(file.parent.iterdir()) == [file]
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(UserError, match="prepared data in .* are damaged .*delete that folder"):
        loader.load(c)


def test_colours_need_not_be_inverted(tmp_path, config_of):
    boxes = videos.walk(FRAMES)
    frames = [255 - videos.frame(many, SHADES) for many in boxes]
    image = loader.load(config_of(videos.save_mot(tmp_path / "a", frames, boxes), invert=False)).train["image"]
    assert image.max() == 215


@pytest.mark.parametrize(
    "fields, message",
    [
        ({"frame_size": (49, 96)}, r"frames of .* are \(48, 96\), less than data.frame_size=\(49, 96\): reduce it"),
        ({"frame_size": (48, 97)}, r"frames of .* are \(48, 96\), less than data.frame_size=\(48, 97\): reduce it"),
        ({"frame_size": (24, 45)}, r"data.frame_size=\(24, 45\) would stretch them: use \(24, 48\)"),
        ({"frame_size": (22, 48)}, r"data.frame_size=\(22, 48\) would stretch them: use \(24, 48\)"),
        (
            {"num_frames": 9},
            "is too short, or lacks frames: the valid split has 10% of its 80 frames, but no 17 in a row",
        ),
        ({"frame_step": 40}, "is too short, .* the train split has 70% .*reduce data.num_frames or data.frame_step"),
        ({"min_objects": 3}, "hardly a crop of 24x20 shows 3 to 3 people"),
    ],
)
def test_what_a_video_cannot_give(world, config_of, fields, message):
    with pytest.raises(UserError, match=message) as error:
        loader.load(config_of(world, **fields))
    assert "\n" not in str(error.value)


def test_videos_that_give_nothing(tmp_path, config_of):
    wall = videos.save_folder(tmp_path / "wall", [videos.frame([], [])] * 40)
    with pytest.raises(UserError, match="hardly a crop of 24x20 shows 1 to 3 patches that move"):
        loader.load(config_of(wall, num_frames=2))
    assert not loader.load(config_of(wall, num_frames=2, min_objects=0)).train["image"].any()
    short = videos.save_folder(tmp_path / "short", [videos.frame([], [])])
    with pytest.raises(UserError, match="is too short"):
        loader.load(config_of(short))
    mixed = videos.save_folder(tmp_path / "mixed", [*[videos.frame([], [])] * 40, videos.frame([], [], 40)])
    with pytest.raises(UserError, match="frame 41 is 96x40, not 96x48"):
        loader.load(config_of(mixed, num_frames=2))


def test_without_boxes_patches_are_counted(tmp_path, config_of):
    """Of two walkers, whose paths do not touch, crops show as many as are asked for."""
    boxes = videos.walk(FRAMES)
    bare = videos.save_folder(tmp_path / "bare", [videos.frame(many, SHADES) for many in boxes])
    for most in (1, 2):
        train = loader.load(config_of(bare, max_objects=most)).train
        assert set(train) == {"image"}
        numbers = [max(map(pedestrians.patches, image[..., 0])) for image in train["image"]]
        assert 1 <= min(numbers) and max(numbers) == most
    dots = np.zeros((20, 30), np.uint8)
    dots[2:5, 2:4] = dots[10:12, 10:13] = dots[17, 17:20] = 200  # 6, 6 and 3 of 600 pixels
    assert pedestrians.patches(dots) == 2
    with pytest.raises(UserError, match="shows 3 to 3 patches that move"):
        loader.load(config_of(bare, min_objects=3))


def test_real_people(data_dir, config_of):
    folder = data_dir / "mot15" / "train" / "PETS09-S2L1"
    if not folder.is_dir():
        pytest.skip(f"real data: there is no {folder}")
    opened = video.open(folder)
    people, elsewhere = [], []
    tracks = pedestrians._tracks(folder, np.array([192 / 288, 256 / 384]))
    first = video.Video(opened.path, opened.numbers[:120], opened.height, opened.width, opened.decode)
    for number, image in zip(first.numbers, pedestrians.foreground(first, (192, 256)), strict=True):
        inside = np.zeros(image.shape, bool)
        for y0, x0, y1, x1 in tracks[int(number)].box.clip(0).round().astype(int):
            inside[y0:y1, x0:x1] = True
            people.append((image[y0:y1, x0:x1] > 0).mean())
        elsewhere.append((image[~inside] > 0).mean())
    assert np.median(people) > 0.6 and np.mean(elsewhere) < 0.02
