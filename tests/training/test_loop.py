"""A run from end to end: what it leaves in its folder, and that nothing stops it from ending bit-equal."""

import functools
import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from objcentric.data import loader
from objcentric.data.loader import Stream
from objcentric.errors import UserError
from objcentric.training import loop, step
from objcentric.training.checkpoint import Checkpoints
from objcentric.training.experiment import Stage
from objcentric.training.restore import Best, chosen, restore_run
from tests.training import linear

TIMING = {"seconds", "wall_seconds", "train_seconds", "peak_host_mb", "date", "command"}


def outcome(folder, last_step=40):
    """All that a run leaves behind, but for what depends on the clock."""

    def timeless(row):
        return {name: value for name, value in row.items() if name not in TIMING}

    arrays = Checkpoints(folder / "checkpoints", 2)._read(last_step)
    return {
        "metrics": [timeless(json.loads(line)) for line in (folder / "metrics.jsonl").read_text().splitlines()],
        "eval": timeless(json.loads((folder / "eval.json").read_text())),
        "arrays": {name: array.tobytes() for name, array in arrays.items() if name not in ("wall", "train")},
    }


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    """The folder of an uninterrupted run."""
    folder = tmp_path_factory.mktemp("runs") / "reference"
    loop.run(linear.make_config(), folder, linear.build)
    return folder


# ------------------------------------------------------------------------------------------------- the run's folder


def test_folder(reference):
    names = {str(path.relative_to(reference)) for path in reference.rglob("*") if path.is_file()}
    assert {"config.json", "metrics.jsonl", "eval.json"} < names
    assert {"figures/weights.png", "figures/learning_curve.png"} < names
    assert not any("tmp" in name for name in names)
    assert len(list(reference.glob("tensorboard/seed_0/events*"))) == 1
    assert sorted(path.name for path in (reference / "checkpoints").iterdir()) == ["30", "40"]
    assert json.loads((reference / "config.json").read_text())["train"]["batch_size"] == 8


def test_metrics(reference):
    rows = [json.loads(line) for line in (reference / "metrics.jsonl").read_text().splitlines()]
    training = [row for row in rows if "loss" in row]
    validation = [row for row in rows if "valid/count_accuracy" in row]
    assert [row["step"] for row in training] == [10, 20, 30, 40]
    assert [row["step"] for row in validation] == [20, 40]
    assert training[-1]["loss"] < training[0]["loss"]
    assert {"error", "skipped", "failed_at", "seconds"} < training[0].keys()


def test_eval_of_one_seed(reference):
    content = json.loads((reference / "eval.json").read_text())
    assert (content["num_examples"], content["steps"], content["seeds"]) == (20, 40, [0])
    assert content["skipped_steps"] == [0]
    assert content["extra"] == 2 * content["count_accuracy"]  # of evaluate(final=True)
    assert content["table"] == [[1, 2], [3, 4]]
    assert content["per_seed"][0]["count_accuracy"] == content["count_accuracy"]
    assert content["figures"]["count_accuracy"] == {"mean": content["count_accuracy"], "std": 0.0, "n": 1}
    assert (content["success_rate"], content["failures"]) == (1.0, {})
    assert 0 < content["train_seconds"] <= content["wall_seconds"]
    assert "cores" in content["machine"] and content["peak_host_mb"] > 10
    assert content["date"][4] == "-" and content["command"].startswith("python ")


def test_several_seeds(reference, tmp_path):
    drawn = []

    def build(config):
        failing = iter(["miscounts", None])
        experiment = linear.build(config)

        def figures(params, split, key, evaluated):
            drawn.append(evaluated)
            return experiment.figures(params, split, key, evaluated)

        return experiment._replace(signature=lambda figures: next(failing), figures=figures)

    config = linear.make_config()
    config.seeds = (0, 3)
    content = loop.run(config, tmp_path / "run", build)
    values = [figures["count_accuracy"] for figures in content["per_seed"]]
    alone = json.loads((reference / "eval.json").read_text())
    assert values[0] == pytest.approx(alone["count_accuracy"], rel=1e-5)
    assert content["count_accuracy"] == pytest.approx(sum(values) / 2)
    assert content["figures"]["count_accuracy"]["std"] == pytest.approx(abs(values[0] - values[1]) / math.sqrt(2))
    assert (content["seeds"], content["success_rate"], content["failures"]) == ([0, 3], 0.5, {"0": "miscounts"})
    assert drawn == [{name: value for name, value in content["per_seed"][1].items() if name != "seed"}]  # of the best
    assert "table" not in content and content["per_seed"][1]["seed"] == 3
    row = json.loads((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()[0])
    assert len(row["loss"]) == 2


def test_steps_that_calls_do_not_divide(tmp_path):
    config = linear.make_config(num_steps=13, inner_steps=5, eval_every=100, log_every=5)
    assert loop.run(config, tmp_path / "run", linear.build)["steps"] == 13
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [5, 10, 13, 13]  # the last step is always logged and validated


# --------------------------------------------------------------------------------------------- the same command again


def test_a_finished_run_says_so_and_builds_nothing(reference, capsys):
    before = (reference / "eval.json").read_text()
    content = loop.run(linear.make_config(), reference, build=None)
    assert content == json.loads(before)
    assert capsys.readouterr().out.startswith(f"{reference} is finished: 40 steps")


def test_evaluate_again(reference):
    before = json.loads((reference / "eval.json").read_text())
    (reference / "eval.json").unlink()
    config = linear.make_config()
    config.evaluate = {"num_pictures": 3}  # how it is evaluated is not what it is
    kept = (reference / "config.json").read_text()
    content = loop.run(config, reference, linear.build, mode="evaluate")
    assert (reference / "config.json").read_text() == kept
    assert content["per_seed"] == before["per_seed"]
    assert content["train_seconds"] == pytest.approx(before["train_seconds"], abs=5)  # a busy machine is slow


def test_nothing_to_evaluate(tmp_path):
    """A folder that was mistyped is not made, one without checkpoints stays as it is."""
    (tmp_path / "empty" / "checkpoints").mkdir(parents=True)
    for name in ("mistyped", "empty"):
        with pytest.raises(UserError, match=f"{name} holds no checkpoint to evaluate: train first, or choose another"):
            loop.run(linear.make_config(), tmp_path / name, build=None, mode="evaluate")
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["checkpoints", "empty"]


def test_one_process_at_a_time(tmp_path):
    folder = tmp_path / "run"
    refused = []

    def build(config):
        experiment = linear.build(config)

        def evaluate(*args, final):
            unfinished = folder / "checkpoints" / "99.orbax-checkpoint-tmp"  # Orbax would remove it
            unfinished.mkdir(exist_ok=True)
            for mode in ("train", "evaluate"):
                with pytest.raises(UserError, match="another process is at work in .*run: wait for it"):
                    loop.run(config, folder, linear.build, mode=mode)
                refused.append(unfinished.exists())
            return experiment.evaluate(*args, final=final)

        return experiment._replace(evaluate=evaluate)

    loop.run(linear.make_config(), folder, build)
    assert refused == 6 * [True]  # two validations and the final evaluation
    loop.run(linear.make_config(), folder, linear.build)  # and then it is free


def terminated(build, number=signal.SIGTERM):
    """The same experiment, but its first validation meets a signal."""

    def build_terminated(config):
        experiment = build(config)

        def evaluate(*args, final):
            signal.raise_signal(number)
            return experiment.evaluate(*args, final=final)

        return experiment._replace(evaluate=evaluate)

    return build_terminated


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_and_asks_for_a_restart(reference, tmp_path, capfd, number):
    handlers = [signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGINT)]
    with pytest.raises(SystemExit) as stop:
        loop.run(linear.make_config(), tmp_path / "run", terminated(linear.build, number))
    assert stop.value.code == 75
    assert [signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGINT)] == handlers
    out, said = capfd.readouterr()
    assert (
        "evaluating" not in out and "stopping: steps under way are finished" in said and "stopped after step 25" in said
    )
    loop.run(linear.make_config(), tmp_path / "run", linear.build)
    said = capfd.readouterr().out
    assert "going on from step 25" in said and "evaluating seed 0 at step 40" in said
    assert outcome(tmp_path / "run") == outcome(reference)


@pytest.mark.parametrize(("results", "told"), [((), "count_accuracy"), (("missing", "extra"), "extra")])
def test_what_a_run_tells_in_the_end(tmp_path, capsys, results, told):
    config = linear.make_config(num_steps=5)
    content = loop.run(config, tmp_path / "run", lambda config: linear.build(config)._replace(results=results))
    assert f"eval.json: {told} {content[told]};" in capsys.readouterr().out


@pytest.mark.parametrize("last", [1, 2])
def test_sigterm_while_evaluating(tmp_path, capsys, last):
    """Neither the next seed nor the pictures are begun: they can be made again from the last checkpoint."""
    evaluated = []

    def build(config):
        experiment = linear.build(config)

        def evaluate(*args, final):
            evaluated.append(final)
            if sum(evaluated) == last:
                signal.raise_signal(signal.SIGTERM)
            return experiment.evaluate(*args, final=final)

        return experiment._replace(evaluate=evaluate)

    config = linear.make_config()
    config.seeds = (0, 1)
    with pytest.raises(SystemExit) as stop:
        loop.run(config, tmp_path / "run", build)
    assert (stop.value.code, sum(evaluated)) == (75, last)
    assert "stopped after step 40; the same command goes on" in capsys.readouterr().err
    assert not {"eval.json", "figures"} & {path.name for path in (tmp_path / "run").iterdir()}
    assert loop.run(config, tmp_path / "run", linear.build)["steps"] == 40


def test_sigkill_at_any_moment(reference, tmp_path):
    folder = tmp_path / "run"
    moments = [
        lambda: any("tmp" in path.name for path in folder.glob("checkpoints/*")),  # within a save
        lambda: '"step": 20' in read(folder / "metrics.jsonl"),  # within an evaluation, or a little later
        lambda: (folder / "figures" / "weights.png").exists(),  # all but eval.json
    ]
    kills = []
    for moment in moments:
        process = start(folder)
        while not moment() and process.poll() is None:
            time.sleep(0.0005)
        process.send_signal(signal.SIGKILL)
        kills.append(process.wait() == -signal.SIGKILL)
    assert kills[:2] == [True, True]  # on a busy machine the last moment may pass unseen
    assert start(folder).wait() == 0
    assert outcome(folder) == outcome(reference)


def start(folder: Path) -> subprocess.Popen:
    root = Path(__file__).resolve().parents[2]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(root / "src"), str(root)])}
    command = [sys.executable, "-m", "tests.training.linear", str(folder)]
    return subprocess.Popen(command, cwd=root, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def read(path: Path) -> str:
    return path.read_text() if path.exists() else ""


def test_a_stream_resumes_where_it_was(tmp_path, monkeypatch):
    """And with fewer batches at once, if memory is short."""
    split = linear.make_split(50, 0)
    stream = Stream(50, lambda rows: {name: values[list(rows)] for name, values in split.items()})

    def build(config):
        return linear.build(config, train=stream)

    config = linear.make_config(num_steps=20, num_devices=2, eval_every=10)
    loop.run(config, tmp_path / "whole", build)
    with monkeypatch.context() as short:
        short.setattr(loader, "READ_AHEAD", 1)
        loop.run(config, tmp_path / "short", build)
    whole, short = (outcome(tmp_path / name, 20) for name in ("whole", "short"))
    assert (whole["arrays"], whole["eval"]) == (short["arrays"], short["eval"])  # what is logged are means of calls
    with pytest.raises(SystemExit):
        loop.run(config, tmp_path / "parts", terminated(build))
    loop.run(config, tmp_path / "parts", build)
    assert outcome(tmp_path / "parts", 20) == outcome(tmp_path / "whole", 20)


# ------------------------------------------------------------------------------------------------------- a curriculum


def staged(*firsts, seen=None):
    """The linear experiment on pictures of which each stage shows more rows, with its number among the metrics."""

    def build(config):
        experiment = linear.build(config)

        def show(number, batch):
            if seen is not None:
                seen.append(number)
            return {"image": batch["image"][:, : number + 1], "stage": np.float32(number)}

        def loss(params, batch, *rest):
            hidden = 4 - batch["image"].shape[1]
            image = jnp.pad(batch["image"], ((0, 0), (0, hidden), (0, 0), (0, 0)))
            value, (metrics, aux) = experiment.loss(params, {"image": image}, *rest)
            return value, (metrics | {"stage": batch["stage"]}, aux)

        stages = tuple(Stage(first, functools.partial(show, number)) for number, first in enumerate(firsts))
        return experiment._replace(loss=loss, stages=stages)

    return build


def stages_in(folder):
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [(row["step"], row["stage"]) for row in rows if "stage" in row]


@pytest.mark.parametrize(
    "firsts, num_steps, calls",
    [
        ((0, 10, 30), 40, [(0, 10), (1, 30), (1, 30), (2, 40)]),
        ((0, 10, 30), 20, [(0, 10), (1, 20), (1, 20), (2, 20)]),
        ((0,), 40, [(0, 40)] * 4),
    ],
)
def test_the_stage_of_a_step(firsts, num_steps, calls):
    stages = [Stage(first, None) for first in firsts]
    assert [loop._stage(stages, step, num_steps) for step in (9, 10, 29, 30)] == calls


def test_each_step_gets_the_batch_of_its_stage_and_each_stage_is_compiled_once(tmp_path, monkeypatch):
    seen, compiled = [], []
    make_train = loop.parallel.make_train
    monkeypatch.setattr(loop.parallel, "make_train", lambda *a: compiled.append(a[1]) or make_train(*a))
    config = linear.make_config(log_every=1, eval_every=40)
    loop.run(config, tmp_path / "run", staged(0, 10, 30, seen=seen))
    assert stages_in(tmp_path / "run") == [(5, 0), (10, 0), *((step, 1) for step in (15, 20, 25, 30)), (35, 2), (40, 2)]
    assert list(dict.fromkeys(seen)) == [0, 1, 2] and compiled == [5, 5, 5]


@pytest.mark.parametrize("firsts, stopped", [((0, 17, 30), 27), ((0, 25), 25), ((0, 22), 22)])
def test_a_curriculum_resumes_where_it_was(tmp_path, capsys, firsts, stopped):
    """Within a stage that began between two calls, at the start of the next stage, and at one between two calls."""
    config = linear.make_config(log_every=1, checkpoint_every=40)
    loop.run(config, tmp_path / "whole", staged(*firsts))
    with pytest.raises(SystemExit):
        loop.run(config, tmp_path / "parts", terminated(staged(*firsts)))
    assert f"stopped after step {stopped}" in capsys.readouterr().err
    loop.run(config, tmp_path / "parts", staged(*firsts))
    assert outcome(tmp_path / "parts") == outcome(tmp_path / "whole")
    for end, stage in stages_in(tmp_path / "parts"):
        assert stage == sum(first < end for first in firsts) - 1


def test_the_best_is_kept(tmp_path):
    """Of each seed, its parameters when the figure was highest: here, that of the first validation, or the second."""
    validated, tested = [], []
    elbos = iter([1.0, 0.2, 0.5, 0.3, math.nan, math.nan, 0.5, 0.2])  # of two seeds

    def build(config):
        def evaluate(params, split, key, *, final):
            (tested if final else validated).append(np.asarray(params["generative"]))
            return {"count_accuracy": 1.0, "elbo": 9.0 if final else next(elbos), "table": [[1]]}

        return linear.build(config)._replace(evaluate=evaluate)

    config = linear.make_config(eval_every=10, keep_best="elbo")
    config.seeds = (0, 1)
    content = loop.run(config, tmp_path / "run", build)
    assert content["best_steps"] == [10, 20] and content["steps"] == 40 and len(validated) == 8
    np.testing.assert_array_equal(tested, [validated[0], validated[3]])
    assert not np.array_equal(validated[0], validated[2])
    np.testing.assert_array_equal(restore_run(tmp_path / "run", build).params["generative"], validated[0])
    assert loop.run(config, tmp_path / "run", build, mode="evaluate")["best_steps"] == [10, 20]
    np.testing.assert_array_equal(tested[2:], [validated[0], validated[3]])


def test_before_any_validation_the_best_is_the_last():
    untrained, last = {"a": np.zeros((2, 3))}, {"a": np.ones((2, 3))}
    best = chosen(Best(np.array([-np.inf, 0.5]), np.array([0, 7]), untrained), 9, last)
    assert best.step.tolist() == [9, 7]
    np.testing.assert_array_equal(best.params["a"], [[1] * 3, [0] * 3])


# --------------------------------------------------------------------------------------------------- what goes wrong


@pytest.mark.parametrize("name", ["accuracy", "table"])
def test_an_unknown_figure_to_keep_the_best_of(tmp_path, name):
    with pytest.raises(UserError, match=f"^train.keep_best='{name}' is no figure of validation: use one of"):
        loop.run(linear.make_config(keep_best=name), tmp_path / "run", linear.build)


def test_another_config_in_the_same_folder(reference):
    config = linear.make_config(batch_size=16)
    config.seeds = (0, 1)
    message = r"reference holds a run with seeds=\[0\], not \[0, 1\]; train.batch_size=8, not 16: choose another"
    with pytest.raises(UserError, match=message):
        loop.run(config, reference, build=None)
    assert json.loads((reference / "config.json").read_text())["train"]["batch_size"] == 8


def test_checkpoints_of_an_unknown_config(reference, tmp_path):
    shutil.copytree(reference, tmp_path / "copy")
    (tmp_path / "copy" / "config.json").unlink()
    with pytest.raises(UserError, match="a run of an unknown config"):
        loop.run(linear.make_config(), tmp_path / "copy", linear.build)


@pytest.mark.parametrize(
    "name", ["num_steps", "inner_steps", "log_every", "eval_every", "checkpoint_every", "checkpoints_kept"]
)
def test_numbers_below_one(tmp_path, name):
    with pytest.raises(UserError, match=f"^train.{name}=0: use at least 1$"):
        loop.run(linear.make_config(**{name: 0}), tmp_path / "run", build=None)


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"cannot write to --workdir=.*file/run \(Not a directory\)"):
        loop.run(linear.make_config(), tmp_path / "file" / "run", build=None)


def test_a_batch_that_devices_do_not_divide(tmp_path):
    with pytest.raises(UserError, match="train.batch_size=8 does not divide among 3 devices"):
        loop.run(linear.make_config(num_devices=3), tmp_path / "run", build=None)


def test_an_unknown_mode(tmp_path):
    with pytest.raises(UserError, match="mode 'test' is unknown"):
        loop.run(linear.make_config(), tmp_path / "run", build=None, mode="test")


def test_all_seeds_non_finite_stop_the_run_and_keep_the_checkpoint(tmp_path):
    def build(config):
        return linear.build(config, bad=lambda params, step: step >= 22)

    for _ in range(2):  # starting again ends in the same way
        message = r"not finite since step 22 \(last good checkpoint: .*run/checkpoints/30\): .*smaller optimizer"
        with pytest.raises(UserError, match=message):
            loop.run(linear.make_config(), tmp_path / "run", build)
    arrays = Checkpoints(tmp_path / "run" / "checkpoints", 2)._read(30)
    assert all(np.isfinite(array).all() for array in arrays.values())
    assert not (tmp_path / "run" / "eval.json").exists()


@pytest.mark.parametrize("judged", [True, False])
def test_one_seed_non_finite_is_reported_and_the_others_go_on(reference, tmp_path, capsys, judged):
    """Also where nothing tells success from failure."""

    def weight(params):  # tells the seeds apart
        return params["inference"]["kernel"][0, 0]

    experiment = linear.build(linear.make_config())
    good, bad = (float(weight(experiment.init(step.make_keys(seed).init)[0])) for seed in (0, 1))

    def build(config):
        def nearer_to_bad(params, step):
            return (step >= 12) & (abs(weight(params) - bad) < abs(weight(params) - good))

        experiment = linear.build(config, bad=nearer_to_bad)
        return experiment if judged else experiment._replace(signature=None)

    config = linear.make_config()
    config.seeds = (0, 1)
    content = loop.run(config, tmp_path / "run", build)
    assert content["failures"] == {"1": "non-finite at step 12"} and content["skipped_steps"] == [0, 28]
    assert content["success_rate"] == (0.5 if judged else None)
    said = ["1 of 2 seeds succeeded"] if judged else []
    assert capsys.readouterr().out.strip().split("; ")[1:] == [*said, "seed 1: non-finite at step 12"]
    assert content["per_seed"][0]["count_accuracy"] == pytest.approx(
        json.loads((reference / "eval.json").read_text())["count_accuracy"], rel=1e-5
    )
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    last = [row for row in rows if "loss" in row][-1]
    assert last["loss"][1] is None and last["skipped"] == [0, 28] and last["failed_at"] == [-1, 12]


def test_a_damaged_checkpoint_costs_only_the_steps_since_the_one_before(reference, tmp_path, capsys):
    folder = tmp_path / "run"
    with pytest.raises(SystemExit):
        loop.run(linear.make_config(), folder, terminated(linear.build))
    largest = max((folder / "checkpoints" / "25").rglob("d/*"), key=lambda path: path.stat().st_size)
    largest.write_bytes(largest.read_bytes()[:-20])
    loop.run(linear.make_config(), folder, linear.build)
    assert "checkpoints/25 is damaged: going on from step 20" in capsys.readouterr().err
    (folder / "checkpoints" / "corrupt_25").rename(tmp_path / "corrupt")
    assert outcome(folder) == outcome(reference)


def test_data_of_another_shape_do_not_fit_the_checkpoint(reference):
    def build(config):
        experiment = linear.build(config)

        def init(key):
            params, aux = experiment.init(key)
            return params | {"generative": np.zeros((3, 25), np.float32)}, aux

        return experiment._replace(init=init)

    (reference / "eval.json").rename(reference / "eval.json.before")
    try:
        with pytest.raises(UserError, match=r"checkpoints/40 does not fit: .*\[1, 3, 16\] there, .*\[1, 3, 25\] here"):
            loop.run(linear.make_config(), reference, build)
    finally:
        (reference / "eval.json.before").rename(reference / "eval.json")


@pytest.mark.parametrize("fields", [{"seeds": ()}, {"seeds": (1, 1)}, {"seeds": (-1,)}, {"train.eval_every": 0}])
def test_impossible_numbers(tmp_path, fields):
    config = linear.make_config()
    config.update_from_flattened_dict(fields)
    with pytest.raises(UserError, match=f"^{next(iter(fields))}="):
        loop.run(config, tmp_path / "run", build=None)
