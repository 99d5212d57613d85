"""Image files: reads photographs and writes PNG files.

An image is a float32 NumPy array [h, w, 3] (RGB) or [h, w, 1] (grey) in [0, 1], rows
from the top. Values read are multiples of 1/255, except from 16-bit and transparent
files. Colour profiles are ignored.
"""

import io
import os
import pathlib
import warnings

import numpy as np
from jaxtyping import Float, Float32
from PIL import Image, ImageOps

from invjax import files
from invjax.images.pixels import ImageError, to_pillow

# Pillow would try every decoder it has, rare ones and Ghostscript included.
_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF")
_ACCEPTED = "JPEG, PNG, WebP, BMP, TIFF and GIF files"


def read(path: str | os.PathLike[str]) -> Float32[np.ndarray, "h w 3"]:
    """Reads an image file as RGB.

    Accepts JPEG, PNG, WebP, BMP, TIFF and GIF (the first frame of an animation). Grey
    is repeated to three channels; palettes and CMYK are converted; 16-bit grey is
    divided by 65535 (Pillow gives only the upper eight bits of 16-bit colour);
    transparent pixels are composited over white; EXIF orientation is applied.

    Args:
      path: The file, with any ending: the format is recognised by its contents.

    Returns:
      float32 [h, w, 3] in [0, 1].

    Raises:
      ImageError: The file does not exist, is not an image, is truncated, or holds
        pixels whose range is unknown.
    """
    path = pathlib.Path(path)
    if not path.exists():
        raise ImageError(f"{path}: no such file")
    if path.is_dir():
        raise ImageError(f"{path}: is a folder, not an image; accepted: {_ACCEPTED}")
    try:
        # Decoders warn of odd EXIF data or large pictures; the pixels are read anyway.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(path, formats=_FORMATS) as picture:
                picture.load()
                return _pixels(ImageOps.exif_transpose(picture))
    except MemoryError:
        raise
    # Damaged bytes make decoders raise exceptions of any type, even SyntaxError.
    except Exception as error:
        reason = (
            "not an image, or its header is damaged"
            if isinstance(error, Image.UnidentifiedImageError)
            else " ".join(str(error).split()) or type(error).__name__
        )
        raise ImageError(
            f"{path}: cannot be read as an image ({reason}); accepted: {_ACCEPTED}"
        ) from error


def write_png(path: str | os.PathLike[str], image: Float[np.ndarray, "h w c"]) -> None:
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
