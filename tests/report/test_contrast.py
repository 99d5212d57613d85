"""The contrast of pictures is stretched for display, whatever single pixels do."""

import numpy as np

from invjax.report import contrast


def test_a_single_pixel_does_not_decide_the_range():
    picture = np.linspace(0.4, 0.6, 3000).reshape(25, 40, 3)
    low, high = np.percentile(picture, [0.5, 99.5])
    expected = (picture - low) / (high - low)
    np.testing.assert_allclose(contrast.stretched(picture), expected)
    spoilt = picture.copy()
    spoilt[0, 0] = -50, 0.5, 50
    difference = contrast.stretched(spoilt)[1:-1] - expected[1:-1]
    assert np.abs(difference).max() < 0.01


def test_channels_are_stretched_alike():
    picture = np.random.default_rng(0).uniform(0.3, 0.5, (20, 20, 3))
    found = contrast.stretched(picture)
    ratios = (found[1:] - found[:-1]) / (picture[1:] - picture[:-1])
    np.testing.assert_allclose(ratios, ratios[0, 0, 0])


def test_flat_pictures_stay_finite():
    flat = np.full((4, 4, 3), 0.3, np.float32)
    np.testing.assert_array_equal(contrast.stretched(flat), 0)
    np.testing.assert_array_equal(contrast.around_grey(0 * flat), 0.5)


def test_zero_is_grey_and_signs_are_symmetric():
    direction = np.random.default_rng(0).normal(size=(30, 30, 3))
    found = contrast.around_grey(direction)
    assert found.min() == 0 and found.max() == 1
    np.testing.assert_allclose(contrast.around_grey(-direction), 1 - found)
    np.testing.assert_allclose(contrast.around_grey(7 * direction), found)
    assert np.mean((found == 0) | (found == 1)) < 0.01
