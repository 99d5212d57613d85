"""What batch normalisation knew is kept when it is folded, and does not disturb."""

import dataclasses
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from invjax.networks import NETWORKS, modules
from invjax.networks.layers import (
    Block,
    Conv,
    Dense,
    DepthwiseConv,
    GlobalAveragePool,
    Network,
    Relu,
    Residual,
)
from invjax.networks.weights import checkpoints, pretrained, torch_layouts
from invjax.networks.weights.batch_norm import PREFIX, Moments, Statistics
from invjax.networks.weights.checkpoints import DamagedCheckpoint
from invjax.networks.weights.pretrained import MissingWeights
from invjax.representations import cnn
from tests.conftest import micro_representation
from tests.networks.weights import torch_makers

# It has the name of the network in whose layout its file is.
LITE = Network(
    "efficientnet_lite0",
    8,
    (
        Block(
            "stem",
            (
                Conv("conv", 4, kernel=3, stride=2, padding=(0, 1)),
                Relu("relu", ceiling=6.0),
            ),
        ),
        Residual(
            "block0",
            (
                DepthwiseConv("depthwise", 3, padding=1),
                Relu("relu", ceiling=6.0),
                Conv("project", 4, kernel=1),
            ),
        ),
        GlobalAveragePool("pooled"),
        Dense("logits", 5),
    ),
)
NORMS = {
    "stem/conv": "_bn0",
    "block0/depthwise": "_blocks.0._bn1",
    "block0/project": "_blocks.0._bn2",
}
EPSILON = 1e-3


def _state(seed: int = 0) -> dict[str, np.ndarray]:
    generator = np.random.default_rng(seed)
    shapes: dict[str, tuple[int, ...]] = {
        "_conv_stem.weight": (4, 3, 3, 3),
        "_blocks.0._depthwise_conv.weight": (4, 1, 3, 3),
        "_blocks.0._project_conv.weight": (4, 4, 1, 1),
        "_fc.weight": (5, 4),
        "_fc.bias": (5,),
    }
    state = {name: generator.normal(size=shape) for name, shape in shapes.items()}
    for norm in NORMS.values():
        for leaf in ("weight", "bias", "running_mean"):
            state[f"{norm}.{leaf}"] = generator.normal(size=4)
        # The first channel is hardly alive: its output varies less than gamma.
        state[f"{norm}.running_var"] = np.array([1e-6, 0.01, 1.0, 30.0])
    return {name: array.astype(np.float32) for name, array in state.items()}


@pytest.fixture
def path(tmp_path: pathlib.Path) -> pathlib.Path:
    path = tmp_path / "lite.pth"
    path.write_bytes(torch_makers.torch_zip(torch_makers.state_dict(_state())))
    return path


@pytest.fixture
def weights_dir(tmp_path: pathlib.Path, path: pathlib.Path) -> pathlib.Path:
    pretrained.convert_file(LITE, path, tmp_path / "weights" / LITE.name)
    return tmp_path / "weights"


def _without_statistics(folder: pathlib.Path) -> None:
    """Makes a checkpoint what it was before statistics were kept."""
    tensors, record = checkpoints.restore(folder)
    kept = {n: array for n, array in tensors.items() if not n.startswith(PREFIX)}
    assert len(kept) == len(tensors) - 6
    checkpoints.save(folder, kept, record)


def test_folded_outputs_have_these_moments() -> None:
    """The running statistics are those of these images, so that it is exact."""
    images = np.random.default_rng(1).normal(size=(50, 8, 8, 3)).astype(np.float32)
    state = _state()
    table = LITE.until("stem")

    def outputs(params: dict) -> np.ndarray:
        run = jax.vmap(lambda x: modules.convolution_outputs(table, params, x))
        return np.asarray(run(images)["stem/conv"], np.float64).reshape(-1, 4)

    kernel = torch_layouts.convolution(state["_conv_stem.weight"])
    raw = outputs({"stem": {"conv": {"kernel": kernel, "bias": np.zeros(4)}}})
    state["_bn0.running_mean"] = raw.mean(0)
    state["_bn0.running_var"] = raw.var(0)
    fitted = torch_layouts.fit(state, LITE)
    found = outputs({"stem": fitted.params["stem"]})
    mean, std = fitted.statistics["stem/conv"]
    np.testing.assert_allclose(found.mean(0), mean, atol=1e-5)
    np.testing.assert_allclose(found.std(0), std, rtol=1e-5)
    np.testing.assert_allclose(mean, state["_bn0.bias"])


def test_a_checkpoint_keeps_what_the_file_has(weights_dir: pathlib.Path) -> None:
    state = _state()
    phi = cnn.load(LITE, "logits", weights_dir=weights_dir)
    statistics = cnn.batch_norm_statistics(phi)
    assert list(statistics) == list(NORMS)
    for name, norm in NORMS.items():
        mean, std = statistics[name]
        np.testing.assert_array_equal(mean, state[f"{norm}.bias"])
        gamma = np.abs(state[f"{norm}.weight"])
        variance = state[f"{norm}.running_var"]
        expected = gamma * np.sqrt(variance / (variance + EPSILON))
        np.testing.assert_allclose(std, expected, rtol=1e-6)
        np.testing.assert_allclose(std[2:], gamma[2:], rtol=1e-3)
        assert std[0] < 0.1 * gamma[0]
    low = cnn.load(LITE, "stem", weights_dir=weights_dir)
    assert list(cnn.batch_norm_statistics(low)) == ["stem/conv"]
    manifest = checkpoints.names(weights_dir / LITE.name)
    assert f"{PREFIX}block0/project/std" in manifest


def test_weights_are_the_same_with_and_without(weights_dir: pathlib.Path) -> None:
    """So that runs of older checkpoints can be compared and continued."""
    new = cnn.load(LITE, "pooled", weights_dir=weights_dir)
    _without_statistics(weights_dir / LITE.name)
    old = cnn.load(LITE, "pooled", weights_dir=weights_dir)
    assert old.weights_digest == new.weights_digest
    assert not old.statistics and new.statistics
    leaves, others = jax.tree.leaves(new), jax.tree.leaves(old)
    assert len(leaves) == len(others)
    for leaf, other in zip(leaves, others, strict=True):
        np.testing.assert_array_equal(leaf, other)


@pytest.mark.parametrize("is_installed", [True, False])
def test_older_checkpoints_say_how_to_convert_again(
    weights_dir: pathlib.Path,
    path: pathlib.Path,
    is_installed: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    _without_statistics(weights_dir / LITE.name)
    phi = cnn.load(LITE, "block0", weights_dir=weights_dir)
    source = pretrained.sources()[0]._replace(network=LITE.name, package="invjax")
    found = (source._replace(path="types.py"),) if is_installed else ()
    monkeypatch.setattr(pretrained, "sources", lambda: found)
    with pytest.raises(MissingWeights) as caught:
        cnn.batch_norm_statistics(phi)
    message = str(caught.value)
    assert message.startswith("efficientnet_lite0/block0: ") and "\n" not in message
    command = "invjax convert --network=efficientnet_lite0"
    file = "" if is_installed else " --file=efficientnet-lite0-57934424.pth"
    assert message.endswith(f"convert them again with: {command}{file}")
    pretrained.convert_file(LITE, path, weights_dir / LITE.name)
    again = cnn.load(LITE, "block0", weights_dir=weights_dir)
    assert list(cnn.batch_norm_statistics(again)) == list(NORMS)


def test_a_network_without_normalisation_has_none() -> None:
    with pytest.raises(MissingWeights, match="micro/relu1: .* no batch normalisation"):
        cnn.batch_norm_statistics(micro_representation("relu1"))
    normalised = {
        n for n, table in NETWORKS.items() if torch_layouts.is_normalised(table)
    }
    others = (
        "alexnet",
        "caffe",
        "vgg",
        "squeezenet",
        "convnext",
        "vit",
        "dino",
        "clip",
    )
    assert normalised == {name for name in NETWORKS if not name.startswith(others)}


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"stem/conv/std": None}, "batch_norm/stem/conv/std is missing"),
        ({"stem/conv/mean": np.ones(3, np.float32)}, "stem/conv/mean is missing, or"),
        ({"block9/project/mean": np.ones(4, np.float32)}, "block9/project/mean"),
    ],
)
def test_other_statistics_are_refused(
    weights_dir: pathlib.Path, change: dict, word: str
) -> None:
    folder = weights_dir / LITE.name
    tensors, record = checkpoints.restore(folder)
    tensors |= {f"{PREFIX}{name}": array for name, array in change.items()}
    kept = {name: array for name, array in tensors.items() if array is not None}
    checkpoints.save(folder, kept, record)
    with pytest.raises(DamagedCheckpoint, match=word) as caught:
        pretrained.load(LITE, "stem", weights_dir=weights_dir)
    assert str(folder) in str(caught.value) and "\n" not in str(caught.value)


def test_statistics_are_static_and_equal_by_value(weights_dir: pathlib.Path) -> None:
    first = cnn.load(LITE, "block0", weights_dir=weights_dir)
    copied = Statistics(
        {n: Moments(*map(np.copy, m)) for n, m in first.statistics.items()}
    )
    second = dataclasses.replace(first, statistics=copied)
    assert len({jax.tree.structure(phi) for phi in (first, second)}) == 1
    traces = []

    @jax.jit
    def run(phi: cnn.CnnRepresentation, image: jax.Array) -> jax.Array:
        traces.append(phi)
        return phi(image)

    for phi in (first, second):
        run(phi, jnp.ones((8, 8, 3)))
    assert len(traces) == 1
    changed = {n: Moments(m.mean + 1, m.std) for n, m in first.statistics.items()}
    assert Statistics(changed) != copied
    renamed = {f"{n}x": m for n, m in first.statistics.items()}
    assert Statistics(renamed) != copied
