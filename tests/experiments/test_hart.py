"""The experiment of trackers on tiny videos and worlds: it runs from end to end; figures are those of known answers."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import hart_kitti, hart_kth
from configs import mohart as mohart_configs
from experiments import hart
from objcentric.data import circles
from objcentric.data.loader import Data, Stream
from objcentric.errors import UserError
from objcentric.models import hart as model
from objcentric.nn.appearance import AlexNet, read_weights, write_weights
from objcentric.training import loop
from tests.data import videos as video_files
from tests.experiments import scenes, videos

ONE_STAGE = {"curriculum__first_frames": 5, "curriculum__steps": ()}  # each is a program, which takes its time


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Folder and content of eval.json of a finished run on videos."""
    folder, config = tmp_path_factory.mktemp("runs") / "mohart", videos.make_config(**ONE_STAGE)
    experiment = scenes.filled(hart.build(config, data=videos.make_data()))
    return folder, loop.run(config, folder, lambda _: experiment)


def test_stages_have_the_first_frames():
    experiment = hart.build(videos.make_config(), data=videos.make_data())
    batch = jax.tree.map(jnp.asarray, videos.make_split(2, 0))
    assert [stage.first for stage in experiment.stages] == [0, 2]
    for stage, length in zip(experiment.stages, (3, 5), strict=True):
        assert {rows.shape[1] for rows in stage.batch(batch).values()} == {length}


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    """Of one in a toy world."""
    folder = tmp_path_factory.mktemp("runs") / "toy"
    config = videos.make_toy(**ONE_STAGE | {"curriculum__first_frames": 4})
    return folder, loop.run(config, folder, lambda config: scenes.filled(hart.build(config)))


def test_the_first_frames_of_a_world_are_those_of_a_short_one():
    c = videos.make_toy().data
    row = {"seed": jnp.arange(2, dtype=jnp.uint32)}
    read = jax.jit(jax.vmap(hart.reader(c, 4, 1)))
    whole, short = read(row), read(hart.cut(row, 3))
    assert (whole.x.shape[1], whole.boxes.shape[1], short.x.shape[1], short.boxes.shape[1]) == (4, 5, 3, 4)
    np.testing.assert_array_equal(short.x[:, 0], whole.x[:, 0])
    np.testing.assert_array_equal(short.boxes[:, 0], whole.boxes[:, 0])


def test_a_run_on_videos(run):
    folder, content = run
    assert (content["steps"], content["num_examples"]) == (4, 7)
    assert {"mean_iou", "blackout_mean_iou", "blackout_unseen_iou", "prediction_mean_iou", "hota"} <= content.keys()
    assert {"static_iou", "momentum_iou", "presence_accuracy", "success_area", "precision_20"} <= content.keys()
    assert len(content["iou_t"]) == 5 and content["iou_t"][0] == pytest.approx(1)
    assert content["prediction_momentum_iou"] == pytest.approx(1, abs=1e-6)  # squares move evenly
    assert content["static_iou"] < content["momentum_iou"] < 1  # it stays in the second frame
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert {"loss", "tracking", "spatial", "presence", "lambda_spatial", "iou"} <= rows[0].keys()
    assert "appearance" not in rows[0]


def test_pictures(run):
    names = {path.name for path in (run[0] / "figures").iterdir()}
    assert {f"{mode}_{i}{end}" for mode in hart.MODES for i in (1, 2) for end in (".png", "_film.gif")} <= names
    assert {"tracking_iou.png", "prediction_iou.png", "success.png"} <= names


def test_a_run_in_a_toy_world(toy):
    folder, content = toy
    assert content["num_examples"] == 9 and len(content["iou_t"]) == 6
    assert content["mean_iou"] == pytest.approx(np.mean(content["iou_t"][1:4]), rel=1e-5)
    assert not [name for name in content if name.startswith(("blackout", "prediction", "hota"))]
    assert (folder / "figures" / "tracking_1.png").exists()


@pytest.mark.parametrize(
    ("variant", "fields", "terms"),
    [
        ("hart", {"model__appearance": True}, {"tracking", "spatial", "presence", "appearance"}),
        (
            "hart",
            {"model__appearance": True, "task__appearance_loss": False, "task__presence_loss": False},
            {"tracking", "spatial"},
        ),
        ("hart", {"task__attention_loss": False, "model__ventral": True, "task__presence_loss": False}, {"tracking"}),
        ("hart", {"model__ventral": True, "model__tracker": "ratm", "task__presence_loss": False}, {"features"}),
        ("fast", {}, {"tracking", "spatial", "presence"}),
        ("paper", {"model__relation": "mlp"}, {"tracking", "spatial", "presence"}),
    ],
)
def test_what_is_learnt_by_which_losses(variant, fields, terms):
    # Without decay, which moves all weights.
    experiment = hart.build(videos.make_config(variant, task__decay=0.0, **fields), data=videos.make_data())
    params, aux = scenes.filled(experiment).init(jax.random.key(0))
    assert params["balance"].keys() == terms
    batch = jax.tree.map(lambda leaf: jnp.asarray(leaf[:3]), videos.make_split(3, 0))
    batch = experiment.stages[0].batch(batch)
    grads, (metrics, _) = jax.jit(jax.grad(experiment.loss, has_aux=True))(
        params, batch, jax.random.split(jax.random.key(1), 3), 0, aux
    )
    assert terms <= metrics.keys()
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(grads))
    moved = {
        name
        for name, part in grads["tracker"].items()
        if max(float(jnp.max(jnp.abs(g))) for g in jax.tree.leaves(part)) > 0
    }
    if "features" in terms:
        assert "v1" not in moved and {"lstm", "output", "attention"} <= moved
    else:
        some = {"relation", "told", "heard", "dorsal", "map"} & params["tracker"].keys()
        assert {"v1", "features", "lstm", "output", "attention"} | some <= moved
        assert ("ventral" in moved) == fields.get("model__ventral", fields.get("model__appearance", False))


def test_trackers_do_not_see_frames_that_are_black():
    """Nor does what they predict depend on them; in training a sequence without black frames has another loss."""
    config = videos.make_config(**ONE_STAGE)
    experiment, look = hart.build(config, data=videos.make_data()), hart.looker(config)
    params, aux = scenes.filled(experiment).init(jax.random.key(0))
    params["tracker"] = jax.tree.map(lambda leaf: leaf + 0.05, params["tracker"])  # a timid start sees but little
    rows, keys = videos.make_split(3, 0), jax.random.split(jax.random.key(1), 3)
    seen = [jax.device_get(look(params, rows, keys, mode)) for mode in range(len(hart.MODES))]
    assert not seen[0]["dark"].any()
    assert (seen[1]["dark"].sum(1) >= 1).all() and not seen[1]["dark"][:, : hart.GIVEN].any()
    np.testing.assert_array_equal(seen[2]["dark"], np.tile(np.arange(5) >= hart.GIVEN, (3, 1)))
    for mode in (1, 2):
        noise = np.random.default_rng(0).integers(0, 256, rows["image"].shape, np.uint8)
        changed = np.where(seen[mode]["dark"][..., None, None, None], noise, rows["image"])
        again = look(params, rows | {"image": changed}, keys, mode)["seen"]
        np.testing.assert_array_equal(again.boxes, seen[mode]["seen"].boxes)
        assert np.ptp(seen[mode]["seen"].glimpse[seen[mode]["dark"]]) == 0
        assert (look(params, rows | {"image": changed}, keys, 0)["seen"].boxes != seen[0]["seen"].boxes).any()
        assert (seen[mode]["seen"].boxes != seen[0]["seen"].boxes).any()

    def tracking(blackout):
        config.task.blackout = blackout
        loss = jax.jit(hart.build(config, data=videos.make_data()).loss)
        return loss(params, experiment.stages[-1].batch(jax.tree.map(jnp.asarray, rows)), keys, 0, aux)[1][0][
            "tracking"
        ]

    assert tracking(1.0) != tracking(0.0)


def test_weights_are_small_but_biases_may_be_large():
    """Section 3.4; of the dynamic filters the mean over trackers and frames."""
    assert hart.norms({"a": {"kernel": jnp.full((2, 3), 2.0), "bias": jnp.ones((2, 5))}}) == 12
    data, fields = videos.make_data(), ONE_STAGE | {"model__appearance": True, "task__presence_loss": False}
    totals = {}
    for decay in (0.0, 0.5):
        experiment = hart.build(videos.make_config("hart", task__decay=decay, **fields), data=data)
        params, aux = scenes.filled(experiment).init(jax.random.key(0))
        batch = jax.tree.map(jnp.asarray, videos.make_split(2, 0))
        arguments = experiment.stages[-1].batch(batch), jax.random.split(jax.random.key(1), 2), 0, aux
        totals[decay] = jax.jit(experiment.loss)(params, *arguments)[0]
    weights = float(hart.norms(params["tracker"]))
    filters = 2 * (float(totals[0.5] - totals[0.0]) / 0.5 - weights)
    assert 1 < filters < 100  # of `Dorsal`, which begin as static ones do, each layer's about its number of maps


@pytest.mark.parametrize("variant", mohart_configs.VARIANTS)
def test_variants_of_mohart(variant):
    """Each makes sense as it is."""
    config = mohart_configs.get_config(variant)
    split = videos.make_split(2, 0, canvas=tuple(config.data.frame_size), slots=config.data.num_objects)
    experiment = hart.build(config, data=Data(split, split, split))
    shapes = jax.eval_shape(experiment.init, jax.random.key(0))[0]
    assert ("relation" in shapes["tracker"]) == (variant != "hart")
    assert ("told" in shapes["tracker"]) == (variant == "fast")


def test_worlds_of_training_begin_with_one_identity():
    """All circles have the first one where the bias is 1, until it has faded."""
    fields = {"curriculum__identity_bias": 1.0, "curriculum__identity_steps": (2, 4)}
    config = videos.make_toy(data__strength=0.0, **fields)
    read = hart.reader(config.data, 3, 1)
    row = {"seed": jnp.uint32(5)}
    red, blue = np.asarray(circles.COLOURS)

    def colours(bias):
        x = np.asarray(read(row, bias).x).reshape(-1, 3)
        return {tuple(c) for c in (red, blue) for p in x if p.max() > 0.9 and np.allclose(p, c, atol=1e-3)}

    assert colours(1.0) == {tuple(red)} and colours(0.0) == {tuple(red), tuple(blue)}
    experiment = hart.build(config)
    params, aux = scenes.filled(experiment).init(jax.random.key(0))
    batch = jax.tree.map(lambda leaf: jnp.asarray(leaf[:3]), experiment.data.train)
    keys = jax.random.split(jax.random.key(1), 3)
    loss = jax.jit(lambda step: experiment.loss(params, batch, keys, step, aux)[0])
    plain = hart.build(videos.make_toy(data__strength=0.0, curriculum__identity_bias=0.0))
    usual = jax.jit(lambda step: plain.loss(params, batch, keys, step, aux)[0])
    assert float(loss(4)) == float(usual(4)) and float(loss(0)) != float(usual(0))


def test_weights_of_losses_follow_equation_3_9():
    """With losses L and log-weights w the total is sum(exp(w) L - w), of which w = -log L is the best."""
    config = videos.make_config("hart", task__presence_loss=False, task__decay=0.0, task__blackout=0.0)
    config.task.learn_weights = True
    config.model.update(dropout=0.0, zoneout=0.0)
    experiment = hart.build(config, data=videos.make_data())
    params, aux = scenes.filled(experiment).init(jax.random.key(0))
    batch = experiment.stages[0].batch(jax.tree.map(jnp.asarray, videos.make_split(2, 0)))
    keys = jax.random.split(jax.random.key(1), 2)
    loss = jax.jit(jax.value_and_grad(experiment.loss, has_aux=True))
    (_, (metrics, _)), _ = loss(params, batch, keys, 0, aux)
    best = params | {"balance": {name: -jnp.log(metrics[name]) for name in params["balance"]}}
    (total, (told, _)), grads = loss(best, batch, keys, 0, aux)
    np.testing.assert_allclose(total, sum(1 + jnp.log(metrics[name]) for name in params["balance"]), rtol=1e-4)
    for name, slope in grads["balance"].items():
        assert abs(float(slope)) < 1e-4
        assert float(told[f"lambda_{name}"]) == pytest.approx(1 / float(metrics[name]), rel=1e-4)


def test_absent_objects_do_not_count():
    experiment = hart.build(videos.make_config("hart", task__presence_loss=False), data=videos.make_data())
    params, aux = scenes.filled(experiment).init(jax.random.key(0))
    split = videos.make_split(3, 0)
    assert split["presence"][0, -1, 1] == 0
    loss, keys = jax.jit(experiment.loss), jax.random.split(jax.random.key(1), 3)
    changed = split | {"boxes": np.where(split["presence"][..., None] > 0, split["boxes"], 3.0).astype(np.float32)}
    assert not np.array_equal(changed["boxes"], split["boxes"])
    names = "image", "filmed", "boxes", "presence", "known"
    images = [{name: jnp.asarray(rows[name]) for name in names} for rows in (split, changed)]
    first, second = (loss(params, rows, keys, 0, aux)[0] for rows in images)
    # Their trackers begin elsewhere, but neither losses nor, without a relation, other trackers know of it.
    np.testing.assert_allclose(first, second, rtol=1e-6)


def test_black_frames_come_after_the_given_ones():
    draw = jax.jit(jax.vmap(lambda key: hart.black(key, 8, 3)))
    dark = np.asarray(draw(jax.random.split(jax.random.key(0), 500)))
    assert not dark[:, : hart.GIVEN].any()
    assert set(dark.sum(1)) == {1, 2, 3}
    assert dark[:, 2].any() and dark[:, 7].any()
    assert (np.abs(np.diff(dark.astype(int), axis=1, append=0)).sum(1) <= 2).all()  # one run each
    assert np.asarray(hart.black(jax.random.key(0), 3, 3)).tolist() == [False, False, True]


def perfect(ahead: int = 0, num: int = 4, frames: int = 6) -> dict:
    """What a tracker sees that is always right, of two objects of which the second one goes after the third frame."""
    start = np.array([[0, 0, 10, 10], [5, 20, 12, 30]], float)
    true = start[None, None] + 2.0 * np.arange(frames + ahead)[None, :, None, None]
    true = np.repeat(true, num, 0)
    there = np.ones((num, frames + ahead, 2))
    there[:, 3:, 1] = 0
    found = there[:, :frames] > 0
    dark = np.zeros((num, frames), bool)
    told = {"true": true, "there": there, "known": np.ones_like(there), "filmed": np.ones((num, frames))}
    return told | {"boxes": true[:, ahead:].copy(), "found": found, "dark": dark}


def test_figures_of_a_perfect_tracker():
    figures = hart.figures_of("tracking", perfect(), 0, 6, True)
    assert figures["mean_iou"] == figures["presence_accuracy"] == 1
    stays = iou(10, 10, 2) + iou(7, 10, 2)  # in the second frame, whose boxes it is given afterwards
    assert figures["momentum_iou"] == pytest.approx((stays + 5) / 7)
    assert figures["hota"] == pytest.approx(1) and figures["idf1"] == pytest.approx(1)
    moved = np.mean([iou(10, 10, 2 * t) for t in range(1, 6)] + [iou(7, 10, 2 * t) for t in (1, 2)])
    assert figures["static_iou"] == pytest.approx(moved)


def test_the_given_frame_does_not_count():
    """Neither its box nor whether it was found: no tracker learns to tell."""
    seen = perfect()
    seen["boxes"][:, 0], seen["found"][:, 0] = 0, False
    figures, right = (hart.figures_of("tracking", each, 0, 6, True) for each in (seen, perfect()))
    names = ("mean_iou", "presence_accuracy", "hota", "idf1", "mota", "success_area", "precision_20")
    assert [figures[name] for name in names] == [right[name] for name in names]


def test_frames_after_the_end_of_a_video_do_not_count():
    """Trackers that think that their objects are still there are not wrong."""
    seen, right = perfect(frames=8), hart.figures_of("tracking", perfect(), 0, 6, True)
    seen["there"][:, 6:], seen["filmed"][:, 6:], seen["found"][:, 6:] = 0, 0, True
    figures = hart.figures_of("tracking", seen, 0, 8, True)
    names = ("mean_iou", "presence_accuracy", "hota", "idf1", "mota", "success_area", "precision_20", "static_iou")
    assert [figures[name] for name in names] == [right[name] for name in names]


def test_who_may_be_there_or_not_is_neither_found_nor_missed():
    """The second object, once it has gone; a tracker that still follows it is wrong where it is known to be absent."""
    seen, names = perfect(), ("presence_accuracy", "mota", "hota", "idf1", "mean_iou")
    seen["found"][:] = True
    right, wrong = (hart.figures_of("tracking", each, 0, 6, True) for each in (perfect(), seen))
    seen["known"][:, 3:, 1] = 0
    figures = hart.figures_of("tracking", seen, 0, 6, True)
    assert [figures[name] for name in names] == [right[name] for name in names]
    assert all(wrong[name] < 1 for name in names[:4])


def test_presence_is_learnt_where_it_is_known():
    experiment = hart.build(videos.make_config(**ONE_STAGE), data=videos.make_data())
    params, aux = scenes.filled(experiment).init(jax.random.key(0))
    loss, keys = jax.jit(experiment.loss), jax.random.split(jax.random.key(1), 3)
    rows = experiment.stages[0].batch(jax.tree.map(jnp.asarray, videos.make_split(3, 0)))

    def presence(rows: dict) -> float:
        return float(loss(params, rows, keys, 0, aux)[1][0]["presence"])

    gone = rows["known"].at[0, 3:, 1].set(0)
    assert 0 < presence(rows | {"known": gone}) != presence(rows)
    assert presence(rows | {"known": jnp.zeros_like(gone)}) == 0


def iou(height: float, width: float, shift: float) -> float:
    shared = max(height - shift, 0) * max(width - shift, 0)
    return shared / (2 * height * width - shared)


def test_figures_of_a_blackout_are_also_of_the_black_frames():
    seen = perfect()
    seen["dark"][:, 2:4] = True
    seen["boxes"][:, 2] = seen["boxes"][:, 1]
    figures = hart.figures_of("blackout", seen, 0, 6, False)
    wrong = [iou(10, 10, 2), iou(7, 10, 2)]  # of both objects in the third frame; in the fourth there is one
    assert figures["unseen_iou"] == pytest.approx((sum(wrong) + 1) / 3)
    assert figures["mean_iou"] == pytest.approx((sum(wrong) + 5) / 7)
    assert figures["momentum_unseen_iou"] == pytest.approx(1.0)  # they go on as they began
    static = [iou(10, 10, 4), iou(7, 10, 4), iou(10, 10, 6)]  # from where they were in the first frame
    assert figures["static_unseen_iou"] == pytest.approx(sum(static) / 3)


def test_figures_of_a_prediction_are_of_its_first_black_frames():
    seen = perfect()
    seen["boxes"][:, 5] = 0  # beyond
    figures = hart.figures_of("prediction", seen, 0, 6, False)
    assert figures["mean_iou"] == 1 and len(figures["iou_t"]) == hart.GIVEN + hart.FORESEEN
    expected = np.mean([iou(10, 10, 2 * t) for t in (1, 2, 3)] + [iou(7, 10, 2)])  # from the second given box on
    assert figures["static_iou"] == pytest.approx(expected)


def test_what_the_tracker_saw_may_go_on_too():
    """A tracker that lags behind by a pixel in the second frame goes on at half the pace; from there it errs more."""
    seen = perfect()
    seen["boxes"][:, 1] -= 1
    figures = hart.figures_of("prediction", seen, 0, 6, False)
    late = [iou(10, 10, 1 + t) for t in (1, 2, 3)] + [iou(7, 10, 2)]  # in each frame by a pixel more
    assert figures["own_momentum_iou"] == pytest.approx(np.mean(late)) and figures["momentum_iou"] == 1
    assert "own_momentum_iou" not in hart.figures_of("tracking", seen, 0, 6, False)


def test_baselines_of_what_lies_ahead_know_the_box_of_each_frame():
    figures = hart.figures_of("tracking", perfect(ahead=2), 2, 6, False)
    assert figures["mean_iou"] == 1
    assert figures["momentum_iou"] == pytest.approx(1)
    assert figures["static_iou"] == pytest.approx(iou(10, 10, 4))


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"task__ahead": 1}, "task.ahead=1: use 0, or with data.name='circles' more"),
        ({"task__blackout": 1.5}, r"task.blackout=1.5 must lie in \[0, 1\]"),
        ({"task__black_frames": 4}, "task.black_frames=4: use 1 to 3"),
        ({"curriculum__first_frames": 2}, "curriculum.first_frames=2: use 3 or more"),
        ({"model__tracker": "siamese"}, "model.tracker='siamese' is unknown"),
        ({"model__tracker": "ratm"}, "model.tracker='ratm' knows no task.ahead, task.presence_loss"),
        ({"data__test_frames": 4}, "data.test_frames=4: use 5 or more, as data.num_frames"),
        ({"curriculum__identity_bias": 0.5}, "curriculum.identity_bias=0.5 is for toy worlds of data.identities=2"),
        ({"curriculum__identity_bias": 1.5}, r"curriculum.identity_bias=1.5, .* use a share in \[0, 1\]"),
        ({"curriculum__identity_steps": (3, 3)}, "use a share in .* and two ascending steps"),
        ({"model__v1_weights": "/nowhere.npz"}, "cannot read model.v1_weights=/nowhere.npz"),
        ({"data__name": "scenes"}, "data.name='scenes' has no boxes to start from"),
        ({"evaluate__num_pictures": 0}, "evaluate.num_pictures=0 must be at least 1"),
        ({"guidance__steps": (2, 2)}, r"guidance.steps=\(2, 2\): use \(\) or two steps, the last above the first"),
        ({"guidance__steps": (1, 4)}, r"guidance.steps=\(1, 4\): .* below train.num_steps=4"),
        ({"guidance__shift": -1.0}, "guidance.shift=-1.0: use 0 pixels or more"),
        (
            {"guidance__steps": (1, 2), "model__tracker": "ratm", "task__presence_loss": False},
            "model.tracker='ratm' guesses boxes by where it looks",
        ),
    ],
)
def test_what_makes_no_sense_is_refused(fields, said):
    with pytest.raises(UserError, match=said):
        experiment = hart.build(videos.make_config(**fields), data=videos.make_data())
        experiment.init(jax.random.key(0))


def test_toy_worlds_must_go_on_for_as_long_as_training():
    with pytest.raises(UserError, match="evaluate.num_frames=3: use 4 or more"):
        hart.build(videos.make_toy(evaluate__num_frames=3), data=Data(*({"seed": np.arange(3)} for _ in range(3))))


def test_from_files_to_a_step(tmp_path):
    """Of configs/mohart.py, with frames that stay on the disk: a loss that is finite, and figures of a short video."""
    rng = np.random.default_rng(0)
    for name, length in (("a", 60), ("b", 12)):
        boxes = np.array([[[4, t, 16, t + 10], [20, 50 - t, 34, 60 - t]] for t in range(length)])
        images = list(rng.integers(0, 255, (length, 48, 64, 3), np.uint8))
        video_files.save_mot(tmp_path / name, images, boxes)
    fields = {"frame_size": (24, 32), "path": str(tmp_path), "cache_dir": str(tmp_path / "cache"), "device_bytes": 0}
    config = videos.make_config(**ONE_STAGE, **{f"data__{name}": value for name, value in fields.items()})
    experiment = scenes.filled(hart.build(config))
    train, test = experiment.data.train, experiment.data.test
    assert isinstance(train, Stream)
    assert test.read(range(test.size))["filmed"].sum(1).min() == 4  # of the 12 frames, 8 train and validate
    params = experiment.init(jax.random.key(0))[0]
    batch, keys = train.read(range(4)), jax.random.split(jax.random.key(0), 4)
    loss, grads = jax.jit(jax.value_and_grad(lambda params: experiment.loss(params, batch, keys, 0, ())[0]))(params)
    assert np.isfinite(loss) and all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(grads))
    assert 0 <= experiment.evaluate(params, test, jax.random.key(1), final=False)["mean_iou"] <= 1


@pytest.mark.parametrize("module", [hart_kitti, hart_kth])
@pytest.mark.parametrize("variant", hart_kitti.VARIANTS)
def test_variants(module, variant):
    config = module.get_config(variant)
    data = Data(*(videos.make_split(2, 0) for _ in range(3)))
    experiment = hart.build(config, data=data)
    params = jax.eval_shape(experiment.init, jax.random.key(0))[0]
    terms = {"hart": {"tracking", "spatial", "appearance"}, "app_att": {"tracking", "spatial"}}
    expected = terms | {"spatial_att": {"tracking"}, "ratm": {"features"}}
    assert params["balance"].keys() == expected[variant]
    assert ("dorsal" in params["tracker"]) == (variant in ("hart", "app_att"))
    with pytest.raises(ValueError, match="write one of :hart"):
        module.get_config("all")


@pytest.mark.parametrize("module", [hart_kitti, hart_kth])
def test_what_they_see_has_a_loss(module):
    """Grey frames as coloured ones, by the layers of AlexNet or by small ones; traced alone, for they are large."""
    config = module.get_config()
    config.data.update(num_frames=videos.FRAMES, test_frames=videos.FRAMES)
    config.curriculum.update(first_frames=videos.FRAMES, steps=())
    config.task.black_frames = 2
    split = videos.make_split(2, 0, slots=2)
    split = {
        name: array[:, :, :1] if name in ("boxes", "presence", "known") else array for name, array in split.items()
    }
    split["image"] = np.zeros((2, videos.FRAMES, *config.data.frame_size, 1 if config.data.grey else 3), np.uint8)
    experiment = hart.build(config, data=Data(split, split, split))
    params, aux = jax.eval_shape(experiment.init, jax.random.key(0))
    batch = experiment.stages[0].batch(jax.tree.map(jnp.asarray, split))
    keys = jax.random.split(jax.random.key(1), 2)
    slope = jax.eval_shape(
        lambda params: jax.grad(experiment.loss, has_aux=True)(params, batch, keys, 0, aux)[0], params
    )
    assert jax.tree.map(jnp.shape, slope) == jax.tree.map(jnp.shape, params)


def test_weights_of_v1_are_read(tmp_path):
    tracker = model.make(model.Config((16, 20, 3), 1, (8, 8), cnn_features=(4, 4, 6), cnn_kernel=3, relation="none"))
    v1 = tracker.init(jax.random.key(5))["v1"]["params"]
    arrays = {f"{layer}_{part}": np.asarray(value) for layer, parts in v1.items() for part, value in parts.items()}
    np.savez(tmp_path / "v1.npz", **arrays)
    config = videos.make_config(model__v1_weights=str(tmp_path / "v1.npz"))
    params, _ = hart.build(config, data=videos.make_data()).init(jax.random.key(0))
    jax.tree.map(np.testing.assert_array_equal, params["tracker"]["v1"]["params"], v1)
    np.savez(tmp_path / "v1.npz", **arrays | {"Conv_1_bias": np.zeros(9)})
    with pytest.raises(UserError, match=r"Conv_1_bias is \(9,\), and V1 needs \(4,\)"):
        hart.build(config, data=videos.make_data()).init(jax.random.key(0))


def test_weights_of_losses_may_be_fixed():
    """At 1 each."""
    config = videos.make_config(task__learn_weights=False, task__decay=0.0)
    experiment = scenes.filled(hart.build(config, data=videos.make_data()))
    params, aux = experiment.init(jax.random.key(0))
    batch = {name: array[:2] for name, array in experiment.data.train.items()}
    keys = jax.random.split(jax.random.key(0), 2)
    loss = jax.value_and_grad(lambda params: experiment.loss(params, batch, keys, 0, aux), has_aux=True)
    (total, (metrics, _)), slope = jax.jit(loss)(params)
    assert all(float(each) == 0 for each in slope["balance"].values())
    assert float(total) == pytest.approx(sum(float(metrics[name]) for name in params["balance"]), rel=1e-5)
    assert {float(metrics[f"lambda_{name}"]) for name in params["balance"]} == {1.0}


RATM = {"model__tracker": "ratm", "model__relation": "none", "task__ahead": 0, "task__presence_loss": False}


@pytest.mark.parametrize(("fields", "least"), [({}, 0.85), ({"model__appearance": True}, 0.8), (RATM, 0.6)])
def test_trackers_learn_a_batch_by_heart(fields, least):
    """Where circles go in eight worlds; of RATM, which guesses boxes by where it looks, where they are."""
    usual = {"task__ahead": 1, "model__relation": "attention", "data__speed": 2.0, "guidance__steps": ()}
    config = videos.make_toy("repulsion", **usual | fields)
    config.model.update(features=32, hidden=32)
    experiment = hart.build(config)
    batch = jax.tree.map(lambda leaf: jnp.asarray(leaf[:8]), experiment.data.train)
    overlap = scenes.learn_by_heart(experiment, batch, num_steps=150, learning_rate=3e-3)[1]["iou"]
    assert overlap[0] < 0.45 and jnp.mean(overlap[-20:]) > least


@pytest.mark.parametrize("attention_loss", [False, True])
def test_guided_trackers_look_at_true_boxes(attention_loss):
    """Then the loss of attention alone tells where they would better have looked."""
    config = videos.make_toy(task__attention_loss=attention_loss)
    experiment = hart.build(config)
    params, aux = scenes.filled(experiment).init(jax.random.key(0))
    params["tracker"]["output"]["params"]["Dense_1"]["bias"] += 1.0  # so that they look elsewhere
    batch = jax.tree.map(lambda leaf: jnp.asarray(leaf[:2]), experiment.data.train)
    keys = jax.random.split(jax.random.key(1), 2)
    slope = jax.jit(jax.grad(lambda params: experiment.loss(params, batch, keys, 0, aux)[0]))(params)
    assert (np.max(np.abs(slope["tracker"]["attention"]["rate"])) > 0) == attention_loss


@pytest.mark.parametrize("content", ["array", "cut", "text"])
def test_files_that_are_no_weights(tmp_path, content):
    np.savez(tmp_path / "v1.npz", a=np.zeros(100))
    if content == "array":
        np.save(tmp_path / "v1.npy", np.zeros(3))
        (tmp_path / "v1.npy").rename(tmp_path / "v1.npz")
    else:
        held = (tmp_path / "v1.npz").read_bytes()
        (tmp_path / "v1.npz").write_bytes(held[:90] if content == "cut" else b"weights")
    with pytest.raises(UserError, match="^cannot read model.v1_weights=.*: give an .npz$"):
        read_weights(tmp_path / "v1.npz", {"params": {}})


def test_alexnet(tmp_path):
    """Shapes of what is published, whose second layer has two groups."""
    net, glimpse = AlexNet(), jax.random.uniform(jax.random.key(0), (56, 56, 3))
    params = net.init(jax.random.key(1), glimpse)
    assert params["params"]["conv2"]["kernel"].shape == (5, 5, 48, 256)
    write_weights(tmp_path / "v1.npz", params)
    maps = net.apply(read_weights(tmp_path / "v1.npz", net.init(jax.random.key(2), glimpse)), glimpse)
    assert maps.shape == (14, 14, 384) and float(jnp.max(maps)) > 0
    np.testing.assert_array_equal(maps, net.apply(params, glimpse))
