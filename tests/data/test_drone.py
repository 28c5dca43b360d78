import numpy as np
import pytest

from objcentric.data import drone
from objcentric.errors import UserError

ROWS = (
    '1 10 20 30 45 7 0 1 0 "Biker"',
    '0 1 2 3 5 8 0 0 1 "Golf cart" "red"',
    '0 0 2 2 5 7 0 0 0 "Golf cart"',
    "",
    '0 9 9 9 9 9 1 0 1 "Golf cart"',
    '0 9 9 9 9 9 1 0 1 "Golf cart"',
)


@pytest.fixture
def make(tmp_path):
    def make(name, *rows):
        folder = tmp_path / "annotations" / name
        folder.mkdir(parents=True)
        (folder / "annotations.txt").write_text("\n".join(rows) + "\n")
        return tmp_path

    return make


def test_rows(make):
    (found,) = drone.videos(make("quad/video0", *ROWS))
    boxes = found.tracks
    assert boxes.frame.tolist() == [8, 8, 9] and boxes.identity.tolist() == [0, 1, 0]
    np.testing.assert_array_equal(boxes.box, [[2, 0, 5, 2], [20, 10, 45, 30], [2, 1, 5, 3]])
    assert boxes.visibility.tolist() == [1, 0, 1] and not boxes.ignore.any()
    assert boxes.kind.tolist() == ["Golf cart", "Biker", "Golf cart"]


def test_videos_have_their_names_and_films(make):
    for name in ("quad/video1", "gates/video0", "quad/video0", "gates/video2"):
        root = make(name, *ROWS)
    for film in ("gates/video0/video.mov", "quad/video0/video.mp4", "gates/video2/video.mov", "gates/video2/video.mp4"):
        (root / "videos" / film).parent.mkdir(parents=True, exist_ok=True)
        (root / "videos" / film).touch()
    found = drone.videos(root)
    assert [video.name for video in found] == ["gates/video0", "gates/video2", "quad/video0", "quad/video1"]
    films = [video.path.relative_to(root / "videos" / video.name).as_posix() for video in found]
    assert films == ["video.mov", "video.mov", "video.mp4", "video.mov"]


@pytest.mark.parametrize(
    "row, message",
    [
        ("2 10 20 30 45 7 0 0", "8 columns, expected 10: is it cut off"),
        ('2 10 20 30 45 7 0 1 0 "Bik', "has a quote that does not end: is it cut off"),
        ('2 10 20 30 45 7 0 1 0 "Bik\n3 10 20 30 45 7 0 1 0 "Biker"', "has a quote that does not end"),
        ('2 10 20 30 x 7 0 1 0 "Biker"', "holds what is no number"),
        ('2 10 20 30 nan 7 0 1 0 "Biker"', "NaN or infinity"),
        ('2 10 20 10 45 7 0 1 0 "Biker"', "a box of width 0 and height 25: both must be positive"),
        ('2 10 20 30 15 7 0 1 0 "Biker"', "a box of width 20 and height -5: both must be positive"),
        ('1 10 20 30 45 7 0 1 0 "Biker"', "identity 1 is in frame 7 by line 1, too"),
        ('-1 10 20 30 45 7 0 1 0 "Biker"', "identity -1 is no whole number from 0 on"),
        ('2 10 20 30 45 -1 0 1 0 "Biker"', "frame -1 is no whole number from 0 on"),
    ],
)
def test_bad_rows_are_named(make, row, message):
    root = make("quad/video0", *ROWS, row)
    with pytest.raises(UserError, match=f"annotations.txt, line 7: .*{message}") as error:
        drone.videos(root)
    assert "\n" not in str(error.value)


def test_nothing_to_read(make, tmp_path):
    with pytest.raises(UserError, match="has no annotations/SCENE/videoN/annotations.txt"):
        drone.videos(tmp_path)
    with pytest.raises(UserError, match="there is no folder .*absent"):
        drone.videos(tmp_path / "absent")
    for name, rows in (("empty", [""]), ("lost", ROWS[4:])):
        root = make(f"{name}/video0", *rows)
        with pytest.raises(UserError, match="annotations.txt holds no boxes"):
            drone.read_boxes(root / "annotations" / name / "video0")


def test_real_videos(data_dir):
    """Rows that are not lost, identities, occluded rows and largest frame + 1, all as awk counts them."""
    folder = data_dir / "stanford_drone"
    if not folder.is_dir():
        pytest.skip(f"real data: there is no {folder}")
    found = {}
    for name, _, boxes, _ in drone.videos(folder):
        size = boxes.box[:, 2:] - boxes.box[:, :2]
        assert (size > 5).all() and (boxes.box[:, :2] >= 0).all() and (boxes.box[:, 2:] < 2000).all()
        occluded = int((boxes.visibility == 0).sum())
        found[name] = (len(boxes.frame), len(np.unique(boxes.identity)), occluded, int(boxes.frame.max()))
    assert found == {
        "deathCircle/video2": (10505, 35, 1118, 431),
        "hyang/video8": (4031, 14, 262, 574),
        "hyang/video9": (1930, 11, 592, 574),
        "nexus/video5": (17134, 45, 288, 1062),
        "quad/video0": (3425, 10, 0, 509),
        "quad/video3": (2448, 8, 0, 509),
    }
