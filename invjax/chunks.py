"""Lanes in chunks, through phases and steps: the loop around the compiled programs.

Chunks run side by side in host threads, as many as `Execution.num_threads`. What JAX is
configured to do within a `with` block, such as a matmul precision, holds in the thread
of that block alone: everything that computes with a representation is therefore
compiled or called by the thread that asked for the run, and the others only repeat
compiled steps.
"""

import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from invjax import engine, finishing, refilling, starting
from invjax.engine import Execution, LaneState
from invjax.planning import Plan
from invjax.programs import Phase
from invjax.results import Result
from invjax.types import PRNGKeys

SCAN_STEPS = 50

_STEPS_BETWEEN_LOOKS = 5
"""At a lane's end; every look waits for the step, and the others do not."""


class Steps(NamedTuple):
    """The compiled steps of a chunk's first phase, for those who measure them.

    Attributes:
      call: (phi, problems, states, *pace) -> (states, values); takes the states over.
      pace: of the first steps.
      num_steps: that a call takes.
    """

    call: jax.stages.Compiled
    pace: tuple[Any, ...]
    num_steps: int


def compile_steps(plan: Plan, states: LaneState, *, scan: bool) -> Steps:
    """What `run` will call for such a chunk; it is not compiled again then.

    Args:
      plan: of the chunk's lanes.
      states: at their beginning.
      scan: whether the loop over steps is compiled.
    """
    phase = plan.phases[0]
    if not scan or plan.problems.tolerance is None:
        num_steps = min(_steps_at_once(scan), len(phase.schedule))
        call = _compile(phase, plan, states, num_steps, scan=scan)
        return Steps(call, _pace(phase, 0, scan=scan), num_steps)
    pace = phase.at(slice(None))
    num_steps = refilling.steps_at_once(phase)
    lowered = engine.scan_at_own_pace.lower(
        phase.program, plan.phi, plan.problems, states, *pace, num_steps=num_steps
    )
    return Steps(lowered.compile(), pace, num_steps)


def num_bytes(compiled: jax.stages.Compiled) -> int:
    """On the device while it runs: arguments, temporaries, results; shared ones once.

    0 where the backend does not say.
    """
    memory = compiled.memory_analysis()
    if memory is None:
        return 0
    return (
        memory.argument_size_in_bytes
        + memory.temp_size_in_bytes
        + memory.output_size_in_bytes
        - memory.alias_size_in_bytes
    )


def run(
    keys: PRNGKeys, plan: Plan, *, execution: Execution, history_every: int
) -> Result:
    """All lanes of a plan, chunk by chunk; fields have a leading [l].

    Args:
      keys: [l].
      plan: of these lanes.
      execution: the chunks' width, and how they are run.
      history_every: k of `Result.history`.
    """
    if execution.scan and plan.problems.tolerance is not None:
        return refilling.run(
            keys, plan, width=execution.width, history_every=history_every
        )
    running: deque[tuple[int, Plan, Future[_Descent]]] = deque()
    results = []

    def end_oldest() -> None:
        num_kept, part, descent = running.popleft()
        # Waiting here also lets an interrupt through.
        result = _finish(part, descent.result())
        results.append(jax.tree.map(lambda leaf: np.asarray(leaf)[:num_kept], result))

    is_over = threading.Event()
    with ThreadPoolExecutor(execution.num_threads) as pool:
        try:
            for first in range(0, len(keys), execution.width):
                if len(running) == execution.num_threads:
                    end_oldest()
                # The last chunk is filled up with copies of its first lane.
                numbers = np.arange(first, first + execution.width)
                lanes = np.where(numbers < len(keys), numbers, first)
                part = plan.of(lanes)
                states = starting.begin(keys[lanes], part)
                calls = _compile_phases(keys[lanes], part, states, scan=execution.scan)
                descent = pool.submit(
                    _descend,
                    keys[lanes],
                    part,
                    calls,
                    states,
                    history_every=history_every,
                    scan=execution.scan,
                    is_over=is_over,
                )
                running.append((len(keys) - first, part, descent))
            while running:
                end_oldest()
        finally:
            # After an interrupt the other threads stop at their next step.
            is_over.set()
    return jax.tree.map(lambda *leaves: jnp.asarray(np.concatenate(leaves)), *results)


_Calls = dict[int, Callable[..., tuple[LaneState, Any]]]
"""The compiled steps of a phase, by how many a call takes; as `Steps.call`."""


class _Descent(NamedTuple):
    """Where a chunk of lanes ended, and the history but for its last column."""

    states: LaneState
    history: np.ndarray


def _steps_at_once(scan: bool) -> int:
    return SCAN_STEPS if scan else 1


def _pace(phase: Phase, first: int, *, scan: bool) -> tuple[Any, Any]:
    return phase.at(slice(first, first + SCAN_STEPS) if scan else first)


def _compile(
    phase: Phase, plan: Plan, states: LaneState, num_steps: int, *, scan: bool
) -> jax.stages.Compiled:
    step = engine.scan_steps if scan else engine.step
    pace = _pace(phase, len(phase.schedule) - num_steps, scan=scan)
    return step.lower(phase.program, plan.phi, plan.problems, states, *pace).compile()


def _compile_phases(
    keys: PRNGKeys, plan: Plan, states: LaneState, *, scan: bool
) -> list[_Calls]:
    """The steps of all phases; JAX keeps those of former chunks."""
    phases: list[_Calls] = []
    for number, phase in enumerate(plan.phases):
        if number > 0:
            before = plan.phases[number - 1].program
            states = engine.proceed.eval_shape(before, phase.program, states, keys)
        whole, rest = divmod(len(phase.schedule), _steps_at_once(scan))
        sizes = [_steps_at_once(scan)] * (whole > 0) + [rest] * (rest > 0)
        phases.append(
            {size: _compile(phase, plan, states, size, scan=scan) for size in sizes}
        )
    return phases


def _descend(
    keys: PRNGKeys,
    plan: Plan,
    calls: list[_Calls],
    states: LaneState,
    *,
    history_every: int,
    scan: bool,
    is_over: threading.Event,
) -> _Descent:
    """All steps of a chunk of lanes; a phase ends early where all of them converge.

    Args:
      keys: [l].
      plan: of these lanes.
      calls: for each phase.
      states: at their beginning.
      history_every: k of `Result.history`.
      scan: whether the loop over steps is compiled.
      is_over: tells that nobody waits for this any more.
    """
    phases, phi, problems = plan.phases, plan.phi, plan.problems
    is_watched = problems.tolerance is not None
    history = plan.empty_history(history_every)
    done = 0
    for number, phase in enumerate(phases):
        num_steps = len(phase.schedule)
        if number > 0:
            before = phases[number - 1].program
            states = engine.proceed(before, phase.program, states, keys)
        at_once = _steps_at_once(scan)
        for first in range(0, num_steps, at_once):
            is_look = is_watched and (scan or first % _STEPS_BETWEEN_LOOKS == 0)
            if is_over.is_set() or (
                is_look and not np.any(engine.is_descending(states))
            ):
                break
            call = calls[number][min(at_once, num_steps - first)]
            pace = _pace(phase, first, scan=scan)
            states, values = call(phi, problems, states, *pace)
            skipped = -(done + first) % history_every
            if skipped < at_once:
                # Reading waits for the steps, so the queue of the device stays short.
                rows = np.asarray(values).reshape(-1, len(history))
                rows = rows[skipped::history_every]
                column = (done + first + skipped) // history_every
                history[:, column : column + len(rows)] = rows.T
        done += num_steps
    return _Descent(jax.block_until_ready(states), history)


def _finish(plan: Plan, descent: _Descent) -> Result:
    program = plan.phases[-1].program
    result = finishing.finish(program, plan.phi, plan.problems, descent.states)
    descent.history[:, -1] = np.asarray(result.history)
    return result._replace(history=jnp.asarray(descent.history))
