"""MatConvNet's and Caffe's chains of layers -> parameters of a layer table.

Their files tell kinds, strides, paddings and normalisation constants of all layers, so
those are compared with the table as strictly as the tensors: CaffeNet and Caffe's
AlexNet hold tensors of the same shapes.
"""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from invjax.networks.layers import (
    Conv,
    Dense,
    Layer,
    LocalResponseNorm,
    MaxPool,
    Network,
    Relu,
    geometry,
    sides,
    weighted,
)
from invjax.networks.weights import conversion
from invjax.networks.weights.caffe_format import CaffeLayer
from invjax.networks.weights.conversion import ConversionError, Params
from invjax.networks.weights.preprocessing import Preprocessing
from invjax.networks.weights.torch_layouts import convolution, dense

NETWORKS = ("caffenet", "caffe_alexnet", "vgg_m", "vgg16", "vgg19")
"""Networks that were published in these formats."""

# Colour means of the training set, which the model zoos publish beside the weights;
# VGG-M and the deep VGGs share theirs. RGB.
_COLOURS = {
    "caffenet": (122.67891434, 116.66876762, 104.00698793),
    "caffe_alexnet": (122.67891434, 116.66876762, 104.00698793),
    "vgg_m": (123.68, 116.779, 103.939),
    "vgg16": (123.68, 116.779, 103.939),
    "vgg19": (123.68, 116.779, 103.939),
}

_DROPPED = {"dropout", "softmax", "softmaxloss", "data", "input", "accuracy"}


class Link(NamedTuple):
    """A layer of a chain, as text that says what it does, with its weights if any."""

    name: str
    what: str
    kernel: np.ndarray | None = None
    bias: np.ndarray | None = None


def from_matconvnet(
    net: Mapping[str, Any], network: Network
) -> tuple[Params, Preprocessing]:
    """Parameters and preprocessing of a SimpleNN model as `readers.read_matconvnet`.

    The mean is a colour or an image, as the file has it; channels are RGB already.

    Raises:
      conversion.ConversionError: layers, tensors or input size are not the network's,
        with both sides; or the file has no mean.
    """
    _check_known(network)
    chain = [
        _matconvnet_link(layer)
        for layer in net["layers"]
        if str(layer.get("type")) not in _DROPPED
    ]
    params = _fit(chain, network)
    meta = net.get("meta")
    normalization = (meta if isinstance(meta, dict) else net).get("normalization")
    if not isinstance(normalization, dict) or "averageImage" not in normalization:
        raise ConversionError("no normalization.averageImage in the file")
    if "imageSize" in normalization:
        size = tuple(int(side) for side in np.ravel(normalization["imageSize"])[:2])
        if size != network.image_shape[:2]:
            raise ConversionError(
                f"the file's input is {size}, not {network.image_shape[:2]}"
            )
    mean = np.asarray(normalization["averageImage"], np.float32)
    if mean.size == 3:
        red, green, blue = map(float, mean.ravel())
        return params, Preprocessing((red, green, blue))
    if mean.shape != network.image_shape:
        raise ConversionError(
            f"averageImage is {mean.shape}, not {network.image_shape}"
        )
    return params, Preprocessing(mean)


def from_caffe(
    layers: Sequence[CaffeLayer],
    prototxt: Mapping[str, Any],
    network: Network,
) -> tuple[Params, Preprocessing]:
    """Parameters from a .caffemodel and its .prototxt.

    Caffe's models take BGR; the channels of the first kernel are swapped, so that ours
    take RGB. The mean is not in these files: the colour that the model zoos document is
    taken.

    Raises:
      conversion.ConversionError: layers or tensors are not the network's, with both
        sides.
    """
    _check_known(network)
    weights = {layer.name: layer.blobs for layer in layers}
    chain = []
    for field in prototxt.get("layers", []) + prototxt.get("layer", []):
        link = _caffe_link(field, weights)
        if link is not None:
            chain.append(link)
    spare = sorted(weights.keys() - {link.name for link in chain})
    if spare:
        raise ConversionError(
            f"layers with weights that the prototxt lacks: {', '.join(spare)}"
        )
    params = _fit(chain, network)
    first = params[network.layer_names[0]]
    first["kernel"] = np.ascontiguousarray(first["kernel"][:, :, ::-1])
    return params, Preprocessing(_COLOURS[network.name])


def _check_known(network: Network) -> None:
    if network.name not in NETWORKS:
        raise ConversionError(
            f"{network.name} was never published in this format; "
            f"{', '.join(NETWORKS)} were"
        )


def _fit(chain: Sequence[Link], network: Network) -> Params:
    """Compares a chain with the table, layer by layer, and takes its weights."""
    rows = geometry(network.layers, network.image_shape)
    shapes = [network.image_shape, *(row.shape for row in rows)]
    ours = [
        _say(layer, shape) for layer, shape in zip(network.layers, shapes, strict=False)
    ]
    theirs = [link.what for link in chain]
    if theirs != ours:
        labels = [*network.layer_names, *(link.name for link in chain[len(ours) :])]
        pairs = itertools.zip_longest(ours, theirs, fillvalue="nothing")
        problems = [
            f"{label} is {mine}, in the file {other}"
            for label, (mine, other) in zip(labels, pairs, strict=True)
            if mine != other
        ]
        raise ConversionError(f"layers do not fit: {'; '.join(problems)}")
    flat = {}
    for layer, link in zip(network.layers, chain, strict=True):
        if link.kernel is not None and link.bias is not None:
            flat[f"{layer.name}/kernel"] = link.kernel
            flat[f"{layer.name}/bias"] = link.bias
    expected = conversion.all_shapes(network)
    for name, layer, row in weighted(network.layers, network.image_shape):
        kernel = flat.get(f"{name}/kernel")
        if not isinstance(layer, Dense) or kernel is None:
            continue
        # Dense layers are convolutions over all of their input in MatConvNet, and rows
        # of flattened [c, h, w] in Caffe.
        if kernel.ndim == 4 and kernel.shape[:3] == (*row.shape, 1, 1)[:3]:
            flat[f"{name}/kernel"] = kernel.reshape(-1, kernel.shape[-1])
        elif kernel.ndim == 4 and kernel.shape[:3] == (1, 1, *row.shape):
            flat[f"{name}/kernel"] = kernel.reshape(-1, kernel.shape[-1])
        elif kernel.ndim == 2 and kernel.shape == expected[f"{name}/kernel"][::-1]:
            flat[f"{name}/kernel"] = dense(kernel, row.shape)
    return conversion.nest(conversion.strict(flat, expected))


def _say(layer: Layer, shape: tuple[int, ...]) -> str:
    """What a layer does, in words that a chain's layer of the same effect has."""
    match layer:
        case Conv(stride=stride, padding=padding):
            return _convolution((stride, stride), sides(padding) * 2)
        case Dense():
            return _convolution((1, 1), (0, 0, 0, 0))
        case MaxPool(window=window, stride=stride, padding=padding):
            return _pool((window, window), (stride, stride), sides(padding)[0])
        case LocalResponseNorm(size=size, kappa=kappa, alpha=alpha, beta=beta):
            return _norm(size, kappa, alpha, beta)
        case Relu(ceiling=None):
            return "relu"
    return type(layer).__name__


def _convolution(stride: Sequence[int], pads: Sequence[int]) -> str:
    return f"a convolution of stride {_short(stride)}, padding {_short(pads)}"


def _pool(window: Sequence[int], stride: Sequence[int], before: int) -> str:
    # Padding at the bottom and right is left out: it only spells "rounded up", which
    # decides sizes, and sizes are decided by the tensors that follow.
    return f"a max-pool of {_short(window)}, stride {_short(stride)}, padding {before}"


def _norm(size: float, kappa: float, alpha: float, beta: float) -> str:
    return f"a normalisation [{size:g} {kappa:.4g} {alpha:.4g} {beta:.4g}]"


def _short(values: Sequence[int]) -> str:
    same = len(set(values)) == 1
    return str(values[0]) if same else "x".join(map(str, values))


def _matconvnet_link(layer: Mapping[str, Any]) -> Link:
    name, kind = str(layer.get("name", "")), str(layer.get("type"))
    match kind:
        case "conv":
            top, bottom, left, right = _integers(layer.get("pad", 0), 4)
            what = _convolution(
                _integers(layer.get("stride", 1), 2), (top, bottom, left, right)
            )
            if isinstance(layer.get("weights"), list):
                kernel, bias = layer["weights"][:2]
            else:
                kernel, bias = layer.get("filters"), layer.get("biases")
            if kernel is None or bias is None:
                raise ConversionError(f"layer {name} has no weights")
            kernel = np.asarray(kernel)
            # MATLAB drops dimensions of length one from the end.
            kernel = kernel.reshape(kernel.shape + (1,) * (4 - kernel.ndim))
            return Link(name, what, kernel, np.ravel(bias))
        case "pool" if str(layer.get("method", "max")) == "max":
            pads = _integers(layer.get("pad", 0), 4)
            what = _pool(
                _integers(layer["pool"], 2),
                _integers(layer.get("stride", 1), 2),
                pads[0],
            )
        case "normalize" | "lrn":
            what = _norm(*(float(value) for value in np.ravel(layer["param"])))
        case _:
            what = kind
    return Link(name, what)


def _caffe_link(
    field: Mapping[str, Any], weights: Mapping[str, tuple[np.ndarray, ...]]
) -> Link | None:
    name = str(field.get("name", [""])[0])
    kind = str(field.get("type", [""])[0]).replace("_", "").lower()
    if kind in _DROPPED:
        return None
    match kind:
        case "convolution" | "innerproduct":
            if len(weights.get(name, ())) != 2:
                raise ConversionError(
                    f"layer {name} has no kernel and bias in the caffemodel"
                )
            kernel, bias = weights[name]
            if kind == "innerproduct":
                kernel = kernel.reshape(kernel.shape[-2:])
                what = _convolution((1, 1), (0, 0, 0, 0))
            else:
                options = field.get("convolution_param", [{}])[0]
                stride, pad = _number(options, "stride", 1), _number(options, "pad", 0)
                what = _convolution((stride, stride), (pad,) * 4)
                kernel = convolution(kernel)
            return Link(name, what, kernel, np.ravel(bias))
        case "pooling":
            options = field.get("pooling_param", [{}])[0]
            if str(options.get("pool", ["MAX"])[0]) not in ("MAX", "0.0"):
                return Link(name, "another kind of pool")
            window, stride = (
                _number(options, key, default)
                for key, default in (("kernel_size", 0), ("stride", 1))
            )
            what = _pool((window,) * 2, (stride,) * 2, _number(options, "pad", 0))
        case "lrn":
            options = field.get("lrn_param", [{}])[0]
            size, kappa, alpha, beta = (
                float(options.get(key, [default])[0])
                for key, default in (
                    ("local_size", 5),
                    ("k", 1),
                    ("alpha", 1),
                    ("beta", 0.75),
                )
            )
            what = _norm(size, kappa, alpha / size, beta)
        case _:
            what = kind
    return Link(name, what)


def _number(options: Mapping[str, Any], key: str, default: int) -> int:
    return int(options.get(key, [default])[0])


def _integers(value: Any, count: int) -> tuple[int, ...]:
    """MATLAB's scalar-or-vector."""
    numbers = tuple(int(number) for number in np.ravel(value))
    return numbers * count if len(numbers) == 1 else numbers
