"""The VRNN experiment on tiny sequences: it runs from end to end, learns a batch by heart, refuses what cannot be."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import vrnn as configs
from experiments import sequences as shared
from experiments import vrnn
from objcentric.data.loader import Data
from objcentric.errors import UserError
from objcentric.models.model import Sequential, Step
from objcentric.training import loop
from tests.experiments import scenes, sequences
from tests.experiments.scenes import filled


def make_config(variant="mlp", **fields):
    """A small VRNN; ``fields`` are dotted names with '__' for '.'."""
    config = configs.get_config(variant)
    scenes.shrink(config)
    config.model.update(latent_dim=3, features=(4, 4), strides=(2, 1), layers=1)
    config.train.update(num_steps=4, inner_steps=2, eval_every=4)
    config.evaluate.update(given_frames=2, addition_steps=3, addition_examples=7)
    config.update_from_flattened_dict({name.replace("__", "."): value for name, value in fields.items()})
    return config


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Folder and content of eval.json of a finished run."""
    folder = tmp_path_factory.mktemp("runs") / "vrnn"
    data = sequences.make_data()
    return folder, loop.run(make_config(), folder, lambda config: filled(vrnn.build(config, data=data)))


def test_a_run(run):
    folder, content = run
    assert content["steps"] == 4 and content["num_examples"] == 13
    assert {"iwae_4", "imagined_error", "copied_error", "addition_accuracy"} <= content.keys()
    assert content["elbo"] == pytest.approx(content["log_likelihood"] - content["kl"], rel=1e-4)
    assert 0 <= content["addition_accuracy"] <= 1
    assert content["addition_constant"] == pytest.approx(9 / 13)  # no square, or that of label 0 alone
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert {"loss", "bound", "log_likelihood"} <= rows[0].keys()
    assert rows[0]["loss"] == pytest.approx(-rows[0]["bound"], rel=1e-4)


def test_pictures(run):
    names = {path.name for path in (run[0] / "figures").iterdir()}
    pictures = ("reconstructions", "imagined", "samples")
    assert {f"{name}.png" for name in pictures} | {f"{name}_film.gif" for name in pictures} <= names


def test_it_learns_a_batch_by_heart():
    """Reconstructions become better than black frames are."""
    experiment = vrnn.build(make_config(model__hidden=32, model__layers=1), data=sequences.make_data())
    _, metrics, black = sequences.learn_by_heart(experiment, 4, num_steps=150, learning_rate=3e-3)
    last = {name: np.mean(each[-10:]) for name, each in metrics.items()}
    assert metrics["bound"][0] < black < last["bound"] < last["log_likelihood"]


@pytest.mark.parametrize("variant", ["conv", "mlp_paper", "conv_paper"])
def test_other_variants_have_gradients(variant):
    """Of the parameters' shapes."""
    experiment = vrnn.build(make_config(variant), data=sequences.make_data())
    params, aux = jax.eval_shape(experiment.init, jax.random.key(0))
    assert ("trunk" in params["generative"]) == variant.startswith("conv")
    batch, keys = {"image": experiment.data.train["image"][:4]}, jax.random.split(jax.random.key(0), 4)
    loss = lambda params: experiment.loss(params, batch, keys, 0, aux)  # noqa: E731
    grads, _ = jax.eval_shape(jax.grad(loss, has_aux=True), params)
    assert jax.tree.map(jnp.shape, grads) == jax.tree.map(jnp.shape, params)


@pytest.mark.parametrize(
    "fields, message",
    [
        ({"objective__name": "vimco"}, "objective.name='vimco' teaches p and q apart, or discrete latents,"),
        ({"objective__name": "fvio"}, "objective.name='fvio' is unknown"),
        ({"evaluate__given_frames": 4}, "evaluate.given_frames=4: use 1 to 3"),
        ({"evaluate__particle_chunk": 3}, "evaluate.particle_chunk=3 must divide"),
        ({"evaluate__addition_steps": -1}, "evaluate.addition_steps=-1 must be at least 0"),
        ({"evaluate__addition_examples": 0}, "evaluate.addition_examples=0 must be at least 1"),
        ({"model__network": "cnn"}, "model.network='cnn' is unknown"),
    ],
)
def test_impossible_configs(fields, message):
    with pytest.raises(UserError, match=f"^{message}"):
        vrnn.build(make_config(**fields), data=sequences.make_data())


def test_data_without_digits():
    """Or without time."""
    image = sequences.make_split(6, 0)["image"]
    splits = Data(*[{"image": image}] * 3)
    with pytest.raises(
        UserError, match="^the data do not say which digits there are.*: set evaluate.addition_steps=0$"
    ):
        vrnn.build(make_config(), data=splits)
    assert vrnn.build(make_config(evaluate__addition_steps=0), data=splits).headline == ("elbo",)
    with pytest.raises(UserError, match=r"^data of shape \(12, 14, 1\) are no sequences \[T, H, W, C\]: .*"):
        vrnn.build(make_config(), data=scenes.make_data())


# ------------------------------------------------------------------------------------------ what is shared by sequences


def counter():
    """A model whose state counts: seen frames add 1, imagined ones all ``hparams``; a frame's mean is the sum."""
    step = lambda params, key, state, x, hparams: Step(state + 1, None, 0, 0, 0, {"mean": state + 1})  # noqa: E731

    def imagine(params, key, state, hparams):
        state += sum(hparams.values())
        return state, None, state

    return Sequential(None, lambda params: jnp.zeros(()), step, imagine)


def test_given_frames_are_seen_and_others_imagined():
    drawn = lambda params, state, mean: {"mean": mean, "state": state}  # noqa: E731
    keys, x = jax.random.split(jax.random.key(0), 2), np.zeros((2, 5, 1, 1, 1), np.uint8)
    guesses = shared.foresee(counter(), {"a": 10.0}, 2, drawn, shared.reader("gaussian"))({}, x, keys)
    for guess, frames in (("likely", [1, 2, 12, 22, 32]), ("sampled", [1, 2, 13, 24, 35])):
        np.testing.assert_array_equal(guesses[guess]["mean"], [frames] * 2)
        np.testing.assert_array_equal(guesses[guess]["state"], [frames] * 2)
    assert shared.frame_names(5, 2) == ("given 1", "given 2", "imagined 3", "imagined 4", "imagined 5")


def test_next_frames_are_predicted_from_those_seen():
    keys, x = jax.random.split(jax.random.key(0), 2), np.zeros((2, 5, 1, 1, 1), np.uint8)
    predicted = shared.predict(counter(), {"a": 10.0}, shared.reader("gaussian"))({}, x, keys)
    np.testing.assert_array_equal(predicted, [[11, 12, 13, 14]] * 2)


def test_dreams_follow_settings_of_their_own():
    drawn = lambda params, state, mean: {"mean": mean}  # noqa: E731
    dream = shared.dream(counter(), lambda state: {"a": jnp.where(state > 0, 2.0, 5.0)}, 4, drawn)
    np.testing.assert_array_equal(dream({}, jax.random.split(jax.random.key(0), 2))["mean"], [[5, 7, 9, 11]] * 2)


def test_prediction_errors():
    """Frames get brighter by 51 of 255; those imagined lag by one."""
    image = np.zeros((2, 5, 3, 3, 1), np.uint8) + 51 * np.arange(5, dtype=np.uint8)[:, None, None, None]
    imagined = np.roll(image, 1, axis=1) / 255
    errors = shared.prediction_errors(imagined, image / 255, image, 3)
    assert errors["imagined_error"] == pytest.approx(0.2**2)
    assert errors["copied_error"] == pytest.approx((0.2**2 + 0.4**2) / 2)
    assert errors["likely_error"] == 0 and errors["black_error"] == pytest.approx((0.6**2 + 0.8**2) / 2)
    assert errors["imagined_error_t"] == pytest.approx([0.2**2, 0.2**2])
    assert errors["copied_error_t"] == pytest.approx([0.2**2, 0.4**2])


def test_next_frame_errors():
    """Frames get brighter by 51 of 255; predictions are right, but for the last, which is black."""
    image = np.zeros((2, 4, 3, 3, 1), np.uint8) + 51 * np.arange(4, dtype=np.uint8)[:, None, None, None]
    predicted = image[:, 1:] / 255 * (np.arange(3) < 2).reshape(3, 1, 1, 1)
    errors = shared.next_frame_errors(predicted, image)
    assert errors["next_frame_error_t"] == pytest.approx([0, 0, 0.6**2])
    assert errors["next_frame_error"] == pytest.approx(0.6**2 / 3)
    assert errors["next_frame_copied_error"] == pytest.approx(0.2**2)
