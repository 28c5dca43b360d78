"""What the README says can be run, runs."""

import re
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


@pytest.mark.parametrize("code", re.findall(r"```python\n(.*?)```", README, re.DOTALL))
def test_python_blocks_run_and_give_gradients(code):
    names = {}
    with jax.numpy_rank_promotion("allow"):  # as users have it
        exec(compile(code, "README.md", "exec"), names)
    assert jnp.isfinite(names["bound"])
    norms = [float(jnp.abs(leaf).sum()) for leaf in jax.tree.leaves(names["grads"])]
    assert all(0 < norm < jnp.inf for norm in norms)


def test_configs_and_links_exist():
    for path in set(re.findall(r"configs/\w+\.py", README)) | set(re.findall(r"\]\(([\w./]+)\)", README)):
        assert (ROOT / path).exists(), path
