"""Mean and deviation over the starts of a code, as pictures for the gallery.

They are computed from the pictures of a run, which are clipped to [0, 1] and have 8
bit. A page that is opened from a disk cannot do that: browsers let no script read the
pixels of its pictures.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from invjax import files
from invjax.images import reading
from invjax.images.pixels import ImageError
from invjax.report import contrast

FOLDER = "over_starts"


class OverStarts(NamedTuple):
    """The pictures of a group of starts; paths are relative to the run's folder.

    Attributes:
      num_starts: number of starts.
      mean: mean of the clipped pictures, a PNG file.
      stretched: the mean stretched to its range, a JPEG file.
      deviation: standard deviation in each channel (divisor num_starts - 1), a PNG
        file in which `contrast.WHITE_DEVIATION` is white.
    """

    num_starts: int
    mean: str
    stretched: str
    deviation: str


def write(folder: files.Path, name: str, pictures: Sequence[str]) -> OverStarts | None:
    """Writes mean and deviation of pictures of one size.

    Args:
      folder: the run's folder.
      name: distinguishes the group below `FOLDER`; parts are separated by "/".
      pictures: paths relative to `folder`.

    Returns:
      What was written. None, and nothing is written, for fewer than two pictures, and
      where one cannot be read or has another size.
    """
    moments = _moments(folder, pictures)
    if moments is None:
        return None
    mean, deviation = moments
    parts = (files.portable_name(part) for part in name.split("/"))
    path = "/".join((FOLDER, *parts))
    found = OverStarts(
        len(pictures), f"{path}_mean.png", f"{path}_mean.jpg", f"{path}_deviation.png"
    )
    reading.write_png(folder / found.mean, mean)
    contrast.write_stretched(folder / found.stretched, mean)
    white = deviation / contrast.WHITE_DEVIATION
    reading.write_png(folder / found.deviation, np.clip(white, 0, 1))
    return found


def _moments(
    folder: files.Path, pictures: Sequence[str]
) -> tuple[Float[np.ndarray, "h w 3"], Float[np.ndarray, "h w 3"]] | None:
    """Mean and standard deviation, one picture in memory at a time."""
    if len(pictures) < 2:
        return None
    total, squares = np.zeros((2, 1, 1, 3))
    for number, path in enumerate(pictures):
        try:
            picture = reading.read(folder / path).astype(np.float64)
        except ImageError:
            return None
        if number and picture.shape != total.shape:
            return None
        total, squares = total + picture, squares + picture**2
    mean = total / len(pictures)
    # Pictures have 8 bit, so that differences of squares in float64 are exact enough.
    variance = np.maximum(squares - len(pictures) * mean**2, 0) / (len(pictures) - 1)
    return mean.astype(np.float32), np.sqrt(variance).astype(np.float32)
