"""Names, shapes, receptive fields and strides of the layer tables."""

import math
from typing import Any, get_args

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from invjax.networks import NETWORKS, layers, modules
from invjax.networks.layers import (
    Attention,
    Block,
    ClassToken,
    Concatenation,
    Conv,
    Dense,
    DepthwiseConv,
    Gate,
    Geometry,
    GlobalAveragePool,
    LayerNorm,
    LocalResponseNorm,
    MaxPool,
    Pointwise,
    Relu,
    Residual,
    Smooth,
    Tokens,
)
from invjax.networks.weights import conversion

# Name, shape, receptive field and stride: CVPR 2015, Table 2, and Caffe's shapes.
CNN_A = (
    ("conv1", (55, 55, 96), 11, 4),
    ("relu1", (55, 55, 96), 11, 4),
    ("mpool1", (27, 27, 96), 19, 8),
    ("norm1", (27, 27, 96), 19, 8),
    ("conv2", (27, 27, 256), 51, 8),
    ("relu2", (27, 27, 256), 51, 8),
    ("mpool2", (13, 13, 256), 67, 16),
    ("norm2", (13, 13, 256), 67, 16),
    ("conv3", (13, 13, 384), 99, 16),
    ("relu3", (13, 13, 384), 99, 16),
    ("conv4", (13, 13, 384), 131, 16),
    ("relu4", (13, 13, 384), 131, 16),
    ("conv5", (13, 13, 256), 163, 16),
    ("relu5", (13, 13, 256), 163, 16),
    ("mpool5", (6, 6, 256), 195, 32),
    ("fc6", (4096,), 355, 32),
    ("relu6", (4096,), 355, 32),
    ("fc7", (4096,), 355, 32),
    ("relu7", (4096,), 355, 32),
    ("fc8", (1000,), 355, 32),
)

# Number of parameters, weights and biases together.
SIZES = {
    "alexnet": 61_100_840,
    "caffenet": 60_965_224,
    "vgg16": 138_357_544,
    "vgg19": 143_667_240,
    # Without the scales of batch normalisation, which are folded into the kernels.
    "efficientnet_lite0": 4_652_008 - 21_008,
    "efficientnet_lite1": 5_416_680 - 26_832,
    "efficientnet_lite2": 6_092_072 - 29_048,
    "resnet18": 11_689_512 - 4_800,
    "resnet34": 21_797_672 - 8_512,
    "resnet50": 25_557_032 - 26_560,
    "resnet101": 44_549_160 - 52_672,
    "resnet152": 60_192_808 - 75_712,
    "mobilenet_v2": 3_504_872 - 17_056,
    "mobilenet_v3_large": 5_483_032 - 12_200,
    "mobilenet_v3_small": 2_542_856 - 6_056,
    "squeezenet1_0": 1_248_424,
    "squeezenet1_1": 1_235_496,
    # Without the scales of the blocks, which are folded into their last layers.
    "convnext_tiny": 28_589_128 - 6_624,
    "convnext_small": 50_223_688 - 13_536,
    "convnext_base": 88_591_464 - 18_048,
    # The class token is added to its position.
    "vit_tiny": 5_717_416 - 192,
    "vit_small": 22_050_664 - 384,
    "vit_base": 86_567_656 - 768,
    "dino_vits16": 21_665_664 - 384,
    "dino_vitb16": 85_798_656 - 768,
    # The patches get a bias, which is zero, and so does what is projected.
    "clip_vit_b32": 87_849_216 - 768 + 768 + 512,
    "clip_vit_l14": 303_966_208 - 1024 + 1024 + 768,
}


def _geometry(name: str) -> dict[str, Geometry]:
    network = NETWORKS[name]
    return {r.name: r for r in layers.geometry(network.layers, network.image_shape)}


def test_cnn_a_is_the_paper_s_table() -> None:
    network = NETWORKS["caffenet"]
    assert network.input_size == 227
    assert layers.geometry(network.layers, network.image_shape) == CNN_A


def test_the_sibling_normalises_before_it_pools() -> None:
    names = NETWORKS["caffe_alexnet"].layer_names
    assert names[:4] == ("conv1", "relu1", "norm1", "mpool1")
    assert _geometry("caffe_alexnet")["fc8"] == CNN_A[-1]


def test_vgg_m_rounds_its_second_pool_up() -> None:
    rows = _geometry("vgg_m")
    assert rows["pool1"].shape == (54, 54, 96)
    assert rows["pool2"].shape == (13, 13, 256)
    assert rows["pool5"].shape == (6, 6, 512)


@pytest.mark.parametrize(("name", "size"), SIZES.items())
def test_sizes_are_the_published_ones(name: str, size: int) -> None:
    network = NETWORKS[name]
    shapes = layers.parameter_shapes(network.layers, network.image_shape)
    assert sum(map(math.prod, shapes.values())) == size


@pytest.mark.parametrize(
    ("name", "layer", "row"),
    [
        ("vgg16", "relu3_3", ((56, 56, 256), 40, 4)),
        ("vgg16", "pool5", ((7, 7, 512), 212, 32)),
        ("vgg19", "relu5_4", ((14, 14, 512), 252, 16)),
        ("resnet50", "stem", ((56, 56, 64), 11, 4)),
        ("resnet50", "layer4", ((7, 7, 2048), 427, 32)),
        ("resnet50", "logits", ((1000,), 619, 32)),
        ("efficientnet_lite0", "block15", ((7, 7, 320), 851, 32)),
        ("efficientnet_lite0", "pooled", ((1280,), 1043, 32)),
        ("efficientnet_lite1", "block14", ((15, 15, 112), 475, 16)),
        ("efficientnet_lite1", "block20", ((8, 8, 320), 1115, 32)),
        ("efficientnet_lite1", "pooled", ((1280,), 1339, 32)),
        ("resnet18", "layer1", ((56, 56, 64), 43, 4)),
        ("squeezenet1_0", "pool8", ((13, 13, 512), 123, 16)),
        ("squeezenet1_1", "fire9", ((13, 13, 512), 207, 16)),
        ("convnext_tiny", "block15", ((7, 7, 768), 1304, 32)),
        ("mobilenet_v3_large", "block2", ((56, 56, 24), 19, 4)),
        ("vit_tiny", "patches", ((14, 14, 192), 16, 16)),
        ("vit_tiny", "tokens", ((197, 192), 16, 16)),
        ("vit_tiny", "attention0", ((197, 192), 224, 16)),
        ("vit_tiny", "norm", ((197, 192), 224, 16)),
        ("clip_vit_l14", "pooled", ((1024,), 224, 14)),
    ],
)
def test_geometry(name: str, layer: str, row: tuple[tuple[int, ...], int, int]) -> None:
    assert _geometry(name)[layer][1:] == row


@pytest.mark.parametrize("name", NETWORKS)
def test_shapes_are_those_of_the_modules(name: str) -> None:
    network = NETWORKS[name]
    shapes = layers.parameter_shapes(network.layers, network.image_shape)
    flat = {name: jax.ShapeDtypeStruct(s, jnp.float32) for name, s in shapes.items()}
    params: dict[str, Any] = {}
    for path, leaf in flat.items():
        *scopes, last = path.split("/")
        branch = params
        for scope in scopes:
            branch = branch.setdefault(scope, {})
        branch[last] = leaf
    image = jax.ShapeDtypeStruct(network.image_shape, jnp.float32)
    found = jax.eval_shape(
        lambda p, x: modules.activations(network.layers, p, x), params, image
    )
    for row in layers.geometry(network.layers, network.image_shape):
        assert found[row.name].shape == row.shape, row.name


def test_a_residual_has_the_field_of_its_wider_branch() -> None:
    narrow = Conv("narrow", 4, kernel=1)
    wide = Conv("wide", 4, kernel=5, padding=2)
    (row,) = layers.geometry((Residual("r", (narrow,), (wide,)),), (9, 9, 3))
    assert row == ("r", (9, 9, 4), 5, 1)


def test_residuals_of_branches_of_different_shapes_are_refused() -> None:
    table = (Residual("r", (Conv("c", 4, kernel=1),)),)
    with pytest.raises(ValueError, match="layer r adds"):
        layers.geometry(table, (9, 9, 3))


def test_a_gate_has_one_factor_for_each_channel() -> None:
    table = (Gate("g", (GlobalAveragePool("m"), Dense("d", 3))),)
    image = np.random.default_rng(0).normal(size=(4, 5, 3)).astype(np.float32)
    leaves = {"kernel": 2 * jnp.eye(3), "bias": jnp.array([0.0, 1.0, 2.0])}
    found = modules.forward(table, {"g": {"d": leaves}}, jnp.asarray(image))
    factors = 2 * image.mean((0, 1)) + np.arange(3)
    np.testing.assert_allclose(found, image * factors, rtol=1e-5)
    (row,) = layers.geometry(table, (4, 5, 3))
    assert row.shape == (4, 5, 3) and row.stride == 1
    wrong = (Gate("g", (GlobalAveragePool("m"), Dense("d", 2))),)
    with pytest.raises(ValueError, match=r"layer g multiplies 3 channels .* \(2,\)"):
        layers.geometry(wrong, (4, 5, 3))


def test_branches_are_joined_in_order() -> None:
    table = (Concatenation("c", ((), (Conv("conv", 2, kernel=1),))),)
    image = np.random.default_rng(0).normal(size=(4, 5, 3)).astype(np.float32)
    params = {"c": {"conv": {"kernel": jnp.ones((1, 1, 3, 2)), "bias": jnp.zeros(2)}}}
    found = np.asarray(modules.forward(table, params, jnp.asarray(image)))
    np.testing.assert_array_equal(found[..., :3], image)
    np.testing.assert_allclose(found[..., 3], image.sum(-1), rtol=1e-5, atol=1e-6)
    (row,) = layers.geometry(table, (4, 5, 3))
    assert row.shape == (4, 5, 5)
    wrong = (Concatenation("c", ((), (Conv("conv", 2, kernel=2),))),)
    with pytest.raises(ValueError, match="layer c joins"):
        layers.geometry(wrong, (4, 5, 3))


def test_nested_parameters_are_named_by_their_path() -> None:
    network = NETWORKS["efficientnet_lite0"]
    shapes = layers.parameter_shapes(network.layers, network.image_shape)
    assert shapes["block3/expand/kernel"] == (1, 1, 24, 144)
    assert shapes["block3/depthwise/kernel"] == (5, 5, 1, 144)
    assert shapes["logits/kernel"] == (1280, 1000)


def test_bfloat16_is_kept_through_every_kind_of_layer() -> None:
    table: tuple[layers.Layer, ...] = (
        Conv("conv", 8, kernel=3, padding=1),
        Relu("relu", ceiling=6.0),
        LocalResponseNorm("norm", size=5, kappa=1.0, alpha=2e-5, beta=0.75),
        MaxPool("pool", window=3, stride=2, padding=(0, 1)),
        Residual("sum", (DepthwiseConv("depth", 3, padding=1),)),
        Pointwise("point", 8),
        *(Smooth(name, name) for name in get_args(Smooth.__annotations__["function"])),
        LayerNorm("channels", 1e-6),
        Gate("gate", (GlobalAveragePool("mean"), Dense("factors", 8))),
        Concatenation("twice", ((Conv("narrow", 2, kernel=1),), ())),
        Tokens("tokens"),
        Attention("attention", heads=2),
        ClassToken("token"),
        Dense("logits", 5),
    )
    shapes = layers.parameter_shapes(table, (16, 16, 3))
    params = conversion.nest({name: jnp.ones(shape) for name, shape in shapes.items()})
    found = modules.activations(table, params, jnp.ones((16, 16, 3)))
    code = modules.forward(table, params, jnp.ones((16, 16, 3)), dtype=jnp.bfloat16)
    assert code.dtype == jnp.bfloat16
    assert code.shape == (5,)
    np.testing.assert_allclose(code, found["logits"], rtol=0.05)
    inside = {Block, DepthwiseConv, GlobalAveragePool}
    kinds = {type(layer) for layer in table} | inside
    assert kinds == set(get_args(layers.Layer))


def test_an_even_window_of_channels_is_refused() -> None:
    norm = LocalResponseNorm("norm", size=4, kappa=1.0, alpha=1.0, beta=0.5)
    with pytest.raises(ValueError, match="no centre"):
        modules.local_response_norm(jnp.ones((2, 2, 8)), norm)


def test_outputs_of_convolutions_are_those_before_the_relu() -> None:
    table = (
        Block("stem", (Conv("conv", 8, kernel=3, stride=2), Relu("relu", ceiling=6.0))),
        Residual(
            "sum",
            (
                Conv("wide", 8, kernel=3, padding=1),
                DepthwiseConv("depth", 3, padding=1),
            ),
            (Conv("shortcut", 8, kernel=1),),
        ),
        Conv("grouped", 4, kernel=1, groups=2),
        GlobalAveragePool("pooled"),
        Dense("logits", 5),
    )
    random = np.random.default_rng(0)
    params: dict[str, Any] = {}
    for name, shape in layers.parameter_shapes(table, (16, 16, 3)).items():
        *scopes, leaf = name.split("/")
        branch = params
        for scope in scopes:
            branch = branch.setdefault(scope, {})
        branch[leaf] = jnp.asarray(random.normal(size=shape), jnp.float32)
    x = jnp.asarray(random.normal(size=(16, 16, 3)), jnp.float32)
    found = modules.convolution_outputs(table, params, x)
    convolutions = [n for n, layer, _ in layers.weighted(table, x.shape)][:-1]
    assert sorted(found) == sorted(convolutions)
    outputs = modules.activations(table, params, x)
    stem = jnp.clip(found["stem/conv"], 0, 6)
    np.testing.assert_allclose(stem, outputs["stem"], rtol=1e-5)
    assert np.min(found["stem/conv"]) < 0
    both = found["sum/depth"] + found["sum/shortcut"]
    np.testing.assert_allclose(both, outputs["sum"], rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(found["grouped"], outputs["grouped"], rtol=1e-5)
