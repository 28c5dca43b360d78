"""Blocks of the set transformer against their equations in float64, and what order and absence may not change."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from objcentric.errors import UserError
from objcentric.nn.set_transformer import (
    ISAB,
    MAB,
    PMA,
    SAB,
    MultiHeadAttention,
    SeedAttention,
    SetTransformer,
    _softmax,
    log_bias,
)

M, D, HEADS = 5, 6, 2
BIAS = log_bias(jnp.array([1.0, 0.3, 0.0, 0.8, 1e-6]))
SMALL = SetTransformer(blocks=1, heads=2, units=4, output=6, outputs=3)
VARIANTS = [{}, {"inducing": 4, "pooling": "pma"}, {"layer_norm": False}, {"mask": "release"}]


def normal(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


@functools.cache
def random_params(net, *shapes):
    """Parameters of which none is as it was initialised: a bias or a scale left out would show."""
    shapes = jax.eval_shape(net.init, jax.random.key(0), *(jnp.ones(shape) for shape in shapes))
    rng = np.random.default_rng(1)
    return jax.tree.map(
        lambda a: jnp.asarray(rng.normal(size=a.shape) / len(a) ** (0.5 * (a.ndim - 1)), a.dtype), shapes
    )


@functools.cache
def applied(net):
    return jax.jit(net.apply)


@functools.cache
def differentiated(net):
    """The gradients of a function of the output by parameters, elements and presences."""
    return jax.jit(jax.value_and_grad(lambda *a: jnp.sum(jnp.sin(net.apply(*a))), (0, 1, 2)))


# ---------------------------------------------------------------------------------------------- the paper's equations


def softmax(logits):
    with np.errstate(invalid="ignore"):
        weights = np.exp(logits - logits.max(-1, keepdims=True))
    return weights / weights.sum(-1, keepdims=True)


def multihead(p, x, y, bias, heads=HEADS):
    """concat(O_1, ..., O_h) W^O with O_j = softmax(X W_j^Q (Y W_j^K)^T / sqrt(depth)) Y W_j^V."""
    depth = p["query"]["kernel"].shape[1] // heads
    outputs = []
    for j in range(heads):
        q, k, v = (p[name]["kernel"][:, j * depth : (j + 1) * depth] for name in ("query", "key", "value"))
        outputs.append(softmax(x @ q @ (y @ k).T / np.sqrt(depth) + bias) @ (y @ v))
    return np.concatenate(outputs, 1) @ p["output"]["kernel"] + p["output"].get("bias", 0.0)


def layer_norm(p, x):
    return (x - x.mean(1, keepdims=True)) / np.sqrt(x.var(1, keepdims=True) + 1e-6) * p["scale"] + p["bias"]


def rff(p, x):
    return np.maximum(x @ p["kernel"] + p["bias"], 0.0)


def mab(p, x, y, bias=0.0):
    h = x + multihead(p["attention"], x, y, bias)
    h = layer_norm(p["norm_attention"], h) if "norm_attention" in p else h
    h = h + rff(p["feed_forward"], h)
    return layer_norm(p["norm_feed_forward"], h) if "norm_feed_forward" in p else h


def isab(p, x, bias):
    return mab(p["block"], x, mab(p["induce"], p["points"], x, bias))


def pma(p, z, bias):
    return mab(p["block"], p["seeds"], rff(p["feed_forward"], z), bias)


def seed_attention(p, h, bias):
    return multihead(p, p["seeds"], h @ p["linear"], bias)


def whole(p, x, bias):
    h = x @ p["input"]["kernel"] + p["input"]["bias"]
    h = mab(p["block_0"]["block"], h, h, bias)
    return seed_attention(p["pool"], h, bias)


def exactly(reference, params, *arrays):
    p = jax.tree.map(np.float64, params["params"])
    return reference(p, *(np.float64(a) for a in arrays))


@pytest.mark.parametrize("norm", [True, False])
def test_mab_is_its_equation(norm):
    net, x, y = MAB(HEADS, norm), normal(3, D), normal(M, D, seed=1)
    params = random_params(net, (3, D), (M, D))
    norms = {"norm_attention", "norm_feed_forward"} if norm else set()
    assert set(params["params"]) == {"attention", "feed_forward"} | norms
    np.testing.assert_allclose(applied(net)(params, x, y, BIAS), exactly(mab, params, x, y, BIAS), rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(applied(net)(params, x, y), exactly(mab, params, x, y), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    "net, reference",
    [
        (SAB(HEADS), lambda p, x, bias: mab(p["block"], x, x, bias)),
        (ISAB(4, HEADS), isab),
        (PMA(4, HEADS), pma),
        (SeedAttention(4, 8, HEADS), seed_attention),
    ],
)
def test_blocks_are_their_equations(net, reference):
    x, params = normal(M, D), random_params(net, (M, D), (M,))
    np.testing.assert_allclose(applied(net)(params, x, BIAS), exactly(reference, params, x, BIAS), rtol=1e-3, atol=1e-4)


def test_the_whole_is_linear_blocks_and_seeds():
    x, params = normal(M, 3), random_params(SMALL, (M, 3), (M,))
    y = applied(SMALL)(params, x, jnp.exp(BIAS))
    np.testing.assert_allclose(y, exactly(whole, params, x, BIAS), rtol=1e-3, atol=1e-4)


def test_keys_may_have_another_width_than_queries():
    net = MultiHeadAttention(4, HEADS)
    x, y = normal(3, 7), normal(M, 5, seed=1)
    params = random_params(net, (3, 7), (M, 5))
    exact = exactly(multihead, params, x, y, BIAS)
    np.testing.assert_allclose(applied(net)(params, x, y, BIAS), exact, rtol=1e-3, atol=1e-5)


def test_of_one_element_all_queries_see_its_value():
    net, x, y = MultiHeadAttention(4, HEADS), 1e4 * normal(3, 7), normal(1, 5, seed=1)  # logits whose exp overflows
    params = random_params(net, (3, 7), (1, 5))
    p = params["params"]
    value = np.tile(y @ p["value"]["kernel"] @ p["output"]["kernel"], (3, 1))
    np.testing.assert_allclose(applied(net)(params, x, y), value, rtol=1e-4)
    np.testing.assert_allclose(applied(net)(params, x, y, jnp.log(jnp.array([0.2]))), value, rtol=1e-4)


def test_the_encoder_of_constellations():
    net = SetTransformer(blocks=4, heads=4, units=128, output=32, outputs=3)
    shapes = jnp.ones((11, 2)), jnp.ones(11)
    y, params = jax.eval_shape(net.init_with_output, jax.random.key(0), *shapes)
    sizes = {name: sum(a.size for a in jax.tree.leaves(part)) for name, part in params["params"].items()}
    assert y.shape == (3, 32)
    block = 4 * 512**2 + (512 + 1) * 512 + 2 * 2 * 512
    pool = 3 * 32 + 512 * 32 + 3 * 32**2 + (32 + 1) * 32
    assert sizes == {"input": 3 * 512, "pool": pool} | {f"block_{i}": block for i in range(4)}
    assert sum(sizes.values()) == 5_275_264


# --------------------------------------------------------------------------------------------------------------- order


@pytest.mark.parametrize("net", [SAB(HEADS), SAB(HEADS, layer_norm=False), ISAB(4, HEADS)])
def test_blocks_are_equivariant(net):
    x, params, order = normal(M, D), random_params(net, (M, D), (M,)), np.array([3, 0, 4, 2, 1])
    y, permuted = applied(net)(params, x, BIAS), applied(net)(params, x[order], BIAS[order])
    np.testing.assert_allclose(permuted, y[order], rtol=1e-4, atol=1e-5)
    assert np.abs(np.diff(y, axis=0)).max(1).min() > 0.1  # no two rows are alike


@pytest.mark.parametrize("net", [PMA(4, HEADS), SeedAttention(4, 8, HEADS)])
def test_pooling_is_invariant(net):
    x, params, order = normal(M, D), random_params(net, (M, D), (M,)), np.array([3, 0, 4, 2, 1])
    y = applied(net)(params, x, BIAS)
    np.testing.assert_allclose(applied(net)(params, x[order], BIAS[order]), y, rtol=1e-4, atol=1e-5)
    assert np.abs(y - applied(net)(params, x[order], BIAS)).max() > 0.1  # presences belong to their elements


@pytest.mark.parametrize("fields", VARIANTS)
def test_the_whole_is_invariant(fields):
    net, order = SMALL.clone(**fields), np.array([3, 0, 4, 2, 1])
    x, presence, params = normal(M, 3), jnp.array([1.0, 0.3, 0.0, 0.8, 1.0]), random_params(net, (M, 3), (M,))
    y = applied(net)(params, x, presence)
    assert y.shape == (3, 6)
    np.testing.assert_allclose(applied(net)(params, x[order], presence[order]), y, rtol=1e-4, atol=1e-4)


def test_induced_blocks_are_another_function_even_with_as_many_points():
    induced = ISAB(M, HEADS)
    params = random_params(induced, (M, D), (M,))
    alone = {"params": {"block": params["params"]["block"]}}
    x = normal(M, D)
    y, direct = applied(induced)(params, x), applied(SAB(HEADS))(alone, x)
    assert y.shape == direct.shape and np.abs(y - direct).max() > 0.1


# -------------------------------------------------------------------------------------------------------------- absent


@pytest.mark.parametrize("fields", VARIANTS)
def test_an_absent_element_has_no_influence_at_all(fields):
    net, presence = SMALL.clone(**fields), jnp.array([1.0, 1.0, 0.0, 1.0, 1.0])
    params, x = random_params(net, (M, 3), (M,)), normal(M, 3)
    y = applied(net)(params, x, presence)
    for value in (0.0, -3.0, 1e4):  # large enough to make its logits the largest by far
        np.testing.assert_array_equal(applied(net)(params, x.at[2].set(value), presence), y)
    there = np.array([0, 1, 3, 4])
    np.testing.assert_allclose(applied(net)(params, x[there], presence[there]), y, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("fields", VARIANTS[:-1])
def test_gradients_are_finite_and_none_of_absent_elements(fields):
    net = SMALL.clone(**fields)
    params, x = random_params(net, (M, 3), (M,)), normal(M, 3).at[2].set(1e4)
    for presence in (jnp.array([1.0, 0.5, 0.0, 0.0, 1e-37]), jnp.zeros(M)):
        y, (by_params, by_x, by_presence) = differentiated(net)(params, x, presence)
        assert all(np.isfinite(a).all() for a in jax.tree.leaves((y, by_params, by_x, by_presence)))
        absent = presence == 0
        np.testing.assert_array_equal(by_x[absent], 0.0)
        np.testing.assert_array_equal(by_presence[absent], 0.0)
        there = presence > 0.1
        assert (np.abs(by_x[there]) > 0).any(1).all() and (np.abs(by_presence[there]) > 0).all()


def test_presence_is_differentiable():
    params, x, presence = random_params(SMALL, (M, 3), (M,)), normal(M, 3), jnp.array([0.9, 0.5, 0.3, 0.2, 0.7])
    _, (_, _, gradient) = differentiated(SMALL)(params, x, presence)
    steps = 0.01 * jnp.eye(M)
    there_and_back = [[differentiated(SMALL)(params, x, presence + s * step)[0] for s in (1, -1)] for step in steps]
    np.testing.assert_allclose(gradient, np.subtract(*np.transpose(there_and_back)) / 0.02, rtol=0.02, atol=2e-3)


def test_with_all_elements_absent_the_output_is_that_of_any_such_set():
    params = random_params(SMALL, (M, 3), (M,))
    none = applied(SMALL)(params, normal(M, 3), jnp.zeros(M))
    np.testing.assert_array_equal(none, applied(SMALL)(params, 5 + normal(M, 3, seed=2), jnp.zeros(M)))
    assert np.isfinite(none).all()


def test_half_an_element_counts_half():
    net, x, y = MultiHeadAttention(4, 1), normal(3, 7), normal(M, 5, seed=1)
    params = random_params(net, (3, 7), (M, 5))
    absent, half, present = (
        np.float64(applied(net)(params, x, y, log_bias(jnp.ones(M).at[2].set(p)))) for p in (0.0, 0.5, 1.0)
    )
    p = jax.tree.map(np.float64, params["params"])
    share = softmax(x @ p["query"]["kernel"] @ (y @ p["key"]["kernel"]).T / 2)[:, 2:3]  # of the element when present
    moved = 0.5 / (1 - 0.5 * share)  # of the way, as 0.5 share / (1 - 0.5 share) = moved * share
    assert (moved > 0.5).all() and (moved < 1).all()
    np.testing.assert_allclose(half, absent + moved * (present - absent), rtol=1e-3, atol=1e-5)


def test_the_rule_of_the_release_collapses_soft_presences_onto_one_element():
    released, params, x = SMALL.clone(mask="release"), random_params(SMALL, (M, 3), (M,)), normal(M, 3)
    nearly = jnp.array([0.95, 0.96, 0.97, 0.98, 0.99])
    ours, theirs = (applied(net)(params, x, nearly) for net in (SMALL, released))
    full = applied(SMALL)(params, x, jnp.ones(M))
    only_one = applied(SMALL)(params, x, jnp.zeros(M).at[4].set(1.0))
    np.testing.assert_allclose(theirs, only_one, rtol=1e-3, atol=1e-4)
    assert np.abs(theirs - full).max() > 0.2 > 20 * np.abs(ours - full).max()
    for binary in (jnp.ones(M), jnp.array([1.0, 0.0, 0.0, 1.0, 1.0])):  # where presences saturate, both rules agree
        agreed = [applied(net)(params, x, binary) for net in (SMALL, released)]
        np.testing.assert_allclose(*agreed, rtol=1e-4, atol=1e-5)


def test_the_rule_of_the_release_is_finite_however_presences_are_rounded():
    z, logits = normal(200, M), normal(200, M, seed=1)

    def attended(z, logits):  # XLA computes presences anew where they are used, and then rounds them as it likes
        weights = _softmax(logits[None, None], log_bias(jax.nn.sigmoid(z) * jax.nn.sigmoid(z + 3), "release"))
        return weights[0, 0] @ jnp.arange(M, dtype=jnp.float32)

    which, gradient = jax.jit(jax.vmap(jax.value_and_grad(attended)))(z, logits)
    np.testing.assert_array_equal(which, np.argmax(z, 1))
    np.testing.assert_array_equal(gradient, 0.0)


# ------------------------------------------------------------------------------------------------------------- mistakes


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: MultiHeadAttention(6, 4), "heads=4 must divide the 6 features"),
        (lambda: SeedAttention(2, 6, 4), "heads=4 must divide the 6 features"),
        (lambda: MAB(0), "heads=0 must be at least 1"),
        (lambda: SAB(0), "heads=0"),
        (lambda: ISAB(0, 2), "inducing=0"),
        (lambda: PMA(0, 2), "seeds=0"),
        (lambda: SMALL.clone(output=5), "heads=2 must divide output=5"),
        (lambda: SMALL.clone(outputs=0), "outputs=0 must be at least 1"),
        (lambda: SMALL.clone(units=0), "units=0"),
        (lambda: SMALL.clone(blocks=-1), "blocks=-1 must be 0 or more"),
        (lambda: SMALL.clone(inducing=-1), "inducing=-1"),
        (lambda: SMALL.clone(mask="hard"), "mask='hard' is unknown; choose one of log_presence, release"),
        (lambda: SMALL.clone(pooling="max"), "pooling='max' is unknown; choose one of attention, pma"),
    ],
)
def test_mistakes_are_told_at_construction(make, message):
    with pytest.raises(UserError, match=message) as error:
        make()
    assert "\n" not in str(error.value)


def test_pma_needs_no_outputs_that_heads_divide():
    assert SMALL.clone(output=5, pooling="pma").output == 5
