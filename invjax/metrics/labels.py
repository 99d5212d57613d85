"""Labels: what a classifier calls an image, and whether it calls another the same.

IJCV 2016 asks whether a network classifies a reconstruction as it classifies the
original. The classifier here is the last layer of a network. An inversion aims at the
code in the inverted network, so that the label that this network gives says little:
another one should judge. By default it is EfficientNet-Lite0, and EfficientNet-Lite1
where Lite0 itself is inverted. They are similar networks, trained alike.
"""

import os
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike
from jaxtyping import Float, Int

from invjax import callables
from invjax.images import pixels
from invjax.networks import NETWORKS, class_names
from invjax.networks.layers import geometry
from invjax.representations import representation
from invjax.representations.cnn import CnnRepresentation
from invjax.types import Scalar

JUDGES = ("efficientnet_lite0/logits", "efficientnet_lite1/logits")
"""Classifiers of pictures; the first of another network than the inverted one is taken
by default."""

_TOP = 5


class LabelAgreement(NamedTuple):
    """Means over pairs of reconstruction and original, in [0, 1]; NaN without pairs.

    Attributes:
      top1: fraction of pairs with the same first class.
      top5: mean fraction of the original's first five classes that are among the
        reconstruction's first five.
      in_top5: fraction of pairs in which the original's first class is among the
        reconstruction's first five.
      pairs: number of pairs.
    """

    top1: Scalar
    top5: Scalar
    in_top5: Scalar
    pairs: int


class Classifier(NamedTuple):
    """The last layer of a network.

    Attributes:
      name: name of the representation, such as "alexnet/fc8".
      phi: returns the logits [n] of an RGB image.
    """

    name: str
    phi: CnnRepresentation


class Guess(NamedTuple):
    """A class and its probability, which is the softmax over all logits."""

    name: str
    probability: float


def label_agreement(logits: ArrayLike, original_logits: ArrayLike) -> LabelAgreement:
    """Compares the classes of reconstructions with those of their originals.

    Equal logits are ranked by index. A reconstruction whose logits are not finite
    agrees with nothing. The function can be jitted.

    Args:
      logits: [p, n], logits of reconstructions.
      original_logits: [p, n], logits of the original of each row.

    Raises:
      ValueError: shapes differ, there are fewer than five classes, or an original's
        logits are not finite (which is not checked while tracing).

    Examples:
      >>> original = np.arange(8.0)[None]
      >>> label_agreement(original[:, ::-1], original).top5.item()
      0.4000000059604645
    """
    rows, originals = (jnp.asarray(x, jnp.float32) for x in (logits, original_logits))
    if rows.ndim != 2 or rows.shape != originals.shape or rows.shape[1] < _TOP:
        raise ValueError(
            f"logits have shapes {rows.shape} and {originals.shape}; two [pairs, "
            f"classes] of one shape, at least {_TOP} classes, are accepted"
        )
    if not isinstance(originals, jax.core.Tracer) and not np.isfinite(originals).all():
        raise ValueError("an original's logits are not finite")
    is_finite = jnp.all(jnp.isfinite(rows), axis=1, keepdims=True)
    wanted, found = _first_five(originals), _first_five(rows)
    found = jnp.where(is_finite, found, -1)
    agrees = jnp.any(wanted[:, :, None] == found[:, None, :], axis=2)
    return LabelAgreement(
        top1=jnp.mean(wanted[:, 0] == found[:, 0]),
        top5=jnp.mean(agrees),
        in_top5=jnp.mean(agrees[:, 0]),
        pairs=len(rows),
    )


def judge(network: str) -> str:
    """The classifier of `JUDGES` that names the inversions of a network.

    Args:
      network: name of the inverted network, or of a shallow representation.

    Examples:
      >>> judge("alexnet"), judge("efficientnet_lite0")
      ('efficientnet_lite0/logits', 'efficientnet_lite1/logits')
    """
    return next(name for name in JUDGES if name.partition("/")[0] != network)


def load(
    *,
    name: str = JUDGES[0],
    weights_dir: str | os.PathLike[str] | None = None,
) -> Classifier:
    """Loads a classifier by the registry name of its logits.

    Args:
      name: NETWORK/LAYER with the network's last layer.
      weights_dir: folder of converted weights, as in `invjax.representation`.

    Raises:
      ValueError: the name is not that of a network's last layer.
      LookupError: the weights are not found; the message says which file is needed and
        which command fetches it.
    """
    if logits_layer(name) != name:
        every = (logits_layer(f"{n}/{t.layer_names[-1]}") for n, t in NETWORKS.items())
        known = ", ".join(filter(None, every))
        raise ValueError(f"{name}: it returns no logits; accepted: {known}")
    phi = representation(name, weights_dir=weights_dir)
    assert isinstance(phi, CnnRepresentation)
    return Classifier(name, phi)


def logits_layer(name: str) -> str | None:
    """Returns the name of the last layer of the network that a representation cuts.

    Args:
      name: name of any representation.

    Returns:
      NETWORK/LAYER, or None for what is not a layer of a network, and for a network
      that does not end with the thousand classes. The weights of that layer may be
      missing; `load` refuses it then.

    Examples:
      >>> logits_layer("alexnet/relu3")
      'alexnet/fc8'
      >>> logits_layer("hog") is None, logits_layer("clip_vit_b32/pooled") is None
      (True, True)
    """
    network, _, layer = name.partition("/")
    if network not in NETWORKS or layer not in NETWORKS[network].layer_names:
        return None
    table = NETWORKS[network]
    last = geometry(table.layers, table.image_shape)[-1]
    is_classifier = last.shape == (len(class_names.class_names()),)
    return f"{network}/{last.name}" if is_classifier else None


def logits(
    classifier: Classifier, pictures: Sequence[ArrayLike] | np.ndarray
) -> Float[np.ndarray, "p n"]:
    """Returns a classifier's logits for pictures of any sizes.

    A picture is classified as it would be written to a file: clipped, rounded to 8
    bits, and its central square resized to the classifier's input
    (`pixels.centre_crop`). Grey pictures become RGB with equal channels. The loop over
    pictures runs on the host, since their sizes may differ and Pillow resizes them.

    Args:
      classifier: returned by `load`.
      pictures: [h, w, 3] or [h, w, 1] each, in [0, 1].

    Returns:
      float32 [p, n].

    Raises:
      ImageError: a picture is of integers, is not finite or has 8-bit levels; see
        `pixels.checked`.
    """
    side = classifier.phi.image_shape[0]
    (num_classes,) = classifier.phi.geometry.shape
    rows = np.empty((len(pictures), num_classes), np.float32)
    for row, picture in zip(rows, pictures, strict=True):
        prepared = pixels.centre_crop(np.asarray(picture), side)
        rgb = np.broadcast_to(prepared, (side, side, 3))
        row[:] = jax.device_get(callables.encode(classifier.phi, rgb))
    return rows


def guesses(logits: ArrayLike, *, count: int = 5) -> list[Guess]:
    """Returns the most probable classes of ImageNet-1k, the most probable one first.

    The result is a list on the host, since class names are strings.

    Args:
      logits: [1000], logits of one image.
      count: number of classes.

    Raises:
      ValueError: there are not 1000 logits.

    Examples:
      >>> guesses(np.eye(1000)[285] * 20, count=1)[0].name
      'Egyptian cat'
    """
    row = jnp.asarray(logits, jnp.float32)
    names = class_names.class_names()
    if row.shape != (len(names),):
        raise ValueError(
            f"logits have shape {row.shape}; one of {len(names)} classes is accepted"
        )
    odds = np.asarray(jax.nn.softmax(row))
    best = np.argsort(-odds, kind="stable")[:count]
    return [Guess(names[place], float(odds[place])) for place in best]


def _first_five(rows: Float[Array, "p n"]) -> Int[Array, "p 5"]:
    return jnp.argsort(-rows, axis=1, stable=True)[:, :_TOP]
