import jax
import jax.numpy as jnp
import numpy as np

from objcentric.nn import poses, templates
from objcentric.nn.spatial_transformer import centres

IDENTITY = jnp.asarray([[1.0, 0, 0], [0, 1, 0]])


def scaled(x: float, y: float, shift: tuple[float, float] = (0.0, 0.0)) -> jax.Array:
    return jnp.asarray([[x, 0, shift[0]], [0, y, shift[1]]])


def test_the_identity_changes_nothing():
    template = jax.random.uniform(jax.random.key(0), (7, 5, 2))
    np.testing.assert_allclose(templates.place(template, IDENTITY, (7, 5)), template, atol=1e-6)


def test_a_small_scale_makes_the_template_small():
    """The trap that breaks ports: the canvas is sampled with the inverse of the pose."""
    placed = templates.place(jnp.ones((11, 11, 1)), scaled(0.25, 0.5, (0.5, 0.0)), (40, 40))[..., 0]
    ink = np.argwhere(placed > 0.5)
    np.testing.assert_array_equal(ink.min(0), [10, 25])  # rows 10 to 29, columns 25 to 34
    np.testing.assert_array_equal(ink.max(0), [29, 34])
    assert float(jnp.sum(placed > 0.01)) < 300


def test_it_interpolates_as_weights_do():
    template = jax.random.uniform(jax.random.key(0), (6, 4, 3))
    matrix = poses.pose(jax.random.normal(jax.random.key(1), (6,)))
    y, x = np.meshgrid(centres(9), centres(12), indexing="ij")
    at = poses.move(poses.invert(matrix), jnp.stack([x.reshape(-1), y.reshape(-1)], -1))
    row, column = ((np.asarray(at)[:, 1] + 1) * 6 - 1) / 2, ((np.asarray(at)[:, 0] + 1) * 4 - 1) / 2
    rows = np.maximum(0, 1 - np.abs(row[:, None] - np.arange(6)))
    columns = np.maximum(0, 1 - np.abs(column[:, None] - np.arange(4)))
    expected = np.einsum("pa,abc,pb->pc", rows, template, columns).reshape(9, 12, 3)
    assert expected.max() > 0.1
    np.testing.assert_allclose(templates.place(template, matrix, (9, 12)), expected, atol=1e-5)


def test_gradients_are_those_of_finite_differences():
    grid = centres(12)  # a smooth template: bilinear interpolation has kinks
    template = jnp.exp(-3 * (jnp.square(grid[:, None] - 0.3) + 2 * jnp.square(grid[None] + 0.2)))[..., None]
    raw, target = jax.random.normal(jax.random.key(1), (6,)) / 2, jax.random.uniform(jax.random.key(2), (10, 10, 1))

    def loss(raw, template):
        return jnp.sum(jnp.square(templates.place(template, poses.pose(raw), (10, 10)) - target))

    slope, ink = jax.grad(loss, (0, 1))(raw, template)
    step = 1e-3
    differences = [(loss(raw + step * e, template) - loss(raw - step * e, template)) / (2 * step) for e in jnp.eye(6)]
    np.testing.assert_allclose(slope, differences, rtol=0.1, atol=0.3)
    change = jax.random.normal(jax.random.key(3), template.shape)
    difference = (loss(raw, template + step * change) - loss(raw, template - step * change)) / (2 * step)
    np.testing.assert_allclose(jnp.sum(ink * change), difference, rtol=1e-2)


def test_far_outside_there_is_nothing():
    placed, slope = jax.value_and_grad(lambda m: jnp.sum(templates.place(jnp.ones((5, 5, 1)), m, (8, 8))))(
        scaled(0.1, 0.1, (50.0, -30.0))
    )
    assert placed == 0 and np.isfinite(slope).all()
