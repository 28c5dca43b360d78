"""What the training loop knows of an experiment."""

from collections.abc import Callable
from typing import NamedTuple

import optax

from objcentric.data.loader import Data


class Stage(NamedTuple):
    """Part of a curriculum."""

    first: int  # its first step; the first stage's is 0
    batch: Callable  # batch -> what of it `Experiment.loss` gets


class Experiment(NamedTuple):
    """One experiment, built from a config by its module's ``build(config)``; every function speaks of one seed.

    ``params`` is a pytree with top-level parts (a part ``baseline`` gets its own learning rate), ``aux`` a pytree of
    what changes in training but not by gradients, such as moving averages; it may be ``()``.
    """

    data: Data
    optimizer: optax.GradientTransformation
    init: Callable  # (key) -> (params, aux)
    loss: Callable  # (params, batch, keys [B], step, aux) -> (loss to minimise: mean over the batch, (metrics, aux))
    evaluate: Callable  # (params, split, key, *, final: bool) -> {name: float or nested list}
    figures: Callable  # (params, split, key, what `evaluate` returned of them) -> {name: Figure, or uint8 [T, H, W, 3]}
    headline: tuple[str, ...]  # the figures of `evaluate` that a reader looks at first
    signature: Callable | None  # (figures) -> how training failed, None if it succeeded; or None: nothing tells
    stages: tuple[Stage, ...] = (Stage(0, lambda batch: batch),)  # in order; compiled once if multiples of inner_steps
    results: tuple[str, ...] = ()  # final figures that are told in place of the headline, which validation has, too


def at_stage(experiment: Experiment, number: int) -> Experiment:
    """The experiment in one stage of its curriculum."""
    stage = experiment.stages[number]
    return experiment._replace(loss=lambda params, batch, *rest: experiment.loss(params, stage.batch(batch), *rest))
