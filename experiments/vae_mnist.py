"""Burda's VAE on binary images with any objective: bounds, effective sample size, SNR (thesis, section 7.5.1)."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array
from ml_collections import ConfigDict

from objcentric import objectives, plots
from objcentric.data import digits, loader, splits
from objcentric.errors import UserError
from objcentric.models import vae
from objcentric.objectives import diagnostics
from objcentric.training import schedules, targets
from objcentric.training.experiment import Experiment

ESS_BINS = 40  # of the histogram of the images' effective sample sizes
WEIGHTS_PER_LAYER = 20  # whose gradients' SNR is told
BRIGHT = 0.25  # mean of the pixels whose weights are among them: those of pixels that are always off get no gradient
FIXED = {"name": "adam", "decay": "staged", "warmup_steps": 0, "clip_norm": 0.0}  # fields of config.optimizer
STAGES = tuple(round(10 ** (1 - i / 7), 1) / 10 for i in range(8))  # learning rates relative to the first


def build(config: ConfigDict, *, data: loader.Data | None = None) -> Experiment:
    """The experiment that ``config`` (configs/vae_mnist.py) describes; ``data`` takes the place of config.data's."""
    check(config)
    data = load(config.data) if data is None else data
    data = loader.Data(data.train, *({"image": split["image"][:size]} for split, size in _held_out(config, data)))
    mean_image = data.train["image"].mean(0, dtype=np.float64) / 255
    model = vae.make(vae.Config(config.model.latent_dim, tuple(config.model.widths)), mean_image)
    objective = targets.make(model, config.objective)
    c = config.evaluate

    def init(key: Array) -> tuple[dict, Any]:
        model_key, objective_key = jax.random.split(key)
        baseline, aux = objective.init(objective_key, mean_image)
        return model.init(model_key) | {"baseline": baseline}, aux

    def loss(params: dict, batch: dict, keys: Array, step: Array, aux: Any) -> tuple[Array, tuple[dict, Any]]:
        x, noise = jax.vmap(binarise)(batch["image"], keys)
        value, (bound, traces, aux) = objective.loss(params, x, noise, {}, aux)
        metrics = {
            "bound": jnp.mean(bound),
            "iwae": jnp.mean(objectives.log_mean_exp(targets.log_w(traces))),
            "log_likelihood": jnp.mean(traces.outputs["log_likelihood"]),
        }
        return value, (metrics, aux)

    @jax.jit
    def measure(params: dict, image: Array, key: Array) -> dict:
        """Of each image ``[M, H, W, C]``: log p-hat, the IWAE bound and the normalised ESS of fewer particles."""
        few = c.iwae_particles

        def one(row: tuple[Array, Array]) -> dict:
            x, noise = binarise(*row)

            def chunk(key: Array) -> tuple[Array, Array, Array]:
                keys = jax.random.split(key, c.particle_chunk)
                log_w = targets.log_w(jax.vmap(model.trace, (None, 0, None, None))(params, keys, x, {}))
                bounds = objectives.log_mean_exp(log_w), objectives.log_mean_exp(log_w[:few])
                return *bounds, diagnostics.ess(log_w[:few]) / few

            all_of_them, iwae, ess = jax.lax.map(chunk, jax.random.split(noise, c.num_particles // c.particle_chunk))
            return {"log_p": objectives.log_mean_exp(all_of_them), "iwae": jnp.mean(iwae), "ess": jnp.mean(ess)}

        keys = jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.arange(len(image)))
        return jax.lax.map(one, (image, keys), batch_size=c.batch_size)

    weights = choose_weights(jax.eval_shape(model.init, jax.random.key(0))["inference"], mean_image)
    value_and_grad = targets.value_and_grad(model, config.objective)

    @jax.jit
    def snr(params: dict, image: Array, key: Array) -> Array:
        """SNR ``[layers, WEIGHTS_PER_LAYER]`` of the gradients of one binary batch, over draws of the particles."""
        binary_key, noise_key = jax.random.split(key)
        x = jax.vmap(binarise)(image, jax.random.split(binary_key, len(image)))[0]
        params = {part: params[part] for part in ("generative", "inference")}

        def gradients(key: Array) -> Array:
            grads = value_and_grad(params, key, x, {})[1]["inference"]
            return jnp.stack([grads[layer]["kernel"][rows, columns] for layer, (rows, columns) in weights.items()])

        keys = jax.random.split(noise_key, c.snr_repeats)
        return diagnostics.snr(diagnostics.sample_gradients(gradients, keys, chunk=1))

    def evaluate(params: dict, split: dict, key: Array, *, final: bool) -> dict[str, Any]:
        """Figures on the images of a split, binarised once; bounds in nats per image.

        ``iwae_K`` and ``log_p`` are IWAE bounds of evaluate.iwae_particles and evaluate.num_particles, ``kl`` is their
        difference (eq. 7.16), ``ess`` in [1 / K, 1] the effective sample size (eq. 7.19) divided by K, whose histogram
        over images has the bins of `ess_edges`. ``snr`` is the mean of ``snr_weights [layers, WEIGHTS_PER_LAYER]``.
        """
        measure_key, snr_key = jax.random.split(key)
        each = jax.device_get(measure(params, split["image"], measure_key))
        log_p, iwae, ess = (float(np.mean(each[name])) for name in ("log_p", "iwae", "ess"))
        figures = {f"iwae_{c.iwae_particles}": iwae, "log_p": log_p, "kl": log_p - iwae, "ess": ess}
        inside = np.clip(np.float64(each["ess"]), 1 / c.iwae_particles, 1)
        figures["ess_histogram"] = np.histogram(inside, ess_edges(c.iwae_particles))[0].tolist()
        if c.snr_repeats:
            ratios = np.asarray(snr(params, split["image"][: config.train.batch_size], snr_key))
            figures |= {"snr": float(np.mean(ratios)), "snr_weights": ratios.tolist()}
        return figures

    @jax.jit
    def reconstruct(params: dict, image: Array, keys: Array) -> Array:
        x, noise = jax.vmap(binarise)(image, keys)
        z = jax.vmap(model.trace, (None, 0, 0, None))(params, noise, x, {}).z
        return jnp.concatenate([x, jax.vmap(model.render, (None, 0))(params, z)["mean"]], axis=2)

    @jax.jit
    def imagine(params: dict, keys: Array) -> Array:
        z = jax.vmap(model.generate, (None, 0, None))(params, keys, {})[0]
        return jax.vmap(model.render, (None, 0))(params, z)["mean"]

    def figures(params: dict, split: dict, key: Array, evaluated: dict) -> dict[str, Any]:
        """Reconstructions and samples of the prior."""
        image = split["image"][: c.num_pictures]
        pairs = reconstruct(params, image, jax.random.split(key, len(image)))
        return {
            "reconstructions": plots.samples(pairs, "Binary images beside the means of their reconstructions"),
            "samples": plots.samples(imagine(params, jax.random.split(key, 48)), "Samples of the prior: means"),
        }

    return Experiment(
        data=data,
        optimizer=make_optimizer(config.optimizer, config.train.num_steps, config.train.batch_size),
        init=init,
        loss=loss,
        evaluate=evaluate,
        figures=figures,
        headline=(f"iwae_{c.iwae_particles}", "log_p", "kl", "ess"),
        signature=None,
    )


def load(c: ConfigDict) -> loader.Data:
    """The digits of config.data as images ``[M, H, W, 1]``."""
    if c.source != "mnist" and c.path:
        raise UserError(f"data.path is not read with data.source={c.source!r}: name your own images by data.source")
    arguments = [(c.source, c.path, split, c.seed) for split in splits.SPLITS]
    return loader.Data(*({"image": digits.load_digits(*a, cache_dir=c.cache_dir).image[..., None]} for a in arguments))


def binarise(image: Array, key: Array) -> tuple[Array, Array]:
    """An image ``uint8 [H, W, C]`` drawn as a binary one, its brightness the probability; and an unused key."""
    binary_key, noise_key = jax.random.split(key)
    return jax.random.bernoulli(binary_key, image.astype(jnp.float32) / 255).astype(jnp.float32), noise_key


def ess_edges(num_particles: int) -> np.ndarray:
    """Edges ``[ESS_BINS + 1]`` from 1 / K to 1, in equal ratios."""
    return np.geomspace(1 / num_particles, 1, ESS_BINS + 1)


def choose_weights(layers: dict, mean_image: np.ndarray) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Rows and columns of some weights of every layer, the same in every run; at the image, of bright pixels alone."""
    rng = np.random.default_rng(0)
    bright = np.flatnonzero(mean_image >= min(BRIGHT, mean_image.max()))
    chosen = {}
    for name, layer in layers.items():
        rows, columns = layer["kernel"].shape
        rows = rng.choice(bright if name == "hidden_0" else rows, WEIGHTS_PER_LAYER)
        chosen[name] = rows, rng.choice(columns, WEIGHTS_PER_LAYER)
    return chosen


def make_optimizer(c: ConfigDict, num_steps: int, batch_size: int) -> optax.GradientTransformation:
    """For gradients that are means over the batch; a part ``baseline`` learns ``c.baseline_factor`` times as fast."""
    rate = learning_rate(c, num_steps)

    def adam(factor: float) -> optax.GradientTransformation:
        return optax.adam(lambda step: factor * rate(step), c.b1, c.b2, c.eps / batch_size)

    return schedules.partition(adam(1.0), adam(c.baseline_factor))


def learning_rate(c: ConfigDict, num_steps: int) -> optax.Schedule:
    """`STAGES` of ``c.learning_rate``, each ``c.stage_growth`` times as long as the one before, ``num_steps`` in all.

    In the paper, stage i = 1, ..., 8 has the rate ``1e-4 round(10^(1 - (i - 1) / 7), 1)`` for 3^(i - 1) epochs.
    """
    lengths = c.stage_growth ** np.arange(len(STAGES))
    ends = np.rint(num_steps * np.cumsum(lengths) / np.sum(lengths)).astype(np.int32)
    rates = jnp.asarray(c.learning_rate * np.array(STAGES), jnp.float32)
    return lambda step: rates[jnp.sum(step >= ends[:-1])]


def check(config: ConfigDict) -> None:
    """UserError where parts of the config disagree."""
    c = config.evaluate
    for name in ("batch_size", "num_particles", "particle_chunk", "num_examples", "num_valid", "num_pictures"):
        if c[name] < 1:
            raise UserError(f"evaluate.{name}={c[name]} must be at least 1")
    if c.num_particles % c.particle_chunk:
        raise UserError(f"evaluate.particle_chunk={c.particle_chunk} must divide num_particles={c.num_particles}")
    if not 2 <= c.iwae_particles <= c.particle_chunk:
        raise UserError(
            f"evaluate.iwae_particles={c.iwae_particles} must be from 2 to particle_chunk={c.particle_chunk}"
        )
    if c.snr_repeats < 0 or c.snr_repeats == 1:
        raise UserError(f"evaluate.snr_repeats={c.snr_repeats}: use 2 or more, or 0 to leave the SNR out")
    for name, value in FIXED.items():
        if config.optimizer[name] != value:
            raise UserError(f"optimizer.{name}={config.optimizer[name]!r}: here it is always {value!r}")
    if config.optimizer.stage_growth <= 0:
        raise UserError(f"optimizer.stage_growth={config.optimizer.stage_growth} must be positive")


def _held_out(config: ConfigDict, data: loader.Data) -> list[tuple[dict, int]]:
    return [(data.valid, config.evaluate.num_valid), (data.test, config.evaluate.num_examples)]
