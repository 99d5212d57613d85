"""Whole inversions: finished ones per second, and what the first one has to compile."""

from collections.abc import Callable

import jax

from experiments.benchmarks import memory, networks, precisions
from experiments.benchmarks.report import SECONDS, Report, Subject, Unit
from experiments.benchmarks.timing import Contestant, take_turns
from invjax import engine, inversion

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
    call = _chunk(plan, width, precision, len(plan.schedule))
    # The host's loop has no program of its own: two steps compile everything.
    is_scanned = engine.default_execution().scan
    warm = None if is_scanned else _chunk(plan, width, precision, 2)
    notes = {"steps": len(plan.schedule)}
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
) -> inversion.Plan:
    dtype = precisions.compute_dtype(precision)
    phi = networks.random(*networks.find(name), compute_dtype=dtype)
    codes = networks.random_codes(phi, width)
    return inversion.prepare(codes, phi, width, num_steps=num_steps)


def _chunk(
    plan: inversion.Plan, width: int, precision: str, num_steps: int
) -> Callable[[], None]:
    keys = jax.random.split(jax.random.key(0), width)

    def call() -> None:
        with precisions.in_jax(precision):
            result = engine.run_chunk(
                plan.program,
                plan.phi,
                plan.problems,
                keys,
                start_norm=plan.start_norm,
                schedule=plan.schedule[:num_steps],
                history_every=10,
                scan=engine.default_execution().scan,
            )
        jax.block_until_ready(result)

    return call


def _bytes(plan: inversion.Plan, width: int, precision: str) -> int | None:
    is_scanned = engine.default_execution().scan
    program = engine.scan_steps if is_scanned else engine.step
    keys = jax.random.split(jax.random.key(0), width)
    states = engine.start(plan.program, keys, plan.start_norm)
    share = plan.schedule if is_scanned else plan.schedule[0]
    with precisions.in_jax(precision):
        lowered = program.lower(plan.program, plan.phi, plan.problems, states, share)
        return memory.predicted(lowered.compile())
