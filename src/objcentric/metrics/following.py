"""How well boxes follow objects that a tracker was given; host functions on numpy arrays.

Slot i of a prediction is slot i of the truth, so that nothing is matched (for trackers that find their objects there is
`objcentric.metrics.tracking`). Boxes are (y0, x0, y1, x1) in pixels. In M videos of T frames with N slots, ``presence``
says which true boxes there are; only those count. A predicted box with a corner that is NaN or infinite is wrong: its
IoU is 0 and its centre infinitely far away.

``first`` is the first frame that counts, from 0: the given ones are known to the tracker and say nothing about it.
"""

import chex
import numpy as np
from jax.typing import ArrayLike

from objcentric.metrics import boxes

OVERLAPS = np.linspace(0, 1, 21)  # thresholds of `success_curve`
DISTANCES = np.arange(51)  # and of `precision_curve`, pixels


def iou_per_step(pred: ArrayLike, true: ArrayLike, presence: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """Mean IoU of the boxes of each frame, float64 ``[T]``, NaN where there are none, and their numbers, ``[T]``.

    Args:
      pred: ``[M, T, N, 4]``.
      true: ``[M, T, N, 4]``.
      presence: ``[M, T, N]``, there is a box above 0.5.
    """
    pred, true, there = _checked(pred, true, presence)
    total, count = np.sum(_iou(pred, true) * there, axis=(0, 2)), np.sum(there, axis=(0, 2))
    return np.divide(total, count, out=np.full(len(count), np.nan), where=count > 0), count


def mean_iou(pred: ArrayLike, true: ArrayLike, presence: ArrayLike, *, first: int = 1) -> float:
    """Mean IoU of all boxes from frame ``first`` on; NaN without any. Arguments as in `iou_per_step`."""
    pred, true, there = _checked(pred, true, presence)
    return _share(_iou(pred, true), there, first)


def success_curve(
    pred: ArrayLike, true: ArrayLike, presence: ArrayLike, *, thresholds: ArrayLike = OVERLAPS, first: int = 1
) -> np.ndarray:
    """Share of the boxes from frame ``first`` on whose IoU is above each threshold, float64 ``[K]``; NaN without any.

    The success plot of Wu et al., *Online Object Tracking: A Benchmark* (OTB), 2013, section 4.1. Arguments as in
    `iou_per_step`; ``thresholds [K]`` in [0, 1].
    """
    pred, true, there = _checked(pred, true, presence)
    overlap = _iou(pred, true)
    return np.array([_share(overlap > threshold, there, first) for threshold in np.asarray(thresholds)])


def area(shares: ArrayLike) -> float:
    """Area under a curve of evenly spaced thresholds, in [0, 1]: the mean of its shares, as OTB's own.

    That of `success_curve` is about the mean IoU. Perfect boxes have 20/21, for no IoU is above 1.
    """
    return float(np.mean(shares))


def precision_curve(
    pred: ArrayLike, true: ArrayLike, presence: ArrayLike, *, thresholds: ArrayLike = DISTANCES, first: int = 1
) -> np.ndarray:
    """Share of the boxes from frame ``first`` on whose centre is within each distance of the true one, float64 ``[K]``.

    The precision plot of Wu et al., 2013, section 4.1, who compare trackers at 20 pixels. Arguments as in
    `iou_per_step`; ``thresholds [K]`` in pixels. NaN without any box.
    """
    pred, true, there = _checked(pred, true, presence)
    offset = np.mean((pred - true).reshape(*there.shape, 2, 2), axis=-2)
    error = np.hypot(offset[..., 0], offset[..., 1])  # NaN is within no distance
    return np.array([_share(error <= threshold, there, first) for threshold in np.asarray(thresholds)])


def static(true: ArrayLike, presence: ArrayLike, *, given: int = 1) -> np.ndarray:
    """The baseline that predicts no motion: each object keeps its box of the last given frame that has it.

    Args:
      true: ``[M, T, N, 4]``.
      presence: ``[M, T, N]``, there is a box above 0.5.
      given: number of known frames, at least 1.

    Returns:
      float64 ``[M, T, N, 4]``: true boxes in the given frames, predictions in the others, and NaN for an object that no
      given frame has.
    """
    true, presence = _given(true, presence, given, least=1)
    return _continue(true, _last_seen(true, presence, given)[1], 0.0, given)


def momentum(true: ArrayLike, presence: ArrayLike, *, given: int = 2) -> np.ndarray:
    """The baseline of figure 4.7 of the thesis: corners go on as between the last two given frames that have an object.

    Arguments and result as in `static`, but ``given`` is at least 2. An object that only one given frame has stays.
    """
    true, presence = _given(true, presence, given, least=2)
    last, box = _last_seen(true, presence, given)
    earlier = presence & (np.arange(presence.shape[1])[:, None] < last[:, None])
    before, box_before = _last_seen(true, earlier, given)
    moved = before >= 0
    pace = np.where(moved[..., None], (box - box_before) / np.maximum(last - before, 1)[..., None], 0.0)
    return _continue(true, box + (given - 1 - last)[..., None] * pace, pace, given)


def _last_seen(true: np.ndarray, presence: np.ndarray, given: int) -> tuple[np.ndarray, np.ndarray]:
    """The last given frame that has an object, ``[M, N]``, and its box there, ``[M, N, 4]``; else -1 and NaN."""
    frames = np.arange(given)[:, None]
    last = np.max(np.where(presence[:, :given], frames, -1), axis=1)
    box = np.take_along_axis(true, np.maximum(last, 0)[:, None, :, None], axis=1)[:, 0]
    return last, np.where(last[..., None] >= 0, box, np.nan)


def _continue(true: np.ndarray, box: np.ndarray, pace: np.ndarray | float, given: int) -> np.ndarray:
    steps = np.arange(1, true.shape[1] - given + 1)[:, None, None]
    pace = np.broadcast_to(pace, box.shape)
    return np.concatenate([true[:, :given], box[:, None] + steps * pace[:, None]], axis=1)


def _given(true: ArrayLike, presence: ArrayLike, given: int, *, least: int) -> tuple[np.ndarray, np.ndarray]:
    _, true, there = _checked(true, true, presence)
    if not least <= given <= true.shape[1]:
        raise ValueError(f"given={given}: use {least} to {true.shape[1]}, the number of frames")
    return true, there


def _checked(pred: ArrayLike, true: ArrayLike, presence: ArrayLike) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    pred, true, there = np.asarray(pred, np.float64), np.asarray(true, np.float64), np.asarray(presence) > 0.5
    chex.assert_shape(true, (None, None, None, 4))
    chex.assert_equal_shape([pred, true])
    chex.assert_shape(there, true.shape[:3])
    pred, true = (np.where(np.isfinite(box).all(-1, keepdims=True), box, np.nan) for box in (pred, true))
    return pred, true, there


def _iou(pred: np.ndarray, true: np.ndarray) -> np.ndarray:
    """IoU ``[M, T, N]``, 0 for boxes that are NaN."""
    return boxes.iou(pred[..., None, :], true[..., None, :])[..., 0, 0]


def _share(values: np.ndarray, there: np.ndarray, first: int) -> float:
    """Mean of ``values [M, T, N]`` where there are boxes, from frame ``first`` on."""
    counted = values[:, first:][there[:, first:]]
    return float(np.mean(counted)) if counted.size else float("nan")
