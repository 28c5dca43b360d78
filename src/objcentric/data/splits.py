"""Seeded partitions of examples into training, validation and test."""

import numpy as np

SPLITS = ("train", "valid", "test")


def indices(size: int, split: str, seed: int, fractions: tuple[float, float, float] = (0.8, 0.1, 0.1)) -> np.ndarray:
    """Indices [m] of the examples of one split; the three splits of a seed are disjoint and cover range(size).

    ``fractions`` of train, valid and test sum to 1; each split gets one example at least, if size >= 3.
    """
    valid, test = (max(1, round(size * fraction)) for fraction in fractions[1:])
    order = np.random.default_rng((seed, size)).permutation(size)
    return np.split(order, (size - valid - test, size - test))[SPLITS.index(split)]
