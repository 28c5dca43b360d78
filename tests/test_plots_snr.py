import io

import numpy as np
import pytest
from matplotlib.colors import to_hex
from PIL import Image

from objcentric import plots_snr


def render(figure) -> np.ndarray:
    file = io.BytesIO()
    figure.savefig(file, format="png")
    return np.asarray(Image.open(file).convert("RGB"))


def curve(method, slope, **options):
    counts = (1, 10, 100)
    lines = np.array([[1.0, 2.0]]) * np.array(counts)[:, None] ** slope
    return plots_snr.Curve(method, counts, lines, **options)


def test_scaling():
    band = np.array([[0.5, 5.0, 50.0], [2.0, 20.0, 200.0]])
    curves = [curve("iwae", -0.5, guide=-0.5), curve("vae", 0.5, guide=0.5, band=band)]
    reference = ("random", 0.3, 0.2, 0.4)
    panels = [plots_snr.Panel("left", "y", curves, reference), plots_snr.Panel("right", "y", curves[:1])]
    figure = plots_snr.scaling(panels, "a caption")
    left, right = figure.axes
    for ax, title in ((left, "left"), (right, "right")):
        assert (ax.get_xscale(), ax.get_yscale(), ax.get_title(), ax.get_ylabel()) == ("log", "log", title, "y")
    solid = [line for line in left.lines if line.get_linestyle() == "-" and len(line.get_xdata())]
    assert [to_hex(line.get_color()) for line in solid] == ["#1f5fbf"] * 2 + ["#c8202c"] * 2  # a line each component
    dashed = [line for line in left.lines if line.get_linestyle() == "--"]
    slopes = [np.diff(np.log(line.get_ydata()))[0] / np.diff(np.log(line.get_xdata()))[0] for line in dashed]
    np.testing.assert_allclose(slopes, [-0.5, 0.5])
    labels = left.get_legend_handles_labels()[1]
    assert labels[0] == "random" and labels[-2:] == ["slope \u22121/2", "slope 1/2"]
    assert len(left.collections) == 1 and not right.collections
    assert left.get_ylim()[0] < 0.2 and left.get_ylim()[1] > 200
    assert figure._supxlabel.get_text() == "a caption"
    assert render(figure).std() > 1


def test_histograms_are_densities():
    rng = np.random.default_rng(0)
    samples = {f"K = {k}": rng.normal(0, 1 / k, 2000) for k in (1, 10)}
    figure = plots_snr.histograms({"b": samples, "mu": samples}, method="iwae")
    ax = figure.axes[0]
    assert ax.get_legend_handles_labels()[1] == ["K = 1", "K = 10"]
    tops = [patch.get_xy()[:, 1].max() for patch in ax.patches]
    np.testing.assert_allclose([tops[0], tops[2]], [0.4, 4], rtol=0.25)
    assert render(figure).std() > 1


@pytest.mark.parametrize("steps", [1, 40])
def test_training(steps):
    fall = np.exp(-np.arange(steps) / 10)[None] * np.array([[1.0], [3.0]])
    runs = [
        ("K = 1", "iwae", {"bound": -1000 * fall, "mu": fall}),
        ("M = 10", "vae", {"bound": -fall, "mu": fall / 2}),
    ]
    figure = plots_snr.training(runs, {"bound": "the bound", "mu": "distance"}, log=("mu",), caption="c")
    bound, distance = figure.axes[:2]
    assert (bound.get_yscale(), distance.get_yscale()) == ("linear", "log")
    line = distance.lines[0]
    np.testing.assert_array_equal(line.get_xdata(), np.arange(1, steps + 1))
    np.testing.assert_allclose(line.get_ydata(), 2 * np.exp(-np.arange(steps) / 10))
    assert bound.get_ylim()[0] > -2000 or steps == 1  # the steep start does not hide the rest
    assert render(figure).std() > 1
