import numpy as np
import pytest

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
    axes = np.array(figure.axes).reshape(5, 2)
    np.testing.assert_allclose(axes[1, 0].images[0].get_array(), plots_capsules.overlay(parts[0], objects[0]))
    assert [axes[row, column].get_title() for row in (3, 4) for column in (0, 1)] == [
        *("1: 0.90", "0: 0.80", "2: 0.50", "2: 0.30")
    ]
    expected = each_object[1, 0] if channels == 3 else each_object[1, 0].repeat(3, -1)
    np.testing.assert_allclose(axes[3, 1].images[0].get_array(), expected)


def test_agreement_is_yellow():
    red, green = np.zeros((1, 3, 1)), np.zeros((1, 3, 1))
    red[0, :2], green[0, 1:] = 1, 1
    np.testing.assert_array_equal(plots_capsules.overlay(red, green)[0], [[1, 0, 0], [1, 1, 0], [0, 1, 0]])


def test_parts_that_are_not_there_are_not_coloured():
    parts = np.zeros((2, 1, 2, 1))
    parts[0, 0, 0], parts[1, 0, 1] = 1, 1
    shown = plots_capsules.coloured(parts, np.array([True, False]))
    assert shown[0, 0].max() > 0.5 and not shown[0, 1].any()
