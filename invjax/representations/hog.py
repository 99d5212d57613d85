"""Histograms of oriented gradients (HOG) as VLFeat computes them, differentiable.

The module follows vl_hog of VLFeat 0.9.20 and 0.9.21: the UoCTTI and Dalal-Triggs
variants, with hard or bilinear orientation assignment. The paper's own HOG network,
which differs from it near the border of the grid, is `paper.published_hog`.

Cells: a c x c px cell (i, j) is centred on (y, x) = ((i + 1/2) c - 1/2, (j + 1/2) c -
1/2). A remainder of at least half a cell makes one more, partial cell; the pixels of a
smaller one only contribute to the neighbouring cells. Bins: directed bin o of 2 K is
centred on o * 180 / K degrees of gradient direction, clockwise on screen from +x.
"""

import dataclasses

import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float

from invjax.representations import orientation
from invjax.representations.orientation import AnyImage, OrientationMaps

VARIANTS = ("uoctti", "dalal_triggs")
ASSIGNMENTS = ("hard", "bilinear")

CLAMP = 0.2
"""Largest value of a block-normalised histogram entry."""

# VLFeat uses this value for every number of orientations.
_TEXTURE_SCALE = 1 / np.sqrt(18).item()
_BLOCK_ENERGY_OFFSET = 1e-4


@dataclasses.dataclass(frozen=True)
class HogConfig:
    """The variant of HOG and its sizes; the defaults are VLFeat's.

    Attributes:
      variant: "uoctti" has 3 K + 4 values per cell, for 2 K directed and K undirected
        orientations and 4 texture energies; "dalal_triggs" has 4 K, the undirected
        histogram in each of 4 block normalisations.
      assignment: "hard" assigns a pixel to the nearest orientation, "bilinear" to the
        two nearest, linearly in the angle.
      cell_size: c, in pixels.
      num_orientations: K, the number of undirected orientations in [0, 180) degrees.

    Raises:
      ValueError: a choice is unknown, or a size is too small.
    """

    variant: str = "uoctti"
    assignment: str = "hard"
    cell_size: int = 8
    num_orientations: int = 9

    def __post_init__(self) -> None:
        for name, known in (("variant", VARIANTS), ("assignment", ASSIGNMENTS)):
            value = getattr(self, name)
            if value not in known:
                raise ValueError(
                    f"{name} must be one of {', '.join(known)}, got {value!r}"
                )
        if self.cell_size < 1:
            raise ValueError(f"cell_size must be at least 1, got {self.cell_size}")
        if self.num_orientations < 2:
            raise ValueError(
                f"num_orientations must be at least 2, got {self.num_orientations}"
            )


_DEFAULT = HogConfig()


def hog(
    image: AnyImage, *, config: HogConfig = _DEFAULT
) -> Float[Array, "rows columns d"]:
    """Computes HOG of one image, in VLFeat's order.

    The gradient (without the factor 1/2) of the interior pixels, in the channel where
    it is strongest, is binned by orientation and pooled bilinearly into cells. Each
    cell is normalised by the four 2 x 2 blocks that contain it, with 1 / sqrt(energy +
    1e-4) and block energies replicated beyond the grid, and clamped at 0.2. The
    constant is absolute, so images in [0, 1] and [0, 255] differ where contrast is low.

    Differentiation: with hard assignment the chosen bin is treated as a constant and
    the gradient flows through the magnitude only, as in the paper. With bilinear
    assignment it is exact except at bin centres, where the slope at the kink is taken
    as zero. The chosen colour channel is treated as a constant too. Gradients are
    finite everywhere, flat images included.

    Differs from VLFeat: with bilinear assignment VLFeat's float32 arc cosine leaves
    spurious weights of about 1e-3 next to a bin's centre, at most 4e-4 in a descriptor;
    the exact angle here leaves none.

    Args:
      image: [h, w], [h, w, 1] or [h, w, 3], in any value range; integers are read as
        float32, floating-point types are kept.
      config: variant, assignment, cell size and number of orientations.

    Returns:
      [rows, columns, d], values in [0, 0.43] for K = 9, with rows = floor((h +
      floor(c / 2)) / c). "uoctti" has 2 K directed entries, K undirected ones and 4
      textures; "dalal_triggs" has 4 times K undirected ones. Both order the blocks
      upper left, upper right, lower left, lower right.

    Raises:
      ValueError: the image has another rank or number of channels, or its height or
        width is below 3 pixels or below half a cell.

    Examples:
      >>> hog(np.zeros((64, 80), np.float32)).shape
      (8, 10, 31)
    """
    planes = orientation.image_planes(image, channels=(1, 3))
    height, width = planes[0].shape
    c = config.cell_size
    rows, columns = (height + c // 2) // c, (width + c // 2) // c
    smallest = max(3, c - c // 2)
    if min(height, width) < smallest:
        raise ValueError(
            f"HOG with cells of {c} px needs an image of at least {smallest} x "
            f"{smallest} px, got {height} x {width}"
        )
    gx, gy = orientation.strongest_gradient(planes)
    maps = orientation_maps(
        gx,
        gy,
        assignment=config.assignment,
        num_orientations=config.num_orientations,
    )
    directed = orientation.pool(
        maps,
        orientation.triangle_weights(rows, np.arange(1, height - 1), cell_size=c),
        orientation.triangle_weights(columns, np.arange(1, width - 1), cell_size=c),
    )
    undirected = fold_directions(directed)
    energy = jnp.pad(jnp.sum(undirected**2, axis=-1), 1, mode="edge")
    scales = 1 / jnp.sqrt(block_sums(energy) + _BLOCK_ENERGY_OFFSET)
    undirected_copies = clamped_copies(undirected, scales)
    if config.variant == "dalal_triggs":
        return jnp.concatenate(undirected_copies, axis=-1)
    textures = [
        _TEXTURE_SCALE * jnp.sum(copy, axis=-1, keepdims=True)
        for copy in undirected_copies
    ]
    return jnp.concatenate(
        [
            0.5 * sum_copies(clamped_copies(directed, scales)),
            0.5 * sum_copies(undirected_copies),
            *textures,
        ],
        axis=-1,
    )


def orientation_maps(
    gx: Array, gy: Array, *, assignment: str, num_orientations: int
) -> OrientationMaps:
    """Returns gradient magnitudes per directed bin: 2 K planes [h, w].

    Args:
      gx, gy: gradient, [h, w] each.
      assignment: "hard" or "bilinear", as in `HogConfig`.
      num_orientations: K, the number of undirected orientations.
    """
    num_bins = 2 * num_orientations
    amount = orientation.magnitude(gx, gy)
    if assignment == "hard":
        bins = orientation.nearest_direction(gx, gy, num_orientations=num_orientations)
        return orientation.hard_maps(amount, bins, num_bins=num_bins)
    position = orientation.direction_position(gx, gy, num_bins=num_bins)
    return orientation.bilinear_maps(amount, position, num_bins=num_bins)


def fold_directions(directed: Array) -> Array:
    """Adds opposite directions: [..., 2 K] -> [..., K].

    Examples:
      >>> fold_directions(jnp.array([1.0, 2.0, 3.0, 4.0])).tolist()
      [4.0, 6.0]
    """
    half = directed.shape[-1] // 2
    return directed[..., :half] + directed[..., half:]


def block_sums(energy: Array) -> Array:
    """Sums over 2 x 2 neighbours: [m, n] -> [m - 1, n - 1].

    Examples:
      >>> block_sums(jnp.ones((2, 3))).tolist()
      [[4.0, 4.0]]
    """
    pairs = energy[:-1] + energy[1:]
    return pairs[:, :-1] + pairs[:, 1:]


def clamped_copies(histogram: Array, scales: Array) -> list[Array]:
    """Returns min(histogram * scale, 0.2) for each of the four blocks around a cell.

    Args:
      histogram: [rows, columns, n].
      scales: [rows + 1, columns + 1], one per block; the lower right cell of block
        (i, j) is cell (i, j).

    Returns:
      Four arrays of the histogram's shape: upper left, upper right, lower left, lower
      right.
    """
    corners = (
        scales[:-1, :-1],
        scales[:-1, 1:],
        scales[1:, :-1],
        scales[1:, 1:],
    )
    # Unlike a minimum, a where passes the full gradient at the clamp itself.
    copies = [histogram * corner[..., None] for corner in corners]
    return [jnp.where(copy <= CLAMP, copy, CLAMP) for copy in copies]


def sum_copies(copies: list[Array]) -> Array:
    """Adds the four copies of `clamped_copies` in VLFeat's order of addition."""
    upper_left, upper_right, lower_left, lower_right = copies
    return upper_left + upper_right + lower_left + lower_right
