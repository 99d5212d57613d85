"""What a study wrote, read back for its test."""

import csv
import json
import pathlib

import numpy as np

from invjax import images


def table(workdir: pathlib.Path) -> list[dict[str, str]]:
    """The rows of table.csv."""
    with open(workdir / "table.csv") as stream:
        return list(csv.DictReader(stream))


def records(workdir: pathlib.Path) -> list[dict]:
    """The lines of metrics.jsonl."""
    lines = (workdir / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def mean(records: list[dict], field: str, scale: float, digits: int) -> str:
    """Mean and deviation over lanes as tables print them."""
    values = scale * np.array([record[field] for record in records])
    return f"{values.mean():.{digits}f} ± {values.std():.{digits}f}"


def write_photographs(folder: pathlib.Path) -> None:
    """Two pictures of coloured tiles, a folder of a user's own."""
    generator = np.random.default_rng(0)
    for name in ("one", "two"):
        coarse = generator.uniform(size=(9, 12, 3)).astype(np.float32)
        photograph = np.kron(coarse, np.ones((30, 30, 1), np.float32))
        images.write_png(folder / f"{name}.png", photograph)
