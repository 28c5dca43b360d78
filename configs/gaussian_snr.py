"""Tighter bounds on a Gaussian model: signal-to-noise ratios of gradients as K or M grows (thesis, chapter 7).

python launch.py --config=configs/gaussian_snr.py --workdir=runs/gaussian_snr

Draws every Gaussian figure of the chapter: 7.3.1, 7.4.1 to 7.4.3, 7.C.1 to 7.C.6 and 7.E.1.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    config = ConfigDict()
    config.experiment = "gaussian_snr"  # module of experiments/ that holds the study
    config.seed = 0  # of data, parameters and estimates
    config.dim = 20  # D, of z and x; at least 8
    config.num_data = 1024  # N, points over which a gradient is averaged
    config.num_estimates = 10_000  # estimates of the gradient for every K, M and regime
    config.particles = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)  # K of IWAE (M = 1), ascending
    config.samples = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)  # M of the VAE (K = 1), ascending
    config.histogram = (1, 10, 100, 1000)  # the K and M, of those above, whose estimates are shown as histograms
    config.inference_fit = (10, 1000)  # K from and to which the slope of log SNR(b) is fitted
    config.generative_fit = (50, 1000)  # the same for SNR(mu), which first falls
    config.chunk = 1  # estimates computed at once by a thread; on an accelerator more are faster
    config.regimes = (
        "low_variance",
        "high_variance",
    )  # one or both; the slopes at the top of eval.json are the first's
    config.low_variance = ConfigDict()  # near the optimum
    config.low_variance.offset_std = 0.01  # std of every parameter about its optimum
    config.low_variance.covariance = 2 / 3  # of q, times the identity; that of the posterior is 1/2
    config.high_variance = ConfigDict()  # far from the optimum, with a q that is too wide
    config.high_variance.offset_std = 0.5
    config.high_variance.covariance = 1.0
    config.convergence = convergence()
    return config


def convergence() -> ConfigDict:
    c = ConfigDict()  # figure 7.E.1: all parameters are learnt
    c.particles = (1, 10, 100, 1000)  # K of IWAE (M = 1)
    c.samples = (10, 100, 1000)  # M of the VAE (K = 1)
    c.repeats = 3  # runs of each
    c.num_steps = 1_000  # 0 leaves the figure out
    c.learning_rate = 0.1  # of Adam
    c.init = (1.5, 2.5)  # every parameter starts uniformly between these
    c.covariance = 2 / 3  # of q
    return c
