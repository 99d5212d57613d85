"""How different the images of one code are: a set of samples as maps and numbers.

Samples are [s, h, w, c] in [0, 1], reconstructions of one code from s starts; they are
clipped first, as a picture would be. A distance means little by itself: `relative`
holds it against the distances between unrelated images.
"""

import itertools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike
from jaxtyping import Float, Int

from invjax.metrics import errors
from invjax.metrics.lpips import Parameters
from invjax.types import Image, PRNGKey, Scalar

Samples = Float[ArrayLike, "s h w c"]

# What float32's rounding can leave in a spectrum: a share of the greatest eigenvalue,
# and, where all samples are one image, squared differences per pixel.
_NEGLIGIBLE_SHARE = 1e-6
_NEGLIGIBLE_SQUARE = 1e-12


class Maps(NamedTuple):
    """Mean and standard deviation (divisor s - 1) over samples, [h, w, c] each."""

    mean: Image
    deviation: Image


class Distances(NamedTuple):
    """Distances between pairs of pictures, [p] each; NaN where one is not defined.

    Attributes:
      rms: root of the mean squared difference of pixels.
      dissimilarity: 1 - SSIM, as `metrics.ssim`.
      lpips: as `metrics.lpips`; NaN without its parameters.
    """

    rms: np.ndarray
    dissimilarity: np.ndarray
    lpips: np.ndarray


class Relative(NamedTuple):
    """Mean distance over the mean distance of unrelated images; see `Distances`."""

    rms: float
    dissimilarity: float
    lpips: float


class Components(NamedTuple):
    """Leading principal components of a set of samples.

    Attributes:
      mean: [h, w, c].
      directions: [k, h, w, c], orthonormal; the entry of greatest size is positive.
      shares: [k] of the total variance, descending.
      scores: [s, k], coordinates of the samples: mean + scores @ directions.
    """

    mean: Image
    directions: Float[Array, "k h w c"]
    shares: Float[Array, " k"]
    scores: Float[Array, "s k"]


def maps(samples: Samples) -> Maps:
    """What the samples have in common, and where they differ.

    Raises:
      ValueError: fewer than two samples.
    """
    pictures = _pictures(samples)
    return Maps(pictures.mean(0), jnp.std(pictures, axis=0, ddof=1))


def pairs(
    key: PRNGKey, num_samples: int, *, num_pairs: int | None = None
) -> Int[np.ndarray, "p 2"]:
    """Pairs i < j of samples, ascending.

    Args:
      key: chooses the pairs if not all are taken.
      num_samples: at least 2.
      num_pairs: how many different pairs, without replacement; None or more than there
        are: all s (s - 1) / 2.

    Raises:
      ValueError: fewer than two samples, or less than one pair asked for.
    """
    if num_samples < 2:
        raise ValueError(f"num_samples is {num_samples}; at least 2 is accepted")
    everything = np.array(list(itertools.combinations(range(num_samples), 2)))
    if num_pairs is None or num_pairs >= len(everything):
        return everything
    if num_pairs < 1:
        raise ValueError(f"num_pairs is {num_pairs}; at least 1 is accepted")
    order = np.asarray(jax.random.permutation(key, len(everything)))
    return everything[np.sort(order[:num_pairs])]


def pairwise(
    samples: Samples,
    chosen: Int[np.ndarray, "p 2"],
    *,
    judge: Parameters | None = None,
) -> Distances:
    """Distances between samples of chosen pairs; of photographs, the null distribution.

    Args:
      samples: or unrelated images of one size, for `relative`.
      chosen: from `pairs`.
      judge: from `lpips.load`; without it there is no LPIPS.
    """
    pictures = list(_pictures(samples))
    return _distances([(pictures[i], pictures[j]) for i, j in chosen.tolist()], judge)


def to_original(
    samples: Samples,
    original: ArrayLike,
    *,
    judge: Parameters | None = None,
) -> Distances:
    """Distance of every sample to the original, [s]; arguments as of `pairwise`.

    The nearest sample is `np.nanargmin` of one of the fields.
    """
    pictures = _pictures(samples, fewest=1)
    truth = jnp.clip(jnp.asarray(original, jnp.float32), 0, 1)
    if pictures.shape[1:] != truth.shape:
        raise ValueError(
            f"samples of shape {pictures.shape} for an original of {truth.shape}; "
            "[samples, *original's] is accepted"
        )
    return _distances([(picture, truth) for picture in pictures], judge)


def relative(distances: Distances, unrelated: Distances) -> Relative:
    """Mean distances in units of that between unrelated images.

    0: all samples are one image; 1: they are as different as photographs of different
    things.

    Args:
      distances: from `pairwise` or `to_original`.
      unrelated: from `pairwise` of photographs, prepared alike.
    """
    return Relative(
        *(
            float(np.mean(found) / np.mean(unit))
            for found, unit in zip(distances, unrelated, strict=True)
        )
    )


def rank_among(distances: Distances, unrelated: Distances) -> Relative:
    """Share of the unrelated pairs that are nearer than the samples' mean distance.

    0 where the samples are nearer to each other than any two of the photographs.
    """
    shares = []
    for found, null in zip(distances, unrelated, strict=True):
        is_defined = np.isfinite(found).all() and np.isfinite(null).all()
        share = float(np.mean(null < np.mean(found))) if is_defined else float("nan")
        shares.append(share)
    return Relative(*shares)


def spectrum(samples: Samples) -> Float[np.ndarray, " s"]:
    """Variances along the principal directions of a set, descending.

    The eigenvalues of the s x s Gram matrix of the samples less their mean, over s - 1:
    those of the covariance of pixels that are not zero (s - 1 of them at most), whose
    sum is the sum over pixels and channels of `maps` deviation squared. What is under
    a millionth of the greatest, or of a root mean square of 1e-6 per pixel, is rounding
    and set to zero.

    Raises:
      ValueError: fewer than two samples.
    """
    values, _ = _eigen(_centred(_pictures(samples)))
    return values / (len(values) - 1)


def effective_rank(variances: Float[ArrayLike, " s"]) -> float:
    """exp of the entropy of the normalised spectrum (Roy & Vetterli 2007).

    k for k equal variances; 0 where there is none. A set of s samples has s - 1 at
    most.
    """
    values = np.asarray(variances, np.float64)
    shares = values[values > 0] / max(values.sum(), np.finfo(np.float64).tiny)
    return float(np.exp(-np.sum(shares * np.log(shares)))) if shares.size else 0.0


def participation_ratio(variances: Float[ArrayLike, " s"]) -> float:
    """(sum of the spectrum)^2 / sum of its squares; k for k equal ones, 0 for none."""
    values = np.asarray(variances, np.float64)
    total = values.sum()
    return float(total**2 / np.sum(values**2)) if total > 0 else 0.0


def principal_components(samples: Samples, *, count: int = 3) -> Components:
    """The directions in which a set of samples varies most, via its Gram matrix.

    Directions beyond the rank of the set are zeros.

    Raises:
      ValueError: fewer than two samples, or a count not from 1 to s - 1.
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
        shares=jnp.asarray(values[:count] / max(values.sum(), 1e-30), jnp.float32),
        scores=scores,
    )


def _pictures(samples: Samples, *, fewest: int = 2) -> Float[Array, "s h w c"]:
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
    """Eigenvalues, descending, and vectors in columns, of the samples' Gram matrix."""
    gram = jnp.matmul(centred, centred.T, precision="highest")
    values, vectors = np.linalg.eigh(np.asarray(gram, np.float64))
    values, vectors = values[::-1], vectors[:, ::-1]
    floor = max(_NEGLIGIBLE_SHARE * values[0], _NEGLIGIBLE_SQUARE * centred.shape[1])
    return np.where(values > floor, values, 0), vectors


def _distances(
    chosen: list[tuple[Image, Image]], judge: Parameters | None
) -> Distances:
    return Distances(
        rms=np.array([float(_rms(*pair)) for pair in chosen]),
        dissimilarity=np.array([1 - float(_ssim(*pair)) for pair in chosen]),
        lpips=np.array(
            [
                float("nan") if judge is None else float(_lpips(judge, *pair))
                for pair in chosen
            ]
        ),
    )


# Pair by pair: on CPU XLA runs the convolutions of a compiled loop on one core.
_ssim, _lpips = jax.jit(errors.ssim), jax.jit(errors.lpips_of)


@jax.jit
def _rms(first: Image, second: Image) -> Scalar:
    return jnp.sqrt(jnp.mean((first - second) ** 2))
