"""SQAIR on sequences of 0 to 2 moving MNIST digits (thesis, section 5.4.1), read as configs/air_mnist.py does.

python launch.py --config=configs/sqair_mnist.py --workdir=runs/sqair_mnist
python launch.py --config=configs/sqair_mnist.py:any_time --workdir=runs/sqair_mnist_any_time
python launch.py --config=configs/sqair_mnist.py:conv --workdir=runs/sqair_mnist_conv
python launch.py --config=configs/sqair_mnist.py:paper --workdir=runs/sqair_mnist_paper
python launch.py --config=configs/sqair_mnist.py:conv_paper --workdir=runs/sqair_mnist_conv_paper
python launch.py --config=configs/sqair_mnist.py:released --workdir=runs/sqair_mnist_released
"""

from ml_collections import ConfigDict

from configs import sqair


def get_config(variant: str = "fast") -> ConfigDict:
    """``variant`` as in configs/sqair.py."""
    config = sqair.get_config(variant)
    config.data.update(source="mnist", object_size=(20, 20))
    config.model.object_size = (20.0, 20.0)
    if variant in ("fast", "any_time"):
        config.data.num_train = 40_000
        config.train.num_steps = 12_000
    if variant == "fast":
        config.curriculum.steps = (2_000, 4_000)
    return config
