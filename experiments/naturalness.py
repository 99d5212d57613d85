"""Measures whether reconstructions look like photographs (IJCV 2016, on naturalness).

    python -m experiments.naturalness --workdir=runs/naturalness

inverts the four sample photographs at three layers of AlexNet and at the logits of
EfficientNet-Lite0, with lambda_V 0.5, 5 and 50 and without any regulariser. It takes
about a quarter of an hour on two cores. At deeper layers, a reconstruction without
regulariser should be less like its original, in histogram and in label, and the
lambda_V that serves best should be larger. experiments/README.md has our results.

The table has, for each layer and lambda_V, the intersection of the gradient-orientation
histograms of reconstruction and original ("naturalness"), and how often a network gives
both the same label. The networks are EfficientNet-Lite0 (Lite1 for the inversions of
Lite0; --classifier names another one), and the inverted network itself ("own") where
its last layer is at hand. The row below has all these values for pairs of different
photographs, as what chance would give. A lambda_V of 0 stands for no regulariser: there
is no lambda_alpha, no bound and no jitter either.

Writes config.json, metrics.jsonl, reconstructions/, table.csv, table.md (rows at the
lambda_V that presets take are bold), figure.png, figure_stretched.png (where every
reconstruction is stretched to its range) and curves.png.
"""

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from invjax import files
from invjax.commands import binary, shared_flags, studies
from invjax.commands.studies import Bench, Defaults, Findings, Study
from invjax.images import pixels, sources
from invjax.inversion import presets
from invjax.metrics import diversity, labels, naturalness
from invjax.metrics.labels import LabelAgreement
from invjax.report import curves, tables
from invjax.report.contact_sheet import Cell, Row
from invjax.report.curves import Band, Curve
from invjax.runs import lanes
from invjax.runs.classifiers import CLASSIFIERS, Classifiers
from invjax.runs.lanes import Group, Lane, Variant
from invjax.runs.records import Record
from invjax.runs.runner import Outcome

shared_flags.define_classifier()

_MOST_ROWS = 12
# All of a hundred photographs, chosen ones of more.
_MOST_PAIRS = 5000
_COLUMNS = (
    "representation",
    "lambda_V",
    "preset's lambda_V",
    "steps",
    "relative error %",
    "naturalness",
    "pairs of photographs above %",
    "top 1 %",
    "top 5 %",
    "own top 1 %",
    "own top 5 %",
    *studies.COUNTS,
    "code zero",
)


class Chance(NamedTuple):
    """What pairs of different photographs have in common.

    Attributes:
      naturalness: [p], intersections of their histograms.
      labels: agreement by each of `CLASSIFIERS`; None where it is not at hand.
    """

    naturalness: np.ndarray
    labels: list[LabelAgreement | None]


class Tools(NamedTuple):
    """What the study needs: classifiers, and what chance gives by representation."""

    classifiers: Classifiers
    chances: dict[str, Chance]


def load_tools(bench: Bench) -> Tools:
    """Loads the classifiers and measures the pairs of photographs."""
    classifiers = Classifiers(bench.groups, bench.settings)
    seed = bench.settings.seed
    chances = {g.name: chance(g, classifiers, seed=seed) for g in bench.groups}
    return Tools(classifiers, chances)


def plan(bench: Bench) -> list[Lane]:
    """The lanes of a run; those with a lambda_V of 0 have no regulariser at all.

    As in the released code's exp_noregularizer.m.
    """
    keywords: dict[str, Any] = {"alpha_weight": 0.0}
    if presets.PRESETS[bench.settings.preset].form == "ijcv2016":
        # The others have neither, and passing them would compile a second program.
        keywords |= {"range_bound": np.inf, "jitter": 1}
    bare = Variant("no regulariser", keywords)
    return [
        lane if lane.tv_weight else lane._replace(variant=bare)
        for lane in lanes.plan(bench.groups, bench.settings)
    ]


def measure(bench: Bench, outcome: Outcome) -> dict[str, Any]:
    """Naturalness of a lane's picture, and what classifiers call it."""
    original = outcome.lane.target.original
    assert original is not None
    score = None
    if outcome.picture is not None:
        score = float(naturalness.naturalness(outcome.picture, original))
    return {"naturalness": score} | bench.tools.classifiers.measure(outcome)


def is_shown(bench: Bench, lane: Lane) -> bool:
    """Whether a lane is in the figure: the first starts of the first images."""
    shown = bench.first_images(max(1, _MOST_ROWS // len(bench.groups)))
    return lane.start == 0 and lane.target.name in shown


def chance(group: Group, classifiers: Classifiers, *, seed: int) -> Chance:
    """What pairs of a group's originals have in common."""
    originals = [t.original for t in group.targets if t.original is not None]
    if len(originals) < 2:
        return Chance(np.zeros(0), [None] * len(CLASSIFIERS))
    pairs = diversity.pairs(jax.random.key(seed), len(originals), num_pairs=_MOST_PAIRS)
    first, second = pairs.T
    greys = [jnp.asarray(pixels.to_grey(original)[..., 0]) for original in originals]
    histograms = np.stack([naturalness.orientation_histogram(grey) for grey in greys])
    agreements: list[LabelAgreement | None] = []
    for word in CLASSIFIERS:
        classifier = classifiers.of(word, group)
        if classifier is None:
            agreements.append(None)
            continue
        logits = classifiers.of_originals(classifier, group.targets)
        agreements.append(labels.label_agreement(logits[first], logits[second]))
    shared = np.minimum(histograms[first], histograms[second])
    return Chance(shared.sum(1), agreements)


def table(findings: Findings) -> list[list[str]]:
    """A row per layer and lambda_V, and below a layer's rows what chance would give."""
    rows = []
    for (name,), of_layer in studies.by(findings.records, "representation").items():
        chance = findings.bench.tools.chances[name]
        group = findings.bench.group(name)
        for (tv_weight,), some in studies.by(of_layer, "tv_weight").items():
            rows.append(_row(group, tv_weight, some, chance))
        if len(chance.naturalness):
            rows.append(_row_of_chance(name, chance))
    return rows


def figure(findings: Findings) -> list[Row]:
    """A row per layer and image: the original, and its reconstructions."""
    classifiers = findings.bench.tools.classifiers
    rows: dict[tuple[str, str], Row] = {}
    for outcome in findings.shown:
        group, target = outcome.lane.group, outcome.lane.target
        if (group.name, target.name) not in rows:
            assert target.original is not None
            called = classifiers.label_of_original(group, target)
            caption = f"{target.name}: {called}" if called else target.name
            cells = [Cell(target.original, caption)]
            label = f"{group.name}: lambda_V, naturalness, label"
            rows[group.name, target.name] = Row(label, cells)
        record = outcome.record
        score = record.value("naturalness")
        caption = f"{_word(record.tv_weight)}: "
        caption += "failed" if score is None else f"{score:.2f}"
        if label := record.value("classifier_label"):
            caption += f", {label}"
        rows[group.name, target.name].cells.append(Cell.found(outcome.picture, caption))
    return list(rows.values())


def publish(findings: Findings, folder: files.Path) -> None:
    """Writes curves.png: naturalness by layer, a curve per lambda_V, over chance."""
    records = findings.records
    layers = list(dict.fromkeys(record.representation for record in records))
    found = studies.by(records, "representation", "tv_weight")
    drawn = []
    weights = dict.fromkeys(record.tv_weight for record in records)
    for number, weight in enumerate(weights):
        values = [
            studies.finite(found.get((name, weight), []), "naturalness")
            for name in layers
        ]
        means, deviations = studies.means(values)
        label = f"lambda_V {weight:g}" if weight else "no regulariser"
        drawn.append(Curve(label, means, deviations, number))
    bands = []
    # All layers of a network are given the same squares, other networks much the same.
    scores = findings.bench.tools.chances[layers[0]].naturalness
    if len(scores):
        low, high = np.quantile(scores, [0.05, 0.95])
        bands.append(Band("different photographs, 5 to 95 %", low, high))
    curves.write(
        folder / "curves.png",
        layers,
        drawn,
        ylabel="histogram intersection",
        bands=bands,
        from_zero=False,
    )


def bold(rows: Sequence[Sequence[str]]) -> list[int]:
    """Numbers of the rows at the lambda_V that presets take."""
    return studies.preset_rows(_COLUMNS, rows)


def _row(
    group: Group, tv_weight: float, records: Sequence[Record], chance: Chance
) -> list[str]:
    scores = studies.finite(records, "naturalness")
    above = [
        float(np.mean(chance.naturalness > score))
        for score in scores
        if len(chance.naturalness)
    ]
    errors = studies.finite(records, "relative_error")
    own = presets.tv_weight(group.phi, preset=records[0].preset)
    fields = [f"{word}_{top}" for word in CLASSIFIERS for top in ("top1", "top5")]
    return [
        group.name,
        _word(tv_weight),
        "yes" if tv_weight == own else "no",
        str(max(record.num_steps for record in records)),
        tables.mean_and_deviation(errors, scale=100),
        tables.mean_and_deviation(scores, digits=3),
        tables.mean(above, scale=100, digits=0),
        *(
            tables.mean(studies.finite(records, field), scale=100, digits=0)
            for field in fields
        ),
        *studies.counts(records),
        str(len(group.skipped)),
    ]


def _row_of_chance(name: str, chance: Chance) -> list[str]:
    row = [name, "different photographs", *[tables.NOTHING] * (len(_COLUMNS) - 2)]
    row[_COLUMNS.index("naturalness")] = tables.mean_and_deviation(
        chance.naturalness.tolist(), digits=3
    )
    tops: list[str] = []
    for agreement in chance.labels:
        found = (agreement.top1, agreement.top5) if agreement else ()
        values = [[float(value)] for value in found] or [[], []]
        tops += [tables.mean(value, scale=100, digits=0) for value in values]
    start = _COLUMNS.index("top 1 %")
    row[start : start + len(tops)] = tops
    return row


def _word(tv_weight: float) -> str:
    return f"{tv_weight:g}" if tv_weight else "none"


STUDY = Study(
    defaults=Defaults(
        images=",".join(f"sample:{name}" for name in sources.SAMPLES),
        # The paper's votes are about norm1, relu3, mpool5 and fc8 of its AlexNet.
        representations=(
            "alexnet/pool1",
            "alexnet/relu3",
            "alexnet/pool5",
            "efficientnet_lite0/logits",
        ),
        tv_weight=(0.0, *studies.PAPER_TV_WEIGHTS),
    ),
    columns=_COLUMNS,
    table=table,
    figure=figure,
    measure=measure,
    is_shown=is_shown,
    publish=publish,
    bold=bold,
    cell_size=192,
    load_tools=load_tools,
    plan=plan,
)
main = functools.partial(studies.main, STUDY)

if __name__ == "__main__":
    binary.run(main)
