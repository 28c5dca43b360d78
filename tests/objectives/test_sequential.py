"""FIVO against enumeration of a small hidden Markov model, the Kalman filter, and the bounds that it has as limits."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.scipy.stats import norm

from objcentric.objectives import elbo, iwae, vimco
from objcentric.objectives.sequential import (
    Filtered,
    Transition,
    always,
    ess_below,
    fivo,
    multinomial,
    never,
    particle_filter,
    systematic,
)

# Of the effective sample size: always, some of the time, never.
FRACTIONS = {"always": 2.0, "ess": 0.9, "never": 0.0}
SIZES = [(3, 2), (2, 3), (2, 1)]  # steps, particles

# ------------------------------------------------------------------------------------ a hidden Markov model, two states

X = np.array([1, 0, 1])
PARAMS = {
    "transition": np.array([[0.4, -0.3], [-0.5, 0.8]]),
    "emission": np.array([[1.2, -0.4], [-0.9, 0.7]]),
    "proposal": np.array([[[0.3, -0.2], [-0.4, 0.6]], [[0.1, 0.5], [-0.7, 0.2]]]),
}


def hmm_step(params, key, z, x, choice=None):
    """z is drawn from q(z | z before, x), or `choice`."""
    log_q = jax.nn.log_softmax(params["proposal"][z, x])
    new = jax.random.categorical(key, log_q) if choice is None else choice
    log_p = jax.nn.log_softmax(params["transition"][z])[new] + jax.nn.log_softmax(params["emission"][new])[x]
    return Transition(new, log_p - log_q[new], log_q[new], output=new)


def hmm_filter(params, key, num_steps, num_particles, criterion):
    step = functools.partial(hmm_step, params)
    options = {"num_particles": num_particles, "criterion": criterion, "resample": multinomial}
    return particle_filter(step, key, 0, jnp.asarray(X)[:num_steps], **options)


def by_hand(params, z, ancestors, criterion):
    """The filter that drew ``z`` and ``ancestors [T, K]``, and the log-probability of these draws."""
    num_steps, num_particles = z.shape
    state, log_w = jnp.zeros(num_particles, int), jnp.zeros(num_particles)
    log_prob, rows = 0.0, []
    for t in range(num_steps):
        log_normal = jax.nn.log_softmax(log_w)
        resample = criterion(log_w) & (t > 0)
        log_ancestors = jnp.where(resample, log_normal[ancestors[t]], 0.0)
        possible = resample | jnp.all(ancestors[t] == jnp.arange(num_particles))
        log_w = jnp.where(resample, 0.0, log_w)
        step = jax.vmap(lambda z, choice, x=X[t]: hmm_step(params, None, z, x, choice))
        new = step(state[ancestors[t]], z[t])
        state, log_w = new.carry, log_w + new.log_alpha
        log_prob += jnp.where(possible, jnp.sum(log_ancestors + new.log_q), -jnp.inf)
        rows.append((new.log_alpha, log_w, resample, ancestors[t], log_ancestors, new.log_q, z[t]))
    return Filtered(*(jnp.stack(column) for column in zip(*rows, strict=True)), state), log_prob


def draws(num_steps, num_particles):
    """All draws of states and of ancestors, each ``[N, T, K]``; the ancestors before the first step are idle."""
    z = np.array(list(itertools.product(range(2), repeat=num_steps * num_particles)))
    parents = np.array(list(itertools.product(range(num_particles), repeat=(num_steps - 1) * num_particles)))
    parents = parents.reshape(-1, num_steps - 1, num_particles)
    first = np.broadcast_to(np.arange(num_particles), (len(parents), 1, num_particles))
    parents = np.concatenate([first, parents], 1)
    pairs = np.array(list(itertools.product(range(len(z)), range(len(parents)))))
    return z.reshape(-1, num_steps, num_particles)[pairs[:, 0]], parents[pairs[:, 1]]


@functools.cache
def enumerated(num_steps, num_particles):
    """Of all draws: bound, probability, gradient of each estimator; and d/d params of E[bound]: by criterion, [3, ...].

    Estimators: with the score of resampling, without it, with a baseline, and the plain score function.
    """

    def evaluate(params, z, ancestors, fraction):
        filtered, log_prob = by_hand(params, z, ancestors, functools.partial(ess_below, fraction=fraction))
        bound = fivo(filtered).bound
        surrogates = {
            "scored": fivo(filtered, score_resampling=True).surrogate,
            "unscored": fivo(filtered).surrogate,
            "informed": fivo(filtered, score_resampling=True, baseline=-0.7).surrogate,
            "plain": bound + jax.lax.stop_gradient(bound) * log_prob,
            "exact": bound * jnp.exp(log_prob),
        }
        return surrogates, (bound, jnp.exp(log_prob))

    every_draw = jax.vmap(jax.jacrev(evaluate, has_aux=True), (None, 0, 0, None))
    every = jax.jit(jax.vmap(every_draw, (None, None, None, 0)))
    with jax.enable_x64(True):
        fractions = jnp.array(list(FRACTIONS.values()))
        params = jax.tree.map(jnp.asarray, PARAMS)
        gradients, (bound, probability) = every(params, *draws(num_steps, num_particles), fractions)
    gradients = {
        name: np.concatenate([np.reshape(leaf, (*bound.shape, -1)) for leaf in jax.tree.leaves(tree)], -1)
        for name, tree in gradients.items()
    }
    return np.asarray(bound), np.asarray(probability), gradients, gradients.pop("exact").sum(1)


def means(probability, gradients):
    return np.einsum("cn,cnd->cd", probability, gradients)


def evidence(num_steps):
    """p(x) by the forward algorithm."""
    softmax = functools.partial(jax.nn.softmax, axis=-1)
    forward = np.array([1.0, 0.0])
    for x in X[:num_steps]:
        forward = (forward @ np.asarray(softmax(PARAMS["transition"]))) * np.asarray(softmax(PARAMS["emission"]))[:, x]
    return forward.sum()


@pytest.mark.parametrize("size", SIZES)
def test_the_exponential_of_the_bound_is_the_evidence_on_average(size):
    bound, probability, _, _ = enumerated(*size)
    np.testing.assert_allclose(probability.sum(1), 1, rtol=1e-13)
    with jax.enable_x64(True):
        np.testing.assert_allclose((probability * np.exp(bound)).sum(1), evidence(size[0]), rtol=1e-13)


def test_more_resampling_is_another_bound():
    """The criteria of these tests differ: the middle one resamples some of the time."""
    bound, probability, _, _ = enumerated(3, 2)
    always, ess, never = (probability * bound).sum(1)
    assert len({round(value, 3) for value in (always, ess, never)}) == 3


@pytest.mark.parametrize("name", ["scored", "informed"])
@pytest.mark.parametrize("size", SIZES)
def test_the_gradient_is_unbiased_with_the_score_of_resampling(size, name):
    _, probability, gradients, exact = enumerated(*size)
    np.testing.assert_allclose(means(probability, gradients[name]), exact, atol=1e-13)


def test_the_gradient_is_biased_without_the_score_of_resampling():
    _, probability, gradients, exact = enumerated(3, 2)
    bias = np.linalg.norm(means(probability, gradients["unscored"]) - exact, axis=1) / np.linalg.norm(exact, axis=1)
    always, ess, never = bias
    assert always > 0.02 and ess > 0.02 and never < 1e-13


def test_baselines_take_variance_away():
    _, probability, gradients, exact = enumerated(3, 2)

    def std(name):
        deviation = gradients[name] - means(probability, gradients[name])[:, None]
        return np.sqrt((probability * np.square(deviation).sum(-1)).sum(1))

    np.testing.assert_allclose(means(probability, gradients["plain"]), exact, atol=1e-13)
    assert (std("scored") < 0.6 * std("plain")).all()
    assert (std("informed") < 0.8 * std("scored")).all()


# ----------------------------------------------------------------------------------------------- the filter that is run


@pytest.mark.parametrize("criterion", [always, ess_below, never])
def test_the_filter_is_the_one_by_hand(criterion):
    resampled = 0
    run = jax.jit(lambda params, key: hmm_filter(params, key, 3, 4, criterion))
    hand = jax.jit(lambda params, z, ancestors: by_hand(params, z, ancestors, criterion))
    for seed in range(5):
        filtered = run(PARAMS, jax.random.key(seed))
        expected, _ = hand(PARAMS, filtered.output, filtered.ancestors)
        for value, other in zip(filtered, expected, strict=True):
            np.testing.assert_allclose(value, other, atol=1e-6)
        resampled += filtered.resampled.sum()
    assert resampled == {always: 10, never: 0}.get(criterion, resampled)


def test_the_gradient_of_the_filter_that_is_run():
    """Its draws have the probabilities that the enumeration gave them."""

    @jax.jit
    @functools.partial(jax.vmap, in_axes=(None, 0))
    @jax.grad
    def gradient(params, key):
        return fivo(hmm_filter(params, key, 3, 2, always), score_resampling=True, baseline=-0.7).surrogate

    params = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), PARAMS)
    gradients = gradient(params, jax.random.split(jax.random.key(0), 20_000))
    gradients = np.concatenate([np.reshape(leaf, (20_000, -1)) for leaf in jax.tree.leaves(gradients)], 1)
    exact = enumerated(3, 2)[-1][0]
    error = gradients.std(0) / np.sqrt(20_000)
    reached = error > 0  # of the proposal's rows for the state before the first step one is not used
    assert (np.abs(gradients.mean(0) - exact)[reached] < 4 * error[reached]).all() and reached.sum() >= 12
    np.testing.assert_allclose(exact[~reached], 0, atol=1e-12)


# ---------------------------------------------------------------------------------------- a linear-Gaussian state space

Y = np.array([0.6, -1.1, 0.4, 1.9, 1.2], np.float32)
GAUSSIAN = {"decay": 0.8, "q_std": 0.8, "gain": 0.4, "x_std": 0.7}


def gaussian_step(params, key, z, x):
    """z_t ~ N(decay z_{t-1}, 1), x_t ~ N(z_t, x_std); the proposal moves from the prior's mean towards x_t."""
    prior = params["decay"] * z
    mean = prior + params["gain"] * (x - prior)
    z = mean + params["q_std"] * jax.random.normal(key)
    log_p = norm.logpdf(z, prior, 1.0) + norm.logpdf(x, z, params["x_std"])
    return Transition(z, log_p - norm.logpdf(z, mean, params["q_std"]), output=z)


def gaussian_filter(params, key, x=Y, num_particles=4, **options):
    step = functools.partial(gaussian_step, params)
    return particle_filter(step, key, 0.0, jnp.asarray(x), num_particles=num_particles, **options)


def kalman():
    """log p(x), and mean and variance of the last state given all observations."""
    mean, variance, log_p = 0.0, 0.0, 0.0
    for x in Y:
        mean, variance = GAUSSIAN["decay"] * mean, GAUSSIAN["decay"] ** 2 * variance + 1
        total = variance + GAUSSIAN["x_std"] ** 2
        log_p += -0.5 * np.log(2 * np.pi * total) - 0.5 * (x - mean) ** 2 / total
        mean, variance = mean + variance / total * (x - mean), variance * (1 - variance / total)
    return log_p, mean, variance


@pytest.mark.parametrize("resample", [systematic, multinomial])
@pytest.mark.parametrize("criterion", [always, ess_below])
def test_kalman_filter(criterion, resample):
    @jax.jit
    @jax.vmap
    def bound(key):
        filtered = gaussian_filter(GAUSSIAN, key, criterion=criterion, resample=resample)
        return fivo(filtered).bound, filtered.resampled

    bound, resampled = bound(jax.random.split(jax.random.key(1), 20_000))
    ratio = np.exp(np.float64(bound) - kalman()[0])
    error = ratio.std() / np.sqrt(len(ratio))
    assert error < 0.01 and abs(ratio.mean() - 1) < 4 * error
    assert bound.mean() < kalman()[0]
    assert resampled[:, 1:].all() if criterion is always else 0.1 < resampled[:, 1:].mean() < 0.9


def test_particles_of_the_last_step_follow_the_posterior():
    run = jax.jit(functools.partial(gaussian_filter, num_particles=20_000))
    filtered = run(GAUSSIAN, jax.random.key(0))
    weights = np.asarray(jax.nn.softmax(filtered.log_w[-1]))
    log_p, mean, variance = kalman()
    np.testing.assert_array_equal(filtered.carry, filtered.output[-1])
    assert weights @ np.asarray(filtered.carry) == pytest.approx(mean, abs=0.03)
    assert weights @ np.square(filtered.carry - mean) == pytest.approx(variance, abs=0.03)
    assert fivo(filtered).bound == pytest.approx(log_p, abs=0.03)


def test_the_gradient_follows_the_ancestors():
    """Of the parameters through reparameterised latents, the ancestors being what they are: by finite differences."""
    with jax.enable_x64(True):

        @jax.jit
        def bound(params):
            filtered = gaussian_filter(params, jax.random.key(3), criterion=always)
            return fivo(filtered).surrogate, filtered.ancestors

        params = {name: jnp.float64(value) for name, value in GAUSSIAN.items()}
        gradient, ancestors = jax.jit(jax.grad(bound, has_aux=True))(params)
        assert (np.asarray(ancestors)[1:] != np.arange(4)).any()
        for name in params:
            high, low = (bound(params | {name: params[name] + step})[0] for step in (1e-6, -1e-6))
            assert gradient[name] == pytest.approx(float(high - low) / 2e-6, rel=1e-6)


# --------------------------------------------------------------------------------------------------- limits, identities


@pytest.mark.parametrize(
    "objective, options",
    [
        (iwae, {"criterion": never}),
        (iwae, {"criterion": always, "x": Y[:1]}),
        (elbo, {"criterion": always, "num_particles": 1}),
    ],
)
def test_without_resampling_fivo_is_the_bound_of_trajectories(objective, options):
    @jax.jit
    def surrogates(params):
        filtered = gaussian_filter(params, jax.random.key(0), **options)
        both = jnp.stack([fivo(filtered).surrogate, objective(filtered.log_alpha.sum(-2)).surrogate])
        return both, both

    gradients, (value, expected) = jax.jit(jax.jacrev(surrogates, has_aux=True))(GAUSSIAN)
    np.testing.assert_allclose(value, expected, rtol=1e-6)
    for gradient, same in gradients.values():
        np.testing.assert_allclose(gradient, same, rtol=1e-5, atol=1e-6)


def arbitrary(num_steps=5, num_particles=4, std=2.0, criterion=ess_below, batch=()):
    """What a filter could have returned, with independent log_alpha."""
    rng = np.random.default_rng(0)
    shape = (*batch, num_steps, num_particles)
    log_alpha = rng.normal(-3, std, shape).astype(np.float32)
    log_q = rng.normal(-1, 1, shape).astype(np.float32)
    ancestors = rng.integers(0, num_particles, shape)
    log_w, resampled = np.zeros(shape, np.float32), np.zeros(shape[:-1], bool)
    for t in range(num_steps):
        before = log_w[..., t - 1, :] if t else np.zeros_like(log_w[..., 0, :])
        resampled[..., t] = np.asarray(criterion(jnp.asarray(before))) & (t > 0)
        log_w[..., t, :] = np.where(resampled[..., t, None], 0, before) + log_alpha[..., t, :]
    log_ancestors = np.where(resampled[..., None], rng.normal(-1, 1, shape), 0).astype(np.float32)
    arrays = (log_alpha, log_w, resampled, ancestors, log_ancestors, log_q)
    return Filtered(*map(jnp.asarray, arrays), None, None)


@jax.jit
def value_and_grad(filtered):
    """The estimate, and the gradient of the surrogate by all that it depends on."""

    def surrogate(log_w, log_q, log_ancestors):
        parts = filtered._replace(log_w=log_w, log_q=log_q, log_ancestors=log_ancestors)
        estimate = fivo(parts, score_resampling=True)
        return estimate.surrogate.sum(), estimate

    parts = (filtered.log_w, filtered.log_q, filtered.log_ancestors)
    gradients, estimate = jax.grad(surrogate, (0, 1, 2), has_aux=True)(*parts)
    return estimate, gradients


def test_one_step_is_vimco():
    filtered = arbitrary(num_steps=1)
    expected = jax.jit(jax.grad(lambda w, q: vimco(w, q).surrogate, (0, 1)))(filtered.log_alpha[0], filtered.log_q[0])
    for value, other in zip(value_and_grad(filtered)[1], expected, strict=False):
        np.testing.assert_allclose(value[0], other, rtol=1e-5)


def test_one_particle_has_the_baselines_alone():
    filtered, baseline = arbitrary(num_particles=1), jnp.linspace(-4.0, -2.0, 5)

    def surrogate(log_q):
        return fivo(filtered._replace(log_q=log_q), baseline=baseline).surrogate

    signal = np.cumsum((filtered.log_alpha[:, 0] - baseline)[::-1])[::-1]
    np.testing.assert_allclose(jax.jit(jax.grad(surrogate))(filtered.log_q)[:, 0], signal, rtol=1e-5)


def test_increments_add_up_to_the_bound():
    filtered = arbitrary(batch=(2, 3))
    log_evidence = jax.jit(lambda filtered: filtered.log_evidence)(filtered)
    np.testing.assert_allclose(log_evidence.sum(-1), value_and_grad(filtered)[0].bound, rtol=1e-5)


def test_a_permutation_of_particles_changes_nothing():
    filtered = arbitrary(batch=(2, 3))
    order = np.array([2, 0, 3, 1])
    parts = ("log_alpha", "log_w", "ancestors", "log_ancestors", "log_q")
    permuted = filtered._replace(**{name: getattr(filtered, name)[..., order] for name in parts})
    (estimate, gradients), (same, expected) = value_and_grad(permuted), value_and_grad(filtered)
    np.testing.assert_allclose(estimate.bound, same.bound, rtol=1e-6)
    for value, other in zip(gradients, expected, strict=True):
        np.testing.assert_allclose(value, other[..., order], rtol=1e-4, atol=1e-5)


def test_leading_axes_are_independent_and_jit_changes_nothing():
    filtered = arbitrary(batch=(2, 3))
    together = value_and_grad(filtered)
    assert together[0].surrogate.shape == together[0].bound.shape == (2, 3)
    one = jax.tree.map(lambda leaf: leaf[1, 2], filtered)
    for value, expected in zip(together[0], fivo(one, score_resampling=True), strict=True):
        np.testing.assert_allclose(value[1, 2], expected, rtol=1e-5)
    single = jax.tree.map(lambda leaf: leaf[1:, 2:], filtered)
    for value, expected in zip(together[1], value_and_grad(single)[1], strict=True):
        np.testing.assert_allclose(value[1:, 2:], expected, rtol=1e-4, atol=1e-5)


def test_a_batch_of_sequences_is_filtered_one_by_one():
    keys = jax.random.split(jax.random.key(0), 3)
    x = np.random.default_rng(1).normal(size=(3, 5)).astype(np.float32)
    batch = jax.jit(jax.vmap(functools.partial(gaussian_filter, GAUSSIAN)))(keys, x)
    alone = jax.jit(functools.partial(gaussian_filter, GAUSSIAN))(keys[1], x[1])
    for value, expected in zip(jax.tree.leaves(batch), jax.tree.leaves(alone), strict=True):
        np.testing.assert_allclose(value[1], expected, rtol=1e-4, atol=1e-5)


def test_steps_that_do_not_exist():
    """A shorter sequence, padded, is that sequence: filter, bound and gradient."""

    @jax.jit
    @functools.partial(jax.grad, has_aux=True)
    def gradient(params, x, where):
        filtered = gaussian_filter(params, jax.random.key(0), x, where=where, criterion=always)
        estimate = fivo(filtered)
        return estimate.surrogate, (estimate.bound, filtered)

    padded = np.append(Y, np.float32([np.nan, np.inf]))
    expected, (bound, shorter) = gradient(GAUSSIAN, Y, None)
    value, (same_bound, filtered) = gradient(GAUSSIAN, padded, np.arange(7) < 5)
    np.testing.assert_allclose(same_bound, bound, rtol=1e-6)
    for name in GAUSSIAN:
        np.testing.assert_allclose(value[name], expected[name], rtol=1e-5)
    np.testing.assert_allclose(filtered.carry, shorter.carry, rtol=1e-6)
    np.testing.assert_array_equal(filtered.log_evidence[5:], 0)
    assert filtered.resampled.tolist() == [False, True, True, True, True, False, False]

    gaps = np.append(np.float32([np.nan, 0.6, np.nan]), Y[1:])
    value, (bound, filtered) = gradient(GAUSSIAN, gaps, ~np.isnan(gaps))
    assert np.isfinite(bound) and np.isfinite(list(value.values())).all()
    np.testing.assert_array_equal(np.isclose(filtered.log_evidence, 0), np.isnan(gaps))
    assert filtered.resampled[2:].tolist() == [False, True, True, True, True]


# ----------------------------------------------------------------------------------------------------------- resampling


def test_systematic_resampling():
    weights = np.array([[0.3, 0.0, 0.41, 0.04, 0.25], [0.2, 0.2, 0.2, 0.2, 0.2]], np.float32)
    log_w = jnp.log(weights)
    keys = jax.random.split(jax.random.key(0), 4000)
    ancestors = jax.jit(jax.vmap(systematic, (0, None)))(keys, log_w).ancestors
    counts = np.stack([(ancestors == k).sum(-1) for k in range(5)], -1)
    assert (np.abs(counts[:, 0] - 5 * weights[0]) < 1).all() and (counts[:, 1] == 1).all()
    error = counts.std(0) / np.sqrt(4000)
    assert (np.abs(counts.mean(0) - 5 * weights) <= 4 * error + 1e-6).all()


def test_multinomial_resampling():
    weights = np.array([[0.3, 0.0, 0.41, 0.04, 0.25], [0.2, 0.2, 0.2, 0.2, 0.2]], np.float32)
    drawn = jax.jit(jax.vmap(multinomial, (0, None)))(jax.random.split(jax.random.key(0), 4000), jnp.log(7 * weights))
    for row in range(2):
        for position in (0, 4):
            share = np.bincount(drawn.ancestors[:, row, position], minlength=5) / 4000
            np.testing.assert_allclose(share, weights[row], atol=4 * np.sqrt(0.25 / 4000))
        np.testing.assert_allclose(np.exp(drawn.log_prob[:, row]), weights[row][drawn.ancestors[:, row]], rtol=1e-5)
    together = (drawn.ancestors[:, 0, :1] == drawn.ancestors[:, 0, 1:]).mean()
    assert together == pytest.approx((weights[0] ** 2).sum(), abs=4 * np.sqrt(0.25 / 16_000))


@pytest.mark.parametrize("resample", [systematic, multinomial])
def test_particles_of_weight_zero_have_no_offspring(resample):
    """However the sums are rounded, and small all weights are: one in ten of 2000 lives, and the last one does not."""
    log_w = np.random.default_rng(0).normal(-1e3, 5, (20, 2000)).astype(np.float32)
    log_w[:, np.arange(2000) % 10 != 4] = -np.inf
    ancestors = jax.jit(resample)(jax.random.key(0), jnp.asarray(log_w)).ancestors
    assert (ancestors % 10 == 4).all()


@pytest.mark.parametrize("resample", [systematic, multinomial])
def test_the_last_quantile_may_round_to_one(resample, monkeypatch):
    monkeypatch.setattr(jax.random, "uniform", lambda key, shape, dtype: jnp.full(shape, 1 - 2**-24, dtype))
    log_w = jnp.log(jnp.array([0.0, 0.1, 0.2, 0.3, 0.4, 0.0, 0.0, 0.0]))
    assert resample(jax.random.key(0), log_w).ancestors[-1] == 4


def test_criteria():
    log_w = jnp.log(jnp.array([[0.7, 0.1, 0.1, 0.1], [0.25, 0.25, 0.25, 0.25], [0.5, 0.5, 0.0, 0.0]]))
    assert ess_below(log_w, fraction=0.49).tolist() == [True, False, False]  # ESS: 1.92, 4, 2
    assert ess_below(log_w, fraction=0.47).tolist() == [False, False, False]
    assert ess_below(log_w + 300, fraction=0.51).tolist() == [True, False, True]
    assert always(log_w).tolist() == [True] * 3 and never(log_w).tolist() == [False] * 3


# ------------------------------------------------------------------------------------------------------------- extremes


def test_log_weights_of_std_50_in_float32():
    filtered = arbitrary(num_steps=12, num_particles=8, std=50, batch=(20,))
    log_w, resampled = np.float64(filtered.log_w), np.asarray(filtered.resampled)
    ends = np.append(resampled[:, 1:], np.ones((20, 1), bool), 1)
    after = np.logaddexp.reduce(log_w, -1) - np.log(8)
    estimate, gradients = value_and_grad(filtered)
    np.testing.assert_allclose(estimate.bound, (after * ends).sum(1), rtol=1e-6)
    log_alpha = np.float64(filtered.log_alpha)
    before = log_w - log_alpha
    own = np.eye(8, dtype=bool)
    others = np.where(own, 0, log_alpha[..., None, :]).sum(-1, keepdims=True) / 7
    replaced = before[..., None, :] + np.where(own, others, log_alpha[..., None, :])
    now = after[..., None] - (np.logaddexp.reduce(replaced, -1) - np.log(8))
    increments = after - (np.logaddexp.reduce(before, -1) - np.log(8))
    future = np.cumsum(increments[:, ::-1], 1)[:, ::-1] - increments
    for gradient in gradients[1:]:
        np.testing.assert_allclose(gradient, now + future[..., None], atol=2e-3)


@pytest.mark.parametrize("criterion, resample", [(always, multinomial), (always, systematic), (ess_below, multinomial)])
def test_all_weights_zero(criterion, resample):
    """A sequence whose second observation no particle explains has the bound -inf and teaches nothing."""

    def surrogate(logit, x):
        def step(key, z, x):
            z = jax.random.bernoulli(key, jax.nn.sigmoid(logit)).astype(float)
            log_q = jnp.where(z, jax.nn.log_sigmoid(logit), jax.nn.log_sigmoid(-logit))
            return Transition(z, jnp.where(x > 1, -jnp.inf, -jnp.abs(x - z) * logit) - log_q, log_q)

        options = {"num_particles": 3, "criterion": criterion, "resample": resample}
        filtered = particle_filter(step, jax.random.key(0), 0.0, x, **options)
        estimate = fivo(filtered, score_resampling=resample is multinomial)
        return estimate.surrogate, (estimate.bound, filtered)

    gradient = jax.jit(jax.grad(surrogate, has_aux=True))
    value, (bound, filtered) = gradient(0.3, jnp.array([0.2, 2.0, 0.9]))
    assert bound == -jnp.inf and value == 0
    assert not np.isnan(filtered.log_w).any() and not np.isnan(filtered.log_evidence).any()
    value, (bound, _) = gradient(0.3, jnp.array([0.2, 0.1, 0.9]))
    assert np.isfinite(bound) and value != 0


def test_one_weight_zero():
    filtered = arbitrary(criterion=never, batch=(2, 3))
    dead = filtered._replace(log_alpha=filtered.log_alpha.at[..., 1, 2].set(-jnp.inf))
    dead = dead._replace(log_w=filtered.log_w.at[..., 1:, 2].set(-jnp.inf))
    estimate, gradients = value_and_grad(dead)
    assert all(np.isfinite(gradient).all() for gradient in gradients)
    np.testing.assert_array_equal(gradients[0][..., 1:, 2], 0)
    np.testing.assert_allclose(estimate.bound, iwae(dead.log_w[..., -1, :]).bound, rtol=1e-6)


# ------------------------------------------------------------------------------------------------------------ bad input


def test_bad_input():
    with pytest.raises(ValueError, match="at least 1 particle; num_particles is 0"):
        gaussian_filter(GAUSSIAN, jax.random.key(0), num_particles=0)
    with pytest.raises(ValueError, match=r"each of the 5 steps; its shape is \(4,\)"):
        gaussian_filter(GAUSSIAN, jax.random.key(0), where=np.ones(4, bool))
    with pytest.raises(ValueError, match="score_resampling needs ancestors drawn independently: .*=multinomial"):
        fivo(gaussian_filter(GAUSSIAN, jax.random.key(0)), score_resampling=True)
    with pytest.raises(ValueError, match=r"baseline \(5, 1\) must be a scalar or have one value per bound \(5,\)"):
        fivo(arbitrary(), baseline=np.zeros((5, 1)))
    with pytest.raises(ValueError, match=r"a step's log_q must be a scalar; its shape is \(2,\)"):
        step = lambda key, z, x: Transition(z, x, jnp.zeros(2))  # noqa: E731
        particle_filter(step, jax.random.key(0), 0.0, jnp.zeros(3), num_particles=2)
