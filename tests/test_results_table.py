"""The results table: known means and spreads, exact markdown, and that the committed page is up to date."""

import json
from pathlib import Path

import pytest

from experiments import results_table
from objcentric.errors import UserError
from objcentric.training.summary import summarize
from objcentric.training.writer import write_json

RUN = {"num_examples": 2000, "steps": 6000, "wall_seconds": 181.26, "machine": "2 CPU cores", "date": "2025-01-02"}
RUN["command"] = "x"
COMMAND = "python launch.py --config=configs/air.py --workdir=runs/air"
PAGE = f"# Results\n\n{results_table.BEGIN}\nold\n{results_table.END}\n\nend\n"


def write_run(folder: Path, evaluation: dict, config: dict) -> Path:
    folder.mkdir(parents=True)
    write_json(folder / "eval.json", evaluation)
    (folder / "config.json").write_text(json.dumps(config))
    return folder


@pytest.fixture
def one_seed(tmp_path: Path) -> Path:
    per_seed = [{"count_accuracy": 0.9875, "confusion": [[1, 0], [0, 1]]}]
    evaluation = summarize([3], per_seed, {}, judged=False) | RUN | {"command": COMMAND, "train_seconds": 150.04}
    return write_run(tmp_path / "one", evaluation, {"experiment": "air", "seeds": [3], "train": {"batch_size": 32}})


@pytest.fixture
def three_seeds(tmp_path: Path) -> Path:
    per_seed = [{"count_accuracy": a, "kl": k} for a, k in ((0.97, 20.0), (0.98, float("nan")), (0.99, 24.0))]
    evaluation = summarize([0, 1, 2], per_seed, {1: "always none"}, judged=True) | RUN
    del evaluation["per_seed"]  # their means are there already
    return write_run(tmp_path / "three", evaluation, {"experiment": "air", "seeds": [0, 1, 2]})


def test_one_seed_is_recorded_with_its_scalars_only(one_seed, tmp_path):
    path = results_table.record(one_seed, "", "", "AIR", results=tmp_path)
    assert path == tmp_path / "air.json"
    assert json.loads(path.read_text()) == {
        "experiment": "air",
        "variant": "",
        "title": "AIR",
        "command": COMMAND,
        "config": {"experiment": "air", "seeds": [3], "train": {"batch_size": 32}},
        "seeds": [3],
        "steps": 6000,
        "wall_seconds": 181.3,
        "train_seconds": 150.0,
        "machine": "2 CPU cores",
        "date": "2025-01-02",
        "figures": {"count_accuracy": {"mean": 0.9875, "std": 0.0, "n": 1}},
    }


def test_of_a_local_folder_the_last_part_is_kept(one_seed, tmp_path):
    (one_seed / "config.json").write_text(json.dumps({"experiment": "air", "data": {"path": "/home/me/mot/PETS"}}))
    path = results_table.record(one_seed, "", "", "AIR", results=tmp_path)
    assert json.loads(path.read_text())["config"]["data"] == {"path": "PETS"}


def test_several_seeds_are_averaged_and_none_is_left_out(three_seeds, tmp_path):
    path = results_table.record(three_seeds, "air", "mnist", "M", "hard", {"kl": 9.0}, command="y", results=tmp_path)
    assert path.name == "air_mnist.json"
    result = json.loads(path.read_text())
    assert result["figures"]["count_accuracy"] == {"mean": pytest.approx(0.98), "std": pytest.approx(0.01), "n": 3}
    assert result["figures"]["kl"] == {"mean": None, "std": None, "n": 3}  # a seed without the figure spoils its mean
    success = {"mean": pytest.approx(2 / 3), "std": pytest.approx(3**-0.5), "n": 3}  # of 1, 0 and 1
    assert result["figures"]["success_rate"] == success
    assert (result["seeds"], result["notes"], result["paper"]) == ([0, 1, 2], "hard", {"kl": 9.0})
    assert result["command"] == "y"


def test_page(one_seed, three_seeds, tmp_path):
    results = tmp_path / "results"
    paper = {"count_accuracy": 0.985}
    results_table.record(three_seeds, "", "mnist", "M|N", "a|b", paper, results=results)
    results_table.record(one_seed, "", "", "AIR", results=results)
    page = results_table.render(PAGE, results_table.read_results(results))
    assert page == (
        "# Results\n\n<!-- results:begin -->\n## air\n\n"
        "| result | count accuracy | kl | success rate | steps | seeds | time | machine | command |\n"
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |\n"
        f"| AIR | 0.9875 (1) | – | – | 6,000 | 3 | 3.0 min, training 2.5 min | 2 CPU cores | `{COMMAND}` |\n"
        "| M\\|N (`mnist`) | 0.9800 ± 0.0100 (3), paper 0.9850 | not finite (3) | 2 of 3 | 6,000 | 0-2 | 3.0 min | "
        "2 CPU cores | `x` |\n\n"
        "- M|N: a|b\n<!-- results:end -->\n\nend\n"
    )
    assert results_table.render(page, results_table.read_results(results)) == page


def test_a_study_that_brings_its_own_table(one_seed, tmp_path):
    (one_seed / "table.md").write_text("| a |\n| --- |\n| 1 |\n\n")
    results_table.record(one_seed, "gmm", "", "GMM", "hard", results=tmp_path / "results")
    page = results_table.tables(results_table.read_results(tmp_path / "results"))
    assert page == (
        "## gmm\n\n"
        "| result | steps | seeds | time | machine | command |\n"
        "| --- | --- | --- | --- | --- | --- |\n"
        f"| GMM | 6,000 | 3 | 3.0 min, training 2.5 min | 2 CPU cores | `{COMMAND}` |\n\n"
        "- GMM: hard\n\n"
        "### GMM\n\n| a |\n| --- |\n| 1 |\n"
    )


@pytest.mark.parametrize(
    "value, shown", [(0.98765, "0.9877"), (-0.5, "-0.5000"), (12.345, "12.35"), (663.21, "663.2"), (6784.8, "6784.8")]
)
def test_number(value, shown):
    assert results_table._number(value) == shown


@pytest.mark.parametrize("seconds, shown", [(42, "42 s"), (181.3, "3.0 min"), (7200, "2.0 h")])
def test_duration(seconds, shown):
    assert results_table._duration(seconds) == shown


@pytest.mark.parametrize("seeds, shown", [([0], "0"), ([4, 5], "4, 5"), ([0, 1, 2], "0-2"), ([0, 2, 4], "0, 2, 4")])
def test_seeds(seeds, shown):
    assert results_table._seeds(seeds) == shown


def test_command_line_records_writes_and_checks(one_seed, tmp_path, capsys):
    readme, paths = tmp_path / "README.md", {"results": tmp_path / "results", "readme": tmp_path / "README.md"}
    readme.write_text(PAGE)
    record = ["--record", str(one_seed), "--variant=x", "--title=AIR", "--paper=count_accuracy=0.985"]
    assert results_table.main(["--check"], **paths) == 1  # 'old' between the markers
    assert results_table.main(record, **paths) == 0
    assert "0.9875 (1), paper 0.9850" in readme.read_text()
    assert results_table.main(["--check"], **paths) == 0
    next(paths["results"].iterdir()).unlink()
    capsys.readouterr()
    assert results_table.main(["--check"], **paths) == 1
    assert capsys.readouterr().err == f"{readme} is out of date: run 'make results' and commit it\n"


def test_mistakes_are_one_line_that_says_how_to_mend_it(one_seed, tmp_path, capsys):
    readme, paths = tmp_path / "README.md", {"results": tmp_path / "results", "readme": tmp_path / "README.md"}
    readme.write_text(PAGE)

    def error(*argv):
        assert results_table.main(list(argv), **paths) == 2
        message = capsys.readouterr().err
        assert message.count("\n") == 1
        return message

    assert "config.json does not exist" in error("--record", str(tmp_path), "--title=y")
    assert "--title" in error("--record", str(one_seed))
    assert "becomes a file name" in error("--record", str(one_seed), "--title=y", "--variant=a/b")
    assert "should read FIGURE=VALUE" in error("--record", str(one_seed), "--title=y", "--paper=0.9")
    (one_seed / "eval.json").write_text("{}")
    assert "eval.json lacks figures, seeds, steps, " in error("--record", str(one_seed), "--title=y")
    (one_seed / "eval.json").unlink()
    assert "not finished" in error("--record", str(one_seed), "--title=y")
    paths["results"].mkdir(exist_ok=True)
    (paths["results"] / "air.json").write_text('{"experiment": "air"}')
    assert "air.json lacks command, config" in error("--check")


def test_page_without_markers_is_refused():
    with pytest.raises(UserError, match="results:end"):
        results_table.render(results_table.BEGIN, [])


def test_committed_page_is_up_to_date():
    assert results_table.main(["--check"]) == 0


def test_a_table_of_the_thesis_has_its_rows_above_ours(one_seed, three_seeds, tmp_path, monkeypatch):
    comparison = results_table.Comparison(
        title="Table 1: counting",
        columns={"count_accuracy": "counting", "kl": "KL"},
        thesis={"AIR": (0.9, None)},
        ours=("air_ours", "air_three", "air_of_no_file"),
        note="Said of all.",
    )
    monkeypatch.setattr(results_table, "COMPARISONS", (comparison,))
    results_table.record(one_seed, "", "ours", "AIR here", paper={"count_accuracy": 0.5}, results=tmp_path)
    results_table.record(three_seeds, "", "three", "Three", results=tmp_path)
    table = results_table.tables(results_table.read_results(tmp_path)).split("\n## air")[0]
    assert table.splitlines() == [
        "## Table 1: counting",
        "",
        "|  | counting | KL | steps | seeds | training, each seed |",
        "| --- | --- | --- | --- | --- | --- |",
        "| *AIR, thesis* | 0.9000 | n/a |  |  |  |",
        "| AIR here | 0.9875 (1) | – | 6,000 | 3 | 2.5 min |",
        "| Three | 0.9800 ± 0.0100 (3) | not finite (3) | 6,000 | 0-2 | 60 s |",
        "",
        "Said of all.",
    ]
    monkeypatch.setattr(results_table, "COMPARISONS", (comparison._replace(ours=("air_of_no_file",)),))
    assert results_table.tables(results_table.read_results(tmp_path)).startswith("## air")


def test_results_named_in_tables_of_the_thesis_have_a_figure_for_each_column():
    named = {results_table._name(r["experiment"], r["variant"]): r for r in results_table.read_results()}
    for comparison in results_table.COMPARISONS:
        assert all(len(row) == len(comparison.columns) for row in comparison.thesis.values())
        for name in set(comparison.ours) & set(named):
            missing = set(comparison.columns) - set(named[name]["figures"])
            missing -= {"count_accuracy", "count_accuracy_mode"}  # VRNN does not count, AIR has one way to
            assert not missing, f"{name} lacks {missing}"


def test_seeds_that_were_trained_apart_join_one_result(one_seed, three_seeds, tmp_path):
    figures = {
        seed: {"count_accuracy": a, "kl": k} for seed, (a, k) in enumerate([(0.9, 1), (0.7, 4), (0.95, 2.5), (1, 1)])
    }

    def run(*seeds: int, **config) -> Path:
        evaluation = (
            summarize(seeds, [figures[seed] for seed in seeds], {}, judged=True) | RUN | {"train_seconds": 60.0}
        )
        folder = tmp_path / f"run_{len(list(tmp_path.iterdir()))}"
        return write_run(
            folder,
            evaluation | {"train_seconds": 60.0, "skipped_steps": [7 * seed for seed in seeds]},
            {"experiment": "air", "seeds": list(seeds)} | config,
        )

    one, two = ({"train": {"num_steps": 7, "cpu_devices": number}} for number in (1, 2))  # which does not matter
    results_table.record(run(0, 2, **one), "", "", "AIR", "a note", results=tmp_path)
    results_table.record(run(1, **two), "", "", "", command="both", add=True, results=tmp_path)
    joined = json.loads((tmp_path / "air.json").read_text())
    results_table.record(run(0, 1, 2, **one), "", "", "AIR", "a note", command="both", results=tmp_path)
    at_once = json.loads((tmp_path / "air.json").read_text())
    page = results_table.tables(results_table.read_results(tmp_path))
    for name, figure in at_once["figures"].items():
        of_seeds = joined["figures"][name].pop("each", None)
        assert of_seeds == figure.pop("each", None) and joined["figures"][name] == pytest.approx(figure)
        assert of_seeds == {"count_accuracy": [0.9, 0.7, 0.95], "kl": [1, 4, 2.5]}.get(name)
    assert "- AIR, seed by seed: count accuracy 0.9000, 0.7000, 0.9500\n" in page
    assert joined["skipped_steps"] == [0, 7, 14]
    assert "- AIR: steps that were not finite and were skipped, seed by seed: [0, 7, 14]\n" in page
    twice = {"wall_seconds": 362.6, "train_seconds": 120.0}
    assert {**joined, "figures": 0} == {**at_once, "figures": 0, **twice}

    with pytest.raises(UserError, match=r"the seeds \[1\] are in the result already"):
        results_table.record(run(1, note=0), "", "", "", add=True, results=write_result(tmp_path / "other", note=0))
    for other in ({"model": 1}, {"train": {"num_steps": 8, "cpu_devices": 1}}):
        with pytest.raises(UserError, match=f"of other {min(other)}: only"):
            results_table.record(run(1, **(one | other)), "", "", "", add=True, results=tmp_path)
    study = run(3, **one)
    (study / "table.md").write_text("| of | all seeds |")
    with pytest.raises(UserError, match="a study's own table is of all its seeds"):
        results_table.record(study, "", "", "", add=True, results=tmp_path)
    with pytest.raises(UserError, match="there is no result to add to"):
        results_table.record(one_seed, "", "none", "", add=True, results=tmp_path)


def write_result(folder: Path, **config) -> Path:
    folder.mkdir()
    result = {"config": {"experiment": "air", "seeds": [1]} | config, "seeds": [1], "steps": 6000}
    (folder / "air.json").write_text(json.dumps(result))
    return folder
