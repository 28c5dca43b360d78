"""SQAIR's config of pedestrians: it trains on a small video, and counts people by their boxes."""

import jax
import pytest

from configs import sqair_pedestrians
from experiments import curriculum, sqair
from objcentric.errors import UserError
from objcentric.models import sqair as model
from tests.data import videos
from tests.experiments import scenes, sequences


def small(tmp_path, variant="fast", **fields):
    config = sqair_pedestrians.get_config(variant)
    sequences.shrink(config)
    config.data.update(cache_dir=str(tmp_path / "cache"), frame_size=(24, 48), canvas=(16, 16), max_objects=2)
    config.data.update(**fields)
    config.model.object_size = (8.0, 4.0)
    return config


def test_it_trains_and_counts(tmp_path):
    pytest.importorskip("cv2", reason="OpenCV is not installed: pip install 'objcentric[video]'")
    boxes = videos.walk(80)
    folder = videos.save_mot(tmp_path / "walk", [videos.frame(many, (40, 90)) for many in boxes], boxes)
    experiment = scenes.filled(sqair.build(small(tmp_path, path=str(folder))))
    params, _ = experiment.init(jax.random.key(0))
    batch = experiment.stages[-1].batch({"image": experiment.data.train["image"][:4]})
    has_gradients(experiment, params, batch)
    figures = experiment.evaluate(params, experiment.data.valid, jax.random.key(0), final=False)
    assert 0 <= figures["count_accuracy"] <= 1 and 0 <= figures["mean_iou"] <= 1
    assert len(figures["count_accuracy_t"]) == 4

    paper = small(tmp_path, variant="paper", path=str(folder))
    experiment = sqair.build(paper)
    has_gradients(experiment, jax.eval_shape(experiment.init, jax.random.key(0))[0], batch)
    paper.model.num_objects = 1
    with pytest.raises(UserError, match="^data.max_objects=2 is more than model.num_objects=1: "):
        sqair.build(paper)


def has_gradients(experiment, params, batch):
    loss = lambda params: experiment.loss(params, batch, jax.random.split(jax.random.key(0), 4), 0, ())  # noqa: E731
    assert jax.tree.structure(jax.eval_shape(jax.grad(loss, has_aux=True), params)[0]) == jax.tree.structure(params)


def test_it_needs_a_path(tmp_path):
    with pytest.raises(UserError, match="^data.path is empty: give --config.data.path="):
        sqair.build(small(tmp_path))


@pytest.mark.parametrize("variant, network", [("fast", "mlp"), ("paper", "conv")])
def test_variants(variant, network):
    config = sqair_pedestrians.get_config(variant)
    fields = sqair.model_config(config, (*config.data.canvas, 1), config.data.num_frames)
    assert (fields.network, fields.glimpse_size) == (network, (28, 12))
    stages = curriculum.stages(config.curriculum, config.data.num_frames, lambda batch, length: batch)
    assert [stage.first for stage in stages] == [0, *config.curriculum.steps]
    factor = config.model.rediscovery_factor
    assert fields.reach == factor.start == factor.end == 1
    with pytest.raises(ValueError, match="write :fast or :paper"):
        sqair_pedestrians.get_config("conv")


@pytest.mark.parametrize("strides, millions", [((2, 2, 2, 1), 1.67), ((2, 2, 1, 1), 3.35)])
def test_number_of_parameters(strides, millions):
    """The paper's 3.5M are nearer to other strides than those it gives (appendix 5.E)."""
    config = sqair_pedestrians.get_config("paper")
    assert config.model.encoder_strides == (2, 2, 2, 1)
    config.model.encoder_strides = strides
    made = model.make(sqair.model_config(config, (*config.data.canvas, 1), config.data.num_frames))
    shapes = jax.eval_shape(made.model.init, jax.random.key(0))
    assert round(sum(leaf.size for leaf in jax.tree.leaves(shapes)) / 1e6, 2) == millions
