"""Whether reconstructions look like photographs (IJCV 2016, section on naturalness).

    python -m experiments.naturalness --workdir=runs/naturalness

inverts the four sample photographs at three layers of AlexNet and at the logits of
EfficientNet-Lite0, with lambda_V 0.5, 5 and 50 and with no regulariser at all: about a
quarter of an hour on two cores. The deeper the layer, the less should a reconstruction
without regulariser be like its original, in histogram and in label, and the larger the
lambda_V that serves best. See experiments/README.md for what comes out here.

The table has, per layer and lambda_V, the intersection of the histograms of gradient
orientation of reconstruction and original, and how often a network calls both the same:
EfficientNet-Lite0, and the inverted network itself where its last layer is at hand. The
row below has all that of pairs of different photographs: what chance would give. A
lambda_V of 0 stands for no regulariser: no lambda_alpha, no bound and no jitter either.

Writes config.json, metrics.jsonl, reconstructions/, table.csv, table.md (in bold: the
lambda_V that presets take), figure.png and curves.png.
"""

import dataclasses
import pathlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments import studies
from experiments.studies import Finished
from invjax.commands import binary, shared_flags
from invjax.images import pixels, sources
from invjax.inversion import presets
from invjax.metrics import diversity
from invjax.metrics.labels import LabelAgreement, label_agreement
from invjax.metrics.naturalness import naturalness, orientation_histogram
from invjax.report import curves
from invjax.report.contact_sheet import Cell, Row
from invjax.report.curves import Band, Curve
from invjax.runs import lanes, loading, runner
from invjax.runs.classifiers import JUDGES, Judges
from invjax.runs.lanes import Group, Lane, Outcome, Variant
from invjax.runs.settings import Request, Settings

_IMAGES = ",".join(f"sample:{name}" for name in sources.SAMPLES)
# The paper's votes are about norm1, relu3, mpool5 and fc8 of its AlexNet.
_REPRESENTATIONS = (
    "alexnet/pool1",
    "alexnet/relu3",
    "alexnet/pool5",
    "efficientnet_lite0/logits",
)
_MOST_ROWS = 12
# All of a hundred photographs, chosen ones of more.
_MOST_PAIRS = 5000
_HEADER = (
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
    "failed",
    "code zero",
)


class Chance(NamedTuple):
    """What pairs of different photographs have in common.

    Attributes:
      naturalness: [p], intersections of their histograms.
      labels: of `judges.JUDGES`; None without the judge.
    """

    naturalness: np.ndarray
    labels: list[LabelAgreement | None]


def main() -> None:
    request = shared_flags.from_flags(images=_IMAGES, representations=_REPRESENTATIONS)
    config = request.settings
    if config.tv_weight is None:
        weights = (0.0, *studies.PAPER_TV_WEIGHTS)
        config = dataclasses.replace(config, tv_weight=weights)
    request = dataclasses.replace(request, settings=config)
    if request.dry_run:
        planned = plan(studies.load_groups(config), config)
        runner.print_estimates(config, planned=planned)
    else:
        run(request)


def run(request: Request) -> None:
    """Inverts everything at all lambdas, and writes table, figure and curves.

    Raises:
      binary.Refusal and the package's own errors: bad input; nothing was written.
    """
    config = request.settings
    groups = studies.load_groups(config)
    judges = Judges(groups, config)
    chances = {group.name: chance(group, judges, seed=config.seed) for group in groups}
    shown = studies.first_images(groups, max(1, _MOST_ROWS // len(groups)))
    finished = Finished(lambda lane: lane.start == 0 and lane.target.name in shown)

    def measured(outcome: Outcome) -> dict[str, Any]:
        original = outcome.lane.target.original
        assert original is not None
        picture = studies.picture(outcome)
        score = None if picture is None else naturalness(picture, original)
        return {"naturalness": score} | judges.measure(outcome)

    def write(folder: pathlib.Path) -> None:
        rows = table_rows(groups, finished.records, chances)
        bold = studies.bold_presets(_HEADER, rows)
        figure = figure_rows(finished.shown, judges)
        studies.publish(folder, _HEADER, rows, figure, bold=bold, cell_size=192)
        write_curves(folder / "curves.png", finished.records, chances)

    studies.run(
        request,
        groups,
        [(config, plan(groups, config))],
        collect=finished.collect,
        write=write,
        judge=loading.load_judge(groups, config),
        measure=measured,
    )


def plan(groups: Sequence[Group], config: Settings) -> list[Lane]:
    """The lanes of a run; those with a lambda_V of 0 have no regulariser at all.

    As in the released code's exp_noregularizer.m.
    """
    keywords: dict[str, Any] = {"alpha_weight": 0.0}
    if presets.PRESETS[config.preset].form == "ijcv2016":
        # The others have neither, and passing them would compile a second program.
        keywords |= {"range_bound": np.inf, "jitter": 1}
    bare = Variant("no regulariser", keywords)
    return [
        lane if lane.tv_weight else lane._replace(variant=bare)
        for lane in lanes.plan(groups, config)
    ]


def chance(group: Group, judges: Judges, *, seed: int) -> Chance:
    """What pairs of a group's originals have in common."""
    originals = [t.original for t in group.targets if t.original is not None]
    if len(originals) < 2:
        return Chance(np.zeros(0), [None] * len(JUDGES))
    pairs = diversity.pairs(jax.random.key(seed), len(originals), num_pairs=_MOST_PAIRS)
    first, second = pairs.T
    greys = [jnp.asarray(pixels.to_grey(original)[..., 0]) for original in originals]
    histograms = np.stack([orientation_histogram(grey) for grey in greys])
    labels: list[LabelAgreement | None] = []
    for word in JUDGES:
        judge = judges.of(word, group)
        if judge is None:
            labels.append(None)
            continue
        logits = judges.of_originals(judge, group.targets)
        labels.append(label_agreement(logits[first], logits[second]))
    shared = np.minimum(histograms[first], histograms[second])
    return Chance(shared.sum(1), labels)


def table_rows(
    groups: Sequence[Group],
    records: Sequence[dict],
    chances: dict[str, Chance],
) -> list[list[str]]:
    """A row per layer and lambda, and below those of a layer what chance would give."""
    rows = []
    for (name,), all_of_layer in studies.by(records, "representation").items():
        group = next(group for group in groups if group.name == name)
        for (tv_weight,), some in studies.by(all_of_layer, "tv_weight").items():
            rows.append(_row(group, tv_weight, some, chances[name]))
        if len(chances[name].naturalness):
            rows.append(_row_of_chance(name, chances[name]))
    return rows


def figure_rows(shown: Sequence[Outcome], judges: Judges) -> list[Row]:
    """A row per layer and image: the original, and its reconstructions."""
    rows: dict[tuple[str, str], Row] = {}
    for outcome in shown:
        group, target = outcome.lane.group, outcome.lane.target
        if (group.name, target.name) not in rows:
            assert target.original is not None
            called = judges.label_of_original(group, target)
            caption = f"{target.name}: {called}" if called else target.name
            cells = [Cell(target.original, caption)]
            label = f"{group.name}: lambda_V, naturalness, label"
            rows[group.name, target.name] = Row(label, cells)
        record = outcome.record
        score = record["naturalness"]
        caption = f"{_word(record['tv_weight'])}: "
        caption += "failed" if score is None else f"{score:.2f}"
        if record["judge_label"]:
            caption += f", {record['judge_label']}"
        cell = Cell(studies.picture(outcome), caption)
        rows[group.name, target.name].cells.append(cell)
    return list(rows.values())


def write_curves(
    path: pathlib.Path, records: Sequence[dict], chances: dict[str, Chance]
) -> None:
    """Naturalness by layer, a curve per lambda, over what chance gives."""
    layers = list(dict.fromkeys(record["representation"] for record in records))
    found = studies.by(records, "representation", "tv_weight")
    drawn = []
    weights = dict.fromkeys(record["tv_weight"] for record in records)
    for number, weight in enumerate(weights):
        values = [
            studies.finite(found.get((name, weight), []), "naturalness")
            for name in layers
        ]
        means, deviations = studies.means(values)
        label = f"lambda_V {weight:g}" if weight else "no regulariser"
        drawn.append(Curve(label, means, deviations, number))
    bands = []
    # The layers of a network see the same squares, and other networks much the same.
    scores = chances[layers[0]].naturalness
    if len(scores):
        low, high = np.quantile(scores, [0.05, 0.95])
        bands.append(Band("different photographs, 5 to 95 %", low, high))
    ylabel = "histogram intersection"
    curves.write(path, layers, drawn, ylabel=ylabel, bands=bands, from_zero=False)


def _row(
    group: Group, tv_weight: float, records: Sequence[dict], chance: Chance
) -> list[str]:
    scores = studies.finite(records, "naturalness")
    above = [
        float(np.mean(chance.naturalness > score))
        for score in scores
        if len(chance.naturalness)
    ]
    errors = studies.finite(records, "relative_error")
    fields = [f"{judge}_{top}" for judge in JUDGES for top in ("top1", "top5")]
    return [
        group.name,
        _word(tv_weight),
        "yes" if tv_weight == presets.tv_weight(group.phi) else "no",
        str(max(record["num_steps"] for record in records)),
        studies.mean_and_deviation(errors, scale=100),
        studies.mean_and_deviation(scores, digits=3),
        studies.mean(above, scale=100, digits=0),
        *(
            studies.mean(studies.finite(records, field), scale=100, digits=0)
            for field in fields
        ),
        studies.failures(records),
        str(len(group.skipped)),
    ]


def _row_of_chance(name: str, chance: Chance) -> list[str]:
    row = [name, "different photographs", *[studies.NOTHING] * (len(_HEADER) - 2)]
    row[_HEADER.index("naturalness")] = studies.mean_and_deviation(
        chance.naturalness.tolist(), digits=3
    )
    tops: list[str] = []
    for labels in chance.labels:
        shares = [[labels.top1], [labels.top5]] if labels else [[], []]
        tops += [studies.mean(share, scale=100, digits=0) for share in shares]
    start = _HEADER.index("top 1 %")
    row[start : start + len(tops)] = tops
    return row


def _word(tv_weight: float) -> str:
    return f"{tv_weight:g}" if tv_weight else "none"


if __name__ == "__main__":
    binary.run(main)
