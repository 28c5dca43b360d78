"""Table 6.3.2 of the thesis: SCAEs without some of their components.

python launch.py --config=configs/scae_ablations.py:short --workdir=runs/scae_ablations_short
python launch.py --config=configs/scae_ablations.py --workdir=runs/scae_ablations
python launch.py --config=configs/scae_ablations.py:mnist --workdir=runs/scae_ablations_mnist
python launch.py --config=configs/scae_ablations.py:mnist_thesis --workdir=runs/scae_ablations_thesis

'embedded' is on scikit-learn's digits, and on these transformed as in affNIST; 'mnist' on MNIST and its 40x40 version,
and on the latter's transformed digits in place of affNIST, which --config.runs.mnist40.evaluate.affnist=FOLDER adds.
'short' is 'embedded' with fewer steps and one seed.
'mnist_thesis' and 'mnist_release' are the same with the presets of configs/scae.py, and want an accelerator.

Every ablation is trained in a run's folder of its own; those that are finished are not done again. Some differ by 6 to
23 points from seed to seed: five seeds or more tell something. 13 rows with five seeds each are 65 runs for each data
set, days of a CPU core. --config.ablations='("full","no_noise")' does some of them; 'release_mask' is one more.
"""

from ml_collections import ConfigDict

from configs import scae

VARIANTS = {  # data, and the preset of configs/scae.py, if any
    "embedded": (("embedded",), ""),
    "short": (("embedded",), ""),
    "mnist": (("mnist", "mnist40"), ""),
    "mnist_thesis": (("mnist", "mnist40"), "_thesis"),
    "mnist_release": (("mnist", "mnist40"), "_release"),
}


def get_config(variant: str = "embedded") -> ConfigDict:
    """``variant`` is one of `VARIANTS`."""
    if variant not in VARIANTS:
        raise ValueError(f"the variant {variant!r} is unknown: write one of :{', :'.join(VARIANTS)}")
    config = ConfigDict()
    config.experiment = "scae_ablations"  # module of experiments/ that holds the study
    config.seeds = (0, 1, 2, 3, 4)
    config.ablations = (  # rows of the table, in its order
        "full",
        "no_posterior_sparsity",
        "no_prior_sparsity",
        "no_sparsity",
        "no_object_noise",
        "no_noise",
        "no_part_noise",
        "similarity",
        "no_deformations",
        "linear_encoder",
        "conv_encoder",
        "mlp_objects",
        "no_special_features",
    )
    config.figure = "posterior_lin_match"  # of a run, that is compared (thesis: LIN-MATCH)
    config.runs = ConfigDict()  # of every data set the config of all its runs, but for what an ablation changes
    names, preset = VARIANTS[variant]
    for name in names:
        config.runs[name] = scae.get_config(name + preset)
        config.runs[name].data.train_on_all = False  # what is compared are figures of test images, also in the thesis
        del config.runs[name].seeds
    if "embedded" in config.runs:
        config.runs.embedded.evaluate.affine = True
    if variant == "short":
        config.seeds = (0,)
        config.runs.embedded.curriculum.parts_alone = 12_000
        config.runs.embedded.train.num_steps = 15_000
    return config
