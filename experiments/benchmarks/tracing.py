"""A trace of ten steps, and the operations that take the longest.

The trace lies in the part's folder, for `xprof` or TensorBoard:

    pip install xprof && xprof --logdir=WORKDIR/parts/profile/trace
"""

import pathlib
import re
import shutil
from collections import Counter

import jax
import numpy as np

from experiments.benchmarks import throughput
from experiments.benchmarks.conditions import Conditions, default_precision
from experiments.benchmarks.report import Report, Subject
from experiments.benchmarks.timing import print_left_out
from invjax.inversion import batch, loop, request

_NUM_STEPS = 10
_NUM_OPERATIONS = 5
_MOST_BYTES = 32 * 2**20
_LOOPS = ("while", "conditional", "call")
"""Operations whose time is that of others inside."""

_SOURCE = re.compile(
    r"^\s*(?:ROOT )?%?([\w.-]+) = .*op_name=\"([^\"]+)\"", re.MULTILINE
)


def run(report: Report, conditions: Conditions) -> None:
    """Traces ten steps of preset `fast` at AlexNet's relu5, a chunk of 512.

    Args:
      report: where the records go.
      conditions: as a trial, two lanes of relu1.
    """
    name, width = (
        ("alexnet/relu1", 2) if conditions.is_small else ("alexnet/relu5", 512)
    )
    phi, codes = throughput.problem(name, width, "float32")
    plan = request.prepare(codes, phi, width, num_steps=_NUM_STEPS).on_device()
    (phase,) = plan.phases
    keys = jax.random.split(jax.random.key(0), width)
    states = batch.start(phase.program, keys, plan.start_scale)
    compiled = loop.compile_phase(phase, plan, states, scan=True)
    states, _ = compiled(states, phase.pace)
    jax.block_until_ready(states)
    folder = conditions.folder / "trace"
    with jax.profiler.trace(str(folder)):
        states, _ = compiled(states, phase.pace)
        jax.block_until_ready(states)
    files = [path for path in folder.rglob("*") if path.is_file()]
    (program,) = compiled.by_num_steps.values()
    spent = nanoseconds(folder, program.as_text() or "")
    total = sum(spent.values())
    listed = [
        f"{operation} {100 * part / total:.0f} %"
        for operation, part in spent.most_common(_NUM_OPERATIONS)
    ]
    report.add(
        Subject("profile", f"{name}, {_NUM_STEPS} steps", width, default_precision()),
        "time in operations",
        value=total / 1e6 / _NUM_STEPS,
        unit="ms a step",
        milliseconds_by_operation={
            operation: part / 1e6 for operation, part in spent.most_common(50)
        },
        trace_bytes=int(np.sum([path.stat().st_size for path in files])),
        note="; ".join(listed),
        headline=True,
    )
    if sum(path.stat().st_size for path in files) > _MOST_BYTES:
        shutil.rmtree(folder)
        print_left_out("the trace's files", f"more than {_MOST_BYTES} bytes")


def nanoseconds(folder: pathlib.Path, program: str) -> Counter[str]:
    """Time in each operation of a trace.

    Args:
      folder: where `jax.profiler.trace` wrote.
      program: text of the compiled program, which says which function of JAX each
        operation comes from.

    Returns:
      Operation -> nanoseconds, over all its calls. Operations are named as in the
      program, with the function that they come from.
    """
    sources = dict(_SOURCE.findall(program))
    spent: Counter[str] = Counter()
    for path in folder.rglob("*.xplane.pb"):
        for plane in jax.profiler.ProfileData.from_file(str(path)).planes:
            for line in plane.lines:
                for event in line.events:
                    operation = dict(event.stats).get("hlo_op")
                    if operation is None or str(operation).startswith(_LOOPS):
                        continue
                    source = "/".join(sources.get(operation, "").split("/")[-2:])
                    label = f"{operation} ({source})" if source else str(operation)
                    spent[label] += int(event.duration_ns)
    return spent
