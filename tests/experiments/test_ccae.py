"""The experiment of constellations: it runs from end to end, and figures are those of known answers."""

import functools
import json

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import ccae as configs
from experiments import ccae
from objcentric.data import constellations
from objcentric.errors import UserError
from objcentric.models import capsule_fits, capsules
from objcentric.models import ccae as ccae_model
from objcentric.training import loop, restore
from tests.experiments import labelled_images, scenes


@pytest.fixture(scope="module", params=["fast", "baseline"])
def run(request, tmp_path_factory):
    """Folder and content of eval.json of a finished run."""
    folder = tmp_path_factory.mktemp("runs") / request.param
    return folder, loop.run(labelled_images.make_constellations(request.param), folder, ccae.build)


def test_a_run(run):
    folder, content = run
    assert (content["steps"], content["num_examples"]) == (4, 13)
    assert 0 <= content["error"] <= 2 / 3 and len(content["active"]) == 3
    assert np.isfinite(content["log_likelihood"]) and 0 < content["capsules"] < 3
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert {"loss", "too_few", "prior_within", "prior_between", "deformation", "log_likelihood"} <= rows[0].keys()
    assert {path.name for path in (folder / "figures").iterdir()} >= {"constellations.png", "learning_curve.png"}


@pytest.mark.parametrize("variant", configs.VARIANTS)
def test_variants(variant):
    experiment = ccae.build(configs.get_config(variant))
    params = jax.eval_shape(experiment.init, jax.random.key(0))[0]
    size = sum(leaf.size for leaf in jax.tree.leaves(params["inference"]))
    published = variant in ("thesis", "thesis_baseline", "release")
    assert (size > 5e6) == published
    if published:
        config, release = configs.get_config(variant), variant == "release"
        weights = {"prior_within": 1, "prior_between": 1, "posterior_within": 0, "posterior_between": 0, "too_few": 10}
        assert {name: config.losses[name] for name in weights} == weights
        deformation = 0 if variant.endswith("baseline") else 10
        assert (config.losses.deformation, config.losses.least_parts) == (deformation, 1 if release else 2)
        assert config.losses.sparsity == ("release" if release else "thesis")
        assert (config.data.rotation, config.data.normalise) == ((90, "world") if release else (180, "example"))
        assert config.model.mask == ("release" if release else "log_presence")
        assert (config.optimizer.name, config.optimizer.learning_rate) == ("rmsprop_tf", 1e-5)
        assert config.optimizer.eps == pytest.approx(640.0**-2)
        assert (config.train.batch_size, config.train.num_steps) == (64, 300_000)
    with pytest.raises(ValueError, match="write one of :fast"):
        configs.get_config("all")


def test_candidates_of_the_baseline_depend_on_the_scene(run):
    folder, _ = run
    fitted = restore.restore_run(folder, ccae.build)
    model = ccae_model.make(ccae_model.Config(**fitted.config.model))
    points = jax.random.uniform(jax.random.key(0), (2, 11, 2), minval=-1)
    look = jax.jit(jax.vmap(lambda x: model.infer(fitted.params, None, x, jnp.ones(11)).capsules.votes))
    votes = look(points)
    assert jnp.max(jnp.abs(votes[0] - votes[1])) > 1e-4


def first_loss(params=None, **fields):
    config = labelled_images.make_constellations(**fields)
    experiment = scenes.filled(ccae.build(config))
    params = experiment.init(None)[0] if params is None else params
    batch = {"seed": jnp.arange(4, dtype=jnp.uint32)}
    keys = jax.random.split(jax.random.key(1), 4)
    (loss, (metrics, _)), grads = jax.jit(jax.value_and_grad(experiment.loss, has_aux=True))(params, batch, keys, 0, ())
    return loss, metrics, grads


def test_the_loss_is_the_weighted_sum_of_its_terms():
    values = (2.0, 7.0, 0.1, 3.0, 0.5, 1.5, 0.7)
    weights = dict(zip(ccae.WEIGHTS, values, strict=True)) | {"likelihood": -2.0}
    given = {f"losses__{name}": abs(value) for name, value in weights.items()}
    loss, metrics, grads = first_loss(
        model__deformable=True, losses__refine=0, losses__pose_scale=0.0, losses__turns=(), evaluate__refine=0, **given
    )
    terms = metrics | {"likelihood": metrics["log_likelihood"]}
    expected = sum(weight * terms[name] for name, weight in weights.items())
    np.testing.assert_allclose(loss, expected, rtol=1e-5)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(grads))


def test_terms_are_of_the_capsules_that_win_points_that_are_there():
    """Worked out from what the model sees of the same scenes."""
    config = labelled_images.make_constellations(
        losses__refine=0, losses__pose_scale=0.0, losses__turns=(), evaluate__refine=0, curriculum__keep=(0.6, 0.6)
    )
    experiment, model = scenes.filled(ccae.build(config)), ccae_model.make(ccae.typed(config))
    params, keys = experiment.init(None)[0], jax.random.split(jax.random.key(1), 8)
    metrics = jax.jit(experiment.loss)(params, {"seed": jnp.arange(8, dtype=jnp.uint32)}, keys, 0, ())[1][0]

    @jax.jit
    def look():
        scene_keys, infer_keys = jax.vmap(lambda key: jax.random.split(key), out_axes=1)(keys)
        shown = constellations.batch(constellations.make_config(config.data), scene_keys, 0.6)
        return shown, jax.vmap(model.infer, (None, 0, 0, 0))(params, infer_keys, shown.points, shown.presence)

    shown, seen = jax.device_get(look())
    there, p = shown.presence > 0, np.exp(seen.capsules.log_presence + seen.capsules.log_vote_presence.max(-1))
    wins = (there[..., None] & (seen.winner[..., None] == np.arange(3))).sum(1)
    assert 0 < np.mean(wins >= config.losses.least_parts) < 1 and not there.all()
    enough = np.where(wins >= config.losses.least_parts, p, 1 - p)
    mass = (seen.explained.responsibility.sum(3) * there[..., None]).sum(1)
    expected = {
        "too_few": -np.log(enough).sum(1).mean(),
        "prior_within": np.mean((p.sum(1) - 3 / config.losses.num_classes) ** 2),
        "prior_between": np.mean((p.sum(0) - 8 / config.losses.num_classes) ** 2),
        "posterior_within": labelled_images.entropy(mass).mean(),
        "posterior_between": -labelled_images.entropy(mass.sum(0)),
        "log_likelihood": np.mean(np.sum(seen.explained.log_likelihood, 1, where=there)),
    }
    for name, value in expected.items():
        np.testing.assert_allclose(metrics[name], value, rtol=1e-4, err_msg=name)


def test_four_devices_are_one():
    """Sparsity losses are of the whole batch."""
    fields = {f"losses__posterior_{axis}": 1.0 for axis in ("within", "between")}
    experiment = ccae.build(labelled_images.make_constellations("release", train__batch_size=8, **fields))
    one, four = (scenes.one_step(experiment, num_devices) for num_devices in (1, 4))
    chex.assert_trees_all_close(four, one, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("variant", ["thesis", "release", "thesis_baseline"])
def test_what_is_published_trains(variant):
    """Some steps are finite, of scenes that may be empty."""
    experiment = ccae.build(labelled_images.make_constellations(variant))
    scenes.train_finitely(experiment, {"seed": jnp.arange(8, dtype=jnp.uint32)})


@pytest.mark.parametrize(
    ("pattern", "known"), [("square", ([1, 1, 1, 1, 2, 2],)), ("triangle", ([0, 1, 1, 1, 1, 2], [0, 1, 1, 1, 2, 2]))]
)
def test_offsets_may_begin_as_a_constellation(pattern, known):
    """Squares of distances, in units of a side's; a triangle has one of its points twice."""
    config = labelled_images.make_constellations(data__patterns=(pattern,) * 3, curriculum__keep=(1e-6, 0.5))
    params = jax.jit(ccae.build(config).init)(jax.random.key(0))[0]
    static = params["generative"]["params"]["static"]
    assert static.shape == (3, 4, 2) and np.ptp(static, axis=0).min() > 1e-3
    for points in np.asarray(static):
        squares = sorted(np.sum(np.square(points[i] - points[j])) for i in range(4) for j in range(i))
        assert [round(float(square / squares[1]), 2) for square in squares] in known
        distinct = np.unique(points.round(5), axis=0)
        assert len(distinct) == 4 - (pattern == "triangle")
        np.testing.assert_allclose(distinct.mean(0), 0, atol=1e-5)


def test_offsets_of_fewer_points_than_votes():
    points = jnp.asarray([[1.0, 0.0], [5.0, 5.0], [3.0, 2.0]])
    for presence, known in (([1, 0, 1], [[-1, -1], [1, 1], [-1, -1], [-1, -1]]), ([1, 1, 1], None)):
        offsets = ccae.offsets(points, jnp.asarray(presence, jnp.float32), 4)
        assert offsets.shape == (4, 2)
        np.testing.assert_allclose(
            offsets, known or np.asarray(points - points.mean(0, keepdims=True))[[0, 1, 2, 0]], atol=1e-6
        )


def test_what_points_belong_to_is_refined_once_constellations_come_in():
    """The likelihood is then of what a refined explanation says; evaluation tells how much that mends."""
    losses = {}
    for refine in (0, 3):
        fields = {"losses__refine": refine, "losses__pose_scale": 0.1 if refine else 0.0, "losses__turns": ()}
        config = labelled_images.make_constellations(**fields, curriculum__begin=10, curriculum__steps=10)
        experiment = scenes.filled(ccae.build(config))
        params = experiment.init(None)[0]
        batch, keys = {"seed": jnp.arange(8, dtype=jnp.uint32)}, jax.random.split(jax.random.key(1), 8)
        loss = jax.jit(experiment.loss)
        losses[refine] = [float(loss(params, batch, keys, step, ())[0]) for step in (10, 15, 20, 99)]
    plain, refined = losses[0], losses[3]
    assert refined[0] == pytest.approx(plain[0], rel=1e-5)
    assert refined[1] - plain[1] == pytest.approx((refined[2] - plain[2]) / 2, rel=0.5) and refined[2] > plain[2]
    figures = experiment.evaluate(params, experiment.data.test, jax.random.key(0), final=True)
    assert {"error", "fitted_error", "refined_error", "unguided_error"} <= figures.keys()


SQUARE = jnp.asarray([[[-1.0, -1], [-1, 1], [1, 1], [1, -1]]]) / 2
ROUGH_POSE = 0.9, 0.1, 0.05, 0, 0, -0.05  # about right


def one_square(**fields):
    """Config of scenes of a square, one capsule and explanations that are refined at once; no other losses."""
    config = labelled_images.make_constellations(data__patterns=("square",), model__num_capsules=1, losses__refine=30)
    config.curriculum.update(begin=0, steps=0)
    for name in ccae.WEIGHTS[1:]:
        config.losses[name] = 0.0
    config.update_from_flattened_dict({name.replace("__", "."): value for name, value in fields.items()})
    return config


def test_shapes_are_learnt_of_refined_explanations():
    """Where these are exact, shapes are to stay as they are, however wrong the encoder's poses are."""
    config = one_square()
    experiment = ccae.build(config)
    params = jax.jit(experiment.init)(jax.random.key(0))[0]
    part = params["generative"]["params"]
    part["static"] = SQUARE
    part["output_bias"] = jnp.asarray([[*ROUGH_POSE, *[0.0] * 9]])
    batch, keys = {"seed": jnp.arange(8, dtype=jnp.uint32)}, jax.random.split(jax.random.key(1), 8)
    slope = jax.jit(jax.grad(lambda *args: experiment.loss(*args)[0]))

    def gradients(shape):
        grads = slope({**params, "generative": {"params": part | {"static": shape}}}, batch, keys, 1, ())
        return np.asarray(grads["generative"]["params"]["static"]), grads["inference"]

    exact, encoder = gradients(part["static"])
    wrong, _ = gradients(part["static"].at[0, 2].add(0.2))
    assert np.abs(exact).max() < 0.05 * np.abs(wrong).max()
    assert any(np.abs(leaf).max() > 0 for leaf in jax.tree.leaves(encoder))


@pytest.mark.parametrize("pose_scale", [0.0, 0.1])
def test_how_much_poses_are_taught(pose_scale):
    """By their own standard deviation, or as much whatever that is; it is learnt all the same."""
    config = one_square(losses__pose_scale=pose_scale)
    experiment = scenes.filled(ccae.build(config))
    params = experiment.init(None)[0]
    part = params["generative"]["params"]
    part["static"] = SQUARE
    batch, keys = {"seed": jnp.arange(8, dtype=jnp.uint32)}, jax.random.split(jax.random.key(1), 8)
    slope = jax.jit(jax.grad(lambda *args: experiment.loss(*args)[0]))

    def gradients(scale):
        bias = jnp.asarray([[*ROUGH_POSE, 0, *[0.0] * 4, *[scale] * 4]])
        of = {**params, "generative": {"params": part | {"output_bias": bias}}}
        return np.asarray(slope(of, batch, keys, 1, ())["generative"]["params"]["output_bias"])[0]

    narrow, wide = gradients(-4.0), gradients(-2.0)
    apart = np.linalg.norm(narrow[:6] - wide[:6]) / np.linalg.norm(wide[:6])
    assert apart < 0.1 if pose_scale else apart > 1
    assert np.abs(narrow[-4:]).min() > 0 and np.abs(wide[-4:]).min() > 0


def test_poses_are_taught_by_distances():
    """Each of the four points pulls as much from near as from far, by 1 / pose_scale."""
    experiment = scenes.filled(ccae.build(one_square(losses__pose_scale=0.1)))
    params = experiment.init(None)[0]
    part = params["generative"]["params"]
    part["static"] = SQUARE
    batch, keys = {"seed": jnp.arange(8, dtype=jnp.uint32)}, jax.random.split(jax.random.key(1), 8)
    slope = jax.jit(jax.grad(lambda *args: experiment.loss(*args)[0]))
    for shift in (1.0, 2.0):
        part["output_bias"] = jnp.asarray([[0.9, 0.1, shift, 0, 0, shift, *[0.0] * 9]])
        gradient = np.asarray(slope(params, batch, keys, 1, ())["generative"]["params"]["output_bias"])[0]
        assert np.linalg.norm(gradient[[2, 5]]) == pytest.approx(4 / 0.1, rel=0.06)
    nowhere = jax.grad(lambda x: ccae.distance(x, x))(jnp.zeros(2))
    np.testing.assert_array_equal(nowhere, 0.0)


def test_few_constellations_come_first():
    config = labelled_images.make_constellations(
        curriculum__begin=10, curriculum__steps=10, curriculum__keep=(1e-6, 0.5)
    )
    experiment = scenes.filled(ccae.build(config))
    params = experiment.init(None)[0]
    batch, keys = {"seed": jnp.arange(64, dtype=jnp.uint32)}, jax.random.split(jax.random.key(1), 64)
    loss = jax.jit(experiment.loss)
    losses = [loss(params, batch, keys, step, ())[1][0] for step in (0, 9, 20, 99)]
    assert losses[0] == losses[1] and losses[2] == losses[3]  # before and after nothing changes
    alone, all_of_them = losses[0], losses[2]
    # A scene of less has fewer points to be explained, each of which is unlikely as yet.
    assert all_of_them["log_likelihood"] < alone["log_likelihood"] - 1
    world = constellations.make_config(config.data)
    counts = [
        np.mean([len(set(row[row >= 0])) for row in np.asarray(constellations.batch(world, keys, keep).constellation)])
        for keep in (1e-6, None)
    ]
    assert counts[0] == 1 and 1.5 < counts[1] < 2  # 12 / 7 in the mean


def test_posteriors_are_of_the_points_that_there_are(monkeypatch):
    """Sums over votes and points, of responsibilities as of the joint, whose logarithm it is."""
    config, asked = labelled_images.make_constellations(losses__refine=0, losses__pose_scale=0.0, losses__turns=()), []
    shape = config.model.num_capsules, config.model.num_votes

    def infer(params, key, points, presence):
        whole = jnp.zeros((len(points), *shape))
        explained = capsules.Explained(jnp.zeros(len(points)), whole, whole, whole + 0.5)
        none = jnp.zeros(())
        seen = capsules.Capsules(jnp.zeros(shape[0]), jnp.zeros(shape), none, none, none, none)
        return ccae_model.Seen(capsules=seen, explained=explained, winner=jnp.zeros(len(points), int))

    monkeypatch.setattr(ccae_model, "make", lambda config: ccae_model.CCAE(None, infer, None, None, None))
    monkeypatch.setattr(ccae.sparsity, "posterior", lambda *args: asked.append(args) or (0.0, 0.0))
    keys = jax.random.split(jax.random.key(1), 8)

    @jax.jit
    def look():
        ccae.build(config).loss({}, {"seed": jnp.arange(8)}, keys, jnp.int32(10**6), ())
        shown = jax.vmap(lambda key: jax.random.split(key))(keys)[:, 0]
        world, keep = constellations.make_config(config.data), config.curriculum.keep[-1]
        return *asked[0][:2], constellations.batch(world, shown, keep).presence

    responsibility, log_joint, presence = look()
    there = presence.sum(1)[:, None]
    np.testing.assert_allclose(responsibility, np.broadcast_to(there * 0.5 * shape[1], responsibility.shape))
    np.testing.assert_allclose(log_joint, np.broadcast_to(np.log(there * shape[1]), log_joint.shape), rtol=1e-5)


def test_scenes_of_training_are_new_in_each_step_and_those_of_evaluation_are_not():
    experiment = scenes.filled(ccae.build(labelled_images.make_constellations(model__noise=2.0)))
    params = experiment.init(None)[0]
    batch = {"seed": jnp.arange(4, dtype=jnp.uint32)}
    loss = jax.jit(experiment.loss)
    losses = [float(loss(params, batch, jax.random.split(jax.random.key(i), 4), 0, ())[0]) for i in (1, 2)]
    assert losses[0] != losses[1]  # and noise besides
    figures = [experiment.evaluate(params, experiment.data.test, jax.random.key(i), final=True) for i in (1, 2)]
    assert figures[0] == figures[1]  # neither scenes nor presences are noisy


def test_errors_are_of_the_winners_in_the_scenes_of_the_split(monkeypatch):
    """The encoder's, and what these become, or what guesses do, when refined."""
    config = labelled_images.make_constellations(evaluate__refine=3, evaluate__starts=2)
    world = constellations.make_config(config.data)
    experiment = scenes.filled(ccae.build(config))
    params = experiment.init(None)[0]
    given = []

    def accuracy(*arguments):
        given.append(arguments)
        return 1 - 0.25 * len(given)

    monkeypatch.setattr(ccae.clustering, "segmentation_accuracy", accuracy)
    figures = experiment.evaluate(params, experiment.data.test, jax.random.key(0), final=True)
    names = "error", "fitted_error", "refined_error", "unguided_error"
    assert [figures[name] for name in names] == [0.25, 0.5, 0.75, 1]
    keys = jax.vmap(jax.random.fold_in, (None, 0))(jax.random.key(config.data.seed), experiment.data.test["seed"])
    shown = constellations.batch(world, keys)
    model = ccae_model.make(ccae.typed(config))
    infer = jax.jit(lambda points, presence: jax.vmap(model.infer, (None, None, 0, 0))(params, None, points, presence))
    seen = infer(shown.points, shown.presence)
    fold = jax.vmap(jax.random.fold_in, (0, None))
    shape = params["generative"]["params"]["static"]

    @jax.jit
    def refined(start):
        first = start.capsules
        others = jax.vmap(capsule_fits.disturb)(jax.vmap(lambda key: jax.random.split(key)[1])(fold(keys, 1)), first)
        starts = jax.tree.map(lambda *leaves: jnp.stack(leaves, 1), first, others)
        refine = jax.vmap(functools.partial(model.refine, shape, num_steps=3))
        return refine(shown.points, shown.presence, start, starts).winner

    guesses = jax.vmap(ccae.guess, (0, None, 0))(fold(keys, 2), shape, seen.capsules)
    blind = seen._replace(capsules=guesses, explained=jax.jit(jax.vmap(model.explain))(shown.points, guesses))
    fit = jax.jit(jax.vmap(functools.partial(model.fit, num_steps=3)))
    fitted = fit(shown.points, shown.presence, seen.capsules).winner
    winners = seen.winner, fitted, *map(refined, (seen, blind))
    for (winner, true, there, *sizes), expected in zip(given, winners, strict=True):
        np.testing.assert_array_equal(winner, expected)
        np.testing.assert_array_equal(true, shown.constellation)
        np.testing.assert_array_equal(there, shown.presence > 0)
        assert sizes == [3, len(world.patterns)]
    assert len({np.asarray(winner).tobytes() for winner, *_ in given}) == 4

    drawn = []
    monkeypatch.setattr(ccae.plots_capsules, "constellations", lambda *arrays, num_capsules: drawn.append(arrays))
    experiment.figures(params, experiment.data.test, jax.random.key(0), {})
    some = np.flatnonzero(np.asarray(shown.presence).any(1))[: config.evaluate.num_pictures]
    expected = shown.points, shown.presence, shown.constellation, seen.winner
    for found, whole in zip(*drawn, expected, strict=True):
        np.testing.assert_allclose(found, np.asarray(whole)[some], rtol=1e-5)


def test_a_guess_does_not_know_the_scene():
    """Shapes about as large as constellations may be, wherever that is."""
    config = labelled_images.make_constellations()
    model = ccae_model.make(ccae.typed(config))
    params = jax.jit(model.init)(jax.random.key(0))
    look = jax.jit(lambda points: model.infer(params, None, points, jnp.ones(11)).capsules)
    one, other = (look(jax.random.uniform(jax.random.key(i), (11, 2), minval=-1)) for i in (1, 2))
    shape = 3.0 * jax.random.normal(jax.random.key(3), (3, 4, 2))
    guesses = [ccae.guess(jax.random.key(0), shape - shape.mean(1, keepdims=True), seen) for seen in (one, other)]
    jax.tree.map(np.testing.assert_array_equal, *(guess._replace(deformation=0) for guess in guesses))
    votes = np.asarray(guesses[0].votes)
    radius = np.sqrt(np.square(votes - votes.mean(1, keepdims=True)).sum(-1).mean(-1))
    np.testing.assert_allclose(radius, ccae.BLIND, rtol=1e-5)
    assert np.abs(votes.mean(1)).max() < 0.5


def test_it_learns_single_constellations():
    """Where one is there alone, its points become far likelier than points anywhere."""
    config = labelled_images.make_constellations(model__features=16, model__hidden=32, model__units=8)
    experiment = ccae.build(config)
    params, metrics = scenes.learn_by_heart(experiment, {"seed": np.arange(32, dtype=np.uint32)}, 300, 5e-3)
    first, last = np.mean(metrics["log_likelihood"][:10]), np.mean(metrics["log_likelihood"][-10:])
    assert first < last - 5 and np.isfinite(metrics["log_likelihood"]).all()
    assert np.mean(metrics["posterior_within"][-10:]) < 0.3


def test_what_failed():
    signature = ccae.build(labelled_images.make_constellations()).signature
    assert signature({"error": 0.03, "active": [0.5, 0.5, 0.5]}) is None
    assert signature({"error": 0.3, "active": [0.5, 0.5, 0.5]}) == "error above 4%"
    assert signature({"error": 0.3, "active": [0.5, 0.0, 0.5]}) == "1 of 3 capsules unused"


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"data__name": "circles"}, "data.(name='circles' has no constellations|.* is missing)"),
        ({"losses__sparsity": "none"}, "losses.sparsity='none' is unknown"),
        ({"curriculum__keep": (0.0, 0.5)}, r"curriculum.keep=\(0.0, 0.5\), data.keep=0.5: use more than 0"),
        ({"curriculum__keep": (0.5,)}, "two in the curriculum, or none"),
        ({"losses__pose_scale": -0.1}, "losses.pose_scale=-0.1: use 0, for the capsules' own, or more"),
        ({"curriculum__begin": -1}, "begin and steps must be at least 0"),
        ({"model__pose": "angle"}, "model.pose='angle' is unknown"),
        ({"model__magic": 1}, "model.magic is unknown: see configs/ccae.py"),
        ({"model__decoder": "baseline"}, "model.decoder='baseline' has points that do not depend on the input"),
        ({"model__decoder": "baseline", "model__deformable": True}, "model.decoder='baseline' has no poses"),
        ({"losses__refine": 0}, "losses.pose_scale and turns are of refined explanations: set losses.refine"),
        ({"model__scale": "all"}, "model.scale='all' is unknown"),
        ({"data__allow_empty": True}, "curriculum.exemplars may be empty scenes: set data.allow_empty=False"),
        ({"losses__too_few": -1.0}, "losses.too_few=-1.0: use 0 or more"),
        ({"losses__num_classes": 0.0}, "losses.num_classes=0.0 must be above 0"),
        ({"losses__least_parts": 0}, "losses.least_parts=0 must be at least 1"),
        ({"evaluate__num_pictures": 0}, "evaluate.num_pictures=0 must be at least 1"),
        ({"model__decoder": "mlp"}, "model.decoder='mlp' is unknown"),
        ({"data__keep": 2.0}, "data.keep=2.0 must lie"),
        ({"losses__refine": -1}, "losses.refine=-1: use 0, for none, or more"),
        ({"evaluate__starts": 0}, "evaluate.starts=0 must be at least 1"),
        ({"model__deformable": True}, "losses.refine=8 fits similarities of known shapes: .* deformable=False"),
        ({"model__vote_presence": True}, "losses.refine=8 fits similarities of known shapes: .* vote_presence=False"),
        ({"model__mixture": "unnormalised"}, "losses.refine=8 fits .* mixture='normalised'"),
        ({"model__dummy": 0.1}, "losses.refine=8 fits .* dummy=0"),
        ({"losses__turns": (1.0,) * 9}, "losses.turns=.* would try 1331 choices of starts of 3 capsules"),
        ({"evaluate__starts": 10}, "evaluate.starts=10 would try 1331 choices of starts of 3 capsules"),
        ({"model__similarity": False}, "losses.refine=8 fits similarities of known shapes: set model.similarity"),
        (
            {"model__num_capsules": 6, "losses__refine": 0, "losses__pose_scale": 0.0, "losses__turns": ()},
            "evaluate.refine=20 fits .* num_capsules to 5 at most",
        ),
    ],
)
def test_what_makes_no_sense_is_refused(fields, said):
    with pytest.raises(UserError, match=said):
        ccae.build(labelled_images.make_constellations(**fields))
