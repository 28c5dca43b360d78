"""Pictures of gradient estimators, laid out as those of "Tighter Variational Bounds": IWAE is blue, the VAE red.

As in `objcentric.plots`, arrays go in and a matplotlib Figure of 100 dots per inch comes out, without pyplot.
"""

import textwrap
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jax.typing import ArrayLike
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure

_COLOURS = {"iwae": "#1F5FBF", "vae": "#C8202C"}
_MAPS = {"iwae": "Blues", "vae": "Reds"}
_LABELS = {"iwae": "IWAE, M = 1 and K grows", "vae": "VAE, K = 1 and M grows"}
_GUIDES = {0.5: ("#111111", "slope 1/2"), -0.5: ("#1A8A3A", "slope \u22121/2")}
_INK, _FAINT, _GRID = "#24292F", "#6E7781", "#E4E7EB"


class Curve(NamedTuple):
    """A quantity of one method for several K or M."""

    method: str  # 'iwae' or 'vae'
    counts: Sequence[int]  # [C], K or M
    lines: np.ndarray  # [C, L], drawn one by one
    band: np.ndarray | None = None  # [2, C], lower and upper edge
    guide: float | None = None  # slope, 1/2 or -1/2, of a dashed line beside the last values


class Panel(NamedTuple):
    """Curves on logarithmic axes."""

    title: str
    ylabel: str
    curves: Sequence[Curve]
    reference: tuple[str, float, float, float] | None = None  # of a horizontal line: label, value, edges of its band


def scaling(panels: Sequence[Panel], caption: str = "") -> Figure:
    """Panels side by side: what becomes of a quantity as K or M grows."""
    figure, axes = _axes(1, len(panels), caption)
    for ax, panel in zip(axes, panels, strict=True):
        ax.set(xscale="log", yscale="log")
        if panel.reference:
            label, value, low, high = panel.reference
            ax.axhspan(low, high, color=_FAINT, alpha=0.15, linewidth=0)
            ax.axhline(value, color=_FAINT, linestyle=":", linewidth=1.5, label=label)
        for method, counts, lines, band, _ in panel.curves:
            ax.plot(counts, lines, color=_COLOURS[method], linewidth=1.8 if lines.shape[1] == 1 else 0.8)
            ax.plot([], [], color=_COLOURS[method], linewidth=1.8, label=_LABELS[method])
            if band is not None:
                ax.fill_between(counts, *band, color=_COLOURS[method], alpha=0.2, linewidth=0)
        limits = ax.get_ylim()
        for curve in panel.curves:
            if curve.guide is not None:
                _draw_guide(ax, curve)
        ax.set_ylim(limits)
        _finish(ax, panel.title, "K or M", panel.ylabel)
    return figure


def histograms(panels: Mapping[str, Mapping[str, ArrayLike]], *, method: str, caption: str = "") -> Figure:
    """A panel a component of a gradient: densities of its estimates ``[R]``, the darker the larger K or M.

    Args:
      panels: by title, and by label.
      method: 'iwae' or 'vae'.
    """
    figure, axes = _axes(1, len(panels), caption)
    for ax, (title, samples) in zip(axes, panels.items(), strict=True):
        for (label, values), colour in zip(samples.items(), _shades(method, len(samples)), strict=True):
            ax.hist(values, bins=50, density=True, histtype="stepfilled", color=colour, alpha=0.25)
            ax.hist(values, bins=50, density=True, histtype="step", color=colour, linewidth=1.3, label=label)
        ax.axvline(0, color=_INK, linewidth=1, linestyle=":")
        ax.set_yscale("log")
        _finish(ax, title, "gradient estimate", "density")
    return figure


def training(
    runs: Sequence[tuple[str, str, Mapping[str, ArrayLike]]],
    titles: Mapping[str, str],
    *,
    log: Sequence[str] = (),
    caption: str = "",
) -> Figure:
    """Panels in two rows, one for each quantity of ``titles``: means over repeats, bands of a standard deviation.

    Args:
      runs: of each its label, method ('iwae' or 'vae') and by quantity the values ``[repeats, T]`` in steps 1..T.
      log: quantities with a logarithmic axis; those of others cover what is after a tenth of the steps.
    """
    figure, axes = _axes(2, -(-len(titles) // 2), caption)
    shades = {m: iter(_shades(m, sum(method == m for _, method, _ in runs))) for m in _COLOURS}
    colours = [next(shades[method]) for _, method, _ in runs]
    for ax, (quantity, title) in zip(axes, titles.items(), strict=False):
        late = []
        for (label, _, values), colour in zip(runs, colours, strict=True):
            mean, std = np.mean(values[quantity], axis=0), np.std(values[quantity], axis=0)
            steps = np.arange(1, len(mean) + 1)
            ax.plot(steps, mean, color=colour, linewidth=1.3, label=label)
            ax.fill_between(steps, mean - std, mean + std, color=colour, alpha=0.2, linewidth=0)
            late += [*mean[len(mean) // 10 :]]
        if quantity in log:
            ax.set_yscale("log")
        else:
            room = 0.05 * (max(late) - min(late)) or 1.0
            ax.set_ylim(min(late) - room, max(late) + room)
        _finish(ax, title, "step", "")
    return figure


def _axes(rows: int, columns: int, caption: str) -> tuple[Figure, list[Axes]]:
    figure = Figure(figsize=(4.6 * columns, 3.6 * rows + 0.3), dpi=100, layout="constrained", facecolor="white")
    axes = figure.subplots(rows, columns, squeeze=False)
    figure.supxlabel(textwrap.fill(caption, 80 * columns), fontsize=8, color=_FAINT)
    return figure, list(axes.flat)


def _draw_guide(ax: Axes, curve: Curve) -> None:
    """Above the last values if they are low in the picture, else below."""
    at = np.array([curve.counts[0], curve.counts[-1]])
    end = np.exp(np.mean(np.log(curve.lines[-1])))
    low, high = ax.get_ylim()
    shift = (high / low) ** (0.06 if end < np.sqrt(low * high) else -0.06)
    colour, label = _GUIDES[curve.guide]
    known = label in ax.get_legend_handles_labels()[1]
    values = shift * end * (at / at[-1]) ** curve.guide
    ax.plot(at, values, color=colour, linestyle="--", linewidth=1.5, label=None if known else label)


def _shades(method: str, number: int) -> list[tuple]:
    return [colormaps[_MAPS[method]](shade) for shade in np.linspace(0.4, 1, number)]


def _finish(ax: Axes, title: str, xlabel: str, ylabel: str) -> None:
    ax.set_title(title, fontsize=10, color=_INK)
    ax.set_xlabel(xlabel, fontsize=9, color=_INK)
    ax.set_ylabel(ylabel, fontsize=9, color=_INK)
    ax.grid(color=_GRID, linewidth=0.8)
    ax.set_axisbelow(True)
    ax.spines[["top", "right"]].set_visible(False)
    ax.tick_params(which="both", labelsize=8)
    ax.legend(fontsize=8, frameon=False)
