"""Models of Caffe and MatConvNet, which are chains of layers -> a table's parameters.

`chains` compares them with the table. Every option of a layer's record
either is compared, or is known to change nothing when the network is evaluated, or is
refused by name. Options that are absent have the format's own defaults.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from invjax.networks.layers import Network
from invjax.networks.weights import chains
from invjax.networks.weights.caffe_format import V1_KINDS, CaffeLayer
from invjax.networks.weights.chains import Link, Option, Options
from invjax.networks.weights.conversion import ConversionError, Params
from invjax.networks.weights.preprocessing import Preprocessing
from invjax.networks.weights.torch_layouts import convolution

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

# Options that change nothing when a network is evaluated.
_CAFFE_IDLE = frozenset(
    "name type bottom top param blobs blobs_lr weight_decay blob_share_mode "
    "loss_weight propagate_down include exclude phase engine".split()
)
_CAFFE_FILLERS = frozenset("weight_filler bias_filler engine force_nd_im2col".split())
_MATCONVNET_IDLE = frozenset(
    "name type size precious learningRate weightDecay momentum filtersLearningRate "
    "biasesLearningRate filtersWeightDecay biasesWeightDecay filtersMomentum "
    "biasesMomentum useShortCircuit frozen rate mask class".split()
)
# More layers than any chain has.
_MAX_LAYERS = 2000
_MATCONVNET_FLAGS = {"cudnn", "nocudnn", "verbose"}
_CAFFE_NETWORK = frozenset(
    "name input input_dim input_shape force_backward state debug_info layer "
    "layers".split()
)


def from_matconvnet(
    net: Mapping[str, Any], network: Network
) -> tuple[Params, Preprocessing | None, Preprocessing]:
    """Parameters and preprocessing from a MatConvNet model, a SimpleNN or a DagNN.

    Channels are RGB in the file already. A file that ends before the table does, or
    whose last layer has another number of classes, gives the layers that fit.

    Args:
      net: the model, as `matconvnet_format.read_matconvnet` returns it.
      network: the network that it should be.

    Returns:
      The parameters; a preprocessing with the file's mean colour or mean image, None
      where it has none; and one with the mean colour that the model zoos document.

    Raises:
      conversion.ConversionError: layers, their options, tensors or input size are not
        the network's; the message has both sides.
    """
    _check_known(network)
    if len(net["layers"]) > _MAX_LAYERS:
        raise ConversionError(f"the file has {len(net['layers'])} layers")
    if any("block" in layer for layer in net["layers"]):
        chain = chains.follow(chains.in_order(list(_dagnn_links(net))))
    else:
        rows = enumerate(net["layers"], start=1)
        chain = chains.follow([_matconvnet_link(row, place) for place, row in rows])
    params = chains.fit(chain, network)
    meta = net.get("meta")
    normalization = (meta if isinstance(meta, dict) else net).get("normalization")
    documented = Preprocessing(_COLOURS[network.name])
    if not isinstance(normalization, dict):
        return params, None, documented
    options = Options("normalization", normalization)
    if "imageSize" in normalization:
        size = options.wholes("imageSize", ())[:2]
        if size * (3 - len(size)) != network.image_shape[:2]:
            raise ConversionError(
                f"the file's input is {size}, not {network.image_shape[:2]}"
            )
    if "averageImage" not in normalization:
        return params, None, documented
    told = Preprocessing(_average(normalization["averageImage"], network))
    return params, told, documented


def _average(image: Any, network: Network) -> Any:
    """A mean colour, or a mean image [h, w, 3], from MatConvNet's averageImage.

    It is one number per channel in any arrangement, one number for all channels, or an
    image of the network's size; nothing is subtracted where it is empty.
    """
    if not isinstance(image, np.ndarray) or image.dtype.kind not in "fiub":
        raise ConversionError("averageImage is not numeric")
    mean = _single(image)
    if not np.all(np.isfinite(mean)):
        raise ConversionError("averageImage has values that are not finite")
    if mean.size <= 1:
        return (float(mean.sum()),) * 3
    if mean.size == 3:
        red, green, blue = map(float, mean.ravel())
        return (red, green, blue)
    if mean.shape != network.image_shape:
        raise ConversionError(
            f"averageImage is {mean.shape}, not {network.image_shape}"
        )
    return mean


def from_caffe(
    layers: Sequence[CaffeLayer],
    prototxt: Mapping[str, Any],
    network: Network,
) -> tuple[Params, Preprocessing]:
    """Parameters and preprocessing from a .caffemodel and its .prototxt.

    Caffe's models take BGR images. The channels of the first kernel are swapped, so
    that the parameters are for RGB. The .prototxt may be one for training or for
    deployment; layers that are not there in Caffe's phase TEST are left out. A file
    that ends before the table does, or whose last layer has another number of classes,
    gives the layers that fit.

    Args:
      layers: the .caffemodel, as `caffe_format.read_caffemodel` returns it.
      prototxt: the .prototxt, as `caffe_format.read_prototxt` returns it.
      network: the network that it should be.

    Returns:
      The parameters, and the preprocessing that `told_preprocessing` finds in the
      .prototxt, or else the mean colour that the model zoos document.

    Raises:
      conversion.ConversionError: layers, their options, tensors or input size are not
        the network's; the message has both sides.
    """
    _check_known(network)
    unknown = sorted(set(prototxt) - _CAFFE_NETWORK)
    if unknown:
        raise ConversionError(f"the prototxt has {chains.unknown(unknown)} not known")
    if prototxt.get("layer") and prototxt.get("layers"):
        raise ConversionError(
            "the prototxt has layers of both generations, `layer` and `layers`"
        )
    _check_caffe_input(prototxt, network)
    weights: dict[str, tuple[np.ndarray, ...]] = {}
    for layer in layers:
        if layer.name in weights:
            raise ConversionError(
                f"the caffemodel has two layers {chains.say(layer.name)}"
            )
        weights[layer.name] = layer.blobs
    fields = [*prototxt.get("layer", []), *prototxt.get("layers", [])]
    links = [_caffe_link(field, weights) for field in fields if _is_in_test(field)]
    if spare := sorted(weights.keys() - {_name(field) for field in fields}):
        raise ConversionError(
            f"the prototxt lacks layers that have weights: "
            f"{', '.join(map(chains.say, spare[:20]))}"
        )
    params = chains.fit(chains.follow(links), network)
    first = params[network.layer_names[0]]
    first["kernel"] = np.ascontiguousarray(first["kernel"][:, :, ::-1])
    told = told_preprocessing(prototxt)
    return params, told or Preprocessing(_COLOURS[network.name])


def told_preprocessing(prototxt: Mapping[str, Any]) -> Preprocessing | None:
    """The preprocessing that a .prototxt describes, for RGB images.

    It is in the `transform_param` of a layer that reads data: mean values, which Caffe
    subtracts, and a scale, with which it multiplies then.

    Args:
      prototxt: the .prototxt, as `caffe_format.read_prototxt` returns it.

    Returns:
      None where the text does not say it, or names a file that has the mean.

    Raises:
      conversion.ConversionError: the mean has neither one nor three values, or the
        scale is not a positive number.
    """
    found, in_file = None, False
    for field in [*prototxt.get("layer", []), *prototxt.get("layers", [])]:
        if _kind(field) not in chains.INPUTS or not _is_in_test(field):
            continue
        for key in ("transform_param", "data_param", "image_data_param"):
            options = field.get(key, [{}])[0]
            if isinstance(options, dict) and {"mean_value", "scale"} & options.keys():
                found = Options(chains.say(_name(field)), options)
                if "mean_file" in options:
                    in_file = True
    if found is None:
        return None
    mean, (scale,) = found.reals("mean_value", (0.0,)), found.reals("scale", (1.0,), 1)
    if len(mean) not in (1, 3) or not 0 < scale < math.inf:
        raise ConversionError(
            f"layer {found.layer}: transform_param has {len(mean)} mean values and "
            f"scale {scale:g}; one or three values and a positive scale are accepted"
        )
    if in_file:
        if scale != 1:
            raise ConversionError(
                f"layer {found.layer}: scale is {scale:g} and the mean is in a file; "
                "with such a file, scale 1 is accepted"
            )
        return None
    blue, green, red = mean * 3 if len(mean) == 1 else mean
    return Preprocessing((red, green, blue), (1 / scale,) * 3)


def _check_known(network: Network) -> None:
    """Raises ConversionError for a network that these formats never held."""
    if network.name not in NETWORKS:
        raise ConversionError(
            f"{network.name} was never published in this format; "
            f"{', '.join(NETWORKS)} were"
        )


def _check_caffe_input(prototxt: Mapping[str, Any], network: Network) -> None:
    """Raises ConversionError if a .prototxt declares another input than the table's."""
    shapes = [prototxt.get("input_dim", [])[:4]]
    shapes += [shape.get("dim", []) for shape in _messages(prototxt, "input_shape")]
    crops = []
    for field in [*prototxt.get("layer", []), *prototxt.get("layers", [])]:
        if _kind(field) not in chains.INPUTS or not _is_in_test(field):
            continue
        for param in _messages(field, "input_param"):
            shapes += [shape.get("dim", []) for shape in _messages(param, "shape")]
        for key in ("transform_param", "data_param", "image_data_param"):
            for param in _messages(field, key):
                crops += param.get("crop_size", [])
    height, width, channels = network.image_shape
    for found in shapes:
        if len(found) == 4 and tuple(found[1:]) != (channels, height, width):
            raise ConversionError(
                f"the file's input is {'x'.join(map(chains.say, found[1:]))}, but "
                f"invjax's {network.name} has {channels}x{height}x{width}"
            )
    for crop in crops:
        if crop not in (0.0, float(height)):
            raise ConversionError(
                f"the file's input is cropped to {chains.say(crop)} pixels, but "
                f"invjax's {network.name} has {height}"
            )


def _messages(field: Mapping[str, Any], key: str) -> list[dict[str, Any]]:
    """The values of a field of a .prototxt that are messages."""
    return [value for value in field.get(key, []) if isinstance(value, dict)]


def _is_in_test(field: Mapping[str, Any]) -> bool:
    """Whether a layer of a .prototxt is there in phase TEST, at level 0, in no stage.

    Caffe includes a layer that has no rule, or for which one `include` rule holds, or
    no `exclude` rule.
    """

    def holds(rule: Mapping[str, Any]) -> bool:
        phase = str(rule.get("phase", ["TEST"])[0])
        lowest, highest = rule.get("min_level", [0.0])[0], rule.get("max_level", [0.0])
        return (
            phase in ("TEST", "1.0")
            and not (isinstance(lowest, float) and lowest > 0)
            and not (isinstance(highest[0], float) and highest[0] < 0)
            and "stage" not in rule
        )

    if includes := _messages(field, "include"):
        return any(map(holds, includes))
    return not any(map(holds, _messages(field, "exclude")))


def _name(field: Mapping[str, Any]) -> str:
    """The name of a layer of a .prototxt."""
    return _string(field.get("name", [""])[-1])


def _string(value: Any) -> str:
    """A string of a .prototxt; a bare number is one as well."""
    return value if isinstance(value, str) else chains.say(value)


def _kind(field: Mapping[str, Any]) -> str:
    """The type of a layer of a .prototxt, in small letters without underlines.

    V1 files may have its number.
    """
    kind = field.get("type", [""])[-1]
    if isinstance(kind, float) and kind in V1_KINDS:
        kind = V1_KINDS[int(kind)]
    return chains.say(kind).replace("_", "").lower()


def _names(field: Mapping[str, Any], key: str) -> tuple[str, ...]:
    """The names of activations in a layer of a .prototxt."""
    return tuple(map(_string, field.get(key, [])))


def _caffe_link(
    field: Mapping[str, Any], weights: Mapping[str, tuple[np.ndarray, ...]]
) -> Link:
    """A layer of a .prototxt with its arrays."""
    kind, name = _kind(field), chains.say(_name(field))
    link = Link(
        name, kind, inputs=_names(field, "bottom"), outputs=_names(field, "top")
    )
    if chains.has_no_part(kind):
        return link
    key = {
        "convolution": "convolution_param",
        "innerproduct": "inner_product_param",
        "pooling": "pooling_param",
        "relu": "relu_param",
        "lrn": "lrn_param",
        "dropout": "dropout_param",
    }.get(kind)
    if key is None:
        if kind in chains.IDLE:
            return link
        return link._replace(kind=chains.say(field.get("type", [""])[-1]))
    record = Options(name, field, _CAFFE_IDLE)
    messages = chains.as_list(record.take(key, [{}]))
    record.finish()
    if len(messages) != 1 or not isinstance(messages[0], dict):
        raise ConversionError(f"layer {name}: {key} is not one message")
    options = Options(name, messages[0], _CAFFE_FILLERS)
    match kind:
        case "convolution" | "innerproduct":
            link = _caffe_weighted(link, options, weights.get(_name(field), ()))
        case "pooling":
            link = _caffe_pool(link, options)
        case "relu":
            (slope,) = options.reals("negative_slope", (0.0,), 1)
            link = link._replace(kind=chains.RELU, options={"negative_slope": slope})
        case "lrn":
            link = link._replace(kind=chains.NORM, options=_caffe_norm(options))
        case "dropout":
            options.take("dropout_ratio")
            if not options.flag("scale_train", True):
                raise ConversionError(
                    f"layer {name}: scale_train false, so that it scales activations "
                    "when the network is evaluated; true is accepted"
                )
    options.finish()
    return link


def _caffe_weighted(
    link: Link, options: Options, blobs: tuple[np.ndarray, ...]
) -> Link:
    """A Convolution or InnerProduct layer."""
    found: dict[str, Option] = {
        chains.OUTPUTS: options.wholes("num_output", (0,))[0],
        "bias": options.flag("bias_term", True),
        "axis": options.wholes("axis", (1,))[0],
    }
    if link.kind == "innerproduct":
        kind = chains.DENSE
        found["transpose"] = options.flag("transpose", False)
    else:
        kind = chains.CONVOLUTION
        top, left = options.both("pad", "pad", 0)
        found |= {
            "kernel": options.both("kernel_size", "kernel", 0),
            "stride": options.both("stride", "stride", 1),
            "padding": (top, top, left, left),
            "dilation": options.pair("dilation", 1),
            "group": options.wholes("group", (1,))[0],
        }
    if len(blobs) != (2 if found["bias"] else 1):
        raise ConversionError(
            f"layer {link.name} has no kernel and bias in the caffemodel"
        )
    kernel, bias = blobs[0], blobs[1] if found["bias"] else None
    if kind == chains.DENSE:
        # V1 files have [1, 1, out, in].
        if kernel.ndim > 2 and kernel.size == math.prod(kernel.shape[-2:]):
            kernel = kernel.reshape(kernel.shape[-2:])
    elif kernel.ndim == 4:
        kernel = convolution(kernel)
    bias = None if bias is None else np.ravel(bias)
    return link._replace(kind=kind, options=found, kernel=kernel, bias=bias)


def _caffe_pool(link: Link, options: Options) -> Link:
    """A Pooling layer."""
    methods = {"MAX": "max", "0": "max", "AVE": "average", "1": "average"}
    is_global = options.flag("global_pooling", False)
    top, left = options.both("pad", "pad", 0)
    found: dict[str, Option] = {
        "method": options.word("pool", methods),
        "kernel": options.both("kernel_size", "kernel", 0),
        "stride": chains.positive(link.name, options.both("stride", "stride", 1)),
        "padding": (top, left),
        "dilation": options.pair("dilation", 1),
        "global_pooling": is_global,
        "axis": options.wholes("axis", (1,))[0],
    }
    # Caffe itself rounds up; two of its descendants have options for rounding down.
    rounding = options.word(
        "round_mode", {"CEIL": "up", "0": "up", "FLOOR": "down", "1": "down"}
    )
    if options.has("ceil_mode"):
        rounding = "up" if options.flag("ceil_mode", True) else "down"
    if rounding not in ("up", "down"):
        raise ConversionError(
            f"layer {link.name}: round_mode is {rounding!r}; CEIL and FLOOR are "
            "accepted"
        )
    return link._replace(
        kind=chains.POOL, options=found, pads=(top, top, left, left), rounding=rounding
    )


def _caffe_norm(options: Options) -> dict[str, Option]:
    """Options of an LRN layer; Caffe's alpha is divided by the size."""
    size = options.wholes("local_size", (5,))[0]
    (alpha,) = options.reals("alpha", (1.0,), 1)
    regions = {
        "ACROSS_CHANNELS": "ACROSS_CHANNELS",
        "0": "ACROSS_CHANNELS",
        "1": "WITHIN_CHANNEL",
    }
    return {
        "norm_region": options.word("norm_region", regions),
        "size": size,
        "alpha / size": alpha / size if size else math.inf,
        "beta": options.reals("beta", (0.75,), 1)[0],
        "kappa": options.reals("k", (1.0,), 1)[0],
    }


def _dagnn_links(net: Mapping[str, Any]) -> Iterator[Link]:
    """The layers of a DagNN model, in the file's order."""
    params = net.get("params", [])
    values = {
        str(param.get("name")): param.get("value")
        for param in chains.as_list(params)
        if isinstance(param, dict)
    }
    simple = {
        "conv": "conv",
        "pooling": "pool",
        "relu": "relu",
        "lrn": "lrn",
        "dropout": "dropout",
    }
    for place, layer in enumerate(net["layers"], start=1):
        kind = str(layer.get("type")).removeprefix("dagnn.")
        names = {
            key: tuple(
                name
                for name in chains.as_list(layer.get(key, []))
                if isinstance(name, str) and name
            )
            for key in ("inputs", "outputs", "params")
        }
        block = layer.get("block")
        record = dict(block) if isinstance(block, dict) else {}
        if "poolSize" in record:
            record["pool"] = record.pop("poolSize")
        missing = [name for name in names["params"] if name not in values]
        if missing:
            raise ConversionError(
                f"layer {chains.say(layer.get('name'))}: its parameter "
                f"{chains.say(missing[0])} is not in the file"
            )
        record |= {
            "name": layer.get("name", ""),
            "type": simple.get(kind.lower(), kind),
            "weights": [values[name] for name in names["params"]],
        }
        yield _matconvnet_link(record, place)._replace(
            inputs=names["inputs"], outputs=names["outputs"]
        )


def _matconvnet_link(layer: Mapping[str, Any], place: int) -> Link:
    """A layer of a SimpleNN model; `place` is its number, from one."""
    name = chains.say(layer.get("name", "")) or f"number {place}"
    kind = chains.say(layer.get("type"))
    link = Link(name, kind.replace("_", "").lower())
    if chains.has_no_part(link.kind):
        return link
    options = Options(name, layer, _MATCONVNET_IDLE)
    _read_arguments(options)
    match link.kind:
        case "conv":
            link = _matconvnet_convolution(link, options)
        case "pool":
            link = _matconvnet_pool(link, options)
        case "normalize" | "lrn":
            default = (5, 1, 0.0001 / 5, 0.75)
            size, kappa, alpha, beta = options.reals("param", default, 4)
            link = link._replace(
                kind=chains.NORM,
                options={"size": size, "kappa": kappa, "alpha": alpha, "beta": beta},
            )
        case "relu":
            (leak,) = options.reals("leak", (0.0,), 1)
            link = link._replace(kind=chains.RELU, options={"leak": leak})
        case _ if link.kind not in chains.IDLE:
            return link._replace(kind=kind)
    # Newer versions give every layer a cell of weights.
    if link.kernel is None and not _is_empty(options.take("weights")):
        raise ConversionError(
            f"layer {name}: {chains.with_article(link.kind)} with weights"
        )
    options.finish()
    return link


def _read_arguments(options: Options) -> None:
    """Moves the arguments in `opts`, which MatConvNet's functions take, to options."""
    arguments = chains.as_list(options.take("opts", []))
    place = 0
    while place < len(arguments):
        word = chains.say(arguments[place]).lower()
        if word in _MATCONVNET_FLAGS or _is_empty(arguments[place]):
            place += 1
        elif word in ("leak", "dilate") and place + 1 < len(arguments):
            options.give(word, arguments[place + 1])
            place += 2
        elif word == "cudnnworkspacelimit":
            place += 2
        else:
            raise ConversionError(
                f"layer {options.layer}: opts has {chains.unknown([word])} not known"
            )


def _matconvnet_convolution(link: Link, options: Options) -> Link:
    """A conv layer; dense layers are convolutions over all of their input."""
    pads = _four(options, options.wholes("pad", (0,)))
    found: dict[str, Option] = {
        "stride": options.pair("stride", 1),
        "padding": pads,
        "dilation": options.pair("dilate", 1),
        "bias": options.flag("hasBias", True),
    }
    stored = options.take("weights", [])
    if not isinstance(stored, list) or not stored:
        stored = [options.take("filters"), options.take("biases")]
    kernel, bias = [*stored, None, None][:2]
    if not _is_numeric(kernel):
        raise ConversionError(f"layer {link.name} has no weights")
    if not _is_numeric(bias):
        found["bias"] = False
        bias = None
    kernel = _single(kernel)
    if kernel.ndim > 4:
        raise ConversionError(f"layer {link.name}: its kernel has {kernel.ndim} sides")
    # MATLAB drops trailing dimensions of length one.
    kernel = kernel.reshape(kernel.shape + (1,) * (4 - kernel.ndim))
    height, width, depth, outputs = map(int, kernel.shape)
    found |= {
        "kernel": (height, width),
        "filter depth": depth,
        chains.OUTPUTS: outputs,
    }
    bias = None if bias is None else _single(bias).ravel()
    return link._replace(
        kind=chains.CONVOLUTION, options=found, kernel=kernel, bias=bias
    )


def _single(array: np.ndarray) -> np.ndarray:
    """An array in single precision, as MatConvNet computes."""
    with np.errstate(over="ignore"):
        return np.asarray(array, np.float32)


def _is_empty(value: Any) -> bool:
    """Whether a value of a .mat file is nothing, or holds nothing."""
    if isinstance(value, np.ndarray):
        return value.size == 0
    return value is None or value == "" or value == []


def _is_numeric(value: Any) -> bool:
    """Whether a value of a .mat file is an array of numbers that is not empty."""
    return (
        isinstance(value, np.ndarray) and value.dtype.kind in "fiu" and value.size > 0
    )


def _matconvnet_pool(link: Link, options: Options) -> Link:
    """A pool layer; MatConvNet rounds sizes down and pads where Caffe rounds up."""
    pads = _four(options, options.wholes("pad", (0,)))
    found: dict[str, Option] = {
        "method": options.word("method", {"max": "max", "avg": "average"}),
        "kernel": options.pair("pool", 1),
        "stride": chains.positive(link.name, options.pair("stride", 1)),
        "padding": (pads[0], pads[2]),
    }
    return link._replace(kind=chains.POOL, options=found, pads=pads)


def _four(options: Options, pads: tuple[int, ...]) -> tuple[int, ...]:
    """MatConvNet's padding as (top, bottom, left, right)."""
    match pads:
        case (every,):
            return (every,) * 4
        case (vertical, horizontal):
            return (vertical, vertical, horizontal, horizontal)
        case (_, _, _, _):
            return pads
    raise ConversionError(
        f"layer {options.layer}: pad has {len(pads)} values; one, two or four are "
        "accepted"
    )
