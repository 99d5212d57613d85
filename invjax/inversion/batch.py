"""What is compiled: the functions of `lane`, vmapped over lanes and jitted.

This is the one place where lanes are vmapped. Arrays [l, ...] count lanes along their
first axis. Where they are spread over several devices, each device runs the program of
its own lanes (`devices`).
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from invjax.callables import TracedCallable
from invjax.inversion import devices, lane, objective
from invjax.inversion.execution import jit_unoptimised
from invjax.inversion.lane import LaneSettings, LaneState, Pace, Program
from invjax.inversion.objective import Shared
from invjax.inversion.result import Result
from invjax.types import Image, PRNGKey, PRNGKeys, Scalar


@functools.partial(jit_unoptimised, static_argnames=("program", "has_tolerance"))
def start(
    program: Program,
    keys: PRNGKeys,
    scale: Scalar,
    *,
    initial: Float[Array, "l h w c"] | None = None,
    attempt: Int[Array, ""] | None = None,
    has_tolerance: bool = False,
) -> LaneState:
    """`lane.start` for every lane."""

    def one(common: Any, key: PRNGKey, initial: Image | None) -> LaneState:
        scale, attempt = common
        return lane.start(
            program,
            key,
            scale,
            initial=initial,
            attempt=attempt,
            has_tolerance=has_tolerance,
        )

    return _over_lanes(one, (scale, attempt), keys, initial)


@functools.partial(jit_unoptimised, static_argnames="program")
def images(program: Program, states: LaneState) -> Float[Array, "l h w c"]:
    """`lane.image` for every lane."""
    return _over_lanes(lambda _, state: lane.image(program, state), None, states)


@functools.partial(jax.jit, static_argnames="program")
def are_dead(
    program: Program,
    phi: TracedCallable,
    shared: Shared,
    settings: LaneSettings,
    images: Float[Array, "l h w c"],
) -> Bool[Array, " l"]:
    """`objective.is_dead` for every lane, at z [h, w, c] in grey levels."""

    def one(common: Any, settings: LaneSettings, z: Image) -> Bool[Array, ""]:
        phi, shared = common
        return objective.is_dead(
            z, phi, shared, settings.problem, data_term=program.data_term
        )

    return _over_lanes(one, (phi, shared), settings, images)


@functools.partial(jax.jit, static_argnames=("before", "program"))
def next_phase(
    before: Program, program: Program, states: LaneState, keys: PRNGKeys
) -> LaneState:
    """`lane.next_phase` for every lane."""
    return _over_lanes(
        lambda _, state, key: lane.next_phase(before, program, state, key),
        None,
        states,
        keys,
    )


def _over_lanes(one: Callable[..., Any], common: Any, *lanes: Any) -> Any:
    """`one(common, *lane)` for every lane, on the device that it is on."""
    # What lanes have in common is not vmapped over, but still is an argument.
    many = jax.vmap(one, in_axes=(None, *[0] * len(lanes)))
    return devices.on_each(many, common, *lanes)


def _step(
    program: Program,
    phi: TracedCallable,
    shared: Shared,
    settings: LaneSettings,
    states: LaneState,
    pace: Pace,
) -> tuple[LaneState, Float[Array, " l"]]:
    """`lane.step` for the lanes of one device."""
    if pace.relaxation is not None:
        phi = phi.relaxed(pace.relaxation)

    def one(
        shared: Shared, settings: LaneSettings, state: LaneState
    ) -> tuple[LaneState, Scalar]:
        return lane.step(program, phi, shared, settings, state, pace)

    return jax.vmap(one, in_axes=(None, 0, 0))(shared, settings, states)


@functools.partial(jax.jit, static_argnames="program", donate_argnames="states")
def step(
    program: Program,
    phi: TracedCallable,
    shared: Shared,
    settings: LaneSettings,
    states: LaneState,
    pace: Pace,
) -> tuple[LaneState, Float[Array, " l"]]:
    """One step of every lane, and the objectives that the lanes started from.

    Args:
      program: program of the phase.
      phi: the representation.
      shared: what all lanes have in common.
      settings: [l], the numbers of each lane.
      states: [l], the lanes' states; their memory is taken over.
      pace: scalars of this step.
    """

    def steps(common: Any, settings: LaneSettings, states: LaneState) -> Any:
        phi, shared, pace = common
        return _step(program, phi, shared, settings, states, pace)

    return devices.on_each(steps, (phi, shared, pace), settings, states)


@functools.partial(jax.jit, static_argnames="program", donate_argnames="states")
def scan_steps(
    program: Program,
    phi: TracedCallable,
    shared: Shared,
    settings: LaneSettings,
    states: LaneState,
    pace: Pace,
) -> tuple[LaneState, Float[Array, "t l"]]:
    """`step` for the t steps of a pace [t] in one program, and the objectives of each.

    Arguments as in `step`.
    """

    def steps(common: Any, settings: LaneSettings, states: LaneState) -> Any:
        phi, shared, pace = common
        return jax.lax.scan(
            lambda states, now: _step(program, phi, shared, settings, states, now),
            states,
            pace,
        )

    return devices.on_each(
        steps,
        (phi, shared, pace),
        settings,
        states,
        out_specs=(devices.LANES, devices.STEPS_AND_LANES),
    )


@functools.partial(
    jax.jit, static_argnames=("program", "num_steps"), donate_argnames="states"
)
def scan_steps_at_own_pace(
    program: Program,
    phi: TracedCallable,
    shared: Shared,
    settings: LaneSettings,
    states: LaneState,
    pace: Pace,
    *,
    num_steps: int,
) -> tuple[LaneState, Float[Array, "t l"]]:
    """`scan_steps` for lanes that began the phase at different times.

    Each lane reads the pace of the whole phase at the number of steps that it has taken
    in it, and stands still after the last, so that its result is that of a lane alone.

    Args:
      program, phi, shared, settings, states: as in `step`.
      pace: arrays [n], of the whole phase.
      num_steps: t, number of steps that this call takes.
    """

    def steps(common: Any, settings: LaneSettings, states: LaneState) -> Any:
        phi, shared, pace = common

        def one(settings: LaneSettings, state: LaneState) -> tuple[LaneState, Scalar]:
            position = lane.steps_in_phase(state)
            # Beyond the end the index is the last one, and nothing is done.
            now = jax.tree.map(lambda row: row[position], pace)
            relaxed = phi if now.relaxation is None else phi.relaxed(now.relaxation)
            is_due = position < len(pace.rate_scale)
            return lane.step(
                program, relaxed, shared, settings, state, now, is_due=is_due
            )

        return jax.lax.scan(
            lambda states, _: jax.vmap(one)(settings, states), states, length=num_steps
        )

    return devices.on_each(
        steps,
        (phi, shared, pace),
        settings,
        states,
        out_specs=(devices.LANES, devices.STEPS_AND_LANES),
    )


def finish(
    program: Program,
    phi: TracedCallable,
    shared: Shared,
    settings: LaneSettings,
    states: LaneState,
) -> Result:
    """`lane.finish` for every lane; `history` is [l], the final objectives.

    A lane whose last step took it to where its energy is not finite has failed, too.
    """
    final = images(program, states)
    result = _finish(program, phi, shared, settings, states, final)
    is_alive, energy = jax.device_get((states.is_alive, result.energy))
    has_failed = is_alive & ~np.isfinite(energy)
    if np.any(has_failed):
        states = states._replace(is_alive=states.is_alive & ~has_failed)
        result = _finish(program, phi, shared, settings, states, final)
    return result


@functools.partial(jit_unoptimised, static_argnames="program")
def _finish(
    program: Program,
    phi: TracedCallable,
    shared: Shared,
    settings: LaneSettings,
    states: LaneState,
    final: Float[Array, "l h w c"],
) -> Result:
    def one(
        common: Any, settings: LaneSettings, state: LaneState, final: Image
    ) -> Result:
        phi, shared = common
        return lane.finish(program, phi, shared, settings, state, final)

    return _over_lanes(one, (phi, shared), settings, states, final)


def energies(
    program: Program,
    phi: TracedCallable,
    shared: Shared,
    settings: LaneSettings,
    images: Float[Array, "l h w c"],
) -> tuple[Float[Array, " l"], objective.Terms]:
    """`Program.energy_at` for every lane, at z [h, w, c] in grey levels; not jitted."""

    def one(settings: LaneSettings, z: Image) -> tuple[Scalar, objective.Terms]:
        return program.energy_at(z, phi, shared, settings.problem)

    return jax.vmap(one)(settings, images)


@jax.jit
def take_lanes(tree: Any, places: Int[Array, " k"]) -> Any:
    """The rows at these places of every array [l, ...] of a tree.

    Args:
      tree: tree of arrays.
      places: numbers of lanes; on several devices as many for each, counted on it.
    """

    def take(_: None, tree: Any, places: Int[Array, " k"]) -> Any:
        return jax.tree.map(lambda leaf: leaf[places], tree)

    return devices.on_each(take, None, tree, places)


@functools.partial(jax.jit, donate_argnames="tree")
def put_lanes(tree: Any, rows: Any, places: Int[Array, " k"]) -> Any:
    """The arrays [l, ...] of a tree with other rows at these places.

    Args:
      tree: tree of arrays; their memory is taken over.
      rows: tree of arrays [k, ...].
      places: as in `take_lanes`, each at most once; a row whose place is l is left out.
    """

    def put(_: None, tree: Any, rows: Any, places: Int[Array, " k"]) -> Any:
        return jax.tree.map(
            lambda leaf, row: leaf.at[places].set(row, mode="drop"), tree, rows
        )

    return devices.on_each(put, None, tree, rows, places)


@jax.jit
def replace_lanes(
    is_new: Bool[Array, " l"], new: LaneState, old: LaneState
) -> LaneState:
    """The new states of the lanes where `is_new`, the old ones of the others."""
    return _over_lanes(lambda _, *each: lane.select(*each), None, is_new, new, old)
