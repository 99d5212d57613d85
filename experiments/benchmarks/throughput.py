"""Whole steps of an inversion, in image-steps per second.

A step is forward, backward to the image, both regularisers and the solver. Ours is the
engine's own, on CPU lane by lane from the engine's host threads, elsewhere the vmapped
chunk with its loop compiled; it also keeps each lane's best image and freezes lanes
that turn non-finite. Preset `adam` has the baselines' solver, plain Adam on pixels;
`fast` adds a pyramid and relaxed derivatives. Stock JAX runs `adam`.
"""

import functools
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
import numpy as np

from experiments.benchmarks import networks, precisions, torch_descent
from experiments.benchmarks.report import Report, Subject, Unit
from experiments.benchmarks.stock import StockRepresentation
from experiments.benchmarks.timing import Contestant
from experiments.benchmarks.torch_descent import Descent
from invjax.callables import TracedCallable
from invjax.inversion import loop, request
from invjax.inversion.batch import scan_steps, start, step
from invjax.inversion.execution import default_execution
from invjax.inversion.lane import LaneState
from invjax.inversion.request import Plan
from invjax.representations.cnn import CnnRepresentation

RATE = Unit("image-steps/s", lambda seconds, work: work / seconds)


def run(
    report: Report,
    *,
    name: str,
    batch: int,
    precision: str,
    baselines: Sequence[str],
    num_steps: int,
    rounds: int,
) -> None:
    """Times our step and the baselines' in turns of `num_steps` steps of all lanes."""
    network, layer = networks.find(name)
    dtype = precisions.compute_dtype(precision)
    phi = networks.random(network, layer, compute_dtype=dtype)
    codes = networks.random_codes(phi, batch)
    keys = jax.random.split(jax.random.key(0), batch)
    work = batch * num_steps
    width = batch if default_execution().scan else 1
    sides = []
    for preset in ("fast", "adam"):
        plan = request.prepare(
            codes[:width], phi, width, num_steps=num_steps, preset=preset
        )
        sides.append(_ours(f"invjax {preset}", plan, keys, precision, work))
    if precisions.STOCK in baselines:
        other = TracedCallable.of(StockRepresentation(phi))
        plan = plan._replace(phi=other)
        sides.append(_ours(precisions.STOCK, plan, keys, precision, work))
    plan = request.prepare(codes, phi, batch, num_steps=num_steps, preset="adam")
    for side in baselines:
        if side != precisions.STOCK:
            call = _theirs(side, phi, plan, keys, precision)
            sides.append(Contestant(side, call, work))
    subject = Subject("throughput", name, batch, precision)
    report.race(subject, sides, RATE, baselines=baselines, rounds=rounds)


def _ours(side: str, plan: Plan, keys: Any, precision: str, work: int) -> Contestant:
    """Steps of as many chunks as the keys fill; all have the plan's problems."""
    execution = default_execution()
    is_scanned = execution.scan
    program = scan_steps if is_scanned else step
    (phase,) = plan.phases
    num_steps = len(phase.schedule)
    paces = [phase.at(number) for number in range(num_steps)]
    if is_scanned:
        paces = [phase.at(slice(None))]
    # A step takes its state over, so each call hands on what the last one left.
    width = len(plan.problems.tv_weight)
    states = [
        start(phase.program, keys[first : first + width], plan.start_scale)
        for first in range(0, len(keys), width)
    ]
    notes: dict[str, object] = {}

    @functools.cache
    def steps() -> Any:
        with precisions.in_jax(precision):
            lowered = program.lower(
                phase.program, plan.phi, plan.problems, states[0], *paces[0]
            )
            compiled = lowered.compile()
        notes["bytes_predicted"] = loop.num_bytes(compiled)
        return compiled

    def descend(state: LaneState) -> LaneState:
        for pace in paces:
            state, _ = steps()(plan.phi, plan.problems, state, *pace)
        return jax.block_until_ready(state)

    def call() -> None:
        steps()
        with ThreadPoolExecutor(execution.num_threads) as pool:
            states[:] = pool.map(descend, states)

    return Contestant(side, call, work, notes=notes)


def _theirs(
    side: str, phi: CnnRepresentation, plan: Plan, keys: Any, precision: str
) -> Callable[[], None]:

    energy = torch_descent.prepare(phi, plan.problems, precision, side)
    (phase,) = plan.phases
    started = start(phase.program, keys, plan.start_scale).last
    descent = Descent(
        energy, np.asarray(started), learning_rate=torch_descent.LEARNING_RATE
    )

    def call() -> None:
        for share in phase.schedule:
            descent.step(float(share))
        torch_descent.wait()

    return call
