"""Whole steps of an inversion, in image-steps per second.

A step is forward, backward to the image, both regularisers and the solver. Our side
takes the very steps of an inversion, compiled and repeated by `invjax.inversion.loop`:
on CPU lane by lane in host threads, elsewhere as a vmapped chunk with a compiled loop.
They also keep each lane's best image and freeze lanes that turn non-finite. Preset
`adam` has the baselines' solver, plain Adam on pixels; `fast` adds a pyramid and
relaxed derivatives. Stock JAX runs `adam`.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

import invjax
from experiments.benchmarks import networks, precisions, timing
from experiments.benchmarks.conditions import Conditions
from experiments.benchmarks.report import Report, Subject, Unit
from experiments.benchmarks.stock import StockRepresentation
from experiments.benchmarks.timing import Contestant
from invjax.callables import TracedCallable
from invjax.inversion import batch, execution, loop, presets, request
from invjax.inversion.loop import CompiledPhase
from invjax.inversion.request import Plan
from invjax.representations.cnn import CnnRepresentation
from invjax.types import PRNGKeys, Representation

RATE = Unit("image-steps/s", lambda seconds, work: work / seconds)

SHALLOW_SHAPE = (224, 224, 1)
"""Shape of the images of shallow representations."""

_CASES = (
    ("alexnet/relu5", 512),
    ("vgg16/relu3_3", 64),
    ("efficientnet_lite0/pooled", 128),
    ("alexnet/relu5", 256),
    ("alexnet/relu5", 1024),
    ("alexnet/relu5", 64),
    ("alexnet/relu5", 16),
    ("hogb", 64),
    ("dsift", 64),
    ("vgg16/relu3_3", 32),
    ("efficientnet_lite0/pooled", 64),
)
"""Representations and batches on an accelerator, the most wanted first."""

_NUM_COMPARED = 3
"""The first so many cases are compared with stock JAX and PyTorch."""

_SMALL_CASES = (("alexnet/relu1", 2), ("hogb", 2))

TARGETS = {
    ("alexnet/relu5", 512, "tf32"): (85_000, 2.0),
    ("alexnet/relu5", 512, "bfloat16"): (134_000, 2.5),
}
"""What preset `fast` should reach on an H100: image-steps/s, times torch.compile."""


def cases(*, is_small: bool) -> tuple[tuple[str, int], ...]:
    """Pairs (representation, batch) that the accelerator suite measures."""
    return _SMALL_CASES if is_small else _CASES


def run_cases(report: Report, conditions: Conditions) -> None:
    """The throughput part of the accelerator suite.

    The first cases are compared with all baselines that there are, in both precisions;
    the others have only our own presets, since every further side takes seconds to
    compile.

    Args:
      report: where the records go.
      conditions: as a trial, few lanes take one step.
    """
    baselines = precisions.available(("stock", "eager", "compile"))
    if conditions.is_small:
        baselines = tuple(side for side in baselines if side != "torch compile")
    for number, (name, num_lanes) in enumerate(cases(is_small=conditions.is_small)):
        for precision in conditions.fast_precisions:
            if not _is_network(name) and precision == "bfloat16":
                continue
            first = len(report.records)
            run(
                report,
                name=name,
                num_lanes=num_lanes,
                precision=precision,
                baselines=baselines if number < _NUM_COMPARED else (),
                num_steps=1 if conditions.is_small else loop.SCAN_STEPS,
                rounds=1 if conditions.is_small else 5,
            )
            for record in report.records[first:]:
                if record["side"] == "invjax fast":
                    record["note"] = _verdict(record)
                    record["headline"] = True
            report.write()
    for precision in conditions.fast_precisions:
        run_views(
            report,
            name="efficientnet_lite0/logits",
            num_lanes=2 if conditions.is_small else 64,
            precision=precision,
            num_steps=1 if conditions.is_small else loop.SCAN_STEPS,
            rounds=1 if conditions.is_small else 5,
        )


def _verdict(record: Mapping[str, Any]) -> str:
    """How a record of preset `fast` compares with the baselines and the targets."""
    ratios = [f"{ratio:.2f} x {side}" for side, ratio in record["speed_ratios"].items()]
    target = TARGETS.get((record["what"], record["batch"], record["precision"]))
    if target is not None and "H100" in record["device"]:
        rate, times = target
        ratio = record["speed_ratios"].get("torch compile")
        ratios.append(
            f"target {rate:,}: {'met' if record['value'] >= rate else 'missed'}"
        )
        if ratio is not None:
            ratios.append(
                f"target {times} x compile: {'met' if ratio >= times else 'missed'}"
            )
    return ", ".join(ratios)


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
      name: "network/layer", whose weights are random, or a shallow representation,
        which stock JAX and PyTorch do not have.
      num_lanes: number of lanes that a turn advances.
      precision: a word of `precisions.PRECISIONS`.
      baselines: sides to compare with, as in `precisions.BASELINES`.
      num_steps: number of steps of a turn.
      rounds: number of turns of every side.
    """
    phi, codes = problem(name, num_lanes, precision)
    shape = image_shape(phi)
    keys = jax.random.split(jax.random.key(0), num_lanes)
    work = num_lanes * num_steps
    width = num_lanes if execution.default_execution().scan else 1
    sides = []
    for preset in ("fast", "adam"):
        plan = request.prepare(
            codes[:width],
            phi,
            width,
            image_shape=shape,
            num_steps=num_steps,
            preset=preset,
        )
        sides.append(_ours(f"invjax {preset}", plan, keys, precision, work))
    if not isinstance(phi, CnnRepresentation):
        baselines = ()
    if precisions.STOCK in baselines:
        assert isinstance(phi, CnnRepresentation)
        other = TracedCallable.of(StockRepresentation(phi))
        plan = plan._replace(phi=other)
        sides.append(_ours(precisions.STOCK, plan, keys, precision, work))
    for side in baselines:
        if side != precisions.STOCK:
            assert isinstance(phi, CnnRepresentation)
            plan = request.prepare(
                codes, phi, num_lanes, num_steps=num_steps, preset="adam"
            )
            call = _theirs(side, phi, plan, keys, precision)
            sides.append(Contestant(side, call, work))
    subject = Subject("throughput", name, num_lanes, precision)
    report.race(subject, sides, RATE, baselines=baselines, rounds=rounds)


def run_views(
    report: Report,
    *,
    name: str,
    num_lanes: int,
    precision: str,
    num_steps: int,
    rounds: int,
) -> None:
    """Times steps of preset `natural`, which sees a view at each, beside plain ones.

    The plain steps are the preset's without views, on a canvas of the image's size. A
    code whose features have places is left out: the preset has no views for it.

    Args:
      report: where the records go.
      name: "network/layer" whose weights are random.
      num_lanes, precision, num_steps, rounds: as in `run`.
    """
    phi, codes = problem(name, num_lanes, precision)
    if presets.find("natural", phi=phi).views is None:
        timing.print_left_out(
            f"views {name}", "preset natural has none where features have places"
        )
        return
    keys = jax.random.split(jax.random.key(0), num_lanes)
    width = num_lanes if execution.default_execution().scan else 1
    seeing = request.prepare(
        codes[:width],
        phi,
        width,
        image_shape=image_shape(phi),
        num_steps=num_steps,
        preset="natural",
    )
    (phase,) = seeing.phases
    plain = phase._replace(
        program=dataclasses.replace(phase.program, views=None),
        pace=phase.pace._replace(view_strength=None),
    )
    baseline = "invjax natural without views"
    sides = [
        _ours(side, plan, keys, precision, num_lanes * num_steps)
        for side, plan in (
            ("invjax natural", seeing),
            (baseline, seeing._replace(phases=(plain,))),
        )
    ]
    subject = Subject("views", name, num_lanes, precision)
    report.race(subject, sides, RATE, baselines=(baseline,), rounds=rounds)


def problem(
    name: str, number: int, precision: str
) -> tuple[Representation, np.ndarray]:
    """A representation, and the code of one image so many times over.

    Args:
      name: "network/layer", whose weights are random, or a shallow representation.
      number: number of codes.
      precision: a word of `precisions.PRECISIONS`.
    """
    if _is_network(name):
        network, layer = networks.find(name)
        dtype = precisions.compute_dtype(precision)
        phi: Representation = networks.random(network, layer, compute_dtype=dtype)
    else:
        phi = invjax.representation(name)
    return phi, networks.random_codes(phi, number, image_shape=image_shape(phi))


def image_shape(phi: Representation) -> tuple[int, int, int]:
    """(h, w, c) of the images that a representation is measured with."""
    return phi.image_shape if isinstance(phi, CnnRepresentation) else SHALLOW_SHAPE


def _is_network(name: str) -> bool:
    return "/" in name


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
