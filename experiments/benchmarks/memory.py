"""Memory that a chunk is predicted to take, beside the most that it took.

JAX keeps the largest amount of a process and not of a run, so the chunks are run from
the smallest prediction to the largest: each is then the largest so far. CPUs do not say
how much was taken, and only the prediction is recorded there.
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
from invjax.inversion import api, loop, request

_MIB = 2**20


def run(report: Report, conditions: Conditions) -> None:
    """Measures a chunk of each case of throughput, preset `fast`.

    Args:
      report: where the records go.
      conditions: as a trial, two small chunks.
    """
    chunks = []
    for name, width in throughput.cases(is_small=conditions.is_small):
        phi, codes = throughput.problem(name, width, "float32")
        predicted = api.chunk_bytes(
            codes[0],
            phi,
            image_shape=throughput.image_shape(phi),
            num_steps=loop.SCAN_STEPS,
            execution=one_chunk(width),
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
            image_shape=throughput.image_shape(phi),
            num_steps=loop.SCAN_STEPS,
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
