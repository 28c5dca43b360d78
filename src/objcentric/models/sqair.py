"""Sequential Attend, Infer, Repeat (Kosiorek et al., 2018): chapter 5 of the thesis.

Everything speaks of one sequence and one particle. ``N`` slots hold the objects of a frame; an object keeps its slot,
and its identity, until it disappears. A frame is a *step* (algorithms 1 to 3): objects are propagated, then new ones
are discovered in the slots that are free, so that no frame has more than N (eq. 5.8).

Where the chapter leaves something open, or its parts disagree:

- q draws where and what of all objects of the frame before, also of those that then disappear; so that p(x, z) over
  q(z | x) is an importance weight, p has their densities, too (eq. 5.9 has those of objects that stay).
- Free slots are taken again: the RNNs go through objects by slot, not in the order of discovery.
- "Most recent object" (eq. 5.14) is the last one present; line 16 of algorithm 2 takes the last one processed.

From the release, or so that the parameters are as many as in table 5.D.1, unless the option that is named says
otherwise:

- Where of q and p of propagation are centred on the latents before, where of new objects on the mean of the prior (of
  a learned one, on where that begins), and the proposal is the place before plus a tenth of an MLP's output (all of it,
  and where of q on that, with ``motion="velocity"``); without ``centred`` MLPs tell the means themselves, as the
  chapter has it.
- The learned table of p(D_t | P_t) (eq. 5.8) has a part of its own for the first frame, and begins with few new objects
  after it; with ``one_discovery_table`` there is one part, which begins with as many objects as fit.
- What of q mixes, by gates, the appearance before, the glimpse's and what the RNNs make of it; both parts of q share
  the linear layer from a glimpse's features to what; one MLP gives where and presence of new objects. Without
  ``shared_statistics`` each distribution of q has a two-layer MLP of its own, as in appendix 5.A.
- Probabilities of presence stay within a margin, of p as of q (``presence_margin``).

As in the release, always: inputs of the temporal RNN pass an ELU after the linear layer that joins them, and the loss
is divided by the number of frames, with which gradients grow.

Only in the release, and here where the config says so: a prior of where that is learnt (``where_prior``), a mean image
(``mean_image``), a learnt factor of what is decoded (``decoder_scale``), a mask of proposals (``proposal_mask``) and a
p(D_t | P_t) of up to N new objects whatever P_t is (``truncated_discovery``; what is above N - P_t is lost to p(x), and
samples are cut to the slots that are free). Not followed: its q finds more than N objects, and cuts what is too much,
but not its log-probability, which leaves no p(x, z) over q(z | x). Nor what the size of objects tells here: its q of
where begins with standard deviations of its own (softplus(-3) + .01, of propagation softplus(-4) + .01), its prior at
(-2, -2, 0, 0), its glimpses are no smaller than 1e-4 of the canvas (here a quarter of the expected one).

Ours, where the config says so:

- ``motion="velocity"``: an object's last displacement is part of the state, and known to the networks that propose
  where it is and of which p of propagation is made; where of q is centred on the proposal. RNNs alone are slow to learn
  how objects move, and swap identities where they meet.
- q begins with other chances of a new object in the first frame (``discovery_bias``) than later
  (``rediscovery_bias``); algorithm 3 does not know which frame it is in.
- The prior of the number of new objects may be annealed instead of learned (``discovery_prior``), and the centres of
  glimpses may leave the canvas (``reach``).
- What flows back from a frame to the one before may be limited (``gradient_limit``): see `model.limit_gradients`.
- Objects may be propagated in an order that is drawn anew in each frame (``propagation_order``). Else q learns what
  comes first, say the upper one, and identities keep that order where objects cross. An order that does not depend on
  what is drawn leaves p(x, z) over q(z | x) an importance weight.
"""

import dataclasses
import functools
import math
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array, lax

from objcentric import distributions
from objcentric.errors import UserError
from objcentric.models.model import Model, Sequential, Step, check_fields, limit_gradients, scan, unroll
from objcentric.models.scene import Scene, statistics
from objcentric.nn.activations import elu
from objcentric.nn.cnn import CNN, SubpixelCNN
from objcentric.nn.mlp import MLP

_CHOICES = {
    "network": ("mlp", "conv"),
    "motion": ("position", "velocity"),
    "discovery_prior": ("annealed", "learned"),
    "propagation_order": ("slots", "random"),
    "where_prior": ("fixed", "learned"),
}

_OPEN = 2.0  # initial logit of a mask of proposals


@dataclasses.dataclass(frozen=True)
class Config:
    """Typed ``config.model``; the fields are explained in configs/sqair.py."""

    canvas: tuple[int, int, int]  # (H, W, C)
    num_objects: int = 3
    glimpse_size: tuple[int, int] = (20, 20)
    what_dim: int = 50
    hidden: int = 128
    network: str = "mlp"
    encoder_features: tuple[int, ...] = (16, 32, 32, 64)
    encoder_strides: tuple[int, ...] = (2, 2, 1, 1)
    decoder_features: tuple[int, ...] = (32, 64, 64)
    decoder_strides: tuple[int, ...] = (1, 2, 2)
    decoder_hidden: int = 256
    num_frames: int = 10
    object_size: tuple[float, ...] = (18.0, 18.0)
    scale_std: float = 0.3
    likelihood: str = "gaussian"
    output_std: float = 0.3
    reach: float = 1.5
    motion: str = "velocity"
    centred: bool = True
    shared_statistics: bool = True
    discovery_prior: str = "annealed"
    one_discovery_table: bool = False
    discovery_bias: float = 1.0
    rediscovery_bias: float = 0.0
    propagation_bias: float = 4.0
    propagation_prior_bias: float = 4.0
    decoder_bias: float = -2.0
    gradient_limit: float = 0.0
    propagation_order: str = "slots"
    where_prior: str = "fixed"
    mean_image: bool = False
    decoder_scale: float = 0.0
    proposal_mask: bool = False
    truncated_discovery: bool = True

    def __post_init__(self):
        positive = ("num_objects", "what_dim", "hidden", "decoder_hidden", "num_frames")
        check_fields(self, choices=_CHOICES, positive=positive)
        for kind in ("encoder", "decoder"):
            features, strides = (getattr(self, f"{kind}_{name}") for name in ("features", "strides"))
            if len(features) != len(strides) or min(features + strides, default=0) < 1:
                raise UserError(
                    f"model.{kind}_features={features}, {kind}_strides={strides}: use as many positive ones"
                )
        if self.network == "conv" and any(side % math.prod(self.decoder_strides) for side in self.glimpse_size):
            factor = math.prod(self.decoder_strides)
            raise UserError(
                f"model.glimpse_size={self.glimpse_size}: use multiples of {factor}, by model.decoder_strides"
            )
        if self.motion == "velocity" and not self.centred:
            raise UserError("model.centred=False does not go with model.motion='velocity': use motion='position'")
        if not 0 <= self.gradient_limit < float("inf"):
            raise UserError(f"model.gradient_limit={self.gradient_limit}: use 0, for none, or more")
        if not 0 <= self.decoder_scale < float("inf"):
            raise UserError(f"model.decoder_scale={self.decoder_scale}: use 0, for none, or what it is at first")
        self.scene  # noqa: B018 - checks its fields

    @property
    def scene(self) -> Scene:
        fields = self.canvas, self.glimpse_size, self.object_size, self.scale_std, self.likelihood, self.output_std
        return Scene(*fields, self.reach)


class Objects(NamedTuple):
    """N slots; what is drawn for a slot that no object holds means nothing."""

    presence: Array  # [N] 0 or 1
    where: Array  # [N, where_dim]
    what: Array  # [N, what_dim]


class State(NamedTuple):
    """What a frame leaves to the next one."""

    objects: Objects
    velocity: Array  # [N, where_dim] by how much where changed in the last frame; 0 of new objects
    identity: Array  # int32 [N], -1 in free slots
    found: Array  # int32 [], how many objects were discovered so far; the next one has this identity
    temporal: Array  # [N, hidden] of q's temporal RNN
    dynamics: Array  # [N, hidden] of the propagation prior's RNN
    first: Array  # [] 1 before the first frame, then 0


class Frame(NamedTuple):
    """The latents of one frame as they are drawn; the objects of the frame are `merge` of them."""

    propagated: Objects  # presence is that after propagation; the rest is of those present in the frame before
    discovered: Objects  # presence is 1 where an object is new


def merge(z: Frame) -> Objects:
    """All objects of a frame; free slots hold zeros."""
    old, new = z.propagated.presence[:, None], z.discovered.presence[:, None]
    return Objects(
        z.propagated.presence + z.discovered.presence,
        old * z.propagated.where + new * z.discovered.where,
        old * z.propagated.what + new * z.discovered.what,
    )


def make(config: Config) -> Sequential:
    """Builds the pure functions of SQAIR."""
    scene, slots, hidden, where_dim = config.scene, config.num_objects, config.hidden, config.scene.where_dim
    latents = where_dim + config.what_dim
    nets, inputs = _networks(config)

    def init(key: Array) -> dict:
        params = {part: {} for part in nets}
        for part, modules in nets.items():
            for name, net in modules.items():
                key, subkey = jax.random.split(key)
                if isinstance(net, nn.RNNCellBase):
                    params[part][name] = net.init(subkey, jnp.zeros(hidden), jnp.zeros(inputs[name]))
                else:
                    params[part][name] = net.init(subkey, jnp.zeros(inputs[name]))
        names = {"inference": ("temporal", "relation", "discovery"), "generative": ("dynamics",)}
        for part, states in names.items():
            params[part]["initial_state"] = {}
            for name in states:
                key, subkey = jax.random.split(key)
                params[part]["initial_state"][name] = 0.1 * jax.random.normal(subkey, (hidden,))
        if config.discovery_prior == "learned":
            table = jnp.zeros((slots + 1, slots + 1))
            later = [] if config.one_discovery_table else [table.at[:, 0].set(10.0)]
            params["generative"]["discovery_logits"] = jnp.stack([table, *later])
        if config.where_prior == "learned":
            params["generative"]["where_prior"] = {"loc": scene.where_loc, "log_scale": jnp.log(scene.where_scale)}
        if config.mean_image:
            params["generative"]["mean_image"] = jnp.zeros(config.canvas)
        if config.decoder_scale:
            params["generative"]["decoder_scale"] = jnp.float32(config.decoder_scale)
        return params

    def apply(params, part: str, name: str, *args):
        return nets[part][name].apply(params[part][name], *args)

    def infer(params, name: str, *args):
        return apply(params, "inference", name, *args)

    def encode(params, name: str, image: Array) -> Array:
        """Of an image or a glimpse; convolutional encoders share all layers but the last."""
        features = infer(params, "trunk", image) if config.network == "conv" else image
        return elu(infer(params, name, features.reshape(-1)))

    def encode_glimpse(params, x: Array, where: Array) -> Array:
        return encode(params, "glimpse_encoder", scene.read(x, where))

    # ---------------------------------------------------------------------------------------------- the generative part

    def decode(params, objects: Objects) -> Array:
        """Glimpses ``[N, h, w, C]``; those of free slots are black."""
        logits = jax.vmap(lambda what: apply(params, "generative", "decoder", what))(objects.what)
        glimpses = nn.sigmoid(logits + config.decoder_bias).reshape(slots, *scene.glimpse_shape)
        if config.decoder_scale:
            glimpses = params["generative"]["decoder_scale"] * glimpses
        return glimpses * objects.presence[:, None, None, None]

    def paint(params, glimpses: Array, objects: Objects) -> Array:
        """The mean of the image."""
        mean = scene.place(glimpses, objects.where)
        if config.mean_image:
            written = scene.place(jnp.ones_like(glimpses) * objects.presence[:, None, None, None], objects.where)
            mean = mean + params["generative"]["mean_image"] * jnp.minimum(written, 1.0)
        return mean

    def where_prior(params):
        if config.where_prior == "fixed":
            return scene.where_prior
        learned = params["generative"]["where_prior"]
        return distributions.normal(learned["loc"], jnp.exp(learned["log_scale"]))

    def propagation_prior(params, state: State, margin: Array):
        """p(z_t^P | z_{t-1}) of every slot (eqs. 5.9, 5.10): Gaussians centred on the latents before, and presence."""
        before, known = state.objects, state.dynamics
        if config.motion == "velocity":
            known = jnp.concatenate([before.where, state.velocity, state.dynamics], -1)
        raw = apply(params, "generative", "dynamics_statistics", known)
        where_raw, what_raw, presence = jnp.split(raw, [2 * where_dim, 2 * latents], axis=-1)
        where, what = statistics(where_raw, 0.3), statistics(what_raw, 0.3)
        return (
            distributions.normal(config.centred * before.where + where.loc, where.scale),
            distributions.normal(config.centred * before.what + what.loc, what.scale),
            distributions.bernoulli(presence[:, 0] + config.propagation_prior_bias, margin),
        )

    def discovery_log_prob(params, state: State, propagated: Array, hparams: dict) -> Array:
        """log p(D_t | P_t) ``[N + 1]``, of at most N - P_t new objects (eq. 5.8)."""
        number = jnp.arange(slots + 1)
        if config.discovery_prior == "learned":
            last = -(1 - state.first).astype(jnp.int32)  # of the table's parts, after the first frame
            table = params["generative"]["discovery_logits"][last]
            logits = table[jnp.round(propagated).astype(jnp.int32)]
        else:
            success, factor = jnp.log(hparams["presence_prior"]), jnp.log(hparams["rediscovery_factor"])
            logits = number * (success + (1 - state.first) * factor)
        if config.truncated_discovery:
            logits = jnp.where(number <= slots - propagated, logits, -jnp.inf)
        return jax.nn.log_softmax(logits)

    def advance(params, state: State, z: Frame) -> State:
        """The state after a frame with the latents ``z``."""
        objects = merge(z)
        new, kept = z.discovered.presence, z.propagated.presence
        order = jnp.cumsum(new).astype(jnp.int32) - 1
        identity = jnp.where(kept > 0, state.identity, jnp.where(new > 0, state.found + order, -1))
        found = state.found + jnp.sum(new).astype(jnp.int32)
        fresh = start(params)
        temporal, dynamics = (
            jnp.where(new[:, None] > 0, getattr(fresh, name), getattr(state, name)) for name in ("temporal", "dynamics")
        )
        latent = jnp.concatenate([objects.where, objects.what], -1)
        dynamics, _ = apply(params, "generative", "dynamics", dynamics, latent)
        velocity = kept[:, None] * (objects.where - state.objects.where)
        return State(objects, velocity, identity, found, temporal, dynamics, jnp.zeros(()))

    what_prior = distributions.normal(jnp.zeros(config.what_dim), jnp.ones(config.what_dim))

    # ----------------------------------------------------------------------------------------------- the inference part

    def noise_of(key: Array, temperature: float | Array) -> tuple[Array, Array]:
        """Normal noise ``[N, latents]`` and uniform ``[N]`` of the slots; at temperature 0 those that yield modes."""
        uniform = jax.random.uniform(jax.random.fold_in(key, 1), (slots,))
        return temperature * jax.random.normal(key, (slots, latents)), 0.5 + temperature * (uniform - 0.5)

    def order_of(key: Array, temperature: float | Array) -> Array:
        """In which slots are propagated, ``[N]``; at temperature 0 as they are."""
        mixed = config.propagation_order == "random"
        return jnp.argsort(mixed * temperature * jax.random.uniform(key, (slots,)))

    def propagate(
        params,
        noise: tuple,
        order: Array,
        state: State,
        x: Array,
        margin: Array,
        given: Objects | None,
        pathwise: bool,
    ):
        """Algorithm 2: objects of the frame before, one after another."""

        def one(carry, slot):
            relation, last = carry
            before, where_before, what_before, velocity, temporal, noise, uniform, given = slot
            if config.motion == "velocity":
                proposal = where_before + infer(params, "proposal", jnp.concatenate([where_before, velocity, temporal]))
            else:
                proposal = infer(params, "proposal", jnp.concatenate([where_before, temporal]))
                proposal = where_before + 0.1 * proposal if config.centred else proposal
            glimpse = scene.read(x, proposal)
            if config.proposal_mask:
                glimpse = glimpse * nn.sigmoid(infer(params, "mask", temporal) + _OPEN).reshape(glimpse.shape)
            encoding = encode(params, "glimpse_encoder", glimpse)
            seen = jnp.concatenate([encoding, what_before, where_before, temporal, last])
            new_relation, _ = infer(params, "relation", relation, seen)  # eq. 5.14

            residual = statistics(infer(params, "where", jnp.concatenate([where_before, new_relation])), 0.1)
            nearby = proposal if config.motion == "velocity" else config.centred * where_before
            where_q = distributions.normal(nearby + residual.loc, residual.scale)
            where = _draw(where_q, noise[:where_dim], given and given.where, pathwise)

            encoding = encode_glimpse(params, x, where)
            moved = elu(infer(params, "temporal_input", jnp.concatenate([encoding, where, new_relation])))
            new_temporal, _ = infer(params, "temporal", temporal, moved)  # eq. 5.15

            both = jnp.concatenate([new_relation, new_temporal])
            if config.shared_statistics:
                what_q = _gated(infer(params, "what", encoding), infer(params, "what_change", both), what_before)
            else:
                known = jnp.concatenate([encoding, what_before, both])
                what_q = distributions.normal(*statistics(infer(params, "kept_what", known), 0.5))
            what = _draw(what_q, noise[where_dim:], given and given.what, pathwise)

            logit = infer(params, "presence", jnp.concatenate([what, where, both]))[0] + config.propagation_bias
            presence_q = distributions.bernoulli(logit, margin)
            presence = (presence_q.probs > uniform).astype(jnp.float32) if given is None else given.presence
            presence = presence * before
            scores = {
                "objects": distributions.log_prob(where_q, where) + distributions.log_prob(what_q, what),
                "presence": presence_q.log_prob(presence),
            }

            relation = jnp.where(before > 0, new_relation, relation)
            temporal = jnp.where(presence > 0, new_temporal, temporal)
            last = jnp.where(presence > 0, jnp.concatenate([where, what]), last)
            probability = before * presence_q.probs
            return (relation, last), (Objects(presence, where, what), temporal, scores, probability)

        start = params["inference"]["initial_state"]["relation"], jnp.zeros(latents)
        each = (*state.objects, state.velocity, state.temporal, *noise, given)
        _, ordered = scan(one, start, jax.tree.map(lambda leaf: leaf[order], each))
        back = jnp.argsort(order)
        objects, temporal, scores, probability = jax.tree.map(lambda leaf: leaf[back], ordered)
        before = state.objects.presence
        discrete = before @ scores["presence"]
        return objects, temporal, before @ scores["objects"] + discrete, discrete, probability

    def discover(
        params, noise: tuple, state: State, x: Array, old: Objects, margin: Array, given: Objects | None, pathwise: bool
    ):
        """Algorithm 3: new objects, one after another, in the slots that are free."""
        image = encode(params, "image_encoder", x)
        known = elu(infer(params, "latent_encoder", jnp.concatenate([old.what, old.where], -1)))
        known = old.presence @ known  # eq. 5.6
        bias = jnp.where(state.first > 0, config.discovery_bias, config.rediscovery_bias)

        def one(carry, slot):
            recurrent, last, going_on = carry
            free, noise, uniform, given = slot
            new_recurrent, _ = infer(params, "discovery", recurrent, jnp.concatenate([image, known, last]))
            raw = infer(params, "discovery_statistics", new_recurrent)
            if not config.shared_statistics:
                raw = jnp.concatenate([raw, infer(params, "discovery_presence", new_recurrent)])
            presence_q = distributions.bernoulli(raw[-1] + bias, margin)
            residual = statistics(raw[:-1], 0.1)
            where_q = distributions.normal(config.centred * scene.where_loc + residual.loc, residual.scale)
            where = _draw(where_q, noise[:where_dim], given and given.where, pathwise)
            what_q = distributions.normal(*statistics(infer(params, "what", encode_glimpse(params, x, where)), 0.5))
            what = _draw(what_q, noise[where_dim:], given and given.what, pathwise)
            choice = (presence_q.probs > uniform).astype(jnp.float32) if given is None else given.presence
            asked = free * going_on
            presence = choice * asked
            scores = {
                "objects": presence * (distributions.log_prob(where_q, where) + distributions.log_prob(what_q, what)),
                "presence": asked * presence_q.log_prob(presence),
            }
            recurrent = jnp.where(free > 0, new_recurrent, recurrent)
            last = jnp.where(free > 0, presence * jnp.concatenate([where, what]), last)
            going_on = jnp.where(free > 0, presence, going_on)
            return (recurrent, last, going_on), (Objects(presence, where, what), scores, asked * presence_q.probs)

        free = 1 - old.presence
        start = params["inference"]["initial_state"]["discovery"], jnp.zeros(latents), jnp.ones(())
        _, (objects, scores, probability) = scan(one, start, (free, *noise, given))
        discrete = jnp.sum(scores["presence"])
        return objects, jnp.sum(scores["objects"]) + discrete, discrete, probability

    # ---------------------------------------------------------------------------------------------------- one time step

    def start(params) -> State:
        """Before the first frame there is nothing to propagate."""
        nothing = Objects(jnp.zeros(slots), jnp.zeros((slots, where_dim)), jnp.zeros((slots, config.what_dim)))
        temporal = jnp.broadcast_to(params["inference"]["initial_state"]["temporal"], (slots, hidden))
        dynamics = jnp.broadcast_to(params["generative"]["initial_state"]["dynamics"], (slots, hidden))
        no_one, none = jnp.full(slots, -1, jnp.int32), jnp.zeros((), jnp.int32)
        return State(nothing, jnp.zeros((slots, where_dim)), no_one, none, temporal, dynamics, jnp.ones(()))

    def step(
        params, key: Array, state: State, x: Array, hparams: dict, *, z: Frame | None = None, pathwise: bool = True
    ) -> Step:
        """Draws the latents of the frame ``x [H, W, C]`` in [0, 1] from q, or scores the given ``z``.

        Args:
          hparams: ``presence_prior``, the success probability of the annealed prior of new objects, and
            ``rediscovery_factor``, by which it is multiplied after the first frame; ``presence_margin``: probabilities
            of presence stay within (margin, 1 - margin). And maybe ``temperature``: 1 draws, 0 takes the mode of each
            variable, whose log-weight estimates nothing.
          pathwise: whether gradients flow through the draw of the continuous latents.

        Its ``outputs`` are ``mean [H, W, C]``, ``log_likelihood []``, `Objects` ``objects``, their ``identity [N]`` and
        ``presence_prob [N]``, and in pixels ``boxes [N, 4]`` of glimpses and ``extents [N, 4]`` of what is drawn.
        """
        *noise_keys, order_key = jax.random.split(key, 3)
        temperature = hparams.get("temperature", 1.0)
        noise = [noise_of(each, temperature) for each in noise_keys]
        order = order_of(order_key, temperature)
        margin = hparams["presence_margin"]
        given = (None, None) if z is None else z
        propagated, temporal, log_q_old, discrete_old, kept = propagate(
            params, noise[0], order, state, x, margin, given[0], pathwise
        )
        discovered, log_q_new, discrete_new, found = discover(
            params, noise[1], state, x, propagated, margin, given[1], pathwise
        )
        z = Frame(propagated, discovered)
        log_p, glimpses, mean = score(params, state, z, x, hparams)
        after = advance(params, state._replace(temporal=temporal), z)
        outputs = {
            "mean": mean,
            "log_likelihood": log_p["likelihood"],
            "presence_prob": jnp.where(propagated.presence > 0, kept, found),
            "boxes": scene.boxes(after.objects.where),
            "extents": scene.extents(glimpses, after.objects.where),
            "identity": after.identity,
            "objects": after.objects,
        }
        densities = sum(log_p.values()), log_q_old + log_q_new, discrete_old + discrete_new
        if config.gradient_limit:
            after, densities = limit_gradients(config.gradient_limit, after, densities)
        return Step(after, z, *densities, outputs)

    def score(params, state: State, z: Frame, x: Array, hparams: dict) -> tuple[dict[str, Array], Array, Array]:
        """The parts of log p(x_t, z_t | z_<t), the glimpses and the mean image."""
        margin = hparams["presence_margin"]
        where_p, what_p, presence_p = propagation_prior(params, state, margin)
        before, old, new = state.objects.presence, z.propagated, z.discovered
        each = presence_p.log_prob(old.presence) + _sum(where_p.log_prob(old.where)) + _sum(what_p.log_prob(old.what))
        number = discovery_log_prob(params, state, jnp.sum(old.presence), hparams)
        latent = jax.vmap(functools.partial(distributions.log_prob, where_prior(params)))(new.where)
        latent += jax.vmap(functools.partial(distributions.log_prob, what_prior))(new.what)
        objects = merge(z)
        glimpses = decode(params, objects)
        mean = paint(params, glimpses, objects)
        return (
            {
                "propagation": before @ each,
                "discovery": number[jnp.round(jnp.sum(new.presence)).astype(jnp.int32)] + new.presence @ latent,
                "likelihood": distributions.log_prob(scene.pixels(mean), x),
            },
            glimpses,
            mean,
        )

    def imagine(params, key: Array, state: State, hparams: dict) -> tuple[State, Frame, Array]:
        """The latents of the next frame from the prior, and its mean image.

        Args:
          hparams: as of `step`, and maybe ``temperature``: 1 draws, 0 takes what is likeliest of each variable.
        """
        keys, temperature = jax.random.split(key, 5), hparams.get("temperature", 1.0)
        where_p, what_p, presence_p = propagation_prior(params, state, hparams["presence_margin"])
        uniform = 0.5 + temperature * (jax.random.uniform(keys[0], (slots,)) - 0.5)
        presence = (uniform < presence_p.probs) * state.objects.presence
        where, what = jnp.split(temperature * jax.random.normal(keys[1], (slots, latents)), [where_dim], axis=-1)
        propagated = Objects(presence, where_p.loc + where_p.scale * where, what_p.loc + what_p.scale * what)
        number = discovery_log_prob(params, state, jnp.sum(presence), hparams)
        number = jnp.argmax(number + temperature * jax.random.gumbel(keys[2], number.shape))
        free = 1 - presence
        new = free * (jnp.cumsum(free) <= number)
        where, what = (
            distributions.normal(prior.loc, temperature * prior.scale).sample(seed=key, sample_shape=slots)
            for prior, key in ((where_prior(params), keys[3]), (what_prior, keys[4]))
        )
        z = Frame(propagated, Objects(new, where, what))
        after = advance(params, state, z)
        return after, z, paint(params, decode(params, after.objects), after.objects)

    # -------------------------------------------------------------------------------------------------------- sequences

    def generate(params, key: Array, hparams: dict) -> tuple[Frame, Array]:
        """A sequence ``[num_frames, H, W, C]`` from the prior (eq. 5.3)."""

        def one(state: State, key: Array) -> tuple[State, tuple]:
            latent_key, pixel_key = jax.random.split(key)
            state, z, mean = imagine(params, latent_key, state, hparams)
            return state, (z, scene.pixels(mean).sample(seed=pixel_key))

        return lax.scan(one, start(params), jax.random.split(key, config.num_frames))[1]

    def render(params, z: Frame) -> dict:
        """Pictures of the frames ``z [T, ...]``.

        These are ``mean [T, H, W, C]`` and of each slot ``glimpses [T, N, h, w, C]``, the same on the canvas,
        ``objects [T, N, H, W, C]``, and ``boxes [T, N, 4]``.
        """

        def one(z: Frame) -> dict:
            objects = merge(z)
            glimpses = decode(params, objects)
            placed = scene.place_each(glimpses, objects.where)
            mean, boxes = paint(params, glimpses, objects), scene.boxes(objects.where)
            return {"mean": mean, "glimpses": glimpses, "objects": placed, "boxes": boxes}

        return jax.vmap(one)(z)

    return Sequential(Model(init, unroll(start, step), generate, render), start, step, imagine)


def _networks(config: Config) -> tuple[dict, dict]:
    """The modules of either part of the parameters, and the shapes of their inputs."""
    hidden, where_dim, what_dim = config.hidden, config.scene.where_dim, config.what_dim
    latents = where_dim + what_dim
    moved = where_dim if config.motion == "velocity" else 0
    glimpse, conv = config.scene.glimpse_shape, config.network == "conv"
    layers, shared = () if conv else (hidden,), config.shared_statistics
    inference = {
        "image_encoder": MLP(layers, hidden),
        "glimpse_encoder": MLP(layers, hidden),
        "latent_encoder": MLP((hidden,), hidden),
        "discovery": nn.SimpleCell(hidden),
        "discovery_statistics": MLP((hidden,), 2 * where_dim + shared, output_scale=0.01),
        "proposal": MLP((hidden,), where_dim, output_scale=0.01),
        "relation": nn.SimpleCell(hidden),
        "where": MLP((hidden,), 2 * where_dim, output_scale=0.01),
        "temporal_input": MLP((), hidden),
        "temporal": nn.GRUCell(hidden),
        "what": MLP(() if shared else (hidden,), 2 * what_dim),
        "presence": MLP((hidden,), 1, output_scale=0.01),
    }
    if shared:
        inference["what_change"] = MLP((hidden,), 5 * what_dim, output_scale=0.1)
    else:
        inference["kept_what"] = MLP((hidden,), 2 * what_dim, output_scale=0.1)
        inference["discovery_presence"] = MLP((hidden,), 1, output_scale=0.01)
    if config.proposal_mask:
        inference["mask"] = MLP((), math.prod(glimpse), output_scale=0.1)
    generative = {
        "dynamics": nn.GRUCell(hidden),
        "dynamics_statistics": MLP((hidden,), 2 * latents + 1, output_scale=0.01),
        "decoder": MLP((hidden,), math.prod(glimpse), output_scale=0.1),
    }
    trunk = CNN(config.encoder_features, config.encoder_strides)
    if conv:
        inference["trunk"] = trunk
        features = (config.decoder_hidden, config.decoder_features, config.decoder_strides)
        generative["decoder"] = SubpixelCNN(glimpse, *features)

    def encoded(shape: tuple[int, ...]) -> int:
        return math.prod(trunk.output_shape(shape) if conv else shape)

    inputs = {
        "trunk": config.canvas,
        "image_encoder": encoded(config.canvas),
        "glimpse_encoder": encoded(glimpse),
        "latent_encoder": latents,
        "discovery": 2 * hidden + latents,
        "discovery_statistics": hidden,
        "proposal": where_dim + moved + hidden,
        "mask": hidden,
        "relation": 2 * hidden + 2 * latents,
        "where": where_dim + hidden,
        "temporal_input": 2 * hidden + where_dim,
        "temporal": hidden,
        "what": hidden,
        "what_change": 2 * hidden,
        "kept_what": 3 * hidden + what_dim,
        "discovery_presence": hidden,
        "presence": latents + 2 * hidden,
        "dynamics": latents,
        "dynamics_statistics": 2 * moved + hidden,
        "decoder": what_dim,
    }
    return {"generative": generative, "inference": inference}, inputs


def _draw(q, noise: Array, given: Array | None, pathwise: bool) -> Array:
    sample = q.loc + q.scale * noise if given is None else given
    return sample if pathwise else lax.stop_gradient(sample)


def _gated(encoded: Array, change: Array, before: Array):
    """q(z_t^what | ...): the appearance before, that of the glimpse, and what the RNNs make of it, each with a gate."""
    dim = before.shape[-1]
    temporal, gates = jnp.split(change, [2 * dim])
    forget, take, mix = jnp.split(nn.sigmoid(gates + 1.0), 3)
    seen, moved = statistics(encoded, 0.5), statistics(temporal, 0.5)
    loc = forget * before + (1 - take) * seen.loc + (1 - mix) * moved.loc
    scale = (1 - take) * seen.scale + (1 - mix) * moved.scale + 1e-2
    return distributions.normal(loc, scale)


def _sum(each: Array) -> Array:
    """Over the last axis, as a product: XLA does not vectorise reductions on CPUs."""
    return each @ jnp.ones(each.shape[-1])
