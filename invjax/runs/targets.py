"""What a run inverts: images prepared for a representation, or recorded codes."""

import pathlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from invjax import callables, files, identity
from invjax.images import pixels, sources
from invjax.representations.paper import Dsift, Hog
from invjax.runs import recorded
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
    an image. A line is printed for each folder that holds other files than images.

    Raises:
      ImageError: an image cannot be read; then nothing has been computed.
    """
    assert settings.images is not None
    wanted = {preparation(phi, settings): phi for phi in phis}
    found: Prepared = {kind: {} for kind in wanted}
    for source in sources.find(settings.images, tell=print):
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
        targets.append(Target(name, pixels.image_id(image), image, code, shape))
    return targets


def from_codes(
    path: str, name: str, phi: Representation, settings: Settings
) -> list[Target]:
    """The codes recorded in a .npy or .npz file for representation `name`.

    An array with one more axis in front holds several codes. Targets are named by the
    stem of the file, several of them <stem>_000, <stem>_001, ... in the array's order.

    Args:
      path: the file; which array is taken of it, `recorded.read` says.
      name: name of the representation.
      phi: the representation.
      settings: settings of the run.

    Raises:
      Refusal: the file cannot be read, or holds no numeric array that fits.
    """
    array = recorded.read(path, name, alone=len(settings.representations) == 1)
    num_axes = _num_axes(phi)
    is_batch = array.ndim == num_axes + 1
    codes = array if is_batch else array[None]
    shape = _code_image_shape(path, phi, codes.shape[1:], settings)
    try:
        expected = callables.code_shape(phi, shape)
    except ValueError as error:
        raise Refusal(f"--code={path}: at {shape}: {error}") from None
    if codes.shape[1:] != expected:
        raise Refusal(
            f"--code={path}: shape {array.shape}, but {name} of an image of {shape} "
            f"has {expected}, several codes (n, {', '.join(map(str, expected))})"
            f"{_hint(array.shape, expected)}"
        )
    if not len(codes):
        raise Refusal(f"--code={path}: shape {array.shape} holds no code")
    with np.errstate(over="ignore"):
        # A copy, in C order, since the file may change.
        codes = np.array(codes, np.float32, order="C")
    if not np.all(np.isfinite(codes)):
        raise Refusal(f"--code={path}: holds values that are not finite as float32")
    stem = files.portable_name(pathlib.Path(path).stem)
    names = [f"{stem}_{number:03d}" for number in range(len(codes))]
    return [
        Target(own, identity.code_id(code), None, code, shape)
        for own, code in zip(names if len(codes) > 1 else [stem], codes, strict=True)
    ]


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


def _num_axes(phi: Representation) -> int:
    """Number of axes of a code."""
    if isinstance(phi, Hog | Dsift):
        return 3
    return len(callables.code_shape(phi, _own_shape(phi)))


def _code_image_shape(
    path: str, phi: Representation, code_shape: tuple[int, ...], settings: Settings
) -> tuple[int, int, int]:
    """(h, w, c) of the image to be found for a recorded code."""
    if isinstance(phi, Hog | Dsift):
        if len(code_shape) != 3:
            raise Refusal(
                f"--code={path}: {len(code_shape)} axes, but {phi.name} codes are "
                "(rows, columns, values), several of them (n, rows, columns, values)"
            )
        if settings.image_size:
            return (settings.image_size, settings.image_size, 1)
        return phi.smallest_image(code_shape)
    height, width, channels = _own_shape(phi)
    if settings.image_size:
        return (settings.image_size, settings.image_size, channels)
    return (height, width, channels)


def _hint(shape: tuple[int, ...], expected: tuple[int, ...]) -> str:
    """What to do about a shape that PyTorch's order of axes explains."""
    if len(expected) == 3 and shape[-3:] == (expected[2], *expected[:2]):
        return "; channels are the last axis here: np.moveaxis(code, -3, -1)"
    return ""
