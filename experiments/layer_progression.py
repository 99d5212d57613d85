"""Figure 6 and Table 3 of CVPR 2015: every layer of a network, at three lambda_V.

    python -m experiments.layer_progression --workdir=runs/layers

inverts the four sample photographs at all layers of AlexNet whose weights are at hand
(conv1 to pool5) with lambda_V 0.5, 5 and 50: about half an hour on two cores. The paper
prints errors of 10 to 22 % over 100 other images at the lambda_V it uses, of a network
much like AlexNet (CNN-A); there they grow with lambda_V, most in the first layers, and
hardly with depth. See experiments/README.md for what comes out here.

    python -m experiments.layer_progression --workdir=runs/mine --images=photos/ \
        --network=vgg16 --layers=relu1_1,relu3_3,pool5

Writes config.json, metrics.jsonl, reconstructions/, table.csv, table.md (in bold: the
lambda_V that presets take), figure.png (the first image at all layers) and curves.png.
"""

import dataclasses
import pathlib
from collections.abc import Sequence

from absl import flags

from experiments import studies
from experiments.reproduction import printed
from experiments.studies import Finished
from invjax.commands import binary, shared_flags
from invjax.images import sources
from invjax.inversion import presets
from invjax.networks import NETWORKS
from invjax.networks.weights import pretrained
from invjax.report import curves
from invjax.report.contact_sheet import Cell, Row
from invjax.report.curves import Curve
from invjax.runs import lanes, loading, runner
from invjax.runs.errors import Refusal
from invjax.runs.lanes import Group, Outcome
from invjax.runs.settings import Request

_NETWORK = flags.DEFINE_string("network", "alexnet", "Whose layers are inverted.")

_IMAGES = ",".join(f"sample:{name}" for name in sources.SAMPLES)
_MOST_COLUMNS = 7
_HEADER = (
    "representation",
    "lambda_V",
    "preset's lambda_V",
    "steps",
    "normalised error %",
    "paper's normalised error %",
    "relative error %",
    "SSIM",
    "failed",
    "code zero",
)


def main() -> None:
    if flags.FLAGS["representations"].present:
        raise Refusal("--representations: this study has --network and --layers")
    names = representations(_NETWORK.value, shared_flags.LAYERS.value)
    request = shared_flags.from_flags(images=_IMAGES, representations=names)
    config = request.settings
    if config.tv_weight is None:
        config = dataclasses.replace(config, tv_weight=studies.PAPER_TV_WEIGHTS)
    request = dataclasses.replace(request, settings=config)
    if request.dry_run:
        planned = lanes.plan(studies.load_groups(config), config)
        runner.print_estimates(config, planned=planned)
    else:
        run(request)


def representations(network: str, layers: Sequence[str] | None) -> tuple[str, ...]:
    """Names of layers of a network; by default of those whose weights are at hand.

    Raises:
      Refusal: there is no such network or layer.
    """
    if network not in NETWORKS:
        raise Refusal(f"--network={network}: unknown; accepted: {', '.join(NETWORKS)}")
    known = NETWORKS[network].layer_names
    if layers is None:
        at_hand = pretrained.available(
            NETWORKS[network], weights_dir=binary.WEIGHTS_DIR.value
        )
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


def run(request: Request) -> None:
    """Inverts all layers at all lambdas, and writes table, figure and curves.

    Raises:
      binary.Refusal and the package's own errors: bad input; nothing was written.
    """
    config = request.settings
    groups = studies.load_groups(config)
    first = studies.first_images(groups, 1)
    finished = Finished(lambda lane: lane.start == 0 and lane.target.name in first)

    def write(folder: pathlib.Path) -> None:
        rows = table_rows(groups, finished.records)
        bold = studies.bold_presets(_HEADER, rows)
        studies.publish(folder, _HEADER, rows, figure_rows(finished.shown), bold=bold)
        write_curves(folder / "curves.png", finished.records)

    studies.run(
        request,
        groups,
        [(config, lanes.plan(groups, config))],
        collect=finished.collect,
        write=write,
        judge=loading.load_judge(groups, config),
    )


def table_rows(groups: Sequence[Group], records: Sequence[dict]) -> list[list[str]]:
    """A row per layer and lambda: mean and deviation over images and starts."""
    group_of = {group.name: group for group in groups}
    rows = []
    for (name, tv_weight), some in studies.by(
        records, "representation", "tv_weight"
    ).items():
        group = group_of[name]
        errors = studies.finite(some, "relative_error")
        normalised = studies.finite(some, "normalised_error")
        rows.append(
            [
                name,
                f"{tv_weight:g}",
                "yes" if tv_weight == presets.tv_weight(group.phi) else "no",
                str(max(record["num_steps"] for record in some)),
                studies.mean_and_deviation(normalised, scale=100),
                printed.text(name, tv_weight) or studies.NOTHING,
                studies.mean_and_deviation(errors, scale=100),
                studies.mean_and_deviation(studies.finite(some, "ssim"), digits=2),
                studies.failures(some),
                str(len(group.skipped)),
            ]
        )
    return rows


def figure_rows(shown: Sequence[Outcome]) -> list[Row]:
    """One image: a row per lambda and a column per layer, in blocks of columns."""
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


def write_curves(path: pathlib.Path, records: Sequence[dict]) -> None:
    """Normalised error by layer, a curve per lambda, the paper's dashed."""
    layers = list(dict.fromkeys(record["representation"] for record in records))
    found = studies.by(records, "representation", "tv_weight")
    # One image has no spread of codes to normalise by.
    field = "normalised_error"
    if not studies.finite(records, field):
        field = "relative_error"
    drawn = []
    weights = dict.fromkeys(record["tv_weight"] for record in records)
    for number, weight in enumerate(weights):
        values = [studies.finite(found.get((n, weight), []), field) for n in layers]
        means, deviations = studies.means(values, scale=100)
        label = f"lambda_V {weight:g}"
        drawn.append(Curve(label, means, deviations, number))
        words = [printed.text(name, weight) for name in layers]
        if any(words) and field == "normalised_error":
            theirs = [float(w.split()[0]) if w else float("nan") for w in words]
            label = f"lambda_V {weight:g}, the paper's"
            drawn.append(Curve(label, theirs, None, number, is_dashed=True))
    places = [name.partition("/")[2] for name in layers]
    ylabel = f"{field.replace('_', ' ')}, %"
    curves.write(path, places, drawn, ylabel=ylabel)


def _cell(outcome: Outcome) -> Cell:
    layer = outcome.lane.group.name.partition("/")[2]
    error = outcome.record["relative_error"]
    caption = f"{layer}: " + ("failed" if error is None else f"error {error:.1%}")
    if outcome.lane.tv_weight == presets.tv_weight(outcome.lane.group.phi):
        caption += " *"
    return Cell(studies.picture(outcome), caption)


if __name__ == "__main__":
    binary.run(main)
