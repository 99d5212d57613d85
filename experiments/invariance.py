"""Compares reconstructions of one code from many starts (CVPR 2015, Figures 1, 7, 11).

    python -m experiments.invariance --workdir=runs/invariance

inverts three sample photographs and an abstract pattern from six starts each, at
AlexNet's pool5 and EfficientNet-Lite0's logits. It takes about 25 minutes on two cores.
Starts should agree in their codes and differ as pictures, more so at deeper layers, but
less than reconstructions of different images do. Classifiers should give them the label
that they give the original. experiments/README.md has our results.

The table has, for each code, the mean distances between its starts: root mean square,
1 - SSIM and LPIPS (see `invjax.metrics.diversity`). It also has these distances in
percent of the distances between reconstructions of different images. The latter have
nearly the same errors, and the regularisers affect them in the same way. The rows
"different images" have the distances between the originals.

Writes config.json, metrics.jsonl (with the labels of every lane: `classifier_*` by the
network in `classifier`, `own_*` by the inverted network), reconstructions/, table.csv,
table.md and figure.png: originals, starts, and where the starts differ. The classifier
is EfficientNet-Lite0, and Lite1 where Lite0 is inverted, or what --classifier names.
figure_stretched.png has every reconstruction stretched to its range.
"""

import functools
from collections.abc import Sequence
from typing import NamedTuple

import jax
import numpy as np

from invjax.commands import binary, shared_flags, studies
from invjax.commands.studies import Bench, Defaults, Findings, Study
from invjax.images import pixels
from invjax.metrics import diversity
from invjax.metrics.diversity import Distances
from invjax.report import tables
from invjax.report.contact_sheet import Cell, Row
from invjax.runs.classifiers import CLASSIFIERS, Classifiers
from invjax.runs.errors import Refusal
from invjax.runs.lanes import Lane
from invjax.runs.records import Record
from invjax.runs.runner import Finished
from invjax.runs.settings import Settings

shared_flags.define_classifier()

_NUM_STARTS = 6
_MOST_ROWS = 24
_MOST_COLUMNS = 10
# Enough for a mean; all pairs of a hundred images would take minutes.
_MOST_PAIRS = 300
_COLUMNS = (
    "representation",
    "lambda_V",
    "image",
    "starts",
    "relative error %",
    "RMS",
    "1 - SSIM",
    "LPIPS",
    "RMS, % of different images'",
    "1 - SSIM, % of different images'",
    "LPIPS, % of different images'",
    "RMS to the original",
    "top 1 as the original %",
    "own top 1 as the original %",
    *studies.COUNTS,
    "code zero",
)


class Starts(NamedTuple):
    """The starts of one code that did not fail.

    Attributes:
      lane: lane of the first start, failed or not.
      records: records of all starts, failed ones included.
      distances: distances between pairs of starts; None for fewer than two.
      to_original: distances to the original; None where all starts failed.
      example: one image [h, w, c]; None where all starts failed.
    """

    lane: Lane
    records: list[Record]
    distances: Distances | None
    to_original: Distances | None
    example: np.ndarray | None


def configure(settings: Settings) -> Settings:
    """The settings, which have to have starts to compare."""
    if settings.num_starts < 2:
        raise Refusal("--num_starts=1: this study compares starts; give 2 or more")
    return settings


def summarise(bench: Bench, outcomes: Sequence[Finished]) -> Starts:
    """Distances between the starts of one code, and to its original."""
    lane = outcomes[0].lane
    pictures = [o.picture for o in outcomes if o.picture is not None]
    to_original = None
    if pictures and lane.target.original is not None:
        to_original = diversity.to_original(np.stack(pictures), lane.target.original)
    return Starts(
        lane,
        [outcome.record for outcome in outcomes],
        between(bench, pictures),
        to_original,
        pictures[0] if pictures else None,
    )


def between(bench: Bench, pictures: Sequence[np.ndarray]) -> Distances | None:
    """Distances between pairs of pictures; None for fewer than two of one size."""
    if len(pictures) < 2 or len({picture.shape for picture in pictures}) > 1:
        return None
    key = jax.random.key(bench.settings.seed)
    chosen = diversity.pairs(key, len(pictures), num_pairs=_MOST_PAIRS)
    return diversity.pairwise(
        np.stack(pictures), chosen, parameters=bench.lpips_parameters
    )


def is_shown(bench: Bench, lane: Lane) -> bool:
    """Whether a lane is in the figure: those of the first images."""
    settings = bench.settings
    rows_per_image = len(bench.groups) * len(settings.tv_weight or [None])
    return lane.target.name in bench.first_images(max(1, _MOST_ROWS // rows_per_image))


def table(findings: Findings) -> list[list[str]]:
    """A row per code; below a representation's, means and reference distances."""
    bench, rows = findings.bench, []
    groups: dict[tuple[str, float], list[Starts]] = {}
    for starts in findings.codes:
        key = (starts.lane.group.name, starts.lane.tv_weight)
        groups.setdefault(key, []).append(starts)
    for (name, tv_weight), sets in groups.items():
        examples = [s.example for s in sets if s.example is not None]
        reconstructed = between(bench, examples)
        originals = [s.lane.target.original for s in sets]
        photographs = between(bench, [o for o in originals if o is not None])
        head = [name, f"{tv_weight:g}"]
        rows += [[*head, *_cells([starts], reconstructed)] for starts in sets]
        rows.append([*head, *_cells(sets, reconstructed)])
        for label, distances in (
            ("different images, reconstructed", reconstructed),
            ("different images", photographs),
        ):
            row = [*head, label, *[tables.NOTHING] * (len(_COLUMNS) - 3)]
            row[5:11] = _distances([distances], reconstructed)
            rows.append(row)
    return rows


def figure(findings: Findings) -> list[Row]:
    """A row per code: the original, its starts and their deviation."""
    classifiers: Classifiers = findings.bench.tools
    by_code: dict[tuple, list[Finished]] = {}
    for outcome in findings.shown:
        by_code.setdefault(outcome.lane.code_key, []).append(outcome)
    weights = {(o.lane.group.name, o.lane.tv_weight) for o in findings.shown}
    several = len(weights) > len({name for name, _ in weights})
    rows = []
    for outcomes in by_code.values():
        lane = outcomes[0].lane
        original, name = lane.target.original, lane.target.name
        assert original is not None
        called = classifiers.label_of_original(lane.group, lane.target)
        cells = [Cell(original, f"{name}: {called}" if called else name)]
        for outcome in outcomes[:_MOST_COLUMNS]:
            error = outcome.record.relative_error
            caption = "failed" if error is None else f"{error:.1%}"
            if label := outcome.record.value("classifier_label"):
                caption += f": {label}"
            cells.append(Cell.found(outcome.picture, caption))
        pictures = [o.picture for o in outcomes if o.picture is not None]
        if len(pictures) > 1:
            deviation = np.asarray(diversity.maps(np.stack(pictures)).deviation)
            grey = pixels.to_grey(deviation)
            highest = float(grey.max())
            caption = f"deviation, white: {highest:.2f}"
            cells.append(Cell(grey / max(highest, 1e-6), caption))
        suffix = f", lambda_V {lane.tv_weight:g}" if several else ""
        label = f"{lane.group.name}{suffix}: relative error, and label"
        rows.append(Row(label, cells))
    return rows


def _cells(sets: Sequence[Starts], reference: Distances | None) -> list[str]:
    """Cells from "image" on, of one code, or means over those of a representation."""
    records = [record for starts in sets for record in starts.records]
    errors = studies.finite(records, "relative_error")
    to_original = [
        float(np.mean(s.to_original.rms)) for s in sets if s.to_original is not None
    ]
    labels = [studies.finite(records, f"{word}_top1") for word in CLASSIFIERS]
    return [
        sets[0].lane.target.name if len(sets) == 1 else f"mean of {len(sets)} images",
        str(len(records)),
        tables.mean_and_deviation(errors, scale=100),
        *_distances([s.distances for s in sets], reference),
        tables.mean(to_original, digits=3),
        *(tables.mean(values, scale=100, digits=0) for values in labels),
        *studies.counts(records),
        str(len(sets[0].lane.group.skipped)),
    ]


def _distances(
    found: Sequence[Distances | None], reference: Distances | None
) -> list[str]:
    """Six cells: means over codes, and the same relative to a reference."""
    present = [distances for distances in found if distances is not None]
    means = [[float(np.mean(d)) for d in distances] for distances in present]
    relative = []
    if reference is not None:
        relative = [list(diversity.relative(d, reference)) for d in present]
    cells = []
    for table, scale, digits in ((means, 1, 3), (relative, 100, 0)):
        for column in range(len(Distances._fields)):
            values = [float(row[column]) for row in table if np.isfinite(row[column])]
            cells.append(tables.mean(values, scale=scale, digits=digits))
    return cells


STUDY = Study(
    defaults=Defaults(
        images="sample:chelsea,sample:coffee,sample:astronaut,sample:abstract",
        representations=("alexnet/pool5", "efficientnet_lite0/logits"),
        num_starts=_NUM_STARTS,
    ),
    columns=_COLUMNS,
    table=table,
    figure=figure,
    measure=lambda bench, outcome: bench.tools.measure(outcome),
    summarise=summarise,
    is_shown=is_shown,
    cell_size=192,
    configure=configure,
    load_tools=lambda bench: Classifiers(bench.groups, bench.settings),
)
main = functools.partial(studies.main, STUDY)

if __name__ == "__main__":
    binary.run(main)
