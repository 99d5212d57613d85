"""Whole inversions: finished ones per second, and what the first one has to compile."""

from collections.abc import Callable

import jax

from experiments.benchmarks import networks, precisions
from experiments.benchmarks.report import SECONDS, Report, Subject, Unit
from experiments.benchmarks.timing import Contestant, take_turns
from invjax import chunks, engine, planning, programs, starting

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
    """Times chunks of `width` lanes of preset `fast`, from noise to results.

    Args:
      num_steps: the preset's where None.
    """
    plan = _plan(name, width, precision, num_steps)
    (phase,) = plan.phases
    call = _chunk(plan, width, precision, len(phase.schedule))
    # The host's loop has no program of its own: two steps compile everything.
    is_scanned = engine.default_execution().scan
    warm = None if is_scanned else _chunk(plan, width, precision, 2)
    notes = {"steps": len(phase.schedule)}
    subject = Subject("samples", name, width, precision)
    side = Contestant("invjax", call, width, warm, notes)
    report.race(subject, [side], RATE, rounds=rounds)


def compiling(report: Report, *, name: str, width: int, precision: str) -> None:
    """Seconds that a chunk of lanes takes longer in a process where it is the first.

    Two steps on the host, or one compiled loop of fifty; `bytes_predicted` is of the
    step's program. A persistent compilation cache, if the user has one, counts in.
    """
    num_steps = 50 if engine.default_execution().scan else 2
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


def _plan(
    name: str, width: int, precision: str, num_steps: int | None
) -> planning.Plan:
    dtype = precisions.compute_dtype(precision)
    phi = networks.random(*networks.find(name), compute_dtype=dtype)
    codes = networks.random_codes(phi, width)
    return planning.prepare(codes, phi, width, num_steps=num_steps)


def _chunk(
    plan: planning.Plan, width: int, precision: str, num_steps: int
) -> Callable[[], None]:
    keys = jax.random.split(jax.random.key(0), width)
    (phase,) = plan.phases
    phase = programs.Phase(phase.program, *phase.at(slice(num_steps)))
    short = plan._replace(phases=(phase,))

    def call() -> None:
        with precisions.in_jax(precision):
            result = chunks.run_chunk(
                keys, short, history_every=10, scan=engine.default_execution().scan
            )
        jax.block_until_ready(result)

    return call


def _bytes(plan: planning.Plan, width: int, precision: str) -> int:
    keys = jax.random.split(jax.random.key(0), width)
    states = starting.start(keys, plan)
    is_scanned = engine.default_execution().scan
    with precisions.in_jax(precision):
        steps = chunks.compile_steps(plan, states, scan=is_scanned)
    return chunks.num_bytes(steps.call)
