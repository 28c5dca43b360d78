"""The VAE experiment on tiny images: Burda's optimizer, every column's gradients, figures whose answers are known."""

import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import logsumexp, softmax

from configs import vae_mnist as configs
from experiments import vae_mnist, vae_mnist_table
from objcentric.data.loader import Data
from objcentric.errors import UserError
from objcentric.training import loop, targets
from tests.experiments.scenes import filled

COLUMNS = vae_mnist_table.COLUMNS


def make_config(**fields):
    """A small VAE; ``fields`` are dotted names with '__' for '.'."""
    config = configs.get_config()
    config.data.source = "embedded"
    config.model.update(latent_dim=3, widths=(6, 5))
    config.objective.update(num_particles=16, baseline_hidden=4)
    config.train.update(num_steps=4, batch_size=4, num_devices=1, inner_steps=2, log_every=2, eval_every=2)
    config.evaluate.update(batch_size=2, num_particles=12, particle_chunk=6, iwae_particles=4, snr_repeats=3)
    config.evaluate.update(num_examples=5, num_valid=5, num_pictures=2)
    config.update_from_flattened_dict({name.replace("__", "."): value for name, value in fields.items()})
    return config


@functools.cache
def make_data():
    """Images of 3x4 grey pixels."""
    image = np.random.default_rng(0).integers(0, 256, (60, 3, 4, 1), np.uint8)
    return Data(*({"image": part} for part in np.split(image, (40, 50))))


def build(**fields):
    return vae_mnist.build(make_config(**fields), data=make_data())


# ------------------------------------------------------------------------------------------------------------ optimizer


def test_the_full_schedule_is_the_papers():
    """Stage i has the rate 1e-4 round(10^(1 - (i - 1) / 7), 1) for 3^(i - 1) of 3280 epochs."""
    config = configs.get_config("full")
    epoch = 55_000 // config.train.batch_size
    assert config.train.num_steps == 3280 * epoch and config.train.batch_size == 20
    rate = vae_mnist.learning_rate(config.optimizer, config.train.num_steps)
    expected = [0.001, 0.00072, 0.00052, 0.00037, 0.00027, 0.00019, 0.00014, 0.0001]
    start = 0
    for stage, value in enumerate(expected):
        end = start + 3**stage * epoch
        np.testing.assert_allclose([rate(start), rate(end - 1)], value, rtol=1e-6)
        start = end
    assert start == config.train.num_steps
    np.testing.assert_allclose(rate(start), 0.0001, rtol=1e-6)


@pytest.mark.parametrize("growth, ends", [(1.0, [5, 10, 15, 20, 25, 30, 35, 40]), (3.0, [0, 0, 0, 0, 1, 4, 13, 40])])
def test_short_schedules_have_the_same_stages(growth, ends):
    config = make_config(optimizer__stage_growth=growth)
    rate = vae_mnist.learning_rate(config.optimizer, 40)
    rates = np.array([rate(step) for step in range(40)]) / 1e-3
    stages = np.array(vae_mnist.STAGES)
    np.testing.assert_allclose(rates, np.repeat(stages, np.diff(ends, prepend=0)), rtol=1e-6)


def test_the_optimizer_is_adam_on_gradients_summed_over_the_batch():
    """Textbook Adam (Kingma and Ba, algorithm 1) with the paper's constants, given sums; ours is given means."""
    config = configs.get_config()
    batch, steps = config.train.batch_size, 10
    optimizer = vae_mnist.make_optimizer(config.optimizer, steps, batch)
    rng = np.random.default_rng(0)
    ours, theirs, m, v = np.zeros(6), np.zeros(6), 0, 0
    state = optimizer.init(params := jnp.zeros(6))
    for t in range(1, steps + 1):
        grads = rng.normal(size=(batch, 6)) * [1e-6, 1e-5, 1e-4, 1e-2, 1, 100]  # eps matters to the small ones
        total = grads.sum(0)
        m, v = 0.99 * m + 0.01 * total, 0.999 * v + 0.001 * total**2
        rate = float(vae_mnist.learning_rate(config.optimizer, steps)(t - 1))
        theirs = theirs - rate * (m / (1 - 0.99**t)) / (np.sqrt(v / (1 - 0.999**t)) + 1e-4)
        updates, state = optimizer.update(jnp.asarray(grads.mean(0), jnp.float32), state, params)
        ours = ours + np.float64(updates)
    np.testing.assert_allclose(ours, theirs, rtol=1e-4)


# ------------------------------------------------------------------------------------------------------------ gradients


@functools.cache
def jacobian():
    """Log-weights ``[B, K]`` of a batch, and their derivatives by every parameter."""
    experiment = build()
    params, _ = experiment.init(jax.random.key(0))
    image, keys = make_data().train["image"][:3], jax.random.split(jax.random.key(1), 3)

    def log_w(params):
        x, noise = jax.vmap(vae_mnist.binarise)(image, keys)
        model = vae_mnist.vae.make(vae_mnist.vae.Config(3, (6, 5)), mean_image())
        return targets.log_w(targets.trace_particles(model, params, noise, x, {}, 16))

    return params, image, keys, *jax.jit(lambda p: (log_w(p), jax.jacrev(log_w)(p)))(params)


def coefficients(log_w, objective, part):
    """d objective / d log_w ``[B, K]`` by hand (thesis, eqs. 7.1 to 7.3, 7.14 and 7.15)."""
    name, size = objective["name"], log_w.shape[1]
    groups = objective.get("num_groups", 1)
    mean = np.full_like(log_w, 1 / size)
    grouped = (softmax(log_w.reshape(len(log_w), groups, -1), -1) / groups).reshape(log_w.shape)
    return {
        "elbo": mean,
        "iwae": softmax(log_w, -1),
        "miwae": grouped,
        "piwae": grouped if part == "inference" else softmax(log_w, -1),
        "ciwae": objective.get("beta", 0) * mean + (1 - objective.get("beta", 0)) * softmax(log_w, -1),
    }[name]


@pytest.mark.parametrize("column", COLUMNS)
def test_gradients_of_every_column(column):
    """Those of the loss are the thesis' weighted sums of the log-weights' derivatives."""
    objective = COLUMNS[column].objective
    params, image, keys, log_w, derivatives = jacobian()
    experiment = build(**{f"objective__{name}": value for name, value in objective.items()})
    loss = jax.jit(jax.grad(lambda p: experiment.loss(p, {"image": image}, keys, 0, ())[0]))
    log_w = np.float64(log_w)
    for part in ("generative", "inference"):
        weights = coefficients(log_w, objective, part) / len(log_w)
        exact = jax.tree.map(lambda d, w=weights: np.tensordot(w, np.float64(d), 2), derivatives[part])
        ours = jax.tree.map(np.negative, loss(params)[part])
        jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-4), ours, exact)


# ------------------------------------------------------------------------------------------------------------- training


@pytest.mark.parametrize("column", ["iwae", "piwae_8_8", "miwae_8_8", "ciwae_0.5", "vae"])
def test_every_kind_of_column_trains(column, tmp_path):
    config = make_config(**{f"objective__{name}": value for name, value in COLUMNS[column].objective.items()})
    seen = []

    def evaluate(params, *_, final):
        seen.append(params)
        return dict.fromkeys(experiment.headline, 1.0)

    experiment = filled(vae_mnist.build(config, data=make_data()))
    content = loop.run(config, tmp_path, lambda _: experiment._replace(evaluate=evaluate, figures=lambda *_: {}))
    assert content["steps"] == 4 and content["num_examples"] == 5
    for part in ("generative", "inference"):
        start = experiment.init(None)[0][part]
        distances = jax.tree.map(lambda a, b: np.abs(a - b).max(), start, seen[-1][part])
        assert all(1e-5 < distance < 5e-3 for distance in jax.tree.leaves(distances))
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert {"loss", "bound", "iwae", "log_likelihood"} <= rows[0].keys() and rows[0]["skipped"] == 0


def test_embedded_digits_from_config_to_pictures(tmp_path):
    """A finished run on real digits that need no download: the bound of training has risen, figures are in range."""
    config = make_config(train__num_steps=300, train__inner_steps=100, train__log_every=100, train__eval_every=300)
    config.update_from_flattened_dict({"train.batch_size": 20, "evaluate.snr_repeats": 0})
    config.model.update(latent_dim=6, widths=(24, 24))
    config.optimizer.learning_rate = 0.01
    content = loop.run(config, tmp_path, vae_mnist.build)
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    bounds = [row["bound"] for row in rows if "bound" in row]
    assert bounds[0] + 1 < bounds[-1] < 0
    assert -60 < content["iwae_4"] < content["log_p"] + 0.5 < 0
    assert content["log_p"] - content["iwae_4"] == pytest.approx(content["kl"])
    assert 1 / 4 <= content["ess"] <= 1 and sum(content["ess_histogram"]) == content["num_examples"] == 5
    assert "snr" not in content
    assert {path.stem for path in (tmp_path / "figures").glob("*.png")} == {
        "reconstructions",
        "samples",
        "learning_curve",
    }


# ----------------------------------------------------------------------------------------------------------- evaluation


@functools.cache
def setup():
    """An experiment whose programs are compiled once, parameters that are not those of a timid start, the model."""
    experiment = build(objective__num_particles=4)
    shapes = jax.eval_shape(experiment.init, jax.random.key(0))[0]
    rng = np.random.default_rng(1)
    params = jax.tree.map(lambda leaf: jnp.asarray(rng.normal(0, 0.8, leaf.shape), jnp.float32), shapes)
    return experiment, params, vae_mnist.vae.make(vae_mnist.vae.Config(3, (6, 5)), mean_image())


def mean_image():
    return make_data().train["image"].mean(0) / 255


def test_figures_of_a_model_without_information():
    """If the image does not depend on z and q is the prior, every weight is p(x): bounds agree, the ESS is K."""
    experiment, params, _ = setup()
    logits = np.log(mean_image()) - np.log1p(-mean_image())
    nothing = jax.tree.map(jnp.zeros_like, params)
    nothing["generative"]["logits"]["bias"] = jnp.asarray(logits.ravel(), jnp.float32)
    figures = experiment.evaluate(nothing, experiment.data.test, jax.random.key(1), final=True)
    # The images are binarised at random: their expected log-likelihood, within a few standard errors of it.
    brightness = make_data().test["image"][:5] / 255
    each = brightness * np.log(mean_image()) + (1 - brightness) * np.log1p(-mean_image())
    error = np.sqrt(np.sum(brightness * (1 - brightness) * logits**2)) / 5
    assert abs(figures["log_p"] - each.sum() / 5) < 4 * error + 1e-3
    assert figures["log_p"] == pytest.approx(figures["iwae_4"], abs=1e-4)
    assert figures["ess"] == pytest.approx(1, abs=1e-4) and figures["ess_histogram"][-1] == 5


def test_bounds_and_ess_by_hand():
    """From log-weights drawn again with the same keys."""
    experiment, params, model = setup()
    key = jax.random.key(1)
    figures = experiment.evaluate(params, experiment.data.test, key, final=True)
    measure_key = jax.random.split(key)[0]
    rows = []
    trace = jax.jit(jax.vmap(lambda key, x: targets.log_w(model.trace(params, key, x, {})), (0, None)))
    for i, image in enumerate(experiment.data.test["image"]):
        x, noise = vae_mnist.binarise(image, jax.random.fold_in(measure_key, i))
        rows.append([trace(jax.random.split(k, 6), x) for k in jax.random.split(noise, 2)])
    log_w = np.float64(rows)  # [5 images, 2 chunks, 6]
    few = log_w[..., :4]
    ess = 1 / np.square(softmax(few, -1)).sum(-1) / 4
    assert 0.25 <= ess.min() < 0.6 and ess.max() <= 1
    expected = (logsumexp(log_w, (1, 2)) - np.log(12)).mean(), (logsumexp(few, -1) - np.log(4)).mean(), ess.mean()
    np.testing.assert_allclose([figures[name] for name in ("log_p", "iwae_4", "ess")], expected, rtol=1e-4)
    assert figures["kl"] == pytest.approx(expected[0] - expected[1], rel=1e-3)
    edges = vae_mnist.ess_edges(4)
    np.testing.assert_array_equal(figures["ess_histogram"], np.histogram(ess.mean(1), edges)[0])
    assert (edges[0], edges[-1]) == (0.25, 1)


def test_snr_by_hand():
    """Of gradients of one binary batch, drawn again with the same keys; at the image, of bright pixels' weights."""
    experiment, params, model = setup()
    key = jax.random.key(1)
    figures = experiment.evaluate(params, experiment.data.test, key, final=False)
    binary_key, noise_key = jax.random.split(jax.random.split(key)[1])
    image = experiment.data.test["image"][:4]
    x = jnp.stack([vae_mnist.binarise(*pair)[0] for pair in zip(image, jax.random.split(binary_key, 4), strict=True)])
    gradient = jax.jit(targets.value_and_grad(model, make_config(objective__num_particles=4).objective))
    grads = [gradient(params, key, x, {})[1]["inference"] for key in jax.random.split(noise_key, 3)]
    chosen = vae_mnist.choose_weights(params["inference"], mean_image())
    assert list(chosen) == ["hidden_0", "hidden_1", "loc", "log_scale"]
    for (layer, (rows, columns)), ratios in zip(chosen.items(), figures["snr_weights"], strict=True):
        values = np.float64([g[layer]["kernel"][rows, columns] for g in grads])
        mean, std = np.abs(values.mean(0)), values.std(0, ddof=1)
        np.testing.assert_allclose(ratios, mean / np.where(mean > 0, std, 1), rtol=1e-3)
        assert np.all(mean > 0) or layer == "hidden_0"  # a pixel may be off in the whole batch
    assert figures["snr"] == pytest.approx(np.mean(figures["snr_weights"]))


def test_weights_of_dark_pixels_have_no_snr_to_tell():
    mean = np.linspace(0, 1, 12).reshape(3, 4, 1)
    layers = {"hidden_0": {"kernel": np.zeros((12, 2))}, "loc": {"kernel": np.zeros((2, 12))}}
    chosen = vae_mnist.choose_weights(layers, mean)
    assert set(chosen["hidden_0"][0]) < set(range(3, 12))  # 3 / 11 is the first above 1/4
    assert chosen["loc"][1].max() > 1
    wide = vae_mnist.choose_weights(layers | {"hidden_1": {"kernel": np.zeros((12, 2))}}, mean)["hidden_1"]
    assert min(wide[0]) < 3  # whose inputs are as many, but no pixels
    dark = vae_mnist.choose_weights(layers, mean / 10)["hidden_0"][0]
    assert set(dark) == {11}  # the brightest there is


def test_images_are_binarised_anew_with_their_brightness_as_probability():
    image = jnp.asarray([[[0], [51], [255]]], jnp.uint8)
    x, keys = jax.vmap(lambda key: vae_mnist.binarise(image, key))(jax.random.split(jax.random.key(0), 4000))
    assert set(np.unique(x)) == {0.0, 1.0}
    np.testing.assert_allclose(x.mean(0).ravel(), [0, 0.2, 1], atol=0.025)
    assert len(np.unique(jax.random.key_data(keys), axis=0)) == 4000


# -------------------------------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    "fields, message",
    [
        ({"evaluate__particle_chunk": 5}, "must divide"),
        ({"evaluate__iwae_particles": 7}, "iwae_particles=7"),
        ({"evaluate__num_examples": 0}, "num_examples=0"),
        ({"evaluate__snr_repeats": 1}, "snr_repeats=1"),
        ({"optimizer__stage_growth": 0.0}, "stage_growth"),
        ({"optimizer__name": "rmsprop"}, "optimizer.name='rmsprop': here it is always 'adam'"),
        ({"optimizer__decay": "cosine"}, "optimizer.decay='cosine': here it is always 'staged'"),
        ({"optimizer__clip_norm": 5.0}, "optimizer.clip_norm=5.0: here it is always 0.0"),
        ({"optimizer__warmup_steps": 10}, "optimizer.warmup_steps=10: here it is always 0"),
        ({"objective__name": "miwae", "objective__num_groups": 3}, "num_groups=3"),
        ({"objective__name": "nonsense"}, "unknown"),
        ({"model__latent_dim": 0}, "latent_dim"),
    ],
)
def test_bad_configs(fields, message):
    with pytest.raises(UserError, match=message):
        build(**fields)


def test_a_path_for_data_without_files():
    with pytest.raises(UserError, match="data.path"):
        vae_mnist.build(make_config(data__path="/somewhere"))


def test_unknown_schedules():
    with pytest.raises(ValueError, match="short or :full"):
        configs.get_config("long")
