"""Regularisers against literal loops, and their gradients where they are delicate."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from invjax import priors


def _literal_total_variation(image: np.ndarray, beta: float) -> float:
    height, width, channels = image.shape
    total = 0.0
    for y in range(height):
        for x in range(width):
            for c in range(channels):
                right = image[y, min(x + 1, width - 1), c] - image[y, x, c]
                lower = image[min(y + 1, height - 1), x, c] - image[y, x, c]
                total += (right**2 + lower**2) ** (beta / 2)
    return total


@pytest.fixture
def image() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(7, 5, 3)).astype(np.float32)


@pytest.mark.parametrize("beta", [1.0, 1.5, 2.0, 3.0])
def test_total_variation_is_the_sum_over_pixels(image: np.ndarray, beta: float):
    expected = _literal_total_variation(image.astype(np.float64), beta)
    found = priors.total_variation(jnp.asarray(image), beta=beta)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_alpha_norm_counts_every_entry_by_itself(image: np.ndarray):
    expected = np.sum(image.astype(np.float64) ** 6)
    np.testing.assert_allclose(
        priors.alpha_norm(jnp.asarray(image)), expected, rtol=1e-5
    )


@pytest.mark.parametrize("beta", [1.0, 2.0])
def test_gradient_of_a_flat_image_is_zero(beta: float):
    flat = jnp.full((6, 6, 3), 0.3)
    gradient = jax.grad(lambda x: priors.total_variation(x, beta=beta))(flat)
    np.testing.assert_array_equal(gradient, np.zeros_like(flat))


def test_gradient_at_beta_one_is_floored_as_in_the_paper():
    # One step of 1e-7 to the right: d = 1e-7, weight 1 / max(d, 1e-5).
    image = jnp.zeros((1, 2, 1)).at[0, 1, 0].set(1e-7)
    gradient = jax.grad(lambda x: priors.total_variation(x, beta=1.0))(image)
    np.testing.assert_allclose(gradient[0, :, 0], [-1e-2, 1e-2], rtol=1e-5)


@pytest.mark.parametrize("beta", [1.0, 1.5, 2.0])
def test_gradient_agrees_with_differences(image: np.ndarray, beta: float):
    with jax.enable_x64(True):
        point = jnp.asarray(image, jnp.float64)
        direction = jnp.asarray(np.random.default_rng(1).normal(size=image.shape))
        step = 1e-6

        def along(t: float) -> jax.Array:
            return priors.total_variation(point + t * direction, beta=beta)

        gradient = jax.grad(lambda x: priors.total_variation(x, beta=beta))(point)
        expected = (along(step) - along(-step)) / (2 * step)
        np.testing.assert_allclose(jnp.sum(gradient * direction), expected, rtol=1e-6)
