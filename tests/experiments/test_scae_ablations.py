import numpy as np
import pytest
from ml_collections import ConfigDict

from configs import scae_ablations as configs
from experiments import scae, scae_ablations
from objcentric.errors import UserError
from objcentric.training import study
from tests.experiments import labelled_images
from tests.training import linear


def flat(config, prefix=""):
    """Names of all fields, dotted."""
    return {
        name: value
        for key, each in config.items()
        for name, value in (
            flat(each, f"{prefix}{key}.") if isinstance(each, ConfigDict) else {f"{prefix}{key}": each}
        ).items()
    }


def make_config(**fields):
    config = configs.get_config()
    config.seeds, config.ablations = (3, 4), ("full", "no_special_features")
    config.runs.embedded = labelled_images.make_config(train__num_steps=2, evaluate__affine=True)
    del config.runs.embedded.seeds
    config.update(fields)
    return config


@pytest.mark.parametrize("variant", configs.VARIANTS)
def test_the_config_has_all_rows_and_each_changes_fields_that_there_are(variant):
    config = configs.get_config(variant)
    assert config.ablations == tuple(scae_ablations.THESIS)
    assert list(config.runs) == (["mnist", "mnist40"] if "mnist" in variant else ["embedded"])  # as the thesis' columns
    assert not any(run.data.train_on_all for run in config.runs.values())
    for data in config.runs:
        runs = {name: scae_ablations.run_config(config, data, name) for name in config.ablations}
        assert all(run.seeds == config.seeds for run in runs.values())
        assert len({run.to_json() for run in runs.values()}) == len(runs) == 13
        fields = {tuple(sorted(flat(run))) for run in runs.values()}
        assert len(fields) == 1  # none has a field of its own, which nothing would read
    with pytest.raises(ValueError, match="write one of :embedded, :short, :mnist"):
        configs.get_config("all")


def test_the_study(tmp_path, monkeypatch):
    """Of runs that have the figures of `scae`, which has tests of its own."""

    def build(config):
        right = 0.5 + 0.01 * config.model.special_features
        return linear.measuring(config, {"posterior_lin_match": right, "affine_posterior_lin_match": right - 0.1})

    monkeypatch.setattr(scae, "build", build)
    figures = study.run(make_config(), tmp_path, scae_ablations.study)
    names = {f"embedded{affine}/{name}" for affine in ("", "_affine") for name in make_config().ablations}
    assert set(figures["figures"]) == names and figures["seeds"] == [3, 4]
    header, _, full, _ = (tmp_path / "table.md").read_text().splitlines()
    assert header == "| ablation | embedded | embedded_affine | thesis: MNIST | 40x40 MNIST | affNIST |"
    special = make_config().runs.embedded.model.special_features
    assert figures["figures"]["embedded/full"]["mean"] == pytest.approx(0.5 + 0.01 * special)
    assert full.startswith(f"| full | {50 + special:.1f} (0.0) | {40 + special:.1f} (0.0)")
    assert (tmp_path / "embedded_no_special_features" / "eval.json").exists()


def test_an_ablation_that_diverges_does_not_stop_the_others(tmp_path, monkeypatch, capsys):
    def build(config):
        if not config.model.special_features:
            return linear.build(config, bad=lambda params, step: True)
        return linear.measuring(config, {"posterior_lin_match": 0.5})

    monkeypatch.setattr(scae, "build", build)
    config = make_config()
    config.runs.embedded.train.num_steps = 40
    figures = study.run(config, tmp_path / "some", scae_ablations.study)
    assert set(figures["figures"]) == {"embedded/full"}
    full, without = (tmp_path / "some" / "table.md").read_text().splitlines()[2:]
    assert full.startswith("| full | 50.0 (0.0) |") and without.startswith("| no special features | diverged |")
    assert "embedded_no_special_features: loss or gradient is not finite" in capsys.readouterr().err
    config.ablations = ("no_special_features",)
    with pytest.raises(UserError, match="all have diverged"):
        study.run(config, tmp_path / "none", scae_ablations.study)


def test_the_table():
    config = make_config()
    per_seed = [{"embedded/full": 0.9, "embedded/no_special_features": v} for v in (0.4, 0.6)]
    full, without = scae_ablations.table(config, per_seed).splitlines()[2:]
    assert full == "| full | 90.0 (0.0) | 97.0 (.87) | 98.5 (.1) | 92.2 (.59) |"
    assert without.startswith(f"| no special features | 50.0 ({100 * np.std([0.4, 0.6], ddof=1):.1f}) | 63.1 (10.55)")
    assert set(scae_ablations.ABLATIONS) - set(scae_ablations.THESIS) == {"release_mask"}
    config.ablations = ("release_mask",)
    assert scae_ablations.table(config, [{"embedded/release_mask": 0.7}]).endswith("| 70.0 (0.0) | – | – | – |\n")


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"ablations": ("full", "no_data")}, "use some of full, no_posterior"),
        ({"ablations": ()}, r"ablations=\(\): use some"),
        ({"figure": "lin_match"}, "figure='lin_match' is unknown: use one of prior_max_act"),
    ],
)
def test_what_makes_no_sense_is_refused(fields, said):
    with pytest.raises(UserError, match=said):
        scae_ablations.check(make_config(**fields))
