"""Image files: reads photographs and writes PNG files.

An image is a float32 NumPy array [h, w, 3] (RGB) or [h, w, 1] (grey) in [0, 1], rows
from the top. Values read are multiples of 1/255, except from 16-bit and transparent
files. Colour profiles are ignored.

Files may come from strangers. What reading one takes is bounded: only regular files are
opened, of at most `MOST_BYTES`; an image of more pixels than Pillow's limit
(`PIL.Image.MAX_IMAGE_PIXELS`) is refused by its header, before any pixel is decoded; of
many frames only the first is decoded; Pillow itself bounds compressed text and colour
profiles. Whatever a decoder raises becomes one line.
"""

import contextlib
import functools
import importlib
import io
import os
import warnings
from collections.abc import Callable, Iterator
from typing import BinaryIO

import numpy as np
from jaxtyping import Float32, Shaped
from PIL import Image, ImageFile, ImageOps

from invjax import files
from invjax.images.pixels import ImageError, to_pillow

# Pillow would run Ghostscript on the first, and knows only the size of the second.
_WITHOUT_PIXELS = ("EPS", "MPEG")
# Formats that Pillow does not list by themselves: a JPEG of several pictures.
_INSIDE_JPEG = ("MPO",)
_HEIF_BRANDS = (b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"mif1", b"msf1")


MOST_BYTES = 2**30
"""Size of the largest file that is read as an image."""

_ACCEPTED = "JPEG, PNG, WebP, BMP, TIFF, GIF and what else Pillow reads"


class UnreadableImage(ImageError):
    """An image cannot be read.

    Attributes:
      reason: why, without saying which image.
    """

    def __init__(self, place: object, reason: str, advice: str = ""):
        super().__init__(f"{place}: {reason}{advice}")
        self.reason = reason


def no_claim(num_pixels: int) -> None:
    """Lets any number of pixels be decoded at once; see `decode_file`."""
    del num_pixels


def read(path: str | os.PathLike[str]) -> Float32[np.ndarray, "h w 3"]:
    """Reads an image file as RGB.

    Accepts what Pillow reads: JPEG, PNG, WebP, BMP, TIFF, GIF, PPM, AVIF, JPEG 2000 and
    others, of animations the first frame; and HEIC where pillow-heif is installed. Grey
    is repeated to three channels; palettes and CMYK are converted; 16-bit grey is
    divided by 65535 (Pillow gives only the upper eight bits of 16-bit colour);
    transparent pixels are composited over white; EXIF orientation is applied.

    Args:
      path: The file, with any ending: the format is recognised by its contents, except
        those few (such as TGA) whose files do not begin in a way of their own.

    Returns:
      float32 [h, w, 3] in [0, 1].

    Raises:
      UnreadableImage: The file does not exist, may not be opened, is not an image, is
        no regular file, is truncated, has more pixels than Pillow's limit
        (`PIL.Image.MAX_IMAGE_PIXELS`) or more bytes than `MOST_BYTES`, or holds pixels
        whose range is unknown.
    """
    with quietly():
        return decode_file(path)


def decode_file(
    path: str | os.PathLike[str], *, claim: Callable[[int], None] = no_claim
) -> Float32[np.ndarray, "h w 3"]:
    """Reads an image file as `read` does, in a thread of which there may be several.

    Decoders may warn: one `quietly` is around all the threads.

    Args:
      path: The file.
      claim: Called with the number of pixels, known from the header, before they are
        decoded; it may wait until there is room for them.

    Returns:
      float32 [h, w, 3] in [0, 1].

    Raises:
      UnreadableImage: As in `read`.
    """
    ending = os.path.splitext(path)[1]
    try:
        with files.open_regular(path) as file:
            return decode(file, place=path, ending=ending, claim=claim)
    except UnreadableImage:
        raise
    except (OSError, ValueError) as error:
        raise UnreadableImage(path, *_why_not_opened(error)) from None


def decode(
    file: BinaryIO | io.BytesIO,
    *,
    place: str | os.PathLike[str],
    ending: str,
    claim: Callable[[int], None] = no_claim,
) -> Float32[np.ndarray, "h w 3"]:
    """Reads an image as `decode_file` does, from an open file.

    Args:
      file: A file that can seek.
      place: What errors call it.
      ending: That of its name, such as ".png"; "" for none.
      claim: As in `decode_file`.

    Returns:
      float32 [h, w, 3] in [0, 1].

    Raises:
      UnreadableImage: As in `read`.
    """
    try:
        num_bytes = file.seek(0, os.SEEK_END)
        file.seek(0)
        if num_bytes > MOST_BYTES:
            raise ValueError(
                f"{num_bytes / 2**30:.3g} GiB; up to {MOST_BYTES / 2**30:g} GiB are "
                "read"
            )
        with Image.open(file, formats=_formats(ending.lower())) as picture:
            num_pixels = picture.width * picture.height
            _check_pixels(num_pixels)
            claim(num_pixels)
            picture.load()
            return _pixels(ImageOps.exif_transpose(picture))
    except MemoryError:
        raise
    # Damaged bytes make decoders raise exceptions of any type, even SyntaxError.
    except Exception as error:
        raise UnreadableImage(
            place,
            f"cannot be read as an image ({_reason(error, file)})",
            f"; accepted: {_ACCEPTED}",
        ) from error


@contextlib.contextmanager
def quietly() -> Iterator[None]:
    """A context in which decoders do not warn of odd EXIF data and the like.

    What can be read is read anyway. Filters of warnings belong to the whole process, so
    threads that decode share one context, which their consumer enters and leaves.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"PIL\b|pillow_heif\b")
        yield


@functools.cache
def endings() -> tuple[str, ...]:
    """The endings of files that `read` reads, in lower case, from Pillow's registry.

    Those of HEIC are among them where pillow-heif is installed.

    Examples:
      >>> {".jpg", ".jfif", ".png", ".ppm", ".webp"} <= set(endings())
      True
      >>> {".txt", ".pdf", ".eps", ".mpg", ".h5"} & set(endings())
      set()
    """
    accepted = {*_readable(), *_INSIDE_JPEG}
    registered = Image.registered_extensions()
    return tuple(sorted(end for end, name in registered.items() if name in accepted))


@functools.cache
def _readable() -> tuple[str, ...]:
    """Names of the formats that have pixels; common ones first, as Pillow has them."""
    Image.preinit()
    common = list(Image.ID)
    Image.init()
    with contextlib.suppress(ImportError):
        importlib.import_module("pillow_heif").register_heif_opener()

    def is_stub(name: str) -> bool:
        opener = Image.OPEN[name][0]
        return isinstance(opener, type) and issubclass(opener, ImageFile.StubImageFile)

    return tuple(
        name
        for name in dict.fromkeys([*common, *Image.ID])
        if name in Image.OPEN and name not in _WITHOUT_PIXELS and not is_stub(name)
    )


def _formats(ending: str) -> list[str]:
    """The formats to try: those known by their first bytes, or by the file's ending."""
    own = Image.registered_extensions().get(ending)
    return [name for name in _readable() if Image.OPEN[name][1] or name == own]


def _why_not_opened(error: Exception) -> tuple[str, str]:
    """Why there is no file to read, and what is accepted."""
    if isinstance(error, FileNotFoundError):
        return "no such file", ""
    if not isinstance(error, OSError):
        return "not the name of a file", ""
    if isinstance(error, PermissionError):
        return "may not be read (permission denied)", ""
    words = error.strerror or str(error)
    advice = f", not an image; accepted: {_ACCEPTED}"
    return words, advice if words.startswith("is a") else ""


def _check_pixels(num_pixels: int) -> None:
    most = Image.MAX_IMAGE_PIXELS
    if most is not None and num_pixels > most:
        raise Image.DecompressionBombError


def _reason(error: Exception, file: BinaryIO | io.BytesIO) -> str:
    """Why a file could not be read, on one line."""
    if isinstance(error, Image.DecompressionBombError):
        return (
            f"it says that it has more than {Image.MAX_IMAGE_PIXELS:,} pixels, the "
            "most that are read"
        )
    if not isinstance(error, Image.UnidentifiedImageError):
        return " ".join(str(error).split()) or type(error).__name__
    file.seek(0)
    start = file.read(12)
    if not start:
        return "not an image: the file is empty"
    if start[4:8] == b"ftyp" and start[8:] in _HEIF_BRANDS and "HEIF" not in Image.OPEN:
        return "HEIC, which needs a plugin: pip install pillow-heif"
    return "not an image, or its header is damaged"


def write_png(path: str | os.PathLike[str], image: Shaped[np.ndarray, "h w c"]) -> None:
    """Writes an 8-bit PNG atomically.

    Args:
      path: The file; missing folders are made.
      image: [h, w, 3] is written as RGB, [h, w, 1] as grey; clipped to [0, 1].

    Raises:
      ImageError: A pixel is not finite, or there are neither 1 nor 3 channels.
    """
    stream = io.BytesIO()
    to_pillow(image).save(stream, "PNG")
    files.write_whole(path, stream.getvalue())


def _pixels(picture: Image.Image) -> np.ndarray:
    transparent = picture.info.get("transparency")
    if picture.mode.startswith("I"):
        return _deep_grey(np.asarray(picture), transparent)
    if picture.mode == "F":
        raise ValueError("floating-point pixels have no known range")
    if not picture.has_transparency_data:
        return np.asarray(picture.convert("RGB"), np.float32) / np.float32(255)
    rgba = np.asarray(picture.convert("RGBA"), np.float32) / np.float32(255)
    colour, alpha = rgba[:, :, :3], rgba[:, :, 3:]
    return colour * alpha + (1 - alpha)


def _deep_grey(levels: np.ndarray, transparent: object) -> np.ndarray:
    if levels.min() < 0 or levels.max() > 65535:
        raise ValueError("grey levels outside 0 to 65535")
    if isinstance(transparent, int):
        levels = np.where(levels == transparent, 65535, levels)
    grey = levels.astype(np.float32) / np.float32(65535)
    return np.repeat(grey[:, :, None], 3, axis=2)
