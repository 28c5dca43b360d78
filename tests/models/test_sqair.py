"""SQAIR against itself written a second time, exact sums over choices, its prior, identities, what must not matter."""

import dataclasses
import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend.core import jaxprs_in_params
from scipy import stats
from scipy.special import expit

from benchmarks.air_step import count_flops
from objcentric.errors import UserError
from objcentric.models import sqair
from objcentric.models.model import Trace
from tests.models import air_by_hand
from tests.models import sqair_by_hand as by_hand
from tests.models.test_air import filled, row

HPARAMS = {"presence_prior": 0.3, "rediscovery_factor": 0.8, "presence_margin": 0.01}
HPARAMS = {name: jnp.float32(value) for name, value in HPARAMS.items()}
BASE = sqair.Config(
    canvas=(9, 11, 1),
    num_objects=3,
    glimpse_size=(4, 5),
    what_dim=2,
    hidden=6,
    num_frames=4,
    object_size=(4.0, 3.0),
    reach=1.3,
    motion="velocity",
    propagation_bias=3.0,
)
CONV = {
    "network": "conv",
    "encoder_features": (2, 3),
    "encoder_strides": (2, 1),
    "decoder_features": (3, 2),
    "decoder_strides": (1, 2),
    "decoder_hidden": 5,
    "glimpse_size": (4, 6),
    "motion": "position",
    "centred": False,
    "shared_statistics": False,
    "discovery_prior": "learned",
    "one_discovery_table": True,
}
RELEASE = {"motion": "position", "discovery_prior": "learned"}
LEARNED = RELEASE | {"num_objects": 2, "likelihood": "bernoulli", "object_size": (4.0,)}
CONFIGS = {
    "annealed": BASE,
    "learned": dataclasses.replace(BASE, canvas=(8, 7, 3), **LEARNED),
    "conv": dataclasses.replace(BASE, num_objects=2, **CONV),
}
ONLY_RELEASED = {"where_prior": "learned", "mean_image": True, "decoder_scale": 0.25, "proposal_mask": True}
CONFIGS["released"] = dataclasses.replace(BASE, **RELEASE, **ONLY_RELEASED, truncated_discovery=False)
CONFIGS["random"] = dataclasses.replace(CONFIGS["learned"], propagation_order="random")
DRAWS = 200


@functools.cache
def setup(name):
    """The model, parameters with which objects come and go, and a sequence of four frames."""
    config = CONFIGS[name]
    sequential = sqair.make(config)
    rng = np.random.default_rng(0)
    params = filled(sequential.model, lambda shape: rng.normal(0, 0.3 if len(shape) < 2 else shape[-2] ** -0.5, shape))
    for part, net in (("inference", "presence"), ("generative", "dynamics_statistics")):
        bias = params[part][net]["params"]["Dense_1"]["bias"]
        params[part][net]["params"]["Dense_1"]["bias"] = bias.at[-1].add(-2.5)
    return sequential, params, jnp.asarray(rng.uniform(size=(4, *config.canvas)).round(1), jnp.float32)


@functools.cache
def tracer(name):
    """``model.trace`` of (params, keys, x), jitted once for each length of x; of a batch of keys."""
    model = setup(name)[0].model
    return jax.jit(jax.vmap(lambda params, key, x: model.trace(params, key, x, HPARAMS), (None, 0, None)))


@functools.cache
def scorer(name):
    """``model.trace`` of (params, x, z), jitted once."""
    model = setup(name)[0].model
    return jax.jit(lambda params, x, z: model.trace(params, jax.random.key(99), x, HPARAMS, z=z))


@functools.cache
def stepper(name):
    """``step`` of (params, keys, state, x_t), jitted once; of a batch of keys and states."""
    step = setup(name)[0].step
    return jax.jit(jax.vmap(lambda *args: step(*args, HPARAMS), (None, 0, 0, None)))


@functools.cache
def scoring_stepper(name):
    """``step`` of (params, state, x_t, z), jitted once; of 64 z."""
    step = setup(name)[0].step

    def score(params, state, x, z):
        return step(params, jax.random.key(99), state, x, HPARAMS, z=z)

    return jax.jit(jax.vmap(score, (None, None, None, 0)))


@functools.cache
def generator(name):
    """``generate`` and ``render`` of (params, keys, presence_prior), jitted once; of 3000 keys."""
    model = setup(name)[0].model

    def generate(params, key, presence_prior):
        z, x = model.generate(params, key, HPARAMS | {"presence_prior": presence_prior})
        return z, x, model.render(params, z)

    return jax.jit(jax.vmap(generate, (None, 0, None)))


def keys():
    return jax.random.split(jax.random.key(1), DRAWS)


@functools.cache
def draw(name):
    """Traces, among which everything in `happened` does happen."""
    _, params, x = setup(name)
    traces = jax.device_get(tracer(name)(params, keys(), x))
    for event, there in happened(traces).items():
        assert there.any(), event
    return traces


def happened(traces):
    """In which traces ``[K]`` each event takes place."""
    before, kept, new, now = presence(traces)
    slots = now.shape[-1]
    full = (before.sum(-1) == slots) & (kept.sum(-1) == slots)
    return {
        "nothing is ever there": (now == 0).all((1, 2)),
        "an object leaves, and nothing takes its slot": ((before > kept) & (now == 0)).any((1, 2)),
        "a slot is freed and refilled in the same frame": ((before > kept) & (new == 1)).any((1, 2)),
        "a frame is full, and stays full": full.any(1),
        "an object joins another one": ((kept.sum(-1) > 0) & (new.sum(-1) > 0)).any(1),
        "the first of several objects leaves": ((before[..., 0] > kept[..., 0]) & (kept.sum(-1) > 0)).any(1),
    }


def presence(traces):
    """``[K, T, N]`` in the frame before, after propagation, of new objects, and in the frame."""
    kept, new = traces.z.propagated.presence, traces.z.discovered.presence
    now = kept + new
    return np.concatenate([np.zeros_like(now[:, :1]), now[:, :-1]], 1), kept, new, now


def one_of_each_event(name):
    return [row(draw(name), np.argmax(there)) for there in happened(draw(name)).values()]


# ----------------------------------------------------------------------------------------------------------- densities


@pytest.mark.parametrize("name", ["annealed", "learned", "conv", "released"])
def test_densities_by_hand(name):
    """Of every event: log p(x, z), log q(z | x) and the image means equal those of the second implementation."""
    _, params, x = setup(name)
    for trace in [convolutional()[0]] if name == "conv" else one_of_each_event(name):
        expected = by_hand.densities(CONFIGS[name], params, x, 0.3, 0.8, trace.z)
        ours = trace.log_p, trace.log_q, trace.log_q_discrete, trace.outputs["mean"]
        for value, exact in zip(ours, expected, strict=True):
            np.testing.assert_allclose(value, exact, rtol=5e-5, atol=5e-4)


@functools.cache
def convolutional():
    """A trace in which objects are found, joined and lost; and the gradient of its log p, pathwise."""
    sequential, params, x = setup("conv")

    @jax.jit
    @functools.partial(jax.grad, has_aux=True)
    def gradient(params, key):
        trace = sequential.model.trace(params, key, x, HPARAMS)
        return trace.log_p, trace

    for key in keys():
        slope, trace = jax.device_get(gradient(params, key))
        events = happened(jax.tree.map(lambda leaf: leaf[None], trace))
        if events["an object joins another one"] and events["an object leaves, and nothing takes its slot"]:
            return trace, slope
    raise AssertionError("no such trace")


def test_scoring_what_was_drawn():
    """Gives the same densities; and one at a time the same as in a batch."""
    _, params, x = setup("annealed")
    for trace in one_of_each_event("annealed"):
        again = scorer("annealed")(params, x, trace.z)
        for drawn, scored in zip(jax.tree.leaves(trace), jax.tree.leaves(again), strict=True):
            np.testing.assert_allclose(scored, drawn, rtol=1e-4, atol=1e-3)


def states():
    """Before the first frame, and with some or all slots taken."""
    sequential, params, _ = setup("annealed")
    start, rng = sequential.start(params), np.random.default_rng(1)
    random = jax.tree.map(lambda leaf: jnp.asarray(rng.normal(0, 0.5, leaf.shape), jnp.float32), start)
    later = [
        start._replace(
            objects=random.objects._replace(presence=jnp.float32(vector)),
            identity=jnp.where(jnp.array(vector) > 0, jnp.arange(3), -1),
            found=jnp.int32(3),
            velocity=random.velocity,
            temporal=random.temporal,
            dynamics=random.dynamics,
            first=jnp.zeros(()),
        )
        for vector in ([0, 1, 0], [1, 0, 1], [1, 1, 1])
    ]
    return [start, *later]


def choices(state):
    """Every choice of one frame, whatever where and what are: the scored steps of those that are possible."""
    _, params, x = setup("annealed")
    before, vectors = np.asarray(state.objects.presence), np.float32(list(itertools.product((0, 1), repeat=6)))
    kept, new = vectors[:, :3], vectors[:, 3:]
    rng = np.random.default_rng(2)
    z = jax.tree.map(lambda leaf: rng.normal(0, 0.3, leaf.shape), sqair.Frame(state.objects, state.objects))
    z = jax.tree.map(lambda leaf: np.broadcast_to(np.float32(leaf), (64, *leaf.shape)), z)
    z = sqair.Frame(z.propagated._replace(presence=kept), z.discovered._replace(presence=new))
    steps = jax.device_get(scoring_stepper("annealed")(still(params), state, x[1], z))
    # An object is propagated that was there, and new ones take the first slots that are free.
    first_free = (1 - kept) * (np.cumsum(1 - kept, -1) <= new.sum(-1, keepdims=True))
    possible = (kept <= before).all(-1) & (new == first_free).all(-1)
    return row(steps, possible)


def still(params):
    """Objects of the prior then move by N(0, 0.301), and leave with a probability that is always the same."""
    params = jax.tree.map(jnp.asarray, params)  # a copy to change
    layer = params["generative"]["dynamics_statistics"]["params"]["Dense_1"]
    layer["kernel"] = jnp.zeros_like(layer["kernel"])
    layer["bias"] = jnp.zeros_like(layer["bias"]).at[-1].set(-3.0)  # and + 4, its initial bias
    return params


STAYS = air_by_hand.presence_probability(1.0)


@pytest.mark.parametrize("state, number", list(enumerate([4, 4 + 3, 4 + 2 * 3 + 2, 4 + 3 * 3 + 3 * 2 + 1])))
def test_choices_of_a_frame_sum_to_one(state, number):
    """Under q, and under p with the density of where and what, the same for all choices, taken out."""
    state = states()[state]
    steps = choices(state)
    assert len(steps.log_p) == number
    assert np.exp(np.float64(steps.log_q_discrete)).sum() == pytest.approx(1, abs=1e-5)

    before, kept, new = np.asarray(state.objects.presence), steps.z.propagated.presence, steps.z.discovered.presence
    old, born = steps.z.propagated, steps.z.discovered
    moves = stats.norm(0, 0.301).logpdf(old.where - np.asarray(state.objects.where)).sum(-1)
    moves += stats.norm(0, 0.301).logpdf(old.what - np.asarray(state.objects.what)).sum(-1)
    appears = stats.norm(air_by_hand.where_loc(BASE), [0.3, 0.3, 1.0, 1.0]).logpdf(born.where).sum(-1)
    appears += stats.norm().logpdf(born.what).sum(-1)
    continuous = (before * moves).sum(-1) + (new * appears).sum(-1)
    p = np.exp(np.float64(steps.log_p) - steps.outputs["log_likelihood"] - continuous)
    assert p.sum() == pytest.approx(1, abs=1e-4)
    staying = STAYS ** kept.sum(-1) * (1 - STAYS) ** (before.sum() - kept.sum(-1))
    success = 0.3 if state.first else 0.3 * HPARAMS["rediscovery_factor"]
    powers = np.cumsum(success ** np.arange(4))[np.int32(3 - kept.sum(-1))]  # eq. 5.8: of at most N - P_t
    np.testing.assert_allclose(p, staying * success ** new.sum(-1) / powers, rtol=1e-3)


def test_nothing_is_discovered_in_a_full_frame():
    """If all N objects are propagated, neither p nor q has a choice of new ones."""
    steps = choices(states()[-1])
    full = steps.z.propagated.presence.all(-1)
    assert full.sum() == 1 and not steps.z.discovered.presence[full].any()
    probability = steps.outputs["presence_prob"][full][0]
    np.testing.assert_allclose(steps.log_q_discrete[full][0], np.log(probability).sum(), rtol=1e-5)


@pytest.mark.parametrize("name", ["annealed", "learned"])
def test_at_most_n_objects(name):
    before, kept, new, now = presence(draw(name))
    assert set(np.unique(now)) == {0.0, 1.0}  # no slot holds two
    assert (kept <= before).all()
    free = 1 - kept
    np.testing.assert_array_equal(
        new, free * (np.cumsum(free, -1) <= new.sum(-1, keepdims=True))
    )  # the first free ones
    assert not kept[:, 0].any()
    objects = draw(name).outputs["objects"]
    np.testing.assert_array_equal(objects.presence, now)
    for field in (objects.where, objects.what):
        np.testing.assert_array_equal((field != 0).all(-1), now == 1)  # free slots hold nothing


def test_free_slots_do_not_matter():
    """Not to any density nor image: where and what of what was not there before, or is not new."""
    _, params, x = setup("annealed")
    for trace in one_of_each_event("annealed"):
        there = relevant(trace)
        other = jax.tree.map(lambda z, there: np.where(there, z, np.float32(0.7)), continuous(trace.z), there)
        again = scorer("annealed")(params, x, with_presence(other, trace.z))
        for field in ("log_p", "log_q", "log_q_discrete"):
            np.testing.assert_allclose(getattr(again, field), getattr(trace, field), rtol=1e-4, atol=1e-3)
        np.testing.assert_allclose(again.outputs["mean"], trace.outputs["mean"], atol=1e-5)


def continuous(z):
    return {kind: {name: getattr(objects, name) for name in ("where", "what")} for kind, objects in z._asdict().items()}


def with_presence(continuous, z):
    return sqair.Frame(**{kind: getattr(z, kind)._replace(**fields) for kind, fields in continuous.items()})


def relevant(trace):
    """The elements of `continuous` z that anything may depend on: bool."""
    before, _, new, _ = presence(jax.tree.map(lambda leaf: leaf[None], trace))
    there = {"propagated": before[0], "discovered": new[0]}
    return {
        kind: {name: np.broadcast_to(there[kind][..., None] > 0, leaf.shape) for name, leaf in fields.items()}
        for kind, fields in continuous(trace.z).items()
    }


@functools.cache
def slope():
    """The derivatives of log p, log q and the means, in a direction of the parameters and of where and what."""
    sequential, params, x = setup("annealed")

    def score(z, params, continuous):
        trace = sequential.model.trace(params, jax.random.key(0), x, HPARAMS, z=with_presence(continuous, z))
        return trace.log_p, trace.log_q, trace.outputs["mean"]

    @jax.jit
    def slope(z, params_direction, direction):
        return jax.jvp(functools.partial(score, z), (params, continuous(z)), (params_direction, direction))[1]

    return slope


def direction(tree):
    rng = np.random.default_rng(3)
    return jax.tree.map(lambda leaf: rng.normal(size=leaf.shape).astype(np.float32), tree)


def test_nothing_is_learnt_about_free_slots():
    _, params, _ = setup("annealed")
    zeros = jax.tree.map(np.zeros_like, params)
    for trace in one_of_each_event("annealed"):
        there = relevant(trace)
        anywhere = direction(there)
        for along in slope()(trace.z, zeros, jax.tree.map(lambda d, there: np.where(there, 0, d), anywhere, there)):
            np.testing.assert_array_equal(along, 0)
        along = slope()(trace.z, zeros, anywhere)
        assert all(np.any(each) == any(map(np.any, jax.tree.leaves(there))) for each in along)


# ------------------------------------------------------------------------------------------------------------ identity


@pytest.mark.parametrize("name", ["annealed", "learned"])
def test_identities(name):
    """They persist with an object, are new for a new one, count up by order, and are -1 in free slots."""
    traces = draw(name)
    before, kept, new, now = presence(traces)
    for k, identity in enumerate(traces.outputs["identity"]):
        found = 0
        for t, slots in enumerate(identity):
            np.testing.assert_array_equal(slots == -1, now[k, t] == 0)
            stayed, came = kept[k, t] == 1, new[k, t] == 1
            if t:
                np.testing.assert_array_equal(slots[stayed], identity[t - 1][stayed])
            np.testing.assert_array_equal(slots[came], found + np.arange(came.sum()))
            found += came.sum()
            assert len(set(slots[now[k, t] == 1])) == now[k, t].sum()


# ------------------------------------------------------------------------------------------------------ frame by frame


@functools.cache
def steps(name):
    """All frames of `draw`, one call of ``step`` after another."""
    sequential, params, x = setup(name)
    state = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (DRAWS, *leaf.shape)), sequential.start(params))
    taken = []
    for t in range(len(x)):
        step = stepper(name)(params, jax.vmap(jax.random.fold_in, (0, None))(keys(), t), state, x[t])
        state = step.state
        taken.append(jax.device_get(step))
    return taken


def test_steps_are_the_trace():
    """A run frame by frame, as FIVO or an online user makes it, draws and scores the same."""
    traces, stepped = draw("learned"), steps("learned")
    stacked = jax.tree.map(lambda *leaves: np.stack(leaves, 1), *stepped)
    np.testing.assert_array_equal(stacked.z.discovered.presence, traces.z.discovered.presence)
    for name in ("log_p", "log_q", "log_q_discrete"):
        np.testing.assert_allclose(getattr(stacked, name).sum(1), getattr(traces, name), rtol=1e-4, atol=1e-3)
    outputs = stacked.outputs | {"objects": stacked.state.objects}
    outputs["log_likelihood"] = outputs["log_likelihood"].sum(1)
    assert set(outputs) == set(traces.outputs)
    ours, expected = (jax.tree.leaves(pair) for pair in ((stacked.z, outputs), (traces.z, traces.outputs)))
    for leaf, exact in zip(ours, expected, strict=True):
        np.testing.assert_allclose(leaf, exact, rtol=1e-4, atol=1e-3)


def test_a_prefix_has_the_densities_of_its_frames():
    """And, from the same key, the same draws: what follows does not matter."""
    _, params, x = setup("learned")
    prefix, stepped = tracer("learned")(params, keys(), x[:2]), steps("learned")[:2]
    for name in ("log_p", "log_q", "log_q_discrete"):
        expected = sum(getattr(step, name) for step in stepped)
        np.testing.assert_allclose(getattr(prefix, name), expected, rtol=1e-4, atol=1e-3)
    for leaf, exact in zip(jax.tree.leaves(prefix.z), jax.tree.leaves(draw("learned").z), strict=True):
        np.testing.assert_allclose(leaf, exact[:, :2], rtol=1e-4, atol=1e-4)


def test_time_and_slots_are_scanned():
    """Longer sequences of more objects are the same program."""

    def size(num_frames, num_objects):
        return equations(program(num_frames, num_objects))

    assert size(2, 3) == size(9, 3) == size(2, 6)


def test_cost_is_linear_in_time_and_slots():
    """In operations of matrix products, which are the same everywhere."""

    def operations(num_frames, num_objects):
        return count_flops(program(num_frames, num_objects))

    assert operations(3, 3) * 3 == pytest.approx(operations(9, 3), rel=1e-6)
    two, four, eight = (operations(3, n) for n in (2, 4, 8))
    assert eight - four == pytest.approx(2 * (four - two), rel=0.02) and four > 1.5 * two


def program(num_frames, num_objects):
    model = sqair.make(dataclasses.replace(BASE, num_objects=num_objects)).model
    params = jax.eval_shape(model.init, jax.random.key(0))
    frames = jax.ShapeDtypeStruct((num_frames, *BASE.canvas), jnp.float32)
    trace = jax.make_jaxpr(lambda params, key, x: model.trace(params, key, x, HPARAMS))
    return trace(params, jax.random.key(0), frames).jaxpr


def equations(jaxpr):
    """Of a program and of those inside it."""
    inner = (program for equation in jaxpr.eqns for program in jaxprs_in_params(equation.params))
    return len(jaxpr.eqns) + sum(map(equations, inner))


# -------------------------------------------------------------------------------------------------- prior and sampling


def widened():
    """Parameters whose q is about as wide as the prior, so that importance weights have small variance."""
    params = jax.tree.map(jnp.asarray, setup("learned")[1])  # a copy to change
    # The outputs of the last layers: where has dimensions 0 to 2, what 0 and 1.
    widths = [
        ("inference", "discovery_statistics", "Dense_1", slice(3, 4), 0.1, 0.4),
        ("inference", "discovery_statistics", "Dense_1", slice(4, 6), 0.1, 1.2),
        ("inference", "what", "Dense_0", slice(2, 4), 0.5, 1.2),
        ("inference", "where", "Dense_1", slice(3, 6), 0.1, 0.7),
        ("inference", "what_change", "Dense_1", slice(2, 4), 0.5, 3.0),
        ("generative", "dynamics_statistics", "Dense_1", slice(3, 6), 0.3, 0.6),
        ("generative", "dynamics_statistics", "Dense_1", slice(8, 10), 0.3, 0.6),
    ]
    for part, net, layer, outputs, initial, scale in widths:
        weights = params[part][net]["params"][layer]
        weights["bias"] = weights["bias"].at[outputs].set(np.log(np.expm1(scale)) - np.log(np.expm1(initial)))
        weights["kernel"] = 0.3 * weights["kernel"]
    change = params["inference"]["what_change"]["params"]["Dense_1"]
    change["bias"] = change["bias"].at[4:8].set(2.0)  # gates: mostly what was before, and little of the glimpse
    return params


def test_importance_weights_estimate_the_evidence():
    """E_q[p(z) / q(z | x)] = 1, and E_q[p(x, z) / q(z | x)] = E_p[p(x | z)] = p(x): q's samples have q's density.

    So it is for any order of propagation that does not look at z, and for one that is drawn.
    """
    params, x = widened(), setup("random")[2][:2]
    batches = [jax.random.split(jax.random.key(i), DRAWS) for i in range(100, 200)]
    traces = [tracer("random")(params, batch, x) for batch in batches]
    fields = [(trace.outputs["log_likelihood"], trace.log_p, trace.log_q) for trace in traces]
    log_likelihood, log_p, log_q = np.float64(np.concatenate(fields, 1))

    with jax.numpy_rank_promotion("allow"):  # distrax' Bernoulli needs it
        pictures = [generator("learned")(params, key, 0.3)[2] for key in jax.random.split(jax.random.key(3), (6, 3000))]
    mean = np.clip(np.concatenate([np.float64(picture["mean"][:, :2]) for picture in pictures]), 1e-3, 1 - 1e-3)
    frames = np.float64(x)
    reference = (frames * np.log(mean) + (1 - frames) * np.log1p(-mean)).sum((1, 2, 3, 4))

    # Tempered, p(x | z)^beta is flat enough to be averaged over the prior; beta = 0 is the normalisation alone.
    for beta in (0.0, 0.003):
        weights = np.exp(beta * (log_likelihood - reference.max()) + log_p - log_likelihood - log_q)
        prior = np.exp(beta * (reference - reference.max()))
        error = np.sqrt(weights.var() / weights.size + prior.var() / prior.size)
        assert error < 0.05 * prior.mean()
        assert abs(weights.mean() - prior.mean()) < 4 * error
    assert prior.std() > 0.2 * prior.mean()  # the evidence does depend on z


@pytest.mark.parametrize("name", ["annealed", "learned"])
def test_generated_sequences(name):
    config, params = CONFIGS[name], setup(name)[1]
    slots = config.num_objects
    with jax.numpy_rank_promotion("allow"):  # distrax' Bernoulli needs it
        batch = generator(name)(still(params), jax.random.split(jax.random.key(5), 3000), 0.6)
    z, x, pictures = jax.device_get(batch)
    before, kept, new, now = presence(Trace(z, *(None,) * 4))
    assert now.shape == (3000, config.num_frames, slots) and now.max() == 1

    assert kept[before == 1].mean() == pytest.approx(STAYS, abs=float(2 / np.sqrt(before.sum())))
    assert not kept[before == 0].any()
    cases = 0
    for t, others in itertools.product((0, slice(1, None)), range(slots + 1)):
        numbers = new[:, t].sum(-1)[kept[:, t].sum(-1) == others]
        if not numbers.size:
            continue
        if name == "annealed":
            p = (0.6 * (HPARAMS["rediscovery_factor"] if t else 1)) ** np.arange(slots + 1)
        else:
            p = np.exp(params["generative"]["discovery_logits"][-int(t != 0), others])
        p = p[: slots - others + 1] / p[: slots - others + 1].sum()
        frequency = np.bincount(numbers.astype(int), minlength=slots + 1) / numbers.size
        assert not frequency[slots - others + 1 :].any()
        np.testing.assert_allclose(frequency[: p.size], p, atol=4 * np.sqrt(0.25 / numbers.size))
        cases += 1
    assert cases == 1 + slots + 1  # nothing is propagated to the first frame

    where, what = (getattr(z.discovered, field)[new == 1] for field in ("where", "what"))
    np.testing.assert_allclose(where.mean(0), air_by_hand.where_loc(config), atol=0.1)
    np.testing.assert_allclose(where.std(0), [config.scale_std] * len(config.object_size) + [1.0, 1.0], rtol=0.1)
    np.testing.assert_allclose(what.mean(0), 0, atol=0.1)
    np.testing.assert_allclose(what.std(0), 1, atol=0.1)
    for field in ("where", "what"):
        old, born = getattr(z.propagated, field), getattr(z.discovered, field)
        objects = np.where(new[..., None] == 1, born, old)
        moves = (old[:, 1:] - objects[:, :-1])[kept[:, 1:] == 1]
        np.testing.assert_allclose(moves.mean(0), 0, atol=0.03)
        np.testing.assert_allclose(moves.std(0), 0.301, rtol=0.05)

    mean = pictures["mean"]
    assert x.shape == mean.shape == (3000, config.num_frames, *config.canvas)
    assert mean.min() >= 0 and mean.max() <= slots
    np.testing.assert_array_equal(mean[now.sum(-1) == 0], 0)
    if config.likelihood == "bernoulli":
        assert set(np.unique(x)) == {0.0, 1.0}
        residual = x - np.clip(mean, 1e-3, 1 - 1e-3)
    else:
        residual = x - mean
        assert residual.std() == pytest.approx(config.output_std, rel=0.02)
    assert abs(residual.mean()) < 0.01
    assert len(np.unique(z.propagated.what)) > 0.99 * z.propagated.what.size


@pytest.mark.parametrize("name", ["annealed", "released"])
def test_imagining_what_follows(name):
    """`imagine` goes on from any state, and leaves the state that scoring its draw leaves."""
    sequential, params, x = setup(name)
    imagine = jax.jit(jax.vmap(lambda *args: sequential.imagine(*args, HPARAMS), (None, 0, None)))
    for state in states():
        after, z, mean = jax.device_get(imagine(params, keys()[:64], state))
        step = jax.device_get(scoring_stepper(name)(params, state, x[3], z))
        assert z.discovered.presence.any()
        np.testing.assert_array_equal(after.objects.presence, z.propagated.presence + z.discovered.presence)
        np.testing.assert_allclose(mean, step.outputs["mean"], atol=1e-5)
        for field in ("objects", "velocity", "identity", "found", "dynamics", "first"):
            for leaf, exact in zip(*(jax.tree.leaves(getattr(s, field)) for s in (after, step.state)), strict=True):
                np.testing.assert_allclose(leaf, exact, rtol=1e-5, atol=1e-5)
        # The RNN of q starts anew with a new object, and waits for the others, of which it saw nothing.
        new = z.discovered.presence[..., None] > 0
        temporal = np.where(new, sequential.start(params).temporal, state.temporal)
        np.testing.assert_allclose(after.temporal, temporal, atol=1e-6)


def test_the_likeliest_future():
    """At temperature 0 every draw is the same: means, choices of most probability; a bit above, nearly so."""
    sequential, params, _ = setup("annealed")
    imagine = jax.jit(jax.vmap(sequential.imagine, (None, 0, None, None)))
    for state in states():
        cold, cool = (imagine(params, keys()[:8], state, HPARAMS | {"temperature": t})[1] for t in (0.0, 1e-4))
        for leaf, other in zip(jax.tree.leaves(cold), jax.tree.leaves(cool), strict=True):
            np.testing.assert_array_equal(leaf, leaf[:1].repeat(8, 0))
            np.testing.assert_allclose(leaf, other, atol=1e-2)
        new = np.asarray(cold.discovered.presence)[0]
        np.testing.assert_array_equal(new, 0)  # with a success probability of .3 none are likelier than any
        where = np.asarray(cold.discovered.where)[0]
        np.testing.assert_allclose(where, np.tile(air_by_hand.where_loc(BASE), (3, 1)), atol=1e-6)


def test_the_mode_of_q():
    """At temperature 0 every draw is the same: means, and presence where its probability is above a half."""
    sequential, params, x = setup("annealed")
    trace = jax.jit(jax.vmap(sequential.model.trace, (None, 0, None, None)))
    cold, cool = (trace(params, keys()[:8], x, HPARAMS | {"temperature": t}) for t in (0.0, 1e-4))
    for leaf, other in zip(jax.tree.leaves(cold.z), jax.tree.leaves(cool.z), strict=True):
        np.testing.assert_array_equal(leaf, leaf[:1].repeat(8, 0))
        np.testing.assert_allclose(leaf, other, atol=1e-2)
    *_, now = presence(cold)
    assert 0 < now.mean() < 1
    np.testing.assert_array_equal(now, cold.outputs["presence_prob"] > 0.5)


def test_propagation_in_random_order():
    """Any order is as likely, and is that of a model whose slots are in this order; q's mode goes through the slots."""
    sequential, params, x = setup("annealed")
    step = sqair.make(dataclasses.replace(BASE, propagation_order="random")).step
    state, rng = states()[3], np.random.default_rng(3)
    old = jax.tree.map(lambda leaf: jnp.asarray(rng.normal(0, 0.3, leaf.shape), jnp.float32), state.objects)
    nothing = jax.tree.map(jnp.zeros_like, old)

    def in_slots(order):
        """log q of the same frame and objects, which lie in other slots."""
        moved, kept = (jax.tree.map(lambda leaf: leaf[order] if leaf.ndim else leaf, each) for each in (state, old))
        z = sqair.Frame(kept._replace(presence=jnp.ones(3)), nothing)
        return sequential.step(params, keys()[0], moved, x[1], HPARAMS, z=z).log_q

    def drawn(key, temperature):
        z = sqair.Frame(old._replace(presence=jnp.ones(3)), nothing)
        return step(params, key, state, x[1], HPARAMS | {"temperature": temperature}, z=z).log_q

    expected = np.asarray(jax.jit(jax.vmap(in_slots))(jnp.array(list(itertools.permutations(range(3))))))
    drawn = jax.jit(jax.vmap(drawn, (0, None)))
    assert np.abs(np.subtract.outer(expected, expected))[~np.eye(6, dtype=bool)].min() > 0.01
    distance = np.abs(np.asarray(drawn(keys(), 1.0))[:, None] - expected)
    assert distance.min(1).max() < 1e-3
    assert stats.chisquare(np.bincount(distance.argmin(1), minlength=6)).pvalue > 0.01
    np.testing.assert_allclose(drawn(keys(), 0.0), expected[0], rtol=1e-5)


def test_velocity_is_what_the_last_frame_moved_an_object_by():
    sequential, params, _ = setup("annealed")
    trace = one_of_each_event("annealed")[-1]
    z, x = trace.z, setup("annealed")[2]
    state = sequential.start(params)
    assert not np.any(state.velocity)
    for t in range(4):
        before = state
        frame = jax.tree.map(lambda leaf, t=t: leaf[t], z)
        many = jax.tree.map(lambda leaf: np.broadcast_to(leaf, (64, *np.shape(leaf))), frame)
        state = jax.tree.map(lambda leaf: leaf[0], scoring_stepper("annealed")(params, state, x[t], many).state)
        stayed = np.asarray(frame.propagated.presence)[:, None]
        moved = np.asarray(frame.propagated.where) - np.asarray(before.objects.where)
        np.testing.assert_allclose(state.velocity, stayed * moved, atol=1e-6)


def test_rendering_what_was_inferred():
    sequential, params, _ = setup("annealed")
    traces = row(draw("annealed"), slice(20))
    pictures = jax.jit(jax.vmap(sequential.model.render, (None, 0)))(params, traces.z)
    np.testing.assert_allclose(pictures["mean"], traces.outputs["mean"], atol=1e-5)
    np.testing.assert_allclose(pictures["objects"].sum(2), pictures["mean"], atol=1e-5)
    np.testing.assert_allclose(pictures["boxes"], traces.outputs["boxes"], atol=1e-3)
    present = traces.outputs["objects"].presence == 1
    drawn = np.asarray(pictures["objects"]).max((-3, -2, -1)) > 0
    boxes = np.asarray(pictures["boxes"])
    centre = (boxes[..., :2] + boxes[..., 2:]) / 2
    in_view = ((centre > 0) & (centre < np.array(BASE.canvas[:2]))).all(-1)
    assert (present & in_view).any() and (present & ~in_view).any()
    np.testing.assert_array_equal(drawn[in_view], present[in_view])
    assert not drawn[~present].any()


# ----------------------------------------------------------------------------------------------------------- structure


def test_not_pathwise():
    """The draw is then a constant: the derivatives, here along one direction, are those of scoring it."""
    sequential, params, x = setup("annealed")
    index = np.argmax(happened(draw("annealed"))["an object joins another one"])
    key, z = keys()[index], row(draw("annealed").z, index)

    def draw_and_score(params):
        trace = sequential.model.trace(params, key, x, HPARAMS, pathwise=False)
        return trace.log_p, trace.log_q, trace.outputs["mean"]

    along = direction(params)
    stopped = jax.jit(lambda along: jax.jvp(draw_and_score, (params,), (along,))[1])(along)
    scored = slope()(z, along, jax.tree.map(np.zeros_like, continuous(z)))
    for ours, expected in zip(stopped, scored, strict=True):
        assert np.isfinite(expected).all() and np.any(expected)
        np.testing.assert_allclose(ours, expected, rtol=1e-3, atol=2e-3)


def test_pathwise():
    """The draw depends on q: log p has a gradient by all parameters but those that only decide what is there."""
    _, gradient = convolutional()
    assert set(gradient) == {"generative", "inference"}
    for path, leaf in jax.tree.leaves_with_path(gradient):
        name = jax.tree_util.keystr(path)
        assert np.isfinite(leaf).all() and np.any(leaf) == ("presence'" not in name), name


def test_gradients_between_frames_are_limited():
    """A tight limit changes what RNNs are told by later frames, and no value."""
    _, params, x = setup("annealed")
    key = keys()[np.argmax(happened(draw("annealed"))["an object joins another one"])]

    def gradient(limit):
        model = sqair.make(dataclasses.replace(BASE, gradient_limit=limit)).model

        def weight(params):
            trace = model.trace(params, key, x, HPARAMS)
            return trace.log_p - trace.log_q

        return jax.jit(jax.value_and_grad(weight))(params)

    (value, free), (tied_value, tied) = map(gradient, (0.0, 1e-3))
    assert value == pytest.approx(tied_value)
    free, tied = (each["inference"]["temporal"]["params"]["hn"]["kernel"] for each in (free, tied))
    assert np.max(np.abs(np.asarray(free) - np.asarray(tied))) > 0.01


def test_a_dark_start():
    """Presence is likely and decoded objects are dark at first, or else presence collapses for good."""
    sequential, _, x = setup("annealed")
    params = jax.jit(sequential.model.init)(jax.random.key(0))
    traces = jax.device_get(tracer("annealed")(params, keys(), x))
    before, kept, new, now = presence(traces)
    probability = traces.outputs["presence_prob"]
    for biased, there in ((1.0, new[:, 0] == 1), (0.0, new[:, 1:] == 1), (3.0, kept[:, 1:] == 1)):
        frames = probability[:, 0] if there.ndim == 2 else probability[:, 1:]
        np.testing.assert_allclose(frames[there], air_by_hand.presence_probability(biased), atol=0.03)
    assert 0 < traces.outputs["mean"].max() < 3 * expit(-0.5)
    assert traces.outputs["mean"][now.sum(-1) == 1].mean() < expit(-1.5)


@pytest.mark.parametrize("motion", ["velocity", "position"])
@pytest.mark.parametrize("network, hidden, millions, apart_millions", [("mlp", 256, 2.9, 3.1), ("conv", 128, 2.6, 2.7)])
def test_number_of_parameters(network, hidden, millions, apart_millions, motion):
    """Those of the paper (table 5.D.1), on its 50x50 frames; more if each q has an MLP of its own."""
    config = sqair.Config((50, 50, 1), hidden=hidden, network=network, motion=motion, discovery_prior="learned")

    def number(config):
        shapes = jax.eval_shape(sqair.make(config).model.init, jax.random.key(0))
        return sum(leaf.size for leaf in jax.tree.leaves(shapes))

    assert round(number(config) / 1e6, 1) == millions
    apart = dataclasses.replace(config, shared_statistics=False)
    assert round(number(apart) / 1e6, 1) == apart_millions


# ------------------------------------------------------------------------------------------------------------- mistakes


@pytest.mark.parametrize(
    "fields, message",
    [
        ({"network": "cnn"}, "model.network='cnn' is unknown; choose one of mlp, conv"),
        ({"centred": False}, "model.centred=False does not go with model.motion='velocity': use motion='position'"),
        ({"motion": "still"}, "model.motion='still' is unknown; choose one of position, velocity"),
        ({"discovery_prior": "fixed"}, "model.discovery_prior='fixed' is unknown; choose one of annealed, learned"),
        ({"num_objects": 0}, "model.num_objects=0 must be positive"),
        ({"what_dim": 0}, "model.what_dim=0 must be positive"),
        ({"hidden": -1}, "model.hidden=-1 must be positive"),
        ({"decoder_hidden": 0}, "model.decoder_hidden=0 must be positive"),
        ({"num_frames": 0}, "model.num_frames=0 must be positive"),
        ({"gradient_limit": -1.0}, "model.gradient_limit=-1.0: use 0, for none, or more"),
        ({"likelihood": "poisson"}, "model.likelihood='poisson' is unknown; choose one of gaussian, bernoulli"),
        (
            {"object_size": (8.0, 4.0)},
            "model.object_size=(8.0, 4.0) leaves no room on a canvas of 9x11; it must be below 7",
        ),
        (
            {"encoder_features": (4,)},
            "model.encoder_features=(4,), encoder_strides=(2, 2, 1, 1): use as many positive ones",
        ),
        (
            {"decoder_features": (), "decoder_strides": ()},
            "model.decoder_features=(), decoder_strides=(): use as many positive ones",
        ),
        (
            {"decoder_features": (4, 4, 4), "decoder_strides": (0, 2, 2)},
            "model.decoder_features=(4, 4, 4), decoder_strides=(0, 2, 2): use as many positive ones",
        ),
        ({"network": "conv"}, "model.glimpse_size=(4, 5): use multiples of 4, by model.decoder_strides"),
        (
            {"network": "conv", "glimpse_size": (4,)},
            "model.glimpse_size=(4,) must be two positive numbers, height and width",
        ),
    ],
)
def test_impossible_configs(fields, message):
    with pytest.raises(UserError) as error:
        dataclasses.replace(BASE, **fields)
    assert str(error.value) == message
