"""Modules of Equinox as representations."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from jax import Array

from invjax.representations.bridges import bridged, watched
from invjax.representations.bridges.bridged import (
    BridgedRepresentation,
    Colour,
    LayerInfo,
    Preprocessing,
)
from invjax.representations.bridges.watched import Network, Watch


def from_equinox(
    model: Any,
    *,
    image_shape: Sequence[int],
    state: Any = None,
    layer: str | None = None,
    mean: Colour = None,
    std: Colour = None,
    layout: str = "CHW",
    output: int | str | None = None,
    arguments: Mapping[str, Any] | None = None,
    name: str | None = None,
) -> BridgedRepresentation:
    """Cuts an Equinox model at a layer.

    The code is the layer's own output, in evaluation mode, whatever mode the model is
    in. The model is not changed. See `from_torch` for the rest.

    Args:
      model: an equinox.Module that can be called.
      image_shape: (height, width, channels) of the images.
      state: the equinox.nn.State of a model that is called with one; None for others.
      layer: path of a module inside it, such as "blocks.0.conv"; None for the model.
      mean, std: as in `from_torch`.
      layout: order of axes in which the model takes its image, one of NCHW, NHWC, CHW
        and HWC.
      output: position or name of the code where the layer returns several arrays; a
        layer with a state returns (array, state).
      arguments: other arguments of the model's call, by name.
      name: name of the network in records; None for the name of the model's class.

    Raises:
      ImportError: Equinox is not installed.
      ValueError: the model is no equinox.Module, has no such layer or cannot take the
        image; the layer's output is no array of floating-point numbers; mean, std,
        layout or image_shape is not what is accepted.
    """
    bridged.require("equinox", extra="equinox", caller="from_equinox")
    preprocessing = Preprocessing.of(image_shape, mean=mean, std=std, layout=layout)
    network = _network(model, state, arguments, name, caller="from_equinox")
    return watched.bridge(network, layer, preprocessing, output=output)


def equinox_layers(
    model: Any,
    *,
    state: Any = None,
    image_shape: Sequence[int] = (224, 224, 3),
    layout: str = "CHW",
    arguments: Mapping[str, Any] | None = None,
) -> list[LayerInfo]:
    """Lists the layers at which `from_equinox` can cut a model, in the order of calls.

    Args:
      model, state, image_shape, layout, arguments: as in `from_equinox`.

    Raises:
      ImportError: Equinox is not installed.
      ValueError: the model is no equinox.Module or cannot take the image.
    """
    bridged.require("equinox", extra="equinox", caller="equinox_layers")
    preprocessing = Preprocessing.of(image_shape, mean=None, std=None, layout=layout)
    network = _network(model, state, arguments, None, caller="equinox_layers")
    return watched.layers(network, preprocessing)


def _network(
    model: Any,
    state: Any,
    arguments: Mapping[str, Any] | None,
    name: str | None,
    *,
    caller: str,
) -> Network:
    import equinox

    if not isinstance(model, equinox.Module):
        raise bridged.Refused(
            f"{caller} takes an equinox.Module, not a {type(model).__name__}"
        )
    evaluated = equinox.nn.inference_mode(model)
    arrays, static = equinox.partition((evaluated, state), equinox.is_array)
    weights, structure = watched.named(arrays)
    keywords = dict(arguments or {})

    def run(given: dict[str, Any], x: Array, watch: Watch) -> Any:
        leaves = [given[key] for key in weights]
        copied, own_state = equinox.combine(structure.unflatten(leaves), static)
        copied = _watched(copied, "", watch)
        return (
            copied(x, **keywords) if state is None else copied(x, own_state, **keywords)
        )

    return Network(
        run,
        weights,
        name or type(model).__name__,
        framework="Equinox",
        lister="invjax.equinox_layers(model)",
    )


def _watched(part: Any, path: str, watch: Watch) -> Any:
    """A copy of a module whose calls, and those of the modules in it, are watched."""
    import equinox

    if isinstance(part, list | tuple) and not hasattr(part, "_fields"):
        return type(part)(
            _watched(x, _join(path, n), watch) for n, x in enumerate(part)
        )
    if isinstance(part, dict):
        return {key: _watched(x, _join(path, key), watch) for key, x in part.items()}
    if not isinstance(part, equinox.Module) or not dataclasses.is_dataclass(part):
        return part
    kind: Any = type(part)

    def call(self: Any, *args: Any, **keywords: Any) -> Any:
        return watch(path, kind.__name__, kind.__call__(self, *args, **keywords))

    watching: Any = kind
    if callable(part):
        body = {"__call__": call, "__module__": kind.__module__}
        watching = type(kind)(kind.__name__, (kind,), body)
    copied = object.__new__(watching)
    for key, value in vars(part).items():
        object.__setattr__(copied, key, _watched(value, _join(path, key), watch))
    return copied


def _join(path: str, key: Any) -> str:
    return f"{path}.{key}" if path else str(key)
