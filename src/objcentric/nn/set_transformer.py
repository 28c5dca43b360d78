"""The set transformer (Lee et al., 2019): functions of a set ``[M, D]`` that ignore the order of its elements.

``log_bias [M]``, which `log_bias` makes of the elements' presences, is added to the logits with which they are attended
to: one at -inf is left out, with its gradients; None leaves out none.
"""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array

from objcentric.errors import UserError

MASKS = ("log_presence", "release")
POOLINGS = ("attention", "pma")


def log_bias(presence: Array, mask: str = "log_presence") -> Array:
    """Bias ``[M]`` of the attention to elements that are there with probability ``presence [M]``, in [0, 1].

    ``log_presence``: weights are in proportion to presence, and absent elements left out. ``release``: the code
    released with stacked capsule autoencoders subtracts 1e32 (1 - presence), which leaves only what is most present,
    however little less the others are, and no gradient; presences that differ by less than 1e-6 are taken as equal. The
    rules agree where presences are 0 or 1, unless all are 0, where ``release`` leaves out none.
    """
    if mask == "release":
        # The product itself may give NaN: XLA can round it differently in the softmax and in the maximum taken off it.
        return jnp.where(presence > jnp.max(presence) - 1e-6, 0.0, -jnp.inf)
    there = presence >= jnp.finfo(jnp.float32).tiny  # what is less, some devices take as 0
    return jnp.where(there, jnp.log(jnp.where(there, presence, 1.0)), -jnp.inf)


class MultiHeadAttention(nn.Module):
    """Multihead(Q, K, K): ``queries [Q, D], keys [M, D'], log_bias [M] -> [Q, features]`` (section 3.1).

    Each head is softmax(Q K^T / sqrt(depth) + bias) V of linear projections to ``depth = features / heads``; heads are
    concatenated and projected. Where all elements are left out, they are 0.
    """

    features: int
    heads: int

    def __post_init__(self):
        _check_heads(self)
        super().__post_init__()

    @nn.compact
    def __call__(self, queries: Array, keys: Array, log_bias: Array | None = None) -> Array:
        depth = self.features // self.heads
        query, key, value = (  # one projection for keys and values is no faster: its halves, and gradients, are copied
            nn.Dense(self.features, use_bias=False, name=name)(x).reshape(len(x), self.heads, depth)
            for name, x in (("query", queries), ("key", keys), ("value", keys))
        )
        weights = _softmax(jnp.einsum("qhd,mhd->hqm", query, key) / math.sqrt(depth), log_bias)
        seen = jnp.einsum("hqm,mhd->qhd", weights, value).reshape(len(queries), self.features)
        return nn.Dense(self.features, use_bias=False, name="output")(seen)


class SeedAttention(nn.Module):
    """Learned seeds attend once: ``h [M, D], log_bias [M] -> [seeds, features]``.

    Multihead(S, Z, Z) plus a bias, where Z ``[M, features]`` is linear in h. So are keys and values: rather than those
    of each element, what seeds look for in h is computed, the same for all sets of a batch, and the values of what they
    see there.
    """

    seeds: int
    features: int
    heads: int

    def __post_init__(self):
        _check(self, positive=("seeds",))
        _check_heads(self)
        super().__post_init__()

    @nn.compact
    def __call__(self, h: Array, log_bias: Array | None = None) -> Array:
        depth = self.features // self.heads
        seeds = self.param("seeds", nn.initializers.normal(1.0), (self.seeds, self.features))
        linear = self.param("linear", nn.initializers.lecun_normal(), (h.shape[-1], self.features))
        query, key, value = (
            nn.Dense(self.features, use_bias=False, name=name)(x).reshape(len(x), self.heads, depth)
            for name, x in (("query", seeds), ("key", linear), ("value", linear))
        )
        wanted = jnp.einsum("qhd,xhd->hqx", query, key) / math.sqrt(depth)
        weights = _softmax(jnp.einsum("hqx,mx->hqm", wanted, h), log_bias)
        seen = jnp.einsum("qhx,xhd->qhd", jnp.einsum("hqm,mx->qhx", weights, h), value)
        return nn.Dense(self.features, name="output")(seen.reshape(self.seeds, self.features))


def _softmax(logits: Array, log_bias: Array | None) -> Array:
    """Over the last axis of ``[heads, Q, M]``; 0 throughout where all biases are -inf."""
    if log_bias is not None:
        logits += log_bias[None, None]
    largest = jax.lax.stop_gradient(jnp.max(logits, -1, keepdims=True))
    weights = jnp.exp(logits - jnp.where(jnp.isfinite(largest), largest, 0.0))
    total = jnp.sum(weights, -1, keepdims=True)
    return weights / (total + (total == 0))


class MAB(nn.Module):
    """Multihead attention block: ``x [Q, D], y [M, D'], log_bias [M] -> [Q, D]`` (section 3.1).

    MAB(X, Y) = LayerNorm(H + rFF(H)), where H = LayerNorm(X + Multihead(X, Y, Y)). rFF is a layer of as many ReLUs,
    applied to each row.
    """

    heads: int
    layer_norm: bool = True

    def __post_init__(self):
        _check(self, positive=("heads",))
        super().__post_init__()

    @nn.compact
    def __call__(self, x: Array, y: Array, log_bias: Array | None = None) -> Array:
        features = x.shape[-1]
        h = x + MultiHeadAttention(features, self.heads, name="attention")(x, y, log_bias)
        if self.layer_norm:
            h = nn.LayerNorm(name="norm_attention")(h)
        h += nn.relu(nn.Dense(features, name="feed_forward")(h))
        return nn.LayerNorm(name="norm_feed_forward")(h) if self.layer_norm else h


class SAB(nn.Module):
    """Set attention block: SAB(X) = MAB(X, X), ``x [M, D], log_bias [M] -> [M, D]`` (section 3.1).

    Absent elements look, but are not seen: what they get means nothing.
    """

    heads: int
    layer_norm: bool = True

    def __post_init__(self):
        _check(self, positive=("heads",))
        super().__post_init__()

    @nn.compact
    def __call__(self, x: Array, log_bias: Array | None = None) -> Array:
        return MAB(self.heads, self.layer_norm, name="block")(x, x, log_bias)


class ISAB(nn.Module):
    """Induced set attention block: ``x [M, D], log_bias [M] -> [M, D]``, in time linear in M (section 3.1).

    ISAB(X) = MAB(X, H), where H = MAB(I, X), of ``inducing`` learned points I.
    """

    inducing: int
    heads: int
    layer_norm: bool = True

    def __post_init__(self):
        _check(self, positive=("inducing", "heads"))
        super().__post_init__()

    @nn.compact
    def __call__(self, x: Array, log_bias: Array | None = None) -> Array:
        points = self.param("points", nn.initializers.normal(1.0), (self.inducing, x.shape[-1]))
        h = MAB(self.heads, self.layer_norm, name="induce")(points, x, log_bias)
        return MAB(self.heads, self.layer_norm, name="block")(x, h)


class PMA(nn.Module):
    """Pooling by multihead attention: PMA(Z) = MAB(S, rFF(Z)), ``z [M, D], log_bias [M] -> [seeds, D]`` (section 3.2).

    S are learned seeds; rFF is a layer of D ReLUs, applied to each row.
    """

    seeds: int
    heads: int
    layer_norm: bool = True

    def __post_init__(self):
        _check(self, positive=("seeds", "heads"))
        super().__post_init__()

    @nn.compact
    def __call__(self, z: Array, log_bias: Array | None = None) -> Array:
        features = z.shape[-1]
        seeds = self.param("seeds", nn.initializers.normal(1.0), (self.seeds, features))
        z = nn.relu(nn.Dense(features, name="feed_forward")(z))
        return MAB(self.heads, self.layer_norm, name="block")(seeds, z, log_bias)


class SetTransformer(nn.Module):
    """A set ``x [M, D]`` with ``presence [M]`` in [0, 1] to ``[outputs, output]``, whatever the order of its elements.

    An entry of the thesis' table 6.A.1 is ``blocks x (heads - units) - output``. Its units are read as those of each
    head ("four attention heads, 128 hidden units per head", section 6.A.1): a linear layer makes ``heads * units``
    features of the input, which blocks keep, and of what they return `SeedAttention` makes ``outputs`` vectors of
    ``output`` units. 4x(4-128)-32 of points in the plane with 3 outputs has 5,275,264 parameters, all but 22,144 in its
    blocks; were units shared by the heads (``units=32``), it would have 338,944 and be ten times as fast.

    ``pooling='pma'`` is that of Lee et al.: `PMA`, then a linear layer.
    """

    blocks: int
    heads: int
    units: int
    output: int
    outputs: int
    layer_norm: bool = True
    inducing: int = 0  # points of ISABs; 0: SABs
    mask: str = "log_presence"  # how absent elements are left out: see `log_bias`
    pooling: str = "attention"  # or "pma"

    def __post_init__(self):
        _check(self, positive=("heads", "units", "output", "outputs"), choices={"mask": MASKS, "pooling": POOLINGS})
        for name in ("blocks", "inducing"):
            if getattr(self, name) < 0:
                raise UserError(f"{name}={getattr(self, name)} must be 0 or more")
        if self.pooling == "attention" and self.output % self.heads:
            raise UserError(f"heads={self.heads} must divide output={self.output}, which they share in the pooling")
        super().__post_init__()

    @nn.compact
    def __call__(self, x: Array, presence: Array) -> Array:
        bias = log_bias(presence, self.mask)
        h = nn.Dense(self.heads * self.units, name="input")(x)
        for i in range(self.blocks):
            if self.inducing:
                h = ISAB(self.inducing, self.heads, self.layer_norm, name=f"block_{i}")(h, bias)
            else:
                h = SAB(self.heads, self.layer_norm, name=f"block_{i}")(h, bias)
        if self.pooling == "pma":
            pooled = PMA(self.outputs, self.heads, self.layer_norm, name="pool")(h, bias)
            return nn.Dense(self.output, name="output")(pooled)
        return SeedAttention(self.outputs, self.output, self.heads, name="pool")(h, bias)


def _check_heads(module: nn.Module) -> None:
    _check(module, positive=("features", "heads"))
    if module.features % module.heads:
        raise UserError(f"heads={module.heads} must divide the {module.features} features of their attention")


def _check(module: nn.Module, positive: tuple[str, ...], choices: dict[str, tuple[str, ...]] | None = None) -> None:
    for name in positive:
        if getattr(module, name) < 1:
            raise UserError(f"{name}={getattr(module, name)} must be at least 1")
    for name, allowed in (choices or {}).items():
        if getattr(module, name) not in allowed:
            raise UserError(f"{name}={getattr(module, name)!r} is unknown; choose one of {', '.join(allowed)}")
