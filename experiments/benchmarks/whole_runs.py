"""Whole inversions: how many per second, and what the first one has to compile."""

from collections.abc import Callable

import jax

from experiments.benchmarks import networks, precisions
from experiments.benchmarks.conditions import one_chunk
from experiments.benchmarks.report import SECONDS, Report, Subject, Unit
from experiments.benchmarks.timing import Contestant, take_turns
from invjax.inversion import api, execution, loop, request
from invjax.inversion.request import Plan
from invjax.representations.cnn import CnnRepresentation

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
      report: where the record goes.
      name: "network/layer"; its weights are random.
      width: number of lanes of a run.
      precision: a word of `precisions.PRECISIONS`.
      num_steps: number of steps of a run; by default the preset's.
      rounds: number of timed runs.
    """
    phi = _representation(name, precision)
    plan = _plan(phi, width, num_steps)
    call = _run(plan, width, precision)
    # The host's loop has no program of its own: two steps compile everything.
    is_scanned = execution.default_execution().scan
    warm = None if is_scanned else _run(_plan(phi, width, 2), width, precision)
    subject = Subject("samples", name, width, precision)
    side = Contestant("invjax", call, width, warm, {"steps": plan.num_steps})
    report.race(subject, [side], RATE, rounds=rounds)


def compiling(report: Report, *, name: str, width: int, precision: str) -> None:
    """Seconds that a run of lanes takes longer in a process where it is the first.

    Two steps on the host, or one compiled loop of 50; `bytes_predicted` is the memory
    that the step's program needs. A persistent compilation cache, if the user has one,
    counts in.
    """
    num_steps = loop.SCAN_STEPS if execution.default_execution().scan else 2
    phi = _representation(name, precision)
    call = _run(_plan(phi, width, num_steps), width, precision)
    jax.clear_caches()
    timings = take_turns([Contestant("invjax", call)], rounds=1)
    if "invjax" not in timings:
        return
    (code,) = networks.random_codes(phi, 1)
    with precisions.in_jax(precision):
        num_bytes = api.chunk_bytes(
            code, phi, num_steps=num_steps, execution=one_chunk(width)
        )
    subject = Subject("compile", name, width, precision)
    report.add(
        subject,
        "invjax",
        value=timings["invjax"].compiling or 0.0,
        unit=SECONDS.name,
        bytes_predicted=num_bytes,
    )


def _representation(name: str, precision: str) -> CnnRepresentation:
    dtype = precisions.compute_dtype(precision)
    return networks.random(*networks.find(name), compute_dtype=dtype)


def _plan(phi: CnnRepresentation, width: int, num_steps: int | None) -> Plan:
    codes = networks.random_codes(phi, width)
    return request.prepare(codes, phi, width, num_steps=num_steps)


def _run(plan: Plan, width: int, precision: str) -> Callable[[], None]:
    keys = jax.random.split(jax.random.key(0), width)

    def call() -> None:
        with precisions.in_jax(precision):
            results = loop.stream(
                keys, plan, execution=one_chunk(width), history_every=10
            )
            for _ in results:
                pass

    return call
