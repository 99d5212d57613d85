"""Splits the channels of a layer into those for form and those for colour.

The filters of the paper's CNN-A are in two groups, of which one responds to colour and
the other to form (CVPR 2015, Figure 10). Other networks have no such groups: here the
channels of any layer are split by how much they respond to chroma.
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
from invjax.representations import as_representation


class ChannelSplit(NamedTuple):
    """Two groups of channels, as ascending indices from 0.

    Attributes:
      form: channels that are less sensitive to chroma.
      colour: the other channels.
      sensitivity: `chroma_sensitivity` of each channel, [c].
    """

    form: np.ndarray
    colour: np.ndarray
    sensitivity: np.ndarray


def chroma_sensitivity(
    luminance_codes: Float[ArrayLike, "n h w c"],
    chroma_codes: Float[ArrayLike, "n h w c"],
) -> Float[Array, " c"]:
    """Returns how much of each channel's response is due to colour alone.

    This is E_chroma / (E_chroma + E_luminance). Each energy is the variance of the
    channel's response over the positions within an image, summed over the images.

    Args:
      luminance_codes: codes of `colour.luminance_only` of photographs.
      chroma_codes: codes of `colour.chroma_only` of the same photographs.

    Returns:
      In [0, 1]: 0 for a channel that does not respond to colour, 1 for a channel that
      responds to nothing else, and 0.5 for a channel that is constant.

    Examples:
      >>> response = np.arange(4.0).reshape(1, 2, 2, 1)
      >>> to_luminance, to_chroma = response * [1, 0, 1], response * [0, 1, 1]
      >>> chroma_sensitivity(to_luminance, to_chroma).tolist()
      [0.0, 1.0, 0.5]
    """
    energies = [
        jnp.var(jnp.asarray(codes, jnp.float32), axis=(1, 2)).sum(0)
        for codes in (luminance_codes, chroma_codes)
    ]
    total = energies[0] + energies[1]
    is_dead = total == 0
    return jnp.where(is_dead, 0.5, energies[1] / jnp.where(is_dead, 1, total))


def split(sensitivity: Float[ArrayLike, " c"]) -> ChannelSplit:
    """Splits channels into halves by their sensitivity.

    The groups have equal sizes, as in the paper; of an odd number of channels, `form`
    gets one less. Channels of equal sensitivity are ordered by index.

    Args:
      sensitivity: one number per channel.

    Raises:
      ValueError: there are fewer than two channels, or a number is not finite.

    Examples:
      >>> found = split(np.array([0.9, 0.1, 0.3, 0.7]))
      >>> found.form.tolist(), found.colour.tolist()
      ([1, 2], [0, 3])
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
    size = values.size // 2
    return ChannelSplit(np.sort(order[:size]), np.sort(order[size:]), values)


def find(phi: Any, photographs: Sequence[ArrayLike] | np.ndarray) -> ChannelSplit:
    """Splits a representation's channels by their response to photographs.

    Args:
      phi: representation with codes [h, w, c], or its name.
      photographs: images of one size in phi's range.

    Raises:
      ValueError: there are no photographs, codes are not [h, w, c], or there are fewer
        than two channels.
    """
    if not len(photographs):
        raise ValueError("no photographs; at least one is accepted")
    phi, codes = as_representation(phi), []
    for part in (luminance_only, chroma_only):
        found = jnp.stack([callables.encode(phi, part(image)) for image in photographs])
        if found.ndim != 4:
            raise ValueError(
                f"codes have shape {found.shape[1:]}; (rows, columns, channels) is "
                "accepted"
            )
        codes.append(found)
    return split(jax.device_get(chroma_sensitivity(*codes)))
