"""The training loop: one command, from a config to a finished run's folder."""

import bisect
import math
import threading
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from ml_collections import ConfigDict

from objcentric import plots
from objcentric.data import loader
from objcentric.data.loader import Stream
from objcentric.errors import Diverged, UserError
from objcentric.training import machine, parallel, workdir, writer
from objcentric.training.checkpoint import Checkpoints
from objcentric.training.experiment import Experiment, Stage, at_stage
from objcentric.training.machine import Progress
from objcentric.training.restore import Best, better, chosen, initial
from objcentric.training.step import TrainState, make_keys
from objcentric.training.summary import summarize
from objcentric.training.writer import Writer


class Run(NamedTuple):
    """What training and evaluation share."""

    config: ConfigDict
    folder: Path
    experiment: Experiment
    devices: list[jax.Device]
    checkpoints: Checkpoints
    clock: machine.Clock
    preempted: threading.Event


def run(
    config: ConfigDict, path: str | Path, build: Callable[[ConfigDict], Experiment], mode: str = "train"
) -> dict[str, Any]:
    """Trains until config.train.num_steps and evaluates, or only evaluates; the same call again resumes.

    Args:
      config: of the fields in configs/base.py.
      path: the run's folder, described in the README.
      build: makes the experiment.
      mode: 'train', or 'evaluate': evaluate the newest checkpoint.

    Returns:
      The content of eval.json.

    Raises:
      UserError: config, folder, checkpoint or data are wrong, another process is at work in the folder, or every
        seed became non-finite.
      SystemExit: 75, after SIGTERM or Ctrl-C; the run goes on from here when started again.
    """
    _check(config, mode)
    with workdir.claim(path, config, resume_only=mode == "evaluate") as folder, machine.preemption() as preempted:
        # --------------------------------------------------------------------------------- what can fail, fails first
        finished = workdir.evaluation(folder)
        if mode == "train" and finished and finished.get("steps", 0) >= config.train.num_steps:
            print(f"{folder} is finished: {finished['steps']} steps, figures in {folder / 'eval.json'}")
            return finished
        devices = parallel.choose_devices(config.train.num_devices, config.train.batch_size)
        machine.use_compilation_cache()

        # ---------------------------------------------------------------------- data, model, state, or its checkpoint
        experiment = build(config)
        checkpoints = Checkpoints(folder / "checkpoints", config.train.checkpoints_kept)
        fresh = initial(config, experiment)
        step, saved = checkpoints.restore(fresh) or (0, fresh)
        state, clock = saved["state"], machine.Clock(float(saved["wall"]), float(saved["train"]))
        this = Run(config, folder, experiment, devices, checkpoints, clock, preempted)
        if step and mode == "train":
            print(f"{folder}: going on from step {step}")

        # -------------------------------------------------------------------------------------------- train, evaluate
        state = parallel.replicate(state, devices)
        best = saved.get("best")
        if mode == "train":
            state, best = train(this, state, best, step)
        if best:
            best = chosen(best, int(np.asarray(state.step)[0]), state.params)
            state = state._replace(params=best.params)
        return evaluate(this, state, {"best_steps": best.step.tolist()} if best else {})


def train(this: Run, state: TrainState, best: Best | None, step: int) -> tuple[TrainState, Best | None]:
    """From ``step`` to the last one, or to a SIGTERM: calls of config.train.inner_steps, with logs, validations and
    checkpoints. Returns also the best, if it is kept.
    """
    c, data, devices, clock = this.config.train, this.experiment.data, this.devices, this.clock
    programs = {}  # by their stage of the curriculum and the number of steps that they do
    pending = None  # the report of the latest call
    stop = False

    # -------------------------------------------------- the training set lives on every device, or comes as a stream
    numbers = parallel.shard(np.arange(len(devices), dtype=np.int32), devices)
    streamed = isinstance(data.train, Stream)
    resident = None if streamed else parallel.replicate(data.train, devices)
    streams = [data.train.batches(step, c.batch_size, seed) for seed in this.config.seeds] if streamed else []
    most = data.train.fitting(c.batch_size * len(streams), c.inner_steps) if streamed else c.inner_steps

    with closing(Writer(this.folder, this.config.seeds, step)) as log, closing(Progress(step, c.num_steps)) as bar:

        def report(step: int, metrics: dict[str, Any], write: bool) -> None:
            metrics = jax.device_get(metrics)  # waits for the device
            _stop_if_all_failed(this, metrics["failed_at"])
            if write:
                log.write(step, clock.train, metrics)
            losses = metrics["loss"][np.isfinite(metrics["loss"])]
            bar.show(step, {"loss": losses.mean() if losses.size else math.nan})

        while step < c.num_steps and not stop:
            # ---------------------------------------------------------------------- many steps on the device, one call
            stage, end = _stage(this.experiment.stages, step, c.num_steps)
            length = min(most, end - step)
            batches = parallel.stack_batches(streams, length, devices) if streamed else None
            if (stage, length) not in programs:
                with clock.paused():
                    many_steps = parallel.make_train(at_stage(this.experiment, stage), length, c.batch_size, devices)
                    programs[stage, length] = many_steps.lower(state, resident, batches, numbers).compile()
            state, metrics = programs[stage, length](state, resident, batches, numbers)
            before, step = step, step + length
            log_due, validation_due, checkpoint_due = (
                step == c.num_steps or step // every > before // every
                for every in (c.log_every, c.eval_every, c.checkpoint_every)
            )

            # ------------------------------------------------------- while the device works, what the call before said
            if pending:
                report(*pending)
            pending = (step, metrics, log_due)
            stop = this.preempted.is_set()
            if not (validation_due or checkpoint_due or stop):
                continue
            report(*pending)
            pending = None

            # ----------------------------------------------------------------------------------- figures of validation
            if validation_due:
                with clock.paused():
                    figures = evaluate_seeds(this, state, data.valid, final=False)
                figures = {f"valid/{name}": [seed[name] for seed in figures] for name in figures[0]}
                log.write(step, clock.train, figures)
                if best:
                    best = better(best, _figure_kept(c.keep_best, figures), step, state.params)
                headline = {name: np.mean(figures[f"valid/{name}"]) for name in this.experiment.headline}
                bar.show(step, headline, line=True)

            # -------------------------------------------------------------- a checkpoint, and first the lines before it
            if checkpoint_due or stop:
                log.sync()
                content = {"state": state, "wall": clock.wall, "train": clock.train}
                this.checkpoints.save(step, content | ({"best": best} if best else {}))

    return state, best


def evaluate(this: Run, state: TrainState, told: dict[str, Any]) -> dict[str, Any]:
    """Final figures of every seed on the test split, pictures, and last of all eval.json, with what is ``told``."""
    experiment, seeds = this.experiment, this.config.seeds
    train_seconds = this.clock.train
    per_seed = evaluate_seeds(this, state, experiment.data.test, final=True)
    failed_at = np.asarray(state.guard.failed_at)
    failures = {
        seed: f"non-finite at step {at}" if at >= 0 else experiment.signature and experiment.signature(figures)
        for seed, at, figures in zip(seeds, failed_at, per_seed, strict=True)
    }
    failures = {seed: signature for seed, signature in failures.items() if signature is not None}

    # --------------------------------------------------------------------------------------------------------- pictures
    machine.leave_if_preempted(f"{this.folder}: stopped after step {np.asarray(state.step)[0]}")
    best = next((i for i, seed in enumerate(seeds) if seed not in failures), 0)
    key = make_keys(seeds[best]).evaluate
    figures = experiment.figures(_params(this, state, best), experiment.data.test, key, per_seed[best])
    rows = writer.read_metrics(this.folder / "metrics.jsonl")
    figures["learning_curve"] = plots.learning_curve(rows, ["loss", *[f"valid/{n}" for n in experiment.headline]])
    for name, figure in figures.items():
        writer.write_figure(this.folder / "figures" / f"{name}.png", figure)

    # -------------------------------------------------------------------------------------------------------- eval.json
    content = summarize(seeds, per_seed, failures, judged=experiment.signature is not None) | {
        "num_examples": loader.size(experiment.data.test),
        "steps": int(np.asarray(state.step)[0]),
        "skipped_steps": np.asarray(state.guard.skipped).tolist(),  # of each seed, those that were not finite
        **told,
        "wall_seconds": round(this.clock.wall, 3),
        "train_seconds": round(train_seconds, 3),
        **machine.provenance(),
    }
    writer.write_json(this.folder / "eval.json", content)
    results = [name for name in experiment.results if name in content] or experiment.headline
    said = [", ".join(f"{name} {content[name]}" for name in results)]
    if experiment.signature:
        said.append(f"{len(seeds) - len(failures)} of {len(seeds)} seeds succeeded")
    said += [f"seed {seed}: {signature}" for seed, signature in failures.items()]
    print(f"{this.folder / 'eval.json'}: {'; '.join(said)}")
    return content


def evaluate_seeds(this: Run, state: TrainState, split: dict[str, Any], *, final: bool) -> list[dict[str, Any]]:
    """The experiment's figures of each seed; once SIGTERM has come, the final ones are left to the next start."""
    figures, step = [], np.asarray(state.step)[0]
    for i, seed in enumerate(this.config.seeds):
        if final:
            machine.leave_if_preempted(f"{this.folder}: stopped after step {step}")
            print(f"{this.folder}: evaluating seed {seed} at step {step}")
        key = make_keys(seed).evaluate
        figures.append(this.experiment.evaluate(_params(this, state, i), split, key, final=final))
    return figures


def _stage(stages: Sequence[Stage], step: int, num_steps: int) -> tuple[int, int]:
    """The number of a step's stage, and the step after its last one."""
    firsts = [stage.first for stage in stages]
    number = bisect.bisect(firsts, step) - 1
    return number, min([*firsts[number + 1 :], num_steps])


def _figure_kept(name: str, figures: dict[str, list]) -> np.ndarray:
    """Of each seed."""
    known = [each.removeprefix("valid/") for each, values in figures.items() if np.ndim(values) == 1]
    if name not in known:
        raise UserError(f"train.keep_best={name!r} is no figure of validation: use one of {', '.join(known)}, or ''")
    return np.asarray(figures[f"valid/{name}"])


def _check(config: ConfigDict, mode: str) -> None:
    if mode not in ("train", "evaluate"):
        raise UserError(f"mode {mode!r} is unknown: use 'train' or 'evaluate'")
    for name in ("num_steps", "inner_steps", "log_every", "eval_every", "checkpoint_every", "checkpoints_kept"):
        if config.train[name] < 1:
            raise UserError(f"train.{name}={config.train[name]}: use at least 1")
    seeds = config.seeds
    if (
        not seeds
        or len(set(seeds)) < len(seeds)
        or not all(isinstance(seed, int) and 0 <= seed < 2**32 for seed in seeds)
    ):
        raise UserError(f"seeds={config.seeds}: use one or more different numbers from 0 to 2**32 - 1")


def _params(this: Run, state: TrainState, index: int) -> Any:
    """One seed's parameters on one device; copies, for the next training step takes over the memory of ``state``."""
    return jax.device_put(jax.tree.map(lambda x: np.array(x)[index], state.params), this.devices[0])


def _stop_if_all_failed(this: Run, failed_at: np.ndarray) -> None:
    if (failed_at < 0).any():
        return
    kept = this.checkpoints.newest() or "none yet"
    raise Diverged(
        f"loss or gradient is not finite since step {min(failed_at)} (last good checkpoint: {kept}): in another"
        " --workdir, try a smaller optimizer.learning_rate or optimizer.clip_norm, or other seeds"
    )
