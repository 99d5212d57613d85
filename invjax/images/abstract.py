"""A synthetic colour pattern with no objects, computed from a formula.

The papers invert one abstract picture beside photographs, to see what codes keep of an
image that belongs to no class of the network. The pattern here needs no file. It shows
overlapping ellipses with sharp and soft edges under clouds with the spectrum of
photographs. Ellipses are plain, shaded, or have stripes, rings or checks of several
periods.
"""

import numpy as np
from jaxtyping import Float, Float32
from numpy.typing import ArrayLike

_GOLDEN = (np.sqrt(5) - 1) / 2
_PLASTIC = 1.324717957244746
_NUM_ELLIPSES = 26
_NUM_WAVES = 400
# Frequencies of the longest and the shortest wave of the clouds, in cycles per side.
_LOWEST, _HIGHEST = 1.0, 128.0


def abstract_pattern(size: int) -> Float32[np.ndarray, "{size} {size} 3"]:
    """Computes the pattern at a size. Nothing is random: equal sizes give equal pixels.

    Sharp edges are one pixel wide, or 1/512 of the side where that is wider; waves
    shorter than two pixels fade out.

    Args:
      size: side of the square in pixels.

    Returns:
      RGB [size, size, 3] in [0, 1].

    Raises:
      ValueError: the size is below 1.

    Examples:
      >>> abstract_pattern(8).shape
      (8, 8, 3)
    """
    if size < 1:
        raise ValueError(f"size is {size}; at least 1 pixel is accepted")
    place = (np.arange(size) + 0.5) / size
    x, y = place[None, :], place[:, None]
    tints = np.stack([_clouds(place, offset=channel) for channel in (1, 2, 3)], axis=-1)
    picture = _ground(x, y) + 0.12 * tints
    for number in range(_NUM_ELLIPSES):
        cover, colour = _ellipse(number, x, y, size)
        picture += cover[..., None] * (colour - picture)
    picture += 0.06 * _clouds(place, offset=7)[..., None] + 0.02 * tints
    return np.clip(picture, 0, 1).astype(np.float32)


def _ground(
    x: Float[np.ndarray, "1 w"], y: Float[np.ndarray, "h 1"]
) -> Float[np.ndarray, "h w 3"]:
    """Background: colours that change slowly over the picture."""
    red, green, blue = 0.7 * x + 0.2 * y, 0.9 * y * (1 - x), 1 - 0.8 * y + 0 * x
    return 0.2 + 0.55 * np.stack([red, green, blue], axis=-1)


def _ellipse(
    number: int, x: np.ndarray, y: np.ndarray, size: int
) -> tuple[Float[np.ndarray, "h w"], Float[np.ndarray, "h w 3"]]:
    """Opacity [h, w] of an ellipse, from 0 to 1, and its colours [h, w, 3]."""
    # Low-discrepancy sequences distribute places, shapes and hues evenly.
    row, column = ((0.5 + (number + 1) / _PLASTIC**k) % 1 for k in (1, 2))
    angle = np.pi * (number * _GOLDEN % 1)
    # The first ones are large; later ones are drawn over them.
    radius = 0.34 * (1 - number / _NUM_ELLIPSES) + 0.05
    stretch = 0.45 + 0.55 * (number * _GOLDEN**2 % 1)
    along = np.cos(angle) * (x - column) + np.sin(angle) * (y - row)
    across = np.cos(angle) * (y - row) - np.sin(angle) * (x - column)
    level = np.hypot(along, across / stretch) / radius
    rim = 0.3 * radius if number % 5 == 1 else max(1 / size, 1 / 512)
    cover = _step((1 - level) * radius * stretch / rim)
    first, second = (_colour(number, turn) for turn in (0.0, 0.37))
    mix = 0.5 + 0.5 * _texture(number, along, across, level, size)
    return cover, first + mix[..., None] * (second - first)


def _texture(
    number: int, along: np.ndarray, across: np.ndarray, level: np.ndarray, size: int
) -> Float[np.ndarray, "h w"]:
    """Texture of an ellipse in [-1, 1]: plain, shaded, stripes, rings or checks."""
    frequency = (9.0, 40.0, 18.0)[number // 5 % 3]
    contrast = _visible(frequency, size)
    wave = 2 * np.pi * frequency
    match number % 5:
        case 2:
            return contrast * np.sin(wave * along)
        case 3:
            return contrast * np.sin(wave * 0.2 * level)
        case 4:
            # tanh flattens the extrema, so that the checks have sharp edges.
            return contrast * np.tanh(4 * np.sin(wave * along) * np.sin(wave * across))
        case 1:
            return 2 * np.clip(level, 0, 1) - 1
    return np.full(level.shape, -1.0)


def _clouds(place: Float[np.ndarray, " n"], *, offset: int) -> Float[np.ndarray, "n n"]:
    """A sum of waves in all directions, of mean 0 and, unless some fade, mean square 1.

    Waves have equal amplitudes, and equally many lie in every octave. So the power at a
    frequency falls off as the inverse square of the frequency.
    """
    number = np.arange(_NUM_WAVES)
    position = (number * _GOLDEN + 0.17 * offset) % 1
    frequency = _LOWEST * (_HIGHEST / _LOWEST) ** position
    angle = np.pi * ((number / _PLASTIC + 0.31 * offset) % 1)
    phase = 2 * np.pi * ((number / _PLASTIC**2 + 0.53 * offset) % 1)
    amplitude = np.sqrt(2 / _NUM_WAVES) * _visible(frequency, place.size)
    turn = 2j * np.pi * frequency * place[:, None]
    # A wave is the product of a complex wave along x and one along y.
    rows = amplitude * np.exp(turn * np.sin(angle) + 1j * phase)
    return (rows @ np.exp(turn * np.cos(angle)).T).real


def _visible(frequency: ArrayLike, size: int) -> np.ndarray | np.floating:
    """Contrast at a frequency in cycles per side: 1 up to size / 3, 0 from size / 2."""
    return np.clip(3 - 6 * np.asarray(frequency) / size, 0, 1)


def _step(distance: np.ndarray) -> np.ndarray:
    """A smooth step from 0 at -1/2 to 1 at 1/2."""
    ramp = np.clip(distance + 0.5, 0, 1)
    return ramp * ramp * (3 - 2 * ramp)


def _colour(number: int, turn: float) -> Float[np.ndarray, "3"]:
    """A colour whose hue and lightness depend on the ellipse's number and on `turn`."""
    lightness = 0.2 + 0.65 * ((number * _GOLDEN**2 + 2 * turn) % 1)
    hue = np.cos(2 * np.pi * (number * _GOLDEN + turn + np.arange(3) / 3))
    return lightness + 0.2 * hue
