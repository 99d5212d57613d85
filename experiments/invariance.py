"""What codes leave open (CVPR 2015, Figures 1, 7 and 11): many starts per code.

    python -m experiments.invariance --workdir=runs/invariance

inverts three sample photographs and an abstract pattern from six starts each, at
AlexNet's pool5 and EfficientNet-Lite0's logits: about 25 minutes on two cores. Starts
should agree in their codes and differ as pictures, the more the deeper the layer, yet
less than reconstructions of different images do; networks should call them what they
call the original. See experiments/README.md for what comes out here.

The table has, per code, the mean distances between its starts (root mean square,
1 - SSIM, LPIPS; `invjax.diversity`), and the same as shares of the distances between
reconstructions of different images: those have nearly the same errors, and what the
regularisers make of any picture. The distances between the originals stand below.

Writes config.json, metrics.jsonl (with the labels of every lane), reconstructions/,
table.csv, table.md and figure.png: originals, starts, and where the starts differ.
"""

import pathlib
from collections.abc import Sequence
from typing import NamedTuple

import jax
import numpy as np

from experiments import studies
from invjax.commands import binary, shared_flags
from invjax.images import pixels
from invjax.metrics import diversity
from invjax.metrics.diversity import Distances
from invjax.metrics.lpips import Parameters
from invjax.report.contact_sheet import Cell, Row
from invjax.runs import lanes, loading, runner
from invjax.runs.classifiers import JUDGES, Judges
from invjax.runs.errors import Refusal
from invjax.runs.lanes import Lane, Outcome
from invjax.runs.settings import Request

_IMAGES = "sample:chelsea,sample:coffee,sample:astronaut,sample:abstract"
_REPRESENTATIONS = ("alexnet/pool5", "efficientnet_lite0/logits")
_NUM_STARTS = 6
_MOST_ROWS = 24
_MOST_COLUMNS = 10
# Enough for a mean; all pairs of a hundred images would take minutes.
_MOST_PAIRS = 300
_HEADER = (
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
    "failed",
    "code zero",
)


class Starts(NamedTuple):
    """The starts of one code that did not fail.

    Attributes:
      lane: of the first of them, failed or not.
      records: of all, the failed ones too.
      distances: between pairs of them; None for fewer than two.
      to_original: distances to the original; None for none.
      example: one image [h, w, c]; None for none.
    """

    lane: Lane
    records: list[dict]
    distances: Distances | None
    to_original: Distances | None
    example: np.ndarray | None


class Collector:
    """Reduces the starts of each code to numbers when the next code begins."""

    def __init__(self, shown: Sequence[str], judge: Parameters | None, *, seed: int):
        self.sets: list[Starts] = []
        self.shown: list[list[Outcome]] = []
        self._current: list[Outcome] = []
        self._names = shown
        self._judge = judge
        self._key = jax.random.key(seed)

    def collect(self, outcome: Outcome) -> None:
        if self._current and _place(outcome.lane) != _place(self._current[0].lane):
            self.finish()
        self._current.append(outcome)

    def finish(self) -> None:
        """Also reduces the last code, or what an interruption left of it."""
        outcomes, self._current = self._current, []
        if not outcomes:
            return
        lane = outcomes[0].lane
        pictures = [p for p in map(studies.picture, outcomes) if p is not None]
        distances = to_original = None
        if len(pictures) > 1:
            chosen = diversity.pairs(self._key, len(pictures), num_pairs=_MOST_PAIRS)
            distances = diversity.pairwise(
                np.stack(pictures), chosen, judge=self._judge
            )
        original = lane.target.original
        if pictures and original is not None:
            to_original = diversity.to_original(np.stack(pictures), original)
        records = [outcome.record for outcome in outcomes]
        example = pictures[0] if pictures else None
        self.sets.append(Starts(lane, records, distances, to_original, example))
        if lane.target.name in self._names:
            self.shown.append(outcomes)

    def unrelated(self, pictures: Sequence[np.ndarray]) -> Distances | None:
        """Distances between different images; None for fewer than two of one size."""
        if len(pictures) < 2 or len({picture.shape for picture in pictures}) > 1:
            return None
        chosen = diversity.pairs(self._key, len(pictures), num_pairs=_MOST_PAIRS)
        return diversity.pairwise(np.stack(pictures), chosen, judge=self._judge)


def main() -> None:
    request = shared_flags.from_flags(
        images=_IMAGES, representations=_REPRESENTATIONS, num_starts=_NUM_STARTS
    )
    config = request.settings
    if config.num_starts < 2:
        raise Refusal("--num_starts=1: this study compares starts; give 2 or more")
    if request.dry_run:
        planned = lanes.plan(studies.load_groups(config), config)
        runner.print_estimates(config, planned=planned)
    else:
        run(request)


def run(request: Request) -> None:
    """Inverts every code from many starts, and writes table and figure.

    Raises:
      binary.Refusal and the package's own errors: bad input; nothing was written.
    """
    config = request.settings
    groups = studies.load_groups(config)
    judge = loading.load_judge(groups, config)
    judges = Judges(groups, config)
    rows_per_image = len(groups) * len(config.tv_weight or [None])
    shown = studies.first_images(groups, max(1, _MOST_ROWS // rows_per_image))
    collector = Collector(shown, judge, seed=config.seed)

    def write(folder: pathlib.Path) -> None:
        collector.finish()
        rows = table_rows(collector)
        figure = figure_rows(collector.shown, judges)
        studies.publish(folder, _HEADER, rows, figure, cell_size=192)

    studies.run(
        request,
        groups,
        [(config, lanes.plan(groups, config))],
        collect=collector.collect,
        write=write,
        judge=judge,
        measure=judges.measure,
    )


def table_rows(collector: Collector) -> list[list[str]]:
    """A row per code, and below those of a representation its means and its units."""
    rows = []
    groups: dict[tuple[str, float], list[Starts]] = {}
    for starts in collector.sets:
        key = (starts.lane.group.name, starts.lane.tv_weight)
        groups.setdefault(key, []).append(starts)
    for (name, tv_weight), sets in groups.items():
        unit = collector.unrelated([s.example for s in sets if s.example is not None])
        originals = [s.lane.target.original for s in sets]
        photographs = collector.unrelated([o for o in originals if o is not None])
        head = [name, f"{tv_weight:g}"]
        rows += [[*head, *_cells([starts], unit)] for starts in sets]
        rows.append([*head, *_cells(sets, unit)])
        for label, distances in (
            ("different images, reconstructed", unit),
            ("different images", photographs),
        ):
            row = [*head, label, *[studies.NOTHING] * (len(_HEADER) - 3)]
            row[5:11] = _distances([distances], unit)
            rows.append(row)
    return rows


def figure_rows(shown: Sequence[Sequence[Outcome]], judges: Judges) -> list[Row]:
    """The original, its starts and their deviation, a row per code."""
    rows = []
    weights = {(o.lane.group.name, o.lane.tv_weight) for row in shown for o in row}
    several = len(weights) > len({name for name, _ in weights})
    for outcomes in shown:
        lane = outcomes[0].lane
        original, name = lane.target.original, lane.target.name
        assert original is not None
        called = judges.label_of_original(lane.group, lane.target)
        cells = [Cell(original, f"{name}: {called}" if called else name)]
        for outcome in outcomes[:_MOST_COLUMNS]:
            error = outcome.record["relative_error"]
            caption = "failed" if error is None else f"{error:.1%}"
            if label := outcome.record["judge_label"]:
                caption += f": {label}"
            cells.append(Cell(studies.picture(outcome), caption))
        pictures = [p for p in map(studies.picture, outcomes) if p is not None]
        if len(pictures) > 1:
            deviation = np.asarray(diversity.maps(np.stack(pictures)).deviation)
            grey = pixels.to_grey(deviation)
            highest = float(grey.max())
            caption = f"deviation, white: {highest:.2f}"
            cells.append(Cell(grey / max(highest, 1e-6), caption))
        label = f"{lane.group.name}" + (
            f", lambda_V {lane.tv_weight:g}" if several else ""
        )
        rows.append(Row(f"{label}: relative error, and label", cells))
    return rows


def _place(lane: Lane) -> tuple[str, str, float]:
    return lane.group.name, lane.target.name, lane.tv_weight


def _cells(sets: Sequence[Starts], unit: Distances | None) -> list[str]:
    """From "image" on: of one code, or means over those of a representation."""
    records = [record for starts in sets for record in starts.records]
    errors = studies.finite(records, "relative_error")
    to_original = [
        float(np.mean(s.to_original.rms)) for s in sets if s.to_original is not None
    ]
    labels = [studies.finite(records, f"{judge}_top1") for judge in JUDGES]
    starts = len(records)
    return [
        sets[0].lane.target.name if len(sets) == 1 else f"mean of {len(sets)} images",
        str(starts),
        studies.mean_and_deviation(errors, scale=100),
        *_distances([s.distances for s in sets], unit),
        studies.mean(to_original, digits=3),
        *(studies.mean(values, scale=100, digits=0) for values in labels),
        studies.failures(records),
        str(len(sets[0].lane.group.skipped)),
    ]


def _distances(found: Sequence[Distances | None], unit: Distances | None) -> list[str]:
    """Six cells: means over codes of the mean distances, and of their shares."""
    present = [distances for distances in found if distances is not None]
    means = [[float(np.mean(d)) for d in distances] for distances in present]
    shares = []
    if unit is not None:
        shares = [list(diversity.relative(d, unit)) for d in present]
    cells = []
    for table, scale, digits in ((means, 1, 3), (shares, 100, 0)):
        for column in range(len(Distances._fields)):
            values = [row[column] for row in table if np.isfinite(row[column])]
            cells.append(studies.mean(values, scale=scale, digits=digits))
    return cells


if __name__ == "__main__":
    binary.run(main)
