"""Inverts every layer of a network at three lambda_V (CVPR 2015, Figure 6, Table 3).

    python -m experiments.layer_progression --workdir=runs/layers

inverts the four sample photographs at all layers of AlexNet whose weights are at hand
(conv1 to pool5), with lambda_V 0.5, 5 and 50. It takes about half an hour on two cores.
The paper prints errors of 10 to 22 % at the lambda_V that it uses, over 100 other
images and for a network much like AlexNet (CNN-A). Its errors grow with lambda_V, most
in the first layers, and hardly grow with depth. experiments/README.md has our results.

    python -m experiments.layer_progression --workdir=runs/mine --images=photos/ \
        --network=vgg16 --layers=relu1_1,relu3_3,pool5

inverts your own images at three layers of VGG-16.

Writes config.json, metrics.jsonl, reconstructions/, table.csv, table.md (rows at the
lambda_V that presets take are bold), figure.png (the first image at all layers),
figure_stretched.png (the same, every reconstruction stretched to its range) and
curves.png.
"""

import dataclasses
import functools
from collections.abc import Sequence

from absl import flags

from experiments.reproduction import printed
from invjax import files
from invjax.commands import binary, shared_flags, studies
from invjax.commands.studies import Bench, Defaults, Findings, Study
from invjax.images import sources
from invjax.inversion import presets
from invjax.networks import NETWORKS
from invjax.networks.weights import pretrained
from invjax.report import curves, tables
from invjax.report.contact_sheet import Cell, Row
from invjax.report.curves import Curve
from invjax.runs import modules
from invjax.runs.errors import Refusal
from invjax.runs.lanes import Lane
from invjax.runs.runner import Finished
from invjax.runs.settings import Settings

_NETWORK = flags.DEFINE_string(
    "network", "alexnet", "Network whose layers are inverted."
)
_LAYERS = shared_flags.define_layers()

_MOST_COLUMNS = 7
_COLUMNS = (
    "representation",
    "lambda_V",
    "preset's lambda_V",
    "steps",
    "normalised error %",
    "paper's normalised error %",
    "relative error %",
    "SSIM",
    *studies.COUNTS,
    "code zero",
)


def configure(settings: Settings) -> Settings:
    """The settings with the layers that --network and --layers name, or --module."""
    if any(map(modules.is_module, settings.representations)):
        return settings
    names = representations(
        _NETWORK.value, _LAYERS.value, weights_dir=settings.weights_dir
    )
    return dataclasses.replace(settings, representations=names)


def representations(
    network: str, layers: Sequence[str] | None, *, weights_dir: str | None = None
) -> tuple[str, ...]:
    """Names of layers of a network as representations.

    Args:
      network: name of the network.
      layers: names of its layers; None for those whose weights are at hand.
      weights_dir: folder of converted weights; None for the default.

    Raises:
      Refusal: there is no such network or layer.
    """
    if network not in NETWORKS:
        raise Refusal(f"--network={network}: unknown; accepted: {', '.join(NETWORKS)}")
    known = NETWORKS[network].layer_names
    if layers is None:
        at_hand = pretrained.available(NETWORKS[network], weights_dir=weights_dir)
        # Without any, loading the first one says where to get them.
        chosen = [name for name in known if name in at_hand] or list(known)
    else:
        chosen = [name.strip() for name in layers]
        if not chosen or len(set(chosen)) < len(chosen):
            raise Refusal(f"--layers={','.join(layers)}: empty, or names repeat")
        for name in chosen:
            if name not in known:
                raise Refusal(
                    f"--layers={name}: not of {network}, which has {', '.join(known)}"
                )
    return tuple(f"{network}/{name}" for name in chosen)


def is_shown(bench: Bench, lane: Lane) -> bool:
    """Whether a lane is in the figure: the first start of the first image."""
    return lane.start == 0 and lane.target.name in bench.first_images(1)


def table(findings: Findings) -> list[list[str]]:
    """A row per layer and lambda_V: mean and deviation over images and starts."""
    rows = []
    for (name, tv_weight), some in studies.by(
        findings.records, "representation", "tv_weight"
    ).items():
        group = findings.bench.group(name)
        own = presets.tv_weight(group.phi, preset=findings.bench.settings.preset)
        errors = studies.finite(some, "relative_error")
        normalised = studies.finite(some, "normalised_error")
        rows.append(
            [
                name,
                f"{tv_weight:g}",
                "yes" if tv_weight == own else "no",
                str(max(record.num_steps for record in some)),
                tables.mean_and_deviation(normalised, scale=100),
                printed.text(name, tv_weight) or tables.NOTHING,
                tables.mean_and_deviation(errors, scale=100),
                tables.mean_and_deviation(studies.finite(some, "ssim"), digits=2),
                *studies.counts(some),
                str(len(group.skipped)),
            ]
        )
    return rows


def figure(findings: Findings) -> list[Row]:
    """One image: a row per lambda_V and a column per layer, in blocks of columns."""
    shown = findings.shown
    target = shown[0].lane.target
    assert target.original is not None
    rows = [
        Row(
            "original (* marks the lambda_V that presets take)",
            [Cell(target.original, target.name)],
        )
    ]
    names = list(dict.fromkeys(outcome.lane.group.name for outcome in shown))
    weights = list(dict.fromkeys(outcome.lane.tv_weight for outcome in shown))
    for block in range(0, len(names), _MOST_COLUMNS):
        columns = names[block : block + _MOST_COLUMNS]
        for weight in weights:
            cells = [
                _cell(outcome)
                for outcome in shown
                if outcome.lane.tv_weight == weight
                and outcome.lane.group.name in columns
            ]
            rows.append(Row(f"lambda_V {weight:g}", cells))
    return rows


def publish(findings: Findings, folder: files.Path) -> None:
    """Writes curves.png: error by layer, a curve per lambda_V, the paper's dashed."""
    records = findings.records
    layers = list(dict.fromkeys(record.representation for record in records))
    found = studies.by(records, "representation", "tv_weight")
    # One image has no code scale to normalise by.
    field = "normalised_error"
    if not studies.finite(records, field):
        field = "relative_error"
    drawn = []
    weights = dict.fromkeys(record.tv_weight for record in records)
    for number, weight in enumerate(weights):
        values = [studies.finite(found.get((n, weight), []), field) for n in layers]
        means, deviations = studies.means(values, scale=100)
        drawn.append(Curve(f"lambda_V {weight:g}", means, deviations, number))
        words = [printed.text(name, weight) for name in layers]
        if any(words) and field == "normalised_error":
            theirs = [float(w.split()[0]) if w else float("nan") for w in words]
            label = f"lambda_V {weight:g}, the paper's"
            drawn.append(Curve(label, theirs, None, number, is_dashed=True))
    places = [name.partition("/")[2] for name in layers]
    ylabel = f"{field.replace('_', ' ')}, %"
    curves.write(folder / "curves.png", places, drawn, ylabel=ylabel)


def bold(rows: Sequence[Sequence[str]]) -> list[int]:
    """Numbers of the rows at the lambda_V that presets take."""
    return studies.preset_rows(_COLUMNS, rows)


def _cell(outcome: Finished) -> Cell:
    layer = outcome.lane.group.name.partition("/")[2]
    error = outcome.record.relative_error
    caption = f"{layer}: " + ("failed" if error is None else f"error {error:.1%}")
    own = presets.tv_weight(outcome.lane.group.phi, preset=outcome.record.preset)
    if outcome.lane.tv_weight == own:
        caption += " *"
    return Cell.found(outcome.picture, caption)


STUDY = Study(
    defaults=Defaults(
        images=",".join(f"sample:{name}" for name in sources.SAMPLES),
        # Replaced by --network and --layers.
        representations=("alexnet/relu1",),
        tv_weight=studies.PAPER_TV_WEIGHTS,
    ),
    columns=_COLUMNS,
    table=table,
    figure=figure,
    is_shown=is_shown,
    publish=publish,
    bold=bold,
    refused_flags={"representations": "this study has --network and --layers"},
    configure=configure,
)
main = functools.partial(studies.main, STUDY)

if __name__ == "__main__":
    binary.run(main)
