"""From a model and an objective to a loss, with separate targets for the model's generative and inference parts.

The one place where particles and a batch are added to a model that speaks of one datum and one particle.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from ml_collections import ConfigDict

from objcentric import objectives
from objcentric.errors import UserError
from objcentric.models.model import Model, Sequential, Trace
from objcentric.nn.mlp import MLP


class Objective(NamedTuple):
    """What config.objective describes, for one model; ``params`` has the parts generative, inference and baseline."""

    init: Callable  # (key, x) -> (baseline: its own parameters, aux: its own state), for one datum x
    loss: Callable  # (params, x [B, ...], keys [B], hparams, aux) -> (loss [], (bound [B], traces [B, K], aux))


def make(
    model: Model,
    c: ConfigDict,
    *,
    defensive: Callable | None = None,
    sequential: Sequential | None = None,
    others: dict[str, Callable] | None = None,
) -> Objective:
    """The objective ``c.name`` (of `TARGETS`, or `OF_SEQUENCES`) of ``model``, with the fields of configs/base.py.

    Args:
      defensive: ``(params, key, x, hparams) -> (z, log_u)``, with ``log_u(z, trace of z)``: the defensive component of
        delta-WW for one datum; by default the prior.
      sequential: the model's steps, if it is one of sequences: those of `OF_SEQUENCES` need them.
      others: an experiment's own targets, by name, such as `multi_sample` makes.

    Raises:
      UserError: a name that is unknown or not for this model, or a number that does not fit.
    """
    known = TARGETS | OF_SEQUENCES | (others or {})
    _check(c, sequential, known)
    network = MLP((c.baseline_hidden,), 1)
    defensive = defensive or prior(model)
    target = known[c.name]

    def init(key: Array, x: Array) -> tuple[Any, Any]:
        baseline = network.init(key, jnp.zeros(jnp.size(x))) if c.name == "nvil" else {}
        return baseline, objectives.init_moments() if c.name in ("reinforce", "nvil") else ()

    def loss(params: dict, x: Array, keys: Array, hparams: dict, aux: Any) -> tuple[Array, tuple]:
        def trace(params: dict, **options: Any) -> Trace:
            return trace_particles(model, params, keys, x, hparams, c.num_particles, **options)

        this = Batch(model, params, x, keys, hparams, c, trace, defensive, network, sequential)
        estimate, traces, extra, aux = target(this, aux)
        return jnp.mean(extra) - jnp.mean(_known(estimate.surrogate)), (estimate.bound, traces, aux)

    return Objective(init, loss)


def value_and_grad(model: Model, c: ConfigDict, **options: Any) -> Callable:
    """``(params, key, x [B, ...], hparams) -> (bound [B], grads)``, grads to *ascend*: for use without a training loop.

    There is no moving average: REINFORCE's baseline is 0, and NVIL's the network ``params["baseline"]`` if there is
    one, else one that has learnt nothing.
    """
    objective = make(model, c, **options)

    def value_and_grad(params: dict, key: Array, x: Array, hparams: dict) -> tuple[Array, dict]:
        baseline, aux = objective.init(key, x[0])
        if isinstance(aux, objectives.Moments):
            aux = aux._replace(count=jnp.ones(()))  # with none seen the score would be left out
        keys = jax.random.split(key, x.shape[0])
        (_, (bound, _, _)), grads = jax.value_and_grad(objective.loss, has_aux=True)(
            {"baseline": baseline} | params, x, keys, hparams, aux
        )
        return bound, jax.tree.map(jnp.negative, {part: grads[part] for part in params})

    return value_and_grad


def trace_particles(
    model: Model, params: dict, keys: Array, x: Array, hparams: dict, num_particles: int, z: Any = None, **options: Any
) -> Trace:
    """Traces ``[B, K, ...]`` of data ``x [B, ...]``, of the latents ``z [B, K, ...]`` if given."""
    keys = jax.vmap(lambda key: jax.random.split(key, num_particles))(keys)

    def trace(key: Array, x: Array, z: Any) -> Trace:
        return model.trace(params, key, x, hparams, z=z, **options)

    return jax.vmap(jax.vmap(trace, (0, None, 0)), (0, 0, 0))(keys, x, z)


def prior(model: Model) -> Callable:
    """The model's prior as a defensive component: log p(z) is what log p(x, z) has besides the likelihood."""

    def log_u(z: Any, trace: Trace) -> Array:
        likelihood = trace.outputs["log_likelihood"]
        # Where the likelihood is 0 the weight is too: any number will do, but -inf - -inf is none.
        return jnp.where(jnp.isneginf(likelihood), 0.0, trace.log_p - likelihood)

    def defensive(params: dict, key: Array, x: Array, hparams: dict) -> tuple[Any, Callable]:
        return model.generate(params, key, hparams)[0], log_u

    return defensive


class Batch(NamedTuple):
    """What the targets below are made of."""

    model: Model
    params: dict
    x: Array  # [B, ...]
    keys: Array  # [B]
    hparams: dict
    c: ConfigDict
    trace: Callable  # (params, **options) -> traces [B, K], of the same draws at each call
    defensive: Callable
    network: Any  # of NVIL's baseline
    sequential: Sequential | None


_no_loss = jnp.zeros(())


def stop(params: dict, *parts: str) -> dict:
    """``params`` without gradients to ``parts``; to none at all, if no part is named."""
    parts = parts or tuple(params)
    return {name: jax.lax.stop_gradient(part) if name in parts else part for name, part in params.items()}


# Each takes (batch, aux) and returns (estimate [B], traces [B, K], the baseline's loss, aux).


def _pathwise(name: str, *options: str) -> Callable:
    def target(b: Batch, aux: Any) -> tuple:
        traces = b.trace(b.params)
        settings = {option: b.c[option] for option in options}
        return getattr(objectives, name)(log_w(traces), **settings), traces, _no_loss, aux

    return target


def _piwae(b: Batch, aux: Any) -> tuple:
    generative = b.trace(stop(b.params, "inference"), pathwise=False)
    inference = b.trace(stop(b.params, "generative"))
    estimate = objectives.piwae(log_w(generative), log_w(inference), num_groups=b.c.num_groups)
    return estimate, inference, _no_loss, aux


def multi_sample(estimator: Callable, *options: str) -> Callable:
    """The target of an estimator ``(log_w [B, K], log_q_discrete [B, K]) -> Estimate`` that compares particles.

    ``options`` are fields of config.objective that it takes.
    """

    def target(b: Batch, aux: Any) -> tuple:
        traces = b.trace(b.params)
        settings = {option: b.c[option] for option in options}
        return estimator(log_w(traces), traces.log_q_discrete, **settings), traces, _no_loss, aux

    return target


def _reinforce(b: Batch, aux: Any) -> tuple:
    traces = b.trace(b.params)
    estimate = objectives.reinforce(log_w(traces), _once_seen(aux, traces.log_q_discrete), baseline=aux.mean)
    return estimate, traces, _no_loss, objectives.update_moments(aux, estimate.bound, decay=b.c.decay)


def _nvil(b: Batch, aux: Any) -> tuple:
    traces = b.trace(b.params)
    baseline = jax.vmap(lambda x: b.network.apply(b.params["baseline"], x.reshape(-1))[0])(b.x)
    log_q = _once_seen(aux, traces.log_q_discrete)
    estimate, loss = objectives.nvil(log_w(traces), log_q, baseline=baseline, moments=aux)
    loss = jnp.where(aux.count > 0, loss, 0.0)
    return estimate, traces, loss, objectives.update_moments(aux, estimate.bound - baseline, decay=b.c.decay)


def _once_seen(aux: objectives.Moments, log_q: Array) -> Array:
    """The moments of no batch are no baseline: the first batch only sets them."""
    return jnp.where(aux.count > 0, log_q, 0.0)


def _wake_wake(b: Batch, aux: Any) -> tuple:
    traces = b.trace(b.params, pathwise=False)
    theta = objectives.wake_theta(traces.log_p, traces.log_q)
    phi = objectives.wake_phi(log_w(traces), traces.log_q)
    return _add(theta, phi), traces, _no_loss, aux


def _wake_sleep(b: Batch, aux: Any) -> tuple:
    traces = b.trace(b.params, pathwise=False)
    theta = objectives.wake_theta(traces.log_p, traces.log_q)

    def dream(key: Array) -> Array:
        generate_key, trace_key = jax.random.split(key)
        z, x = jax.lax.stop_gradient(b.model.generate(b.params, generate_key, b.hparams))
        return b.model.trace(b.params, trace_key, x, b.hparams, z=z, pathwise=False).log_q

    phi = objectives.sleep_phi(jax.vmap(jax.vmap(dream))(_particle_keys(b, 1)))
    return _add(theta, phi), traces, _no_loss, aux


def _delta_wake_wake(b: Batch, aux: Any) -> tuple:
    traces = b.trace(b.params, pathwise=False)
    theta = objectives.wake_theta(traces.log_p, traces.log_q)

    def defended(key: Array, x: Array, z: Any) -> tuple[Array, Array, Array]:
        choice_key, draw_key, trace_key = jax.random.split(key, 3)
        z_defensive, log_u = b.defensive(b.params, draw_key, x, b.hparams)
        z = jax.lax.stop_gradient(objectives.defend(choice_key, z, z_defensive, delta=b.c.delta))
        trace = b.model.trace(b.params, trace_key, x, b.hparams, z=z, pathwise=False)
        return trace.log_p, trace.log_q, log_u(z, trace)

    log_p, log_q, log_u = jax.vmap(jax.vmap(defended, (0, None, 0)))(_particle_keys(b, 2), b.x, traces.z)
    phi = objectives.delta_wake_phi(log_p, log_q, log_u, delta=b.c.delta)
    return _add(theta, phi), traces, _no_loss, aux


def _reparameterized(name: str) -> Callable:
    def target(b: Batch, aux: Any) -> tuple:
        traces = b.trace(b.params)
        generative = b.trace(stop(b.params, "inference"), z=jax.lax.stop_gradient(traces.z))
        path = b.trace(stop(b.params), z=traces.z)
        return getattr(objectives, name)(log_w(generative), log_w(path)), traces, _no_loss, aux

    return target


def _fivo(criterion: Callable) -> Callable:
    """M filters of K / M particles, which resample by ``criterion``; each one's bound is a baseline of the others'."""

    def target(b: Batch, aux: Any) -> tuple:
        groups, sequential = b.c.num_groups, b.sequential

        def transition(key: Array, state: Any, x: Array) -> objectives.Transition:
            step = sequential.step(b.params, key, state, x, b.hparams)
            kept = step.z, (step.log_p, step.log_q, step.log_q_discrete), step.outputs
            return objectives.Transition(step.state, step.log_p - step.log_q, step.log_q_discrete, kept)

        def filtered(key: Array, x: Array) -> objectives.Filtered:
            num_particles = b.c.num_particles // groups
            return objectives.particle_filter(
                transition, key, sequential.start(b.params), x, num_particles=num_particles, criterion=criterion
            )

        def datum(key: Array, x: Array) -> tuple[objectives.Estimate, Trace]:
            filters = jax.vmap(filtered, (0, None))(jax.random.split(key, groups), x)
            evidence = jax.lax.stop_gradient(filters.log_evidence)
            others = (jnp.sum(evidence, 0, keepdims=True) - evidence) / (groups - 1) if groups > 1 else 0.0
            estimate = jax.tree.map(functools.partial(jnp.mean, axis=0), objectives.fivo(filters, baseline=others))
            traces = jax.vmap(_lineage)(filters.output, filters.ancestors)
            return estimate, jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), traces)

        return (*jax.vmap(datum)(b.keys, b.x), _no_loss, aux)

    return target


def _lineage(history: tuple, ancestors: Array) -> Trace:
    """Of what each step kept ``[T, K, ...]``: the trace ``[K]`` of each last particle and its ``ancestors [T, K]``."""

    def back(particle: Array, parent: Array) -> tuple[Array, Array]:
        return parent[particle], particle

    _, path = jax.lax.scan(back, jnp.arange(ancestors.shape[1]), ancestors, reverse=True)
    z, densities, outputs = jax.tree.map(lambda leaf: jax.vmap(lambda row, at: row[at])(leaf, path), history)
    sums = [jnp.sum(each, 0) for each in (*densities, outputs["log_likelihood"])]
    z, outputs = jax.tree.map(lambda leaf: jnp.swapaxes(leaf, 0, 1), (z, outputs))
    return Trace(z, *sums[:3], outputs | {"log_likelihood": sums[3]})


def log_w(traces: Trace) -> Array:
    return traces.log_p - traces.log_q


def _add(theta: objectives.Estimate, phi: objectives.Estimate) -> objectives.Estimate:
    return objectives.Estimate(theta.bound, _known(theta.surrogate) + _known(phi.surrogate))


def _known(surrogate: Array) -> Array:
    """0 in place of -inf: a datum that no particle explains teaches nothing, and the loss of the others is finite."""
    return jnp.where(jnp.isneginf(surrogate), 0.0, surrogate)


def _particle_keys(b: Batch, stream: int) -> Array:
    """Keys ``[B, K]`` that no trace has seen."""
    keys = jax.vmap(jax.random.fold_in, (0, None))(b.keys, stream)
    return jax.vmap(lambda key: jax.random.split(key, b.c.num_particles))(keys)


TARGETS = {
    "elbo": _pathwise("elbo"),
    "iwae": _pathwise("iwae"),
    "miwae": _pathwise("miwae", "num_groups"),
    "ciwae": _pathwise("ciwae", "beta"),
    "piwae": _piwae,
    "reinforce": _reinforce,
    "rloo": multi_sample(objectives.rloo),
    "nvil": _nvil,
    "vimco": multi_sample(objectives.vimco),
    "vimco_arithmetic": multi_sample(functools.partial(objectives.vimco, arithmetic=True)),
    "ciwae_vimco": multi_sample(objectives.ciwae_vimco, "beta"),
    "ww": _wake_wake,
    "ws": _wake_sleep,
    "delta_ww": _delta_wake_wake,
    "stl": _reparameterized("stl"),
    "dreg": _reparameterized("dreg"),
    "rws_dreg": _reparameterized("rws_dreg"),
}

CONTINUOUS = ("stl", "dreg", "rws_dreg")  # for models whose latents all are continuous

# Their traces are those of the last particles and their ancestors: `log_w` of them is not what the bound is made of.
OF_SEQUENCES = {"fivo": _fivo(objectives.ess_below)}


def check_discrete(c: ConfigDict) -> None:
    """UserError where the objective has no score for discrete latents."""
    if c.name in CONTINUOUS:
        raise UserError(
            f"objective.name={c.name!r} is for continuous latents alone, and presence is discrete: use vimco, ww, ..."
        )


def _check(c: ConfigDict, sequential: Sequential | None, known: dict[str, Callable]) -> None:
    if c.name not in known:
        raise UserError(f"objective.name={c.name!r} is unknown: use one of {', '.join(known)}")
    if c.name in OF_SEQUENCES and sequential is None:
        raise UserError(
            f"objective.name={c.name!r} is for models of sequences, and this one is of images: use iwae, vimco, ..."
        )
    if c.num_particles < 1:
        raise UserError(f"objective.num_particles={c.num_particles} must be at least 1")
    if (c.name == "rloo" or "vimco" in c.name) and c.num_particles < 2:
        raise UserError(f"objective.name={c.name!r} compares particles: set objective.num_particles to 2 or more")
    if c.name in ("miwae", "piwae", "fivo") and (c.num_groups < 1 or c.num_particles % c.num_groups):
        raise UserError(f"objective.num_groups={c.num_groups} must divide objective.num_particles={c.num_particles}")
    if not 0 <= c.decay < 1 or c.baseline_hidden < 1:
        raise UserError(f"objective.decay={c.decay} must be in [0, 1), baseline_hidden={c.baseline_hidden} positive")
    if not 0 <= c.beta <= 1 or not 0 <= c.delta < 1:
        raise UserError(f"objective.beta={c.beta} must be in [0, 1], delta={c.delta} in [0, 1)")
