"""Reading and placing glimpses: known values, and two independent implementations of the derivative."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from objcentric.nn import spatial_transformer as st


def image_of(shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).uniform(size=shape), jnp.float32)


def to_scale_and_shift(box, canvas):
    """The scale and shift whose box is ``box`` (y0, x0, y1, x1) in pixels."""
    box, size = np.float32(box), np.float32(canvas)
    return jnp.asarray((box[2:] - box[:2]) / size), jnp.asarray((box[2:] + box[:2]) / size - 1)


def read_by_matrices(image, scale, shift, size):
    """``st.read`` without its own derivative."""
    rows, columns = (st.interpolation(st.centres(size[i]) * scale[i] + shift[i], image.shape[i]) for i in range(2))
    return jnp.einsum("ay,ywc,bw->abc", rows, image, columns)


def read_pixel_by_pixel(image, box, size):
    """Bilinear interpolation from its definition, in float64; black outside."""
    image, (y0, x0, y1, x1) = np.pad(np.float64(image), [(1, 1), (1, 1), (0, 0)]), box
    glimpse = np.zeros((*size, image.shape[2]))
    for a in range(size[0]):
        for b in range(size[1]):
            y, x = y0 + (a + 0.5) * (y1 - y0) / size[0] + 0.5, x0 + (b + 0.5) * (x1 - x0) / size[1] + 0.5
            for i in (int(np.floor(y)), int(np.floor(y)) + 1):
                for j in (int(np.floor(x)), int(np.floor(x)) + 1):
                    if 0 <= i < image.shape[0] and 0 <= j < image.shape[1]:
                        glimpse[a, b] += (1 - abs(y - i)) * (1 - abs(x - j)) * image[i, j]
    return glimpse


# ---------------------------------------------------------------------------------------------------------------- read


@pytest.mark.parametrize("shape", [(8, 8, 1), (9, 6, 3)])
def test_reading_the_whole_canvas_at_its_own_size_is_exact(shape):
    image = image_of(shape)
    glimpse = st.read(image, jnp.ones(2), jnp.zeros(2), shape[:2])
    np.testing.assert_allclose(glimpse, image, atol=1e-6)


def test_a_box_aligned_to_pixels_is_a_crop():
    image = image_of((10, 12, 3))
    glimpse = st.read(image, *to_scale_and_shift((2, 5, 6, 8), (10, 12)), (4, 3))
    np.testing.assert_allclose(glimpse, image[2:6, 5:8], atol=1e-5)


def test_half_a_pixel_averages_neighbours():
    image = image_of((10, 10, 1))
    glimpse = st.read(image, *to_scale_and_shift((2.5, 5, 6.5, 8), (10, 10)), (4, 3))
    np.testing.assert_allclose(glimpse, (image[2:6, 5:8] + image[3:7, 5:8]) / 2, atol=1e-5)


def test_outside_is_black():
    image = jnp.ones((6, 6, 1))
    far = st.read(image, jnp.full(2, 0.2), jnp.array([2.0, 0.0]), (3, 3))
    np.testing.assert_array_equal(far, 0)
    half = st.read(image, *to_scale_and_shift((-2, 1, 2, 3), (6, 6)), (4, 2))
    np.testing.assert_allclose(half[..., 0], [[0, 0], [0, 0], [1, 1], [1, 1]], atol=1e-5)


@pytest.mark.parametrize("box", [(1.3, 0.4, 7.7, 5.1), (-3.2, 2.0, 4.9, 9.6), (3.1, 3.2, 4.0, 3.9)])
def test_read_against_its_definition(box):
    image, size = image_of((9, 7, 3)), (5, 4)
    glimpse = st.read(image, *to_scale_and_shift(box, (9, 7)), size)
    np.testing.assert_allclose(glimpse, read_pixel_by_pixel(image, box, size), atol=1e-5)


# ---------------------------------------------------------------------------------------------------- read's gradient

SCALE, SHIFT = jnp.array([0.43, 0.61]), jnp.array([0.13, -0.29])


def weighted(read):
    """A scalar function of all that ``read`` depends on."""
    weights = image_of((5, 4, 3), seed=1)
    return lambda image, scale, shift: jnp.sum(weights * jnp.sin(3 * read(image, scale, shift, (5, 4))))


@pytest.mark.parametrize("arguments", [(0,), (1,), (2,), (0, 1, 2)])
def test_reverse_mode_against_plain_differentiation(arguments):
    image = image_of((9, 7, 3))
    ours, plain = (jax.jit(jax.grad(weighted(f), arguments))(image, SCALE, SHIFT) for f in (st.read, read_by_matrices))
    for gradient, expected in zip(ours, plain, strict=True):
        assert np.abs(expected).max() > 0.01
        np.testing.assert_allclose(gradient, expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("arguments", [(0,), (1, 2), (0, 1, 2)])
def test_forward_mode_against_plain_differentiation(arguments):
    primals = image_of((9, 7, 3)), SCALE, SHIFT
    tangents = image_of((9, 7, 3), seed=2), jnp.array([0.7, -0.4]), jnp.array([-0.2, 1.1])

    @jax.jit
    def both():
        def along(read):
            def function(*chosen):
                given = dict(zip(arguments, chosen, strict=True))
                return read(*(given.get(i, primal) for i, primal in enumerate(primals)), (5, 4))

            return jax.jvp(function, [primals[i] for i in arguments], [tangents[i] for i in arguments])

        return along(st.read), along(read_by_matrices)

    (glimpse, tangent), (expected_glimpse, expected) = both()
    np.testing.assert_allclose(glimpse, expected_glimpse, atol=1e-6)
    np.testing.assert_allclose(tangent, expected, rtol=1e-3, atol=1e-4)


def test_gradients_against_finite_differences():
    # A quarter of a pixel or more from the kinks of the interpolation, where there is no derivative.
    scale, shift = to_scale_and_shift((1.3, 0.85, 6.3, 4.85), (9, 7))

    with jax.enable_x64(True):
        arguments = [jnp.asarray(np.float64(a)) for a in (image_of((9, 7, 1)), scale, shift)]
        function = jax.jit(lambda *args: st.read(*args, (5, 4)))
        check_grads(function, arguments, order=1, modes=("fwd", "rev"), rtol=1e-5, eps=1e-5)


def test_batches_of_images_and_boxes():
    images = image_of((3, 9, 7, 1))
    scales = jnp.array([[0.43, 0.61], [0.3, 0.4], [0.56, 0.8]])
    shifts = jnp.array([[0.13, -0.29], [-0.1, 0.3], [0.05, -0.12]])
    gradient = jax.grad(lambda *args: jnp.sum(jnp.square(st.read(*args, (5, 4)))), (0, 1, 2))
    together = jax.jit(jax.vmap(gradient))(images, scales, shifts)
    for i in range(3):
        alone = jax.jit(gradient)(images[i], scales[i], shifts[i])
        for batch, expected in zip(together, alone, strict=True):
            np.testing.assert_allclose(batch[i], expected, rtol=1e-4, atol=1e-5)


def test_particles_of_one_image():
    """As in training: the image is shared, and nobody asks for its gradient."""
    image, scales = image_of((9, 7, 1)), jnp.array([[0.43, 0.61], [0.3, 0.4]])

    def gradient(read):
        one = jax.vmap(lambda image, scale: jnp.sum(jnp.square(read(image, scale, SHIFT, (5, 4)))), (None, 0))
        return jax.jit(jax.grad(lambda scales: one(image, scales).sum()))(scales)

    np.testing.assert_allclose(gradient(st.read), gradient(read_by_matrices), rtol=1e-4, atol=1e-4)


# --------------------------------------------------------------------------------------------------------------- place


@pytest.mark.parametrize("canvas", [(12, 12), (10, 14)])
def test_a_constant_glimpse_covers_exactly_its_box(canvas):
    """Its glimpse has pixels as large as the canvas': within the box it is 1, outside 0."""
    box = (2, 3, 6, 8)
    scale, shift = to_scale_and_shift(box, canvas)
    written = st.place(jnp.ones((1, 4, 5, 1)), scale[None], shift[None], canvas)
    expected = np.zeros((*canvas, 1))
    expected[2:6, 3:8] = 1
    np.testing.assert_allclose(written, expected, atol=1e-5)
    np.testing.assert_allclose(st.box(scale, shift, canvas), box, atol=1e-5)


def test_placing_at_the_canvas_own_size_is_exact():
    glimpse = image_of((9, 6, 3))
    written = st.place(glimpse[None], jnp.ones((1, 2)), jnp.zeros((1, 2)), (9, 6))
    np.testing.assert_allclose(written, glimpse, atol=1e-6)


def test_several_glimpses_are_the_sum_of_each_alone():
    glimpses = image_of((3, 5, 4, 3))
    scales = jnp.array([[0.3, 0.4], [0.5, 0.2], [0.6, 0.6]])
    shifts = jnp.array([[0.1, -0.5], [-0.7, 0.8], [0.0, 0.2]])
    place = jax.jit(lambda *args: st.place(*args, (11, 13)))
    alone = [place(*(leaf[i : i + 1] for leaf in (glimpses, scales, shifts))) for i in range(3)]
    np.testing.assert_allclose(place(glimpses, scales, shifts), sum(alone), atol=1e-5)
    assert all(np.abs(canvas).max() > 0.1 for canvas in alone)


@pytest.mark.parametrize("canvas", [(40, 40), (30, 44)])
def test_reading_what_was_placed(canvas):
    y, x = np.meshgrid(np.linspace(-1, 1, 12), np.linspace(-1, 1, 10), indexing="ij")
    smooth = jnp.asarray(np.exp(-2 * (y**2 + x**2))[..., None] * [1.0, 0.5, 0.2], jnp.float32)
    scale, shift = jnp.array([0.45, 0.4]), jnp.array([0.21, -0.33])
    again = st.read(st.place(smooth[None], scale[None], shift[None], canvas), scale, shift, (12, 10))
    np.testing.assert_allclose(again[1:-1, 1:-1], smooth[1:-1, 1:-1], atol=0.05)  # interpolated twice


def test_the_box_is_where_the_glimpse_is_written():
    canvas, scale, shift = (40, 60), jnp.array([0.31, 0.17]), jnp.array([-0.37, 0.52])
    written = np.asarray(st.place(jnp.ones((1, 8, 8, 1)), scale[None], shift[None], canvas))[..., 0]
    y0, x0, y1, x1 = np.asarray(st.box(scale, shift, canvas))
    rows, columns = np.flatnonzero(written.any(1)), np.flatnonzero(written.any(0))
    assert written.sum() == pytest.approx((y1 - y0) * (x1 - x0), rel=0.02)
    np.testing.assert_allclose((rows[0] + rows[-1] + 1) / 2, (y0 + y1) / 2, atol=0.5)
    np.testing.assert_allclose((columns[0] + columns[-1] + 1) / 2, (x0 + x1) / 2, atol=0.5)
    centre = written[int(y0) + 2 : int(y1) - 2, int(x0) + 2 : int(x1) - 2]
    np.testing.assert_allclose(centre, 1, atol=1e-5)


def test_the_whole_canvas_in_pixels():
    np.testing.assert_array_equal(st.box(jnp.ones(2), jnp.zeros(2), (40, 60)), [0, 0, 40, 60])


def test_the_extent_is_the_box_of_what_is_bright():
    glimpse = np.zeros((10, 10, 3), np.float32)
    glimpse[2:5, 4:9, 1] = 0.9
    glimpse[7, 7] = 0.1  # below the threshold
    canvas, box = (40, 60), (5, 10, 25, 50)  # 2 and 4 pixels of the canvas to one of the glimpse
    scale, shift = to_scale_and_shift(box, canvas)
    extent = jax.jit(st.extent, static_argnums=3)
    np.testing.assert_allclose(extent(jnp.asarray(glimpse), scale, shift, canvas), [9, 26, 15, 46], atol=1e-4)
    np.testing.assert_allclose(extent(jnp.zeros((10, 10, 1)), scale, shift, canvas), box, atol=1e-4)
    np.testing.assert_allclose(extent(jnp.ones((10, 10, 1)), scale, shift, canvas), box, atol=1e-4)
