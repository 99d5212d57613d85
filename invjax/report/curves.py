"""Curves over layers, drawn by Matplotlib where it is installed."""

import importlib.util
import pathlib
from collections.abc import Sequence
from typing import NamedTuple

from invjax import files


class Curve(NamedTuple):
    """One value per place; NaN where there is none.

    Attributes:
      label: in the legend.
      values: [n].
      deviations: [n], drawn as bars; None for no bars.
      colour: number of the colour; curves that belong together share it.
      is_dashed: such as for what was published.
    """

    label: str
    values: Sequence[float]
    deviations: Sequence[float] | None
    colour: int
    is_dashed: bool = False


class Band(NamedTuple):
    """A shaded range of values."""

    label: str
    low: float
    high: float


def write(
    path: pathlib.Path,
    places: Sequence[str],
    curves: Sequence[Curve],
    *,
    ylabel: str,
    bands: Sequence[Band] = (),
    from_zero: bool = True,
) -> None:
    """Writes a PNG, whole or not at all; without Matplotlib a line says how to get it.

    Args:
      path: of the file.
      places: names along the abscissa.
      curves: of one value per place.
      ylabel: what the values are, with their unit.
      bands: behind the curves.
      from_zero: whether the ordinate begins there, or where the values do.
    """
    if importlib.util.find_spec("matplotlib") is None:
        print(f"{path.name} is not drawn: pip install 'invjax[studies]'")
        return
    # Not pyplot: no window, no state beyond this function.
    from matplotlib.figure import Figure

    figure = Figure(
        figsize=(max(6.0, 0.7 * len(places) + 3), 4.2), dpi=120, layout="tight"
    )
    axes = figure.subplots()
    for band in bands:
        axes.axhspan(band.low, band.high, color="0.9", label=band.label)
    for number, curve in enumerate(curves):
        # Beside each other, so that the bars do not hide each other.
        offset = 0.06 * (number - (len(curves) - 1) / 2)
        axes.errorbar(
            [place + offset for place in range(len(places))],
            curve.values,
            yerr=curve.deviations,
            color=f"C{curve.colour}",
            linestyle="--" if curve.is_dashed else "-",
            marker="x" if curve.is_dashed else "o",
            markersize=4,
            linewidth=1.2,
            elinewidth=0.8,
            capsize=2,
            label=curve.label,
        )
    axes.set_xticks(range(len(places)), places, rotation=45, ha="right")
    axes.set_ylabel(ylabel)
    if from_zero:
        axes.set_ylim(bottom=0)
    axes.grid(axis="y", color="0.92")
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_xlim(-0.5, len(places) - 0.5)
    # Beside the curves, wherever they run.
    axes.legend(
        frameon=False, fontsize="small", loc="upper left", bbox_to_anchor=(1, 1)
    )
    with files.whole_file(path) as stream:
        figure.savefig(stream, format="png")
