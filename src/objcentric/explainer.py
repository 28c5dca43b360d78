"""Trained stacked capsule autoencoders at work on images: parts, objects, and which part belongs to which object."""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.typing import ArrayLike
from matplotlib.figure import Figure
from ml_collections import ConfigDict

from objcentric import plots_capsules
from objcentric.data import labelled
from objcentric.errors import UserError
from objcentric.models import capsules, ocae, pcae, scae
from objcentric.models.model import fields_of
from objcentric.training import schedules
from objcentric.training.experiment import Experiment
from objcentric.training.restore import Run, restore_run


class Explanation(NamedTuple):
    """What an SCAE makes of an image; canvas and templates span [-1, 1] in x and y, from edge to edge."""

    part_presence: np.ndarray  # [M] in [0, 1], as objects see it: see model.part_weight
    part_pose: np.ndarray  # [M, 2, 3] from template to canvas: x, y to x, y
    template: np.ndarray  # [M, h, w, C] with the colours of this image
    object_presence: np.ndarray  # [K] a priori (thesis, equation 6.11)
    object_pose: np.ndarray  # [K, 2, 3] from object to canvas
    assignment: np.ndarray  # int [M], the object that explains each part best; -1 where a dummy does, or there is none
    responsibility: np.ndarray  # [M, K] shares of all objects; what they lack of 1 is the dummy's
    reconstruction: np.ndarray  # [H, W, C] from parts
    picture: Figure  # image, parts in red and objects in green, and the most active objects and parts


def explain(run: str | Path | Run, image: ArrayLike) -> Explanation:
    """Parts, poses and objects of an image.

    Args:
      run: folder of a run of configs/scae.py, or what `load` made of it, to explain many images; or, of parameters in
        memory, what `of_params` makes of them.
      image: ``[H, W]`` or ``[H, W, C]``, uint8 or float in [0, 1]; one smaller than the canvas is put amid it.

    Raises:
      UserError: the run cannot be read, or the image has another size or channels than it can.
    """
    run = load(run) if isinstance(run, str | Path) else run
    x, y = prepare(image, run.config)
    seen, pictures = jax.device_get(_program(*model_configs(run.config))(run.params, x, y))
    presence = np.asarray(seen.part_presence)
    responsibility = seen.explained.responsibility[..., 0]
    owner = np.where(
        (responsibility.sum(1) >= 0.5) & (presence >= 0.5), np.asarray(capsules.winner(seen.explained)), -1
    )
    objects = np.exp(np.asarray(capsules.log_prior_presence(seen.capsules)))
    return Explanation(
        part_presence=presence,
        part_pose=seen.parts.pose,
        template=seen.parts.template,
        object_presence=objects,
        object_pose=seen.capsules.pose,
        assignment=owner,
        responsibility=responsibility,
        reconstruction=pictures.parts,
        picture=plots_capsules.reconstructions(
            np.asarray(y)[None],
            *_batched(pictures, presence, objects),
            object_posterior=np.sum(responsibility, 0)[None],
        ),
    )


def _batched(pictures: scae.Pictures, presence: np.ndarray, objects: np.ndarray) -> tuple[np.ndarray, ...]:
    fields = pictures.parts, pictures.objects, pictures.each_part, pictures.each_object, presence, objects
    return tuple(np.asarray(field)[None] for field in fields)


@functools.cache
def _program(part_config: pcae.Config, object_config: ocae.Config) -> Callable:
    """Compiled once for all images and runs of one model."""
    model = scae.make(part_config, object_config)

    def look(params: dict, x: jax.Array, y: jax.Array) -> tuple[scae.Seen, scae.Pictures]:
        seen = model.infer(params, None, x, y)
        return seen, model.render(params, seen)

    return jax.jit(look)


def load(folder: str | Path) -> Run:
    """A run of configs/scae.py; UserError if it cannot be read."""
    return restore_run(folder, skeleton)


def of_params(config: ConfigDict, params: Any) -> Run:
    """A run of parameters in memory, of a config of experiment 'scae'; UserError if it is of another one."""
    return Run(config, skeleton(config), 0, params)


def prepare(image: ArrayLike, config: ConfigDict) -> tuple[jax.Array, jax.Array]:
    """What the model sees of an image, and its target, both ``[H, W, C]``; UserError if the image cannot be that."""
    image = np.asarray(image)
    image = image[..., None] if image.ndim == 2 else image
    canvas, channels = tuple(config.data.canvas), config.model.channels
    if image.ndim != 3 or image.shape[2] != channels or any(s > c for s, c in zip(image.shape, canvas, strict=False)):
        raise UserError(
            f"the image has shape {image.shape}: give [H, W, {channels}], at most {canvas[0]}x{canvas[1]} pixels"
        )
    if image.dtype == np.uint8:
        image = image / np.float32(255)
    elif not (np.issubdtype(image.dtype, np.floating) and np.all((image >= 0) & (image <= 1))):
        raise UserError(f"the image is {image.dtype} in {image.min()}..{image.max()}: give uint8, or float in [0, 1]")
    x = labelled.place(jax.random.key(0), jnp.asarray(image, jnp.float32), canvas, 0)
    return x, labelled.sobel_target(x) if config.data.sobel else x


def make(config: ConfigDict) -> scae.SCAE:
    """The model of config.model."""
    return scae.make(*model_configs(config))


def model_configs(config: ConfigDict) -> tuple[pcae.Config, ocae.Config]:
    """Typed, of config.model; the canvas is that of the data."""
    fields = fields_of(config.model)
    parts, objects = (
        {field: fields[field] for field in kind.__dataclass_fields__ if field in fields}
        for kind in (pcae.Config, ocae.Config)
    )
    known = {*parts, *objects}
    if unknown := [name for name in config.model if name not in known]:
        raise UserError(f"model.{unknown[0]} is unknown: see configs/scae.py")
    return pcae.Config(canvas=tuple(config.data.canvas), **parts), ocae.Config(**objects)


def skeleton(config: ConfigDict) -> Experiment:
    """Of experiment 'scae' what a checkpoint needs to be read; UserError if ``config`` is of another one."""
    if config.experiment != "scae":
        raise UserError(f"the run is one of {config.experiment}: give one of configs/scae.py, whose capsules explain")
    model = make(config)
    restart = config.curriculum.parts_alone if config.curriculum.parts_fixed else 0
    optimizer = schedules.make_optimizer(config.optimizer, config.train.num_steps, restart)
    if restart:
        optimizer = optax.chain(optimizer, schedules.resting("parts", restart))
    return Experiment(None, optimizer, lambda key: (model.init(key), ()), None, None, None, (), None)
