"""Sequences of frames as filmstrips and as animations; an object has the colour of its identity in every frame."""

from collections.abc import Sequence
from typing import NamedTuple

import chex
import numpy as np
from jax.typing import ArrayLike
from matplotlib.figure import Figure
from PIL import Image, ImageDraw

from objcentric import plots

_ENLARGE = 3  # pixels of an animation for one of a frame


class Strip(NamedTuple):
    """M sequences, of which each is a row of frames."""

    name: str
    images: ArrayLike  # [M, T, H, W, C]
    boxes: ArrayLike | None = None  # [M, T, N, 4], in pixels
    presence: ArrayLike | None = None  # [M, T, N], a box is drawn above 0.5
    identity: ArrayLike | None = None  # [M, T, N] integers


def filmstrips(strips: Sequence[Strip], *, title: str = "", frame_names: Sequence[str] = ()) -> Figure:
    """The rows of every sequence below one another, as in figures 5.4.1 to 5.4.3 of the thesis.

    Args:
      frame_names: ``[T]``, above the frames; by default t = 1, 2, ...
    """
    strips = [_checked(strip) for strip in strips]
    sequences, frames, height, width, _ = strips[0].images.shape
    names = frame_names or [f"t = {t + 1}" for t in range(frames)]
    rows = sequences * len(strips)
    figure, axes = plots.tiles(rows, frames, (height, width), left=104, title_every=len(strips), heading=title)
    for m in range(sequences):
        for s, strip in enumerate(strips):
            row = axes[m * len(strips) + s]
            plots.label(row[0], strip.name)
            for t in range(frames):
                if not s:
                    plots.title(row[t], names[t])
                plots.show(row[t], strip.images[m, t])
                for box, identity in _drawn(strip, m, t):
                    plots.draw_box(row[t], box, identity)
    return figure


def animation(strips: Sequence[Strip]) -> np.ndarray:
    """Frames uint8 ``[T, height, width, 3]``: strips below one another, sequences side by side."""
    strips = [_checked(strip) for strip in strips]
    sequences, frames, height, width, _ = strips[0].images.shape
    gap = 2
    film = np.full(
        (frames, len(strips) * (height * _ENLARGE + gap), sequences * (width * _ENLARGE + gap), 3), 255, np.uint8
    )
    for t, s, m in np.ndindex(frames, len(strips), sequences):
        pixels = np.uint8(np.round(255 * strips[s].images[m, t])).repeat(3 // strips[s].images.shape[-1], axis=-1)
        tile = Image.fromarray(pixels).resize((width * _ENLARGE, height * _ENLARGE), Image.Resampling.NEAREST)
        pen = ImageDraw.Draw(tile)
        for (y0, x0, y1, x1), identity in _drawn(strips[s], m, t):
            corners = [_ENLARGE * float(side) for side in (min(x0, x1), min(y0, y1), max(x0, x1), max(y0, y1))]
            pen.rectangle(corners, outline=plots.slot_colour(identity), width=2)
        top, left = s * (height * _ENLARGE + gap), m * (width * _ENLARGE + gap)
        film[t, top : top + height * _ENLARGE, left : left + width * _ENLARGE] = tile
    return film


def _checked(strip: Strip) -> Strip:
    images = plots.pixels(strip.images, 5)
    if strip.boxes is None:
        return strip._replace(images=images)
    boxes, presence, identity = (np.asarray(array) for array in strip[2:])
    chex.assert_shape(presence, (*images.shape[:2], None))
    chex.assert_equal_shape([presence, identity])
    chex.assert_shape(boxes, (*presence.shape, 4))
    return Strip(strip.name, images, boxes, presence, identity)


def _drawn(strip: Strip, m: int, t: int) -> list[tuple[np.ndarray, int]]:
    if strip.boxes is None:
        return []
    there = np.flatnonzero(strip.presence[m, t] > 0.5)
    return [(strip.boxes[m, t, i], int(strip.identity[m, t, i])) for i in there]
