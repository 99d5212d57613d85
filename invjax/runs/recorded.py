"""What a person recorded, as targets: codes, masks over them, images to start from."""

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from invjax import callables, files, identity
from invjax.images import sources
from invjax.representations import joint
from invjax.representations.joint import JointRepresentation
from invjax.representations.paper import Dsift, Hog
from invjax.runs import array_files, targets
from invjax.runs.errors import Refusal
from invjax.runs.settings import Settings
from invjax.runs.targets import Target
from invjax.types import Representation

LAYOUTS = ("channels_last", "channels_first")
"""Orders of the axes of a recorded code, as --code_layout has them."""


def from_codes(
    spec: str, name: str, phi: Representation, settings: Settings
) -> list[Target]:
    """The codes that were recorded in files for representation `name`.

    An array with one more axis in front holds several codes. Three axes may be in
    PyTorch's order, channels first; that is recognised by the shape and said, and where
    both orders fit, --code_layout has to tell.

    Targets are named by the stems of the files; of several arrays in one file,
    <stem>_<array>; of several codes in one array, <stem>_000, <stem>_001, ... in the
    array's order.

    Args:
      spec: files, folders and globs, as `array_files.find` takes them; which arrays are
        taken of a file, `array_files.read` says.
      name: name of the representation.
      phi: the representation.
      settings: settings of the run.

    Raises:
      Refusal: a file cannot be read, or holds no numeric array that fits.
    """
    found: list[Target] = []
    moved = []
    for recording in array_files.find(spec):
        for label, arrays in _arrays(recording.path, name, phi, settings):
            code, shape, is_moved = _arranged(recording.path, arrays, phi, settings)
            if is_moved:
                moved.append(recording.path)
            own = recording.name
            if label:
                own += f"_{files.portable_name(label)}"
            found += _code_targets(own, code, shape)
    if moved:
        print(
            f"--code: channels are the first axis in {moved[0]}"
            + (f" and {len(moved) - 1} more" if len(moved) > 1 else "")
            + "; they were made the last"
        )
    names = [target.name for target in found]
    if len(set(names)) < len(names):
        twice = next(one for one in names if names.count(one) > 1)
        raise Refusal(f"--code={spec}: two codes would be called {twice}")
    return found


def _code_targets(
    name: str, codes: Any, shape: tuple[int, int, int]
) -> Iterator[Target]:
    """A target for each of the codes [n, ...]."""
    num = len(jax.tree.leaves(codes)[0])
    num_digits = max(3, len(str(num - 1)))
    for number in range(num):
        code = jax.tree.map(lambda part, number=number: part[number], codes)
        own = f"{name}_{number:0{num_digits}d}" if num > 1 else name
        yield Target(own, identity.code_id(code), None, code, shape)


def _arrays(
    path: str, name: str, phi: Representation, settings: Settings
) -> list[tuple[str, dict[str, np.ndarray]]]:
    """The arrays of a file: label, and the array of each representation by its name."""
    parts = {one.name: one for one in joint.members(phi)} if _is_joint(phi) else None
    alone = len(settings.representations) == 1
    if parts is None:
        fits = _fits(phi, settings)
        found = array_files.read(path, name, alone=alone, fits=fits)
        return [(item.name, {name: item.array}) for item in found]
    arrays = {}
    for own, part in parts.items():
        fits = _fits(part, settings)
        (item,) = array_files.read(path, own, alone=False, fits=fits)
        arrays[own] = item.array
    return [("", arrays)]


class _Order(NamedTuple):
    """How an array is read as codes.

    Attributes:
      is_batch: whether its first axis counts codes.
      is_moved: whether its channels come before its rows.
    """

    is_batch: bool
    is_moved: bool


def _orders(
    shape: tuple[int, ...], phi: Representation, settings: Settings
) -> list[_Order]:
    """The ways in which an array of a shape can be codes of a representation."""
    found = []
    for is_batch, is_moved in itertools.product((False, True), repeat=2):
        own = shape[1:] if is_batch else shape
        if (is_batch and not shape) or (is_moved and len(own) != 3):
            continue
        if settings.code_layout not in (None, LAYOUTS[is_moved]) and len(own) == 3:
            continue
        own = (*own[1:], own[0]) if is_moved else own
        if _is_code_shape(own, phi, settings):
            found.append(_Order(is_batch, is_moved))
    return found


def _is_code_shape(
    shape: tuple[int, ...], phi: Representation, settings: Settings
) -> bool:
    if not isinstance(phi, Hog | Dsift):
        try:
            return shape == callables.code_shape(phi, _square(phi, settings))
        # An --image_size that it does not take; `_wanted` says so.
        except ValueError:
            return False
    if len(shape) != 3 or shape[2] != phi.geometry.shape[2]:
        return False
    if settings.image_size is None:
        return True
    square = (settings.image_size, settings.image_size, 1)
    return shape == callables.code_shape(phi, square)


def _fits(phi: Representation, settings: Settings) -> Callable[[tuple[int, ...]], bool]:
    return lambda shape: bool(_orders(shape, phi, settings))


def _arranged(
    path: str, arrays: Mapping[str, np.ndarray], phi: Representation, settings: Settings
) -> tuple[Any, tuple[int, int, int], bool]:
    """Codes [n, ...] as float32, the shape of their images, and if channels moved."""
    members = {one.name: one for one in joint.members(phi)} if _is_joint(phi) else {}
    codes = {}
    moved = False
    for name, array in arrays.items():
        own = members.get(name, phi)
        codes[name], is_moved = _one_arranged(path, name, array, own, settings)
        moved |= is_moved
    counts = {name: len(part) for name, part in codes.items()}
    if len(set(counts.values())) > 1:
        shown = ", ".join(f"{name} {count}" for name, count in counts.items())
        raise Refusal(f"--code={path}: numbers of codes differ: {shown}")
    if not min(counts.values()):
        raise Refusal(f"--code={path}: holds no code")
    shape = _code_image_shape(path, phi, codes, settings)
    return (codes if members else next(iter(codes.values()))), shape, moved


def _one_arranged(
    path: str, name: str, array: np.ndarray, phi: Representation, settings: Settings
) -> tuple[np.ndarray, bool]:
    orders = _orders(array.shape, phi, settings)
    if len(orders) > 1:
        raise Refusal(
            f"--code={path}: shape {array.shape} fits {name} with its channels last "
            f"and first; say which: --code_layout={' or '.join(LAYOUTS)}"
        )
    if not orders:
        raise Refusal(
            f"--code={path}: shape {array.shape}, but {_wanted(name, phi, settings)}"
        )
    (order,) = orders
    batch = array if order.is_batch else array[None]
    if order.is_moved:
        batch = np.moveaxis(batch, 1, -1)
    with np.errstate(over="ignore"):
        # A copy, in C order, since the file may change.
        codes = np.array(batch, np.float32, order="C")
    if not np.all(np.isfinite(codes)):
        raise Refusal(f"--code={path}: holds values that are not finite as float32")
    return codes, order.is_moved


def _wanted(name: str, phi: Representation, settings: Settings) -> str:
    """Which shapes are codes, in words."""
    if isinstance(phi, Hog | Dsift) and settings.image_size is None:
        values = phi.geometry.shape[2]
        return (
            f"{name} codes are (rows, columns, {values}), several of them (n, rows, "
            f"columns, {values})"
        )
    shape = _square(phi, settings)
    try:
        expected = callables.code_shape(phi, shape)
    except ValueError as error:
        return f"at {shape}: {error}"
    several = ", ".join(map(str, ("n", *expected)))
    channels = ""
    if len(expected) == 3:
        channels = f", or with the channels first {(expected[2], *expected[:2])}"
    return (
        f"{name} of an image of {shape} has {expected}, several codes ({several})"
        f"{channels}"
    )


def with_masks(
    found: Sequence[Target], name: str, phi: Representation, settings: Settings
) -> list[Target]:
    """Targets with the masks of --mask.

    One mask is for all targets. The masks of one array with an axis in front are for
    the targets in their order; those of several files, for the targets of their names.
    A mask has the axes of the code, of length 1 where it does not depend on one.

    Args:
      found: targets of a representation.
      name: name of the representation.
      phi: the representation.
      settings: settings of the run.

    Raises:
      Refusal: a file cannot be read, a mask does not fit its code, or there is none for
        a target.
    """
    if settings.mask is None or not found:
        return list(found)
    given = _masks(found[0].code, name, phi, settings)
    files_of = len(given)
    masks = [(own, mask) for own, several in given for mask in several]
    by_name = dict(masks)
    if len(masks) == 1:
        chosen = [masks[0][1]] * len(found)
    elif files_of == 1 and len(masks) == len(found):
        chosen = [mask for _, mask in masks]
    elif files_of == 1:
        raise Refusal(
            f"--mask={settings.mask}: {len(masks)} masks for {len(found)} codes of "
            f"{name}; one, or as many, are accepted"
        )
    else:
        absent = [target.name for target in found if target.name not in by_name]
        if absent:
            raise Refusal(
                f"--mask={settings.mask}: none of the files is called {absent[0]}, as "
                "one of what is inverted"
            )
        chosen = [by_name[target.name] for target in found]
    return [
        target._replace(mask=_fitted(mask, target, settings))
        for target, mask in zip(found, chosen, strict=True)
    ]


def _masks(
    code: Any, name: str, phi: Representation, settings: Settings
) -> list[tuple[str, list[Any]]]:
    """The masks of each file, by its name; a mask is a tree like the code."""
    assert settings.mask is not None
    alone = len(settings.representations) == 1
    parts = {name: code} if not _is_joint(phi) else code
    given: list[tuple[str, list[Any]]] = []
    for recording in array_files.find(settings.mask, flag="mask"):
        arrays = {}
        for own, part in parts.items():
            (item,) = array_files.read(
                recording.path,
                own,
                alone=alone and not _is_joint(phi),
                fits=lambda shape: False,
                flag="mask",
            )
            is_batch = item.array.ndim == part.ndim + 1
            arrays[own] = [*item.array] if is_batch else [item.array]
        if len({len(several) for several in arrays.values()}) > 1:
            raise Refusal(f"--mask={recording.path}: numbers of masks differ")
        if _is_joint(phi):
            rows = [
                dict(zip(arrays, row, strict=True))
                for row in zip(*arrays.values(), strict=True)
            ]
            given.append((recording.name, rows))
        else:
            given.append((recording.name, arrays[name]))
    return given


def _fitted(mask: Any, target: Target, settings: Settings) -> Any:
    """A mask over the code of a target, float32, of the code's shape."""

    def fitted(part: np.ndarray, own: np.ndarray) -> np.ndarray:
        candidates = {"channels_last": own}
        if own.ndim == 3:
            candidates["channels_first"] = np.moveaxis(own, 0, -1)
        fitting = [
            candidate
            for layout, candidate in candidates.items()
            if settings.code_layout in (None, layout)
            and candidate.ndim == part.ndim
            and all(
                side in (1, whole)
                for side, whole in zip(candidate.shape, part.shape, strict=True)
            )
        ]
        # A mask that fits in both orders is the same in both only if it is constant.
        if len({candidate.shape for candidate in fitting}) > 1 or (
            len(fitting) > 1 and not np.array_equal(fitting[0], fitting[1])
        ):
            raise Refusal(
                f"--mask={settings.mask}: a mask of shape {own.shape} fits a code of "
                f"{part.shape} with its channels last and first; say which: "
                f"--code_layout={' or '.join(LAYOUTS)}"
            )
        if not fitting:
            raise Refusal(
                f"--mask={settings.mask}: a mask has shape {own.shape}, and the code "
                f"of {target.name} {part.shape}; its axes, of these lengths or 1, are "
                "accepted"
            )
        weights = fitting[0].astype(np.float32)
        if not np.all(np.isfinite(weights)):
            raise Refusal(
                f"--mask={settings.mask}: holds values that are not finite as float32"
            )
        return np.broadcast_to(weights, part.shape)

    return jax.tree.map(fitted, target.code, mask)


def with_initial_images(
    found: Sequence[Target], phi: Representation, settings: Settings
) -> list[Target]:
    """Targets with the images of --initial_image, from which descents start.

    One image is for all targets, several are for the targets of their names. Files of
    arrays have unclipped images, such as --save_arrays writes; others are prepared as
    those of --images.

    Args:
      found: targets of a representation.
      phi: the representation.
      settings: settings of the run.

    Raises:
      ImageError, Refusal: a file cannot be read, an image has another size than the
        image to be found, or there is none for a target.
    """
    if settings.initial_image is None:
        return list(found)
    images = _initial_images(phi, settings)
    where = f"--initial_image={settings.initial_image}"
    chosen = []
    for target in found:
        if len(images) > 1 and target.name not in images:
            raise Refusal(
                f"{where}: none of the images is called {target.name}, as one of what "
                "is inverted"
            )
        image = images[target.name] if len(images) > 1 else [*images.values()][0]
        if image.shape != target.image_shape:
            raise Refusal(
                f"{where}: an image of {image.shape}, but the image to be found for "
                f"{target.name} has {target.image_shape}"
            )
        chosen.append(target._replace(initial=image))
    return chosen


def _initial_images(phi: Representation, settings: Settings) -> dict[str, np.ndarray]:
    assert settings.initial_image is not None
    if not settings.initial_image.endswith(array_files.ENDINGS):
        return {
            source.name: targets.prepare(sources.load(source), phi, settings)
            for source in sources.find(settings.initial_image)
        }
    found = {}
    for recording in array_files.find(settings.initial_image, flag="initial_image"):
        (item, *others) = array_files.read(
            recording.path,
            "image",
            alone=True,
            fits=lambda shape: len(shape) == 3,
            flag="initial_image",
        )
        image = item.array.astype(np.float32)
        if others or image.ndim != 3 or not np.all(np.isfinite(image)):
            raise Refusal(
                f"--initial_image={recording.path}: one finite image of (height, "
                f"width, channels) is accepted, not {image.shape}"
            )
        found[recording.name] = image
    return found


def _is_joint(phi: Representation) -> bool:
    return isinstance(phi, JointRepresentation)


def _square(phi: Representation, settings: Settings) -> tuple[int, int, int]:
    """(h, w, c) of the images for recorded codes, where codes do not say it."""
    size = settings.image_size
    if isinstance(phi, Hog | Dsift):
        assert size is not None
        return (size, size, 1)
    height, width, channels = targets.own_shape(phi)
    return (size or height, size or width, channels)


def _code_image_shape(
    path: str, phi: Representation, codes: Mapping[str, Any], settings: Settings
) -> tuple[int, int, int]:
    """(h, w, c) of the image to be found for recorded codes [n, ...] by name."""
    if not joint.is_shallow(phi):
        return _square(phi, settings)
    if settings.image_size:
        return (settings.image_size, settings.image_size, 1)
    members = joint.members(phi)
    sizes = {
        one.smallest_image(part.shape[1:])
        for one, part in zip(members, _in_order(members, codes), strict=True)
    }
    largest = max(sizes)
    for one, part in zip(members, _in_order(members, codes), strict=True):
        if callables.code_shape(one, largest) != part.shape[1:]:
            raise Refusal(
                f"--code={path}: the codes are of images of different sizes, "
                f"{' and '.join(map(str, sorted(sizes)))}; give --image_size"
            )
    return largest


def _in_order(members: Sequence[Any], codes: Mapping[str, Any]) -> list[Any]:
    return [codes[one.name] for one in members] if len(codes) > 1 else [*codes.values()]
