"""Asks which photograph a deep code's reconstruction shows, preset by preset.

    python -m experiments.recognition --workdir=runs/recognition --images=photos \
        --representations=efficientnet_lite0/logits --presets=fast,natural

inverts the code of every photograph of a folder with each preset, and asks networks
that took no part whether the original is the one, among all photographs, whose features
correlate best with the reconstruction's (`invjax.metrics.identification`). A small
error of the code does not tell: a network answers to many things that nobody
recognises. It takes half a minute a photograph and preset on two cores.

The candidates are the photographs of --identify_among, by default those of --images; a
hundred are enough to tell presets apart. `identified %` and `percentile` are of
features from which the mean over all reconstructions is subtracted, as that over all
candidates is from theirs: what reconstructions have in common, such as their colours,
then plays no part. `plainly identified %` and `plain percentile` are without that. By
chance the rate is one in the number of candidates, and the percentile 0.5. In brackets
are 95 % intervals of a bootstrap over photographs.

Writes config.json, metrics.jsonl, reconstructions/<preset>/, table.csv, table.md (a row
for each representation, preset and judge), figure.png and figure_stretched.png, which
has every reconstruction stretched to its range.
"""

import dataclasses
import functools
from collections.abc import Sequence

import numpy as np
from absl import flags

from invjax import identity
from invjax.commands import binary, studies
from invjax.commands.studies import Bench, Defaults, Findings, Study
from invjax.images import sources
from invjax.inversion import presets
from invjax.metrics import bootstrap, identification
from invjax.report import tables
from invjax.report.contact_sheet import Cell, Row
from invjax.runs import lanes
from invjax.runs.errors import Refusal
from invjax.runs.lanes import Lane, Variant
from invjax.runs.runner import Finished
from invjax.runs.settings import Settings

_PRESETS = flags.DEFINE_list(
    "presets", ["fast", "natural"], "Comma-separated presets that are compared."
)
_MOST_COLUMNS = 12
_COLUMNS = (
    "representation",
    "preset",
    "steps",
    "relative error %",
    "LPIPS",
    "judge",
    "identified %",
    "percentile",
    "plainly identified %",
    "plain percentile",
    *studies.COUNTS,
)


def configure(settings: Settings) -> Settings:
    """The settings, with the images themselves as candidates if no others are named.

    Raises:
      Refusal: a preset is unknown or named twice.
    """
    chosen = _PRESETS.value
    if not chosen or len(set(chosen)) < len(chosen):
        raise Refusal(f"--presets={','.join(chosen)}: empty, or names repeat")
    for name in chosen:
        if name not in presets.PRESETS:
            known = ", ".join(presets.PRESETS)
            raise Refusal(f"--presets={name}: unknown; accepted: {known}")
    among = settings.identify_among or settings.images
    return dataclasses.replace(settings, identify_among=among)


def plan(bench: Bench) -> list[Lane]:
    """The lanes of all presets, each with its own lambda_V; under --smoke two."""
    planned = []
    for group in bench.groups:
        for preset in bench.options["presets"]:
            variant = Variant(None, {"preset": preset})
            settings = dataclasses.replace(bench.settings, preset=preset, smoke=False)
            planned += [
                lane._replace(path=f"{preset}/{lane.path}", variant=variant)
                for lane in lanes.plan([group], settings)
            ]
    return planned[:2] if bench.settings.smoke else planned


def table(findings: Findings) -> list[list[str]]:
    """A row per representation, preset and judge: means over lanes, with intervals."""
    found: dict[tuple[str, str], list[Finished]] = {}
    for outcome in findings.shown:
        key = outcome.record.representation, outcome.record.preset
        found.setdefault(key, []).append(outcome)
    seed = findings.bench.settings.seed
    rows = []
    for (name, preset), some in found.items():
        records = [outcome.record for outcome in some]
        for judge in identification.judges(name.partition("/")[0]):
            rows.append(
                [
                    name,
                    preset,
                    str(max(record.num_steps for record in records)),
                    _mean(seed, some, "relative_error", scale=100),
                    _mean(seed, some, "lpips", digits=2),
                    judge,
                    *_identified(findings, some, judge),
                    *studies.counts(records),
                ]
            )
    return rows


def figure(findings: Findings) -> list[Row]:
    """Originals, and below them what each preset finds from their codes."""
    bench = findings.bench
    first = bench.first_images(_MOST_COLUMNS)
    originals = [
        Cell(target.original, target.name)
        for target in bench.groups[0].targets
        if target.name in first and target.original is not None
    ]
    rows: dict[str, list[Cell]] = {"originals": originals} if originals else {}
    for outcome in findings.shown:
        record = outcome.record
        if record.start == 0 and outcome.lane.target.name in first:
            label = f"{record.representation}: {record.preset}"
            if outcome.picture is None:
                caption = "failed"
            else:
                caption = f"error {record.number('relative_error'):.1%}"
            rows.setdefault(label, []).append(Cell.found(outcome.picture, caption))
    return [Row(label, cells) for label, cells in rows.items()]


def _identified(
    findings: Findings, outcomes: Sequence[Finished], judge: str
) -> list[str]:
    """Cells: how many lanes are identified, and the mean percentile; then plainly."""
    members = [
        outcome
        for outcome in outcomes
        if outcome.picture is not None and outcome.lane.target.original is not None
    ]
    if not members:
        return [tables.NOTHING] * 4
    identifier, seed = findings.bench.identifier, findings.bench.settings.seed
    assert identifier is not None
    own = [outcome.lane for outcome in members]
    pictures = [o.picture for o in members if o.picture is not None]
    features = identifier.features(pictures, judge=judge)
    cells = []
    for centred in (True, False):
        if centred and len({lane.target.image_id for lane in own}) < 2:
            cells += [tables.NOTHING] * 2
            continue
        found = identifier.identify(own, features, judge=judge, centred=centred)
        cells += [
            _interval(seed, members, found.rank == 0, scale=100, digits=0),
            _interval(seed, members, found.percentile, digits=3),
        ]
    return cells


def _mean(
    seed: int,
    outcomes: Sequence[Finished],
    field: str,
    *,
    scale: float = 1,
    digits: int = 1,
) -> str:
    values = np.array([outcome.record.number(field) for outcome in outcomes])
    fine = [
        number
        for number, outcome in enumerate(outcomes)
        if not outcome.record.has_failed and np.isfinite(values[number])
    ]
    if not fine:
        return tables.NOTHING
    members = [outcomes[number] for number in fine]
    return _interval(seed, members, values[fine], scale=scale, digits=digits)


def _interval(
    seed: int,
    outcomes: Sequence[Finished],
    values: np.ndarray,
    *,
    scale: float = 1,
    digits: int = 1,
) -> str:
    """The mean over photographs, each counting once, and its interval."""
    by_image: dict[str, list[float]] = {}
    for outcome, value in zip(outcomes, values, strict=True):
        by_image.setdefault(outcome.lane.target.name, []).append(float(value))
    means = np.array([np.mean(some) for some in by_image.values()], np.float32)
    cell = f"{scale * np.mean(means):.{digits}f}"
    if len(means) < 2:
        return cell
    found = bootstrap.interval(identity.lane_key(seed, 0, 0), means)
    low, high = scale * float(found.low), scale * float(found.high)
    return f"{cell} [{low:.{digits}f}, {high:.{digits}f}]"


STUDY = Study(
    defaults=Defaults(
        images=",".join(f"sample:{name}" for name in sources.SAMPLES),
        representations=("efficientnet_lite0/logits",),
    ),
    columns=_COLUMNS,
    table=table,
    figure=figure,
    refused_flags={"preset": "this study compares several: give --presets"},
    configure=configure,
    options=lambda: {"presets": list(_PRESETS.value)},
    plan=plan,
)
main = functools.partial(studies.main, STUDY)

if __name__ == "__main__":
    binary.run(main)
