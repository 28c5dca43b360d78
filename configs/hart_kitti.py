"""HART on KITTI's tracking data (thesis, section 3.5.2). FOLDER holds image_02 and label_02.

python launch.py --config=configs/hart_kitti.py --config.data.path=FOLDER --workdir=runs/hart_kitti
python launch.py --config=configs/hart_kitti.py:app_att --config.data.path=FOLDER --workdir=runs/app_att
python launch.py --config=configs/hart_kitti.py:spatial_att --config.data.path=FOLDER --workdir=runs/spatial_att
python launch.py --config=configs/hart_kitti.py:ratm --config.data.path=FOLDER --workdir=runs/ratm

Table 3.1 of the thesis: all of HART, without the loss on appearance attention, without both, and its baseline.
AlexNet begins with random weights, or with those of a file: --config.model.v1_weights=FILE. To give RATM the features
that HART learnt, as the thesis does, write them with objcentric.tracker.export_v1("runs/hart_kitti", FILE).
"""

from ml_collections import ConfigDict

from configs import mohart

VARIANTS = ("hart", "app_att", "spatial_att", "ratm")


def get_config(variant: str = "hart") -> ConfigDict:
    """``variant`` is one of `VARIANTS`."""
    if variant not in VARIANTS:
        raise ValueError(f"the variant {variant!r} is unknown: write one of :{', :'.join(VARIANTS)}")
    config = mohart.get_config("hart")
    config.data.update(format="kitti", num_objects=1, frame_size=(188, 621), train_share=0.7, valid_share=0.1)
    config.data.test_frames = 60
    config.model.update(v1="alexnet", glimpse_size=(56, 56), appearance=True, features=100, hidden=100)
    config.task.update(presence_loss=False, blackout=0.0, learn_weights=True)
    config.optimizer.update(name="rmsprop", learning_rate=3.33e-6, decay="constant")
    config.train.update(num_steps=400_000, batch_size=10, eval_every=10_000, checkpoint_every=10_000)
    config.curriculum.steps = tuple(range(13_000, 26 * 13_000, 13_000))  # a frame more each time; the thesis: 13 epochs
    shape(config, variant)
    return config


def shape(config: ConfigDict, variant: str) -> None:
    """Makes HART's config one of its ablations, or of RATM."""
    if variant == "app_att":
        config.task.appearance_loss = False
    if variant == "spatial_att":
        config.model.update(appearance=False, ventral=True)
        config.task.attention_loss = False
    if variant == "ratm":
        config.model.update(tracker="ratm", appearance=False, ventral=True)
