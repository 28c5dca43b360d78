"""Models of one datum so small that every expectation is a sum: over all draws, or over a grid of them.

An estimator's mean gradient is a sum over *draws*, reparameterised by noise, of its gradient for the arrays that it is
given, times the Jacobian of these arrays. The exact answer is the derivative of a sum over *cells* of the space of z,
with q's density for a factor, written in numpy. The two have no formula in common. All is in float64.
"""

import functools
import itertools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jax.nn import log_sigmoid, log_softmax
from jax.scipy.stats import norm
from scipy.special import logsumexp, softmax

_stop = jax.lax.stop_gradient
DELTA = 0.2  # of the defensive mixture


class Toy(NamedTuple):
    """A model ``p(x, z)``, its ``q(z | x)``, and how to integrate over z; latents and noise ``[n]``, maybe several."""

    phi: Any
    theta: Any
    log_p: Callable  # (theta, z) -> log p(x, z)
    log_q: Callable  # (phi, z) -> log q(z | x)
    log_q_discrete: Callable  # (phi, z) -> log q of the discrete latents
    sample: Callable  # (phi, noise) -> z
    draws: Callable  # (proposal) -> noise [n] and its probabilities [n]
    cells: Callable  # () -> z [n] and the volumes of their cells [n]
    extra: dict[str, Callable] = {}  # further views: (phi, noise) -> array [n]


class Table(NamedTuple):
    """What is known of one particle at each of n nodes."""

    weight: np.ndarray  # [n], the node's probability or volume
    values: dict[str, np.ndarray]  # [n] of each view
    jacobians: dict[str, np.ndarray]  # [n, P], for phi and then theta


def views(toy: Toy, phi: Any, theta: Any, noise: Any) -> dict[str, jax.Array]:
    """What an objective is given, by name: the same numbers may be live in different parameters."""
    z = toy.sample(phi, noise)

    def log_w(phi, theta, z):
        return toy.log_p(theta, z) - toy.log_q(phi, z)

    return {
        "log_w": log_w(phi, theta, z),
        "log_w, theta live": log_w(_stop(phi), theta, _stop(z)),
        "log_w, phi live": log_w(phi, _stop(theta), z),
        "log_w, path live": log_w(_stop(phi), _stop(theta), z),
        "log_q": toy.log_q_discrete(phi, z),
        "log_q of all": toy.log_q(phi, z),
        "log_p, z stopped": toy.log_p(theta, _stop(z)),
        "log_q, z stopped": toy.log_q(phi, _stop(z)),
        "log_u": jnp.full(jnp.shape(jax.tree.leaves(z)[0]), -jnp.log(3.0)),
    } | {name: f(phi, noise) for name, f in toy.extra.items()}


def _tabulate(toy: Toy, function: Callable, weight: np.ndarray) -> Table:
    flat, unravel = ravel_pytree((toy.phi, toy.theta))

    def split(flat):
        values = function(*unravel(flat))
        return values, values

    jacobians, values = jax.jit(jax.jacfwd(split, has_aux=True))(flat)
    return Table(np.asarray(weight), *(jax.tree.map(np.asarray, tree) for tree in (values, jacobians)))


@functools.cache
def drawn(name: str, proposal: str) -> Table:
    """The views at all draws of a particle."""
    with jax.enable_x64(True):
        toy = make(name)
        noise, weight = toy.draws(proposal)
        return _tabulate(toy, lambda phi, theta: views(toy, phi, theta, noise), weight)


@functools.cache
def cells(name: str) -> Table:
    """log p and log q everywhere."""
    with jax.enable_x64(True):
        toy = make(name)
        z, weight = toy.cells()
        return _tabulate(toy, lambda phi, theta: {"p": toy.log_p(theta, z), "q": toy.log_q(phi, z)}, weight)


def num_phi(name: str) -> int:
    """How many of the P parameters are those of q."""
    return ravel_pytree(make(name).phi)[0].size


@functools.cache
def rows(num_nodes: int, num_particles: int) -> np.ndarray:
    """The nodes of K particles ``[n^K, K]``."""
    return np.array(list(itertools.product(range(num_nodes), repeat=num_particles)))


class Moments(NamedTuple):
    """Of an estimator of the gradient."""

    mean: np.ndarray  # [P]
    std: float  # root of the summed variance of the gradient for phi
    bound: float  # mean of the bound


def moments(estimate: Callable, names: tuple[str, ...], toy: str, num_particles: int, proposal: str = "q") -> Moments:
    """Of the gradient of ``estimate(*arrays)`` on a toy, over all draws of K particles."""
    table = drawn(toy, proposal)
    at = rows(len(table.weight), num_particles)
    probability = table.weight[at].prod(-1)

    def surrogate(arrays):
        value = estimate(*arrays)
        return value.surrogate.sum(), value.bound

    with jax.enable_x64(True):
        arrays = [jnp.asarray(table.values[name][at]) for name in names]
        gradients, bound = jax.jit(jax.grad(surrogate, has_aux=True))(arrays)
    each = sum(np.einsum("nk,nkp->np", g, table.jacobians[name][at]) for name, g in zip(names, gradients, strict=True))
    mean = probability @ each
    deviation = (each - mean)[:, : num_phi(toy)]
    return Moments(mean, np.sqrt(probability @ np.square(deviation).sum(-1)), probability @ np.asarray(bound))


# ------------------------------------------------------------------------------------------------------- exact answers
# Each is a function (toy, K) -> (value, gradient [P]).


def _proposed(toy: str, num_particles: int, log_proposal: np.ndarray) -> tuple:
    """Density ``[N]``, log-weights ``[N, K]``, and the derivatives ``[N, K, P]`` of log p and log q."""
    table = cells(toy)
    at = rows(len(table.weight), num_particles)
    density = (table.weight * np.exp(log_proposal))[at].prod(-1)
    return density, (table.values["p"] - log_proposal)[at], table.jacobians["p"][at], table.jacobians["q"][at]


def iwae(toy: str, num_particles: int) -> tuple[float, np.ndarray]:
    """E[log 1/K sum_k w_k], by the score of q and the normalised weights."""
    density, log_w, dp, dq = _proposed(toy, num_particles, cells(toy).values["q"])
    bound = logsumexp(log_w, axis=-1) - np.log(num_particles)
    weights = softmax(log_w, axis=-1)
    gradient = (density * bound) @ dq.sum(1) + density @ np.einsum("nk,nkp->np", weights, dp - dq)
    return density @ bound, gradient


def elbo(toy: str, num_particles: int) -> tuple[float, np.ndarray]:
    return iwae(toy, 1)


def groups_of(num_groups: int) -> Callable:
    """The mean of the bounds of groups has the mean of one of them."""
    return lambda toy, num_particles: iwae(toy, num_particles // num_groups)


def between(beta: float) -> Callable:
    def mean(toy, num_particles):
        return tuple(beta * a + (1 - beta) * b for a, b in zip(elbo(toy, 1), iwae(toy, num_particles), strict=True))

    return mean


def wake(toy: str, num_particles: int) -> tuple[float, np.ndarray]:
    """E[sum_k w_k / sum_j w_j grad log q(z_k)]."""
    density, log_w, _, dq = _proposed(toy, num_particles, cells(toy).values["q"])
    return iwae(toy, num_particles)[0], density @ np.einsum("nk,nkp->np", softmax(log_w, axis=-1), dq)


def landing(toy: str, num_particles: int) -> tuple[float, np.ndarray]:
    """STL leaves the score out of ``E[sum_k w~_k (path - score)]``: what it misses is the wake gradient."""
    bound, gradient = iwae(toy, num_particles)
    return bound, gradient + wake(toy, num_particles)[1]


def defended_by(log_u: np.ndarray | float, delta: float = DELTA) -> Callable:
    """The wake gradient with draws of ``(1 - delta) q + delta u``."""

    def mean(toy, num_particles):
        mixture = np.log((1 - delta) * np.exp(cells(toy).values["q"]) + delta * np.exp(log_u))
        density, log_w, _, dq = _proposed(toy, num_particles, mixture)
        bound = density @ (logsumexp(log_w, axis=-1) - np.log(num_particles))
        return bound, density @ np.einsum("nk,nkp->np", softmax(log_w, axis=-1), dq)

    return mean


defended = defended_by(-np.log(3))


def sleep(toy: str, num_particles: int) -> tuple[float, np.ndarray]:
    """E_p[log q(z | x)] of the categorical toy, over x as well."""
    theta, phi = make(toy).theta, make(toy).phi
    log_x = -np.logaddexp(0, np.concatenate([-theta["x"], theta["x"]]))
    joint = np.exp(np.tile(theta["prior"], 2) + log_x).reshape(2, 3) / np.exp(theta["prior"]).sum()
    q = softmax(phi, axis=-1)
    gradient = joint - joint.sum(1, keepdims=True) * q
    return np.sum(joint * np.log(q)), np.concatenate([gradient.reshape(-1), np.zeros(6)])


def nothing(toy: str, num_particles: int) -> tuple[float, np.ndarray]:
    return 0.0, np.zeros(1)


# ----------------------------------------------------------------------------------------------------------------- toys


def grid(reach: float, step: float) -> np.ndarray:
    """Nodes of the trapezoidal rule, which converges exponentially for what decays on both sides."""
    return np.arange(-reach, reach + step / 2, step)


def pairs(first: np.ndarray, second: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return np.repeat(first, len(second)), np.tile(second, len(first))


def log_bernoulli(logit: jax.Array, b: Any) -> jax.Array:
    return log_sigmoid(jnp.where(b == 1, logit, -logit))


LOG_PRIOR = np.log(softmax([0.3, -0.2, 0.5]))
LOG_LIKELIHOOD = np.array([-1.0, -2.5, -0.3])
LOGITS = np.array([-0.4, 0.6, 0.1])


def _categorical() -> Toy:
    """Three values of z and two of x: ``3 x + z`` stands for both. The datum is x = 0."""
    phi = np.stack([LOGITS, [0.3, 0.2, -0.9]])
    theta = {"prior": LOG_PRIOR, "x": LOG_LIKELIHOOD - np.log(-np.expm1(LOG_LIKELIHOOD))}  # x: logits of p(x = 0 | z)

    def log_p(theta, xz):
        log_x = jnp.concatenate([log_sigmoid(theta["x"]), log_sigmoid(-theta["x"])])
        return log_softmax(theta["prior"])[xz % 3] + log_x[xz]

    def log_q(phi, xz):
        return log_softmax(phi).reshape(-1)[xz]

    def draws(proposal):
        q = softmax(LOGITS)
        mixture = (1 - DELTA) * q + DELTA / 3
        everything = np.arange(6), np.exp(log_p(theta, np.arange(6)))
        return {"q": (np.arange(3), q), "mixture": (np.arange(3), mixture), "p": everything}[proposal]

    return Toy(phi, theta, log_p, log_q, log_q, lambda phi, xz: xz, draws, lambda: (np.arange(3), np.ones(3)))


def _gaussian() -> Toy:
    phi = {"loc": np.array(0.9), "log_scale": np.array(-0.2)}
    theta = {"loc": np.array(0.3), "slope": np.array(0.8), "bias": np.array(-0.2)}

    def log_p(theta, z):
        return norm.logpdf(z, theta["loc"]) + norm.logpdf(1.5, theta["slope"] * z + theta["bias"], 0.9)

    def log_q(phi, z):
        return norm.logpdf(z, phi["loc"], jnp.exp(phi["log_scale"]))

    def sample(phi, noise):
        return phi["loc"] + jnp.exp(phi["log_scale"]) * noise

    noise, z = grid(9, 0.4), grid(7, 0.3) + 0.9
    draws = noise, 0.4 * np.asarray(norm.pdf(noise))
    return Toy(
        phi,
        theta,
        log_p,
        log_q,
        lambda phi, z: jnp.zeros_like(z),
        sample,
        lambda proposal: draws,
        lambda: (z, np.full(len(z), 0.3)),
    )


def _mixed() -> Toy:
    """z is a pair: one of two components, and a value from it."""
    phi = {"logit": np.array(-0.3), "loc": np.array([-0.2, 0.8]), "log_scale": np.array([-0.2, -0.4])}
    theta = {"logit": np.array(0.4), "loc": np.array([-0.7, 1.1])}

    def log_p(theta, z):
        b, y = z
        return log_bernoulli(theta["logit"], b) + norm.logpdf(y, theta["loc"][b]) + norm.logpdf(0.6, y, 0.8)

    def log_q_discrete(phi, z):
        return log_bernoulli(phi["logit"], z[0])

    def log_q(phi, z):
        b, y = z
        return log_q_discrete(phi, z) + norm.logpdf(y, phi["loc"][b], jnp.exp(phi["log_scale"])[b])

    def sample(phi, noise):
        b, noise = noise
        return b, phi["loc"][b] + jnp.exp(phi["log_scale"])[b] * noise

    noise, z = pairs(np.arange(2), grid(8, 0.4)), pairs(np.arange(2), grid(6.5, 0.3) + 0.3)
    weight = np.exp(log_bernoulli(phi["logit"], noise[0])) * 0.4 * norm.pdf(noise[1])
    return Toy(
        phi,
        theta,
        log_p,
        log_q,
        log_q_discrete,
        sample,
        lambda proposal: (noise, weight),
        lambda: (z, np.full(len(z[0]), 0.3)),
    )


def _ordered() -> Toy:
    """z is a pair: a value, and a bit whose probability under q depends on it; with it, a view that stops it."""
    phi = {"loc": np.array(0.4), "log_scale": np.array(-0.3), "slope": np.array(0.9), "bias": np.array(-0.2)}
    theta = {"logit": np.array(0.3), "shift": np.array([-0.6, 0.8])}

    def log_p(theta, z):
        y, b = z
        return norm.logpdf(y) + log_bernoulli(theta["logit"], b) + norm.logpdf(0.7, y + theta["shift"][b], 0.8)

    def log_q_discrete(phi, z):
        return log_bernoulli(phi["slope"] * z[0] + phi["bias"], z[1])

    def log_q(phi, z):
        return norm.logpdf(z[0], phi["loc"], jnp.exp(phi["log_scale"])) + log_q_discrete(phi, z)

    def sample(phi, noise):
        return phi["loc"] + jnp.exp(phi["log_scale"]) * noise[0], noise[1]

    noise, z = pairs(grid(8, 0.4), np.arange(2)), pairs(grid(6.5, 0.3) + 0.4, np.arange(2))
    weight = 0.4 * norm.pdf(noise[0]) * jnp.exp(log_q_discrete(phi, sample(phi, noise)))
    return Toy(
        phi,
        theta,
        log_p,
        log_q,
        log_q_discrete,
        sample,
        lambda proposal: (noise, weight),
        lambda: (z, np.full(len(z[0]), 0.3)),
        {"log_q, inputs stopped": lambda phi, noise: log_q_discrete(phi, _stop(sample(phi, noise)))},
    )


def _hierarchical() -> Toy:
    """z is a pair, and q(z_2 | z_1) has a mean that depends on z_1; with it, a view that stops this mean."""
    phi = {"loc": np.array(0.5), "slope": np.array(0.4), "bias": np.array(0.3), "log_scale": np.array(-0.3)}
    theta = {"slope": np.array(0.7), "bias": np.array(-0.2)}

    def log_p(theta, z):
        return norm.logpdf(z[0]) + norm.logpdf(z[1], theta["slope"] * z[0]) + norm.logpdf(1.0, z[1] + theta["bias"])

    def log_q(phi, z, treat=lambda statistic: statistic):
        scale = treat(jnp.exp(phi["log_scale"]))
        loc = treat(phi["loc"]), treat(phi["slope"] * z[0] + phi["bias"])
        return norm.logpdf(z[0], loc[0], scale) + norm.logpdf(z[1], loc[1], scale)

    def sample(phi, noise):
        scale = jnp.exp(phi["log_scale"])
        first = phi["loc"] + scale * noise[0]
        return first, phi["slope"] * first + phi["bias"] + scale * noise[1]

    def statistics_stopped(phi, noise):
        z = sample(phi, noise)
        return log_p(theta, z) - log_q(phi, z, _stop)

    noise, z = pairs(grid(6, 0.75), grid(6, 0.75)), pairs(grid(5, 0.55) + 0.5, grid(5, 0.55) + 0.7)
    weight = 0.75**2 * norm.pdf(noise[0]) * norm.pdf(noise[1])
    return Toy(
        phi,
        theta,
        log_p,
        log_q,
        lambda phi, z: jnp.zeros_like(z[0]),
        sample,
        lambda proposal: (noise, weight),
        lambda: (z, np.full(len(z[0]), 0.55**2)),
        {"log_w, statistics stopped": statistics_stopped},
    )


def _relaxed() -> Toy:
    """A bit, with the logistic noise that decides it.

    Noise is a pair: the bit b, and the place of u in that part of [0, 1] which gives b. z and z~ see the same place:
    each has the right distribution given b, and no estimator has a product of the two.
    """
    phi, theta = np.array(0.7), np.array([0.4, -0.3, 0.5])

    def log_p(theta, b):
        return log_bernoulli(theta[0], b) + theta[1:][b]

    def log_q(phi, b):
        return log_bernoulli(phi, b)

    def place(phi, noise):
        b, v = noise
        p = jax.nn.sigmoid(phi)
        return jnp.where(b == 1, v * p + 1 - p, v * (1 - p))

    def logit(u):
        return jnp.log(u) - jnp.log1p(-u)

    nodes, weight = np.polynomial.legendre.leggauss(24)
    noise = pairs(np.arange(2), (nodes + 1) / 2)
    weight = np.exp(log_q(phi, noise[0])) * np.tile(weight / 2, 2)
    extra = {
        "z": lambda phi, noise: phi + logit(_stop(place(phi, noise))),
        "z~": lambda phi, noise: phi + logit(place(phi, noise)),
        "logit": lambda phi, noise: jnp.full(noise[0].shape, phi),
    }
    return Toy(
        phi,
        theta,
        log_p,
        log_q,
        log_q,
        lambda phi, noise: noise[0],
        lambda proposal: (noise, weight),
        lambda: (np.arange(2), np.ones(2)),
        extra,
    )


@functools.cache
def make(name: str) -> Toy:
    """Called within ``jax.enable_x64``."""
    makers = (_categorical, _gaussian, _mixed, _ordered, _hierarchical, _relaxed)
    return {maker.__name__[1:]: maker for maker in makers}[name]()
