"""Units of work: the lanes of a run that are done, and kept, together.

A unit takes about half a minute, so that an interruption costs no more than that, and a
large run does not end in a file per lane. How many lanes that is, is settled when a run
begins; which units there are depends on nothing else, and so not on how many processes
share them.
"""

import itertools
from collections.abc import Sequence
from typing import NamedTuple

from invjax.inversion.execution import Execution

SECONDS = 30.0
"""How long a unit takes, about."""

MOST_ON_CPU = 64
"""Most lanes of a unit where lanes are compiled one by one."""


class Unit(NamedTuple):
    """Some neighbours among the lanes of a run, all of one kind.

    Attributes:
      number: number of the unit, from 0.
      kind: number of the kind of its lanes, from 0.
      first, stop: numbers of its first lane, and of the first one after it.
    """

    number: int
    kind: int
    first: int
    stop: int

    @property
    def num_lanes(self) -> int:
        """Number of its lanes."""
        return self.stop - self.first


def lanes_per_unit(seconds_per_lane: float, execution: Execution) -> int:
    """How many lanes take about `SECONDS`.

    With a compiled loop (GPU, TPU) it is a whole number of compiled calls, on CPU at
    most `MOST_ON_CPU`; in any case at least one of them.

    Args:
      seconds_per_lane: as `api.estimate` predicts it.
      execution: how lanes are run.

    Examples:
      >>> cpu, gpu = Execution(num_threads=2), Execution(width=16, scan=True)
      >>> [lanes_per_unit(each, cpu) for each in (100.0, 4.0, 0.001)]
      [1, 8, 64]
      >>> [lanes_per_unit(each, gpu) for each in (100.0, 0.5)]
      [16, 64]
    """
    wanted = SECONDS / max(seconds_per_lane, 1e-9)
    if not execution.scan:
        return max(1, min(round(wanted), MOST_ON_CPU))
    width = execution.lanes_per_call
    return width * max(1, round(wanted / width))


def divide(kinds: Sequence[int], sizes: Sequence[int]) -> list[Unit]:
    """Divides the lanes of a run into units.

    Args:
      kinds: number of lanes of each kind, in order.
      sizes: number of lanes of a unit of each kind; the last unit of a kind may have
        fewer.

    Examples:
      >>> [(unit.first, unit.stop) for unit in divide([3, 2], [2, 5])]
      [(0, 2), (2, 3), (3, 5)]
    """
    units: list[Unit] = []
    first = 0
    for kind, (count, size) in enumerate(zip(kinds, sizes, strict=True)):
        for start in range(first, first + count, size):
            stop = min(start + size, first + count)
            units.append(Unit(len(units), kind, start, stop))
        first += count
    return units


def of_process(units: Sequence[Unit], number: int, count: int) -> list[Unit]:
    """The units of one of several processes: every `count`-th one.

    Examples:
      >>> three = divide([3], [1])
      >>> [unit.number for unit in of_process(three, 0, 2)]
      [0, 2]
    """
    return [unit for unit in units if unit.number % count == number]


def windows(
    units: Sequence[Unit], most_lanes: Sequence[int]
) -> list[list[tuple[Unit, int, int]]]:
    """Lanes that are read and handed to the loop together, in order.

    A window has lanes of one kind. Where units are small it has several, so that lanes
    of the next unit begin while the last ones of a unit end; where they are large, a
    unit has several windows, so that the memory does not grow with the unit.

    Args:
      units: the units to be done.
      most_lanes: largest number of lanes of a window, for each kind.

    Returns:
      Windows, each of them pieces (unit, first lane, first lane after it).

    Examples:
      >>> small, large = divide([4, 5], [2, 5])[:2], divide([5], [5])
      >>> [[piece[1:] for piece in each] for each in windows(small, [4, 4])]
      [[(0, 2), (2, 4)]]
      >>> [[piece[1:] for piece in each] for each in windows(large, [3])]
      [[(0, 3)], [(3, 5)]]
    """
    found: list[list[tuple[Unit, int, int]]] = []
    for kind, members in itertools.groupby(units, lambda unit: unit.kind):
        room = 0
        for unit in members:
            first = unit.first
            while first < unit.stop:
                if not room:
                    found.append([])
                    room = most_lanes[kind]
                stop = min(unit.stop, first + room)
                found[-1].append((unit, first, stop))
                room -= stop - first
                first = stop
    return found
