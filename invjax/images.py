"""Photographs in, pictures out: reading, cropping, resizing, naming and writing.

An image is a float32 numpy array [h, w, 3] (RGB) or [h, w, 1] (grey) in [0, 1], rows
from the top. Whatever comes from a file or a resize holds multiples of 1/255 only,
except for 16-bit and transparent files as `read` gives them, so that the picture and
the 8-bit file it may be written to are the same image. Colour profiles are ignored.
"""

import glob
import hashlib
import importlib.util
import io
import os
import pathlib
import warnings
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Float32, UInt8
from numpy.typing import ArrayLike
from PIL import Image, ImageOps

from invjax import files, patterns

SAMPLES = ("astronaut", "chelsea", "coffee", "rocket")
"""Photographs that come with scikit-image."""

ABSTRACT = "abstract"
"""The sample that is no photograph: `patterns.abstract_pattern`."""

ENDINGS = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif")
"""File endings taken for images, in either case."""

_SAMPLE_PREFIX = "sample:"
_ABSTRACT_SIZE = 512
_SAMPLE_FILES = {name: f"{name}.png" for name in SAMPLES} | {"rocket": "rocket.jpg"}
# Naming the formats keeps the rarer decoders, and Ghostscript, away from user files.
_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF")
_ACCEPTED = "JPEG, PNG, WebP, BMP, TIFF and GIF files"
# MATLAB's rgb2gray to four digits, as in the papers; they sum to 0.9999.
_GREY_WEIGHTS = np.array([0.2989, 0.5870, 0.1140], np.float32)


class ImageError(ValueError):
    """An image that cannot be found, read or used; the message is one line."""


class Source(NamedTuple):
    """Where an image comes from.

    Attributes:
      name: File stem or sample name: unique in a run, and a folder's name in its
        output.
      origin: Path of the file, or "sample:NAME".
    """

    name: str
    origin: str


def read(path: str | os.PathLike[str]) -> Float32[np.ndarray, "h w 3"]:
    """Reads a photograph as RGB.

    JPEG, PNG, WebP, BMP, TIFF and GIF (of an animation, the first frame). Grey is
    repeated to three channels; palettes and CMYK are converted; 16-bit grey is divided
    by 65535 (Pillow gives only the upper eight bits of 16-bit colour); transparent
    pixels are composited over white; EXIF orientation is applied.

    Args:
      path: The file; its ending does not matter here.

    Returns:
      float32 [h, w, 3] in [0, 1].

    Raises:
      ImageError: No such file, not an image, truncated, or of no known range.
    """
    path = pathlib.Path(path)
    if not path.exists():
        raise ImageError(f"{path}: no such file")
    if path.is_dir():
        raise ImageError(f"{path}: is a folder, not an image; accepted: {_ACCEPTED}")
    try:
        # What a decoder merely warns of (odd EXIF, a large picture) is none of the
        # user's business if the pixels arrive.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(path, formats=_FORMATS) as picture:
                picture.load()
                return _pixels(ImageOps.exif_transpose(picture))
    except MemoryError:
        raise
    # Damaged bytes make the decoders raise almost anything, SyntaxError included.
    except Exception as error:
        reason = (
            "not an image, or its header is damaged"
            if isinstance(error, Image.UnidentifiedImageError)
            else " ".join(str(error).split()) or type(error).__name__
        )
        raise ImageError(
            f"{path}: cannot be read as an image ({reason}); accepted: {_ACCEPTED}"
        ) from error


def sample(name: str) -> Float32[np.ndarray, "h w 3"]:
    """Reads one of `SAMPLES` at its full size, from scikit-image's installed files.

    `ABSTRACT` needs none: it is made, at 512 px.

    Returns:
      float32 [h, w, 3] in [0, 1].

    Raises:
      ImageError: An unknown name, or scikit-image is not installed.
    """
    _check_sample(name)
    if name == ABSTRACT:
        pattern = quantise(patterns.abstract_pattern(_ABSTRACT_SIZE))
        return pattern.astype(np.float32) / np.float32(255)
    # Importing scikit-image would take a second and drag scipy in.
    spec = importlib.util.find_spec("skimage")
    if spec is None or not spec.submodule_search_locations:
        raise ImageError(
            f"{_SAMPLE_PREFIX}{name}: the sample photographs come with scikit-image, "
            "which is not installed; run: pip install 'invjax[pretrained]'"
        )
    folder = pathlib.Path(spec.submodule_search_locations[0], "data")
    return read(folder / _SAMPLE_FILES[name])


def find(spec: str) -> list[Source]:
    """Lists the images that a command-line value names.

    A file's name that has a comma in it cannot be given directly: name its folder, or
    a glob that matches it.

    Args:
      spec: Comma-separated files, globs (`**` reaches into subfolders), folders (every
        image file directly inside, hidden ones not) and `sample:NAME`.

    Returns:
      The sources in the order of the list, sorted within a glob or a folder.

    Raises:
      ImageError: An entry is empty or matches nothing, a file has no image ending, a
        sample is unknown, or two sources share a name.
    """
    found: dict[str, Source] = {}
    for item in spec.split(","):
        for source in _expand(item.strip(), spec):
            other = found.setdefault(source.name, source)
            if other is not source:
                raise ImageError(
                    f"two images are named {source.name!r}: {other.origin} and "
                    f"{source.origin}; names must differ, since outputs go by them"
                )
    return list(found.values())


def load(source: Source) -> Float32[np.ndarray, "h w 3"]:
    """Reads what `find` found; see `read` and `sample`."""
    if source.origin.startswith(_SAMPLE_PREFIX):
        return sample(source.origin.removeprefix(_SAMPLE_PREFIX))
    return read(source.origin)


def quantise(image: Float[np.ndarray, "..."]) -> UInt8[np.ndarray, "..."]:
    """Clips to [0, 1] and rounds to the nearest of the 256 levels.

    Raises:
      ImageError: A pixel is infinite or not a number.
    """
    if not np.isfinite(image).all():
        raise ImageError("the image holds values that are infinite or not a number")
    return np.rint(np.clip(image, 0, 1) * 255).astype(np.uint8)


def centre_crop(
    image: Float[np.ndarray, "h w c"], size: int
) -> Float32[np.ndarray, "{size} {size} c"]:
    """Cuts out the largest centred square and resizes it, in 8 bit.

    An odd margin loses its extra pixel at the bottom or right. Small images are
    enlarged.

    Args:
      image: [h, w, 3] or [h, w, 1] in [0, 1], quantised first.
      size: Side of the result in pixels.

    Returns:
      float32 [size, size, c], multiples of 1/255.

    Raises:
      ImageError: A size below 1, or a pixel is not finite.
    """
    height, width = image.shape[:2]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    square = image[top : top + side, left : left + side]
    return _resize(square, (size, size))


def stretch(
    image: Float[np.ndarray, "h w c"], size: int
) -> Float32[np.ndarray, "{size} {size} c"]:
    """Resizes all of the image to a square, in 8 bit, whatever becomes of its aspect.

    Arguments, result and errors as of `centre_crop`.
    """
    return _resize(image, (size, size))


def fit_short_side(
    image: Float[np.ndarray, "h w c"], size: int
) -> Float32[np.ndarray, "H W c"]:
    """Resizes in 8 bit so that the short side is `size`, keeping the aspect.

    The long side is rounded to the nearest pixel. Otherwise as `centre_crop`.
    """
    height, width = image.shape[:2]
    short = min(height, width)
    return _resize(
        image,
        (_scaled(height, size, short), _scaled(width, size, short)),
    )


def to_grey(image: Float[np.ndarray, "h w c"]) -> Float32[np.ndarray, "h w 1"]:
    """Weighs red, green and blue by 0.2989, 0.5870, 0.1140 (MATLAB's `rgb2gray`).

    Args:
      image: [h, w, 3] in any range; [h, w, 1] is returned as it is.

    Returns:
      float32 [h, w, 1], not quantised.
    """
    if image.shape[-1] == 1:
        return image.astype(np.float32)
    # A sum of products, not a matrix product: no BLAS may change the last bit.
    return (image.astype(np.float32) * _GREY_WEIGHTS).sum(-1, keepdims=True)


def image_id(image: Float[np.ndarray, "h w c"]) -> int:
    """The first 32 bits of the SHA-256 of the 8-bit pixels, rows first, big endian."""
    return _digest(quantise(image).tobytes())


def code_id(code: ArrayLike) -> int:
    """The first 32 bits of the SHA-256 of a code's float32 bytes.

    The values are hashed in C order as little-endian float32 on every machine, the
    digest's bits are read big endian.
    """
    return _digest(np.asarray(code, "<f4").tobytes())


def write_png(path: str | os.PathLike[str], image: Float[np.ndarray, "h w c"]) -> None:
    """Writes an 8-bit PNG, whole or not at all.

    Args:
      path: The file; missing folders are made.
      image: [h, w, 3] is written as RGB, [h, w, 1] as grey; clipped to [0, 1].

    Raises:
      ImageError: A pixel is not finite, or another number of channels.
    """
    stream = io.BytesIO()
    to_pillow(image).save(stream, "PNG")
    files.write_whole(path, stream.getvalue())


def to_pillow(image: Float[np.ndarray, "h w c"]) -> Image.Image:
    """The image as an 8-bit Pillow picture: "RGB", or "L" for one channel."""
    pixels = quantise(image)
    if pixels.shape[-1] == 1:
        return Image.fromarray(pixels[:, :, 0])
    if pixels.shape[-1] == 3:
        return Image.fromarray(pixels)
    raise ImageError(f"an image has 1 or 3 channels, this one {pixels.shape[-1]}")


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


def _resize(image: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    height, width = shape
    if min(shape) < 1:
        raise ImageError(f"an image needs at least one pixel, not {height} x {width}")
    resized = to_pillow(image).resize((width, height), Image.Resampling.LANCZOS)
    pixels = np.asarray(resized, np.float32) / np.float32(255)
    return pixels.reshape(height, width, image.shape[-1])


def _scaled(length: int, size: int, short: int) -> int:
    # Integer arithmetic: length * size / short, halves upwards, on every machine.
    return (2 * length * size + short) // (2 * short)


def _digest(data: bytes) -> int:
    return int.from_bytes(hashlib.sha256(data).digest()[:4], "big")


def _expand(item: str, spec: str) -> list[Source]:
    if not item:
        raise ImageError(f"the list of images {spec!r} has an empty entry")
    if item.startswith(_SAMPLE_PREFIX):
        name = item.removeprefix(_SAMPLE_PREFIX)
        _check_sample(name)
        return [Source(name, item)]
    # The shell does not expand the tilde inside --images=~/photos.
    path = pathlib.Path(item).expanduser()
    if path.is_dir():
        return _in_folder(path)
    # A file's own name comes before its reading as a glob: "photo[1].png".
    if path.exists():
        return [_file_source(path)]
    matches = [
        pathlib.Path(match) for match in sorted(glob.glob(str(path), recursive=True))
    ]
    return _or_refuse(
        [_file_source(match) for match in matches if not match.is_dir()],
        f"{item}: no such file or folder, and as a pattern it matches no file",
    )


def _check_sample(name: str) -> None:
    if name not in (*SAMPLES, ABSTRACT):
        raise ImageError(
            f"{_SAMPLE_PREFIX}{name}: no such sample; accepted: "
            f"{', '.join((*SAMPLES, ABSTRACT))}"
        )


def _in_folder(folder: pathlib.Path) -> list[Source]:
    inside = sorted(
        path
        for path in folder.iterdir()
        if path.suffix.lower() in ENDINGS
        and not path.name.startswith(".")
        and path.is_file()
    )
    return _or_refuse(
        [_file_source(path) for path in inside],
        f"{folder}: no image files in this folder; accepted: {' '.join(ENDINGS)}",
    )


def _file_source(path: pathlib.Path) -> Source:
    if path.suffix.lower() not in ENDINGS:
        raise ImageError(
            f"{path}: not known as an image by its ending; accepted: "
            f"{' '.join(ENDINGS)}"
        )
    # "..jpg" and "...jpg" would make the output's folder "." or "..".
    if not path.stem.strip("."):
        raise ImageError(f"{path}: its name without the ending is no folder's name")
    return Source(path.stem, str(path))


def _or_refuse(sources: Sequence[Source], message: str) -> list[Source]:
    if not sources:
        raise ImageError(message)
    return list(sources)
