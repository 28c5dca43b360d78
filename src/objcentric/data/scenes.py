"""Scenes of several digits on a canvas, as a TensorFlow Datasets builder that needs no TensorFlow."""

import contextlib
import dataclasses
import hashlib
import io
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import tensorflow_datasets as tfds
from absl import logging
from ml_collections import ConfigDict
from PIL import Image
from tqdm import tqdm

from objcentric.data import cache, digits, splits
from objcentric.errors import UserError

_FIELDS = ("source", "canvas", "num_objects", "object_size", "overlap", "background", "seed")


@dataclasses.dataclass(kw_only=True)
class SceneConfig(tfds.core.BuilderConfig):
    """The fields of config.data that a scene depends on; `name` carries a hash of them all."""

    source: str
    path: str
    canvas: tuple[int, int]
    num_objects: tuple[int, int]
    object_size: tuple[int, int]
    overlap: bool
    background: str
    seed: int
    num_scenes: dict[str, int]
    cache_dir: str


def scene_config(c: ConfigDict) -> SceneConfig:
    """SceneConfig of a validated config.data; settings that differ, or a user's files that changed, differ in name."""
    fields = {field: getattr(c, field) for field in _FIELDS}
    num_scenes = dict(zip(splits.SPLITS, (c.num_train, c.num_valid, c.num_test), strict=True))
    identity = json.dumps([fields, num_scenes, _fingerprint(c.source)], sort_keys=True)
    kind = c.source if c.source in ("embedded", "mnist") else "own"
    name = "{}_{}x{}_{}".format(kind, *c.canvas, hashlib.sha256(identity.encode()).hexdigest()[:16])
    return SceneConfig(name=name, path=c.path, num_scenes=num_scenes, cache_dir=c.cache_dir, **fields)


def _fingerprint(source: str) -> list:
    """Absolute path, size and time of change of the user's files; [] for digits that never change."""
    if source in ("embedded", "mnist"):
        return []
    path = Path(source).expanduser().absolute()
    files = sorted(path.iterdir()) if path.is_dir() else [path]
    return [(str(file), file.stat().st_size, file.stat().st_mtime_ns) for file in files if file.is_file()]


class MultiDigit(tfds.core.GeneratorBasedBuilder):
    """Each split composes its own digits; a scene depends on (seed, split, its index) and nothing else."""

    VERSION = tfds.core.Version("1.0.0")  # to be raised whenever the same config gives other scenes
    code_path = None  # it serves only to find a file of checksums, by a package that TFDS does not declare

    def _info(self) -> tfds.core.DatasetInfo:
        most = self.builder_config.num_objects[1]
        features = {
            "image": tfds.features.Tensor(shape=(*self.builder_config.canvas, 1), dtype=np.uint8, encoding="bytes"),
            "count": tfds.features.Scalar(dtype=np.int32),
            "boxes": tfds.features.Tensor(shape=(most, 4), dtype=np.float32),
            "label": tfds.features.Tensor(shape=(most,), dtype=np.int32),
        }
        return tfds.core.DatasetInfo(
            builder=self,
            description=__doc__,
            features=tfds.features.FeaturesDict(features),
            disable_shuffling=True,
        )

    def _split_generators(self, dl_manager) -> dict[str, Iterator]:
        return {split: self._generate_examples(split) for split in splits.SPLITS}

    def _generate_examples(self, split: str) -> Iterator[tuple[int, dict[str, np.ndarray]]]:
        c = self.builder_config
        pool = digits.load_digits(c.source, c.path, split, c.seed, cache_dir=c.cache_dir)
        for i in tqdm(range(c.num_scenes[split]), f"preparing {split} scenes", unit="scene", leave=False, disable=None):
            rng = np.random.default_rng((c.seed, splits.SPLITS.index(split), i))
            yield i, compose(c, pool, rng)


def prepare(c: ConfigDict) -> tfds.core.DatasetBuilder:
    """Builder of the scenes of a validated config.data, prepared on disk in its cache folder.

    They are written aside and renamed when complete, so that neither a crash nor a second process harms them.
    Raises UserError if the digits cannot be read or placed, or the cache not written.
    """
    folder = cache.folder(c.cache_dir)
    config = scene_config(c)

    def find() -> MultiDigit:
        try:
            return MultiDigit(config=config, data_dir=folder, file_format="array_record")
        except Exception as error:  # it reads its metadata, if it is there
            raise cache.damaged(folder / MultiDigit.name / config.name, error) from error

    with _quiet():
        builder = find()
        try:
            builder.download_and_prepare()
            for leftover in builder.data_path.parent.glob("incomplete.*"):  # of a process that was killed
                shutil.rmtree(leftover, ignore_errors=True)
        except (OSError, RuntimeError) as error:  # array_record raises the latter when the disk is full
            if not builder.data_path.exists():
                raise cache.unwritable(folder, error) from error
            builder = find()  # another process was faster, with the same scenes
    return builder


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silences what TFDS prints and logs; our own progress bar remains."""
    verbosity = logging.get_verbosity()
    logging.set_verbosity(logging.ERROR)
    tfds.disable_progress_bar()
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        tfds.enable_progress_bar()
        logging.set_verbosity(verbosity)


def compose(config: SceneConfig, pool: digits.Digits, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Draws one scene: a number of digits, which, how large, and where; blended by maximum.

    Digits that find no room are drawn anew, their number is not; UserError after 100 times.
    Returns image uint8 [H, W, 1], count int32, boxes float32 [R, 4] (of the placed digits) and label int32 [R], where
    R is the most digits a scene may have.
    """
    least, most = config.num_objects
    count = rng.integers(least, most, endpoint=True)
    for _ in range(100):
        chosen = rng.integers(len(pool.image), size=count)
        sizes = rng.integers(*config.object_size, size=count, endpoint=True)
        glyphs = [resize(pool.image[i], size) for i, size in zip(chosen, sizes, strict=True)]
        placed = place([glyph.shape for glyph in glyphs], config.canvas, config.overlap, rng)
        if placed is not None:
            break
    else:
        raise UserError(
            f"no room for {count} digits without overlap on a canvas of {config.canvas[0]}x{config.canvas[1]}: enlarge "
            "data.canvas, reduce data.num_objects or data.object_size, or set data.overlap"
        )

    canvas = np.zeros(config.canvas, np.uint8)
    boxes = np.zeros((most, 4), np.float32)
    label = np.full(most, -1, np.int32)
    boxes[:count], label[:count] = placed, pool.label[chosen]
    for glyph, (y0, x0, y1, x1) in zip(glyphs, placed, strict=True):
        region = canvas[y0:y1, x0:x1]
        np.maximum(region, glyph, out=region)
    if config.background == "structured":
        lit = canvas + 255 * structured_background(config.canvas, rng)
        canvas = np.minimum(np.round(lit), 255).astype(np.uint8)
    return {"image": canvas[..., None], "count": np.int32(count), "boxes": boxes, "label": label}


def resize(image: np.ndarray, size: int) -> np.ndarray:
    """Crops a digit [h, w] to its ink and scales it, keeping proportions, so that its longer side is ``size``."""
    ys, xs = np.flatnonzero(image.any(axis=1)), np.flatnonzero(image.any(axis=0))
    ink = image[ys[0] : ys[-1] + 1, xs[0] : xs[-1] + 1]
    scale = size / max(ink.shape)
    height, width = (max(1, round(side * scale)) for side in ink.shape)
    return np.asarray(Image.fromarray(ink).resize((width, height), Image.Resampling.BILINEAR))


def place(
    shapes: list[tuple[int, int]], canvas: tuple[int, int], overlap: bool, rng: np.random.Generator
) -> np.ndarray | None:
    """Boxes int [n, 4] of n objects of the given heights and widths, inside the canvas; None if no room was found.

    Each is placed uniformly; without ``overlap``, uniformly where the objects before it leave room.
    """
    boxes = np.zeros((0, 4), int)
    for shape in shapes:
        corner = rng.integers(np.subtract(canvas, shape), size=(64, 2), endpoint=True)
        tries = np.concatenate([corner, corner + shape], axis=1)
        apart = (tries[:, None, :2] >= boxes[:, 2:]) | (boxes[:, :2] >= tries[:, None, 2:])
        free = np.flatnonzero(apart.any(-1).all(-1) | overlap)
        if not len(free):
            return None
        boxes = np.concatenate([boxes, tries[free[:1]]])
    return boxes


def structured_background(canvas: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """Smooth pattern [H, W] in [0, 0.5]: a slope plus a grating, both of random direction, phase and strength.

    As the notes ask in section 7, the image has structure outside the digits: objects alone must waste their slots on
    it, or leave it unexplained. It has six degrees of freedom, so that a small latent can carry it.
    """
    v, u = np.meshgrid(*(np.linspace(-1, 1, side) for side in canvas), indexing="ij")
    slope_angle, angle, phase = rng.uniform(0, 2 * np.pi, 3)
    cycles = rng.uniform(0.5, 1.5)  # of the grating over the canvas
    slope = rng.uniform(0, 0.06) * (np.cos(slope_angle) * u + np.sin(slope_angle) * v)  # at most .085 in the corners
    wave = rng.uniform(0.08, 0.16) * np.sin(np.pi * cycles * (np.cos(angle) * u + np.sin(angle) * v) + phase)
    return 0.25 + slope + wave
