import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import jaxprs_in_params

from experiments import evaluation, sequences
from objcentric.models import sqair
from tests.experiments import sequences as tiny


def test_sequences_worth_showing_are_not_black():
    image = np.zeros((5, 2, 3, 3, 1), np.uint8)
    for i in (1, 3, 4):
        image[i, 1, 2, 2] = i
    assert sequences.worth_showing(image, 2).max((1, 2, 3, 4)).tolist() == [1, 3]
    assert sequences.worth_showing(image, 4).max((1, 2, 3, 4)).tolist() == [0, 1, 3, 4]
    assert len(sequences.worth_showing(image, 9)) == 5


def largest_array(jaxpr) -> int:
    """Elements of the largest array that a program makes, loops and all."""
    sizes = [variable.aval.size for equation in jaxpr.eqns for variable in equation.outvars]
    inner = [program for equation in jaxpr.eqns for program in jaxprs_in_params(equation.params)]
    return max([*sizes, *map(largest_array, inner)])


def test_log_p_takes_memory_that_does_not_grow_with_particles():
    """As long as as many are held at once."""
    config = tiny.make_config()
    fields = {"num_objects": 2, "glimpse_size": (4, 4), "hidden": 8, "object_size": (4.0,)}
    model = sqair.make(sqair.Config((12, 14, 1), **fields)).model
    hparams = {"presence_prior": 0.5, "rediscovery_factor": 0.5, "presence_margin": 0.1}
    params = jax.eval_shape(model.init, jax.random.key(0))
    image = jax.ShapeDtypeStruct((3, 4, 12, 14, 1), jnp.uint8)
    keys = jax.eval_shape(lambda: jax.random.split(jax.random.key(0), 3))

    def largest(num_particles: int, chunk: int) -> int:
        config.evaluate.update(num_particles=num_particles, particle_chunk=chunk)
        bound = evaluation.make_bound(model, config.evaluate, hparams, sequences.reader("gaussian"))
        return largest_array(jax.make_jaxpr(bound)(params, image, keys).jaxpr)

    assert largest(40, 4) == largest(4_000, 4)
    assert largest(40, 40) >= 9 * largest(40, 4)
