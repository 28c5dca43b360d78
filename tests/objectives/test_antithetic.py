"""DisARM and ARMS: exact expectations over the copula's orthants, its correlation, variance, and the extremes."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from objcentric.objectives.antithetic import antithetic_bernoulli, antithetic_correlation, arms, disarm

draw = jax.jit(antithetic_bernoulli, static_argnames="num_samples")
LOGITS = np.array([0.7, -1.4])
TABLE = np.array([[1.0, -2.0], [0.5, 4.0]])  # f(b) for b in {0, 1}^2


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def patterns(logit, num_samples):
    """All values of n draws of one bit and their probabilities, by inclusion and exclusion.

    Of d ~ Dir(1_n), m given elements all exceed s with probability max(0, 1 - m s)^(n-1).
    """
    q = sigmoid(-abs(logit))
    s = 1 - q ** (1 / (num_samples - 1))
    values, probability = [], []
    for rare in itertools.product((0, 1), repeat=num_samples):
        size, rest = sum(rare), num_samples - sum(rare)
        terms = [
            (-1) ** more * math.comb(rest, more) * max(0, 1 - (size + more) * s) ** (num_samples - 1)
            for more in range(rest + 1)
        ]
        values.append([float(r != (logit > 0)) for r in rare])
        probability.append(max(sum(terms), 0.0))
    return np.array(values), np.array(probability)


def independent(logit, num_samples):
    values = np.array(list(itertools.product((0.0, 1.0), repeat=num_samples)))
    return values, np.prod(np.where(values, sigmoid(logit), sigmoid(-logit)), 1)


def every(logits, num_samples, of=patterns):
    """All draws b [N, n, D] of the bits and their probabilities."""
    bits = [of(logit, num_samples) for logit in logits]
    draws = np.array([np.stack(rows, -1) for rows in itertools.product(*(values for values, _ in bits))])
    return draws, np.array([np.prod(p) for p in itertools.product(*(probability for _, probability in bits))])


def f(b):
    """Of b [..., D] by the first D axes of the table."""
    index = np.asarray(b, int)
    return TABLE[tuple(np.moveaxis(index, -1, 0))] if index.shape[-1] == 2 else TABLE[:, 1][index[..., 0]]


def exact(logits):
    """d/d logits of E[f]: p (1 - p) times the difference that a bit makes."""
    p = sigmoid(logits)
    if len(logits) == 1:
        return p * (1 - p) * (TABLE[1, 1] - TABLE[0, 1])
    first, second = (np.array([1 - p[i], p[i]]) for i in (0, 1))
    return p * (1 - p) * np.array([(TABLE[1] - TABLE[0]) @ second, first @ (TABLE[:, 1] - TABLE[:, 0])])


def gradients(estimator, logits, b):
    """The estimator's gradient of each draw b [N, n, D], in float64."""
    with jax.enable_x64(True):
        by_logits = jax.grad(lambda logits, values, b: estimator(values, logits, b).surrogate)
        found = jax.jit(jax.vmap(by_logits, (None, 0, 0)))(jnp.asarray(logits), jnp.asarray(f(b)), jnp.asarray(b))
        assert found.dtype == jnp.float64
        return np.asarray(found)


def moments(gradient, probability):
    mean = probability @ gradient
    return mean, probability @ np.square(gradient - mean).sum(1)


# --------------------------------------------------------------------------------------------------------- expectations


@pytest.mark.parametrize("logits", [LOGITS, LOGITS[:1], LOGITS[1:], np.array([0.0, 2.3])], ids=str)
def test_disarm_integrates_to_the_gradient(logits):
    """u uniform, b = 1[1 - u < p], b~ = 1[u < p]: constant between 0, min(p, 1-p), max(p, 1-p) and 1."""
    pieces = []
    for p in sigmoid(logits):
        edges = np.array([0, min(p, 1 - p), max(p, 1 - p), 1])
        middle, length = (edges[1:] + edges[:-1]) / 2, np.diff(edges)
        pieces.append([((1 - u < p, u < p), part) for u, part in zip(middle, length, strict=True)])
    cells = list(itertools.product(*pieces))
    b = np.array([np.stack([pair for pair, _ in cell], -1) for cell in cells], float)
    length = np.array([np.prod([part for _, part in cell]) for cell in cells])
    assert length.sum() == pytest.approx(1)
    gradient = gradients(disarm, logits, b)
    np.testing.assert_allclose(length @ gradient, exact(logits), atol=1e-14)

    formula = np.where(b[:, 0] != b[:, 1], (-1) ** b[:, 1], 0) * sigmoid(abs(logits))
    np.testing.assert_allclose(gradient, 0.5 * (f(b[:, 0]) - f(b[:, 1]))[:, None] * formula, atol=1e-14)


@pytest.mark.parametrize("num_samples", [2, 3, 4])
@pytest.mark.parametrize("logits", [LOGITS, LOGITS[1:], np.array([0.0, 2.3])], ids=str)
def test_arms_integrates_to_the_gradient(logits, num_samples):
    b, probability = every(logits, num_samples)
    assert probability.sum() == pytest.approx(1)
    gradient = gradients(arms, logits, b)
    np.testing.assert_allclose(probability @ gradient, exact(logits), atol=1e-14)
    if num_samples == 2:
        np.testing.assert_allclose(gradients(disarm, logits, b), gradient)


def test_arms_of_eight_drawn_samples():
    """Eight draws of six bits, and a function of all of them, by simulation."""
    logits = jnp.array([0.0, 0.3, -0.3, 1.5, -2.5, 4.0])
    weight = jnp.array([1.0, -0.5, 2.0, 0.3, 1.0, -1.0])
    bits = jnp.array(list(itertools.product((0.0, 1.0), repeat=6)))

    def value(b):
        return jnp.square(b @ weight - 1.0)

    def expectation(logits):
        log_q = jnp.sum(bits * logits[None] - jax.nn.softplus(logits)[None], -1)
        return jnp.exp(log_q) @ value(bits)

    def surrogate(logits, key):
        b = antithetic_bernoulli(key, logits, num_samples=8)
        return arms(value(b), logits, b).surrogate

    keys = jax.random.split(jax.random.key(0), 40_000)
    gradient = np.asarray(jax.jit(jax.vmap(jax.grad(surrogate), (None, 0)))(logits, keys))
    error = gradient.std(0) / np.sqrt(len(keys))
    assert (np.abs(gradient.mean(0) - jax.grad(expectation)(logits)) < 4 * error).all()
    assert (error < 0.01).all()


def test_independent_draws_would_be_biased():
    """By 1 / (1 - rho): the tests above see whether draws and estimator belong together."""
    b, probability = every(LOGITS, 3, independent)
    rho = np.asarray(antithetic_correlation(jnp.asarray(LOGITS, jnp.float32), num_samples=3))
    np.testing.assert_allclose(probability @ gradients(arms, LOGITS, b), exact(LOGITS) / (1 - rho), rtol=1e-5)


def test_values_that_depend_on_parameters():
    """Their own gradient is kept: the mean over the draws."""
    logits = jnp.asarray(LOGITS, jnp.float32)
    b = draw(jax.random.key(0), logits, num_samples=4)

    def surrogate(scale, shift):
        return arms(scale * jnp.sum(b, -1) + shift * b[:, 0], logits, b).surrogate

    by_scale, by_shift = jax.jit(jax.grad(surrogate, (0, 1)))(1.3, 0.0)
    assert by_scale == pytest.approx(b.sum(-1).mean()) and by_shift == pytest.approx(b[:, 0].mean())


# ------------------------------------------------------------------------------------------------------------- variance


@pytest.mark.parametrize("num_samples", [2, 3, 4])
def test_less_variance_than_independent_draws(num_samples):
    """Than the leave-one-out REINFORCE with as many draws, for the function of the table; exactly."""
    b, probability = every(LOGITS, num_samples)
    mean, variance = moments(gradients(arms, LOGITS, b), probability)
    b, probability = every(LOGITS, num_samples, independent)
    centred = f(b) - f(b).mean(1, keepdims=True)
    rloo = (centred[..., None] * (b - sigmoid(LOGITS))).sum(1) / (num_samples - 1)
    same_mean, rloo_variance = moments(rloo, probability)
    np.testing.assert_allclose(mean, same_mean, atol=1e-14)
    assert variance < 0.75 * rloo_variance


# ---------------------------------------------------------------------------------------------------------------- draws


@pytest.mark.parametrize("num_samples", [2, 3, 5])
def test_draws_have_the_probabilities_of_the_copula(num_samples):
    logits = np.array([0.0, 0.2, -0.9, 2.0, -3.5])
    b = np.asarray(draw(jax.random.key(num_samples), np.tile(np.float32(logits), (40_000, 1)), num_samples=num_samples))
    assert b.shape == (40_000, num_samples, 5) and set(np.unique(b)) == {0, 1}
    code = np.einsum("nkd,k->nd", b, 2 ** np.arange(num_samples)).astype(int)
    for i, logit in enumerate(logits):
        values, probability = patterns(logit, num_samples)
        share = np.bincount(code[:, i], minlength=2**num_samples)[(values @ 2 ** np.arange(num_samples)).astype(int)]
        error = np.sqrt(probability * (1 - probability) / 40_000)
        assert (np.abs(share / 40_000 - probability) < 4 * error + 1e-12).all()
    across = np.corrcoef(b[:, 0].T)
    assert np.abs(across - np.eye(5)).max() < 4 / np.sqrt(40_000)  # bits are independent of one another


@pytest.mark.parametrize("num_samples", [2, 3, 4, 8])
def test_correlation(num_samples):
    """The closed form, from the exact probabilities of all patterns; negative, and symmetric in 0 and 1."""
    logits = np.array([-6.0, -2.5, -0.9, -0.1, 0.0, 0.4, 3.0])
    correlation = jax.jit(antithetic_correlation, static_argnames="num_samples")
    rho = correlation(np.float32(logits), num_samples=num_samples)
    np.testing.assert_allclose(rho, correlation(np.float32(-logits), num_samples=num_samples))
    for value, logit in zip(rho, logits, strict=True):
        b, probability = patterns(logit, num_samples)
        p = sigmoid(logit)
        np.testing.assert_allclose(probability @ b, p, atol=1e-12)
        expected = (probability @ (b[:, 0] * b[:, 1]) - p**2) / (p * (1 - p))
        assert value == pytest.approx(expected, abs=2e-6) and -1 <= value < 0


def test_a_pair_differs_as_often_as_it_can():
    logits = jnp.array([-40.0, -0.3, 0.0, 1.2, 40.0])
    np.testing.assert_allclose(
        antithetic_correlation(logits), -np.exp(-np.abs(logits)), rtol=1e-5
    )  # -q / (1 - q), the least that two bits of probability q can have


# ------------------------------------------------------------------------------------------------------------- extremes


@pytest.mark.parametrize("num_samples", [2, 3, 20])
def test_extreme_logits(num_samples):
    logits = jnp.array([-1e30, -500.0, -88.0, -20.0, 0.0, 20.0, 88.0, 500.0, 1e30])

    def surrogate(logits, key):
        b = antithetic_bernoulli(key, logits, num_samples=num_samples)
        return arms(1e4 * jnp.sum(b, -1), logits, b).surrogate, b

    keys = jax.random.split(jax.random.key(0), 200)
    gradient, b = jax.jit(jax.vmap(jax.grad(surrogate, has_aux=True), (None, 0)))(logits, keys)
    rho = antithetic_correlation(logits, num_samples=num_samples)
    assert np.isfinite(gradient).all() and np.isfinite(rho).all() and (rho <= 0).all()
    np.testing.assert_array_equal(np.asarray(gradient)[:, [0, 1, 2, 6, 7, 8]], 0)
    np.testing.assert_array_equal(b[:, :, :3], 0)
    np.testing.assert_array_equal(b[:, :, 6:], 1)


def test_rare_values_come_as_often_as_they_should():
    """Twice in two million at p = 1e-6, in float32."""
    b = draw(jax.random.key(0), np.full((1000, 1000), np.log(1e-6), np.float32))
    assert b.sum() == pytest.approx(2, abs=4 * np.sqrt(2))


def test_a_value_that_is_not_finite_teaches_nothing():
    b = jnp.array([[[0.0, 1.0], [1.0, 0.0]]] * 2)
    values = jnp.array([[-jnp.inf, 1.0], [3.0, 1.0]])
    assert jax.jit(disarm)(values, jnp.zeros((2, 2)), b).bound.tolist() == [-np.inf, 2]
    gradient = jax.jit(jax.grad(lambda logits: jnp.sum(disarm(values, logits, b).surrogate)))(jnp.zeros((2, 2)))
    np.testing.assert_array_equal(gradient, [[0, 0], [-0.5, 0.5]])


# ----------------------------------------------------------------------------------------------- invariances, bad input


def test_leading_axes_draws_in_any_order_and_jit():
    rng = np.random.default_rng(0)
    logits, values = (jnp.float32(rng.normal(0, 2, shape)) for shape in ((3, 2, 5), (3, 2, 4)))
    b = draw(jax.random.key(0), logits, num_samples=4)

    @jax.jit
    def value_and_grad(values, logits, b):
        def surrogate(values, logits):
            estimate = arms(values, logits, b)
            return jnp.sum(estimate.surrogate), estimate

        gradients, estimate = jax.grad(surrogate, (0, 1), has_aux=True)(values, logits)
        return estimate, gradients

    together = value_and_grad(values, logits, b)
    assert together[0].surrogate.shape == together[0].bound.shape == (3, 2)
    for value, expected in zip(together[0], arms(values[1, 1], logits[1, 1], b[1, 1]), strict=True):
        np.testing.assert_allclose(value[1, 1], expected, rtol=1e-5)
    alone = value_and_grad(values[1, 1], logits[1, 1], b[1, 1])
    for value, expected in zip(together[1], alone[1], strict=True):
        np.testing.assert_allclose(value[1, 1], expected, rtol=1e-4, atol=1e-6)
    order = np.array([2, 0, 3, 1])
    permuted, (_, by_logits) = value_and_grad(values[..., order], logits, b[..., order, :])
    np.testing.assert_allclose(permuted.bound, together[0].bound, rtol=1e-6)
    np.testing.assert_allclose(by_logits, together[1][1], rtol=1e-4, atol=1e-6)


def test_bad_input():
    logits, b = jnp.zeros((4, 5)), jnp.zeros((4, 3, 5))
    for function in (antithetic_bernoulli, arms):
        arguments = (jax.random.key(0), logits) if function is antithetic_bernoulli else (jnp.zeros((4, 1)), logits)
        options = {"num_samples": 1} if function is antithetic_bernoulli else {"b": b[:, :1]}
        with pytest.raises(ValueError, match="at least 2 draws, .* it has 1"):
            function(*arguments, **options)
    with pytest.raises(ValueError, match=r"disarm needs a pair of values \[..., 2\]; they have the shape \(4, 3\)"):
        disarm(jnp.zeros((4, 3)), logits, b)
    with pytest.raises(ValueError, match=r"disagree: \(4, 2\), \(4, 5\) and \(4, 3, 5\)"):
        arms(jnp.zeros((4, 2)), logits, b)
    with pytest.raises(ValueError, match=r"disagree: \(4, 3\), \(5,\) and \(4, 3, 5\)"):
        arms(jnp.zeros((4, 3)), logits[0], b)
