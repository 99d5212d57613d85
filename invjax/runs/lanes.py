"""The lanes of a run: groups of targets, variants, and the plan of what is inverted."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from invjax import files
from invjax.inversion import objective, presets
from invjax.inversion.execution import Execution, default_execution
from invjax.representations.cnn import CnnRepresentation
from invjax.representations.joint import JointRepresentation
from invjax.runs.settings import Settings
from invjax.runs.skipped import Skipped
from invjax.runs.targets import Target
from invjax.types import DataTerm, Representation


class Group(NamedTuple):
    """The targets of one representation.

    Attributes:
      name: name of the representation.
      phi: the representation.
      targets: the codes to invert.
      code_scale: mean distance between the codes of the set (N of the paper); NaN for
        fewer than two.
      skipped: names of the images that are left out because their code is zero.
      unread: images that are left out because they cannot be read, or because the
        representation does not take them.
    """

    name: str
    phi: Representation
    targets: list[Target]
    code_scale: float
    skipped: tuple[str, ...] = ()
    unread: tuple[Skipped, ...] = ()


@dataclasses.dataclass(frozen=True, eq=False)
class Variant:
    """What a study does differently in some of its lanes.

    Attributes:
      name: what the records call it; None where they need not tell.
      keywords: keywords of `api.invert_batch` that take the place of the settings'
        (mask, beta, jitter, data_term, preset, alpha_weight, ...).
    """

    name: str | None
    keywords: Mapping[str, Any]


class Lane(NamedTuple):
    """One inversion of a run.

    Attributes:
      group: group of its representation.
      target: the code.
      start: number of the start, from 0.
      tv_weight: lambda_V.
      path: its picture's path below reconstructions/, without ending.
      variant: what is different in it; None for nothing.
      initial: [h, w, c] to start from in place of noise.
    """

    group: Group
    target: Target
    start: int
    tv_weight: float
    path: str
    variant: Variant | None = None
    initial: np.ndarray | None = None

    @property
    def variant_name(self) -> str | None:
        """Name of the variant; None without one."""
        return None if self.variant is None else self.variant.name

    @property
    def code_key(self) -> tuple[str, str, float, Variant | None]:
        """What the starts of one code have in common."""
        return self.group.name, self.target.name, self.tv_weight, self.variant

    @property
    def mask(self) -> Any:
        """M, the mask over the code; None where the whole code counts."""
        return self._keyword("mask", self.target.mask)

    @property
    def data_term(self) -> DataTerm:
        """The data term that is minimised."""
        return self._keyword("data_term", objective.squared_error)

    def preset(self, settings: Settings) -> str:
        """Name of the preset."""
        return self._keyword("preset", settings.preset)

    def alpha_weight(self, settings: Settings) -> float:
        """lambda_alpha."""
        given = self._keyword("alpha_weight", settings.alpha_weight)
        return presets.ALPHA_WEIGHT if given is None else given

    def num_steps(self, settings: Settings) -> int:
        """Number of steps if the lane does not converge."""
        return settings.steps(
            self.group.phi, preset=self.preset(settings), data_term=self.data_term
        )

    def keywords(self, settings: Settings) -> dict[str, Any]:
        """Keywords of `api.invert_batch` that lanes of one program share."""
        return {
            "image_shape": self.target.image_shape,
            "preset": settings.preset,
            "num_steps": self.num_steps(settings),
            "alpha_weight": settings.alpha_weight,
            "tolerance": settings.tolerance,
            "dead_relu": settings.dead_relu,
            "code_weights": code_weights(self.group.phi, settings),
            "execution": execution(settings),
            **(self.variant.keywords if self.variant else {}),
        }

    def _keyword(self, name: str, default: Any) -> Any:
        return self.variant.keywords.get(name, default) if self.variant else default


def plan(groups: Sequence[Group], settings: Settings) -> list[Lane]:
    """Every lane that the settings ask for, group by group; two under --smoke.

    The starts of a code follow each other.
    """
    lanes = [
        lane
        for group in groups
        for target in group.targets
        for lane in of_target(group, target, settings)
    ]
    return lanes[:2] if settings.smoke else lanes


def of_target(group: Group, target: Target, settings: Settings) -> list[Lane]:
    """The lanes of one target: each lambda_V, and for it each start."""
    return [
        Lane(group, target, start, tv_weight, path, initial=target.initial)
        for start, tv_weight, path in places(group, target.name, settings)
    ]


def places(
    group: Group, image: str, settings: Settings
) -> list[tuple[int, float, str]]:
    """Start, lambda_V and path of the lanes of one image, in order.

    Args:
      group: group of a representation, whose targets do not matter.
      image: name of the image.
      settings: settings of the run.
    """
    own = presets.tv_weight(group.phi, preset=settings.preset)
    tv_weights = settings.tv_weight or (own,)
    folder = f"{image}/{files.portable_name(group.name)}"
    found = []
    for tv_weight in tv_weights:
        suffix = f"_tv_{tv_weight:g}" if len(tv_weights) > 1 else ""
        for start in range(settings.num_starts):
            found.append((start, tv_weight, f"{folder}/start_{start:03d}{suffix}"))
    return found


def code_weights(phi: Representation, settings: Settings) -> dict[str, float] | None:
    """Weights of representations that are inverted together, by name.

    Args:
      phi: the representation.
      settings: settings of the run.

    Returns:
      The weights; None for equal ones, and for a representation by itself.
    """
    if settings.code_weights is None or not isinstance(phi, JointRepresentation):
        return None
    return dict(zip(phi.each, settings.code_weights, strict=True))


def nothing_to_invert(name: str) -> str:
    """Why a code that is zero is refused or passed over.

    Args:
      name: name of the representation.
    """
    return f"its {name} code is zero everywhere, so no error relative to it exists"


def execution(settings: Settings) -> Execution:
    """How lanes run here: --batch_size side by side, on CPU at most one per core.

    Where it is not settled, as many as by default; see `capacity.batch_size`.
    """
    default = default_execution()
    if settings.batch_size is None:
        return default
    if default.scan:
        return dataclasses.replace(default, width=settings.batch_size)
    num_threads = min(default.num_threads, settings.batch_size)
    return dataclasses.replace(default, num_threads=num_threads)


def in_float32(phi: Representation) -> Representation:
    """The representation that makes targets and measures errors: float32 arithmetic.

    It is the same whatever --compute_dtype the descent has, so that runs in float32 and
    bfloat16 ask for the same codes and their errors can be compared.
    """
    if isinstance(phi, CnnRepresentation):
        return dataclasses.replace(phi, compute_dtype="float32")
    if isinstance(phi, JointRepresentation):
        return phi.with_parts([*map(in_float32, phi.parts)])
    return phi
