"""The energy in the paper's units."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from invjax import objective, presets
from invjax.objective import SIGMA


def _problem(target: jax.Array, tv_weight: float = 0.5, mask: float | jax.Array = 1.0):
    return objective.Problem(
        target=target,
        mask=jnp.asarray(mask, jnp.float32),
        tv_weight=jnp.float32(tv_weight),
        alpha_weight=jnp.float32(presets.ALPHA_WEIGHT),
        centre=jnp.float32(128.0),
        learning_rate=jnp.float32(1.0),
    )


@pytest.mark.parametrize("tv_weight", [0.5, 5.0, 50.0])
def test_start_energies_of_the_paper(tv_weight: float):
    """TV of white noise of norm sigma is about 4 lambda_V.

    Each of the two differences has twice the noise's variance; the last column and row
    have one less. The alpha term is lambda_alpha 15 / N^2 on average: 0.135.
    """
    shape = (227, 227, 3)
    noise = jax.random.normal(jax.random.key(3), shape)
    z = noise * SIGMA / jnp.linalg.norm(noise)
    problem = _problem(jnp.ones(shape), tv_weight)
    _, terms = objective.energy(z, lambda image: image, problem)
    np.testing.assert_allclose(terms.tv, 4 * tv_weight * 226 / 227, rtol=5e-3)
    expected = presets.ALPHA_WEIGHT * 15 / (227 * 227 * 3) ** 2
    np.testing.assert_allclose(expected, 0.135, rtol=0.01)
    np.testing.assert_allclose(terms.alpha, expected, rtol=0.05)


def test_alpha_weight_is_the_papers():
    np.testing.assert_allclose(presets.ALPHA_WEIGHT, 4e-10 * SIGMA**4, rtol=1e-4)


def test_energy_is_the_sum_of_its_terms():
    z = 50 * jax.random.normal(jax.random.key(0), (8, 9, 3))
    total, terms = objective.energy(
        z, lambda image: image**2, _problem(jnp.ones(z.shape))
    )
    code = ((np.asarray(z, np.float64) + 128) / 255) ** 2
    np.testing.assert_allclose(terms.data, np.mean((code - 1) ** 2), rtol=1e-5)
    np.testing.assert_allclose(total, sum(terms), rtol=1e-6)


def test_mask_frees_features_and_norms_by_what_is_left():
    target = jnp.array([3.0, 4.0, 100.0])
    mask = jnp.array([1.0, 1.0, 0.0])
    code = jnp.array([3.0, 5.0, -7.0])
    np.testing.assert_allclose(
        objective.squared_error(code, target, mask), 1 / 25, rtol=1e-6
    )


def test_image_and_variable_are_inverse():
    centre = jnp.array([123.675, 116.28, 103.53])
    image = jax.random.uniform(jax.random.key(0), (4, 5, 3))
    z = objective.to_variable(image, centre)
    np.testing.assert_allclose(z[0, 0], 255 * image[0, 0] - centre, rtol=1e-5)
    np.testing.assert_allclose(objective.to_image(z, centre), image, atol=1e-6)
