"""Regularisers and canvases against literal loops, and gradients at flat images."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from invjax.inversion import regularisers
from invjax.inversion.canvas import (
    canvas_shape,
    central_crop,
    crop_at,
    on_canvas,
    random_offset,
)


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
    found = regularisers.total_variation(jnp.asarray(image), beta=beta)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_alpha_norm_counts_every_entry_by_itself(image: np.ndarray):
    expected = np.sum(image.astype(np.float64) ** 6)
    np.testing.assert_allclose(
        regularisers.alpha_norm(jnp.asarray(image)), expected, rtol=1e-5
    )


def test_colour_alpha_norm_takes_the_norm_of_colour_vectors(image: np.ndarray):
    expected = 0.0
    for row in image.astype(np.float64):
        for colour in row:
            expected += np.sqrt(np.sum(colour**2)) ** 6
    found = regularisers.colour_alpha_norm(jnp.asarray(image))
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    grey = jnp.asarray(image[..., :1])
    np.testing.assert_allclose(
        regularisers.colour_alpha_norm(grey), regularisers.alpha_norm(grey), rtol=1e-6
    )
    with pytest.raises(ValueError, match="even"):
        regularisers.colour_alpha_norm(grey, alpha=5)


@pytest.mark.parametrize("beta", [1.0, 2.0])
def test_gradient_of_a_flat_image_is_zero(beta: float):
    flat = jnp.full((6, 6, 3), 0.3)
    gradient = jax.grad(lambda x: regularisers.total_variation(x, beta=beta))(flat)
    np.testing.assert_array_equal(gradient, np.zeros_like(flat))


def test_gradient_at_beta_one_is_floored_as_in_the_paper():
    # One step of 1e-7 to the right: d = 1e-7, weight 1 / max(d, 1e-5).
    image = jnp.zeros((1, 2, 1)).at[0, 1, 0].set(1e-7)
    gradient = jax.grad(lambda x: regularisers.total_variation(x, beta=1.0))(image)
    np.testing.assert_allclose(gradient[0, :, 0], [-1e-2, 1e-2], rtol=1e-5)


def test_the_ijcv_floor_is_the_lower_one():
    image = jnp.zeros((1, 2, 1)).at[0, 1, 0].set(1e-7)
    gradient = jax.grad(
        lambda x: regularisers.total_variation(
            x, beta=1.0, gradient_floor=regularisers.IJCV_GRADIENT_FLOOR
        )
    )(image)
    np.testing.assert_allclose(gradient[0, :, 0], [-1e-1, 1e-1], rtol=1e-5)


def _total_variation(beta: float):
    return lambda image: regularisers.total_variation(image, beta=beta)


@pytest.mark.parametrize(
    "regulariser",
    [
        *(_total_variation(beta) for beta in (1.0, 1.5, 2.0)),
        regularisers.alpha_norm,
        regularisers.colour_alpha_norm,
    ],
)
def test_gradient_agrees_with_differences(image: np.ndarray, regulariser):
    with jax.enable_x64(True):
        point = jnp.asarray(image, jnp.float64)
        direction = jnp.asarray(np.random.default_rng(1).normal(size=image.shape))
        step = 1e-6
        gradient = jax.grad(regulariser)(point)
        above = regulariser(point + step * direction)
        below = regulariser(point - step * direction)
        assert gradient.dtype == jnp.float64
        np.testing.assert_allclose(
            jnp.sum(gradient * direction), (above - below) / (2 * step), rtol=1e-6
        )


def test_chroma_is_scaled_about_grey(image: np.ndarray):
    given = jnp.asarray(image)
    scaled = np.asarray(regularisers.scale_chroma(given, jnp.float32(3)))
    np.testing.assert_allclose(scaled.mean(-1), image.mean(-1), rtol=1e-5, atol=1e-6)
    distance = image - image.mean(-1, keepdims=True)
    np.testing.assert_allclose(scaled - image, 2 * distance, rtol=1e-4, atol=1e-5)
    grey = given[..., :1]
    np.testing.assert_array_equal(regularisers.scale_chroma(grey, jnp.float32(3)), grey)


@pytest.mark.parametrize("channels", [1, 3])
def test_the_bound_holds_and_leaves_the_rest_alone(channels: int):
    generator = np.random.default_rng(0)
    image = 120 * generator.normal(size=(9, 8, channels)).astype(np.float32)
    image[0, 0] = 0
    bound = jnp.float32(160.0)
    found = np.asarray(regularisers.bound_colours(jnp.asarray(image), bound))
    norms = np.linalg.norm(image.astype(np.float64), axis=-1)
    beyond = norms > 160
    assert 5 < beyond.sum() < beyond.size - 5
    np.testing.assert_array_equal(found[~beyond], image[~beyond])
    expected = image[beyond] * (160 / norms[beyond])[:, None]
    np.testing.assert_allclose(found[beyond], expected, rtol=1e-6)
    again = regularisers.bound_colours(jnp.asarray(found), bound)
    np.testing.assert_allclose(again, found, rtol=2e-7)
    if channels == 1:
        np.testing.assert_allclose(found, np.clip(image, -160, 160), rtol=1e-6)
    free = regularisers.bound_colours(jnp.asarray(image), jnp.float32(jnp.inf))
    np.testing.assert_array_equal(free, image)


@pytest.mark.parametrize("jitter", [1, 2, 4, 5])
def test_central_crops_are_the_released_codes(jitter: int):
    """First index (from 1) floor((T - 1) / 2) + 1, and zeros around a given image."""
    shape = (6, 7, 2)
    full = canvas_shape(shape, jitter=jitter)
    assert full == (6 + jitter - 1, 7 + jitter - 1, 2)
    canvas = jax.random.normal(jax.random.key(0), full)
    first = (jitter - 1) // 2
    image = central_crop(canvas, shape)
    np.testing.assert_array_equal(image, canvas[first : first + 6, first : first + 7])
    placed = on_canvas(image, full)
    np.testing.assert_array_equal(central_crop(placed, shape), image)
    assert placed.shape == full
    np.testing.assert_allclose(jnp.sum(placed**2), jnp.sum(image**2), rtol=1e-5)


def test_jitter_visits_every_place_alike_and_follows_its_key():
    keys = jax.random.split(jax.random.key(0), 8000)
    draw = jax.jit(jax.vmap(lambda key: random_offset(key, jitter=4)))
    offsets = np.asarray(draw(keys))
    counts = np.bincount(4 * offsets[:, 0] + offsets[:, 1], minlength=16)
    assert len(counts) == 16
    # 500 each: four deviations are 87.
    assert np.all(np.abs(counts - 500) < 87)
    np.testing.assert_array_equal(draw(keys), offsets)
    canvas = jax.random.normal(jax.random.key(1), (9, 10, 3))
    for y, x in offsets[:5]:
        crop = crop_at(canvas, jnp.array([y, x]), (6, 7, 3))
        np.testing.assert_array_equal(crop, canvas[y : y + 6, x : x + 7])
