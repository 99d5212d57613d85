"""Channels of known tuning are split into those for form and those for colour."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from invjax.sensitivity import channel_split


def _photographs():
    random = np.random.default_rng(0)
    return random.uniform(size=(3, 16, 16, 3)).astype(np.float32)


def _tuned(image):
    """Chroma alone, luminance alone, red, and nothing."""
    red, green, blue = jnp.moveaxis(image, -1, 0)
    return jnp.stack(
        [red - green, red + green + blue, red, jnp.full_like(red, 3.0)], axis=-1
    )


def test_sensitivity_of_known_channels():
    found = channel_split.find(_tuned, _photographs())
    # Of red's variance a third is luminance's, if the channels are independent.
    np.testing.assert_allclose(found.sensitivity, [1, 0, 2 / 3, 0.5], atol=0.05)
    np.testing.assert_array_equal(found.form, [1, 3])
    np.testing.assert_array_equal(found.colour, [0, 2])


def test_codes_without_contrast_do_not_divide_by_zero():
    flat = jnp.ones((2, 4, 4, 3))
    np.testing.assert_array_equal(channel_split.chroma_sensitivity(flat, 2 * flat), 0.5)


def test_the_mean_response_does_not_count(key):
    codes = jax.random.normal(key, (2, 2, 8, 8, 3))
    expected = channel_split.chroma_sensitivity(*codes)
    found = channel_split.chroma_sensitivity(codes[0] + 5, codes[1] - 3)
    np.testing.assert_allclose(found, expected, rtol=1e-4)


def test_channels_are_split_into_halves():
    halves = channel_split.split(np.array([0.9, 0.1, 0.12, 0.95, 0.11]))
    np.testing.assert_array_equal(halves.form, [1, 4])
    np.testing.assert_array_equal(halves.colour, [0, 2, 3])
    ties = channel_split.split(np.zeros(4))
    np.testing.assert_array_equal(ties.form, [0, 1])


def test_refusals():
    with pytest.raises(ValueError, match="no photographs"):
        channel_split.find(_tuned, [])
    with pytest.raises(ValueError, match=r"\(rows, columns, channels\)"):
        channel_split.find(jnp.ravel, list(_photographs()))
    with pytest.raises(ValueError, match="at least two"):
        channel_split.split(np.zeros(1))
    with pytest.raises(ValueError, match="not finite"):
        channel_split.split(np.array([0.0, np.nan]))
