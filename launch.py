"""Runs an experiment: config -> train -> evaluate. The README explains the run's folder.

  python launch.py --config=configs/air.py --workdir=runs/air
  python launch.py --config=configs/air.py --config.objective.name=nvil --config.seeds='(0, 1, 2)' --workdir=runs/nvil
  python launch.py --config=configs/air.py --workdir=runs/air --mode=evaluate

The same command again resumes a run that was stopped. Every field of the config is explained in configs/base.py.
"""

import importlib
import sys

from absl import app, flags, logging
from ml_collections import config_flags

_CONFIG = config_flags.DEFINE_config_file("config", None, "The experiment, a file in configs/.", lock_config=True)
_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the run: made if missing, resumed if not finished.")
_MODE = flags.DEFINE_enum("mode", "train", ["train", "evaluate"], "Train and evaluate, or evaluate the last checkpoint.")
flags.mark_flags_as_required(["config", "workdir"])


def main(_) -> None:
    from objcentric.errors import UserError
    from objcentric.training import loop

    logging.set_verbosity(logging.WARNING)  # libraries tell of every step they take
    try:
        experiment = importlib.import_module(f"experiments.{_CONFIG.value.experiment}")
        loop.run(_CONFIG.value, _WORKDIR.value, experiment.build, mode=_MODE.value)
    except UserError as error:
        sys.exit(f"objcentric: {error}")


if __name__ == "__main__":
    app.run(main)
