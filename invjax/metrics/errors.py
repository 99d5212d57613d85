"""Errors of codes, and the likeness of pictures: arrays in, arrays out.

Errors of codes are those of an image as optimised, neither clipped nor rescaled; PSNR,
SSIM and LPIPS are those of the picture clipped to [0, 1]. All functions can be jitted
and vmapped.
"""

from collections.abc import Sequence
from typing import NamedTuple

import dm_pix
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike
from jaxtyping import Float

from invjax.metrics import lpips
from invjax.types import Scalar

_SSIM_WINDOW = 11
_SUM_LENGTH = 1024


class Likeness(NamedTuple):
    """How like its original a picture is; NaN where a metric is not defined.

    Attributes:
      psnr: peak signal-to-noise ratio in dB; infinite for equal images.
      ssim: structural similarity, -1 to 1; see `ssim`.
      lpips: LPIPS distance, 0 for equal images; see `metrics.lpips`.
      rms: root mean square difference, in units of the range [0, 1].
    """

    psnr: Scalar
    ssim: Scalar
    lpips: Scalar
    rms: Scalar


def relative_error(code: ArrayLike, target: ArrayLike) -> Scalar:
    """|code - target| / |target|; infinite for a target of norm zero.

    Args:
      code: code of the reconstruction, of any shape.
      target: phi0, of the same shape.

    Examples:
      >>> import numpy as np
      >>> float(relative_error(np.float32([3, 0]), np.float32([0, 4])))
      1.25
    """
    return normalised_error(code, target, _norm(jnp.asarray(target)))


def normalised_error(code: ArrayLike, target: ArrayLike, scale: ArrayLike) -> Scalar:
    """|code - target| / N, the paper's error (CVPR 2015, section 5).

    Args:
      code: code of the reconstruction, of any shape.
      target: phi0, of the same shape.
      scale: N, the `code_scale` of the codes of a set of images. Zero gives infinity.
    """
    scale = jnp.asarray(scale, jnp.float32)
    distance = _norm(jnp.asarray(code) - jnp.asarray(target))
    return jnp.where(scale == 0, jnp.inf, distance / scale)


def code_scale(codes: Sequence[ArrayLike]) -> Scalar:
    """Mean Euclidean distance between the codes of different images; N of the paper.

    Codes of different sizes (shallow representations at native size) are filled up
    with zeros, as in the paper's released code. NaN for fewer than two codes.

    Args:
      codes: one code per image.
    """
    num = len(codes)
    if num < 2:
        return jnp.asarray(jnp.nan, jnp.float32)
    flat = [jnp.ravel(jnp.asarray(code)) for code in codes]
    size = max(code.size for code in flat)
    rows = jnp.stack([jnp.pad(code, (0, size - code.size)) for code in flat])
    first, second = jnp.triu_indices(num, k=1)
    return _mean_distance(rows, first, second)


def psnr(image: ArrayLike, original: ArrayLike) -> Scalar:
    """Peak signal-to-noise ratio in dB of two [h, w, c], the first one clipped."""
    return dm_pix.psnr(_clipped(image), jnp.asarray(original))


def ssim(image: ArrayLike, original: ArrayLike) -> Scalar:
    """Structural similarity (Wang et al. 2004) of two [h, w, c], the first clipped.

    Gaussian window of 11 pixels, mean over channels. NaN for smaller images.
    """
    if min(np.shape(original)[:2]) < _SSIM_WINDOW:
        return jnp.asarray(jnp.nan, jnp.float32)
    return dm_pix.ssim(_clipped(image), jnp.asarray(original))


def likeness(
    image: ArrayLike,
    original: ArrayLike,
    *,
    parameters: lpips.Parameters | None = None,
) -> Likeness:
    """PSNR, SSIM, LPIPS and root mean square difference of a picture.

    Args:
      image: [h, w, c], clipped to [0, 1] here.
      original: [h, w, c] in [0, 1].
      parameters: of LPIPS, from `lpips.load`; without them LPIPS is NaN.
    """
    nan = jnp.asarray(jnp.nan, jnp.float32)
    return Likeness(
        psnr=psnr(image, original),
        ssim=ssim(image, original),
        lpips=nan if parameters is None else lpips_of(parameters, image, original),
        rms=jnp.sqrt(jnp.mean(jnp.square(_clipped(image) - jnp.asarray(original)))),
    )


def lpips_of(
    parameters: lpips.Parameters,
    image: ArrayLike,
    original: ArrayLike,
) -> Scalar:
    """`lpips.lpips` of a picture, which is clipped, also for grey and small images.

    Grey images are taken as RGB with equal channels. NaN for images of less than 31 px
    a side.
    """
    if min(np.shape(original)[:2]) < lpips.SMALLEST_SIDE:
        return jnp.asarray(jnp.nan, jnp.float32)
    return lpips.lpips(parameters, _rgb(_clipped(image)), _rgb(original))


@jax.jit
def _mean_distance(
    rows: Float[Array, "n d"], first: Array, second: Array
) -> Float[Array, ""]:
    def distance(pair: tuple[Array, Array]) -> Array:
        return _norm(rows[pair[0]] - rows[pair[1]])

    # Pair by pair: all differences at once would not fit the memory.
    return jnp.mean(jax.lax.map(distance, (first, second)))


def _norm(x: Array) -> Scalar:
    # In two stages: a float32 sum of a million squares in a row loses digits.
    flat = jnp.ravel(x.astype(jnp.float32))
    rows = jnp.pad(flat, (0, -flat.size % _SUM_LENGTH)).reshape(-1, _SUM_LENGTH)
    return jnp.sqrt(jnp.sum(jnp.sum(jnp.square(rows), axis=1)))


def _rgb(image: ArrayLike) -> Float[Array, "h w 3"]:
    return jnp.broadcast_to(jnp.asarray(image), (*np.shape(image)[:2], 3))


def _clipped(image: ArrayLike) -> Float[Array, "h w c"]:
    return jnp.clip(jnp.asarray(image), 0.0, 1.0)
