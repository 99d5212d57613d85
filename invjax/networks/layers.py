"""Layer tables: a network is a tuple of frozen records, read from image to logits.

A table is all that is needed to compute a network (`modules`), to convert its weights
(`weights.conversion`) and to find receptive fields (`geometry`). Activations belong to
one image: they have shape (h, w, c), or (n,) after a dense layer or a global average.
Kernels, windows, strides and paddings are in pixels of the layer's input. Batch
normalisation has no record: it is folded into the convolution before it when weights
are converted (`weights.batch_norm`).
"""

import dataclasses
import math
from collections.abc import Iterator
from typing import NamedTuple, TypeAlias

from invjax import spelling

Padding: TypeAlias = int | tuple[int, int]
"""Pixels added on all four sides, or (at the top and left, at the bottom and right)."""


@dataclasses.dataclass(frozen=True)
class Conv:
    """A convolution (correlation) with bias, padded with zeros.

    Attributes:
      name: name of the layer.
      features: number of output channels.
      kernel: side of the square kernel.
      stride: distance between kernel positions.
      padding: zeros around the input.
      groups: number of groups; each has its part of the input and output channels.
    """

    name: str
    features: int
    kernel: int
    stride: int = 1
    padding: Padding = 0
    groups: int = 1


@dataclasses.dataclass(frozen=True)
class DepthwiseConv:
    """A convolution of each channel with a kernel of its own, with bias.

    Attributes are those of `Conv`.
    """

    name: str
    kernel: int
    stride: int = 1
    padding: Padding = 0


@dataclasses.dataclass(frozen=True)
class Relu:
    """max(x, 0), or min(max(x, 0), ceiling) where a ceiling is given (ReLU6)."""

    name: str
    ceiling: float | None = None


@dataclasses.dataclass(frozen=True)
class MaxPool:
    """The maximum over square windows of each channel, padded with -inf.

    Attributes:
      name: name of the layer.
      window: side of the window.
      stride: distance between windows.
      padding: border around the input.
    """

    name: str
    window: int
    stride: int
    padding: Padding = 0


@dataclasses.dataclass(frozen=True)
class GlobalAveragePool:
    """The mean over all positions: [h, w, c] -> [c]."""

    name: str


@dataclasses.dataclass(frozen=True)
class LocalResponseNorm:
    """x / (kappa + alpha sum x^2)^beta, the sum over `size` neighbouring channels.

    This is MatConvNet's form. Caffe and PyTorch divide their alpha by the size.
    """

    name: str
    size: int
    kappa: float
    alpha: float
    beta: float


@dataclasses.dataclass(frozen=True)
class Dense:
    """A fully connected layer with bias; an [h, w, c] input is flattened in that order.

    Attributes:
      name: name of the layer.
      features: number of output values.
    """

    name: str
    features: int


@dataclasses.dataclass(frozen=True)
class Block:
    """Layers under one name, which stands for the activation of the last of them."""

    name: str
    layers: tuple["Layer", ...]


@dataclasses.dataclass(frozen=True)
class Residual:
    """The sum of two branches of one input: `layers`, and `shortcut`.

    An empty branch is the identity.
    """

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
    """A named layer table.

    Attributes:
      name: name of the network, as in "alexnet/relu3".
      input_size: side of the square images it was trained on, in pixels.
      layers: the table.
    """

    name: str
    input_size: int
    layers: tuple[Layer, ...]

    @property
    def layer_names(self) -> tuple[str, ...]:
        """Names of the layers, from image to logits."""
        return tuple(layer.name for layer in self.layers)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(h, w, 3) of the images that the network was trained on."""
        return (self.input_size, self.input_size, 3)

    def until(self, layer: str) -> tuple[Layer, ...]:
        """The table cut after a layer: what is above it is not computed.

        Args:
          layer: name of the last layer to keep.

        Raises:
          ValueError: there is no such layer; the message lists the layers.

        Examples:
          >>> tiny = Network("tiny", 8, (Conv("conv1", 4, 3), Relu("relu1")))
          >>> [layer.name for layer in tiny.until("conv1")]
          ['conv1']
        """
        names = self.layer_names
        if layer not in names:
            raise ValueError(
                f"{self.name} has no layer {layer!r}; it has {', '.join(names)}"
                f"{spelling.hint(layer, names)}"
            )
        return self.layers[: names.index(layer) + 1]


class Geometry(NamedTuple):
    """Shape, receptive field and stride of a layer.

    Attributes:
      name: name of the layer.
      shape: (h, w, c) of its activation, or (n,) after a dense layer or a global
        average.
      receptive_field: side, in pixels of the image, of the square that one neuron of
        the layer depends on, as if the image went on beyond its border.
      stride: pixels of the image between the receptive fields of neighbouring neurons.
    """

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
      One `Geometry` per layer. The receptive field of a dense layer or a global average
      covers all of its input; that of a residual layer is its wider branch's.

    Raises:
      ValueError: the image is too small for a layer, or a residual layer adds branches
        of different shapes.

    Examples:
      >>> table = (Conv("conv1", 64, kernel=11, stride=4, padding=2), Relu("relu1"))
      >>> geometry(table, (224, 224, 3))[-1]
      Geometry(name='relu1', shape=(55, 55, 64), receptive_field=11, stride=4)
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
    """Shapes of all parameter tensors of a table, by name.

    Kernels of convolutions are [kernel, kernel, in / groups, out], those of depthwise
    convolutions [kernel, kernel, 1, channels], those of dense layers [in, out].

    Args:
      layers: the table.
      image_shape: (h, w, c) of the image, on which the kernels of dense layers depend.

    Returns:
      Name -> shape. Names are "conv1/kernel", or "block3/expand/kernel" in a block.

    Raises:
      ValueError: as in `geometry`.

    Examples:
      >>> parameter_shapes((Conv("conv1", 64, kernel=11),), (224, 224, 3))
      {'conv1/kernel': (11, 11, 3, 64), 'conv1/bias': (64,)}
    """
    return {
        f"{name}/{leaf}": shape
        for name, layer, row in weighted(layers, image_shape)
        for leaf, shape in _leaves(layer, row.shape).items()
    }


def weighted(
    layers: tuple[Layer, ...], image_shape: tuple[int, ...]
) -> tuple[tuple[str, Conv | DepthwiseConv | Dense, Geometry], ...]:
    """All layers with parameters, those inside blocks included.

    Args:
      layers: the table.
      image_shape: (h, w, c) of the image.

    Returns:
      (full name, record, geometry of the layer's *input*) of each, in the order of the
      table; in a residual layer the shortcut comes last.

    Raises:
      ValueError: as in `geometry`.
    """
    return tuple(_weighted(layers, Geometry("image", tuple(image_shape), 1, 1), ""))


def has_parameters(layer: Layer) -> bool:
    """Whether a layer, or a layer inside it, has weights."""
    match layer:
        case Conv() | DepthwiseConv() | Dense():
            return True
        case Block(layers=inner):
            return any(map(has_parameters, inner))
        case Residual(layers=inner, shortcut=shortcut):
            return any(map(has_parameters, inner + shortcut))
    return False


def sides(padding: Padding) -> tuple[int, int]:
    """A padding as (pixels at the top and left, pixels at the bottom and right).

    Examples:
      >>> sides(1), sides((0, 1))
      ((1, 1), (0, 1))
    """
    return (padding, padding) if isinstance(padding, int) else padding


def _weighted(
    layers: tuple[Layer, ...], row: Geometry, prefix: str
) -> Iterator[tuple[str, Conv | DepthwiseConv | Dense, Geometry]]:
    """`weighted` of layers whose input has geometry `row`; `prefix` starts names."""
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
    """Shapes of a layer's kernel and bias, where its input has shape `shape`."""
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
                    f"layer {layer.name} adds branches of different shapes, "
                    f"{ends[0].shape} and {ends[1].shape}"
                )
            widest = max(end.receptive_field for end in ends)
            return ends[0]._replace(name=layer.name, receptive_field=widest)
    return Geometry(layer.name, shape, field + (window - 1) * stride, stride * step)


def _slide(
    shape: tuple[int, ...], window: int, stride: int, padding: Padding, name: str
) -> tuple[int, ...]:
    """Height and width of the output of a sliding window, rounded down."""
    moved = tuple(
        (side + sum(sides(padding)) - window) // stride + 1 for side in shape[:-1]
    )
    if min(moved) < 1:
        raise ValueError(
            f"layer {name} needs a larger input than {shape[0]} x {shape[1]}; a larger "
            "image is accepted"
        )
    return moved
