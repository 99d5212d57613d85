"""Planning of lanes that differ in more than the flags say, by `lanes.Variant`."""

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np

from invjax.runs import lanes, records
from invjax.runs.errors import Refusal
from invjax.runs.lanes import Group, Lane, Variant
from invjax.runs.settings import Settings
from invjax.runs.targets import Target

_MOST_NAMES = 4


def plan(
    groups: Sequence[Group],
    config: Settings,
    variants_of: Callable[[Group, Target], Sequence[Variant]],
) -> list[Lane]:
    """A lane for each variant of each lane that the flags ask for; two under --smoke.

    Args:
      groups: representations and their targets.
      config: settings of the run.
      variants_of: of a target; lanes of one and the same variant run together.
    """
    whole = dataclasses.replace(config, smoke=False)
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
    return planned[:2] if config.smoke else planned


def without_dead(
    planned: Sequence[Lane],
) -> tuple[list[Lane], list[Lane]]:
    """Lanes with something to invert, and those whose target is zero under the mask.

    No error relative to such a target exists. The second ones are told in one line.

    Raises:
      Refusal: nothing is left.
    """
    living: list[Lane] = []
    dead: list[Lane] = []
    for lane in planned:
        mask = records.mask_of(lane)
        code = lane.target.code if mask is None else mask * lane.target.code
        # As the data term has it: tiny codes square to zero in float32.
        (living if np.sum(np.square(code)) > 0 else dead).append(lane)
    if not living:
        raise Refusal("every target is zero under its mask: there is nothing to invert")
    if dead:
        names = [f"{lane.target.name} {lane.path.split('/', 1)[1]}" for lane in dead]
        rest = ", ..." if len(names) > _MOST_NAMES else ""
        print(
            f"left out {len(dead)} of {len(planned)} lanes, whose target is zero under "
            f"the mask: {', '.join(names[:_MOST_NAMES])}{rest}",
            flush=True,
        )
    return living, dead


def num_left_out(
    group: Group, dead: Sequence[Lane], name: str, tv_weight: float
) -> int:
    """Images of a group that a variant's lanes lack, at one lambda."""
    images = {
        lane.target.name
        for lane in dead
        if lane.group.name == group.name
        and (name_of(lane), lane.tv_weight) == (name, tv_weight)
    }
    return len(images) + len(group.skipped)


def name_of(lane: Lane) -> str:
    """Of a lane's variant."""
    assert lane.variant is not None
    return lane.variant.name
