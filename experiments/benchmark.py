"""How fast the representations, the steps and whole inversions are, beside their peers.

    python -m experiments.benchmark --workdir=runs/benchmark
    python -m experiments.benchmark --workdir=runs/gpu --cases=throughput \
        --layers=alexnet/relu5 --batches=512 --precisions=tf32,bfloat16

--cases takes any of:

    shallow         HOG and DSIFT with gradients, beside scikit-image's HOG
    ops             each fast form of invjax.networks.ops beside the stock operation
    throughput      image-steps per second, beside stock JAX and PyTorch
    views           steps of preset `natural`, beside the same without views
    time_to_energy  seconds to the energy of preset `fast`, beside plain Adam in PyTorch
    compile         seconds and memory that a first inversion takes
    samples         finished inversions per second, as experiments.sample takes them
                    with --method=starts, without metrics and files

The sides of a case take turns, so that a busy machine slows all of them alike. A value
is that of the median round; its spread is the difference between the slowest and the
fastest round, divided by the median. Ratios are to the baselines of the same run. What
is not installed (PyTorch, scikit-image, weights) is left out, with a line that says so.
Weights are random, except in time_to_energy. All cases take a few minutes on two cores.
Writes benchmark.jsonl, a line per measurement, and table.md, both anew after each one.

    python -m experiments.benchmark --suite=accelerator --workdir=runs/accelerator

measures all that has to be known of a GPU or TPU, in at most nine minutes on one H100:
parity with a CPU, the README's first command, throughput, energies, peers,
reproducibility, samples, memory, a trace, and the tests. --parts=parity,bits chooses
among them; parts that were measured before in the same folder are kept. --dry_run
prints the plan, and --smoke tries everything in small on CPU, in four minutes. The
table at the end has at most forty lines and is also written to summary.md and, but for
trials, into experiments/README.md. With --readme_only it is written there from a
--workdir that was measured elsewhere.
"""

import itertools
import json
import os
import pathlib
import sys
from typing import NamedTuple

import jax
from absl import flags

import invjax
from experiments.benchmarks import (
    accelerator,
    networks,
    op_forms,
    shallow,
    throughput,
    time_to_energy,
    timing,
    whole_runs,
)
from experiments.benchmarks.accelerator import Part
from experiments.benchmarks.conditions import Conditions
from experiments.benchmarks.precisions import (
    BASELINES,
    PRECISIONS,
    available,
    compute_dtype,
)
from experiments.benchmarks.report import Report
from invjax.commands import binary, shared_flags
from invjax.images.pixels import ImageError
from invjax.networks.weights.pretrained import MissingWeights
from invjax.representations.cnn import CnnRepresentation
from invjax.runs.errors import Refusal
from invjax.runs.settings import Settings

_FIRST = ("alexnet/relu1", "alexnet/relu3", "alexnet/pool5")
"""What `experiments.invert` inverts by default."""

CASES = (
    "shallow",
    "ops",
    "throughput",
    "views",
    "time_to_energy",
    "compile",
    "samples",
)

_CASES = flags.DEFINE_list("cases", None, f"Of {', '.join(CASES)} (default: all).")
_LAYERS = shared_flags.define_layers()
_BATCHES = flags.DEFINE_list(
    "batches", None, "Comma-separated lanes or images (default: by case and backend)."
)
_PRECISIONS = flags.DEFINE_list(
    "precisions",
    None,
    f"Of {', '.join(PRECISIONS)} (default: float32 on CPU, the other two on GPU).",
)
_BASELINES = flags.DEFINE_list(
    "baselines",
    ["stock", "eager", "compile"],
    f"What to compare with, of {', '.join(BASELINES)}: stock JAX operations, "
    "PyTorch without and with torch.compile, and with its kernels tuned.",
)
_ROUNDS = flags.DEFINE_integer("rounds", 7, "Turns of every side.", lower_bound=1)
_SUITE = flags.DEFINE_enum(
    "suite",
    None,
    ["accelerator"],
    "Measure a whole suite in place of --cases: all that has to be known of a GPU or "
    "TPU.",
)
_PARTS = flags.DEFINE_list(
    "parts",
    None,
    "Parts of the suite, of "
    f"{', '.join(part.name for part in accelerator.PARTS)} (default: all).",
)
_README_ONLY = flags.DEFINE_bool(
    "readme_only",
    False,
    "Measure nothing; write the suite's section of experiments/README.md from the "
    "benchmark.jsonl in --workdir.",
)
_IN_PROCESS = flags.DEFINE_float(
    "in_process",
    None,
    "Measure the one part of --parts in this process; it may take this many seconds. "
    "The suite starts its parts so.",
)
_STEPS_PER_TURN = flags.DEFINE_integer(
    "steps_per_turn", None, "Steps a turn of throughput takes.", lower_bound=1
)


class _Plan(NamedTuple):
    """What to measure, from the flags and the defaults for the backend.

    Attributes:
      cases: words of `CASES`.
      steps: pairs (layer, batch) that throughput measures.
      layers, batches: as given; None where each case has its own defaults.
      precisions: words of `precisions.PRECISIONS`.
      baselines: what to compare with: words of --baselines, later names of sides.
      rounds: number of turns of every side.
      turn: number of steps of a turn of throughput.
      num_steps: number of steps of whole inversions; None for that of the case or of
        the preset.
      smoke: whether --smoke is given.
      weights_dir: folder of converted weights.
    """

    cases: tuple[str, ...]
    steps: list[tuple[str, int]]
    layers: tuple[str, ...] | None
    batches: tuple[int, ...] | None
    precisions: tuple[str, ...]
    baselines: tuple[str, ...]
    rounds: int
    turn: int
    num_steps: int | None
    smoke: bool
    weights_dir: str | None


def main() -> None:
    if _SUITE.value is not None:
        run_suite()
        return
    for flag in (_PARTS, _README_ONLY, _IN_PROCESS):
        if flag.present:
            raise Refusal(f"--{flag.name} belongs to --suite=accelerator")
    # Or JAX takes most of a GPU's memory for itself and PyTorch finds none.
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    shared_flags.refuse_others("workdir", "seed", "smoke", "overwrite", "num_steps")
    request = shared_flags.from_flags(images="", representations=("hog",))
    if not request.workdir:
        raise Refusal("--workdir is missing; give a folder for the results")
    plan = _plan(request.settings)
    folder = pathlib.Path(request.workdir)
    if (folder / "benchmark.jsonl").exists() and not request.overwrite:
        raise Refusal(
            f"--workdir={request.workdir}: holds a benchmark; pass --overwrite"
        )
    if (load := timing.load()) and load > 0.5:
        print(
            f"the machine is busy (load {load:.1f}): timings will be too long, those "
            "of PyTorch's threads on CPU by far the most",
            flush=True,
        )
    report = Report(folder)
    plan = plan._replace(baselines=available(plan.baselines))
    for case in plan.cases:
        _RUN[case](report, plan)
    print((folder / "table.md").read_text() if report.records else "nothing measured")


def run_suite() -> None:
    """Runs the accelerator suite, one part of it, or what the flags ask for of it.

    Raises:
      Refusal: naming the flag.
    """
    shared_flags.refuse_others(
        "workdir", "seed", "smoke", "overwrite", "dry_run", "weights_dir"
    )
    for flag in (_CASES, _LAYERS, _BATCHES, _PRECISIONS, _BASELINES, _ROUNDS):
        if flag.present:
            raise Refusal(f"--{flag.name} means nothing with --suite; --parts chooses")
    names = tuple(part.name for part in accelerator.PARTS)
    chosen = _words(_PARTS, names, names)
    parts = [part for part in accelerator.PARTS if part.name in chosen]
    request = shared_flags.from_flags(images="", representations=("hog",))
    smoke = request.settings.smoke
    if request.dry_run:
        print(accelerator.plan(parts, is_small=smoke))
        return
    folder = pathlib.Path(request.workdir or "").absolute()
    if _IN_PROCESS.value is not None:
        weights_dir = request.settings.weights_dir
        for part in parts:
            accelerator.run_part(
                part.name,
                Conditions(smoke, weights_dir, _IN_PROCESS.value, folder),
            )
        return
    if _README_ONLY.value:
        found = _records(folder)
        accelerator.fill(accelerator.README, found)
        print(accelerator.section(found))
        return
    measured = [
        part.name
        for part in parts
        if (folder / "parts" / part.name / "benchmark.jsonl").exists()
    ]
    if measured and not request.overwrite:
        raise Refusal(
            f"--workdir={request.workdir}: holds a measurement of "
            f"{', '.join(measured)}; pass --overwrite, or --parts for others"
        )

    def command(part: Part, own: pathlib.Path, seconds: float) -> list[str]:
        given = request.settings.weights_dir
        return [
            sys.executable,
            "-m",
            "experiments.benchmark",
            "--suite=accelerator",
            f"--parts={part.name}",
            f"--in_process={seconds:.0f}",
            f"--workdir={own}",
            *(["--smoke"] if smoke else []),
            *([f"--weights_dir={given}"] if given else []),
        ]

    found = accelerator.run(folder, parts, command, is_small=smoke)
    if not found:
        print("nothing measured")
        return
    print(f"\n{accelerator.section(found)}")
    if not smoke and found[-1]["backend"] != "cpu":
        accelerator.fill(accelerator.README, found)


def _records(folder: pathlib.Path) -> list[dict]:
    """The records of a suite that was measured before.

    Raises:
      Refusal: there are none.
    """
    try:
        lines = (folder / "benchmark.jsonl").read_text().splitlines()
    except OSError:
        lines = []
    if not lines:
        raise Refusal(f"--workdir={folder}: has no benchmark.jsonl with records")
    return [json.loads(line) for line in lines]


def _plan(given: Settings) -> _Plan:
    """The command line, checked.

    Raises:
      Refusal: naming the flag.
    """
    is_cpu = jax.default_backend() == "cpu"
    smoke = given.smoke
    default_cases = ("ops", "throughput") if smoke else CASES
    default_precisions = ("float32",) if is_cpu else ("tf32", "bfloat16")
    layers = batches = None
    if _LAYERS.value is not None:
        layers = tuple(name.strip() for name in _LAYERS.value)
        for name in layers:
            try:
                networks.find(name)
            except ValueError as error:
                raise Refusal(f"--layers={name}: {error}") from None
    if _BATCHES.value is not None:
        batches = tuple(map(_positive, _BATCHES.value))
    chosen = _words(_PRECISIONS, PRECISIONS, default_precisions)
    if "tf32" in chosen and jax.default_backend() != "gpu":
        raise Refusal("--precisions=tf32: GPUs alone have it")
    steps = [("alexnet/relu5", 512), ("vgg16/relu3_3", 64)]
    if is_cpu:
        steps = [("alexnet/relu3", 4), ("alexnet/relu5", 4), ("vgg16/relu3_3", 1)]
    if smoke:
        steps = [("alexnet/relu1", 2)]
    if layers or batches:
        names = layers or tuple(name for name, _ in steps)
        steps = list(itertools.product(names, batches or (1 if is_cpu else 64,)))
    sides = _words(_BASELINES, tuple(BASELINES), ())
    if smoke:
        sides = tuple(side for side in sides if side in ("stock", "eager"))
    return _Plan(
        cases=_words(_CASES, CASES, default_cases),
        steps=steps,
        layers=layers,
        batches=batches,
        precisions=chosen,
        baselines=sides,
        rounds=1 if smoke else _ROUNDS.value,
        turn=1 if smoke else _STEPS_PER_TURN.value or (5 if is_cpu else 50),
        num_steps=5 if smoke else given.num_steps,
        smoke=smoke,
        weights_dir=given.weights_dir,
    )


def _words(
    flag: flags.FlagHolder, accepted: tuple[str, ...], default: tuple[str, ...]
) -> tuple[str, ...]:
    """The words of a list flag, each one of those accepted."""
    if flag.value is None:
        return default
    words = tuple(dict.fromkeys(word.strip() for word in flag.value))
    for word in words:
        if word not in accepted:
            raise Refusal(f"--{flag.name}={word}: {', '.join(accepted)} are accepted")
    return words


def _positive(word: str) -> int:
    if not word.strip().isdecimal() or int(word) < 1:
        raise Refusal(f"--batches={word}: whole numbers from 1 up are accepted")
    return int(word)


def _shallow(report: Report, plan: _Plan) -> None:
    for batch in plan.batches or (2 if plan.smoke else 16,):
        shallow.run(report, batch=batch, rounds=plan.rounds, only_first=plan.smoke)


def _ops(report: Report, plan: _Plan) -> None:
    is_cpu = jax.default_backend() == "cpu"
    for batch in plan.batches or (1 if is_cpu else 64,):
        for precision in plan.precisions:
            op_forms.run(
                report,
                batch=batch,
                precision=precision,
                rounds=plan.rounds,
                least_seconds=0.0 if plan.smoke else 0.1,
                only_first=plan.smoke,
            )


def _throughput(report: Report, plan: _Plan) -> None:
    for name, batch in plan.steps:
        for precision in plan.precisions:
            throughput.run(
                report,
                name=name,
                num_lanes=batch,
                precision=precision,
                baselines=plan.baselines,
                num_steps=plan.turn,
                rounds=plan.rounds,
            )


def _views(report: Report, plan: _Plan) -> None:
    is_cpu = jax.default_backend() == "cpu"
    for name in plan.layers or ("efficientnet_lite0/logits",):
        for batch in plan.batches or (2 if is_cpu else 64,):
            for precision in plan.precisions:
                throughput.run_views(
                    report,
                    name=name,
                    num_lanes=batch,
                    precision=precision,
                    num_steps=plan.turn,
                    rounds=plan.rounds,
                )


def _time_to_energy(report: Report, plan: _Plan) -> None:
    default_steps = 100 if jax.default_backend() == "cpu" else 400
    for name in plan.layers or ("alexnet/relu3",):
        for precision in plan.precisions:
            try:
                phi = invjax.representation(
                    name,
                    weights_dir=plan.weights_dir,
                    compute_dtype=compute_dtype(precision),
                )
                assert isinstance(phi, CnnRepresentation)
                time_to_energy.run(
                    report,
                    phi,
                    precision=precision,
                    baselines=plan.baselines,
                    num_steps=plan.num_steps or default_steps,
                    rounds=min(plan.rounds, 3),
                    is_short=plan.smoke,
                )
            except (MissingWeights, ImageError) as error:
                timing.print_left_out(f"time_to_energy {name}", error)


def _compile(report: Report, plan: _Plan) -> None:
    is_cpu = jax.default_backend() == "cpu"
    for name in plan.layers or _FIRST:
        for width in (1,) if is_cpu else plan.batches or (16,):
            for precision in plan.precisions:
                whole_runs.compiling(
                    report, name=name, width=width, precision=precision
                )


def _samples(report: Report, plan: _Plan) -> None:
    is_cpu = jax.default_backend() == "cpu"
    names = plan.steps
    if is_cpu:
        # On CPU a chunk is one lane, and a deep layer takes minutes.
        names = [(name, 1) for name in plan.layers or ("alexnet/relu3",)]
    for name, width in names:
        for precision in plan.precisions:
            whole_runs.samples(
                report,
                name=name,
                width=width,
                precision=precision,
                num_steps=plan.num_steps,
                rounds=1 if is_cpu else min(plan.rounds, 3),
            )


_RUN = {
    "shallow": _shallow,
    "ops": _ops,
    "throughput": _throughput,
    "views": _views,
    "time_to_energy": _time_to_energy,
    "compile": _compile,
    "samples": _samples,
}


if __name__ == "__main__":
    binary.run(main)
