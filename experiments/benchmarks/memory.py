"""Memory that a chunk is predicted to take, beside the most that it took.

JAX keeps the largest amount of a process and not of a run, so the chunks are run from
the smallest prediction to the largest: each is then the largest so far. CPUs do not say
how much was taken, and only the prediction is recorded there.

Beside the widths of the cases, each representation has the one that
`api.fitting_width` chooses for the device. In a trial it is chosen for a limit that is
made up.
"""

import jax
import numpy as np

from experiments.benchmarks import report as reports
from experiments.benchmarks import throughput
from experiments.benchmarks.conditions import (
    Conditions,
    default_precision,
    one_chunk,
)
from experiments.benchmarks.report import Report, Subject
from invjax.inversion import api, loop, memory, request
from invjax.inversion.execution import Execution
from invjax.inversion.request import Keywords
from invjax.types import Representation

_MIB = 2**20

_TRIAL_LIMIT = 64 * _MIB
_TRIAL_MOST = 4


def run(report: Report, conditions: Conditions) -> None:
    """Measures a chunk of each case of throughput, preset `fast`.

    Args:
      report: where the records go.
      conditions: as a trial, small chunks.
    """
    cases = list(throughput.cases(is_small=conditions.is_small))
    for name in dict.fromkeys(name for name, _ in cases):
        chosen = _chosen(report, name, is_small=conditions.is_small)
        if chosen is not None:
            cases.append((name, chosen))
    chunks = []
    for name, width in dict.fromkeys(cases):
        phi, codes = throughput.problem(name, width, "float32")
        predicted = api.chunk_bytes(
            codes[0], phi, execution=one_chunk(width), **_settings(phi)
        )
        chunks.append((predicted, name, width))
    for predicted, name, width in sorted(chunks):
        phi, codes = throughput.problem(name, width, "float32")
        # While one chunk descends and the next one waits, a third is prepared.
        num_lanes = 3 * width
        plan = request.prepare(
            np.broadcast_to(codes[0], (num_lanes, *codes[0].shape)),
            phi,
            num_lanes,
            **_settings(phi),
        )
        keys = jax.random.split(jax.random.key(0), num_lanes)
        results = loop.stream(keys, plan, execution=one_chunk(width), history_every=10)
        for _ in results:
            pass
        measured = reports.peak()
        ratio = None if measured is None else measured / predicted
        report.add(
            Subject("memory", name, width, default_precision()),
            "predicted" if measured is None else "measured",
            value=(predicted if measured is None else measured) / _MIB,
            unit="MiB",
            bytes_predicted=predicted,
            bytes_measured=measured,
            measured_of_predicted=ratio,
            note="not measured on CPU"
            if ratio is None
            else f"{ratio:.2f} of the predicted {predicted / _MIB:.0f} MiB",
            # The largest chunk stands for all in the summary.
            headline=(predicted, name, width) == max(chunks),
        )


def _chosen(report: Report, name: str, *, is_small: bool) -> int | None:
    """Records the width that is chosen by itself; None where the device has no limit.

    Args:
      report: where the record goes.
      name: name of the representation.
      is_small: whether the limit is made up.
    """
    limit = _TRIAL_LIMIT if is_small else memory.device_limit()
    if limit is None:
        return None
    phi, codes = throughput.problem(name, 1, "float32")
    width = api.fitting_width(
        codes[0],
        phi,
        limit=limit,
        most=_TRIAL_MOST if is_small else memory.MOST_LANES,
        execution=Execution(scan=True, num_devices=1),
        **_settings(phi),
    )
    report.add(
        Subject("memory", name, width, default_precision()),
        "chosen width",
        value=width,
        unit="lanes",
        bytes_limit=limit,
        note=f"fits {memory.USABLE:.0%} of {limit / _MIB:.0f} MiB",
    )
    return width


def _settings(phi: Representation) -> Keywords:
    return {
        "image_shape": throughput.image_shape(phi),
        "num_steps": loop.SCAN_STEPS,
    }
