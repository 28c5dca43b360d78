"""SQAIR on moving digits (thesis, section 5.4.1): discovers, tracks and imagines them.

python launch.py --config=configs/sqair.py --workdir=runs/sqair
python launch.py --config=configs/sqair.py:any_time --workdir=runs/sqair_any_time
python launch.py --config=configs/sqair.py:conv --workdir=runs/sqair_conv
python launch.py --config=configs/sqair.py:paper --workdir=runs/sqair_paper
python launch.py --config=configs/sqair.py:conv_paper --workdir=runs/sqair_conv_paper
python launch.py --config=configs/sqair.py:released --workdir=runs/sqair_released
"""

from ml_collections import ConfigDict

from configs import base

VARIANTS = ("fast", "any_time", "conv", "paper", "conv_paper", "released")


def get_config(variant: str = "fast") -> ConfigDict:
    """``variant`` is one of `VARIANTS`.

    'fast' is a recipe for two CPU cores; 'any_time' the same on the harder data of appendix 5.F, whose digits appear
    and disappear at any time; 'conv' has convolutional networks, and fewer steps. 'paper' and 'conv_paper' are models
    and training of the paper, whose early stopping "in case of overfitting" is that of train.keep_best: MLP-SQAIR and
    CONV-SQAIR. But all q share what `models.sqair` says, for only then there are as many parameters as in table 5.D.1.
    'released' is MLP-SQAIR with all in which the authors' release differs from the paper and that has a name here; what
    has none `models.sqair` lists.
    """
    if variant not in VARIANTS:
        raise ValueError(f"the variant {variant!r} is unknown: write one of :{', :'.join(VARIANTS)}")
    config = base.get_config()
    config.experiment = "sqair"
    config.data = data()
    config.model = model()
    config.curriculum = curriculum()
    config.train.update(num_steps=10_000, batch_size=16, eval_every=1_000, checkpoint_every=500)
    config.train.cpu_devices = 2
    config.evaluate.update(num_particles=1_000, particle_chunk=20, num_examples=200)
    config.evaluate.fit_count_prior = True
    config.evaluate.given_frames = 3  # frames seen before the others are imagined
    config.evaluate.addition_steps = 10_000  # the paper: 1e7
    if variant == "any_time":
        config.data.appear = "any_time"
        config.train.num_steps = 8_000
        config.curriculum.steps = (1_500, 3_000)
        # New objects are unlikely until it is learnt to propagate: else all are found anew in each frame.
        config.model.rediscovery_factor.update(start=1e-5, end=1.0, begin=1_500, steps=2_000)
    if variant.startswith("conv"):
        config.model.network = "conv"
        config.train.update(num_steps=2_150, checkpoint_every=100, inner_steps=50)
        config.curriculum.steps = (1_600, 1_850)
        config.model.presence_prior.steps = config.model.presence_margin.steps = 1_100
        config.model.rediscovery_factor.update(begin=900, steps=650)
        config.evaluate.num_examples = 20  # a step takes some ten times as long as the MLPs'
    if variant.endswith("paper") or variant == "released":
        config.model.hidden = 128 if variant == "conv_paper" else 256
        config.model.update(motion="position", discovery_prior="learned", one_discovery_table=True, centred=False)
        config.model.update(reach=1.0, scale_std=1.0, rediscovery_bias=config.model.discovery_bias)
        config.model.presence_margin.update(start=1e-4, steps=0)
        config.model.update(gradient_limit=0.0, propagation_order="slots")
        config.optimizer.update(name="rmsprop", learning_rate=1e-5, clip_norm=0.0)
        config.optimizer.update(decay="stairs", stairs_at=(400_000, 1_000_000), stairs_to=(1 / 3, 0.1))
        config.train.update(num_steps=2_000_000, batch_size=32, eval_every=10_000, checkpoint_every=10_000)
        config.train.keep_best = "elbo"
        config.curriculum.steps = tuple(100_000 * i for i in range(1, 8))
        config.data.update(num_train=60_000, num_test=10_000)
        config.evaluate.update(num_examples=10_000, addition_steps=10_000_000, addition_examples=60_000)
        config.evaluate.fit_count_prior = False  # it is learned
    if variant == "released":
        config.optimizer.name = "rmsprop_tf"
        config.optimizer.stairs_to = (1 / 3, 1 / 9)
        config.objective.name = "vimco_as_released"
        config.model.update(centred=True, one_discovery_table=False, truncated_discovery=False)
        config.model.update(where_prior="learned", mean_image=True, proposal_mask=True)
        config.model.update(decoder_scale=0.25, decoder_bias=0.0)
        config.model.update(propagation_bias=5.0, propagation_prior_bias=10.0)
    return config


def model() -> ConfigDict:
    c = ConfigDict()
    c.num_objects = 3  # N, most objects in a frame
    c.glimpse_size = (20, 20)  # height and width of a glimpse, pixels
    c.what_dim = 50  # dimension of z^what
    c.hidden = 128  # units of every layer and RNN
    c.network = "mlp"  # 'mlp' or 'conv': encoders and glimpse decoder
    c.encoder_features = (16, 32, 32, 64)  # 'conv': maps and strides of the layers that the encoders share
    c.encoder_strides = (2, 2, 1, 1)
    c.decoder_features = (32, 64, 64)  # 'conv': maps and factors of the sub-pixel decoder
    c.decoder_strides = (1, 2, 2)
    c.decoder_hidden = 256  # 'conv': units of the decoder's first layer
    c.object_size = (18.0, 18.0)  # expected height and width of an object, pixels
    c.scale_std = 0.3  # prior std of the logit of a new object's scale
    c.likelihood = "gaussian"  # 'gaussian' (fixed std) or 'bernoulli'
    c.output_std = 0.3  # std of the Gaussian likelihood
    c.reach = 1.5  # largest shift of a glimpse's centre, the canvas' sides being at +-1 (authors' release: 1); above 1,
    # objects that leave keep their look and their path out of view, and come back as themselves
    # What tells where objects go: 'velocity', the displacement of the last frame and RNNs; 'position', RNNs alone, as
    # in the authors' release.
    c.motion = "velocity"
    # Whether q and p of propagation are centred on the latents before, and where of new objects on the prior's mean (of
    # a learned one, on where it begins), as in the release; else MLPs tell means.
    c.centred = True
    c.shared_statistics = True  # release, and the paper's number of parameters; else each q has an MLP of its own (5.A)
    c.discovery_prior = "annealed"  # of the number of new objects: 'annealed' (by presence_prior and
    # rediscovery_factor, which nothing else reads), or 'learned' from the number of the old ones
    c.one_discovery_table = False  # 'learned': whether the first frame is as the later ones (eq. 5.8); else as in the
    # release, where it has probabilities of its own, and others begin with few new objects
    c.discovery_bias = 1.0  # initial logit of a new object under q in the first frame
    c.rediscovery_bias = 0.0  # and in later frames
    c.propagation_bias = 4.0  # initial logit of staying, under q
    c.propagation_prior_bias = 4.0  # and under p
    # Only in the authors' release: a learned prior of where; a mean image, seen where glimpses are; whether new objects
    # are up to N - P_t under p (eq. 5.8), or N, of which those that q cannot find are lost to p(x), and samples have as
    # many as there is room for; a learned mask of glimpses at proposals; and
    c.where_prior = "fixed"  # 'fixed' or 'learned'
    c.mean_image = False
    c.truncated_discovery = True
    c.proposal_mask = False
    c.decoder_scale = 0.0  # initial value of a learned factor of decoded pixels; 0: none
    c.decoder_bias = -2.0  # initial logit of a decoded pixel; a bright start makes presence collapse
    # Most of what flows back to a frame from later ones, nats per unit of what is handed on; 0: no limit. Without one,
    # a few sequences whose objects are lost have gradients hundreds of times those of others.
    c.gradient_limit = 200.0
    # Of the objects that are propagated: 'random', anew in each frame, or 'slots', the same throughout, of which q
    # learns that the first one is always, say, the upper one, also after they have crossed.
    c.propagation_order = "random"
    c.presence_prior = ConfigDict()  # 'annealed': success probability of the truncated geometric prior
    c.presence_prior.start = 0.99
    c.presence_prior.end = 1e-5
    c.presence_prior.steps = 3_500
    # 'annealed': of presence_prior after the first frame, where new objects are unlikely (in the authors' release about
    # 5e-5; where they come at any time, let it end at 1). If it starts too small, spare objects are discovered in the
    # first frame; if it ends too large, objects that come back into view pass for new ones.
    c.rediscovery_factor = ConfigDict()
    c.rediscovery_factor.start = 1e-6
    c.rediscovery_factor.end = 1e-30
    c.rediscovery_factor.begin = 3_000  # it stays at its start until then
    c.rediscovery_factor.steps = 3_000
    c.presence_margin = ConfigDict()  # probabilities of presence stay within (margin, 1 - margin)
    c.presence_margin.start = 0.1
    c.presence_margin.end = 1e-4
    c.presence_margin.steps = 3_500
    return c


def curriculum() -> ConfigDict:
    c = ConfigDict()
    c.first_frames = 3  # length of the sequences at first
    c.steps = (5_000, 7_000)  # at which they become longer, in equal parts; the last one brings all frames
    return c


def data() -> ConfigDict:
    c = ConfigDict()
    c.name = "moving_digits"
    c.source = "embedded"  # digits: 'embedded' (scikit-learn's 8x8), 'mnist', or a folder of PNGs, an .npz, an .npy
    c.path = ""  # source='mnist': folder of the four idx files ('': as in base.py)
    c.cache_dir = ""  # prepared TFDS data; '' means $OBJCENTRIC_CACHE, else ~/.cache/objcentric
    c.canvas = (50, 50)  # height and width of a frame, pixels
    c.num_frames = 10  # T, length of a sequence
    c.num_objects = (0, 2)  # fewest and most digits in a sequence; uniform in between
    c.object_size = (18, 18)  # smallest and largest side of a digit, pixels; uniform in between
    c.motion = "paper"  # 'paper': accelerated, digits leave to the right and below, and come back; 'bounce': constant
    # velocity, reflected inside the canvas
    c.speed = 10.0  # initial velocity is uniform in +-speed px/frame along each axis, and stays there
    c.acceleration = 3.0  # motion='paper': uniform in +-acceleration px/frame^2 along each axis
    c.appear = "always"  # 'always': a digit is there in all frames; 'any_time': between two random ones (appendix 5.F)
    c.num_train = 20_000  # sequences made of the training digits (the paper: 60,000)
    c.num_valid = 1_000  # sequences made of the validation digits
    c.num_test = 2_000  # sequences made of the test digits (the paper: 10,000)
    c.seed = 0  # of digit split and sequences; independent of config.seeds
    c.device_bytes = 1 << 30  # training sets up to this size live on the device; larger ones are streamed
    return c
