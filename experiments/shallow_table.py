"""Table 1 of the paper: inversion of HOG, HOGb and dense SIFT.

    python -m experiments.shallow_table --workdir=runs/shallow

inverts the four sample photographs (256 px on the short side, grey) from three codes
with `fast` (400 steps) and with the paper's `cvpr2015` (800 steps): about eight minutes
on two cores. The paper prints 28.1, 10.7 and 10.9 % over 100 other images; see
experiments/README.md for what comes out here.

Writes config.json, metrics.jsonl, reconstructions/<preset>/, table.csv,
table.md and figure.png: originals, glyphs of their codes, and reconstructions.
"""

import dataclasses
import pathlib
from collections.abc import Sequence

import numpy as np
from absl import flags

from experiments import studies
from experiments.reproduction import printed
from experiments.studies import Finished
from invjax.commands import binary, shared_flags
from invjax.images import sources
from invjax.report import contact_sheet, glyphs
from invjax.report.contact_sheet import Cell, Row
from invjax.representations import paper
from invjax.representations.paper import Hog
from invjax.runs import lanes, loading, runner
from invjax.runs.errors import Refusal
from invjax.runs.lanes import Group, Outcome
from invjax.runs.settings import Request

_PRESETS = ("fast", "cvpr2015")
_REPRESENTATIONS = ("hog", "hogb", "dsift")
_IMAGES = ",".join(f"sample:{name}" for name in sources.SAMPLES)
_SHORT_SIDE = 256
_MOST_COLUMNS = 12
# The released code's; the paper prints one error for each, and says 5.
_PAPERS_TV_WEIGHT = 0.5
_HEADER = (
    "representation",
    "preset",
    "lambda_V",
    "steps",
    "energy",
    "relative error %",
    "normalised error %",
    "paper's normalised error %",
    "SSIM",
    "failed",
)


def main() -> None:
    request = shared_flags.from_flags(images=_IMAGES, representations=_REPRESENTATIONS)
    config = request.settings
    if flags.FLAGS["preset"].present:
        raise Refusal(f"--preset: this table has both, {' and '.join(_PRESETS)}")
    if config.image_size is None:
        config = dataclasses.replace(config, image_size=_SHORT_SIDE)
    request = dataclasses.replace(request, settings=config)
    for name in config.representations:
        if name not in paper.SHALLOW:
            raise Refusal(
                f"--representations={name}: this table is of shallow representations, "
                f"{', '.join(paper.SHALLOW)}"
            )
    if request.dry_run:
        for preset in _PRESETS:
            print(f"{preset}:")
            ours = dataclasses.replace(config, preset=preset)
            planned = lanes.plan(studies.load_groups(ours), ours)
            runner.print_estimates(ours, planned=planned)
    else:
        run(request)


def run(request: Request) -> None:
    """Inverts with both presets and writes table and figure.

    Raises:
      binary.Refusal and the package's own errors: bad input; nothing was written.
    """
    config = request.settings
    groups = studies.load_groups(config)
    parts = []
    for preset in _PRESETS:
        ours = dataclasses.replace(config, preset=preset)
        planned = [
            lane._replace(path=f"{preset}/{lane.path}")
            for lane in lanes.plan(groups, ours)
        ]
        parts.append((ours, planned[:1] if config.smoke else planned))  # two in all
    shown = studies.first_images(groups, _MOST_COLUMNS)
    finished = Finished(lambda lane: lane.start == 0 and lane.target.name in shown)

    def write(folder: pathlib.Path) -> None:
        rows = table_rows(finished.records)
        figure = figure_rows(groups, finished.shown)
        studies.publish(folder, _HEADER, rows, figure, cell_size=384)

    studies.run(
        request,
        groups,
        parts,
        collect=finished.collect,
        write=write,
        judge=loading.load_judge(groups, config),
        recorded={"preset": list(_PRESETS)},
    )


def table_rows(records: Sequence[dict]) -> list[list[str]]:
    """A row per representation, preset and lambda: mean and deviation over lanes."""
    rows = []
    groups = studies.by(records, "representation", "preset", "tv_weight")
    for (name, preset, tv_weight), some in groups.items():
        errors = studies.finite(some, "relative_error")
        normalised = studies.finite(some, "normalised_error")
        rows.append(
            [
                name,
                preset,
                f"{tv_weight:g}",
                str(max(record["num_steps"] for record in some)),
                studies.mean(studies.finite(some, "energy"), digits=4),
                studies.mean_and_deviation(errors, scale=100),
                studies.mean_and_deviation(normalised, scale=100),
                printed.text(name, _PAPERS_TV_WEIGHT) or studies.NOTHING,
                studies.mean_and_deviation(studies.finite(some, "ssim"), digits=2),
                studies.failures(some),
            ]
        )
    return rows


def figure_rows(groups: Sequence[Group], finished: Sequence[Outcome]) -> list[Row]:
    """Originals, and of each representation the glyphs and the reconstructions.

    The first start and the first lambda. Contrast is stretched, as in the paper: these
    codes hardly depend on it, so that the regularisers make reconstructions greyer than
    their originals.
    """
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
        mine = [outcome for outcome in finished if outcome.lane.group is group]
        for outcome in mine:
            tv_weight = outcome.lane.tv_weight
            if outcome.lane.start == 0 and tv_weight == mine[0].lane.tv_weight:
                preset, steps = outcome.record["preset"], outcome.record["num_steps"]
                label = f"{group.name}: {preset}, {steps} steps, tv {tv_weight:g}"
                cell = _reconstruction(outcome)
                reconstructions.setdefault(label, []).append(cell)
        rows += [Row(*row) for row in reconstructions.items()]
    return rows


def _reconstruction(outcome: Outcome) -> Cell:
    error = outcome.record["relative_error"]
    if error is None:
        return Cell(None, "failed")
    stretched = contact_sheet.stretched(outcome.image)
    return Cell(stretched, f"error {error:.1%}")


def _glyph(phi: object, code: np.ndarray) -> np.ndarray:
    if isinstance(phi, Hog):
        return glyphs.hog_glyph(code)
    return glyphs.dsift_glyph(code)


if __name__ == "__main__":
    binary.run(main)
