"""Lanes that end at different times, in chunks whose slots are filled again.

Where a compiled loop of a fixed width runs lanes with a tolerance, a chunk would last
as long as its slowest lane. Here the slot of a lane that has converged, failed or used
up its steps goes to the next lane that waits, so that a lane costs little more than the
steps that it takes. Every lane has a step counter of its own and reads the pace of the
phase there: its result depends neither on when it began nor on what ran beside it.

On some devices a program rounds differently at every place of a chunk. So lane i of
those that are run is always at place i modulo the width, on whichever device has that
place free first, and what runs beside it does not show in its bits.

Phases follow each other: all lanes of a block pass the first one before the second
begins.
"""

from collections import deque
from collections.abc import Generator, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from invjax.inversion import batch, dead_starts, devices, lane, watching
from invjax.inversion.execution import Execution
from invjax.inversion.lane import LaneState, Phase
from invjax.inversion.loop import CompiledPhase, host_images
from invjax.inversion.request import Plan
from invjax.inversion.result import Result
from invjax.inversion.watching import Watcher
from invjax.types import PRNGKeys

_STEPS_PER_CALL = 25

_WIDTHS_PER_BLOCK = 8
"""Lanes, in widths, that pass a phase together where another phase follows.

Their states are held in the host's memory between the phases.
"""


def stream(
    keys: PRNGKeys,
    plan: Plan,
    *,
    execution: Execution,
    history_every: int,
    lanes: np.ndarray | None = None,
    watchers: Sequence[Watcher] = (),
) -> Generator[tuple[np.ndarray, Result], None, None]:
    """Runs the lanes of a plan with a tolerance.

    Args:
      keys: [l], the lanes' keys.
      plan: the plan of these lanes, on the host.
      execution: the number of slots on each device is its width.
      history_every: k of `Result.history`.
      lanes: numbers of the lanes to run; None for all.
      watchers: look at the lanes while they descend.

    Yields:
      Numbers [n] of lanes that have ended, as they end, and their results, with fields
      [n, ...] in the host's memory.
    """
    plan = plan.spread(execution.mesh)
    lanes = np.arange(len(keys)) if lanes is None else lanes
    is_plain = len(plan.phases) == 1
    most = len(lanes) if is_plain else _WIDTHS_PER_BLOCK * execution.lanes_per_call
    for first in range(0, len(lanes), most):
        own = lanes[first : first + most]
        block = _Block(keys, plan, execution, history_every, own, watchers)
        for number in range(len(plan.phases)):
            yield from block.run(number)


def compile_phase(phase: Phase, plan: Plan, states: LaneState) -> CompiledPhase:
    """Compiles what runs a phase, for those who measure it.

    Args:
      phase: the phase.
      plan: the plan of a chunk's lanes, on the device (`Plan.of`).
      states: [l], the lanes' states before their first step.
    """
    num_steps = _steps_per_call(phase)
    lowered = batch.scan_steps_at_own_pace.lower(
        phase.program,
        plan.phi,
        plan.shared,
        plan.settings,
        states,
        phase.pace,
        num_steps=num_steps,
    )
    compiled = lowered.compile()
    return CompiledPhase({num_steps: compiled}, plan, whole=phase.pace)


class _News(NamedTuple):
    """What some steps brought, slot by slot.

    Attributes:
      lanes: [w], the number of the lane in each slot.
      is_busy: [w], whether there is a lane; other slots repeat one and are not read.
      is_ended: [w], whether the lane has ended with these steps.
      positions: [w], the step of the phase that these steps began with.
      values: [t, w], the objectives.
      states: [w], the states after these steps.
      part: the plan of these lanes, on the device.
    """

    lanes: np.ndarray
    is_busy: np.ndarray
    is_ended: np.ndarray
    positions: np.ndarray
    values: np.ndarray
    states: LaneState
    part: Plan


class _Block:
    """Lanes that pass each phase before the next one begins."""

    def __init__(
        self,
        keys: PRNGKeys,
        plan: Plan,
        execution: Execution,
        history_every: int,
        block: np.ndarray,
        watchers: Sequence[Watcher],
    ):
        self._keys = keys
        self._plan = plan
        self._width = execution.width
        self._num_slots = execution.lanes_per_call
        self._history_every = history_every
        self._block = block
        self._watchers = watchers
        # Rows in the host's memory, without the key of the phase that has ended.
        self._ended: dict[int, LaneState] = {}
        # Of lanes that have begun and not ended; a block may be all lanes there are.
        self._history: dict[int, np.ndarray] = {}

    def run(self, number: int) -> Generator[tuple[np.ndarray, Result], None, None]:
        """Takes the lanes through a phase; yields results if it is the last one."""
        plan = self._plan
        phase = plan.phases[number]
        done = sum(before.num_steps for before in plan.phases[:number])
        for news in self._steps(number):
            self._record(news, done, phase.num_steps)
            before = done + news.positions
            after = np.minimum(before + len(news.values), done + phase.num_steps)
            self._show(phase, news, news.is_busy, before, after)
            ended = np.flatnonzero(news.is_ended)
            if number < len(plan.phases) - 1:
                rows = self._fetched(news.states._replace(key=None), ended)
                for row, slot in enumerate(ended):
                    self._ended[news.lanes[slot]] = _row(rows, row)
            elif len(ended):
                yield news.lanes[ended], self._results(phase, news, ended)

    def _show(
        self,
        phase: Phase,
        news: "_News",
        is_shown: np.ndarray,
        before: np.ndarray,
        after: np.ndarray,
    ) -> None:
        """Lets the watchers look at the lanes of some slots."""
        rows = np.flatnonzero(is_shown)
        if not self._watchers or not len(rows):
            return
        watching.show(
            self._watchers,
            news.lanes[rows],
            before[rows],
            after[rows],
            lambda: host_images(phase.program, news.states, news.part)[rows],
            total=self._plan.num_steps,
        )

    def _record(self, news: _News, done: int, num_steps: int) -> None:
        """Writes into the history those values that it wants."""
        for slot in np.flatnonzero(news.is_busy):
            number = news.lanes[slot]
            if number not in self._history:
                (row,) = self._plan.empty_history(1, self._history_every)
                self._history[number] = row
            steps = done + news.positions[slot] + np.arange(len(news.values))
            wanted = steps % self._history_every == 0
            wanted &= steps < done + num_steps
            columns = steps[wanted] // self._history_every
            self._history[number][columns] = news.values[wanted, slot]

    def _results(self, phase: Phase, news: _News, ended: np.ndarray) -> Result:
        part = news.part
        finished = batch.finish(
            phase.program, part.phi, part.shared, part.settings, news.states
        )
        result = self._fetched(finished, ended)
        history = np.stack([self._history.pop(n) for n in news.lanes[ended]])
        history[:, -1] = result.history
        return result._replace(history=history)

    def _steps(self, number: int) -> Iterator[_News]:
        """Fills the slots and takes steps until every lane has passed the phase."""
        phase = self._plan.phases[number]
        pace = devices.replicate(phase.pace, self._plan.mesh)
        waiting = [
            deque(self._block[place :: self._width]) for place in range(self._width)
        ]
        lanes = np.full(self._num_slots, self._block[0])
        is_busy = np.zeros(self._num_slots, bool)
        own, states = None, None
        while any(waiting) or np.any(is_busy):
            is_new = np.zeros(self._num_slots, bool)
            for slot in np.flatnonzero(~is_busy):
                if mine := waiting[slot % self._width]:
                    lanes[slot], is_new[slot] = mine.popleft(), True
            if np.any(is_new):
                own = self._moved(number, lanes, is_new, own)
                new = self._begin(number, lanes, own)
                states = (
                    new
                    if states is None
                    else batch.replace_lanes(self._plan.place(is_new), new, states)
                )
                is_busy |= is_new
                if number == 0:
                    zeros = np.zeros(self._num_slots, int)
                    begun = _News(
                        lanes.copy(), is_new, zeros > 0, zeros, zeros, states, own.plan
                    )
                    self._show(phase, begun, is_new, zeros, zeros)
            assert states is not None and own is not None
            positions = np.asarray(lane.steps_in_phase(states))
            states, values = batch.scan_steps_at_own_pace(
                phase.program,
                own.plan.phi,
                own.plan.shared,
                own.plan.settings,
                states,
                pace,
                num_steps=_steps_per_call(phase),
            )
            is_going = np.asarray(lane.is_descending(states))
            has_steps = np.asarray(lane.steps_in_phase(states)) < phase.num_steps
            is_ended = is_busy & ~(is_going & has_steps)
            yield _News(
                lanes.copy(),
                is_busy.copy(),
                is_ended,
                positions,
                np.asarray(values),
                states,
                own.plan,
            )
            is_busy = is_busy & ~is_ended

    def _moved(
        self, number: int, lanes: np.ndarray, is_new: np.ndarray, own: "_Own | None"
    ) -> "_Own":
        """What belongs to the lanes in the slots; only that of new ones is moved."""

        def of(numbers: np.ndarray) -> _Own:
            plan = self._plan.of(numbers)
            if number == 0:
                return _Own(plan, None)
            rows = [self._ended[number] for number in numbers]
            stacked = jax.tree.map(lambda *leaves: np.stack(leaves), *rows)
            return _Own(plan, plan.place(stacked))

        if own is None:
            return of(lanes)
        slots = np.flatnonzero(is_new)
        places, rows = self._per_device(slots, filling=self._width)
        numbers = np.full(len(places), lanes[slots[0]])
        numbers[rows] = lanes[slots]
        moved = of(numbers)
        settings, initial, ended = batch.put_lanes(
            (own.plan.settings, own.plan.initial, own.ended),
            (moved.plan.settings, moved.plan.initial, moved.ended),
            self._plan.place(places),
        )
        return _Own(own.plan._replace(settings=settings, initial=initial), ended)

    def _begin(self, number: int, lanes: np.ndarray, own: "_Own") -> LaneState:
        """States of the lanes in the slots at the beginning of a phase."""
        keys = self._plan.place(self._keys[lanes])
        if number == 0:
            return dead_starts.begin(keys, own.plan)
        before, now = self._plan.phases[number - 1], self._plan.phases[number]
        return batch.next_phase(before.program, now.program, own.ended, keys)

    def _fetched(self, tree: Any, slots: np.ndarray) -> Any:
        """The rows of these slots in the host's memory; no others leave the device."""
        places, rows = self._per_device(slots, filling=0)
        taken = jax.device_get(batch.take_lanes(tree, self._plan.place(places)))
        return jax.tree.map(lambda leaf: leaf[rows], taken)

    def _per_device(
        self, slots: np.ndarray, *, filling: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Slots as places on their devices, as many on each.

        Their number is rounded up to a power of two: few programs serve all numbers.

        Args:
          slots: numbers of slots, in order.
          filling: the place that the others are filled up with.

        Returns:
          The places, device by device, and where among them the slots are.
        """
        homes, places = np.divmod(slots, self._width)
        num_devices = self._num_slots // self._width
        most = np.bincount(homes, minlength=num_devices).max()
        size = min(1 << int(most - 1).bit_length(), self._width)
        padded = np.full((num_devices, size), filling, np.int32)
        rows = np.empty(len(slots), int)
        for home in range(num_devices):
            mine = np.flatnonzero(homes == home)
            padded[home, : len(mine)] = places[mine]
            rows[mine] = home * size + np.arange(len(mine))
        return padded.ravel(), rows


class _Own(NamedTuple):
    """What belongs to the lanes in the slots, on the devices.

    Attributes:
      plan: their plan.
      ended: their states at the end of the phase before; None in the first one.
    """

    plan: Plan
    ended: LaneState | None


def _steps_per_call(phase: Phase) -> int:
    return min(_STEPS_PER_CALL, phase.num_steps)


def _row(tree: Any, row: int) -> Any:
    return jax.tree.map(lambda leaf: leaf[row], tree)
