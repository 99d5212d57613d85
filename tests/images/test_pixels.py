"""Levels of 8 bits, resizing by Pillow, and grey."""

import numpy as np
import pytest
from PIL import Image

from invjax.images.pixels import (
    ImageError,
    centre_crop,
    fit_short_side,
    quantise,
    stretch,
    to_grey,
)


def noise(height, width, channels=3, seed=0):
    generator = np.random.default_rng(seed)
    levels = generator.integers(0, 256, (height, width, channels), np.uint8)
    return levels.astype(np.float32) / np.float32(255)


def test_quantise_clips_and_rounds():
    values = np.array([-1, 0, 0.4 / 255, 0.6 / 255, 0.5, 1, 7], np.float32)
    levels = quantise(values)
    assert levels.dtype == np.uint8
    np.testing.assert_array_equal(levels, [0, 0, 0, 1, 128, 255, 255])


def test_quantise_keeps_all_levels():
    levels = np.arange(256, dtype=np.uint8)
    np.testing.assert_array_equal(quantise(levels / np.float32(255)), levels)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_quantise_refuses_non_finite(value):
    with pytest.raises(ImageError, match="infinite or not a number"):
        quantise(np.array([0.5, value], np.float32))


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(
    ("shape", "top", "left"),
    [((5, 8), 0, 1), ((8, 5), 1, 0), ((5, 9), 0, 2), ((5, 5), 0, 0)],
)
def test_centre_crop_without_scaling_is_the_window(shape, top, left, channels):
    image = noise(shape[0], shape[1], channels)
    window = image[top : top + 5, left : left + 5]
    np.testing.assert_array_equal(centre_crop(image, 5), window)


RESIZES = [
    (centre_crop, (12, 12)),
    (stretch, (12, 12)),
    (fit_short_side, (12, 20)),
]


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(("resize", "shape"), RESIZES)
def test_resizes_are_pillows_lanczos_in_8_bit(resize, shape, channels):
    image = noise(30, 50, channels)
    result = resize(image, 12)
    assert result.dtype == np.float32
    assert result.shape == (*shape, channels)
    window = image[:, 10:40] if resize is centre_crop else image
    for channel in range(channels):
        picture = Image.fromarray(np.rint(window[..., channel] * 255).astype(np.uint8))
        expected = picture.resize(shape[::-1], Image.Resampling.LANCZOS)
        np.testing.assert_array_equal(
            np.rint(result[..., channel] * 255), np.asarray(expected)
        )
    levels = quantise(result)
    np.testing.assert_array_equal(levels / np.float32(255), result)


@pytest.mark.parametrize(("resize", "shape"), RESIZES)
def test_resizes_enlarge_and_refuse_nothing(resize, shape):
    image = np.full((3, 5, 3), 51 / 255, np.float32)
    np.testing.assert_array_equal(
        resize(image, 12), np.full((*shape, 3), np.float32(51) / np.float32(255))
    )
    with pytest.raises(ImageError, match="at least one pixel"):
        resize(image, 0)


@pytest.mark.parametrize(
    ("shape", "size", "expected"),
    [
        ((300, 451), 224, (224, 337)),
        ((451, 300), 224, (337, 224)),
        ((2, 3), 3, (3, 5)),
        ((7, 7), 7, (7, 7)),
    ],
)
def test_fit_short_side_rounds_the_long_side(shape, size, expected):
    assert fit_short_side(noise(shape[0], shape[1]), size).shape == (
        *expected,
        3,
    )


def test_to_grey():
    image = np.array([[[1, 0, 0], [0, 1, 0], [0, 0, 1], [0.5, 0.5, 0.5]]], np.float32)
    grey = to_grey(image)
    assert grey.dtype == np.float32
    np.testing.assert_allclose(
        grey, np.array([[[0.2989], [0.587], [0.114], [0.49995]]]), rtol=1e-6
    )
    np.testing.assert_array_equal(to_grey(grey), grey)
