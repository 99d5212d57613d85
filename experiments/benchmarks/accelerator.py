"""The accelerator suite: everything that has to be known of a device, in nine minutes.

Each part runs in a process of its own and writes its records as they come, so that one
that fails, hangs or is cut off costs only itself. A part gets the time that is set
aside for it and what the parts before it have left over. Parts whose packages are
missing are left out, with a line.
"""

import importlib.util
import json
import os
import pathlib
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from experiments.benchmarks import report as reports
from experiments.benchmarks.conditions import Conditions
from experiments.benchmarks.report import Report
from experiments.benchmarks.timing import print_left_out
from invjax import files
from invjax.report import tables

MOST_LINES = 40
"""Lines of the summary, at most."""

README = pathlib.Path(__file__).parents[1] / "README.md"
BEGIN = "<!-- The lines up to END are written by benchmark --suite=accelerator. -->"
END = "<!-- END -->"

_SMALL_SECONDS = 100.0
"""How long a part of a trial may take before it is cut off; it should take 25."""


class Part(NamedTuple):
    """A part of the suite.

    Attributes:
      name: word of --parts.
      about: what it measures, in a line.
      seconds: time that is set aside for it on one H100. The sum is nine minutes.
      small_seconds: what it takes as a trial on two CPU cores, about.
      module: module of `experiments.benchmarks` that measures it.
      function: name of the function in it, (report, conditions) -> None.
      needs: packages that it cannot do without.
    """

    name: str
    about: str
    seconds: float
    small_seconds: float
    module: str
    function: str = "run"
    needs: tuple[str, ...] = ()


PARTS = (
    Part(
        "parity",
        "codes, gradients and forms of operations beside a CPU's",
        60,
        30,
        "parity",
        needs=("skimage",),
    ),
    Part(
        "default",
        "the README's first command, cold and warm",
        65,
        40,
        "first_command",
        needs=("skimage",),
    ),
    Part(
        "throughput",
        "image-steps per second beside stock JAX and PyTorch",
        150,
        15,
        "throughput",
        "run_cases",
    ),
    Part(
        "energy",
        "steps and seconds to the energy of plain Adam's 4,000 steps",
        85,
        15,
        "energies",
        needs=("skimage",),
    ),
    Part(
        "peers",
        "seconds to the error of plenoptic's Metamer",
        35,
        20,
        "peers",
        needs=("torch", "plenoptic", "skimage"),
    ),
    Part(
        "bits", "whether a lane has the same bits elsewhere", 40, 25, "reproducibility"
    ),
    Part(
        "sample",
        "64 samples of a photograph's pool5; Markov chains",
        45,
        30,
        "sampling",
        needs=("skimage",),
    ),
    Part("memory", "predicted memory beside what was taken", 20, 10, "memory"),
    Part(
        "profile",
        "a trace of ten steps, and the costliest operations",
        15,
        10,
        "tracing",
    ),
    Part(
        "tests",
        "tests of laws, operations and networks",
        25,
        20,
        "own_tests",
        needs=("pytest",),
    ),
)


def plan(parts: Sequence[Part], *, is_small: bool) -> str:
    """The parts with the minutes that they are predicted to take, as a table.

    Args:
      parts: the parts that would run.
      is_small: whether it would be a trial on CPU.
    """
    rows = []
    total = 0.0
    for part in parts:
        missing = _missing(part)
        seconds = part.small_seconds if is_small else part.seconds
        total += 0 if missing else seconds
        about = f"left out: {', '.join(missing)} missing" if missing else part.about
        rows.append([part.name, f"{seconds / 60:.1f}", about])
    rows.append(["in all", f"{total / 60:.1f}", ""])
    return tables.markdown(("part", "minutes", ""), rows)


def run_part(name: str, conditions: Conditions) -> None:
    """Measures one part in this process.

    Args:
      name: name of the part.
      conditions: how much is measured, and where the records go.
    """
    (part,) = (part for part in PARTS if part.name == name)
    module = importlib.import_module(f"experiments.benchmarks.{part.module}")
    getattr(module, part.function)(Report(conditions.folder), conditions)


def run(
    folder: pathlib.Path,
    parts: Sequence[Part],
    command: Callable[[Part, pathlib.Path, float], list[str]],
    *,
    is_small: bool,
) -> list[dict[str, Any]]:
    """Measures parts, each in a process of its own, and writes what they found.

    Records of a former run of other parts in the same folder are kept.

    Args:
      folder: where benchmark.jsonl, table.md and summary.md go; the files of each part
        are in parts/NAME.
      parts: what is measured, in this order.
      command: (part, its folder, seconds that it may take) -> the command that
        measures it.
      is_small: whether it is a trial on CPU.

    Returns:
      All records.
    """
    began = time.monotonic()
    allowed = 0.0
    found = merged(folder)
    for part in parts:
        if missing := _missing(part):
            print_left_out(part.name, f"not installed: {', '.join(missing)}")
            continue
        allowed += _SMALL_SECONDS if is_small else part.seconds
        limit = allowed - (time.monotonic() - began)
        own = folder / "parts" / part.name
        shutil.rmtree(own, ignore_errors=True)
        own.mkdir(parents=True)
        print(f"== {part.name}: {part.about}", flush=True)
        reason = _run(command(part, own, limit), folder, limit)
        if reason is not None:
            print_left_out(f"the rest of {part.name}", reason)
        found = merged(folder)
    shutil.rmtree(folder / "compiled", ignore_errors=True)
    files.write_whole(folder / "summary.md", summary(found))
    return found


def merged(folder: pathlib.Path) -> list[dict[str, Any]]:
    """The records of all parts, which it also writes to the folder's own files."""
    found: list[dict[str, Any]] = []
    for part in PARTS:
        path = folder / "parts" / part.name / "benchmark.jsonl"
        if path.exists():
            found += [json.loads(line) for line in path.read_text().splitlines()]
    reports.write(folder, found)
    return found


def summary(found: Sequence[Mapping[str, Any]]) -> str:
    """The records that count most, as a table of at most `MOST_LINES` lines.

    Args:
      found: records, in the order of the parts.
    """
    chosen = [record for record in found if record.get("headline")]
    rows = [
        [
            record["case"],
            record["what"],
            str(record["batch"]),
            record["precision"],
            record["side"],
            reports.value_of(record),
            record.get("note") or "",
        ]
        for record in chosen
    ]
    kept = MOST_LINES - 3
    if len(rows) > kept:
        rest = f"{len(rows) - kept + 1} more rows in table.md"
        rows = [*rows[: kept - 1], ["", rest, "", "", "", "", ""]]
    header = ("part", "what", "batch", "precision", "side", "value", "note")
    return tables.markdown(header, rows)


def section(found: Sequence[Mapping[str, Any]]) -> str:
    """The section of experiments/README.md that belongs to the records.

    Args:
      found: records of the suite; at least one.
    """
    last = found[-1]
    versions = ", ".join(
        f"{name} {version}" for name, version in last["versions"].items() if version
    )
    driver = f", driver {last['driver']}" if last["driver"] else ""
    return (
        f"Measured on one {last['device']}{driver}, with {versions}. `table.md` of the "
        "run has all rows, `benchmark.jsonl` all numbers.\n\n" + summary(found)
    )


def fill(readme: pathlib.Path, found: Sequence[Mapping[str, Any]]) -> None:
    """Replaces what stands between `BEGIN` and `END` in a file by `section`.

    Args:
      readme: the file.
      found: records of the suite; at least one.

    Raises:
      ValueError: the file has no such lines.
    """
    text = readme.read_text()
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise ValueError(f"{readme}: has no lines {BEGIN} and {END}")
    files.write_whole(
        readme, f"{before}{begin}\n\n{section(found).strip()}\n\n{end}{after}"
    )


def _run(command: list[str], folder: pathlib.Path, limit: float) -> str | None:
    """Runs a part; the reason, if it did not come to its end."""
    environment = os.environ | {
        # Or JAX takes most of a GPU's memory for itself and PyTorch finds none.
        "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
        # What one part has compiled, another one need not.
        "JAX_COMPILATION_CACHE_DIR": str(folder / "compiled"),
    }
    # A session of its own, so that its own processes end with it.
    process = subprocess.Popen(command, env=environment, start_new_session=True)
    try:
        code = process.wait(timeout=max(limit, 1.0))
    except subprocess.TimeoutExpired:
        return f"cut off after {limit:.0f} s"
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    return None if code == 0 else f"it ended with exit code {code}; see above"


def _missing(part: Part) -> list[str]:
    return [name for name in part.needs if importlib.util.find_spec(name) is None]
