"""A study has a run's folder like any other, and is done once."""

import json
import time

import pytest
from matplotlib.figure import Figure
from ml_collections import ConfigDict

from objcentric.errors import UserError
from objcentric.training import study


def make_config(**fields):
    return ConfigDict({"experiment": "some", "seed": 3, "size": 4} | fields)


def measure(config, folder):
    figures = {"value": 0.5 * config.size, "unknown": float("nan"), "table": {"of": [1, 2]}}
    return study.Result({config.seed: figures}, {"picture": Figure()}, steps=7)


def test_a_study_leaves_figures_and_pictures(tmp_path, capsys):
    content = study.run(make_config(), tmp_path / "run", measure)
    assert (content["value"], content["unknown"], content["table"]) == (2.0, None, {"of": [1, 2]})
    assert content["figures"]["value"] == {"mean": 2.0, "std": 0.0, "n": 1}
    assert (content["seeds"], content["steps"], content["success_rate"]) == ([3], 7, None)
    for name in ("wall_seconds", "cpu_seconds", "machine", "date", "command"):
        assert name in content
    assert json.loads((tmp_path / "run" / "eval.json").read_text()) == content
    assert json.loads((tmp_path / "run" / "config.json").read_text())["size"] == 4
    assert (tmp_path / "run" / "figures" / "picture.png").read_bytes().startswith(b"\x89PNG")
    assert capsys.readouterr().out.endswith("eval.json: figures of 1 seed\n")


def test_a_finished_study_says_so(tmp_path, capsys):
    content = study.run(make_config(), tmp_path, measure)
    capsys.readouterr()
    assert study.run(make_config(), tmp_path, None) == content
    assert "is finished: figures in" in capsys.readouterr().out


def test_another_config_in_the_folder_of_a_finished_study(tmp_path):
    study.run(make_config(), tmp_path, measure)
    with pytest.raises(UserError, match="holds a run with size=4, not 5: choose another --workdir"):
        study.run(make_config(size=5), tmp_path, measure)


def test_a_study_that_fails_is_not_finished(tmp_path):
    def fail(config, folder):
        raise UserError("size=4: use 5")

    with pytest.raises(UserError, match="use 5"):
        study.run(make_config(), tmp_path, fail)
    assert study.run(make_config(size=5), tmp_path, measure)["value"] == 2.5  # its config may be mended


def test_time_is_that_of_all_starts(tmp_path):
    def stop(config, folder):
        time.sleep(0.2)
        raise KeyboardInterrupt

    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            study.run(make_config(), tmp_path, stop)
    content = study.run(make_config(), tmp_path, measure)
    assert 0.4 < content["wall_seconds"] and 0 < content["cpu_seconds"] < content["wall_seconds"] + 0.2


def test_track(capsys):
    assert list(study.track(iter("abc"), 3, "letters")) == ["a", "b", "c"]
    assert list(study.track(range(40), 40, "numbers")) == list(range(40))
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(",")[0] for line in lines[:3]] == ["letters 1/3", "letters 2/3", "letters 3/3"]
    assert [line.split(",")[0] for line in lines[3:]] == [f"numbers {i}/40" for i in range(4, 41, 4)]
