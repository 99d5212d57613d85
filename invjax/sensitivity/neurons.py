"""Neurons whose activation is to be maximised: their names, positions and weights.

A neuron is a channel at the central position of a layer [rows, columns, channels], or
one value of a layer [channels], such as the score of a class.
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

PAPER_CLASSES = (
    "black swan",
    "goose",
    "tree frog",
    "cheeseburger",
    "coffee mug",
    "comic book",
    "vending machine",
)
"""The classes for which the released code makes pictures."""

FIRST_CHANNELS = tuple(str(number) for number in range(6))
"""Channels taken by default. The released code's mosaics have the first 25."""


class Neuron(NamedTuple):
    """A neuron of a layer.

    Attributes:
      name: name of its class, or its channel as text.
      channel: index of its channel, from 0.
    """

    name: str
    channel: int


class Peak(NamedTuple):
    """The largest activation of a channel on photographs.

    Attributes:
      activation: the largest activation.
      image: name of the photograph.
      patch: receptive field of the neuron in the photograph, cut off at the border;
        [h, w, 3] in [0, 1].
    """

    activation: float
    image: str
    patch: np.ndarray


def parse(words: tuple[str, ...] | None, phi: CnnRepresentation) -> list[Neuron]:
    """Finds neurons of a layer by channel or by the name of their class.

    Args:
      words: channels from 0 and, for the last layer of a classifier, names of classes.
        None stands for the first six channels, or for the paper's classes.
      phi: the layer.

    Raises:
      ValueError: there is no such neuron, or one is named twice.
    """
    num_channels = phi.geometry.shape[-1]
    names = class_names.class_names() if is_classifier(phi) else ()
    if words is None:
        words = PAPER_CLASSES if names else FIRST_CHANNELS[:num_channels]
    neurons = []
    for word in words:
        # Two classes may have the same name; the first one is taken.
        channel = names.index(word) if word in names else _number(word)
        if not 0 <= channel < num_channels:
            accepted = f"numbers from 0 to {num_channels - 1}"
            if names:
                accepted += " and names of ImageNet's classes"
            raise ValueError(f"{word}: of {phi.name}, {accepted} are accepted")
        neurons.append(Neuron(names[channel] if names else word.strip(), channel))
    if len({neuron.channel for neuron in neurons}) < len(neurons):
        raise ValueError(f"{','.join(words)}: a neuron of {phi.name} is named twice")
    return neurons


def image_side(phi: CnnRepresentation) -> int:
    """Returns the side in pixels of the picture made for one neuron.

    As in the cells of the released code's mosaics, this is the largest side at which
    the layer has n x n positions, where n is 1.1 receptive field / stride, at least 4,
    rounded and made odd. It is at most the side of the network's input, and equal to it
    for a layer without positions.
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
    """Returns the index of a neuron in a code.

    Args:
      code_shape: (rows, columns, channels) or (channels,).
      channel: index of the channel.

    Examples:
      >>> place((13, 13, 256), 7), place((1000,), 7)
      ((6, 6, 7), (7,))
    """
    if len(code_shape) == 1:
        return (channel,)
    centre = masks.central_window(code_shape, size=1)
    return (centre.top, centre.left, channel)


def direction(
    phi: CnnRepresentation, neuron: Neuron, side: int, largest: float
) -> np.ndarray:
    """Returns the direction w whose product with the code is maximised.

    It is one-hot with the value 10,000 / field^2 / `largest`, the weight of the
    released code (exp_maximization.m). That code also divides by the number of filters
    that it puts into one picture, since it divides the regularisers by the number of
    all pixels; here each picture has one filter.

    Args:
      phi: the layer.
      neuron: the neuron to maximise.
      side: side of the picture in pixels.
      largest: activation in which activations are measured; see `scale`.

    Returns:
      float32, of the shape of the code.
    """
    shape = callables.code_shape(phi, (side, side, 3))
    weights = np.zeros(shape, np.float32)
    weight = 1e4 / phi.geometry.receptive_field**2 / largest
    weights[place(shape, neuron.channel)] = weight
    return weights


def peaks(phi: CnnRepresentation, photographs: Mapping[str, np.ndarray]) -> list[Peak]:
    """Finds the largest activation of each channel of a layer on photographs.

    Args:
      phi: the layer.
      photographs: {name: image}, at least one; images [h, w, 3] in [0, 1] have the size
        of the network's input.

    Returns:
      One peak per channel.
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
        patch = _receptive_patch(phi, photographs[best], at)
        found.append(Peak(float(largest), best, patch))
    return found


def scale(found: Sequence[Peak], channel: int, *, has_places: bool) -> float:
    """Returns the activation in which a neuron's activation is measured.

    It is the largest activation of its channel on photographs. A layer without
    positions has one activation per photograph, so that a few photographs say little
    about one neuron, such as a class that none of them shows. For such layers, and for
    a channel that is never positive, it is the largest activation of the whole layer.
    The released code has a thousand photographs and needs no such rule.

    Args:
      found: peaks of all channels, from `peaks`.
      channel: index of the channel.
      has_places: whether the layer is [rows, columns, channels].

    Raises:
      ValueError: no activation of the layer is positive on any photograph.

    Examples:
      >>> found = [Peak(2.0, "a", np.zeros((1, 1, 3))), Peak(-1.0, "b", np.zeros(3))]
      >>> scale(found, 0, has_places=True), scale(found, 1, has_places=True)
      (2.0, 2.0)
    """
    own = found[channel].activation
    if has_places and own > 0:
        return own
    largest = max(peak.activation for peak in found)
    if not largest > 0:
        raise ValueError("they excite no neuron of the layer; give photographs")
    return largest


def is_classifier(phi: CnnRepresentation) -> bool:
    """Returns whether the neurons of a layer are the classes of ImageNet-1k."""
    is_last = labels.logits_layer(phi.name) == phi.name
    return is_last and phi.geometry.shape == (len(class_names.class_names()),)


def _receptive_patch(
    phi: CnnRepresentation, photograph: np.ndarray, at: tuple[Any, ...]
) -> np.ndarray:
    """The pixels of a photograph on which a position of the code depends."""
    if len(at) != 2:
        return photograph
    row, column = int(at[0]), int(at[1])
    window = Window(row, column, row, column)
    field = phi.receptive_field(window=window, image_shape=photograph.shape).inside
    return photograph[field.top : field.bottom + 1, field.left : field.right + 1]


def _number(word: str) -> int:
    try:
        return int(word)
    except ValueError:
        return -1
