"""Whoever reuses the estimators gets nothing else with them."""

import os
import subprocess
import sys
from pathlib import Path

from objcentric import objectives


def test_import_needs_jax_only():
    code = """
import sys, jax, jax.numpy, numpy
before = set(sys.modules)
import objcentric.objectives
new = {name.split(".")[0] for name in set(sys.modules) - before}
heavy = {"flax", "distrax", "optax", "chex", "tensorflow_datasets", "matplotlib", "ml_collections", "scipy"}
print(sorted(new - {"objcentric", "jax"}), sorted(heavy & {name.split(".")[0] for name in new}))
print(sorted(name for name in sys.modules if name.startswith("objcentric") and "objectives" not in name))
"""
    source = Path(objectives.__file__).parents[2]
    environment = os.environ | {"PYTHONPATH": str(source)}
    result = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert result.stdout.splitlines() == ["[] []", "['objcentric']"]
