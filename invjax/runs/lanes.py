"""The lanes of a run: planned, inverted chunk by chunk, and turned into records."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from invjax.inversion import presets
from invjax.inversion.execution import Execution, default_execution
from invjax.representations.cnn import CnnRepresentation
from invjax.runs.settings import Settings
from invjax.runs.targets import Target
from invjax.types import Representation


class Group(NamedTuple):
    """Targets of one representation; each image shape is a program of its own.

    Attributes:
      name: of the representation.
      phi: the representation.
      targets: what to invert.
      spread: mean distance between the codes of the set (N of the paper); NaN for
        fewer than two.
      skipped: names of the images left out, since their code is zero everywhere.
    """

    name: str
    phi: Representation
    targets: list[Target]
    spread: float
    skipped: tuple[str, ...] = ()


def in_float32(phi: Representation) -> Representation:
    """What makes targets and measures errors, whatever the descent's arithmetic is.

    So runs under --compute_dtype=float32 and bfloat16 ask for the same codes, and their
    errors can be compared.
    """
    if isinstance(phi, CnnRepresentation):
        return dataclasses.replace(phi, compute_dtype="float32")
    return phi


@dataclasses.dataclass(frozen=True, eq=False)
class Variant:
    """What a study does differently in some of its lanes.

    Attributes:
      name: stands in the records as "variant".
      keywords: of `inversion.invert_batch`: mask, beta, jitter, data_term, ...; also
        alpha_weight, which then counts in place of the settings'.
    """

    name: str
    keywords: Mapping[str, Any]


class Lane(NamedTuple):
    """One inversion; its picture is `path` below reconstructions/, without ending."""

    group: Group
    target: Target
    start: int
    tv_weight: float
    path: str
    variant: Variant | None = None


@dataclasses.dataclass(frozen=True)
class Outcome:
    """A finished lane: its line of metrics.jsonl, its image, and the image's code."""

    lane: Lane
    record: dict[str, Any]
    image: np.ndarray
    code: np.ndarray


def plan(groups: Sequence[Group], settings: Settings) -> list[Lane]:
    """Every lane of a run, group by group."""
    lanes = []
    for group in groups:
        tv_weights = settings.tv_weight or (presets.tv_weight(group.phi),)
        for target in group.targets:
            for tv_weight in tv_weights:
                for start in range(settings.num_starts):
                    folder = f"{target.name}/{group.name.replace('/', '_')}"
                    suffix = f"_tv_{tv_weight:g}" if len(tv_weights) > 1 else ""
                    path = f"{folder}/start_{start:03d}{suffix}"
                    lanes.append(Lane(group, target, start, tv_weight, path))
    return lanes[:2] if settings.smoke else lanes


def execution(settings: Settings) -> Execution:
    """How lanes run here: --batch_size of them side by side, on CPU a core each."""
    default = default_execution()
    if default.scan:
        return dataclasses.replace(default, width=settings.batch_size)
    num_threads = min(default.num_threads, settings.batch_size)
    return dataclasses.replace(default, num_threads=num_threads)


def keywords(phi: Representation, target: Target, settings: Settings) -> dict[str, Any]:
    """Of `inversion.invert_batch`: what the lanes of a call share."""
    return {
        "image_shape": target.image_shape,
        "preset": settings.preset,
        "num_steps": settings.steps(phi),
        "alpha_weight": settings.alpha_weight,
        "tolerance": settings.tolerance,
        "dead_relu": settings.dead_relu,
        "execution": execution(settings),
    }
