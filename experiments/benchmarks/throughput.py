"""Whole steps of an inversion, in image-steps per second.

A step is forward, backward to the image, both regularisers and the solver. Our side
takes the very steps of an inversion, compiled and repeated by `invjax.inversion.loop`:
on CPU lane by lane in host threads, elsewhere as a vmapped chunk with a compiled loop.
They also keep each lane's best image and freeze lanes that turn non-finite. Preset
`adam` has the baselines' solver, plain Adam on pixels; `fast` adds a pyramid and
relaxed derivatives. Stock JAX runs `adam`.
"""

import functools
from collections.abc import Callable, Sequence

import jax
import numpy as np

from experiments.benchmarks import networks, precisions
from experiments.benchmarks.report import Report, Subject, Unit
from experiments.benchmarks.stock import StockRepresentation
from experiments.benchmarks.timing import Contestant
from invjax.callables import TracedCallable
from invjax.inversion import batch, execution, loop, request
from invjax.inversion.loop import CompiledPhase
from invjax.inversion.request import Plan
from invjax.representations.cnn import CnnRepresentation
from invjax.types import PRNGKeys

RATE = Unit("image-steps/s", lambda seconds, work: work / seconds)


def run(
    report: Report,
    *,
    name: str,
    num_lanes: int,
    precision: str,
    baselines: Sequence[str],
    num_steps: int,
    rounds: int,
) -> None:
    """Times our step and the baselines' in turns of `num_steps` steps of all lanes.

    Args:
      report: where the records go.
      name: "network/layer"; its weights are random.
      num_lanes: number of lanes that a turn advances.
      precision: a word of `precisions.PRECISIONS`.
      baselines: sides to compare with, as in `precisions.BASELINES`.
      num_steps: number of steps of a turn.
      rounds: number of turns of every side.
    """
    network, layer = networks.find(name)
    dtype = precisions.compute_dtype(precision)
    phi = networks.random(network, layer, compute_dtype=dtype)
    codes = networks.random_codes(phi, num_lanes)
    keys = jax.random.split(jax.random.key(0), num_lanes)
    work = num_lanes * num_steps
    width = num_lanes if execution.default_execution().scan else 1
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
    plan = request.prepare(codes, phi, num_lanes, num_steps=num_steps, preset="adam")
    for side in baselines:
        if side != precisions.STOCK:
            call = _theirs(side, phi, plan, keys, precision)
            sides.append(Contestant(side, call, work))
    subject = Subject("throughput", name, num_lanes, precision)
    report.race(subject, sides, RATE, baselines=baselines, rounds=rounds)


def _ours(
    side: str, plan: Plan, keys: PRNGKeys, precision: str, work: int
) -> Contestant:
    """Steps of as many chunks as the keys fill; every chunk has the plan's settings."""
    chosen = execution.default_execution()
    part = plan.on_device()
    (phase,) = part.phases
    width = part.num_lanes
    # A step takes its state over, so each call hands on what the last one left.
    states = [
        batch.start(phase.program, keys[first : first + width], part.start_scale)
        for first in range(0, len(keys), width)
    ]
    notes: dict[str, object] = {}

    @functools.cache
    def steps() -> CompiledPhase:
        with precisions.in_jax(precision):
            compiled = loop.compile_phase(phase, part, states[0], scan=chosen.scan)
        notes["bytes_predicted"] = compiled.num_bytes
        return compiled

    def call() -> None:
        states[:] = loop.take_steps(steps(), states, phase.pace, execution=chosen)

    return Contestant(side, call, work, notes=notes)


def _theirs(
    side: str, phi: CnnRepresentation, plan: Plan, keys: PRNGKeys, precision: str
) -> Callable[[], None]:
    # Here, since PyTorch may not be installed.
    from experiments.benchmarks import torch_descent

    energy = torch_descent.prepare(
        phi, plan.shared, plan.settings.problem, precision, side
    )
    (phase,) = plan.phases
    start = batch.start(phase.program, keys, plan.start_scale).last
    descent = torch_descent.Descent(
        energy, np.asarray(start), learning_rate=torch_descent.LEARNING_RATE
    )

    def call() -> None:
        for rate_scale in phase.pace.rate_scale:
            descent.step(float(rate_scale))
        torch_descent.wait()

    return call
