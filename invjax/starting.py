"""Where lanes begin, and what is done about starts that no gradient leaves.

Noise can switch off every ReLU between the image and the features asked for. The data
term's gradient is exactly zero then, and the descent only follows the regularisers.
Every start is tried once with the exact derivative; what happens next is the caller's
choice, since each way out changes what the starts are a sample of:

- None: the lane runs, and `Result.dead_start` says so.
- "restart": noise is drawn anew, up to `MOST_RESTARTS` times. Starts are then noise on
  condition that it is alive, and no longer noise alone.
- "leaky": up to `MOST_RELAXED_STEPS` steps at the full rate follow the relaxed
  derivative (see `relaxation`), before the descent and beside its count, until the
  exact gradient is alive; the descent begins at that image. Starts are then pulled
  towards the target by a network that is not the one asked for.

A preset that relaxes, `fast`, leaves most dead starts by itself while its relaxation
falls to zero: `dead_start` still tells of them, as it looks at the exact derivative.
"""

import jax
import jax.numpy as jnp
import numpy as np

from invjax import engine
from invjax.engine import LaneState
from invjax.planning import Plan
from invjax.types import PRNGKeys

MOST_RESTARTS = 32

MOST_RELAXED_STEPS = 100


def begin(keys: PRNGKeys, plan: Plan) -> LaneState:
    """States of lanes before their first step.

    Args:
      keys: [l].
      plan: of these lanes.
    """
    program = plan.phases[0].program
    states = start(keys, plan)
    are_dead = engine.are_dead(program, plan.phi, plan.problems, states.last)
    if plan.dead_relu == "restart":
        return _redraw(keys, plan, states, are_dead)
    if plan.dead_relu == "leaky":
        return _revive(keys, plan, states, are_dead)
    return states._replace(dead_start=are_dead)


def start(
    keys: PRNGKeys,
    plan: Plan,
    *,
    initial: jax.Array | None = None,
    attempt: jax.Array | None = None,
) -> LaneState:
    """States of lanes at noise or at given images, dead or not.

    Args:
      keys: [l].
      plan: of these lanes.
      initial: [l, h, w, c] in place of the plan's.
      attempt: as in `engine.start`.
    """
    return engine.start(
        plan.phases[0].program,
        keys,
        plan.start_scale,
        plan.initial if initial is None else initial,
        attempt=attempt,
        is_watched=plan.problems.tolerance is not None,
    )


def _redraw(
    keys: PRNGKeys, plan: Plan, states: LaneState, are_dead: jax.Array
) -> LaneState:
    program = plan.phases[0].program
    num_restarts = jnp.zeros(len(keys), jnp.int32)
    for attempt in range(1, MOST_RESTARTS + 1):
        if not np.any(are_dead):
            break
        again = start(keys, plan, attempt=jnp.asarray(attempt, jnp.int32))
        states = engine.replace_lanes(are_dead, again, states)
        num_restarts = num_restarts + are_dead
        are_dead = engine.are_dead(program, plan.phi, plan.problems, states.last)
    return states._replace(dead_start=are_dead, num_revivals=num_restarts)


def _revive(
    keys: PRNGKeys, plan: Plan, states: LaneState, are_dead: jax.Array
) -> LaneState:
    program, (share, _) = plan.phases[0].program, plan.phases[0].at(0)
    begun, moved = states, states
    num_steps = jnp.zeros(len(keys), jnp.int32)
    for _ in range(MOST_RELAXED_STEPS):
        if not np.any(are_dead):
            break
        # A step takes its argument over.
        copied = jax.tree.map(jnp.copy, moved)
        stepped, _ = engine.step(
            program, plan.phi, plan.problems, copied, share, np.float32(1.0)
        )
        moved = engine.replace_lanes(are_dead, stepped, moved)
        num_steps = num_steps + are_dead
        there = engine.images(program, moved)
        are_dead = are_dead & engine.are_dead(program, plan.phi, plan.problems, there)
    if np.any(num_steps):
        anew = start(keys, plan, initial=engine.images(program, moved))
        begun = engine.replace_lanes(num_steps > 0, anew, begun)
    return begun._replace(dead_start=are_dead, num_revivals=num_steps)
