"""Runs an experiment: config -> train -> evaluate, or a study. The README explains the run's folder.

  python launch.py --config=configs/air.py --workdir=runs/air
  python launch.py --config=configs/air.py --config.objective.name=nvil --config.seeds='(0, 1, 2)' --workdir=runs/nvil
  python launch.py --config=configs/air.py --workdir=runs/air --mode=evaluate

The same command again resumes a run that was stopped. Every field of the config is explained in configs/base.py.
"""

import importlib
import importlib.util
import sys
from typing import NoReturn

from absl import app, flags, logging
from ml_collections import ConfigDict, config_flags

from objcentric.errors import UserError

_CONFIG = config_flags.DEFINE_config_file("config", None, "The experiment, a file in configs/.", lock_config=True)
_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the run: made if missing, resumed if not finished.")
_MODE = flags.DEFINE_enum("mode", "train", ["train", "evaluate"], "Train, or evaluate the newest checkpoint.")
flags.mark_flags_as_required(["config", "workdir"])

UNKNOWN = "config.experiment={!r} is unknown: name a module of experiments/"


def parse(arguments: list[str]) -> list[str]:
    """Sets the flags; every mistake in them is one line."""
    try:
        rest = flags.FLAGS(arguments)
        experiment = _CONFIG.value.experiment  # a file that could not be read is noticed only now
    except flags.Error as error:
        fail(str(error).strip().splitlines()[-1] if "Traceback" in str(error) else error)  # of the config's own code
    except AttributeError as error:
        fail(f"the config has no such field: {getattr(error.args[0], 'args', error.args)[0]}")
    except KeyError as error:  # a part that it lacks
        fail(
            f"the config has no part {error.args[0].strip(chr(34))}: see the fields in its file, or in configs/base.py"
        )
    except OSError as error:
        fail(f"cannot read --config: {str(error).splitlines()[-1].strip()}")
    if len(rest) > 1:
        fail(f"{rest[1]!r} is not a flag: write --name=value, without spaces")
    if not experiment.isidentifier() or not importlib.util.find_spec(f"experiments.{experiment}"):
        fail(UNKNOWN.format(experiment))
    return rest


def fail(reason: object) -> NoReturn:
    """Ends the program with one line."""
    print("objcentric:", *str(reason).split(), file=sys.stderr)
    sys.exit(2)


def cpu_devices(config: ConfigDict) -> int:
    """What a run asks for, or the runs of a study, which are all in this process: UserError if they disagree."""
    runs = [config, config.get("run", {}), *config.get("runs", {}).values()]
    asked = {run["train"]["cpu_devices"] for run in runs if "train" in run} or {0}
    if len(asked) > 1:
        raise UserError(f"runs ask for cpu_devices={sorted(asked)}: give all the same train.cpu_devices")
    return asked.pop()


def main(_) -> None:
    import jax

    from objcentric.training import loop, machine, study

    logging.set_verbosity(logging.WARNING)  # libraries tell of every step they take
    try:
        machine.divide_cpu(cpu_devices(_CONFIG.value))  # before any module computes
        experiment = importlib.import_module(f"experiments.{_CONFIG.value.experiment}")
        if hasattr(experiment, "build"):
            loop.run(_CONFIG.value, _WORKDIR.value, experiment.build, mode=_MODE.value)
        elif not hasattr(experiment, "study"):
            fail(UNKNOWN.format(_CONFIG.value.experiment))
        elif _MODE.value != "train":
            fail(f"config.experiment={_CONFIG.value.experiment!r} is a study, which knows no --mode={_MODE.value}")
        else:
            study.run(_CONFIG.value, _WORKDIR.value, experiment.study)
    except (UserError, OSError) as error:  # OSError: a full disk, say
        fail(error)
    except KeyboardInterrupt:  # of a study; a training saves first
        print("objcentric: stopped; the same command goes on with what is not finished", file=sys.stderr)
        sys.exit(machine.PREEMPTED)
    except (MemoryError, jax.errors.JaxRuntimeError) as error:
        if not isinstance(error, MemoryError) and "RESOURCE_EXHAUSTED" not in str(error):
            raise
        fail(
            "out of memory: reduce train.batch_size or evaluate.batch_size; where there are particles, also"
            " objective.num_particles or evaluate.particle_chunk"
        )


if __name__ == "__main__":
    app.run(main, flags_parser=parse)
