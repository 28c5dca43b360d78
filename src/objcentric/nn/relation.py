"""How trackers tell each other of their objects (thesis, section 4.3): of a set ``[M, D]`` an output ``[M, P]``.

Each returns also the weights ``[heads, M, M]`` with which each (first axis) hears each; without any ``[1, M, 0]``.

``there [M]`` (0 or 1) says which elements exist; those that do not tell nothing, and what they get means nothing.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array

from objcentric.nn.activations import elu


class SelfAttention(nn.Module):
    """Multi-head self-attention, equations 4.1 to 4.3, of products not divided by the root of their dimension."""

    features: int  # of keys, queries and values, over all heads
    heads: int

    @nn.compact
    def __call__(self, x: Array, there: Array) -> tuple[Array, Array]:
        depth = self.features // self.heads
        query, key, value = (
            nn.Dense(self.features, name=name)(x).reshape(len(x), self.heads, depth)
            for name in ("query", "key", "value")
        )
        logits = jnp.einsum("qhd,khd->hqk", query, key)
        weights = jax.nn.softmax(jnp.where(there[None, None] > 0, logits, -1e9), axis=-1)
        heard = jnp.einsum("hqk,khd->qhd", weights, value).reshape(len(x), self.features)
        return heard, weights


class MaxPool(nn.Module):
    """The largest of each feature over all elements, the same for each of them."""

    features: int

    @nn.compact
    def __call__(self, x: Array, there: Array) -> tuple[Array, Array]:
        pooled = jnp.max(jnp.where(there[:, None] > 0, nn.Dense(self.features)(x), -1e9), 0)
        return jnp.broadcast_to(pooled, (len(x), self.features)), jnp.zeros((1, len(x), 0))


class Joint(nn.Module):
    """An MLP of all elements in their order, which is no property of the set: the thesis' counter-example."""

    features: int

    @nn.compact
    def __call__(self, x: Array, there: Array) -> tuple[Array, Array]:
        flat = (x * there[:, None]).reshape(-1)
        hidden = elu(nn.Dense(self.features)(flat))
        return nn.Dense(len(x) * self.features)(hidden).reshape(len(x), self.features), jnp.zeros((1, len(x), 0))
