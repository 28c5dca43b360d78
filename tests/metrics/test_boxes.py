import itertools

import numpy as np
import pytest
from sklearn import metrics as sklearn_metrics

from objcentric.metrics import boxes


def _random_scenes(seed, num_scenes=30, num_pred=4, num_true=3, noise=2.0):
    """True boxes and noisy copies of them, some missing, some made up."""
    rng = np.random.default_rng(seed)
    corner = rng.uniform(0, 30, (num_scenes, max(num_pred, num_true), 2))
    all_boxes = np.concatenate([corner, corner + rng.uniform(8, 20, corner.shape)], -1)
    pred = (all_boxes + rng.normal(0, noise, all_boxes.shape))[:, :num_pred]
    true, true_mask = all_boxes[:, :num_true], rng.random((num_scenes, num_true)) < 0.6
    pred_mask, scores = rng.random((num_scenes, num_pred)) < 0.7, rng.random((num_scenes, num_pred))
    return pred, scores, pred_mask, true, true_mask


def test_iou_of_known_boxes():
    a = np.array([[0, 0, 10, 10], [0, 0, 10, 10], [0, 0, 0, 10], [5, 5, 4, 4], [np.nan, 0, 1, 1]], np.float32)
    b = np.array([[0, 0, 10, 10], [5, 0, 15, 10], [2, 3, 4, 6], [10, 0, 20, 10], [0, 0, 0, 10]], np.float32)
    expected = np.zeros((5, 5))
    expected[:2] = [1.0, 1 / 3, 0.06, 0.0, 0.0]  # the same; half shifted; inside; touching; empty
    np.testing.assert_allclose(boxes.iou(a, b), expected, atol=1e-12)


def test_iou_is_symmetric_and_takes_leading_axes():
    pred, _, _, true, _ = _random_scenes(0)
    overlap = boxes.iou(pred, true)
    assert overlap.shape == (30, 4, 3)
    np.testing.assert_array_equal(overlap, boxes.iou(true, pred).swapaxes(-1, -2))
    np.testing.assert_array_equal(overlap[7], boxes.iou(pred[7], true[7]))
    np.testing.assert_allclose(boxes.iou(3 * pred + 5, 3 * true + 5), overlap, atol=1e-12)
    assert boxes.iou(pred, np.zeros((30, 0, 4))).shape == (30, 4, 0)
    with pytest.raises(AssertionError, match="4"):
        boxes.iou(pred[..., :3], true[..., :3])


def test_mean_iou_of_known_scenes():
    one, half = [0, 0, 10, 10], [5, 0, 15, 10]
    far = [30, 30, 40, 40]
    pred = np.array([[one, far], [half, one], [one, one], [far, one]])
    true = np.array([[one, one], [one, far], [one, one], [one, half]])
    true_mask = [[1, 0], [1, 1], [0, 0], [1, 1]]
    every = np.ones((4, 2))
    # 1; 1 and a true box that is missed; surplus in an empty scene; 1 for the first, nothing for the second
    assert boxes.mean_iou(pred, every, true, true_mask) == pytest.approx((1 + 1 + 0 + 1 + 0) / 5)
    assert boxes.mean_iou(pred, [[0, 1], [1, 0], [1, 1], [0, 0]], true, true_mask) == pytest.approx((0 + 1 / 3) / 5)
    assert np.isnan(boxes.mean_iou(pred, every, true, np.zeros((4, 2))))


def test_mean_iou_assigns_optimally_not_greedily():
    # The first prediction overlaps the first true box most, but the sum is best if the second one has it.
    true = np.array([[[0, 0, 10, 10], [0, 4, 10, 14]]])
    pred = np.array([[[0, 1, 10, 11], [0, -2, 10, 8]]])
    overlap = boxes.iou(pred, true)[0]
    assert overlap[0, 0] == overlap.max() and overlap[0, 0] + overlap[1, 1] < overlap[0, 1] + overlap[1, 0]
    every = np.ones((1, 2))
    assert boxes.mean_iou(pred, every, true, every) == pytest.approx((overlap[0, 1] + overlap[1, 0]) / 2)


@pytest.mark.parametrize("num_pred, num_true", [(4, 3), (2, 3), (3, 3)])
def test_mean_iou_agrees_with_trying_every_assignment(num_pred, num_true):
    pred, _, pred_mask, true, true_mask = _random_scenes(1, num_pred=num_pred, num_true=num_true, noise=6.0)
    total = 0.0
    for m in range(len(pred)):
        overlap = boxes.iou(pred[m][pred_mask[m]], true[m][true_mask[m]])
        overlap = np.concatenate([overlap, np.zeros((overlap.shape[1], overlap.shape[1]))])  # or nothing for a true box
        orders = itertools.permutations(range(overlap.shape[0]), overlap.shape[1])
        total += max(sum(overlap[i, r] for r, i in enumerate(order)) for order in orders)
    assert boxes.mean_iou(pred, pred_mask, true, true_mask) == pytest.approx(total / true_mask.sum())


def test_average_precision_by_hand():
    hit, half, miss = [0, 0, 10, 10], [0, 0, 10, 6], [30, 30, 40, 40]
    true = np.array([[hit], [hit], [hit], [hit]])
    true_mask = [[1], [1], [1], [0]]
    pred = np.array([[hit, hit], [miss, half], [hit, miss], [hit, hit]])
    pred_mask = [[1, 1], [1, 1], [0, 1], [1, 0]]
    scores = [[0.9, 0.8], [0.7, 0.6], [1.0, 0.1], [0.95, 1.0]]
    # By score: .95 in a scene without true boxes, wrong; .9 right; .8 a duplicate; .7 wrong; .6 right, with IoU .6; .1
    # wrong. Precision 1/2 at recall 1/3 and 2/5 at recall 2/3; the third true box is never found.
    ap = boxes.average_precision(pred, scores, pred_mask, true, true_mask)
    assert ap == pytest.approx((1 / 2 + 2 / 5) / 3)
    strict = boxes.average_precision(pred, scores, pred_mask, true, true_mask, threshold=0.65)
    assert strict == pytest.approx(1 / 2 / 3)
    assert boxes.average_precision(pred, scores, pred_mask, true, true_mask, threshold=0.6) == pytest.approx(ap)
    # IoU .6 counts at .50, .55 and .60, not above.
    mean = boxes.mean_average_precision(pred, scores, pred_mask, true, true_mask)
    assert mean == pytest.approx((3 * ap + 7 * strict) / 10)


def test_average_precision_takes_the_best_precision_at_a_higher_recall():
    hit, miss = [0, 0, 10, 10], [30, 30, 40, 40]
    true = np.array([[hit]] * 3)
    pred = np.array([[miss], [hit], [hit]])
    every = np.ones((3, 1))
    # Right, at ranks 2 and 3: precision 1/2 then 2/3, so 2/3 counts for both.
    assert boxes.average_precision(pred, [[3.0], [2.0], [1.0]], every, true, every) == pytest.approx(2 / 3 * 2 / 3)


def test_average_precision_without_predictions_or_truth():
    pred, scores, pred_mask, true, true_mask = _random_scenes(0)
    nothing = np.zeros_like
    assert boxes.average_precision(pred, scores, nothing(pred_mask), true, true_mask) == 0.0
    assert np.isnan(boxes.average_precision(pred, scores, pred_mask, true, nothing(true_mask)))
    assert boxes.average_precision(true, np.ones((30, 3)), true_mask, true, true_mask) == 1.0
    assert boxes.mean_average_precision(true, np.ones((30, 3)), true_mask, true, true_mask) == 1.0


@pytest.mark.parametrize("seed", range(3))
def test_average_precision_agrees_with_sklearn(seed):
    """One true box a scene and one prediction: detection is then binary classification (of those found at all)."""
    pred, scores, _, true, _ = _random_scenes(seed, num_scenes=200, num_pred=1, num_true=1, noise=4.0)
    every = np.ones((200, 1), bool)
    right = boxes.iou(pred, true)[:, 0, 0] >= 0.5
    assert 0.1 < right.mean() < 0.9
    precision, recall, _ = sklearn_metrics.precision_recall_curve(right, scores[:, 0])
    best = np.maximum.accumulate(precision)  # sklearn's points go from high recall to low
    expected = -np.sum(np.diff(recall) * best[:-1]) * right.mean()
    assert boxes.average_precision(pred, scores, every, true, every) == pytest.approx(expected)
    # Sorted so that precision only falls with recall, no envelope is needed and sklearn's own figure is the same.
    ranked = np.where(right, 1.0, 0.0)[:, None] + 0.0 * scores
    plain = sklearn_metrics.average_precision_score(right, ranked[:, 0]) * right.mean()
    assert boxes.average_precision(pred, ranked, every, true, every) == pytest.approx(plain)


@pytest.mark.parametrize("scale", [1000, 4], ids=["distinct scores", "equal scores"])
def test_order_of_predictions_and_scenes_does_not_matter(scale):
    rng = np.random.default_rng(5)
    pred, scores, pred_mask, true, true_mask = _random_scenes(5, noise=3.0)
    pred[:, 3] = pred[:, 0] + 0.5  # rivals for the same true box
    scores = np.round(scores * scale)
    by_prediction, by_true, by_scene = rng.permutation(4), rng.permutation(3), rng.permutation(30)
    moved = [a[by_scene][:, by_prediction] for a in (pred, scores, pred_mask)]
    moved += [a[by_scene][:, by_true] for a in (true, true_mask)]
    ap = boxes.average_precision(pred, scores, pred_mask, true, true_mask)
    assert 0.1 < ap < 0.9
    assert boxes.average_precision(*moved) == pytest.approx(ap)
    iou = boxes.mean_iou(pred, pred_mask, true, true_mask)
    assert boxes.mean_iou(moved[0], *moved[2:]) == pytest.approx(iou)


def test_what_a_mask_hides_does_not_matter():
    pred, scores, pred_mask, true, true_mask = _random_scenes(6)
    hidden = np.where(pred_mask[..., None], pred, np.nan), np.where(pred_mask, scores, np.nan), pred_mask
    truth = np.where(true_mask[..., None], true, 0.0), true_mask
    assert boxes.average_precision(*hidden, *truth) == boxes.average_precision(pred, scores, pred_mask, true, true_mask)
    assert boxes.mean_iou(hidden[0], pred_mask, *truth) == boxes.mean_iou(pred, pred_mask, true, true_mask)


def test_shapes_that_disagree_are_errors():
    pred, scores, pred_mask, true, true_mask = _random_scenes(0)
    with pytest.raises(AssertionError):
        boxes.mean_iou(pred, pred_mask[:, :2], true, true_mask)
    with pytest.raises(AssertionError):
        boxes.mean_iou(pred, pred_mask, true[:10], true_mask[:10])
    with pytest.raises(AssertionError):
        boxes.average_precision(pred, scores[:, :1], pred_mask, true, true_mask)
