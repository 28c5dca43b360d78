"""The AIR experiment on tiny scenes: every objective learns, figures are right for a model whose answers are known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import air
from objcentric import objectives
from objcentric.errors import UserError
from objcentric.models.model import Model, Trace
from objcentric.training import loop, parallel, step
from tests.experiments import scenes


def filled(experiment):
    """``experiment`` with parameters that need no compilation."""
    shapes, aux = jax.eval_shape(experiment.init, jax.random.key(0))
    rng = np.random.default_rng(0)
    params = jax.tree.map(lambda leaf: jnp.asarray(rng.normal(0, 0.1, leaf.shape), jnp.float32), shapes)
    return experiment._replace(init=lambda key: (params, jax.tree.map(lambda leaf: jnp.zeros(leaf.shape), aux)))


def train(experiment, num_devices=1, num_steps=3):
    """State after some steps of batches of 4, before and after, and the metrics."""
    devices = jax.devices()[:num_devices]
    before = step.init_state(experiment, jnp.uint32(0))
    state = parallel.replicate(jax.tree.map(lambda leaf: leaf[None], before), devices)
    data = parallel.replicate(experiment.data.train, devices)
    program = parallel.make_train(experiment, num_steps, 4, devices)
    after, metrics = program(state, data, None, parallel.shard(np.arange(num_devices, dtype=np.int32), devices))
    return jax.device_get((before, jax.tree.map(lambda leaf: leaf[0], after), metrics))


# ------------------------------------------------------------------------------------------------------------ training


@pytest.mark.parametrize("name", ["elbo", "iwae", "reinforce", "nvil", "vimco"])
def test_every_objective_trains_alike_on_one_device_and_on_four(name):
    config = scenes.make_config(objective__name=name)
    experiment = filled(air.build(config, data=scenes.make_data()))
    before, one, metrics = train(experiment)
    assert one.guard.skipped == 0
    assert {"loss", "bound", "log_likelihood", "count", "presence_prior"} <= metrics.keys()
    assert all(np.isfinite(values).all() for values in metrics.values())
    for part in ("generative", "inference") + (("baseline",) if name == "nvil" else ()):
        pairs = zip(*(jax.tree.leaves(state.params[part]) for state in (before, one)), strict=True)
        assert any(np.abs(new - old).max() > 1e-4 for old, new in pairs), part
    if name in ("reinforce", "nvil"):
        assert one.aux.count == 3 and one.aux.mean < 0
        _, four, _ = train(experiment, num_devices=4)
        for leaf, expected in zip(jax.tree.leaves(four.aux), jax.tree.leaves(one.aux), strict=True):
            np.testing.assert_allclose(leaf, expected, rtol=1e-3)
        for leaf, expected in zip(jax.tree.leaves(four.params), jax.tree.leaves(one.params), strict=True):
            np.testing.assert_allclose(leaf, expected, rtol=1e-3, atol=2e-4)


def test_unlabelled_scenes_in_colour(tmp_path):
    """A user's pictures, from an .npy to a finished run: without labels the headline is the bound."""
    np.save(tmp_path / "scenes.npy", scenes.make_split(60, 0, channels=3)["image"])
    config = scenes.make_config(data__name="scenes", data__path=str(tmp_path / "scenes.npy"))
    config.model.update(likelihood="bernoulli", background="deconv", recurrence="latent")
    experiment = air.build(config)
    assert experiment.headline == ("elbo",)
    content = loop.run(config, tmp_path / "run", lambda _: filled(experiment))
    assert {"elbo", "log_likelihood", "kl", "iwae_4"} <= content.keys()
    assert all(np.isfinite(content[name]) for name in ("elbo", "log_likelihood", "kl", "iwae_4"))
    assert content["elbo"] == pytest.approx(content["log_likelihood"] - content["kl"], rel=1e-4)
    assert not {"count_accuracy", "mean_iou"} & content.keys()
    assert (content["success_rate"], content["failures"]) == (1.0, {})
    pictures = {path.stem for path in (tmp_path / "run" / "figures").glob("*.png")}
    assert {"reconstructions", "samples", "learning_curve"} <= pictures and "confusion" not in pictures


def test_loss_is_the_objective_of_the_model():
    """Rebuilt from the parts: the loss is minus the mean surrogate over images of VIMCO of the model's traces."""
    config = scenes.make_config()
    experiment = filled(air.build(config, data=scenes.make_data()))
    params, aux = experiment.init(None)
    batch = {"image": experiment.data.train["image"][:4]}
    keys = jax.random.split(jax.random.key(1), 4)
    loss, (metrics, aux) = jax.jit(experiment.loss)(params, batch, keys, jnp.int32(0), aux)
    assert aux == () and metrics["presence_prior"] == pytest.approx(config.model.presence_prior.start)

    model = air.air.make(air.model_config(config, (12, 14, 1)))

    @jax.jit
    def estimates():
        x = jnp.asarray(batch["image"], jnp.float32) / 255
        noise = jax.vmap(jax.random.split)(keys)[:, 1]
        hparams = {"presence_prior": jnp.float32(0.99)}
        traces = air.trace_particles(model, params, noise, x, hparams, 2)
        return objectives.vimco(traces.log_p - traces.log_q, traces.log_q_discrete), traces

    estimate, traces = estimates()
    assert traces.log_p.shape == (4, 2) and traces.z["where"].shape == (4, 2, 2, 3)
    assert len(np.unique(traces.log_p)) == 8  # every image and particle has noise of its own
    np.testing.assert_allclose(loss, -np.mean(estimate.surrogate), rtol=1e-5)
    np.testing.assert_allclose(metrics["bound"], np.mean(estimate.bound), rtol=1e-5)


# ---------------------------------------------------------------------------------------------------------- evaluation


def oracle(split, *, miss=False, log_w=lambda key: jnp.float32(-3.5)):
    """A model that knows every scene of ``split``; with ``miss`` it overlooks one object where there are two."""
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
        return Trace({"presence": presence}, log_w(key), jnp.zeros(()), jnp.zeros(()), outputs)

    return Model(None, trace, None, None)


def evaluate(monkeypatch, model, *, final=False, **fields):
    config = scenes.make_config(**fields)
    data = scenes.make_data()
    monkeypatch.setattr(air.air, "make", lambda config: model)
    experiment = air.build(config, data=data)
    figures = experiment.evaluate({}, data.test, jax.random.key(0), final=final)
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


def test_iwae_bound_is_the_same_in_chunks(monkeypatch):
    """Of weights exp(N(0, 1)) it is 0.5 - (e - 1) / 2K, however many particles are held at once."""
    split = scenes.make_split(13, 2)
    for chunk in (20, 200):
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

    rows = air.in_batches(function, 10, image, jax.random.key(0), batch_size)
    whole = air.in_batches(function, 10, image, jax.random.key(0), 13)
    np.testing.assert_array_equal(rows["sum"], 10 * image.sum(1))
    np.testing.assert_array_equal(rows["noise"], whole["noise"])
    assert len(np.unique(rows["noise"])) == 13
    assert sizes == {batch_size, 13}


def test_matching_pairs():
    counts = np.array([2, 0, 1, 2, 1, 2, 0, 2])
    assert air.matching_pairs(counts) == [(0, 3), (5, 7), (2, 4)]
    assert air.matching_pairs(counts, most=1) == [(0, 3)]
    assert air.matching_pairs(np.zeros(4)) == []


def test_interpolation_ends_at_both_scenes():
    model = Model(None, None, None, lambda params, z: {"mean": params * z["what"]})
    images = air.interpolate(model, 2.0, {"what": jnp.array([[1.0], [7.0], [5.0]])}, 0, 2, steps=5)
    np.testing.assert_allclose(images[:, 0], [2, 4, 6, 8, 10])


# ------------------------------------------------------------------------------------------------------------- mistakes


@pytest.mark.parametrize(
    "fields, message",
    [
        ({"objective__name": "reinforced"}, "objective.name='reinforced' is unknown: use one of elbo, iwae, rein"),
        ({"objective__num_particles": 0}, "objective.num_particles=0 must be at least 1"),
        ({"objective__num_particles": 1}, "objective.name='vimco' compares particles: set objective.num_particles to 2"),
        ({"model__num_steps": 1}, r"scenes hold up to 2 objects, model.num_steps=1: set it to 2"),
        ({"evaluate__particle_chunk": 3}, "evaluate.particle_chunk=3 must divide evaluate.num_particles=4"),
        ({"evaluate__particle_chunk": 0}, "evaluate.particle_chunk=0 must divide"),
        ({"evaluate__batch_size": 0}, "evaluate.batch_size=0 must be at least 1"),
        ({"model__presence_prior__start": 0.0}, r"model.presence_prior=.*: start and end must lie in \(0, 1\]"),
        ({"model__presence_prior__end": 1.5}, r"model.presence_prior=.*: start and end must lie in \(0, 1\]"),
        ({"model__recurrence": "none"}, "model.recurrence='none' is unknown"),
        ({"model__object_size": 10.0}, "model.object_size=10.0 leaves no room on a canvas of 12x14"),
        ({"optimizer__name": "sgd"}, "optimizer.name='sgd' is unknown"),
    ],
)
def test_impossible_configs(fields, message):
    with pytest.raises(UserError, match=f"^{message}") as error:
        air.build(scenes.make_config(**fields), data=scenes.make_data())
    assert "\n" not in str(error.value)
