"""Finds weights, converts them once, verifies and restores them.

The first use of a network looks for an installed package that carries its weights
(sources.toml), checks the file's SHA-256, converts it to a checkpoint in the weights
folder and proves weights and preprocessing together by a forward pass on a fixed
image. Later uses restore that checkpoint, prove every tensor by digest and run the
same forward pass. A file of the user's own is converted by `convert_file`.
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

from invjax.networks import layers
from invjax.networks.layers import Network
from invjax.networks.weights import checkpoints, conversion, formats
from invjax.networks.weights.checkpoints import DamagedCheckpoint
from invjax.networks.weights.formats import FileContents
from invjax.networks.weights.forward_check import (
    WrongWeights,
    check_forward,
    forward_values,
)
from invjax.networks.weights.preprocessing import Preprocessing
from invjax.networks.weights.readers import MissingReader
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
]

# A mean image lies in the checkpoint beside the weights, under a name no layer has.
_MEAN_IMAGE = "preprocessing/mean"


class MissingWeights(LookupError):
    """No weights for a network or layer; the message says which file and command."""


class Pretrained(NamedTuple):
    """Parameters {layer: {"kernel", "bias"}} and what goes with them."""

    params: dict[str, Any]
    preprocessing: Preprocessing
    digest: str
    """SHA-256 over the tensors' digests: which weights these are."""


def default_weights_dir() -> pathlib.Path:
    """INVJAX_WEIGHTS, else weights/ of the checkout, else the user's cache folder."""
    if named := os.environ.get("INVJAX_WEIGHTS"):
        return pathlib.Path(named)
    package = pathlib.Path(str(resources.files("invjax")))
    checkout = package.resolve().parent
    if (checkout / "weights" / "README.md").is_file():
        return checkout / "weights"
    cache = os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache"
    return pathlib.Path(cache, "invjax", "weights")


def weights_folder(given: str | os.PathLike[str] | None) -> pathlib.Path:
    """The folder of converted checkpoints: `given`, or the default; ~ is expanded."""
    return pathlib.Path(given or default_weights_dir()).expanduser()


def load(
    network: Network,
    layer: str,
    *,
    weights_dir: str | os.PathLike[str] | None = None,
) -> Pretrained:
    """Weights of a network up to a layer, with the preprocessing they belong to.

    Args:
      network: whose.
      layer: the cut; parameters above it are left out.
      weights_dir: folder of converted checkpoints; `default_weights_dir` if None.

    Raises:
      ValueError: the network has no such layer.
      MissingWeights: neither a checkpoint nor an installed package has them, or the
        package's file cannot be read without the `convert` extra.
      WrongWeights, checkpoints.DamagedCheckpoint, readers.UnreadableWeights,
      conversion.ConversionError: what was found is not what it should be.
    """
    table = network.until(layer)
    folder = weights_folder(weights_dir) / network.name
    if not checkpoints.exists(folder):
        convert_installed(network, folder)
    stamp = (folder / "manifest.json").stat().st_mtime_ns
    whole = _restore(network, folder.resolve(), stamp)
    needed = [part.name for part in table if layers.has_parameters(part)]
    if missing := [name for name in needed if name not in whole.params]:
        raise MissingWeights(
            f"{network.name}/{layer} needs the weights of {', '.join(missing)}, which "
            f"the checkpoint in {folder} lacks{_advice(network)}"
        )
    return whole._replace(params={name: whole.params[name] for name in needed})


def available(
    network: Network, *, weights_dir: str | os.PathLike[str] | None = None
) -> frozenset[str]:
    """Names of the layers of a network that `load` would find weights for."""
    folder = weights_folder(weights_dir) / network.name
    if checkpoints.exists(folder):
        try:
            tensors = checkpoints.names(folder)
        except DamagedCheckpoint:
            return frozenset()
    else:
        usable = [s for s in sources() if s.network == network.name and s.is_readable()]
        tensors = frozenset(name for source in usable[:1] for name in source.tensors)
    scopes = {name.split("/")[0] for name in tensors}
    names = []
    for layer in network.layers:
        if layers.has_parameters(layer) and layer.name not in scopes:
            break
        names.append(layer.name)
    return frozenset(names) if tensors else frozenset()


def convert_installed(network: Network, folder: pathlib.Path) -> None:
    """Converts the weights of an installed package into a checkpoint at `folder`.

    Raises: as `load`. Nothing is written unless everything was proven.
    """
    source, path, tensors = pinned_tensors(
        network.name, lambda path: formats.read(path, network).params, folder
    )
    params = conversion.nest(tensors)
    check = source.forward_check
    check_forward(network, params, source.preprocessing, check, path)
    _save(
        folder,
        network,
        FileContents(params, source.preprocessing),
        {"origin": source.origin, "licence": source.licence, "forward_check": check},
        path,
    )


def convert_file(
    network: Network,
    path: str | os.PathLike[str],
    folder: pathlib.Path,
    *,
    prototxt: str | os.PathLike[str] | None = None,
) -> None:
    """Converts a user's own weight file into a checkpoint at `folder`.

    Preprocessing that the file does not tell is the one published beside the usual file
    for this network (sources.toml). A checkpoint that was there is replaced.

    Raises: as `load`, and OSError, and readers.MissingReader where a package of the
    `convert` extra is not installed. Nothing is written then.
    """
    path = pathlib.Path(path)
    read = formats.read(path, network, prototxt=prototxt)
    published = published_files()[network.name]
    preprocessing = read.preprocessing or published.preprocessing
    if preprocessing is None:
        raise WrongWeights(f"{path}: tells no preprocessing, and none is published")
    check = forward_values(network, read.params, preprocessing)
    if not np.all(np.isfinite(check)):
        raise WrongWeights(f"{path}: a forward pass through its weights is not finite")
    is_usual = path.name == published.name
    record = {
        "origin": published.origin if is_usual else f"a user's own file, {path.name}",
        "licence": published.licence if is_usual else "unknown",
        "forward_check": check,
    }
    _save(folder, network, read._replace(preprocessing=preprocessing), record, path)


def pinned_tensors(
    name: str, read: Callable[[pathlib.Path], Mapping[str, Any]], folder: pathlib.Path
) -> tuple[WeightSource, pathlib.Path, dict[str, np.ndarray]]:
    """Tensors of an installed package's file, all as pinned in sources.toml.

    Args:
      name: the row's network.
      read: file -> nested tensors.
      folder: where a checkpoint was looked for, to be named in errors.

    Returns:
      The row, the file and the flat tensors.
    """
    known = [source for source in sources() if source.network == name]
    for source in known:
        if path := source.find():
            break
    else:
        raise MissingWeights(
            f"no weights for {name} in {folder}{_advice_for(name, known)}"
        )
    digest = _file_digest(path)
    if digest != source.sha256:
        raise WrongWeights(
            f"{path}: SHA-256 is {digest}, not {source.sha256}: the file is damaged "
            f"or another release; reinstall it with: {source.install}"
        )
    try:
        tensors = conversion.flatten(read(path))
    except MissingReader as error:
        raise MissingWeights(str(error)) from None
    wrong = [
        name
        for name in sorted(tensors.keys() | source.tensors.keys())
        if name not in tensors
        or checkpoints.tensor_digest(tensors[name]) != source.tensors.get(name)
    ]
    if wrong:
        raise WrongWeights(f"{path}: converted to other tensors: {', '.join(wrong)}")
    return source, path, tensors


def _save(
    folder: pathlib.Path,
    network: Network,
    weights: FileContents,
    facts: Mapping[str, Any],
    path: pathlib.Path,
) -> None:
    tensors = conversion.flatten(weights.params)
    preprocessing = weights.preprocessing
    assert preprocessing is not None
    if isinstance(preprocessing.mean, np.ndarray):
        tensors[_MEAN_IMAGE] = preprocessing.mean
    record = {
        "network": network.name,
        **facts,
        "source_file": path.name,
        "source_sha256": _file_digest(path),
        "source_channels": formats.channels(path),
        "input_size": network.input_size,
        "image_range": [0, 1],
        "preprocessing": preprocessing.as_json(),
    }
    checkpoints.save(folder, tensors, record)


def _file_digest(path: pathlib.Path) -> str:
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _advice(network: Network) -> str:
    known = [source for source in sources() if source.network == network.name]
    # What a package carries is in the checkpoint already: only a file has more.
    return _advice_for(network.name, known[:0])


def _advice_for(name: str, known: list[WeightSource]) -> str:
    """How to get weights, to end an error's line with."""
    ways = [f"install them with: {source.install}" for source in known]
    if published := published_files().get(name):
        ways.append(
            f"convert the file of {published.origin} with: python -m weights.convert "
            f"--network={name} --file={published.name}"
        )
    return f"; {', or '.join(ways)}" if ways else ""


@functools.lru_cache(maxsize=4)
def _restore(network: Network, folder: pathlib.Path, stamp: int) -> Pretrained:
    """The whole checkpoint, proven; cached, since a run asks once per layer."""
    del stamp  # only tells a replaced checkpoint from the one in the cache
    checkpoint = checkpoints.restore(folder)
    shapes = conversion.all_shapes(network)
    stored = dict(checkpoint.tensors)
    mean_image = stored.pop(_MEAN_IMAGE, None)
    expected = {n: shape for n, shape in shapes.items() if n in stored}
    record = checkpoint.record
    try:
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
    return Pretrained(jax.tree.map(jnp.asarray, params), preprocessing, digest)
