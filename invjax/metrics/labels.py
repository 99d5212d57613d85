"""Whether a network calls a reconstruction what it calls the original (IJCV 2016).

The judge is a network's last layer: EfficientNet-Lite0's by default, which has no part
in most inversions; or that of the inverted network itself.
"""

import os
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from invjax import callables
from invjax.images import pixels
from invjax.networks import NETWORKS, class_names
from invjax.representations import representation
from invjax.representations.cnn import CnnRepresentation

DEFAULT_JUDGE = "efficientnet_lite0/logits"

_TOP = 5


class LabelAgreement(NamedTuple):
    """Means over pairs of reconstruction and original, in [0, 1]; NaN without pairs.

    Attributes:
      top1: share whose first class is the original's first.
      top5: mean share of the original's first five classes that are among the
        reconstruction's first five.
      in_top5: share that has the original's first class among its first five.
      pairs: how many pairs these are of.
    """

    top1: float
    top5: float
    in_top5: float
    pairs: int


class Judge(NamedTuple):
    """A classifier by name; `phi` returns its logits [n] for an RGB image."""

    name: str
    phi: CnnRepresentation


class Guess(NamedTuple):
    """A class and its probability (softmax of all logits)."""

    name: str
    probability: float


def label_agreement(logits: ArrayLike, original_logits: ArrayLike) -> LabelAgreement:
    """How often reconstructions are classified as their originals are.

    Equal logits are ranked by index. A reconstruction whose logits are not finite
    agrees with nothing.

    Args:
      logits: [p, n] of reconstructions.
      original_logits: [p, n], row by row of their originals.

    Raises:
      ValueError: shapes differ, fewer than five classes, or an original's logits are
        not finite.
    """
    rows, originals = (np.asarray(x, np.float64) for x in (logits, original_logits))
    if rows.ndim != 2 or rows.shape != originals.shape or rows.shape[1] < _TOP:
        raise ValueError(
            f"logits have shapes {rows.shape} and {originals.shape}; two [pairs, "
            f"classes] of one shape, at least {_TOP} classes, are accepted"
        )
    if not np.isfinite(originals).all():
        raise ValueError("an original's logits are not finite")
    if not len(rows):
        return LabelAgreement(float("nan"), float("nan"), float("nan"), 0)
    wanted, found = _first_five(originals), _first_five(rows)
    found[~np.isfinite(rows).all(1)] = -1
    shared = (wanted[:, :, None] == found[:, None, :]).any(2)
    return LabelAgreement(
        top1=float(np.mean(wanted[:, 0] == found[:, 0])),
        top5=float(np.mean(shared)),
        in_top5=float(np.mean(shared[:, 0])),
        pairs=len(rows),
    )


def load(
    *,
    name: str = DEFAULT_JUDGE,
    weights_dir: str | os.PathLike[str] | None = None,
) -> Judge:
    """A judge by the registry name of its logits.

    Raises:
      ValueError: the name is not a network's last layer.
      LookupError: its weights are nowhere; the message says which file and command.
    """
    if logits_of(name) != name:
        known = ", ".join(f"{n}/{t.layer_names[-1]}" for n, t in NETWORKS.items())
        raise ValueError(f"judge {name!r} returns no logits; accepted: {known}")
    phi = representation(name, weights_dir=weights_dir)
    assert isinstance(phi, CnnRepresentation)
    return Judge(name, phi)


def logits_of(name: str) -> str | None:
    """The logits of the network that a representation is a layer of, by name.

    "alexnet/fc8" for "alexnet/relu3"; None for what is no network's layer. Their
    weights need not be at hand: `load` says so.
    """
    network, _, layer = name.partition("/")
    if network not in NETWORKS or layer not in NETWORKS[network].layer_names:
        return None
    return f"{network}/{NETWORKS[network].layer_names[-1]}"


def logits(judge: Judge, pictures: Sequence[ArrayLike] | np.ndarray) -> np.ndarray:
    """What a judge says of pictures of any size, float32 [p, n].

    Each is judged as the 8-bit picture that would be written: clipped, quantised, its
    central square resized to the judge's input (`images.centre_crop`); grey ones as
    RGB with equal channels. One that is not finite has logits of NaN.

    Args:
      judge: from `load`.
      pictures: [h, w, 3] or [h, w, 1] each, in [0, 1].
    """
    side = judge.phi.image_shape[0]
    (num_classes,) = judge.phi.geometry.shape
    rows = np.full((len(pictures), num_classes), np.nan, np.float32)
    for row, picture in zip(rows, pictures, strict=True):
        picture = np.asarray(picture, np.float32)
        if np.isfinite(picture).all():
            prepared = pixels.centre_crop(picture, side)
            rgb = np.broadcast_to(prepared, (side, side, 3))
            row[:] = jax.device_get(callables.encode(judge.phi, rgb))
    return rows


def guesses(logits: ArrayLike, *, count: int = 5) -> list[Guess]:
    """The first classes of one row of ImageNet-1k logits, most probable first.

    Raises:
      ValueError: not 1000 logits.
    """
    row = jnp.asarray(logits)
    names = class_names.class_names()
    if row.shape != (len(names),):
        raise ValueError(
            f"logits have shape {row.shape}; one of {len(names)} classes is accepted"
        )
    odds = np.asarray(jax.nn.softmax(row))
    best = np.argsort(-odds, kind="stable")[:count]
    return [Guess(names[place], float(odds[place])) for place in best]


def _first_five(rows: np.ndarray) -> np.ndarray:
    return np.argsort(-rows, axis=1, kind="stable")[:, :_TOP]
