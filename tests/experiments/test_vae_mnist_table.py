"""The table of eight objectives, from eval.json's made up so that their figures are the thesis'."""

import io
import json

import numpy as np
import pytest

from configs import vae_mnist_table as configs
from experiments import vae_mnist, vae_mnist_table
from objcentric.errors import UserError

COLUMNS = vae_mnist_table.COLUMNS
SPREAD = np.array([-1, 1, 1, -1]) * np.sqrt(3) / 2  # mean 0, sample standard deviation 1


def make_result(iwae, log_p, minus_kl, seeds=4):
    """An eval.json whose metrics have these means and standard deviations."""
    per_seed = [
        {
            "seed": s,
            "iwae_64": iwae[0] + iwae[1] * SPREAD[s],
            "log_p": log_p[0] + log_p[1] * SPREAD[s],
            "kl": -minus_kl[0] - minus_kl[1] * SPREAD[s],
            "ess": 0.25,
            "ess_histogram": [1, 2] + [0] * (vae_mnist.ESS_BINS - 2),
        }
        for s in range(seeds)
    ]
    return {
        "per_seed": per_seed,
        "seeds": list(range(seeds)),
        "steps": 6000,
        "train_seconds": 240.0,
        "num_examples": 500,
        "failures": {},
    }


def thesis(**changes):
    """The thesis' own figures, by column; ``changes`` replace some columns' results."""
    return {name: make_result(column.iwae, column.log_p, column.minus_kl) for name, column in COLUMNS.items()} | changes


def make_rows(seeds=4):
    """Rows of metrics.jsonl: one of training, two of validation."""

    def each(value):
        values = [value(s) for s in range(seeds)]
        return values if seeds > 1 else values[0]

    return [{"step": 1, "loss": each(float)}] + [
        {
            "step": step,
            "valid/iwae_64": each(lambda s, step=step: -100.0 + step + s),
            "valid/log_p": each(lambda s, step=step: -99.0 + step + s),
            "valid/kl": each(lambda s: 1.0 + s),
            "valid/snr_weights": each(lambda s, step=step: [[step * (layer + 1 + s)] * 20 for layer in range(4)]),
        }
        for step in (10, 20)
    ]


def test_the_columns_are_the_thesis():
    """Each has a budget of 64 weights, and -KL is the difference of the two bounds, as rounded."""
    config = configs.get_config()
    assert tuple(configs.get_config().columns) == tuple(COLUMNS)
    for name, column in COLUMNS.items():
        c = vae_mnist_table.column_config(config, name).objective
        assert c.num_particles == 64 and c.name == column.objective["name"]
        assert abs(column.iwae[0] - column.log_p[0] - column.minus_kl[0]) < 0.02
        if c.name in ("piwae", "miwae"):
            assert column.label.endswith(f"({c.num_groups}, {64 // c.num_groups})")
        if c.name == "ciwae":
            assert column.label.endswith(f"= {c.beta}")
    assert config.run.objective.name == "iwae"  # no column's objective has stayed in the common config


def test_the_table_of_the_thesis_itself():
    """Our rows equal the thesis', what is bold there is marked here, and all its orderings hold."""
    text = vae_mnist_table.table(thesis(), 64)
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines() if line.startswith("|")]
    assert rows[0] == ["", *(column.label for column in COLUMNS.values())]
    for ours, theirs in ((2, 3), (4, 5), (6, 7)):
        assert [cell.strip("*") for cell in rows[ours][1:]] == rows[theirs][1:]
    best = {
        row[0]: [name for name, cell in zip(COLUMNS, row[1:], strict=True) if cell.startswith("**")]
        for row in rows[2:7:2]
    }
    assert list(best.values()) == [["miwae_4_16"], ["piwae_4_16"], ["vae"]]
    close = [name for name, cell in zip(COLUMNS, rows[4][1:], strict=True) if cell.startswith("*")]
    assert close == ["iwae", "piwae_4_16", "piwae_8_8", "miwae_4_16", "ciwae_0.05"]
    assert rows[8][1] == "0.250 ± 0.000" and rows[9][1] == "100.0"
    assert "6,000 steps, 4 seeds, 500 test images" in text
    said = [line for line in text.splitlines() if line.startswith("- ")]
    assert len(said) == 3
    for line in said:
        hold, of = line.split(": ", 1)[1].split(" hold")[0].split(" of ")
        assert hold == of and int(of) > 15 and ";" not in line


def test_orderings_that_do_not_hold_are_named():
    iwae = COLUMNS["iwae"]
    results = thesis(vae=make_result((-80, 0.01), (-80, 0.01), (-1.59, 0.10)))
    text = vae_mnist_table.table(results, 64)
    of_bound, of_evidence, of_divergence = (line for line in text.splitlines() if line.startswith("- "))
    assert "other way round" in of_bound and "IWAE > VAE" in of_bound and "not told apart" not in of_bound
    assert "PIWAE (4, 16) > VAE" in of_evidence.split("the other way round: ")[1]
    assert "VAE > IWAE" in of_divergence.split("not told apart: ")[1].split(";")[0]
    found = vae_mnist_table.orderings("minus_kl", vae_mnist_table.gather(results, 64)["minus_kl"])
    assert ("vae", "iwae") in found.unclear and ("vae", "miwae_8_8") in found.reversed
    assert iwae.minus_kl[0] == -1.59


def test_one_seed_tells_nothing_apart():
    results = {name: make_result(c.iwae, c.log_p, c.minus_kl, seeds=1) for name, c in COLUMNS.items()}
    found = vae_mnist_table.orderings("log_p", vae_mnist_table.gather(results, 64)["log_p"])
    assert not found.hold and not found.reversed and found.unclear
    assert "± 0.00" in vae_mnist_table.table(results, 64)


@pytest.mark.parametrize("seeds", [4, 1])
def test_a_study_of_finished_runs(seeds, monkeypatch, tmp_path):
    """Every column is run in its folder with its objective; out come figures of each seed, the table, all pictures."""
    config = configs.get_config()
    config.seeds = tuple(range(seeds))
    ran = {}

    def run(config, folder, build):
        assert build is vae_mnist.build
        folder.mkdir()
        (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in make_rows(seeds)))
        ran[folder.name] = config.objective.to_dict()
        assert config.seeds == tuple(range(seeds))
        column = COLUMNS[folder.name]
        return make_result(column.iwae, column.log_p, column.minus_kl, seeds)

    monkeypatch.setattr(vae_mnist_table.loop, "run", run)
    result = vae_mnist_table.study(config, tmp_path)
    per_seed, pictures = list(result.per_seed.values()), result.pictures
    assert ran.keys() == COLUMNS.keys()
    assert ran["piwae_4_16"]["num_groups"] == 4 and ran["ciwae_0.05"]["beta"] == 0.05 and ran["vae"]["name"] == "elbo"
    assert len(per_seed) == seeds and len(per_seed[0]) == 5 * 8
    means = {name: np.mean([figures[name] for figures in per_seed]) for name in per_seed[0]}
    if seeds == 4:
        assert means["log_p/vae"] == pytest.approx(-86.21) and means["minus_kl/iwae"] == pytest.approx(-1.59)
    assert means["steps_per_second/vae"] == pytest.approx(6000 * seeds / 240)
    assert "| IWAE-64 |" in (tmp_path / "table.md").read_text()
    names = {"convergence", "convergence_tighter", "snr", "snr_tighter", "relative", "ess"}
    assert pictures.keys() == names
    for figure in pictures.values():
        figure.savefig(file := io.BytesIO())
        assert file.tell() > 5000
    lines = pictures["convergence"].axes[1].get_lines()
    assert [line.get_label() for line in lines] == ["IWAE", "PIWAE (8, 8)", "MIWAE (8, 8)", "CIWAE β = 0.5", "VAE"]
    np.testing.assert_allclose(lines[0].get_xydata(), [[10, -89 + (seeds - 1) / 2], [20, -79 + (seeds - 1) / 2]])
    ratios = pictures["snr"].axes[3].get_lines()[0].get_ydata()
    np.testing.assert_allclose(ratios, np.array([10, 20]) * (4 + (seeds - 1) / 2))
    dots = np.float64(
        pictures["relative"].axes[0].containers[0][0].get_ydata()
    )  # MIWAE, of IWAE-64: the first is IWAE itself
    if seeds == 4:
        np.testing.assert_allclose(dots, [0, 0.51, 0.42, -0.58], atol=1e-9)


def test_some_columns(monkeypatch, tmp_path):
    config = configs.get_config()
    config.columns = ("vae", "nonsense")
    with pytest.raises(UserError, match="nonsense"):
        vae_mnist_table.study(config, tmp_path)
    config.columns = ("iwae", "piwae_4_16", "piwae_8_8")
    config.run.objective.num_particles = 20
    with pytest.raises(UserError, match="run.objective.num_particles=20: 'piwae_8_8' needs a multiple of 8"):
        vae_mnist_table.study(config, tmp_path)
    assert not any(tmp_path.iterdir())
    results = {name: result for name, result in thesis().items() if name in ("vae", "miwae_8_8")}
    rows = dict.fromkeys(results, make_rows())
    assert "relative" not in vae_mnist_table.pictures(results, rows, 64)  # without IWAE, to nothing
    assert len(vae_mnist_table.pictures(results, rows, 64)["convergence"].axes) == 3
    rest = {name: thesis()[name] for name in ("piwae_4_16", "miwae_4_16")}  # figure 7.5.1 has none of these
    drawn = vae_mnist_table.pictures(rest, dict.fromkeys(rest, make_rows()), 64)
    assert drawn.keys() == {"convergence_tighter", "snr_tighter", "ess"}


def test_failures_are_named():
    """A seed that gave up, and one whose figures are none."""
    failed = make_result((-80, 0.01), (-80, 0.01), (-1.59, 0.10))
    failed["failures"] = {"2": "non-finite at step 30"}
    failed["per_seed"][1] |= {"iwae_64": None, "kl": None}
    results = thesis(vae=failed)
    text = vae_mnist_table.table(results, 64)
    assert "Seeds that failed, with the figures of their last good step: VAE, seed 2, non-finite at step 30." in text
    assert "Seeds that failed" not in vae_mnist_table.table(thesis(), 64)
    assert np.isnan(vae_mnist_table.gather(results, 64)["minus_kl"]["vae"]).tolist() == [False, True, False, False]
    pictures = vae_mnist_table.pictures(results, dict.fromkeys(results, make_rows()), 64)
    pictures["relative"].savefig(io.BytesIO())
