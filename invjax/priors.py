"""Regularisers of one image: what makes a preimage look natural.

They take any [h, w, c] array; the paper applies them to x = z / sigma, where z is the
image in grey levels minus its centre (paper section 3).
"""

import functools

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from invjax.types import Image, Scalar

_GRADIENT_FLOOR = 1e-5


def alpha_norm(image: Image, *, alpha: int = 6) -> Scalar:
    """R_alpha = sum over pixels and channels of |x|^alpha.

    Each channel counts by itself, as in the CVPR paper's code; the IJCV paper takes
    the norm of the colour vector instead.
    """
    return jnp.sum(jnp.abs(image) ** alpha)


def total_variation(image: Image, *, beta: float = 2.0) -> Scalar:
    """R_TV^beta = sum of ((right - x)^2 + (lower - x)^2)^(beta / 2).

    Channels by themselves; beyond the last column and row the image is replicated, so
    the differences there are zero. For beta < 2 the gradient at a flat pixel is not
    defined; as in the paper's code the difference's length is then floored: the
    gradient's weight is max(v, 1e-5)^(2 (beta / 2 - 1) / beta), with v the pixel's
    summand, in the units of `image`.
    """
    right = jnp.diff(image, axis=1, append=image[:, -1:])
    lower = jnp.diff(image, axis=0, append=image[-1:])
    squared = right**2 + lower**2
    return jnp.sum(squared if beta == 2 else _power(squared, beta))


@functools.partial(jax.custom_jvp, nondiff_argnums=(1,))
def _power(squared: Float[Array, "h w c"], beta: float) -> Float[Array, "h w c"]:
    return squared ** (beta / 2)


@_power.defjvp
def _power_jvp(
    beta: float,
    primals: tuple[Float[Array, "h w c"]],
    tangents: tuple[Float[Array, "h w c"]],
) -> tuple[Float[Array, "h w c"], Float[Array, "h w c"]]:
    value = _power(primals[0], beta)
    floored = jnp.maximum(value, _GRADIENT_FLOOR)
    slope = beta / 2 * floored ** (2 * (beta / 2 - 1) / beta)
    return value, slope * tangents[0]
