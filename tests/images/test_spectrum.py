"""White noise is given the spectrum of natural images."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from invjax.images import spectrum

SHAPES = [(8, 8, 3), (7, 9, 1), (6, 5, 3)]


@pytest.mark.parametrize("shape", SHAPES)
def test_colour_is_symmetric_and_filters_by_the_weight(shape):
    # Its matrix, column by column, on one channel.
    height, width, _ = shape
    basis = jnp.eye(height * width).reshape(-1, height, width, 1)
    matrix = jax.vmap(spectrum.colour)(basis).reshape(height * width, -1)
    np.testing.assert_allclose(matrix, matrix.T, atol=1e-6)
    eigenvalues = np.sort(np.linalg.eigvalsh(matrix))
    fy, fx = np.fft.fftfreq(height)[:, None], np.fft.fftfreq(width)[None, :]
    full = 1 / np.sqrt(fx**2 + fy**2 + (1 / max(height, width)) ** 2)
    scale = spectrum.weight(height, width)[0, 0, 0] / full[0, 0]
    np.testing.assert_allclose(eigenvalues, np.sort((scale * full).ravel()), rtol=1e-4)


def test_weight_has_unit_mean_square_and_falls_with_frequency():
    weight = spectrum.weight(16, 12)[..., 0]
    assert np.mean(weight**2) == pytest.approx(1)
    assert np.all(np.diff(weight[0]) < 0)
    assert weight[0, 0] == np.max(weight)


def test_natural_directions_are_smooth_and_of_unit_norm(key):
    direction = spectrum.natural_direction(key, (64, 64, 3))
    assert float(jnp.linalg.norm(direction)) == pytest.approx(1, rel=1e-5)
    noise = jax.random.normal(key, (64, 64, 3)) / np.sqrt(64 * 64 * 3)

    def roughness(image):
        return float(jnp.sum(jnp.diff(image, axis=1) ** 2))

    assert roughness(direction) < 0.5 * roughness(noise)
