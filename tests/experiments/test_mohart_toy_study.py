import numpy as np
import pytest

from configs import mohart_toy_study as configs
from experiments import hart, mohart_toy_study
from objcentric import plots_tracking
from objcentric.errors import UserError
from objcentric.training import study
from tests.experiments import videos
from tests.training import linear


def make_config(**fields):
    config = configs.get_config()
    config.relations, config.randomness, config.compared = ("none", "max"), (0.0, 1.0), ("none",)
    config.lengths = (2, 4, 6)
    one_stage = {"curriculum__first_frames": 4, "curriculum__steps": ()}
    config.run = videos.make_toy(train__num_steps=3, evaluate__num_pictures=1, **one_stage)
    del config.run.seeds
    config.update(fields)
    return config


def test_every_variant_is_trained_once():
    assert mohart_toy_study.variants(make_config()) == [("none", 1.0), ("max", 1.0), ("none", 0.0)]
    whole = mohart_toy_study.variants(configs.get_config())
    assert len(whole) == len(set(whole)) == 4 + 2 * 5 - 2


def test_panels_by_themselves():
    lengths, randomness = configs.get_config("lengths"), configs.get_config("randomness")
    assert [r for _, r in mohart_toy_study.variants(lengths)] == [1.0] * 4
    assert {relation for relation, _ in mohart_toy_study.variants(randomness)} == {"none", "attention"}
    assert len(mohart_toy_study.variants(randomness)) == 10
    with pytest.raises(ValueError, match="write one of :both, :lengths, :randomness"):
        configs.get_config("left")


@pytest.mark.parametrize(("fields", "panel"), [({"compared": ()}, "length"), ({"relations": ()}, "randomness")])
def test_a_picture_of_one_panel(fields, panel):
    seed = {"iou_by_length/none": [0.1] * 3, "iou_by_length/max": [0.2] * 3}
    seed |= {f"{name}{r}": 0.3 for name in ("iou/none_", "static/", "momentum/") for r in (0, 1)}
    drawn = mohart_toy_study.panels(make_config(**fields), [seed])
    (axes,) = plots_tracking.accuracy(drawn).axes
    assert panel in axes.get_xlabel()


def test_a_table():
    curves = {"HART": [[0.1, 0.25], [0.2, 0.35]], "static": [[0.3, 0.3], [0.3, 0.3]]}
    page = mohart_toy_study.table({"randomness": ((0.0, 0.5), curves), "sequence length": ((5,), {"MLP": [[1.0]]})})
    randomness = "| randomness | 0 | 0.5 |\n| --- | --- | --- |\n| HART | 0.150 | 0.300 |\n| static | 0.300 | 0.300 |\n"
    assert page == randomness + "\n| sequence length | 5 |\n| --- | --- |\n| MLP | 1.000 |\n"


def test_a_run_of_a_variant_has_its_fields():
    run = mohart_toy_study.run_config(make_config(seeds=(3, 4)), "max", 0.25)
    assert (run.model.relation, run.data.randomness, run.seeds) == ("max", 0.25, (3, 4))


def test_the_study(tmp_path, monkeypatch):
    """Of runs that have the figures of `hart`, which has tests of its own."""

    def build(config):
        iou = 0.5 + 0.1 * config.data.randomness + 0.2 * (config.model.relation == "max")
        figures = {"mean_iou": iou, "static_iou": 0.3, "momentum_iou": 0.4, "iou_t": [1.0, *[iou] * 5]}
        return linear.measuring(config, figures)

    monkeypatch.setattr(hart, "build", build)
    config = make_config()
    figures = study.run(config, tmp_path, mohart_toy_study.study)
    expected = {"iou/none_1": 0.6, "iou/max_1": 0.8, "iou/none_0": 0.5, "static/1": 0.3, "momentum/0": 0.4}
    assert {name: figures[name] for name in expected} == pytest.approx(expected) and "iou/max_0" not in figures
    assert figures["iou_by_length/max"] == pytest.approx([0.8] * 3)
    run = (tmp_path / "none_1" / "eval.json").read_text()
    assert (tmp_path / "figures" / "figure_4_5.png").exists() and '"mean_iou"' in run
    assert "| max-pool | 0.800 | 0.800 | 0.800 |" in (tmp_path / "table.md").read_text()


def test_length_counts_frames_from_the_second_one():
    seed = {"iou_t": [1.0, 0.8, 0.6, 0.4, 0.2, 0.0], "mean_iou": 0.6, "static_iou": 0.3, "momentum_iou": 0.4}
    figures = mohart_toy_study.figures_of(make_config(), {("max", 1.0): [seed]}, 0)
    np.testing.assert_allclose(figures["iou_by_length/max"], [0.8, 0.6, 0.4])


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"relations": ("none", "gossip")}, "use some of none, attention, max, mlp"),
        ({"compared": ("gossip",)}, "use some of none, attention, max, mlp"),
        ({"relations": (), "compared": ()}, "leave nothing to train"),
        ({"randomness": (0.0, 1.5)}, r"use some within \[0, 1\]"),
        ({"lengths": (2, 7)}, "use some from 2 to run.evaluate.num_frames=6"),
    ],
)
def test_what_makes_no_sense_is_refused(fields, said):
    with pytest.raises(UserError, match=said):
        mohart_toy_study.check(make_config(**fields))
