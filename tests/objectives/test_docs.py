"""Every public function shows how it is used; pytest runs the examples of all modules (setup.cfg)."""

from objcentric import objectives


def test_every_function_has_an_example():
    functions = [f for name in objectives.__all__ if not isinstance(f := getattr(objectives, name), type)]
    assert len(functions) > 20
    assert [f.__name__ for f in functions if ">>>" not in f.__doc__] == []
