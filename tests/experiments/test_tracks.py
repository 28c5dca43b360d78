"""Trackers side by side, from the folders of their runs."""

import jax
import pytest

from experiments import hart, tracks
from objcentric.training.restore import Run
from tests.experiments import scenes, videos

MADE = {
    "HART": {"model__relation": "none", "data__cache_dir": "elsewhere"},
    "MOHART": {"model__relation": "attention"},
    "other": {"data__num_frames": 4, "curriculum__first_frames": 3, "task__black_frames": 1},
}


@pytest.fixture
def folders(tmp_path, monkeypatch):
    def restore(folder, build):
        config = videos.make_config(**MADE[folder.rsplit("/", 1)[1]])
        experiment = scenes.filled(hart.build(config, data=videos.make_data()))
        return Run(config, experiment, 0, experiment.init(jax.random.key(0))[0])

    monkeypatch.setattr(tracks, "restore_run", restore)
    for name, fields in MADE.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text(videos.make_config(**fields).to_json())
    return tmp_path


def test_pictures(folders):
    runs = [f"--run={name}={folders / name}" for name in ("HART", "MOHART")]
    assert tracks.main([*runs, f"--output={folders / 'out'}", "--sequences=2", "--of=2"]) == 0
    names = {f"{mode}_{i}.png" for mode in hart.MODES for i in (1, 2)}
    assert {path.name for path in (folders / "out").iterdir()} == names


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--run=runs/hart"], "--run=runs/hart should read NAME=FOLDER"),
        (["--run=HART={}/HART", "--run=other={}/other"], "the runs HART and other have other data or task.ahead"),
        (["--run=HART={}/HART", "--sequences=0"], "--sequences=0: use 1 to"),
        (["--run=HART={}/HART", "--of=9"], "--of=9: use 1 to"),
        (["--run=HART={}/nowhere"], "holds no run"),
    ],
)
def test_mistakes_are_one_line(folders, arguments, said, capsys):
    assert tracks.main([*(each.format(folders) for each in arguments), f"--output={folders / 'out'}"]) == 2
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1 and not (folders / "out").exists()
