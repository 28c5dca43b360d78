"""Object-centric generative models in JAX. Import the part you need, e.g. ``from objcentric import objectives``."""

from typing import Any


def __getattr__(name: str) -> Any:
    """`objcentric.track`, imported when it is used: the estimators need nothing but jax."""
    if name == "track":
        from objcentric.tracker import track

        return track
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
