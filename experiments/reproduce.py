"""Runs the papers' studies one after the other and makes one report of them all.

    python -m experiments.reproduce --workdir=runs/reproduction

runs every study at a size for two CPU cores, which takes under 45 minutes. Each study
is a process of its own with its own folder below --workdir. Then report.md and
report.html are written. They have the numbers that the papers print beside ours, and
say how sure each printed number is; and they have the findings of the papers' text,
tested on our numbers. --scale=smoke shows in minutes that all studies run. --scale=full
has the sizes of the results in experiments/results/ and takes about two hours.
--studies=layer_progression,caricature runs some of the studies.

A study that is done with the same settings is not run again, and one that was
interrupted goes on where it was, so you may interrupt the command and start it again at
any time. --overwrite runs all studies that are asked for.
--dry_run prints their commands. If a study fails, the report names it, the others run
all the same, and the exit code is 1.

Writes below --workdir: <study>/ with config.json, metrics.jsonl, table.csv, table.md
and figure.png; <study>.log; reproduction.json; pictures/; report.md; and report.html,
which needs no other file.
"""

import importlib.util
import json
import os
import pathlib
import shlex
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import Any

from absl import flags

from experiments.reproduction import report
from experiments.reproduction.catalogue import STUDIES, Entry
from experiments.reproduction.report import Part
from invjax import files
from invjax.commands import binary, shared_flags
from invjax.runs import processes, shards
from invjax.runs.errors import Refusal

_STUDIES = flags.DEFINE_list(
    "studies", None, "Comma-separated studies (default: all there are)."
)
_SCALE = flags.DEFINE_enum(
    "scale", "small", ["smoke", "small", "full"], "How large the studies are."
)

_STATE = "reproduction.json"
_OUTPUTS = ("config.json", "metrics.jsonl", "table.csv", "table.md", "figure.png")
_ROOT = pathlib.Path(__file__).parents[1]


def main() -> None:
    shared_flags.refuse_others("workdir", "seed", "overwrite", "dry_run")
    request = shared_flags.from_flags(images="", representations=("none",))
    chosen = choose(_STUDIES.value)
    common = [f"--seed={request.settings.seed}"]
    if binary.WEIGHTS_DIR.value:
        common.append(f"--weights_dir={binary.WEIGHTS_DIR.value}")
    if request.dry_run:
        workdir = pathlib.Path(request.workdir or "WORKDIR")
        for study in chosen:
            words = [*command(study, workdir, _SCALE.value, common), "--overwrite"]
            print(shlex.join(["python", *words[1:]]))
        if _SCALE.value == "small":
            print(f"about {sum(study.minutes for study in chosen):g} minutes")
        return
    assert request.workdir is not None
    workdir = claim(request.workdir)
    run(chosen, workdir, _SCALE.value, common, overwrite=request.overwrite)


def choose(names: Sequence[str] | None) -> list[Entry]:
    """The studies of --studies; by default those whose binaries there are.

    Raises:
      Refusal: one of the names is none, or its binary is missing.
    """
    known = {study.name: study for study in STUDIES}
    if names is None:
        chosen = [study for study in STUDIES if _exists(study)]
        for study in STUDIES:
            if study not in chosen:
                print(f"{study.name}: left out, there is no {study.binary}")
        return chosen
    for name in names:
        if name not in known:
            raise Refusal(f"--studies={name}: unknown; {', '.join(known)} are accepted")
        if not _exists(known[name]):
            raise Refusal(f"--studies={name}: there is no {known[name].binary} to run")
    if not names or len(set(names)) < len(names):
        raise Refusal(f"--studies={','.join(names)}: empty, or names repeat")
    return [study for study in STUDIES if study.name in names]


def claim(workdir: str) -> pathlib.Path:
    """A folder that is new, empty or of an earlier reproduction.

    Raises:
      Refusal: it is none of these.
    """
    path = pathlib.Path(workdir)
    if path.exists() and not path.is_dir():
        raise Refusal(f"--workdir={workdir}: not a folder; name a new or empty one")
    there = sorted(item.name for item in path.iterdir()) if path.is_dir() else []
    if there and _STATE not in there:
        raise Refusal(
            f"--workdir={workdir}: holds {there[0]} but no reproduction; name a new or "
            "empty folder"
        )
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise Refusal(f"--workdir={workdir}: {error.strerror}") from None
    return path


def run(
    chosen: Sequence[Entry],
    workdir: pathlib.Path,
    scale: str,
    common: Sequence[str],
    *,
    overwrite: bool,
) -> None:
    """Runs what is not done yet and writes the report, also when interrupted.

    Args:
      chosen: entries of the catalogue.
      workdir: folder of the reproduction, from `claim`.
      scale: "smoke", "small" or "full".
      common: flags that all studies are given.
      overwrite: whether studies that are complete are run again.

    Raises:
      Refusal: a study failed; after the others and the report.
    """
    state = _read_state(workdir)
    _write_state(workdir, state)
    failed = []
    try:
        for study in chosen:
            arguments = [*study.arguments(scale), *common]
            if not overwrite and is_done(study, workdir, arguments, state):
                print(f"{study.name}: done already", flush=True)
                continue
            goes_on = not overwrite and is_begun(study, workdir, arguments, state)
            state[study.name] = {"arguments": arguments, "seconds": None}
            _write_state(workdir, state)
            print(f"{study.name}: see {workdir}/{study.name}.log", flush=True)
            began = time.perf_counter()
            code = execute(study, workdir, scale, common, goes_on=goes_on)
            seconds = time.perf_counter() - began
            lacks = [n for n in _OUTPUTS if not (workdir / study.name / n).is_file()]
            if code == 0 and not lacks:
                state[study.name] = {"arguments": arguments, "seconds": seconds}
                _write_state(workdir, state)
            else:
                reason = f"exit code {code}" if code else f"no {', '.join(lacks)}"
                failed.append(f"{study.name} ({reason})")
                print(f"{study.name}: failed, {reason}", flush=True)
    finally:
        # Also after Ctrl-C: what there is, is reported.
        parts = [_part(study, workdir, scale, common, state) for study in chosen]
        report.write(workdir, parts, scale=scale)
        print(f"look at {workdir}/report.html and {workdir}/report.md")
    if failed:
        raise Refusal(
            f"{len(failed)} of {len(chosen)} studies failed: {', '.join(failed)}"
        )


def is_done(
    study: Entry,
    workdir: pathlib.Path,
    arguments: Sequence[str],
    state: dict[str, Any],
) -> bool:
    """Whether a study's folder holds a whole run with these arguments."""
    known = state.get(study.name)
    if known is None or known["arguments"] != list(arguments):
        return False
    if known["seconds"] is None:
        return False
    return all((workdir / study.name / name).is_file() for name in _OUTPUTS)


def is_begun(
    study: Entry,
    workdir: pathlib.Path,
    arguments: Sequence[str],
    state: dict[str, Any],
) -> bool:
    """Whether a study's folder holds a run with these arguments, not finished."""
    known = state.get(study.name)
    if known is None or known["arguments"] != list(arguments):
        return False
    folder = workdir / study.name
    return (folder / "config.json").is_file() and not (folder / shards.WHOLE).exists()


def command(
    study: Entry, workdir: pathlib.Path, scale: str, common: Sequence[str]
) -> list[str]:
    """The command line of a study."""
    return [
        *(sys.executable, "-m", study.binary),
        f"--workdir={workdir / study.name}",
        *study.arguments(scale),
        *common,
    ]


def execute(
    study: Entry,
    workdir: pathlib.Path,
    scale: str,
    common: Sequence[str],
    *,
    goes_on: bool,
) -> int:
    """Runs a study as a process of its own; what it prints goes to <study>.log.

    Args:
      study: the study.
      workdir: folder of the reproduction.
      scale: "smoke", "small" or "full".
      common: flags that all studies are given.
      goes_on: whether it goes on with what its folder holds, or replaces it.

    Returns:
      The exit code.
    """
    paths = [str(_ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    # Studies follow each other; schedulers say nothing of who shares one.
    environment = processes.without_numbers(os.environ)
    with open(workdir / f"{study.name}.log", "wb") as log:
        done = subprocess.run(
            [
                *command(study, workdir, scale, common),
                *([] if goes_on else ["--overwrite"]),
            ],
            env={**environment, "PYTHONPATH": os.pathsep.join(paths)},
            stdout=log,
            stderr=subprocess.STDOUT,
            check=False,
        )
    return done.returncode


def _part(
    study: Entry,
    workdir: pathlib.Path,
    scale: str,
    common: Sequence[str],
    state: dict[str, Any],
) -> Part:
    line = shlex.join(["python", *command(study, workdir, scale, common)[1:]])
    known = state.get(study.name)
    if known is not None and known["seconds"] is not None:
        folder = workdir / study.name
        return Part(study.name, study.about, line, folder, known["seconds"], "")
    log = workdir / f"{study.name}.log"
    lines = log.read_text(errors="replace").split("\n") if log.exists() else []
    said = [text for text in lines if text.strip()]
    return Part(study.name, study.about, line, None, None, said[-1] if said else "")


def _exists(study: Entry) -> bool:
    try:
        return importlib.util.find_spec(study.binary) is not None
    except ModuleNotFoundError:
        return False


def _read_state(workdir: pathlib.Path) -> dict[str, Any]:
    path = workdir / _STATE
    if not path.exists():
        return {}
    try:
        state = json.loads(path.read_text())
        return {name: dict(row) for name, row in state.items() if row["arguments"]}
    except (ValueError, TypeError, KeyError, AttributeError):
        raise Refusal(f"{path}: damaged; delete it to run everything anew") from None


def _write_state(workdir: pathlib.Path, state: dict[str, Any]) -> None:
    files.write_whole(workdir / _STATE, json.dumps(state, indent=1) + "\n")


if __name__ == "__main__":
    binary.run(main)
