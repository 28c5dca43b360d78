"""Digits in front of structured backgrounds, with a component that explains the background (notes 2017-12, section 7).

python launch.py --config=configs/air_background.py --workdir=runs/air_background
python launch.py --config=configs/air_background.py --config.model.background=none --workdir=runs/air_no_background
"""

from configs import base


def get_config():
    config = base.get_config()
    config.data.background = "structured"
    config.model.background = "mlp"
    return config
