"""Lanes in chunks, through phases and steps: the loop around the compiled programs."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from invjax import engine, refilling, starting
from invjax.engine import Execution, LaneState
from invjax.planning import Plan
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
    inputs = (phase.program, plan.phi, plan.problems, states)
    if not scan:
        pace = phase.at(0)
        return Steps(engine.step.lower(*inputs, *pace).compile(), pace, 1)
    if plan.problems.tolerance is None:
        pace = phase.at(slice(SCAN_STEPS))
        compiled = engine.scan_steps.lower(*inputs, *pace).compile()
        return Steps(compiled, pace, len(pace[0]))
    pace = phase.at(slice(None))
    num_steps = refilling.steps_at_once(phase)
    lowered = engine.scan_at_own_pace.lower(*inputs, *pace, num_steps=num_steps)
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
    results = []
    for first in range(0, len(keys), execution.width):
        # The last chunk is filled up with copies of its first lane.
        numbers = np.arange(first, first + execution.width)
        lanes = np.where(numbers < len(keys), numbers, first)
        chunk = run_chunk(
            keys[lanes],
            plan.of(lanes),
            history_every=history_every,
            scan=execution.scan,
        )
        kept = len(keys) - first
        results.append(jax.tree.map(lambda leaf, n=kept: np.asarray(leaf)[:n], chunk))
    return jax.tree.map(lambda *leaves: jnp.asarray(np.concatenate(leaves)), *results)


def run_chunk(keys: PRNGKeys, plan: Plan, *, history_every: int, scan: bool) -> Result:
    """All steps of a chunk of lanes; a phase ends early where all of them converge.

    Args:
      keys: [l].
      plan: of these lanes.
      history_every: k of `Result.history`.
      scan: whether the loop over steps is compiled.
    """
    phases, phi, problems = plan.phases, plan.phi, plan.problems
    is_watched = problems.tolerance is not None
    states = starting.begin(keys, plan)
    # Numbers that steps return; waiting for them also lets an interrupt through.
    history = plan.empty_history(history_every)
    done = 0
    for number, phase in enumerate(phases):
        program, num_steps = phase.program, len(phase.schedule)
        if number > 0:
            states = engine.proceed(phases[number - 1].program, program, states, keys)
        at_once = SCAN_STEPS if scan else 1
        for first in range(0, num_steps, at_once):
            is_look = is_watched and (scan or first % _STEPS_BETWEEN_LOOKS == 0)
            if is_look and not np.any(engine.is_descending(states)):
                break
            step = done + first
            if scan:
                pace = phase.at(slice(first, first + SCAN_STEPS))
                states, values = engine.scan_steps(
                    program, phi, problems, states, *pace
                )
                skipped = -step % history_every
                rows = np.asarray(values)[skipped::history_every]
                column = (step + skipped) // history_every
                history[:, column : column + len(rows)] = rows.T
            else:
                pace = phase.at(first)
                states, values = engine.step(program, phi, problems, states, *pace)
                if step % history_every == 0:
                    history[:, step // history_every] = np.asarray(values)
        done += num_steps
    result = engine.finish(phases[-1].program, phi, problems, states)
    history[:, -1] = np.asarray(result.history)
    return result._replace(history=history)
