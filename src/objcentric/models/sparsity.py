"""What makes capsules sparse and diverse (thesis, section 6.2.4): losses of a batch B of K object capsules, C classes.

Each exists in two forms. 'release' is that of the code with which the thesis' figures were reached. 'thesis' follows
the letter of equations 6.12 and 6.13, also where it cannot be meant: in 6.12 a mean over examples is compared with a
number of examples, B / C; in 6.13 the entropies are of the other axis than the text says. Its sums there, over capsules
and parts, or examples and parts, would leave nothing to index: ours are over parts.
"""

import jax
import jax.numpy as jnp
from jax import Array

FORMS = ("release", "thesis")


def prior(presence: Array, num_classes: float, form: str) -> tuple[Array, Array]:
    """Terms (within, between) of prior presences ``[B, K]`` in [0, 1] (equation 6.12), both to be minimised.

    An example is to have K / C capsules, a capsule B / C of the examples; C may be any number above 0, such that 1 / C
    is the share of capsules that are there. 'release': squares of the differences; 'thesis': their absolute values.
    """
    batch, num = presence.shape
    of_example = jnp.sum(presence, 1) - num / num_classes
    if form == "release":
        of_capsule = jnp.sum(presence, 0) - batch / num_classes
        return jnp.mean(jnp.square(of_example)), jnp.mean(jnp.square(of_capsule))
    of_capsule = jnp.mean(presence, 0) - batch / num_classes
    return jnp.mean(jnp.abs(of_example)), jnp.mean(jnp.abs(of_capsule))


def posterior(responsibility: Array, log_joint: Array, form: str) -> tuple[Array, Array]:
    """Terms (within, between) of equation 6.13: the first is to be minimised, the second maximised.

    Args:
      responsibility: ``[B, K]`` of each capsule, summed over the parts; what a dummy explains is left out.
      log_joint: ``[B, K]``, logarithm of equation 6.11's unnormalised posterior, summed over the parts.

    'release': the mean entropy over the capsules of an example, and that of the whole batch, both of responsibilities.
    'thesis': the mean over capsules of the entropy over examples, and the mean over examples of that over capsules.
    """
    if form == "release":
        mass = responsibility + 1e-12  # an example that the dummy explains has none
        return jnp.mean(_entropy(jnp.log(mass), 1)), _entropy(jnp.log(jnp.sum(mass, 0)), 0)
    return jnp.mean(_entropy(log_joint, 0)), jnp.mean(_entropy(log_joint, 1))


def too_few_parts(log_presence: Array, wins: Array, least: int) -> Array:
    """Cross-entropy ``[]`` of prior presences ``[K]`` and whether a capsule has won ``least`` parts, summed over K.

    The thesis asks for two parts, the released code for one.

    Args:
      log_presence: logarithm of the presences.
      wins: ``[K]``, the number of parts for which a capsule has the highest posterior probability.
    """
    log_presence = jnp.minimum(log_presence, -1e-6)
    enough = jax.lax.stop_gradient(wins >= least)
    return -jnp.sum(jnp.where(enough, log_presence, jnp.log(-jnp.expm1(log_presence))))


def _entropy(logits: Array, axis: int) -> Array:
    """Nats, of what ``logits`` are up to a constant the logarithm of."""
    log_p = jax.nn.log_softmax(logits, axis)
    return -jnp.sum(jnp.exp(log_p) * log_p, axis)
