"""Pixels in the memory: 8-bit levels, sizes and crops, grey.

An image is a float32 NumPy array [h, w, 3] (RGB) or [h, w, 1] (grey) in [0, 1], rows
from the top. What was resized holds multiples of 1/255 only, so that the picture and
the 8-bit file it may be written to are the same image.
"""

import numpy as np
from jaxtyping import Float, Float32, UInt8
from PIL import Image

from invjax import identity

# MATLAB's rgb2gray to four digits, as in the papers; they sum to 0.9999.
_GREY_WEIGHTS = np.array([0.2989, 0.5870, 0.1140], np.float32)


class ImageError(ValueError):
    """An image that cannot be found, read or used; the message is one line."""


def quantise(image: Float[np.ndarray, "..."]) -> UInt8[np.ndarray, "..."]:
    """Clips to [0, 1] and rounds to the nearest of the 256 levels.

    Raises:
      ImageError: A pixel is infinite or not a number.
    """
    try:
        return identity.quantise(image)
    except ValueError as error:
        raise ImageError(str(error)) from None


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


def to_pillow(image: Float[np.ndarray, "h w c"]) -> Image.Image:
    """The image as an 8-bit Pillow picture: "RGB", or "L" for one channel."""
    pixels = quantise(image)
    if pixels.shape[-1] == 1:
        return Image.fromarray(pixels[:, :, 0])
    if pixels.shape[-1] == 3:
        return Image.fromarray(pixels)
    raise ImageError(f"an image has 1 or 3 channels, this one {pixels.shape[-1]}")


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
