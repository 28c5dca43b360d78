"""Pictures of trackers that are given their objects: tracks in frames, in animations and in videos, and curves of IoU.

An object has the colour of its slot in every picture. Solid is the box that a tracker predicts, dotted where it looks,
white and dashed the true box; one with a corner that is not finite is not drawn. As in `objcentric.plots`, arrays go in
and a matplotlib Figure of 100 dots per inch comes out, without pyplot. Boxes are (y0, x0, y1, x1) in pixels.
"""

import functools
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import chex
import numpy as np
from jax.typing import ArrayLike
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Ellipse, Rectangle
from matplotlib.ticker import MaxNLocator
from PIL import Image, ImageDraw, ImageFont

from objcentric import plots
from objcentric.metrics import following

_COLUMNS = 8  # most frames side by side
_WIDTH = 1600  # of all of them together, pixels
_SIDES = 100, 300  # least and greatest longer side of a frame in a figure, pixels
_FILM_SIDE = 384  # and in an animation
_GLIMPSE = 96  # greatest longer side of a glimpse
_GAP, _MARGIN, _LEFT, _TITLE, _HEADING = 6, 10, 104, 18, 26  # pixels
_TRUE, _BELOW_TRUE, _FUTURE, _NUMBER = "#FFFFFF", "#000000", "#9AA0A6", "#FFE14D"
_INK, _FAINT, _GRID = "#24292F", "#6E7781", "#E4E7EB"
_DASH, _DOT = 5, 2  # lengths of a line's pieces and gaps, pixels of an animation

# How boxes are drawn in figures.
_LINES = {
    "ground": {"linewidth": 1.2, "alpha": 0.5},
    "attention": {"linewidth": 1.1, "linestyle": (0, (1, 1.6))},
    "predicted": {"linewidth": 1.8},
    "true": {"linewidth": 1.0, "linestyle": (0, (3, 3))},
}
_BOARD = {"bbox": {"boxstyle": "round,pad=0.2", "facecolor": _INK, "edgecolor": "none", "alpha": 0.75}}

# By the first word of a name: what a tracker is called has its colour in every picture; grey ones learn nothing.
_COLOURS = {
    "mohart": "#1F5FBF",
    "hart": "#E08A00",
    "max-pool": "#1A8A3A",
    "mlp": "#C8202C",
    "ratm": "#8A4FBF",
    "momentum": "#57606A",
    "static": "#9AA0A6",
}
_OTHERS = ("#CC79A7", "#56B4E9", "#8C6D31", "#24292F")  # of names that are not known, by their places
_UNLEARNED = ("momentum", "static")


class Tracker(NamedTuple):
    """What one tracker says of a video of T frames with N slots of objects."""

    name: str
    boxes: ArrayLike  # [T, N, 4]
    attention: ArrayLike | None = None  # [T, N, 4], the boxes of its glimpses
    weights: ArrayLike | None = None  # [T, N, N], how much the object of the first N attends to that of the second
    notes: Sequence[str] = ()  # [T], in the corners of frames: their IoU, say
    image: ArrayLike | None = None  # [T, H, W, C], what it saw if that is not the video, as in a blackout


def tracks(
    image: ArrayLike,
    true: ArrayLike,
    pred: ArrayLike,
    presence: ArrayLike,
    attention: ArrayLike | None = None,
    glimpses: ArrayLike | None = None,
    masks: ArrayLike | None = None,
    frame_names: Sequence[str] = (),
    title: str = "",
    *,
    weights: ArrayLike | None = None,
    notes: Sequence[str] = (),
    of: int = 0,
) -> Figure:
    """Frames in a row and below them what the tracker of one object looks at, as in figures 3.1 and 3.4 of the thesis.

    Of more than eight frames every second one is shown, or every third, ...

    Args:
      image: ``[T, H, W, C]``.
      true: ``[T, N, 4]``.
      pred: ``[T, N, 4]``.
      presence: ``[T, N]``, boxes are drawn above 0.5.
      attention: ``[T, N, 4]``, the boxes of the glimpses.
      glimpses: ``[T, N, h, w, C]`` in [0, 1].
      masks: ``[T, N, h', w']`` in [0, 1], the appearance attention, which is also shown multiplied with glimpses.
      frame_names: ``[T]``, above the frames; by default t = 1, 2, ...
      weights, notes: see `comparison` and `Tracker`.
      of: whose glimpses and weights are shown.
    """
    video = _video(image, true, presence)
    tracker = _checked(Tracker("", pred, attention, weights, notes), video)
    looks = _looks(glimpses, masks, video)
    shown, side = _shown(video)
    shapes = [_fit(video.image.shape[1:3], side)]
    shapes += len(looks) * [_glimpse_shape(looks, side)]
    figure, axes = _tiles(shapes, len(shown), left=_LEFT if looks else 0, heading=title)
    for column, t in enumerate(shown):
        plots.title(axes[0, column], _frame_name(frame_names, t))
        _draw(axes[0, column], video, tracker, t, of=of)
        for tile, look in zip(axes[1:, column], looks.values(), strict=True):
            if video.there[t, of]:
                _show(tile, look[t, of])
                tile.add_patch(_whole(tile, fill=False, edgecolor=plots.slot_colour(of), linewidth=2))
            else:
                tile.add_patch(_whole(tile, facecolor=plots.ABSENT_COLOUR))
    for tile, name in zip(axes[1:, 0], looks, strict=True):
        plots.label(tile, name)
    return figure


def comparison(
    image: ArrayLike,
    true: ArrayLike,
    presence: ArrayLike,
    trackers: Sequence[Tracker],
    frame_names: Sequence[str] = (),
    title: str = "",
    *,
    of: int = 0,
    discs: bool = False,
) -> Figure:
    """A row of frames per tracker, as in figures 4.3, 4.4, 4.6 and 4.7 of the thesis; other arguments as in `tracks`.

    Args:
      of: object whose attention ``weights`` are written at the others, and its own on yellow.
      discs: whether true boxes are faded discs, as of toy worlds in which the tracker says where circles will be.
    """
    video = _video(image, true, presence)
    shown, side = _shown(video)
    shape = _fit(video.image.shape[1:3], side)
    named = any(tracker.name for tracker in trackers)
    figure, axes = _tiles([shape] * len(trackers), len(shown), left=_LEFT if named else 0, heading=title)
    for row, tracker in zip(axes, trackers, strict=True):
        tracker = _checked(tracker, video)
        plots.label(row[0], tracker.name)
        for tile, t in zip(row, shown, strict=True):
            _draw(tile, video, tracker, t, of=of, discs=discs)
    for tile, t in zip(axes[0], shown, strict=True):
        plots.title(tile, _frame_name(frame_names, t))
    return figure


def animation(
    image: ArrayLike,
    true: ArrayLike,
    pred: ArrayLike,
    presence: ArrayLike,
    attention: ArrayLike | None = None,
    glimpses: ArrayLike | None = None,
    masks: ArrayLike | None = None,
) -> np.ndarray:
    """Frames uint8 ``[T, height, width, 3]`` of about 384 pixels; below them, a column an object, what it looks at.

    Arguments as in `tracks`.
    """
    video = _video(image, true, presence)
    tracker = _checked(Tracker("", pred, attention), video)
    looks = _looks(glimpses, masks, video)
    num_frames, num_objects = video.there.shape
    height, width = _fit(video.image.shape[1:3], _FILM_SIDE)
    rows, columns = _glimpse_shape(looks, width // max(num_objects, 1) - _GAP)
    film = np.full((num_frames, height + len(looks) * (_GAP + rows), width, 3), 255, np.uint8)
    for t in range(num_frames):
        film[t, :height] = _painted(video, tracker, t, (height, width))
        for row, look in enumerate(looks.values()):
            top = height + _GAP + row * (rows + _GAP)
            for i in np.flatnonzero(video.there[t]):
                left = i * (width // num_objects)
                tile = _resized(look[t, i], (rows, columns))
                _outline(tile, (0, 0, rows, columns), plots.slot_colour(i), 2)
                film[t, top : top + rows, left : left + columns] = tile
    return film


def annotate(frame: ArrayLike, boxes: ArrayLike, identities: ArrayLike) -> np.ndarray:
    """A copy of the frame uint8 ``[H, W, 3]`` with ``boxes [N, 4]`` and the numbers of their ``identities [N]``.

    Without matplotlib, as fast as a video wants it. A box colours the outermost pixels inside it; one that has a corner
    that is not finite, or of which nothing is in the frame, is left out.
    """
    frame, boxes, identities = np.array(frame), np.asarray(boxes, np.float64), np.asarray(identities)
    chex.assert_type(frame, np.uint8)
    chex.assert_shape(frame, (None, None, 3))
    chex.assert_shape(boxes, (len(identities), 4))
    size = frame.shape[:2]
    seen = np.isfinite(boxes).all(1) & (boxes[:, :2] < size).all(1) & (boxes[:, 2:] > 0).all(1)
    for box, identity in zip(boxes[seen], identities[seen], strict=True):
        _outline(frame, box, plots.slot_colour(int(identity)), max(round(max(size) / 400), 1))
    for box, identity in zip(boxes[seen], identities[seen], strict=True):  # above all boxes
        number = _number(int(identity), max(round(max(size) / 70), 10))[: size[0], : size[1]]
        rows, columns = number.shape[:2]
        y = int(np.clip(box[0] if box[0] < rows else round(box[0]) - rows, 0, size[0] - rows))
        x = int(np.clip(round(box[1]), 0, size[1] - columns))
        frame[y : y + rows, x : x + columns] = number
    return frame


def accuracy(panels: Mapping[str, tuple[ArrayLike, Mapping[str, ArrayLike]]], *, title: str = "") -> Figure:
    """Figure 4.5 of the thesis: a panel a circumstance, a line a tracker; mean IoU with a band of a standard deviation.

    Args:
      panels: by the name of what varies ('sequence length', 'randomness'): its values ``[L]`` and, by tracker, the IoU
        ``[S, L]`` of S seeds, of which those that are not finite are left out.
    """
    figure, axes = _curves(len(panels), title)
    labels = dict.fromkeys(label for _, trackers in panels.values() for label in trackers)
    for ax, (name, (places, trackers)) in zip(axes, panels.items(), strict=True):
        for label, values in trackers.items():
            values = np.asarray(values, np.float64)
            chex.assert_shape(values, (None, len(places)))
            values = np.ma.masked_invalid(values)
            mean, std = values.mean(0).filled(np.nan), values.std(0).filled(np.nan)
            (line,) = ax.plot(places, mean, label=label, marker="o", markersize=4, **_style(label, labels))
            if len(values) > 1:
                ax.fill_between(places, mean - std, mean + std, color=line.get_color(), alpha=0.15, linewidth=0)
        _finish(ax, name, "IoU" if ax is axes[0] else "")
    _legend(figure, axes)
    return figure


def iou_over_time(
    curves: Mapping[str, ArrayLike], *, given: int = 1, unseen: ArrayLike | None = None, title: str = ""
) -> Figure:
    """Mean IoU of each frame, by tracker.

    Args:
      curves: ``[T]``, NaN where there is nothing to follow. The ``given`` frames, the first ones, are left out.
      unseen: ``[T]``, frames that were black, of which the ground is grey.
    """
    figure, (ax,) = _curves(1, title)
    for label, values in curves.items():
        values = np.asarray(values, np.float64)
        chex.assert_rank(values, 1)
        ax.plot(np.arange(given, len(values)) + 1, values[given:], label=label, marker=".", **_style(label, curves))
    for t in np.flatnonzero([] if unseen is None else unseen):
        ax.axvspan(t + 0.5, t + 1.5, color=_FAINT, alpha=0.18, linewidth=0)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    _finish(ax, "frame", "IoU")
    _legend(figure, [ax])
    return figure


def success_and_precision(curves: Mapping[str, tuple[ArrayLike, ArrayLike]], *, title: str = "") -> Figure:
    """The plots of OTB: shares of boxes by least IoU, and by greatest distance between centres.

    Args:
      curves: by tracker, of `following.success_curve` and `following.precision_curve`, with their own thresholds. In
        the legends are the area under the first one and the share within 20 pixels.
    """
    figure, axes = _curves(2, title)
    for label, (success, precision) in curves.items():
        axes[0].plot(
            following.OVERLAPS, success, label=f"{label} [{following.area(success):.3f}]", **_style(label, curves)
        )
        within = float(np.asarray(precision)[following.DISTANCES == 20][0])
        axes[1].plot(following.DISTANCES, precision, label=f"{label} [{within:.3f}]", **_style(label, curves))
    _finish(axes[0], "IoU above", "share of boxes")
    _finish(axes[1], "centre within, pixels", "")
    for ax, place in zip(axes, ("lower left", "lower right"), strict=True):
        ax.legend(fontsize=8, edgecolor="none", loc=place)
    return figure


class _Video(NamedTuple):
    image: np.ndarray  # [T, H, W, C], as given: one frame at a time becomes float
    true: np.ndarray  # [T, N, 4]
    there: np.ndarray  # bool [T, N]


def _video(image: ArrayLike, true: ArrayLike, presence: ArrayLike) -> _Video:
    image, true, there = np.asarray(image), np.asarray(true, np.float64), np.asarray(presence) > 0.5
    plots.pixels(image[:1], 4)  # or raises
    chex.assert_shape(there, (len(image), None))
    chex.assert_shape(true, (*there.shape, 4))
    return _Video(image, true, there)


def _checked(tracker: Tracker, video: _Video) -> Tracker:
    frames, objects = video.there.shape
    boxes = np.asarray(tracker.boxes, np.float64)
    chex.assert_shape(boxes, (frames, objects, 4))
    image = video.image if tracker.image is None else np.asarray(tracker.image)
    chex.assert_equal_shape([image, video.image])
    attention = np.full(boxes.shape, np.nan) if tracker.attention is None else np.asarray(tracker.attention, np.float64)
    chex.assert_equal_shape([attention, boxes])
    weights = None if tracker.weights is None else np.asarray(tracker.weights)
    if weights is not None:
        chex.assert_shape(weights, (frames, objects, objects))
    return tracker._replace(boxes=boxes, image=image, attention=attention, weights=weights)


def _looks(glimpses: ArrayLike | None, masks: ArrayLike | None, video: _Video) -> dict[str, np.ndarray]:
    """Pictures ``[T, N, h, w, 3]`` in [0, 1] of what trackers look at, by name."""
    looks = {}
    if glimpses is not None:
        looks["glimpse"] = _rgb(glimpses, 5)
    if masks is not None:
        masks = plots.pixels(np.asarray(masks)[..., None], 5)[..., 0]
        looks["mask"] = colormaps["magma"](masks)[..., :3]
    if len(looks) == 2:
        height, width = looks["glimpse"].shape[2:4]
        large = [
            [np.asarray(Image.fromarray(np.float32(mask)).resize((width, height), Image.Resampling.BILINEAR))]
            for mask in masks.reshape(-1, *masks.shape[2:])
        ]
        looks["glimpse\n× mask"] = looks["glimpse"] * np.reshape(large, looks["glimpse"].shape[:4])[..., None]
    for look in looks.values():
        chex.assert_shape(look, (*video.there.shape, None, None, 3))
    return looks


def _glimpse_shape(looks: Mapping[str, np.ndarray], side: float) -> tuple[int, int]:
    """Of all of them: the glimpses', or else the masks'."""
    shape = next(iter(looks.values())).shape[2:4] if looks else (1, 1)
    return _fit(shape, min(_GLIMPSE, max(side, 8)))


def _rgb(images: ArrayLike, rank: int) -> np.ndarray:
    images = plots.pixels(images, rank)
    return images.repeat(3 // images.shape[-1], axis=-1)


def _shown(video: _Video) -> tuple[range, float]:
    """Which frames are drawn, and how large."""
    frames = len(video.image)
    shown = range(0, frames, -(-frames // _COLUMNS))
    return shown, float(np.clip(_WIDTH / len(shown), *_SIDES))


def _fit(shape: tuple[int, int], side: float) -> tuple[int, int]:
    """Height and width of a picture whose longer side is at most ``side``; enlarged by a whole factor."""
    ratio = side / max(shape)
    factor = int(ratio) or ratio
    return tuple(max(round(length * factor), 1) for length in shape)


def _tiles(
    shapes: Sequence[tuple[int, int]], columns: int, *, left: int = 0, heading: str = ""
) -> tuple[Figure, np.ndarray]:
    """A figure and its axes ``[rows, columns]``, a row of each height and width, laid out in whole pixels."""
    heights, widths = np.array(shapes).T
    width = widths.max()
    tops = _MARGIN + _TITLE + (_HEADING if heading else 0) + np.cumsum([0, *(heights[:-1] + _GAP)])
    size = np.array([_MARGIN + left + columns * (width + _GAP) - _GAP + _MARGIN, tops[-1] + heights[-1] + _MARGIN])
    figure = Figure(figsize=size / 100, dpi=100, facecolor="white")
    axes = np.empty((len(shapes), columns), object)
    for r, c in np.ndindex(*axes.shape):
        x = _MARGIN + left + c * (width + _GAP) + (width - widths[r]) // 2
        bottom = 1 - (tops[r] + heights[r]) / size[1]
        axes[r, c] = figure.add_axes((x / size[0], bottom, widths[r] / size[0], heights[r] / size[1]))
        axes[r, c].set_axis_off()
    if heading:
        figure.text(_MARGIN / size[0], 1 - _MARGIN / size[1], heading, fontsize=11, color=_INK, ha="left", va="top")
    return figure, axes


def _frame_name(names: Sequence[str], t: int) -> str:
    return names[t] if names else f"t = {t + 1}"


def _show(axes: Axes, image: np.ndarray) -> None:
    plots.show(axes, image)
    axes.images[0].set_interpolation("auto")  # sharp where it is enlarged, smooth where it is not


def _whole(axes: Axes, **style) -> Rectangle:
    return Rectangle((0, 0), 1, 1, transform=axes.transAxes, clip_on=False, **style)


def _layers(video: _Video, tracker: Tracker, t: int, i: int) -> list[tuple[str, np.ndarray, str]]:
    """Boxes of an object from below to above: what they are, their corners and colour.

    A true box is black below the prediction and white dashes above it, to be seen on any ground and also if they agree.
    """
    colour = plots.slot_colour(i)
    layers = [
        ("ground", video.true[t, i], _BELOW_TRUE),
        ("attention", tracker.attention[t, i], colour),
        ("predicted", tracker.boxes[t, i], colour),
        ("true", video.true[t, i], _TRUE),
    ]
    return [layer for layer in layers if np.isfinite(layer[1]).all()]


def _draw(axes: Axes, video: _Video, tracker: Tracker, t: int, *, of: int, discs: bool = False) -> None:
    _show(axes, _rgb(tracker.image[t], 3))
    there = np.flatnonzero(video.there[t])
    for i in there:
        for kind, (y0, x0, y1, x1), colour in _layers(video, tracker, t, i):
            if not discs or kind in ("attention", "predicted"):
                axes.add_patch(Rectangle((x0, y0), x1 - x0, y1 - y0, fill=False, edgecolor=colour, **_LINES[kind]))
            elif kind == "ground":
                middle = ((x0 + x1) / 2, (y0 + y1) / 2)
                axes.add_patch(Ellipse(middle, x1 - x0, y1 - y0, facecolor=_FUTURE, edgecolor="none", alpha=0.6))
    if tracker.weights is not None and video.there[t, of]:
        for i in there:
            _write_weight(axes, tracker.boxes[t, i], tracker.weights[t, of, i], own=i == of)
    if len(tracker.notes) and tracker.notes[t]:
        axes.text(
            0.02, 0.02, tracker.notes[t], transform=axes.transAxes, fontsize=8, color="white", va="bottom", **_BOARD
        )


def _write_weight(axes: Axes, box: np.ndarray, weight: float, *, own: bool) -> None:
    if np.isfinite(box).all():
        y0, x0, y1, x1 = box
        ground = {"boxstyle": "round,pad=0.15", "facecolor": _NUMBER if own else "white", "edgecolor": "none"}
        place = {"ha": "center", "va": "center", "clip_on": True}
        axes.text((x0 + x1) / 2, (y0 + y1) / 2, f"{weight:.2f}", fontsize=7, color=_INK, bbox=ground, **place)


def _painted(video: _Video, tracker: Tracker, t: int, shape: tuple[int, int]) -> np.ndarray:
    """A frame of an animation, uint8."""
    frame, scale = _resized(_rgb(tracker.image[t], 3), shape), shape[0] / video.image.shape[1]
    styles = {"ground": (1, 0), "attention": (1, _DOT), "predicted": (2, 0), "true": (1, _DASH)}
    for i in np.flatnonzero(video.there[t]):
        for kind, box, colour in _layers(video, tracker, t, i):
            _outline(frame, scale * box, colour, *styles[kind])
    return frame


def _resized(image: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    method = Image.Resampling.NEAREST if shape[0] >= image.shape[0] else Image.Resampling.BILINEAR
    return np.array(Image.fromarray(np.uint8(np.round(255 * image))).resize(shape[::-1], method))


def _outline(frame: np.ndarray, box: ArrayLike, colour: str, width: int, piece: int = 0) -> None:
    """Colours the outermost ``width`` pixels inside a box, or only every second ``piece`` of their length."""
    size = np.array(frame.shape[:2])
    corners = np.sort(np.reshape(np.asarray(box, np.float64), (2, 2)), axis=0)
    start, end = np.round(np.clip(corners, -width - 1, size + width + 1)).astype(int)
    end = np.maximum(end, start + 1)
    rgb = _uint8(colour)
    for axis, pixels in enumerate((frame, frame.swapaxes(0, 1))):  # sides along columns, along rows
        along = np.arange(max(start[1 - axis], 0), min(end[1 - axis], size[1 - axis]))
        if piece:
            along = along[(along - start[1 - axis]) // piece % 2 == 0]
        for side in (*range(start[axis], start[axis] + width), *range(end[axis] - width, end[axis])):
            if max(start[axis], 0) <= side < min(end[axis], size[axis]):
                pixels[side, along] = rgb


@functools.cache
def _number(identity: int, size: int) -> np.ndarray:
    """A number on a ground of its colour, uint8 ``[h, w, 3]``."""
    colour, text, font = plots.slot_colour(identity), str(identity), ImageFont.load_default(size)
    left, top, right, bottom = (round(side) for side in font.getbbox(text))
    picture = Image.new("RGB", (right - left + 4, bottom - top + 4), colour)
    light = np.dot(to_rgb(colour), (0.299, 0.587, 0.114)) > 0.5
    ImageDraw.Draw(picture).text((2 - left, 2 - top), text, fill="black" if light else "white", font=font)
    return np.asarray(picture)


def _uint8(colour: str) -> np.ndarray:
    return np.uint8(np.round(255 * np.array(to_rgb(colour))))


def _curves(panels: int, title: str) -> tuple[Figure, list[Axes]]:
    size = (4.2 * panels + 1.2 * (panels == 1), 3.2)
    figure = Figure(figsize=size, dpi=100, layout="constrained", facecolor="white")
    if title:
        figure.suptitle(title, fontsize=11, color=_INK)
    return figure, list(figure.subplots(1, panels, squeeze=False).flat)


def _style(label: str, labels: Mapping) -> dict:
    word, *_ = words = [name.split(" ")[0].rstrip(",:").lower() for name in (label, *labels)]
    others = [name for name, first in zip(labels, words[1:], strict=True) if first not in _COLOURS]
    colour = _COLOURS[word] if word in _COLOURS else _OTHERS[others.index(label) % len(_OTHERS)]
    return {"color": colour, "linestyle": "--" if word in _UNLEARNED else "-", "linewidth": 1.6}


def _legend(figure: Figure, axes: Sequence[Axes]) -> None:
    """Every name once, beside the panels."""
    lines = {line.get_label(): line for ax in axes for line in ax.lines}
    figure.legend(lines.values(), lines.keys(), fontsize=8, frameon=False, loc="outside center right")


def _finish(ax: Axes, xlabel: str, ylabel: str) -> None:
    ax.set_ylim(0, 1.02)
    ax.set_xlabel(xlabel, fontsize=9, color=_INK)
    ax.set_ylabel(ylabel, fontsize=9, color=_INK)
    ax.tick_params(labelsize=8, labelcolor=_INK)
    ax.grid(color=_GRID, linewidth=0.8)
    ax.set_axisbelow(True)
    ax.spines[["top", "right"]].set_visible(False)
