"""Jitter: an image on a slightly larger canvas, of which a random crop is used.

The IJCV paper shifts the image by a few pixels at every step (section on jitter). The
variable of the descent is then a canvas in `jitter` - 1 more rows and columns, and the
reconstruction is its central crop.
"""

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float, Int

from invjax.types import Image, PRNGKey

Canvas = Float[Array, "canvas_h canvas_w c"]
"""An image with a margin around it, for jitter or views."""


def canvas_shape(
    image_shape: tuple[int, int, int], *, jitter: int = 1
) -> tuple[int, int, int]:
    """Shape of a canvas with `jitter` places for the image along each axis.

    Examples:
      >>> canvas_shape((224, 224, 3), jitter=4)
      (227, 227, 3)
    """
    height, width, channels = image_shape
    return (height + jitter - 1, width + jitter - 1, channels)


def random_offset(key: PRNGKey, *, jitter: int) -> Int[Array, "2"]:
    """Top left corner (row, column) of a crop; all jitter^2 places equally likely."""
    return jax.random.randint(key, (2,), 0, jitter, jnp.int32)


def crop_at(
    canvas: Canvas, offset: Int[Array, "2"], image_shape: tuple[int, int, int]
) -> Image:
    """The image of that shape whose top left corner lies at `offset`."""
    return jax.lax.dynamic_slice(
        canvas, (offset[0], offset[1], jnp.int32(0)), image_shape
    )


def central_crop(canvas: Canvas, image_shape: tuple[int, int, int]) -> Image:
    """The image in the middle; an odd margin is smaller at the top and left."""
    if canvas.shape == image_shape:
        return canvas
    top, left = _margins(canvas.shape, image_shape)
    height, width, _ = image_shape
    return canvas[top : top + height, left : left + width]


def on_canvas(image: Image, shape: tuple[int, int, int]) -> Canvas:
    """The image in the middle of a canvas of zeros, as `central_crop` takes it out.

    Args:
      image: [h, w, c].
      shape: shape of the canvas.
    """
    height, width, _ = image.shape
    top, left = _margins(shape, image.shape)
    canvas = jnp.zeros(shape, image.dtype)
    return canvas.at[top : top + height, left : left + width].set(image)


def _margins(canvas: tuple[int, ...], image: tuple[int, ...]) -> tuple[int, int]:
    return (canvas[0] - image[0]) // 2, (canvas[1] - image[1]) // 2
