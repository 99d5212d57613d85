"""Modules of Flax Linen as representations."""

from collections.abc import Mapping, Sequence
from typing import Any

from flax import linen
from flax.errors import InvalidRngError, ModifyScopeVariableError
from jax import Array

from invjax.representations.bridges import bridged, watched
from invjax.representations.bridges.bridged import (
    BridgedRepresentation,
    Colour,
    LayerInfo,
    Preprocessing,
)
from invjax.representations.bridges.watched import Network, Watch


def from_linen(
    module: Any,
    *,
    image_shape: Sequence[int],
    variables: Any = None,
    layer: str | None = None,
    mean: Colour = None,
    std: Colour = None,
    layout: str = "NHWC",
    output: int | str | None = None,
    arguments: Mapping[str, Any] | None = None,
    name: str | None = None,
) -> BridgedRepresentation:
    """Cuts a Flax Linen module at a layer.

    The code is the layer's own output without its batch axis. A Linen module is in
    training mode where it is called so: modules that have an argument for it are given
    it by `arguments`, as {"train": False}. See `from_torch` for the rest.

    Args:
      module: a linen.Module.
      image_shape: (height, width, channels) of the images.
      variables: what `module.init` returned, or what was trained; None for a module
        that is bound to its variables.
      layer: path of a module inside it, such as "Block_0.Conv_1"; None for the module.
      mean, std: as in `from_torch`.
      layout: order of axes in which the module takes its image, one of NCHW, NHWC, CHW
        and HWC.
      output: position or name of the code where the layer returns several arrays.
      arguments: other arguments of the module's call, by name.
      name: name of the network in records; None for the name of the module's class.

    Raises:
      ValueError: the module is no linen.Module or has no variables, has no such layer
        or cannot take the image; the layer's output is no array of floating-point
        numbers; mean, std, layout or image_shape is not what is accepted.

    Examples:
      >>> import jax
      >>> module = linen.Sequential([linen.Conv(4, (3, 3), strides=2), linen.relu])
      >>> variables = module.init(jax.random.key(0), jax.numpy.ones((1, 8, 8, 3)))
      >>> phi = from_linen(module, variables=variables, image_shape=(8, 8, 3))
      >>> phi.geometry.shape
      (4, 4, 4)
    """
    preprocessing = Preprocessing.of(image_shape, mean=mean, std=std, layout=layout)
    network = _network(module, variables, arguments, name, caller="from_linen")
    return watched.bridge(network, layer, preprocessing, output=output)


def linen_layers(
    module: Any,
    *,
    variables: Any = None,
    image_shape: Sequence[int] = (224, 224, 3),
    layout: str = "NHWC",
    arguments: Mapping[str, Any] | None = None,
) -> list[LayerInfo]:
    """Lists the layers at which `from_linen` can cut a module, in the order of calls.

    Args:
      module, variables, image_shape, layout, arguments: as in `from_linen`.

    Raises:
      ValueError: the module is no linen.Module, has no variables or cannot take the
        image.
    """
    preprocessing = Preprocessing.of(image_shape, mean=None, std=None, layout=layout)
    network = _network(module, variables, arguments, None, caller="linen_layers")
    return watched.layers(network, preprocessing)


def _network(
    module: Any,
    variables: Any,
    arguments: Mapping[str, Any] | None,
    name: str | None,
    *,
    caller: str,
) -> Network:
    if not isinstance(module, linen.Module):
        raise bridged.Refused(
            f"{caller} takes a linen.Module, not a {type(module).__name__}"
        )
    if variables is None:
        if module.scope is None:
            raise bridged.Refused(
                f"{caller} takes variables=..., too: what module.init returned, or "
                "what was trained"
            )
        module, variables = module.unbind()
    weights, structure = watched.named(variables)
    keywords = dict(arguments or {})

    def run(given: dict[str, Any], x: Array, watch: Watch) -> Any:
        def intercept(call: Any, args: Any, options: Any, context: Any) -> Any:
            found = call(*args, **options)
            if context.method_name != "__call__":
                return found
            path = ".".join(context.module.path)
            return watch(path, type(context.module).__name__, found)

        copied = structure.unflatten([given[key] for key in weights])
        try:
            with linen.intercept_methods(intercept):
                return module.apply(copied, x, **keywords)
        except (ModifyScopeVariableError, InvalidRngError) as error:
            raise bridged.Refused(
                f"{type(module).__name__} is called in training mode "
                f"({bridged.first_line(error)}); a module whose call has an argument "
                "for it takes arguments={'train': False}, or as the argument is called"
            ) from error

    return Network(
        run,
        weights,
        name or type(module).__name__,
        framework="Flax",
        lister="invjax.linen_layers(module, variables=variables)",
    )
