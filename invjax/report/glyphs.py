"""Glyphs: pictures of HOG and SIFT codes.

Pictures are float32 [h, w] in [0, 1], y down. The largest weight of a code is white, so
the brightness of two pictures cannot be compared. Negative entries (of a template, for
instance) are drawn as zero. The functions use NumPy and are not differentiable.
"""

import numpy as np
from jax import Array
from jaxtyping import Float

from invjax.representations import dsift


def hog_glyph(
    code: Float[Array | np.ndarray, "rows columns d"],
    *,
    num_orientations: int = 9,
    cell_size: int = 16,
) -> Float[np.ndarray, "h w"]:
    """Draws a HOG code: in every cell one stroke per orientation, along the edge.

    A stroke is perpendicular to its gradient direction. Its brightness is the weight of
    the undirected orientation; where strokes cross, the brightest one is drawn.

    Args:
      code: [rows, columns, d] with K orientations. d is 3 K (the paper's network) or
        3 K + 4 (UoCTTI), of which the undirected entries are drawn, or 4 K
        (Dalal-Triggs), of which the mean of the four copies is drawn. For K = 4 the
        last two are equal, and UoCTTI is assumed.
      num_orientations: K, the number of undirected orientations.
      cell_size: side of a cell in the picture, in pixels.

    Returns:
      Picture [rows * cell_size, columns * cell_size].

    Raises:
      ValueError: the code has another rank or number of values, or cells are smaller
        than 3 px.

    Examples:
      >>> hog_glyph(np.ones((2, 3, 31), np.float32)).shape
      (32, 48)
    """
    code = np.asarray(code, np.float32)
    k = num_orientations
    if code.ndim != 3 or code.shape[-1] not in (3 * k, 3 * k + 4, 4 * k):
        raise ValueError(
            f"HOG code must be [rows, columns, {3 * k}, {3 * k + 4} or {4 * k}], got "
            f"{list(code.shape)}"
        )
    _check_cell_size(cell_size)
    if code.shape[-1] in (3 * k, 3 * k + 4):
        weights = code[..., 2 * k : 3 * k]
    else:
        weights = code.reshape(*code.shape[:-1], 4, k).mean(axis=-2)
    x, y = _cell_grid(cell_size)
    half_length = 0.5 * cell_size - 0.5
    picture = np.zeros((code.shape[0], cell_size, code.shape[1], cell_size), np.float32)
    for o in range(k):
        cos, sin = np.cos(o * np.pi / k), np.sin(o * np.pi / k)
        across, along = np.abs(x * cos + y * sin), np.abs(y * cos - x * sin)
        width = np.clip(1.25 - across, 0, 1)
        stroke = width * np.clip(half_length + 0.5 - along, 0, 1)
        _draw(picture, weights[..., o], stroke.astype(np.float32))
    return _as_picture(picture)


def dsift_glyph(
    code: Float[Array | np.ndarray, "ny nx d"], *, cell_size: int = 12
) -> Float[np.ndarray, "h w"]:
    """Draws a SIFT code: in every spatial bin eight spokes, along the gradient.

    A spoke starts at the centre of its bin, points to where the image gets brighter and
    becomes thinner towards its end. Its length and brightness are proportional to the
    square root of the weight, so that small weights are visible. Descriptors are drawn
    side by side with a dark line between them, although they may overlap in the image.

    Args:
      code: [ny, nx, 128], element o + 8 (i + 4 j) as in `dsift.py`.
      cell_size: side of a spatial bin in the picture, in pixels.

    Returns:
      Picture [ny * (4 * cell_size + 1), nx * (4 * cell_size + 1)].

    Raises:
      ValueError: the code has another rank or number of values, or cells are smaller
        than 3 px.

    Examples:
      >>> dsift_glyph(np.ones((2, 3, 128), np.float32)).shape
      (98, 147)
    """
    code = np.asarray(code, np.float32)
    num_bins, num_orientations = dsift.NUM_BINS, dsift.NUM_ORIENTATIONS
    size = num_bins**2 * num_orientations
    if code.ndim != 3 or code.shape[-1] != size:
        raise ValueError(f"SIFT code must be [ny, nx, {size}], got {list(code.shape)}")
    _check_cell_size(cell_size)
    ny, nx = code.shape[:2]
    weights = code.reshape(ny, nx, num_bins, num_bins, num_orientations)
    weights = weights.transpose(0, 2, 1, 3, 4)
    weights = weights.reshape(ny * num_bins, nx * num_bins, num_orientations)
    weights = np.maximum(weights, 0)
    weights = np.sqrt(weights / max(weights.max(initial=0), 1e-12))
    x, y = _cell_grid(cell_size)
    longest = 0.5 * cell_size
    picture = np.zeros((ny * num_bins, cell_size, nx * num_bins, cell_size), np.float32)
    for o in range(num_orientations):
        angle = 2 * np.pi * o / num_orientations
        along = x * np.cos(angle) + y * np.sin(angle)
        across = np.abs(y * np.cos(angle) - x * np.sin(angle))
        # Lengths are whole pixels, so that one picture serves all spokes of a length.
        levels = np.ceil(weights[..., o] * longest).astype(int)
        for level in range(1, levels.max(initial=0) + 1):
            width = 1.5 * (1 - along / (level + 0.5))
            spoke = np.clip(width + 0.25 - across, 0, 1) * (along >= -0.5)
            _draw(
                picture,
                np.where(levels == level, weights[..., o], 0),
                (spoke * (along <= level)).astype(np.float32),
            )
    side = num_bins * cell_size
    tiles = np.pad(
        _as_picture(picture).reshape(ny, side, nx, side),
        ((0, 0), (0, 1), (0, 0), (0, 1)),
    )
    return tiles.reshape(ny * (side + 1), nx * (side + 1))


def _check_cell_size(cell_size: int) -> None:
    if cell_size < 3:
        raise ValueError(f"cell_size must be at least 3, got {cell_size}")


def _cell_grid(cell_size: int) -> tuple[np.ndarray, np.ndarray]:
    """Coordinates x [1, n] and y [n, 1] of the pixels of a cell, from its centre."""
    offset = np.arange(cell_size) - 0.5 * (cell_size - 1)
    return offset[None, :], offset[:, None]


def _draw(picture: np.ndarray, weights: np.ndarray, stroke: np.ndarray) -> None:
    """Draws weights [r, c] times stroke [n, n] over picture [r, n, c, n], in place."""
    layer = weights[:, None, :, None] * stroke[None, :, None, :]
    np.maximum(picture, layer, out=picture)


def _as_picture(cells: np.ndarray) -> np.ndarray:
    """Joins cells [r, n, c, n] to [r * n, c * n]; the brightest pixel becomes white."""
    rows, side, columns, _ = cells.shape
    picture = cells.reshape(rows * side, columns * side)
    peak = picture.max(initial=0)
    return picture / peak if peak > 0 else picture
