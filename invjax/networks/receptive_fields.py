"""Which pixels of the image a part of a code sees, exactly, from a layer table.

`layers.geometry` has the size of a unit's field and the distance between neighbours;
here is its place, with paddings however unequal, and where the image cuts it off.
"""

from typing import NamedTuple

from invjax.networks.layers import (
    Block,
    Conv,
    Dense,
    DepthwiseConv,
    GlobalAveragePool,
    Layer,
    MaxPool,
    Padding,
    Residual,
    geometry,
    sides,
)


class Window(NamedTuple):
    """A rectangle of pixels or of units: rows and columns from 0, both ends inside."""

    top: int
    left: int
    bottom: int
    right: int

    @property
    def height(self) -> int:
        return self.bottom - self.top + 1

    @property
    def width(self) -> int:
        return self.right - self.left + 1

    @property
    def centre(self) -> tuple[float, float]:
        """(row, column), between two pixels where a side is even."""
        return (self.top + self.bottom) / 2, (self.left + self.right) / 2


class ReceptiveField(NamedTuple):
    """What a window of units sees, in pixels.

    Attributes:
      full: as if the image went on beyond its border: the sides are those of the
        paper's tables.
      inside: the part of the image that can change the window's units.
    """

    full: Window
    inside: Window


def receptive_field(
    layers: tuple[Layer, ...],
    image_shape: tuple[int, ...],
    *,
    window: Window | None = None,
) -> ReceptiveField:
    """The pixels that a window of the last layer's units sees (CVPR 2015, Table 2).

    Args:
      layers: the table, up to the layer.
      image_shape: (h, w, c) of the image.
      window: units of the last layer; None for all of them, as it has to be where a
        dense or pooled layer has left no places.

    Raises:
      ValueError: the layer has no such units, or the image is too small for a layer.
    """
    shape = _shapes(layers, image_shape)[-1]
    if window is None:
        # Of a code without places this is one unit; it sees what all of them see.
        window = _whole(shape)
    else:
        check_inside(window, shape)
    return _below(layers, image_shape, ReceptiveField(window, window))


def check_inside(window: Window, shape: tuple[int, ...]) -> None:
    """Refuses a window that is not inside a code of this shape.

    Raises:
      ValueError: it is not, or the code has no places.
    """
    if len(shape) != 3:
        raise ValueError(
            f"a code of shape {tuple(shape)} has no places to choose from; one of "
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
            "left, bottom, right) from 0, both ends inside, is accepted"
        )


def _below(
    layers: tuple[Layer, ...], image_shape: tuple[int, ...], field: ReceptiveField
) -> ReceptiveField:
    """What a window of the last layer's units sees of the first layer's input."""
    inputs = _shapes(layers, image_shape)[:-1]
    for layer, shape in zip(reversed(layers), reversed(inputs), strict=True):
        field = _through(layer, shape, field)
    return field


def _shapes(
    layers: tuple[Layer, ...], image_shape: tuple[int, ...]
) -> list[tuple[int, ...]]:
    """Of the image and of every layer's output."""
    rows = geometry(layers, image_shape)
    return [tuple(image_shape), *(row.shape for row in rows)]


def _through(
    layer: Layer, shape: tuple[int, ...], field: ReceptiveField
) -> ReceptiveField:
    """From a layer's output to its input, which has this shape."""
    match layer:
        case Conv(kernel=size, stride=stride, padding=padding):
            return _slid(field, shape, size, stride, padding)
        case DepthwiseConv(kernel=size, stride=stride, padding=padding):
            return _slid(field, shape, size, stride, padding)
        case MaxPool(window=size, stride=stride, padding=padding):
            return _slid(field, shape, size, stride, padding)
        case GlobalAveragePool() | Dense():
            return ReceptiveField(_whole(shape), _whole(shape))
        case Block(layers=inner):
            return _below(inner, shape, field)
        case Residual(layers=inner, shortcut=shortcut):
            first, second = (_below(part, shape, field) for part in (inner, shortcut))
            return ReceptiveField(*map(_hull, first, second))
    return field


def _slid(
    field: ReceptiveField,
    shape: tuple[int, ...],
    size: int,
    stride: int,
    padding: Padding,
) -> ReceptiveField:
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
    # At every layer anew: what lies in a layer's padding sees nothing below.
    return ReceptiveField(full, _cut(inside, shape))


def _whole(shape: tuple[int, ...]) -> Window:
    rows, columns = shape[:2] if len(shape) == 3 else (1, 1)
    return Window(0, 0, rows - 1, columns - 1)


def _cut(window: Window, shape: tuple[int, ...]) -> Window:
    return Window(
        max(window.top, 0),
        max(window.left, 0),
        min(window.bottom, shape[0] - 1),
        min(window.right, shape[1] - 1),
    )


def _hull(first: Window, second: Window) -> Window:
    return Window(
        min(first.top, second.top),
        min(first.left, second.left),
        max(first.bottom, second.bottom),
        max(first.right, second.right),
    )
