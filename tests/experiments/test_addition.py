"""The classifier of sums on codes that tell them, and on codes that do not; sums of sequences; bad input."""

import jax
import numpy as np
import pytest

from experiments import addition
from objcentric.errors import UserError


@pytest.mark.parametrize("told", [True, False])
def test_accuracy(told):
    """Of codes from which sums follow linearly, or of the same codes with sums of others."""
    rng = np.random.default_rng(0)
    digits = {"train": rng.integers(0, 10, (3000, 2)), "test": rng.integers(0, 10, (1000, 2))}
    codes = {split: np.eye(10, dtype=np.float32)[each].reshape(-1, 20) for split, each in digits.items()}
    sums = {split: each.sum(1) for split, each in digits.items()}
    if not told:
        sums = {split: rng.permutation(each) for split, each in sums.items()}
    accuracy = addition.accuracy(codes, sums, jax.random.key(0), num_steps=300)
    assert accuracy > 0.98 if told else accuracy < 0.15  # chance is 0.1, of always saying 9


def test_sums():
    """Of the digits that are there, frame by frame."""
    label = np.array([[3, 9], [5, -1], [-1, -1], [9, 9]], np.int32)
    presence = np.array([[[1, 0], [1, 1]], [[0, 0], [1, 0]], [[0, 0], [0, 0]], [[1, 1], [0, 1]]], np.uint8)
    sums = addition.frame_sums({"label": label, "presence": presence})
    assert sums.dtype == np.int32
    np.testing.assert_array_equal(sums, [[3, 12], [0, 5], [0, 0], [18, 9]])


@pytest.mark.parametrize(
    "split, message",
    [
        ({"image": np.zeros(3)}, "the data do not say which digits there are"),
        ({"label": np.full((1, 3), 9), "presence": np.ones((1, 2, 3))}, "labels in a frame add up to 27 .. 27, beyond"),
        ({"label": np.full((1, 1), -1), "presence": np.ones((1, 2, 1))}, "labels in a frame add up to -1 .. -1"),
    ],
)
def test_sums_that_are_none(split, message):
    with pytest.raises(UserError, match=f"^{message}.*: set evaluate.addition_steps=0$"):
        addition.frame_sums(split)


def test_it_is_left_between_chunks(monkeypatch):
    """A run that is to end does not wait for all the steps."""
    looked = []

    def leave():
        looked.append(len(looked))
        if len(looked) == 3:
            raise SystemExit(75)

    monkeypatch.setattr(addition, "CHUNK", 2)
    monkeypatch.setattr(addition.machine, "leave_if_preempted", leave)
    codes, sums = {"train": np.eye(4, dtype=np.float32), "test": np.eye(4, dtype=np.float32)}, {"train": np.arange(4)}
    with pytest.raises(SystemExit):
        addition.accuracy(codes, sums, jax.random.key(0), num_steps=100)
    assert looked == [0, 1, 2]


def test_chunks_change_nothing(monkeypatch):
    codes = {split: np.random.default_rng(1).normal(size=(40, 3)).astype(np.float32) for split in ("train", "test")}
    sums = {split: np.arange(40) % 19 for split in codes}
    whole = addition.accuracy(codes, sums, jax.random.key(0), num_steps=25)
    monkeypatch.setattr(addition, "CHUNK", 10)
    assert addition.accuracy(codes, sums, jax.random.key(0), num_steps=25) == whole
