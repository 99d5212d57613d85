"""Images of one code that keep away from each other while they are optimised.

Inversions from different starts may end alike because the code leaves no choice, or
because descent prefers one choice. Here s images are optimised together, and each one's
energy is

    E(z_i) + w mean over j != i of exp(-d_ij^2 / (2 b^2)),

so that similarity is penalised by at most w: once two images are a few b apart, nothing
is gained by moving them further, and away from natural images. d_ij is the root mean
square difference, in grey levels, of the images resized to a coarse grid. Differences
of single pixels would not serve: there the cheapest way to be far apart is noise, or a
shift by a pixel, and neither is another image.

This is the only method in which samples depend on each other. The number of samples and
all of their keys are part of each result's identity, and so is rounding by the width of
the compiled program, which holds all of them.
"""

import functools
from typing import Any, NamedTuple, Unpack

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float, Int

from invjax import identity
from invjax.callables import TracedCallable
from invjax.inversion import (
    batch,
    dead_starts,
    loop,
    objective,
    request,
    result,
)
from invjax.inversion.execution import Execution, default_execution
from invjax.inversion.lane import LaneSettings, Pace, Phase, Program
from invjax.inversion.objective import Shared, Terms
from invjax.inversion.request import Keywords, Plan
from invjax.types import (
    KeysLike,
    RepresentationLike,
    Scalar,
    ordinary_types,
)

_LOG_EVERY = 10


class Repelled(NamedTuple):
    """A set of images of one code.

    Attributes:
      images: [s, h, w, c] in phi's range, not clipped.
      energies: energy of each image by itself, without the repulsion.
      terms: summands of the energies, each [s].
      relative_errors: |M (phi(x) - phi0)| / |M phi0|.
      distances: d_ij, [s, s], grey levels on the coarse grid.
      status: `result.BUDGET`, or `result.FAILED` of the whole set, which is then as it
        was before the step that failed.
      dead_start, num_revivals: as in `Result`.
      history: mean of E + repulsion over the set, every ten steps.
    """

    images: Float[Array, "s h w c"]
    energies: Float[Array, " s"]
    terms: Terms
    relative_errors: Float[Array, " s"]
    distances: Float[Array, "s s"]
    status: Int[Array, ""]
    dead_start: Bool[Array, " s"]
    num_revivals: Int[Array, " s"]
    history: Float[np.ndarray, " t"]


class _State(NamedTuple):
    """What is carried from step to step.

    Attributes:
      solver: the solver's states of all samples.
      is_alive: False once the objective or its gradient was not finite.
    """

    solver: Any
    is_alive: Bool[Array, ""]


class _Pace(NamedTuple):
    """What changes from step to step: arrays [t] of the descent, or scalars of a step.

    Attributes:
      lanes: pace of every sample's own descent.
      weight: factor of the weight of the repulsion.
    """

    lanes: Pace
    weight: Any


class _Setting(NamedTuple):
    """What a step is given besides the state; all of it is traced."""

    phi: TracedCallable
    shared: Shared
    settings: LaneSettings
    weight: Scalar
    bandwidth: Scalar


def repel(
    keys: KeysLike,
    code: Any,
    phi: RepresentationLike,
    *,
    weight: ArrayLike = 0.03,
    bandwidth: ArrayLike = 15.0,
    grid: int = 16,
    fade_from: float = 0.5,
    execution: Execution | None = None,
    **settings: Unpack[Keywords],
) -> Repelled:
    """Inverts one code to images that are unlike each other.

    With weight 0 these are the inversions `invert_batch` finds from the same keys, to
    rounding; dead starts are found and left as there. By default the repulsion fades to
    nothing over the second half of the descent, so that what is returned settles into
    minima of the plain energy and is compared with independent inversions at nearly
    equal error; with `fade_from` 1 the images are a compromise, and their error is the
    price.

    Args:
      keys: [s], a key per start; two or more.
      code: phi0.
      phi: the representation, or its name.
      weight: w, in units of the energy. Three images of one photograph's AlexNet code
        after 150 steps, mean d_ij and relative error: pool5 4 and 0.236 with weight 0,
        36 and 0.246 as by default, 70 and 0.260 with weight 0.1 and b = 30; relu3 3 and
        0.149, 35 and 0.157, 61 and 0.168.
      bandwidth: b, grey levels.
      grid: rows and columns of the grid on which images are compared.
      fade_from: fraction of the steps after which w falls linearly to zero at the end.
      execution: `scan` of it says whether the loop is compiled; the width is always s.
      **settings: as in `invert`; numbers per lane are per sample. Presets with one
        phase, no jitter and no bound on the range: not ijcv2016.

    Raises:
      ValueError: as `invert`, or a setting of the repulsion is out of range.
    """
    request.refuse_transformed((keys, code, phi, settings))
    request.refuse_unknown(settings)
    keys = identity.lane_keys(keys)
    _check(len(keys), weight, bandwidth, grid, fade_from)
    one = request.one_code(code, phi, image_shape=settings.get("image_shape"))
    codes = jax.tree.map(lambda part: np.repeat(part, len(keys), axis=0), one)
    plan = request.prepare(codes, phi, len(keys), **settings).on_device()
    phase = _only_phase(plan)
    setting = _Setting(
        phi=plan.phi,
        shared=plan.shared,
        settings=plan.settings,
        weight=jnp.float32(weight),
        bandwidth=jnp.float32(bandwidth),
    )
    started = dead_starts.begin(keys, plan)
    state = _State(started.solver, jnp.asarray(True))
    scan = (execution or default_execution()).scan
    step = functools.partial(_scan if scan else _step, phase.program, grid, setting)
    paces = _Pace(phase.pace, _fading(phase.num_steps, fade_from))
    history: list[float] = []
    for first, moved, totals in loop.advance(step, state, paces, scan=scan):
        state = moved
        if first % _LOG_EVERY == 0:
            # Waiting here also lets an interrupt through.
            history.extend(np.atleast_1d(totals)[::_LOG_EVERY])
    return _finish(phase.program, grid, setting, state)._replace(
        dead_start=started.dead_start,
        num_revivals=started.num_revivals,
        history=np.asarray(history, np.float32),
    )


def coarse_distances(
    images: Float[Array, "s h w c"], *, grid: int = 16
) -> Float[Array, "s s"]:
    """d_ij: root mean square differences on a coarse grid.

    Args:
      images: [s, h, w, c]; the distances are in their unit.
      grid: rows and columns; images smaller than that are taken as they are.
    """
    return jnp.sqrt(_squared_distances(images, grid))


def _squared_distances(
    images: Float[Array, "s h w c"], grid: int
) -> Float[Array, "s s"]:
    num, height, width, channels = images.shape
    shape = (num, min(grid, height), min(grid, width), channels)
    with ordinary_types():
        coarse = jax.image.resize(images, shape, "linear", antialias=True)
    differences = coarse[:, None] - coarse[None, :]
    return jnp.mean(differences**2, axis=(2, 3, 4))


def _step_all(
    program: Program,
    grid: int,
    setting: _Setting,
    state: _State,
    pace: _Pace,
) -> tuple[_State, Scalar]:
    """One step of all samples, and the mean objective it started from."""
    if pace.lanes.relaxation is not None:
        setting = setting._replace(phi=setting.phi.relaxed(pace.lanes.relaxation))

    def objective_of_set(images: Float[Array, "s h w c"]) -> Scalar:
        energies, _ = _energies(program, setting, images)
        return jnp.sum(energies) + pace.weight * _repulsion(images, grid, setting)

    images = _images(program, state)
    total, gradients = jax.value_and_grad(objective_of_set)(images)
    rates = setting.settings.learning_rate * pace.lanes.rate_scale
    updated = jax.vmap(program.solver.update)(gradients, state.solver, rates)
    is_finite = jnp.isfinite(total) & jnp.all(jnp.isfinite(gradients))
    is_alive = state.is_alive & is_finite
    solver = jax.tree.map(
        lambda new, old: jnp.where(is_alive, new, old), updated, state.solver
    )
    return _State(solver, is_alive), total / len(images)


_step = functools.partial(
    jax.jit, static_argnames=("program", "grid"), donate_argnames="state"
)(_step_all)


@functools.partial(
    jax.jit, static_argnames=("program", "grid"), donate_argnames="state"
)
def _scan(
    program: Program,
    grid: int,
    setting: _Setting,
    state: _State,
    paces: _Pace,
) -> tuple[_State, Float[Array, " t"]]:
    return jax.lax.scan(
        lambda state, pace: _step_all(program, grid, setting, state, pace),
        state,
        paces,
    )


@functools.partial(jax.jit, static_argnames=("program", "grid"))
def _finish(program: Program, grid: int, setting: _Setting, state: _State) -> Repelled:
    """The set at its current state, without its starts and its history."""
    images = _images(program, state)
    energies, terms = _energies(program, setting, images)
    centre = setting.shared.centre
    return Repelled(
        images=jax.vmap(lambda z: objective.to_image(z, centre))(images),
        energies=energies,
        terms=terms,
        relative_errors=jnp.sqrt(terms.data),
        distances=coarse_distances(images, grid=grid),
        status=jnp.where(state.is_alive, result.BUDGET, result.FAILED).astype(
            jnp.int32
        ),
        dead_start=jnp.zeros(len(images), bool),
        num_revivals=jnp.zeros(len(images), jnp.int32),
        history=np.zeros(0, np.float32),
    )


def _only_phase(plan: Plan) -> Phase:
    phase = plan.phases[0]
    is_plain = len(plan.phases) == 1 and not phase.program.is_random
    if not is_plain or plan.settings.range_bound is not None:
        raise ValueError(
            "images that keep apart have one phase, no jitter, no views and no "
            "range_bound; presets fast, adam and cvpr2015, without these, are accepted"
        )
    return phase


def _images(program: Program, state: _State) -> Float[Array, "s h w c"]:
    """z of every sample."""
    return jax.vmap(program.solver.variable)(state.solver)


def _energies(
    program: Program, setting: _Setting, images: Float[Array, "s h w c"]
) -> tuple[Float[Array, " s"], Terms]:
    return batch.energies(
        program, setting.phi, setting.shared, setting.settings, images
    )


def _repulsion(images: Float[Array, "s h w c"], grid: int, setting: _Setting) -> Scalar:
    """w times the sum over samples of their mean similarity to the others."""
    squared = _squared_distances(images, grid)
    similarity = jnp.exp(-squared / (2 * setting.bandwidth**2))
    num = len(images)
    # The similarity of a sample to itself is exactly 1.
    return setting.weight * (jnp.sum(similarity) - num) / (num - 1)


def _fading(num_steps: int, fade_from: float) -> np.ndarray:
    """Factor of the weight at each step."""
    progress = np.arange(num_steps) / num_steps
    rest = max(1 - fade_from, 1 / num_steps)
    return np.clip((1 - progress) / rest, 0, 1).astype(np.float32)


def _check(
    num: int, weight: ArrayLike, bandwidth: ArrayLike, grid: int, fade_from: float
) -> None:
    if num < 2:
        raise ValueError(f"{num} keys; a set of two or more samples is accepted")
    numbers = np.asarray(weight), np.asarray(bandwidth)
    if not (numbers[0].shape == () and np.isfinite(weight) and numbers[0] >= 0):
        raise ValueError(f"weight is {weight}; a number from 0 up is accepted")
    if not (numbers[1].shape == () and np.isfinite(bandwidth) and numbers[1] > 0):
        raise ValueError(f"bandwidth is {bandwidth}; a number above 0 is accepted")
    if grid < 1:
        raise ValueError(f"grid is {grid}; from 1 up is accepted")
    if not 0 <= fade_from <= 1:
        raise ValueError(f"fade_from is {fade_from}; 0 to 1 is accepted")
