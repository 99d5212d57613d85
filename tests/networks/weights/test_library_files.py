"""Files as torchvision, timm and transformers write them give those libraries' codes.

The names, the shapes and the codes are theirs (tests/data/make_library_goldens.py); the
weights are random. Files are written with the names as they are, counters and whatever
else a model has included, and nothing of these libraries is needed.
"""

import functools
import json
import pathlib
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import pytest
from jax import Array

from invjax.networks import NETWORKS, modules, vit
from invjax.networks.layers import Dense, Network
from invjax.networks.weights import formats, torch_layouts, torch_names
from invjax.networks.weights.conversion import ConversionError, flatten
from invjax.networks.weights.sources import network_of
from tests.networks.comparison import max_relative_difference
from tests.networks.weights import library_weights, torch_makers

GOLDENS = pathlib.Path(__file__).parents[2] / "data" / "library_networks.npz"

with np.load(GOLDENS) as _file:
    CODES = {n.removesuffix(": code"): _file[n] for n in _file if n.endswith(": code")}
    SHAPES: dict[str, dict[str, tuple[int, ...]]] = {
        n.removesuffix(": shapes"): {
            tensor: tuple(shape) for tensor, shape in json.loads(str(_file[n])).items()
        }
        for n in _file
        if n.endswith(": shapes")
    }

# The goldens of transformers are of small ones. Layouts go by the network's name.
_small = functools.partial(
    vit.transformer, width=24, heads=3, patch=16, depth=2, input_size=32
)
SMALL = {
    "vit_base": _small("vit_base", last=Dense("logits", 10)),
    "dino_vits16": _small("dino_vits16"),
    "clip_vit_b16": _small(
        "clip_vit_b16",
        epsilon=1e-5,
        gelu="quick_gelu",
        is_normalised_first=True,
        last=Dense("projected", 8),
    ),
}


def _network(model: str) -> Network:
    """The network of a golden, by the name that its library has for it."""
    name = network_of(model.partition("/")[2].partition(",")[0])
    assert name is not None
    return SMALL.get(name, NETWORKS[name])


@functools.cache
def _forward(network: Network) -> Callable[..., Array]:
    # Of the same network, all layouts share a program.
    return jax.jit(lambda params, x: modules.forward(network.layers, params, x))


def _safetensors(path: pathlib.Path, state: dict[str, np.ndarray]) -> None:
    numpy_format = pytest.importorskip("safetensors.numpy")
    numpy_format.save_file(state, path)


def _torch_zip(path: pathlib.Path, state: dict[str, np.ndarray]) -> None:
    kinds = {
        name: "Long" if a.dtype == np.int64 else "Float" for name, a in state.items()
    }
    tree = {n: torch_makers.tensor(array, kinds[n]) for n, array in state.items()}
    path.write_bytes(torch_makers.torch_zip(torch_makers.Ordered(tree)))


@pytest.mark.parametrize("write", [_safetensors, _torch_zip])
@pytest.mark.parametrize("model", CODES)
def test_a_library_s_file_gives_its_code(
    tmp_path: pathlib.Path,
    model: str,
    write: Callable[[pathlib.Path, dict[str, np.ndarray]], None],
) -> None:
    network = _network(model)
    path = tmp_path / "model"
    write(path, library_weights.state_dict(SHAPES[model]))
    contents = formats.read(path, network)
    x = library_weights.image(network.input_size)
    found = _forward(network)(contents.params, x)
    assert max_relative_difference(found, CODES[model]) < 1e-5


def test_every_layout_has_a_golden() -> None:
    """But for names that are older than these libraries' or have tests of their own."""
    elsewhere = {"alexnet", "vgg16", "vgg19"}
    alike = {
        "resnet34": "resnet18",
        "resnet50": "resnet18",
        "resnet101": "resnet18",
        "resnet152": "resnet18",
        "convnext_small": "convnext_tiny",
        "convnext_base": "convnext_tiny",
        "vit_tiny": "vit_base",
        "vit_small": "vit_base",
        "dino_vits8": "dino_vits16",
        "dino_vitb16": "dino_vits16",
        "dino_vitb8": "dino_vits16",
        "clip_vit_b32": "clip_vit_b16",
        "clip_vit_l14": "clip_vit_b16",
    }
    with_golden = {_network(model).name for model in CODES}
    for name, network in NETWORKS.items():
        try:
            torch_names.layouts_of(network)
        except ConversionError:
            continue
        is_lite = name.startswith("efficientnet_lite")
        assert name in elsewhere or is_lite or alike.get(name, name) in with_golden


def _old_mobilenet(name: str) -> str:
    """torchvision's name of a tensor as the first MobileNetV2 for PyTorch has it."""
    start, _, rest = name.partition(".conv.")
    if not rest:
        return name.replace("classifier.1.", "classifier.")
    is_first = start == "features.1"
    unit, *inner = rest.split(".")
    leaf = inner[-1]
    if len(inner) == 2:  # a convolution or its normalisation, and then a ReLU
        return f"{start}.conv.{3 * int(unit) + int(inner[0])}.{leaf}"
    last = 1 if is_first else 2
    return f"{start}.conv.{3 * last + int(unit) - last}.{leaf}"


def _linear_names(name: str) -> str:
    """torchvision's name of a tensor of a transformer as its first files have it."""
    for new, old in (("mlp.0.", "mlp.linear_1."), ("mlp.3.", "mlp.linear_2.")):
        name = name.replace(new, old)
    return name


@pytest.mark.parametrize(
    ("model", "rename"),
    [
        ("torchvision/mobilenet_v2", _old_mobilenet),
        ("torchvision/vit_b_16", _linear_names),
    ],
)
def test_older_names_are_read_as_today_s(
    model: str, rename: Callable[[str], str]
) -> None:
    network = _network(model)
    state = library_weights.state_dict(SHAPES[model])
    older = {rename(name): array for name, array in state.items()}
    assert len(older) == len(state) and older.keys() != state.keys()
    wanted = flatten(torch_layouts.fit(state, network).params)
    found = flatten(torch_layouts.fit(older, network).params)
    assert found.keys() == wanted.keys()
    for name, array in wanted.items():
        np.testing.assert_array_equal(found[name], array)


def test_what_a_model_has_besides_is_left_out_and_said() -> None:
    model = "transformers/clip-vit-base-patch16"
    fit = torch_layouts.fit(library_weights.state_dict(SHAPES[model]), _network(model))
    (note,) = fit.notes
    assert note.startswith("without ") and note.endswith("no part of the network")
    model = "transformers/dino-vits16"
    fit = torch_layouts.fit(library_weights.state_dict(SHAPES[model]), _network(model))
    assert fit.notes == (
        "without pooler.dense.weight and pooler.dense.bias, no part of the network",
    )


@pytest.mark.parametrize("start", ["vit.", "", "backbone."])
def test_a_transformer_without_a_classifier(start: str) -> None:
    """Its names with a prefix are those of another layout without one."""
    model = "transformers/vit-base-patch16-224"
    state = {
        name.replace("vit.", start): array
        for name, array in library_weights.state_dict(SHAPES[model]).items()
        if not name.startswith("classifier.")
    }
    fit = torch_layouts.fit(state, _network(model))
    assert list(fit.params)[-1] == "norm"
    assert fit.notes == ("the file has no logits",)


def test_another_number_of_classes_leaves_the_last_layer_out() -> None:
    for model, kernel, head in (
        ("timm/vit_base_patch16_224", "head.weight", "logits"),
        ("torchvision/squeezenet1_1", "classifier.1.weight", "conv10"),
        ("timm/mobilenetv3_small_100", "classifier.weight", "logits"),
    ):
        state = library_weights.state_dict(SHAPES[model])
        bias = kernel.replace("weight", "bias")
        state |= {kernel: state[kernel][:7], bias: state[bias][:7]}
        fit = torch_layouts.fit(state, _network(model))
        assert head not in fit.params
        assert fit.notes == (
            f"{head} has 7 classes, not {SHAPES[model][kernel][0]}, and was left out",
        )


@pytest.mark.parametrize(
    ("model", "tensor", "words"),
    [
        ("timm/convnext_tiny", "stages.0.blocks.1.gamma", "missing stages.0.blocks.1"),
        ("timm/vit_base_patch16_224", "cls_token", "missing cls_token"),
        (
            "transformers/vit-base-patch16-224",
            "vit.encoder.layer.1.attention.attention.key.bias",
            "key.bias",
        ),
        (
            "timm/mobilenetv3_large_100",
            "blocks.2.0.se.conv_reduce.weight",
            "missing blocks.2.0.se.conv_reduce.weight",
        ),
    ],
)
def test_a_missing_tensor_is_named(model: str, tensor: str, words: str) -> None:
    state = library_weights.state_dict(SHAPES[model])
    del state[tensor]
    with pytest.raises(ConversionError, match=words):
        torch_layouts.fit(state, _network(model))


def test_other_networks_of_a_kind_are_refused() -> None:
    """A file of V3 small, and a transformer with a block more than the table has."""
    small = library_weights.state_dict(SHAPES["torchvision/mobilenet_v3_small"])
    with pytest.raises(ConversionError, match="do not fit"):
        torch_layouts.fit(small, NETWORKS["mobilenet_v3_large"])
    model = "timm/vit_base_patch16_224"
    state = library_weights.state_dict(SHAPES[model])
    more = {n.replace("blocks.1.", "blocks.2."): array for n, array in state.items()}
    with pytest.raises(ConversionError, match="unexpected blocks.2."):
        torch_layouts.fit(state | more, _network(model))


def test_positions_of_another_size_are_refused() -> None:
    model = "timm/vit_base_patch16_224"
    state = library_weights.state_dict(SHAPES[model])
    state["pos_embed"] = np.zeros((1, 10, 24), np.float32)
    with pytest.raises(ConversionError, match=r"pos_embed is \(1, 10, 24\), not"):
        torch_layouts.fit(state, _network(model))


@pytest.mark.parametrize(
    ("model", "mean"),
    [
        ("torchvision/vit_b_16", (123.675, 116.28, 103.53)),
        ("timm/vit_base_patch16_224", None),
    ],
)
def test_torchvision_s_transformer_has_a_preprocessing_of_its_own(
    model: str, mean: Any
) -> None:
    fit = torch_layouts.fit(library_weights.state_dict(SHAPES[model]), _network(model))
    assert (fit.preprocessing and fit.preprocessing.mean) == mean
