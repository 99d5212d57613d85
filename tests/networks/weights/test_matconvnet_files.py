"""MatConvNet's files give the original's numbers, or are refused in one line."""

import json
import pathlib
import struct
import sys
from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
import pytest

from invjax.networks import NETWORKS
from invjax.networks.layers import Conv, MaxPool, Network, Relu
from invjax.networks.weights import (
    caffe_layouts,
    formats,
    matconvnet_format,
    pretrained,
)
from invjax.networks.weights.conversion import ConversionError
from invjax.networks.weights.readers import MissingReader, UnreadableWeights
from tests.networks.weights import caffe_makers, mat73_makers
from tests.networks.weights.caffe_makers import CHAIN, WEIGHTS, X

MatWriter: TypeAlias = Callable[..., pathlib.Path]

COLOUR = [[[123.0, 117.0, 104.0]]]


@pytest.fixture
def mat(tmp_path: pathlib.Path) -> MatWriter:
    pytest.importorskip("scipy")

    def write(rows: list[dict[str, Any]] | None = None, **options: Any) -> pathlib.Path:
        rows = caffe_makers.matconvnet_layers(WEIGHTS) if rows is None else rows
        options = {"mean": COLOUR} | options
        return caffe_makers.write_matconvnet(tmp_path / "net.mat", rows, **options)

    return write


@pytest.mark.parametrize("old", [False, True])
@pytest.mark.parametrize("meta", [False, True])
def test_matconvnet(mat: MatWriter, old: bool, meta: bool) -> None:
    rows = caffe_makers.matconvnet_layers(WEIGHTS, old=old)
    params, preprocessing, _ = formats.read(mat(rows, meta=meta), CHAIN)
    caffe_makers.assert_computes(params, X, caffe_makers.original(X))
    assert preprocessing is not None
    assert preprocessing.mean == (123.0, 117.0, 104.0)
    assert preprocessing.std == (1.0, 1.0, 1.0)


def test_a_mean_image_is_kept_with_the_weights(
    mat: MatWriter, tmp_path: pathlib.Path
) -> None:
    mean = np.random.RandomState(6).uniform(90, 140, (33, 33, 3)).astype(np.float32)
    folder = tmp_path / "weights" / CHAIN.name
    pretrained.convert_file(CHAIN, mat(mean=mean), folder)
    loaded = pretrained.load(CHAIN, "fc7", weights_dir=folder.parent)
    np.testing.assert_array_equal(loaded.preprocessing.mean, mean)
    np.testing.assert_allclose(
        loaded.preprocessing.mean_colour, mean.mean((0, 1)), rtol=1e-5
    )
    assert loaded.params.keys() == {"conv1", "conv2", "fc6", "fc7"}
    assert hash(loaded.preprocessing) != hash(None)
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["preprocessing"]["mean"] == "image"
    assert manifest["source_channels"] == "RGB"
    available = pretrained.available(CHAIN, weights_dir=folder.parent)
    assert available == set(CHAIN.layer_names)


def test_matconvnet_layers_that_differ_are_listed_with_both_sides(
    mat: MatWriter,
) -> None:
    rows = caffe_makers.matconvnet_layers(WEIGHTS)
    rows[2], rows[3] = rows[3], rows[2]  # normalise before pooling: another network
    rows[4]["pad"] = np.array([[2, 2, 2, 2]])
    message = caffe_makers.refused(ConversionError, mat(rows))
    ours = "but invjax's caffenet has"
    assert (
        f"layer norm1: a local response normalisation, {ours} a pool there" in message
    )
    assert f"layer pool1: a pool, {ours} a local response normalisation" in message
    assert f"layer conv2: padding 2, {ours} 1" in message


def test_matconvnet_with_one_layer_less_or_more(mat: MatWriter) -> None:
    rows = caffe_makers.matconvnet_layers(WEIGHTS)
    message = caffe_makers.refused(ConversionError, mat([*rows[:2], *rows[3:]]))
    ours = "but invjax's caffenet"
    assert f"norm1: a local response normalisation, {ours} has a pool there" in message
    assert "mpool1" in message
    message = caffe_makers.refused(
        ConversionError, mat([*rows[:-1], {"type": "relu", "name": "relu7"}])
    )
    assert f"layer relu7: a ReLU layer, {ours} ends with fc7" in message


@pytest.mark.parametrize(("kept", "last"), [(9, "fc6"), (5, "conv2"), (1, "conv1")])
def test_a_file_that_ends_early_gives_the_layers_that_it_has(
    mat: MatWriter, kept: int, last: str
) -> None:
    rows = caffe_makers.matconvnet_layers(WEIGHTS)[:kept]
    params = formats.read(mat(rows), CHAIN).params
    expected = formats.read(mat(), CHAIN).params
    assert list(params)[-1] == last
    for name, leaves in params.items():
        np.testing.assert_array_equal(leaves["kernel"], expected[name]["kernel"])


def test_matconvnet_of_another_shape_size_or_mean(mat: MatWriter) -> None:
    wrong = dict(WEIGHTS)
    wrong["conv1"] = (np.zeros((8, 3, 7, 7), np.float32), WEIGHTS["conv1"][1])
    rows = caffe_makers.matconvnet_layers(wrong)
    message = caffe_makers.refused(ConversionError, mat(rows))
    assert "layer conv1: kernel 7, but invjax's caffenet has 5" in message
    message = caffe_makers.refused(ConversionError, mat(size=40))
    assert "input is (40, 40), not (33, 33)" in message
    message = caffe_makers.refused(ConversionError, mat(mean=np.ones((9, 9, 3))))
    assert "averageImage is (9, 9, 3), not (33, 33, 3)" in message


def test_damaged_mat_files(mat: MatWriter, tmp_path: pathlib.Path) -> None:
    data = mat().read_bytes()
    for name, damaged in {"half": data[: len(data) // 2], "no": b"no"}.items():
        path = tmp_path / f"{name}.mat"
        path.write_bytes(damaged)
        caffe_makers.refused(UnreadableWeights, path)


def test_networks_that_were_never_in_a_format(mat: MatWriter) -> None:
    message = caffe_makers.refused(ConversionError, mat(), NETWORKS["resnet50"])
    assert "resnet50 was never published in this format" in message


FILES = ("5", "5 compressed", "7.3")


def _write(path: pathlib.Path, variables: dict[str, Any], kind: str) -> pathlib.Path:
    if kind == "7.3":
        pytest.importorskip("h5py")
        return mat73_makers.write(path, variables)
    pytest.importorskip("scipy")
    caffe_makers.write_mat5(path, variables, compress=kind == "5 compressed")
    return path


def _rows(**changes: Any) -> list[dict[str, Any]]:
    """CHAIN's layers; `changes` are options by the layer's name."""
    rows = caffe_makers.matconvnet_layers(WEIGHTS)
    for row in rows:
        row |= changes.pop(row["name"], {})
    assert not changes
    return rows


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize("model", ["simple", "old simple", "net", "dagnn", "net dagnn"])
def test_all_kinds_of_models_in_all_kinds_of_files(
    tmp_path: pathlib.Path, file: str, model: str
) -> None:
    rows = caffe_makers.matconvnet_layers(WEIGHTS, old=model == "old simple")
    if "dagnn" in model:
        variables = caffe_makers.dagnn_model(rows, mean=COLOUR)
    else:
        variables = caffe_makers.simple_model(rows, mean=COLOUR)
    if "net" in model:
        variables = {"stats": {"train": [1.0, 2.0]}, "net": variables}
    path = _write(tmp_path / "net.mat", variables, file)
    params, preprocessing, _ = formats.read(path, CHAIN)
    caffe_makers.assert_computes(params, X, caffe_makers.original(X))
    assert preprocessing is not None and preprocessing.mean == (123.0, 117.0, 104.0)


OURS = "but invjax's caffenet has"


DIFFERENCES: list[tuple[str, dict[str, Any], str]] = [
    ("conv2", {"dilate": 2.0}, f"dilation 2, {OURS} 1"),
    ("conv2", {"dilate": np.array([[1, 2]])}, f"dilation 1x2, {OURS} 1"),
    ("conv2", {"opts": ["cuDNN", "dilate", 2.0]}, f"dilation 2, {OURS} 1"),
    ("conv2", {"pad": np.array([[1, 0, 1, 1]])}, f"padding 1x0x1x1, {OURS} 1"),
    ("conv2", {"pad": 0.0}, f"padding 0, {OURS} 1"),
    ("conv2", {"stride": np.array([[1, 2]])}, f"stride 1x2, {OURS} 1"),
    ("conv1", {"stride": 1.0}, f"stride 1, {OURS} 2"),
    ("relu1", {"leak": 0.1}, f"leak 0.1, {OURS} 0"),
    ("relu2", {"opts": ["leak", 0.05]}, f"leak 0.05, {OURS} 0"),
    ("pool1", {"method": "avg"}, f"method average, {OURS} max"),
    ("pool1", {"pool": 2.0}, f"kernel 2, {OURS} 3"),
    ("pool1", {"pool": np.array([[3, 2]])}, f"kernel 3x2, {OURS} 3"),
    ("pool1", {"stride": 3.0}, f"stride 3, {OURS} 2"),
    ("pool1", {"pad": np.array([[1, 0, 0, 0]])}, f"padding 1x0, {OURS} 0"),
    ("pool1", {"pad": np.array([[0, 2, 0, 0]])}, "output size 8x7, rounded down"),
    ("norm1", {"param": np.array([[3, 1, 2e-5, 0.75]])}, f"size 3, {OURS} 5"),
    ("norm1", {"param": np.array([[5, 2, 2e-5, 0.75]])}, f"kappa 2, {OURS} 1"),
    ("norm1", {"param": np.array([[5, 1, 1e-4, 0.75]])}, "alpha 0.0001, but"),
    ("norm1", {"param": np.array([[5, 1, 2e-5, 0.5]])}, f"beta 0.5, {OURS} 0.75"),
    ("fc6", {"pad": 1.0}, f"padding 1, {OURS} 0"),
    ("fc7", {"dilate": 3.0}, f"dilation 3, {OURS} 1"),
    ("relu1", {"type": "sigmoid"}, f"a sigmoid layer, {OURS} a ReLU layer there"),
    ("norm1", {"type": "spnorm"}, f"a spnorm layer, {OURS} a local response"),
    ("norm1", {"type": "bnorm", "epsilon": 1e-4}, f"a bnorm layer, {OURS} a local"),
    ("relu2", {"type": "softmax"}, "comes after relu2, a softmax layer"),
]


@pytest.mark.parametrize(
    ("model", "layer", "options", "message"),
    [
        (model, *difference)
        for model in ("simple", "dagnn")
        for difference in DIFFERENCES
        if model == "simple" or "type" not in difference[1]
    ],
)
def test_every_option_that_changes_the_function_is_compared(
    tmp_path: pathlib.Path,
    layer: str,
    options: dict[str, Any],
    message: str,
    model: str,
) -> None:
    variables = caffe_makers.simple_model(_rows(**{layer: options}), mean=COLOUR)
    if model == "dagnn":
        variables = caffe_makers.dagnn_model(_rows(), mean=COLOUR)
        for row in variables["layers"]:
            if row["name"] == layer:
                renamed = {"pool": "poolSize"}
                row["block"] |= {renamed.get(k, k): v for k, v in options.items()}
    path = _write(tmp_path / "net.mat", variables, "5")
    found = caffe_makers.refused(ConversionError, path)
    assert message in found
    if "comes after" not in message:
        assert f"layer {layer}: " in found


@pytest.mark.parametrize(
    ("layer", "options"),
    [
        ("conv2", {"pad": np.array([[1, 1]])}),
        ("conv2", {"pad": np.uint8(1), "stride": np.uint8(1)}),
        ("conv2", {"opts": ["cuDNN", "CudnnWorkspaceLimit", 1e9]}),
        ("conv2", {"precious": False, "size": np.zeros((1, 4)), "dilate": 1.0}),
        ("conv2", {"learningRate": np.ones((1, 2)), "weightDecay": np.ones((1, 2))}),
        ("relu1", {"leak": 0.0, "weights": [], "precious": True}),
        ("pool1", {"weights": [], "opts": [], "pad": 0.0}),
        ("norm1", {"param": np.array([[5, 1, 2e-5, 0.75]]), "weights": []}),
        ("dropout6", {"rate": 0.9, "frozen": False}),
    ],
)
@pytest.mark.parametrize("file", FILES)
def test_options_that_change_nothing_are_accepted(
    tmp_path: pathlib.Path, layer: str, options: dict[str, Any], file: str
) -> None:
    variables = caffe_makers.simple_model(_rows(**{layer: options}), mean=COLOUR)
    path = _write(tmp_path / "net.mat", variables, file)
    assert list(formats.read(path, CHAIN).params) == list(WEIGHTS)


def test_options_that_are_absent_have_matconvnet_s_defaults(
    tmp_path: pathlib.Path,
) -> None:
    rows = _rows()
    del rows[3]["param"]  # [5 1 2e-5 0.75]
    del rows[2]["method"], rows[2]["pad"]
    for row in rows[6], rows[9]:
        del row["pad"], row["stride"]
    variables = caffe_makers.simple_model(rows, mean=COLOUR)
    path = _write(tmp_path / "net.mat", variables, "5")
    assert list(formats.read(path, CHAIN).params) == list(WEIGHTS)
    del rows[0]["stride"]
    variables = caffe_makers.simple_model(rows, mean=COLOUR)
    path = _write(tmp_path / "net.mat", variables, "5")
    message = caffe_makers.refused(ConversionError, path)
    assert f"layer conv1: stride 1, {OURS} 2" in message


@pytest.mark.parametrize(
    ("layer", "options", "message"),
    [
        ("conv2", {"engine_xyz": 1.0}, "an option engine_xyz that is not known"),
        ("relu1", {"ceiling": 6.0}, "an option ceiling that is not known"),
        ("pool1", {"round_mode": "up", "a": 1.0}, "options a, round_mode that are not"),
        ("dropout6", {"scale": 2.0}, "an option scale that is not known"),
        ("conv2", {"opts": ["transpose"]}, "opts has an option transpose that is"),
        ("conv2", {"pad": np.ones((1, 3))}, "pad has 3 values; one, two or four"),
        ("conv2", {"stride": 1.5}, "stride is 1.5; whole numbers are accepted"),
        ("conv2", {"stride": np.nan}, "stride is 'nan', not a number"),
        ("conv2", {"stride": "two"}, "stride is 'two', not a number"),
        ("pool1", {"stride": 0.0}, "stride is 0; 1 is the least"),
        ("norm1", {"param": np.ones((1, 3))}, "param has 3 values, not 4"),
        ("norm1", {"param": np.ones((99, 99))}, "param has 17 values, not 4"),
        ("conv2", {"weights": []}, "has no weights"),
        ("conv2", {"weights": [np.ones((3, 3, 4, 12))]}, f"bias false, {OURS} true"),
        ("conv2", {"weights": [np.ones((2, 2, 2, 2, 2)), 1.0]}, "kernel has 5 sides"),
        ("relu1", {"weights": [np.ones(3)]}, "a ReLU layer with weights"),
    ],
)
def test_options_without_sense_are_refused_by_name(
    tmp_path: pathlib.Path, layer: str, options: dict[str, Any], message: str
) -> None:
    variables = caffe_makers.simple_model(_rows(**{layer: options}), mean=COLOUR)
    path = _write(tmp_path / "net.mat", variables, "5")
    found = caffe_makers.refused(ConversionError, path)
    assert message in found and f"layer {layer}" in found


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


@pytest.mark.parametrize(
    ("pad", "message"),
    [
        ([0, 1, 0, 1], None),
        ([0, 2, 0, 2], None),  # what the converter of Caffe's files writes
        (
            [0, 0, 0, 0],
            "layer c: output size 3, rounded down, but invjax's vgg_m has 4",
        ),
        ([0, 1, 0, 0], "layer c: output size 4x3, rounded down, but"),
        ([1, 0, 1, 0], "layer c: padding 1, but invjax's vgg_m has 0"),
    ],
)
def test_padding_that_stands_for_rounding_up_is_compared_by_its_effect(
    tmp_path: pathlib.Path, pad: list[int], message: str | None
) -> None:
    weights = [np.ones((1, 1, 3, 2), np.float32), np.zeros((1, 2), np.float32)]
    upper = [np.ones((1, 1, 2, 2), np.float32), np.zeros((1, 2), np.float32)]
    rows: list[dict[str, Any]] = [
        {"type": "conv", "name": "a", "weights": weights},
        {"type": "relu", "name": "b"},
        {"type": "pool", "name": "c", "pool": 3.0, "stride": 2.0, "pad": np.array(pad)},
        {"type": "conv", "name": "d", "weights": upper},
    ]
    variables = caffe_makers.simple_model(rows, mean=COLOUR, size=8)
    path = _write(tmp_path / "net.mat", variables, "5")
    if message is None:
        assert list(formats.read(path, ROUNDED).params) == ["conv1", "conv2"]
    else:
        assert message in caffe_makers.refused(ConversionError, path, ROUNDED)


@pytest.mark.parametrize("file", FILES)
def test_the_layers_of_a_dagnn_come_in_any_order(
    tmp_path: pathlib.Path, file: str
) -> None:
    variables = caffe_makers.dagnn_model(_rows(), mean=COLOUR)
    variables["layers"] = variables["layers"][::-1]
    variables["params"] = variables["params"][::-1]
    path = _write(tmp_path / "net.mat", variables, file)
    params = formats.read(path, CHAIN).params
    caffe_makers.assert_computes(params, X, caffe_makers.original(X))


def _dagnn_refused(path: pathlib.Path, name: str, **changes: Any) -> str:
    """The line that refuses CHAIN's DagNN with changes to one layer."""
    variables = caffe_makers.dagnn_model(_rows(), mean=COLOUR)
    for layer in variables["layers"]:
        if layer["name"] == name:
            layer |= changes
    return caffe_makers.refused(ConversionError, _write(path, variables, "5"))


def test_what_the_layers_of_a_dagnn_take_is_compared(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "net.mat"
    message = _dagnn_refused(path, "fc6", inputs=["x4"])
    assert "layer fc6: takes x4, but the layer before it, relu2, gives x5" in message
    message = _dagnn_refused(path, "fc6", inputs=["x4", "x5"])
    assert "layer fc6: takes 2 inputs" in message
    message = _dagnn_refused(path, "conv1", inputs=["x10"])
    assert "layer conv1: takes what only later layers give" in message
    message = _dagnn_refused(path, "conv2", params=["conv2f", "other"])
    assert "layer conv2: its parameter other is not in the file" in message
    message = _dagnn_refused(path, "conv2", params=["conv2f"])
    assert f"layer conv2: bias false, {OURS} true" in message
    message = _dagnn_refused(path, "conv2", block={"hasBias": False, "pad": 1.0})
    assert f"layer conv2: bias false, {OURS} true" in message
    message = _dagnn_refused(path, "relu2", type="dagnn.Sum")
    assert f"layer relu2: a Sum layer, {OURS} a ReLU layer there, relu2" in message


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize("shape", [(1, 1, 3), (3, 1), (1, 3)])
def test_a_mean_colour_in_any_arrangement(
    tmp_path: pathlib.Path, file: str, shape: tuple[int, ...]
) -> None:
    mean = np.array([123.0, 117.0, 104.0]).reshape(shape)
    variables = caffe_makers.simple_model(_rows()[:2], mean=mean)
    path = _write(tmp_path / "net.mat", variables, file)
    preprocessing = formats.read(path, CHAIN).preprocessing
    assert preprocessing is not None and preprocessing.mean == (123.0, 117.0, 104.0)


@pytest.mark.parametrize("file", FILES)
def test_other_means(tmp_path: pathlib.Path, file: str) -> None:
    image = np.random.RandomState(0).uniform(90, 140, (33, 33, 3)).astype(np.float32)
    for mean, expected in (
        (image, image),
        (np.array([[7.0]]), (7.0, 7.0, 7.0)),
        (np.zeros((0, 0)), (0.0, 0.0, 0.0)),
    ):
        variables = caffe_makers.simple_model(_rows()[:2], mean=mean)
        path = _write(tmp_path / "net.mat", variables, file)
        preprocessing = formats.read(path, CHAIN).preprocessing
        assert preprocessing is not None
        np.testing.assert_array_equal(preprocessing.mean, expected)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("averageImage", "mean.mat", "averageImage is not numeric"),
        ("averageImage", np.array([np.nan, 1, 2]), "values that are not finite"),
        ("averageImage", np.ones((2, 2)), "averageImage is (2, 2), not (33, 33, 3)"),
        ("imageSize", np.array([[32.0, 33.0]]), "input is (32, 33), not (33, 33)"),
        ("imageSize", np.array([[32.0]]), "input is (32,), not (33, 33)"),
        ("imageSize", "big", "imageSize is 'big', not a number"),
    ],
)
def test_normalisation_without_sense(
    tmp_path: pathlib.Path, field: str, value: Any, message: str
) -> None:
    variables = caffe_makers.simple_model(_rows(), mean=COLOUR)
    variables["meta"]["normalization"][field] = value
    path = _write(tmp_path / "net.mat", variables, "5")
    assert message in caffe_makers.refused(ConversionError, path)


def test_a_file_without_a_mean(tmp_path: pathlib.Path) -> None:
    variables = caffe_makers.simple_model(_rows(), mean=COLOUR)
    for left in ({"normalization": {"imageSize": np.array([[33.0, 33.0]])}}, {}):
        path = _write(tmp_path / "net.mat", {**variables, "meta": left}, "5")
        net = matconvnet_format.read_matconvnet(path)
        _, told, documented = caffe_layouts.from_matconvnet(net, CHAIN)
        assert told is None
        red, green, blue = documented.mean_colour
        assert red > green > blue


def test_another_number_of_classes_gives_the_layers_below(
    tmp_path: pathlib.Path,
) -> None:
    fc7 = [np.ones((1, 1, 10, 9), np.float32), np.ones((1, 9), np.float32)]
    variables = caffe_makers.simple_model(_rows(fc7={"weights": fc7}), mean=COLOUR)
    path = _write(tmp_path / "net.mat", variables, "5")
    assert list(formats.read(path, CHAIN).params) == ["conv1", "conv2", "fc6"]
    fc6 = [np.ones((7, 7, 12, 9), np.float32), np.ones((1, 9), np.float32)]
    variables = caffe_makers.simple_model(_rows(fc6={"weights": fc6}), mean=COLOUR)
    path = _write(tmp_path / "net.mat", variables, "5")
    message = caffe_makers.refused(ConversionError, path)
    assert f"layer fc6: outputs 9, {OURS} 10" in message


def _unreadable(path: pathlib.Path) -> str:
    with pytest.raises(UnreadableWeights) as caught:
        matconvnet_format.read_matconvnet(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: not a MatConvNet model: ")
    assert "\n" not in message
    return message


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "it is empty"),
        (b"MATLAB 7.3 MAT-file".ljust(600), "it is truncated or damaged"),
        (b"MATLAB 5.0 MAT-file", "it is truncated or damaged"),
        (b"\x89HDF\r\n\x1a\n" + bytes(200), "it is truncated or damaged"),
        (b"\xde\xad\xbe\xef" * 99, "it is no .mat file"),
    ],
)
def test_what_is_no_mat_file(tmp_path: pathlib.Path, data: bytes, message: str) -> None:
    path = tmp_path / "net.mat"
    path.write_bytes(data)
    if b"HDF" in data:
        pytest.importorskip("h5py")
    assert message in _unreadable(path)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "empty"),
        (b"no", "a text"),
        (b"# Created by Octave 8\n# name: net\n# type: struct\n", "a text"),
        (b"<!DOCTYPE html><html>", "a web page"),
        (b"version https://git-lfs.github.com/spec/v1\n", "a pointer of Git LFS"),
        (b"\x1f\x8b\x08" + bytes(200), "compressed"),
        (b"PK\x03\x04" + bytes(200), "a zip archive"),
    ],
)
def test_other_files_for_a_mat_file(
    tmp_path: pathlib.Path, data: bytes, message: str
) -> None:
    path = tmp_path / "net.mat"
    path.write_bytes(data)
    assert message in caffe_makers.refused(UnreadableWeights, path)


def test_files_of_matlab_4(tmp_path: pathlib.Path) -> None:
    scipy_io = pytest.importorskip("scipy.io")
    path = tmp_path / "net.mat"
    scipy_io.savemat(path, {"layers": np.ones((3, 3))}, format="4")
    assert "it is of MATLAB 4, which has no structs; save it with -v7" in _unreadable(
        path
    )


@pytest.mark.parametrize("file", FILES)
def test_which_variable_is_the_model(tmp_path: pathlib.Path, file: str) -> None:
    path = tmp_path / "net.mat"
    model = caffe_makers.simple_model(_rows()[:2], mean=COLOUR)
    read = matconvnet_format.read_matconvnet
    for variables in ({"cnn": model, "info": {"a": 1.0}}, {"net": model, "old": model}):
        assert len(read(_write(path, variables, file))["layers"]) == 2
    _write(path, {"net1": model, "net2": model}, file)
    assert "it has several, 'net1', 'net2'; one called net is" in _unreadable(path)
    _write(path, {"data": {"conv1": np.ones((2, 2))}, "x": 1.0}, file)
    assert "it has no layers but 'data', 'x'" in _unreadable(path)
    _write(path, {"layers": np.ones((2, 2))}, file)
    assert "its layers are not structs" in _unreadable(path)
    one = {"layers": {"type": "relu", "name": "a"}}
    assert read(_write(path, one, file))["layers"][0]["name"] == "a"


def test_hdf5_files_of_other_programs(tmp_path: pathlib.Path) -> None:
    h5py = pytest.importorskip("h5py")
    path = tmp_path / "net.caffemodel.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("data/conv1/0", data=np.ones((2, 2)))
    assert "no layers but 'data', and MATLAB did not write it" in _unreadable(path)


def test_a_matlab_object(tmp_path: pathlib.Path) -> None:
    h5py = pytest.importorskip("h5py")
    path = mat73_makers.write(tmp_path / "net.mat", {"net": np.ones((1, 6), np.uint32)})
    with h5py.File(path, "r+") as file:
        del file["net"]
        group = file.create_group("net")
        group.attrs["MATLAB_class"] = np.bytes_("dagnn.DagNN")
    assert "it has a MATLAB object; save it again with: net = net.saveobj();" in (
        _unreadable(path)
    )


def test_a_file_of_matlab_7_3_without_h5py(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = caffe_makers.simple_model(_rows(), mean=COLOUR)
    path = _write(tmp_path / "net.mat", model, "7.3")
    monkeypatch.setitem(sys.modules, "h5py", None)
    message = caffe_makers.refused(MissingReader, path)
    assert "run: pip install h5py; or save the file again in MATLAB with -v7" in message


@pytest.mark.parametrize("file", FILES)
def test_a_mat_file_cut_off_anywhere(tmp_path: pathlib.Path, file: str) -> None:
    path = tmp_path / "net.mat"
    _write(path, caffe_makers.simple_model(_rows()[:3], mean=COLOUR), file)
    data = path.read_bytes()
    for length in range(130, len(data) - 8, len(data) // 30):
        path.write_bytes(data[:length])
        _unreadable(path)


def _same(found: Any, expected: Any) -> None:
    """Asserts that values are what SciPy gives for them."""
    if isinstance(expected, dict):
        assert list(found) == list(expected)
        for name in expected:
            _same(found[name], expected[name])
    elif isinstance(expected, list | tuple):
        assert len(found) == len(expected)
        for one, other in zip(found, expected, strict=True):
            _same(one, other)
    elif isinstance(expected, str):
        assert found == expected
    else:
        assert isinstance(found, np.ndarray)
        np.testing.assert_array_equal(found, np.atleast_2d(expected), strict=True)


VALUES: dict[str, Any] = {
    "numbers": [
        np.arange(24, dtype=kind).reshape(2, 3, 4)
        for kind in ("f8", "f4", "i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8")
    ],
    "texts": ["", "a", "name of a layer", "\u00fc\u4fee", "x" * 300],
    "scalar": np.float64(3),
    "short": np.array([[1, 2]], np.uint8),
    "nested": {"a": {"b": [{"c": 1.0}, [], [np.ones((0, 0))]]}, "d": "e"},
    "structs": ({"p": 1.0, "q": "r"}, {"p": 2.0, "q": "s"}, {"p": [], "q": ""}),
    "long": np.random.RandomState(0).randn(50, 40).astype(np.float32),
}


@pytest.mark.parametrize("file", FILES)
def test_values_are_those_that_were_written(tmp_path: pathlib.Path, file: str) -> None:
    path = _write(tmp_path / "net.mat", {"layers": VALUES, "x": 1.0}, file)
    (found,) = matconvnet_format.read_matconvnet(path)["layers"]
    assert found.keys() == VALUES.keys()
    for name, value in VALUES.items():
        if isinstance(value, np.ndarray) and file != "7.3":
            assert found[name].dtype == value.dtype
        _same(found[name], value)


def _element(order: str, kind: int, data: bytes) -> bytes:
    return struct.pack(f"{order}II", kind, len(data)) + data.ljust(
        -(-len(data) // 8) * 8
    )


@pytest.mark.parametrize("order", ["<", ">"])
def test_files_as_matlab_writes_them(tmp_path: pathlib.Path, order: str) -> None:
    """Doubles as bytes, short elements inside the tag, either order, UTF-8 text."""

    def matrix(kind: int, sides: tuple[int, ...], name: bytes, rest: bytes) -> bytes:
        flags = struct.pack(f"{order}II", kind, 0)
        dims = struct.pack(f"{order}{len(sides)}i", *sides)
        parts = _element(order, 6, flags) + _element(order, 5, dims)
        return _element(order, 14, parts + _element(order, 1, name) + rest)

    small = struct.pack(f"{order}I", 2 << 16 | 2) + b"\x02\x03\0\0"
    pad = matrix(6, (1, 2), b"", small)
    word = matrix(4, (1, 4), b"", _element(order, 16, b"relu"))
    names = struct.pack(f"{order}II", 4 << 16 | 5, 8) + _element(
        order, 1, b"type\0\0\0\0pad\0\0\0\0\0"
    )
    layers = matrix(2, (1, 1), b"layers", names + word + pad)
    mark = b"\x00\x01IM" if order == "<" else b"\x01\x00MI"
    path = tmp_path / "net.mat"
    path.write_bytes(b"MATLAB 5.0 MAT-file".ljust(124) + mark + layers)
    (layer,) = matconvnet_format.read_matconvnet(path)["layers"]
    assert layer["type"] == "relu"
    np.testing.assert_array_equal(layer["pad"], np.array([[2.0, 3.0]]), strict=True)
