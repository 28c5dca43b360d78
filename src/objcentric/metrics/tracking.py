"""How well boxes with identities follow true ones: MOTA, IDF1 and identity switches, as TrackEval counts them.

TrackEval is part of the extra ``tracking``.
"""

import importlib.util
from typing import Any

import numpy as np
from jax.typing import ArrayLike

from objcentric.errors import UserError
from objcentric.metrics.boxes import iou


def available() -> bool:
    return importlib.util.find_spec("trackeval") is not None


def evaluate(
    boxes: ArrayLike,
    found: ArrayLike,
    identity: ArrayLike,
    true_boxes: ArrayLike,
    there: ArrayLike,
    true_identity: ArrayLike | None = None,
    *,
    threshold: float = 0.5,
) -> dict[str, float]:
    """Figures over M sequences of T frames.

    Args:
      boxes: ``[M, T, N, 4]``; ``found [M, T, N]`` says which exist, ``identity [M, T, N]`` integers whose they are.
      true_boxes: ``[M, T, R, 4]``, with ``there [M, T, R]``.
      true_identity: ``[M, T, R]``; by default the row in R.
      threshold: least IoU at which a box may match a true one.

    Returns:
      ``mota`` (at most 1) and ``idf1`` in [0, 1]; ``identity_switches``, the share of the true boxes at which the
      identity that follows an object has become another.

    Raises:
      UserError: TrackEval is not installed.
    """
    if not available():
        raise UserError("tracking figures need TrackEval: pip install 'objcentric[tracking]'")
    from trackeval.metrics import CLEAR, Identity

    found, there = np.asarray(found) > 0, np.asarray(there) > 0
    identity = np.asarray(identity)
    if true_identity is None:
        true_identity = np.broadcast_to(np.arange(there.shape[-1]), there.shape)
    overlap = iou(boxes, true_boxes)
    settings = {"THRESHOLD": threshold, "PRINT_CONFIG": False}
    metrics = {"clear": CLEAR(settings), "identity": Identity(settings)}
    results: dict[str, dict[int, Any]] = {name: {} for name in metrics}
    for m in range(len(found)):
        sequence = _sequence(overlap[m], found[m], identity[m], there[m], true_identity[m])
        for name, metric in metrics.items():
            results[name][m] = metric.eval_sequence(sequence)
    clear, identities = (metrics[name].combine_sequences(results[name]) for name in ("clear", "identity"))
    boxes_there = max(int(there.sum()), 1)
    return {
        "mota": float(clear["MOTA"]),
        "idf1": float(identities["IDF1"]),
        "identity_switches": float(clear["IDSW"]) / boxes_there,
    }


def _sequence(
    overlap: np.ndarray, found: np.ndarray, identity: np.ndarray, there: np.ndarray, true_identity: np.ndarray
) -> dict[str, Any]:
    """What TrackEval's metrics read: of each frame the identities, counted from 0 without gaps, and the overlaps."""
    ours, true = np.unique(identity[found]), np.unique(true_identity[there])
    frames = range(len(found))
    return {
        "num_timesteps": len(found),
        "num_tracker_ids": len(ours),
        "num_gt_ids": len(true),
        "num_tracker_dets": int(found.sum()),
        "num_gt_dets": int(there.sum()),
        "tracker_ids": [np.searchsorted(ours, identity[t][found[t]]) for t in frames],
        "gt_ids": [np.searchsorted(true, true_identity[t][there[t]]) for t in frames],
        "similarity_scores": [overlap[t][found[t]][:, there[t]].T for t in frames],
    }
