"""Units of a layer that are to be maximised: named, placed and weighed.

A unit is a channel at the central place of a layer's response, or a value of a layer
without places, such as a class.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from invjax import callables
from invjax.metrics import labels
from invjax.networks import class_names, layers
from invjax.networks.receptive_fields import Window
from invjax.representations import masks
from invjax.representations.cnn import CnnRepresentation
from invjax.runs.errors import Refusal

PAPER_CLASSES = (
    "black swan",
    "goose",
    "tree frog",
    "cheeseburger",
    "coffee mug",
    "comic book",
    "vending machine",
)
"""The classes whose pictures the released code makes."""

FIRST_CHANNELS = tuple(str(number) for number in range(6))
"""Of a layer without names. The released code's mosaics have 25."""


class Unit(NamedTuple):
    """A channel and what it is called: its number, or the name of its class."""

    name: str
    channel: int


class Peak(NamedTuple):
    """Where photographs excite a unit most.

    Attributes:
      activation: there.
      image: name of the photograph.
      patch: what the unit sees of it, cut off at the border; [h, w, 3] in [0, 1].
    """

    activation: float
    image: str
    patch: np.ndarray


def parse(words: tuple[str, ...] | None, phi: CnnRepresentation) -> list[Unit]:
    """The units that --units names, of one layer.

    Args:
      words: channels from 0 and, for a classifier's last layer, names of classes; None
        for the first six channels or the paper's classes.
      phi: the layer.

    Raises:
      Refusal: there is no such unit, or one is named twice.
    """
    num_channels = phi.geometry.shape[-1]
    names = class_names.class_names() if is_classifier(phi) else ()
    if words is None:
        words = PAPER_CLASSES if names else FIRST_CHANNELS[:num_channels]
    units = []
    for word in words:
        # Where two classes share a name, the first one.
        channel = names.index(word) if word in names else _number(word)
        if not 0 <= channel < num_channels:
            accepted = f"numbers from 0 to {num_channels - 1}"
            if names:
                accepted += " and names of ImageNet's classes"
            raise Refusal(f"--units={word}: of {phi.name}, {accepted} are accepted")
        units.append(Unit(names[channel] if names else word.strip(), channel))
    if len({unit.channel for unit in units}) < len(units):
        raise Refusal(f"--units={','.join(words)}: a unit of {phi.name} is named twice")
    return units


def image_side(phi: CnnRepresentation) -> int:
    """Side of the picture of one unit, as of a cell of the released code's mosaics.

    The largest whose response has n x n places, n = 1.1 field / stride, at least 4,
    made odd; at most the network's own input, and that where there are no places.
    """
    own = phi.image_shape[0]
    geometry = phi.geometry
    if len(geometry.shape) != 3:
        return own
    places = max(round(1.1 * geometry.receptive_field / geometry.stride), 4)
    places += 1 - places % 2
    fitting = (
        side
        for side in range(own, 0, -1)
        if layers.geometry(phi.layers, (side, side, 3))[-1].shape[0] <= places
    )
    return next(fitting)


def place(code_shape: tuple[int, ...], channel: int) -> tuple[int, ...]:
    """Index of a unit in a code: the channel, at the central place if there is one."""
    if len(code_shape) == 1:
        return (channel,)
    centre = masks.central_window(code_shape, size=1)
    return (centre.top, centre.left, channel)


def direction(
    phi: CnnRepresentation, unit: Unit, side: int, largest: float
) -> np.ndarray:
    """w of activation maximisation: one-hot, 10,000 / field^2 / `largest`.

    The released code's weight (exp_maximization.m); it divides further by the number of
    filters that share a picture, here one, as it divides the regularisers by that of
    all pixels.
    """
    shape = callables.code_shape(phi, (side, side, 3))
    weights = np.zeros(shape, np.float32)
    weights[place(shape, unit.channel)] = (
        1e4 / phi.geometry.receptive_field**2 / largest
    )
    return weights


def peaks(phi: CnnRepresentation, photographs: Mapping[str, np.ndarray]) -> list[Peak]:
    """Where photographs excite each unit of a layer most, channel by channel.

    Args:
      phi: the layer.
      photographs: name -> [h, w, 3] as the network sees it; at least one.
    """
    codes = {
        name: np.asarray(callables.encode(phi, photograph))
        for name, photograph in photographs.items()
    }
    found = []
    for channel in range(phi.geometry.shape[-1]):
        best, largest = "", -np.inf
        for name, code in codes.items():
            if code[..., channel].max() > largest:
                best, largest = name, code[..., channel].max()
        response = codes[best][..., channel]
        at = np.unravel_index(np.argmax(response), response.shape)
        patch = _seen(phi, photographs[best], at)
        found.append(Peak(float(largest), best, patch))
    return found


def scale(found: Sequence[Peak], channel: int, *, has_places: bool) -> float:
    """What a unit's activation is measured in: its largest on photographs.

    A layer without places responds once to a photograph, so that few of them say little
    about one unit (a class that none of them shows): there, and for a unit that never
    is positive, it is the largest of the whole layer. The released code has a thousand
    photographs and needs no such rule.

    Raises:
      Refusal: no unit of the layer is positive on any photograph.
    """
    own = found[channel].activation
    if has_places and own > 0:
        return own
    largest = max(peak.activation for peak in found)
    if not largest > 0:
        raise Refusal("--images: they excite no unit of the layer; give photographs")
    return largest


def is_classifier(phi: CnnRepresentation) -> bool:
    """Whether a layer's units are the classes of ImageNet-1k."""
    is_last = labels.logits_of(phi.name) == phi.name
    return is_last and phi.geometry.shape == (len(class_names.class_names()),)


def _seen(
    phi: CnnRepresentation, photograph: np.ndarray, at: tuple[Any, ...]
) -> np.ndarray:
    """The part of a photograph that the unit at a place of the code sees."""
    if len(at) != 2:
        return photograph
    row, column = int(at[0]), int(at[1])
    window = Window(row, column, row, column)
    seen = phi.receptive_field(window=window, image_shape=photograph.shape).inside
    return photograph[seen.top : seen.bottom + 1, seen.left : seen.right + 1]


def _number(word: str) -> int:
    try:
        return int(word)
    except ValueError:
        return -1
