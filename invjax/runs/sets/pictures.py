"""Maps and principal components of a set as pictures, and the figure of a run."""

import pathlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from invjax import files
from invjax.images import reading
from invjax.metrics import diversity
from invjax.report import contact_sheet, contrast
from invjax.report.contact_sheet import Cell, Row
from invjax.runs.sets import measures
from invjax.runs.sets.methods import SampleSet
from invjax.runs.sets.sensitivity import Look

_NUM_SHOWN = 4
_MOST_IMAGES = 4
_CELL = 176


class Portrait(NamedTuple):
    """A row of the figure: one set."""

    image: str
    label: str
    cells: list[Cell]


def write_maps(
    folder: files.Path, found: SampleSet, looks: dict[str, Look]
) -> Portrait:
    """Writes maps/<image>/<representation>/*.png of a set; its row of the figure.

    mean.png; deviation.png, in which a standard deviation of
    `contrast.WHITE_DEVIATION` is white; component_1.png ..., leading directions of the
    samples around grey; and, with --geometry, seen.png and ignored.png: the directions
    that the representation responds to most and not at all, at the original or at a
    sample where there is none. Directions are stretched to the full range.

    Args:
      folder: folder of the run.
      found: all samples of a code at one lambda_V.
      looks: measurements of the Jacobian by place; the first is shown.
    """
    target = found.lane.target
    cells = []
    if target.original is not None:
        cells.append(Cell(target.original, "original"))
    errors = found.values("relative_error")[:_NUM_SHOWN]
    for picture, error in zip(found.images[:_NUM_SHOWN], errors, strict=True):
        cells.append(Cell.found(picture, f"error {error:.1%}"))
    maps: list[tuple[str, np.ndarray, str]] = []
    if len(found.images) > 1:
        mean, deviation = map(np.asarray, diversity.maps(found.images))
        maps = [
            ("mean", mean, "mean"),
            (
                "deviation",
                deviation / contrast.WHITE_DEVIATION,
                f"deviation, white {contrast.WHITE_DEVIATION:g}",
            ),
        ]
        count = min(measures.NUM_COMPONENTS, len(found.images) - 1)
        components = diversity.principal_components(found.images, count=count)
        for number in range(count):
            explained = float(components.explained_variance_ratio[number])
            maps.append(
                (
                    f"component_{number + 1}",
                    contrast.around_grey(np.asarray(components.directions[number])),
                    f"component {number + 1}: {explained:.0%}",
                )
            )
    if looks:
        first = next(iter(looks.values()))
        maps.append(("seen", contrast.around_grey(first.leading), "seen best"))
        maps.append(("ignored", contrast.around_grey(first.ignored), "ignored"))
    # Lane paths are <image>/<representation>/<sample>, with lambda where several.
    lane = found.lane
    path = pathlib.PurePath(lane.path)
    suffix = path.name.partition("_tv_")[1:]
    for name, picture, caption in maps:
        file = folder / "maps" / path.parent / f"{name}{''.join(suffix)}.png"
        shown = np.clip(picture, 0, 1)
        reading.write_png(file, shown)
        cells.append(Cell(shown, caption))
    label = (
        f"{target.name}, {lane.group.name}, tv {lane.tv_weight:g}, "
        f"{len(found.images)} samples"
    )
    return Portrait(target.name, label, cells)


def write_figure(folder: files.Path, portraits: Sequence[Portrait]) -> None:
    """Writes figure.png and figure_stretched.png, if there are any sets.

    Either has a row per image, representation and lambda_V. Samples are clipped to
    [0, 1] in the one and stretched in the other, each to its range; originals and maps
    are the same in both.
    """
    if not portraits:
        return
    names = list(dict.fromkeys(portrait.image for portrait in portraits))
    rows = [
        Row(portrait.label, portrait.cells)
        for name in names[:_MOST_IMAGES]
        for portrait in portraits
        if portrait.image == name
    ]
    contact_sheet.write_both(folder / "figure.png", rows, cell_size=_CELL)
