"""The mixture's estimators against the model's own traces and exact gradients; the study, cut short and resumed."""

import functools
import itertools
import shutil
import threading

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from configs import base
from configs import gmm as config_module
from experiments import gmm as experiment
from objcentric import objectives
from objcentric.errors import UserError
from objcentric.models import gmm
from objcentric.training import study as study_module
from objcentric.training import targets

NAMES = tuple(experiment.ESTIMATORS)
MODEL = gmm.Config(num_clusters=3, spacing=4.0, std=3.0, hidden=(4,))
K = 2


def make_config(**fields):
    config = config_module.get_config()
    config.update({"num_particles": (K,), "seeds": (0, 1), "num_steps": 4, "num_evaluations": 2, "batch_size": 8})
    config.update({"num_test": 5, "num_gradients": 2, "control_hidden": (4,)} | fields)
    config.model.update(num_clusters=3, spacing=4.0, std=3.0, hidden=(4,))
    return config


CONFIG = make_config()
PROBLEM = experiment.Problem(CONFIG, MODEL, K)


@functools.cache
def make_params():
    """Parameters that are far from any symmetry."""
    rng = np.random.default_rng(0)
    shapes = jax.eval_shape(gmm.make(MODEL).init, jax.random.key(0))
    return jax.tree.map(lambda leaf: jnp.asarray(rng.normal(0, 1, leaf.shape), jnp.float32), shapes)


def make_control(name):
    if name not in experiment.CONTROLS:
        return ()
    if name == "rebar":
        return {"log_temperature": jnp.array(-0.3), "scale": jnp.array(0.8)}
    return jax.jit(experiment.CONTROLS[name], static_argnums=1)(jax.random.key(1), (4, 4, 1))


def flatten(gradients):
    return ravel_pytree(gradients)[0]


def test_every_estimator_has_a_name():
    assert experiment.LABELS.keys() == experiment.ESTIMATORS.keys()
    assert len(set(experiment.LABELS.values())) == len(NAMES)


# ------------------------------------------------------------------------------------------- against the model's trace


def fixed_draws(monkeypatch, *draws):
    """`gmm.draw` returns these, one after the other."""
    queue = itertools.chain(draws)
    monkeypatch.setattr(gmm, "draw", lambda key, log_p, num: next(queue))


def of_targets(name, params, keys, x, model):
    """Gradients, to ascend, and draws ``[B, K]``, of training/targets.py."""
    c = base.objective()
    c.update({"name": name, "num_particles": K, "delta": CONFIG.delta})
    uniform = lambda params, key, x, hparams: (0, lambda z, trace: -jnp.log(3.0))  # noqa: E731
    objective = targets.make(model, c, defensive=uniform)
    moments = objectives.Moments(jnp.zeros(()), jnp.zeros(()), jnp.ones(()))  # those of a baseline of 0
    aux = moments if name == "reinforce" else ()
    loss = jax.jit(jax.grad(objective.loss, has_aux=True))
    gradients, (_, traces, _) = loss(params | {"baseline": {}}, x, keys, {}, aux)
    return jax.tree.map(jnp.negative, {part: gradients[part] for part in params}), traces.z


@pytest.mark.parametrize("name", ["ww", "delta_ww", "ws", "vimco", "reinforce"])
def test_gradients_are_those_of_the_traces(name, monkeypatch):
    """What is looked up in tables is what the glue makes of the model, for the same draws."""
    params = make_params()
    x = jnp.array([-1.0, 3.0, 5.0, 9.0, 12.0, 4.0])
    keys = jax.random.split(jax.random.key(5), x.size)
    dream_z, dream_x = 2, 6.5
    model = gmm.make(MODEL)._replace(generate=lambda params, key, hparams: (jnp.array(dream_z), jnp.array(dream_x)))
    monkeypatch.setattr(objectives, "defend", lambda key, z, z_defensive, *, delta: z)
    expected, z = of_targets(name, params, keys, x, model)
    assert len(np.unique(z)) == 3

    fixed_draws(monkeypatch, z, jnp.full(x.size * K, dream_z) if name == "ws" else z)
    monkeypatch.setattr(gmm, "draw_x", lambda model, key, z: jnp.full(z.shape, dream_x))
    estimate = jax.jit(functools.partial(experiment.gradients, experiment.ESTIMATORS[name](PROBLEM)))
    gradients, _ = estimate(params, (), jax.random.key(0), x, 1.0)
    np.testing.assert_allclose(flatten(gradients), flatten(expected), rtol=1e-4, atol=1e-6)
    assert np.abs(flatten(expected)).max() > 0.01


# --------------------------------------------------------------------------------------------- against exact gradients


def tables(params, x):
    log_p, log_q = experiment.densities(MODEL, params, jnp.full(1, x))
    return log_p[0], log_q[0]


ALL = np.array(list(itertools.product(range(3), repeat=K)))  # every draw of K particles


def exact(name, params, x):
    """What an estimator's gradient is on average, by enumeration of all draws."""
    stop = jax.lax.stop_gradient

    def bound(params, draw_probability):
        log_p, log_q = tables(params, x)
        log_w = (log_p - log_q)[ALL]
        return draw_probability(log_q) @ (jax.nn.logsumexp(log_w, axis=-1) - np.log(K))

    def probability(log_q):
        return jnp.exp(log_q[ALL].sum(-1))

    def wake(params, log_proposal):
        log_p, log_q = tables(params, x)
        proposal = stop(log_proposal(log_q))
        weights = jax.nn.softmax(stop(log_p)[ALL] - proposal[ALL], axis=-1)
        return jnp.exp(proposal[ALL].sum(-1)) @ jnp.sum(weights * log_q[ALL], axis=-1)

    def sleep(params):
        grid = jnp.linspace(-20, 30, 501)
        joint = stop(jax.vmap(lambda x: tables(params, x)[0])(grid))
        log_q = jax.vmap(lambda x: tables(params, x)[1])(grid)
        return jnp.trapezoid(jnp.sum(jnp.exp(joint) * log_q, axis=-1), grid)

    phi = {
        "ww": lambda params: wake(params, lambda log_q: log_q),
        "delta_ww": lambda params: wake(params, lambda log_q: jnp.log(0.8 * jnp.exp(log_q) + 0.2 / 3)),
        "ws": sleep,
    }.get(name, lambda params: bound(params, probability))
    theta = jax.grad(lambda params: bound(params, lambda log_q: stop(probability(log_q))))(params)
    return {"generative": theta["generative"], "inference": jax.grad(phi)(params)["inference"]}


@pytest.mark.parametrize("name", ["ws", "ww", "delta_ww", "vimco", "reinforce", "relax", "rebar"])
def test_mean_gradient_against_enumeration(name):
    params, control, x = make_params(), make_control(name), 3.0
    surrogate = experiment.ESTIMATORS[name](PROBLEM)

    @jax.jit
    def estimate(keys):
        def one(key):
            return flatten(experiment.gradients(surrogate, params, control, key, jnp.full(8, x), 1.0)[0])

        return jax.vmap(one)(keys)

    estimates = np.float64(estimate(jax.random.split(jax.random.key(6), 2000)))
    error = estimates.mean(0) - flatten(jax.jit(lambda params: exact(name, params, x))(params))
    standard_error = estimates.std(0) / np.sqrt(len(estimates))
    assert (np.abs(error) < 4.2 * standard_error + 1e-6).all()
    assert standard_error.max() < 0.02


def test_a_control_variate_learns_to_lower_the_variance():
    """Its gradient is that of the square of phi's."""
    params, control, x = make_params(), make_control("relax"), jnp.full(1, 3.0)
    surrogate = experiment.ESTIMATORS["relax"](PROBLEM)
    flat, unravel = ravel_pytree(control)

    @jax.jit
    def square_and_descent(flat):
        def one(key):
            gradient, descent = experiment.gradients(surrogate, params, unravel(flat), key, x, 1.0)
            return (
                jnp.sum(jnp.square(flatten(gradient["inference"]))),
                flatten(descent),
                flatten(gradient["generative"]),
            )

        return jax.vmap(one)(jax.random.split(jax.random.key(7), 500))

    square, descent, theta = square_and_descent(flat)
    direction = descent.mean(0) / jnp.linalg.norm(descent.mean(0))
    after, _, theta_after = square_and_descent(flat - 0.05 * direction)
    before, _, _ = square_and_descent(flat + 0.05 * direction)
    slope = (before.mean() - after.mean()) / 0.1
    np.testing.assert_allclose(slope, jnp.linalg.norm(descent.mean(0)), rtol=0.05)
    np.testing.assert_allclose(theta, theta_after, rtol=1e-4, atol=1e-6)  # which has nothing of it


@pytest.mark.parametrize("name", ["concrete", "dvae", "dvaepp"])
def test_the_evidence_of_relaxed_models_does_not_depend_on_q(name):
    """With many particles the bound is log p(x): draws, and densities of p and q, belong together."""
    problem = PROBLEM._replace(num_particles=20_000)
    surrogate = experiment.ESTIMATORS[name](problem)
    params = make_params()
    params["generative"] = {"theta": jnp.array([0.5, 0.0, -0.3])}

    @jax.jit
    @jax.value_and_grad
    def evidence(bias, key):
        layers = [{"kernel": jnp.zeros((1, 3)), "bias": bias}]
        return jnp.mean(surrogate(params | {"inference": layers}, (), key, jnp.array([2.0, 6.0]), 0.8))

    biases = np.float32([[0.5, 0.0, -0.3], [0.0, 0.5, 0.0]])
    (value, _), (other, gradient) = (evidence(bias, jax.random.key(i)) for i, bias in enumerate(biases))
    np.testing.assert_allclose(value, other, atol=0.05)
    # Nor does its gradient say otherwise, but for DVAE: the path does not tell what leaves the atom at 0.
    assert np.isfinite(gradient).all() and (np.abs(gradient).max() < 0.1) == (name != "dvae")


def test_the_temperature_falls_linearly():
    c = make_config(num_steps=100, num_evaluations=1)
    temperatures = [experiment.temperature(c, step) for step in (0, 50, 100)]
    np.testing.assert_allclose(temperatures, [3.0, 1.75, 0.5])


# ---------------------------------------------------------------------------------------------------------- evaluation


def test_errors_and_gradient_std(monkeypatch):
    """An estimate of each element of phi's gradient that is N(0, 9)."""

    def noise(problem):
        def surrogate(params, control, key, x, temperature):
            flat = flatten(params["inference"])
            return jnp.full(x.shape, 3.0 * flat @ jax.random.normal(key, flat.shape))

        return surrogate

    monkeypatch.setitem(experiment.ESTIMATORS, "ww", noise)
    c = make_config(num_gradients=200, num_test=7, test_seed=3)
    setting = experiment.Setting("far", "ww", K)
    state = experiment.init_state(c, setting)
    found = experiment.make_programs(c, setting).evaluate(state, 0)

    @jax.jit
    def draw_x(keys):
        return gmm.draw_x(MODEL, keys[1], gmm.draw(keys[0], gmm.true_log_prior(MODEL), 7))

    true_prior = np.arange(5, 8) / 18
    x = draw_x(jax.random.split(jax.random.key(3)))
    densities = jax.jit(functools.partial(experiment.densities, MODEL))
    for s in range(2):
        params = jax.tree.map(lambda leaf, s=s: leaf[s], state.params)
        prior = np.exp(-2.0 * np.arange(3))
        prior /= prior.sum()
        np.testing.assert_allclose(found.prior[s], prior, rtol=1e-4)
        np.testing.assert_allclose(found.p_error[s], np.linalg.norm(prior - true_prior), rtol=1e-4)
        posterior = true_prior * np.exp(-0.5 * ((np.asarray(x)[:, None] - 4 * np.arange(3)) / 3) ** 2)
        posterior /= posterior.sum(1, keepdims=True)
        q = np.exp(densities(params, x)[1])
        np.testing.assert_allclose(found.q_error[s], np.linalg.norm(q - posterior, axis=1).mean(), rtol=1e-4)
        np.testing.assert_allclose(found.posterior[s], np.exp(densities(params, 4.0 * np.arange(3))[1]), rtol=1e-4)
    np.testing.assert_allclose(found.gradient_std, 3.0, rtol=0.05)


# -------------------------------------------------------------------------------------------------------- the study


def run(config, folder):
    folder.mkdir(exist_ok=True)
    return experiment.study(config, folder)


SMALL = {"estimators": ("ww",), "num_steps": 60, "learning_rate": 0.05, "batch_size": 50}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("gmm")
    config = make_config(**SMALL, num_particles=(2, 3))
    return config, folder, run(config, folder)


def test_a_study(whole):
    config, folder, result = whole
    assert isinstance(result, study_module.Result) and result.steps == 60
    assert list(result.per_seed) == [0, 1]
    names = {
        f"far/{estimator}/{k}/{quantity}"
        for estimator, k, quantity in itertools.product(("ww",), (2, 3), experiment.QUANTITIES)
    }
    assert all(
        figures.keys() == names and np.isfinite(list(figures.values())).all() for figures in result.per_seed.values()
    )
    assert result.pictures.keys() == {"training_far", "hinton_far", "final"}
    with np.load(folder / "parts" / "far_ww_3.npz") as part:
        assert part["step"].tolist() == [0, 30, 60]
        assert part["p_error"].shape == (3, 2) and part["posterior"].shape == (3, 2, 3, 3)
        learnt = part["p_error"][-1]
        assert (learnt < part["p_error"][0] - 0.1).all()  # p(z) has moved towards the truth
        assert result.per_seed[1]["far/ww/3/p_error"] == learnt[1]
    table = (folder / "table.md").read_text()
    medians = np.median([figures["far/ww/2/q_error"] for figures in result.per_seed.values()])
    assert f"| WW | {medians:.3f} (" in table and "K = 3" in table


def test_a_seed_does_not_depend_on_the_others(whole):
    config, _, result = whole
    alone = make_config(**SMALL, seeds=(1,))
    part = experiment.train(alone, experiment.Setting("far", "ww", 2), threading.Event())
    np.testing.assert_allclose(part["p_error"][-1, 0], result.per_seed[1]["far/ww/2/p_error"], rtol=1e-3)


def test_what_is_finished_is_not_done_again(whole, tmp_path, monkeypatch):
    config, folder, result = whole
    (tmp_path / "parts").mkdir()
    shutil.copy(folder / "parts" / "far_ww_2.npz", tmp_path / "parts")
    trained, train = [], experiment.train
    monkeypatch.setattr(
        experiment, "train", lambda c, setting, stop: trained.append(setting) or train(c, setting, stop)
    )
    again = run(config, tmp_path)
    assert trained == [("far", "ww", 3)]
    assert again.per_seed == result.per_seed


def test_a_failure_loses_nothing_that_is_finished(tmp_path, monkeypatch):
    config = make_config(estimators=("ww", "vimco"))
    monkeypatch.setattr(experiment, "num_workers", lambda: 1)

    def train(c, setting, stop):
        if setting.estimator == "vimco":
            raise KeyboardInterrupt
        return {"p_error": np.zeros((3, 2))}

    monkeypatch.setattr(experiment, "train", train)
    with pytest.raises(KeyboardInterrupt):
        run(config, tmp_path)
    assert [path.name for path in (tmp_path / "parts").iterdir()] == ["far_ww_2.npz"]
    assert experiment.load(config, experiment.Setting("far", "ww", 2), tmp_path)["p_error"].shape == (3, 2)


def test_training_stops_when_asked():
    stop = threading.Event()
    stop.set()
    with pytest.raises(experiment.CancelledError):
        experiment.train(make_config(), experiment.Setting("near", "ww", 2), stop)


def test_parts_of_another_config_are_refused(whole):
    config, folder, _ = whole
    other = config.copy_and_resolve_references()
    other.learning_rate = 0.5
    with pytest.raises(UserError, match="far_ww_2.npz was trained with learning_rate=0.05, not 0.5: choose another"):
        run(other, folder)


@pytest.mark.parametrize("length", [0, 1000])
def test_a_part_that_was_cut_off_is_named(whole, tmp_path, length):
    config, folder, _ = whole
    (tmp_path / "parts").mkdir()
    content = (folder / "parts" / "far_ww_2.npz").read_bytes()
    (tmp_path / "parts" / "far_ww_2.npz").write_bytes(content[:length])
    with pytest.raises(UserError, match="far_ww_2.npz cannot be read .*: remove it"):
        run(config, tmp_path)


# ------------------------------------------------------------------------------------------------------- the orderings


def as_the_thesis_has_it():
    """Made-up figures of every setting, of which the thesis' text is true; 3 seeds."""
    ranks = {  # at far and near starts; the worst ones last
        "far": ("delta_ww", "ww", "ws", "vimco", "reinforce", "relax", "rebar", "concrete", "dvae", "dvaepp"),
        "near": ("ws", "delta_ww", "ww", "vimco", "reinforce", "relax", "rebar", "concrete", "dvae", "dvaepp"),
    }
    std = ("vimco", "ws", "ww", "delta_ww", "reinforce", "relax", "rebar", "concrete", "dvae", "dvaepp")
    final = {}
    for initial, k, name in itertools.product(ranks, (2, 5, 20), NAMES):
        grows = 1 if name in ("reinforce", "relax", "concrete", "vimco") else -1
        error = 1 + ranks[initial].index(name) + grows * k / 100
        figures = {"p_error": error, "q_error": error, "gradient_std": 1.0 + std.index(name)}
        setting = experiment.Setting(initial, name, k)
        final[setting] = {name: np.array([0.0, value, 100.0]) for name, value in figures.items()}
    return final


def said(final):
    lines = experiment.table(final).split("#### What the thesis says of these medians\n\n")[1].splitlines()
    return dict(line.removeprefix("- ").rsplit(": ", 1) for line in lines)


def test_what_the_thesis_says_of_its_own_figures_holds():
    # Quantities times pairs: for instance two errors of one estimator and its 9 rivals.
    assert said(as_the_thesis_has_it()) == {
        "far, K = 2: \u03b4-WW is the best": "18 of 18",
        "far, K = 20: WW and \u03b4-WW are the best": "32 of 32",
        "far: WW is better than WS": "6 of 6",
        "far: more particles help WS and WW": "8 of 8",
        "far: REINFORCE, RELAX and Concrete learn a worse p with K = 20 than with 2": "3 of 3",
        "far: WS and WW have gradients of less variance than REINFORCE and RELAX": "12 of 12",
        "far: DVAE and DVAE++ are the worst": "96 of 96",
        "near: WS is the best": "54 of 54",
        "near: VIMCO has the gradient of the least variance": "27 of 27",
        "near: more particles harm VIMCO's q": "2 of 2",
    }


def test_what_does_not_hold_is_named():
    final = as_the_thesis_has_it()
    final = {setting: figures for setting, figures in final.items() if setting.estimator in ("ws", "ww")}
    final["far", "ww", 5]["q_error"] = np.array([50.0, 50.0, 0.0])
    assert said(final) == {
        "far, K = 20: WW and \u03b4-WW are the best": "2 of 2",
        "far: WW is better than WS": "5 of 6; not q_error of far/ww/5 < far/ws/5",
        "far: more particles help WS and WW": "7 of 8; not q_error of far/ww/5 < far/ww/2",
        "near: WS is the best": "6 of 6",
    }


# --------------------------------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize(
    "fields, message",
    [
        ({"estimators": ("ww", "best")}, r"estimators=\('ww', 'best'\): use some of ws, ww, delta_ww"),
        ({"estimators": ()}, r"estimators=\(\): use some of"),
        ({"initial": ("close",)}, r"initial=\('close',\): use some of far, near"),
        ({"num_particles": (1, 2)}, r"num_particles=\(1, 2\): use one or more different numbers from 2 \('vimco'"),
        ({"seeds": (1, 1)}, r"seeds=\(1, 1\): use one or more different numbers from 0"),
        ({"num_evaluations": 3}, "num_evaluations=3 must divide num_steps=4"),
        ({"num_gradients": 1}, "num_gradients=1: use at least 2"),
        ({"delta": 1.0}, r"delta=1.0 in \[0, 1\)"),
        ({"temperature": (3.0, 0.0)}, r"temperature=\(3.0, 0.0\)"),
        ({"temperature": (3.0,)}, r"temperature=\(3.0,\): use two positive numbers"),
        ({"control_hidden": ()}, r"control_hidden=\(\) one or more positive widths"),
    ],
)
def test_errors_in_the_config(fields, message, tmp_path):
    with pytest.raises(UserError, match=message):
        experiment.study(make_config(**fields), tmp_path)
    assert not (tmp_path / "parts").exists()


def test_one_particle_is_enough_without_vimco():
    experiment.check(make_config(estimators=("ww", "ws"), num_particles=(1,)))
