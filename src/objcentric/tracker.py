"""Follows objects through a video with a tracker that was trained: boxes in the first frame, boxes in all frames.

python -m objcentric.tracker --run=runs/mohart --video=VIDEO --boxes=BOXES --output=tracked.mp4

VIDEO is a file, a folder of frames or a MOTChallenge sequence; BOXES a text file with a line `y0 x0 y1 x1`, in pixels,
for each object in the first frame. Of a MOTChallenge sequence those of its ground truth are taken if none are given.
The output is an annotated video (.mp4 or .avi, which need OpenCV, or .gif); boxes are written beside it as MOTChallenge
has them (frame, identity, left, top, width, height, presence, -1, -1, -1), under the numbers that frames have in VIDEO.
Where these leave a gap, trackers go on as if nothing were missing. Of a run that learnt from every n-th frame
(data.frame_step, or data.max_rate where VIDEO tells its rate) only every n-th is followed, unless --frame_step says
otherwise.
"""

import argparse
import functools
import sys
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from ml_collections import ConfigDict
from tqdm import tqdm

from objcentric import plots_tracking
from objcentric.data import frames as decoded
from objcentric.data import mot, video, windows
from objcentric.errors import UserError
from objcentric.models import hart, ratm
from objcentric.models.model import fields_of
from objcentric.nn import appearance
from objcentric.training import schedules, workdir
from objcentric.training.experiment import Experiment
from objcentric.training.restore import restore_run


class Tracked(NamedTuple):
    boxes: np.ndarray  # float32 [T, N, 4], y0, x0, y1, x1 in pixels of the video's frames
    presence: np.ndarray  # float32 [T, N] in [0, 1], whether the tracker thinks that its object is there


def track(frames: str | Path | Iterable[ArrayLike], boxes: ArrayLike, run: str | Path) -> Tracked:
    """Follows N objects through a video, whose frames should be as far apart in time as those that the run learnt from.

    Those are every data.frame_step-th one, and of MOTChallenge's faster videos (data.max_rate) fewer: leave out frames
    likewise where a run has set these.

    Args:
      frames: a video file, a folder of frames or a MOTChallenge sequence; or frames uint8 ``[H, W, 3]``, one by one.
      boxes: ``[N, 4]`` in the first frame, y0, x0, y1, x1 in pixels. What reaches beyond the frame is cut off.
      run: folder of a run of configs/mohart.py, or of another config of experiment 'hart'.

    Raises:
      UserError: the run cannot be read, or predicts later frames as those of toy worlds do; a frame is unreadable or of
        another size; or a box is NaN, or what of it is in the frame is less than a pixel high or wide.
    """
    each = [tracked for _, tracked in follow(frames, boxes, run)]
    return Tracked(*(np.stack(column) for column in zip(*each, strict=True)))


def follow(
    frames: str | Path | Iterable[ArrayLike], boxes: ArrayLike, run: str | Path
) -> Iterator[tuple[np.ndarray, Tracked]]:
    """As `track`, frame by frame: a frame and its boxes ``[N, 4]`` and presence ``[N]``; one frame is in memory."""
    restored = restore_run(run, functools.partial(skeleton, load=False))
    if restored.config.task.ahead:
        raise UserError(f"{run} predicts {restored.config.task.ahead} frames ahead: give a run with task.ahead=0")
    params = restored.params["tracker"]
    source = iter(video.open(frames) if isinstance(frames, str | Path) else frames)
    first = check_frame(next(source, None), None)
    size = first.shape[:2]
    given = check_boxes(boxes, size)
    tracker, canvas = make(restored.config, len(given))
    scale = np.tile(np.divide(canvas[:2], size), 2).astype(np.float32)
    start, step = jax.jit(tracker.start, static_argnums=1), jax.jit(tracker.step, static_argnums=1)

    def read(frame: np.ndarray) -> np.ndarray:
        return decoded.resize(frame, canvas).astype(np.float32) / 255

    state, _ = start(params, None, read(first), given * scale, jnp.ones(len(given)))
    yield first, Tracked(given, np.asarray(state.presence))
    for frame in source:
        frame = check_frame(frame, size)
        state, seen = step(params, None, state, read(frame), None)
        corners = (np.asarray(seen.boxes) / scale).reshape(-1, 2, 2)
        yield frame, Tracked(np.sort(corners, axis=1).reshape(-1, 4), np.asarray(state.presence))  # y0 < y1, x0 < x1


def check_frame(frame: ArrayLike | None, size: tuple[int, int] | None) -> np.ndarray:
    """uint8 ``[H, W, 3]``; UserError if it is something else, or of another height and width than ``size``."""
    if frame is None:
        raise UserError("there is no frame to begin with: give at least one")
    frame = np.asarray(frame)
    if frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] != 3:
        raise UserError(f"a frame is {frame.dtype} of shape {frame.shape}: give uint8 [H, W, 3], RGB")
    if size and frame.shape[:2] != size:
        raise UserError(f"a frame has height and width {frame.shape[:2]}, the first one {size}: make all one size")
    return frame


def check_boxes(boxes: ArrayLike, size: tuple[int, int]) -> np.ndarray:
    """float32 ``[N, 4]``, cut off at the border of a frame of height and width ``size``; UserError for useless ones."""
    try:
        boxes = np.asarray(boxes, np.float32)
    except (TypeError, ValueError) as error:
        raise UserError(f"boxes are no array of numbers ({error}): give [N, 4]") from error
    if boxes.ndim != 2 or boxes.shape[1] != 4 or not len(boxes):
        raise UserError(f"boxes have shape {boxes.shape}: give [N, 4], of one object or more")
    inside = np.clip(boxes, 0, np.tile(size, 2))
    for i, (box, cut) in enumerate(zip(boxes, inside, strict=True), 1):
        said = f"box {i} of {len(boxes)}, (y0, x0, y1, x1) = {tuple(box.tolist())},"
        if not np.isfinite(box).all():
            raise UserError(f"{said} has a corner that is no number")
        if (box[2:] <= box[:2]).any():
            raise UserError(f"{said} has no area: y1 and x1 must be larger than y0 and x0")
        if (cut[2:] <= cut[:2]).any():
            raise UserError(f"{said} lies outside the frame, whose height and width are {size}")
        if (cut[2:] - cut[:2] < 1).any():
            raise UserError(f"{said} has less than a pixel in the frame, whose height and width are {size}")
    return inside


def make(config: ConfigDict, num_objects: int) -> tuple[hart.Tracker, tuple[int, int, int]]:
    """The tracker that a config of experiment 'hart' describes, and the canvas (H, W, C) that it sees."""
    c = config.data
    canvas = (c.side, c.side, 3) if c.name == "circles" else (*c.frame_size, 1 if c.grey else 3)
    fields = fields_of(config.model)
    kind, _ = fields.pop("tracker"), fields.pop("v1_weights")
    if kind not in ("hart", "ratm"):
        raise UserError(f"model.tracker={kind!r} is unknown: use 'hart' (also MOHART) or 'ratm'")
    if fields["relation"] == "mlp" and num_objects != c.num_objects:
        raise UserError(f"model.relation='mlp' was made for {c.num_objects} objects: give as many boxes")
    typed = hart.Config(canvas=canvas, num_objects=num_objects, presence=config.task.presence_loss, **fields)
    return (ratm if kind == "ratm" else hart).make(typed), canvas


def load_v1(tracker: hart.Tracker, path: str) -> hart.Tracker:
    """The tracker with V1 beginning as the file ``path`` has it; see `appearance.read_weights`."""

    def init(key: jax.Array) -> dict:
        params = tracker.init(key)
        return params | {"v1": appearance.read_weights(path, params["v1"])}

    return tracker._replace(init=init)


def export_v1(run: str | Path, path: str | Path) -> None:
    """Writes V1 of a trained run to the file ``path``, an .npz that config.model.v1_weights may name.

    Raises:
      UserError: the run cannot be read, or the file not be written.
    """
    appearance.write_weights(path, restore_run(run, functools.partial(skeleton, load=False)).params["tracker"]["v1"])


def terms(config: ConfigDict) -> tuple[str, ...]:
    """The losses that config.task wants, each of which has a weight that is learnt (thesis, equation 3.9)."""
    if config.model.tracker == "ratm":
        return ("features",)
    wanted = {"spatial": config.task.attention_loss, "presence": config.task.presence_loss}
    wanted["appearance"] = config.task.appearance_loss and config.model.appearance
    return ("tracking", *(name for name, want in wanted.items() if want))


def skeleton(config: ConfigDict, *, load: bool = True) -> Experiment:
    """Of experiment 'hart' what a checkpoint needs to be read; UserError if ``config`` is of another one.

    Without ``load`` it begins with random weights even if config.model.v1_weights names others.
    """
    if config.experiment != "hart":
        raise UserError(f"the run is one of {config.experiment}: give one of configs/mohart.py, whose trackers follow")
    tracker, _ = make(config, config.data.num_objects)
    weights = config.model.v1_weights if load else ""
    tracker = load_v1(tracker, weights) if weights else tracker

    def init(key: jax.Array) -> tuple[dict, tuple]:
        return {"tracker": tracker.init(key), "balance": {name: jnp.zeros(()) for name in terms(config)}}, ()

    optimizer = schedules.make_optimizer(config.optimizer, config.train.num_steps)
    return Experiment(None, optimizer, init, None, None, None, (), None)


def main(argv: list[str] | None = None) -> int:
    """Command line; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", required=True, help="folder of a trained run")
    parser.add_argument("--video", required=True, help="a video file, a folder of frames, or a MOTChallenge sequence")
    parser.add_argument("--boxes", help="text file of the boxes in the first frame, a line `y0 x0 y1 x1` each")
    parser.add_argument("--output", required=True, help="annotated video, .mp4, .avi or .gif")
    parser.add_argument("--frame_step", type=int, help="follow every so many-th frame; default: as the run learnt")
    arguments = parser.parse_args(argv)
    output = Path(arguments.output)
    table = output.with_suffix(".txt")
    try:
        if arguments.frame_step is not None and arguments.frame_step < 1:
            raise UserError(f"--frame_step={arguments.frame_step}: use 1 or more")
        inputs = [Path(name).resolve() for name in (arguments.video, arguments.boxes) if name]
        for written in (output, table):
            if written.resolve() in inputs:
                raise UserError(f"{written} would be written, but is read: choose another --output")
        source = video.open(arguments.video)
        step = arguments.frame_step or learnt_step(arguments.run, source.rate)
        boxes = read_boxes(arguments.boxes) if arguments.boxes else first_boxes(arguments.video, source)
        output.parent.mkdir(parents=True, exist_ok=True)
        rows, chosen = [], range(0, source.num_frames, step)
        with video.writer(output, (source.rate or 25) / step) as write:
            steps = follow(source.frames(chosen), boxes, arguments.run)
            for t, (frame, tracked) in enumerate(tqdm(steps, "tracking", len(chosen), disable=None), 1):
                shown = tracked.presence > 0.5
                identities = np.arange(1, len(shown) + 1)
                write(plots_tracking.annotate(frame, tracked.boxes[shown], identities[shown]))
                for i, ((y0, x0, y1, x1), presence) in enumerate(zip(*tracked, strict=True), 1):
                    place = f"{x0 + 1:.2f},{y0 + 1:.2f},{x1 - x0:.2f},{y1 - y0:.2f}"  # pixels counted from 1
                    rows.append(f"{source.numbers[chosen[t - 1]]},{i},{place},{presence:.3f},-1,-1,-1")
        table.write_text("\n".join(rows) + "\n")
    except (UserError, OSError) as error:
        print(f"objcentric: {error}", file=sys.stderr)
        return 2
    print(f"{output}: {len(boxes)} objects in {t} frames; their boxes are in {table}")
    return 0


def learnt_step(run: str | Path, rate: float | None) -> int:
    """How many frames of a video of that rate a run went on by when it learnt."""
    data = workdir.read_config(Path(run)).get("data", {})
    return windows.frame_step(ConfigDict({"frame_step": 1, "max_rate": 0.0} | dict(data)), rate)


def read_boxes(path: str | Path) -> np.ndarray:
    """``[N, 4]`` of a text file; UserError that names what is wrong."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # of an empty file
            boxes = np.loadtxt(path, delimiter=None, ndmin=2)
    except (OSError, ValueError) as error:
        raise UserError(f"cannot read --boxes={path} ({error}): write a line `y0 x0 y1 x1` for each object") from error
    if boxes.shape[1:] != (4,) or not len(boxes):
        raise UserError(f"--boxes={path} holds no lines `y0 x0 y1 x1`")
    return boxes


def first_boxes(path: str | Path, source: video.Video) -> np.ndarray:
    """Those of the ground truth in the first frame of a MOTChallenge sequence."""
    if not (Path(path) / "gt" / "gt.txt").is_file():
        raise UserError(f"{path} has no ground truth to begin with: give --boxes=FILE, those of the first frame")
    tracks = mot.read_boxes(Path(path) / "gt" / "gt.txt")
    chosen = (tracks.frame == source.numbers[0]) & ~tracks.ignore
    if not chosen.any():
        raise UserError(f"{path} has no object in its first frame, {source.numbers[0]}: give --boxes=FILE")
    return tracks.box[chosen]


if __name__ == "__main__":
    sys.exit(main())
