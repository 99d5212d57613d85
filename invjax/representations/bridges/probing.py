"""Receptive field and stride of a code, from gradients.

Nothing is known of the function but its derivative. A part of a code is asked which
pixels it depends on: the gradient of a random combination of its values is not zero
there. It is taken with fully relaxed derivatives (`networks.relaxation`: ReLUs pass
everything, max-pools average), so that no pixel is missed because a unit is off.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from invjax.networks.layers import Geometry

_MOVES = 0.15
"""Smallest part of the image's side by which the ends of an axis of places differ.

Units that see the whole image differ by a few hundredths, by chance.
"""

_MOST_SPECIAL_TOKENS = 8
_FEWEST_TOKENS = 5
_DEEPEST_STRIDE = 32

Pull = Callable[[np.ndarray], np.ndarray]
"""From a cotangent, of the shape of the code, to the image's gradient [h, w, c]."""


class Probed(NamedTuple):
    """What is found out about a code.

    Attributes:
      geometry: shape of the code, receptive field and stride. A receptive field that is
        larger than the image counts as large as the image.
      has_places: whether the code has parts that look at different parts of the image.
    """

    geometry: Geometry
    has_places: bool


def probe(
    pull: Pull, name: str, shape: tuple[int, ...], image_shape: tuple[int, ...]
) -> Probed:
    """Finds which axes of a code are places, and the pixels that one place depends on.

    An axis has places along the rows (columns) of the image if the pixels on which its
    two ends depend begin or stop at other rows (columns). Where all parts of a code
    depend on the whole image, it has them if the centre of gravity of the gradient
    moves. Where one axis does both, it is of tokens.

    The stride is the distance between the receptive fields of neighbours in the middle,
    if they are inside the image; otherwise, and for tokens, it is the image's side
    divided by the number of places. A code without places counts as one of stride 32,
    as those of networks for classification do, or of the image's side where that is
    smaller.

    Args:
      pull: from a cotangent to the image's gradient.
      name: name of the layer.
      shape: shape of the code.
      image_shape: (h, w, c) of the image.
    """
    random = np.random.default_rng(0)
    direction = random.normal(size=shape).astype(np.float32)
    height, width = image_shape[:2]

    def support(where: Mapping[int, int]) -> "_Support":
        part = np.zeros(shape, bool)
        part[tuple(where.get(axis, slice(None)) for axis in range(len(shape)))] = True
        return _Support.of(pull(np.where(part, direction, np.float32(0))))

    ends = {}
    for axis, size in enumerate(shape):
        if size > 1:
            # The first token of many may be a special one.
            first = 1 if size >= _FEWEST_TOKENS else 0
            ends[axis] = (support({axis: first}), support({axis: size - 1}))
    moved = {
        axis: (
            _shift(first.rows, last.rows, first.centre[0], last.centre[0], height),
            _shift(first.columns, last.columns, first.centre[1], last.centre[1], width),
        )
        for axis, (first, last) in ends.items()
    }
    rows = _moving(moved, 0)
    columns = _moving(moved, 1)
    if rows is None and columns is None:
        field = support({}).side
        stride = min(_DEEPEST_STRIDE, height, width)
        return Probed(Geometry(name, shape, field, stride), has_places=False)
    if rows == columns:
        assert rows is not None
        field = support({rows: shape[rows] // 2}).side
        stride = _token_stride(shape[rows], height, width)
        return Probed(Geometry(name, shape, field, stride), has_places=True)
    axes = [axis for axis in (rows, columns) if axis is not None]
    middles = [
        support({axis: _middle(shape[axis]) + step for axis in axes})
        for step in _steps(min(shape[axis] for axis in axes))
    ]
    lead, side = (rows, height) if rows is not None else (columns, width)
    assert lead is not None
    intervals = [s.rows if rows is not None else s.columns for s in middles]
    stride = _distance(intervals, side, shape[lead])
    field = max(s.side for s in middles)
    return Probed(Geometry(name, shape, field, stride), has_places=True)


class _Support(NamedTuple):
    """The pixels that a part of a code depends on.

    Attributes:
      rows: first and last row; (0, -1) if there is none.
      columns: first and last column.
      centre: (row, column), the mean of the pixels weighted by the squared gradient.
    """

    rows: tuple[int, int]
    columns: tuple[int, int]
    centre: tuple[float, float]

    @classmethod
    def of(cls, gradient: np.ndarray) -> "_Support":
        size = np.abs(gradient.astype(np.float64)).max(axis=-1)
        weight = (size / max(size.max(), np.finfo(np.float64).tiny)) ** 2
        total = max(weight.sum(), np.finfo(np.float64).tiny)
        centre = [
            float((np.arange(n) * weight.sum(axis=1 - axis)).sum() / total)
            for axis, n in enumerate(size.shape)
        ]
        return cls(
            _interval(size.any(axis=1)),
            _interval(size.any(axis=0)),
            (centre[0], centre[1]),
        )

    @property
    def side(self) -> int:
        return max(b - a + 1 for a, b in (self.rows, self.columns))


def _interval(is_in: Any) -> tuple[int, int]:
    found = np.flatnonzero(is_in)
    return (int(found[0]), int(found[-1])) if found.size else (0, -1)


def _shift(
    first: tuple[int, int],
    last: tuple[int, int],
    first_centre: float,
    last_centre: float,
    side: int,
) -> tuple[float, float]:
    """By how much (intervals, centres) of two ends differ, as parts of the side."""
    ends = max(abs(a - b) for a, b in zip(first, last, strict=True))
    return ends / side, abs(last_centre - first_centre) / side


def _moving(
    moved: dict[int, tuple[tuple[float, float], tuple[float, float]]], along: int
) -> int | None:
    """The axis whose places move most along rows (0) or columns (1) of the image."""
    for evidence in (0, 1):
        shifts = {axis: both[along][evidence] for axis, both in moved.items()}
        axis = max(shifts, key=lambda axis: shifts[axis], default=None)
        if axis is not None and shifts[axis] >= _MOVES:
            return axis
    return None


def _middle(size: int) -> int:
    return (size - 1) // 2


def _steps(size: int) -> tuple[int, ...]:
    """Steps from the middle of an axis to its neighbours, as far as there are any."""
    return (-1, 0, 1) if size > 2 else (0, 1) if size > 1 else (0,)


def _distance(intervals: list[tuple[int, int]], side: int, num_places: int) -> int:
    """The distance between neighbouring intervals, as far as they are inside the image.

    Where they are not, and where a network enlarges its code again, so that neighbours
    may see the same, it is the side divided by the number of places.
    """
    mean = side / num_places
    for end, border in ((0, 0), (1, side - 1)):
        ends = [interval[end] for interval in intervals if interval[end] != border]
        distances = {int(distance) for distance in np.diff(ends)}
        if len(distances) == 1 and 0.45 * mean < min(distances) < 1.1 * mean:
            return distances.pop()
    return max(round(mean), 1)


def _token_stride(num_tokens: int, height: int, width: int) -> int:
    """The side of the patches of an image that has so many, and a few special tokens.

    Examples:
      >>> _token_stride(197, 224, 224), _token_stride(261, 224, 224)
      (16, 14)
    """
    sides = [
        side
        for side in range(1, min(height, width) + 1)
        if 0 <= num_tokens - (height // side) * (width // side) <= _MOST_SPECIAL_TOKENS
    ]
    whole = [side for side in sides if height % side == width % side == 0]
    return max(whole or sides or [max(round((height * width / num_tokens) ** 0.5), 1)])
