"""The lanes of a run: planned, inverted chunk by chunk, and turned into records."""

import dataclasses
import itertools
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from experiments.settings import Settings
from experiments.targets import Target
from invjax import engine, inversion, lpips, metrics, presets, results
from invjax.representations import tracing
from invjax.representations.cnn import CnnRepresentation
from invjax.types import Representation

_WIDTHS_PER_CALL = 8


Item = TypeVar("Item")


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


def chunks(lanes: Sequence[Lane], settings: Settings) -> Iterator[list[Lane]]:
    """Lanes that run in one call: of one group, as many as run side by side.

    With a tolerance a compiled loop is given several times as many, so that lanes that
    end early leave their slots to others.
    """
    most = execution(settings).lanes_at_once
    if execution(settings).scan and settings.tolerance is not None:
        most *= _WIDTHS_PER_CALL
    return split(lanes, most, program=_program)


def split(
    items: Iterable[Item], most: int, *, program: Callable[[Item], Any]
) -> Iterator[list[Item]]:
    """Neighbours that one compiled program serves, up to `most` of them at a time."""
    for _, group in itertools.groupby(items, program):
        while chunk := list(itertools.islice(group, most)):
            yield chunk


def execution(settings: Settings) -> engine.Execution:
    """How lanes run here: --batch_size of them side by side, on CPU a core each."""
    default = engine.default_execution()
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


def invert(
    chunk: Sequence[Lane], settings: Settings, judge: lpips.Parameters | None = None
) -> list[Outcome]:
    """Runs lanes of one group; without `judge` they have no LPIPS."""
    group = chunk[0].group
    began = time.perf_counter()
    keys = [
        inversion.lane_key(settings.seed, lane.target.image_id, lane.start)
        for lane in chunk
    ]
    variant = chunk[0].variant
    shared = keywords(group.phi, chunk[0].target, settings)
    shared |= variant.keywords if variant else {}
    batch = inversion.invert_batch(
        jnp.stack(keys),
        np.stack([lane.target.code for lane in chunk]),
        group.phi,
        tv_weight=np.array([lane.tv_weight for lane in chunk]),
        **shared,
    )
    seconds = (time.perf_counter() - began) / len(chunk)
    outcomes = []
    for number, lane in enumerate(chunk):
        result = jax.tree.map(lambda leaf, n=number: np.asarray(leaf)[n], batch)
        code = np.asarray(tracing.encode(in_float32(group.phi), result.image))
        record = record_of(lane, result, code, settings, judge)
        record["seconds"] = seconds
        outcomes.append(Outcome(lane, record, result.image, code))
    return outcomes


def _program(lane: Lane) -> tuple[str, tuple[int, int, int], Variant | None]:
    return lane.group.name, lane.target.image_shape, lane.variant


def alpha_weight(settings: Settings, *, variant: Variant | None = None) -> float:
    """lambda_alpha of a run, or of those of its lanes that are of a variant."""
    if variant is not None and "alpha_weight" in variant.keywords:
        return variant.keywords["alpha_weight"]
    if settings.alpha_weight is None:
        return presets.ALPHA_WEIGHT
    return settings.alpha_weight


def mask_of(lane: Lane) -> np.ndarray | None:
    """M of a lane's variant; None where the whole code counts."""
    return None if lane.variant is None else lane.variant.keywords.get("mask")


def record_of(
    lane: Lane,
    result: inversion.Result,
    code: np.ndarray,
    settings: Settings,
    judge: lpips.Parameters | None,
) -> dict[str, Any]:
    """The line of a result, however it was found; `code` is of its image."""
    record: dict[str, Any] = {
        "image": lane.target.name,
        "representation": lane.group.name,
        "start": lane.start,
        "seed": settings.seed,
        "preset": settings.preset,
        "tv_weight": lane.tv_weight,
        "alpha_weight": alpha_weight(settings, variant=lane.variant),
        "status": results.STATUS_WORDS[int(result.status)],
        "num_steps": int(result.num_steps),
        "dead_start": bool(result.dead_start),
        "num_revivals": int(result.num_revivals),
        "energy": float(result.energy),
        "objective": float(result.objective),
        "data_term": float(result.terms.data),
        "alpha_term": float(result.terms.alpha),
        "tv_term": float(result.terms.tv),
        "relative_error": None,
        "normalised_error": None,
        "psnr": None,
        "ssim": None,
        "lpips": None,
    }
    if lane.variant is not None:
        record["variant"] = lane.variant.name
    if result.status == results.FAILED:
        return record
    mask = mask_of(lane)
    if mask is None:
        record["relative_error"] = metrics.relative_error(code, lane.target.code)
        record["normalised_error"] = metrics.normalised_error(
            code, lane.target.code, lane.group.spread
        )
    else:
        # Of what was asked for alone; the set's spread is of whole codes.
        record["relative_error"] = metrics.relative_error(
            mask * code, mask * lane.target.code
        )
    if lane.target.original is not None:
        record["psnr"] = metrics.psnr(result.image, lane.target.original)
        record["ssim"] = metrics.ssim(result.image, lane.target.original)
        if judge is not None:
            record["lpips"] = metrics.lpips(judge, result.image, lane.target.original)
    return record
