"""Oriented gradient maps and their pooling, shared by HOG and dense SIFT.

The steps are those of the paper (section 3): directional derivatives, orientation
binning, spatial pooling. Images are planes [h, w], y down and x right, in any value
range. Angles are those of the gradient (dark to bright), from +x towards +y, so
clockwise on screen.

All functions are pure functions of one image, keep its floating-point type and have
finite gradients everywhere: where the image gradient is exactly zero, the derivatives
of its magnitude and of its angle are taken as zero.
"""

import functools
import math
from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jaxtyping import Float, Int, Shaped

AnyImage = Shaped[Array | np.ndarray, "h w *c"]
"""An image with or without a channel axis, of any type."""

Plane = Float[Array, "h w"]

OrientationMaps = Sequence[Array]
"""One plane [h, w] per orientation bin.

The planes are separate arrays because that is a third faster on CPU: the backward pass
of each is a slice, where that of one array is a reduction over the leading axis.
"""


def image_planes(image: AnyImage, *, channels: tuple[int, ...]) -> list[Array]:
    """Splits an image into its channels.

    Args:
      image: [h, w] or [h, w, c].
      channels: the allowed values of c; [h, w] counts as one channel.

    Returns:
      A list of floating-point planes [h, w].

    Raises:
      ValueError: the image has another rank or number of channels.

    Examples:
      >>> planes = image_planes(np.zeros((4, 5, 3), np.uint8), channels=(1, 3))
      >>> [(plane.shape, plane.dtype.name) for plane in planes[:1]]
      [((4, 5), 'float32')]
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
    """Returns central differences of the interior pixels, without the factor 1/2.

    Args:
      plane: [h, w].

    Returns:
      (gx, gy), each [h - 2, w - 2]; the outermost pixels have no difference.

    Examples:
      >>> ramp = jnp.tile(jnp.arange(4.0), (3, 1))
      >>> gx, gy = interior_gradient(ramp)
      >>> gx.tolist(), gy.tolist()
      ([[2.0, 2.0]], [[0.0, 0.0]])
    """
    gx = plane[1:-1, 2:] - plane[1:-1, :-2]
    gy = plane[2:, 1:-1] - plane[:-2, 1:-1]
    return gx, gy


def strongest_gradient(planes: Sequence[Array]) -> tuple[Array, Array]:
    """Returns `interior_gradient` of the channel with the largest one at each pixel.

    Among equally large ones the first channel is taken. The choice is treated as
    constant in differentiation.

    Args:
      planes: channels [h, w].

    Returns:
      (gx, gy), each [h - 2, w - 2].
    """
    gx, gy = interior_gradient(planes[0])
    if len(planes) == 1:
        return gx, gy

    def energy(gx: Array, gy: Array) -> Array:
        # The maxima change no value. They keep the compiler from fusing a product into
        # the sum, where unequal rounding of the terms would break ties of channels.
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
    """Returns sqrt(square); 0 with zero derivative where square is 0 or below floor.

    Args:
      square: any shape.
      floor: smallest square whose root is taken.

    Examples:
      >>> safe_root(jnp.array([0.0, 4.0])).tolist()
      [0.0, 2.0]
    """
    is_zero = (square <= 0) | (square < floor)
    # The inner where keeps the root's infinite slope at 0 out of the backward pass.
    return jnp.where(is_zero, 0, jnp.sqrt(jnp.where(is_zero, 1, square)))


def magnitude(gx: Array, gy: Array, *, floor: float = 0.0) -> Array:
    """Returns `safe_root` of gx^2 + gy^2, pixel by pixel."""
    return safe_root(gx * gx + gy * gy, floor=floor)


def nearest_direction(gx: Array, gy: Array, *, num_orientations: int) -> Array:
    """Returns the nearest of 2 K directed bins, bin o lying at o * 180 / K degrees.

    The result equals VLFeat's arg-max over |s_k|, ties included: of two undirected
    orientations k the smaller k wins (for odd K a vertical gradient is such a tie).
    A bin is found here by counting the bin boundaries below the gradient's angle. Two
    products are compared, because the sign of their difference would depend on whether
    the compiler fuses multiplications into additions.

    Args:
      gx: any shape.
      gy: the shape of gx.
      num_orientations: K, the number of undirected orientations.

    Returns:
      Bins, int32 in [0, 2 K), of the shape of gx; arbitrary where the gradient is zero.

    Examples:
      >>> gx, gy = jnp.array([1.0, 0.0, -1.0]), jnp.array([0.0, 1.0, 0.0])
      >>> nearest_direction(gx, gy, num_orientations=4).tolist()
      [0, 2, 4]
    """
    k = num_orientations
    # Opposite directions have opposite bins: fold onto angles in [0, 180).
    is_lower = (gy < 0) | ((gy == 0) & (gx < 0))
    fx = jnp.where(is_lower, -gx, gx)
    fy = jnp.where(is_lower, -gy, gy)
    # Boundaries (i + 1/2) * 180 / K as sines and cosines of the angle to 90 degrees,
    # which makes mirror images exact. They are rounded to float32 in every dtype, which
    # makes the boundary at 45 degrees exact too.
    offsets = (k - 1 - 2 * np.arange(k)) * (math.pi / (2 * k))
    boundary_x = np.sin(offsets).astype(np.float32)
    boundary_y = np.cos(offsets).astype(np.float32)
    passed = jnp.zeros(gx.shape, jnp.int32)
    for i in range(k):
        left, right = fy * boundary_x[i].item(), fx * boundary_y[i].item()
        # Orientation 0 follows the last boundary; it is the smaller k and wins the tie.
        is_beyond = left >= right if i == k - 1 else left > right
        passed = passed + is_beyond.astype(jnp.int32)
    bins = jnp.where(is_lower, passed + k, passed)
    return jnp.where(bins == 2 * k, 0, bins)


def direction_position(gx: Array, gy: Array, *, num_bins: int) -> Array:
    """Returns the gradient's exact angle, counted in bins.

    Bin o is centred on position o, modulo num_bins.

    Args:
      gx: any shape.
      gy: the shape of gx.
      num_bins: bins of the full circle.

    Returns:
      Positions in [-num_bins / 2, num_bins / 2]; 0 with zero derivative where the
      gradient is zero.

    Examples:
      >>> direction_position(jnp.array(0.0), jnp.array(1.0), num_bins=8).item()
      2.0
    """
    is_zero = (gx == 0) & (gy == 0)
    angle = jnp.arctan2(jnp.where(is_zero, 0, gy), jnp.where(is_zero, 1, gx))
    return angle * (num_bins / (2 * math.pi))


def hard_maps(
    amount: Array, bins: Int[Array, "h w"], *, num_bins: int
) -> OrientationMaps:
    """Assigns each pixel's amount to one bin.

    The gradient flows through `amount` alone: the bin is treated as a constant, as in
    the paper.

    Args:
      amount: [h, w].
      bins: [h, w], in [0, num_bins).
      num_bins: number of maps.

    Returns:
      num_bins maps [h, w].

    Examples:
      >>> maps = hard_maps(jnp.array([[5.0, 7.0]]), jnp.array([[0, 1]]), num_bins=2)
      >>> [plane.tolist() for plane in maps]
      [[[5.0, 0.0]], [[0.0, 7.0]]]
    """
    return [jnp.where(bins == o, amount, 0) for o in range(num_bins)]


def bilinear_maps(amount: Array, position: Array, *, num_bins: int) -> OrientationMaps:
    """Divides each pixel's amount between the two nearest bins, linearly in the angle.

    A position p at distance d <= 1/2 from its nearest bin gives 1 - d to that bin and
    d to the next bin on that side. This equals max(0, 1 - |p - o|) for every bin o on
    the circle, but needs one angle per pixel instead of one arc cosine per bin. The
    gradient is exact except at a bin's centre, where the weights have a kink and the
    mean of the two one-sided slopes, zero, is used.

    Args:
      amount: [h, w].
      position: [h, w], counted in bins, within [-num_bins, 2 num_bins).
      num_bins: number of maps.

    Returns:
      num_bins maps [h, w].

    Examples:
      >>> maps = bilinear_maps(jnp.array([[8.0]]), jnp.array([[0.25]]), num_bins=4)
      >>> [plane.item() for plane in maps]
      [6.0, 2.0, 0.0, 0.0]
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
    """Returns weights of bilinear pooling along one axis.

    The weight of the pixel at y in cell i is max(0, 1 - |(y + 1/2) / c - 1/2 - i|). So
    cell i is centred on pixel coordinate (i + 1/2) c - 1/2 and extends c pixels to
    either side.

    Args:
      num_cells: number of rows of the result.
      pixels: coordinates of the pixels, [n]; they need not start at 0.
      cell_size: c, in pixels.

    Returns:
      float64 [num_cells, n].

    Examples:
      >>> triangle_weights(2, np.arange(4), cell_size=2)
      array([[0.75, 0.75, 0.25, 0.  ],
             [0.  , 0.25, 0.75, 0.75]])
    """
    in_cells = (pixels + 0.5) / cell_size - 0.5
    return np.maximum(0, 1 - np.abs(in_cells[None, :] - np.arange(num_cells)[:, None]))


def pool(
    maps: OrientationMaps, row_weights: np.ndarray, column_weights: np.ndarray
) -> Array:
    """Pools maps along both axes: sum_yx rows[i, y] columns[j, x] maps[o, y, x].

    Products with small dense matrices replace a strided convolution. On CPU they are
    faster, the backward pass by much, and borders are ordinary columns of a matrix.

    Args:
      maps: planes [h, w].
      row_weights: [rows, h].
      column_weights: [columns, w].

    Returns:
      [rows, columns, bins].
    """
    dtype = maps[0].dtype
    rows, columns = jnp.asarray(row_weights, dtype), jnp.asarray(column_weights, dtype)
    # Accelerators would round to 10 bits or fewer by default.
    product = functools.partial(jnp.einsum, precision=lax.Precision.HIGHEST)
    narrow = jnp.stack([product("yx,jx->yj", plane, columns) for plane in maps])
    return product("oyj,iy->ijo", narrow, rows)
