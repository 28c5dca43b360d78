"""Attend, Infer, Repeat (Eslami et al., 2016), after Kosiorek's notes of 2017-10 and 2017-12.

Equation numbers are those of the notes of 2017-12; algorithms 4 and 5 are in appendix 8.B of the thesis.
Everything speaks of one image and one particle; ``N`` is ``num_steps``, the number of slots.
"""

import dataclasses
import functools
import math

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array

from objcentric import distributions
from objcentric.errors import UserError
from objcentric.models.model import Model, Trace, check_fields
from objcentric.models.scene import Scene, statistics
from objcentric.nn.activations import elu
from objcentric.nn.cnn import Deconv
from objcentric.nn.mlp import MLP


@dataclasses.dataclass(frozen=True)
class Config:
    """Typed ``config.model``; the fields are explained in configs/base.py."""

    canvas: tuple[int, int, int]  # (H, W, C)
    num_steps: int = 3
    recurrence: str = "image"
    glimpse_size: tuple[int, int] = (20, 20)
    what_dim: int = 50
    hidden: int = 256
    reach: float = 1.0
    object_size: float | tuple[float, ...] = 18.0
    scale_std: float = 0.3
    likelihood: str = "gaussian"
    output_std: float = 0.3
    background: str = "none"
    background_dim: int = 8
    count_prior: str = "geometric"
    presence_bias: float = 1.0
    decoder_bias: float = -2.0

    def __post_init__(self):
        positive = ("num_steps", "what_dim", "hidden")
        check_fields(self, choices=_CHOICES, positive=positive)
        if self.background_dim < 0:
            raise UserError(f"model.background_dim={self.background_dim} must be 0 or more")
        self.scene  # noqa: B018 - checks its fields

    @property
    def scene(self) -> Scene:
        sizes = self.object_size if isinstance(self.object_size, tuple) else (self.object_size,)
        return Scene(
            self.canvas, self.glimpse_size, sizes, self.scale_std, self.likelihood, self.output_std, self.reach
        )


_CHOICES = {
    "recurrence": ("image", "latent"),
    "background": ("none", "mlp", "deconv"),
    "count_prior": ("geometric", "learned"),
}


def make(config: Config) -> Model:
    """Builds the pure functions of AIR."""
    scene = config.scene
    num_steps, where_dim = config.num_steps, config.scene.where_dim
    has_background = config.background != "none"

    nets = {
        "inference": {
            "image_encoder": MLP((), config.hidden),
            "core": nn.OptimizedLSTMCell(config.hidden),
            "where_presence": MLP((config.hidden,), 2 * where_dim + 1, output_scale=0.01),
            "glimpse_encoder": MLP((config.hidden, config.hidden), 2 * config.what_dim),
        },
        "generative": {
            "decoder": MLP((config.hidden, config.hidden), math.prod(scene.glimpse_shape), output_scale=0.1),
        },
    }
    if has_background:
        if config.background_dim:
            nets["inference"]["background_encoder"] = MLP((config.hidden,), 2 * config.background_dim)
        mlp = MLP((config.hidden,), math.prod(config.canvas), output_scale=0.1)
        nets["generative"]["background"] = mlp if config.background == "mlp" else Deconv(config.canvas)

    core_input = config.hidden + (0 if config.recurrence == "image" else where_dim + config.what_dim + 1)
    inputs = {
        "image_encoder": math.prod(config.canvas),
        "where_presence": config.hidden,
        "glimpse_encoder": math.prod(scene.glimpse_shape),
        "decoder": config.what_dim,
        "background_encoder": config.hidden,
        "background": config.background_dim or config.hidden,
    }

    def init(key: Array) -> dict:
        params = {}
        for part, modules in nets.items():
            params[part] = {}
            for name, net in modules.items():
                key, subkey = jax.random.split(key)
                if name == "core":
                    carry = (jnp.zeros(config.hidden), jnp.zeros(config.hidden))
                    params[part][name] = net.init(subkey, carry, jnp.zeros(core_input))
                else:
                    params[part][name] = net.init(subkey, jnp.zeros(inputs[name]))
        initial = 0.1 * jax.random.normal(key, (2, config.hidden))
        params["inference"]["initial_state"] = {"cell": initial[0], "hidden": initial[1]}
        if config.count_prior == "learned":
            params["generative"]["count_logits"] = jnp.zeros(num_steps + 1)
        return params

    def apply(params, part: str, name: str, *args):
        return nets[part][name].apply(params[part][name], *args)

    def decode(params, z: dict) -> tuple[Array, Array]:
        """Glimpses ``[N, h, w, C]`` of present objects (absent ones are black) and the background ``[H, W, C]``."""
        glimpses = nn.sigmoid(apply(params, "generative", "decoder", z["what"]) + config.decoder_bias)
        glimpses = glimpses.reshape(num_steps, *scene.glimpse_shape) * z["presence"][:, None, None, None]
        if not has_background:
            return glimpses, jnp.zeros(config.canvas)
        background = apply(params, "generative", "background", z["background"]).reshape(config.canvas)
        return glimpses, nn.sigmoid(background + config.decoder_bias)

    def compose(glimpses: Array, where: Array, background: Array) -> Array:
        """y = sum of the placed objects plus the background (eqs. 12 and 17-19, algorithm 5)."""
        return scene.place(glimpses, where) + background

    what_prior = distributions.normal(jnp.zeros(config.what_dim), jnp.ones(config.what_dim))
    background_prior = distributions.normal(jnp.zeros(config.background_dim), jnp.ones(config.background_dim))

    def count_log_prob(params, hparams: dict) -> Array:
        """log p(n) ``[N + 1]``."""
        if config.count_prior == "learned":
            return jax.nn.log_softmax(params["generative"]["count_logits"])
        return distributions.truncated_geometric_log_prob(
            jnp.arange(num_steps + 1), hparams["presence_prior"], num_steps
        )

    def log_prior(params, z: dict, hparams: dict) -> Array:
        """log p(n) + sum_{i <= n} log p(z^i) (eqs. 2 and 3)."""
        where, what = (
            jax.vmap(functools.partial(distributions.log_prob, prior))(z[name])
            for prior, name in ((scene.where_prior, "where"), (what_prior, "what"))
        )
        log_p = count_log_prob(params, hparams)[jnp.round(jnp.sum(z["presence"])).astype(jnp.int32)]
        log_p += jnp.sum(z["presence"] * (where + what))
        if has_background and config.background_dim:
            log_p += distributions.log_prob(background_prior, z["background"])
        return log_p

    def recur(params, features: Array, state, previous: dict | None):
        """omega^i, h^i = R(x, z^{i-1}, h^{i-1}) (eq. 5); the notes of 2017-10 leave z^{i-1} out."""
        if previous is None:
            return apply(params, "inference", "core", state, features)
        # An absent object leaves no trace: what follows it, a background included, must not depend on its draw.
        latents = previous["presence"] * jnp.concatenate([previous["where"], previous["what"], jnp.ones(1)])
        return apply(params, "inference", "core", state, jnp.concatenate([features, latents]))

    def attend(params, x: Array, margin: Array, h: Array, noise: dict, given: dict | None, pathwise: bool):
        """Infers one object (eq. 6, algorithm 4): its draw, and the scores that `infer_objects` returns."""

        def draw(name: str, q) -> Array:
            sample = q.loc + q.scale * noise[name] if given is None else given[name]
            return sample if pathwise else jax.lax.stop_gradient(sample)

        raw = apply(params, "inference", "where_presence", h)
        residual = statistics(raw[:-1], 0.1)
        presence_q = distributions.bernoulli(raw[-1] + config.presence_bias, margin)
        where_q = distributions.normal(scene.where_loc + residual.loc, residual.scale)
        where = draw("where", where_q)
        glimpse = scene.read(x, where)
        encoding = apply(params, "inference", "glimpse_encoder", glimpse.reshape(-1))
        what_q = distributions.normal(*statistics(encoding, 0.5))
        what = draw("what", what_q)
        go_on = presence_q.probs > noise["presence"] if given is None else given["presence"]
        go_on = go_on.astype(jnp.float32)
        log_q = distributions.log_prob(where_q, where) + distributions.log_prob(what_q, what)
        scores = {"objects": log_q, "presence": presence_q.log_prob(go_on), "presence_prob": presence_q.probs}
        return {"where": where, "what": what, "presence": go_on}, scores

    def infer_objects(params, key: Array, x: Array, margin: Array, given: dict | None, pathwise: bool):
        """All slots: z ``[N, ...]``, the scores of each slot, and h^N.

        Scores ``[N]``: log q of where and what (``objects``), log q of ``presence`` if the slot before is present, and
        ``presence_prob``, its probability of being present then.
        """
        features = elu(apply(params, "inference", "image_encoder", x.reshape(-1)))
        start = params["inference"]["initial_state"]
        start = (start["cell"], start["hidden"])
        continuous_key, presence_key = jax.random.split(key)
        normal = jax.random.normal(continuous_key, (num_steps, where_dim + config.what_dim))
        where, what = jnp.split(normal, [where_dim], axis=-1)
        noise = {"where": where, "what": what, "presence": jax.random.uniform(presence_key, (num_steps,))}
        if config.recurrence == "image":
            _, h = jax.lax.scan(lambda state, _: recur(params, features, state, None), start, None, num_steps)
            z, scores = jax.vmap(lambda *args: attend(params, x, margin, *args, pathwise))(h, noise, given)
            return z | {"presence": jnp.cumprod(z["presence"])}, scores, h[-1]

        def step(carry, inputs):
            state, previous = carry
            state, h = recur(params, features, state, previous)
            z, scores = attend(params, x, margin, h, *inputs, pathwise)
            z["presence"] = z["presence"] * previous["presence"]
            return (state, z), (z, scores, h)

        nothing = {"where": jnp.zeros(where_dim), "what": jnp.zeros(config.what_dim), "presence": jnp.ones(())}
        _, (z, scores, h) = jax.lax.scan(step, (start, nothing), (noise, given))
        return z, scores, h[-1]

    def infer_background(params, key: Array, h: Array, given, pathwise: bool) -> tuple[Array, Array]:
        """z^background and its log q; with ``background_dim=0`` it is h^N itself (eq. 11)."""
        if not config.background_dim:
            return (h if given is None else given), jnp.zeros(())
        q = distributions.normal(*statistics(apply(params, "inference", "background_encoder", h), 0.5))
        sample = q.sample(seed=key) if given is None else given
        sample = sample if pathwise else jax.lax.stop_gradient(sample)
        return sample, distributions.log_prob(q, sample)

    def trace(params, key: Array, x: Array, hparams: dict, *, z: dict | None = None, pathwise: bool = True) -> Trace:
        """Draws z ~ q(z | x), or scores the given z, for the image ``x [H, W, C]`` in [0, 1].

        Args:
          hparams: ``presence_prior``, the success probability of the geometric prior (read by no learned one), and
            ``presence_margin``: q of presence stays within (margin, 1 - margin).
          z: ``presence [N]`` (ones, then zeros), ``where [N, where_dim]``, ``what [N, what_dim]`` and, with a
            background component, ``background``; ``None`` to draw it.
          pathwise: whether gradients flow through the draw of the continuous latents.

        Returns:
          the trace; its ``outputs`` are ``mean [H, W, C]`` of the likelihood, ``log_likelihood []``,
          ``presence_prob [N]`` (q that a slot is present if the one before is), and in pixels ``boxes [N, 4]`` of the
          glimpses and ``extents [N, 4]``, the tight boxes of what is drawn in them.
        """
        object_key, background_key = jax.random.split(key)
        objects = None if z is None else {name: z[name] for name in ("where", "what", "presence")}
        drawn, scores, h = infer_objects(params, object_key, x, hparams["presence_margin"], objects, pathwise)
        presence = drawn["presence"]
        before = jnp.concatenate([jnp.ones(1), presence[:-1]])
        log_q_discrete = jnp.sum(before * scores["presence"])
        log_q = log_q_discrete + jnp.sum(presence * scores["objects"])
        if has_background:
            given = None if z is None else z["background"]
            drawn["background"], log_q_background = infer_background(params, background_key, h, given, pathwise)
            log_q += log_q_background

        glimpses, background = decode(params, drawn)
        mean = compose(glimpses, drawn["where"], background)
        log_likelihood = distributions.log_prob(scene.pixels(mean), x)
        outputs = {
            "mean": mean,
            "log_likelihood": log_likelihood,
            "presence_prob": scores["presence_prob"],
            "boxes": scene.boxes(drawn["where"]),
            "extents": scene.extents(glimpses, drawn["where"]),
        }
        return Trace(drawn, log_likelihood + log_prior(params, drawn, hparams), log_q, log_q_discrete, outputs)

    def render(params, z: dict) -> dict:
        """Pictures of ``z``: ``mean [H, W, C]``, ``objects [N, H, W, C]``, ``background``, ``boxes [N, 4]``."""
        glimpses, background = decode(params, z)
        objects = scene.place_each(glimpses, z["where"])
        return {
            "mean": jnp.sum(objects, 0) + background,
            "objects": objects,
            "background": background,
            "boxes": scene.boxes(z["where"]),
        }

    def generate(params, key: Array, hparams: dict) -> tuple[dict, Array]:
        """A scene from the prior: n, then n objects, then the image ``[H, W, C]`` (eqs. 1-3)."""
        if has_background and not config.background_dim:
            raise UserError("a deterministic background (model.background_dim=0) has no prior to sample from")
        keys = jax.random.split(key, 5)
        count = jax.random.categorical(keys[0], count_log_prob(params, hparams))
        z = {
            "presence": (jnp.arange(num_steps) < count).astype(jnp.float32),
            "where": scene.where_prior.sample(seed=keys[1], sample_shape=num_steps),
            "what": what_prior.sample(seed=keys[2], sample_shape=num_steps),
        }
        if has_background:
            z["background"] = background_prior.sample(seed=keys[3])
        glimpses, background = decode(params, z)
        return z, scene.pixels(compose(glimpses, z["where"], background)).sample(seed=keys[4])

    return Model(init, trace, generate, render)
