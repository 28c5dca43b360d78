import numpy as np
import pytest
from PIL import Image

from objcentric.data import kitti, video
from objcentric.errors import UserError

REST = "1 1 1 1 1 1 1"
ROWS = (
    "1 0 Car 0 0 -1.5 10.5 20 30 40 " + REST,
    "0 -1 DontCare -1 -1 -10 5 6 7 9 " + REST,
    "0 -1 DontCare -1 -1 -10 15 16 17 19 " + REST,
    "",
    "0 2 Pedestrian 0 2 -1.5 0 0 3 4 " + REST,
    "0 0 Car 1 1 -1.5 -4 20 30 40 " + REST,
    "1 -1 DontCare -1 -1 -10 5 6 7 9 " + REST,
    "3 2 Pedestrian 2 0 -1.5 0 0 3 4 " + REST,
    "3 5 Pedestrian 0 3 -1.5 0 0 3 4 " + REST,
)


@pytest.fixture
def training(tmp_path):
    (tmp_path / "label_02").mkdir()
    (tmp_path / "label_02" / "0002.txt").write_text("\n".join(ROWS) + "\n")
    return tmp_path


def test_rows(training):
    (found,) = kitti.videos(training)
    assert (found.name, found.path) == ("0002", training / "image_02" / "0002")
    boxes = found.tracks
    assert boxes.frame.tolist() == [0, 0, 0, 0, 1, 1, 3, 3]
    assert boxes.identity.tolist() == [-2, -1, 0, 2, -3, 0, 2, 5]
    assert boxes.kind.tolist() == [*["DontCare"] * 2, "Car", "Pedestrian", "DontCare", "Car", *["Pedestrian"] * 2]
    assert boxes.ignore.tolist() == [True, True, False, True, True, False, True, True]
    np.testing.assert_array_equal(
        boxes.box[[0, 1, 2, 5]], [[16, 15, 19, 17], [6, 5, 9, 7], [20, -4, 40, 30], [20, 10.5, 40, 30]]
    )
    np.testing.assert_array_equal(boxes.visibility, 1)


def test_frames_are_numbered_as_labels(training):
    images = training / "image_02" / "0002"
    images.mkdir(parents=True)
    for number in (0, 3):
        Image.fromarray(np.zeros((4, 6, 3), np.uint8)).save(images / f"{number:06}.png")
    (training / "label_02" / "0000.txt").write_text(ROWS[0])
    first, second = kitti.videos(training)
    assert (first.name, second.name) == ("0000", "0002")
    assert set(video.open(second.path).numbers) <= set(second.tracks.frame)


@pytest.mark.parametrize(
    "row, message",
    [
        ("0 7 Car 0 0 -1.5 10 20 30", "9 columns, expected 17: is it cut off"),
        (f"0 7 Car 0 0 -1.5 10 20 30 40 {REST} 0.9", "18 columns, expected 17"),
        (f"0 7 Car 0 0 -1.5 10 20 thirty 40 {REST}", "holds what is no number"),
        (f"0 7 Car 0 0 -1.5 10 20 nan 40 {REST}", "NaN or infinity"),
        (f"0 7 Car 0 0 -1.5 10 20 10 40 {REST}", "a box of width 0 and height 20: both must be positive"),
        (f"0 7 Car 0 0 -1.5 10 20 30 19 {REST}", "a box of width 20 and height -1: both must be positive"),
        (f"0 0 Car 0 0 -1.5 10 20 30 40 {REST}", "identity 0 is in frame 0 by line 6, too"),
        (f"0 -1 Car 0 0 -1.5 10 20 30 40 {REST}", "identity -1 is no whole number from 0 on"),
        (f"-1 1 Car 0 0 -1.5 10 20 30 40 {REST}", "frame -1 is no whole number from 0 on"),
    ],
)
def test_bad_rows_are_named(training, row, message):
    file = training / "label_02" / "0002.txt"
    file.write_text(file.read_text() + row + "\n")
    with pytest.raises(UserError, match=f"0002.txt, line 10: .*{message}") as error:
        kitti.videos(training)
    assert "\n" not in str(error.value)


def test_folders_without_labels(training):
    (training / "label_02" / "0002.txt").write_text("")
    with pytest.raises(UserError, match="0002.txt holds no boxes"):
        kitti.videos(training)
    with pytest.raises(UserError, match="has no label_02/0000.txt, ...: give `training`"):
        kitti.videos(training / "label_02")
    with pytest.raises(UserError, match="there is no folder .*absent: give `training`"):
        kitti.videos(training / "absent")


def test_real_sequences(data_dir):
    folder = data_dir / "kitti_tracking" / "training"
    if not folder.is_dir():
        pytest.skip(f"real data: there is no {folder}")
    found = {video.name: video for video in kitti.videos(folder)}
    regions = {name: int((v.tracks.kind == "DontCare").sum()) for name, v in found.items()}
    rows = {name: len(v.tracks.frame) for name, v in found.items()}
    assert rows == {"0001": 4271, "0005": 2148, "0016": 4145} and regions == {"0001": 1241, "0005": 672, "0016": 1010}
    objects = {name: len(np.unique(v.tracks.identity[v.tracks.identity >= 0])) for name, v in found.items()}
    assert objects == {"0001": 98, "0005": 36, "0016": 28}
    kept = {name: int((~v.tracks.ignore).sum()) for name, v in found.items()}
    assert kept == {"0001": 1987, "0005": 1371, "0016": 2935}
    for name, shape in (("0001", (375, 1242)), ("0016", (370, 1224))):
        film, boxes = video.open(found[name].path), found[name].tracks
        assert (film.height, film.width) == shape and set(film.numbers) <= set(boxes.frame)
        assert (boxes.box >= 0).all() and (boxes.box[:, 2:] <= shape).all()
