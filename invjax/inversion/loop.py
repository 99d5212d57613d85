"""The loop on the host: lanes in chunks, through the phases and steps of a descent.

A run is a sequence of chunks of a fixed width. On CPU the width is one lane and the
compiled program one step: XLA does not parallelise convolutions inside its loops there,
and a lane has the same bits whatever else is asked for. Chunks then run side by side in
host threads, as one step keeps a core busy for part of the time only. On GPU and TPU
the lanes of a chunk are vmapped and the steps scanned; the width is part of a result's
identity, and a chunk has that many lanes on each device (`devices`).

Chunks overlap: while one descends, the next one is prepared and waits in line, so that
the device does not stand still while the host finishes a chunk, fetches its results and
hands them on. With a compiled loop a chunk's numbers go to the device once before its
steps and come back once after them; between its calls nothing is transferred.

What JAX is configured to do within a `with` block, such as a matmul precision, holds in
the thread of that block alone. Everything that computes with a representation is
therefore compiled or called by the thread that asked for the run; the other threads
only repeat compiled steps.
"""

import dataclasses
import itertools
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from invjax.inversion import (
    batch,
    dead_starts,
    devices,
    keeping,
    lane,
    objective,
    watching,
)
from invjax.inversion.execution import Execution
from invjax.inversion.keeping import Keeper
from invjax.inversion.lane import LaneState, Pace, Phase, Program
from invjax.inversion.request import Plan
from invjax.inversion.result import Result
from invjax.inversion.watching import Watcher
from invjax.types import PRNGKeys

SCAN_STEPS = 50
"""Number of steps that one call of a compiled loop takes."""

_STEPS_BETWEEN_CHECKS = 5
"""Steps between convergence checks of a host loop; each check blocks on the device."""

Carry = TypeVar("Carry")


def chunks(lanes: np.ndarray, width: int) -> Iterator[tuple[np.ndarray, int]]:
    """The lanes of each chunk, [width], and how many of them count.

    The last chunk is filled up with copies of its first lane.

    Args:
      lanes: [l], numbers of lanes.
      width: number of lanes of a chunk.
    """
    for first in range(0, len(lanes), width):
        own = lanes[first : first + width]
        filling = np.full(width - len(own), own[0])
        yield np.concatenate([own, filling]), len(own)


def advance(
    call: Callable[[Carry, Any], tuple[Carry, Any]],
    carry: Carry,
    paces: Any,
    *,
    scan: bool,
    first: int = 0,
) -> Iterator[tuple[int, Carry, Any]]:
    """Takes the steps of a schedule one by one, or `SCAN_STEPS` to a compiled call.

    This is the only loop over steps: inversion, repulsion and Markov chains share it.

    Args:
      call: takes (carry, pace) one step or, with `scan`, as many as the pace has rows.
      carry: what is carried from step to step; its memory may be taken over.
      paces: tree of arrays [t], what changes from step to step.
      scan: whether `call` is a compiled loop.
      first: the step to begin with, which a former call has ended before.

    Yields:
      After each call: the number of its first step, the carry, and what else the call
      returned.
    """
    (num_steps,) = {len(row) for row in jax.tree.leaves(paces)}
    firsts = range(first, num_steps, _steps_per_call(scan))

    def pace_at(first: int) -> Any:
        steps = slice(first, first + SCAN_STEPS) if scan else first
        return jax.tree.map(lambda row: row[steps], paces)

    if scan:
        # All of them at once, so that no call waits for a transfer.
        rows: Iterable[Any] = devices.replicate(
            [pace_at(first) for first in firsts], devices.mesh_of(carry)
        )
    else:
        rows = map(pace_at, firsts)
    for first, pace in zip(firsts, rows, strict=True):
        carry, values = call(carry, pace)
        yield first, carry, values


def stream(
    keys: PRNGKeys,
    plan: Plan,
    *,
    execution: Execution,
    history_every: int,
    lanes: np.ndarray | None = None,
    keeper: Keeper | None = None,
    watchers: Sequence[Watcher] = (),
) -> Generator[tuple[np.ndarray, Result], None, None]:
    """Runs the lanes of a plan chunk by chunk.

    Args:
      keys: [l], the lanes' keys.
      plan: the plan of these lanes, on the host.
      execution: the width of the chunks, and how they are run.
      history_every: k of `Result.history`.
      lanes: numbers of the lanes to run; None for all.
      keeper: keeps the states of chunks; None for nobody.
      watchers: look at the lanes while they descend.

    Yields:
      Numbers [n] of lanes that have ended, in order, and their results, with fields
      [n, ...] in the host's memory.
    """
    running: deque[tuple[np.ndarray, Plan, Future[_Descent]]] = deque()

    def end_oldest() -> tuple[np.ndarray, Result]:
        numbers, part, descent = running.popleft()
        # Waiting here also lets an interrupt through.
        result = _finish(part, descent.result())
        kept = len(numbers)
        return numbers, jax.tree.map(lambda leaf: leaf[:kept], result)

    is_over = threading.Event()
    plan = plan.spread(execution.mesh)
    lanes = np.arange(len(keys)) if lanes is None else lanes
    with ThreadPoolExecutor(execution.num_threads) as pool:
        try:
            for chunk, kept in chunks(lanes, execution.lanes_per_call):
                part = plan.of(chunk)
                chunk_keys = plan.place(keys[chunk])
                states = dead_starts.begin(chunk_keys, part)
                steps = compile_phases(chunk_keys, part, states, scan=execution.scan)
                descent = pool.submit(
                    _descend,
                    chunk_keys,
                    part,
                    steps,
                    states,
                    history_every=history_every,
                    scan=execution.scan,
                    is_over=is_over,
                    keeper=keeper,
                    watchers=watchers,
                    lanes=chunk[:kept],
                )
                running.append((chunk[:kept], part, descent))
                # The newest waits in the pool: no thread stands still while the oldest
                # is finished here and handed to the caller.
                if len(running) > execution.num_threads:
                    yield end_oldest()
            while running:
                yield end_oldest()
        finally:
            # After an interrupt the other threads stop at their next step.
            is_over.set()


@dataclasses.dataclass(frozen=True)
class CompiledPhase:
    """The compiled steps of a phase.

    Attributes:
      by_num_steps: programs by the number of steps that a call takes.
      plan: the plan of the lanes, on the device.
      whole: the pace of the whole phase, where that is what the programs take.
    """

    by_num_steps: dict[int, jax.stages.Compiled]
    plan: Plan
    whole: Pace | None = None

    def __call__(self, states: LaneState, pace: Pace) -> tuple[LaneState, Any]:
        """Takes the steps of a pace: scalars for one step, arrays [t] for t."""
        call = self.by_num_steps[np.size(pace.rate_scale)]
        plan = self.plan
        pace = pace if self.whole is None else self.whole
        return call(plan.phi, plan.shared, plan.settings, states, pace)

    @property
    def steps_per_call(self) -> int:
        """Number of steps of the longest call."""
        return max(self.by_num_steps)

    @property
    def num_bytes(self) -> int:
        """Memory on each device during the longest call; see `num_bytes`."""
        return num_bytes(self.by_num_steps[self.steps_per_call])


def compile_phases(
    keys: PRNGKeys, plan: Plan, states: LaneState, *, scan: bool
) -> list[CompiledPhase]:
    """Compiles the steps of every phase; JAX keeps those of former chunks.

    Args:
      keys: [l], the lanes' keys.
      plan: the plan of a chunk's lanes, on the device (`Plan.of`).
      states: [l], the lanes' states before their first step.
      scan: whether the loop over steps is compiled.
    """
    phases: list[CompiledPhase] = []
    for number, phase in enumerate(plan.phases):
        if number > 0:
            before = plan.phases[number - 1].program
            states = batch.next_phase.eval_shape(before, phase.program, states, keys)
        phases.append(compile_phase(phase, plan, states, scan=scan))
    return phases


def compile_phase(
    phase: Phase, plan: Plan, states: LaneState, *, scan: bool
) -> CompiledPhase:
    """Compiles the steps of one phase; arguments as in `compile_phases`."""
    step = batch.scan_steps if scan else batch.step
    most = _steps_per_call(scan)
    sizes = {min(most, phase.num_steps), phase.num_steps % most or most}
    compiled = {}
    for size in sizes:
        steps = slice(phase.num_steps - size, None) if scan else 0
        pace = jax.tree.map(lambda row, steps=steps: row[steps], phase.pace)
        lowered = step.lower(
            phase.program, plan.phi, plan.shared, plan.settings, states, pace
        )
        compiled[size] = lowered.compile()
    return CompiledPhase(compiled, plan)


def num_bytes(compiled: jax.stages.Compiled) -> int:
    """Memory on each device while a program runs: arguments, temporaries and results.

    Memory that arguments and results share counts once. 0 where the backend does not
    say.
    """
    memory = compiled.memory_analysis()
    if memory is None:
        return 0
    return (
        memory.argument_size_in_bytes
        + memory.temp_size_in_bytes
        + memory.output_size_in_bytes
        - memory.alias_size_in_bytes
    )


def waiting_bytes(plan: Plan, states: LaneState) -> int:
    """Memory on each device of a chunk that is prepared while others descend.

    Args:
      plan: the plan of a chunk's lanes, on the device.
      states: [l], the lanes' states.
    """
    own = (plan.settings, plan.initial, states)
    num_devices = 1 if plan.mesh is None else plan.mesh.size
    return sum(leaf.nbytes for leaf in jax.tree.leaves(own)) // num_devices


def seconds_per_step(
    step: CompiledPhase, states: LaneState, paces: Pace, *, execution: Execution
) -> float:
    """Measures a step of as many chunks as run side by side.

    Args:
      step: compiled steps of a phase.
      states: [l], states of one chunk; they are copied.
      paces: arrays [t], the steps to be timed; they are taken twice, first untimed.
      execution: number of threads, and whether the loop over steps is compiled.
    """
    copies = [jax.tree.map(jnp.copy, states) for _ in range(execution.num_threads)]
    begun = take_steps(step, copies, paces, execution=execution)
    began = time.perf_counter()
    take_steps(step, begun, paces, execution=execution)
    seconds = time.perf_counter() - began
    return seconds / len(paces.rate_scale)


def take_steps(
    step: CompiledPhase,
    states: Sequence[LaneState],
    paces: Pace,
    *,
    execution: Execution,
) -> list[LaneState]:
    """Takes the same steps with several chunks, side by side in threads as `stream`.

    Args:
      step: compiled steps of a phase.
      states: [l] each, the lanes' states of every chunk; their memory is taken over.
      paces: arrays [t], the steps to be taken.
      execution: number of threads, and whether the loop over steps is compiled.

    Returns:
      The states after the last step, which has been waited for.
    """

    def descend(one: LaneState) -> LaneState:
        for _, moved, _ in advance(step, one, paces, scan=execution.scan):
            one = moved
        return jax.block_until_ready(one)

    with ThreadPoolExecutor(execution.num_threads) as pool:
        return list(pool.map(descend, states))


class _Descent(NamedTuple):
    """Where a chunk of lanes is, and its history so far.

    Attributes:
      states: [l], the lanes' states.
      history: [l, t], `Result.history`; NaN for what is to come and in the last column.
    """

    states: LaneState
    history: np.ndarray


def _steps_per_call(scan: bool) -> int:
    return SCAN_STEPS if scan else 1


def _descend(
    keys: PRNGKeys,
    plan: Plan,
    steps: list[CompiledPhase],
    states: LaneState,
    *,
    history_every: int,
    scan: bool,
    is_over: threading.Event,
    keeper: Keeper | None = None,
    watchers: Sequence[Watcher] = (),
    lanes: np.ndarray | None = None,
) -> _Descent:
    """Takes a chunk of lanes through all phases.

    A phase ends early where all lanes have converged. Where the chunk has a state that
    was kept, the descent begins there.

    Args:
      keys: [l], the lanes' keys.
      plan: the plan of these lanes, on the device.
      steps: compiled steps of each phase.
      states: [l], the lanes' states before their first step.
      history_every: k of `Result.history`.
      scan: whether the loop over steps is compiled.
      is_over: set when nobody waits for the result any more.
      keeper: keeps the chunk's state; None for nobody.
      watchers: look at the lanes.
      lanes: [n], numbers of the lanes, without those that fill the chunk up; None where
        nobody looks.
    """
    history = plan.empty_history(plan.num_lanes, history_every)
    wanted: list[tuple[int, Any]] = []

    def fetch() -> None:
        for first, values in jax.device_get(wanted):
            rows = values.reshape(-1, plan.num_lanes)
            kept = rows[-first % history_every :: history_every]
            column = -(-first // history_every)
            history[:, column : column + len(kept)] = kept.T
        wanted.clear()

    def show(program: Program, num_before: int, num_after: int) -> None:
        if not watchers or lanes is None:
            return
        everyone = np.ones(len(lanes), int)

        def images() -> np.ndarray:
            return host_images(program, states, plan)[: len(lanes)]

        watching.show(
            watchers,
            lanes,
            num_before * everyone,
            num_after * everyone,
            images,
            total=plan.num_steps,
        )

    before: Any = ()
    done = begun = 0
    if keeper is not None:
        name = _name(keys, plan, history_every=history_every, scan=scan)
        found = keeper.restore(name, lambda at: _types(keys, plan, states, history, at))
        if found is not None:
            begun, (kept_states, history) = found
            states = plan.place(kept_states)
    if not begun:
        show(plan.phases[0].program, 0, 0)
    for number, phase in enumerate(plan.phases):
        # What was kept is the state of the phase whose step was the last one.
        if begun <= done and number > 0:
            last = plan.phases[number - 1].program
            states = batch.next_phase(last, phase.program, states, keys)
        for first, moved, values in advance(
            steps[number], states, phase.pace, scan=scan, first=max(begun - done, 0)
        ):
            states = moved
            rows = phase.pace.rate_scale[first : first + _steps_per_call(scan)].size
            if -(done + first) % history_every < rows:
                wanted.append((done + first, values))
            if keeper is not None and keeper.is_due(name):
                fetch()
                keeper.save(name, done + first + rows, _Descent(states, history))
            show(phase.program, done + first, done + first + rows)
            # The queue of the device stays short, so that an interrupt takes effect.
            jax.block_until_ready(before)
            before = values
            is_check = scan or (first + 1) % _STEPS_BETWEEN_CHECKS == 0
            if is_over.is_set() or (
                plan.has_tolerance
                and is_check
                and not np.any(lane.is_descending(states))
            ):
                break
        done += phase.num_steps
    fetch()
    return _Descent(jax.block_until_ready(states), history)


def host_images(program: Program, states: LaneState, plan: Plan) -> np.ndarray:
    """Images [l, h, w, c] of lanes as they are now, in the host's memory.

    Args:
      program: program of the phase.
      states: [l], the lanes' states.
      plan: the plan of these lanes.
    """
    variables = batch.images(program, states)
    return np.asarray(
        jax.vmap(objective.to_image, (0, None))(variables, plan.shared.centre)
    )


def _name(keys: PRNGKeys, plan: Plan, *, history_every: int, scan: bool) -> str:
    """Says what is in a chunk and how it is run, for its keeper."""
    lengths = [phase.num_steps for phase in plan.phases]
    options = (lengths, plan.dead_relu, history_every, scan, _steps_per_call(scan))
    return keeping.name_of(keys, plan.settings, plan.initial, options=options)


def _types(
    keys: PRNGKeys, plan: Plan, states: LaneState, history: np.ndarray, num_steps: int
) -> _Descent:
    """The types of what is kept of a chunk after so many steps."""
    now: Any = jax.eval_shape(lambda: states)
    done = 0
    for before, phase in itertools.pairwise(plan.phases):
        done += before.num_steps
        if num_steps <= done:
            break
        now = batch.next_phase.eval_shape(before.program, phase.program, now, keys)
    return _Descent(now, history)


def _finish(plan: Plan, descent: _Descent) -> Result:
    """The results of a chunk, in the host's memory."""
    program = plan.phases[-1].program
    result = jax.device_get(
        batch.finish(program, plan.phi, plan.shared, plan.settings, descent.states)
    )
    descent.history[:, -1] = result.history
    return result._replace(history=descent.history)
