"""Pictures of HOG and SIFT codes, for looking at.

NumPy only, not differentiable. Pictures are float32 [h, w] in [0, 1], y down; the
largest weight of a code is drawn white, so two pictures do not share a scale. Negative
entries (of a template, say) are drawn as zero.
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
    """One stroke per orientation in every cell, along the edge.

    A stroke is perpendicular to its gradient direction, and as bright as the undirected
    weight; where strokes cross, the brightest is seen.

    Args:
      code: [rows, columns, d] with K orientations: 3 K values (the paper's network) or
        3 K + 4 (UoCTTI), of which the undirected ones are drawn, or 4 K (Dalal-Triggs),
        of which the mean of the four copies is. For K = 4, where the last two have
        equal size, UoCTTI is assumed.
      num_orientations: K.
      cell_size: side of a cell's picture, in pixels.

    Returns:
      Picture [rows * cell_size, columns * cell_size].

    Raises:
      ValueError: another rank, another number of values, or cells of under 3 px.
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
    reach = 0.5 * cell_size - 0.5
    picture = np.zeros((code.shape[0], cell_size, code.shape[1], cell_size), np.float32)
    for o in range(k):
        cos, sin = np.cos(o * np.pi / k), np.sin(o * np.pi / k)
        across, along = np.abs(x * cos + y * sin), np.abs(y * cos - x * sin)
        stroke = np.clip(1.25 - across, 0, 1) * np.clip(reach + 0.5 - along, 0, 1)
        _draw(picture, weights[..., o], stroke.astype(np.float32))
    return _as_picture(picture)


def dsift_glyph(
    code: Float[Array | np.ndarray, "ny nx d"], *, cell_size: int = 12
) -> Float[np.ndarray, "h w"]:
    """Eight spokes in every spatial bin of every descriptor, along the gradient.

    A spoke starts at its bin's centre, points where the image gets brighter and tapers
    to its end; length and brightness grow with the square root of the weight, so that
    weak ones show. Descriptors lie side by side, a dark line between them, however much
    they overlap in the image.

    Args:
      code: [ny, nx, 128], element o + 8 (i + 4 j) as in `dsift.py`.
      cell_size: side of a spatial bin's picture, in pixels.

    Returns:
      Picture [ny * (4 * cell_size + 1), nx * (4 * cell_size + 1)].

    Raises:
      ValueError: another rank or number of values, or cells of under 3 px.
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
    reach = 0.5 * cell_size
    picture = np.zeros((ny * num_bins, cell_size, nx * num_bins, cell_size), np.float32)
    for o in range(num_orientations):
        angle = 2 * np.pi * o / num_orientations
        along = x * np.cos(angle) + y * np.sin(angle)
        across = np.abs(y * np.cos(angle) - x * np.sin(angle))
        # One picture per level of length is enough: lengths are whole pixels.
        levels = np.ceil(weights[..., o] * reach).astype(int)
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
    """x [1, n] and y [n, 1] of a cell's pixels, from its centre."""
    offset = np.arange(cell_size) - 0.5 * (cell_size - 1)
    return offset[None, :], offset[:, None]


def _draw(picture: np.ndarray, weights: np.ndarray, stroke: np.ndarray) -> None:
    """Lays weights [r, c] times stroke [n, n] over picture [r, n, c, n], in place."""
    layer = weights[:, None, :, None] * stroke[None, :, None, :]
    np.maximum(picture, layer, out=picture)


def _as_picture(cells: np.ndarray) -> np.ndarray:
    """Joins cells [r, n, c, n] to [r * n, c * n], the brightest pixel white."""
    rows, side, columns, _ = cells.shape
    picture = cells.reshape(rows * side, columns * side)
    peak = picture.max(initial=0)
    return picture / peak if peak > 0 else picture
