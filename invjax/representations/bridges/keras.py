"""Models of Keras 3, on its JAX backend, as representations."""

import contextlib
import inspect
from collections.abc import Iterator, Mapping, Sequence
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


def from_keras(
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
    """Cuts a Keras model at a layer.

    The code is the layer's own output without its batch axis, with training=False. The
    model is not changed, and later changes of it do not change the representation. See
    `from_torch` for the rest.

    Args:
      model: a built keras.Model of any kind: functional, sequential or a subclass.
      image_shape: (height, width, channels) of the images.
      layer: name of a layer, "block/conv" for one inside another; None for the model.
      mean, std: as in `from_torch`.
      layout: order of axes in which the model takes its image, one of NCHW, NHWC, CHW
        and HWC.
      output: position or name of the code where the layer returns several arrays.
      arguments: other arguments of the model's call, by name.
      name: name of the network in records; None for the model's own name.

    Raises:
      ImportError: Keras is not installed.
      ValueError: Keras has another backend; the model is no keras.Model, is not built,
        has no such layer or cannot take the image; the layer's output is no array of
        floating-point numbers; mean, std, layout or image_shape is not what is
        accepted.
    """
    bridged.require("keras", extra="keras", caller="from_keras")
    preprocessing = Preprocessing.of(image_shape, mean=mean, std=std, layout=layout)
    network = _network(model, arguments, name, caller="from_keras")
    return watched.bridge(network, layer, preprocessing, output=output)


def keras_layers(
    model: Any,
    *,
    image_shape: Sequence[int] = (224, 224, 3),
    layout: str = "NHWC",
    arguments: Mapping[str, Any] | None = None,
) -> list[LayerInfo]:
    """Lists the layers at which `from_keras` can cut a model, in the order of calls.

    Args:
      model, image_shape, layout, arguments: as in `from_keras`.

    Raises:
      ImportError: Keras is not installed.
      ValueError: Keras has another backend; the model is no keras.Model, is not built
        or cannot take the image.
    """
    bridged.require("keras", extra="keras", caller="keras_layers")
    preprocessing = Preprocessing.of(image_shape, mean=None, std=None, layout=layout)
    network = _network(model, arguments, None, caller="keras_layers")
    return watched.layers(network, preprocessing)


def _network(
    model: Any, arguments: Mapping[str, Any] | None, name: str | None, *, caller: str
) -> Network:
    import keras

    if keras.config.backend() != "jax":
        raise bridged.Refused(
            f"{caller}: Keras runs on its backend {keras.config.backend()!r}; it is "
            "accepted with the environment variable KERAS_BACKEND=jax, which is to be "
            "set before keras is imported"
        )
    if not isinstance(model, keras.Model):
        raise bridged.Refused(
            f"{caller} takes a keras.Model, not a {type(model).__name__}"
        )
    if not model.built:
        raise bridged.Refused(
            f"{caller}: {model.name} is not built; call it once on an image"
        )
    groups = (model.trainable_variables, model.non_trainable_variables)
    # Numbered, since names may occur twice.
    names = [
        [f"{kind}{number}/{variable.path}" for number, variable in enumerate(group)]
        for kind, group in zip(("", "fixed"), groups, strict=True)
    ]
    weights = {
        key: variable.value
        for keys, group in zip(names, groups, strict=True)
        for key, variable in zip(keys, group, strict=True)
    }
    paths = {id(part): path for path, part in _parts(model)}
    keywords = dict(arguments or {})
    # Layers in a model whose call has no such argument are in evaluation mode anyway.
    if "training" in inspect.signature(model.call).parameters:
        keywords["training"] = False

    def run(given: dict[str, Any], x: Array, watch: Watch) -> Any:
        with _watched(keras.layers.Layer, paths, watch):
            found, _ = model.stateless_call(
                [given[key] for key in names[0]],
                [given[key] for key in names[1]],
                x,
                **keywords,
            )
        return watch("", type(model).__name__, found)

    return Network(
        run,
        weights,
        name or model.name,
        framework="Keras",
        lister="invjax.keras_layers(model)",
    )


def _parts(layer: Any) -> Iterator[tuple[str, Any]]:
    """(path, layer) of all layers inside a layer."""
    for part in layer._flatten_layers(include_self=False, recursive=False):
        yield part.name, part
        for path, inner in _parts(part):
            yield f"{part.name}/{path}", inner


@contextlib.contextmanager
def _watched(kind: Any, paths: Mapping[int, str], watch: Watch) -> Iterator[None]:
    """A context in which the calls of layers are watched."""
    original = kind.__call__

    def call(self: Any, *args: Any, **keywords: Any) -> Any:
        found = original(self, *args, **keywords)
        path = paths.get(id(self))
        return found if path is None else watch(path, type(self).__name__, found)

    kind.__call__ = call
    try:
        yield
    finally:
        kind.__call__ = original
