"""Caffe's files give the original's numbers, or are refused in one line."""

import json
import pathlib
from collections.abc import Callable
from typing import TypeAlias

import numpy as np
import pytest

from invjax.networks.layers import Conv, MaxPool, Network, Relu
from invjax.networks.weights import (
    caffe_format,
    caffe_layouts,
    formats,
    pretrained,
)
from invjax.networks.weights.conversion import ConversionError
from invjax.networks.weights.readers import UnreadableWeights
from tests.networks.weights import caffe_makers
from tests.networks.weights.caffe_makers import CHAIN, WEIGHTS, Weights, X

CaffeWriter: TypeAlias = Callable[..., tuple[pathlib.Path, pathlib.Path]]


@pytest.fixture
def caffe(tmp_path: pathlib.Path) -> CaffeWriter:
    def write(
        weights: Weights = WEIGHTS,
        prototxt: str = caffe_makers.PROTOTXT,
        old: bool = False,
    ) -> tuple[pathlib.Path, pathlib.Path]:
        path, text = tmp_path / "net.caffemodel", tmp_path / "net.prototxt"
        path.write_bytes(caffe_makers.caffemodel(weights, old=old))
        text.write_text(prototxt)
        return path, text

    return write


@pytest.mark.parametrize("old", [False, True])
def test_caffe(caffe: CaffeWriter, old: bool) -> None:
    text = caffe_makers.OLD_PROTOTXT if old else caffe_makers.PROTOTXT
    path, prototxt = caffe(prototxt=text, old=old)
    params, preprocessing, _ = formats.read(path, CHAIN, prototxt=prototxt)
    # Caffe's network takes BGR, ours RGB.
    caffe_makers.assert_computes(params, X, caffe_makers.original(X[:, :, ::-1]))
    assert preprocessing is not None
    red, green, blue = preprocessing.mean
    assert red > green > blue


def test_the_original_channel_order_is_recorded(
    caffe: CaffeWriter, tmp_path: pathlib.Path
) -> None:
    path, prototxt = caffe()
    folder = tmp_path / "weights" / CHAIN.name
    pretrained.convert_file(CHAIN, path, folder, prototxt=prototxt)
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["source_channels"] == "BGR"
    assert manifest["preprocessing"]["channels"] == "RGB"
    assert manifest["source_file"] == "net.caffemodel"


def test_damaged_caffemodels(caffe: CaffeWriter) -> None:
    path, prototxt = caffe()
    data = path.read_bytes()
    for damaged in (data[:-1], data[: len(data) // 2], b"", b"\xff" * 99, b"text"):
        path.write_bytes(damaged)
        caffe_makers.refused(UnreadableWeights, path, prototxt=prototxt)


@pytest.mark.parametrize(
    "text", ["layer { name: ", "layer { ", "}", "3: 4", "a { b: }"]
)
def test_damaged_prototxts(caffe: CaffeWriter, text: str) -> None:
    path, prototxt = caffe(prototxt=text)
    with pytest.raises(UnreadableWeights, match="not a prototxt"):
        formats.read(path, CHAIN, prototxt=prototxt)


def test_a_caffemodel_that_does_not_fit_its_prototxt(caffe: CaffeWriter) -> None:
    path, prototxt = caffe(prototxt=caffe_makers.PROTOTXT.replace('"fc7"', '"fc9"'))
    message = caffe_makers.refused(ConversionError, path, prototxt=prototxt)
    assert "layer fc9 has no kernel and bias in the caffemodel" in message


def test_caffe_s_normalisation_is_compared(caffe: CaffeWriter) -> None:
    text = caffe_makers.PROTOTXT.replace("0.0001", "0.0005")
    path, prototxt = caffe(prototxt=text)
    message = caffe_makers.refused(ConversionError, path, prototxt=prototxt)
    expected = "layer norm1: alpha / size 0.0001, but invjax's caffenet has 2e-05"
    assert message == f"{path}: {expected}"


def test_a_caffemodel_needs_its_prototxt(caffe: CaffeWriter) -> None:
    path, prototxt = caffe()
    assert "--prototxt" in caffe_makers.refused(UnreadableWeights, path)
    other = path.with_suffix(".mat")
    other.write_bytes(b"MATLAB 5.0 MAT-file".ljust(124) + b"\x00\x01IM")
    assert "--prototxt" in caffe_makers.refused(
        UnreadableWeights, other, prototxt=prototxt
    )


def test_caffe_blobs_in_both_generations(tmp_path: pathlib.Path) -> None:
    for old in (False, True):
        path = tmp_path / f"{old}.caffemodel"
        path.write_bytes(caffe_makers.caffemodel(WEIGHTS, old=old))
        found = caffe_format.read_caffemodel(path)
        assert [layer.name for layer in found] == list(WEIGHTS)
        for layer in found:
            kernel, bias = WEIGHTS[layer.name]
            np.testing.assert_array_equal(layer.blobs[0].ravel(), kernel.ravel())
            np.testing.assert_array_equal(layer.blobs[1].ravel(), bias)


DROPPED = [
    *("SOFTMAX_LOSS", "Softmax", "Accuracy", "Data", "Input", "SoftmaxWithLoss"),
    *("HDF5Data", "ImageData", "MemoryData", "DummyData", "Silence"),
    *("HDF5_DATA", "EUCLIDEAN_LOSS", "SigmoidCrossEntropyLoss", "HINGE_LOSS"),
    *("ContrastiveLoss", "ArgMax", "HDF5Output", "WINDOW_DATA", "InfogainLoss"),
    *("SmoothL1Loss", "MULTINOMIAL_LOGISTIC_LOSS"),
]


@pytest.mark.parametrize("kind", DROPPED)
@pytest.mark.parametrize("form", ['layer {{ name: "x" type: "{}" }}', "{}"])
def test_layers_without_a_part_in_the_function_are_dropped(
    caffe: CaffeWriter, kind: str, form: str
) -> None:
    text = caffe_makers.PROTOTXT + form.format(kind)
    if form == "{}":
        text = caffe_makers.OLD_PROTOTXT + f'layers {{ name: "x" type: {kind} }}'
    _assert_same(caffe(prototxt=text))


def _assert_same(files: tuple[pathlib.Path, pathlib.Path], *, last: str = "") -> None:
    """Asserts that files give the weights of CHAIN, without `last` if one is named."""
    path, prototxt = files
    params = formats.read(path, CHAIN, prototxt=prototxt).params
    assert list(params) == [name for name in WEIGHTS if name != last]
    for name, leaves in params.items():
        kernel, bias = WEIGHTS[name]
        np.testing.assert_array_equal(leaves["bias"], bias)
        np.testing.assert_allclose(leaves["kernel"].sum(), kernel.sum(), rtol=1e-3)


@pytest.mark.parametrize(
    ("text", "old"),
    [
        (caffe_makers.TRAINING_PROTOTXT, False),
        (caffe_makers.OLD_TRAINING_PROTOTXT, True),
        (caffe_makers.OLD_PROTOTXT.replace("CONVOLUTION", "4"), True),
        (caffe_makers.PROTOTXT, True),
        (caffe_makers.OLD_PROTOTXT, False),
    ],
)
def test_training_and_deploy_prototxts_of_both_generations(
    caffe: CaffeWriter, text: str, old: bool
) -> None:
    path, prototxt = caffe(prototxt=text, old=old)
    params = formats.read(path, CHAIN, prototxt=prototxt).params
    expected = caffe_makers.original(X[:, :, ::-1])
    caffe_makers.assert_computes(params, X, expected)


def test_data_layers_of_unknown_kinds_are_dropped(caffe: CaffeWriter) -> None:
    text = caffe_makers.TRAINING_PROTOTXT.replace('type: "Data"', 'type: "Python"')
    _assert_same(caffe(prototxt=text.replace("data_param", "python_param")))


OURS = "but invjax's caffenet has"


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ("group: 2", "group: 1", f"layer conv2: group 1, {OURS} 2"),
        ("group: 2", "", f"layer conv2: group 1, {OURS} 2"),
        ("group: 2", "group: 2 dilation: 2", f"layer conv2: dilation 2, {OURS} 1"),
        (
            "group: 2",
            "group: 2 dilation: 1 dilation: 3",
            f"layer conv2: dilation 1x3, {OURS} 1",
        ),
        ("pad: 1", "pad: 2", f"layer conv2: padding 2, {OURS} 1"),
        ("pad: 1", "", f"layer conv2: padding 0, {OURS} 1"),
        ("pad: 1", "pad_h: 1", f"layer conv2: padding 1x1x0x0, {OURS} 1"),
        ("pad: 1", "pad: 1 pad: 2", f"layer conv2: padding 1x1x2x2, {OURS} 1"),
        (
            "kernel_size: 5 stride: 2",
            "kernel_size: 5",
            f"layer conv1: stride 1, {OURS} 2",
        ),
        (
            "kernel_size: 5 stride: 2",
            "kernel_size: 5 stride_h: 2 stride_w: 3",
            f"layer conv1: stride 2x3, {OURS} 2",
        ),
        (
            "kernel_size: 5 stride: 2",
            "kernel_h: 5 kernel_w: 7 stride: 2",
            f"layer conv1: kernel 5x7, {OURS} 5",
        ),
        (
            "kernel_size: 5 stride: 2",
            "stride: 2",
            f"layer conv1: kernel 0, {OURS} 5",
        ),
        ("num_output: 8", "num_output: 9", f"layer conv1: outputs 9, {OURS} 8"),
        ("num_output: 8", "num_output: 8 axis: 2", f"conv1: axis 2, {OURS} 1"),
        ("num_output: 10", "num_output: 10 axis: 2", f"fc6: axis 2, {OURS} 1"),
        (
            "num_output: 10",
            "num_output: 10 transpose: true",
            f"layer fc6: transpose true, {OURS} false",
        ),
        (
            '"relu1" type: "ReLU"',
            '"relu1" type: "ReLU" relu_param { negative_slope: 0.1 }',
            f"layer relu1: negative_slope 0.1, {OURS} 0",
        ),
        ("pool: MAX", "pool: AVE", f"layer pool1: method average, {OURS} max"),
        ("pool: MAX", "pool: 1", f"layer pool1: method average, {OURS} max"),
        ("pool: MAX", "pool: STOCHASTIC", f"method STOCHASTIC, {OURS} max"),
        ("pool: MAX", "pad: 1", f"layer pool1: padding 1, {OURS} 0"),
        ("pool: MAX", "pad_w: 1", f"layer pool1: padding 0x1, {OURS} 0"),
        (
            "pool: MAX",
            "global_pooling: true",
            f"layer pool1: global_pooling true, {OURS} false",
        ),
        ("pool: MAX kernel_size: 3", "kernel_size: 2", f"pool1: kernel 2, {OURS} 3"),
        (
            "kernel_size: 3 stride: 2",
            "kernel_size: 3",
            f"layer pool1: stride 1, {OURS} 2",
        ),
        (
            "alpha: 0.0001",
            "alpha: 0.0001 norm_region: WITHIN_CHANNEL",
            f"layer norm1: norm_region WITHIN_CHANNEL, {OURS} ACROSS_CHANNELS",
        ),
        (
            "alpha: 0.0001",
            "alpha: 0.0001 norm_region: 1",
            f"layer norm1: norm_region WITHIN_CHANNEL, {OURS} ACROSS_CHANNELS",
        ),
        ("alpha: 0.0001", "", f"layer norm1: alpha / size 0.2, {OURS} 2e-05"),
        ("beta: 0.75", "beta: 0.5", f"layer norm1: beta 0.5, {OURS} 0.75"),
        ("beta: 0.75", "k: 2", f"layer norm1: kappa 2, {OURS} 1"),
        ("local_size: 5", "local_size: 3", f"layer norm1: size 3, {OURS} 5"),
        (
            '"ReLU" }\nlayer {\n  name: "pool1"',
            '"PReLU" }\nlayer {\n  name: "pool1"',
            f"layer relu1: a PReLU layer, {OURS} a ReLU layer there, relu1",
        ),
        (
            "dropout_ratio: 0.5",
            "dropout_ratio: 0.5 scale_train: false",
            "layer drop6: scale_train false",
        ),
    ],
)
def test_every_option_that_changes_the_function_is_compared(
    caffe: CaffeWriter, before: str, after: str, message: str
) -> None:
    text = caffe_makers.PROTOTXT.replace(
        '"relu1" type: "ReLU" bottom: "conv1" top: "conv1"', '"relu1" type: "ReLU"'
    )
    assert before in text
    path, prototxt = caffe(prototxt=text.replace(before, after, 1))
    assert message in caffe_makers.refused(ConversionError, path, prototxt=prototxt)


def test_a_layer_without_bias_is_refused(tmp_path: pathlib.Path) -> None:
    text = tmp_path / "net.prototxt"
    text.write_text(
        caffe_makers.PROTOTXT.replace("num_output: 10", "num_output: 10 bias_term: 0")
    )
    path = tmp_path / "net.caffemodel"
    path.write_bytes(caffe_makers.caffemodel(WEIGHTS, without_bias="fc6"))
    message = caffe_makers.refused(ConversionError, path, prototxt=text)
    assert f"layer fc6: bias false, {OURS} true" in message


@pytest.mark.parametrize(
    ("before", "after", "option"),
    [
        ('"relu2" type: "ReLU"', '"relu2" type: "ReLU" engine_xyz: 3', "engine_xyz"),
        ("group: 2", "group: 2 fuse_type: FUSED_CONV_RELU", "fuse_type"),
        ("alpha: 0.0001", "alpha: 0.0001 epsilon: 1e-5", "epsilon"),
        ("dropout_ratio: 0.5", "sample_weights_test: true", "sample_weights_test"),
        ("num_output: 4", "num_output: 4 normalize: true", "normalize"),
        ('type: "Pooling"', 'type: "Pooling" reshape_param { }', "reshape_param"),
    ],
)
def test_options_that_are_not_known_are_refused_by_name(
    caffe: CaffeWriter, before: str, after: str, option: str
) -> None:
    assert before in caffe_makers.PROTOTXT
    path, prototxt = caffe(prototxt=caffe_makers.PROTOTXT.replace(before, after))
    message = caffe_makers.refused(ConversionError, path, prototxt=prototxt)
    assert f"has an option {option} that is not known" in message


def test_options_of_the_network_that_are_not_known(caffe: CaffeWriter) -> None:
    path, prototxt = caffe(prototxt="quantised: true xyz: 1" + caffe_makers.PROTOTXT)
    message = caffe_makers.refused(ConversionError, path, prototxt=prototxt)
    assert "the prototxt has options quantised, xyz that are not known" in message


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("group: 2", "group: 2 dilation: 1 engine: CAFFE force_nd_im2col: true"),
        ("group: 2", "group: 2 pad_h: 1 pad_w: 1 stride_h: 1 stride_w: 1"),
        ("pad: 1 kernel_size: 3", "pad: [1, 1] kernel_h: 3 kernel_w: 3"),
        ("pool: MAX", "pool: 0 engine: CUDNN global_pooling: false"),
        ("pool: MAX", "round_mode: FLOOR"),  # 13 pixels, window 3, stride 2: no rest
        ("pool: MAX", "ceil_mode: false"),
        ("pool: MAX", "pad: 0"),
        ("beta: 0.75", ""),
        ("local_size: 5", "norm_region: ACROSS_CHANNELS k: 1"),
        ('"relu2" type: "ReLU"', '"relu2" type: "ReLU" relu_param { engine: CUDNN }'),
        ('"relu2" type: "ReLU"', '"relu2" type: "ReLU" relu_param {negative_slope: 0}'),
        ("dropout_ratio: 0.5", "dropout_ratio: 0.9 scale_train: true"),
        ('"relu2" type: "ReLU"', '"relu2" type: "ReLU" engine: "MKL2017"'),
        ('"fc7" type', '"fc7" phase: TEST propagate_down: true loss_weight: 0 type'),
    ],
)
def test_options_that_change_nothing_are_accepted(
    caffe: CaffeWriter, before: str, after: str
) -> None:
    assert before in caffe_makers.PROTOTXT
    text = caffe_makers.PROTOTXT.replace(before, after)
    if "pad_h" in after:
        text = text.replace("pad: 1 ", "")
    _assert_same(caffe(prototxt=text))


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ("stride: 2", "stride: 2 stride_h: 2", "has both stride and stride_h"),
        ("kernel_size: 5", "kernel_size: 2.5", "kernel_size is 2.5; whole numbers"),
        ("kernel_size: 5", "kernel_size: many", "kernel_size is 'many', not a number"),
        ("kernel_size: 5", "kernel_size: { }", "kernel_size is '{}', not a number"),
        ("stride: 2 }", "stride: 0 } #", "stride is 0; 1 is the least"),
        ("alpha: 0.0001", "alpha: 1 alpha: 2", "alpha has 2 values, not 1"),
        ("pool: MAX", "global_pooling: perhaps", "is 'perhaps'; true and false are"),
        ("pool: MAX", "round_mode: UP", "round_mode is 'UP'; CEIL and FLOOR are"),
        ("lrn_param {", "lrn_param: 3 include {", "lrn_param is not one message"),
    ],
)
def test_options_without_sense(
    caffe: CaffeWriter, before: str, after: str, message: str
) -> None:
    text = caffe_makers.PROTOTXT
    if before == "stride: 2 }":
        before, after = "stride: 2 }", "stride: 0 }"
        head, tail = text.split("pooling_param", 1)
        text = head + "pooling_param" + tail.replace(before, after, 1)
    else:
        assert before in text
        text = text.replace(before, after, 1)
    path, prototxt = caffe(prototxt=text)
    assert message in caffe_makers.refused(ConversionError, path, prototxt=prototxt)


ROUNDED = Network(
    name="vgg_m",
    input_size=8,
    layers=(
        Conv("conv1", 2, kernel=1),
        Relu("relu1"),
        MaxPool("pool1", window=3, stride=2, padding=(0, 1)),
        Conv("conv2", 2, kernel=1),
    ),
)
ROUNDED_PROTOTXT = """
layer {
  name: "a" type: "Convolution" convolution_param { num_output: 2 kernel_size: 1 }
}
layer { name: "b" type: "ReLU" }
layer { name: "c" type: "Pooling" pooling_param { kernel_size: 3 stride: 2 EXTRA } }
layer {
  name: "d" type: "Convolution" convolution_param { num_output: 2 kernel_size: 1 }
}
"""
ROUNDED_WEIGHTS = {
    "a": (np.ones((2, 3, 1, 1), np.float32), np.zeros(2, np.float32)),
    "d": (np.ones((2, 2, 1, 1), np.float32), np.zeros(2, np.float32)),
}


@pytest.mark.parametrize("extra", ["", "round_mode: CEIL", "round_mode: 0"])
def test_caffe_rounds_the_sizes_of_pools_up(tmp_path: pathlib.Path, extra: str) -> None:
    path, text = tmp_path / "net.caffemodel", tmp_path / "net.prototxt"
    path.write_bytes(caffe_makers.caffemodel(ROUNDED_WEIGHTS, kind=b"Convolution"))
    text.write_text(ROUNDED_PROTOTXT.replace("EXTRA", extra))
    assert list(formats.read(path, ROUNDED, prototxt=text).params) == ["conv1", "conv2"]


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        ("round_mode: FLOOR", "layer c: output size 3, rounded down, "),
        ("ceil_mode: false", "layer c: output size 3, rounded down, "),
        ("pad: 1", "layer c: padding 1, "),
    ],
)
def test_rounding_of_pools_is_compared_where_it_matters(
    tmp_path: pathlib.Path, extra: str, message: str
) -> None:
    path, text = tmp_path / "net.caffemodel", tmp_path / "net.prototxt"
    path.write_bytes(caffe_makers.caffemodel(ROUNDED_WEIGHTS, kind=b"Convolution"))
    text.write_text(ROUNDED_PROTOTXT.replace("EXTRA", extra))
    found = caffe_makers.refused(ConversionError, path, ROUNDED, prototxt=text)
    assert message in found and "invjax's vgg_m has " in found


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        (  # the activation before the normalisation is taken
            'bottom: "norm1" top: "conv2"',
            'bottom: "pool1" top: "conv2"',
            "layer conv2: takes pool1, but the layer before it, norm1, gives norm1",
        ),
        (  # a ReLU that is not in place, and then is passed by
            'type: "ReLU" bottom: "conv2" top: "conv2"',
            'type: "ReLU" bottom: "conv2" top: "relu2"',
            "layer fc6: takes conv2, but the layer before it, relu2, gives relu2",
        ),
        (
            'bottom: "conv2" top: "fc6"',
            'bottom: "conv2" bottom: "pool1" top: "fc6"',
            "layer fc6: takes 2 inputs",
        ),
        (
            'type: "Dropout" bottom: "fc6" top: "fc6"',
            'type: "Softmax" bottom: "fc6" top: "fc6"',
            "layer fc7: comes after drop6, a softmax layer",
        ),
        (
            'type: "Dropout" bottom: "fc6" top: "fc6"',
            'type: "Softmax" bottom: "fc6" top: "p"',
            None,
        ),
        (
            'type: "Dropout" bottom: "fc6" top: "fc6"',
            'type: "Dropout" bottom: "fc6" top: "p"',
            None,
        ),
    ],
)
def test_what_a_layer_takes_is_compared(
    caffe: CaffeWriter, before: str, after: str, message: str | None
) -> None:
    text = caffe_makers.TRAINING_PROTOTXT
    assert before in text
    if "Softmax" in after:
        text = text.replace("dropout_param { dropout_ratio: 0.5 }", "")
    files = caffe(prototxt=text.replace(before, after))
    if message is None:
        _assert_same(files)
    else:
        path, prototxt = files
        assert message in caffe_makers.refused(ConversionError, path, prototxt=prototxt)


def test_a_softmax_between_layers_without_names_of_activations(
    caffe: CaffeWriter,
) -> None:
    text = caffe_makers.PROTOTXT.replace(
        '"drop6" type: "Dropout"', '"p" type: "Softmax"'
    )
    path, prototxt = caffe(prototxt=text)
    message = caffe_makers.refused(ConversionError, path, prototxt=prototxt)
    assert "layer fc7: comes after p, a softmax layer" in message


@pytest.mark.parametrize(
    ("rule", "is_there"),
    [
        ("include { phase: TRAIN }", False),
        ("include: { phase: 0 }", False),
        ("exclude { phase: TEST }", False),
        ('include { stage: "deploy" }', False),
        ("include { min_level: 1 }", False),
        ("include { phase: TRAIN } include { phase: TEST }", True),
        ("include { phase: TEST }", True),
        ("exclude { phase: TRAIN }", True),
        ('exclude { stage: "deploy" }', True),
    ],
)
def test_layers_of_other_phases_are_left_out(
    caffe: CaffeWriter, rule: str, is_there: bool
) -> None:
    extra = f'layer {{ name: "x" type: "Sigmoid" {rule} }} layer {{ name: "fc7"'
    path, prototxt = caffe(
        prototxt=caffe_makers.PROTOTXT.replace('layer { name: "fc7"', extra)
    )
    if is_there:
        message = caffe_makers.refused(ConversionError, path, prototxt=prototxt)
        assert f"layer x: a Sigmoid layer, {OURS} a dense layer there, fc7" in message
    else:
        _assert_same((path, prototxt))


def _bytes(text: str, encoding: str) -> bytes:
    return text.replace("\n", "\r\n").encode(encoding)


@pytest.mark.parametrize(
    "data",
    [
        _bytes(caffe_makers.PROTOTXT, "utf-8"),
        _bytes(caffe_makers.PROTOTXT, "utf-8-sig"),
        _bytes(caffe_makers.PROTOTXT, "utf-16"),
        b"\xfe\xff" + _bytes(caffe_makers.PROTOTXT, "utf-16-be"),
        _bytes("# f\xfcr Bilder, gr\xf6\xdfer\n" + caffe_makers.PROTOTXT, "latin-1"),
        _bytes("# \u4fee\u6539\n" + caffe_makers.PROTOTXT, "gbk"),
        caffe_makers.PROTOTXT.replace("\n", "\r").replace("# in small", "").encode(),
    ],
)
def test_prototxts_that_editors_saved(caffe: CaffeWriter, data: bytes) -> None:
    files = caffe()
    files[1].write_bytes(data)
    _assert_same(files)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ('"', "'"),
        (" }", "; }"),
        ("stride: 2", "stride: 2, "),
        ("layer {", "layer: {"),
        ("pooling_param {", "pooling_param: {"),
        ("alpha: 0.0001", "alpha: 1e-4f"),
        ("num_output: 10", "num_output: 0xA"),
        ('"CaffeNet"', "\"Caf\" 'feNet'"),
        ('"CaffeNet"', r'"a \"quoted\" name with } and # \' in it"'),
        ("pad: 1", "pad: [1]"),
        ("kernel_size: 3 stride: 2 }", "kernel_size: 3 stride: 2 pad: [] }"),
        (
            "{ local_size: 5 alpha: 0.0001 beta: 0.75 }",
            "< local_size: 5; alpha: 0.0001, beta: 0.75 >",
        ),
        ("dim: 1 dim: 3", "dim: [ 1, 3 ]"),
        (" {", "\t{"),
        ("layer {", "layer#comment { }\n{"),
    ],
)
def test_all_forms_of_protobuf_text(
    caffe: CaffeWriter, before: str, after: str
) -> None:
    assert before in caffe_makers.PROTOTXT
    text = caffe_makers.PROTOTXT.replace(before, after)
    _assert_same(caffe(prototxt=text))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('layer {\n  name: "a', "line 2: it has a string without its closing quote"),
        ("layer {\n  name: 3\n", "line 2: it lacks a closing brace"),
        ("layer { }\n}", "line 2: it has a closing brace too many"),
        ("layer { }\n\n3: 4", "line 3: '3' is not a field name"),
        ("layer { a 3 }", "'3' stands where a value should be"),
        ("layer { a: }", "'}' stands where a value should be"),
        ("layer { a: [1, }", "'}' stands where a value should be"),
        ("layer { a < b: 3 }", "it has a closing brace too many"),
        ("layer", "it ends inside a field"),
        ("a {" * 5000, "more than 100 messages inside each other"),
        ("layer: 3", "it has a layer 3.0 without braces"),
        ("", "it has no layers"),
        ("name: 'x'", "it has no layers"),
        ("net: 'train.prototxt' base_lr: 0.1", "it is a solver's; the file that its"),
        ("layers { layer { name: 'conv1' type: 'conv' } }", "first generation (V0"),
        ("<!DOCTYPE html><html></html>", "it is a web page"),
        ("version https://git-lfs.github.com/spec/v1\noid 3", "a pointer of Git LFS"),
        ("layer {\0}", "it is not text; the .caffemodel is given with --file"),
    ],
)
def test_what_is_no_prototxt(tmp_path: pathlib.Path, text: str, message: str) -> None:
    path = tmp_path / "net.prototxt"
    path.write_text(text)
    with pytest.raises(UnreadableWeights) as caught:
        caffe_format.read_prototxt(path)
    assert message in str(caught.value) and "\n" not in str(caught.value)
    assert str(caught.value).startswith(f"{path}: not a prototxt: ")


def test_a_caffemodel_for_a_prototxt(caffe: CaffeWriter) -> None:
    path, _ = caffe()
    with pytest.raises(UnreadableWeights, match="is given with --file"):
        caffe_format.read_prototxt(path)


V0 = b"\x12\x09\x0a\x07\x0a\x05conv1"
ONNX = b"\x08\x07\x12\x07pytorch\x1a\x031.0\x3a\x02\x0a\x00"


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (V0, "of Caffe's first generation (V0, 2013); upgrade it"),
        (ONNX, "it is an ONNX model"),
        (b"\x08\x64\x12\x03net\x1a\x02\x08\x01", "it is a solver's state"),
        (b"\x08\x01\x10\x03\x2a\x04\0\0\0\0", "it is one array, such as a mean image"),
        (b"\x0a\x03net", "no layer has weights"),
        (b"\xff" * 99, "it is truncated or damaged"),
    ],
)
def test_what_is_no_caffemodel(
    tmp_path: pathlib.Path, data: bytes, message: str
) -> None:
    path = tmp_path / "net.caffemodel"
    path.write_bytes(data)
    with pytest.raises(UnreadableWeights) as caught:
        caffe_format.read_caffemodel(path)
    assert message in str(caught.value) and "\n" not in str(caught.value)
    assert str(caught.value).startswith(f"{path}: ")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "empty"),
        (b"layer { name: 'conv1' }", "a text"),
        (b"<!DOCTYPE html><html><body>404", "a web page"),
        (b"version https://git-lfs.github.com/spec/v1\n", "a pointer of Git LFS"),
        (b"\x89HDF\r\n\x1a\n" + bytes(99), "--prototxt"),
        (b"PK\x03\x04" + bytes(99), "a zip archive"),
        (b"\x1f\x8b" + bytes(99), "compressed"),
        (ONNX, "ONNX"),
        (b"\xff" * 99, "damaged"),
    ],
)
def test_other_files_for_a_caffemodel(
    caffe: CaffeWriter, data: bytes, message: str
) -> None:
    path, prototxt = caffe()
    path.write_bytes(data)
    found = caffe_makers.refused(UnreadableWeights, path, prototxt=prototxt)
    assert message in found


@pytest.mark.parametrize("old", [False, True])
def test_a_caffemodel_cut_off_anywhere(tmp_path: pathlib.Path, old: bool) -> None:
    data = caffe_makers.caffemodel(WEIGHTS, old=old)
    path = tmp_path / "net.caffemodel"
    for length in range(12, len(data), len(data) // 40):
        path.write_bytes(data[:length])
        with pytest.raises(UnreadableWeights, match="truncated or damaged"):
            caffe_format.read_caffemodel(path)


def test_two_layers_of_one_name_are_refused(caffe: CaffeWriter) -> None:
    path, prototxt = caffe()
    data = path.read_bytes()
    path.write_bytes(data + data[data.index(b"\xa2\x06") :])
    message = caffe_makers.refused(ConversionError, path, prototxt=prototxt)
    assert "the caffemodel has two layers conv1" in message


def test_both_generations_in_one_prototxt(caffe: CaffeWriter) -> None:
    path, prototxt = caffe(prototxt=caffe_makers.PROTOTXT + "layers { }")
    message = caffe_makers.refused(ConversionError, path, prototxt=prototxt)
    assert "layers of both generations" in message


@pytest.mark.parametrize(
    "form",
    [
        "input_dim: 10 input_dim: 3 input_dim: {0} input_dim: {0}",
        "input_shape {{ dim: 10 dim: 3 dim: {0} dim: {0} }}",
        'layer {{ type: "Input" input_param {{ shape {{ dim: [1, 3, {0}, {0}] }} }} }}',
        'layer {{ type: "Data" transform_param {{ crop_size: {0} }} }}',
        'layer {{ type: "ImageData" image_data_param {{ crop_size: {0} }} }}',
    ],
)
def test_the_input_s_size_is_compared(caffe: CaffeWriter, form: str) -> None:
    _assert_same(caffe(prototxt=form.format(33) + caffe_makers.PROTOTXT))
    path, prototxt = caffe(prototxt=form.format(32) + caffe_makers.PROTOTXT)
    message = caffe_makers.refused(ConversionError, path, prototxt=prototxt)
    assert "32" in message and "invjax's caffenet has" in message


@pytest.mark.parametrize(
    ("data", "mean", "std"),
    [
        ("transform_param { mean_value: 104 mean_value: 117 mean_value: 123 }", 123, 1),
        ("transform_param { mean_value: [104, 117, 123] scale: 0.5 }", 123, 2),
        ("transform_param { mean_value: 123 }", 123, 1),
        ("transform_param { scale: 0.25 }", 0, 4),
        ("data_param { scale: 0.25 }", 0, 4),
    ],
)
def test_a_training_prototxt_may_tell_the_preprocessing(
    tmp_path: pathlib.Path, data: str, mean: float, std: float
) -> None:
    path = tmp_path / "net.prototxt"
    path.write_text(
        'layer { name: "d" type: "Data" include { phase: TRAIN } '
        f'transform_param {{ mean_value: 1 }} }} layer {{ type: "Data" {data} }}'
    )
    told = caffe_layouts.told_preprocessing(caffe_format.read_prototxt(path))
    assert told is not None
    assert told.mean_colour[0] == mean  # Caffe's values are B, G, R
    assert told.std == (std, std, std)


def test_a_prototxt_that_does_not_tell_the_preprocessing(
    tmp_path: pathlib.Path, caffe: CaffeWriter
) -> None:
    path = tmp_path / "other.prototxt"
    for text in (caffe_makers.PROTOTXT, caffe_makers.TRAINING_PROTOTXT):
        path.write_text(text)
        assert (
            caffe_layouts.told_preprocessing(caffe_format.read_prototxt(path)) is None
        )
    for wrong in ("scale: 0", "scale: -1", "mean_value: 1 mean_value: 2"):
        data = f'layer {{ name: "d" type: "Data" transform_param {{ {wrong} }} }}'
        file, prototxt = caffe(prototxt=data + caffe_makers.PROTOTXT)
        message = caffe_makers.refused(ConversionError, file, prototxt=prototxt)
        assert "layer d: transform_param has" in message
    data = 'layer { type: "Data" transform_param { scale: 0.5 mean_file: "m" } }'
    file, prototxt = caffe(prototxt=data + caffe_makers.PROTOTXT)
    message = caffe_makers.refused(ConversionError, file, prototxt=prototxt)
    assert "scale is 0.5 and the mean is in a file" in message


def test_another_number_of_classes_gives_the_layers_below(caffe: CaffeWriter) -> None:
    weights = dict(WEIGHTS)
    weights["fc7"] = (np.ones((9, 10), np.float32), np.ones(9, np.float32))
    text = caffe_makers.PROTOTXT.replace("num_output: 4", "num_output: 9")
    _assert_same(caffe(weights, text), last="fc7")
    # Any other layer of another width is refused.
    weights["fc6"] = (np.ones((9, 588), np.float32), np.ones(9, np.float32))
    path, prototxt = caffe(weights, text.replace("num_output: 10", "num_output: 9"))
    message = caffe_makers.refused(ConversionError, path, prototxt=prototxt)
    assert f"layer fc6: outputs 9, {OURS} 10" in message


def test_a_dense_layer_that_became_a_convolution(caffe: CaffeWriter) -> None:
    weights = dict(WEIGHTS)
    weights["fc6"] = (WEIGHTS["fc6"][0].reshape(10, 12, 7, 7), WEIGHTS["fc6"][1])
    text = caffe_makers.PROTOTXT.replace(
        '"fc6" type: "InnerProduct" inner_product_param { num_output: 10 }',
        '"fc6" type: "Convolution" convolution_param { num_output: 10 kernel_size: 7 }',
    )
    path, prototxt = caffe(weights, text)
    params = formats.read(path, CHAIN, prototxt=prototxt).params
    caffe_makers.assert_computes(params, X, caffe_makers.original(X[:, :, ::-1]))
    path, prototxt = caffe(
        weights, text.replace("kernel_size: 7", "kernel_size: 7 pad: 1")
    )
    message = caffe_makers.refused(ConversionError, path, prototxt=prototxt)
    assert f"layer fc6: padding 1, {OURS} 0" in message


def test_blobs_that_do_not_have_the_layer_s_shape(caffe: CaffeWriter) -> None:
    weights = dict(WEIGHTS)
    weights["conv2"] = (np.ones((12, 8, 3, 3), np.float32), WEIGHTS["conv2"][1])
    path, prototxt = caffe(weights)
    message = caffe_makers.refused(ConversionError, path, prototxt=prototxt)
    assert "conv2/kernel is (3, 3, 8, 12), not (3, 3, 4, 12)" in message
