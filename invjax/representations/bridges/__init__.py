"""Networks of other frameworks as representations, cut at a layer by its name.

`from_torch`, `from_nnx`, `from_linen`, `from_equinox` and `from_keras` take a network
as people have it and return a `bridged.BridgedRepresentation`. There is one module for
each framework, which imports it when it is called, and `frameworks` chooses among them.
`program` holds what is computed, `probing` finds receptive fields, and `watched` is
what the libraries of JAX share.
"""

from invjax.representations.bridges.bridged import (
    BridgedRepresentation,
    LayerInfo,
    MissingFramework,
    Parity,
)
from invjax.representations.bridges.equinox import equinox_layers, from_equinox
from invjax.representations.bridges.frameworks import (
    ACCEPTED,
    bridge,
    is_network,
    list_layers,
)
from invjax.representations.bridges.functions import from_function
from invjax.representations.bridges.keras import from_keras, keras_layers
from invjax.representations.bridges.linen import from_linen, linen_layers
from invjax.representations.bridges.nnx import from_nnx, nnx_layers
from invjax.representations.bridges.torch import from_torch, torch_layers

__all__ = [
    "ACCEPTED",
    "BridgedRepresentation",
    "LayerInfo",
    "MissingFramework",
    "Parity",
    "bridge",
    "equinox_layers",
    "from_equinox",
    "from_function",
    "from_keras",
    "from_linen",
    "from_nnx",
    "from_torch",
    "is_network",
    "keras_layers",
    "list_layers",
    "linen_layers",
    "nnx_layers",
    "torch_layers",
]
