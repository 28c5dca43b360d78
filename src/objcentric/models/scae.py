"""SCAE, stacked capsule autoencoders (thesis, chapter 6): parts of an image (PCAE), and objects of the parts (OCAE).

Everything speaks of one image ``[H, W, C]`` in [0, 1].
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from objcentric.models import capsules, ocae, pcae
from objcentric.models.capsules import Capsules, Explained
from objcentric.models.pcae import Parts


class Seen(NamedTuple):
    """What the model makes of an image."""

    log_likelihood: Array  # [] log p(y) of the target (equation 6.9)
    part_log_likelihood: Array  # [] log p(x_{1:M}, d_{1:M}) (equation 6.10)
    parts: Parts
    part_presence: Array  # [M] in [0, 1], what objects take for presences of parts
    capsules: Capsules
    explained: Explained


class SCAE(NamedTuple):
    init: Callable  # (key) -> params
    infer: Callable  # (params, key or None, x, y) -> Seen, of an image x and its target y; no key (None), no noise
    infer_parts: Callable  # the same -> (Parts, log p(y)), what `infer` makes of parts
    fix_parts: Callable  # (params) -> params whose gradients do not reach parts
    exemplar_error: Callable  # (params, x [K, H, W, C]) -> []: how far OPs are from poses of parts in K images
    render: Callable  # (params, Seen) -> Pictures


class Pictures(NamedTuple):
    """An image as parts and as objects make it, modes of the pixels' mixtures."""

    parts: Array  # [H, W, C] from poses and presences of parts
    objects: Array  # [H, W, C] from the votes that explain them best
    each_part: Array  # [M, H, W, C] placed templates, times their weights in the pixels' mixtures
    each_object: Array  # [K, H, W, C] from all votes of one capsule, as if it were there


def make(part_config: pcae.Config, object_config: ocae.Config) -> SCAE:
    """Builds the pure functions of an SCAE."""
    height, width = part_config.template_size
    part_model = pcae.make(part_config)
    size = 7 + part_config.special_features + height * width * part_config.channels
    object_model = ocae.make(object_config, part_config.num_parts, size)
    stop = jax.lax.stop_gradient

    def init(key: Array) -> dict:
        part_key, object_key = jax.random.split(key)
        both = {"parts": part_model.init(part_key), "objects": object_model.init(object_key)}
        return {part: {name: params[part] for name, params in both.items()} for part in ("generative", "inference")}

    def of(params: dict, name: str) -> dict:
        return {part: params[part][name] for part in ("generative", "inference")}

    def infer_parts(params: dict, key: Array | None, x: Array, y: Array) -> tuple[Parts, Array]:
        part_key, pixel_key = (None, None) if key is None else jax.random.split(key)
        (noise,) = capsules.presence_noise(part_key, part_config.part_noise, (part_config.num_parts,))
        parts = part_model.encode(of(params, "parts"), noise, x)
        drawn = parts.pose, parts.log_presence, parts.template
        return parts, part_model.log_likelihood(of(params, "parts"), *drawn, y, pixel_key)

    def infer(params: dict, key: Array | None, x: Array, y: Array) -> Seen:
        part_key, object_key = (None, None) if key is None else jax.random.split(key)
        parts, log_likelihood = infer_parts(params, part_key, x, y)
        # Objects are to explain the parts, not parts to please the objects: but for the special features, all is
        # given (section 6.2.3), also as what is to be explained.
        pose, presence = stop(parts.pose), presence_of(params, parts)
        middle = centre(pose, presence)
        described = [moved(pose, -middle).reshape(-1, 6), 1 - presence[:, None], parts.features]
        described.append(stop(parts.template).reshape(len(presence), -1))
        seen = object_model.infer(of(params, "objects"), object_key, jnp.concatenate(described, -1), presence)
        seen = seen._replace(pose=moved(seen.pose, middle), votes=moved(seen.votes, middle))
        explained = object_model.explain(seen, pose)
        return Seen(
            log_likelihood=log_likelihood,
            part_log_likelihood=jnp.sum(presence * explained.log_likelihood),
            parts=parts,
            part_presence=presence,
            capsules=seen,
            explained=explained,
        )

    def presence_of(params: dict, parts: Parts) -> Array:
        if object_config.part_weight == "ink":
            return stop(part_model.ink(of(params, "parts"), parts))
        return stop(jnp.exp(parts.log_presence))

    def centre(pose: Array, presence: Array) -> Array:
        """Where parts are in the mean, ``[2]``, from which objects tell places; else, from the canvas' middle."""
        return presence @ pose[..., 2] / (jnp.sum(presence) + 1e-6) * object_config.relative

    def fix_parts(params: dict) -> dict:
        return {part: both | {"parts": stop(both["parts"])} for part, both in params.items()}

    def exemplar_error(params: dict, x: Array) -> Array:
        """Half the squared distances of an object's OPs from an image's parts, in the mean of objects.

        Objects that begin as images are different, as clusters of k-means that begin as examples are. From random OPs
        each becomes an expert of some parts, the same ones in all images, whose poses its OV can follow.
        """
        parts = jax.vmap(part_model.encode, (None, None, 0))(of(params, "parts"), None, x)
        pose, presence = stop(parts.pose), jax.vmap(presence_of, (None, 0))(params, parts)
        wanted = jax.vmap(lambda pose, presence: moved(pose, -centre(pose, presence)))(pose, presence)
        difference = object_model.relations(of(params, "objects")) - wanted
        return jnp.sum(jnp.square(difference)) / 2 / len(x)

    def render(params: dict, seen: Seen) -> Pictures:
        def picture(pose: Array, log_presence: Array) -> pcae.Pixels:
            return part_model.render(of(params, "parts"), pose, log_presence, seen.parts.template)

        best = capsules.winner(seen.explained)
        votes = jnp.swapaxes(seen.capsules.votes, 0, 1)  # [M, K, 2, 3]
        log_vote = seen.capsules.log_presence[:, None] + seen.capsules.log_vote_presence
        pixels = picture(seen.parts.pose, seen.parts.log_presence)
        of_objects = picture(
            jnp.take_along_axis(votes, best[:, None, None, None], 1)[:, 0],
            jnp.take_along_axis(log_vote, best[None], 0)[0],
        )
        each = jax.vmap(lambda votes, log_presence: pcae.mode(picture(votes, log_presence)))
        return Pictures(
            parts=pcae.mode(pixels),
            objects=pcae.mode(of_objects),
            each_part=(pixels.value * jax.nn.softmax(pixels.logit, 0)[..., None])[:-1],
            each_object=each(seen.capsules.votes, seen.capsules.log_vote_presence),
        )

    return SCAE(init, infer, infer_parts, fix_parts, exemplar_error, render)


def moved(pose: Array, shift: Array) -> Array:
    """Maps ``[..., 2, 3]``, then a shift ``[2]``."""
    return pose.at[..., 2].add(shift)


def posterior_presence(explained: Explained) -> Array:
    """Responsibilities ``[K]``, summed over all parts, present or not, without the dummy's: a feature of the image."""
    return jnp.sum(explained.responsibility, (0, 2))
