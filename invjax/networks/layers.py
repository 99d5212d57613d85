"""Layer tables: a network is a tuple of frozen records, read from image to logits.

A table is all that is needed to build a network (`modules`), to convert its weights
(`conversion`) and to say what a layer sees (`geometry`). Shapes are of one image,
[h, w, c], or [n] after a dense or pooled layer; sizes and paddings are in pixels of
the layer's input. Batch normalisation has no record: it is folded into the convolution
before it when weights are converted.
"""

import dataclasses
import math
from typing import NamedTuple, TypeAlias

Padding: TypeAlias = int | tuple[int, int]
"""Pixels on all four sides; or (top and left, bottom and right)."""


@dataclasses.dataclass(frozen=True)
class Conv:
    """A convolution (correlation) with bias, padded with zeros."""

    name: str
    features: int
    kernel: int
    stride: int = 1
    padding: Padding = 0
    groups: int = 1


@dataclasses.dataclass(frozen=True)
class DepthwiseConv:
    """A convolution of each channel on its own, with bias."""

    name: str
    kernel: int
    stride: int = 1
    padding: Padding = 0


@dataclasses.dataclass(frozen=True)
class Relu:
    """max(x, 0), and at most `ceiling` if there is one."""

    name: str
    ceiling: float | None = None


@dataclasses.dataclass(frozen=True)
class MaxPool:
    """A maximum over windows, padded with -inf."""

    name: str
    window: int
    stride: int
    padding: Padding = 0


@dataclasses.dataclass(frozen=True)
class GlobalAveragePool:
    """Mean over all places: [h, w, c] -> [c]."""

    name: str


@dataclasses.dataclass(frozen=True)
class LocalResponseNorm:
    """x / (kappa + alpha sum x^2)^beta, the sum over `size` neighbouring channels.

    MatConvNet's form. Caffe divides its alpha by the size; so does PyTorch.
    """

    name: str
    size: int
    kappa: float
    alpha: float
    beta: float


@dataclasses.dataclass(frozen=True)
class Dense:
    """A fully connected layer; an [h, w, c] input is flattened in that order."""

    name: str
    features: int


@dataclasses.dataclass(frozen=True)
class Block:
    """Layers under one name; only the last one's activation has that name."""

    name: str
    layers: tuple["Layer", ...]


@dataclasses.dataclass(frozen=True)
class Residual:
    """The sum of `layers` and `shortcut` (empty: the identity) of one input."""

    name: str
    layers: tuple["Layer", ...]
    shortcut: tuple["Layer", ...] = ()


Layer: TypeAlias = (
    Conv
    | DepthwiseConv
    | Relu
    | MaxPool
    | GlobalAveragePool
    | LocalResponseNorm
    | Dense
    | Block
    | Residual
)


@dataclasses.dataclass(frozen=True)
class Network:
    """A named layer table and the square input size it was trained at, in pixels."""

    name: str
    input_size: int
    layers: tuple[Layer, ...]

    @property
    def layer_names(self) -> tuple[str, ...]:
        return tuple(layer.name for layer in self.layers)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        return (self.input_size, self.input_size, 3)

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
      One `Geometry` per layer. A dense layer sees the whole of its input, a global
      average as well; a residual layer what its wider branch sees.

    Raises:
      ValueError: the image is too small for a layer.
    """
    rows = []
    row = Geometry("image", tuple(image_shape), 1, 1)
    for layer in layers:
        row = _through(layer, row)
        rows.append(row)
    return tuple(rows)


def parameter_shapes(
    layers: tuple[Layer, ...], image_shape: tuple[int, ...]
) -> dict[str, tuple[int, ...]]:
    """Name -> shape of every parameter tensor of a table.

    Names are "conv1/kernel", or "block3/expand/kernel" inside of blocks. Convolution
    kernels are [kernel, kernel, in / groups, out], depthwise ones
    [kernel, kernel, 1, channels], dense ones [in, out].
    """
    return {
        f"{name}/{leaf}": shape
        for name, layer, row in weighted(layers, image_shape)
        for leaf, shape in _leaves(layer, row.shape).items()
    }


def weighted(
    layers: tuple[Layer, ...], image_shape: tuple[int, ...]
) -> tuple[tuple[str, Conv | DepthwiseConv | Dense, Geometry], ...]:
    """(full name, record, geometry of its *input*) of all layers with parameters.

    In the order of the table, the layers of a block before its shortcut.
    """
    return tuple(_weighted(layers, Geometry("image", tuple(image_shape), 1, 1), ""))


def has_parameters(layer: Layer) -> bool:
    """Whether a layer, or one inside it, has weights."""
    match layer:
        case Conv() | DepthwiseConv() | Dense():
            return True
        case Block(layers=inner):
            return any(map(has_parameters, inner))
        case Residual(layers=inner, shortcut=shortcut):
            return any(map(has_parameters, inner + shortcut))
    return False


def sides(padding: Padding) -> tuple[int, int]:
    """(top and left, bottom and right) of a padding."""
    return (padding, padding) if isinstance(padding, int) else padding


def _weighted(layers, row, prefix):
    for layer in layers:
        name = prefix + layer.name
        match layer:
            case Conv() | DepthwiseConv() | Dense():
                yield name, layer, row
            case Block(layers=inner):
                yield from _weighted(inner, row, f"{name}/")
            case Residual(layers=inner, shortcut=shortcut):
                yield from _weighted(inner, row, f"{name}/")
                yield from _weighted(shortcut, row, f"{name}/")
        row = _through(layer, row)


def _leaves(
    layer: Conv | DepthwiseConv | Dense, shape: tuple[int, ...]
) -> dict[str, tuple[int, ...]]:
    match layer:
        case Conv(kernel=size, groups=groups, features=features):
            kernel: tuple[int, ...] = (size, size, shape[-1] // groups, features)
        case DepthwiseConv(kernel=size):
            features = shape[-1]
            kernel = (size, size, 1, features)
        case Dense(features=features):
            kernel = (math.prod(shape), features)
    return {"kernel": kernel, "bias": (features,)}


def _through(layer: Layer, row: Geometry) -> Geometry:
    """The geometry after a layer whose input has geometry `row`."""
    _, shape, field, stride = row
    window, step = 1, 1
    match layer:
        case Conv(features=features, kernel=window, stride=step, padding=padding):
            shape = (*_slide(shape, window, step, padding, layer.name), features)
        case DepthwiseConv(kernel=window, stride=step, padding=padding):
            shape = (*_slide(shape, window, step, padding, layer.name), shape[-1])
        case MaxPool(window=window, stride=step, padding=padding):
            shape = (*_slide(shape, window, step, padding, layer.name), shape[-1])
        case Dense(features=features):
            window = shape[0] if len(shape) == 3 else 1
            shape = (features,)
        case GlobalAveragePool():
            window = shape[0]
            shape = shape[-1:]
        case Block(layers=inner):
            for part in inner:
                row = _through(part, row)
            return row._replace(name=layer.name)
        case Residual(layers=inner, shortcut=shortcut):
            ends = []
            for branch in (inner, shortcut):
                end = row
                for part in branch:
                    end = _through(part, end)
                ends.append(end)
            if ends[0].shape != ends[1].shape:
                raise ValueError(
                    f"layer {layer.name} adds {ends[0].shape} and {ends[1].shape}"
                )
            widest = max(end.receptive_field for end in ends)
            return ends[0]._replace(name=layer.name, receptive_field=widest)
    return Geometry(layer.name, shape, field + (window - 1) * stride, stride * step)


def _slide(
    shape: tuple[int, ...], window: int, stride: int, padding: Padding, name: str
) -> tuple[int, ...]:
    """Output sides of a window that moves in whole strides (rounding down)."""
    moved = tuple(
        (side + sum(sides(padding)) - window) // stride + 1 for side in shape[:-1]
    )
    if min(moved) < 1:
        raise ValueError(f"layer {name} needs more than {shape[0]} x {shape[1]} inputs")
    return moved
