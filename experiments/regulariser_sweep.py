"""Figures 2, 4 and 8 of the paper: what the total variation does to reconstructions.

    python -m experiments.regulariser_sweep --workdir=runs/regulariser

inverts two sample photographs from a subsampling layer (alexnet/pool1; Figure 2), HOG
(Figure 4) and two deep layers (alexnet/pool5, efficientnet_lite0/logits; Figure 8) with
lambda_V = 0.5, 5 and 50, exponents beta = 1 and 2, without and with the jitter of IJCV
2016: about half an hour on two cores. At pool1 and small lambda_V, beta = 1 leaves
spikes that beta = 2 and jitter take away; larger weights blur, and from pool5 they turn
texture into a picture. Jitter costs accuracy at every weight: no image has the code of
all its shifts.

A layer of the paper's own network, as its figures have it, is
--representations=caffenet/norm1 or caffenet/fc8, with weights of your own. Under
--preset=ijcv2016 the same grid is of that paper's objective. lambda_V is given as the
released code has it: for beta = 1 the energy's weight is lambda_V / sigma.

Writes config.json, metrics.jsonl, reconstructions/, table.csv, table.md and figure.png.
In the table:

    spikes          `naturalness.lattice_spikes` at the layer's stride: about 1 without
    high-frequency  share of the luminance's energy above 0.25 cycles per pixel
    TV              mean length of the gradient, grey levels per pixel and channel
"""

import dataclasses
import itertools
import math
import pathlib
from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from absl import flags

from experiments import studies
from experiments.studies import Finished
from invjax.commands import binary, shared_flags
from invjax.inversion import presets, regularisers
from invjax.inversion.objective import SIGMA
from invjax.metrics import naturalness
from invjax.report.contact_sheet import Cell, Row
from invjax.representations.paper import Dsift, Hog
from invjax.runs import loading, runner, variants
from invjax.runs.errors import Refusal
from invjax.runs.lanes import Group, Lane, Outcome, Variant
from invjax.runs.settings import Request
from invjax.types import Representation

_BETAS = flags.DEFINE_list("betas", ["1", "2"], "Exponents of the total variation.")

_IMAGES = "sample:chelsea,sample:rocket"
_REPRESENTATIONS = (
    "alexnet/pool1",
    "hog",
    "alexnet/pool5",
    "efficientnet_lite0/logits",
)
_CUTOFF = 0.25
_STATISTICS = ("spikes", "high_frequency_share", "mean_gradient")
_HEADER = (
    "representation",
    "beta",
    "jitter px",
    "lambda_V",
    "relative error %",
    "spikes",
    "high-frequency %",
    "TV",
    "failed",
    "code zero",
)


def main() -> None:
    request = shared_flags.from_flags(images=_IMAGES, representations=_REPRESENTATIONS)
    config = request.settings
    if config.tv_weight is None:
        config = dataclasses.replace(config, tv_weight=studies.PAPER_TV_WEIGHTS)
    run(dataclasses.replace(request, settings=config), exponents(_BETAS.value))


def run(request: Request, betas: Sequence[float]) -> None:
    """Inverts the grid and writes table and figure; with --dry_run says how long.

    Raises:
      binary.Refusal and the package's own errors: bad input; nothing was written.
    """
    config = request.settings
    groups = studies.load_groups(config)
    grids = {group.name: grid(group.phi, betas) for group in groups}
    planned = [
        lane._replace(tv_weight=lane.tv_weight * units(lane, config.preset))
        for lane in variants.plan(groups, config, lambda group, _: grids[group.name])
    ]
    if request.dry_run:
        runner.print_estimates(config, planned=planned)
        return
    first = {group.name: group.targets[0].name for group in groups}
    finished = Finished(
        lambda lane: lane.start == 0 and lane.target.name == first[lane.group.name]
    )

    def write(folder: pathlib.Path) -> None:
        rows = table_rows(groups, finished.records)
        studies.publish(folder, _HEADER, rows, figure_rows(finished.shown))

    studies.run(
        request,
        groups,
        [(config, planned)],
        collect=finished.collect,
        write=write,
        judge=loading.load_judge(groups, config),
        measure=measure,
        recorded={"betas": list(betas)},
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


def units(lane: Lane, preset: str) -> float:
    """What lambda_V is multiplied by, as `invert` does with its own defaults."""
    if presets.find(preset).form == "ijcv2016":
        return 1.0
    return SIGMA ** (_keywords(lane)["beta"] - 2)


def measure(outcome: Outcome) -> dict[str, Any]:
    """What joins a lane's record: its place in the grid, and its picture's statistics.

    The record's tv_weight is the energy's; "lambda_V" is as it was given.
    """
    record, lane = outcome.record, outcome.lane
    given = lane.tv_weight / units(lane, record["preset"])
    place = {**_keywords(lane), "lambda_V": float(f"{given:.6g}")}
    if record["status"] == "failed":
        return place | dict.fromkeys(_STATISTICS)
    return place | statistics(outcome.image, lane.group.phi)


def statistics(image: np.ndarray, phi: Representation) -> dict[str, Any]:
    """Spikes at a representation's stride, share of high frequencies, mean gradient.

    There are no spikes to tell where the stride is below 4, or unknown, or above half
    the image's side.
    """
    spikes = None
    geometry = getattr(phi, "geometry", None)
    if geometry is not None and 4 <= geometry.stride <= (min(image.shape[:2]) - 2) / 2:
        spikes = float(naturalness.lattice_spikes(image, geometry.stride))
    variation = regularisers.total_variation(jnp.asarray(255 * image), beta=1.0)
    share = naturalness.high_frequency_share(image, _CUTOFF)
    return dict(
        zip(
            _STATISTICS,
            (spikes, float(share), float(variation) / image.size),
            strict=True,
        )
    )


def table_rows(
    groups: Sequence[Group], records: Sequence[dict[str, Any]]
) -> list[list[str]]:
    """A row per representation, exponent, jitter and lambda; the originals first."""
    rows = []
    for group in groups:
        originals = [
            {"status": "original", **statistics(target.original, group.phi)}
            for target in group.targets
            if target.original is not None
        ]
        nothing = studies.NOTHING
        cells = ["original", nothing, nothing, nothing, *_measured(originals)]
        rows.append([group.name, *cells, nothing, str(len(group.skipped))])
        mine = [record for record in records if record["representation"] == group.name]
        for place, some in studies.by(mine, "beta", "jitter", "lambda_V").items():
            beta, jitter, tv_weight = place
            errors = studies.finite(some, "relative_error")
            rows.append(
                [
                    group.name,
                    f"{beta:g}",
                    str(jitter) if jitter > 1 else "none",
                    f"{tv_weight:g}",
                    studies.mean_and_deviation(errors, scale=100),
                    *_measured(some),
                    studies.failures(some),
                    str(len(group.skipped)),
                ]
            )
    return rows


def figure_rows(shown: Sequence[Outcome]) -> list[Row]:
    """A row per representation, exponent and jitter: the original, then the lambdas.

    Contrast is stretched for shallow representations, which hardly depend on it.
    """
    rows = []
    for _, members in itertools.groupby(shown, lambda outcome: outcome.lane.variant):
        row = list(members)
        group, original = row[0].lane.group, row[0].lane.target.original
        cells = [] if original is None else [_original(original, group)]
        for outcome in row:
            caption = f"lambda {outcome.record['lambda_V']:g}"
            if (error := outcome.record["relative_error"]) is not None:
                caption += f": error {error:.1%}"
            if (spikes := outcome.record["spikes"]) is not None:
                caption += f", spikes {spikes:.1f}"
            cells.append(Cell(_picture(outcome), caption))
        beta, places = row[0].record["beta"], row[0].record["jitter"]
        jitter = f"jitter {places} px" if places > 1 else "no jitter"
        label = f"{group.name}: beta {beta:g}, {jitter}"
        if _is_shallow(group.phi):
            label += ", contrast stretched"
        rows.append(Row(label, cells))
    return rows


def _original(original: np.ndarray, group: Group) -> Cell:
    spikes = statistics(original, group.phi)["spikes"]
    told = "" if spikes is None else f": spikes {spikes:.1f}"
    return Cell(original, f"original{told}")


def _picture(outcome: Outcome) -> np.ndarray | None:
    picture = studies.picture(outcome)
    if picture is None or not _is_shallow(outcome.lane.group.phi):
        return picture
    # Not from the darkest to the brightest pixel: single ones lie far out.
    low, high = np.percentile(picture, [0.5, 99.5])
    return (picture - low) / max(high - low, 1e-6)


def _measured(records: Sequence[dict[str, Any]]) -> list[str]:
    return [
        studies.mean_and_deviation(
            studies.finite(records, field), scale=scale, digits=digits
        )
        for field, scale, digits in zip(
            _STATISTICS, (1, 100, 1), (2, 2, 1), strict=True
        )
    ]


def _is_shallow(phi: Representation) -> bool:
    return isinstance(phi, Hog | Dsift)


def _keywords(lane: Lane) -> dict[str, Any]:
    assert lane.variant is not None
    return dict(lane.variant.keywords)


if __name__ == "__main__":
    binary.run(main)
