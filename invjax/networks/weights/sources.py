"""The known weight files, which are listed and pinned in sources.toml."""

import functools
import importlib.util
import pathlib
import re
import tomllib
from importlib import resources
from typing import Any, Literal, NamedTuple

import numpy as np

from invjax.networks.weights.preprocessing import Preprocessing


class WeightSource(NamedTuple):
    """A weight file inside an installable package, pinned by digests.

    Attributes:
      network: name of the network.
      package: name under which the package is imported.
      path: the file, relative to the package's folder.
      sha256: SHA-256 of the file.
      install: command that installs the package.
      licence: licences of the weights and the package.
      origin: who trained the weights and which release the file is from.
      preprocessing: the preprocessing that belongs to the weights.
      tensors: SHA-256 of every converted tensor, by its name in a checkpoint.
      forward_check: the values that `forward_check.forward_values` should return;
        empty for weights that are not a network, as the heads of LPIPS.
    """

    network: str
    package: str
    path: str
    sha256: str
    install: str
    licence: str
    origin: str
    preprocessing: Preprocessing
    tensors: dict[str, str]
    forward_check: list[float]

    def find(self) -> pathlib.Path | None:
        """The file, found without importing its package; None if not installed."""
        spec = importlib.util.find_spec(self.package)
        for folder in (spec and spec.submodule_search_locations) or ():
            if (path := pathlib.Path(folder, self.path)).is_file():
                return path
        return None


class PublishedFile(NamedTuple):
    """The usual weight file of a network, which users download themselves.

    Attributes:
      network: name of the network.
      name: the usual name of the file.
      licence: licence of the weights.
      origin: who published the file.
      preprocessing: the preprocessing published with the weights; None where the file
        itself has it.
      also: other names of the network in torchvision, timm and on Hugging Face.
    """

    network: str
    name: str
    licence: str
    origin: str
    preprocessing: Preprocessing | None
    also: tuple[str, ...] = ()

    def is_of(self, digest: str) -> bool:
        """Whether a file is this one: its name has the first digits of its SHA-256.

        Args:
          digest: SHA-256 of the file, as hexadecimal digits.
        """
        found = re.search(r"-([0-9a-f]{8})\.", self.name)
        return found is not None and digest.startswith(found[1])


class FirstLayer(NamedTuple):
    """The first layer of a well-known network, by which its weights are recognised.

    Attributes:
      network: name of the network.
      origin: who trained it.
      bias: its first biases.
      kernel: the first values of its first filter in its first input channel, by rows.
      channels: channel order of the images that it expects, "RGB" or "BGR".
      preprocessing: the preprocessing that belongs to it.
    """

    network: str
    origin: str
    bias: np.ndarray
    kernel: np.ndarray
    channels: Literal["RGB", "BGR"]
    preprocessing: Preprocessing


@functools.cache
def sources() -> tuple[WeightSource, ...]:
    """All weight files inside installable packages, the preferred ones first."""
    return tuple(
        WeightSource(
            **{**row, "preprocessing": Preprocessing.from_json(row["preprocessing"])}
        )
        for row in _rows("source")
    )


@functools.cache
def published_files() -> dict[str, PublishedFile]:
    """The usual weight file of every network, by the network's name.

    Examples:
      >>> published_files()["vgg16"].name
      'vgg16-397923af.pth'
    """
    return {
        row["network"]: PublishedFile(
            row["network"],
            row["name"],
            row["licence"],
            row["origin"],
            Preprocessing.from_json(row["preprocessing"])
            if "preprocessing" in row
            else None,
            tuple(row.get("also", ())),
        )
        for row in _rows("file")
    }


def network_of(name: str) -> str | None:
    """The network that has a name here, in torchvision, in timm or on Hugging Face.

    An owner before the name ("timm/") and the tag of particular weights after it
    (".fb_in1k") do not count, unless the tag makes it another network.

    Args:
      name: the name.

    Returns:
      The network's name here; None where none is known.

    Examples:
      >>> network_of("vit_b_16"), network_of("timm/resnet50.a1_in1k")
      ('vit_base', 'resnet50')
      >>> network_of("vit_small_patch16_224.dino"), network_of("resnet50d")
      ('dino_vits16', None)
    """
    known = {other: n for n, file in published_files().items() for other in file.also}
    known |= {network: network for network in published_files()}
    bare = name.rpartition("/")[2]
    return known.get(bare) or known.get(bare.partition(".")[0])


@functools.cache
def first_layers() -> tuple[FirstLayer, ...]:
    """The first layers by which weights without a preprocessing are recognised."""
    return tuple(
        FirstLayer(
            row["network"],
            row["origin"],
            np.array(row["bias"]),
            np.array(row["kernel"]),
            row["channels"],
            Preprocessing.from_json(row["preprocessing"]),
        )
        for row in _rows("first_layer")
    )


@functools.cache
def _tables() -> dict[str, Any]:
    """The contents of sources.toml."""
    return tomllib.loads(
        resources.files("invjax.networks.weights").joinpath("sources.toml").read_text()
    )


def _rows(kind: str) -> list[dict[str, Any]]:
    """The entries of one kind: "source", "file" or "first_layer"."""
    return _tables()[kind]
