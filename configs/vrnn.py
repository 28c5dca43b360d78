"""VRNN on moving digits, SQAIR's baseline (thesis, appendix 5.D.3), trained with FIVO.

python launch.py --config=configs/vrnn.py --workdir=runs/vrnn
python launch.py --config=configs/vrnn.py:conv --workdir=runs/vrnn_conv
python launch.py --config=configs/vrnn.py:mlp_paper --workdir=runs/vrnn_paper
python launch.py --config=configs/vrnn.py:conv_paper --workdir=runs/vrnn_conv_paper

On MNIST digits, as configs/sqair_mnist.py: --config.data.source=mnist '--config.data.object_size=(20, 20)'
--config.data.num_train=40000
"""

from ml_collections import ConfigDict

from configs import base, sqair


def get_config(variant: str = "mlp") -> ConfigDict:
    """``variant`` is 'mlp' or 'conv', a recipe for two CPU cores; with '_paper', training as in the paper."""
    if variant not in ("mlp", "conv", "mlp_paper", "conv_paper"):
        raise ValueError(f"the variant {variant!r} is unknown: write :mlp, :conv, :mlp_paper or :conv_paper")
    config = base.get_config()
    config.experiment = "vrnn"
    config.data = sqair.data()
    config.model = model(variant.split("_")[0])
    config.objective.name = "fivo"
    config.optimizer.learning_rate = 3e-4
    config.train.update(num_steps=6_000, batch_size=16, eval_every=1_000, checkpoint_every=1_000)
    config.evaluate.update(num_particles=1_000, particle_chunk=20, num_examples=200)
    if variant == "conv":  # whose steps take seconds
        config.train.update(num_steps=1_200, eval_every=200, checkpoint_every=100)
        config.evaluate.num_examples = 20
    config.evaluate.given_frames = 3  # frames seen before the others are imagined
    config.evaluate.addition_steps = 10_000  # the paper: 1e7
    if variant.endswith("paper"):  # which does not tell batch size, K and the number of steps
        config.optimizer.update(name="rmsprop", learning_rate=1e-5, decay="constant", clip_norm=0.0)
        config.train.update(num_steps=1_000_000, batch_size=32, eval_every=10_000, checkpoint_every=10_000)
        config.train.keep_best = "elbo"  # in place of "until convergence of test FIVO bound"
        config.data.update(num_train=60_000, num_test=10_000)
        config.evaluate.update(num_examples=10_000, addition_steps=10_000_000, addition_examples=60_000)
    return config


def model(network: str) -> ConfigDict:
    c = ConfigDict()
    c.latent_dim = 165  # dimension of z, and of the features of images and latents
    # 'mlp': the paper says 256, but its 2.1M parameters are those of 192: see models/vrnn.py
    c.hidden = 192 if network == "mlp" else 256  # units of the LSTM and of every hidden layer
    c.layers = 3 if network == "mlp" else 1  # hidden layers of every MLP
    c.network = network  # 'mlp' or 'conv': image features and decoder
    c.features = (32, 32, 32, 64, 64, 64)  # 'conv': maps and strides of the image features; the decoder mirrors them
    c.strides = (1, 2, 1, 2, 1, 2)
    c.likelihood = "gaussian"  # 'gaussian' (fixed std) or 'bernoulli'
    c.output_std = 0.3  # std of the Gaussian likelihood
    c.decoder_bias = -2.0  # initial logit of a decoded pixel
    return c
