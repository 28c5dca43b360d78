"""The AIR experiment on tiny scenes: every objective learns, figures are right for a model whose answers are known."""

import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import air_moving
from experiments import addition, air, evaluation
from objcentric import objectives
from objcentric.data import loader
from objcentric.errors import UserError
from objcentric.models.model import Model, Trace
from objcentric.nn.mlp import MLP
from objcentric.training import loop, targets
from objcentric.training.checkpoint import Checkpoints
from tests.experiments import scenes, sequences


def unused(*args):
    raise NotImplementedError


def toy(config):
    """A model that compiles in no time: two slots, one brightness, an image that is bright where a slot is present."""

    def trace(params, key, x, hparams, *, z=None, pathwise=True):
        logits = params["inference"] * jnp.mean(x)
        noise_key, presence_key = jax.random.split(key)
        what = params["generative"][0] + 0.1 * jax.random.normal(noise_key)
        p = jax.nn.sigmoid(logits)
        presence = jnp.cumprod((jax.random.uniform(presence_key, (2,)) < p).astype(jnp.float32))
        presence = presence if z is None else z["presence"]
        before = jnp.array([1.0, presence[0]])
        log_q = jnp.sum(before * jnp.where(presence == 1, jax.nn.log_sigmoid(logits), jax.nn.log_sigmoid(-logits)))
        log_likelihood = -jnp.mean(jnp.square(x - what * jnp.sum(presence) - params["generative"][1]))
        log_p = log_likelihood + jnp.sum(presence) * jnp.log(hparams["presence_prior"])
        boxes = jnp.broadcast_to(jnp.array([[0.0, 0.0, 4.0, 4.0]]), (2, 4))
        outputs = {"log_likelihood": log_likelihood, "presence_prob": p, "boxes": boxes, "extents": boxes}
        return Trace(latents(presence), log_p, log_q, log_q, outputs)

    def generate(params, key, hparams):
        return latents(jnp.array([1.0, 0.0])), jnp.full((12, 14, 1), params["generative"][0])

    def latents(presence):
        return {"presence": presence, "where": jnp.zeros((2, 3)), "what": jnp.zeros((2, 1))}

    return Model(lambda key: {"inference": jnp.ones(2), "generative": jnp.ones(2)}, trace, generate, unused)


# ------------------------------------------------------------------------------------------------------------ training


@pytest.mark.parametrize("name", ["iwae", "reinforce", "nvil", "vimco", "ws", "delta_ww"])
def test_objectives_train_alike_on_one_device_and_on_four(name, monkeypatch, tmp_path):
    """Of each kind one: pathwise, with moments, with a baseline too, with particles compared, with dreams, defended."""
    monkeypatch.setattr(air.air, "make", toy)
    config = scenes.make_config(objective__name=name)
    # Both runs share the experiment, and so the programs of its evaluation.
    experiment = air.build(config, data=scenes.make_data())._replace(figures=lambda *_: {})
    results = []
    for num_devices in (1, 4):
        config.train.num_devices = num_devices
        content = loop.run(config, tmp_path / str(num_devices), lambda _: experiment)
        assert content["steps"] == 3 and {"elbo", "count_accuracy", "iwae_4", "average_precision"} <= content.keys()
        rows = [json.loads(line) for line in (tmp_path / str(num_devices) / "metrics.jsonl").read_text().splitlines()]
        assert {"loss", "bound", "log_likelihood", "count", "presence_prior"} <= rows[0].keys()
        assert rows[0]["skipped"] == 0
        results.append(Checkpoints(tmp_path / str(num_devices) / "checkpoints", 1)._read(3))

    learnt = {path for path in results[0] if path.startswith("state.params.")}
    assert any("baseline" in path for path in learnt) == (name == "nvil")
    assert ("state.aux.count" in results[0]) == (name in ("reinforce", "nvil"))
    for path, leaf in results[0].items():
        if path not in ("wall", "train"):
            np.testing.assert_allclose(results[1][path], leaf, rtol=1e-4, atol=1e-5, err_msg=path)
    for part in ("inference", "generative"):
        moved = np.abs(results[0][f"state.params.{part}"] - 1).max()
        assert 1e-4 < moved < 0.1


@pytest.mark.parametrize("name", [name for name in targets.TARGETS if name not in targets.CONTINUOUS])
def test_every_objective_has_gradients(name, monkeypatch):
    monkeypatch.setattr(air.air, "make", toy)
    experiment = air.build(scenes.make_config(objective__name=name), data=scenes.make_data())
    params, aux = jax.eval_shape(experiment.init, jax.random.key(0))
    batch, keys = {"image": jnp.asarray(experiment.data.train["image"][:4])}, jax.random.split(jax.random.key(0), 4)
    loss = lambda params, aux: experiment.loss(params, batch, keys, 0, aux)  # noqa: E731
    grads, (metrics, _) = jax.eval_shape(jax.grad(loss, has_aux=True), params, aux)
    assert jax.tree.map(jnp.shape, grads) == jax.tree.map(jnp.shape, params)
    assert {"bound", "log_likelihood", "count", "presence_prior"} <= metrics.keys()


def test_objects_are_in_order_in_dreams_alone(monkeypatch):
    """Wake-sleep learns from dreams in an order; the draws that defend delta-WW have the prior's density, with none."""
    where = jnp.array([[0.0, 0.5, 0.5], [0.0, -0.5, -0.5], [0.0, -2.0, -2.0]])  # from a corner: far, near, absent
    z = {"presence": jnp.array([1.0, 1.0, 0.0]), "where": where, "what": jnp.arange(3.0)[:, None]}
    made = {}
    monkeypatch.setattr(air.air, "make", lambda config: toy(config)._replace(generate=lambda *_: (z, jnp.zeros(()))))
    monkeypatch.setattr(air.targets, "make", lambda model, c, **options: made.update(model=model, **options))
    air.build(scenes.make_config(), data=scenes.make_data())
    dream, _ = made["model"].generate({}, jax.random.key(0), {})
    defence, _ = made["defensive"]({}, jax.random.key(0), None, {})
    assert dream["what"][:, 0].tolist() == [1, 0, 2] and dream["presence"].tolist() == [1, 1, 0]
    np.testing.assert_array_equal(dream["where"], where[jnp.array([1, 0, 2])])
    assert defence["what"][:, 0].tolist() == [0, 1, 2]


@pytest.mark.parametrize("name", ["elbo", "iwae", "reinforce", "nvil", "vimco"])
def test_the_loss_is_the_objective_of_the_model(name, monkeypatch):
    """In value and gradient, built again from its parts.

    The baseline comes from the batches before, for a batch in its own baseline would bias it; the first batch, with
    none before it, has no score at all.
    """
    monkeypatch.setattr(air.air, "make", toy)
    config = scenes.make_config(objective__name=name, objective__num_particles=3)
    experiment = air.build(config, data=scenes.make_data())
    params, aux = experiment.init(jax.random.key(0))
    image, keys = experiment.data.train["image"][:4], jax.random.split(jax.random.key(1), 4)
    x = jnp.asarray(image, jnp.float32) / 255
    before = objectives.Moments(jnp.float32(-0.4), jnp.float32(9.0), jnp.float32(20.0))

    def expected(params, first):
        noise = jax.vmap(jax.random.split)(keys)[:, 1]
        hparams = {"presence_prior": jnp.float32(0.99), "presence_margin": jnp.float32(0.1)}
        traces = targets.trace_particles(toy(None), params, noise, x, hparams, 3)
        assert traces.log_p.shape == (4, 3)
        log_w, log_q = traces.log_p - traces.log_q, traces.log_q_discrete
        extra = jnp.zeros(4)
        if name == "elbo" or name == "iwae" or (first and name != "vimco"):
            estimate = objectives.elbo(log_w) if name == "elbo" else objectives.iwae(log_w)
        elif name == "vimco":
            estimate = objectives.vimco(log_w, log_q)
        elif name == "reinforce":
            estimate = objectives.reinforce(log_w, log_q, baseline=-0.4)
        else:
            baseline = MLP((8,), 1).apply(params["baseline"], x.reshape(4, -1))[:, 0]
            estimate, extra = objectives.nvil(log_w, log_q, baseline=baseline, moments=before)
        return jnp.mean(extra) - jnp.mean(estimate.surrogate), jnp.mean(estimate.bound)

    value_and_grad = jax.jit(jax.value_and_grad(experiment.loss, has_aux=True))
    for first in (True, False) if name in ("reinforce", "nvil") else (False,):
        aux = aux if first or name not in ("reinforce", "nvil") else before
        (loss, (metrics, new)), gradient = value_and_grad(params, {"image": image}, keys, jnp.int32(0), aux)
        again = jax.jit(jax.value_and_grad(functools.partial(expected, first=first), has_aux=True))
        (exact, bound), exact_gradient = again(params)
        np.testing.assert_allclose(metrics["bound"], bound, rtol=1e-5)
        for leaf, exact_leaf in zip(jax.tree.leaves(gradient), jax.tree.leaves(exact_gradient), strict=True):
            np.testing.assert_allclose(leaf, exact_leaf, rtol=1e-4, atol=1e-5)
        if not first or name not in ("reinforce", "nvil"):
            np.testing.assert_allclose(loss, exact, rtol=1e-5)
        if name in ("reinforce", "nvil"):
            assert new.count == aux.count + 1
    if name == "reinforce":
        np.testing.assert_allclose(new.mean, 0.9 * -0.4 + 0.1 * bound, rtol=1e-5)


def test_unlabelled_scenes_in_colour(tmp_path):
    """A user's pictures, from an .npy to a finished run: without labels the headline is the bound."""
    np.save(tmp_path / "scenes.npy", scenes.make_split(60, 0, channels=3)["image"])
    config = scenes.make_config(data__name="scenes", data__path=str(tmp_path / "scenes.npy"))
    config.model.update(likelihood="bernoulli", background="mlp", recurrence="latent")
    experiment = air.build(config)
    assert experiment.headline == ("elbo",)
    with jax.numpy_rank_promotion("allow"):  # distrax' Bernoulli needs it
        content = loop.run(config, tmp_path / "run", lambda _: scenes.filled(experiment))
    assert {"elbo", "log_likelihood", "kl", "iwae_4"} <= content.keys()
    assert all(np.isfinite(content[name]) for name in ("elbo", "log_likelihood", "kl", "iwae_4"))
    assert content["elbo"] == pytest.approx(content["log_likelihood"] - content["kl"], rel=1e-4)
    assert not {"count_accuracy", "mean_iou"} & content.keys()
    assert (content["success_rate"], content["failures"]) == (None, {})  # counts are not known: nothing tells
    pictures = {path.stem for path in (tmp_path / "run" / "figures").glob("*.png")}
    assert {"reconstructions", "samples", "learning_curve"} <= pictures and "confusion" not in pictures


# ---------------------------------------------------------------------------------------------------------- evaluation


def oracle(split, *, miss=False, blind=False, log_w=lambda key: jnp.float32(-3.5)):
    """A model that knows every scene of ``split``; with ``miss`` it overlooks one object where there are two.

    If ``blind``, it draws none, though it finds them likely.
    """
    count = split["count"] - (miss & (split["count"] == 2))

    def trace(params, key, x, hparams, *, z=None, pathwise=True):
        distance = jnp.sum(jnp.abs(x[None] - split["image"] / np.float32(255)), (1, 2, 3))
        i = jnp.argmin(distance)
        boxes = jnp.asarray(split["boxes"])[i]
        presence = (jnp.arange(2) < jnp.asarray(count)[i]).astype(jnp.float32)
        outputs = {
            "log_likelihood": jnp.float32(-2.0),
            "presence_prob": 0.01 + 0.98 * presence,
            "boxes": boxes + jnp.array([[-1.0, -1.0, 1.0, 1.0]]),
            "extents": boxes,
        }
        return Trace({"presence": presence * (not blind)}, log_w(key), jnp.zeros(()), jnp.zeros(()), outputs)

    return Model(unused, trace, unused, unused)


def evaluate(monkeypatch, model, *, data=None, final=False, **fields):
    config = scenes.make_config(**fields)
    data = data or scenes.make_data()
    monkeypatch.setattr(air.air, "make", lambda config: model)
    experiment = air.build(config, data=data)
    figures = experiment.evaluate({}, experiment.data.test, jax.random.key(0), final=final)
    return experiment, figures


def test_figures_of_an_oracle(monkeypatch):
    experiment, figures = evaluate(monkeypatch, oracle(scenes.make_split(13, 2)))
    assert figures["count_accuracy"] == 1 and figures["confusion"] == [[5, 0, 0], [0, 4, 0], [0, 0, 4]]
    assert figures["mean_iou"] == pytest.approx(1) and figures["average_precision"] == pytest.approx(1)
    assert figures["mean_average_precision"] == pytest.approx(1)
    assert figures["glimpse_iou"] == pytest.approx(16 / 36)  # a square of 4 in a glimpse of 6 pixels
    assert (figures["elbo"], figures["log_likelihood"], figures["kl"]) == (-3.5, -2, 1.5)
    assert "iwae_4" not in figures
    assert experiment.headline == ("count_accuracy", "mean_iou")
    assert experiment.signature(figures) is None


def test_figures_of_a_model_that_overlooks_objects(monkeypatch):
    experiment, figures = evaluate(monkeypatch, oracle(scenes.make_split(13, 2), miss=True))
    assert figures["count_accuracy"] == pytest.approx(9 / 13)
    assert figures["confusion"] == [[5, 0, 0], [0, 4, 0], [0, 4, 0]]
    assert figures["mean_iou"] == pytest.approx(8 / 12)
    assert figures["average_precision"] == pytest.approx(8 / 12)
    assert experiment.signature(figures) == "two objects in one glimpse"


def test_figures_of_the_frames_of_sequences(monkeypatch):
    """Densities are sums over frames; what is there but out of view is counted, and has no box."""
    data = sequences.make_data()
    left = data.test | {"image": data.test["image"].copy(), "visibility": data.test["visibility"].copy()}
    left["image"][2, 3, :, 7:], left["visibility"][2, 3, 1] = 0, 0
    seen = loader.frames(left)
    model = oracle(seen | {"count": (seen["visibility"] > 0).sum(1)}, blind=True)
    experiment, figures = evaluate(monkeypatch, model, data=data._replace(test=left), final=True)
    assert experiment.data.train["image"].shape == (24 * 4, 12, 14, 1)
    assert (figures["elbo"], figures["log_likelihood"], figures["kl"], figures["iwae_4"]) == (-14, -8, 6, -14)
    assert figures["count_accuracy_mode"] == pytest.approx(51 / 52)
    assert figures["count_accuracy"] == pytest.approx(20 / 52)
    assert figures["confusion"] == [[20, 0, 0], [0, 16, 0], [0, 1, 15]]
    assert figures["mean_iou"] == pytest.approx(1) and figures["average_precision"] == pytest.approx(1)


def test_the_prior_of_counts_is_fitted_to_training_scenes(monkeypatch):
    """To the counts q draws there, to which one of each is added: 12, 12 and 11 of 35."""
    data = scenes.make_data()

    def trace(params, key, x, hparams, *, z=None, pathwise=True):
        drawn = oracle(data.train).trace(params, key, x, hparams)
        count = jnp.sum(drawn.z["presence"]).astype(int)
        return drawn._replace(log_p=jax.nn.log_softmax(params["generative"]["count_logits"])[count])

    made = []
    monkeypatch.setattr(air.air, "make", lambda config: made.append(config) or Model(unused, trace, unused, unused))
    experiment = air.build(scenes.make_config(evaluate__fit_count_prior=True), data=data)
    assert [config.count_prior for config in made] == ["geometric", "learned"]  # trained, and evaluated
    figures = experiment.evaluate({"generative": {}}, data.train, jax.random.key(0), final=False)
    expected = np.array([11, 11, 10]) @ np.log(np.array([12, 12, 11]) / 35) / 32
    assert figures["elbo"] == pytest.approx(expected, rel=1e-4)


def test_sums_of_the_digits_of_frames(monkeypatch):
    """The classifier gets z^what of each frame's objects, 0 where there is none, and the frame's sum."""
    given = {}
    monkeypatch.setattr(
        addition, "accuracy", lambda codes, sums, key, *, num_steps: given.update(codes=codes, sums=sums)
    )
    config = scenes.make_config(evaluate__addition_steps=20, evaluate__addition_examples=10)
    experiment = scenes.filled(air.build(config, data=sequences.make_data()))
    params, _ = experiment.init(jax.random.key(0))
    experiment.evaluate(params, experiment.data.test, jax.random.key(0), final=True)
    slots = {name: codes.reshape(-1, 2, 3) for name, codes in given["codes"].items()}
    assert [len(codes) for codes in slots.values()] == [10 * 4, 13 * 4]
    free = {name: (codes == 0).all(-1) for name, codes in slots.items()}
    assert all(
        each.any() and not each.all() and (each == (slots[name] == 0).any(-1)).all() for name, each in free.items()
    )
    np.testing.assert_array_equal(given["sums"]["test"], np.repeat([0, 0, 1] * 4 + [0], 4))  # of labels 0, or 0 and 1


def test_the_size_of_the_model_for_moving_digits():
    config = air.model_config(air_moving.get_config(), (50, 50, 1))
    assert config.num_steps * (config.scene.where_dim + config.what_dim + 1) == 165  # appendix 5.D.3
    model = air.air.make(config)
    params = jax.eval_shape(model.init, jax.random.key(0))
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == pytest.approx(1.7e6, abs=0.05e6)  # table 5.D.1
    paper = air_moving.get_config("paper")
    assert (paper.optimizer.name, paper.optimizer.decay, paper.train.num_steps) == ("rmsprop", "stairs", 2_000_000)
    assert paper.model.count_prior == "learned" and not paper.evaluate.fit_count_prior
    assert (paper.model.presence_margin.steps, paper.model.scale_std) == (0, 1.0)
    with pytest.raises(ValueError, match="write :fast or :paper"):
        air_moving.get_config("conv")


def test_iwae_bound_is_the_same_in_chunks(monkeypatch):
    """Of weights exp(N(0, 1)) it is 0.5 - (e - 1) / 2K, however many particles are held at once."""
    split = scenes.make_split(13, 2)
    for chunk in (2, 200):
        model = oracle(split, log_w=lambda key: jax.random.normal(key))
        fields = {"evaluate__num_particles": 200, "evaluate__particle_chunk": chunk, "evaluate__num_examples": 13}
        _, figures = evaluate(monkeypatch, model, final=True, **fields)
        error = np.sqrt((np.e - 1) / 200 / 13)
        assert abs(figures["iwae_200"] - (0.5 - (np.e - 1) / 400)) < 4 * error
        assert figures["elbo"] == pytest.approx(0, abs=4 / np.sqrt(13))
    _, figures = evaluate(monkeypatch, oracle(split), final=True)
    assert figures["iwae_4"] == pytest.approx(-3.5)


@pytest.mark.parametrize("batch_size", [1, 5, 13, 20])
def test_in_batches(batch_size):
    """Neither the size of batches nor the padding of the last one shows: a row is its image's and its key's."""
    image = np.arange(13 * 2).reshape(13, 2)
    sizes = set()

    def function(params, image, keys):
        sizes.add(len(image))
        return {"sum": params * image.sum(1), "noise": jax.vmap(jax.random.uniform)(keys)}

    rows = evaluation.in_batches(function, 10, image, jax.random.key(0), batch_size)
    whole = evaluation.in_batches(function, 10, image, jax.random.key(0), 13)
    np.testing.assert_array_equal(rows["sum"], 10 * image.sum(1))
    np.testing.assert_array_equal(rows["noise"], whole["noise"])
    assert len(np.unique(rows["noise"])) == 13
    assert sizes == {min(batch_size, 13), 13}  # few rows are not padded to many


def test_matching_pairs():
    counts = np.array([2, 0, 1, 2, 1, 2, 0, 2])
    assert air.matching_pairs(counts) == [(0, 3), (5, 7), (2, 4)]
    assert air.matching_pairs(counts, most=1) == [(0, 3)]
    assert air.matching_pairs(np.zeros(4)) == []


def test_interpolation_ends_at_both_scenes():
    def render(params, z):
        return {"mean": params * z["what"]}

    images = air.interpolate(render, 2.0, {"what": np.array([[1.0], [7.0], [5.0]])}, 0, 2, steps=5)
    np.testing.assert_allclose(images[:, 0], [2, 4, 6, 8, 10])


# ------------------------------------------------------------------------------------------------------------- mistakes


@pytest.mark.parametrize(
    "fields, message",
    [
        ({"objective__name": "reinforced"}, "objective.name='reinforced' is unknown: use one of elbo, iwae, "),
        (
            {"objective__name": "dreg"},
            "objective.name='dreg' is for continuous latents alone, and presence is discrete",
        ),
        ({"objective__num_particles": 0}, "objective.num_particles=0 must be at least 1"),
        ({"objective__num_particles": 1}, "objective.name='vimco' compares particles: set objective.num_particles"),
        ({"model__num_steps": 1}, r"scenes hold up to 2 objects, model.num_steps=1: set it to 2"),
        ({"evaluate__particle_chunk": 3}, "evaluate.particle_chunk=3 must divide evaluate.num_particles=4"),
        ({"evaluate__particle_chunk": 0}, "evaluate.particle_chunk=0 must divide"),
        ({"evaluate__batch_size": 0}, "evaluate.batch_size=0 must be at least 1"),
        ({"model__presence_prior__start": 0.0}, r"model.presence_prior: start=.* must lie in \(0, 1.0\]"),
        ({"model__presence_prior__end": 1.5}, r"model.presence_prior: start=.* must lie in \(0, 1.0\]"),
        ({"model__recurrence": "none"}, "model.recurrence='none' is unknown"),
        (
            {"model__count_prior": "learned", "evaluate__fit_count_prior": True},
            "model.count_prior='learned' needs no fit: set evaluate.fit_count_prior=False",
        ),
        ({"model__object_size": 10.0}, "model.object_size=10.0 leaves no room on a canvas of 12x14"),
        ({"optimizer__name": "sgd"}, "optimizer.name='sgd' is unknown"),
    ],
)
def test_impossible_configs(fields, message):
    with pytest.raises(UserError, match=f"^{message}") as error:
        air.build(scenes.make_config(**fields), data=scenes.make_data())
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("split", ["train", "valid", "test"])
def test_counts_of_every_split(split):
    data = scenes.make_data()
    getattr(data, split)["count"][0] = 7
    with pytest.raises(UserError, match="up to 7 objects"):
        air.build(scenes.make_config(), data=data)
