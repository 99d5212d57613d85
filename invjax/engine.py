"""One lane, the grid of lanes, the loop over steps.

On CPU the compiled program is one step of one lane, called from a host loop: XLA does
not parallelise convolutions inside its loops there, wider programs are no faster, and a
lane has the same bits whatever else is asked for. On GPU and TPU lanes are vmapped in
chunks of a fixed width, and the steps scanned; the width is part of a result's
identity.
"""

import dataclasses
import functools
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from invjax import objective, solvers
from invjax.representations.tracing import Argument
from invjax.types import Image, PRNGKey, PRNGKeys, Scalar

CONVERGED, BUDGET, FAILED = 0, 1, 2
STATUS_WORDS = ("converged", "budget", "failed")
"""Words for `Result.status`, by its value."""

_SCAN_STEPS = 50


class Result(NamedTuple):
    """What became of a lane; `invert_batch` puts a leading [l] on every field.

    Attributes:
      image: [h, w, c] in the representation's range ([0, 1], not clipped): the final
        iterate, or of a failed lane the last one whose energy was finite.
      energy: of `image`: data term + weighted regularisers, the CVPR 2015 form.
      objective: what the solver minimised, at `image`; here the energy.
      terms: the energy's summands (data, alpha, tv), weights included.
      status: int32; see `STATUS_WORDS`.
      num_steps: steps taken before the lane ended or failed.
      best_image, best_energy: the iterate of lowest energy.
      history: energy at steps 0, k, 2k, ... and of the final image; NaN after a
        failure.
    """

    image: Image
    energy: Scalar
    objective: Scalar
    terms: objective.Terms
    status: Int[Array, ""]
    num_steps: Int[Array, ""]
    best_image: Image
    best_energy: Scalar
    history: Float[Array, " t"]


@dataclasses.dataclass(frozen=True)
class Execution:
    """How lanes are run. The mathematics does not depend on it, rounding does.

    Attributes:
      width: lanes per compiled call; shorter chunks are padded to it.
      scan: whether the loop over steps is compiled, or runs on the host.
    """

    width: int = 1
    scan: bool = False


def default_execution() -> Execution:
    """One lane and a host loop on CPU; on other backends 16 lanes and a scan."""
    if jax.default_backend() == "cpu":
        return Execution()
    return Execution(width=16, scan=True)


class _LaneState(NamedTuple):
    """Carry of the loop. `last` is the newest iterate whose energy was finite."""

    solver: Any
    last: Image
    best: Image
    best_energy: Scalar
    is_alive: Bool[Array, ""]
    num_steps: Int[Array, ""]


@dataclasses.dataclass(frozen=True)
class Program:
    """The static part of a lane's computation."""

    solver: solvers.Solver
    image_shape: tuple[int, int, int]
    exponents: objective.Exponents = objective.Exponents()  # noqa: RUF009

    def energy(
        self, z: Image, phi: Argument, problem: objective.Problem
    ) -> tuple[Scalar, objective.Terms]:
        return objective.energy(z, phi, problem, exponents=self.exponents)


def run_chunk(
    program: Program,
    phi: Argument,
    problems: objective.Problem,
    keys: PRNGKeys,
    *,
    start_norm: Scalar,
    schedule: Float[np.ndarray, " t"],
    history_every: int,
    scan: bool,
) -> Result:
    """All steps of a chunk of lanes.

    Args:
      program: the static part.
      phi: the representation.
      problems: fields with a lane axis as in `LANE_AXES`.
      keys: [l], of the starts.
      start_norm: Euclidean norm of each start, grey levels.
      schedule: share of the learning rate at each step.
      history_every: k of `Result.history`.
      scan: whether the loop over steps is compiled.
    """
    states = start(program, keys, start_norm)
    history = []
    if scan:
        for first in range(0, len(schedule), _SCAN_STEPS):
            shares = schedule[first : first + _SCAN_STEPS]
            states, energies = _scan(program, phi, problems, states, shares)
            history.append(energies)
        history = list(np.concatenate([np.asarray(part) for part in history]))
        history = history[::history_every]
    else:
        for number, share in enumerate(schedule):
            states, energies = step(program, phi, problems, states, share)
            if number % history_every == 0:
                # Waiting here also lets an interrupt through.
                history.append(np.asarray(energies))
    result = _finish(program, phi, problems, states)
    history.append(np.asarray(result.history))
    return result._replace(history=np.stack(history, axis=1))


LANE_AXES: Any = cast(Any, objective.Problem)(
    target=0, mask=None, tv_weight=0, alpha_weight=0, centre=None, learning_rate=0
)
"""Which axis of a `Problem` counts lanes."""


@functools.partial(jax.jit, static_argnames="program")
def start(program: Program, keys: PRNGKeys, start_norm: Scalar) -> _LaneState:
    """States of lanes at Gaussian noise of Euclidean norm `start_norm`."""

    def lane(key: PRNGKey) -> _LaneState:
        noise = jax.random.normal(key, program.image_shape)
        z = noise * (start_norm / jnp.linalg.norm(noise))
        return _LaneState(
            solver=program.solver.init(z),
            last=z,
            best=z,
            # Types as after a step, or the second step would be compiled anew.
            best_energy=jnp.asarray(jnp.inf, jnp.float32),
            is_alive=jnp.asarray(True),
            num_steps=jnp.asarray(0, jnp.int32),
        )

    return jax.vmap(lane)(keys)


def _step_lanes(
    program: Program,
    phi: Argument,
    problems: objective.Problem,
    states: _LaneState,
    share: Scalar,
) -> tuple[_LaneState, Float[Array, " l"]]:
    """One step of every lane, and the energies it started from."""

    def lane(
        problem: objective.Problem, state: _LaneState
    ) -> tuple[_LaneState, Scalar]:
        z = program.solver.variable(state.solver, program.image_shape)
        (energy, _), gradient = jax.value_and_grad(program.energy, has_aux=True)(
            z, phi, problem
        )
        is_finite = jnp.isfinite(energy) & jnp.all(jnp.isfinite(gradient))
        is_alive = state.is_alive & is_finite
        is_best = is_alive & (energy < state.best_energy)
        rate = problem.learning_rate * share
        updated = program.solver.update(gradient, state.solver, rate)
        state = _LaneState(
            solver=_select(is_alive, updated, state.solver),
            last=jnp.where(is_alive, z, state.last),
            best=jnp.where(is_best, z, state.best),
            best_energy=jnp.where(is_best, energy, state.best_energy),
            is_alive=is_alive,
            num_steps=state.num_steps + is_alive,
        )
        return state, jnp.where(is_alive, energy, jnp.nan)

    return jax.vmap(lane, in_axes=(LANE_AXES, 0))(problems, states)


step = functools.partial(jax.jit, static_argnames="program", donate_argnames="states")(
    _step_lanes
)


@functools.partial(jax.jit, static_argnames="program", donate_argnames="states")
def _scan(
    program: Program,
    phi: Argument,
    problems: objective.Problem,
    states: _LaneState,
    shares: Float[Array, " t"],
) -> tuple[_LaneState, Float[Array, "t l"]]:
    return jax.lax.scan(
        lambda states, share: _step_lanes(program, phi, problems, states, share),
        states,
        shares,
    )


@functools.partial(jax.jit, static_argnames="program")
def _finish(
    program: Program, phi: Argument, problems: objective.Problem, states: _LaneState
) -> Result:
    """Results with the final energy as their history."""

    def lane(problem: objective.Problem, state: _LaneState) -> Result:
        z = program.solver.variable(state.solver, program.image_shape)
        energy, _ = program.energy(z, phi, problem)
        is_alive = state.is_alive & jnp.isfinite(energy)
        z = jnp.where(is_alive, z, state.last)
        final, terms = program.energy(z, phi, problem)
        is_best = is_alive & (final < state.best_energy)
        best = jnp.where(is_best, z, state.best)
        return Result(
            image=objective.to_image(z, problem.centre),
            energy=final,
            objective=final,
            terms=terms,
            status=jnp.where(is_alive, BUDGET, FAILED).astype(jnp.int32),
            num_steps=state.num_steps,
            best_image=objective.to_image(best, problem.centre),
            best_energy=jnp.where(is_best, final, state.best_energy),
            history=jnp.where(is_alive, final, jnp.nan),
        )

    return jax.vmap(lane, in_axes=(LANE_AXES, 0))(problems, states)


def _select(condition: Bool[Array, ""], new: Any, old: Any) -> Any:
    return jax.tree.map(lambda a, b: jnp.where(condition, a, b), new, old)
