"""Splits colour images into luminance and chroma.

The split is into orthonormal opponent channels of the RGB values as they are stored
(gamma is not undone):

    luminance    (R + G + B) / sqrt(3)
    red-green    (R - G) / sqrt(2)
    blue-yellow  (R + G - 2 B) / sqrt(6)

Since they are orthonormal, the energies of the three channels add up to the energy of
RGB. The chroma of a grey pixel is zero. Images are [h, w, 3], or [h, w, 1] for grey, in
any range.
"""

import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike
from jaxtyping import Float

from invjax.images import pixels
from invjax.types import Image

_OPPONENT = np.array(
    [
        np.array([1, 1, 1]) / np.sqrt(3),
        np.array([1, -1, 0]) / np.sqrt(2),
        np.array([1, 1, -2]) / np.sqrt(6),
    ],
    np.float32,
)


def opponent(image: ArrayLike) -> Float[Array, "h w 3"]:
    """Returns luminance, red-green and blue-yellow of every pixel.

    Args:
      image: [h, w, 3] or [h, w, 1].

    Raises:
      ValueError: there are neither one nor three channels, or as `pixels.checked`.

    Examples:
      >>> red = np.float32([[[1, 0, 0]]])
      >>> np.asarray(opponent(red)).round(2)
      array([[[0.58, 0.71, 0.41]]], dtype=float32)
    """
    red, green, blue = jnp.moveaxis(_rgb(image), -1, 0)
    # Not a matrix product, which accelerators may round to bfloat16.
    return jnp.stack(
        [
            weights[0] * red + weights[1] * green + weights[2] * blue
            for weights in _OPPONENT
        ],
        axis=-1,
    )


def luminance_only(image: ArrayLike) -> Float[Array, "h w 3"]:
    """Returns the image without its colours: the mean of the channels, three times.

    Raises:
      ValueError: there are neither one nor three channels, or as `pixels.checked`.
    """
    rgb = _rgb(image)
    return jnp.broadcast_to(rgb.mean(-1, keepdims=True), rgb.shape)


def chroma_only(image: ArrayLike) -> Float[Array, "h w 3"]:
    """Returns the image's colours, all at the mean luminance of the image.

    `image` = `luminance_only(image)` + `chroma_only(image)` - mean of `image`. For an
    image in [0, 1] some values of the result lie outside that range; they are not
    clipped.

    Raises:
      ValueError: there are neither one nor three channels, or as `pixels.checked`.
    """
    rgb = _rgb(image)
    return rgb - rgb.mean(-1, keepdims=True) + rgb.mean()


def _rgb(image: ArrayLike) -> Image:
    image = jnp.asarray(pixels.checked(image))
    if image.ndim != 3 or image.shape[-1] not in (1, 3):
        raise ValueError(
            f"the image has shape {image.shape}; [h, w, 3] and [h, w, 1] are accepted"
        )
    return jnp.broadcast_to(image, (*image.shape[:2], 3))
