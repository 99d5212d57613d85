"""Contrast for display: arrays of any range become pictures in [0, 1].

Display only: no metric is computed from what these functions return. Files of
reconstructions are clipped, so that their brightness can be compared. The papers show
every picture stretched to its own range instead, as `stretched` does; under a large
weight of the total variation reconstructions have little contrast, and clipped ones
look dim.
"""

import os
from typing import Literal

import numpy as np
from jaxtyping import Float, Shaped
from PIL import Image

from invjax import files
from invjax.images import pixels

PictureRange = Literal["clipped", "stretched"]
"""How images that were found are shown: cut off at 0 and 1, or stretched."""

WHITE_DEVIATION = 0.15
"""Standard deviation, of a range of 1, that maps show as white, in every run."""

_LEAST_RANGE = 1e-6
_LONGEST_SIDE = 448
_QUALITY = 90


def stretched(picture: Shaped[np.ndarray, "h w c"]) -> Float[np.ndarray, "h w c"]:
    """Stretches a picture to its range: its smallest value becomes 0, its largest 1.

    One factor and one offset serve all channels, as in the papers' released code, which
    shows and saves pictures through VLFeat's `vl_imsc` and `vl_imarraysc`. A picture
    whose values differ by less than 1e-6 has no range; it is clipped to [0, 1].

    Args:
      picture: [h, w, c] in any range. Give the image as it was optimised: of one that
        was clipped, what lay beyond [0, 1] is lost.

    Raises:
      ImageError: as `pixels.checked`; any range is accepted.

    Examples:
      >>> stretched(np.float32([[[-0.5], [0.5], [1.5]]])).ravel().tolist()
      [0.0, 0.5, 1.0]
      >>> stretched(np.float32([[[0.25], [0.25]]])).ravel().tolist()
      [0.25, 0.25]
    """
    # An image of a lane that diverged may span more than float32's largest number.
    values = np.asarray(pixels.checked(picture, name="picture"), np.float64)
    low, high = values.min(initial=np.inf), values.max(initial=-np.inf)
    if high - low < _LEAST_RANGE:
        return np.clip(values, 0, 1).astype(picture.dtype)
    return ((values - low) / (high - low)).astype(picture.dtype)


def write_stretched(
    path: str | os.PathLike[str], picture: Shaped[np.ndarray, "h w c"]
) -> None:
    """Writes a stretched picture as a JPEG file for display, atomically.

    Its longest side has at most 448 pixels, and the quality is 90 without subsampling
    of colours, so that a file takes a third of the PNG file's bytes.

    Args:
      path: the file; missing folders are made.
      picture: [h, w, 3] or [h, w, 1] in any range.

    Raises:
      ImageError: There are neither 1 nor 3 channels, or as `stretched`.
    """
    shown = pixels.to_pillow(stretched(picture))
    shown.thumbnail((_LONGEST_SIDE, _LONGEST_SIDE), Image.Resampling.LANCZOS)
    with files.whole_file(path) as stream:
        shown.save(stream, "JPEG", quality=_QUALITY, subsampling=0)


def around_grey(direction: Float[np.ndarray, "h w c"]) -> Float[np.ndarray, "h w c"]:
    """Shows a change of an image as a picture: zero is mid-grey.

    The 99.5 % percentile of the absolute values becomes the end of the range [0, 1];
    larger ones are clipped.

    Args:
      direction: [h, w, c], signed, of any scale.

    Examples:
      >>> around_grey(np.float32([[[-2.0], [0.0], [2.0]]])).ravel().tolist()
      [0.0, 0.5, 1.0]
    """
    # The largest value is no measure of the scale: single pixels lie far out.
    scale = float(np.percentile(np.abs(direction), 99.5))
    return np.clip(0.5 + 0.5 * direction / max(scale, 1e-12), 0, 1)
