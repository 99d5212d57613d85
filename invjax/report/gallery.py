"""A run's results as one page, `index.html`, that opens without a server.

Each image has its original at the left, which stays in sight, and a row per
representation with the starts side by side. Pictures are linked by paths relative to
the page. Reconstructions are shown clipped, to compare, or stretched to their own
range, as in the papers; originals stay as they are. A script in the page compares
pictures, filters lanes and sorts the table; without it everything can be looked at
still. The page asks no network for anything.
"""

import itertools
import math
import os
import urllib.parse
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import jinja2

from invjax import files
from invjax.report import contrast, over_starts, sparklines

_TEMPLATE = "gallery.html.jinja"
_DASH = "–"
_WIDEST = 48  # of a column, in widths of a digit
_FAILED = "failed"


class GalleryImage(NamedTuple):
    """One image of the run.

    Attributes:
      name: Name of the image, as in the field "image" of the records.
      original: Path of its picture relative to the run's folder; None if the run
        started from a code and has no original.
    """

    name: str
    original: str | None


class GalleryLane(NamedTuple):
    """One reconstruction.

    Attributes:
      record: A line of metrics.jsonl; None and absent values are shown as a dash.
      picture: Path of its picture relative to the run's folder, clipped to [0, 1];
        None for no picture.
      stretched: Path of the picture stretched to its range, as
        `contrast.write_stretched` writes it; None where there is none, of which the
        page says that it is shown clipped.
      animation: Path of a picture that shows the descent; None where there is none.
    """

    record: Mapping[str, Any]
    picture: str | None
    stretched: str | None = None
    animation: str | None = None


class _Column(NamedTuple):
    heading: str
    field: str
    style: str
    is_number: bool = True


_COLUMNS = (
    _Column("Image", "image", "text", is_number=False),
    _Column("Representation", "representation", "text", is_number=False),
    _Column("Start", "start", "whole"),
    _Column("Status", "status", "text", is_number=False),
    _Column("Dead start", "dead_start", "text", is_number=False),
    _Column("Relative error", "relative_error", "percent"),
    _Column("Normalised error", "normalised_error", "percent"),
    _Column("PSNR (dB)", "psnr", "decibel"),
    _Column("SSIM", "ssim", "decimal"),
    _Column("LPIPS", "lpips", "decimal"),
    _Column("Energy", "energy", "figures"),
    _Column("Objective", "objective", "figures"),
    _Column("Data term", "data_term", "figures"),
    _Column("Alpha term", "alpha_term", "figures"),
    _Column("TV term", "tv_term", "figures"),
    _Column("Preset", "preset", "text", is_number=False),
    _Column("TV weight", "tv_weight", "figures"),
    _Column("Alpha weight", "alpha_weight", "figures"),
    _Column("Steps", "num_steps", "whole"),
    _Column("Seed", "seed", "identifier"),
    _Column("Time (s)", "seconds", "decibel"),
)

# Below a picture, after its start and status.
_CAPTION = (
    _Column("Relative error", "relative_error", "percent"),
    _Column("Normalised error", "normalised_error", "percent"),
    _Column("PSNR", "psnr", "decibel_unit"),
    _Column("SSIM", "ssim", "decimal"),
)

# In what lanes of one row are alike, besides image and representation.
_SETTINGS = (
    _Column("preset", "preset", "text"),
    _Column("variant", "variant", "text"),
    _Column("TV weight", "tv_weight", "figures"),
    _Column("alpha weight", "alpha_weight", "figures"),
)

# What the reader can filter by.
_FILTERS = (
    ("image", "Image"),
    ("representation", "Representation"),
    ("preset", "Preset"),
    ("status", "Status"),
)

# By the word in a record: what the filter says, and what is said of a lane.
_STATUS = {
    "budget": ("ran all its steps", "ran its {}"),
    "converged": ("converged", "converged after {}"),
    _FAILED: ("diverged", "diverged after {}"),
}

_CONFIGURATION = {
    "settings": "Settings",
    "device": "Device",
    "versions": "Versions",
    "weights": "SHA-256 of the weights",
}

_FORMATS = {
    "text": "{}",
    "identifier": "{}",
    "whole": "{:,.0f}",
    "percent": "{:.1%}",
    "decibel": "{:.1f}",
    "decibel_unit": "{:.1f} dB",
    "decimal": "{:.3f}",
    "figures": "{:.4g}",
}


def write_gallery(
    workdir: str | os.PathLike[str],
    *,
    title: str,
    command: str,
    images: Sequence[GalleryImage],
    lanes: Sequence[GalleryLane],
    config: Mapping[str, Any] | None = None,
) -> None:
    """Writes `workdir`/index.html atomically.

    Each image has a section with its original, which stays in sight, and a row per
    representation and set of weights, in the order of the lanes. Where a row has
    several starts, their mean and deviation are written below `over_starts.FOLDER` and
    shown first. Each lane has the curve of its objective where the field "history" of
    its record holds one; curves of a row have the same axes. The page ends with a table
    of all lanes. Failed lanes are marked everywhere, and dead starts are counted.
    Pictures are linked, not embedded. Where a lane has a stretched picture, the page
    has a control for what is shown; it begins with the clipped ones.

    Args:
      workdir: The run's folder, to which the paths of pictures are relative.
      title: Heading of the page.
      command: Command line of the run.
      images: Images of the run, in the order of their sections.
      lanes: Reconstructions of the run. Errors in their records are fractions, PSNR is
        in dB and times are in seconds.
      config: What config.json holds: "settings", "device", "versions" and "weights"
        are shown, each a mapping by name.

    Raises:
      ValueError: The image of a lane is not in `images`, or an image is named twice.
    """
    names = [image.name for image in images]
    unknown = {lane.record["image"] for lane in lanes} - set(names)
    if unknown:
        raise ValueError(f"lanes of images that are not listed: {sorted(unknown)}")
    if len(set(names)) < len(names):
        raise ValueError(f"an image is listed twice: {sorted(names)}")
    folder = files.located(workdir)
    by_image: dict[str, list[tuple[int, GalleryLane]]] = {name: [] for name in names}
    for number, lane in enumerate(lanes):
        by_image[lane.record["image"]].append((number, lane))
    sections = [_section(folder, image, by_image[image.name]) for image in images]
    rows = [_table_row(number, lane) for number, lane in enumerate(lanes)]
    page = (
        environment()
        .get_template(_TEMPLATE)
        .render(
            title=title,
            command=command,
            configuration=_configuration(config or {}),
            sections=sections,
            filters=_filters(lanes),
            columns=_COLUMNS,
            rows=rows,
            widths=_widths(rows),
            num_failed=sum(_is_failed(lane) for lane in lanes),
            is_range_offered=any(lane.stretched is not None for lane in lanes),
            is_compared=any(image.original is not None for image in images),
            num_dead=sum(bool(lane.record.get("dead_start")) for lane in lanes),
            curve_size=(sparklines.WIDTH, sparklines.HEIGHT),
        )
    )
    files.write_whole(folder / "index.html", page)


def environment() -> jinja2.Environment:
    """How this package's templates are filled in: what they are given is escaped."""
    return jinja2.Environment(
        loader=jinja2.PackageLoader("invjax.report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _section(
    folder: files.Path,
    image: GalleryImage,
    lanes: Sequence[tuple[int, GalleryLane]],
) -> dict[str, Any]:
    by_representation: dict[str, dict[tuple[Any, ...], list]] = {}
    for number, lane in lanes:
        representation = lane.record["representation"]
        rows = by_representation.setdefault(representation, {})
        rows.setdefault(_settings_of(lane), []).append((number, lane))
    return {
        "name": image.name,
        "original": _url(image.original),
        "rows": [
            _row(folder, representation, row, _facts(row[0][1], rows))
            for representation, rows in by_representation.items()
            for row in rows.values()
        ],
    }


def _settings_of(lane: GalleryLane) -> tuple[Any, ...]:
    return tuple(lane.record.get(column.field) for column in _SETTINGS)


def _facts(lane: GalleryLane, rows: Iterable[tuple[Any, ...]]) -> list[str]:
    """The settings of a lane that differ between the rows of its representation."""
    return [
        f"{column.heading} {_text(lane.record.get(column.field), column.style)}"
        for column, values in zip(_SETTINGS, zip(*rows, strict=True), strict=True)
        if len(set(values)) > 1
    ]


def _row(
    folder: files.Path,
    representation: str,
    lanes: Sequence[tuple[int, GalleryLane]],
    facts: Sequence[str],
) -> dict[str, Any]:
    first = lanes[0][1].record
    # A lane that diverged would leave no room for the others.
    whole = [lane for _, lane in lanes if not _is_failed(lane)]
    axes = sparklines.axes(
        _history(lane) for lane in whole or [lane for _, lane in lanes]
    )
    heading = ", ".join([representation, *facts])
    name = f"{first['image']}/{heading.replace('/', '_').replace(', ', '_')}"
    found = over_starts.write(
        folder,
        name.replace(" ", "_"),
        [lane.picture for lane in whole if lane.picture is not None],
    )
    return {
        "heading": heading,
        "axes": axes,
        "axes_text": _axes_text(axes),
        "over_starts": found and _over_starts(found, f"{first['image']}, {heading}"),
        "figures": [_figure(number, lane, facts, axes) for number, lane in lanes],
    }


def _over_starts(found: over_starts.OverStarts, of: str) -> list[dict[str, Any]]:
    white = f"white is {contrast.WHITE_DEVIATION:g}"
    return [
        {
            "url": _url(found.mean),
            "stretched": _url(found.stretched),
            "alt": f"mean of {found.num_starts} starts: {of}",
            "heading": f"Mean of {found.num_starts} starts",
            "note": "of the clipped pictures",
        },
        {
            "url": _url(found.deviation),
            "stretched": None,
            "alt": f"deviation of {found.num_starts} starts: {of}",
            "heading": f"Deviation of {found.num_starts} starts",
            "note": white,
        },
    ]


def _figure(
    number: int,
    lane: GalleryLane,
    facts: Sequence[str],
    axes: sparklines.Axes | None,
) -> dict[str, Any]:
    record = lane.record
    start = f"start {_text(record.get('start'), 'whole')}"
    status = _status(record)
    described = ", ".join([*facts, start, status])
    return {
        "number": number,
        "facets": _facets(lane),
        "url": _url(lane.picture),
        "stretched": _url(lane.stretched),
        "animation": _url(lane.animation),
        "alt": f"{record['image']} reconstructed from {record['representation']}, "
        f"{described}",
        "heading": start[0].upper() + start[1:],
        "status": status,
        "is_failed": _is_failed(lane),
        "is_dead": bool(record.get("dead_start")),
        "points": axes and sparklines.points(_history(lane), axes),
        "curve_text": _curve_text(_history(lane)),
        "numbers": [
            (column.heading, _text(record.get(column.field), column.style))
            for column in _CAPTION
        ],
    }


def _history(lane: GalleryLane) -> sparklines.History:
    return lane.record.get("history") or ()


def _curve_text(history: sparklines.History) -> str:
    if not history:
        return ""
    ends = (
        f"{value:.4g} at step {step:,}" for step, value in (history[0], history[-1])
    )
    return f"Objective: {', '.join(ends)}"


def _axes_text(axes: sparklines.Axes | None) -> str:
    if axes is None:
        return ""
    scale = "logarithmic" if axes.is_logarithmic else "linear"
    return (
        f"Curves: objective from {axes.low:.3g} to {axes.high:.3g} ({scale}) over "
        f"{axes.last_step:,} steps"
    )


def _table_row(number: int, lane: GalleryLane) -> dict[str, Any]:
    record = lane.record
    cells: list[tuple[str, str | None, bool]] = []
    for column in _COLUMNS:
        value = record.get(column.field)
        if column.field == "status":
            cells.append((_status(record), None, False))
        elif column.is_number:
            text = _text(value, column.style)
            cells.append((text, None if text == _DASH else f"{value:.7g}", True))
        else:
            cells.append((_text(value, column.style), None, False))
    return {
        "number": number,
        "facets": _facets(lane),
        "is_failed": _is_failed(lane),
        "cells": cells,
    }


def _widths(rows: Sequence[Mapping[str, Any]]) -> str:
    """Widths of the table's columns as CSS has them, by their longest texts."""
    widths = []
    for place, column in enumerate(_COLUMNS):
        longest = max((len(row["cells"][place][0]) for row in rows), default=0)
        # Letters may be wider than digits; beside a heading there is room for an arrow.
        needed = longest if column.is_number else 1.2 * longest
        widths.append(min(max(needed, len(column.heading) + 1) + 3, _WIDEST))
    return " ".join(f"{width:g}ch" for width in widths)


def _facets(lane: GalleryLane) -> list[tuple[str, str]]:
    """What a lane can be filtered by, with its values."""
    record = lane.record
    status = record.get("status")
    words = _STATUS[status][0] if status in _STATUS else _text(status, "text")
    return [
        (name, words if name == "status" else _text(record.get(name), "text"))
        for name, _ in _FILTERS
    ]


def _filters(lanes: Sequence[GalleryLane]) -> list[tuple[str, str, list[str]]]:
    """Names, labels and choices of the filters that have something to choose from."""
    values: dict[str, dict[str, None]] = {name: {} for name, _ in _FILTERS}
    for name, value in itertools.chain.from_iterable(map(_facets, lanes)):
        values[name].setdefault(value)
    return [
        (name, label, list(values[name]))
        for name, label in _FILTERS
        if len(values[name]) > 1
    ]


def _status(record: Mapping[str, Any]) -> str:
    """How a lane ended, in words: "ran its 400 steps"."""
    status, num_steps = record.get("status"), record.get("num_steps")
    if status not in _STATUS:
        return _text(status, "text")
    word, sentence = _STATUS[status]
    if num_steps is None:
        return word
    return sentence.format(f"{num_steps:,} step{'' if num_steps == 1 else 's'}")


def _configuration(
    config: Mapping[str, Any],
) -> list[tuple[str, list[tuple[str, str]]]]:
    return [
        (heading, [(name, _setting(value)) for name, value in config[part].items()])
        for part, heading in _CONFIGURATION.items()
        if config.get(part)
    ]


def _setting(value: Any) -> str:
    if isinstance(value, Mapping):
        pairs = (f"{name} {_setting(item)}" for name, item in value.items())
        return ", ".join(pairs) or _DASH
    if isinstance(value, list | tuple):
        return ", ".join(map(_setting, value)) or _DASH
    return _text(value, "text") or _DASH


def _is_failed(lane: GalleryLane) -> bool:
    return lane.record.get("status") == _FAILED


def _text(value: Any, style: str) -> str:
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return _DASH
    if isinstance(value, bool):
        return "yes" if value else "no"
    return _FORMATS[style].format(value)


def _url(path: str | None) -> str | None:
    # The colon is quoted too, or "a:b.png" would be read as an address of scheme "a".
    return None if path is None else urllib.parse.quote(path, safe="/")
