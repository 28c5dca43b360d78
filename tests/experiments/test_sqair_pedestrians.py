"""SQAIR's config of pedestrians: it trains on a small video, and counts people by their boxes."""

import pytest

from configs import sqair_pedestrians
from experiments import sqair
from objcentric.errors import UserError
from objcentric.training import loop
from tests.data import videos
from tests.experiments import sequences


def small(tmp_path, **fields):
    config = sqair_pedestrians.get_config()
    sequences.shrink(config)
    config.data.update(cache_dir=str(tmp_path / "cache"), canvas=(16, 16), downsample=2.0, max_objects=2, **fields)
    config.model.object_size = (8.0, 4.0)
    return config


def test_a_run(tmp_path):
    pytest.importorskip("cv2", reason="OpenCV is not installed: pip install 'objcentric[video]'")
    boxes = videos.walk(80)
    folder = videos.save_mot(tmp_path / "walk", [videos.frame(many, (40, 90)) for many in boxes], boxes)
    content = loop.run(small(tmp_path, path=str(folder)), tmp_path / "run", sqair.build)
    assert (content["steps"], content["num_examples"]) == (4, 9)
    assert {"count_accuracy", "mean_iou", "imagined_error", "copied_error"} <= content.keys()
    assert len(content["count_accuracy_t"]) == 4


def test_it_needs_a_path(tmp_path):
    with pytest.raises(UserError, match="^data.path is empty: give --config.data.path="):
        sqair.build(small(tmp_path))


@pytest.mark.parametrize("variant, network", [("fast", "mlp"), ("conv", "conv")])
def test_variants(variant, network):
    config = sqair_pedestrians.get_config(variant)
    fields = sqair.model_config(config, (*config.data.canvas, 1), config.data.num_frames)
    assert (fields.network, fields.glimpse_size) == (network, (28, 12))
    assert [stage.first for stage in sqair.curriculum(config, config.data.num_frames)] == [0, *config.curriculum.steps]
    with pytest.raises(ValueError, match="write :fast or :conv"):
        sqair_pedestrians.get_config("paper")
