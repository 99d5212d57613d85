"""The paper's shallow representations, CNN-HOG and CNN-DSIFT, as published.

Both are close to VLFeat's HOG and dense SIFT (`hog.py`, `dsift.py`), from which they
differ near the border of the grid (HOG) or in geometry (DSIFT). `published_hog` and
`published_dsift` compute them; `SHALLOW` has them under their registry names. They have
no weights. They are defined on grey images of any size, [h, w, 1] in [0, 1], and invert
to grey images; colour is converted to grey as 0.2989 R + 0.5870 G + 0.1140 B. The first
operation is 255 grey - 128.

Values are those of the published code. Gradients differ where the published ones are
not finite or not exact. Here a pixel without an image gradient and a block without
energy have zero gradients, where the published code gives NaN. The slope of the
bilinear weights is exact, where the published code keeps the arc cosine's slope away
from its pole by 1e-7.
"""

import dataclasses
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float

from invjax.images import pixels
from invjax.images.pixels import GREY_WEIGHTS
from invjax.networks.layers import Conv, Geometry, Layer
from invjax.networks.receptive_fields import ReceptiveField, Window, receptive_field
from invjax.representations import dsift, hog, orientation
from invjax.representations.orientation import AnyImage

_LISTED_SIZE = 224
_MID_GREY = 128.0
_NUM_ORIENTATIONS = 9
_MIN_BLOCK_NORM = 1e-6
_SQUARE_OFFSET = 1e-6
_BLOCK_STRIDE = dsift.NUM_BINS - 1
# Standard deviation of the Gaussian window of DSIFT, in cells.
_WINDOW_SIZE = 1.5


def published_hog(
    image: AnyImage, *, assignment: str, cell_size: int = 8
) -> Float[Array, "rows columns 27"]:
    """Computes the paper's HOG or HOGb of one image (CVPR 2015, section 3.1).

    The steps are central differences with the factor 1/2, 18 directed orientations,
    bilinear pooling into cells of c x c px, division of each 2 x 2 block by max(norm of
    its undirected entries, 1e-6), clamping at 0.2, and half the sum of the copies of a
    cell.

    Differs from VLFeat's UoCTTI HOG: pixels outside the image are mid-grey, where
    VLFeat ignores the outermost pixels. A cell at the border of the grid is in fewer
    blocks, where VLFeat replicates the border, so values in the outer two rings of
    cells differ by up to 0.4. There are no texture values, and a remainder of less than
    one cell makes no cell of its own. Two or more cells from the border both agree, to
    1e-6 with hard assignment.

    With hard assignment the chosen bin is treated as a constant in differentiation and
    the gradient flows through the magnitude alone, as published.

    Args:
      image: [h, w], [h, w, 1] or [h, w, 3], floats in [0, 1].
      assignment: binning of orientations: "hard" for HOG, "bilinear" for HOGb.
      cell_size: c, in pixels, even; the paper's is 8.

    Returns:
      [h // c, w // c, 27]: 18 directed and 9 undirected orientations, in [0, 0.4].

    Raises:
      ValueError: the image is of integers, has another rank or number of channels, or
        its height or width is below two cells; the assignment is unknown; the cell
        size is odd.

    Examples:
      >>> published_hog(np.zeros((64, 80), np.float32), assignment="hard").shape
      (8, 10, 27)
    """
    if assignment not in hog.ASSIGNMENTS:
        known = ", ".join(hog.ASSIGNMENTS)
        raise ValueError(f"assignment must be one of {known}, got {assignment!r}")
    if cell_size < 2 or cell_size % 2:
        raise ValueError(f"cell_size must be even and positive, got {cell_size}")
    centred = _centred_grey(image, "HOG")
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
    # Blocks beyond the grid count as zero.
    scales = jnp.pad(1 / norms, 1)
    both = jnp.concatenate([directed, undirected], axis=-1)
    return 0.5 * hog.sum_copies(hog.clamped_copies(both, scales))


def published_dsift(
    image: AnyImage, *, bin_size: int = 5
) -> Float[Array, "rows columns 128"]:
    """Computes the paper's dense SIFT of one image (CVPR 2015, section 3.2).

    The steps are central differences with the factor 1/2 of the interior pixels, 8
    orientations with bilinear assignment, bilinear pooling into cells of b x b px,
    blocks of 4 x 4 cells at every third cell with the weights of a Gaussian of standard
    deviation 1.5 cells, x / sqrt(1e-6 + sum x^2), and clamping at 0.2.

    Differs from VLFeat's dense SIFT: centres of cells lie between pixels, blocks are
    3 b apart, a cell has one weight, taken at its centre, angles are exact, and there
    is no second normalisation, so that the norm of a descriptor is below 1. After
    normalisation, the two have a cosine similarity of 0.96 or more; they cannot be
    compared element by element.

    Args:
      image: [h, w], [h, w, 1] or [h, w, 3], floats in [0, 1].
      bin_size: b, in pixels: 5 in the CVPR paper, 8 in the IJCV paper.

    Returns:
      [rows, columns, 128] in [0, 0.2]; element o + 8 (i + 4 j) as in `dsift.py`. rows =
      floor((cells - 4) / 3) + 1 with cells = floor((h - 2 - 2 b) / b) + 1.

    Raises:
      ValueError: the image is of integers, has another rank or number of channels, or
        its height or width is below 5 b + 2 px; the bin size is below 1.

    Examples:
      >>> published_dsift(np.zeros((64, 80), np.float32)).shape
      (3, 4, 128)
    """
    if bin_size < 1:
        raise ValueError(f"bin_size must be at least 1, got {bin_size}")
    centred = _centred_grey(image, "DSIFT")
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


# Pytrees without leaves, so that they can be arguments of compiled functions.
@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class Hog:
    """The paper's CNN-HOG as a representation; see `published_hog`.

    Attributes:
      name: name in the registry.
      assignment: binning of orientations: "hard" for HOG, "bilinear" for HOGb.
      cell_size: side of a cell in pixels.
      centre: grey level c in z = 255 image - c, the variable of the energy.
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
        """Code shape, receptive field and stride at 224 x 224 px.

        A value depends on 3 x 3 cells, since it is normalised by the neighbouring ones.
        """
        count = _LISTED_SIZE // self.cell_size
        # Triangles extend half a cell beyond a cell, derivatives one pixel more.
        field = 4 * self.cell_size + 2
        return Geometry(self.name, (count, count, 27), field, self.cell_size)

    def receptive_field(
        self, *, window: Window | None = None, image_shape: tuple[int, ...]
    ) -> ReceptiveField:
        """Returns the pixels on which a window of cells depends.

        Args:
          window: rows and columns of the code; None for the whole code.
          image_shape: (h, w, c).

        Raises:
          ValueError: as in `receptive_fields.receptive_field`.
        """
        return receptive_field(self._as_network, image_shape, window=window)

    @property
    def _as_network(self) -> tuple[Layer, ...]:
        """The paper's CNN-HOG as convolutions with its window sizes (section 3.1)."""
        cell = self.cell_size
        return (
            Conv("derivatives", 18, kernel=3, padding=1),
            Conv("cells", 18, kernel=2 * cell, stride=cell, padding=cell // 2),
            Conv("blocks", 108, kernel=2),
            Conv("copies", 27, kernel=2, padding=1),
        )

    def smallest_image(self, code_shape: tuple[int, ...]) -> tuple[int, int, int]:
        """Returns (h, w, 1) of the smallest image whose code has this shape."""
        return (code_shape[0] * self.cell_size, code_shape[1] * self.cell_size, 1)


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class Dsift:
    """The paper's CNN-DSIFT as a representation; see `published_dsift`.

    Attributes:
      name: name in the registry.
      bin_size: side of a spatial bin in pixels: 5 in CVPR 2015, 8 in IJCV 2016.
      centre: grey level c in z = 255 image - c, the variable of the energy.
    """

    name: str
    bin_size: int
    centre: float = 128.0

    def __call__(self, image: AnyImage) -> Float[Array, "ny nx 128"]:
        return published_dsift(image, bin_size=self.bin_size)

    @property
    def geometry(self) -> Geometry:
        """Code shape, receptive field and stride at 224 x 224 px.

        A descriptor depends on its 4 x 4 bins and on half a bin around them.
        """
        num_bins = (_LISTED_SIZE - 2) // self.bin_size - 1
        step = dsift.NUM_BINS - 1
        count = (num_bins - dsift.NUM_BINS) // step + 1
        field = (dsift.NUM_BINS + 1) * self.bin_size + 2
        stride = step * self.bin_size
        return Geometry(self.name, (count, count, 128), field, stride)

    def receptive_field(
        self, *, window: Window | None = None, image_shape: tuple[int, ...]
    ) -> ReceptiveField:
        """Returns the pixels on which a window of descriptors depends.

        Args:
          window: rows and columns of the code; None for the whole code.
          image_shape: (h, w, c).

        Raises:
          ValueError: as in `receptive_fields.receptive_field`.
        """
        return receptive_field(self._as_network, image_shape, window=window)

    @property
    def _as_network(self) -> tuple[Layer, ...]:
        """The paper's CNN-DSIFT as convolutions with its window sizes (section 3.2)."""
        side, bins = self.bin_size, dsift.NUM_BINS
        return (
            Conv("derivatives", 8, kernel=3),
            Conv("bins", 8, kernel=2 * side, stride=side),
            Conv("blocks", 128, kernel=bins, stride=bins - 1),
        )

    def smallest_image(self, code_shape: tuple[int, ...]) -> tuple[int, int, int]:
        """Returns (h, w, 1) of the smallest image whose code has this shape."""
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
"""The paper's shallow representations, by their names in the registry."""


def _centred_grey(image: AnyImage, name: str) -> Array:
    pixels.check_type(image, name=name)
    planes = orientation.image_planes(image, channels=(1, 3))
    if len(planes) == 3:
        red, green, blue = GREY_WEIGHTS
        grey = red * planes[0] + green * planes[1] + blue * planes[2]
    else:
        (grey,) = planes
    return 255 * grey - _MID_GREY


def _block_weights(num_pixels: int, bin_size: int) -> np.ndarray:
    """Weights of pooling and windowing, [blocks * 4, pixels], the block outermost."""
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
