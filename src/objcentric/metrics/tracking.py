"""How well boxes with identities follow true ones: MOTA, IDF1, identity switches and HOTA, as TrackEval counts them.

TrackEval is part of the extra ``tracking``.
"""

import importlib.util
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
from jax.typing import ArrayLike
from scipy.optimize import linear_sum_assignment

from objcentric.errors import UserError
from objcentric.metrics.boxes import iou

FAMILIES = ("clear", "identity", "hota")
_FIGURES = {  # our name: TrackEval's family and name
    "mota": ("clear", "MOTA"),
    "idf1": ("identity", "IDF1"),
    "identity_switches": ("clear", "IDSW"),
    "tracked": ("clear", "CLR_Re"),
    "hota": ("hota", "HOTA"),
    "deta": ("hota", "DetA"),
    "assa": ("hota", "AssA"),
}


def available(figures: str = "") -> bool:
    """Whether TrackEval is there; if it is not, a line on stderr says that ``figures`` are left out."""
    there = importlib.util.find_spec("trackeval") is not None
    if figures and not there:
        print(f"TrackEval is missing: without {figures}; pip install 'objcentric[tracking]'", file=sys.stderr)
    return there


def evaluate(
    boxes: ArrayLike,
    found: ArrayLike,
    identity: ArrayLike,
    true_boxes: ArrayLike,
    there: ArrayLike,
    true_identity: ArrayLike | None = None,
    *,
    threshold: float = 0.5,
    families: Sequence[str] = ("clear", "identity"),
) -> dict[str, float]:
    """Figures over M sequences of T frames.

    Args:
      boxes: ``[M, T, N, 4]``; ``found [M, T, N]`` says which exist, ``identity [M, T, N]`` integers whose they are.
      true_boxes: ``[M, T, R, 4]``, with ``there [M, T, R]``.
      true_identity: ``[M, T, R]``; by default the row in R.
      threshold: least IoU at which a box may match a true one; HOTA has its own, .05 to .95.
      families: which figures are wanted, of ``FAMILIES``. Those of HOTA take several times as long as all others.

    Returns:
      Of 'clear', ``mota`` (at most 1), ``tracked``, the share of the true boxes that are matched, and
      ``identity_switches``, the share of the true boxes at which the identity that follows an object has become
      another; of 'identity', ``idf1``; of 'hota', ``hota`` and its parts, ``deta`` for detection and ``assa`` for
      association (Luiten et al., *HOTA: A Higher Order Metric for Evaluating Multi-Object Tracking*, 2020), each the
      mean over HOTA's 19 thresholds. All but MOTA are in [0, 1].

    Raises:
      UserError: TrackEval is not installed.
      ValueError: there is no such family.
    """
    if not set(families) <= set(FAMILIES):
        raise ValueError(f"families={families!r}: choose of {', '.join(FAMILIES)}")
    if not available():
        raise UserError("tracking figures need TrackEval: pip install 'objcentric[tracking]'")
    from trackeval.metrics import CLEAR, HOTA, Identity

    found, there = np.asarray(found) > 0, np.asarray(there) > 0
    identity = np.asarray(identity)
    if true_identity is None:
        true_identity = np.broadcast_to(np.arange(there.shape[-1]), there.shape)
    overlap = iou(boxes, true_boxes)
    settings = {"THRESHOLD": threshold, "PRINT_CONFIG": False}
    made = {"clear": lambda: CLEAR(settings), "identity": lambda: Identity(settings), "hota": HOTA}
    metrics = {family: made[family]() for family in families}
    results: dict[str, dict[int, Any]] = {name: {} for name in metrics}
    for m in range(len(found)):
        sequence = _sequence(overlap[m], found[m], identity[m], there[m], true_identity[m])
        for name, metric in metrics.items():
            results[name][m] = metric.eval_sequence(sequence)
    combined = {name: metric.combine_sequences(results[name]) for name, metric in metrics.items()}
    figures = {
        name: float(np.mean(combined[family][field]))
        for name, (family, field) in _FIGURES.items()
        if family in combined
    }
    if "identity_switches" in figures:
        figures["identity_switches"] /= max(int(there.sum()), 1)
    return figures


def rediscoveries(
    boxes: ArrayLike,
    found: ArrayLike,
    identity: ArrayLike,
    true_boxes: ArrayLike,
    there: ArrayLike,
    *,
    threshold: float = 0.5,
) -> float:
    """How often in a sequence, on average, a new identity takes up an object that another one has followed before.

    In each frame boxes match true ones, so that the sum of their IoUs is largest; those of less than ``threshold`` do
    not count. Identities that change places are not new. Needs no TrackEval; arguments are those of `evaluate`.
    """
    overlap = iou(boxes, true_boxes) * (np.asarray(found) > 0)[..., None] * (np.asarray(there) > 0)[..., None, :]
    total = 0
    for sequence, identities in zip(overlap, np.asarray(identity), strict=True):
        known: set[int] = set()  # identities that have matched
        followed: set[int] = set()  # true objects that were matched
        for frame, names in zip(sequence, identities, strict=True):
            rows, columns = linear_sum_assignment(frame, maximize=True)
            right = frame[rows, columns] >= threshold
            pairs = list(zip(names[rows[right]].tolist(), columns[right].tolist(), strict=True))
            total += sum(name not in known and true in followed for name, true in pairs)
            known |= {name for name, _ in pairs}
            followed |= {true for _, true in pairs}
    return total / len(overlap)


def path_errors(
    boxes: ArrayLike, found: ArrayLike, true_boxes: ArrayLike, there: ArrayLike, *, given: int, canvas: tuple[int, int]
) -> dict[str, Any]:
    """How far imagined boxes are from where objects truly go after the ``given`` frames.

    In the last given frame boxes and true ones are matched, so that the sum of their IoUs is largest; those that
    overlap are followed from there, by slot, in the later frames where the true one is there.

    Args:
      boxes: ``[M, T, N, 4]``, as seen in the given frames, imagined in later ones; ``found [M, T, N]``.
      true_boxes: ``[M, T, R, 4]``, with ``there [M, T, R]``.
      given: from 2 to T - 1.
      canvas: height and width, pixels.

    Returns:
      Mean distances of centres, in pixels: ``path_error``, ``path_copied_error`` of boxes that stay as they were in the
      last given frame, ``path_momentum_error`` of those that go on as in the last two, if they were found in both,
      ``path_mirrored_error`` of those that do but turn round where their top left corner leaves the canvas, as that of
      digits with the paper's motion does (`objcentric.data.moving`); and ``path_kept``, the share of the followed ones
      that is still found. The same with ``_t``: lists, of each later frame. NaN without any to follow.
    """
    overlap = iou(boxes, true_boxes) * (np.asarray(found) > 0)[..., None] * (np.asarray(there) > 0)[..., None, :]
    (centre, true), found = (_centres(each) for each in (boxes, true_boxes)), np.asarray(found) > 0
    there, last = np.asarray(there) > 0, given - 1
    later = np.arange(1, there.shape[1] - last)[:, None]
    names = ("path_error", "path_copied_error", "path_momentum_error", "path_mirrored_error", "path_kept")
    sides = np.asarray(canvas, float)
    followed: dict[str, list[np.ndarray]] = {name: [np.zeros((0, len(later)))] for name in names}
    for m in range(len(overlap)):
        for n, r in zip(*linear_sum_assignment(overlap[m, last], maximize=True), strict=True):
            if not overlap[m, last, n, r] > 0:
                continue
            step = (centre[m, last, n] - centre[m, last - 1, n]) * found[m, last - 1, n]
            ahead = centre[m, last, n] + later * step
            half = centre[m, last, n] - np.asarray(boxes)[m, last, n, :2]
            mirrored = half + sides - np.abs(sides - (ahead - half) % (2 * sides))
            guesses = centre[m, given:, n], centre[m, last, n], ahead, mirrored
            rows = [np.linalg.norm(guess - true[m, given:, r], axis=-1) for guess in guesses]
            for name, row in zip(names, [*rows, found[m, given:, n]], strict=True):
                followed[name].append(np.where(there[m, given:, r], row, np.nan)[None])
    return _means({name: np.concatenate(rows) for name, rows in followed.items()})


def look_errors(glimpses: ArrayLike, identity: ArrayLike, given: int) -> dict[str, Any]:
    """How far the looks of imagined objects are from those that they had in the last of the ``given`` frames.

    Args:
      glimpses: ``[M, T, N, h, w, C]``, as seen in the given frames, imagined in later ones.
      identity: integers ``[M, T, N]``, those of one object the same in all frames, -1 where there is none.

    Returns:
      Mean squared differences per pixel, of all later frames where an object still is: ``error``, and ``other_error``,
      that of the look of another object, the next one that was given. The same with ``_t``: lists, of each later
      frame. NaN without any.
    """
    glimpses, identity = np.asarray(glimpses), np.asarray(identity)
    last, later = glimpses[:, given - 1], glimpses[:, given:]
    known = identity[:, given - 1] >= 0
    others = np.zeros_like(last)
    others[known] = np.roll(last[known], -1, axis=0)
    kept = known[:, None] & (identity[:, given:] == identity[:, given - 1, None])
    rows = {}
    for name, looks in (("error", last), ("other_error", others)):
        differences = np.mean(np.square(later - looks[:, None]), axis=(-3, -2, -1))
        rows[name] = np.swapaxes(np.where(kept, differences, np.nan), 1, 2).reshape(-1, later.shape[1])
    return _means(rows)


def _means(rows: dict[str, np.ndarray]) -> dict[str, Any]:
    """Means of what is not NaN in arrays ``[P, T]``: by their names of all, and with ``_t`` of each column."""
    figures: dict[str, Any] = {}
    for name, each in rows.items():
        counts = ~np.isnan(each)
        numbers, sums = counts.sum(0), np.sum(each, 0, where=counts)
        figures[name] = float(sums.sum() / numbers.sum()) if numbers.any() else float("nan")
        figures[f"{name}_t"] = [float(s / n) if n else float("nan") for s, n in zip(sums, numbers, strict=True)]
    return figures


def _centres(boxes: ArrayLike) -> np.ndarray:
    boxes = np.asarray(boxes, np.float64)
    return (boxes[..., :2] + boxes[..., 2:]) / 2


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
