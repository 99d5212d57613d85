"""Whole inversions: finished ones per second, and what the first one has to compile."""

import dataclasses
from collections.abc import Callable

import jax
import numpy as np

from experiments.benchmarks import networks, precisions
from experiments.benchmarks.report import SECONDS, Report, Subject, Unit
from experiments.benchmarks.timing import Contestant, take_turns
from invjax.inversion import dead_starts, loop, request
from invjax.inversion.execution import Execution, default_execution
from invjax.inversion.lane import Phase
from invjax.inversion.request import Plan

RATE = Unit("inversions/s", lambda seconds, work: work / seconds)


def samples(
    report: Report,
    *,
    name: str,
    width: int,
    precision: str,
    num_steps: int | None,
    rounds: int,
) -> None:
    """Times runs of `width` lanes of preset `fast`, from noise to results.

    Args:
      num_steps: the preset's where None.
    """
    plan = _plan(name, width, precision, num_steps)
    (phase,) = plan.phases
    call = _chunk(plan, width, precision, len(phase.schedule))
    # The host's loop has no program of its own: two steps compile everything.
    is_scanned = default_execution().scan
    warm = None if is_scanned else _chunk(plan, width, precision, 2)
    notes = {"steps": len(phase.schedule)}
    subject = Subject("samples", name, width, precision)
    side = Contestant("invjax", call, width, warm, notes)
    report.race(subject, [side], RATE, rounds=rounds)


def compiling(report: Report, *, name: str, width: int, precision: str) -> None:
    """Seconds that a run of lanes takes longer in a process where it is the first.

    Two steps on the host, or one compiled loop of fifty; `bytes_predicted` is of the
    step's program. A persistent compilation cache, if the user has one, counts in.
    """
    num_steps = 50 if default_execution().scan else 2
    plan = _plan(name, width, precision, num_steps)
    jax.clear_caches()
    call = _chunk(plan, width, precision, num_steps)
    timings = take_turns([Contestant("invjax", call)], rounds=1)
    if "invjax" not in timings:
        return
    subject = Subject("compile", name, width, precision)
    report.add(
        subject,
        "invjax",
        value=timings["invjax"].compiling or 0.0,
        unit=SECONDS.name,
        bytes_predicted=_bytes(plan, width, precision),
    )


def _plan(name: str, width: int, precision: str, num_steps: int | None) -> Plan:
    dtype = precisions.compute_dtype(precision)
    phi = networks.random(*networks.find(name), compute_dtype=dtype)
    codes = networks.random_codes(phi, width)
    return request.prepare(codes, phi, width, num_steps=num_steps)


def _chunk(
    plan: Plan, width: int, precision: str, num_steps: int
) -> Callable[[], None]:
    keys = jax.random.split(jax.random.key(0), width)
    (phase,) = plan.phases
    phase = Phase(phase.program, *phase.at(slice(num_steps)))
    short = plan._replace(phases=(phase,))

    def call() -> None:
        with precisions.in_jax(precision):
            result = loop.run(
                keys, short, execution=_execution(width), history_every=10
            )
        jax.block_until_ready(result)

    return call


def _execution(width: int) -> Execution:
    """One compiled loop of all lanes; on CPU the engine's threads, lane by lane."""
    default = default_execution()
    return dataclasses.replace(default, width=width) if default.scan else default


def _bytes(plan: Plan, width: int, precision: str) -> int:
    keys = jax.random.split(jax.random.key(0), width)
    execution = _execution(width)
    lanes = np.arange(execution.width)
    part = plan.of(lanes)
    states = dead_starts.start(keys[lanes], part)
    with precisions.in_jax(precision):
        steps = loop.compile_steps(part, states, scan=execution.scan)
    return loop.num_bytes(steps.call)
