"""Pixels of images in memory: 8-bit levels, resizing, cropping, grey.

An image is a float32 NumPy array [h, w, 3] (RGB) or [h, w, 1] (grey) in [0, 1], rows
from the top. Resized images hold multiples of 1/255 only, so that writing one to an
8-bit file loses nothing.
"""

import numpy as np
from jaxtyping import Float, Float32, UInt8
from PIL import Image

from invjax import identity

GREY_WEIGHTS = (0.2989, 0.5870, 0.1140)
"""Red, green and blue in grey: MATLAB's `rgb2gray` to four digits, as in the papers.

They sum to 0.9999.
"""


class ImageError(ValueError):
    """An image cannot be found, read or used; the message is one line."""


def quantise(image: Float[np.ndarray, "..."]) -> UInt8[np.ndarray, "..."]:
    """Clips an image to [0, 1] and rounds it to the nearest of 256 levels.

    Args:
      image: any shape, 0 for black and 1 for white.

    Raises:
      ImageError: A pixel is infinite or not a number.

    Examples:
      >>> quantise(np.float32([-1, 0, 0.5, 1])).tolist()
      [0, 0, 128, 255]
    """
    try:
        return identity.quantise(image)
    except ValueError as error:
        raise ImageError(str(error)) from None


def centre_crop(
    image: Float[np.ndarray, "h w c"], size: int
) -> Float32[np.ndarray, "{size} {size} c"]:
    """Cuts out the largest centred square and resizes it with Pillow, in 8 bit.

    The filter is LANCZOS. Where the margin is odd, the extra pixel is cut off at the
    bottom or at the right. Small images are enlarged.

    Args:
      image: [h, w, 3] or [h, w, 1] in [0, 1], quantised first.
      size: Side of the result in pixels.

    Returns:
      float32 [size, size, c], multiples of 1/255.

    Raises:
      ImageError: The size is below 1, or a pixel is not finite.

    Examples:
      >>> centre_crop(np.zeros((300, 451, 3), np.float32), 224).shape
      (224, 224, 3)
    """
    height, width = image.shape[:2]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    square = image[top : top + side, left : left + side]
    return _resize(square, (size, size))


def stretch(
    image: Float[np.ndarray, "h w c"], size: int
) -> Float32[np.ndarray, "{size} {size} c"]:
    """Resizes the whole image to a square in 8 bit, changing its aspect ratio.

    Arguments, result and errors as in `centre_crop`.
    """
    return _resize(image, (size, size))


def fit_short_side(
    image: Float[np.ndarray, "h w c"], size: int
) -> Float32[np.ndarray, "H W c"]:
    """Resizes in 8 bit so that the short side is `size`, keeping the aspect ratio.

    The long side is rounded to the nearest pixel. Otherwise as in `centre_crop`.

    Examples:
      >>> fit_short_side(np.zeros((300, 451, 3), np.float32), 224).shape
      (224, 337, 3)
    """
    height, width = image.shape[:2]
    short = min(height, width)
    return _resize(
        image,
        (_scaled(height, size, short), _scaled(width, size, short)),
    )


def to_grey(image: Float[np.ndarray, "h w c"]) -> Float32[np.ndarray, "h w 1"]:
    """Converts a colour image to grey with MATLAB's weights, `GREY_WEIGHTS`.

    Args:
      image: [h, w, 3] in any range; [h, w, 1] is returned unchanged, as float32.

    Returns:
      float32 [h, w, 1], not quantised.

    Examples:
      >>> round(to_grey(np.float32([[[1, 0, 0]]])).item(), 4)
      0.2989
    """
    if image.shape[-1] == 1:
        return image.astype(np.float32)
    # Not a matrix product, whose last bit would depend on the BLAS library.
    weights = np.array(GREY_WEIGHTS, np.float32)
    return (image.astype(np.float32) * weights).sum(-1, keepdims=True)


def to_pillow(image: Float[np.ndarray, "h w c"]) -> Image.Image:
    """Converts an image to an 8-bit Pillow picture: "RGB", or "L" for one channel.

    Raises:
      ImageError: A pixel is not finite, or there are neither 1 nor 3 channels.

    Examples:
      >>> to_pillow(np.zeros((2, 3, 1), np.float32)).mode
      'L'
    """
    pixels = quantise(image)
    if pixels.shape[-1] == 1:
        return Image.fromarray(pixels[:, :, 0])
    if pixels.shape[-1] == 3:
        return Image.fromarray(pixels)
    raise ImageError(f"an image has 1 or 3 channels, this one {pixels.shape[-1]}")


def _resize(image: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    height, width = shape
    if min(shape) < 1:
        raise ImageError(
            f"an image of {height} x {width} pixels cannot be made; at least one pixel "
            "is needed"
        )
    resized = to_pillow(image).resize((width, height), Image.Resampling.LANCZOS)
    pixels = np.asarray(resized, np.float32) / np.float32(255)
    return pixels.reshape(height, width, image.shape[-1])


def _scaled(length: int, size: int, short: int) -> int:
    # length * size / short, halves rounded up, in integers: equal on every machine.
    return (2 * length * size + short) // (2 * short)
