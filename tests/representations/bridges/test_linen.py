"""Flax Linen modules as representations."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen
from jax import Array

import invjax
from tests.representations.bridges.cutting import distance, flops, picture

SHAPE = (16, 16, 3)
EVALUATING = {"train": False}


class Block(linen.Module):
    """A convolution that is normalised and dropped out."""

    @linen.compact
    def __call__(self, x: Array, train: bool) -> Array:
        x = linen.Conv(6, (3, 3))(x)
        x = linen.BatchNorm(use_running_average=not train)(x)
        return linen.relu(linen.Dropout(0.5, deterministic=not train)(x))


class Net(linen.Module):
    """A network in training mode, unless it is told otherwise."""

    @linen.compact
    def __call__(self, x: Array, train: bool = True) -> Array:
        x = linen.Conv(6, (3, 3), strides=2)(x)
        x = linen.remat(Block, static_argnums=(2,))(name="inner")(x, train)
        return linen.Dense(4)(x.reshape(x.shape[0], -1))


class Attention(linen.Module):
    """A transformer's block, with the softmax of its attention inside of it."""

    @linen.compact
    def __call__(self, x: Array) -> Array:
        x = linen.Conv(8, (4, 4), strides=4)(x).reshape(x.shape[0], 16, 8)
        return x + linen.MultiHeadDotProductAttention(2)(linen.LayerNorm()(x))


@pytest.fixture(scope="module")
def variables() -> Any:
    keys = {"params": jax.random.key(0), "dropout": jax.random.key(1)}
    return Net().init(keys, jnp.ones((1, *SHAPE)))


def test_layers_are_cut_by_their_path(variables: Any):
    phi = invjax.from_linen(
        Net(),
        variables=variables,
        layer="inner",
        image_shape=SHAPE,
        arguments=EVALUATING,
    )
    image = picture(SHAPE)
    _, kept = Net().apply(
        variables, image[None], train=False, capture_intermediates=True
    )
    wanted = kept["intermediates"]["inner"]["__call__"][0][0]
    assert distance(phi(image), wanted) < 1e-6
    assert phi.geometry == ("inner", (8, 8, 6), 7, 2)
    assert not any("Dense" in name for name in phi.weights)


def test_bound_modules_have_their_variables(variables: Any):
    bound = Net().bind(variables)
    options: Any = {"layer": "Conv_0", "image_shape": SHAPE, "arguments": EVALUATING}
    phi, other = (
        invjax.from_linen(bound, **options),
        invjax.from_linen(Net(), variables=variables, **options),
    )
    image = picture(SHAPE)
    assert np.array_equal(phi(image), other(image))
    assert phi.weights_digest == other.weights_digest


def test_the_compiled_program_is_that_of_a_true_cut(variables: Any):
    cut = linen.Conv(6, (3, 3), strides=2)
    below = {"params": variables["params"]["Conv_0"]}
    found = [
        flops(phi)
        for phi in (
            invjax.from_linen(
                Net(),
                variables=variables,
                layer="Conv_0",
                image_shape=SHAPE,
                arguments=EVALUATING,
            ),
            invjax.from_linen(cut, variables=below, image_shape=SHAPE),
        )
    ]
    assert found[0] == found[1]


def test_tokens_of_a_transformer():
    module = Attention()
    variables = module.init(jax.random.key(0), jnp.ones((1, *SHAPE)))
    phi = invjax.from_linen(module, variables=variables, image_shape=SHAPE)
    assert phi.has_places and phi.geometry == ("output", (16, 8), 16, 4)
    rows = invjax.linen_layers(module, variables=variables, image_shape=SHAPE)
    assert ("LayerNorm_0", "LayerNorm", (16, 8)) in rows


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"layer": "Dens_0"}, "no layer 'Dens_0'; close are Dense_0"),
        ({"arguments": None}, r"training mode \(.*arguments={'train': False}"),
    ],
)
def test_what_is_refused_is_said_in_one_line(
    variables: Any, options: Any, message: str
):
    given = {"layer": "inner", "image_shape": SHAPE, "arguments": EVALUATING} | options
    with pytest.raises(ValueError, match=message) as caught:
        invjax.from_linen(Net(), variables=variables, **given)
    assert "\n" not in str(caught.value)


def test_variables_are_needed():
    with pytest.raises(ValueError, match="takes variables=..., too"):
        invjax.from_linen(Net(), image_shape=SHAPE)
