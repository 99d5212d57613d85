"""Curves of the objective as points of an SVG."""

import numpy as np
import pytest

from invjax.report import sparklines
from invjax.report.sparklines import HEIGHT, WIDTH, Axes


def _coordinates(text: str) -> np.ndarray:
    return np.array([pair.split(",") for pair in text.split()], float)


def test_a_curve_goes_from_the_left_to_the_right_and_down():
    history = [[10 * k, float(np.exp(-k))] for k in range(9)]
    axes = sparklines.axes([history])
    assert axes is not None and axes.is_logarithmic
    x, y = _coordinates(sparklines.points(history, axes)).T
    # Downward in an SVG is larger; the decay is a straight line of the logarithm.
    np.testing.assert_allclose(np.diff(x), np.diff(x)[0], atol=0.02)
    np.testing.assert_allclose(np.diff(y), np.diff(y)[0], atol=0.02)
    assert np.diff(x)[0] > 0 and np.diff(y)[0] > 0
    assert 0 < x[0] < x[-1] < WIDTH and 0 < y[0] < y[-1] < HEIGHT


def test_values_that_are_not_positive_have_linear_axes():
    history = [[0, 3.0], [5, 0.0], [10, -1.0]]
    axes = sparklines.axes([history])
    assert axes == Axes(10, -1.0, 3.0, is_logarithmic=False)
    y = _coordinates(sparklines.points(history, axes))[:, 1]
    assert (y[1] - y[0]) / (y[2] - y[1]) == pytest.approx(3, rel=1e-2)


def test_what_lies_beyond_the_axes_stays_in_the_drawing():
    axes = Axes(10, 0.1, 1.0, is_logarithmic=True)
    history = [[0, 1e30], [5, -4.0], [30, 0.01]]
    x, y = _coordinates(sparklines.points(history, axes)).T
    assert ((x >= 0) & (x <= WIDTH) & (y >= 0) & (y <= HEIGHT)).all()
    assert y[0] < y[1] == y[2]


def test_level_curves_lie_in_the_middle():
    history = [[0, 0.5], [10, 0.5]]
    axes = sparklines.axes([history])
    assert axes is not None
    assert set(_coordinates(sparklines.points(history, axes))[:, 1]) == {HEIGHT / 2}


@pytest.mark.parametrize("histories", [[], [[]], [[[0, 1.0]], []]])
def test_a_point_is_no_curve(histories):
    assert sparklines.axes(histories) is None
    axes = Axes(10, 0.1, 1.0, is_logarithmic=True)
    assert [sparklines.points(history, axes) for history in histories] == [""] * len(
        histories
    )
