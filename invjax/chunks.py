"""Lanes in chunks, through phases and steps: the loop around the compiled programs."""

import jax
import jax.numpy as jnp
import numpy as np

from invjax import engine
from invjax.engine import Execution, Result
from invjax.planning import Plan
from invjax.types import PRNGKeys

_SCAN_STEPS = 50


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
    results = []
    for first in range(0, len(keys), execution.width):
        # The last chunk is filled up with copies of its first lane.
        numbers = np.arange(first, first + execution.width)
        lanes = np.where(numbers < len(keys), numbers, first)
        chunk = run_chunk(
            keys[lanes],
            take(plan, lanes),
            history_every=history_every,
            scan=execution.scan,
        )
        kept = len(keys) - first
        results.append(jax.tree.map(lambda leaf, n=kept: np.asarray(leaf)[:n], chunk))
    return jax.tree.map(lambda *leaves: jnp.asarray(np.concatenate(leaves)), *results)


def run_chunk(keys: PRNGKeys, plan: Plan, *, history_every: int, scan: bool) -> Result:
    """All steps of a chunk of lanes.

    Args:
      keys: [l].
      plan: of these lanes.
      history_every: k of `Result.history`.
      scan: whether the loop over steps is compiled.
    """
    phases, phi, problems = plan.phases, plan.phi, plan.problems
    states = engine.start(phases[0].program, keys, plan.start_scale, plan.initial)
    # Numbers that steps return; waiting for them also lets an interrupt through.
    history: list[np.ndarray] = []
    done = 0
    for number, phase in enumerate(phases):
        program, num_steps = phase.program, len(phase.schedule)
        if number > 0:
            states = engine.proceed(phases[number - 1].program, program, states, keys)
        if scan:
            for first in range(0, num_steps, _SCAN_STEPS):
                pace = phase.at(slice(first, first + _SCAN_STEPS))
                states, values = engine.scan_steps(
                    program, phi, problems, states, *pace
                )
                skipped = -(done + first) % history_every
                history += list(np.asarray(values)[skipped::history_every])
        else:
            for count in range(num_steps):
                pace = phase.at(count)
                states, values = engine.step(program, phi, problems, states, *pace)
                if (done + count) % history_every == 0:
                    history.append(np.asarray(values))
        done += num_steps
    result = engine.finish(phases[-1].program, phi, problems, states)
    history.append(np.asarray(result.history))
    return result._replace(history=np.stack(history, axis=1))


def take(plan: Plan, lanes: np.ndarray) -> Plan:
    """The plan of some of its lanes."""
    axes = engine.LANE_AXES._asdict()
    counted = {name for name, axis in axes.items() if axis is not None}
    parts = {name: getattr(plan.problems, name) for name in counted}
    problems = plan.problems._replace(**jax.tree.map(lambda leaf: leaf[lanes], parts))
    initial = None if plan.initial is None else plan.initial[lanes]
    return plan._replace(problems=problems, initial=initial)
