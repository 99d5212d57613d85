"""What is reported of lanes that have taken their steps."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from invjax import engine, objective
from invjax.engine import LaneState
from invjax.programs import Program
from invjax.representations.tracing import Argument
from invjax.results import BUDGET, CONVERGED, FAILED, Result
from invjax.types import Image


def finish(
    program: Program, phi: Argument, problems: objective.Problem, states: LaneState
) -> Result:
    """Results with the final objective as their history.

    A lane whose last step took it to where its energy is not finite has failed, too.
    """
    reached = engine.images(program, states)
    result = _finish(program, phi, problems, states, reached)
    has_failed = np.asarray(states.is_alive) & ~np.isfinite(result.energy)
    if np.any(has_failed):
        states = states._replace(is_alive=states.is_alive & ~has_failed)
        result = _finish(program, phi, problems, states, reached)
    return result


@functools.partial(engine.once, static_argnames="program")
def _finish(
    program: Program,
    phi: Argument,
    problems: objective.Problem,
    states: LaneState,
    reached: Float[Array, "l h w c"],
) -> Result:
    """`finish` for lanes that are all as alive as they say."""

    def lane(problem: objective.Problem, state: LaneState, z: Image) -> Result:
        is_alive = state.is_alive
        z = jnp.where(is_alive, z, state.last)
        final, terms = program.energy(z, phi, problem)
        minimised, lowest = final, state.best_objective
        if program.form != "cvpr2015":
            minimised, _ = program.minimised(z, phi, problem)
        if not program.minimises_energy:
            lowest, _ = program.energy(state.best, phi, problem)
        is_best = is_alive & (final < lowest)
        best = jnp.where(is_best, z, state.best)
        ending = jnp.where(engine.is_descending(state), BUDGET, CONVERGED)
        return Result(
            image=objective.to_image(z, problem.centre),
            energy=final,
            objective=minimised,
            terms=terms,
            status=jnp.where(is_alive, ending, FAILED).astype(jnp.int32),
            num_steps=state.num_steps,
            best_image=objective.to_image(best, problem.centre),
            best_energy=jnp.where(is_best, final, lowest),
            history=jnp.where(is_alive, minimised, jnp.nan),
            dead_start=state.dead_start,
            num_revivals=state.num_revivals,
        )

    return jax.vmap(lane, in_axes=(engine.LANE_AXES, 0, 0))(problems, states, reached)
