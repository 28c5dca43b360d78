"""Checkpoints come back bit for bit, or not at all."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from objcentric.errors import UserError
from objcentric.training.checkpoint import Checkpoints


def make_tree(step):
    weights = np.random.default_rng(step).normal(size=(300, 40)).astype(np.float32)
    params = {"a/b": jnp.asarray(weights), "empty": jnp.zeros((2, 0)), "nested": [jnp.int32(step), (jnp.bool_(True),)]}
    return {"params": params, "key": jax.random.split(jax.random.key(step)), "seconds": step / 3}


@pytest.fixture
def checkpoints(tmp_path):
    """Steps 10, 20 and 30, of which two are kept."""
    checkpoints = Checkpoints(tmp_path / "checkpoints", kept=2)
    for step in (10, 20, 30):
        checkpoints.save(step, make_tree(step))
    return checkpoints


def files(folder):
    return [path for path in folder.rglob("*") if path.is_file()]


def damage(folder, how):
    largest = max(files(folder), key=lambda path: path.stat().st_size)
    if how == "flip":  # one bit in the middle of the weights
        content = bytearray(largest.read_bytes())
        content[len(content) // 2] ^= 1
        largest.write_bytes(content)
    elif how == "truncate":
        largest.write_bytes(largest.read_bytes()[:100])
    elif how == "empty":
        for path in files(folder):
            path.unlink()


def test_the_newest_comes_back(checkpoints, tmp_path):
    step, tree = Checkpoints(tmp_path / "checkpoints", 2).restore(make_tree(0))
    assert step == 30
    expected = make_tree(30)
    key = jax.random.key_data(tree.pop("key"))
    np.testing.assert_array_equal(key, jax.random.key_data(expected.pop("key")))
    chex.assert_trees_all_equal(tree, expected)
    chex.assert_trees_all_equal_dtypes(tree["params"], expected["params"])
    assert tree["seconds"] == 10.0


def test_only_the_newest_few_stay(checkpoints, tmp_path):
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == ["20", "30"]
    assert checkpoints.newest().name == "30"


def test_no_checkpoints(tmp_path):
    checkpoints = Checkpoints(tmp_path / "checkpoints", 2)
    assert checkpoints.restore(make_tree(0)) is None
    assert checkpoints.newest() is None


@pytest.mark.parametrize("how", ["flip", "truncate", "empty"])
def test_a_damaged_one_is_put_aside_and_can_be_saved_again(checkpoints, tmp_path, capfd, how):
    folder = tmp_path / "checkpoints"
    damage(folder / "30", how)
    reopened = Checkpoints(folder, 2)
    step, tree = reopened.restore(make_tree(0))
    assert step == 20
    np.testing.assert_array_equal(tree["params"]["a/b"], make_tree(20)["params"]["a/b"])
    captured = capfd.readouterr()
    assert captured.err == f"checkpoint {folder / '30'} is damaged: going on from step 20\n"
    assert captured.out == ""
    reopened.save(30, make_tree(31))
    step, tree = Checkpoints(folder, 2).restore(make_tree(0))
    np.testing.assert_array_equal(tree["params"]["a/b"], make_tree(31)["params"]["a/b"])
    assert (folder / "corrupt_30").is_dir()


def test_none_is_readable(checkpoints, tmp_path):
    for step in ("20", "30"):
        damage(tmp_path / "checkpoints" / step, "truncate")
    with pytest.raises(UserError, match=r"no checkpoint in .*checkpoints is readable: remove that folder"):
        Checkpoints(tmp_path / "checkpoints", 2).restore(make_tree(0))
    assert (tmp_path / "checkpoints" / "20").is_dir()


@pytest.mark.parametrize(
    "change, message",
    [
        ({"a/b": np.zeros((300, 41), np.float32)}, r"params.a/b is float32\[300, 40\] there, float32\[300, 41\] here"),
        ({"new": np.zeros(3, np.int32)}, r"params.new is missing there, int32\[3\] here"),
        ({"nested": []}, r"params.nested.[01.]* is \w*\[\] there, missing here"),
    ],
)
def test_other_shapes(checkpoints, change, message):
    template = make_tree(0)
    template["params"] |= change
    with pytest.raises(UserError, match=message):
        checkpoints.restore(template)


def test_a_save_is_a_copy_and_keeps_what_is_there(checkpoints):
    checkpoints.save(30, make_tree(99))
    assert checkpoints.restore(make_tree(0)).tree["seconds"] == 10.0
