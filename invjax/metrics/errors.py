"""Errors of codes, and the likeness of pictures to their originals.

The code is that of the image as optimised, neither clipped nor rescaled. PSNR, SSIM,
LPIPS and the root mean square are of the picture clipped to [0, 1]; pictures follow the
rule of `pixels.checked`. All functions return arrays and can be jitted and vmapped.
"""

from collections import deque
from collections.abc import Iterable
from typing import NamedTuple

import dm_pix
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike
from jaxtyping import Float, Int

from invjax import identity
from invjax.images import pixels
from invjax.metrics import lpips
from invjax.types import PRNGKey, Scalar, ordinary_types

MOST_PAIRS = 10_000
"""Number of pairs of codes from which a set's `code_scale` is taken at most."""

_SSIM_WINDOW = 11
_SUM_LENGTH = 1024


class Likeness(NamedTuple):
    """How similar a picture and its original are; NaN where a metric is not defined.

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
    """Returns |code - target| / |target|; infinite for a target of norm zero.

    Args:
      code: code of the reconstruction, of any shape.
      target: code phi0 of the original, of the same shape.

    Examples:
      >>> float(relative_error(np.float32([3, 0]), np.float32([0, 4])))
      1.25
    """
    return normalised_error(code, target, _norm(_float32(target)))


def normalised_error(code: ArrayLike, target: ArrayLike, scale: ArrayLike) -> Scalar:
    """Returns |code - target| / N, the error of CVPR 2015, section 5.

    Args:
      code: code of the reconstruction, of any shape.
      target: code phi0 of the original, of the same shape.
      scale: N, the `code_scale` of a set of images. Zero gives infinity.

    Examples:
      >>> normalised_error(np.float32([3, 0]), np.float32([0, 4]), 10.0).item()
      0.5
    """
    scale = jnp.asarray(scale, jnp.float32)
    distance = _norm(_float32(code) - _float32(target))
    return jnp.where(scale == 0, jnp.inf, distance / scale)


class Drawn(NamedTuple):
    """Which codes of a set `code_scale` compares.

    Attributes:
      order: numbers of the codes, in the order in which they are to be passed.
      reach: how many codes before it each is compared with; None for all.
    """

    order: Int[np.ndarray, " n"]
    reach: int | None


def draw_pairs(key: PRNGKey, num_codes: int) -> Drawn:
    """Draws at most `MOST_PAIRS` pairs of codes, whose mean distance stands for all.

    A set of up to 141 codes has no more pairs, and all are taken, in order. Codes of a
    larger set are put in a random order, and each is compared with the few before it:
    as many as give at most `MOST_PAIRS`, which is one for a set of more than 5,001, of
    which 10,001 are taken at most. So every pair is as likely as any other, and the
    codes that are held at a time, fewer than 141, become fewer as the set grows.

    Args:
      key: random key from which the pairs are drawn.
      num_codes: number of codes of the set, or of those that may turn out to be codes:
        what is left out of `order` later, such as unreadable images, does no harm.

    Examples:
      >>> draw_pairs(jax.random.key(0), 3)
      Drawn(order=array([0, 1, 2]), reach=None)
      >>> drawn = draw_pairs(jax.random.key(0), 50_000)
      >>> len(drawn.order), drawn.reach
      (10001, 1)
    """
    key = identity.one_key(key)
    if num_codes * (num_codes - 1) // 2 <= MOST_PAIRS:
        return Drawn(np.arange(num_codes), None)
    with ordinary_types():
        order = np.asarray(jax.random.permutation(key, num_codes), np.int64)
    order = order[: MOST_PAIRS + 1]
    reach = 1
    while _num_pairs(len(order), reach + 1) <= MOST_PAIRS:
        reach += 1
    return Drawn(order, reach)


def code_scale(
    codes: Iterable[ArrayLike],
    *,
    reach: int | None = None,
) -> Scalar:
    """Returns N of the paper, the mean Euclidean distance between codes of images.

    Codes of different sizes (shallow representations at native size) are padded with
    zeros, as in the paper's released code.

    Args:
      codes: one code per image. Where `reach` is given, they are taken one by one and
        no more than `reach` are held.
      reach: how many codes before it each is compared with, as `draw_pairs` has it for
        large sets; None for all.

    Returns:
      Mean over these pairs; NaN for fewer than two codes.

    Examples:
      >>> code_scale([np.float32([0]), np.float32([1]), np.float32([3])]).item()
      2.0
      >>> code_scale(iter([np.float32([0]), np.float32([1]), np.float32([3])]), reach=1)
      Array(1.5, dtype=float32)
    """
    if reach is not None:
        return _mean_in_reach(codes, reach)
    flat = [jnp.ravel(_float32(code)) for code in codes]
    num = len(flat)
    if num < 2:
        return jnp.asarray(jnp.nan, jnp.float32)
    size = max(code.size for code in flat)
    rows = jnp.stack([jnp.pad(code, (0, size - code.size)) for code in flat])
    first, second = jnp.triu_indices(num, k=1)
    return _mean_distance(rows, first, second)


def psnr(image: ArrayLike, original: ArrayLike) -> Scalar:
    """Returns the peak signal-to-noise ratio in dB.

    Args:
      image: [h, w, c], clipped to [0, 1] here.
      original: [h, w, c] in [0, 1].

    Examples:
      >>> round(psnr(np.full((4, 4, 3), 0.6), np.full((4, 4, 3), 0.5)).item(), 3)
      20.0
    """
    return dm_pix.psnr(_clipped(image), _original(original))


def ssim(image: ArrayLike, original: ArrayLike) -> Scalar:
    """Returns the structural similarity (Wang et al. 2004), the mean over channels.

    The window is a Gaussian of 11 x 11 pixels.

    Args:
      image: [h, w, c], clipped to [0, 1] here.
      original: [h, w, c] in [0, 1].

    Returns:
      From -1 to 1, which means equal; NaN for images smaller than the window.
    """
    picture, truth = _clipped(image), _original(original)
    if min(np.shape(original)[:2]) < _SSIM_WINDOW:
        return jnp.asarray(jnp.nan, jnp.float32)
    with ordinary_types():
        return dm_pix.ssim(picture, truth)


def likeness(
    image: ArrayLike,
    original: ArrayLike,
    *,
    parameters: lpips.Parameters | None = None,
) -> Likeness:
    """Returns PSNR, SSIM, LPIPS and root mean square difference of a picture.

    Args:
      image: [h, w, c], clipped to [0, 1] here.
      original: [h, w, c] in [0, 1].
      parameters: weights of LPIPS, from `lpips.load`; without them LPIPS is NaN.
    """
    nan = jnp.asarray(jnp.nan, jnp.float32)
    return Likeness(
        psnr=psnr(image, original),
        ssim=ssim(image, original),
        lpips=nan if parameters is None else lpips_of(parameters, image, original),
        rms=jnp.sqrt(jnp.mean(jnp.square(_clipped(image) - _original(original)))),
    )


def lpips_of(
    parameters: lpips.Parameters,
    image: ArrayLike,
    original: ArrayLike,
) -> Scalar:
    """Returns `lpips.lpips` of a picture; grey images become RGB with equal channels.

    Args:
      parameters: weights of LPIPS, from `lpips.load`.
      image: [h, w, c], clipped to [0, 1] here.
      original: [h, w, c] in [0, 1].

    Returns:
      The distance; NaN where a side is below `lpips.SMALLEST_SIDE`, 31 px.
    """
    picture, truth = _clipped(image), _original(original)
    if min(np.shape(original)[:2]) < lpips.SMALLEST_SIDE:
        return jnp.asarray(jnp.nan, jnp.float32)
    return lpips.lpips(parameters, _rgb(picture), _rgb(truth))


@jax.jit
def _mean_distance(
    rows: Float[Array, "n d"], first: Array, second: Array
) -> Float[Array, ""]:
    def distance(pair: tuple[Array, Array]) -> Array:
        return _norm(rows[pair[0]] - rows[pair[1]])

    # Pair by pair: all differences at once would not fit into memory.
    return jnp.mean(jax.lax.map(distance, (first, second)))


def _num_pairs(num_codes: int, reach: int) -> int:
    """Number of pairs where each code is compared with `reach` before it."""
    reach = min(reach, num_codes - 1)
    return num_codes * reach - reach * (reach + 1) // 2


def _mean_in_reach(codes: Iterable[ArrayLike], reach: int) -> Scalar:
    # On the host: codes of many sizes would each compile a program of their own.
    held: deque[np.ndarray] = deque(maxlen=reach)
    total, num = 0.0, 0
    for code in codes:
        one = np.ravel(np.asarray(code, np.float32))
        for other in held:
            total += _distance(one, other)
            num += 1
        held.append(one)
    return jnp.asarray(total / num if num else np.nan, jnp.float32)


def _distance(one: np.ndarray, other: np.ndarray) -> float:
    """Distance of two rows, the shorter filled up with zeros, in double precision."""
    size = min(one.size, other.size)
    parts = [one[:size] - other[:size], one[size:], other[size:]]
    squares = [np.sum(np.square(part, dtype=np.float64)) for part in parts]
    return float(np.sqrt(np.sum(squares)))


def _norm(x: Array) -> Scalar:
    # In two stages: adding a million squares one after another in float32 loses digits.
    flat = jnp.ravel(x)
    rows = jnp.pad(flat, (0, -flat.size % _SUM_LENGTH)).reshape(-1, _SUM_LENGTH)
    return jnp.sqrt(jnp.sum(jnp.sum(jnp.square(rows), axis=1)))


def _rgb(image: Float[Array, "h w c"]) -> Float[Array, "h w 3"]:
    return jnp.broadcast_to(image, (*image.shape[:2], 3))


def _clipped(image: ArrayLike) -> Float[Array, "h w c"]:
    return jnp.clip(_float32(pixels.checked(image, values="clipped")), 0.0, 1.0)


def _original(image: ArrayLike) -> Float[Array, "h w c"]:
    return _float32(pixels.checked(image, name="original", values="unit"))


def _float32(values: ArrayLike) -> Array:
    return jnp.asarray(values, jnp.float32)
