"""Kills a run again and again, and compares how it ends with one that nobody killed.

    python -m experiments.drills.kill --kills=100

inverts HOG of six tiny images, unit by unit, and kills every process by SIGKILL at a
random moment, from its first import on. The same command is given again until the run
is finished, each time to another number of processes, from one to three. Then all files
are compared with those of a run of one process that nobody killed, and the command is
given once more, which must change nothing. New runs are begun until enough processes
have been killed. Prints a line for each run, and ends with exit code 1 where files
differ, or a lane is lost or doubled. A hundred kills take about ten minutes on two
cores.

Units have two lanes here, in place of half a minute, and the process is that of
`invjax.commands.invert` otherwise.
"""

import json
import os
import pathlib
import random
import subprocess
import sys
import tempfile
import time
from typing import Any, NamedTuple

import numpy as np
from absl import flags

from invjax.commands import binary
from invjax.images import reading
from invjax.runs import shards
from invjax.runs.errors import Refusal

_KILLS = flags.DEFINE_integer(
    "kills", 100, "Number of processes to kill.", lower_bound=1
)
_DRILL_SEED = flags.DEFINE_integer("drill_seed", 0, "Seed of the moments.")

NUM_IMAGES = 6
NUM_STARTS = 4
_MOST_PROCESSES = 3
_CHILD = """
from invjax.runs import units
units.MOST_ON_CPU = 2
from invjax.commands import binary, invert
binary.run(invert.main)
"""


class Drilled(NamedTuple):
    """A run that was killed, and its end.

    Attributes:
      num_starts: how often its command was given.
      num_kills: number of processes that were killed.
      differences: what differs from a run that was not; empty where nothing does.
    """

    num_starts: int
    num_kills: int
    differences: list[str]


def main() -> None:
    """Drills as the flags ask.

    Raises:
      Refusal: a run ended otherwise than one that nobody killed.
    """
    began = time.monotonic()
    num_kills, runs = 0, []
    with tempfile.TemporaryDirectory() as scratch:
        drill = Drill(pathlib.Path(scratch), _DRILL_SEED.value)
        while num_kills < _KILLS.value:
            done = drill.run()
            runs.append(done)
            num_kills += done.num_kills
            how = "; ".join(done.differences[:3]) or "files are equal"
            print(
                f"run {len(runs)}: started {done.num_starts} times, {done.num_kills} "
                f"processes killed ({num_kills} so far): {how}",
                flush=True,
            )
    minutes = (time.monotonic() - began) / 60
    failed = sum(bool(done.differences) for done in runs)
    line = f"{num_kills} kills in {len(runs)} runs and {minutes:.1f} minutes"
    if failed:
        raise Refusal(f"{line}: {failed} runs ended otherwise")
    print(f"{line}: all files equal, no lane lost or doubled")


class Drill:
    """Runs that are killed, in a folder of their own.

    Args:
      scratch: an empty folder.
      seed: seed of the moments at which processes are killed.
    """

    def __init__(self, scratch: pathlib.Path, seed: int):
        self._random = random.Random(seed)
        self._scratch = scratch
        self._number = 0
        generator = np.random.default_rng(0)
        for number in range(NUM_IMAGES):
            coarse = generator.uniform(size=(4, 4, 3)).astype(np.float32)
            image = np.kron(coarse, np.ones((10, 10, 1), np.float32))
            reading.write_png(scratch / "images" / f"{number}.png", image)
        # The first one compiles what later ones find in JAX's cache.
        for name in ("compiled", "whole"):
            began = time.monotonic()
            self._end(self._start(scratch / name))
            self._seconds = time.monotonic() - began
        self._whole = contents(scratch / "whole")

    def run(self) -> Drilled:
        """Carries a run out that is killed until it is finished."""
        workdir = self._scratch / f"run_{self._number}"
        self._number += 1
        num_starts = num_kills = 0
        while not (workdir / shards.WHOLE).exists():
            count = self._random.randint(1, _MOST_PROCESSES)
            num_starts += 1
            num_kills += self._start_and_kill(workdir, count)
        self._end(self._start(workdir))
        before = _times(workdir)
        self._end(self._start(workdir))
        found = differences(contents(workdir), self._whole)
        if _times(workdir) != before:
            found.append("a command after the end changed files")
        return Drilled(num_starts, num_kills, found)

    def _start_and_kill(self, workdir: pathlib.Path, count: int) -> int:
        """Starts processes that share the run; returns how many were killed."""
        # Each has a share of the work, and of the cores.
        most = 1.1 * self._seconds * max(1, count / (os.cpu_count() or 1))
        began = time.monotonic()
        started = [
            (
                self._random.uniform(0, most),
                self._start(
                    workdir, f"--num_processes={count}", f"--process_id={number}"
                ),
            )
            for number in range(count)
        ]
        num_kills = 0
        for moment, process in sorted(started, key=lambda pair: pair[0]):
            try:
                process.wait(max(0.0, began + moment - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.communicate()
                num_kills += 1
            else:
                self._end(process)
        return num_kills

    def _start(self, workdir: pathlib.Path, *more: str) -> subprocess.Popen[str]:
        command = [
            *(sys.executable, "-c", _CHILD),
            f"--workdir={workdir}",
            f"--images={self._scratch / 'images'}",
            *("--representations=hogb", "--image_size=32"),
            *("--num_steps=40", f"--num_starts={NUM_STARTS}"),
            *more,
        ]
        cache = {
            "JAX_COMPILATION_CACHE_DIR": str(self._scratch / "cache"),
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        }
        return subprocess.Popen(
            command,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "JAX_PLATFORMS": "cpu", **cache},
        )

    def _end(self, process: subprocess.Popen[str]) -> None:
        _, said = process.communicate()
        if process.returncode:
            last = (said.strip().splitlines() or ["no message"])[-1]
            raise Refusal(f"a process ended with {process.returncode}: {last}")


def contents(workdir: pathlib.Path) -> dict[str, Any]:
    """The files of a finished run by path; of records, all columns but `seconds`.

    Shards are left out but for their number, and so is the page, which has a column of
    seconds.
    """
    found: dict[str, Any] = {}
    for path in sorted(workdir.rglob("*")):
        name = str(path.relative_to(workdir))
        if path.is_dir():
            continue
        if path.match("metrics/part-*.jsonl") or name == "index.html":
            found[name] = ""
        else:
            found[name] = path.read_bytes()
    config = json.loads(found["config.json"])
    # Of the process that was first.
    del config["command"], config["settings"]
    found["config.json"] = config
    found[shards.WHOLE] = [
        {name: value for name, value in record.items() if name != "seconds"}
        for record in shards.read_records(workdir)
    ]
    return found


def differences(found: dict[str, Any], expected: dict[str, Any]) -> list[str]:
    """What differs between the files of two runs, in words."""
    said = []
    for name in sorted({*found, *expected}):
        if name not in found:
            said.append(f"{name} is missing")
        elif name not in expected:
            said.append(f"{name} should not be there")
        elif name == shards.WHOLE and len(found[name]) != len(expected[name]):
            said.append(f"{len(found[name])} lanes, not {len(expected[name])}")
        elif found[name] != expected[name]:
            said.append(f"{name} differs")
    return said


def _times(workdir: pathlib.Path) -> dict[str, int]:
    paths = [workdir, *workdir.rglob("*")]
    return {str(path): path.stat().st_mtime_ns for path in paths}


if __name__ == "__main__":
    binary.run(main)
