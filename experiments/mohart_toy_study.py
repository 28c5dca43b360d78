"""Figure 4.5 of the thesis: HART and the ways of MOHART, against the length of sequences and the randomness of worlds.

A variant is a run of `experiments.hart` in a folder of its own, so that what is finished is not done again.
"""

from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from experiments import hart
from experiments.results_table import markdown_lines
from objcentric import plots_tracking
from objcentric.errors import UserError
from objcentric.training import loop
from objcentric.training.study import Result

LABELS = {"none": "HART", "attention": "MOHART", "max": "max-pool", "mlp": "MLP"}  # the thesis'


def study(config: ConfigDict, folder: Path) -> Result:
    """Trains all variants in sub-folders.

    Returns:
      of each seed ``iou/<relation>_<randomness>`` on sequences as long as the trained ones, and those of the baselines,
      ``static/<randomness>`` and ``momentum/<randomness>``; lists ``iou_by_length/<relation>`` over ``config.lengths``
      in worlds of randomness 1; and the picture. `table` is written to table.md.
    """
    check(config)
    results = {}
    for relation, randomness in variants(config):
        run = run_config(config, relation, randomness)
        results[relation, randomness] = loop.run(run, folder / f"{relation}_{randomness:g}", hart.build)["per_seed"]
    per_seed = {seed: figures_of(config, results, i) for i, seed in enumerate(config.seeds)}
    drawn = panels(config, list(per_seed.values()))
    (folder / "table.md").write_text(table(drawn))
    return Result(per_seed, {"figure_4_5": plots_tracking.accuracy(drawn)}, config.run.train.num_steps)


def figures_of(config: ConfigDict, results: dict[tuple[str, float], list[dict]], index: int) -> dict[str, Any]:
    """Of the seed at ``index``, as `study` returns them."""
    figures = {}
    for (relation, randomness), per_seed in results.items():
        seed = per_seed[index]
        figures[f"iou/{relation}_{randomness:g}"] = seed["mean_iou"]
        figures |= {f"{name}/{randomness:g}": seed[f"{name}_iou"] for name in ("static", "momentum")}
        if randomness == 1 and relation in config.relations:  # frames from the second one on, as everywhere
            figures[f"iou_by_length/{relation}"] = [float(np.mean(seed["iou_t"][1:n])) for n in config.lengths]
    return figures


def panels(config: ConfigDict, per_seed: list[dict[str, Any]]) -> dict[str, tuple[tuple[float, ...], dict]]:
    """Those of figure 4.5: by what varies in each its values ``[L]`` and, by tracker, the IoU ``[S, L]`` of S seeds."""
    found = {}
    if config.relations:
        curves = {LABELS[r]: [seed[f"iou_by_length/{r}"] for seed in per_seed] for r in config.relations}
        found["sequence length"] = (config.lengths, curves)
    if config.compared:
        names = {LABELS[relation]: f"iou/{relation}_" for relation in config.compared}
        names |= {"static": "static/", "momentum": "momentum/"}
        curves = {
            label: [[seed[f"{name}{r:g}"] for r in config.randomness] for seed in per_seed]
            for label, name in names.items()
        }
        found["randomness"] = (config.randomness, curves)
    return found


def table(drawn: dict[str, tuple[tuple[float, ...], dict]]) -> str:
    """Markdown of `panels`: mean IoU of the seeds, of each panel a row a tracker."""
    pages = []
    for name, (places, curves) in drawn.items():
        rows = [[name, *(f"{place:g}" for place in places)]]
        rows += [[label, *(f"{iou:.3f}" for iou in np.mean(values, 0))] for label, values in curves.items()]
        pages.append("\n".join([*markdown_lines(rows), ""]))
    return "\n".join(pages)


def check(config: ConfigDict) -> None:
    """UserError for what would stop the study only when its turn comes."""
    for name in ("relations", "compared"):
        if not set(config[name]) <= LABELS.keys():
            raise UserError(f"{name}={tuple(config[name])}: use some of {', '.join(LABELS)}")
    if not (config.relations or config.compared):
        raise UserError(f"relations=() and compared=() leave nothing to train: use some of {', '.join(LABELS)}")
    if not config.randomness or not all(0 <= r <= 1 for r in config.randomness):
        raise UserError(f"randomness={tuple(config.randomness)}: use some within [0, 1]")
    longest = config.run.evaluate.num_frames
    if not config.lengths or not all(2 <= length <= longest for length in config.lengths):
        raise UserError(f"lengths={tuple(config.lengths)}: use some from 2 to run.evaluate.num_frames={longest}")


def variants(config: ConfigDict) -> list[tuple[str, float]]:
    """Relations and randomness of the runs, each once."""
    left = [(relation, 1.0) for relation in config.relations]
    right = [(relation, randomness) for relation in config.compared for randomness in config.randomness]
    return list(dict.fromkeys(left + right))


def run_config(config: ConfigDict, relation: str, randomness: float) -> ConfigDict:
    run = ConfigDict(config.run.to_dict() | {"seeds": config.seeds})
    run.model.relation, run.data.randomness = relation, randomness
    return run
