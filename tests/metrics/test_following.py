"""Figures of boxes that follow given objects: a square that moves, another one that stays, in four frames."""

import numpy as np
import pytest

from objcentric.metrics import following

M, T, N = 2, 4, 2


def make_truth() -> tuple[np.ndarray, np.ndarray]:
    """Boxes of 4 x 4 pixels, ``[M, T, N, 4]``: the first one of each video moves by (1, 2) a frame; all are there."""
    start = np.array([[0.0, 0.0, 4.0, 4.0], [20.0, 20.0, 24.0, 24.0]])
    pace = np.array([[1.0, 2.0, 1.0, 2.0], [0.0, 0.0, 0.0, 0.0]])
    boxes = start + np.arange(T)[:, None, None] * pace
    return np.tile(boxes, (M, 1, 1, 1)), np.ones((M, T, N))


def shifted(boxes: np.ndarray, dy: float, dx: float = 0.0) -> np.ndarray:
    return boxes + np.array([dy, dx, dy, dx])


def test_iou_per_step():
    """Two rows down, a square of four rows keeps an IoU of 1/3; frames count what they have."""
    true, presence = make_truth()
    pred = true.copy()
    pred[:, 1, 0] = shifted(true[:, 1, 0], 2)
    pred[0, 2, 1] = shifted(true[0, 2, 1], 40)
    presence[0, 2, 0] = presence[:, 3] = 0
    mean, count = following.iou_per_step(pred, true, presence)
    np.testing.assert_allclose(mean, [1, (1 / 3 + 1) / 2, 2 / 3, np.nan])
    np.testing.assert_array_equal(count, [4, 4, 3, 0])
    assert count.dtype.kind == "i"


def test_mean_iou_counts_boxes_and_not_frames():
    true, presence = make_truth()
    pred = true.copy()
    pred[:, 1, 0] = shifted(true[:, 1, 0], 2)
    presence[:, 2, 1] = presence[:, 3] = 0
    assert following.mean_iou(pred, true, presence) == pytest.approx((2 * 1 / 3 + 2 + 2) / 6)
    assert following.mean_iou(pred, true, presence, first=2) == 1
    assert np.isnan(following.mean_iou(pred, true, presence, first=3))


def test_the_given_frame_does_not_count():
    """Neither that a tracker is given it, nor what it says of it."""
    true, presence = make_truth()
    wrong = shifted(true, 40)
    for first in (True, False):
        pred = wrong.copy()
        pred[:, 0] = true[:, 0] if first else np.nan
        assert following.mean_iou(pred, true, presence) == 0
        assert following.success_curve(pred, true, presence).max() == 0
        assert following.precision_curve(pred, true, presence).tolist() == 40 * [0] + 11 * [1]
    assert following.mean_iou(pred, true, presence, first=0) == 0
    pred[:, 0] = true[:, 0]
    assert following.mean_iou(pred, true, presence, first=0) == 1 / T


def test_slots_are_not_matched():
    true, presence = make_truth()
    assert following.mean_iou(true[:, :, ::-1], true, presence) == 0


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("corner", [0, 3, slice(None)])
def test_boxes_that_are_not_finite_are_wrong(value, corner):
    """One box of the six in a video's counted frames; it is neither left out nor does it spoil the mean."""
    true, presence = make_truth()
    pred = true.copy()
    pred[:, 1, 0, corner] = value
    assert following.mean_iou(pred, true, presence) == pytest.approx(5 / 6)
    mean, count = following.iou_per_step(pred, true, presence)
    assert mean.tolist() == [1, 0.5, 1, 1] and count.tolist() == [4, 4, 4, 4]
    np.testing.assert_allclose(following.success_curve(pred, true, presence), [5 / 6] * 20 + [0])
    np.testing.assert_allclose(following.precision_curve(pred, true, presence), 5 / 6)
    presence[:, 1, 0] = 0
    assert following.mean_iou(pred, true, presence) == 1


def test_what_is_not_there_may_be_anything():
    true, presence = make_truth()
    expected = following.mean_iou(shifted(true, 1), true, presence)
    presence[:, 2, 0] = 0.4
    pred = shifted(true, 1)
    for value in (np.nan, np.inf):
        true[:, 2, 0] = value
        assert following.mean_iou(pred, true, presence) == pytest.approx(expected)
        assert following.precision_curve(pred, true, presence)[1] == 1


def test_success():
    """IoU 1/3 is above .30 and not above .35; the area of many thresholds is the mean IoU."""
    true, presence = make_truth()
    pred = true.copy()
    pred[:, 1:, 0] = shifted(true[:, 1:, 0], 2)
    curve = following.success_curve(pred, true, presence)
    np.testing.assert_allclose(curve, 7 * [1] + 13 * [0.5] + [0])
    assert following.area(curve) == pytest.approx((7 + 6.5) / 21)
    assert following.area(following.success_curve(true, true, presence)) == pytest.approx(20 / 21)
    fine = following.success_curve(pred, true, presence, thresholds=np.linspace(0, 1, 10001))
    assert following.area(fine) == pytest.approx(following.mean_iou(pred, true, presence), abs=1e-3)
    assert following.success_curve(pred, true, presence, thresholds=[0.5]).tolist() == [0.5]
    assert following.success_curve(true, true, presence, thresholds=[0.5], first=0).tolist() == [1]
    assert np.isnan(following.success_curve(pred, true, 0 * presence)).all()


def test_precision():
    """A centre that is 3 and 4 pixels away is within 5; the size of a box does not matter."""
    true, presence = make_truth()
    pred = true.copy()
    pred[:, 1:, 0] = shifted(true[:, 1:, 0], 3, -4)
    pred[:, 1:, 1] += np.array([-1, -1, 1, 1])
    np.testing.assert_allclose(following.precision_curve(pred, true, presence), 5 * [0.5] + 46 * [1])
    assert following.precision_curve(pred, true, presence, thresholds=[4.9, 5]).tolist() == [0.5, 1]


@pytest.mark.parametrize("given", [1, 2, 3])
def test_static(given):
    true, presence = make_truth()
    pred = following.static(true, presence, given=given)
    np.testing.assert_array_equal(pred[:, :given], true[:, :given])
    np.testing.assert_array_equal(pred[:, given:], np.repeat(true[:, given - 1 : given], T - given, axis=1))


def test_static_scores_what_does_not_move():
    """The moving square overlaps by 3 x 2 pixels after a frame and not at all after two."""
    true, presence = make_truth()
    pred = following.static(true, presence)
    np.testing.assert_allclose(following.iou_per_step(pred, true, presence)[0], [1, (1 + 6 / 26) / 2, 0.5, 0.5])


def test_momentum():
    """Is right where boxes move and grow evenly, and looks at the last two given frames alone."""
    true, presence = make_truth()
    true += np.arange(T)[:, None, None] * np.array([0, 0, 2, 3])
    np.testing.assert_allclose(following.momentum(true, presence), true)
    turned = true.copy()
    turned[:, 0] = 7
    np.testing.assert_allclose(following.momentum(turned, presence, given=3)[:, 1:], true[:, 1:])
    turned[:, 3] = 7
    np.testing.assert_allclose(following.momentum(turned, presence, given=3)[:, 3], true[:, 3])
    assert not np.allclose(following.momentum(turned, presence)[:, 2], true[:, 2])


def test_baselines_know_present_boxes_of_given_frames_alone():
    """Of three given frames: seen in the first alone, in the first and third, in none; those absent hold anything."""
    true = np.tile(make_truth()[0], (1, 2, 1, 1))[:1, :6]
    true = np.concatenate([true, true[:, :, :1]], axis=2)
    true[:, :, 0] = true[:, :, 1] = np.arange(6)[:, None] + np.array([0, 0, 4, 4])
    presence = np.ones((1, 6, 3))
    presence[0, :3] = np.array([[1, 1, 0], [0, 0, 0], [0, 1, 0]])
    true[presence == 0] = 7
    stays = following.static(true, presence, given=3)[0, 3:]
    goes_on = following.momentum(true, presence, given=3)[0, 3:]
    np.testing.assert_array_equal(stays[:, 0], np.tile(true[0, 0, 0], (3, 1)))
    np.testing.assert_array_equal(goes_on[:, 0], stays[:, 0])
    np.testing.assert_array_equal(stays[:, 1], np.tile(true[0, 2, 1], (3, 1)))
    np.testing.assert_allclose(goes_on[:, 1], true[0, 3:, 1])
    assert np.isnan(stays[:, 2]).all() and np.isnan(goes_on[:, 2]).all()
    assert (
        following.mean_iou(following.momentum(true, presence, given=3)[:, :, 2:], true[:, :, 2:], presence[:, :, 2:])
        == 0
    )


def test_momentum_of_an_object_that_has_left():
    """Seen in the first two of three given frames, it has gone on in the third already."""
    true, presence = make_truth()
    presence[:, 2, 0] = 0
    np.testing.assert_allclose(following.momentum(true, presence, given=3)[:, 3], true[:, 3])


@pytest.mark.parametrize(
    "baseline, given, message",
    [
        (following.static, 0, "given=0: use 1 to 4"),
        (following.momentum, 1, "given=1: use 2 to 4"),
        (following.momentum, 5, "given=5: use 2 to 4, the number of frames"),
    ],
)
def test_too_few_or_many_given_frames(baseline, given, message):
    with pytest.raises(ValueError, match=message):
        baseline(*make_truth(), given=given)


@pytest.mark.parametrize(
    "pred, presence", [((M, T, N + 1, 4), (M, T, N)), ((M, T, N, 4), (M, T)), ((M, T, N, 3), (M, T, N))]
)
def test_shapes_that_do_not_fit(pred, presence):
    with pytest.raises(AssertionError):
        following.mean_iou(np.zeros(pred), make_truth()[0], np.ones(presence))
