"""What a person sees of a run while it lasts: a bar, or a line per lane."""

import sys
import threading
import time
from collections.abc import Sequence

from tqdm import tqdm

from invjax.inversion.watching import Sight
from invjax.runs.lanes import Lane
from invjax.runs.records import Record
from invjax.runs.settings import Settings

_EVERY = 10
_SECONDS_BETWEEN_LINES = 30.0


class Progress:
    """A bar on a terminal, and elsewhere a line per lane.

    Args:
      left: number of lanes that are to be done.
      total: number of lanes of this process, those that were done before included.
    """

    def __init__(self, left: int, total: int):
        self._left, self._total = left, total
        self._number = 0
        self._began = time.monotonic()
        self._bar = tqdm(
            total=total,
            initial=total - left,
            unit="lane",
            disable=not sys.stderr.isatty(),
        )

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()

    def add(self, lane: Lane, record: Record) -> None:
        """Shows that a lane has ended."""
        self._number += 1
        self._bar.set_description(f"{lane.target.name} {lane.group.name}")
        self._bar.update()
        if self._bar.disable:
            elapsed = time.monotonic() - self._began
            left = elapsed / self._number * (self._left - self._number)
            place = self._total - self._left + self._number
            print(_line(place, self._total, lane, record, elapsed, left), flush=True)

    def within(self, planned: Sequence[Lane], settings: Settings) -> "WithinLanes":
        """Shows how far lanes are while they descend.

        Args:
          planned: the lanes that descend, by their number in the loop.
          settings: settings of the run.
        """
        return WithinLanes(self._bar, planned, settings)


class WithinLanes:
    """Steps of lanes that take long, a watcher of the loop.

    On a terminal the bar shows the steps of the lane that was looked at last. Elsewhere
    a lane has a line every half a minute, and lanes of less than that have none.
    """

    every = _EVERY

    def __init__(self, bar: tqdm, planned: Sequence[Lane], settings: Settings):
        self._bar = bar
        self._planned = planned
        self._settings = settings
        self._lock = threading.Lock()
        # Step and time of the first look, and the time of the last line, by lane.
        self._begun: dict[int, tuple[int, float]] = {}
        self._shown: dict[int, float] = {}

    def look(self, sight: Sight) -> None:
        """Shows the step of one lane, as the others are as far."""
        number, step = int(sight.lanes[0]), int(sight.num_steps[0])
        lane = self._planned[number]
        total = lane.num_steps(self._settings)
        now = time.monotonic()
        with self._lock:
            first, began = self._begun.setdefault(number, (step, now))
            self._shown.setdefault(number, now)
            pace = (step - first) / (now - began) if step > first else 0.0
            if step >= total or not pace:
                return
            left = tqdm.format_interval((total - step) / pace)
            words = f"step {step} of {total}, {pace:.3g} steps/s, {left} left"
            if not self._bar.disable:
                self._bar.set_postfix_str(words)
            elif now - self._shown[number] >= _SECONDS_BETWEEN_LINES:
                self._shown[number] = now
                print(f"{_title(lane)}: {words}", flush=True)


def _title(lane: Lane) -> str:
    variant = f"{lane.variant_name} " if lane.variant_name else ""
    return (
        f"{lane.target.name} {lane.group.name} {variant}tv {lane.tv_weight:g} start "
        f"{lane.start}"
    )


def _line(
    number: int, total: int, lane: Lane, record: Record, elapsed: float, left: float
) -> str:
    if record.has_failed:
        result = "failed"
    elif record.relative_error is None:
        result = f"objective {record.objective:.4g}"
    else:
        result = f"relative error {record.relative_error:.1%}"
    passed, to_come = map(tqdm.format_interval, (elapsed, left))
    if record.dead_start:
        result += " from a dead start"
    return (
        f"[{number}/{total}, {passed} passed, {to_come} left] {_title(lane)}: "
        f"{result}, {record.seconds:.1f} s"
    )
