"""Transformations with known answers, and the response of codes to them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.ndimage  # type: ignore[import-untyped]

from invjax.sensitivity import transformations
from invjax.sensitivity.transformations import TRANSFORMATIONS
from tests.conftest import micro_representation

pytestmark = pytest.mark.slow

SHAPE = (9, 12, 3)


@pytest.fixture
def image(key):
    return jax.random.uniform(key, SHAPE)


@pytest.fixture
def smooth():
    rows, columns = np.meshgrid(np.arange(41.0), np.arange(41.0), indexing="ij")
    wave = 0.5 + 0.4 * np.sin(rows / 6) * np.cos(columns / 5 + 0.3)
    return jnp.asarray(wave[..., None], jnp.float32)


@pytest.mark.parametrize("name", TRANSFORMATIONS)
def test_amount_zero_changes_nothing(image, name):
    transformed = TRANSFORMATIONS[name].apply(image, jnp.float32(0))
    np.testing.assert_allclose(transformed, image, atol=2e-6)
    assert transformed.dtype == jnp.float32


@pytest.mark.parametrize("name", TRANSFORMATIONS)
@pytest.mark.parametrize("amount", [0.0, 0.3, -0.3])
def test_gradients_in_amount_and_image_are_finite(image, name, amount):
    function = TRANSFORMATIONS[name].apply

    def total(image, amount):
        return jnp.sum(function(image, amount) ** 2)

    gradients = jax.grad(total, argnums=(0, 1))(image, jnp.float32(amount))
    assert all(np.all(np.isfinite(gradient)) for gradient in gradients)


@pytest.mark.parametrize("amount", [2, -3])
def test_a_shift_by_whole_pixels_is_a_roll_inside(image, amount):
    right = transformations.shift(image, jnp.float32(amount))
    down = transformations.shift_down(image, jnp.float32(amount))
    inside = slice(3, -3)
    rolled = np.roll(image, amount, axis=1)
    np.testing.assert_allclose(right[:, inside], rolled[:, inside], atol=1e-6)
    rolled = np.roll(image, amount, axis=0)
    np.testing.assert_allclose(down[inside], rolled[inside], atol=1e-6)


def test_the_border_is_reflected_with_its_pixels_repeated(image):
    shifted = transformations.shift(image, jnp.float32(2))
    padded = np.pad(image, ((0, 0), (2, 0), (0, 0)), mode="symmetric")
    np.testing.assert_allclose(shifted, padded[:, :-2], atol=1e-6)


@pytest.mark.parametrize("turns", [1, -1])
def test_a_quarter_turn_is_rot90(key, turns):
    image = jax.random.uniform(key, (8, 8, 3))
    turned = transformations.rotation(image, jnp.float32(90 * turns))
    np.testing.assert_allclose(turned, np.rot90(image, turns), atol=1e-5)


def test_scale_magnifies_about_the_centre(smooth):
    magnified = np.asarray(transformations.scale(smooth, jnp.log(2.0)))
    # Every second pixel of the magnified picture is a pixel of the centre.
    np.testing.assert_allclose(magnified[::2, ::2], smooth[10:31, 10:31], atol=1e-5)
    back = transformations.scale(jnp.asarray(magnified), -jnp.log(2.0))
    np.testing.assert_allclose(back[12:29, 12:29], smooth[12:29, 12:29], atol=1e-5)


def test_brightness_and_contrast_are_affine(image):
    brighter = transformations.brightness(image, jnp.float32(0.25))
    np.testing.assert_allclose(brighter, np.asarray(image) + 0.25, atol=1e-6)
    mean = np.mean(np.asarray(image), axis=(0, 1))
    stronger = transformations.contrast(image, jnp.float32(0.5))
    expected = mean + 1.5 * (np.asarray(image) - mean)
    np.testing.assert_allclose(stronger, expected, atol=1e-6)
    flat = transformations.contrast(image, jnp.float32(-1))
    np.testing.assert_allclose(flat, np.broadcast_to(mean, SHAPE), atol=1e-6)


def test_blur_is_a_gaussian_with_reflected_borders(key):
    image = jax.random.uniform(key, (24, 30, 2))
    blurred = transformations.blur(image, jnp.float32(2))
    expected = scipy.ndimage.gaussian_filter(
        np.asarray(image, np.float64), (2, 2, 0), mode="reflect", truncate=8
    )
    np.testing.assert_allclose(blurred, expected, atol=1e-4)
    np.testing.assert_allclose(jnp.mean(blurred), jnp.mean(image), rtol=1e-5)


def test_sensitivity_of_the_pixels_to_themselves(image):
    def pixels(image):
        return image

    found = transformations.sensitivity(
        pixels, image, transformations.brightness, [0.0, -0.1, 0.4]
    )
    norm = np.linalg.norm(image)
    expected = np.array([0, 0.1, 0.4]) * np.sqrt(image.size) / norm
    np.testing.assert_allclose(found.code, expected, rtol=1e-4)
    np.testing.assert_array_equal(found.code, found.pixels)
    slope = np.sqrt(image.size) / norm
    assert float(found.code_slope) == pytest.approx(slope, rel=1e-4)
    assert float(found.pixel_slope) == pytest.approx(slope, rel=1e-4)


def test_a_code_that_forgets_position_ignores_a_cyclic_image_s_shift(smooth):
    def histogram_like(image):
        return jnp.stack([jnp.mean(image), jnp.mean(image**2), jnp.max(image)])

    # Period 8, so that a shift by 8 shows the same values inside.
    wave = 0.5 + 0.4 * np.sin(np.arange(64) * 2 * np.pi / 8)
    image = jnp.asarray(np.tile(wave[None, :, None], (8, 1, 1)), jnp.float32)
    found = transformations.sensitivity(
        histogram_like, image, transformations.shift, [2.0]
    )
    assert float(found.pixels[0]) > 0.5
    assert float(found.code[0]) < 0.02


def test_slope_is_nan_without_an_amount(image):
    found = transformations.sensitivity(
        jnp.ravel, image, transformations.brightness, 0.0
    )
    assert np.isnan(found.code_slope) and np.isnan(found.pixel_slope)


def test_a_network_s_code_moves_more_the_further_an_image_is_shifted():
    phi = micro_representation("relu2")
    rows, columns = np.meshgrid(np.arange(32.0), np.arange(32.0), indexing="ij")
    wave = np.stack([np.sin(rows / 4), np.cos(columns / 5), np.sin(columns / 3)], -1)
    found = transformations.sensitivity(
        phi, 0.5 + 0.3 * wave, transformations.shift, [0.25, 1.0, 3.0]
    )
    assert np.all(np.diff(found.code) > 0) and np.all(np.diff(found.pixels) > 0)
    assert float(found.code_slope) == pytest.approx(4 * float(found.code[0]), rel=1e-5)
