"""Exaggerates in photographs what a layer responds to.

    invjax caricature --workdir=runs/caricature

makes caricatures (IJCV 2016): it starts at four sample photographs and lets their codes
at four layers of AlexNet grow. It minimises -<p, Phi(x)> / |p|^2, where
p = max(Phi(x0), 0), with the paper's regularisers, jitter and 300 steps, and takes
about two minutes on two cores. Codes grow to 0.6, 0.9, 2.4 and 2.7 times themselves at
relu2, relu3, relu5 and pool5; a cat's face fills with spots, eyes and smaller faces.
EfficientNet-Lite0 gives no caricature the label that it gives the original. (It names
the pictures of all other networks; Lite1 names those of Lite0, and --classifier
another network.)

In the released code, p is from the code of a photograph from which the network's mean
was not subtracted. This is an oversight; here the mean is subtracted. The released
code's C = 1 is kept. At shallow layers the regularisers then outweigh the data term,
and contrast is lost before anything is exaggerated.

`--preset=fast` minimises the paper's objective by our solver, except that R_alpha there
takes every channel by itself. The other presets are refused.

Writes config.json, metrics.jsonl, originals/, reconstructions/, table.csv, table.md and
figure.png, in which all pictures but the originals are stretched, each to its range;
figure_clipped.png has the same pictures clipped to [0, 1]. In the table:

    growth      <p, Phi(x)> / |p|^2; it is 1 for the original where no value is negative
    cosine      cosine between Phi(x) and p; below 1 where other features grow as well
    distance    root mean square difference from the original, in grey levels, of
                clipped pictures
    SSIM        similarity to the original, of clipped pictures
    label kept  for how many caricatures another network, `classifier` in
                metrics.jsonl, gives the label that it gives the original
"""

import functools
from typing import Any

import numpy as np

from invjax import identity
from invjax.commands import binary, shared_flags, studies
from invjax.commands.studies import Bench, Defaults, Findings, Study
from invjax.images import sources
from invjax.inversion import objective, presets
from invjax.report import tables
from invjax.report.contact_sheet import Cell, Row
from invjax.runs import loading
from invjax.runs.classifiers import Classifiers
from invjax.runs.errors import Refusal
from invjax.runs.lanes import Lane, Variant
from invjax.runs.runner import Outcome

shared_flags.define_classifier()

_COLUMNS = (
    "representation",
    "steps",
    "growth",
    "cosine",
    "distance",
    "SSIM",
    "label kept",
    *studies.COUNTS,
)


def load(bench: Bench) -> Bench:
    """Loads the groups, whose codes have to have positive values.

    Raises:
      Refusal: nothing of a code could grow.
    """
    groups = loading.load_groups(bench.settings)
    loading.refuse_joint(groups)
    for group in groups:
        for target in group.targets:
            if not np.sum(np.square(np.maximum(target.code, 0))) > 0:
                raise Refusal(
                    f"{target.name}: no value of its {group.name} code is positive, so "
                    "there is nothing to exaggerate"
                )
    return bench._replace(groups=groups)


def plan(bench: Bench) -> list[Lane]:
    """Every caricature, layer by layer, each started from its original."""
    settings = bench.settings
    planned = []
    for group in bench.groups:
        variants: dict[tuple[int, int, int], Variant] = {}
        for target in group.targets:
            shape = target.image_shape
            weights = presets.linear_term_weights(settings.preset, shape)
            tv_weight = weights.pop("tv_weight", presets.tv_weight(group.phi))
            keywords = {"data_term": objective.caricature, **weights}
            variant = variants.setdefault(shape, Variant("caricature", keywords))
            # What is drawn for the jitter depends on the code alone.
            target = target._replace(image_id=identity.code_id(target.code))
            path = f"{target.name}/{group.name.replace('/', '_')}"
            planned.append(
                Lane(group, target, 0, tv_weight, path, variant, target.original)
            )
    return planned[:2] if settings.smoke else planned


def load_tools(bench: Bench) -> Classifiers:
    """Loads what names pictures."""
    return Classifiers(bench.groups, bench.settings, words=("classifier",))


def measure(bench: Bench, outcome: Outcome) -> dict[str, Any]:
    """How far a code has grown, how far the picture is from its original, its label."""
    classifiers: Classifiers = bench.tools
    group, target, code = outcome.lane.group, outcome.lane.target, outcome.code
    if outcome.picture is None:
        return dict.fromkeys(_MEASURED) | {"classifier": classifiers.judge(group)}
    positive = np.maximum(target.code, 0)
    product, square = float(np.vdot(positive, code)), float(np.vdot(positive, positive))
    norm = float(np.linalg.norm(code)) * np.sqrt(square)
    guess = classifiers.guess(group, outcome.picture)
    label = None if guess is None else guess.name
    own = classifiers.label_of_original(group, target)
    return {
        "classifier": classifiers.judge(group),
        "growth": product / square,
        "cosine": product / norm if norm > 0 else None,
        "distance": 255 * outcome.record.number("rms"),
        "label": label,
        "original_label": own,
        "is_label_kept": None if label is None else label == own,
    }


_MEASURED = ("growth", "cosine", "distance", "label", "original_label", "is_label_kept")


def table(findings: Findings) -> list[list[str]]:
    """A row per representation: means and deviations over images."""
    rows = []
    for (name,), mine in studies.by(findings.records, "representation").items():
        kept = studies.finite(mine, "is_label_kept")
        rows.append(
            [
                name,
                str(max(record.num_steps for record in mine)),
                tables.mean_and_deviation(studies.finite(mine, "growth"), digits=2),
                tables.mean_and_deviation(studies.finite(mine, "cosine"), digits=2),
                tables.mean_and_deviation(studies.finite(mine, "distance")),
                tables.mean_and_deviation(studies.finite(mine, "ssim"), digits=2),
                f"{sum(kept):.0f} of {len(kept)}" if kept else tables.NOTHING,
                *studies.counts(mine),
            ]
        )
    return rows


def figure(findings: Findings) -> list[Row]:
    """Originals on top, then a row of caricatures per representation."""
    classifiers: Classifiers = findings.bench.tools
    originals: dict[str, Cell] = {}
    rows: dict[str, list[Cell]] = {}
    for outcome in findings.shown:
        record = outcome.record
        name = record.image
        if name not in originals:
            lane = outcome.lane
            called = classifiers.label_of_original(lane.group, lane.target)
            originals[name] = Cell(lane.initial, f"{name}: {called or 'no label'}")
        caption = "failed"
        if outcome.picture is not None:
            caption = f"growth {record.value('growth'):.1f}"
            label = record.value("label")
            caption += f": {label}" if label else ""
        cell = Cell.found(outcome.picture, caption)
        rows.setdefault(record.representation, []).append(cell)
    labelled = [Row(name, cells) for name, cells in rows.items()]
    return [Row("originals", list(originals.values())), *labelled]


STUDY = Study(
    defaults=Defaults(
        images=",".join(f"sample:{name}" for name in sources.SAMPLES),
        representations=(
            "alexnet/relu2",
            "alexnet/relu3",
            "alexnet/relu5",
            "alexnet/pool5",
        ),
        preset="ijcv2016",
    ),
    columns=_COLUMNS,
    table=table,
    figure=figure,
    picture_range="stretched",
    measure=measure,
    used_flags=studies.LINEAR_FLAGS,
    refused_flags={
        "dead_relu": "a caricature begins at its photograph; there is no noise to leave"
    },
    configure=studies.without_cvpr_presets,
    load=load,
    load_tools=load_tools,
    plan=plan,
    writes_originals=True,
)
main = functools.partial(studies.main, STUDY)

if __name__ == "__main__":
    binary.run(main)
