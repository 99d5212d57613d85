"""Any network, or function, by the bridge of its framework."""

import sys
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from flax import linen, nnx

from invjax.representations.bridges import bridged
from invjax.representations.bridges.bridged import (
    BridgedRepresentation,
    Colour,
    LayerInfo,
)
from invjax.representations.bridges.equinox import equinox_layers, from_equinox
from invjax.representations.bridges.functions import from_function
from invjax.representations.bridges.keras import from_keras, keras_layers
from invjax.representations.bridges.linen import from_linen, linen_layers
from invjax.representations.bridges.nnx import from_nnx, nnx_layers
from invjax.representations.bridges.torch import from_torch, torch_layers

ACCEPTED = (
    "a PyTorch, NNX, Equinox or Keras model, (Linen module, variables), (Equinox "
    "model, state), or a function image -> code"
)
"""What `bridge` takes."""


class _Kind(NamedTuple):
    """How a framework's networks are known and bridged.

    Attributes:
      package: the package that has to be imported before there can be one.
      base: name of the class of networks, inside the package.
      bridge: `from_torch` or its like.
      layers: `torch_layers` or its like.
      beside: name of the argument that may come beside the network, in a pair.
    """

    package: str
    base: str
    bridge: Callable[..., BridgedRepresentation]
    layers: Callable[..., list[LayerInfo]]
    beside: str | None = None

    def has(self, network: Any) -> bool:
        """Whether a network is one of this framework."""
        found: Any = sys.modules.get(self.package)
        for part in self.base.split("."):
            found = getattr(found, part, None)
        return found is not None and isinstance(network, found)


_KINDS = (
    _Kind("torch", "nn.Module", from_torch, torch_layers),
    _Kind("keras", "Model", from_keras, keras_layers),
    _Kind(linen.__name__, "Module", from_linen, linen_layers, "variables"),
    _Kind(nnx.__name__, "Module", from_nnx, nnx_layers),
    _Kind("equinox", "Module", from_equinox, equinox_layers, "state"),
)


def is_network(network: Any) -> bool:
    """Whether something is a network of a framework that has a bridge.

    Args:
      network: anything, such as (Linen module, variables).

    Examples:
      >>> is_network(nnx.Linear(2, 3, rngs=nnx.Rngs(0))), is_network(abs)
      (True, False)
    """
    return _find(network) is not None


def bridge(
    network: Any,
    *,
    image_shape: Sequence[int],
    layer: str | None = None,
    mean: Colour = None,
    std: Colour = None,
    layout: str | None = None,
    name: str | None = None,
) -> BridgedRepresentation:
    """Cuts a network at a layer, by the bridge of its framework.

    Args:
      network: what `ACCEPTED` says.
      image_shape, layer, mean, std, name: as in `from_torch`.
      layout: as there; None for what is usual in the framework.

    Raises:
      ImportError: the bridge needs a package that is not installed.
      ValueError, TypeError: the network is none of these, or what the bridge raises.

    Examples:
      >>> model = nnx.Conv(3, 4, (3, 3), strides=2, rngs=nnx.Rngs(0))
      >>> bridge(model, image_shape=(8, 8, 3), name="mine").name
      'mine/output'
    """
    options: dict[str, Any] = {"image_shape": image_shape, "mean": mean, "std": std}
    options["name"] = name
    if (found := _find(network)) is not None:
        kind, model, beside = found
        options |= beside if layout is None else {"layout": layout} | beside
        return kind.bridge(model, layer=layer, **options)
    _refuse_others(network)
    if layer is not None:
        raise bridged.Refused(f"{name} is a function, which has no layer {layer!r}")
    if layout not in (None, "HWC"):
        raise bridged.Refused(f"{name} is a function, which is given HWC, not {layout}")
    return from_function(network, **options)


def list_layers(
    network: Any, *, image_shape: Sequence[int], layout: str | None = None
) -> list[LayerInfo]:
    """Lists the layers of a network in the order of calls; a function has none.

    Args:
      network: what `ACCEPTED` says.
      image_shape, layout: as in `bridge`.

    Raises: as `bridge`.
    """
    if (found := _find(network)) is None:
        _refuse_others(network)
        return []
    kind, model, beside = found
    options = {} if layout is None else {"layout": layout}
    return kind.layers(model, image_shape=image_shape, **beside, **options)


def _find(network: Any) -> tuple[_Kind, Any, dict[str, Any]] | None:
    """The framework of a network, the network alone, and what came beside it."""
    is_pair = isinstance(network, tuple) and len(network) == 2
    model, beside = network if is_pair else (network, None)
    for kind in _KINDS:
        if kind.has(model) and not (is_pair and kind.beside is None):
            return kind, model, {str(kind.beside): beside} if is_pair else {}
    return None


def _refuse_others(network: Any) -> None:
    if not callable(network):
        raise bridged.Refused(
            f"{type(network).__name__} is no network; {ACCEPTED} is accepted"
        )
