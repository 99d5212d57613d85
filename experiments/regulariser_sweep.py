"""Shows what the total variation does to reconstructions (CVPR 2015, Figures 2, 4, 8).

    python -m experiments.regulariser_sweep --workdir=runs/regulariser

inverts two sample photographs from a subsampling layer (alexnet/pool1; Figure 2), HOG
(Figure 4) and two deep layers (alexnet/pool5, efficientnet_lite0/logits; Figure 8),
with lambda_V = 0.5, 5 and 50 and exponents beta = 1 and 2, without and with the jitter
of IJCV 2016. It takes about half an hour on two cores. At pool1 and small lambda_V,
beta = 1 leaves spikes that beta = 2 and jitter remove. Larger weights blur; from pool5
they turn texture into a picture. Jitter costs accuracy at every weight, since no image
matches the code at all its shifts.

For a layer of the paper's own network, as in its figures, give
--representations=caffenet/norm1 or caffenet/fc8, and weights of your own. With
--preset=ijcv2016 the same grid is run for that paper's objective. lambda_V is given as
in the released code: for beta = 1 its weight in the energy is lambda_V / sigma.

Writes config.json, metrics.jsonl, reconstructions/, table.csv, table.md and figure.png,
where each reconstruction is stretched to its range, as in the paper; figure_clipped.png
has them clipped to [0, 1] and shows which weights make pictures greyer. In the table:

    spikes          `naturalness.lattice_spikes` at the layer's stride; about 1 where
                    there are no spikes
    high-frequency  fraction of the luminance's energy above 0.25 cycles per pixel
    TV              mean length of the gradient, grey levels per pixel and channel
"""

import functools
import itertools
import math
from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from absl import flags

from invjax.commands import binary, studies
from invjax.commands.studies import Bench, Defaults, Findings, Study
from invjax.inversion import presets, regularisers
from invjax.inversion.objective import SIGMA
from invjax.metrics import naturalness
from invjax.report import tables
from invjax.report.contact_sheet import Cell, Row
from invjax.representations.paper import Dsift, Hog
from invjax.runs import variants
from invjax.runs.errors import Refusal
from invjax.runs.lanes import Group, Lane, Variant
from invjax.runs.runner import Outcome
from invjax.types import Representation

_BETAS = flags.DEFINE_list("betas", ["1", "2"], "Exponents of the total variation.")

_CUTOFF = 0.25
_STATISTICS = ("spikes", "high_frequency_fraction", "mean_gradient")
_COLUMNS = (
    "representation",
    "beta",
    "jitter px",
    "lambda_V",
    "relative error %",
    "spikes",
    "high-frequency %",
    "TV",
    *studies.COUNTS,
    "code zero",
)


def exponents(words: Sequence[str]) -> tuple[float, ...]:
    """--betas as numbers.

    Raises:
      Refusal: they are no different positive numbers.
    """
    try:
        numbers = tuple(float(word) for word in words)
    except ValueError:
        numbers = ()
    is_accepted = all(math.isfinite(number) and number > 0 for number in numbers)
    if not (numbers and is_accepted and len(set(numbers)) == len(numbers)):
        raise Refusal(
            f"--betas={','.join(words)}: a comma list of different positive numbers is "
            "accepted"
        )
    return numbers


def grid(phi: Representation, betas: Sequence[float]) -> list[Variant]:
    """Every exponent, without jitter and, for networks, with that of IJCV 2016.

    (That paper jitters no shallow representation, and no layer of stride 4.)
    """
    jitters = sorted({1, 1 if _is_shallow(phi) else presets.jitter(phi)})
    return [
        Variant(f"beta_{beta:g}_jitter_{places}", {"beta": beta, "jitter": places})
        for beta in betas
        for places in jitters
    ]


def lambda_scale(lane: Lane, preset: str) -> float:
    """What a given lambda_V is multiplied by, as `invert` does with its own default."""
    if presets.find(preset).form == "ijcv2016":
        return 1.0
    return SIGMA ** (_keywords(lane)["beta"] - 2)


def plan(bench: Bench) -> list[Lane]:
    """The lanes of the grid, their lambda_V in the units of the energy."""
    betas = bench.options["betas"]
    grids = {group.name: grid(group.phi, betas) for group in bench.groups}
    preset = bench.settings.preset
    return [
        lane._replace(tv_weight=lane.tv_weight * lambda_scale(lane, preset))
        for lane in variants.plan(
            bench.groups, bench.settings, lambda group, _: grids[group.name]
        )
    ]


def measure(bench: Bench, outcome: Outcome) -> dict[str, Any]:
    """Place of a lane in the grid, and statistics of its picture.

    The record's tv_weight is the energy's; the column "lambda_V" is as it was given.
    """
    del bench
    lane = outcome.lane
    given = lane.tv_weight / lambda_scale(lane, outcome.record.preset)
    place = {**_keywords(lane), "lambda_V": float(f"{given:.6g}")}
    if outcome.picture is None:
        return place | dict.fromkeys(_STATISTICS)
    return place | statistics(outcome.picture, lane.group.phi)


def is_shown(bench: Bench, lane: Lane) -> bool:
    """Whether a lane is in the figure: the first start of a group's first image."""
    first = bench.group(lane.group.name).targets[0].name
    return lane.start == 0 and lane.target.name == first


def statistics(image: np.ndarray, phi: Representation) -> dict[str, Any]:
    """Spikes at a representation's stride, fraction of high frequencies, mean gradient.

    Spikes are None where the stride is below 4, unknown, or above half the image's
    side.
    """
    spikes = None
    geometry = getattr(phi, "geometry", None)
    if geometry is not None and 4 <= geometry.stride <= (min(image.shape[:2]) - 2) / 2:
        spikes = float(naturalness.lattice_spikes(image, geometry.stride))
    variation = regularisers.total_variation(jnp.asarray(255 * image), beta=1.0)
    fraction = float(naturalness.high_frequency_fraction(image, _CUTOFF))
    values = (spikes, fraction, float(variation) / image.size)
    return dict(zip(_STATISTICS, values, strict=True))


def table(findings: Findings) -> list[list[str]]:
    """A row per representation, exponent, jitter and lambda_V; the originals first."""
    rows = []
    for group in findings.bench.groups:
        originals = [
            statistics(target.original, group.phi)
            for target in group.targets
            if target.original is not None
        ]
        nothing = tables.NOTHING
        columns = [[row[name] for row in originals] for name in _STATISTICS]
        cells = ["original", nothing, nothing, nothing, *_measured(columns)]
        rows.append([group.name, *cells, nothing, nothing, str(len(group.skipped))])
        mine = [r for r in findings.records if r.representation == group.name]
        for place, some in studies.by(mine, "beta", "jitter", "lambda_V").items():
            beta, jitter, tv_weight = place
            errors = studies.finite(some, "relative_error")
            rows.append(
                [
                    group.name,
                    f"{beta:g}",
                    str(jitter) if jitter > 1 else "none",
                    f"{tv_weight:g}",
                    tables.mean_and_deviation(errors, scale=100),
                    *_measured([studies.finite(some, name) for name in _STATISTICS]),
                    *studies.counts(some),
                    str(len(group.skipped)),
                ]
            )
    return rows


def figure(findings: Findings) -> list[Row]:
    """A row per representation, exponent and jitter: the original, then the lambdas."""
    rows = []
    for _, members in itertools.groupby(findings.shown, lambda o: o.lane.variant):
        row = list(members)
        group, original = row[0].lane.group, row[0].lane.target.original
        cells = [] if original is None else [_original(original, group)]
        for outcome in row:
            record = outcome.record
            caption = f"lambda {record.value('lambda_V'):g}"
            if record.relative_error is not None:
                caption += f": error {record.relative_error:.1%}"
            if (spikes := record.value("spikes")) is not None:
                caption += f", spikes {spikes:.1f}"
            cells.append(Cell.found(outcome.picture, caption))
        beta, places = (row[0].record.value(name) for name in ("beta", "jitter"))
        jitter = f"jitter {places} px" if places > 1 else "no jitter"
        rows.append(Row(f"{group.name}: beta {beta:g}, {jitter}", cells))
    return rows


def _original(original: np.ndarray, group: Group) -> Cell:
    spikes = statistics(original, group.phi)["spikes"]
    told = "" if spikes is None else f": spikes {spikes:.1f}"
    return Cell(original, f"original{told}")


def _measured(columns: Sequence[Sequence[float | None]]) -> list[str]:
    """Cells of the three statistics, of their values over lanes or originals."""
    return [
        tables.mean_and_deviation(
            [value for value in values if value is not None], scale=scale, digits=digits
        )
        for values, scale, digits in zip(columns, (1, 100, 1), (2, 2, 1), strict=True)
    ]


def _is_shallow(phi: Representation) -> bool:
    return isinstance(phi, Hog | Dsift)


def _keywords(lane: Lane) -> dict[str, Any]:
    assert lane.variant is not None
    return dict(lane.variant.keywords)


STUDY = Study(
    defaults=Defaults(
        images="sample:chelsea,sample:rocket",
        representations=(
            "alexnet/pool1",
            "hog",
            "alexnet/pool5",
            "efficientnet_lite0/logits",
        ),
        tv_weight=studies.PAPER_TV_WEIGHTS,
    ),
    columns=_COLUMNS,
    table=table,
    figure=figure,
    picture_range="stretched",
    measure=measure,
    is_shown=is_shown,
    options=lambda: {"betas": exponents(_BETAS.value)},
    plan=plan,
)
main = functools.partial(studies.main, STUDY)

if __name__ == "__main__":
    binary.run(main)
