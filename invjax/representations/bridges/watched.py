"""What bridges to libraries of JAX share: a network that tells its layers' outputs.

Such a network is JAX already. Its layers are watched while it is traced: each output is
handed to a function, which tags it where the network is to be cut.
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from invjax.representations.bridges import bridged, program
from invjax.representations.bridges.bridged import (
    BridgedRepresentation,
    LayerInfo,
    Preprocessing,
)
from invjax.representations.bridges.program import Program

Watch = Callable[[str, str, Any], Any]
"""(name of a layer, its class, its output) -> the output, or one in place of it."""


class Network(NamedTuple):
    """A network of a library of JAX.

    Attributes:
      run: (weights by name, image in the network's layout, watch) -> its output. It
        calls watch with the output of every layer.
      weights: arrays by name.
      name: name of the network.
      framework: name of the library.
      lister: the call that lists its layers, for messages.
    """

    run: Callable[[dict[str, Any], Array, Watch], Any]
    weights: Mapping[str, Any]
    name: str
    framework: str
    lister: str


def layers(network: Network, preprocessing: Preprocessing) -> list[LayerInfo]:
    """Lists the layers of a network that are called for an image, in that order.

    Args:
      network: the network.
      preprocessing: image_shape and layout are used.

    Raises:
      ValueError: the network cannot take the image.
    """
    found: dict[str, LayerInfo] = {}

    def watch(name: str, kind: str, output: Any) -> Any:
        try:
            code = bridged.chosen(output, None, layer=name, kind=Array)
            shape = tuple(preprocessing.unbatched(code).shape)
        except ValueError:
            shape = None
        if name:
            found.pop(name, None)
            found[name] = LayerInfo(name, kind, shape)
        return output

    _trace(network, preprocessing, watch, "")
    return list(found.values())


def bridge(
    network: Network,
    layer: str | None,
    preprocessing: Preprocessing,
    *,
    output: int | str | None,
) -> BridgedRepresentation:
    """Cuts a network at a layer.

    Args:
      network: the network.
      layer: name of the layer; None for what the network returns.
      preprocessing: what is done to an image before.
      output: position or name of the code where the layer returns several arrays.

    Raises:
      ValueError: there is no such layer, its output is no array, or the network cannot
        take the image.
    """
    seen: dict[str, None] = {}

    def watch(name: str, kind: str, given: Any) -> Any:
        del kind
        if name:
            seen[name] = None
        if name != (layer or ""):
            return given
        code = bridged.chosen(given, output, layer=name or "output", kind=Array)
        tagged = program.tagged(code, name)
        return jax.tree.map(lambda x: tagged if x is code else x, given)

    traced = _trace(network, preprocessing, watch, layer or "")
    if layer is not None and layer not in seen:
        bridged.check_layer(layer, seen, network=network.name, lister=network.lister)
    if traced is None:
        raise bridged.Refused(
            f"{network.name} calls {layer!r} inside a loop (scan) or a function with a "
            "derivative of its own, where it cannot be cut; the layer around that is "
            "accepted"
        )
    return bridged.build(
        traced,
        lambda name: network.weights[name],
        functools.partial(_reference, traced.program),
        preprocessing,
        name=f"{network.name}/{layer or 'output'}",
        framework=network.framework,
    )


def named(tree: Any) -> tuple[dict[str, Any], Any]:
    """Arrays of a pytree by their paths, and its structure.

    Args:
      tree: the pytree.

    Examples:
      >>> named({"conv": {"bias": np.zeros(2)}})[0].keys()
      dict_keys(['conv.bias'])
    """
    found, structure = jax.tree_util.tree_flatten_with_path(tree)
    weights = {
        jax.tree_util.keystr(path, simple=True, separator=".").removesuffix(
            ".value"
        ): leaf
        for path, leaf in found
    }
    assert len(weights) == len(found)
    return weights, structure


def _trace(
    network: Network, preprocessing: Preprocessing, watch: Watch, layer: str
) -> program.Traced | None:
    try:
        return _traced(network, preprocessing, watch, layer)
    except bridged.Refused:
        raise
    except Exception as error:
        raise bridged.not_computed(
            network.name,
            preprocessing,
            error,
            computes=lambda other: _computes(network, other),
        ) from error


def _traced(
    network: Network, preprocessing: Preprocessing, watch: Watch, layer: str
) -> program.Traced | None:
    shapes = {
        name: jax.ShapeDtypeStruct(np.shape(array), array.dtype)
        for name, array in network.weights.items()
    }

    def function(weights: dict[str, Any], x: Array) -> Any:
        network.run(weights, preprocessing.arranged(x), watch)
        return jnp.zeros(())

    return program.trace(
        function,
        shapes,
        preprocessing.image_shape,
        layer=layer,
        has_batch=preprocessing.has_batch,
    )


def _computes(network: Network, preprocessing: Preprocessing) -> bool:
    try:
        _traced(network, preprocessing, lambda _, __, output: output, "")
    except Exception:
        return False
    return True


def _reference(
    equations: Program, weights: dict[str, Array], x: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Code and gradient by the library's own operations; see `bridged.Reference`."""
    along = bridged.direction(equations.code_shape)
    return jax.device_get(_stock(equations, weights, x, along))


@functools.partial(jax.jit, static_argnums=0)
def _stock(
    equations: Program, weights: dict[str, Array], x: ArrayLike, along: ArrayLike
) -> tuple[Array, Array]:
    code, pull = jax.vjp(
        lambda x: program.evaluate(equations, weights, x, None, stock=True), x
    )
    return code.astype(jnp.float32), pull(jnp.asarray(along, code.dtype))[0]
