"""Committed results, and the tables of experiments/README.md that are made from them.

    python -m experiments.results_table                                          # write the tables
    python -m experiments.results_table --check                                  # exit 1 if they are out of date
    python -m experiments.results_table --record runs/air --variant=x --title=y  # add a finished run, write the tables
    python -m experiments.results_table --record runs/air_1 --variant=x --add    # its seeds join those of a result

A result is one file, ``results/<experiment>[_<variant>].json``; its fields are those of `Result`.
"""

import argparse
import itertools
import json
import math
import re
import sys
from pathlib import Path
from typing import Any, NamedTuple, NotRequired, TypedDict

from experiments.comparisons import COMPARISONS, Comparison
from objcentric.errors import UserError

# Figures of which each seed's stands below the tables
SEED_BY_SEED = ("count_accuracy", "identity_switches", "error", "posterior_lin_match", "posterior_lin_pred")
RESULTS = Path(__file__).parent / "results"
README = Path(__file__).parent / "README.md"
BEGIN, END = "<!-- results:begin -->", "<!-- results:end -->"


class Figure(TypedDict):
    """A figure over the seeds of a run; mean and std are None where it is not finite for some seed."""

    mean: float | None
    std: float | None  # sample standard deviation; 0 for one seed
    n: int
    each: NotRequired[list[float]]  # of several seeds, in their order, where the runs' folders told


class Result(TypedDict):
    """The content of a result file."""

    experiment: str
    variant: str  # '' for an experiment's plain config
    title: str
    command: str
    config: dict[str, Any]
    seeds: list[int]
    steps: int
    wall_seconds: float  # of training and final evaluation, all seeds together
    train_seconds: NotRequired[float]  # of training alone
    skipped_steps: NotRequired[list[int]]  # of each seed, those whose loss or gradient was not finite
    machine: str
    date: str
    figures: dict[str, Figure]
    paper: NotRequired[dict[str, float]]
    notes: NotRequired[str]
    table: NotRequired[str]  # Markdown, in place of a column for each figure


class Run(NamedTuple):
    """What a run's folder says: its resolved config and its final figures."""

    config: dict[str, Any]
    figures: dict[str, Any]


# ---------------------------------------------------------------------------------------------------- recording


def record(
    workdir: str | Path,
    experiment: str,
    variant: str,
    title: str,
    notes: str = "",
    paper: dict[str, float] | None = None,
    *,
    command: str = "",
    add: bool = False,
    results: Path = RESULTS,
) -> Path:
    """Turns a finished run's folder into a committed result file.

    Args:
      workdir: the run's folder, holding config.json and eval.json; of a study maybe table.md, which is shown as it is.
        Of a folder that config.data.path names only the last part is kept: the others are of this machine.
      experiment: name of the table it belongs to; '' takes the config's.
      variant: distinguishes results of one experiment; letters, digits, '-', '_' and '.', or ''.
      title: label of its row.
      notes: a remark shown below the table.
      paper: reported values, by figure name.
      command: how to reproduce the run; '' takes the one that the run's folder holds.
      add: whether the run's seeds join those of the result of this name, which keeps its title, and its notes and
        command unless there are others; the configs must agree in all but seeds and train.cpu_devices.
      results: folder to write into.

    Returns:
      The path of the file written; one of the same name is replaced.

    Raises:
      UserError: the run is unfinished, a name does not fit in a file name, or there is nothing that it can be added to.
    """
    run = _read_run(Path(workdir))
    experiment = experiment or run.config.get("experiment", "")
    for name, value in (("experiment", experiment), ("variant", variant or "-")):
        if not re.fullmatch(r"[\w.-]+", value):
            raise UserError(f"{name} {value!r} becomes a file name: use letters, digits, '-', '_' and '.' only")
    result = Result(
        experiment=experiment,
        variant=variant,
        title=title,
        command=command or ("" if add else run.figures["command"]),
        config=_portable(run.config),
        seeds=run.figures["seeds"],
        steps=run.figures["steps"],
        wall_seconds=round(run.figures["wall_seconds"], 1),
        machine=run.figures["machine"],
        date=run.figures["date"],
        figures=_figures(run.figures),
    )
    if "train_seconds" in run.figures:
        result["train_seconds"] = round(run.figures["train_seconds"], 1)
    if "skipped_steps" in run.figures:
        result["skipped_steps"] = run.figures["skipped_steps"]
    if paper:
        result["paper"] = paper
    if notes:
        result["notes"] = notes
    if (own := Path(workdir) / "table.md").exists():
        result["table"] = own.read_text().strip()
    path = results / f"{_name(experiment, variant)}.json"
    if add:
        result = _joined(_read_json(path, "there is no result to add to"), result)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(result, indent=1) + "\n")
    return path


def _portable(config: dict[str, Any]) -> dict[str, Any]:
    data = config.get("data", {})
    return config | {"data": data | {"path": Path(data["path"]).name}} if data.get("path") else config


def _joined(old: Result, new: Result) -> Result:
    """A result of the seeds of both."""
    configs = [_what_matters(result["config"]) for result in (old, new)]
    names = sorted(configs[0].keys() | configs[1].keys())
    if differing := [name for name in names if configs[0].get(name) != configs[1].get(name)]:
        raise UserError(f"the results are of other {', '.join(differing)}: only seeds of one config join one result")
    if "table" in old or "table" in new:
        raise UserError("a study's own table is of all its seeds: run it with all of them, and record that")
    if repeated := sorted(set(old["seeds"]) & set(new["seeds"])):
        raise UserError(f"the seeds {repeated} are in the result already")
    parts = (old, new)
    names = [name for name in old["figures"] if name in new["figures"]]
    seeds = old["seeds"] + new["seeds"]
    order = sorted(range(len(seeds)), key=seeds.__getitem__)
    joined = old | {
        "seeds": sorted(seeds),
        "wall_seconds": round(sum(part["wall_seconds"] for part in parts), 1),
        "figures": {name: _pooled(*(part["figures"][name] for part in parts), order) for name in names},
        "date": new["date"],
    }
    joined["config"] = old["config"] | {"seeds": joined["seeds"]}
    if all("train_seconds" in part for part in parts):
        joined["train_seconds"] = round(sum(part["train_seconds"] for part in parts), 1)
    if all("skipped_steps" in part for part in parts):
        both = old["skipped_steps"] + new["skipped_steps"]
        joined["skipped_steps"] = [both[i] for i in order]
    return joined | {name: new[name] for name in ("command", "notes", "paper") if new.get(name)}


def _what_matters(config: dict) -> dict:
    """What figures depend on: not into how many devices a CPU is divided, and not seeds, which a result names."""
    kept = {name: value for name, value in config.items() if name != "seeds"}
    if "train" in kept:
        kept["train"] = {name: value for name, value in kept["train"].items() if name != "cpu_devices"}
    return kept


def _pooled(a: Figure, b: Figure, order: list[int]) -> Figure:
    """Mean and sample standard deviation of both groups of seeds together, which in the given order ascend."""
    n = a["n"] + b["n"]
    if a["mean"] is None or b["mean"] is None:
        return Figure(mean=None, std=None, n=n)
    mean = (a["n"] * a["mean"] + b["n"] * b["mean"]) / n
    squares = sum(part["std"] ** 2 * (part["n"] - 1) + part["n"] * (part["mean"] - mean) ** 2 for part in (a, b))
    pooled = Figure(mean=mean, std=math.sqrt(squares / (n - 1)), n=n)
    parts = [part.get("each", [part["mean"]] if part["n"] == 1 else []) for part in (a, b)]
    if all(parts):
        both = parts[0] + parts[1]
        pooled["each"] = [both[i] for i in order]
    return pooled


def _name(experiment: str, variant: str) -> str:
    """Of a result's file, without its ending."""
    return f"{experiment}_{variant}" if variant else experiment


def _read_run(workdir: Path) -> Run:
    config = _read_json(workdir / "config.json", "not the folder of a run")
    figures = _read_json(workdir / "eval.json", "the run is not finished: start its command again")
    needed = ("figures", "seeds", "steps", "wall_seconds", "machine", "date", "command")
    missing = [name for name in needed if name not in figures]
    if missing:
        raise UserError(f"{workdir}/eval.json lacks {', '.join(missing)}: evaluate the run again")
    return Run(config, figures)


def _read_json(path: Path, hint: str) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text())
    except FileNotFoundError:
        raise UserError(f"{path} does not exist: {hint}") from None
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read: {error}") from None
    if not isinstance(content, dict):
        raise UserError(f"{path} holds no JSON object: {hint}")
    return content


def _figures(evaluation: dict[str, Any]) -> dict[str, Figure]:
    """The figures of eval.json, and the success rate where there is one."""
    rate, n = evaluation.get("success_rate"), len(evaluation["seeds"])
    figures = evaluation["figures"]
    if n > 1 and "per_seed" in evaluation:
        each = {name: [seed[name] for seed in evaluation["per_seed"]] for name in figures}
        figures = {
            name: figure if figure["mean"] is None else figure | {"each": each[name]}
            for name, figure in figures.items()
        }
    if rate is None:
        return figures
    std = (rate * (1 - rate) * n / max(n - 1, 1)) ** 0.5
    return figures | {"success_rate": Figure(mean=rate, std=std, n=n)}


# ------------------------------------------------------------------------------------------------------- tables


def read_results(folder: Path = RESULTS) -> list[Result]:
    """All results of a folder, by experiment and variant.

    Raises:
      UserError: a file is no JSON object or lacks a field.
    """
    results = []
    for path in folder.glob("*.json"):
        result = _read_json(path, "record the run again")
        missing = sorted(Result.__required_keys__ - result.keys())
        if missing:
            raise UserError(f"{path} lacks {', '.join(missing)}: record the run again")
        results.append(result)
    return sorted(results, key=lambda result: (result["experiment"], result["variant"]))


def tables(results: list[Result]) -> str:
    """Markdown: the thesis' tables with ours, then one section an experiment, one row a result, one column a figure.

    '' for no results.
    """
    experiments = dict.fromkeys(result["experiment"] for result in results)
    sections = [_comparison(comparison, results) for comparison in COMPARISONS]
    sections += [_table(name, [r for r in results if r["experiment"] == name]) for name in experiments]
    return "\n".join(section for section in sections if section)


def _comparison(comparison: Comparison, results: list[Result]) -> str:
    """The thesis' rows, then ours; '' if there is none of ours."""
    named = {_name(result["experiment"], result["variant"]): result for result in results}
    ours = [named[name] for name in comparison.ours if name in named]
    if not ours:
        return ""
    rows = [["", *comparison.columns.values(), "steps", "seeds", "training, each seed"]]
    rows += [
        [f"*{name}, thesis*", *("n/a" if value is None else _number(value) for value in values), "", "", ""]
        for name, values in comparison.thesis.items()
    ]
    rows += [
        [
            result["title"],
            *(_cell(name, result | {"paper": {}}) for name in comparison.columns),
            f"{result['steps']:,}",
            _seeds(result["seeds"]),
            _duration(result.get("train_seconds", result["wall_seconds"]) / len(result["seeds"])),
        ]
        for result in ours
    ]
    return "\n".join(
        [f"## {comparison.title}", "", *markdown_lines(rows), "", *([comparison.note, ""] if comparison.note else [])]
    )


def markdown_lines(rows: list[list[str]]) -> list[str]:
    """A table in Markdown, whose header is the first of ``rows``."""
    lines = ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows]
    return [lines[0], "| " + " | ".join(["---"] * len(rows[0])) + " |", *lines[1:]]


def _table(experiment: str, results: list[Result]) -> str:
    listed = [[*r["figures"], *r.get("paper", {})] for r in results if "table" not in r]
    names = list(dict.fromkeys(itertools.chain(*listed)))
    header = ["result", *(name.replace("_", " ") for name in names), "steps", "seeds", "time", "machine", "command"]
    rows = [
        [
            f"{r['title']} (`{r['variant']}`)" if r["variant"] else r["title"],
            *(_cell(name, r) for name in names),
            f"{r['steps']:,}",
            _seeds(r["seeds"]),
            _duration(r["wall_seconds"])
            + (f", training {_duration(r['train_seconds'])}" if "train_seconds" in r else ""),
            r["machine"],
            f"`{r['command']}`",
        ]
        for r in results
    ]
    lines = [f"## {experiment}", "", *markdown_lines([header, *rows])]
    notes = [f"- {r['title']}: {r['notes']}" for r in results if r.get("notes")]
    notes += [f"- {r['title']}, seed by seed: {each}" for r in results if (each := _seed_by_seed(r))]
    notes += [
        f"- {r['title']}: steps that were not finite and were skipped, seed by seed: {r['skipped_steps']}"
        for r in results
        if any(r.get("skipped_steps", ()))
    ]
    own = [f"### {r['title']}\n\n{r['table']}\n" for r in results if "table" in r]
    return "\n".join([*lines, "", *notes, *([""] if notes else []), *own])


def _seed_by_seed(result: Result) -> str:
    """The figures of `SEED_BY_SEED` of each seed, in their order; '' where there are none."""
    known = {name: result["figures"].get(name, {}).get("each", []) for name in SEED_BY_SEED}
    return "; ".join(
        f"{name.replace('_', ' ')} {', '.join(map(_number, each))}" for name, each in known.items() if each
    )


def _cell(name: str, result: Result) -> str:
    figure = result["figures"].get(name)
    paper = result.get("paper", {}).get(name)
    if figure is None:
        cell = "–"
    elif figure["mean"] is None:
        cell = f"not finite ({figure['n']})"
    elif name == "success_rate":
        cell = f"{round(figure['mean'] * figure['n'])} of {figure['n']}"
    elif figure["n"] == 1:
        cell = f"{_number(figure['mean'])} (1)"
    else:
        spread = _number(figure["std"], _digits(figure["mean"]))
        cell = f"{_number(figure['mean'])} ± {spread} ({figure['n']})"
    return cell if paper is None else f"{cell}, paper {_number(paper)}"


def _number(value: float, digits: int | None = None) -> str:
    return f"{value:.{_digits(value) if digits is None else digits}f}"


def _digits(value: float) -> int:
    """Decimals that a value of this size is shown with: 0.9876, 12.35, 663.2."""
    return 4 if abs(value) < 2 else 2 if abs(value) < 100 else 1


def _seeds(seeds: list[int]) -> str:
    if len(seeds) > 2 and seeds == list(range(seeds[0], seeds[-1] + 1)):
        return f"{seeds[0]}-{seeds[-1]}"
    return ", ".join(map(str, seeds))


def _duration(seconds: float) -> str:
    if seconds < 99.5:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.1f} min" if seconds < 5970 else f"{seconds / 3600:.1f} h"


def render(page: str, results: list[Result]) -> str:
    """The page with everything between its two markers replaced by the tables of `results`.

    Raises:
      UserError: the page does not hold each marker once, in order.
    """
    if page.count(BEGIN) != 1 or page.count(END) != 1 or page.index(BEGIN) > page.index(END):
        raise UserError(f"the results page needs the line {BEGIN!r} once and after it the line {END!r} once")
    before, rest = page.split(BEGIN)
    return f"{before}{BEGIN}\n{tables(results)}{END}{rest.split(END)[1]}"


# --------------------------------------------------------------------------------------------------------- main


def _parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m experiments.results_table", description=__doc__.split("\n")[0])
    parser.add_argument("--check", action="store_true", help="exit 1 if the page is out of date; write nothing")
    parser.add_argument("--record", metavar="WORKDIR", help="add the finished run of this folder")
    parser.add_argument("--add", action="store_true", help="the run's seeds join those of the result of this variant")
    parser.add_argument("--experiment", default="", help="its table; the run's own config says it if left out")
    parser.add_argument("--variant", default="", help="tells results of one experiment apart")
    parser.add_argument("--title", default="", help="label of its row (needed with --record)")
    parser.add_argument("--notes", default="", help="a remark shown below the table")
    parser.add_argument("--paper", metavar="FIGURE=VALUE", action="append", default=[], help="a reported value")
    parser.add_argument("--command", default="", help="how to reproduce the run, if not as its folder says")
    return parser.parse_args(argv)


def _paper(pairs: list[str]) -> dict[str, float]:
    paper = {}
    for pair in pairs:
        name, _, value = pair.partition("=")
        try:
            paper[name] = float(value)
        except ValueError:
            raise UserError(f"--paper={pair} should read FIGURE=VALUE, as in --paper=count_accuracy=0.985") from None
    return paper


def main(argv: list[str] | None = None, *, results: Path = RESULTS, readme: Path = README) -> int:
    """Command line; returns the exit code: 0, 1 if the checked page is out of date, 2 for a mistake to mend."""
    args = _parse(argv)
    try:
        if args.record:
            if not args.title and not args.add:
                raise UserError("--record needs --title='...', the label of the row, or --add")
            path = record(
                args.record,
                args.experiment,
                args.variant,
                args.title,
                args.notes,
                _paper(args.paper),
                command=args.command,
                add=args.add,
                results=results,
            )
            print(f"wrote {path}")
        page = readme.read_text()
        rendered = render(page, read_results(results))
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    if page == rendered:
        print(f"{readme} is up to date")
    elif args.check:
        print(f"{readme} is out of date: run 'make results' and commit it", file=sys.stderr)
        return 1
    else:
        readme.write_text(rendered)
        print(f"wrote {readme}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
