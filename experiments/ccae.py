"""CCAE: tells constellations of points apart without labels, beside its baseline (thesis, section 6.3.1)."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from ml_collections import ConfigDict

from experiments.evaluation import in_batches
from objcentric import plots_capsules
from objcentric.data import constellations, loader
from objcentric.errors import UserError
from objcentric.metrics import clustering
from objcentric.models import capsule_fits, capsules, ccae, sparsity
from objcentric.models.model import fields_of
from objcentric.nn import poses
from objcentric.training import parallel, schedules
from objcentric.training.experiment import Experiment

WEIGHTS = ("likelihood", "too_few", "deformation") + tuple(
    f"{kind}_{axis}" for kind in ("prior", "posterior") for axis in ("within", "between")
)
_NONE = -1e9  # logarithm of what a point that is absent adds; finite, for a scene may have none
EXEMPLARS = 16  # scenes among which one is chosen for each capsule
MOST, CHOICES = 5, 1_000  # capsules whose every choice is tried where explanations are refined; choices of them
TYPICAL = 0.04  # "consistently achieves below 4% error" (thesis): a run with more of it has failed
BLIND = 0.3  # size of shapes, mean radius, and standard deviation of points, where nothing is known of a scene


def build(config: ConfigDict, *, data: loader.Data | None = None) -> Experiment:
    """The experiment that ``config`` (configs/ccae.py) describes; ``data`` takes the place of config.data's."""
    data = loader.load(config.data) if data is None else data
    check(config)
    world = constellations.make_config(config.data)
    model = ccae.make(typed(config))
    c, num_capsules = config.losses, config.model.num_capsules
    keep = config.curriculum.keep or (world.keep,) * 2
    keep_at = schedules.geometric(*keep, config.curriculum.steps, config.curriculum.begin)

    def exemplar(key: Array) -> Array:
        """Offsets ``[num_votes, 2]``: points of one of some scenes, one that has as many as there are votes, if any.

        A capsule that begins with fewer has votes that coincide, and could not explain larger constellations.
        """
        scenes = constellations.batch(world, jax.random.split(key, EXEMPLARS), keep[0])
        many = jnp.sum(scenes.presence, 1)
        best = jnp.argmax(jnp.where(many <= config.model.num_votes, many, 0))
        return offsets(scenes.points[best], scenes.presence[best], config.model.num_votes)

    def init(key: Array) -> tuple[dict, tuple]:
        params = model.init(key)
        if config.curriculum.exemplars:
            keys = jax.random.split(jax.random.fold_in(key, 1), num_capsules)
            params["generative"]["params"]["static"] = jax.vmap(exemplar)(keys)
        return params, ()

    def loss(params: dict, batch: dict, keys: Array, step: Array, aux: Any) -> tuple[Array, tuple[dict, Any]]:
        # Scenes are cheap: each step has new ones, by its own keys, and the rows of the split do not matter.
        keys = jax.vmap(lambda key: jax.random.split(key))(keys)
        scenes = constellations.batch(world, keys[:, 0], keep_at(step))
        seen = jax.vmap(model.infer, (None, 0, 0, 0))(params, keys[:, 1], scenes.points, scenes.presence)
        log_prior = jax.vmap(capsules.log_prior_presence)(seen.capsules)
        won = jax.nn.one_hot(seen.winner, num_capsules) * scenes.presence[..., None]
        too_few = jax.vmap(sparsity.too_few_parts, (0, 0, None))(log_prior, jnp.sum(won, 1), c.least_parts)
        presence = parallel.whole_batch(jnp.exp(log_prior))
        within, between = sparsity.prior(presence, c.num_classes, c.sparsity)
        there, explained = scenes.presence[..., None, None], seen.explained
        responsibility = jnp.sum(explained.responsibility * there, (1, 3))
        log_joint = jax.nn.logsumexp(jnp.where(there > 0, explained.log_joint, _NONE), (1, 3))
        whole = map(parallel.whole_batch, (responsibility, log_joint))
        posterior_within, posterior_between = sparsity.posterior(*whole, c.sparsity)
        log_likelihood = jnp.mean(jnp.sum(seen.explained.log_likelihood * scenes.presence, -1))
        bound = log_likelihood
        if c.refine:
            shape = params["generative"]["params"]["static"]
            better = jax.vmap(bound_of, (None, 0, 0, 0))(shape, scenes.points, scenes.presence, seen)
            share = jnp.clip((step - config.curriculum.begin) / max(config.curriculum.steps, 1), 0.0, 1.0)
            bound = (1 - share) * log_likelihood + share * jnp.mean(better)
        terms = {
            "too_few": jnp.mean(too_few),
            "prior_within": within,
            "prior_between": between,
            "posterior_within": posterior_within,
            "posterior_between": -posterior_between,
            "deformation": jnp.mean(seen.capsules.deformation),
        }
        total = sum(c[name] * term for name, term in terms.items()) - c.likelihood * bound
        told = {"log_likelihood": log_likelihood, "capsules": jnp.mean(jnp.sum(presence, -1))}
        return total, (terms | told, aux)

    def bound_of(shape: Array, points: Array, presence: Array, seen: ccae.Seen) -> Array:
        """Log-likelihood of a scene, but for an entropy, if points belong to what a refined explanation says.

        Left to itself an encoder that is unsure hedges: its capsules share points, at wide standard deviations. Its
        explanation teaches poses, and the refined one ``shape [K, N, 2]``, the capsules' offsets: taught by the former
        they would learn to mend what its poses lack. With standard deviations of its own it would be taught least by
        scenes that it does not understand, where they are wide: ``losses.pose_scale`` takes their place.
        Poses are taught by distances, not their squares: by those an encoder that cannot tell two explanations apart
        learns their mean, which is neither. A square that is turned by 45 degrees is as far from the true one whichever
        way it turns: it keeps still, and other capsules explain the points that it leaves. Starts by ``losses.turns``
        get free.
        """
        fixed, fixed_shape = jax.lax.stop_gradient((seen, shape))
        starts = jax.vmap(capsule_fits.turn, (None, 0))(fixed.capsules, jnp.asarray((0.0, *c.turns)))
        known = model.refine(fixed_shape, points, presence, fixed, starts, c.refine)

        def bound(pose: Array, shape: Array, of: capsules.Capsules) -> Array:
            explained = model.explain(points, of._replace(pose=pose, votes=poses.move(pose, shape)))
            return jnp.sum(known.explained.responsibility * explained.log_share, (1, 2)) @ presence

        told = seen.capsules
        taught = [bound(known.capsules.pose, shape, fixed.capsules)]
        value = bound(fixed.capsules.pose if c.pose_scale else told.pose, fixed_shape, told)
        if c.pose_scale:
            away = distance(points[:, None, None], poses.move(told.pose, fixed_shape)[None])
            taught.append(-jnp.sum(known.explained.responsibility * away, (1, 2)) @ presence / c.pose_scale)
        return value + sum(each - jax.lax.stop_gradient(each) for each in taught)

    def several(key: Array, first: capsules.Capsules) -> capsules.Capsules:
        """Starts of a search: capsules, and others that are disturbed."""
        starts = jax.vmap(capsule_fits.disturb, (0, None))(jax.random.split(key, config.evaluate.starts), first)
        return jax.tree.map(lambda one, all_of_them: all_of_them.at[0].set(one), first, starts)

    @functools.partial(jax.jit, static_argnames="search")
    def look(params: dict, rows: dict, keys: Array, search: bool = False) -> dict:
        """What the encoder makes of scenes; ``search``: and what refining that, and guesses, does."""
        which = jax.vmap(jax.random.fold_in, (None, 0))(jax.random.key(config.data.seed), rows["seed"])
        scenes = constellations.batch(world, which)
        seen = jax.vmap(model.infer, (None, None, 0, 0))(params, None, scenes.points, scenes.presence)
        found, e = {"winner": seen.winner}, config.evaluate
        if search:
            shape = params["generative"]["params"]["static"]
            fold = jax.vmap(jax.random.fold_in, (0, None))
            nothing = jax.vmap(guess, (0, None, 0))(fold(which, 2), shape, seen.capsules)
            blind = seen._replace(capsules=nothing, explained=jax.vmap(model.explain)(scenes.points, nothing))
            refine = jax.vmap(functools.partial(model.refine, shape, num_steps=e.refine))
            fit = jax.vmap(functools.partial(model.fit, num_steps=e.refine))
            found["fitted_winner"] = fit(scenes.points, scenes.presence, seen.capsules).winner
            for name, start in (("refined", seen), ("unguided", blind)):
                starts = jax.vmap(several)(fold(which, 1), start.capsules)
                found[f"{name}_winner"] = refine(scenes.points, scenes.presence, start, starts).winner
        return {
            **scenes._asdict(),
            **found,
            "log_likelihood": seen.explained.log_likelihood,
            "prior": jnp.exp(jax.vmap(capsules.log_prior_presence)(seen.capsules)),
        }

    def evaluate(params: dict, split: Any, key: Array, *, final: bool) -> dict[str, Any]:
        """Figures on a split, without noise.

        ``error``: share of the points that are assigned to the wrong constellation (`clustering.rightly_assigned`);
        ``final``, and with ``evaluate.refine``, also ``fitted_error``, after so many steps of expectation-maximisation
        of the encoder's explanations, ``refined_error``, after a search that begins with them, and ``unguided_error``,
        which tells what the encoder is needed for: after one that begins with a `guess`.
        ``log_likelihood``: nats of a scene; ``active``: the share of scenes in which each capsule wins points;
        ``capsules``: how many are there in the mean, a priori, which means nothing if neither sparsity losses nor
        ``losses.too_few`` see to it, for the normalised mixture knows presences up to a factor.
        """
        of_batch = functools.partial(look, search=final and config.evaluate.refine > 0)
        seen = in_batches(of_batch, params, split, key, config.evaluate.batch_size)
        there = seen["presence"] > 0
        size = num_capsules, len(world.patterns)
        errors = {
            f"{kind}error": 1
            - clustering.segmentation_accuracy(seen[f"{kind}winner"], seen["constellation"], there, *size)
            for kind in ("", "fitted_", "refined_", "unguided_")
            if f"{kind}winner" in seen
        }
        won = (seen["winner"][..., None] == np.arange(num_capsules)) & there[..., None]
        return {
            **errors,
            "log_likelihood": float(np.mean(np.sum(seen["log_likelihood"], 1, where=there))),
            "capsules": float(np.mean(np.sum(seen["prior"], 1))),
            "active": np.mean(won.any(1), 0).tolist(),
        }

    def figures(params: dict, split: Any, key: Array, evaluated: dict) -> dict[str, Any]:
        """Figure 6.2.1: points, the constellations they belong to, and the capsules they are assigned to."""
        few = loader.take(split, range(min(8 * config.evaluate.num_pictures, loader.size(split))))
        seen = jax.device_get(look(params, few, jax.random.split(key, loader.size(few))))
        shown = np.flatnonzero(seen["presence"].any(1))[: config.evaluate.num_pictures]
        if not len(shown):
            return {}
        arrays = (seen[name][shown] for name in ("points", "presence", "constellation", "winner"))
        return {"constellations": plots_capsules.constellations(*arrays, num_capsules=num_capsules)}

    def signature(figures: dict) -> str | None:
        unused = int(np.sum(np.asarray(figures["active"]) == 0))
        if figures["error"] <= TYPICAL:
            return None
        return f"{unused} of {num_capsules} capsules unused" if unused else f"error above {TYPICAL:.0%}"

    return Experiment(
        data=data,
        optimizer=schedules.make_optimizer(config.optimizer, config.train.num_steps),
        init=init,
        loss=loss,
        evaluate=evaluate,
        figures=figures,
        headline=("error",),
        signature=signature,
    )


def distance(a: Array, b: Array) -> Array:
    """Of points ``[..., 2]``, with gradients that stay finite where it is 0."""
    return jnp.sqrt(jnp.sum(jnp.square(a - b), -1) + 1e-6)


def guess(key: Array, shape: Array, of: capsules.Capsules) -> capsules.Capsules:
    """What one would say of a scene without looking: shapes ``[K, N, 2]`` somewhere in it, as likely there as not."""
    radius = jnp.sqrt(jnp.mean(jnp.sum(jnp.square(shape), -1), -1))
    linear = (BLIND / radius)[:, None, None] * jnp.eye(2)[None]
    shift = jax.random.uniform(key, (len(shape), 2, 1), minval=-0.5, maxval=0.5)
    pose = jnp.concatenate([linear, shift], -1)
    return of._replace(
        log_presence=jnp.full_like(of.log_presence, np.log(0.5)),
        log_vote_presence=jnp.zeros_like(of.log_vote_presence),
        pose=pose,
        votes=poses.move(pose, shape),
        scale=jnp.full_like(of.scale, BLIND),
    )


def offsets(points: Array, presence: Array, num_votes: int) -> Array:
    """Points ``[N, 2]`` that are there, told from their mean: ``[num_votes, 2]``; of too few one is repeated."""
    rows = jnp.argsort(-presence)[jnp.arange(num_votes) % len(presence)]
    rows = jnp.where(presence[rows] > 0, rows, rows[0])
    return points[rows] - jnp.average(points, axis=0, weights=presence)[None]


def check(config: ConfigDict) -> None:
    """UserError where the config does not make sense."""
    if config.data.name != "constellations":
        raise UserError(f"data.name={config.data.name!r} has no constellations: start from configs/ccae.py")
    check_losses(config.losses, WEIGHTS)
    if config.losses.least_parts < 1:
        raise UserError(f"losses.least_parts={config.losses.least_parts} must be at least 1")
    keep = config.curriculum.keep
    if len(keep) not in (0, 2) or not all(0 < each <= 1 for each in keep) or config.data.keep <= 0:
        what = f"curriculum.keep={keep}, data.keep={config.data.keep}"
        raise UserError(f"{what}: use more than 0, and no more than 1; two in the curriculum, or none")
    if not 0 <= config.losses.pose_scale < np.inf:
        raise UserError(f"losses.pose_scale={config.losses.pose_scale}: use 0, for the capsules' own, or more")
    if config.curriculum.begin < 0 or config.curriculum.steps < 0:
        raise UserError(f"curriculum={dict(config.curriculum)}: begin and steps must be at least 0")
    if config.curriculum.exemplars and config.data.allow_empty:
        raise UserError("curriculum.exemplars may be empty scenes: set data.allow_empty=False")
    for name in ("batch_size", "num_pictures"):
        if config.evaluate[name] < 1:
            raise UserError(f"evaluate.{name}={config.evaluate[name]} must be at least 1")
    m = typed(config)
    if not config.losses.refine and (config.losses.pose_scale or config.losses.turns):
        raise UserError("losses.pose_scale and turns are of refined explanations: set losses.refine, or 0 and ()")
    if config.evaluate.starts < 1:
        raise UserError(f"evaluate.starts={config.evaluate.starts} must be at least 1")
    if m.decoder == "baseline" and (m.pose, m.similarity, config.losses.deformation) != ("composed", False, 0.0):
        raise UserError(
            "model.decoder='baseline' has no poses and deforms nothing: set model.pose='composed', similarity=False and"
            " losses.deformation=0"
        )
    all_starts = ("losses", "turns", 1 + len(config.losses.turns)), ("evaluate", "starts", config.evaluate.starts)
    for part, name, starts in all_starts:
        steps = config[part].refine
        if steps < 0:
            raise UserError(f"{part}.refine={steps}: use 0, for none, or more")
        known = m.decoder == "capsules" and m.similarity and m.scale == "scene"
        known &= m.mixture == "normalised" and not m.dummy  # what belongs to whom are shares
        if steps and not (known and not m.deformable and not m.vote_presence and m.num_capsules <= MOST):
            raise UserError(
                f"{part}.refine={steps} fits similarities of known shapes: set model.similarity, deformable=False,"
                f" vote_presence=False, scale='scene', mixture='normalised', dummy=0, decoder='capsules' and"
                f" num_capsules to {MOST} at most, or refine=0"
            )
        if steps and (1 + starts) ** m.num_capsules > CHOICES:
            raise UserError(
                f"{part}.{name}={config[part][name]} would try {(1 + starts) ** m.num_capsules} choices of starts of"
                f" {m.num_capsules} capsules: use fewer, for {CHOICES} at most"
            )


def typed(config: ConfigDict) -> ccae.Config:
    """config.model; UserError for a field that is unknown."""
    fields = fields_of(config.model)
    if unknown := [name for name in fields if name not in ccae.Config.__dataclass_fields__]:
        raise UserError(f"model.{unknown[0]} is unknown: see configs/ccae.py")
    return ccae.Config(**fields)


def check_losses(c: ConfigDict, weights: tuple[str, ...]) -> None:
    """UserError unless config.losses has weights of 0 or more, and a known form of sparsity losses."""
    for name in weights:
        if not 0 <= c[name] < np.inf:
            raise UserError(f"losses.{name}={c[name]}: use 0 or more")
    if c.sparsity not in sparsity.FORMS:
        raise UserError(f"losses.sparsity={c.sparsity!r} is unknown; choose one of {', '.join(sparsity.FORMS)}")
    if not c.num_classes > 0:
        raise UserError(f"losses.num_classes={c.num_classes} must be above 0")
