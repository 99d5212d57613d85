"""Files of other projects give the original's numbers, or are refused in one line."""

import os
import pathlib
import sys
from typing import Any

import numpy as np
import pytest

from invjax.networks.layers import Conv, Dense, Network
from invjax.networks.weights import formats, pretrained
from invjax.networks.weights.conversion import ConversionError
from invjax.networks.weights.pretrained import WrongWeights
from invjax.networks.weights.readers import MissingReader, UnreadableWeights
from tests.networks import micro
from tests.networks.weights import torch_makers
from tests.networks.weights.torch_makers import Global, Made

SEQUENTIAL = Network("alexnet", 24, (*micro.MICRO.layers[:-1], Dense("fc6", 5)))


def _refused(
    error: type[Exception], path: pathlib.Path, network: Network = SEQUENTIAL
) -> str:
    with pytest.raises(error) as caught:
        formats.read(path, network)
    message = str(caught.value)
    assert str(path) in message
    assert "\n" not in message
    return message


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
    tensors = torch_makers.state_dict(state)
    tree = {wrapper: tensors} if wrapper else tensors
    path.write_bytes(torch_makers.torch_zip(tree))
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


def test_pytorch_files_that_run_code_are_refused(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "system", _must_not_be_called)
    path = tmp_path / "net.pth"
    code = Made(Global("os", "system"), ("true",))
    path.write_bytes(torch_makers.torch_zip({"features.0.weight": code}))
    assert "asks for os.system" in _refused(UnreadableWeights, path, SEQUENTIAL)


def _must_not_be_called(command: str) -> None:
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
    message = _refused(ConversionError, path)
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


def test_a_missing_reader_names_its_package(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = _safetensors(tmp_path / "net.bin", _state())
    monkeypatch.setitem(sys.modules, "safetensors", None)
    message = _refused(MissingReader, path, SEQUENTIAL)
    assert message.endswith("; run: pip install safetensors")


def test_unknown_and_missing_files(tmp_path: pathlib.Path) -> None:
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
