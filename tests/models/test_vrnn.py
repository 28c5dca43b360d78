"""The VRNN against densities by hand in numpy, the paper's parameter counts, and what may depend on what."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats
from scipy.special import expit

from configs import vrnn as configs
from objcentric.errors import UserError
from objcentric.models import vrnn
from tests.models.test_air import filled

BASE = vrnn.Config(canvas=(3, 5, 1), num_frames=3, latent_dim=2, hidden=4, layers=2)
CONFIGS = {
    "mlp": BASE,
    "conv": dataclasses.replace(
        BASE, network="conv", canvas=(7, 5, 3), layers=1, features=(4, 8), strides=(2, 2), likelihood="bernoulli"
    ),
}


@functools.cache
def setup(name):
    """The model, random parameters, and a sequence of three frames."""
    config = CONFIGS[name]
    sequential = vrnn.make(config)
    rng = np.random.default_rng(0)
    params = filled(sequential.model, lambda shape: rng.normal(0, 0.7 if len(shape) == 1 else 0.5, shape))
    return sequential, params, jnp.asarray(rng.uniform(size=(3, *config.canvas)).round(1), jnp.float32)


@functools.cache
def scorer(name):
    """``model.trace`` of (x, z), jitted once."""
    sequential, params, _ = setup(name)
    return jax.jit(lambda x, z: sequential.model.trace(params, jax.random.key(9), x, {}, z=z))


@functools.cache
def stepper():
    """``step`` and ``imagine`` of batches of keys and states, jitted once."""
    sequential, params, _ = setup("mlp")
    step = jax.vmap(lambda key, state, x: sequential.step(params, key, state, x, {}), (0, 0, None))
    return jax.jit(step), jax.jit(jax.vmap(lambda key, state: sequential.imagine(params, key, state, {})))


def start(num):
    sequential, params, _ = setup("mlp")
    return jax.tree.map(lambda leaf: jnp.zeros((num, *leaf.shape)), sequential.start(params))


# ------------------------------------------------------------------------------------------------------------ densities


def linear(layer, x):
    return x @ np.float64(layer["kernel"]) + np.float64(layer.get("bias", 0))


def elu(x):
    return np.where(x > 0, x, np.expm1(np.minimum(x, 0)))


def mlp(net, x):
    layers = [net["params"][f"Dense_{i}"] for i in range(len(net["params"]))]
    for layer in layers[:-1]:
        x = elu(linear(layer, x))
    return linear(layers[-1], x)


def lstm(net, carry, x):
    c, h = carry
    i, f, g, o = (linear(net["params"][f"i{gate}"], x) + linear(net["params"][f"h{gate}"], h) for gate in "ifgo")
    c = expit(f) * c + expit(i) * np.tanh(g)
    return (c, expit(o) * np.tanh(c))


def gaussian(raw):
    """Softplus, which is 1 at 0, and the floor."""
    loc, scale = np.split(raw, 2)
    return loc, np.log1p(np.exp(scale + np.log(np.e - 1))) + 1e-3


def by_hand(params, x, z):
    """log p(x, z), log q(z | x), log p(x | z) and the mean frames, in double precision."""
    p, q = params["generative"], params["inference"]
    carry, of_x, of_z = (np.zeros(4), np.zeros(4)), np.zeros(2), np.zeros(2)
    log_p = log_q = log_likelihood = 0
    means = []
    for x_t, z_t in zip(np.float64(x), np.float64(z), strict=True):
        carry = lstm(p["lstm"], carry, np.concatenate([of_x, of_z]))
        o = carry[1]
        log_p += stats.norm.logpdf(z_t, *gaussian(mlp(p["prior"], o))).sum()
        of_x, of_z = mlp(p["image_features"], x_t.reshape(-1)), mlp(p["latent_features"], z_t)
        log_q += stats.norm.logpdf(z_t, *gaussian(mlp(q["posterior"], np.concatenate([o, of_x])))).sum()
        mean = expit(mlp(p["decoder"], np.concatenate([of_z, o])) - 2).reshape(3, 5, 1)
        log_likelihood += stats.norm.logpdf(x_t, mean, 0.3).sum()
        means.append(mean)
    return log_p + log_likelihood, log_q, log_likelihood, np.array(means)


def test_densities_by_hand():
    _, params, x = setup("mlp")
    z = np.random.default_rng(1).normal(size=(3, 2)).astype(np.float32)
    trace = scorer("mlp")(x, z)
    log_p, log_q, log_likelihood, means = by_hand(params, x, z)
    ours = trace.log_p, trace.log_q, trace.outputs["log_likelihood"]
    np.testing.assert_allclose(ours, (log_p, log_q, log_likelihood), rtol=1e-5)
    np.testing.assert_allclose(trace.outputs["mean"], means, atol=1e-6)
    assert trace.log_q_discrete == 0


def test_a_trace_is_its_steps():
    """Drawn one by one, and scored together."""
    _, _, x = setup("mlp")
    steps, state = [], start(2)
    for t, key in enumerate(jax.random.split(jax.random.key(0), 3)):
        steps.append(stepper()[0](jax.random.split(key), state, x[t]))
        state = steps[-1].state
    for i in range(2):
        trace = scorer("mlp")(x, jnp.stack([s.z[i] for s in steps]))
        summed = [sum(getattr(s, name)[i] for s in steps) for name in ("log_p", "log_q")]
        np.testing.assert_allclose(summed, [trace.log_p, trace.log_q], rtol=1e-5)


def test_draws():
    """Standardised by hand, those of q, and those of the prior, are normal in every direction."""
    _, params, x = setup("mlp")
    p, q = params["generative"], params["inference"]
    keys = jax.random.split(jax.random.key(0), 1000)
    step, imagine = stepper()
    draws = {"q": step(keys, start(1000), x[0]).z, "p": imagine(keys, start(1000))[1]}
    o = lstm(p["lstm"], (np.zeros(4), np.zeros(4)), np.zeros(4))[1]
    seen = mlp(p["image_features"], np.float64(x[0]).reshape(-1))
    raw = {"q": mlp(q["posterior"], np.concatenate([o, seen])), "p": mlp(p["prior"], o)}
    for name, z in draws.items():
        loc, scale = gaussian(raw[name])
        noise = (np.float64(z) - loc) / scale
        assert all(stats.kstest(column, "norm").pvalue > 1e-3 for column in noise.T), name
        np.testing.assert_allclose(np.cov(noise.T), np.eye(2), atol=0.15)


def test_the_path_of_the_draw_can_be_stopped():
    sequential, params, x = setup("mlp")

    def log_p(q, pathwise):
        trace = functools.partial(sequential.model.trace, params | {"inference": q}, pathwise=pathwise)
        return trace(jax.random.key(0), x, {}).log_p

    grads = jax.jit(lambda q: [jax.grad(log_p)(q, pathwise) for pathwise in (True, False)])(params["inference"])
    alive, stopped = (max(jnp.max(jnp.abs(leaf)) for leaf in jax.tree.leaves(grad)) for grad in grads)
    assert alive > 1e-3 and stopped == 0


# ------------------------------------------------------------------------------------------------- what depends on what


@pytest.mark.parametrize("name", CONFIGS)
def test_time_goes_one_way(name):
    """Given z, the mean of frame t depends on the frames before it, on each of them, and on no other."""
    x = setup(name)[2]
    z = np.random.default_rng(1).normal(size=(3, 2)).astype(np.float32)
    means = [scorer(name)(x.at[s].set(each), z).outputs["mean"] for s in range(3) for each in (x[s], 1 - x[s])]
    assert means[0].shape == x.shape and means[0].min() >= 0 and means[0].max() <= 1
    depends = [np.abs(after - before).max((1, 2, 3)) > 1e-6 for before, after in zip(*[iter(means)] * 2, strict=True)]
    np.testing.assert_array_equal(np.transpose(depends), np.tri(3, k=-1, dtype=bool))


def test_imagined_frames_follow_their_means():
    """So they are what `render` shows of their latents, and these score their means as q's would be."""
    sequential, params, _ = setup("mlp")
    state, latents, means = start(1), [], []
    for key in jax.random.split(jax.random.key(1), 3):
        state, z, mean = stepper()[1](key[None], state)
        latents.append(z[0])
        means.append(mean[0])
    z, means = jnp.stack(latents), jnp.stack(means)
    np.testing.assert_allclose(jax.jit(sequential.model.render)(params, z)["mean"], means, atol=1e-6)
    np.testing.assert_allclose(scorer("mlp")(means, z).outputs["mean"], means, atol=1e-6)


def test_the_likeliest_frames_are_those_of_the_priors_mean():
    sequential, params, _ = setup("mlp")
    keys, state = jax.random.split(jax.random.key(1), 2), sequential.start(params)
    drawn = [sequential.imagine(params, key, state, {"temperature": t})[1] for key in keys for t in (0.0, 1.0)]
    np.testing.assert_array_equal(drawn[0], drawn[2])
    assert np.abs(drawn[1] - drawn[3]).min() > 0
    middle = [sequential.imagine(params, keys[0], state, {"temperature": t})[1] for t in (-1.0, 1.0)]
    np.testing.assert_allclose(np.mean(middle, 0), drawn[0], atol=1e-6)


def test_generated_frames_follow_those_before():
    """Frames are the means of a model that has seen the frames before, and noise."""
    sequential, params, _ = setup("mlp")
    z, x = jax.jit(sequential.model.generate)(params, jax.random.key(0), {})
    assert x.shape == (3, *BASE.canvas) and z.shape == (3, 2)
    keys = [jax.random.split(key)[1] for key in jax.random.split(jax.random.key(0), 3)]
    noise = jnp.stack([jax.random.normal(key, BASE.canvas) for key in keys])
    np.testing.assert_allclose(scorer("mlp")(x, z).outputs["mean"] + 0.3 * noise, x, atol=1e-5)


# ----------------------------------------------------------------------------------------------------------- parameters


def count(**fields):
    model = vrnn.make(vrnn.Config(canvas=(50, 50, 1), **fields)).model
    return sum(leaf.size for leaf in jax.tree.leaves(jax.eval_shape(model.init, jax.random.key(0)))) / 1e6


def test_parameter_counts():
    """Table 5.D.1, within 3%, of the models that the configs describe."""
    for network, millions in {"mlp": 2.1, "conv": 2.6}.items():
        assert count(**configs.get_config(network).model) == pytest.approx(millions, rel=0.03), network


@pytest.mark.parametrize("hidden, layers, millions", [(128, 2, 1.20), (256, 3, 3.12), (512, 4, 9.78)])
def test_parameter_counts_of_other_mlps(hidden, layers, millions):
    assert count(hidden=hidden, layers=layers) == pytest.approx(millions, abs=5e-3)


@pytest.mark.parametrize(
    "hidden, features, strides, millions",
    [
        (128, (32, 32, 64, 64), (2, 2, 2, 2), 0.84),
        (512, (32, 32, 32, 64, 64, 64, 64, 64), (1, 2, 1, 2, 1, 2, 1, 1), 5.64),
    ],
)
def test_parameter_counts_of_other_cnns(hidden, features, strides, millions):
    fields = {"network": "conv", "layers": 1, "hidden": hidden, "features": features, "strides": strides}
    assert count(**fields) == pytest.approx(millions, abs=5e-3)


# ------------------------------------------------------------------------------------------------------------ bad input


@pytest.mark.parametrize(
    "fields, message",
    [
        ({"network": "cnn"}, "model.network='cnn' is unknown; choose one of mlp, conv"),
        ({"likelihood": "laplace"}, "model.likelihood='laplace' is unknown; choose one of gaussian, bernoulli"),
        ({"latent_dim": 0}, "model.latent_dim=0 must be positive"),
        ({"output_std": 0.0}, "model.output_std=0.0 must be positive"),
        ({"layers": -1}, "model.layers=-1 must be at least 0"),
        ({"strides": (1, 2)}, r"model.features=\(32, .*: use as many positive ones, at least one"),
        ({"features": (2,), "strides": (2,)}, r"model.features=\(2,\) must be multiples of the squares of .*"),
    ],
)
def test_impossible_configs(fields, message):
    with pytest.raises(UserError, match=f"^{message}$"):
        dataclasses.replace(BASE, **fields)
