"""Burda's VAE on binarised MNIST (thesis, section 7.5.1), trained with IWAE or any other objective.

python launch.py --config=configs/vae_mnist.py --workdir=runs/vae_mnist
python launch.py --config=configs/vae_mnist.py --config.objective.name=dreg --workdir=runs/vae_mnist_dreg
python launch.py --config=configs/vae_mnist.py --config.data.source=embedded --workdir=runs/vae_digits
python launch.py --config=configs/vae_mnist.py:full --workdir=runs/vae_mnist_full

The last command is the paper's schedule, 3280 epochs. All eight columns of table 7.5.1: configs/vae_mnist_table.py.
"""

from ml_collections import ConfigDict

from configs import base

STEPS_PER_EPOCH = 55_000 // 20


def get_config(schedule: str = "short"):
    """``schedule`` is 'short', one epoch in stages of one length (minutes on a CPU), or 'full': the paper's."""
    if schedule not in ("short", "full"):
        raise ValueError(f"the schedule {schedule!r} is unknown: write :short or :full")
    config = base.get_config()
    config.experiment = "vae_mnist"
    config.data = data()
    config.model = model()
    config.objective.name = "iwae"
    config.objective.num_particles = 64
    optimizer(config.optimizer)
    evaluate(config.evaluate)
    config.train.update(num_steps=STEPS_PER_EPOCH, batch_size=20, inner_steps=250, log_every=250)
    config.train.update(eval_every=750, checkpoint_every=750)
    if schedule == "full":
        config.train.update(num_steps=3_280 * STEPS_PER_EPOCH, inner_steps=550)
        config.train.update(log_every=10 * STEPS_PER_EPOCH, checkpoint_every=10 * STEPS_PER_EPOCH)
        config.train.eval_every = 40 * STEPS_PER_EPOCH
        config.optimizer.stage_growth = 3.0
        config.evaluate.update(num_examples=10_000, num_valid=1_000)
    return config


def data() -> ConfigDict:
    c = ConfigDict()
    c.source = "mnist"  # images: 'mnist', 'embedded' (scikit-learn's 8x8 digits), or a folder of PNGs, an .npz, an .npy
    c.path = ""  # source='mnist': folder of the four idx files; '' means $OBJCENTRIC_DATA/mnist, else a download
    c.cache_dir = ""  # of the download; '' means $OBJCENTRIC_CACHE, else ~/.cache/objcentric
    c.seed = 0  # of the split of 'embedded' and of the user's own
    return c


def model() -> ConfigDict:
    c = ConfigDict()
    c.latent_dim = 50  # dimension of z
    c.widths = (200, 200)  # widths of the tanh layers from the image to z; those from z to the image mirror them
    return c


def optimizer(c: ConfigDict) -> None:
    """Burda's: Adam in 8 stages, whose learning rates fall from 1e-3 to 1e-4 in equal ratios, rounded."""
    c.name = "adam"
    c.learning_rate = 1e-3  # of the first stage; the last one's is a tenth
    c.decay = "staged"
    c.stage_growth = 1.0  # length of a stage in lengths of the one before: 3 in the paper, of 3^(i-1) epochs
    c.b1 = 0.99  # decay of Adam's first moment
    c.b2 = 0.999  # and of its second
    c.eps = 1e-4  # Adam's, for gradients summed over the batch
    c.clip_norm = 0.0


def evaluate(c: ConfigDict) -> None:
    c.batch_size = 4  # images at a time
    c.num_particles = 5_000  # K of log p-hat, the IWAE bound that stands for log p(x)
    c.particle_chunk = 500  # particles held in memory at once; must divide num_particles
    c.iwae_particles = 64  # K of the other bound, of the ESS and of the divergence; at most particle_chunk
    c.num_examples = 500  # test images on which all of these are measured, at the end
    c.num_valid = 100  # validation images, while training
    c.snr_repeats = 50  # gradients of one batch from which the SNR of the inference network is told; 0: it is not
