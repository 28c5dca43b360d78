"""What every estimator must pass; each check takes a `Row` and raises AssertionError."""

import functools
from collections.abc import Callable
from dataclasses import dataclass, field

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.objectives import toys


@dataclass(frozen=True, eq=False)
class Row:
    """An estimator as a function ``(*arrays [..., K], where=None) -> Estimate``, and what is true of it."""

    name: str
    function: Callable
    arrays: tuple[str, ...]  # the views of a toy (`toys.views`) that it is given, in its order
    exact: dict[str, tuple[Callable, Callable]]  # by toy, the mean gradients for theta and for phi
    bound: Callable  # the mean bound
    least: int = 1  # fewest particles; with fewer it refuses
    proposal: str = "q"  # what draws z
    sizes: dict[str, int] = field(default_factory=dict)  # K on a toy, if not the usual
    order: tuple[int, ...] = (3, 0, 5, 1, 4, 2)  # a permutation of 6 particles that leaves it as it is
    control: bool = False  # whether a control variate teaches where the bound is -inf

    def __str__(self) -> str:
        return self.name

    def program(self, arrays: list, where: np.ndarray) -> tuple:
        """The estimate and the gradients, compiled."""
        return evaluate(self.function, *arrays, where=where)


def program(function: Callable, **options) -> Callable:
    """``(arrays, where=None) -> (estimate, gradients of its surrogate for the arrays)``."""

    def evaluate(arrays, where=None):
        def surrogate(arrays):
            masked = {} if where is None else {"where": where}
            estimate = function(*arrays, **options, **masked)
            return estimate.surrogate.sum(), estimate

        gradients, estimate = jax.grad(surrogate, has_aux=True)(arrays)
        return estimate, gradients

    return evaluate


@functools.cache
def _compiled(function: Callable, options: tuple) -> Callable:
    return jax.jit(program(function, **dict(options)))


def evaluate(function: Callable, *arrays, where=None, **options) -> tuple:
    """What `program` gives, compiled once for all tests."""
    return _compiled(function, tuple(options.items()))(list(arrays), where)


SIZES = {"categorical": 3, "gaussian": 2, "mixed": 2, "ordered": 2, "hierarchical": 2, "relaxed": 2}
SHAPE = (12, 3, 6)
EVERYWHERE = np.ones(SHAPE, bool)
OTHERS = np.arange(36).reshape(SHAPE[:2]) != 4  # all data but [1, 1]
WHERE = np.broadcast_to([[1, 0, 1, 1, 1, 0], [0, 1, 1, 1, 0, 1], [1, 1, 0, 0, 1, 1]], SHAPE) == 1  # two in each half


def example(row: Row, std: float = 2.0) -> list[np.ndarray]:
    """Arrays for a row; ``std`` is that of the first, the log-weights."""
    random = np.random.default_rng(7)
    return [random.normal(-2, 1 if i else std, SHAPE).astype(np.float32) for i in range(len(row.arrays))]


@functools.cache
def _mapped(function: Callable) -> Callable:
    return jax.jit(program(jax.vmap(jax.vmap(function))))


def reference(row: Row, arrays: list) -> tuple:
    """Estimates and gradients in float64, without a mask, of a vmap over data."""
    with jax.enable_x64(True):
        return _mapped(row.function)([np.float64(array) for array in arrays])


def assert_close(actual, expected, rtol=2e-5, atol=2e-5) -> None:
    for a, b in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=rtol, atol=atol)


def assert_equal(actual, expected) -> None:
    for a, b in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        np.testing.assert_array_equal(a, b)


# --------------------------------------------------------------------------------------------------------------- checks


def mean_gradient(row: Row, toy: str, num_particles: int | None = None) -> None:
    """The mean over all draws is the exact answer: the gradient for theta, for phi, and the bound."""
    num_particles = num_particles or row.sizes.get(toy, SIZES[toy])
    found = toys.moments(row.function, row.arrays, toy, num_particles, row.proposal)
    num_phi, tolerance = toys.num_phi(toy), 1e-7 if toy == "hierarchical" else 1e-10
    np.testing.assert_allclose(found.bound, row.bound(toy, num_particles)[0], atol=tolerance)
    for part, exact in zip((slice(num_phi, None), slice(num_phi)), row.exact[toy], strict=True):
        if exact is not None:
            gradient = np.broadcast_to(exact(toy, num_particles)[1], found.mean.shape)
            np.testing.assert_allclose(found.mean[part], gradient[part], atol=tolerance)


def one_particle(row: Row) -> None:
    """It is exact with one particle too, or refuses when it is traced."""
    if row.least == 1:
        for toy in row.exact:
            mean_gradient(row, toy, 1)
        return
    few = [jax.ShapeDtypeStruct((4, row.least - 1), jnp.float32) for _ in row.arrays]
    with pytest.raises(ValueError, match=f"{row.least - 1}"):
        raise_only_value_errors(row, few)


def shapes(row: Row) -> None:
    """Log-probabilities and masks whose shapes disagree are refused when they are traced."""
    particles = [i for i, name in enumerate(row.arrays) if name.startswith("log_")]
    for i in particles if len(particles) > 1 else []:
        arrays = [jax.ShapeDtypeStruct((4, 1 if i == j else 4), jnp.float32) for j in range(len(row.arrays))]
        with pytest.raises(ValueError, match=r"one shape \[..., K\]"):
            raise_only_value_errors(row, arrays)
    arrays = [jax.ShapeDtypeStruct((4, 4), jnp.float32) for _ in row.arrays]
    with pytest.raises(ValueError, match=r"where \(4, 6\) must tell which of the particles \(4, 4\)"):
        raise_only_value_errors(row, arrays, where=np.ones((4, 6), bool))


def raise_only_value_errors(row: Row, arrays: list, **options) -> None:
    jax.eval_shape(functools.partial(row.function, **options), *arrays)
    raise AssertionError(f"{row.name} was traced with {arrays}")


def permutation(row: Row) -> None:
    """The order of particles changes nothing."""
    arrays, order = example(row), np.array(row.order)
    estimate, gradients = row.program(arrays, EVERYWHERE)
    permuted = row.program([array[..., order] for array in arrays], EVERYWHERE)
    assert_close(permuted, (estimate, [gradient[..., order] for gradient in gradients]))


def agreement(row: Row) -> None:
    """Compiled or not, leading axes or vmap, all particles said to exist or nothing said: the same."""
    arrays = example(row)
    estimate, gradients = row.program(arrays, EVERYWHERE)
    assert all(value.shape == SHAPE[:2] for value in estimate)
    assert_close((estimate, gradients), reference(row, arrays))
    alone = program(row.function)([jnp.asarray(array[1, 1]) for array in arrays])
    assert_close(alone, jax.tree.map(lambda x: x[1, 1], (estimate, gradients)))


def batches(row: Row) -> None:
    """What other data hold changes not a bit."""
    arrays = example(row)
    changed = row.program([np.where(OTHERS[..., None], 1 - 3 * array, array) for array in arrays], EVERYWHERE)
    assert_equal(*(jax.tree.map(lambda x: x[1, 1], tree) for tree in (changed, row.program(arrays, EVERYWHERE))))


def masks(row: Row) -> None:
    """A call with masked particles is the call without them, whatever they hold."""
    arrays = example(row)
    without = reference(row, [array[WHERE].reshape(*SHAPE[:2], 4) for array in arrays])
    for value in (np.nan, np.inf, -np.inf, 1e4):
        estimate, gradients = row.program([np.where(WHERE, array, np.float32(value)) for array in arrays], WHERE)
        assert_close((estimate, [gradient[WHERE].reshape(*SHAPE[:2], 4) for gradient in gradients]), without)
        assert all((gradient[~WHERE] == 0).all() for gradient in gradients)


def no_weight(row: Row) -> None:
    """A datum that no particle explains: its bound is -inf, it teaches nothing, and the others learn as ever."""
    weights = [i for i, name in enumerate(row.arrays) if name.startswith(("log_w", "log_p"))] or [0]
    before = row.program(example(row), EVERYWHERE)
    arrays = example(row)
    for i in weights:
        arrays[i][1, 1] = -np.inf
    estimate, gradients = row.program(arrays, EVERYWHERE)
    assert estimate.bound[1, 1] == -np.inf
    for gradient in gradients[:1] if row.control else gradients:
        np.testing.assert_array_equal(gradient[1, 1], 0)
    assert_equal(*(jax.tree.map(lambda x: np.asarray(x)[OTHERS], tree) for tree in ((estimate, gradients), before)))
    # Some weights of 0 leave finite gradients, and teach nothing themselves.
    arrays = example(row)
    for i in weights:
        arrays[i][..., [1, 3]] = -np.inf
    _, gradients = row.program(arrays, EVERYWHERE)
    assert all(np.isfinite(gradient).all() for gradient in gradients)
    assert all((gradients[i][..., [1, 3]] == 0).all() for i in weights)


def float32(row: Row) -> None:
    """At weights whose logarithms have a standard deviation of 50."""
    arrays = example(row, std=50.0)
    estimate, gradients = row.program(arrays, EVERYWHERE)
    exact, expected = reference(row, arrays)
    assert estimate.bound.dtype == np.float32 and exact.bound.dtype == np.float64
    assert_close((estimate.bound, gradients), (exact.bound, expected), rtol=1e-5, atol=1e-4)


CHECKS = (one_particle, shapes, permutation, agreement, batches, masks, no_weight, float32)
