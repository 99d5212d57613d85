"""What a study wrote, read back for its test."""

import csv
import pathlib

import numpy as np

from invjax.runs import shards


def table(workdir: pathlib.Path) -> list[dict[str, str]]:
    """The rows of table.csv."""
    with open(workdir / "table.csv") as stream:
        return list(csv.DictReader(stream))


def records(workdir: pathlib.Path) -> list[dict]:
    """The records of lanes that are done."""
    return list(shards.read_records(workdir))


def mean(records: list[dict], field: str, scale: float, digits: int) -> str:
    """Mean and deviation over lanes as tables print them."""
    values = scale * np.array([record[field] for record in records])
    return f"{values.mean():.{digits}f} ± {values.std():.{digits}f}"
