"""Object-centric generative models in JAX. Import the part you need, e.g. ``from objcentric import objectives``."""

from typing import Any


def __getattr__(name: str) -> Any:
    """`objcentric.track` and `objcentric.explain`, imported when used: the estimators need nothing but jax."""
    if name == "track":
        from objcentric.tracker import track

        return track
    if name == "explain":
        from objcentric.explainer import explain

        return explain
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
