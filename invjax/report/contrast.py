"""Contrast for display: arrays of any range become pictures in [0, 1].

Display only: no metric is computed from what these functions return.
"""

import numpy as np
from jaxtyping import Float


def stretched(picture: Float[np.ndarray, "h w c"]) -> Float[np.ndarray, "h w c"]:
    """Stretches the contrast of a picture, one factor and offset for all its channels.

    The 0.5 % percentile of all values becomes 0 and the 99.5 % percentile becomes 1, so
    that one percent of the values lies outside [0, 1]; they are not clipped here. The
    papers' figures are stretched from the smallest to the largest value instead. We cut
    off half a percent at either end because single pixels lie far from all others.

    Args:
      picture: [h, w, c] in any range.

    Examples:
      >>> ramp = np.linspace(0.4, 0.6, 1001, dtype=np.float32).reshape(7, 143, 1)
      >>> stretched(ramp).min().round(3).item(), stretched(ramp).max().round(3).item()
      (-0.005, 1.005)
    """
    low, high = np.percentile(picture, [0.5, 99.5])
    return (picture - low) / max(high - low, 1e-6)


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
