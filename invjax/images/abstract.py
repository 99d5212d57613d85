"""A colourful picture of nothing, made by formula.

The papers invert one abstract picture beside photographs, to see what codes keep of an
image that is of no class a network knows. This one needs no file: overlapping ellipses
with sharp and soft rims, plain, shaded or with stripes, rings and checks of several
periods, under clouds with the spectrum of photographs.
"""

import numpy as np
from jaxtyping import Float, Float32
from numpy.typing import ArrayLike

_GOLDEN = (np.sqrt(5) - 1) / 2
_PLASTIC = 1.324717957244746
_NUM_ELLIPSES = 26
_NUM_WAVES = 400
# Cycles per side of the longest and shortest wave of the clouds.
_LOWEST, _HIGHEST = 1.0, 128.0


def abstract_pattern(size: int) -> Float32[np.ndarray, "{size} {size} 3"]:
    """The picture at a size; there is only one, no chance is in it.

    Sharp rims are a pixel wide, of a 512 px picture or of this, whichever is wider;
    waves finer than two pixels fade out.

    Args:
      size: pixels a side.

    Returns:
      RGB in [0, 1].

    Raises:
      ValueError: a size below 1.
    """
    if size < 1:
        raise ValueError(f"size is {size}; at least one pixel is accepted")
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
    """Smooth colours that drift over the picture."""
    red, green, blue = 0.7 * x + 0.2 * y, 0.9 * y * (1 - x), 1 - 0.8 * y + 0 * x
    return 0.2 + 0.55 * np.stack([red, green, blue], axis=-1)


def _ellipse(
    number: int, x: np.ndarray, y: np.ndarray, size: int
) -> tuple[Float[np.ndarray, "h w"], Float[np.ndarray, "h w 3"]]:
    """How much an ellipse covers, and its colours."""
    # Low-discrepancy sequences spread places, shapes and hues evenly.
    row, column = ((0.5 + (number + 1) / _PLASTIC**k) % 1 for k in (1, 2))
    angle = np.pi * (number * _GOLDEN % 1)
    # The first ones are large and lie below.
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
    """In [-1, 1]: plain, shaded, stripes, rings or checks, by turns."""
    frequency = (9.0, 40.0, 18.0)[number // 5 % 3]
    contrast = _visible(frequency, size)
    wave = 2 * np.pi * frequency
    match number % 5:
        case 2:
            return contrast * np.sin(wave * along)
        case 3:
            return contrast * np.sin(wave * 0.2 * level)
        case 4:
            # tanh flattens the waves' tops.
            return contrast * np.tanh(4 * np.sin(wave * along) * np.sin(wave * across))
        case 1:
            return 2 * np.clip(level, 0, 1) - 1
    return np.full(level.shape, -1.0)


def _clouds(place: Float[np.ndarray, " n"], *, offset: int) -> Float[np.ndarray, "n n"]:
    """Waves in all directions, of mean 0 and mean square 1 but for those left out.

    Of equal amplitude, and as many in every octave: the power at a frequency falls off
    as its inverse square.
    """
    number = np.arange(_NUM_WAVES)
    share = (number * _GOLDEN + 0.17 * offset) % 1
    frequency = _LOWEST * (_HIGHEST / _LOWEST) ** share
    angle = np.pi * ((number / _PLASTIC + 0.31 * offset) % 1)
    phase = 2 * np.pi * ((number / _PLASTIC**2 + 0.53 * offset) % 1)
    amplitude = np.sqrt(2 / _NUM_WAVES) * _visible(frequency, place.size)
    turn = 2j * np.pi * frequency * place[:, None]
    # A wave is a product of one along x and one along y.
    rows = amplitude * np.exp(turn * np.sin(angle) + 1j * phase)
    return (rows @ np.exp(turn * np.cos(angle)).T).real


def _visible(frequency: ArrayLike, size: int) -> np.ndarray | np.floating:
    """1 up to a third of the pixels a side, falling to 0 at half of them."""
    return np.clip(3 - 6 * np.asarray(frequency) / size, 0, 1)


def _step(distance: np.ndarray) -> np.ndarray:
    """From 0 at -1/2 to 1 at 1/2, smoothly."""
    ramp = np.clip(distance + 0.5, 0, 1)
    return ramp * ramp * (3 - 2 * ramp)


def _colour(number: int, turn: float) -> Float[np.ndarray, "3"]:
    """Its hue on the circle, and a lightness of its own."""
    lightness = 0.2 + 0.65 * ((number * _GOLDEN**2 + 2 * turn) % 1)
    hue = np.cos(2 * np.pi * (number * _GOLDEN + turn + np.arange(3) / 3))
    return lightness + 0.2 * hue
