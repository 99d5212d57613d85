"""Activation maximisation of IJCV 2016: what excites a unit, or a class, most.

    python -m experiments.maximise --workdir=runs/maximise

seeks pictures for the first six channels of four layers of AlexNet, two starts each,
by the paper's method (300 steps, jitter, bounded range): about two minutes on two
cores. Edges and bars become textures, then parts of objects, such as a cat's face for
conv5's channel 0. Activations are about 3 times the photographs' largest at conv1, 2 to
10 times at conv2 and 9 to 50 times at conv5; two starts find much the same.

    python -m experiments.maximise --workdir=runs/classes \
        --representations=efficientnet_lite0/logits --num_starts=1 \
        --units='black swan,tree frog,cheeseburger'

seeks pictures of classes, a minute each: faint, and in the figure's stretched contrast
red beaks, toes at the border, a bun, all called by their names by the network itself.
--units takes channels and, of a last layer, names.

The direction w is one-hot at the central place, of the released code's size 10,000 /
field^2 / (largest activation of the channel on photographs). Those are the ones of
--images here, four by default; the paper has 1,281 of ImageNet's training set. A few
photographs excite a channel less than many do, so that the data term weighs more here
and pictures are stronger in contrast. Where a layer has no places the largest of all
its units is taken (`units.scale`). The released code puts 25 channels into one picture;
here each has a picture of its own, of the size of a mosaic's cell. It divides by the
largest activation of another channel than the one it maximises; here it is the same.

`--preset=fast` minimises the paper's objective by our solver; there R_alpha counts
channels singly. The other presets are refused.

Writes config.json, metrics.jsonl (a line per picture: activation, the largest on the
photographs, their ratio, and for classes what EfficientNet-Lite0 calls the picture),
reconstructions/, table.csv, table.md and figure.png, whose contrast is stretched.
"""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from absl import flags

from experiments import ascents, studies
from experiments.ascents import Ascent, Outcome
from invjax import callables
from invjax.commands import binary, shared_flags
from invjax.images import pixels, sources
from invjax.inversion import objective
from invjax.metrics.labels import Judge, guesses, logits
from invjax.report import contact_sheet
from invjax.report.contact_sheet import Cell, Row
from invjax.representations.cnn import CnnRepresentation
from invjax.runs import loading, targets
from invjax.runs.errors import Refusal
from invjax.runs.folder import RunFolder
from invjax.runs.settings import Request, Settings
from invjax.sensitivity import neurons
from invjax.sensitivity.neurons import Peak, Unit

_UNITS = flags.DEFINE_list(
    "units",
    None,
    "Comma-separated channels from 0, or names of classes of a classifier's last layer "
    "(default: the first six; of classes, the paper's seven).",
)

_IMAGES = ",".join(f"sample:{name}" for name in sources.SAMPLES)
_REPRESENTATIONS = ("alexnet/conv1", "alexnet/conv2", "alexnet/conv3", "alexnet/conv5")
_NUM_STARTS = 2
_HEADER = (
    "representation",
    "unit",
    "starts",
    "largest on photographs",
    "activation",
    "times the photographs'",
    "activation as 8 bit",
    "called by its name",
    "failed",
)


class Layer(NamedTuple):
    """A layer, what is sought of it, and how photographs excite its units."""

    phi: CnnRepresentation
    side: int
    units: list[Unit]
    peaks: list[Peak]


def main() -> None:
    shared_flags.refuse_others(
        *("workdir", "overwrite", "dry_run", "smoke", "seed", "images"),
        *("representations", "preset", "num_steps", "num_starts", "image_size"),
        *("resize", "batch_size", "compute_dtype", "save_arrays"),
    )
    request = shared_flags.from_flags(
        images=_IMAGES,
        representations=_REPRESENTATIONS,
        num_starts=_NUM_STARTS,
        preset="ijcv2016",
    )
    run(request, None if _UNITS.value is None else tuple(_UNITS.value))


def run(request: Request, words: tuple[str, ...] | None = None) -> None:
    """Seeks the pictures and writes table and figure; with --dry_run says how long.

    Args:
      request: of the user.
      words: of --units.

    Raises:
      Refusal and the package's own errors: bad input; nothing was written.
    """
    config = request.settings
    ascents.check_preset(config.preset)
    layers = load(config, words)
    planned = plan(layers, config)
    data_term = objective.activation_maximisation
    if request.dry_run:
        ascents.print_estimates(planned, config, data_term=data_term)
        return
    judge = None
    if any(neurons.is_classifier(layer.phi) for layer in layers):
        judge = ascents.load_judge(config)
    assert request.workdir is not None
    folder = RunFolder.claim(request.workdir, overwrite=request.overwrite)
    asked = {
        "units": {layer.phi.name: [u.name for u in layer.units] for layer in layers}
    }
    digests = {layer.phi.name: layer.phi.weights_digest for layer in layers}
    folder.write_config(config.as_json() | asked, digests)

    def write(finished: Sequence[Outcome]) -> None:
        rows = table_rows([outcome.record for outcome in finished])
        studies.publish(folder.path, _HEADER, rows, figure_rows(layers, finished))

    ascents.run(
        planned,
        config,
        folder,
        data_term=data_term,
        measure=functools.partial(measure, judge),
        write=write,
    )


def load(config: Settings, words: tuple[str, ...] | None) -> list[Layer]:
    """The layers of --representations with their units and photographs' responses.

    Raises:
      Refusal and the package's own errors: bad input.
    """
    phis = []
    for name in config.representations:
        phi = loading.load_representation(name, config)
        if not isinstance(phi, CnnRepresentation):
            raise Refusal(
                f"--representations={name}: it has no units to maximise; layers of "
                "networks, NETWORK/LAYER, are accepted"
            )
        phis.append(phi)
    # At the network's own size whatever that of the pictures is.
    whole = dataclasses.replace(config, image_size=None)
    photographs = targets.load_images(phis, whole)
    layers = []
    for phi in phis:
        found = neurons.parse(words, phi)
        side = config.image_size or neurons.image_side(phi)
        try:
            callables.code_shape(phi, (side, side, 3))
        except ValueError as error:
            raise Refusal(f"--image_size={side}: {error}") from None
        seen = photographs[targets.preparation(phi, whole)]
        layers.append(Layer(phi, side, found, neurons.peaks(phi, seen)))
    return layers


def plan(layers: Sequence[Layer], config: Settings) -> list[Ascent]:
    """Every picture of a run: layer by layer, unit by unit, start by start."""
    planned = []
    for phi, side, sought, peaks in layers:
        has_places = len(phi.geometry.shape) == 3
        for unit in sought:
            scale = neurons.scale(peaks, unit.channel, has_places=has_places)
            folder = f"unit_{unit.channel:04d}/{phi.name.replace('/', '_')}"
            facts = {
                "representation": phi.name,
                "unit": unit.name,
                "channel": unit.channel,
                "image_size": side,
                "photographs_largest": peaks[unit.channel].activation,
                "scale": scale,
            }
            planned += [
                Ascent(
                    phi=phi,
                    code=neurons.direction(phi, unit, side, scale),
                    image_shape=(side, side, 3),
                    initial=None,
                    start=start,
                    facts=facts,
                    path=f"{folder}/start_{start:03d}",
                )
                for start in range(config.num_starts)
            ]
    return planned[:2] if config.smoke else planned


def measure(
    judge: Judge | None,
    ascent: Ascent,
    image: np.ndarray,
    code: np.ndarray,
) -> dict[str, Any]:
    """What a picture reaches: as optimised, as it is written, and by name.

    Args:
      judge: of classes; None for no names.
      ascent: of the picture.
      image: [h, w, 3], not clipped.
      code: of the image.
    """
    facts = ascent.facts
    place = neurons.place(code.shape, facts["channel"])
    written = pixels.quantise(image).astype(np.float32) / np.float32(255)
    label = probability = None
    assert isinstance(ascent.phi, CnnRepresentation)
    if judge is not None and neurons.is_classifier(ascent.phi):
        (row,) = logits(judge, [image])
        label, probability = guesses(row, count=1)[0]
    activation, largest = float(code[place]), facts["photographs_largest"]
    return {
        "activation": activation,
        "relative_activation": activation / largest if largest > 0 else None,
        "activation_written": float(
            np.asarray(callables.encode(ascent.phi, written))[place]
        ),
        "label": label,
        "label_probability": probability,
    }


def table_rows(records: Sequence[dict[str, Any]]) -> list[list[str]]:
    """A row per unit: means and deviations over its starts."""
    groups: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for record in records:
        key = (record["representation"], record["unit"])
        groups.setdefault(key, []).append(record)
    rows = []
    for (name, unit), mine in groups.items():
        done = [record for record in mine if record["status"] != "failed"]
        labels = [r["label"] for r in done if r["label"] is not None]
        rows.append(
            [
                name,
                unit,
                str(len(mine)),
                f"{mine[0]['photographs_largest']:.2f}",
                _mean(done, "activation"),
                _mean(done, "relative_activation"),
                _mean(done, "activation_written"),
                f"{labels.count(unit)} of {len(labels)}" if labels else "–",
                f"{len(mine) - len(done)} of {len(mine)}",
            ]
        )
    return rows


def figure_rows(layers: Sequence[Layer], finished: Sequence[Outcome]) -> list[Row]:
    """Of each layer where photographs excite its units most, and the pictures."""
    rows = []
    for phi, side, sought, peaks in layers:
        mine = [one for one in finished if one.ascent.phi is phi]
        if not mine:
            continue
        best = [(unit, peaks[unit.channel]) for unit in sought]
        cells = [
            Cell(peak.patch, f"{unit.name}: {peak.activation:.1f} ({peak.image})")
            for unit, peak in best
        ]
        rows.append(Row(f"{phi.name}: largest on photographs", cells))
        for start in sorted({one.ascent.start for one in mine}):
            cells = [_cell(one) for one in mine if one.ascent.start == start]
            label = f"{phi.name}: start {start}, {side} px"
            rows.append(Row(label, cells))
    return rows


def _cell(outcome: Outcome) -> Cell:
    record = outcome.record
    if record["status"] == "failed":
        return Cell(None, record["unit"])
    caption = f"{record['unit']}: {record['activation']:.1f}"
    return Cell(contact_sheet.stretched(outcome.image), caption)


def _mean(records: Sequence[dict[str, Any]], field: str) -> str:
    values = [record[field] for record in records if record[field] is not None]
    if not values:
        return "–"
    return f"{np.mean(values):.1f} ± {np.std(values):.1f}"


if __name__ == "__main__":
    binary.run(main)
