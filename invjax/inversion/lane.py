"""One lane: its state, its start, one step, the change of phase, its result.

A lane is one batch element: a code, a start and a set of weights. A descent is a
sequence of phases, each a program and the pace at which its steps are taken; where a
phase ends, the solver of the next one starts anew from the image found so far. The
functions here treat a single lane; `batch` vmaps and jits them.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from invjax.callables import TracedCallable
from invjax.inversion import canvas, objective, regularisers, views
from invjax.inversion.canvas import Canvas
from invjax.inversion.objective import Exponents, PerLane, Shared, Terms
from invjax.inversion.result import BUDGET, CONVERGED, FAILED, Result
from invjax.inversion.solvers import Solver
from invjax.inversion.views import Views
from invjax.types import DataTerm, Image, PRNGKey, Scalar

PATIENCE = 25
"""Number of steps without progress after which a lane has converged."""


@dataclasses.dataclass(frozen=True)
class Program:
    """The static part of a lane's computation: equal programs are compiled once.

    Attributes:
      solver: the solver with its static choices.
      image_shape: [h, w, c] of the image that the representation is applied to.
      form: the paper whose objective is minimised.
      exponents: exponents of the regularisers in the objective.
      data_term: how far a code is from the target.
      jitter: number of places of the image along each axis of its canvas; 1 is none.
      start: distribution of the noise that a lane starts from; see `start`.
      views: how the views are drawn that the representation is given in place of the
        image; None for the image itself, or its crop by `jitter`.
    """

    solver: Solver
    image_shape: tuple[int, int, int]
    form: Literal["cvpr2015", "ijcv2016"] = "cvpr2015"
    exponents: Exponents = Exponents()  # noqa: RUF009
    data_term: DataTerm = objective.squared_error
    jitter: int = 1
    start: Literal["gaussian", "uniform"] = "gaussian"
    views: Views | None = None

    @property
    def canvas_shape(self) -> tuple[int, int, int]:
        """[h, w, c] of the variable of the descent, margins for jitter included."""
        if self.views is not None:
            return self.views.canvas_shape(self.image_shape)
        return canvas.canvas_shape(self.image_shape, jitter=self.jitter)

    @property
    def is_random(self) -> bool:
        """Whether each step draws what the representation is given."""
        return self.views is not None or self.jitter > 1

    def objective_is_energy(self, per_lane: PerLane) -> bool:
        """Whether the objective at an image itself, not at a view, is its energy."""
        return self.form == "cvpr2015" and per_lane.chroma_weight is None

    def minimises_energy(self, per_lane: PerLane) -> bool:
        """Whether the objective of a step is the energy of its image."""
        return self.objective_is_energy(per_lane) and not self.is_random

    def objective_at(
        self,
        z: Canvas,
        phi: TracedCallable,
        shared: Shared,
        per_lane: PerLane,
        *,
        crops: Sequence[Image] = (),
    ) -> tuple[Scalar, Terms]:
        """What the descent minimises, at a canvas z of which phi is given `crops`."""
        form = objective.energy if self.form == "cvpr2015" else objective.ijcv_energy
        return form(
            z,
            phi,
            shared,
            per_lane,
            exponents=self.exponents,
            data_term=self.data_term,
            crops=crops,
        )

    def energy_at(
        self, z: Image, phi: TracedCallable, shared: Shared, per_lane: PerLane
    ) -> tuple[Scalar, Terms]:
        """`Result.energy`: the CVPR form, in which colours count as brightness does.

        Under ijcv2016 it has alpha 6 and beta 2.
        """
        per_lane = per_lane._replace(chroma_weight=None)
        if self.form == "cvpr2015":
            return self.objective_at(z, phi, shared, per_lane)
        return objective.energy(z, phi, shared, per_lane, data_term=self.data_term)


class Pace(NamedTuple):
    """What changes from step to step: arrays [t] of a phase, or scalars of one step.

    Attributes:
      rate_scale: factor of the learning rate.
      relaxation: how far the representation's derivative is relaxed, 0 (exact) to 1;
        None where it is exact throughout. See `networks.relaxation`.
      view_strength: factor of the amplitudes of views, 0 (the image itself) to 1; None
        where the program has no views.
    """

    rate_scale: Any
    relaxation: Any = None
    view_strength: Any = None


class Phase(NamedTuple):
    """A part of a descent that one program carries out."""

    program: Program
    pace: Pace

    @property
    def num_steps(self) -> int:
        """Number of steps of the phase."""
        return len(self.pace.rate_scale)


class LaneSettings(NamedTuple):
    """Every traced number that belongs to one lane; a batch has a leading axis [l].

    Attributes:
      problem: target and weights, which define the energy.
      learning_rate: largest step size, in the solver's units.
      range_bound: largest norm of a pixel's colour vector of z, in grey levels, imposed
        after every step; None for no bound.
      tolerance: relative decrease below which a lane converges, see `Result.status`;
        None where a lane always takes all its steps.
    """

    problem: PerLane
    learning_rate: Scalar
    range_bound: Scalar | None = None
    tolerance: Scalar | None = None


class Progress(NamedTuple):
    """How far a lane has come in a phase, for the test of convergence.

    Attributes:
      first: the lane's `num_steps` when the phase began.
      lowest: lowest value of the objective in this phase.
      reference: `lowest` when it had last decreased by the tolerance.
      num_stalled: number of steps since then.
    """

    first: Int[Array, "*l"]
    lowest: Float[Array, "*l"]
    reference: Float[Array, "*l"]
    num_stalled: Int[Array, "*l"]


class LaneState(NamedTuple):
    """What a lane carries from step to step.

    Attributes:
      solver: state of the solver.
      last: [h, w, c], the newest iterate whose objective was finite, without margins.
      best: [h, w, c], the iterate of the lowest objective, without margins.
      best_objective: the objective at `best`.
      is_alive: False once the objective or its gradient was not finite.
      num_steps: number of steps taken.
      key: draws jitter or views, together with `num_steps`; None without them.
      progress: for the test of convergence; None without a tolerance.
      dead_start, num_revivals: as in `Result`.
    """

    solver: Any
    last: Image
    best: Image
    best_objective: Scalar
    is_alive: Bool[Array, ""]
    num_steps: Int[Array, ""]
    key: PRNGKey | None
    progress: Progress | None
    dead_start: Bool[Array, ""]
    num_revivals: Int[Array, ""]


def start(
    program: Program,
    key: PRNGKey,
    scale: Scalar,
    *,
    initial: Image | None = None,
    attempt: Int[Array, ""] | None = None,
    has_tolerance: bool = False,
) -> LaneState:
    """The state of a lane before its first step, at noise or at a given image.

    Args:
      program: program of the first phase.
      key: the lane's key.
      scale: size of the noise in grey levels. Gaussian noise is scaled to this
        Euclidean norm; uniform noise, as in the released code of IJCV 2016, so that the
        95 % quantile of its values (not of their size) is `scale`: +-1.11 `scale`.
      initial: [h, w, c], grey levels minus the centre: used in place of noise, in the
        middle of a canvas of zeros.
      attempt: number of another noise of the same lane; None for its own.
      has_tolerance: whether lanes can converge.
    """
    step_key = _step_key(program, key)
    if attempt is not None:
        key = jax.random.fold_in(jax.random.fold_in(key, 2), attempt)
    if initial is not None:
        z = canvas.on_canvas(initial, program.canvas_shape)
    elif program.start == "gaussian":
        noise = jax.random.normal(key, program.canvas_shape, jnp.float32)
        z = noise * (scale / jnp.linalg.norm(noise))
    else:
        noise = jax.random.uniform(key, program.canvas_shape, jnp.float32, -1, 1)
        z = noise * (scale / jnp.quantile(noise, jnp.float32(0.95)))
    image = canvas.central_crop(z, program.image_shape)
    return LaneState(
        solver=program.solver.init(z),
        last=image,
        best=image,
        # Types as after a step, or the second step would be compiled anew.
        best_objective=jnp.asarray(jnp.inf, jnp.float32),
        is_alive=jnp.asarray(True),
        num_steps=jnp.asarray(0, jnp.int32),
        key=step_key,
        progress=_no_progress(jnp.asarray(0, jnp.int32)) if has_tolerance else None,
        dead_start=jnp.asarray(False),
        num_revivals=jnp.asarray(0, jnp.int32),
    )


def image(program: Program, state: LaneState) -> Image:
    """Where a lane is: z [h, w, c], grey levels minus the centre, without margins."""
    return canvas.central_crop(
        program.solver.variable(state.solver), program.image_shape
    )


def step(
    program: Program,
    phi: TracedCallable,
    shared: Shared,
    settings: LaneSettings,
    state: LaneState,
    pace: Pace,
    *,
    is_due: Bool[Array, ""] | None = None,
) -> tuple[LaneState, Scalar]:
    """One step of a lane, and the objective at the image that it started from.

    A lane that has failed or converged, or whose step is not due, stands still, and the
    objective is then NaN.

    Args:
      program: program of the phase.
      phi: the representation, relaxed as far as the step wants.
      shared: what all lanes have in common.
      settings: the lane's own numbers.
      state: the lane's state.
      pace: scalars of this step; the representation is relaxed already.
      is_due: whether the lane has a step left; None where every lane has.
    """
    z = program.solver.variable(state.solver)

    def value_at(z: Canvas) -> tuple[Scalar, Terms]:
        crops = _crops(program, state, z, pace.view_strength)
        return program.objective_at(z, phi, shared, settings.problem, crops=crops)

    (value, _), gradient = jax.value_and_grad(value_at, has_aux=True)(z)
    is_finite = jnp.isfinite(value) & jnp.all(jnp.isfinite(gradient))
    is_running = is_descending(state)
    if is_due is not None:
        is_running = is_running & is_due
    is_taken = is_alive = is_running & is_finite
    if state.progress is not None:
        # A lane that stands still does not fail.
        is_alive = state.is_alive & (is_taken | ~is_running)
    is_best = is_taken & (value < state.best_objective)
    rate = settings.learning_rate * pace.rate_scale
    updated = program.solver.update(gradient, state.solver, rate)
    if settings.range_bound is not None:
        moved = program.solver.variable(updated)
        bounded = regularisers.bound_colours(moved, settings.range_bound)
        updated = program.solver.move(updated, bounded)
    image = canvas.central_crop(z, program.image_shape)
    state = state._replace(
        solver=select(is_taken, updated, state.solver),
        last=jnp.where(is_taken, image, state.last),
        best=jnp.where(is_best, image, state.best),
        best_objective=jnp.where(is_best, value, state.best_objective),
        is_alive=is_alive,
        num_steps=state.num_steps + is_taken.astype(jnp.int32),
        progress=_advanced(state.progress, settings.tolerance, value, is_taken),
    )
    return state, jnp.where(is_taken, value, jnp.nan)


def next_phase(
    before: Program, program: Program, state: LaneState, key: PRNGKey
) -> LaneState:
    """The state at the beginning of a phase, from that at the end of the one before.

    The solver starts anew, without memory, at the central crop of what was found.

    Args:
      before: program of the phase that has ended.
      program: program of the phase that begins.
      state: the lane's state.
      key: the lane's key.
    """
    z = canvas.on_canvas(image(before, state), program.canvas_shape)
    progress = state.progress and _no_progress(state.num_steps)
    return state._replace(
        solver=program.solver.init(z),
        key=_step_key(program, key),
        progress=progress,
    )


def finish(
    program: Program,
    phi: TracedCallable,
    shared: Shared,
    settings: LaneSettings,
    state: LaneState,
    final: Image,
) -> Result:
    """The result of a lane that has taken its steps.

    `history` is the last value only: the objective at the final image.

    Args:
      program: program of the last phase.
      phi: the representation.
      shared: what all lanes have in common.
      settings: the lane's own numbers.
      state: the lane's state after its last step.
      final: where the lane is, `image(program, state)`.
    """
    problem, is_alive = settings.problem, state.is_alive
    z = jnp.where(is_alive, final, state.last)
    energy, terms = program.energy_at(z, phi, shared, problem)
    minimised, lowest = energy, state.best_objective
    if not program.objective_is_energy(problem):
        minimised, _ = program.objective_at(z, phi, shared, problem)
    if not program.minimises_energy(problem):
        lowest, _ = program.energy_at(state.best, phi, shared, problem)
    is_best = is_alive & (energy < lowest)
    best = jnp.where(is_best, z, state.best)
    ending = jnp.where(is_descending(state), BUDGET, CONVERGED)
    return Result(
        image=objective.to_image(z, shared.centre),
        energy=energy,
        objective=minimised,
        terms=terms,
        status=jnp.where(is_alive, ending, FAILED).astype(jnp.int32),
        num_steps=state.num_steps,
        best_image=objective.to_image(best, shared.centre),
        best_energy=jnp.where(is_best, energy, lowest),
        history=jnp.where(is_alive, minimised, jnp.nan),
        dead_start=state.dead_start,
        num_revivals=state.num_revivals,
    )


def is_descending(state: LaneState) -> Bool[Array, "*l"]:
    """Whether a lane, or each lane of a batch, has neither failed nor converged."""
    if state.progress is None:
        return state.is_alive
    return state.is_alive & (state.progress.num_stalled < PATIENCE)


def steps_in_phase(state: LaneState) -> Int[Array, "*l"]:
    """Number of steps that a lane with a tolerance has taken in its phase."""
    assert state.progress is not None
    return state.num_steps - state.progress.first


def select(condition: Bool[Array, ""], new: Any, old: Any) -> Any:
    """One of two trees of arrays, by a traced condition."""
    return jax.tree.map(lambda a, b: jnp.where(condition, a, b), new, old)


def _step_key(program: Program, key: PRNGKey) -> PRNGKey | None:
    # The noise draws from the key itself.
    return jax.random.fold_in(key, 1) if program.is_random else None


def _crops(
    program: Program, state: LaneState, z: Canvas, view_strength: Scalar | None
) -> tuple[Image, ...]:
    """What a step gives the representation in place of z; empty for z itself."""
    if state.key is None:
        return ()
    key = jax.random.fold_in(state.key, state.num_steps)
    if program.views is None:
        offset = canvas.random_offset(key, jitter=program.jitter)
        return (canvas.crop_at(z, offset, program.image_shape),)
    assert view_strength is not None
    drawn = [
        views.draw(each, program.views, view_strength, program.image_shape)
        for each in jax.random.split(key, program.views.number)
    ]
    return tuple(views.show(view, program.views, z) for view in drawn)


def _no_progress(num_steps: Int[Array, ""]) -> Progress:
    infinite = jnp.asarray(jnp.inf, jnp.float32)
    return Progress(num_steps, infinite, infinite, jnp.asarray(0, jnp.int32))


def _advanced(
    progress: Progress | None,
    tolerance: Scalar | None,
    value: Scalar,
    is_taken: Bool[Array, ""],
) -> Progress | None:
    if progress is None or tolerance is None:
        return progress
    lowest = jnp.where(is_taken, jnp.minimum(progress.lowest, value), progress.lowest)
    has_decreased = progress.reference - lowest > tolerance * jnp.abs(lowest)
    return Progress(
        first=progress.first,
        lowest=lowest,
        reference=jnp.where(has_decreased, lowest, progress.reference),
        num_stalled=jnp.where(
            has_decreased, 0, progress.num_stalled + is_taken.astype(jnp.int32)
        ),
    )
