"""The user's own images, from a folder of PNGs, an .npy or an .npz."""

import zipfile
import zlib
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from objcentric.errors import UserError

ANNOTATIONS = ("label", "count", "boxes")
# What numpy and pillow raise on damaged files.
_UNREADABLE = (OSError, ValueError, EOFError, SyntaxError, TypeError, zipfile.BadZipFile, zlib.error)


class Images(NamedTuple):
    image: np.ndarray  # uint8 [M, H, W, C]; C = 1 grey, 3 colour
    annotations: dict[str, np.ndarray]  # any of 'label', 'count', 'boxes', as they lie in an .npz; M rows each


def read(path: str | Path) -> Images:
    """Reads a folder of PNGs (in the order of their names), an .npy or an .npz.

    Arrays are uint8, or float in [0, 1]; [M, H, W] or [M, H, W, C]. An .npz holds them as 'image' or 'images',
    with 'label' or 'labels', 'count' and 'boxes' beside them where they are known.

    Raises UserError if there is no image, if sizes differ, or if a file cannot be read.
    """
    path = Path(path).expanduser()
    if path.is_dir():
        return Images(_read_folder(path), {})
    if not path.is_file():
        raise UserError(f"there is no {path}: give a folder of PNGs, an .npz or an .npy")
    if path.suffix not in (".npy", ".npz"):
        raise UserError(f"cannot read {path}: give a folder of PNGs, an .npz or an .npy")
    try:
        if path.suffix == ".npz":
            with open(path, "rb") as file, np.load(file) as loaded:
                arrays = dict(loaded)
        else:
            arrays = {"image": np.asarray(np.load(path, mmap_mode="r"))}
    except _UNREADABLE as error:
        raise UserError(f"cannot read {path}, it may be cut off ({error}): write it anew") from error

    arrays = {{"images": "image", "labels": "label"}.get(key, key): array for key, array in arrays.items()}
    if "image" not in arrays:
        raise UserError(f"{path} holds {sorted(arrays)}: name the array of images 'image'")
    image = _to_uint8(arrays["image"], path)
    annotations = {key: arrays[key] for key in ANNOTATIONS if key in arrays}
    for key, array in annotations.items():
        if array.shape[:1] != image.shape[:1] or array.dtype.kind not in "iuf":
            raise UserError(f"{path}: {key!r} is {array.dtype} {array.shape}, expected numbers, {len(image)} rows")
        if not np.isfinite(array).all():
            raise UserError(f"{path}: {key!r} holds NaN or infinity")
    return Images(image, annotations)


def _read_folder(folder: Path) -> np.ndarray:
    files = sorted(file for file in folder.iterdir() if file.suffix.lower() == ".png")
    if not files:
        raise UserError(f"{folder} holds no PNG: put the images there as .png files, all of one size")
    pixels = [_read_png(file) for file in files]
    for file, array in zip(files, pixels, strict=True):
        if array.shape[:2] != pixels[0].shape[:2]:
            sizes = ["{1}x{0}".format(*a.shape) for a in (pixels[0], array)]
            raise UserError(
                f"{folder} mixes sizes: {files[0].name} is {sizes[0]} and {file.name} is {sizes[1]} (width x height); "
                "make all images one size"
            )
    channels = max(array.shape[2] for array in pixels)
    return np.stack([np.broadcast_to(array, (*array.shape[:2], channels)) for array in pixels])


def _read_png(file: Path) -> np.ndarray:
    """Pixels uint8 [H, W, 1] or [H, W, 3]; what is transparent becomes black."""
    try:
        with Image.open(file, formats=("PNG",)) as image:
            if image.mode.startswith("I"):
                raise UserError(f"{file} has 16 bits per channel: save it with 8")
            mode = "L" if image.mode in ("1", "L", "LA") else "RGB"
            if image.has_transparency_data:
                black = Image.new("RGBA", image.size, (0, 0, 0, 255))
                image = Image.alpha_composite(black, image.convert("RGBA"))
            return np.asarray(image.convert(mode)).reshape(image.height, image.width, -1)
    except _UNREADABLE as error:
        raise UserError(f"cannot read {file}, it may be cut off ({error}): save it anew or remove it") from error


def _to_uint8(image: np.ndarray, path: Path) -> np.ndarray:
    """Validated pixels [M, H, W, C] of an array [M, H, W] or [M, H, W, C], uint8 or float in [0, 1]."""
    image = image[..., None] if image.ndim == 3 else image
    if image.ndim != 4 or image.shape[-1] not in (1, 3) or not image.size:
        raise UserError(f"{path}: images have shape {image.shape}, expected [M, H, W] or [M, H, W, C] with C = 1 or 3")
    if image.dtype == np.uint8:
        return image
    if image.dtype.kind != "f":
        raise UserError(f"{path}: images are {image.dtype}, expected uint8 or float in [0, 1]")
    low, high = image.min(), image.max()
    if not (low >= 0 and high <= 1):  # also false for NaN
        raise UserError(f"{path}: float images must lie in [0, 1] and be finite, these lie in [{low:g}, {high:g}]")
    return np.round(image * 255).astype(np.uint8)
