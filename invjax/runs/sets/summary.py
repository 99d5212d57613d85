"""Tables of a run: means over images, by representation, with confidence intervals."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from invjax.metrics import bootstrap
from invjax.report import tables
from invjax.runs.sets.measures import Measured
from invjax.runs.sets.options import CHAINS

_LEVEL = 0.95


class _Column(NamedTuple):
    """A field of the sets' records, and how it is written."""

    title: str
    field: str
    scale: float = 1.0
    digits: int = 3


_COLUMNS = (
    _Column("relative error %", "relative_error", 100, 1),
    _Column("normalised error %", "normalised_error", 100, 1),
    _Column("RMS", "rms"),
    _Column("RMS / unrelated", "rms_ratio"),
    _Column("1 - SSIM", "dissimilarity"),
    _Column("1 - SSIM / unrelated", "dissimilarity_ratio"),
    _Column("LPIPS", "lpips"),
    _Column("LPIPS / unrelated", "lpips_ratio"),
    _Column("effective rank", "effective_rank", 1, 1),
    _Column("to original RMS", "to_original_rms"),
    _Column("nearest RMS", "nearest_rms"),
    _Column("label as original", "label_top1", 1, 2),
    _Column("label as most", "label_consensus", 1, 2),
)
_CHAIN_COLUMNS = (
    _Column("acceptance", "acceptance", 1, 2),
    _Column("heating", "heating", 1, 2),
    _Column("energy ESS", "energy_ess", 1, 1),
    _Column("worst ESS", "projection_ess", 1, 1),
    _Column("energy R-hat", "energy_rhat", 1, 2),
    _Column("worst R-hat", "projection_rhat", 1, 2),
)


def header(method: str) -> list[str]:
    """Header of the table of `rows`."""
    titles = [column.title for column in _columns(method)]
    counts = ["images", "samples", "failed", "dead starts"]
    return ["representation", "lambda_V", "selection", *counts, *titles]


def rows(key: jax.Array, measured: Sequence[Measured], method: str) -> list[list[str]]:
    """A row per representation, lambda and selection, in the order they were drawn.

    Images with two samples or more are counted. Numbers are means over images, followed
    by 95 % bootstrap intervals. Where every image has equally many samples, and samples
    are independent, samples are resampled as well as images. Measures of pairs or of
    whole sets are resampled by image alone, and so is everything of chains and of
    repulsion, whose samples depend on each other; for a single image they have no
    interval.

    Args:
      key: draws the bootstrap samples, alike for every cell.
      measured: sets: all samples of a code, or those of a matched error.
      method: how the samples were drawn.
    """
    groups: dict[tuple[str, str, str], list[Measured]] = {}
    for item in measured:
        record = item.record
        # Of a matched error each image may have a lambda of its own.
        is_matched = record["selection"] != "all"
        word = "any" if is_matched else f"{record['tv_weight']:g}"
        place = (record["representation"], word, record["selection"])
        groups.setdefault(place, []).append(item)
    table = []
    for (name, tv_weight, selection), items in groups.items():
        records = [item.record for item in items]
        total = sum(record["num_samples"] for record in records)
        failed, dead = (
            sum(record[field] for record in records)
            for field in ("num_failed", "num_dead_starts")
        )
        table.append(
            [
                name,
                tv_weight,
                selection,
                str(sum(record["num_samples"] > 1 for record in records)),
                str(total),
                str(failed),
                str(dead),
                *(_cell(key, items, column, method) for column in _columns(method)),
            ]
        )
    return table


INVARIANCE_HEADER = (
    "representation",
    "transformation",
    "unit",
    "code change % per unit",
    "pixel change % per unit",
    "samples: mean",
    "samples: deviation",
)


def invariance_rows(records: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    """Means over images, by representation and transformation."""
    return [
        [
            name,
            transformation,
            mine[0]["unit"],
            _mean(mine, "code_per_unit", 100, 2),
            _mean(mine, "pixels_per_unit", 100, 2),
            _mean(mine, "samples_mean"),
            _mean(mine, "samples_deviation"),
        ]
        for (name, transformation), mine in _grouped(
            records, lambda r: (r["representation"], r["transformation"])
        )
    ]


GEOMETRY_HEADER = (
    "representation",
    "at",
    "largest singular value",
    "stable rank",
    "participation ratio",
    "ignored fraction of a natural direction",
    "gain: natural",
    "gain: ignored",
    "code change % at RMS 0.005: natural",
    "ignored",
    "at RMS 0.05: natural",
    "ignored",
)


def geometry_rows(records: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    """Means over images, by representation and whether at the original or a sample."""
    rows = []
    for (name, at), mine in _grouped(records, lambda r: (r["representation"], r["at"])):
        changes = [
            f"{100 * np.mean([r[field][r['steps'].index(step)] for r in mine]):.1f}"
            for step in (0.005, 0.05)
            for field in ("code_change_natural", "code_change_ignored")
        ]
        rows.append(
            [
                name,
                at,
                f"{np.mean([r['singular_values'][0] for r in mine]):.2f}",
                _mean(mine, "stable_rank", 1, 1),
                _mean(mine, "participation_ratio", 1, 1),
                _mean(mine, "ignored_fraction"),
                _mean(mine, "natural_gain"),
                _mean(mine, "ignored_gain"),
                *changes,
            ]
        )
    return rows


def _columns(method: str) -> tuple[_Column, ...]:
    return _COLUMNS + (_CHAIN_COLUMNS if method in CHAINS else ())


def _cell(
    key: jax.Array, items: Sequence[Measured], column: _Column, method: str
) -> str:
    values = np.array([item.record.get(column.field) for item in items], np.float64)
    values = column.scale * values[np.isfinite(values)]
    if not len(values):
        return tables.NOTHING
    mean = f"{np.mean(values):.{column.digits}f}"
    drawn: np.ndarray | None = values if len(values) > 1 else None
    samples = [item.per_sample.get(column.field) for item in items]
    counts = {None if row is None else len(row) for row in samples}
    if method == "starts" and len(counts) == 1 and counts != {None}:
        array = column.scale * np.stack([row for row in samples if row is not None])
        drawn = array if np.isfinite(array).all() and array.size > 1 else drawn
    if drawn is None:
        return mean
    found = bootstrap.interval(key, drawn, level=_LEVEL)
    low, high = (f"{end:.{column.digits}f}" for end in (found.low, found.high))
    return f"{mean} [{low}, {high}]"


def _mean(
    records: Sequence[Mapping[str, Any]],
    field: str,
    scale: float = 1.0,
    digits: int = 3,
) -> str:
    values = [record[field] for record in records if record[field] is not None]
    finite = [value for value in values if np.isfinite(value)]
    return tables.mean(finite, scale=scale, digits=digits)


def _grouped(
    records: Iterable[Mapping[str, Any]],
    place: Callable[[Mapping[str, Any]], tuple[str, str]],
) -> list[tuple[tuple[str, str], list[Mapping[str, Any]]]]:
    """Records by place, places in the order they first come."""
    groups: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for record in records:
        groups.setdefault(place(record), []).append(record)
    return list(groups.items())
