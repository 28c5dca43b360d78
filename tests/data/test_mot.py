import numpy as np
import pytest

from objcentric.data import mot, video
from objcentric.errors import UserError
from tests.data import videos

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
    assert boxes.kind.tolist() == ["", "", ""]


def test_rows_of_2016_and_2017(file):
    file.write_text(MOT17)
    boxes = mot.read_boxes(file)
    np.testing.assert_array_equal(boxes.box, [[483, 911, 592, 1008], [19, 9, 59, 39]])
    np.testing.assert_array_equal(boxes.ignore, [True, False])
    np.testing.assert_array_equal(boxes.visibility, [1, 0.25])
    assert boxes.kind.tolist() == ["static person", "pedestrian"]


def test_pedestrians_of_conf_1_alone_are_not_ignored(file):
    file.write_text(
        "".join(f"1,{kind + 20 * conf},1,1,5,5,{conf},{kind},1\n" for kind in range(1, 14) for conf in (0, 1))
    )
    boxes = mot.read_boxes(file)
    assert boxes.identity[~boxes.ignore].tolist() == [21]
    assert boxes.kind[:13].tolist() == list(mot.KINDS)


@pytest.mark.parametrize(
    "row, message",
    [
        ("1,2,3,4,5", "5 columns, expected 9"),
        ("1,2,3,4,5,6,1,-1,-1,-1", "10 columns, expected 9"),
        ("1,2,x,4,5,6,1,1,1", "'1,2,x,4,5,6,1,1,1' holds what is no number"),
        ("1,2,3,4,5,nan,1,1,1", "NaN or infinity"),
        ("1,2,3,4,5,6,nan,1,1", "NaN or infinity"),
        ("1.5,2,3,4,5,6,1,1,1", "frame 1.5 is no whole number from 1 on"),
        ("0,2,3,4,5,6,1,1,1", "frame 0 is no whole number"),
        ("1,-1,3,4,5,6,1,1,1", "identity -1 is no whole number"),
        ("1,0,3,4,5,6,1,1,1", "identity 0 is no whole number from 1 on"),
        ("1,2,3,4,0,6,1,1,1", "a box of width 0 and height 6: both must be positive"),
        ("1,2,3,4,5,-6,1,1,1", "a box of width 5 and height -6: both must be positive"),
        ("1,3,3,4,5,6,1,1,1", "identity 3 is in frame 1 by line 2, too: remove one"),
        ("1,2,3,4,5,6,1,14,1", "kind 14 is none of 1 to 13"),
        ("1,2,3,4,5,6,1,1.5,1", "kind 1.5 is none of 1 to 13"),
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
    file.write_text("1,2,3,4,5\n")
    with pytest.raises(UserError, match="line 1: 5 columns, expected 10 or 9: is it cut off?"):
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


def sequence(folder, rows=MOT17):
    (folder / "gt").mkdir(parents=True)
    (folder / "seqinfo.ini").write_text(INFO)
    (folder / "gt" / "gt.txt").write_text(rows)
    return folder


def test_sequences_of_a_folder(tmp_path):
    for name in ("b", "a", "MOT17-02-SDP", "MOT17-02-DPM", "MOT17-02-FRCNN", "MOT17-04-SDP"):
        sequence(tmp_path / name)
    (tmp_path / "notes").mkdir()
    found = mot.videos(tmp_path)
    assert [video.name for video in found] == ["MOT17-02-DPM", "MOT17-04-SDP", "a", "b"]
    assert [video.path for video in found] == [tmp_path / video.name for video in found]
    assert all(len(video.tracks.frame) == 2 for video in found)


def test_one_sequence_whose_frames_are_there(tmp_path, monkeypatch):
    boxes = videos.walk(10)
    folder = videos.save_mot(tmp_path / "walk", [videos.frame(many, (40, 90)) for many in boxes], boxes, ignored=(2,))
    monkeypatch.chdir(folder)
    for path in (folder, "."):
        (found,) = mot.videos(path)
        assert found.name == "walk" and video.open(found.path).num_frames == 10
        np.testing.assert_array_equal(found.tracks.box[found.tracks.identity == 1], boxes[8:, 0])
        assert found.tracks.ignore.tolist() == [False, True, False, True]


def test_folders_without_sequences(tmp_path):
    with pytest.raises(UserError, match="has no folder with a seqinfo.ini: give `train`"):
        mot.videos(tmp_path)
    with pytest.raises(UserError, match="there is no folder .*absent: give `train` of a MOTChallenge data set"):
        mot.videos(tmp_path / "absent")
    (sequence(tmp_path / "a") / "gt" / "gt.txt").unlink()
    with pytest.raises(UserError, match="cannot read .*a/gt/gt.txt"):
        mot.videos(tmp_path)


def real(data_dir, *names):
    folder = data_dir.joinpath(*names)
    if not folder.is_dir():
        pytest.skip(f"real data: there is no {folder}")
    return folder


def test_real_sequences(data_dir):
    found = {video.name: video for video in mot.videos(real(data_dir, "mot15", "train"))}
    for name, rows, ignored, people in (("PETS09-S2L1", 4650, 174, 19), ("TUD-Campus", 359, 0, 8)):
        info, boxes = mot.read_info(found[name].path), found[name].tracks
        assert (info.name, len(boxes.frame), boxes.ignore.sum()) == (name, rows, ignored)
        assert len(np.unique(boxes.identity)) == people and boxes.frame.max() == info.length
        middle = (boxes.box[:, :2] + boxes.box[:, 2:]) / 2
        assert (middle > 0).mean() > 0.99 and (middle < [info.height, info.width]).mean() > 0.99


def test_real_sequences_of_2017(data_dir):
    found = {video.name: video.tracks for video in mot.videos(real(data_dir, "mot17_mini", "train"))}
    counts = {name: (len(boxes.frame), int((~boxes.ignore).sum())) for name, boxes in found.items()}
    assert counts == {"MOT17-02-FRCNN": (156, 88), "MOT17-04-FRCNN": (792, 336)}
    kinds = np.concatenate([boxes.kind for boxes in found.values()])
    assert {"pedestrian": 424, "occluder on the ground": 176, "person on vehicle": 12}.items() <= dict(
        zip(*np.unique(kinds, return_counts=True), strict=True)
    ).items()
