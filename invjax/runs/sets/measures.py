"""How different the samples of one code are: a line of sets.jsonl for each set.

Columns that end in _ratio are divided by the mean distance between unrelated images,
the photographs of the run.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from invjax import identity
from invjax.metrics import diversity, labels
from invjax.metrics.diversity import Distances
from invjax.metrics.lpips import Parameters
from invjax.runs.lanes import Group
from invjax.runs.sets.methods import SampleSet
from invjax.runs.settings import Settings

NUM_COMPONENTS = 3
"""Principal components that are shown, fewer for fewer samples."""

_PAIRS = 2**32 - 1
"""Number of a start that no run has; its key draws pairs."""

_UNDEFINED = (
    "relative_error relative_error_deviation normalised_error num_pairs rms rms_ratio "
    "dissimilarity dissimilarity_ratio lpips lpips_ratio pixel_deviation "
    "effective_rank participation_ratio leading_fractions to_original_rms "
    "to_original_rms_ratio nearest nearest_rms nearest_rms_ratio "
    "nearest_dissimilarity nearest_lpips label label_consensus label_top1 label_in_top5"
).split()


class Measured(NamedTuple):
    """What has been measured of a set.

    Attributes:
      record: its line of sets.jsonl.
      per_sample: [s] each, the numbers that bootstrap intervals over samples need.
    """

    record: dict[str, Any]
    per_sample: dict[str, np.ndarray]


def unrelated(
    group: Group, num_pairs: int, seed: int, lpips_parameters: Parameters | None
) -> Distances | None:
    """Distances between the originals of a group; None without two of one size."""
    originals = [t.original for t in group.targets if t.original is not None]
    if len(originals) < 2 or len({image.shape for image in originals}) > 1:
        return None
    key = identity.lane_key(seed, 0, _PAIRS)
    pairs = diversity.pairs(key, len(originals), num_pairs=num_pairs)
    return diversity.pairwise(np.stack(originals), pairs, parameters=lpips_parameters)


def within(found: SampleSet, target_error: float, band: float) -> SampleSet:
    """The samples whose relative error is within `band` times the target of it."""
    errors = found.values("relative_error")
    return found.chosen(np.abs(errors - target_error) <= band * target_error)


def measure(
    found: SampleSet,
    settings: Settings,
    *,
    method: str,
    selection: str,
    num_pairs: int,
    null: Distances | None,
    lpips_parameters: Parameters | None,
    truth: np.ndarray | None,
) -> Measured:
    """All measures of a set that it is large enough for; null where undefined.

    Args:
      found: the samples.
      settings: settings of the run.
      method: how the samples were drawn.
      selection: which of the samples of a code they are: "all" or "matched".
      num_pairs: largest number of pairs whose distance is measured.
      null: distances between unrelated images, from `unrelated`.
      lpips_parameters: weights of LPIPS; None where they are not at hand.
      truth: [n], logits of the original; None where they are not known.
    """
    lane = found.lane
    record: dict[str, Any] = {
        "image": lane.target.name,
        "representation": lane.group.name,
        "method": method,
        "tv_weight": lane.tv_weight,
        "selection": selection,
        "num_samples": len(found.images),
        "num_failed": found.num_failed,
        "num_dead_starts": found.num_dead_starts,
        **dict.fromkeys(_UNDEFINED),
        **found.diagnostics,
    }
    per_sample: dict[str, np.ndarray] = {}
    if len(found.images) > 0:
        per_sample["relative_error"] = found.values("relative_error")
        record["relative_error"] = float(np.mean(per_sample["relative_error"]))
        record["normalised_error"] = float(np.mean(found.values("normalised_error")))
        record |= _to_original(found, null, per_sample)
        record |= _labels(found.logits, truth, per_sample)
    if len(found.images) > 1:
        key = identity.lane_key(settings.seed, lane.target.image_id, _PAIRS)
        record["relative_error_deviation"] = float(
            np.std(per_sample["relative_error"], ddof=1)
        )
        record |= _between(key, found, num_pairs, null, lpips_parameters)
    return Measured(record, per_sample)


def _between(
    key: jax.Array,
    found: SampleSet,
    num_pairs: int,
    null: Distances | None,
    lpips_parameters: Parameters | None,
) -> dict[str, Any]:
    """Distances of the samples among each other, and the size of their set."""
    pairs = diversity.pairs(key, len(found.images), num_pairs=num_pairs)
    distances = diversity.pairwise(found.images, pairs, parameters=lpips_parameters)
    record: dict[str, Any] = {"num_pairs": len(pairs)}
    for name, values in distances._asdict().items():
        record[name] = float(np.mean(values))
        if null is not None:
            ratio = getattr(diversity.relative(distances, null), name)
            record[f"{name}_ratio"] = float(ratio)
    variances = diversity.spectrum(found.images)
    total = max(float(np.sum(variances)), np.finfo(np.float64).tiny)
    fractions = variances[: min(NUM_COMPONENTS, len(variances) - 1)] / total
    deviation = diversity.maps(found.images).deviation
    return record | {
        "pixel_deviation": float(np.sqrt(np.mean(np.square(deviation)))),
        "effective_rank": float(diversity.effective_rank(variances)),
        "participation_ratio": float(diversity.participation_ratio(variances)),
        "leading_fractions": fractions.tolist(),
    }


def _to_original(
    found: SampleSet,
    null: Distances | None,
    per_sample: dict[str, np.ndarray],
) -> dict[str, Any]:
    """Distances of the samples to the original, which their records have."""
    if found.lane.target.original is None:
        return {}
    rms = per_sample["to_original_rms"] = found.values("rms")
    nearest = int(np.argmin(rms))
    record: dict[str, Any] = {
        "to_original_rms": float(np.mean(rms)),
        "nearest": found.paths[nearest],
        "nearest_rms": float(rms[nearest]),
        "nearest_dissimilarity": 1 - float(found.values("ssim")[nearest]),
        "nearest_lpips": float(found.values("lpips")[nearest]),
    }
    if null is not None:
        unit = float(np.mean(null.rms))
        per_sample["to_original_rms_ratio"] = rms / unit
        record["to_original_rms_ratio"] = float(np.mean(rms)) / unit
        record["nearest_rms_ratio"] = float(rms[nearest]) / unit
    return record


def _labels(
    logits: np.ndarray | None,
    truth: np.ndarray | None,
    per_sample: dict[str, np.ndarray],
) -> dict[str, Any]:
    """What the samples are called: by most of them, and as the original is."""
    if logits is None:
        return {}
    first = np.argmax(logits, axis=1)
    classes, counts = np.unique(first, return_counts=True)
    example = logits[np.argmax(first == classes[np.argmax(counts)])]
    record: dict[str, Any] = {
        "label": labels.guesses(example, count=1)[0].name,
        "label_consensus": float(np.max(counts) / len(first)),
    }
    if truth is not None:
        agreed = labels.label_agreement(logits, np.broadcast_to(truth, logits.shape))
        per_sample["label_top1"] = (first == np.argmax(truth)).astype(np.float64)
        record["label_top1"] = float(agreed.top1)
        record["label_in_top5"] = float(agreed.in_top5)
    return record


def best_matched(measured: Sequence[Measured]) -> Measured:
    """The largest of one code's matched sets, of which there is one per lambda_V."""
    return max(measured, key=lambda item: item.record["num_samples"])
