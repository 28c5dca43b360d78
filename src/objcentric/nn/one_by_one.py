"""Functions of which a CPU computes one example after another."""

from collections.abc import Callable
from typing import Any

import jax
from jax import Array
from jax.custom_batching import sequential_vmap


def one_by_one(function: Callable[..., Array]) -> Callable[..., Array]:
    """``function(variables, data) -> []``, of two pytrees; the same, but for what `jax.vmap` makes of it.

    On a CPU it then goes through the examples, each with its gradients, so that what is large in between stays in
    cache; elsewhere they are computed together. Gradients are those of ``variables`` alone.
    """

    @jax.custom_vjp
    def wrapped(variables: Any, data: Any) -> Array:
        return _sequential(function)(variables, data)

    def forward(variables: Any, data: Any) -> tuple[Array, Any]:
        return _sequential(jax.value_and_grad(function))(variables, data)

    def backward(gradients: Any, cotangent: Array) -> tuple:
        return jax.tree.map(lambda gradient: cotangent * gradient, gradients), None

    wrapped.defvjp(forward, backward)
    return wrapped


def _sequential(function: Callable) -> Callable:
    return sequential_vmap(function) if jax.default_backend() == "cpu" else function
