"""Inverts HOG, HOGb and dense SIFT (CVPR 2015, Table 1).

    python -m experiments.shallow_table --workdir=runs/shallow

inverts the four sample photographs (256 px on the short side, grey) from the three
codes with the preset `fast` (400 steps) and with the paper's method, `cvpr2015` (800
steps). It takes about eight minutes on two cores. The paper prints normalised errors of
28.1, 10.7 and 10.9 % over 100 other images; experiments/README.md has our results.

Writes config.json, metrics.jsonl, reconstructions/<preset>/, table.csv, table.md and
figure.png: originals, glyphs of their codes, and reconstructions, each stretched to its
range; figure_clipped.png has them clipped to [0, 1].
"""

import dataclasses
import functools

import numpy as np

from experiments.reproduction import printed
from invjax.commands import binary, studies
from invjax.commands.studies import Bench, Defaults, Findings, Study
from invjax.images import sources
from invjax.report import glyphs, tables
from invjax.report.contact_sheet import Cell, Row
from invjax.representations.paper import SHALLOW, Hog
from invjax.runs import lanes
from invjax.runs.errors import Refusal
from invjax.runs.lanes import Lane, Variant
from invjax.runs.runner import Finished
from invjax.runs.settings import Settings

_PRESETS = ("fast", "cvpr2015")
_SHORT_SIDE = 256
_MOST_COLUMNS = 12
# The released code's; the paper prints one error for each, and says 5.
_PAPERS_TV_WEIGHT = 0.5
_COLUMNS = (
    "representation",
    "preset",
    "lambda_V",
    "steps",
    "energy",
    "relative error %",
    "normalised error %",
    "paper's normalised error %",
    "SSIM",
    *studies.COUNTS,
)


def configure(settings: Settings) -> Settings:
    """The settings, at 256 px unless --image_size is given.

    Raises:
      Refusal: a representation is not a shallow one.
    """
    for name in settings.representations:
        if name not in SHALLOW:
            raise Refusal(
                f"--representations={name}: this table is of shallow representations, "
                f"{', '.join(SHALLOW)}"
            )
    return dataclasses.replace(settings, image_size=settings.image_size or _SHORT_SIDE)


def plan(bench: Bench) -> list[Lane]:
    """The lanes of both presets; under --smoke one of each."""
    planned = []
    for preset in _PRESETS:
        variant = Variant(None, {"preset": preset})
        mine = [
            lane._replace(path=f"{preset}/{lane.path}", variant=variant)
            for lane in lanes.plan(bench.groups, bench.settings)
        ]
        planned += mine[:1] if bench.settings.smoke else mine
    return planned


def is_shown(bench: Bench, lane: Lane) -> bool:
    """Whether a lane is in the figure: the first starts of the first images."""
    return lane.start == 0 and lane.target.name in bench.first_images(_MOST_COLUMNS)


def table(findings: Findings) -> list[list[str]]:
    """A row per representation, preset and lambda_V: mean and deviation over lanes."""
    rows = []
    found = studies.by(findings.records, "representation", "preset", "tv_weight")
    for (name, preset, tv_weight), some in found.items():
        errors = studies.finite(some, "relative_error")
        normalised = studies.finite(some, "normalised_error")
        rows.append(
            [
                name,
                preset,
                f"{tv_weight:g}",
                str(max(record.num_steps for record in some)),
                tables.mean(studies.finite(some, "energy"), digits=4),
                tables.mean_and_deviation(errors, scale=100),
                tables.mean_and_deviation(normalised, scale=100),
                printed.text(name, _PAPERS_TV_WEIGHT) or tables.NOTHING,
                tables.mean_and_deviation(studies.finite(some, "ssim"), digits=2),
                *studies.counts(some),
            ]
        )
    return rows


def figure(findings: Findings) -> list[Row]:
    """Originals, and of each representation the glyphs and the reconstructions.

    The first start at the first lambda_V. Reconstructions are stretched, as in the
    paper: these codes hardly depend on contrast, so that the regularisers make
    reconstructions greyer than their originals.
    """
    groups = findings.bench.groups
    originals = [
        Cell(target.original, target.name)
        for target in groups[0].targets
        if target.original is not None
    ][:_MOST_COLUMNS]
    rows = [Row("originals, grey", originals)] if originals else []
    for group in groups:
        cells = [
            Cell(_glyph(group.phi, target.code)[..., None], target.name)
            for target in group.targets[:_MOST_COLUMNS]
        ]
        rows.append(Row(f"{group.name}: the code", cells))
        reconstructions: dict[str, list[Cell]] = {}
        mine = [o for o in findings.shown if o.lane.group is group]
        for outcome in mine:
            record = outcome.record
            if record.tv_weight == mine[0].record.tv_weight:
                label = (
                    f"{group.name}: {record.preset}, {record.num_steps} steps, "
                    f"tv {record.tv_weight:g}"
                )
                cell = _reconstruction(outcome)
                reconstructions.setdefault(label, []).append(cell)
        rows += [Row(*row) for row in reconstructions.items()]
    return rows


def _reconstruction(outcome: Finished) -> Cell:
    if outcome.picture is None:
        return Cell(None, "failed")
    error = outcome.record.number("relative_error")
    return Cell.found(outcome.picture, f"error {error:.1%}")


def _glyph(phi: object, code: np.ndarray) -> np.ndarray:
    if isinstance(phi, Hog):
        return glyphs.hog_glyph(code)
    return glyphs.dsift_glyph(code)


STUDY = Study(
    defaults=Defaults(
        images=",".join(f"sample:{name}" for name in sources.SAMPLES),
        representations=("hog", "hogb", "dsift"),
    ),
    columns=_COLUMNS,
    table=table,
    figure=figure,
    picture_range="stretched",
    is_shown=is_shown,
    cell_size=384,
    refused_flags={"preset": f"this table has both, {' and '.join(_PRESETS)}"},
    configure=configure,
    options=lambda: {"preset": list(_PRESETS)},
    plan=plan,
)
main = functools.partial(studies.main, STUDY)

if __name__ == "__main__":
    binary.run(main)
