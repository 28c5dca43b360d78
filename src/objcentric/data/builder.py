"""What the TensorFlow Datasets builders of composed digits share; they need no TensorFlow."""

import abc
import contextlib
import dataclasses
import hashlib
import io
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import tensorflow_datasets as tfds
from absl import logging
from ml_collections import ConfigDict
from PIL import Image
from tqdm import tqdm

from objcentric.data import cache, digits, splits
from objcentric.errors import UserError

_NOT_IDENTITY = {"path", "num_examples", "cache_dir"}  # not, or not as they are, part of a config's name


@dataclasses.dataclass(kw_only=True)
class DigitsConfig(tfds.core.BuilderConfig):
    """The fields of config.data that an example depends on; `name` carries a hash of them all."""

    source: str
    path: str
    canvas: tuple[int, int]
    num_objects: tuple[int, int]
    object_size: tuple[int, int]
    seed: int
    num_examples: dict[str, int]  # by split
    cache_dir: str

    @classmethod
    def make(cls, c: ConfigDict) -> "DigitsConfig":
        """Of a validated config.data; settings that differ, or a user's files that changed, differ in name."""
        inherited = {field.name for field in dataclasses.fields(tfds.core.BuilderConfig)} | _NOT_IDENTITY
        fields = {name: c[name] for name in (f.name for f in dataclasses.fields(cls)) if name not in inherited}
        num_examples = dict(zip(splits.SPLITS, (c.num_train, c.num_valid, c.num_test), strict=True))
        identity = json.dumps([fields, num_examples, _fingerprint(c.source)], sort_keys=True)
        kind = c.source if c.source in ("embedded", "mnist") else "own"
        name = "{}_{}x{}_{}".format(kind, *c.canvas, hashlib.sha256(identity.encode()).hexdigest()[:16])
        return cls(name=name, path=c.path, num_examples=num_examples, cache_dir=c.cache_dir, **fields)


def _fingerprint(source: str) -> list:
    """Absolute path, size and time of change of the user's files; [] for digits that never change."""
    if source in ("embedded", "mnist"):
        return []
    path = Path(source).expanduser().absolute()
    files = sorted(path.iterdir()) if path.is_dir() else [path]
    return [(str(file), file.stat().st_size, file.stat().st_mtime_ns) for file in files if file.is_file()]


class DigitsBuilder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """Each split composes its own digits; an example depends on (seed, split, its index) and nothing else."""

    VERSION = tfds.core.Version("1.0.0")  # to be raised by a builder when the same config gives other examples
    code_path = None  # it serves only to find a file of checksums, by a package that TFDS does not declare

    @abc.abstractmethod
    def features(self) -> dict[str, tfds.features.FeatureConnector]:
        """Of one example."""

    @abc.abstractmethod
    def compose(self, pool: digits.Digits, rng: np.random.Generator) -> dict[str, np.ndarray]:
        """Draws one example."""

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            description=self.__doc__,
            features=tfds.features.FeaturesDict(self.features()),
            disable_shuffling=True,
        )

    def _split_generators(self, dl_manager) -> dict[str, Iterator]:
        return {split: self._generate_examples(split) for split in splits.SPLITS}

    def _generate_examples(self, split: str) -> Iterator[tuple[int, dict[str, np.ndarray]]]:
        c = self.builder_config
        pool = digits.load_digits(c.source, c.path, split, c.seed, cache_dir=c.cache_dir)
        for i in tqdm(range(c.num_examples[split]), f"preparing {split} data", leave=False, disable=None):
            yield i, self.compose(pool, np.random.default_rng((c.seed, splits.SPLITS.index(split), i)))


def prepare(kind: type[DigitsBuilder], config: DigitsConfig) -> DigitsBuilder:
    """Builder of the data that ``config`` describes, prepared on disk in its cache folder.

    They are written aside and renamed when complete, so that neither a crash nor a second process harms them.
    Raises UserError if the digits cannot be read or placed, or the cache not written.
    """
    folder = cache.folder(config.cache_dir)

    def find() -> DigitsBuilder:
        try:
            return kind(config=config, data_dir=folder, file_format="array_record")
        except Exception as error:  # it reads its metadata, if it is there
            raise cache.damaged(folder / kind.name / config.name, error) from error

    with _quiet():
        builder = find()
        try:
            builder.download_and_prepare()
            for leftover in builder.data_path.parent.glob("incomplete.*"):  # of a process that was killed
                shutil.rmtree(leftover, ignore_errors=True)
        except (OSError, RuntimeError) as error:  # array_record raises the latter when the disk is full
            if not builder.data_path.exists():
                raise cache.unwritable(folder, error) from error
            builder = find()  # another process was faster, with the same data
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


class Drawn(NamedTuple):
    glyphs: list[np.ndarray]  # n digits, uint8 [h, w] each
    label: np.ndarray  # int32 [n]
    boxes: np.ndarray  # int [n, 4]: y0, x0, y1, x1


def draw(
    config: DigitsConfig, pool: digits.Digits, apart: np.ndarray, rng: np.random.Generator, *, mend: str = ""
) -> Drawn:
    """Draws n digits: which, how large, and where; those that are ``apart`` (bool [n]) do not overlap one another.

    Digits that find no room are drawn anew; UserError after 100 times, with ``mend`` added to its advice.
    """
    for _ in range(100):
        chosen = rng.integers(len(pool.image), size=len(apart))
        sizes = rng.integers(*config.object_size, size=len(apart), endpoint=True)
        glyphs = [resize(pool.image[i], size) for i, size in zip(chosen, sizes, strict=True)]
        boxes = place([glyph.shape for glyph in glyphs], config.canvas, apart, rng)
        if boxes is not None:
            return Drawn(glyphs, pool.label[chosen], boxes)
    raise UserError(
        f"no room for {apart.sum()} digits without overlap on a canvas of {config.canvas[0]}x{config.canvas[1]}: "
        f"enlarge data.canvas, reduce data.num_objects or data.object_size{mend}"
    )


def resize(image: np.ndarray, size: int) -> np.ndarray:
    """Crops a digit [h, w] to its ink and scales it, keeping proportions, so that its longer side is ``size``."""
    ys, xs = np.flatnonzero(image.any(axis=1)), np.flatnonzero(image.any(axis=0))
    ink = image[ys[0] : ys[-1] + 1, xs[0] : xs[-1] + 1]
    scale = size / max(ink.shape)
    height, width = (max(1, round(side * scale)) for side in ink.shape)
    return np.asarray(Image.fromarray(ink).resize((width, height), Image.Resampling.BILINEAR))


def place(
    shapes: list[tuple[int, int]], canvas: tuple[int, int], apart: np.ndarray, rng: np.random.Generator
) -> np.ndarray | None:
    """Boxes int [n, 4] of n objects of the given heights and widths, inside the canvas; None if no room was found.

    Each is placed uniformly; those that are ``apart`` (bool [n]), uniformly where such ones before them leave room.
    """
    boxes = np.zeros((0, 4), int)
    for i, shape in enumerate(shapes):
        corner = rng.integers(np.subtract(canvas, shape), size=(64, 2), endpoint=True)
        tries = np.concatenate([corner, corner + shape], axis=1)
        others = boxes[apart[:i] & apart[i]]
        free = (tries[:, None, :2] >= others[:, 2:]) | (others[:, :2] >= tries[:, None, 2:])
        found = np.flatnonzero(free.any(-1).all(-1))
        if not len(found):
            return None
        boxes = np.concatenate([boxes, tries[found[:1]]])
    return boxes
