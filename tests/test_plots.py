import io
import os
import subprocess
import sys

import numpy as np
import pytest
from matplotlib.colors import rgb_to_hsv, to_hex, to_rgb
from matplotlib.patches import Rectangle
from PIL import Image

from objcentric import plots

M, N, H, W = 4, 3, 20, 30


def _render(figure) -> np.ndarray:
    """Pixels [h, w, 3] of the PNG that the figure becomes."""
    file = io.BytesIO()
    figure.savefig(file, format="png")
    assert 0 < file.tell() < 300_000
    return np.asarray(Image.open(file).convert("RGB"))


def _colours(pixels) -> set[str]:
    return {"#{:02X}{:02X}{:02X}".format(*colour) for colour in np.unique(pixels.reshape(-1, 3), axis=0)}


def _outlines(axes) -> list[Rectangle]:
    """Boxes drawn in pixels of the image, without frames and blank tiles."""
    return [patch for patch in axes.patches if patch.get_clip_on() and not patch.get_fill()]


def _corners(patch) -> list[float]:
    return [patch.get_y(), patch.get_x(), patch.get_y() + patch.get_height(), patch.get_x() + patch.get_width()]


@pytest.fixture
def arrays():
    return _arrays(channels=1)


def _arrays(channels: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    images = rng.random((M, H, W, channels))
    boxes = np.zeros((M, N, 4), np.float32)
    boxes[..., :2], boxes[..., 2:] = rng.uniform(0, 8, (M, N, 2)), rng.uniform(10, 20, (M, N, 2))
    presence = np.arange(N) < np.array([0, 1, 2, 3])[:, None]
    objects = rng.random((M, N, H, W, channels))
    return {
        "images": images,
        "reconstructions": images * 0.9,
        "boxes": boxes,
        "presence": presence.astype(np.float32),
        "objects": objects,
    }


def _columns(figure) -> np.ndarray:
    """Axes of the reconstructions of M scenes, [M, 2 + N]."""
    return np.array(figure.axes).reshape(2 + N, M).T


def test_reconstructions_draw_the_glimpses_of_present_slots_in_their_colour(arrays):
    figure = plots.reconstructions(**arrays, counts=[0, 1, 1, 3])
    _render(figure)
    labels = [text.get_text() for axes in _columns(figure)[0] for text in axes.texts]
    assert labels[:3] == ["input", "found / true", "reconstruction\nand glimpses"]
    for m, column in enumerate(_columns(figure)):
        drawn = _outlines(column[1])
        assert len(drawn) == m and not any(_outlines(axes) for axes in (column[0], *column[2:]))
        for i, patch in enumerate(drawn):
            np.testing.assert_allclose(_corners(patch), arrays["boxes"][m, i], rtol=1e-6)
            assert to_hex(patch.get_edgecolor()).upper() == plots.SLOT_COLOURS[i]


def test_boxes_are_drawn_on_the_pixels_that_they_bound():
    image = np.zeros((1, 50, 50, 1))
    image[:, 10:20, 30:45] = 1.0
    figure = plots.reconstructions(image, image, [[[10, 30, 20, 45]]], [[1]], image[:, None])
    axes = figure.axes[1]
    left, right, bottom, top = axes.images[0].get_extent()
    assert (left, right, bottom, top) == (0, 50, 50, 0)  # pixel edges, y down, as boxes
    assert axes.get_xlim() == (0, 50) and axes.get_ylim() == (50, 0)
    pixels = _render(figure)
    ends = axes.transData.transform([(30, 10), (45, 20)])
    (x0, y0), (x1, y1) = np.round([(x, len(pixels) - y) for x, y in ends]).astype(int)
    assert (x1 - x0, y1 - y0) == (30, 20)  # enlarged by 2, exactly
    np.testing.assert_array_equal(pixels[y0 + 2 : y1 - 2, x0 + 2 : x1 - 2], 255)
    np.testing.assert_array_equal(pixels[y0 - 6 : y0 - 2, x0:x1], 0)
    middle = pixels[y0 - 1 : y0 + 1, (x0 + x1) // 2].astype(int)
    assert np.all(middle[:, 0] - middle[:, 2] > 80)  # orange, the first slot


@pytest.mark.parametrize("channels", [1, 3])
def test_each_slot_keeps_its_image_or_is_blank(channels):
    arrays = _arrays(channels)
    figure = plots.reconstructions(**arrays)
    for m, column in enumerate(_columns(figure)):
        for name, axes in zip(("images", "reconstructions"), column[:2], strict=True):
            expected = np.broadcast_to(arrays[name][m], (H, W, 3))
            np.testing.assert_array_equal(axes.images[0].get_array(), expected)
        for i, axes in enumerate(column[2:]):
            (patch,) = axes.patches
            if i < m:
                expected = np.broadcast_to(arrays["objects"][m, i], (H, W, 3))
                np.testing.assert_array_equal(axes.images[0].get_array(), expected)
                assert to_hex(patch.get_edgecolor()).upper() == plots.SLOT_COLOURS[i] and not patch.get_fill()
            else:
                assert not axes.images and to_hex(patch.get_facecolor()).upper() == plots.ABSENT_COLOUR


def test_absent_slots_show_no_colour_of_theirs(arrays):
    pixels = _colours(_render(plots.reconstructions(**arrays | {"presence": np.zeros((M, N))})))
    assert plots.ABSENT_COLOUR in pixels and not pixels & set(plots.SLOT_COLOURS[:N])
    pixels = _colours(_render(plots.reconstructions(**arrays | {"presence": np.ones((M, N))})))
    assert plots.ABSENT_COLOUR not in pixels and pixels >= set(plots.SLOT_COLOURS[:N])


def test_wrong_counts_are_red(arrays):
    titles = [axes.title for axes in _columns(plots.reconstructions(**arrays, counts=[0, 1, 1, 3]))[:, 0]]
    assert [title.get_text() for title in titles] == ["0 / 0", "1 / 1", "2 / 1", "3 / 3"]
    assert [title.get_color() == plots.WRONG_COLOUR for title in titles] == [False, False, True, False]
    titles = [axes.title for axes in _columns(plots.reconstructions(**arrays))[:, 0]]
    assert [title.get_text() for title in titles] == ["0", "1", "2", "3"]
    assert plots.WRONG_COLOUR not in [title.get_color() for title in titles]


def test_many_scenes_go_to_a_second_block(arrays):
    many = {name: np.concatenate([array] * 3) for name, array in arrays.items()}  # 12 scenes in rows of 10
    figure = plots.reconstructions(**many)
    assert len(figure.axes) == 2 * (2 + N) * 10
    assert sum(len(_outlines(axes)) for axes in figure.axes) == many["presence"].sum()
    assert _render(figure).shape[1] < 1300


@pytest.mark.parametrize(
    "name, change",
    [
        ("reconstructions", lambda a: a[:, :-1]),
        ("boxes", lambda a: a[:, :-1]),
        ("boxes", lambda a: a[..., :3]),
        ("presence", lambda a: a[:-1]),
        ("objects", lambda a: a[:, :, :-1]),
        ("objects", lambda a: a[0]),
    ],
)
def test_reconstructions_refuse_shapes_that_disagree(arrays, name, change):
    with pytest.raises(AssertionError, match="shape|rank"):
        plots.reconstructions(**arrays | {name: change(arrays[name])})


def test_other_pictures_refuse_shapes_that_disagree(arrays):
    with pytest.raises(AssertionError, match="shape"):
        plots.reconstructions(**arrays, counts=[1, 2])
    with pytest.raises(AssertionError, match="rank"):
        plots.samples(arrays["images"][0])
    with pytest.raises(AssertionError, match="rank"):
        plots.interpolation(arrays["images"])
    with pytest.raises(AssertionError, match="shape"):
        plots.confusion(np.zeros((2, 3)))
    with pytest.raises(ValueError, match="1 or 3 channels, not 2"):
        plots.samples(np.zeros((4, 8, 8, 2)))
    with pytest.raises(ValueError, match="no images"):
        plots.samples(np.zeros((0, 8, 8, 1)))


def test_values_outside_the_range_are_clipped_and_bytes_are_scaled():
    image = np.array([-3.0, 0.5, 7.0, np.nan]).reshape(1, 2, 2, 1)
    (axes,) = plots.samples(image).axes
    np.testing.assert_array_equal(axes.images[0].get_array()[..., 0], [[0, 0.5], [1, 0]])
    (axes,) = plots.samples(np.array([0, 51, 102, 255], np.uint8).reshape(1, 2, 2, 1)).axes
    np.testing.assert_allclose(axes.images[0].get_array()[..., 0], [[0, 0.2], [0.4, 1]])


@pytest.mark.parametrize("count", [1, 7, 8, 32])
def test_samples_are_a_grid_of_all_of_them(count):
    images = np.clip(np.random.default_rng(0).normal(0, 0.3, (count, 50, 50, 1)), 0, 1)
    figure = plots.samples(images, "samples from the prior")
    pixels = _render(figure)  # also with noise below 300 kB
    assert sum(bool(axes.images) for axes in figure.axes) == count
    assert figure.texts[0].get_text() == "samples from the prior"
    assert len(pixels) < 900 and pixels.shape[1] < 1300


def test_images_larger_than_a_tile_are_shrunk():
    assert _render(plots.samples(np.zeros((1, 800, 400, 3)))).shape[0] < 130


def test_up_to_seven_slots_have_the_palette():
    assert [plots.slot_colour(i) for i in range(8)] == [*plots.SLOT_COLOURS, plots.SLOT_COLOURS[0]]
    assert [plots.slot_colour(i, 7) for i in range(7)] == list(plots.SLOT_COLOURS)
    assert [plots.slot_colour(i, 2) for i in range(2)] == list(plots.SLOT_COLOURS[:2])


@pytest.mark.parametrize("count", [8, 24, 64])
def test_each_of_more_slots_has_a_hue_of_its_own(count):
    colours = [plots.slot_colour(i, count) for i in range(count)]
    assert len(set(colours)) == count and plots.slot_colour(count, count) == colours[0]
    hues = rgb_to_hsv([to_rgb(colour) for colour in colours])[:, 0]
    np.testing.assert_allclose(hues, np.arange(count) / count, atol=2e-3)


def test_strips_are_low_rows_without_titles():
    figure, axes = plots.tiles(4, 1, (50, 50), title_every=1, strips=(1, 2))
    height = figure.get_size_inches()[1] * figure.dpi
    sides = [(each.get_window_extent().y0, each.get_window_extent().y1) for each in axes[:, 0]]
    edges = np.array([(height - y1, height - y0) for y0, y1 in sides])
    np.testing.assert_allclose(edges, [[28, 128], [134, 148], [154, 168], [198, 298]], atol=1e-6)
    assert height == pytest.approx(308)


def test_interpolation_puts_steps_from_left_to_right():
    images = np.linspace(0, 1, 10).reshape(2, 5, 1, 1, 1) * np.ones((1, 1, 8, 8, 1))
    figure = plots.interpolation(images)
    _render(figure)
    shown = np.array([axes.images[0].get_array()[0, 0, 0] for axes in figure.axes]).reshape(2, 5)
    np.testing.assert_allclose(shown, images[..., 0, 0, 0])
    places = np.array([axes.get_position().p0 for axes in figure.axes]).reshape(2, 5, 2)
    assert np.all(np.diff(places[..., 0], axis=1) > 0) and np.all(np.diff(places[..., 1], axis=0) < 0)
    titles = [axes.get_title() for axes in figure.axes[:5]]
    assert titles == ["from", "0.25", "0.50", "0.75", "to"]
    _render(plots.interpolation(images[:, :1]))


def _lines(axes) -> list[list[float]]:
    return [line.get_ydata().tolist() for line in axes.lines]


def test_learning_curve_of_one_seed_skips_what_is_missing():
    rows = [{"step": 100, "loss": 3.0}, {"step": 200, "loss": 2.0, "count_accuracy": 0.5}, {"epoch": 1, "loss": 9.0}]
    figure = plots.learning_curve(rows, ["count_accuracy", "never", "loss"])
    _render(figure)
    assert [axes.get_title("left") for axes in figure.axes] == ["count_accuracy", "loss"]
    assert [_lines(axes) for axes in figure.axes] == [[[0.5]], [[3.0, 2.0]]]
    assert figure.axes[1].lines[0].get_xdata().tolist() == [100, 200]
    assert figure.axes[1].get_title("right") == "2"
    assert _lines(plots.learning_curve(rows, ["loss"], x="epoch").axes[0]) == [[9.0]]


def test_learning_curve_of_several_seeds_shows_each_and_their_mean():
    rows = [{"step": 1, "a": [1.0, 3.0]}, {"step": 2, "a": [2.0, 6.0]}]
    (axes,) = plots.learning_curve(rows, ["a"]).axes
    assert _lines(axes) == [[1.0, 2.0], [3.0, 6.0], [2.0, 4.0]]
    widths = [line.get_linewidth() for line in axes.lines]
    assert widths[0] == widths[1] < widths[2]
    assert axes.get_title("right") == "4 ± 2"


def test_learning_curve_tolerates_nan():
    rows = [
        {"step": 1, "a": [1.0, float("nan")], "b": float("nan")},
        {"step": 2, "a": [None, float("inf")], "b": None},
        {"step": 3, "a": [5.0, 7.0], "b": float("-inf")},
    ]
    figure = plots.learning_curve(rows, ["a", "b"])
    _render(figure)
    nan = float("nan")
    np.testing.assert_array_equal(_lines(figure.axes[0]), [[1, nan, 5], [nan, nan, 7], [1, nan, 6]])
    assert figure.axes[1].texts[0].get_text() == "no finite value"


def test_learning_curve_keeps_the_later_of_two_rows_and_sorts():
    rows = [{"step": 2, "a": 9.0}, {"step": 1, "a": 1.0}, {"step": 2, "a": 4.0}]
    assert _lines(plots.learning_curve(rows, ["a"]).axes[0]) == [[1.0, 4.0]]


def test_learning_curve_without_anything_says_so():
    figure = plots.learning_curve([], ["loss"])
    _render(figure)
    assert not figure.axes and "nothing to plot" in figure.texts[0].get_text()


def test_learning_curve_refuses_what_is_no_curve():
    with pytest.raises(ValueError, match="'matrix' at step 7 has shape"):
        plots.learning_curve([{"step": 7, "matrix": [[1, 2], [3, 4]]}], ["matrix"])


@pytest.mark.parametrize("count", range(1, 10))
def test_learning_curve_has_a_panel_for_each_name(count):
    names = [f"figure_{i}" for i in range(count)]
    figure = plots.learning_curve([{"step": 1} | dict.fromkeys(names, 0.0)], names)
    assert len(figure.axes) == count


def test_confusion_shows_each_number_with_true_counts_as_rows():
    matrix = np.array([[90, 10, 0], [0, 40, 10], [0, 0, 0]])
    figure = plots.confusion(matrix)
    _render(figure)
    (axes,) = figure.axes
    texts = {text.get_position(): text.get_text() for text in axes.texts}
    assert texts[(1, 0)] == "10" and texts[(2, 1)] == "10" and texts[(0, 1)] == "·" and texts[(0, 0)] == "90"
    np.testing.assert_allclose(axes.images[0].get_array(), [[0.9, 0.1, 0], [0, 0.8, 0.2], [0, 0, 0]])
    assert axes.get_title() == "86.7% of 150 right"
    assert plots.confusion(np.zeros((2, 2), int)).axes[0].get_title() == "no scenes"


def test_pyplot_is_never_imported():
    code = "import sys; from objcentric import plots; plots.confusion([[1]]); print('matplotlib.pyplot' in sys.modules)"
    env = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env)
    assert done.stdout == "False\n", done.stderr
