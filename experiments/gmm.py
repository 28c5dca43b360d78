"""A mixture of Gaussians learnt by wake-sleep and by its rivals (thesis, section 8.4.3, appendices 8.C and 8.E).

The latent variable has few values, so p(x, z) and q(z | x) of a datum are computed for all of them at once, and K draws
look theirs up; the estimators are those of `objcentric.objectives`. A test holds gradients against
`objcentric.training.targets` on the model's own trace.
"""

import functools
import itertools
import json
import math
import os
import threading
import zipfile
from collections.abc import Callable, Sequence
from concurrent.futures import CancelledError, ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array, lax
from matplotlib.figure import Figure
from ml_collections import ConfigDict

from objcentric import objectives, plots_gmm
from objcentric.errors import UserError
from objcentric.models import gmm
from objcentric.training.study import Result, track

_stop = lax.stop_gradient


class Setting(NamedTuple):
    """One of the runs of a study; its seeds are trained at once."""

    initial: str
    estimator: str
    num_particles: int

    def __str__(self) -> str:
        return f"{self.initial}/{self.estimator}/{self.num_particles}"


# --------------------------------------------------------------------------------------------------------- estimators


class Problem(NamedTuple):
    """What an estimator is made of."""

    c: ConfigDict
    model: gmm.Config
    num_particles: int


# Each takes a problem and returns ``(params, control, key, x [B], temperature) -> surrogate [B]``, ascended, where
# ``control`` has the parameters of a control variate, if there is one.


def discrete(objective: Callable) -> Callable:
    """``objective(log_p [B, K], log_q [B, K])`` of K draws from q."""

    def make(problem: Problem) -> Callable:
        def surrogate(params: dict, control: Any, key: Array, x: Array, temperature: Array) -> Array:
            log_p, log_q = densities(problem.model, params, x)
            z = gmm.draw(key, log_q, problem.num_particles)
            return objective(look_up(log_p, z), look_up(log_q, z))

        return surrogate

    return make


def _wake_wake(log_p: Array, log_q: Array) -> Array:
    return objectives.wake_theta(log_p, log_q).surrogate + objectives.wake_phi(log_p - log_q, log_q).surrogate


def _wake_sleep(problem: Problem) -> Callable:
    model, num_particles = problem.model, problem.num_particles

    def surrogate(params: dict, control: Any, key: Array, x: Array, temperature: Array) -> Array:
        wake_key, z_key, x_key = jax.random.split(key, 3)
        log_p, log_q = densities(model, params, x)
        z = gmm.draw(wake_key, log_q, num_particles)
        theta = objectives.wake_theta(look_up(log_p, z), look_up(log_q, z))
        dream_z = gmm.draw(z_key, gmm.log_prior(model, params), x.size * num_particles)
        _, dream_log_q = densities(model, params, gmm.draw_x(model, x_key, dream_z))
        phi = objectives.sleep_phi(look_up(dream_log_q, dream_z[:, None]).reshape(x.size, num_particles))
        return theta.surrogate + phi.surrogate

    return surrogate


def _delta_wake_wake(problem: Problem) -> Callable:
    delta, num_particles = problem.c.delta, problem.num_particles
    log_u = -math.log(problem.model.num_clusters)

    def surrogate(params: dict, control: Any, key: Array, x: Array, temperature: Array) -> Array:
        theta_key, phi_key = jax.random.split(key)
        log_p, log_q = densities(problem.model, params, x)
        z = gmm.draw(theta_key, log_q, num_particles)
        theta = objectives.wake_theta(look_up(log_p, z), look_up(log_q, z))
        z = gmm.draw(phi_key, jnp.log((1 - delta) * jnp.exp(log_q) + delta * math.exp(log_u)), num_particles)
        log_p, log_q = look_up(_stop(log_p), z), look_up(log_q, z)
        phi = objectives.delta_wake_phi(log_p, log_q, jnp.full(z.shape, log_u), delta=delta)
        return theta.surrogate + phi.surrogate

    return surrogate


def _relax(problem: Problem) -> Callable:
    """The control variate is a network of x and the K relaxed draws (thesis, eq. 8.9)."""
    model = problem.model

    def variate(control: list, x: Array, z: Array) -> Array:
        first, *rest = control
        of_x = gmm.rescale(model, x)[:, None] * first["kernel"][:1] + first["bias"][None]
        hidden = jnp.tanh(z @ first["kernel"][1:] + of_x[:, None])
        outputs = jax.vmap(jax.vmap(gmm.apply_layers, (None, 0)), (None, 0))(rest, hidden)
        return jnp.mean(outputs, axis=(-2, -1))

    def surrogate(params: dict, control: Any, key: Array, x: Array, temperature: Array) -> Array:
        log_p, log_q = densities(model, params, x)
        drawn = couple(key, log_q, problem.num_particles)
        log_p, log_q = look_up(log_p, drawn.b), look_up(log_q, drawn.b)
        c = [variate(control, x, z) for z in (drawn.z, drawn.z_tilde, _stop(drawn.z_tilde))]
        return objectives.relax(log_p - log_q, log_q, *c).surrogate

    return surrogate


def _rebar(problem: Problem) -> Callable:
    """The control variate is the bound with "soft PMFs" (thesis, eq. 8.8)."""
    model = problem.model

    def surrogate(params: dict, control: Any, key: Array, x: Array, temperature: Array) -> Array:
        log_p, log_q = densities(model, params, x)
        drawn = couple(key, log_q, problem.num_particles)
        prior = _stop(gmm.log_prior(model, params))

        def relaxed(log_q: Array, y: Array) -> Array:
            weights = jax.vmap(gmm.soft_log_weight, (None, None, 0, 0, 0))
            return objectives.log_mean_exp(weights(model, prior, log_q, y, x))

        log_p, log_q_drawn = look_up(log_p, drawn.b), look_up(log_q, drawn.b)
        return objectives.rebar(log_p - log_q_drawn, log_q_drawn, relaxed, log_q, drawn, **control).surrogate

    return surrogate


def _concrete(problem: Problem) -> Callable:
    """IWAE's bound of the model whose p and q are both Concrete."""
    model = problem.model

    def surrogate(params: dict, control: Any, key: Array, x: Array, temperature: Array) -> Array:
        logits = repeat(logits_of(model, params, x), problem.num_particles)
        log_y = objectives.concrete(key, logits, temperature)
        log_p = objectives.concrete_log_prob(log_y, gmm.prior_logits(model, params)[None, None], temperature)
        log_q = objectives.concrete_log_prob(log_y, logits, temperature)
        likelihood = gmm.relaxed_log_likelihood(model, jnp.exp(log_y), x[:, None])
        return objectives.iwae(log_p + likelihood - log_q).surrogate

    return surrogate


def _smoothed(draw: Callable, log_prob: Callable) -> Callable:
    """The same of C - 1 smoothed binary variables, which break a stick into a relaxed one-hot draw."""

    def make(problem: Problem) -> Callable:
        model, beta = problem.model, problem.c.smoothing

        def surrogate(params: dict, control: Any, key: Array, x: Array, temperature: Array) -> Array:
            logits = objectives.stick_breaking_logits(logits_of(model, params, x))
            logits = repeat(logits, problem.num_particles)
            breaks = draw(key, logits, beta)
            prior_logits = objectives.stick_breaking_logits(gmm.prior_logits(model, params))[None, None]
            log_w = jnp.sum(log_prob(breaks, prior_logits, beta) - log_prob(breaks, logits, beta), axis=-1)
            likelihood = gmm.relaxed_log_likelihood(model, objectives.stick_breaking(breaks), x[:, None])
            return objectives.iwae(log_w + likelihood).surrogate

        return surrogate

    return make


ESTIMATORS = {
    "ws": _wake_sleep,
    "ww": discrete(_wake_wake),
    "delta_ww": _delta_wake_wake,
    "vimco": discrete(lambda log_p, log_q: objectives.vimco(log_p - log_q, log_q).surrogate),
    "reinforce": discrete(lambda log_p, log_q: objectives.reinforce(log_p - log_q, log_q).surrogate),
    "relax": _relax,
    "rebar": _rebar,
    "concrete": _concrete,
    "dvae": _smoothed(objectives.spike_and_exponential, objectives.spike_and_exponential_log_prob),
    "dvaepp": _smoothed(objectives.overlapping_exponentials, objectives.overlapping_exponentials_log_prob),
}


CONTROLS = {  # of those that have a control variate, its parameters at first
    "relax": gmm.init_layers,
    "rebar": lambda key, sizes: {"log_temperature": jnp.zeros(()), "scale": jnp.ones(())},
}


def logits_of(model: gmm.Config, params: dict, x: Array) -> Array:
    """q's logits ``[B, C]``."""
    return jax.vmap(gmm.encode, (None, None, 0))(model, params, x)


def densities(model: gmm.Config, params: dict, x: Array) -> tuple[Array, Array]:
    """log p(x, z) and log q(z | x) ``[B, C]`` of all z."""
    likelihood = jax.vmap(gmm.log_likelihood, (None, 0))(model, x)
    return gmm.log_prior(model, params)[None] + likelihood, jax.nn.log_softmax(logits_of(model, params, x))


def look_up(table: Array, z: Array) -> Array:
    """``[B, C]`` at ``z [B, K]``."""
    return jnp.take_along_axis(table, z, axis=-1)


def repeat(logits: Array, num_particles: int) -> Array:
    """``[B, C] -> [B, K, C]``."""
    return jnp.broadcast_to(logits[:, None], (logits.shape[0], num_particles, logits.shape[1]))


def couple(key: Array, log_q: Array, num_particles: int) -> objectives.Coupled:
    return objectives.gumbel_pair(key, repeat(log_q, num_particles))


def gradients(surrogate: Callable, params: dict, control: Any, key: Array, x: Array, temperature: Array) -> tuple:
    """Means over the data ``x [B]``: for ``params`` to ascend, for ``control`` to descend.

    The latter is of the squared gradient, of theta too: that of theta has nothing of the control variate.
    """

    def mean(params: dict, control: Any) -> Array:
        return jnp.mean(surrogate(params, control, key, x, temperature))

    if not jax.tree.leaves(control):
        return jax.grad(mean)(params, control), control
    return objectives.control_variate_gradients(mean, params, control)


# ----------------------------------------------------------------------------------------------------------- training


class State(NamedTuple):
    """Of one seed."""

    params: dict
    control: Any
    memory: Any  # of Adam
    key: Array


class Evaluation(NamedTuple):
    """Of one seed at one time; the thesis' section 8.4.3 and figure 8.C.1."""

    p_error: Array  # [] distance between p(z) and the true p(z)
    q_error: Array  # [] distance between q(z | x) and the true p(z | x), mean over the test data
    gradient_std: Array  # [] std of the estimate of phi's gradient, mean over its elements
    prior: Array  # [C] p(z)
    posterior: Array  # [C, C] q(z | x) with x at each cluster's mean


class Programs(NamedTuple):
    """Of all S seeds at once, and of one setting."""

    train: Callable  # (State [S], first step []) -> State [S], some steps later
    evaluate: Callable  # (State [S], step []) -> Evaluation [S]


def init_state(c: ConfigDict, setting: Setting) -> State:
    """Of all S seeds; settings differ in their control variates alone."""
    control = setting.estimator if setting.estimator in CONTROLS else None
    sizes = (1 + c.model.num_clusters, *c.control_hidden, 1)
    return _init_state(model_config(c, setting.initial), control, sizes, jnp.asarray(c.seeds, jnp.uint32))


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _init_state(model: gmm.Config, control: str | None, sizes: tuple[int, ...], seeds: Array) -> State:
    def init(seed: Array) -> State:
        init_key, control_key, key = jax.random.split(jax.random.key(seed), 3)
        params = gmm.make(model).init(init_key)
        variate = CONTROLS[control](control_key, sizes) if control else ()
        return State(params, variate, optax.adam(0.0).init((params, variate)), key)

    return jax.vmap(init)(seeds)


def make_programs(c: ConfigDict, setting: Setting) -> Programs:
    model = model_config(c, setting.initial)
    problem = Problem(c, model, setting.num_particles)
    surrogate = ESTIMATORS[setting.estimator](problem)
    optimizer = optax.adam(c.learning_rate)
    true_log_prior = gmm.true_log_prior(model)

    def draw_data(key: Array, num: int) -> Array:
        z_key, x_key = jax.random.split(key)
        return gmm.draw_x(model, x_key, gmm.draw(z_key, true_log_prior, num))

    def train_step(state: State, step: Array) -> State:
        x_key, key = jax.random.split(jax.random.fold_in(state.key, step))
        x = draw_data(x_key, c.batch_size)
        ascent, descent = gradients(surrogate, state.params, state.control, key, x, temperature(c, step))
        descent = (jax.tree.map(jnp.negative, ascent), descent)
        updates, memory = optimizer.update(descent, state.memory)
        params, control = optax.apply_updates((state.params, state.control), updates)
        return State(params, control, memory, state.key)

    def train(state: State, first: Array) -> State:
        def body(i: Array, state: State) -> State:
            return jax.vmap(train_step, (0, None))(state, first + i)

        return lax.fori_loop(0, c.num_steps // c.num_evaluations, body, state)

    def evaluate(state: State, step: Array) -> Evaluation:
        params = state.params
        test_x = draw_data(jax.random.key(c.test_seed), c.num_test)
        prior, true_prior = jnp.exp(gmm.log_prior(model, params)), jnp.exp(true_log_prior)

        def posterior(x: Array) -> Array:
            return jax.nn.softmax(gmm.encode(model, params, x))

        def distance(x: Array) -> Array:
            return jnp.linalg.norm(posterior(x) - jnp.exp(gmm.log_posterior(model, true_log_prior, x)))

        def phi_gradient(key: Array) -> Any:
            return gradients(surrogate, params, state.control, key, test_x, temperature(c, step))[0]["inference"]

        # Training folds in steps, which are smaller.
        keys = jax.random.split(jax.random.fold_in(state.key, c.num_steps + step), c.num_gradients)
        estimates = jax.tree.leaves(lax.map(phi_gradient, keys))
        std = jnp.concatenate([jnp.std(leaf, axis=0, ddof=1).reshape(-1) for leaf in estimates])
        return Evaluation(
            jnp.linalg.norm(prior - true_prior),
            jnp.mean(jax.vmap(distance)(test_x)),
            jnp.mean(std),
            prior,
            jax.vmap(posterior)(gmm.means(model)),
        )

    return Programs(jax.jit(train), jax.jit(jax.vmap(evaluate, (0, None))))


def temperature(c: ConfigDict, step: Array) -> Array:
    """Of the Concrete distribution ``[]``."""
    first, last = c.temperature
    return first + (last - first) * step / c.num_steps


def model_config(c: ConfigDict, initial: str) -> gmm.Config:
    return gmm.Config(**c.model, initial=initial)


def train(c: ConfigDict, setting: Setting, stop: threading.Event) -> dict[str, np.ndarray]:
    """Curves of all seeds, evaluations first: ``step [T]``, fields of `Evaluation` ``[T, S]``; p and q at three times.

    ``prior [3, S, C]`` and ``posterior [3, S, C, C]`` are of the start, the middle and the end. Ends early, with
    `CancelledError`, once ``stop`` is set.
    """
    length = c.num_steps // c.num_evaluations
    steps = np.arange(c.num_evaluations + 1) * length
    # Nothing here is sharded, and random numbers take much of the time: half of it this way.
    with jax.threefry_partitionable(False):
        programs = make_programs(c, setting)
        state = init_state(c, setting)
        rows = [jax.device_get(programs.evaluate(state, steps[0]))]
        for step in steps[:-1]:
            if stop.is_set():
                raise CancelledError
            state = programs.train(state, step)
            rows.append(jax.device_get(programs.evaluate(state, step + length)))
    curves = Evaluation(*(np.stack(leaves) for leaves in zip(*rows, strict=True)))
    times = [0, c.num_evaluations // 2, c.num_evaluations]
    shown = {"prior": curves.prior[times], "posterior": curves.posterior[times]}
    return {"step": steps} | curves._asdict() | shown


# --------------------------------------------------------------------------------------------------------------- study

LABELS = {
    "ws": "WS",
    "ww": "WW",
    "delta_ww": "\u03b4-WW",
    "vimco": "VIMCO",
    "reinforce": "REINFORCE",
    "relax": "RELAX",
    "rebar": "REBAR",
    "concrete": "Concrete",
    "dvae": "DVAE",
    "dvaepp": "DVAE++",
}
QUANTITIES = {
    "p_error": "distance of p(z) from the truth",
    "q_error": "distance of q(z | x) from the truth",
    "gradient_std": "std of \u03c6's gradient",
}


def study(config: ConfigDict, folder: Path) -> Result:
    """Trains every setting, but for those that an earlier start has left in ``folder / "parts"``.

    Writes ``table.md``, medians and quartiles over seeds, to the folder.

    Returns:
      figures ``<initial>/<estimator>/<K>/<quantity>`` of each seed after the last step, and pictures by name.

    Raises:
      UserError: a field of the config is wrong, or the folder holds parts of another config.
    """
    check(config)
    (folder / "parts").mkdir(exist_ok=True)
    settings = [
        Setting(*names) for names in itertools.product(config.initial, config.estimators, sorted(config.num_particles))
    ]
    parts = {setting: load(config, setting, folder) for setting in settings}
    # The longest ones first, so that all cores are busy to the end.
    missing = [setting for setting in settings if parts[setting] is None]
    missing.sort(key=lambda setting: -setting.num_particles)
    parts |= train_all(config, missing, folder)
    final = {setting: {name: parts[setting][name][-1] for name in QUANTITIES} for setting in settings}
    (folder / "table.md").write_text(table(final))
    per_seed = {
        seed: {f"{setting}/{name}": float(values[s]) for setting, of in final.items() for name, values in of.items()}
        for s, seed in enumerate(config.seeds)
    }
    return Result(per_seed, draw(config, parts), config.num_steps)


def check(c: ConfigDict) -> None:
    """Raises UserError unless the fields fit."""
    for name, allowed in (("estimators", ESTIMATORS), ("initial", gmm.INITIAL)):
        if not c[name] or not set(c[name]) <= set(allowed):
            raise UserError(f"{name}={tuple(c[name])}: use some of {', '.join(allowed)}")
    fewest = (2, " ('vimco' compares particles)") if "vimco" in c.estimators else (1, "")
    for name, (least, why) in {"num_particles": fewest, "seeds": (0, "")}.items():
        if not c[name] or len(set(c[name])) < len(c[name]) or min(c[name]) < least:
            raise UserError(f"{name}={tuple(c[name])}: use one or more different numbers from {least}{why}")
    sizes = ("num_steps", "batch_size", "num_evaluations", "num_test")
    for name, least in (*((name, 1) for name in sizes), ("num_gradients", 2)):
        if c[name] < least:
            raise UserError(f"{name}={c[name]}: use at least {least}")
    if c.num_steps % c.num_evaluations:
        raise UserError(f"num_evaluations={c.num_evaluations} must divide num_steps={c.num_steps}")
    if len(c.temperature) != 2 or min(c.temperature) <= 0:
        raise UserError(f"temperature={c.temperature}: use two positive numbers, of the first and the last step")
    if c.smoothing <= 0 or not 0 <= c.delta < 1 or min(c.control_hidden, default=0) < 1:
        raise UserError(
            f"smoothing={c.smoothing} must be positive, control_hidden={c.control_hidden} one or more positive widths,"
            f" delta={c.delta} in [0, 1)"
        )
    gmm.Config(**c.model)


def train_all(c: ConfigDict, settings: Sequence[Setting], folder: Path) -> dict[Setting, dict[str, np.ndarray]]:
    """Trains as many settings at once as there are cores, and saves each."""
    stop = threading.Event()

    def run(setting: Setting) -> tuple[Setting, dict[str, np.ndarray]]:
        part = train(c, setting, stop)
        save(c, setting, folder, part)
        return setting, part

    with ThreadPoolExecutor(num_workers()) as pool:
        try:
            done = [pool.submit(run, setting) for setting in settings]
            return dict(track((future.result() for future in as_completed(done)), len(done), "settings"))
        finally:  # after an exception or Ctrl-C, what is under way ends at its next evaluation
            stop.set()
            pool.shutdown(cancel_futures=True)


def num_workers() -> int:
    """An accelerator does one setting at a time."""
    if jax.default_backend() != "cpu":
        return 1
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def save(c: ConfigDict, setting: Setting, folder: Path, part: dict[str, np.ndarray]) -> None:
    """Writes the part, whole or not at all."""
    path = part_path(folder, setting)
    temporary = path.with_suffix(".tmp")
    with temporary.open("wb") as file:
        np.savez(file, config=np.array(json.dumps(shared_fields(c))), **part)
    os.replace(temporary, path)


def load(c: ConfigDict, setting: Setting, folder: Path) -> dict[str, np.ndarray] | None:
    """What `save` has written for this config; None if there is nothing."""
    path = part_path(folder, setting)
    if not path.exists():
        return None
    try:
        with path.open("rb") as opened, np.load(opened) as file:
            part = dict(file)
    except (OSError, EOFError, ValueError, zipfile.BadZipFile) as error:
        raise UserError(f"{path} cannot be read ({error}): remove it, and the same command makes it anew") from error
    theirs, ours = json.loads(str(part.pop("config"))), shared_fields(c)
    different = [name for name in ours | theirs if theirs.get(name) != ours.get(name)]
    if different:
        what = "; ".join(f"{name}={theirs.get(name)}, not {ours.get(name)}" for name in different)
        raise UserError(f"{path} was trained with {what}: choose another --workdir")
    return part


def part_path(folder: Path, setting: Setting) -> Path:
    return folder / "parts" / f"{str(setting).replace('/', '_')}.npz"


def shared_fields(c: ConfigDict) -> dict[str, Any]:
    """The fields that all settings of a study share, as JSON has them."""
    fields = json.loads(c.to_json_best_effort())
    return {name: value for name, value in fields.items() if name not in ("estimators", "num_particles", "initial")}


# ------------------------------------------------------------------------------------------------- tables and pictures


def table(final: dict[Setting, dict[str, np.ndarray]]) -> str:
    """Medians and quartiles over seeds, a table for each initialisation and quantity, in Markdown."""
    numbers = list(dict.fromkeys(setting.num_particles for setting in final))
    lines = []
    for initial, name in itertools.product(dict.fromkeys(setting.initial for setting in final), QUANTITIES):
        lines += [f"#### {initial}: {QUANTITIES[name]}", "", "Median (quartiles) over seeds, after the last step.", ""]
        lines += ["| | " + " | ".join(f"K = {k}" for k in numbers) + " |", "| --- |" + " --- |" * len(numbers)]
        for estimator in dict.fromkeys(setting.estimator for setting in final):
            values = (final[Setting(initial, estimator, k)][name] for k in numbers)
            quartiles = (np.percentile(value, [50, 25, 75]) for value in values)
            cells = ("{:.3f} ({:.3f}\u2013{:.3f})".format(*quartile) for quartile in quartiles)
            lines.append(f"| {LABELS[estimator]} | " + " | ".join(cells) + " |")
        lines.append("")
    lines += ["#### What the thesis says of these medians", ""]
    for said, (quantities, pairs) in claims(list(final)).items():
        wrong = [
            f"{name} of {low} < {high}"
            for name, (low, high) in itertools.product(quantities, pairs)
            if not np.median(final[low][name]) < np.median(final[high][name])
        ]
        if num := len(quantities) * len(pairs):
            lines.append("; not ".join([f"- {said}: {num - len(wrong)} of {num}", *wrong]))
    return "\n".join([*lines, ""])


def claims(settings: Sequence[Setting]) -> dict[str, tuple[Sequence[str], list[tuple[Setting, Setting]]]]:
    """What the thesis says of figures 8.4.4, 8.C.1 and 8.C.2: quantities, and pairs (the smaller, the larger)."""
    numbers = sorted({setting.num_particles for setting in settings})
    few, many = numbers[0], numbers[-1]
    errors, std = ("p_error", "q_error"), ("gradient_std",)
    pairs = [(a, b) for a, b in itertools.permutations(settings, 2) if a.initial == b.initial]
    rivals = [(a, b) for a, b in pairs if a.num_particles == b.num_particles]
    larger = [(a, b) for a, b in pairs if a.estimator == b.estimator and a.num_particles < b.num_particles]
    next_larger = [(a, b) for a, b in larger if (a.num_particles, b.num_particles) in itertools.pairwise(numbers)]

    def best(initial: str, names: set[str], *at: int) -> list[tuple[Setting, Setting]]:
        mine = [(a, b) for a, b in rivals if a.initial == initial and a.num_particles in (at or numbers)]
        return [(a, b) for a, b in mine if a.estimator in names and b.estimator not in names]

    def between(initial: str, low: set[str], high: set[str]) -> list[tuple[Setting, Setting]]:
        return [(a, b) for a, b in best(initial, low) if b.estimator in high]

    def of(initial: str, names: set[str], pairs: list[tuple[Setting, Setting]]) -> list[tuple[Setting, Setting]]:
        return [(a, b) for a, b in pairs if a.initial == initial and a.estimator in names]

    smoothed = {"dvae", "dvaepp"}
    return {
        f"far, K = {few}: \u03b4-WW is the best": (errors, best("far", {"delta_ww"}, few)),
        f"far, K = {many}: WW and \u03b4-WW are the best": (errors, best("far", {"ww", "delta_ww"}, many)),
        "far: WW is better than WS": (errors, between("far", {"ww"}, {"ws"})),
        "far: more particles help WS and WW": (errors, [(b, a) for a, b in of("far", {"ws", "ww"}, next_larger)]),
        f"far: REINFORCE, RELAX and Concrete learn a worse p with K = {many} than with {few}": (
            errors[:1],
            [(a, b) for a, b in of("far", {"reinforce", "relax", "concrete"}, larger) if (a[2], b[2]) == (few, many)],
        ),
        "far: WS and WW have gradients of less variance than REINFORCE and RELAX": (
            std,
            between("far", {"ws", "ww"}, {"reinforce", "relax"}),
        ),
        "far: DVAE and DVAE++ are the worst": (errors, between("far", ESTIMATORS.keys() - smoothed, smoothed)),
        "near: WS is the best": (errors, best("near", {"ws"})),
        "near: VIMCO has the gradient of the least variance": (std, best("near", {"vimco"})),
        "near: more particles harm VIMCO's q": (errors[1:], of("near", {"vimco"}, next_larger)),
    }


def draw(c: ConfigDict, parts: dict[Setting, dict[str, np.ndarray]]) -> dict[str, Figure]:
    """Figures 8.4.4 and 8.C.1 (of a near start 8.C.2), 8.4.5, and final errors against K."""
    numbers = sorted(c.num_particles)
    caption = f"median and quartiles of {len(c.seeds)} seeds; Adam, learning rate {c.learning_rate:g}"
    pictures, ends = {}, {}
    for initial in c.initial:
        mine = {setting[1:]: part for setting, part in parts.items() if setting.initial == initial}
        panels = {
            (label, f"K = {k}"): {LABELS[name]: mine[name, k][quantity] for name in c.estimators}
            for quantity, label in QUANTITIES.items()
            for k in numbers
        }
        steps = next(iter(mine.values()))["step"]
        pictures[f"training_{initial}"] = plots_gmm.training(steps, panels, caption=caption)
        ends |= {
            (label, f"{initial} start"): {
                LABELS[name]: {k: mine[name, k][quantity][-1] for k in numbers} for name in c.estimators
            }
            for quantity, label in QUANTITIES.items()
        }
        pictures[f"hinton_{initial}"] = draw_hinton(c, mine)
    return pictures | {"final": plots_gmm.final(ends, caption=caption)}


def draw_hinton(c: ConfigDict, parts: dict[tuple[str, int], dict[str, np.ndarray]]) -> Figure:
    """Of the fewest and the most particles: the seed whose p is the median one, and the truth."""
    model = model_config(c, c.initial[0])
    prior = gmm.true_log_prior(model)
    truth = jnp.exp(jax.vmap(gmm.log_posterior, (None, None, 0))(model, prior, gmm.means(model)))
    truth = np.concatenate([np.exp(prior)[None], truth])
    blocks = {}
    for k in dict.fromkeys((min(c.num_particles), max(c.num_particles))):
        for name in c.estimators:
            part = parts[name, k]
            seed = np.argsort(part["p_error"][-1])[(len(c.seeds) - 1) // 2]
            shown = [part["prior"][:, seed, None], part["posterior"][:, seed]]
            blocks[f"K = {k}", LABELS[name]] = np.concatenate(shown, axis=1)
    blocks["", "truth"] = np.stack([truth] * 3)
    row_names = ("start", "middle", "end")
    caption = "left column: p(z); others: q(z | x) with x at each cluster's mean; areas are probabilities"
    return plots_gmm.hinton(blocks, row_names=row_names, positions=gmm.means(model), caption=caption)
