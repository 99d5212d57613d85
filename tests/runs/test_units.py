"""How a run is divided into units and windows: every lane once, whoever does it."""

import hypothesis
import pytest
from hypothesis import strategies

from invjax.inversion.execution import Execution
from invjax.runs import units

sizes = strategies.lists(
    strategies.tuples(strategies.integers(1, 40), strategies.integers(1, 70)),
    min_size=1,
    max_size=4,
)


@hypothesis.given(sizes, strategies.integers(1, 5), strategies.integers(1, 30))
def test_every_lane_is_in_one_unit_process_and_window(
    sizes: list[tuple[int, int]], num_processes: int, most: int
):
    kinds, per_unit = zip(*sizes, strict=True)
    whole = units.divide(kinds, per_unit)
    assert [unit.number for unit in whole] == list(range(len(whole)))
    ends = [sum(kinds[: n + 1]) for n in range(len(kinds))]
    for unit in whole:
        assert unit.num_lanes <= per_unit[unit.kind]
        # All of one kind.
        assert ends[unit.kind] - kinds[unit.kind] <= unit.first
        assert unit.stop <= ends[unit.kind]
    found: list[int] = []
    for number in range(num_processes):
        mine = units.of_process(whole, number, num_processes)
        for window in units.windows(mine, [most] * len(kinds)):
            assert sum(stop - first for _, first, stop in window) <= most
            assert len({unit.kind for unit, _, _ in window}) == 1
            for unit, first, stop in window:
                assert unit in mine and unit.first <= first < stop <= unit.stop
                found += range(first, stop)
    assert sorted(found) == list(range(sum(kinds)))


@pytest.mark.parametrize(
    ("seconds", "width", "scan", "expected"),
    [
        (0.01, 1, False, 64),
        (0.5, 1, False, 60),
        (29.0, 1, False, 1),
        (1e4, 1, False, 1),
        (0.01, 512, True, 3072),
        (1e4, 512, True, 512),
        (0.0, 1, False, 64),
    ],
)
def test_a_unit_takes_half_a_minute(
    seconds: float, width: int, scan: bool, expected: int
):
    execution = Execution(width=width, scan=scan, num_threads=1 if scan else 4)
    assert units.lanes_per_unit(seconds, execution) == expected
