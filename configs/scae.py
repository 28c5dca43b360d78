"""SCAE: stacked capsule autoencoders find parts, objects and classes of images without labels (thesis, chapter 6).

python launch.py --config=configs/scae.py --workdir=runs/scae
python launch.py --config=configs/scae.py:mnist40 --workdir=runs/scae_mnist40
python launch.py --config=configs/scae.py:mnist40_thesis --workdir=runs/scae_mnist40_thesis
python launch.py --config=configs/scae.py:svhn --config.data.path=FOLDER --workdir=runs/scae_svhn
python launch.py --config=configs/scae.py:affnist --config.evaluate.affnist=FOLDER --workdir=runs/scae_affnist
python launch.py --config=configs/scae.py:own --config.data.source=IMAGES.npz --workdir=runs/scae_own

Without a variant digits are scikit-learn's, which need no download. 'mnist' has 28x28 pixels, 'mnist40' MNIST shifted
by up to 6 pixels on 40x40; 'affnist' is 'mnist40', tested also on affNIST; 'own' takes a folder of PNGs, an .npz or an
.npy; let losses.num_classes be how many classes they have. Each is a recipe for two CPU cores that was found on digits;
'svhn' and 'cifar10' have it, too, and want an accelerator.

What ends in '_thesis' or '_release' trains as the thesis and the code released with it do, as far as they tell. The
former has the sparsity losses to the letter, which cannot all be meant: see objcentric.models.sparsity, and choose
--config.losses.sparsity=release for what the text says. It trains on all splits, as the thesis does, so that the figure
to compare is posterior_lin_match_full; --config.data.train_on_all=False keeps test images apart. Objects are told also
1 - presence of each part, and templates in the colours of the image, as in the release.
"""

from ml_collections import ConfigDict

from configs import base, ccae

DATA = ("embedded", "mnist", "mnist40", "affnist", "svhn", "cifar10", "own")
PRESETS = ("thesis", "release")
VARIANTS = (*DATA, *(f"{data}_{preset}" for data in DATA[1:] for preset in PRESETS))
# Table 6.A.2: weights of the likelihood of parts; prior within, between; posterior within, between.
_WEIGHTS = {"svhn": (2.56, 0.22, 0.1, 8.62, 0.26), "cifar10": (2.075, 0.17, 0.1, 1.39, 7.32)}


def get_config(variant: str = "embedded") -> ConfigDict:
    """``variant`` is one of `VARIANTS`."""
    if variant not in VARIANTS:
        raise ValueError(f"the variant {variant!r} is unknown: write one of :{', :'.join(VARIANTS)}")
    name, _, preset = variant.partition("_")
    config = base.get_config()
    config.experiment = "scae"
    del config.objective
    config.data, config.model, config.losses = data(), model(), losses()
    config.curriculum, config.evaluate = curriculum(), evaluate()
    config.optimizer.update(learning_rate=1e-3, warmup_steps=500, clip_norm=10.0)
    config.train.update(batch_size=64, inner_steps=50, log_every=100)
    config.train.update(eval_every=2_000, checkpoint_every=1_000)
    of_data(config, name)
    if preset:
        published(config, name, preset)
    else:
        quick(config)
    return config


def of_data(config: ConfigDict, name: str) -> None:
    """Data, and what the model must be for them."""
    if name == "embedded":
        config.data.update(canvas=(20, 20), shift=2)
        config.model.update(num_parts=16, num_capsules=16, template_size=(7, 7), encoder_strides=(1, 2, 1, 1))
    elif name == "mnist":
        config.data.update(source="mnist", canvas=(28, 28), shift=0)
    elif name in ("mnist40", "affnist"):
        config.data.update(source="mnist", canvas=(40, 40), shift=6)
        config.evaluate.affine = True
        if name == "affnist":
            config.evaluate.affnist = "$OBJCENTRIC_DATA/affnist"
    elif name == "own":
        config.data.source = ""
        config.model.channels = 3
    else:
        config.data.update(source=name, canvas=(32, 32), shift=0, sobel=True)
        config.model.update(channels=3, template_size=(14, 14), encoder_strides=(1, 1, 2, 2))
        config.model.update(num_parts={"svhn": 24, "cifar10": 32}[name], num_capsules={"svhn": 32, "cifar10": 64}[name])
        config.model.update(heads=2, units=64, features=128)


def quick(config: ConfigDict) -> None:
    """Parts that are learnt alone until they have come to rest, and then objects of them.

    Sharper pixels tell sooner which template is whose. A small cost of parts leaves strokes, not blobs that are always
    there: objects of the latter cannot be classes. Objects begin as exemplars: see `scae.make`'s exemplar_error; they
    learn best at a high rate. If standard deviations of votes are learnt, they become so wide that any object explains
    any image; if they are much smaller than here, an object explains too few of its class. With four heads of 32 units,
    where the thesis has one of 16 for digits, and without layer norm classes come out of objects in far fewer steps.
    """
    config.model.update(heads=max(4, config.model.heads), units=max(32, config.model.units), layer_norm=False)
    config.model.update(output_std=0.3, template_gain=10.0, part_weight="ink")
    config.model.update(pose="matrix", relative=True, vote_std=0.04, initial_presence=0.1)
    config.losses.update(part_presence=1.0, deformation=30.0, upright=0.5)
    # Found by trial; that of prior_between grows with the square of the batch's size, which is half the thesis'.
    config.losses.update(parts=1.0, prior_within=1.0, prior_between=0.7, posterior_within=5.0, posterior_between=5.0)
    config.curriculum.update(parts_alone=36_000, parts_fixed=True)
    config.train.num_steps = 40_000


def published(config: ConfigDict, name: str, preset: str) -> None:
    """What the thesis, or the code released with it, has."""
    config.model.update(encoder_features=(128, 128, 128, 128), pixel_stride=1)
    config.train.update(num_steps=300_000, batch_size=128, eval_every=10_000, checkpoint_every=10_000)
    config.optimizer = ccae.rmsprop(batch_size=128)
    if preset == "thesis":
        config.model.update(mixture="normalised", template_nonlinearity="relu", colour_nonlinearity="relu")
        config.model.update(mixing="template", dummy=0.0, coloured=False, background=False)
        config.losses.sparsity = "thesis"
        config.data.train_on_all = True
    else:
        config.model.mask = "release"
        config.optimizer.learning_rate = 3e-5
        config.evaluate.released = True
        if name not in _WEIGHTS:  # of MNIST alone is known what it has
            config.model.update(num_parts=40, num_capsules=32)
    if name in _WEIGHTS:
        names = ("parts", "prior_within", "prior_between", "posterior_within", "posterior_between")
        config.losses.update(dict(zip(names, _WEIGHTS[name], strict=True)))
        config.optimizer.update(learning_rate=1e-4, decay="exponential")
        config.optimizer.decay_steps = {"svhn": 1_000, "cifar10": 3_000}[name]
    elif preset == "thesis":
        config.losses.update(prior_within=1.0, prior_between=1.0, posterior_within=10.0, posterior_between=10.0)
    else:
        config.losses.update(prior_within=2.0, prior_between=0.35, posterior_within=0.7, posterior_between=0.2)


def data() -> ConfigDict:
    c = ConfigDict()
    c.name = "labelled"
    c.source = "embedded"  # 'embedded' (scikit-learn's digits), 'mnist', 'svhn', 'cifar10', 'affnist', or own images: a
    # folder of PNGs, an .npz or an .npy
    c.path = ""  # folder of the files of a published set; '' means $OBJCENTRIC_DATA/<source>; MNIST is downloaded; of
    # SVHN and CIFAR-10 also one that TFDS has prepared as array_record: .../svhn_cropped
    c.cache_dir = ""  # of what is downloaded; '' means $OBJCENTRIC_CACHE, else ~/.cache/objcentric
    c.canvas = (32, 32)  # height and width that the model sees, pixels
    c.shift = 0  # images are shifted by up to so many pixels along each axis, anew each time they are seen
    c.affine = False  # whether they are transformed as in affNIST instead
    c.sobel = False  # whether edges are reconstructed (section 6.A.2), not the image itself
    c.train_on_all = False  # whether training sees the images of all splits, as in the thesis ("full datasets"): then
    # lin_match_full is the figure to compare; what is fitted to the training split in evaluation stays as it is
    c.num_train = 0  # examples of each split that are used, the first ones; 0 means all
    c.num_valid = 0
    c.num_test = 0
    c.seed = 0  # of splits, and of shifts in evaluation; independent of config.seeds
    c.device_bytes = 1 << 30  # training sets up to this size live on the device; larger ones are streamed
    return c


def model() -> ConfigDict:
    c = ConfigDict()
    # ------------------------------------------------------------------------------------------------ parts (PCAE)
    c.channels = 1  # of images: 1 or 3
    c.num_parts = 24  # M, templates (release: 40)
    c.template_size = (11, 11)  # height and width of a template; it spans the canvas where its pose is the identity
    c.special_features = 16  # of a part, for the objects; 0: none (table 6.3.2, f)
    c.coloured = True  # whether special features tell a template's colour, as in the release; else it has its own
    c.background = True  # whether pixels may be of a background of one learned colour, as in the release
    c.part_encoder = "attention"  # how maps are pooled: 'attention', 'linear' or 'conv' (table 6.3.2, d)
    c.encoder_features = (32, 32, 64, 64)  # maps of its convolutions (thesis: 128 each)
    c.encoder_strides = (2, 2, 1, 1)
    c.part_similarity = False  # whether poses of parts are similarities; else affine
    c.mixing = "alpha"  # log-weights of a template's pixels: learned 'alpha', or their brightness over a learned
    # temperature: 'template'
    c.template_nonlinearity = "sigmoid"  # 'sigmoid', 'relu' or 'none'
    c.colour_nonlinearity = "sigmoid"
    c.template_gain = 1.0  # templates and alpha are so many times their parameters: they learn so many times faster
    c.output_std = 1.0  # sigma_y, of a pixel
    # In training the likelihood is of one pixel of each block of so many by so many, times their number; which one is
    # drawn anew for each image. 1: of all pixels.
    c.pixel_stride = 2
    c.part_noise = 2.0  # uniform in +-part_noise, added to logits of presences in training
    # ---------------------------------------------------------------------------------------------- objects (OCAE)
    c.num_capsules = 24  # K (release: 32)
    c.object_encoder = "set_transformer"  # or 'mlp' (table 6.3.2, e)
    c.blocks = 3  # of the set transformer
    c.heads = 1
    c.units = 16  # of each head
    c.features = 256  # of a capsule
    c.layer_norm = True
    c.inducing = 0  # points by which blocks attend, in time linear in the number of parts (ISAB); 0: to each other
    c.pooling = "attention"  # or 'pma', as in the set transformer's paper: see objcentric.nn.set_transformer
    c.mask = "log_presence"  # how absent parts are left out: see objcentric.nn.set_transformer.log_bias
    c.hidden = 128  # units of each capsule's perceptron
    c.pose = "composed"  # what six numbers tell of poses of objects, and of parts in objects: scales, angle and shear;
    # or the 'matrix' itself
    c.similarity = False  # whether these poses are similarities (table 6.3.2, c)
    c.deformable = True  # whether poses of parts in objects may depend on the input (table 6.3.2, c)
    c.part_weight = "presence"  # what objects take for a part's presence: its 'presence' d, or its 'ink', the share of
    # what it changes in the picture, which tells of it also if d falls as opacity rises
    c.relative = False  # whether objects tell places from the parts' mean place; else from the middle of the canvas
    c.vote_std = 0.0  # lambda, the standard deviation of all votes; 0: it is learnt
    c.initial_presence = 0.5  # what presences of objects are about at first
    c.mixture = "unnormalised"  # or 'normalised' (thesis, equation 6.10): see objcentric.models.capsules
    c.dummy = 0.01  # weight times density of a component that explains what no capsule does; 0: none
    c.noise = 2.0  # as part_noise, of logits of capsules and votes
    return c


def losses() -> ConfigDict:
    c = ConfigDict()  # weights
    c.image = 1.0  # log-likelihood of an image
    c.part_presence = 0.0  # number of parts that are there
    c.parts = 1.0  # log-likelihood of parts
    c.sparsity = "release"  # form of the sparsity losses: 'release' or 'thesis', see objcentric.models.sparsity
    c.num_classes = 10.0  # C
    c.prior_within = 2.0
    c.prior_between = 0.35
    c.posterior_within = 0.7
    c.posterior_between = 0.2
    c.deformation = 10.0  # half the squared norm of what in poses of parts in objects depends on the input
    c.upright = 0.0  # how far poses of objects that are there are from upright ones of their parts' size
    return c


def curriculum() -> ConfigDict:
    c = ConfigDict()  # the thesis has none
    c.parts_alone = 0  # until this step parts alone are learnt, and poses of parts in objects become those of
    # exemplars, images of the training split; 0: all is learnt at once, from random poses
    c.parts_fixed = False  # whether from then on objects alone are learnt, at a rate that begins anew; else all
    # is learnt together. Special features then stay as parts alone have taught them
    return c


def evaluate() -> ConfigDict:
    c = ConfigDict()
    c.batch_size = 100
    c.num_train = 0  # training examples that clusters and classifiers are fitted to, the first ones; 0 means all
    c.num_clusters = 0  # of k-means; 0: as many as there are classes
    c.released = False  # whether to tell also lin_match_released: with the noise of training, and clusters and classes
    # of the test images, as in the released code
    c.affine = False  # whether to evaluate also on test images transformed as in affNIST
    c.affnist = ""  # folder of affNIST's .mat files to evaluate on, too (40x40 pixels); '': none
    c.num_affnist = 10_000  # images of them; 0 means all 320,000
    c.num_pictures = 8  # images shown in pictures
    return c
