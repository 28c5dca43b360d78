import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks import air_step, capsules, objectives, sqair_step, tracking
from benchmarks.program import Program
from configs import base
from experiments import hart
from objcentric import tracker as trackers
from objcentric.models.capsules import ObjectDecoder
from tests.experiments import labelled_images, sequences, videos


def test_flops_of_products_in_loops_and_batches():
    def program(a, b):
        def body(c, _):
            return jnp.tanh(c @ b), None

        return jax.lax.scan(body, a, None, 7)[0]

    a, b = jnp.ones((3, 5)), jnp.ones((5, 5))
    assert air_step.count_flops(jax.make_jaxpr(program)(a, b).jaxpr) == 7 * 2 * 3 * 5 * 5
    batched = jax.vmap(program, (0, None))
    assert air_step.count_flops(jax.make_jaxpr(jax.jit(batched))(a[None], b).jaxpr) == 7 * 2 * 3 * 5 * 5


def test_flops_of_a_convolution():
    image, kernel = jnp.ones((1, 8, 8, 3)), jnp.ones((2, 2, 3, 4))
    convolve = lambda x, w: jax.lax.conv_general_dilated(  # noqa: E731
        x, w, (1, 1), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    flops = air_step.count_flops(jax.make_jaxpr(convolve)(image, kernel).jaxpr)
    assert flops == 2 * (7 * 7 * 4) * (2 * 2 * 3)


def test_measures_a_small_step():
    small = {"data.canvas": (24, 24), "model.object_size": 8.0, "model.hidden": 16, "objective.num_particles": 2}
    row = air_step.measure(small | {"train.batch_size": 4}, repeats=1)
    assert row["gflop_per_step"] > 0 and row["memory_mb"] > 0
    assert row["fraction"] == pytest.approx(row["gflops"] / row["product_gflops"])


def test_measures_objectives(monkeypatch):
    def small():
        config = base.get_config()
        config.data.canvas = (12, 12)
        config.model.update(object_size=4.0, hidden=4, what_dim=2, glimpse_size=(4, 4), num_steps=1)
        return config

    monkeypatch.setattr(objectives.air_config, "get_config", small)
    ratios = objectives.measure({name: objectives.make_gradient(name, 2, 2) for name in ("iwae", "vimco")}, turns=2)
    assert ratios["iwae"] == 1.0 and 0 < ratios["vimco"] < 100


def test_table_of_other_models(monkeypatch):
    estimators = {name: objectives.gmm.ESTIMATORS[name] for name in ("vimco", "relax")}
    monkeypatch.setattr(objectives.gmm, "ESTIMATORS", estimators)
    for make, names in (
        (objectives.of_gmm, ["iwae", *estimators]),
        (objectives.of_sequence, None),
        (functools.partial(objectives.of_vae, names=("iwae", "dreg")), ["iwae", "dreg"]),
    ):
        header, _, *rows = objectives.table(make, turns=1, particles=(2,)).splitlines()
        assert header == "| objective | K = 2 | evaluates besides |"
        assert rows[0] == "| `iwae` | 1.00 |  |"
        assert names is None or [row.split("`")[1] for row in rows] == names


def sketched(experiment, batch_size):
    """In place of `program.training`, which takes long to compile: the loss is traced, and a step takes 2 s."""
    params, aux = jax.eval_shape(experiment.init, jax.random.key(0))
    rows = jax.tree.map(lambda leaf: jnp.asarray(leaf[:batch_size]), experiment.data.train)
    keys = jax.random.split(jax.random.key(0), batch_size)
    loss, _ = jax.eval_shape(experiment.loss, params, experiment.stages[-1].batch(rows), keys, 0, aux)
    assert loss.shape == ()
    return Program(lambda: 2.0, 3.0, 4.0)


def test_measures_sequences(monkeypatch):
    small = {
        variant: sequences.make_config(
            data__canvas=(12, 14), model__hidden=4, model__network=network, train__batch_size=2
        )
        for variant, network in (("fast", "refused"), ("conv", "conv"))
    }
    monkeypatch.setattr(sqair_step.sqair_config, "get_config", lambda variant="fast": small[variant])
    monkeypatch.setattr(sqair_step, "training", sketched)
    (row,) = sqair_step.measure([sqair_step.Setting(2, 1, "conv")], turns=1)
    assert (row["ratio"], row["ratio_per_frame"], row["ms_per_step"], row["ms_per_frame"]) == (1, 1, 2000, 1000)
    assert (row["compile_s"], row["memory_mb"]) == (3, 4)


def test_growth_with_sequences(monkeypatch):
    """Of programs whose seconds are known."""
    seconds = {
        sqair_step.Setting(2, 1): [4.0, 2.0, 1.0],
        sqair_step.Setting(6, 3): [8.0, 5.0, 4.0],
        sqair_step.Setting(2, 2, "conv"): [16.0, 12.0],  # fewer turns
    }
    monkeypatch.setattr(
        sqair_step, "prepare", lambda setting: sqair_step.Program(iter(seconds[setting]).__next__, 7.0, 8.0)
    )
    rows = sqair_step.measure(list(seconds), turns=3)
    assert [row["ratio"] for row in rows] == [1, 2.5, 5] and rows[1]["ratio_per_frame"] == pytest.approx(2.5 / 3)
    header, _, *lines = sqair_step.table(sqair_step.COLUMNS, rows).splitlines()
    assert header.startswith("| network | T | N | steps/s | ms/step | ms/step and frame | ms/step and slot |")
    assert lines == [
        "| mlp | 2 | 1 | 1.00 | 1000 | 500.0 | 1000.0 | 1.00 | 1.00 | 7 | 8 |",
        "| mlp | 6 | 3 | 0.25 | 4000 | 666.7 | 1333.3 | 2.50 | 0.83 | 7 | 8 |",
        "| conv | 2 | 2 | 0.08 | 12000 | 6000.0 | 6000.0 | 5.00 | 5.00 | 7 | 8 |",
    ]


def test_convolutions_may_be_left_out(monkeypatch, capsys):
    monkeypatch.setattr(
        sqair_step,
        "measure",
        lambda settings, turns: [dict.fromkeys(sqair_step.COLUMNS, 0) | s._asdict() for s in settings],
    )
    for arguments, conv in (([], True), (["--no-conv"], False)):
        monkeypatch.setattr("sys.argv", ["sqair_step", *arguments])
        sqair_step.main()
        page = capsys.readouterr().out
        assert ("\n| conv | 3 | 3 |" in page) == conv and "\n| mlp | 10 | 3 |" in page
        assert "on one device" in page and "train.cpu_devices=2" in page


def test_measures_trackers(monkeypatch):
    small = videos.make_config("hart", curriculum__first_frames=5, curriculum__steps=())
    monkeypatch.setattr(tracking, "make_config", lambda setting: small)
    monkeypatch.setattr(tracking, "training", sketched)
    (row,) = tracking.measure([tracking.Setting("attention", 3)], turns=1)
    assert row["follow_ratio"] == row["train_ratio"] == 1 and row["frames_per_s"] > 0
    assert (row["steps_per_s"], row["compile_s"], row["memory_mb"]) == (0.5, 3, 4)
    header, _, line = tracking.table(tracking.COLUMNS, [row]).splitlines()
    assert header.startswith("| relation | objects | followed, frames/s |") and line.startswith("| attention | 3 |")


@pytest.mark.parametrize("setting", tracking.SETTINGS)
def test_settings_of_trackers(setting):
    config = tracking.make_config(setting)
    params = jax.eval_shape(hart.build(config, data=tracking.noise(config)).init, jax.random.key(0))[0]
    assert ("relation" in params["tracker"]) == (setting.relation != "none")
    assert tracking.noise(config).train["boxes"].shape[2] == setting.objects


@pytest.mark.parametrize(("relation", "tolerance"), [("none", 0.02), ("attention", 0.1)])
def test_cost_of_trackers_is_linear_in_objects(relation, tolerance):
    """In operations, which are the same everywhere; of self-attention a little is quadratic."""

    def operations(objects: int) -> float:
        config = videos.make_config(model__relation=relation)
        tracker, canvas = trackers.make(config, objects)
        params = jax.eval_shape(tracker.init, jax.random.key(0))
        boxes, there, x = jnp.zeros((objects, 4)), jnp.ones(objects), jnp.zeros(canvas)
        state, _ = jax.eval_shape(lambda params: tracker.start(params, None, x, boxes, there), params)
        step = jax.jit(tracker.step, static_argnums=1)
        return step.lower(params, None, state, x, there).compile().cost_analysis()["flops"]

    two, four, eight = map(operations, (2, 4, 8))
    assert eight - four == pytest.approx(2 * (four - two), rel=tolerance)


def test_measures_capsules(monkeypatch):
    small = {"ccae": labelled_images.make_constellations(), "scae": labelled_images.make_config()}
    monkeypatch.setattr(capsules, "make_config", lambda setting: small[setting.config])
    monkeypatch.setattr(capsules, "training", sketched)
    rows = capsules.measure([capsules.Setting("ccae"), capsules.Setting("scae", (("model.hidden", 5),))], turns=1)
    assert [row["ratio"] for row in rows] == [1, 1]
    assert all((row["steps_per_s"], row["compile_s"], row["memory_mb"]) == (0.5, 3, 4) for row in rows)
    header, _, _, line = capsules.table(capsules.COLUMNS, rows).splitlines()
    assert header.startswith("| config | change | batch | steps/s |")
    assert line.startswith("| scae | model.hidden=5 | 4 |")


def test_measures_mixtures_of_pixels():
    config = labelled_images.make_config()
    config.model.pixel_stride = 2
    plain, *others = capsules.measure_pixels(1, config)
    assert plain["ratio"] == 1 and [row["name"] for row in others] == ["all pixels", "stride 2"]
    assert all(row["ms_per_image"] > 0 and row["memory_mb"] > 0 for row in others)


def test_measures_perceptrons_of_objects():
    batched, loop = capsules.measure_perceptrons(1, labelled_images.make_config())
    assert (batched["name"], batched["ratio"], loop["name"]) == ("batched", 1, "one by one")
    assert min(loop[name] for name in ("ms_per_image", "ratio", "memory_mb")) > 0


def test_objects_one_by_one_are_the_batched_ones():
    decoder, features = ObjectDecoder(3, "poses", hidden=5), jax.random.normal(jax.random.key(0), (4, 6))
    params = decoder.init(jax.random.key(1), features)
    batched, loop = (capsules.votes(decoder, params, features, loop=loop) for loop in (False, True))
    np.testing.assert_allclose(batched, loop, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("setting", capsules.SETTINGS)
def test_settings_of_capsules_are_of_steps(setting, monkeypatch):
    """Each has a loss, which is traced, not compiled."""

    def trace(experiment, batch_size):
        params, aux = jax.eval_shape(experiment.init, jax.random.key(0))
        batch = jax.tree.map(lambda leaf: jnp.asarray(leaf[:2]), experiment.data.train)
        keys = jax.random.split(jax.random.key(0), 2)
        return jax.eval_shape(lambda params: experiment.loss(params, batch, keys, 0, aux), params)

    monkeypatch.setattr(capsules, "training", trace)
    total, (terms, _) = capsules.learning(capsules.make_config(setting), setting.parts_alone)
    assert total.shape == () and ("exemplars" in terms) == setting.parts_alone
