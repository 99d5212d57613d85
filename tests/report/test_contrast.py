"""Pictures are stretched to their range for display, as the papers show them."""

import pathlib

import numpy as np
import pytest
from PIL import Image

from invjax.images.pixels import ImageError
from invjax.report import contrast


def _picture(low: float = -0.4, high: float = 1.7, size: int = 20) -> np.ndarray:
    """Uniform values that reach beyond [0, 1] on both sides."""
    values = np.random.default_rng(0).uniform(low, high, (size, size, 3))
    return values.astype(np.float32)


@pytest.mark.parametrize("scale", [0.01, 1.0, 1e38])
def test_the_whole_range_becomes_0_to_1(scale: float):
    picture = np.float32(scale) * _picture()
    found = contrast.stretched(picture)
    assert found.dtype == np.float32 and found.shape == picture.shape
    assert found.min() == 0 and found.max() == 1
    assert found.argmin() == picture.argmin() and found.argmax() == picture.argmax()
    # Linear: nothing but the two ends decides.
    middle = picture.min() / 2 + picture.max() / 2
    spot = np.abs(picture - middle).argmin()
    assert found.ravel()[spot] == pytest.approx(0.5, abs=0.01)


def test_factor_and_offset_of_the_picture_do_not_matter():
    picture = _picture()
    found = contrast.stretched(picture)
    np.testing.assert_allclose(contrast.stretched(found), found, atol=1e-6)
    for factor, offset in ((0.05, 0.4), (30.0, -7.0)):
        other = np.float32(factor) * picture + np.float32(offset)
        np.testing.assert_allclose(contrast.stretched(other), found, atol=1e-5)


def test_what_lies_beyond_0_and_1_is_kept_apart():
    picture = _picture()
    beyond = picture > 1
    assert len(np.unique(contrast.stretched(picture)[beyond])) > 100
    assert len(np.unique(contrast.stretched(np.clip(picture, 0, 1))[beyond])) == 1


def test_channels_are_stretched_alike():
    picture = np.random.default_rng(0).uniform(0.3, 0.5, (20, 20, 3))
    found = contrast.stretched(picture)
    ratios = (found[1:] - found[:-1]) / (picture[1:] - picture[:-1])
    np.testing.assert_allclose(ratios, ratios[0, 0, 0])


@pytest.mark.parametrize("value", [-2.0, 0.0, 0.3, 1.0, 5.0])
def test_flat_pictures_keep_their_value(value: float):
    flat = np.full((4, 4, 3), value, np.float32)
    np.testing.assert_array_equal(contrast.stretched(flat), np.clip(flat, 0, 1))
    # A range that is only rounding is none.
    noise = np.float32(1e-7) * np.random.default_rng(0).normal(size=flat.shape)
    found = contrast.stretched((flat + noise).astype(np.float32))
    np.testing.assert_allclose(found, np.clip(flat, 0, 1), atol=1e-6)
    np.testing.assert_array_equal(contrast.around_grey(0 * flat), 0.5)


def test_what_is_no_picture_is_refused(tmp_path: pathlib.Path):
    spoilt = _picture()
    spoilt[3, 3, 1] = np.nan
    with pytest.raises(ImageError, match="infinite or not a number"):
        contrast.write_stretched(tmp_path / "a.jpg", spoilt)
    with pytest.raises(ImageError, match="not uint8"):
        contrast.stretched(np.zeros((4, 4, 3), np.uint8))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("num_channels", [1, 3])
def test_files_for_display_are_stretched_and_small(
    tmp_path: pathlib.Path, num_channels: int
):
    ramp = np.linspace(0.45, 0.55, 600, dtype=np.float32)
    picture = np.broadcast_to(ramp[None, :, None], (300, 600, num_channels))
    path = tmp_path / "new" / "a.jpg"
    contrast.write_stretched(path, picture)
    with Image.open(path) as written:
        assert written.format == "JPEG"
        assert written.mode == {1: "L", 3: "RGB"}[num_channels]
        assert written.size == (448, 224)
        levels = np.asarray(written, np.float32).reshape(224, 448, num_channels)
    expected = 255 * np.linspace(0, 1, 448)[None, :, None]
    # JPEG at quality 90 is off by a few levels.
    np.testing.assert_allclose(levels, np.broadcast_to(expected, levels.shape), atol=6)
    contrast.write_stretched(path, picture[:40, :50])
    with Image.open(path) as small:
        assert small.size == (50, 40)


def test_zero_is_grey_and_signs_are_symmetric():
    direction = np.random.default_rng(0).normal(size=(30, 30, 3))
    found = contrast.around_grey(direction)
    assert found.min() == 0 and found.max() == 1
    np.testing.assert_allclose(contrast.around_grey(-direction), 1 - found)
    np.testing.assert_allclose(contrast.around_grey(7 * direction), found)
    assert np.mean((found == 0) | (found == 1)) < 0.01
