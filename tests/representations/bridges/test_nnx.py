"""Flax NNX models as representations."""

from typing import Any

import jax
import numpy as np
import pytest
from flax import nnx
from jax import Array

import invjax
from tests.representations.bridges.cutting import distance, flops, picture

SHAPE = (16, 16, 3)


class Block(nnx.Module):
    """A residual block with a dropout."""

    def __init__(self, features: int, rngs: nnx.Rngs) -> None:
        self.conv = nnx.Conv(features, features, (3, 3), rngs=rngs)
        self.norm = nnx.BatchNorm(features, rngs=rngs)
        self.dropout = nnx.Dropout(0.5, rngs=rngs)

    def __call__(self, x: Array) -> Array:
        return x + nnx.relu(self.dropout(self.norm(self.conv(x))))


class Net(nnx.Module):
    """A small residual network."""

    def __init__(self, rngs: nnx.Rngs) -> None:
        self.stem = nnx.Conv(3, 6, (3, 3), strides=2, rngs=rngs)
        self.blocks = nnx.List([Block(6, rngs), Block(6, rngs)])
        self.head = nnx.Linear(6 * 8 * 8, 5, rngs=rngs)

    def __call__(self, x: Array) -> Array:
        x = self.stem(x)
        for block in self.blocks:
            x = block(x)
        return self.head(x.reshape(x.shape[0], -1))


@pytest.fixture(scope="module")
def net() -> Net:
    model = Net(nnx.Rngs(0))
    model.train()
    return model


def test_layers_are_cut_by_their_path(net: Net):
    phi = invjax.from_nnx(net, layer="blocks.0", image_shape=SHAPE, mean=0.5, std=0.5)
    image = picture(SHAPE)
    evaluated: Any = nnx.clone(net)
    evaluated.eval()
    wanted = evaluated.blocks[0](evaluated.stem(2 * image[None] - 1))[0]
    assert distance(phi(image), wanted) < 1e-6
    assert phi.geometry == ("blocks.0", (8, 8, 6), 7, 2)
    assert phi.name == "Net/blocks.0"
    assert not any(name.startswith(("blocks.1", "head")) for name in phi.weights)


def test_the_model_is_left_as_it_is(net: Net):
    before = jax.tree.map(np.asarray, nnx.to_pure_dict(nnx.state(net, nnx.Param)))
    invjax.from_nnx(net, layer="blocks.1.norm", image_shape=SHAPE)
    after = jax.tree.map(np.asarray, nnx.to_pure_dict(nnx.state(net, nnx.Param)))
    assert jax.tree.all(jax.tree.map(np.array_equal, before, after))
    assert not net.blocks[0].dropout.deterministic
    assert type(net.stem) is nnx.Conv and type(net) is Net


def test_the_compiled_program_is_that_of_a_true_cut(net: Net):
    cut = nnx.Sequential(net.stem, net.blocks[0])
    found = [
        flops(invjax.from_nnx(model, layer=layer, image_shape=SHAPE))
        for model, layer in ((net, "blocks.0"), (cut, None), (net, None))
    ]
    assert found[0] == found[1] < 0.7 * found[2]


def test_layers_are_listed(net: Net):
    rows = invjax.nnx_layers(net, image_shape=SHAPE)
    assert [row.name for row in rows][:2] == ["stem", "blocks.0.conv"]
    assert rows[-1] == ("head", "Linear", (5,))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"layer": "blocks"}, r"no layer 'blocks'; close are blocks\.\d.*nnx_layers"),
        ({"layout": "NCHW"}, r"layout 'NCHW' \(.*\); with layout='NHWC' it can"),
        ({"mean": 127.5}, "mean is 127.5, which looks like grey levels"),
    ],
)
def test_what_is_refused_is_said_in_one_line(net: Net, options: Any, message: str):
    with pytest.raises(ValueError, match=message) as caught:
        invjax.from_nnx(net, **({"layer": "stem", "image_shape": SHAPE} | options))
    assert "\n" not in str(caught.value)


def test_other_things_than_modules_are_refused():
    with pytest.raises(ValueError, match="takes an nnx.Module, not a str"):
        invjax.from_nnx("net", image_shape=SHAPE)
