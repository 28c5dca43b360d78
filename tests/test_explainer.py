import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

import objcentric
from experiments import scae
from objcentric import explainer, plots_capsules
from objcentric.data import labelled
from objcentric.errors import UserError
from objcentric.training import loop
from tests.experiments import labelled_images, scenes


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """That of a run of an SCAE."""
    path, data = tmp_path_factory.mktemp("runs") / "scae", labelled_images.make_data()

    def build(config):
        return scenes.filled(scae.build(config, data=data))._replace(figures=lambda *_: {})

    loop.run(labelled_images.make_config(train__num_steps=2), path, build)
    return path


@pytest.fixture(scope="module")
def run(folder):
    return explainer.load(folder)


def bar():
    return labelled_images.make_split(1, 5)["image"][0]


def test_an_explanation(run):
    told = objcentric.explain(run, bar())
    assert told.part_pose.shape == (3, 2, 3) and told.object_pose.shape == (4, 2, 3)
    assert told.template.shape == (3, 4, 4, 1) and told.reconstruction.shape == (12, 12, 1)
    assert ((told.part_presence >= 0) & (told.part_presence <= 1)).all()
    assert told.part_presence.any() and told.object_presence.shape == (4,)
    assert told.responsibility.shape == (3, 4) and (told.responsibility.sum(1) <= 1 + 1e-5).all()
    assert set(told.assignment.tolist()) <= {-1, 0, 1, 2, 3}
    sure = (told.responsibility.sum(1) >= 0.5) & (told.part_presence >= 0.5)
    assert ((told.assignment >= 0) == sure).all()
    told.picture.canvas.draw()


def test_it_is_the_model_without_noise(run, monkeypatch):
    """All that is told, and shown."""
    noise = jax.random.normal(jax.random.key(1), (10**5,))  # for a timid start sees the same from parts and objects
    params = jax.tree.map(lambda leaf: leaf + 0.2 * noise[: leaf.size].reshape(leaf.shape), run.params)
    run = explainer.of_params(run.config, params)
    drawn, signature = [], inspect.signature(plots_capsules.reconstructions)
    record = lambda *given, **more: drawn.append(signature.bind(*given, **more).arguments)  # noqa: E731
    monkeypatch.setattr(explainer.plots_capsules, "reconstructions", record)
    told = objcentric.explain(run, bar())
    x = np.pad(bar() / np.float32(255), ((1, 1), (1, 1), (0, 0)))
    model = explainer.make(run.config)
    seen, pictures = jax.jit(lambda params: looked(model, params, x))(run.params)
    expected = {
        "part_presence": seen.part_presence,
        "part_pose": seen.parts.pose,
        "template": seen.parts.template,
        "object_presence": scae.features_of(seen)["prior"],
        "object_pose": seen.capsules.pose,
        "responsibility": seen.explained.responsibility[..., 0],
        "reconstruction": pictures.parts,
    }
    for name, value in expected.items():
        np.testing.assert_allclose(getattr(told, name), value, rtol=1e-4, atol=1e-6, err_msg=name)
    joint = np.asarray(seen.explained.log_joint)[..., 0]
    explained = told.assignment >= 0
    np.testing.assert_array_equal(told.assignment[explained], joint.argmax(1)[explained])
    shown = {
        "images": x,
        **{name: getattr(pictures, name) for name in ("parts", "objects", "each_part", "each_object")},
        "part_presence": seen.part_presence,
        "object_presence": scae.features_of(seen)["prior"],
        "object_posterior": scae.features_of(seen)["posterior"],
    }
    assert len(drawn) == 1 and drawn[0].keys() == shown.keys()
    assert np.abs(pictures.parts - pictures.objects).max() > 1e-2
    for name, value in shown.items():
        np.testing.assert_allclose(drawn[0][name][0], value, rtol=1e-4, atol=1e-6, err_msg=name)


def looked(model, params, x):
    seen = model.infer(params, None, x, x)
    return seen, model.render(params, seen)


def test_folders_and_other_forms_of_an_image_do_as_well(run, folder):
    first = objcentric.explain(run, bar()).object_presence
    for image in (bar()[..., 0], bar() / 255.0, np.asarray(Image.fromarray(bar()[..., 0]))):
        np.testing.assert_allclose(objcentric.explain(run, image).object_presence, first, rtol=1e-5)
    np.testing.assert_allclose(objcentric.explain(folder, bar()).object_presence, first, rtol=1e-5)


def test_parameters_in_memory(run):
    given = explainer.of_params(run.config, run.params)
    first, second = (objcentric.explain(each, bar()).object_presence for each in (run, given))
    np.testing.assert_array_equal(first, second)
    with pytest.raises(UserError, match="the run is one of ccae"):
        explainer.of_params(labelled_images.make_constellations(), run.params)


def test_edges_of_a_colour_image():
    """The model sees the image itself; what it explains, and draws, are its edges."""
    config = labelled_images.make_config(model__channels=3, data__sobel=True)
    experiment = scenes.filled(explainer.skeleton(config))
    given = explainer.of_params(config, experiment.init(jax.random.key(0))[0])
    image = np.tile(bar(), (1, 1, 3)) * np.uint8([1, 0, 1])
    x = jnp.asarray(np.pad(image, ((1, 1), (1, 1), (0, 0))) / np.float32(255))
    edges = labelled.sobel_target(x)
    told, seen = objcentric.explain(given, image), jax.jit(explainer.make(config).infer)(given.params, None, x, edges)
    np.testing.assert_allclose(told.part_presence, seen.part_presence, rtol=1e-5)
    assert told.reconstruction.shape == (12, 12, 3) and told.template.shape == (3, 4, 4, 3)
    np.testing.assert_allclose(told.picture.axes[0].images[0].get_array(), edges, atol=1 / 255)


@pytest.mark.parametrize(
    ("image", "said"),
    [
        (np.zeros((10, 10, 3), np.uint8), r"shape \(10, 10, 3\): give \[H, W, 1\], at most 12x12 pixels"),
        (np.zeros((13, 10), np.uint8), r"shape \(13, 10, 1\)"),
        (np.zeros(4, np.uint8), r"shape \(4,\)"),
        (np.full((5, 5), 7.0), r"float64 in 7.0..7.0: give uint8, or float in \[0, 1\]"),
        (np.full((5, 5), 7), "int64 in 7..7"),
        (np.full((5, 5), np.nan), "float64 in nan..nan"),
    ],
)
def test_images_that_cannot_be(run, image, said):
    with pytest.raises(UserError, match=said):
        objcentric.explain(run, image)


def test_runs_of_other_experiments(tmp_path):
    (tmp_path / "ccae").mkdir()
    (tmp_path / "ccae" / "config.json").write_text(labelled_images.make_constellations().to_json())
    with pytest.raises(UserError, match="the run is one of ccae: give one of configs/scae.py"):
        objcentric.explain(tmp_path / "ccae", bar())
    with pytest.raises(UserError, match="holds no run"):
        objcentric.explain(tmp_path / "nothing", bar())


def test_unknown_fields_of_a_model():
    config = labelled_images.make_config()
    config.model.magic = 3
    with pytest.raises(UserError, match="model.magic is unknown"):
        explainer.make(config)
