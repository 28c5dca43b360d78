"""SQAIR on people who walk past a static camera (thesis, section 5.4.2 and appendix 5.E).

FOLDER is that of a sequence of MOTChallenge, such as PETS09-S2L1 of 2D MOT 2015, whose boxes tell how well people are
counted and tracked; or a video, or a folder of its frames. It needs OpenCV: pip install 'objcentric[video]'

python launch.py --config=configs/sqair_pedestrians.py --config.data.path=FOLDER --workdir=runs/sqair_pedestrians
python launch.py --config=configs/sqair_pedestrians.py:paper --config.data.path=FOLDER --workdir=runs/pedestrians_paper

Sizes suit PETS09-S2L1 (7 frames a second) in any copy; for another camera choose data.frame_size and model.object_size
so that people are some 27 pixels tall, and data.frame_step so that they walk some 3 pixels from a frame to the next.

'paper' has the layers of appendix 5.E but 1.67M parameters, not its 3.5M. Strides of (2, 2, 1, 1), those of the paper's
CONV-SQAIR, would make it 3.35M, so it is probably the appendix's (2, 2, 2, 1) that do not fit.
"""

from ml_collections import ConfigDict

from configs import sqair


def get_config(variant: str = "fast") -> ConfigDict:
    """``variant`` is 'fast', a recipe for two CPU cores, or 'paper', model and training of the paper."""
    if variant not in ("fast", "paper"):
        raise ValueError(f"the variant {variant!r} is unknown: write :fast or :paper")
    config = sqair.get_config("conv_paper" if variant == "paper" else "fast")
    config.data = data()
    config.model.update(object_size=(27.0, 10.0), glimpse_size=(28, 12))  # medians of PETS09-S2L1; the paper's glimpse
    # People come at any time, and those who are less than half in view no longer count.
    config.model.reach = 1.0
    config.model.rediscovery_factor.update(start=1.0, end=1.0)
    config.evaluate.given_frames = 4
    config.evaluate.addition_steps = 0  # there are no digits to add
    if variant == "paper":
        config.model.update(encoder_features=(16, 32, 64, 64), encoder_strides=(2, 2, 2, 1))
        config.model.update(decoder_features=(64, 64), decoder_strides=(2, 2), decoder_hidden=128)
        config.curriculum.steps = (100_000, 200_000)
        config.train.num_steps = 315_000
        config.data.update(num_train=3_150, num_valid=350)
    return config


def data() -> ConfigDict:
    c = ConfigDict()
    c.name = "pedestrians"
    c.path = ""  # folder of a MOTChallenge sequence (with seqinfo.ini, and gt/gt.txt to evaluate), a video, or a folder
    # of its frames, numbered
    c.cache_dir = ""  # prepared crops; '' means $OBJCENTRIC_CACHE, else ~/.cache/objcentric
    c.frame_size = (192, 256)  # height and width that frames are made smaller to, pixels (the paper: 175, 240)
    c.canvas = (64, 64)  # and of a crop of the smaller frames
    c.num_frames = 5  # T, length of a sequence
    c.frame_step = 2  # frames of the video from one of a sequence to the next; 1: every frame
    c.invert = True  # whether to invert the colours: people, dark on light, become bright
    c.history = 500  # frames the background is learnt from; what stands still for a tenth of them becomes part of it
    c.min_objects = 1  # people in the fullest frame of a sequence, at least; 0: empty crops, too, which are most
    c.max_objects = 3  # and at most; without boxes patches that move are counted in place of people
    c.min_visible = 0.5  # share of a person's box within the crop from which on the person counts; above 0, at most 1
    c.num_train = 10_000  # crops of the first 70% of the frames (the paper: 3,150)
    c.num_valid = 500  # of the next 10% (the paper: 350)
    c.num_test = 1_000  # of the last 20%
    c.seed = 0  # of where and when crops are cut; independent of config.seeds
    c.device_bytes = 1 << 30  # training sets up to this size live on the device; larger ones are streamed
    return c
