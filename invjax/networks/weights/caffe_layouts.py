"""Models of Caffe and MatConvNet, which are chains of layers -> a table's parameters.

Their files say the kind, stride, padding and normalisation constants of every layer.
These are compared with the layer table as strictly as the tensors are, since CaffeNet
and Caffe's AlexNet have tensors of the same shapes.
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

# Mean colours of the training sets, RGB in grey levels, as the model zoos publish them
# beside the weights. VGG-M and the deep VGGs have the same.
_COLOURS = {
    "caffenet": (122.67891434, 116.66876762, 104.00698793),
    "caffe_alexnet": (122.67891434, 116.66876762, 104.00698793),
    "vgg_m": (123.68, 116.779, 103.939),
    "vgg16": (123.68, 116.779, 103.939),
    "vgg19": (123.68, 116.779, 103.939),
}

# Layers that do nothing when a network is evaluated, or come after its logits.
_DROPPED = {"dropout", "softmax", "softmaxloss", "data", "input", "accuracy"}


class Link(NamedTuple):
    """A layer of a chain.

    Attributes:
      name: name of the layer in the file.
      what: text that says what the layer does; equal for layers of the same effect.
      kernel: [h, w, in, out], or as the file has it for a dense layer; None without.
      bias: [out]; None without.
    """

    name: str
    what: str
    kernel: np.ndarray | None = None
    bias: np.ndarray | None = None


def from_matconvnet(
    net: Mapping[str, Any], network: Network
) -> tuple[Params, Preprocessing]:
    """Parameters and preprocessing from a MatConvNet SimpleNN model.

    Channels are RGB in the file already.

    Args:
      net: the model, as `matconvnet_format.read_matconvnet` returns it.
      network: the network that it should be.

    Returns:
      The parameters, and a preprocessing with the file's mean colour or mean image.

    Raises:
      conversion.ConversionError: layers, tensors or input size are not the network's
        (the message has both sides), or the file has no mean.
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
        raise ConversionError("the file has no normalization.averageImage")
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
    """Parameters and preprocessing from a .caffemodel and its .prototxt.

    Caffe's models take BGR images. The channels of the first kernel are swapped, so
    that the parameters are for RGB. The files do not have the mean; it is the mean
    colour that the model zoos document.

    Args:
      layers: the .caffemodel, as `caffe_format.read_caffemodel` returns it.
      prototxt: the .prototxt, as `caffe_format.read_prototxt` returns it.
      network: the network that it should be.

    Raises:
      conversion.ConversionError: layers or tensors are not the network's; the message
        has both sides.
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
            f"the prototxt lacks layers that have weights: {', '.join(spare)}"
        )
    params = _fit(chain, network)
    first = params[network.layer_names[0]]
    first["kernel"] = np.ascontiguousarray(first["kernel"][:, :, ::-1])
    return params, Preprocessing(_COLOURS[network.name])


def _check_known(network: Network) -> None:
    """Raises ConversionError for a network that these formats never held."""
    if network.name not in NETWORKS:
        raise ConversionError(
            f"{network.name} was never published in this format; "
            f"{', '.join(NETWORKS)} were"
        )


def _fit(chain: Sequence[Link], network: Network) -> Params:
    """The parameters in a chain, after comparing it with the table layer by layer."""
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
        # A dense layer is a convolution over all of its input in MatConvNet, and a
        # matrix for an input flattened as [c, h, w] in Caffe.
        if kernel.ndim == 4 and kernel.shape[:3] == (*row.shape, 1, 1)[:3]:
            flat[f"{name}/kernel"] = kernel.reshape(-1, kernel.shape[-1])
        elif kernel.ndim == 4 and kernel.shape[:3] == (1, 1, *row.shape):
            flat[f"{name}/kernel"] = kernel.reshape(-1, kernel.shape[-1])
        elif kernel.ndim == 2 and kernel.shape == expected[f"{name}/kernel"][::-1]:
            flat[f"{name}/kernel"] = dense(kernel, row.shape)
    return conversion.nest(conversion.strict(flat, expected))


def _say(layer: Layer, shape: tuple[int, ...]) -> str:
    """What a layer does, in the same words as a `Link` of the same effect."""
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
    """`Link.what` of a convolution."""
    return f"a convolution of stride {_short(stride)}, padding {_short(pads)}"


def _pool(window: Sequence[int], stride: Sequence[int], before: int) -> str:
    """`Link.what` of a max-pool."""
    # Padding at the bottom and right is left out: it only says that sizes are rounded
    # up, and a wrong size shows in the shapes of the tensors that follow.
    return f"a max-pool of {_short(window)}, stride {_short(stride)}, padding {before}"


def _norm(size: float, kappa: float, alpha: float, beta: float) -> str:
    """`Link.what` of a local response normalisation, constants in MatConvNet's form."""
    return f"a normalisation [{size:g} {kappa:.4g} {alpha:.4g} {beta:.4g}]"


def _short(values: Sequence[int]) -> str:
    """Equal numbers as one, others joined: "2", or "0x1x0x1"."""
    same = len(set(values)) == 1
    return str(values[0]) if same else "x".join(map(str, values))


def _matconvnet_link(layer: Mapping[str, Any]) -> Link:
    """A layer of a SimpleNN model."""
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
            # MATLAB drops trailing dimensions of length one.
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
    """A layer of a .prototxt with its arrays; None for a layer that is dropped."""
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
    """The first value of a field of a .prototxt, as an integer."""
    return int(options.get(key, [default])[0])


def _integers(value: Any, count: int) -> tuple[int, ...]:
    """A MATLAB scalar repeated `count` times, or a MATLAB vector as it is."""
    numbers = tuple(int(number) for number in np.ravel(value))
    return numbers * count if len(numbers) == 1 else numbers
