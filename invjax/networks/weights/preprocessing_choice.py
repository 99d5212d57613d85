"""Which preprocessing belongs to weights, where their file does not say.

It is never taken from a file's name. It comes from the user's flags, else from the
first layer if that is one of those in sources.toml (also after fine-tuning), else it is
an assumption, which the caller prints.

Weights for one scale of pixel values run with any other, and give nonsense. Kernels
that were trained on unit-variance input have filters with a norm of 1 to 2, and the
same network for pixel values from 0 to 255 has them 57 times smaller. So small filters
contradict a standard deviation of 57, and are refused. The reverse does not hold: the
filters of Caffe's VGGs, trained on pixel values, have a norm of about 1. They are known
by their values.
"""

import os
from typing import Literal, NamedTuple, TypeAlias

import numpy as np

from invjax.networks.layers import Network
from invjax.networks.weights.conversion import Params
from invjax.networks.weights.formats import Reading
from invjax.networks.weights.forward_check import WrongWeights
from invjax.networks.weights.preprocessing import Preprocessing
from invjax.networks.weights.sources import first_layers, published_files

ChannelOrder: TypeAlias = Literal["RGB", "BGR"]
"""Order of the channels of the images that weights expect."""

# Smallest median norm of the filters of a first layer for input of unit variance. It is
# 1.0 for torchvision's VGG-16, 2.0 for its AlexNet and 1.9 for EfficientNet-Lite0, and
# 0.3 to 0.6 for usual random weights; for pixel values 0.018 and 0.035 were found.
_UNIT_NORM = 0.045

# Largest difference to the numbers of a known first layer, relative to their norm.
# Fine-tuning changes a first layer by a few percent; other networks, and the other
# channels of the same filter, differ by more than this.
_SAME = 0.1

_FLAGS = (
    "--mean, --std and --channel_order (as --mean=123.68,116.779,103.939 --std=1 for "
    "RGB images of pixel values 0..255)"
)


class Given(NamedTuple):
    """What the user says about preprocessing.

    Attributes:
      mean: grey levels, 0 to 255, per channel, R first; None if not said.
      std: standard deviation in grey levels per channel, R first; None if not said.
      channel_order: order that the weights in the file expect; None if not said.
    """

    mean: tuple[float, float, float] | None = None
    std: tuple[float, float, float] | None = None
    channel_order: ChannelOrder | None = None


class Choice(NamedTuple):
    """A preprocessing and the weights that belong to it.

    Attributes:
      params: the parameters, for RGB images.
      preprocessing: the preprocessing.
      channel_order: order that the weights in the file expected.
      origin: where the preprocessing is from, in words, as "the flags".
      is_certain: whether the file or the user says it.
    """

    params: Params
    preprocessing: Preprocessing
    channel_order: ChannelOrder
    origin: str
    is_certain: bool

    def say(self) -> str:
        """The preprocessing and where it is from, in one line."""
        mean, std = (
            ", ".join(f"{value:g}" for value in values)
            for values in (self.preprocessing.mean_colour, self.preprocessing.std)
        )
        return (
            f"{self.origin}: weights for {self.channel_order} images; R, G, B have "
            f"mean {mean} and standard deviation {std} of pixel values 0..255"
        )


def choose(
    network: Network,
    reading: Reading,
    given: Given,
    path: str | os.PathLike[str],
    *,
    is_published: bool = False,
) -> Choice:
    """The preprocessing of the weights in a file, and the weights for RGB images.

    Args:
      network: the layer table.
      reading: the file's contents.
      given: what the user says, which counts where the file says nothing.
      path: the file, for messages.
      is_published: whether it is the published file of sources.toml, by its digest.

    Raises:
      forward_check.WrongWeights: the user contradicts the file, or nothing says how
        images are preprocessed, or the weights contradict what would be assumed; the
        message names the flags.
    """
    if reading.told is not None and given.mean is not None:
        raise WrongWeights(
            f"{path}: the file has its own mean; --mean and --std are for files that "
            "do not"
        )
    says_something = reading.told or reading.documented
    known = None if says_something else recognise(network, reading.params)
    if reading.told is not None:
        preprocessing, origin, is_certain = reading.told, "as the file says", True
        order = reading.channels
    elif given.mean is not None:
        std = given.std or (1.0, 1.0, 1.0)
        preprocessing, origin, is_certain = (
            Preprocessing(given.mean, std),
            "given",
            True,
        )
        order = reading.channels
        if known is not None and known.channels != (given.channel_order or order):
            raise WrongWeights(
                f"{path}: its first layer is that of {known.origin}, for "
                f"{known.channels} images; give --channel_order={known.channels}, and "
                f"--mean and --std in this order"
            )
    elif known is not None and not is_published:
        preprocessing, is_certain = known.preprocessing, False
        origin, order = f"by its first layer, {known.origin}", known.channels
    elif reading.documented is not None:
        preprocessing, is_certain = reading.documented, False
        origin, order = "assumed as the model's publishers say", reading.channels
    else:
        published = published_files()[network.name]
        if published.preprocessing is None:
            raise WrongWeights(
                f"{path}: the file does not say how images are preprocessed; give "
                f"{_FLAGS}"
            )
        preprocessing, is_certain = published.preprocessing, is_published
        how = "published with" if is_published else "assumed as for"
        origin, order = f"{how} {published.origin}", reading.channels
        norm = _filter_norm(network, reading.params)
        if norm < _UNIT_NORM and not is_published:
            raise WrongWeights(
                f"{path}: its first layer has filters of norm {norm:.2g}, as networks "
                "for pixel values 0..255 without a division have; say which "
                f"preprocessing it needs with {_FLAGS}"
            )
    wanted = given.channel_order or order
    params = reading.params
    if wanted != reading.channels:
        params = _swapped(network, params)
    return Choice(params, preprocessing, wanted, origin, is_certain)


class Recognised(NamedTuple):
    """A first layer that is known.

    Attributes:
      origin: whose it is.
      preprocessing: the preprocessing that belongs to it.
      channels: channel order of the images that it expects in this file.
    """

    origin: str
    preprocessing: Preprocessing
    channels: ChannelOrder


def recognise(network: Network, params: Params) -> Recognised | None:
    """The known network that a file's first layer is from; None for an unknown one.

    Args:
      network: the layer table.
      params: parameters with the channels of the first kernel as the file has them.
    """
    leaves = _first(network, params)
    kernel, bias = leaves["kernel"], leaves["bias"]
    for row in first_layers():
        if row.network == network.name and _is_near(bias, row.bias):
            other: ChannelOrder = "RGB" if row.channels == "BGR" else "BGR"
            for channel, order in ((0, row.channels), (2, other)):
                if _is_near(kernel[:, :, channel, 0].ravel(), row.kernel):
                    return Recognised(row.origin, row.preprocessing, order)
    return None


def _is_near(found: np.ndarray, known: np.ndarray) -> bool:
    """Whether numbers begin nearly as the known ones."""
    start = found[: len(known)]
    if start.shape != known.shape:
        return False
    return bool(np.linalg.norm(start - known) <= _SAME * np.linalg.norm(known))


def _first(network: Network, params: Params) -> Params:
    """Kernel and bias of the first layer, which may be inside a block."""
    leaves = params[network.layer_names[0]]
    while "kernel" not in leaves:
        leaves = next(iter(leaves.values()))
    return leaves


def _filter_norm(network: Network, params: Params) -> float:
    """The median norm of the filters of the first layer."""
    kernel = _first(network, params)["kernel"].astype(np.float64)
    return float(np.median(np.sqrt(np.square(kernel).sum((0, 1, 2)))))


def _swapped(network: Network, params: Params) -> Params:
    """Parameters with the input channels of the first kernel in reverse order."""

    def swap(tree: Params) -> Params:
        if "kernel" in tree:
            return tree | {"kernel": np.ascontiguousarray(tree["kernel"][:, :, ::-1])}
        inner = next(iter(tree))
        return tree | {inner: swap(tree[inner])}

    name = network.layer_names[0]
    return params | {name: swap(params[name])}
