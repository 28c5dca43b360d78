"""Which sequences are compared, and that both models are shown on the same frames."""

from pathlib import Path

import jax
import numpy as np
import pytest

from experiments import air, overlap, sqair
from objcentric.training.restore import Run
from tests.experiments import scenes, sequences


def test_sequences_whose_digits_overlap_most_come_first():
    split = sequences.make_split(9, 0)  # of 0, 1, 2, 0, 1, 2, ... squares apart
    assert not overlap.iou(split["boxes"][2], split["boxes"][2])[:, 0, 1].any()
    split["boxes"][5, :, 1] = split["boxes"][5, :, 0]
    split["boxes"][8, :2, 1] = split["boxes"][8, :2, 0]
    split["boxes"][2, :, 1] = split["boxes"][2, :, 0]
    split["visibility"][2, :3, 1] = 0.3  # mostly out of view
    assert overlap.overlapping(split, 3).tolist() == [5, 8, 2]


def make_run(name):
    module, make_config = {"air": (air, scenes.make_config), "sqair": (sqair, sequences.make_config)}[name]
    config, data = make_config(), sequences.make_data()
    experiment = scenes.filled(module.build(config, data=data))
    return Run(config, experiment, 0, experiment.init(jax.random.key(0))[0])


@pytest.mark.parametrize("name", ["air", "sqair"])
def test_what_a_model_sees(name):
    """The restored model's own draws, with an identity for each box."""
    look = {"air": overlap.look_air, "sqair": overlap.look_sqair}[name]
    mean, boxes, presence, identity = look(make_run(name), sequences.make_data().test["image"][:3], jax.random.key(0))
    assert mean.shape == (3, 4, 12, 14, 1) and boxes.shape == (3, 4, 2, 4)
    assert presence.shape == identity.shape == (3, 4, 2) and set(np.unique(presence)) <= {0, 1}
    assert (identity[presence > 0] >= 0).all()
    if name == "air":
        assert (identity == np.arange(2)).all()


def test_a_folder_without_a_run(tmp_path, capsys):
    arguments = [f"--{name}={tmp_path / name}" for name in ("air", "sqair", "output")]
    assert overlap.main(arguments) == 2
    assert capsys.readouterr().err == f"objcentric: {tmp_path / 'air'} holds no run: it has no config.json\n"
    assert not any(tmp_path.iterdir())
    for name, config in {"air": sequences.make_config(), "sqair": scenes.make_config()}.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text(config.to_json())
    assert overlap.main(arguments) == 2
    assert f"--air={tmp_path / 'air'} holds a run of sqair: name one of air" in capsys.readouterr().err


def test_pictures(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(overlap, "restore_run", lambda folder, build: make_run(Path(folder).name))
    for name in ("air", "sqair"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text(make_run(name).config.to_json())
    arguments = [f"--{name}={tmp_path / name}" for name in ("air", "sqair")]
    assert overlap.main([*arguments, f"--output={tmp_path / 'out'}", "--sequences=2"]) == 0
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"overlap.png", "overlap_film.gif"}
    capsys.readouterr()
    assert overlap.main([*arguments, f"--output={tmp_path / 'out'}", "--sequences=0"]) == 2
    assert capsys.readouterr().err == "objcentric: --sequences=0: show at least 1\n"
    (tmp_path / "file").touch()
    assert overlap.main([*arguments, f"--output={tmp_path / 'file' / 'out'}"]) == 2
    assert "Not a directory" in capsys.readouterr().err
