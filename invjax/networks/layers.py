"""Layer tables: a network is a tuple of frozen records, read from image to logits.

A table is all that is needed to build a network (`modules`), to convert its weights
(`conversion`) and to say what a layer sees (`geometry`). Shapes are of one image,
[h, w, c], or [n] after a dense layer; sizes and paddings are in pixels of the layer's
input.
"""

import dataclasses
import math
from typing import NamedTuple


@dataclasses.dataclass(frozen=True)
class Conv:
    """A convolution with bias; `padding` on all four sides."""

    name: str
    features: int
    kernel: int
    stride: int = 1
    padding: int = 0
    groups: int = 1


@dataclasses.dataclass(frozen=True)
class Relu:
    name: str


@dataclasses.dataclass(frozen=True)
class MaxPool:
    """A maximum over windows, padded with -inf."""

    name: str
    window: int
    stride: int
    padding: int = 0


@dataclasses.dataclass(frozen=True)
class Dense:
    """A fully connected layer; an [h, w, c] input is flattened in that order."""

    name: str
    features: int


Layer = Conv | Relu | MaxPool | Dense


@dataclasses.dataclass(frozen=True)
class Network:
    """A named layer table and the square input size it was trained at, in pixels."""

    name: str
    input_size: int
    layers: tuple[Layer, ...]

    @property
    def layer_names(self) -> tuple[str, ...]:
        return tuple(layer.name for layer in self.layers)

    def until(self, layer: str) -> tuple[Layer, ...]:
        """The table cut after `layer`: nothing above it is computed.

        Raises:
          ValueError: there is no such layer; the message lists those there are.
        """
        names = self.layer_names
        if layer not in names:
            raise ValueError(
                f"{self.name} has no layer {layer!r}; it has {', '.join(names)}"
            )
        return self.layers[: names.index(layer) + 1]


class Geometry(NamedTuple):
    """What one unit of a layer sees: all lengths in pixels of the image."""

    name: str
    shape: tuple[int, ...]
    receptive_field: int
    stride: int


def geometry(
    layers: tuple[Layer, ...], image_shape: tuple[int, ...]
) -> tuple[Geometry, ...]:
    """Shape, receptive field and cumulative stride of every layer of a table.

    Args:
      layers: the table.
      image_shape: (h, w, c) of the image.

    Returns:
      One `Geometry` per layer. A dense layer sees the whole of its input.

    Raises:
      ValueError: the image is too small for a layer.
    """
    rows = []
    shape, field, stride = tuple(image_shape), 1, 1
    for layer in layers:
        window, step = 1, 1
        match layer:
            case Conv(features=features, kernel=window, stride=step, padding=padding):
                sides = _slide(shape, window, step, padding, layer.name)
                shape = (*sides, features)
            case MaxPool(window=window, stride=step, padding=padding):
                shape = (*_slide(shape, window, step, padding, layer.name), shape[-1])
            case Dense(features=features):
                window = shape[0] if len(shape) == 3 else 1
                shape = (features,)
        field += (window - 1) * stride
        stride *= step
        rows.append(Geometry(layer.name, shape, field, stride))
    return tuple(rows)


def parameter_shapes(
    layers: tuple[Layer, ...], image_shape: tuple[int, ...]
) -> dict[str, tuple[int, ...]]:
    """Name -> shape of every parameter tensor of a table, as "conv1/kernel".

    Convolution kernels are [kernel, kernel, in / groups, out], dense ones [in, out].
    """
    shapes: dict[str, tuple[int, ...]] = {}
    shape = tuple(image_shape)
    for layer, row in zip(layers, geometry(layers, image_shape), strict=True):
        match layer:
            case Conv(kernel=size, groups=groups, features=features):
                kernel = (size, size, shape[-1] // groups, features)
                shapes[f"{layer.name}/kernel"] = kernel
                shapes[f"{layer.name}/bias"] = (features,)
            case Dense(features=features):
                shapes[f"{layer.name}/kernel"] = (math.prod(shape), features)
                shapes[f"{layer.name}/bias"] = (features,)
        shape = row.shape
    return shapes


def _slide(
    shape: tuple[int, ...], window: int, stride: int, padding: int, name: str
) -> tuple[int, ...]:
    """Output sides of a window that moves in whole strides (rounding down)."""
    sides = tuple((side + 2 * padding - window) // stride + 1 for side in shape[:-1])
    if min(sides) < 1:
        raise ValueError(f"layer {name} needs more than {shape[0]} x {shape[1]} inputs")
    return sides
