"""From a model to gradients: every target's mean against the exact answers of the toys of tests/objectives."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree
from scipy.special import softmax

from configs import base
from objcentric import objectives
from objcentric.errors import UserError
from objcentric.models import vrnn
from objcentric.models.model import Model, Sequential, Step, Trace
from objcentric.nn.mlp import MLP
from objcentric.training import targets
from tests.objectives import toys
from tests.objectives.toys import elbo, iwae, landing, wake


@functools.cache
def make_model(name):
    """A toy as a model, and its parameters. Its datum ``x []`` is 0, for the categorical one also 1; 9 cannot be."""
    with jax.enable_x64(True):
        toy = toys.make(name)
    params = jax.tree.map(np.float32, {"generative": toy.theta, "inference": toy.phi})

    def draw(phi, key, x):
        if name == "categorical":
            return jax.random.categorical(key, phi[jnp.minimum(x, 1).astype(int)])
        if name == "mixed":
            choice, key = jax.random.split(key)
            noise = jax.random.bernoulli(choice, jax.nn.sigmoid(phi["logit"])).astype(int), jax.random.normal(key)
        else:
            noise = jax.random.normal(key, (2,)) if name == "hierarchical" else jax.random.normal(key)
        return toy.sample(phi, noise)

    def trace(params, key, x, hparams, *, z=None, pathwise=True):
        theta, phi = params["generative"], params["inference"]
        z = draw(phi, key, x) if z is None else z
        z = z if pathwise else jax.lax.stop_gradient(z)
        at = 3 * jnp.minimum(x, 1).astype(int) + z if name == "categorical" else z
        log_p = jnp.where(x > 5, -jnp.inf, toy.log_p(theta, at))
        outputs = {}
        if name == "categorical":
            outputs["log_likelihood"] = log_p - jax.nn.log_softmax(theta["prior"])[z]
        return Trace(z, log_p, toy.log_q(phi, at), toy.log_q_discrete(phi, at), outputs)

    def generate(params, key, hparams):
        xz = jax.random.categorical(key, toy.log_p(params["generative"], jnp.arange(6)))
        return xz % 3, (xz // 3).astype(jnp.float32)

    return Model(lambda key: params, trace, generate, None), params


def as_sequence(model):
    """Sequences ``x [1]`` of one frame: FIVO of them is IWAE."""

    def step(params, key, state, x, hparams):
        trace = model.trace(params, key, x, hparams)
        densities = trace.log_p, trace.log_q, trace.log_q_discrete
        return Step(state, trace.z, *densities, {"log_likelihood": trace.log_p})

    return Sequential(model, lambda params: (), step, None)


def make_config(name, **fields):
    c = base.objective()
    c.update({"name": name, "num_particles": 2, "baseline_hidden": 3} | fields)
    return c


def uniform(params, key, x, hparams):
    return jax.random.randint(key, (), 0, 3), lambda z, trace: -jnp.log(3.0)


def flat(grads):
    """Of phi, then of theta, as `toys` has them."""
    return np.concatenate([ravel_pytree(grads[part])[0] for part in ("inference", "generative")])


# ------------------------------------------------------------------------------------------------------- mean gradients
K = 2
half, mostly_elbo = toys.groups_of(2), toys.between(0.75)
DELTA = 0.8  # so much that the density of q alone would not do in the mixture's place
by_prior, by_uniform = toys.defended_by(toys.LOG_PRIOR, DELTA), toys.defended_by(-np.log(3), DELTA)
# Name, toy, the exact mean gradients for theta and for phi, and what to set.
CASES = [
    ("elbo", "gaussian", elbo, elbo, {}),
    ("iwae", "gaussian", iwae, iwae, {}),
    ("miwae", "gaussian", half, half, {"num_groups": 2}),
    ("ciwae", "gaussian", mostly_elbo, mostly_elbo, {"beta": 0.75}),
    ("piwae", "gaussian", iwae, half, {"num_groups": 2}),
    ("stl", "gaussian", iwae, landing, {}),
    ("dreg", "gaussian", iwae, iwae, {}),
    ("rws_dreg", "gaussian", iwae, wake, {}),
    ("ww", "gaussian", iwae, wake, {}),
    ("dreg", "hierarchical", iwae, iwae, {}),
    ("reinforce", "mixed", iwae, iwae, {}),
    ("rloo", "mixed", elbo, elbo, {}),
    ("nvil", "mixed", iwae, iwae, {}),
    ("vimco", "mixed", iwae, iwae, {}),
    ("vimco_arithmetic", "mixed", iwae, iwae, {}),
    ("ciwae_vimco", "mixed", mostly_elbo, mostly_elbo, {"beta": 0.75}),
    ("ww", "mixed", iwae, wake, {}),
    ("fivo", "gaussian", iwae, iwae, {}),
    ("fivo", "mixed", iwae, iwae, {}),
    ("fivo, filters of one particle", "mixed", elbo, elbo, {"num_groups": 2}),
    ("ws", "categorical", iwae, toys.sleep, {}),
    ("delta_ww", "categorical", iwae, by_prior, {"delta": DELTA}),
    ("delta_ww of a uniform", "categorical", iwae, by_uniform, {"delta": DELTA, "defensive": uniform}),
]


def value_and_grad(model, name, defensive=None, **fields):
    name = re.match(r"\w+", name)[0]
    c, sequential = make_config(name, **fields), as_sequence(model)
    step = targets.value_and_grad(model, c, defensive=defensive, sequential=sequential)
    frames = (lambda x: x[:, None]) if name in targets.OF_SEQUENCES else lambda x: x
    return lambda params, key, x, hparams: step(params, key, frames(x), hparams)


@functools.cache
def sampled(toy):
    """By name, 20 independent bounds and gradients ``[20, 1 + P]``, each the mean of 2000 data; compiled together."""
    model, params = make_model(toy)
    functions = {name: value_and_grad(model, name, **fields) for name, at, _, _, fields in CASES if at == toy}
    return repeat({name: functools.partial(f, params) for name, f in functions.items()})


def repeat(functions):
    step = jax.jit(lambda key: {name: f(key, jnp.zeros(2000), {}) for name, f in functions.items()})
    runs = [step(key) for key in jax.random.split(jax.random.key(0), 20)]
    return {
        name: np.stack([np.append(np.mean(run[name][0]), flat(run[name][1])) for run in runs]) for name in functions
    }


def deviation(found, toy, theta, phi):
    """Of the mean bound and gradient from the exact ones, in standard errors: the largest."""
    bound, of_theta = theta(toy, K)
    num_phi = toys.num_phi(toy)
    expected = np.concatenate([[bound], phi(toy, K)[1][:num_phi], of_theta[num_phi:]])
    error = found.std(0, ddof=1) / np.sqrt(len(found))
    assert error.max() < 0.01
    return np.max(np.abs(found.mean(0) - expected) / (error + 1e-6))


@pytest.mark.parametrize("name, toy, theta, phi, fields", CASES, ids=[f"{name}, {toy}" for name, toy, *_ in CASES])
def test_mean_gradient(name, toy, theta, phi, fields):
    assert deviation(sampled(toy)[name], toy, theta, phi) < 4


def test_every_target_is_tried():
    assert {re.match(r"\w+", name)[0] for name, *_ in CASES} == {*targets.TARGETS, *targets.OF_SEQUENCES}


@pytest.mark.parametrize("toy", ["gaussian", "mixed", "categorical"])
def test_theta_is_taught_by_iwae_alone(toy):
    """Whatever teaches phi: at the same key the gradient for theta is the same, so all see the same draws of z.

    A particle filter alone draws by keys of its own.
    """
    start = 1 + toys.num_phi(toy)
    names = [name for name, at, theta, *_ in CASES if at == toy and theta is iwae and name != "fivo"]
    found = {name: sampled(toy)[name][:, start:] for name in names}
    assert len(found) > 2
    first, *others = found.values()
    for other in others:
        np.testing.assert_allclose(other, first, rtol=1e-4, atol=1e-6)


def test_piwae_teaches_phi_as_miwae_does():
    num_phi = toys.num_phi("gaussian")
    piwae, miwae = (sampled("gaussian")[name][:, 1 : 1 + num_phi] for name in ("piwae", "miwae"))
    np.testing.assert_allclose(piwae, miwae, rtol=1e-4, atol=1e-6)


def test_the_defensive_density_belongs_to_the_mixtures_own_draw():
    """A model that scores another draw than the one it is given is found out."""
    model, params = make_model("categorical")

    def trace(params, key, x, hparams, *, z=None, pathwise=True):
        right = model.trace(params, key, x, hparams, z=z, pathwise=pathwise)
        return right if z is None else right._replace(log_q=model.trace(params, key, x, hparams).log_q)

    wrong = value_and_grad(model._replace(trace=trace), "delta_ww", delta=DELTA)
    found = repeat({"delta_ww": functools.partial(wrong, params)})["delta_ww"]
    assert deviation(found, "categorical", iwae, by_prior) > 20


# -------------------------------------------------------------------------------------------------------------- batches


@functools.cache
def losses(toy, names):
    """``(x [2], keys [2]) -> {name: ((loss, (bound, traces, aux)), grads)}``."""
    model, params = make_model(toy)

    def one(name, x, keys):
        objective = targets.make(model, make_config(name))
        baseline, aux = objective.init(jax.random.key(0), x[0])
        if aux:
            aux = aux._replace(count=jnp.float32(3.0), mean=jnp.float32(-2.0), square=jnp.float32(4.0))
        everything = params | {"baseline": baseline}
        return jax.value_and_grad(objective.loss, has_aux=True)(everything, x, keys, {}, aux)

    return jax.jit(lambda x, keys: {name: one(name, x, keys) for name in names})


PER_DATUM = ("categorical", ("ww", "ws", "delta_ww", "nvil"))


def test_a_batch_is_the_mean_of_its_data():
    """No weight is normalised over the batch, and no random number depends on the rest of it."""
    step, keys = losses(*PER_DATUM), jax.random.split(jax.random.key(5), 2)
    both = step(jnp.array([0.0, 1.0]), keys)
    first, second = (step(jnp.full(2, float(i)), jnp.stack([keys[i]] * 2)) for i in range(2))
    for name, ((loss, (bound, *_)), grads) in both.items():
        np.testing.assert_allclose(loss, (first[name][0][0] + second[name][0][0]) / 2, rtol=1e-5)
        np.testing.assert_allclose(bound, [first[name][0][1][0][0], second[name][0][1][0][1]], rtol=1e-5)
        expected = jax.tree.map(lambda a, b: (a + b) / 2, first[name][1], second[name][1])
        jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-6), grads, expected)


def test_a_datum_that_no_particle_explains():
    """It teaches nothing; the loss, the gradients and the moving averages of the others stay finite."""
    step, key = losses(*PER_DATUM), jax.random.key(6)
    keys = jnp.stack([key] * 2)
    whole, broken = step(jnp.zeros(2), keys), step(jnp.array([0.0, 9.0]), keys)
    for name, ((loss, (bound, _, aux)), grads) in broken.items():
        assert np.isfinite(loss) and np.isfinite(bound[0]) and bound[1] == -np.inf
        assert all(np.isfinite(leaf) for leaf in jax.tree.leaves(aux))
        parts = ("generative",) if name == "ws" else ("generative", "inference", "baseline")  # dreams go on
        for part in parts:
            expected = jax.tree.map(lambda g: g / 2, whole[name][1][part])
            jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-6), grads[part], expected)


# ------------------------------------------------------------------------------------------------------------ sequences


FILTERS = {"one": (1, 1), "never": (4, 1), "fivo": (4, 1), "groups": (4, 2)}  # K, M
TARGETS = {"never": targets._fivo(objectives.never), "groups": targets._fivo(objectives.always)}


@functools.cache
def filters():
    """Of two sequences of a tiny VRNN: by name, loss, bound, traces and these scored anew; and a gradient of FIVO."""
    config = vrnn.Config(canvas=(2, 3, 1), num_frames=4, latent_dim=2, hidden=3, layers=1, output_std=0.2)
    sequential, rng = vrnn.make(config), np.random.default_rng(0)
    shapes = jax.eval_shape(sequential.model.init, jax.random.key(0))
    params = jax.tree.map(lambda leaf: jnp.asarray(rng.normal(0, 0.7, leaf.shape), jnp.float32), shapes)
    x = jnp.asarray(rng.uniform(size=(2, 4, *config.canvas)), jnp.float32)
    keys = jax.random.split(jax.random.key(1), 2)

    def run(name, params):
        num_particles, num_groups = FILTERS[name]
        with pytest.MonkeyPatch.context() as patch:
            patch.setitem(targets.OF_SEQUENCES, "fivo", TARGETS.get(name, targets.OF_SEQUENCES["fivo"]))
            c = make_config("fivo", num_particles=num_particles, num_groups=num_groups)
            objective = targets.make(sequential.model, c, sequential=sequential)
        return objective.loss(params, x, keys, {}, ())

    @jax.jit
    def everything():
        found = {name: run(name, params) for name in FILTERS if name != "fivo"}
        found["fivo"], grads = jax.value_and_grad(functools.partial(run, "fivo"), has_aux=True)(params)
        z = jnp.concatenate([found[name][1][1].z for name in FILTERS], 1)
        again = targets.trace_particles(sequential.model, params, keys, x, {}, z.shape[1], z)
        ends = np.cumsum([num_particles for num_particles, _ in FILTERS.values()])
        again = [jax.tree.map(lambda leaf, at=at: leaf[:, at], again) for at in map(slice, [0, *ends], ends)]
        results = {name: (loss, bound, traces) for name, (loss, (bound, traces, _)) in found.items()}
        return {name: (*results[name], scored) for name, scored in zip(FILTERS, again, strict=True)}, grads

    return everything()


@pytest.mark.parametrize("name", FILTERS)
def test_the_traces_of_filters(name):
    """They are trajectories: a particle and its ancestors, whose densities are the model's."""
    _, _, traces, again = filters()[0][name]
    assert traces.z.shape == (2, FILTERS[name][0], 4, 2)
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5), traces, again)


@pytest.mark.parametrize("name, of", [("one", objectives.elbo), ("never", objectives.iwae)])
def test_a_filter_that_does_not_resample(name, of):
    """One particle's bound is the ELBO, that of several the IWAE bound, of their own traces."""
    loss, bound, traces, _ = filters()[0][name]
    np.testing.assert_allclose(bound, of(targets.log_w(traces)).bound, rtol=1e-5)
    np.testing.assert_allclose(loss, -np.mean(bound), rtol=1e-5)


@pytest.mark.parametrize("name", ["fivo", "groups"])
def test_a_filter_that_resamples(name):
    """Trajectories share ancestors, within a group alone; bound and gradient are finite, and no longer IWAE's."""
    _, bound, traces, _ = filters()[0][name]
    first = np.asarray(traces.z[:, :, 0, 0]).reshape(2, -1, 2 if name == "groups" else 4)
    assert all(len(set(row)) < len(row) for datum in first for row in datum)
    if name == "groups":
        assert not set(first[0, 0]) & set(first[0, 1])
    assert np.abs(bound - objectives.iwae(targets.log_w(traces)).bound).min() > 1e-3
    leaves = jax.tree.leaves(filters()[1])
    assert all(np.isfinite(leaf).all() for leaf in leaves) and all(np.abs(leaf).max() > 0 for leaf in leaves)


# ---------------------------------------------------------------------------------------------------------------- state


@pytest.mark.parametrize("name", ["reinforce", "nvil"])
def test_the_moving_baseline(name):
    """The first batch only sets it; after that the score's signal is what is left of the bound without it."""
    model, params = make_model("categorical")
    c = make_config(name, decay=0.5)
    objective = targets.make(model, c)
    x = jnp.array([0.0, 1.0, 1.0])
    baseline, moments = objective.init(jax.random.key(0), x[0])
    everything = params | {"baseline": baseline}
    predicted = np.zeros(3)
    if name == "nvil":
        network = MLP((c.baseline_hidden,), 1)
        predicted = np.array([network.apply(baseline, jnp.full(1, at))[0] for at in x])
    q = softmax(params["inference"], axis=-1)[[0, 1, 1], None]

    step = jax.jit(jax.grad(objective.loss, has_aux=True))
    mean, square = 0.0, 0.0
    for i, key in enumerate(jax.random.split(jax.random.key(1), 4)):
        grads, (bound, traces, moments) = step(everything, x, jax.random.split(key, 3), {}, moments)
        residual = np.asarray(bound) - predicted - mean
        scale = max(1.0, np.sqrt(square - mean**2)) if name == "nvil" else 1.0
        weights = softmax(traces.log_p - traces.log_q, axis=-1)
        signal = (residual[:, None] / scale if i else 0.0) - weights  # the bound itself depends on q, too
        of_data = np.sum(signal[..., None] * (np.eye(3)[traces.z] - q), 1) / 3
        np.testing.assert_allclose(grads["inference"], [-of_data[0], -of_data[1] - of_data[2]], rtol=1e-4, atol=1e-6)
        if name == "nvil":
            found = grads["baseline"]["params"]["Dense_1"]["bias"]
            np.testing.assert_allclose(found, [-2 * residual.mean() if i else 0], rtol=1e-4)
        signal, rate = np.asarray(bound) - predicted, max(0.5, 1 / (i + 1))
        mean, square = mean + rate * (signal.mean() - mean), square + rate * ((signal**2).mean() - square)
        np.testing.assert_allclose(moments, [mean, square, i + 1], rtol=1e-5)


def test_without_a_loop_the_baseline_is_a_part_like_the_others():
    """Its gradient is given if it is among the parameters, and not otherwise."""
    model, params = make_model("mixed")
    baseline, _ = targets.make(model, make_config("nvil")).init(jax.random.key(0), jnp.zeros(()))
    gradient = value_and_grad(model, "nvil")
    _, without = jax.eval_shape(gradient, params, jax.random.key(0), jnp.zeros(2), {})
    _, grads = jax.eval_shape(gradient, params | {"baseline": baseline}, jax.random.key(0), jnp.zeros(2), {})
    assert set(without) == {"generative", "inference"} and set(grads) == {*without, "baseline"}


# ------------------------------------------------------------------------------------------------------------ bad input


@pytest.mark.parametrize(
    "fields, message",
    [
        ({"name": "vimko"}, "objective.name='vimko' is unknown: use one of elbo, iwae, .*"),
        ({"name": "fivo"}, "objective.name='fivo' is for models of sequences, and this one is of images: .*"),
        ({"num_particles": 0}, "objective.num_particles=0 must be at least 1"),
        *[
            ({"name": name, "num_particles": 1}, f"objective.name='{name}' compares particles: set .* to 2 or more")
            for name in ("rloo", "vimco", "vimco_arithmetic", "ciwae_vimco")
        ],
        ({"name": "miwae", "num_groups": 3}, "objective.num_groups=3 must divide objective.num_particles=2"),
        ({"name": "piwae", "num_groups": 0}, "objective.num_groups=0 must divide objective.num_particles=2"),
        ({"decay": 1.0}, "objective.decay=1.0 must be in .*"),
        ({"baseline_hidden": 0}, ".*baseline_hidden=0 positive"),
        ({"beta": 1.5}, "objective.beta=1.5 must be in .*"),
        ({"delta": 1.0}, ".*delta=1.0 in .*"),
    ],
    ids=str,
)
def test_a_wrong_config_is_one_line(fields, message):
    with pytest.raises(UserError, match=f"^{message}$") as error:
        targets.make(make_model("gaussian")[0], make_config(**{"name": "iwae"} | fields))
    assert "\n" not in str(error.value)
