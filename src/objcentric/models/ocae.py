"""OCAE, the object capsule autoencoder (thesis, section 6.2.3): objects explain the poses of M parts by their votes.

Everything speaks of one image.
"""

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array

from objcentric.errors import UserError
from objcentric.models import capsules
from objcentric.models.capsules import Capsules, Explained, ObjectDecoder
from objcentric.models.model import check_fields
from objcentric.nn import poses
from objcentric.nn.set_transformer import SetTransformer


@dataclasses.dataclass(frozen=True)
class Config:
    """Typed part of ``config.model`` that OCAE needs; the fields are explained in configs/scae.py."""

    num_capsules: int = 24
    object_encoder: str = "set_transformer"
    blocks: int = 3
    heads: int = 1
    units: int = 16
    features: int = 256
    layer_norm: bool = True
    inducing: int = 0
    pooling: str = "attention"
    mask: str = "log_presence"
    hidden: int = 128
    pose: str = "composed"
    similarity: bool = False
    deformable: bool = True
    part_weight: str = "presence"
    relative: bool = False
    vote_std: float = 0.0
    initial_presence: float = 0.5
    mixture: str = "unnormalised"
    dummy: float = 0.01
    noise: float = 2.0

    def __post_init__(self):
        choices = {"object_encoder": ("set_transformer", "mlp"), "mixture": capsules.MIXTURES}
        choices |= {"pose": tuple(poses.KINDS), "part_weight": ("presence", "ink")}
        check_fields(self, choices=choices, positive=("num_capsules", "features", "hidden"))
        capsules.check_mixture(self)
        if not 0 <= self.vote_std < float("inf"):
            raise UserError(f"model.vote_std={self.vote_std}: use 0, to learn it, or more")
        if not 0 < self.initial_presence < 1:
            raise UserError(f"model.initial_presence={self.initial_presence}: use more than 0, and less than 1")


class OCAE(NamedTuple):
    init: Callable  # (key) -> params
    infer: Callable  # (params, key or None, parts [M, D], presence [M]) -> Capsules; without a key there is no noise
    explain: Callable  # (Capsules, pose [M, 2, 3]) -> Explained
    relations: Callable  # (params) -> [K, M, 2, 3] OPs, the poses of parts in objects that nothing deforms


def make(config: Config, num_parts: int, width: int) -> OCAE:
    """Builds the pure functions of an OCAE for ``num_parts`` parts, described by vectors of ``width``."""
    c, num = config, config.num_capsules
    if c.object_encoder == "mlp":
        encoder = _JointMLP(num, c.features)
    else:
        encoder = SetTransformer(
            c.blocks, c.heads, c.units, c.features, num, c.layer_norm, c.inducing, c.mask, c.pooling
        )
    decoder = ObjectDecoder(
        num_parts,
        "poses",
        hidden=c.hidden,
        similarity=c.similarity,
        deformable=c.deformable,
        pose=c.pose,
        vote_std=c.vote_std,
        initial_presence=c.initial_presence,
    )

    def init(key: Array) -> dict:
        encoder_key, decoder_key = jax.random.split(key)
        return {
            "inference": encoder.init(encoder_key, jnp.zeros((num_parts, width)), jnp.ones(num_parts)),
            "generative": decoder.init(decoder_key, jnp.zeros((num, c.features))),
        }

    def infer(params: dict, key: Array | None, parts: Array, presence: Array) -> Capsules:
        noise = capsules.presence_noise(key, c.noise, (num,), (num, num_parts))
        return decoder.apply(params["generative"], encoder.apply(params["inference"], parts, presence), *noise)

    def explain(seen: Capsules, pose: Array) -> Explained:
        return capsules.explain_poses(pose, seen, mixture=c.mixture, dummy=c.dummy)

    def relations(params: dict) -> Array:
        return poses.KINDS[c.pose](params["generative"]["params"]["static"], similarity=c.similarity)

    return OCAE(init, infer, explain, relations)


class _JointMLP(nn.Module):
    """The ablation's encoder (table 6.3.2, e): of all parts at once, whose order then matters."""

    outputs: int
    output: int

    @nn.compact
    def __call__(self, x: Array, presence: Array) -> Array:
        x = (x * presence[:, None]).reshape(-1)
        for _ in range(2):
            x = nn.relu(nn.Dense(self.output)(x))
        return nn.Dense(self.outputs * self.output)(x).reshape(self.outputs, self.output)
