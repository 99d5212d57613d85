"""How much of an image a part of its code brings back (CVPR 2015, Figure 9).

A patch of a code sees its receptive field; what can be recovered from it is less. Maps
say, pixel by pixel, how far reconstructions from several starts are from the original,
or from each other: 0 where all is recovered, about 1 where nothing is. From a map, the
extent of the region around the patch's centre. It can be larger than the field: the
prior carries colours on beyond it, and where they happen to fit they count. Deep codes
bring back what there is, but hardly where: for those `detail` says where there is any.

Reconstructions are [s, h, w, c] in [0, 1], clipped first as a picture would be. Squares
are averaged over channels, and over places with a Gaussian window that ends at the
border.
"""

import functools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike
from jaxtyping import Float

from invjax.types import Image

Map = Float[Array, "h w"]

# Where an image is flat there is nothing to recover: its local variance counts as at
# least this share of the whole image's.
_FLOOR = 0.1
# Grain in flat places is no detail brought back, and large beside what is there.
_DETAIL_FLOOR = 1.0


class Extent(NamedTuple):
    """A recovered region, in pixels.

    Attributes:
      area: number of pixels.
      side: of the square of that area.
      radius: where the mean over a circle about the centre first reaches the threshold;
        that of the farthest pixel if it never does.
    """

    area: int
    side: float
    radius: float


@jax.jit
def unexplained(
    samples: Float[ArrayLike, "s _ _ _"], original: Image, *, sigma: ArrayLike = 4.0
) -> Map:
    """Share of the original's local variance that reconstructions miss.

    Their mean squared error over the original's variance about its mean colour, each
    averaged over the window: a picture of that one colour has 1 wherever there is
    something to see (less where the original is flat: its variance counts as at least a
    tenth of the whole image's), an unrelated picture of equal contrast about 2.

    Args:
      samples: reconstructions of one code.
      original: the image it is of.
      sigma: of the window, pixels.

    Raises:
      ValueError: samples and original are of different shapes.
    """
    pictures = _pictures(samples, original)
    errors = jnp.mean((pictures - original[None]) ** 2, axis=(0, 3))
    contrast = original - jnp.mean(original, axis=(0, 1), keepdims=True)
    return _ratio(errors, jnp.mean(contrast**2, axis=2), sigma)


@jax.jit
def disagreement(
    samples: Float[ArrayLike, "s h w c"], *, sigma: ArrayLike = 4.0
) -> Map:
    """Share of the reconstructions' local variance that differs from start to start.

    Variance over starts, over that plus the variance (about the set's mean colour) of
    what they have in common; unbiased estimates of both. Needs no original. What the
    prior alone makes flat in every start counts as agreement where the set's variance
    is under a tenth of the whole image's; else independent starts have about 1.

    Args:
      samples: reconstructions of one code from at least two starts.
      sigma: of the window, pixels.

    Raises:
      ValueError: fewer than two samples.
    """
    pictures = jnp.clip(jnp.asarray(samples), 0, 1)
    if pictures.ndim != 4 or len(pictures) < 2:
        raise ValueError(
            f"samples of shape {pictures.shape}; [starts, h, w, c] with at least two "
            "starts is accepted"
        )
    mean = jnp.mean(pictures, axis=0)
    between = jnp.mean(jnp.var(pictures, axis=0, ddof=1), axis=2)
    contrast = mean - jnp.mean(mean, axis=(0, 1), keepdims=True)
    # The mean of s starts still has a part 1 / s of what they differ by.
    common = jnp.mean(contrast**2, axis=2) - between / len(pictures)
    return _ratio(between, between + common, sigma)


@jax.jit
def detail(
    samples: Float[ArrayLike, "s _ _ _"], original: Image, *, sigma: ArrayLike = 4.0
) -> Map:
    """How much detail reconstructions have where the original has some.

    Mean squared difference between neighbouring pixels over that of the original, each
    averaged over the window. It need not be the right detail in the right place: deep
    codes pool places, and `unexplained` calls all that they bring back missed. The
    regularisers lower contrast everywhere, so that ratios within a map tell more than
    its values.

    Args:
      samples: reconstructions of one code.
      original: the image it is of; where its differences are under the whole image's
        mean, they count as that.
      sigma: of the window, pixels.

    Raises:
      ValueError: samples and original are of different shapes.
    """
    pictures = _pictures(samples, original)
    energies = jnp.mean(jax.vmap(_differences)(pictures), axis=0)
    return _ratio(energies, _differences(original), sigma, floor=_DETAIL_FLOOR)


def extent(
    values: Map | np.ndarray, centre: tuple[float, float], *, threshold: float = 0.5
) -> Extent:
    """The region about a centre in which a map is below a threshold.

    Where the map rises from 0 to 1 over a straight edge, blurred by the maps' window,
    it is 0.5 at the edge itself. (An unrelated picture's error rises to 2, and is 0.5
    at 0.7 sigma inside.)

    Args:
      values: a map [h, w].
      centre: (row, column), as `Window.centre`: between pixels for even sides.
      threshold: below it a pixel counts as recovered.

    Returns:
      Area and side of the connected region (neighbours share an edge) that holds the
      centre; of no area if the pixels at the centre are not below the threshold.

    Raises:
      ValueError: the centre is not inside the map.
    """
    grid = np.asarray(values)
    is_inside = all(
        0 <= place <= side - 1 for place, side in zip(centre, grid.shape, strict=True)
    )
    if not is_inside:
        raise ValueError(f"centre {centre} is not inside a map of {grid.shape}")
    rows, columns = np.ogrid[: grid.shape[0], : grid.shape[1]]
    is_centre = (abs(rows - centre[0]) <= 0.5) & (abs(columns - centre[1]) <= 0.5)
    area = int(_connected(grid < threshold, is_centre).sum())
    profile = radial_profile(grid, centre)
    return Extent(area, math.sqrt(area), _first_crossing(profile, threshold))


def radial_profile(
    values: Map | np.ndarray, centre: tuple[float, float]
) -> Float[np.ndarray, " r"]:
    """Means of a map over rings of one pixel about a centre.

    Returns:
      Entry r is of the pixels at distances from r - 0.5 to r + 0.5, out to the farthest
      one; NaN where there is none (r = 0 about a centre between pixels).
    """
    grid = np.asarray(values, np.float64)
    rows, columns = np.ogrid[: grid.shape[0], : grid.shape[1]]
    distance = np.hypot(rows - centre[0], columns - centre[1])
    ring = np.floor(distance + 0.5).astype(int).ravel()
    counts = np.bincount(ring)
    sums = np.bincount(ring, weights=grid.ravel())
    return np.where(counts > 0, sums / np.maximum(counts, 1), np.nan)


def _pictures(samples: ArrayLike, original: Image) -> Float[Array, "s h w c"]:
    """Reconstructions of an original, clipped; refused where the shapes differ."""
    pictures = jnp.clip(jnp.asarray(samples), 0, 1)
    if pictures.ndim != 4 or pictures.shape[1:] != original.shape:
        raise ValueError(
            f"samples of shape {pictures.shape} for an original of {original.shape}; "
            "[starts, *original's] is accepted"
        )
    return pictures


def _differences(image: Image) -> Map:
    """Squared differences to the right and lower neighbour, summed over channels."""
    right = jnp.diff(image, axis=1, append=image[:, -1:])
    lower = jnp.diff(image, axis=0, append=image[-1:])
    return jnp.sum(right**2 + lower**2, axis=2)


def _ratio(part: Map, whole: Map, sigma: ArrayLike, *, floor: float = _FLOOR) -> Map:
    local = _blur(whole, sigma)
    floored = jnp.maximum(local, floor * jnp.mean(whole))
    return _blur(part, sigma) / jnp.where(floored > 0, floored, 1)


def _blur(plane: Map, sigma: ArrayLike) -> Map:
    """A Gaussian mean; at the border of the pixels there are."""
    rows, columns = (_weights(side, sigma) for side in plane.shape)
    product = functools.partial(jnp.matmul, precision="highest")
    return product(product(rows, plane), columns.T)


def _weights(side: int, sigma: ArrayLike) -> Float[Array, "{side} {side}"]:
    place = jnp.arange(side, dtype=jnp.float32)
    weights = jnp.exp(-0.5 * ((place[:, None] - place[None]) / sigma) ** 2)
    return weights / jnp.sum(weights, axis=1, keepdims=True)


def _connected(allowed: np.ndarray, seeds: np.ndarray) -> np.ndarray:
    region = allowed & seeds
    size = 0
    while size != region.sum():
        size = region.sum()
        grown = region.copy()
        grown[1:] |= region[:-1]
        grown[:-1] |= region[1:]
        grown[:, 1:] |= region[:, :-1]
        grown[:, :-1] |= region[:, 1:]
        region = grown & allowed
    return region


def _first_crossing(profile: np.ndarray, threshold: float) -> float:
    """Radius at which a profile reaches the threshold, between rings by a line."""
    radii = np.flatnonzero(np.isfinite(profile))
    found = profile[radii]
    (reached,) = np.nonzero(found >= threshold)
    if not reached.size:
        return float(radii[-1])
    place = reached[0]
    if place == 0:
        return 0.0
    low, high = found[place - 1], found[place]
    step = radii[place] - radii[place - 1]
    return float(radii[place - 1] + step * (threshold - low) / (high - low))
