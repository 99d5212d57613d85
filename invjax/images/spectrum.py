"""The spectrum of natural images, as a change of coordinates.

Amplitudes of photographs fall as one over the frequency. Divided by that, every
coefficient has about the same size, and so a step of one size suits them all. Samplers
iterate on such a white image w; z = irfft2(rfft2(w) weight), with

    weight ~ 1 / sqrt(fx^2 + fy^2 + (1 / max(h, w))^2),

scaled to unit mean square over the half plane of `rfft2`.
"""

import jax
import jax.numpy as jnp
import numpy as np

from invjax.types import Image, PRNGKey


def weight(height: int, width: int) -> np.ndarray:
    """[h, w // 2 + 1, 1]: amplitudes of natural images, unit mean square."""
    vertical = np.fft.fftfreq(height)[:, None]
    horizontal = np.fft.rfftfreq(width)[None, :]
    lowest = 1 / max(height, width)
    amplitude = 1 / np.sqrt(vertical**2 + horizontal**2 + lowest**2)
    return (amplitude / np.sqrt(np.mean(amplitude**2)))[..., None]


def colour(white: Image) -> Image:
    """White noise becomes noise as images have it.

    Linear, symmetric and invertible, with as many numbers on either side.
    """
    return _filtered(white, weight(*white.shape[:2]))


def whiten(z: Image) -> Image:
    """The reverse of `colour`."""
    return _filtered(z, 1 / weight(*z.shape[:2]))


def natural_direction(key: PRNGKey, image_shape: tuple[int, int, int]) -> Image:
    """A random direction [h, w, c] of unit norm with the spectrum of images."""
    noise = colour(jax.random.normal(key, image_shape))
    return noise / jnp.linalg.norm(noise)


def _filtered(image: Image, factor: np.ndarray) -> Image:
    coefficients = jnp.fft.rfft2(image, axes=(0, 1))
    scaled = coefficients * jnp.asarray(factor, image.dtype)
    return jnp.fft.irfft2(scaled, s=image.shape[:2], axes=(0, 1))
