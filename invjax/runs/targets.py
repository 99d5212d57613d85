"""What a run inverts: images prepared for a representation, and their codes."""

import contextlib
import itertools
from collections.abc import (
    Generator,
    Iterable,
    Iterator,
    Sequence,
)
from typing import Any, NamedTuple

import jax
import numpy as np

from invjax import callables
from invjax.images import ahead, pixels, sources
from invjax.images.pixels import ImageError
from invjax.images.reading import UnreadableImage
from invjax.images.sources import ImageSource
from invjax.inversion.execution import num_cores
from invjax.metrics import errors
from invjax.representations import joint
from invjax.representations.joint import JointRepresentation
from invjax.runs.errors import Refusal
from invjax.runs.settings import Settings
from invjax.runs.skipped import Skipped, summary
from invjax.types import Representation

_MOST_READERS = 8
_ENCODE_WIDTH = 32


class Target(NamedTuple):
    """One code to invert.

    Attributes:
      name: name of the image or of the code's file; a folder of the results.
      image_id: 32 bits of the content, from which the lanes' keys come.
      original: [h, w, c], the image that was encoded; None for a recorded code.
      code: phi0, an array, or a pytree of arrays such as that of several layers.
      image_shape: (h, w, c) of the images to be found.
      mask: M, of the code's shape, or a tree of such; None where all features count.
      initial: [h, w, c], to start from; None for noise.
    """

    name: str
    image_id: int
    original: np.ndarray | None
    code: Any
    image_shape: tuple[int, int, int]
    mask: Any = None
    initial: np.ndarray | None = None

    def is_zero(self, mask: Any = None) -> bool:
        """Whether an array of the code asks for nothing.

        Args:
          mask: a mask over the code, in place of the target's own.
        """
        code = masked(self.code, self.mask if mask is None else mask)
        # Squared in float32 as in the data term: tiny codes square to zero.
        return not all(np.sum(np.square(part)) > 0 for part in jax.tree.leaves(code))


def masked(code: Any, mask: Any) -> Any:
    """A code under a mask, array by array; as it is where the mask is None."""
    if mask is None:
        return code
    return jax.tree.map(lambda part, own: own * part, code, mask)


Prepared = dict[tuple[str, int | None], dict[str, np.ndarray]]
"""Prepared images by name, keyed by (resize mode, size); see `preparation`."""


class Images(NamedTuple):
    """The images of a run in memory.

    Attributes:
      prepared: the images by name, for each kind of preparation.
      origins: where each was read from, by name.
      skipped: those that cannot be read.
    """

    prepared: Prepared
    origins: dict[str, str]
    skipped: tuple[Skipped, ...]


class Found(NamedTuple):
    """The targets of one representation.

    Attributes:
      targets: the codes, in the order of the images.
      skipped: images that cannot be read, or that the representation does not take.
    """

    targets: list[Target]
    skipped: list[Skipped]


def list_images(settings: Settings) -> list[ImageSource]:
    """Lists the images of --images; nothing is decoded.

    A line is printed for each folder that holds other files than images.

    Raises:
      ImageError: an entry of --images is refused; see `sources.find`.
    """
    assert settings.images is not None
    return sources.find(settings.images, tell=print)


def load_images(phis: Sequence[Representation], settings: Settings) -> Images:
    """Reads the images of --images and prepares them for the representations.

    Each file is read once and dropped: a hundred photographs at full size would fill
    the memory, a hundred squares do not. Representations that want the same size share
    an image. With --on_bad_image=skip a line is printed of those that are left out.

    Raises:
      ImageError: an image cannot be read, with --on_bad_image=refuse; then nothing has
        been computed.
      Refusal: none can be read.
    """
    listed = list_images(settings)
    wanted = {preparation(phi, settings): phi for phi in phis}
    found: Prepared = {kind: {} for kind in wanted}
    origins, skipped = {}, []
    for source, images in read_images(listed, phis, settings):
        if isinstance(images, Skipped):
            skipped.append(images)
            continue
        origins[source.name] = source.origin
        for kind, image in images.items():
            found[kind][source.name] = image
    refuse_none_left(len(listed) - len(skipped), skipped, settings)
    if skipped:
        print(summary(skipped, len(listed)))
    return Images(found, origins, tuple(skipped))


def read_images(
    listed: Iterable[ImageSource], phis: Sequence[Representation], settings: Settings
) -> Generator[
    tuple[ImageSource, dict[tuple[str, int | None], np.ndarray] | Skipped], None, None
]:
    """Reads images ahead in threads and prepares them for the representations.

    However many there are, a few at a time are in memory.

    Args:
      listed: the images, as `list_images` lists them.
      phis: the representations.
      settings: settings of the run.

    Yields:
      Each image, in order, and what it is for each kind of `preparation`; or, with
      --on_bad_image=skip, why it cannot be read.

    Raises:
      ImageError: an image cannot be read, with --on_bad_image=refuse.
    """
    wanted = {preparation(phi, settings): phi for phi in phis}

    def prepared(photograph: np.ndarray) -> dict[tuple[str, int | None], np.ndarray]:
        return {
            kind: prepare(photograph, phi, settings) for kind, phi in wanted.items()
        }

    pairs = ahead.read_ahead(listed, prepared, num_threads=num_readers())
    with contextlib.closing(pairs):
        for source, future in pairs:
            try:
                images = future.result()
            except ImageError as error:
                yield source, _skipped_or_refused(source, error, settings)
            else:
                yield source, images


def from_images(images: Images, phi: Representation, settings: Settings) -> Found:
    """Encodes the images of `load_images` by one representation.

    Raises:
      Refusal: the representation does not take an image, such as one that is too small,
        with --on_bad_image=refuse; or it takes none.
    """
    prepared = images.prepared[preparation(phi, settings)]
    items = ((name, images.origins[name], image) for name, image in prepared.items())
    found = _gathered(_encoded(items, phi, settings))
    refuse_none_left(len(found.targets), found.skipped, settings)
    return found


def stream(
    listed: Iterable[ImageSource], phi: Representation, settings: Settings
) -> Generator[Target | Skipped, None, None]:
    """Reads and encodes images one after another, and keeps none.

    Images are read ahead in threads while the consumer uses those before.

    Args:
      listed: the images, as `list_images` lists them, or some of them.
      phi: the representation, in float32 (`lanes.in_float32`).
      settings: settings of the run.

    Yields:
      For each image its target, or why it is passed over, in order.

    Raises:
      ImageError, Refusal: an image cannot be used, with --on_bad_image=refuse.
    """
    kind = preparation(phi, settings)
    pairs = read_images(listed, [phi], settings)
    with contextlib.closing(pairs):
        items = (
            found
            if isinstance(found, Skipped)
            else (source.name, source.origin, found[kind])
            for source, found in pairs
        )
        yield from _encoded(items, phi, settings)


def of_images(
    listed: Iterable[ImageSource], phi: Representation, settings: Settings
) -> Found:
    """The targets of some images, such as those of one unit of a run.

    Arguments and errors as in `stream`.
    """
    with contextlib.closing(stream(listed, phi, settings)) as items:
        return _gathered(items)


def code_scale(
    listed: Sequence[ImageSource], phi: Representation, settings: Settings
) -> float:
    """N of the paper for a set of any size, in one pass over at most 10,001 images.

    Images are drawn by the seed of the run (`errors.draw_pairs`), and few codes are
    held. Images that are passed over, and codes that are zero, do not count.

    Arguments and errors as in `stream`.

    Returns:
      The mean distance of codes; NaN where fewer than two are left, and for codes of
      several arrays, of which the paper has none.
    """
    if isinstance(phi, JointRepresentation):
        return float("nan")
    order, reach = errors.draw_pairs(jax.random.key(settings.seed), len(listed))
    items = stream((listed[number] for number in order), phi, settings)
    with contextlib.closing(items):
        codes = (
            item.code
            for item in items
            if not isinstance(item, Skipped) and not item.is_zero()
        )
        return float(errors.code_scale(codes, reach=reach))


def refuse_none_left(
    num_left: int, skipped: Sequence[Skipped], settings: Settings
) -> None:
    """Refuses a run all of whose images are passed over.

    Args:
      num_left: number of images that are not.
      skipped: those that are.
      settings: settings of the run.

    Raises:
      Refusal: `num_left` is 0.
    """
    if num_left:
        return
    first = skipped[0]
    by = f" by {first.representation}" if first.representation else ""
    count = "" if len(skipped) == 1 else f"none of {len(skipped)} can be used{by}; "
    raise Refusal(f"--images={settings.images}: {count}{first.source}: {first.reason}")


def num_readers() -> int:
    """Number of threads that read images here."""
    return min(num_cores(), _MOST_READERS)


def _encoded(
    items: Iterable[tuple[str, str, np.ndarray] | Skipped],
    phi: Representation,
    settings: Settings,
) -> Iterator[Target | Skipped]:
    """Encodes (name, source, image), a batch at a time; what is skipped passes."""
    rest, width = iter(items), _encode_width(phi, settings)
    while batch := list(itertools.islice(rest, width)):
        images = [item for item in batch if not isinstance(item, Skipped)]
        try:
            pixels_of_batch = [image for _, _, image in images]
            codes = iter(callables.encode_batch(phi, pixels_of_batch, width=width))
        except ValueError as error:
            # They have one shape, and the representation does not take it.
            if settings.on_bad_image == "refuse":
                raise Refusal(f"{images[0][0]}: {error}") from None
            name = getattr(phi, "name", None)
            reason = " ".join(str(error).split())
            yield from (
                item
                if isinstance(item, Skipped)
                else Skipped(item[0], item[1], reason, name)
                for item in batch
            )
            continue
        for item in batch:
            if isinstance(item, Skipped):
                yield item
            else:
                yield _target(item[0], item[2], next(codes))


def _target(name: str, image: np.ndarray, code: Any) -> Target:
    shape = (image.shape[0], image.shape[1], image.shape[2])
    return Target(name, pixels.image_id(image), image, code, shape)


def _encode_width(phi: Representation, settings: Settings) -> int:
    """Number of images that one compiled call encodes.

    On CPU it is one, whose bits depend on nothing else. Elsewhere it is a constant, and
    one where images keep their aspect ratio, since those of a batch have one shape.
    """
    if jax.default_backend() == "cpu" or preparation(phi, settings)[0] == "grey":
        return 1
    return _ENCODE_WIDTH


def _gathered(items: Iterable[Target | Skipped]) -> Found:
    found = Found([], [])
    for item in items:
        if isinstance(item, Skipped):
            found.skipped.append(item)
        else:
            found.targets.append(item)
    return found


def _skipped_or_refused(
    source: ImageSource, error: ImageError, settings: Settings
) -> Skipped:
    if settings.on_bad_image == "refuse":
        raise error
    reason = error.reason if isinstance(error, UnreadableImage) else str(error)
    return Skipped(source.name, source.origin, " ".join(reason.split()))


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
    if joint.is_shallow(phi):
        return "grey", size
    return settings.resize, size or own_shape(phi)[0]


def own_shape(phi: Representation) -> tuple[int, int, int]:
    """(h, w, 3), the size at which a network was trained."""
    return getattr(phi, "image_shape")  # noqa: B009 (not in the protocol)
