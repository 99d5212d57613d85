"""Receptive fields and strides found by gradients, against tables that tell them."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import Array

from invjax.networks import layers, modules
from invjax.networks.layers import Conv, DepthwiseConv, GlobalAveragePool, MaxPool, Relu
from invjax.networks.relaxation import Relaxation
from invjax.networks.weights import conversion
from invjax.representations.bridges import probing
from tests.representations.bridges.cutting import picture

TABLES: dict[str, tuple[layers.Layer, ...]] = {
    "padded": (
        Conv("a", 4, 3, 2, 1),
        Relu("b"),
        MaxPool("c", 3, 2, 1),
        Conv("d", 4, 3),
    ),
    "valid": (Conv("a", 4, 5, 2), Relu("b"), MaxPool("c", 2, 2), DepthwiseConv("d", 3)),
    "stride 3": (Conv("a", 4, 3, 3), Conv("b", 4, 3)),
    "even": (Conv("a", 3, 2, 2), Conv("b", 3, 2, 2), Relu("c")),
}


def _probed(function: Any, shape: tuple[int, ...], image_shape: Any) -> probing.Probed:
    image = picture(image_shape)

    @jax.jit
    def pull(cotangent: Array) -> Array:
        return jax.vjp(function, image)[1](cotangent)[0]

    return probing.probe(
        lambda cotangent: np.asarray(pull(cotangent)), "x", shape, image_shape
    )


@pytest.mark.parametrize("channels_first", [False, True])
@pytest.mark.parametrize("name", TABLES)
def test_tables_of_convolutions(name: str, channels_first: bool):
    table, image_shape = TABLES[name], (48, 48, 3)
    random = np.random.default_rng(2)
    tensors = {
        key: random.normal(size=shape).astype(np.float32)
        for key, shape in layers.parameter_shapes(table, image_shape).items()
    }
    params = jax.tree.map(jnp.asarray, conversion.nest(tensors))
    relaxed = Relaxation(*jnp.ones(2))

    def function(image: Array) -> Array:
        code = modules.forward(table, params, image, relaxed=relaxed)
        return jnp.transpose(code, (2, 0, 1)) if channels_first else code

    wanted = layers.geometry(table, image_shape)[-1]
    shape = jax.eval_shape(function, picture(image_shape)).shape
    found = _probed(function, shape, image_shape)
    assert found.has_places
    assert found.geometry == wanted._replace(name="x", shape=shape)


def test_a_field_that_is_larger_than_the_image_is_as_large_as_the_image():
    table: Any = (Conv("a", 4, 5, 2, 2), Conv("b", 4, 9, 1, 4), Conv("c", 4, 9, 1, 4))
    image_shape = (32, 32, 3)
    random = np.random.default_rng(2)
    tensors = {
        key: random.normal(size=shape).astype(np.float32)
        for key, shape in layers.parameter_shapes(table, image_shape).items()
    }
    params = jax.tree.map(jnp.asarray, conversion.nest(tensors))
    found = _probed(
        lambda image: modules.forward(table, params, image), (16, 16, 4), image_shape
    )
    assert found.geometry[2:] == (32, 2)


def test_dense_codes_have_no_places():
    weights = np.random.default_rng(3).normal(size=(48 * 48 * 3, 20)).astype(np.float32)
    found = _probed(lambda image: image.reshape(-1) @ weights, (20,), (48, 48, 3))
    assert not found.has_places
    assert found.geometry[1:] == ((20,), 48, 32)
    table = (Conv("a", 6, 3, 2, 1), GlobalAveragePool("b"))
    kernel = np.random.default_rng(3).normal(size=(3, 3, 3, 6)).astype(np.float32)
    params = {"a": {"kernel": jnp.asarray(kernel), "bias": jnp.zeros(6)}}
    found = _probed(lambda x: modules.forward(table, params, x), (6,), (32, 32, 3))
    assert not found.has_places


@pytest.mark.parametrize("num_special", [0, 1, 5])
@pytest.mark.parametrize("mixing", [0.0, 0.3])
def test_tokens_have_places(num_special: int, mixing: float):
    random = np.random.default_rng(4)
    weights = random.normal(size=(8 * 8 * 3, 12)).astype(np.float32)
    special = random.normal(size=(num_special, 12)).astype(np.float32)

    def function(image: Array) -> Array:
        patches = image.reshape(4, 8, 4, 8, 3).swapaxes(1, 2).reshape(16, -1)
        tokens = jnp.concatenate([special, patches @ weights])
        mean = jnp.broadcast_to(tokens.mean(0), tokens.shape)
        return (1 - mixing) * tokens + mixing * mean

    found = _probed(function, (16 + num_special, 12), (32, 32, 3))
    assert found.has_places
    assert found.geometry.stride == 8
    assert found.geometry.receptive_field == (32 if mixing else 8)


def test_rows_alone_are_places():
    found = _probed(lambda image: image.mean((1, 2)), (32,), (32, 16, 3))
    assert found.has_places and found.geometry.stride == 1


def test_decoders_have_the_stride_of_their_output():
    def function(image: Array) -> Array:
        small = image.reshape(8, 4, 8, 4, 3).mean((1, 3))
        mixed = small + jnp.roll(small, 1, (0, 1))
        return jnp.repeat(jnp.repeat(mixed, 4, 0), 4, 1)

    assert _probed(function, (32, 32, 3), (32, 32, 3)).geometry.stride == 1
