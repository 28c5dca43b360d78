"""Digits to compose scenes of: scikit-learn's, MNIST's or the user's own."""

import gzip
import hashlib
import os
import urllib.request
import zlib
from pathlib import Path
from typing import NamedTuple

import numpy as np

from objcentric.data import cache, images, splits
from objcentric.errors import UserError

MNIST_URL = "https://storage.googleapis.com/cvdf-datasets/mnist/"
# MD5 of the files unzipped, so that it holds for .gz and plain idx files alike.
MNIST_MD5 = {
    "train-images-idx3-ubyte": "6bbc9ace898e44ae57da46a324031adb",
    "train-labels-idx1-ubyte": "a25bea736e30d166cdddb491f175f624",
    "t10k-images-idx3-ubyte": "2646ac647ad5339dbf082846283269ea",
    "t10k-labels-idx1-ubyte": "27ae3e4e09519cfbb04c329615203637",
}
MNIST_ROWS = {"train": slice(0, 55_000), "valid": slice(55_000, 60_000), "test": slice(0, 10_000)}


class Digits(NamedTuple):
    image: np.ndarray  # uint8 [M, h, w], bright ink on black
    label: np.ndarray  # int32 [M], -1 where unknown


def load_digits(source: str, path: str, split: str, seed: int, *, cache_dir: str = "") -> Digits:
    """Loads the digits of one split; those of 'train', 'valid' and 'test' are disjoint.

    Args:
      source: 'embedded', the 1797 real 8x8 digits of scikit-learn, 70/15/15; 'mnist', 55000/5000/10000 as published;
        or a folder of PNGs, an .npz or an .npy, 80/10/10.
      path: for 'mnist', the folder of its four idx files, zipped or not; '' means $OBJCENTRIC_DATA/mnist where that
        exists, else they are downloaded into ``cache_dir`` (see `cache.folder`).
      seed: of the split of embedded digits and of the user's own.

    Raises UserError if a file is missing, cut off or changed.
    """
    if source == "mnist":
        return _mnist(path, split, cache_dir)
    if source == "embedded":
        image, label, fractions = *_embedded(), (0.7, 0.15, 0.15)
    else:
        image, label, fractions = *_own(source), (0.8, 0.1, 0.1)
    rows = splits.indices(len(image), split, seed, fractions)
    return Digits(image[rows], label[rows].astype(np.int32))


def _embedded() -> tuple[np.ndarray, np.ndarray]:
    import sklearn.datasets  # takes a second, and is needed only until the scenes are prepared

    digits = sklearn.datasets.load_digits()
    return np.round(digits.images * (255 / 16)).astype(np.uint8), digits.target


def _own(path: str) -> tuple[np.ndarray, np.ndarray]:
    image, annotations = images.read(path)
    label = annotations.get("label", np.full(len(image), -1))
    if label.ndim != 1:
        raise UserError(f"{path}: 'label' has shape {label.shape}, digits need one label each, [{len(image)}]")
    if len(image) < 3:
        raise UserError(f"{path} holds {len(image)} digits: at least 3 are needed, to train, validate and test on")
    if image.shape[-1] == 3:
        image = np.round(image @ np.float32([0.299, 0.587, 0.114])[:, None]).astype(np.uint8)  # luma of ITU-R BT.601
    blank = np.flatnonzero(~image.any(axis=(1, 2, 3)))
    if len(blank):
        raise UserError(f"{path}: image {blank[0]} is all black: remove it, digits are bright on black")
    return image[..., 0], label


def _mnist(path: str, split: str, cache_dir: str) -> Digits:
    kind = "t10k" if split == "test" else "train"
    names = f"{kind}-images-idx3-ubyte", f"{kind}-labels-idx1-ubyte"
    local = Path(path or Path(os.environ.get("OBJCENTRIC_DATA", ""), "mnist")).expanduser()
    if path or (os.environ.get("OBJCENTRIC_DATA") and local.is_dir()):
        files = [_find(local, name) for name in names]
    else:
        files = _download(names, cache_dir)
    image, label = (_read_published(file, name) for file, name in zip(files, names, strict=True))
    return Digits(image[MNIST_ROWS[split]], label[MNIST_ROWS[split]].astype(np.int32))


def _find(folder: Path, name: str) -> Path:
    for file in (folder / f"{name}.gz", folder / name):
        if file.is_file():
            return file
    raise UserError(f"{folder} holds no {name}.gz: put MNIST's four files there, or leave data.path empty to download")


def _download(names: tuple[str, ...], cache_dir: str) -> list[Path]:
    """Paths of MNIST's files, fetched once; TFDS knows their size and SHA-256 and checks them."""
    import tensorflow_datasets as tfds

    folder = cache.folder(cache_dir) / "downloads"
    urls = [f"{MNIST_URL}{name}.gz" for name in names]
    try:
        if not all(any(folder.glob(f"*{name}*.gz")) for name in names):
            urllib.request.urlopen(urls[0], timeout=20).close()  # without a network TFDS would try for minutes
        manager = tfds.download.DownloadManager(download_dir=folder, force_checksums_validation=True)
        return [Path(file) for file in manager.download(urls)]
    except Exception as error:  # whatever the network gives: requests' errors, a changed checksum, a full disk
        reason = (str(error) or type(error).__name__).splitlines()[0]
        advice = "put its four idx files in a folder and name it by data.path"
        raise UserError(f"cannot download MNIST ({reason}): {advice}") from error


def _read_published(file: Path, name: str) -> np.ndarray:
    try:
        content = file.read_bytes()
        if content[:2] == b"\x1f\x8b":
            content = gzip.decompress(content)
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"cannot read {file}, it may be cut off ({error}): copy or download it again") from error
    array = parse_idx(content, file)
    if hashlib.md5(content).hexdigest() != MNIST_MD5[name]:
        raise UserError(f"{file} is not the published {name}, its checksum differs: copy or download it again")
    return array


def parse_idx(content: bytes, file: Path) -> np.ndarray:
    """Array of a file in the idx format: 0, 0, type (8: uint8), rank, the dimensions as big-endian int32, the data."""
    rank = content[3] if len(content) > 3 else 0
    if content[:3] != b"\0\0\x08" or not 1 <= rank <= 3 or len(content) < 4 + 4 * rank:
        raise UserError(f"{file} is not an idx file of bytes (header {content[:4].hex()}): copy or download it again")
    shape = tuple(int(n) for n in np.frombuffer(content, ">i4", rank, offset=4))
    data = np.frombuffer(content, np.uint8, offset=4 + 4 * rank)
    if data.size != np.prod(shape):
        raise UserError(f"{file} holds {data.size} of {np.prod(shape)} bytes, it is cut off: copy or download it again")
    return data.reshape(shape)
