"""Small weight files in the formats of MatConvNet and Caffe, written independently."""

import pathlib
import struct
from typing import Any, TypeAlias

import numpy as np
import pytest

from invjax.networks import modules
from invjax.networks.layers import (
    Conv,
    Dense,
    LocalResponseNorm,
    MaxPool,
    Network,
    Relu,
)
from invjax.networks.weights import formats

Weights: TypeAlias = dict[str, tuple[np.ndarray, np.ndarray]]
"""(kernel, bias) by layer."""

CHAIN = Network(
    name="caffenet",
    input_size=33,
    layers=(
        Conv("conv1", 8, kernel=5, stride=2),
        Relu("relu1"),
        MaxPool("mpool1", window=3, stride=2),
        LocalResponseNorm("norm1", size=5, kappa=1.0, alpha=2e-5, beta=0.75),
        Conv("conv2", 12, kernel=3, padding=1, groups=2),
        Relu("relu2"),
        Dense("fc6", 10),
        Relu("relu6"),
        Dense("fc7", 4),
    ),
)
"""A small CNN-A. It has the name of the network in whose formats its files are."""


def random_weights(seed: int = 0) -> Weights:
    """CHAIN's weights in Caffe's order: [out, in, h, w], and [out, c h w] if dense."""
    random = np.random.RandomState(seed)
    shapes = {
        "conv1": (8, 3, 5, 5),
        "conv2": (12, 4, 3, 3),
        "fc6": (10, 12 * 7 * 7),
        "fc7": (4, 10),
    }
    return {
        name: (
            random.randn(*shape).astype(np.float32),
            random.randn(shape[0]).astype(np.float32),
        )
        for name, shape in shapes.items()
    }


WEIGHTS = random_weights()


def matconvnet_layers(weights: Weights, *, old: bool = False) -> list[dict[str, Any]]:
    """MatConvNet's structs for CHAIN; old files have other names for the weights."""

    def convolution(
        name: str, kernel: np.ndarray, stride: int, pad: int
    ) -> dict[str, Any]:
        # Kernels are [h, w, in, out]; dense layers are convolutions over all input.
        bias = weights[name][1].reshape(1, -1)
        stored: dict[str, Any] = {"filters": kernel, "biases": bias}
        if not old:
            stored = {"weights": [kernel, bias]}
        row: dict[str, Any] = {
            "type": "conv",
            "name": name,
            "stride": np.array([[stride, stride]]),
        }
        return row | {"pad": np.array([[pad] * 4])} | stored

    fc6 = weights["fc6"][0].reshape(10, 12, 7, 7).transpose(2, 3, 1, 0)
    fc7 = weights["fc7"][0].T.reshape(1, 1, 10, 4)
    param = np.array([[5, 1, 2e-5, 0.75]], np.float32)
    return [
        convolution("conv1", weights["conv1"][0].transpose(2, 3, 1, 0), 2, 0),
        {"type": "relu", "name": "relu1"},
        {
            "type": "pool",
            "name": "pool1",
            "method": "max",
            "pool": np.array([[3, 3]]),
            "stride": 2,
            "pad": np.array([[0, 1, 0, 1]]),
        },
        {"type": "normalize", "name": "norm1", "param": param},
        convolution("conv2", weights["conv2"][0].transpose(2, 3, 1, 0), 1, 1),
        {"type": "relu", "name": "relu2"},
        convolution("fc6", fc6, 1, 0),
        {"type": "relu", "name": "relu6"},
        {"type": "dropout", "name": "dropout6", "rate": 0.5},
        convolution("fc7", fc7, 1, 0),
        {"type": "softmax", "name": "prob"},
    ]


def write_matconvnet(
    path: pathlib.Path,
    rows: list[dict[str, Any]],
    *,
    mean: object,
    size: int = 33,
    meta: bool = True,
) -> pathlib.Path:
    """Writes a SimpleNN model as a file of MATLAB 5."""
    write_mat5(path, simple_model(rows, mean=mean, size=size, meta=meta))
    return path


def simple_model(
    rows: list[dict[str, Any]], *, mean: object, size: int = 33, meta: bool = True
) -> dict[str, Any]:
    """The variables of a SimpleNN model; lists are cells, and dicts are structs."""
    normalization = {
        "averageImage": np.asarray(mean, np.float32),
        "imageSize": np.array([[size, size, 3]], np.float64),
        "interpolation": "bicubic",
    }
    if meta:
        normalization = {
            "meta": {"normalization": normalization, "classes": {"name": "none"}}
        }
    else:
        normalization = {"normalization": normalization}
    return {"layers": rows, **normalization}


def dagnn_model(rows: list[dict[str, Any]], *, mean: object) -> dict[str, Any]:
    """The same as a DagNN, as its method saveobj gives it; tuples are struct arrays."""
    kinds = {
        "conv": "Conv",
        "relu": "ReLU",
        "pool": "Pooling",
        "normalize": "LRN",
        "dropout": "DropOut",
        "softmax": "SoftMax",
    }
    layers, params, before = [], [], "input"
    for place, row in enumerate(rows):
        block = {
            {"pool": "poolSize"}.get(key, key): value
            for key, value in row.items()
            if key not in ("type", "name", "weights")
        }
        names = []
        if row["type"] == "conv":
            block |= {"hasBias": True, "opts": ["cuDNN"], "dilate": np.ones((1, 2))}
            names = [f"{row['name']}f", f"{row['name']}b"]
            params += [
                {
                    "name": name,
                    "value": value,
                    "learningRate": 1.0,
                    "weightDecay": 1.0,
                }
                for name, value in zip(names, row["weights"], strict=True)
            ]
        if row["type"] == "relu":
            block |= {"useShortCircuit": True, "opts": []}
        layers.append(
            {
                "name": row["name"],
                "type": f"dagnn.{kinds[row['type']]}",
                "inputs": [before],
                "outputs": [before := f"x{place}"],
                "params": names,
                "block": block,
            }
        )
    names = ["input", *(f"x{place}" for place in range(len(rows)))]
    return {
        "vars": tuple({"name": name, "precious": False} for name in names),
        "params": tuple(params),
        "layers": tuple(layers),
        "meta": {"normalization": {"averageImage": np.asarray(mean, np.float32)}},
    }


def write_mat5(
    path: pathlib.Path, variables: dict[str, Any], *, compress: bool = False
) -> None:
    """Writes variables with SciPy as a file of MATLAB 5."""
    import scipy.io  # type: ignore[import-untyped]

    values = {name: _for_scipy(value) for name, value in variables.items()}
    scipy.io.savemat(path, values, do_compression=compress)


def _for_scipy(value: Any) -> Any:
    """Lists as cells, tuples as arrays of structs."""
    if isinstance(value, dict):
        return {name: _for_scipy(inner) for name, inner in value.items()}
    if isinstance(value, list):
        cell = np.empty((1, len(value)), object)
        for place, inner in enumerate(value):
            cell[0, place] = _for_scipy(inner)
        return cell
    if isinstance(value, tuple):
        structs = np.empty((1, len(value)), [(name, object) for name in value[0]])
        for place, struct_ in enumerate(value):
            for name, inner in struct_.items():
                structs[name][0, place] = _for_scipy(inner)
        return structs
    return value


PROTOTXT = """
name: "CaffeNet"  # in small
input: "data"
layer { name: "data" type: "Input" input_param { shape: { dim: 1 dim: 3 } } }
layer {
  name: "conv1" type: "Convolution" bottom: "data" top: "conv1"
  param { lr_mult: 1 }
  convolution_param { num_output: 8 kernel_size: 5 stride: 2 }
}
layer { name: "relu1" type: "ReLU" bottom: "conv1" top: "conv1" }
layer {
  name: "pool1" type: "Pooling"
  pooling_param { pool: MAX kernel_size: 3 stride: 2 }
}
layer {
  name: "norm1" type: "LRN" lrn_param { local_size: 5 alpha: 0.0001 beta: 0.75 }
}
layer {
  name: "conv2" type: "Convolution"
  convolution_param { num_output: 12 pad: 1 kernel_size: 3 group: 2 }
}
layer { name: "relu2" type: "ReLU" }
layer { name: "fc6" type: "InnerProduct" inner_product_param { num_output: 10 } }
layer { name: "relu6" type: "ReLU" }
layer { name: "drop6" type: "Dropout" dropout_param { dropout_ratio: 0.5 } }
layer { name: "fc7" type: "InnerProduct" inner_product_param { num_output: 4 } }
layer { name: "prob" type: "Softmax" }
"""

OLD_PROTOTXT = (
    PROTOTXT.replace("layer {", "layers {")
    .replace('"Convolution"', "CONVOLUTION")
    .replace('"InnerProduct"', "INNER_PRODUCT")
    .replace('"Pooling"', "POOLING")
    .replace('"ReLU"', "RELU")
    .replace('"LRN"', "LRN")
    .replace('"Dropout"', "DROPOUT")
    .replace('"Softmax"', "SOFTMAX")
    .replace('"Input"', "DATA")
)

TRAINING_PROTOTXT = """
name: "CaffeNet"
layer {
  name: "data" type: "Data" top: "data" top: "label"
  include { phase: TRAIN }
  transform_param { mirror: true crop_size: 33 mean_file: "mean.binaryproto" }
  data_param { source: "train_lmdb" batch_size: 256 backend: LMDB }
}
layer {
  name: "data" type: "Data" top: "data" top: "label"
  include { phase: TEST }
  transform_param { mirror: false crop_size: 33 mean_file: "mean.binaryproto" }
  data_param { source: "val_lmdb" batch_size: 50 backend: LMDB }
}
layer {
  name: "conv1" type: "Convolution" bottom: "data" top: "conv1"
  param { lr_mult: 1 decay_mult: 1 }
  param { lr_mult: 2 decay_mult: 0 }
  convolution_param {
    num_output: 8 kernel_size: 5 stride: 2
    weight_filler { type: "gaussian" std: 0.01 }
    bias_filler { type: "constant" value: 0 }
  }
}
layer { name: "relu1" type: "ReLU" bottom: "conv1" top: "conv1" }
layer {
  name: "pool1" type: "Pooling" bottom: "conv1" top: "pool1"
  pooling_param { pool: MAX kernel_size: 3 stride: 2 }
}
layer {
  name: "norm1" type: "LRN" bottom: "pool1" top: "norm1"
  lrn_param { local_size: 5 alpha: 0.0001 beta: 0.75 }
}
layer {
  name: "conv2" type: "Convolution" bottom: "norm1" top: "conv2"
  param { lr_mult: 1 decay_mult: 1 }
  convolution_param { num_output: 12 pad: 1 kernel_size: 3 group: 2 engine: CUDNN }
}
layer { name: "relu2" type: "ReLU" bottom: "conv2" top: "conv2" }
layer {
  name: "fc6" type: "InnerProduct" bottom: "conv2" top: "fc6"
  inner_product_param { num_output: 10 weight_filler { type: "xavier" } }
}
layer { name: "relu6" type: "ReLU" bottom: "fc6" top: "fc6" }
layer {
  name: "drop6" type: "Dropout" bottom: "fc6" top: "fc6"
  dropout_param { dropout_ratio: 0.5 }
}
layer {
  name: "fc7" type: "InnerProduct" bottom: "fc6" top: "fc7"
  inner_product_param { num_output: 4 }
}
layer {
  name: "accuracy" type: "Accuracy" bottom: "fc7" bottom: "label" top: "accuracy"
  include { phase: TEST }
}
layer {
  name: "loss" type: "SoftmaxWithLoss" bottom: "fc7" bottom: "label" top: "loss"
  loss_weight: 1
}
"""
"""What Caffe trains with: two layers of data, fillers, a loss, names of activations."""

OLD_TRAINING_PROTOTXT = (
    TRAINING_PROTOTXT.replace("layer {", "layers {")
    .replace("param { lr_mult: 1 decay_mult: 1 }", "blobs_lr: 1 weight_decay: 1")
    .replace("param { lr_mult: 2 decay_mult: 0 }", "blobs_lr: 2 weight_decay: 0")
    .replace('"Convolution"', "CONVOLUTION")
    .replace('"InnerProduct"', "INNER_PRODUCT")
    .replace('"Pooling"', "POOLING")
    .replace('"ReLU"', "RELU")
    .replace('"LRN"', "LRN")
    .replace('"Dropout"', "DROPOUT")
    .replace('"SoftmaxWithLoss"', "SOFTMAX_LOSS")
    .replace('"Accuracy"', "ACCURACY")
    .replace('"Data"', "DATA")
)


def caffemodel(
    weights: Weights, *, old: bool = False, kind: bytes = b"", without_bias: str = ""
) -> bytes:
    """A NetParameter message; old ones have V1 layers and blobs of four sides.

    Args:
      weights: the layers.
      old: whether layers are V1.
      kind: type of all layers; found from their names if empty.
      without_bias: name of a layer whose bias is left out.
    """
    kinds = {"conv": (4, b"Convolution"), "fc": (14, b"InnerProduct")}
    message = _bytes(1, b"CaffeNet")
    for name, (kernel, bias) in weights.items():
        number, word = (4, kind) if kind else kinds[name.rstrip("0123456789")]
        blobs = [_blob(kernel, old), _blob(bias, old)]
        if name == without_bias:
            del blobs[1]
        if old:
            layer = _bytes(2, b"below") + _bytes(3, b"above") + _bytes(4, name.encode())
            layer += _number(5, number) + b"".join(_bytes(6, blob) for blob in blobs)
            layer += _key(7, 5) + struct.pack("<f", 1.0)
            message += _bytes(2, layer)
        else:
            layer = _bytes(1, name.encode()) + _bytes(2, word) + _number(10, 1)
            layer += b"".join(_bytes(7, blob) for blob in blobs)
            message += _bytes(100, layer)
    return message


def _blob(array: np.ndarray, old: bool) -> bytes:
    if old:
        four = (1,) * (4 - array.ndim) + array.shape
        sides = b"".join(_number(i, side) for i, side in enumerate(four, start=1))
        # Some writers did not pack repeated floats.
        values = b"".join(
            _key(5, 5) + struct.pack("<f", value) for value in array.ravel()
        )
        return sides + values
    shape = _bytes(7, _bytes(1, b"".join(_varint(side) for side in array.shape)))
    return _bytes(5, array.astype("<f4").tobytes()) + shape


def _bytes(number: int, data: bytes) -> bytes:
    return _key(number, 2) + _varint(len(data)) + data


def _number(number: int, value: int) -> bytes:
    return _key(number, 0) + _varint(value)


def _key(number: int, wire: int) -> bytes:
    return _varint(number << 3 | wire)


def _varint(value: int) -> bytes:
    encoded = bytearray()
    while value >= 0x80:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


def refused(
    error: type[Exception], path: pathlib.Path, network: Network = CHAIN, **options: Any
) -> str:
    """The one line with which a file is refused."""
    with pytest.raises(error) as caught:
        formats.read(path, network, **options)
    message = str(caught.value)
    assert str(path) in message
    assert "\n" not in message
    return message


def _convolve(
    x: np.ndarray, name: str, stride: int, pad: int, groups: int = 1
) -> np.ndarray:
    """A literal convolution of [c, h, w] in float64, independent of invjax."""
    kernel, bias = (a.astype(np.float64) for a in WEIGHTS[name])
    x = np.pad(x, ((0, 0), (pad, pad), (pad, pad)))
    size, side = kernel.shape[-1], (x.shape[-1] - kernel.shape[-1]) // stride + 1
    outputs, per_group = kernel.shape[0] // groups, x.shape[0] // groups
    y = np.zeros((kernel.shape[0], side, side))
    for i in range(side):
        for j in range(side):
            rows = slice(i * stride, i * stride + size)
            columns = slice(j * stride, j * stride + size)
            for g in range(groups):
                patch = x[g * per_group : (g + 1) * per_group, rows, columns]
                out = slice(g * outputs, (g + 1) * outputs)
                y[out, i, j] = np.tensordot(kernel[out], patch, 3)
    return y + bias[:, None, None]


def original(x: np.ndarray) -> np.ndarray:
    """Caffe's output for an input [h, w, c], every layer by its formula."""
    y = np.maximum(_convolve(x.transpose(2, 0, 1), "conv1", 2, 0), 0)
    y = np.stack(
        [
            [y[:, i : i + 3, j : j + 3].max((1, 2)) for j in range(0, 13, 2)]
            for i in range(0, 13, 2)
        ]
    ).transpose(2, 0, 1)
    sums = np.stack([(y[max(0, c - 2) : c + 3] ** 2).sum(0) for c in range(y.shape[0])])
    y = y / (1 + 1e-4 / 5 * sums) ** 0.75
    y = np.maximum(_convolve(y, "conv2", 1, 1, groups=2), 0)
    y = np.maximum(WEIGHTS["fc6"][0] @ y.ravel() + WEIGHTS["fc6"][1], 0)
    return WEIGHTS["fc7"][0] @ y + WEIGHTS["fc7"][1]


def assert_computes(
    params: dict[str, Any], x: np.ndarray, expected: np.ndarray
) -> None:
    import jax.numpy as jnp

    code = modules.forward(CHAIN.layers, params, jnp.asarray(x))
    scale = np.max(np.abs(expected))
    np.testing.assert_allclose(np.asarray(code) / scale, expected / scale, atol=1e-5)


X = 50 * np.random.RandomState(5).randn(33, 33, 3).astype(np.float32)
