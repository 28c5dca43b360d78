"""Whole images with labels: digits, SVHN, CIFAR-10, affNIST or the user's own; and how they come onto a canvas.

Splits hold images as they are. `place` and `affine` put one of them on a canvas and `sobel_target` filters it: pure
functions of a key and an image, to be called where a batch is used, so that training sees an example anew each time.
"""

import os
import pickle
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.scipy.ndimage import map_coordinates
from ml_collections import ConfigDict
from PIL import Image

from objcentric.data import digits, images, splits
from objcentric.errors import UserError

MOST_VALID = 5_000  # examples of a published training set that validate: its last tenth, and no more than these
# Where files of the sets are that must be fetched by hand.
SOURCES = {
    "svhn": "train_32x32.mat and test_32x32.mat of ufldl.stanford.edu/housenumbers, or what is prepared by"
    " tfds.builder('svhn_cropped', file_format='array_record').download_and_prepare()",
    "cifar10": "cifar-10-batches-bin or cifar-10-batches-py of cs.toronto.edu/~kriz/cifar.html, unpacked, or what is"
    " prepared by tfds.builder('cifar10', file_format='array_record').download_and_prepare()",
    "affnist": "the folders of .mat files in 32x/transformed of cs.toronto.edu/~tijmen/affNIST, unpacked",
}
# affNIST (T. Tieleman, 2013, cs.toronto.edu/~tijmen/affNIST); each uniform.
ROTATION = 20.0  # +-, degrees
SHEAR = 0.2  # +-
SCALE = (0.8, 1.2)  # of height and width, independently


class Labelled(NamedTuple):
    image: np.ndarray  # uint8 [M, h, w, C]
    label: np.ndarray | None  # int32 [M]; None if unknown


def load(c: ConfigDict) -> dict[str, dict[str, np.ndarray]]:
    """Splits of a validated config.data: 'image' uint8 [M, h, w, C] and, if known, 'label' int32 [M].

    - 'embedded': scikit-learn's digits, with a margin of a tenth, as large as ``shift`` allows them to be on the
      canvas; 'mnist'. See `digits.load_digits`.
    - 'svhn', 'cifar10': the published training and test images; of the former the last tenth, but 5000 at most,
      validates. In ``path``, else in $OBJCENTRIC_DATA/svhn or /cifar10. Nothing is downloaded. If that, or a folder in
      it, holds a dataset_info.json it is read by TensorFlow Datasets, which needs no TensorFlow if it was prepared as
      array_record.
    - 'affnist': its own three splits, in ``path`` or $OBJCENTRIC_DATA/affnist; see `read_affnist`.
    - a folder of PNGs, an .npz or an .npy: see `images.read`; 80/10/10.

    Of each split the first ``num_train``, ``num_valid`` or ``num_test`` are used; 0 means all.

    Raises UserError if files are missing, cut off or not what they should be, or if images do not fit on the canvas.
    """
    numbers = dict(zip(splits.SPLITS, (c.num_train, c.num_valid, c.num_test), strict=True))
    parts = _SETS.get(c.source, _own)(c)
    out = {}
    for split, number in numbers.items():
        image, label = parts[split]
        if number > len(image):
            raise UserError(
                f"data.num_{split} is {number}, {c.source} has {len(image)} of them: reduce it, or set 0 for all"
            )
        rows = slice(number or None)
        out[split] = {"image": image[rows]} | ({} if label is None else {"label": label[rows]})
    _check_size(c, out["train"]["image"].shape[1:3])
    return out


def _check_size(c: ConfigDict, size: tuple[int, int]) -> None:
    room = tuple(side - 2 * c.shift for side in c.canvas)
    if not c.affine and any(one > most for one, most in zip(size, room, strict=True)):
        sizes = "{}x{}".format(*size), "{}x{}".format(*c.canvas)
        raise UserError(
            f"images of {c.source} are {sizes[0]}, too large for shifts by data.shift={c.shift} on a canvas of "
            f"{sizes[1]}: reduce data.shift, or enlarge data.canvas"
        )


def _digits(c: ConfigDict) -> dict[str, Labelled]:
    out = {}
    for split in splits.SPLITS:
        image, label = digits.load_digits(c.source, c.path, split, c.seed, cache_dir=c.cache_dir)
        if c.source == "embedded":
            side = min(c.canvas) - 2 * c.shift
            image = np.pad(image, ((0, 0), (1, 1), (1, 1)))  # their ink reaches the edges, and would end abruptly
            resized = (Image.fromarray(one).resize((side, side), Image.Resampling.BILINEAR) for one in image)
            image = np.stack([np.asarray(one) for one in resized])
        out[split] = Labelled(image[..., None], label)
    return out


def _own(c: ConfigDict) -> dict[str, Labelled]:
    image, annotations = images.read(c.source)
    label = annotations.get("label")
    if label is not None and (label.ndim != 1 or (label != np.floor(label)).any()):
        raise UserError(f"{c.source}: 'label' is {label.dtype} {label.shape}, expected whole numbers, [{len(image)}]")
    return _shares(_checked(image, label, c.source, np.inf), c.source, c.seed)


def _svhn(c: ConfigDict) -> dict[str, Labelled]:
    folder = _folder(c)
    if prepared := _prepared(folder):
        return _published(*_tfds(prepared))
    return _published(*(read_svhn(_file(c, folder, f"{kind}_32x32.mat")) for kind in ("train", "test")))


def _cifar10(c: ConfigDict) -> dict[str, Labelled]:
    folder = _folder(c)
    if prepared := _prepared(folder):
        return _published(*_tfds(prepared))
    if any(folder.glob("cifar10_batch_*.png")):
        return _shares(read_cifar10_pngs(folder), folder, c.seed)
    names = *(f"data_batch_{i}" for i in range(1, 6)), "test_batch"
    for inner, ending, read in (
        ("cifar-10-batches-bin", ".bin", read_cifar10_bin),
        ("cifar-10-batches-py", "", read_cifar10_pickle),
    ):
        where = folder / inner if (folder / inner).is_dir() else folder
        if any((where / (name + ending)).is_file() for name in names):
            *train, test = (read(_file(c, where, name + ending)) for name in names)
            return _published(Labelled(*map(np.concatenate, zip(*train, strict=True))), test)
    raise UserError(f"{folder} holds no CIFAR-10: put {SOURCES['cifar10']}, there")


def _affnist(c: ConfigDict) -> dict[str, Labelled]:
    kinds = zip(("training", "validation", "test"), (c.num_train, c.num_valid, c.num_test), strict=True)
    return dict(zip(splits.SPLITS, (read_affnist(_folder(c), kind, most) for kind, most in kinds), strict=True))


_SETS: dict[str, Callable[[ConfigDict], dict[str, Labelled]]] = {
    "embedded": _digits,
    "mnist": _digits,
    "svhn": _svhn,
    "cifar10": _cifar10,
    "affnist": _affnist,
}


def _folder(c: ConfigDict) -> Path:
    data = os.environ.get("OBJCENTRIC_DATA")
    folder = Path(c.path).expanduser() if c.path else Path(data or "$OBJCENTRIC_DATA", c.source)
    if not folder.is_dir():
        raise UserError(
            f"there is no folder {folder}: put {SOURCES[c.source]}, there, or name another folder by data.path"
        )
    return folder


def _file(c: ConfigDict, folder: Path, name: str) -> Path:
    if not (folder / name).is_file():
        raise UserError(f"{folder} holds no {name}: put {SOURCES[c.source]}, there")
    return folder / name


def _published(train: Labelled, test: Labelled) -> dict[str, Labelled]:
    """Splits of a published training and test set."""
    valid = min(MOST_VALID, len(train.image) // 10)
    if not valid:
        raise UserError(
            f"a training set of {len(train.image)} images leaves none to validate on: at least 10 are needed"
        )
    first, last = (Labelled(train.image[rows], train.label[rows]) for rows in (slice(-valid), slice(-valid, None)))
    return {"train": first, "valid": last, "test": test}


def _shares(all_: Labelled, path: Path | str, seed: int) -> dict[str, Labelled]:
    """Splits, 80/10/10, of images that come as one set."""
    if len(all_.image) < 3:
        raise UserError(f"{path} holds {len(all_.image)} images: at least 3 are needed, to train, validate and test on")
    rows = {split: splits.indices(len(all_.image), split, seed) for split in splits.SPLITS}
    return {
        split: Labelled(all_.image[chosen], None if all_.label is None else all_.label[chosen])
        for split, chosen in rows.items()
    }


def read_svhn(file: Path) -> Labelled:
    """Images [M, 32, 32, 3] and labels of a .mat of SVHN's cropped digits: X [32, 32, 3, M], y [M, 1] (10: zero)."""
    arrays = _read_mat(file)
    image, label = arrays.get("X"), arrays.get("y")
    if image is None or label is None or image.ndim != 4 or image.shape[:3] != (32, 32, 3) or image.dtype != np.uint8:
        raise UserError(f"{file} is not of SVHN's cropped digits, with 'X' uint8 [32, 32, 3, M] and 'y'")
    label = label.reshape(-1)
    checked = _checked(np.ascontiguousarray(np.moveaxis(image, 3, 0)), label, file, 11)
    return checked._replace(label=checked.label % 10)


def read_cifar10_bin(file: Path) -> Labelled:
    """Images [M, 32, 32, 3] and labels of a file of the binary version: records of a label and 3 * 32 * 32 pixels."""
    content = np.fromfile(file, np.uint8)
    if not content.size or content.size % 3073:
        raise UserError(f"{file} holds {content.size} bytes, not a multiple of 3073: copy or download it again")
    rows = content.reshape(-1, 3073)
    return _checked(_cifar10_pixels(rows[:, 1:]), rows[:, 0], file)


def read_cifar10_pickle(file: Path) -> Labelled:
    """Those of a file of the Python version: a pickle of a dict with 'data' uint8 [M, 3072] and 'labels'.

    Of what a pickle can name only numpy's arrays are made, as unpickling others may run any code.
    """
    try:
        with open(file, "rb") as opened:
            batch = _Arrays(opened, encoding="bytes").load()
        batch = {key.decode() if isinstance(key, bytes) else key: value for key, value in batch.items()}
        pixels, label = batch["data"], np.asarray(batch["labels"])
    except Exception as error:  # unpickling raises what it likes on files cut off or changed
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise UserError(f"cannot read {file} ({reason}): copy or download it again") from error
    if not isinstance(pixels, np.ndarray) or pixels.dtype != np.uint8 or pixels.shape[1:] != (3072,):
        raise UserError(f"{file}: 'data' is not uint8 [M, 3072]: copy or download it again")
    return _checked(_cifar10_pixels(pixels), label, file)


class _Arrays(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> object:
        known = {"_reconstruct": np.empty(0).__reduce__()[0], "ndarray": np.ndarray, "dtype": np.dtype}
        if module.split(".")[0] != "numpy" or name not in known:
            raise pickle.UnpicklingError(f"it holds a {module}.{name}, which no batch of CIFAR-10 does")
        return known[name]


def _cifar10_pixels(rows: np.ndarray) -> np.ndarray:
    """Images [M, 32, 32, 3] of rows [M, 3072], channel by channel."""
    return np.ascontiguousarray(rows.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1))


def read_cifar10_pngs(folder: Path) -> Labelled:
    """Those of cifar10_batch_<n>.png, in which each row of 1024 pixels is an image, and of labels.txt.

    A line of labels.txt begins with the number of the file, that of the row, and the label.
    """
    files = sorted(file for file in folder.iterdir() if file.suffix.lower() == ".png")
    stacked = images.read(folder).image  # of files in the same order
    if stacked.shape[2:] != (1024, 3):
        raise UserError(f"{folder}: images stacked in PNGs have 1024 pixels to the row, in colour; these are not")
    try:
        number, row, label = np.loadtxt(folder / "labels.txt", int, usecols=(0, 1, 2), unpack=True, ndmin=2)
        position = {file.stem: i for i, file in enumerate(files)}
        labels = np.full(stacked.shape[:2], -1)
        labels[[position[f"cifar10_batch_{n}"] for n in number], row] = label
    except (OSError, ValueError, KeyError, IndexError) as error:
        raise UserError(
            f"{folder / 'labels.txt'} does not tell file, row and label of each image ({error}): copy it again"
        ) from error
    return _checked(stacked.reshape(-1, 32, 32, 3), labels.reshape(-1), folder / "labels.txt")


def read_affnist(path: Path | str, kind: str = "test", most: int = 0) -> Labelled:
    """Images [M, 40, 40, 1] and labels of affNIST's .mat files of transformed digits.

    Args:
      path: one file; or a folder that has ``<kind>_batches/*.mat``, read by their numbers, or ``<kind>.mat``; or the
        folder of batches.
      kind: 'training', 'validation' or 'test'.
      most: how many are read, 0 means all. The first batch alone shows each digit once, in one of 32 ways.

    Raises UserError if there is none, or one cannot be read.
    """
    path = Path(path).expanduser()
    if path.is_file():
        files = [path]
    else:
        batches = path if path.name == f"{kind}_batches" else path / f"{kind}_batches"
        files = sorted(batches.glob("*.mat"), key=lambda file: (len(file.stem), file.stem))
        files = files or list(path.glob(f"{kind}.mat"))
    if not files:
        raise UserError(f"{path} holds no {kind}_batches/*.mat and no {kind}.mat: put {SOURCES['affnist']}, there")
    read: list[Labelled] = []
    for file in files:
        read.append(_read_affnist_file(file))
        if most and sum(len(each.image) for each in read) >= most:
            break
    image, label = map(np.concatenate, zip(*read, strict=True))
    return Labelled(image[: most or None], label[: most or None])


def _read_affnist_file(file: Path) -> Labelled:
    try:
        data = _read_mat(file)["affNISTdata"].flat[0]
        image, label = data["image"], data["label_int"].reshape(-1)
    except (KeyError, ValueError, IndexError, TypeError) as error:
        advice = "use one with 'image' and 'label_int' in 'affNISTdata'"
        raise UserError(f"{file} is not a file of affNIST: {advice}") from error
    if image.ndim != 2 or image.shape[0] != 1600 or image.dtype != np.uint8:
        raise UserError(f"{file}: 'image' is {image.dtype} {image.shape}, expected uint8 (1600, M)")
    # Columns of pixels run along the rows of the picture.
    return _checked(np.ascontiguousarray(image.T).reshape(-1, 40, 40, 1), label, file)


def _read_mat(file: Path) -> dict[str, np.ndarray]:
    import scipy.io  # slow to import

    try:
        return scipy.io.loadmat(file)
    except Exception as error:  # scipy raises what it likes on files cut off or changed
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise UserError(f"cannot read {file}, it may be cut off ({reason}): copy or download it again") from error


def _prepared(folder: Path) -> Path | None:
    """Where TensorFlow Datasets can read: there, or in the last of the folders in it, one for each version; or None."""
    name = "dataset_info.json"
    found = [folder / name] if (folder / name).is_file() else sorted(folder.glob(f"*/{name}"))
    return found[-1].parent if found else None


def _tfds(folder: Path) -> Sequence[Labelled]:
    """The published training and test set that the user prepared by TensorFlow Datasets."""
    import tensorflow_datasets as tfds  # slow to import

    try:
        builder = tfds.builder_from_directory(folder)
        read = [list(builder.as_data_source(split)) for split in ("train", "test")]
        arrays = [(np.stack([row["image"] for row in rows]), np.stack([row["label"] for row in rows])) for rows in read]
    except Exception as error:  # TFDS and array_record raise what they like
        reason = (str(error) or type(error).__name__).splitlines()[0]
        advice = "prepare it anew, with file_format='array_record'"
        raise UserError(f"cannot read {folder} by TensorFlow Datasets ({reason}): {advice}") from error
    return [_checked(image, label, folder) for image, label in arrays]


def _checked(image: np.ndarray, label: np.ndarray | None, path: Path | str, classes: float = 10) -> Labelled:
    if label is None:
        return Labelled(image, None)
    if label.shape != image.shape[:1]:
        raise UserError(f"{path} has {len(image)} images and labels of shape {label.shape}: give each image one")
    wrong = np.flatnonzero((label < 0) | (label >= classes))
    if len(wrong):
        most = f"0 to {classes - 1}" if classes < np.inf else "at least 0"
        raise UserError(f"{path}: the label of image {wrong[0]} is {label[wrong[0]]}, expected {most}")
    return Labelled(image, label.astype(np.int32))


def place(key: Array, image: Array, canvas: tuple[int, int], shift: int) -> Array:
    """An image ``[h, w, C]`` amid zeros on a canvas ``[H, W, C]``, shifted by up to ``shift`` pixels along each axis.

    Shifts are whole and uniform; those of the thesis' 40x40 MNIST reach 6 (section 6.3.3). 0: in the middle.
    """
    around = []
    for size, side in zip(image.shape[:2], canvas, strict=True):
        if size + 2 * shift > side:
            raise ValueError(f"an image of {image.shape} leaves a canvas of {canvas} if shifted by {shift}")
        before = (side - size) // 2
        around.append((before + shift, side - size - before + shift))
    padded = jnp.pad(image, (*around, (0, 0)))
    start = jax.random.randint(key, (2,), 0, 2 * shift + 1)
    return lax.dynamic_slice(padded, (start[0], start[1], 0), (*canvas, image.shape[2]))


def affine(key: Array, image: Array, canvas: tuple[int, int]) -> Array:
    """An image ``[h, w, C]`` in [0, 1] under a random affine transformation on a canvas ``[H, W, C]``, as in affNIST.

    It is scaled, sheared and rotated about its middle, each in affNIST's range, and moved to anywhere where all its
    ink (what is above 0) stays on the canvas; in the middle of that, if it is too large.
    """
    rotation_key, shear_key, scale_key, place_key = jax.random.split(key, 4)
    matrix = linear_map(
        jnp.deg2rad(jax.random.uniform(rotation_key, minval=-ROTATION, maxval=ROTATION)),
        jax.random.uniform(shear_key, minval=-SHEAR, maxval=SHEAR),
        jax.random.uniform(scale_key, (2,), minval=SCALE[0], maxval=SCALE[1]),
    )
    ink = jnp.max(image, -1) > 0
    ink = jnp.where(jnp.any(ink), ink, True)
    position = jnp.einsum("ij,jyx->iyx", matrix, _grid(image.shape[:2]))
    low = jnp.min(position, (1, 2), where=ink[None], initial=jnp.inf)
    high = jnp.max(position, (1, 2), where=ink[None], initial=-jnp.inf)
    edge = (jnp.asarray(canvas, jnp.float32) - 1) / 2
    room = edge - (high - low) / 2
    where = jax.random.uniform(place_key, (2,), minval=-1.0, maxval=1.0) * jnp.maximum(room, 0.0)
    return warp(image, matrix, where - (low + high) / 2, canvas)


def linear_map(rotation: Array, shear: Array, scale: Array) -> Array:
    """Matrix ``[2, 2]`` that scales (y, x) by ``scale [2]``, shifts x by ``shear`` times y, and rotates by radians."""
    cos, sin = jnp.cos(rotation), jnp.sin(rotation)
    turn = jnp.stack([jnp.stack([cos, sin]), jnp.stack([-sin, cos])])
    skew = jnp.eye(2).at[1, 0].set(shear)
    return turn @ skew @ jnp.diag(scale)


def warp(image: Array, matrix: Array, shift: Array, canvas: tuple[int, int]) -> Array:
    """What of an image ``[h, w, C]`` lies at (y, x) moves to ``matrix`` (y, x) + ``shift`` on a canvas ``[H, W, C]``.

    Positions are in pixels from the middles of image and canvas; in between pixels there is bilinear interpolation,
    and around the image there are zeros.
    """
    source = jnp.einsum("ij,jyx->iyx", jnp.linalg.inv(matrix), _grid(canvas) - shift[:, None, None])
    source = source + (jnp.asarray(image.shape[:2], jnp.float32) - 1)[:, None, None] / 2
    return jax.vmap(lambda plane: map_coordinates(plane, list(source), order=1), 2, 2)(image)


def _grid(size: tuple[int, int]) -> Array:
    """Positions of pixels ``[2, h, w]``, y and x, from the middle."""
    axes = (jnp.arange(side, dtype=jnp.float32) - (side - 1) / 2 for side in size)
    return jnp.stack(jnp.meshgrid(*axes, indexing="ij"))


def sobel_target(image: Array) -> Array:
    """Edges ``[H, W, C]`` in [0, 1] of an image ``[H, W, C]``: what SVHN and CIFAR-10 are reconstructed as.

    As in appendix 6.A.2: the responses of Sobel's filters along both axes, added; the distance from the median of each
    channel; from 0 to the largest of the image. One without edges is 0. Images are reflected beyond their borders.
    """
    padded = jnp.pad(image, ((1, 1), (1, 1), (0, 0)), mode="reflect")
    smooth_y = padded[:-2] + 2 * padded[1:-1] + padded[2:]
    smooth_x = padded[:, :-2] + 2 * padded[:, 1:-1] + padded[:, 2:]
    response = (smooth_x[2:] - smooth_x[:-2]) + (smooth_y[:, 2:] - smooth_y[:, :-2])
    distance = jnp.abs(response - _median(response))
    low, high = jnp.min(distance), jnp.max(distance)
    return (distance - low) / jnp.where(high > low, high - low, 1.0)


def _median(image: Array) -> Array:
    """Of each channel of float32 ``[H, W, C]``, as ``[1, 1, C]``. On CPUs XLA sorts integers several times faster."""
    ordered = jnp.sort(_swap(lax.bitcast_convert_type(image, jnp.int32)).reshape(-1, image.shape[-1]).T, -1)
    many = ordered.shape[-1]
    middle = _swap(ordered[:, (many - 1) // 2 : many // 2 + 1])
    return jnp.mean(lax.bitcast_convert_type(middle, jnp.float32), -1)[None, None]


def _swap(bits: Array) -> Array:
    """Of floats' bits integers in the same order, and back."""
    return bits ^ ((bits >> 31) & 0x7FFFFFFF)
