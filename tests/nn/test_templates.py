import jax
import jax.numpy as jnp
import numpy as np

from objcentric.nn import poses, templates
from objcentric.nn.spatial_transformer import centres

IDENTITY = jnp.asarray([[1.0, 0, 0], [0, 1, 0]])
place = jax.jit(templates.place, static_argnums=2)


def scaled(x: float, y: float, shift: tuple[float, float] = (0.0, 0.0)) -> jax.Array:
    return jnp.asarray([[x, 0, shift[0]], [0, y, shift[1]]])


def test_the_identity_changes_nothing():
    template = jax.random.uniform(jax.random.key(0), (7, 5, 2))
    np.testing.assert_allclose(place(template, IDENTITY, (7, 5)), template, atol=1e-6)


def test_a_small_scale_makes_the_template_small():
    """The trap that breaks ports: the canvas is sampled with the inverse of the pose."""
    placed = np.asarray(place(jnp.ones((11, 11, 1)), scaled(0.25, 0.5, (0.5, 0.0)), (40, 40)))[..., 0]
    ink = np.argwhere(placed > 0.5)
    np.testing.assert_array_equal(ink.min(0), [10, 25])  # rows 10 to 29, columns 25 to 34
    np.testing.assert_array_equal(ink.max(0), [29, 34])
    assert np.sum(placed > 0.01) < 300


def test_it_interpolates_as_weights_do():
    template = jax.random.uniform(jax.random.key(0), (6, 4, 3))
    matrix = jax.jit(poses.pose)(jax.random.normal(jax.random.key(1), (6,)))
    y, x = np.meshgrid(centres(9), centres(12), indexing="ij")
    back = jax.jit(lambda matrix, points: poses.move(poses.invert(matrix), points))
    at = back(matrix, np.stack([x.reshape(-1), y.reshape(-1)], -1))
    row, column = ((np.asarray(at)[:, 1] + 1) * 6 - 1) / 2, ((np.asarray(at)[:, 0] + 1) * 4 - 1) / 2
    rows = np.maximum(0, 1 - np.abs(row[:, None] - np.arange(6)))
    columns = np.maximum(0, 1 - np.abs(column[:, None] - np.arange(4)))
    expected = np.einsum("pa,abc,pb->pc", rows, template, columns).reshape(9, 12, 3)
    assert expected.max() > 0.1
    np.testing.assert_allclose(place(template, matrix, (9, 12)), expected, atol=1e-5)


def test_gradients_are_those_of_finite_differences():
    grid = np.asarray(centres(12))  # a smooth template: bilinear interpolation has kinks
    template = np.exp(-3 * (np.square(grid[:, None] - 0.3) + 2 * np.square(grid[None] + 0.2)))[..., None]
    raw = np.asarray(jax.random.normal(jax.random.key(1), (6,))) / 2
    target = jax.random.uniform(jax.random.key(2), (10, 10, 1))

    @jax.jit
    def loss(raw, template):
        return jnp.sum(jnp.square(templates.place(template, poses.pose(raw), (10, 10)) - target))

    slope, ink = jax.jit(jax.grad(loss, (0, 1)))(raw, template)
    step = 1e-3
    differences = [(loss(raw + step * e, template) - loss(raw - step * e, template)) / (2 * step) for e in np.eye(6)]
    np.testing.assert_allclose(slope, differences, rtol=0.1, atol=0.3)
    change = np.asarray(jax.random.normal(jax.random.key(3), template.shape))
    difference = (loss(raw, template + step * change) - loss(raw, template - step * change)) / (2 * step)
    np.testing.assert_allclose(np.sum(ink * change), difference, rtol=1e-2)


def test_far_outside_there_is_nothing():
    total = jax.value_and_grad(lambda m: jnp.sum(templates.place(jnp.ones((5, 5, 1)), m, (8, 8))))
    placed, slope = jax.jit(total)(scaled(0.1, 0.1, (50.0, -30.0)))
    assert placed == 0 and np.isfinite(slope).all()
