"""AIR learns: a small one, on tiny scenes, by the real loop, evaluation and pictures included."""

import json

import numpy as np
import pytest

from experiments import air
from objcentric.data.loader import Data
from objcentric.training import loop
from tests.experiments import scenes

DATA = Data(scenes.make_split(512, 0), scenes.make_split(60, 1), scenes.make_split(60, 2))


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Folder, content of eval.json and pictures of a finished run."""
    fields = {
        "model.hidden": 32,
        "model.what_dim": 4,
        "model.presence_prior.steps": 200,
        "model.presence_margin.steps": 200,
        "objective.num_particles": 5,
        "optimizer.learning_rate": 3e-3,
        "train.num_steps": 400,
        "train.inner_steps": 100,
        "train.eval_every": 100,
        "train.batch_size": 16,
        "evaluate.batch_size": 60,
        "evaluate.num_examples": 60,
        "evaluate.num_pictures": 6,
    }
    folder = tmp_path_factory.mktemp("runs") / "air"
    drawn = {}

    def build(config):
        experiment = air.build(config, data=DATA)

        def figures(*args):
            drawn.update(experiment.figures(*args))
            return dict(drawn)

        return experiment._replace(figures=figures)

    return folder, loop.run(scenes.make_config(**fields), folder, build), drawn


def test_the_bound_rises(run):
    folder, _, _ = run
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    bounds = [row["valid/elbo"] for row in rows if "valid/elbo" in row]
    assert len(bounds) == 4 and bounds[-1] > bounds[0] + 8  # nats; seeds 0 to 5 gain 9 to 17
    assert rows[-2]["skipped"] == 0


def test_it_counts_and_reconstructs(run):
    """Better than guessing (a third), and than the mean image; without scores AIR takes every slot in every scene."""
    _, content, _ = run
    assert content["count_accuracy"] > 0.5  # seeds 0 to 5: .57 to .68, two objects often share a glimpse by then
    train, test = (split["image"] / 255 for split in (DATA.train, DATA.test))
    log_density = -0.5 * ((test - train.mean(0)) / 0.3) ** 2 - np.log(0.3 * np.sqrt(2 * np.pi))
    assert content["log_likelihood"] > log_density.sum((1, 2, 3)).mean() + 5  # nats; seeds 0 to 5: 7 to 20


def test_evaluation(run):
    _, content, _ = run
    confusion = np.array(content["confusion"])
    assert confusion.shape == (3, 3) and confusion.sum(1).tolist() == [20, 20, 20]
    assert content["count_accuracy"] == pytest.approx(np.trace(confusion) / 60)
    assert content["elbo"] == pytest.approx(content["log_likelihood"] - content["kl"], rel=1e-4)
    assert content["iwae_4"] > content["elbo"]
    assert 0.25 < content["mean_iou"] < 1 and 0.1 < content["glimpse_iou"] < 1
    assert 0 < content["mean_average_precision"] < content["average_precision"] <= 1


def test_pictures(run):
    folder, content, drawn = run
    assert {"reconstructions", "samples", "interpolation", "confusion"} == drawn.keys()
    names = {path.stem for path in (folder / "figures").iterdir()}
    assert names == drawn.keys() | {"learning_curve"}
    assert drawn["confusion"].axes[0].get_title() == f"{content['count_accuracy']:.1%} of 60 right"
    found, true = zip(*(axes.get_title().split(" / ") for axes in drawn["reconstructions"].axes[:6]), strict=True)
    assert true == ("0", "1", "2", "0", "1", "2") and set(found) <= {"0", "1", "2"}
