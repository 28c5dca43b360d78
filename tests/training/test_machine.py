"""Where compiled programs are kept, and what is said of a run's machine and command."""

import os
import subprocess
import sys
from types import SimpleNamespace

import pytest

from objcentric.data import cache
from objcentric.training import machine


@pytest.mark.parametrize("variable, root", [("~/there", "home/there"), ("", "home/.cache/objcentric")])
def test_compiled_programs_are_kept_where_the_data_are(tmp_path, monkeypatch, variable, root):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("OBJCENTRIC_CACHE", variable)
    monkeypatch.chdir(tmp_path)
    set_to = {}
    config = SimpleNamespace(jax_compilation_cache_dir=None, update=set_to.__setitem__)
    monkeypatch.setattr(machine, "jax", SimpleNamespace(config=config))
    machine.use_compilation_cache()
    (folder,) = (tmp_path / root / "xla").iterdir()
    assert set_to == {"jax_compilation_cache_dir": str(folder)}
    assert cache.folder() == tmp_path / root
    assert [path.name for path in tmp_path.iterdir()] == ["home"]


@pytest.mark.parametrize("flags, number", [("", 3), ("--xla_force_host_platform_device_count=2", 2)])
def test_a_cpu_of_several_devices(flags, number):
    code = "from objcentric.training import machine; machine.divide_cpu(3); print(len(machine.jax.devices()))"
    environment = os.environ | {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
    assert subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True).stdout == (
        f"{number}\n"
    )


@pytest.mark.parametrize("mode", [["--mode=evaluate"], ["--mode", "evaluate"], ["-mode", "evaluate"], []])
def test_the_command_makes_the_run_not_its_evaluation(monkeypatch, mode):
    monkeypatch.setattr(machine.sys, "argv", ["launch.py", *mode, "--config=models/mode.py", "--config.seeds=(0, 1)"])
    command = "python launch.py --config=models/mode.py '--config.seeds=(0, 1)'"
    assert machine.provenance()["command"] == command
