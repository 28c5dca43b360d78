"""RATM, the recurrent attentive tracking model (Kahou et al., 2015), as HART's baseline (thesis, section 3.5).

Each tracker looks where attention a_t tells it to, and an RNN of the features of what it sees tells where to look next:
the box of a frame is a guess made before the frame is seen, "RATM cannot integrate x_t into the estimate of b_t". It
learns from the distance between features of the glimpse of its guess and those of the true box.

Features are those of V1 and stay as they are: the authors pre-trained theirs, and ones that learnt this loss would all
become equal. They are random, or of weights from a file. The RNN is HART's LSTM.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array, lax

from objcentric.models.hart import Config, Seen, State, Tracker, make_v1, normalise, zoneout
from objcentric.nn import boxes, gaussian_attention
from objcentric.nn.activations import elu
from objcentric.nn.appearance import Ventral
from objcentric.nn.mlp import MLP


def make(config: Config) -> Tracker:
    """Builds the functions, as those of HART; of ``config`` V1, ventral, glimpse_size, features, hidden, zoneout count.

    With ``ventral`` the RNN is told of what HART's ventral stream makes of V1's maps, which learns with the RNN.
    """
    v1 = make_v1(config)
    nets = {"features": nn.Dense(config.features), "position": nn.Dense(config.features)}
    nets |= {"ventral": Ventral()} if config.ventral else {}
    nets |= {"lstm": nn.OptimizedLSTMCell(config.hidden), "output": MLP((config.hidden,), 4, output_scale=0.01)}
    num, canvas = config.num_objects, config.canvas

    def init(key: Array) -> dict:
        keys = dict(zip(("v1", *nets), jax.random.split(key, 1 + len(nets)), strict=True))
        blank = jnp.zeros((num, config.hidden))
        maps, variables = v1.init_with_output(keys["v1"], jnp.zeros((*config.glimpse_size, canvas[2])))
        inputs = {"ventral": (maps,)}
        maps = jnp.zeros((*maps.shape[:2], Ventral().maps)) if config.ventral else maps
        inputs |= {
            "features": (maps.reshape(-1),),
            "position": (jnp.zeros(4),),
            "lstm": ((blank, blank), jnp.zeros((num, config.features))),
            "output": (blank,),
        }
        params = {name: net.init(keys[name], *inputs[name]) for name, net in nets.items()}
        return params | {"v1": variables, "attention": {"rate": jnp.full(4, 0.1)}}

    def maps(params, x: Array, where: Array) -> tuple[Array, Array]:
        """A glimpse, and the features ``[h', w', D]`` of V1 there."""
        glimpse = normalise(gaussian_attention.glimpse(x, where, config.glimpse_size))
        return glimpse, v1.apply(lax.stop_gradient(params["v1"]), glimpse)

    def step(params, key: Array | None, state: State, x: Array, there: Array | None) -> tuple[State, Seen]:
        glimpse, seen = jax.vmap(lambda where: maps(params, x, where))(state.where)
        what = jax.vmap(lambda m: nets["ventral"].apply(params["ventral"], m))(seen) if config.ventral else seen
        v = jax.vmap(lambda m: elu(nets["features"].apply(params["features"], m.reshape(-1))))(what)
        v = v + nets["position"].apply(params["position"], state.where)
        lstm, _ = nets["lstm"].apply(params["lstm"], state.lstm, v)
        lstm = zoneout(key, state.lstm, lstm, config.zoneout)
        update = nets["output"].apply(params["output"], lstm[1])
        where = state.where + jnp.tanh(params["attention"]["rate"])[None] * update
        guess, nothing = boxes.to_box(state.where, canvas), jnp.zeros((num, 0))
        presence = jnp.full(num, 10.0)  # it never doubts that its object is there
        outputs = Seen(guess, guess, guess, presence, glimpse, jnp.zeros((num, 0, 0)), nothing, nothing)
        return State(lstm, where, state.appearance, jnp.ones(num), state.given), outputs

    def start(params, key: Array | None, x: Array, given: Array, there: Array) -> tuple[State, Seen]:
        blank = jnp.zeros((num, config.hidden))
        first = State((blank, blank), boxes.to_where(given, canvas), blank, there, there)
        return step(params, key, first, x, there)

    def distance(params, x: Array, box: Array, true: Array) -> Array:
        """The loss ``[]`` of one box in a frame: mean square of the difference between features."""
        both = [maps(params, x, boxes.to_where(each, canvas))[1] for each in (box, true)]
        return jnp.mean(jnp.square(both[0] - both[1]))

    return Tracker(init, start, step, ("v1",), distance)
