"""Tables of a study, as CSV to compute with and Markdown to read."""

import csv
import io
import pathlib
from collections.abc import Sequence

from invjax import files


def write(
    folder: pathlib.Path, header: Sequence[str], rows: Sequence[Sequence[str]]
) -> None:
    """table.csv and table.md in `folder`, each whole or not at all."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    files.write_whole(folder / "table.csv", stream.getvalue())
    files.write_whole(folder / "table.md", markdown(header, rows))


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A GitHub table."""
    lines = [header, ["---"] * len(header), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)
