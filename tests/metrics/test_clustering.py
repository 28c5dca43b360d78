"""Known answers on a handful of examples, and on blobs that k-means cannot mistake."""

import itertools

import numpy as np
import pytest

from objcentric.errors import UserError
from objcentric.metrics import clustering

# Three capsules: the examples that activate them most are of classes 7, 4 and 4.
TRAIN = np.array([[0.9, 0.1, 0.0], [0.2, 0.8, 0.1], [0.1, 0.3, 0.6], [0.8, 0.7, 0.5]])
LABELS = np.array([7, 4, 4, 9])


def make_blobs(seed: int, *, examples: int = 30, classes: int = 4, capsules: int = 6, wrong: int = 0):
    """``examples`` of each class about a corner of the unit cube, shuffled; ``wrong`` of them are mislabelled."""
    rng = np.random.default_rng(seed)
    corners = np.array(list(itertools.product((0.0, 1.0), repeat=capsules)))[3 : 3 + classes]
    labels = rng.permutation(np.repeat(np.arange(classes), examples))
    features = corners[labels] + rng.uniform(-0.05, 0.05, (len(labels), capsules))
    labels[:wrong] = (labels[:wrong] + 1) % classes
    return features, labels


def test_max_act_by_hand():
    test = [[0.6, 0.5, 0.0], [0.1, 0.2, 0.3], [0.0, 1.0, 0.0], [0.9, 0.0, 0.0]]  # read as 7, 4, 4, 7
    assert clustering.max_act(TRAIN, LABELS, test, [7, 4, 7, 9]) == 0.5
    assert clustering.max_act(TRAIN, LABELS, test, [7, 4, 4, 7]) == 1
    assert clustering.max_act(TRAIN, LABELS, TRAIN, LABELS) == 0.75  # no capsule is of class 9


def test_clust_nn_by_hand():
    """The nearest example gives its class to the cluster, however many others the cluster has."""
    centroids = [[0.0, 0.0], [10.0, 0.0], [20.0, 0.0]]
    features = [[0.1, 0.0], [1.0, 0.0], [0.0, 1.0], [10.0, 3.0], [19.0, 0.0]]
    labels = [5, 2, 2, 8, 5]
    test = [[-3.0, 0.0], [4.9, 0.0], [5.1, 0.0], [40.0, 0.0]]  # in clusters of classes 5, 5, 8, 5
    assert clustering.clust_nn(centroids, features, labels, test, [5, 5, 8, 5]) == 1
    assert clustering.clust_nn(centroids, features, labels, test, [2, 5, 8, 8]) == 0.5


def test_lin_match_by_hand():
    """Best as a whole, not by the majority of each cluster, which would be one class twice."""
    assigned, labels = [0, 0, 0, 0, 0, 1, 1, 1, 1], [3, 3, 3, 6, 6, 3, 3, 3, 6]
    # Cluster 0 with class 6 and 1 with 3 make 2 + 3, the other way round 3 + 1.
    assert clustering.lin_match(assigned, labels, assigned, labels) == pytest.approx(5 / 9)
    assert clustering.lin_match(assigned, labels, [0, 1, 1, 0], [6, 3, 6, 3]) == 0.5
    assert clustering.lin_match(assigned, labels, [0, 1, 2], [6, 8, 6]) == pytest.approx(1 / 3)  # not in training


def test_lin_match_leaves_what_has_no_partner_wrong():
    labels = np.repeat([0, 1, 2], 4)
    assert clustering.lin_match(labels, labels, labels, labels) == 1
    fewer = np.array([0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1])
    assert clustering.lin_match(fewer, labels, fewer, labels) == pytest.approx(8 / 12)
    more = np.array([0, 0, 0, 3, 1, 1, 1, 1, 2, 2, 2, 2])
    assert clustering.lin_match(more, labels, more, labels) == pytest.approx(11 / 12)
    assert clustering.lin_match(np.zeros(12, int), labels, np.zeros(12, int), labels) == pytest.approx(4 / 12)


def test_lin_match_agrees_with_trying_every_matching():
    rng = np.random.default_rng(0)
    assigned, labels = rng.integers(0, 4, 50), rng.integers(0, 4, 50)
    best = max(np.mean(np.array(order)[assigned] == labels) for order in itertools.permutations(range(4)))
    assert clustering.lin_match(assigned, labels, assigned, labels) == pytest.approx(best)


def test_lin_pred_finds_lines():
    """Three stripes, which need weights and biases; exclusive or has no line."""
    grid = np.array(list(itertools.product(np.linspace(0, 1, 16), repeat=2)))
    label = np.where(grid.sum(1) > 1.4, 11, np.where(grid.sum(1) > 0.6, 3, 5))
    assert clustering.lin_pred(grid, label, grid, label) > 0.95
    assert clustering.lin_pred(grid, label, [[0, 0], [0.5, 0.5], [1, 1], [0, 0]], [5, 3, 11, 3]) == 0.75
    square = np.array([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]])
    assert clustering.lin_pred(square, [0, 1, 1, 0], square, [0, 1, 1, 0]) <= 0.75
    assert clustering.lin_pred(square, [0, 0, 1, 1], square, [0, 0, 1, 1]) == 1  # separable: weights stay finite


def test_lin_pred_does_not_see_scales_and_shifts():
    features, labels = make_blobs(0, wrong=40)
    features[:, 3] = labels / 20  # informative, but of small spread
    scale, shift = np.array([5.0, 0.5, 1, 0.5, 7, 1]), np.array([7.0, -1, 0, 2, 0, 5])
    accuracy = clustering.lin_pred(features, labels, features, labels)
    assert 0.7 < accuracy
    assert clustering.lin_pred(features * scale + shift, labels, features * scale + shift, labels) == accuracy


def test_lin_pred_does_not_enlarge_the_noise_of_a_dead_capsule():
    features, labels = make_blobs(0)
    dead = 1e-9 * np.random.default_rng(1).normal(size=(len(features), 1))
    alive = np.full((len(features), 1), 0.5)  # in test alone
    train, test = np.hstack([features, dead]), np.hstack([features, alive])
    assert clustering.lin_pred(train, labels, test, labels) == 1


def test_clusters_of_blobs():
    features, labels = make_blobs(0)
    clusters = clustering.cluster(features, 4, seed=0)
    assert clusters.centroids.shape == (4, 6) and clusters.assigned.shape == (120,)
    for c in range(4):  # each cluster is one class, its centroid the mean
        members = clusters.assigned == c
        assert len(np.unique(labels[members])) == 1 and members.sum() == 30
        np.testing.assert_allclose(clusters.centroids[c], features[members].mean(0), atol=1e-6)
    np.testing.assert_array_equal(clustering.assign(clusters.centroids, features), clusters.assigned)
    again = clustering.cluster(features, 4, seed=0)
    np.testing.assert_array_equal(again.assigned, clusters.assigned)
    np.testing.assert_allclose(again.centroids, clusters.centroids, atol=1e-6)


def test_evaluate_of_perfect_features():
    """Also if classes are numbered as they like, and clusters and capsules as k-means and the model do."""
    train, test = make_blobs(0), make_blobs(1)
    perfect = dict.fromkeys(clustering.FIGURES, 1.0)
    perfect.pop("max_act")  # corners share capsules
    order = np.random.default_rng(0).permutation(6)
    names = np.array([40, -3, 7, 1000], np.int16)
    plain = clustering.evaluate(*train, *test, seed=0)
    assert tuple(plain) == clustering.FIGURES
    assert {name: plain[name] for name in perfect} == pytest.approx(perfect)
    other = clustering.evaluate(train[0][:, order], names[train[1]], test[0][:, order], names[test[1]], seed=1)
    assert other == pytest.approx(plain)
    one_hot = np.eye(4)[train[1]], train[1], np.eye(4)[test[1]], test[1]
    assert clustering.evaluate(*one_hot, seed=0) == pytest.approx({**perfect, "max_act": 1.0})


def test_evaluate_at_chance():
    """Clear clusters that have nothing to do with the classes."""
    rng = np.random.default_rng(0)
    (train, labels), (test, labels_test) = make_blobs(0, examples=150), make_blobs(1, examples=100)
    figures = clustering.evaluate(train, rng.permutation(labels), test, rng.permutation(labels_test), seed=0)
    for name in ("max_act", "clust_nn", "lin_match", "lin_pred"):
        assert 0.18 < figures[name] < 0.32, name  # three standard deviations
    assert figures["lin_match_full"] < 0.35 and figures["lin_match_refit"] < 0.35  # matched on what they score
    assert 0 < figures["nmi"] < 0.05 and abs(figures["ari"]) < 0.02


def test_protocols_differ_in_what_is_fitted_matched_and_scored():
    (train, labels), (test, labels_test) = make_blobs(0, classes=2), make_blobs(1, classes=2, examples=10)
    # Classes change names between training and test: only what is matched in test gets them right.
    figures = clustering.evaluate(train, labels, test, 1 - labels_test, seed=0)
    assert figures["lin_match"] == figures["clust_nn"] == figures["lin_pred"] == 0
    assert figures["lin_match_full"] == pytest.approx(60 / 80)
    assert figures["lin_match_refit"] == figures["nmi"] == figures["ari"] == 1
    # Both classes of test are where one of training is, yet apart: only clusters that are fitted there see two.
    both = test[labels_test == 1][0] + 0.1 * labels_test[:, None]
    figures = clustering.evaluate(train, labels, both, labels_test, seed=0)
    assert figures["nmi"] == pytest.approx(0) and figures["lin_match"] == 0.5 and figures["lin_match_refit"] == 1
    assert figures["lin_match_full"] == pytest.approx(70 / 80)
    # One class of test is far away: with it, the classes of training are one cluster.
    two = np.repeat([0, 1], 5)
    figures = clustering.evaluate(0.1 * two[:, None], two, 9.0 * two[:, None], two, seed=0)
    assert figures["lin_match"] == figures["lin_match_refit"] == 1 and figures["lin_match_full"] == 15 / 20


def test_more_examples_count_in_the_full_protocol_alone():
    train, test, (more, labels) = make_blobs(0, classes=2), make_blobs(1, classes=2), make_blobs(2, classes=2)
    figures = clustering.evaluate(*train, *test, (more, 1 - labels), seed=0)
    total = len(train[1]) + len(test[1]) + len(labels)
    assert figures.pop("lin_match_full") == pytest.approx(1 - len(labels) / total)
    assert figures == {n: v for n, v in clustering.evaluate(*train, *test, seed=0).items() if n != "lin_match_full"}
    assert figures == clustering.evaluate(*train, *test, (more, labels), seed=0, full=False)
    with pytest.raises(UserError, match=r"labels \(more\) have shape"):
        clustering.evaluate(*train, *test, (more, labels[1:]), seed=0)


def test_more_clusters_than_classes():
    (train, labels), (test, labels_test) = make_blobs(0), make_blobs(1)
    figures = clustering.evaluate(train, labels // 2, test, labels_test // 2, seed=0, num_clusters=4)
    assert figures["clust_nn"] == 1 and figures["lin_match"] == figures["lin_match_full"] == 0.5
    assert figures["nmi"] == pytest.approx(2 / 3)  # entropies of one bit and two, one in common


def test_missing_labels():
    (train, labels), (test, labels_test) = make_blobs(0), make_blobs(1)
    every = clustering.evaluate(train, labels, test, labels_test, seed=0)
    for given in itertools.product((labels, None), (labels_test, None)):
        figures = clustering.evaluate(train, given[0], test, given[1], seed=0)
        left_out = clustering.missing(*given)
        assert set(figures) | set(left_out) == set(clustering.FIGURES) and not set(figures) & set(left_out)
        assert all(value == every[name] for name, value in figures.items())
    assert clustering.missing(labels, labels_test) == ()
    for given in ((None, labels_test), (labels, None)):
        told = clustering.missing(*given, full=False)
        assert told == tuple(name for name in clustering.missing(*given) if name != "lin_match_full")
    assert clustering.missing(None, None) == clustering.missing(labels, None) == clustering.FIGURES
    assert clustering.evaluate(train, labels, test, None, seed=0) == {}


@pytest.mark.parametrize("value", [0.0, 0.1])
def test_collapsed_features_are_all_one_class(value):
    _, labels = make_blobs(0)
    labels[labels == 3] = 2  # half of them
    features = np.full((120, 6), value)
    figures = clustering.evaluate(features, labels, features[:40], labels[:40], seed=0)
    assert figures["lin_match"] == figures["lin_pred"] == np.mean(labels[:40] == 2)
    assert figures["lin_match_full"] == np.mean(np.concatenate([labels, labels[:40]]) == 2)
    assert figures["max_act"] == figures["clust_nn"] == np.mean(labels[:40] == labels[0])
    assert figures["nmi"] == pytest.approx(0, abs=1e-9) and figures["ari"] == 0


def test_one_class():
    features, _ = make_blobs(0)
    label = np.full(120, 4)
    figures = clustering.evaluate(features, label, features, label, seed=0)
    assert figures == dict.fromkeys(clustering.FIGURES, 1.0)
    assert clustering.lin_pred(features, label, features[:2], [4, 5]) == 0.5


def broken(features: np.ndarray, value: float) -> np.ndarray:
    features = features.copy()
    features[[3, 5], 1] = value
    return features


@pytest.mark.parametrize(
    "change, message",
    [
        (
            lambda x, y, u, v: (broken(x, np.nan), y, u, v),
            r"features \(train\) are NaN or infinite in 2 of 120 examples: the model diverged",
        ),
        (
            lambda x, y, u, v: (x, y, broken(u, -np.inf), v),
            r"features \(test\) are NaN or infinite in 2 of 120 examples: the model diverged",
        ),
        (lambda x, y, u, v: (x[:, 0], y, u, v), r"features \(train\) have shape \(120,\): give a row for each example"),
        (lambda x, y, u, v: (x, y, u[:0], v[:0]), r"features \(test\) have shape \(0, 6\): .* one at least"),
        (lambda x, y, u, v: (x, y, u[:, :4], v), "features are of 6 and of 4 capsules: take both from one model"),
        (
            lambda x, y, u, v: (x, y[1:], u, v),
            r"labels \(train\) have shape \(119,\) for 120 examples: give one for each",
        ),
        (lambda x, y, u, v: (x, y, u, np.eye(4)[v]), r"labels \(test\) have shape \(120, 4\) for 120 examples"),
        (lambda x, y, u, v: (x, y, u, v / 2), r"labels \(test\) are float64: number the classes by integers"),
        (lambda x, y, u, v: (x[:3], y[:3], u, v), "3 examples cannot make 4 clusters: evaluate more of them"),
        (lambda x, y, u, v: (x, y, u[:2], v[:2]), "2 examples cannot make 4 clusters: evaluate more of them"),
    ],
)
def test_what_cannot_be_evaluated(change, message):
    data = change(*make_blobs(0), *make_blobs(1))
    with pytest.raises(UserError, match=message) as error:
        clustering.evaluate(*data, seed=0)
    assert "\n" not in str(error.value)


def test_clusters_that_cannot_match():
    data = *make_blobs(0), *make_blobs(1)
    with pytest.raises(UserError, match="num_clusters=3 cannot match the 4 classes of the labels: use 4"):
        clustering.evaluate(*data, seed=0, num_clusters=3)
    with pytest.raises(UserError, match="cannot make 0 clusters"):
        clustering.cluster(data[0], 0, seed=0)
    with pytest.raises(UserError, match=r"labels \(train\) have shape \(0,\) for 0 examples"):
        clustering.lin_match([], [], [], [])
    with pytest.raises(UserError, match=r"labels \(test\) have shape \(3,\) for 2 examples"):
        clustering.lin_match([0, 1], [0, 1], [0, 1], [0, 1, 1])


def test_segmentation_by_hand():
    true = np.array([[0, 0, 1, 1, 2], [0, 0, 0, 2, 2], [1, 1, 1, 1, 1], [0, 1, 2, 0, 1]])
    assigned = np.array([[2, 2, 0, 0, 1], [0, 0, 1, 1, 1], [2, 2, 0, 2, 1], [0, 0, 0, 0, 0]])
    presence = np.array([[1, 1, 1, 1, 1], [1, 1, 1, 1, 1], [1, 1, 1, 1, 0], [0, 0, 0, 0, 0]])
    # renamed; one point of five astray; of four points of one constellation one astray, another absent; none
    right, points = clustering.rightly_assigned(assigned, true, presence, 3, 3)
    np.testing.assert_array_equal(right, [5, 4, 3, 0])
    np.testing.assert_array_equal(points, [5, 5, 4, 0])
    assert clustering.segmentation_accuracy(assigned, true, presence, 3, 3) == pytest.approx(12 / 14)
    assert np.isnan(clustering.segmentation_accuracy(assigned, true, 0 * presence, 3, 3))


def test_segmentation_matches_capsules_of_all_numbers():
    """That one capsule has all points makes those of the largest constellation right, whatever its number."""
    true, every = np.array([[0, 0, 0, 0, 1, 1, 1, 2, 2, 2, 2]]), np.ones((1, 11))
    for capsule in range(4):
        accuracy = clustering.segmentation_accuracy(np.full((1, 11), capsule), true, every, 4, 3)
        assert accuracy == pytest.approx(4 / 11)
    assert clustering.segmentation_accuracy(true + 1, true, every, 4, 3) == 1
    assert clustering.segmentation_accuracy(true // 2, true, every, 2, 3) == pytest.approx(8 / 11)  # one is left over


@pytest.mark.parametrize("num_assigned, num_true", [(3, 3), (4, 3), (2, 3)])
def test_segmentation_agrees_with_trying_every_matching(num_assigned, num_true):
    rng = np.random.default_rng(0)
    assigned, true = rng.integers(0, num_assigned, (40, 11)), rng.integers(0, num_true, (40, 11))
    there = rng.random((40, 11)) < 0.5
    right, points = clustering.rightly_assigned(assigned, true, there, num_assigned, num_true)
    size = max(num_assigned, num_true)
    orders = np.array(list(itertools.permutations(range(size))))
    expected = [
        max(np.sum((order[a] == t) & p) for order in orders) for a, t, p in zip(assigned, true, there, strict=True)
    ]
    np.testing.assert_array_equal(right, expected)
    np.testing.assert_array_equal(points, there.sum(1))
    # Renamed capsules and constellations, another one in each example; points in another order.
    renamed = np.array([rng.permutation(num_assigned)[a] for a in assigned])
    shuffle = rng.permutation(11)
    again, _ = clustering.rightly_assigned(
        renamed[:, shuffle], (true[:, shuffle] + 1) % num_true, there[:, shuffle], num_assigned, num_true
    )
    np.testing.assert_array_equal(again, right)


def test_absent_points_may_be_anyones():
    assigned, true, presence = np.array([[0, 1, -1]]), np.array([[1, 0, 99]]), np.array([[1.0, 1.0, 0.0]])
    assert clustering.segmentation_accuracy(assigned, true, presence, 2, 2) == 1
    with pytest.raises(ValueError, match=r"assigned numbers span -1..1, outside 0..1"):
        clustering.segmentation_accuracy(assigned, true, np.ones((1, 3)), 2, 2)
    with pytest.raises(ValueError, match=r"true numbers span 0..99, outside 0..1"):
        clustering.segmentation_accuracy(np.zeros((1, 3), int), true, np.ones((1, 3)), 2, 2)
    with pytest.raises(ValueError, match=r"not one \[M, N\]"):
        clustering.segmentation_accuracy(assigned, true[:, :2], presence, 2, 2)
