"""Pictures of trackers: which boxes are drawn where and how, what is below the frames, and what curves show."""

import io

import numpy as np
import pytest
from matplotlib.colors import to_hex, to_rgb
from matplotlib.patches import Ellipse, Rectangle
from PIL import Image

from objcentric import plots, plots_tracking
from objcentric.metrics import following
from objcentric.plots_tracking import Tracker

T, N, H, W = 3, 2, 24, 32
FACTOR, GAP = 12, 6  # of an animation of such frames: 384 pixels wide
FIRST, SECOND = (plots.slot_colour(i).lower() for i in range(N))
WHITE, BLACK = "#ffffff", "#000000"


def make_scene() -> dict[str, np.ndarray]:
    """Grey frames and boxes apart from each other; the second object is missing in the first frame."""
    true = np.tile(np.array([[2.0, 3.0, 10.0, 9.0], [8.0, 18.0, 20.0, 28.0]]), (T, 1, 1))
    presence = np.ones((T, N))
    presence[0, 1] = 0.4
    image = np.random.default_rng(0).uniform(0.3, 0.5, (T, H, W, 1))
    return {"image": image, "true": true, "pred": true + 2, "presence": presence}


def make_looks() -> dict[str, np.ndarray]:
    """Each glimpse is of one brightness, and a mask is bright in its left half."""
    scene = make_scene()
    glimpses = np.broadcast_to(np.array([0.4, 0.8])[:, None, None, None], (T, N, 7, 7, 1))
    masks = np.broadcast_to(np.array([1.0, 0.0]), (T, N, 2, 2))
    return {"attention": scene["true"] + np.array([-2, -2, 2, 2]), "glimpses": glimpses, "masks": masks}


def corners(box: np.ndarray) -> tuple:
    return tuple(float(side) for side in box)


def drawn(axes) -> list[tuple]:
    """Colour, whether it is of one piece, and corners of the boxes in a frame."""
    boxes = []
    for patch in axes.patches:
        assert type(patch) is Rectangle and not patch.get_fill()
        x, y = patch.get_xy()
        box = (y, x, y + patch.get_height(), x + patch.get_width())
        boxes.append((to_hex(patch.get_edgecolor()), patch.get_linestyle() == "solid", corners(box)))
    return boxes


def expected(scene: dict, t: int, attention: np.ndarray | None = None) -> list[tuple]:
    """From below to above: the true box, where the tracker looks, what it says, the true box again."""
    boxes = []
    for i in np.flatnonzero(scene["presence"][t] > 0.5):
        colour = (FIRST, SECOND)[i]
        boxes.append((BLACK, True, corners(scene["true"][t, i])))
        if attention is not None:
            boxes.append((colour, False, corners(attention[t, i])))
        boxes.append((colour, True, corners(scene["pred"][t, i])))
        boxes.append((WHITE, False, corners(scene["true"][t, i])))
    return boxes


def render(figure) -> np.ndarray:
    file = io.BytesIO()
    figure.savefig(file, format="png")
    return np.asarray(Image.open(file).convert("RGB"))


def test_tracks():
    scene = make_scene()
    figure = plots_tracking.tracks(**scene, title="Two squares")
    assert [axes.get_title() for axes in figure.axes] == ["t = 1", "t = 2", "t = 3"]
    for t, axes in enumerate(figure.axes):
        np.testing.assert_allclose(axes.images[0].get_array(), np.repeat(scene["image"][t], 3, -1))
        assert drawn(axes) == expected(scene, t)
    assert [text.get_text() for text in figure.texts] == ["Two squares"]
    shape = render(figure).shape
    assert shape[1] == 10 + 3 * 9 * W + 2 * 6 + 10 and shape[0] == 10 + 26 + 18 + 9 * H + 10  # nine pixels for one


def test_what_a_tracker_looks_at():
    """Below the frames, of one object: its glimpse, its mask, and one times the other; blank where it is not."""
    scene, looks = make_scene(), make_looks()
    figure = plots_tracking.tracks(**scene, **looks, frame_names=["a", "b", "c"], of=1)
    axes = np.reshape(figure.axes, (4, T))
    assert [tile.get_title() for tile in axes[0]] == ["a", "b", "c"]
    assert [tile.texts[0].get_text() for tile in axes[1:, 0]] == ["glimpse", "mask", "glimpse\n× mask"]
    for t in range(T):
        assert drawn(axes[0, t]) == expected(scene, t, looks["attention"])
    for tile in axes[1:, 0]:
        assert not tile.images and to_hex(tile.patches[0].get_facecolor()) == plots.ABSENT_COLOUR.lower()
    for t in (1, 2):
        glimpse, mask, both = (tile.images[0].get_array() for tile in axes[1:, t])
        assert glimpse.shape == both.shape == (7, 7, 3) and mask.shape == (2, 2, 3)
        np.testing.assert_allclose(glimpse, 0.8)
        assert (mask[:, 0] > mask[:, 1] + 0.5).any(-1).all()
        np.testing.assert_allclose(both[:, 0], 0.8)
        np.testing.assert_allclose(both[:, -1], 0)
        assert all(to_hex(tile.patches[0].get_edgecolor()) == SECOND for tile in axes[1:, t])
        boxes = [tile.get_position().bounds[2:] for tile in axes[1:, t]]
        np.testing.assert_allclose(boxes, 3 * [boxes[0]])  # masks are shown as large as glimpses


@pytest.mark.parametrize("given, rows", [({"glimpses"}, 2), ({"masks"}, 2), ({"attention"}, 1)])
def test_some_of_what_a_tracker_looks_at(given, rows):
    looks = {name: value for name, value in make_looks().items() if name in given}
    assert len(plots_tracking.tracks(**make_scene(), **looks).axes) == rows * T


@pytest.mark.parametrize("frames, shown", [(8, range(8)), (9, range(0, 9, 2)), (30, range(0, 30, 4))])
def test_of_long_videos_every_few_frames(frames, shown):
    scene = {name: array[np.zeros(frames, int)] for name, array in make_scene().items()}
    scene["image"] = scene["image"] * np.linspace(0, 1, frames)[:, None, None, None]
    figure = plots_tracking.tracks(**scene)
    assert [axes.get_title() for axes in figure.axes] == [f"t = {t + 1}" for t in shown]
    for axes, t in zip(figure.axes, shown, strict=True):
        np.testing.assert_allclose(axes.images[0].get_array()[..., :1], scene["image"][t])


def test_boxes_that_are_not_finite_are_not_drawn():
    scene = make_scene()
    scene["pred"][1, 0, 2] = np.nan
    scene["true"][1, 1] = np.inf
    figure = plots_tracking.tracks(**scene, weights=np.ones((T, N, N)), of=1)
    assert [box[0] for box in drawn(figure.axes[1])] == [BLACK, WHITE, SECOND]
    assert len(figure.axes[1].texts) == 1  # and no number for one
    film = plots_tracking.animation(**scene)
    assert colours(film[1]) == {BLACK, WHITE, SECOND}


def test_large_frames_are_shrunk():
    scene = make_scene()
    scene["image"] = np.zeros((T, 600, 800, 3), np.uint8)
    assert render(plots_tracking.tracks(**scene)).shape == (10 + 18 + 225 + 10, 10 + 3 * 300 + 2 * 6 + 10, 3)
    assert plots_tracking.animation(**scene).shape == (T, 288, 384, 3)


def test_comparison():
    """A row a tracker, each with what it saw and said; weights of one object at the predictions of all."""
    scene, looks = make_scene(), make_looks()
    pred = scene.pop("pred")
    black = np.zeros((T, H, W, 1))
    weights = np.arange(T * N * N).reshape(T, N, N) / 20
    trackers = [
        Tracker("HART", pred + 1, notes=["given", "IoU .5", "IoU .4"], image=black),
        Tracker("MOHART", pred, looks["attention"], weights),
    ]
    figure = plots_tracking.comparison(**scene, trackers=trackers, frame_names=["a", "b", "c"], of=1)
    axes = np.reshape(figure.axes, (2, T))
    assert [[tile.get_title() for tile in row] for row in axes] == [["a", "b", "c"], ["", "", ""]]
    assert [row[0].texts[0].get_text() for row in axes] == ["HART", "MOHART"]
    assert [tile.texts[-1].get_text() for tile in axes[0]] == ["given", "IoU .5", "IoU .4"]
    for t in range(T):
        assert drawn(axes[0, t]) == expected(scene | {"pred": pred + 1}, t)
        assert drawn(axes[1, t]) == expected(scene | {"pred": pred}, t, looks["attention"])
        np.testing.assert_array_equal(axes[0, t].images[0].get_array(), 0)
        np.testing.assert_allclose(axes[1, t].images[0].get_array()[..., :1], scene["image"][t])
        numbers = [text for text in axes[1, t].texts if text.get_text() != "MOHART"]
        if not t:
            assert not numbers  # of an object that is not there
            continue
        assert [text.get_text() for text in numbers] == [f"{w:.2f}" for w in weights[t, 1]]
        middles = [(box[1] + box[3], box[0] + box[2]) for box in pred[t]]
        assert [tuple(2 * side for side in text.get_position()) for text in numbers] == middles
        grounds = [to_hex(text.get_bbox_patch().get_facecolor()) for text in numbers]
        assert grounds == ["#ffffff", "#ffe14d"]


def test_true_circles():
    """Faded discs in true boxes, below what is predicted."""
    scene = make_scene()
    pred = scene.pop("pred")
    figure = plots_tracking.comparison(**scene, trackers=[Tracker("", pred)], discs=True)
    for t, axes in enumerate(figure.axes):
        assert [type(patch) for patch in axes.patches] == [Ellipse, Rectangle] * int(1 + (t > 0))
        for i, disc in enumerate(axes.patches[::2]):
            y0, x0, y1, x1 = scene["true"][t, i]
            assert disc.get_center() == pytest.approx(((x0 + x1) / 2, (y0 + y1) / 2))
            assert (disc.get_width(), disc.get_height()) == (x1 - x0, y1 - y0)
            assert 0 < disc.get_alpha() < 1
        assert all(to_hex(p.get_edgecolor()) == c for p, c in zip(axes.patches[1::2], (FIRST, SECOND), strict=False))


def colours(pixels: np.ndarray) -> set[str]:
    """Of boxes in a grey picture, and black and white."""
    known = {to_hex(np.array(colour) / 255) for colour in np.unique(pixels.reshape(-1, 3), axis=0)}
    return known & {FIRST, SECOND, WHITE, BLACK}


def test_animation():
    scene = make_scene()
    film = plots_tracking.animation(**scene)
    assert film.dtype == np.uint8 and film.shape == (T, FACTOR * H, FACTOR * W, 3)
    plain = np.uint8(np.round(255 * scene["image"])).repeat(3, -1).repeat(FACTOR, 1).repeat(FACTOR, 2)
    for t in range(T):
        changed = (film[t] != plain[t]).any(-1)
        inside = np.zeros_like(changed)
        for i in np.flatnonzero(scene["presence"][t] > 0.5):
            for box, colour in ((scene["pred"][t, i], (FIRST, SECOND)[i]), (scene["true"][t, i], WHITE)):
                y0, x0, y1, x1 = (FACTOR * int(side) for side in box)
                inside[y0:y1, x0:x1] = True
                assert to_hex(film[t, y0, x0] / 255) == colour
                for side in (film[t, y0, x0:x1], film[t, y1 - 1, x0:x1], film[t, y0:y1, x0], film[t, y0:y1, x1 - 1]):
                    share = np.mean([to_hex(pixel / 255) == colour for pixel in side])
                    assert (0.3 < share < 0.6) if colour == WHITE else share > 0.9
                assert not changed[y0 + 3 : y0 + 9, x0 + 3 : x0 + 9].any()
        assert changed.any() and not (changed & ~inside).any()
    assert colours(film[0]) == {FIRST, WHITE, BLACK} and colours(film[1]) == {FIRST, SECOND, WHITE, BLACK}


def test_black_frames_stay_black():
    scene = make_scene()
    scene["image"][1] = 0
    film = plots_tracking.animation(**scene)[1]
    found = {to_hex(colour / 255) for colour in np.unique(film.reshape(-1, 3), axis=0)}
    assert found == {BLACK, WHITE, FIRST, SECOND}
    assert np.mean(film.max(-1) == 0) > 0.9
    np.testing.assert_array_equal(plots_tracking.tracks(**scene).axes[1].images[0].get_array(), 0)


def test_animation_of_what_a_tracker_looks_at():
    """A column an object, a row each for glimpses, masks, and their products; white where an object is not there."""
    looks, side = make_looks(), 13 * 7
    film = plots_tracking.animation(**make_scene(), **looks)
    assert film.shape == (T, FACTOR * H + 3 * (GAP + side), FACTOR * W, 3)
    dotted = plots_tracking.animation(**make_scene(), attention=looks["attention"])
    np.testing.assert_array_equal(film[:, : FACTOR * H], dotted)
    assert (dotted != plots_tracking.animation(**make_scene())).any()
    panel = film[:, FACTOR * H :].reshape(T, 3, GAP + side, N, FACTOR * W // N, 3)
    assert (panel[:, :, :GAP] == 255).all() and (panel[..., side:, :] == 255).all() and (panel[0, :, :, 1] == 255).all()
    for i, (grey, colour) in enumerate(((0.4, FIRST), (0.8, SECOND))):
        for row in range(3):
            tile = panel[1, row, GAP:, i, :side]
            assert all(to_hex(tile[corner] / 255) == colour for corner in ((0, 0), (0, -1), (-1, 0), (-1, -1)))
        glimpse, mask, both = panel[1, :, GAP + 2 : -2, i, 2 : side - 2]
        assert (glimpse == round(255 * grey)).all()
        assert mask[:, 0].max() > mask[:, -1].max()
        assert (both[:, 0] == round(255 * grey)).all() and (both[:, -1] == 0).all()


def test_annotate():
    """The outermost pixels inside a box are coloured, and its number is above it; the frame itself is as it was."""
    frame = np.full((120, 160, 3), 90, np.uint8)
    before = frame.copy()
    boxes = np.array([[40.0, 20.0, 80.0, 50.0], [60.2, 99.8, 100.4, 140.0]])
    seen = plots_tracking.annotate(frame, boxes, np.array([3, 12]))
    np.testing.assert_array_equal(frame, before)
    assert seen.dtype == np.uint8 and seen.shape == frame.shape
    changed = (seen != frame).any(-1)
    for (y0, x0, y1, x1), identity in (((40, 20, 80, 50), 3), ((60, 100, 100, 140), 12)):
        colour = np.round(255 * np.array(to_rgb(plots.slot_colour(identity))))
        for border in (seen[y0, x0:x1], seen[y1 - 1, x0:x1], seen[y0:y1, x0], seen[y0:y1, x1 - 1]):
            assert (border == colour).all()
        assert not changed[y0 + 1 : y1 - 1, x0 + 1 : x1 - 1].any()
        above = changed[y0 - 20 : y0, x0 : x0 + 20]
        assert above[-8:, :5].all() and not above[:4].any()
        number = seen[y0 - 8 : y0, x0 : x0 + 20]
        assert (number != colour).any(-1)[changed[y0 - 8 : y0, x0 : x0 + 20]].any()  # digits on the ground
        changed[y0 - 20 : y1, x0:x1] = False
    assert not changed.any()


def test_lines_are_thicker_in_large_frames():
    frame = np.zeros((400, 1200, 3), np.uint8)
    changed = plots_tracking.annotate(frame, [[100, 100, 200, 300]], [0]).any(-1)
    assert changed[100:103, 100:300].all() and changed[197:200, 100:300].all()
    assert changed[100:200, 100:103].all() and changed[100:200, 297:300].all()
    assert not changed[103:197, 103:297].any() and not changed[200:].any() and not changed[:, 300:].any()


def test_numbers_tell_identities_apart():
    """Colours come again after seven."""
    frame, box = np.zeros((120, 160, 3), np.uint8), [[40, 20, 80, 50]]
    pictures = [plots_tracking.annotate(frame, box, [identity]) for identity in (1, 8, 15)]
    assert all((pictures[0] != picture).any() for picture in pictures[1:]) and (pictures[1] != pictures[2]).any()
    for picture in pictures:
        np.testing.assert_array_equal(picture[40:], pictures[0][40:])


def test_annotating_at_the_edges():
    """Only sides within the frame are drawn, while the number always is, unless nothing of the box is to be seen."""
    frame = np.zeros((60, 80, 3), np.uint8)
    seen = plots_tracking.annotate(frame, [[-20, 70, 30, 1e9]], [0])
    ys, xs = np.nonzero(seen.any(-1))
    assert ys.min() == 0 and ys.max() == 29 and xs.max() == 79 and xs.min() < 75
    assert seen[29, 70:].any(-1).all() and not seen[20:29, 71:].any()  # no side at the edge of the frame
    for box in ([np.nan, 1, 20, 20], [1, 1, 20, np.inf], [70, 1, 90, 20], [-30, -30, 0, 9], [5, 80, 9, 90]):
        np.testing.assert_array_equal(plots_tracking.annotate(frame, [box], [0]), frame)
    np.testing.assert_array_equal(plots_tracking.annotate(frame, np.zeros((0, 4)), []), frame)
    tiny = plots_tracking.annotate(np.zeros((5, 4, 3), np.uint8), [[0, 0, 4, 4]], [1234])
    assert tiny.shape == (5, 4, 3) and tiny.any()


@pytest.mark.parametrize(
    "frame, boxes, identities",
    [
        (np.zeros((9, 9, 3)), [[0, 0, 4, 4]], [1]),
        (np.zeros((9, 9, 1), np.uint8), [[0, 0, 4, 4]], [1]),
        (np.zeros((9, 9, 3), np.uint8), [[0, 0, 4, 4]], [1, 2]),
        (np.zeros((9, 9, 3), np.uint8), [[0, 0, 4]], [1]),
    ],
)
def test_what_cannot_be_annotated(frame, boxes, identities):
    with pytest.raises(AssertionError):
        plots_tracking.annotate(frame, boxes, identities)


@pytest.mark.parametrize("draw", [plots_tracking.tracks, plots_tracking.animation])
@pytest.mark.parametrize(
    "changed",
    [
        {"image": np.zeros((T, H, W))},
        {"true": np.zeros((T, N + 1, 4))},
        {"pred": np.zeros((T + 1, N, 4))},
        {"presence": np.zeros((T, N + 1))},
        {"attention": np.zeros((T, N, 3))},
        {"glimpses": np.zeros((T, N + 1, 5, 5, 1))},
        {"masks": np.zeros((T + 1, N, 5, 5))},
    ],
)
def test_shapes_that_do_not_fit(draw, changed):
    with pytest.raises(AssertionError):
        draw(**make_scene() | changed)


def edges(band) -> np.ndarray:
    """The lowest and the highest value of a filled band over its places ``[2, L]``."""
    vertices = band.get_paths()[0].vertices
    places = np.unique(vertices[:, 0])
    return np.array([[end(vertices[vertices[:, 0] == x, 1]) for x in places] for end in (min, max)])


def names(legend) -> list[str]:
    return [text.get_text() for text in legend.get_texts()]


def test_accuracy():
    """Means and bands over seeds; a seed that failed is left out, and so is the band of one seed alone."""
    seeds = np.array([[0.7, 0.6, 0.5], [0.9, 0.8, np.nan]])
    panels = {
        "sequence length": ([5, 10, 15], {"MOHART": seeds, "ours": seeds - 0.4}),
        "randomness": ([0, 0.5, 1], {"MOHART": seeds, "static": seeds[:1] / 2, "theirs": seeds / 2}),
    }
    figure = plots_tracking.accuracy(panels, title="Toy")
    assert figure.get_suptitle() == "Toy"
    for axes, (name, (places, trackers)) in zip(figure.axes, panels.items(), strict=True):
        assert axes.get_xlabel() == name and [line.get_label() for line in axes.lines] == list(trackers)
        for line in axes.lines:
            np.testing.assert_array_equal(line.get_xdata(), places)
        np.testing.assert_allclose(axes.lines[0].get_ydata(), [0.8, 0.7, 0.5])
        np.testing.assert_allclose(edges(axes.collections[0]), [[0.7, 0.6, 0.5], [0.9, 0.8, 0.5]])
        assert len(axes.collections) == 2
        assert to_hex(axes.lines[0].get_color()) == "#1f5fbf"
    assert figure.axes[1].lines[1].get_linestyle() == "--"
    assert names(figure.legends[0]) == ["MOHART", "ours", "static", "theirs"]
    colours = [to_hex(line.get_color()) for line in figure.legends[0].get_lines()]
    assert len(set(colours)) == 4
    assert render(figure).std() > 1


def test_iou_over_time():
    """Given frames are left out, black ones have a grey ground, and what is missing is a gap."""
    curve = np.array([1.0, 1.0, 0.8, np.nan, 0.6])
    figure = plots_tracking.iou_over_time({"MOHART": curve, "HART": curve / 2}, given=2, unseen=[0, 0, 0, 1, 0])
    (axes,) = figure.axes
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("frame", "IoU")
    np.testing.assert_array_equal(axes.lines[0].get_xdata(), [3, 4, 5])
    np.testing.assert_array_equal(axes.lines[0].get_ydata(), [0.8, np.nan, 0.6])
    (ground,) = axes.patches
    assert (ground.get_x(), ground.get_x() + ground.get_width()) == (3.5, 4.5)
    assert names(figure.legends[0]) == ["MOHART", "HART"]
    assert render(figure).std() > 1


def test_success_and_precision():
    success, precision = np.linspace(1, 0, 21), np.linspace(0, 1, 51)
    figure = plots_tracking.success_and_precision(
        {"HART": (success, precision), "static": (0 * success, 0 * precision)}
    )
    overlap, distance = figure.axes
    assert (overlap.get_xlabel(), distance.get_xlabel()) == ("IoU above", "centre within, pixels")
    np.testing.assert_array_equal(overlap.lines[0].get_xydata(), np.stack([following.OVERLAPS, success], -1))
    np.testing.assert_array_equal(distance.lines[0].get_xydata(), np.stack([following.DISTANCES, precision], -1))
    assert names(overlap.get_legend()) == ["HART [0.500]", "static [0.000]"]
    assert names(distance.get_legend()) == ["HART [0.400]", "static [0.000]"]
    assert overlap.lines[0].get_color() == distance.lines[0].get_color() != distance.lines[1].get_color()
    assert render(figure).std() > 1
