"""CCAE: capsules that tell constellations of points apart without labels (thesis, sections 6.2.1 and 6.3.1).

python launch.py --config=configs/ccae.py --workdir=runs/ccae
python launch.py --config=configs/ccae.py:baseline --workdir=runs/ccae_baseline
python launch.py --config=configs/ccae.py:thesis --workdir=runs/ccae_thesis
python launch.py --config=configs/ccae.py:thesis_baseline --workdir=runs/ccae_thesis_baseline
python launch.py --config=configs/ccae.py:release --workdir=runs/ccae_release

'fast' is a recipe for two CPU cores; 'baseline' the thesis' simpler decoder, trained for as long; 'thesis',
'thesis_baseline' and 'release' train as the thesis and the code released with it do, where they tell (an accelerator is
of use). The thesis' sparsity losses, to the letter, cannot be meant: see objcentric.models.sparsity, and choose
--config.losses.sparsity=release for what its text says. Noise in presences it tells of for SCAE; none is here.
"""

from ml_collections import ConfigDict

from configs import base

VARIANTS = ("fast", "baseline", "thesis", "thesis_baseline", "release")


def get_config(variant: str = "fast") -> ConfigDict:
    """``variant`` is one of `VARIANTS`."""
    if variant not in VARIANTS:
        raise ValueError(f"the variant {variant!r} is unknown: write one of :{', :'.join(VARIANTS)}")
    config = base.get_config()
    config.experiment = "ccae"
    del config.objective
    config.data = data()
    config.model = model()
    config.losses = losses()
    config.curriculum = curriculum()
    config.optimizer.update(learning_rate=1e-3, warmup_steps=1_000, clip_norm=1.0)
    config.train.update(batch_size=64, inner_steps=500, log_every=500)
    config.train.update(eval_every=2_000, checkpoint_every=5_000)
    config.evaluate = evaluate()
    if variant.endswith("baseline"):
        config.model.decoder = "baseline"
    if variant in ("fast", "baseline"):
        fast(config)
    else:
        config.model.units = 128
        config.optimizer = rmsprop(batch_size=64)
        config.train.update(num_steps=300_000, batch_size=64, eval_every=20_000, checkpoint_every=20_000)
        config.losses.update(least_parts=2, sparsity="thesis")
        config.losses.deformation = 0.0 if variant.endswith("baseline") else 10.0  # "strong", section 6.2.1
    if variant == "release":
        config.data.update(rotation=90.0, normalise="world")
        config.losses.update(least_parts=1, sparsity="release")
        config.model.mask = "release"
    return config


def fast(config: ConfigDict) -> None:
    """A curriculum, and a simpler decoder.

    Capsules have shapes that no input deforms, moved by similarities: as constellations are made, where the thesis'
    may be deformed and have affine poses. Their offsets begin as the points of constellations. One alone is soon
    fitted; then more come in, and more of them than in evaluation. Poses are learnt much faster as matrices than as
    angles and scales. With a standard deviation, or a presence, for each vote, capsules get stuck where two votes fit,
    and others are wide or absent.

    To find shapes among points is a search, to place them a matter of least squares: an encoder alone learns both
    slowly. Its explanations are refined by expectation-maximisation, also from capsules that are turned, as what it is
    to learn; evaluation tells errors before and after. Which of two capsules that look alike is where is a convention.
    If what teaches is what is nearest to the encoder's own, it learns faster at first, but comes to rest at a larger
    error. Without layer norm it learns more in as many steps, by Muon far more, and at a higher rate, if that is
    reached slowly: else it may come to tell the same of all scenes. Sparsity losses, and that against capsules that win
    one point, are not needed.

    The baseline has nothing that could be refined. Losses of the posterior leave a constellation to one of its
    capsules.
    """
    config.data.allow_empty = False
    config.model.layer_norm = False
    config.optimizer.name = "muon"
    if config.model.decoder != "baseline":  # whose features tell location, precision and presence of each point
        config.model.update(pose="matrix", scale="scene", vote_presence=False, similarity=True, deformable=False)
        config.losses.update(refine=8, pose_scale=0.1, turns=(45.0,))
        config.evaluate.refine = 20
        config.optimizer.update(learning_rate=2e-3, warmup_steps=5_000)
        config.train.num_steps = 60_000
    else:
        config.losses.update(posterior_within=5.0, posterior_between=5.0)
        config.optimizer.update(learning_rate=3e-4, warmup_steps=3_000)
        config.train.num_steps = 120_000  # each takes half of the time: nothing is refined
    config.losses.update(prior_within=0.0, prior_between=0.0, too_few=0.0)
    config.curriculum.update(keep=(0.02, 0.75), begin=2_000, steps=2_000, exemplars=True)


def rmsprop(batch_size: int) -> ConfigDict:
    c = base.optimizer()
    c.update(name="rmsprop_tf", learning_rate=1e-5, decay="constant", clip_norm=0.0)
    c.eps = (10.0 * batch_size) ** -2  # section 6.A.2
    return c


def data() -> ConfigDict:
    c = ConfigDict()
    c.name = "constellations"
    c.patterns = ("square", "triangle", "square")  # of the constellations: 'square' (4 points) or 'triangle' (3)
    c.keep = 0.5  # probability that a constellation is there
    c.scale = (1.0, 4.0)  # smallest and largest, in units of half a square's side; uniform in between
    c.rotation = 180.0  # uniform in +-rotation, degrees (release: 90)
    c.shift = 6.0  # uniform in +-shift along each axis, in the units of scale
    # What is scaled into [-1, 1]^2 as one: an 'example', or the whole 'world', nearly as in the release, which scales a
    # hundred batches as one.
    c.normalise = "example"
    c.allow_empty = True  # whether scenes may have no point; else they are drawn anew
    c.num_train = 10_000  # has no effect: training scenes are drawn anew in each step
    c.num_valid = 2_000
    c.num_test = 10_000
    c.seed = 0  # of the scenes that are evaluated on; independent of config.seeds
    return c


def model() -> ConfigDict:
    c = ConfigDict()
    c.num_capsules = 3  # K
    c.num_votes = 4  # N, candidate points of a capsule
    c.decoder = "capsules"  # or 'baseline': features tell the candidates themselves, not offsets that a pose moves
    c.similarity = False  # whether poses of objects are similarities; else affine
    c.deformable = True  # whether offsets of candidates may depend on the input
    c.pose = "composed"  # what capsules tell of their poses: scales, angle, shear and shift; or the 'matrix' itself
    c.vote_presence = True  # whether votes of a capsule that is there may be absent
    c.scale = "vote"  # whether each 'vote' has a standard deviation of its own, or all votes of a 'scene' share one
    c.hidden = 128  # units of each capsule's perceptron
    c.blocks = 4  # of the set transformer
    c.heads = 4
    c.units = 32  # of each head (thesis: 128)
    c.features = 32  # of a capsule
    c.layer_norm = True
    c.inducing = 0  # points by which blocks attend, in time linear in the number of elements (ISAB); 0: to each other
    c.pooling = "attention"  # or 'pma', as in the set transformer's paper: see objcentric.nn.set_transformer
    c.mask = "log_presence"  # how absent points are left out: see objcentric.nn.set_transformer.log_bias
    c.mixture = "normalised"  # or 'unnormalised': see objcentric.models.capsules
    c.dummy = 0.0  # weight times density of a component that explains what no capsule does; 0: none
    c.noise = 0.0  # uniform in +-noise, added to logits of presences in training
    return c


def losses() -> ConfigDict:
    c = ConfigDict()  # weights are those of table 6.A.2
    c.likelihood = 1.0  # of a scene: the sum over its points
    c.sparsity = "release"  # form of the sparsity losses: 'release' or 'thesis', see objcentric.models.sparsity
    c.prior_within = 1.0
    c.prior_between = 1.0
    c.posterior_within = 0.0  # entropy of a scene's capsules, by their shares of its points
    c.posterior_between = 0.0  # the same of a batch, to be large
    c.num_classes = 2.0  # C: a share of 1 / C of the capsules is there
    c.too_few = 10.0  # cross-entropy of presences and whether capsules win ...
    c.least_parts = 2  # ... so many points (thesis: 2; release: 1)
    c.deformation = 0.0  # half the squared norm of what in the offsets depends on the input
    # Steps of expectation-maximisation that refine an explanation of a scene: see objcentric.models.ccae. What points
    # belong to is then taken from it for the likelihood, more and more so while constellations come in; 0: none.
    c.refine = 0
    c.turns = ()  # degrees by which each capsule of an explanation may be turned where its refinement starts
    # Refined explanations teach poses by distances between points and votes in units of this; 0: by squared ones, in
    # units of each capsule's standard deviation.
    c.pose_scale = 0.0
    return c


def curriculum() -> ConfigDict:
    c = ConfigDict()  # of training scenes; the thesis has none
    # Two in place of data.keep, at first and in the end; near 0, and without empty scenes, there is one constellation.
    c.keep = ()
    c.begin = 0  # all stays as it is at first until this step
    c.steps = 0  # from then on, until it is as in the end
    c.exemplars = False  # whether each capsule's offsets begin as the points of such a scene, of as many points as it
    # has votes; else at random
    return c


def evaluate() -> ConfigDict:
    c = ConfigDict()
    c.batch_size = 500
    c.num_pictures = 10  # scenes shown in the picture
    c.refine = 0  # steps, as of losses.refine, after which figures tell another error, and that of guesses; 0: neither
    c.starts = 2  # of each capsule in the refinement: its own place and, if above 1, disturbed ones
    return c
