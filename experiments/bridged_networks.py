"""Bridges twelve networks of other frameworks and inverts a layer of each.

    export KERAS_BACKEND=jax
    taskset -c 0 python -m experiments.bridged_networks --workdir=runs/bridged

cuts each network at a layer in its middle, with random weights, and writes table.csv,
table.md and figure.png (figure_stretched.png): how far code and gradient are from the
framework's own, floating-point operations of the program that is cut and of the whole
network, milliseconds of one step (the gradient of the squared error of the code) of the
bridged network and of the framework itself, in turns on the same machine, and the
relative error of an inversion by the preset `fast` (50 steps unless --num_steps says
otherwise). It takes less than ten minutes. Times are processor time, of all threads,
and the least of --num_rounds turns; `taskset` gives both sides one core, on which that
is what a step takes on an idle machine. Networks whose framework is not installed are
left out, and said. --smoke has networks of a few thousand weights.
"""

import importlib.util
import pathlib
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from absl import flags

import invjax
from experiments.benchmarks import bridged, timing
from invjax import images
from invjax.callables import encode
from invjax.commands import binary, shared_flags
from invjax.report import contact_sheet, tables
from invjax.report.contact_sheet import Cell, Row
from invjax.runs.errors import Refusal
from invjax.runs.settings import SMOKE_STEPS

_NETWORKS = flags.DEFINE_list(
    "networks", None, "Comma-separated rows of the table (default: all)."
)
_ROUNDS = flags.DEFINE_integer(
    "num_rounds", 5, "Turns of each step that is timed.", lower_bound=1
)
_NUM_STEPS = 50
_COLUMNS = (
    "network",
    "layer",
    "image px",
    "code",
    "difference of codes",
    "difference of gradients",
    "GFLOP",
    "GFLOP of the whole",
    "CPU ms per step",
    "CPU ms by the framework",
    "ratio",
    "relative error %",
)


def main() -> None:
    shared_flags.refuse_others("workdir", "seed", "smoke", "overwrite", "num_steps")
    request = shared_flags.from_flags(images="", representations=("hog",))
    if not request.workdir:
        raise Refusal("--workdir is missing; give a folder for the results")
    names = _NETWORKS.value or list(bridged.KINDS)
    for name in names:
        if name not in bridged.KINDS:
            raise Refusal(f"--networks={name}: {', '.join(bridged.KINDS)} are accepted")
    folder = pathlib.Path(request.workdir)
    if (folder / "table.csv").exists() and not request.overwrite:
        raise Refusal(f"--workdir={folder}: holds a table; pass --overwrite")
    smoke = request.settings.smoke
    num_steps = SMOKE_STEPS if smoke else request.settings.num_steps or _NUM_STEPS
    rows, cells = [], []
    for name in names:
        kind = bridged.KINDS[name]
        missing = [p for p in kind.packages if importlib.util.find_spec(p) is None]
        if missing:
            timing.print_left_out(name, f"{', '.join(missing)} is not installed")
            continue
        subject = kind.build(smoke)
        picture = _picture(subject.image_shape[0], smoke)
        code = np.asarray(encode(subject.phi, picture))
        result = invjax.invert(
            invjax.lane_key(request.settings.seed, images.image_id(picture), 0),
            code,
            subject.phi,
            image_shape=subject.image_shape,
            num_steps=num_steps,
        )
        found = np.asarray(result.image)
        difference = np.asarray(encode(subject.phi, found)) - code
        error = float(np.linalg.norm(difference) / np.linalg.norm(code))
        rows.append(
            _row(name, subject, picture, code, 1 if smoke else _ROUNDS.value, error)
        )
        cells.append(Cell.found(found, f"{name}: {error:.1%}"))
        print(" | ".join(rows[-1]), flush=True)
        # After each, since one takes up to a minute or two.
        tables.write(folder, _COLUMNS, rows)
        sheet = [Row("", cells[start : start + 4]) for start in range(0, len(cells), 4)]
        contact_sheet.write_both(folder / "figure.png", sheet)
    if not rows:
        raise Refusal("no framework of these networks is installed")


def _picture(side: int, smoke: bool) -> np.ndarray:
    return images.centre_crop(images.sample("abstract" if smoke else "chelsea"), side)


def _row(
    name: str,
    subject: bridged.Subject,
    picture: np.ndarray,
    code: np.ndarray,
    rounds: int,
    error: float,
) -> list[str]:
    phi = subject.phi
    target = bridged.target(code)
    calls = {"ours": bridged.step(phi, picture, target)}
    if subject.own is not None:
        calls["own"] = subject.own(picture, target)
    taken = timing.take_turns(
        [timing.Contestant(side, _timed(call)) for side, call in calls.items()],
        rounds=rounds,
        clock=time.process_time,
    )
    seconds = {side: timed.least for side, timed in taken.items()}
    theirs = seconds.get("own")
    found = [call() for call in calls.values()]
    codes, gradients = zip(*found, strict=True)
    whole = subject.whole
    return [
        name,
        getattr(phi, "name", tables.NOTHING).rpartition("/")[2],
        str(subject.image_shape[0]),
        " x ".join(map(str, code.shape)),
        _difference(*codes),
        _difference(*gradients),
        f"{bridged.flops(phi, subject.image_shape) / 1e9:.3g}",
        _number(whole and bridged.flops(whole, subject.image_shape) / 1e9, "{:.3g}"),
        f"{1e3 * seconds['ours']:.3g}",
        _number(theirs and 1e3 * theirs, "{:.3g}"),
        _number(theirs and seconds["ours"] / theirs, "{:.2f}"),
        f"{100 * error:.1f}",
    ]


def _timed(step: bridged.Step) -> Callable[[], None]:
    def call() -> None:
        step()

    return call


def _difference(found: np.ndarray, own: np.ndarray | None = None) -> str:
    """|found - own| / |own|, as the table has it; a dash without the framework's."""
    if own is None:
        return tables.NOTHING
    distance = np.linalg.norm((found - own).astype(np.float64))
    return f"{distance / np.linalg.norm(own.astype(np.float64)):.0e}"


def _number(value: Any, form: str) -> str:
    return tables.NOTHING if value is None else form.format(value)


if __name__ == "__main__":
    binary.run(main)
