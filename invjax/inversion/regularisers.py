"""Natural-image regularisers R_alpha and R_TV^beta, and a bound on the range.

They take any [h, w, c] array. The CVPR paper applies its regularisers to x = z / sigma,
where z is the image in grey levels minus its centre (section 3); the IJCV paper applies
its own to z.
"""

import functools

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from invjax.types import Image, Scalar

CVPR_GRADIENT_FLOOR = 1e-5
IJCV_GRADIENT_FLOOR = 1e-6
"""Where the released codes floor a summand of R_TV^beta in its gradient."""


def alpha_norm(image: Image, *, alpha: int = 6) -> Scalar:
    """R_alpha = sum over pixels and channels of |x|^alpha.

    Each channel counts by itself, as in the CVPR paper's code; the IJCV paper takes
    the norm of the colour vector instead, `colour_alpha_norm`.

    Examples:
      >>> import jax.numpy as jnp
      >>> float(alpha_norm(2 * jnp.ones((1, 3, 1))))
      192.0
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

    Examples:
      >>> import jax.numpy as jnp
      >>> edge = jnp.array([0.0, 0.0, 3.0])[None, :, None]
      >>> float(total_variation(edge)), float(total_variation(edge, beta=1.0))
      (9.0, 3.0)
    """
    right = jnp.diff(image, axis=1, append=image[:, -1:])
    lower = jnp.diff(image, axis=0, append=image[-1:])
    squared = right**2 + lower**2
    return jnp.sum(squared if beta == 2 else _power(squared, beta, gradient_floor))


def scale_chroma(image: Image, factor: Scalar) -> Image:
    """The image with each pixel's distance from grey multiplied by a factor.

    Grey here is the mean over channels, which stays as it is. Photographs vary in
    brightness several times more than in colour; before R_TV, the square root of a
    weight makes differences of colour count by that weight.

    Args:
      image: [h, w, c]; with one channel it stays as it is.
      factor: a number from 0 up.

    Examples:
      >>> import jax.numpy as jnp
      >>> pixel = jnp.array([30.0, 60.0, 90.0])[None, None]
      >>> [float(x) for x in scale_chroma(pixel, jnp.float32(2.0))[0, 0]]
      [0.0, 60.0, 120.0]
    """
    grey = jnp.mean(image, axis=-1, keepdims=True)
    return grey + factor * (image - grey)


def bound_colours(image: Image, bound: Scalar) -> Image:
    """The nearest image whose colour vectors all have a norm of at most `bound`.

    The IJCV paper's hard constraint on the range: a pixel beyond it is rescaled, its
    hue kept; with one channel it is clipped to [-bound, bound].

    Args:
      image: [h, w, c], minus the grey that the bound is centred on.
      bound: largest norm of a colour vector; infinite for no bound.

    Examples:
      >>> import jax.numpy as jnp
      >>> pixel = jnp.array([30.0, 0.0, 40.0])[None, None]
      >>> [round(float(x), 3) for x in bound_colours(pixel, jnp.float32(25.0))[0, 0]]
      [15.0, 0.0, 20.0]
    """
    norm = jnp.sqrt(jnp.sum(image**2, axis=-1, keepdims=True))
    # Also right where the norm is zero: bound / 0 is infinite.
    return image * jnp.broadcast_to(jnp.minimum(bound / norm, 1.0), image.shape)


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
