"""Whether a lane has the same bits again, elsewhere in a chunk, and in other chunks.

The compiled loop and the slots that are filled again are those of GPUs and TPUs, also
on CPU. Weights are random.
"""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

import invjax
from experiments.benchmarks import networks
from experiments.benchmarks.conditions import Conditions, default_precision
from experiments.benchmarks.report import Report, Subject
from invjax.inversion.execution import Execution

_NUM_LANES = 5


def run(report: Report, conditions: Conditions) -> None:
    """Runs the same lanes in chunks of several kinds.

    Args:
      report: where the records go.
      conditions: as a trial, chunks are narrow and 30 steps long.
    """
    name, num_steps = "alexnet/relu3", 100
    widths: tuple[int, ...] = (16, 64, 512)
    if conditions.is_small:
        name, num_steps, widths = "alexnet/relu1", 26, (6, 8)
    phi = networks.random(*networks.find(name))
    (code,) = networks.random_codes(phi, 1)
    keys = jax.random.split(jax.random.key(0), widths[0] + 2)
    codes = np.stack([code * np.float32(1 + 0.05 * n) for n in range(len(keys))])

    def images(
        lanes: np.ndarray, *, width: int = widths[0], **settings: Any
    ) -> np.ndarray:
        result = invjax.invert_batch(
            keys[lanes],
            codes[lanes],
            phi,
            num_steps=num_steps,
            execution=Execution(width=width, scan=True),
            **settings,
        )
        return np.asarray(result.image)

    few = np.arange(_NUM_LANES)
    turned = np.roll(few, 2)
    last = len(keys) - 1

    def refilled() -> np.ndarray:
        # All lanes but the last end after 25 steps, and one of them hands it its slot.
        tolerance = np.where(np.arange(len(keys)) == last, 0, 1e6)
        return images(np.arange(len(keys)), tolerance=tolerance)[last:]

    expected = images(few)
    beside: list[tuple[str, int, Callable[[], tuple[np.ndarray, np.ndarray]]]] = [
        ("run again", widths[0], lambda: (images(few), expected)),
        (
            "at another place of a chunk",
            widths[0],
            lambda: (images(turned)[np.argsort(turned)], expected),
        ),
        (
            "in a slot that is filled again",
            widths[0],
            lambda: (refilled(), images(np.array([last]), tolerance=0.0)),
        ),
        *(
            (
                f"in chunks of {width}, not {widths[0]}",
                width,
                lambda width=width: (images(few, width=width), expected),
            )
            for width in widths[1:]
        ),
    ]
    for side, width, measure in beside:
        found, wanted = measure()
        difference = float(np.max(np.abs(found - wanted)))
        report.add(
            Subject("bits", f"{name}, {num_steps} steps", width, default_precision()),
            side,
            value=255 * difference,
            unit="grey levels",
            is_equal=difference == 0.0,
            note="equal bits" if difference == 0.0 else "largest difference",
            headline=True,
        )
