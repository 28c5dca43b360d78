import numpy as np
import pytest

from objcentric.data import splits


@pytest.mark.parametrize("size, sizes", [(3, (1, 1, 1)), (10, (8, 1, 1)), (100, (80, 10, 10))])
def test_splits_are_disjoint_and_cover_everything(size, sizes):
    rows = [splits.indices(size, split, seed=0) for split in splits.SPLITS]
    assert tuple(map(len, rows)) == sizes
    np.testing.assert_array_equal(np.sort(np.concatenate(rows)), np.arange(size))


def test_split_follows_the_seed():
    a, b, again = (splits.indices(100, "train", seed) for seed in (0, 1, 0))
    np.testing.assert_array_equal(a, again)
    assert (a != b).any()
