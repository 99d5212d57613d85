"""The right weights are found in whatever training scripts put around them."""

import pathlib
import pickle
from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
import pytest

from invjax.networks.layers import Conv, Dense, Network, Relu
from invjax.networks.weights import formats, pretrained
from invjax.networks.weights.conversion import ConversionError
from invjax.networks.weights.pretrained import MissingWeights
from invjax.networks.weights.readers import UnreadableWeights
from tests.networks import micro
from tests.networks.weights import torch_makers
from tests.networks.weights.torch_makers import Global, Made, Ordered, tensor

Writer: TypeAlias = Callable[[pathlib.Path, Any], object]
State: TypeAlias = dict[str, Any]

NET = Network(
    "alexnet",
    24,
    (*micro.MICRO.layers[:-1], Dense("fc6", 7), Relu("relu6"), Dense("fc7", 5)),
)
SHAPES = {
    "features.0.weight": (6, 3, 5, 5),
    "features.0.bias": (6,),
    "features.3.weight": (8, 6, 3, 3),
    "features.3.bias": (8,),
    "classifier.1.weight": (7, 8 * 5 * 5),
    "classifier.1.bias": (7,),
    "classifier.4.weight": (5, 7),
    "classifier.4.bias": (5,),
}
RANDOM = np.random.RandomState(0)
STATE: State = {n: RANDOM.randn(*s).astype(np.float32) for n, s in SHAPES.items()}


def _as_tensors(tree: Any) -> Any:
    match tree:
        case np.ndarray():
            return tensor(tree)
        case dict():
            return {name: _as_tensors(item) for name, item in tree.items()}
    return tree


def _write_zip(path: pathlib.Path, tree: Any) -> object:
    return path.write_bytes(torch_makers.torch_zip(_as_tensors(tree)))


def _write_stream(path: pathlib.Path, tree: Any) -> object:
    return path.write_bytes(torch_makers.torch_stream(_as_tensors(tree)))


def _write_dumped(path: pathlib.Path, tree: Any) -> object:
    return path.write_bytes(torch_makers.dumped(_as_tensors(tree)))


def _write_pickle(path: pathlib.Path, tree: Any) -> object:
    return path.write_bytes(pickle.dumps(tree))


def _flat(tree: Any, prefix: str = "") -> State:
    flat: State = {}
    for name, item in tree.items():
        if isinstance(item, dict):
            flat |= _flat(item, f"{prefix}{name}.")
        elif isinstance(item, np.ndarray):
            flat[prefix + name] = item
    return flat


def _write_safetensors(path: pathlib.Path, tree: Any) -> object:
    return pytest.importorskip("safetensors.numpy").save_file(_flat(tree), path)


def _write_npz(path: pathlib.Path, tree: Any) -> object:
    with path.open("wb") as file:
        np.savez(file, **_flat(tree))
    return path


WRITERS = {
    "zip": _write_zip,
    "stream": _write_stream,
    "dumped": _write_dumped,
    "pickle": _write_pickle,
    "safetensors": _write_safetensors,
    "npz": _write_npz,
}
ENDINGS = (".pth", ".pt", ".bin", ".ckpt", ".pth.tar", ".safetensors", "")


def _prefixed(prefix: str, state: State = STATE) -> State:
    return {prefix + name: array for name, array in state.items()}


WRAPPED: dict[str, State] = {
    "bare": STATE,
    "data parallel": _prefixed("module."),
    "the ImageNet example": {
        name.replace("features.", "features.module."): array
        for name, array in STATE.items()
    },
    "its checkpoint": {
        "epoch": 3,
        "arch": "alexnet",
        "state_dict": _prefixed("module."),
    },
    "torch.compile": _prefixed("_orig_mod."),
    "compiled and parallel": _prefixed("module._orig_mod."),
    "FSDP": _prefixed("_fsdp_wrapped_module."),
    "Lightning": {"state_dict": _prefixed("model."), "hyper_parameters": {"lr": 0.1}},
    "a tutorial": {"model_state_dict": STATE, "epoch": 3, "loss": 0.3},
    "timm": {"state_dict": STATE, "optimizer": {"state": {}}},
    "torchvision's references": {"model": STATE, "args": None},
    "BasicSR": {"params": STATE},
    "one that nobody thought of": {"experiment": {"best": _prefixed("encoder.trunk.")}},
    "a backbone": _prefixed("backbone."),
    "a backbone with a head": _prefixed("backbone.") | {"head.w": np.ones((2, 5))},
    "a Lightning criterion": {
        "state_dict": _prefixed("net.") | {"criterion.weight": np.ones(5)}
    },
    "a criterion beside": STATE | {"criterion.weight": np.ones(5)},
    "an averaged model": _prefixed("module.") | {"n_averaged": np.array(3)},
    "counters": STATE | {"features.1.num_batches_tracked": np.array(3)},
    "nested by layer": {
        "features": {"0": {"weight": STATE["features.0.weight"]}}
        | {"0.bias": STATE["features.0.bias"]}
        | {n.removeprefix("features."): a for n, a in STATE.items() if "es.3" in n},
        "classifier": {
            n.removeprefix("classifier."): a for n, a in STATE.items() if "class" in n
        },
    },
    "a model and its copy in an attack": {
        "model": _prefixed("module.model.") | _prefixed("module.attacker.model.")
    },
}


@pytest.mark.parametrize("wrapping", WRAPPED)
@pytest.mark.parametrize("writer", WRITERS)
def test_wrappings(tmp_path: pathlib.Path, writer: str, wrapping: str) -> None:
    ending = ENDINGS[list(WRAPPED).index(wrapping) % len(ENDINGS)]
    path = tmp_path / f"net{ending}"
    WRITERS[writer](path, WRAPPED[wrapping])
    params = formats.read(path, NET).params
    assert list(params) == ["conv1", "conv2", "fc6", "fc7"]
    np.testing.assert_array_equal(
        params["conv2"]["kernel"], STATE["features.3.weight"].transpose(2, 3, 1, 0)
    )
    np.testing.assert_array_equal(
        params["fc7"]["kernel"], STATE["classifier.4.weight"].T
    )


OTHER: State = {name: array + 1 for name, array in STATE.items()}


@pytest.mark.parametrize(
    ("tree", "note"),
    [
        ({"model_ema": OTHER, "model": STATE}, "read from model, not from model_ema"),
        ({"params": OTHER, "params_ema": STATE}, "from params_ema, not from params"),
        ({"state_dict_ema": OTHER, "state_dict": STATE}, "not from state_dict_ema"),
        ({"ema": OTHER, "net": STATE}, "read from net, not from ema"),
        (
            {"state_dict": _prefixed("ema.", OTHER) | _prefixed("model.")},
            "read from state_dict.model, not from state_dict.ema",
        ),
    ],
)
def test_of_two_networks_the_first_in_the_order_is_taken(
    tmp_path: pathlib.Path, tree: State, note: str
) -> None:
    _write_zip(tmp_path / "net.pth", tree)
    reading = formats.examine(tmp_path / "net.pth", NET)
    np.testing.assert_array_equal(
        reading.params["fc7"]["bias"], STATE["classifier.4.bias"]
    )
    assert note in "; ".join(reading.notes)


def test_a_network_that_fits_less_is_mentioned(tmp_path: pathlib.Path) -> None:
    few = OTHER | {
        "classifier.4.weight": np.ones((2, 7)),
        "classifier.4.bias": np.ones(2),
    }
    _write_npz(tmp_path / "net", _prefixed("teacher.") | _prefixed("student.", few))
    reading = formats.examine(tmp_path / "net", NET)
    assert reading.notes == ("read from teacher, not from student",)


@pytest.mark.parametrize("writer", ["zip", "stream", "safetensors"])
@pytest.mark.parametrize(
    ("tree", "words"),
    [
        (
            _prefixed("student.") | _prefixed("teacher.", OTHER),
            "several networks fit, under student, teacher",
        ),
        (
            {"a": STATE, "b": {"c": OTHER}},
            "several networks fit, under a, b.c",
        ),
        (
            STATE | _prefixed("momentum.", OTHER),
            "under momentum, no prefix",
        ),
        (
            STATE | {"module.features.0.bias": OTHER["features.0.bias"]},
            "both stand for features.0.bias",
        ),
    ],
)
def test_files_that_fit_in_two_ways_are_refused(
    tmp_path: pathlib.Path, writer: str, tree: State, words: str
) -> None:
    WRITERS[writer](tmp_path / "net.pth", tree)
    assert words in _refused(ConversionError, tmp_path / "net.pth")


def _refused(error: type[Exception], path: pathlib.Path, network: Network = NET) -> str:
    with pytest.raises(error) as caught:
        formats.read(path, network)
    message = str(caught.value)
    assert str(path) in message
    assert message.isprintable()
    return message


def _without(*names: str) -> State:
    return {n: array for n, array in STATE.items() if not n.startswith(names)}


PARTS: dict[str, tuple[State, str, list[str]]] = {
    "convolutions": (_without("classifier"), "conv2", ["the file has no fc6 and fc7"]),
    "other classes": (
        STATE
        | {"classifier.4.weight": np.ones((10, 7)), "classifier.4.bias": np.ones(10)},
        "fc6",
        ["fc7 has 10 classes, not 5, and was left out"],
    ),
    "other dense layers": (
        STATE
        | {
            "classifier.1.weight": np.ones((9, 200)),
            "classifier.1.bias": np.ones(9),
            "classifier.4.weight": np.ones((2, 9)),
            "classifier.4.bias": np.ones(2),
        },
        "conv2",
        [
            "fc6 is (9, 200), not (7, 200), and was left out",
            "fc7 is (2, 9), not (5, 7), and was left out",
        ],
    ),
    "a classifier of its own": (
        _without("classifier") | {"classifier.weight": np.ones((10, 8))},
        "conv2",
        ["the file has no fc6 and fc7", "without classifier.weight of the file"],
    ),
    "a last layer that became two": (
        _without("classifier.4") | {"classifier.4.1.weight": np.ones((3, 7))},
        "fc6",
        ["the file has no fc7", "without classifier.4.1.weight of the file"],
    ),
    "the first convolution": (
        _without("classifier", "features.3"),
        "conv1",
        ["the file has no conv2, fc6 and fc7"],
    ),
}


@pytest.mark.parametrize("prefix", ["", "module.", "model.backbone."])
@pytest.mark.parametrize("part", PARTS)
def test_files_that_fit_in_part(tmp_path: pathlib.Path, part: str, prefix: str) -> None:
    state, last, notes = PARTS[part]
    _write_stream(tmp_path / "net.pth", _prefixed(prefix, state))
    reading = formats.examine(tmp_path / "net.pth", NET)
    assert list(reading.params)[-1] == last
    assert list(reading.notes) == notes


def test_what_was_left_out_is_not_available(tmp_path: pathlib.Path) -> None:
    state, _, _ = PARTS["other classes"]
    _write_zip(tmp_path / "net.pth", state)
    folder = tmp_path / "weights" / "alexnet"
    done = pretrained.convert_file(NET, tmp_path / "net.pth", folder)
    assert done.notes == ("fc7 has 10 classes, not 5, and was left out",)
    available = pretrained.available(NET, weights_dir=folder.parent)
    assert available == set(NET.layer_names) - {"fc7"}
    pretrained.load(NET, "relu6", weights_dir=folder.parent)
    with pytest.raises(MissingWeights, match="alexnet/fc7 needs the weights of fc7"):
        pretrained.load(NET, "fc7", weights_dir=folder.parent)


MISFITS: dict[str, tuple[State, str]] = {
    "nothing fits": ({n: np.zeros(1, np.float32) for n in STATE}, "is (1,), not (6,"),
    "a layer in the middle": (
        STATE | {"features.3.weight": np.ones((8, 6, 1, 1))},
        "features.3.weight is (8, 6, 1, 1), not (8, 6, 3, 3)",
    ),
    "a middle layer is missing": (_without("features.3"), "missing features.3.weight"),
    "a dense layer in the middle": (
        STATE
        | {"classifier.1.weight": np.ones((7, 9)), "classifier.1.bias": np.ones(7)},
        "classifier.1.weight is (7, 9), not (7, 200)",
    ),
    "half a layer": (_without("classifier.4.bias"), "missing classifier.4.bias"),
    "more layers below": (
        STATE | {"features.1.weight": np.ones(6)},
        "unexpected features.1.weight",
    ),
    "batch norm, and no classifier": (
        _without("classifier", "features.3")
        | {"features.1.running_mean": np.ones(6), "features.4.weight": np.ones((8, 6))},
        "unexpected features.1.running_mean, features.4.weight",
    ),
    "more layers above": (
        STATE | {"classifier.6.weight": np.ones((2, 5))},
        "unexpected classifier.6.weight",
    ),
    "whole numbers": (
        {n: (9 * a).astype(np.int32) for n, a in STATE.items()},
        "features.0.weight is int32; floating-point numbers are accepted",
    ),
}


@pytest.mark.parametrize("name", MISFITS)
def test_other_files_are_refused(tmp_path: pathlib.Path, name: str) -> None:
    state, words = MISFITS[name]
    _write_pickle(tmp_path / "net.pth", {"state_dict": state})
    message = _refused(ConversionError, tmp_path / "net.pth")
    assert words in message
    _write_safetensors(tmp_path / "net.bin", state)
    assert words in _refused(ConversionError, tmp_path / "net.bin")


def test_a_deeper_network_of_the_kind_is_refused(tmp_path: pathlib.Path) -> None:
    """Names in its added blocks end as names that are wanted do."""
    from invjax.networks import NETWORKS
    from invjax.networks.weights import torch_layouts

    network = NETWORKS["resnet50"]
    (layout,) = torch_layouts.layouts_of(network)
    names = torch_layouts.tensor_shapes(layout, network)
    state = {name: np.zeros(shape, np.float32) for name, shape in names.items()}
    deeper = {n.replace("layer3.5", "layer3.22"): a for n, a in state.items()}
    _write_safetensors(tmp_path / "net.pth", state | deeper)
    message = _refused(ConversionError, tmp_path / "net.pth", network)
    assert "unexpected layer3.22." in message
    assert len(message) < 1500


MODULE_STATE = {"_parameters": {}, "_modules": {}, "training": False}
MODEL = Made(Global("my_models", "AlexNet"), (), MODULE_STATE)


@pytest.mark.parametrize("write", [torch_makers.torch_zip, torch_makers.torch_stream])
@pytest.mark.parametrize(
    "tree", [MODEL, {"model": MODEL, "epoch": 2}, {"ema": {"net": MODEL}}]
)
def test_a_whole_model_is_called_that(
    tmp_path: pathlib.Path, write: Callable[[Any], bytes], tree: Any
) -> None:
    (tmp_path / "net.pt").write_bytes(write(tree))
    message = _refused(UnreadableWeights, tmp_path / "net.pt")
    assert "a whole pickled model, my_models.AlexNet" in message
    assert "save model.state_dict() instead" in message


def test_a_model_beside_its_state_dict_does_no_harm(tmp_path: pathlib.Path) -> None:
    tree = {"loss": MODEL, "state_dict": torch_makers.state_dict(STATE)}
    (tmp_path / "net.pt").write_bytes(torch_makers.torch_zip(tree))
    assert list(formats.read(tmp_path / "net.pt", NET).params)[-1] == "fc7"


@pytest.mark.parametrize(
    ("tree", "words"),
    [
        ({"a": Ordered({})}, "no tensors with names"),
        (tensor(np.ones(2)), "no tensors with names"),
        ([tensor(np.ones(2))], "no tensors with names"),
        ({"x": tensor(np.ones(2))}, "the file has x"),
        (
            {"a": Made(Global("torch._utils", "_rebuild_sparse_tensor"))},
            "sparse_tensor",
        ),
        ({"evil\n\x1b[31m": tensor(np.ones(2))}, "the file has evil??[31m"),
    ],
)
def test_files_without_the_network_say_what_they_have(
    tmp_path: pathlib.Path, tree: Any, words: str
) -> None:
    (tmp_path / "net.pt").write_bytes(torch_makers.torch_zip(tree))
    error = (ConversionError, UnreadableWeights)
    assert words in _refused(error, tmp_path / "net.pt")  # type: ignore[arg-type]


VGG = Network("vgg16", 8, (Conv("conv1_1", 2, kernel=1), Dense("fc6", 3)))


@pytest.mark.parametrize(
    ("convolution", "dense", "shape"),
    [
        ("features.0", "classifier.0", (3, 128)),
        ("features.0", "classifier.1", (3, 128)),
        ("features.0", "pre_logits.fc1", (3, 2, 8, 8)),
        ("conv1_1", "fc6", (3, 128)),
        ("conv1_1", "fc6", (3, 2, 8, 8)),
    ],
)
@pytest.mark.parametrize("prefix", ["", "state_dict.model."])
def test_the_names_of_vggs(
    tmp_path: pathlib.Path,
    prefix: str,
    convolution: str,
    dense: str,
    shape: tuple[int, ...],
) -> None:
    """torchvision's, those of the first conversions from Caffe, timm's, and Caffe's."""
    kernel = RANDOM.randn(*shape).astype(np.float32)
    state = {
        f"{convolution}.weight": RANDOM.randn(2, 3, 1, 1).astype(np.float32),
        f"{convolution}.bias": RANDOM.randn(2).astype(np.float32),
        f"{dense}.weight": kernel,
        f"{dense}.bias": RANDOM.randn(3).astype(np.float32),
    }
    _write_safetensors(tmp_path / "net.safetensors", _prefixed(prefix, state))
    params = formats.read(tmp_path / "net.safetensors", VGG).params
    expected = kernel.reshape(3, 2, 8, 8).transpose(2, 3, 1, 0).reshape(-1, 3)
    np.testing.assert_array_equal(params["fc6"]["kernel"], expected)
