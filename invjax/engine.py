"""One lane, and what is compiled of the grid of lanes: starts, steps, results.

A run is a sequence of phases, each a program with a schedule; where one ends, the next
one's solver starts anew from the image found so far. `chunks` runs the loop.

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
from jaxtyping import Array, Bool, Float, Int

from invjax import objective, priors
from invjax.priors import Canvas
from invjax.programs import Program
from invjax.representations.tracing import Argument
from invjax.types import Image, PRNGKey, PRNGKeys, Scalar

CONVERGED, BUDGET, FAILED = 0, 1, 2
STATUS_WORDS = ("converged", "budget", "failed")
"""Words for `Result.status`, by its value."""


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
def finish(
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
