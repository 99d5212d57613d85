"""benchmark.jsonl and table.md, both written anew after every measurement."""

import importlib.metadata
import pathlib
import platform
import subprocess
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax

from experiments.benchmarks import timing
from experiments.benchmarks.timing import Contestant
from invjax import files
from invjax.inversion import execution
from invjax.report import tables
from invjax.runs import records

_PACKAGES = ("invjax", "jax", "jaxlib", "numpy", "torch", "plenoptic", "scikit-image")
_HEADER = ("what", "batch", "precision", "side", "value", "spread")
_NOTES: dict[str, tuple[str, Callable[[Any], str]]] = {
    "note": ("note", str),
    "used": ("used here", lambda value: "yes" if value else "no"),
    "steps": ("steps", str),
    "seconds_compiling": ("compiling, s", lambda value: f"{value:.1f}"),
    "bytes_predicted": ("predicted, MiB", lambda value: f"{value / 2**20:.0f}"),
    "peak_bytes_so_far": ("peak so far, MiB", lambda value: f"{value / 2**20:.0f}"),
}
"""Field of a record -> heading in the table, and how it is written there."""


class Unit(NamedTuple):
    """The unit of a value.

    Attributes:
      name: the unit's symbol.
      of: (seconds, work) of a call -> the value.
    """

    name: str
    of: Callable[[float, float], float]


MILLISECONDS = Unit("ms", lambda seconds, work: 1e3 * seconds / work)
SECONDS = Unit("s", lambda seconds, work: seconds / work)


class Subject(NamedTuple):
    """What several sides are timed at: a case, and its name, batch and precision."""

    case: str
    name: str
    batch: int
    precision: str


class Report:
    """The results so far, and the files that have all of them.

    Attributes:
      records: lines of benchmark.jsonl.
    """

    def __init__(self, folder: pathlib.Path):
        self._folder = folder
        self.records: list[dict[str, Any]] = []
        self._environment = _environment()

    def race(
        self,
        subject: Subject,
        contestants: Sequence[Contestant],
        unit: Unit,
        *,
        baselines: Sequence[str] = (),
        rounds: int,
        least_seconds: float = 0.0,
    ) -> None:
        """Times the sides in turns and adds a record for each.

        `speed_ratios` in a record says how many times as fast its side is as each of
        the baselines of the same run.

        Args:
          subject: what is timed.
          contestants: the sides.
          unit: unit of the records' values.
          baselines: sides that `speed_ratios` compares with.
          rounds, least_seconds: as in `timing.take_turns`.
        """
        timings = timing.take_turns(
            contestants, rounds=rounds, least_seconds=least_seconds
        )
        by_side = {contestant.side: contestant for contestant in contestants}
        pace = {side: t.median / by_side[side].work for side, t in timings.items()}
        for side, measured in timings.items():
            ratios = {
                other: pace[other] / pace[side] for other in baselines if other in pace
            }
            work = by_side[side].work
            self.add(
                subject,
                side,
                value=unit.of(measured.median, work),
                unit=unit.name,
                spread=(measured.most - measured.least) / measured.median,
                speed_ratios=ratios,
                rounds=measured.rounds,
                seconds=measured.median,
                seconds_least=measured.least,
                seconds_most=measured.most,
                seconds_compiling=measured.compiling,
                **by_side[side].notes,
            )

    def add(
        self,
        subject: Subject,
        side: str,
        *,
        value: float,
        unit: str,
        spread: float | None = None,
        speed_ratios: Mapping[str, float] | None = None,
        **notes: Any,
    ) -> None:
        """Adds one record, prints it in a line and writes the files anew.

        Args:
          subject: what was measured.
          side: which of the compared programs it was.
          value: the result.
          unit: its unit.
          spread: slowest less fastest round, divided by the median.
          speed_ratios: how many times as fast as other sides.
          **notes: more fields of the record.
        """
        record = {
            "case": subject.case,
            "what": subject.name,
            "batch": subject.batch,
            "precision": subject.precision,
            "side": side,
            "value": value,
            "unit": unit,
            "spread": spread,
            "speed_ratios": records.strict(speed_ratios or {}),
            **notes,
            "peak_bytes_so_far": peak(),
            **self._environment,
        }
        self.records.append(records.strict(record))
        self.write()
        print(_line(self.records[-1]), flush=True)

    def write(self) -> None:
        """Writes both files anew."""
        write(self._folder, self.records)


def write(folder: pathlib.Path, lines: Sequence[Mapping[str, Any]]) -> None:
    """Writes benchmark.jsonl and table.md.

    Args:
      folder: where they go.
      lines: the records.
    """
    files.write_whole(folder / "benchmark.jsonl", records.lines(lines))
    cases = dict.fromkeys(record["case"] for record in lines)
    tables_of_cases = [
        _table(case, [record for record in lines if record["case"] == case])
        for case in cases
    ]
    files.write_whole(folder / "table.md", "\n".join(tables_of_cases))


def _table(case: str, chosen: Sequence[Mapping[str, Any]]) -> str:
    others = dict.fromkeys(
        other for record in chosen for other in record["speed_ratios"]
    )
    noted = [
        name
        for name in _NOTES
        if any(record.get(name) is not None for record in chosen)
    ]
    header = [
        *_HEADER,
        *(f"times {other}" for other in others),
        *(_NOTES[name][0] for name in noted),
    ]
    rows = [
        [
            record["what"],
            str(record["batch"]),
            record["precision"],
            record["side"],
            value_of(record),
            _cell(record["spread"], "{:.0%}".format),
            *(_cell(record["speed_ratios"].get(o), "{:.2f}".format) for o in others),
            *(_cell(record.get(name), _NOTES[name][1]) for name in noted),
        ]
        for record in chosen
    ]
    return f"## {case}\n\n{tables.markdown(header, rows)}"


def value_of(record: Mapping[str, Any]) -> str:
    """A record's value with its unit; a dash where it is not a finite number."""
    return f"{_cell(record['value'], '{:.4g}'.format)} {record['unit']}".rstrip()


def _cell(value: Any, write: Callable[[Any], str]) -> str:
    return "–" if value is None else write(value)


def _line(record: Mapping[str, Any]) -> str:
    ratios = "".join(
        f", {ratio:.2f} x {other}"
        for other, ratio in record["speed_ratios"].items()
        if other != record["side"]
    )
    return (
        f"{record['case']}: {record['what']} batch {record['batch']} "
        f"{record['precision']}: {record['side']} {value_of(record)}{ratios}"
    )


def _environment() -> dict[str, Any]:
    """What the numbers depend on besides the code."""
    return {
        "backend": jax.default_backend(),
        "device": jax.devices()[0].device_kind,
        "driver": _driver(),
        "machine": platform.machine(),
        "cores": execution.num_cores(),
        "load_at_start": timing.load(),
        "versions": {name: _version(name) for name in _PACKAGES},
    }


def _driver() -> str | None:
    """Version of NVIDIA's driver; None where there is none."""
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return None
    lines = done.stdout.split()
    return lines[0] if done.returncode == 0 and lines else None


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def peak() -> int | None:
    """The most bytes that JAX held so far in this process; None on CPU."""
    statistics = jax.devices()[0].memory_stats() or {}
    return statistics.get("peak_bytes_in_use")
