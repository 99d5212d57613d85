"""Figure 10 of the paper: what two groups of a layer's channels know of an image.

    python -m experiments.channel_groups --workdir=runs/channel_groups

inverts three layers of AlexNet for four sample photographs and an abstract picture,
from all channels and from each of two groups alone: about three minutes on two cores.
At conv1 the group that responds to form brings back more high frequencies and less
colour than the other for every picture, as the paper has it; by relu2 both bring back
both.

The paper's network has two streams of filters, and its groups are the first and the
second half of the channels. So they are here for networks with grouped convolutions
(--representations=caffenet/conv1,caffenet/norm1,caffenet/norm2, with weights of your
own). The channels of the others are split into equal halves by how much they respond to
colour alone (`representations.streams`), as measured on the sample photographs without
the one inverted: "form" has those that respond less. --channel_split=halves takes the
contiguous halves there as well, for comparison.

Writes config.json, metrics.jsonl, reconstructions/, table.csv, table.md and figure.png.
In the table, means and deviations over lanes, of the reconstructions:

    chroma          share of the energy that is in the colours
    high-frequency  share of the luminance's energy above 0.125 cycles per pixel
    more than the other group: in how many lanes, of each of the two
"""

import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from absl import flags

from experiments import studies
from experiments.studies import Finished
from invjax import identity
from invjax.commands import binary, shared_flags
from invjax.images import sources
from invjax.metrics import naturalness
from invjax.networks import NETWORKS, layers
from invjax.networks.layers import Conv
from invjax.report.contact_sheet import Cell, Row
from invjax.representations.masks import channel_group, channels
from invjax.runs import loading, runner, targets, variants
from invjax.runs.errors import Refusal
from invjax.runs.lanes import Group, Lane, Outcome, Variant
from invjax.runs.records import mask_of
from invjax.runs.settings import Request, Settings
from invjax.runs.targets import Target
from invjax.sensitivity.channel_split import find
from invjax.types import Representation

_SPLIT = flags.DEFINE_enum(
    "channel_split",
    "auto",
    ["auto", "halves", "streams"],
    "Contiguous halves, or by response to colour; auto: halves for grouped networks.",
)

_IMAGES = "sample:abstract,sample:astronaut,sample:chelsea,sample:coffee,sample:rocket"
_REPRESENTATIONS = ("alexnet/conv1", "alexnet/pool1", "alexnet/relu2")
_CUTOFF = 0.125
_MOST_IMAGES = 3
_ALL = "all"
_STATISTICS = ("chroma_share", "high_frequency_share")
_HEADER = (
    "representation",
    "group",
    "channels",
    "lambda_V",
    "relative error %",
    "chroma %",
    "high-frequency %",
    "more chroma",
    "more high-frequency",
    "failed",
    "left out",
)

VariantsOf = Callable[[Group, Target], list[Variant]]


def main() -> None:
    run(
        shared_flags.from_flags(images=_IMAGES, representations=_REPRESENTATIONS),
        _SPLIT.value,
    )


def run(request: Request, channel_split: str) -> None:
    """Inverts the groups and writes table and figure; with --dry_run says how long.

    Raises:
      binary.Refusal and the package's own errors: bad input; nothing was written.
    """
    config = request.settings
    groups = studies.load_groups(config)
    everything = variants.plan(groups, config, splitter(config, channel_split))
    planned, dead = variants.without_dead(everything)
    if request.dry_run:
        runner.print_estimates(config, planned=planned)
        return
    names = studies.first_images(groups, _MOST_IMAGES)
    weights = {lane.group.name: lane.tv_weight for lane in reversed(planned)}
    finished = Finished(
        lambda lane: (
            lane.start == 0
            and lane.target.name in names
            and lane.tv_weight == weights[lane.group.name]
        )
    )

    def write(folder: pathlib.Path) -> None:
        rows = table_rows(groups, everything, finished.records, dead)
        figure = figure_rows(names, finished.shown) if finished.shown else []
        studies.publish(folder, _HEADER, rows, figure)

    studies.run(
        request,
        groups,
        [(config, planned)],
        collect=finished.collect,
        write=write,
        judge=loading.load_judge(groups, config),
        measure=measure,
        recorded={"channel_split": channel_split},
    )


def splitter(config: Settings, channel_split: str) -> VariantsOf:
    """What says which groups a target's channels are in; see the top of this file."""
    photographs: dict[str, np.ndarray] = {}
    known: dict[tuple[str, tuple[str, ...]], list[Variant]] = {}

    def variants_of(group: Group, target: Target) -> list[Variant]:
        if channel_split == "auto":
            by_halves = is_grouped(group.name)
        else:
            by_halves = channel_split == "halves"
        others: dict[str, np.ndarray] = {}
        if not by_halves:
            if not photographs:
                photographs.update(
                    {name: sources.sample(name) for name in sources.SAMPLES}
                )
            others = others_than(target, photographs, group.phi, config)
        key = (group.name, tuple(others))
        if key not in known:
            known[key] = halves(group) if by_halves else two_streams(group, others)
        return known[key]

    return variants_of


def is_grouped(representation: str) -> bool:
    """Whether a network, by a layer's name, has convolutions in groups of channels."""
    network = NETWORKS.get(representation.partition("/")[0])
    return network is not None and any(
        isinstance(layer, Conv) and layer.groups > 1
        for _, layer, _ in layers.weighted(network.layers, network.image_shape)
    )


def halves(group: Group) -> list[Variant]:
    """All channels, the first half of them, and the second."""
    shape = group.targets[0].code.shape
    # All channels are a mask as well, so that the three share a compiled program.
    masks = {
        _ALL: channel_group(shape, 1, num_groups=1),
        "first": channel_group(shape, 1),
        "second": channel_group(shape, 2),
    }
    return [Variant(name, {"mask": mask}) for name, mask in masks.items()]


def two_streams(group: Group, photographs: dict[str, np.ndarray]) -> list[Variant]:
    """All channels, those that respond less to colour alone, and those that do more.

    Args:
      group: what to split.
      photographs: by name, as the representation takes them.

    Raises:
      Refusal: a representation of grey images, or codes without places.
    """
    shape = group.targets[0].code.shape
    if group.targets[0].image_shape[2] != 3:
        raise Refusal(
            f"--representations={group.name}: sees no colour to split its channels by; "
            "networks are accepted, and --channel_split=halves"
        )
    try:
        found = find(group.phi, list(photographs.values()))
    except ValueError as error:
        raise Refusal(f"--representations={group.name}: {error}") from None
    masks = {
        _ALL: channel_group(shape, 1, num_groups=1),
        "form": channels(shape, found.form),
        "colour": channels(shape, found.colour),
    }
    return [Variant(name, {"mask": mask}) for name, mask in masks.items()]


def others_than(
    target: Target,
    photographs: dict[str, np.ndarray],
    phi: Representation,
    config: Settings,
) -> dict[str, np.ndarray]:
    """Photographs as `phi` takes them, without the target's own."""
    prepared = {
        name: targets.prepare(photograph, phi, config)
        for name, photograph in photographs.items()
    }
    return {
        name: image
        for name, image in prepared.items()
        if identity.image_id(image) != target.image_id
    }


def measure(outcome: Outcome) -> dict[str, Any]:
    """What joins a lane's record: its number of channels, its picture's statistics."""
    place = {"channels": num_channels(outcome.lane)}
    if outcome.record["status"] == "failed":
        return place | dict.fromkeys(_STATISTICS)
    return place | statistics(outcome.image)


def num_channels(lane: Lane) -> int:
    """How many of the code's channels count in a lane."""
    mask = mask_of(lane)
    return lane.target.code.shape[-1] if mask is None else int(mask.sum())


def statistics(image: np.ndarray) -> dict[str, float]:
    """Shares of a picture's energy in its colours, and of its luminance's up high."""
    shares = (
        naturalness.chroma_share(image),
        naturalness.high_frequency_share(image, _CUTOFF),
    )
    return dict(zip(_STATISTICS, map(float, shares), strict=True))


def table_rows(
    groups: Sequence[Group],
    everything: Sequence[Lane],
    records: Sequence[dict[str, Any]],
    dead: Sequence[Lane],
) -> list[list[str]]:
    """A row per representation, lambda and group of channels; the originals first."""
    rows = []
    for group in groups:
        originals = [
            {"status": "original", **statistics(target.original)}
            for target in group.targets
            if target.original is not None
        ]
        nothing = studies.NOTHING
        cells = ["original", nothing, nothing, nothing, *_measured(originals)]
        rows.append([group.name, *cells, *[nothing] * 4])
        mine = [record for record in records if record["representation"] == group.name]
        found = studies.by(mine, "tv_weight", "variant")
        kinds = {
            (lane.tv_weight, variants.name_of(lane)): num_channels(lane)
            for lane in everything
            if lane.group is group
        }
        for (tv_weight, name), num_kept in kinds.items():
            some = found.get((tv_weight, name), [])
            others = [
                record
                for record in mine
                if record["tv_weight"] == tv_weight
                and record["variant"] not in (name, _ALL)
            ]
            more = [
                nothing if name == _ALL else more_than(some, others, field)
                for field in _STATISTICS
            ]
            errors = studies.finite(some, "relative_error")
            left_out = variants.num_left_out(group, dead, name, tv_weight)
            rows.append(
                [
                    group.name,
                    name,
                    str(num_kept),
                    f"{tv_weight:g}",
                    studies.mean_and_deviation(errors, scale=100),
                    *_measured(some),
                    *more,
                    studies.failures(some),
                    str(left_out),
                ]
            )
    return rows


def more_than(
    records: Sequence[dict[str, Any]], others: Sequence[dict[str, Any]], field: str
) -> str:
    """In how many lanes a group has more of a statistic than the other group."""
    theirs = {(record["image"], record["start"]): record[field] for record in others}
    pairs = [
        (record[field], theirs.get((record["image"], record["start"])))
        for record in records
    ]
    both = [(mine, other) for mine, other in pairs if None not in (mine, other)]
    return f"{sum(mine > other for mine, other in both)} of {len(both)}"


def figure_rows(names: Sequence[str], shown: Sequence[Outcome]) -> list[Row]:
    """A row per image and layer: the original, all channels, and the two groups."""
    rows: dict[str, list[Cell]] = {}
    for outcome in sorted(shown, key=lambda o: names.index(o.lane.target.name)):
        lane, record = outcome.lane, outcome.record
        label = f"{lane.target.name}, {lane.group.name}"
        if label not in rows:
            rows[label] = []
            if (original := lane.target.original) is not None:
                caption = _caption("original", statistics(original))
                rows[label].append(Cell(original, caption))
        caption = _caption(f"{record['variant']}, {record['channels']}", record)
        rows[label].append(Cell(studies.picture(outcome), caption))
    return [Row(label, cells) for label, cells in rows.items()]


def _caption(name: str, values: dict[str, Any]) -> str:
    if values[_STATISTICS[0]] is None:
        return name
    chroma, high = (values[field] for field in _STATISTICS)
    return f"{name}: chroma {chroma:.0%}, high {high:.0%}"


def _measured(records: Sequence[dict[str, Any]]) -> list[str]:
    return [
        studies.mean_and_deviation(studies.finite(records, field), scale=100)
        for field in _STATISTICS
    ]


if __name__ == "__main__":
    binary.run(main)
