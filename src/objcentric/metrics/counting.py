"""Counting objects: how many a model finds, how often that is right, and how a training went wrong if it did."""

import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

SUCCESS = 0.98  # count accuracy from which a training counts as successful
_MOST = 0.8  # share of the scenes of each true count that must show a symptom
_STUCK = (0.75, 0.85)


def most_probable_count(presence_prob: ArrayLike) -> Array:
    """The mode of q(n | x), int32 ``[...]`` in 0..N; of equally probable counts the smallest.

    Args:
      presence_prob: ``[..., N]``, p_i = q(slot i is present | slot i - 1 is), so that n present slots have
        q(n) = prod_{i <= n} p_i (1 - p_{n+1}), without the last factor for n = N.
    """
    p = jnp.asarray(presence_prob)
    one = jnp.ones_like(p[..., :1])
    reached = jnp.concatenate([one, jnp.cumprod(p, axis=-1)], axis=-1)
    stopped = jnp.concatenate([1.0 - p, one], axis=-1)
    return jnp.argmax(reached * stopped, axis=-1).astype(jnp.int32)


def count_accuracy(predicted: ArrayLike, true: ArrayLike) -> Array:
    """Share in [0, 1] of the scenes whose count is right; both ``[M]``; NaN for M = 0."""
    predicted, true = jnp.asarray(predicted), jnp.asarray(true)
    if predicted.shape != true.shape:
        raise ValueError(f"predicted counts have shape {predicted.shape}, true ones {true.shape}")
    return jnp.mean(predicted == true)


def confusion_matrix(predicted: ArrayLike, true: ArrayLike, num_classes: int) -> np.ndarray:
    """Number of scenes int64 ``[num_classes, num_classes]`` by true (row) and predicted (column) count.

    Args:
      predicted, true: ``[M]`` integers in 0..num_classes - 1; others raise ValueError.
    """
    predicted, true = np.asarray(predicted), np.asarray(true)
    if predicted.shape != true.shape or true.ndim != 1:
        raise ValueError(f"counts must be two vectors of one length, not of shapes {predicted.shape} and {true.shape}")
    for name, counts in (("predicted", predicted), ("true", true)):
        if np.any((counts < 0) | (counts >= num_classes)):
            raise ValueError(f"{name} counts span {counts.min()}..{counts.max()}, outside 0..{num_classes - 1}")
    cells = true.astype(np.int64) * num_classes + predicted.astype(np.int64)
    return np.bincount(cells, minlength=num_classes**2).reshape(num_classes, num_classes)


def failure_signature(accuracy: float, confusion: ArrayLike) -> str | None:
    """Names what went wrong in training, or None if ``accuracy`` is at least 0.98.

    Args:
      accuracy: count accuracy.
      confusion: ``[N + 1, N + 1]`` for a model of N slots, as of `confusion_matrix`; true counts that do not occur are
        rows of zeros. A symptom must show in 80% of the scenes of each true count concerned, so that the mix of
        counts in the data does not matter.
    """
    if accuracy >= SUCCESS:
        return None
    confusion = np.asarray(confusion)
    if confusion.ndim != 2 or confusion.shape[0] != confusion.shape[1]:
        raise ValueError(f"a confusion matrix is square, not {confusion.shape}")
    scenes = confusion.sum(1)
    if not scenes.any():
        raise ValueError("a confusion matrix without scenes shows no failure")
    occurs = np.flatnonzero(scenes)
    share = confusion[occurs] / scenes[occurs, None]
    slots = len(confusion) - 1

    same = int(np.argmax(share.min(0)))
    if share[:, same].min() >= _MOST and np.any(occurs != same):
        names = {0: "always none", slots: f"always all slots ({slots})"}
        return names.get(same, f"always the same number of slots ({same})")

    right = share[np.arange(len(occurs)), occurs]
    too_few = np.array([row[1:count].sum() for row, count in zip(share, occurs, strict=True)])
    several = occurs >= 2
    if several.any() and np.all(np.where(several, too_few, right) >= _MOST):
        return "two objects in one glimpse"

    if _STUCK[0] <= accuracy <= _STUCK[1]:
        return "stuck at .80 (bad baseline)"

    wrong = confusion * (1 - np.eye(len(confusion), dtype=confusion.dtype))
    true, predicted = np.unravel_index(np.argmax(wrong), wrong.shape)
    return f"no known signature; most often {true} read as {predicted}"
