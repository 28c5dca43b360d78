"""Table 6.3.2 of the thesis: what each component of an SCAE contributes to unsupervised classification.

An ablation is a run of `experiments.scae` in a folder of its own, so that what is finished is not done again.
"""

from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from experiments import scae
from objcentric.errors import UserError
from objcentric.training import loop
from objcentric.training.study import Result

NO_PRIOR = {"losses.prior_within": 0.0, "losses.prior_between": 0.0}
NO_POSTERIOR = {"losses.posterior_within": 0.0, "losses.posterior_between": 0.0}
ABLATIONS: dict[str, dict[str, Any]] = {  # rows of the table: fields of configs/scae.py that each changes
    "full": {},
    "no_posterior_sparsity": NO_POSTERIOR,
    "no_prior_sparsity": NO_PRIOR,
    "no_sparsity": NO_PRIOR | NO_POSTERIOR,
    "no_object_noise": {"model.noise": 0.0},
    "no_noise": {"model.noise": 0.0, "model.part_noise": 0.0},
    "no_part_noise": {"model.part_noise": 0.0},
    "similarity": {"model.similarity": True},
    "no_deformations": {"model.deformable": False},
    "linear_encoder": {"model.part_encoder": "linear"},
    "conv_encoder": {"model.part_encoder": "conv"},
    "mlp_objects": {"model.object_encoder": "mlp"},
    "no_special_features": {"model.special_features": 0},
}
MEASURED = ("", "affine_", "affnist_")  # prefixes of figures of a run: on its test images; these, transformed; affNIST


def study(config: ConfigDict, folder: Path) -> Result:
    """Trains every ablation on all data sets of ``config.runs``, in sub-folders.

    Returns:
      of each seed ``<data>/<ablation>``, and ``<data>_affine/<ablation>``, ``<data>_affnist/<ablation>`` where a run
      evaluates on these: the figure ``config.figure``. `table` is written to table.md.
    """
    check(config)
    per_seed: dict[int, dict[str, float]] = {seed: {} for seed in config.seeds}
    for data in config.runs:
        for ablation in config.ablations:
            content = loop.run(run_config(config, data, ablation), folder / f"{data}_{ablation}", scae.build)
            for seed, figures in zip(config.seeds, content["per_seed"], strict=True):
                per_seed[seed] |= figures_of(config.figure, data, ablation, figures)
    (folder / "table.md").write_text(table(config, list(per_seed.values())))
    return Result(per_seed, {}, max(run.train.num_steps for run in config.runs.values()))


def figures_of(figure: str, data: str, ablation: str, figures: dict[str, Any]) -> dict[str, float]:
    """Of one seed of one run, by the names that `study` gives them."""
    return {
        f"{data}{'_' * bool(prefix)}{prefix.rstrip('_')}/{ablation}": figures[prefix + figure]
        for prefix in MEASURED
        if prefix + figure in figures
    }


def table(config: ConfigDict, per_seed: list[dict[str, float]]) -> str:
    """Markdown: a row for each ablation, a column for each data set, mean % and (sample std) of the seeds."""
    columns = list(dict.fromkeys(name.split("/")[0] for name in per_seed[0]))
    lines = [["ablation", *columns], ["---"] * (len(columns) + 1)]
    for ablation in config.ablations:
        cells = []
        for column in columns:
            values = 100 * np.array([seed[f"{column}/{ablation}"] for seed in per_seed])
            cells.append(f"{values.mean():.1f} ({values.std(ddof=1) if len(values) > 1 else 0:.1f})")
        lines.append([ablation.replace("_", " "), *cells])
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def check(config: ConfigDict) -> None:
    """UserError for what would stop the study only when its turn comes."""
    if not config.ablations or not set(config.ablations) <= ABLATIONS.keys():
        raise UserError(f"ablations={tuple(config.ablations)}: use some of {', '.join(ABLATIONS)}")
    known = [f"{feature}_{name}" for feature in scae.FEATURES for name in scae.clustering.FIGURES]
    if config.figure not in known:
        raise UserError(f"figure={config.figure!r} is unknown: use one of {', '.join(known)}")


def run_config(config: ConfigDict, data: str, ablation: str) -> ConfigDict:
    run = ConfigDict(config.runs[data].to_dict() | {"seeds": config.seeds})
    run.update_from_flattened_dict(ABLATIONS[ablation])
    return run
