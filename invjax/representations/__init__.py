"""Representations by name: pure functions of one image.

`hog`, `dsift` and the networks are modules of their own; here is the registry that
binaries and `invjax.representation` use.
"""

import os
from typing import NamedTuple

from jax.typing import DTypeLike

from invjax.networks import NETWORKS, layers
from invjax.networks.weights import pretrained
from invjax.representations import cnn
from invjax.representations.paper import SHALLOW
from invjax.types import Representation


class RepresentationInfo(NamedTuple):
    """A row of `list_representations`; lengths in pixels of the image.

    Attributes:
      name: as `representation` takes it.
      code_shape: at the network's input size; of shallow ones at 224 px.
      receptive_field: side of the square that one unit sees.
      stride: between neighbouring units.
      available: whether its weights are at hand.
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
    """A representation by name, such as "alexnet/relu3" or "hogb".

    Args:
      name: one of `list_representations`.
      weights_dir: folder of converted weights; by default INVJAX_WEIGHTS, else
        weights/ of the checkout, else the user's cache folder.
      compute_dtype: float32 or bfloat16, of a network's arithmetic.

    Raises:
      ValueError: there is none of that name.
      LookupError: its weights are nowhere; the message says which file and command.
    """
    if name in SHALLOW:
        return SHALLOW[name]
    network, _, layer = name.partition("/")
    if network not in NETWORKS:
        raise ValueError(
            f"unknown representation {name!r}; known are {', '.join(SHALLOW)}, and "
            f"NETWORK/LAYER with NETWORK one of {', '.join(sorted(NETWORKS))}"
        )
    return cnn.load(
        NETWORKS[network], layer, weights_dir=weights_dir, compute_dtype=compute_dtype
    )


def list_representations(
    *, weights_dir: str | os.PathLike[str] | None = None
) -> list[RepresentationInfo]:
    """Every representation there is, layer by layer."""
    rows = [
        RepresentationInfo(*phi.geometry, available=True) for phi in SHALLOW.values()
    ]
    for network in NETWORKS.values():
        at_hand = pretrained.available(network, weights_dir=weights_dir)
        for row in layers.geometry(network.layers, network.image_shape):
            rows.append(
                RepresentationInfo(
                    f"{network.name}/{row.name}",
                    row.shape,
                    row.receptive_field,
                    row.stride,
                    row.name in at_hand,
                )
            )
    return rows
