"""Every field that an experiment may read, with its meaning and allowed values.

An experiment's own config (``configs/air.py``, ...) is a short override of this one. Override any field
from the command line: ``--config.train.batch_size=32``. Fields are typed by the default given here.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    config = ConfigDict()
    config.experiment = "air"  # module of experiments/ that builds init, loss, evaluate and figures
    config.seeds = (0,)  # trained at once: by vmap, on CPUs one after the other; figures are reported for each
    config.data = data()
    config.model = air()
    config.objective = objective()
    config.optimizer = optimizer()
    config.train = train()
    config.evaluate = evaluate()
    return config


def data() -> ConfigDict:
    c = ConfigDict()
    c.name = "multi_digit"  # 'multi_digit': compose scenes from digits; 'scenes': ready images at data.path
    # The fields from source to num_test describe 'multi_digit'; of them 'scenes' reads path alone.
    c.source = "embedded"  # digits: 'embedded' (scikit-learn's 8x8), 'mnist', or a folder of PNGs, an .npz, an .npy
    c.path = ""  # name='scenes': a folder of PNGs, an .npz or an .npy; source='mnist': folder of the four idx files
    # ('' means $OBJCENTRIC_DATA/mnist where that exists, else they are downloaded)
    c.cache_dir = ""  # prepared TFDS data; '' means $OBJCENTRIC_CACHE, else ~/.cache/objcentric
    c.canvas = (50, 50)  # height and width of a scene, pixels
    c.num_objects = (0, 2)  # fewest and most digits in a scene; uniform in between
    c.object_size = (18, 18)  # smallest and largest side of a digit, pixels; uniform in between
    c.overlap = False  # whether bounding boxes of digits may overlap
    c.background = "none"  # 'none' (black) or 'structured' (a smooth random pattern behind the digits)
    c.num_train = 20_000  # scenes made of the training digits
    c.num_valid = 1_000  # scenes made of the validation digits
    c.num_test = 2_000  # scenes made of the test digits
    c.seed = 0  # of digit split and scene composition; independent of config.seeds
    c.device_bytes = 1 << 30  # training sets up to this size live on the device; larger ones are streamed
    return c


def air() -> ConfigDict:
    c = ConfigDict()
    c.num_steps = 3  # N, slots for objects; at least the largest count in the data
    c.recurrence = "image"  # 'image': h^i from the image alone (notes 2017-10); 'latent': also from z^{i-1} (2017-12)
    c.glimpse_size = (20, 20)  # height and width of a glimpse, pixels
    c.what_dim = 50  # dimension of z^what
    c.hidden = 256  # units of the recurrent core and of every hidden layer but the up-convolution's
    c.reach = 1.0  # largest shift of a glimpse's centre, the canvas' sides being at +-1
    c.object_size = 18.0  # expected side of an object, pixels: sets the prior of where and the initial glimpses; or its
    # height and width, in configs/air_moving.py
    c.scale_std = 0.3  # prior std of the logit of a glimpse's scale: 0.3 is about 15% of its side
    c.likelihood = "gaussian"  # 'gaussian' (fixed std) or 'bernoulli' (binarised images)
    c.output_std = 0.3  # std of the Gaussian likelihood
    c.background = "none"  # 'none', 'mlp' or 'deconv': the component b = g(h^N) of notes 2017-12, eq. 11
    c.background_dim = 8  # dimension of z^background ~ N(0, I) between h^N and b; 0: deterministic, as eq. 11
    c.count_prior = "geometric"  # of n: 'geometric', annealed and truncated; or 'learned', any probabilities
    c.presence_bias = 1.0  # initial logit of presence under q: near 0 objects go unused, at 3 they share one digit
    c.decoder_bias = -2.0  # initial logit of a decoded pixel; a bright start makes presence collapse
    c.presence_prior = ConfigDict()  # 'geometric': success probability of the prior of n
    c.presence_prior.start = 0.99
    c.presence_prior.end = 1e-5
    c.presence_prior.steps = 1_500  # training steps of the geometric annealing
    c.presence_margin = ConfigDict()  # q(presence) stays within (margin, 1 - margin), annealed likewise: slots that are
    c.presence_margin.start = 0.1  # left out now and then learn not to share an object
    c.presence_margin.end = 1e-3
    c.presence_margin.steps = 1_500
    return c


def objective() -> ConfigDict:
    c = ConfigDict()
    c.name = "vimco"  # 'elbo', 'iwae', 'miwae', 'ciwae', 'piwae' (pathwise only); 'reinforce', 'rloo', 'nvil', 'vimco',
    # 'vimco_arithmetic'; 'ciwae_vimco'; 'vimco_as_released' (what SQAIR's authors have in its place; SQAIR's alone);
    # 'ww', 'ws', 'delta_ww' (wake-sleep; dreams are of the prior as it is at the step);
    # 'stl', 'dreg', 'rws_dreg' (for models whose latents all are continuous); 'fivo' (for models of sequences)
    c.num_particles = 5  # K
    c.num_groups = 1  # M, 'miwae' and 'piwae': groups of K / M particles; 'fivo': filters, at least 2 if latents are
    # discrete, for each is the baseline of the others
    c.beta = 0.5  # 'ciwae', 'ciwae_vimco': weight of the ELBO, in [0, 1]
    c.delta = 0.2  # 'delta_ww': share of the defensive component in its proposal, in [0, 1)
    c.decay = 0.9  # moving averages of NVIL and REINFORCE's baseline
    c.baseline_hidden = 256  # units of NVIL's input-dependent baseline
    return c


def optimizer() -> ConfigDict:
    c = ConfigDict()
    c.name = "adam"  # 'adam', 'muon' (of weights of dense layers and convolutions; for all others NAdam), 'rmsprop'
    # (momentum 0.9, as the papers) or 'rmsprop_tf' (the same, as TensorFlow has it)
    c.learning_rate = 5e-4  # at 1e-3 some seeds settle where they look before they know what they look for
    c.warmup_steps = 0  # linear warm-up from 0
    c.decay = "cosine"  # 'constant', 'cosine' (to 0 at the last step), 'stairs' or 'exponential'
    c.stairs_at = ()  # 'stairs': steps from which on the learning rate is learning_rate times the factors of stairs_to
    c.stairs_to = ()
    c.decay_rate = 0.96  # 'exponential': the learning rate is multiplied by it ...
    c.decay_steps = 1_000  # ... after so many steps
    c.eps = 1e-8  # 'rmsprop_tf': added to the mean square, inside the root
    c.clip_norm = 10.0  # global norm of the gradient; 0 turns clipping off
    c.baseline_factor = 10.0  # learning rate of baselines relative to the model's
    return c


def train() -> ConfigDict:
    c = ConfigDict()
    c.num_steps = 2_500
    c.batch_size = 32  # examples per step over all devices
    c.num_devices = 0  # 0: all there are; must divide batch_size
    c.cpu_devices = 0  # devices that a CPU is divided into, so that models of many small operations use all its cores
    c.inner_steps = 100  # steps per dispatch (one lax.scan); logs, checkpoints and evaluations fall on multiples
    c.log_every = 100
    c.eval_every = 500  # on the validation split
    c.keep_best = ""  # a figure of validation, such as 'elbo': parameters that had most of it are evaluated; '': the
    # last
    c.checkpoint_every = 500
    c.checkpoints_kept = 2
    return c


def evaluate() -> ConfigDict:
    c = ConfigDict()
    c.batch_size = 100
    c.num_particles = 100  # K of the IWAE bound reported at the end
    c.particle_chunk = 20  # particles held in memory at once; must divide num_particles
    c.num_examples = 500  # test scenes of that bound, and test sequences of imagined frames (other figures use all)
    # AIR and SQAIR: whether densities are those of the prior of counts that fits what q finds in training examples, in
    # place of the annealed one, which makes objects unlikely so that none are used in vain.
    c.fit_count_prior = False
    c.num_pictures = 8  # scenes shown in the pictures
    c.addition_steps = 0  # of sequences of digits: training steps of a classifier of a frame's sum; 0: leave it out
    c.addition_examples = 5_000  # training sequences whose latents it learns from, at most
    return c
