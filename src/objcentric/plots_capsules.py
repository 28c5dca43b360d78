"""Pictures of capsules: constellations by the capsules that own their points; parts, objects and templates of images.

As in `objcentric.plots`, arrays go in and a matplotlib Figure of 100 dots per inch comes out, without pyplot.
"""

import numpy as np
from jax.typing import ArrayLike
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from scipy.optimize import linear_sum_assignment

from objcentric import plots


def constellations(
    points: ArrayLike, presence: ArrayLike, true: ArrayLike, assigned: ArrayLike, *, num_capsules: int
) -> Figure:
    """Figure 6.2.1: a column per scene, its points by their constellation, and by the capsule they are assigned to.

    Capsules have the colour of the constellation with which they are best matched; what then differs is crossed.

    Args:
      points: ``[M, N, 2]`` in [-1, 1].
      presence: ``[M, N]``, there is a point above 0.5.
      true, assigned: ``[M, N]`` integers, constellations and capsules.
    """
    points, true, assigned = (np.asarray(each) for each in (points, true, assigned))
    there = np.asarray(presence) > 0.5
    figure, axes = plots.tiles(2, len(points), (100, 100), left=76)
    plots.label(axes[0, 0], "truth")
    plots.label(axes[1, 0], "capsules")
    num_true = max(int(true.max(initial=0, where=there)) + 1, num_capsules)
    for m in range(len(points)):
        counts = np.zeros((num_capsules, num_true), int)
        np.add.at(counts, (assigned[m, there[m]], true[m, there[m]]), 1)
        partner = dict(zip(*linear_sum_assignment(counts, maximize=True), strict=True))
        matched = np.array([partner[k] for k in assigned[m]])
        for row, owner in enumerate((true[m], matched)):
            _frame(axes[row, m])
            for n in np.flatnonzero(there[m]):
                wrong = row and owner[n] != true[m, n]
                colour, mark = plots.slot_colour(owner[n]), "x" if wrong else "o"
                axes[row, m].plot(*points[m, n], mark, color=colour, markersize=6, markeredgewidth=2 if wrong else 0)
    return figure


def _frame(axes: Axes) -> None:
    axes.set_axis_on()
    axes.set(xlim=(-1.12, 1.12), ylim=(1.12, -1.12), xticks=[], yticks=[])
    axes.spines[:].set_color(plots.ABSENT_COLOUR)


def templates(images: ArrayLike) -> Figure:
    """Figure 6.2.2: templates of parts, ``[M, h, w, C]``, each as bright as it can be."""
    images = np.asarray(images, np.float64)
    largest = images.max((1, 2, 3), keepdims=True)
    return plots.samples(images / np.maximum(largest, 1e-6), "Templates of parts")


def reconstructions(
    images: ArrayLike,
    parts: ArrayLike,
    objects: ArrayLike,
    each_part: ArrayLike,
    each_object: ArrayLike,
    part_presence: ArrayLike,
    object_presence: ArrayLike,
    *,
    object_posterior: ArrayLike | None = None,
    most: int = 4,
) -> Figure:
    """Figure 6.2.3: a column per image: it, its reconstructions, its parts in colours, and its most active objects.

    Reconstructions are red from parts and green from objects, so that they are yellow where they agree. Strips have a
    cell for each object, in the order of their numbers, from black for 0 to white for 1: its presence a priori, and its
    share a posteriori of what objects explain. Objects below them stand in the order of their presences, which are
    above them.

    Args:
      images: ``[B, H, W, C]``, as they are to be reconstructed.
      parts, objects: ``[B, H, W, C]``, from the poses of parts, and from objects' votes for them.
      each_part: ``[B, M, H, W, C]``, placed templates.
      each_object: ``[B, K, H, W, C]``.
      part_presence: ``[B, M]`` in [0, 1]; above 0.5 a part has a colour in the picture of parts.
      object_presence: ``[B, K]`` in [0, 1], a priori.
      object_posterior: ``[B, K]``, 0 or more, responsibilities summed over parts; without it that strip is left out.
      most: objects that are shown.
    """
    images, parts, objects = (plots.pixels(each, 4) for each in (images, parts, objects))
    each_part, each_object = plots.pixels(each_part, 5), plots.pixels(each_object, 5)
    there, active = np.asarray(part_presence) > 0.5, np.asarray(object_presence)
    most = min(most, active.shape[1])
    strips = {"a priori": active} | ({} if object_posterior is None else {"a posteriori": shares(object_posterior)})
    names = ("image", "parts red,\nobjects green", "parts", *strips, *(f"object {i + 1}" for i in range(most)))
    low = range(3, 3 + len(strips))
    figure, axes = plots.tiles(len(names), len(images), images.shape[1:3], left=104, title_every=1, strips=low)
    for row, name in enumerate(names):
        plots.label(axes[row, 0], name)
    for b in range(len(images)):
        shown = [images[b], overlay(parts[b], objects[b]), coloured(each_part[b], there[b])]
        for row, image in enumerate(shown):
            plots.show(axes[row, b], image)
        for row, values in zip(low, strips.values(), strict=True):
            plots.strip(axes[row, b], values[b])
        for row, k in enumerate(np.argsort(-active[b], kind="stable")[:most], low.stop):
            plots.show(axes[row, b], each_object[b, k])
            plots.title(axes[row, b], f"{k}: {active[b, k]:.2f}")
    return figure


def shares(masses: ArrayLike) -> np.ndarray:
    """``[B, K]``, 0 or more, each divided by the sum of its row; 0 where that is 0."""
    masses = np.asarray(masses, np.float64)
    return masses / np.maximum(masses.sum(1, keepdims=True), 1e-12)


def overlay(red: np.ndarray, green: np.ndarray) -> np.ndarray:
    """Two images ``[H, W, C]`` as one in colour, ``[H, W, 3]``, yellow where they agree."""
    red, green = red.mean(-1), green.mean(-1)
    return np.stack([red, green, np.zeros_like(red)], -1)


def coloured(parts: np.ndarray, there: np.ndarray) -> np.ndarray:
    """Placed templates ``[M, H, W, C]`` that are ``there [M]``, each in a colour of its own: ``[H, W, 3]``."""
    brightness = parts.mean(-1) * there[:, None, None]
    colours = np.array([to_rgb(plots.slot_colour(m, len(parts))) for m in range(len(parts))])
    best = brightness.argmax(0)
    return colours[best] * brightness.max(0)[..., None]
