"""Lanes in chunks, through phases and steps: the loop around the compiled programs."""

import jax
import jax.numpy as jnp
import numpy as np

from invjax import engine, refilling, starting
from invjax.engine import Execution, Result
from invjax.planning import Plan
from invjax.types import PRNGKeys

SCAN_STEPS = 50

_STEPS_BETWEEN_LOOKS = 5
"""At a lane's end; every look waits for the step, and the others do not."""


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
