"""One report of several studies: Markdown, and a page that needs no other file."""

import base64
import csv
import dataclasses
import io
import json
import pathlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import jinja2
from PIL import Image

from experiments.reproduction import claims, printed
from experiments.reproduction.printed import Claim
from invjax import files
from invjax.runs.folder import command

_TEMPLATES = pathlib.Path(__file__).parent
_PICTURES = ("figure", "curves")
_TABLES = ("table", "geometry", "invariances")
_IN_PAGE = (1400, 6000, 80)
"""Largest width and height of a picture in pixels, and its JPEG quality."""
_IN_FOLDER = (640, 2000, 65)
"""Small enough to be kept in a repository."""
_PAPERS_NETWORK = "CNN-A"
_WORDS = {True: "holds", False: "does not hold", None: "not measured"}


class Part(NamedTuple):
    """A run of a study that the report shows.

    Attributes:
      name: name of the run in the catalogue.
      about: what it shows.
      command: command that makes it.
      folder: folder of the run; None if it is not complete.
      seconds: wall time; None if it is not complete.
      problem: the last line that it printed, if it is not complete.
    """

    name: str
    about: str
    command: str
    folder: pathlib.Path | None
    seconds: float | None
    problem: str


@dataclasses.dataclass(frozen=True)
class _Section:
    """What the templates know of a study."""

    name: str
    about: str
    command: str
    minutes: str
    is_done: bool
    problem: str
    tables: list["_Table"]
    pictures: list["_Picture"]


class _Table(NamedTuple):
    name: str
    header: list[str]
    rows: list[list[str]]


class _Picture(NamedTuple):
    path: str
    data: str
    about: str


class _Finding(NamedTuple):
    claim: Claim
    word: str
    evidence: str


def write(workdir: pathlib.Path, parts: Sequence[Part], *, scale: str) -> None:
    """Writes report.md, report.html and pictures/ into `workdir`.

    Args:
      workdir: folder of the reproduction.
      parts: the runs in the order of the report, incomplete ones included.
      scale: "smoke", "small" or "full".
    """
    records = {part.name: _records(part.folder) for part in parts if part.folder}
    content = printed.load()
    context = {
        "command": command(),
        "scale": scale,
        "sections": [_section(workdir, part) for part in parts],
        "differences": differences(parts, records),
        "certainties": content.certainties,
        "printed": [
            (table, printed.beside(table, records[table.study]))
            for table in content.tables
            if table.study in records
        ],
        "printed_header": printed.HEADER,
        "findings": [
            _Finding(claim, _WORDS[verdict.holds], verdict.evidence)
            for claim in content.claims
            for verdict in [claims.verdict(claim, records.get(claim.study))]
        ],
    }
    for name, is_page in (("report.md", False), ("report.html", True)):
        environment = jinja2.Environment(
            loader=jinja2.FileSystemLoader(_TEMPLATES),
            autoescape=is_page,
            undefined=jinja2.StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        environment.filters["cell"] = _cell
        text = environment.get_template(f"{name}.jinja").render(context)
        files.write_whole(workdir / name, text)


def differences(
    parts: Sequence[Part], records: dict[str, list[dict[str, Any]]]
) -> list[str]:
    """What is not as in the papers, from the records and configurations of the runs."""
    lines = [record for rows in records.values() for record in rows]
    names = dict.fromkeys(r["representation"] for r in lines if "representation" in r)
    networks = list(dict.fromkeys(n.split("/")[0] for n in names if "/" in n))
    # Lanes of maximisation have the name of a neuron in place of an image's.
    of_images = [r for r in lines if "image" in r and "unit" not in r]
    images = list(dict.fromkeys(r["image"] for r in of_images))
    found = []
    if networks:
        found.append(
            f"Networks: {', '.join(networks)}. The CVPR paper's is {_PAPERS_NETWORK}, "
            "Caffe's reference network (caffenet here): it pools before it normalises "
            "responses, and has two groups in conv2, conv4 and conv5; torchvision's "
            "AlexNet has neither. The IJCV paper adds AlexNet, VGG-M and VGG-16."
        )
    if images:
        found.append(
            f"Images: {', '.join(images)}. The papers have 100 of ILSVRC 2012's "
            "validation images, so that deviations, and the distances that errors are "
            "normalised by, are of more."
        )
    how: dict[str, set[int]] = {}
    for record in lines:
        if "preset" in record:
            how.setdefault(record["preset"], set()).add(record["num_steps"])
    if how:
        steps = "; ".join(
            f"{preset} with {', '.join(map(str, sorted(counts)))} steps"
            for preset, counts in how.items()
        )
        found.append(
            f"Method: {steps}. The CVPR paper's is cvpr2015 with 400 steps, 800 for "
            "HOG and dense SIFT; the IJCV paper's is ijcv2016 with 350, 300 for HOG, "
            "dense SIFT, maximisation and caricature."
        )
    devices = dict.fromkeys(_device(part.folder) for part in parts if part.folder)
    found.append(f"Devices: {', '.join(filter(None, devices)) or 'none'}.")
    return found


def _section(workdir: pathlib.Path, part: Part) -> _Section:
    tables = []
    pictures = []
    if part.folder is not None:
        for name in _TABLES:
            source = part.folder / f"{name}.csv"
            if source.exists():
                with open(source, newline="") as stream:
                    header, *rows = list(csv.reader(stream)) or [[]]
                tables.append(_Table(name, header, rows))
        for name in _PICTURES:
            source = part.folder / f"{name}.png"
            if source.exists():
                path = f"pictures/{part.name}_{name}.jpg"
                files.write_whole(workdir / path, _jpeg(source, *_IN_FOLDER))
                about = f"{part.about}: {name}"
                encoded = base64.b64encode(_jpeg(source, *_IN_PAGE)).decode()
                pictures.append(_Picture(path, encoded, about))
    return _Section(
        part.name,
        part.about,
        part.command,
        "" if part.seconds is None else f"{part.seconds / 60:.1f}",
        part.folder is not None,
        part.problem,
        tables,
        pictures,
    )


def _records(folder: pathlib.Path) -> list[dict[str, Any]]:
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def _device(folder: pathlib.Path) -> str:
    device = json.loads((folder / "config.json").read_text()).get("device", {})
    return f"{device.get('kind', '?')} ({device.get('machine', '?')})" if device else ""


def _jpeg(path: pathlib.Path, width: int, height: int, quality: int) -> bytes:
    with Image.open(path) as picture:
        small = picture.convert("RGB")
        small.thumbnail((width, height), Image.Resampling.LANCZOS)
        stream = io.BytesIO()
        small.save(stream, "JPEG", quality=quality, optimize=True)
    return stream.getvalue()


def _cell(text: str) -> str:
    """A cell of a Markdown table."""
    return " ".join(text.split()).replace("|", "\\|")
