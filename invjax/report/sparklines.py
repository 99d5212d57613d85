"""Small curves of how the objective fell, as points of an inline SVG.

A history is a sequence of pairs (step, objective) in ascending order of steps, as
`Record.history` has them. Curves that are to be compared are drawn with the same axes.
"""

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

History = Sequence[Sequence[float]]

WIDTH, HEIGHT = 120, 36
"""Size of the drawing, in units of the SVG's view box."""

_MARGIN = 2


class Axes(NamedTuple):
    """What the sides of a drawing stand for.

    Attributes:
      last_step: step at the right side; step 0 is at the left one.
      low, high: objective at the lower and at the upper side.
      is_logarithmic: whether the vertical axis is logarithmic; it is wherever all
        values are positive.
    """

    last_step: float
    low: float
    high: float
    is_logarithmic: bool


def axes(histories: Iterable[History]) -> Axes | None:
    """The smallest axes that hold all of these curves; None where there is no curve.

    Args:
      histories: those of fewer than two pairs are no curves.

    Examples:
      >>> axes([[(0, 1.0), (10, 0.5)], [(0, 2.0), (7, 0.25)]])
      Axes(last_step=10, low=0.25, high=2.0, is_logarithmic=True)
    """
    curves = [history for history in histories if len(history) > 1]
    if not curves:
        return None
    values = [value for curve in curves for _, value in curve]
    last_step = max(step for curve in curves for step, _ in curve)
    return Axes(last_step, min(values), max(values), min(values) > 0)


def points(history: History, axes: Axes) -> str:
    """The points of an SVG polyline; what lies beyond the axes is put at their ends.

    Args:
      history: pairs of steps and objectives.
      axes: what the sides stand for.

    Returns:
      Coordinates from the left to the right; empty for fewer than two pairs.

    Examples:
      >>> points([(0, 1.0), (10, 0.01)], Axes(10, 0.01, 1.0, True))
      '2,2 118,34'
    """
    if len(history) < 2:
        return ""
    return " ".join(
        f"{_place(step, 0, axes.last_step, WIDTH):.4g},"
        f"{HEIGHT - _height(value, axes):.4g}"
        for step, value in history
    )


def _height(value: float, axes: Axes) -> float:
    ends = axes.low, axes.high
    if axes.is_logarithmic:
        value = max(value, axes.low)
        value, low, high = (math.log(number) for number in (value, *ends))
    else:
        low, high = ends
    return _place(value, low, high, HEIGHT)


def _place(value: float, low: float, high: float, length: float) -> float:
    part = (value - low) / (high - low) if high > low else 0.5
    return _MARGIN + min(max(part, 0), 1) * (length - 2 * _MARGIN)
