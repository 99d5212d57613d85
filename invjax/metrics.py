"""Numbers beside reconstructions: errors of codes, and likeness of pictures.

Errors of codes are of the image as optimised, neither clipped nor rescaled; PSNR, SSIM
and LPIPS are of the picture clipped to [0, 1].
"""

import itertools
from collections.abc import Sequence

import dm_pix
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from invjax import lpips as perceptual

_SSIM_WINDOW = 11


def relative_error(code: ArrayLike, target: ArrayLike) -> float:
    """|code - target| / |target|; infinite for a target of norm zero."""
    return _ratio(_distance(code, target), float(np.linalg.norm(_flat(target))))


def normalised_error(code: ArrayLike, target: ArrayLike, spread: float) -> float:
    """|code - target| / N, the paper's error (CVPR 2015, section 5).

    Args:
      code: of the reconstruction.
      target: phi0.
      spread: N, `mean_pairwise_distance` of the codes of the set of images.
    """
    return _ratio(_distance(code, target), spread)


def mean_pairwise_distance(codes: Sequence[ArrayLike]) -> float:
    """Mean Euclidean distance between the codes of different images; N of the paper.

    Codes of different sizes (shallow representations at native size) are filled up
    with zeros, as in the paper's released code. NaN for fewer than two codes.
    """
    flat = [_flat(code) for code in codes]
    size = max((code.size for code in flat), default=0)
    padded = [np.pad(code, (0, size - code.size)) for code in flat]
    distances = [
        np.linalg.norm(first - second)
        for first, second in itertools.combinations(padded, 2)
    ]
    return float(np.mean(distances)) if distances else float("nan")


def psnr(image: ArrayLike, original: ArrayLike) -> float:
    """Peak signal-to-noise ratio in dB of two [h, w, c], the first one clipped."""
    return float(_psnr(_clipped(image), jnp.asarray(original)))


def ssim(image: ArrayLike, original: ArrayLike) -> float:
    """Structural similarity (Wang et al. 2004) of two [h, w, c], the first clipped.

    Gaussian window of 11 pixels, mean over channels. NaN for smaller images.
    """
    if min(np.shape(original)[:2]) < _SSIM_WINDOW:
        return float("nan")
    return float(_ssim(_clipped(image), jnp.asarray(original)))


def lpips(
    parameters: perceptual.Parameters, image: ArrayLike, original: ArrayLike
) -> float:
    """LPIPS of two [h, w, c], the first clipped; grey ones as RGB with equal channels.

    NaN for images of less than 31 px a side.
    """
    if min(np.shape(original)[:2]) < perceptual.SMALLEST_SIDE:
        return float("nan")
    pair = (_rgb(_clipped(image)), _rgb(jnp.asarray(original)))
    return float(_lpips(parameters, *pair))


# Operation by operation they would take seconds to compile.
_psnr, _ssim = jax.jit(dm_pix.psnr), jax.jit(dm_pix.ssim)
_lpips = jax.jit(perceptual.lpips)


def _rgb(image: Array) -> Array:
    return jnp.broadcast_to(image, (*image.shape[:2], 3))


def _clipped(image: ArrayLike) -> Array:
    return jnp.clip(jnp.asarray(image), 0.0, 1.0)


def _flat(code: ArrayLike) -> np.ndarray:
    # Sums over up to 3 million squares: double precision costs nothing here.
    return np.asarray(code, np.float64).ravel()


def _distance(code: ArrayLike, target: ArrayLike) -> float:
    return float(np.linalg.norm(_flat(code) - _flat(target)))


def _ratio(distance: float, unit: float) -> float:
    return distance / unit if unit > 0 else float("nan" if unit != 0 else "inf")
