"""Whole steps of an inversion, in image-steps per second.

A step is forward, backward to the image, both regularisers and the solver. Ours is the
engine's own, of preset `fast`: on CPU one lane after the other from the host, elsewhere
the vmapped chunk with its loop compiled. It also keeps each lane's best image and
freezes lanes that turn non-finite, and its solver has two Fourier transforms more than
the baselines' plain Adam.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.benchmarks import memory, networks, peers, precisions, stock
from experiments.benchmarks.report import Report, Subject, Unit
from experiments.benchmarks.timing import Contestant
from invjax import engine, inversion
from invjax.representations import tracing
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
    width = batch if engine.default_execution().scan else 1
    plan = inversion.prepare(codes[:width], phi, width, num_steps=num_steps)
    sides = [_ours("invjax", plan, keys, precision, work)]
    if peers.STOCK in baselines:
        other = tracing.Argument.of(stock.StockRepresentation(phi))
        plan = plan._replace(phi=other)
        sides.append(_ours(peers.STOCK, plan, keys, precision, work))
    plan = inversion.prepare(codes, phi, batch, num_steps=num_steps)
    for side in baselines:
        if side != peers.STOCK:
            call = _theirs(side, phi, plan, keys, precision)
            sides.append(Contestant(side, call, work))
    subject = Subject("throughput", name, batch, precision)
    report.race(subject, sides, RATE, baselines=baselines, rounds=rounds)


def _ours(
    side: str, plan: inversion.Plan, keys: Any, precision: str, work: int
) -> Contestant:
    """Steps of as many chunks as the keys fill; all have the plan's problems."""
    is_scanned = engine.default_execution().scan
    program = engine.scan_steps if is_scanned else engine.step
    shares = [jnp.asarray(plan.schedule)] if is_scanned else list(plan.schedule)
    # A step takes its state over, so each call hands on what the last one left.
    width = len(plan.problems.tv_weight)
    states = [
        engine.start(plan.program, keys[first : first + width], plan.start_norm)
        for first in range(0, len(keys), width)
    ]
    notes: dict[str, object] = {}

    @functools.cache
    def steps() -> Any:
        with precisions.in_jax(precision):
            lowered = program.lower(
                plan.program, plan.phi, plan.problems, states[0], shares[0]
            )
            compiled = lowered.compile()
        notes["bytes_predicted"] = memory.predicted(compiled)
        return compiled

    def call() -> None:
        for number in range(len(states)):
            for share in shares:
                states[number], energies = steps()(
                    plan.phi, plan.problems, states[number], share
                )
            jax.block_until_ready(energies)

    return Contestant(side, call, work, notes=notes)


def _theirs(
    side: str, phi: CnnRepresentation, plan: inversion.Plan, keys: Any, precision: str
) -> Callable[[], None]:
    from experiments.benchmarks import torch_descent

    energy = torch_descent.prepare(phi, plan.problems, precision, side)
    start = engine.start(plan.program, keys, plan.start_norm).last
    descent = torch_descent.Descent(
        energy, np.asarray(start), learning_rate=torch_descent.LEARNING_RATE
    )

    def call() -> None:
        for share in plan.schedule:
            descent.step(float(share))
        torch_descent.wait()

    return call
