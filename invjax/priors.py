"""What makes a preimage look natural: regularisers, a bound on the range, jitter.

They take any [h, w, c] array. The CVPR paper applies its regularisers to x = z / sigma,
where z is the image in grey levels minus its centre (section 3); the IJCV paper applies
its own to z.
"""

import functools

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float, Int

from invjax.types import Image, PRNGKey, Scalar

CVPR_GRADIENT_FLOOR = 1e-5
IJCV_GRADIENT_FLOOR = 1e-6
"""Where the released codes floor a summand of R_TV^beta in its gradient."""

Canvas = Float[Array, "canvas_h canvas_w c"]
"""An image with room for jitter around it."""


def alpha_norm(image: Image, *, alpha: int = 6) -> Scalar:
    """R_alpha = sum over pixels and channels of |x|^alpha.

    Each channel counts by itself, as in the CVPR paper's code; the IJCV paper takes
    the norm of the colour vector instead, `colour_alpha_norm`.
    """
    return jnp.sum(jnp.abs(image) ** alpha)


def colour_alpha_norm(image: Image, *, alpha: int = 6) -> Scalar:
    """Sum over pixels of |colour|^alpha, |colour|^2 = sum of squares over channels.

    The IJCV paper's R_alpha before its division by H W B^alpha. With one
    channel it is `alpha_norm`.

    Args:
      image: [h, w, c].
      alpha: even, so that the gradient of a flat image is defined.

    Raises:
      ValueError: alpha is odd.
    """
    if alpha % 2:
        raise ValueError(f"alpha is {alpha}; even numbers are accepted")
    return jnp.sum(jnp.sum(image**2, axis=-1) ** (alpha // 2))


def total_variation(
    image: Image, *, beta: float = 2.0, gradient_floor: float = CVPR_GRADIENT_FLOOR
) -> Scalar:
    """R_TV^beta = sum of ((right - x)^2 + (lower - x)^2)^(beta / 2).

    Channels by themselves; beyond the last column and row the image is replicated, so
    the differences there are zero. For beta < 2 the gradient at a flat pixel is not
    defined; as in the papers' codes the difference's length is then floored: the
    gradient's weight is max(v, gradient_floor)^(1 - 2 / beta), with v the pixel's
    summand, in the units of `image`.
    """
    right = jnp.diff(image, axis=1, append=image[:, -1:])
    lower = jnp.diff(image, axis=0, append=image[-1:])
    squared = right**2 + lower**2
    return jnp.sum(squared if beta == 2 else _power(squared, beta, gradient_floor))


def bound_colours(image: Image, bound: Scalar) -> Image:
    """The nearest image whose colour vectors all have a norm of at most `bound`.

    The IJCV paper's hard constraint on the range: a pixel beyond it is rescaled, its
    hue kept; with one channel it is clipped to [-bound, bound].

    Args:
      image: [h, w, c], around the grey that the bound is centred on.
      bound: positive; infinite for none.
    """
    norm = jnp.sqrt(jnp.sum(image**2, axis=-1, keepdims=True))
    # Also right where the norm is zero: bound / 0 is infinite.
    return image * jnp.broadcast_to(jnp.minimum(bound / norm, 1.0), image.shape)


def canvas_shape(
    image_shape: tuple[int, int, int], *, jitter: int = 1
) -> tuple[int, int, int]:
    """Shape of a canvas with `jitter` places for the image along each axis."""
    height, width, channels = image_shape
    return (height + jitter - 1, width + jitter - 1, channels)


def random_offset(key: PRNGKey, *, jitter: int) -> Int[Array, "2"]:
    """A place (row, column) of the image on its canvas, all jitter^2 equally likely."""
    return jax.random.randint(key, (2,), 0, jitter)


def crop_at(
    canvas: Canvas, offset: Int[Array, "2"], image_shape: tuple[int, int, int]
) -> Image:
    """The image of that shape whose top left corner lies at `offset`."""
    return jax.lax.dynamic_slice(canvas, (offset[0], offset[1], 0), image_shape)


def central_crop(canvas: Canvas, image_shape: tuple[int, int, int]) -> Image:
    """The image in the middle; of odd margins the top left has the smaller part."""
    if canvas.shape == image_shape:
        return canvas
    top, left = _margins(canvas.shape, image_shape)
    height, width, _ = image_shape
    return canvas[top : top + height, left : left + width]


def on_canvas(image: Image, *, jitter: int = 1) -> Canvas:
    """The image in the middle of a canvas of zeros, as `central_crop` takes it out."""
    height, width, channels = image.shape
    shape = canvas_shape((height, width, channels), jitter=jitter)
    top, left = _margins(shape, image.shape)
    canvas = jnp.zeros(shape, image.dtype)
    return canvas.at[top : top + height, left : left + width].set(image)


def _margins(canvas: tuple[int, ...], image: tuple[int, ...]) -> tuple[int, int]:
    return (canvas[0] - image[0]) // 2, (canvas[1] - image[1]) // 2


@functools.partial(jax.custom_jvp, nondiff_argnums=(1, 2))
def _power(
    squared: Float[Array, "h w c"], beta: float, gradient_floor: float
) -> Float[Array, "h w c"]:
    del gradient_floor
    return squared ** (beta / 2)


@_power.defjvp
def _power_jvp(
    beta: float,
    gradient_floor: float,
    primals: tuple[Float[Array, "h w c"]],
    tangents: tuple[Float[Array, "h w c"]],
) -> tuple[Float[Array, "h w c"], Float[Array, "h w c"]]:
    value = _power(primals[0], beta, gradient_floor)
    floored = jnp.maximum(value, gradient_floor)
    slope = beta / 2 * floored ** (2 * (beta / 2 - 1) / beta)
    return value, slope * tangents[0]
