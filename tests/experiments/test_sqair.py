"""The SQAIR experiment on tiny sequences: it runs from end to end, and figures are right for known answers."""

import json

import jax
import numpy as np
import pytest

from experiments import sqair
from objcentric.errors import UserError
from objcentric.training import loop
from tests.experiments import sequences


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Folder and content of eval.json of a finished run."""
    folder = tmp_path_factory.mktemp("runs") / "sqair"
    data = sequences.make_data()
    return folder, loop.run(sequences.make_config(), folder, lambda config: sqair.build(config, data=data))


def test_a_run(run):
    folder, content = run
    assert content["steps"] == 4 and content["num_examples"] == 13
    assert {"count_accuracy", "sequence_accuracy", "mean_iou", "iwae_4", "mota", "idf1"} <= content.keys()
    assert content["elbo"] == pytest.approx(content["log_likelihood"] - content["kl"], rel=1e-4)
    assert len(content["count_accuracy_t"]) == 4
    assert np.mean(content["count_accuracy_t"]) == pytest.approx(content["count_accuracy"])
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert {"loss", "bound", "count", "discovered", "presence_prior"} <= rows[0].keys()


def test_pictures(run):
    names = {path.name for path in (run[0] / "figures").iterdir()}
    still, moving = {"tracking", "imagined", "samples"}, {"tracking_film", "imagined_film", "samples_film"}
    assert {f"{name}.png" for name in still} | {f"{name}.gif" for name in moving} <= names


def test_the_curriculum():
    config = sequences.make_config(curriculum__first_frames=2, curriculum__steps=(10, 30))
    stages = sqair.curriculum(config, 10)
    assert [stage.first for stage in stages] == [0, 10, 30]
    batch = {"image": np.zeros((5, 10, 3, 3, 1))}
    assert [stage.batch(batch)["image"].shape[1] for stage in stages] == [2, 6, 10]


@pytest.mark.parametrize(
    "accuracy, discovered, said",
    [
        (0.99, [1.0, 0.0, 0.0], None),
        (0.6, [1.0, 0.0, 0.0], "miscounted, for an unknown reason"),
        (0.3, [0.0, 0.0, 0.0], "always none"),
        (0.99, [1.0, 0.9, 0.05], "objects are discovered again in the second frame"),
        (0.99, [1.0, 0.9, 0.9], "objects are discovered again and again"),
    ],
)
def test_failures(accuracy, discovered, said):
    assert sqair.failure(accuracy, discovered, np.array([1.0, 0.0, 0.0])) == said


def test_late_objects_are_no_failure():
    split = {"presence": np.array([[[0, 1], [1, 1], [0, 1]], [[0, 0], [0, 0], [1, 0]]], np.uint8)}
    np.testing.assert_array_equal(sqair.born(split), [0.5, 0.5, 0.5])
    np.testing.assert_array_equal(sqair.born({"count": np.array([[1, 2, 1], [0, 0, 1]])}), [0.5, 0.5, 0.5])
    assert sqair.failure(0.99, [0.5, 0.5, 0.5], sqair.born(split)) is None
    assert sqair.failure(0.99, [0.5, 1.5, 0.5], sqair.born(split)) == "objects are discovered again in the second frame"


@pytest.mark.parametrize(
    "fields, message",
    [
        ({"model__num_objects": 1}, "frames hold up to 2 objects, model.num_objects=1: set it higher"),
        ({"curriculum__first_frames": 5}, "curriculum.first_frames=5: use 1 to 4, the frames of a sequence"),
        ({"curriculum__steps": (3, 3)}, r"curriculum.steps=\(3, 3\): use ascending steps"),
        ({"evaluate__given_frames": 4}, "evaluate.given_frames=4: use 1 to 3"),
        ({"evaluate__particle_chunk": 3}, "evaluate.particle_chunk=3 must divide"),
        (
            {"objective__name": "dreg"},
            "objective.name='dreg' is for continuous latents alone, and presence is discrete",
        ),
        ({"model__network": "cnn"}, "model.network='cnn' is unknown"),
        ({"model__presence_prior__end": 0.0}, "model.presence_prior: start="),
    ],
)
def test_impossible_configs(fields, message):
    with pytest.raises(UserError, match=f"^{message}"):
        sqair.build(sequences.make_config(**fields), data=sequences.make_data())


@pytest.mark.parametrize("variant", ["paper", "conv"])
def test_other_networks(variant):
    """The loss of the paper's variants, and its gradient, are finite for sequences of both stages."""
    config = sequences.configs.get_config(variant)
    sequences.shrink(config)
    config.model.object_size = (4.0, 4.0)
    experiment = sqair.build(config, data=sequences.make_data())
    params, aux = jax.eval_shape(experiment.init, jax.random.key(0))
    batch = {"image": experiment.data.train["image"][:4]}
    for stage in experiment.stages[:2]:
        loss = lambda params, stage=stage: experiment.loss(  # noqa: E731
            params, stage.batch(batch), jax.random.split(jax.random.key(0), 4), 0, ()
        )
        jax.eval_shape(jax.grad(loss, has_aux=True), params)
