"""AIR on scenes of 0 to 2 MNIST digits. The four idx files are read from $OBJCENTRIC_DATA/mnist, or downloaded.

python launch.py --config=configs/air_mnist.py --workdir=runs/air_mnist
"""

from configs import base


def get_config():
    config = base.get_config()
    config.data.source = "mnist"
    config.data.object_size = (18, 24)
    config.data.num_train = 60_000
    config.model.object_size = 21.0
    config.train.num_steps = 3_500
    return config
