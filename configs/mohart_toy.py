"""HART and MOHART in MOHART's toy worlds (thesis, section 4.4): circles that push and pull one another.

python launch.py --config=configs/mohart_toy.py:repulsion --workdir=runs/repulsion
python launch.py --config=configs/mohart_toy.py:identities --workdir=runs/identities
python launch.py --config=configs/mohart_toy.py:identities --config.model.relation=none --workdir=runs/identities_hart

'repulsion' is scenario 1, in which HART predicts where circles are three frames later; 'identities' is scenario 2, in
which MOHART predicts the next frame. The thesis leaves open sizes, speeds and constants of its worlds. Those of
scenario 2 are such that a guess that nothing moves has the IoU that it reports, .34, and that most of what moves
circles is forces. With identities that change at random these would make circles ever faster: friction, which the
thesis does not mention, takes that away (a guess by momentum has .37).
"""

from ml_collections import ConfigDict

from configs import base

VARIANTS = ("repulsion", "identities")


def get_config(variant: str = "identities") -> ConfigDict:
    """``variant`` is one of `VARIANTS`."""
    if variant not in VARIANTS:
        raise ValueError(f"the variant {variant!r} is unknown: write one of :{', :'.join(VARIANTS)}")
    config = base.get_config()
    config.experiment = "hart"
    del config.objective
    config.data = data()
    config.model = model()
    config.task = task()
    config.task.ahead = 1
    config.curriculum = curriculum()
    config.guidance = guidance()
    config.task.learn_weights = False  # learnt, that of attention comes to outweigh the others
    config.optimizer.update(learning_rate=2e-3, warmup_steps=200, clip_norm=10.0)
    config.train.update(num_steps=5_000, batch_size=32, eval_every=500, checkpoint_every=500, cpu_devices=2)
    config.evaluate = evaluate()
    if variant == "repulsion":
        config.data.update(radius=7.0, speed=1.2, strength=0.03, power=1.0, friction=0.0)
        config.data.update(identities=1, randomness=0.0)
        config.curriculum.update(identity_bias=0.0, steps=(4_000,))
        config.train.num_steps = 8_000  # half of them on whole sequences: else late frames are predicted worse
        config.task.ahead = 3
        config.model.relation = "none"
    return config


def data() -> ConfigDict:
    c = ConfigDict()
    c.name = "circles"
    c.side = 64  # height and width of the box, and of a frame, pixels
    c.num_objects = 4  # circles in a world
    c.num_frames = 15  # T, frames that are shown
    c.radius = 3.0  # of a circle, pixels
    c.speed = 4.2  # the first velocity is uniform in +-speed along each axis, px/frame
    c.strength = 2.4  # of the force between two circles at a distance of one side, px/frame^2
    c.power = 0.5  # of the distance that it is divided by
    c.friction = 0.8  # velocities fall by exp(-friction) per frame, but for forces
    c.identities = 2  # 1: all repel; 2: likes repel, others attract
    c.randomness = 1.0  # probability of an identity drawn anew, of each circle and frame
    c.substeps = 8  # steps of the simulation per frame
    c.num_train = 100_000  # worlds, simulated as they are needed; their order is drawn anew now and then: more cost
    # time
    c.num_valid = 200
    c.num_test = 1_000
    c.seed = 0  # of the worlds; independent of config.seeds
    return c


def model() -> ConfigDict:
    c = ConfigDict()
    # 'hart' (also MOHART) or 'ratm': its baseline, for which relation, dropout, margin and what follows from
    # appearance mean nothing.
    c.tracker = "hart"
    c.glimpse_size = (16, 16)  # height and width of a glimpse, pixels
    c.v1 = "cnn"  # 'cnn' (MOHART's feature extractor) or 'alexnet' (three layers of it; glimpses of 56x56)
    c.v1_weights = ""  # an .npz that V1 begins with, see objcentric.nn.appearance.read_weights; '': random
    c.cnn_features = (16, 16, 32)  # 'cnn': maps of its three layers (thesis: 32, 32, 64)
    c.cnn_kernel = 3  # 'cnn': side of its filters (thesis: 5)
    c.appearance = False  # whether there is HART's appearance attention
    c.ventral = False  # whether features are those of HART's ventral stream; with appearance attention they always are
    c.features = 64  # of a glimpse; also of keys, queries and values (thesis: 128)
    c.hidden = 64  # units of the LSTM and of what it is read by (thesis: 128)
    c.relation = "attention"  # what trackers tell each other: 'none' (HART), 'attention' (MOHART), 'max' or 'mlp'
    c.heads = 4  # of self-attention
    c.relation_layers = True  # whether an ELU layer comes before what they tell, and after what they hear: see
    # objcentric.models.hart (thesis: none)
    c.relate_memory = False  # whether they tell the LSTM's last output, too
    c.zoneout = 0.0  # probability that a unit of the LSTM keeps its value
    c.dropout = 0.0  # of V1's maps
    c.margin = 0.1  # of the attention around a given box, on each side, at first; in shares of the canvas; it is
    # learnt
    return c


def curriculum() -> ConfigDict:
    c = ConfigDict()
    c.first_frames = 5  # length of the sequences at first
    c.steps = (4_500,)  # at which they become longer, in equal parts; the last one brings all frames
    # In training worlds a share of the identities drawn is the first one, not any: this share until the first of these
    # steps, then less and less until there is none. Of a force that is a product of two random signs neither sign tells
    # anything alone, so that no gradient says what to tell another; where the first one is more likely, each does.
    c.identity_bias = 0.7
    c.identity_steps = (500, 1_500)
    return c


def guidance() -> ConfigDict:
    c = ConfigDict()
    # Steps of training until which trackers look at the true boxes, and from which on where they want; in between a
    # share of frames that falls linearly is guided. () never guides (thesis).
    c.steps = (2_500, 4_000)
    c.shift = 3.0  # std of random shifts of the true boxes, pixels, that trackers learn to find their objects
    return c


def task() -> ConfigDict:
    c = ConfigDict()
    c.ahead = 0  # frames between the last one seen and the one whose boxes are predicted; above 0 in toy worlds alone
    c.attention_loss = True  # equation 3.11
    c.appearance_loss = True  # equation 3.12, if there is appearance attention
    c.learn_weights = True  # whether weights of the losses are learnt (equation 3.9); else they are 1
    c.presence_loss = False  # whether trackers learn to tell when their object has gone
    c.decay = 0.0  # beta of equation 3.9: of the squares of weights and dynamic filters
    c.blackout = 0.0  # share of the training sequences in which some frames are black
    c.black_frames = 5  # most of them in a row
    return c


def evaluate() -> ConfigDict:
    c = ConfigDict()
    c.batch_size = 100
    c.num_pictures = 2  # sequences shown in the pictures
    c.num_frames = 30  # of toy worlds that are evaluated on; figures of whole sequences are of the first
    # data.num_frames
    return c
