"""What a run needs, loaded and checked before it begins."""

import contextlib
import itertools
import math
from collections.abc import Iterator, Mapping, Sequence

import jax

from invjax import representations
from invjax.images.sources import ImageSource
from invjax.metrics import errors, lpips
from invjax.networks.weights import pretrained
from invjax.networks.weights.pretrained import MissingWeights
from invjax.representations import joint
from invjax.representations.cnn import CnnRepresentation
from invjax.representations.joint import JointRepresentation
from invjax.runs import capacity, lanes, modules, plans, recorded, targets
from invjax.runs.errors import EXPECTED, Refusal
from invjax.runs.lanes import Group
from invjax.runs.plans import ListedPlan
from invjax.runs.settings import Settings
from invjax.runs.skipped import Skipped, summary
from invjax.runs.targets import Images, Target
from invjax.types import Relaxable, Representation


def load_groups(settings: Settings, *, refuse_zero: bool = True) -> list[Group]:
    """Loads representations and encodes targets; refuses everything that is refused.

    Args:
      settings: settings of the run.
      refuse_zero: whether a target whose code is zero everywhere is refused; otherwise
        it is left out (`Group.skipped`) while others remain.

    Raises:
      Refusal and the errors of `runs.errors`: bad input.
    """
    phis = {
        name: load_representation(name, settings) for name in settings.representations
    }
    images = Images({}, {}, ())
    if settings.code is None:
        images = targets.load_images(list(phis.values()), settings)
    groups = []
    for name, phi in phis.items():
        _check_dead_relu(name, phi, settings)
        unread = images.skipped
        if settings.code is not None:
            found = recorded.from_codes(settings.code, name, phi, settings)
        else:
            exact = lanes.in_float32(phi)
            found, others = targets.from_images(images, exact, settings)
            unread += tuple(others)
            if others:
                print(f"{name}: {summary(others, len(found) + len(others))}")
        found = recorded.with_masks(found, name, phi, settings)
        found = recorded.with_initial_images(found, phi, settings)
        is_zero = [target.is_zero() for target in found]
        kept = [target for target, zero in zip(found, is_zero, strict=True) if not zero]
        skipped = tuple(itertools.compress((t.name for t in found), is_zero))
        if skipped and (refuse_zero or not kept):
            raise Refusal(f"{skipped[0]}: {lanes.nothing_to_invert(name)}")
        group = group_of(name, phi, kept, settings=settings, skipped=skipped)
        groups.append(group._replace(unread=unread))
    capacity.check(groups, settings)
    return groups


def load_listed(
    listed: Sequence[ImageSource],
    settings: Settings,
    *,
    scales: Mapping[str, float | None] | None,
) -> tuple[ListedPlan, dict[str, float | None]]:
    """Loads representations, and plans lanes whose images are read in their turn.

    Args:
      listed: the images.
      settings: settings of the run.
      scales: code scale by representation, where it is known; otherwise it is taken
        from a part of the images.

    Returns:
      The plan, and the code scales, None where there is none.

    Raises:
      Refusal and the errors of `runs.errors`: bad input.
    """
    groups = []
    for name in settings.representations:
        phi = load_representation(name, settings)
        _check_dead_relu(name, phi, settings)
        group = Group(name, phi, [], float("nan"))
        example = plans.example_of(listed, group, settings)
        groups.append(group._replace(targets=[example]))
    capacity.check(groups, settings)
    if scales is None:
        found = {
            group.name: targets.code_scale(
                listed, lanes.in_float32(group.phi), settings
            )
            for group in groups
        }
        scales = {
            name: scale if math.isfinite(scale) else None
            for name, scale in found.items()
        }
    plan = ListedPlan(listed, groups, settings)
    return plan.with_scales(scales), dict(scales)


def load_image_groups(settings: Settings) -> list[Group]:
    """Loads the groups of a study of images; targets whose code is zero are left out.

    Raises:
      Refusal: recorded codes are given, which have no image to compare with.
    """
    if settings.code is not None:
        raise Refusal(
            f"--code={settings.code}: this study compares images; give --images"
        )
    groups = load_groups(settings, refuse_zero=False)
    for group in groups:
        if group.skipped:
            everything = len(group.skipped) + len(group.targets)
            print(
                f"{group.name}: {len(group.skipped)} of {everything} images left out, "
                f"their code is zero everywhere: {', '.join(group.skipped)}"
            )
    return groups


def group_of(
    name: str,
    phi: Representation,
    found: list[Target],
    *,
    settings: Settings,
    skipped: tuple[str, ...] = (),
) -> Group:
    """A group with the code scale of its targets.

    Args:
      name: name of the representation.
      phi: the representation.
      found: the targets.
      settings: settings of the run, whose seed draws the pairs of a large set.
      skipped: names of images that were left out.
    """
    scale = float("nan")
    if not isinstance(phi, JointRepresentation):
        order, reach = errors.draw_pairs(jax.random.key(settings.seed), len(found))
        codes = (found[number].code for number in order)
        scale = float(errors.code_scale(codes, reach=reach))
    return Group(name, phi, found, scale, skipped)


def load_representation(name: str, settings: Settings) -> Representation:
    """Loads the representation of a flag's value, --representations or --module.

    Raises:
      Refusal: there is none of that name, or the weights cannot be read.
    """
    if modules.is_module(name):
        phi = modules.load(name, settings)
    else:
        with refusing(f"--representations={name}: ", settings):
            phi = representations.representation(
                name,
                weights_dir=settings.weights_dir,
                compute_dtype=settings.compute_dtype,
            )
    _check_code_weights(name, phi, settings)
    return phi


@contextlib.contextmanager
def refusing(what: str, settings: Settings) -> Iterator[None]:
    """Refuses what a flag names where its weights cannot be loaded.

    Args:
      what: the beginning of the line that says why a name is refused.
      settings: settings of the run.

    Raises:
      Refusal: the name is refused, or the folder of weights cannot be read. Errors that
        say by themselves what is wrong pass through.
    """
    try:
        yield
    except OSError as error:
        folder = pretrained.weights_folder(settings.weights_dir)
        raise Refusal(f"--weights_dir={folder}: {error.strerror or error}") from None
    except ValueError as error:
        if isinstance(error, EXPECTED):
            raise
        raise Refusal(f"{what}{error}") from None


def refuse_joint(groups: Sequence[Group]) -> None:
    """Refuses representations that are inverted together, for a study of single ones.

    Raises:
      Refusal: a group's representation is a joint one.
    """
    for group in groups:
        if isinstance(group.phi, JointRepresentation):
            raise Refusal(
                f"--representations={group.name}: this study is of one representation "
                f"at a time; give them with , in place of {joint.SEPARATOR}"
            )


def load_network_layer(name: str, settings: Settings) -> CnnRepresentation:
    """Loads a representation that has to be a network's layer.

    Raises:
      Refusal: it is none.
    """
    phi = load_representation(name, settings)
    if not isinstance(phi, CnnRepresentation):
        raise Refusal(
            f"--representations={name}: it has no units to maximise; layers of "
            "networks, NETWORK/LAYER, are accepted"
        )
    return phi


def unread(groups: Sequence[Group]) -> list[Skipped]:
    """The images that groups leave out since they cannot be used, each once."""
    return list(dict.fromkeys(item for group in groups for item in group.unread))


def load_lpips(groups: Sequence[Group], settings: Settings) -> lpips.Parameters | None:
    """Loads the weights of LPIPS; None without originals, or where they are missing.

    Damaged weights are refused, so this comes before a folder is claimed.
    """
    if all(target.original is None for group in groups for target in group.targets):
        return None
    try:
        return lpips.load(weights_dir=settings.weights_dir)
    except MissingWeights:
        return None


def weights_digests(groups: Sequence[Group]) -> dict[str, str]:
    """Digest of the weights by representation; empty for those without weights."""
    return {group.name: getattr(group.phi, "weights_digest", "") for group in groups}


def _check_code_weights(name: str, phi: Representation, settings: Settings) -> None:
    given = settings.code_weights
    if given is None:
        return
    num_parts = len(phi.each) if isinstance(phi, JointRepresentation) else 1
    if num_parts != len(given):
        shown = ",".join(f"{weight:g}" for weight in given)
        raise Refusal(
            f"--code_weights={shown}: as many numbers as there are representations in "
            f"{name}, {num_parts}, are accepted"
            + ("" if num_parts > 1 else "; those of one by itself have no weight")
        )


def _check_dead_relu(name: str, phi: Representation, settings: Settings) -> None:
    if settings.dead_relu == "leaky" and not isinstance(phi, Relaxable):
        raise Refusal(
            f"--dead_relu=leaky: {name} has no relaxed derivative; restart is accepted"
        )
