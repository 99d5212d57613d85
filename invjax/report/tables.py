"""Tables of a study, as CSV to compute with and Markdown to read."""

import csv
import io
import pathlib
from collections.abc import Collection, Sequence

from invjax import files


def write(
    folder: pathlib.Path,
    header: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    bold: Collection[int] = (),
    name: str = "table",
) -> None:
    """table.csv and table.md in `folder`, each whole or not at all.

    Args:
      folder: of the run.
      header: names of the columns.
      rows: their cells.
      bold: numbers of the rows that the .md sets in bold.
      name: of the files, without ending.
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
    """A GitHub table; `bold` as of `write`."""
    lines = [header, ["---"] * len(header)]
    for number, row in enumerate(rows):
        lines.append([f"**{cell}**" for cell in row] if number in bold else row)
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)
