"""Pictures of estimators that train one model, laid out as those of "Tighter Variational Bounds".

As in `objcentric.plots`, arrays go in and a matplotlib Figure of 100 dots per inch comes out, without pyplot.
"""

from collections.abc import Mapping

import numpy as np
from jax.typing import ArrayLike
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter

# By the first word of a label: what an estimator is called has its colour in every picture.
_COLOURS = {"IWAE": "#1F5FBF", "PIWAE": "#E08A00", "MIWAE": "#1A8A3A", "CIWAE": "#8A4FBF", "VAE": "#C8202C"}
_INK, _FAINT, _GRID = "#24292F", "#6E7781", "#E4E7EB"


def training(
    panels: Mapping[str, Mapping[str, tuple[ArrayLike, ArrayLike]]], *, log: bool = False, caption: str = ""
) -> Figure:
    """A panel a quantity, a line an estimator: mean over repeats, with a band of one standard deviation.

    Args:
      panels: by title and label, steps ``[T]`` and values ``[T, repeats]``.
      log: whether values have a logarithmic axis; otherwise it covers what is after the first third of the steps.
    """
    figure, axes = _axes(1, len(panels), caption)
    for ax, (title, lines) in zip(axes[0], panels.items(), strict=True):
        late = []
        for label, (steps, values) in lines.items():
            values = np.asarray(values, np.float64)
            mean, std = np.mean(values, -1), np.std(values, -1)
            ax.plot(steps, mean, color=_colour(label), linewidth=1.5, label=label, marker=".", markersize=4)
            low = np.maximum(mean - std, mean / 3) if log else mean - std  # one that reached 0 would fill a log panel
            ax.fill_between(steps, low, mean + std, color=_colour(label), alpha=0.15, linewidth=0)
            late += [value for value in mean[len(mean) // 3 :] if np.isfinite(value)]
        if log:
            ax.set_yscale("log")
        elif late:
            room = 0.05 * (max(late) - min(late)) or 1.0
            ax.set_ylim(min(late) - room, max(late) + room)
        ax.xaxis.set_major_formatter(EngFormatter(sep=""))
        _finish(ax, title, "step", "")
    figure.legend(*axes[0, 0].get_legend_handles_labels(), fontsize=8, frameon=False, loc="outside center right")
    return figure


def relative(rows: Mapping[str, Mapping[str, Mapping[str, ArrayLike]]], *, baseline: str, caption: str = "") -> Figure:
    """Figure 7.5.2: a row a quantity, a column a family of estimators, a dot a setting: its difference to a baseline.

    Args:
      rows: by quantity, family and setting: differences ``[seeds]``, of which mean and standard deviation are drawn.
      baseline: what the dotted line at 0 is called.
    """
    families = list(next(iter(rows.values())))
    figure, axes = _axes(len(rows), len(families), caption)
    for (quantity, row), line in zip(rows.items(), axes, strict=True):
        for family, ax in zip(families, line, strict=True):
            settings = row[family]
            means, stds = ([float(f(np.asarray(v, np.float64))) for v in settings.values()] for f in (np.mean, np.std))
            places = range(len(settings))
            ax.axhline(0, color=_INK, linewidth=1, linestyle=":")
            ax.errorbar(places, means, stds, color=_colour(family), marker="o", markersize=5, capsize=3, linewidth=1.2)
            ax.set_xticks(places, list(settings))
            ax.margins(x=0.2)
            _finish(ax, f"{family} \u2212 {baseline}" if quantity == next(iter(rows)) else "", "", "")
        line[0].set_ylabel(quantity, fontsize=9, color=_INK)
    return figure


def violins(histograms: Mapping[str, ArrayLike], edges: ArrayLike, title: str) -> Figure:
    """Figure 7.5.3: a violin an estimator, as wide as its histogram ``[bins]`` is high; a line at its median's bin.

    Args:
      edges: ``[bins + 1]`` of all histograms, positive, in equal ratios: the axis is logarithmic.
    """
    size = (1.0 + 0.9 * len(histograms), 3.6)
    figure = Figure(figsize=size, dpi=100, layout="constrained", facecolor="white")
    ax = figure.add_subplot()
    ax.set_yscale("log")
    edges = np.asarray(edges, np.float64)
    for place, (label, counts) in enumerate(histograms.items()):
        counts = np.asarray(counts, np.float64)
        half = 0.45 * counts / max(counts.max(), 1)
        sides = {"edges": edges, "baseline": place - half, "orientation": "horizontal", "fill": True}
        ax.stairs(place + half, **sides, color=_colour(label), alpha=0.6)
        below = np.searchsorted(np.cumsum(counts), counts.sum() / 2)
        ax.hlines(np.sqrt(edges[below] * edges[below + 1]), place - 0.3, place + 0.3, color=_INK, linewidth=1.2)
    ax.set_xticks(range(len(histograms)), [label.replace(" ", "\n", 1) for label in histograms])
    ax.set(xlim=(-0.6, len(histograms) - 0.4), ylim=(edges[0], edges[-1]))
    _finish(ax, title, "", "")
    return figure


def _colour(label: str) -> str:
    return _COLOURS.get(label.split(" ")[0], _INK)


def _axes(rows: int, columns: int, caption: str) -> tuple[Figure, np.ndarray]:
    size = (3.6 * columns, 2.6 * rows + 0.7)
    figure = Figure(figsize=size, dpi=100, layout="constrained", facecolor="white")
    figure.supxlabel(caption, fontsize=8, color=_FAINT)
    return figure, figure.subplots(rows, columns, squeeze=False)


def _finish(ax: Axes, title: str, xlabel: str, ylabel: str) -> None:
    ax.set_title(title, fontsize=10, color=_INK)
    ax.set_xlabel(xlabel, fontsize=9, color=_INK)
    ax.set_ylabel(ylabel, fontsize=9, color=_INK)
    ax.tick_params(labelsize=8, labelcolor=_INK)
    ax.grid(color=_GRID, linewidth=0.8)
    ax.set_axisbelow(True)
    ax.spines[["top", "right"]].set_visible(False)
