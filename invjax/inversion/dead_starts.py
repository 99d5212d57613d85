"""Dead starts: noise that no gradient leaves, and the two ways out of it.

Noise can switch off every ReLU between the image and the features that count. The data
term's gradient is then exactly zero, and the descent only follows the regularisers.
Every start is tested once with the exact derivative. What happens next is the caller's
choice, since each way out changes the distribution of the starts:

- None: the lane runs, and `Result.dead_start` is True.
- "restart": noise is drawn anew, up to `MOST_RESTARTS` times. Starts are then noise on
  condition that it is not dead.
- "leaky": up to `MOST_RELAXED_STEPS` additional steps at the full learning rate follow
  the relaxed derivative (see `networks.relaxation`) until the exact gradient is no
  longer zero; the descent then begins at that image. Starts are pulled towards the
  target by a network that is not the one asked for.

The preset `fast` relaxes derivatives anyway and leaves most dead starts by itself;
`dead_start` is True for them all the same, since it is about the exact derivative.
"""

import jax
import jax.numpy as jnp
import numpy as np

from invjax.inversion import batch
from invjax.inversion.lane import LaneState, Pace
from invjax.inversion.request import Plan
from invjax.types import PRNGKeys

MOST_RESTARTS = 32
"""Number of times that "restart" draws noise anew."""

MOST_RELAXED_STEPS = 100
"""Number of steps that "leaky" takes."""


def begin(keys: PRNGKeys, plan: Plan) -> LaneState:
    """States of lanes before their first step, led out of dead starts if asked for.

    Args:
      keys: [l], the lanes' keys.
      plan: the plan of these lanes, on the device (`Plan.of`).
    """
    states = start(keys, plan)
    are_dead = _are_dead(plan, states.last)
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
      keys: [l], the lanes' keys.
      plan: the plan of these lanes, on the device (`Plan.of`).
      initial: [l, h, w, c], images to start from in place of the plan's.
      attempt: number of another noise of the same lanes.
    """
    return batch.start(
        plan.phases[0].program,
        keys,
        plan.start_scale,
        initial=plan.initial if initial is None else initial,
        attempt=attempt,
        has_tolerance=plan.has_tolerance,
    )


def _are_dead(plan: Plan, images: jax.Array) -> jax.Array:
    program = plan.phases[0].program
    return batch.are_dead(program, plan.phi, plan.shared, plan.settings, images)


def _redraw(
    keys: PRNGKeys, plan: Plan, states: LaneState, are_dead: jax.Array
) -> LaneState:
    num_restarts = jnp.zeros_like(are_dead, jnp.int32)
    for attempt in range(1, MOST_RESTARTS + 1):
        if not np.any(are_dead):
            break
        again = start(keys, plan, attempt=jnp.asarray(attempt, jnp.int32))
        states = batch.replace_lanes(are_dead, again, states)
        num_restarts = num_restarts + are_dead.astype(jnp.int32)
        are_dead = _are_dead(plan, states.last)
    return states._replace(dead_start=are_dead, num_revivals=num_restarts)


def _revive(
    keys: PRNGKeys, plan: Plan, states: LaneState, are_dead: jax.Array
) -> LaneState:
    program, paces = plan.phases[0]
    strengths = paces.view_strength
    pace = Pace(
        paces.rate_scale[0],
        np.float32(1.0),
        None if strengths is None else strengths[0],
    )
    begun, moved = states, states
    num_steps = jnp.zeros_like(are_dead, jnp.int32)
    for _ in range(MOST_RELAXED_STEPS):
        if not np.any(are_dead):
            break
        # A step takes the memory of its states over.
        copied = jax.tree.map(jnp.copy, moved)
        stepped, _ = batch.step(
            program, plan.phi, plan.shared, plan.settings, copied, pace
        )
        moved = batch.replace_lanes(are_dead, stepped, moved)
        num_steps = num_steps + are_dead.astype(jnp.int32)
        are_dead = are_dead & _are_dead(plan, batch.images(program, moved))
    if np.any(num_steps):
        anew = start(keys, plan, initial=batch.images(program, moved))
        begun = batch.replace_lanes(num_steps > 0, anew, begun)
    return begun._replace(dead_start=are_dead, num_revivals=num_steps)
