"""Curves over layers, drawn with Matplotlib where it is installed."""

import importlib.util
from collections.abc import Sequence
from typing import NamedTuple

from invjax import files


class Curve(NamedTuple):
    """A curve with one value per layer, or per other place on the horizontal axis.

    Attributes:
      label: text in the legend.
      values: [n], NaN where a value is missing.
      deviations: [n], drawn as error bars; None for no bars.
      colour: number of the colour in Matplotlib's cycle. Curves that belong together
        have the same colour.
      is_dashed: whether the line is dashed; used for published values.
    """

    label: str
    values: Sequence[float]
    deviations: Sequence[float] | None
    colour: int
    is_dashed: bool = False


class Band(NamedTuple):
    """A horizontal band between two values, shaded behind the curves.

    Attributes:
      label: text in the legend.
      low, high: ends of the range.
    """

    label: str
    low: float
    high: float


def write(
    path: files.Path,
    places: Sequence[str],
    curves: Sequence[Curve],
    *,
    ylabel: str,
    bands: Sequence[Band] = (),
    from_zero: bool = True,
) -> None:
    """Draws curves into a PNG file, which is written atomically.

    Without Matplotlib nothing is written, and one line is printed that says how to
    install it.

    Args:
      path: the file.
      places: names along the horizontal axis, [n].
      curves: curves with n values each.
      ylabel: name of the values, with their unit.
      bands: ranges of values shaded behind the curves.
      from_zero: whether the vertical axis begins at 0; else it begins at the values.
    """
    if importlib.util.find_spec("matplotlib") is None:
        print(
            f"{path.name} is not drawn: Matplotlib is missing, pip install matplotlib"
        )
        return
    # Unlike pyplot, a Figure opens no window and leaves no global state.
    from matplotlib.figure import Figure

    figure = Figure(
        figsize=(max(6.0, 0.7 * len(places) + 3), 4.2), dpi=120, layout="tight"
    )
    axes = figure.subplots()
    for band in bands:
        axes.axhspan(band.low, band.high, color="0.9", label=band.label)
    for number, curve in enumerate(curves):
        # Curves are shifted sideways, so that their bars do not overlap.
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
    # To the right of the axes, where no curve can be.
    axes.legend(
        frameon=False, fontsize="small", loc="upper left", bbox_to_anchor=(1, 1)
    )
    with files.whole_file(path) as stream:
        figure.savefig(stream, format="png")
