"""Files that are whole or not there, and metrics that go on where the checkpoint is."""

import errno
import json
from types import SimpleNamespace

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from objcentric.errors import UserError
from objcentric.training import summary, workdir, writer
from tests.training import linear


def test_rows_after_the_checkpoint_and_a_torn_line_are_dropped(tmp_path):
    path = tmp_path / "metrics.jsonl"
    rows = [{"step": step, "loss": step / 10} for step in (10, 20, 20, 30)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows) + '{"step": 40, "lo')
    assert writer.read_metrics(path) == rows
    log = writer.Writer(tmp_path, [0], step=20)
    log.write(30, 1.23456, {"loss": np.float32([0.5])})
    log.close()
    assert writer.read_metrics(path) == [*rows[:3], {"step": 30, "seconds": 1.235, "loss": 0.5}]


def test_values_of_several_seeds_are_lists(tmp_path):
    log = writer.Writer(tmp_path, [4, 5], step=0)
    log.write(1, 0.0, {"loss": np.array([1.5, np.nan]), "table": [[1], [2]]})
    log.close()
    assert writer.read_metrics(tmp_path / "metrics.jsonl") == [
        {"step": 1, "seconds": 0.0, "loss": [1.5, None], "table": [[1], [2]]}
    ]
    assert len(list(tmp_path.glob("tensorboard/seed_[45]/events*"))) == 2


def test_json_knows_no_nan(tmp_path):
    writer.write_json(tmp_path / "x.json", {"a": np.float32(0.5), "b": [np.nan, np.inf, 1], 3: np.arange(2), "c": None})
    assert json.loads((tmp_path / "x.json").read_text()) == {"a": 0.5, "b": [None, None, 1], "3": [0, 1], "c": None}


@pytest.mark.parametrize("write", [writer.write_json, writer.write_figure])
def test_a_write_that_fails_leaves_the_old_file(tmp_path, write):
    path = tmp_path / "file"
    path.write_text("old")
    with pytest.raises((TypeError, AttributeError)):
        write(path, object())
    assert path.read_text() == "old"


def test_a_figure_is_a_png(tmp_path):
    writer.write_figure(tmp_path / "figures" / "x.png", Figure())
    assert (tmp_path / "figures" / "x.png").read_bytes().startswith(b"\x89PNG")
    assert [path.name for path in (tmp_path / "figures").iterdir()] == ["x.png"]


@pytest.mark.parametrize("num_frames", [1, 5])
def test_frames_are_a_gif(tmp_path, num_frames):
    frames = np.zeros((num_frames, 6, 8, 3), np.uint8)
    for t, frame in enumerate(frames):
        frame[t, :, 0] = 200
    writer.write_figure(tmp_path / "figures" / "x.png", frames)
    assert [path.name for path in (tmp_path / "figures").iterdir()] == ["x.gif"]
    with Image.open(tmp_path / "figures" / "x.gif") as film:
        assert (film.format, film.n_frames, film.size) == ("GIF", num_frames, (8, 6))
        for t, frame in enumerate(frames):
            film.seek(t)
            np.testing.assert_array_equal(film.convert("RGB"), frame)
            assert num_frames == 1 or film.info["duration"] == writer.FRAME_MS


def test_a_folder_belongs_to_one_config(tmp_path):
    folder = tmp_path / "a" / "run"

    def claim(config):
        with workdir.claim(folder, config) as claimed:
            assert claimed == folder

    def refuse(config, message):
        with pytest.raises(UserError, match=message):
            claim(config)

    claim(linear.make_config())
    claim(linear.make_config(batch_size=2))  # nothing was trained: may be mended
    claim(linear.make_config())
    (folder / "checkpoints").mkdir()
    refuse(linear.make_config(batch_size=4), r"run with train.batch_size=8, not 4: choose another --workdir")
    content = json.loads((folder / "config.json").read_text())
    del content["optimizer"]["name"]
    (folder / "config.json").write_text(json.dumps(content))
    refuse(linear.make_config(), r"optimizer.name=absent, not adam")
    (folder / "config.json").write_text("{")
    refuse(linear.make_config(), r"config.json is not JSON")


def test_a_folder_belongs_to_one_process(tmp_path):
    with workdir.claim(tmp_path / "run", linear.make_config()) as folder:
        with pytest.raises(UserError, match=r"another process is at work in .*run: wait for it, or choose another"):
            with workdir.claim(folder, linear.make_config(batch_size=2)):
                pass
        assert json.loads((folder / "config.json").read_text())["train"]["batch_size"] == 8
    with workdir.claim(folder, linear.make_config()):
        pass


@pytest.mark.parametrize("locks", [None, SimpleNamespace(flock=None, LOCK_EX=0, LOCK_NB=0)])
def test_without_locks_a_folder_is_claimed_all_the_same(tmp_path, monkeypatch, locks):
    """On Windows, and on file systems that know none."""

    def flock(file, operation):
        raise OSError(errno.ENOSYS, "Function not implemented")

    if locks:
        locks.flock = flock
    monkeypatch.setattr(workdir, "fcntl", locks)
    with workdir.claim(tmp_path / "run", linear.make_config()) as folder:
        assert (folder / "config.json").exists()


def test_summary():
    per_seed = [{"a": 1.0, "b": np.float32(2.0), "table": [1]}, {"a": 3.0, "b": np.nan, "table": [2]}]
    content = summary.summarize([5, 6], per_seed, {6: "collapsed"}, judged=True)
    assert (content["a"], content["b"], content["success_rate"]) == (2.0, None, 0.5)
    assert content["figures"]["a"] == {"mean": 2.0, "std": pytest.approx(2**0.5), "n": 2}
    assert content["figures"]["b"] == {"mean": None, "std": None, "n": 2}
    assert content["failures"] == {"6": "collapsed"}
    assert content["per_seed"] == [
        {"seed": 5, "a": 1.0, "b": 2.0, "table": [1]},
        {"seed": 6, "a": 3.0, "b": None, "table": [2]},
    ]
    assert "table" not in content
    alone = summary.summarize([5], per_seed[:1], {}, judged=False)
    assert (alone["table"], alone["a"], alone["figures"]["a"]["std"]) == ([1], 1.0, 0.0)
    assert alone["success_rate"] is None
