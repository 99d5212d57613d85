"""The gallery of a run: one static HTML page without scripts or network access.

A control on the page switches between reconstructions clipped to [0, 1] and each
stretched to its own range; originals stay as they are.
"""

import importlib.resources
import math
import os
import urllib.parse
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jinja2

from invjax import files

_TEMPLATE = "gallery.html.jinja"
_DASH = "–"
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
    """

    record: Mapping[str, Any]
    picture: str | None
    stretched: str | None = None


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
) -> None:
    """Writes `workdir`/index.html atomically.

    Each image has a section with its original and its reconstructions, grouped by
    representation in the order of the lanes. The page ends with a table of all lanes.
    Failed lanes are marked in both, and dead starts are counted. Pictures are linked,
    not embedded. Where a lane has a stretched picture, the page has a control for what
    is shown; it begins with the clipped ones.

    Args:
      workdir: The run's folder, to which the paths of pictures are relative.
      title: Heading of the page.
      command: Command line of the run.
      images: Images of the run, in the order of their sections.
      lanes: Reconstructions of the run. Errors in their records are fractions, PSNR is
        in dB and times are in seconds.

    Raises:
      ValueError: The image of a lane is not in `images`, or an image is named twice.
    """
    names = [image.name for image in images]
    unknown = {lane.record["image"] for lane in lanes} - set(names)
    if unknown:
        raise ValueError(f"lanes of images that are not listed: {sorted(unknown)}")
    if len(set(names)) < len(names):
        raise ValueError(f"an image is listed twice: {sorted(names)}")
    environment = jinja2.Environment(
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    source = importlib.resources.files("invjax.report").joinpath(_TEMPLATE)
    page = environment.from_string(source.read_text(encoding="utf-8")).render(
        title=title,
        command=command,
        sections=[_section(image, lanes) for image in images],
        columns=_COLUMNS,
        rows=[_table_row(lane) for lane in lanes],
        num_failed=sum(_is_failed(lane) for lane in lanes),
        is_range_offered=any(lane.stretched is not None for lane in lanes),
        num_dead=sum(bool(lane.record.get("dead_start")) for lane in lanes),
    )
    files.write_whole(files.located(workdir) / "index.html", page)


def _section(image: GalleryImage, lanes: Sequence[GalleryLane]) -> dict[str, Any]:
    groups: dict[str, list[GalleryLane]] = {}
    for lane in lanes:
        if lane.record["image"] == image.name:
            groups.setdefault(lane.record["representation"], []).append(lane)
    return {
        "name": image.name,
        "original": _url(image.original),
        "groups": [
            {
                "representation": representation,
                "figures": [_figure(lane, _varying(group)) for lane in group],
            }
            for representation, group in groups.items()
        ],
    }


def _varying(group: Sequence[GalleryLane]) -> list[_Column]:
    """The weights in which lanes of one image and representation differ."""
    return [
        column
        for column in _COLUMNS
        if column.field in ("tv_weight", "alpha_weight")
        and len({lane.record.get(column.field) for lane in group}) > 1
    ]


def _figure(lane: GalleryLane, varying: Sequence[_Column]) -> dict[str, Any]:
    record = lane.record
    start = _text(record.get("start"), "whole")
    status = _text(record.get("status"), "text")
    weights = [
        f"{column.heading} {_text(record.get(column.field), column.style)}"
        for column in varying
    ]
    facts = ", ".join([f"start {start}", *weights])
    return {
        "url": _url(lane.picture),
        "stretched": _url(lane.stretched),
        "alt": f"{record['image']} reconstructed from {record['representation']}, "
        f"{facts}, {status}",
        "heading": facts[0].upper() + facts[1:],
        "status": status,
        "is_failed": _is_failed(lane),
        "numbers": [
            (column.heading, _text(record.get(column.field), column.style))
            for column in _CAPTION
        ],
    }


def _table_row(lane: GalleryLane) -> dict[str, Any]:
    return {
        "is_failed": _is_failed(lane),
        "cells": [
            (_text(lane.record.get(column.field), column.style), column.is_number)
            for column in _COLUMNS
        ],
    }


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
