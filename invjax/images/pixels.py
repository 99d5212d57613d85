"""Pixels of images in memory: what an image is, resizing, cropping, grey.

An image is a float32 NumPy array [h, w, 3] (RGB) or [h, w, 1] (grey) in [0, 1], rows
from the top. Resized images hold multiples of 1/255 only, so that writing one to an
8-bit file loses nothing.

Every public function that takes an image follows one rule, `checked`: its pixels are
floating-point numbers, since integers would be 8-bit levels as likely as fractions;
they are finite; and where a function asks for [0, 1], they are in it. Images that were
optimised leave [0, 1]; functions that clip take them.
"""

from typing import Any, Literal, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float32, Shaped, UInt8
from PIL import Image

from invjax import identity

GREY_WEIGHTS = (0.2989, 0.5870, 0.1140)
"""Red, green and blue in grey: MATLAB's `rgb2gray` to four digits, as in the papers.

They sum to 0.9999.
"""

TOLERANCE = 0.1
"""How far beyond [0, 1] a pixel may be where that range is asked for.

Interpolation overshoots by so much; images in [-1, 1] or of unit variance by more.
"""

LARGEST = 16.0
"""Largest pixel of an image to be clipped, unless others are negative.

An optimised image that has gone so far beyond 1 has also gone below 0.
"""

ImageT = TypeVar("ImageT")


class ImageError(ValueError):
    """An image cannot be found, read or used; the message is one line."""


def checked(
    image: ImageT,
    *,
    name: str = "image",
    values: Literal["any", "clipped", "unit"] = "any",
) -> ImageT:
    """Returns an image as it is, or says in one line why it is none.

    Of an image that is traced, only the type is known and checked.

    Args:
      image: an array of any shape, or several images in one array.
      name: the argument, for the message.
      values: "unit" asks for [0, 1], up to `TOLERANCE`; "clipped" takes what lies
        beyond, as in optimised images, but not 8-bit levels: an image that has a value
        above `LARGEST` and none below 0; "any" takes all finite values.

    Raises:
      ImageError: pixels are integers, or not finite, or out of the range.

    Examples:
      >>> checked(np.uint8([[[0, 255]]]))
      Traceback (most recent call last):
      ...
      invjax.images.pixels.ImageError: image takes floats in [0, 1], not uint8: divide
      8-bit pixels by 255
      >>> checked(np.float32([[[0, 1.02]]]), values="unit").shape
      (1, 1, 2)
    """
    check_type(image, name=name)
    if isinstance(image, jax.core.Tracer):
        return image
    pixels = np.asarray(image)
    # NaN is in neither, and a minimum makes no copy.
    lowest, highest = pixels.min(initial=np.inf), pixels.max(initial=-np.inf)
    if pixels.size and not (lowest > -np.inf and highest < np.inf):
        raise ImageError(f"{name} holds values that are infinite or not a number")
    is_levels = values == "clipped" and lowest >= 0 and highest > LARGEST
    if is_levels or (values == "unit" and not is_in_range(pixels)):
        raise ImageError(
            f"{name} holds values from {lowest:.3g} to {highest:.3g}; [0, 1] is "
            "accepted: divide 8-bit levels by 255"
        )
    return image


def check_type(image: Any, *, name: str = "image") -> None:
    """The part of `checked` that looks at the type alone, as for codes of iterates.

    Raises:
      ImageError: pixels are not floating-point numbers.
    """
    dtype = image.dtype if hasattr(image, "dtype") else np.asarray(image).dtype
    if not jnp.issubdtype(dtype, jnp.floating):
        raise ImageError(
            f"{name} takes floats in [0, 1], not {dtype}: divide 8-bit pixels by 255"
        )


def is_in_range(image: Any) -> bool:
    """Whether all pixels are in [0, 1], up to `TOLERANCE`."""
    pixels = np.asarray(image)
    if not pixels.size:
        return True
    return bool(pixels.min() >= -TOLERANCE and pixels.max() <= 1 + TOLERANCE)


def quantise(image: Shaped[np.ndarray, "..."]) -> UInt8[np.ndarray, "..."]:
    """Clips an image to [0, 1] and rounds it to the nearest of 256 levels.

    Args:
      image: any shape, 0 for black and 1 for white.

    Raises:
      ImageError: as `checked`; the image is clipped.

    Examples:
      >>> quantise(np.float32([-1, 0, 0.5, 1])).tolist()
      [0, 0, 128, 255]
    """
    pixels = np.asarray(checked(image, values="clipped"))
    return np.rint(np.clip(pixels, 0, 1) * 255).astype(np.uint8)


def image_id(image: Shaped[np.ndarray, "h w c"]) -> int:
    """The first 32 bits of the SHA-256 of the 8-bit pixels, row by row, big endian.

    Args:
      image: [h, w, c] in [0, 1].

    Raises:
      ImageError: as `checked`; [0, 1] is asked for.

    Examples:
      >>> image_id(np.zeros((2, 2, 3), np.float32))
      367819760
    """
    return identity.bytes_id(quantise(checked(image, values="unit")).tobytes())


def centre_crop(
    image: Shaped[np.ndarray, "h w c"], size: int
) -> Float32[np.ndarray, "{size} {size} c"]:
    """Cuts out the largest centred square and resizes it with Pillow, in 8 bit.

    The filter is LANCZOS. Where the margin is odd, the extra pixel is cut off at the
    bottom or at the right. Small images are enlarged.

    Args:
      image: [h, w, 3] or [h, w, 1] in [0, 1], clipped and quantised first.
      size: Side of the result in pixels.

    Returns:
      float32 [size, size, c], multiples of 1/255.

    Raises:
      ImageError: The size is below 1, or as `checked`; the image is clipped.

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
    image: Shaped[np.ndarray, "h w c"], size: int
) -> Float32[np.ndarray, "{size} {size} c"]:
    """Resizes the whole image to a square in 8 bit, changing its aspect ratio.

    Arguments, result and errors as in `centre_crop`.
    """
    return _resize(image, (size, size))


def fit_short_side(
    image: Shaped[np.ndarray, "h w c"], size: int
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


def to_grey(image: Shaped[np.ndarray, "h w c"]) -> Float32[np.ndarray, "h w 1"]:
    """Converts a colour image to grey with MATLAB's weights, `GREY_WEIGHTS`.

    Args:
      image: [h, w, 3] in any range; [h, w, 1] is returned unchanged, as float32.

    Returns:
      float32 [h, w, 1], not quantised.

    Raises:
      ImageError: as `checked`; any range is accepted.

    Examples:
      >>> round(to_grey(np.float32([[[1, 0, 0]]])).item(), 4)
      0.2989
    """
    checked(image)
    if image.shape[-1] == 1:
        return image.astype(np.float32)
    # Not a matrix product, whose last bit would depend on the BLAS library.
    weights = np.array(GREY_WEIGHTS, np.float32)
    return (image.astype(np.float32) * weights).sum(-1, keepdims=True)


def to_pillow(image: Shaped[np.ndarray, "h w c"]) -> Image.Image:
    """Converts an image to an 8-bit Pillow picture: "RGB", or "L" for one channel.

    Raises:
      ImageError: There are neither 1 nor 3 channels, or as `checked`; the image is
        clipped.

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
