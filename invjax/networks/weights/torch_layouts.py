"""PyTorch state dicts -> parameters of a layer table.

The names of torchvision are known for AlexNet, the VGGs and ResNet-50, those of timm
for the VGGs and ResNet-50, those of efficientnet_lite_pytorch for EfficientNet-Lite0
and Lite1.
The VGGs are also known by the names of their layers, as "conv1_1".

PyTorch's kernels are [out, in, h, w], and [out, in] in dense layers, whose inputs are
flattened as [c, h, w]. Kernels of invjax are [h, w, in, out], and [in, out] in dense
layers, whose inputs are flattened as [h, w, c]. Batch normalisation is folded into the
convolution before it, which changes nothing but rounding; `batch_norm` keeps what it
knew about the outputs.
"""

import itertools
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from invjax.networks import layers
from invjax.networks.layers import Conv, Dense, DepthwiseConv, Network
from invjax.networks.weights import batch_norm, conversion, pickles, state_dicts
from invjax.networks.weights.batch_norm import Moments, Statistics
from invjax.networks.weights.conversion import ConversionError, Params


class Scope(NamedTuple):
    """Where a state dict keeps a layer.

    Attributes:
      weights: prefix of the layer's weight and bias.
      norm: prefix of the batch normalisation after it; None without.
    """

    weights: str
    norm: str | None = None


class Layout(NamedTuple):
    """How a network's original implementation names its layers.

    Attributes:
      scopes: where the state dict keeps each layer, by the layer's name in the table.
      epsilon: constant added to the variance in batch normalisation, which is not in
        state dicts.
    """

    scopes: dict[str, Scope]
    epsilon: float = 0.0


class NoTensors(ConversionError):
    """A file in which no tensor has a name of the network."""


class Fit(NamedTuple):
    """What a state dict has of a network.

    Attributes:
      params: parameters of the layers from the image up to where the file fits.
      notes: what was left out, in words; empty if nothing was.
      statistics: moments of the outputs of convolutions that were normalised.
    """

    params: Params
    notes: tuple[str, ...]
    statistics: Statistics


def from_torch(tree: Any, network: Network) -> Params:
    """Parameters from a file of the network's original implementation; see `fit`."""
    return fit(tree, network).params


def fit(tree: Any, network: Network) -> Fit:
    """Parameters from a file of the network's original implementation.

    Containers and prefixes around the tensors are found by `state_dicts.find`.
    `num_batches_tracked`, a counter of training steps, is dropped. Layers at the end
    may be missing, as in a file of the convolutions only, and dense layers at the end
    may have other sizes, as a last layer for other classes: then the layers below are
    converted. Anything else that the network does not have is refused.

    Args:
      tree: the file's contents: mappings of names to tensors, or to mappings.
      network: the network that it should be.

    Raises:
      conversion.ConversionError: tensors are missing, unexpected or misshapen (all are
        listed) or not floating-point numbers, or several networks are in the file, or
        no layout is known for the network.
      NoTensors: no tensor has a name of the network.
    """
    layouts = layouts_of(network)
    choices = [_shapes(layout, network) for layout in layouts]
    match = state_dicts.find(tree, choices)
    if match is None:
        names = [*map(".".join, pickles.arrays(tree))]
        raise NoTensors(
            f"no tensor has a name of {network.name}, as {next(iter(choices[0]))}; the "
            f"file has {_list(names) if names else 'no tensors with names'}"
        )
    layout, wanted = layouts[match.choice], choices[match.choice]
    count, notes = _fitting(match, layout, wanted, network)
    if match.others:
        source, *others = (
            prefix or "the top level" for prefix in (match.prefix, *match.others)
        )
        notes = (*notes, f"read from {source}, not from {_list(others)}")
    if match.beside:
        notes = (*notes, f"without {_list(match.beside)}, no part of the network")
    table = network.layers[:count]
    params, statistics = _convert(match.arrays, layout, table, network)
    return Fit(params, notes, statistics)


def _convert(
    arrays: Mapping[str, np.ndarray],
    layout: Layout,
    table: tuple[layers.Layer, ...],
    network: Network,
) -> tuple[Params, Statistics]:
    """Parameters and statistics of the layers in `table`, from tensors that fit."""
    flat = {}
    moments: dict[str, Moments] = {}
    for name, layer, row in layers.weighted(table, network.image_shape):
        scope = layout.scopes[name]
        weight = _floats(arrays, f"{scope.weights}.weight")
        if scope.norm is None:
            bias = _floats(arrays, f"{scope.weights}.bias")
        else:
            leaves = {
                leaf: _floats(arrays, f"{scope.norm}.{leaf}")
                for leaf in ("weight", "bias", "running_mean", "running_var")
            }
            weight, bias = fold(weight, leaves, layout.epsilon)
            moments[name] = batch_norm.moments_of(leaves, layout.epsilon)
        if isinstance(layer, Dense):
            flat[f"{name}/kernel"] = dense(weight.reshape(len(weight), -1), row.shape)
        else:
            flat[f"{name}/kernel"] = convolution(weight)
        flat[f"{name}/bias"] = bias
    expected = layers.parameter_shapes(table, network.image_shape)
    params = conversion.nest(conversion.strict(flat, expected))
    return params, Statistics(moments)


def _floats(arrays: Mapping[str, np.ndarray], name: str) -> np.ndarray:
    """A tensor as float32, from floating-point numbers of any size."""
    array = arrays[name]
    if not jnp.issubdtype(array.dtype, np.floating):
        raise ConversionError(
            f"{name} is {array.dtype}; floating-point numbers are accepted"
        )
    return array.astype(np.float32)


def _shapes(layout: Layout, network: Network) -> dict[str, tuple[int, ...]]:
    """Shapes of all tensors of a state dict."""
    wanted: dict[str, tuple[int, ...]] = {}
    for name, layer, row in layers.weighted(network.layers, network.image_shape):
        scope = layout.scopes[name]
        wanted[f"{scope.weights}.weight"] = _weight_shape(layer, row.shape)
        features = wanted[f"{scope.weights}.weight"][:1]
        if scope.norm is None:
            wanted[f"{scope.weights}.bias"] = features
        else:
            for leaf in ("weight", "bias", "running_mean", "running_var"):
                wanted[f"{scope.norm}.{leaf}"] = features
    return wanted


def _fitting(
    match: state_dicts.Match,
    layout: Layout,
    wanted: Mapping[str, tuple[int, ...]],
    network: Network,
) -> tuple[int, tuple[str, ...]]:
    """The number of layers of the table that a file has, and what it lacks in words.

    Raises:
      conversion.ConversionError: the file has another network.
    """
    arrays = match.arrays
    scopes: dict[str, list[str]] = {}
    for name, _, _ in layers.weighted(network.layers, network.image_shape):
        found = layout.scopes[name]
        scopes.setdefault(name.split("/")[0], []).append(f"{found.weights}.")
        if found.norm is not None:
            scopes[name.split("/")[0]].append(f"{found.norm}.")
    names = {
        layer: [name for name in wanted if name.startswith(tuple(starts))]
        for layer, starts in scopes.items()
    }
    is_whole = {
        layer: all(
            name in arrays and state_dicts.fits(arrays[name], wanted[name])
            for name in tensors
        )
        for layer, tensors in names.items()
    }
    order = list(names)
    kept = list(itertools.takewhile(is_whole.__getitem__, order))
    rest = order[len(kept) :]
    absent = [layer for layer in rest if not any(n in arrays for n in names[layer])]
    others = [layer for layer in rest if layer not in absent]
    dense_layers = {part.name for part in network.layers if isinstance(part, Dense)}
    # What is left out must lie above all that is kept, or it could belong below.
    below = {start.split(".")[0] for layer in kept for start in scopes[layer]}
    above = [start for layer in rest for start in scopes[layer]]
    above += [
        f"{start.split('.')[0]}." for start in above if start.split(".")[0] not in below
    ]
    if (
        not kept
        or any(map(is_whole.__getitem__, rest))
        or not all(
            layer in dense_layers and all(n in arrays for n in names[layer])
            for layer in others
        )
        or not all(name.startswith(tuple(above)) for name in match.unexpected)
    ):
        shaped = {
            name: array.reshape(wanted[name])
            if name in wanted and state_dicts.fits(array, wanted[name])
            else array
            for name, array in (arrays | match.unexpected).items()
        }
        conversion.strict(shaped, wanted)
    notes = []
    for layer in others:
        name = names[layer][0]
        shape, given = wanted[name], arrays[name].shape
        if layer == order[-1] and given[1:] == shape[1:]:
            what = f"has {given[0]} classes, not {shape[0]}"
        else:
            what = f"is {given}, not {shape}"
        notes.append(f"{layer} {what}, and was left out")
    if absent:
        notes.append(f"the file has no {_list(absent)}")
    if match.unexpected:
        notes.append(f"without {_list(list(match.unexpected))} of the file")
    if not rest:
        return len(network.layers), tuple(notes)
    count = [layer.name for layer in network.layers].index(rest[0])
    return count, tuple(notes)


def _list(names: Sequence[str]) -> str:
    """Up to three names, and the number of the others.

    Examples:
      >>> _list(["fc8"]), _list(["fc6", "fc7"]), _list(["a", "b", "c", "d"])
      ('fc8', 'fc6 and fc7', 'a, b, c and 1 more')
    """
    *first, last = names if len(names) < 4 else [*names[:3], f"{len(names) - 3} more"]
    return f"{', '.join(first)} and {last}" if first else last


def layouts_of(network: Network) -> tuple[Layout, ...]:
    """How implementations of the network in PyTorch name its layers.

    Raises:
      conversion.ConversionError: no layout is known for the network.
    """
    match network.name:
        case "alexnet":
            return (_sequential(network, (1, 4, 6)),)
        case "vgg16" | "vgg19":
            torchvision = _sequential(network, (0, 3, 6))
            # The first VGGs for PyTorch, converted from Caffe, have the dense layers
            # in other places.
            converted = _sequential(network, (1, 4, 6))
            timm = {"fc6": "pre_logits.fc1", "fc7": "pre_logits.fc2", "fc8": "head.fc"}
            scopes = {
                name: Scope(timm.get(name, scope.weights))
                for name, scope in torchvision.scopes.items()
            }
            own = {name: Scope(name) for name in scopes}
            return torchvision, converted, Layout(scopes), Layout(own)
        case "resnet50":
            return (_renamed(network, _RESNET, epsilon=1e-5),)
        case "efficientnet_lite0" | "efficientnet_lite1":
            return (_renamed(network, _EFFICIENTNET_LITE, epsilon=1e-3),)
    raise ConversionError(
        f"no PyTorch layout is known for {network.name}; known are alexnet, vgg16, "
        "vgg19, resnet50, efficientnet_lite0 and efficientnet_lite1"
    )


def is_normalised(network: Network) -> bool:
    """Whether a network was trained with batch normalisation, which is folded here.

    Examples:
      >>> from invjax.networks import NETWORKS
      >>> is_normalised(NETWORKS["resnet50"]), is_normalised(NETWORKS["vgg16"])
      (True, False)
    """
    try:
        layouts = layouts_of(network)
    except ConversionError:
        return False
    return any(scope.norm for layout in layouts for scope in layout.scopes.values())


def fold(
    weight: np.ndarray, norm: Mapping[str, np.ndarray], epsilon: float
) -> tuple[np.ndarray, np.ndarray]:
    """Folds batch normalisation into the convolution before it, in float64.

    Args:
      weight: kernel of the convolution, [out, ...].
      norm: "weight", "bias", "running_mean" and "running_var" of the normalisation,
        [out] each.
      epsilon: constant added to the variance.

    Returns:
      Kernel [out, ...] and bias [out], float32.
    """
    leaves = {name: array.astype(np.float64) for name, array in norm.items()}
    gain = leaves["weight"] / np.sqrt(leaves["running_var"] + epsilon)
    bias = leaves["bias"] - leaves["running_mean"] * gain
    folded = weight * gain.reshape(-1, *[1] * (weight.ndim - 1))
    return folded.astype(np.float32), bias.astype(np.float32)


def convolution(weight: np.ndarray) -> np.ndarray:
    """A convolution's kernel [out, in, h, w] as [h, w, in, out]."""
    return np.ascontiguousarray(weight.transpose(2, 3, 1, 0))


def dense(weight: np.ndarray, input_shape: tuple[int, ...]) -> np.ndarray:
    """A dense layer's kernel [out, in] as [in, out].

    Args:
      weight: the kernel; its inputs were flattened as [c, h, w].
      input_shape: shape of the layer's input; if it is (h, w, c), inputs are reordered
        to that order.
    """
    if len(input_shape) == 3:
        height, width, channels = input_shape
        weight = weight.reshape(-1, channels, height, width).transpose(0, 2, 3, 1)
    return np.ascontiguousarray(weight.reshape(weight.shape[0], -1).T)


def _weight_shape(
    layer: Conv | DepthwiseConv | Dense, shape: tuple[int, ...]
) -> tuple[int, ...]:
    """Shape of PyTorch's kernel of a layer whose input has shape `shape`."""
    match layer:
        case Conv(kernel=size, groups=groups, features=features):
            return (features, shape[-1] // groups, size, size)
        case DepthwiseConv(kernel=size):
            return (shape[-1], 1, size, size)
        case Dense(features=features):
            return (features, math.prod(shape))


def _sequential(network: Network, classifier: tuple[int, ...]) -> Layout:
    """The layout of torchvision's AlexNet and VGGs.

    Args:
      network: the layer table; an index in `features` is an index in it.
      classifier: indices of the dense layers in `classifier`, which has dropouts too.
    """
    places = iter(classifier)
    scopes = {}
    for index, layer in enumerate(network.layers):
        match layer:
            case Conv():
                scopes[layer.name] = Scope(f"features.{index}")
            case Dense():
                scopes[layer.name] = Scope(f"classifier.{next(places)}")
    return Layout(scopes)


def _renamed(
    network: Network,
    rules: tuple[tuple[str, str, str | None], ...],
    epsilon: float,
) -> Layout:
    """The layout whose scopes are made by the first rule that matches a layer's name.

    Args:
      network: the layer table.
      rules: (pattern of the name in the table, weights, norm), where the last two are
        templates for a `Scope`.
      epsilon: constant added to the variance in batch normalisation.
    """
    scopes = {}
    for name, _, _ in layers.weighted(network.layers, network.image_shape):
        for pattern, weights, norm in rules:
            if found := re.fullmatch(pattern, name):
                scopes[name] = Scope(found.expand(weights), norm and found.expand(norm))
                break
    return Layout(scopes, epsilon)


_RESNET = (
    (r"stem/conv", r"conv1", r"bn1"),
    (r"(layer\d)/block(\d)/conv(\d)", r"\1.\2.conv\3", r"\1.\2.bn\3"),
    (r"(layer\d)/block(\d)/shortcut", r"\1.\2.downsample.0", r"\1.\2.downsample.1"),
    (r"logits", r"fc", None),
)

_EFFICIENTNET_LITE = (
    (r"stem/conv", r"_conv_stem", r"_bn0"),
    (r"block(\d+)/expand", r"_blocks.\1._expand_conv", r"_blocks.\1._bn0"),
    (r"block(\d+)/depthwise", r"_blocks.\1._depthwise_conv", r"_blocks.\1._bn1"),
    (r"block(\d+)/project", r"_blocks.\1._project_conv", r"_blocks.\1._bn2"),
    (r"head/conv", r"_conv_head", r"_bn1"),
    (r"logits", r"_fc", None),
)
