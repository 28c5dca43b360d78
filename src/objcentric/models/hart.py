"""HART, hierarchical attentive recurrent tracking, and MOHART, its trackers told of one another (thesis, 3 and 4).

Everything speaks of one video: M trackers share all parameters, and each follows the object whose box it is given. At
time t each

- looks where attention a_t tells it to: a glimpse g_t of the frame (equation 3.2);
- makes features v_t of it, with HART's appearance attention (``appearance``) of what its map s_t, steered by the
  appearance alpha_t that it expects, takes for its object (equations 3.3 and 3.4); MOHART's trackers have none, and
  no ventral stream either, unless ``ventral`` is on;
- hears of the others' features (``relation``, equations 4.1 to 4.3);
- updates its LSTM, from whose output come the box b_t relative to a_t, and a_{t+1} and alpha_{t+1} (3.5 to 3.8).

HART is M trackers without a relation. Attention and boxes are in shares of the canvas inside, in pixels outside.

Self-attention whose keys, queries and values are linear in identities and places tells badly of what depends on both,
such as forces; so what trackers tell, and what they make of what they hear, goes through an ELU layer each, which the
thesis does not mention, unless ``relation_layers`` is off. Without ``presence`` they never doubt that their objects are
there.

What the thesis leaves open: the attention to a given box is larger by a learnt bias, which boxes are relative to, too;
c of equation 3.7 begins at 0.1; box corrections are tanh's, of at most the canvas; the output MLP has one hidden layer,
and the last one is near 0 at first; of the map s_t ten features join the LSTM's output. A glimpse is scaled to [0, 1]
by its own least and largest value, then its mean is subtracted. Unlike in the authors' release the pixels of a glimpse
lie at the centres of equal parts of the box, as an image's do.
"""

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array, lax

from objcentric.errors import UserError
from objcentric.models.model import check_fields
from objcentric.nn import boxes, gaussian_attention
from objcentric.nn.activations import elu
from objcentric.nn.appearance import AlexNet, Dorsal, GlimpseCNN, Ventral
from objcentric.nn.mlp import MLP
from objcentric.nn.relation import Joint, MaxPool, SelfAttention

_CHOICES = {"v1": ("cnn", "alexnet"), "relation": ("none", "attention", "max", "mlp")}
_SMALL = 0.01  # initial scale of the last layers


@dataclasses.dataclass(frozen=True)
class Config:
    """Typed ``config.model``; the fields are explained in configs/mohart_toy.py."""

    canvas: tuple[int, int, int]  # (H, W, C)
    num_objects: int = 5
    glimpse_size: tuple[int, int] = (32, 32)
    v1: str = "cnn"
    cnn_features: tuple[int, int, int] = (32, 32, 64)
    cnn_kernel: int = 5
    appearance: bool = False
    ventral: bool = False
    features: int = 128
    hidden: int = 128
    relation: str = "attention"
    heads: int = 4
    relate_memory: bool = False
    relation_layers: bool = True
    presence: bool = True
    zoneout: float = 0.05
    dropout: float = 0.25
    margin: float = 0.01

    def __post_init__(self):
        check_fields(self, choices=_CHOICES, positive=("num_objects", "features", "hidden", "heads", "cnn_kernel"))
        for name in ("zoneout", "dropout"):
            if not 0 <= getattr(self, name) < 1:
                raise UserError(f"model.{name}={getattr(self, name)} must lie in [0, 1)")
        if not 0 <= self.margin < float("inf"):
            raise UserError(f"model.margin={self.margin}: use 0 or more")
        if len(self.cnn_features) != 3 or min(self.cnn_features) < 1:
            raise UserError(f"model.cnn_features={self.cnn_features}: use three numbers, 1 or more")
        if len(self.glimpse_size) != 2:
            raise UserError(f"model.glimpse_size={self.glimpse_size}: use two numbers, height and width")
        if self.relation == "attention" and self.features % self.heads:
            raise UserError(f"model.features={self.features} must be a multiple of model.heads={self.heads}")
        if min(self.glimpse_size) < (self.cnn_kernel if self.v1 == "cnn" else 4):
            raise UserError(f"model.glimpse_size={self.glimpse_size} is too small for model.v1={self.v1!r}")


class State(NamedTuple):
    """What a frame leaves to the next one, of M trackers."""

    lstm: tuple[Array, Array]  # [M, hidden] each: cell, output
    where: Array  # [M, 4] attention to the next frame
    appearance: Array  # [M, hidden] that is expected in it
    presence: Array  # [M] in [0, 1], that of the frame
    given: Array  # [M] 0 or 1, which trackers were given a box


class Seen(NamedTuple):
    """A frame, as M trackers have seen it."""

    boxes: Array  # [M, 4]
    attention: Array  # [M, 4] the box that they looked at
    intended: Array  # [M, 4] the same, unless guidance made them look elsewhere
    presence: Array  # [M] logits that the objects are there
    glimpse: Array  # [M, h, w, C] in [-1, 1]
    mask: Array  # [M, h', w'] logits of the map s_t; [M, 0, 0] without appearance attention
    filters: Array  # [M, F] dynamic filters; [M, 0] likewise
    weights: Array  # [M, M] with which each hears each, a mean over heads; [M, 0] unless relation is 'attention'


class Guidance(NamedTuple):
    """Where trackers are made to look in training, from the second frame on."""

    boxes: Array  # [T, M, 4]
    weight: Array  # [T, M] 0 or 1; with 0 they look where they want


class Tracker(NamedTuple):
    """Pure functions of one video. ``key`` is that of dropout and zoneout; None when it matters: evaluation."""

    init: Callable  # (key) -> params
    start: Callable  # (params, key | None, x_1 [H, W, C], boxes [M, 4], there [M]) -> (State, Seen)
    step: Callable  # (params, key | None, state, x_t, there [M] | None) -> (State, Seen)
    fixed: tuple[str, ...] = ()  # parts of params that do not learn
    # (params, x_t, box [4], true [4]) -> the loss [] of a box; None: that of section 3.4
    distance: Callable | None = None
    aim: Callable | None = None  # (params, boxes [M, 4]) -> where [M, 4], attention to boxes; None: not to be guided


def make(config: Config) -> Tracker:
    """Builds the functions; ``there [M]`` (0 or 1) are the objects that others hear of, None: those found present."""
    nets, inputs = _networks(config)
    num, canvas = config.num_objects, config.canvas

    def init(key: Array) -> dict:
        params = {"attention": {"bias": jnp.full(4, config.margin), "rate": jnp.full(4, 0.1)}}
        for name, net in nets.items():
            key, subkey = jax.random.split(key)
            params[name] = net.init(subkey, *inputs[name])
        forget = params["lstm"]["params"]["hf"]
        forget["bias"] += 1.0  # as TensorFlow's LSTMs: at first memory lasts
        return params

    def apply(params, name: str, *args):
        return nets[name].apply(params[name], *args)

    def margin(params) -> Array:
        """By how much y, x, height and width ``[1, 4]`` of attention to a given box differ from those of the box."""
        bias = params["attention"]["bias"]  # of each side of the box, outwards
        return jnp.concatenate([-bias[:2], bias[:2] + bias[2:]])[None]

    def features(params, key: Array | None, where: Array, glimpse: Array, appearance: Array | None):
        """Of one tracker: v_t ``[features]``, and logits and dynamic filters of its map; of None the map is 1."""
        maps = apply(params, "v1", glimpse)
        if key is not None and config.dropout:
            kept = jax.random.bernoulli(key, 1 - config.dropout, maps.shape)
            maps = jnp.where(kept, maps / (1 - config.dropout), 0.0)
        if not config.appearance:
            what = apply(params, "ventral", maps) if config.ventral else maps
            v = elu(apply(params, "features", what.reshape(-1))) + apply(params, "position", where)
            return v, jnp.zeros((0, 0)), jnp.zeros(0)
        logits, filters = apply(params, "dorsal", maps, jnp.zeros(config.hidden) if appearance is None else appearance)
        what = apply(params, "ventral", maps)
        if appearance is not None:
            what = what * nn.sigmoid(logits)[..., None]
        return elu(apply(params, "features", jnp.concatenate([what.reshape(-1), where]))), logits, filters

    def related(params, v: Array, memory: Array, there: Array) -> tuple[Array, Array]:
        """v_t ``[M, ...]`` with what others tell, and the weights of self-attention."""
        silent = jnp.zeros((num, 0))
        if config.relation == "none":
            return v, silent
        told = jnp.concatenate([v, memory], -1) if config.relate_memory else v
        if config.relation_layers:
            told = elu(apply(params, "told", told))
        heard, weights = apply(params, "relation", told, there)
        heard = heard * jnp.max(there)  # where nobody is there, nothing is heard
        v = jnp.concatenate([v, heard], -1)
        return (elu(apply(params, "heard", v)) if config.relation_layers else v), jnp.mean(weights, 0)

    def look(
        params, key: Array | None, state: State, x: Array, there: Array | None, *, masked: bool
    ) -> tuple[State, Seen]:
        keys = (None, None) if key is None else jax.random.split(key)
        there = state.given * (state.presence > 0.5) if there is None else there
        glimpse = jax.vmap(lambda where: normalise(gaussian_attention.glimpse(x, where, config.glimpse_size)))(
            state.where
        )
        feature_keys = None if key is None else jax.random.split(keys[0], num)
        v, mask, filters = jax.vmap(features, (None, 0 if key is not None else None, 0, 0, 0 if masked else None))(
            params, feature_keys, state.where, glimpse, state.appearance if masked else None
        )
        v, weights = related(params, v, state.lstm[1], there)
        lstm, _ = apply(params, "lstm", state.lstm, v)
        lstm = zoneout(keys[1], state.lstm, lstm, config.zoneout)
        o = lstm[1]
        if config.appearance:
            o = jnp.concatenate([o, elu(apply(params, "map", nn.sigmoid(mask).reshape(num, -1)))], -1)
        update, correction, presence, appearance = jnp.split(apply(params, "output", o), (4, 8, 9), -1)
        box = state.where - margin(params) + jnp.tanh(correction)
        where = state.where + jnp.tanh(params["attention"]["rate"])[None] * update
        presence = presence[:, 0] if config.presence else jnp.full(num, 10.0)  # or it never doubts
        attention = boxes.to_box(state.where, canvas)
        seen = Seen(boxes.to_box(box, canvas), attention, attention, presence, glimpse, mask, filters, weights)
        return State(lstm, where, appearance, nn.sigmoid(presence), state.given), seen

    def aim(params, given: Array) -> Array:
        return boxes.to_where(given, canvas) + margin(params)

    def start(params, key: Array | None, x: Array, given: Array, there: Array) -> tuple[State, Seen]:
        blank = jnp.zeros((num, config.hidden))
        first = State((blank, blank), aim(params, given), blank, there, there)
        state, seen = look(params, key, first, x, there, masked=False)
        return state._replace(presence=there), seen._replace(boxes=given)

    def step(params, key: Array | None, state: State, x: Array, there: Array | None) -> tuple[State, Seen]:
        return look(params, key, state, x, there, masked=True)

    return Tracker(init, start, step, aim=aim)


def follow(
    tracker: Tracker,
    params: dict,
    key: Array | None,
    x: Array,
    given: Array,
    there: Array,
    told: Array | None = None,
    guidance: Guidance | None = None,
) -> Seen:
    """All frames ``x [T, H, W, C]`` in [0, 1], from boxes ``given [M, 4]`` in the first one; results have an axis [T].

    Args:
      there: ``[M]``, 0 or 1: which trackers are given a box.
      told: ``[T, M]``, which objects are present, as training tells; None: the trackers themselves say.
      guidance: where they look instead of where they want to; None: they always look where they want.
    """
    keys = [None] * 2 if key is None else jax.random.split(key)
    state, first = tracker.start(params, keys[0], x[0], given, there)

    def one(state: State, inputs: tuple) -> tuple[State, Seen]:
        key, x, told, guided = inputs
        own = state.where
        if guided is not None:
            where = jnp.where(guided.weight[:, None] > 0, tracker.aim(params, guided.boxes), own)
            state = state._replace(where=where)
        state, seen = tracker.step(params, key, state, x, told)
        return state, seen._replace(intended=boxes.to_box(own, x.shape))

    later = None if key is None else jax.random.split(keys[1], len(x) - 1)
    rest = jax.tree.map(lambda each: each[1:], (x, told, guidance))
    _, seen = lax.scan(one, state, (later, *rest))
    return jax.tree.map(lambda first, rest: jnp.concatenate([first[None], rest]), first, seen)


def normalise(glimpse: Array) -> Array:
    low, high = jnp.min(glimpse), jnp.max(glimpse)
    scaled = (glimpse - low) / (high - low + 1e-3)
    return scaled - jnp.mean(scaled)


def zoneout(key: Array | None, old: tuple, new: tuple, rate: float) -> tuple:
    """Of each unit its old value with probability ``rate`` (Krueger et al., 2017); without a key the mean of that."""
    if key is None:
        return jax.tree.map(lambda o, n: rate * o + (1 - rate) * n, old, new)
    keys = jax.random.split(key, len(old))
    return tuple(
        jnp.where(jax.random.bernoulli(k, rate, n.shape), o, n) for k, o, n in zip(keys, old, new, strict=True)
    )


def make_v1(config: Config) -> nn.Module:
    return AlexNet() if config.v1 == "alexnet" else GlimpseCNN(config.cnn_features, config.cnn_kernel)


def _networks(config: Config) -> tuple[dict, dict]:
    """The modules, and inputs of the shapes that they get."""
    num, hidden, zeros = config.num_objects, config.hidden, jnp.zeros
    v1 = make_v1(config)
    glimpse = zeros((*config.glimpse_size, config.canvas[2]))
    maps = zeros(jax.eval_shape(v1.init_with_output, jax.random.key(0), glimpse)[0].shape)
    cells = maps.shape[0] * maps.shape[1]
    nets = {"v1": v1, "features": nn.Dense(config.features)}
    inputs = {"v1": (glimpse,), "features": (zeros(maps.size),)}
    if config.ventral or config.appearance:
        nets["ventral"], inputs["ventral"] = (ventral := Ventral()), (maps,)
        inputs["features"] = (zeros(cells * ventral.maps + 4 * config.appearance),)
    if config.appearance:
        nets |= {"dorsal": Dorsal(), "map": nn.Dense(10)}
        inputs |= {"dorsal": (maps, zeros(hidden)), "map": (zeros((num, cells)),)}
    else:
        nets["position"], inputs["position"] = nn.Dense(config.features), (zeros(4),)
    told, heard = config.features + config.relate_memory * hidden, config.features
    if config.relation != "none":
        kind = {"attention": SelfAttention, "max": MaxPool, "mlp": Joint}[config.relation]
        nets["relation"] = kind(config.features, config.heads) if kind is SelfAttention else kind(config.features)
        heard += config.features
        if config.relation_layers:
            nets |= {"told": nn.Dense(config.features), "heard": nn.Dense(config.features)}
            inputs |= {"told": (zeros((num, told)),), "heard": (zeros((num, heard)),)}
            told = heard = config.features
        inputs["relation"] = (zeros((num, told)), zeros(num))
    nets["lstm"] = nn.OptimizedLSTMCell(hidden)
    inputs["lstm"] = ((zeros((num, hidden)),) * 2, zeros((num, heard)))
    nets["output"] = MLP((hidden,), 9 + hidden, output_scale=_SMALL)
    inputs["output"] = (zeros((num, hidden + 10 * config.appearance)),)
    return nets, inputs
