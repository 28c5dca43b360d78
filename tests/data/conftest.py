import pytest

from configs import base, sqair


@pytest.fixture
def config(tmp_path):
    """config.data of a few small scenes, with a cache of its own."""
    return small(base.data(), tmp_path)


@pytest.fixture
def moving_config(tmp_path):
    """config.data of a few short sequences of small frames, with a cache of its own."""
    c = small(sqair.data(), tmp_path)
    c.num_frames = 4
    return c


def small(c, tmp_path):
    c.update(num_train=24, num_valid=4, num_test=5, canvas=(40, 36), object_size=(10, 14))
    c.cache_dir = str(tmp_path / "cache")
    return c
