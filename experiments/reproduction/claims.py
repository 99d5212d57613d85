"""Whether the findings of the papers' text hold in a run, computed from its records.

A test takes the records of one study, lines of its metrics.jsonl, and returns whether
the claim of the same name in printed.toml holds, with the numbers that show it. Nothing
is decided by hand; what a run cannot show is not measured.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from experiments.reproduction.printed import Claim
from invjax.inversion import presets
from invjax.networks import NETWORKS, layers
from invjax.networks.layers import Geometry
from invjax.representations import paper

Records = Sequence[Mapping[str, Any]]

_STRONG = 0.5
"""Smallest rank correlation that counts as a trend."""

_TOLERANCE = 0.01
"""Errors that differ by at most one percentage point count as equal."""


class Verdict(NamedTuple):
    """Whether a claim holds, None where it is not measured; and the evidence."""

    holds: bool | None
    evidence: str


def verdict(claim: Claim, records: Records | None) -> Verdict:
    """Whether a claim holds by a study's records.

    Args:
      claim: the claim.
      records: records of its study; None for a study that did not run. Nothing is
        measured where they lack a field that the test needs.
    """
    if records is None:
        return Verdict(None, f"the study {claim.study} is not part of this report")
    test = TESTS[claim.id]
    done = [record for record in records if record.get("status") != "failed"]
    try:
        return test(done)
    except KeyError as error:
        return Verdict(None, f"the records have no {error.args[0]}")


def spearman(first: Sequence[float], second: Sequence[float]) -> float:
    """Rank correlation, equal values sharing a rank; NaN for under three pairs."""
    if len(first) < 3:
        return math.nan
    one, two = _ranks(np.asarray(first)), _ranks(np.asarray(second))
    if min(np.std(one), np.std(two)) == 0:
        return math.nan
    return float(np.corrcoef(one, two)[0, 1])


def _ranks(values: np.ndarray) -> np.ndarray:
    _, group, counts = np.unique(values, return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts - 1) / 2)[group]


def _fuzzier_with_depth(records: Records) -> Verdict:
    weight, names, values = _by_depth(records, "ssim")
    rho = spearman(range(len(values)), values)
    if math.isnan(rho):
        return _few(names)
    return Verdict(
        rho <= -_STRONG,
        f"SSIM {values[0]:.2f} at {names[0]}, {values[-1]:.2f} at {names[-1]}; "
        f"Spearman {rho:.2f} over {len(names)} layers at lambda_V = {weight:g}",
    )


def _error_by_depth(records: Records) -> Verdict:
    weight, names, values = _by_depth(records, "normalised_error")
    rho = spearman(range(len(values)), values)
    if math.isnan(rho):
        return _few(names)
    worst = names[int(np.argmax(values))]
    grows = "grows with depth" if rho >= _STRONG else "does not grow with depth"
    return Verdict(
        rho < _STRONG,
        f"the error {grows}: Spearman {rho:.2f} over {len(names)} layers at lambda_V "
        f"= {weight:g}, largest at {worst} ({max(values):.1%})",
    )


def _rarely_above_20(records: Records) -> Verdict:
    errors = []
    for record in records:
        chosen = chosen_weight(record["representation"])
        if record["normalised_error"] is not None and record["tv_weight"] == chosen:
            errors.append(record["normalised_error"])
    if not errors:
        return Verdict(
            None, "no layer was inverted at its lambda_V, two images or more"
        )
    above = int(np.sum(np.array(errors) > 0.2))
    fraction = above / len(errors)
    return Verdict(
        fraction < 0.25,
        f"{above} of {len(errors)} reconstructions exceed it ({fraction:.0%})",
    )


def _bilinear_halves(records: Records) -> Verdict:
    return _shallow(records, "hog", "hogb", lambda hog, hogb: hogb < hog / 2)


def _dsift_like_hogb(records: Records) -> Verdict:
    return _shallow(
        records, "hogb", "dsift", lambda hogb, dsift: abs(hogb - dsift) <= _TOLERANCE
    )


def _spikes_of_beta_1(records: Records) -> Verdict:
    chosen = [r for r in records if r["jitter"] == 1 and r["spikes"] is not None]
    groups = _means(chosen, "spikes", "representation", "lambda_V", "beta")
    pairs = {
        key[:2]: (value, groups[(*key[:2], 2.0)])
        for key, value in groups.items()
        if key[2] == 1.0 and (*key[:2], 2.0) in groups
    }
    # The paper's figure is of an early subsampling layer.
    pairs = {key: pair for key, pair in pairs.items() if _is_pool(key[0])}
    if not pairs:
        return Verdict(None, "no subsampling layer was inverted with both exponents")
    first = min(pairs, key=lambda key: (key[0], key[1]))
    with_1, with_2 = pairs[first]
    return Verdict(
        with_1 > 1.1 * with_2,
        f"{first[0]}, lambda_V = {first[1]:g}: spikes {with_1:.2f} with beta = 1, "
        f"{with_2:.2f} with beta = 2 (about 1 is none)",
    )


def _smoother_with_weight(records: Records) -> Verdict:
    chosen = [r for r in records if r["jitter"] == 1 and r["beta"] == 2.0]
    means = _means(chosen, "mean_gradient", "representation", "lambda_V")
    found: dict[str, list[tuple[float, float]]] = {}
    for (name, weight), value in means.items():
        found.setdefault(name, []).append((weight, value))
    found = {name: sorted(rows) for name, rows in found.items() if len(rows) > 1}
    if not found:
        return Verdict(None, "no layer was inverted with several weights")
    falling = [name for name, rows in found.items() if rows[-1][1] < rows[0][1]]
    evidence = "; ".join(
        f"{name} {rows[0][1]:.1f} to {rows[-1][1]:.1f}" for name, rows in found.items()
    )
    return Verdict(
        len(falling) == len(found),
        f"mean gradient in grey levels, smallest to largest weight: {evidence}",
    )


def _starts_keep_label(records: Records) -> Verdict:
    photographs = [r for r in records if r["image"] != "abstract"]
    rates = _means(photographs, "classifier_top1", "representation")
    if not rates:
        return Verdict(None, "no classifier's weights were at hand")
    evidence = "; ".join(f"{name} {rate:.0%}" for (name,), rate in rates.items())
    return Verdict(
        min(rates.values()) > 0.5,
        f"starts that are called what the original is called: {evidence}",
    )


def _abstract_is_captured(records: Records) -> Verdict:
    means = _means(records, "relative_error", "representation", "image")
    parts, holds = [], True
    for name in dict.fromkeys(name for name, image in means if image == "abstract"):
        others = [
            v for (n, image), v in means.items() if n == name and image != "abstract"
        ]
        if others:
            own = means[(name, "abstract")]
            holds &= own <= max(others) + _TOLERANCE
            parts.append(
                f"{name} {own:.1%}, photographs {min(others):.1%} to {max(others):.1%}"
            )
    if not parts:
        return Verdict(None, "no layer was inverted for a pattern and for photographs")
    return Verdict(holds, f"relative errors: {'; '.join(parts)}")


def _effective_field(records: Records) -> Verdict:
    sides = _means(records, "effective_side", "representation")
    fields = _means(records, "field_side", "representation")
    if not sides:
        return Verdict(None, "no effective field could be measured")
    smaller = [key for key in sides if sides[key] < fields[key]]
    evidence = "; ".join(
        f"{key[0]} {sides[key]:.0f} of {fields[key]:.0f} px" for key in sides
    )
    return Verdict(
        len(smaller) > len(sides) / 2, f"effective of theoretical: {evidence}"
    )


def _extent_grows(records: Records) -> Verdict:
    sides = _means(records, "effective_side", "representation")
    names, values = [name for (name,) in sides], list(sides.values())
    rho = spearman(range(len(values)), values)
    if math.isnan(rho):
        return _few(names)
    return Verdict(
        rho >= _STRONG,
        f"{values[0]:.0f} px at {names[0]}, {values[-1]:.0f} at {names[-1]}; Spearman "
        f"{rho:.2f} over {len(names)} layers",
    )


def _deep_needs_weight(records: Records) -> Verdict:
    means = _means(records, "naturalness", "representation", "tv_weight")
    best: dict[str, float] = {}
    for name in dict.fromkeys(name for name, _ in means):
        mine = {w: v for (other, w), v in means.items() if other == name and w > 0}
        if len(mine) > 1:
            best[name] = max(mine, key=lambda weight: mine[weight])
    rho = spearman(range(len(best)), list(best.values()))
    if math.isnan(rho):
        return _few(list(best))
    evidence = "; ".join(f"{name} {weight:g}" for name, weight in best.items())
    return Verdict(
        rho >= _STRONG,
        f"most natural at lambda_V: {evidence}; Spearman {rho:.2f}",
    )


def _two_streams(records: Records) -> Verdict:
    groups = [r for r in records if r["variant"] != "all"]
    chroma = _means(groups, "chroma_fraction", "representation", "variant")
    detail = _means(groups, "high_frequency_fraction", "representation", "variant")
    parts, opposed = [], []
    for name in dict.fromkeys(name for name, _ in chroma):
        pair = [variant for other, variant in chroma if other == name]
        if len(pair) == 2:
            one, two = ((chroma[name, v], detail[name, v]) for v in pair)
            opposed.append((one[0] - two[0]) * (one[1] - two[1]) < 0)
            values = f"{one[0]:.0%} and {two[0]:.0%}, {one[1]:.1%} and {two[1]:.1%}"
            parts.append(f"{name} ({pair[0]}, {pair[1]}) {values}")
    if not parts:
        return Verdict(None, "no layer was inverted from two groups")
    # Of the earliest layer: the paper has them apart up to norm2.
    return Verdict(
        opposed[0], f"fractions of colour, of high frequencies: {'; '.join(parts)}"
    )


def _unregularised_unnatural(records: Records) -> Verdict:
    names = dict.fromkeys(record["representation"] for record in records)
    parts, holds = [], True
    for name in names:
        mine = [r for r in records if r["representation"] == name]
        with_prior = [r for r in mine if r["tv_weight"] == chosen_weight(name)]
        with_prior = with_prior or [r for r in mine if r["tv_weight"] > 0]
        without = [r for r in mine if r["tv_weight"] == 0]
        if not (with_prior and without):
            continue
        errors = [_mean(rows, "relative_error") for rows in (without, with_prior)]
        scores = [_mean(rows, "naturalness") for rows in (without, with_prior)]
        holds &= errors[0] <= errors[1] + _TOLERANCE and scores[0] < scores[1]
        parts.append(
            f"{name}: error {errors[0]:.1%} against {errors[1]:.1%}, naturalness "
            f"{scores[0]:.2f} against {scores[1]:.2f}"
        )
    if not parts:
        return Verdict(None, "no layer was inverted with and without a regulariser")
    return Verdict(holds, f"without against with: {'; '.join(parts)}")


def _beyond_photographs(records: Records) -> Verdict:
    ratios = [r["relative_activation"] for r in records]
    ratios = [ratio for ratio in ratios if ratio is not None]
    if not ratios:
        return Verdict(None, "no unit is positive on the photographs")
    beyond = int(np.sum(np.array(ratios) > 2))
    return Verdict(
        beyond > len(ratios) / 2,
        f"{beyond} of {len(ratios)} pictures excite their neuron more than twice as "
        "much as the photographs at hand do, in the median "
        f"{np.median(ratios):.1f} times",
    )


def _classes_recognised(records: Records) -> Verdict:
    named = [r["label"] == r["unit"] for r in records if r["label"] is not None]
    if not named:
        return Verdict(None, "no classifier's weights were at hand")
    return Verdict(
        sum(named) > len(named) / 2, f"{sum(named)} of {len(named)} pictures are"
    )


def _deep_caricatures_grow(records: Records) -> Verdict:
    means = _means(records, "growth", "representation")
    values = list(means.values())
    if len(values) < 2:
        return _few([name for (name,) in means])
    evidence = "; ".join(f"{name} {value:.2f}" for (name,), value in means.items())
    is_trend = values[-1] > values[0]
    if len(values) > 2:
        rho = spearman(range(len(values)), values)
        is_trend, evidence = rho >= _STRONG, f"{evidence}; Spearman {rho:.2f}"
    return Verdict(
        is_trend and values[-1] > 1, f"growth of the code, by depth: {evidence}"
    )


TESTS: Mapping[str, Callable[[Records], Verdict]] = {
    "fuzzier_with_depth": _fuzzier_with_depth,
    "error_by_depth": _error_by_depth,
    "rarely_above_20": _rarely_above_20,
    "bilinear_halves": _bilinear_halves,
    "dsift_like_hogb": _dsift_like_hogb,
    "spikes_of_beta_1": _spikes_of_beta_1,
    "smoother_with_weight": _smoother_with_weight,
    "starts_keep_label": _starts_keep_label,
    "abstract_is_captured": _abstract_is_captured,
    "effective_field": _effective_field,
    "extent_grows": _extent_grows,
    "two_streams": _two_streams,
    "unregularised_unnatural": _unregularised_unnatural,
    "deep_needs_weight": _deep_needs_weight,
    "beyond_photographs": _beyond_photographs,
    "classes_recognised": _classes_recognised,
    "deep_caricatures_grow": _deep_caricatures_grow,
}
"""Tests by the ids of claims; each may raise KeyError for a field that is missing."""


def chosen_weight(representation: str) -> float | None:
    """lambda_V that presets take for a representation by name; None for unknown ones.

    The paper's, in bold in its Table 3, for layers like CNN-A's.
    """
    if representation in paper.SHALLOW:
        return presets.tv_weight(paper.SHALLOW[representation])
    network, _, layer = representation.partition("/")
    if network not in NETWORKS:
        return None
    table = NETWORKS[network]
    for row in layers.geometry(table.layers, table.image_shape):
        if row.name == layer:
            return presets.tv_weight(_Layer(representation, row))
    return None


class _Layer(NamedTuple):
    """A layer without weights, as far as `presets.tv_weight` looks at it."""

    name: str
    geometry: Geometry


def _by_depth(records: Records, field: str) -> tuple[float, list[str], list[float]]:
    """One lambda_V, the layers in their order and the means of a field.

    Of the weights there are, the middle one: the same prior for all layers.
    """
    weights = sorted({record["tv_weight"] for record in records})
    if not weights:
        return math.nan, [], []
    weight = weights[len(weights) // 2]
    same = [record for record in records if record["tv_weight"] == weight]
    means = _means(same, field, "representation")
    return weight, [name for (name,) in means], list(means.values())


def _shallow(
    records: Records, first: str, second: str, test: Callable[[float, float], bool]
) -> Verdict:
    """A test of two errors, by the paper's own method if it was run."""
    for preset in ("cvpr2015", "fast"):
        mine = [r for r in records if r["preset"] == preset]
        means = _means(mine, "normalised_error", "representation")
        if (first,) in means and (second,) in means:
            pair = means[(first,)], means[(second,)]
            evidence = f"{first} {pair[0]:.1%}, {second} {pair[1]:.1%} with {preset}"
            return Verdict(test(*pair), evidence)
    return Verdict(None, f"{first} and {second} were not both inverted, of two images")


def _few(names: Sequence[str]) -> Verdict:
    return Verdict(None, f"too few layers to tell: {', '.join(names) or 'none'}")


def _is_pool(representation: str) -> bool:
    layer = representation.partition("/")[2]
    return layer.startswith(("pool", "mpool", "norm"))


def _mean(records: Records, field: str) -> float:
    values = [record[field] for record in records if record[field] is not None]
    return float(np.mean(values)) if values else math.nan


def _means(records: Records, field: str, *keys: str) -> dict[tuple[Any, ...], float]:
    """Means of a field by the values of others, in order; undefined values left out."""
    groups: dict[tuple[Any, ...], list[float]] = {}
    for record in records:
        if record[field] is not None:
            groups.setdefault(tuple(record[key] for key in keys), []).append(
                record[field]
            )
    return {key: float(np.mean(values)) for key, values in groups.items()}
