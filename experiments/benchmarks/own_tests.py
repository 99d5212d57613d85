"""The tests of laws, operations and networks, on this device and its JAX."""

import importlib.util
import os
import pathlib
import re
import subprocess
import sys
import threading
import time
from collections import Counter

from experiments.benchmarks.conditions import Conditions
from experiments.benchmarks.report import Report, Subject

_ROOT = pathlib.Path(__file__).parents[2]
_PATHS = (
    "tests/networks/test_ops.py",
    "tests/networks/test_alexnet.py",
    "tests/inversion/test_accelerator_paths.py",
    "tests/representations/test_hog.py",
    "tests/representations/test_dsift.py",
    "tests/inversion/test_laws.py",
)
"""The most wanted first: the part may be cut off."""

_SMALL = ("tests/networks/test_relaxation.py",)
_OUTCOME = re.compile(r"^(\S+) (PASSED|FAILED|ERROR|SKIPPED)\b")
_MARGIN = 5.0
"""Seconds before the part's own limit at which the tests are ended."""


def run(report: Report, conditions: Conditions) -> None:
    """Runs the tests and counts what passed.

    Args:
      report: where the record goes.
      conditions: as a trial, one file of quick tests.
    """
    paths = _SMALL if conditions.is_small else _PATHS
    outcomes, seconds, is_cut_off = _outcomes(paths, conditions.seconds - _MARGIN)
    number = Counter(outcome for _, outcome in outcomes)
    failed = [name for name, outcome in outcomes if outcome in ("FAILED", "ERROR")]
    note = f"{len(failed)} failed, {number['SKIPPED']} skipped"
    if failed:
        note += f", first {failed[0].rpartition('::')[2]}"
    if is_cut_off:
        note += f"; cut off after {seconds:.0f} s"
    report.add(
        Subject(
            "tests", ", ".join(pathlib.Path(path).stem for path in paths), 1, "float32"
        ),
        "passed",
        value=number["PASSED"],
        unit="tests",
        seconds=seconds,
        failed=failed,
        is_cut_off=is_cut_off,
        note=note,
        headline=True,
    )


def _outcomes(
    paths: tuple[str, ...], limit: float
) -> tuple[list[tuple[str, str]], float, bool]:
    """(test, outcome) as far as pytest comes, the seconds, whether it was cut off."""
    command = [sys.executable, "-m", "pytest", "-v", "-p", "no:cacheprovider"]
    if importlib.util.find_spec("beartype") is None:
        # Without the checks of shapes in annotations, which need it.
        command += ["-o", "addopts=-m 'not slow'"]
    # The tests' tolerances are those of full float32.
    environment = os.environ | {"JAX_DEFAULT_MATMUL_PRECISION": "float32"}
    began = time.monotonic()
    process = subprocess.Popen(
        [*command, *paths],
        cwd=_ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    is_over = threading.Event()

    def end() -> None:
        is_over.set()
        process.kill()

    timer = threading.Timer(max(limit, 1.0), end)
    timer.start()
    assert process.stdout is not None
    lines = list(process.stdout)
    process.wait()
    timer.cancel()
    outcomes = [match.groups() for line in lines if (match := _OUTCOME.match(line))]
    if not outcomes and not is_over.is_set():
        raise RuntimeError(
            f"pytest ended with {process.returncode}: {''.join(lines[-3:])}"
        )
    found = [(name, outcome) for name, outcome in outcomes]
    return found, time.monotonic() - began, is_over.is_set()
