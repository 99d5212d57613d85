"""Layer tables: a network is a tuple of frozen records, read from image to logits.

A table is all that is needed to compute a network (`modules`), to convert its weights
(`weights.conversion`) and to find receptive fields (`geometry`). Activations belong to
one image: they have shape (h, w, c), or (n,) after a dense layer or a global average,
or (tokens, c) in a transformer. Kernels, windows, strides and paddings are in pixels of
the layer's input. Batch normalisation and layer scales have no records: they are folded
into the layer before them when weights are converted (`weights.torch_layouts`).
"""

import dataclasses
import itertools
import math
from collections.abc import Iterator
from typing import Literal, NamedTuple, TypeAlias

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
class Pointwise:
    """The same dense layer, with bias, at every place or token.

    Attributes:
      name: name of the layer.
      features: number of output channels.
    """

    name: str
    features: int


@dataclasses.dataclass(frozen=True)
class Relu:
    """max(x, 0), or min(max(x, 0), ceiling) where a ceiling is given (ReLU6)."""

    name: str
    ceiling: float | None = None


@dataclasses.dataclass(frozen=True)
class Smooth:
    """A nonlinearity whose derivative is never relaxed.

    Attributes:
      name: name of the layer.
      function: x Phi(x) with the normal distribution Phi ("gelu"), x sigmoid(1.702 x)
        ("quick_gelu"), min(max(x + 3, 0), 6) / 6 ("hard_sigmoid"), or x times the last
        ("hard_swish").
    """

    name: str
    function: Literal["gelu", "quick_gelu", "hard_sigmoid", "hard_swish"]


@dataclasses.dataclass(frozen=True)
class LayerNorm:
    """Channels of each place or token normalised to mean 0 and variance 1, then scaled.

    Attributes:
      name: name of the layer.
      epsilon: constant added to the variance.
    """

    name: str
    epsilon: float


@dataclasses.dataclass(frozen=True)
class Tokens:
    """Places as tokens, row by row after a class token: [h, w, c] -> [1 + h w, c].

    Its parameter `positions` is added to the tokens; the first row is the class token
    with its position. So it takes images of one size only.
    """

    name: str


@dataclasses.dataclass(frozen=True)
class Attention:
    """Self-attention over all tokens, without the projection that follows it.

    Queries, keys and values come from one kernel [c, 3 c], in this order, and from a
    bias. Products of queries and keys are divided by the square root of c / heads.

    Attributes:
      name: name of the layer.
      heads: number of heads; each has its part of the channels.
    """

    name: str
    heads: int


@dataclasses.dataclass(frozen=True)
class ClassToken:
    """The first token: [tokens, c] -> [c]."""

    name: str


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


@dataclasses.dataclass(frozen=True)
class Gate:
    """The input times the output of `layers`, one factor for each channel.

    With a global average first, this is squeeze-and-excitation.
    """

    name: str
    layers: tuple["Layer", ...]


@dataclasses.dataclass(frozen=True)
class Concatenation:
    """The channels of several branches of one input, one after another."""

    name: str
    branches: tuple[tuple["Layer", ...], ...]


Weighted: TypeAlias = (
    Conv | DepthwiseConv | Pointwise | Dense | LayerNorm | Tokens | Attention
)
"""Layers with parameters of their own."""

Branched: TypeAlias = Block | Residual | Gate | Concatenation
"""Layers that have other layers in them."""

Layer: TypeAlias = (
    Weighted
    | Branched
    | Relu
    | Smooth
    | MaxPool
    | GlobalAveragePool
    | LocalResponseNorm
    | ClassToken
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
      shape: (h, w, c) of its activation, (tokens, c), or (n,) after a dense layer or a
        global average.
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
      covers all of its input; that of an attention or a gate counts as the image's
      side, or as its input's where that is larger; that of other layers with branches
      is their widest branch's.

    Raises:
      ValueError: the image is too small for a layer, or the branches of a layer have
        shapes that do not fit together.

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
    convolutions [kernel, kernel, 1, channels], those of other layers [in, out].

    Args:
      layers: the table.
      image_shape: (h, w, c) of the image, on which the kernels of dense layers and the
        positions of tokens depend.

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
) -> tuple[tuple[str, Weighted, Geometry], ...]:
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
    if isinstance(layer, Branched):
        inner = itertools.chain.from_iterable(branches(layer))
        return any(map(has_parameters, inner))
    return isinstance(layer, Weighted)


def branches(layer: Branched) -> tuple[tuple[Layer, ...], ...]:
    """The layers inside a layer: one tuple for each branch of its input."""
    match layer:
        case Block(layers=inner) | Gate(layers=inner):
            return (inner,)
        case Residual(layers=inner, shortcut=shortcut):
            return (inner, shortcut)
        case Concatenation(branches=several):
            return several


def sides(padding: Padding) -> tuple[int, int]:
    """A padding as (pixels at the top and left, pixels at the bottom and right).

    Examples:
      >>> sides(1), sides((0, 1))
      ((1, 1), (0, 1))
    """
    return (padding, padding) if isinstance(padding, int) else padding


def _weighted(
    layers: tuple[Layer, ...], row: Geometry, prefix: str
) -> Iterator[tuple[str, Weighted, Geometry]]:
    """`weighted` of layers whose input has geometry `row`; `prefix` starts names."""
    for layer in layers:
        name = prefix + layer.name
        if isinstance(layer, Branched):
            for branch in branches(layer):
                yield from _weighted(branch, row, f"{name}/")
        elif isinstance(layer, Weighted):
            yield name, layer, row
        row = _through(layer, row)


def _leaves(layer: Weighted, shape: tuple[int, ...]) -> dict[str, tuple[int, ...]]:
    """Shapes of a layer's parameters, where its input has shape `shape`."""
    channels = shape[-1]
    match layer:
        case Conv(kernel=size, groups=groups, features=features):
            kernel: tuple[int, ...] = (size, size, channels // groups, features)
        case DepthwiseConv(kernel=size):
            kernel = (size, size, 1, channels)
        case Dense(features=features):
            kernel = (math.prod(shape), features)
        case Pointwise(features=features):
            kernel = (channels, features)
        case Attention():
            kernel = (channels, 3 * channels)
        case LayerNorm():
            return {"scale": (channels,), "bias": (channels,)}
        case Tokens():
            return {"positions": (1 + math.prod(shape[:-1]), channels)}
    return {"kernel": kernel, "bias": kernel[-1:]}


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
        case Pointwise(features=features):
            shape = (*shape[:-1], features)
        case Dense(features=features):
            window = _side(shape)
            shape = (features,)
        case GlobalAveragePool():
            window = _side(shape)
            shape = shape[-1:]
        case Tokens():
            shape = (1 + math.prod(shape[:-1]), shape[-1])
        case Attention():
            return Geometry(layer.name, shape, _whole(row), stride)
        case ClassToken():
            shape = shape[-1:]
        case Block() | Residual() | Gate() | Concatenation():
            return _joined(layer, row)
    return Geometry(layer.name, shape, field + (window - 1) * stride, stride * step)


def _joined(layer: Branched, row: Geometry) -> Geometry:
    """The geometry after a layer with branches, whose input has geometry `row`."""
    ends = []
    for branch in branches(layer):
        end = row
        for part in branch:
            end = _through(part, end)
        ends.append(end)
    shape, stride = ends[0].shape, ends[0].stride
    shapes = [end.shape for end in ends]
    widest = max(end.receptive_field for end in ends)
    match layer:
        case Residual() if shapes[0] != shapes[1]:
            raise ValueError(
                f"layer {layer.name} adds branches of different shapes, "
                f"{shapes[0]} and {shapes[1]}"
            )
        case Gate():
            if shape != row.shape[-1:]:
                raise ValueError(
                    f"layer {layer.name} multiplies {row.shape[-1]} channels by "
                    f"factors of shape {shape}; one for each channel is accepted"
                )
            shape, stride, widest = row.shape, row.stride, _whole(row)
        case Concatenation():
            if len({shape[:-1] for shape in shapes}) > 1:
                raise ValueError(
                    f"layer {layer.name} joins branches of different heights or "
                    f"widths, {', '.join(map(str, shapes))}"
                )
            shape = (*shape[:-1], sum(channels for *_, channels in shapes))
    return Geometry(layer.name, shape, widest, stride)


def _whole(row: Geometry) -> int:
    """The receptive field of what depends on all places of an activation."""
    return max(row.receptive_field, _side(row.shape) * row.stride)


def _side(shape: tuple[int, ...]) -> int:
    """Places along a side of the image: rows, or those of a square of tokens."""
    if len(shape) == 3:
        return shape[0]
    return math.isqrt(shape[0] - 1) if len(shape) == 2 else 1


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
