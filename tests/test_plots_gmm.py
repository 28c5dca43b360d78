import io

import numpy as np
import pytest
from matplotlib.colors import to_hex
from PIL import Image

from objcentric import plots_gmm


def render(figure) -> np.ndarray:
    file = io.BytesIO()
    figure.savefig(file, format="png")
    return np.asarray(Image.open(file).convert("RGB"))


def legend(figure) -> dict[str, str]:
    """Labels, and the colours of their lines."""
    (box,) = figure.legends
    lines = box.get_lines()
    return {text.get_text(): to_hex(line.get_color()) for text, line in zip(box.get_texts(), lines, strict=True)}


def edges(band) -> np.ndarray:
    """The lowest and the highest value of a filled band over its T places ``[2, T]``."""
    vertices = band.get_paths()[0].vertices
    places = np.unique(vertices[:, 0])
    return np.array([[end(vertices[vertices[:, 0] == x, 1]) for x in places] for end in (min, max)])


STEPS = np.array([0, 1000, 2000])
# Of 5 seeds, in any order: the quartiles are 2, 3 and 4 times as large as the first.
CURVE = np.array([1.0, 0.1, 0.01])[:, None] * np.array([5.0, 1.0, 3.0, 2.0, 4.0])


def test_training():
    panels = {
        ("p", "K = 2"): {"WW": CURVE, "VIMCO": 2 * CURVE},
        ("p", "K = 20"): {"WW": 10 * CURVE, "VIMCO": 20 * CURVE},
        ("q", "K = 2"): {"WW": CURVE, "VIMCO": CURVE},
        ("q", "K = 20"): {"WW": 7 * CURVE, "VIMCO": CURVE},
    }
    figure = plots_gmm.training(STEPS, panels, caption="a caption")
    axes = np.reshape(figure.axes, (2, 2))
    assert [[ax.get_title() for ax in row] for row in axes] == [["K = 2", "K = 20"], ["", ""]]
    assert [[ax.get_ylabel() for ax in row] for row in axes] == [["p", ""], ["q", ""]]
    assert [[ax.get_xlabel() for ax in row] for row in axes] == [["", ""], ["step", "step"]]
    assert {ax.get_yscale() for ax in figure.axes} == {"log"}
    for ax, factor in ((axes[0, 0], 1), (axes[0, 1], 10), (axes[1, 1], 7)):
        line, band = ax.lines[0], ax.collections[0]
        np.testing.assert_array_equal(line.get_xdata(), STEPS)
        np.testing.assert_allclose(line.get_ydata(), factor * np.array([3, 0.3, 0.03]))
        np.testing.assert_allclose(edges(band), factor * np.array([[2, 0.2, 0.02], [4, 0.4, 0.04]]))
        assert to_hex(line.get_color()) == to_hex(band.get_facecolor()) == "#c8202c"
    assert [len(ax.lines) for ax in figure.axes] == [2] * 4
    assert axes[0, 0].get_ylim() == axes[0, 1].get_ylim()  # panels of a row can be compared
    assert legend(figure) == {"WW": "#c8202c", "VIMCO": "#1a8a3a"}
    assert figure._supxlabel.get_text() == "a caption"
    assert render(figure).std() > 1
    assert axes[0, 0].xaxis.get_major_formatter()(2000) == "2k"


def test_every_estimator_has_a_colour_of_its_own():
    panels = {("p", "K = 2"): dict.fromkeys(plots_gmm._COLOURS, CURVE) | {"another": CURVE}}
    colours = list(legend(plots_gmm.training(STEPS, panels)).values())
    assert len(set(colours)) == len(colours) == 11


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_seed_that_is_not_finite_leaves_a_gap(value):
    values = CURVE.copy()
    values[1, 2] = value
    figure = plots_gmm.training(STEPS, {("p", "K = 2"): {"WW": values}})
    np.testing.assert_allclose(figure.axes[0].lines[0].get_ydata(), [3, np.nan, 0.03])
    assert render(figure).std() > 1


def test_final():
    seeds = np.arange(1.0, 6)
    lines = {"WW": {2: seeds, 20: seeds / 100}, "VIMCO": {2: seeds / 10}}
    panels = {("p", "far"): lines, ("p", "near"): lines, ("q", "far"): lines, ("q", "near"): lines}
    figure = plots_gmm.final(panels, caption="a caption")
    axes = np.reshape(figure.axes, (2, 2))
    assert [[ax.get_title() for ax in row] for row in axes] == [["far", "near"], ["", ""]]
    assert [[ax.get_xlabel() for ax in row] for row in axes] == [["", ""], ["K", "K"]]
    for ax in figure.axes:
        assert (ax.get_xscale(), ax.get_yscale()) == ("log", "log")
        assert ax.get_xticks().tolist() == [2, 20]
        (line, _, (bars,)), (other, _, _) = ax.containers
        np.testing.assert_allclose(line.get_xydata(), [[2, 3], [20, 0.03]])
        np.testing.assert_allclose(bars.get_segments(), [[[2, 2], [2, 4]], [[20, 0.02], [20, 0.04]]])
        np.testing.assert_allclose(other.get_xydata(), [[2, 0.3]])  # one that has no 20 particles
        assert [to_hex(drawn[0].get_color()) for drawn in ax.containers] == ["#c8202c", "#1a8a3a"]
    assert [label.get_text() for label in axes[1, 0].get_xticklabels()] == ["2", "20"]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["WW", "VIMCO"]
    assert figure._supxlabel.get_text() == "a caption"
    assert render(figure).std() > 1


def squares(ax) -> dict[tuple[float, float], float]:
    """Areas by centres."""
    (collection,) = ax.collections
    corners = [path.vertices[:4] for path in collection.get_paths()]
    return {tuple(np.round(c.mean(0), 6)): np.prod(np.ptp(c, axis=0)) for c in corners}


def test_hinton():
    p = np.array([0.5, 0.25, 0.25, 0.0])
    q = np.array([[1.0, 0.0, 0.0, 0.0], [0.0, 0.09, 0.9, 0.01], [0.0, 0.0, np.nan, 0.0005]])
    start = np.concatenate([p[None], q])
    times = np.stack([start, start[:, ::-1]])
    blocks = {("K = 2", "WW"): times, ("K = 2", "WS"): times, ("K = 20", "WW"): times}
    figure = plots_gmm.hinton(blocks, row_names=("start", "end"), positions=[0, 10, 25], caption="a caption")
    axes = np.reshape(figure.axes, (2, 3))
    assert [ax.get_title(loc="left") for ax in axes[0]] == ["K = 2\nWW", "\nWS", "K = 20\nWW"]
    assert [ax.get_ylabel() for ax in axes[:, 0]] == ["start\nz", "end\nz"] and not axes[0, 1].get_ylabel()
    # Of each cluster z, upwards, p(z) in a column of its own, then q(z | x); areas are probabilities, if they show.
    expected = {(0, 0): 0.5, (0, 1): 0.25, (0, 2): 0.25, (2, 0): 1, (3, 1): 0.09, (3, 2): 0.9, (3, 3): 0.01}
    for ax in axes[0]:
        assert squares(ax) == pytest.approx(expected)
        assert ax.get_aspect() == 1 and ax.get_xlim()[1] > 4.5 and ax.get_ylim()[1] > 3.5
    assert squares(axes[1, 2]) == pytest.approx({(x, 3 - z): area for (x, z), area in expected.items()})
    for ax in axes[1]:
        assert ax.get_xticks().tolist() == [0, 2, 4]
        assert [label.get_text() for label in ax.get_xticklabels()] == ["p", "0", "25"]
    assert not len(axes[0, 0].get_xticks())
    assert figure._supxlabel.get_text() == "a caption"
    assert render(figure).std() > 1
