"""Where a patch of a code determines the image (CVPR 2015, Figure 9).

A patch of a code depends on its receptive field, but less than that can be recovered
from it. `unexplained` is a map of how far reconstructions are from the original: 0
where everything is recovered, about 1 where nothing is. `extent` measures, in such a
map, the region around the centre of the patch. The region can be larger than the
receptive field, since the regularisers continue colours beyond it, which may happen to
be right. Deep codes determine what is in the image, but hardly where; for them `detail`
is a map of how much detail there is at all.

Reconstructions are [s, h, w, c] in [0, 1] and are clipped first, as when they are
written to a file. Squares are averaged over channels, and over places with a Gaussian
window that is cut off and normalised at the border. All functions can be jitted and
vmapped.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike
from jaxtyping import Bool, Float, Int, Shaped

from invjax.images import pixels
from invjax.types import Image, Scalar

Map = Float[Array, "h w"]

# Where an image is flat there is nothing to recover. Its local variance counts as at
# least this fraction of the variance of the whole image.
_FLOOR = 0.1
# The same for detail. Grain in flat places would be large in comparison with the
# original's detail there.
_DETAIL_FLOOR = 1.0
# Length of partial sums over pixels.
_BLOCK = 64


class Extent(NamedTuple):
    """Size of a recovered region.

    Attributes:
      area: number of pixels, int32.
      side: side in pixels of the square with that area.
      radius: smallest radius in pixels at which the mean over a circle about the centre
        reaches the threshold; the radius of the farthest pixel if none does.
    """

    area: Int[Array, ""]
    side: Scalar
    radius: Scalar


def unexplained(
    samples: Shaped[ArrayLike, "s _ _ _"],
    original: ArrayLike,
    *,
    sigma: ArrayLike = 4.0,
) -> Map:
    """Returns the fraction of the original's local variance that is not recovered.

    This is the mean squared error of the reconstructions divided by the original's
    variance about its mean colour, each averaged over the window. It is 1 for a picture
    of that one colour, and about 2 for an unrelated picture of equal contrast. It is
    less where the original is flat, since its local variance counts as at least a tenth
    of the whole image's.

    Args:
      samples: reconstructions [s, h, w, c] of one code.
      original: the image with that code.
      sigma: standard deviation of the window, in pixels.

    Raises:
      ValueError: samples and original have different shapes, or as `pixels.checked`.

    Examples:
      >>> original = jax.random.uniform(jax.random.key(0), (32, 32, 3))
      >>> unexplained(original[None], original).max().item()
      0.0
    """
    return _unexplained(*_pictures(samples, original), sigma)


def detail(
    samples: Shaped[ArrayLike, "s _ _ _"],
    original: ArrayLike,
    *,
    sigma: ArrayLike = 4.0,
) -> Map:
    """Returns the amount of detail in reconstructions, relative to the original.

    This is the mean squared difference between neighbouring pixels, divided by that of
    the original, each averaged over the window. The detail may be wrong or in the wrong
    place: deep codes pool over places, so that by `unexplained` they recover nothing.
    The regularisers lower contrast everywhere, so that ratios within a map say more
    than its values.

    Args:
      samples: reconstructions [s, h, w, c] of one code.
      original: the image with that code. Where its squared differences are below the
        mean over the whole image, that mean is used.
      sigma: standard deviation of the window, in pixels.

    Raises:
      ValueError: samples and original have different shapes, or as `pixels.checked`.
    """
    return _detail(*_pictures(samples, original), sigma)


def extent(
    values: Float[ArrayLike, "h w"],
    centre: tuple[float, float],
    *,
    threshold: ArrayLike = 0.5,
) -> Extent:
    """Measures the region around a centre in which a map is below a threshold.

    Where a map rises from 0 to 1 over a straight edge, blurred by the window of the
    maps, it is 0.5 at the edge itself. (The error of an unrelated picture rises to 2,
    and is 0.5 at 0.7 sigma inside the edge.)

    Args:
      values: a map.
      centre: (row, column) as in `Window.centre`, between pixels for even sides. These
        are Python numbers; under jit they are static.
      threshold: a pixel counts as recovered where the map is below it.

    Returns:
      Area and side of the connected region (neighbours share an edge) that contains the
      centre, and its radius. The area is 0 if the pixels at the centre are not below
      the threshold.

    Raises:
      ValueError: the centre is not inside the map.

    Examples:
      >>> rows, columns = np.mgrid[-4:5, -4:5]
      >>> found = extent(np.where(abs(rows) + abs(columns) < 3, 0.0, 1.0), (4, 4))
      >>> found.area.item(), round(found.side.item(), 2)
      (13, 3.61)
    """
    grid = jnp.asarray(values, jnp.float32)
    is_inside = all(
        0 <= place <= side - 1 for place, side in zip(centre, grid.shape, strict=True)
    )
    if not is_inside:
        raise ValueError(f"centre {centre} is not inside a map of {grid.shape}")
    rows, columns = np.ogrid[: grid.shape[0], : grid.shape[1]]
    is_centre = (abs(rows - centre[0]) <= 0.5) & (abs(columns - centre[1]) <= 0.5)
    connected = _connected(grid < threshold, jnp.asarray(is_centre))
    area = jnp.sum(connected, dtype=jnp.int32)
    rings = _rings(grid.shape, centre)
    radius = _first_crossing(_ring_means(grid, rings), threshold, rings.num_rings - 1)
    return Extent(area, jnp.sqrt(area.astype(jnp.float32)), radius)


def radial_profile(
    values: Float[ArrayLike, "h w"], centre: tuple[float, float]
) -> Float[Array, " r"]:
    """Returns means of a map over rings around a centre, one pixel wide.

    Args:
      values: a map.
      centre: (row, column), Python numbers; under jit they are static.

    Returns:
      Entry r is the mean over the pixels at distances from r - 0.5 to r + 0.5, up to
      the farthest pixel; NaN where there is none (r = 0 about a centre between pixels).

    Examples:
      >>> radial_profile(np.eye(3), (1, 1)).tolist()
      [1.0, 0.25]
    """
    grid = jnp.asarray(values, jnp.float32)
    rings = _rings(grid.shape, centre)
    return _ring_means(grid, rings)[: rings.num_rings]


def _pictures(
    samples: ArrayLike, original: ArrayLike
) -> tuple[Float[Array, "s h w c"], Image]:
    """Clipped reconstructions, and the original.

    Raises:
      ValueError: their shape is not the original's, or as `pixels.checked`.
    """
    pixels.checked(samples, name="samples", values="clipped")
    pixels.checked(original, name="original", values="unit")
    truth = jnp.asarray(original, jnp.float32)
    pictures = jnp.clip(jnp.asarray(samples, jnp.float32), 0, 1)
    if pictures.ndim != 4 or pictures.shape[1:] != truth.shape:
        raise ValueError(
            f"samples of shape {pictures.shape} for an original of {truth.shape}; "
            "[starts, h, w, c] with the original's h, w, c is accepted"
        )
    return pictures, truth


@jax.jit
def _unexplained(
    pictures: Float[Array, "s h w c"], original: Image, sigma: ArrayLike
) -> Map:
    errors = jnp.mean((pictures - original[None]) ** 2, axis=(0, 3))
    contrast = original - jnp.mean(original, axis=(0, 1), keepdims=True)
    return _ratio(errors, jnp.mean(contrast**2, axis=2), sigma)


@jax.jit
def _detail(
    pictures: Float[Array, "s h w c"], original: Image, sigma: ArrayLike
) -> Map:
    energies = jnp.mean(jax.vmap(_differences)(pictures), axis=0)
    return _ratio(energies, _differences(original), sigma, floor=_DETAIL_FLOOR)


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
    """Gaussian means; at the border, over the pixels inside the plane."""
    rows, columns = (_weights(side, sigma) for side in plane.shape)
    product = functools.partial(jnp.matmul, precision="highest")
    return product(product(rows, plane), columns.T)


def _weights(side: int, sigma: ArrayLike) -> Float[Array, "{side} {side}"]:
    place = jnp.arange(side, dtype=jnp.float32)
    weights = jnp.exp(-0.5 * ((place[:, None] - place[None]) / sigma) ** 2)
    return weights / jnp.sum(weights, axis=1, keepdims=True)


class _Rings(NamedTuple):
    """Pixels around a centre, ring by ring.

    Attributes:
      places: indices of pixels in the flat map, a row per ring; rows and columns are
        filled up to multiples of `_BLOCK`, so that few shapes have to be compiled.
      sizes: number of pixels in each row.
      num_rings: number of rings.
    """

    places: Int[np.ndarray, "r n"]
    sizes: Int[np.ndarray, " r"]
    num_rings: int


def _rings(shape: tuple[int, ...], centre: tuple[float, float]) -> _Rings:
    rows, columns = np.ogrid[: shape[0], : shape[1]]
    distance = np.hypot(rows - centre[0], columns - centre[1])
    ring = np.floor(distance + 0.5).astype(int).ravel()
    num_rings = int(ring.max()) + 1
    sizes = np.bincount(ring, minlength=_whole_blocks(num_rings))
    starts = np.cumsum(sizes) - sizes
    ranks = starts[:, None] + np.arange(_whole_blocks(int(sizes.max())))
    order = np.argsort(ring, kind="stable")
    return _Rings(order[np.minimum(ranks, ring.size - 1)], sizes, num_rings)


def _whole_blocks(number: int) -> int:
    return -(-number // _BLOCK) * _BLOCK


@jax.jit
def _ring_means(grid: Map, rings: _Rings) -> Float[Array, " r"]:
    """Mean of a map over each ring; NaN, which is 0 / 0, for empty rings."""
    is_inside = jnp.arange(rings.places.shape[1])[None, :] < rings.sizes[:, None]
    gathered = jnp.where(is_inside, grid.ravel()[rings.places], 0)
    # In two stages: adding pixels one after another loses digits in float32.
    blocks = gathered.reshape(len(rings.sizes), -1, _BLOCK)
    sums = jnp.sum(jnp.sum(blocks, axis=1), axis=1)
    return sums / rings.sizes.astype(jnp.float32)


class _Growth(NamedTuple):
    region: Bool[Array, "h w"]
    is_growing: Bool[Array, ""]


@jax.jit
def _connected(
    allowed: Bool[Array, "h w"], seeds: Bool[Array, "h w"]
) -> Bool[Array, "h w"]:
    """The allowed pixels that neighbours connect with an allowed seed."""

    def grow(state: _Growth) -> _Growth:
        region = state.region
        padded = jnp.pad(region, 1)
        grown = region | padded[:-2, 1:-1] | padded[2:, 1:-1]
        grown = grown | padded[1:-1, :-2] | padded[1:-1, 2:]
        grown = grown & allowed
        return _Growth(grown, jnp.any(grown != region))

    first = _Growth(allowed & seeds, jnp.asarray(True))
    return jax.lax.while_loop(lambda state: state.is_growing, grow, first).region


@jax.jit
def _first_crossing(
    profile: Float[Array, " r"], threshold: ArrayLike, farthest: ArrayLike
) -> Scalar:
    """Smallest radius at which a profile reaches the threshold, linear between rings.

    Of the rings up to `farthest`, only the first can be empty; the search starts at the
    second one then.
    """
    radii = jnp.arange(len(profile), dtype=jnp.float32)
    is_above = profile >= threshold
    place = jnp.argmax(is_above)
    before = jnp.maximum(place - 1, 0)
    low, high = profile[before], profile[place]
    between = radii[before] + (threshold - low) / (high - low)
    is_first = (place == 0) | jnp.isnan(low)
    crossing = jnp.where(is_first, 0, between)
    return jnp.where(jnp.any(is_above), crossing, farthest)
