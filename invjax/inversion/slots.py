"""Lanes that end at different times, in chunks whose slots are filled again.

Where a compiled loop of a fixed width runs lanes with a tolerance, a chunk would last
as long as its slowest lane. Here the slot of a lane that has converged, failed or used
up its steps goes to the next lane that waits, so that a lane costs little more than the
steps that it takes. Every lane has a step counter of its own and reads the pace of the
phase there: its result depends neither on when it began nor on what ran beside it, up
to the rounding that the place in a chunk may bring with it on some devices.

Phases follow each other: all lanes of a block pass the first one before the second
begins.
"""

from collections import deque
from collections.abc import Generator, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from invjax.inversion import batch, dead_starts, lane
from invjax.inversion.lane import LaneState, Phase
from invjax.inversion.loop import CompiledPhase
from invjax.inversion.request import Plan
from invjax.inversion.result import Result
from invjax.types import PRNGKeys

_STEPS_PER_CALL = 25

_WIDTHS_PER_BLOCK = 8
"""Lanes, in widths, that pass a phase together where another phase follows.

Their states are held in memory between the phases.
"""


def stream(
    keys: PRNGKeys, plan: Plan, *, width: int, history_every: int
) -> Generator[tuple[np.ndarray, Result], None, None]:
    """Runs the lanes of a plan with a tolerance.

    Args:
      keys: [l], the lanes' keys.
      plan: the plan of these lanes, on the host.
      width: number of slots of the compiled loop.
      history_every: k of `Result.history`.

    Yields:
      Numbers [n] of lanes that have ended, as they end, and their results, with fields
      [n, ...] in the host's memory.
    """
    num_lanes = len(keys)
    most = num_lanes if len(plan.phases) == 1 else _WIDTHS_PER_BLOCK * width
    for first in range(0, num_lanes, most):
        lanes = np.arange(first, min(first + most, num_lanes))
        block = _Block(keys, plan, width, history_every, lanes)
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
        width: int,
        history_every: int,
        block: np.ndarray,
    ):
        self._keys = keys
        self._plan = plan
        self._width = width
        self._history_every = history_every
        self._block = block
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
            ended = np.flatnonzero(news.is_ended)
            if number < len(plan.phases) - 1:
                for slot in ended:
                    self._ended[news.lanes[slot]] = _row(news.states, slot)
            elif len(ended):
                yield news.lanes[ended], self._results(phase, news, ended)

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
        # Only lanes that have ended leave the device. Their number is rounded up to a
        # power of two: few programs serve all numbers.
        padded = np.resize(ended, min(1 << (len(ended) - 1).bit_length(), self._width))
        rows = jax.device_get(batch.take_lanes(finished, padded))
        result = jax.tree.map(lambda leaf: leaf[: len(ended)], rows)
        history = np.stack([self._history.pop(n) for n in news.lanes[ended]])
        history[:, -1] = result.history
        return result._replace(history=history)

    def _steps(self, number: int) -> Iterator[_News]:
        """Fills the slots and takes steps until every lane has passed the phase."""
        phase = self._plan.phases[number]
        waiting = deque(self._block)
        lanes = np.full(self._width, self._block[0])
        is_busy = np.zeros(self._width, bool)
        states = None
        while waiting or np.any(is_busy):
            is_new = np.zeros(self._width, bool)
            for slot in np.flatnonzero(~is_busy)[: len(waiting)]:
                lanes[slot], is_new[slot] = waiting.popleft(), True
            if np.any(is_new):
                part = self._plan.of(lanes)
                new = self._begin(number, lanes)
                states = (
                    new if states is None else batch.replace_lanes(is_new, new, states)
                )
                is_busy |= is_new
            assert states is not None
            positions = np.asarray(lane.steps_in_phase(states))
            states, values = batch.scan_steps_at_own_pace(
                phase.program,
                part.phi,
                part.shared,
                part.settings,
                states,
                phase.pace,
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
                part,
            )
            is_busy = is_busy & ~is_ended

    def _begin(self, number: int, lanes: np.ndarray) -> LaneState:
        """States of these lanes at the beginning of a phase."""
        if number == 0:
            return dead_starts.begin(self._keys[lanes], self._plan.of(lanes))
        rows = [self._ended[number] for number in lanes]
        states = jax.tree.map(lambda *leaves: jnp.stack(leaves), *rows)
        before, now = self._plan.phases[number - 1], self._plan.phases[number]
        return batch.next_phase(before.program, now.program, states, self._keys[lanes])


def _steps_per_call(phase: Phase) -> int:
    return min(_STEPS_PER_CALL, phase.num_steps)


def _row(tree: Any, slot: np.integer) -> Any:
    return jax.tree.map(lambda leaf: leaf[slot], tree)
