"""How much a picture has the statistics of photographs, without knowing what it shows.

The IJCV paper compares histograms of gradient orientation (section on naturalness). The
others tell where reconstructions go wrong: ringing and grain above the frequencies of
photographs, colours off, and spikes on the grid of a subsampling layer, which a total
variation with beta = 1 leaves (CVPR 2015, Figure 2).

Frequencies are in cycles per pixel, up to 0.5 along an axis. Luminance and chroma are
those of `colour.opponent`. Energies are about the mean: a constant has none. Nothing
is clipped here but by `naturalness`.
"""

import functools
from typing import NamedTuple

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


def naturalness(image: ArrayLike, original: ArrayLike) -> float:
    """Intersection of two pictures' orientation histograms (IJCV 2016).

    The paper's code reads pictures stretched to their full range; this clips.

    Args:
      image: [h, w, c], a reconstruction in [0, 1], clipped first.
      original: what it is of; the sizes may differ.

    Returns:
      In [0, 1]: 1 for equal histograms. NaN where the image is not finite.
    """
    histograms = []
    for picture in (np.asarray(image), np.asarray(original)):
        if not np.isfinite(picture).all():
            return float("nan")
        grey = pixels.to_grey(np.clip(picture, 0, 1).astype(np.float32))
        histograms.append(orientation_histogram(jnp.asarray(grey[..., 0])))
    # Shares add up to 1 but for rounding.
    return min(float(intersection(*histograms)), 1.0)


@functools.partial(jax.jit, static_argnames="num_bins")
def orientation_histogram(
    grey: Float[Array, "h w"], *, num_bins: int = NUM_BINS
) -> Float[Array, " {num_bins}"]:
    """Gradient directions of a whole picture, weighted by magnitude (IJCV 2016).

    As the paper's code has it (MATLAB's `imgradient`): Sobel's derivatives with the
    border replicated, angles counter-clockwise from -180 to 180 degrees, bins closed
    at their upper end.

    Args:
      grey: in any range; factors and offsets do not matter.
      num_bins: over the full circle.

    Returns:
      Shares, summing to 1; zeros for a flat picture.
    """
    padded = jnp.pad(grey, 1, mode="edge")
    smooth_rows = padded[:-2] + 2 * padded[1:-1] + padded[2:]
    smooth_columns = padded[:, :-2] + 2 * padded[:, 1:-1] + padded[:, 2:]
    right = smooth_rows[:, 2:] - smooth_rows[:, :-2]
    down = smooth_columns[2:] - smooth_columns[:-2]
    turns = jnp.arctan2(-down, right) / (2 * jnp.pi) + 0.5
    bins = jnp.clip(jnp.ceil(num_bins * turns) - 1, 0, num_bins - 1)
    sums = jnp.zeros(num_bins).at[bins.astype(jnp.int32)].add(jnp.hypot(right, down))
    total = sums.sum()
    return sums / jnp.where(total == 0, 1, total)


def intersection(first: Float[Array, " n"], second: Float[Array, " n"]) -> Scalar:
    """Sum of the smaller of each pair of bins."""
    return jnp.sum(jnp.minimum(first, second))


class RadialSpectrum(NamedTuple):
    """Mean power per ring of frequencies.

    Attributes:
      frequency: [n], of the rings' middles, cycles per pixel, ascending to below 0.5.
      power: [n], per frequency; of the luminance.
    """

    frequency: Float[Array, " n"]
    power: Float[Array, " n"]


@functools.partial(jax.jit, static_argnames="num_rings")
def radial_spectrum(image: ArrayLike, *, num_rings: int = 32) -> RadialSpectrum:
    """Power of the luminance, averaged over directions.

    The image less its mean is weighted by a Hann window, since its sides do not join.
    Photographs fall off about as 1 / frequency^2.

    Args:
      image: [h, w, c], no side shorter than twice `num_rings`, so that no ring is
        empty.
      num_rings: of equal width, from 0 to 0.5; the mean itself is in none.

    Raises:
      ValueError: a side is too short.
    """
    luminance = colour.opponent(image)[..., 0]
    if min(luminance.shape) < 2 * num_rings or num_rings < 1:
        raise ValueError(
            f"num_rings is {num_rings}; from 1 to half the shorter side of "
            f"{luminance.shape} is accepted"
        )
    frequency = _frequencies(luminance.shape)
    ring = np.floor(2 * num_rings * frequency).astype(np.int32)
    # Corners beyond 0.5 and the mean go to a ring that is left out.
    ring = np.where((ring >= num_rings) | (frequency == 0), num_rings, ring)
    counts = np.bincount(ring.ravel(), minlength=num_rings + 1)
    sums = jnp.zeros(num_rings + 1).at[ring].add(_power(luminance))
    middles = (np.arange(num_rings) + 0.5) / (2 * num_rings)
    return RadialSpectrum(
        jnp.asarray(middles, jnp.float32),
        sums[:-1] / jnp.asarray(counts[:-1], jnp.float32),
    )


@jax.jit
def high_frequency_share(image: ArrayLike, cutoff: ArrayLike) -> Scalar:
    """Share of the luminance's energy above a frequency; zero for a flat image.

    Args:
      image: [h, w, c], weighted by a Hann window as in `radial_spectrum`.
      cutoff: cycles per pixel; 0.25 has a period of four pixels.
    """
    luminance = colour.opponent(image)[..., 0]
    power = _power(luminance)
    is_high = jnp.asarray(_frequencies(luminance.shape), jnp.float32) > cutoff
    return _share(jnp.sum(jnp.where(is_high, power, 0)), jnp.sum(power))


@jax.jit
def chroma_share(image: ArrayLike) -> Scalar:
    """Share of a picture's energy that is in its colours; zero for a flat image.

    Variances over pixels of the orthonormal opponent channels, both chroma ones over
    all three.
    """
    channels = colour.opponent(image)
    # Differences first, so that rounding leaves no energy in a flat picture.
    energies = jnp.var(channels - channels[:1, :1], axis=(0, 1))
    return _share(energies[1] + energies[2], jnp.sum(energies))


@jax.jit
def gradient_kurtosis(image: ArrayLike) -> Scalar:
    """Fourth moment over squared second of the luminance's differences.

    Of differences between neighbours in both directions, about zero: 3 for white noise,
    more for photographs, and more still for isolated spikes. NaN for a flat image.
    """
    luminance = colour.opponent(image)[..., 0]
    differences = jnp.concatenate(
        [jnp.diff(luminance, axis=axis).ravel() for axis in (0, 1)]
    )
    # Scaled first: fourth powers of small differences would vanish in float32.
    scaled = differences / jnp.max(jnp.abs(differences))
    return jnp.mean(scaled**4) / jnp.mean(scaled**2) ** 2


@functools.partial(jax.jit, static_argnames="stride")
def lattice_spikes(image: ArrayLike, stride: int) -> Scalar:
    """How much detail sits at one place of every period of a lattice (Figure 2).

    The absolute Laplacian of the luminance is averaged at each of the stride^2 places
    within a period; this is the greatest of those means over their median. A picture
    that knows nothing of the lattice has about 1, and more if it has few periods to
    average over (photographs of 224 px: up to 1.2 at stride 8, 1.5 at 16, 4 at 32);
    spikes alone on a flat ground have an infinite one.

    Args:
      image: [h, w, c].
      stride: of the lattice, in pixels, such as the stride of the layer inverted; at
        least 4, for a spike's Laplacian to leave most places alone.

    Raises:
      ValueError: the stride is below 4, or the image has not two whole periods a side.
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


def _power(plane: Float[Array, "h w"]) -> Float[Array, "h w"]:
    window = jnp.asarray(
        np.outer(*(np.hanning(side + 2)[1:-1] for side in plane.shape)), jnp.float32
    )
    # Differences first, so that rounding leaves no energy in a flat picture.
    plane = plane - plane[0, 0]
    centred = plane - jnp.sum(window * plane) / jnp.sum(window)
    return jnp.abs(jnp.fft.fft2(window * centred, norm="ortho")) ** 2


def _frequencies(shape: tuple[int, ...]) -> np.ndarray:
    rows, columns = (np.fft.fftfreq(side) for side in shape)
    return np.hypot(rows[:, None], columns[None])


def _share(part: Scalar, total: Scalar) -> Scalar:
    return part / jnp.where(total == 0, 1, total)
