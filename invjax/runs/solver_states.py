"""Solver states of long descents in files, by Orbax; the one file that knows its v1.

A state is kept every three minutes while a descent goes on, and the two newest stay; so
a descent that takes hours loses minutes, and a short one writes nothing at all. Time is
measured and not predicted, since nobody knows how fast the next machine is.
Orbax does not notice damage, so that a digest is kept with every state: a damaged one
is passed over for the one before.
"""

import contextlib
import hashlib
import math
import pathlib
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
from orbax.checkpoint import v1 as ocp

from invjax.inversion import keeping

SECONDS_BETWEEN = 180.0
"""Seconds between two states of a chunk; one that ends sooner has none."""

_NUM_KEPT = 2


class SolverStates:
    """States of chunks of lanes, in a folder that is theirs alone.

    Args:
      folder: where the states go; `clear` deletes it.
      seconds_between: seconds between two states of a chunk.
    """

    def __init__(
        self, folder: pathlib.Path, *, seconds_between: float = SECONDS_BETWEEN
    ):
        self._folder = folder.absolute()
        self._seconds_between = seconds_between
        self._last: dict[str, float] = {}
        self._series: dict[str, ocp.training.Checkpointer] = {}
        self._lock = threading.Lock()

    def is_due(self, name: str) -> bool:
        """Whether the last state is old enough; see `keeping.Keeper`."""
        now = time.monotonic()
        return now - self._last.setdefault(name, now) >= self._seconds_between

    def save(self, name: str, step: int, state: Any) -> None:
        """Copies a state and writes it in the background; see `keeping.Keeper`.

        A state that cannot be written is said to be lost, and the descent goes on.
        """
        self._last[name] = time.monotonic()
        kept = {"state": _packed(step, state)}
        with _said_if_it_fails(self._folder), self._alone():
            self._opened(name).save_async(step, kept, force=True)

    def restore(self, name: str, like: Callable[[int], Any]) -> tuple[int, Any] | None:
        """Reads the newest state that is whole; see `keeping.Keeper`."""
        self._last[name] = time.monotonic()
        if not (self._folder / name).is_dir():
            return None
        with self._alone():
            return self._newest(name, like)

    def close(self) -> None:
        """Waits for what is being written."""
        with self._lock:
            while self._series:
                _, series = self._series.popitem()
                with _said_if_it_fails(self._folder):
                    series.close()

    def clear(self) -> None:
        """Deletes all states: for when what they led to has been written."""
        self.close()
        shutil.rmtree(self._folder, ignore_errors=True)
        self._last.clear()

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """Waits until nothing is being written, and keeps other threads out.

        Orbax counts operations by process, and two at a time can take each other's
        folder.
        """
        with self._lock:
            for series in self._series.values():
                series.wait()
            yield

    def _opened(self, name: str) -> ocp.training.Checkpointer:
        if name not in self._series:
            policies = ocp.training.preservation_policies
            self._series[name] = ocp.training.Checkpointer(
                self._folder / name,
                preservation_policy=policies.LatestN(_NUM_KEPT),
                # Left behind by a process that was killed.
                cleanup_tmp_directories=True,
            )
        return self._series[name]

    def _newest(self, name: str, like: Callable[[int], Any]) -> tuple[int, Any] | None:
        """The newest state that is whole; those that are not are deleted."""
        series = self._opened(name)
        for kept in reversed(series.checkpoints):
            expected = like(kept.step)
            try:
                packed = np.asarray(series.load(kept.step)["state"])
                state = _unpacked(packed, kept.step, expected)
            except Exception:  # of Orbax, TensorStore or our own check
                # A state of the same step is to be written there again.
                shutil.rmtree(self._folder / name / str(kept.step))
                series.reload()
                print(
                    f"{self._folder / name}: the solver state of step {kept.step} is "
                    "damaged and passed over",
                    flush=True,
                )
            else:
                print(f"going on from step {kept.step}", flush=True)
                return kept.step, state
        print(f"{self._folder / name}: beginning anew", flush=True)
        return None


@contextlib.contextmanager
def _said_if_it_fails(folder: pathlib.Path) -> Iterator[None]:
    """Keeping is an extra: where it fails, the descent goes on without."""
    try:
        yield
    except Exception as error:  # of the file system, Orbax or TensorStore
        reason = str(error).partition("\n")[0]
        print(f"{folder}: a solver state is not kept: {reason:.200}", flush=True)


_NUM_DIGEST = 32
"""Bytes of a SHA-256."""


def _packed(step: int, state: Any) -> np.ndarray:
    """The bytes of all arrays in one, behind their digest."""
    leaves = [keeping.on_host(leaf) for leaf in jax.tree.leaves(state)]
    sizes = [_NUM_DIGEST, *(leaf.nbytes for leaf in leaves)]
    packed = np.empty(sum(sizes), np.uint8)
    digest, *places = np.split(packed, np.cumsum(sizes)[:-1])
    for place, leaf in zip(places, leaves, strict=True):
        place[:] = np.frombuffer(leaf.tobytes(), np.uint8)
    digest[:] = _digest(step, packed)
    return packed


def _unpacked(packed: np.ndarray, step: int, like: Any) -> Any:
    """The state that was packed, as the tree that it is like.

    Raises:
      ValueError: it is not what was packed.
    """
    types, structure = jax.tree.flatten(like)
    expected = [
        jax.eval_shape(jax.random.key_data, leaf) if keeping.is_key(leaf) else leaf
        for leaf in types
    ]
    sizes = [
        _NUM_DIGEST,
        *(np.dtype(leaf.dtype).itemsize * math.prod(leaf.shape) for leaf in expected),
    ]
    if packed.shape != (sum(sizes),):
        raise ValueError(f"{packed.shape} bytes, not {sum(sizes)}")
    digest, *places = np.split(packed, np.cumsum(sizes)[:-1])
    if not np.array_equal(digest, _digest(step, packed)):
        raise ValueError("its digest is another")
    arrays = [
        place.copy().view(leaf.dtype).reshape(leaf.shape)
        for place, leaf in zip(places, expected, strict=True)
    ]
    rows = [keeping.typed(*pair) for pair in zip(arrays, types, strict=True)]
    return jax.tree.unflatten(structure, rows)


def _digest(step: int, packed: np.ndarray) -> np.ndarray:
    digest = hashlib.sha256(str(step).encode())
    digest.update(packed[_NUM_DIGEST:].data)
    return np.frombuffer(digest.digest(), np.uint8)
