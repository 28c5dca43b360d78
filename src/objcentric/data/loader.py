"""From config.data to arrays, or to a stream of batches where they are too large for the device."""

import contextlib
import dataclasses
import importlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from ml_collections import ConfigDict

from objcentric.data import cache, images, splits
from objcentric.errors import UserError

Split = dict[str, np.ndarray]  # image uint8 [M, H, W, C]; where known count [M], boxes [M, R, 4], label [M, R]
# Of sequences, as `moving.compose` and `pedestrians.prepare` have them: image [M, T, H, W, 1], presence [M, T, R], ...
# Of tracks image [M, T, H, W, C], filmed [M, T], 0 after the end of a video, and boxes, presence, known and identity,
# as `windows.Windows` has them.
FORMATS = ("mot", "kitti", "kth", "detrac", "drone")  # of tracks: modules that read them
READ_AHEAD = 1 << 28  # bytes of images that are read before they are needed, and that go to the device at once


@dataclasses.dataclass(frozen=True)
class Stream:
    """A split that is read as it is needed."""

    size: int  # number of examples
    read: Callable[[Sequence[int]], Split]  # rows of the given examples, as a split

    def everything(self) -> Split:
        return self.read(range(self.size))

    def fitting(self, batch_size: int, most: int) -> int:
        """How many batches, from 1 to ``most``, have no more than `READ_AHEAD` bytes of images."""
        return int(np.clip(READ_AHEAD // (batch_size * self.read([0])["image"].nbytes), 1, most))

    def batches(
        self, start_step: int, batch_size: int, seed: int, shard_index: int = 0, shard_count: int = 1
    ) -> Iterator[Split]:
        """Endless batches from ``start_step`` on, read ahead by background threads.

        The batch of a step depends on (seed, step, batch_size) alone: examples are shuffled anew in each epoch, and
        reading can start at any step. A shard gets its contiguous batch_size / shard_count rows of each batch.
        """
        if batch_size % shard_count:
            raise UserError(f"a batch of {batch_size} does not divide among {shard_count} shards: choose a multiple")
        import grain  # slow to import

        first = start_step * shard_count + shard_index
        order = grain.MapDataset.range(self.size).seed(seed).shuffle().repeat().batch(batch_size // shard_count)
        batches = order[first::shard_count].map(lambda rows: self.read(rows.tolist()))
        ahead = self.fitting(batch_size // shard_count, 16)
        return iter(batches.to_iter_dataset(grain.ReadOptions(num_threads=min(ahead, 4), prefetch_buffer_size=ahead)))


class Data(NamedTuple):
    train: Split | Stream  # a stream if larger than config.data.device_bytes
    valid: Split | Stream  # a stream of tracks alone
    test: Split | Stream


def load(c: ConfigDict) -> Data:
    """Loads, and prepares if need be, what config.data describes; UserError if it is wrong or cannot be had."""
    check(c)
    makers = {"scenes": _scenes, "pedestrians": _pedestrians, "tracks": _tracks, "labelled": _labelled}
    makers |= dict.fromkeys(("circles", "constellations"), _simulated)
    return makers.get(c.name, _composed)(c)


def size(examples: Split | Stream | np.ndarray) -> int:
    """How many there are."""
    if isinstance(examples, Stream):
        return examples.size
    return len(examples if isinstance(examples, np.ndarray) else next(iter(examples.values())))


def take(examples: Split | Stream | np.ndarray, rows: Sequence[int]) -> Split | np.ndarray:
    """Those of the given numbers."""
    if isinstance(examples, Stream):
        return examples.read(rows)
    if isinstance(examples, np.ndarray):
        return examples[np.asarray(rows)]
    return {key: array[np.asarray(rows)] for key, array in examples.items()}


def first(split: Split | Stream, num: int) -> Split:
    """The first ``num`` examples, or all there are."""
    if isinstance(split, Stream):
        return split.read(range(min(num, split.size)))
    return {name: array[:num] for name, array in split.items()}


def joined(data: Data) -> Split:
    """All splits as one, of what each of them tells; UserError if one is a stream."""
    if any(isinstance(split, Stream) for split in data):
        raise UserError("data.train_on_all needs all splits in memory: raise data.device_bytes")
    names = set.intersection(*(set(split) for split in data))
    return {name: np.concatenate([split[name] for split in data]) for name in sorted(names)}


def frames(split: Split | Stream) -> Split | Stream:
    """The M * T frames of M sequences, in order, as single scenes: image [M * T, H, W, 1], count [M * T], ...

    As in scenes, the objects that are there come first, and the label [M * T, R] of the others is -1.
    """
    if isinstance(split, Stream):
        length = len(split.read([0])["image"][0])

        def read(rows: Sequence[int]) -> Split:
            whole = frames(split.read([row // length for row in rows]))
            return {
                key: array[[i * length + row % length for i, row in enumerate(rows)]] for key, array in whole.items()
            }

        return Stream(split.size * length, read)
    if "presence" not in split:
        return {key: array.reshape(-1, *array.shape[2:]) for key, array in split.items()}
    there = split["presence"] > 0
    out = split | {"label": np.where(there, split["label"][:, None], -1).astype(np.int32)}
    order = np.argsort(~there, axis=2, kind="stable")
    for key in ("presence", "boxes", "visibility", "label"):
        out[key] = np.take_along_axis(out[key], order[..., None] if key == "boxes" else order, axis=2)
    return {key: array.reshape(-1, *array.shape[2:]) for key, array in out.items()}


def _composed(c: ConfigDict) -> Data:
    from objcentric.data import moving, scenes  # TFDS is slow to import

    builder = (moving if c.name == "moving_digits" else scenes).prepare(c)

    @contextlib.contextmanager
    def reading() -> Iterator[None]:
        try:
            yield
        except Exception as error:  # array_record raises what it likes on files cut off or changed
            raise cache.damaged(builder.data_dir, error) from error

    def open_split(split: str) -> Stream:
        with reading():
            source = builder.as_data_source(split)

        def read(rows: Sequence[int]) -> Split:
            with reading():
                return _stack(source.__getitems__(rows))

        return Stream(len(source), read)

    return _place(c, *(open_split(split) for split in splits.SPLITS))


def _pedestrians(c: ConfigDict) -> Data:
    from objcentric.data import pedestrians  # needs OpenCV, where its data are not yet prepared

    return _in_memory(c, pedestrians.prepare(c))


def _labelled(c: ConfigDict) -> Data:
    from objcentric.data import labelled  # needs jax

    return _in_memory(c, labelled.load(c))


def _in_memory(c: ConfigDict, arrays: dict[str, Split]) -> Data:
    def open_split(split: str) -> Stream:
        rows_of = arrays[split]
        size = len(rows_of["image"])
        return Stream(size, lambda rows: {key: array[np.asarray(rows)] for key, array in rows_of.items()})

    return _place(c, *(open_split(split) for split in splits.SPLITS))


def _tracks(c: ConfigDict) -> Data:
    from objcentric.data import frames as decoded
    from objcentric.data import windows

    reader = importlib.import_module(f"objcentric.data.{c.format}")
    annotated = windows.choose(c, reader.videos(c.path))
    for one in annotated:
        if not one.path.exists():
            raise UserError(
                f"there are boxes of {one.path.name}, but no {one.path}: copy it, or name others: data.videos"
            )
    videos = decoded.prepare([one.path for one in annotated], tuple(c.frame_size), grey=c.grey, cache_dir=c.cache_dir)
    examples = windows.cut(c, annotated, videos)

    def open_split(split: str) -> Stream:
        whole = examples[split]
        size = len(whole.video)

        def read(rows: Sequence[int]) -> Split:
            mirrored, rows = np.divmod(rows, size)
            chosen = windows.Windows(*(column[rows] for column in whole))
            video, frames, boxes = chosen.video, chosen.frames, chosen.boxes
            image = np.empty((*frames.shape, *videos[0].pixels.shape[1:]), np.uint8)
            for i in range(len(rows)):
                window = videos[video[i]].pixels[frames[i]]
                image[i] = window[:, :, ::-1] if mirrored[i] else window
                image[i, frames[i] < 0] = 0
            mirror = mirrored > 0
            boxes[mirror] = windows.mirror(boxes[mirror], chosen.presence[mirror], c.frame_size[1])
            filmed = (frames >= 0).astype(np.uint8)
            told = {name: getattr(chosen, name) for name in ("boxes", "presence", "known", "identity")}
            return {"image": image, "filmed": filmed} | told

        return Stream((2 if c.mirror and split == "train" else 1) * size, read)

    train, valid, test = (open_split(split) for split in splits.SPLITS)
    return Data(_resident(c, train), valid, test)


def _simulated(c: ConfigDict) -> Data:
    """Of examples that are simulated where they are needed, their seeds: uint32 [M]."""
    ends = np.cumsum([c.num_test, c.num_valid, c.num_train])  # so that tests stay, however many train
    test, valid, train = np.split(np.arange(ends[-1], dtype=np.uint32), ends[:-1])
    return Data({"seed": train}, {"seed": valid}, {"seed": test})


def _place(c: ConfigDict, train: Stream, valid: Stream, test: Stream) -> Data:
    """Reads all of each split, of the training split only if it fits on the device."""
    return Data(_resident(c, train), valid.everything(), test.everything())


def _resident(c: ConfigDict, train: Stream) -> Split | Stream:
    fits = train.size * train.read([0])["image"].nbytes <= c.device_bytes
    return train.everything() if fits else train


def _stack(examples: Sequence[Split]) -> Split:
    stacked = {key: np.stack([example[key] for example in examples]) for key in examples[0]}
    return stacked | {"count": stacked["count"].astype(np.int32)}  # TFDS reads scalars as int64


def _scenes(c: ConfigDict) -> Data:
    image, annotations = images.read(c.path)
    if len(image) < 3:
        raise UserError(f"{c.path} holds {len(image)} scenes: at least 3 are needed, to train, validate and test on")
    arrays = {"image": image, **_annotations(annotations, c.path)}

    def open_split(split: str) -> Stream:
        chosen = splits.indices(len(image), split, c.seed)
        return Stream(len(chosen), lambda rows: {key: array[chosen[rows]] for key, array in arrays.items()})

    return _place(c, *(open_split(split) for split in splits.SPLITS))


def _annotations(arrays: dict[str, np.ndarray], path: str) -> Split:
    """Annotations of ready scenes as a split has them; rows beyond the count are cleared."""
    if not arrays:
        return {}
    count = arrays.get("count")
    if count is None or count.ndim != 1 or (count < 0).any():
        raise UserError(f"{path}: annotated scenes need 'count' [M], the number of objects in each")
    out = {"count": count.astype(np.int32)}
    for key, rank, dtype, blank in (("boxes", 3, np.float32, 0), ("label", 2, np.int32, -1)):
        if key not in arrays:
            continue
        array = arrays[key].astype(dtype)
        if array.ndim != rank or array.shape[2:] not in ((), (4,)) or array.shape[1] < count.max():
            shape = "[M, R, 4]" if key == "boxes" else "[M, R]"
            raise UserError(f"{path}: {key!r} has shape {array.shape}, expected {shape} with R >= {count.max()}")
        array[np.arange(array.shape[1]) >= out["count"][:, None]] = blank
        out[key] = array
    return out


def check(c: ConfigDict) -> None:
    """Raises UserError, naming the field, unless config.data makes sense."""
    names = ("multi_digit", "scenes", "moving_digits", "pedestrians", "tracks", "circles", "constellations", "labelled")
    if c.name not in names:
        raise UserError(f"data.name is {c.name!r}: choose one of {', '.join(names)}")
    choices: dict[str, tuple] = {"background": ("none", "structured")}
    numbers = {"num_train": 1, "num_valid": 1, "num_test": 1, "seed": 0, "device_bytes": 0}
    pairs, lists = {"canvas": 1, "num_objects": 0, "object_size": 1}, ()
    if c.name == "moving_digits":
        choices = {"motion": ("paper", "bounce"), "appear": ("always", "any_time")}
        numbers |= {"num_frames": 1, "speed": 0, "acceleration": 0}
    if c.name == "pedestrians":
        choices = {"invert": (True, False)}
        numbers |= {"num_frames": 1, "frame_step": 1, "history": 1, "min_objects": 0, "max_objects": 1}
        numbers |= {"min_visible": 0}
        pairs = {"canvas": 1, "frame_size": 1}
    if c.name == "tracks":
        choices = {"format": FORMATS, **dict.fromkeys(("grey", "mirror", "reverse"), (True, False))}
        numbers = {"num_frames": 2, "frame_step": 1, "num_objects": 1, "overlap": 0, "train_share": 0, "valid_share": 0}
        numbers |= {"min_size": 0, "min_visibility": 0, "crowded": 0, "seed": 0, "device_bytes": 0}
        numbers |= {"test_frames": 0, "max_rate": 0}
        pairs, lists = {"frame_size": 1}, ("videos", "test_videos", "kinds")
    if c.name == "circles":  # what else there is `circles.Config` checks
        choices, pairs = {}, {}
        numbers = {"num_train": 1, "num_valid": 1, "num_test": 1, "num_frames": 1, "seed": 0}
    if c.name == "constellations":  # what else there is `constellations.Config` checks
        choices, pairs = {}, {}
        numbers = {"num_train": 1, "num_valid": 1, "num_test": 1, "seed": 0}
    if c.name == "labelled":
        choices, pairs = dict.fromkeys(("affine", "sobel"), (True, False)), {"canvas": 1}
        numbers = {"num_train": 0, "num_valid": 0, "num_test": 0, "shift": 0, "seed": 0, "device_bytes": 0}
        lists = ("source", "path", "cache_dir")
    for field in (*choices, *numbers, *pairs, *lists):
        if field not in c:
            configs = {"moving_digits": "sqair", "pedestrians": "sqair_pedestrians", "tracks": "mohart"}
            configs |= {"circles": "mohart_toy", "constellations": "ccae", "labelled": "scae"}
            example = configs.get(c.name, "air")
            raise UserError(f"data.{field} is missing, data.name={c.name!r} needs it: start from configs/{example}.py")
    for field, allowed in choices.items():
        if c[field] not in allowed:
            raise UserError(f"data.{field} is {c[field]!r}: choose one of {', '.join(map(str, allowed))}")
    for field, least in numbers.items():
        if not least <= c[field] < np.inf:
            raise UserError(f"data.{field} is {c[field]}: it must be at least {least}, and finite")
    for field, least in pairs.items():
        pair = tuple(c[field])
        if len(pair) != 2 or not all(isinstance(n, int) and n >= least for n in pair):
            raise UserError(f"data.{field} is {pair}: it must be two whole numbers, at least {least}")
        if field not in ("canvas", "frame_size") and pair[0] > pair[1]:
            raise UserError(f"data.{field} is {pair}: the first number, the smallest, is larger than the second")
    if c.name == "pedestrians":
        if not c.path:
            raise UserError("data.path is empty: give --config.data.path=FOLDER, of MOTChallenge or images, or a video")
        if any(side < crop for side, crop in zip(c.frame_size, c.canvas, strict=True)):
            sizes = tuple(c.frame_size), tuple(c.canvas)
            raise UserError(f"data.frame_size is {sizes[0]}, less than crops of data.canvas={sizes[1]}: reduce those")
        if not 0 < c.min_visible <= 1:
            raise UserError(f"data.min_visible is {c.min_visible}: it must be a share above 0, and at most 1")
        if c.min_objects > c.max_objects:
            raise UserError(f"data.min_objects is {c.min_objects}, more than data.max_objects={c.max_objects}")
        return
    if c.name == "tracks":
        return _check_tracks(c)
    if c.name == "labelled":
        return _check_labelled(c)
    if c.name in ("circles", "constellations"):
        return
    if c.name == "scenes":
        if not c.path:
            raise UserError("data.path is empty: name a folder of PNGs, an .npz or an .npy that holds the scenes")
        return
    if c.path and c.source != "mnist":
        raise UserError(f"data.path is not read with data.source={c.source!r}: name your own digits by data.source")
    if c.num_objects[1] < 1:
        raise UserError("data.num_objects is (0, 0): allow at least one digit, such as (0, 2)")
    if c.object_size[1] > min(c.canvas):
        raise UserError(f"data.object_size reaches {c.object_size[1]}, beyond a canvas of {tuple(c.canvas)}: reduce it")
    if c.source not in ("embedded", "mnist") and not (c.source and Path(c.source).expanduser().exists()):
        raise UserError(f"data.source is {c.source!r}: choose embedded, mnist, or a folder of PNGs, an .npz, an .npy")


def _check_tracks(c: ConfigDict) -> None:
    if not c.path:
        raise UserError("data.path is empty: give --config.data.path=FOLDER, that of the data set")
    for field in ("min_visibility", "crowded"):
        if c[field] > 1:
            raise UserError(f"data.{field} is {c[field]}: it is a share, at most 1")
    if c.overlap >= 1:
        raise UserError(f"data.overlap is {c.overlap}: it is a share of a window, less than 1")
    for field in ("train_share", "valid_share"):
        if not c[field]:
            raise UserError(f"data.{field} is 0: no window would be in that split")
    both = c.train_share + c.valid_share
    if not c.test_videos and both >= 1:
        raise UserError(
            f"data.train_share and data.valid_share add up to {both:g}: leave frames, or test_videos, to test"
        )


def _check_labelled(c: ConfigDict) -> None:
    published = ("mnist", "svhn", "cifar10", "affnist")
    if c.source not in ("embedded", *published) and not (c.source and Path(c.source).expanduser().exists()):
        names = ", ".join(("embedded", *published))
        raise UserError(f"data.source is {c.source!r}: choose {names}, or a folder of PNGs, an .npz, an .npy")
    if c.path and c.source not in published:
        raise UserError(f"data.path is not read with data.source={c.source!r}: name your own images by data.source")
    if not isinstance(c.shift, int) or 2 * c.shift >= min(c.canvas):
        raise UserError(
            f"data.shift is {c.shift}: it must be a whole number, and leave room on a canvas of {tuple(c.canvas)}"
        )
