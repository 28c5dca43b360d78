"""Table 6.3.2 of the thesis: what each component of an SCAE contributes to unsupervised classification.

An ablation is a run of `experiments.scae` in a folder of its own, so that what is finished is not done again.

Without special features templates have colours of their own, which features tell unless model.coloured is False. In
recipes whose parts are fixed before objects begin (curriculum.parts_fixed) features are taught by colours alone.
'release_mask' is not in the thesis' table: see `set_transformer.log_bias`.
"""

import sys
from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from experiments import scae
from experiments.results_table import markdown_lines
from objcentric.errors import Diverged, UserError
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
    "release_mask": {"model.mask": "release"},
}
# Table 6.3.2 itself: mean % and (standard deviation) of 10 runs on MNIST, 40x40 MNIST and affNIST
THESIS = {
    "full": ("97.0 (.87)", "98.5 (.1)", "92.2 (.59)"),
    "no_posterior_sparsity": ("96.7 (.7)", "98.2 (.48)", "87.6 (1.63)"),
    "no_prior_sparsity": ("90.5 (7.56)", "94.0 (3.03)", "74.0 (4.94)"),
    "no_sparsity": ("63.0 (13.48)", "62.7 (10.46)", "40.7 (6.81)"),
    "no_object_noise": ("96.4 (1.41)", "97.8 (.67)", "90.8 (2.97)"),
    "no_noise": ("84.8 (6.22)", "85.1 (13.13)", "76.3 (12.89)"),
    "no_part_noise": ("83.9 (7.57)", "80.2 (9.1)", "73 (9.04)"),
    "similarity": ("90.4 (13.78)", "97.4 (.99)", "90.1 (2.62)"),
    "no_deformations": ("87.6 (6.13)", "95.2 (1.04)", "87.6 (1.26)"),
    "linear_encoder": ("94.8 (3.0)", "98.1 (.26)", "76.3 (2.22)"),
    "conv_encoder": ("96.3 (.85)", "97.8 (.95)", "80.1 (2.58)"),
    "mlp_objects": ("73.0 (6.34)", "70.3 (11.2)", "52.5 (11.29)"),
    "no_special_features": ("63.1 (10.55)", "66.9 (23.59)", "50.5 (18.26)"),
}
MEASURED = ("", "affine_", "affnist_")  # prefixes of figures of a run: on its test images; these, transformed; affNIST


def study(config: ConfigDict, folder: Path) -> Result:
    """Trains every ablation on all data sets of ``config.runs``, in sub-folders.

    Returns:
      of each seed ``<data>/<ablation>``, and ``<data>_affine/<ablation>``, ``<data>_affnist/<ablation>`` where a run
      evaluates on these: the figure ``config.figure``, but for ablations of which no seed stays finite. `table` is
      written to table.md.
    """
    check(config)
    per_seed: dict[int, dict[str, float]] = {seed: {} for seed in config.seeds}
    for data in config.runs:
        for ablation in config.ablations:
            try:
                content = loop.run(run_config(config, data, ablation), folder / f"{data}_{ablation}", scae.build)
            except Diverged as error:  # what a component is for, too
                print(f"{data}_{ablation}: {error}", file=sys.stderr)
                continue
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
    """Markdown: a row for each ablation; mean % and (sample std) of the seeds on each data set, and the thesis'."""
    columns = list(dict.fromkeys(name.split("/")[0] for name in per_seed[0]))
    if not columns:
        raise Diverged("no ablation has figures, all have diverged: try a smaller optimizer.learning_rate of its runs")
    thesis = ["thesis: MNIST", "40x40 MNIST", "affNIST"]
    rows = [["ablation", *columns, *thesis]]
    for ablation in config.ablations:
        cells = []
        for column in columns:
            name = f"{column}/{ablation}"
            values = 100 * np.array([seed[name] for seed in per_seed if name in seed])
            if not len(values):
                cells.append("diverged")
                continue
            cells.append(f"{values.mean():.1f} ({values.std(ddof=1) if len(values) > 1 else 0:.1f})")
        rows.append([ablation.replace("_", " "), *cells, *THESIS.get(ablation, ("–",) * len(thesis))])
    return "\n".join([*markdown_lines(rows), ""])


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
