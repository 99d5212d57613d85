"""Statistics of pictures by which reconstructions differ from photographs.

The IJCV paper compares histograms of gradient orientation (section on naturalness). The
other statistics measure typical faults of reconstructions: ringing and grain at higher
frequencies than in photographs, wrong colours, and spikes on the lattice of a
subsampling layer, which a total variation with beta = 1 leaves (CVPR 2015, Figure 2).

Frequencies are in cycles per pixel, up to 0.5 along an axis. Luminance and chroma are
those of `colour.opponent`. Energies are about the mean, so a constant picture has none.
Only `naturalness` clips its pictures. Pictures follow the rule of `pixels.checked`. All
functions can be jitted and vmapped.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike
from jaxtyping import Float

from invjax.images import colour, pixels
from invjax.types import Scalar

NUM_BINS = 18
"""Orientation bins of the IJCV paper, 20 degrees each."""

Measure = TypeVar("Measure", bound=Callable)


def _of_a_picture(function: Measure) -> Measure:
    """Looks at the picture before a jitted function, in which it would be traced."""

    @functools.wraps(function)
    def checked(picture: ArrayLike, *others: Any, **options: Any) -> Any:
        pixels.checked(picture)
        return function(picture, *others, **options)

    return checked  # type: ignore[return-value]


def naturalness(image: ArrayLike, original: ArrayLike) -> Scalar:
    """Returns the intersection of two pictures' orientation histograms (IJCV 2016).

    The paper's code reads pictures whose contrast is stretched to the full range; here
    they are clipped to [0, 1].

    Args:
      image: reconstruction [h, w, c] in [0, 1], clipped first.
      original: original [h, w, c] in [0, 1], clipped first; its size may differ.

    Returns:
      1 for equal histograms, 0 for histograms without common bins; NaN where a picture
      that is traced is not finite.

    Raises:
      ImageError: as `pixels.checked`; for the original, [0, 1] is asked for.

    Examples:
      >>> right, down = np.mgrid[:16, :16, :1][:2].astype(np.float32) / 16
      >>> naturalness(right, right).item(), naturalness(right, down).item()
      (1.0, 0.0)
    """
    pixels.checked(image, values="clipped")
    pixels.checked(original, name="original", values="unit")
    pictures = [jnp.asarray(x, jnp.float32) for x in (image, original)]
    histograms = [orientation_histogram(_grey(picture)) for picture in pictures]
    is_finite = [jnp.all(jnp.isfinite(picture)) for picture in pictures]
    # Rounding may add up histograms to a little more than 1.
    score = jnp.minimum(intersection(*histograms), 1)
    return jnp.where(is_finite[0] & is_finite[1], score, jnp.nan)


@_of_a_picture
@functools.partial(jax.jit, static_argnames="num_bins")
def orientation_histogram(
    grey: Float[Array, "h w"], *, num_bins: int = NUM_BINS
) -> Float[Array, " {num_bins}"]:
    """Returns a histogram of gradient directions, weighted by magnitude (IJCV 2016).

    As in the paper's code (MATLAB's `imgradient`), derivatives are Sobel's with the
    border replicated, angles are counter-clockwise from -180 to 180 degrees, and bins
    are closed at their upper end.

    Args:
      grey: picture in any range; a factor and an offset change nothing.
      num_bins: number of bins over the full circle.

    Returns:
      Fractions that sum to 1; zeros for a flat picture.

    Examples:
      >>> right = jnp.tile(jnp.arange(9.0), (9, 1))
      >>> orientation_histogram(right, num_bins=4).tolist()
      [0.0, 1.0, 0.0, 0.0]
    """
    padded = jnp.pad(grey, 1, mode="edge")
    smooth_rows = padded[:-2] + 2 * padded[1:-1] + padded[2:]
    smooth_columns = padded[:, :-2] + 2 * padded[:, 1:-1] + padded[:, 2:]
    right = smooth_rows[:, 2:] - smooth_rows[:, :-2]
    down = smooth_columns[2:] - smooth_columns[:-2]
    turns = jnp.arctan2(-down, right) / (2 * jnp.pi) + 0.5
    bins = jnp.clip(jnp.ceil(num_bins * turns) - 1, 0, num_bins - 1)
    sums = (
        jnp.zeros(num_bins, grey.dtype)
        .at[bins.astype(jnp.int32)]
        .add(jnp.hypot(right, down))
    )
    total = sums.sum()
    return sums / jnp.where(total == 0, 1, total)


def intersection(first: Float[Array, " n"], second: Float[Array, " n"]) -> Scalar:
    """Returns the sum over bins of the smaller of two histograms.

    Examples:
      >>> intersection(jnp.array([0.75, 0.25]), jnp.array([0.5, 0.5])).item()
      0.75
    """
    return jnp.sum(jnp.minimum(first, second))


class RadialSpectrum(NamedTuple):
    """Mean power per ring of frequencies.

    Attributes:
      frequency: frequencies at the middle of each ring [n], in cycles per pixel,
        ascending, below 0.5.
      power: mean power of the luminance per frequency in each ring, [n].
    """

    frequency: Float[Array, " n"]
    power: Float[Array, " n"]


@_of_a_picture
@functools.partial(jax.jit, static_argnames="num_rings")
def radial_spectrum(image: ArrayLike, *, num_rings: int = 32) -> RadialSpectrum:
    """Returns the power spectrum of the luminance, averaged over directions.

    The image minus its mean is weighted by a Hann window, because opposite sides of an
    image do not match. The power of photographs falls off about as 1 / frequency^2.

    Args:
      image: [h, w, c]. Sides are at least twice `num_rings`, so that no ring is empty.
      num_rings: number of rings of equal width from 0 to 0.5. Frequency 0 is in none.

    Raises:
      ValueError: a side is too short.

    Examples:
      >>> wave = jnp.sin(2 * jnp.pi * 0.22 * jnp.arange(64.0))[None, :, None]
      >>> found = radial_spectrum(jnp.tile(wave, (64, 1, 1)), num_rings=10)
      >>> round(found.frequency[jnp.argmax(found.power)].item(), 3)
      0.225
    """
    luminance = colour.opponent(image)[..., 0]
    if min(luminance.shape) < 2 * num_rings or num_rings < 1:
        raise ValueError(
            f"num_rings is {num_rings}; from 1 to half the shorter side of "
            f"{luminance.shape} is accepted"
        )
    frequency = _frequencies(luminance.shape)
    ring = np.floor(2 * num_rings * frequency).astype(np.int32)
    # Frequencies above 0.5 and frequency 0 go to one more ring, which is left out.
    ring = np.where((ring >= num_rings) | (frequency == 0), num_rings, ring)
    counts = np.bincount(ring.ravel(), minlength=num_rings + 1)
    power = _power(luminance)
    sums = jnp.zeros(num_rings + 1, power.dtype).at[ring].add(power)
    middles = (np.arange(num_rings) + 0.5) / (2 * num_rings)
    return RadialSpectrum(
        jnp.asarray(middles, jnp.float32),
        sums[:-1] / jnp.asarray(counts[:-1], jnp.float32),
    )


@_of_a_picture
@jax.jit
def high_frequency_fraction(image: ArrayLike, cutoff: ArrayLike) -> Scalar:
    """Returns the fraction of the luminance's energy above a frequency.

    Args:
      image: [h, w, c], weighted by a Hann window as in `radial_spectrum`.
      cutoff: frequency in cycles per pixel; 0.25 has a period of four pixels.

    Returns:
      In [0, 1]; 0 for a flat image.
    """
    luminance = colour.opponent(image)[..., 0]
    power = _power(luminance)
    is_high = jnp.asarray(_frequencies(luminance.shape), jnp.float32) > cutoff
    return _fraction(jnp.sum(jnp.where(is_high, power, 0)), jnp.sum(power))


@_of_a_picture
@jax.jit
def chroma_fraction(image: ArrayLike) -> Scalar:
    """Returns the fraction of a picture's energy that is chroma.

    The energy is the variance over pixels in the orthonormal opponent channels: the two
    chroma channels over all three.

    Args:
      image: [h, w, c].

    Returns:
      In [0, 1]; 0 for a flat image.

    Examples:
      >>> ramp = jnp.arange(16.0).reshape(4, 4)
      >>> chroma_fraction(jnp.stack([ramp, -ramp, 0 * ramp], axis=-1)).item()
      1.0
    """
    channels = colour.opponent(image)
    # Differences to a pixel first, or rounding would leave energy in a flat picture.
    energies = jnp.var(channels - channels[:1, :1], axis=(0, 1))
    return _fraction(energies[1] + energies[2], jnp.sum(energies))


@_of_a_picture
@functools.partial(jax.jit, static_argnames="stride")
def lattice_spikes(image: ArrayLike, stride: int) -> Scalar:
    """Measures spikes at one position of every period of a lattice.

    Figure 2 of CVPR 2015 shows such spikes. The absolute Laplacian of the luminance is
    averaged at each of the stride^2 positions within a period. The result is the
    largest of these means over their median: about 1 for a picture that is independent
    of the lattice, and more where it has few periods to average over (photographs of
    224 px: up to 1.2 at stride 8, 1.5 at 16, 4 at 32). It is infinite for spikes on a
    flat background.

    Args:
      image: [h, w, c].
      stride: period of the lattice in pixels, such as the stride of the inverted layer;
        at least 4, so that the Laplacian of a spike leaves most positions unchanged.

    Raises:
      ValueError: the stride is below 4, or a side of the image has less than two
        periods.

    Examples:
      >>> noise = jax.random.normal(jax.random.key(0), (64, 64, 1))
      >>> spikes = jnp.zeros((64, 64, 1)).at[3::8, 3::8].set(30.0)
      >>> lattice_spikes(noise, 8) < 2, lattice_spikes(noise + spikes, 8) > 20
      (Array(True, dtype=bool), Array(True, dtype=bool))
    """
    luminance = colour.opponent(image)[..., 0]
    inner = (
        4 * luminance[1:-1, 1:-1]
        - luminance[:-2, 1:-1]
        - luminance[2:, 1:-1]
        - luminance[1:-1, :-2]
        - luminance[1:-1, 2:]
    )
    rows, columns = (side // stride for side in inner.shape) if stride >= 4 else (0, 0)
    if min(rows, columns) < 2:
        raise ValueError(
            f"stride is {stride} for an image of {luminance.shape}; from 4 to half the "
            "shorter side less its border is accepted"
        )
    cut = jnp.abs(inner[: rows * stride, : columns * stride])
    phases = cut.reshape(rows, stride, columns, stride).mean((0, 2))
    return jnp.max(phases) / jnp.median(phases)


def _grey(picture: Float[Array, "h w c"]) -> Float[Array, "h w"]:
    """`pixels.to_grey` of the clipped picture, without its channel axis."""
    clipped = jnp.clip(picture, 0, 1)
    if clipped.shape[-1] == 1:
        return clipped[..., 0]
    red, green, blue = (clipped[..., channel] for channel in range(3))
    weights = pixels.GREY_WEIGHTS
    return weights[0] * red + weights[1] * green + weights[2] * blue


def _power(plane: Float[Array, "h w"]) -> Float[Array, "h w"]:
    window = jnp.asarray(
        np.outer(*(np.hanning(side + 2)[1:-1] for side in plane.shape)), jnp.float32
    )
    # Differences to a pixel first, or rounding would leave energy in a flat picture.
    plane = plane - plane[0, 0]
    centred = plane - jnp.sum(window * plane) / jnp.sum(window)
    return jnp.abs(jnp.fft.fft2(window * centred, norm="ortho")) ** 2


def _frequencies(shape: tuple[int, ...]) -> np.ndarray:
    rows, columns = (np.fft.fftfreq(side) for side in shape)
    return np.hypot(rows[:, None], columns[None])


def _fraction(part: Scalar, total: Scalar) -> Scalar:
    return part / jnp.where(total == 0, 1, total)
