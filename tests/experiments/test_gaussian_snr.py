"""The Gaussian study against the model itself: densities, jax.grad of objectives.iwae, closed forms."""

import functools
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.scipy.stats import norm
from scipy import stats

from configs import gaussian_snr as configs
from experiments import gaussian_snr
from objcentric import objectives
from objcentric.errors import UserError
from objcentric.objectives import diagnostics
from objcentric.training import study

N, D = 12, 8
REGIMES = [configs.get_config().low_variance, configs.get_config().high_variance]
add_particle = jax.jit(gaussian_snr.add_particle)


def make_config(**fields):
    """A study of seconds; ``fields`` are dotted names with '__' for '.'."""
    config = configs.get_config()
    small = dict(dim=D, num_data=N, num_estimates=120, particles=(1, 2, 6), samples=(1, 4), histogram=(1, 4, 6))
    small |= dict(inference_fit=(1, 6), generative_fit=(2, 6))
    config.update(small)
    config.convergence.update(particles=(1, 2), samples=(3,), repeats=2, num_steps=4)
    config.update_from_flattened_dict({name.replace("__", "."): value for name, value in fields.items()})
    return config


@pytest.fixture(scope="module")
def x():
    return jax.jit(gaussian_snr.make_data, static_argnums=(1, 2))(jax.random.key(1), N, D)


@pytest.fixture(scope="module")
def problems(x):
    return jax.jit(functools.partial(gaussian_snr.make_problems, regimes=REGIMES))(jax.random.key(2), x)


def problem(problems, regime):
    return jax.tree.map(lambda leaf: np.asarray(leaf)[regime], problems)


@jax.jit
def log_weights(params, variance, x, e):
    """``log p(x, z) - log q(z | x)`` [N, K] of ``z = Ax + b + s e``, e [N, K, D], from the densities themselves."""
    mean = (x @ params["A"].T + params["b"][None])[:, None]
    std = jnp.sqrt(variance)
    z = mean + std * e
    log_p = norm.logpdf(z, params["mu"][None, None]) + norm.logpdf(x[:, None], z)
    return jnp.sum(log_p - norm.logpdf(z, mean, std), axis=-1)


@jax.jit
def gradients_by_jax(params, variance, x, e):
    """Of IWAE's bound averaged over data, and that bound."""

    def surrogate(params):
        estimate = objectives.iwae(log_weights(params, variance, x, e))
        return jnp.mean(estimate.surrogate), jnp.mean(estimate.bound)

    return jax.grad(surrogate, has_aux=True)(params)


@jax.jit
def gradients_by_noise(params, variance, x, e):
    weights = objectives.normalized_weights(log_weights(params, variance, x, e))
    noise = jnp.einsum("nk,nkd,ne->de", weights, e, gaussian_snr.with_one(x)) / N
    return gaussian_snr.gradients(params, variance, x, noise)


def assert_same_distribution(first, second):
    """Means and standard deviations of ``[R, ...]`` agree within 5 standard errors."""
    for a, b in zip(jax.tree.leaves(first), jax.tree.leaves(second), strict=True):
        a, b = np.float64(a), np.float64(b)
        error = np.sqrt(a.var(0) / len(a) + b.var(0) / len(b))
        assert (np.abs(a.mean(0) - b.mean(0)) < 5 * error).all()
        spread = np.sqrt(1 / len(a) + 1 / len(b)) * np.sqrt((stats.kurtosis(a.ravel()) + 2) / 4)
        np.testing.assert_allclose(a.std(0) / b.std(0), 1, atol=5 * spread)


# ------------------------------------------------------------------------------------------ gradients, from given noise


@pytest.mark.parametrize("regime", [0, 1])
@pytest.mark.parametrize("num_particles", [1, 5])
def test_gradients_are_those_of_iwae(x, problems, regime, num_particles):
    params, variance = problem(problems, regime)
    e = jax.random.normal(jax.random.key(3), (N, num_particles, D))
    expected, _ = gradients_by_jax(params, variance, x, e)
    found = gradients_by_noise(params, variance, x, e)
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-5, atol=1e-5, err_msg=name)


@pytest.mark.parametrize("regime", [0, 1])
def test_sums_are_those_of_the_particles_that_they_are_told_of(x, problems, regime):
    """Three numbers of each e, and no more, give the weighted mean's component along d, the length of its rest, L."""
    params, variance = problem(problems, regime)
    e = np.asarray(jax.random.normal(jax.random.key(4), (N, 7, D)))
    d = np.asarray(jax.jit(gaussian_snr.mean_offset)(params, x))
    unit = d / np.linalg.norm(d, axis=-1, keepdims=True)
    along = np.einsum("nkd,nd->nk", e, unit)
    across = e - along[..., None] * unit[:, None]
    log_w = np.asarray(log_weights(params, variance, x, e))
    normalize = jax.jit(objectives.normalized_weights)

    zero = np.zeros(N, np.float32)
    sums, path = gaussian_snr.Sums(zero - np.inf, zero, zero, zero), np.zeros((N, D))
    for k in range(7):
        length = np.linalg.norm(path, axis=-1)
        towards = (across[:, k] * path).sum(-1) / np.where(length > 0, length, 1)
        rest = (across[:, k] ** 2).sum(-1) - towards**2
        sums = add_particle(sums, log_w[:, k], along[:, k], towards, rest)
        weights = np.asarray(normalize(np.where(np.arange(7) <= k, log_w, -np.inf)))  # one shape: compiled once
        path = np.einsum("nk,nkd->nd", weights, across)
    sums, bound = jax.device_get((sums, jax.jit(objectives.iwae)(log_w).bound))
    np.testing.assert_allclose(sums.top + np.log(sums.weight / 7), bound, rtol=1e-5)
    np.testing.assert_allclose(sums.along / sums.weight, (weights * along).sum(-1), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(sums.across / sums.weight, np.linalg.norm(path, axis=-1), rtol=1e-4, atol=1e-5)


def test_log_weights_of_any_size():
    zero = np.zeros(1, np.float32)
    sums = gaussian_snr.Sums(zero - np.inf, zero, zero, zero)
    for log_w in (-3000.0, 500.0, 499.0, -np.inf):
        sums = add_particle(sums, zero + log_w, zero + 2, zero, zero)
    sums = jax.device_get(sums)
    np.testing.assert_allclose(sums.top + np.log(sums.weight), np.logaddexp(500, 499), rtol=1e-6)
    np.testing.assert_allclose(sums.along / sums.weight, 2, rtol=1e-6)


# ------------------------------------------------------------------------------------------------ distribution of noise


def test_chi_square_variables():
    normal = np.linspace(-5, 5, 101)
    exact = {6: 1e-3, 18: 1e-5}
    for degrees, tolerance in exact.items():
        found = np.polyval(gaussian_snr.chi_square_root(degrees), normal) ** 3
        np.testing.assert_allclose(found, stats.chi2.isf(stats.norm.sf(normal), degrees), rtol=tolerance)


def test_iwae_estimates_are_distributed_as_those_of_all_the_noise(x, problems):
    """Also the bound; for K = 1 and K = 6, the first particle of which is that of K = 1, and in both regimes."""
    counts = (1, 6)
    keys = jax.random.split(jax.random.key(5), 3000)

    @jax.jit
    @jax.vmap
    def reduced(key):
        noise, bound = gaussian_snr.iwae_noise(key, x, problems, counts)
        of_counts = jax.vmap(gaussian_snr.gradients, (None, None, None, 0))
        return jax.vmap(of_counts, (0, 0, None, 0))(*problems, x, noise), bound

    gradients, bound = reduced(keys)
    for p in (0, 1):
        for c, count in enumerate(counts):

            def whole(key, count=count, p=p):
                return gradients_by_jax(*problem(problems, p), x, jax.random.normal(key, (N, count, D)))

            expected = diagnostics.sample_gradients(whole, jax.random.split(jax.random.key(6), 3000), chunk=1000)
            found = jax.tree.map(lambda g, p=p, c=c: g[:, p, c], (gradients, bound))
            assert_same_distribution(found, expected)


def test_vae_estimates_are_means_of_those_of_one_particle(x, problems):
    params, variance = problem(problems, 0)

    def whole(key):
        gradients, _ = jax.vmap(gradients_by_jax, (None, None, None, 0))(
            params, variance, x, jax.random.normal(key, (4, N, 1, D))
        )
        return jax.tree.map(lambda g: g.mean(0), gradients)

    def normal(key):
        noise = gaussian_snr.vae_noise(key, x, jnp.array([1, 4]))[1]
        return gaussian_snr.gradients(params, variance, x, noise)

    keys = jax.random.split(jax.random.key(7), 3000)
    assert_same_distribution(*(diagnostics.sample_gradients(f, keys, chunk=1000) for f in (normal, whole)))


def test_snr_of_the_vae_in_closed_form(x, problems):
    """|E| is 2 |mean d|, the standard deviation 2 s / sqrt(N M): the rate 1/2 in M is exact."""
    config = make_config(num_estimates=4000)
    with ThreadPoolExecutor(2) as pool:
        estimates, moments = gaussian_snr.draw_estimates(config, pool, jax.random.key(8), x, problems)
    for p in (0, 1):
        params, variance = problem(problems, p)
        mean = np.abs(gaussian_snr.mean_offset(params, x).mean(0))
        expected = mean[None] * np.sqrt(N * np.array(config.samples) / variance)[:, None]
        found = diagnostics.snr(estimates["vae"]["b"][:, p])
        np.testing.assert_allclose(found, expected, rtol=0.05, atol=0.06)
        # A's moments, merged over lots, are of the same estimates: each of its rows belongs to an entry of b.
        std = np.sqrt(moments["vae"].variance[p])
        design = np.asarray(gaussian_snr.with_one(x))
        expected = 2 * np.sqrt(variance * np.square(design[:, :-1]).mean(0) / N)
        np.testing.assert_allclose(std[0] / expected[None], 1, atol=0.06)


# --------------------------------------------------------------------------------------------------------- closed forms


def test_bound_of_the_vae(x, problems):
    """log p(x) minus the divergence of q from the posterior N((x + mu) / 2, I / 2)."""
    for p in (0, 1):
        params, variance = problem(problems, p)
        log_z = norm.logpdf(x, params["mu"][None], np.sqrt(2)).sum(-1)
        squares = np.square(gaussian_snr.mean_offset(params, x)).sum(-1)
        divergence = D * (variance - 0.5) + squares - D / 2 * np.log(2 * variance)
        np.testing.assert_allclose(gaussian_snr.elbo(params, variance, x), (log_z - divergence).mean(), rtol=1e-5)


def test_optimum(x):
    best = gaussian_snr.optimum(x)
    gradient = jax.grad(gaussian_snr.elbo)(best, jnp.float32(2 / 3), x)
    jax.tree.map(lambda g: np.testing.assert_allclose(g, 0, atol=1e-5), gradient)


def test_slope():
    counts = (1, 10, 100, 1000)
    values = np.array([7.0, 3.0, 0.3, 0.03])
    assert gaussian_snr.slope(counts, values, (10, 1000)) == pytest.approx(-1)
    assert np.isnan(gaussian_snr.slope(counts, values, (11, 101)))


# ---------------------------------------------------------------------------------------------------------------- study


def measured(config):
    with tempfile.TemporaryDirectory() as folder:
        result = gaussian_snr.study(config, Path(folder))
    return result.per_seed.values(), result.pictures


def test_study(tmp_path):
    config = make_config(regimes=("high_variance",))
    content = study.run(config, tmp_path, gaussian_snr.study)
    assert content["slope_b_in_M"] == content["high_variance"]["slopes"]["b_in_M"]
    assert "low_variance" not in content
    assert content["convergence"].keys() == {"K = 1, M = 1", "K = 2, M = 1", "K = 1, M = 3"}
    assert all(len(value) == 2 for curves in content["convergence"].values() for value in curves.values())
    names = ("histograms_iwae", "histograms_vae", "snr", "dsnr", "dsnr_to_target", "rmse")
    pictures = {f"high_variance_{name}.png" for name in names} | {"convergence.png"}
    assert {path.name for path in (tmp_path / "figures").iterdir()} == pictures
    rows = {}
    for line in (tmp_path / "table.md").read_text().splitlines():
        if line.startswith("|"):
            name, *cells = (cell.strip() for cell in line.strip("|").split("|"))
            rows.setdefault(name, []).append(cells)
    for row, method in enumerate(gaussian_snr.METHODS):
        values = content["high_variance"][method]["rmse_mu"]
        assert rows["RMSE(\u03bc)"][row] == [f"{value:.3g}" for value in values]
    assert rows["in M"] == [[f"{content[f'slope_{part}_in_M']:.3f}" for part in ("A", "b", "mu")]]


def test_figures():
    """Those of both regimes; the same for the same seed, however many estimates are computed at once."""
    config = make_config(chunk=1, convergence__num_steps=0)
    (figures,), pictures = measured(config)
    assert "convergence" not in figures and len(pictures) == 12
    assert figures["slope_b_in_M"] == pytest.approx(0.5, abs=0.15)
    assert figures["slope_b_in_K"] < -0.2
    for regime in config.regimes:
        for method, counts in (("iwae", config.particles), ("vae", config.samples)):
            lengths = {len(values) for values in figures[regime][method].values()}
            assert lengths == {len(counts)}
        iwae, vae = (figures[regime][method] for method in gaussian_snr.METHODS)
        for name, values in iwae.items():  # K = M = 1 of both: the same distribution
            assert values[0] == pytest.approx(vae[name][0], rel=0.3), name
        np.testing.assert_allclose(iwae["dsnr_mu"][-1], iwae["dsnr_to_target_mu"][-1], rtol=1e-5)
    (again,), _ = measured(make_config(chunk=60, convergence__num_steps=0))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3), figures, again)


def test_learning_ends_at_the_optimum(x):
    c = make_config(convergence__num_steps=500, convergence__particles=(), convergence__samples=(100_000,)).convergence
    with ThreadPoolExecutor(2) as pool:
        ((label, method, curves),) = gaussian_snr.converge(c, pool, jax.random.key(9), x)
    assert (label, method) == ("K = 1, M = 100000", "vae")
    assert all(values.shape == (2, 500) for values in curves.values())
    for name in ("mu", "b", "A"):
        assert (curves[name][:, 0] > 2).all() and (curves[name][:, -1] < 0.1).all(), name
    best = gaussian_snr.elbo(gaussian_snr.optimum(x), jnp.float32(c.covariance), x)
    np.testing.assert_allclose(curves["bound"][:, -1], best, atol=1e-2)


@pytest.mark.parametrize(
    "fields, message",
    [
        ({"particles": (1, 5, 5)}, r"particles=\(1, 5, 5\): use one or more ascending numbers from 1"),
        ({"samples": (0, 5)}, r"samples=\(0, 5\): use"),
        ({"samples": ()}, r"samples=\(\): use"),
        ({"regimes": ("medium",)}, r"regimes=\('medium',\): use 'low_variance', 'high_variance' or both"),
        ({"dim": 7}, "dim=7: use at least 8"),
        ({"num_data": 8}, "num_data=8: use at least 9"),
        ({"num_estimates": 1}, "num_estimates=1: use at least 2"),
        ({"convergence__repeats": 0}, "convergence.repeats, .particles and .samples must be at least 1"),
    ],
)
def test_numbers_that_do_not_fit(fields, message):
    with pytest.raises(UserError, match=message):
        gaussian_snr.study(make_config(**fields), None)
