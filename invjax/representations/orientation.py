"""Oriented gradient maps and their pooling: what HOG and dense SIFT share.

The chain is the paper's (section 3): directional derivatives, orientation binning,
spatial pooling. Images are planes [h, w], y down and x right, in any value range.
Angles are those of the gradient (dark to bright), from +x towards +y, so clockwise on
screen.

Everything is a pure function of one image, keeps the floating-point type it is given
and has finite gradients everywhere: where the image gradient is exactly zero, the
derivative of its magnitude and of its angle is taken as zero.
"""

import functools
import math
from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jaxtyping import Float, Int, Real

AnyImage = Real[Array | np.ndarray, "h w *c"]
"""An image with or without a channel axis; integers are read as float32."""

Plane = Float[Array, "h w"]

Maps = Sequence[Array]
"""One plane per orientation bin.

Separate planes and not one array: on CPU the program is a third faster for it, since
the backward pass of each is a slice and not a reduction over a leading axis.
"""


def image_planes(image: AnyImage, *, channels: tuple[int, ...]) -> list[Array]:
    """Splits an image into its channels.

    Args:
      image: [h, w] or [h, w, c].
      channels: the values of c that are allowed; [h, w] counts as 1.

    Returns:
      A list of planes [h, w], floating point.

    Raises:
      ValueError: the image has another rank or number of channels.
    """
    image = jnp.asarray(image)
    count = 1 if image.ndim == 2 else image.shape[-1]
    if image.ndim not in (2, 3) or count not in channels:
        allowed = "[h, w] or " + " or ".join(f"[h, w, {c}]" for c in channels)
        raise ValueError(f"image must be {allowed}, got {list(image.shape)}")
    if not jnp.issubdtype(image.dtype, jnp.floating):
        image = image.astype(jnp.float32)
    return [image] if image.ndim == 2 else [image[..., c] for c in range(count)]


def interior_gradient(plane: Plane) -> tuple[Array, Array]:
    """Differences of the two neighbours, without the factor 1/2, off the border.

    Args:
      plane: [h, w].

    Returns:
      (gx, gy), each [h - 2, w - 2]: the border pixels have none.
    """
    gx = plane[1:-1, 2:] - plane[1:-1, :-2]
    gy = plane[2:, 1:-1] - plane[:-2, 1:-1]
    return gx, gy


def strongest_gradient(planes: Sequence[Array]) -> tuple[Array, Array]:
    """`interior_gradient` of the channel where it is largest, pixel by pixel.

    The first such channel wins a tie. The choice is constant to differentiation.
    """
    gx, gy = interior_gradient(planes[0])
    if len(planes) == 1:
        return gx, gy

    def energy(gx: Array, gy: Array) -> Array:
        # The maxima change nothing but keep the compiler from fusing a product into
        # the sum: unequal rounding of its terms would break ties between channels.
        return jnp.maximum(gx * gx, 0) + jnp.maximum(gy * gy, 0)

    best = energy(gx, gy)
    for plane in planes[1:]:
        other_gx, other_gy = interior_gradient(plane)
        other = energy(other_gx, other_gy)
        is_better = other > best
        gx = jnp.where(is_better, other_gx, gx)
        gy = jnp.where(is_better, other_gy, gy)
        best = jnp.where(is_better, other, best)
    return gx, gy


def safe_root(square: Array, *, floor: float = 0.0) -> Array:
    """sqrt(square), but 0 with zero derivative where square is 0 or below `floor`."""
    is_zero = (square <= 0) | (square < floor)
    # The inner where keeps the root's infinite slope at 0 out of the backward pass.
    return jnp.where(is_zero, 0, jnp.sqrt(jnp.where(is_zero, 1, square)))


def magnitude(gx: Array, gy: Array, *, floor: float = 0.0) -> Array:
    """`safe_root` of gx^2 + gy^2, pixel by pixel."""
    return safe_root(gx * gx + gy * gy, floor=floor)


def nearest_direction(gx: Array, gy: Array, *, num_orientations: int) -> Array:
    """The directed bin, of 2 K, whose centre o * 180 / K degrees is nearest.

    It is VLFeat's arg-max over |s_k|, ties included: between two undirected
    orientations k the smaller k wins (for odd K a vertical gradient is such a tie).
    Here a bin is found by counting the bin boundaries that the gradient has passed.
    Comparing two products, not the sign of a difference, gives the same answer
    whether or not the compiler fuses multiplications into additions.

    Args:
      gx: any shape.
      gy: the shape of gx.
      num_orientations: K, undirected.

    Returns:
      Bins, int32 in [0, 2 K), the shape of gx; arbitrary where the gradient is zero.
    """
    k = num_orientations
    # The opposite direction has the opposite bin: fold onto angles in [0, 180).
    is_lower = (gy < 0) | ((gy == 0) & (gx < 0))
    fx = jnp.where(is_lower, -gx, gx)
    fy = jnp.where(is_lower, -gy, gy)
    # Boundaries (i + 1/2) * 180 / K as sines and cosines of the angle to 90 degrees,
    # which makes the mirror images exact; rounded to float32 in every dtype, so that
    # the one at 45 degrees is exact too.
    offsets = (k - 1 - 2 * np.arange(k)) * (math.pi / (2 * k))
    boundary_x = np.sin(offsets).astype(np.float32)
    boundary_y = np.cos(offsets).astype(np.float32)
    passed = jnp.zeros(gx.shape, jnp.int32)
    for i in range(k):
        left, right = fy * boundary_x[i].item(), fx * boundary_y[i].item()
        # Beyond the last boundary lies orientation 0, the smaller one of that pair.
        is_beyond = left >= right if i == k - 1 else left > right
        passed = passed + is_beyond.astype(jnp.int32)
    bins = jnp.where(is_lower, passed + k, passed)
    return jnp.where(bins == 2 * k, 0, bins)


def direction_position(gx: Array, gy: Array, *, num_bins: int) -> Array:
    """The gradient's exact angle in units of bins, in [-num_bins / 2, num_bins / 2].

    Bin o is centred on position o, modulo num_bins. Zero, with zero derivative, where
    the gradient is zero.
    """
    is_zero = (gx == 0) & (gy == 0)
    angle = jnp.arctan2(jnp.where(is_zero, 0, gy), jnp.where(is_zero, 1, gx))
    return angle * (num_bins / (2 * math.pi))


def hard_maps(amount: Array, bins: Int[Array, "h w"], *, num_bins: int) -> Maps:
    """Gives each pixel's amount to one bin.

    The gradient flows through `amount` alone: the bin is a constant to it, as in the
    paper.

    Args:
      amount: [h, w].
      bins: [h, w], in [0, num_bins).
      num_bins: how many.

    Returns:
      num_bins maps [h, w].
    """
    return [jnp.where(bins == o, amount, 0) for o in range(num_bins)]


def bilinear_maps(amount: Array, position: Array, *, num_bins: int) -> Maps:
    """Shares each pixel's amount between the two nearest bins, linearly in the angle.

    A position p at distance d <= 1/2 from its nearest bin gives 1 - d to that bin and
    d to the next one on that side. This equals max(0, 1 - |p - o|) for every bin o on
    the circle, with one angle per pixel and not one arc cosine per bin. The gradient
    is exact except exactly at a bin's centre, where the weights have a kink and the
    mean of the two one-sided slopes, zero, is used.

    Args:
      amount: [h, w].
      position: [h, w], in bins, within [-num_bins, 2 num_bins).
      num_bins: how many.

    Returns:
      num_bins maps [h, w].
    """
    nearest = lax.stop_gradient(jnp.round(position))
    offset = position - nearest
    second = nearest + jnp.where(offset < 0, -1, 1)
    second_amount = amount * jnp.abs(offset)
    first_amount = amount - second_amount
    first_bin = jnp.mod(nearest.astype(jnp.int32), num_bins)
    second_bin = jnp.mod(second.astype(jnp.int32), num_bins)
    return [
        jnp.where(first_bin == o, first_amount, 0)
        + jnp.where(second_bin == o, second_amount, 0)
        for o in range(num_bins)
    ]


def triangle_weights(
    num_cells: int, pixels: np.ndarray, *, cell_size: int
) -> np.ndarray:
    """Bilinear pooling along one axis: max(0, 1 - |(y + 1/2) / c - 1/2 - i|).

    Cell i is centred on pixel coordinate (i + 1/2) c - 1/2 and reaches c pixels to
    either side.

    Args:
      num_cells: rows of the result.
      pixels: coordinates of the pixels, [n]; they need not start at 0.
      cell_size: c, in pixels.

    Returns:
      float64 [num_cells, n].
    """
    in_cells = (pixels + 0.5) / cell_size - 0.5
    return np.maximum(0, 1 - np.abs(in_cells[None, :] - np.arange(num_cells)[:, None]))


def pool(maps: Maps, row_weights: np.ndarray, column_weights: np.ndarray) -> Array:
    """Separable pooling, sum_yx row_weights[i, y] column_weights[j, x] maps[o, y, x].

    Small dense matrices instead of a strided convolution: on CPU they are faster,
    their backward pass much so, and borders are just columns of the matrix.

    Args:
      maps: planes [h, w].
      row_weights: [rows, h].
      column_weights: [columns, w].

    Returns:
      [rows, columns, bins].
    """
    dtype = maps[0].dtype
    rows, columns = jnp.asarray(row_weights, dtype), jnp.asarray(column_weights, dtype)
    # Full precision on accelerators too: the default would round to 10 bits or fewer.
    product = functools.partial(jnp.einsum, precision=lax.Precision.HIGHEST)
    narrow = jnp.stack([product("yx,jx->yj", plane, columns) for plane in maps])
    return product("oyj,iy->ijo", narrow, rows)
