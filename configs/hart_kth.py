"""HART on people who walk, jog and run, in KTH (thesis, section 3.5.1).

FOLDER holds the avi files, KTH's sequences.txt, and a file of boxes: see objcentric.data.kth.

python launch.py --config=configs/hart_kth.py --config.data.path=FOLDER --workdir=runs/hart_kth
python launch.py --config=configs/hart_kth.py:ratm --config.data.path=FOLDER --workdir=runs/ratm_kth

The thesis leaves out one person at a time: --config.data.test_videos="('person01_*',)"
"""

from ml_collections import ConfigDict

from configs import hart_kitti, mohart


def get_config(variant: str = "hart") -> ConfigDict:
    """``variant`` as in configs/hart_kitti.py."""
    if variant not in hart_kitti.VARIANTS:
        raise ValueError(f"the variant {variant!r} is unknown: write one of :{', :'.join(hart_kitti.VARIANTS)}")
    config = mohart.get_config("hart")
    config.data.update(format="kth", num_objects=1, frame_size=(120, 160), grey=True)
    config.data.kinds = ("walking", "jogging", "running")  # a kind is an action
    config.data.test_frames = 60
    config.model.update(glimpse_size=(28, 28), appearance=True, features=100, hidden=100)
    config.task.update(presence_loss=False, blackout=0.0, learn_weights=True)
    config.optimizer.update(name="rmsprop", learning_rate=3.33e-5, decay="constant")
    config.train.update(num_steps=100_000, batch_size=10, eval_every=5_000, checkpoint_every=5_000)
    config.curriculum.steps = tuple(range(3_000, 26 * 3_000, 3_000))  # a frame more each time; ours
    hart_kitti.shape(config, variant)
    return config
