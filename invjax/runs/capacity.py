"""Whether a chunk of lanes fits on the device, asked before anything runs."""

from collections.abc import Sequence

import jax
import numpy as np

from invjax.inversion import api
from invjax.runs import lanes
from invjax.runs.errors import Refusal
from invjax.runs.lanes import Group, Lane
from invjax.runs.settings import Settings
from invjax.runs.targets import Target


def check(groups: Sequence[Group], settings: Settings) -> None:
    """Compares the memory of the largest chunk of each group with the device's.

    Only on devices that say how much they have, that is on accelerators. What is
    compiled for the prediction is what the run then uses.

    Raises:
      Refusal: naming --batch_size, where a chunk cannot fit.
    """
    limit = device_limit()
    if limit is None:
        return
    for group in groups:
        largest = max(group.targets, key=lambda target: np.prod(target.image_shape))
        needed = _needed(group, largest, settings)
        if needed is None or needed > limit:
            width = lanes.execution(settings).width
            raise Refusal(
                f"--batch_size={width}: {width} lanes of {group.name} take "
                f"{_gibibytes(needed)}, and the device has {_gibibytes(limit)}; a "
                "smaller one may fit"
            )


def device_limit() -> int | None:
    """Bytes that JAX may use on its first device; None where it does not say."""
    return (jax.local_devices()[0].memory_stats() or {}).get("bytes_limit")


def _needed(group: Group, target: Target, settings: Settings) -> int | None:
    """Bytes of a chunk; None where the compiler already runs out of memory."""
    keywords = Lane(group, target, 0, 0.0, "").keywords(settings)
    try:
        return api.chunk_bytes(target.code, group.phi, **keywords)
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        return None


def _gibibytes(count: int | None) -> str:
    return "more than there is" if count is None else f"{count / 2**30:.3g} GiB"
