"""The spectrum of natural images, as a change of coordinates.

Amplitudes of photographs fall as one over the frequency. Divided by that, every
coefficient has about the same size, and so a step of one size suits them all:

    z = irfft2(q weight),  weight ~ 1 / sqrt(fx^2 + fy^2 + (1 / max(h, w))^2),

orthonormal, the weight scaled to unit mean square over the half plane. The half plane
holds some numbers twice; samplers, whose noise must count every number once, use the
image w of the same size with q = rfft2(w): `colour` and `whiten`.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from invjax.types import Image, PRNGKey


def weight(height: int, width: int) -> np.ndarray:
    """[h, w // 2 + 1, 1]: amplitudes of natural images, unit mean square."""
    vertical = np.fft.fftfreq(height)[:, None]
    horizontal = np.fft.rfftfreq(width)[None, :]
    lowest = 1 / max(height, width)
    amplitude = 1 / np.sqrt(vertical**2 + horizontal**2 + lowest**2)
    return (amplitude / np.sqrt(np.mean(amplitude**2)))[..., None]


def analyse(z: Image) -> Float[Array, "2 h half_w c"]:
    """q of z [h, w, c]: real and imaginary parts of the scaled half plane."""
    scaled = jnp.fft.rfft2(z, axes=(0, 1), norm="ortho") / jnp.asarray(
        weight(*z.shape[:2]), z.dtype
    )
    return jnp.stack([scaled.real, scaled.imag])


def synthesise(
    spectrum: Float[Array, "2 h half_w c"], image_shape: tuple[int, ...]
) -> Image:
    """z [h, w, c] of q; the reverse of `analyse`."""
    amplitude = jnp.asarray(weight(*image_shape[:2]), spectrum.dtype)
    scaled = jax.lax.complex(spectrum[0], spectrum[1]) * amplitude
    return jnp.fft.irfft2(scaled, s=image_shape[:2], axes=(0, 1), norm="ortho")


def colour(white: Image) -> Image:
    """z = irfft2(rfft2(white) weight): white noise becomes noise as images have it.

    Linear, symmetric and invertible, with as many numbers on either side.
    """
    flat = jnp.fft.rfft2(white, axes=(0, 1), norm="ortho")
    return synthesise(jnp.stack([flat.real, flat.imag]), white.shape)


def whiten(z: Image) -> Image:
    """The reverse of `colour`."""
    real, imaginary = analyse(z)
    spectrum = jax.lax.complex(real, imaginary)
    return jnp.fft.irfft2(spectrum, s=z.shape[:2], axes=(0, 1), norm="ortho")


def natural_direction(key: PRNGKey, image_shape: tuple[int, int, int]) -> Image:
    """A random direction [h, w, c] of unit norm with the spectrum of images."""
    noise = colour(jax.random.normal(key, image_shape))
    return noise / jnp.linalg.norm(noise)
