"""SQAIR's densities of a given z, written a second time: numpy, scipy, float64, loops over frames, objects and pixels.

Objects are kept in a dictionary by their slot: a slot that no object holds does not exist here.
"""

from typing import NamedTuple

import numpy as np
from scipy import stats
from scipy.special import expit, logsumexp

from tests.models.air_by_hand import (
    bernoulli,
    dense,
    elu,
    mlp,
    place,
    presence_probability,
    read,
    statistics,
    where_loc,
)


class Object(NamedTuple):
    where: np.ndarray
    what: np.ndarray
    velocity: np.ndarray  # of where, since the frame before
    temporal: np.ndarray  # state of q's RNN
    dynamics: np.ndarray  # state of the prior's


def simple_cell(params, hidden, x):
    layers = params["params"]
    return np.tanh(dense(layers["i"], x) + dense(layers["h"], hidden))


def gru(params, hidden, x):
    layers = params["params"]
    reset, update = (expit(dense(layers["i" + gate], x) + dense(layers["h" + gate], hidden)) for gate in "rz")
    new = np.tanh(dense(layers["in"], x) + reset * dense(layers["hn"], hidden))
    return (1 - update) * new + update * hidden


def conv(layer, image, stride):
    """3x3, padded so that every stride-th pixel has an output; an odd padding is longer at the end."""
    sizes = [-(-side // stride) for side in image.shape[:2]]
    padding = [max(stride * (size - 1) + 3 - side, 0) for size, side in zip(sizes, image.shape, strict=False)]
    image = np.pad(image, [(p // 2, p - p // 2) for p in padding] + [(0, 0)])
    out = np.zeros((*sizes, layer["bias"].size))
    for i, j in np.ndindex(*sizes):
        patch = image[i * stride : i * stride + 3, j * stride : j * stride + 3]
        out[i, j] = np.tensordot(patch, np.float64(layer["kernel"]), 3)
    return out + np.float64(layer["bias"])


def subpixel_cnn(params, what):
    """Of the tests' configuration: 2x3 coarse pixels, a layer of stride 1 and one of stride 2."""
    layers = params["params"]
    x = elu(dense(layers["Dense_1"], elu(dense(layers["Dense_0"], what)))).reshape(2, 3, -1)
    x = elu(conv(layers["Conv_0"], x, 1))
    x = elu(conv(layers["Conv_1"], x, 1))
    fine = np.zeros((4, 6, x.shape[-1] // 4))
    for i, j in np.ndindex(4, 6):
        fine[i, j] = np.split(x[i // 2, j // 2], 4)[2 * (i % 2) + j % 2]
    return conv(layers["Conv_2"], fine, 1)


def normal(value, loc, scale):
    return stats.norm(loc, scale).logpdf(value).sum()


def densities(config, params, x, presence_prior, rediscovery_factor, z):
    """log p(x, z), log q(z | x), its discrete part and the image means ``[T, H, W, C]``."""
    inference, generative = params["inference"], params["generative"]
    initial = {name: np.float64(leaf) for part in params.values() for name, leaf in part["initial_state"].items()}
    where_dim, slots = z.propagated.where.shape[-1], range(config.num_objects)

    def encode(name, image):
        if config.network == "conv" and name != "latent_encoder":
            for i, stride in enumerate(config.encoder_strides):
                image = elu(conv(inference["trunk"]["params"][f"Conv_{i}"], image, stride))
        return elu(mlp(inference[name], image.reshape(-1)))

    objects, means = {}, []
    log_p = log_q = log_q_discrete = 0.0
    for t, image in enumerate(np.float64(x)):
        old, new = (type(each)(*(np.float64(leaf[t]) for leaf in each)) for each in z)

        # --------------------------------------------------------------------- propagation: algorithm 2; eqs. 5.9, 5.10
        kept = {}
        relation, last = initial["relation"], np.zeros(where_dim + config.what_dim)
        for i in sorted(objects):
            before, where, what, stays = objects[i], old.where[i], old.what[i], old.presence[i]

            if config.motion == "velocity":
                moving = np.r_[before.where, before.velocity]
                proposal = before.where + mlp(inference["proposal"], np.r_[moving, before.temporal])
                nearby, known = proposal, np.r_[moving, before.dynamics]
            else:
                proposal = mlp(inference["proposal"], np.r_[before.where, before.temporal])
                proposal = before.where + 0.1 * proposal if config.centred else proposal
                nearby, known = before.where if config.centred else 0, before.dynamics
            glimpse = read(config, image, proposal)
            if config.proposal_mask:
                glimpse = glimpse * expit(mlp(inference["mask"], before.temporal) + 2).reshape(glimpse.shape)
            encoding = encode("glimpse_encoder", glimpse)
            seen = np.r_[encoding, before.what, before.where, before.temporal, last]
            relation = simple_cell(inference["relation"], relation, seen)
            shift, scale = statistics(mlp(inference["where"], np.r_[before.where, relation]), 0.1)
            log_q += normal(where, nearby + shift, scale)

            encoding = encode("glimpse_encoder", read(config, image, where))
            moved = elu(mlp(inference["temporal_input"], np.r_[encoding, where, relation]))
            temporal = gru(inference["temporal"], before.temporal, moved)
            log_q += normal(what, *appearance(config, inference, encoding, relation, temporal, before.what))

            logit = mlp(inference["presence"], np.r_[what, where, relation, temporal])[0]
            log_q_discrete += bernoulli(presence_probability(logit + config.propagation_bias), stays)

            raw = mlp(generative["dynamics_statistics"], known)
            where_raw, what_raw, logit = np.split(raw, [2 * where_dim, 2 * (where_dim + config.what_dim)])
            shift, scale = statistics(where_raw, 0.3)
            log_p += normal(where, before.where + shift if config.centred else shift, scale)
            change, scale = statistics(what_raw, 0.3)
            log_p += normal(what, before.what + change if config.centred else change, scale)
            log_p += bernoulli(presence_probability(logit[0] + config.propagation_prior_bias), stays)

            if stays:
                kept[i] = Object(where, what, where - before.where, temporal, before.dynamics)
                last = np.r_[where, what]

        # --------------------------------------------------------------------- discovery: algorithm 3; eqs. 5.6 to 5.8
        features = encode("image_encoder", image)
        known = sum((encode("latent_encoder", np.r_[o.what, o.where]) for o in kept.values()), np.zeros(config.hidden))
        bias = config.discovery_bias if t == 0 else config.rediscovery_bias
        hidden, last, found = initial["discovery"], np.zeros(where_dim + config.what_dim), {}
        for i in (i for i in slots if i not in kept):
            hidden = simple_cell(inference["discovery"], hidden, np.r_[features, known, last])
            raw = mlp(inference["discovery_statistics"], hidden)
            if config.shared_statistics:
                raw, logit = raw[:-1], raw[-1]
            else:
                logit = mlp(inference["discovery_presence"], hidden)[0]
            log_q_discrete += bernoulli(presence_probability(logit + bias), new.presence[i])
            if not new.presence[i]:
                break
            where, what = new.where[i], new.what[i]
            shift, scale = statistics(raw, 0.1)
            log_q += normal(where, where_loc(config) + shift if config.centred else shift, scale)
            encoding = encode("glimpse_encoder", read(config, image, where))
            log_q += normal(what, *statistics(mlp(inference["what"], encoding), 0.5))
            expected, spread = where_loc(config), [config.scale_std] * (where_dim - 2) + [1.0, 1.0]
            if config.where_prior == "learned":
                expected, spread = generative["where_prior"]["loc"], np.exp(generative["where_prior"]["log_scale"])
            log_p += normal(where, expected, spread)
            log_p += normal(what, 0.0, 1.0)
            last = np.r_[where, what]
            found[i] = Object(where, what, np.zeros(where_dim), initial["temporal"], initial["dynamics"])

        if config.discovery_prior == "learned":
            logits = np.float64(generative["discovery_logits"])[-min(t, 1), len(kept)]
        else:
            success = presence_prior * (rediscovery_factor if t else 1)
            logits = np.arange(config.num_objects + 1) * np.log(success)
        most = config.num_objects - len(kept) if config.truncated_discovery else config.num_objects
        log_p += logits[len(found)] - logsumexp(logits[: most + 1])

        # ------------------------------------------------------------------------------------- the image: algorithm 1
        objects, mean, written = kept | found, np.zeros(config.canvas), np.zeros(config.canvas)
        for o in objects.values():
            decode = subpixel_cnn if config.network == "conv" else mlp
            glimpse = expit(decode(generative["decoder"], o.what) + config.decoder_bias)
            glimpse = (generative["decoder_scale"] if config.decoder_scale else 1) * glimpse
            mean += place(config, glimpse.reshape(*config.glimpse_size, -1), o.where)
            written += place(config, np.ones((*config.glimpse_size, config.canvas[2])), o.where)
        if config.mean_image:
            mean += np.minimum(written, 1) * generative["mean_image"]
        if config.likelihood == "gaussian":
            log_p += normal(image, mean, config.output_std)
        else:
            log_p += bernoulli(mean, image).sum()
        means.append(mean)

        for i, o in objects.items():
            objects[i] = o._replace(dynamics=gru(generative["dynamics"], o.dynamics, np.r_[o.where, o.what]))
    return log_p, log_q + log_q_discrete, log_q_discrete, np.array(means)


def appearance(config, inference, encoding, relation, temporal, before):
    """q(z_t^what | ...) of a propagated object: three sources, each with a gate, or an MLP of all."""
    if not config.shared_statistics:
        return statistics(mlp(inference["kept_what"], np.r_[encoding, before, relation, temporal]), 0.5)
    change = mlp(inference["what_change"], np.r_[relation, temporal])
    forget, take, mix = np.split(expit(change[2 * before.size :] + 1), 3)
    seen, seen_scale = statistics(mlp(inference["what"], encoding), 0.5)
    moved, moved_scale = statistics(change[: 2 * before.size], 0.5)
    loc = forget * before + (1 - take) * seen + (1 - mix) * moved
    return loc, (1 - take) * seen_scale + (1 - mix) * moved_scale + 0.01
