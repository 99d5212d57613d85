"""Planning of lanes that differ in more than the flags say, by `lanes.Variant`."""

import dataclasses
from collections.abc import Callable, Sequence

from invjax.runs import lanes
from invjax.runs.errors import Refusal
from invjax.runs.lanes import Group, Lane, Variant
from invjax.runs.settings import Settings
from invjax.runs.targets import Target

_MOST_NAMES = 4


def plan(
    groups: Sequence[Group],
    settings: Settings,
    variants_of: Callable[[Group, Target], Sequence[Variant]],
) -> list[Lane]:
    """A lane for each variant of each lane that the settings ask for.

    Args:
      groups: representations and their targets.
      settings: settings of the run; under --smoke there are two lanes in all.
      variants_of: returns the variants of a target. Lanes of one and the same variant
        run together.
    """
    whole = dataclasses.replace(settings, smoke=False)
    planned: list[Lane] = []
    for group in groups:
        found = [
            lane._replace(variant=variant, path=f"{lane.path}_{variant.name}")
            for lane in lanes.plan([group], whole)
            for variant in variants_of(group, lane.target)
        ]
        numbers: dict[Variant | None, int] = {}
        for lane in found:
            numbers.setdefault(lane.variant, len(numbers))
        planned += sorted(found, key=lambda lane: numbers[lane.variant])
    return planned[:2] if settings.smoke else planned


def without_zero_targets(planned: Sequence[Lane]) -> tuple[list[Lane], list[Lane]]:
    """Lanes with something to invert, and those whose target is zero under the mask.

    No error relative to such a target exists. A line says which are left out.

    Raises:
      Refusal: nothing is left.
    """
    kept: list[Lane] = []
    left_out: list[Lane] = []
    for lane in planned:
        (left_out if lane.target.is_zero(lane.mask) else kept).append(lane)
    if not kept:
        raise Refusal("every target is zero under its mask: there is nothing to invert")
    if left_out:
        names = [
            f"{ln.target.name} {ln.path.removeprefix(f'{ln.target.name}/')}"
            for ln in left_out
        ]
        rest = ", ..." if len(names) > _MOST_NAMES else ""
        print(
            f"left out {len(left_out)} of {len(planned)} lanes, whose target is zero "
            f"under the mask: {', '.join(names[:_MOST_NAMES])}{rest}",
            flush=True,
        )
    return kept, left_out


def num_left_out(
    group: Group, left_out: Sequence[Lane], name: str, tv_weight: float
) -> int:
    """Number of a group's images that a variant's lanes lack, at one lambda_V."""
    images = {
        lane.target.name
        for lane in left_out
        if lane.group.name == group.name
        and (lane.variant_name, lane.tv_weight) == (name, tv_weight)
    }
    return len(images) + len(group.skipped)
