"""Tables of a study, as CSV for programs and as Markdown for people."""

import csv
import io
from collections.abc import Collection, Sequence

import numpy as np

from invjax import files

NOTHING = "–"
"""In place of a number that there is none of."""


def write(
    folder: files.Path,
    header: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    bold: Collection[int] = (),
    name: str = "table",
) -> None:
    """Writes a table to `folder` as CSV and as Markdown, each file atomically.

    Args:
      folder: folder of the run.
      header: names of the columns.
      rows: cells of each row, as text.
      bold: numbers of the rows, from 0, that are bold in the Markdown file.
      name: name of the files without .csv and .md.
    """
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    files.write_whole(folder / f"{name}.csv", stream.getvalue())
    files.write_whole(folder / f"{name}.md", markdown(header, rows, bold=bold))


def markdown(
    header: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    bold: Collection[int] = (),
) -> str:
    """Returns a table in GitHub's Markdown; arguments as in `write`.

    Examples:
      >>> print(markdown(["layer", "error"], [["relu1", "0.1"]], bold=[0]), end="")
      | layer | error |
      | --- | --- |
      | **relu1** | **0.1** |
    """
    lines = [header, ["---"] * len(header)]
    for number, row in enumerate(rows):
        lines.append([f"**{cell}**" for cell in row] if number in bold else row)
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def mean(values: Sequence[float], *, scale: float = 1, digits: int = 1) -> str:
    """The mean of some numbers as a cell; `NOTHING` where there are none.

    Args:
      values: the numbers.
      scale: factor, such as 100 for per cent.
      digits: number of digits after the point.

    Examples:
      >>> mean([0.25, 0.5], scale=100)
      '37.5'
    """
    return f"{scale * np.mean(values):.{digits}f}" if len(values) else NOTHING


def mean_and_deviation(
    values: Sequence[float], *, scale: float = 1, digits: int = 1
) -> str:
    """Mean and standard deviation (divisor n) as a cell, as the papers print them.

    Args and result: as in `mean`.

    Examples:
      >>> mean_and_deviation([0.25, 0.5], scale=100)
      '37.5 ± 12.5'
    """
    if not len(values):
        return NOTHING
    deviation = f"{scale * np.std(values):.{digits}f}"
    return f"{mean(values, scale=scale, digits=digits)} ± {deviation}"
