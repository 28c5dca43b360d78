import itertools

import jax
import numpy as np
import pytest
from sklearn import metrics as sklearn_metrics

from objcentric.metrics import counting


def _count_probabilities(p):
    """q(n) by enumerating all ways in which presence may go."""
    q = np.zeros(len(p) + 1)
    for outcome in itertools.product((0, 1), repeat=len(p)):
        n = (*outcome, 0).index(0)  # what comes after the first absent slot does not matter
        q[n] += np.prod(np.where(outcome, p, 1 - p))
    return q


@pytest.mark.parametrize("num_slots", [1, 2, 3, 5])
def test_most_probable_count_is_the_mode_by_enumeration(num_slots):
    p = np.random.default_rng(num_slots).uniform(0.01, 0.99, (40, num_slots)).astype(np.float32)
    expected = [np.argmax(_count_probabilities(row)) for row in p]
    np.testing.assert_array_equal(counting.most_probable_count(p), expected)


def test_most_probable_count_of_known_probabilities():
    p = np.array([[0.1, 0.9, 0.9], [0.9, 0.2, 0.9], [0.9, 0.9, 0.1], [0.9, 0.9, 0.9], [0.6, 0.6, 0.6], [0.5, 0.0, 0.9]])
    #  .6, .6, .6: q = .4, .24, .144, .216, so the mode is 0 although each slot is more likely present than not
    np.testing.assert_array_equal(counting.most_probable_count(p), [0, 1, 2, 3, 0, 0])


def test_most_probable_count_takes_any_leading_axes_and_jit():
    p = np.random.default_rng(0).uniform(size=(2, 3, 4)).astype(np.float32)
    counts = jax.jit(counting.most_probable_count)(p)
    assert counts.shape == (2, 3) and counts.dtype == np.int32
    np.testing.assert_array_equal(counts, jax.vmap(jax.vmap(counting.most_probable_count))(p))
    np.testing.assert_array_equal(counts.reshape(-1), counting.most_probable_count(p.reshape(6, 4)))


def test_count_accuracy():
    assert float(counting.count_accuracy(np.array([0, 1, 2, 2]), np.array([0, 1, 1, 2]))) == 0.75
    with pytest.raises(ValueError, match=r"\(3,\).*\(4,\)"):
        counting.count_accuracy(np.zeros(3), np.zeros(4))


def test_confusion_matrix_agrees_with_sklearn():
    rng = np.random.default_rng(0)
    predicted, true = rng.integers(0, 4, 200), rng.integers(0, 3, 200)
    matrix = counting.confusion_matrix(predicted, true, 4)
    np.testing.assert_array_equal(matrix, sklearn_metrics.confusion_matrix(true, predicted, labels=range(4)))
    assert matrix[3].sum() == 0  # rows are true counts
    assert np.trace(matrix) / 200 == pytest.approx(float(counting.count_accuracy(predicted, true)))


def test_confusion_matrix_refuses_what_it_cannot_count():
    with pytest.raises(ValueError, match=r"predicted counts span 0\.\.3, outside 0\.\.2"):
        counting.confusion_matrix(np.array([0, 3]), np.array([0, 1]), 3)
    with pytest.raises(ValueError, match="true counts span -1"):
        counting.confusion_matrix(np.array([0, 1]), np.array([0, -1]), 3)
    with pytest.raises(ValueError, match="one length"):
        counting.confusion_matrix(np.array([0, 1]), np.array([0]), 3)


_FAILURES = {
    "always none": [[100, 0, 0, 0], [99, 1, 0, 0], [97, 3, 0, 0], [0, 0, 0, 0]],
    "always all slots (3)": [[0, 0, 0, 100], [0, 0, 1, 99], [0, 0, 0, 100], [0, 0, 0, 0]],
    "always the same number of slots (2)": [[0, 0, 100, 0], [0, 2, 98, 0], [0, 0, 100, 0], [0, 0, 0, 0]],
    "two objects in one glimpse": [[100, 0, 0, 0], [1, 99, 0, 0], [0, 97, 3, 0], [0, 0, 0, 0]],
    "stuck at .80 (bad baseline)": [[95, 5, 0, 0], [5, 90, 5, 0], [0, 45, 55, 0], [0, 0, 0, 0]],
    "no known signature; most often 2 read as 3": [[100, 0, 0, 0], [0, 98, 2, 0], [0, 0, 80, 20], [0, 0, 0, 0]],
}


@pytest.mark.parametrize("name", _FAILURES)
@pytest.mark.parametrize("weights", [(1, 1, 1, 1), (9, 10, 11, 1)], ids=["even", "uneven"])
def test_failure_signature(name, weights):
    confusion = np.array(_FAILURES[name]) * np.array(weights)[:, None]
    assert counting.failure_signature(np.trace(confusion) / confusion.sum(), confusion) == name


def test_failure_signature_takes_lists_and_any_number_of_slots():
    assert counting.failure_signature(0.5, [[50, 0], [50, 0]]) == "always none"
    assert counting.failure_signature(0.5, [[0, 50], [0, 50]]) == "always all slots (1)"
    merged = [[10, 0, 0, 0], [0, 10, 0, 0], [0, 10, 0, 0], [0, 4, 6, 0]]
    assert counting.failure_signature(0.5, merged) == "two objects in one glimpse"


def test_a_symptom_does_not_depend_on_the_mix_of_counts():
    rare_empty_scenes = [[20, 0, 0], [0, 20, 0], [0, 960, 0]]
    assert counting.failure_signature(0.04, rare_empty_scenes) == "two objects in one glimpse"
    mostly_ones = [[0, 10, 0], [0, 960, 0], [0, 30, 0]]
    assert counting.failure_signature(0.96, mostly_ones) == "always the same number of slots (1)"


def test_data_of_one_count_that_are_read_right_show_no_symptom():
    assert counting.failure_signature(0.95, [[0, 0, 0], [0, 0, 0], [0, 5, 95]]).startswith("no known signature")


def test_success_has_no_signature():
    confusion = [[100, 0, 0], [0, 98, 2], [0, 3, 97]]
    assert counting.failure_signature(0.98, confusion) is None
    assert counting.failure_signature(0.9799, confusion) is not None
    assert counting.failure_signature(float("nan"), confusion) is not None


def test_failure_signature_refuses_what_is_no_confusion_matrix():
    with pytest.raises(ValueError, match="square"):
        counting.failure_signature(0.5, np.zeros((2, 3)))
    with pytest.raises(ValueError, match="without scenes"):
        counting.failure_signature(0.5, np.zeros((3, 3)))


@pytest.mark.parametrize(
    "confusion",
    [
        [[90, 10, 0], [10, 90, 0], [90, 10, 0]],  # scenes of two objects are read as empty
        [[20, 10, 70], [0, 90, 10], [0, 90, 10]],  # so are many empty ones as full
    ],
)
def test_two_objects_in_one_glimpse_needs_all_of_its_symptoms(confusion):
    accuracy = np.trace(np.array(confusion)) / np.sum(confusion)
    assert counting.failure_signature(accuracy, confusion).startswith("no known signature")
