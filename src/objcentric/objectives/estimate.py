"""What every objective returns."""

from typing import NamedTuple

from jax import Array


class Estimate(NamedTuple):
    """A lower bound per datum and the function to differentiate in its place."""

    bound: Array  # [...] the value of the objective, maximised
    surrogate: Array  # [...] its gradient is the estimator of the bound's gradient; its value means nothing
