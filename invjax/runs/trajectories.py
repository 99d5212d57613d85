"""How a descent went: its images every few steps, their errors, and an animation.

Below trajectories/, a lane has a folder of pictures, <lane>/step_00000.png and so on, a
file <lane>.jsonl with a line per picture, and, once it has ended, <lane>.webp, which
shows the pictures one after the other.
"""

import io
import json
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from PIL import Image

from invjax import callables, files
from invjax.images import reading
from invjax.images.pixels import to_pillow
from invjax.inversion.watching import Sight
from invjax.runs import lanes, records
from invjax.runs.lanes import Lane
from invjax.runs.settings import Settings

FOLDER = "trajectories"
"""Subfolder of a run where its trajectories are."""

_MILLISECONDS, _MILLISECONDS_AT_END = 80, 1000


class Trajectory:
    """Writes pictures of lanes while they descend; a watcher of the loop.

    Args:
      folder: folder of the run.
      planned: the lanes that descend, by their number in the loop.
      settings: settings of the run, with the number of steps between pictures.
    """

    def __init__(self, folder: files.Path, planned: Sequence[Lane], settings: Settings):
        assert settings.save_trajectory is not None
        self._every = settings.save_trajectory
        self._folder = folder / FOLDER
        self._planned = planned
        self._settings = settings

    @property
    def every(self) -> int:
        """Number of steps between pictures."""
        return self._every

    def look(self, sight: Sight) -> None:
        """Writes a picture of each lane, and its errors."""
        images = sight.images()
        for number, step, image in zip(
            sight.lanes, sight.num_steps, images, strict=True
        ):
            self._add(self._planned[int(number)], int(step), image)

    def _add(self, lane: Lane, step: int, image: np.ndarray) -> None:
        # Of a descent that began anew, what came later is of the one before.
        rows = [row for row in read(self._folder, lane.path) if row["step"] < step]
        row: dict[str, Any] = {"step": step}
        if np.all(np.isfinite(image)):
            phi = lanes.in_float32(lane.group.phi)
            code = jax.tree.map(np.asarray, callables.encode(phi, image))
            found = records.code_errors(lane, code, self._settings)
            row |= found.pop("measured", {}) | found
            path = _frame(self._folder, lane.path, step)
            reading.write_png(path, np.clip(image, 0, 1))
        rows.append(records.strict(row))
        lines = "".join(f"{json.dumps(row, allow_nan=False)}\n" for row in rows)
        files.write_whole(_rows_path(self._folder, lane.path), lines)


def read(folder: files.Path, path: str) -> list[dict[str, Any]]:
    """The lines of a lane's trajectory so far, in the order of the steps.

    Args:
      folder: folder of the trajectories.
      path: path of the lane, as `Lane.path`.

    Returns:
      For each picture the number of steps that were taken before it, "step", and the
      errors of its code, named as in `Record`; none without a trajectory.
    """
    rows = _rows_path(folder, path)
    if not rows.exists():
        return []
    return [json.loads(line) for line in rows.read_text().splitlines()]


def finish(folder: files.Path, path: str) -> list[files.Path]:
    """Makes the animation of a lane that has ended, and removes older pictures.

    Args:
      folder: folder of the run.
      path: path of the lane, as `Lane.path`.

    Returns:
      The files of the trajectory.
    """
    folder = folder / FOLDER
    steps = [row["step"] for row in read(folder, path)]
    frames = [_frame(folder, path, step) for step in steps]
    frames = [frame for frame in frames if frame.exists()]
    own = {frame.name for frame in frames}
    for other in (folder / path).glob("step_*.png") if frames else ():
        if other.name not in own:
            other.unlink()
    if not frames:
        return []
    shown = folder / f"{path}.webp"
    first, *rest = frames
    stream = io.BytesIO()
    durations = [_MILLISECONDS] * len(rest) + [_MILLISECONDS_AT_END]
    _opened(first).save(
        stream,
        "WEBP",
        save_all=True,
        append_images=map(_opened, rest),
        duration=durations,
        loop=0,
        quality=90,
    )
    files.write_whole(shown, stream.getvalue())
    return [*frames, _rows_path(folder, path), shown]


def animation(folder: files.Path, path: str) -> str | None:
    """Path of a lane's animation below the folder of its run; None without one.

    Args:
      folder: folder of the run.
      path: path of the lane, as `Lane.path`.
    """
    found = f"{FOLDER}/{path}.webp"
    return found if (folder / found).exists() else None


def errors(rows: Sequence[Mapping[str, Any]]) -> list[tuple[int, float]]:
    """Pairs of step and relative error, of those lines that have one."""
    return [
        (row["step"], row["relative_error"])
        for row in rows
        if row.get("relative_error") is not None
    ]


def _opened(path: files.Path) -> Image.Image:
    return to_pillow(reading.read(path))


def _frame(folder: files.Path, path: str, step: int) -> files.Path:
    return folder / path / f"step_{step:05d}.png"


def _rows_path(folder: files.Path, path: str) -> files.Path:
    return folder / f"{path}.jsonl"
