import io

import numpy as np
import pytest
from matplotlib.colors import to_hex
from PIL import Image

from objcentric import plots_vae


def render(figure) -> np.ndarray:
    file = io.BytesIO()
    figure.savefig(file, format="png")
    return np.asarray(Image.open(file).convert("RGB"))


def edges(band) -> np.ndarray:
    """The lowest and the highest value of a filled band over its T places ``[2, T]``."""
    vertices = band.get_paths()[0].vertices
    places = np.unique(vertices[:, 0])
    return np.array([[end(vertices[vertices[:, 0] == x, 1]) for x in places] for end in (min, max)])


STEPS = np.array([1000, 2000, 3000])
SPREAD = np.array([-1.0, 1.0, 1.0, -1.0])  # of 4 repeats: standard deviation 1


def lines(*means, std=1.0):
    return STEPS, np.array(means)[:, None] + std * SPREAD


def test_training():
    panels = {
        "IWAE-64": {"IWAE": lines(-500.0, -100.0, -90.0), "PIWAE (8, 8)": lines(-400.0, -95.0, -85.0, std=2.0)},
        "log p": {"IWAE": lines(-300.0, -91.0, -89.0), "PIWAE (8, 8)": lines(-310.0, -90.0, -90.0)},
    }
    figure = plots_vae.training(panels, caption="a caption")
    for ax, (title, drawn) in zip(figure.axes, panels.items(), strict=True):
        assert (ax.get_title(), ax.get_xlabel(), ax.get_yscale()) == (title, "step", "linear")
        assert [line.get_label() for line in ax.lines] == list(drawn)
        assert [to_hex(line.get_color()) for line in ax.lines] == ["#1f5fbf", "#e08a00"]
        for line, (_, values) in zip(ax.lines, drawn.values(), strict=True):
            np.testing.assert_array_equal(line.get_xdata(), STEPS)
            np.testing.assert_allclose(line.get_ydata(), values.mean(1))
    band = edges(figure.axes[0].collections[1])
    np.testing.assert_allclose(band, [[-402, -97, -87], [-398, -93, -83]])
    low, high = figure.axes[0].get_ylim()
    assert -101 < low < -100 and -85 < high < -84  # the steep start does not hide the rest
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["IWAE", "PIWAE (8, 8)"]
    assert figure._supxlabel.get_text() == "a caption"
    assert figure.axes[0].xaxis.get_major_formatter()(3000) == "3k"
    assert render(figure).std() > 1


def test_training_with_a_logarithmic_axis():
    """A band that reaches below 0 stops at a third of the mean."""
    figure = plots_vae.training({"layer 1": {"VAE": lines(1.0, 4.0, 0.5)}}, log=True)
    (ax,) = figure.axes
    assert ax.get_yscale() == "log" and to_hex(ax.lines[0].get_color()) == "#c8202c"
    np.testing.assert_allclose(edges(ax.collections[0]), [[1 / 3, 3, 1 / 6], [2, 5, 1.5]])
    assert ax.get_ylim()[1] > 4 and 0.01 < ax.get_ylim()[0] < 1 / 6
    assert render(figure).std() > 1


@pytest.mark.parametrize("values", [np.full((3, 4), -90.0), np.full((3, 4), np.nan), lines(-90, np.nan, -80)[1]])
def test_values_that_leave_an_axis_no_range(values):
    """One number at all steps, none at all, or some that are not finite."""
    figure = plots_vae.training({"IWAE-64": {"IWAE": (STEPS, values)}})
    low, high = figure.axes[0].get_ylim()
    assert np.isfinite([low, high]).all() and low < high
    if np.isfinite(values).any():
        assert low < values[-1].mean() < high
    assert render(figure).std() > 1


def test_nothing_to_draw():
    """Panels of no estimator at all have no range either."""
    assert render(plots_vae.training({"IWAE-64": {}, "log p": {}})).std() > 1


def test_relative():
    settings = {"MIWAE": {"M = 1": 0 * SPREAD, "4": 0.5 + SPREAD}, "CIWAE": {"β = 0": 0 * SPREAD}}
    worse = {family: {name: -v for name, v in row.items()} for family, row in settings.items()}
    figure = plots_vae.relative({"IWAE-64": settings, "log p": worse}, baseline="IWAE", caption="a caption")
    axes = np.reshape(figure.axes, (2, 2))
    assert [[ax.get_title() for ax in row] for row in axes] == [["MIWAE \u2212 IWAE", "CIWAE \u2212 IWAE"], ["", ""]]
    assert [[ax.get_ylabel() for ax in row] for row in axes] == [["IWAE-64", ""], ["log p", ""]]
    for ax, sign in ((axes[0, 0], 1), (axes[1, 0], -1)):
        ((dots, _, (bars,)),) = ax.containers
        np.testing.assert_allclose(dots.get_xydata(), [[0, 0], [1, 0.5 * sign]])
        np.testing.assert_allclose(bars.get_segments()[1], [[1, 0.5 * sign - 1], [1, 0.5 * sign + 1]])
        assert [label.get_text() for label in ax.get_xticklabels()] == ["M = 1", "4"]
        assert to_hex(dots.get_color()) == "#1a8a3a"
    baselines = [line for ax in figure.axes for line in ax.lines if line.get_linestyle() == ":"]
    assert [line.get_ydata() for line in baselines] == [[0, 0]] * 4
    assert len(axes[0, 1].containers[0][0].get_xdata()) == 1
    assert figure._supxlabel.get_text() == "a caption"
    assert render(figure).std() > 1


def test_violins():
    bins = np.geomspace(1 / 16, 1, 5)
    histograms = {"IWAE": [8, 4, 0, 0], "MIWAE (8, 8)": [0, 1, 1, 2], "VAE": [0, 0, 0, 0]}
    figure = plots_vae.violins(histograms, bins, "a title")
    (ax,) = figure.axes
    assert (ax.get_yscale(), ax.get_title()) == ("log", "a title")
    assert ax.get_ylim() == (bins[0], bins[-1])
    assert [label.get_text() for label in ax.get_xticklabels()] == ["IWAE", "MIWAE\n(8, 8)", "VAE"]
    # Each is as wide as its highest bin allows, on both sides of its place.
    halves = [[0.45, 0.225, 0, 0], [0, 0.225, 0.225, 0.45], [0, 0, 0, 0]]
    colours = ("#1f5fbf", "#1a8a3a", "#c8202c")
    for place, (violin, half, colour) in enumerate(zip(ax.patches, halves, colours, strict=True)):
        data = violin.get_data()
        np.testing.assert_allclose(data.values, place + np.array(half))
        np.testing.assert_allclose(data.baseline, place - np.array(half))
        np.testing.assert_allclose(data.edges, bins)
        assert violin.orientation == "horizontal" and to_hex(violin.get_facecolor()) == colour
    medians = [line.get_segments()[0] for line in ax.collections]
    centres = np.sqrt(bins[1:] * bins[:-1])
    np.testing.assert_allclose(medians[0], [[-0.3, centres[0]], [0.3, centres[0]]])
    np.testing.assert_allclose(medians[1], [[0.7, centres[2]], [1.3, centres[2]]])
    assert render(figure).std() > 1
