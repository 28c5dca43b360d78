"""The examples in the docstrings give what they say."""

import doctest
import importlib
import pkgutil

import jax
import jax.numpy as jnp
import pytest

from objcentric import objectives

MODULES = [module.name for module in pkgutil.iter_modules(objectives.__path__)]


@pytest.mark.parametrize("name", MODULES)
def test_examples(name):
    module = importlib.import_module(f"objcentric.objectives.{name}")
    names = {"jax": jax, "jnp": jnp} | vars(objectives)
    results = doctest.testmod(module, extraglobs=names, optionflags=doctest.ELLIPSIS)
    assert not results.failed


def test_every_function_has_an_example():
    functions = [f for name in objectives.__all__ if callable(f := getattr(objectives, name)) and not isinstance(f, type)]
    assert len(functions) > 20
    assert [f.__name__ for f in functions if ">>>" not in f.__doc__] == ["init_moments"]
