"""A forward pass on a fixed image, which verifies weights and preprocessing together.

Its values are stored with the weights. Weights whose preprocessing was lost or changed,
for example by swapped channels, give other values and are refused.
"""

import functools
import os
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from invjax.networks import layers, modules
from invjax.networks.layers import Network
from invjax.networks.weights.preprocessing import Preprocessing

# Largest difference that is accepted, relative to the largest of the check's values.
# Rounding of float32 convolutions on other processors changes the values by less than
# 1e-5; swapped channels change them by at least 0.06.
_TOLERANCE = 1e-3


class WrongWeights(ValueError):
    """Weights that are not what their source or manifest says."""


def check_forward(
    network: Network,
    params: Mapping[str, Any],
    preprocessing: Preprocessing,
    expected: list[float],
    origin: str | os.PathLike[str],
) -> None:
    """Raises an error unless a forward pass on the fixed image gives known values.

    Args:
      network: the layer table.
      params: parameters of its layers, from the image up to any layer.
      preprocessing: the preprocessing that belongs to them.
      expected: the values that `forward_values` should return.
      origin: the file or folder of the weights, for the message.

    Raises:
      WrongWeights: the values are others.
    """
    values = forward_values(network, params, preprocessing)
    if len(expected) != len(values):
        raise WrongWeights(
            f"{origin}: the forward check has {len(expected)} values, not {len(values)}"
        )
    error = np.max(np.abs(np.subtract(values, expected))) / np.max(np.abs(expected))
    if not error <= _TOLERANCE:
        raise WrongWeights(
            f"{origin}: weights and preprocessing do not belong together: the forward "
            f"check differs by {error:.2g} of its largest value; at most "
            f"{_TOLERANCE:g} is accepted"
        )


def forward_values(
    network: Network, params: Mapping[str, Any], preprocessing: Preprocessing
) -> list[float]:
    """Eight fixed projections of the code of a fixed image.

    The code is that of the deepest layer for which there are parameters. The image is
    smooth and different in each channel, so that swapped channels or another mean show
    in every value.

    Args:
      network: the layer table.
      params: parameters of its layers, from the image up to any layer.
      preprocessing: the preprocessing that belongs to them.

    Returns:
      Eight numbers.
    """
    table = []
    for layer in network.layers:
        if layers.has_parameters(layer) and layer.name not in params:
            break
        table.append(layer)
    image = _image(network.input_size)
    mean = np.asarray(preprocessing.mean, np.float32)
    std = np.asarray(preprocessing.std, np.float32)
    x = (255 * image - mean) / std
    # Products in bfloat16 or TF32 would need a larger tolerance.
    with jax.default_matmul_precision("highest"):
        run = jax.jit(functools.partial(modules.forward, tuple(table)))
        code = np.asarray(run(params, jnp.asarray(x)), np.float64).ravel()
    angles = np.arange(code.size) * np.arange(1, 9)[:, None] * 0.7
    return (np.cos(angles) @ code / np.sqrt(code.size)).tolist()


def _image(size: int) -> np.ndarray:
    """The fixed image, float32 [size, size, 3] in [0, 1]."""
    y, x = np.mgrid[:size, :size] / size
    waves = [3 * x + y, x - 5 * y, 4 * x * y]
    image = np.stack([0.5 + 0.5 * np.sin(2 * np.pi * wave) for wave in waves], axis=-1)
    return image.astype(np.float32)
