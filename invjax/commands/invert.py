"""Inverts the codes of photographs, or codes you recorded.

    python -m invjax.commands.invert --workdir=runs/first

inverts two sample photographs at AlexNet's relu1, relu3 and pool5, 400 steps each, in
about a minute on two cores; mean relative errors are 8.2, 18.3 and 27.3 %.

    python -m invjax.commands.invert --workdir=runs/mine --images='photos/*.jpg' \
        --representations=alexnet/relu1,alexnet/relu3 --num_starts=4

Writes below --workdir: config.json, metrics.jsonl (a line per lane), originals/,
reconstructions/<image>/<representation>/start_000.png, grid.png, grid_stretched.png and
index.html. PNG files of reconstructions and grid.png are clipped to [0, 1]. In
grid_stretched.png and in stretched/, which index.html shows on demand, each
reconstruction is stretched from its smallest to its largest value, as in the papers.
Beyond 500 pictures the sheets continue on grid_002.png and so on.
Exit codes: 0 done, 1 cannot be done, 2 unreadable command line, 130 interrupted
(finished lanes are kept).
"""

import json
import pathlib
from collections.abc import Sequence

import numpy as np

from invjax import representations
from invjax.commands import binary, shared_flags
from invjax.report import contact_sheet, gallery
from invjax.report.contact_sheet import Cell, Row
from invjax.report.gallery import GalleryImage, GalleryLane
from invjax.runs import lanes, loading, runner, skipped
from invjax.runs.folder import RunFolder, command
from invjax.runs.records import remarks
from invjax.runs.runner import Outcome
from invjax.runs.settings import Request

_IMAGES = "sample:chelsea,sample:coffee"
_REPRESENTATIONS = ("alexnet/relu1", "alexnet/relu3", "alexnet/pool5")


def main() -> None:
    """Inverts, or lists what there is, as the parsed flags ask."""
    if binary.LIST.value:
        print_representations(binary.WEIGHTS_DIR.value)
        return
    request = shared_flags.from_flags(images=_IMAGES, representations=_REPRESENTATIONS)
    if request.dry_run:
        settings = request.settings
        planned = lanes.plan(loading.load_groups(settings), settings)
        runner.print_estimates(planned, settings)
    else:
        run(request)


def run(request: Request) -> None:
    """Inverts everything asked for.

    Raises:
      Refusal and the errors of `runs.errors`: bad input; nothing was written.
      KeyboardInterrupt: after what was finished has been written.
    """
    settings = request.settings
    groups = loading.load_groups(settings)
    lpips_parameters = loading.load_lpips(groups, settings)
    assert request.workdir is not None
    folder = RunFolder.claim(request.workdir, overwrite=request.overwrite)
    folder.write_config(settings.as_json(), loading.weights_digests(groups))
    skipped.write(folder.path / skipped.FILE, loading.unread(groups))
    originals = runner.write_originals(folder, groups)
    # Each representation may have recorded codes of its own.
    names = dict.fromkeys(target.name for g in groups for target in g.targets)
    images = [GalleryImage(name, originals.get(name)) for name in names]
    planned = lanes.plan(groups, settings)
    print(f"lanes: {len(planned)}", flush=True)
    finished: list[Outcome] = []
    try:
        for outcome in runner.run(
            planned,
            settings,
            folder,
            lpips_parameters=lpips_parameters,
            stretched="stretched",
        ):
            finished.append(outcome)
    finally:
        # Also after Ctrl-C: what was finished is shown and kept.
        write_pictures(folder.path, finished, images)
    print(summary(finished))
    print(f"look at {folder.path}/index.html and {folder.path}/grid.png")


def write_pictures(
    workdir: pathlib.Path,
    finished: Sequence[Outcome],
    images: Sequence[GalleryImage],
) -> None:
    """Writes index.html and the contact sheets of the lanes that ended.

    Sheets are grid.png and grid_stretched.png, and further pages of both.
    """
    for number, page in enumerate(contact_sheet.pages(sheet_rows(finished)), start=1):
        path = contact_sheet.page_path(workdir / "grid.png", number)
        contact_sheet.write_both(path, page)
    gallery.write_gallery(
        workdir,
        title="Images with the code of an image",
        command=command(),
        images=images,
        lanes=[
            GalleryLane(
                outcome.record.as_json(),
                f"reconstructions/{outcome.lane.path}.png",
                f"stretched/{outcome.lane.path}.jpg",
            )
            for outcome in finished
        ],
        config=json.loads((workdir / "config.json").read_text()),
    )


def sheet_rows(finished: Sequence[Outcome]) -> list[Row]:
    """Originals on top, then a row per representation and lambda."""
    rows: dict[str, list[Cell]] = {}
    top: dict[tuple[str, int], Cell] = {}
    lambdas = {(o.lane.group.name, o.lane.tv_weight) for o in finished}
    several = len(lambdas) > len({name for name, _ in lambdas})
    for outcome in finished:
        lane, error = outcome.lane, outcome.record.relative_error
        column = (lane.target.name, lane.start)
        if lane.target.original is not None and column not in top:
            top[column] = Cell(lane.target.original, lane.target.name)
        label = lane.group.name + (f"  tv {lane.tv_weight:g}" if several else "")
        caption = "failed" if error is None else f"error {error:.1%}"
        if lane.start:
            caption = f"start {lane.start}: {caption}"
        rows.setdefault(label, []).append(Cell.found(outcome.picture, caption))
    labelled = [Row(label, cells) for label, cells in rows.items()]
    if top:
        labelled.insert(0, Row("originals", list(top.values())))
    return labelled


def summary(finished: Sequence[Outcome]) -> str:
    """A line per representation: mean relative error, failed lanes, dead starts."""
    lines = []
    for name in dict.fromkeys(outcome.lane.group.name for outcome in finished):
        records = [o.record for o in finished if o.lane.group.name == name]
        errors = [
            record.relative_error
            for record in records
            if record.relative_error is not None
        ]
        mean = f"{np.mean(errors):.1%}" if errors else "none"
        line = f"{name}: mean relative error {mean}"
        lines.append(", ".join([line, *remarks(records)]))
    return "\n".join(lines)


def print_representations(weights_dir: str | None) -> None:
    """A table of what can be inverted, and with which geometry."""
    print(f"{'name':32}{'code':18}{'field':>6}{'stride':>8}  weights")
    for row in representations.list_representations(weights_dir=weights_dir):
        shape = " x ".join(map(str, row.code_shape))
        at_hand = "at hand" if row.available else "missing"
        print(
            f"{row.name:32}{shape:18}{row.receptive_field:6}{row.stride:8}  {at_hand}"
        )


if __name__ == "__main__":
    binary.run(main)
