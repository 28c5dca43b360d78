"""AIR on scenes of 0 to 2 real handwritten digits (scikit-learn's), no download needed.

python launch.py --config=configs/air.py --workdir=runs/air
"""

from configs import base


def get_config():
    return base.get_config()
