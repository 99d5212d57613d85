"""Measures what a small patch of a code recovers of an image (CVPR 2015, Figure 9).

    python -m experiments.locality --workdir=runs/locality

inverts the central 5 x 5 places of every layer in the convolutional part of AlexNet.
All other places are free. It uses four sample photographs, two starts and lambda_V = 50
and takes about twelve minutes on two cores. The effective field is a little smaller
than the theoretical one at relu1, six tenths of it at relu2, and half of it from relu3
on.

--representations takes layers and networks: vgg16 stands for all its layers with at
least 5 places a side. The paper's figure has 600 steps of its own schedule; here the
steps are the preset's.

Writes config.json, metrics.jsonl, reconstructions/, table.csv, table.md and figure.png;
figure_stretched.png has every reconstruction stretched to its range. In the
figure, a red box is the theoretical receptive field of the patch, and a green box is
the effective square. The maps below show detail, from black (none) to white (as much as
at the patch's centre). The table has lengths in pixels, as means and deviations over
images:

    field           side of the theoretical receptive field of the patch
    in the image    side of the square that is as large as the part of the field inside
                    the image
    effective side  side of the square that is as large as the region where
                    reconstructions have at least half the detail that they have at the
                    field's centre, relative to the original's (`locality.detail` over
                    the starts); it says nothing where it is close to the image's side
    recovered side  side of the square that is as large as the region about the centre
                    where less than half of the original is missed, pixel by pixel
                    (`locality.unexplained`); deep layers recover what there is in the
                    image, but hardly where it is and how bright
"""

import dataclasses
import functools
import itertools
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from invjax.commands import binary, studies
from invjax.commands.studies import Bench, Defaults, Findings, Study
from invjax.metrics import locality
from invjax.networks import NETWORKS, layers
from invjax.networks.receptive_fields import ReceptiveField, Window
from invjax.report import contrast, tables
from invjax.report.contact_sheet import Cell, Row
from invjax.representations import masks
from invjax.representations.cnn import CnnRepresentation
from invjax.runs import loading, variants
from invjax.runs.errors import Refusal
from invjax.runs.lanes import Group, Lane, Variant
from invjax.runs.records import Record
from invjax.runs.runner import Finished, Outcome
from invjax.runs.settings import Settings
from invjax.runs.targets import Target
from invjax.types import Representation

_PATCH = 5
_PATCH_NAME = "patch"
_COLUMNS_OF_FIGURE = 5
_RED, _GREEN = (0.9, 0.1, 0.1), (0.1, 0.8, 0.2)
_COLUMNS = (
    "representation",
    "lambda_V",
    "stride",
    "field",
    "in the image",
    "effective side",
    "effective / in the image",
    "recovered side",
    "relative error %",
    *studies.COUNTS,
    "left out",
)


class Sides(NamedTuple):
    """Lengths in pixels, as the table has them; see the top of this file."""

    effective: float
    recovered: float


class Patch(NamedTuple):
    """What was found out about one patch of one image's code.

    Attributes:
      lane: lane of the first start.
      records: records of all starts.
      field: receptive field of the patch.
      sides: effective and recovered; None where every start failed.
      picture: reconstruction of the first start; None where it is not shown.
      detail: map [h, w] over the starts; None where it is not shown.
    """

    lane: Lane
    records: list[Record]
    field: ReceptiveField
    sides: Sides | None = None
    picture: np.ndarray | None = None
    detail: np.ndarray | None = None


def configure(settings: Settings) -> Settings:
    """The settings with networks replaced by their layers of 5 places or more."""
    names: list[str] = []
    for name in settings.representations:
        if name not in NETWORKS:
            names.append(name)
            continue
        network = NETWORKS[name]
        side = settings.image_size or network.input_size
        names += [
            f"{name}/{row.name}"
            for row in layers.geometry(network.layers, (side, side, 3))
            if len(row.shape) == 3 and min(row.shape[:2]) >= _PATCH
        ]
    return dataclasses.replace(settings, representations=tuple(dict.fromkeys(names)))


def load(bench: Bench) -> Bench:
    """Loads the groups, which have to be network layers with places.

    Raises:
      Refusal: one of them is none.
    """
    groups = loading.load_image_groups(bench.settings)
    for group in groups:
        is_network = isinstance(group.phi, CnnRepresentation)
        if not is_network or len(group.targets[0].code.shape) != 3:
            raise Refusal(
                f"--representations={group.name}: patches are of a network's layer "
                "whose code is (rows, columns, channels)"
            )
    return bench._replace(groups=groups)


@functools.cache
def _patch_variant(shape: tuple[int, int, int]) -> Variant:
    """The mask of the central patch of a code of this shape; always the same object."""
    return Variant(_PATCH_NAME, {"mask": masks.central_patch(shape, size=_PATCH)})


def patch_variants(bench: Bench, group: Group, target: Target) -> list[Variant]:
    """The one variant of a target: the mask of its central patch."""
    del bench, group
    rows, columns, channels = target.code.shape
    return [_patch_variant((rows, columns, channels))]


def is_shown(bench: Bench, lane: Lane) -> bool:
    """Whether a lane is in the figure: the first image at the first lambda_V."""
    first = bench.planned[0]
    return (lane.target.name, lane.tv_weight) == (first.target.name, first.tv_weight)


def patch_field(phi: Representation, target: Target) -> ReceptiveField:
    """Receptive field of the central patch of a target's code."""
    assert isinstance(phi, CnnRepresentation)
    window = masks.central_window(target.code.shape, size=_PATCH)
    return phi.receptive_field(window=window, image_shape=target.image_shape)


def measure(bench: Bench, outcome: Outcome) -> dict[str, float | None]:
    """Sides of the field, and those of this start alone.

    The table's are those of maps over all starts of an image.
    """
    del bench
    field = patch_field(outcome.lane.group.phi, outcome.lane.target)
    effective = recovered = None
    if outcome.picture is not None:
        original = outcome.lane.target.original
        assert original is not None
        (effective, recovered), _ = measured(outcome.picture[None], original, field)
    return {
        "field_side": _side(field),
        "inside_side": _inside(field),
        "effective_side": effective,
        "recovered_side": recovered,
    }


def measured(
    samples: np.ndarray, original: np.ndarray, field: ReceptiveField
) -> tuple[Sides, np.ndarray]:
    """The sides of a patch, and the map of detail relative to its centre's.

    The centre is the middle half of the field, a side; its detail is the mean over it.

    Args:
      samples: [s, h, w, c], reconstructions from one patch.
      original: [h, w, c], the image that was encoded.
      field: receptive field of the patch.
    """
    detail = np.asarray(locality.detail(samples, original))
    row, column = field.full.centre
    half = _side(field) / 4
    rows, columns = np.ogrid[: detail.shape[0], : detail.shape[1]]
    is_middle = (abs(rows - row) <= half) & (abs(columns - column) <= half)
    detail = detail / max(detail[is_middle].mean(), np.finfo(np.float32).tiny)
    missed = locality.unexplained(samples, original)
    recovered = float(locality.extent(missed, field.full.centre).side)
    return Sides(math.sqrt(np.sum(detail > 0.5)), recovered), detail


def summarise(bench: Bench, outcomes: Sequence[Finished]) -> Patch:
    """Measures a patch over those of its starts that did not fail."""
    lane = outcomes[0].lane
    records = [outcome.record for outcome in outcomes]
    patch = Patch(lane, records, patch_field(lane.group.phi, lane.target))
    pictures = [o.picture for o in outcomes if o.picture is not None]
    if not pictures:
        return patch
    assert lane.target.original is not None
    sides, detail = measured(np.stack(pictures), lane.target.original, patch.field)
    patch = patch._replace(sides=sides)
    if is_shown(bench, lane):
        patch = patch._replace(picture=pictures[0], detail=detail)
    return patch


def table(findings: Findings) -> list[list[str]]:
    """A row per layer and lambda_V, means and deviations over images."""
    bench, found = findings.bench, findings.codes
    rows = []
    weights = dict.fromkeys(lane.tv_weight for lane in bench.asked)
    for group, tv_weight in itertools.product(bench.groups, weights):
        mine = [patch for patch in found if _is_of(patch.lane, group, tv_weight)]
        records = [record for patch in mine for record in patch.records]
        sides = [patch.sides for patch in mine if patch.sides is not None]
        field = patch_field(group.phi, group.targets[0])
        inside = _inside(field)
        ratios = [side.effective / inside for side in sides]
        errors = studies.finite(records, "relative_error")
        left_out = variants.num_left_out(group, bench.left_out, _PATCH_NAME, tv_weight)
        assert isinstance(group.phi, CnnRepresentation)
        rows.append(
            [
                group.name,
                f"{tv_weight:g}",
                str(group.phi.geometry.stride),
                str(_side(field)),
                f"{inside:.0f}",
                tables.mean_and_deviation([side.effective for side in sides]),
                tables.mean_and_deviation(ratios, digits=2),
                tables.mean_and_deviation([side.recovered for side in sides]),
                tables.mean_and_deviation(errors, scale=100),
                *studies.counts(records),
                str(left_out),
            ]
        )
    return rows


def figure(findings: Findings) -> list[Row]:
    """One image's reconstructions, layer by layer, with boxes, and the maps."""
    bench = findings.bench
    shown = [patch for patch in findings.codes if is_shown(bench, patch.lane)]
    if not shown:
        return []
    target = shown[0].lane.target
    rows = [Row("original", [Cell(target.original, target.name)])]
    for first in range(0, len(shown), _COLUMNS_OF_FIGURE):
        patches = shown[first : first + _COLUMNS_OF_FIGURE]
        pictures, maps = [], []
        for patch in patches:
            name = patch.lane.group.name.partition("/")[2]
            caption, detail = f"{name}: field {_side(patch.field)}", None
            if patch.sides is not None and patch.detail is not None:
                caption += f", effective {patch.sides.effective:.0f} px"
                detail = np.clip(patch.detail, 0, 1)[..., None]
            pictures.append(framed(patch, caption))
            maps.append(Cell(detail, name))
        network = patches[0].lane.group.name.partition("/")[0]
        label = f"{network}: red the field, green the effective one"
        rows.append(Row(label, pictures))
        rows.append(Row("detail: black none, white the centre's", maps))
    return rows


def framed(patch: Patch, caption: str) -> Cell:
    """A cell of a reconstruction with boxes; it is stretched without them."""
    picture = patch.picture
    if picture is None:
        return Cell(None, caption)
    return Cell(
        with_boxes(picture, patch),
        caption,
        lambda: with_boxes(contrast.stretched(picture), patch),
    )


def with_boxes(picture: np.ndarray, patch: Patch) -> np.ndarray:
    """A reconstruction with its field in red and the effective square in green."""
    assert patch.sides is not None
    picture = outlined(picture, patch.field.inside, _RED)
    row, column = patch.field.full.centre
    half = (patch.sides.effective - 1) / 2
    if half <= 0:
        return picture
    height, width = picture.shape[:2]
    square = Window(
        max(round(row - half), 0),
        max(round(column - half), 0),
        min(round(row + half), height - 1),
        min(round(column + half), width - 1),
    )
    return outlined(picture, square, _GREEN)


def outlined(
    image: np.ndarray, window: Window, colour: tuple[float, float, float]
) -> np.ndarray:
    """The image with a frame of two pixels just inside a window of it."""
    top, left, bottom, right = window
    frame = np.zeros(image.shape[:2], bool)
    frame[top : bottom + 1, left : right + 1] = True
    frame[top + 2 : bottom - 1, left + 2 : right - 1] = False
    return np.where(frame[..., None], np.array(colour, image.dtype), image)


def _is_of(lane: Lane, group: Group, tv_weight: float) -> bool:
    return lane.group is group and lane.tv_weight == tv_weight


def _inside(field: ReceptiveField) -> float:
    return math.sqrt(field.inside.height * field.inside.width)


def _side(field: ReceptiveField) -> int:
    return field.full.height


STUDY = Study(
    defaults=Defaults(
        images="sample:astronaut,sample:chelsea,sample:coffee,sample:rocket",
        representations=("alexnet",),
        num_starts=2,
        tv_weight=(50.0,),
    ),
    columns=_COLUMNS,
    table=table,
    figure=figure,
    variants=patch_variants,
    measure=measure,
    summarise=summarise,
    is_shown=is_shown,
    configure=configure,
    load=load,
)
main = functools.partial(studies.main, STUDY)

if __name__ == "__main__":
    binary.run(main)
