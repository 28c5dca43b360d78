"""Where compiled programs are kept."""

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
