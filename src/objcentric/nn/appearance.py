"""HART's appearance attention (thesis, section 3.3): V1, the ventral stream and the dorsal one, of one glimpse."""

import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jax import Array

from objcentric.errors import UserError
from objcentric.nn.activations import elu
from objcentric.nn.convolution import Conv


class AlexNet(nn.Module):
    """The first three convolutions of AlexNet (Krizhevsky et al., 2012), without its poolings and normalisations.

    ``[H, W, C] -> [H / 4, W / 4, 384]``, for the stride of the first layer is the only one left, and borders are kept:
    14x14 maps of 56x56 glimpses, as in the thesis (section 3.5.2), which says that it lowers that stride to one and
    leaves out one pooling, but by this makes maps of another size. Parameters of the layers are named ``conv1`` to
    ``conv3``; ``conv2`` has two groups, as the original has, and unlike torchvision's.
    """

    @nn.compact
    def __call__(self, glimpse: Array) -> Array:
        x = nn.relu(Conv(96, (11, 11), (4, 4), name="conv1")(glimpse))
        x = nn.relu(Conv(256, (5, 5), feature_group_count=2, name="conv2")(x))
        return nn.relu(Conv(384, (3, 3), name="conv3")(x))


class GlimpseCNN(nn.Module):
    """MOHART's feature extractor (thesis, appendix 4.A): ``[32, 32, C] -> [7, 7, 64]`` with the sizes given there.

    The first layer has no padding, the others keep borders; the second adds its input to its output, the thesis' "skip
    connections", as only there shapes agree.
    """

    features: tuple[int, int, int] = (32, 32, 64)
    kernel: int = 5

    @nn.compact
    def __call__(self, glimpse: Array) -> Array:
        kernel = (self.kernel, self.kernel)
        x = elu(Conv(self.features[0], kernel, (2, 2), "VALID")(glimpse))
        same = elu(Conv(self.features[1], kernel)(x))
        x = same + x if self.features[0] == self.features[1] else same
        return elu(Conv(self.features[2], kernel, (2, 2))(x))


class Ventral(nn.Module):
    """What: feature maps ``[h, w, maps]``."""

    maps: int = 5

    @nn.compact
    def __call__(self, v1: Array) -> Array:
        return elu(Conv(self.maps, (1, 1))(v1))


class Dorsal(nn.Module):
    """Where: logits ``[h, w]`` that the object is there, by filters that its appearance determines (equation 3.3).

    Two layers of dynamic filters (De Brabandere et al., 2016), 1x1 and 3x3, then one of a static 1x1 filter. Returns
    also the dynamic filters ``[F]``, which are regularised. Those of an appearance of 0 are random, as static layers
    begin.
    """

    maps: int = 5

    @nn.compact
    def __call__(self, v1: Array, appearance: Array) -> tuple[Array, Array]:
        height, width, depth = v1.shape
        sizes = (depth * self.maps, 9 * self.maps * self.maps)
        scales = jnp.concatenate([jnp.full(n, (n / self.maps) ** -0.5) for n in sizes])

        def initial(key: Array, shape: tuple[int, ...], dtype: type = jnp.float32) -> Array:
            return scales.astype(dtype) * nn.initializers.normal(1.0)(key, shape, dtype)

        hidden = elu(nn.Dense(len(appearance))(appearance))
        small = nn.initializers.variance_scaling(0.01, "fan_in", "truncated_normal")
        filters = nn.Dense(sum(sizes), kernel_init=small, bias_init=initial)(hidden)
        first, second = jnp.split(filters, [sizes[0]])
        bias = self.param("bias", nn.initializers.zeros, (2, self.maps))
        x = elu(v1 @ first.reshape(depth, self.maps) + bias[None, :1])
        padded = jnp.pad(x, ((1, 1), (1, 1), (0, 0)))
        shifts = [padded[i : i + height, j : j + width] for i in range(3) for j in range(3)]
        x = elu(jnp.concatenate(shifts, -1) @ second.reshape(9 * self.maps, self.maps) + bias[None, 1:])
        return nn.Dense(1)(x)[..., 0], filters


def read_weights(path: str | Path, params: Mapping[str, Any]) -> dict[str, Any]:
    """Parameters of V1, as its module's init made ``params``, with the values of an .npz.

    Its arrays are named LAYER_kernel ``[height, width, inputs, outputs]`` and LAYER_bias ``[outputs]``, of the layers
    conv1, conv2 and conv3 of `AlexNet` (whose conv2 has two groups: kernel ``[5, 5, 48, 256]``), or of Conv_0, Conv_1
    and Conv_2 of `GlimpseCNN`.

    Raises:
      UserError: the file cannot be read, lacks an array, or one has another shape.
    """
    try:
        with Path(path).expanduser().open("rb") as file, np.load(file) as arrays:
            held = dict(arrays)
    except (OSError, ValueError, EOFError, TypeError, zipfile.BadZipFile) as error:  # TypeError: a lone array
        raise UserError(f"cannot read model.v1_weights={path} ({error}): give an .npz") from error
    layers = params["params"]
    wanted = {f"{layer}_{part}": value.shape for layer, parts in layers.items() for part, value in parts.items()}
    for name, shape in wanted.items():
        there = held[name].shape if name in held else "missing"
        if there != shape:
            raise UserError(f"model.v1_weights={path}: {name} is {there}, and V1 needs {shape}")
    return {
        "params": {
            layer: {part: jnp.asarray(held[f"{layer}_{part}"], jnp.float32) for part in parts}
            for layer, parts in layers.items()
        }
    }


def write_weights(path: str | Path, params: Mapping[str, Any]) -> None:
    """Writes parameters of V1 as an .npz, under just that name, that `read_weights` reads; UserError if it cannot."""
    layers = params["params"].items()
    arrays = {f"{layer}_{part}": np.asarray(value) for layer, parts in layers for part, value in parts.items()}
    try:
        with Path(path).expanduser().open("wb") as file:  # savez would add .npz to a name without it
            np.savez(file, **arrays)
    except OSError as error:
        raise UserError(f"cannot write {path} ({error}): choose another file") from error
