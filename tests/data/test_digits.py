import gzip
import hashlib
import os
import struct
import urllib.request
from pathlib import Path

import numpy as np
import pytest
import sklearn.datasets

from objcentric.data import digits, splits
from objcentric.errors import UserError

REAL_MNIST = Path(os.environ.get("OBJCENTRIC_DATA", "/nowhere"), "mnist")


def rows(digits_):
    return sorted(image.tobytes() + bytes([label % 256]) for image, label in zip(*digits_, strict=True))


def test_embedded_digits_are_those_of_scikit_learn():
    parts = [digits.load_digits("embedded", "", split, 0) for split in splits.SPLITS]
    assert [len(part.image) for part in parts] == [1797 - 2 * 270, 270, 270]
    raw = sklearn.datasets.load_digits()
    everything = digits.Digits(np.round(raw.images / 16 * 255).astype(np.uint8), raw.target)
    assert sorted(sum(map(rows, parts), [])) == rows(everything)
    assert parts[0].image.max() == 255 and parts[0].label.dtype == np.int32
    seen = [set(rows(part)) for part in parts]
    assert not (seen[0] & seen[1] or seen[0] & seen[2] or seen[1] & seen[2])  # no digit is held out and trained on


def test_embedded_split_follows_the_seed():
    a, b, again = (digits.load_digits("embedded", "", "test", seed) for seed in (0, 1, 0))
    assert rows(a) == rows(again) != rows(b)


def idx(array):
    return struct.pack(f">BBBB{array.ndim}i", 0, 0, 8, array.ndim, *array.shape) + array.tobytes()


@pytest.fixture
def mnist(tmp_path, monkeypatch):
    """Four files like MNIST's: 6 training and 3 test images, image i filled with i; two of them zipped."""
    monkeypatch.setattr(digits, "MNIST_ROWS", {"train": slice(0, 4), "valid": slice(4, 6), "test": slice(0, 3)})
    monkeypatch.delenv("OBJCENTRIC_DATA", raising=False)
    for kind, size in (("train", 6), ("t10k", 3)):
        values = np.arange(size, dtype=np.uint8)
        image, label = np.broadcast_to(values[:, None, None], (size, 28, 28)), values + 10 * (kind == "t10k")
        for name, array in ((f"{kind}-images-idx3-ubyte", image), (f"{kind}-labels-idx1-ubyte", label)):
            content = idx(array)
            monkeypatch.setitem(digits.MNIST_MD5, name, hashlib.md5(content).hexdigest())
            if kind == "train":
                (tmp_path / f"{name}.gz").write_bytes(gzip.compress(content))
            else:
                (tmp_path / name).write_bytes(content)
    return tmp_path


@pytest.mark.parametrize("split, labels", [("train", [0, 1, 2, 3]), ("valid", [4, 5]), ("test", [10, 11, 12])])
def test_mnist_files(mnist, split, labels):
    image, label = digits.load_digits("mnist", str(mnist), split, 0)
    np.testing.assert_array_equal(label, labels)
    np.testing.assert_array_equal(image[:, 5, 7], np.array(labels) % 10)
    assert image.shape == (len(labels), 28, 28) and image.dtype == np.uint8 and label.dtype == np.int32


def test_mnist_folder_from_the_environment(mnist, monkeypatch):
    mnist.rename(mnist.parent / "mnist")
    monkeypatch.setenv("OBJCENTRIC_DATA", str(mnist.parent))
    assert len(digits.load_digits("mnist", "", "valid", 0).image) == 2


def edit(content, how):
    return {"cut": content[:-3], "short": content[:6], "changed": content[:-1] + b"\xff", "empty": b""}[how]


@pytest.mark.parametrize("how", ["cut", "short", "changed", "empty"])
@pytest.mark.parametrize("split, name", [("train", "train-images-idx3-ubyte.gz"), ("test", "t10k-labels-idx1-ubyte")])
def test_damaged_mnist_file_is_named(mnist, how, split, name):
    (mnist / name).write_bytes(edit((mnist / name).read_bytes(), how))
    with pytest.raises(UserError, match=f"{name}.*copy or download it again"):
        digits.load_digits("mnist", str(mnist), split, 0)


def test_changed_inside_the_zip(mnist):
    file = mnist / "train-labels-idx1-ubyte.gz"
    file.write_bytes(gzip.compress(edit(gzip.decompress(file.read_bytes()), "changed")))
    with pytest.raises(UserError, match="checksum differs"):
        digits.load_digits("mnist", str(mnist), "train", 0)


def test_missing_mnist_file(mnist):
    (mnist / "t10k-labels-idx1-ubyte").unlink()
    with pytest.raises(UserError, match="holds no t10k-labels-idx1-ubyte"):
        digits.load_digits("mnist", str(mnist), "test", 0)


def test_mnist_is_downloaded_through_tfds(mnist, monkeypatch, tmp_path):
    import tensorflow_datasets as tfds

    asked = []

    class Manager:
        def __init__(self, *, download_dir, force_checksums_validation):
            assert force_checksums_validation and download_dir == tmp_path / "cache" / "downloads"

        def download(self, urls):
            asked.extend(urls)
            return [mnist / Path(url).name for url in urls]

    monkeypatch.setattr(tfds.download, "DownloadManager", Manager)
    monkeypatch.setattr(urllib.request, "urlopen", lambda url, timeout: open(os.devnull))
    assert len(digits.load_digits("mnist", "", "train", 0, cache_dir=str(tmp_path / "cache")).image) == 4
    assert asked == [digits.MNIST_URL + f"train-{kind}-ubyte.gz" for kind in ("images-idx3", "labels-idx1")]


def test_no_network_is_needed_for_files_that_tfds_keeps(mnist, monkeypatch, tmp_path):
    from tensorflow_datasets.core.download import checksums, resource

    folder = tmp_path / "cache" / "downloads"
    folder.mkdir(parents=True)
    for file in mnist.glob("train-*.gz"):
        url = digits.MNIST_URL + file.name
        info = checksums.get_all_url_infos()[url]
        kept = folder / resource.get_dl_fname(url, info.checksum)
        kept.write_bytes(file.read_bytes())
        resource.write_info_file(url, kept, "", file.name, info)
    monkeypatch.setattr(urllib.request, "urlopen", None)
    assert len(digits.load_digits("mnist", "", "train", 0, cache_dir=str(tmp_path / "cache")).image) == 4


def test_no_network(monkeypatch, tmp_path):
    def fail(url, timeout):
        raise OSError("no route to host")

    monkeypatch.delenv("OBJCENTRIC_DATA", raising=False)
    monkeypatch.setattr(urllib.request, "urlopen", fail)
    with pytest.raises(UserError, match=r"cannot download MNIST \(no route to host\): put its four idx files"):
        digits.load_digits("mnist", "", "train", 0, cache_dir=str(tmp_path))


def test_tfds_knows_the_checksums_of_the_published_files():
    from tensorflow_datasets.core.download import checksums

    known = checksums.get_all_url_infos()
    assert all(f"{digits.MNIST_URL}{name}.gz" in known for name in digits.MNIST_MD5)


@pytest.mark.skipif(not REAL_MNIST.is_dir(), reason="needs MNIST: set OBJCENTRIC_DATA to a folder that holds mnist/")
def test_real_mnist():
    train, valid, test = (digits.load_digits("mnist", str(REAL_MNIST), split, 0) for split in splits.SPLITS)
    assert [part.image.shape for part in (train, valid, test)] == [(n, 28, 28) for n in (55_000, 5_000, 10_000)]
    # First labels and class counts as published.
    assert train.label[:5].tolist() == [5, 0, 4, 1, 9] and test.label[:5].tolist() == [7, 2, 1, 0, 4]
    counts = np.bincount(np.concatenate([train.label, valid.label]))
    assert counts.tolist() == [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]


def test_own_digits(tmp_path):
    image = np.random.default_rng(0).integers(1, 256, size=(20, 6, 5, 3), dtype=np.uint8)
    image[..., 1:] = image[..., :1]  # grey, as colour
    np.savez(tmp_path / "own.npz", image=image, label=np.arange(20))
    parts = [digits.load_digits(str(tmp_path / "own.npz"), "", split, 3) for split in splits.SPLITS]
    assert [len(part.image) for part in parts] == [16, 2, 2]
    label = np.concatenate([part.label for part in parts])
    np.testing.assert_array_equal(np.sort(label), np.arange(20))
    np.testing.assert_array_equal(np.concatenate([part.image for part in parts]), image[label, ..., 0])


def test_own_digits_without_labels(tmp_path):
    np.save(tmp_path / "own.npy", np.ones((5, 4, 4)))
    assert (digits.load_digits(str(tmp_path / "own.npy"), "", "train", 0).label == -1).all()


@pytest.mark.parametrize(
    "arrays, message",
    [
        ({"image": np.eye(4)[None] * [[[1]], [[1]], [[0]], [[1]]]}, "image 2 is all black"),
        ({"image": np.ones((2, 4, 4))}, "at least 3"),
        ({"image": np.ones((5, 4, 4)), "label": np.ones((5, 2))}, "one label each"),
    ],
)
def test_wrong_own_digits(tmp_path, arrays, message):
    np.savez(tmp_path / "own.npz", **arrays)
    with pytest.raises(UserError, match=message):
        digits.load_digits(str(tmp_path / "own.npz"), "", "train", 0)
