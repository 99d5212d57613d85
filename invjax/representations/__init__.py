"""Representations by name: pure functions of one image.

This package's namespace holds the registry behind `invjax.representation` and the
binaries. VLFeat's HOG and dense SIFT are the modules `hog` and `dsift`, the paper's own
versions of them `paper`, and layers of networks `cnn`.
"""

import os
from typing import NamedTuple

from jax.typing import DTypeLike

from invjax import spelling
from invjax.networks import NETWORKS, layers
from invjax.networks.weights import pretrained
from invjax.representations import cnn, joint
from invjax.representations.bridges.bridged import BridgedRepresentation
from invjax.representations.cnn import CnnRepresentation
from invjax.representations.joint import JointRepresentation
from invjax.representations.paper import SHALLOW, Dsift, Hog
from invjax.types import (
    Representation,
    RepresentationLike,
)


class RepresentationInfo(NamedTuple):
    """One row of `list_representations`. Lengths are in pixels of the image.

    Attributes:
      name: name that `representation` accepts.
      code_shape: shape of the code at the network's input size; for shallow
        representations, at 224 x 224 px.
      receptive_field: side of the square of pixels on which one feature depends.
      stride: distance between the receptive fields of neighbouring features.
      available: whether the weights are installed or converted.
    """

    name: str
    code_shape: tuple[int, ...]
    receptive_field: int
    stride: int
    available: bool


def representation(
    name: str,
    *,
    weights_dir: str | os.PathLike[str] | None = None,
    compute_dtype: DTypeLike = "float32",
) -> Representation:
    """Returns a representation by name, such as "alexnet/relu3" or "hogb".

    Args:
      name: a name from `list_representations`, or several with + between them, such as
        "alexnet/relu1+alexnet/pool5": the code is then a dict of theirs by name.
      weights_dir: folder of converted weights; by default INVJAX_WEIGHTS, else
        weights/ of the checkout, else the user's cache folder.
      compute_dtype: float32 or bfloat16, the type in which a network computes. Codes
        are float32 either way.

    Raises:
      ValueError: the name is unknown.
      LookupError: the weights are not found; the message says which file is needed and
        which command fetches it.

    Examples:
      >>> import jax.numpy as jnp
      >>> representation("hogb")(jnp.zeros((64, 80, 1))).shape
      (8, 10, 27)
    """
    if joint.SEPARATOR in name:
        for part in name.split(joint.SEPARATOR):
            _check_name(part)
        return joint.load(
            name.split(joint.SEPARATOR),
            weights_dir=weights_dir,
            compute_dtype=compute_dtype,
        )
    _check_name(name)
    if name in SHALLOW:
        return SHALLOW[name]
    network, _, layer = name.partition("/")
    return cnn.load(
        NETWORKS[network], layer, weights_dir=weights_dir, compute_dtype=compute_dtype
    )


def _check_name(name: str) -> None:
    if name not in SHALLOW and name.partition("/")[0] not in NETWORKS:
        raise ValueError(
            f"unknown representation {name!r}; known are {', '.join(SHALLOW)}, and "
            f"NETWORK/LAYER with NETWORK one of {', '.join(sorted(NETWORKS))}"
            f"{spelling.hint(name, _names())}"
        )


def _names() -> list[str]:
    """Every name that `representation` accepts."""
    networks = NETWORKS.values()
    cuts = [f"{net.name}/{layer}" for net in networks for layer in net.layer_names]
    return [*SHALLOW, *cuts]


def as_representation(
    phi: RepresentationLike,
) -> RepresentationLike:
    """Returns the representation of that name; what is not a name is returned as it is.

    Args:
      phi: a pure function of one image, or a name that `representation` takes.

    Raises:
      ValueError, LookupError: as `representation`.

    Examples:
      >>> as_representation("hogb") is representation("hogb")
      True
    """
    return representation(phi) if isinstance(phi, str) else phi


def is_registered(phi: object) -> bool:
    """Whether a representation is one of invjax, which is known to be a pure function.

    So are bridged networks, whose equations were fixed when they were made.

    Examples:
      >>> is_registered(representation("hogb")), is_registered(abs)
      (True, False)
    """
    own = CnnRepresentation | Hog | Dsift | BridgedRepresentation | JointRepresentation
    return isinstance(phi, own)


def list_representations(
    *, weights_dir: str | os.PathLike[str] | None = None
) -> list[RepresentationInfo]:
    """Lists all representations: the shallow ones, then networks layer by layer.

    Args:
      weights_dir: as in `representation`.

    Examples:
      >>> [row.name for row in list_representations()[:4]]
      ['hog', 'hogb', 'dsift', 'dsift8']
    """
    rows = [
        RepresentationInfo(*phi.geometry, available=True) for phi in SHALLOW.values()
    ]
    for network in NETWORKS.values():
        available = pretrained.available(network, weights_dir=weights_dir)
        for row in layers.geometry(network.layers, network.image_shape):
            rows.append(
                RepresentationInfo(
                    f"{network.name}/{row.name}",
                    row.shape,
                    row.receptive_field,
                    row.stride,
                    row.name in available,
                )
            )
    return rows
