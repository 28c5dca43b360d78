"""Every config in configs/ says how to run it; those of AIR override only what base.py has, and train."""

import importlib
import json
from pathlib import Path

import pytest

from configs import base, sqair
from objcentric.training import loop
from tests.experiments import scenes

FOLDER = Path(base.__file__).parent
NAMES = sorted(path.stem for path in FOLDER.glob("*.py") if path.stem not in ("base", "__init__"))


def load(name):
    module = importlib.import_module(f"configs.{name}")
    return module, module.get_config()


AIR = [name for name in NAMES if load(name)[1].experiment == "air"]


def flatten(tree, prefix=""):
    for name, value in tree.items():
        yield from flatten(value, f"{prefix}{name}.") if hasattr(value, "items") else [(prefix + name, value)]


def test_there_are_configs():
    assert "air" in AIR and len(NAMES) > len(AIR)


@pytest.mark.parametrize("name", NAMES)
def test_it_has_an_experiment(name):
    """Those that are not AIR's are run, made small, by their experiment's own tests."""
    _, config = load(name)
    module = importlib.import_module(f"experiments.{config.experiment}")
    assert hasattr(module, "build") != hasattr(module, "study")
    assert (FOLDER.parent / "tests" / "experiments" / f"test_{config.experiment}.py").exists()
    json.loads(config.to_json())  # as a run's config.json holds it


@pytest.mark.parametrize("name", NAMES)
def test_the_docstring_is_the_command(name):
    module, _ = load(name)
    assert f"python launch.py --config=configs/{name}.py" in module.__doc__
    for line in module.__doc__.splitlines():
        assert not line.startswith("python ") or "--workdir=runs/" in line


@pytest.mark.parametrize("name", AIR)
def test_only_fields_of_base_are_overridden(name):
    _, config = load(name)
    whole = base.get_config()
    if config.data.name == "moving_digits":
        whole.data = sqair.data()
        with whole.ignore_type():
            whole.model.object_size = sqair.model().object_size  # height and width
    fields = dict(flatten(whole))
    for field, value in flatten(config):
        assert field in fields, f"{field} is not in configs/base.py"
        assert type(value) is type(fields[field]), field
    assert fields.keys() == dict(flatten(config)).keys()


@pytest.mark.parametrize("name", AIR)
def test_it_trains(name, tmp_path, request):
    _, config = load(name)
    if config.data.source == "mnist":
        config.data.path = str(request.getfixturevalue("mnist_dir"))
    scenes.shrink(config)
    config.data.cache_dir = str(tmp_path / "cache")
    experiment = importlib.import_module(f"experiments.{config.experiment}").build(config)
    figure = experiment.headline[0]
    experiment = scenes.filled(experiment)._replace(  # what is not training is tested with the experiment
        headline=(figure,),
        evaluate=lambda params, split, key, *, final: {figure: 1.0},
        figures=lambda params, split, key, evaluated: {},
        signature=lambda figures: None,
    )
    content = loop.run(config, tmp_path / "run", lambda _: experiment)
    assert (content["steps"], content["num_examples"], content["success_rate"]) == (
        3,
        9 * config.data.get("num_frames", 1),
        1.0,
    )
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert rows[0]["step"] == 3 and isinstance(rows[0]["loss"], float) and rows[0]["skipped"] == 0
