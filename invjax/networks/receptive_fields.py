"""Receptive fields: exactly which pixels of the image a part of a code depends on.

`layers.geometry` has the size of a neuron's receptive field and the distance between
neighbouring ones. This module has its place in the image, for paddings that may differ
between sides, and the part of it that lies inside the image.
"""

import functools
from typing import NamedTuple

from invjax.networks.layers import (
    Attention,
    Block,
    Concatenation,
    Conv,
    Dense,
    DepthwiseConv,
    Gate,
    GlobalAveragePool,
    Layer,
    MaxPool,
    Padding,
    Residual,
    Tokens,
    branches,
    geometry,
    sides,
)


class Window(NamedTuple):
    """A rectangle of pixels, or of positions in a code.

    Attributes:
      top: first row, counted from 0.
      left: first column, counted from 0.
      bottom: last row, which belongs to the rectangle.
      right: last column, which belongs to the rectangle.
    """

    top: int
    left: int
    bottom: int
    right: int

    @property
    def height(self) -> int:
        """Number of rows."""
        return self.bottom - self.top + 1

    @property
    def width(self) -> int:
        """Number of columns."""
        return self.right - self.left + 1

    @property
    def centre(self) -> tuple[float, float]:
        """(row, column) of the centre, halfway between two where a side is even.

        Examples:
          >>> Window(top=0, left=2, bottom=3, right=2).centre
          (1.5, 2.0)
        """
        return (self.top + self.bottom) / 2, (self.left + self.right) / 2


class ReceptiveField(NamedTuple):
    """The pixels that a window of a code depends on.

    Attributes:
      full: the receptive field as if the image went on beyond its border. Its sides
        are those of the paper's tables.
      inside: the part of the image that can change the code in the window.
    """

    full: Window
    inside: Window


def receptive_field(
    layers: tuple[Layer, ...],
    image_shape: tuple[int, ...],
    *,
    window: Window | None = None,
) -> ReceptiveField:
    """The receptive field of a window of the last layer's code (CVPR 2015, Table 2).

    Args:
      layers: the table, cut at the layer.
      image_shape: (h, w, c) of the image.
      window: rows and columns of the code; None for all of it, which is the only choice
        for tokens and after a dense layer or a global average.

    Raises:
      ValueError: the window is not inside the code, the code has no rows and columns,
        or the image is too small for a layer.

    Examples:
      >>> table = (Conv("conv1", 96, kernel=11, stride=4), MaxPool("pool1", 3, 2))
      >>> field = receptive_field(table, (227, 227, 3), window=Window(1, 1, 1, 1))
      >>> field.full
      Window(top=8, left=8, bottom=26, right=26)
    """
    shape = _shapes(layers, image_shape)[-1]
    if window is None:
        # A code without positions stands as one, which depends on all its input.
        window = _whole(shape)
    else:
        check_inside(window, shape)
    return _below(layers, image_shape, ReceptiveField(window, window))


def check_inside(window: Window, shape: tuple[int, ...]) -> None:
    """Raises an error unless a window is inside a code.

    Args:
      window: rows and columns of the code.
      shape: shape of the code.

    Raises:
      ValueError: the window is not inside the code, or the code has no rows and
        columns.
    """
    if len(shape) != 3:
        raise ValueError(
            f"a code of shape {tuple(shape)} has no places to choose from; a code of "
            "shape (rows, columns, channels) is accepted"
        )
    rows, columns, _ = shape
    is_inside = (
        0 <= window.top <= window.bottom < rows
        and 0 <= window.left <= window.right < columns
    )
    if not is_inside:
        raise ValueError(
            f"window {tuple(window)} is not inside {rows} x {columns} places; (top, "
            "left, bottom, right) is accepted, counted from 0, with bottom and right "
            "in the window"
        )


def _below(
    layers: tuple[Layer, ...], image_shape: tuple[int, ...], field: ReceptiveField
) -> ReceptiveField:
    """From a window of the last layer's output to the first layer's input."""
    inputs = _shapes(layers, image_shape)[:-1]
    for layer, shape in zip(reversed(layers), reversed(inputs), strict=True):
        field = _through(layer, shape, field)
    return field


def _shapes(
    layers: tuple[Layer, ...], image_shape: tuple[int, ...]
) -> list[tuple[int, ...]]:
    """Shapes of the image and of every layer's output."""
    rows = geometry(layers, image_shape)
    return [tuple(image_shape), *(row.shape for row in rows)]


def _through(
    layer: Layer, shape: tuple[int, ...], field: ReceptiveField
) -> ReceptiveField:
    """From a window of a layer's output to its input, whose shape is `shape`."""
    match layer:
        case Conv(kernel=size, stride=stride, padding=padding):
            return _slid(field, shape, size, stride, padding)
        case DepthwiseConv(kernel=size, stride=stride, padding=padding):
            return _slid(field, shape, size, stride, padding)
        case MaxPool(window=size, stride=stride, padding=padding):
            return _slid(field, shape, size, stride, padding)
        case GlobalAveragePool() | Dense() | Tokens() | Attention():
            return ReceptiveField(_whole(shape), _whole(shape))
        case Gate(layers=inner):
            # The factors are a code without positions.
            factors = _whole(shape[-1:])
            below = _below(inner, shape, ReceptiveField(factors, factors))
            return ReceptiveField(*map(_hull, field, below))
        case Block() | Residual() | Concatenation():
            ends = [_below(branch, shape, field) for branch in branches(layer)]
            full, inside = zip(*ends, strict=True)
            return ReceptiveField(
                functools.reduce(_hull, full), functools.reduce(_hull, inside)
            )
    return field


def _slid(
    field: ReceptiveField,
    shape: tuple[int, ...],
    size: int,
    stride: int,
    padding: Padding,
) -> ReceptiveField:
    """`_through` for a layer with a sliding window of side `size`."""
    before, _ = sides(padding)
    full, inside = (
        Window(
            window.top * stride - before,
            window.left * stride - before,
            window.bottom * stride - before + size - 1,
            window.right * stride - before + size - 1,
        )
        for window in field
    )
    # Cut at every layer, since what lies in a layer's padding depends on no pixel.
    return ReceptiveField(full, _cut(inside, shape))


def _whole(shape: tuple[int, ...]) -> Window:
    """The window of all positions; a code without positions counts as one."""
    rows, columns = shape[:2] if len(shape) == 3 else (1, 1)
    return Window(0, 0, rows - 1, columns - 1)


def _cut(window: Window, shape: tuple[int, ...]) -> Window:
    """The part of a window that is inside an array of this shape."""
    return Window(
        max(window.top, 0),
        max(window.left, 0),
        min(window.bottom, shape[0] - 1),
        min(window.right, shape[1] - 1),
    )


def _hull(first: Window, second: Window) -> Window:
    """The smallest window that contains both."""
    return Window(
        min(first.top, second.top),
        min(first.left, second.left),
        max(first.bottom, second.bottom),
        max(first.right, second.right),
    )
