import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from objcentric.errors import UserError
from objcentric.models import pcae
from objcentric.nn import poses, templates

SMALL = pcae.Config(
    canvas=(12, 14),
    num_parts=3,
    template_size=(5, 4),
    special_features=2,
    encoder_features=(4, 4),
    encoder_strides=(2, 1),
)
COLOUR = dataclasses.replace(SMALL, channels=3, mixing="template")
X = jax.random.uniform(jax.random.key(7), (12, 14, 1))


@functools.cache
def made(config):
    """The model, its functions compiled, and parameters."""
    model = pcae.make(config)
    compiled = model._replace(
        **{name: jax.jit(getattr(model, name)) for name in ("encode", "render", "log_likelihood")}
    )
    return compiled, jax.jit(model.init)(jax.random.key(0))


def image(config):
    return jnp.broadcast_to(X, (12, 14, config.channels))


@pytest.mark.parametrize("config", [SMALL, COLOUR])
def test_the_mixture_of_pixels_is_the_sum_of_equation_6_9(config):
    model, params = made(config)
    parts = model.encode(params, None, image(config))
    generative = params["generative"] | {"background": jnp.full(config.channels, 0.3), "background_logit": 0.7}
    if config.mixing == "alpha":
        generative["alpha"] = jax.random.normal(jax.random.key(1), (3, 5, 4, 1))
    drawn = params | {"generative": generative}, parts.pose, parts.log_presence, parts.template
    pixels = model.render(*drawn)
    total, parts, y = 0.0, jax.device_get(parts), np.asarray(image(config))
    place = jax.jit(templates.place, static_argnums=2)
    placed = [np.asarray(place(parts.template[m], parts.pose[m], (12, 14))) for m in range(3)]
    if config.mixing == "alpha":
        shown = [np.asarray(place(generative["alpha"][m], parts.pose[m], (12, 14)))[..., 0] for m in range(3)]
    else:
        shown = [value.mean(-1) / (np.log1p(np.exp(0.5)) + 1e-4) for value in placed]
    values = [*placed, np.full((12, 14, config.channels), 1 / (1 + np.exp(-0.3)))]
    weights = [np.exp(a) * np.exp(parts.log_presence[m]) for m, a in enumerate(shown)]
    weights.append(np.full((12, 14), np.exp(0.7)))
    for i, j in np.ndindex(12, 14):
        normal = [np.prod(np.exp(-((y[i, j] - value[i, j]) ** 2) / 2) / np.sqrt(2 * np.pi)) for value in values]
        each = [weight[i, j] for weight in weights]
        total += np.log(np.dot(each, normal) / np.sum(each))
    np.testing.assert_allclose(model.log_likelihood(*drawn, image(config)), total, rtol=1e-5)
    shares = jax.nn.softmax(pixels.logit, 0)
    np.testing.assert_allclose(shares, np.divide(weights, np.sum(weights, 0)), rtol=1e-4, atol=1e-6)
    best = np.argmax(weights, 0)
    np.testing.assert_allclose(pcae.mode(pixels), np.choose(best[..., None], values), atol=1e-5)


def test_a_template_is_smaller_than_the_canvas_where_its_pose_makes_it_small():
    """The trap that breaks ports; see also tests/nn/test_templates.py."""
    model, params = made(SMALL)
    pose = jnp.tile(jnp.asarray([[0.25, 0, 0.5], [0, 0.25, 0]]), (3, 1, 1))
    pixels = model.render(params, pose, jnp.zeros(3), jnp.ones((3, 5, 4, 1)))
    ink = np.argwhere(np.asarray(pixels.value[0, ..., 0]) > 0.5)
    assert ink.min(0).tolist() == [5, 9] and ink.max(0).tolist() == [6, 11]  # a quarter of each side, to the right


def test_absent_parts_leave_the_background():
    model, params = made(SMALL)
    pixels = model.render(params, jnp.tile(jnp.eye(2, 3), (3, 1, 1)), jnp.full(3, -1e9), jnp.ones((3, 5, 4, 1)))
    mean = jnp.einsum("mhw,mhwc->hwc", jax.nn.softmax(pixels.logit, 0), pixels.value)
    np.testing.assert_allclose(mean, 0.5, rtol=1e-5)
    likelihood, slopes = jax.value_and_grad(lambda p: model.log_likelihood(params, *p, jnp.ones((3, 5, 4, 1)), X))(
        (jnp.tile(jnp.eye(2, 3), (3, 1, 1)), jnp.full(3, -1e9))
    )
    assert np.isfinite(likelihood) and all(np.isfinite(slope).all() for slope in slopes)


def test_without_a_background_pixels_are_of_parts_alone():
    """Equation 6.9 as it stands; the same as of a background that weighs nothing."""
    config = dataclasses.replace(SMALL, background=False)
    model, params = made(config)
    assert not {"background", "background_logit"} & params["generative"].keys()
    parts = model.encode(params, None, X)
    drawn = parts.pose, parts.log_presence, parts.template
    pixels = model.render(params, *drawn)
    shares = jax.nn.softmax(pixels.logit, 0)
    assert float(jnp.max(shares[-1])) == 0 and float(jnp.max(jnp.abs(pixels.value[-1]))) == 0
    faint = {**params, "generative": params["generative"] | {"background": jnp.zeros(1), "background_logit": -60.0}}
    likelihood = made(SMALL)[0].log_likelihood(faint, *drawn, X)
    np.testing.assert_allclose(model.log_likelihood(params, *drawn, X), likelihood, rtol=1e-5)
    ink = model.ink(params, parts)  # of which black parts have none
    painted = jnp.sum((shares[..., None] * pixels.value)[:-1, ::2, ::2], (1, 2, 3))
    np.testing.assert_allclose(ink, jnp.minimum(3 * painted / jnp.sum(painted), 1), rtol=1e-4)
    np.testing.assert_allclose(pcae.opacity(config, params["generative"]), 0.5)


def test_templates_may_have_colours_of_their_own():
    """Then special features do not take part in the picture."""
    model, params = made(dataclasses.replace(SMALL, coloured=False))
    assert "colours" not in params["generative"]

    def likelihood(params, shown):
        parts = shown.encode(params, None, X)
        return shown.log_likelihood(params, parts.pose, parts.log_presence, parts.template, X)

    def slope(shown, params):
        output = jax.jit(jax.grad(lambda p: likelihood(p, shown)))(params)["inference"]["params"]["output"]["bias"]
        return np.abs(np.reshape(output, (3, -1))[:, 7:]).max()

    assert slope(model, params) == 0 and slope(*made(SMALL)) > 0


def test_noise_is_of_presences_alone():
    model, params = made(SMALL)
    quiet, noisy = (model.encode(params, noise, X) for noise in (None, jnp.asarray([2.0, 0, -2])))
    np.testing.assert_array_equal(quiet.pose, noisy.pose)
    assert (np.sign(noisy.log_presence - quiet.log_presence) == [1, 0, -1]).all()


@pytest.mark.parametrize("pooling", pcae.POOLINGS)
def test_pooling_by_hand(pooling):
    encoder = pcae.PartEncoder(3, 9, pooling, (4, 4), (2, 1))
    params = jax.jit(encoder.init)(jax.random.key(0), X)
    tree = params["params"]
    x = X
    for i, stride in enumerate((2, 1)):
        layer = tree[f"Conv_{i}"]
        x = jax.lax.conv_general_dilated(
            x[None], layer["kernel"], (stride, stride), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )[0]
        x = np.maximum(x + layer["bias"][None, None], 0)
    x = x + tree["place"]
    assert x.shape[:2] == dataclasses.replace(SMALL, part_encoder=pooling).encoder_size

    def dense(layer, x):
        return np.asarray(x) @ np.asarray(layer["kernel"]) + np.asarray(layer["bias"])

    if pooling == "linear":
        expected = dense(tree["output"], x.reshape(-1)).reshape(3, 9)
    else:
        flat = np.asarray(x.reshape(-1, 4))
        maps = dense(tree["output"], flat).reshape(-1, 3, 9)
        logits = dense(tree["attention"], flat) if pooling == "attention" else np.zeros((len(flat), 3))
        weights = np.exp(logits) / np.exp(logits).sum(0)
        expected = np.einsum("lms,lm->ms", maps, weights)
    np.testing.assert_allclose(jax.jit(encoder.apply)(params, X), expected, rtol=1e-4, atol=1e-5)


def test_colours_are_of_the_special_features():
    model, params = made(COLOUR)
    parts = model.encode(params, None, image(COLOUR))
    plain = jax.nn.sigmoid(params["generative"]["templates"])
    colour = parts.template / plain
    assert colour.shape == (3, 5, 4, 3) and float(jnp.max(jnp.std(colour, (1, 2)))) < 1e-6
    slope = jax.grad(lambda x: jnp.sum(model.encode(params, None, x).template))(image(COLOUR))
    assert float(jnp.abs(slope).max()) > 0
    without = dataclasses.replace(COLOUR, special_features=0)
    parts = made(without)[0].encode(made(without)[1], None, image(COLOUR))
    np.testing.assert_allclose(parts.template, jax.nn.sigmoid(made(without)[1]["generative"]["templates"]))
    assert parts.features.shape == (3, 0)


@pytest.mark.parametrize("nonlinearity", ["sigmoid", "relu", "none"])
def test_all_templates_learn_from_the_first_image(nonlinearity):
    """None is dark from the start for good."""
    config = dataclasses.replace(COLOUR, num_parts=8, colour_nonlinearity=nonlinearity)
    model, params = made(config)

    def log_likelihood(params):
        parts = model.encode(params, None, image(config))
        return model.log_likelihood(params, parts.pose, parts.log_presence, parts.template, image(config))

    slope = jax.jit(jax.grad(log_likelihood))(params)["generative"]["templates"]
    assert float(jnp.abs(slope).max((1, 2, 3)).min()) > 1e-6


def test_the_gain_changes_how_fast_templates_learn_and_nothing_else():
    fast = dataclasses.replace(SMALL, template_gain=4.0)

    def slope(config):
        model, params = made(config)
        parts = model.encode(params, None, image(config))

        def loss(generative):
            changed = params | {"generative": generative}
            template = model.encode(changed, None, image(config)).template
            return model.log_likelihood(changed, parts.pose, parts.log_presence, template, image(config))

        return parts.template, jax.jit(jax.grad(loss))(params["generative"])

    (template, slow), (same, quick) = slope(SMALL), slope(fast)
    np.testing.assert_allclose(template, same, rtol=1e-5)
    for name, factor in (("templates", 4), ("alpha", 4), ("background", 1)):
        np.testing.assert_allclose(quick[name], factor * slow[name], rtol=1e-3, atol=1e-5)


def test_one_pixel_of_each_block_estimates_the_likelihood():
    """Over the four places in a block it is the likelihood of all pixels, and so are its gradients."""
    sparse = dataclasses.replace(SMALL, pixel_stride=2)
    model, params = made(sparse)
    parts = model.encode(params, None, X)

    @jax.jit
    def of(pose, key):
        return model.log_likelihood(params, pose, parts.log_presence, parts.template, X, key)

    def draw(key):
        value, slope = jax.value_and_grad(of)(parts.pose, key)
        return jnp.append(slope.reshape(-1), value)

    draws = np.asarray(jax.vmap(draw)(jax.random.split(jax.random.key(1), 64)))
    places = draws[np.unique(np.round(draws[:, -1], 3), return_index=True)[1]]
    assert len(places) == 4
    everywhere = draw(None)
    np.testing.assert_allclose(places.mean(0), everywhere, rtol=1e-3, atol=1e-3 * np.abs(everywhere[:-1]).max())


def test_opacity_is_the_weight_of_a_part_alone():
    """A part that is there, on a canvas of its template's size."""
    config = dataclasses.replace(SMALL, canvas=(12, 12), template_size=(12, 12), template_gain=3.0)
    model, params = made(config)
    alpha = jax.random.normal(jax.random.key(1), (3, 12, 12, 1))
    generative = params["generative"] | {"alpha": alpha, "background_logit": jnp.float32(0.4)}
    there = jnp.asarray([0.0, -jnp.inf, -jnp.inf])
    still = jnp.broadcast_to(jnp.eye(2, 3), (3, 2, 3))
    pixels = model.render(params | {"generative": generative}, still, there, jnp.ones((3, 12, 12, 1)))
    weight = jax.nn.softmax(pixels.logit, 0)[0]
    np.testing.assert_allclose(pcae.opacity(config, generative)[0, ..., 0], weight, atol=1e-5)


@pytest.mark.parametrize(("mixing", "channels"), [("alpha", 1), ("template", 1), ("alpha", 3)])
def test_ink_is_what_a_part_adds_to_the_picture(mixing, channels):
    """In units of the mean part's; what is hidden, or off the canvas, adds nothing."""
    config = dataclasses.replace(SMALL, mixing=mixing, channels=channels)
    model, params = made(config)
    parts = model.encode(params, None, image(config))
    params = {**params, "generative": {**params["generative"], "background": jnp.full(channels, -0.5)}}
    pixels = model.render(params, parts.pose, parts.log_presence, parts.template)
    weight, change = jax.nn.softmax(pixels.logit, 0)[..., None], np.abs(pixels.value - 1 / (1 + np.exp(0.5)))
    each = np.asarray(weight * change)[:-1, ::2, ::2].sum((1, 2, 3))
    ink = jax.jit(model.ink)
    np.testing.assert_allclose(ink(params, parts), np.minimum(config.num_parts * each / each.sum(), 1), rtol=1e-4)
    last = parts._replace(log_presence=jnp.asarray([-30.0] * (config.num_parts - 1) + [-0.1]))
    np.testing.assert_allclose(ink(params, last), [0] * (config.num_parts - 1) + [1], atol=1e-4)
    # A template is 0 beyond its borders, which shows unless the background is black, too.
    black = {**params, "generative": {**params["generative"], "background": jnp.full(channels, -50.0)}}
    assert float(ink(black, parts._replace(pose=parts.pose.at[0, :, 2].set(50.0)))[0]) < 1e-6
    np.testing.assert_allclose(ink(black, parts._replace(template=jnp.zeros_like(parts.template))), 0, atol=1e-6)


def test_poses_may_be_similarities():
    config = dataclasses.replace(SMALL, part_similarity=True)
    model, params = made(config)
    linear = model.encode(params, None, X).pose[..., :2]
    square = jnp.swapaxes(linear, 1, 2) @ linear
    np.testing.assert_allclose(square, square[:, :1, :1] * jnp.eye(2)[None], atol=1e-6)


def test_initial_templates_fill_their_range_and_differ():
    first = pcae.initial_templates(jax.random.key(0), (24, 11, 11, 1)).reshape(24, -1)
    np.testing.assert_allclose([first.min(1), first.max(1)], np.array([[0.0], [1.0]]).repeat(24, 1), atol=1e-5)
    assert np.abs(np.corrcoef(first) - np.eye(24)).max() < 0.5
    many = pcae.initial_templates(jax.random.key(0), (9, 2, 2, 1))  # more than there are pixels
    assert np.isfinite(many).all() and many.shape == (9, 2, 2, 1)


def test_poses_move_templates_as_they_move_points():
    model, params = made(SMALL)
    template = jnp.zeros((3, 5, 4, 1)).at[:, 1, 3].set(1.0)  # its middle lies at x = 3/4, y = -2/5
    pose = poses.pose(jnp.asarray([0.5, 0.3, 0.1, 0.02, 0.01, -0.01]))
    value = np.asarray(model.render(params, jnp.tile(pose, (3, 1, 1)), jnp.zeros(3), template).value[0, ..., 0])
    (x, y) = np.asarray(poses.move(pose, jnp.asarray([[0.75, -0.4]])))[0]
    grid = np.meshgrid((2 * np.arange(12) + 1) / 12 - 1, (2 * np.arange(14) + 1) / 14 - 1, indexing="ij")
    centre = [float((g * value).sum() / value.sum()) for g in grid]
    np.testing.assert_allclose(centre, [y, x], atol=0.05)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"part_encoder": "mean"}, "model.part_encoder='mean' is unknown"),
        ({"mixing": "sum"}, "model.mixing='sum' is unknown"),
        ({"template_nonlinearity": "tanh"}, "model.template_nonlinearity='tanh' is unknown"),
        ({"special_features": -1}, "model.special_features=-1: use 0"),
        ({"part_noise": -1.0}, "model.part_noise=-1.0: use 0 or more"),
        ({"encoder_strides": (2,)}, "encoder_strides=\\(2,\\): use as many"),
        ({"encoder_strides": (5, 5)}, r"model.encoder_strides=\(5, 5\) leave nothing of a canvas of \(12, 14\)"),
        ({"pixel_stride": 4}, r"model.pixel_stride=4: use 1, or a divisor of both of \(12, 14\)"),
        ({"canvas": (20,)}, r"data.canvas=\(20,\): use two numbers"),
        ({"canvas": (20, 20, 3)}, r"data.canvas=\(20, 20, 3\): use two numbers"),
        ({"template_size": (0, 3)}, r"model.template_size=\(0, 3\): use two numbers"),
    ],
)
def test_what_makes_no_sense_is_refused(fields, said):
    with pytest.raises(UserError, match=said):
        dataclasses.replace(SMALL, **fields)
