"""One lane, and what is compiled of the grid of lanes: starts, steps, results.

A run is a sequence of phases, each a program with a schedule; where one ends, the next
one's solver starts anew from the image found so far. `chunks` runs the loop.

On CPU the compiled program is one step of one lane, called from a host loop: XLA does
not parallelise convolutions inside its loops there, wider programs are no faster, and a
lane has the same bits whatever else is asked for. Host threads run several lanes side
by side, since one step keeps a core busy for part of the time only. On GPU and TPU
lanes are vmapped in chunks of a fixed width, and the steps scanned; the width is part
of a result's identity.
"""

import dataclasses
import functools
import os
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from invjax import objective, priors
from invjax.priors import Canvas
from invjax.programs import Program
from invjax.representations.tracing import Argument
from invjax.types import Image, PRNGKey, PRNGKeys, Scalar

PATIENCE = 25
"""Steps without progress after which a lane has converged; see `Progress`."""


@dataclasses.dataclass(frozen=True)
class Execution:
    """How lanes are run. The mathematics does not depend on it, rounding does.

    Attributes:
      width: lanes per compiled call; shorter chunks are padded to it.
      scan: whether the loop over steps is compiled, or runs on the host.
      num_threads: chunks that run side by side, each called from a host thread.
    """

    width: int = 1
    scan: bool = False
    num_threads: int = 1

    def __post_init__(self):
        for name in ("width", "num_threads"):
            if getattr(self, name) < 1:
                raise ValueError(
                    f"execution.{name} is {getattr(self, name)}; it must be positive"
                )

    @property
    def lanes_at_once(self) -> int:
        """In all threads."""
        return self.width * self.num_threads


def default_execution() -> Execution:
    """On CPU single lanes and a host loop, a thread per core and at most 16.

    On other backends 16 lanes and a scan.
    """
    if jax.default_backend() == "cpu":
        return Execution(num_threads=min(num_cores(), 16))
    return Execution(width=16, scan=True)


def num_cores() -> int:
    """That this process may use, where the system tells them from all there are."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


class Progress(NamedTuple):
    """How far a lane has come in a phase; what a tolerance is held against.

    Attributes:
      first: the lane's `num_steps` when the phase began.
      lowest: objective of the phase so far.
      reference: `lowest` when it had last fallen by the tolerance.
      num_stalled: steps taken since.
    """

    first: Int[Array, "*l"]
    lowest: Float[Array, "*l"]
    reference: Float[Array, "*l"]
    num_stalled: Int[Array, "*l"]


class LaneState(NamedTuple):
    """Carry of the loop.

    `last` is the newest iterate whose objective was finite; it and `best` are images,
    not canvases. `key` draws the jitter, together with `num_steps`; without jitter it
    is None. So is `progress` without a tolerance. `dead_start` and `num_revivals` are
    those of `Result`.
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


LANE_AXES: Any = cast(Any, objective.Problem)(
    target=0,
    mask=None,
    tv_weight=0,
    alpha_weight=0,
    centre=None,
    learning_rate=0,
    ijcv=0,
    range_bound=0,
    tolerance=0,
)
"""Which axis of a `Problem` counts lanes."""


once = functools.partial(
    jax.jit, compiler_options={"xla_backend_optimization_level": 0}
)
"""`jax.jit` for what runs once per chunk: it is sooner compiled, and not as fast."""


@functools.partial(once, static_argnames=("program", "is_watched"))
def start(
    program: Program,
    keys: PRNGKeys,
    scale: Scalar,
    initial: Float[Array, "l h w c"] | None = None,
    *,
    attempt: Int[Array, ""] | None = None,
    is_watched: bool = False,
) -> LaneState:
    """States of lanes at noise, or at given images.

    Args:
      program: of the first phase.
      keys: [l].
      scale: of the noise. Gaussian noise is scaled to this Euclidean norm, grey
        levels; uniform noise, as in the released code of IJCV 2016, so that its 95 %
        quantile (of the values, not of their size) is `scale`: +-1.11 `scale`.
      initial: [l, h, w, c], grey levels minus the centre: used instead of noise, in
        the middle of a canvas of zeros.
      attempt: number of another noise of the same lanes.
      is_watched: whether there is a tolerance to converge by.
    """

    def lane(key: PRNGKey, initial: Image | None) -> LaneState:
        jitter_key = _jitter_key(program, key)
        if attempt is not None:
            key = jax.random.fold_in(jax.random.fold_in(key, 2), attempt)
        if initial is not None:
            z = priors.on_canvas(initial, jitter=program.jitter)
        elif program.start == "gaussian":
            noise = jax.random.normal(key, program.canvas_shape)
            z = noise * (scale / jnp.linalg.norm(noise))
        else:
            noise = jax.random.uniform(key, program.canvas_shape, minval=-1, maxval=1)
            z = noise * (scale / jnp.quantile(noise, 0.95))
        image = priors.central_crop(z, program.image_shape)
        return LaneState(
            solver=program.solver.init(z),
            last=image,
            best=image,
            # Types as after a step, or the second step would be compiled anew.
            best_objective=jnp.asarray(jnp.inf, jnp.float32),
            is_alive=jnp.asarray(True),
            num_steps=jnp.asarray(0, jnp.int32),
            key=jitter_key,
            progress=_no_progress(jnp.asarray(0, jnp.int32)) if is_watched else None,
            dead_start=jnp.asarray(False),
            num_revivals=jnp.asarray(0, jnp.int32),
        )

    return jax.vmap(lane)(keys, initial)


@functools.partial(once, static_argnames="program")
def images(program: Program, states: LaneState) -> Float[Array, "l h w c"]:
    """Where the lanes are, grey levels minus the centre, cut from their canvases."""

    def lane(state: LaneState) -> Image:
        z = program.solver.variable(state.solver, program.canvas_shape)
        return priors.central_crop(z, program.image_shape)

    return jax.vmap(lane)(states)


@functools.partial(jax.jit, static_argnames="program")
def are_dead(
    program: Program,
    phi: Argument,
    problems: objective.Problem,
    images: Float[Array, "l h w c"],
) -> Bool[Array, " l"]:
    """`objective.is_dead` of lanes at such images, by the exact derivative.

    Args:
      program: of the lanes.
      phi: their representation.
      problems: of the lanes.
      images: [l, h, w, c], grey levels minus the centre.
    """

    def lane(problem: objective.Problem, z: Image) -> Bool[Array, ""]:
        return objective.is_dead(z, phi, problem, data_term=program.data_term)

    return jax.vmap(lane, in_axes=(LANE_AXES, 0))(problems, images)


@functools.partial(jax.jit, static_argnames=("before", "program"))
def proceed(
    before: Program, program: Program, states: LaneState, keys: PRNGKeys
) -> LaneState:
    """States of a new phase, at the central crop of what the last one found."""

    def lane(state: LaneState, key: PRNGKey) -> LaneState:
        z = before.solver.variable(state.solver, before.canvas_shape)
        image = priors.central_crop(z, before.image_shape)
        canvas = priors.on_canvas(image, jitter=program.jitter)
        progress = state.progress and _no_progress(state.num_steps)
        return state._replace(
            solver=program.solver.init(canvas),
            key=_jitter_key(program, key),
            progress=progress,
        )

    return jax.vmap(lane)(states, keys)


def _no_progress(num_steps: Int[Array, ""]) -> Progress:
    infinite = jnp.asarray(jnp.inf, jnp.float32)
    return Progress(num_steps, infinite, infinite, jnp.asarray(0, jnp.int32))


def is_descending(state: LaneState) -> Bool[Array, "*l"]:
    """Whether a lane, or each of them, has neither failed nor converged."""
    if state.progress is None:
        return state.is_alive
    return state.is_alive & (state.progress.num_stalled < PATIENCE)


def _jitter_key(program: Program, key: PRNGKey) -> PRNGKey | None:
    # The noise draws from the key itself.
    return jax.random.fold_in(key, 1) if program.jitter > 1 else None


def _step_lane(
    program: Program,
    phi: Argument,
    problem: objective.Problem,
    state: LaneState,
    share: Scalar,
    is_due: Bool[Array, ""] | None = None,
) -> tuple[LaneState, Scalar]:
    """One step of a lane that is due one, and the objective it started from."""
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
    is_running = is_descending(state)
    if is_due is not None:
        is_running = is_running & is_due
    is_taken = is_alive = is_running & is_finite
    if state.progress is not None:
        # A lane that stands still does not fail.
        is_alive = state.is_alive & (is_taken | ~is_running)
    is_best = is_taken & (value < state.best_objective)
    rate = problem.learning_rate * share
    updated = program.solver.update(gradient, state.solver, rate)
    if problem.range_bound is not None:
        moved = program.solver.variable(updated, program.canvas_shape)
        bounded = priors.bound_colours(moved, problem.range_bound)
        updated = program.solver.move(updated, bounded)
    image = priors.central_crop(z, program.image_shape)
    state = state._replace(
        solver=_select(is_taken, updated, state.solver),
        last=jnp.where(is_taken, image, state.last),
        best=jnp.where(is_best, image, state.best),
        best_objective=jnp.where(is_best, value, state.best_objective),
        is_alive=is_alive,
        num_steps=state.num_steps + is_taken,
        progress=_advanced(state.progress, problem.tolerance, value, is_taken),
    )
    return state, jnp.where(is_taken, value, jnp.nan)


def _advanced(
    progress: Progress | None,
    tolerance: Scalar | None,
    value: Scalar,
    is_taken: Bool[Array, ""],
) -> Progress | None:
    if progress is None or tolerance is None:
        return progress
    lowest = jnp.where(is_taken, jnp.minimum(progress.lowest, value), progress.lowest)
    has_fallen = progress.reference - lowest > tolerance * jnp.abs(lowest)
    return Progress(
        first=progress.first,
        lowest=lowest,
        reference=jnp.where(has_fallen, lowest, progress.reference),
        num_stalled=jnp.where(has_fallen, 0, progress.num_stalled + is_taken),
    )


def _step_lanes(
    program: Program,
    phi: Argument,
    problems: objective.Problem,
    states: LaneState,
    share: Scalar,
    relaxation: Scalar | None = None,
) -> tuple[LaneState, Float[Array, " l"]]:
    """One step of every lane, and the objectives it started from."""
    if relaxation is not None:
        phi = phi.relaxed(relaxation)
    return jax.vmap(
        lambda problem, state: _step_lane(program, phi, problem, state, share),
        in_axes=(LANE_AXES, 0),
    )(problems, states)


step = functools.partial(jax.jit, static_argnames="program", donate_argnames="states")(
    _step_lanes
)


@functools.partial(jax.jit, static_argnames="program", donate_argnames="states")
def scan_steps(
    program: Program,
    phi: Argument,
    problems: objective.Problem,
    states: LaneState,
    shares: Float[Array, " t"],
    relaxation: Float[Array, " t"] | None = None,
) -> tuple[LaneState, Float[Array, "t l"]]:
    """`step` for several steps in one program, and the objectives of each."""
    return jax.lax.scan(
        lambda states, now: _step_lanes(program, phi, problems, states, *now),
        states,
        (shares, relaxation),
    )


@functools.partial(
    jax.jit, static_argnames=("program", "num_steps"), donate_argnames="states"
)
def scan_at_own_pace(
    program: Program,
    phi: Argument,
    problems: objective.Problem,
    states: LaneState,
    schedule: Float[Array, " n"],
    relaxation: Float[Array, " n"] | None = None,
    *,
    num_steps: int,
) -> tuple[LaneState, Float[Array, "t l"]]:
    """`scan_steps` for lanes that began the phase at different times.

    Each reads the whole phase's schedule at the number of steps that it has taken in
    it, and stands still after the last, so that its result is that of a lane alone.
    """

    def lane(problem: objective.Problem, state: LaneState) -> tuple[LaneState, Scalar]:
        position = steps_in_phase(state)
        # Beyond the end the index is the last one, and nothing is done.
        relaxed = phi if relaxation is None else phi.relaxed(relaxation[position])
        is_due = position < len(schedule)
        return _step_lane(program, relaxed, problem, state, schedule[position], is_due)

    together = jax.vmap(lane, in_axes=(LANE_AXES, 0))
    return jax.lax.scan(
        lambda states, _: together(problems, states), states, length=num_steps
    )


def steps_in_phase(state: LaneState) -> Int[Array, "*l"]:
    """Steps that a watched lane, or each of them, has taken in its phase."""
    assert state.progress is not None
    return state.num_steps - state.progress.first


@jax.jit
def replace_lanes(
    is_new: Bool[Array, " l"], new: LaneState, old: LaneState
) -> LaneState:
    """The new states where `is_new`, the old ones elsewhere."""
    return jax.vmap(_select)(is_new, new, old)


def _select(condition: Bool[Array, ""], new: Any, old: Any) -> Any:
    return jax.tree.map(lambda a, b: jnp.where(condition, a, b), new, old)
