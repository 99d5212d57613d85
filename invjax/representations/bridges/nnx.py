"""Modules of Flax NNX as representations."""

from collections.abc import Mapping, Sequence
from typing import Any

from flax import nnx
from jax import Array

from invjax.representations.bridges import bridged, watched
from invjax.representations.bridges.bridged import (
    BridgedRepresentation,
    Colour,
    LayerInfo,
    Preprocessing,
)
from invjax.representations.bridges.watched import Network, Watch


def from_nnx(
    model: Any,
    *,
    image_shape: Sequence[int],
    layer: str | None = None,
    mean: Colour = None,
    std: Colour = None,
    layout: str = "NHWC",
    output: int | str | None = None,
    arguments: Mapping[str, Any] | None = None,
    name: str | None = None,
) -> BridgedRepresentation:
    """Cuts a Flax NNX model at a layer.

    The code is the layer's own output without its batch axis, in evaluation mode,
    whatever mode the model is in. The model is not changed, and later changes of it do
    not change the representation. See `from_torch` for the rest.

    Args:
      model: an nnx.Module.
      image_shape: (height, width, channels) of the images.
      layer: path of a module inside it, such as "blocks.0.conv"; None for the model.
      mean, std: as in `from_torch`.
      layout: order of axes in which the model takes its image, one of NCHW, NHWC, CHW
        and HWC.
      output: position or name of the code where the layer returns several arrays.
      arguments: other arguments of the model's call, by name.
      name: name of the network in records; None for the name of the model's class.

    Raises:
      ValueError: the model is no nnx.Module, has no such layer or cannot take the
        image; the layer's output is no array of floating-point numbers; mean, std,
        layout or image_shape is not what is accepted.

    Examples:
      >>> model = nnx.Conv(3, 4, (3, 3), strides=2, rngs=nnx.Rngs(0))
      >>> phi = from_nnx(model, image_shape=(8, 8, 3))
      >>> phi.geometry.shape, phi.geometry.stride
      ((4, 4, 4), 2)
    """
    preprocessing = Preprocessing.of(image_shape, mean=mean, std=std, layout=layout)
    network = _network(model, arguments, name, caller="from_nnx")
    return watched.bridge(network, layer, preprocessing, output=output)


def nnx_layers(
    model: Any,
    *,
    image_shape: Sequence[int] = (224, 224, 3),
    layout: str = "NHWC",
    arguments: Mapping[str, Any] | None = None,
) -> list[LayerInfo]:
    """Lists the layers at which `from_nnx` can cut a model, in the order of calls.

    Args:
      model, image_shape, layout, arguments: as in `from_nnx`.

    Raises:
      ValueError: the model is no nnx.Module or cannot take the image.

    Examples:
      >>> model = nnx.Sequential(nnx.Linear(3, 4, rngs=nnx.Rngs(0)), nnx.relu)
      >>> nnx_layers(model, image_shape=(8, 8, 3))
      [LayerInfo(name='layers.0', kind='Linear', shape=(8, 8, 4))]
    """
    preprocessing = Preprocessing.of(image_shape, mean=None, std=None, layout=layout)
    network = _network(model, arguments, None, caller="nnx_layers")
    return watched.layers(network, preprocessing)


def _network(
    model: Any, arguments: Mapping[str, Any] | None, name: str | None, *, caller: str
) -> Network:
    if not isinstance(model, nnx.Module):
        raise bridged.Refused(
            f"{caller} takes an nnx.Module, not a {type(model).__name__}"
        )
    graph, state = nnx.split(model)
    weights, structure = watched.named(state)
    keywords = dict(arguments or {})

    def run(given: dict[str, Any], x: Array, watch: Watch) -> Any:
        leaves = [given[key] for key in weights]
        copied = nnx.merge(graph, structure.unflatten(leaves))
        copied.eval()
        for path, part in [*nnx.iter_modules(copied)]:
            _watch(part, ".".join(map(str, path)), watch)
        return copied(x, **keywords)

    return Network(
        run,
        weights,
        name or type(model).__name__,
        framework="Flax",
        lister="invjax.nnx_layers(model)",
    )


def _watch(part: Any, name: str, watch: Watch) -> None:
    """Gives a module a class of its own, whose calls are watched."""
    kind: Any = type(part)

    def call(self: Any, *args: Any, **keywords: Any) -> Any:
        return watch(name, kind.__name__, kind.__call__(self, *args, **keywords))

    if callable(part):
        watching = type(kind)(kind.__name__, (kind,), {"__call__": call})
        object.__setattr__(part, "__class__", watching)
