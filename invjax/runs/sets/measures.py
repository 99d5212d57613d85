"""How different the samples of one code are: a line of sets.jsonl each.

Ratios are to the mean distance between unrelated images, the photographs of the run.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from invjax import identity
from invjax.metrics import diversity, labels
from invjax.metrics.diversity import Distances
from invjax.metrics.labels import Judge
from invjax.metrics.lpips import Parameters
from invjax.networks.weights.pretrained import MissingWeights
from invjax.runs.lanes import Group
from invjax.runs.sets.methods import SampleSet
from invjax.runs.settings import Settings

NUM_COMPONENTS = 3
"""Principal components that are shown, fewer for fewer samples."""

_PAIRS = 2**32 - 1
"""The start whose key draws pairs; no run has that many."""

_UNDEFINED = (
    "relative_error relative_error_deviation normalised_error num_pairs rms rms_ratio "
    "dissimilarity dissimilarity_ratio lpips lpips_ratio pixel_deviation "
    "effective_rank participation_ratio leading_shares to_original_rms "
    "to_original_rms_ratio nearest nearest_rms nearest_rms_ratio "
    "nearest_dissimilarity nearest_lpips label label_consensus label_top1 label_in_top5"
).split()


class Measured(NamedTuple):
    """What is known of a set.

    Attributes:
      record: its line of sets.jsonl.
      per_sample: [s] each, what intervals over samples are of.
    """

    record: dict[str, Any]
    per_sample: dict[str, np.ndarray]


def load_labels(config: Settings) -> Judge | None:
    """EfficientNet-Lite0, or None with a line that says why."""
    try:
        return labels.load(weights_dir=config.weights_dir)
    except MissingWeights:
        print(f"no labels: {labels.DEFAULT_JUDGE} has no weights here")
        return None


def unrelated(
    group: Group, num_pairs: int, seed: int, judge: Parameters | None
) -> Distances | None:
    """Distances between the originals of a group; None without two of one size."""
    originals = [t.original for t in group.targets if t.original is not None]
    if len(originals) < 2 or len({image.shape for image in originals}) > 1:
        return None
    key = identity.lane_key(seed, 0, _PAIRS)
    pairs = diversity.pairs(key, len(originals), num_pairs=num_pairs)
    return diversity.pairwise(np.stack(originals), pairs, judge=judge)


def within(found: SampleSet, target_error: float, band: float) -> SampleSet:
    """The samples whose relative error is the target's, to a share `band` of it."""
    errors = found.values("relative_error")
    return found.chosen(np.abs(errors - target_error) <= band * target_error)


def measure(
    found: SampleSet,
    config: Settings,
    *,
    method: str,
    selection: str,
    num_pairs: int,
    null: Distances | None,
    judge: Parameters | None,
    truth: np.ndarray | None,
) -> Measured:
    """All measures of a set that it is large enough for; null where undefined.

    Args:
      found: the samples.
      config: of the run.
      method: how they were drawn.
      selection: which of the samples of a code they are.
      num_pairs: most pairs to take the distance of.
      null: from `unrelated`.
      judge: of LPIPS, if at hand.
      truth: [n], logits of the original, if they are known.
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
        key = identity.lane_key(config.seed, lane.target.image_id, _PAIRS)
        record["relative_error_deviation"] = float(
            np.std(per_sample["relative_error"], ddof=1)
        )
        record |= _between(key, found, num_pairs, null, judge)
    return Measured(record, per_sample)


def _between(
    key: jax.Array,
    found: SampleSet,
    num_pairs: int,
    null: Distances | None,
    judge: Parameters | None,
) -> dict[str, Any]:
    """Of the samples among each other."""
    pairs = diversity.pairs(key, len(found.images), num_pairs=num_pairs)
    distances = diversity.pairwise(found.images, pairs, judge=judge)
    record: dict[str, Any] = {"num_pairs": len(pairs)}
    for name, values in distances._asdict().items():
        record[name] = float(np.mean(values))
        if null is not None:
            record[f"{name}_ratio"] = getattr(diversity.relative(distances, null), name)
    variances = diversity.spectrum(found.images)
    total = max(float(np.sum(variances)), np.finfo(np.float64).tiny)
    shares = variances[: min(NUM_COMPONENTS, len(variances) - 1)] / total
    deviation = diversity.maps(found.images).deviation
    return record | {
        "pixel_deviation": float(np.sqrt(np.mean(np.square(deviation)))),
        "effective_rank": diversity.effective_rank(variances),
        "participation_ratio": diversity.participation_ratio(variances),
        "leading_shares": shares.tolist(),
    }


def _to_original(
    found: SampleSet,
    null: Distances | None,
    per_sample: dict[str, np.ndarray],
) -> dict[str, Any]:
    """Of the samples to the original, by what their records say."""
    if found.lane.target.original is None:
        return {}
    rms = per_sample["to_original_rms"] = 10 ** (-found.values("psnr") / 20)
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
        record["label_top1"] = agreed.top1
        record["label_in_top5"] = agreed.in_top5
    return record


def best_matched(measured: Sequence[Measured]) -> Measured:
    """Of one code's matched sets, one per lambda, the first of the largest."""
    return max(measured, key=lambda item: item.record["num_samples"])
