"""The README's first command: seconds, and what it spends on compiling.

It runs twice in processes of their own: cold, with an empty cache of compiled programs,
and warm, with the cache that the first one filled.
"""

import os
import re
import subprocess
import sys
import tempfile
import time
from collections import Counter

from experiments.benchmarks.conditions import Conditions, default_precision
from experiments.benchmarks.report import SECONDS, Report, Subject

MODULE = "experiments.invert"
"""What the README's first command runs, without flags but --workdir."""

_SMALL = ("--smoke", "--images=sample:chelsea", "--representations=hogb")
_COMPILED = re.compile(r"Finished XLA compilation of (\S+) in ([0-9.eE+-]+) sec")


def run(report: Report, conditions: Conditions) -> None:
    """Runs the command cold and warm.

    Args:
      report: where the records go.
      conditions: on CPU as a trial, the command has one code and five steps.

    Raises:
      RuntimeError: the command failed.
    """
    options = list(_SMALL) if conditions.is_small else []
    if conditions.weights_dir is not None:
        options.append(f"--weights_dir={conditions.weights_dir}")
    with tempfile.TemporaryDirectory() as scratch:
        for side in ("cold", "warm"):
            environment = os.environ | {
                "JAX_LOG_COMPILES": "1",
                "JAX_COMPILATION_CACHE_DIR": f"{scratch}/compiled",
                "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
                "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
            }
            command = [
                sys.executable,
                "-m",
                MODULE,
                f"--workdir={scratch}/{side}",
                *options,
            ]
            seconds, log = _timed(command, environment)
            programs = compile_seconds(log)
            slowest = ", ".join(
                f"{name} {spent:.1f}" for name, spent in programs.most_common(3)
            )
            total = sum(programs.values())
            report.add(
                Subject("default", MODULE, 1, default_precision()),
                side,
                value=seconds,
                unit=SECONDS.name,
                seconds_compiling=total,
                seconds_compiling_by_program=dict(programs),
                note=f"compiling {total:.1f} s in all: {slowest}",
                headline=True,
            )


def compile_seconds(log: str) -> "Counter[str]":
    """Seconds that XLA took for each program, from what JAX logs when it compiles.

    Examples:
      >>> line = "Finished XLA compilation of jit(step) in 1.5 sec"
      >>> compile_seconds(line + " ... " + line)
      Counter({'jit(step)': 3.0})
    """
    seconds: Counter[str] = Counter()
    for name, spent in _COMPILED.findall(log):
        seconds[name] += float(spent)  # type: ignore[assignment]
    return seconds


def _timed(command: list[str], environment: dict[str, str]) -> tuple[float, str]:
    """Wall time of a process, and what it wrote to stderr."""
    began = time.perf_counter()
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    seconds = time.perf_counter() - began
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise RuntimeError(f"{MODULE} ended with {done.returncode}: {last}")
    return seconds, done.stderr
