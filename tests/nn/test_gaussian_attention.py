import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

from objcentric.nn import gaussian_attention

glimpse = jax.jit(gaussian_attention.glimpse, static_argnums=2)


def smooth(key: jax.Array, shape: tuple[int, int]) -> np.ndarray:
    """A random image in [0, 1], about as smooth as a photograph."""
    image = ndimage.gaussian_filter(np.asarray(jax.random.normal(key, shape)), 2.0)
    return (image - image.min()) / np.ptp(image)


def test_the_polynomial_is_the_fit():
    np.testing.assert_allclose(gaussian_attention.COEFFICIENTS, gaussian_attention.fit(), atol=1e-6)


def test_the_fit_imitates_the_widths_of_a_bicubic_resize():
    for stride in (0.5, 1.0, 1.5, 2.0, 3.0, 5.0, 8.0):
        near = gaussian_attention.nearest_width(stride)
        assert float(gaussian_attention.width(jnp.asarray(stride))) == pytest.approx(near, rel=0.15)


def test_width_grows_in_proportion_beyond_the_fit():
    edge = gaussian_attention.width(jnp.asarray(gaussian_attention.COARSEST))
    np.testing.assert_allclose(gaussian_attention.width(jnp.asarray(3 * gaussian_attention.COARSEST)), 3 * edge, 1e-5)


@pytest.mark.parametrize("size", [(40, 30), (20, 16), (12, 10), (60, 46), (12, 30), (40, 10), (80, 10)])
def test_a_glimpse_is_about_a_bicubic_resize(size):
    image = smooth(jax.random.key(0), (80, 90))
    where = jnp.asarray([20 / 80, 30 / 90, 40 / 80, 30 / 90])
    seen = np.asarray(glimpse(image[..., None], where, size))[..., 0]
    shape = 60 * size[0] // 40, 60 * size[1] // 30
    resized = np.asarray(jax.image.resize(jnp.asarray(image[10:70, 15:75]), shape, "cubic"))
    top, left = size[0] // 4, size[1] // 2  # the box within the crop, which has a margin of 10 and 15 pixels
    expected = resized[top : top + size[0], left : left + size[1]]
    error = np.sqrt(np.mean(np.square(seen - expected)))
    assert error < 0.02, error  # of a range of 1
    assert error < 0.15 * np.std(expected)


def test_a_whole_image_at_its_own_size_is_hardly_blurred():
    image = smooth(jax.random.key(1), (24, 32))[..., None]
    seen = glimpse(image, jnp.asarray([0.0, 0.0, 1.0, 1.0]), (24, 32))
    assert np.max(np.abs(seen - image)[2:-2, 2:-2]) < 0.04


def test_a_constant_image_stays_constant_also_across_the_border():
    image = jnp.full((20, 30, 3), 0.7)
    np.testing.assert_allclose(glimpse(image, jnp.asarray([-0.05, 0.75, 0.5, 0.3]), (8, 8)), 0.7, rtol=1e-3)


def test_far_outside_there_is_nothing_and_no_nan():
    image = jnp.ones((20, 30, 1))

    def total(where):
        return jnp.sum(glimpse(image, where, (8, 8)))

    value, slope = jax.jit(jax.value_and_grad(total))(jnp.asarray([5.0, -7.0, 0.2, 0.2]))
    assert value == 0
    assert np.isfinite(slope).all()


def test_moving_the_box_moves_what_is_seen():
    image = np.zeros((40, 40, 1))
    image[20:24, 10:14] = 1.0
    where = np.array([10 / 40, 4 / 40, 20 / 40, 20 / 40])

    def centre(where):
        return ndimage.center_of_mass(np.asarray(glimpse(image, jnp.asarray(where), (20, 20))[..., 0]))

    np.testing.assert_allclose(centre(where), [11.5, 7.5], atol=1e-3)
    np.testing.assert_allclose(centre(where + [2 / 40, -3 / 40, 0, 0]), [9.5, 10.5], atol=1e-3)
    np.testing.assert_allclose(centre(where + [0, 0, 20 / 40, 0]), [5.5, 7.5], atol=1e-2)  # twice as high, half as far


def test_gradients_are_those_of_finite_differences():
    image = smooth(jax.random.key(2), (30, 30))[..., None]
    target = jax.random.uniform(jax.random.key(3), (6, 6, 1))

    @jax.jit
    def loss(where):
        return jnp.sum(jnp.square(glimpse(image, where, (6, 6)) - target))

    where = np.array([0.21, 0.33, 0.4, 0.5])
    slope = jax.jit(jax.grad(loss))(where)
    step = 1e-2
    differences = [(loss(where + step * e) - loss(where - step * e)) / (2 * step) for e in np.eye(4)]
    np.testing.assert_allclose(slope, differences, rtol=0.05, atol=0.05)


def test_a_box_without_extent_is_seen_as_one_pixel():
    image = smooth(jax.random.key(4), (30, 30))[..., None]
    assert np.isfinite(glimpse(image, jnp.asarray([0.5, 0.5, 0.0, -0.3]), (6, 6))).all()
