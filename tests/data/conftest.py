import pytest

from configs import base


@pytest.fixture
def config(tmp_path):
    """config.data of a few small scenes, with a cache of its own."""
    c = base.data()
    c.update(num_train=24, num_valid=4, num_test=5, canvas=(40, 36), object_size=(10, 14))
    c.cache_dir = str(tmp_path / "cache")
    return c
