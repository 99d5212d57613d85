"""A study is a value: what it inverts, what it measures, its table and its figure.

A study's file defines a `Study` and hands it to `main`, which owns everything else:
flags and refusals, the dry run, loading, the folder, progress, interruptions and going
on after them, several processes, publishing. What a study tabulates and shows of its
lanes is read back from disk, whoever has done them and when.

    STUDY = Study(
        defaults=Defaults(images="sample:chelsea", representations=("alexnet/relu1",)),
        columns=("representation", "relative error %"),
        table=table,
    )

    if __name__ == "__main__":
        binary.run(functools.partial(studies.main, STUDY))

with a function `table(findings)` that returns rows of cells. tests/experiments/
test_studies.py has a whole one.
"""

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from absl import flags

from invjax import files
from invjax.commands import shared_flags
from invjax.metrics import lpips
from invjax.report import contact_sheet, tables
from invjax.report.contact_sheet import Row
from invjax.report.contrast import PictureRange
from invjax.runs import lanes, loading, runner, variants
from invjax.runs.errors import Refusal
from invjax.runs.folder import RunFolder
from invjax.runs.identification import Identifier
from invjax.runs.lanes import Group, Lane, Variant
from invjax.runs.plans import LoadedPlan
from invjax.runs.records import Record, remarks
from invjax.runs.runner import Finished, Outcome, Run
from invjax.runs.settings import Request, Settings
from invjax.runs.shards import Shard
from invjax.runs.targets import Target
from invjax.runs.units import Unit

PAPER_TV_WEIGHTS = (0.5, 5.0, 50.0)
"""lambda_V of CVPR 2015, Table 3."""

LINEAR_PRESETS = ("ijcv2016", "fast", "natural")
"""Presets for maximisation and caricature: the paper's, and ours with its weights."""


COUNTS = ("failed", "dead starts")
"""Columns of every table: lanes that diverged, and that began where ReLUs were off."""

LINEAR_FLAGS = (
    *("identify_among", "classifier"),
    *("workdir", "overwrite", "dry_run", "smoke", "seed", "images", "on_bad_image"),
    *("num_processes", "process_id"),
    *("representations", "preset", "num_steps", "image_size", "resize"),
    *("module", "layer", "mean", "std", "layout"),
    *("batch_size", "compute_dtype", "save_arrays"),
)
"""Shared flags that have a meaning for maximisation and for caricature."""


@dataclasses.dataclass(frozen=True)
class Defaults:
    """What flags are where they are not given.

    Attributes:
      images, representations, num_starts, preset, tv_weight: as in `Settings`.
    """

    images: str
    representations: tuple[str, ...]
    num_starts: int = 1
    preset: str = "fast"
    tv_weight: tuple[float, ...] | None = None


class Bench(NamedTuple):
    """What a study's functions are given before the lanes run.

    Attributes:
      settings: settings of the run.
      options: values of the study's own flags, by name; config.json keeps them.
      groups: representations and their targets.
      asked: all lanes that were asked for, in order.
      planned: the lanes that are run.
      left_out: lanes that are not run, since their target is zero under the mask.
      lpips_parameters: weights of LPIPS; None where they are not at hand.
      identifier: ranks originals where --identify_among asks for it; else None.
      tools: what `Study.load_tools` returned, such as classifiers.
      images: names of all images, in order.
    """

    settings: Settings
    options: Mapping[str, Any]
    groups: Sequence[Group]
    asked: Sequence[Lane] = ()
    planned: Sequence[Lane] = ()
    left_out: Sequence[Lane] = ()
    lpips_parameters: lpips.Parameters | None = None
    identifier: Identifier | None = None
    tools: Any = None
    images: Sequence[str] = ()

    def first_images(self, count: int) -> Sequence[str]:
        """Names of the first images, for a figure."""
        return self.images[:count]

    def group(self, name: str) -> Group:
        """The group of a representation."""
        return next(group for group in self.groups if group.name == name)


class Findings(NamedTuple):
    """What has been found so far.

    Attributes:
      bench: what the study was given.
      records: records of all lanes that have ended.
      codes: what `Study.summarise` returned for each code, in order.
      shown: lanes that `Study.is_shown` chose; the images of the others are dropped,
        since those of a hundred photographs would fill the memory.
    """

    bench: Bench
    records: list[Record]
    codes: list[Any]
    shown: list[Finished]


def _unchanged(settings: Settings) -> Settings:
    return settings


def _no_options() -> dict[str, Any]:
    return {}


def _load_images(bench: Bench) -> Bench:
    return bench._replace(groups=loading.load_image_groups(bench.settings))


def _plan(bench: Bench) -> list[Lane]:
    return lanes.plan(bench.groups, bench.settings)


def _show_all(bench: Bench, lane: Lane) -> bool:
    del bench, lane
    return True


@dataclasses.dataclass(frozen=True, kw_only=True)
class Study:
    """A study; only `defaults`, `columns` and `table` are needed.

    Attributes:
      defaults: what flags are where they are not given.
      columns: header of the table.
      table: returns the rows of the table, cells as strings.
      figure: returns the rows of figure.png; none, or no function, draws nothing.
      variants: returns the variants of a target; each is a lane of its own. None for
        none.
      measure: returns further columns of a lane's record, for failed lanes as well.
      summarise: returns what is kept of the lanes of one code, all its starts, with
        their images.
      is_shown: whether a lane's image is kept for the figure.
      publish: writes further files into the folder.
      remarks: returns lines that are printed below the table, besides those of failed
        lanes and dead starts.
      bold: returns the numbers of the rows that table.md sets in bold.
      cell_size: side of a cell of figure.png in pixels.
      picture_range: the form of figure.png, in which images that were found are clipped
        to [0, 1] or stretched, each to its range; figure_stretched.png or
        figure_clipped.png has the other form.
      used_flags: names of the shared flags that have a meaning; None for all.
      refused_flags: shared flags that are refused, and why.
      configure: completes the settings by the study's own flags.
      options: returns the values of the study's own flags.
      load: returns the bench with its groups.
      load_tools: returns the tools of the bench; called before the folder is claimed,
        and not in a dry run.
      plan: returns the lanes, where they are not those of the settings and `variants`.
      writes_originals: whether originals/<image>.png are written.
    """

    defaults: Defaults
    columns: Sequence[str]
    table: Callable[[Findings], list[list[str]]]
    figure: Callable[[Findings], list[Row]] | None = None
    variants: Callable[[Bench, Group, Target], Sequence[Variant]] | None = None
    measure: Callable[[Bench, Outcome], Mapping[str, Any]] | None = None
    summarise: Callable[[Bench, Sequence[Finished]], Any] | None = None
    is_shown: Callable[[Bench, Lane], bool] = _show_all
    publish: Callable[[Findings, files.Path], None] | None = None
    remarks: Callable[[Findings], list[str]] | None = None
    bold: Callable[[Sequence[Sequence[str]]], Sequence[int]] | None = None
    cell_size: int = 224
    picture_range: PictureRange = "clipped"
    used_flags: tuple[str, ...] | None = None
    refused_flags: Mapping[str, str] = dataclasses.field(default_factory=dict)
    configure: Callable[[Settings], Settings] = _unchanged
    options: Callable[[], Mapping[str, Any]] = _no_options
    load: Callable[[Bench], Bench] = _load_images
    load_tools: Callable[[Bench], Any] | None = None
    plan: Callable[[Bench], list[Lane]] = _plan
    writes_originals: bool = False


def main(study: Study) -> None:
    """Carries a study out as the parsed flags ask.

    Raises:
      Refusal and the errors of `runs.errors`: bad input; nothing was written.
      KeyboardInterrupt: after what was finished has been written.
    """
    for name, reason in study.refused_flags.items():
        if flags.FLAGS[name].present:
            raise Refusal(f"--{name}: {reason}")
    if study.used_flags is not None:
        shared_flags.refuse_others(*study.used_flags)
    request = shared_flags.from_flags(**dataclasses.asdict(study.defaults))
    settings = study.configure(request.settings)
    run(study, dataclasses.replace(request, settings=settings), options=study.options())


def run(
    study: Study, request: Request, *, options: Mapping[str, Any] | None = None
) -> Findings | None:
    """Carries a study out without flags, and returns what it found.

    None of a dry run, of a run that was finished before, and where other processes have
    not done their units.

    Args:
      study: the study.
      request: settings of the run, and the folder to write to.
      options: values of the study's own flags, by name.

    Raises: as `main`.
    """
    settings = request.settings
    bench = study.load(Bench(settings, options or {}, groups=[]))
    names = (target.name for group in bench.groups for target in group.targets)
    bench = bench._replace(images=list(dict.fromkeys(names)))
    asked = _planned(study, bench)
    planned, left_out = variants.without_zero_targets(asked)
    bench = bench._replace(asked=asked, planned=planned, left_out=left_out)
    if request.dry_run:
        runner.print_estimates(planned, settings)
        return None
    lpips_parameters = loading.load_lpips(bench.groups, settings)
    bench = bench._replace(
        lpips_parameters=lpips_parameters, identifier=Identifier.of(settings)
    )
    if study.load_tools is not None:
        bench = bench._replace(tools=study.load_tools(bench))
    assert request.workdir is not None
    folder = RunFolder.claim(request.workdir, overwrite=request.overwrite)
    begun = runner.begin(
        folder,
        LoadedPlan(planned),
        settings,
        weights=loading.weights_digests(bench.groups),
        options=bench.options,
        process=request.process,
        skipped=loading.unread(bench.groups),
    )
    shown: list[Findings] = []

    def compute(todo: list[Unit]) -> None:
        _compute(study, bench, begun, todo)

    def show(shards: Iterator[tuple[Unit, Shard]]) -> None:
        findings = Findings(bench, [], [], [])
        _collect(study, findings, begun, shards)
        # Where nothing was finished there is nothing to tabulate.
        if findings.records:
            _publish(study, findings, folder.path)
            name = "figure.png" if study.figure else "table.md"
            print(f"look at {folder.path}/{name}")
        shown.append(findings)

    runner.carry_out(begun, compute, show)
    return shown[-1] if shown else None


def _planned(study: Study, bench: Bench) -> list[Lane]:
    """The lanes of a study, those whose target is zero included."""
    if study.variants is None:
        return study.plan(bench)
    variants_of = study.variants
    return variants.plan(
        bench.groups,
        bench.settings,
        lambda group, target: variants_of(bench, group, target),
    )


def _compute(study: Study, bench: Bench, run: Run, todo: Sequence[Unit]) -> None:
    """Runs lanes, and keeps of their images what the study will want."""

    def measure(outcome: Outcome) -> Mapping[str, Any]:
        return {} if study.measure is None else study.measure(bench, outcome)

    def keeps(lane: Lane) -> bool:
        return study.summarise is not None or study.is_shown(bench, lane)

    runner.compute(
        run,
        todo,
        lpips_parameters=bench.lpips_parameters,
        measure=measure,
        keeps=keeps,
        writes_originals=study.writes_originals,
        identifier=bench.identifier,
    )


def _collect(
    study: Study,
    findings: Findings,
    run: Run,
    shards: Iterable[tuple[Unit, Shard]],
) -> None:
    """Reads lanes that are done back, and keeps of them what the study wants."""
    bench = findings.bench
    by_code = runner.ByCode(bench.planned)

    def summarise(lanes: Sequence[Finished]) -> None:
        if study.summarise is not None:
            findings.codes.append(study.summarise(bench, lanes))

    for unit, shard in shards:
        for lane in run.lanes(unit, shard):
            findings.records.append(lane.record)
            if study.is_shown(bench, lane.lane):
                findings.shown.append(lane)
            if (complete := by_code.add(lane)) is not None:
                summarise(complete)
    # After an interruption, codes without all of their starts.
    for some in by_code.incomplete():
        summarise(some)


def _publish(study: Study, findings: Findings, folder: files.Path) -> None:
    """Writes the table, the figure and what else the study has."""
    rows = study.table(findings)
    bold = [] if study.bold is None else study.bold(rows)
    tables.write(folder, study.columns, rows, bold=bold)
    figure = study.figure(findings) if study.figure and findings.shown else []
    if figure:
        contact_sheet.write_both(
            folder / "figure.png",
            figure,
            cell_size=study.cell_size,
            picture_range=study.picture_range,
        )
    if study.publish is not None:
        study.publish(findings, folder)
    print(tables.markdown(study.columns, rows, bold=bold))
    for line in remarks(findings.records):
        print(line)
    for line in study.remarks(findings) if study.remarks else []:
        print(line)


def without_cvpr_presets(settings: Settings) -> Settings:
    """The settings of maximisation or caricature.

    Raises:
      Refusal: the preset is no way to do this.
    """
    if settings.preset not in LINEAR_PRESETS:
        raise Refusal(
            f"--preset={settings.preset}: the CVPR paper has neither maximisation nor "
            "caricature, and its step sizes diverge there; "
            f"{', '.join(LINEAR_PRESETS)} are accepted"
        )
    return settings


def by(records: Iterable[Record], *fields: str) -> dict[tuple[Any, ...], list[Record]]:
    """Records by the values of some fields, in the order of their first appearance."""
    groups: dict[tuple[Any, ...], list[Record]] = {}
    for record in records:
        key = tuple(record.value(field) for field in fields)
        groups.setdefault(key, []).append(record)
    return groups


def finite(records: Iterable[Record], field: str) -> list[float]:
    """The values of a field; failed lanes and undefined values are left out."""
    values = [record.number(field) for record in records if not record.has_failed]
    return [value for value in values if np.isfinite(value)]


def means(
    groups: Sequence[Sequence[float]], *, scale: float = 1
) -> tuple[list[float], list[float]]:
    """Mean and deviation of every group of values, for curves; NaN of an empty one."""
    return (
        [scale * float(np.mean(g)) if len(g) else float("nan") for g in groups],
        [scale * float(np.std(g)) if len(g) else float("nan") for g in groups],
    )


def counts(records: Sequence[Record]) -> list[str]:
    """Cells of the columns `COUNTS`: how many lanes, such as "0 of 4"."""
    numbers = (
        sum(record.has_failed for record in records),
        sum(bool(record.dead_start) for record in records),
    )
    return [f"{number} of {len(records)}" for number in numbers]


def preset_rows(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> list[int]:
    """Numbers of the rows that say yes in the column "preset's lambda_V"."""
    column = columns.index("preset's lambda_V")
    return [number for number, row in enumerate(rows) if row[column] == "yes"]
