"""How the objective and the error fell along descents, as one drawing.

curves.svg needs nothing but a browser; curves.png is drawn where Matplotlib is
installed.
"""

import importlib.util
from collections.abc import Sequence
from typing import Any, NamedTuple

from invjax import files
from invjax.report import gallery, sparklines
from invjax.report.sparklines import Axes, History

_TEMPLATE = "descents.svg.jinja"
MOST_CURVES = 100
"""Curves of one panel; of more descents the first ones are drawn."""


class Descent(NamedTuple):
    """One curve, or two.

    Attributes:
      group: name of the panel that it is in, such as a representation.
      objectives: pairs of step and objective, as `Record.history`.
      errors: pairs of step and relative error; empty where it was not measured.
    """

    group: str
    objectives: History
    errors: History = ()


class _Panel(NamedTuple):
    """The curves of one kind and group.

    Attributes:
      title: what is shown.
      curves: pairs of step and value of each.
      axes: what the sides stand for.
    """

    title: str
    curves: list[History]
    axes: Axes


def write(folder: files.Path, descents: Sequence[Descent]) -> list[str]:
    """Writes curves.svg, and curves.png where Matplotlib is installed.

    Args:
      folder: folder of the run.
      descents: the descents, in any order; those without a curve are left out.

    Returns:
      Names of the files; none where there is no curve.
    """
    rows = _rows(descents)
    if not rows:
        return []
    drawing = (
        gallery.environment()
        .get_template(_TEMPLATE)
        .render(
            rows=[[_drawn(panel) for panel in row] for row in rows],
            num_columns=max(map(len, rows)),
            size=(sparklines.WIDTH, sparklines.HEIGHT),
        )
    )
    files.write_whole(folder / "curves.svg", drawing)
    if importlib.util.find_spec("matplotlib") is None:
        return ["curves.svg"]
    _write_png(folder / "curves.png", rows)
    return ["curves.svg", "curves.png"]


def _rows(descents: Sequence[Descent]) -> list[list[_Panel]]:
    """A row for each group: the objective and, where it was measured, the error."""
    groups: dict[str, list[Descent]] = {}
    for descent in descents:
        groups.setdefault(descent.group, []).append(descent)
    rows = []
    for group, members in groups.items():
        kinds = {
            "objective": [one.objectives for one in members],
            "relative error": [one.errors for one in members],
        }
        row = []
        for kind, curves in kinds.items():
            there = [curve for curve in curves if len(curve) > 1]
            drawn = there[:MOST_CURVES]
            axes = sparklines.axes(drawn)
            if axes is not None:
                more = f", the first {len(drawn)} descents" * (len(there) > len(drawn))
                row.append(_Panel(f"{group}: {kind}{more}", drawn, axes))
        if row:
            rows.append(row)
    return rows


def _drawn(panel: _Panel) -> dict[str, Any]:
    axes = panel.axes
    scale = "logarithmic" if axes.is_logarithmic else "linear"
    return {
        "title": panel.title,
        "low": f"{axes.low:.3g}",
        "high": f"{axes.high:.3g}",
        "last_step": f"{axes.last_step:g}",
        "scale": scale,
        "curves": [sparklines.points(curve, axes) for curve in panel.curves],
    }


def _write_png(path: files.Path, rows: Sequence[Sequence[_Panel]]) -> None:
    # Unlike pyplot, a Figure opens no window and leaves no global state.
    from matplotlib.figure import Figure
    from matplotlib.ticker import NullFormatter

    num_columns = max(map(len, rows))
    figure = Figure(
        figsize=(5.0 * num_columns, 2.6 * len(rows)), dpi=120, layout="tight"
    )
    for number, row in enumerate(rows):
        for column, panel in enumerate(row):
            place = number * num_columns + column + 1
            axes = figure.add_subplot(len(rows), num_columns, place)
            for curve in panel.curves:
                steps, values = zip(*curve, strict=True)
                axes.plot(steps, values, linewidth=1, alpha=0.7)
            if panel.axes.is_logarithmic:
                axes.set_yscale("log")
                # Plain numbers: powers of ten would be typeset as mathematics.
                axes.yaxis.set_major_formatter("{x:g}")
                axes.yaxis.set_minor_formatter(NullFormatter())
            axes.set_title(panel.title, fontsize="small")
            axes.set_xlabel("step", fontsize="small")
            axes.spines[["top", "right"]].set_visible(False)
    with files.whole_file(path) as stream:
        figure.savefig(stream, format="png")
