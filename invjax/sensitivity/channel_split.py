"""Two groups of channels where a network has none of its own (CVPR 2015, Figure 10).

The paper's CNN-A has two streams of filters, and one of them turned out to see colour,
the other form. Here the channels of any layer are split by what they respond to.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike
from jaxtyping import Float

from invjax import callables
from invjax.images.colour import chroma_only, luminance_only


class Streams(NamedTuple):
    """Two groups of channels, indices from 0 in ascending order.

    Attributes:
      form: those less sensitive to chroma.
      colour: the others.
      sensitivity: [c], what they were split by.
    """

    form: np.ndarray
    colour: np.ndarray
    sensitivity: np.ndarray


def chroma_sensitivity(
    luminance_codes: Float[ArrayLike, "n h w c"],
    chroma_codes: Float[ArrayLike, "n h w c"],
) -> Float[Array, " c"]:
    """Per channel, the share of its response that colour alone brings about.

    E_chroma / (E_chroma + E_luminance), each the variance of the channel's response
    within an image (over places), summed over the images.

    Args:
      luminance_codes: of the photographs' `colour.luminance_only`.
      chroma_codes: of their `colour.chroma_only`.

    Returns:
      In [0, 1]: 0 for a channel that colour does not touch, 1 for one that sees colour
      alone; 0.5 where neither moves it.
    """
    energies = [
        jnp.var(jnp.asarray(codes), axis=(1, 2)).sum(0)
        for codes in (luminance_codes, chroma_codes)
    ]
    total = energies[0] + energies[1]
    is_dead = total == 0
    return jnp.where(is_dead, 0.5, energies[1] / jnp.where(is_dead, 1, total))


def split(sensitivity: Float[ArrayLike, " c"], *, rule: str = "halves") -> Streams:
    """Two groups of channels by a number per channel; equal numbers by their index.

    Args:
      sensitivity: per channel.
      rule: "halves" makes groups of equal size, as the paper's are (of an odd count
        the first has one less); "gap" cuts where the variance within the two groups
        is least (k-means with k = 2 on a line, solved exactly): of sizes as they come.

    Raises:
      ValueError: fewer than two channels, a number that is not finite, an unknown
        rule.
    """
    values = np.asarray(sensitivity, np.float64)
    if values.ndim != 1 or values.size < 2:
        raise ValueError(
            f"sensitivity has shape {values.shape}; one number for each of at least "
            "two channels is accepted"
        )
    if not np.isfinite(values).all():
        raise ValueError("sensitivity is not finite in every channel")
    order = np.argsort(values, kind="stable")
    if rule == "halves":
        size = values.size // 2
    elif rule == "gap":
        size = _least_variance_cut(values[order])
    else:
        raise ValueError(f"unknown rule {rule!r}; 'halves' and 'gap' are accepted")
    return Streams(np.sort(order[:size]), np.sort(order[size:]), values)


def find(
    phi: Any, photographs: Sequence[ArrayLike] | np.ndarray, *, rule: str = "halves"
) -> Streams:
    """The two groups of a representation's channels, by their sensitivity to chroma.

    Args:
      phi: with codes [h, w, c].
      photographs: as phi takes them, all of one size.
      rule: as of `split`.

    Raises:
      ValueError: no photographs, or codes without places; as `split`.
    """
    if not len(photographs):
        raise ValueError("no photographs; at least one is accepted")
    codes = []
    for part in (luminance_only, chroma_only):
        found = jnp.stack([callables.encode(phi, part(image)) for image in photographs])
        if found.ndim != 4:
            raise ValueError(
                f"codes have shape {found.shape[1:]}; (rows, columns, channels) is "
                "accepted"
            )
        codes.append(found)
    return split(jax.device_get(chroma_sensitivity(*codes)), rule=rule)


def _least_variance_cut(ordered: np.ndarray) -> int:
    """How many of the ascending numbers belong to the lower of two clusters."""
    count = np.arange(1, ordered.size)
    below = np.cumsum(ordered)[:-1]
    above = ordered.sum() - below
    # Least variance within the groups is most variance between their means.
    between = below**2 / count + above**2 / (ordered.size - count)
    return int(count[np.argmax(between)])
