import functools
import io
import os
import pickle
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.io
import scipy.ndimage
from ml_collections import ConfigDict
from PIL import Image

from objcentric.data import digits, labelled, loader, splits
from objcentric.errors import UserError

CIFAR_NAMES = (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch")


def config(**changes):
    c = ConfigDict()
    c.name = "labelled"
    c.source = "embedded"
    c.path = ""
    c.canvas = (40, 40)
    c.shift = 6
    c.affine = False
    c.sobel = False
    c.num_train = 0
    c.num_valid = 0
    c.num_test = 0
    c.cache_dir = ""
    c.seed = 0
    c.device_bytes = 1 << 30
    c.update(changes)
    return c


@functools.cache
def rgb(size, seed=0):
    """Random images [size, 32, 32, 3] and labels [size]."""
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (size, 32, 32, 3), np.uint8), rng.integers(0, 10, size)


def sizes(data):
    return [len(split["image"]) for split in data]


def check_published(data, train, test):
    """That the last tenth of what is published to train on validates."""
    many = len(train[0]) // 10
    expected = (train[0][:-many], train[1][:-many]), (train[0][-many:], train[1][-many:]), test
    for split, (image, label) in zip(data, expected, strict=True):
        np.testing.assert_array_equal(split["image"], image)
        np.testing.assert_array_equal(split["label"], label)
        assert (split["image"].dtype, split["label"].dtype) == (np.uint8, np.int32)


def test_embedded_digits_are_as_large_as_shifts_allow():
    data = loader.load(config())
    for split, part in zip(splits.SPLITS, data, strict=True):
        image, label = digits.load_digits("embedded", "", split, 0)
        assert part["image"].shape == (len(image), 28, 28, 1) and part["image"].dtype == np.uint8
        np.testing.assert_array_equal(part["label"], label)
        ink = part["image"].reshape(-1, 28, 28).astype(float).mean((1, 2))
        expected = image.mean((1, 2)) * 64 / 100  # there is a margin of a tenth
        np.testing.assert_allclose(ink, expected, atol=6)
        assert np.corrcoef(ink, expected)[0, 1] > 0.98
        assert part["image"][:, 0].max() < 255 / 3
    assert loader.load(config(canvas=(20, 30), shift=2)).test["image"].shape[1:] == (16, 16, 1)
    small = loader.load(config(num_train=7, num_test=3))
    assert sizes(small) == [7, len(data.valid["image"]), 3]
    np.testing.assert_array_equal(small.train["image"], data.train["image"][:7])
    with pytest.raises(UserError, match="^data.num_valid is 500, embedded has 270 of them"):
        loader.load(config(num_valid=500))


def test_real_mnist(mnist_dir):
    data = loader.load(config(source="mnist", path=str(mnist_dir)))
    assert sizes(data) == [55_000, 5_000, 10_000]
    assert data.test["image"].shape[1:] == (28, 28, 1)
    assert data.test["label"][:5].tolist() == [7, 2, 1, 0, 4]


@pytest.fixture
def svhn(tmp_path):
    for kind, size in (("train", 23), ("test", 4)):
        image, label = rgb(size)
        published = np.where(label == 0, 10, label)[:, None].astype(np.uint8)
        scipy.io.savemat(tmp_path / f"{kind}_32x32.mat", {"X": np.moveaxis(image, 0, 3), "y": published})
    return config(source="svhn", path=str(tmp_path), canvas=(32, 32), shift=0)


def test_svhn(svhn):
    data = loader.load(svhn)
    check_published(data, rgb(23), rgb(4))
    assert 0 in data.train["label"]


def test_published_files_lie_where_the_environment_tells(svhn, monkeypatch, tmp_path):
    monkeypatch.setenv("OBJCENTRIC_DATA", str(tmp_path.parent))
    svhn.path = ""
    tmp_path.rename(tmp_path.parent / "svhn")
    assert sizes(loader.load(svhn)) == [21, 2, 4]


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("svhn", "train_32x32.mat.*ufldl.stanford.edu"),
        ("cifar10", "cifar-10-batches-bin.*cs.toronto.edu"),
        ("affnist", "transformed of cs.toronto.edu"),
    ],
)
def test_files_that_are_missing(source, said, monkeypatch, tmp_path):
    monkeypatch.delenv("OBJCENTRIC_DATA", raising=False)
    with pytest.raises(UserError, match=rf"there is no folder \$OBJCENTRIC_DATA/{source}: put .*{said}"):
        loader.load(config(source=source))
    with pytest.raises(UserError, match=f"{tmp_path} holds no .*: put .*{said}") as error:
        loader.load(config(source=source, path=str(tmp_path)))
    assert "\n" not in str(error.value)


def damage(file, how):
    content = file.read_bytes()
    file.write_bytes({"cut": content[: len(content) // 2 - 1], "empty": b"", "text": b"not what it should be\n"}[how])


@pytest.mark.parametrize("how", ["cut", "empty", "text"])
def test_damaged_svhn(svhn, tmp_path, how):
    damage(tmp_path / "test_32x32.mat", how)
    with pytest.raises(UserError, match="cannot read .*test_32x32.mat") as error:
        loader.load(svhn)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        ({"X": np.zeros((32, 32, 3, 4), np.uint8)}, "cropped digits"),
        ({"X": np.zeros((28, 28, 1, 4), np.uint8), "y": np.ones((4, 1))}, "cropped digits"),
        ({"X": np.zeros((32, 32, 3, 4)), "y": np.ones((4, 1))}, "cropped digits"),
        ({"X": np.zeros((32, 32, 3, 4), np.uint8), "y": np.ones((5, 1))}, "has 4 images and labels of shape .5"),
        ({"X": np.zeros((32, 32, 3, 4), np.uint8), "y": np.array([1, 10, 11, 2])}, "label of image 2 is 11"),
        ({"X": np.zeros((32, 32, 3, 4), np.uint8), "y": np.array([1, -1, 3, 2])}, "label of image 1 is -1"),
    ],
)
def test_wrong_svhn(svhn, tmp_path, arrays, said):
    scipy.io.savemat(tmp_path / "train_32x32.mat", arrays)
    with pytest.raises(UserError, match=f"train_32x32.mat.*{said}"):
        loader.load(svhn)


def planar(image):
    """As CIFAR-10's files have images: rows of 3072, channel by channel."""
    return np.ascontiguousarray(image.transpose(0, 3, 1, 2)).reshape(len(image), -1)


def save_bin(file, image, label):
    np.concatenate([label[:, None].astype(np.uint8), planar(image)], 1).tofile(file)


def save_pickle(file, image, label):
    """As Python 2 and an old numpy wrote it."""
    batch = {b"batch_label": b"one", b"labels": label.tolist(), b"data": planar(image), b"filenames": [b"a.png"]}
    file.write_bytes(pickle.dumps(batch, protocol=3).replace(b"numpy._core.", b"numpy.core."))


KINDS = {"bin": ("cifar-10-batches-bin", ".bin", save_bin), "py": ("cifar-10-batches-py", "", save_pickle)}


@pytest.fixture(params=["bin", "py"])
def cifar(tmp_path, request):
    """Six images to each of six files, in the folder that archives unpack to."""
    inner, ending, save = KINDS[request.param]
    (tmp_path / inner).mkdir()
    for i, name in enumerate(CIFAR_NAMES):
        save(tmp_path / inner / (name + ending), *rgb(6, i))
    c = config(source="cifar10", path=str(tmp_path), canvas=(32, 32), shift=0)
    return c, [tmp_path / inner / (name + ending) for name in CIFAR_NAMES], save


def test_cifar10(cifar):
    c, files, _ = cifar
    train = [np.concatenate(parts) for parts in zip(*(rgb(6, i) for i in range(5)), strict=True)]
    for path in (c.path, str(files[0].parent)):
        c.path = path
        check_published(loader.load(c), train, rgb(6, 5))


@pytest.mark.parametrize("how", ["cut", "empty", "text"])
def test_damaged_cifar10(cifar, how):
    c, files, _ = cifar
    damage(files[2], how)
    with pytest.raises(UserError, match="data_batch_3.*copy or download it again") as error:
        loader.load(c)
    assert "\n" not in str(error.value)


def test_wrong_cifar10(cifar):
    c, files, save = cifar
    image, label = rgb(6)
    save(files[5], image, np.where(np.arange(6) == 4, 10, label))
    with pytest.raises(UserError, match="test_batch.*label of image 4 is 10, expected 0 to 9"):
        loader.load(c)
    files[3].unlink()
    with pytest.raises(UserError, match="holds no data_batch_4"):
        loader.load(c)


class Harmful:
    def __reduce__(self):
        return os.mkdir, ("harmed",)


@pytest.mark.parametrize(
    ("batch", "said"),
    [
        ({"data": Harmful(), "labels": [1]}, "it holds a .*mkdir"),
        ({"data": np.zeros((2, 3000), np.uint8), "labels": [1, 2]}, "'data' is not uint8"),
        ({"data": [[1, 2]], "labels": [1, 2]}, "'data' is not uint8"),
        ({"data": np.zeros((2, 3072), np.uint8)}, "labels"),
        ([1, 2], "has no attribute"),
    ],
)
def test_pickles_run_nothing(tmp_path, monkeypatch, batch, said):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "batch").write_bytes(pickle.dumps(batch, protocol=2 if "Harmful" in repr(batch) else 3))
    with pytest.raises(UserError, match=said):
        labelled.read_cifar10_pickle(tmp_path / "batch")
    assert not (tmp_path / "harmed").exists()


def save_pngs(folder, image, label, per_file):
    lines = []
    for i, image_ in enumerate(image.reshape(-1, per_file, 1024, 3)):
        Image.fromarray(image_).save(folder / f"cifar10_batch_{i}.png")
        lines += [f"{i} {row} {label[i * per_file + row]} frog train/frog/0000.jpg\n" for row in range(per_file)]
    (folder / "labels.txt").write_text("".join(lines[::-1]))


def test_cifar10_stacked_in_pngs(tmp_path):
    image, label = rgb(20)
    save_pngs(tmp_path, image, label, 10)
    read = labelled.read_cifar10_pngs(tmp_path)
    np.testing.assert_array_equal(read.image, image)
    np.testing.assert_array_equal(read.label, label)
    c = config(source="cifar10", path=str(tmp_path), canvas=(32, 32), shift=0)
    data = loader.load(c)
    assert sizes(data) == [16, 2, 2]
    which = {one.tobytes(): i for i, one in enumerate(image)}
    rows = [which[one.tobytes()] for split in data for one in split["image"]]
    assert sorted(rows) == list(range(20))
    np.testing.assert_array_equal(np.concatenate([split["label"] for split in data]), label[rows])

    text = (tmp_path / "labels.txt").read_text().splitlines(keepends=True)
    (tmp_path / "labels.txt").write_text("".join(text[:-1]))
    with pytest.raises(UserError, match="label of image 0 is -1"):
        loader.load(c)
    (tmp_path / "labels.txt").write_text("7 0 1\n")
    with pytest.raises(UserError, match="labels.txt does not tell"):
        loader.load(c)
    (tmp_path / "labels.txt").unlink()
    with pytest.raises(UserError, match="labels.txt does not tell"):
        loader.load(c)


def test_real_cifar10(data_dir):
    folder = data_dir / "cifar10"
    if not (folder / "labels.txt").is_file():
        pytest.skip(f"real data: there is no {folder / 'labels.txt'}")
    image, label = labelled.read_cifar10_pngs(folder)
    assert image.shape == (4000, 32, 32, 3) and label[:6].tolist() == [6, 9, 9, 4, 1, 1]
    with Image.open(folder / "cifar10_batch_2.png") as stacked:
        np.testing.assert_array_equal(image[2007], np.asarray(stacked)[7].reshape(32, 32, 3))
    some = image[:200].astype(float)
    down, across = (np.abs(np.diff(some, axis=axis)).mean() for axis in (1, 2))
    assert max(down, across) < 0.3 * np.abs(np.diff(some, axis=0)).mean()  # rows are images, and pixels in order
    data = loader.load(config(source="cifar10", path=str(folder), canvas=(32, 32), shift=0))
    assert sizes(data) == [3200, 400, 400]


def save_affnist(file, first, size):
    """Image i has an L of brightness i + 1, its foot to the right; its label is i % 10."""
    number = np.arange(first, first + size)
    image = np.zeros((size, 40, 40), np.uint8)
    image[:, 10:30, 12] = image[:, 29, 12:20] = number[:, None] + 1
    fields = {"affine_matrix": np.eye(3), "image": image.reshape(size, -1).T, "label_int": (number % 10)[None]}
    scipy.io.savemat(file, {"affNISTdata": fields})


@pytest.fixture
def affnist(tmp_path):
    for i, (kind, files) in enumerate((("training", 2), ("validation", 1), ("test", 11))):
        (tmp_path / f"{kind}_batches").mkdir()
        for number in range(files):
            save_affnist(tmp_path / f"{kind}_batches" / f"{number + 1}.mat", 100 * i + 3 * number, 3)
    return tmp_path


def test_affnist(affnist):
    c = config(source="affnist", path=str(affnist), shift=0, num_test=7)
    data = loader.load(c)
    assert sizes(data) == [6, 3, 7]
    for split, first in zip(data, (0, 100, 200), strict=True):
        number = first + np.arange(len(split["image"]))
        np.testing.assert_array_equal(split["label"], number % 10)
        np.testing.assert_array_equal(split["image"][:, 29, 19, 0], number + 1)
        assert not split["image"][:, 19, 29].any() and split["image"].shape[1:] == (40, 40, 1)
    with pytest.raises(UserError, match="images of affnist are 40x40, too large for shifts by data.shift=6"):
        loader.load(config(source="affnist", path=str(affnist)))


def test_affnist_to_test_on(affnist):
    whole = labelled.read_affnist(affnist)
    np.testing.assert_array_equal(whole.image.max((1, 2, 3)), 201 + np.arange(33))
    for path, size in ((affnist / "test_batches", 33), (affnist / "test_batches" / "11.mat", 3)):
        np.testing.assert_array_equal(labelled.read_affnist(str(path)).image, whole.image[-size:])
    save_affnist(affnist / "test.mat", 5, 2)
    assert len(labelled.read_affnist(affnist).image) == 33
    (affnist / "test_batches").rename(affnist / "others")
    assert labelled.read_affnist(affnist).label.tolist() == [5, 6]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"image": np.zeros((1600, 2), np.uint8)}, "not a file of affNIST"),
        ({"affNISTdata": np.zeros((1600, 2))}, "not a file of affNIST"),
        ({"affNISTdata": {"image": np.zeros((784, 2), np.uint8), "label_int": [1, 2]}}, r"expected uint8 \(1600, M\)"),
        ({"affNISTdata": {"image": np.zeros((1600, 2), np.uint8), "label_int": [1]}}, "2 images and labels"),
        ({"affNISTdata": {"image": np.zeros((1600, 2), np.uint8), "label_int": [1, 10]}}, "label of image 1 is 10"),
    ],
)
def test_wrong_affnist(tmp_path, content, said):
    scipy.io.savemat(tmp_path / "1.mat", content)
    with pytest.raises(UserError, match=f"1.mat.*{said}"):
        labelled.read_affnist(tmp_path / "1.mat")


def test_damaged_affnist(affnist):
    damage(affnist / "test_batches" / "4.mat", "cut")
    with pytest.raises(UserError, match="cannot read .*4.mat"):
        labelled.read_affnist(affnist)


def test_own_images(tmp_path):
    image, label = rgb(20)
    np.savez(tmp_path / "own.npz", image=image, label=label.astype(float))
    c = config(source=str(tmp_path / "own.npz"), canvas=(32, 32), shift=0)
    data = loader.load(c)
    which = {one.tobytes(): i for i, one in enumerate(image)}
    rows = [which[one.tobytes()] for split in data for one in split["image"]]
    assert sizes(data) == [16, 2, 2] and sorted(rows) == list(range(20))
    np.testing.assert_array_equal(np.concatenate([split["label"] for split in data]), label[rows])
    for canvas, shift in (((31, 40), 0), ((40, 40), 5)):
        with pytest.raises(UserError, match="are 32x32, too large .* reduce data.shift, or enlarge data.canvas"):
            loader.load(config(source=c.source, canvas=canvas, shift=shift))
    np.save(tmp_path / "own.npy", image)
    assert [list(split) for split in loader.load(config(source=str(tmp_path / "own.npy"), shift=0))] == [["image"]] * 3
    large = config(source=str(tmp_path / "own.npy"), canvas=(20, 20), shift=0, affine=True)
    assert sizes(loader.load(large)) == [16, 2, 2]


@pytest.mark.parametrize(
    ("size", "label", "said"),
    [(2, [1, 2], "at least 3"), (4, [1, 2, 0.5, 3], "whole numbers"), (4, [0, 1, -1, 2], "image 2 is -1")],
)
def test_wrong_own_images(tmp_path, size, label, said):
    np.savez(tmp_path / "own.npz", image=rgb(size)[0], label=np.array(label))
    with pytest.raises(UserError, match=said):
        loader.load(config(source=str(tmp_path / "own.npz"), shift=0))


def test_prepared_by_tfds(tmp_path):
    import tensorflow_datasets as tfds

    class Cifar10(tfds.core.GeneratorBasedBuilder):
        """Images as the published builder has them: PNGs, and one of ten classes."""

        VERSION = tfds.core.Version("1.0.0")
        code_path = None  # of what else is in the package of the builder

        def _info(self):
            label = tfds.features.ClassLabel(num_classes=10)
            features = {"image": tfds.features.Image(shape=(32, 32, 3)), "label": label}
            return self.dataset_info_from_configs(features=tfds.features.FeaturesDict(features))

        def _split_generators(self, _):
            return {"train": self._generate_examples(20), "test": self._generate_examples(3)}

        def _generate_examples(self, size):
            for i, (image, label) in enumerate(zip(*rgb(size), strict=True)):
                file = io.BytesIO()
                Image.fromarray(image).save(file, "PNG")
                file.seek(0)
                yield i, {"image": file, "label": int(label)}

    builder = Cifar10(data_dir=tmp_path, file_format="array_record")
    builder.download_and_prepare()
    data = loader.load(config(source="cifar10", path=str(builder.data_dir), canvas=(32, 32), shift=0))
    which = {one.tobytes(): i for i, one in enumerate(rgb(20)[0])}
    rows = [which[one.tobytes()] for split in (data.train, data.valid) for one in split["image"]]
    assert sizes(data) == [18, 2, 3] and sorted(rows) == list(range(20))
    np.testing.assert_array_equal(np.concatenate([data.train["label"], data.valid["label"]]), rgb(20)[1][rows])
    versions = loader.load(config(source="cifar10", path=str(tmp_path / "cifar10"), canvas=(32, 32), shift=0))
    np.testing.assert_array_equal(versions.test["image"], data.test["image"])
    for file in Path(builder.data_dir).glob("*.array_record*"):
        file.unlink()
    with pytest.raises(UserError, match="cannot read .* by TensorFlow Datasets") as error:
        loader.load(config(source="cifar10", path=str(builder.data_dir), canvas=(32, 32), shift=0))
    assert "\n" not in str(error.value)


def keys(num):
    return jax.random.split(jax.random.key(1), num)


def test_placed_images_are_shifted_evenly_and_whole():
    image = 1 + jnp.arange(12.0).reshape(3, 2, 2)
    placed = jax.jit(jax.vmap(lambda key: labelled.place(key, image, (9, 7), 2)))(keys(600))
    assert placed.shape == (600, 9, 7, 2)
    seen = {}
    for one in np.asarray(placed):
        y, x = np.argwhere(one.any(-1)).min(0)
        np.testing.assert_array_equal(one[y : y + 3, x : x + 2], image)
        assert np.count_nonzero(one) == image.size
        seen[y, x] = seen.get((y, x), 0) + 1
    assert set(seen) == {(y, x) for y in range(1, 6) for x in range(5)}  # 3 and 2 in the middle
    assert min(seen.values()) > 8
    middle = jax.jit(labelled.place, static_argnums=(2, 3))(jax.random.key(0), image.astype(jnp.uint8), (9, 7), 0)
    assert middle.dtype == jnp.uint8
    np.testing.assert_array_equal(middle, np.pad(image, ((3, 3), (2, 3), (0, 0))))
    with pytest.raises(ValueError, match="leaves a canvas"):
        labelled.place(jax.random.key(0), image, (9, 7), 3)


warp = jax.jit(labelled.warp, static_argnums=3)
linear_map = jax.jit(labelled.linear_map)


def test_warp_is_that_of_scipy():
    image = np.random.default_rng(0).uniform(size=(9, 12, 2)).astype(np.float32)
    matrix = np.array([[0.9, -0.4], [0.3, 1.2]], np.float32)
    shift, canvas = np.array([1.5, -2.25], np.float32), (16, 14)
    ours = warp(image, matrix, shift, canvas)
    inverse = np.linalg.inv(matrix)
    offset = (np.array(image.shape[:2]) - 1) / 2 - inverse @ ((np.array(canvas) - 1) / 2 + shift)
    for channel in range(2):
        plane = image[..., channel]
        theirs = scipy.ndimage.affine_transform(plane, inverse, offset, canvas, order=1, mode="grid-constant")
        np.testing.assert_allclose(ours[..., channel], theirs, atol=1e-5)


def test_quarter_turn():
    image = np.random.default_rng(0).uniform(size=(9, 9, 1)).astype(np.float32)
    turn = linear_map(np.float32(np.pi / 2), np.float32(0), np.ones(2, np.float32))
    turned = warp(image, turn, np.zeros(2, np.float32), (9, 9))
    np.testing.assert_allclose(turned, np.rot90(image, -1), atol=1e-5)


def test_linear_map_by_hand():
    skewed = linear_map(np.float32(0), np.float32(0.2), np.array([0.8, 1.2], np.float32))
    np.testing.assert_allclose(skewed, [[0.8, 0], [0.16, 1.2]], rtol=1e-6)


@functools.cache
def affined(num=400):
    """One blot of 9x7 ones in the middle of 28x28, on 40x40."""
    image = np.zeros((28, 28, 1), np.float32)
    image[8:17, 12:19] = 1
    return np.asarray(jax.jit(jax.vmap(lambda key: labelled.affine(key, image, (40, 40))))(keys(num)))[..., 0]


def test_affine_images_keep_their_ink_and_have_affnists_ranges():
    """Moments of what is seen tell what was done: covariances of a rectangle change with the map's square."""
    placed = affined()
    assert np.isfinite(placed).all() and placed.min() >= 0 and placed.max() <= 1 + 1e-6
    area = placed.sum((1, 2)) / 63
    assert 0.8**2 - 0.03 < area.min() < 0.72 and 1.36 < area.max() < 1.2**2 + 0.03
    assert area.mean() == pytest.approx(1, abs=0.03)
    centre = np.stack([(placed * np.arange(40)[:, None]).sum((1, 2)), (placed * np.arange(40)).sum((1, 2))], 1)
    centre /= placed.sum((1, 2))[:, None]
    assert centre.min() < 6 and centre.max() > 33  # up to where the ink meets the edge
    np.testing.assert_allclose(centre.mean(0), 19.5, atol=1.2)
    grid = np.stack(np.meshgrid(np.arange(40), np.arange(40), indexing="ij"), -1)
    offset = grid[None] - centre[:, None, None]
    moments = np.einsum("byx,byxi,byxj->bij", placed, offset, offset) / placed.sum((1, 2))[:, None, None]
    # Rows of the rectangle lean by rotation alone, columns by shear as well; their extremes:
    tilt = np.rad2deg(np.arctan2(2 * moments[:, 0, 1], moments[:, 0, 0] - moments[:, 1, 1]) / 2)
    assert 20 < np.abs(tilt).max() and abs(np.median(tilt)) < 5
    ratio = np.sqrt(moments[:, 0, 0] / moments[:, 1, 1])
    assert ratio.min() < 0.95 and ratio.max() > 1.7


def test_parameters_of_affine_maps_are_uniform_in_affnists_ranges(monkeypatch):
    seen = []
    real = labelled.linear_map
    monkeypatch.setattr(labelled, "warp", lambda image, matrix, shift, canvas: (matrix, shift))
    monkeypatch.setattr(labelled, "linear_map", lambda *parts: seen.append(parts) or real(*parts))

    def draw(key):
        seen.clear()
        labelled.affine(key, jnp.ones((4, 4, 1)), (40, 40))
        rotation, shear, scale = seen[0]
        return jnp.stack([jnp.rad2deg(rotation), shear, *scale])

    drawn = np.asarray(jax.jit(jax.vmap(draw))(keys(1_000)))
    low, high = np.array([-20, -0.2, 0.8, 0.8]), np.array([20, 0.2, 1.2, 1.2])
    assert (drawn >= low - 1e-5).all() and (drawn <= high + 1e-5).all()
    unit = (drawn - low) / (high - low)
    np.testing.assert_allclose(
        np.quantile(unit, [0.05, 0.25, 0.5, 0.75, 0.95], 0).T, [[0.05, 0.25, 0.5, 0.75, 0.95]] * 4, atol=0.05
    )
    assert np.abs(np.corrcoef(unit.T) - np.eye(4)).max() < 0.15


def test_affine_of_what_does_not_fit_and_of_nothing():
    images = jnp.stack([jnp.ones((30, 30, 1)), jnp.zeros((30, 30, 1))])
    large, nothing = jax.jit(jax.vmap(lambda image: labelled.affine(keys(1)[0], image, (10, 10))))(images)
    np.testing.assert_allclose(large, 1, atol=1e-5)  # in the middle
    assert not nothing.any()


sobel = jax.jit(jax.vmap(labelled.sobel_target))


def test_sobel_targets_are_those_of_scipy():
    image = np.random.default_rng(0).uniform(size=(3, 8, 9, 3)).astype(np.float32)
    ours = sobel(image)
    for one, target in zip(image, ours, strict=True):
        planes = np.moveaxis(one.astype(float), 2, 0)
        response = [sum(scipy.ndimage.sobel(plane, axis, mode="mirror") for axis in (0, 1)) for plane in planes]
        response = np.stack(response, 2)
        distance = np.abs(response - np.median(response, (0, 1)))
        expected = (distance - distance.min()) / (distance.max() - distance.min())
        np.testing.assert_allclose(target, expected, atol=1e-5)
        assert target.min() == 0 and target.max() == pytest.approx(1)


def test_sobel_target_of_an_edge_and_of_none():
    step, flat = np.zeros((7, 5, 1), np.float32), np.full((7, 5, 1), 0.3, np.float32)  # 35 pixels: one in the middle
    step[:, 3:] = 1
    edge, none = sobel(np.stack([step, flat]))
    np.testing.assert_array_equal(edge[..., 0], np.tile([0, 0, 1, 1, 0], (7, 1)))
    assert not none.any()
