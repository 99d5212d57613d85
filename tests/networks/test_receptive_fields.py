"""Receptive fields: the paper's sizes, and where derivatives are not zero."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import Array

from invjax import callables
from invjax.networks import NETWORKS, layers, modules
from invjax.networks.layers import (
    Attention,
    Block,
    Concatenation,
    Conv,
    Dense,
    DepthwiseConv,
    Gate,
    GlobalAveragePool,
    Layer,
    LayerNorm,
    MaxPool,
    Pointwise,
    Residual,
    Tokens,
)
from invjax.networks.receptive_fields import Window, receptive_field
from invjax.representations import masks, paper
from tests.conftest import micro_representation

# Side in pixels of the receptive field of the central 5 x 5 patch of CNN-A's layers.
PATCH_SIDES = {
    "conv1": 27,
    "mpool1": 51,
    "conv2": 83,
    "norm2": 131,
    "relu3": 163,
    "conv4": 195,
    "relu5": 227,
    "mpool5": 323,
}


@pytest.mark.parametrize(("layer", "side"), PATCH_SIDES.items())
def test_patches_of_cnn_a_have_the_fields_of_the_paper(layer: str, side: int) -> None:
    network = NETWORKS["caffenet"]
    table = network.until(layer)
    row = layers.geometry(table, network.image_shape)[-1]
    window = masks.central_window(row.shape)
    field = receptive_field(table, network.image_shape, window=window)
    assert (field.full.height, field.full.width) == (side, side)
    assert field.inside.height == min(side, 227)
    if layer != "mpool5":
        # The patch of mpool5 is the first five of six rows and columns.
        assert field.full.centre == (113, 113)


def test_one_neuron_has_the_field_of_the_geometry() -> None:
    lites = "efficientnet_lite0", "efficientnet_lite1"
    more = "resnet18", "mobilenet_v2", "squeezenet1_0", "convnext_tiny"
    for name in ("alexnet", "vgg16", "resnet50", *lites, "caffenet", *more):
        network = NETWORKS[name]
        for row in layers.geometry(network.layers, network.image_shape):
            table = network.until(row.name)
            window = Window(0, 0, 0, 0) if len(row.shape) == 3 else None
            field = receptive_field(table, network.image_shape, window=window)
            assert field.full.height == row.receptive_field, (name, row.name)
            if window and row.shape[0] > 1:
                other = receptive_field(
                    table, network.image_shape, window=Window(1, 1, 1, 1)
                )
                assert other.full.left - field.full.left == row.stride


def test_a_dense_layer_depends_on_the_whole_image() -> None:
    network = NETWORKS["caffenet"]
    field = receptive_field(network.until("fc7"), network.image_shape)
    assert field.full.height == 355
    assert field.inside == (0, 0, 226, 226)


def _touched(
    function: Callable[..., Array], image_shape: tuple[int, ...], window: Window
) -> Window:
    """Bounds of the pixels that change a window of the code of some random image."""

    def response(image: Array, weights: Array) -> Array:
        code = function(image)
        part = code[window.top : window.bottom + 1, window.left : window.right + 1]
        return jnp.sum(weights * part)

    gradient = jax.jit(jax.grad(response))
    touched = np.zeros(image_shape[:2], bool)
    for seed in range(30):
        first, second = jax.random.split(jax.random.key(seed))
        image = jax.random.uniform(first, image_shape)
        shape = jax.eval_shape(function, image).shape[-1:]
        weights = jax.random.normal(second, (window.height, window.width, *shape))
        touched |= np.any(np.asarray(gradient(image, weights)) != 0, axis=-1)
    rows, columns = (np.flatnonzero(touched.any(axis)) for axis in (1, 0))
    return Window(*map(int, (rows[0], columns[0], rows[-1], columns[-1])))


@pytest.mark.parametrize("layer", ["conv1", "pool1", "relu2"])
@pytest.mark.parametrize("place", [(0, 0), (2, 3), (6, 6)])
def test_derivatives_are_not_zero_in_exactly_the_field(
    layer: str, place: tuple[int, int]
) -> None:
    phi = micro_representation(layer)
    row, column = place
    window = Window(row, column, row, column)
    expected = phi.receptive_field(window=window).inside
    assert _touched(phi, (32, 32, 3), window) == expected


@pytest.mark.parametrize(
    "table",
    [
        (
            Conv("a", 3, kernel=3, stride=2, padding=(0, 1)),
            Residual(
                "r",
                (DepthwiseConv("d", kernel=5, padding=2),),
                (Block("b", (Conv("s", 3, kernel=1),)),),
            ),
            MaxPool("p", window=2, stride=2, padding=(1, 0)),
        ),
        (
            Conv("a", 3, kernel=3, stride=2, padding=1),
            LayerNorm("n", 1e-6),
            Concatenation(
                "c",
                ((Pointwise("one", 2),), (Conv("three", 4, kernel=3, padding=(0, 2)),)),
            ),
        ),
        (
            Conv("a", 3, kernel=3, stride=4, padding=1),
            Gate("g", (GlobalAveragePool("m"), Dense("d", 3))),
            Conv("b", 2, kernel=1),
        ),
    ],
)
def test_unequal_paddings_and_branches(table: tuple[Layer, ...]) -> None:
    shapes = layers.parameter_shapes(table, (17, 20, 3))
    random = np.random.default_rng(0)
    params: dict[str, Any] = {}
    for name, shape in shapes.items():
        *scopes, leaf = name.split("/")
        branch = params
        for scope in scopes:
            branch = branch.setdefault(scope, {})
        branch[leaf] = jnp.asarray(random.normal(size=shape), jnp.float32)
    function = jax.tree_util.Partial(modules.forward, table, params)
    shape = jax.eval_shape(function, jnp.zeros((17, 20, 3))).shape
    for window in (
        Window(0, 0, 0, 0),
        Window(1, 2, 2, 2),
        Window(shape[0] - 1, shape[1] - 1, shape[0] - 1, shape[1] - 1),
    ):
        field = receptive_field(table, (17, 20, 3), window=window)
        assert _touched(function, (17, 20, 3), window) == field.inside


def test_tokens_depend_on_the_whole_image() -> None:
    table = (
        Conv("patches", 6, kernel=4, stride=4),
        Tokens("tokens"),
        Attention("attention", heads=2),
        Attention("again", heads=2),
    )
    rows = layers.geometry(table, (16, 16, 3))
    assert [row.receptive_field for row in rows] == [4, 4, 16, 16]
    assert rows[-1].shape == (17, 6) and rows[-1].stride == 4
    field = receptive_field(table, (16, 16, 3))
    assert field.full == field.inside == (0, 0, 15, 15)
    with pytest.raises(ValueError, match="no places to choose from"):
        receptive_field(table, (16, 16, 3), window=Window(0, 0, 0, 0))


@pytest.mark.parametrize("name", ["hog", "hogb", "dsift"])
@pytest.mark.parametrize("fraction", [0.0, 0.5, 1.0])
def test_shallow_fields(name: str, fraction: float) -> None:
    phi, shape = paper.SHALLOW[name], (69, 86, 1)
    rows, columns, _ = callables.code_shape(phi, shape)
    row, column = round(fraction * (rows - 1)), round(fraction * (columns - 1))
    window = Window(row, column, row, column)
    field = phi.receptive_field(window=window, image_shape=shape)
    assert field.full.height == phi.geometry.receptive_field
    assert _touched(phi, shape, window) == field.inside


def test_refusals() -> None:
    table = NETWORKS["alexnet"].until("relu1")
    with pytest.raises(ValueError, match="not inside 55 x 55"):
        receptive_field(table, (224, 224, 3), window=Window(0, 0, 0, 55))
    table = NETWORKS["alexnet"].until("fc6")
    with pytest.raises(ValueError, match="no places"):
        receptive_field(table, (224, 224, 3), window=Window(0, 0, 0, 0))
