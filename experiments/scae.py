"""SCAE: finds parts, objects and classes of images without labels (thesis, section 6.3.2)."""

import functools
import itertools
import os
import sys
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from ml_collections import ConfigDict

from experiments.ccae import check_losses
from experiments.evaluation import in_batches
from objcentric import explainer, plots_capsules
from objcentric.data import labelled, loader
from objcentric.errors import UserError
from objcentric.metrics import clustering
from objcentric.models import capsules, pcae, scae, sparsity
from objcentric.training import parallel
from objcentric.training.experiment import Experiment, Stage

FEATURES = ("prior", "posterior")  # vectors that classes are told from: capsules' presences, summed responsibilities
WEIGHTS = ("image", "part_presence", "parts", "deformation", "upright") + tuple(
    f"{kind}_{axis}" for kind in ("prior", "posterior") for axis in ("within", "between")
)
TILT = 0.3  # standard deviation of entries of upright poses
UNUSED = 0.01  # a capsule that explains a smaller share of the parts of all images is out of use


def build(config: ConfigDict, *, data: loader.Data | None = None) -> Experiment:
    """The experiment that ``config`` (configs/scae.py) describes; ``data`` takes the place of config.data's."""
    if not config.data.source:
        raise UserError("data.source is empty: give --config.data.source=IMAGES, a folder of PNGs, an .npz or an .npy")
    model, seer = explainer.make(config), explainer.make(of_all_pixels(config))
    data = loader.load(config.data) if data is None else data
    affnist = read_affnist(config) if config.evaluate.affnist else None
    check(config, data, affnist)
    c, canvas = config.losses, tuple(config.data.canvas)

    def see(image: Array, key: Array, *, affine: bool) -> Array:
        """An image of the data, uint8, as it comes onto the canvas; one that leaves no room, as affNIST's, stays."""
        image = image.astype(jnp.float32) / 255
        if affine:
            return labelled.affine(key, image, canvas)
        room = min((side - size) // 2 for side, size in zip(canvas, image.shape[:2], strict=True))
        return labelled.place(key, image, canvas, min(config.data.shift, room))

    def target(x: Array) -> Array:
        return labelled.sobel_target(x) if config.data.sobel else x

    def loss(params: dict, batch: dict, keys: Array, step: Array, aux: Any) -> tuple[Array, tuple[dict, Any]]:
        terms, told = (of_parts if "exemplars" in batch else of_all)(params, batch, keys)
        weights = {name: c[name] for name in WEIGHTS} | {"exemplars": 1.0}
        shown = {name: term for name, term in terms.items() if name not in ("image", "parts")}
        return sum(weights[name] * term for name, term in terms.items()), (shown | told, aux)

    def of_parts(params: dict, batch: dict, keys: Array) -> tuple[dict, dict]:
        """Terms of the loss where objects are yet to be learnt, and what is told of them."""
        terms, told = about_parts(*infer_each(model.infer_parts, params, batch, keys))
        return terms | {"exemplars": model.exemplar_error(params, batch["exemplars"])}, told

    def about_parts(parts: pcae.Parts, log_likelihood: Array) -> tuple[dict, dict]:
        there = jnp.mean(jnp.sum(jnp.exp(parts.log_presence), -1))
        terms = {"image": -jnp.mean(log_likelihood), "part_presence": there}
        return terms, {"log_likelihood": -terms["image"]}

    def infer_each(infer: Callable, params: dict, batch: dict, keys: Array) -> Any:
        def one(image: Array, key: Array) -> Any:
            place_key, noise_key = jax.random.split(key)
            x = see(image, place_key, affine=config.data.affine)
            return infer(params, noise_key, x, target(x))

        return jax.vmap(one)(batch["image"], keys)

    def of_all(params: dict, batch: dict, keys: Array) -> tuple[dict, dict]:
        if config.curriculum.parts_fixed:
            params = model.fix_parts(params)
        seen = infer_each(model.infer, params, batch, keys)
        features = jax.vmap(features_of)(seen)
        everyone = parallel.whole_batch(features)
        prior = sparsity.prior(everyone["prior"], c.num_classes, c.sparsity)
        posterior = sparsity.posterior(everyone["posterior"], everyone["log_joint"], c.sparsity)
        terms, told = ({}, {}) if config.curriculum.parts_fixed else about_parts(seen.parts, seen.log_likelihood)
        terms |= {
            "parts": -jnp.mean(seen.part_log_likelihood),
            "prior_within": prior[0],
            "prior_between": prior[1],
            "posterior_within": posterior[0],
            "posterior_between": -posterior[1],  # what is there to be maximised
            "deformation": jnp.mean(seen.capsules.deformation),
            "upright": jnp.mean(jax.vmap(tilt)(seen.capsules)),
        }
        objects_there = jnp.mean(jnp.sum(features["prior"], -1))
        return terms, told | {"part_log_likelihood": -terms["parts"], "objects_there": objects_there}

    @functools.partial(jax.jit, static_argnames=("affine", "whole", "noise"))
    def look(params: dict, image: Array, keys: Array, affine: bool, whole: bool = False, noise: bool = False) -> dict:
        """Features of images; ``whole``: and densities, errors, and the presences of parts."""

        def one(image: Array, key: Array) -> dict:
            x = see(image, key, affine=affine)
            y = target(x)
            seen = seer.infer(params, jax.random.fold_in(key, 1) if noise else None, x, y)
            features = {name: features_of(seen)[name] for name in FEATURES}
            if not whole:
                return features
            return features | {
                "log_likelihood": seen.log_likelihood,
                "part_log_likelihood": seen.part_log_likelihood,
                "mse": jnp.mean(jnp.square(model.render(params, seen).parts - y)),
                "part_presence": seen.part_presence,
                "explained": seen.part_presence @ jnp.sum(seen.explained.responsibility, (1, 2)),
            }

        return jax.vmap(one)(image, keys)

    def features_on(params: dict, images: np.ndarray, key: Array, affine: bool, noise: bool = False) -> dict:
        of_batch = functools.partial(look, affine=affine, noise=noise)
        return in_batches(of_batch, params, images, key, config.evaluate.batch_size)

    def evaluate(params: dict, split: dict, key: Array, *, final: bool) -> dict[str, Any]:
        """Figures on a split, which the same params always have: what is random follows config.data.seed.

        They are without noise. Densities are in nats of an image, and of its parts. ``mse`` is of the reconstruction
        from parts.
        Of both of `FEATURES`, if labels allow, the figures of `clustering.evaluate`, by names such as
        ``posterior_lin_match``: ``final``, with clusters and classifiers of training images (of the first
        ``evaluate.num_train``); else 'lin_match_refit', nmi and ari of the split alone. ``final`` adds figures of the
        same clusters and classifiers on test images that are transformed as in affNIST (``affine_posterior_lin_match``)
        and on affNIST itself (``affnist_...``), where config.evaluate wants them, but for 'lin_match_full', and
        'lin_match_released', which alone is with noise, where it wants that; ``left_out`` names figures for which
        labels are missing.

        What tells of a collapse: `usage`.
        """
        train_key, valid_key, key = jax.random.split(jax.random.key(config.data.seed), 3)
        whole = functools.partial(look, affine=config.data.affine, whole=True)
        seen = in_batches(whole, params, split["image"], key, config.evaluate.batch_size)
        figures = {name: float(np.mean(seen[name])) for name in ("log_likelihood", "part_log_likelihood", "mse")}
        figures |= usage(seen)
        label = split.get("label")
        if not final:
            return figures | classes(config, None, None, seen, label)

        tests = {"": (seen, label)}
        if config.evaluate.affine:
            tests["affine_"] = features_on(params, split["image"], key, True), label
        if affnist is not None:
            tests["affnist_"] = features_on(params, affnist.image, key, False), affnist.label
        train, valid = loader.take(data.train, range(num_fitted(config, data))), data.valid
        train_label, valid_label = train.get("label"), valid.get("label")
        labelled_tests = any(labels is not None for _, labels in tests.values())
        train = features_on(params, train["image"], train_key, config.data.affine) if labelled_tests else None
        more = (None, None)
        if label is not None and valid_label is not None:
            more = features_on(params, valid["image"], valid_key, config.data.affine), valid_label
        left_out = []
        for place, (features, labels) in tests.items():
            # Plain images of training and transformed ones of test are not one set that could be had in full.
            of_place = classes(config, train, train_label, features, labels, *more, full=not place)
            figures |= {f"{place}{name}": value for name, value in of_place.items()}
            missing = clustering.missing(train_label, labels, full=not place)
            left_out += [f"{place}{name}_{figure}" for name, figure in itertools.product(FEATURES, missing)]
        if config.evaluate.released and label is None:
            left_out += [f"{name}_lin_match_released" for name in FEATURES]
        elif config.evaluate.released:
            noisy = features_on(params, split["image"], key, config.data.affine, noise=True)
            of_noise = classes(config, None, None, noisy, label)
            figures |= {f"{name}_lin_match_released": of_noise[f"{name}_lin_match_refit"] for name in FEATURES}
        if left_out:
            figures["left_out"] = left_out
            print(f"labels are missing: the figures leave out {', '.join(left_out)}", file=sys.stderr)
        return figures

    @jax.jit
    def pictures(params: dict, image: Array, keys: Array) -> dict:
        def one(image: Array, key: Array) -> dict:
            x = see(image, key, affine=config.data.affine)
            seen = model.infer(params, None, x, target(x))
            shown = {"parts": seen.part_presence} | {name: features_of(seen)[name] for name in FEATURES}
            template = seen.parts.template
            if config.model.mixing == "alpha":
                template *= pcae.opacity(explainer.model_configs(config)[0], params["generative"]["parts"])
            return {"x": target(x), "pictures": model.render(params, seen), "template": template} | shown

        return jax.vmap(one)(image, keys)

    def figures(params: dict, split: dict, key: Array, evaluated: dict) -> dict[str, Any]:
        """Figures 6.2.2 and 6.2.3: templates; images, reconstructions, presences of objects, the most active ones."""
        few = split["image"][: config.evaluate.num_pictures]
        seen = jax.device_get(pictures(params, few, jax.random.split(key, len(few))))
        drawn, p = {"templates": plots_capsules.templates(seen["template"].mean(0))}, seen["pictures"]
        arrays = seen["x"], p.parts, p.objects, p.each_part, p.each_object, seen["parts"], seen["prior"]
        drawn["reconstructions"] = plots_capsules.reconstructions(*arrays, object_posterior=seen["posterior"])
        return drawn

    def signature(figures: dict) -> str | None:
        if figures["parts_used"] < 2:
            return "parts have collapsed: fewer than two are ever there"
        if figures["objects_used"] < 2:
            why = "one explains all images" if figures["objects_used"] else "none explains any part"
            return f"objects have collapsed: {why}"
        return None

    stages = (Stage(0, lambda batch: batch),)
    if config.curriculum.parts_alone:
        exemplars = choose_exemplars(config, data)
        first = Stage(0, lambda batch: batch | {"exemplars": exemplars})
        stages = (first, Stage(config.curriculum.parts_alone, lambda batch: batch))
    labels = "label" in data.valid and "label" in data.test
    return explainer.skeleton(config)._replace(
        data=data._replace(train=loader.joined(data)) if config.data.train_on_all else data,
        loss=loss,
        evaluate=evaluate,
        figures=figures,
        # Of one figure that validation has, too: clusters fitted to what they are scored on.
        headline=("posterior_lin_match_refit", "log_likelihood") if labels else ("log_likelihood",),
        signature=signature,
        stages=stages,
        results=("posterior_lin_match", "posterior_lin_pred") if labels else (),
    )


def of_all_pixels(config: ConfigDict) -> ConfigDict:
    """The same model, whose likelihood is of all pixels also where there is noise."""
    whole = config.copy_and_resolve_references()
    whole.model.pixel_stride = 1
    return whole


def num_fitted(config: ConfigDict, data: loader.Data) -> int:
    """How many training images clusters and classifiers are fitted to."""
    return min(config.evaluate.num_train or loader.size(data.train), loader.size(data.train))


def tilt(seen: capsules.Capsules) -> Array:
    """Half the squared distance of OVs' linear part from the identity, in units of `TILT`, of objects that are there.

    Minus the logarithm of a normal density, but for a constant.
    """
    there = jax.lax.stop_gradient(jnp.exp(capsules.log_prior_presence(seen)))
    return there @ jnp.sum(jnp.square((seen.pose[..., :2] - jnp.eye(2)[None]) / TILT), (1, 2)) / 2


def features_of(seen: scae.Seen) -> dict[str, Array]:
    """Of an image `FEATURES`, each ``[K]``, and ``log_joint [K]``, see `sparsity.posterior`."""
    return {
        "prior": jnp.exp(capsules.log_prior_presence(seen.capsules)),
        "posterior": scae.posterior_presence(seen.explained),
        "log_joint": jax.nn.logsumexp(seen.explained.log_joint, (0, 2)),
    }


def choose_exemplars(config: ConfigDict, data: loader.Data) -> Array:
    """A training image for each object, amid the canvas: ``[K, H, W, C]`` in [0, 1]; they follow config.data.seed."""
    rng = np.random.default_rng(config.data.seed)
    images = loader.take(data.train, rng.choice(loader.size(data.train), config.model.num_capsules, replace=False))
    canvas = tuple(config.data.canvas)
    return jnp.stack(
        [labelled.place(jax.random.key(0), image / np.float32(255), canvas, 0) for image in images["image"]]
    )


def classes(
    config: ConfigDict,
    train: dict | None,
    train_label: np.ndarray | None,
    seen: dict,
    label: np.ndarray | None,
    valid: dict | None = None,
    valid_label: np.ndarray | None = None,
    full: bool = True,
) -> dict[str, float]:
    """Figures of `clustering.evaluate` of both features; without those of training images, of these alone."""
    figures, num_clusters = {}, config.evaluate.num_clusters or None
    for name in FEATURES if label is not None else ():
        features, labels = (seen, None) if train is None else (train, train_label)
        more = None if valid is None else (valid[name], valid_label)
        of_one = clustering.evaluate(
            features[name], labels, seen[name], label, more, seed=0, num_clusters=num_clusters, full=full
        )
        figures |= {f"{name}_{figure}": value for figure, value in of_one.items()}
    return figures


def usage(seen: dict) -> dict[str, float]:
    """What tells of a collapse.

    ``parts_there`` and ``objects_there``: how many are there in an image, in the mean; ``parts_used``: how many are
    there in some image; ``objects_used``: how many explain more than `UNUSED` of all parts; ``objects_effective``: the
    exponential of the entropy of these shares; ``objects_vary``: the standard deviation over images of an object's
    presence, in the mean (0: the same ones whatever the image); ``unexplained``: share of the parts that are there
    which is the dummy's.
    """
    total = np.sum(seen["posterior"], 0, np.float64)
    share = total / max(total.sum(), 1e-12)
    return {
        "parts_there": float(np.mean(np.sum(seen["part_presence"], 1))),
        "parts_used": int(np.sum(np.max(seen["part_presence"], 0) > 0.5)),
        "objects_there": float(np.mean(np.sum(seen["prior"], 1))),
        "objects_used": int(np.sum(share > UNUSED)),
        "objects_effective": float(np.exp(-np.sum(share * np.log(np.maximum(share, 1e-12))))),
        "objects_vary": float(np.mean(np.std(seen["prior"], 0))),
        "unexplained": float(1 - np.sum(seen["explained"]) / max(np.sum(seen["part_presence"]), 1e-12)),
    }


def read_affnist(config: ConfigDict) -> labelled.Labelled:
    """Test images uint8 ``[M, 40, 40, 1]`` and labels ``[M]`` of affNIST; UserError if the model takes other ones."""
    if tuple(config.data.canvas) != (40, 40) or config.model.channels != 1:
        raise UserError("evaluate.affnist has images of 40x40x1: set data.canvas=(40, 40), or affnist=''")
    return labelled.read_affnist(os.path.expandvars(config.evaluate.affnist), "test", config.evaluate.num_affnist)


def check(config: ConfigDict, data: loader.Data, affnist: labelled.Labelled | None) -> None:
    """UserError where the config, or config and data, do not make sense."""
    if config.data.name != "labelled":
        raise UserError(f"data.name={config.data.name!r} has no whole images: use 'labelled'")
    check_losses(config.losses, WEIGHTS)
    image = data.test["image"]
    if image.ndim != 4 or image.shape[3] != config.model.channels:
        raise UserError(f"images have shape {image.shape[1:]}: set model.channels={image.shape[-1]}")
    for name in ("batch_size", "num_pictures"):
        if config.evaluate[name] < 1:
            raise UserError(f"evaluate.{name}={config.evaluate[name]} must be at least 1")
    for name in ("num_train", "num_clusters", "num_affnist"):
        if config.evaluate[name] < 0:
            raise UserError(f"evaluate.{name}={config.evaluate[name]}: use 0 or more")
    alone, many = config.curriculum.parts_alone, loader.size(data.train)
    if not 0 <= alone < config.train.num_steps:
        steps = config.train.num_steps
        raise UserError(
            f"curriculum.parts_alone={alone}: use 0 or more, and less than train.num_steps={steps}, say"
            f" {steps * 9 // 10}"
        )
    if config.curriculum.parts_fixed and not alone:
        raise UserError("curriculum.parts_fixed=True would learn no parts: set it to False, or parts_alone above 0")
    if alone and config.model.num_capsules > many:
        raise UserError(f"model.num_capsules={config.model.num_capsules} begin as exemplars: {many} images are too few")
    splits = [split for split in data if isinstance(split, dict)]  # a stream's labels are read in the end alone
    labels = [split["label"] for split in splits if "label" in split]
    few = {f"data.num_{name}": len(getattr(data, name).get("label", ())) for name in ("valid", "test")}
    if affnist is not None:
        labels.append(affnist.label)
        few["evaluate.num_affnist"] = len(affnist.label)
    many, wanted = len(np.unique(np.concatenate(labels))) if labels else 0, config.evaluate.num_clusters
    if 0 < wanted < many:
        raise UserError(f"evaluate.num_clusters={wanted} cannot match {many} classes: use {many} or more")
    if any(few.values()):
        few["evaluate.num_train"] = num_fitted(config, data)
    for name, images in few.items():
        clusters = max(wanted, 0 if name == "data.num_valid" else many)  # validation may have fewer classes
        if 0 < images < clusters:
            raise UserError(f"{images} images cannot make {clusters} clusters: raise {name}, or give more images")
    if alone and any(side > most for side, most in zip(image.shape[1:3], config.data.canvas, strict=True)):
        raise UserError(
            f"data.canvas={tuple(config.data.canvas)} is smaller than images, {image.shape[1:3]}, which objects begin"
            " as: enlarge it, or set curriculum.parts_alone=0"
        )
    if config.evaluate.affine and config.model.channels == 3 and config.data.sobel:
        raise UserError("evaluate.affine is for bright digits on black: unset it")
