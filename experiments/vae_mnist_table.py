"""Table 7.5.1 and figures 7.5.1 to 7.5.4 and 7.D.1 of the thesis: one VAE trained with eight objectives.

A column is a run of `experiments.vae_mnist` in a folder of its own, so that what is finished is not done again.
"""

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib.figure import Figure
from ml_collections import ConfigDict
from scipy import stats

from experiments import vae_mnist
from objcentric import plots_vae
from objcentric.errors import UserError
from objcentric.training import loop, writer
from objcentric.training.study import Result


class Column(NamedTuple):
    """One of the table's: its name there, the objective, and the thesis' mean and std over 4 runs of each metric."""

    label: str
    objective: dict[str, Any]  # fields of config.objective
    iwae: tuple[float, float]
    log_p: tuple[float, float]
    minus_kl: tuple[float, float]


# PIWAE and MIWAE (M, K): M groups of K particles.
COLUMNS = {
    "iwae": Column("IWAE", {"name": "iwae"}, (-86.11, 0.10), (-84.52, 0.02), (-1.59, 0.10)),
    "piwae_4_16": Column(
        "PIWAE (4, 16)", {"name": "piwae", "num_groups": 4}, (-85.68, 0.06), (-84.40, 0.17), (-1.27, 0.18)
    ),
    "piwae_8_8": Column(
        "PIWAE (8, 8)", {"name": "piwae", "num_groups": 8}, (-85.74, 0.07), (-84.46, 0.06), (-1.28, 0.09)
    ),
    "miwae_4_16": Column(
        "MIWAE (4, 16)", {"name": "miwae", "num_groups": 4}, (-85.60, 0.07), (-84.56, 0.05), (-1.04, 0.08)
    ),
    "miwae_8_8": Column(
        "MIWAE (8, 8)", {"name": "miwae", "num_groups": 8}, (-85.69, 0.04), (-84.97, 0.10), (-0.72, 0.11)
    ),
    "ciwae_0.05": Column(
        "CIWAE β = 0.05", {"name": "ciwae", "beta": 0.05}, (-85.91, 0.11), (-84.57, 0.09), (-1.34, 0.14)
    ),
    "ciwae_0.5": Column("CIWAE β = 0.5", {"name": "ciwae", "beta": 0.5}, (-86.08, 0.08), (-85.24, 0.08), (-0.84, 0.11)),
    "vae": Column("VAE", {"name": "elbo"}, (-86.69, 0.08), (-86.21, 0.08), (-0.47, 0.08)),
}
PAPER_RUNS = 4
METRICS = {
    "iwae": "IWAE-{K}",
    "log_p": "log p\u0302(x)",
    "minus_kl": "\u2212KL(Q \u2016 P)",
}  # all: the larger the better
LEVEL = 0.05  # of Welch's t-test
# What each picture shows; IWAE is PIWAE and MIWAE of M = 1 and CIWAE of beta = 0, the VAE is M = 64 and beta = 1.
CONVERGENCE = {
    "convergence": ("iwae", "piwae_8_8", "miwae_8_8", "ciwae_0.5", "vae"),  # figure 7.5.1
    "convergence_tighter": ("iwae", "piwae_4_16", "miwae_4_16", "ciwae_0.05", "vae"),  # figure 7.D.1
}
FAMILIES = {
    "MIWAE": {"M = 1": "iwae", "4": "miwae_4_16", "8": "miwae_8_8", "64": "vae"},
    "CIWAE": {"β = 0": "iwae", "0.05": "ciwae_0.05", "0.5": "ciwae_0.5", "1": "vae"},
    "PIWAE": {"M = 1": "iwae", "4": "piwae_4_16", "8": "piwae_8_8"},
}

Results = Mapping[str, dict[str, Any]]  # by column, the content of its eval.json
Values = dict[str, dict[str, np.ndarray]]  # by metric and column [S], a number a seed


def study(config: ConfigDict, folder: Path) -> Result:
    """Trains ``config.columns`` in sub-folders, and writes ``table.md``; a column that is finished is read.

    Returns:
      figures ``<metric>/<column>`` of each seed, and pictures by name.
    """
    check(config)
    results, rows = {}, {}
    for name in config.columns:
        results[name] = loop.run(column_config(config, name), folder / name, vae_mnist.build)
        rows[name] = writer.read_metrics(folder / name / "metrics.jsonl")
    particles = config.run.evaluate.iwae_particles
    (folder / "table.md").write_text(table(results, particles))
    values = gather(results, particles) | speed(results)
    names = [(metric, column) for metric in values for column in results]
    per_seed = {
        seed: {f"{metric}/{column}": float(values[metric][column][s]) for metric, column in names}
        for s, seed in enumerate(config.seeds)
    }
    return Result(per_seed, pictures(results, rows, particles), config.run.train.num_steps)


def check(config: ConfigDict) -> None:
    """UserError for what would stop the study only when its turn comes."""
    if not config.columns or not set(config.columns) <= COLUMNS.keys():
        raise UserError(f"columns={tuple(config.columns)}: use some of {', '.join(COLUMNS)}")
    particles = config.run.objective.num_particles
    for name in config.columns:
        if particles % (groups := COLUMNS[name].objective.get("num_groups", 1)):
            raise UserError(f"run.objective.num_particles={particles}: {name!r} needs a multiple of {groups}")


def column_config(config: ConfigDict, column: str) -> ConfigDict:
    """The config of one column's run."""
    run = ConfigDict(config.run.to_dict() | {"seeds": config.seeds})
    run.objective.update(COLUMNS[column].objective)
    return run


def gather(results: Results, particles: int) -> Values:
    """The table's metrics, and the ESS."""
    names = {"iwae": f"iwae_{particles}", "log_p": "log_p", "minus_kl": "kl", "ess": "ess"}
    values = {
        metric: {c: np.array([seed[name] for seed in r["per_seed"]], np.float64) for c, r in results.items()}
        for metric, name in names.items()
    }
    return values | {"minus_kl": {column: -kl for column, kl in values["minus_kl"].items()}}


def speed(results: Results) -> Values:
    """Training steps a second, the same for every seed of a column."""
    rate = {name: r["steps"] * len(r["seeds"]) / max(r["train_seconds"], 1e-9) for name, r in results.items()}
    return {"steps_per_second": {name: np.full(len(results[name]["seeds"]), value) for name, value in rate.items()}}


# ------------------------------------------------------------------------------------------------------------ the table


def table(results: Results, particles: int) -> str:
    """Markdown: ours and the thesis' figures, and which of the thesis' orderings hold."""
    values = gather(results, particles)
    some = next(iter(results.values()))
    cells = [["", *(COLUMNS[column].label for column in results)]]
    for metric, title in METRICS.items():
        cells.append([title.format(K=particles), *_marked(values[metric])])
        cells.append(["thesis", *("{:.2f} ± {:.2f}".format(*getattr(COLUMNS[c], metric)) for c in results)])
    cells.append([f"ESS / {particles}", *(f"{v.mean():.3f} ± {_std(v):.3f}" for v in values["ess"].values())])
    cells.append(["steps a second", *(f"{v[0]:.1f}" for v in speed(results)["steps_per_second"].values())])
    failed = [f"{COLUMNS[c].label}, seed {s}, {why}" for c, r in results.items() for s, why in r["failures"].items()]
    lines = ["| " + " | ".join(row) + " |" for row in cells]
    lines.insert(1, "| " + " | ".join(["---"] * len(cells[0])) + " |")
    return "\n".join(
        [
            f"{some['steps']:,} steps, {len(some['seeds'])} seeds, {some['num_examples']:,} test images;"
            " mean ± standard deviation over seeds.",
            f"**Best**, *not told from the best* at the {LEVEL:.0%} level of Welch's t-test. (M, K): M groups of K.",
            "",
            *lines,
            "",
            *(
                [f"Seeds that failed, with the figures of their last good step: {'; '.join(failed)}.", ""]
                * bool(failed)
            ),
            "Orderings of two columns that the thesis' figures tell apart at that level, and ours:",
            "",
            *(
                f"- {title.format(K=particles)}: {_said(orderings(metric, values[metric]))}"
                for metric, title in METRICS.items()
            ),
            "",
        ]
    )


def _marked(values: dict[str, np.ndarray]) -> list[str]:
    best = max(values, key=lambda column: values[column].mean())
    marks = {
        column: "**" if column == best else "" if differ(values[column], values[best]) else "*" for column in values
    }
    return [f"{marks[c]}{v.mean():.2f} ± {_std(v):.2f}{marks[c]}" for c, v in values.items()]


class Orderings(NamedTuple):
    """Pairs (better, worse) of columns, as the thesis has them."""

    hold: list[tuple[str, str]]  # told apart in ours too, at the same level
    unclear: list[tuple[str, str]]  # not told apart
    reversed: list[tuple[str, str]]  # told apart the other way round


def orderings(metric: str, values: dict[str, np.ndarray]) -> Orderings:
    """The thesis' significant orderings of the given columns, by how they came out here."""
    found = Orderings([], [], [])
    for pair in itertools.combinations(values, 2):
        theirs = [getattr(COLUMNS[column], metric) for column in pair]
        if stats.ttest_ind_from_stats(*theirs[0], PAPER_RUNS, *theirs[1], PAPER_RUNS, equal_var=False).pvalue >= LEVEL:
            continue
        better, worse = pair if theirs[0] > theirs[1] else pair[::-1]
        if not differ(values[better], values[worse]):
            found.unclear.append((better, worse))
        elif values[better].mean() > values[worse].mean():
            found.hold.append((better, worse))
        else:
            found.reversed.append((better, worse))
    return found


def differ(a: np.ndarray, b: np.ndarray) -> bool:
    """Whether two samples have different means, at the level `LEVEL` of Welch's t-test; samples of one never do."""
    if min(len(a), len(b)) < 2:
        return False
    if np.ptp(a) == np.ptp(b) == 0:
        return bool(a[0] != b[0])
    return bool(stats.ttest_ind(a, b, equal_var=False).pvalue < LEVEL)


def _said(found: Orderings) -> str:
    said = [f"{len(found.hold)} of {sum(map(len, found))} hold"]
    for name, pairs in (("not told apart", found.unclear), ("the other way round", found.reversed)):
        if pairs:
            said.append(f"{name}: " + ", ".join(f"{COLUMNS[a].label} > {COLUMNS[b].label}" for a, b in pairs))
    return "; ".join(said)


def _std(values: np.ndarray) -> float:
    return float(np.std(values, ddof=1)) if len(values) > 1 else 0.0


# ------------------------------------------------------------------------------------------------------------- pictures


def pictures(results: Results, rows: Mapping[str, Sequence[dict]], particles: int) -> dict[str, Figure]:
    """Figures 7.5.1, 7.D.1, 7.5.2, 7.5.3 and, where it was measured, 7.5.4; ``rows`` are those of metrics.jsonl."""
    titles = {metric: title.format(K=particles) for metric, title in METRICS.items()}
    drawn = {}
    for name, columns in CONVERGENCE.items():
        curves = {column: _curves(rows[column], particles) for column in columns if column in results}
        if not curves:
            continue
        panels = {title: {COLUMNS[c].label: curves[c][metric] for c in curves} for metric, title in titles.items()}
        drawn[name] = plots_vae.training(panels, caption="validation images, nats")
        if all("snr" in c for c in curves.values()):
            depth = next(iter(curves.values()))["snr"][1].shape[1]
            layers = (*(f"layer {i + 1}" for i in range(depth - 2)), "mean", "log scale")
            panels = {
                layer: {COLUMNS[c].label: (curves[c]["snr"][0], curves[c]["snr"][1][:, i]) for c in curves}
                for i, layer in enumerate(layers)
            }
            caption = "SNR of the inference network's gradients, 20 weights a layer"
            drawn[name.replace("convergence", "snr")] = plots_vae.training(panels, log=True, caption=caption)
    values = gather(results, particles)
    if "iwae" in results:
        drawn["relative"] = plots_vae.relative(
            {
                title: {
                    family: {
                        setting: values[metric][column] - values[metric]["iwae"]
                        for setting, column in settings.items()
                        if column in results
                    }
                    for family, settings in FAMILIES.items()
                }
                for metric, title in titles.items()
            },
            baseline="IWAE",
            caption="test images, nats; mean and standard deviation over seeds of the differences",
        )
    histograms = {
        COLUMNS[column].label: np.sum([seed["ess_histogram"] for seed in result["per_seed"]], 0)
        for column, result in results.items()
    }
    title = f"effective sample size of {particles} particles / {particles}, of the test images"
    drawn["ess"] = plots_vae.violins(histograms, vae_mnist.ess_edges(particles), title)
    return drawn


def _curves(rows: Sequence[dict], particles: int) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Steps [T] and values of the validations: metrics [T, S], SNR [T, layers, S * weights]."""
    rows = [row for row in rows if "valid/log_p" in row]
    steps = np.array([row["step"] for row in rows])
    names = {"iwae": f"iwae_{particles}", "log_p": "log_p", "minus_kl": "kl"}
    curves = {
        metric: (steps, np.array([np.atleast_1d(row[f"valid/{name}"]) for row in rows], np.float64))
        for metric, name in names.items()
    }
    curves["minus_kl"] = steps, -curves["minus_kl"][1]
    if rows and "valid/snr_weights" in rows[0]:
        ratios = np.array([row["valid/snr_weights"] for row in rows], np.float64)
        ratios = ratios.reshape(len(rows), -1, *ratios.shape[-2:])  # [T, S, layers, weights]
        curves["snr"] = steps, np.moveaxis(ratios, 1, 2).reshape(len(rows), ratios.shape[2], -1)
    return curves
