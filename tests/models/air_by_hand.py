"""AIR's densities of a given z, written a second time: numpy, scipy, float64, loops over objects and pixels."""

import numpy as np
from scipy import stats
from scipy.special import expit, logsumexp


def dense(layer, x):
    return x @ np.float64(layer["kernel"]) + np.float64(layer.get("bias", 0.0))


def mlp(params, x):
    layers = [params["params"][f"Dense_{i}"] for i in range(len(params["params"]))]
    for layer in layers[:-1]:
        x = elu(dense(layer, x))
    return dense(layers[-1], x)


def elu(x):
    return np.where(x > 0, x, np.expm1(x))


def lstm(params, cell, hidden, x):
    layers = params["params"]
    gate = {name: dense(layers["i" + name], x) + dense(layers["h" + name], hidden) for name in "ifgo"}
    cell = expit(gate["f"]) * cell + expit(gate["i"]) * np.tanh(gate["g"])
    return cell, expit(gate["o"]) * np.tanh(cell)


def statistics(raw, initial_scale):
    loc, scale = np.split(raw, 2)
    return loc, np.log1p(np.exp(scale + np.log(np.expm1(initial_scale)))) + 1e-3


def bernoulli(p, value):
    p = np.clip(p, 1e-3, 1 - 1e-3)
    return value * np.log(p) + (1 - value) * np.log1p(-p)


def bilinear(image, y, x):
    """``image [H, W, C]`` at pixel coordinates, 0 outside."""
    value = np.zeros(image.shape[2])
    for i in (int(np.floor(y)), int(np.floor(y)) + 1):
        for j in (int(np.floor(x)), int(np.floor(x)) + 1):
            if 0 <= i < image.shape[0] and 0 <= j < image.shape[1]:
                value += (1 - abs(y - i)) * (1 - abs(x - j)) * image[i, j]
    return value


def box_of(config, where):
    """The glimpse's box in pixels: a square around a point of the canvas, or a rectangle if an object has two sides."""
    shorter, sizes = min(config.canvas[:2]), np.atleast_1d(config.object_size)
    expected = 1.25 * sizes / shorter
    height, width = np.broadcast_to(shorter * (expected / 4 + (1 - expected / 4) * expit(where[:-2])), 2)
    y, x = (getattr(config, "reach", 1) * np.tanh(where[-2:]) + 1) / 2 * config.canvas[:2]
    return y - height / 2, x - width / 2, y + height / 2, x + width / 2


def read(config, image, where):
    y0, x0, y1, x1 = box_of(config, where)
    h, w = config.glimpse_size
    rows = [y0 + (a + 0.5) * (y1 - y0) / h - 0.5 for a in range(h)]
    columns = [x0 + (b + 0.5) * (x1 - x0) / w - 0.5 for b in range(w)]
    return np.array([[bilinear(image, y, x) for x in columns] for y in rows])


def place(config, glimpse, where):
    y0, x0, y1, x1 = box_of(config, where)
    h, w = config.glimpse_size
    rows = [(i + 0.5 - y0) / (y1 - y0) * h - 0.5 for i in range(config.canvas[0])]
    columns = [(j + 0.5 - x0) / (x1 - x0) * w - 0.5 for j in range(config.canvas[1])]
    return np.array([[bilinear(glimpse, y, x) for x in columns] for y in rows])


def where_loc(config):
    """The z^where whose glimpse has sides of 1.25 expected objects, in the middle of the canvas."""
    expected = 1.25 * np.atleast_1d(config.object_size) / min(config.canvas[:2])
    return np.r_[np.log(0.75 * expected / (1 - expected)), 0.0, 0.0]


def presence_probability(logit):
    """Within (0.01, 0.99), the presence_margin of the tests."""
    bound = np.log(99)
    return expit(bound * np.tanh(logit / bound))


def densities(config, params, x, presence_prior, z, background=None):
    """log p(x, z), log q(z | x), its discrete part and the image mean.

    ``background [H, W, C]`` are the logits of a deconvolved background, which is not written a second time.
    """
    x, z = np.float64(x), {name: np.float64(leaf) for name, leaf in z.items()}
    inference, generative = params["inference"], params["generative"]
    count = int(z["presence"].sum())

    # ---------------------------------------------------------------------------------------------------- log q(z | x)
    features = elu(mlp(inference["image_encoder"], x.reshape(-1)))
    cell, hidden = (np.float64(inference["initial_state"][name]) for name in ("cell", "hidden"))
    previous = np.r_[np.zeros(len(where_loc(config)) + config.what_dim), 1.0]
    log_q = log_q_discrete = 0.0
    for i in range(config.num_steps):
        core_input = np.r_[features, previous] if config.recurrence == "latent" else features
        cell, hidden = lstm(inference["core"], cell, hidden, core_input)
        raw = mlp(inference["where_presence"], hidden)
        if i <= count:
            log_q_discrete += bernoulli(presence_probability(raw[-1] + config.presence_bias), z["presence"][i])
        if i < count:
            loc, scale = statistics(raw[:-1], 0.1)
            log_q += stats.norm(where_loc(config) + loc, scale).logpdf(z["where"][i]).sum()
            glimpse = read(config, x, z["where"][i]).reshape(-1)
            what_q = stats.norm(*statistics(mlp(inference["glimpse_encoder"], glimpse), 0.5))
            log_q += what_q.logpdf(z["what"][i]).sum()
        previous = np.r_[z["where"][i], z["what"][i], 1.0] * z["presence"][i]
    log_q += log_q_discrete

    # --------------------------------------------------------------------------------------------------- log p(x, z)
    log_p = count * np.log(presence_prior) - logsumexp(np.arange(config.num_steps + 1) * np.log(presence_prior))
    mean = np.zeros(config.canvas)
    for i in range(count):
        scale = [config.scale_std] * np.size(config.object_size) + [1.0, 1.0]
        log_p += stats.norm(where_loc(config), scale).logpdf(z["where"][i]).sum()
        log_p += stats.norm().logpdf(z["what"][i]).sum()
        glimpse = expit(mlp(generative["decoder"], z["what"][i]) + config.decoder_bias)
        mean += place(config, glimpse.reshape(*config.glimpse_size, -1), z["where"][i])
    if config.background != "none":
        if config.background_dim:
            background_q = stats.norm(*statistics(mlp(inference["background_encoder"], hidden), 0.5))
            log_q += background_q.logpdf(z["background"]).sum()
            log_p += stats.norm().logpdf(z["background"]).sum()
        if background is None:
            background = mlp(generative["background"], z["background"]).reshape(config.canvas)
        mean += expit(background + config.decoder_bias)
    if config.likelihood == "gaussian":
        log_p += stats.norm(mean, config.output_std).logpdf(x).sum()
    else:
        log_p += bernoulli(mean, x).sum()
    return log_p, log_q, log_q_discrete, mean
