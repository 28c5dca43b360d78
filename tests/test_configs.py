"""Every config in configs/ says how to run it, overrides only what base.py has, and trains."""

import importlib
import json
from pathlib import Path

import pytest

from configs import base
from objcentric.training import loop
from tests.experiments import scenes

FOLDER = Path(base.__file__).parent
NAMES = sorted(path.stem for path in FOLDER.glob("*.py") if path.stem not in ("base", "__init__"))


def load(name):
    module = importlib.import_module(f"configs.{name}")
    return module, module.get_config()


def flatten(tree, prefix=""):
    for name, value in tree.items():
        yield from flatten(value, f"{prefix}{name}.") if hasattr(value, "items") else [(prefix + name, value)]


def test_there_are_configs():
    assert "air" in NAMES


@pytest.mark.parametrize("name", NAMES)
def test_the_docstring_is_the_command(name):
    module, _ = load(name)
    assert f"python launch.py --config=configs/{name}.py" in module.__doc__
    for line in module.__doc__.splitlines():
        assert not line.startswith("python ") or "--workdir=runs/" in line


@pytest.mark.parametrize("name", NAMES)
def test_only_fields_of_base_are_overridden(name):
    _, config = load(name)
    fields = dict(flatten(base.get_config()))
    for field, value in flatten(config):
        assert field in fields, f"{field} is not in configs/base.py"
        assert type(value) is type(fields[field]), field
    assert fields.keys() == dict(flatten(config)).keys()
    json.loads(config.to_json())  # as a run's config.json holds it


@pytest.mark.parametrize("name", NAMES)
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
    assert (content["steps"], content["num_examples"], content["success_rate"]) == (3, 9, 1.0)
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert rows[0]["step"] == 3 and isinstance(rows[0]["loss"], float) and rows[0]["skipped"] == 0
