"""Every named layer equals PyTorch's on seeded random weights, at full size.

AlexNet's tests are in test_alexnet.py. The weights go through the converter of users'
files, dense layers and batch normalisation included.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import pytest

from invjax.networks import NETWORKS, modules
from invjax.networks.layers import Network
from invjax.networks.weights import torch_layouts, torch_names
from tests.networks.comparison import max_relative_difference
from tests.networks.weights import library_weights

torch_reference = pytest.importorskip(
    "tests.networks.torch_reference", reason="needs PyTorch"
)
torch_functional = pytest.importorskip(
    "tests.networks.torch_functional", reason="needs PyTorch"
)


def _activations(
    network: Network, params: dict[str, Any], x: np.ndarray
) -> dict[str, np.ndarray]:
    run = jax.jit(lambda params, x: modules.activations(network.layers, params, x))
    return jax.device_get(run(params, x))


def _input(network: Network) -> np.ndarray:
    random = np.random.RandomState(2)
    return random.randn(*network.image_shape).astype(np.float32)


def _compare(
    network: Network,
    found: dict[str, np.ndarray],
    expected: dict[str, np.ndarray],
    tolerance: float = 1e-4,
) -> None:
    assert list(expected) == list(network.layer_names)
    for layer, wanted in expected.items():
        assert max_relative_difference(found[layer], wanted) < tolerance, layer


@pytest.mark.parametrize(
    ("name", "depths"), [("vgg16", (2, 2, 3, 3, 3)), ("vgg19", (2, 2, 4, 4, 4))]
)
def test_vgg(name: str, depths: tuple[int, ...]) -> None:
    network = NETWORKS[name]
    model = torch_reference.vgg(depths)
    state = torch_reference.randomise(model, seed=1)
    x = _input(network)
    expected = torch_reference.run(model, x)
    found = _activations(network, torch_layouts.from_torch(state, network), x)
    named = dict(zip(network.layer_names, expected, strict=True))
    _compare(network, found, named)


@pytest.mark.parametrize(
    ("name", "make"),
    [
        ("resnet50", lambda: torch_reference.ResNet50()),
        *(
            (name, functools.partial(torch_reference.EfficientNetLite, *sizes))
            for name, sizes in torch_reference.LITES.items()
        ),
    ],
)
def test_batch_normalised_networks(name: str, make: Callable[[], Any]) -> None:
    network = NETWORKS[name]
    model = make().eval()
    state = torch_reference.randomise(model, seed=1)
    x = _input(network)
    params = torch_layouts.from_torch(state, network)
    _compare(network, _activations(network, params, x), model.activations(x))


FUNCTIONS: dict[str, Callable[..., dict[str, Any]]] = {
    "resnet18": torch_functional.resnet18,
    "mobilenet_v2": torch_functional.mobilenet_v2,
    **{
        name: functools.partial(torch_functional.mobilenet_v3, name)
        for name in torch_functional.MOBILENET_V3
    },
    **{
        name: functools.partial(torch_functional.squeezenet, name)
        for name in torch_functional.SQUEEZENET
    },
    "convnext_tiny": torch_functional.convnext_tiny,
    "vit_tiny": functools.partial(
        torch_functional.transformer, patch=16, heads=3, last="logits"
    ),
    "dino_vits8": functools.partial(torch_functional.transformer, patch=8, heads=6),
    "clip_vit_b32": functools.partial(
        torch_functional.transformer,
        patch=32,
        heads=12,
        epsilon=1e-5,
        is_clip=True,
        last="projected",
    ),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_networks_as_functions(name: str) -> None:
    """Gates, concatenations, layer norms, layer scales, attention."""
    network = NETWORKS[name]
    layout = torch_names.layouts_of(network)[0]
    state = library_weights.state_dict(torch_layouts.tensor_shapes(layout, network))
    x = _input(network)
    expected = torch_functional.activations(FUNCTIONS[name], state, x)
    params = torch_layouts.from_torch(state, network)
    _compare(network, _activations(network, params, x), expected, tolerance=1e-5)


@pytest.mark.parametrize(
    ("name", "make"),
    [
        ("caffenet", lambda: torch_reference.caffe(pool_first=True)),
        ("caffe_alexnet", lambda: torch_reference.caffe(pool_first=False)),
        ("vgg_m", lambda: torch_reference.vgg_m()),
    ],
)
def test_caffe_networks(name: str, make: Callable[[], Any]) -> None:
    """Groups, response normalisation and Caffe's pools."""
    network = NETWORKS[name]
    model = make()
    torch_reference.randomise(model, seed=1)
    # At the scale of grey levels, where the normalisation changes activations.
    x = 60 * _input(network)
    params = torch_reference.as_params(model, network)
    expected = torch_reference.run(model, x)
    named = dict(zip(network.layer_names, expected, strict=True))
    found = _activations(network, params, x)
    _compare(network, found, named)
    before = {"caffenet": "mpool1", "caffe_alexnet": "relu1", "vgg_m": "relu1"}[name]
    assert np.max(np.abs(found["norm1"])) < 0.8 * np.max(np.abs(found[before]))
