"""One split of colour images, for everything that tells colour from brightness.

Orthonormal opponent channels of the RGB values as they are stored (no gamma undone):

    luminance  (R + G + B) / sqrt(3)
    red-green  (R - G) / sqrt(2)
    blue-yellow  (R + G - 2 B) / sqrt(6)

Orthonormal, so that the energies of the three add up to that of RGB; the chroma of a
grey pixel is zero. Images are [h, w, 3], or [h, w, 1] for grey, in any range.
"""

import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike
from jaxtyping import Float

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
    """Luminance, red-green and blue-yellow of every pixel; grey images have no chroma.

    Raises:
      ValueError: neither one nor three channels.
    """
    red, green, blue = jnp.moveaxis(_rgb(image), -1, 0)
    # Sums of products, as no matrix product may be rounded to bfloat16 on its way.
    return jnp.stack(
        [
            weights[0] * red + weights[1] * green + weights[2] * blue
            for weights in _OPPONENT
        ],
        axis=-1,
    )


def luminance_only(image: ArrayLike) -> Float[Array, "h w 3"]:
    """The image without its colours: the mean of the channels, three times."""
    rgb = _rgb(image)
    return jnp.broadcast_to(rgb.mean(-1, keepdims=True), rgb.shape)


def chroma_only(image: ArrayLike) -> Float[Array, "h w 3"]:
    """The image's colours at one luminance, the mean of the image's.

    `image` = `luminance_only` + `chroma_only` - that mean, so of a photograph in [0, 1]
    some values lie outside; they are not clipped.
    """
    rgb = _rgb(image)
    return rgb - rgb.mean(-1, keepdims=True) + rgb.mean()


def _rgb(image: ArrayLike) -> Image:
    image = jnp.asarray(image)
    if image.ndim != 3 or image.shape[-1] not in (1, 3):
        raise ValueError(
            f"an image of shape {image.shape}; [h, w, 3] and [h, w, 1] are accepted"
        )
    return jnp.broadcast_to(image, (*image.shape[:2], 3))
