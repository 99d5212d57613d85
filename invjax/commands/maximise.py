"""Finds pictures that excite a neuron, or a class, most.

    invjax maximise --workdir=runs/maximise

optimises pictures for the first six channels of four layers of AlexNet, with two starts
each, by the method of IJCV 2016 (300 steps, jitter, bounded range). It takes about two
minutes on two cores. With depth, edges and bars become textures, then parts of objects,
such as a cat's face for conv5's channel 0. Activations are about 3 times the
photographs' largest at conv1, 2 to 10 times at conv2 and 9 to 50 times at conv5. Two
starts find much the same picture.

    invjax maximise --workdir=runs/classes \\
        --representations=efficientnet_lite0/logits --num_starts=1 \\
        --units='black swan,tree frog,cheeseburger'

optimises pictures of classes, a minute each. They are faint; the figure, where each is
stretched to its range, shows red beaks, toes at the border, and a bun. The network
itself gives all of them the names of their classes; EfficientNet-Lite1, which the table
asks, calls the swan a vault and the others by their names. --units takes channel
numbers and, for a last layer, names of classes.

    invjax maximise --workdir=runs/natural --preset=natural \\
        --representations=efficientnet_lite0/logits --num_starts=1 \\
        --units='tree frog,flamingo,cheeseburger'

shows the network random views of each picture, and takes a twentieth of the paper's
regularisers: two flamingos by the water, a frog beneath a leaf, a cheeseburger.

The direction w is one-hot at the central place. Its value is that of the released code,
10,000 / field^2 / (largest activation of the channel on photographs). Here these
photographs are those of --images, four by default; the paper has 1,281 of ImageNet's
training set. A few photographs excite a channel less than many do, so that the data
term weighs more here and pictures are stronger in contrast. For a layer without places,
the largest activation of all its neurons is taken (`invjax.sensitivity.neurons.scale`).
The released code puts 25 channels into one picture; here each has a picture of its own,
of the size of a mosaic's cell. The released code divides by the largest activation of
another channel than the one it maximises; here it is the same channel.

`--preset=fast` minimises the paper's objective by our solver, except that R_alpha there
takes every channel by itself. `--preset=natural` is for deep layers. The other presets
are refused.

Noise may switch a neuron behind ReLUs off, so that nothing leads from it to a picture
that excites it (`dead_start`). Such a picture, and any whose activation is not above 0
and above that of the noise, is no result: it is "not excited" in table and figure and
has `is_excited` false. `--dead_relu=leaky` leaves such noise with a leaky derivative;
`--dead_relu=restart` draws it anew, which seldom helps at deep layers. A layer before
its ReLU, such as conv5 in place of relu5, hardly has such starts.

Writes config.json, metrics.jsonl (a line per picture: its activation, that of the noise
it began at, the largest on the photographs, their ratio, and for classes the label that
another network gives it), reconstructions/, table.csv, table.md and figure.png, where
each picture is stretched to its range; figure_clipped.png has them clipped to [0, 1].
That network, `classifier` in metrics.jsonl, is EfficientNet-Lite0, and Lite1 for the
classes of Lite0; --classifier names another one.
"""

import dataclasses
import functools
from typing import Any, NamedTuple

import numpy as np
from absl import flags

from invjax import callables, identity
from invjax.commands import binary, shared_flags, studies
from invjax.commands.studies import Bench, Defaults, Findings, Study
from invjax.images import pixels, sources
from invjax.inversion import objective, presets
from invjax.report import tables
from invjax.report.contact_sheet import Cell, Row
from invjax.representations.cnn import CnnRepresentation
from invjax.runs import lanes, loading, runner, targets
from invjax.runs.classifiers import Classifiers
from invjax.runs.errors import Refusal
from invjax.runs.lanes import Group, Lane, Variant
from invjax.runs.runner import Finished, Outcome
from invjax.runs.targets import Target
from invjax.sensitivity import neurons
from invjax.sensitivity.neurons import Neuron, Peak

_UNITS = flags.DEFINE_list(
    "units",
    None,
    "Comma-separated channels from 0, or names of classes of a classifier's last layer "
    "(default: the first six; of classes, the paper's seven).",
)

shared_flags.define_classifier()

_COLUMNS = (
    "representation",
    "unit",
    "starts",
    "largest on photographs",
    "activation",
    "times the photographs'",
    "activation as 8 bit",
    "called by its name",
    "not excited",
    *studies.COUNTS,
)


class Layer(NamedTuple):
    """A layer whose neurons are to be excited.

    Attributes:
      phi: the representation.
      side: side of the pictures in pixels.
      peaks: how photographs excite each channel.
      neurons: the neurons by the name of their target.
    """

    phi: CnnRepresentation
    side: int
    peaks: list[Peak]
    neurons: dict[str, Neuron]


class Tools(NamedTuple):
    """What the study needs.

    Attributes:
      layers: the layers by name.
      classifiers: what names pictures of classes; None before it is loaded.
    """

    layers: dict[str, Layer]
    classifiers: Classifiers | None = None


def load(bench: Bench) -> Bench:
    """Loads the layers, and a target for each neuron: the direction to maximise.

    Raises:
      Refusal and the errors of `runs.errors`: bad input.
    """
    settings, words = bench.settings, bench.options["units"]
    phis = [
        loading.load_network_layer(name, settings) for name in settings.representations
    ]
    # Photographs have the network's own size whatever that of the pictures is.
    whole = dataclasses.replace(settings, image_size=None)
    photographs = targets.load_images(phis, whole)
    layers, groups = {}, []
    for phi in phis:
        sought = _neurons(words, phi)
        side = settings.image_size or neurons.image_side(phi)
        try:
            callables.code_shape(phi, (side, side, 3))
        except ValueError as error:
            raise Refusal(f"--image_size={side}: {error}") from None
        exact = lanes.in_float32(phi)
        assert isinstance(exact, CnnRepresentation)
        prepared = photographs.prepared[targets.preparation(phi, whole)]
        peaks = neurons.peaks(exact, prepared)
        found = {f"unit_{neuron.channel:04d}": neuron for neuron in sought}
        layer = layers[phi.name] = Layer(phi, side, peaks, found)
        wanted = [_target(layer, name) for name in found]
        group = Group(phi.name, phi, wanted, code_scale=float("nan"))
        groups.append(group._replace(unread=photographs.skipped))
    names = {
        name: [neuron.name for neuron in layer.neurons.values()]
        for name, layer in layers.items()
    }
    return bench._replace(groups=groups, options={"units": names}, tools=Tools(layers))


def load_tools(bench: Bench) -> Tools:
    """Adds classifiers for the layers whose neurons are classes."""
    of_classes = [
        group
        for group in bench.groups
        if neurons.is_classifier(bench.tools.layers[group.name].phi)
    ]
    named = bench.settings.classifier
    if named is not None and not of_classes:
        raise Refusal(
            f"--classifier={named}: it names pictures of classes, and none of the "
            "representations is a network's last layer; leave it out"
        )
    found = Classifiers(of_classes, bench.settings, words=("classifier",))
    return bench.tools._replace(classifiers=found)


def plan(bench: Bench) -> list[Lane]:
    """Every picture: layer by layer, neuron by neuron, start by start."""
    settings = bench.settings
    planned = []
    for group in bench.groups:
        keywords = presets.linear_term_weights(
            settings.preset, group.targets[0].image_shape
        )
        tv_weight = keywords.pop("tv_weight", presets.tv_weight(group.phi))
        variant = Variant(
            "maximisation",
            {"data_term": objective.activation_maximisation, **keywords},
        )
        planned += [
            Lane(
                group,
                target,
                start,
                tv_weight,
                f"{target.name}/{group.name.replace('/', '_')}/start_{start:03d}",
                variant,
            )
            for target in group.targets
            for start in range(settings.num_starts)
        ]
    return planned[:2] if settings.smoke else planned


def measure(bench: Bench, outcome: Outcome) -> dict[str, Any]:
    """The neuron, and what a picture excites: as optimised, as written, by name."""
    tools, lane = bench.tools, outcome.lane
    layer = tools.layers[lane.group.name]
    neuron = layer.neurons[lane.target.name]
    largest = layer.peaks[neuron.channel].activation
    columns: dict[str, Any] = {
        "unit": neuron.name,
        "channel": neuron.channel,
        "image_size": layer.side,
        "photographs_largest": largest,
        "scale": _scale(layer, neuron),
        "classifier": tools.classifiers.judge(lane.group),
        **dict.fromkeys(_MEASURED),
    }
    if outcome.picture is None:
        return columns
    place = neurons.place(outcome.code.shape, neuron.channel)
    levels = pixels.quantise(np.clip(outcome.picture, 0, 1))
    written = levels.astype(np.float32) / np.float32(255)
    guess = tools.classifiers.guess(lane.group, outcome.picture)
    if guess is not None:
        columns |= {"label": guess.name, "label_probability": guess.probability}
    activation = float(outcome.code[place])
    start = runner.start_image(
        lane, bench.settings, num_restarts=_num_restarts(bench, outcome)
    )
    start_activation = float(runner.encode(lane, start)[place])
    return columns | {
        "activation": activation,
        "start_activation": start_activation,
        "is_excited": activation > max(start_activation, 0.0),
        "relative_activation": activation / largest if largest > 0 else None,
        "activation_written": float(runner.encode(lane, written)[place]),
    }


_MEASURED = (
    "activation",
    "relative_activation",
    "activation_written",
    "start_activation",
    "is_excited",
    "label",
    "label_probability",
)


def remarks(findings: Findings) -> list[str]:
    """A line for each layer of whose pictures some do not excite their neuron."""
    lines = []
    for (name,), mine in studies.by(findings.records, "representation").items():
        without = [record for record in mine if record.value("is_excited") is False]
        if not without:
            continue
        line = (
            f"{name}: {len(without)} of {len(mine)} pictures do not excite their "
            "neuron: its activation is 0, or no more than that of the noise"
        )
        if any(record.dead_start for record in without):
            line += "; --dead_relu=leaky leads out of most dead starts"
        lines.append(line)
    return lines


def table(findings: Findings) -> list[list[str]]:
    """A row per neuron: means and deviations over its starts."""
    rows = []
    for (name, unit), mine in studies.by(
        findings.records, "representation", "unit"
    ).items():
        called = [r.value("label") for r in mine if r.value("label") is not None]
        rows.append(
            [
                name,
                unit,
                str(len(mine)),
                f"{mine[0].value('photographs_largest'):.2f}",
                *(
                    tables.mean_and_deviation(studies.finite(mine, field))
                    for field in _MEASURED[:3]
                ),
                f"{called.count(unit)} of {len(called)}" if called else tables.NOTHING,
                f"{sum(r.value('is_excited') is False for r in mine)} of {len(mine)}",
                *studies.counts(mine),
            ]
        )
    return rows


def figure(findings: Findings) -> list[Row]:
    """Of each layer where photographs excite its neurons most, and the pictures."""
    rows = []
    for name, layer in findings.bench.tools.layers.items():
        mine = [o for o in findings.shown if o.lane.group.name == name]
        if not mine:
            continue
        cells = []
        for neuron in layer.neurons.values():
            peak = layer.peaks[neuron.channel]
            caption = f"{neuron.name}: {peak.activation:.1f} ({peak.image})"
            cells.append(Cell(peak.patch, caption))
        rows.append(Row(f"{name}: largest on photographs", cells))
        for start in sorted({outcome.lane.start for outcome in mine}):
            cells = [_cell(o) for o in mine if o.lane.start == start]
            rows.append(Row(f"{name}: start {start}, {layer.side} px", cells))
    return rows


def _num_restarts(bench: Bench, outcome: Outcome) -> int:
    """How often the noise was drawn anew. A leaky start is compared with its noise."""
    is_restart = bench.settings.dead_relu == "restart"
    return (outcome.record.num_revivals or 0) if is_restart else 0


def _neurons(words: tuple[str, ...] | None, phi: CnnRepresentation) -> list[Neuron]:
    try:
        return neurons.parse(words, phi)
    except ValueError as error:
        raise Refusal(f"--units={error}") from None


def _scale(layer: Layer, neuron: Neuron) -> float:
    has_places = len(layer.phi.geometry.shape) == 3
    try:
        return neurons.scale(layer.peaks, neuron.channel, has_places=has_places)
    except ValueError as error:
        raise Refusal(f"--images: {error}") from None


def _target(layer: Layer, name: str) -> Target:
    """The direction of a neuron in the layer's code."""
    neuron = layer.neurons[name]
    scale = _scale(layer, neuron)
    code = neurons.direction(layer.phi, neuron, layer.side, scale)
    shape = (layer.side, layer.side, 3)
    return Target(name, identity.code_id(code), None, code, shape)


def _cell(outcome: Finished) -> Cell:
    unit = outcome.record.value("unit")
    if outcome.picture is None:
        return Cell(None, unit)
    caption = f"{unit}: {outcome.record.value('activation'):.1f}"
    if not outcome.record.value("is_excited"):
        caption = f"{unit}: not excited"
    return Cell.found(outcome.picture, caption)


STUDY = Study(
    defaults=Defaults(
        images=",".join(f"sample:{name}" for name in sources.SAMPLES),
        representations=(
            "alexnet/conv1",
            "alexnet/conv2",
            "alexnet/conv3",
            "alexnet/conv5",
        ),
        num_starts=2,
        preset="ijcv2016",
    ),
    columns=_COLUMNS,
    table=table,
    figure=figure,
    picture_range="stretched",
    remarks=remarks,
    measure=measure,
    used_flags=(*studies.LINEAR_FLAGS, "num_starts", "dead_relu"),
    configure=studies.without_cvpr_presets,
    options=lambda: {"units": _UNITS.value and tuple(_UNITS.value)},
    load=load,
    load_tools=load_tools,
    plan=plan,
)
main = functools.partial(studies.main, STUDY)

if __name__ == "__main__":
    binary.run(main)
