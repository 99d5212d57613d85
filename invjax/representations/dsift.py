"""Dense SIFT, VLFeat's arithmetic, differentiable.

Descriptors as vl_dsift (VLFeat 0.9.18 to 0.9.21) computes them, on a regular grid of
frames: 4 x 4 spatial bins of 8 orientations each. Nothing is smoothed beforehand. The
paper's own DSIFT network, of another geometry, is `published.published_dsift`.

Element o + 8 (i + 4 j) of a descriptor is orientation o (centred on o * 45 degrees of
gradient direction, clockwise on screen from +x) of the bin in column i and row j, so
`reshape(ny, nx, 4, 4, 8)` is [frame row, frame column, j, i, o]. Pairs in the
configuration are (x, y).
"""

import dataclasses
import math
import operator
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float

from invjax.representations import orientation
from invjax.representations.orientation import AnyImage

WINDOWS = ("flat", "gaussian")

NUM_BINS = 4
"""Spatial bins of a descriptor, along x and along y."""

NUM_ORIENTATIONS = 8

CLAMP = 0.2
"""Largest value of an entry before the last normalisation."""

_SQUARE_FLOOR = 1e-8  # squared magnitudes and norms below it count as zero
_EPSILON = 2.0**-23


@dataclasses.dataclass(frozen=True)
class DsiftConfig:
    """The grid and the bins of dense SIFT; the defaults are VLFeat's.

    Attributes:
      bin_size: distance (x, y) of the centres of two spatial bins, in pixels.
      step: distance (x, y) of two descriptors, in pixels.
      window: "gaussian": every pixel is weighted by its distance from the frame's
        centre; "flat": every bin by the mean of that weight over it (VLFeat's fast
        option).
      window_size: standard deviation of that Gaussian, in bins.
      bounds: (min_x, min_y, max_x, max_y), inclusive pixels that the bin centres stay
        within (not what the bins cover); None for the whole image.
    """

    bin_size: tuple[int, int] = (5, 5)
    step: tuple[int, int] = (5, 5)
    window: str = "gaussian"
    window_size: float = 2.0
    bounds: tuple[int, int, int, int] | None = None

    def __post_init__(self) -> None:
        for name in ("bin_size", "step"):
            pair = _integers(getattr(self, name))
            if len(pair) != 2 or min(pair) < 1:
                raise ValueError(
                    f"{name} must be a pair of ints >= 1, got {getattr(self, name)!r}"
                )
            object.__setattr__(self, name, pair)
        if self.window not in WINDOWS:
            known = ", ".join(WINDOWS)
            raise ValueError(f"window must be one of {known}, got {self.window!r}")
        if not self.window_size > 0:
            raise ValueError(f"window_size must be positive, got {self.window_size}")
        if self.bounds is not None:
            bounds = _integers(self.bounds)
            if len(bounds) != 4:
                raise ValueError(
                    "bounds must be (min_x, min_y, max_x, max_y) in whole pixels, got "
                    f"{self.bounds!r}"
                )
            object.__setattr__(self, "bounds", bounds)


def _integers(values: Any) -> tuple[int, ...]:
    """Any sequence of whole numbers (a list from JSON, a numpy row) as a tuple."""
    try:
        return tuple(operator.index(value) for value in values)
    except TypeError:
        return ()


_DEFAULT = DsiftConfig()


def dsift(
    image: AnyImage, *, config: DsiftConfig = _DEFAULT
) -> Float[Array, "ny nx 128"]:
    """Dense SIFT descriptors of one image, in VLFeat's order; see `dsift_frames`."""
    return dsift_frames(image, config=config)[0]


def dsift_frames(
    image: AnyImage, *, config: DsiftConfig = _DEFAULT
) -> tuple[Float[Array, "ny nx 128"], Float[Array, "ny nx 3"]]:
    """Dense SIFT descriptors of one image and where they are.

    Gradient magnitudes (central differences with 1/2, one-sided at the border; zero
    where the square is below 1e-8) are shared between the two nearest of 8 directions,
    pooled into 4 x 4 bins by a triangle times the window, the border pixels repeated
    outwards. A descriptor is divided by its norm, clamped at 0.2 and divided by its
    norm again; VLFeat's constants keep flat patches at exactly 0.

    Angles are VLFeat's approximation of the arc tangent (off by up to 0.35 degrees),
    since the exact one changes descriptors by up to 9e-3. It is differentiated as it
    stands. The gradient is finite everywhere, flat images included.

    Differences to VLFeat: exact square roots (its own are off by up to 5e-6 relative)
    and exact sums for the flat window, where it uses running sums in float32.

    Args:
      image: [h, w] or [h, w, 1], any value range; integers are read as float32,
        floating-point types are kept.
      config: bins, step, window, bounds.

    Returns:
      Descriptors [ny, nx, 128] of unit norm, values in [0, 1], and frames [ny, nx, 3]:
      x and y of the centre in pixels (the first pixel's centre is 0) and the contrast
      norm, the descriptor's mass per pixel before it was normalised. nx = floor((max_x
      - min_x - 3 bin_x) / step_x) + 1.

    Raises:
      ValueError: another rank or number of channels, bounds outside the image, an
        image of under 2 pixels or bounds too small for one descriptor.
    """
    (plane,) = orientation.image_planes(image, channels=(1,))
    height, width = plane.shape
    if min(height, width) < 2:
        raise ValueError(f"DSIFT needs at least 2 x 2 px, got {height} x {width}")
    starts_x, starts_y = _frame_starts(height, width, config)

    gx, gy = _full_gradient(plane)
    maps = orientation.bilinear_maps(
        orientation.magnitude(gx, gy, floor=_SQUARE_FLOOR),
        _fast_position(gx, gy),
        num_bins=NUM_ORIENTATIONS,
    )
    (bin_x, bin_y), window = config.bin_size, (config.window, config.window_size)
    pooled = orientation.pool(
        maps,
        _bin_weights(height, starts_y, bin_y, *window),
        _bin_weights(width, starts_x, bin_x, *window),
    )
    mass = stack_bins(pooled)

    descriptors = _normalised(mass)
    descriptors = jnp.where(descriptors <= CLAMP, descriptors, CLAMP)
    descriptors = _normalised(descriptors)

    span = NUM_BINS - 1
    centre_x, centre_y = np.meshgrid(
        starts_x + 0.5 * span * bin_x, starts_y + 0.5 * span * bin_y
    )
    contrast = jnp.sum(mass, axis=-1) / ((span * bin_x + 1) * (span * bin_y + 1))
    centres = [jnp.asarray(c, mass.dtype) for c in (centre_x, centre_y)]
    return descriptors, jnp.stack([*centres, contrast], axis=-1)


def stack_bins(pooled: Float[Array, "rows columns o"]) -> Float[Array, "ny nx d"]:
    """Gathers the bins of each frame: [ny * 4, nx * 4, o] -> [ny, nx, 16 * o]."""
    ny, nx = (n // NUM_BINS for n in pooled.shape[:2])
    bins = pooled.reshape(ny, NUM_BINS, nx, NUM_BINS, -1)
    return bins.transpose(0, 2, 1, 3, 4).reshape(ny, nx, -1)


def _frame_starts(
    height: int, width: int, config: DsiftConfig
) -> tuple[np.ndarray, np.ndarray]:
    """Centres of the first bin of every frame, along x and along y."""
    bounds = config.bounds or (0, 0, width - 1, height - 1)
    min_x, min_y, max_x, max_y = bounds
    if min_x < 0 or min_y < 0 or max_x >= width or max_y >= height:
        raise ValueError(
            f"bounds {bounds} reach beyond the {height} x {width} px image"
        )
    starts = []
    for low, high, size, step in zip(
        (min_x, min_y), (max_x, max_y), config.bin_size, config.step, strict=True
    ):
        span = (NUM_BINS - 1) * size
        if high - low < span:
            raise ValueError(
                f"DSIFT with bins of {size} px needs {span + 1} px within the bounds, "
                f"got {high - low + 1}"
            )
        starts.append(np.arange(low, high - span + 1, step))
    return starts[0], starts[1]


def _full_gradient(plane: Array) -> tuple[Array, Array]:
    """Central differences with 1/2, one-sided at the border, [h, w] each."""
    # Continued linearly by a pixel, so that the central difference at the border is the
    # one-sided one. Written like this, transposing nothing and scaling by a constant,
    # XLA on CPU keeps the backward pass in one loop, three times faster than others.
    left, right = 2 * plane[:, :1] - plane[:, 1:2], 2 * plane[:, -1:] - plane[:, -2:-1]
    top, bottom = 2 * plane[:1] - plane[1:2], 2 * plane[-1:] - plane[-2:-1]
    wide = jnp.concatenate([left, plane, right], axis=1)
    tall = jnp.concatenate([top, plane, bottom], axis=0)
    return 0.5 * (wide[:, 2:] - wide[:, :-2]), 0.5 * (tall[2:] - tall[:-2])


def _fast_position(gx: Array, gy: Array) -> Array:
    """VLFeat's approximate angle in units of bins, in [-4, 4]."""
    height = jnp.abs(gy) + _EPSILON
    is_right = gx >= 0
    ratio = jnp.where(is_right, gx - height, gx + height) / (jnp.abs(gx) + height)
    angle = jnp.where(is_right, math.pi / 4, 3 * math.pi / 4)
    angle = angle + ratio * (0.1821 * ratio * ratio - 0.9675)
    return jnp.where(gy < 0, -angle, angle) * (NUM_ORIENTATIONS / (2 * math.pi))


def _bin_weights(
    num_pixels: int, starts: np.ndarray, size: int, window: str, window_size: float
) -> np.ndarray:
    """Pooling weights along one axis, [frames * 4, pixels], the frame outermost."""
    reach = np.arange(1 - size, size)
    index = np.arange(NUM_BINS)
    from_centre = reach[None, :] + size * (index[:, None] - 0.5 * (NUM_BINS - 1))
    gaussian = np.exp(-0.5 * (from_centre / (window_size * size)) ** 2)
    if window == "flat":
        gaussian = gaussian.mean(axis=1, keepdims=True)
    kernels = (1 - np.abs(reach) / size) * gaussian
    pixels = starts[:, None, None] + size * index[None, :, None] + reach
    weights = np.zeros((len(starts), NUM_BINS, num_pixels))
    frame, spatial_bin = np.ogrid[: len(starts), :NUM_BINS]
    # Repeated border pixels fall on one column: their weights add up.
    np.add.at(
        weights,
        (
            frame[..., None],
            spatial_bin[..., None],
            np.clip(pixels, 0, num_pixels - 1),
        ),
        np.broadcast_to(kernels, pixels.shape),
    )
    return weights.reshape(-1, num_pixels)


def _normalised(descriptors: Array) -> Array:
    square = jnp.sum(descriptors**2, axis=-1, keepdims=True)
    norm = orientation.safe_root(square, floor=_SQUARE_FLOOR)
    return descriptors / (norm + _EPSILON)
