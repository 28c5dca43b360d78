"""AIR on the frames of moving digits, one by one: the baseline of SQAIR (thesis, tables 5.4.1 and 5.D.1).

python launch.py --config=configs/air_moving.py --workdir=runs/air_moving
python launch.py --config=configs/air_moving.py:paper --workdir=runs/air_moving_paper

On MNIST digits, as configs/sqair_mnist.py: --config.data.source=mnist '--config.data.object_size=(20, 20)'
--config.data.num_train=40000 '--config.model.object_size=(20.0, 20.0)'

As the paper has it ("AIR follows the same architecture as MLP-SQAIR"), glimpses have a height and a width, so that a
frame has up to 165 latents; but, as in configs/air.py, the image encoder has one layer and the core is an LSTM. The
paper's p(n) is geometric (eq. 5.1); 'paper' learns any, 'fast' anneals a geometric one, then fits any.
"""

from ml_collections import ConfigDict

from configs import base, sqair


def get_config(variant: str = "fast") -> ConfigDict:
    """``variant`` is 'fast', a recipe for two CPU cores, or 'paper': trained as configs/sqair.py:paper."""
    if variant not in ("fast", "paper"):
        raise ValueError(f"the variant {variant!r} is unknown: write :fast or :paper")
    config = base.get_config()
    config.data = sqair.data()
    with config.ignore_type():
        config.model.object_size = (18.0, 18.0)  # height and width
    config.model.recurrence = "latent"  # 1.7M parameters, as the paper's
    config.model.reach = 1.5  # as SQAIR's: digits are partly out of view
    config.train.num_steps = 30_000  # on two CPU cores at least as long as configs/sqair.py
    config.train.update(eval_every=1_000, checkpoint_every=1_000)
    config.evaluate.update(num_particles=1_000, num_examples=200, num_pictures=30)
    config.evaluate.fit_count_prior = True  # else objects cost more than SQAIR's, each anew in each frame
    config.evaluate.addition_steps = 10_000
    if variant == "paper":
        of_paper = sqair.get_config("paper")
        config.optimizer = of_paper.optimizer
        config.train.update(num_steps=2_000_000, eval_every=10_000, checkpoint_every=10_000, keep_best="elbo")
        config.data.update(num_train=60_000, num_test=10_000)
        # A prior of counts that is learnt: the annealed one would be at its end before anything is.
        config.model.update(reach=of_paper.model.reach, scale_std=of_paper.model.scale_std, count_prior="learned")
        config.model.presence_margin = of_paper.model.presence_margin
        config.evaluate.fit_count_prior = False
        config.evaluate.update(num_examples=10_000, addition_steps=10_000_000, addition_examples=60_000)
    return config
