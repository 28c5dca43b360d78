"""The SQAIR experiment on tiny sequences: it runs from end to end, and figures are right for known answers."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import sqair_mnist
from experiments import sqair
from objcentric.errors import UserError
from objcentric.models import sqair as model
from objcentric.models.model import Model, Sequential, Trace
from objcentric.training import loop
from tests.experiments import scenes, sequences


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Folder and content of eval.json of a finished run."""
    folder = tmp_path_factory.mktemp("runs") / "sqair"
    data = sequences.make_data()
    config = sequences.make_config(curriculum__first_frames=4, curriculum__steps=())
    return folder, loop.run(config, folder, lambda config: scenes.filled(sqair.build(config, data=data)))


def test_a_run(run):
    folder, content = run
    assert content["steps"] == 4 and content["num_examples"] == 13
    assert {"count_accuracy", "sequence_accuracy", "mean_iou", "iwae_4"} <= content.keys()
    assert {"mota", "idf1", "path_error", "look_error", "sampled_look_other_error"} <= content.keys()
    assert content["elbo"] == pytest.approx(content["log_likelihood"] - content["kl"], rel=1e-4)
    assert len(content["count_accuracy_t"]) == 4
    assert np.mean(content["count_accuracy_t"]) == pytest.approx(content["count_accuracy"])
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert {"loss", "bound", "count", "discovered", "presence_prior"} <= rows[0].keys()


def test_pictures(run):
    names = {path.name for path in (run[0] / "figures").iterdir()}
    still, moving = {"tracking", "imagined", "samples"}, {"tracking_film", "imagined_film", "samples_film"}
    assert {f"{name}.png" for name in still} | {f"{name}.gif" for name in moving} <= names


def test_the_curriculum_cuts_images():
    stages = sqair.build(sequences.make_config(), data=sequences.make_data()).stages
    batch = {"image": np.zeros((5, 4, 12, 14, 1)), "count": np.zeros((5, 4))}
    assert [stage.batch(batch)["image"].shape[1] for stage in stages] == [2, 4]


@pytest.mark.parametrize(
    "accuracy, discovered, said",
    [
        (0.99, [1.0, 0.0, 0.0], None),
        (0.6, [1.0, 0.0, 0.0], "miscounted, for an unknown reason"),
        (0.3, [0.0, 0.0, 0.0], "always none"),
        (0.99, [1.0, 0.9, 0.05], "objects are discovered again in the second frame"),
        (0.99, [1.0, 0.9, 0.9], "objects are discovered again and again"),
    ],
)
def test_failures(accuracy, discovered, said):
    assert sqair.failure(accuracy, discovered, np.array([1.0, 0.0, 0.0])) == said


def test_late_objects_are_no_failure():
    split = {"presence": np.array([[[0, 1], [1, 1], [0, 1]], [[0, 0], [0, 0], [1, 0]]], np.uint8)}
    np.testing.assert_array_equal(sqair.born(split), [0.5, 0.5, 0.5])
    np.testing.assert_array_equal(sqair.born({"count": np.array([[1, 2, 1], [0, 0, 1]])}), [0.5, 0.5, 0.5])
    assert sqair.failure(0.99, [0.5, 0.5, 0.5], sqair.born(split)) is None
    assert sqair.failure(0.99, [0.5, 1.5, 0.5], sqair.born(split)) == "objects are discovered again in the second frame"


@pytest.mark.parametrize(
    "fields, message",
    [
        ({"model__num_objects": 1}, "frames hold up to 2 objects, model.num_objects=1: set it higher"),
        ({"curriculum__first_frames": 5}, "curriculum.first_frames=5: use 1 to 4, the frames of a sequence"),
        ({"curriculum__steps": (3, 3)}, r"curriculum.steps=\(3, 3\): use ascending steps"),
        ({"evaluate__given_frames": 4}, "evaluate.given_frames=4: use 1 to 3"),
        ({"evaluate__particle_chunk": 3}, "evaluate.particle_chunk=3 must divide"),
        (
            {"curriculum__steps": ()},
            r"curriculum.steps=\(\) never shows whole sequences: set curriculum.first_frames=4",
        ),
        ({"curriculum__steps": (2, 4)}, r"curriculum.steps=\(2, 4\): whole sequences come after train.num_steps=4"),
        (
            {"objective__name": "dreg"},
            "objective.name='dreg' is not for growing sequences, or not for discrete latents",
        ),
        ({"objective__name": "nvil"}, "objective.name='nvil' is not for growing sequences"),
        ({"objective__name": "fivo"}, "objective.name='fivo' needs two or more filters"),
        ({"model__network": "cnn"}, "model.network='cnn' is unknown"),
        ({"model__discovery_prior": "learned"}, "model.discovery_prior='learned' needs no fit: set evaluate.fit_count"),
        ({"model__presence_prior__end": 0.0}, "model.presence_prior: start="),
        ({"model__rediscovery_factor__end": 1e-60}, "model.rediscovery_factor: start="),
        ({"data__appear": "any_time"}, "data.appear='any_time' has objects that model.rediscovery_factor.end=1e-30"),
        ({"model__rediscovery_factor__begin": -1}, "model.rediscovery_factor: .* begin=-1 must be >= 0"),
    ],
)
def test_impossible_configs(fields, message):
    with pytest.raises(UserError, match=f"^{message}"):
        sqair.build(sequences.make_config(**fields), data=sequences.make_data())


def test_it_learns_a_batch_by_heart():
    """Of six sequences two are empty, two have one square and two have two."""
    half = {"model__presence_prior__steps": 75, "model__presence_margin__steps": 75}
    half |= {"model__gradient_limit": 0.0}  # with the default 350 steps are not surely enough
    config = sequences.make_config(model__hidden=16, objective__num_particles=5, **half)
    experiment = sqair.build(config, data=sequences.make_data())
    _, metrics, black = sequences.learn_by_heart(experiment, 6, num_steps=150, learning_rate=5e-3)
    last = {name: np.mean(each[-20:]) for name, each in metrics.items()}
    assert metrics["bound"][0] < black + 15 < last["bound"] < last["log_likelihood"]
    assert last["count"] == pytest.approx(1, abs=0.35)


@pytest.mark.parametrize("objective", ["rloo", "ww", "fivo", "iwae"])
def test_objectives(objective):
    """Of each kind one has a gradient of the parameters' shapes; `targets` has tests of all."""
    fields = {"objective__num_particles": 4, "objective__num_groups": 2}
    experiment = sqair.build(sequences.make_config(objective__name=objective, **fields), data=sequences.make_data())
    params, aux = jax.eval_shape(experiment.init, jax.random.key(0))
    batch, keys = {"image": experiment.data.train["image"][:4]}, jax.random.split(jax.random.key(0), 4)
    loss = lambda params, aux: experiment.loss(params, batch, keys, 0, aux)  # noqa: E731
    grads, _ = jax.eval_shape(jax.grad(loss, has_aux=True), params, aux)
    assert jax.tree.map(jnp.shape, grads) == jax.tree.map(jnp.shape, params)


def test_what_the_release_calls_vimco():
    """By hand: the bound's own gradient, and of log q the share of a particle, weighed by what is better than L."""
    log_w, log_q = jnp.array([[-2.0, -3.0, -2.5]]), jnp.zeros((1, 3))
    estimate = sqair.vimco_as_released(log_w, log_q)
    np.testing.assert_allclose(estimate.bound, np.log(np.exp([-2.0, -3.0, -2.5]).mean()), rtol=1e-6)
    others = np.array([(-3.0, -2.5), (-2.0, -2.5), (-2.0, -3.0)])
    baselines = np.log((np.exp(others.mean(-1)) + np.exp(others).sum(-1)) / 3)
    of_weights, of_choices = jax.grad(lambda *args: sqair.vimco_as_released(*args).surrogate[0], (0, 1))(log_w, log_q)
    np.testing.assert_allclose(of_choices[0], (log_w[0] - baselines) / 3, rtol=1e-5)
    np.testing.assert_allclose(of_weights, jax.nn.softmax(log_w), rtol=1e-5)
    with pytest.raises(UserError, match="objective.name='vimco_as_released' compares particles"):
        fields = {"objective__name": "vimco_as_released", "objective__num_particles": 1}
        sqair.build(sequences.make_config(**fields), data=sequences.make_data())


def test_variants():
    """What each variant is about, for embedded digits and MNIST's."""
    for configs in (sequences.configs, sqair_mnist):
        fast, any_time, conv, paper, conv_paper, released = map(configs.get_config, sequences.configs.VARIANTS)
        assert fast.data.appear == paper.data.appear == "always" and any_time.data.appear == "any_time"
        assert any_time.model.rediscovery_factor.start < any_time.model.rediscovery_factor.end == 1.0
        assert fast.model.network == any_time.model.network == paper.model.network == "mlp"
        assert conv.model.network == conv_paper.model.network == "conv"
        for config in (paper, conv_paper):  # appendix 5.D.1
            assert (config.train.num_steps, config.train.batch_size) == (2_000_000, 32)
            assert (config.objective.name, config.objective.num_particles) == ("vimco", 5)
            assert (config.optimizer.name, config.optimizer.learning_rate) == ("rmsprop", 1e-5)
            assert config.optimizer.stairs_at == (400_000, 1_000_000)
            assert config.optimizer.stairs_to == pytest.approx((1 / 3, 1 / 10))
            assert config.curriculum.first_frames == 3
            assert config.curriculum.steps == tuple(range(100_000, 800_000, 100_000))
            assert config.model.discovery_bias == config.model.rediscovery_bias
            canvas = (*config.data.canvas, 1)
            shapes = jax.eval_shape(model.make(sqair.model_config(config, canvas, 10)).model.init, jax.random.key(0))
            millions = sum(leaf.size for leaf in jax.tree.leaves(shapes)) / 1e6
            assert round(millions, 1) == {"mlp": 2.9, "conv": 2.6}[config.model.network]
        assert released.curriculum == paper.curriculum and released.train == paper.train
        assert (released.optimizer.name, released.optimizer.learning_rate) == ("rmsprop_tf", 1e-5)
        assert released.optimizer.stairs_to == pytest.approx((1 / 3, 1 / 9))
        ours = {name: released.model[name] for name in released.model if released.model[name] != paper.model[name]}
        assert ours == {
            "centred": True,
            "one_discovery_table": False,
            "truncated_discovery": False,
            "where_prior": "learned",
            "mean_image": True,
            "proposal_mask": True,
            "decoder_scale": 0.25,
            "decoder_bias": 0.0,
            "propagation_bias": 5.0,
            "propagation_prior_bias": 10.0,
        }
        assert released.model.keys() == paper.model.keys() and released.objective.name == "vimco_as_released"
        assert len({config.data.source for config in (fast, any_time, conv, paper, conv_paper, released)}) == 1
        for config in (fast, any_time, conv, paper, conv_paper, released):
            steps = config.curriculum.steps
            assert tuple(sorted(steps)) == steps and steps[-1] < config.train.num_steps
            assert config.model.object_size[0] == config.data.object_size[0]
            assert not any(step % config.train.inner_steps for step in steps)  # or stages are compiled twice
        with pytest.raises(ValueError, match="write one of :fast, :any_time, :conv, :paper, :conv_paper, :released"):
            configs.get_config("slow")


@pytest.mark.parametrize("variant", ["any_time", "conv", "paper", "conv_paper", "released"])
def test_other_variants_have_gradients(variant):
    """The loss has a gradient, of the right shapes."""
    config = sequences.configs.get_config(variant)
    sequences.shrink(config)
    config.model.object_size = (4.0, 4.0)
    experiment = sqair.build(config, data=sequences.make_data())
    params, aux = jax.eval_shape(experiment.init, jax.random.key(0))
    batch = {"image": experiment.data.train["image"][:4]}
    loss = lambda params: experiment.loss(params, batch, jax.random.split(jax.random.key(0), 4), 0, ())  # noqa: E731
    grads, _ = jax.eval_shape(jax.grad(loss, has_aux=True), params)
    assert jax.tree.map(jnp.shape, grads) == jax.tree.map(jnp.shape, params)


# ---------------------------------------------------------------------------------------------------------- evaluation


def oracle(split, found, discovered, identity, *, blind=0.0, log_w=lambda hparams: -3.5):
    """A model that finds in each sequence of ``split`` what ``found``, ``discovered``, ``identity [M, T, R]`` say.

    A share ``blind`` of its draws finds nothing; its mode is not one of them.
    """

    def trace(params, key, x, hparams, *, z=None, pathwise=True):
        i = jnp.argmin(jnp.sum(jnp.abs(x[None] - split["image"] / np.float32(255)), (1, 2, 3, 4)))
        sees = jax.random.uniform(key) >= blind * hparams.get("temperature", 1.0)
        presence, new = (jnp.asarray(array, jnp.float32)[i] * sees for array in (found, discovered))
        boxes = jnp.asarray(split["boxes"])[i]
        what = jnp.broadcast_to(jnp.arange(1.0, 7.0).reshape(1, 2, 3), (4, 2, 3))
        outputs = {
            "log_likelihood": jnp.float32(-2.0),
            "mean": x,
            "boxes": boxes,
            "extents": boxes,
            "identity": jnp.asarray(identity)[i],
            "objects": model.Objects(presence, boxes, what),
        }
        nothing = model.Objects(new, boxes, what)
        log_p = jnp.float32(log_w(hparams))
        return Trace(model.Frame(nothing, nothing), log_p, jnp.zeros(()), jnp.zeros(()), outputs)

    return Sequential(Model(None, trace, None, None), None, None, None)


def evaluate(monkeypatch, split, *answers, of={}, final=False, **fields):  # noqa: B006
    config = sequences.make_config(**{"evaluate__addition_steps": 0, "evaluate__fit_count_prior": False} | fields)
    monkeypatch.setattr(model, "make", lambda config: oracle(split, *answers, **of))
    experiment = sqair.build(config, data=sequences.make_data()._replace(test=split))
    return experiment, experiment.evaluate({}, split, jax.random.key(0), final=final)


def truth(split):
    there = split["presence"] > 0
    discovered = np.diff(there.astype(int), axis=1, prepend=0) > 0
    return there, discovered, np.where(there, np.arange(2), -1)


def distinct():
    """Sequences of two squares at places of their own, of which one comes late and one leaves the view."""
    split = sequences.make_split(13, 2)
    for i in range(13):
        split["image"][i, :, -1, i] = 15 * (i + 1)
    split["presence"][2, 0, 1] = 0
    split["visibility"][5, 2:, 0] = 0
    split["boxes"][5, 2:, 0] = 30, 30, 34, 34
    return split | {"count": split["presence"].sum(-1).astype(np.int32)}


def test_figures_of_an_oracle(monkeypatch):
    split = distinct()
    experiment, figures = evaluate(monkeypatch, split, *truth(split))
    assert (figures["elbo"], figures["log_likelihood"], figures["kl"]) == (-3.5, -2.0, 1.5)
    assert figures["count_constant"] == pytest.approx(max(np.bincount(split["count"].ravel())) / 52)
    assert figures["count_accuracy"] == figures["sequence_accuracy"] == 1 and figures["count_accuracy_t"] == [1] * 4
    assert figures["discovered_t"] == pytest.approx([11 / 13, 1 / 13, 0, 0])
    assert figures["surplus"] == pytest.approx(0, abs=1e-6)  # that one was late is true
    assert figures["rediscovered"] == 0
    assert figures["mean_iou"] == pytest.approx(1)
    assert experiment.headline == ("count_accuracy", "mean_iou")
    assert experiment.signature(figures) is None


def test_figures_of_a_model_that_loses_objects(monkeypatch):
    """In one sequence the first square is lost in the third frame, and found as another in the fourth."""
    split = distinct()
    found, discovered, identity = truth(split)
    assert found[8].all()
    found[8, 2, 0], discovered[8, 3, 0], identity[8, 3, 0] = False, True, 7
    _, figures = evaluate(monkeypatch, split, found, discovered, identity)
    assert figures["count_accuracy_t"] == pytest.approx([1, 1, 12 / 13, 1])
    assert figures["count_accuracy"] == pytest.approx(51 / 52)
    assert figures["sequence_accuracy"] == pytest.approx(12 / 13)
    assert figures["surplus"] == pytest.approx(1 / 13, rel=1e-4)
    assert figures["rediscovered"] == pytest.approx(1 / 13)
    in_view = ((split["presence"] > 0) & (split["visibility"] > 0)).sum()
    assert figures["mean_iou"] == pytest.approx(1 - 1 / in_view)


def test_births_that_are_missed_do_not_make_up_for_objects_found_twice(monkeypatch):
    split = distinct()
    found, discovered, identity = truth(split)
    found[2, :, 1], discovered[2, 1, 1] = False, False  # the late one
    discovered[8, 3, 0], identity[8, 3, 0] = True, 7
    _, figures = evaluate(monkeypatch, split, found, discovered, identity)
    assert figures["surplus"] == pytest.approx(0, abs=1e-6)
    assert figures["rediscovered"] == pytest.approx(1 / 13)


def test_figures_of_the_mode(monkeypatch):
    split = distinct()
    monkeypatch.setattr(sqair.sequences, "final_figures", lambda *args: {})
    _, figures = evaluate(monkeypatch, split, *truth(split), of={"blind": 0.5}, final=True)
    assert 0.1 < figures["sequence_accuracy"] < 0.9 and figures["mota"] < 0.9
    assert figures["count_accuracy_mode"] == figures["sequence_accuracy_mode"] == 1
    assert figures["mota_mode"] == 1 and figures["identity_switches_mode"] == 0


def test_evaluation_is_after_all_annealing(monkeypatch):
    ends = {
        "model__presence_prior__end": 0.3,
        "model__rediscovery_factor__end": 0.2,
        "model__presence_margin__end": 0.1,
    }
    split = distinct()
    of = {"log_w": lambda h: h["presence_prior"] + 10 * h["rediscovery_factor"] + 100 * h["presence_margin"]}
    _, figures = evaluate(monkeypatch, split, *truth(split), of=of, **ends)
    assert figures["elbo"] == pytest.approx(0.3 + 2 + 10)


def test_dreams_begin_with_any_number_of_objects(monkeypatch):
    """As likely one as another; later none come, as the annealed prior has it."""
    asked = []
    monkeypatch.setattr(sqair.sequences, "dream", lambda sequential, hparams_of, *args: asked.append(hparams_of))
    fields = {"model__presence_prior__end": 0.25, "evaluate__fit_count_prior": False}
    sqair.build(sequences.make_config(**fields), data=sequences.make_data())
    state = model.State(*[None] * (len(model.State._fields) - 1), first=jnp.array([1.0, 0.0]))
    np.testing.assert_allclose(asked[0](state)["presence_prior"], [1.0, 0.25])


def test_shares_of_new_objects():
    propagated = np.array([[0.0, 0, 1, 2], [0, 1, 1, 1], [0, 0, 0, 0]])
    discovered = np.array([[0.0, 1, 1, 0], [1, 0, 0, 0], [2, 0, 0, 0]])
    shares = np.exp(sqair.discovery_table(propagated, discovered, 2))
    np.testing.assert_allclose(shares[0], np.ones((3, 3)) / 3, rtol=1e-5)  # one of each number, twice over
    later = [[4 / 7, 2 / 7, 1 / 7], [4 / 7, 2 / 7, 1 / 7], [2 / 4, 1 / 4, 1 / 4]]
    np.testing.assert_allclose(shares[1], later, rtol=1e-5)


def test_the_prior_of_counts_is_fitted_to_training_sequences(monkeypatch):
    """To what q finds there, old and new; densities then are those of the fitted prior, and of the same draws."""
    split, asked = distinct(), []
    config = sequences.make_config(evaluate__fit_count_prior=True)
    with monkeypatch.context() as replaced:
        replaced.setattr(sqair, "discovery_table", lambda *args: asked.append(args) or jnp.zeros((2, 3, 3)))
        replaced.setattr(model, "make", lambda config: oracle(split, *truth(split)))
        experiment = sqair.build(config, data=sequences.make_data()._replace(train=split))
        experiment.evaluate({"generative": {}}, split, jax.random.key(0), final=False)
    there, discovered, _ = truth(split)
    np.testing.assert_array_equal(asked[0][1], discovered.sum(-1))
    np.testing.assert_array_equal(asked[0][0], there.sum(-1) - discovered.sum(-1))

    config.model.presence_prior.end = 1e-5
    figures = {}
    for fit in (False, True):
        config.evaluate.fit_count_prior = fit
        experiment = scenes.filled(sqair.build(config, data=sequences.make_data()))
        params = experiment.init(jax.random.key(0))[0]
        figures[fit] = experiment.evaluate(params, experiment.data.test, jax.random.key(0), final=False)
    assert figures[True]["log_likelihood"] == pytest.approx(figures[False]["log_likelihood"])
    assert figures[True]["count_accuracy"] == figures[False]["count_accuracy"]
    assert sum(figures[False]["discovered_t"]) > 0.5
    assert figures[True]["elbo"] > figures[False]["elbo"] + 5


def test_sums_are_told_from_what_is_present(monkeypatch):
    """Codes are z^what, 0 where there is no object."""
    split = distinct()
    seen = []
    monkeypatch.setattr(sqair.sequences, "final_figures", lambda *args: seen.append(args) or {})
    evaluate(monkeypatch, split, *truth(split), final=True)
    encode, params = seen[0][3:5]
    keys = jax.random.split(jax.random.key(0), 13)
    what = np.arange(1, 7).reshape(2, 3) * split["presence"][..., None]
    np.testing.assert_array_equal(encode(params, split["image"], keys), what.reshape(13, 4, 6))


def test_what_is_minimised(monkeypatch):
    """Minus the bound per frame, of the model as it is annealed at the step."""
    annealed = {"begin": 1, "start": 0.1, "end": 0.4, "steps": 2}
    fields = {f"model__rediscovery_factor__{name}": value for name, value in annealed.items()}
    split = distinct()
    of = {"log_w": lambda hparams: -8 * hparams["rediscovery_factor"]}
    experiment, _ = evaluate(monkeypatch, split, *truth(split), of=of, objective__name="iwae", **fields)
    keys = jax.random.split(jax.random.key(1), 13)
    for step, factor in ((0, 0.1), (1, 0.1), (2, 0.2), (3, 0.4), (9, 0.4)):
        loss, (metrics, _) = experiment.loss({}, split, keys, jnp.int32(step), ())
        assert float(metrics["rediscovery_factor"]) == pytest.approx(factor)
        assert float(loss) == pytest.approx(8 * factor / 4)  # of four frames


def test_boxes_in_view():
    boxes = np.array([[-4, 0, 0, 4], [-4, 0, 1, 4], [11, 13, 15, 17], [12, 13, 16, 17], [0, 14, 4, 18]])
    np.testing.assert_array_equal(sqair.in_view(boxes, (12, 14)), [False, True, True, False, False])
