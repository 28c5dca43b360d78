"""The experiment of SCAE on tiny images: it runs from end to end; figures are those of known answers."""

import json
import re
import shutil
from types import SimpleNamespace

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.io

from configs import scae as configs
from experiments import scae
from objcentric import explainer
from objcentric.data import labelled
from objcentric.data.loader import Data, Stream
from objcentric.errors import UserError
from objcentric.metrics import clustering
from objcentric.models import capsules
from objcentric.training import loop, restore
from tests.experiments import labelled_images, scenes


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Folder and content of eval.json of a finished run."""
    folder, data = tmp_path_factory.mktemp("runs") / "scae", labelled_images.make_data()
    config = labelled_images.make_config(evaluate__affine=True)
    return folder, loop.run(config, folder, lambda config: scenes.filled(scae.build(config, data=data)))


def test_a_run(run):
    folder, content = run
    assert (content["steps"], content["num_examples"]) == (4, 13)
    both = [f"{feature}_{name}" for feature in scae.FEATURES for name in clustering.FIGURES]
    names = {f"{place}{name}" for place in ("", "affine_") for name in both if not (place and "full" in name)}
    assert names <= content.keys() and "left_out" not in content
    assert set(scae.build(labelled_images.make_config(), data=labelled_images.make_data()).results) <= names
    assert all(0 <= content[name] <= 1 for name in names if "ari" not in name)
    assert {"log_likelihood", "part_log_likelihood", "mse", "parts_there", "objects_there"} <= content.keys()
    assert 0 <= content["unexplained"] <= 1 and 1 <= content["objects_effective"] <= 4
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert {"loss", "posterior_within", "posterior_between", "deformation", "log_likelihood"} <= rows[0].keys()
    assert any("valid/posterior_lin_match_refit" in row for row in rows)
    names = {path.name for path in (folder / "figures").iterdir()}
    assert {"templates.png", "reconstructions.png", "learning_curve.png"} <= names


def test_without_labels_a_run_says_what_it_leaves_out(tmp_path, capsys):
    data = labelled_images.unlabelled(labelled_images.make_data(3))
    config = labelled_images.make_config(
        model__channels=3, model__mixing="template", data__sobel=True, losses__sparsity="thesis"
    )
    experiment = scae.build(config, data=data)
    assert experiment.headline == ("log_likelihood",) and not experiment.results
    content = loop.run(config, tmp_path / "run", lambda _: scenes.filled(experiment))
    assert content["left_out"] == [f"{feature}_{name}" for feature in scae.FEATURES for name in clustering.FIGURES]
    assert "prior_lin_match" not in content and np.isfinite(content["log_likelihood"])
    assert "labels are missing: the figures leave out prior_max_act, prior_clust_nn" in capsys.readouterr().err


def test_what_classes_are_told_from(monkeypatch):
    """Features of the splits they should be of, with the labels of these; transformed images have others.

    Pictures show the same.
    """
    given, data = [], labelled_images.make_data()

    def evaluated(*arguments, **options):
        given.append((*arguments, options))
        return {"lin_match_refit": len(given)}

    monkeypatch.setattr(scae.clustering, "evaluate", evaluated)
    config = labelled_images.make_config(
        data__shift=0, evaluate__affine=True, evaluate__released=True, evaluate__num_train=20, model__vote_std=1.0
    )
    experiment = scae.build(config, data=data)
    params = jax.jit(experiment.init)(jax.random.key(0))[0]
    noise = jax.random.normal(jax.random.key(1), (10**5,))  # for a timid start takes all images for one another
    params = jax.tree.map(lambda leaf: leaf + 0.2 * noise[: leaf.size].reshape(leaf.shape), params)
    figures = experiment.evaluate(params, data.test, jax.random.key(0), final=True)
    plain, affine, noisy = given[:2], given[2:4], given[4:]
    assert len(plain) == len(affine) == len(noisy) == len(scae.FEATURES)
    assert [figures[f"{name}_lin_match_released"] for name in scae.FEATURES] == [5, 6]

    def features(split, name):
        """By evaluation of another split, without training images."""
        given.clear()
        experiment.evaluate(params, split, jax.random.key(1), final=False)
        return given[scae.FEATURES.index(name)][2]

    for name, (train, train_label, test, test_label, more, options), transformed, noise in zip(
        scae.FEATURES, plain, affine, noisy, strict=True
    ):
        np.testing.assert_array_equal(train_label, data.train["label"][:20])
        np.testing.assert_array_equal(test_label, data.test["label"])
        np.testing.assert_array_equal(more[1], data.valid["label"])
        for found, split in ((train, data.train), (test, data.test), (more[0], data.valid)):
            np.testing.assert_allclose(found, features(split, name)[: len(found)], rtol=1e-5)
        assert options == {"seed": 0, "num_clusters": None, "full": True}
        assert transformed[5]["full"] is False  # plain images of training and transformed ones are not one set
        np.testing.assert_array_equal(transformed[0], train)
        assert np.abs(transformed[2] - test).max() > 1e-4
        assert noise[1] is None and np.abs(noise[2] - test).max() > 1e-4  # of the test images alone, as released
        np.testing.assert_array_equal(noise[3], data.test["label"])
    assert np.abs(plain[0][2] - plain[1][2]).max() > 1e-3

    told = explainer.explain(explainer.of_params(config, params), data.test["image"][0])

    def shown(*arrays, object_posterior):
        np.testing.assert_allclose(arrays[1][0], told.reconstruction, rtol=1e-4, atol=1e-6)
        assert np.abs(arrays[2][0] - told.reconstruction).max() > 1e-3
        for found, name in ((arrays[-1], "prior"), (object_posterior, "posterior")):
            np.testing.assert_allclose(found, features(data.test, name)[: len(found)], rtol=1e-4, atol=1e-6)
        return "shown"

    monkeypatch.setattr(scae.plots_capsules, "reconstructions", shown)
    assert experiment.figures(params, data.test, jax.random.key(2), {})["reconstructions"] == "shown"


def test_features():
    """By hand: of two objects and three parts, whose votes have joints of their own."""
    log_presence, log_votes = np.log([0.5, 0.25]), np.log([[1.0, 0.5, 0.1], [0.2, 0.4, 0.3]])
    share = np.array([[0.5, 0.25], [0.75, 0.125], [0.0, 1.0]])[..., None]
    joint = np.arange(6.0).reshape(3, 2, 1)
    seen = SimpleNamespace(
        capsules=capsules.Capsules(*map(jnp.asarray, (log_presence, log_votes)), *[jnp.zeros(())] * 4),
        explained=capsules.Explained(jnp.zeros(3), *map(jnp.asarray, (joint, joint, share))),
    )
    found = scae.features_of(seen)
    np.testing.assert_allclose(found["prior"], [0.5 * 1.0, 0.25 * 0.4], rtol=1e-5)
    np.testing.assert_allclose(found["posterior"], [1.25, 1.375], rtol=1e-6)
    np.testing.assert_allclose(found["log_joint"], np.log(np.exp(joint[..., 0]).sum(0)), rtol=1e-5)


def test_labels_of_tests_alone():
    data = labelled_images.make_data()
    data = data._replace(train={"image": data.train["image"]})
    experiment = scae.build(labelled_images.make_config(evaluate__affine=True), data=data)
    params = scenes.filled(experiment).init(jax.random.key(0))[0]
    figures = experiment.evaluate(params, data.test, jax.random.key(0), final=True)
    assert {"prior_nmi", "posterior_lin_match_refit"} <= figures.keys()
    left = ["max_act", "clust_nn", "lin_match", "lin_match_full", "lin_pred"]
    places = [f"{place}{feature}_" for place in ("", "affine_") for feature in scae.FEATURES]
    names = [f"{place}{name}" for place in places for name in left]
    assert figures["left_out"] == [name for name in names if not re.fullmatch("affine_.*_full", name)]
    assert {f"{place}nmi" for place in places} <= figures.keys()


def first_loss(**fields):
    experiment = scae.build(labelled_images.make_config(**fields), data=labelled_images.make_data())
    params = scenes.filled(experiment).init(jax.random.key(0))[0]
    batch = {name: jnp.asarray(rows[:4]) for name, rows in experiment.data.train.items()}
    keys = jax.random.split(jax.random.key(1), 4)
    run = jax.jit(jax.value_and_grad(experiment.loss, has_aux=True))
    (loss, (metrics, _)), grads = run(params, batch, keys, 0, ())
    return loss, metrics, grads


@pytest.mark.parametrize("form", ["release", "thesis"])
def test_the_loss_is_the_weighted_sum_of_its_terms(form):
    weights = dict(zip(scae.WEIGHTS, (2.0, 0.3, 3.0, 0.5, 0.6, 0.25, 7.0, 0.1, 0.7), strict=True))
    fields = {f"losses__{name}": value for name, value in weights.items()}
    loss, metrics, grads = first_loss(losses__sparsity=form, **fields)
    terms = {"image": -metrics["log_likelihood"], "parts": -metrics["part_log_likelihood"]}
    terms |= {name: metrics[name] for name in scae.WEIGHTS if name not in terms}
    np.testing.assert_allclose(loss, sum(weights[name] * terms[name] for name in weights), rtol=1e-5)
    assert metrics["posterior_between"] <= 0  # minus an entropy: that of the batch is to be high
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(grads))


@pytest.mark.parametrize("sobel", [False, True])
def test_terms_are_of_what_objects_make_of_the_batch(sobel):
    """Worked out from what the model sees of the same images, edges of which are the target where that is wanted."""
    fields = dict(data__sobel=sobel, data__shift=0, model__channels=3, model__pixel_stride=1)
    fields |= dict(model__vote_std=0.5, losses__num_classes=3.0)
    config, data = labelled_images.make_config(**fields), labelled_images.make_data(3)
    experiment, model = scenes.filled(scae.build(config, data=data)), explainer.make(config)
    params, images = experiment.init(None)[0], data.train["image"][:4]
    keys = jax.random.split(jax.random.key(1), 4)
    metrics = jax.jit(experiment.loss)(params, {"image": jnp.asarray(images)}, keys, 0, ())[1][0]

    @jax.jit
    def look():
        x = jnp.pad(images / np.float32(255), ((0, 0), (1, 1), (1, 1), (0, 0)))
        y = jax.vmap(labelled.sobel_target)(x) if sobel else x
        noise = jax.vmap(lambda key: jax.random.split(key)[1])(keys)
        return jax.vmap(model.infer, (None, 0, 0, 0))(params, noise, x, y)

    seen = jax.device_get(look())
    told, explained = seen.capsules, seen.explained
    p = np.exp(told.log_presence + told.log_vote_presence.max(-1))
    mass = explained.responsibility.sum((1, 3))
    upright = np.square((told.pose[..., :2] - np.eye(2)) / scae.TILT).sum((2, 3))
    expected = {
        "log_likelihood": seen.log_likelihood.mean(),
        "part_log_likelihood": seen.part_log_likelihood.mean(),
        "part_presence": np.exp(seen.parts.log_presence).sum(1).mean(),
        "prior_within": np.mean((p.sum(1) - 4 / 3) ** 2),
        "prior_between": np.mean((p.sum(0) - 4 / 3) ** 2),
        "posterior_within": labelled_images.entropy(mass).mean(),
        "posterior_between": -labelled_images.entropy(mass.sum(0)),
        "deformation": told.deformation.mean(),
        "upright": np.sum(p * upright, 1).mean() / 2,
        "objects_there": p.sum(1).mean(),
    }
    for name, value in expected.items():
        np.testing.assert_allclose(metrics[name], value, rtol=1e-4, err_msg=name)
    evaluated = experiment.evaluate(params, data.test, jax.random.key(0), final=False)["log_likelihood"]
    x = jnp.pad(data.test["image"] / np.float32(255), ((0, 0), (1, 1), (1, 1), (0, 0)))
    y = jax.vmap(labelled.sobel_target)(x) if sobel else x
    quiet = jax.jit(jax.vmap(lambda x, y: model.infer(params, None, x, y).log_likelihood))(x, y)
    np.testing.assert_allclose(evaluated, np.mean(quiet), rtol=1e-4)


def test_four_devices_are_one():
    """Sparsity losses are of the whole batch."""
    experiment = scae.build(labelled_images.make_config(train__batch_size=8), data=labelled_images.make_data())
    one, four = (scenes.one_step(experiment, num_devices) for num_devices in (1, 4))
    chex.assert_trees_all_close(four, one, rtol=1e-3, atol=1e-4)


def test_parts_may_learn_alone_at_first():
    """Until objects begin nothing of them learns but OPs, which come nearer to the exemplars."""
    config = labelled_images.make_config(curriculum__parts_alone=2, model__pose="matrix", model__relative=True)
    experiment = scae.build(config, data=labelled_images.make_data())
    assert [stage.first for stage in experiment.stages] == [0, 2]
    batch = {name: jnp.asarray(rows[:4]) for name, rows in experiment.data.train.items()}
    params = scenes.filled(experiment).init(jax.random.key(0))[0]
    run = jax.jit(jax.value_and_grad(experiment.loss, has_aux=True))
    outs = []
    for stage in experiment.stages:
        outs.append(run(params, stage.batch(batch), jax.random.split(jax.random.key(1), 4), 0, ()))
    (first, last), (first_grads, last_grads) = ([out[0][1][0] for out in outs], [out[1] for out in outs])
    assert first["exemplars"] > 0 and "exemplars" not in last and "posterior_within" not in first
    learning = [
        path for path, leaf in jax.tree.leaves_with_path(first_grads) if np.any(leaf) and "objects" in str(path)
    ]
    assert len(learning) == 1 and "static" in str(learning[0])
    assert any(np.any(leaf) for leaf in jax.tree.leaves(last_grads["inference"]["objects"]))
    assert np.any(first_grads["inference"]["parts"]["params"]["output"]["kernel"])


def test_parts_may_then_stay_as_they_are():
    fields = {"model__pose": "matrix", "model__relative": True, "losses__upright": 1.0}
    config = labelled_images.make_config(curriculum__parts_alone=2, curriculum__parts_fixed=True, **fields)
    experiment = scae.build(config, data=labelled_images.make_data())
    batch = {name: jnp.asarray(rows[:4]) for name, rows in experiment.data.train.items()}
    params = scenes.filled(experiment).init(jax.random.key(0))[0]
    keys = jax.random.split(jax.random.key(1), 4)
    grads, (metrics, _) = jax.jit(jax.grad(experiment.loss, has_aux=True))(params, batch, keys, 2, ())
    assert "log_likelihood" not in metrics and metrics["upright"] > 0
    for part in grads.values():
        assert not any(np.any(leaf) for leaf in jax.tree.leaves(part["parts"]))
        assert any(np.any(leaf) for leaf in jax.tree.leaves(part["objects"]))


def test_an_upright_object_does_not_tilt():
    pose = jnp.asarray([[[1.0, 0, 5], [0, 1, -7]], [[1.3, 0, 0], [0, 0.4, 0]], [[9.0, 0, 0], [0, 9, 0]]])
    some = {"votes": jnp.zeros((3, 1, 2, 3)), "scale": jnp.ones((3, 1)), "deformation": jnp.zeros(())}
    seen = capsules.Capsules(jnp.log(jnp.asarray([1.0, 0.5, 1e-9])), jnp.zeros((3, 1)), pose, **some)
    assert float(scae.tilt(seen)) == pytest.approx(0.5 * (1 + 4) / 2, abs=1e-4)
    slope = jax.grad(lambda shift: scae.tilt(seen._replace(log_presence=seen.log_presence + shift)))(0.0)
    assert float(slope) == 0  # objects are not to be absent in order to be upright


@pytest.mark.parametrize("preset", configs.PRESETS)
def test_presets_train(preset):
    """Some steps are finite, of images that are partly black, where ports go to NaN."""
    config = configs.get_config(f"mnist40_{preset}")
    labelled_images.shrink(config)
    config.data.update(canvas=(12, 12), shift=1)
    experiment = scae.build(config, data=labelled_images.make_data())
    both = scenes.train_finitely(experiment, {"image": jnp.asarray(experiment.data.train["image"][:4])})
    assert any((np.asarray(a) != b).any() for a, b in zip(*map(jax.tree.leaves, both), strict=True))


def test_a_run_of_two_stages(tmp_path):
    """Objects are learnt after parts, which then rest."""
    fields = {"parts_alone": 4, "parts_fixed": True}
    config = labelled_images.make_config(**{f"curriculum__{name}": value for name, value in fields.items()})
    config.losses.part_presence = 1.0
    config.train.update(num_steps=8, checkpoint_every=4)
    experiment = scenes.filled(scae.build(config, data=labelled_images.make_data()))
    experiment = experiment._replace(figures=lambda *_: {})
    content = loop.run(config, tmp_path / "run", lambda _: experiment)
    assert np.isfinite(content["log_likelihood"])
    last = restore.restore_run(tmp_path / "run", lambda _: experiment).params
    shutil.rmtree(tmp_path / "run" / "checkpoints" / "8")
    first = restore.restore_run(tmp_path / "run", lambda _: experiment).params
    for of_first, of_last in zip(first.values(), last.values(), strict=True):
        jax.tree.map(np.testing.assert_array_equal, of_first["parts"], of_last["parts"])
        old, new = (jax.tree.leaves(each["objects"]) for each in (of_first, of_last))
        assert any((a != b).any() for a, b in zip(old, new, strict=True))
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    told = [row for row in rows if "loss" in row]
    assert "exemplars" in told[0] and "exemplars" not in told[-1] and "part_log_likelihood" in told[-1]


def test_evaluation_has_no_noise():
    data = labelled_images.make_data()
    experiment = scae.build(labelled_images.make_config(data__shift=0), data=data)
    params = scenes.filled(experiment).init(jax.random.key(0))[0]
    figures = experiment.evaluate(params, data.test, jax.random.key(0), final=False)

    def log_likelihood(**fields):
        other = scae.build(labelled_images.make_config(**fields), data=data)
        return other.evaluate(params, data.test, jax.random.key(0), final=False)["log_likelihood"]

    assert log_likelihood(data__shift=0, data__seed=1) == figures["log_likelihood"]
    assert log_likelihood(data__seed=1) != log_likelihood()  # other places
    assert log_likelihood(data__shift=0, evaluate__released=True) == figures["log_likelihood"]


def test_it_learns_a_batch_by_heart():
    """Bars become better than black, and the objects' posterior leaves an image to fewer of them."""
    # Votes learn how wide they are: narrow ones, of objects that are no exemplars, are too far from all parts.
    config = labelled_images.make_config(data__shift=0, model__vote_std=0.0)
    experiment = scae.build(config, data=labelled_images.make_data())
    batch = {"image": experiment.data.train["image"][:6]}
    _, metrics = scenes.learn_by_heart(experiment, batch, 150, 3e-3)
    first, last = (
        {name: float(np.mean(each[i])) for name, each in metrics.items()} for i in (slice(5), slice(-5, None))
    )
    seen = np.zeros((6, 12, 12)) + 0.0
    seen[:, 1:11, 1:11] = batch["image"][..., 0] / 255
    std = config.model.output_std
    black = -np.sum(np.square(seen / std) / 2 + np.log(std * np.sqrt(2 * np.pi))) / 6
    assert first["log_likelihood"] < black < last["log_likelihood"]
    assert last["part_log_likelihood"] > first["part_log_likelihood"] + 5
    assert last["posterior_within"] < first["posterior_within"]


def test_affnist(tmp_path):
    """Images of 40x40 pixels, which are not shifted, by clusters of the data's own."""
    labels = np.arange(12) % 2
    bars = np.zeros((12, 40, 40), np.uint8)
    bars[labels == 0, 18:22, 5:35], bars[labels == 1, 5:35, 18:22] = 200, 200
    (tmp_path / "test_batches").mkdir()
    data = {"image": bars.reshape(12, -1).T, "label_int": labels.astype(np.uint8)[None]}
    scipy.io.savemat(tmp_path / "test_batches" / "1.mat", {"affNISTdata": data})
    config = labelled_images.make_config(data__canvas=(40, 40), data__shift=3, evaluate__affnist=str(tmp_path))
    experiment = scae.build(config, data=labelled_images.make_data())
    params = scenes.filled(experiment).init(jax.random.key(0))[0]
    figures = experiment.evaluate(params, experiment.data.test, jax.random.key(0), final=True)
    told = set(clustering.FIGURES) - {"lin_match_full"}
    names = {f"affnist_{feature}_{name}" for feature in scae.FEATURES for name in told}
    assert names <= figures.keys() and not any(name.startswith("affine_") for name in figures)


def test_training_on_all_splits():
    data = labelled_images.make_data()
    config = labelled_images.make_config(data__train_on_all=True)
    trained = scae.build(config, data=data).data
    np.testing.assert_array_equal(trained.train["label"], np.concatenate([split["label"] for split in data]))
    assert trained.test is data.test
    streamed = data._replace(train=Stream(3, lambda rows: {}))
    with pytest.raises(UserError, match="raise data.device_bytes"):
        scae.build(config, data=streamed)


def test_usage_tells_of_collapse():
    eye, there = np.eye(3)[[0, 1, 2, 0]], np.ones((4, 2))
    fine = scae.usage({"posterior": 2 * eye, "prior": eye, "part_presence": there, "explained": there.sum(1)})
    assert (fine["objects_used"], fine["parts_used"], fine["parts_there"], fine["objects_there"]) == (3, 2, 2, 1)
    assert fine["objects_effective"] == pytest.approx(np.exp(-(0.5 * np.log(0.5) + 0.5 * np.log(0.25))))
    assert fine["unexplained"] == 0 and fine["objects_vary"] > 0.4
    one = np.eye(3)[[0, 0, 0, 0]]  # of whose two parts the dummy explains one
    collapsed = scae.usage({"posterior": one, "prior": one, "part_presence": there, "explained": np.ones(4)})
    assert (collapsed["objects_used"], collapsed["objects_vary"], collapsed["unexplained"]) == (1, 0, 0.5)
    signature = scae.build(labelled_images.make_config(), data=labelled_images.make_data()).signature
    assert signature(fine) is None
    assert signature(collapsed) == "objects have collapsed: one explains all images"
    assert signature(fine | {"parts_used": 1}).startswith("parts have collapsed")
    assert signature(fine | {"objects_used": 0}) == "objects have collapsed: none explains any part"
    nothing = scae.usage({"posterior": 0 * eye, "prior": 0 * eye, "part_presence": 0 * there, "explained": np.zeros(4)})
    assert all(np.isfinite(value) for value in nothing.values())


def test_presets_have_what_thesis_and_release_tell():
    """Facts of table 6.A.2 and of the released recipe."""
    for name in ("mnist", "mnist40"):
        thesis, release = (configs.get_config(f"{name}_{preset}") for preset in configs.PRESETS)
        assert (thesis.model.num_parts, thesis.model.num_capsules) == (24, 24)
        assert (release.model.num_parts, release.model.num_capsules) == (40, 32)
        assert (thesis.optimizer.learning_rate, release.optimizer.learning_rate) == (1e-5, 3e-5)
        weights = ("prior_within", "prior_between", "posterior_within", "posterior_between")
        assert [thesis.losses[w] for w in weights] == [1, 1, 10, 10]
        assert [release.losses[w] for w in weights] == [2, 0.35, 0.7, 0.2]
        assert (thesis.data.train_on_all, release.data.train_on_all) == (True, False)
        assert (thesis.evaluate.released, release.evaluate.released) == (False, True)
        for config in (thesis, release):
            assert config.optimizer.eps == pytest.approx(1e-2 / 128**2) and config.optimizer.decay == "constant"
    numbers = {
        "svhn": ((24, 32), (1e-4, "exponential", 1_000), [2.56, 0.22, 0.1, 8.62, 0.26]),
        "cifar10": ((32, 64), (1e-4, "exponential", 3_000), [2.075, 0.17, 0.1, 1.39, 7.32]),
    }
    for name, (sizes, rate, weights) in numbers.items():
        for preset in configs.PRESETS:
            config = configs.get_config(f"{name}_{preset}")
            assert (config.model.num_parts, config.model.num_capsules) == sizes
            c = config.optimizer
            assert (c.learning_rate, c.decay, c.decay_steps) == rate
            names = ("parts", "prior_within", "prior_between", "posterior_within", "posterior_between")
            assert [config.losses[w] for w in names] == weights and config.data.sobel
            assert config.model.encoder_strides == (1, 1, 2, 2) and config.model.template_size == (14, 14)


@pytest.mark.parametrize("name", ["mnist", "mnist40", "affnist", "svhn", "cifar10", "own"])
def test_presets_have_each_what_the_other_has_not(name):
    differences = {
        "thesis": ("log_presence", "normalised", "template", "relu", "relu", 0.0, False, False, "thesis"),
        "release": ("release", "unnormalised", "alpha", "sigmoid", "sigmoid", 0.01, True, True, "release"),
    }
    for preset, expected in differences.items():
        config = configs.get_config(f"{name}_{preset}")
        m = config.model
        kinds = m.mask, m.mixture, m.mixing, m.template_nonlinearity, m.colour_nonlinearity, m.dummy
        assert (*kinds, m.coloured, m.background, config.losses.sparsity) == expected
        assert (m.encoder_features, m.pixel_stride, m.output_std) == ((128,) * 4, 1, 1.0)
        assert (m.pose, m.part_weight, m.relative, m.vote_std) == ("composed", "presence", False, 0.0)
        assert (config.losses.deformation, config.losses.part_presence, config.curriculum.parts_alone) == (10.0, 0.0, 0)
        assert (config.optimizer.name, config.optimizer.clip_norm) == ("rmsprop_tf", 0.0)
        assert (config.train.batch_size, config.train.num_steps) == (128, 300_000)


SIZES = {"embedded": (16, 1), "mnist": (28, 1), "mnist40": (28, 1), "svhn": (32, 3), "cifar10": (32, 3), "own": (9, 3)}


@pytest.mark.parametrize("variant", configs.VARIANTS)
def test_variants(variant):
    """Each makes sense as it is, and has gradients if it is made small."""
    config = configs.get_config(variant)
    if variant.startswith("own"):
        with pytest.raises(UserError, match="data.source is empty"):
            scae.build(config)
        config.data.source = "images.npz"
    config.evaluate.affnist = ""
    side, channels = SIZES[variant.split("_")[0].replace("affnist", "mnist40")]
    split = {"image": np.full((64, side, side, channels), 99, np.uint8), "label": np.arange(64, dtype=np.int32) % 4}
    data = Data(split, split, split)
    jax.eval_shape(scae.build(config, data=data).init, jax.random.key(0))
    labelled_images.shrink(config)
    experiment = scae.build(config, data=data)
    shapes = jax.eval_shape(experiment.init, jax.random.key(0))[0]
    out = jax.eval_shape(
        jax.grad(experiment.loss, has_aux=True), shapes, split, jax.random.split(jax.random.key(0), 64), 0, ()
    )
    assert jax.tree.structure(out[0]) == jax.tree.structure(shapes)
    experiment.optimizer.init(jax.tree.map(lambda leaf: jnp.zeros(leaf.shape), shapes))
    with pytest.raises(ValueError, match="write one of :embedded"):
        configs.get_config("all")


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"model__channels": 3}, r"images have shape \(10, 10, 1\): set model.channels=1"),
        ({"evaluate__num_clusters": 1}, "evaluate.num_clusters=1 cannot match 2 classes: use 2 or more"),
        ({"evaluate__num_clusters": 7}, "6 images cannot make 7 clusters: raise data.num_valid, or give more images"),
        ({"evaluate__num_train": 1}, "1 images cannot make 2 clusters: raise evaluate.num_train"),
        (
            {"data__canvas": (8, 8), "data__affine": True, "curriculum__parts_alone": 2},
            r"data.canvas=\(8, 8\) is smaller than images, \(10, 10\), which objects begin as",
        ),
        ({"model__encoder_strides": (0, 1)}, r"encoder_strides=\(0, 1\): each must be 1 or more"),
        ({"losses__sparsity": "none"}, "losses.sparsity='none' is unknown"),
        ({"losses__image": -1.0}, "losses.image=-1.0: use 0 or more"),
        ({"evaluate__batch_size": 0}, "evaluate.batch_size=0 must be at least 1"),
        ({"evaluate__num_train": -1}, "evaluate.num_train=-1: use 0 or more"),
        ({"evaluate__affnist": "/nowhere"}, "evaluate.affnist has images of 40x40x1: set data.canvas"),
        (
            {"evaluate__affnist": "/nowhere", "data__canvas": (40, 40)},
            "/nowhere holds no test_batches",
        ),
        ({"data__name": "scenes"}, "data.name='scenes' has no whole images"),
        ({"curriculum__parts_fixed": True}, "curriculum.parts_fixed=True would learn no parts"),
        ({"curriculum__parts_alone": 4}, "parts_alone=4: use 0 or more, and less than train.num_steps=4, say 3"),
        (
            {"curriculum__parts_alone": 2, "model__num_capsules": 25},
            "model.num_capsules=25 begin as exemplars: 24 images are too few",
        ),
        ({"model__part_encoder": "mean"}, "model.part_encoder='mean' is unknown"),
    ],
)
def test_what_makes_no_sense_is_refused(fields, said):
    with pytest.raises(UserError, match=said):
        scae.build(labelled_images.make_config(**fields), data=labelled_images.make_data())
