"""DOC: to be written."""

import itertools
from collections.abc import Sequence

import numpy as np

from invjax import representations
from invjax.metrics import errors, lpips
from invjax.metrics.lpips import Parameters
from invjax.networks.weights import pretrained
from invjax.networks.weights.pretrained import MissingWeights
from invjax.runs import capacity, lanes, targets
from invjax.runs.errors import EXPECTED, Refusal
from invjax.runs.lanes import Group
from invjax.runs.settings import Settings
from invjax.types import Relaxable, Representation


def load_groups(config: Settings, *, refuse_zero: bool = True) -> list[Group]:
    """Representations and their targets: everything that can be refused, is here.

    Args:
      config: of the run.
      refuse_zero: whether a target whose code is zero everywhere is refused, or left
        out (see `lanes.Group.skipped`) while others remain.
    """
    phis = {name: load_representation(name, config) for name in config.representations}
    prepared = {}
    if config.code is None:
        prepared = targets.load_images(list(phis.values()), config)
    groups = []
    for name, phi in phis.items():
        if config.dead_relu == "leaky" and not isinstance(phi, Relaxable):
            raise Refusal(
                f"--dead_relu=leaky: {name} has no relaxed derivative; restart is "
                "accepted"
            )
        if config.code is not None:
            found = [targets.from_code(config.code, name, phi, config)]
        else:
            found = targets.from_images(prepared, lanes.in_float32(phi), config)
        # As the data term has it: tiny codes square to zero in float32.
        is_zero = [not np.sum(np.square(target.code)) > 0 for target in found]
        kept = [target for target, zero in zip(found, is_zero, strict=True) if not zero]
        skipped = tuple(itertools.compress((t.name for t in found), is_zero))
        if skipped and (refuse_zero or not kept):
            raise Refusal(
                f"{skipped[0]}: its {name} code is zero everywhere, so no error "
                "relative to it exists"
            )
        spread = float(errors.code_scale([target.code for target in kept]))
        groups.append(Group(name, phi, kept, spread, skipped))
    capacity.check(groups, config)
    return groups


def load_representation(name: str, config: Settings) -> Representation:
    """The representation of a flag's value.

    Raises:
      Refusal: there is none of that name.
    """
    try:
        return representations.representation(
            name,
            weights_dir=config.weights_dir,
            compute_dtype=config.compute_dtype,
        )
    except OSError as error:
        folder = pretrained.weights_folder(config.weights_dir)
        raise Refusal(f"--weights_dir={folder}: {error.strerror or error}") from None
    except ValueError as error:
        if isinstance(error, EXPECTED):
            raise
        raise Refusal(f"--representations={name}: {error}") from None


def load_judge(groups: Sequence[Group], config: Settings) -> Parameters | None:
    """LPIPS for runs with originals; None where its weights are not installed.

    Loaded before a folder is claimed, since damaged weights are refused.
    """
    if all(target.original is None for group in groups for target in group.targets):
        return None
    try:
        return lpips.load(weights_dir=config.weights_dir)
    except MissingWeights:
        return None


def weights(groups: Sequence[Group]) -> dict[str, str]:
    """Representation -> digest of its weights; empty for those without."""
    return {group.name: getattr(group.phi, "weights_digest", "") for group in groups}
