"""Quality of predicted boxes against true ones; host functions on numpy arrays.

A box is (y0, x0, y1, x1) in pixels, half-open; ``M`` scenes have ``N`` predicted and ``R`` true boxes each, of which
the masks say which exist.
"""

import chex
import numpy as np
from jax.typing import ArrayLike
from scipy.optimize import linear_sum_assignment

THRESHOLDS = tuple((50 + 5 * i) / 100 for i in range(10))  # .50, .55, ..., .95, as COCO


def iou(boxes_a: ArrayLike, boxes_b: ArrayLike) -> np.ndarray:
    """Intersection over union of all pairs, float64 ``[..., A, B]`` in [0, 1].

    Args:
      boxes_a: ``[..., A, 4]``.
      boxes_b: ``[..., B, 4]``, with the same or broadcastable leading axes.

    A box without area (y1 <= y0 or x1 <= x0) or with NaN overlaps nothing: 0, also with itself.
    """
    a = np.asarray(boxes_a, np.float64)[..., :, None, :]
    b = np.asarray(boxes_b, np.float64)[..., None, :, :]
    chex.assert_axis_dimension(a, -1, 4)
    chex.assert_axis_dimension(b, -1, 4)
    intersection = _area(np.maximum(a[..., :2], b[..., :2]), np.minimum(a[..., 2:], b[..., 2:]))
    union = _area(a[..., :2], a[..., 2:]) + _area(b[..., :2], b[..., 2:]) - intersection
    return np.divide(intersection, union, out=np.zeros_like(union), where=union > 0)


def _area(start: np.ndarray, end: np.ndarray) -> np.ndarray:
    return np.prod(np.maximum(end - start, 0.0), axis=-1)


def mean_iou(pred: ArrayLike, pred_mask: ArrayLike, true: ArrayLike, true_mask: ArrayLike) -> float:
    """Mean over all true boxes of their IoU under the best one-to-one assignment in each scene; NaN without any.

    Args:
      pred: ``[M, N, 4]``.
      pred_mask: ``[M, N]``.
      true: ``[M, R, 4]``.
      true_mask: ``[M, R]``.

    A true box that gets no prediction counts 0. Surplus predictions neither lower nor raise it, whether in scenes with
    true boxes or without: this is a measure of how well what is there is located; `average_precision` punishes them.
    """
    overlap, _, true_mask = _overlap(pred, pred_mask, true, true_mask)
    if not true_mask.any():
        return float("nan")
    total = 0.0
    for scene in overlap:
        total += scene[linear_sum_assignment(scene, maximize=True)].sum()
    return float(total / true_mask.sum())


def average_precision(
    pred: ArrayLike,
    scores: ArrayLike,
    pred_mask: ArrayLike,
    true: ArrayLike,
    true_mask: ArrayLike,
    *,
    threshold: float = 0.5,
) -> float:
    """Area in [0, 1] under the precision-recall curve of the whole set, by all points (Pascal VOC 2010 and later).

    Predictions are taken in order of their score. One is right if the true box of its scene that it overlaps most has
    an IoU of at least ``threshold`` with it and no earlier prediction had that box; every other one is wrong, also
    those of scenes without true boxes. Precision at a recall is the best at that recall or a higher one. Equal scores
    make one point of the curve, so that the order of predictions and of scenes does not matter.

    Args:
      pred: ``[M, N, 4]``.
      scores: ``[M, N]``, higher is surer, comparable between scenes.
      pred_mask: ``[M, N]``.
      true: ``[M, R, 4]``.
      true_mask: ``[M, R]``.

    Returns NaN if there is no true box, 0 if there is no prediction.
    """
    overlap, pred_mask, true_mask = _overlap(pred, pred_mask, true, true_mask)
    scores = np.asarray(scores)
    chex.assert_equal_shape([scores, pred_mask])
    return _average_precision(overlap, scores, pred_mask, true_mask, threshold)


def mean_average_precision(
    pred: ArrayLike, scores: ArrayLike, pred_mask: ArrayLike, true: ArrayLike, true_mask: ArrayLike
) -> float:
    """Mean of `average_precision` over the IoU thresholds .50, .55, ..., .95."""
    overlap, pred_mask, true_mask = _overlap(pred, pred_mask, true, true_mask)
    scores = np.asarray(scores)
    chex.assert_equal_shape([scores, pred_mask])
    return float(np.mean([_average_precision(overlap, scores, pred_mask, true_mask, t) for t in THRESHOLDS]))


def _overlap(pred, pred_mask, true, true_mask) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """IoU ``[M, N, R]``, 0 where either box does not exist, and both masks as bool."""
    pred, true = np.asarray(pred), np.asarray(true)
    pred_mask, true_mask = np.asarray(pred_mask).astype(bool), np.asarray(true_mask).astype(bool)
    chex.assert_shape(pred, (None, None, 4))
    chex.assert_shape(true, (len(pred), None, 4))
    chex.assert_shape(pred_mask, pred.shape[:2])
    chex.assert_shape(true_mask, true.shape[:2])
    return iou(pred, true) * (pred_mask[:, :, None] & true_mask[:, None, :]), pred_mask, true_mask


def _average_precision(overlap, scores, pred_mask, true_mask, threshold: float) -> float:
    num_true = true_mask.sum()
    if not num_true:
        return float("nan")
    if not pred_mask.any():
        return 0.0
    num_scenes, _, num_boxes = overlap.shape
    best = np.argmax(overlap, axis=-1) + num_boxes * np.arange(num_scenes)[:, None]  # a number for each true box
    hit = overlap.max(axis=-1) >= threshold

    best, hit, scores = best[pred_mask], hit[pred_mask], scores[pred_mask]
    order = np.argsort(-scores, kind="stable")
    best, hit, scores = best[order], hit[order], scores[order]
    hits = np.flatnonzero(hit)
    _, first = np.unique(best[hits], return_index=True)
    right = np.zeros(len(scores))
    right[hits[first]] = 1.0

    last_of_score = np.append(scores[1:] != scores[:-1], True)
    num_right = np.cumsum(right)[last_of_score]
    precision = num_right / (np.flatnonzero(last_of_score) + 1)
    precision = np.maximum.accumulate(precision[::-1])[::-1]
    return float(np.sum(np.diff(num_right, prepend=0.0) * precision) / num_true)
