import numpy as np
import pytest

from objcentric.data import mot
from objcentric.errors import UserError

MOT15 = "2,1,11,21,30,40,1,-1,-1,-1\n1,7,-4,1,5.5,8,0,-4.1,-7.3,0\n\n1,1,10,20,30,40,1,-1,-1,-1 \n"
MOT17 = "1,1,912,484,97,109,0,7,1\n1,3,10,20,30,40,1,1,0.25\n"
INFO = "[Sequence]\nname=A%B\nimDir=img1\nframeRate=7.5\nseqLength=795\nimWidth=384\nimHeight=288\nimExt=.jpg\n"


@pytest.fixture
def file(tmp_path):
    return tmp_path / "gt.txt"


def test_rows_of_2015(file):
    file.write_text(MOT15)
    boxes = mot.read_boxes(file)
    np.testing.assert_array_equal(boxes.frame, [1, 1, 2])
    np.testing.assert_array_equal(boxes.identity, [1, 7, 1])
    np.testing.assert_array_equal(boxes.box, [[19, 9, 59, 39], [0, -5, 8, 0.5], [20, 10, 60, 40]])
    np.testing.assert_array_equal(boxes.ignore, [False, True, False])
    np.testing.assert_array_equal(boxes.visibility, 1)
    assert [column.dtype.name for column in boxes] == ["int32", "int32", "float32", "bool", "float32"]


def test_rows_of_2016_and_2017(file):
    file.write_text(MOT17)
    boxes = mot.read_boxes(file)
    np.testing.assert_array_equal(boxes.box, [[483, 911, 592, 1008], [19, 9, 59, 39]])
    np.testing.assert_array_equal(boxes.ignore, [True, False])
    np.testing.assert_array_equal(boxes.visibility, [1, 0.25])


@pytest.mark.parametrize(
    "row, message",
    [
        ("1,2,3,4,5", "5 columns, expected 10"),
        ("1,2,3,4,5,6,1,-1,-1,-1,0", "11 columns, expected 10"),
        ("1,2,x,4,5,6,1,1,1", "'1,2,x,4,5,6,1,1,1' holds what is no number"),
        ("1,2,3,4,5,nan,1,1,1", "NaN or infinity"),
        ("1.5,2,3,4,5,6,1,1,1", "frame 1.5 is no whole number from 1 on"),
        ("0,2,3,4,5,6,1,1,1", "frame 0 is no whole number"),
        ("1,-1,3,4,5,6,1,1,1", "identity -1 is no whole number"),
        ("1,2,3,4,0,6,1,1,1", "a box of width 0 and height 6: both must be positive"),
        ("1,3,3,4,5,6,1,1,1", "3 is in frame 1 by line 2, too: remove one"),
    ],
)
def test_bad_rows_are_named(file, row, message):
    file.write_text(f"{MOT17}{row}\n")
    with pytest.raises(UserError, match=f"gt.txt, line 3: {message}") as error:
        mot.read_boxes(file)
    assert "\n" not in str(error.value)


def test_files_without_boxes(file):
    with pytest.raises(UserError, match=r"cannot read .*gt.txt \(there is none\)"):
        mot.read_boxes(file)
    file.write_text("\n")
    with pytest.raises(UserError, match="holds no boxes"):
        mot.read_boxes(file)
    file.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match="cannot read"):
        mot.read_boxes(file)


def test_info(tmp_path):
    (tmp_path / "seqinfo.ini").write_text(INFO)
    assert mot.read_info(tmp_path) == mot.Info("A%B", "img1", 7.5, 795, 288, 384)


@pytest.mark.parametrize(
    "content, message",
    [
        ("", "Sequence"),
        ("name=A\n", "no section headers"),
        (INFO.replace("imWidth", "width"), "'imWidth' is missing"),
        (INFO.replace("795", "all"), "invalid literal"),
        (INFO.replace("288", "0"), "must be positive"),
        (INFO.replace("7.5", "nan"), "must be positive"),
    ],
)
def test_info_that_says_too_little(tmp_path, content, message):
    (tmp_path / "seqinfo.ini").write_text(content)
    with pytest.raises(UserError, match=f"seqinfo.ini.*{message}") as error:
        mot.read_info(tmp_path)
    assert "\n" not in str(error.value)


def test_real_sequences(data_dir):
    for name, rows, ignored in (("PETS09-S2L1", 4650, 174), ("TUD-Campus", 359, 0)):
        folder = data_dir / "mot15" / "train" / name
        if not folder.is_dir():
            pytest.skip(f"real data: there is no {folder}")
        info, boxes = mot.read_info(folder), mot.read_boxes(folder / "gt" / "gt.txt")
        assert (info.name, len(boxes.frame), boxes.ignore.sum()) == (name, rows, ignored)
        assert boxes.frame.max() == info.length
        middle = (boxes.box[:, :2] + boxes.box[:, 2:]) / 2
        assert (middle > 0).mean() > 0.99 and (middle < [info.height, info.width]).mean() > 0.99
