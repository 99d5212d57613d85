"""Seconds of calls that take turns, so that a busy machine slows all of them alike."""

import math
import os
import time
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

import numpy as np

_MOST_CALLS = 1000


class Contestant(NamedTuple):
    """Something to time.

    Attributes:
      side: name that tells it from those it is compared with.
      call: does the work and returns when the device has done it.
      work: how much a call does: a number of images, image-steps or inversions.
      warm: called once beforehand, to compile; None for `call` itself.
      notes: more fields of the record; a call may still add some.
    """

    side: str
    call: Callable[[], None]
    work: float = 1
    warm: Callable[[], None] | None = None
    notes: Mapping[str, object] = MappingProxyType({})


class Timing(NamedTuple):
    """Seconds per call over the rounds.

    Attributes:
      median, least, most: over the rounds.
      compiling: by how much the first call took longer than the median one; None
        where `Contestant.warm` was called first.
      rounds: number of rounds.
    """

    median: float
    least: float
    most: float
    compiling: float | None
    rounds: int


def take_turns(
    contestants: Sequence[Contestant],
    *,
    rounds: int,
    least_seconds: float = 0.0,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, Timing]:
    """Times each contestant once a round.

    Args:
      contestants: programs with different names.
      rounds: number of turns of each.
      least_seconds: a turn repeats its call until it should take this long.
      clock: returns seconds; `time.process_time` leaves other processes out.

    Returns:
      A timing for each side. A side whose first call fails (no memory, no compiler) is
      left out, and printed.
    """
    first: dict[str, float | None] = {}
    running = []
    for contestant in contestants:
        try:
            seconds = _seconds(contestant.warm or contestant.call, clock)
        except RuntimeError as error:
            print_left_out(contestant.side, error)
            continue
        first[contestant.side] = None if contestant.warm else seconds
        running.append(contestant)
    calls = {contestant.side: 1 for contestant in running}
    if least_seconds:
        for contestant in running:
            taken = _seconds(contestant.call, clock)
            wanted = math.ceil(least_seconds / max(taken, 1e-9))
            calls[contestant.side] = min(wanted, _MOST_CALLS)
    times: dict[str, list[float]] = {contestant.side: [] for contestant in running}
    for _ in range(rounds):
        for contestant in running:
            number = calls[contestant.side]
            seconds = _seconds(contestant.call, clock, number)
            times[contestant.side].append(seconds / number)
    timings = {}
    for side, each in times.items():
        median, began = float(np.median(each)), first[side]
        compiling = None if began is None else max(began - median, 0.0)
        timings[side] = Timing(median, min(each), max(each), compiling, rounds)
    return timings


def load() -> float | None:
    """Processes that ran or waited in the last minute; None where not known."""
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else None


def print_left_out(what: str, reason: object) -> None:
    """Says what is missing from the results, and why, in one line."""
    print(f"left out: {what} ({' '.join(str(reason).split())[:300]})", flush=True)


def _seconds(
    call: Callable[[], None], clock: Callable[[], float], number: int = 1
) -> float:
    began = clock()
    for _ in range(number):
        call()
    return clock() - began
