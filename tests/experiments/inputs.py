"""What the tests of the binaries give them."""

import contextlib
import itertools
import pathlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from invjax.images import reading
from invjax.networks import NETWORKS
from invjax.networks.weights import pretrained
from invjax.runs import runner, shards, units

needs_weights = pytest.mark.skipif(
    not pretrained.available(NETWORKS["alexnet"]),
    reason="no AlexNet weights; the pretrained extra has them",
)


def write_photographs(folder: pathlib.Path) -> None:
    """Two pictures of coloured tiles, a folder of a user's own."""
    generator = np.random.default_rng(0)
    for name in ("one", "two"):
        coarse = generator.uniform(size=(9, 12, 3)).astype(np.float32)
        photograph = np.kron(coarse, np.ones((30, 30, 1), np.float32))
        reading.write_png(folder / f"{name}.png", photograph)


def interrupt_after(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets Ctrl-C arrive once `count` groups of lanes have ended; units are lanes."""
    monkeypatch.setattr(units, "lanes_per_unit", lambda *_: 1)
    whole = runner.invert

    def interrupted(*args: Any, **keywords: Any) -> Iterator[list[runner.Outcome]]:
        with contextlib.closing(whole(*args, **keywords)) as outcomes:
            yield from itertools.islice(outcomes, count)
            raise KeyboardInterrupt

    monkeypatch.setattr(runner, "invert", interrupted)


def interrupt_after_units(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets Ctrl-C arrive once `count` units are done; units are lanes, where they may.

    Args:
      count: number of units.
      monkeypatch: what undoes it.
    """
    monkeypatch.setattr(units, "lanes_per_unit", lambda *_: 1)
    whole, written = shards.write, itertools.count(1)

    def interrupted(*args: Any) -> None:
        whole(*args)
        if next(written) == count:
            raise KeyboardInterrupt

    monkeypatch.setattr(shards, "write", interrupted)
