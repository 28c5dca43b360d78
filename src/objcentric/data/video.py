"""Videos, folders of images and MOTChallenge sequences, frame by frame; a whole video is never in memory.

OpenCV, which reads the files of videos, is the extra ``video``; images need nothing beyond what is installed anyway.
"""

import contextlib
import dataclasses
import functools
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from types import ModuleType

import numpy as np
from PIL import Image

from objcentric.data import mot
from objcentric.errors import UserError

IMAGES = (".bmp", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp")
_LOST = 0.05  # share of the frames a file promises that may be missing: some formats but estimate their number


@dataclasses.dataclass(frozen=True)
class Video:
    path: Path
    numbers: np.ndarray  # int64 [num_frames], rising: as in the names of images; the frames of a file are 1, 2, ...
    height: int
    width: int
    decode: Callable[[Iterator[int]], Iterator[np.ndarray]]  # `frames` without its checks
    rate: float | None = None  # frames per second, if they are known

    @property
    def num_frames(self) -> int:
        return len(self.numbers)

    def __iter__(self) -> Iterator[np.ndarray]:
        return self.frames(range(self.num_frames))

    def frames(self, indices: Iterable[int]) -> Iterator[np.ndarray]:
        """The frames uint8 ``[H, W, 3]``, RGB, at the given rising indices from 0 to num_frames - 1, one by one.

        Those of a folder alone are read; of a file also all before the last one. Raises UserError when it comes to a
        frame that cannot be read or is of another size than the first one.
        """
        indices = list(indices)
        if indices and (np.diff(indices, prepend=-1, append=self.num_frames) <= 0).any():
            raise ValueError(f"indices of frames must rise, within 0 to {self.num_frames - 1}")
        read = 0
        for frame in self.decode(iter(indices)):
            if frame.shape != (self.height, self.width, 3):
                raise UserError(
                    f"{self.path}: frame {self.numbers[indices[read]]} is {_size(*frame.shape[:2])}, not "
                    f"{_size(self.height, self.width)} as the first one (width x height): make all frames one size"
                )
            yield frame
            read += 1
        if read < len(indices):
            raise _damaged(self.path, f"it ends after {read} of {len(indices)} frames")


def open(path: str | Path) -> Video:
    """Opens a video file, a folder of images, which are ordered by the last number in their names, or a MOT sequence.

    A sequence of MOTChallenge is a folder that holds ``seqinfo.ini``; frames of it may be missing. All frames of a
    file are decoded once, to count them, for what files say of themselves is often an estimate.

    Raises UserError if there is no frame, if a file is cut off, or if OpenCV is needed and not installed.
    """
    path = Path(path).expanduser()
    if not path.exists():
        raise UserError(f"there is no {path}: give a video, a folder of images, or one of a MOTChallenge sequence")
    if path.is_file():
        return _open_file(path)
    if not (path / "seqinfo.ini").is_file():
        return _open_folder(path)
    info = mot.read_info(path)
    video = _open_folder(path / info.frames)
    if (video.height, video.width) != (info.height, info.width):
        raise UserError(
            f"{path}: frames are {_size(video.height, video.width)}, seqinfo.ini says {_size(info.height, info.width)}"
            " (width x height): boxes would be wrong; keep frames as they came, or scale all"
        )
    return dataclasses.replace(video, rate=info.frame_rate)


@contextlib.contextmanager
def writer(path: str | Path, rate: float) -> Iterator[Callable[[np.ndarray], None]]:
    """A function that adds a frame uint8 ``[H, W, 3]`` to the video ``path``: .gif, or by OpenCV .mp4 or .avi.

    Frames of a GIF stay in memory until the end.

    Args:
      rate: frames per second.

    Raises UserError for other endings, or if the file cannot be written.
    """
    path = Path(path)
    codecs = {".mp4": "mp4v", ".avi": "MJPG"}
    if path.suffix == ".gif":
        images: list[Image.Image] = []
        yield lambda frame: images.append(Image.fromarray(frame).quantize())
        if images:
            images[0].save(path, save_all=True, append_images=images[1:], duration=1000 / rate, loop=0)
        return
    if path.suffix not in codecs:
        raise UserError(f"{path} is no video that can be written: name it .mp4, .avi or .gif")
    cv2 = opencv()
    files: list = []

    def write(frame: np.ndarray) -> None:
        if not files:
            size = frame.shape[1::-1]
            files.append(cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*codecs[path.suffix]), rate, size))
            if not files[0].isOpened():
                raise UserError(f"OpenCV cannot write {path}: try .avi or .gif, or another folder")
        files[0].write(cv2.cvtColor(frame, cv2.COLOR_RGB2BGR))

    try:
        yield write
    finally:
        for file in files:
            file.release()


def opencv() -> ModuleType:
    """OpenCV; UserError if it is not installed."""
    try:
        import cv2
    except ImportError as error:
        raise UserError(f"this needs OpenCV, which is an extra ({error}): pip install 'objcentric[video]'") from error
    return cv2


def _open_folder(folder: Path) -> Video:
    if not folder.is_dir():
        raise UserError(f"there is no folder {folder}, which should hold the frames: copy it from the data set")
    files: dict[int, Path] = {}
    for file in sorted(folder.iterdir()):
        if file.suffix.lower() not in IMAGES or file.name.startswith("."):
            continue
        found = re.findall(r"\d+", file.stem)
        if not found:
            raise UserError(f"{file} has no number in its name: name frames 000001.png, 000002.png, ...")
        other = files.setdefault(int(found[-1]), file)
        if other != file:
            raise UserError(f"{folder}: {other.name} and {file.name} have one number: remove or rename one")
    if not files:
        raise UserError(f"{folder} holds no images: put frames there, named 000001.png, 000002.png, ...")
    numbers = sorted(files)
    paths = [files[number] for number in numbers]
    height, width, _ = _read_image(paths[0]).shape
    return Video(folder, np.array(numbers), height, width, functools.partial(_decode_images, paths))


def _decode_images(files: Sequence[Path], indices: Iterator[int]) -> Iterator[np.ndarray]:
    return (_read_image(files[index]) for index in indices)


def _read_image(file: Path) -> np.ndarray:
    try:
        with Image.open(file) as image:
            if not image.mode.startswith(("I", "F")):
                return np.asarray(image.convert("RGB"))
    except (OSError, ValueError, SyntaxError, EOFError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"cannot read {file}, it may be cut off ({reason}): copy it anew or remove it") from error
    raise UserError(f"{file} has more than 8 bits per channel: save it with 8")


def _open_file(file: Path) -> Video:
    if file.suffix.lower() in IMAGES:
        raise UserError(f"{file} is one image: give the folder of all frames")
    if file.suffix.lower() == ".txt":
        raise _damaged(file, "it is text, which OpenCV would film")
    cv2 = opencv()
    capture = cv2.VideoCapture(str(file))
    try:
        promised, rate = capture.get(cv2.CAP_PROP_FRAME_COUNT), capture.get(cv2.CAP_PROP_FPS)
        found, first = capture.read()
        if not found:
            raise _damaged(file, "it holds no frame that OpenCV can read")
        count = 1
        while capture.grab():
            count += 1
    finally:
        capture.release()
    if count < (1 - _LOST) * promised - 1:
        raise _damaged(file, f"it ends after {count} of {promised:.0f} frames")

    return Video(file, np.arange(1, count + 1), *first.shape[:2], functools.partial(_decode_file, file), rate or None)


def _decode_file(file: Path, indices: Iterator[int]) -> Iterator[np.ndarray]:
    cv2 = opencv()
    capture, at = cv2.VideoCapture(str(file)), 0
    try:
        for index in indices:
            while at <= index and capture.grab():  # seeking is inexact in many formats
                at += 1
            found, frame = capture.retrieve() if at > index else (False, None)
            if not found:
                return
            yield cv2.cvtColor(frame, cv2.COLOR_BGR2RGB)
    finally:
        capture.release()


def _damaged(file: Path, reason: str) -> UserError:
    return UserError(f"cannot use {file}: {reason}; copy it anew, or convert it to mp4 or avi, by ffmpeg say")


def _size(height: int, width: int) -> str:
    return f"{width}x{height}"
