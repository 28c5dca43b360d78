"""Arrays to pictures: matplotlib Figures of 100 dots per inch, to be written by ``figure.savefig(path)``.

No pyplot: a figure is garbage when its last reference goes, any thread may draw one, and no display is needed. Images
are ``[H, W, C]`` with C = 1 or 3, float in [0, 1] (values outside are clipped) or uint8 in 0..255.
"""

import math
from collections.abc import Sequence

import chex
import numpy as np
from jax.typing import ArrayLike
from matplotlib.axes import Axes
from matplotlib.colors import hsv_to_rgb, to_hex
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import EngFormatter, MaxNLocator

# Okabe and Ito's palette, told apart by the colour-blind too; slot i has SLOT_COLOURS[i % 7], see `slot_colour`.
SLOT_COLOURS = ("#E69F00", "#56B4E9", "#CC79A7", "#009E73", "#F0E442", "#D55E00", "#0072B2")
ABSENT_COLOUR = "#ECEDF0"
WRONG_COLOUR = "#D1242F"
_INK = "#24292F"
_FAINT = "#8A929C"
_LINE = "#0B5FA5"
_DPI = 100
_TILE = 100  # about the side of an image, pixels
_GAP = 6
_MARGIN = 10
_STRIP = 14  # height of a strip of cells
_TITLE = 18  # room for one line of text above an image, pixels
_HEADING = 26  # and above a whole figure
_PER_BLOCK = 10  # scenes side by side before `reconstructions` starts a new block


def reconstructions(
    images: ArrayLike,
    reconstructions: ArrayLike,
    boxes: ArrayLike,
    presence: ArrayLike,
    objects: ArrayLike,
    counts: ArrayLike | None = None,
) -> Figure:
    """A column per scene: the input, its reconstruction with the glimpses of present slots, each slot's object alone.

    Above it the number of present slots and, where known, the true one; in red where they differ.

    Args:
      images: ``[M, H, W, C]``.
      reconstructions: ``[M, H, W, C]``.
      boxes: ``[M, N, 4]``, the glimpses' (y0, x0, y1, x1) in pixels.
      presence: ``[M, N]``, a slot is present above 0.5; an absent one is a blank tile.
      objects: ``[M, N, H, W, C]``.
      counts: ``[M]``, true numbers of objects.
    """
    images, means, objects = pixels(images, 4), pixels(reconstructions, 4), pixels(objects, 5)
    boxes, presence = np.asarray(boxes), np.asarray(presence) > 0.5
    chex.assert_equal_shape([images, means])
    chex.assert_shape(presence, (len(images), None))
    num_scenes, num_slots = presence.shape
    chex.assert_shape(boxes, (num_scenes, num_slots, 4))
    chex.assert_shape(objects, (num_scenes, num_slots, *images.shape[1:]))
    found = presence.sum(1)
    if counts is not None:
        counts = np.asarray(counts)
        chex.assert_shape(counts, (num_scenes,))

    columns = min(num_scenes, _PER_BLOCK)
    blocks = math.ceil(num_scenes / columns)
    names = ("input", "reconstruction\nand glimpses", *(f"object {i + 1}" for i in range(num_slots)))
    figure, axes = tiles(blocks * len(names), columns, images.shape[1:3], left=104, title_every=len(names))
    for row, name in enumerate(names * blocks):
        label(axes[row, 0], name)
        if not row % len(names):
            label(axes[row, 0], "found" if counts is None else "found / true", above=True)
    for m in range(num_scenes):
        column = axes[m // columns * len(names) :, m % columns]
        wrong = counts is not None and counts[m] != found[m]
        text = f"{found[m]}" if counts is None else f"{found[m]} / {counts[m]}"
        title(column[0], text, WRONG_COLOUR if wrong else _INK, bold=wrong)
        show(column[0], images[m])
        show(column[1], means[m])
        for i in range(num_slots):
            tile = column[2 + i]
            if presence[m, i]:
                draw_box(column[1], boxes[m, i], i)
                show(tile, objects[m, i])
                _frame(tile, slot_colour(i))
            else:
                _blank(tile)
    return figure


def samples(images: ArrayLike, heading: str = "") -> Figure:
    """A compact grid of ``images [M, H, W, C]`` under a heading."""
    images = pixels(images, 4)
    columns = _columns(len(images))
    figure, axes = tiles(math.ceil(len(images) / columns), columns, images.shape[1:3], heading=heading)
    for tile, image in zip(axes.flat, images, strict=False):
        show(tile, image)
    return figure


def interpolation(images: ArrayLike) -> Figure:
    """Walks through latent space, ``images [R, S, H, W, C]``: each row leads from one scene to another in S steps."""
    images = pixels(images, 5)
    rows, steps = images.shape[:2]
    figure, axes = tiles(rows, steps, images.shape[2:4], title_every=rows)
    for s in range(steps):
        ends = {0: "from", steps - 1: "to"}
        title(axes[0, s], ends.get(s, f"{s / max(steps - 1, 1):.2f}"), _INK if s in ends else _FAINT)
        for r in range(rows):
            show(axes[r, s], images[r, s])
    return figure


def learning_curve(rows: Sequence[dict], names: Sequence[str], *, x: str = "step") -> Figure:
    """A panel per name: its values over ``x``, with the last one above.

    Args:
      rows: one dict per line of metrics.jsonl, in order; a later row replaces an earlier one at the same ``x``. A value
        is a number, or a list of one number per seed: then each seed is a thin line and their mean a thick one. None
        and values that are not finite leave a gap.
      names: keys to plot; those found in no row are left out.
    """
    series = [(name, *_series(rows, name, x)) for name in names if any(x in row and name in row for row in rows)]
    panels = max(math.ceil(len(series) / 4), 1)
    columns = max(math.ceil(len(series) / panels), 1)
    figure = Figure(figsize=(max(2.9 * columns, 3.6), 2.3 * panels), dpi=_DPI, layout="constrained", facecolor="white")
    if not series:
        figure.text(0.5, 0.5, f"nothing to plot over '{x}' yet", color=_FAINT, ha="center", va="center")
    for k, (name, at, values) in enumerate(series):
        axes = figure.add_subplot(panels, columns, k + 1)
        mean = _finite_mean(values)
        if values.shape[1] > 1:
            axes.plot(at, values, color=_LINE, linewidth=0.8, alpha=0.35)
        axes.plot(at, mean, color=_LINE, linewidth=1.8, marker="o" if len(at) < 2 else None, markersize=4)
        axes.set_title(name, loc="left", fontsize=9, color=_INK)
        axes.set_title(_last(values, mean), loc="right", fontsize=9, color=_LINE)
        axes.grid(color="#E4E7EB", linewidth=0.8)
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
        axes.spines[["left", "bottom"]].set_color("#B6BDC6")
        axes.tick_params(labelsize=8, color="#B6BDC6", labelcolor=_INK)
        axes.xaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10], integer=True))
        axes.xaxis.set_major_formatter(EngFormatter(sep=""))
        axes.yaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]))
        if not np.isfinite(values).any():
            axes.text(0.5, 0.5, "no finite value", transform=axes.transAxes, color=_FAINT, ha="center", va="center")
            axes.set(xlim=(at[0] - 1, at[-1] + 1), yticks=[])
        if k >= len(series) - columns:
            axes.set_xlabel(x, fontsize=8, color=_FAINT)
    return figure


def confusion(matrix: ArrayLike) -> Figure:
    """True (row) against predicted (column) counts: scenes in each cell, shaded by their share of the row.

    Args:
      matrix: ``[K, K]`` numbers of scenes.
    """
    matrix = np.asarray(matrix)
    chex.assert_rank(matrix, 2)
    chex.assert_shape(matrix, (len(matrix), len(matrix)))
    size = len(matrix)
    total = matrix.sum()
    share = matrix / np.maximum(matrix.sum(1, keepdims=True), 1)
    side = max(0.62 * size + 1.0, 3.0)
    figure = Figure(figsize=(side, side), dpi=_DPI, layout="constrained", facecolor="white")
    axes = figure.add_subplot()
    axes.imshow(share, cmap="Blues", vmin=0.0, vmax=1.0)
    for true, predicted in np.ndindex(size, size):
        value, dark = matrix[true, predicted], share[true, predicted] > 0.5
        colour = "white" if dark else _INK if true == predicted or not value else WRONG_COLOUR
        axes.text(predicted, true, f"{value}" if value else "·", color=colour, fontsize=9, ha="center", va="center")
    axes.set_xticks(range(size))
    axes.set_yticks(range(size))
    axes.set_xticks(np.arange(size - 1) + 0.5, minor=True)
    axes.set_yticks(np.arange(size - 1) + 0.5, minor=True)
    axes.grid(which="minor", color="white", linewidth=2)
    axes.tick_params(which="both", length=0, labelsize=9, labelcolor=_INK)
    axes.spines[:].set_visible(False)
    axes.set_xlabel("objects found", fontsize=9, color=_INK)
    axes.set_ylabel("objects in the scene", fontsize=9, color=_INK)
    text = f"{np.trace(matrix) / total:.1%} of {total} right" if total else "no scenes"
    axes.set_title(text, fontsize=10, color=_INK)
    return figure


def pixels(images: ArrayLike, rank: int) -> np.ndarray:
    """Float images in [0, 1], of the given rank, with a last axis of 1 or 3."""
    images = np.asarray(images)
    chex.assert_rank(images, rank)
    if images.shape[-1] not in (1, 3):
        raise ValueError(f"images have 1 or 3 channels, not {images.shape[-1]} (shape {images.shape})")
    if not images.size:
        raise ValueError(f"no images to draw (shape {images.shape})")
    if images.dtype == np.uint8:
        return images / 255.0
    return np.clip(np.nan_to_num(images.astype(np.float64)), 0.0, 1.0)


def tiles(
    rows: int,
    columns: int,
    shape: Sequence[int],
    *,
    left: int = 0,
    title_every: int = 0,
    heading: str = "",
    strips: Sequence[int] = (),
) -> tuple[Figure, np.ndarray]:
    """A figure and its axes ``[rows, columns]``, empty and laid out in whole pixels.

    Args:
      shape: height and width of an image; it is enlarged by a whole factor, so that its pixels stay square and sharp.
      left: room for labels, pixels.
      title_every: leaves room for a title above each row that this divides; 0 for none.
      heading: of the figure.
      strips: rows that are only as high as a line of text, and have no title.
    """
    ratio = _TILE / max(shape)
    factor = round(ratio) or ratio
    height, width = (max(round(side * factor), 1) for side in shape)
    heights = np.array([_STRIP if row in strips else height for row in range(rows)])
    titles = np.cumsum([bool(title_every) and not row % title_every and row not in strips for row in range(rows)])
    above = titles * _TITLE + np.maximum(titles - 1, 0) * _GAP + (_HEADING if heading else 0)
    tops = _MARGIN + above + np.cumsum(heights + _GAP) - heights - _GAP
    lefts = _MARGIN + left + np.arange(columns) * (width + _GAP)
    size = np.array([lefts[-1] + width + _MARGIN, tops[-1] + heights[-1] + _MARGIN])
    figure = Figure(figsize=size / _DPI, dpi=_DPI, facecolor="white")
    axes = np.empty((rows, columns), object)
    for r, c in np.ndindex(rows, columns):
        axes[r, c] = figure.add_axes(
            (lefts[c] / size[0], 1 - (tops[r] + heights[r]) / size[1], width / size[0], heights[r] / size[1])
        )
        axes[r, c].set_axis_off()
    if heading:
        figure.text(_MARGIN / size[0], 1 - _MARGIN / size[1], heading, fontsize=11, color=_INK, ha="left", va="top")
    return figure, axes


def _columns(count: int) -> int:
    """Columns of a grid without gaps that is not much wider than high, if there is one."""
    least = math.ceil(math.sqrt(count))
    return next((c for c in range(least, 2 * least + 1) if not count % c), least)


def slot_colour(i: int, of: int = len(SLOT_COLOURS)) -> str:
    """The colour of slot i. Among more than `SLOT_COLOURS`, ``of`` evenly spaced hues, every other one paler."""
    if of <= len(SLOT_COLOURS):
        return SLOT_COLOURS[i % len(SLOT_COLOURS)]
    return to_hex(hsv_to_rgb((i % of / of, 0.45 if i % of % 2 else 0.9, 1.0))).upper()


def show(axes: Axes, image: np.ndarray) -> None:
    """Draws an image so that its data coordinates are those of boxes: pixel edges, y down."""
    height, width, channels = image.shape
    rgb = image.repeat(3, axis=-1) if channels == 1 else image
    shrunk = not round(_TILE / max(width, height))
    axes.imshow(rgb, extent=(0, width, height, 0), aspect="auto", interpolation="auto" if shrunk else "nearest")


def draw_box(axes: Axes, box: np.ndarray, slot: int) -> None:
    y0, x0, y1, x1 = (float(side) for side in box)
    axes.add_patch(Rectangle((x0, y0), x1 - x0, y1 - y0, fill=False, edgecolor=slot_colour(slot), linewidth=1.4))


def strip(axes: Axes, values: ArrayLike) -> None:
    """Cells side by side for ``values [K]``, from black for 0 to white for 1, amid an outline."""
    show(axes, pixels(np.asarray(values)[None, :, None], 3))
    _frame(axes, _FAINT, zorder=-1)


def _frame(axes: Axes, colour: str, zorder: int = 1) -> None:
    """With a ``zorder`` below 0 an image covers the inner half of the frame."""
    style = {"fill": False, "edgecolor": colour, "linewidth": 2.2, "clip_on": False, "zorder": zorder}
    axes.add_patch(Rectangle((0, 0), 1, 1, transform=axes.transAxes, **style))


def _blank(axes: Axes) -> None:
    axes.add_patch(Rectangle((0, 0), 1, 1, transform=axes.transAxes, facecolor=ABSENT_COLOUR, edgecolor="none"))


def title(axes: Axes, text: str, colour: str = _INK, *, bold: bool = False) -> None:
    axes.set_title(text, fontsize=9, color=colour, pad=4, fontweight="bold" if bold else "normal")


def label(axes: Axes, text: str, *, above: bool = False) -> None:
    """Text to the left of an image, or of its title."""
    axes.annotate(
        text,
        (0, 1 if above else 0.5),
        (-8, 4 if above else 0),
        xycoords="axes fraction",
        textcoords="offset points",
        fontsize=9,
        color=_FAINT if above else _INK,
        ha="right",
        va="baseline" if above else "center",
        annotation_clip=False,
    )


def _series(rows: Sequence[dict], name: str, x: str) -> tuple[np.ndarray, np.ndarray]:
    """Places ``[T]`` and values ``[T, S]`` of one name, NaN where one is missing or not finite."""
    points = {row[x]: np.atleast_1d(np.asarray(row[name], np.float64)) for row in rows if x in row and name in row}
    at = sorted(points)
    for place in at:
        if points[place].ndim != 1:
            raise ValueError(f"'{name}' at {x} {place} has shape {points[place].shape}; a curve takes numbers per seed")
    values = np.full((len(at), max(len(points[place]) for place in at)), np.nan)
    for t, place in enumerate(at):
        values[t, : len(points[place])] = points[place]
    return np.array(at), np.where(np.isfinite(values), values, np.nan)


def _finite_mean(values: np.ndarray) -> np.ndarray:
    """Mean over the last axis of what is finite, NaN where nothing is."""
    count = np.isfinite(values).sum(-1)
    return np.where(count, np.nansum(values, -1) / np.maximum(count, 1), np.nan)


def _last(values: np.ndarray, mean: np.ndarray) -> str:
    """The last mean, with the standard deviation over seeds if there are several."""
    last = values[-1][np.isfinite(values[-1])]
    spread = f" ± {last.std():.2g}" if len(last) > 1 else ""
    return f"{mean[-1]:.4g}{spread}"
