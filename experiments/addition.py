"""The sum of a frame's digits, told from frozen latents (thesis, appendix 5.D.4)."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array
from ml_collections import ConfigDict
from tqdm import tqdm

from experiments.evaluation import in_batches
from objcentric.data import loader
from objcentric.data.loader import Split, Stream
from objcentric.errors import UserError
from objcentric.nn.mlp import MLP
from objcentric.training import machine

CLASSES = 19  # sums of at most two digits
CHUNK = 10_000  # training steps between two looks at whether the run is to end
BATCH = 128  # codes per training step; the paper does not tell
NETWORK = MLP((256, 256), CLASSES)
OPTIMIZER = optax.adam(1e-3)


def evaluate(
    encode: Callable, params: dict, train: Split | Stream, test: Split, key: Array, c: ConfigDict
) -> dict[str, float]:
    """``addition_accuracy``: `accuracy` on the frames of the sequences ``test``, after learning from the first ones of
    ``train``; and ``addition_constant``, that of the best sum that is always the same.

    Args:
      encode: ``(params, image [B, T, ...], keys [B]) -> codes [B, T, D]``.
      c: config.evaluate, of which this reads ``addition_steps``, ``addition_examples`` and ``batch_size``.
    """
    splits = {"train": loader.first(train, c.addition_examples), "test": test}
    sums = {name: frame_sums(split).reshape(-1) for name, split in splits.items()}
    keys = jax.random.split(key, 3)
    codes = {
        name: in_batches(encode, params, split["image"], keys[i], c.batch_size)
        for i, (name, split) in enumerate(splits.items())
    }
    codes = {name: each.reshape(-1, each.shape[-1]) for name, each in codes.items()}
    return {
        "addition_accuracy": accuracy(codes, sums, keys[2], num_steps=c.addition_steps),
        "addition_constant": float(np.bincount(sums["test"]).max() / len(sums["test"])),
    }


def check(c: ConfigDict, split: Split) -> None:
    """UserError where config.evaluate and the data do not allow it."""
    for name, least in (("addition_steps", 0), ("addition_examples", 1)):
        if c[name] < least:
            raise UserError(f"evaluate.{name}={c[name]} must be at least {least}")
    if c.addition_steps:
        frame_sums(split)


def accuracy(codes: dict[str, np.ndarray], sums: dict[str, np.ndarray], key: Array, *, num_steps: int) -> float:
    """Share of the test codes of which a classifier tells the right sum.

    It is an MLP of two layers of 256 ELU units and a softmax, trained for exactly ``num_steps`` steps (the paper: 1e7)
    of Adam, with rate 1e-3, on batches of 128 training codes drawn with replacement; nothing stops it early.

    Args:
      codes: ``train`` and ``test``, float ``[M, D]`` each.
      sums: ``train`` and ``test``, integers ``[M]`` in 0..18.
    """
    init_key, batch_key = jax.random.split(key)
    known = jnp.asarray(codes["train"]), jnp.asarray(sums["train"])
    params = NETWORK.init(init_key, known[0][0])
    carry = params, OPTIMIZER.init(params)
    # The paper's 1e7 steps take hours: they can be watched, and left.
    for first in tqdm(range(0, num_steps, CHUNK), "classifier of sums", disable=None if num_steps > CHUNK else True):
        machine.leave_if_preempted()
        carry = jax.block_until_ready(_train(carry, batch_key, *known, first, min(first + CHUNK, num_steps)))
    told = np.argmax(jax.jit(NETWORK.apply)(carry[0], jnp.asarray(codes["test"])), axis=-1)
    return float(np.mean(told == sums["test"]))


@jax.jit
def _train(carry: tuple, key: Array, codes: Array, sums: Array, first: int, last: int) -> tuple:
    """Parameters and the optimizer's state after the steps ``first`` to ``last - 1``."""

    def loss(params: dict, rows: Array) -> Array:
        logits = NETWORK.apply(params, codes[rows])
        return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(logits, sums[rows]))

    def step(i: Array, carry: tuple) -> tuple:
        params, state = carry
        rows = jax.random.randint(jax.random.fold_in(key, i), (BATCH,), 0, len(codes))
        updates, state = OPTIMIZER.update(jax.grad(loss)(params, rows), state)
        return optax.apply_updates(params, updates), state

    return jax.lax.fori_loop(first, last, step, carry)


def frame_sums(split: Split) -> np.ndarray:
    """The sum of the digits that are there, int32 ``[M, T]``, of sequences as `moving.compose` makes them.

    Raises UserError where they have no labels, or sums that a classifier of 19 classes does not know.
    """
    if "label" not in split or "presence" not in split:
        raise UserError("the data do not say which digits there are, so nothing adds up: set evaluate.addition_steps=0")
    sums = np.sum(split["label"][:, None] * (split["presence"] > 0), axis=-1).astype(np.int32)
    if sums.min() < 0 or sums.max() >= CLASSES:
        raise UserError(
            f"labels in a frame add up to {sums.min()} .. {sums.max()}, beyond 0 .. 18: set evaluate.addition_steps=0"
        )
    return sums
