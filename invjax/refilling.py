"""Lanes that end at different times, in chunks whose slots are filled again.

Where a compiled loop of a fixed width runs lanes with a tolerance, a chunk would last
as long as its slowest lane. Here the slot of a lane that has converged, failed or used
up its steps goes to the next lane that waits, so that a lane costs what it takes, but
for the steps to the next look at the slots and, when none waits any more, for the slots
that stay empty. Every lane has a step counter of its own and reads the schedule there:
its result depends neither on when it began nor on what ran beside it, up to the
rounding that the place in a chunk may bring with it on some devices.

Phases follow each other: all lanes pass the first one before the second begins.
"""

from collections import deque
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from invjax import engine, finishing, starting
from invjax.engine import LaneState
from invjax.planning import Plan
from invjax.programs import Phase
from invjax.results import Result
from invjax.types import PRNGKeys

_STEPS_AT_ONCE = 25


def steps_at_once(phase: Phase) -> int:
    """Between two looks at the slots."""
    return min(_STEPS_AT_ONCE, len(phase.schedule))


def run(keys: PRNGKeys, plan: Plan, *, width: int, history_every: int) -> Result:
    """All lanes of a plan with a tolerance; fields have a leading [l].

    Args:
      keys: [l].
      plan: of these lanes.
      width: slots of the compiled loop.
      history_every: k of `Result.history`.
    """
    history = plan.empty_history(history_every)
    reached: list[LaneState | None] = [None] * len(keys)
    results: list[Result | None] = [None] * len(keys)
    done = 0
    for number, phase in enumerate(plan.phases):
        is_last = number == len(plan.phases) - 1
        for news in _run_phase(keys, plan, number, reached, width=width):
            for slot in np.flatnonzero(news.is_busy):
                # Of the values at these steps, those that the history wants.
                steps = done + news.positions[slot] + np.arange(len(news.values))
                wanted = steps % history_every == 0
                wanted &= steps < done + len(phase.schedule)
                row = history[news.lanes[slot]]
                row[steps[wanted] // history_every] = news.values[wanted, slot]
            ended = np.flatnonzero(news.is_ended)
            if is_last and len(ended):
                problems = plan.of(news.lanes).problems
                chunk = jax.device_get(
                    finishing.finish(phase.program, plan.phi, problems, news.states)
                )
            for slot in ended:
                lane = news.lanes[slot]
                if is_last:
                    results[lane] = _row(chunk, slot)
                else:
                    reached[lane] = _row(news.states, slot)
        done += len(phase.schedule)
    result = jax.tree.map(lambda *rows: jnp.asarray(np.stack(rows)), *results)
    history[:, -1] = result.history
    return result._replace(history=jnp.asarray(history))


class _News(NamedTuple):
    """What some steps brought, slot by slot.

    Attributes:
      lanes: [w], the lane in each slot.
      is_busy: [w], whether there is one; other slots repeat a lane and are not read.
      is_ended: [w], whether it has ended with these steps.
      positions: [w], the step of the phase that these began with.
      values: [t, w], of what is minimised.
      states: after these steps.
    """

    lanes: np.ndarray
    is_busy: np.ndarray
    is_ended: np.ndarray
    positions: np.ndarray
    values: np.ndarray
    states: LaneState


def _run_phase(
    keys: PRNGKeys,
    plan: Plan,
    number: int,
    reached: Sequence[LaneState | None],
    *,
    width: int,
) -> Iterator[_News]:
    """Takes every lane through a phase; the news are to be read one by one."""
    phase = plan.phases[number]
    num_steps = len(phase.schedule)
    waiting = deque(range(len(keys)))
    lanes = np.zeros(width, int)
    is_busy = np.zeros(width, bool)
    states = None
    while waiting or np.any(is_busy):
        is_new = np.zeros(width, bool)
        for slot in np.flatnonzero(~is_busy)[: len(waiting)]:
            lanes[slot], is_new[slot] = waiting.popleft(), True
        if np.any(is_new):
            problems = plan.of(lanes).problems
            new = _begin(keys, plan, number, reached, lanes)
            states = (
                new if states is None else engine.replace_lanes(is_new, new, states)
            )
            is_busy |= is_new
        assert states is not None
        positions = np.asarray(engine.steps_in_phase(states))
        states, values = engine.scan_at_own_pace(
            phase.program,
            plan.phi,
            problems,
            states,
            *phase.at(slice(None)),
            num_steps=steps_at_once(phase),
        )
        is_going = np.asarray(engine.is_descending(states))
        is_going = is_going & (np.asarray(engine.steps_in_phase(states)) < num_steps)
        is_ended = is_busy & ~is_going
        yield _News(
            lanes.copy(),
            is_busy.copy(),
            is_ended,
            positions,
            np.asarray(values),
            states,
        )
        is_busy = is_busy & ~is_ended


def _begin(
    keys: PRNGKeys,
    plan: Plan,
    number: int,
    reached: Sequence[LaneState | None],
    lanes: np.ndarray,
) -> LaneState:
    """States of these lanes at the beginning of a phase."""
    if number == 0:
        return starting.begin(keys[lanes], plan.of(lanes))
    rows = [reached[lane] for lane in lanes]
    states = jax.tree.map(lambda *leaves: jnp.stack(leaves), *rows)
    before, now = plan.phases[number - 1], plan.phases[number]
    return engine.proceed(before.program, now.program, states, keys[lanes])


def _row(tree, slot):
    return jax.tree.map(lambda leaf: leaf[slot], tree)
