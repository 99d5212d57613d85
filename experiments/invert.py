"""Inverts the codes of photographs, or codes you recorded.

    python -m experiments.invert --workdir=runs/first

inverts two sample photographs at AlexNet's relu1, relu3 and pool5, 400 steps each, in
about a minute and a half on two cores; relative errors come out near 8, 20 and 28 %.

    python -m experiments.invert --workdir=runs/mine --images='photos/*.jpg' \
        --representations=alexnet/relu1,alexnet/relu3 --num_starts=4

Writes below --workdir: config.json, metrics.jsonl (a line per lane), originals/,
reconstructions/<image>/<representation>/start_000.png, grid.png and index.html.
Exit codes: 0 done, 1 cannot be done, 2 wrong command line, 130 interrupted (finished
lanes are kept).
"""

import pathlib
import sys
from collections.abc import Sequence

import numpy as np
from tqdm import tqdm

import invjax
from experiments import binary, lanes, settings, targets
from experiments.binary import Refusal
from experiments.run_folder import RunFolder, command
from experiments.settings import Request, Settings
from invjax import files, images, inversion, metrics
from invjax.report import contact_sheet, gallery
from invjax.types import Representation

_MOST_COLUMNS = 24


def main() -> None:
    request = settings.from_flags()
    if request.list_only:
        print_representations(request.settings.weights_dir)
    elif request.dry_run:
        print_estimates(request.settings)
    else:
        run(request)


def run(request: Request) -> None:
    """Inverts everything asked for.

    Raises:
      binary.Refusal and the package's own errors: bad input; nothing was written.
      KeyboardInterrupt: after what was finished has been written.
    """
    config = request.settings
    groups = load_groups(config)
    assert request.workdir is not None
    folder = RunFolder.claim(request.workdir, overwrite=request.overwrite)
    folder.write_config(
        config.as_json(),
        {group.name: getattr(group.phi, "weights_digest", "") for group in groups},
    )
    originals = write_originals(folder.path, groups)
    planned = lanes.plan(groups, config)
    print(f"{len(planned)} lanes of {config.steps} steps", flush=True)
    finished: list[lanes.Outcome] = []
    try:
        for outcome in _with_progress(planned, config):
            finished.append(outcome)
            write_outcome(folder.path, outcome, config)
            folder.write_metrics([outcome.record for outcome in finished])
    finally:
        # Also after Ctrl-C: what was finished is shown and kept.
        write_pictures(folder.path, finished, originals)
    print(summary(finished))
    print(f"look at {folder.path}/index.html and {folder.path}/grid.png")


def load_groups(config: Settings) -> list[lanes.Group]:
    """Representations and their targets: everything that can be refused, is here."""
    photographs = targets.load_images(config) if config.code is None else {}
    groups = []
    for name in config.representations:
        phi = load_representation(name, config)
        if config.code is not None:
            found = [targets.from_code(config.code, name, phi, config)]
        else:
            found = targets.from_images(photographs, phi, config)
        for target in found:
            if not np.any(target.code):
                raise Refusal(
                    f"{target.name}: its {name} code is zero everywhere, so no error "
                    "relative to it exists"
                )
        spread = metrics.mean_pairwise_distance([target.code for target in found])
        groups.append(lanes.Group(name, phi, found, spread))
    return groups


def load_representation(name: str, config: Settings) -> Representation:
    """The representation of a flag's value.

    Raises:
      Refusal: there is none of that name.
    """
    try:
        return invjax.representation(
            name,
            weights_dir=config.weights_dir,
            compute_dtype=config.compute_dtype,
        )
    except ValueError as error:
        if isinstance(error, binary.EXPECTED):
            raise
        raise Refusal(f"--representations={name}: {error}") from None


def write_originals(
    workdir: pathlib.Path, groups: Sequence[lanes.Group]
) -> list[gallery.GalleryImage]:
    """originals/<image>.png as the first representation saw them."""
    rows = []
    for target in groups[0].targets:
        path = None
        if target.original is not None:
            path = f"originals/{target.name}.png"
            images.write_png(workdir / path, target.original)
        rows.append(gallery.GalleryImage(target.name, path))
    return rows


def write_outcome(
    workdir: pathlib.Path, outcome: lanes.Outcome, config: Settings
) -> None:
    """The picture of a lane, and its arrays if asked for."""
    path = outcome.lane.path
    images.write_png(workdir / "reconstructions" / f"{path}.png", outcome.image)
    if config.save_arrays:
        with files.whole_file(workdir / "arrays" / f"{path}.npz") as stream:
            np.savez_compressed(stream, image=outcome.image, code=outcome.code)


def write_pictures(
    workdir: pathlib.Path,
    finished: Sequence[lanes.Outcome],
    originals: Sequence[gallery.GalleryImage],
) -> None:
    """grid.png and index.html of the lanes finished so far."""
    if finished:
        sheet = contact_sheet.contact_sheet(sheet_rows(finished))
        with files.whole_file(workdir / "grid.png") as stream:
            sheet.save(stream, "PNG")
    gallery.write_gallery(
        workdir,
        title="Images with the code of an image",
        command=command(),
        images=originals,
        lanes=[
            gallery.Lane(outcome.record, f"reconstructions/{outcome.lane.path}.png")
            for outcome in finished
        ],
    )


def sheet_rows(finished: Sequence[lanes.Outcome]) -> list[contact_sheet.Row]:
    """Originals on top, then a row per representation and lambda."""
    rows: dict[str, list[contact_sheet.Cell]] = {}
    top: dict[tuple[str, int], contact_sheet.Cell] = {}
    several = len({outcome.lane.tv_weight for outcome in finished}) > len(
        {outcome.lane.group.name for outcome in finished}
    )
    for outcome in finished:
        lane, error = outcome.lane, outcome.record["relative_error"]
        column = (lane.target.name, lane.start)
        if lane.target.original is not None and column not in top:
            top[column] = contact_sheet.Cell(lane.target.original, lane.target.name)
        label = lane.group.name + (f"  tv {lane.tv_weight:g}" if several else "")
        caption = "failed" if error is None else f"error {error:.1%}"
        if lane.start:
            caption = f"start {lane.start}: {caption}"
        picture = None if error is None else outcome.image
        rows.setdefault(label, []).append(contact_sheet.Cell(picture, caption))
    labelled = [contact_sheet.Row(label, cells) for label, cells in rows.items()]
    if top:
        labelled.insert(0, contact_sheet.Row("originals", list(top.values())))
    return [row._replace(cells=row.cells[:_MOST_COLUMNS]) for row in labelled]


def summary(finished: Sequence[lanes.Outcome]) -> str:
    """A line per representation: mean relative error, and what failed."""
    lines = []
    for name in dict.fromkeys(outcome.lane.group.name for outcome in finished):
        records = [o.record for o in finished if o.lane.group.name == name]
        errors = [
            record["relative_error"]
            for record in records
            if record["relative_error"] is not None
        ]
        mean = f"{np.mean(errors):.1%}" if errors else "none"
        failed = len(records) - len(errors)
        note = f", {failed} of {len(records)} lanes failed" if failed else ""
        lines.append(f"{name}: mean relative error {mean}{note}")
    return "\n".join(lines)


def print_estimates(config: Settings) -> None:
    """Lanes, predicted time and memory, representation by representation."""
    groups = load_groups(config)
    planned = lanes.plan(groups, config)
    total = 0.0
    for group in groups:
        mine = [lane for lane in planned if lane.group is group]
        if not mine:
            continue
        estimate = inversion.estimate(
            group.targets[0].code,
            group.phi,
            execution=lanes.execution(config),
            image_shape=group.targets[0].image_shape,
            preset=config.preset,
            num_steps=config.steps,
        )
        seconds = estimate.seconds_per_lane * len(mine)
        total += seconds
        print(
            f"{group.name}: {len(mine)} lanes of {config.steps} steps, about "
            f"{seconds:.0f} s, {estimate.bytes_per_chunk / 2**20:.0f} MiB"
        )
    print(f"{len(planned)} lanes, about {total:.0f} s besides compiling")


def print_representations(weights_dir: str | None) -> None:
    """A table of what can be inverted, and with which geometry."""
    print(f"{'name':32}{'code':18}{'field':>6}{'stride':>8}  weights")
    for row in invjax.list_representations(weights_dir=weights_dir):
        shape = " x ".join(map(str, row.code_shape))
        at_hand = "at hand" if row.available else "missing"
        print(
            f"{row.name:32}{shape:18}{row.receptive_field:6}{row.stride:8}  {at_hand}"
        )


def _with_progress(planned: Sequence[lanes.Lane], config: Settings):
    """Runs the lanes: a bar on a terminal, a line per lane elsewhere."""
    bar = tqdm(total=len(planned), unit="lane", disable=not sys.stderr.isatty())
    with bar:
        number = 0
        for chunk in lanes.chunks(planned, config):
            bar.set_description(f"{chunk[0].target.name} {chunk[0].group.name}")
            for outcome in lanes.invert(chunk, config):
                yield outcome
                number += 1
                bar.update()
                if bar.disable:
                    print(_line(number, len(planned), outcome), flush=True)


def _line(number: int, total: int, outcome: lanes.Outcome) -> str:
    lane, record = outcome.lane, outcome.record
    error = record["relative_error"]
    result = "failed" if error is None else f"relative error {error:.1%}"
    return (
        f"[{number}/{total}] {lane.target.name} {lane.group.name} tv "
        f"{lane.tv_weight:g} start {lane.start}: {result}, {record['seconds']:.1f} s"
    )


if __name__ == "__main__":
    binary.run(main)
