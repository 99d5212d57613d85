"""Curves and pictures for TensorBoard, where tensorboardX is installed."""

import importlib.util
import math
import threading
from collections.abc import Sequence
from typing import Any

import numpy as np

from invjax import files
from invjax.inversion.watching import Sight
from invjax.runs.errors import Refusal
from invjax.runs.lanes import Lane
from invjax.runs.records import Record

FOLDER = "tensorboard"
"""Subfolder of a run where its event files are, one folder for each lane."""

_COLUMNS = (
    *("energy", "data_term", "alpha_term", "tv_term"),
    *("relative_error", "normalised_error", "psnr", "ssim", "lpips"),
)


def check() -> None:
    """Refuses --tensorboard where tensorboardX is missing.

    Raises:
      Refusal: it is not installed.
    """
    if importlib.util.find_spec("tensorboardX") is None:
        raise Refusal(
            "--tensorboard needs tensorboardX, which is not installed; run: "
            "pip install tensorboardX"
        )


class EventFiles:
    """Writes the event files of a run.

    Args:
      folder: folder of the run.
      every: number of steps between pictures; None for the last one alone.
    """

    def __init__(self, folder: files.Path, every: int | None):
        self._folder = folder / FOLDER
        self._every = every
        self._lock = threading.Lock()
        self._writers: dict[str, Any] = {}

    def watch(self, planned: Sequence[Lane]) -> "Pictures | None":
        """A watcher of lanes, by their number in the loop; None without pictures."""
        return None if self._every is None else Pictures(self, planned, self._every)

    def add_picture(self, lane: Lane, step: int, image: np.ndarray) -> None:
        """Writes the picture of a lane after some steps."""
        if step == 0:
            # What a descent that was interrupted has left is not this one's.
            self._close(lane.path)
            files.remove(self._folder / lane.path)
        with self._lock:
            self._writer(lane.path).add_image(
                "image", np.clip(image, 0, 1), step, dataformats="HWC"
            )

    def end(self, lane: Lane, record: Record, image: np.ndarray) -> None:
        """Writes the objective along the descent, the metrics and the last picture."""
        if self._every is None:
            files.remove(self._folder / lane.path)
        with self._lock:
            writer = self._writer(lane.path)
            for step, value in record.history or ():
                writer.add_scalar("objective", value, step)
            for name in _COLUMNS:
                if math.isfinite(value := record.number(name)):
                    writer.add_scalar(name, value, record.num_steps)
            if self._every is None and not record.has_failed:
                writer.add_image(
                    "image", np.clip(image, 0, 1), record.num_steps, dataformats="HWC"
                )
        self._close(lane.path)

    def _writer(self, path: str) -> Any:
        if path not in self._writers:
            from tensorboardX import SummaryWriter

            self._writers[path] = SummaryWriter(str(self._folder / path))
        return self._writers[path]

    def _close(self, path: str) -> None:
        with self._lock:
            if (writer := self._writers.pop(path, None)) is not None:
                writer.close()


class Pictures:
    """Writes pictures of lanes while they descend; a watcher of the loop.

    Attributes:
      every: number of steps between pictures.
    """

    def __init__(self, events: EventFiles, planned: Sequence[Lane], every: int):
        self.every = every
        self._events = events
        self._planned = planned

    def look(self, sight: Sight) -> None:
        """Writes a picture of each lane."""
        for number, step, image in zip(
            sight.lanes, sight.num_steps, sight.images(), strict=True
        ):
            if np.all(np.isfinite(image)):
                lane = self._planned[int(number)]
                self._events.add_picture(lane, int(step), image)
