"""How many lanes fit on the device, asked before anything runs."""

from collections.abc import Sequence

import jax
import numpy as np

from invjax.inversion import api, memory
from invjax.inversion.execution import default_execution
from invjax.runs import lanes
from invjax.runs.errors import Refusal
from invjax.runs.lanes import Group, Lane
from invjax.runs.settings import Settings
from invjax.runs.targets import Target

DEFAULT_ON_CPU = 16
"""--batch_size by default on CPU: most inversions side by side, whatever the cores."""


def check(groups: Sequence[Group], settings: Settings) -> None:
    """Compares the memory of the largest chunk of each group with the device's.

    Only where --batch_size is given, and on devices that say how much they have, that
    is on accelerators. What is compiled for the prediction is what the run then uses.

    Raises:
      Refusal: naming --batch_size, where a chunk cannot fit.
    """
    limit = memory.device_limit()
    if limit is None or settings.batch_size is None:
        return
    for group in groups:
        needed = _needed(group, _largest(group), settings)
        if needed is None or needed > limit:
            width = lanes.execution(settings).width
            raise Refusal(
                f"--batch_size={width}: {width} lanes of {group.name} take "
                f"{_gibibytes(needed)}, and the device has {_gibibytes(limit)}; a "
                "smaller one may fit"
            )


def batch_size(examples: Sequence[Lane], settings: Settings, *, num_lanes: int) -> int:
    """--batch_size as it is or, where it is not given, as the device suggests.

    On accelerators it is the largest power of two that fits for lanes of every kind, at
    most `memory.MOST_LANES` and no more than there are lanes for. It is part of the
    results' identity: a run settles it once, and records it.

    Args:
      examples: a lane of every kind that one compiled program serves.
      settings: settings of the run.
      num_lanes: number of lanes of the run.

    Raises:
      Refusal: not even one lane fits.
    """
    if settings.batch_size is not None:
        return settings.batch_size
    if not default_execution().scan:
        return DEFAULT_ON_CPU
    on_each = -(-num_lanes // jax.local_device_count())
    most = min(memory.MOST_LANES, 1 << max(on_each - 1, 0).bit_length())
    for lane in examples:
        keywords = lane.keywords(settings)
        try:
            width = api.fitting_width(
                lane.target.code, lane.group.phi, most=most, **keywords
            )
        except MemoryError as error:
            raise Refusal(f"{lane.group.name}: {error}") from None
        most = min(most, width)
    return most


def _largest(group: Group) -> Target:
    return max(group.targets, key=lambda target: np.prod(target.image_shape))


def _needed(group: Group, target: Target, settings: Settings) -> int | None:
    """Bytes of a chunk; None where the compiler already runs out of memory."""
    keywords = Lane(group, target, 0, 0.0, "").keywords(settings)
    try:
        return api.chunk_bytes(target.code, group.phi, **keywords)
    except jax.errors.JaxRuntimeError as error:
        if not memory.is_exhausted(error):
            raise
        return None


def _gibibytes(count: int | None) -> str:
    return "more than there is" if count is None else f"{count / 2**30:.3g} GiB"
