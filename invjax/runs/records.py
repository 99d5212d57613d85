"""DOC: to be written."""

from typing import Any

import jax
import numpy as np

from invjax.inversion import presets
from invjax.inversion.api import Result
from invjax.inversion.result import FAILED, STATUS_WORDS
from invjax.metrics import errors
from invjax.metrics.lpips import Parameters
from invjax.runs.lanes import Lane, Variant
from invjax.runs.settings import Settings

_likeness = jax.jit(errors.likeness)


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
    result: Result,
    code: np.ndarray,
    settings: Settings,
    judge: Parameters | None,
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
        "status": STATUS_WORDS[int(result.status)],
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
    if result.status == FAILED:
        return record
    mask = mask_of(lane)
    if mask is None:
        record["relative_error"] = float(errors.relative_error(code, lane.target.code))
        record["normalised_error"] = float(
            errors.normalised_error(code, lane.target.code, lane.group.spread)
        )
    else:
        # Of what was asked for alone; the set's spread is of whole codes.
        record["relative_error"] = float(
            errors.relative_error(mask * code, mask * lane.target.code)
        )
    if lane.target.original is not None:
        found = _likeness(result.image, lane.target.original, parameters=judge)
        record["psnr"], record["ssim"] = float(found.psnr), float(found.ssim)
        record["lpips"] = None if judge is None else float(found.lpips)
    return record
