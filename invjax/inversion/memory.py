"""What fits on a device: its limit, the width that fits, and what happens beyond it."""

import contextlib
import dataclasses
import warnings
from collections.abc import Callable, Generator
from typing import TypeVar

import jax
import numpy as np

from invjax.inversion.execution import Execution

MOST_LANES = 512
"""Largest width that is chosen by itself; the fastest on an H100 for AlexNet."""

USABLE = 0.9
"""Fraction of a device's memory that a chosen width may take by the prediction.

The rest is for what is not predicted: results on their way to the host, other weights,
and what the device's libraries use themselves.
"""

Results = TypeVar("Results")

LaneStream = Generator[tuple[np.ndarray, Results], None, None]
"""Numbers [n] of lanes that have ended, and their results."""

OnNarrower = Callable[[Execution], None]
"""Is told how lanes go on after the memory of a device has run out."""


def device_limit() -> int | None:
    """Bytes that JAX may use on its first device; None where it does not say."""
    return (jax.local_devices()[0].memory_stats() or {}).get("bytes_limit")


def is_exhausted(error: BaseException) -> bool:
    """Whether an error says that the memory of a device has run out."""
    is_of_jax = isinstance(error, jax.errors.JaxRuntimeError)
    return is_of_jax and "RESOURCE_EXHAUSTED" in str(error)


def largest_width(
    num_bytes: Callable[[int], int], limit: int, *, most: int = MOST_LANES
) -> int | None:
    """The largest power of two that fits; None where not even one lane does.

    Every width that is tried is compiled, so those that cannot fit are passed over:
    memory grows at most in proportion to the width.

    Args:
      num_bytes: memory that so many lanes take; it may raise the device's own error
        where the compiler runs out of memory already.
      limit: bytes that they may take.
      most: largest width, rounded down to a power of two.
    """
    width = _power_of_two(most)
    while width:
        try:
            needed = num_bytes(width)
        except jax.errors.JaxRuntimeError as error:
            if not is_exhausted(error):
                raise
            width //= 2
            continue
        if needed <= limit:
            return width
        width = min(width // 2, _power_of_two(width * limit // needed))
    return None


def _power_of_two(number: int) -> int:
    """The largest power of two up to a number; 0 for 0."""
    return 1 << (number.bit_length() - 1) if number > 0 else 0


def narrowing(
    run: Callable[[np.ndarray, Execution], LaneStream[Results]],
    num_lanes: int,
    *,
    execution: Execution,
    on_narrower: OnNarrower | None,
) -> LaneStream[Results]:
    """Runs lanes, with half the width from where the memory of a device runs out.

    Results that were handed over before stay as they are; the other lanes begin anew.

    Args:
      run: runs the lanes with these numbers.
      num_lanes: number of lanes.
      execution: how they are run at first.
      on_narrower: is told how they go on; None for a warning.

    Raises:
      jax.errors.JaxRuntimeError: one lane by itself does not fit, or something else is
        wrong.
    """
    is_waiting = np.ones(num_lanes, bool)
    while True:
        stream = run(np.flatnonzero(is_waiting), execution)
        try:
            with contextlib.closing(stream):
                for numbers, results in stream:
                    is_waiting[numbers] = False
                    yield numbers, results
            return
        except jax.errors.JaxRuntimeError as error:
            if not is_exhausted(error) or execution.width == 1:
                raise
        # Beyond the handler, which holds on to the arrays of what has failed.
        del stream
        execution = dataclasses.replace(execution, width=execution.width // 2)
        (on_narrower or _warn)(execution)


def narrower_line(execution: Execution) -> str:
    """Says in one line that fewer lanes are run at once from here on."""
    return (
        f"out of memory with {2 * execution.width} lanes per device; going on with "
        f"{execution.width}, which rounds otherwise"
    )


def _warn(execution: Execution) -> None:
    warnings.warn(narrower_line(execution), stacklevel=3)
