"""Pictures of the mixture of Gaussians, laid out as those of "Revisiting Reweighted Wake-Sleep".

As in `objcentric.plots`, arrays go in and a matplotlib Figure of 100 dots per inch comes out, without pyplot.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from jax.typing import ArrayLike
from matplotlib.axes import Axes
from matplotlib.collections import PatchCollection
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import EngFormatter

_COLOURS = {
    "WS": "#1F5FBF",
    "WW": "#C8202C",
    "\u03b4-WW": "#E08A00",
    "VIMCO": "#1A8A3A",
    "REINFORCE": "#8A4FBF",
    "RELAX": "#7A4B2A",
    "REBAR": "#D6559B",
    "Concrete": "#6E7781",
    "DVAE": "#17A2A8",
    "DVAE++": "#9C9A1B",
}
_INK, _FAINT, _GRID = "#24292F", "#6E7781", "#E4E7EB"
_RECTANGLE = {"edgecolor": "none", "facecolor": _INK}


def training(
    steps: ArrayLike, panels: Mapping[tuple[str, str], Mapping[str, ArrayLike]], *, caption: str = ""
) -> Figure:
    """Figures 8.4.4, 8.C.1 and 8.C.2: a row a quantity, a column a number of particles, a line an estimator.

    Args:
      steps: ``[T]``.
      panels: by quantity and column, by label: values ``[T, seeds]``, of which the median and, as a band, the quartiles
        are drawn; the axis is logarithmic.
    """
    rows, columns = (list(dict.fromkeys(names)) for names in zip(*panels, strict=True))
    figure, axes = _axes(rows, columns, caption)
    for (row, column), lines in panels.items():
        ax = axes[rows.index(row), columns.index(column)]
        for label, values in lines.items():
            low, median, high = _quartiles(values)
            ax.plot(steps, median, color=_colour(label), linewidth=1.5, label=label)
            ax.fill_between(steps, low, high, color=_colour(label), alpha=0.15, linewidth=0)
        ax.xaxis.set_major_formatter(EngFormatter(sep=""))
        ax.set_xlabel("step" if row == rows[-1] else "", fontsize=9, color=_INK)
    _legend(figure, axes)
    return figure


def final(panels: Mapping[tuple[str, str], Mapping[str, Mapping[int, ArrayLike]]], *, caption: str = "") -> Figure:
    """What training ends with against the number of particles: a row a quantity, a column an initialisation.

    Args:
      panels: by quantity and column, by label and number of particles: values ``[seeds]``; medians are joined by lines,
        bars reach to the quartiles.
    """
    rows, columns = (list(dict.fromkeys(names)) for names in zip(*panels, strict=True))
    figure, axes = _axes(rows, columns, caption)
    for (row, column), lines in panels.items():
        ax = axes[rows.index(row), columns.index(column)]
        numbers = sorted({number for values in lines.values() for number in values})
        for label, values in lines.items():
            low, median, high = _quartiles(np.stack([np.asarray(values[number]) for number in values]))
            bars = np.stack([median - low, high - median])
            ax.errorbar(
                list(values), median, bars, color=_colour(label), label=label, marker="o", markersize=4, linewidth=1.3
            )
        ax.set_xscale("log")
        ax.set_xticks(numbers, [str(number) for number in numbers])
        ax.set_xticks([], minor=True)
        ax.set_xlabel("K" if row == rows[-1] else "", fontsize=9, color=_INK)
    _legend(figure, axes)
    return figure


def hinton(
    blocks: Mapping[tuple[str, str], ArrayLike], *, row_names: Sequence[str], positions: ArrayLike, caption: str = ""
) -> Figure:
    """Figure 8.4.5: Hinton diagrams, areas proportional to probability.

    Args:
      blocks: by half of the figure and label: ``[rows, 1 + X, C]``, the proportions and q(z | x) at X places.
      row_names: of the times shown, one below the other.
      positions: ``[X]``, the places x.
    """
    positions = np.asarray(positions)
    places, clusters = np.asarray(next(iter(blocks.values()))).shape[1:]
    width, height = 0.085 * (places + 2), 0.085 * clusters
    size = (len(blocks) * (width + 0.12) + 0.9, len(row_names) * (height + 0.12) + 1.3)
    figure = Figure(figsize=size, dpi=100, layout="constrained", facecolor="white")
    axes = figure.subplots(len(row_names), len(blocks), squeeze=False)
    for column, ((half, label), times) in enumerate(blocks.items()):
        new_half = column == 0 or half != list(blocks)[column - 1][0]
        for row, probabilities in enumerate(np.asarray(times, np.float64)):
            ax = axes[row, column]
            _draw_hinton(ax, probabilities)
            if row == 0:
                ax.set_title(f"{half}\n{label}" if new_half else f"\n{label}", fontsize=9, color=_INK, loc="left")
            if column == 0:
                ax.set_ylabel(f"{row_names[row]}\nz", fontsize=9, color=_INK)
            if row == len(row_names) - 1:
                ends = [0, len(positions) - 1]
                ax.set_xticks([0, *[2 + end for end in ends]], ["p", *[f"{positions[end]:g}" for end in ends]])
    figure.supxlabel(caption, fontsize=8, color=_FAINT)
    return figure


def _draw_hinton(ax: Axes, probabilities: np.ndarray) -> None:
    """``[1 + X, C]``: the first column stands apart."""
    places = np.arange(len(probabilities)) + (np.arange(len(probabilities)) > 0)
    sides = np.sqrt(np.clip(np.nan_to_num(probabilities), 0.0, 1.0))
    squares = [
        Rectangle((places[i] - side / 2, z - side / 2), side, side)
        for (i, z), side in np.ndenumerate(sides)
        if side > 0.03
    ]
    ax.add_collection(PatchCollection(squares, **_RECTANGLE))
    ax.set(xlim=(-0.8, places[-1] + 0.8), ylim=(-0.8, sides.shape[1] - 0.2), aspect="equal", xticks=[], yticks=[])
    ax.axvline(1, color=_GRID, linewidth=1)
    ax.tick_params(labelsize=7, labelcolor=_FAINT, length=0)
    ax.spines[:].set_color("#C4CAD1")


def _quartiles(values: ArrayLike) -> np.ndarray:
    """``[..., seeds] -> [3, ...]``; NaN where any seed is not finite."""
    values = np.asarray(values, np.float64)
    return np.percentile(np.where(np.isfinite(values), values, np.nan), [25, 50, 75], axis=-1)


def _colour(label: str) -> str:
    return _COLOURS.get(label, _INK)


def _axes(rows: Sequence[str], columns: Sequence[str], caption: str) -> tuple[Figure, np.ndarray]:
    """Panels with logarithmic axes, those of a row the same."""
    size = (3.2 * len(columns) + 1.2, 2.5 * len(rows) + 0.5)
    figure = Figure(figsize=size, dpi=100, layout="constrained", facecolor="white")
    axes = figure.subplots(len(rows), len(columns), squeeze=False, sharex="col", sharey="row")
    for (row, column), ax in np.ndenumerate(axes):
        ax.set_title(columns[column] if row == 0 else "", fontsize=10, color=_INK)
        ax.set_ylabel(rows[row] if column == 0 else "", fontsize=9, color=_INK)
        ax.set_yscale("log")
        ax.tick_params(labelsize=8, labelcolor=_INK)
        ax.grid(color=_GRID, linewidth=0.8)
        ax.set_axisbelow(True)
        ax.spines[["top", "right"]].set_visible(False)
    figure.supxlabel(caption, fontsize=8, color=_FAINT)
    return figure, axes


def _legend(figure: Figure, axes: np.ndarray) -> None:
    lines = {label: line for line, label in zip(*axes[0, 0].get_legend_handles_labels(), strict=True)}
    figure.legend(lines.values(), lines.keys(), loc="outside right upper", fontsize=9, frameon=False)
