import re

import numpy as np
import pytest
from PIL import Image

from objcentric.data import detrac, video
from objcentric.errors import UserError


def box(left, top, width, height, tag="box", **more):
    fields = {"left": left, "top": top, "width": width, "height": height} | more
    return " ".join([f"<{tag}", *(f'{key}="{value}"' for key, value in fields.items()), "/>"])


def target(identity, where, *, kind="Sedan", truncated=0, hidden=""):
    return (
        f'<target id="{identity}">{where}<attribute truncation_ratio="{truncated}" vehicle_type="{kind}" />'
        f"<occlusion>{hidden}</occlusion></target>"
    )


def hides(status, other, *place):
    return box(*place, tag="region_overlap", occlusion_id=other, occlusion_status=status)


def frame(number, *targets):
    return f'<frame num="{number}"><target_list>{"".join(targets)}</target_list></frame>'


REGIONS = f"<ignored_region>{box(0.5, 1.5, 10, 20)}{box(30.5, 0.5, 5, 6)}</ignored_region>"
FRAMES = (
    frame(
        3,
        target(2, box(11, 21, 10, 20), truncated=0.25),
        target(1, box(1, 1, 4.5, 5), kind="Bus"),
    ),
    frame(7),
    frame(9, target(1, box(3, 1, 4.5, 5), kind="Bus")),
)


def write(folder, *frames, name="MVI_1_v3", regions=REGIONS):
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{name}.xml"
    file.write_text(f'<sequence name="MVI_1">{regions}\n' + "\n".join(frames) + "\n</sequence>")
    return file


def test_rows(tmp_path):
    boxes = detrac.read_boxes(write(tmp_path, *FRAMES))
    assert boxes.frame.tolist() == [3, 3, 3, 3, 7, 7, 9, 9, 9]
    assert boxes.identity.tolist() == [-2, -1, 1, 2, -2, -1, -2, -1, 1]
    np.testing.assert_array_equal(boxes.ignore, boxes.identity < 0)
    ignored = [*["ignored region"] * 2]
    assert boxes.kind.tolist() == [*ignored, "Bus", "Sedan", *ignored, *ignored, "Bus"]
    np.testing.assert_array_equal(boxes.box[:4], [[0, 30, 6, 35], [1, 0, 21, 10], [0, 0, 5, 4.5], [20, 10, 40, 20]])
    assert boxes.visibility.tolist() == [1, 1, 1, 0.75, 1, 1, 1, 1, 1]


def test_visibility(tmp_path):
    """Of four vehicles of 10x10 pixels, which regions hide, of their own or as told by those before them."""
    hidden = hides(-1, 0, 6, 1, 20, 10) + hides(0, 2, 1, 1, 2, 10)  # its right half, a strip of its left one
    only = frame(
        1,
        target(1, box(1, 1, 10, 10), truncated=0.5, hidden=hidden),
        target(2, box(21, 1, 10, 10), hidden=hides(1, 3, 41, 1, 10, 9) + hides(1, 9, 21, 1, 5, 5)),
        target(3, box(41, 1, 10, 10)),
        target(4, box(61, 1, 10, 10), hidden=hides(0, 1, 61, 1, 10, 9) + hides(-1, 0, 61, 1, 10, 9)),
    )
    np.testing.assert_allclose(
        detrac.read_boxes(write(tmp_path, only, regions="")).visibility, [0.15, 1, 0.1, 0], rtol=1e-6
    )


def test_what_is_not_told(tmp_path):
    only = frame(1, f'<target id="5">{box(1, 1, 2, 3)}</target>')
    boxes = detrac.read_boxes(write(tmp_path, only, regions=""))
    assert (boxes.kind.tolist(), boxes.visibility.tolist(), boxes.identity.tolist()) == ([""], [1], [5])


@pytest.mark.parametrize(
    "place", ["{x}", "{x}/..", "{x}/Insight-MVT_Annotation_Train", "{x}/../Insight-MVT_Annotation_Test"]
)
def test_frames_are_found(tmp_path, place):
    annotations = tmp_path / "DETRAC-Train-Annotations-XML-v3"
    write(annotations, *FRAMES)
    write(annotations, *FRAMES, name="MVI_0")
    images = (tmp_path / place.format(x=annotations.name) / "MVI_1").resolve()
    images.mkdir(parents=True)
    for number in (3, 9):
        Image.fromarray(np.zeros((4, 6, 3), np.uint8)).save(images / f"img{number:05}.jpg")
    absent, found = detrac.videos(annotations)
    assert (absent.name, absent.path) == ("MVI_0", tmp_path / "Insight-MVT_Annotation_Train" / "MVI_0")
    assert found.name == "MVI_1" and found.path.resolve() == images
    assert video.open(found.path).numbers.tolist() == [3, 9]


@pytest.mark.parametrize(
    "bad, message",
    [
        (target(4, box(1, 1, 0, 5)), "frame 9, target 4: a box of width 0 and height 5: both must be positive"),
        (target(4, box(1, 1, 3, -5)), "frame 9, target 4: a box of width 3 and height -5: both must be positive"),
        (target(4, box(1, 1, "wide", 5)), "frame 9, target 4: width 'wide' is no number"),
        (target(4, box(1, "nan", 3, 5)), "frame 9, target 4: top is NaN or infinity"),
        (target(4, box(1, 1, 3, 5), truncated="inf"), "frame 9, target 4: truncation_ratio is NaN or infinity"),
        (target(4, '<box left="1" top="1" width="2"/>'), "frame 9, target 4: <box> has no height"),
        (target(4, ""), "frame 9, target 4: it has no box"),
        (target(4, box(1, 1, 3, 5), hidden=hides(0, 1, 1, 1, "x", 1)), "frame 9, target 4: width 'x' is no number"),
        (target("one", box(1, 1, 3, 5)), "frame 9, target element 1: id 'one' is no number"),
        (target(0, box(1, 1, 3, 5)), "frame 9, target 0: identity 0 is no whole number from 1 on"),
        (target(4, box(1, 1, 3, 5)) * 2, "frame 9, target 4: identity 4 is in frame 9 by frame 9, target 4, too"),
    ],
)
def test_bad_targets_are_named(tmp_path, bad, message):
    write(tmp_path, frame(3, target(1, box(1, 1, 4, 5))), frame(9, bad))
    with pytest.raises(UserError, match=f"MVI_1_v3.xml, {re.escape(message)}") as error:
        detrac.videos(tmp_path)
    assert "\n" not in str(error.value)


def test_bad_frames_and_regions_are_named(tmp_path):
    with pytest.raises(UserError, match="frame element 2: <frame> has no num"):
        detrac.read_boxes(write(tmp_path, FRAMES[0], "<frame></frame>"))
    with pytest.raises(UserError, match="ignored region 1: height 'x' is no number"):
        detrac.read_boxes(write(tmp_path, *FRAMES, regions=f"<ignored_region>{box(1, 1, 1, 'x')}</ignored_region>"))
    with pytest.raises(UserError, match="ignored region 1, frame 3: a box of width 0 and height 1"):
        detrac.read_boxes(write(tmp_path, *FRAMES, regions=f"<ignored_region>{box(1, 1, 0, 1)}</ignored_region>"))
    with pytest.raises(UserError, match="frame 3, target 1: identity 1 is in frame 3 by frame 3, target 1, too"):
        detrac.read_boxes(write(tmp_path, FRAMES[0], FRAMES[0], regions=""))


def test_nothing_to_read(tmp_path):
    with pytest.raises(UserError, match="has no MVI_20011.xml"):
        detrac.videos(tmp_path)
    with pytest.raises(UserError, match="there is no folder .*absent"):
        detrac.videos(tmp_path / "absent")
    file = write(tmp_path, *FRAMES)
    text = file.read_text()
    for content in (text[:-30], text[: len(text) // 2], ""):
        file.write_text(content)
        with pytest.raises(
            UserError, match=r"cannot read .*MVI_1_v3.xml \(.*: line \d+, column \d+\): is it cut off"
        ) as error:
            detrac.videos(tmp_path)
        assert "\n" not in str(error.value)
    with pytest.raises(UserError, match="holds no boxes"):
        detrac.read_boxes(write(tmp_path, frame(1)[:0]))
    write(tmp_path, *FRAMES)
    write(tmp_path, *FRAMES, name="MVI_1")
    with pytest.raises(UserError, match="MVI_1.xml and MVI_1_v3.xml are of one video: remove one"):
        detrac.videos(tmp_path)


def test_real_videos(data_dir):
    """Targets, frames and regions as grep counts them; two files skip frames, and vehicles are cut at the borders."""
    folder = data_dir / "ua_detrac"
    if not folder.is_dir():
        pytest.skip(f"real data: there is no {folder}")
    found = {}
    for name, _, boxes, _ in detrac.videos(folder):
        numbers, counts = len(np.unique(boxes.frame)), np.unique(boxes.identity[boxes.ignore]).tolist()
        found[name] = (int((~boxes.ignore).sum()), numbers, int(boxes.frame.max()), len(counts))
        assert boxes.ignore.sum() == numbers * len(counts)
        assert (boxes.box >= 0).all() and (boxes.box[:, 2:] < [540.001, 960.001]).all()
        assert boxes.box[~boxes.ignore][:, 3].max() == pytest.approx(960) or boxes.box[~boxes.ignore].min() == 0
        assert (boxes.visibility >= 0).all() and boxes.visibility.max() == 1
    assert found == {
        "MVI_20032": (1657, 437, 437, 5),
        "MVI_39811": (599, 500, 786, 5),
        "MVI_63544": (1963, 956, 1160, 9),
    }
