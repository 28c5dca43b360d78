"""Table 7.5.1 of the thesis: Burda's VAE on binarised MNIST, trained with eight objectives over four seeds.

python launch.py --config=configs/vae_mnist_table.py --workdir=runs/vae_mnist_table
python launch.py --config=configs/vae_mnist_table.py:full --workdir=runs/vae_mnist_table_full

The folder gets table.md, pictures, and a run's folder a column. The same command again goes on where it was stopped.
The second command is the paper's schedule.
"""

from ml_collections import ConfigDict

from configs import vae_mnist


def get_config(schedule: str = "short") -> ConfigDict:
    """``schedule`` as in configs/vae_mnist.py."""
    config = ConfigDict()
    config.experiment = "vae_mnist_table"  # module of experiments/ that holds the study
    config.columns = (  # those of the table that are trained
        "iwae",
        "piwae_4_16",
        "piwae_8_8",
        "miwae_4_16",
        "miwae_8_8",
        "ciwae_0.05",
        "ciwae_0.5",
        "vae",
    )
    config.seeds = (0, 1, 2, 3)
    config.run = vae_mnist.get_config(schedule)  # of every column, but for what its objective sets
    del config.run.seeds
    return config
