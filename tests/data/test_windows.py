import numpy as np
import pytest

from objcentric.data import windows
from objcentric.errors import UserError
from tests.data import tracks

EVERY = range(1, 21)  # frames, of which 10 train, 5 validate and 5 test


def cut(c, seen, numbers=EVERY, **special):
    return windows.cut(c, [tracks.annotated(seen, **special)], [tracks.frames(numbers)])


def train(c, seen, numbers=EVERY, **special):
    """The training windows of tracks in the first half of the frames; others see to it that no split is empty."""
    return cut(c, seen | {30: range(11, 21)}, numbers, **special)["train"]


def expected(window, identity):
    """Boxes on the canvas, half as large as in the video, of an object in frames given by their numbers, 0: absent."""
    return [np.array(tracks.box(identity, t)) / 2 if t else np.zeros(4) for t in window]


def test_windows_of_one_object():
    out = cut(tracks.config(), {7: EVERY})
    for split, first in (("train", [0, 2, 4, 6]), ("valid", [10]), ("test", [15])):
        w = out[split]
        assert [a.dtype.name for a in w] == ["int32", "int32", "float32", "uint8", "uint8", "int32"]
        np.testing.assert_array_equal(w.video, np.zeros(len(first)))
        np.testing.assert_array_equal(w.frames, np.add.outer(first, range(4)))
        np.testing.assert_array_equal(w.identity, [[7, 0, 0]] * len(first))
        np.testing.assert_array_equal(w.presence, [[[1, 0, 0]] * 4] * len(first))
        np.testing.assert_array_equal(w.boxes[:, :, 0], [expected(window + 1, 7) for window in w.frames])
        np.testing.assert_array_equal(w.boxes[:, :, 1:], np.zeros((len(first), 4, 2, 4)))


@pytest.mark.parametrize(
    "fields, first",
    [
        ({"overlap": 0.0}, [0, 4]),
        ({"overlap": 0.25}, [0, 3, 6]),
        ({"overlap": 0.75}, [0, 1, 2, 3, 4, 5, 6]),
        ({"overlap": 0.99}, [0, 1, 2, 3, 4, 5, 6]),
        ({"num_frames": 2, "frame_step": 3}, [0, 3, 6]),
        ({"num_frames": 2, "frame_step": 3, "overlap": 0.0}, [0, 6]),
        ({"num_frames": 3, "frame_step": 2, "overlap": 0.6}, [0, 2, 4]),
        ({"num_frames": 5}, [0, 2, 4]),
    ],
)
def test_overlap_and_steps(fields, first):
    w = cut(tracks.config(**fields), {7: EVERY})["train"]
    length, step = fields.get("num_frames", 4), fields.get("frame_step", 1)
    np.testing.assert_array_equal(w.frames, np.add.outer(first, step * np.arange(length)))


def test_frames_that_are_missing():
    numbers = [1, 2, 3, 4, 6, 7, 8, 9, 10, 11, *range(31, 41)]
    c = tracks.config(num_frames=3)
    w = cut(c, {7: numbers}, numbers)["train"]
    np.testing.assert_array_equal(np.array(numbers)[w.frames], [[1, 2, 3], [6, 7, 8], [8, 9, 10]])
    c.update(frame_step=2)
    w = cut(c, {7: numbers}, numbers)["train"]
    np.testing.assert_array_equal(np.array(numbers)[w.frames], [[2, 4, 6], [6, 8, 10]])
    np.testing.assert_array_equal(w.boxes[:, :, 0], [expected(window, 7) for window in ([2, 4, 6], [6, 8, 10])])


def test_boxes_in_frames_that_are_missing_are_not_used():
    odd = range(1, 40, 2)
    c = tracks.config(num_frames=2, frame_step=2, overlap=0.0)
    w = cut(c, {7: range(42), 8: range(0, 42, 2)}, odd)["train"]
    np.testing.assert_array_equal(w.frames, [[0, 1], [2, 3], [4, 5], [6, 7], [8, 9]])
    np.testing.assert_array_equal(w.identity, [[7, 0, 0]] * 5)
    np.testing.assert_array_equal(w.boxes[:, :, 0], [expected(2 * window + 1, 7) for window in w.frames])


def test_objects_are_those_of_the_first_frame():
    w = train(tracks.config(overlap=0.0), {5: range(1, 9), 3: range(1, 5), 4: range(2, 9)})
    np.testing.assert_array_equal(w.identity, [[3, 5, 0], [4, 5, 0]])
    np.testing.assert_array_equal(w.boxes[:, :, 0], [expected(range(1, 5), 3), expected(range(5, 9), 4)])
    np.testing.assert_array_equal(w.boxes[:, :, 1], [expected(range(1, 5), 5), expected(range(5, 9), 5)])


def test_windows_without_objects_are_not_formed():
    w = train(tracks.config(overlap=0.0), {5: [2, 3, 4, 5]})
    np.testing.assert_array_equal(w.frames, [[4, 5, 6, 7]])
    np.testing.assert_array_equal(w.presence[0, :, 0], [1, 0, 0, 0])


def test_what_comes_back_is_a_new_object():
    w = train(tracks.config(), {5: [1, 3, 4, 5, 6], 6: range(1, 11)})
    np.testing.assert_array_equal(w.identity[:, :2], [[5, 6], [5, 6], [5, 6], [6, 0]])
    np.testing.assert_array_equal(w.presence[:3, :, 0], [[1, 0, 0, 0], [1, 1, 1, 1], [1, 1, 0, 0]])
    np.testing.assert_array_equal(w.known[:3, :, 0], [[1, 1, 0, 0], [1, 1, 1, 1], [1, 1, 1, 1]])  # it came back
    seen = [1, 0, 0, 0], [3, 4, 5, 6], [5, 6, 0, 0]
    np.testing.assert_array_equal(w.boxes[:3, :, 0], [expected(window, 5) for window in seen])
    assert w.presence[:3, :, 1].all()


@pytest.mark.parametrize(
    "fields, special",
    [
        ({}, {"ignore": True}),
        ({"kinds": ("Pedestrian",)}, {"kind": "Car"}),
        ({"min_visibility": 0.5}, {"visibility": 0.49}),
        ({}, {"box": (20, 20, 27, 40)}),  # 3.5 pixels of the canvas
        ({}, {"box": (20, 20, 40, 27)}),
        ({}, {"box": (20, 193, 40, 203)}),  # of 5, where 1.5 are outside
        ({"min_size": 0.0}, {"box": (20, -10, 40, 0)}),
    ],
)
def test_rows_that_count_as_absent(fields, special):
    """Absent in the third frame, and with it from there on; and in the first: not in the window."""
    c = tracks.config(overlap=0.0, **fields)
    special = {field: {(5, 3): value, (6, 1): value} for field, value in special.items()}
    w = train(c, {5: range(1, 5), 6: range(1, 5)}, **special)
    np.testing.assert_array_equal(w.identity, [[5, 0, 0]])
    np.testing.assert_array_equal(w.presence[0, :, 0], [1, 1, 0, 0])
    np.testing.assert_array_equal(w.known[0], [[1, 0, 0], [1, 0, 0], [0, 0, 0], [0, 0, 0]])
    np.testing.assert_array_equal(w.boxes[0, :, 0], expected([1, 2, 0, 0], 5))


@pytest.mark.parametrize(
    "fields, special",
    [
        ({"kinds": ("Car", "Pedestrian")}, {"kind": "Car"}),
        ({"min_visibility": 0.5}, {"visibility": 0.5}),
        ({}, {"box": (20, 20, 28, 40)}),
        ({"min_size": 3.0}, {"box": (20, 20, 40, 27)}),
        ({"min_size": 0.0}, {"box": (20, -10, 40, 1)}),
    ],
)
def test_rows_that_count(fields, special):
    special = {field: {(5, 3): value} for field, value in special.items()}
    assert train(tracks.config(overlap=0.0, **fields), {5: range(1, 5)}, **special).presence[0, :, 0].all()


def test_boxes_are_cut_off_at_the_frame():
    w = train(
        tracks.config(overlap=0.0), {5: range(1, 5)}, box={(5, 2): (-10, -20, 60, 40), (5, 3): (20, 30, 300, 999)}
    )
    np.testing.assert_array_equal(w.boxes[0, 1:3, 0], [(0, 0, 30, 20), (10, 15, 50, 100)])


def test_the_aspect_may_change():
    w = train(tracks.config(overlap=0.0, frame_size=(50, 400)), {5: range(1, 5)})
    np.testing.assert_array_equal(w.boxes[0, :, 0], np.array(expected(range(1, 5), 5)) * [1, 4, 1, 4])


def test_many_objects_are_dealt():
    seen = {i: range(1, 11) for i in range(1, 9)}
    c = tracks.config()
    w = train(c, seen)
    np.testing.assert_array_equal(w.frames[:, 0], np.repeat([0, 2, 4, 6], 3))
    dealt = w.identity.reshape(4, 9)
    np.testing.assert_array_equal(np.sort(dealt), [range(9)] * 4)
    assert (dealt[:, -1] == 0).all()  # what is empty comes last
    assert len({tuple(row) for row in dealt}) == 4  # another order in each window
    for identity, frames, boxes in zip(w.identity, w.frames, w.boxes, strict=True):
        for slot, i in enumerate(identity):
            np.testing.assert_array_equal(boxes[:, slot], expected(frames + 1 if i else [0] * 4, i))
    for a, b in zip(w, train(c, seen), strict=True):
        np.testing.assert_array_equal(a, b)
    assert (train(tracks.config(seed=1), seen).identity != w.identity).any()
    two = windows.cut(
        c, [tracks.annotated({i: EVERY for i in seen}, name) for name in "ab"], [tracks.frames(EVERY)] * 2
    )
    np.testing.assert_array_equal(two["train"].video, np.repeat([0, 1], 12))
    assert (two["train"].identity[12:] != w.identity).any()


def test_as_many_as_there_are_slots_keep_their_order():
    w = train(tracks.config(), {i: range(1, 11) for i in (5, 9, 7)})
    np.testing.assert_array_equal(w.identity, [[5, 7, 9]] * 4)


def test_single_objects():
    w = train(tracks.config(num_objects=1, overlap=0.0), {5: range(1, 9), 6: range(1, 9), 7: [6, 7]})
    np.testing.assert_array_equal(w.frames[:, 0], [0, 0, 4, 4])
    assert sorted(w.identity[:2, 0]) == sorted(w.identity[2:, 0]) == [5, 6]
    assert w.boxes.shape == (4, 4, 1, 4)


def test_crowded_windows():
    """Three in the first window for 11 of 12 frames, three in the second for 9 of 12, two in the last."""
    c = tracks.config(overlap=0.0, num_frames=4, num_objects=3, train_share=0.6, valid_share=0.2)
    seen = {1: EVERY, 2: [t for t in EVERY if t != 4], 3: [t for t in EVERY if t not in (6, 9)]}
    for crowded, first in ((0.75, [0, 4]), (0.76, [0]), (11 / 12, [0]), (0.0, [0, 4, 8])):
        c.crowded = crowded
        np.testing.assert_array_equal(cut(c, seen)["train"].frames[:, 0], first)
    c.crowded = 0.95
    with pytest.raises(UserError, match="none of the 3 windows of the train split has 3 objects.*data.crowded"):
        cut(c, seen)


def test_the_rest_of_those_dealt_is_not_crowded():
    for num_objects, examples in ((9, 3), (8, 2), (7, 2)):
        seen = {i: range(1, 11) for i in range(1, num_objects + 1)}
        test = {i: range(11, 21) for i in (10, 11, 12)}
        w = cut(tracks.config(crowded=0.5, overlap=0.0), seen | test)["train"]
        assert (w.identity > 0).all() and len(w.identity) == 2 * examples


def test_reversed_windows():
    c = tracks.config(overlap=0.0, reverse=True, valid_share=0.3)
    out = cut(c, {5: [1, 3, 4, *range(11, 21)], 6: [2, 3, 7, 8]})
    w = out["train"]
    np.testing.assert_array_equal(w.frames, [[0, 1, 2, 3], [3, 2, 1, 0], [7, 6, 5, 4]])
    np.testing.assert_array_equal(w.identity[:, :2], [[5, 0], [5, 0], [6, 0]])
    seen = ([1, 0, 0, 0], 5), ([4, 3, 0, 0], 5), ([8, 7, 0, 0], 6)
    np.testing.assert_array_equal(w.boxes[:, :, 0], [expected(*one) for one in seen])
    for split in ("valid", "test"):
        assert (np.diff(out[split].frames) == 1).all()


def test_reversed_windows_are_dealt_on_their_own():
    w = train(tracks.config(overlap=0.0, reverse=True), {i: range(1, 5) for i in range(1, 9)})
    np.testing.assert_array_equal(w.frames[:, 0], [0] * 3 + [3] * 3)
    assert (w.identity[:3] != w.identity[3:]).any()


def test_whole_videos_test():
    c = tracks.config(test_videos=("b",))
    videos = [tracks.annotated({1: EVERY}, name) for name in "abc"]
    out = windows.cut(c, videos, [tracks.frames(EVERY)] * 3)
    first = {split: list(zip(w.video, w.frames[:, 0], strict=True)) for split, w in out.items()}
    train = [0, 2, 4, 6, 8]  # two thirds of 20 frames are 13, in which 4 have room at 9
    assert first == {
        "train": [(v, t) for v in (0, 2) for t in train],
        "valid": [(v, t) for v in (0, 2) for t in (13, 15)],
        "test": [(1, t) for t in range(0, 17, 2)],
    }


def test_identities_that_count_from_0():
    w = train(tracks.config(overlap=0.0), {0: range(1, 5), 4: range(1, 5)})
    np.testing.assert_array_equal(w.identity, [[1, 5, 0]])
    assert w.boxes[0, 0, 0, 0] == 0 and w.presence[0, :, 0].all()
    ignore = {(-1, t): True for t in EVERY}  # as KITTI's regions are
    w = train(tracks.config(overlap=0.0), {2: range(1, 5), 4: range(1, 5), -1: EVERY}, ignore=ignore)
    np.testing.assert_array_equal(w.identity, [[2, 4, 0]])


def test_choice_of_videos():
    videos = [tracks.annotated({1: EVERY}, name) for name in "abcd"]

    def names(**fields):
        return "".join(one.name for one in windows.choose(tracks.config(**fields), videos))

    assert names() == names(test_videos=("b",)) == "abcd"
    assert names(videos=("d", "a")) == "ad"
    assert names(videos=("a",), test_videos=("c",)) == names(videos=("a", "c"), test_videos=("c",)) == "ac"


@pytest.mark.parametrize(
    "fields, message",
    [
        ({"videos": ("c",)}, "data.videos has 'c', which there is not: leave it empty, or choose of a, b"),
        ({"test_videos": ("a", "c")}, "data.test_videos has 'c', which there is not"),
        ({"kinds": ("Cyclist",)}, "data.kinds has 'Cyclist', which there is not: .* choose of Car, Pedestrian"),
        ({"kinds": ("Car",), "videos": ("a",)}, "data.kinds has 'Car', which there is not: .* choose of Pedestrian"),
        ({"kinds": ("Van",)}, "data.kinds has 'Van', which there is not: .* choose of Car, Pedestrian"),  # all ignored
        ({"test_videos": ("a", "b")}, "data.test_videos are all videos of somewhere"),
        ({"videos": ("a",), "test_videos": ("a",)}, "data.test_videos are all videos of somewhere"),
    ],
)
def test_wrong_choices(fields, message):
    kind, ignore = {(1, 5): "Car", (1, 6): "Van"}, {(1, 6): True}
    videos = [tracks.annotated({1: EVERY}, "a"), tracks.annotated({1: EVERY}, "b", kind=kind, ignore=ignore)]
    with pytest.raises(UserError, match=message) as error:
        windows.choose(tracks.config(**fields), videos)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "fields, message",
    [
        (
            {"num_frames": 6},
            "the valid split of somewhere has nowhere 6 frames in a row, or lacks some: "
            "reduce data.num_frames or data.frame_step, or raise data.valid_share",
        ),
        ({"frame_step": 4}, "the train split of .* has nowhere 13 frames .* or raise data.train_share"),
        ({"valid_share": 0.4}, "the test split .* has nowhere 4 frames .*, or data.train_share or data.valid_share"),
        (
            {"min_size": 6.0},
            "none of the 4 windows of the train split has an object in its first frame: .*data.min_size",
        ),
    ],
)
def test_splits_without_windows(fields, message):
    with pytest.raises(UserError, match=message) as error:
        cut(tracks.config(**fields), {1: EVERY})
    assert "\n" not in str(error.value)


def test_videos_without_windows_in_a_split_are_named(capsys):
    c = tracks.config()
    seen = {7: EVERY}
    both = [tracks.annotated(seen), tracks.annotated(seen)]
    windows.cut(c, both, [tracks.frames(EVERY), tracks.frames(range(1, 10))])
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 2 and all("too few for data.num_frames=4 at a frame_step of 1" in line for line in said)


def test_a_video_without_objects_or_frames_enough():
    videos = [tracks.annotated({}, "a"), tracks.annotated({1: EVERY}, "b"), tracks.annotated({1: [1]}, "c")]
    out = windows.cut(tracks.config(), videos, [tracks.frames(EVERY), tracks.frames(EVERY), tracks.frames([1])])
    assert (out["train"].video == 1).all() and len(out["train"].video) == 4


def test_mirrored_boxes():
    boxes = np.array([[(1, 2, 3, 5), (0, 0, 0, 0)], [(0, 0, 9, 10), (4, 9, 5, 10)]], np.float32)
    presence = np.array([[1, 0], [1, 1]], np.uint8)
    mirrored = windows.mirror(boxes, presence, 10)
    np.testing.assert_array_equal(mirrored, [[(1, 5, 3, 8), (0, 0, 0, 0)], [(0, 0, 9, 10), (4, 0, 5, 1)]])
    np.testing.assert_array_equal(windows.mirror(mirrored, presence, 10), boxes)


def test_patterns_name_videos():
    names = ["person01_walk", "person01_run", "person02_walk"]
    assert windows.matching(("person01_*",), names) == {"person01_walk", "person01_run"}
    annotated = [tracks.annotated({1: range(8)}, name=name) for name in names]
    c = tracks.config(test_videos=("person02_*",), num_frames=2)
    assert windows.choose(c, annotated) == annotated
    examples = windows.cut(c, annotated, [tracks.frames(range(8))] * 3)
    assert set(examples["test"].video) == {2} and set(examples["train"].video) == {0, 1}
    with pytest.raises(UserError, match=r"data.test_videos has 'person03_\*', which there is not"):
        windows.choose(tracks.config(test_videos=("person03_*",)), annotated)


def test_sequences_that_test_may_be_longer():
    c = tracks.config(test_frames=6, num_frames=3, overlap=0.0, train_share=0.3, valid_share=0.2)
    examples = windows.cut(c, [tracks.annotated({1: range(20)})], [tracks.frames(range(20))])
    assert [examples[split].frames.shape[1] for split in ("train", "valid", "test")] == [3, 3, 6]
    assert examples["test"].frames.tolist() == [[10, 11, 12, 13, 14, 15]]
    with pytest.raises(UserError, match="the test split of .* has nowhere 11 frames .* reduce data.test_frames"):
        c = tracks.config(test_frames=11, train_share=0.7, valid_share=0.2)
        windows.cut(c, [tracks.annotated({1: range(20)})], [tracks.frames(range(20))])


@pytest.mark.parametrize(
    ("rate", "most", "step"), [(30.0, 25.0, 2), (25.0, 25.0, 1), (14, 25, 1), (None, 25, 1), (60, 0, 1)]
)
def test_fast_videos_are_thinned(rate, most, step):
    one = tracks.annotated({1: range(20)})._replace(frame_rate=rate)
    assert windows.frame_step(tracks.config(max_rate=most), rate) == step
    assert windows.frame_step(tracks.config(max_rate=most, frame_step=3), rate) == 3 * step
    c = tracks.config(max_rate=most, num_frames=2, overlap=0.0)
    examples = windows.cut(c, [one], [tracks.frames(range(20))])
    assert (np.diff(examples["train"].frames) == step).all()


def test_a_short_video_tests_on_what_it_has(capsys):
    """On its longest run of frames, 9 to 14, for beyond it every second one is missing."""
    c = tracks.config(test_frames=6, num_frames=3, overlap=0.0, train_share=0.3, valid_share=0.2, num_objects=1)
    numbers = [*range(1, 15), *range(16, 21, 2)]
    both = [tracks.annotated({1: range(1, 80)}, "long"), tracks.annotated({1: EVERY, 2: range(12, 14)}, "short")]
    examples = windows.cut(c, both, [tracks.frames(range(1, 40)), tracks.frames(numbers)])["test"]
    assert examples.frames[examples.video == 1].tolist() == [[8, 9, 10, 11, 12, 13]]
    assert "short" not in capsys.readouterr().err
    c.test_frames = 8
    examples = windows.cut(c, both, [tracks.frames(range(1, 40)), tracks.frames(numbers)])["test"]
    mine = examples.video == 1
    assert examples.frames[mine].tolist() == [[8, 9, 10, 11, 12, 13, -1, -1]]
    assert examples.presence[mine, :, 0].tolist() == [[1] * 6 + [0] * 2] and not examples.boxes[mine, 6:].any()
    said = capsys.readouterr().err
    assert "short: its 9 frames in 'test' are too few for data.test_frames=8 at a frame_step of 1: 6 of them" in said
    two = tracks.frames([*range(1, 15), 16, 17, 19])  # in test there are never three in a row
    few = c.copy_and_resolve_references()
    few.update(train_share=0.7, valid_share=0.15)
    assert set(windows.cut(few, both, [tracks.frames(range(1, 80)), two])["test"].video) == {0}
