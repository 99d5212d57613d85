"""Inverts the codes of photographs, or codes you recorded.

    invjax invert --workdir=runs/first

inverts two sample photographs at AlexNet's relu1, relu3 and pool5, 400 steps each, in
about a minute on two cores; mean relative errors are 8.2, 18.3 and 27.3 %.

    invjax invert --workdir=runs/mine --images='photos/*.jpg' \\
        --representations=alexnet/relu1,alexnet/relu3 --num_starts=4

Writes below --workdir: config.json, originals/,
reconstructions/<image>/<representation>/start_000.png, metrics/part-00000000.jsonl and
so on (a file for each half minute of work), and in the end grid.png,
grid_stretched.png, index.html and metrics.jsonl, a line per lane. PNG files of
reconstructions and grid.png are clipped to [0, 1]. In grid_stretched.png and in
stretched/, which index.html shows on demand, each reconstruction is stretched from its
smallest to its largest value, as in the papers. Beyond 500 pictures the sheets continue
on grid_002.png and so on.

A command that was interrupted, by Ctrl-C, a kill or a full disk, goes on when it is
given again; so do several processes that share a run (--num_processes). Lanes that are
done are not done again, and results are the same as of a run that was never
interrupted, but for the column `seconds`. Exit codes: 0 done, 1 cannot be done, 2
unreadable command line, 130 interrupted, 143 told to end (SIGTERM).
"""

import functools
from collections.abc import Iterator, Sequence

import numpy as np

from invjax import files, representations
from invjax.commands import binary, shared_flags
from invjax.images import reading, sources
from invjax.images.pixels import ImageError
from invjax.images.sources import ImageSource
from invjax.metrics import lpips
from invjax.report import contact_sheet, descents, gallery
from invjax.report.contact_sheet import Cell, Row
from invjax.report.descents import Descent
from invjax.report.gallery import GalleryImage, GalleryLane
from invjax.representations.bridges import LayerInfo
from invjax.runs import lanes, loading, runner, trajectories
from invjax.runs.folder import RunFolder
from invjax.runs.identification import Identifier
from invjax.runs.plans import LoadedPlan
from invjax.runs.records import Record, Tally
from invjax.runs.runner import Run
from invjax.runs.settings import Request, Settings
from invjax.runs.shards import DamagedShard, Entry, Shard
from invjax.runs.units import Unit

MOST_LOADED = 64
"""Images of larger sets are not read before the run, but with their units."""

_IMAGES = "sample:chelsea,sample:coffee"
_REPRESENTATIONS = ("alexnet/relu1", "alexnet/relu3", "alexnet/pool5")
_MOST_IN_GALLERY = 1000
_MOST_IN_SHEETS = 2000
_STRETCHED = "stretched"


def main() -> None:
    """Inverts, or lists what there is, as the parsed flags ask."""
    if binary.LIST.value:
        rows = shared_flags.module_layers()
        if rows is None:
            print_representations(binary.WEIGHTS_DIR.value)
        else:
            print_layers(rows)
        return
    request = shared_flags.from_flags(images=_IMAGES, representations=_REPRESENTATIONS)
    if request.dry_run:
        settings = request.settings
        listed = _listed(settings)
        if _is_listed(listed, settings):
            none = dict.fromkeys(settings.representations)
            plan, _ = loading.load_listed(listed, settings, scales=none)
            runner.print_estimates(plan.examples(), settings)
            return
        planned = lanes.plan(loading.load_groups(settings), settings)
        runner.print_estimates(planned, settings)
    else:
        run(request)


def run(request: Request) -> None:
    """Inverts everything asked for, or what is left of it.

    Raises:
      Refusal and the errors of `runs.errors`: bad input; nothing was written.
      KeyboardInterrupt: after what was finished has been written.
    """
    # What is wrong with its flag is said before anything is written.
    identifier = Identifier.of(request.settings)
    begun, lpips_parameters = begin(request)
    view = View(begun)

    def compute(todo: list[Unit]) -> None:
        runner.compute(
            begun,
            todo,
            lpips_parameters=lpips_parameters,
            stretched=_STRETCHED,
            writes_originals=True,
            identifier=identifier,
        )

    runner.carry_out(begun, compute, view.show)


def begin(request: Request) -> tuple[Run, lpips.Parameters | None]:
    """Loads what a run needs and begins it, or goes on with it.

    Returns:
      The run, and the weights of LPIPS; None where they are not at hand.

    Raises: as `run`.
    """
    settings = request.settings
    assert request.workdir is not None
    listed = _listed(settings)
    if not _is_listed(listed, settings):
        groups = loading.load_groups(settings)
        lpips_parameters = loading.load_lpips(groups, settings)
        folder = RunFolder.claim(request.workdir, overwrite=request.overwrite)
        begun = runner.begin(
            folder,
            LoadedPlan(lanes.plan(groups, settings)),
            settings,
            weights=loading.weights_digests(groups),
            process=request.process,
            skipped=loading.unread(groups),
        )
        return begun, lpips_parameters
    plan, scales = loading.load_listed(
        listed, settings, scales=_settled_scales(request)
    )
    lpips_parameters = loading.load_lpips(plan.groups, settings)
    folder = RunFolder.claim(request.workdir, overwrite=request.overwrite)
    begun = runner.begin(
        folder,
        plan,
        settings,
        weights=loading.weights_digests(plan.groups),
        process=request.process,
        code_scales=scales,
    )
    return begun, lpips_parameters


class View:
    """What there is to see of a run: contact sheets, index.html and a summary.

    Args:
      run: the run.
    """

    def __init__(self, run: Run):
        self._run = run
        self._folder = run.folder.path
        # Where there are none, nothing is looked up lane by lane.
        self._has_trajectories = run.settings.save_trajectory is not None

    def show(self, shards: Iterator[tuple[Unit, Shard]]) -> None:
        """Writes sheets and index.html of lanes that are done, and prints a summary.

        Args:
          shards: the units that are done.

        Raises:
          DamagedShard: a picture of a unit that is done cannot be read.
        """
        sheet = Sheet(self._run)
        images: dict[str, GalleryImage] = {}
        shown: list[GalleryLane] = []
        tallies: dict[str, _Summary] = {}
        curves: list[Descent] = []
        num_lanes = 0
        for unit, shard in shards:
            for entry in shard.entries:
                num_lanes += 1
                record = Record.from_json(entry.record)
                tallies.setdefault(record.representation, _Summary()).add(record)
                sheet.add(unit, entry, record)
                if len(curves) < _MOST_IN_GALLERY:
                    curves.append(self._descent(entry, record))
                if len(shown) < _MOST_IN_GALLERY:
                    picture = f"reconstructions/{entry.path}.png"
                    stretched = f"{_STRETCHED}/{entry.path}.jpg"
                    animation = None
                    if self._has_trajectories:
                        animation = trajectories.animation(self._folder, entry.path)
                    shown.append(
                        GalleryLane(entry.record, picture, stretched, animation)
                    )
                    images.setdefault(
                        record.image, GalleryImage(record.image, self._original(record))
                    )
        sheet.write()
        title = "Images with the code of an image"
        if num_lanes > len(shown):
            title += f": the first {len(shown)} of {num_lanes} lanes"
        config = self._run.folder.config() or {}
        gallery.write_gallery(
            self._folder,
            title=title,
            command=config.get("command", ""),
            config=config,
            images=list(images.values()),
            lanes=shown,
        )
        descents.write(self._folder, curves)
        for name, tally in tallies.items():
            print(tally.line(name))
        print(f"look at {self._folder}/index.html and {self._folder}/grid.png")

    def _descent(self, entry: Entry, record: Record) -> Descent:
        errors: list[tuple[int, float]] = []
        if self._has_trajectories:
            rows = trajectories.read(self._folder / trajectories.FOLDER, entry.path)
            errors = trajectories.errors(rows)
        return Descent(record.representation, record.history or (), errors)

    def _original(self, record: Record) -> str | None:
        path = runner.original_path(record.image)
        return path if (self._folder / path).exists() else None


class Sheet:
    """Originals on top, then a row per representation and lambda.

    Pictures are read back from the run's folder, page by page. Of a large run the first
    lanes of each row are shown.

    Args:
      run: the run.
    """

    def __init__(self, run: Run):
        self._folder = run.folder.path
        settings = run.settings
        num_rows = 1 + len(settings.representations) * len(settings.tv_weight or [0])
        self._most = max(1, _MOST_IN_SHEETS // num_rows)
        self._rows: dict[tuple[str, float], list[Cell]] = {}
        self._top: dict[tuple[str, int], Cell] = {}
        # Where the pictures of a cell are, and the unit that wrote them.
        self._files: dict[int, tuple[list[files.Path], Unit]] = {}

    def add(self, unit: Unit, entry: Entry, record: Record) -> None:
        """Takes a lane where its row has room."""
        row = self._rows.setdefault((record.representation, record.tv_weight), [])
        if len(row) == self._most:
            return
        column = (record.image, record.start)
        original = self._folder / runner.original_path(record.image)
        if column not in self._top and original.exists():
            self._top[column] = self._cell(record.image, [original], unit)
        error = record.relative_error
        caption = "failed" if error is None else f"error {error:.1%}"
        if record.start:
            caption = f"start {record.start}: {caption}"
        if record.has_failed:
            row.append(Cell(None, caption))
        else:
            pictures = [
                self._folder / "reconstructions" / f"{entry.path}.png",
                self._folder / _STRETCHED / f"{entry.path}.jpg",
            ]
            row.append(self._cell(caption, pictures, unit))

    def write(self) -> None:
        """Writes grid.png, grid_stretched.png and further pages of both.

        Raises:
          DamagedShard: a picture cannot be read.
        """
        several = len(self._rows) > len({name for name, _ in self._rows})
        rows = [
            Row(name + (f"  tv {tv_weight:g}" if several else ""), cells)
            for (name, tv_weight), cells in self._rows.items()
        ]
        if self._top:
            rows.insert(0, Row("originals", list(self._top.values())))
        for number, page in enumerate(contact_sheet.pages(rows), start=1):
            shown = [
                row._replace(cells=[self._with_picture(cell) for cell in row.cells])
                for row in page
            ]
            path = contact_sheet.page_path(self._folder / "grid.png", number)
            contact_sheet.write_both(path, shown)

    def _cell(self, caption: str, paths: list[files.Path], unit: Unit) -> Cell:
        cell = Cell(None, caption)
        self._files[id(cell)] = paths, unit
        return cell

    def _with_picture(self, cell: Cell) -> Cell:
        if id(cell) not in self._files:
            return cell
        (path, *others), unit = self._files[id(cell)]
        # The stretched one is not read before it is drawn.
        stretched = [functools.partial(_read, other, unit) for other in others]
        return Cell(_read(path, unit), cell.caption, *stretched)


def _read(path: files.Path, unit: Unit) -> np.ndarray:
    """A picture that the run wrote; a grey one has one channel.

    Raises:
      DamagedShard: it cannot be read; `unit` wrote it.
    """
    try:
        picture = reading.read(path)
    except ImageError as error:
        raise DamagedShard(unit, str(error)) from None
    return picture[..., :1] if np.all(picture == picture[..., :1]) else picture


class _Summary:
    """Mean relative error, failed lanes and dead starts of a representation."""

    def __init__(self) -> None:
        self._tally = Tally()
        self._number = 0
        self._total = 0.0

    def add(self, record: Record) -> None:
        self._tally.add(record)
        if record.relative_error is not None:
            self._number += 1
            self._total += record.relative_error

    def line(self, name: str) -> str:
        mean = f"{self._total / self._number:.1%}" if self._number else "none"
        first = f"{name}: mean relative error {mean}"
        return ", ".join([first, *self._tally.remarks()])


def _listed(settings: Settings) -> list[ImageSource]:
    """The images of a run; none where it has recorded codes."""
    return [] if settings.images is None else sources.find(settings.images)


def _is_listed(listed: Sequence[ImageSource], settings: Settings) -> bool:
    """Whether images are read with their units; masks and starts are read before."""
    given = settings.mask is not None or settings.initial_image is not None
    return len(listed) > MOST_LOADED and not given


def _settled_scales(request: Request) -> dict[str, float | None] | None:
    """The code scales of the run that is there, if any is and it is gone on with."""
    assert request.workdir is not None
    config = (
        None
        if request.overwrite
        else RunFolder(files.located(request.workdir)).config()
    )
    scales = (config or {}).get("lanes", {}).get("code_scales")
    if scales is None or set(scales) != set(request.settings.representations):
        return None
    return scales


def print_representations(weights_dir: str | None) -> None:
    """A table of what can be inverted, and with which geometry."""
    print(f"{'name':32}{'code':18}{'field':>6}{'stride':>8}  weights")
    for row in representations.list_representations(weights_dir=weights_dir):
        shape = " x ".join(map(str, row.code_shape))
        at_hand = "at hand" if row.available else "missing"
        print(
            f"{row.name:32}{shape:18}{row.receptive_field:6}{row.stride:8}  {at_hand}"
        )


def print_layers(rows: Sequence[LayerInfo]) -> None:
    """A table of the layers of a network of one's own."""
    width = max([len("layer"), *(len(row.name) for row in rows)]) + 2
    print(f"{'layer':{width}}{'code':24}kind")
    for row in rows:
        shape = "no array" if row.shape is None else " x ".join(map(str, row.shape))
        print(f"{row.name:{width}}{shape:24}{row.kind}")


if __name__ == "__main__":
    binary.run(main)
