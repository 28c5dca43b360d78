"""Filmstrips and animations: their shapes, what is shown where, and the colours of identities."""

import numpy as np
import pytest
from matplotlib.colors import to_hex
from matplotlib.patches import Rectangle

from objcentric import plots
from objcentric.plots_sequences import Strip, animation, filmstrips

M, T, N, H, W = 2, 3, 2, 16, 20
FACTOR, GAP = 3, 2  # of an animation: how often a pixel is repeated, and the white between tiles


@pytest.fixture
def strip() -> Strip:
    """Dark sequences whose two objects swap slots in the last frame; the second one is missing in the first frame."""
    images = np.random.default_rng(0).uniform(0, 0.3, (M, T, H, W, 1))
    boxes = np.tile(np.array([[1.0, 2.0, 7.0, 8.0], [5.0, 10.0, 14.0, 18.0]]), (M, T, 1, 1))
    presence, identity = np.ones((M, T, N)), np.tile(np.array([3, 8]), (M, T, 1))
    presence[:, 0, 1] = 0.4
    boxes[:, 2], identity[:, 2] = boxes[:, 2, ::-1].copy(), identity[:, 2, ::-1].copy()
    return Strip("seen", images, boxes, presence, identity)


def drawn(axes) -> dict[str, tuple]:
    """Corners of the boxes in an image, by their colours."""
    assert all(isinstance(patch, Rectangle) for patch in axes.patches)
    return {to_hex(p.get_edgecolor()).upper(): (*p.get_xy()[::-1], p.get_height(), p.get_width()) for p in axes.patches}


FIRST, SECOND = plots.slot_colour(3), plots.slot_colour(8)
BOXES = {FIRST: (1, 2, 6, 6), SECOND: (5, 10, 9, 8)}


def test_filmstrips(strip):
    figure = filmstrips([Strip("input", 0.5 * strip.images), strip], title="Two sequences")
    axes = np.reshape(figure.axes, (M, 2, T))
    for m, t in np.ndindex(M, T):
        for s, factor in enumerate((0.5, 1.0)):
            shown = axes[m, s, t].images[0].get_array()
            np.testing.assert_allclose(shown, factor * np.repeat(strip.images[m, t], 3, -1))
        assert drawn(axes[m, 0, t]) == {}
        assert drawn(axes[m, 1, t]) == (BOXES if t else {FIRST: BOXES[FIRST]})
        assert (axes[m, 0, t].get_title(), axes[m, 1, t].get_title()) == (f"t = {t + 1}", "")
    for row, name in zip(axes.reshape(-1, T), ("input", "seen") * M, strict=True):
        assert [[text.get_text() for text in tile.texts] for tile in row] == [[name], [], []]
    assert [text.get_text() for text in figure.texts] == ["Two sequences"]


def test_names_of_frames(strip):
    figure = filmstrips([strip], frame_names=["given", "given", "imagined"])
    assert [axes.get_title() for axes in figure.axes] == M * ["given", "given", "imagined"]


def test_animation(strip):
    film = animation([Strip("input", 0.5 * strip.images), strip])
    assert film.dtype == np.uint8
    assert film.shape == (T, 2 * (FACTOR * H + GAP), M * (FACTOR * W + GAP), 3)
    tiles = film.reshape(T, 2, FACTOR * H + GAP, M, FACTOR * W + GAP, 3)
    assert (tiles[:, :, -GAP:] == 255).all() and (tiles[..., -GAP:, :] == 255).all()
    for t, m in np.ndindex(T, M):
        plain, seen = (tiles[t, s, :-GAP, m, :-GAP] for s in range(2))
        small = np.uint8(np.round(255 * 0.5 * strip.images[m, t])).repeat(3, -1)
        np.testing.assert_array_equal(plain, small.repeat(FACTOR, 0).repeat(FACTOR, 1))
        colours = {FIRST, SECOND} if t else {FIRST}
        assert bright(seen) == colours
        for colour in colours:
            y, x, height, width = (FACTOR * side for side in BOXES[colour])
            for corner in ((y, x), (y + height, x), (y, x + width), (y + height, x + width)):
                assert to_hex(seen[corner] / 255).upper() == colour


def bright(tile: np.ndarray) -> set[str]:
    """Colours in a tile of a dark sequence that are not its own."""
    return {to_hex(pixel / 255).upper() for pixel in np.unique(tile.reshape(-1, 3), axis=0) if pixel.max() > 90}


def test_pictures_of_any_kind(strip):
    """Colour, whole numbers, and boxes that are mirrored or reach out of the frame."""
    colour = np.random.default_rng(0).integers(0, 256, (1, 1, H, W, 3), np.uint8)
    film = animation([Strip("input", colour)])
    np.testing.assert_array_equal(film[0, : FACTOR * H : FACTOR, : FACTOR * W : FACTOR], colour[0, 0])
    boxes = np.array([[[[7.0, 8.0, 1.0, 2.0], [-5.0, -5.0, 90.0, 90.0]]]])
    mirrored = strip._replace(images=strip.images[:1, :1], boxes=boxes, presence=np.ones((1, 1, 2)))
    film = animation([mirrored._replace(identity=np.array([[[3, 8]]]))])
    assert bright(film[0, :-GAP, :-GAP]) == {FIRST}


@pytest.mark.parametrize("draw", [filmstrips, animation])
@pytest.mark.parametrize(
    "fields",
    [
        {"images": np.zeros((M, T, H, W))},
        {"presence": np.zeros((M, T + 1, N))},
        {"identity": np.zeros((M, T, N + 1))},
        {"boxes": np.zeros((M, T, N, 3))},
    ],
)
def test_shapes_that_do_not_fit(strip, draw, fields):
    with pytest.raises(AssertionError):
        draw([strip._replace(**fields)])
