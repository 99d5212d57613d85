"""The amplitude spectrum of natural images, as a change of coordinates.

Amplitudes of photographs fall off as one over the frequency. In coordinates divided by
that, all coefficients have about the same size, so that one step size suits them all.
Samplers iterate on such a white image w, which stands for the image
z = irfft2(rfft2(w) weight) with

    weight ~ 1 / sqrt(fx^2 + fy^2 + (1 / max(h, w))^2),

fx and fy in cycles per pixel, and unit mean square over the half plane of `rfft2`.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Shaped

from invjax import identity
from invjax.images import pixels
from invjax.types import Image, PRNGKey


def weight(height: int, width: int) -> np.ndarray:
    """Returns the amplitudes of natural images, with unit mean square.

    Args:
      height, width: size of the image in pixels.

    Returns:
      float64 [h, w // 2 + 1, 1], in the order of `rfft2`.

    Examples:
      >>> weight(4, 6).shape
      (4, 4, 1)
    """
    vertical = np.fft.fftfreq(height)[:, None]
    horizontal = np.fft.rfftfreq(width)[None, :]
    lowest = 1 / max(height, width)
    amplitude = 1 / np.sqrt(vertical**2 + horizontal**2 + lowest**2)
    return (amplitude / np.sqrt(np.mean(amplitude**2)))[..., None]


def colour(white: Shaped[Array | np.ndarray, "h w c"]) -> Image:
    """Gives white noise the amplitude spectrum of natural images.

    The map is linear, symmetric and invertible, and keeps the shape.

    Args:
      white: [h, w, c], in any range.

    Raises:
      ImageError: as `pixels.checked`.
    """
    pixels.checked(white, name="white")
    coefficients = jnp.fft.rfft2(white, axes=(0, 1))
    scaled = coefficients * jnp.asarray(weight(*white.shape[:2]), coefficients.dtype)
    return jnp.fft.irfft2(scaled, s=white.shape[:2], axes=(0, 1))


def natural_direction(key: PRNGKey, image_shape: tuple[int, int, int]) -> Image:
    """Draws a direction [h, w, c] of unit norm with the spectrum of natural images."""
    key = identity.one_key(key)
    noise = colour(jax.random.normal(key, image_shape, jnp.float32))
    return noise / jnp.linalg.norm(noise)
