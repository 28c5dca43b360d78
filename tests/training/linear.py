"""A made-up experiment that trains in no time: a linear-Gaussian autoencoder of random pictures.

python -m tests.training.linear WORKDIR    # a run that can be killed
"""

import sys

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure
from ml_collections import ConfigDict

from configs import base
from objcentric.data.loader import Data
from objcentric.training import loop
from objcentric.training.experiment import Experiment
from objcentric.training.schedules import make_optimizer


def make_config(**train) -> ConfigDict:
    config = base.get_config()
    config.experiment = "linear"
    config.train.update({"num_steps": 40, "inner_steps": 5, "batch_size": 8, "num_devices": 1})
    config.train.update({"log_every": 10, "eval_every": 20, "checkpoint_every": 10})
    config.train.update(train)
    return config


def make_split(num_examples: int, seed: int) -> dict[str, np.ndarray]:
    return {"image": np.random.default_rng(seed).integers(0, 256, (num_examples, 4, 4, 1), np.uint8)}


def build(config: ConfigDict, *, train=None, bad=lambda params, step: False) -> Experiment:
    """``bad(params, step)`` says when the loss is to be NaN; ``train`` replaces the training split."""

    def init(key):
        weights = {"kernel": 0.1 * jax.random.normal(key, (16, 3)), "bias": jnp.zeros(3)}
        return {"inference": weights, "generative": jnp.zeros((3, 16)), "baseline": jnp.zeros(())}, {
            "mean": jnp.zeros(())
        }

    def flat(image):
        return image.reshape(-1).astype(jnp.float32) / 255

    def one(params, image, key):
        x = flat(image)
        z = x @ params["inference"]["kernel"] + params["inference"]["bias"]
        z = z + 0.1 * jax.random.normal(key, z.shape)
        return jnp.mean((x - z @ params["generative"]) ** 2)

    def loss(params, batch, keys, step, aux):
        losses = jax.vmap(one, (None, 0, 0))(params, batch["image"], keys)
        loss = jnp.mean(losses) + jnp.mean((jax.lax.stop_gradient(losses) - params["baseline"]) ** 2)
        loss = jnp.where(bad(params, step), jnp.nan, loss)
        mean = 0.9 * aux["mean"] + 0.1 * jnp.mean(losses)
        return loss, ({"error": jnp.mean(losses)}, {"mean": mean})

    @jax.jit
    def error(params, image, key):
        return jnp.mean(jax.vmap(one, (None, 0, 0))(params, image, jax.random.split(key, image.shape[0])))

    def evaluate(params, split, key, *, final):
        value = float(error(params, split["image"], key))
        return {"count_accuracy": value, "table": [[1, 2], [3, 4]]} | ({"extra": 2 * value} if final else {})

    def figures(params, split, key, evaluated):
        figure = Figure()
        figure.add_subplot().imshow(params["generative"])
        return {"weights": figure}

    data = Data(make_split(50, 0) if train is None else train, make_split(10, 1), make_split(20, 2))
    optimizer = make_optimizer(config.optimizer, config.train.num_steps)
    return Experiment(data, optimizer, init, loss, evaluate, figures, ("count_accuracy",), lambda figures: None)


def measuring(config: ConfigDict, figures: dict) -> Experiment:
    """`build`, of any config, whose figures are always these and which draws nothing: for studies."""
    return build(config)._replace(
        evaluate=lambda params, split, key, *, final: figures,
        figures=lambda params, split, key, evaluated: {},
        headline=tuple(name for name, value in figures.items() if isinstance(value, float)),
        signature=None,
    )


if __name__ == "__main__":
    loop.run(make_config(), sys.argv[1], build)
