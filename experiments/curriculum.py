"""Sequences that become longer in the course of training."""

from collections.abc import Callable

import numpy as np
from ml_collections import ConfigDict

from objcentric.errors import UserError
from objcentric.training.experiment import Stage


def stages(c: ConfigDict, num_frames: int, cut: Callable) -> tuple[Stage, ...]:
    """Of config.curriculum: ``first_frames`` frames, from each step of ``steps`` on more, in the end all of them.

    Stages that are as long as the one before are left out.

    Args:
      cut: ``(batch, length) -> batch`` of its first ``length`` frames.
    """
    frames = np.linspace(c.first_frames, num_frames, len(c.steps) + 1).round().astype(int)
    return tuple(
        Stage(first, lambda batch, length=length: cut(batch, length))
        for first, length, before in zip((0, *c.steps), frames.tolist(), (0, *frames.tolist()), strict=False)
        if length > before
    )


def check(c: ConfigDict, num_frames: int, num_steps: int) -> None:
    """UserError where config.curriculum disagrees with the length of sequences or of training."""
    if not 1 <= c.first_frames <= num_frames:
        raise UserError(f"curriculum.first_frames={c.first_frames}: use 1 to {num_frames}, the frames of a sequence")
    if not c.steps and c.first_frames < num_frames:
        raise UserError(f"curriculum.steps=() never shows whole sequences: set curriculum.first_frames={num_frames}")
    if c.steps and c.steps[-1] >= num_steps:
        raise UserError(f"curriculum.steps={tuple(c.steps)}: whole sequences come after train.num_steps={num_steps}")
    if list(c.steps) != sorted(set(c.steps)) or min(c.steps, default=1) < 1:
        raise UserError(f"curriculum.steps={tuple(c.steps)}: use ascending steps, the first above 0")
