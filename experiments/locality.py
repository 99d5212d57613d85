"""Figure 9 of the paper: how much of an image a small patch of its code brings back.

    python -m experiments.locality --workdir=runs/locality

inverts the central 5 x 5 places of every convolution-part layer of AlexNet (all other
places are free), for four sample photographs with two starts and lambda_V = 50: about
twelve minutes on two cores. The effective field is a little smaller than the
theoretical one at relu1, six tenths of it at relu2, and half of it from relu3 on.

--representations takes layers, and networks: vgg16 stands for all its layers with at
least 5 places a side. The paper's figure has 600 steps of its own schedule; here they
are the preset's.

Writes config.json, metrics.jsonl, reconstructions/, table.csv, table.md and figure.png:
the theoretical receptive field of the patch as a red box, the effective square as a
green one, and below maps of detail, from black (none) to white (that of the patch's
centre). In the table, lengths in pixels, means and deviations over images:

    field           side of the square that the patch sees in theory
    in the image    side of the square as large as the part of the field in the image
    effective side  of the square as large as the region where reconstructions have at
                    least half the detail that they have at the field's centre, against
                    the original's (`locality.detail` over the starts); near the image's
                    own side it is no measure
    recovered side  of the region about the centre where less than half of the original
                    is missed, pixel by pixel (`locality.unexplained`): deep layers
                    bring back what there is, hardly where and how bright
"""

import dataclasses
import itertools
import math
import pathlib
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from experiments import studies
from invjax.commands import binary, shared_flags
from invjax.metrics import locality
from invjax.networks import NETWORKS, layers
from invjax.networks.receptive_fields import ReceptiveField, Window
from invjax.report.contact_sheet import Cell, Row
from invjax.representations import masks
from invjax.representations.cnn import CnnRepresentation
from invjax.runs import loading, runner, variants
from invjax.runs.errors import Refusal
from invjax.runs.lanes import Group, Lane, Outcome, Variant
from invjax.runs.settings import Request, Settings
from invjax.runs.targets import Target
from invjax.types import Representation

_IMAGES = "sample:astronaut,sample:chelsea,sample:coffee,sample:rocket"
_NETWORK = "alexnet"
_PATCH = 5
_PATCH_NAME = "patch"
_TV_WEIGHT = 50.0
_NUM_STARTS = 2
_COLUMNS = 5
_RED, _GREEN = (0.9, 0.1, 0.1), (0.1, 0.8, 0.2)
_HEADER = (
    "representation",
    "lambda_V",
    "stride",
    "field",
    "in the image",
    "effective side",
    "effective / in the image",
    "recovered side",
    "relative error %",
    "failed",
    "left out",
)


class Sides(NamedTuple):
    """Lengths in pixels, as the table has them; see the top of this file."""

    effective: float
    recovered: float


class Patch(NamedTuple):
    """What was found out about one patch of one image's code.

    Attributes:
      lane: of the first start.
      records: of all starts.
      field: of the patch.
      sides: effective and recovered; None where every start failed.
      picture: reconstruction of the first start, where it is shown.
      detail: map [h, w] over the starts, where it is shown.
    """

    lane: Lane
    records: list[dict[str, Any]]
    field: ReceptiveField
    sides: Sides | None = None
    picture: np.ndarray | None = None
    detail: np.ndarray | None = None


def main() -> None:
    request = shared_flags.from_flags(
        images=_IMAGES, representations=(_NETWORK,), num_starts=_NUM_STARTS
    )
    config = request.settings
    config = dataclasses.replace(
        config,
        representations=expanded(config),
        tv_weight=config.tv_weight or (_TV_WEIGHT,),
    )
    run(dataclasses.replace(request, settings=config))


def run(request: Request) -> None:
    """Inverts the patches and writes table and figure; with --dry_run says how long.

    Raises:
      binary.Refusal and the package's own errors: bad input; nothing was written.
    """
    config = request.settings
    groups = studies.load_groups(config)
    of_group = {group.name: patch_variant(group) for group in groups}
    planned, dead = variants.without_dead(
        variants.plan(groups, config, lambda group, _: [of_group[group.name]])
    )
    if request.dry_run:
        runner.print_estimates(config, planned=planned)
        return
    first = planned[0].target.name, planned[0].tv_weight
    patches = Patches(lambda lane: (lane.target.name, lane.tv_weight) == first)

    def write(folder: pathlib.Path) -> None:
        patches.close()
        rows = table_rows(groups, patches.found, dead)
        studies.publish(folder, _HEADER, rows, figure_rows(patches.shown))

    studies.run(
        request,
        groups,
        [(config, planned)],
        collect=patches.collect,
        write=write,
        judge=loading.load_judge(groups, config),
        measure=measure,
    )


def expanded(config: Settings) -> tuple[str, ...]:
    """--representations with networks replaced by their layers of 5 places or more."""
    names: list[str] = []
    for name in config.representations:
        if name not in NETWORKS:
            names.append(name)
            continue
        network = NETWORKS[name]
        side = config.image_size or network.input_size
        names += [
            f"{name}/{row.name}"
            for row in layers.geometry(network.layers, (side, side, 3))
            if len(row.shape) == 3 and min(row.shape[:2]) >= _PATCH
        ]
    return tuple(dict.fromkeys(names))


def patch_variant(group: Group) -> Variant:
    """The mask of the central patch.

    Raises:
      Refusal: not a network's layer, or one without places.
    """
    shape = group.targets[0].code.shape
    if not isinstance(group.phi, CnnRepresentation) or len(shape) != 3:
        raise Refusal(
            f"--representations={group.name}: patches are of a network's layer whose "
            "code is (rows, columns, channels)"
        )
    return Variant(_PATCH_NAME, {"mask": masks.central_patch(shape, size=_PATCH)})


def patch_field(phi: Representation, target: Target) -> ReceptiveField:
    """The pixels that the central patch of a target's code sees."""
    assert isinstance(phi, CnnRepresentation)
    window = masks.central_window(target.code.shape, size=_PATCH)
    return phi.receptive_field(window=window, image_shape=target.image_shape)


def measure(outcome: Outcome) -> dict[str, float | None]:
    """What joins a lane's record: the sides, as of this start alone.

    The table's are of maps over all starts of an image.
    """
    field = patch_field(outcome.lane.group.phi, outcome.lane.target)
    effective = recovered = None
    if outcome.record["status"] != "failed":
        original = outcome.lane.target.original
        assert original is not None
        (effective, recovered), _ = measured(outcome.image[None], original, field)
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
      samples: reconstructions [s, h, w, c] from one patch.
      original: the image it is of.
      field: of the patch.
    """
    detail = np.asarray(locality.detail(samples, original))
    row, column = field.full.centre
    half = _side(field) / 4
    rows, columns = np.ogrid[: detail.shape[0], : detail.shape[1]]
    is_middle = (abs(rows - row) <= half) & (abs(columns - column) <= half)
    detail = detail / max(detail[is_middle].mean(), np.finfo(np.float32).tiny)
    missed = locality.unexplained(samples, original)
    recovered = locality.extent(missed, field.full.centre).side
    return Sides(math.sqrt(np.sum(detail > 0.5)), recovered), detail


class Patches:
    """Patches, measured when the last of their starts has come.

    Of a hundred images all pictures and maps would fill the memory: kept are those
    shown.
    """

    def __init__(self, is_shown: Callable[[Lane], bool]):
        self.found: list[Patch] = []
        self._is_shown = is_shown
        self._starts: list[Outcome] = []

    @property
    def shown(self) -> list[Patch]:
        return [patch for patch in self.found if self._is_shown(patch.lane)]

    def collect(self, outcome: Outcome) -> None:
        """Takes lanes in their order, the starts of a patch after each other."""
        if self._starts and _one_patch(outcome) != _one_patch(self._starts[0]):
            self.close()
        self._starts.append(outcome)

    def close(self) -> None:
        """Measures what has come: over the starts that did not fail."""
        starts, self._starts = self._starts, []
        if not starts:
            return
        lane = starts[0].lane
        records = [outcome.record for outcome in starts]
        patch = Patch(lane, records, patch_field(lane.group.phi, lane.target))
        done = [o.image for o in starts if o.record["status"] != "failed"]
        if done:
            assert lane.target.original is not None
            sides, detail = measured(np.stack(done), lane.target.original, patch.field)
            patch = patch._replace(sides=sides)
            if self._is_shown(lane):
                patch = patch._replace(picture=done[0], detail=detail)
        self.found.append(patch)


def table_rows(
    groups: Sequence[Group], found: Sequence[Patch], dead: Sequence[Lane]
) -> list[list[str]]:
    """A row per layer and lambda, means and deviations over images."""
    rows = []
    weights = [lane.tv_weight for lane in [*(patch.lane for patch in found), *dead]]
    for group, tv_weight in itertools.product(groups, dict.fromkeys(weights)):
        mine = [patch for patch in found if _is_of(patch.lane, group, tv_weight)]
        records = [record for patch in mine for record in patch.records]
        sides = [patch.sides for patch in mine if patch.sides is not None]
        field = patch_field(group.phi, group.targets[0])
        inside = _inside(field)
        ratios = [side.effective / inside for side in sides]
        errors = studies.finite(records, "relative_error")
        left_out = variants.num_left_out(group, dead, _PATCH_NAME, tv_weight)
        assert isinstance(group.phi, CnnRepresentation)
        rows.append(
            [
                group.name,
                f"{tv_weight:g}",
                str(group.phi.geometry.stride),
                str(_side(field)),
                f"{inside:.0f}",
                studies.mean_and_deviation([side.effective for side in sides]),
                studies.mean_and_deviation(ratios, digits=2),
                studies.mean_and_deviation([side.recovered for side in sides]),
                studies.mean_and_deviation(errors, scale=100),
                studies.failures(records),
                str(left_out),
            ]
        )
    return rows


def figure_rows(shown: Sequence[Patch]) -> list[Row]:
    """One image's reconstructions, layer by layer, with boxes, and the maps."""
    target = shown[0].lane.target
    rows = [Row("original", [Cell(target.original, target.name)])]
    for first in range(0, len(shown), _COLUMNS):
        patches = shown[first : first + _COLUMNS]
        pictures, maps = [], []
        for patch in patches:
            name = patch.lane.group.name.partition("/")[2]
            caption, detail = f"{name}: field {_side(patch.field)}", None
            if patch.sides is not None and patch.detail is not None:
                caption += f", effective {patch.sides.effective:.0f} px"
                detail = np.clip(patch.detail, 0, 1)[..., None]
            pictures.append(Cell(with_boxes(patch), caption))
            maps.append(Cell(detail, name))
        network = patches[0].lane.group.name.partition("/")[0]
        label = f"{network}: red the field, green the effective one"
        rows.append(Row(label, pictures))
        rows.append(Row("detail: black none, white the centre's", maps))
    return rows


def with_boxes(patch: Patch) -> np.ndarray | None:
    """A reconstruction with its field in red and the effective square in green."""
    if patch.picture is None or patch.sides is None:
        return None
    picture = outlined(patch.picture, patch.field.inside, _RED)
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


def _one_patch(outcome: Outcome) -> tuple[str, str, float]:
    return outcome.lane.group.name, outcome.lane.target.name, outcome.lane.tv_weight


def _inside(field: ReceptiveField) -> float:
    return math.sqrt(field.inside.height * field.inside.width)


def _side(field: ReceptiveField) -> int:
    return field.full.height


if __name__ == "__main__":
    binary.run(main)
