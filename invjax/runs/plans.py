"""The lanes of a run in order, before they are run: in memory, or by a list of images.

A plan says how many lanes there are, and hands some of them over when their turn comes.
What it says about them depends on nothing but what was asked for, so that every process
of a run, and every start of it, has the same plan.
"""

import abc
import hashlib
import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from invjax import identity
from invjax.images.sources import ImageSource
from invjax.runs import lanes, targets
from invjax.runs.errors import Refusal
from invjax.runs.lanes import Group, Lane
from invjax.runs.settings import Settings
from invjax.runs.skipped import Skipped
from invjax.runs.targets import Target
from invjax.types import Representation

NOTHING_TO_INVERT = (
    "its {name} code is zero everywhere, so no error relative to it exists"
)
"""Why a code is refused or passed over."""


class Planned(NamedTuple):
    """Some lanes of a plan.

    Attributes:
      lanes: the lanes, by their number.
      skipped: images that are passed over; their lanes are missing.
    """

    lanes: dict[int, Lane]
    skipped: list[Skipped]


class Plan(abc.ABC):
    """The lanes of a run, numbered from 0."""

    @property
    def num_lanes(self) -> int:
        """Number of lanes."""
        return sum(self.kinds)

    @property
    @abc.abstractmethod
    def kinds(self) -> list[int]:
        """Number of lanes of each kind, in order.

        Lanes of a kind take about equally long, and those of one image size are one
        compiled program.
        """

    @property
    @abc.abstractmethod
    def digest(self) -> str:
        """Digest of what is inverted, and how often."""

    @property
    @abc.abstractmethod
    def first_group(self) -> str:
        """Name of the representation whose images are the run's originals."""

    @abc.abstractmethod
    def example(self, kind: int) -> Lane:
        """A lane of a kind."""

    @abc.abstractmethod
    def lanes(self, first: int, stop: int) -> Planned:
        """The lanes from number `first` to before `stop`, all of one kind."""

    @abc.abstractmethod
    def with_scales(self, scales: Mapping[str, float | None]) -> "Plan":
        """The plan with the code scales that were settled when the run began.

        Args:
          scales: code scale by representation; None where there is none.
        """


class LoadedPlan(Plan):
    """A plan whose lanes are in memory.

    Args:
      planned: the lanes, in order.
    """

    def __init__(self, planned: Sequence[Lane]):
        self._planned = planned
        self._kinds = [
            len(list(members)) for _, members in itertools.groupby(planned, _kind)
        ]

    @property
    def kinds(self) -> list[int]:
        return self._kinds

    @property
    def digest(self) -> str:
        return _digest(
            f"{lane.path} {lane.target.image_id} {lane.start} {lane.tv_weight!r} "
            f"{lane.variant_name} {lane.group.name}{_given(lane.target)}"
            for lane in self._planned
        )

    @property
    def first_group(self) -> str:
        return self._planned[0].group.name

    def example(self, kind: int) -> Lane:
        return self._planned[sum(self._kinds[:kind])]

    def lanes(self, first: int, stop: int) -> Planned:
        return Planned(dict(enumerate(self._planned[first:stop], first)), [])

    def with_scales(self, scales: Mapping[str, float | None]) -> "LoadedPlan":
        del scales
        return self


class ListedPlan(Plan):
    """A plan whose images are read when their lanes are asked for, and dropped.

    Args:
      listed: the images.
      groups: representations, with a target of one of the images each, as an example.
      settings: settings of the run.
    """

    def __init__(
        self,
        listed: Sequence[ImageSource],
        groups: Sequence[Group],
        settings: Settings,
    ):
        self._listed = listed
        self._groups = groups
        self._settings = settings
        self._per_image = [len(lanes.places(group, "", settings)) for group in groups]
        kinds = [count * len(listed) for count in self._per_image]
        if settings.smoke:
            kinds = [min(kinds[0], 2)]
        self._kinds = kinds

    @property
    def kinds(self) -> list[int]:
        return self._kinds

    @property
    def digest(self) -> str:
        names = (f"{source.name} {source.origin}" for source in self._listed)
        return _digest(itertools.chain(names, (group.name for group in self._groups)))

    @property
    def first_group(self) -> str:
        return self._groups[0].name

    @property
    def groups(self) -> Sequence[Group]:
        """The representations, with one target each."""
        return self._groups

    def example(self, kind: int) -> Lane:
        group = self._groups[kind]
        return lanes.of_target(group, group.targets[0], self._settings)[0]

    def examples(self) -> list[Lane]:
        """As many lanes as there are, of one image, such as for an estimate."""
        return [
            self.example(kind)
            for kind, count in enumerate(self._kinds)
            for _ in range(count)
        ]

    def lanes(self, first: int, stop: int) -> Planned:
        kind, start = self._place(first)
        group, count = self._groups[kind], self._per_image[kind]
        begin, end = first - start, stop - start
        listed = self._listed[begin // count : -(-end // count)]
        numbers = {source.name: n for n, source in enumerate(listed, begin // count)}
        origins = {source.name: source.origin for source in listed}
        found, skipped = targets.of_images(listed, _exact(group), self._settings)
        planned = {}
        for target in found:
            if target.is_zero():
                skipped.append(self._without_code(target, origins[target.name], group))
                continue
            at = start + numbers[target.name] * count
            for number, lane in enumerate(
                lanes.of_target(group, target, self._settings), at
            ):
                if first <= number < stop:
                    planned[number] = lane
        return Planned(planned, skipped)

    def with_scales(self, scales: Mapping[str, float | None]) -> "ListedPlan":
        groups = [
            group._replace(code_scale=np.nan if scale is None else scale)
            for group in self._groups
            for scale in [scales[group.name]]
        ]
        return ListedPlan(self._listed, groups, self._settings)

    def _place(self, number: int) -> tuple[int, int]:
        """The kind of a lane, and the number of the first lane of that kind."""
        ends = np.cumsum(self._kinds)
        kind = int(np.searchsorted(ends, number, side="right"))
        return kind, int(ends[kind]) - self._kinds[kind]

    def _without_code(self, target: Target, origin: str, group: Group) -> Skipped:
        reason = lanes.nothing_to_invert(group.name)
        if self._settings.on_bad_image == "refuse":
            raise Refusal(f"{target.name}: {reason}")
        return Skipped(target.name, origin, reason, group.name)


def example_of(
    listed: Sequence[ImageSource], group: Group, settings: Settings
) -> Target:
    """The target of the first image that can be used.

    Raises:
      Refusal: there is none.
    """
    skipped = []
    for item in targets.stream(listed, _exact(group), settings):
        if isinstance(item, Skipped):
            skipped.append(item)
        elif not item.is_zero():
            return item
    if len(skipped) == len(listed):
        targets.refuse_none_left(0, skipped, settings)
    raise Refusal(f"--images={settings.images}: {lanes.nothing_to_invert(group.name)}")


def _given(target: Target) -> str:
    """Digests of the mask and of the image to start from, where there are any."""
    given = [item for item in (target.mask, target.initial) if item is not None]
    return "".join(f" {identity.code_id(item)}" for item in given)


def _kind(lane: Lane) -> tuple[object, ...]:
    """What lanes have in common that take about equally long."""
    return lane.group.name, lane.variant, lane.initial is not None


def _exact(group: Group) -> Representation:
    return lanes.in_float32(group.phi)


def _digest(parts: Iterable[str]) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part.encode(errors="surrogateescape"))
        digest.update(b"\n")
    return digest.hexdigest()[:16]
