"""Every estimator through one suite: its mean against the exact answer, its invariances, its extremes.

A new estimator is one row of `ROWS`.
"""

import functools
import inspect

import jax
import jax.numpy as jnp
import pytest

from objcentric import objectives
from objcentric.objectives import bounds
from tests.objectives import checks, toys
from tests.objectives.checks import Row
from tests.objectives.toys import elbo, iwae, landing, nothing, wake

_stop = jax.lax.stop_gradient


def nvil(log_w, log_q, *, where=None):
    """Of a small variance, so that the signal is not scaled."""
    moments = objectives.Moments(jnp.float32(-1.25), jnp.float32(2.0), jnp.float32(7.0))
    return objectives.nvil(log_w, log_q, baseline=jnp.float32(0.5), moments=moments, where=where)[0]


def relax(log_w, log_q, z, z_tilde, logit, *, where=None):
    """With a control variate that is no sum over particles, and depends on q's parameter too."""

    def c(logit, z):
        z = bounds.mask(z, where, 0.0)
        soft = objectives.elbo(jax.nn.sigmoid(z), where=where).bound
        return (2.0 + logit) * soft - 1.5 * jnp.square(soft)

    logit = objectives.elbo(logit, where=where).bound
    return objectives.relax(log_w, log_q, c(logit, z), c(logit, z_tilde), c(_stop(logit), _stop(z_tilde)), where=where)


def rebar(log_w, log_q, z, z_tilde, logit, *, where=None):
    def relaxed(logit, soft):
        presence = objectives.elbo(soft[..., 1], where=where).bound
        return 1.5 * jnp.square(presence) - logit * presence

    two = [jnp.stack([jnp.zeros_like(z), z], -1) for z in (z, z_tilde)]  # the logits of absence and of presence
    return objectives.rebar(
        log_w,
        log_q,
        relaxed,
        objectives.elbo(logit, where=where).bound,
        objectives.Coupled(None, *two),
        log_temperature=-jnp.log(jnp.float32(2.0)),
        scale=0.7,
        where=where,
    )


LOG_W, SCORE = ("log_w",), ("log_w", "log_q")
REPARAMETERIZED, RELAXED = ("log_w, theta live", "log_w, path live"), ("log_w", "log_q", "z", "z~", "logit")
GROUPS = (4, 5, 3, 1, 2, 0)  # two groups of three change places, and their particles too
score_function = {toy: (iwae, iwae) for toy in ("categorical", "mixed", "ordered")}
pathwise = {"categorical": (iwae, None), "gaussian": (iwae, iwae)}
half = toys.groups_of(2)
three_quarters = toys.between(0.75)

ROWS = [
    Row("elbo", objectives.elbo, LOG_W, {"categorical": (elbo, None), "gaussian": (elbo, elbo)}, elbo),
    Row("iwae", objectives.iwae, LOG_W, pathwise | {"mixed": (iwae, None)}, iwae),
    Row(
        "miwae",
        functools.partial(objectives.miwae, num_groups=2),
        LOG_W,
        {"categorical": (half, None), "gaussian": (half, half)},
        half,
        least=2,
        sizes={"categorical": 6},
        order=GROUPS,
    ),
    Row(
        "ciwae",
        functools.partial(objectives.ciwae, beta=0.75),
        LOG_W,
        {"categorical": (three_quarters, None), "gaussian": (three_quarters, three_quarters)},
        three_quarters,
    ),
    Row(
        "piwae",
        functools.partial(objectives.piwae, num_groups=2),
        ("log_w, theta live", "log_w, phi live"),
        {"categorical": (iwae, None), "gaussian": (iwae, half)},
        iwae,
        least=2,
        sizes={"categorical": 6},
        order=GROUPS,
    ),
    Row("reinforce", objectives.reinforce, SCORE, score_function, iwae),
    Row(
        "reinforce with a baseline",
        functools.partial(objectives.reinforce, baseline=-1.75),
        SCORE,
        score_function,
        iwae,
    ),
    Row("rloo", objectives.rloo, SCORE, {"categorical": (elbo, elbo), "mixed": (elbo, elbo)}, elbo, least=2),
    Row("nvil", nvil, SCORE, score_function, iwae),
    Row("vimco", objectives.vimco, SCORE, score_function, iwae, least=2),
    Row(
        "vimco, arithmetic", functools.partial(objectives.vimco, arithmetic=True), SCORE, score_function, iwae, least=2
    ),
    Row(
        "ciwae_vimco",
        functools.partial(objectives.ciwae_vimco, beta=0.75),
        SCORE,
        {"categorical": (three_quarters, three_quarters), "mixed": (three_quarters, three_quarters)},
        three_quarters,
        least=2,
    ),
    Row("relax", relax, RELAXED, {"relaxed": (iwae, iwae)}, iwae, control=True),
    Row("rebar", rebar, RELAXED, {"relaxed": (iwae, iwae)}, iwae, control=True),
    Row(
        "wake_theta",
        objectives.wake_theta,
        ("log_p, z stopped", "log_q, z stopped"),
        {"categorical": (iwae, nothing), "gaussian": (iwae, nothing), "mixed": (iwae, nothing)},
        iwae,
    ),
    Row(
        "wake_phi",
        objectives.wake_phi,
        ("log_w", "log_q, z stopped"),
        {"categorical": (nothing, wake), "gaussian": (nothing, wake), "mixed": (nothing, wake)},
        iwae,
    ),
    Row(
        "sleep_phi",
        objectives.sleep_phi,
        ("log_q, z stopped",),
        {"categorical": (nothing, toys.sleep)},
        toys.sleep,
        proposal="p",
    ),
    Row(
        "delta_wake_phi",
        functools.partial(objectives.delta_wake_phi, delta=toys.DELTA),
        ("log_p, z stopped", "log_q, z stopped", "log_u"),
        {"categorical": (None, toys.defended)},
        toys.defended,
        proposal="mixture",
    ),
    Row("stl", objectives.stl, REPARAMETERIZED, {"gaussian": (iwae, landing)}, iwae),
    Row("dreg", objectives.dreg, REPARAMETERIZED, {"gaussian": (iwae, iwae), "hierarchical": (iwae, iwae)}, iwae),
    Row("rws_dreg", objectives.rws_dreg, REPARAMETERIZED, {"gaussian": (iwae, wake)}, iwae),
]
# Of other arrays than those of particles: test_sequential.py and test_antithetic.py.
ELSEWHERE = {"fivo", "disarm", "arms"}


def test_every_estimator_is_listed():
    def estimates(name):
        result = inspect.signature(getattr(objectives, name)).return_annotation
        return result in (objectives.Estimate, tuple[objectives.Estimate, jax.Array])

    names = {name for name in objectives.__all__ if estimates(name)}
    assert names - ELSEWHERE == {row.name.split()[0].strip(",") for row in ROWS}


@pytest.mark.parametrize("row, toy", [(row, toy) for row in ROWS for toy in row.exact], ids=str)
def test_mean_gradient(row, toy):
    checks.mean_gradient(row, toy)


@pytest.mark.parametrize("check", checks.CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("row", ROWS, ids=str)
def test_check(row, check):
    check(row)


def test_devices_share_the_data():
    """Split over four devices, data give what they give on one."""
    arrays = {row.name: checks.example(row) for row in ROWS}
    split = jax.tree.map(lambda array: array.reshape(4, 3, *array.shape[1:]), arrays)

    @jax.pmap
    def estimates(arrays):
        return {row.name: checks.program(row.function)(arrays[row.name]) for row in ROWS}

    found = jax.tree.map(lambda leaf: leaf.reshape(12, *leaf.shape[2:]), estimates(split))
    for row in ROWS:
        checks.assert_close(found[row.name], row.program(arrays[row.name], checks.EVERYWHERE))
