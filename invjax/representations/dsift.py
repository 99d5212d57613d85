"""Dense SIFT as VLFeat computes it, differentiable.

The module follows vl_dsift of VLFeat 0.9.18 to 0.9.21: descriptors of 4 x 4 spatial
bins with 8 orientations each, on a regular grid of frames. The image is not smoothed
first. The paper's own DSIFT network, which has another geometry, is
`paper.published_dsift`.

Element o + 8 (i + 4 j) of a descriptor belongs to orientation o (centred on o * 45
degrees of gradient direction, clockwise on screen from +x) and to the bin in column i
and row j, so that `reshape(ny, nx, 4, 4, 8)` is [frame row, frame column, j, i, o].
Pairs in the configuration are (x, y).
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
"""Number of spatial bins of a descriptor, along x and along y."""

NUM_ORIENTATIONS = 8
"""Number of directed orientation bins."""

CLAMP = 0.2
"""Largest value of an entry before the last normalisation."""

# Squared magnitudes and squared norms below it count as zero.
_SQUARE_FLOOR = 1e-8
_EPSILON = 2.0**-23


@dataclasses.dataclass(frozen=True)
class DsiftConfig:
    """The grid and the bins of dense SIFT; the defaults are VLFeat's.

    Attributes:
      bin_size: distance (x, y) between the centres of neighbouring spatial bins, in
        pixels.
      step: distance (x, y) between neighbouring descriptors, in pixels.
      window: "gaussian" weights every pixel by its distance from the frame's centre;
        "flat" weights every bin by the mean of that weight over the bin (VLFeat's fast
        option).
      window_size: standard deviation of that Gaussian, in bins.
      bounds: (min_x, min_y, max_x, max_y), inclusive pixels between which bin centres
        lie (bins themselves extend beyond); None for the whole image.

    Raises:
      ValueError: a pair is not of positive integers, the window is unknown or of no
        positive size, or the bounds are not four integers.
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
    """Integers of any sequence, such as a JSON list, as a tuple; else ()."""
    try:
        return tuple(operator.index(value) for value in values)
    except TypeError:
        return ()


_DEFAULT = DsiftConfig()


def dsift(
    image: AnyImage, *, config: DsiftConfig = _DEFAULT
) -> Float[Array, "ny nx 128"]:
    """Computes dense SIFT descriptors of one image, in VLFeat's order.

    Arguments, arithmetic and errors are those of `dsift_frames`.

    Returns:
      Descriptors [ny, nx, 128].

    Examples:
      >>> dsift(np.zeros((31, 41), np.float32)).shape
      (4, 6, 128)
    """
    return dsift_frames(image, config=config)[0]


def dsift_frames(
    image: AnyImage, *, config: DsiftConfig = _DEFAULT
) -> tuple[Float[Array, "ny nx 128"], Float[Array, "ny nx 3"]]:
    """Computes dense SIFT descriptors of one image and their frames.

    Gradients are central differences with the factor 1/2, one-sided at the border, and
    zero where the squared magnitude is below 1e-8. Each magnitude is divided between
    the two nearest of 8 directions and pooled into 4 x 4 bins with weights of a
    triangle times the window; border pixels are repeated outwards. A descriptor is
    divided by its norm, clamped at 0.2 and divided by its norm again. VLFeat's
    constants keep flat patches at exactly 0.

    Angles are VLFeat's approximation of the arc tangent, with errors of up to 0.35
    degrees, because the exact angle would change descriptors by up to 9e-3. The
    approximation itself is differentiated. The gradient is finite everywhere, flat
    images included.

    Differs from VLFeat: square roots are exact (VLFeat's have relative errors of up to
    5e-6), and so are the sums of the flat window, where VLFeat uses running sums in
    float32.

    Args:
      image: [h, w] or [h, w, 1], in any value range; integers are read as float32,
        floating-point types are kept.
      config: bins, step, window and bounds.

    Returns:
      Descriptors [ny, nx, 128] of unit norm with values in [0, 1], and frames
      [ny, nx, 3]: x and y of the centre in pixels (the first pixel's centre is 0) and
      the contrast norm, which is the mass of the descriptor per pixel before
      normalisation. nx = floor((max_x - min_x - 3 bin_x) / step_x) + 1.

    Raises:
      ValueError: the image has another rank or number of channels or a side below 2
        pixels, or the bounds lie outside the image or hold no descriptor.

    Examples:
      >>> _, frames = dsift_frames(np.zeros((16, 21), np.float32))
      >>> frames.tolist()
      [[[7.5, 7.5, 0.0], [12.5, 7.5, 0.0]]]
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
    """Collects the bins of each frame: [ny * 4, nx * 4, o] -> [ny, nx, 16 * o].

    Examples:
      >>> stack_bins(jnp.zeros((8, 12, 8))).shape
      (2, 3, 128)
    """
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
            f"bounds {bounds} extend beyond the {height} x {width} px image"
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
    # The plane is continued linearly by a pixel, so that the central difference at the
    # border equals the one-sided one. In this form, without transposes and scaled by a
    # constant, XLA on CPU keeps the backward pass in one loop, three times faster than
    # in other forms.
    left, right = 2 * plane[:, :1] - plane[:, 1:2], 2 * plane[:, -1:] - plane[:, -2:-1]
    top, bottom = 2 * plane[:1] - plane[1:2], 2 * plane[-1:] - plane[-2:-1]
    wide = jnp.concatenate([left, plane, right], axis=1)
    tall = jnp.concatenate([top, plane, bottom], axis=0)
    return 0.5 * (wide[:, 2:] - wide[:, :-2]), 0.5 * (tall[2:] - tall[:-2])


def _fast_position(gx: Array, gy: Array) -> Array:
    """VLFeat's approximate angle, counted in bins, in [-4, 4]."""
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
    # Repeated border pixels share one column, where their weights add up.
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
