"""A run's folder gives back the model that its figures are of."""

import json

import pytest

from objcentric.errors import UserError
from objcentric.training import loop
from objcentric.training.restore import restore_run
from tests.training import linear


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("restore") / "run"
    config = linear.make_config(num_steps=20)
    config.seeds = (3, 4)
    loop.run(config, path, linear.build)
    return path


@pytest.mark.parametrize("failures, seed", [({}, 3), ({"3": "lost"}, 4), ({"3": "lost", "4": "lost"}, 3)])
def test_the_first_seed_that_did_not_fail(folder, failures, seed):
    evaluated = json.loads((folder / "eval.json").read_text())
    (folder / "eval.json").write_text(json.dumps(evaluated | {"failures": failures}))
    run = restore_run(folder, linear.build)
    assert run.step == 20 and run.config.seeds == (3, 4)
    figures = run.experiment.evaluate(run.params, run.experiment.data.test, loop.make_keys(seed).evaluate, final=False)
    (expected,) = (each for each in evaluated["per_seed"] if each["seed"] == seed)
    assert figures["count_accuracy"] == pytest.approx(expected["count_accuracy"], rel=1e-6)


def test_no_run(tmp_path):
    with pytest.raises(UserError, match="holds no run: it has no config.json"):
        restore_run(tmp_path, linear.build)
    (tmp_path / "config.json").write_text(linear.make_config().to_json())
    with pytest.raises(UserError, match="holds no checkpoint: train first"):
        restore_run(tmp_path, linear.build)
