import itertools
from pathlib import Path

import numpy as np
import pytest
from ml_collections import ConfigDict
from PIL import Image

from configs import mohart_toy, sqair_pedestrians
from objcentric.data import loader, mot, pedestrians, video
from objcentric.errors import UserError
from tests.data import test_labelled, tracks, videos
from tests.experiments import sequences


def test_splits_have_the_promised_arrays(config):
    for split, size in zip(loader.load(config), (24, 4, 5), strict=True):
        assert {key: (array.shape, array.dtype.name) for key, array in split.items()} == {
            "image": ((size, 40, 36, 1), "uint8"),
            "count": ((size,), "int32"),
            "boxes": ((size, 2, 4), "float32"),
            "label": ((size, 2), "int32"),
        }


@pytest.mark.parametrize(
    "field, value",
    [
        ("name", "digits"),
        ("source", "mnst"),
        ("source", ""),
        ("background", "noise"),
        ("canvas", (50,)),
        ("canvas", (50, 0)),
        ("canvas", (50.5, 50)),
        ("num_objects", (3, 2)),
        ("num_objects", (-1, 2)),
        ("num_objects", (0, 0)),
        ("object_size", (0, 9)),
        ("object_size", (12, 9)),
        ("object_size", (30, 37)),
        ("num_train", 0),
        ("num_valid", 0),
        ("num_test", -1),
        ("seed", -1),
        ("device_bytes", -1),
    ],
)
def test_wrong_field_is_named(config, field, value):
    config[field] = value
    with pytest.raises(UserError, match=f"^data.{field} ") as error:
        loader.load(config)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "field, value",
    [
        ("name", "moving"),
        ("source", "mnst"),
        ("path", "elsewhere"),
        ("motion", "jump"),
        ("appear", "never"),
        ("num_frames", 0),
        ("speed", -1.0),
        ("speed", float("nan")),
        ("acceleration", -0.1),
        ("acceleration", float("inf")),
        ("num_objects", (2, 1)),
        ("object_size", (10, 37)),
        ("num_valid", 0),
        ("seed", -1),
    ],
)
def test_wrong_field_of_moving_digits_is_named(moving_config, field, value):
    moving_config[field] = value
    with pytest.raises(UserError, match=f"^data.{field} ") as error:
        loader.load(moving_config)
    assert "\n" not in str(error.value)


def test_the_first_examples():
    split = sequences.make_split(5, 0)
    stream = loader.Stream(5, lambda rows: {name: array[list(rows)] for name, array in split.items()})
    for num in (3, 9):
        for source in (split, stream):
            found = loader.first(source, num)
            assert found.keys() == split.keys()
            np.testing.assert_array_equal(found["image"], split["image"][:num])


def test_no_more_is_read_ahead_than_memory_allows(monkeypatch):
    stream = loader.Stream(5, lambda rows: {"image": np.zeros((len(rows), 4, 25), np.uint8)})  # 100 bytes each
    assert stream.fitting(3, 7) == 7
    monkeypatch.setattr(loader, "READ_AHEAD", 999)
    assert [stream.fitting(size, 7) for size in (1, 2, 3, 20)] == [7, 4, 3, 1]


def test_fields_of_another_kind_of_data(config, moving_config):
    config.name, moving_config.name = moving_config.name, config.name
    with pytest.raises(UserError, match="data.motion is missing.*start from configs/sqair.py"):
        loader.load(config)
    with pytest.raises(UserError, match="data.background is missing.*start from configs/air.py"):
        loader.load(moving_config)


@pytest.mark.parametrize(
    "field, value",
    [
        ("path", ""),
        ("canvas", (64,)),
        ("num_frames", 0),
        ("frame_step", 0),
        ("frame_size", (192,)),
        ("frame_size", (0, 256)),
        ("frame_size", (192, 63)),
        ("frame_size", (63, 256)),
        ("history", 0),
        ("min_objects", -1),
        ("min_objects", 4),
        ("max_objects", 0),
        ("min_visible", 0.0),
        ("min_visible", 1.1),
        ("num_test", 0),
        ("seed", -1),
    ],
)
def test_wrong_field_of_pedestrians_is_named(field, value):
    c = sqair_pedestrians.data()
    c.path = "somewhere"
    c[field] = value
    with pytest.raises(UserError, match=f"^data.{field} ") as error:
        loader.load(c)
    assert "\n" not in str(error.value)


def test_pedestrians_need_their_own_fields(config):
    config.name = "pedestrians"
    with pytest.raises(UserError, match="data.invert is missing.*start from configs/sqair_pedestrians.py"):
        loader.load(config)
    older = sqair_pedestrians.data()
    del older.frame_size
    with pytest.raises(UserError, match="data.frame_size is missing.*start from configs/sqair_pedestrians.py"):
        loader.load(older)


def test_frames_of_pedestrians_may_be_upright():
    c = sqair_pedestrians.data()
    c.update(path="somewhere", frame_size=(256, 64))
    loader.check(c)


@pytest.fixture
def prepared(monkeypatch):
    """config.data of pedestrians whose splits are made up: without annotations, each pixel its row's number."""

    def prepare(c):
        sizes = {"train": 24, "valid": 4, "test": 5}
        rows = {split: np.arange(size, dtype=np.uint8)[:, None, None, None, None] for split, size in sizes.items()}
        return {split: {"image": np.tile(array, (1, 3, 6, 7, 1))} for split, array in rows.items()}

    monkeypatch.setattr(pedestrians, "prepare", prepare)
    c = sqair_pedestrians.data()
    c.path = "somewhere"
    return c


def test_pedestrians_stream_and_need_no_annotations(prepared):
    whole = loader.load(prepared)
    assert [(list(split), split["image"].shape) for split in whole] == [
        (["image"], (size, 3, 6, 7, 1)) for size in (24, 4, 5)
    ]
    prepared.device_bytes = 24 * 3 * 6 * 7 - 1
    streamed = loader.load(prepared)
    assert isinstance(streamed.train, loader.Stream) and isinstance(streamed.test, dict)
    batch = take(streamed.train, 1, 0, 24, 0)[0]["image"]
    np.testing.assert_array_equal(np.sort(batch[:, 0, 0, 0, 0]), np.arange(24))
    frames = loader.frames(streamed.train)
    np.testing.assert_array_equal(frames.read([71, 3])["image"], [np.full((6, 7, 1), 23), np.full((6, 7, 1), 1)])
    np.testing.assert_array_equal(loader.frames(whole.train)["image"], frames.everything()["image"])


WRONG_TRACKS = [
    ("format", "coco"),
    ("path", ""),
    ("frame_size", (50,)),
    ("frame_size", (0, 100)),
    ("num_frames", 1),
    ("frame_step", 0),
    ("num_objects", 0),
    ("overlap", -0.1),
    ("overlap", 1.0),
    ("train_share", 0.0),
    ("train_share", 0.75),
    ("valid_share", 0.0),
    ("valid_share", float("nan")),
    ("min_size", -1.0),
    ("min_visibility", 1.1),
    ("crowded", 1.1),
    ("crowded", -0.1),
    ("seed", -1),
    ("device_bytes", -1),
]


@pytest.mark.parametrize("field, value", WRONG_TRACKS)
def test_wrong_field_of_tracks_is_named(field, value):
    c = tracks.config(**{field: value})
    with pytest.raises(UserError, match=f"^data.{field} ") as error:
        loader.load(c)
    assert "\n" not in str(error.value)


def test_tracks_need_their_own_fields(config):
    config.name = "tracks"
    with pytest.raises(UserError, match="data.format is missing.*start from configs/mohart.py"):
        loader.load(config)
    for field in ("crowded", "kinds", "frame_size"):
        older = tracks.config()
        del older[field]
        with pytest.raises(UserError, match=f"data.{field} is missing.*start from configs/mohart.py"):
            loader.load(older)


def test_shares_may_be_all_where_whole_videos_test():
    loader.check(tracks.config(train_share=0.7, valid_share=0.3, test_videos=("b",)))


@pytest.fixture(scope="module")
def two_videos(tmp_path_factory):
    """Two MOT sequences, of 20 and 16 frames, whose pixels tell which frame they are of, and a cache."""
    folder = tmp_path_factory.mktemp("tracks")
    for name, first, length in (("a", 1, 20), ("b", 21, 16)):
        boxes = np.array([[tracks.box(i, t) for i in (0, 5, 10)] for t in range(length)])
        images = []
        for number in range(first, first + length):
            gradient = np.broadcast_to(np.arange(0, 200, dtype=np.uint8)[:, None], (100, 200, 3)).copy()
            gradient[..., 0] = 7 * number
            images.append(gradient)
        videos.save_mot(folder / name, images, boxes)
    return folder


@pytest.fixture
def tracks_config(two_videos):
    return tracks.config(path=str(two_videos), cache_dir=str(two_videos / "cache"), num_objects=2)


def test_tracks_stream(tracks_config):
    data = loader.load(tracks_config)
    for split, size in zip(data, (2 * (4 + 3), 2 * 2, 2 * 2), strict=True):  # three objects, two of them at a time
        assert isinstance(split, loader.Stream) and split.size == size
        rows = split.read([1, size - 1, 0])
        assert {key: (array.shape, array.dtype.name) for key, array in rows.items()} == {
            "image": ((3, 4, 50, 100, 3), "uint8"),
            "filmed": ((3, 4), "uint8"),
            "boxes": ((3, 4, 2, 4), "float32"),
            "presence": ((3, 4, 2), "uint8"),
            "known": ((3, 4, 2), "uint8"),
            "identity": ((3, 2), "int32"),
        }


def test_what_a_short_video_lacks_is_black(tracks_config):
    """Of 16 frames 4 test, of 20 there are 5: sequences of 5 frames, of which the second video has but four."""
    tracks_config.update(num_frames=4, test_frames=5)
    rows = loader.load(tracks_config).test.everything()
    assert rows["filmed"].sum(1).tolist() == [5, 5, 4, 4]
    assert (rows["image"].any((2, 3, 4)) == rows["filmed"]).all()
    assert rows["presence"][0].all() and rows["presence"][2, :4].all() and not rows["presence"][2, 4].any()


def test_streams_of_tracks_read_what_is_in_the_files(tracks_config, two_videos):
    """Boxes tell the frame, too: their left side is its index."""
    train = loader.load(tracks_config).train
    rows = train.everything()
    starts = [("a", t) for t in (0, 2, 4, 6)] + [("b", t) for t in (0, 2, 4)]
    for i in range(train.size):
        name, start = starts[i // 2]
        np.testing.assert_array_equal(rows["boxes"][i, :, 0, 1], start + np.arange(4))
        for t, image in enumerate(rows["image"][i]):
            file = two_videos / name / "img1" / f"{start + t + 1:06d}.png"
            np.testing.assert_array_equal(image, Image.open(file).resize((100, 50), Image.Resampling.BOX))
        single = train.read([i])
        for key in rows:
            np.testing.assert_array_equal(single[key][0], rows[key][i])
    batch = take(train, 1, 0, train.size, 0)[0]
    order = np.lexsort([batch["identity"][:, 0], batch["image"][:, 0, 0, 0, 0]])
    expected = np.lexsort([rows["identity"][:, 0], rows["image"][:, 0, 0, 0, 0]])
    assert_equal({k: a[order] for k, a in batch.items()}, {k: a[expected] for k, a in rows.items()})


def test_mirrored_and_reversed_tracks(tracks_config):
    plain = loader.load(tracks_config).train.everything()
    size = len(plain["image"])
    tracks_config.mirror = True
    data = loader.load(tracks_config)
    assert (data.train.size, data.valid.size, data.test.size) == (2 * size, 4, 4)
    both = data.train.everything()
    assert_equal(plain, {key: array[:size] for key, array in both.items()})
    np.testing.assert_array_equal(both["image"][size:], plain["image"][..., ::-1, :])
    there = plain["presence"] > 0
    np.testing.assert_array_equal(both["presence"][size:], plain["presence"])
    np.testing.assert_array_equal(both["identity"][size:], plain["identity"])
    left, right = both["boxes"][size:][there].T[[1, 3]]
    np.testing.assert_array_equal((left, right), 100 - plain["boxes"][there].T[[3, 1]])
    assert not both["boxes"][size:][~there].any()

    tracks_config.reverse = True
    data = loader.load(tracks_config)
    assert (data.train.size, data.valid.size, data.test.size) == (4 * size, 4, 4)
    reverse = data.train.read(range(8, 10))  # of the first video there are 8 and then their reversals
    np.testing.assert_array_equal(reverse["image"][0], plain["image"][0, ::-1])
    np.testing.assert_array_equal(reverse["boxes"][0, :, 0, 1], [3, 2, 1, 0])


def unpack(folder: Path, name: str, images: list[np.ndarray], boxes: np.ndarray) -> Path:
    """A data set of a format, of one video with one object, as it is unpacked; returns its data.path."""
    films = {"kth": "person01_walking_d1_uncomp.avi", "drone": "videos/quad/video0/video.mp4"}
    if name in films:
        pytest.importorskip("cv2")
        (folder / films[name]).parent.mkdir(parents=True, exist_ok=True)
        with video.writer(folder / films[name], 25) as write:
            for image in images:
                write(image)
    rows = [tuple(int(v) for v in box) for box in boxes]
    if name == "mot":
        videos.save_mot(folder / "a", images, boxes[:, None])
    elif name == "kitti":
        videos.save_folder(folder / "image_02" / "0000", images)
        for number in range(1, len(images) + 1):  # they count from 0
            file = folder / "image_02" / "0000" / f"{number:06}.png"
            file.rename(file.with_stem(f"{number - 1:06}"))
        (folder / "label_02").mkdir()
        lines = [f"{t} 3 Car 0 0 0 {x0} {y0} {x1} {y1} 1 1 1 1 1 1 1" for t, (y0, x0, y1, x1) in enumerate(rows)]
        (folder / "label_02" / "0000.txt").write_text("\n".join(lines))
    elif name == "kth":
        (folder / "sequences.txt").write_text(f"person01_walking_d1  frames  1-{len(images)}")
        lines = [f"{y0} {x0} {y1} {x1}" for y0, x0, y1, x1 in rows]
        (folder / "boxes.txt").write_text("\n".join(["", "", "", "", f"1 1 walking 1 1 {len(images)}", *lines]))
    elif name == "detrac":
        videos.save_folder(folder / "MVI_1", images, "img{:05d}.png")
        place = '<box left="{}" top="{}" width="{}" height="{}"/>'
        lines = [
            f'<frame num="{t}"><target_list><target id="1">{place.format(x0 + 1, y0 + 1, x1 - x0, y1 - y0)}'
            '<attribute truncation_ratio="0" vehicle_type="car"/></target></target_list></frame>'
            for t, (y0, x0, y1, x1) in enumerate(rows, 1)
        ]
        (folder / "MVI_1.xml").write_text(f'<sequence name="MVI_1">{"".join(lines)}</sequence>')
    else:
        lines = [f'0 {x0} {y0} {x1} {y1} {t} 0 0 0 "Biker"' for t, (y0, x0, y1, x1) in enumerate(rows)]
        (folder / "annotations" / "quad" / "video0").mkdir(parents=True)
        (folder / "annotations" / "quad" / "video0" / "annotations.txt").write_text("\n".join(lines))
    return folder


@pytest.mark.parametrize("name", loader.FORMATS)
def test_every_format_from_files_to_examples(name, tmp_path):
    """Each box is with its frame, which tells its number."""
    boxes = np.array([[8, 4 + 2 * t, 28, 24 + 2 * t] for t in range(12)])
    images = [np.full((48, 96, 3), 20 * t, np.uint8) for t in range(12)]
    path = unpack(tmp_path / "set", name, images, boxes)
    fields = {"format": name, "path": str(path), "cache_dir": str(tmp_path / "cache"), "frame_size": (24, 48)}
    c = tracks.config(num_frames=3, overlap=0.0, grey=name == "kth", num_objects=1, **fields)
    for split, first in zip(loader.load(c), ([0, 3], [6], [9]), strict=True):
        rows = split.read(range(split.size))
        frames = np.add.outer(first, range(3))
        np.testing.assert_allclose(rows["boxes"][:, :, 0], boxes[frames] / 2, atol=0.01)
        np.testing.assert_allclose(rows["image"].mean((2, 3, 4)), 20 * frames, atol=4)  # films are compressed
        assert rows["presence"].all() and rows["known"].all() and rows["filmed"].all()
        assert rows["image"].shape[2:] == (24, 48, 1 if c.grey else 3)


def test_grey_tracks(tracks_config):
    tracks_config.grey = True
    assert loader.load(tracks_config).train.read([0])["image"].shape == (1, 4, 50, 100, 1)


def test_tracks_that_fit_are_arrays(tracks_config):
    streamed = loader.load(tracks_config)
    tracks_config.device_bytes = streamed.train.size * 4 * 50 * 100 * 3
    data = loader.load(tracks_config)
    assert_equal(data.train, streamed.train.everything())
    assert isinstance(data.valid, loader.Stream) and isinstance(data.test, loader.Stream)
    tracks_config.device_bytes -= 1
    assert isinstance(loader.load(tracks_config).train, loader.Stream)


def test_only_chosen_videos_are_decoded(tracks_config, tmp_path):
    tracks_config.update(videos=("b",), cache_dir=str(tmp_path))
    assert loader.load(tracks_config).train.size == 2 * 3
    assert [path.name.split("_")[0] for path in (tmp_path / "frames").iterdir()] == ["b"]


def test_real_tracks(data_dir, tmp_path):
    folder = data_dir / "mot15" / "train" / "TUD-Campus"
    if not folder.is_dir():
        pytest.skip(f"real data: there is no {folder}")
    c = tracks.config(path=str(folder), cache_dir=str(tmp_path), frame_size=(120, 160), num_frames=5, num_objects=8)
    data = loader.load(c)
    boxes = mot.read_boxes(folder / "gt" / "gt.txt")
    numbers = [[number, number + 1, number + 2, number + 3, number + 4] for number in range(1, 37) if number % 2]
    assert (data.train.size, data.valid.size, data.test.size) == (len(numbers[:16]), 7, 7)
    rows = data.train.everything()
    for i in (0, 7, 15):
        for t, number in enumerate(numbers[i]):
            with Image.open(folder / "img1" / f"{number:06d}.jpg") as image:
                expected = image.convert("RGB").resize((160, 120), Image.Resampling.BOX)
            np.testing.assert_array_equal(rows["image"][i, t], expected)
            for slot, identity in enumerate(rows["identity"][i]):
                if rows["presence"][i, t, slot]:
                    box = boxes.box[(boxes.frame == number) & (boxes.identity == identity)][0]
                    expected = np.clip(box / 4, 0, [120, 160, 120, 160])
                    np.testing.assert_allclose(rows["boxes"][i, t, slot], expected, rtol=1e-6)
    assert rows["presence"][:, 0].sum() == sum((boxes.frame == many[0]).sum() for many in numbers[:16])


@pytest.fixture
def stream(config):
    """A stream of the same examples as `whole`, and `whole`."""
    whole = loader.load(config).train
    config.device_bytes = 24 * 40 * 36 - 1
    return loader.load(config).train, whole


def take(stream, n, *args):
    return list(itertools.islice(stream.batches(*args), n))


def assert_equal(a, b):
    assert a.keys() == b.keys()
    for key in a:
        np.testing.assert_array_equal(a[key], b[key])


def test_only_what_does_not_fit_is_streamed(config):
    config.device_bytes = 24 * 40 * 36
    assert isinstance(loader.load(config).train, dict)
    config.device_bytes -= 1
    assert isinstance(loader.load(config).train, loader.Stream)


def test_each_epoch_streams_each_example_once_in_another_order(stream):
    stream, whole = stream
    identify = {row.tobytes(): i for i, row in enumerate(whole["boxes"])}  # of scenes that hold a digit
    epochs = [[identify[row.tobytes()] for b in take(stream, 6, start, 4, 0) for row in b["boxes"]] for start in (0, 6)]
    expected = sorted(identify[row.tobytes()] for row in whole["boxes"])
    assert sorted(epochs[0]) == sorted(epochs[1]) == expected
    assert epochs[0] != epochs[1]


def test_stream_resumes_at_any_step(stream):
    straight = take(stream[0], 9, 0, 10, 7)
    for step in (1, 5):
        for a, b in zip(straight[step:], take(stream[0], 9 - step, step, 10, 7), strict=True):
            assert_equal(a, b)


def test_shards_are_slices_of_the_global_batch(stream):
    whole = take(stream[0], 3, 2, 12, 0)
    shards = [take(stream[0], 3, 2, 12, 0, i, 3) for i in range(3)]
    for t, batch in enumerate(whole):
        assert_equal(batch, {key: np.concatenate([shard[t][key] for shard in shards]) for key in batch})


def test_stream_follows_the_seed(stream):
    a, b = (take(stream[0], 1, 0, 24, seed)[0] for seed in (0, 1))
    assert (a["image"] != b["image"]).any()


def test_batch_that_does_not_divide(stream):
    with pytest.raises(UserError, match="a batch of 10 does not divide among 4 shards"):
        stream[0].batches(0, 10, 0, 0, 4)


def save_scenes(path, size=20, **annotations):
    image = np.broadcast_to(np.arange(size, dtype=np.uint8)[:, None, None, None], (size, 6, 7, 3))
    np.savez(path, image=image, **annotations)


@pytest.fixture
def ready(config, tmp_path):
    config.name, config.path = "scenes", str(tmp_path / "scenes.npz")
    return config


def test_ready_scenes_keep_their_annotations(ready):
    number = np.arange(20)
    label, boxes = np.stack([number] * 3, axis=1), np.ones((20, 3, 4)) * number[:, None, None]
    save_scenes(ready.path, count=number % 3, label=label, boxes=boxes)
    data = loader.load(ready)
    assert [len(split["image"]) for split in data] == [16, 2, 2]
    assert sorted(np.concatenate([split["image"][:, 0, 0, 0] for split in data])) == list(range(20))
    for split in data:
        number = split["image"][:, 0, 0, 0].astype(int)
        there = np.arange(3) < split["count"][:, None]
        np.testing.assert_array_equal(split["count"], number % 3)
        np.testing.assert_array_equal(split["label"], np.where(there, number[:, None], -1))
        np.testing.assert_array_equal(split["boxes"][..., 2], np.where(there, number[:, None], 0))
        assert (split["count"].dtype, split["label"].dtype, split["boxes"].dtype) == (np.int32, np.int32, np.float32)


def test_ready_scenes_need_no_annotations(ready):
    save_scenes(ready.path)
    train = loader.load(ready).train
    assert list(train) == ["image"] and train["image"].shape == (16, 6, 7, 3)


def test_ready_scenes_stream(ready):
    save_scenes(ready.path, count=np.arange(20))
    whole = loader.load(ready).train
    ready.device_bytes = 0
    batch = take(loader.load(ready).train, 1, 0, 16, 0)[0]
    np.testing.assert_array_equal(batch["count"], batch["image"][:, 0, 0, 0])
    np.testing.assert_array_equal(np.sort(batch["count"]), np.sort(whole["count"]))


@pytest.mark.parametrize(
    "size, annotations, message",
    [
        (2, {}, "at least 3"),
        (5, {"boxes": np.ones((5, 2, 4))}, "need 'count'"),
        (5, {"count": -np.ones(5)}, "need 'count'"),
        (5, {"count": np.ones((5, 1))}, "need 'count'"),
        (5, {"count": np.full(5, 3), "boxes": np.ones((5, 2, 4))}, r"'boxes' has shape \(5, 2, 4\).*R >= 3"),
        (5, {"count": np.ones(5), "boxes": np.ones((5, 2, 3))}, "'boxes' has shape"),
        (5, {"count": np.ones(5), "label": np.ones(5)}, "'label' has shape"),
    ],
)
def test_wrong_ready_scenes(ready, size, annotations, message):
    save_scenes(ready.path, size, **annotations)
    with pytest.raises(UserError, match=message):
        loader.load(ready)


def test_ready_scenes_need_a_path(ready):
    ready.path = ""
    with pytest.raises(UserError, match="data.path is empty"):
        loader.load(ready)


def test_worlds_of_circles_are_seeds():
    config = mohart_toy.get_config().data
    config.update(num_train=5, num_valid=2, num_test=3)
    data = loader.load(config)
    assert [split["seed"].tolist() for split in data] == [[5, 6, 7, 8, 9], [3, 4], [0, 1, 2]]
    config.num_train = 9  # does not change what is tested on
    assert loader.load(config).test["seed"].tolist() == [0, 1, 2]
    config.num_frames = 0
    with pytest.raises(UserError, match="^data.num_frames is 0"):
        loader.load(config)


def constellations_data():
    return ConfigDict({"name": "constellations", "num_train": 5, "num_valid": 2, "num_test": 3, "seed": 0})


def test_constellations_are_seeds():
    c = constellations_data()
    assert [split["seed"].tolist() for split in loader.load(c)] == [[5, 6, 7, 8, 9], [3, 4], [0, 1, 2]]
    c.num_test = 0
    with pytest.raises(UserError, match="^data.num_test is 0"):
        loader.load(c)
    del c.num_test
    with pytest.raises(UserError, match="data.num_test is missing.*start from configs/ccae.py"):
        loader.load(c)


@pytest.mark.parametrize(
    "field, value",
    [
        ("source", "mnst"),
        ("source", ""),
        ("path", "elsewhere"),
        ("canvas", (40,)),
        ("canvas", (40, 0)),
        ("shift", -1),
        ("shift", 20),
        ("shift", 1.5),
        ("affine", "yes"),
        ("sobel", 2),
        ("num_train", -1),
        ("num_valid", -1),
        ("num_test", -1),
        ("seed", -1),
        ("device_bytes", -1),
    ],
)
def test_wrong_field_of_labelled_images_is_named(field, value):
    c = test_labelled.config()
    with c.ignore_type():
        c[field] = value
    with pytest.raises(UserError, match=f"^data.{field} ") as error:
        loader.load(c)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("field", ["source", "path", "shift", "sobel", "canvas"])
def test_labelled_images_need_their_own_fields(field):
    c = test_labelled.config()
    del c[field]
    with pytest.raises(UserError, match=f"data.{field} is missing.*start from configs/scae.py"):
        loader.load(c)


def test_labelled_images_stream_where_they_do_not_fit(tmp_path):
    image = np.broadcast_to(np.arange(20, dtype=np.uint8)[:, None, None], (20, 6, 7))
    np.savez(tmp_path / "own.npz", image=image, label=np.arange(20))
    c = test_labelled.config(source=str(tmp_path / "own.npz"), shift=0, device_bytes=16 * 6 * 7)
    whole = loader.load(c)
    assert [len(split["image"]) for split in whole] == [16, 2, 2]
    c.device_bytes -= 1
    streamed = loader.load(c)
    assert isinstance(streamed.train, loader.Stream) and isinstance(streamed.test, dict)
    batch = take(streamed.train, 1, 0, 16, 0)[0]
    np.testing.assert_array_equal(batch["label"], batch["image"][:, 0, 0, 0])
    np.testing.assert_array_equal(np.sort(batch["label"]), np.sort(whole.train["label"]))


def test_examples_of_arrays_and_streams():
    arrays = {"image": np.arange(12).reshape(4, 3), "count": np.arange(4)}
    stream = loader.Stream(4, lambda rows: {key: array[rows] for key, array in arrays.items()})
    for examples in (arrays, stream):
        assert loader.size(examples) == 4
        taken = loader.take(examples, [3, 0])
        assert taken["image"].tolist() == [[9, 10, 11], [0, 1, 2]] and taken["count"].tolist() == [3, 0]
    assert loader.size(arrays["image"]) == 4
    assert loader.take(arrays["image"], [1]).tolist() == [[3, 4, 5]]
