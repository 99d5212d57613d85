"""What a study wrote, read back for its test."""

import csv
import json
import pathlib
from typing import Any

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


def everything(workdir: pathlib.Path) -> dict[str, Any]:
    """The files of a finished run by path; of records, all columns but `seconds`.

    Shards and the size of units are left out: units may be of other sizes.
    """
    found: dict[str, Any] = {
        str(path.relative_to(workdir)): path.read_bytes()
        for path in sorted(workdir.rglob("*"))
        if not path.is_dir() and not path.match("metrics/part-*.jsonl")
    }
    config = json.loads(found["config.json"])
    del config["lanes"]["per_unit"]
    found["config.json"] = config
    assert "metrics.jsonl" in found
    found["metrics.jsonl"] = [
        {name: value for name, value in record.items() if name != "seconds"}
        for record in records(workdir)
    ]
    # The page has a column of seconds.
    found.pop("index.html", None)
    return found
