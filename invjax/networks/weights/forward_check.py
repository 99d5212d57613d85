"""A forward pass on a fixed image, which guards weights and preprocessing together."""

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

# Relative to the largest of the check's values. Rounding of float32 convolutions on
# other processors stays below 1e-5 of it; swapped channels move it by 0.06 at least.
_TOLERANCE = 1e-3


class WrongWeights(ValueError):
    """Weights that are not what they claim to be."""


def check_forward(
    network: Network,
    params: Mapping[str, Any],
    preprocessing: Preprocessing,
    expected: list[float],
    origin: str | os.PathLike[str],
) -> None:
    """Raises WrongWeights unless a forward pass on the fixed image gives `expected`.

    `origin` is the file or folder that the message names.
    """
    values = forward_values(network, params, preprocessing)
    if len(expected) != len(values):
        raise WrongWeights(f"{origin}: the forward check has {len(expected)} values")
    error = np.max(np.abs(np.subtract(values, expected))) / np.max(np.abs(expected))
    if not error <= _TOLERANCE:
        raise WrongWeights(
            f"{origin}: weights and preprocessing do not belong together: the forward "
            f"check is off by {error:.2g} of its scale, at most {_TOLERANCE:g} is "
            "accepted"
        )


def forward_values(
    network: Network, params: Mapping[str, Any], preprocessing: Preprocessing
) -> list[float]:
    """Eight fixed projections of the deepest code that `params` reach.

    The image is smooth, and different in each channel, so that swapped channels or
    another mean show in every value.
    """
    reached = []
    for layer in network.layers:
        if layers.has_parameters(layer) and layer.name not in params:
            break
        reached.append(layer)
    image = _image(network.input_size)
    mean = np.asarray(preprocessing.mean, np.float32)
    std = np.asarray(preprocessing.std, np.float32)
    x = (255 * image - mean) / std
    # Matrix units that round to bfloat16 or tf32 would need a looser tolerance.
    with jax.default_matmul_precision("highest"):
        run = jax.jit(functools.partial(modules.forward, tuple(reached)))
        code = np.asarray(run(params, jnp.asarray(x)), np.float64).ravel()
    angles = np.arange(code.size) * np.arange(1, 9)[:, None] * 0.7
    return (np.cos(angles) @ code / np.sqrt(code.size)).tolist()


def _image(size: int) -> np.ndarray:
    y, x = np.mgrid[:size, :size] / size
    waves = [3 * x + y, x - 5 * y, 4 * x * y]
    image = np.stack([0.5 + 0.5 * np.sin(2 * np.pi * wave) for wave in waves], axis=-1)
    return image.astype(np.float32)
