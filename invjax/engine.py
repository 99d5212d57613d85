"""One lane, the grid of lanes, the loop over phases and steps.

A run is a sequence of phases, each a program with a schedule; where one ends, the next
one's solver starts anew from the image found so far.

On CPU the compiled program is one step of one lane, called from a host loop: XLA does
not parallelise convolutions inside its loops there, wider programs are no faster, and a
lane has the same bits whatever else is asked for. On GPU and TPU lanes are vmapped in
chunks of a fixed width, and the steps scanned; the width is part of a result's
identity.
"""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from invjax import objective, priors, solvers
from invjax.priors import Canvas
from invjax.representations.tracing import Argument
from invjax.types import DataTerm, Image, PRNGKey, PRNGKeys, Scalar

CONVERGED, BUDGET, FAILED = 0, 1, 2
STATUS_WORDS = ("converged", "budget", "failed")
"""Words for `Result.status`, by its value."""

_SCAN_STEPS = 50


class Result(NamedTuple):
    """What became of a lane; `invert_batch` puts a leading [l] on every field.

    Attributes:
      image: [h, w, c] in the representation's range ([0, 1], not clipped): the final
        iterate, or of a failed lane the last one whose objective was finite. Of a
        jittered canvas its central crop.
      energy: of `image`: data term + weighted regularisers, the CVPR 2015 form whatever
        was minimised, so that presets can be compared.
      objective: what was minimised, at `image` and without jitter; the energy itself
        under all presets but ijcv2016.
      terms: the energy's summands (data, alpha, tv), weights included.
      status: int32; see `STATUS_WORDS`.
      num_steps: steps taken before the lane ended or failed.
      best_image, best_energy: the iterate of lowest energy. Where steps do not know
        the energy (under ijcv2016, and with jitter), the better by energy of two: the
        final iterate, and that of the lowest objective in a step.
      history: what was minimised at steps 0, k, 2k, ..., with the crop that the step
        drew, and `objective` last; NaN after a failure. It is the energy wherever that
        is what is minimised, without jitter; elsewhere the energy of every step would
        cost one more pass through the representation.
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
    """Carry of the loop.

    `last` is the newest iterate whose objective was finite; it and `best` are images,
    not canvases. `key` draws the jitter, together with `num_steps`; without jitter it
    is None.
    """

    solver: Any
    last: Image
    best: Image
    best_objective: Scalar
    is_alive: Bool[Array, ""]
    num_steps: Int[Array, ""]
    key: PRNGKey | None


@dataclasses.dataclass(frozen=True)
class Program:
    """The static part of a lane's computation.

    Attributes:
      solver: with its choices.
      image_shape: [h, w, c] of what the representation sees.
      form: whose energy is minimised.
      exponents: of the regularisers that are minimised.
      data_term: how far a code is from the target.
      jitter: places of the image along each axis of its canvas; 1 is none.
      start: "gaussian" or "uniform" noise; see `start`.
    """

    solver: solvers.Solver
    image_shape: tuple[int, int, int]
    form: Literal["cvpr2015", "ijcv2016"] = "cvpr2015"
    exponents: objective.Exponents = objective.Exponents()  # noqa: RUF009
    data_term: DataTerm = objective.squared_error
    jitter: int = 1
    start: Literal["gaussian", "uniform"] = "gaussian"

    @property
    def canvas_shape(self) -> tuple[int, int, int]:
        return priors.canvas_shape(self.image_shape, jitter=self.jitter)

    @property
    def minimises_energy(self) -> bool:
        """Whether the objective of a step is the energy of its image."""
        return self.form == "cvpr2015" and self.jitter == 1

    def minimised(
        self,
        z: Canvas,
        phi: Argument,
        problem: objective.Problem,
        *,
        seen: Image | None = None,
    ) -> tuple[Scalar, objective.Terms]:
        """What is minimised, of an image or a canvas of which a part is seen."""
        form = objective.energy if self.form == "cvpr2015" else objective.ijcv_energy
        return form(
            z,
            phi,
            problem,
            exponents=self.exponents,
            data_term=self.data_term,
            seen=seen,
        )

    def energy(
        self, z: Image, phi: Argument, problem: objective.Problem
    ) -> tuple[Scalar, objective.Terms]:
        """The energy of `Result`: alpha 6 and beta 2 where it is not minimised."""
        if self.form == "cvpr2015":
            return self.minimised(z, phi, problem)
        return objective.energy(z, phi, problem, data_term=self.data_term)


class Phase(NamedTuple):
    """A program, and what changes from step to step.

    Attributes:
      program: the static part.
      schedule: share of the learning rate at each step.
      relaxation: how far the representation's derivative is relaxed at each step, 0 to
        1, where it can be; None is exact throughout. See `relaxation`.
    """

    program: Program
    schedule: Float[np.ndarray, " t"]
    relaxation: Float[np.ndarray, " t"] | None = None

    def at(self, steps: int | slice) -> tuple[Any, Any]:
        """Share of the rate, and relaxation: what `step` and `scan_steps` take."""
        relaxation = None if self.relaxation is None else self.relaxation[steps]
        return self.schedule[steps], relaxation


def run_chunk(
    phases: Sequence[Phase],
    phi: Argument,
    problems: objective.Problem,
    keys: PRNGKeys,
    *,
    start_scale: Scalar,
    initial: Float[Array, "l h w c"] | None = None,
    history_every: int,
    scan: bool,
) -> Result:
    """All steps of a chunk of lanes.

    Args:
      phases: in order.
      phi: the representation.
      problems: fields with a lane axis as in `LANE_AXES`.
      keys: [l], of the lanes.
      start_scale, initial: as in `start`.
      history_every: k of `Result.history`.
      scan: whether the loop over steps is compiled.
    """
    states = start(phases[0].program, keys, start_scale, initial)
    # Numbers that steps return; waiting for them also lets an interrupt through.
    history: list[np.ndarray] = []
    done = 0
    for number, phase in enumerate(phases):
        program, num_steps = phase.program, len(phase.schedule)
        if number > 0:
            states = proceed(phases[number - 1].program, program, states, keys)
        if scan:
            for first in range(0, num_steps, _SCAN_STEPS):
                pace = phase.at(slice(first, first + _SCAN_STEPS))
                states, values = scan_steps(program, phi, problems, states, *pace)
                skipped = -(done + first) % history_every
                history += list(np.asarray(values)[skipped::history_every])
        else:
            for count in range(num_steps):
                pace = phase.at(count)
                states, values = step(program, phi, problems, states, *pace)
                if (done + count) % history_every == 0:
                    history.append(np.asarray(values))
        done += num_steps
    result = _finish(phases[-1].program, phi, problems, states)
    history.append(np.asarray(result.history))
    return result._replace(history=np.stack(history, axis=1))


LANE_AXES: Any = cast(Any, objective.Problem)(
    target=0,
    mask=None,
    tv_weight=0,
    alpha_weight=0,
    centre=None,
    learning_rate=0,
    ijcv=0,
    range_bound=0,
)
"""Which axis of a `Problem` counts lanes."""


@functools.partial(jax.jit, static_argnames="program")
def start(
    program: Program,
    keys: PRNGKeys,
    scale: Scalar,
    initial: Float[Array, "l h w c"] | None = None,
) -> _LaneState:
    """States of lanes at noise, or at given images.

    Args:
      program: of the first phase.
      keys: [l].
      scale: of the noise. Gaussian noise is scaled to this Euclidean norm, grey
        levels; uniform noise, as in the released code of IJCV 2016, so that its 95 %
        quantile (of the values, not of their size) is `scale`: +-1.11 `scale`.
      initial: [l, h, w, c], grey levels minus the centre: used instead of noise, in
        the middle of a canvas of zeros.
    """

    def lane(key: PRNGKey, initial: Image | None) -> _LaneState:
        if initial is not None:
            z = priors.on_canvas(initial, jitter=program.jitter)
        elif program.start == "gaussian":
            noise = jax.random.normal(key, program.canvas_shape)
            z = noise * (scale / jnp.linalg.norm(noise))
        else:
            noise = jax.random.uniform(key, program.canvas_shape, minval=-1, maxval=1)
            z = noise * (scale / jnp.quantile(noise, 0.95))
        image = priors.central_crop(z, program.image_shape)
        return _LaneState(
            solver=program.solver.init(z),
            last=image,
            best=image,
            # Types as after a step, or the second step would be compiled anew.
            best_objective=jnp.asarray(jnp.inf, jnp.float32),
            is_alive=jnp.asarray(True),
            num_steps=jnp.asarray(0, jnp.int32),
            key=_jitter_key(program, key),
        )

    return jax.vmap(lane)(keys, initial)


@functools.partial(jax.jit, static_argnames=("before", "program"))
def proceed(
    before: Program, program: Program, states: _LaneState, keys: PRNGKeys
) -> _LaneState:
    """States of a new phase, at the central crop of what the last one found."""

    def lane(state: _LaneState, key: PRNGKey) -> _LaneState:
        z = before.solver.variable(state.solver, before.canvas_shape)
        image = priors.central_crop(z, before.image_shape)
        canvas = priors.on_canvas(image, jitter=program.jitter)
        return state._replace(
            solver=program.solver.init(canvas), key=_jitter_key(program, key)
        )

    return jax.vmap(lane)(states, keys)


def _jitter_key(program: Program, key: PRNGKey) -> PRNGKey | None:
    # The noise draws from the key itself.
    return jax.random.fold_in(key, 1) if program.jitter > 1 else None


def _step_lanes(
    program: Program,
    phi: Argument,
    problems: objective.Problem,
    states: _LaneState,
    share: Scalar,
    relaxation: Scalar | None = None,
) -> tuple[_LaneState, Float[Array, " l"]]:
    """One step of every lane, and the objectives it started from."""
    if relaxation is not None:
        phi = phi.relaxed(relaxation)

    def lane(
        problem: objective.Problem, state: _LaneState
    ) -> tuple[_LaneState, Scalar]:
        z = program.solver.variable(state.solver, program.canvas_shape)

        def value_at(z: Canvas) -> tuple[Scalar, objective.Terms]:
            if state.key is None:
                return program.minimised(z, phi, problem)
            key = jax.random.fold_in(state.key, state.num_steps)
            offset = priors.random_offset(key, jitter=program.jitter)
            seen = priors.crop_at(z, offset, program.image_shape)
            return program.minimised(z, phi, problem, seen=seen)

        (value, _), gradient = jax.value_and_grad(value_at, has_aux=True)(z)
        is_finite = jnp.isfinite(value) & jnp.all(jnp.isfinite(gradient))
        is_alive = state.is_alive & is_finite
        is_best = is_alive & (value < state.best_objective)
        rate = problem.learning_rate * share
        updated = program.solver.update(gradient, state.solver, rate)
        if problem.range_bound is not None:
            moved = program.solver.variable(updated, program.canvas_shape)
            bounded = priors.bound_colours(moved, problem.range_bound)
            updated = program.solver.move(updated, bounded)
        image = priors.central_crop(z, program.image_shape)
        state = state._replace(
            solver=_select(is_alive, updated, state.solver),
            last=jnp.where(is_alive, image, state.last),
            best=jnp.where(is_best, image, state.best),
            best_objective=jnp.where(is_best, value, state.best_objective),
            is_alive=is_alive,
            num_steps=state.num_steps + is_alive,
        )
        return state, jnp.where(is_alive, value, jnp.nan)

    return jax.vmap(lane, in_axes=(LANE_AXES, 0))(problems, states)


step = functools.partial(jax.jit, static_argnames="program", donate_argnames="states")(
    _step_lanes
)


@functools.partial(jax.jit, static_argnames="program", donate_argnames="states")
def scan_steps(
    program: Program,
    phi: Argument,
    problems: objective.Problem,
    states: _LaneState,
    shares: Float[Array, " t"],
    relaxation: Float[Array, " t"] | None = None,
) -> tuple[_LaneState, Float[Array, "t l"]]:
    """`step` for several steps in one program, and the objectives of each."""
    return jax.lax.scan(
        lambda states, now: _step_lanes(program, phi, problems, states, *now),
        states,
        (shares, relaxation),
    )


@functools.partial(jax.jit, static_argnames="program")
def _finish(
    program: Program, phi: Argument, problems: objective.Problem, states: _LaneState
) -> Result:
    """Results with the final objective as their history."""

    def lane(problem: objective.Problem, state: _LaneState) -> Result:
        z = program.solver.variable(state.solver, program.canvas_shape)
        z = priors.central_crop(z, program.image_shape)
        energy, _ = program.energy(z, phi, problem)
        is_alive = state.is_alive & jnp.isfinite(energy)
        z = jnp.where(is_alive, z, state.last)
        final, terms = program.energy(z, phi, problem)
        minimised, lowest = final, state.best_objective
        if program.form != "cvpr2015":
            minimised, _ = program.minimised(z, phi, problem)
        if not program.minimises_energy:
            lowest, _ = program.energy(state.best, phi, problem)
        is_best = is_alive & (final < lowest)
        best = jnp.where(is_best, z, state.best)
        return Result(
            image=objective.to_image(z, problem.centre),
            energy=final,
            objective=minimised,
            terms=terms,
            status=jnp.where(is_alive, BUDGET, FAILED).astype(jnp.int32),
            num_steps=state.num_steps,
            best_image=objective.to_image(best, problem.centre),
            best_energy=jnp.where(is_best, final, lowest),
            history=jnp.where(is_alive, minimised, jnp.nan),
        )

    return jax.vmap(lane, in_axes=(LANE_AXES, 0))(problems, states)


def _select(condition: Bool[Array, ""], new: Any, old: Any) -> Any:
    return jax.tree.map(lambda a, b: jnp.where(condition, a, b), new, old)
