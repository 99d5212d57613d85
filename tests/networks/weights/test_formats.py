"""Files of other projects give the original's numbers, or are refused in one line."""

import json
import pathlib
from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
import pytest

from invjax.networks import NETWORKS, modules
from invjax.networks.layers import Conv, Dense, Network
from invjax.networks.weights import caffe_format, formats, pretrained
from invjax.networks.weights.conversion import ConversionError
from invjax.networks.weights.pretrained import WrongWeights
from invjax.networks.weights.readers import MissingReader, UnreadableWeights
from tests.networks import micro
from tests.networks.weights import file_makers
from tests.networks.weights.file_makers import CHAIN, Weights

MatWriter: TypeAlias = Callable[..., pathlib.Path]
CaffeWriter: TypeAlias = Callable[..., tuple[pathlib.Path, pathlib.Path]]

WEIGHTS = file_makers.random_weights()
COLOUR = [[[123.0, 117.0, 104.0]]]


@pytest.fixture
def mat(tmp_path: pathlib.Path) -> MatWriter:
    pytest.importorskip("scipy")

    def write(rows: list[dict[str, Any]] | None = None, **options: Any) -> pathlib.Path:
        rows = file_makers.matconvnet_layers(WEIGHTS) if rows is None else rows
        options = {"mean": COLOUR} | options
        return file_makers.write_matconvnet(tmp_path / "net.mat", rows, **options)

    return write


@pytest.fixture
def caffe(tmp_path: pathlib.Path) -> CaffeWriter:
    def write(
        weights: Weights = WEIGHTS,
        prototxt: str = file_makers.PROTOTXT,
        old: bool = False,
    ) -> tuple[pathlib.Path, pathlib.Path]:
        path, text = tmp_path / "net.caffemodel", tmp_path / "net.prototxt"
        path.write_bytes(file_makers.caffemodel(weights, old=old))
        text.write_text(prototxt)
        return path, text

    return write


def _refused(
    error: type[Exception], path: pathlib.Path, network: Network = CHAIN, **options: Any
) -> str:
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


def _original(x: np.ndarray) -> np.ndarray:
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


def _assert_computes(
    params: dict[str, Any], x: np.ndarray, expected: np.ndarray
) -> None:
    import jax.numpy as jnp

    code = modules.forward(CHAIN.layers, params, jnp.asarray(x))
    scale = np.max(np.abs(expected))
    np.testing.assert_allclose(np.asarray(code) / scale, expected / scale, atol=1e-5)


X = 50 * np.random.RandomState(5).randn(33, 33, 3).astype(np.float32)


@pytest.mark.parametrize("old", [False, True])
@pytest.mark.parametrize("meta", [False, True])
def test_matconvnet(mat: MatWriter, old: bool, meta: bool) -> None:
    rows = file_makers.matconvnet_layers(WEIGHTS, old=old)
    params, preprocessing = formats.read(mat(rows, meta=meta), CHAIN)
    _assert_computes(params, X, _original(X))
    assert preprocessing is not None
    assert preprocessing.mean == (123.0, 117.0, 104.0)
    assert preprocessing.std == (1.0, 1.0, 1.0)


@pytest.mark.parametrize("old", [False, True])
def test_caffe(caffe: CaffeWriter, old: bool) -> None:
    text = file_makers.OLD_PROTOTXT if old else file_makers.PROTOTXT
    path, prototxt = caffe(prototxt=text, old=old)
    params, preprocessing = formats.read(path, CHAIN, prototxt=prototxt)
    # Caffe's network takes BGR, ours RGB.
    _assert_computes(params, X, _original(X[:, :, ::-1]))
    assert preprocessing is not None
    red, green, blue = preprocessing.mean
    assert red > green > blue


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


def test_matconvnet_layers_that_differ_are_listed_with_both_sides(
    mat: MatWriter,
) -> None:
    rows = file_makers.matconvnet_layers(WEIGHTS)
    rows[2], rows[3] = rows[3], rows[2]  # normalise before pooling: another network
    rows[4]["pad"] = np.array([[2, 2, 2, 2]])
    message = _refused(ConversionError, mat(rows))
    assert "mpool1 is a max-pool of 3, stride 2, padding 0" in message
    assert "in the file a normalisation [5 1 2e-05 0.75]" in message
    assert "padding 1, in the file a convolution of stride 1, padding 2" in message


def test_matconvnet_with_one_layer_less_or_more(mat: MatWriter) -> None:
    rows = file_makers.matconvnet_layers(WEIGHTS)
    message = _refused(ConversionError, mat(rows[:-2]))
    assert "fc7 is a convolution" in message and "in the file nothing" in message
    message = _refused(ConversionError, mat([*rows, {"type": "relu"}]))
    assert "is nothing, in the file relu" in message


def test_matconvnet_of_another_shape_size_or_mean(mat: MatWriter) -> None:
    wrong = dict(WEIGHTS)
    wrong["conv1"] = (np.zeros((8, 3, 7, 7), np.float32), WEIGHTS["conv1"][1])
    rows = file_makers.matconvnet_layers(wrong)
    message = _refused(ConversionError, mat(rows))
    assert "conv1/kernel is (7, 7, 3, 8), not (5, 5, 3, 8)" in message
    message = _refused(ConversionError, mat(size=40))
    assert "input is (40, 40), not (33, 33)" in message
    message = _refused(ConversionError, mat(mean=np.ones((9, 9, 3))))
    assert "averageImage is (9, 9, 3), not (33, 33, 3)" in message


def test_damaged_mat_files(mat: MatWriter, tmp_path: pathlib.Path) -> None:
    data = mat().read_bytes()
    for name, damaged in {"half": data[: len(data) // 2], "no": b"no"}.items():
        path = tmp_path / f"{name}.mat"
        path.write_bytes(damaged)
        _refused(UnreadableWeights, path)


def test_damaged_caffemodels(caffe: CaffeWriter) -> None:
    path, prototxt = caffe()
    data = path.read_bytes()
    for damaged in (data[:-1], data[: len(data) // 2], b"", b"\xff" * 99, b"text"):
        path.write_bytes(damaged)
        _refused(UnreadableWeights, path, prototxt=prototxt)


@pytest.mark.parametrize(
    "text", ["layer { name: ", "layer { ", "}", "3: 4", "a { b: }"]
)
def test_damaged_prototxts(caffe: CaffeWriter, text: str) -> None:
    path, prototxt = caffe(prototxt=text)
    with pytest.raises(UnreadableWeights, match="not a prototxt"):
        formats.read(path, CHAIN, prototxt=prototxt)


def test_a_caffemodel_that_does_not_fit_its_prototxt(caffe: CaffeWriter) -> None:
    path, prototxt = caffe(prototxt=file_makers.PROTOTXT.replace('"fc7"', '"fc9"'))
    message = _refused(ConversionError, path, prototxt=prototxt)
    assert "layer fc9 has no kernel and bias in the caffemodel" in message


def test_caffe_s_normalisation_is_compared(caffe: CaffeWriter) -> None:
    text = file_makers.PROTOTXT.replace("0.0001", "0.0005")
    path, prototxt = caffe(prototxt=text)
    message = _refused(ConversionError, path, prototxt=prototxt)
    assert "[5 1 2e-05 0.75], in the file a normalisation [5 1 0.0001 0.75]" in message


def test_a_caffemodel_needs_its_prototxt(caffe: CaffeWriter, mat: MatWriter) -> None:
    path, prototxt = caffe()
    assert "--prototxt" in _refused(UnreadableWeights, path)
    other = mat()
    assert "--prototxt" in _refused(UnreadableWeights, other, prototxt=prototxt)


def test_networks_that_were_never_in_a_format(mat: MatWriter) -> None:
    message = _refused(ConversionError, mat(), NETWORKS["resnet50"])
    assert "resnet50 was never published in this format" in message


def test_caffe_blobs_in_both_generations(tmp_path: pathlib.Path) -> None:
    for old in (False, True):
        path = tmp_path / f"{old}.caffemodel"
        path.write_bytes(file_makers.caffemodel(WEIGHTS, old=old))
        found = caffe_format.read_caffemodel(path)
        assert [layer.name for layer in found] == list(WEIGHTS)
        for layer in found:
            kernel, bias = WEIGHTS[layer.name]
            np.testing.assert_array_equal(layer.blobs[0].ravel(), kernel.ravel())
            np.testing.assert_array_equal(layer.blobs[1].ravel(), bias)


SEQUENTIAL = Network("alexnet", 24, (*micro.MICRO.layers[:-1], Dense("fc6", 5)))


def _state() -> dict[str, np.ndarray]:
    random = np.random.RandomState(0)
    shapes = {
        "features.0.weight": (6, 3, 5, 5),
        "features.0.bias": (6,),
        "features.3.weight": (8, 6, 3, 3),
        "features.3.bias": (8,),
        "classifier.1.weight": (5, 8 * 5 * 5),
        "classifier.1.bias": (5,),
    }
    return {k: random.randn(*s).astype(np.float32) for k, s in shapes.items()}


def _safetensors(path: pathlib.Path, state: dict[str, np.ndarray]) -> pathlib.Path:
    pytest.importorskip("safetensors.numpy").save_file(state, path)
    return path


def _pth(
    path: pathlib.Path, state: dict[str, np.ndarray], wrapper: str | None = None
) -> pathlib.Path:
    torch = pytest.importorskip("torch")
    tensors = {name: torch.from_numpy(array) for name, array in state.items()}
    torch.save({wrapper: tensors} if wrapper else tensors, path)
    return path


def _assert_is(params: dict[str, Any], state: dict[str, np.ndarray]) -> None:
    np.testing.assert_array_equal(
        params["conv2"]["kernel"], state["features.3.weight"].transpose(2, 3, 1, 0)
    )
    x = np.random.RandomState(1).randn(5, 5, 8).astype(np.float32)
    np.testing.assert_allclose(
        x.ravel() @ params["fc6"]["kernel"],
        state["classifier.1.weight"] @ x.transpose(2, 0, 1).ravel(),
        rtol=1e-4,
        atol=1e-4,
    )


def test_safetensors(tmp_path: pathlib.Path) -> None:
    path = _safetensors(tmp_path / "net.safetensors", _state())
    read = formats.read(path, SEQUENTIAL)
    _assert_is(read.params, _state())
    assert read.preprocessing is None
    path.write_bytes(path.read_bytes()[:-9])
    _refused(UnreadableWeights, path, SEQUENTIAL)


@pytest.mark.parametrize("wrapper", [None, "state_dict", "model"])
def test_pytorch(tmp_path: pathlib.Path, wrapper: str | None) -> None:
    path = _pth(tmp_path / "net.pth", _state(), wrapper)
    _assert_is(formats.read(path, SEQUENTIAL).params, _state())


def test_a_data_parallel_prefix_is_taken_off(tmp_path: pathlib.Path) -> None:
    state = {f"module.{name}": array for name, array in _state().items()}
    path = _pth(tmp_path / "net.pt", state)
    _assert_is(formats.read(path, SEQUENTIAL).params, _state())


def test_pytorch_files_that_run_code_are_refused(tmp_path: pathlib.Path) -> None:
    torch = pytest.importorskip("torch")
    path = tmp_path / "net.pth"
    torch.save({"features.0.weight": _must_not_be_called}, path)
    _refused(UnreadableWeights, path, SEQUENTIAL)


def _must_not_be_called() -> None:
    raise AssertionError("must not be called")


def test_damaged_pytorch_files(tmp_path: pathlib.Path) -> None:
    path = _pth(tmp_path / "net.pth", _state())
    path.write_bytes(path.read_bytes()[:-99])
    _refused(UnreadableWeights, path, SEQUENTIAL)


def test_state_dicts_that_do_not_fit_list_both_sides(tmp_path: pathlib.Path) -> None:
    state = _state()
    state["features.0.scale"] = state.pop("features.0.bias")
    state["features.3.weight"] = state["features.3.weight"][:, :, :2]
    path = _safetensors(tmp_path / "net.safetensors", state)
    message = _refused(ConversionError, path, SEQUENTIAL)
    assert "missing features.0.bias" in message
    assert "unexpected features.0.scale" in message
    assert "features.3.weight is (8, 6, 2, 3), not (8, 6, 3, 3)" in message


def test_a_full_checkpoint_replaces_one_of_convolutions(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    micro.install(tmp_path, monkeypatch)
    weights_dir = tmp_path / "weights"
    pretrained.load(micro.MICRO, "relu2", weights_dir=weights_dir)
    path = _safetensors(tmp_path / "net.safetensors", _state())
    pretrained.convert_file(SEQUENTIAL, path, weights_dir / "alexnet")
    full = pretrained.load(SEQUENTIAL, "fc6", weights_dir=weights_dir)
    _assert_is(full.params, _state())
    assert full.preprocessing == micro.PREPROCESSING


def test_weights_that_are_not_finite_are_refused(tmp_path: pathlib.Path) -> None:
    state = _state()
    state["features.3.bias"][2] = np.nan
    path = _safetensors(tmp_path / "net.safetensors", state)
    with pytest.raises(WrongWeights, match="not finite"):
        pretrained.convert_file(SEQUENTIAL, path, tmp_path / "weights" / "alexnet")
    assert not (tmp_path / "weights").exists()


@pytest.mark.parametrize(
    ("ending", "module"),
    [("pth", "torch"), ("mat", "scipy.io"), ("safetensors", "safetensors.numpy")],
)
def test_a_missing_reader_names_its_package(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, ending: str, module: str
) -> None:
    import sys

    monkeypatch.setitem(sys.modules, module, None)
    path = tmp_path / f"net.{ending}"
    path.write_bytes(b"")
    message = _refused(MissingReader, path, SEQUENTIAL)
    assert message.endswith(f"; run: pip install {module.partition('.')[0]}")


def test_unknown_endings_and_missing_files(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "net.onnx"
    path.write_bytes(b"")
    assert ".caffemodel" in _refused(UnreadableWeights, path)
    _refused(FileNotFoundError, tmp_path / "absent.mat")


def test_timm_s_vggs_keep_dense_layers_as_convolutions(tmp_path: pathlib.Path) -> None:
    table = Network("vgg16", 8, (Conv("conv1_1", 2, kernel=1), Dense("fc6", 3)))
    random = np.random.RandomState(0)
    state = {
        "features.0.weight": random.randn(2, 3, 1, 1).astype(np.float32),
        "features.0.bias": random.randn(2).astype(np.float32),
        "pre_logits.fc1.weight": random.randn(3, 2, 8, 8).astype(np.float32),
        "pre_logits.fc1.bias": random.randn(3).astype(np.float32),
    }
    path = _safetensors(tmp_path / "net.safetensors", state)
    kernel = formats.read(path, table).params["fc6"]["kernel"]
    expected = state["pre_logits.fc1.weight"].transpose(2, 3, 1, 0).reshape(-1, 3)
    np.testing.assert_array_equal(kernel, expected)
