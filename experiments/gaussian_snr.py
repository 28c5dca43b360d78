"""Signal-to-noise ratios of gradient estimates on a Gaussian model (thesis, sections 7.4, 7.C and 7.E).

The model (eq. 7.11) is ``z ~ N(mu, I)``, ``x ~ N(z, I)``, with ``q(z | x) = N(Ax + b, s^2 I)``. For a particle
``z = Ax + b + s e``, and ``d = Ax + b - (x + mu) / 2``, the mean of q minus that of the posterior,

    log w = constant - 2 s d.e - (s^2 - 1/2) |e|^2,

and since its gradients are linear in e, IWAE's gradient is theirs at the weighted mean of e. Such means are what is
drawn here; a test holds what becomes of them against `jax.grad` of `objectives.iwae`.
"""

import functools
import itertools
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array, lax
from jax.flatten_util import ravel_pytree
from matplotlib.figure import Figure
from ml_collections import ConfigDict
from scipy import stats

from objcentric import plots_snr
from objcentric.errors import UserError
from objcentric.objectives import diagnostics
from objcentric.training.study import Result, track

METHODS = ("iwae", "vae")  # M = 1 and K grows; K = 1 and M grows
PARTS = ("b", "mu")  # parameters in pictures: of the inference and of the generative network
_BATCH = 50  # estimates between two signs of life
_BLOCK = 50  # particles drawn at once, few enough for a processor's cache


def study(config: ConfigDict, folder: Path) -> Result:
    """The figures of chapter 7 that are of the Gaussian model: as numbers, in a table.md too, and as pictures."""
    check(config)
    data_key, offset_key, estimate_key, train_key = jax.random.split(jax.random.key(config.seed), 4)
    x = make_data(data_key, config.num_data, config.dim)
    problems = make_problems(offset_key, x, [config[regime] for regime in config.regimes])
    figures, pictures = {}, {}
    with ThreadPoolExecutor(_num_cores()) as pool:
        estimates, moments = draw_estimates(config, pool, estimate_key, x, problems)
        for p, regime in enumerate(config.regimes):
            mine = {method: {part: estimates[method][part][:, p] for part in PARTS} for method in METHODS}
            log_z_gradient = (np.mean(x, axis=0) - problems.params["mu"][p]) / 2
            measured = {method: measure(mine[method], mine["iwae"], log_z_gradient) for method in METHODS}
            snr_of_a = {method: np.asarray(moments[method].snr[p]) for method in METHODS}
            figures[regime] = summarize(config, measured, snr_of_a)
            drawn = draw_regime(config, mine, measured)
            pictures |= {f"{regime}_{name}": picture for name, picture in drawn.items()}
        if config.convergence.num_steps:
            runs = converge(config.convergence, pool, train_key, x)
            figures["convergence"] = {label: {k: v[:, -1] for k, v in curves.items()} for label, _, curves in runs}
            pictures["convergence"] = draw_convergence(config, runs)
    (folder / "table.md").write_text(table(config, figures))
    slopes = {f"slope_{name}": value for name, value in figures[config.regimes[0]]["slopes"].items()}
    return Result({config.seed: slopes | figures}, pictures)


def check(config: ConfigDict) -> None:
    """Raises UserError unless the numbers fit."""
    if not config.regimes or not {"low_variance", "high_variance"}.issuperset(config.regimes):
        raise UserError(f"regimes={config.regimes}: use 'low_variance', 'high_variance' or both")
    for name in ("particles", "samples"):
        values = config[name]
        if not values or values[0] < 1 or any(b <= a for a, b in itertools.pairwise(values)):
            raise UserError(f"{name}={values}: use one or more ascending numbers from 1")
    for name, least in (("dim", 8), ("num_data", config.dim + 1), ("num_estimates", 2), ("chunk", 1)):
        if config[name] < least:
            raise UserError(f"{name}={config[name]}: use at least {least}")
    c = config.convergence
    if c.num_steps and min(c.repeats, *c.particles, *c.samples) < 1:
        raise UserError("convergence.repeats, .particles and .samples must be at least 1; .num_steps=0 leaves it out")


# -------------------------------------------------------------------------------------------------- data and parameters


class Problem(NamedTuple):
    """Parameters at which gradients are estimated, and the variance of q."""

    params: dict[str, Array]  # A [P, D, D], b [P, D], mu [P, D]
    variance: Array  # [P] s^2


def make_data(key: Array, num_data: int, dim: int) -> Array:
    """``x [N, D]`` from the model, of which mu is a draw of N(0, I)."""
    mu_key, z_key, x_key = jax.random.split(key, 3)
    z = jax.random.normal(mu_key, (1, dim)) + jax.random.normal(z_key, (num_data, dim))
    return z + jax.random.normal(x_key, (num_data, dim))


def optimum(x: Array) -> dict[str, Array]:
    """The parameters that maximise IWAE's bound for any K (thesis, section 7.B)."""
    mu = jnp.mean(x, axis=0)
    return {"A": jnp.eye(x.shape[1]) / 2, "b": mu / 2, "mu": mu}


def make_problems(key: Array, x: Array, regimes: Sequence[ConfigDict]) -> Problem:
    """Of P regimes: the optimum plus noise in every parameter."""
    best, unravel = ravel_pytree(optimum(x))
    noise = jax.random.normal(key, (len(regimes), best.size))
    offset = jnp.array([regime.offset_std for regime in regimes])[:, None] * noise
    return Problem(jax.vmap(unravel)(best[None] + offset), jnp.array([regime.covariance for regime in regimes]))


def mean_offset(params: dict[str, Array], x: Array) -> Array:
    """d ``[N, D]``: the mean of q minus that of the posterior."""
    return x @ params["A"].T + (params["b"] - params["mu"] / 2)[None] - x / 2


def with_one(x: Array) -> Array:
    """``(x, 1) [N, D + 1]``: what A and b are multiplied by."""
    return jnp.concatenate([x, jnp.ones_like(x[:, :1])], axis=1)


# ------------------------------------------------------------------------------------------------------------ particles


class Sums(NamedTuple):
    """All that gradients need to know of a datum's particles, each weighted by ``w / exp(top)``."""

    top: Array  # [...] largest log-weight
    weight: Array  # [...] sum of the weights
    along: Array  # [...] weighted sum of the components of e along d
    across: Array  # [...] length of the weighted sum of the rest of e


def add_particle(sums: Sums, log_w: Array, along: Array, towards: Array, rest: Array) -> Sums:
    """Adds an e with the components ``along`` d and ``towards`` the sum across d so far, its ``rest`` squared."""
    larger, shrink = log_w > sums.top, jnp.exp(-jnp.abs(log_w - sums.top))
    old, new = jnp.where(larger, shrink, 1.0), jnp.where(larger, 1.0, shrink)
    across = jnp.sqrt(jnp.square(old * sums.across + new * towards) + jnp.square(new) * rest)
    return Sums(jnp.maximum(sums.top, log_w), old * sums.weight + new, old * sums.along + new * along, across)


def draw_sums(key: Array, distance: Array, variance: Array, dim: int, counts: Sequence[int]) -> Sums:
    """Sums ``[C, P, N]`` over the first ``counts[c]`` particles of each datum; counts ascend.

    A log-weight depends on e through its component along d and its length alone. So instead of D normal variables a
    particle takes three: the component along d, the one towards the sum so far across d, and the squared length of the
    rest, a chi-square variable of D - 2 degrees; the direction of the sum across d is uniform whatever they are.

    Args:
      distance: |d| ``[P, N]``, of P regimes that see the same noise.
      variance: s^2 ``[P]``.
    """
    root = chi_square_root(dim - 2)
    tilt, bend = 2 * jnp.sqrt(variance)[:, None] * distance, (variance - 0.5)[:, None]

    def add(sums: Sums, particle: Array) -> tuple[Sums, None]:
        along, towards, rest = particle
        square = jnp.square(along) + jnp.square(towards) + rest
        return add_particle(sums, -tilt * along - bend * square, along, towards, rest), None

    def add_block(i: Array, sums: Sums, start: int, size: int) -> Sums:
        shape = (3, size, 1, distance.shape[1])
        along, towards, normal = jax.random.normal(jax.random.fold_in(key, start + i * size), shape)
        return lax.scan(add, sums, (along, towards, jnp.polyval(root, normal) ** 3))[0]

    zero = jnp.zeros(distance.shape)
    sums = [Sums(zero - jnp.inf, zero, zero, zero)]
    for start, stop in itertools.pairwise((0, *counts)):
        size = max(size for size in range(1, _BLOCK + 1) if not (stop - start) % size)
        body = functools.partial(add_block, start=start, size=size)
        sums.append(lax.fori_loop(0, (stop - start) // size, body, sums[-1]))
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *sums[1:])


@functools.cache
def chi_square_root(degrees: int) -> np.ndarray:
    """Coefficients of a polynomial that turns an N(0, 1) variable into the cube root of a chi-square one.

    That root is nearly normal (Wilson and Hilferty, 1931), so the polynomial is nearly a line: up to 6 standard
    deviations, quantiles are right to a factor of 1 + 2e-6 for 18 degrees, 1 + 5e-4 for 6.
    """
    normal = 6 * np.cos(np.pi * (np.arange(200) + 0.5) / 200)
    below, above = stats.chi2.ppf(stats.norm.cdf(normal), degrees), stats.chi2.isf(stats.norm.sf(normal), degrees)
    fit = np.polynomial.Chebyshev.fit(normal, np.cbrt(np.where(normal < 0, below, above)), deg=9)
    return fit.convert(kind=np.polynomial.Polynomial).coef[::-1].astype(np.float32)


# ------------------------------------------------------------------------------------------------- noise, and gradients


def iwae_noise(key: Array, x: Array, problems: Problem, counts: Sequence[int]) -> tuple[Array, Array]:
    """For each K of ``counts`` the weighted mean of e and the bound, averaged over the data.

    Returns:
      ``1/N sum_n e_n (x_n, 1)^T`` ``[P, C, D, D + 1]``, where e_n is the weighted mean of datum n's K particles, and
      IWAE's bound ``[P, C]``.
    """
    sums_key, turn_key = jax.random.split(key)
    offset = jax.vmap(mean_offset, (0, None))(problems.params, x)  # [P, N, D]
    distance = jnp.linalg.norm(offset, axis=-1)
    unit = offset / jnp.maximum(distance, 1e-30)[..., None]
    sums = draw_sums(sums_key, distance, problems.variance, x.shape[1], counts)  # [C, P, N]

    across = jax.random.normal(turn_key, x.shape)[None]
    across = across - jnp.sum(across * unit, axis=-1, keepdims=True) * unit
    across = across / jnp.linalg.norm(across, axis=-1, keepdims=True)
    noise = jnp.stack([sums.along, sums.across]) / sums.weight[None]  # [2, C, P, N]
    noise = noise[0, ..., None] * unit[None] + noise[1, ..., None] * across[None]
    noise = jnp.einsum("cpnd,ne->pcde", noise, with_one(x)) / len(x)

    log_mean_w = jnp.mean(sums.top + jnp.log(sums.weight), axis=-1) - jnp.log(jnp.array(counts))[:, None]
    return noise, log_mean_w.T + jax.vmap(log_w_constant, (0, 0, None))(*problems, x)[:, None]


def vae_noise(key: Array, x: Array, counts: Array) -> Array:
    """For each M of ``counts`` the same of M unweighted particles ``[C, D, D + 1]``: its distribution is normal."""
    dim = x.shape[1]
    factor = jnp.linalg.cholesky(with_one(x).T @ with_one(x) / len(x))
    return jax.random.normal(key, (len(counts), dim, dim + 1)) @ factor.T / jnp.sqrt(len(x) * counts)[:, None, None]


def gradients(params: dict[str, Array], variance: Array, x: Array, noise: Array) -> dict[str, Array]:
    """Of the bound, averaged over the data, given the ``noise [D, D + 1]`` of an estimate."""
    inner = -2 * (mean_offset(params, x).T @ with_one(x) / len(x) + jnp.sqrt(variance) * noise)
    z = params["A"] @ jnp.mean(x, axis=0) + params["b"] + jnp.sqrt(variance) * noise[:, -1]
    return {"A": inner[:, :-1], "b": inner[:, -1], "mu": z - params["mu"]}


def log_w_constant(params: dict[str, Array], variance: Array, x: Array) -> Array:
    """What a log-weight has that does not depend on e, averaged over the data."""
    squares = jnp.square(mean_offset(params, x)) + jnp.square(x - params["mu"][None]) / 4
    return x.shape[1] / 2 * jnp.log(variance / (2 * jnp.pi)) - jnp.mean(jnp.sum(squares, axis=-1))


def elbo(params: dict[str, Array], variance: Array, x: Array) -> Array:
    """The VAE's bound, averaged over the data."""
    return log_w_constant(params, variance, x) - (variance - 0.5) * x.shape[1]


# ------------------------------------------------------------------------------------------------------------ estimates


def make_estimate(config: ConfigDict, x: Array, problems: Problem) -> Callable[[Array], dict]:
    """``key ->`` one estimate of the gradient by each method, of each regime and count: ``{A, b, mu} [P, C, ...]``."""
    of_counts = jax.vmap(gradients, (None, None, None, 0))
    of_regimes = jax.vmap(of_counts, (0, 0, None, 0))

    def estimate(key: Array) -> dict:
        iwae_key, vae_key = jax.random.split(key)
        iwae, _ = iwae_noise(iwae_key, x, problems, config.particles)
        vae = vae_noise(vae_key, x, jnp.array(config.samples))
        vae = jnp.broadcast_to(vae, (len(config.regimes), *vae.shape))
        return {"iwae": of_regimes(*problems, x, iwae), "vae": of_regimes(*problems, x, vae)}

    return estimate


def draw_estimates(
    config: ConfigDict, pool: ThreadPoolExecutor, key: Array, x: Array, problems: Problem
) -> tuple[dict, dict]:
    """Of each method the estimates of b and mu ``[R, P, C, D]``, and the moments of those of A ``[P, C, D, D]``.

    The R estimates of one gradient are independent. IWAE's of several K share particles, and regimes share noise.
    """
    estimate = make_estimate(config, x, problems)

    @jax.jit
    def draw(keys: Array) -> tuple[dict, dict]:
        drawn = diagnostics.sample_gradients(estimate, keys, chunk=config.chunk)
        moments = {method: diagnostics.gradient_moments(drawn[method].pop("A")) for method in METHODS}
        return drawn, moments

    def run(keys: Array) -> tuple[dict, dict]:
        return jax.device_get(draw(keys))

    keys = jax.random.split(key, config.num_estimates)
    first, *others = jnp.array_split(keys, max(config.num_estimates // _BATCH, 1))
    batches = itertools.chain([run(first)], pool.map(run, others))  # compiled before threads come to it
    drawn, moments = zip(*track(batches, len(others) + 1, "estimates"), strict=True)
    merged = {m: functools.reduce(diagnostics.merge_moments, [lot[m] for lot in moments]) for m in METHODS}
    return jax.tree.map(lambda *leaves: np.concatenate(leaves), *drawn), merged


# ---------------------------------------------------------------------------------------------------------- measurement


class Measured(NamedTuple):
    """Of one method, in one regime, by part."""

    snr: dict[str, np.ndarray]  # [C, D]
    dsnr: dict[str, np.ndarray]  # [R, C] with regard to the mean of the same estimates
    dsnr_to_target: dict[str, np.ndarray]  # [R, C] with regard to IWAE's mean for the largest K, E[Delta_{1,1000}]
    error: np.ndarray  # [R, C] distance of mu's estimates from the gradient of log Z


@jax.jit
def measure(estimates: dict, iwae: dict, log_z_gradient: Array) -> Measured:
    """From estimates ``{b, mu} [R, C, D]`` of a method and of IWAE, and the gradient of log Z by mu ``[D]``."""
    own, towards = jax.vmap(diagnostics.dsnr, 1, 1), jax.vmap(diagnostics.dsnr, (1, None), 1)
    return Measured(
        diagnostics.snr(estimates),
        {part: own(estimates[part]) for part in PARTS},
        {part: towards(estimates[part], jnp.mean(iwae[part][:, -1], axis=0)) for part in PARTS},
        jnp.linalg.norm(estimates["mu"] - log_z_gradient[None, None], axis=-1),
    )


def summarize(config: ConfigDict, measured: dict[str, Measured], snr_of_a: dict[str, np.ndarray]) -> dict[str, Any]:
    """Numbers for each count: SNR averaged over components, DSNR, RMSE; and slopes of that SNR."""
    figures = {
        method: {
            "snr_A": snr_of_a[method].mean((1, 2)),
            **{f"snr_{part}": of.snr[part].mean(1) for part in PARTS},
            **{f"dsnr_{part}": of.dsnr[part].mean(0) for part in PARTS},
            **{f"dsnr_to_target_{part}": of.dsnr_to_target[part].mean(0) for part in PARTS},
            "rmse_mu": np.sqrt(np.square(of.error).mean(0)),
        }
        for method, of in jax.device_get(measured).items()
    }
    slopes = {}
    for part, between in (("A", config.inference_fit), ("b", config.inference_fit), ("mu", config.generative_fit)):
        slopes[f"{part}_in_K"] = slope(config.particles, figures["iwae"][f"snr_{part}"], between)
        slopes[f"{part}_in_M"] = slope(config.samples, figures["vae"][f"snr_{part}"], (1, config.samples[-1]))
    floor = np.sqrt(2 / (np.pi * config.num_estimates))  # so many estimates of a gradient of 0 show this SNR
    return figures | {"slopes": slopes, "snr_floor": floor}


ROWS = {
    "snr_A": "SNR(A)",
    "snr_b": "SNR(b)",
    "snr_mu": "SNR(\u03bc)",
    "dsnr_b": "DSNR(b)",
    "dsnr_mu": "DSNR(\u03bc)",
    "dsnr_to_target_b": "DSNR(b), towards large K",
    "dsnr_to_target_mu": "DSNR(\u03bc), towards large K",
    "rmse_mu": "RMSE(\u03bc)",
}


def table(config: ConfigDict, figures: dict[str, Any]) -> str:
    """Markdown: slopes, and every quantity for each K and each M."""
    lines = []
    for regime in config.regimes:
        slopes = figures[regime]["slopes"]
        lines += [f"#### {regime.replace('_', ' ')}", ""]
        lines += ["| slope of log SNR | of A | of b | of \u03bc |", "| --- | --- | --- | --- |"]
        for count in ("K", "M"):
            cells = " | ".join(f"{slopes[f'{part}_in_{count}']:.3f}" for part in ("A", *PARTS))
            lines.append(f"| in {count} | {cells} |")
        for method, count, counts in (("iwae", "K", config.particles), ("vae", "M", config.samples)):
            lines += ["", "| | " + " | ".join(f"{count} = {n}" for n in counts) + " |"]
            lines.append("| --- |" + " --- |" * len(counts))
            for name, title in ROWS.items():
                lines.append(f"| {title} | " + " | ".join(f"{v:.3g}" for v in figures[regime][method][name]) + " |")
        lines.append("")
    return "\n".join(lines)


def slope(counts: Sequence[int], values: np.ndarray, between: tuple[int, int]) -> float:
    """Of ``log values`` against ``log counts``, by least squares; NaN if fewer than two lie in the range."""
    chosen = [i for i, count in enumerate(counts) if between[0] <= count <= between[1]]
    if len(chosen) < 2:
        return float("nan")
    return float(np.polyfit(np.log(np.array(counts)[chosen]), np.log(values[chosen]), 1)[0])


# ---------------------------------------------------------------------------------------------------------- convergence


def converge(
    c: ConfigDict, pool: ThreadPoolExecutor, key: Array, x: Array
) -> list[tuple[str, str, dict[str, np.ndarray]]]:
    """Learns all parameters (thesis, section 7.E): each run's label, method and curves ``[repeats, T]`` by quantity.

    Curves: ``bound``, in closed form for K = 1, and the distances ``mu``, ``A`` and ``b`` from the optimum.
    """
    variance = jnp.float32(c.covariance)
    best = optimum(x)
    optimizer = optax.adam(c.learning_rate)

    def iwae(key: Array, params: dict, count: int) -> tuple[Array, Array]:
        noise, bound = iwae_noise(key, x, jax.tree.map(lambda leaf: leaf[None], Problem(params, variance)), (count,))
        return noise[0, 0], bound[0, 0] if count > 1 else elbo(params, variance, x)

    def vae(key: Array, params: dict, count: int) -> tuple[Array, Array]:
        return vae_noise(key, x, jnp.array([count]))[0], elbo(params, variance, x)

    @functools.partial(jax.jit, static_argnums=(1, 2))
    def train(key: Array, estimate: Callable, count: int) -> dict[str, Array]:
        init_key, step_key = jax.random.split(key)
        flat, unravel = ravel_pytree(best)
        params = unravel(jax.random.uniform(init_key, flat.shape, minval=c.init[0], maxval=c.init[1]))

        def step(state: tuple, key: Array) -> tuple[tuple, dict]:
            params, memory = state
            noise, bound = estimate(key, params, count)
            ascent = gradients(params, variance, x, noise)
            updates, memory = optimizer.update(jax.tree.map(jnp.negative, ascent), memory)
            distances = {name: jnp.linalg.norm(jnp.ravel(value - best[name])) for name, value in params.items()}
            return (optax.apply_updates(params, updates), memory), {"bound": bound} | distances

        return lax.scan(step, (params, optimizer.init(params)), jax.random.split(step_key, c.num_steps))[1]

    def run(task: tuple) -> dict[str, np.ndarray]:
        estimate, count, repeat = task
        return jax.device_get(train(jax.random.fold_in(key, repeat), estimate, count))

    kinds = [(iwae, k) for k in c.particles] + [(vae, m) for m in c.samples]
    tasks = [(*kind, r) for kind in sorted(kinds, key=lambda kind: -kind[1]) for r in range(c.repeats)]  # longest first
    done = dict(zip(tasks, track(pool.map(run, tasks), len(tasks), "training"), strict=True))
    labels = {"iwae": "K = {}, M = 1", "vae": "K = 1, M = {}"}
    runs = []
    for estimate, count in kinds:
        curves = jax.tree.map(lambda *leaves: np.stack(leaves), *[done[estimate, count, r] for r in range(c.repeats)])
        runs.append((labels[estimate.__name__].format(count), estimate.__name__, curves))
    return runs


def _num_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


# ------------------------------------------------------------------------------------------------------------- pictures


def draw_regime(config: ConfigDict, estimates: dict, measured: dict[str, Measured]) -> dict[str, Figure]:
    """Figures 7.3.1 and 7.C.1, 7.4.1, 7.4.2, 7.4.3 and 7.C.2; of the regime of high variance, 7.C.3 to 7.C.6."""
    measured = jax.device_get(measured)
    counts = {"iwae": config.particles, "vae": config.samples}
    titles = {"b": "inference network (b)", "mu": "generative network (\u03bc)"}
    symbols = {"b": "b", "mu": r"\mu"}
    caption = f"D = {config.dim}, N = {config.num_data}; {config.num_estimates:,} estimates for each K and M"
    with_band = f"{caption}: mean and interquartile range"

    def curve(method: str, lines: np.ndarray, spread: np.ndarray | None = None, guide: float | None = None):
        band = None if spread is None else np.quantile(spread, [0.25, 0.75], axis=0)
        return plots_snr.Curve(method, counts[method], lines, band, guide)

    def panel(part: str, ylabel: str, curves: list[plots_snr.Curve], reference: tuple | None = None):
        return plots_snr.Panel(titles[part], ylabel % symbols[part], curves, reference)

    pictures = {}
    for method, letter in (("iwae", "K"), ("vae", "M")):
        panels = {}
        for part in PARTS:
            component = int(np.argsort(measured[method].snr[part][0])[config.dim // 2])
            panels[f"{titles[part]}, component {component + 1}"] = {
                f"{letter} = {count}": estimates[method][part][:, i, component]
                for i, count in enumerate(counts[method])
                if count in config.histogram
            }
        chosen = f"{caption}; the component whose SNR at {letter} = 1 is the median"
        pictures[f"histograms_{method}"] = plots_snr.histograms(panels, method=method, caption=chosen)

    falling = {("iwae", "b"): -0.5}
    panels = [
        panel(
            part,
            r"$\mathrm{SNR}_{M,K}(%s)$",
            [curve(m, measured[m].snr[part], guide=falling.get((m, part), 0.5)) for m in METHODS],
        )
        for part in PARTS
    ]
    pictures["snr"] = plots_snr.scaling(panels, f"{caption}; a line for each component")

    t = stats.t(config.dim - 1)  # of a random direction the DSNR is |t| / sqrt(D - 1)
    random = np.array([t.expect(np.abs), *t.ppf([0.625, 0.875])]) / np.sqrt(config.dim - 1)
    target = rf" to $E[\Delta_{{1,{config.particles[-1]}}}]$"
    for name, of_what, guides in (("dsnr", "", {"vae": 0.5}), ("dsnr_to_target", target, {})):
        panels = []
        for part in PARTS:
            ratios = {m: getattr(measured[m], name)[part] for m in METHODS}
            curves = [curve(m, ratios[m].mean(0)[:, None], ratios[m], guides.get(m)) for m in METHODS]
            label = r"$\mathrm{DSNR}_{M,K}(%s)$" + of_what
            panels.append(panel(part, label, curves, ("random direction", *random)))
        pictures[name] = plots_snr.scaling(panels, with_band)

    errors = {m: measured[m].error for m in METHODS}
    guides = {"iwae": -0.5}
    curves = [curve(m, np.sqrt(np.square(e).mean(0))[:, None], e, guides.get(m)) for m, e in errors.items()]
    rmse = panel("mu", r"RMSE of $\Delta_{M,K}(%s)$ to $\nabla_\mu \log Z$", curves)
    pictures["rmse"] = plots_snr.scaling([rmse], with_band)
    return pictures


def draw_convergence(config: ConfigDict, runs: list[tuple[str, str, dict[str, np.ndarray]]]) -> Figure:
    """Figure 7.E.1."""
    c = config.convergence
    titles = {
        "bound": "bound, a different one for each K",
        "mu": "generative network: distance of \u03bc from the optimum",
        "A": "inference network: distance of A",
        "b": "inference network: distance of b",
    }
    caption = (
        f"D = {config.dim}, N = {config.num_data}, all of them in every step; Adam with rate {c.learning_rate:g};"
        f" mean and standard deviation of {c.repeats} runs"
    )
    return plots_snr.training(runs, titles, log=("mu", "A", "b"), caption=caption)
