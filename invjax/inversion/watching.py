"""What the loop shows of descents while they last."""

import functools
from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np


class Sight(NamedTuple):
    """Some lanes in the middle of their descent.

    Attributes:
      lanes: [n], numbers of the lanes.
      num_steps: [n], number of steps that each has taken; 0 before the first one.
      images: fetches their images [n, h, w, c] in the representation's range, not
        clipped. It may be called only while it is looked at them.
    """

    lanes: np.ndarray
    num_steps: np.ndarray
    images: Callable[[], np.ndarray]


@runtime_checkable
class Watcher(Protocol):
    """Looks at lanes every few steps, in any thread and several threads at once.

    Attributes:
      every: k: it looks before the first step, at multiples of k steps, and at the end.
        A compiled loop comes back after `loop.SCAN_STEPS` steps only, and it looks when
        one of these calls has passed a multiple of k.
    """

    @property
    def every(self) -> int: ...

    def look(self, sight: Sight, /) -> None:
        """Looks; the descents wait."""


def show(
    watchers: Sequence[Watcher],
    lanes: np.ndarray,
    before: np.ndarray,
    after: np.ndarray,
    images: Callable[[], np.ndarray],
    *,
    total: int,
) -> None:
    """Lets those watchers look whose turn has come.

    Args:
      watchers: the watchers.
      lanes: [n], numbers of lanes.
      before, after: [n], number of steps that they had taken, and have taken now; equal
        before the first step.
      images: as in `Sight`, for all lanes.
      total: number of steps of a descent.
    """
    for watcher in watchers:
        is_due = (after // watcher.every > before // watcher.every) | (after == before)
        is_due |= after == total
        if not np.any(is_due):
            continue
        rows = np.flatnonzero(is_due)
        chosen = functools.partial(_rows, images, rows)
        watcher.look(Sight(lanes[rows], after[rows], chosen))


def _rows(images: Callable[[], np.ndarray], rows: np.ndarray) -> np.ndarray:
    return images()[rows]
