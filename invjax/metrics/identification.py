"""Identification: which of many photographs a reconstruction shows.

Relative errors and distances of pixels do not tell whether a person recognises a
picture. Brain decoding asks instead whether, among many candidates, the original is the
one whose features correlate best with the reconstruction's (Shen et al. 2019 and
others). The features are those of a network that took no part in the inversion,
averaged over places, so that a shift costs nothing.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike
from jaxtyping import Float, Float32, Int

from invjax.callables import TracedCallable
from invjax.images import pixels
from invjax.types import Image, Representation

JUDGES = ("vgg16/relu5_3", "alexnet/relu5")
"""Layers whose features tell photographs apart; the first of another network than the
inverted one is taken by default."""


class Identification(NamedTuple):
    """How reconstructions are ranked among the candidates.

    Attributes:
      rank: number of other candidates that correlate better with the reconstruction
        than its original does; 0 where it is identified.
      percentile: fraction of the other candidates that correlate less than the
        original does, a tie counting as half; 1 where it is identified, 0.5 by chance.
    """

    rank: Int[np.ndarray, " n"]
    percentile: Float[np.ndarray, " n"]


def judge(network: str) -> str:
    """The layer of `JUDGES` that judges inversions of a network.

    Args:
      network: name of the inverted network, or of a shallow representation.

    Examples:
      >>> judge("efficientnet_lite0"), judge("vgg16")
      ('vgg16/relu5_3', 'alexnet/relu5')
    """
    return judges(network)[0]


def judges(network: str) -> tuple[str, ...]:
    """The layers of `JUDGES` of networks other than the inverted one, in order.

    Args:
      network: as for `judge`.
    """
    return tuple(name for name in JUDGES if name.partition("/")[0] != network)


def features(
    phi: Representation, images: Sequence[ArrayLike]
) -> Float32[np.ndarray, "n d"]:
    """The code of each image, averaged over places.

    Args:
      phi: the judge's layer; its codes are [h, w, d] or [d].
      images: [h, w, 3] in [0, 1] each; values out of range are clipped, as in pictures.

    Raises:
      ImageError: as `pixels.checked`; the images are clipped.
    """
    traced = TracedCallable.of(phi)
    rows = []
    for image in images:
        clipped = np.clip(pixels.checked(np.asarray(image), values="clipped"), 0, 1)
        rows.append(_features(traced, jnp.asarray(clipped, jnp.float32)))
    return np.stack(jax.device_get(rows))


def identify(
    reconstructions: Float[np.ndarray, "n d"],
    candidates: Float[np.ndarray, "m d"],
    originals: Int[np.ndarray, " n"],
    *,
    centred: bool = False,
) -> Identification:
    """Ranks the original of each reconstruction among the candidates.

    Args:
      reconstructions: features of the reconstructions.
      candidates: features of the candidates, the originals among them.
      originals: the number of each reconstruction's original among the candidates.
      centred: whether the mean of the reconstructions' features is subtracted from
        them, and that of the candidates from theirs. What all reconstructions have in
        common, such as their colours, then plays no part. It takes reconstructions of
        several images.

    Raises:
      ValueError: there are fewer than two candidates, or `centred` is asked for fewer
        than two originals.

    Examples:
      >>> candidates = np.eye(3)
      >>> identify(candidates[:2] + 0.1, candidates, np.array([0, 2]))
      Identification(rank=array([0, 1]), percentile=array([1.  , 0.25]))
    """
    if len(candidates) < 2:
        raise ValueError(f"{len(candidates)} candidates; at least two are accepted")
    if centred:
        if len(np.unique(originals)) < 2:
            raise ValueError(
                "centred takes reconstructions of at least two images, not of one"
            )
        reconstructions = reconstructions - np.mean(reconstructions, axis=0)
        candidates = candidates - np.mean(candidates, axis=0)
    found = _correlations(reconstructions, candidates)
    own = np.take_along_axis(found, np.asarray(originals)[:, None], axis=1)
    better = np.sum(found > own, axis=1)
    # The original ties with itself.
    ties = np.sum(found == own, axis=1) - 1
    others = found.shape[1] - 1
    return Identification(rank=better, percentile=1 - (better + 0.5 * ties) / others)


def _correlations(
    rows: Float[np.ndarray, "n d"], columns: Float[np.ndarray, "m d"]
) -> Float[np.ndarray, "n m"]:
    """Pearson's correlation of every row of one with every row of the other.

    A row without variation correlates with nothing.
    """

    def normed(values: np.ndarray) -> np.ndarray:
        wide = np.asarray(values, np.float64)
        wide = wide - wide.mean(axis=1, keepdims=True)
        norm = np.linalg.norm(wide, axis=1, keepdims=True)
        return np.divide(wide, norm, out=np.zeros_like(wide), where=norm > 0)

    return normed(rows) @ normed(columns).T


@jax.jit
def _features(phi: TracedCallable, image: Image) -> Array:
    code = phi(image)
    return jnp.mean(code, axis=tuple(range(code.ndim - 1)))
