"""MOHART, and HART as its trackers alone, on videos with boxes (thesis, chapter 4).

FOLDER is that of a data set as it is unpacked; data.format names its kind.

python launch.py --config=configs/mohart.py --config.data.path=FOLDER --workdir=runs/mohart
python launch.py --config=configs/mohart.py:hart --config.data.path=FOLDER --workdir=runs/mohart_hart
python launch.py --config=configs/mohart.py:paper --config.data.path=FOLDER --workdir=runs/mohart_paper
python launch.py --config=configs/mohart.py:drone --config.data.path=FOLDER --workdir=runs/mohart_drone
python launch.py --config=configs/mohart.py --config.data.format=detrac --config.data.path=FOLDER --workdir=runs/detrac

Which videos train and which test is up to --config.data.videos and --config.data.test_videos, patterns of their names:
the thesis trains on 44 of UA-DETRAC's 60 training videos and tests on the other 16; and it adds three videos of 2D MOT
2015 to those of MOT17, which is done by copying their folders beside one another.
"""

from ml_collections import ConfigDict

from configs import mohart_toy

VARIANTS = ("fast", "hart", "paper", "drone")


def get_config(variant: str = "fast") -> ConfigDict:
    """``variant`` is one of `VARIANTS`.

    'fast' is a recipe for two CPU cores; 'hart' the same without a relation. Weights of losses are 1 in them:
    learnt, they go towards the losses' inverses, of which that of boxes is the smallest. 'paper' trains as appendix
    4.A says, and 'drone' as it says of the Stanford Drone data: on three videos of deathCircle, the other two test.
    Of what it does not tell, these two have what HART has (learnt weights, dropout, zoneout, penalties, a
    curriculum, mirrored and reversed sequences), and the recipe's clipping of gradients and number of black frames.
    Fields but those of config.data are explained in configs/mohart_toy.py.
    """
    if variant not in VARIANTS:
        raise ValueError(f"the variant {variant!r} is unknown: write one of :{', :'.join(VARIANTS)}")
    config = mohart_toy.get_config()
    config.data = data()
    config.task.update(ahead=0, presence_loss=True, decay=1e-4, blackout=0.5, black_frames=10)
    config.guidance.steps = ()
    config.model.update(glimpse_size=(32, 32), cnn_features=(32, 32, 64), cnn_kernel=5, features=128, hidden=128)
    config.model.update(relate_memory=True, zoneout=0.05, dropout=0.25, margin=0.02)
    config.curriculum.update(first_frames=5, steps=(1_500, 2_000, 2_400), identity_bias=0.0)
    config.optimizer.update(learning_rate=5e-4, clip_norm=1.0)
    config.train.update(num_steps=3_000, batch_size=8, eval_every=500, checkpoint_every=500)
    config.evaluate.update(batch_size=8, num_pictures=4)
    del config.evaluate.num_frames  # data.test_frames
    if variant == "hart":
        config.model.relation = "none"
    if variant in ("paper", "drone"):
        config.model.relation_layers = False
        config.task.learn_weights = True
        config.optimizer.update(name="rmsprop", learning_rate=5e-6, decay="constant")
        config.train.update(num_steps=100_000, batch_size=10, eval_every=5_000, checkpoint_every=5_000)
    if variant == "paper":
        config.data.max_rate = 25.0  # of videos of 30 frames per second every second one
    if variant == "drone":  # upright frames of up to 2000 pixels, in which people are small
        config.data.update(format="drone", num_objects=10, frame_step=2, frame_size=(480, 352), min_size=2.0)
        config.data.update(videos=("deathCircle/*",), test_videos=("deathCircle/video3", "deathCircle/video4"))
        config.train.update(num_steps=50_000, batch_size=32)
    return config


def data() -> ConfigDict:
    c = ConfigDict()
    c.name = "tracks"
    c.format = "mot"  # 'mot', 'kitti', 'kth', 'detrac' or 'drone': how the files at data.path are laid out
    c.path = ""  # folder of the data set
    c.videos = ()  # names of the videos used, or patterns ('person01_*'); () means all. Those that test are used, too
    c.test_videos = ()  # the same of whole videos that test; others then train and validate, in proportion to their
    # shares
    c.kinds = ()  # kinds of objects used, as the files name them; () means all
    c.frame_size = (192, 256)  # height and width that frames are resized to, pixels; the aspect may change
    c.grey = False  # whether frames have one channel
    c.num_frames = 30  # T, frames of a sequence
    c.test_frames = 0  # of those that test; 0: as many
    c.frame_step = 1  # frames of the video from one of a sequence to the next
    c.max_rate = 0.0  # frames per second; of a video with more, only every second one is used, or third, ...; 0: all
    # are. MOTChallenge tells the rate, elsewhere this does nothing
    c.num_objects = 5  # M, most objects of a sequence; 1: single objects, as HART's
    c.overlap = 0.5  # share of a sequence that the next one repeats, in [0, 1); tests, too, then count frames twice
    c.train_share = 0.6  # of each video's frames, the first
    c.valid_share = 0.1  # the next; the rest tests. The thesis has no validation: the last tenth of its 70% is ours
    c.mirror = True  # whether training sequences come also mirrored: twice as many
    c.reverse = True  # and in reversed time, with the objects of their last frame: about twice as many
    c.min_size = 4.0  # objects whose box within the frame is less high or wide are left out, pixels of the resized
    # frame
    c.min_visibility = 0.0  # objects of which a smaller share is visible are left out, in [0, 1]
    c.crowded = 0.0  # above 0: only sequences with num_objects objects, there in at least that share of frames
    c.cache_dir = ""  # decoded frames (H * W * C bytes each); '' means $OBJCENTRIC_CACHE, else ~/.cache/objcentric
    c.seed = 0  # of the choice where there are more than num_objects; independent of config.seeds
    c.device_bytes = 1 << 30  # training sets up to this size live on the device; larger ones are streamed
    return c
