"""Functions of one image, whose equations are fixed as those of networks are."""

from collections.abc import Sequence
from typing import Any

from jax import Array

from invjax.callables import TracedCallable, refuse_impure
from invjax.representations.bridges import watched
from invjax.representations.bridges.bridged import (
    BridgedRepresentation,
    Colour,
    Preprocessing,
)
from invjax.representations.bridges.watched import Network, Watch


def from_function(
    function: Any,
    *,
    image_shape: Sequence[int],
    mean: Colour = None,
    std: Colour = None,
    name: str | None = None,
) -> BridgedRepresentation:
    """Makes a representation with a name of a pure function of one image.

    `invjax.invert` takes the function itself. This also finds receptive field and
    stride, by which presets go, and a digest of the arrays that it depends on, those
    that it has inside of it as well; ReLUs and max-pools get relaxed derivatives.

    Args:
      function: image [h, w, c] -> code, one array.
      image_shape: (height, width, channels) of the images.
      mean, std: as in `from_torch`; the function is given (image - mean) / std.
      name: name of the function in records; None for its own.

    Raises:
      ValueError: the function is not pure, or its code is no array of floating-point
        numbers; mean, std or image_shape is not what is accepted.
      TypeError: it cannot be called or traced, or has a part that is neither an array
        nor hashable.

    Examples:
      >>> phi = from_function(lambda image: image[::2, ::2], image_shape=(8, 8, 3))
      >>> phi.geometry.shape, phi.geometry.stride
      ((4, 4, 3), 2)
    """
    preprocessing = Preprocessing.of(image_shape, mean=mean, std=std, layout="HWC")
    traced = TracedCallable.of(function)
    arrays, structure = traced.tree_flatten()
    weights = {f"leaf/{number}": array for number, array in enumerate(arrays)}
    refuse_impure(function, preprocessing.image_shape)

    def run(given: dict[str, Any], x: Array, watch: Watch) -> Any:
        leaves = [given[key] for key in weights]
        code = TracedCallable.tree_unflatten(structure, leaves)(x)
        return watch("", type(function).__name__, code)

    own = getattr(function, "__name__", type(function).__name__)
    network = Network(run, weights, name or own, framework="JAX", lister="nothing")
    return watched.bridge(network, None, preprocessing, output=None)
