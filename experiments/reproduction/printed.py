"""What the papers print, from printed.toml, and the numbers of a run beside it.

Every number comes with its certainty, a word of the file's own table, and its source.
"""

import dataclasses
import functools
import pathlib
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from invjax.report import tables

_FILE = pathlib.Path(__file__).with_name("printed.toml")
_LIKE_CNN_A = ("alexnet", "caffenet")

JsonRecord = Mapping[str, Any]
"""A line of metrics.jsonl."""


@dataclasses.dataclass(frozen=True)
class Number:
    """A mean of normalised errors and its deviation over images, in %."""

    layer: str
    tv_weight: float
    mean: float
    deviation: float

    def __str__(self) -> str:
        return f"{self.mean:.1f} ± {self.deviation:.1f}"


@dataclasses.dataclass(frozen=True)
class Table:
    """A printed table.

    Attributes:
      name: paper and number of the table.
      about: what its values are.
      study: study that has the same values.
      certainty: how sure the values are, a word of `Printed.certainties`.
      source: where the values come from.
      numbers: the values in the paper's order.
    """

    name: str
    about: str
    study: str
    certainty: str
    source: str
    numbers: tuple[Number, ...]


@dataclasses.dataclass(frozen=True)
class Claim:
    """A finding of the papers' text; `id` names its test in `claims`."""

    id: str
    study: str
    text: str
    certainty: str
    source: str


@dataclasses.dataclass(frozen=True)
class Printed:
    """The whole file; `certainties` says what each word of certainty means."""

    certainties: Mapping[str, str]
    tables: tuple[Table, ...]
    claims: tuple[Claim, ...]


@functools.cache
def load() -> Printed:
    """Reads the file and checks that every table and claim has a known certainty.

    Raises:
      ValueError: one has not; a mistake in the file.
    """
    content = tomllib.loads(_FILE.read_text(encoding="utf-8"))
    printed = Printed(
        content["certainty"],
        tuple(
            Table(
                **row | {"numbers": tuple(Number(*cells) for cells in row["numbers"])}
            )
            for row in content["table"]
        ),
        tuple(Claim(**row) for row in content["claim"]),
    )
    used = {table.certainty for table in printed.tables}
    used |= {claim.certainty for claim in printed.claims}
    if unknown := used - printed.certainties.keys():
        raise ValueError(f"{_FILE.name}: unknown certainty {', '.join(unknown)}")
    return printed


def layer_of(representation: str) -> str:
    """A representation's name in the papers: "mpool1" for "alexnet/pool1", "hog".

    AlexNet has no norm layers and CaffeNet has the papers' names already; layers of
    other networks keep their whole names, which no paper has.
    """
    network, _, layer = representation.partition("/")
    if network not in _LIKE_CNN_A:
        return representation
    return f"m{layer}" if layer.startswith("pool") else layer


def text(representation: str, tv_weight: float) -> str | None:
    """What a paper prints for a representation, "10.0 ± 5.0"; None for nothing."""
    wanted = (layer_of(representation), tv_weight)
    for table in load().tables:
        for number in table.numbers:
            if (number.layer, number.tv_weight) == wanted:
                return str(number)
    return None


def beside(table: Table, records: Iterable[JsonRecord]) -> list[list[str]]:
    """Rows of a printed table with ours beside it; see `HEADER`.

    Ours are means and deviations over lanes, a row for each representation, preset and
    number of steps. Printed rows without a counterpart are kept.
    """
    ours: dict[tuple[str, float], dict[str, list[float]]] = {}
    for record in records:
        error = record.get("normalised_error")
        if error is None or "variant" in record:
            continue
        key = (layer_of(record["representation"]), float(record["tv_weight"]))
        how = f"{record['representation']}, {record['preset']}, {record['num_steps']}"
        ours.setdefault(key, {}).setdefault(how, []).append(100 * error)
    rows = []
    for number in table.numbers:
        place = [number.layer, f"{number.tv_weight:g}", str(number)]
        found = ours.get((number.layer, number.tv_weight), {})
        for how, errors in found.items():
            mean = tables.mean_and_deviation(errors)
            rows.append([*place, mean, how, str(len(errors))])
        if not found:
            rows.append([*place, tables.NOTHING, tables.NOTHING, "0"])
    return rows


HEADER: Sequence[str] = (
    "layer in the paper",
    "lambda_V",
    "printed %",
    "ours %",
    "representation, preset, steps",
    "lanes",
)
"""Header of the rows of `beside`."""
