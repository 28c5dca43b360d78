"""The real AIR, streamed from prepared scenes: the same on one device and on four, and after SIGKILL."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from ml_collections import ConfigDict

from experiments import air
from objcentric.data.loader import Stream
from objcentric.training import loop
from objcentric.training.experiment import Experiment
from tests.experiments import scenes
from tests.training.test_loop import outcome

STEPS = 6


def build(config: ConfigDict) -> Experiment:
    experiment = air.build(config)
    assert isinstance(experiment.data.train, Stream)
    return experiment._replace(figures=lambda *_: {})  # they take long to compile


@pytest.fixture(scope="module")
def reference(tmp_path_factory) -> tuple[ConfigDict, Path]:
    """Config and folder of an uninterrupted run."""
    root = tmp_path_factory.mktemp("runs")
    fields = {"cache_dir": str(root / "cache"), "canvas": (24, 22), "object_size": (8, 8), "device_bytes": 0}
    config = scenes.make_config()
    config.data.update(fields)
    config.model.object_size = 8.0
    config.train.update({"num_steps": STEPS, "inner_steps": 2, "log_every": 2, "checkpoint_every": 2})
    config.objective.name = "nvil"  # whose state has all there is
    loop.run(config, root / "reference", build)
    return config, root / "reference"


def test_sigkill(reference, tmp_path):
    config, folder = reference
    with start(config, tmp_path / "run") as process:
        while not list((tmp_path / "run").glob("checkpoints/[24]/checksums.json")) and process.poll() is None:
            time.sleep(0.0005)
        process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    assert not (tmp_path / "run" / "eval.json").exists()
    with start(config, tmp_path / "run") as process:
        output, _ = process.communicate()
    assert process.returncode == 0 and "going on from step" in output
    assert outcome(tmp_path / "run", STEPS) == outcome(folder, STEPS)


def start(config: ConfigDict, folder: Path) -> subprocess.Popen:
    root = Path(__file__).resolve().parents[2]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(root / "src"), str(root)])}
    program = (
        "import sys, json, ml_collections, jax; jax.config.update('jax_numpy_rank_promotion', 'raise')\n"
        "from objcentric.training import loop; from tests.experiments import test_air_resumes as tests\n"
        "loop.run(ml_collections.ConfigDict(json.loads(sys.argv[1])), sys.argv[2], tests.build)"
    )
    command = [sys.executable, "-c", program, config.to_json(), str(folder)]
    return subprocess.Popen(command, cwd=root, env=environment, stdout=subprocess.PIPE, text=True)


def test_four_devices(reference, tmp_path):
    config, folder = reference
    config = ConfigDict(config)
    config.train.num_devices = 4
    loop.run(config, tmp_path / "run", build)
    ours, theirs = (outcome(each, STEPS) for each in (tmp_path / "run", folder))
    for our, their in zip(ours["metrics"], theirs["metrics"], strict=True):
        assert our.keys() == their.keys()
        for name in our:
            np.testing.assert_allclose(our[name], their[name], rtol=1e-3, atol=1e-3, err_msg=name)
    assert ours["arrays"].keys() == theirs["arrays"].keys()
    for name, their in theirs["arrays"].items():
        if "params" in name or "aux" in name:
            our, their = (np.frombuffer(array, np.float32) for array in (ours["arrays"][name], their))
            # Adam moves a weight by up to 5e-4 a step even if its gradient is nothing but rounding.
            np.testing.assert_allclose(our, their, atol=2e-4, rtol=1e-3, err_msg=name)
