"""Wake-sleep against other estimators on a mixture of Gaussians (thesis, section 8.4.3 and appendices 8.C and 8.E).

python launch.py --config=configs/gmm.py --workdir=runs/gmm
python launch.py --config=configs/gmm.py:short --workdir=runs/gmm_short
python launch.py --config=configs/gmm.py:short --config.initial="('near',)" --workdir=runs/gmm_near
python launch.py --config=configs/gmm.py --config.estimators="('ww', 'vimco')" --workdir=runs/gmm_two

Draws figures 8.4.4, 8.4.5, 8.C.1 and 8.C.2. What is finished is kept in the folder; the same command goes on with the
rest. The first command is the paper's schedule (hours on two cores), the second one takes minutes.
"""

from ml_collections import ConfigDict

SCHEDULES = {"paper": (100_000, 1e-3), "short": (20_000, 3e-3)}  # steps, learning rate


def get_config(schedule: str = "paper") -> ConfigDict:
    """``schedule`` is a name in `SCHEDULES`."""
    if schedule not in SCHEDULES:
        raise ValueError(f"the schedule {schedule!r} is unknown: write :paper or :short")
    config = ConfigDict()
    config.experiment = "gmm"  # module of experiments/ that holds the study
    config.estimators = ("ws", "ww", "delta_ww", "vimco", "reinforce", "relax", "concrete")  # those of figure 8.4.4;
    # others: 'rebar', 'dvae' (biased where its density jumps, see objectives.relaxation), 'dvaepp'
    config.num_particles = (2, 5, 10, 20)  # K
    config.initial = ("far",)  # theta at first: 'far' (proportions fall exponentially), 'near' (all are the same)
    config.seeds = tuple(range(10))  # trained at once
    config.num_steps, config.learning_rate = SCHEDULES[schedule]  # of Adam
    config.batch_size = 100  # data per step, drawn anew from the true mixture
    config.num_evaluations = 50  # besides the one before the first step; must divide num_steps
    config.num_test = 100  # fixed data of the true mixture, on which q is compared with the true posterior
    config.test_seed = 0  # of those data
    config.num_gradients = 10  # estimates, on the test data, of which the gradient's standard deviation is taken
    config.delta = 0.2  # 'delta_ww': share of the uniform component in its proposal, in [0, 1)
    config.temperature = (3.0, 0.5)  # 'concrete': at the first and the last step; linear in between
    config.smoothing = 8.0  # 'dvae', 'dvaepp': beta, the larger the closer to binary
    config.control_hidden = (16, 16)  # 'relax': widths of the control variate's tanh layers
    config.model = model()
    return config


def model() -> ConfigDict:
    c = ConfigDict()
    c.num_clusters = 20  # C
    c.spacing = 10.0  # of the clusters' means, 0, spacing, ...
    c.std = 5.0  # of every cluster
    c.hidden = (16,)  # widths of q's tanh layers; the authors' program has (16, 16)
    c.prior_scale = 1.0  # p(z) = softmax(prior_scale * theta); the authors' program has 0.5
    return c
