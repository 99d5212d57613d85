"""What studies share: lanes run and collected, records averaged, figures written."""

import pathlib
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import numpy as np

from invjax import files
from invjax.metrics.lpips import Parameters
from invjax.report import contact_sheet, tables
from invjax.report.contact_sheet import Row
from invjax.runs import loading, runner
from invjax.runs.errors import Refusal
from invjax.runs.folder import RunFolder
from invjax.runs.lanes import Group, Lane, Outcome
from invjax.runs.settings import Request, Settings

NOTHING = "–"
"""In place of a number that there is none of."""

PAPER_TV_WEIGHTS = (0.5, 5.0, 50.0)
"""lambda_V of CVPR 2015, Table 3."""


def load_groups(config: Settings) -> list[Group]:
    """What a study of images inverts; targets whose code is zero are left out, said so.

    Raises:
      Refusal: recorded codes; those have no image to compare with.
    """
    if config.code is not None:
        raise Refusal(
            f"--code={config.code}: this study compares images; give --images"
        )
    groups = loading.load_groups(config, refuse_zero=False)
    for group in groups:
        if group.skipped:
            everything = len(group.skipped) + len(group.targets)
            print(
                f"{group.name}: {len(group.skipped)} of {everything} images left out, "
                f"their code is zero everywhere: {', '.join(group.skipped)}"
            )
    return groups


def first_images(groups: Sequence[Group], count: int) -> list[str]:
    """Names of the first images, for a figure."""
    names = [target.name for group in groups for target in group.targets]
    return list(dict.fromkeys(names))[:count]


class Finished:
    """What a study keeps of its lanes: every record, and the outcomes that it shows.

    All images and codes of a hundred photographs would fill the memory.
    """

    def __init__(self, is_shown: Callable[[Lane], bool]):
        self.records: list[dict[str, Any]] = []
        self.shown: list[Outcome] = []
        self._is_shown = is_shown

    def collect(self, outcome: Outcome) -> None:
        self.records.append(outcome.record)
        if self._is_shown(outcome.lane):
            self.shown.append(outcome)


def run(
    request: Request,
    groups: Sequence[Group],
    parts: Sequence[tuple[Settings, Sequence[Lane]]],
    *,
    collect: Callable[[Outcome], None],
    write: Callable[[pathlib.Path], None],
    judge: Parameters | None,
    measure: Callable[[Outcome], Mapping[str, Any]] | None = None,
    recorded: Mapping[str, Any] | None = None,
) -> None:
    """Runs the lanes of a study and writes what it found, also when interrupted.

    Args:
      request: of the user.
      groups: of the lanes.
      parts: lanes, and the settings they are run with.
      collect: is given every finished lane.
      write: is given the folder, once there is something to write.
      judge: from `session.load_judge`.
      measure: as of `session.run`.
      recorded: what config.json says in place of the user's settings.
    """
    assert request.workdir is not None
    folder = RunFolder.claim(request.workdir, overwrite=request.overwrite)
    settings = request.settings.as_json() | dict(recorded or {})
    folder.write_config(settings, loading.weights(groups))
    print(f"lanes: {sum(len(planned) for _, planned in parts)}", flush=True)
    finished = 0
    try:
        for config, planned in parts:
            for outcome in runner.run(planned, config, folder, judge, measure=measure):
                collect(outcome)
                finished += 1
    finally:
        # Also after Ctrl-C: what was finished is tabulated and shown.
        if finished:
            write(folder.path)
            print(f"look at {folder.path}/figure.png")


def by(
    records: Sequence[dict[str, Any]], *fields: str
) -> dict[tuple[Any, ...], list[dict[str, Any]]]:
    """Records by the values of some fields, in the order of their first appearance."""
    groups: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for record in records:
        groups.setdefault(tuple(record[field] for field in fields), []).append(record)
    return groups


def finite(records: Sequence[dict[str, Any]], field: str) -> list[float]:
    """The values of a field; failed lanes and undefined ones have none."""
    values = [record[field] for record in records if record["status"] != "failed"]
    return [value for value in values if value is not None and np.isfinite(value)]


def mean(values: Sequence[float], *, scale: float = 1, digits: int = 1) -> str:
    return f"{scale * np.mean(values):.{digits}f}" if len(values) else NOTHING


def mean_and_deviation(
    values: Sequence[float], *, scale: float = 1, digits: int = 1
) -> str:
    """Of values over images, as the paper prints them; divisor n."""
    if not len(values):
        return NOTHING
    deviation = f"{scale * np.std(values):.{digits}f}"
    return f"{mean(values, scale=scale, digits=digits)} ± {deviation}"


def means(
    groups: Sequence[Sequence[float]], *, scale: float = 1
) -> tuple[list[float], list[float]]:
    """Mean and deviation of every group of values, for curves; NaN of an empty one."""
    return (
        [scale * float(np.mean(g)) if len(g) else float("nan") for g in groups],
        [scale * float(np.std(g)) if len(g) else float("nan") for g in groups],
    )


def failures(records: Sequence[dict[str, Any]]) -> str:
    """Such as "0 of 4"."""
    failed = sum(record["status"] == "failed" for record in records)
    return f"{failed} of {len(records)}"


def publish(
    folder: pathlib.Path,
    header: Sequence[str],
    rows: Sequence[Sequence[str]],
    figure: Sequence[Row],
    *,
    bold: Collection[int] = (),
    cell_size: int = 224,
) -> None:
    """A study's table, in files and on the screen, and figure.png if it has rows.

    Args:
      folder: of the run.
      header, rows, bold: of the table, as of `tables.write`.
      figure: rows of the figure.
      cell_size: of the figure, in pixels.
    """
    tables.write(folder, header, rows, bold=bold)
    if figure:
        write_figure(folder, figure, cell_size=cell_size)
    print(tables.markdown(header, rows, bold=bold))


def bold_presets(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[int]:
    """Numbers of the rows that say yes under "preset's lambda_V"."""
    column = header.index("preset's lambda_V")
    return [number for number, row in enumerate(rows) if row[column] == "yes"]


def write_figure(
    folder: pathlib.Path, rows: Sequence[Row], *, cell_size: int = 224
) -> None:
    """figure.png in `folder`, whole or not at all."""
    sheet = contact_sheet.contact_sheet(rows, cell_size=cell_size)
    with files.whole_file(folder / "figure.png") as stream:
        sheet.save(stream, "PNG")


def picture(outcome: Outcome) -> np.ndarray | None:
    """A lane's image, for a figure; None of a failed lane."""
    return None if outcome.record["status"] == "failed" else outcome.image
