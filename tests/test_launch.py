"""launch.py: whatever is wrong ends in one line, a status that is not 0, and no lost checkpoint."""

import errno
import gzip
import json
import math
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict
from PIL import Image

import launch
from configs import base
from objcentric.errors import UserError
from objcentric.training import loop
from objcentric.training.checkpoint import Checkpoints
from tests.experiments import scenes
from tests.training import linear

ROOT = Path(launch.__file__).parent


def command(*arguments):
    """Status, output and errors of ``python launch.py ...``."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(ROOT)])}
    done = subprocess.run(
        [sys.executable, "launch.py", *arguments], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    return done.returncode, done.stdout, done.stderr


@pytest.fixture
def run(monkeypatch, tmp_path, capsys):
    """Runs launch.main in this process; returns what it printed to stderr, without the loop's line per validation."""

    def run(config, workdir=tmp_path / "run", mode="train", status=2):
        for flag, value in (("_CONFIG", config), ("_WORKDIR", str(workdir)), ("_MODE", mode)):
            monkeypatch.setattr(launch, flag, SimpleNamespace(value=value))
        with pytest.raises(SystemExit) as stop:
            launch.main(["launch.py"])
            sys.exit(0)
        assert stop.value.code == status
        return [line for line in capsys.readouterr().err.splitlines() if not line.startswith("step ")]

    return run


def config_of(**fields):
    config = base.get_config()
    config.train.num_devices = 1
    config.update_from_flattened_dict({name.replace("__", "."): value for name, value in fields.items()})
    return config


# --------------------------------------------------------------------------------------------------- the command line


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--config.objective.nam=nvil"], "the config has no such field: 'nam' Did you mean \"name\""),
        (["--config.train.batch_size=many"], "flag --config.train.batch_size=many: invalid literal for int()"),
        (["--mode=test"], "flag --mode=test: value should be one of <train|evaluate>"),
        (["--config.experiment=ari"], "config.experiment='ari' is unknown: name a module of experiments/"),
        (["--config.experiment=results_table"], "config.experiment='results_table' is unknown: name a module of"),
        (["runs/air"], "'runs/air' is not a flag"),
        (["--config=configs/ccae.py", "--config.objective.name=vimco"], "the config has no part 'objective': see"),
        (["--config=configs/scae_ablations.py", "--config.train.num_steps=9"], "the config has no part 'train'"),
        (["--config=configs/gmm.py:brief"], "ValueError: the schedule 'brief' is unknown: write :paper or :short"),
    ],
)
def test_flags(arguments, message, tmp_path):
    status, output, errors = command("--config=configs/air.py", f"--workdir={tmp_path / 'run'}", *arguments)
    assert (status, output) == (2, "")
    assert errors.startswith(f"objcentric: {message}") and errors.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_missing_flags(tmp_path):
    for arguments, message in (
        (["--config=configs/air.py"], "flag --workdir=None"),
        (["--config=configs/none.py", "--workdir=runs"], "cannot read --config: [Errno 2] No such file or directory"),
    ):
        status, _, errors = command(*arguments)
        assert status == 2 and errors.startswith(f"objcentric: {message}") and errors.count("\n") == 1


def test_a_mistake_found_by_the_experiment_is_one_line_too(tmp_path):
    arguments = ["--config.objective.name=reinforced", f"--config.data.cache_dir={tmp_path}"]
    arguments += [f"--config.data.num_{split}=4" for split in ("train", "valid", "test")]
    status, output, errors = command("--config=configs/air.py", f"--workdir={tmp_path / 'run'}", *arguments)
    assert (status, output) == (2, "")
    *log, line = errors.splitlines()
    assert line.startswith("objcentric: objective.name='reinforced' is unknown: use one of elbo, iwae, ")
    assert all(entry[:1] in "EWI" for entry in log)  # XLA's own log, on a slow machine


# -------------------------------------------------------------------------------------------------- config and folder


def scenes_config(tmp_path, **fields):
    """A config of ready scenes in an .npz, that trains in seconds."""
    split = scenes.make_split(40, 0)
    np.savez(tmp_path / "scenes.npz", **split)
    fields = {"data__name": "scenes", "data__path": str(tmp_path / "scenes.npz")} | fields
    return scenes.make_config(**fields)


def test_vimco_of_one_particle(run, tmp_path):
    (line,) = run(scenes_config(tmp_path, objective__num_particles=1))
    assert line.startswith("objcentric: objective.name='vimco' compares particles: set objective.num_particles to 2")


def test_another_config_in_the_same_folder(run, tmp_path):
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    config = config_of(objective__name="nvil")
    (tmp_path / "run" / "config.json").write_text(config.to_json())
    (line,) = run(config_of(objective__name="vimco"))
    assert "run holds a run with objective.name=nvil, not vimco: choose another --workdir" in line


@pytest.mark.parametrize(
    "field, value", [("model__output_std", math.nan), ("optimizer__learning_rate", math.inf), ("data__seed", -1)]
)
def test_numbers_that_are_none(run, field, value):
    (line,) = run(config_of(**{field: value}))
    assert line.startswith(f"objcentric: {field.replace('__', '.')}")


def test_a_folder_without_permission(run, tmp_path, monkeypatch):
    def refuse(*args, **options):
        raise PermissionError(errno.EACCES, "Permission denied")  # root, who may run the tests, is never refused

    monkeypatch.setattr(Path, "mkdir", refuse)
    (line,) = run(config_of())
    assert line.startswith("objcentric: cannot write to --workdir=") and "(Permission denied): choose another" in line


def test_ctrl_c_in_a_study(run, monkeypatch):
    def study(config, folder):
        raise KeyboardInterrupt

    monkeypatch.setitem(sys.modules, "experiments.linear", SimpleNamespace(study=study))
    (line,) = run(linear.make_config(), status=75)
    assert line == "objcentric: stopped; the same command goes on with what is not finished"


@pytest.mark.parametrize(
    "error", [MemoryError(), jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 9 bytes.")]
)
def test_too_little_memory(run, monkeypatch, error):
    def build(config):
        raise error

    monkeypatch.setitem(sys.modules, "experiments.linear", SimpleNamespace(build=build))
    (line,) = run(linear.make_config())
    assert line.startswith("objcentric: out of memory: reduce train.batch_size or evaluate.batch_size")


def test_a_defect_of_our_own_keeps_its_traceback(run, monkeypatch):
    def build(config):
        raise jax.errors.JaxRuntimeError("INTERNAL: of another kind")

    monkeypatch.setitem(sys.modules, "experiments.linear", SimpleNamespace(build=build))
    with pytest.raises(jax.errors.JaxRuntimeError):
        run(linear.make_config())


def test_a_folder_that_cannot_be_written(run, tmp_path):
    (tmp_path / "file").write_text("")
    (line,) = run(config_of(), tmp_path / "file" / "run")
    assert line.startswith("objcentric: cannot write to --workdir=") and "Not a directory" in line


def test_a_folder_without_a_run_is_not_evaluated(run, tmp_path):
    (line,) = run(config_of(), mode="evaluate")
    assert line.startswith(f"objcentric: {tmp_path / 'run'} holds no checkpoint to evaluate: train first")
    assert not (tmp_path / "run").exists()


def test_a_batch_that_devices_do_not_divide(run):
    (line,) = run(config_of(train__num_devices=4, train__batch_size=30))
    assert line.startswith("objcentric: train.batch_size=30 does not divide among 4 devices: use a multiple of 4")


def test_a_cpu_of_less_than_no_devices(run):
    (line,) = run(config_of(train__cpu_devices=-1))
    assert line == "objcentric: train.cpu_devices=-1: use 0, to leave the CPU whole, or more"


def test_studies_divide_the_cpu_as_their_runs_ask():
    def study(**asked):
        return ConfigDict({"runs": {name: {"train": {"cpu_devices": n}} for name, n in asked.items()}})

    assert launch.cpu_devices(ConfigDict({"run": {"train": {"cpu_devices": 2}}})) == 2
    assert launch.cpu_devices(study(a=3, b=3)) == 3 and launch.cpu_devices(ConfigDict()) == 0
    with pytest.raises(UserError, match=r"runs ask for cpu_devices=\[1, 2\]: give all the same"):
        launch.cpu_devices(study(a=1, b=2))


def test_an_unknown_mode(run):
    (line,) = run(config_of(), mode="test")
    assert "mode 'test' is unknown" in line


@pytest.mark.parametrize("seeds", [(), (0, 0), ("a",), (0, "a"), (0.5,)])
def test_impossible_seeds(run, seeds):
    (line,) = run(config_of(seeds=seeds))
    assert line.startswith("objcentric: seeds=") and "different numbers from 0 to 2**32 - 1" in line


# ------------------------------------------------------------------------------------------------------------ the data


def png(path, height, width):
    Image.fromarray(np.full((height, width), 200, np.uint8)).save(path)


@pytest.mark.parametrize("name", ["scenes", "multi_digit"])
def test_a_folder_of_mixed_sizes(run, tmp_path, name):
    (tmp_path / "images").mkdir()
    for i, height in enumerate((10, 10, 12, 10)):
        png(tmp_path / "images" / f"{i}.png", height, 10)
    field = {"scenes": "data__path", "multi_digit": "data__source"}[name]
    config = config_of(data__name=name, data__cache_dir=str(tmp_path), **{field: str(tmp_path / "images")})
    (line,) = run(config)
    assert "mixes sizes: 0.png is 10x10 and 2.png is 10x12" in line and line.endswith("make all images one size")


@pytest.mark.parametrize("name", ["scenes", "multi_digit"])
def test_an_empty_folder(run, tmp_path, name):
    (tmp_path / "images").mkdir()
    field = {"scenes": "data__path", "multi_digit": "data__source"}[name]
    config = config_of(data__name=name, data__cache_dir=str(tmp_path), **{field: str(tmp_path / "images")})
    (line,) = run(config)
    assert line.startswith("objcentric: ") and "images holds no PNG" in line


@pytest.mark.parametrize("zipped", [True, False])
def test_an_idx_file_that_is_cut_off(run, tmp_path, zipped):
    (tmp_path / "mnist").mkdir()
    content = b"\0\0\x08\x03" + np.array([60_000, 28, 28], ">i4").tobytes() + bytes(1000)
    name = "train-images-idx3-ubyte"
    if zipped:
        (tmp_path / "mnist" / f"{name}.gz").write_bytes(gzip.compress(content + bytes(100_000))[:-30])
    else:
        (tmp_path / "mnist" / name).write_bytes(content)
    (tmp_path / "mnist" / "train-labels-idx1-ubyte").write_bytes(b"")
    config = config_of(data__source="mnist", data__path=str(tmp_path / "mnist"), data__cache_dir=str(tmp_path))
    (line,) = run(config)
    assert name in line and "cut off" in line and line.endswith("copy or download it again")


# -------------------------------------------------------------------------------------------------------- checkpoints


@pytest.fixture
def damaged(monkeypatch, tmp_path, capsys):
    """The folder of a finished run that was not evaluated, with the checkpoints of the given steps cut off."""

    def damaged(*steps):
        monkeypatch.setitem(sys.modules, "experiments.linear", linear)
        loop.run(linear.make_config(), tmp_path / "run", linear.build)
        capsys.readouterr()
        (tmp_path / "run" / "eval.json").unlink()
        for step in steps:
            files = [path for path in (tmp_path / "run" / "checkpoints" / step).rglob("*") if path.is_file()]
            largest = max(files, key=lambda path: path.stat().st_size)
            largest.write_bytes(largest.read_bytes()[:-20])
        return tmp_path / "run"

    return damaged


def test_a_damaged_checkpoint(run, damaged):
    folder = damaged("40")
    (line,) = run(linear.make_config(), status=0)
    assert line == f"checkpoint {folder / 'checkpoints' / '40'} is damaged: going on from step 30"
    assert json.loads((folder / "eval.json").read_text())["steps"] == 40


@pytest.mark.parametrize("mode", ["train", "evaluate"])
def test_all_checkpoints_damaged(run, damaged, mode):
    folder = damaged("30", "40")
    (line,) = run(linear.make_config(), mode=mode)
    advice = "is readable: remove that folder to train from the start"
    assert line == f"objcentric: no checkpoint in {folder / 'checkpoints'} {advice}"
    assert {"30", "40"} <= {path.name for path in (folder / "checkpoints").iterdir()}
    assert not (folder / "eval.json").exists()


# -------------------------------------------------------------------------------------------------------- non-finite


def test_a_loss_that_is_not_finite_leaves_the_last_good_checkpoint(run, tmp_path, monkeypatch):
    def build(config):
        return linear.build(config, bad=lambda params, step: step >= 22)

    monkeypatch.setitem(sys.modules, "experiments.linear", SimpleNamespace(build=build))
    for _ in range(2):  # the same command again ends in the same way
        (line,) = run(linear.make_config())
        assert line.startswith("objcentric: loss or gradient is not finite since step 22 (last good checkpoint: ")
        assert "try a smaller optimizer.learning_rate" in line
    arrays = Checkpoints(tmp_path / "run" / "checkpoints", 2)._read(30)
    assert all(np.isfinite(array).all() for array in arrays.values())
    assert not (tmp_path / "run" / "eval.json").exists()
