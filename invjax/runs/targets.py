"""What a run inverts: images prepared for a representation, or recorded codes."""

import pathlib
import zipfile
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from invjax import callables, identity
from invjax.images import pixels, sources
from invjax.representations.paper import Dsift, Hog
from invjax.runs.errors import Refusal
from invjax.runs.settings import Settings
from invjax.types import Representation


class Target(NamedTuple):
    """One code to invert.

    Attributes:
      name: name of the image or of the code's file; a folder of the results.
      image_id: 32 bits of the content, from which the lanes' keys come.
      original: [h, w, c], the image that was encoded; None for a recorded code.
      code: phi0.
      image_shape: (h, w, c) of the images to be found.
    """

    name: str
    image_id: int
    original: np.ndarray | None
    code: np.ndarray
    image_shape: tuple[int, int, int]

    def is_zero(self, mask: np.ndarray | None = None) -> bool:
        """Whether the code, under a mask if there is one, asks for nothing."""
        code = self.code if mask is None else mask * self.code
        # Squared in float32 as in the data term: tiny codes square to zero.
        return not np.sum(np.square(code)) > 0


Prepared = dict[tuple[str, int | None], dict[str, np.ndarray]]
"""Prepared images by name, keyed by (resize mode, size); see `preparation`."""


def load_images(phis: Sequence[Representation], settings: Settings) -> Prepared:
    """Reads the images of --images and prepares them for the representations.

    Each file is read once and dropped: a hundred photographs at full size would fill
    the memory, a hundred squares do not. Representations that want the same size share
    an image.

    Raises:
      ImageError: an image cannot be read.
    """
    assert settings.images is not None
    wanted = {preparation(phi, settings): phi for phi in phis}
    found: Prepared = {kind: {} for kind in wanted}
    for source in sources.find(settings.images):
        photograph = sources.load(source)
        for kind, phi in wanted.items():
            found[kind][source.name] = prepare(photograph, phi, settings)
    return found


def from_images(
    prepared: Prepared, phi: Representation, settings: Settings
) -> list[Target]:
    """Encodes the images of `load_images` by one representation."""
    targets = []
    for name, image in prepared[preparation(phi, settings)].items():
        try:
            code = np.asarray(callables.encode(phi, image))
        except ValueError as error:
            raise Refusal(f"{name}: {error}") from None
        shape = (image.shape[0], image.shape[1], image.shape[2])
        targets.append(Target(name, identity.image_id(image), image, code, shape))
    return targets


def from_code(path: str, name: str, phi: Representation, settings: Settings) -> Target:
    """The code recorded in a .npy or .npz file for representation `name`.

    Raises:
      Refusal: the file cannot be read, or holds no numeric array for it.
    """
    stem = pathlib.Path(path).stem
    array = _read_array(path, name, len(settings.representations))
    shape = _code_image_shape(phi, array.shape, settings)
    try:
        expected = callables.code_shape(phi, shape)
    except ValueError as error:
        raise Refusal(f"--code={path}: at {shape}: {error}") from None
    if array.shape != expected:
        raise Refusal(
            f"--code={path}: shape {array.shape}, but {name} of an image of {shape} "
            f"has {expected}"
        )
    with np.errstate(over="ignore"):
        code = np.asarray(array, np.float32)
    if not np.all(np.isfinite(code)):
        raise Refusal(f"--code={path}: holds values that are not finite as float32")
    return Target(stem, identity.code_id(code), None, code, shape)


def prepare(
    photograph: np.ndarray, phi: Representation, settings: Settings
) -> np.ndarray:
    """Prepares a photograph for a representation.

    A network is given a square of its input size, a shallow representation grey levels
    at the native size; --image_size overrides the side, or the short side.
    """
    kind, size = preparation(phi, settings)
    if kind == "grey":
        if size:
            photograph = pixels.fit_short_side(photograph, size)
        grey = pixels.quantise(pixels.to_grey(photograph))
        return grey.astype(np.float32) / np.float32(255)
    assert size is not None
    resize = pixels.stretch if kind == "stretch" else pixels.centre_crop
    return resize(photograph, size)


def preparation(phi: Representation, settings: Settings) -> tuple[str, int | None]:
    """How a photograph is prepared: ("grey", "crop" or "stretch", size in pixels)."""
    size = settings.image_size
    if isinstance(phi, Hog | Dsift):
        return "grey", size
    return settings.resize, size or _own_shape(phi)[0]


def _own_shape(phi: Representation) -> tuple[int, int, int]:
    return getattr(phi, "image_shape")  # noqa: B009 (not in the protocol)


def _code_image_shape(
    phi: Representation, code_shape: tuple[int, ...], settings: Settings
) -> tuple[int, int, int]:
    """(h, w, c) of the image to be found for a recorded code."""
    if isinstance(phi, Hog | Dsift):
        if len(code_shape) != 3:
            raise Refusal(
                f"--code: shape {code_shape}, but {phi.name} codes are [rows, columns, "
                "values]"
            )
        if settings.image_size:
            return (settings.image_size, settings.image_size, 1)
        return phi.smallest_image(code_shape)
    height, width, channels = _own_shape(phi)
    if settings.image_size:
        return (settings.image_size, settings.image_size, channels)
    return (height, width, channels)


def _read_array(path: str, name: str, num_representations: int) -> np.ndarray:
    try:
        loaded: Any = np.load(path, allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            arrays = {name: loaded} if num_representations == 1 else {}
        else:
            with loaded:
                arrays = {key: loaded[key] for key in loaded.files}
    except FileNotFoundError:
        raise Refusal(f"--code={path}: no such file") from None
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise Refusal(
            f"--code={path}: not a .npy or .npz of plain arrays: {error}"
        ) from None
    if num_representations == 1 and len(arrays) == 1:
        (array,) = arrays.values()
    else:
        found = [arrays[key] for key in (name, name.replace("/", "_")) if key in arrays]
        if not found:
            raise Refusal(
                f"--code={path}: no array for {name}; it has "
                f"{', '.join(arrays) or 'one array without a name'}"
            )
        array = found[0]
    if array.dtype.kind not in "fiu":
        raise Refusal(f"--code={path}: {array.dtype} is not numeric")
    return array
