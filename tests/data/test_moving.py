import itertools

import numpy as np
import pytest

from objcentric.data import builder, digits, loader, moving


@pytest.fixture(scope="module")
def pool():
    return digits.load_digits("embedded", "", "train", 0)


def compose(config, pool, n=60):
    config = moving.MovingConfig.make(config)
    return [moving.compose(config, pool, np.random.default_rng((0, i))) for i in range(n)]


def test_splits_have_the_promised_arrays(moving_config):
    for split, size in zip(loader.load(moving_config), (24, 4, 5), strict=True):
        assert {key: (array.shape, array.dtype.name) for key, array in split.items()} == {
            "image": ((size, 4, 40, 36, 1), "uint8"),
            "presence": ((size, 4, 2), "uint8"),
            "count": ((size, 4), "int32"),
            "boxes": ((size, 4, 2, 4), "float32"),
            "visibility": ((size, 4, 2), "float32"),
            "label": ((size, 2), "int32"),
        }


def test_one_frame_of_one_digit(moving_config):
    moving_config.update(num_frames=1, num_objects=(1, 1), appear="any_time")
    for split in loader.load(moving_config):
        assert split["image"].shape[1] == 1 and (split["count"] == 1).all() and (split["visibility"] == 1).all()


@pytest.mark.parametrize("motion", ["paper", "bounce"])
@pytest.mark.parametrize("appear", ["always", "any_time"])
def test_image_is_what_the_annotations_say(moving_config, pool, motion, appear):
    """One-shade squares: the picture follows from the boxes alone."""
    moving_config.update(motion=motion, appear=appear, num_objects=(0, 3), num_frames=8)
    shades = digits.Digits(np.uint8([[[60]], [[120]], [[200]]]), np.int32([60, 120, 200]))
    counts = np.zeros(4, int)
    for sequence in compose(moving_config, shades):
        image, presence, count, boxes, visibility, label = sequence.values()
        expected = np.zeros((8, 40, 36), np.uint8)
        for t, i in np.ndindex(8, 3):
            y0, x0, y1, x1 = boxes[t, i].astype(int)
            if presence[t, i]:
                assert y0 >= 0 and x0 >= 0 and y1 - y0 == x1 - x0 and 10 <= y1 - y0 <= 14
                part = expected[t, y0:y1, x0:x1]
                np.maximum(part, np.uint8(label[i]), out=part)
                assert visibility[t, i] == pytest.approx(part.size / ((y1 - y0) * (x1 - x0)))
            else:
                assert y1 == x1 == 0 and visibility[t, i] == 0
        np.testing.assert_array_equal(image[..., 0], expected)
        np.testing.assert_array_equal(count, presence.sum(axis=1))
        np.testing.assert_array_equal(presence.any(axis=0), label >= 0)
        counts[(label >= 0).sum()] += 1
    assert counts.min() > 5


def test_visibility_is_a_share_of_brightness(moving_config):
    moving_config.update(num_objects=(1, 1), object_size=(10, 10), num_frames=10)
    glyph = np.uint8([[30, 90], [0, 200]])
    whole = builder.resize(glyph, 10).astype(float)
    seen = set()
    for sequence in compose(moving_config, digits.Digits(glyph[None], np.int32([0]))):
        for (y, x, *_), share in zip(sequence["boxes"][:, 0].astype(int), sequence["visibility"][:, 0], strict=True):
            assert share == pytest.approx(whole[: 40 - y, : 36 - x].sum() / whole.sum())
            seen.add(share)
    assert len(seen) > 30 and {0, 1} < seen


@pytest.mark.parametrize("appear", ["always", "any_time"])
def test_digits_start_in_view_and_those_of_the_first_frame_apart(moving_config, pool, appear):
    moving_config.update(appear=appear, num_objects=(3, 3), num_frames=5)
    together = 0
    for sequence in compose(moving_config, pool):
        first = sequence["presence"].argmax(axis=0)
        assert (sequence["visibility"][first, np.arange(3)] == 1).all()
        boxes = sequence["boxes"][0, sequence["presence"][0] > 0]
        for a, b in itertools.combinations(boxes, 2):
            assert (a[2:] <= b[:2]).any() or (b[2:] <= a[:2]).any()
            together += 1
    assert together > 10


def test_digits_that_are_always_there(moving_config, pool):
    counts = []
    for sequence in compose(moving_config, pool, 600):
        count = sequence["count"][0]
        assert (sequence["count"] == count).all() and (sequence["presence"] == (np.arange(2) < count)).all()
        counts.append(count)
    np.testing.assert_allclose(np.bincount(counts), 200, atol=60)


def test_digits_that_come_and_go_at_any_time(moving_config, pool):
    moving_config.update(appear="any_time", num_objects=(1, 1), num_frames=6)
    presence = np.stack([sequence["presence"][:, 0] for sequence in compose(moving_config, pool, 600)]).astype(int)
    assert (np.abs(np.diff(presence, prepend=0, append=0)).sum(axis=1) == 2).all()  # once, in one piece
    t = np.arange(6)
    expected = 1 - (t / 6) ** 2 - (1 - (t + 1) / 6) ** 2  # of two frames, not both before nor both after it
    np.testing.assert_allclose(presence.mean(axis=0), expected, atol=0.08)


def test_bouncing_digits_stay_in_view(moving_config, pool):
    moving_config.update(motion="bounce", speed=15.0, num_frames=12)
    for sequence in compose(moving_config, pool):
        np.testing.assert_array_equal(sequence["visibility"], sequence["presence"])


def test_a_digit_as_large_as_the_canvas_rests(moving_config, pool):
    moving_config.update(motion="bounce", canvas=(12, 12), object_size=(12, 12), num_objects=(1, 1))
    for sequence in compose(moving_config, digits.Digits(np.full((1, 4, 4), 9, np.uint8), np.int32([0]))):
        assert (sequence["boxes"] == [0, 0, 12, 12]).all() and (sequence["image"] == 9).all()


class Drift:
    """A random generator that draws the upper end of a range, and no noise."""

    def uniform(self, low, high, shape):
        return np.full(shape, float(high))

    def normal(self, mean, std, shape):
        return np.zeros(shape)


def paths(start, end, *args):
    return moving.paths(np.array([float(start)]), np.array([end]), *args, Drift())[:, 0]


def test_path_of_constant_velocity_is_mirrored():
    np.testing.assert_allclose(paths(4, 10, 7, 3, 0), [4, 7, 10, 7, 4, 1, 2])
    np.testing.assert_allclose(paths(4, 10, 4, 27, 0), [4, 9, 2, 5])  # of 31, -18 and -25
    np.testing.assert_allclose(paths(0, 0, 4, 3, 0), 0, atol=1e-5)


def test_acceleration_turns_with_velocity_and_has_bounds():
    # velocity 4 (bounded, 4 + 1 each time); at 11 mirrored to 9: both turn, so that velocity stays at -4.
    np.testing.assert_allclose(paths(3, 10, 6, 4, 1), [3, 7, 9, 5, 1, 3])


def test_acceleration_against_velocity():
    class Brake(Drift):
        def uniform(self, low, high, shape):
            return np.full(shape, 2.0 if high == 2 else float(low))

    path = moving.paths(np.array([20.0]), np.array([100.0]), 7, 2.0, 1.0, Brake())[:, 0]
    np.testing.assert_allclose(path, [20, 21, 21, 20, 18, 16, 14])


def test_velocity_is_that_of_the_published_data():
    """|velocity| 7.8 px/frame at first and 12.2 in the tenth frame; mirrors do not change it."""
    start = np.full((20_000, 2), 1e6)
    path = moving.paths(start, 2 * start, 11, 10.0, 3.0, np.random.default_rng(0))
    speed = np.linalg.norm(np.diff(path, axis=0), axis=-1).mean(axis=1)
    np.testing.assert_allclose(speed[[0, 9]], [7.8, 12.2], atol=0.1)


def test_view_is_that_of_the_published_data(moving_config, pool):
    """A quarter of digits of MNIST's size are less than half in view; few are out of it."""
    moving_config.update(canvas=(50, 50), num_frames=10, num_objects=(2, 2), object_size=(20, 20))
    visibility = np.stack([sequence["visibility"] for sequence in compose(moving_config, pool, 500)])
    assert (visibility < 0.5).mean() == pytest.approx(0.25, abs=0.03)
    assert (visibility == 0).mean() == pytest.approx(0.02, abs=0.01)
    assert (visibility[:, 0] == 1).all()


def test_frames_are_scenes(moving_config):
    moving_config.update(appear="any_time", num_objects=(0, 3))
    sequences = loader.load(moving_config).train
    frames = loader.frames(sequences)
    assert {key: array.shape for key, array in frames.items()} == {
        "image": (96, 40, 36, 1), "presence": (96, 3), "count": (96,), "boxes": (96, 3, 4), "visibility": (96, 3),
        "label": (96, 3),
    }  # fmt: skip
    first = np.arange(3) < frames["count"][:, None]
    np.testing.assert_array_equal(frames["presence"], first)
    np.testing.assert_array_equal(frames["label"] >= 0, first)
    np.testing.assert_array_equal(frames["boxes"].any(axis=-1), first)
    assert (frames["visibility"][~first] == 0).all()
    for i, t in np.ndindex(24, 4):
        np.testing.assert_array_equal(frames["image"][4 * i + t], sequences["image"][i, t])
        there = sequences["presence"][i, t] > 0
        for key in ("boxes", "visibility"):
            np.testing.assert_array_equal(frames[key][4 * i + t][: there.sum()], sequences[key][i, t][there])
        np.testing.assert_array_equal(frames["label"][4 * i + t][: there.sum()], sequences["label"][i][there])


def test_frames_are_streamed_where_sequences_are(moving_config):
    whole = loader.frames(loader.load(moving_config).train)
    moving_config.device_bytes = 0
    stream = loader.frames(loader.load(moving_config).train)
    assert stream.size == 96
    rows = [5, 95, 0, 6, 5]
    for key, array in stream.read(rows).items():
        np.testing.assert_array_equal(array, whole[key][rows])
