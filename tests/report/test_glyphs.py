"""Pictures of codes: sizes, ranges and directions."""

import numpy as np
import pytest

from invjax.report import glyphs
from invjax.representations import dsift, hog
from invjax.representations.hog import HogConfig


def ramp(*, along_x: bool) -> np.ndarray:
    line = np.arange(64, dtype=np.float32)
    return np.broadcast_to(line if along_x else line[:, None], (64, 64)).copy()


@pytest.mark.parametrize("d", [27, 31, 36])
def test_hog_stroke_is_along_the_edge(d):
    variant = "dalal_triggs" if d == 36 else "uoctti"
    config = HogConfig(variant=variant, assignment="bilinear")
    code = np.asarray(hog.hog(ramp(along_x=True), config=config))[..., :d]
    picture = glyphs.hog_glyph(code, cell_size=12)
    assert picture.shape == (96, 96) and picture.dtype == np.float32
    assert picture.min() == 0 and picture.max() == 1
    # Brightness grows along x, so edges are vertical: one bright column per cell.
    cell = picture[36:48, 36:48]
    assert cell[:, 5:7].min() > 0.4
    assert cell[:, [0, 1, 2, -3, -2, -1]].max() == 0


def test_hog_stroke_leans_as_the_edge_does():
    code = np.zeros((1, 1, 27), np.float32)
    code[0, 0, 18 + 2] = 1  # gradient at 40 degrees: right and down
    y, x = np.mgrid[:16, :16] - 7.5
    picture = glyphs.hog_glyph(code)
    assert np.sum(picture * x * y) < 0  # so the edge goes right and up


def test_other_numbers_of_orientations():
    config = HogConfig(num_orientations=6)
    code = hog.hog(ramp(along_x=False), config=config)
    picture = glyphs.hog_glyph(code, num_orientations=6, cell_size=5)
    assert picture.shape == (40, 40)


@pytest.mark.parametrize("sign", [1, -1])
def test_sift_spokes_point_along_the_gradient(sign):
    code = dsift.dsift(sign * ramp(along_x=False))
    picture = glyphs.dsift_glyph(code[:1, :1], cell_size=12)
    assert picture.shape == (49, 49) and picture.dtype == np.float32
    assert picture.min() == 0 and picture.max() == 1
    cell = picture[12:24, 12:24]
    upper, lower = cell[:4].sum(), cell[-4:].sum()
    assert sign * (lower - upper) > 0 and min(lower, upper) == 0


def test_zero_codes_are_black():
    assert not glyphs.hog_glyph(np.zeros((2, 3, 31), np.float32)).any()
    assert not glyphs.dsift_glyph(np.zeros((2, 3, 128), np.float32)).any()


def test_unfit_codes_are_refused():
    with pytest.raises(ValueError, match="27, 31 or 36"):
        glyphs.hog_glyph(np.zeros((2, 3, 30), np.float32))
    with pytest.raises(ValueError, match="128"):
        glyphs.dsift_glyph(np.zeros((2, 3, 64), np.float32))
    with pytest.raises(ValueError, match="cell_size"):
        glyphs.hog_glyph(np.zeros((2, 3, 31), np.float32), cell_size=2)
