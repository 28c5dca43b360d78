import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb

from objcentric import plots, plots_capsules


def colours(axes):
    return [line.get_color() for line in axes.lines]


def test_constellations_have_the_colours_of_their_capsules():
    points = np.random.default_rng(0).uniform(-1, 1, (2, 4, 2))
    presence = np.array([[1, 1, 1, 0], [1, 1, 1, 1]])
    true = np.array([[0, 0, 1, -1], [0, 0, 0, 1]])
    assigned = np.array([[2, 2, 0, 1], [1, 1, 0, 0]])  # in the second scene the third point is wrong
    figure = plots_capsules.constellations(points, presence, true, assigned, num_capsules=3)
    figure.canvas.draw()
    above, below = figure.axes[:2], figure.axes[2:]
    assert colours(above[0]) == colours(below[0]) == [plots.slot_colour(i) for i in (0, 0, 1)]
    assert colours(above[1]) == [plots.slot_colour(i) for i in (0, 0, 0, 1)]
    assert colours(below[1]) == [plots.slot_colour(i) for i in (0, 0, 1, 1)]
    assert [line.get_marker() for line in below[1].lines] == ["o", "o", "x", "o"]


def test_more_constellations_than_capsules():
    true, assigned = np.array([[0, 1, 2]]), np.array([[0, 0, 1]])
    plots_capsules.constellations(np.zeros((1, 3, 2)), np.ones((1, 3)), true, assigned, num_capsules=2)


def test_templates_are_as_bright_as_they_can_be():
    figure = plots_capsules.templates(np.stack([np.full((3, 3, 1), 0.2), np.zeros((3, 3, 1))]))
    shown = [axes.images[0].get_array() for axes in figure.axes if axes.images]
    assert shown[0].max() == 1 and shown[1].max() == 0


@pytest.mark.parametrize("channels", [1, 3])
def test_reconstructions(channels):
    rng, shape = np.random.default_rng(0), (6, 7, channels)
    image, parts, objects = rng.random((3, 2, *shape))
    each_part, each_object = rng.random((2, 5, *shape)), rng.random((2, 3, *shape))
    active = np.array([[0.1, 0.9, 0.5], [0.8, 0.2, 0.3]])
    arguments = (image, parts, objects, each_part, each_object, rng.random((2, 5)), active)
    figure = plots_capsules.reconstructions(*arguments, most=2)
    figure.canvas.draw()
    axes = np.array(figure.axes).reshape(6, 2)
    np.testing.assert_allclose(axes[1, 0].images[0].get_array(), plots_capsules.overlay(parts[0], objects[0]))
    assert [axes[row, column].get_title() for row in (4, 5) for column in (0, 1)] == [
        *("1: 0.90", "0: 0.80", "2: 0.50", "2: 0.30")
    ]
    expected = each_object[1, 0] if channels == 3 else each_object[1, 0].repeat(3, -1)
    np.testing.assert_allclose(axes[4, 1].images[0].get_array(), expected)


def strips_of(figure):
    """Labels and grey levels [2 columns, K] of the strips, which are below three rows of images."""
    rows = np.array(figure.axes).reshape(-1, 2)[3:-1]
    return {row[0].texts[0].get_text(): np.stack([axes.images[0].get_array()[0, :, 0] for axes in row]) for row in rows}


def test_strips_of_objects():
    images, each = np.zeros((2, 50, 50, 1)), np.zeros((2, 3, 50, 50, 1))
    prior = np.array([[0.2, 0.9, 0.6], [1.0, 0.0, 1.0]])
    arguments = (images, images, images, each, each, np.ones((2, 3)), prior)
    posterior = np.array([[1.0, 0.0, 3.0], [0.0, 0.0, 0.0]])
    figure = plots_capsules.reconstructions(*arguments, object_posterior=posterior, most=1)
    strips = strips_of(figure)
    assert list(strips) == ["a priori", "a posteriori"]
    np.testing.assert_allclose(strips["a priori"], prior)
    np.testing.assert_allclose(strips["a posteriori"], [[0.25, 0, 0.75], [0, 0, 0]])
    assert list(strips_of(plots_capsules.reconstructions(*arguments, most=1))) == ["a priori"]

    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    pixels = np.asarray(canvas.buffer_rgba())[..., :3]
    centres = {(0, 3): (51, 230, 153), (1, 3): (255, 0, 255), (0, 4): (64, 0, 191)}
    for (column, row), greys in centres.items():
        box = figure.axes[2 * row + column].get_window_extent()
        y, xs = len(pixels) - (box.y0 + box.y1) / 2, box.x0 + box.width * np.array([1, 3, 5]) / 6
        np.testing.assert_allclose(pixels[int(y), xs.astype(int)], np.repeat(np.array(greys)[:, None], 3, 1), atol=1)


def test_agreement_is_yellow():
    red, green = np.zeros((1, 3, 1)), np.zeros((1, 3, 1))
    red[0, :2], green[0, 1:] = 1, 1
    np.testing.assert_array_equal(plots_capsules.overlay(red, green)[0], [[1, 0, 0], [1, 1, 0], [0, 1, 0]])


def test_parts_that_are_not_there_are_not_coloured():
    parts = np.zeros((2, 1, 2, 1))
    parts[0, 0, 0], parts[1, 0, 1] = 1, 1
    shown = plots_capsules.coloured(parts, np.array([True, False]))
    assert shown[0, 0].max() > 0.5 and not shown[0, 1].any()


def test_each_of_many_parts_has_a_colour_of_its_own():
    shown = plots_capsules.coloured(np.eye(24).reshape(24, 4, 6, 1), np.ones(24, bool))
    assert len(np.unique(shown.reshape(24, 3), axis=0)) == 24
    shown = plots_capsules.coloured(np.eye(7).reshape(7, 1, 7, 1), np.ones(7, bool))
    np.testing.assert_array_equal(shown[0], [to_rgb(colour) for colour in plots.SLOT_COLOURS])
