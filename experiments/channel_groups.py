"""Inverts two groups of a layer's channels, each alone (CVPR 2015, Figure 10).

    python -m experiments.channel_groups --workdir=runs/channel_groups

inverts three layers of AlexNet for four sample photographs and an abstract picture,
from all channels and from each of two groups alone. It takes about three minutes on two
cores. At conv1 the group that responds to form brings back more high frequencies and
less colour than the other group for every picture, as in the paper; at relu2 both
groups bring back both.

The paper's network has convolutions in two groups, and the paper compares the first and
the second half of the channels. So does this study for networks with grouped
convolutions (--representations=caffenet/conv1,caffenet/norm1,caffenet/norm2, with
weights of your own). For other networks it splits the channels into equal halves by how
much they respond to colour alone (`invjax.sensitivity.channel_split`), measured on the
sample photographs without the one that is inverted: "form" has the channels that
respond less. --channel_split=halves takes the contiguous halves of these networks as
well, for comparison.

Writes config.json, metrics.jsonl, reconstructions/, table.csv, table.md and figure.png;
figure_stretched.png has every reconstruction stretched to its range. The table
has means and deviations over lanes:

    chroma          fraction of the energy that is in the colours
    high-frequency  fraction of the luminance's energy above 0.125 cycles per pixel
    more chroma, more high-frequency
                    in how many lanes the group has more than the other group
"""

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from absl import flags

from invjax.commands import binary, studies
from invjax.commands.studies import Bench, Defaults, Findings, Study
from invjax.images import pixels, sources
from invjax.metrics import naturalness
from invjax.networks import NETWORKS, layers
from invjax.report import tables
from invjax.report.contact_sheet import Cell, Row
from invjax.representations import masks
from invjax.runs import loading, targets, variants
from invjax.runs.errors import Refusal
from invjax.runs.lanes import Group, Lane, Variant
from invjax.runs.records import Record
from invjax.runs.runner import Outcome
from invjax.runs.settings import Settings
from invjax.runs.targets import Target
from invjax.sensitivity import channel_split
from invjax.types import Representation

_SPLIT = flags.DEFINE_enum(
    "channel_split",
    "auto",
    ["auto", "halves", "streams"],
    "Contiguous halves, or by response to colour; auto: halves for grouped networks.",
)

_CUTOFF = 0.125
_MOST_IMAGES = 3
_ALL = "all"
_STATISTICS = ("chroma_fraction", "high_frequency_fraction")
_COLUMNS = (
    "representation",
    "group",
    "channels",
    "lambda_V",
    "relative error %",
    "chroma %",
    "high-frequency %",
    "more chroma",
    "more high-frequency",
    *studies.COUNTS,
    "left out",
)


def load(bench: Bench) -> Bench:
    """Loads the groups, whose channels have to be such that they can be split.

    Raises:
      Refusal: a representation of grey images is to be split by colour.
    """
    groups = loading.load_image_groups(bench.settings)
    loading.refuse_joint(groups)
    for group in groups:
        is_grey = group.targets[0].image_shape[2] != 3
        if is_grey and not by_halves(group.name, bench.options["channel_split"]):
            raise Refusal(
                f"--representations={group.name}: takes grey images, so its channels "
                "cannot be split by colour; networks are accepted, and "
                "--channel_split=halves"
            )
    return bench._replace(groups=groups)


def by_halves(representation: str, channel_split: str) -> bool:
    """Whether channels are split into contiguous halves."""
    if channel_split == "auto":
        return is_grouped(representation)
    return channel_split == "halves"


def is_grouped(representation: str) -> bool:
    """Whether a network, by a layer's name, has convolutions in groups of channels."""
    network = NETWORKS.get(representation.partition("/")[0])
    return network is not None and any(
        isinstance(layer, layers.Conv) and layer.groups > 1
        for _, layer, _ in layers.weighted(network.layers, network.image_shape)
    )


def plan(bench: Bench) -> list[Lane]:
    """The lanes of all groups of channels."""
    photographs: dict[str, np.ndarray] = {}
    known: dict[tuple[str, tuple[str, ...]], list[Variant]] = {}

    def variants_of(group: Group, target: Target) -> list[Variant]:
        others: dict[str, np.ndarray] = {}
        is_halved = by_halves(group.name, bench.options["channel_split"])
        if not is_halved:
            if not photographs:
                photographs.update(
                    {name: sources.sample(name) for name in sources.SAMPLES}
                )
            others = others_than(target, photographs, group.phi, bench.settings)
        key = (group.name, tuple(others))
        if key not in known:
            known[key] = halves(group) if is_halved else by_colour(group, others)
        return known[key]

    return variants.plan(bench.groups, bench.settings, variants_of)


def halves(group: Group) -> list[Variant]:
    """All channels, the first half of them, and the second."""
    shape = group.targets[0].code.shape
    # All channels are a mask as well, so that the three share a compiled program.
    found = {
        _ALL: masks.channel_group(shape, 1, num_groups=1),
        "first": masks.channel_group(shape, 1),
        "second": masks.channel_group(shape, 2),
    }
    return [Variant(name, {"mask": mask}) for name, mask in found.items()]


def by_colour(group: Group, photographs: dict[str, np.ndarray]) -> list[Variant]:
    """All channels, those that respond less to colour alone, and those that do more.

    Args:
      group: the group whose channels are split.
      photographs: photographs by name, prepared for the representation.

    Raises:
      Refusal: codes without places.
    """
    shape = group.targets[0].code.shape
    try:
        found = channel_split.find(group.phi, list(photographs.values()))
    except ValueError as error:
        raise Refusal(f"--representations={group.name}: {error}") from None
    kept = {
        _ALL: masks.channel_group(shape, 1, num_groups=1),
        "form": masks.channels(shape, found.form),
        "colour": masks.channels(shape, found.colour),
    }
    return [Variant(name, {"mask": mask}) for name, mask in kept.items()]


def others_than(
    target: Target,
    photographs: dict[str, np.ndarray],
    phi: Representation,
    settings: Settings,
) -> dict[str, np.ndarray]:
    """Photographs prepared for `phi`, without the target's own."""
    prepared = {
        name: targets.prepare(photograph, phi, settings)
        for name, photograph in photographs.items()
    }
    return {
        name: image
        for name, image in prepared.items()
        if pixels.image_id(image) != target.image_id
    }


def measure(bench: Bench, outcome: Outcome) -> dict[str, Any]:
    """Number of channels of a lane, and statistics of its picture."""
    del bench
    columns = {"channels": num_channels(outcome.lane)}
    if outcome.picture is None:
        return columns | dict.fromkeys(_STATISTICS)
    return columns | statistics(outcome.picture)


def num_channels(lane: Lane) -> int:
    """Number of the code's channels that count in a lane."""
    mask = lane.mask
    return lane.target.code.shape[-1] if mask is None else int(mask.sum())


def statistics(image: np.ndarray) -> dict[str, float]:
    """Fractions of a picture's energy: in its colours, and of its luminance up high."""
    fractions = (
        naturalness.chroma_fraction(image),
        naturalness.high_frequency_fraction(image, _CUTOFF),
    )
    return dict(zip(_STATISTICS, map(float, fractions), strict=True))


def is_shown(bench: Bench, lane: Lane) -> bool:
    """Whether a lane is in the figure: first images at a layer's first lambda_V."""
    first = next(p for p in bench.planned if p.group is lane.group)
    is_first = lane.start == 0 and lane.tv_weight == first.tv_weight
    return is_first and lane.target.name in bench.first_images(_MOST_IMAGES)


def table(findings: Findings) -> list[list[str]]:
    """A row per representation, lambda_V and group of channels; the originals first."""
    bench, rows = findings.bench, []
    for group in bench.groups:
        originals = [
            statistics(target.original)
            for target in group.targets
            if target.original is not None
        ]
        columns = [[row[name] for row in originals] for name in _STATISTICS]
        nothing = tables.NOTHING
        cells = ["original", nothing, nothing, nothing, *_measured(columns)]
        rows.append([group.name, *cells, *[nothing] * 5])
        mine = [r for r in findings.records if r.representation == group.name]
        found = studies.by(mine, "tv_weight", "variant")
        kinds = {
            (lane.tv_weight, lane.variant_name): num_channels(lane)
            for lane in bench.asked
            if lane.group is group
        }
        for (tv_weight, name), num_kept in kinds.items():
            assert name is not None
            some = found.get((tv_weight, name), [])
            others = [
                record
                for record in mine
                if record.tv_weight == tv_weight and record.variant not in (name, _ALL)
            ]
            more = [
                nothing if name == _ALL else more_than(some, others, field)
                for field in _STATISTICS
            ]
            errors = studies.finite(some, "relative_error")
            left_out = variants.num_left_out(group, bench.left_out, name, tv_weight)
            rows.append(
                [
                    group.name,
                    name,
                    str(num_kept),
                    f"{tv_weight:g}",
                    tables.mean_and_deviation(errors, scale=100),
                    *_measured([studies.finite(some, field) for field in _STATISTICS]),
                    *more,
                    *studies.counts(some),
                    str(left_out),
                ]
            )
    return rows


def more_than(records: Sequence[Record], others: Sequence[Record], field: str) -> str:
    """In how many lanes a group has more of a statistic than the other group."""
    theirs = {(record.image, record.start): record.value(field) for record in others}
    pairs = [
        (record.value(field), theirs.get((record.image, record.start)))
        for record in records
    ]
    both = [(mine, other) for mine, other in pairs if None not in (mine, other)]
    return f"{sum(mine > other for mine, other in both)} of {len(both)}"


def figure(findings: Findings) -> list[Row]:
    """A row per image and layer: the original, all channels, and the two groups."""
    names = findings.bench.first_images(_MOST_IMAGES)
    rows: dict[str, list[Cell]] = {}
    for outcome in sorted(findings.shown, key=lambda o: names.index(o.record.image)):
        lane, record = outcome.lane, outcome.record
        label = f"{lane.target.name}, {lane.group.name}"
        if label not in rows:
            rows[label] = []
            if (original := lane.target.original) is not None:
                caption = _caption("original", statistics(original))
                rows[label].append(Cell(original, caption))
        name = f"{record.variant}, {record.value('channels')}"
        caption = _caption(name, record.measured)
        rows[label].append(Cell.found(outcome.picture, caption))
    return [Row(label, cells) for label, cells in rows.items()]


def _caption(name: str, values: Mapping[str, Any]) -> str:
    if values[_STATISTICS[0]] is None:
        return name
    chroma, high = (values[field] for field in _STATISTICS)
    return f"{name}: chroma {chroma:.0%}, high {high:.0%}"


def _measured(columns: Sequence[Sequence[float]]) -> list[str]:
    return [tables.mean_and_deviation(values, scale=100) for values in columns]


STUDY = Study(
    defaults=Defaults(
        images=(
            "sample:abstract,sample:astronaut,sample:chelsea,sample:coffee,"
            "sample:rocket"
        ),
        representations=("alexnet/conv1", "alexnet/pool1", "alexnet/relu2"),
    ),
    columns=_COLUMNS,
    table=table,
    figure=figure,
    measure=measure,
    is_shown=is_shown,
    options=lambda: {"channel_split": _SPLIT.value},
    load=load,
    plan=plan,
)
main = functools.partial(studies.main, STUDY)

if __name__ == "__main__":
    binary.run(main)
