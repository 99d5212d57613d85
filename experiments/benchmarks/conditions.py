"""Under which conditions a part of the accelerator suite measures."""

import dataclasses
import pathlib
from typing import NamedTuple

import jax

from invjax.inversion import execution
from invjax.inversion.execution import Execution


class Conditions(NamedTuple):
    """What every part of the accelerator suite is told.

    Attributes:
      is_small: whether sizes are those of a trial on CPU, which shows that everything
        runs and whose numbers mean nothing.
      weights_dir: folder of converted weights; None for the usual places.
      seconds: how long the part may take before it is cut off.
      folder: the part's own folder, for files beside its records.
    """

    is_small: bool
    weights_dir: str | None
    seconds: float
    folder: pathlib.Path

    @property
    def fast_precisions(self) -> tuple[str, ...]:
        """Precisions in which speed is measured; see `precisions`."""
        return ("tf32", "bfloat16") if jax.default_backend() == "gpu" else ("float32",)


def default_precision() -> str:
    """What JAX, and so an inversion, computes in unless told otherwise."""
    return "tf32" if jax.default_backend() == "gpu" else "float32"


def one_chunk(num_lanes: int) -> Execution:
    """One compiled loop of all lanes on one device; on CPU one by one, in threads."""
    default = dataclasses.replace(execution.default_execution(), num_devices=1)
    return dataclasses.replace(default, width=num_lanes) if default.scan else default
