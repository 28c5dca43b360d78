from pathlib import Path

import numpy as np
import pytest

from objcentric.data import tracks
from objcentric.errors import UserError

FILE = Path("boxes.txt")
BOX = [[0, 0, 2, 3]]


def line(i):
    return f"line {i + 1}"


def assemble(frame, identity, box=None, **options):
    return tracks.assemble(FILE, line, frame, identity, BOX * len(frame) if box is None else box, **options)


def test_rows_are_sorted_and_stay_whole():
    rng = np.random.default_rng(0)
    frame, identity = np.divmod(rng.permutation(60), 7) + np.array([[1], [1]])
    box = np.stack([frame, identity, frame + identity, 2 * identity], axis=1)
    kind = np.array([f"{f}/{i}" for f, i in zip(frame, identity, strict=True)])
    found = assemble(frame, identity, box, ignore=identity == 3, visibility=frame / 10, kind=kind)
    rows = list(zip(found.frame.tolist(), found.identity.tolist(), strict=True))
    assert rows == sorted(rows) and len(set(rows)) == 60
    np.testing.assert_array_equal(found.box[:, :2], rows)
    np.testing.assert_array_equal(found.ignore, found.identity == 3)
    np.testing.assert_allclose(found.visibility, found.frame / 10, rtol=1e-6)
    assert found.kind.tolist() == [f"{f}/{i}" for f, i in rows]
    assert [c.dtype.name for c in found[:5]] == ["int32", "int32", "float32", "bool", "float32"]


def test_what_is_not_given_holds_of_all():
    found = assemble([3, 1], [1, 1])
    assert found.ignore.tolist() == [False, False] and found.visibility.tolist() == [1, 1]
    assert found.kind.tolist() == ["", ""] and found.frame.tolist() == [1, 3]


def test_regions_are_ignored_and_may_be_negative():
    found = assemble([1, 1, 1], [2, -1, -2], ignore=[True, False, False], region=[False, True, True])
    assert found.identity.tolist() == [-2, -1, 2] and found.ignore.all()
    with pytest.raises(UserError, match="boxes.txt, line 2: identity -1 is no whole number from 0 on"):
        assemble([0, 0], [0, -1], lowest=(0, 0))


@pytest.mark.parametrize(
    "frame, identity, box, message",
    [
        ([1, 0], [1, 1], None, "line 2: frame 0 is no whole number from 1 on"),
        ([1, 1.5], [1, 1], None, "line 2: frame 1.5 is no whole number"),
        ([1, np.nan], [1, 1], None, "line 2: frame nan is no whole number"),
        ([1, 2], [1, 2**31], None, "line 2: identity 2.14748e\\+09 is no whole number"),
        ([1, 2], [1, 1], [[0, 0, 2, 3], [0, 0, np.nan, 3]], "line 2: NaN or infinity"),
        ([1, 2], [1, 1], [[0, 0, 2, 3], [0, 0, 1e300, 3]], "line 2: NaN or infinity"),
        ([1, 2], [1, 1], [[0, 0, 2, 3], [5, 1, 5, 3]], "line 2: a box of width 2 and height 0: both must be positive"),
        ([1, 2], [1, 1], [[0, 0, 2, 3], [5, 4, 6, 3]], "line 2: a box of width -1 and height 1: both must"),
        ([1, 2], [1, 1], [[0, 0, 2, 3], [5e9, 4, 5e9 + 1, 5]], "line 2: a box of width 1 and height 0"),
        ([4, 2, 4], [1, 1, 1], None, "line 3: identity 1 is in frame 4 by line 1, too: remove one"),
        ([], [], np.zeros((0, 4)), "boxes.txt holds no boxes: copy it anew"),
    ],
)
def test_rows_that_cannot_be(frame, identity, box, message):
    with pytest.raises(UserError, match=message) as error:
        assemble(frame, identity, box)
    assert "\n" not in str(error.value)


def test_visibility_is_a_number():
    with pytest.raises(UserError, match="line 1: NaN or infinity"):
        assemble([1], [1], visibility=[np.nan])


@pytest.fixture
def file(tmp_path):
    return tmp_path / "a.txt"


LAYOUTS = (("a", "kind", "b"), ("a", "kind", "b", "c"))


def read(file, text, **options):
    file.write_text(text)
    return tracks.read_table(file, LAYOUTS, texts=["kind"], **options)


def test_columns_of_tables(file):
    table = read(file, '1 Car 2.5\r\n\n  \n3 "Golf cart" -1e1 \n')
    assert list(table.columns) == ["a", "kind", "b"]
    assert table.columns["a"].tolist() == [1, 3] and table.columns["b"].tolist() == [2.5, -10]
    assert table.columns["kind"].tolist() == ["Car", "Golf cart"]
    assert [table.where(i) for i in (0, 1)] == ["line 1", "line 4"]
    table = read(file, "\n1,Car,2,7\n", delimiter=",")
    assert table.columns["c"].tolist() == [7] and table.where(0) == "line 2"


def test_more_columns_than_wanted(file):
    file.write_text('1 Car 2\n1 "Car" 2 "red" "fast"\n')
    table = tracks.read_table(file, LAYOUTS[:1], texts=["kind"], more=True)
    assert table.columns["b"].tolist() == [2, 2] and table.columns["kind"].tolist() == ["Car", "Car"]


@pytest.mark.parametrize(
    "text, message",
    [
        ("\n1 Car\n", r"line 2: 2 columns, expected 3 or 4: is it cut off\? Copy the file anew"),
        ("1 Car 2\n\n1 Car 2 3\n", "line 3: 4 columns, expected 3"),
        ("1 Car 2\n1 Car 2\n3 Ca", "line 3: 2 columns, expected 3"),
        ("1 Car 2\n1 Car x\n3 Ca", "line 2: '1 Car x' holds what is no number"),
        ("1 Car 2\n1 Car 1_0\n", "line 2: '1 Car 1_0' holds what is no number"),
        ("1 Car 2\n\n1 Car nan\n", "line 3: NaN or infinity"),
        ("1 Car 2\n-inf Car 2\n", "line 2: NaN or infinity"),
        (" \n", "a.txt holds no boxes"),
    ],
)
def test_bad_lines_are_named(file, text, message):
    with pytest.raises(UserError, match=message) as error:
        read(file, text)
    assert "\n" not in str(error.value)


def test_tables_that_are_none(file):
    with pytest.raises(UserError, match=r"cannot read .*a.txt \(there is none\): copy it from the data set"):
        tracks.read_table(file, LAYOUTS)
    file.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match="cannot read .*a.txt .*: copy it"):
        tracks.read_table(file, LAYOUTS)


def test_folders(tmp_path):
    assert tracks.folder(str(tmp_path), "`train`") == tmp_path
    with pytest.raises(UserError, match="there is no folder .*/train: give `train`, as its archive unpacks"):
        tracks.folder(tmp_path / "train", "`train`")
