"""AIR against itself written a second time, exact sums over counts, normalisation, and what must not matter."""

import dataclasses
import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import expit, log_softmax

from objcentric.errors import UserError
from objcentric.models import air
from tests.models import air_by_hand as by_hand

HPARAMS = {"presence_prior": jnp.float32(0.3), "presence_margin": jnp.float32(0.01)}
BASE = air.Config(
    canvas=(9, 11, 1), num_steps=3, glimpse_size=(4, 5), what_dim=2, hidden=6, object_size=4.0, presence_bias=0.3
)
CONFIGS = {
    "image": BASE,
    "latent": dataclasses.replace(BASE, recurrence="latent", likelihood="bernoulli", object_size=(4.0, 3.0)),
    "background": dataclasses.replace(BASE, recurrence="latent", background="mlp", background_dim=2),
    "deterministic background": dataclasses.replace(BASE, background="mlp", background_dim=0),
    "deconv": dataclasses.replace(BASE, canvas=(9, 11, 3), background="deconv", background_dim=2),
}


@functools.cache
def setup(name):
    """Model, parameters that are no longer those of a timid start, and an image."""
    config = CONFIGS[name]
    model = air.make(config)
    rng = np.random.default_rng(0)
    params = filled(model, lambda shape: rng.normal(0, 0.3 if len(shape) == 1 else shape[-2] ** -0.5, shape))
    return model, params, jnp.asarray(rng.uniform(size=config.canvas).round(1), jnp.float32)


def filled(model, fill):
    """Parameters without compiling ``model.init``."""
    shapes = jax.eval_shape(model.init, jax.random.key(0))
    return jax.tree.map(lambda leaf: jnp.asarray(np.float32(fill(leaf.shape))), shapes)


@functools.cache
def tracer(name):
    """``model.trace`` of (params, key, x), jitted once; of a batch of keys."""
    model = setup(name)[0]
    return jax.jit(jax.vmap(lambda params, key, x: model.trace(params, key, x, HPARAMS), (None, 0, None)))


@functools.cache
def scorer(name):
    """``model.trace`` of (params, x, z), jitted once."""
    model = setup(name)[0]
    return jax.jit(lambda params, x, z: model.trace(params, jax.random.key(99), x, HPARAMS, z=z))


@functools.cache
def renderer(name):
    return jax.jit(setup(name)[0].render)


@functools.cache
def draw(name):
    """40 traces, of which every count has some."""
    _, params, x = setup(name)
    traces = jax.device_get(tracer(name)(params, jax.random.split(jax.random.key(1), 40), x))
    assert set(traces.z["presence"].sum(1)) == {0, 1, 2, 3}
    return traces


def row(tree, i):
    return jax.tree.map(lambda leaf: leaf[i], tree)


def one_of_each_count(traces):
    counts = list(traces.z["presence"].sum(1))
    return [row(traces, counts.index(count)) for count in range(4)]


# ----------------------------------------------------------------------------------------------------------- densities


@pytest.mark.parametrize("name", CONFIGS)
def test_densities_by_hand(name):
    """Of every count: log p(x, z), log q(z | x) and the image mean equal those of the second implementation."""
    _, params, x = setup(name)
    config = CONFIGS[name]
    for trace in one_of_each_count(draw(name)):
        background = None
        if config.background == "deconv":
            empty = trace.z | {"presence": jnp.zeros(3)}
            rendered = np.float64(renderer(name)(params, empty)["background"])
            background = np.log(rendered / (1 - rendered)) - config.decoder_bias
        expected = by_hand.densities(config, params, x, 0.3, trace.z, background)
        ours = trace.log_p, trace.log_q, trace.log_q_discrete, trace.outputs["mean"]
        for value, exact in zip(ours, expected, strict=True):
            np.testing.assert_allclose(value, exact, rtol=2e-5, atol=2e-4)


def test_a_learned_prior_of_counts():
    """It takes the place of the geometric one in log p and in draws of the prior; it begins with equal chances."""
    model, params, x = setup("image")
    learned = air.make(dataclasses.replace(BASE, count_prior="learned"))
    initial = jax.eval_shape(learned.init, jax.random.key(0))["generative"]["count_logits"]
    assert initial.shape == (4,)
    logits = np.float32([0.5, -1.0, 2.0, -30.0])
    params = params | {"generative": params["generative"] | {"count_logits": logits}}
    geometric = np.log(0.3) * np.arange(4) - np.log((0.3 ** np.arange(4)).sum())
    score = jax.jit(lambda params, x, z: learned.trace(params, jax.random.key(99), x, HPARAMS, z=z).log_p)
    for count, trace in enumerate(one_of_each_count(draw("image"))):
        difference = log_softmax(logits)[count] - geometric[count]
        assert float(score(params, x, trace.z) - trace.log_p) == pytest.approx(float(difference), abs=2e-4)
    keys = jax.random.split(jax.random.key(0), 3000)
    counts = jax.jit(jax.vmap(lambda key: learned.generate(params, key, HPARAMS)[0]["presence"].sum()))(keys)
    shares = np.bincount(np.asarray(counts).astype(int), minlength=4) / len(keys)
    np.testing.assert_allclose(shares, np.exp(log_softmax(logits)), atol=4 * np.sqrt(0.25 / len(keys)))


@pytest.mark.parametrize("name", CONFIGS)
def test_scoring_what_was_drawn(name):
    """Gives the same densities; and one at a time the same as in a batch."""
    _, params, x = setup(name)
    for trace in one_of_each_count(draw(name)):
        again = scorer(name)(params, x, trace.z)
        for drawn, scored in zip(jax.tree.leaves(trace), jax.tree.leaves(again), strict=True):
            np.testing.assert_allclose(scored, drawn, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("name", ["image", "latent"])
def test_q_of_all_counts_sums_to_one(name):
    """Of vectors of ones then zeros, whatever the objects are: q(n) of the trace is a distribution."""
    _, params, x = setup(name)
    z = draw(name).z
    vectors = jnp.asarray([v for v in itertools.product((0.0, 1.0), repeat=3) if sorted(v, reverse=True) == list(v)])
    assert len(vectors) == 4
    for what in range(2):
        given = row(z, what)
        log_q = [scorer(name)(params, x, given | {"presence": vector}).log_q_discrete for vector in vectors]
        assert np.exp(log_q).sum() == pytest.approx(1, abs=1e-5)
        p = scorer(name)(params, x, given | {"presence": vectors[3]}).outputs["presence_prob"]
        np.testing.assert_allclose(np.exp(log_q), np.r_[1, np.cumprod(p)] * np.r_[1 - p, 1], rtol=1e-4)


def test_presence_is_drawn_from_q():
    """With h of the image alone, every slot's frequency is a product of probabilities."""
    _, params, x = setup("image")
    traces = tracer("image")(params, jax.random.split(jax.random.key(2), 4000), x)
    presence, p = np.asarray(traces.z["presence"]), np.asarray(traces.outputs["presence_prob"])[0]
    np.testing.assert_allclose(presence.mean(0), np.cumprod(p), atol=4 * np.sqrt(0.25 / 4000))


@pytest.mark.parametrize("name", CONFIGS)
def test_presence_is_ones_then_zeros(name):
    presence = draw(name).z["presence"]
    assert set(np.unique(presence)) == {0.0, 1.0}
    assert (np.diff(presence, axis=1) <= 0).all()


@pytest.mark.parametrize("name", CONFIGS)
def test_absent_objects_do_not_matter(name):
    """Not to any density nor to the image."""
    _, params, x = setup(name)
    for count, trace in enumerate(one_of_each_count(draw(name))):
        absent = np.arange(3)[:, None] >= count
        other = trace.z | {k: np.where(absent, np.float32(0.7), trace.z[k]) for k in ("where", "what")}
        again = scorer(name)(params, x, other)
        for field in ("log_p", "log_q", "log_q_discrete"):
            np.testing.assert_allclose(getattr(again, field), getattr(trace, field), rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(again.outputs["mean"], trace.outputs["mean"], atol=1e-6)


@pytest.mark.parametrize("name", ["image", "background"])
def test_nothing_is_learnt_about_absent_objects(name):
    model, params, x = setup(name)

    @jax.jit
    @jax.jacrev
    def slopes(continuous, presence):
        z = continuous | {"presence": presence}
        trace = model.trace(params, jax.random.key(0), x, HPARAMS, z=z)
        return jnp.stack([trace.log_p, trace.log_q])

    for count, trace in enumerate(one_of_each_count(draw(name))):
        jacobian = slopes({k: v for k, v in trace.z.items() if k != "presence"}, trace.z["presence"])
        for part in ("where", "what"):
            size = np.abs(jacobian[part]).max(-1)  # [log p or log q, object]
            np.testing.assert_array_equal(size[:, count:], 0)
            assert (size[:, :count] > 0).all()


# -------------------------------------------------------------------------------------------------- prior and sampling


def widened(name):
    """Parameters whose q is about as wide as the prior, so that importance weights have small variance."""
    config, (model, params, x) = CONFIGS[name], setup(name)
    params = jax.tree.map(jnp.asarray, params)  # a copy to change

    def widen(part, layer, where, initial, scale):
        bias = np.array(params["inference"][part]["params"][layer]["bias"])
        bias[where] += np.log(np.expm1(scale)) - np.log(np.expm1(initial))
        params["inference"][part]["params"][layer]["bias"] = jnp.asarray(bias)

    widen("where_presence", "Dense_1", slice(3, 4), 0.1, 0.4)
    widen("where_presence", "Dense_1", slice(4, 6), 0.1, 1.2)
    widen("glimpse_encoder", "Dense_2", slice(config.what_dim, None), 0.5, 1.2)
    if config.background != "none":
        widen("background_encoder", "Dense_1", slice(config.background_dim, None), 0.5, 1.2)
    return model, params, x


def test_importance_weights_estimate_the_evidence():
    """E_q[p(z) / q(z | x)] = 1, and E_q[p(x, z) / q(z | x)] = E_p[p(x | z)] = p(x): q's samples have q's density."""
    model, params, x = widened("background")
    keys = jax.random.split(jax.random.key(3), 20_000)
    traces = tracer("background")(params, keys, x)
    log_likelihood = np.float64(traces.outputs["log_likelihood"])

    @jax.jit
    @jax.vmap
    def likelihood_under_the_prior(key):
        z, _ = model.generate(params, key, HPARAMS)
        return model.trace(params, key, x, HPARAMS, z=z).outputs["log_likelihood"]

    reference = np.float64(likelihood_under_the_prior(jax.random.split(jax.random.key(4), 20_000)))
    # Tempered, p(x | z)^beta is flat enough to be averaged over the prior; beta = 0 is the normalisation alone.
    for beta in (0.0, 0.05):
        weights = np.exp(beta * (log_likelihood - reference.max()) + traces.log_p - log_likelihood - traces.log_q)
        prior = np.exp(beta * (reference - reference.max()))
        error = np.sqrt((weights.var() + prior.var()) / len(keys))
        assert error < 0.05 * prior.mean()
        assert abs(weights.mean() - prior.mean()) < 4 * error


@pytest.mark.parametrize("name", ["latent", "deconv"])
def test_generated_scenes(name):
    model, params, _ = setup(name)
    hparams = HPARAMS | {"presence_prior": jnp.float32(0.6)}

    @jax.jit
    @jax.vmap
    def generate(key):
        z, x = model.generate(params, key, hparams)
        return z, x, model.render(params, z)["mean"]

    keys = jax.random.split(jax.random.key(5), 3000)
    with jax.numpy_rank_promotion("allow"):  # distrax' Bernoulli needs it
        z, x, mean = jax.device_get(generate(keys))
        again = generate(keys[::-1])[0]

    p = 0.6 ** np.arange(4) / (0.6 ** np.arange(4)).sum()
    frequency = np.bincount(z["presence"].sum(1).astype(int), minlength=4) / len(keys)
    np.testing.assert_allclose(frequency, p, atol=4 * np.sqrt(0.25 / len(keys)))
    assert (np.diff(z["presence"], axis=1) <= 0).all()
    np.testing.assert_allclose(np.mean(z["what"], (0, 1)), 0, atol=0.1)
    np.testing.assert_allclose(np.std(z["what"], (0, 1)), 1, atol=0.1)

    assert x.shape == (3000, *CONFIGS[name].canvas) and np.isfinite(x).all()
    assert mean.min() >= 0 and mean.max() <= 4
    if name == "latent":
        assert set(np.unique(x)) == {0.0, 1.0}
        residual = x - np.clip(mean, 1e-3, 1 - 1e-3)
    else:
        residual = x - mean
        assert residual.std() == pytest.approx(CONFIGS[name].output_std, rel=0.02)
    assert abs(residual.mean()) < 0.01

    np.testing.assert_array_equal(again["what"][::-1], z["what"])  # its key decides
    assert len(np.unique(z["what"][:, 0, 0])) > 2900


@pytest.mark.parametrize("name", CONFIGS)
def test_rendering_what_was_inferred(name):
    _, params, _ = setup(name)
    for count, trace in enumerate(one_of_each_count(draw(name))):
        pictures = renderer(name)(params, trace.z)
        np.testing.assert_allclose(pictures["mean"], trace.outputs["mean"], atol=1e-5)
        np.testing.assert_allclose(pictures["objects"].sum(0) + pictures["background"], pictures["mean"], atol=1e-5)
        np.testing.assert_allclose(pictures["boxes"], trace.outputs["boxes"], atol=1e-4)
        np.testing.assert_array_equal(pictures["objects"][count:], 0)
        assert (CONFIGS[name].background == "none") == (not pictures["background"].any())


@pytest.mark.parametrize("canvas, object_size", [((50, 50, 1), 18.0), ((28, 90, 1), 8.0)])
def test_glimpses_start_at_the_size_of_objects(canvas, object_size):
    """At first, q of z^where is at squares, in pixels, of 1.25 objects in the middle."""
    config = air.Config(canvas, num_steps=1, what_dim=1, hidden=2, glimpse_size=(4, 4), object_size=object_size)
    model = air.make(config)
    params = filled(model, np.zeros)

    @jax.jit
    @jax.vmap
    def boxes(key):
        return model.trace(params, key, jnp.zeros(canvas), HPARAMS).outputs["boxes"][0]

    box = np.mean(boxes(jax.random.split(jax.random.key(0), 20)), 0)
    np.testing.assert_allclose(box[2:] - box[:2], 1.25 * object_size, rtol=0.1)
    np.testing.assert_allclose((box[2:] + box[:2]) / 2 / np.array(canvas[:2]), 0.5, atol=0.1)


# ----------------------------------------------------------------------------------------------------------- structure


def test_recurrence_of_the_image_alone():
    """Notes of 2017-10: h, and so the presence probabilities, do not depend on what was drawn."""
    p = draw("image").outputs["presence_prob"]
    np.testing.assert_array_equal(p, np.broadcast_to(p[0], p.shape))


def test_recurrence_of_the_latents():
    """Notes of 2017-12: from the second object on, h depends on z of the one before."""
    traces = draw("latent")
    p, present = traces.outputs["presence_prob"], traces.z["presence"]
    np.testing.assert_array_equal(p[:, 0], p[0, 0])
    assert len(np.unique(p[present[:, 0] == 1, 1])) == (present[:, 0] == 1).sum()
    assert len(np.unique(p[present[:, 0] == 0, 1])) == 1  # an absent object is the same whatever its draw


@pytest.mark.parametrize("name", ["image", "background"])
def test_pathwise_or_not(name):
    """Without it the draw is a constant: the gradient is that of scoring it. With it, another, of every parameter."""
    model, params, x = setup(name)
    index = list(draw(name).z["presence"].sum(1)).index(3)
    key, z = jax.random.split(jax.random.key(1), 40)[index], row(draw(name).z, index)

    @jax.jit
    def gradients(z):
        def log_w(params, z=None, pathwise=True):
            trace = model.trace(params, key, x, HPARAMS, z=z, pathwise=pathwise)
            return trace.log_p - trace.log_q

        return jax.grad(log_w)(params, z), jax.grad(log_w)(params, None, False), jax.grad(log_w)(params)

    scored, stopped, pathwise = gradients(z)
    for leaf, expected in zip(jax.tree.leaves(stopped), jax.tree.leaves(scored), strict=True):
        np.testing.assert_allclose(leaf, expected, rtol=1e-4, atol=1e-4)
    for part in ("glimpse_encoder", "where_presence", "core"):
        a, b = (jax.tree.leaves(g["inference"][part])[0] for g in (stopped, pathwise))
        assert np.abs(a - b).max() > 1e-3 * np.abs(a).max()

    assert set(pathwise) == {"generative", "inference"}
    for path, leaf in jax.tree.leaves_with_path(pathwise):
        assert np.isfinite(leaf).all() and np.abs(leaf).max() > 0, jax.tree_util.keystr(path)


def test_a_dark_start():
    """Decoded objects are dark and presence is likely at first, or else presence collapses for good."""
    config = dataclasses.replace(BASE, presence_bias=3.0, background="mlp")
    model = air.make(config)
    params = jax.jit(model.init)(jax.random.key(0))
    trace = jax.jit(lambda key, x: model.trace(params, key, x, HPARAMS))(jax.random.key(1), jnp.ones(config.canvas))
    np.testing.assert_allclose(trace.outputs["presence_prob"], expit(3.0), atol=0.03)
    assert trace.outputs["mean"].max() < 4 * expit(-0.5)
    np.testing.assert_allclose(trace.outputs["mean"].min(), expit(-2.0), atol=0.1)  # of the background alone


# ------------------------------------------------------------------------------------------------------------- mistakes


@pytest.mark.parametrize(
    "fields, message",
    [
        ({"recurrence": "both"}, "model.recurrence='both' is unknown; choose one of image, latent"),
        ({"likelihood": "poisson"}, "model.likelihood='poisson' is unknown; choose one of gaussian, bernoulli"),
        ({"background": "cnn"}, "model.background='cnn' is unknown; choose one of none, mlp, deconv"),
        ({"num_steps": 0}, "model.num_steps=0 must be positive"),
        ({"what_dim": 0}, "model.what_dim=0 must be positive"),
        ({"hidden": -1}, "model.hidden=-1 must be positive"),
        ({"object_size": 8.0}, "model.object_size=8.0 leaves no room on a canvas of 9x11; it must be below 7"),
        ({"background_dim": -1}, "model.background_dim=-1 must be 0 or more"),
    ],
)
def test_impossible_configs(fields, message):
    with pytest.raises(UserError) as error:
        dataclasses.replace(BASE, **fields)
    assert str(error.value) == message


def test_a_deterministic_background_cannot_be_sampled():
    model, params, _ = setup("deterministic background")
    with pytest.raises(UserError, match="has no prior to sample from"):
        model.generate(params, jax.random.key(0), HPARAMS)
