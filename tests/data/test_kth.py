import numpy as np
import pytest

from objcentric.data import kth, video
from objcentric.errors import UserError

LIST = """
Training:   person11, 12

person01_jogging_d1\t\tframes\t1-3, 10-14, 21-22\r
person01_boxing_d4    \tframes\t1-5, 6-9
person13_handclapping_d3\t*missing*
"""
HEADER = "boxes of people\n\n# by hand\n# person scenario action seq start end\n"
BLOCKS = """1 1 4 2 11 12
0 5 60 25.5
2 6 62 26

person01 d1 jogging 1 2 2
10 20 30 40
01 4 1 2 6 7
1 2 3 4
2 2 3 4
"""


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "sequences.txt").write_text(LIST)
    (tmp_path / "boxes.txt").write_text(HEADER + BLOCKS)
    return tmp_path


def test_ranges(folder):
    assert kth.read_ranges(folder / "sequences.txt") == {
        "person01_jogging_d1": [(1, 3), (10, 14), (21, 22)],
        "person01_boxing_d4": [(1, 5), (6, 9)],
    }


def test_rows(folder):
    boxing, jogging = kth.videos(folder)
    assert (boxing.name, jogging.name) == ("person01_boxing_d4", "person01_jogging_d1")
    assert jogging.path == folder / "person01_jogging_d1_uncomp.avi"
    assert jogging.tracks.frame.tolist() == [2, 11, 12] and jogging.tracks.identity.tolist() == [1, 2, 2]
    np.testing.assert_array_equal(jogging.tracks.box, [[10, 20, 30, 40], [0, 5, 60, 25.5], [2, 6, 62, 26]])
    assert boxing.tracks.frame.tolist() == [6, 7] and boxing.tracks.identity.tolist() == [2, 2]
    assert set(boxing.tracks.kind) == {"boxing"} and set(jogging.tracks.kind) == {"jogging"}
    for tracks in (boxing.tracks, jogging.tracks):
        assert not tracks.ignore.any() and set(tracks.visibility) == {1}


def test_clips_may_be_in_folders_of_actions(folder):
    (folder / "jogging").mkdir()
    clip = folder / "jogging" / "person01_jogging_d1_uncomp.avi"
    clip.touch()
    assert [v.path for v in kth.videos(folder)] == [folder / "person01_boxing_d4_uncomp.avi", clip]


def test_the_list_as_it_is_named_on_the_site(folder):
    (folder / "sequences.txt").rename(folder / "00sequences.txt")
    assert len(kth.videos(folder)) == 2


@pytest.mark.parametrize(
    "rows, line, message",
    [
        ("1 1 4 1 1 2\n1 2 3 4\n1 2 3\n", 16, "'1 2 3' is not `y1 x1 y2 x2` of frame 2: is it cut off?"),
        ("1 1 4 1 1 2\n1 2 3 x\n1 2 3 4\n", 15, "'1 2 3 x' is not `y1 x1 y2 x2` of frame 1"),
        ("1 1 4 1 1 2\n1 2 3 4\n", 15, "it ends before frame 2 of person01_jogging_d1: is it cut off?"),
        ("1 1 4 1 1 2\n", 14, "it ends before frame 2 of person01_jogging_d1"),
        ("1 1 4 1 1 1\n1 2 3 4\n1 2 3 4\n", 16, "'1 2 3 4' is not `person scenario action seq start end`: has the"),
        ("1 1 4 1 1\n", 14, "'1 1 4 1 1' is not `person"),
        ("1 1 7 1 1 1\n1 2 3 4\n", 14, "'1 1 7 1 1 1' is not `person"),
        ("1 1 dancing 1 1 1\n1 2 3 4\n", 14, "'1 1 dancing 1 1 1' is not `person"),
        ("2 1 4 1 1 1\n1 2 3 4\n", 14, "sequences.txt has 0 sub-sequences of person02_jogging_d1, none with number 1"),
        ("1 1 4 4 1 1\n1 2 3 4\n", 14, "sequences.txt has 3 sub-sequences of person01_jogging_d1, none with number 4"),
        (
            "1 1 4 3 1 2\n1 2 3 4\n1 2 3 4\n",
            14,
            "frames 1-2 are not in sub-sequence 3 of person01_jogging_d1, 21-22 by",
        ),
        ("1 1 4 1 4 5\n1 2 3 4\n1 2 3 4\n", 14, "frames 4-5 are not in sub-sequence 1"),
        ("1 1 4 1 0 1\n1 2 3 4\n1 2 3 4\n", 14, "frames 0-1 are not in sub-sequence 1"),
        ("1 1 4 1 3 1\n", 14, "frames 3-1 are not in sub-sequence 1"),
        ("1 1 4 1 3 3\n1 2 nan 4\n", 15, "NaN or infinity"),
        ("1 1 4 1 3 3\n1 2 1 4\n", 15, "a box of width 2 and height 0: both must be positive"),
        ("1 1 4 1 3 3\n1 2 3 1\n", 15, "a box of width -1 and height 2: both must be positive"),
        ("1 1 4 2 11 11\n1 2 3 4\n", 15, "identity 2 is in frame 11 by line 6, too: remove one"),
    ],
)
def test_bad_rows_are_named(folder, rows, line, message):
    (folder / "boxes.txt").write_text(HEADER + BLOCKS + rows)
    with pytest.raises(UserError) as error:
        kth.videos(folder)
    assert str(error.value).startswith(f"{folder / 'boxes.txt'}, line {line}: {message}")
    assert "\n" not in str(error.value)


def test_a_file_without_header(folder):
    (folder / "boxes.txt").write_text(BLOCKS)
    with pytest.raises(UserError, match="boxes.txt, line 1: `person .* end` before the end of the header: put 4 lines"):
        kth.videos(folder)


def test_missing_files(folder):
    (folder / "boxes.txt").write_text(HEADER)
    with pytest.raises(UserError, match="boxes.txt holds no boxes after its 4 lines of header"):
        kth.videos(folder)
    (folder / "more.txt").write_text(HEADER)
    with pytest.raises(UserError, match="has boxes.txt and more.txt, but should have one .txt of boxes"):
        kth.videos(folder)
    (folder / "more.txt").unlink(), (folder / "boxes.txt").unlink()
    with pytest.raises(UserError, match="no file of boxes, .* KTH does not publish.*`y1 x1 y2 x2` for each") as error:
        kth.videos(folder)
    assert "\n" not in str(error.value)
    (folder / "sequences.txt").unlink()
    with pytest.raises(UserError, match="has no sequences.txt, which KTH publishes"):
        kth.videos(folder)
    with pytest.raises(UserError, match="there is no folder .*absent"):
        kth.videos(folder / "absent")


@pytest.mark.parametrize("end", ["frames\t1-3, 10-", "frames\t1-3; 10-14", "1-3", "frames"])
def test_bad_lists(folder, end):
    (folder / "sequences.txt").write_text(LIST + f"person02_running_d1 {end}\n")
    with pytest.raises(UserError, match="sequences.txt, line 7: .*is not of the form") as error:
        kth.videos(folder)
    assert "\n" not in str(error.value)
    (folder / "sequences.txt").write_text("Training: person11\n")
    with pytest.raises(UserError, match="lists no clips"):
        kth.videos(folder)


@pytest.fixture
def real(data_dir):
    if not (data_dir / "kth").is_dir():
        pytest.skip(f"real data: there is no {data_dir / 'kth'}")
    return data_dir / "kth"


def test_the_real_list(real):
    """25 people, 6 actions and 4 scenarios, of which one clip is missing and five have but three sub-sequences."""
    ranges = kth.read_ranges(real / "sequences.txt")
    assert len(ranges) == 599 and "person13_handclapping_d3" not in ranges
    assert {name.split("_")[1] for name in ranges} == set(kth.ACTIONS)
    assert sorted(map(len, ranges.values())) == [3] * 5 + [4] * 594
    assert all(1 <= first <= last for clip in ranges.values() for first, last in clip)
    assert ranges["person01_jogging_d1"] == [(1, 50), (120, 170), (250, 300), (362, 415)]
    with pytest.raises(UserError, match="has no file of boxes"):
        kth.videos(real)


def test_real_clips(real, tmp_path):
    """The last sub-sequence ends with the clip, and boxes of its frames are of frames that there are."""
    pytest.importorskip("cv2", reason="OpenCV is not installed: pip install 'objcentric[video]'")
    for file in real.iterdir():
        (tmp_path / file.name).symlink_to(file)
    rows = "10 20 110 60\n" * 54
    (tmp_path / "boxes.txt").write_text(f"{HEADER}1 1 jogging 4 362 415\n{rows}")
    (found,) = kth.videos(tmp_path)
    film = video.open(found.path)
    assert (film.num_frames, film.height, film.width) == (415, 120, 160)
    assert set(found.tracks.frame) <= set(film.numbers) and found.tracks.frame.max() == film.numbers[-1]
    ranges = kth.read_ranges(tmp_path / "sequences.txt")
    for name in ("person01_handclapping_d1", "person01_handclapping_d2"):
        assert video.open(tmp_path / f"{name}_uncomp.avi").num_frames == ranges[name][-1][1]
