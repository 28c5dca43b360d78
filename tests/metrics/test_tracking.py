"""Tracking figures of hand-made tracks: two squares that move down side by side, in four frames."""

import functools

import numpy as np
import pytest

from objcentric.errors import UserError
from objcentric.metrics import tracking

T, R = 4, 2
needs_trackeval = pytest.mark.skipif(
    not tracking.available(), reason="TrackEval is missing: install objcentric[tracking]"
)


def make_truth() -> tuple[np.ndarray, np.ndarray]:
    """Boxes ``[1, T, R, 4]`` and that they are all there."""
    y, x = np.meshgrid(np.arange(T), 10 * np.arange(R), indexing="ij")
    return np.stack([y, x, y + 4, x + 4], -1)[None].astype(np.float32), np.ones((1, T, R))


def make_tracks() -> dict[str, np.ndarray]:
    """Those that follow the truth in three slots, of which one is free; a free one has the identity -1."""
    boxes = np.concatenate([make_truth()[0], np.zeros((1, T, 1, 4), np.float32)], 2)
    identity = np.broadcast_to(np.array([5, 2, -1]), (1, T, 3)).copy()
    return {"boxes": boxes, "found": (identity >= 0).astype(np.float32), "identity": identity}


def figures(tracks: dict, truth: tuple | None = None, tracked: float = 1.0, **options) -> list[float]:
    """MOTA, IDF1 and the share of identity switches, of tracks of which the share ``tracked`` is matched."""
    evaluated = tracking.evaluate(
        **tracks, **dict(zip(("true_boxes", "there"), truth or make_truth(), strict=True)), **options
    )
    assert tuple(evaluated) == ("mota", "idf1", "identity_switches", "tracked")
    assert evaluated.pop("tracked") == tracked
    return list(evaluated.values())


def hota(tracks: dict, truth: tuple | None = None) -> list[float]:
    """HOTA, and what is detected and associated of it."""
    evaluated = tracking.evaluate(
        **tracks, **dict(zip(("true_boxes", "there"), truth or make_truth(), strict=True)), families=["hota"]
    )
    assert tuple(evaluated) == ("hota", "deta", "assa")
    return list(evaluated.values())


def test_what_is_left_out_is_said(monkeypatch, capsys):
    monkeypatch.setattr(tracking.importlib.util, "find_spec", lambda name: None)
    assert not tracking.available("MOTA")
    assert "TrackEval is missing: without MOTA" in capsys.readouterr().err
    with pytest.raises(UserError, match=r"^tracking figures need TrackEval: pip install 'objcentric\[tracking\]'$"):
        figures(make_tracks())


@needs_trackeval
def test_perfect_tracks():
    assert figures(make_tracks()) == [1, 1, 0]
    assert hota(make_tracks()) == pytest.approx([1, 1, 1])


@needs_trackeval
def test_identities_count_and_slots_do_not():
    tracks = make_tracks()
    moved = {
        name: np.where(np.arange(T).reshape(-1, *(1,) * (array.ndim - 2)) < 2, array, np.roll(array, 1, 2))
        for name, array in tracks.items()
    }
    assert figures(moved) == [1, 1, 0]


@needs_trackeval
def test_an_object_gets_another_identity():
    """One of eight boxes is the first of another identity; that of two boxes is the wrong one for the whole track."""
    tracks = make_tracks()
    tracks["identity"][0, 2:, 0] = 7
    assert figures(tracks) == pytest.approx([1 - 1 / 8, 6 / 8, 1 / 8])
    associated = (4 * 1 + 4 * 2 / 4) / 8  # a half of the cut track shares two of its four boxes with the truth
    assert hota(tracks) == pytest.approx([associated**0.5, 1, associated])


@needs_trackeval
def test_two_objects_swap_identities():
    tracks = make_tracks()
    tracks["identity"][0, 2:] = [2, 5, -1]
    assert figures(tracks) == pytest.approx([1 - 2 / 8, 4 / 8, 2 / 8])
    associated = 2 / (2 + 2 + 2)  # of a box: two frames of both tracks, two of the true one alone, two of ours alone
    assert hota(tracks) == pytest.approx([associated**0.5, 1, associated])


@needs_trackeval
@pytest.mark.parametrize("identity, switches", [(5, 0), (7, 1)])
def test_an_object_is_missed_once(identity, switches):
    """And found again, as itself or as a new one."""
    tracks = make_tracks()
    tracks["found"][0, 1, 0] = 0
    tracks["identity"][0, 2:, 0] = identity
    right = 7 - 1 * switches  # the track's longer part is right, of one box less
    assert figures(tracks, tracked=7 / 8) == pytest.approx([1 - (1 + switches) / 8, right / 7.5, switches / 8])


@needs_trackeval
def test_something_is_found_where_nothing_is():
    tracks = make_tracks()
    tracks["boxes"][0, 1, 2] = 20, 20, 24, 24
    tracks["found"][0, 1, 2], tracks["identity"][0, 1, 2] = 1, 8
    assert figures(tracks) == pytest.approx([1 - 1 / 8, 8 / 8.5, 0])
    assert hota(tracks) == pytest.approx([(8 / 9) ** 0.5, 8 / 9, 1])


@needs_trackeval
def test_boxes_must_overlap():
    tracks = make_tracks()
    tracks["boxes"][..., [0, 2]] += 2  # IoU 1/3: every box is missed, and every track is another one
    assert figures(tracks, tracked=0) == pytest.approx([-1, 0, 0])
    assert figures(tracks, threshold=0.3) == pytest.approx([1, 1, 0])
    assert hota(tracks) == pytest.approx(3 * [6 / 19])  # of the thresholds .05, .10, ... .95, six are below 1/3


@needs_trackeval
def test_what_is_not_there_cannot_be_missed():
    """An object that leaves."""
    tracks, (boxes, there) = make_tracks(), make_truth()
    tracks["found"][0, 2:, 0] = there[0, 2:, 0] = 0
    assert figures(tracks, (boxes, there)) == [1, 1, 0]


@needs_trackeval
def test_nothing_at_all():
    """Gives no figure but 0, and does not change those of other sequences."""
    tracks, (boxes, there) = make_tracks(), make_truth()
    nothing = tracks | {"found": 0 * tracks["found"]}
    assert figures(nothing, (boxes, 0 * there), tracked=0) == [0, 0, 0]
    assert figures(nothing, tracked=0) == [0, 0, 0]
    assert hota(nothing) == hota(nothing, (boxes, 0 * there)) == [0, 0, 0]
    both = {name: np.concatenate([tracks[name], nothing[name]]) for name in tracks}
    truth = np.tile(boxes, (2, 1, 1, 1)), np.concatenate([there, 0 * there])
    assert figures(both, truth) == [1, 1, 0]
    assert hota(both, truth) == pytest.approx([1, 1, 1])


@needs_trackeval
def test_true_identities():
    """Rows of the truth need not be one object's; identities need not be those of another sequence."""
    tracks, (boxes, there) = make_tracks(), make_truth()
    true_identity = np.broadcast_to(np.array([30, 4]), (1, T, R)).copy()
    boxes[0, 2:], true_identity[0, 2:] = boxes[0, 2:, ::-1].copy(), [4, 30]
    assert figures(tracks, (boxes, there), true_identity=true_identity) == [1, 1, 0]
    assert figures(tracks, (boxes, there)) == pytest.approx([1 - 2 / 8, 4 / 8, 2 / 8])


@needs_trackeval
def test_families_of_figures():
    """Each is what it is without the others; the order is of no account."""
    tracks, truth = make_tracks(), dict(zip(("true_boxes", "there"), make_truth(), strict=True))
    tracks["identity"][0, 2:, 0] = 7
    together = tracking.evaluate(**tracks, **truth, families=tracking.FAMILIES)
    alone = {}
    for family in reversed(tracking.FAMILIES):
        alone |= tracking.evaluate(**tracks, **truth, families=[family])
    assert together == alone and len(alone) == 7
    assert list(together)[:4] == list(tracking.evaluate(**tracks, **truth))
    with pytest.raises(ValueError, match="choose of clear, identity, hota"):
        tracking.evaluate(**tracks, **truth, families=["HOTA"])


def test_without_trackeval(monkeypatch):
    monkeypatch.setattr(tracking.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"tracking figures need TrackEval: pip install 'objcentric\[tracking\]'"):
        figures(make_tracks())


def test_rediscoveries():
    """Of the object that the identity 5 follows at first."""
    truth, tracks = make_truth(), make_tracks()

    def count(**changes):
        return tracking.rediscoveries(*(tracks | changes).values(), *truth)

    identity = tracks["identity"].copy()
    assert count() == 0
    identity[0, 2:, 0] = 7
    assert count(identity=identity) == 1
    found = tracks["found"].copy()
    found[0, 1, 0] = 0  # lost in between
    assert count(identity=identity, found=found) == 1
    identity[0, 3, 0] = 8
    assert count(identity=identity) == 2
    identity[0, :, 0] = [5, 5, 2, 2]
    identity[0, :, 1] = [2, 2, 5, 5]  # they change places
    assert count(identity=identity) == 0
    found[0, 0, 0], identity[0, :, 0], identity[0, :, 1] = 0, [5, 5, 7, 7], 2  # nobody followed it before
    assert count(identity=identity, found=found) == 0
    boxes = tracks["boxes"].copy()
    boxes[0, 2:, 0] += 3
    identity[0, 2:, 0] = 7
    assert count(boxes=boxes, identity=identity) == 0  # nor do they follow it


def test_path_errors_by_hand():
    """Two objects move by 2 and 1 pixels a frame; what is imagined of the first stands still a pixel beside it."""
    start = np.array([[0.0, 0, 10, 10], [20, 20, 30, 30]])
    steps = np.array([[2.0, 0, 2, 0], [0, 1, 0, 1]])
    true = (start + np.arange(5)[:, None, None] * steps)[None]
    there = np.ones((1, 5, 2))
    there[0, 4, 1] = 0  # out of view in the last frame
    boxes, found = true[:, :, ::-1].copy(), np.ones((1, 5, 2))  # in other slots
    boxes[0, 2:, 1] = boxes[0, 1, 1] + [1, 0, 1, 0]
    found[0, 3:, 1] = 0
    find = functools.partial(tracking.path_errors, true_boxes=true, there=there, given=2)
    figures = find(boxes, found, canvas=(50, 50))
    still = [1.0, 3.0, 5.0]  # the true one is 2, 4, 6 pixels from where it was
    assert figures["path_error"] == pytest.approx(np.mean([*still, 0, 0]))
    assert figures["path_copied_error"] == pytest.approx(np.mean([2, 4, 6, 1, 2]))
    assert figures["path_momentum_error"] == figures["path_mirrored_error"] == pytest.approx(0)
    turned = find(boxes, found, canvas=(50, 22))  # the second one's corner goes to 22 and back to 21, in truth to 23
    assert turned["path_momentum_error"] == pytest.approx(0)
    assert turned["path_mirrored_error_t"] == pytest.approx([0.0, 1.0, 0.0])
    assert figures["path_kept"] == pytest.approx(3 / 5)
    assert figures["path_error_t"] == pytest.approx([0.5, 1.5, 5.0])
    assert figures["path_copied_error_t"] == pytest.approx([1.5, 3.0, 6.0])
    assert figures["path_kept_t"] == pytest.approx([1.0, 0.5, 0.0])
    nothing = find(boxes, 0 * found, canvas=(50, 50))
    assert all(np.isnan(value).all() for value in nothing.values())
    apart = find(boxes + 500.0, found, canvas=(50, 50))
    assert np.isnan(apart["path_error"])


def test_look_errors():
    """Of two sequences: objects 0 and 1 in the first, of which 1 is lost and its slot taken, object 0 in the second."""
    identity = np.array([[[0, 1], [0, 1], [0, 2]], [[-1, 0], [-1, 0], [-1, 0]]])
    glimpses = np.zeros((2, 3, 2, 4, 4, 1))
    glimpses[0, :2] += np.array([1.0, 4.0])[:, None, None, None]
    glimpses[0, 2] += np.array([3.0, 9.0])[:, None, None, None]
    glimpses[1, 1:, 1], glimpses[:, 0] = 7.0, 50.0  # earlier frames do not count
    found = tracking.look_errors(glimpses, identity, 2)
    errors = {"error": (2**2 + 0) / 2, "other_error": ((3 - 4) ** 2 + (7 - 1) ** 2) / 2}
    assert found == errors | {f"{name}_t": [value] for name, value in errors.items()}
    none = tracking.look_errors(glimpses, np.full_like(identity, -1), 2)
    assert np.isnan(none["error"]) and np.isnan(none["other_error"])
