"""PyTorch state dicts -> parameters of a layer table.

The names of torchvision are known for AlexNet, the VGGs and ResNet-50, those of timm
for the VGGs and ResNet-50, and those of efficientnet_lite_pytorch for
EfficientNet-Lite0.

PyTorch's kernels are [out, in, h, w], and [out, in] in dense layers, whose inputs are
flattened as [c, h, w]. Kernels of invjax are [h, w, in, out], and [in, out] in dense
layers, whose inputs are flattened as [h, w, c]. Batch normalisation is folded into the
convolution before it, which changes nothing but rounding.
"""

import math
import re
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from invjax.networks import layers
from invjax.networks.layers import Conv, Dense, DepthwiseConv, Network
from invjax.networks.weights import conversion
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


def from_torch(state: Mapping[str, np.ndarray], network: Network) -> Params:
    """Parameters from a state dict of the network's original implementation.

    `num_batches_tracked`, a counter of training steps, is dropped. Anything else that
    the network does not have is refused.

    Args:
      state: arrays by name, as `readers.read_torch` returns them.
      network: the network that it should be.

    Raises:
      conversion.ConversionError: tensors are missing, unexpected or misshapen (all are
        listed), or no layout is known for the network.
    """
    state = _from_timm(state)
    layout = layout_of(network)
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
    arrays = conversion.strict(
        {k: v for k, v in state.items() if not k.endswith(".num_batches_tracked")},
        wanted,
    )
    flat = {}
    for name, layer, row in layers.weighted(network.layers, network.image_shape):
        scope = layout.scopes[name]
        weight = arrays[f"{scope.weights}.weight"]
        if scope.norm is None:
            bias = arrays[f"{scope.weights}.bias"]
        else:
            leaves = {
                leaf: arrays[f"{scope.norm}.{leaf}"]
                for leaf in ("weight", "bias", "running_mean", "running_var")
            }
            weight, bias = fold(weight, leaves, layout.epsilon)
        if isinstance(layer, Dense):
            flat[f"{name}/kernel"] = dense(weight, row.shape)
        else:
            flat[f"{name}/kernel"] = convolution(weight)
        flat[f"{name}/bias"] = bias
    return conversion.nest(conversion.strict(flat, conversion.all_shapes(network)))


def layout_of(network: Network) -> Layout:
    """How the network's original implementation in PyTorch names its layers.

    Raises:
      conversion.ConversionError: no layout is known for the network.
    """
    match network.name:
        case "alexnet":
            return _sequential(network, (1, 4, 6))
        case "vgg16" | "vgg19":
            return _sequential(network, (0, 3, 6))
        case "resnet50":
            return _renamed(network, _RESNET, epsilon=1e-5)
        case "efficientnet_lite0":
            return _renamed(network, _EFFICIENTNET_LITE, epsilon=1e-3)
    raise ConversionError(
        f"no PyTorch layout is known for {network.name}; known are alexnet, vgg16, "
        "vgg19, resnet50 and efficientnet_lite0"
    )


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


def _from_timm(state: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Renames the dense layers of timm's VGGs, which are convolutions there."""
    scopes = {"pre_logits.fc1": "0", "pre_logits.fc2": "3", "head.fc": "6"}
    renamed = {}
    for name, array in state.items():
        scope, _, leaf = name.rpartition(".")
        if scope in scopes:
            name = f"classifier.{scopes[scope]}.{leaf}"
            array = array.reshape(array.shape[0], -1) if leaf == "weight" else array
        renamed[name] = array
    return renamed


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
