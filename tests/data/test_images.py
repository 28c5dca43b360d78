import numpy as np
import pytest
from PIL import Image

from objcentric.data import images
from objcentric.errors import UserError

GREY = np.arange(12, dtype=np.uint8).reshape(3, 4)


def test_folder_is_read_in_the_order_of_names(tmp_path):
    for name, value in (("b.png", 2), ("a.PNG", 1), ("c.png", 3)):
        Image.fromarray(GREY + value).save(tmp_path / name, format="PNG")
    (tmp_path / "notes.txt").write_text("not an image")
    image, annotations = images.read(tmp_path)
    np.testing.assert_array_equal(image[..., 0], np.stack([GREY + 1, GREY + 2, GREY + 3]))
    assert image.shape == (3, 3, 4, 1) and image.dtype == np.uint8 and annotations == {}


def test_grey_beside_colour_becomes_colour_and_transparent_becomes_black(tmp_path):
    Image.fromarray(GREY).save(tmp_path / "a.png")
    rgba = np.full((3, 4, 4), 200, np.uint8)
    rgba[..., 3] = 255
    rgba[0, :, 3] = 0
    Image.fromarray(rgba).save(tmp_path / "b.png")
    image = images.read(tmp_path).image
    np.testing.assert_array_equal(image[0], np.repeat(GREY[..., None], 3, axis=-1))
    np.testing.assert_array_equal(image[1], np.where(rgba[..., 3:] > 0, 200, 0).repeat(3, axis=-1))


def test_folder_of_mixed_sizes_names_two_files(tmp_path):
    Image.fromarray(GREY).save(tmp_path / "a.png")
    Image.fromarray(GREY.T.copy()).save(tmp_path / "b.png")
    with pytest.raises(UserError, match=r"a\.png is 4x3 and b\.png is 3x4"):
        images.read(tmp_path)


def test_empty_folder(tmp_path):
    with pytest.raises(UserError, match="holds no PNG"):
        images.read(tmp_path)


@pytest.mark.parametrize("content", [b"", b"not a png", "cut"])
def test_damaged_png_is_named(tmp_path, content):
    file = tmp_path / "a.png"
    Image.fromarray(np.random.default_rng(0).integers(256, size=(40, 40), dtype=np.uint8)).save(file)
    file.write_bytes(file.read_bytes()[:800] if content == "cut" else content)
    with pytest.raises(UserError, match=r"cannot read .*a\.png"):
        images.read(tmp_path)


def test_png_of_16_bits(tmp_path):
    Image.fromarray(np.full((3, 4), 40_000, np.uint16)).save(tmp_path / "a.png")
    with pytest.raises(UserError, match="16 bits"):
        images.read(tmp_path)


@pytest.mark.parametrize(
    "array, expected",
    [
        (GREY[None], GREY[None, ..., None]),
        (np.stack([GREY] * 3, axis=-1)[None], np.stack([GREY] * 3, axis=-1)[None]),
        (np.array([[[0.0, 0.5, 1.0]]]), np.array([[[[0], [128], [255]]]])),
        (np.array([[[0.0, 0.25, 1.0]]], np.float32), np.array([[[[0], [64], [255]]]])),
    ],
)
@pytest.mark.parametrize("suffix", [".npy", ".npz"])
def test_arrays(tmp_path, array, expected, suffix):
    file = tmp_path / f"a{suffix}"
    np.save(file, array) if suffix == ".npy" else np.savez(file, images=array)
    image = images.read(file).image
    assert image.dtype == np.uint8
    np.testing.assert_array_equal(image, expected)


@pytest.mark.parametrize(
    "array, message",
    [
        (np.zeros((3, 4)), "have shape"),
        (np.zeros((2, 3, 4, 2)), "have shape"),
        (np.zeros((0, 3, 4)), "have shape"),
        (np.zeros((2, 3, 4), np.int64), "are int64"),
        (np.full((2, 3, 4), 255.0), r"lie in \[255, 255\]"),
        (np.full((2, 3, 4), -0.1), "lie in"),
        (np.full((2, 3, 4), np.nan), "finite"),
        (np.full((2, 3, 4), np.inf), "finite"),
    ],
)
def test_wrong_arrays(tmp_path, array, message):
    np.save(tmp_path / "a.npy", array)
    with pytest.raises(UserError, match=message):
        images.read(tmp_path / "a.npy")


@pytest.mark.parametrize("suffix", [".npy", ".npz"])
@pytest.mark.parametrize("kept", [0, 20, 135, -1])
def test_cut_off_arrays(tmp_path, suffix, kept):
    file = tmp_path / f"a{suffix}"
    np.save(file, GREY[None]) if suffix == ".npy" else np.savez(file, image=GREY[None])
    file.write_bytes(file.read_bytes()[:kept])
    with pytest.raises(UserError, match=f"cannot read .*a{suffix}"):
        images.read(file)


def test_annotations_lie_beside_the_images(tmp_path):
    file = tmp_path / "a.npz"
    np.savez(file, image=GREY[None], labels=[7], count=[1], boxes=np.ones((1, 2, 4)), other=3)
    annotations = images.read(file).annotations
    assert sorted(annotations) == ["boxes", "count", "label"]
    assert annotations["label"] == 7


@pytest.mark.parametrize(
    "arrays, message",
    [
        ({"pixels": GREY[None]}, r"holds \['pixels'\]"),
        ({"image": GREY[None], "label": [1, 2]}, "'label'"),
        ({"image": GREY[None], "count": ["one"]}, "'count'"),
        ({"image": GREY[None], "boxes": [[[0, 0, np.nan, 1]]]}, "'boxes' holds NaN"),
    ],
)
def test_wrong_npz(tmp_path, arrays, message):
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(UserError, match=message):
        images.read(tmp_path / "a.npz")


@pytest.mark.parametrize("name", ["missing", "missing.npz", "a.txt"])
def test_not_images(tmp_path, name):
    (tmp_path / "a.txt").write_text("text")
    with pytest.raises(UserError, match=f"{name}.* give a folder of PNGs, an .npz or an .npy"):
        images.read(tmp_path / name)
