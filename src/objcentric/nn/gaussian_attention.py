"""Gaussian attention (Kahou et al., 2015) as HART has it: a glimpse is ``A_y image A_x^T`` (thesis, equation 3.2).

A row of A is a Gaussian over the pixels of one axis, normalised. Its mean is where the centre of the glimpse's pixel
falls; its width depends on the stride alone, "approximated using linear regression with polynomial basis functions (up
to 4th order)" (section 3.3) of the widths at which a row is nearest to one of a bicubic resize. Those of the two axes
do not depend on each other, as a bicubic resize has it. A glimpse of an axis-aligned box differs from such a resize by
a root mean square of less than .02, of pixels in [0, 1], where the image is smooth.

What is attended to is ``where [4]``: y, x of the upper left corner, height and width, in shares of the image's sides.
"""

import math

import jax.numpy as jnp
import numpy as np
from jax import Array

COARSEST = 8.0  # stride up to which the polynomial was fitted, pixels; beyond it the width grows in proportion
COEFFICIENTS = (0.39778451, -0.18544722, 0.26855576, -0.04700493, 0.00276426)  # constant first: what `fit` returns


def glimpse(image: Array, where: Array, size: tuple[int, int]) -> Array:
    """The glimpse ``[h, w, C]`` of ``image [H, W, C]`` at ``where [4]``; less than a pixel is taken as one.

    Pixels beyond the border look as the nearest ones inside; some six widths beyond it they are 0.
    """
    rows = _gaussians(where[0], where[2], size[0], image.shape[0])
    columns = _gaussians(where[1], where[3], size[1], image.shape[1])
    stretched = jnp.einsum("ay,ywc->awc", rows, image)
    seen = jnp.swapaxes(jnp.einsum("awc,bw->acb", stretched, columns), 1, 2)
    return seen / (_sums(rows)[:, None, None] + 1e-8) / (_sums(columns)[None, :, None] + 1e-8)


def _gaussians(start: Array, extent: Array, size: int, side: int) -> Array:
    """A ``[size, side]`` of one axis, not yet normalised."""
    stride = jnp.maximum(extent * side, 1.0) / size
    mean = start * side + (jnp.arange(size) + 0.5) * stride - 0.5
    precision = 1 / (math.sqrt(2) * width(stride))
    return jnp.exp(-jnp.square((precision * mean)[:, None] - (precision * jnp.arange(side))[None]))


def _sums(weights: Array) -> Array:
    """Of each row; as a product, for XLA does not vectorise sums over the last axis on CPUs."""
    return (weights @ jnp.ones((weights.shape[1], 1)))[:, 0]


def width(stride: Array) -> Array:
    """Standard deviation of the Gaussians, pixels, at a ``stride`` in pixels, at least 0."""
    inside = jnp.minimum(stride, COARSEST)
    return jnp.polyval(jnp.asarray(COEFFICIENTS[::-1]), inside) * jnp.maximum(stride / COARSEST, 1.0)


def fit() -> np.ndarray:
    """`COEFFICIENTS` anew: least squares, relative, of what `nearest_width` finds at strides up to `COARSEST`."""
    strides = np.linspace(0.0, COARSEST, 161)
    widths = np.array([nearest_width(stride) for stride in strides])
    return np.polynomial.polynomial.polyfit(strides, widths, 4, w=1 / widths)


def nearest_width(stride: float) -> float:
    """The width of the Gaussian row nearest, in squares, to a row of an antialiased bicubic resize, in pixels.

    Both are normalised; the squares are summed over all positions of the mean between two pixels.
    """
    blur = max(stride, 1.0)  # a resize widens its kernel where it makes an image smaller
    pixels = np.arange(-np.ceil(2 * blur) - 1, np.ceil(2 * blur) + 2)
    distance = (pixels[None] - np.linspace(-0.5, 0.5, 21)[:, None]) / blur

    def normalised(weights: np.ndarray) -> np.ndarray:
        return weights / weights.sum(axis=1, keepdims=True)

    bicubic = normalised(keys_kernel(distance))
    candidates = np.linspace(0.25, 0.6, 351)
    errors = [np.square(normalised(np.exp(-0.5 * np.square(distance / c))) - bicubic).sum() for c in candidates]
    return blur * candidates[int(np.argmin(errors))]


def keys_kernel(x: np.ndarray) -> np.ndarray:
    """The cubic convolution kernel of Keys (1981), a = -1/2, as bicubic resizes have it."""
    x = np.abs(x)
    inner, outer = ((1.5 * x - 2.5) * x) * x + 1, ((-0.5 * x + 2.5) * x - 4) * x + 2
    return np.where(x < 1, inner, np.where(x < 2, outer, 0.0))
