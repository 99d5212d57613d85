"""Diversity: how different the images of one code are, in maps and numbers.

Samples are [s, h, w, c] in [0, 1], reconstructions of one code from s starts. They are
clipped first, as when they are written to a file. A distance means little by itself;
`relative` divides it by the distances between unrelated images.
"""

import itertools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike
from jaxtyping import Float, Int, Shaped

from invjax import identity
from invjax.images import pixels
from invjax.metrics import errors
from invjax.metrics.lpips import Parameters
from invjax.types import Image, PRNGKey, Scalar

Samples = Shaped[ArrayLike, "s h w c"]

# Eigenvalues below these come from rounding in float32: a fraction of the largest one,
# and a mean squared difference per pixel, for samples that are all the same image.
_NEGLIGIBLE_FRACTION = 1e-6
_NEGLIGIBLE_SQUARE = 1e-12


class Maps(NamedTuple):
    """Mean and standard deviation (with divisor s - 1) over samples, [h, w, c] each."""

    mean: Image
    deviation: Image


class Distances(NamedTuple):
    """Distances between pairs of pictures, [p] each; NaN where one is not defined.

    Attributes:
      rms: root mean square difference of pixels, in units of the range [0, 1].
      dissimilarity: 1 - SSIM, with `errors.ssim`.
      lpips: distance of `errors.lpips_of`; NaN without parameters of LPIPS.
    """

    rms: Float[np.ndarray, " p"]
    dissimilarity: Float[np.ndarray, " p"]
    lpips: Float[np.ndarray, " p"]


class Relative(NamedTuple):
    """Mean distances over those between unrelated images; see `Distances`."""

    rms: Scalar
    dissimilarity: Scalar
    lpips: Scalar


class Components(NamedTuple):
    """Leading principal components of a set of samples.

    Attributes:
      mean: mean of the samples, [h, w, c].
      directions: orthonormal images [k, h, w, c]; the sign makes the entry with the
        largest absolute value positive.
      explained_variance_ratio: fraction of the total variance along each direction,
        [k], descending.
      scores: coordinates of the samples, [s, k]; mean + scores @ directions
        approximates the samples.
    """

    mean: Image
    directions: Float[Array, "k h w c"]
    explained_variance_ratio: Float[Array, " k"]
    scores: Float[Array, "s k"]


def maps(samples: Samples) -> Maps:
    """Returns the mean of the samples, and the deviations that show where they differ.

    Raises:
      ValueError: there are fewer than two samples.

    Examples:
      >>> black_and_white = np.stack([np.zeros((2, 2, 1)), np.ones((2, 2, 1))])
      >>> maps(black_and_white).mean[0, 0].item()
      0.5
    """
    pictures = _pictures(samples)
    return Maps(pictures.mean(0), jnp.std(pictures, axis=0, ddof=1))


def pairs(
    key: PRNGKey, num_samples: int, *, num_pairs: int | None = None
) -> Int[np.ndarray, "p 2"]:
    """Draws different pairs i < j of samples, without replacement.

    Args:
      key: random key; it matters only where not all pairs are taken.
      num_samples: s, at least 2.
      num_pairs: number of pairs. All s (s - 1) / 2 are taken if it is None or larger
        than that.

    Returns:
      Pairs in ascending order.

    Raises:
      ValueError: there are fewer than two samples, or `num_pairs` is below 1.

    Examples:
      >>> pairs(jax.random.key(0), 3).tolist()
      [[0, 1], [0, 2], [1, 2]]
    """
    if num_samples < 2:
        raise ValueError(f"num_samples is {num_samples}; at least 2 is accepted")
    everything = np.array(list(itertools.combinations(range(num_samples), 2)))
    if num_pairs is None or num_pairs >= len(everything):
        return everything
    if num_pairs < 1:
        raise ValueError(f"num_pairs is {num_pairs}; at least 1 is accepted")
    order = np.asarray(jax.random.permutation(identity.one_key(key), len(everything)))
    return everything[np.sort(order[:num_pairs])]


def pairwise(
    samples: Samples,
    chosen: Int[np.ndarray, "p 2"],
    *,
    parameters: Parameters | None = None,
) -> Distances:
    """Returns the distances between the two samples of each pair.

    The loop over pairs runs on the host around compiled functions: on CPU, XLA would
    run the convolutions of a compiled loop on one core.

    Args:
      samples: samples of one code; or unrelated images of one size, whose distances
        `relative` divides by.
      chosen: pairs drawn by `pairs`.
      parameters: weights of LPIPS, from `lpips.load`; None for no LPIPS.

    Raises:
      ValueError: there are fewer than two samples.

    Examples:
      >>> samples = np.stack([np.zeros((16, 16, 3)), np.ones((16, 16, 3))])
      >>> pairwise(samples, np.array([[0, 1]])).rms
      array([1.])
    """
    pictures = list(_pictures(samples))
    pairs_of_pictures = [(pictures[i], pictures[j]) for i, j in chosen.tolist()]
    return _distances(pairs_of_pictures, parameters)


def to_original(
    samples: Samples,
    original: ArrayLike,
    *,
    parameters: Parameters | None = None,
) -> Distances:
    """Returns the distance of each sample to the original, [s] each.

    The loop over samples runs on the host, as in `pairwise`. The nearest sample is
    `np.nanargmin` of one of the fields.

    Args:
      samples: at least one sample.
      original: image [h, w, c] in [0, 1].
      parameters: weights of LPIPS, from `lpips.load`; None for no LPIPS.

    Raises:
      ValueError: the samples are not of the original's shape.
    """
    pictures = _pictures(samples, fewest=1)
    pixels.checked(original, name="original", values="unit")
    truth = jnp.clip(jnp.asarray(original, jnp.float32), 0, 1)
    if pictures.shape[1:] != truth.shape:
        raise ValueError(
            f"samples of shape {pictures.shape} for an original of {truth.shape}; "
            "[samples, h, w, c] with the original's h, w, c is accepted"
        )
    return _distances([(picture, truth) for picture in pictures], parameters)


def relative(distances: Distances, unrelated: Distances) -> Relative:
    """Returns mean distances divided by mean distances between unrelated images.

    Args:
      distances: returned by `pairwise` or `to_original`.
      unrelated: returned by `pairwise` for different photographs of the same size.

    Returns:
      0 where all samples are the same image, 1 where they differ as much as photographs
      of different objects do; NaN where a distance is not defined.

    Examples:
      >>> near, far = np.full(3, 0.125), np.full(4, 0.5)
      >>> relative(Distances(near, near, near), Distances(far, far, far)).rms.item()
      0.25
    """
    ratios = [
        jnp.mean(jnp.asarray(found, jnp.float32))
        / jnp.mean(jnp.asarray(scale, jnp.float32))
        for found, scale in zip(distances, unrelated, strict=True)
    ]
    return Relative(*ratios)


def spectrum(samples: Samples) -> Float[np.ndarray, " s"]:
    """Returns the variances of the samples along their principal directions.

    These are the eigenvalues of the s x s Gram matrix of the samples minus their mean,
    divided by s - 1. They equal the nonzero eigenvalues of the covariance of pixels, of
    which there are at most s - 1, and add up to the sum over pixels and channels of
    the squared deviation of `maps`. Values below a millionth of the largest one, or
    below a root mean square of 1e-6 per pixel, are rounding errors and set to zero.

    Eigenvalues are computed on the host in float64: in float32 the small ones would be
    lost.

    Returns:
      float64 [s], descending.

    Raises:
      ValueError: there are fewer than two samples.
    """
    values, _ = _eigen(_centred(_pictures(samples)))
    return values / (len(values) - 1)


def effective_rank(variances: Float[ArrayLike, " s"]) -> Scalar:
    """Returns exp(entropy) of the normalised variances (Roy & Vetterli 2007).

    Args:
      variances: spectrum of the samples, not negative.

    Returns:
      k for k equal variances, 0 where all are zero. For s samples at most s - 1.

    Examples:
      >>> round(effective_rank(np.array([2.0, 2.0, 0.0])).item(), 5)
      2.0
    """
    fractions = _fractions(variances)
    # 0 log(0) counts as 0.
    logarithms = jnp.log(jnp.where(fractions > 0, fractions, 1))
    rank = jnp.exp(-jnp.sum(fractions * logarithms))
    return jnp.where(jnp.any(fractions > 0), rank, 0)


def participation_ratio(variances: Float[ArrayLike, " s"]) -> Scalar:
    """Returns (sum of the variances)^2 / (sum of their squares).

    Args:
      variances: spectrum of the samples, not negative.

    Returns:
      k for k equal variances, 0 where all are zero.

    Examples:
      >>> participation_ratio(np.array([2.0, 2.0, 0.0])).item()
      2.0
    """
    squares = jnp.sum(_fractions(variances) ** 2)
    return jnp.where(squares > 0, 1 / squares, 0)


def principal_components(samples: Samples, *, count: int = 3) -> Components:
    """Returns the directions in which samples vary most.

    They are computed from the eigenvectors of the samples' Gram matrix, on the host in
    float64 as in `spectrum`. Directions beyond the rank of the samples are zero.

    Args:
      samples: at least two samples.
      count: k, number of directions, 1 to s - 1.

    Raises:
      ValueError: there are fewer than two samples, or the count is not in its range.

    Examples:
      >>> rows = np.zeros((3, 2, 1, 1), np.float32)
      >>> rows[:, 0, 0, 0] = 0.25, 0.5, 0.75
      >>> found = principal_components(rows, count=1)
      >>> found.directions.shape, found.explained_variance_ratio.round(3).item()
      ((1, 2, 1, 1), 1.0)
    """
    pictures = _pictures(samples)
    if not 1 <= count < len(pictures):
        raise ValueError(
            f"count is {count}; 1 to {len(pictures) - 1} is accepted for "
            f"{len(pictures)} samples"
        )
    centred = _centred(pictures)
    values, vectors = _eigen(centred)
    roots = np.sqrt(values[:count])
    safe = np.where(roots > 0, roots, 1)
    weights = np.where(roots > 0, vectors[:, :count] / safe, 0)
    directions = jnp.matmul(
        jnp.asarray(weights.T, jnp.float32), centred, precision="highest"
    )
    largest = jnp.take_along_axis(
        directions, jnp.argmax(jnp.abs(directions), axis=1, keepdims=True), axis=1
    )
    signs = jnp.where(largest < 0, -1.0, 1.0)
    scores = jnp.asarray(vectors[:, :count] * roots, jnp.float32) * signs.T
    return Components(
        mean=pictures.mean(0),
        directions=(signs * directions).reshape(count, *pictures.shape[1:]),
        explained_variance_ratio=jnp.asarray(
            values[:count] / max(values.sum(), 1e-30), jnp.float32
        ),
        scores=scores,
    )


def _pictures(samples: Samples, *, fewest: int = 2) -> Float[Array, "s h w c"]:
    pixels.checked(samples, name="samples", values="clipped")
    pictures = jnp.clip(jnp.asarray(samples, jnp.float32), 0, 1)
    if pictures.ndim != 4 or len(pictures) < fewest:
        raise ValueError(
            f"samples of shape {pictures.shape}; [samples, h, w, c] with at least "
            f"{fewest} is accepted"
        )
    return pictures


def _centred(pictures: Float[Array, "s h w c"]) -> Float[Array, "s n"]:
    return (pictures - pictures.mean(0, keepdims=True)).reshape(len(pictures), -1)


def _eigen(centred: Float[Array, "s n"]) -> tuple[np.ndarray, np.ndarray]:
    """Eigenvalues of the Gram matrix, descending, and eigenvectors in columns."""
    gram = jnp.matmul(centred, centred.T, precision="highest")
    values, vectors = np.linalg.eigh(np.asarray(gram, np.float64))
    values, vectors = values[::-1], vectors[:, ::-1]
    floor = max(_NEGLIGIBLE_FRACTION * values[0], _NEGLIGIBLE_SQUARE * centred.shape[1])
    return np.where(values > floor, values, 0), vectors


def _fractions(variances: Float[ArrayLike, " s"]) -> Float[Array, " s"]:
    """Fractions of the sum; zeros where all variances are zero."""
    values = jnp.asarray(variances, jnp.float32)
    total = jnp.sum(values)
    return values / jnp.where(total > 0, total, 1)


def _distances(
    chosen: list[tuple[Image, Image]], parameters: Parameters | None
) -> Distances:
    return Distances(
        rms=np.array([float(_rms(*pair)) for pair in chosen]),
        dissimilarity=np.array([1 - float(_ssim(*pair)) for pair in chosen]),
        lpips=np.array(
            [
                float("nan") if parameters is None else float(_lpips(parameters, *pair))
                for pair in chosen
            ]
        ),
    )


_ssim, _lpips = jax.jit(errors.ssim), jax.jit(errors.lpips_of)


@jax.jit
def _rms(first: Image, second: Image) -> Scalar:
    return jnp.sqrt(jnp.mean((first - second) ** 2))
