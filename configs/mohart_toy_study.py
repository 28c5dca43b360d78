"""Figure 4.5 of the thesis: ways of telling trackers of one another, in toy worlds of random identities.

python launch.py --config=configs/mohart_toy_study.py --workdir=runs/mohart_toy_study
python launch.py --config=configs/mohart_toy_study.py:lengths --workdir=runs/mohart_toy_lengths
python launch.py --config=configs/mohart_toy_study.py:randomness --workdir=runs/mohart_toy_randomness

The first is both panels, the others are one each. Every variant is trained with every randomness in a run's folder of
its own; those that are finished are not done again.
"""

from ml_collections import ConfigDict

from configs import mohart_toy

PANELS = ("both", "lengths", "randomness")


def get_config(panel: str = "both") -> ConfigDict:
    """``panel`` is one of `PANELS`."""
    if panel not in PANELS:
        raise ValueError(f"the panel {panel!r} is unknown: write one of :{', :'.join(PANELS)}")
    config = ConfigDict()
    config.experiment = "mohart_toy_study"  # module of experiments/ that holds the study
    config.seeds = (0,)
    config.relations = ("none", "mlp", "max", "attention")  # trained with randomness 1 (left panel); () leaves it out
    config.randomness = (0.0, 0.25, 0.5, 0.75, 1.0)  # of the worlds in which those below are trained (right panel)
    config.compared = ("none", "attention")  # () leaves the right panel out
    config.lengths = (5, 10, 15, 20, 25, 30)  # of the sequences tested on; trackers are trained on the run's num_frames
    config.run = mohart_toy.get_config("identities")  # of every one, but for relation and randomness
    del config.run.seeds
    if panel == "lengths":
        config.compared = ()
    if panel == "randomness":
        config.relations = ()
    return config
