"""What unsupervised features say of classes, and capsules of the points that they explain; host functions on numpy.

M examples have features of K capsules: their presences, or the responsibilities of each summed over the parts. Labels
are integers ``[M]``, of any values; C clusters are numbered from 0. Accuracies are shares in [0, 1] of the test
examples, of which a class that training lacks counts as wrong. The methods are those of section 6.3.2 of the thesis.

Data that cannot be evaluated raise UserError: NaN or infinite features, lengths or widths that differ, no examples,
fewer of them than clusters, labels that are not integers.
"""

import warnings
from typing import NamedTuple

import numpy as np
from jax.typing import ArrayLike
from scipy.optimize import linear_sum_assignment
from sklearn.cluster import KMeans
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score, pairwise_distances_argmin

from objcentric.errors import UserError

FIGURES = ("max_act", "clust_nn", "lin_match", "lin_match_full", "lin_match_refit", "lin_pred", "nmi", "ari")
_WITHOUT_TRAINING_LABELS = ("lin_match_refit", "nmi", "ari")


class Clusters(NamedTuple):
    centroids: np.ndarray  # [C, K]
    assigned: np.ndarray  # [M], the clusters of the examples that were clustered


def evaluate(
    features_train: ArrayLike,
    labels_train: ArrayLike | None,
    features_test: ArrayLike,
    labels_test: ArrayLike | None,
    more: tuple[ArrayLike, ArrayLike] | None = None,
    *,
    seed: int,
    num_clusters: int | None = None,
    full: bool = True,
) -> dict[str, float]:
    """All of ``FIGURES`` that the given labels allow (`missing` names the others); {} without test labels.

    Args:
      features_train, features_test: ``[M, K]``, ``[M', K]``.
      labels_train, labels_test: ``[M]``, ``[M']``, or None.
      more: features and labels that lin_match_full counts, too: those of the validation split.
      seed: of k-means.
      num_clusters: by default as many as there are classes.
      full: whether to tell lin_match_full, too, which is of one set of data: not if test examples were transformed.

    Returns:
      max_act, clust_nn, lin_pred: as the functions of these names.
      lin_match: clusters fitted and matched to classes in training, scored in test.
      lin_match_full: fitted, matched and scored on all together, as in the thesis ("full datasets").
      lin_match_refit: fitted, matched and scored on the test examples, as in the code that was released; of whose
        features noise is a part.
      nmi, ari: normalised mutual information, in [0, 1], and adjusted Rand index, at most 1 and 0 by chance, of the
        test examples' classes and clusters, which are those of training.

    UserError, too, if ``num_clusters`` is less than the number of classes, of which no matching could be right. A model
    that collapsed is no error: k-means then finds fewer clusters than it should, and the other classes are wrong.
    """
    features_train, features_test = _both(features_train, features_test)
    labels_train = None if labels_train is None else _labels(labels_train, features_train, "train")
    if labels_test is None:
        return {}
    labels_test = _labels(labels_test, features_test, "test")
    labels = labels_test if labels_train is None else np.concatenate([labels_train, labels_test])
    num_classes = len(np.unique(labels))
    num_clusters = num_classes if num_clusters is None else num_clusters
    if num_clusters < num_classes:
        raise UserError(
            f"num_clusters={num_clusters} cannot match the {num_classes} classes of the labels: use {num_classes}"
        )

    clusters = cluster(features_train, num_clusters, seed=seed)
    assigned_test = assign(clusters.centroids, features_test)
    refitted = cluster(features_test, num_clusters, seed=seed).assigned
    figures = {
        "lin_match_refit": lin_match(refitted, labels_test, refitted, labels_test),
        "nmi": float(normalized_mutual_info_score(labels_test, assigned_test)),
        "ari": float(adjusted_rand_score(labels_test, assigned_test)),
    }
    if labels_train is not None:
        data = features_train, labels_train, features_test, labels_test
        figures |= {
            "max_act": max_act(*data),
            "clust_nn": clust_nn(clusters.centroids, *data),
            "lin_match": lin_match(clusters.assigned, labels_train, assigned_test, labels_test),
            "lin_pred": lin_pred(*data),
        }
    if labels_train is not None and full:
        everything = [features_train, features_test]
        if more is not None:
            everything.append(_both(features_train, more[0])[1])
            labels = np.concatenate([labels, _labels(more[1], everything[-1], "more")])
        assigned = cluster(np.concatenate(everything), num_clusters, seed=seed).assigned
        figures["lin_match_full"] = lin_match(assigned, labels, assigned, labels)
    return {name: figures[name] for name in FIGURES if name in figures}


def missing(labels_train: ArrayLike | None, labels_test: ArrayLike | None, *, full: bool = True) -> tuple[str, ...]:
    """Those of ``FIGURES`` that `evaluate` leaves out for lack of labels; without ``full`` not of lin_match_full."""
    wanted = tuple(name for name in FIGURES if full or name != "lin_match_full")
    if labels_test is None:
        return wanted
    return () if labels_train is not None else tuple(n for n in wanted if n not in _WITHOUT_TRAINING_LABELS)


def cluster(features: ArrayLike, num_clusters: int, *, seed: int) -> Clusters:
    """k-means of ``features [M, K]``: the best of ten starts, the same each time for one seed.

    Features that have fewer than ``num_clusters`` distinct rows leave clusters empty.
    """
    features = _features(features, "")
    if not 1 <= num_clusters <= len(features):
        raise UserError(
            f"{len(features)} examples cannot make {num_clusters} clusters: evaluate more of them, or set num_clusters"
        )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # of fewer distinct rows than clusters
        fitted = KMeans(num_clusters, n_init=10, random_state=seed).fit(features)
    return Clusters(fitted.cluster_centers_, fitted.labels_)


def assign(centroids: ArrayLike, features: ArrayLike) -> np.ndarray:
    """The nearest of ``centroids [C, K]`` to each of ``features [M, K]``: ``[M]`` in 0..C - 1, of equals the first."""
    centroids, features = _both(centroids, features)
    return pairwise_distances_argmin(features, centroids)


def max_act(
    features_train: ArrayLike, labels_train: ArrayLike, features_test: ArrayLike, labels_test: ArrayLike
) -> float:
    """MAX-ACT: accuracy if a capsule has the class of the training example that activates it most, an example the
    class of its most active capsule; of equals the first.
    """
    features_train, features_test = _both(features_train, features_test)
    labels_train = _labels(labels_train, features_train, "train")
    labels_test = _labels(labels_test, features_test, "test")
    of_capsule = labels_train[np.argmax(features_train, axis=0)]
    return float(np.mean(of_capsule[np.argmax(features_test, axis=1)] == labels_test))


def clust_nn(
    centroids: ArrayLike,
    features_train: ArrayLike,
    labels_train: ArrayLike,
    features_test: ArrayLike,
    labels_test: ArrayLike,
) -> float:
    """CLUST-NN: accuracy if a cluster has the class of the training example nearest to its centroid.

    Several clusters may have one class, so that more of them than classes are of use here.
    """
    features_train, features_test = _both(features_train, features_test)
    labels_train = _labels(labels_train, features_train, "train")
    labels_test = _labels(labels_test, features_test, "test")
    of_cluster = labels_train[assign(features_train, centroids)]
    return float(np.mean(of_cluster[assign(centroids, features_test)] == labels_test))


def lin_match(
    assigned_train: ArrayLike, labels_train: ArrayLike, assigned_test: ArrayLike, labels_test: ArrayLike
) -> float:
    """LIN-MATCH: accuracy under the one-to-one matching of clusters and classes that is best in training.

    Args:
      assigned_train, assigned_test: ``[M]``, ``[M']`` integers, the clusters of the examples.

    Clusters and classes that have no partner, as there are more of the one than of the other, count as wrong. To match
    and score the same examples, as usual in unsupervised classification, give them twice.
    """
    assigned_train, assigned_test = np.asarray(assigned_train), np.asarray(assigned_test)
    labels_train = _labels(labels_train, assigned_train, "train")
    labels_test = _labels(labels_test, assigned_test, "test")
    clusters, of_cluster = np.unique(assigned_train, return_inverse=True)
    classes, of_class = np.unique(labels_train, return_inverse=True)
    counts = np.zeros((len(clusters), len(classes)), np.int64)
    np.add.at(counts, (of_cluster, of_class), 1)
    right = sum(
        np.sum((assigned_test == clusters[i]) & (labels_test == classes[j]))
        for i, j in zip(*linear_sum_assignment(counts, maximize=True), strict=True)
    )
    return float(right / len(labels_test))


def lin_pred(
    features_train: ArrayLike, labels_train: ArrayLike, features_test: ArrayLike, labels_test: ArrayLike
) -> float:
    """LIN-PRED: accuracy of a linear softmax classifier of the features, trained on the training examples.

    It has a weight for each capsule and class and a bias for each class, fitted by L-BFGS to the sum of cross-entropies
    plus half the squared weights: this bounds them where classes are separable, and is little beside thousands of
    examples. Features are standardised first, which linear classifiers cannot see but their penalty and
    the pace of the fit do: without it summed responsibilities and presences would be treated differently. Those with
    less than a thousandth of the largest spread are not enlarged further, nor rounding errors: capsules may be dead.
    """
    features_train, features_test = _both(features_train, features_test)
    labels_train = _labels(labels_train, features_train, "train")
    labels_test = _labels(labels_test, features_test, "test")
    if np.all(labels_train == labels_train[0]):
        return float(np.mean(labels_test == labels_train[0]))
    mean, spread = np.mean(features_train, 0, np.float64), np.std(features_train, 0, np.float64)
    spread = np.maximum(spread, max(1e-3 * spread.max(), 1e-6))
    classifier = LogisticRegression(max_iter=1000).fit((features_train - mean) / spread, labels_train)
    return float(np.mean(classifier.predict((features_test - mean) / spread) == labels_test))


def segmentation_accuracy(
    assigned: ArrayLike, true: ArrayLike, presence: ArrayLike, num_assigned: int, num_true: int
) -> float:
    """Share in [0, 1] of all points of all examples that are `rightly_assigned`; NaN without points.

    The "segmentation accuracy (i.e., the true-positive rate)" of section 6.3.1 of the thesis, whose error is 1 - this.
    """
    right, points = rightly_assigned(assigned, true, presence, num_assigned, num_true)
    return float(right.sum() / points.sum()) if points.any() else float("nan")


def rightly_assigned(
    assigned: ArrayLike, true: ArrayLike, presence: ArrayLike, num_assigned: int, num_true: int
) -> tuple[np.ndarray, np.ndarray]:
    """Numbers of points that are assigned to the right constellation, int ``[M]``, and of all there are, ``[M]``.

    In each example capsules and constellations are matched one to one as is best for it. All capsules take part, also
    those that have no point: to match only the numbers that occur among the predictions would deny their constellations
    to capsules of other numbers.

    Args:
      assigned: ``[M, N]`` integers in 0..num_assigned - 1, the capsules of the points.
      true: ``[M, N]`` integers in 0..num_true - 1, their constellations.
      presence: ``[M, N]``, there is a point above 0.5; where there is none the other two may be anything.

    Raises:
      ValueError: shapes or numbers are others.
    """
    assigned, true, there = np.asarray(assigned), np.asarray(true), np.asarray(presence) > 0.5
    if not (assigned.ndim == 2 and assigned.shape == true.shape == there.shape):
        raise ValueError(f"points have shapes {assigned.shape}, {true.shape} and {there.shape}, not one [M, N]")
    for name, ids, size in (("assigned", assigned, num_assigned), ("true", true, num_true)):
        if np.any((ids[there] < 0) | (ids[there] >= size)):
            raise ValueError(f"{name} numbers span {ids[there].min()}..{ids[there].max()}, outside 0..{size - 1}")
    counts = np.zeros((len(there), num_assigned, num_true), np.int64)
    np.add.at(counts, (np.nonzero(there)[0], assigned[there], true[there]), 1)
    right = [example[linear_sum_assignment(example, maximize=True)].sum() for example in counts]
    return np.array(right, np.int64), there.sum(1)


def _both(features_train: ArrayLike, features_test: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    train, test = _features(features_train, " (train)"), _features(features_test, " (test)")
    if train.shape[1] != test.shape[1]:
        raise UserError(f"features are of {train.shape[1]} and of {test.shape[1]} capsules: take both from one model")
    return train, test


def _features(features: ArrayLike, which: str) -> np.ndarray:
    features = np.asarray(features, np.float32)  # as models make them; k-means then takes half the time
    if features.ndim != 2 or not features.size:
        raise UserError(f"features{which} have shape {features.shape}: give a row for each example, one at least")
    bad = int(np.sum(~np.isfinite(features).all(1)))
    if bad:
        raise UserError(f"features{which} are NaN or infinite in {bad} of {len(features)} examples: the model diverged")
    return features


def _labels(labels: ArrayLike, examples: np.ndarray, split: str) -> np.ndarray:
    labels = np.asarray(labels)
    if labels.shape != examples.shape[:1] or not labels.size:
        raise UserError(
            f"labels ({split}) have shape {labels.shape} for {len(examples)} examples: give one for each, one at least"
        )
    if labels.dtype.kind not in "biu":
        raise UserError(f"labels ({split}) are {labels.dtype}: number the classes by integers")
    return labels.astype(np.int64)
