"""The networks of the paper: CNN-HOG and CNN-DSIFT as its authors published them.

Both are close to VLFeat's HOG and dense SIFT (`hog.py`, `dsift.py`), from which they
differ at the rim (HOG) or in geometry (DSIFT). They see 255 grey - 128 of an image in
[0, 1]; colour is read as 0.2989 R + 0.5870 G + 0.1140 B.

The gradients differ from the authors' where those are not finite or not exact: here a
pixel without an image gradient and a block without energy pass zero (the published code
gives NaN), and the slope of the bilinear weights is exact (the published one keeps the
arc cosine's away from its pole by 1e-7). The values are the same.
"""
# FOLDED from invjax/representations/shallow.py:
# """The paper's shallow representations under their registry names.
#
# Functions of one grey image at its native size: [h, w, 1] in [0, 1] in, no weights.
# The # images they are inverted to are grey too.
# """

import dataclasses
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float

from invjax.networks.layers import Conv, Geometry, Layer
from invjax.networks.receptive_fields import ReceptiveField, Window, receptive_field
from invjax.representations import dsift, hog, orientation
from invjax.representations.orientation import AnyImage

_GREY_WEIGHTS = (0.2989, 0.5870, 0.1140)
_MID_GREY = 128.0
_NUM_ORIENTATIONS = 9
_MIN_BLOCK_NORM = 1e-6
_SQUARE_OFFSET = 1e-6
_BLOCK_STRIDE = dsift.NUM_BINS - 1
_WINDOW_SIZE = 1.5  # standard deviation of the Gaussian, in cells


def published_hog(
    image: AnyImage, *, assignment: str, cell_size: int = 8
) -> Float[Array, "rows columns 27"]:
    """The paper's HOG ("hard") or HOGb ("bilinear") of one image (section 3.1).

    Central differences with 1/2, 18 directed orientations, bilinear pooling into cells
    of c x c px, division of each 2 x 2 block by max(norm of its undirected entries,
    1e-6), clamp at 0.2, half the sum of a cell's copies.

    Differs from VLFeat's UoCTTI HOG: pixels outside the image are mid-grey (VLFeat
    ignores the outermost pixels); a cell at the rim of the grid sums fewer blocks
    (VLFeat replicates the rim), so values in the outer two rings of cells differ by up
    to 0.4; no texture values; a rest of less than one cell makes no cell of its own.
    Two cells or more from the rim both agree, to 1e-6 with hard assignment.

    With hard assignment the chosen bin is a constant to differentiation and the
    gradient flows through the magnitude alone, as published.

    Args:
      image: [h, w], [h, w, 1] or [h, w, 3], in [0, 1].
      assignment: "hard" or "bilinear" binning of orientations.
      cell_size: c, in pixels, even; the paper's is 8.

    Returns:
      [h // c, w // c, 27]: 18 directed and 9 undirected orientations, in [0, 0.4].

    Raises:
      ValueError: another rank or number of channels, an unknown assignment, an odd cell
        size, or an image of under two cells in height or width.
    """
    if assignment not in hog.ASSIGNMENTS:
        known = ", ".join(hog.ASSIGNMENTS)
        raise ValueError(f"assignment must be one of {known}, got {assignment!r}")
    if cell_size < 2 or cell_size % 2:
        raise ValueError(f"cell_size must be even and positive, got {cell_size}")
    centred = _centred_grey(image)
    height, width = centred.shape
    rows, columns = height // cell_size, width // cell_size
    if min(rows, columns) < 2:
        raise ValueError(
            f"HOG's blocks need an image of at least {2 * cell_size} x "
            f"{2 * cell_size} px, got {height} x {width}"
        )
    gx, gy = orientation.interior_gradient(jnp.pad(centred, 1))
    maps = hog.orientation_maps(
        0.5 * gx,
        0.5 * gy,
        assignment=assignment,
        num_orientations=_NUM_ORIENTATIONS,
    )
    directed = orientation.pool(
        maps,
        orientation.triangle_weights(rows, np.arange(height), cell_size=cell_size),
        orientation.triangle_weights(columns, np.arange(width), cell_size=cell_size),
    )
    undirected = hog.fold_directions(directed)
    energies = hog.block_sums(jnp.sum(undirected**2, axis=-1))
    norms = jnp.maximum(orientation.safe_root(energies), _MIN_BLOCK_NORM)
    # Blocks that the grid does not hold count as zero.
    scales = jnp.pad(1 / norms, 1)
    both = jnp.concatenate([directed, undirected], axis=-1)
    return 0.5 * hog.sum_copies(hog.clamped_copies(both, scales))


def published_dsift(
    image: AnyImage, *, bin_size: int = 5
) -> Float[Array, "rows columns 128"]:
    """The paper's dense SIFT of one image (section 3.2).

    Central differences with 1/2 off the border, 8 orientations with bilinear
    assignment, bilinear pooling into cells of b x b px, blocks of 4 x 4 cells every 3
    cells weighted by a Gaussian of 1.5 cells, x / sqrt(1e-6 + sum x^2), clamp at 0.2.

    Differs from VLFeat's dense SIFT: the cells' centres lie between pixels; a block's
    step is 3 b; one weight per cell, taken at its centre; exact angles; no second
    normalisation, so a descriptor's norm is below 1. Renormalised, the two have a
    cosine similarity of 0.96 or more; they cannot be compared element by element.

    Args:
      image: [h, w], [h, w, 1] or [h, w, 3], in [0, 1].
      bin_size: b, in pixels: 5 in the CVPR paper, 8 in the IJCV one.

    Returns:
      [rows, columns, 128] in [0, 0.2]; element o + 8 (i + 4 j) as in `dsift.py`. rows =
      floor((cells - 4) / 3) + 1 with cells = floor((h - 2 - 2 b) / b) + 1.

    Raises:
      ValueError: another rank or number of channels, a bin size below 1, or an image of
        under 5 b + 2 px in height or width.
    """
    if bin_size < 1:
        raise ValueError(f"bin_size must be at least 1, got {bin_size}")
    centred = _centred_grey(image)
    height, width = centred.shape
    smallest = 5 * bin_size + 2
    if min(height, width) < smallest:
        raise ValueError(
            f"DSIFT with bins of {bin_size} px needs an image of at least {smallest} x "
            f"{smallest} px, got {height} x {width}"
        )
    gx, gy = orientation.interior_gradient(centred)
    gx, gy = 0.5 * gx, 0.5 * gy
    maps = orientation.bilinear_maps(
        orientation.magnitude(gx, gy),
        orientation.direction_position(gx, gy, num_bins=dsift.NUM_ORIENTATIONS),
        num_bins=dsift.NUM_ORIENTATIONS,
    )
    blocks = dsift.stack_bins(
        orientation.pool(
            maps,
            _block_weights(height - 2, bin_size),
            _block_weights(width - 2, bin_size),
        )
    )
    energy = jnp.sum(blocks**2, axis=-1, keepdims=True)
    normalised = blocks / jnp.sqrt(_SQUARE_OFFSET + energy)
    return jnp.where(normalised <= dsift.CLAMP, normalised, dsift.CLAMP)


def _centred_grey(image: AnyImage) -> Array:
    planes = orientation.image_planes(image, channels=(1, 3))
    if len(planes) == 3:
        red, green, blue = _GREY_WEIGHTS
        grey = red * planes[0] + green * planes[1] + blue * planes[2]
    else:
        (grey,) = planes
    return 255 * grey - _MID_GREY


def _block_weights(num_pixels: int, bin_size: int) -> np.ndarray:
    """Pooling and windowing along one axis, [blocks * 4, pixels], block outermost."""
    num_cells = num_pixels // bin_size - 1
    # The first cell is 2 b pixels wide and starts at the first pixel.
    cells = orientation.triangle_weights(
        num_cells, np.arange(num_pixels) - 0.5 * bin_size, cell_size=bin_size
    )
    num_blocks = (num_cells - dsift.NUM_BINS) // _BLOCK_STRIDE + 1
    index = np.arange(dsift.NUM_BINS)
    offset = index - 0.5 * (dsift.NUM_BINS - 1)
    window = np.exp(-0.5 * (offset / _WINDOW_SIZE) ** 2)
    blocks = cells[_BLOCK_STRIDE * np.arange(num_blocks)[:, None] + index]
    return (window[:, None] * blocks).reshape(-1, num_pixels)


_LISTED_SIZE = 224


# Pytrees without leaves, so that they can be arguments of compiled functions.
@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class Hog:
    """CNN-HOG of the paper; see `published.published_hog`.

    Attributes:
      name: of the registry.
      assignment: of orientations: "hard" is the paper's HOG, "bilinear" its HOGb.
      cell_size: pixels.
    """

    name: str
    assignment: Literal["hard", "bilinear"]
    cell_size: int = 8
    centre: float = 128.0

    def __call__(self, image: AnyImage) -> Float[Array, "rows columns 27"]:
        return published_hog(
            image, assignment=self.assignment, cell_size=self.cell_size
        )

    @property
    def geometry(self) -> Geometry:
        """At 224 px. A unit sees 3 x 3 cells, since neighbours normalise it."""
        count = _LISTED_SIZE // self.cell_size
        # Triangles reach a whole cell beyond their own, derivatives one pixel more.
        field = 4 * self.cell_size + 2
        return Geometry(self.name, (count, count, 27), field, self.cell_size)

    def receptive_field(
        self, *, window: Window | None = None, image_shape: tuple[int, ...]
    ) -> ReceptiveField:
        """The pixels that a window of cells sees (None: all of them) in an image.

        Raises: as `receptive_fields.receptive_field`.
        """
        return receptive_field(self._as_network, image_shape, window=window)

    @property
    def _as_network(self) -> tuple[Layer, ...]:
        """The windows that the paper's CNN-HOG slides (CVPR 2015, section 3.1)."""
        cell = self.cell_size
        return (
            Conv("derivatives", 18, kernel=3, padding=1),
            Conv("cells", 18, kernel=2 * cell, stride=cell, padding=cell // 2),
            Conv("blocks", 108, kernel=2),
            Conv("copies", 27, kernel=2, padding=1),
        )

    def smallest_image(self, code_shape: tuple[int, ...]) -> tuple[int, int, int]:
        """The smallest image whose code has this shape."""
        return (code_shape[0] * self.cell_size, code_shape[1] * self.cell_size, 1)


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class Dsift:
    """CNN-DSIFT of the paper; see `published.published_dsift`.

    Attributes:
      name: of the registry.
      bin_size: pixels; 5 in CVPR 2015, 8 in IJCV 2016.
    """

    name: str
    bin_size: int
    centre: float = 128.0

    def __call__(self, image: AnyImage) -> Float[Array, "ny nx 128"]:
        return published_dsift(image, bin_size=self.bin_size)

    @property
    def geometry(self) -> Geometry:
        """At 224 px. A descriptor sees its 4 x 4 bins and their triangles' ends."""
        num_bins = (_LISTED_SIZE - 2) // self.bin_size - 1
        step = dsift.NUM_BINS - 1
        count = (num_bins - dsift.NUM_BINS) // step + 1
        field = (dsift.NUM_BINS + 1) * self.bin_size + 2
        stride = step * self.bin_size
        return Geometry(self.name, (count, count, 128), field, stride)

    def receptive_field(
        self, *, window: Window | None = None, image_shape: tuple[int, ...]
    ) -> ReceptiveField:
        """The pixels that a window of descriptors sees (None: all of them).

        Raises: as `receptive_fields.receptive_field`.
        """
        return receptive_field(self._as_network, image_shape, window=window)

    @property
    def _as_network(self) -> tuple[Layer, ...]:
        """The windows that the paper's CNN-DSIFT slides (CVPR 2015, section 3.2)."""
        side, bins = self.bin_size, dsift.NUM_BINS
        return (
            Conv("derivatives", 8, kernel=3),
            Conv("bins", 8, kernel=2 * side, stride=side),
            Conv("blocks", 128, kernel=bins, stride=bins - 1),
        )

    def smallest_image(self, code_shape: tuple[int, ...]) -> tuple[int, int, int]:
        """The smallest image whose code has this shape."""
        step = dsift.NUM_BINS - 1
        height, width = (
            (step * (count - 1) + dsift.NUM_BINS + 1) * self.bin_size + 2
            for count in code_shape[:2]
        )
        return (height, width, 1)


SHALLOW: dict[str, Hog | Dsift] = {
    phi.name: phi
    for phi in (
        Hog("hog", "hard"),
        Hog("hogb", "bilinear"),
        Dsift("dsift", bin_size=5),
        Dsift("dsift8", bin_size=8),
    )
}
